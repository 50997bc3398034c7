"""Where the command line is tried: a hub of its own with a connection `demo`, and what its examples name; and, for what this
hub does not have yet, recorded answers.
"""

import re
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from crm_core.functions.app import build
from crm_core.functions.endpoint import ROUTES
from tests.app.conftest import SECRET, Hub, Sandbox, host, settings_of, wait_until
from tests.conftest import ACCOUNT, ACCOUNT_KEY, running_azurite
from tests.recorded_hub import Recorded, problem

SETTINGS = {
    "PUSH_DELAY_SECONDS": "0.1", "SWEEP_BUCKETS": "16", "ATTEMPT_SECONDS": "5", "PUSH_START_SECONDS": "2",
    "BRAKE_DELETES": "3", "BRAKE_DELETES_PERCENT": "1",
}  # fmt: skip
ENTITIES = {
    "account": "pull",
    "lead": {"direction": "both", "policy": "manual"},
}
LATER = {
    "plan": {"/api/runs/<run_id>/apply"},
    "undo of a run": {"/api/runs/<run_id>/undo", "/api/runs/<run_id>/apply"},
    "why": {"/api/records/<entities>/<record_id>/why/<field>"},
    "undo of a record": {"/api/records/<entities>/<record_id>/undo"},
    "logs": {"/api/integrations/logs"},
    "many conflicts": {"/api/conflicts/resolve"},
}
"""What commands need of a hub that it may not have yet: then recorded answers stand for it, until the route is there."""
NEEDS = (
    (r"sync plan|sync apply|runs decisions", "plan"),
    (r"runs undo", "undo of a run"),
    (r"records why", "why"),
    (r"records undo", "undo of a record"),
    (r"(?<!\S)logs\b", "logs"),
    (r"conflicts resolve --(kind|entity|connection|field)", "many conflicts"),
)


def is_there(what: str) -> bool:
    """Whether the hub has the routes."""
    if not ROUTES:
        build()
    return LATER[what] <= {each.path for each in ROUTES}


def needs(example: str) -> str:
    """What an example needs that the hub does not have yet; "" for nothing."""
    return next((what for form, what in NEEDS if re.search(form, example) and not is_there(what)), "")


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


# --- recorded: what API descriptions say ---------------------------------------------------------------------------

AT = "2026-11-24T13:45:00.123456Z"
OTHER_HOST = "https://hub.example.test"
RUN = {
    "id": "run-1", "connection": "demo", "entity": "account", "mode": "incremental", "status": "succeeded", "origin": "key:settings",
    "created_at": AT, "started_at": AT, "ended_at": AT, "seconds": 1.5, "read": 3,
    "counts": {"created": 1, "updated": 1, "deleted": 0, "unchanged": 1, "failed": 0}, "calls": {"remote": 1, "storage": 2},
    "problem": None, "trace": None, "since": None, "filter": None,
}  # fmt: skip
PLANNED = {
    "create": 1, "update": 1, "link": 0, "delete": 0, "revive": 0, "conflict": 1, "later": 0, "failed": 0, "unchanged": 4,
    "remote_calls": 3, "seconds": 2, "brakes": [],
    "pushes": {"odoo": {"create": 1, "update": 0, "delete": 0}},
}  # fmt: skip
DECISIONS = (
    {"id": 0, "record_id": "r-0", "entity": "account", "connection": "demo", "remote_id": "x-0", "action": "create",
     "fields": {"name": {"old": None, "new": "Peña\x1b[31m"}}, "conflicts": {},
     "pushes": [{"connection": "odoo", "action": "create", "fields": {}}]},
    {"id": 1, "record_id": "r-1", "entity": "account", "connection": "demo", "remote_id": "x-1", "action": "update",
     "fields": {"phone": {"old": "+57 1", "new": "=2"}}, "conflicts": {}, "pushes": []},
    {"id": 2, "record_id": "r-2", "entity": "account", "connection": "demo", "remote_id": "x-2", "action": "conflict",
     "fields": {}, "conflicts": {"city": {"ours": "Quito", "theirs": "Loja", "base": "Cali", "policy": "manual", "wins": None}},
     "pushes": []},
)  # fmt: skip
LINES = (
    {"time": "2026-11-24T13:45:00Z", "level": "info", "connection": "demo", "entity": "account", "run": "run-1", "event": "pull",
     "message": "3 records read"},
    {"time": "2026-11-24T13:45:01Z", "level": "error", "connection": "demo", "entity": "account", "run": "run-1", "event": "push",
     "message": "refused: línea\nuno"},
)  # fmt: skip


