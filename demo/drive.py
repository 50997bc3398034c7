"""The hub's main job, over HTTP only, as an app and a person at the vendor would see it."""

import secrets
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlsplit

from demo.fill import TABLE
from demo.http import Client
from demo.parts import Parts
from demo.show import Advance, progress
from demo.trouble import Trouble

CONNECTION = "demo"
ACCOUNTS: Mapping[str, Any] = {"entities": {TABLE: "pull"}}
_SCHEDULE = {"minutes": 1}
_FOUND_WITHIN = 120.0


@dataclass(frozen=True)
class Noticed:
    """A change at the vendor, and how the hub came to know it."""

    name: str
    rid: str
    record_id: str
    phone: str
    version: int
    seconds: float


def connect(
    hub: Client, sandbox: Mapping[str, Any], slug: str = CONNECTION, what: Mapping[str, Any] = ACCOUNTS
) -> None:
    """The connection to the sandbox of Dynamics 365. `what`: its entities, and the mappings of these."""
    settings = {
        "base_url": sandbox["url"],
        "authority": sandbox["url"],
        "tenant_id": sandbox["tenant"],
        "client_id": sandbox["client_id"],
    }
    keep(hub, slug, "dynamics365", settings, {"client_secret": sandbox["client_secret"]}, what)


def keep(
    hub: Client,
    slug: str,
    connector: str,
    settings: Mapping[str, str],
    credentials: Mapping[str, str],
    what: Mapping[str, Any],
) -> None:
    """A connection, made or brought up to date, e.g. if the sandbox's port is another one now."""
    path = f"/api/integrations/{slug}"
    status, found = hub.call("GET", path, also=(404,))
    if status == 404:
        # Without a schedule as yet: the first run is the one that is shown, not one that a timer began.
        body = {"slug": slug, "connector": connector, "schedule": {}, **what}
        hub.call("POST", "/api/integrations", {**body, "settings": settings, "secrets": credentials})
        return
    if {name: found["settings"].get(name) for name in settings} != settings:
        hub.call("PATCH", path, {"settings": settings, "secrets": credentials})
    if not what["entities"].keys() <= found["entities"].keys():  # of a demo that had less
        hub.call("PATCH", path, what)
    if found["state"] == "paused":
        hub.call("POST", f"{path}/resume")
    hub.call("POST", f"{path}/test")


def schedule(hub: Client, slug: str = CONNECTION) -> None:
    """From here on the hub pulls by itself, each minute."""
    path = f"/api/integrations/{slug}"
    _, found = hub.call("GET", path)
    if found["schedule"] != _SCHEDULE:
        hub.call("PATCH", path, {"schedule": _SCHEDULE})


def start_run(hub: Client, slug: str = CONNECTION, entity: str = "", mode: str = "incremental") -> str:
    """The id of a new run, or of the one that is at work already. `entity`: "" for a connection that has one."""
    body = {"connection": slug, "mode": mode, "entities": [entity] if entity else []}
    status, answer = hub.call("POST", "/api/runs", body, also=(409,))
    if status != 409:
        return str(answer["id"])
    _, found = hub.call("GET", f"/api/integrations/{slug}")
    running = next(each["running"] for each in found["sync"] if entity in ("", each["entity"]))
    if running is None:  # it has just ended
        return start_run(hub, slug, entity, mode)
    return str(running)


def sync(hub: Client, parts: Parts, total: int) -> Mapping[str, Any]:
    """The run that pulls the accounts, from start to end, as GET /api/runs/{id} tells it."""
    run_id = start_run(hub, CONNECTION, TABLE)
    with progress("Pulling accounts into the hub", total) as advance:
        return ended(hub, parts, run_id, advance)


def ended(hub: Client, parts: Parts, run_id: str, advance: Advance = lambda _done: None) -> Mapping[str, Any]:
    """A run, once it has ended. Raises Trouble if it did not succeed."""
    while True:
        _, run = hub.call("GET", f"/api/runs/{run_id}")
        advance(run["read"])
        if run["ended_at"] is not None:
            break
        parts.pause(0.1)
    if run["status"] != "succeeded":
        problem = run["problem"] or {}
        raise Trouble(f"The run {run_id} {run['status']}: {problem.get('message', 'it gives no reason')}")
    return dict(run)


def listen(hub: Client, url: str, sandbox: Client) -> None:
    """From here on the sandbox tells the hub of each change of an account, by webhooks."""
    path = f"/api/integrations/{CONNECTION}"
    key = secrets.token_urlsafe(32)
    hub.call("PATCH", path, {"secrets": {"webhook_key": key}})
    _, found = hub.call("GET", f"{path}/webhook")
    if not found["value"]:
        _, found = hub.call("POST", f"{path}/webhook")
    address = url + urlsplit(found["value"][0]["url"]).path
    hook = {"url": address, "authtype": 5, "authvalue": {"X-Hub-Token": key}, "tables": [TABLE]}
    sandbox.call("POST", "/options", {"webhooks": {CONNECTION: hook}})


def notice(hub: Client, sandbox: Client, parts: Parts, *, ask: bool = True) -> Noticed | None:
    """Change an account as a person at the vendor would, ask for a run, wait until the store has it.

    `ask`: False asks for none: the vendor says that there is something. None if the store has no account that still
    lives at the vendor.
    """
    _, page = hub.call("GET", "/api/records/accounts?top=100")
    found = (
        (record, link) for record in page["value"] for link in record["links"] if link["state"] == "live"
    )
    record, link = next(found, (None, None))
    if record is None or link is None:
        return None
    phone = datetime.now(UTC).strftime("+57 %d %H%M %S%f")[:15]
    begin = time.monotonic()
    sandbox.call("PATCH", f"/rows/{TABLE}/{link['id']}", {"values": {"telephone1": phone}})
    sandbox.call("POST", "/save")
    if ask:
        begin = time.monotonic()
        start_run(hub, CONNECTION, TABLE)
    while time.monotonic() - begin < _FOUND_WITHIN:
        _, now = hub.call("GET", f"/api/records/accounts/{record['id']}")
        if now.get("phone") == phone:
            seconds = time.monotonic() - begin
            return Noticed(now["name"], link["id"], now["id"], phone, now["version"], seconds)
        parts.pause(0.1)
    raise Trouble(
        f"A change at the sandbox (account {link['id']}) wasn't in the store after {_FOUND_WITHIN:g} seconds."
    )


def look(hub: Client, rid: str) -> tuple[Mapping[str, Any], float]:
    """One account live from the remote, past the store; and the seconds it took."""
    begin = time.monotonic()
    _, account = hub.call("GET", f"/api/crm/accounts/{rid}?connection={CONNECTION}")
    return account, time.monotonic() - begin
