"""A flood of webhooks while the hub's host is killed three times and its storage restarts once: what was taken is done."""

import json
import os
import threading
import time
import uuid
from contextlib import ExitStack
from pathlib import Path

import pytest
import requests
from azure.storage.queue import QueueServiceClient

from devhost.child import Child
from tests.app.conftest import ROOT, SECRET, Hub, hub_environment, plain_session, settings_of, wait_until
from tests.conftest import ACCOUNT, ACCOUNT_KEY, free_ports, running_azurite

pytestmark = pytest.mark.xdist_group("app-flood")

WEBHOOKS = int(os.environ.get("CRMHUB_FLOOD_WEBHOOKS", "4000"))
SENDERS = int(os.environ.get("CRMHUB_FLOOD_SENDERS", "8"))
ACCOUNTS = 5 * SENDERS
PATIENCE = 300 + WEBHOOKS / 5
INVISIBLE = 3 + WEBHOOKS // 1000
"""Seconds. Azurite takes the longer for each message the more there are in its queue, a fifteenth of a second with 15,000;
to take one out of sight for longer costs as much as to work on it.
"""
KEY = "the~key/of+a+flood-0123456789"


class Parts:
    """The storage, with its data on disk, and the hub over it; both come back at their own addresses."""

    def __init__(self, folder: Path, authority: Path):
        self._folder = folder
        self._authority = authority
        *self._storage_ports, self._port = free_ports(4)
        self._storage = ExitStack()
        self._azurite = ""
        self._child = None
        self.start_storage()
        self.start()

    def start_storage(self):
        folder = self._folder / "azurite"
        running = running_azurite(ACCOUNT, ACCOUNT_KEY, ports=self._storage_ports, folder=folder)
        self._azurite = self._storage.enter_context(running)

    def stop_storage(self):
        self._storage.close()

    def start(self):
        settings = self._folder / "settings.json"
        settings.write_text('{"IsEncrypted": false, "Values": {}}')
        environment = hub_environment(self._azurite, self._authority)
        environment |= {"WEBHOOKS_PER_SOURCE": "600000", "WEBHOOKS_PER_MINUTE": "600000"}
        arguments = [
            "--port",
            str(self._port),
            "--settings",
            str(settings),
            "--queue-invisibility",
            str(INVISIBLE),
        ]
        self._child = Child(
            ROOT, *arguments, "--poll-min", "0.05", "--poll-max", "0.2", env=environment
        ).ready()

    def messages(self):
        """How many wait in the hub's queues, or are being worked on."""
        time.sleep(1)
        with QueueServiceClient.from_connection_string(self._azurite) as queues:
            return sum(
                queues.get_queue_client(each.name).get_queue_properties().approximate_message_count
                for each in queues.list_queues()
                if not each.name.endswith("-poison")
            )

    def hub(self, session):
        return Hub(self._child.url, self._child, session)

    def kill(self):
        self._child.process.kill()
        self._child.wait()

    def stop(self):
        self._child.stop()
        self.stop_storage()


class Sender:
    """Changes its own accounts, and tells of each change until that is taken."""

    def __init__(self, sandbox, url, accounts, count):
        self.sandbox, self.url, self.accounts, self.left = sandbox, url, accounts, count
        self.taken = []
        self.thread = threading.Thread(target=self._send, daemon=True)

    def _send(self):
        with plain_session() as session:
            while self.left:
                rid = self.accounts[self.left % len(self.accounts)]
                self.sandbox.update(rid, name=f"Flood {uuid.uuid4()}")
                body = {
                    "PrimaryEntityName": "account", "PrimaryEntityId": rid, "MessageName": "Update",
                    "OperationId": str(uuid.uuid4()), "OperationCreatedOn": "/Date(1767607872000+0000)/",
                }  # fmt: skip
                self.taken.append(self._until_taken(session, json.dumps(body)))
                self.left -= 1

    def _until_taken(self, session, body):
        headers = {"content-type": "application/json", "x-hub-token": KEY}
        while True:
            try:
                answer = session.post(self.url, data=body, headers=headers, timeout=120)
            except requests.RequestException:  # the host is dead
                time.sleep(0.1)
                continue
            if answer.status_code == 202:
                return answer.json()["id"]
            assert answer.status_code in (500, 503), answer.text
            time.sleep(0.1)


def test_every_webhook_that_was_taken_is_done(tmp_path, authority, start_sandbox):
    sandbox = start_sandbox("--records", str(ACCOUNTS))
    sandbox.control("POST", "options", {"limits": {"requests": 10**9, "seconds": 10**9}})
    parts = Parts(tmp_path, authority)
    try:
        with plain_session() as session:
            _flood(parts, sandbox, session)
    finally:
        parts.stop()


def _flood(parts, sandbox, session):
    hub = parts.hub(session)
    body = {
        "slug": "flood", "connector": "dynamics365", "settings": settings_of(sandbox.facts), "schedule": {},
        "secrets": {"client_secret": SECRET, "webhook_key": KEY}, "entities": {"account": "pull"},
    }  # fmt: skip
    hub.ok("POST", "/api/integrations", body)
    hub.run("flood")
    (address,) = hub.ok("POST", "/api/integrations/flood/webhook")["value"]
    url = hub.url + address["url"].removeprefix("https://hub.example.test")
    accounts = sorted(sandbox.accounts())
    senders = [
        Sender(sandbox, url, accounts[number::SENDERS], WEBHOOKS // SENDERS) for number in range(SENDERS)
    ]
    for each in senders:
        each.thread.start()

    def taken():
        return sum(len(each.taken) for each in senders)

    for at in (0.2, 0.4, 0.6, 0.8):
        wait_until(lambda at=at: taken() >= WEBHOOKS * at, seconds=PATIENCE)
        if at == 0.6:
            parts.stop_storage()
            parts.start_storage()
        else:
            parts.kill()
            parts.start()
    for each in senders:
        each.thread.join(PATIENCE)
        assert not each.thread.is_alive()
    hub = parts.hub(session)
    told = {each for sender in senders for each in sender.taken}
    assert len(told) == WEBHOOKS
    # One whose answer was lost with the host was taken too, and is sent again. All of them are looked at only when the
    # queues are empty: the storage takes long to list them.
    wait_until(lambda: parts.messages() == 0, seconds=PATIENCE)
    wait_until(
        lambda: told <= (found := _events(hub)).keys() and set(found.values()) == {"done"}, seconds=PATIENCE
    )
    # Nothing is read later than its hint, so the last change of each account is there, or soon is.
    names = {rid: values["name"] for rid, values in sandbox.accounts().items()}
    wait_until(
        lambda: {rid: each["name"] for rid, each in hub.stored("flood").items()} == names, seconds=PATIENCE
    )
    assert all(each["version"] > 1 for each in hub.stored("flood").values())


def _events(hub):
    """The state of each; none is listed twice."""
    found = [each for page in hub.pages("/api/events?connection=flood&top=200") for each in page]
    states = {each["id"]: each["state"] for each in found}
    assert len(states) == len(found)
    return states
