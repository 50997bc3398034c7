"""Two Dataverse tenants that share contacts through the hub, and what people do there."""

import uuid
from dataclasses import dataclass, field
from functools import partial

import pytest

from tests.app.conftest import SECRET, SOON, lone_host, settings_of, wait_until

PATH = "/api/conflicts"
patient = partial(wait_until, seconds=150)
"""What a busy machine does not begin in time comes again with the next sweep."""
SETTINGS = {**SOON, "BREAKER_FLIPS": "2"}


@pytest.fixture(scope="package")
def hub(authority, tmp_path_factory):
    with lone_host(authority, tmp_path_factory, SETTINGS) as hub:
        yield hub


@pytest.fixture(scope="package")
def remotes(start_sandbox):
    return {name: start_sandbox("--records", "0") for name in "ab"}


@dataclass
class Sides:
    """Two tenants that share contacts through the hub, and what people do there. `slugs`: of their connections."""

    hub: object
    remotes: dict
    slugs: dict = field(default_factory=dict)

    def connect(self, name, **sync):
        slug = f"{name}-{uuid.uuid4().hex[:8]}"
        body = {
            "slug": slug, "connector": "dynamics365", "settings": settings_of(self.remotes[name].facts),
            "secrets": {"client_secret": SECRET}, "entities": {"contact": {"direction": "both", **sync}},
            "schedule": {},
        }  # fmt: skip
        body["settings"] = {key: value for key, value in body["settings"].items() if value}
        self.hub.ok("POST", "/api/integrations", body)
        self.slugs[name] = slug
        self.pull(name)

    def pull(self, name, mode="incremental"):
        run = self.hub.run(self.slugs[name], mode)
        assert run["status"] == "succeeded", run
        return run

    def add(self, name, **values):
        return self.remotes[name].control("POST", "rows/contact", {"values": values})["id"]

    def edit(self, name, rid, **values):
        self.remotes[name].control("PATCH", f"rows/contact/{rid}", {"values": values})

    def rows(self, name):
        found = self.remotes[name].control("GET", "rows/contact?limit=100000")
        return {row["id"]: row["values"] for row in found}

    def named(self, name, last):
        return [rid for rid, values in self.rows(name).items() if values.get("lastname") == last]

    def values(self, name, rid):
        return self.remotes[name].control("GET", f"rows/contact/{rid}")["values"]

    def waiting(self, side="", **which):
        which |= {"connection": self.slugs[side]} if side else {}
        parameters = "&".join(f"{name}={value}" for name, value in which.items())
        return [each for page in self.hub.pages(f"{PATH}?entity=contacts&{parameters}") for each in page]

    def asked(self, side, kind):
        """The one thing of a kind that waits at a side, as the list shows it."""
        (item,) = patient(lambda: self.waiting(side, kind=kind))
        return item

    def record(self, record_id):
        return self.hub.ok("GET", f"/api/records/contacts/{record_id}")

    def decide(self, item, take, status=200, **more):
        answer = self.hub("POST", f"{PATH}/{item['id']}", {"take": take, **more})
        assert answer.status_code == status, answer.text
        return answer.json()

    def both(self, last, **values):
        """A person who is at both sides; gives (the record's id, rid at a, rid at b)."""
        one = self.add("a", lastname=last, **values)
        self.pull("a")
        (two,) = patient(lambda: self.named("b", last))
        record = next(
            each
            for page in self.hub.pages("/api/records/contacts?top=500")
            for each in page
            if each.get("last_name") == last
        )
        patient(lambda: self.is_calm(record["id"]))
        return record["id"], one, two

    def is_calm(self, record_id):
        """Nothing is on its way: every side has the record, and what it is to have."""
        links = self.record(record_id)["links"]
        return len(links) == len(self.slugs) and all(
            each["state"] == "live" and not each["behind"] for each in links
        )

    def clash(self, one, two, **fields):
        """Both sides change the same fields: a's value becomes the hub's, and b's is asked about."""
        for name, (first, second) in fields.items():
            self.edit("a", one, **{name: first})
            self.edit("b", two, **{name: second})
        self.pull("a")

    def quiet(self):
        """A further round finds nothing to do at either side, and nothing waits."""
        for name in self.slugs:
            counts = self.pull(name)["counts"]
            assert not any(counts[each] for each in ("created", "updated", "deleted", "failed"))
        assert not any(self.waiting(name) for name in self.slugs)


@pytest.fixture
def sides(hub, remotes):
    for remote in remotes.values():
        remote.control("POST", "reset")
    made = Sides(hub, remotes)
    yield made
    for slug in made.slugs.values():
        hub.ok("DELETE", f"/api/integrations/{slug}?confirm=true")
    for page in list(hub.pages("/api/records/contacts?top=500")):
        for each in page:
            hub("DELETE", f"/api/records/contacts/{each['id']}?confirm=true")


@pytest.fixture
def linked(sides):
    """Gives the sides with one person at both."""

    def make(last, values=None, **sync):
        sides.connect("a", **sync)
        sides.connect("b", **sync)
        return sides, *sides.both(last, **(values or {}))

    return make


def path_of(item):
    return f"{PATH}/{item['id']}"


def choice(whole, take):
    (found,) = [each for each in whole["choices"] if each["take"] == take]
    return found
