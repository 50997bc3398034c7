"""The stored records: what the hub holds, its links and its history."""

import re
from typing import Any

from crm_core.errors import NotFound
from crm_core.functions.crm import entity_of
from crm_core.functions.endpoint import route
from crm_core.functions.web import Call, Parameter, Reply, Role, link, not_modified, whole_number
from crm_core.hub import Hub
from crm_core.model.connection import Tenant
from crm_core.model.entities import Entity
from crm_core.model.record import HUB, Record

MAX_TOP = 1000
DEFAULT_TOP = 100


def _names(hub: Hub, tenant: Tenant) -> dict[str, str]:
    """Connection uid -> slug."""
    return {each.uid: each.slug for each in hub.connections.every(tenant)}


def _item(record: Record, names: dict[str, str]) -> dict[str, Any]:
    links = [
        {
            "connection": names.get(uid, uid),
            "id": each.rid,
            "state": each.state,
            "version": each.ver,
            "seen": each.seen,
        }
        for uid, each in record.links.items()
    ]
    return {
        "id": record.id,
        "entity": record.entity,
        "etag": f'"{record.version}"',
        "version": record.version,
        **record.fields,
        "links": links,
    }


@route(
    "GET",
    "/api/records/<entities>",
    role=Role.READER,
    parameters=[
        Parameter("top", f"Items of a page, 1 to {MAX_TOP}, {DEFAULT_TOP} if missing"),
        Parameter("skiptoken", "From nextLink; goes on after a page"),
    ],
)
def records(call: Call) -> Reply:
    """Stored records in the order of their ids, a page at a time; a page can be short and still have a nextLink."""
    hub: Hub = call.hub
    entity = entity_of(call.parts["entities"])
    top = whole_number(call.parameters, "top", DEFAULT_TOP, MAX_TOP)
    about = (call.tenant.name, call.principal.id, "records", entity.name, str(top))
    token = call.parameters.get("skiptoken", "")
    place = hub.open_token(token, *about) if token else {}
    found, following_place = hub.records.walk(call.tenant, entity.name, place, top=top)
    names = _names(hub, call.tenant)
    body: dict[str, Any] = {"value": [_item(record, names) for record in found]}
    if following_place is not None:
        after = hub.seal_token(following_place, *about)
        following = {"top": str(top), "skiptoken": after}
        body["nextLink"] = link(hub.settings.public_url, call.incoming.path, following)
    return Reply(200, body)


def _find(call: Call, entity: Entity) -> Record:
    """By record id, redirects followed; raises NotFound."""
    hub: Hub = call.hub
    record_id = call.parts["record_id"].lower()
    known = re.fullmatch(r"[0-9a-f-]{36}", record_id)
    found = hub.records.find(call.tenant, entity.name, record_id) if known else None
    if found is not None:
        return found
    raise NotFound(f"There is no stored {entity.name} '{call.parts['record_id']}'.")


@route("GET", "/api/records/<entities>/<record_id>", role=Role.READER)
def record(call: Call) -> Reply:
    """One stored record with its links."""
    found = _find(call, entity_of(call.parts["entities"]))
    item = _item(found, _names(call.hub, call.tenant))
    if not_modified(call.incoming.headers, item["etag"]):
        return Reply(304, None, {"ETag": item["etag"]})
    return Reply(200, item, {"ETag": item["etag"]})


@route("GET", "/api/records/<entities>/<record_id>/history", role=Role.READER)
def history(call: Call) -> Reply:
    """What happened to a record, oldest first: when, from where, in which run, and the values before."""
    hub: Hub = call.hub
    entity = entity_of(call.parts["entities"])
    found = _find(call, entity)
    names = {HUB: HUB, **_names(hub, call.tenant)}
    created = found.created
    first = {
        "version": 1,
        "change": "create",
        "time": created["time"],
        "origin": names.get(created["origin"], created["origin"]),
        "run": created["run"],
        "old": {},
    }
    steps = [
        {
            "version": each.version,
            "change": each.change,
            "time": each.time,
            "origin": names.get(each.origin, each.origin),
            "run": each.run,
            "old": dict(each.old),
        }
        for each in hub.records.history(call.tenant, entity.name, found.id)
    ]
    return Reply(200, {"value": [first, *steps]})
