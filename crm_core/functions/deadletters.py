"""What waits for a person because it failed: grouped by cause, and shown, edited, done again or discarded."""

from typing import TYPE_CHECKING, Any, cast

from crm_core.errors import BadRequest
from crm_core.functions.crm import entity_of
from crm_core.functions.endpoint import route
from crm_core.functions.web import Call, Parameter, Reply, Role, flag, link, whole_number
from crm_core.model.connection import Connection
from crm_core.model.entities import ENTITIES
from crm_core.model.fields import hub_time, parse_instant

if TYPE_CHECKING:
    from pydantic import BaseModel

    from crm_core.functions.bodies import DiscardBody, DiscardManyBody, PayloadBody, ReplayManyBody
    from crm_core.hub import Hub
    from crm_core.sync.deadletters import Group, Source, Waiting, Wanted, Way

PATH = "/api/deadletters"
EXAMINED, MAX_EXAMINED = 500, 1000
DEFAULT_TOP, MAX_TOP = 50, 200
MANY_CHECKED = 500
"""How many a dry run of many counts at most."""
DRY_RUN = Parameter("dry_run", "true: says what would be done, and does nothing")
WHICH = (
    Parameter("connection", "Of this connection only, by slug or uid"),
    Parameter("entity", "Of this entity only, by its path (accounts)"),
    Parameter("since", "That came at this time or later (RFC 3339)"),
    Parameter("until", "That came before this time (RFC 3339)"),
)
TOKEN = Parameter("skiptoken", "From nextLink; goes on after a page")


def _payload_body() -> "type[BaseModel]":
    from crm_core.functions.bodies import PayloadBody

    return PayloadBody


def _discard_body() -> "type[BaseModel]":
    from crm_core.functions.bodies import DiscardBody

    return DiscardBody


def _replay_many_body() -> "type[BaseModel]":
    from crm_core.functions.bodies import ReplayManyBody

    return ReplayManyBody


def _discard_many_body() -> "type[BaseModel]":
    from crm_core.functions.bodies import DiscardManyBody

    return DiscardManyBody


def _names(call: Call) -> dict[str, Connection]:
    hub: Hub = call.hub
    return {each.uid: each for each in hub.connections.every(call.tenant)}


def _slug(uid: str, names: dict[str, Connection]) -> str | None:
    return (names[uid].slug if uid in names else uid) or None


def _item(waiting: "Waiting", names: dict[str, Connection], *, whole: bool = False) -> dict[str, Any]:
    return {
        "id": waiting.id,
        "kind": waiting.kind,
        "cause": waiting.cause,
        "connection": _slug(waiting.connection, names),
        "entity": waiting.entity or None,
        "code": waiting.code,
        "field": waiting.field or None,
        "message": waiting.message,
        "time": waiting.time,
        **waiting.about,
        "ways": list(waiting.ways),
        **({"links": _links(waiting)} if waiting.kind in ("refused", "parked") else {}),
        **({"payload": waiting.payload} if whole else {}),
    }


def _links(waiting: "Waiting") -> dict[str, str]:
    """What waits at a record is a conflict too, under the same id; its values are edited at the record."""
    return {
        "conflict": f"/api/conflicts/{waiting.id}",
        "record": f"/api/records/{ENTITIES[waiting.entity].path}/{waiting.about['record']}",
    }


def _group(group: "Group", names: dict[str, Connection]) -> dict[str, Any]:
    first = group.first
    connection = names.get(first.connection)
    return {
        "cause": group.cause,
        "connection": _slug(first.connection, names),
        "connector": connection.connector if connection else None,
        "code": first.code,
        "field": first.field or None,
        "message": first.message,
        "count": group.count,
        "oldest": group.oldest,
        "newest": first.time,
        "kinds": dict(group.kinds),
        "entities": {name: count for name, count in group.entities.items() if name},
        "examples": [
            {"id": each.id, "entity": each.entity or None, "time": each.time, "message": each.message}
            for each in group.examples
        ],
    }


def _moment(text: str, name: str) -> str:
    try:
        return hub_time(parse_instant(text)) if text else ""
    except ValueError:
        raise BadRequest.field(
            name, f"{name}: expected a time with a zone, such as 2026-11-24T13:45:00Z."
        ) from None


def _wanted(call: Call, given: dict[str, str], cause: str = "") -> "Wanted":
    from crm_core.sync.deadletters import Wanted

    hub: Hub = call.hub
    return Wanted(
        hub.find(call.tenant, given["connection"]).uid if given.get("connection") else "",
        entity_of(given["entity"]).name if given.get("entity") else "",
        cause,
        (),
        _moment(given.get("since", ""), "since"),
        _moment(given.get("until", ""), "until"),
    )


def _page(call: Call, cause: str, default: int, highest: int) -> "tuple[list[Waiting], str]":
    """A page of those that the parameters want, and the link to the next one, "" for none."""
    from crm_core.sync import deadletters

    hub: Hub = call.hub
    parameters = dict(call.parameters)
    token = parameters.pop("skiptoken", "")
    top = whole_number(parameters, "top", default, highest)
    wanted = _wanted(call, parameters, cause)
    pairs = (f"{name}={value}" for name, value in sorted(parameters.items()))
    about = (call.tenant.name, call.principal.id, "deadletters", cause, *pairs)
    place = hub.open_token(token, *about) if token else {}
    found, after = deadletters.page(hub.engine, call.tenant, wanted, place, top=top)
    if after is None:
        return found, ""
    following = {**parameters, "skiptoken": hub.seal_token(after, *about)}
    return found, link(hub.settings.public_url, call.incoming.path, following)


