"""The stored records: what the hub holds, its links and its history."""

import re
from collections.abc import Collection, Iterable
from typing import TYPE_CHECKING, Any

from crm_core.errors import BadRequest, NotFound
from crm_core.functions.conflict_items import waiting_of
from crm_core.functions.crm import NO_SKIP, entity_of, etag_of, filter_parameter
from crm_core.functions.endpoint import route
from crm_core.functions.web import Call, Parameter, Reply, Role, flag, link, not_modified, whole_number
from crm_core.model.connection import Connection, Tenant
from crm_core.model.entities import Entity
from crm_core.model.filters import parse_filter
from crm_core.model.items import accept_item
from crm_core.model.matching import Test, check_name, matcher
from crm_core.model.options import Order, parse_names, parse_orders
from crm_core.model.record import Record
from crm_core.model.record_event import is_alive

if TYPE_CHECKING:
    from crm_core.hub import Hub

DELETED = Parameter(
    "deleted",
    "with: also records that were deleted; only: those, and those that a remote system deleted and that are only marked",
)
MAX_TOP = 1000
DEFAULT_TOP = 100


def names_of(hub: "Hub", tenant: Tenant) -> dict[str, str]:
    """Connection uid -> slug."""
    return _slugs(hub.connections.every(tenant))


def _slugs(connections: Iterable[Connection]) -> dict[str, str]:
    return {each.uid: each.slug for each in connections}


def with_customs_of(entity: Entity, connections: Iterable[Connection]) -> Entity:
    """The entity with the custom fields that any connection maps."""
    documents = [
        saved["document"] for each in connections if (saved := each.mappings.get(entity.name)) is not None
    ]
    if not documents:
        return entity
    from crm_core.model.overrides import with_customs

    return with_customs(entity, documents)


def item_of_record(record: Record, names: dict[str, str], select: Collection[str] = ()) -> dict[str, Any]:
    links = [
        {
            "connection": names.get(uid, uid),
            "id": each.rid,
            "state": each.state,
            "version": each.ver,
            "seen": each.seen,
            "behind": sorted(each.behind),
            "conflicts": sorted(each.conflict),
            "refused": sorted(each.refused),
            "waits": sorted(each.waits),
            "parked": each.parked.get("message") or each.parked.get("cause") if each.parked else None,
        }
        for uid, each in record.links.items()
    ]
    return {
        "id": record.id,
        "entity": record.entity,
        "etag": f'"{record.version}"',
        "version": record.version,
        **({"deleted": True} if record.dead else {}),
        **{name: value for name, value in record.fields.items() if not select or name in select},
        "links": links,
        **({"waiting": waiting} if (waiting := waiting_of(record, names)) else {}),
    }


@route(
    "GET",
    "/api/records/<entities>",
    role=Role.READER,
    parameters=[
        filter_parameter("canonical"),
        Parameter("select", "Fields, with commas between them"),
        Parameter("orderby", "Only id, in which order they come anyway"),
        Parameter("top", f"Items of a page, 1 to {MAX_TOP}, {DEFAULT_TOP} if missing"),
        Parameter("skiptoken", "From nextLink; goes on after a page"),
        DELETED,
    ],
    refused={
        "skip": NO_SKIP,
        "count": "it would read every record; follow nextLink and count the items",
        "expand": "ask for the records that one leads to by their ids",
    },
)
def records(call: Call) -> Reply:
    """Stored records in the order of their ids, a page at a time; deleted ones only if they are asked for.

    A page can be short, or with a filter empty, and still have a nextLink: it examines at most 5,000 records.
    """
    hub: Hub = call.hub
    connections = list(hub.connections.every(call.tenant))
    entity = with_customs_of(entity_of(call.parts["entities"]), connections)
    parameters = dict(call.parameters)
    token = parameters.pop("skiptoken", "")
    top = whole_number(parameters, "top", DEFAULT_TOP, MAX_TOP)
    select = [
        check_name(name, entity, "select") for name in parse_names(parameters.get("select", ""), "select")
    ]
    _check_order(parameters.get("orderby", ""))
    pairs = (f"{name}={value}" for name, value in sorted(parameters.items()))
    about = (call.tenant.name, call.principal.id, "records", entity.name, *pairs)
    place = hub.open_token(token, *about) if token else {}
    test = matcher(parse_filter(parameters["filter"]), entity) if parameters.get("filter") else None
    dead, test = _with_deleted(parameters.get("deleted", ""), test)
    found, following_place = hub.records.walk(call.tenant, entity.name, place, top=top, test=test, dead=dead)
    names = _slugs(connections)
    body: dict[str, Any] = {"value": [item_of_record(record, names, select) for record in found]}
    if following_place is not None:
        following = {**parameters, "skiptoken": hub.seal_token(following_place, *about)}
        body["nextLink"] = link(hub.settings.public_url, call.incoming.path, following)
    return Reply(200, body)


