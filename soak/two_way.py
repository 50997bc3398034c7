"""Two systems linked through a hub that is killed again and again while it passes on what apps and people write.

Nothing here is threads but the app of one round, which is over before a host is started.
"""

import random
import threading
import time
from collections.abc import Mapping, Sequence
from typing import Any

import requests

from demo import drive
from demo.http import Client
from demo.parts import Parts
from demo.ports import Ports
from demo.trouble import Trouble
from soak.ledger import HUB, Account, Ledger, account_of
from soak.system import System

A, B = "system-a", "system-b"
ENTITIES = {"contact": {"direction": "both", "match": "email", "policy": "newest"}}
SETTINGS: Mapping[str, str] = {
    "PUSH_DELAY_SECONDS": "0.1",
    "SWEEP_BUCKETS": "16",
    "PUSH_START_SECONDS": "2",
    "ATTEMPT_SECONDS": "8",
    "PUSH_RECORDS": "10",
    "LEASE_SECONDS": "10",
}
"""Shortened, so that a kill costs seconds; and small pushes, so that a kill comes between two of them."""
LONGEST_PAUSE = 3.0
"""Seconds from when the pulls of a round were asked for until the kill, at most."""
_SETTLED_WITHIN = 300.0
_POLL_SECONDS = 0.5
_TABLE = "contact"


class App:
    """Writes contacts through the hub's API, and repeats what was not answered."""

    def __init__(self, system: System, ledger: Ledger) -> None:
        self._system, self._ledger = system, ledger
        self._ids: dict[str, str] = {}
        self._unanswered: list[dict[str, str]] = []
        self._edits: list[tuple[str, str]] = []

    def write(self, contacts: Sequence[dict[str, str]], edits: Sequence[tuple[str, str]]) -> None:
        """In a thread of its own: contacts to make, phones to change by e-mail; after the kill nothing is answered."""
        todo, self._unanswered = [*self._unanswered, *contacts], []
        changes, self._edits = [*self._edits, *edits], []
        with requests.Session() as session:
            session.trust_env = False
            session.headers["X-API-KEY"] = self._system.api_key
            for contact in todo:
                if not self._made(session, contact):
                    self._unanswered.append(contact)
            for email, phone in changes:
                if not self._changed(session, email, phone):
                    self._edits.append((email, phone))

    def _made(self, session: requests.Session, contact: dict[str, str]) -> bool:
        answer = self._asked(session, "POST", "/api/records/contacts", contact)
        if (
            answer is not None and answer.status_code == 409
        ):  # an earlier request that was not answered made it
            path = f"/api/records/contacts?filter=email eq '{contact['email']}'"
            answer = self._asked(session, "GET", path)
            found = answer.json()["value"] if answer is not None else []
            body = found[0] if found else None
        else:
            body = answer.json() if answer is not None else None
        if body is None:
            return False
        self._ids[contact["email"]] = body["id"]
        self._ledger.made(contact["email"], phone=contact["phone"])
        return True

    def _changed(self, session: requests.Session, email: str, phone: str) -> bool:
        path = f"/api/records/contacts/{self._ids[email]}"
        answer = self._asked(session, "PATCH", path, {"phone": phone})
        if answer is not None:
            self._ledger.edited(email, "phone", phone)
        return answer is not None

    def _asked(
        self, session: requests.Session, method: str, path: str, body: Any = None
    ) -> requests.Response | None:
        """None if nobody answered, or not in earnest: the hub is going down."""
        try:
            answer = session.request(method, self._system.url + path, json=body, timeout=20)
        except requests.RequestException:
            return None
        if answer.status_code >= 500:
            return None
        if answer.status_code >= 400 and answer.status_code != 409:
            raise Trouble(f"The hub answered {method} {path} with {answer.status_code}: {answer.text[:300]}")
        return answer

    def known(self) -> list[str]:
        """E-mails of the contacts that were made by the app and answered."""
        return sorted(self._ids)

    @property
    def waits(self) -> bool:
        return bool(self._unanswered or self._edits)