def _list(value: list[dict[str, Any]], following: str) -> Reply:
    return Reply(200, {"value": value, **({"nextLink": following} if following else {})})


@route(
    "GET",
    PATH,
    role=Role.OPERATOR,
    parameters=[
        *WHICH,
        Parameter("top", f"About so many are looked at, 1 to {MAX_EXAMINED}, {EXAMINED} if missing"),
        TOKEN,
    ],
)
def causes(call: Call) -> Reply:
    """What waits for a person because it failed, grouped by its cause: connection, code and field; the largest group first.

    Messages that failed at every delivery, webhooks among them; remote records that could not be taken in; values that a
    remote refused; pushes that gave up. Counts are of what this page looked at: with a nextLink, the same cause on the next
    page is the same group.
    """
    from crm_core.sync.deadletters import grouped

    found, following = _page(call, "", EXAMINED, MAX_EXAMINED)
    names = _names(call)
    return _list([_group(each, names) for each in grouped(found)], following)


@route(
    "GET",
    f"{PATH}/causes/<cause>",
    role=Role.OPERATOR,
    parameters=[
        *WHICH,
        Parameter("top", f"About so many items, 1 to {MAX_TOP}, {DEFAULT_TOP} if missing"),
        TOKEN,
    ],
)
def of_cause(call: Call) -> Reply:
    """Everything that waits for one cause, a page at a time; a page can be short, or empty, and still have a nextLink."""
    found, following = _page(call, call.parts["cause"], DEFAULT_TOP, MAX_TOP)
    names = _names(call)
    return _list([_item(each, names) for each in found], following)


def _found(call: Call) -> "tuple[Source, Waiting]":
    from crm_core.sync import deadletters

    hub: Hub = call.hub
    return deadletters.find(hub.engine, call.tenant, call.parts["letter"], call.principal.id)


@route("GET", f"{PATH}/<letter>", role=Role.OPERATOR)
def one(call: Call) -> Reply:
    """One of them with its payload; 404 for one that was replayed or discarded, which says by whom and why."""
    _, found = _found(call)
    return Reply(200, _item(found, _names(call), whole=True))


@route("PATCH", f"{PATH}/<letter>", role=Role.OPERATOR, body=_payload_body)
def edit(call: Call) -> Reply:
    """Changes the payload on which a replay works; what came is kept beside it. 409 for what has none."""
    source, found = _found(call)
    edited = source.edit(found, cast("PayloadBody", call.body).payload)
    return Reply(200, _item(edited, _names(call), whole=True))


@route("POST", f"{PATH}/<letter>/replay", role=Role.OPERATOR, parameters=[DRY_RUN], answer=202)
def replay(call: Call) -> Reply:
    """Has one done again; with dry_run=true it only says what would be done. 409 for what can't be done again."""
    source, found = _found(call)
    told = {"id": found.id, **source.plan(found)}
    if flag(call.parameters, "dry_run"):
        return Reply(200, {**told, "done": False})
    source.replay(found)
    source.finish()
    return Reply(202, {**told, "done": True})


@route("POST", f"{PATH}/<letter>/discard", role=Role.OPERATOR, body=_discard_body, answer=204)
def discard(call: Call) -> Reply:
    """Says that nobody is to do it, and why. A refused value stays as it is there until it is changed here."""
    source, found = _found(call)
    source.discard(found, cast("DiscardBody", call.body).reason)
    source.finish()
    return Reply(204)


@route("POST", f"{PATH}/replay", role=Role.OPERATOR, body=_replay_many_body, parameters=[DRY_RUN], answer=202)
def replay_many(call: Call) -> Reply:
    """Has many done again, by cause, connection or time, each of them once and so many a minute."""
    return _many(call, "replay")


@route(
    "POST", f"{PATH}/discard", role=Role.OPERATOR, body=_discard_many_body, parameters=[DRY_RUN], answer=202
)
def discard_many(call: Call) -> Reply:
    """Discards many, by cause, connection or time."""
    return _many(call, "discard")


def _many(call: Call, way: "Way") -> Reply:
    """A dry run counts them, as far as one page of the list goes."""
    from crm_core.sync import deadletters

    hub: Hub = call.hub
    body = cast("ReplayManyBody", call.body)
    given = {name: getattr(body, name) for name in ("connection", "since", "until")}
    if not (body.cause or any(given.values())):
        raise BadRequest.field(
            "cause", "cause: name a cause, a connection or a time; not everything at once."
        )
    wanted = _wanted(call, given, body.cause)
    if flag(call.parameters, "dry_run"):
        found, after = deadletters.page(hub.engine, call.tenant, wanted, {}, top=MANY_CHECKED)
        names = _names(call)
        told = {"count": len(found), "countIsLowerBound": after is not None}
        examples = [_item(each, names) for each in found[:3]]
        return Reply(200, {"way": way, "done": False, **told, "examples": examples})
    reason = cast("DiscardManyBody", body).reason if way == "discard" else ""
    deadletters.start(
        hub.engine, call.tenant, wanted, way, by=call.principal.id, per_minute=body.per_minute, reason=reason
    )
    return Reply(202, {"way": way, "done": True, "per_minute": body.per_minute})
