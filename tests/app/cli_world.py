"""Where the command line is tried: a hub of its own with a connection `demo`, and what its examples name."""

import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from tests.app.conftest import SECRET, Hub, Sandbox, host, settings_of, wait_until
from tests.conftest import ACCOUNT, ACCOUNT_KEY, running_azurite

SETTINGS = {
    "PUSH_DELAY_SECONDS": "0.1", "SWEEP_BUCKETS": "16", "ATTEMPT_SECONDS": "5", "PUSH_START_SECONDS": "2",
    "BRAKE_DELETES": "3", "BRAKE_DELETES_PERCENT": "1",
}  # fmt: skip
ENTITIES = {
    "account": "pull",
    "lead": {"direction": "both", "policy": "manual"},
}


@dataclass
class World:
    """The hub and two remote systems; those of `demo` and of `brake`, which its runs stop at."""

    hub: Hub
    sandbox: Sandbox
    other: Sandbox

    @property
    def env(self) -> dict[str, str]:
        return {"CRMHUB_URL": self.hub.url, "CRMHUB_KEY": self.hub.key}

    def find(self, name: str) -> str:
        """What stands in an example for a name: each time a new one."""
        ways = {
            "RUN": self.run, "RECORD": self.record, "CONFLICT": self.conflict, "LETTER": self.letter, "STOPPED": self.stopped,
            "PLAN": self.plan,
        }  # fmt: skip
        return ways[name]()

    def connect(self, slug: str, sandbox: Sandbox, entities: Any) -> None:
        body = {
            "slug": slug, "connector": "dynamics365", "settings": settings_of(sandbox.facts),
            "secrets": {"client_secret": SECRET}, "entities": entities, "schedule": {},
        }  # fmt: skip
        self.hub.ok("POST", "/api/integrations", body)

    def run(self) -> str:
        """A run that made a record."""
        self.sandbox.create(name=f"Made {uuid.uuid4()}")
        run = self.hub.run("demo")
        assert run["counts"]["created"], run
        return str(run["id"])

    def record(self) -> str:
        """An account of two versions, made in the hub."""
        made = self.hub.ok("POST", "/api/records/accounts", {"name": f"Peña {uuid.uuid4()}", "phone": "1"})
        self.hub.ok("PATCH", f"/api/records/accounts/{made['id']}", {"phone": "2"})
        return str(made["id"])

    def lead(self, **fields: str) -> dict[str, Any]:
        made: dict[str, Any] = self.hub.ok(
            "POST", "/api/records/leads", {"last_name": f"Quispe {uuid.uuid4()}", **fields}
        )
        return made

    def conflict(self) -> str:
        """A phone that both sides changed, of which a person is asked."""
        made = self.lead(phone="1")
        where = f"/api/records/leads/{made['id']}"

        def link() -> dict[str, Any] | None:
            links = self.hub.ok("GET", where)["links"]
            return next(
                (each for each in links if each["connection"] == "demo" and each["state"] == "live"), None
            )

        rid = wait_until(link)["id"]
        self.sandbox.fault("status", path="*/leads*", status=503, count=None)
        self.hub.ok("PATCH", where, {"phone": "2"})
        self.sandbox.control("PATCH", f"rows/lead/{rid}", {"values": {"telephone1": "3"}})
        self.sandbox.control("DELETE", "faults")
        self.hub.run("demo")

        def mine() -> list[str]:
            pages = self.hub.pages("/api/conflicts?entity=leads&kind=value&top=500")
            return [each["id"] for page in pages for each in page if each["record"] == made["id"]]

        return str(wait_until(mine)[0])

    def letter(self) -> str:
        """A value that the remote refuses."""
        made = self.lead(owner_email="nobody@example.com")
        uid = self.hub.ok("GET", "/api/integrations/demo")["uid"]

        def mine() -> list[str]:
            pages = self.hub.pages(f"/api/deadletters/causes/{uid}~BadRequest~owner_email?top=200")
            return [each["id"] for page in pages for each in page if each["record"] == made["id"]]

        return str(wait_until(mine)[0])

    def stopped(self) -> str:
        """A run of the connection `brake` that would have marked too many records as deleted."""
        made = [self.other.create(name=f"Lost {uuid.uuid4()}") for _ in range(8)]
        self.connect("brake", self.other, {"account": "pull"})
        self.hub.run("brake")
        for each in made:
            self.other.delete(each)
        run = self.hub.run("brake")
        assert run["status"] == "stopped", run
        return str(run["id"])

    def plan(self) -> str:
        """A plan that would make a record."""
        self.sandbox.create(name=f"Planned {uuid.uuid4()}")
        started = self.hub(
            "POST", "/api/runs", {"connection": "demo", "entities": ["account"], "mode": "plan"}
        )
        assert started.status_code == 202, started.text
        return str(self.hub.ended(started.headers["Operation-Location"])["id"])

    def tidy(self) -> None:
        """Takes away what would be in the way of the next test."""
        self.hub("DELETE", "/api/integrations/brake?confirm=true")


@contextmanager
def world(authority: Any, tmp_path_factory: Any, start_sandbox: Any) -> Iterator[World]:
    """A hub over a storage of its own: no other test's connections are there."""
    with (
        running_azurite(ACCOUNT, ACCOUNT_KEY) as azurite,
        host(azurite, authority, tmp_path_factory, SETTINGS) as hub,
    ):
        made = World(hub, start_sandbox("--records", "30"), start_sandbox("--records", "0"))
        made.connect("demo", made.sandbox, ENTITIES)
        made.hub.run("demo")
        yield made
