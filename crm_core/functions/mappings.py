"""The mapping of a connection's entity: what holds, what was said for it, its former versions, and what it makes of a
real record.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, cast

from crm_core.errors import BadRequest, NotFound, Stale
from crm_core.functions.crm import etag_of
from crm_core.functions.endpoint import route
from crm_core.functions.web import Call, Parameter, Reply, Role
from crm_core.model.connection import Connection
from crm_core.model.entities import BY_PATH, ENTITIES

if TYPE_CHECKING:
    from pydantic import BaseModel

    from crm_core.connector import Connector
    from crm_core.functions.bodies import PreviewBody, RollbackBody
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
    them may be meant otherwise. The ETag is that of its version.
    """
    connection, kind, entity = _found(call)
    return _shown(connection, kind, entity)


def _shown(connection: Connection, kind: "type[Connector]", entity: str) -> Reply:
    from crm_core.connector import maps_of
    from crm_core.model.mapping_lint import warnings

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
    return Reply(200, body, {"ETag": f'"{body["version"]}"'})


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
    """The overrides that a mapping had and has, newest first."""
    hub: Hub = call.hub
    connection, _, entity = _found(call)
    return Reply(200, {"value": hub.connections.mapping_versions(connection, entity)})


def _version(call: Call, connection: Connection, entity: str, text: str, name: str) -> Mapping[str, Any]:
    """One version by its number; 0 is what the connector declares. Raises NotFound, BadRequest for what is no number."""
    hub: Hub = call.hub
    if not (text.isascii() and text.isdigit() and len(text) <= 9):
        raise BadRequest.field(name, f"{name}: expected the number of a version, such as 3.")
    if int(text) == 0:
        return {"version": 0, "saved_at": None, "document": {}}
    for each in hub.connections.mapping_versions(connection, entity):
        if each["version"] == int(text):
            return each
    raise NotFound(f"The mapping of {entity} at {connection.slug} has no version {int(text)}.")


@route("GET", "/api/integrations/<connection>/mappings/<entity>/versions/<version>", role=Role.READER)
def mapping_version(call: Call) -> Reply:
    """The overrides of one version; 0: none, as the connector declares it."""
    connection, _, entity = _found(call)
    return Reply(200, _version(call, connection, entity, call.parts["version"], "version"))


@route(
    "GET",
    "/api/integrations/<connection>/mappings/<entity>/diff",
    role=Role.READER,
    parameters=[
        Parameter("from", "The version that is compared with; the one before `to` if missing"),
        Parameter("to", "The version that is looked at; the one that holds if missing"),
    ],
)
def mapping_diff(call: Call) -> Reply:
    """What one version says otherwise than another: by field, and by property that is written besides the fields."""
    from crm_core.mapping_admin import differences

    connection, _, entity = _found(call)
    now = connection.mappings.get(entity)
    held = str(now["version"]) if now else "0"
    after = _version(call, connection, entity, call.parameters.get("to") or held, "to")
    earlier = str(max(0, after["version"] - 1))
    before = _version(call, connection, entity, call.parameters.get("from") or earlier, "from")
    body = {
        "connection": connection.slug,
        "entity": entity,
        "from": before["version"],
        "to": after["version"],
        "value": differences(before["document"], after["document"]),
    }
    return Reply(200, body)


def _rollback_body() -> "type[BaseModel]":
    from crm_core.functions.bodies import RollbackBody

    return RollbackBody


@route(
    "POST",
    "/api/integrations/<connection>/mappings/<entity>/rollback",
    role=Role.INTEGRATOR,
    body=_rollback_body,
)
def mapping_rollback(call: Call) -> Reply:
    """Lets the overrides of an older version hold again, as the next version; with If-Match only if nobody changed them.

    They are checked as when they are saved, and what is to be read or sent anew begins as it does then. 412 if the
    version that holds is not the one of If-Match.
    """
    from crm_core.connection_admin import Wanted
    from crm_core.storage.run_log import note

    hub: Hub = call.hub
    connection, kind, entity = _found(call)
    saved = connection.mappings.get(entity)
    held = saved["version"] if saved else 0
    wanted = etag_of(call.incoming.headers.get("if-match", ""))
    if wanted and wanted.strip('"') != str(held):
        raise Stale(f"The mapping of {entity} has version {held} now; look at it and repeat this.")
    body = cast("RollbackBody", call.body)
    found = _version(call, connection, entity, str(body.version), "version")
    after = hub.admin.update(connection, Wanted(mappings={entity: found["document"]}))
    version = after.mappings[entity]["version"] if entity in after.mappings else 0
    text = f"The mapping of {entity} is as in version {body.version} again; that is version {version}."
    note("config.changed", text, connection=connection.uid, entity=entity, by=call.principal.id)
    hub.forget(after)
    return _shown(after, kind, entity)


def _preview_body() -> "type[BaseModel]":
    from crm_core.functions.bodies import PreviewBody

    return PreviewBody


@route(
    "POST",
    "/api/integrations/<connection>/mappings/<entity>/preview",
    role=Role.INTEGRATOR,
    body=_preview_body,
)
def mapping_preview(call: Call) -> Reply:
    """What a mapping makes of one real record, both ways and field by field, with the rule that did it.

    Nothing is written, here or there; at most one record of the remote system is read. Overrides that are not saved yet
    are checked as when they are.
    """
    from crm_core.mapping_preview import preview, sample
    from crm_core.sync.engine import Opened

    hub: Hub = call.hub
    connection, _, entity = _found(call)
    body = cast("PreviewBody", call.body)
    if bool(body.record_id) is bool(body.remote_id):
        raise BadRequest.field("record_id", "record_id: name one record, by record_id or by remote_id.")
    if body.overrides is None:
        opened = hub.connect(call.tenant, connection.uid)
    else:
        opened = Opened(*hub.admin.trial(connection, entity, body.overrides))
    saved = opened.connection.mappings.get(entity)
    document: Mapping[str, Any] = saved["document"] if saved else {}
    found = sample(
        hub.engine, call.tenant, opened, entity, record_id=body.record_id.lower(), rid=body.remote_id
    )
    shown = preview(hub.engine, call.tenant, opened, entity, found, document)
    head = {
        "connection": connection.slug,
        "entity": entity,
        "version": None if body.overrides is not None else saved["version"] if saved else 0,
    }
    return Reply(200, {**head, **shown})
