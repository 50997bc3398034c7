"""Runs: started by people, followed by anybody."""

import re
from collections import Counter
from collections.abc import Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any, cast

from crm_core.errors import BadRequest, NotFound
from crm_core.functions.endpoint import route
from crm_core.functions.web import Call, Parameter, Reply, Role, link, whole_number
from crm_core.model.fields import instant_text, parse_instant

if TYPE_CHECKING:
    from pydantic import BaseModel

    from crm_core.functions.bodies import RunBody
    from crm_core.hub import Hub
    from crm_core.model.state import Run

NONE: "Mapping[str, Run]" = {}
POLL_SECONDS = 1
DEFAULT_TOP, MAX_TOP = 50, 200


def _run_body() -> "type[BaseModel]":
    from crm_core.functions.bodies import RunBody

    return RunBody


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
    }
    if run.mode == "resolve":
        item["left"] = list((run.cursor or {}).get("left", ()))
    return {**item, "outcomes": f"/api/runs/{run.id}/outcomes"} if run.mode == "batch" else item


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
        "children": items,
    }


def _names(hub: "Hub", call: Call) -> dict[str, str]:
    return {each.uid: each.slug for each in hub.connections.every(call.tenant)}


@route("POST", "/api/runs", role=Role.OPERATOR, body=_run_body, answer=202)
def start(call: Call) -> Reply:
    """Starts a run now; follow it at Operation-Location."""
    hub: Hub = call.hub
    body = cast("RunBody", call.body)
    for name in ("since", "filter"):
        if getattr(body, name) and body.mode != "incremental":
            raise BadRequest.field(name, f"{name}: a {body.mode} run reads everything; leave it out.")
    run = hub.start_run(
        call.tenant,
        body.connection,
        body.entities,
        body.mode,
        call.principal.id,
        since=_since(body.since),
        where=body.filter,
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


@route("GET", "/api/runs/<run_id>", role=Role.READER)
def one(call: Call) -> Reply:
    """One run: what it has done so far, the calls it took, and why it failed if it did."""
    hub: Hub = call.hub
    run = find(call)
    item = _with_children(hub, call, run, _names(hub, call))
    waits = item["ended_at"] or item["status"] == "stopped"
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
    """Ends a run that the brake stopped: failed, with the code Cancelled. What it had applied stays.

    The next pull of the schedule begins at the same place and stops again if the remote system shows the same deletes.
    409 for a run that is not stopped.
    """
    hub: Hub = call.hub
    run = hub.cancel_run(call.tenant, find(call))
    return Reply(200, _item(run, _names(hub, call), hub.clock.now()))


def find(call: Call) -> "Run":
    """The run that the path names; raises NotFound."""
    hub: Hub = call.hub
    run_id = call.parts["run_id"]
    run = hub.runs.get(call.tenant, run_id) if re.fullmatch(r"[0-9a-f-]{1,40}", run_id) else None
    if run is None:
        raise NotFound(f"There is no run '{run_id}'.")
    return run
