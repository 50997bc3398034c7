"""Runs: started by people, followed by anybody."""

import re
from collections import Counter
from collections.abc import Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any, cast

from crm_core.errors import BadRequest, NotFound
from crm_core.functions import plans
from crm_core.functions.endpoint import route
from crm_core.functions.web import Call, Parameter, Reply, Role, link, whole_number
from crm_core.model.fields import instant_text, parse_instant

if TYPE_CHECKING:
    from pydantic import BaseModel

    from crm_core.functions.bodies import RunBody, SyncBody
    from crm_core.hub import Hub
    from crm_core.model.state import Run

NONE: "Mapping[str, Run]" = {}
POLL_SECONDS = 1
DEFAULT_TOP, MAX_TOP = 50, 200


def _run_body() -> "type[BaseModel]":
    from crm_core.functions.bodies import RunBody

    return RunBody


def _sync_body() -> "type[BaseModel]":
    from crm_core.functions.bodies import SyncBody

    return SyncBody


def _item(run: "Run", names: dict[str, str], now: datetime) -> dict[str, Any]:
    from crm_core.model.state import COUNTS

    end = parse_instant(run.ended_at) if run.ended_at else now
    seconds = (end - parse_instant(run.started_at)).total_seconds() if run.started_at else 0.0
    item: dict[str, Any] = {
        "id": run.id,
        "connection": names.get(run.connection, run.connection) or None,
        "entity": run.entity or None,
        "mode": run.mode,
        "status": run.status,
        "origin": run.origin,
        "created_at": run.created_at,
        "started_at": run.started_at or None,
        "ended_at": run.ended_at or None,
        "seconds": round(max(0.0, seconds), 3),
        "read": run.read,
        "counts": {name: run.counts.get(name, 0) for name in COUNTS},
        "calls": {name: run.calls.get(name, 0) for name in ("remote", "storage")},
        "problem": vars(run.problem) if run.problem else None,
        "trace": run.trace or None,
        "since": run.since or None,
        "filter": run.filter or None,
        "limit": run.limit or None,
        "strategy": run.strategy or None,
        "of": run.of or None,
        "undoes": run.undoes or None,
        "progress": {
            "done": run.read,
            "expected": run.expected if run.expected >= 0 else None,
            "entity": run.entity if run.status == "running" else None,
        },
    }
    if run.mode == "resolve":
        item["left"] = list((run.cursor or {}).get("left", ()))
    if run.mode == "batch":
        return {**item, "outcomes": f"/api/runs/{run.id}/outcomes"}
    return {**item, **plans.summary(run, names)}


def _of_export(hub: "Hub", run: "Run") -> dict[str, Any]:
    from crm_core.functions import exports

    return exports.shown(hub, run) if run.mode == "export" else {}


def _with_children(
    hub: "Hub", call: Call, run: "Run", names: dict[str, str], here: "Mapping[str, Run]" = NONE
) -> dict[str, Any]:
    """A parent's status and figures are its children's: it has none of its own to fall out of step.

    `here`: runs that are read already.
    """
    from crm_core.model.state import COUNTS

    now = hub.clock.now()
    children = [
        child for each in run.children if (child := here.get(each) or hub.runs.get(call.tenant, each))
    ]
    if not children:
        return {**_item(run, names, now), **_of_export(hub, run)}
    items = [_item(child, names, now) for child in children]
    statuses = {child.status for child in children}
    status = "running"
    if all(child.ended for child in children):
        status = "failed" if "failed" in statuses else "succeeded"
    elif statuses == {"queued"}:
        status = "queued"
    elif "stopped" in statuses and all(child.ended or child.status == "stopped" for child in children):
        status = "stopped"
    counts: Counter[str] = Counter()
    calls: Counter[str] = Counter()
    for child in children:
        counts.update(child.counts)
        calls.update(child.calls)
    return {
        **_item(run, names, now),
        "status": status,
        "started_at": min((child.started_at for child in children if child.started_at), default=None),
        "ended_at": max(child.ended_at for child in children) if status in ("failed", "succeeded") else None,
        "seconds": max(item["seconds"] for item in items),
        "read": sum(child.read for child in children),
        "counts": {name: counts[name] for name in COUNTS},
        "calls": {name: calls[name] for name in ("remote", "storage")},
        "problem": next((item["problem"] for item in items if item["problem"]), None),
        "progress": _progress(children),
        **plans.summed(items),
        "children": items,
    }


def _progress(children: "list[Run]") -> dict[str, Any]:
    """Of a parent: what its children have done; what is expected only where each of them can tell."""
    known = [max(child.expected, child.read) for child in children if child.expected >= 0]
    return {
        "done": sum(child.read for child in children),
        "expected": sum(known) if len(known) == len(children) else None,
        "entity": next((child.entity for child in children if child.status == "running"), None),
    }


def _names(hub: "Hub", call: Call) -> dict[str, str]:
    return {each.uid: each.slug for each in hub.connections.every(call.tenant)}


@route("POST", "/api/runs", role=Role.OPERATOR, body=_run_body, answer=202)
def start(call: Call) -> Reply:
    """Starts a run now, or a plan of one; follow it at Operation-Location."""
    return started(call, cast("RunBody", call.body))