class TwoWay:
    """The systems, the hub between them, and the ledger."""

    def __init__(self, system: System, parts: Parts, ports: Ports, seed: int) -> None:
        self._system, self._parts = system, parts
        self._rng = random.Random(f"two ways {seed}")
        self.ledger = Ledger()
        self.app = App(system, self.ledger)
        other, control = system.another_sandbox("sandbox-b", ports, seed)
        self._told = {A: system.sandbox, B: other}
        self._controls: Mapping[str, Client] = {A: system.control, B: control}
        self._number = 0
        self._errors: list[BaseException] = []

    def connect(self) -> None:
        for slug, told in self._told.items():
            settings = {
                "base_url": told["url"],
                "authority": told["url"],
                "tenant_id": told["tenant"],
                "client_id": told["client_id"],
            }
            body = {
                "slug": slug,
                "connector": "dynamics365",
                "entities": ENTITIES,
                "schedule": {"minutes": 1},
            }
            secrets = {"client_secret": told["client_secret"]}
            self._system.hub.call(
                "POST", "/api/integrations", {**body, "settings": settings, "secrets": secrets}
            )
        self._pulled()

    def round(self, contacts: int) -> tuple[float, int]:
        """The app makes contacts and changes some, people change others at both systems; meanwhile the hub is killed.
        Gives the seconds until the kill, and how many contacts were on their way when it came.
        """
        made = [self._contact() for _ in range(contacts)]
        known = self.app.known()
        edits = [
            (email, f"+57 {self._rng.randrange(10**9):09}")
            for email in self._rng.sample(known, min(len(known), contacts // 2))
        ]
        writer = threading.Thread(target=self._write, args=(made, edits))
        began = time.monotonic()
        writer.start()
        self._people(contacts // 2)
        self._start_pulls()
        self._parts.pause(self._rng.uniform(0, LONGEST_PAUSE))
        self._system.kill_hub()
        struck = time.monotonic() - began
        writer.join()
        if self._errors:
            raise self._errors[0]
        return struck, self._on_their_way()

    def _write(self, made: Sequence[dict[str, str]], edits: Sequence[tuple[str, str]]) -> None:
        try:
            self.app.write(made, edits)
        except BaseException as error:  # noqa: BLE001 - raised in the main thread
            self._errors.append(error)

    def _contact(self) -> dict[str, str]:
        self._number += 1
        number = self._number
        return {
            "first_name": f"First {number}",
            "last_name": f"Last {number}",
            "email": f"person{number}@example.com",
            "phone": f"+51 {number:09}",
        }

    def _people(self, edits: int) -> None:
        """People change contacts at each system, and make one there."""
        for slug, name, column in ((A, "job_title", "jobtitle"), (B, "department", "department")):
            control = self._controls[slug]
            rows = self.rows(slug)
            for row in self._rng.sample(rows, min(len(rows), edits)):
                value = f"{name} {self._rng.randrange(10**6)}"
                control.call("PATCH", f"/rows/{_TABLE}/{row['id']}", {"values": {column: value}})
                self.ledger.edited(row["emailaddress1"], name, value)
            new = self._contact()
            values = {
                "firstname": new["first_name"],
                "lastname": new["last_name"],
                "emailaddress1": new["email"],
                "telephone1": new["phone"],
            }
            control.call("POST", f"/rows/{_TABLE}", {"values": values})
            self.ledger.made(new["email"], phone=new["phone"])

    def _start_pulls(self) -> None:
        for slug in (A, B):
            drive.start_run(self._system.hub, slug)

    def _pulled(self) -> None:
        """A pull of each system, to its end."""
        for slug in (A, B):
            run_id = drive.start_run(self._system.hub, slug)
            while self._system.run(run_id)["ended_at"] is None:
                self._parts.pause(_POLL_SECONDS)

    def rows(self, slug: str) -> Sequence[dict[str, Any]]:
        """The contacts at a system, in its own words."""
        _, rows = self._controls[slug].call("GET", f"/rows/{_TABLE}?limit=1000000")
        return [{**row["values"], "id": row["id"]} for row in rows]

    def _on_their_way(self) -> int:
        held = [{row["emailaddress1"] for row in self.rows(slug)} for slug in (A, B)]
        return sum(not all(email in each for each in held) for email in self.ledger.contacts)

    def settle(self) -> Account:
        """Waits until everything has arrived, or nothing more comes; then reads once more, and gives the account."""
        deadline = time.monotonic() + _SETTLED_WITHIN
        while True:
            if self.app.waits:
                self.app.write([], [])
            self._pulled()
            account = self.account()
            if (account.good and not self.app.waits) or time.monotonic() > deadline:
                break
            self._parts.pause(_POLL_SECONDS * 4)
        # Whatever might come twice has its time.
        self._parts.pause(2 * float(SETTINGS["ATTEMPT_SECONDS"]) if account.good else 0)
        self._pulled()
        return self.account()

    def account(self) -> Account:
        stored = [each for each in self._system.stored("contacts") if not each.get("deleted_at")]
        return account_of(self.ledger, {HUB: stored, A: self.rows(A), B: self.rows(B)})

    def close(self) -> None:
        self._controls[B].close()
