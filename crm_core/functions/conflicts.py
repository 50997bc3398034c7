"""What waits for a person: listed, and decided one by one. Many at once: `resolving.py`."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, cast

from crm_core.errors import BadRequest
from crm_core.functions.conflict_items import item_of, whole_item
from crm_core.functions.crm import entity_of, etag_of, filter_parameter
from crm_core.functions.endpoint import route
from crm_core.functions.web import Call, Parameter, Reply, Role, link, whole_number
from crm_core.model.entities import ENTITIES, Entity
from crm_core.model.fields import hub_time, parse_instant
from crm_core.model.items import accept_item

if TYPE_CHECKING:
    from pydantic import BaseModel

    from crm_core.functions.bodies import ConflictBody, FieldChoiceBody, ResolveBody
    from crm_core.hub import Hub
    from crm_core.sync.conflicts import Conflict, Sought
    from crm_core.sync.edit import Editor
    from crm_core.sync.resolving import Choice

DEFAULT_TOP, MAX_TOP = 50, 500


def _conflict_body() -> "type[BaseModel]":
    from crm_core.functions.bodies import ConflictBody

    return ConflictBody


def names_of(call: Call) -> dict[str, str]:
    """Connection uid -> slug."""
    hub: Hub = call.hub
    return {each.uid: each.slug for each in hub.connections.every(call.tenant)}


def sought_of(call: Call, given: Mapping[str, str]) -> "Sought":
    """Which conflicts are asked for: kind, entity, connection, field, since, filter. Raises BadRequest, NotFound."""
    from crm_core.sync.conflicts import KINDS, sought

    hub: Hub = call.hub
    kinds = tuple(each.strip() for each in given.get("kind", "").split(",") if each.strip())
    if not set(kinds) <= set(KINDS):
        raise BadRequest.field(
            "kind", f"kind: expected some of {', '.join(KINDS)}, with commas between them."
        )
    return sought(
        hub.engine,
        call.tenant,
        given.get("filter", ""),
        kinds=kinds,
        entity=entity_of(given["entity"]).name if given.get("entity") else "",
        connection=hub.find(call.tenant, given["connection"]).uid if given.get("connection") else "",
        field=given.get("field", ""),
        since=moment(given.get("since", ""), "since"),
    )


def moment(text: str, name: str) -> str:
    try:
        return hub_time(parse_instant(text)) if text else ""
    except ValueError:
        raise BadRequest.field(
            name, f"{name}: expected a time with a zone, such as 2026-11-24T13:45:00Z."
        ) from None


WHICH = (
    Parameter("kind", "value, flip, match, merge, refused or parked; several with commas between them"),
    Parameter("entity", "Of this entity only, by its path (accounts)"),
    Parameter("connection", "Of this connection only, by slug or uid"),
    Parameter("field", "Of this field only"),
    Parameter("since", "That came at this time or later (RFC 3339)"),
    filter_parameter("canonical"),
)


@route(
    "GET",
    "/api/conflicts",
    role=Role.READER,
    parameters=[
        *WHICH,
        Parameter("top", f"About so many items, 1 to {MAX_TOP}, {DEFAULT_TOP} if missing"),
        Parameter("skiptoken", "From nextLink; goes on after a page"),
    ],
)
def conflicts(call: Call) -> Reply:
    """What waits for a person, a page at a time; a page can be short, or empty, and still have a nextLink.

    `value`: both sides changed a field. `flip`: two systems change a field there and back. `match`: may be the same as another
    record. `merge`: became another one at the remote. `refused`: a value that the remote rejects. `parked`: a push that gave
    up. The last two are dead letters too. `filter` asks about the record and goes with `entity`.
    """
    from crm_core.sync.conflicts import page

    hub: Hub = call.hub
    parameters = dict(call.parameters)
    token = parameters.pop("skiptoken", "")
    top = whole_number(parameters, "top", DEFAULT_TOP, MAX_TOP)
    sought = sought_of(call, parameters)
    pairs = (f"{name}={value}" for name, value in sorted(parameters.items()))
    about = (call.tenant.name, call.principal.id, "conflicts", *pairs)
    place = hub.open_token(token, *about) if token else {}
    found, after = page(hub.engine, call.tenant, sought, place, top=top)
    names = names_of(call)
    body: dict[str, Any] = {"value": [item_of(each, names) for each in found]}
    if after is not None:
        following = {**parameters, "skiptoken": hub.seal_token(after, *about)}
        body["nextLink"] = link(hub.settings.public_url, call.incoming.path, following)
    return Reply(200, body)


def _found(call: Call) -> "tuple[Conflict, Editor, Entity]":
    """The conflict that the path names, and what writes its record. Raises NotFound."""
    from crm_core.sync.conflicts import find
    from crm_core.sync.sides import with_customs

    hub: Hub = call.hub
    found = find(hub.engine, call.tenant, call.parts["conflict_id"])
    name = found.record.entity
    entity = with_customs(ENTITIES[name], hub.sides(call.tenant, name))
    return found, hub.editor(call.tenant, entity, call.principal.id), entity


@route("GET", "/api/conflicts/<conflict_id>", role=Role.READER)
def one(call: Call) -> Reply:
    """One of them: both values and the base, who set them and when, what other connections hold, and what each choice would do.

    `pushes` of a choice: what would be sent where, of each field what is held there and what is to be. Its ETag is another one as
    soon as its kind, our value or what is asked (the base, what the system has or said, and when) is another; of a match or merge, a
    value of either record. What other connections hold, and what would be sent there, is no part of it.
    """
    from crm_core.sync.explaining import explain

    hub: Hub = call.hub
    found, editor, _ = _found(call)
    explained = explain(hub.engine, call.tenant, editor, found)
    config = hub.engine.sides(call.tenant, found.record.entity)
    return Reply(200, whole_item(explained, config, names_of(call)), {"ETag": found.etag})


@route("POST", "/api/conflicts/<conflict_id>", role=Role.OPERATOR, body=_conflict_body)
def resolve(call: Call) -> Reply:
    """Decides one: `take` is one of its `ways`, `value` goes with `value`. The record follows in the answer.

    Or several fields of the record at this connection at once, each in its own way: `fields`. With If-Match, and `etag` of a field,
    only what is still as it was read: else 412. 404 for what somebody has decided meanwhile.
    """
    from crm_core.functions.records import item_of_record
    from crm_core.sync.resolving import Choice, resolve_all

    body = cast("ConflictBody", call.body)
    found, editor, entity = _found(call)
    if bool(body.take) == bool(body.fields):
        raise BadRequest.field("take", "take: give either take, or fields with one for each field.")
    seen = etag_of(call.incoming.headers.get("if-match", ""))
    if body.take:
        value = accepted(editor, entity, found, body, "value")
        choices = [Choice(found, body.take, value, seen)]
    else:
        choices = _of_fields(found, editor, entity, body, seen)
    record = resolve_all(editor, choices)
    return Reply(200, item_of_record(record, names_of(call)), {"ETag": f'"{record.version}"'})


def _of_fields(
    found: "Conflict", editor: "Editor", entity: Entity, body: "ConflictBody", seen: str
) -> "list[Choice]":
    """A choice for each named field that waits at the connection of `found`."""
    from crm_core.sync.conflicts import REVIEWS, of
    from crm_core.sync.resolving import Choice

    waiting = {
        each.field: each
        for each in of(found.record)
        if each.connection == found.connection and each.kind not in REVIEWS and each.field
    }
    if seen and found.field not in body.fields:
        raise BadRequest.field(
            "If-Match",
            f"If-Match: is that of {found.field or found.kind}, of which nothing is decided; give each field its etag.",
        )
    choices = []
    for name, each in body.fields.items():
        if name not in waiting:
            known = ", ".join(waiting) or "none"
            raise BadRequest.field(
                f"fields.{name}", f"fields.{name}: does not wait there; what does: {known}."
            )
        value = accepted(editor, entity, waiting[name], each, f"fields.{name}.value")
        etag = each.etag or (seen if name == found.field else "")
        choices.append(Choice(waiting[name], each.take, value, etag))
    return choices


def check_value(given: "ConflictBody | FieldChoiceBody | ResolveBody", where: str) -> None:
    """Raises BadRequest for a choice with a value that does not go with it, or without the one that does: only who says
    null means null.
    """
    if given.take != "value" and given.value is not None:
        raise BadRequest.field(where, f"{where}: only goes with take: value; leave it out.")
    if given.take == "value" and "value" not in given.model_fields_set:
        raise BadRequest.field(where, f"{where}: is missing; say which value is to be, null for none.")


def accepted(
    editor: "Editor",
    entity: Entity,
    conflict: "Conflict",
    choice: "ConflictBody | FieldChoiceBody",
    where: str,
) -> Any:
    """The value of a choice as the record takes it. Raises BadRequest that names `where` it stands."""
    check_value(choice, where)
    if choice.take != "value":
        return None
    name = conflict.field
    if not name or name not in entity.by_name:
        raise BadRequest.field("take", f"take: a conflict of kind {conflict.kind} has no value to give.")
    try:
        beside = entity.by_name[name].companion
        given = {name: choice.value, **({beside: conflict.record.fields.get(beside)} if beside else {})}
        return editor.accepted(accept_item(entity, given, create=False))[name]
    except BadRequest as error:
        message = error.message.removeprefix(f"{name}: ")
        raise BadRequest.field(where, f"{where}: {message}") from None
