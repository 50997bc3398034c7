"""OpenAPI 3.1, generated from the declarations that validate: the route table, the bodies and the entities."""

import inspect
import re
from typing import Any

from crm_core import __version__
from crm_core.functions.endpoint import ROUTES, Route
from crm_core.model.entities import ENTITIES, Entity
from crm_core.model.fields import Field, Type

_TYPES: dict[Type, dict[str, Any]] = {
    Type.TEXT: {"type": "string"},
    Type.INTEGER: {"type": "integer"},
    Type.DECIMAL: {"type": "string", "format": "decimal"},
    Type.MONEY: {"type": "string", "format": "decimal"},
    Type.BOOLEAN: {"type": "boolean"},
    Type.DATE: {"type": "string", "format": "date"},
    Type.INSTANT: {"type": "string", "format": "date-time"},
    Type.CHOICE: {"type": "string"},
    Type.CHOICES: {"type": "array", "items": {"type": "string"}},
    Type.REF: {"type": "string"},
    Type.LINES: {"type": "array"},
}
_PROBLEM = {
    "type": "object",
    "required": ["title", "status", "code", "detail", "traceId"],
    "properties": {
        "type": {"type": "string"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "code": {"type": "string"},
        "detail": {"type": "string"},
        "traceId": {"type": "string"},
        "errors": {
            "type": "array",
            "items": {
                "type": "object",
                "properties": {"field": {"type": "string"}, "message": {"type": "string"}},
            },
        },
        "vendor": {"type": "object"},
    },
}


def document(server: str) -> dict[str, Any]:
    """The whole description; `server` is the hub's public address, "" if it has none."""
    schemas: dict[str, Any] = {"Problem": _PROBLEM}
    schemas |= {entity.name: _entity_schema(entity) for entity in ENTITIES.values()}
    paths: dict[str, Any] = {}
    for each in sorted(ROUTES, key=lambda route: (route.path, route.method)):
        path = re.sub(r"<(\w+)>", r"{\1}", each.path)
        paths.setdefault(path, {})[each.method.lower()] = _operation(each, schemas)
    described: dict[str, Any] = {
        "openapi": "3.1.0",
        "info": {"title": "CRM Hub", "version": __version__, "license": {"name": "MIT", "identifier": "MIT"}},
        "paths": paths,
        "components": {
            "schemas": schemas,
            "securitySchemes": {"key": {"type": "apiKey", "in": "header", "name": "X-API-KEY"}},
        },
    }
    if server:
        described["servers"] = [{"url": server}]
    return described


def _operation(each: Route, schemas: dict[str, Any]) -> dict[str, Any]:
    parameters: list[dict[str, Any]] = [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}
        for name in re.findall(r"<(\w+)>", each.path)
    ]
    parameters += [
        {
            "name": one.name,
            "in": "query",
            "required": one.required,
            "description": one.about,
            "schema": {"type": "string"},
        }
        for one in each.parameters
    ]
    operation: dict[str, Any] = {
        "operationId": f"{each.tag}_{each.handler.__name__}".replace(".", "_"),
        "summary": each.summary,
        "description": inspect.getdoc(each.handler),
        "tags": [each.tag],
        "parameters": parameters,
        "responses": {
            str(each.answer): {"description": each.summary},
            "default": {
                "description": "Refused or failed",
                "content": {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}},
            },
        },
        "security": [{"key": []}] if each.role is not None else [],
    }
    if each.long:
        operation["responses"]["202"] = {"description": "Accepted as a run; follow it at Operation-Location"}
    if each.body is not None:
        operation["requestBody"] = _json_body(_model_schema(each, schemas)) | {"required": not each.bare}
    elif each.item_body:
        items = [{"$ref": f"#/components/schemas/{name}"} for name in ENTITIES]
        operation["requestBody"] = _json_body({"anyOf": items})
    return operation


def _json_body(schema: dict[str, Any]) -> dict[str, Any]:
    return {"required": True, "content": {"application/json": {"schema": schema}}}


def _model_schema(each: Route, schemas: dict[str, Any]) -> dict[str, Any]:
    assert each.body is not None
    model = each.body()
    schema = model.model_json_schema(ref_template="#/components/schemas/{model}")
    schemas |= schema.pop("$defs", {})
    schemas[model.__name__] = schema
    return {"$ref": f"#/components/schemas/{model.__name__}"}


def _entity_schema(entity: Entity) -> dict[str, Any]:
    """An item to be written; native names of the remote system are accepted beside these."""
    return {
        "type": "object",
        "properties": {field.name: _field_schema(field) for field in entity.fields},
        "description": f"{entity.name}: canonical fields",
    }


def _field_schema(field: Field) -> dict[str, Any]:
    schema = dict(_TYPES[field.type])
    if field.choices:
        schema["examples"] = list(field.choices)
    if field.fields:
        properties = {each.name: _field_schema(each) for each in field.fields}
        schema["items"] = {"type": "object", "properties": properties, "additionalProperties": False}
    if field.read_only:
        schema["readOnly"] = True
    return {**schema, "type": [schema["type"], "null"]}
