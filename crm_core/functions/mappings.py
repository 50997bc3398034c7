"""The mapping of a connection's entity: what holds, what was said for it, and its former versions."""

from typing import TYPE_CHECKING, Any

from crm_core.errors import NotFound
from crm_core.functions.endpoint import route
from crm_core.functions.web import Call, Reply, Role
from crm_core.model.connection import Connection
from crm_core.model.entities import BY_PATH, ENTITIES

if TYPE_CHECKING:
    from crm_core.connector import Connector
    from crm_core.hub import Hub
    from crm_core.model.field_map import FieldMap
    from crm_core.model.mapping import EntityMap


def _found(call: Call) -> "tuple[Connection, type[Connector], str]":
    """The connection as it is stored, its connector, and the entity, which a path names as one or as many."""
    from crm_core.hub import connector_class

    hub: Hub = call.hub
    connection = hub.find(call.tenant, call.parts["connection"])
    name = call.parts["entity"]
    entity = BY_PATH[name].name if name in BY_PATH else name
    if entity not in ENTITIES:
        raise NotFound(f"There is no entity '{name}'; known are {', '.join(ENTITIES)}.")
    kind = connector_class(connection.connector)
    kind.entity_map(entity)
    return connection, kind, entity


@route("GET", "/api/integrations/<connection>/mappings/<entity>", role=Role.READER)
def mapping(call: Call) -> Reply:
    """How a connection maps an entity: each field with its property and direction, the overrides that say so, and what in
    them may be meant otherwise.
    """
    from crm_core.connector import maps_of
    from crm_core.model.mapping_lint import warnings

    connection, kind, entity = _found(call)
    saved = connection.mappings.get(entity)
    documents = {entity: saved["document"]} if saved else {}
    emap = maps_of(kind, documents).get(entity, kind.entity_map(entity))
    body = {
        "connection": connection.slug,
        "entity": entity,
        "version": saved["version"] if saved else 0,
        "saved_at": saved["saved_at"] if saved else None,
        "document": saved["document"] if saved else {},
        "effective": {
            "fields": [_field(emap, each) for each in emap.fields],
            "targets": [{"to": ".".join(each.path), "from": list(each.sources)} for each in emap.derived],
        },
        "warnings": list(warnings(emap)),
    }
    return Reply(200, body)


def _field(emap: "EntityMap", each: "FieldMap") -> dict[str, Any]:
    kind = emap.entity.by_name[each.field]
    writes = each.writable and not kind.read_only
    return {
        "name": each.field,
        "type": kind.type,
        "reads": list(each.natives) if each.readable else [],
        "writes": [".".join(place) for place in each.places] if writes else [],
        "direction": ("both" if writes else "in") if each.readable else "out",
        "required": kind.required or each.field in emap.required,
        "length": each.length,
    }


@route("GET", "/api/integrations/<connection>/mappings/<entity>/versions", role=Role.READER)
def mapping_versions(call: Call) -> Reply:
    """The overrides that a mapping had and has, newest first; one is taken back by saving an older one again."""
    hub: Hub = call.hub
    connection, _, entity = _found(call)
    return Reply(200, {"value": hub.connections.mapping_versions(connection, entity)})
