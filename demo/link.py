"""Contacts of Dynamics and Odoo linked both ways, over HTTP only, and how long a change takes to the other side."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from demo import drive
from demo.fill import TABLE
from demo.http import Client
from demo.odoo import DOMAIN, Odoo, Person
from demo.parts import Parts
from demo.trouble import Trouble

CONNECTION = "odoo"
CONTACT = "contact"
_BOTH = {"direction": "both", "match": "email", "policy": "newest"}
# Odoo has one name, Dynamics has two and makes the whole of them: the whole one goes to Odoo as it is, and of a name that
# is changed there the first and the last word are what Dynamics gets.
_WHOLE = "x_whole_name"
DYNAMICS: Mapping[str, Any] = {
    # Users of Odoo are contacts there too; those without an address stay where they are.
    "entities": {TABLE: "pull", CONTACT: {**_BOTH, "filter": "email ne null and status eq 'active'"}},
    "mappings": {CONTACT: {"fields": {_WHOLE: {"type": "text", "to": "fullname", "direction": "in"}}}},
}
ODOO: Mapping[str, Any] = {
    # Odoo can't tell the parts of a longer name: those that the hub has stay when both see a contact for the first time.
    "entities": {CONTACT: {**_BOTH, "policy": "local"}},
    "mappings": {
        CONTACT: {
            "fields": {
                _WHOLE: {"type": "text", "to": "name", "required": True},
                "first_name": {"from": "{name|first}"},
                "last_name": {"from": "{name|last}"},
                # Users, and names of countries in the vendor's words, of one system are none of the other.
                **dict.fromkeys(("owner_email", "country", "state")),
            }
        }
    },
}
_WITHIN = 60.0


@dataclass(frozen=True)
class Passed:
    """A change of a person at one system, and how it came to the other."""

    id: str
    """There, where it came to."""
    email: str
    name: str
    phone: str
    seconds: float


def connect(hub: Client, odoo: Odoo) -> None:
    settings = {"base_url": odoo.url, "database": odoo.database, "username": odoo.login}
    more = {**ODOO, "confirmed_origin": odoo.url}
    drive.keep(hub, CONNECTION, "odoo", settings, {"api_key": odoo.key}, more)


def first_load(hub: Client, parts: Parts) -> Mapping[str, Mapping[str, Any]]:
    """What each has is read, then what each lacks is made there: the runs, by connection."""
    slugs = (drive.CONNECTION, CONNECTION)
    runs = [(slug, drive.start_run(hub, slug, CONTACT)) for slug in slugs]
    done = {slug: drive.ended(hub, parts, run) for slug, run in runs}
    for slug in slugs:
        drive.ended(hub, parts, drive.start_run(hub, slug, CONTACT, "push"))
    return done


def to_odoo(hub: Client, sandbox: Client, odoo: Person, parts: Parts) -> Passed:
    """A person at Dynamics gives a contact another phone, who is known at Odoo by e-mail."""
    _, rows = sandbox.call("GET", f"/rows/{CONTACT}?limit=100000")
    row = next(
        (each for each in rows if each["values"].get("statecode", 0) == 0 and _wanted(each["values"])), None
    )
    if row is None:
        raise Trouble("The sandbox has no active contact any more.")
    email = row["values"]["emailaddress1"]
    _wait(parts, f"{email} at Odoo", lambda: odoo.by_email(email))
    phone = _phone()
    sandbox.call("PATCH", f"/rows/{CONTACT}/{row['id']}", {"values": {"telephone1": phone}})
    sandbox.call("POST", "/save")
    begin = time.monotonic()
    drive.start_run(hub, drive.CONNECTION, CONTACT)

    def there() -> Mapping[str, Any] | None:
        found = odoo.by_email(email)
        return found if found and found["phone"] == phone else None

    found = _wait(parts, f"the phone of {email} at Odoo", there)
    return Passed(str(found["id"]), email, found["name"], phone, time.monotonic() - begin)


def to_dynamics(hub: Client, sandbox: Client, odoo: Person, parts: Parts) -> Passed:
    """A person at Odoo gives somebody who was first there another phone."""
    person = odoo.own()

    def there(phone: str = "") -> Mapping[str, Any] | None:
        _, rows = sandbox.call("GET", f"/rows/{CONTACT}?limit=100000")
        found = (each for each in rows if each["values"].get("emailaddress1") == person["email"])
        return next((each for each in found if phone in ("", each["values"].get("telephone1"))), None)

    _wait(parts, f"{person['email']} at Dynamics", there)
    phone = _phone()
    odoo.change(person["id"], {"phone": phone})
    begin = time.monotonic()
    drive.start_run(hub, CONNECTION, CONTACT)
    found = _wait(parts, f"the phone of {person['email']} at Dynamics", lambda: there(phone))
    seconds = time.monotonic() - begin
    return Passed(found["id"], person["email"], found["values"]["fullname"], phone, seconds)


def _wanted(values: Mapping[str, Any]) -> bool:
    """Whether the contact was first at Dynamics."""
    return bool(values.get("fullname")) and not values.get("emailaddress1", DOMAIN).endswith(DOMAIN)


def _phone() -> str:
    return datetime.now(UTC).strftime("+57 %d %H%M %S%f")[:15]


def _wait(parts: Parts, what: str, look: Callable[[], Mapping[str, Any] | None]) -> Mapping[str, Any]:
    deadline = time.monotonic() + _WITHIN
    while time.monotonic() < deadline:
        found = look()
        if found is not None:
            return found
        parts.pause(0.05)
    raise Trouble(f"The hub didn't bring {what} within {_WITHIN:g} seconds.")
