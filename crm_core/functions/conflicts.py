"""What waits for a person: listed, and decided."""

from typing import TYPE_CHECKING, Any, cast

from crm_core.errors import BadRequest
from crm_core.functions.crm import entity_of
from crm_core.functions.endpoint import route
from crm_core.functions.web import Call, Parameter, Reply, Role, link, whole_number
from crm_core.model.entities import ENTITIES

if TYPE_CHECKING:
    from pydantic import BaseModel

    from crm_core.functions.bodies import ConflictBody
    from crm_core.hub import Hub
    from crm_core.sync.conflicts import Conflict

DEFAULT_TOP, MAX_TOP = 50, 500


def _conflict_body() -> "type[BaseModel]":
    from crm_core.functions.bodies import ConflictBody

    return ConflictBody


def _item(conflict: "Conflict", names: dict[str, str]) -> dict[str, Any]:
    from crm_core.sync.conflicts import WAYS

    record = conflict.record
    return {
        "id": conflict.id,
        "kind": conflict.kind,
        "entity": record.entity,
        "record": record.id,
        "etag": f'"{record.version}"',
        "connection": names.get(conflict.connection, conflict.connection),
        "field": (conflict.field if conflict.kind in ("value", "refused") else None) or None,
        **{name: value for name, value in conflict.about.items() if name not in ("record", "fields")},
        **({"other": conflict.about["record"]} if "record" in conflict.about else {}),
        "ways": list(WAYS[conflict.kind]),
    }


def _names(call: Call) -> dict[str, str]:
    hub: Hub = call.hub
    return {each.uid: each.slug for each in hub.connections.every(call.tenant)}


@route(
    "GET",
    "/api/conflicts",
    role=Role.READER,
    parameters=[
        Parameter("entity", "Of this entity only, by its path (accounts)"),
        Parameter("connection", "Of this connection only, by slug or uid"),
        Parameter("kind", "value, match, merge, refused or parked"),
        Parameter("top", f"About so many items, 1 to {MAX_TOP}, {DEFAULT_TOP} if missing"),
        Parameter("skiptoken", "From nextLink; goes on after a page"),
    ],
)
def conflicts(call: Call) -> Reply:
    """What waits for a person, a page at a time; a page can be short, or empty, and still have a nextLink.

    `value`: both sides changed a field. `match`: may be the same as another record. `merge`: became another one at the
    remote. `refused`: a value that the remote rejects. `parked`: a push that gave up.
    """
    from crm_core.sync.conflicts import KINDS

    hub: Hub = call.hub
    parameters = dict(call.parameters)
    token = parameters.pop("skiptoken", "")
    top = whole_number(parameters, "top", DEFAULT_TOP, MAX_TOP)
    kind = parameters.get("kind", "")
    if kind and kind not in KINDS:
        raise BadRequest.field("kind", f"kind: expected one of {', '.join(KINDS)}.")
    entity = entity_of(parameters["entity"]).name if parameters.get("entity") else ""
    uid = hub.find(call.tenant, parameters["connection"]).uid if parameters.get("connection") else ""
    about = (call.tenant.name, call.principal.id, "conflicts", kind, entity, uid)
    place = hub.open_token(token, *about) if token else {}
    found, following_place = hub.page_of_conflicts(
        call.tenant, place, top=top, entity=entity, connection=uid, kind=kind
    )
    names = _names(call)
    body: dict[str, Any] = {"value": [_item(each, names) for each in found]}
    if following_place is not None:
        following = {**parameters, "skiptoken": hub.seal_token(following_place, *about)}
        body["nextLink"] = link(hub.settings.public_url, call.incoming.path, following)
    return Reply(200, body)


@route("GET", "/api/conflicts/<conflict_id>", role=Role.READER)
def one(call: Call) -> Reply:
    """One of them."""
    hub: Hub = call.hub
    return Reply(200, _item(hub.conflict(call.tenant, call.parts["conflict_id"]), _names(call)))


@route("POST", "/api/conflicts/<conflict_id>", role=Role.OPERATOR, body=_conflict_body)
def resolve(call: Call) -> Reply:
    """Decides one: `take` is one of its `ways`, `value` goes with `value`. The record follows in the answer."""
    from crm_core.functions.records import item_of_record

    hub: Hub = call.hub
    body = cast("ConflictBody", call.body)
    found = hub.conflict(call.tenant, call.parts["conflict_id"])
    value = None
    if body.take == "value":
        kind = ENTITIES[found.record.entity].by_name[found.field]
        try:
            value = kind.parse(body.value)
        except ValueError as error:
            raise BadRequest.field("value", f"value: {error}.") from None
    elif body.value is not None:
        raise BadRequest.field("value", "value: only goes with take: value; leave it out.")
    record = hub.resolve_conflict(call.tenant, found, body.take, value, call.principal.id)
    return Reply(200, item_of_record(record, _names(call)), {"ETag": f'"{record.version}"'})
