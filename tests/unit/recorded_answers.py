"""What a hub answers to the command line: what it gives rarely, such as a drift, and what takes long."""

import re
from typing import Any

from tests.recorded_hub import Recorded, problem

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
    """Plans, undos, reasons, logs and many conflicts of one account."""
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