def paged(run: dict[str, Any], decisions: Any) -> Any:
    """A run whose decisions come two at a time, with links that name another host."""

    def answer(asked: Any) -> Any:
        first = 2 if "skiptoken=2" in asked.target else 0
        wanted = re.search(r"action=(\w+)", asked.target)
        kept = [each for each in decisions if not wanted or each["action"] == wanted[1]]
        more = {"nextLink": f"{OTHER_HOST}/api/runs/{run['id']}?skiptoken=2"} if len(kept) > first + 2 else {}
        return 200, {**run, "decisions": kept[first : first + 2], **more}

    return answer


def record_answers(hub: Recorded, *, drifted: bool = False) -> None:
    """All that `LATER` names."""
    plan = {
        **RUN,
        "id": "plan-1",
        "mode": "plan",
        "of": "incremental",
        "strategy": "remote",
        "limit": 100,
        "plan": PLANNED,
    }
    queued = {**plan, "status": "queued", "ended_at": None}
    hub.say("POST", "/api/runs", (202, queued))
    hub.say("GET", "/api/runs/plan-1", (200, {**queued, "status": "running", "progress": {"done": 1, "expected": 3, "entity": "account"}}),
            paged(plan, DECISIONS))  # fmt: skip
    hub.say("GET", "/api/runs/plan-2", paged({**plan, "id": "plan-2"}, DECISIONS))
    outcomes = ("applied", "drifted" if drifted else "applied", "applied")
    done = [{**each, "outcome": outcome} for each, outcome in zip(DECISIONS, outcomes, strict=True)]
    if drifted:
        done[1]["why"] = "phone has changed since"
    for source, way in (("plan-2", "apply"), ("undo-1", "undo")):
        sums = {"applied": 2 if drifted else 3, "drifted": int(drifted), "failed": 0}
        applied = {**RUN, "id": f"{way}-of-{source}", "mode": way, "of": source, "outcome": sums}
        hub.say("POST", f"/api/runs/{source}/apply", (202, {**applied, "status": "queued", "ended_at": None}))
        hub.say("GET", f"/api/runs/{applied['id']}", paged(applied, done))
    undo = {**plan, "id": "undo-1", "of": "undo", "undoes": "run-1"}
    hub.say("POST", "/api/runs/run-1/undo", (202, {**undo, "status": "queued", "ended_at": None}))
    hub.say("GET", "/api/runs/undo-1", paged(undo, DECISIONS))
    hub.say("GET", "/api/runs/run-1", (200, RUN))
    record = {
        "id": "r-1",
        "entity": "account",
        "etag": '"3"',
        "version": 3,
        "name": "Peña",
        "phone": "2",
        "links": [],
    }
    hub.say("GET", "/api/records/accounts/r-1", (200, record))
    hub.say("POST", "/api/records/accounts/r-1/undo", (200, {**record, "phone": "1", "version": 4, "undone": {
        "version": 1, "fields": ["phone"], "left": [{"field": "kind", "message": "kind: can't be given back."}]}}))  # fmt: skip
    hub.say("GET", "/api/records/accounts/r-1/why/phone", (200, {
        "field": "phone", "value": "2", "set": True, "since": AT, "told": None, "from": {"origin": "demo", "by": None}, "run": "run-1",
        "version": 3, "replaced": "1", "policy": None, "decided": None, "erased": [],
        "connections": [{"connection": "demo", "state": "same", "known": True, "holds": "2"}]}))  # fmt: skip
    hub.say("GET", "/api/integrations/logs", (200, {"value": [LINES[0]], "nextLink": f"{OTHER_HOST}/api/integrations/logs?skiptoken=1"}),
            (200, {"value": [LINES[1]]}))  # fmt: skip
    would = {"pushes": [{"connection": "odoo", "action": "update", "fields": {}}]}
    preview = {
        "done": False, "take": "theirs", "as_of": AT, "value": [{"id": "c-1", "kind": "value", "field": "phone", "would": would}],
        "counts": {"conflicts": 2, "left": 1, "pushes": {}, "countIsLowerBound": False},
    }  # fmt: skip
    resolving = {**RUN, "id": "resolve-1", "mode": "resolve"}
    hub.say(
        "POST", "/api/conflicts/resolve",
        lambda asked: (200, preview) if asked.body.get("preview") else (202, {**resolving, "status": "queued", "ended_at": None}),
    )  # fmt: skip
    hub.say("GET", "/api/runs/resolve-1", (200, resolving))
    hub.say("GET", "/api/integrations/nowhere", problem(404, "NotFound", "There is no connection 'nowhere'."))


NAMES = {"PLAN": "plan-2", "RUN": "run-1", "RECORD": "r-1"}