@route("POST", "/api/integrations/sync", role=Role.OPERATOR, body=_sync_body, answer=202)
def sync(call: Call) -> Reply:
    """Another name for POST /api/runs; with dry_run it plans the run and does nothing."""
    from crm_core.functions.bodies import RunBody

    given = cast("SyncBody", call.body).model_dump(exclude={"dry_run"})
    if call.body.dry_run and given["mode"] != "plan":
        if given["of"]:
            raise BadRequest.field("of", "of: with dry_run the mode says what is planned; leave it out.")
        given |= {"mode": "plan", "of": given["mode"]}
    return started(call, RunBody(**given))


def started(call: Call, body: "RunBody") -> Reply:
    """The answer to who asks for a run."""
    hub: Hub = call.hub
    run = hub.start_run(
        call.tenant,
        body.connection,
        body.entities,
        body.mode,
        call.principal.id,
        since=_since(body.since),
        where=body.filter,
        limit=body.limit or 0,
        strategy=body.strategy or "",
        of=(body.of or "incremental") if body.mode == "plan" else body.of or "",
    )
    return accepted(call, run)


def _since(text: str) -> str:
    try:
        return instant_text(parse_instant(text)) if text else ""
    except ValueError:
        raise BadRequest.field(
            "since", "since: expected a time with a zone, such as 2026-11-24T13:45:00Z."
        ) from None


def accepted(call: Call, run: "Run") -> Reply:
    """The answer to whoever asked for a run: where to follow it."""
    hub: Hub = call.hub
    item = _with_children(hub, call, run, _names(hub, call))
    where = link(hub.settings.public_url, f"/api/runs/{run.id}", {})
    return Reply(202, item, {"Operation-Location": where, "Retry-After": str(POLL_SECONDS)})


@route(
    "GET",
    "/api/runs",
    role=Role.READER,
    parameters=[
        Parameter("top", f"Items of a page, 1 to {MAX_TOP}, {DEFAULT_TOP} if missing"),
        Parameter("skiptoken", "From nextLink; goes on after a page"),
    ],
)
def runs(call: Call) -> Reply:
    """Runs, newest first. A scheduled pull that changed nothing leaves none."""
    hub: Hub = call.hub
    top = whole_number(call.parameters, "top", DEFAULT_TOP, MAX_TOP)
    about = (call.tenant.name, call.principal.id, "runs", str(top))
    given = call.parameters.get("skiptoken", "")
    token = hub.open_token(given, *about)["token"] if given else None
    found, token = hub.runs.page(call.tenant, top=top, token=token)
    names, now = _names(hub, call), hub.clock.now()
    here = {run.id: run for run in found}
    items = [
        _with_children(hub, call, run, names, here) if run.children else _item(run, names, now)
        for run in found
    ]
    body: dict[str, Any] = {
        "value": [{name: value for name, value in item.items() if name != "children"} for item in items]
    }
    if token is not None:
        following = {"top": str(top), "skiptoken": hub.seal_token({"token": token}, *about)}
        body["nextLink"] = link(hub.settings.public_url, call.incoming.path, following)
    return Reply(200, body)


@route("GET", "/api/runs/<run_id>", role=Role.READER, parameters=plans.PARAMETERS)
def one(call: Call) -> Reply:
    """One run: what it has done so far, the calls it took, and why it failed if it did.

    Of a plan that has ended, and of what carries one out, also the decisions, a page at a time.
    """
    hub: Hub = call.hub
    run = find(call)
    names = _names(hub, call)
    item = _with_children(hub, call, run, names)
    waits = item["ended_at"] or item["status"] == "stopped"
    item |= plans.decisions(call, run, names, ended=bool(item["ended_at"]))
    return Reply(200, item, {} if waits else {"Retry-After": str(POLL_SECONDS)})


@route("POST", "/api/runs/<run_id>/approve", role=Role.OPERATOR, answer=202)
def approve(call: Call) -> Reply:
    """Lets a run that the brake stopped go on where it stopped, without the brake; follow it at Operation-Location.

    409 for a run that is not stopped.
    """
    hub: Hub = call.hub
    return accepted(call, hub.approve_run(call.tenant, find(call)))


@route("POST", "/api/runs/<run_id>/cancel", role=Role.OPERATOR)
def cancel(call: Call) -> Reply:
    """Ends a run that has not ended: failed, with the code Cancelled. What it had applied stays.

    Its worker stops at the next checkpoint, and the next pull of the schedule goes on from there. Where the brake had
    stopped it that one stops again if the remote system shows the same deletes. What a changed configuration wants of a
    push run comes later all the same: `problem` says when. 409 for a run that has ended.
    """
    hub: Hub = call.hub
    run = hub.cancel_run(call.tenant, find(call))
    return Reply(200, _with_children(hub, call, run, _names(hub, call)))


@route("POST", "/api/runs/<run_id>/apply", role=Role.OPERATOR, answer=202)
def apply(call: Call) -> Reply:
    """Does what a plan says, and refuses one by one what has drifted since; follow it at Operation-Location.

    409 for a plan that is not complete, failed, or is too old.
    """
    from crm_core.sync.planning import applying

    hub: Hub = call.hub
    return accepted(call, applying.start(hub.engine, call.tenant, find(call), call.principal.id))


def find(call: Call) -> "Run":
    """The run that the path names; raises NotFound."""
    hub: Hub = call.hub
    run_id = call.parts["run_id"]
    run = hub.runs.get(call.tenant, run_id) if re.fullmatch(r"[0-9a-f-]{1,40}", run_id) else None
    if run is None:
        raise NotFound(f"There is no run '{run_id}'.")
    return run
