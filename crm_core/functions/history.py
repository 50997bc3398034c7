"""What happened to a stored record, why it is as it is, and the way back."""

import itertools
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, cast

from crm_core.errors import NotFound
from crm_core.functions.crm import entity_of, etag_of
from crm_core.functions.endpoint import route
from crm_core.functions.records import find, item_of_record, names_of, with_customs_of
from crm_core.functions.web import Call, Parameter, Reply, Role, link, whole_number
from crm_core.model.record import HUB, Record

if TYPE_CHECKING:
    from pydantic import BaseModel

    from crm_core.functions.bodies import UndoBody
    from crm_core.hub import Hub
    from crm_core.sync.past import Told
    from crm_core.sync.why import Decided, Held, Why

MAX_TOP = 1000
DEFAULT_TOP = 100


def _undo_body() -> "type[BaseModel]":
    from crm_core.functions.bodies import UndoBody

    return UndoBody


@route(
    "GET",
    "/api/records/<entities>/<record_id>/history",
    role=Role.READER,
    parameters=[
        Parameter("top", f"Items of a page, 1 to {MAX_TOP}, {DEFAULT_TOP} if missing"),
        Parameter("skiptoken", "From nextLink; goes on after a page"),
    ],
)
def history(call: Call) -> Reply:
    """What happened to a record, oldest first: when, by whom, from where, in which run, old and new values. What is new
    comes at the end, so that pages hold together.

    `losers`: of each conflict that was decided then, the value that was given up; `policies`: what decided it. A new value
    that nobody knows any more is left out.
    """
    from crm_core.sync import past

    hub: Hub = call.hub
    entity = entity_of(call.parts["entities"])
    top = whole_number(call.parameters, "top", DEFAULT_TOP, MAX_TOP)
    found = find(call, entity)
    about = (call.tenant.name, call.principal.id, "history", entity.name, found.id, str(top))
    token = call.parameters.get("skiptoken", "")
    first: int = hub.open_token(token, *about)["version"] if token else 1
    names = {HUB: HUB, **names_of(hub, call.tenant)}
    left = top - (first == 1)
    steps = hub.records.history(call.tenant, entity.name, found.id, max(first, 2), about=left + 1)
    items = []
    if first == 1:
        oldest = next(steps, None)
        steps = itertools.chain([oldest] if oldest else [], steps)
        fields = past.made_with(
            found, oldest, lambda: hub.records.history(call.tenant, entity.name, found.id)
        )
        items.append(_made(found, fields, names))
    told, more = past.told(found, steps, left)
    items += [_step(each, names) for each in told]
    body: dict[str, Any] = {"value": items}
    if more:
        after = told[-1].step.version + 1 if told else 2
        following = {"top": str(top), "skiptoken": hub.seal_token({"version": after}, *about)}
        body["nextLink"] = link(hub.settings.public_url, call.incoming.path, following)
    return Reply(200, body)


def _made(record: Record, fields: Mapping[str, Any] | None, names: Mapping[str, str]) -> dict[str, Any]:
    """The step that made the record, which is part of its row."""
    created = record.created
    return {
        "version": 1,
        "change": "create",
        "time": created["time"],
        "origin": names.get(created["origin"], created["origin"]),
        "run": created["run"],
        "old": {},
        **({"new": dict(fields)} if fields is not None else {}),
        **({"by": created["by"]} if "by" in created else {}),
    }


def _step(told: "Told", names: Mapping[str, str]) -> dict[str, Any]:
    step = told.step
    return {
        "version": step.version,
        "change": step.change,
        "time": step.time,
        "origin": names.get(step.origin, step.origin),
        "run": step.run,
        "old": dict(step.old),
        "new": dict(told.new),
        **({"losers": dict(step.losers)} if step.losers else {}),
        **({"policies": dict(step.policies)} if step.policies else {}),
        **({"by": step.by} if step.by else {}),
    }


@route("GET", "/api/records/<entities>/<record_id>/why/<field>", role=Role.READER)
def why(call: Call) -> Reply:
    """Why a field has its value: from where and when it came, what it replaced, what decided, and what each connection holds.

    `set` is false for a field that never had a value. What is not known any more is null, and `erased` names the versions
    of which the history keeps nothing.
    """
    from crm_core.sync import why as reasons

    hub: Hub = call.hub
    connections = list(hub.connections.every(call.tenant))
    entity = with_customs_of(entity_of(call.parts["entities"]), connections)
    name, found = call.parts["field"], find(call, entity)
    if name not in entity.by_name and name not in found.fields and name not in found.stamps:
        raise NotFound(f"There is no field '{name}' of {entity.name}; known are {', '.join(entity.by_name)}.")
    steps = list(hub.records.history(call.tenant, entity.name, found.id))
    told = reasons.why(found, steps, name, hub.engine.sides(call.tenant, entity.name))
    names = {HUB: HUB, **{each.uid: each.slug for each in connections}}
    return Reply(200, {"field": name, **_why(told, names)}, {"ETag": f'"{found.version}"'})


def _why(told: "Why", names: Mapping[str, str]) -> dict[str, Any]:
    origin = names.get(told.origin, told.origin)
    return {
        "value": told.value,
        "set": told.is_set,
        "since": told.since or None,
        "told": told.told or None,
        "from": {"origin": origin, "by": told.by or None} if told.is_set else None,
        "run": told.run or None,
        "version": told.version,
        "replaced": told.replaced,
        "policy": (told.decided.policy or None) if told.decided else None,
        "decided": _decided(told.decided, names) if told.decided else None,
        "connections": [held_item(each, names) for each in told.held if each.connection in names],
        "erased": list(told.lost),
    }


def _decided(decided: "Decided", names: Mapping[str, str]) -> dict[str, Any]:
    return {
        "version": decided.version,
        "time": decided.time,
        "run": decided.run or None,
        "policy": decided.policy or None,
        "won": decided.won,
        "lost": decided.lost,
        "origin": names.get(decided.origin, decided.origin),
        "by": decided.by or None,
    }


def held_item(held: "Held", names: Mapping[str, str]) -> dict[str, Any]:
    """What a connection holds of a field."""
    return {
        "connection": names.get(held.connection, held.connection),
        "state": held.state,
        "known": held.known,
        "holds": held.holds,
        **({"may_hold": list(held.may_hold)} if held.may_hold else {}),
        **(held.about or {}),
    }


@route("POST", "/api/records/<entities>/<record_id>/undo", role=Role.OPERATOR, body=_undo_body)
def undo(call: Call) -> Reply:
    """Gives a record back what it was at a version: an ordinary write, which goes to every connection; with If-Match only if
    it has not moved on.

    A deleted record lives again. `undone` says which fields have other values now, and of those that could not be given
    back why. 409 where the history does not reach so far.
    """
    from crm_core.sync.undo import Undoer

    hub: Hub = call.hub
    body = cast("UndoBody", call.body)
    entity = with_customs_of(entity_of(call.parts["entities"]), hub.connections.every(call.tenant))
    found = find(call, entity)
    if_match = etag_of(call.incoming.headers.get("if-match", ""))
    undoer = Undoer(hub.engine, call.tenant, entity, call.principal.id)
    done = undoer.undo(found.id, body.version, if_match)
    item = item_of_record(done.record, names_of(hub, call.tenant))
    item["undone"] = {
        "version": body.version,
        "fields": list(done.fields),
        "left": [{"field": name, "message": f"{name}: {text}."} for name, text in done.left.items()],
    }
    return Reply(200, item, {"ETag": item["etag"]})