def _with_deleted(text: str, test: Test | None) -> tuple[bool, Test | None]:
    """(whether deleted records are among those that are looked at, what those shown have to pass)."""
    if text not in ("", "with", "only"):
        raise BadRequest.field("deleted", "deleted: expected with or only.")
    if text != "only":
        return text == "with", test
    return True, lambda record: not is_alive(record) and (test is None or test(record))


def _check_order(text: str) -> None:
    """Raises BadRequest for an order that would have to read everything first."""
    if parse_orders(text, "orderby") not in ((), (Order("id"),)):
        raise BadRequest.field(
            "orderby", "orderby: stored records come in the order of id only; leave it out."
        )


def find(call: Call, entity: Entity) -> Record:
    """By record id, redirects followed; raises NotFound."""
    hub: Hub = call.hub
    record_id = call.parts["record_id"].lower()
    known = re.fullmatch(r"[0-9a-f-]{36}", record_id)
    found = hub.records.find(call.tenant, entity.name, record_id) if known else None
    if found is not None:
        return found
    raise NotFound(f"There is no stored {entity.name} '{call.parts['record_id']}'.")


def reply_of(call: Call, record: Record, status: int = 200) -> Reply:
    item = item_of_record(record, names_of(call.hub, call.tenant))
    headers = {"ETag": item["etag"]}
    if status == 201:
        headers["Location"] = f"/api/records/{call.parts['entities']}/{record.id}"
    return Reply(status, item, headers)


@route("POST", "/api/records/<entities>", role=Role.OPERATOR, item_body=True, answer=201)
def create(call: Call) -> Reply:
    """Makes a record in the hub; every connection that wants it gets it. References are the ids of stored records.

    409 where another record has the value by which records are matched: it names that one.
    """
    hub: Hub = call.hub
    entity = with_customs_of(entity_of(call.parts["entities"]), hub.connections.every(call.tenant))
    fields = accept_item(entity, call.body, create=True)
    return reply_of(call, hub.editor(call.tenant, entity, call.principal.id).create(fields, call.key), 201)


@route("PATCH", "/api/records/<entities>/<record_id>", role=Role.OPERATOR, item_body=True)
def update(call: Call) -> Reply:
    """Changes the named fields of a stored record, null empties one; with If-Match only if it has not moved on."""
    hub: Hub = call.hub
    entity = with_customs_of(entity_of(call.parts["entities"]), hub.connections.every(call.tenant))
    found = find(call, entity)
    fields = accept_item(entity, call.body, create=False)
    if_match = etag_of(call.incoming.headers.get("if-match", ""))
    return reply_of(
        call, hub.editor(call.tenant, entity, call.principal.id).update(found.id, fields, if_match)
    )


@route(
    "DELETE",
    "/api/records/<entities>/<record_id>",
    role=Role.OPERATOR,
    parameters=[Parameter("confirm", "Has to be true", required=True)],
    answer=204,
)
def delete(call: Call) -> Reply:
    """Deletes a stored record, here and at every connection that has it and is written to; needs confirm=true."""
    entity = entity_of(call.parts["entities"])
    hub: Hub = call.hub
    if not flag(call.parameters, "confirm"):
        raise BadRequest.field("confirm", "confirm: a delete goes everywhere; say confirm=true.")
    found = find(call, entity)
    if_match = etag_of(call.incoming.headers.get("if-match", ""))
    hub.editor(call.tenant, entity, call.principal.id).delete(found.id, if_match)
    return Reply(204)


@route("GET", "/api/records/<entities>/<record_id>", role=Role.READER)
def record(call: Call) -> Reply:
    """One stored record with its links."""
    entity = entity_of(call.parts["entities"])
    found = find(call, entity)
    if found.dead:
        raise NotFound(f"The {entity.name} '{found.id}' was deleted; its history is there still.")
    item = item_of_record(found, names_of(call.hub, call.tenant))
    if not_modified(call.incoming.headers, item["etag"]):
        return Reply(304, None, {"ETag": item["etag"]})
    return Reply(200, item, {"ETag": item["etag"]})
