"""Every entity as it is: a system that has no names of its own is told ours, unless a connection's mapping says otherwise."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from crm_core.model.entities import ENTITIES, LINE, Entity
from crm_core.model.field_map import FieldMap, Target
from crm_core.model.fields import Field, Type
from crm_core.model.mapping import EntityMap


def _plain(entity: Entity) -> EntityMap:
    beside = {each.companion for each in entity.fields if each.companion}
    fields = tuple(_field(each) for each in entity.fields if each.name not in beside)
    has_lines = any(each.type is Type.LINES for each in entity.fields)
    return EntityMap(
        entity, entity.path, "", "", "", fields, lines=_plain(LINE) if has_lines else None, joins=True
    )


def named(emap: EntityMap, document: Mapping[str, Any]) -> EntityMap:
    """The map of those fields alone that the overrides name."""
    names = (document.get("fields") or {}).keys()
    return replace(emap, fields=tuple(each for each in emap.fields if each.field in names))


def _field(field: Field) -> FieldMap:
    targets = tuple(Target(each, each, field.name, "{id}", field.name) for each in field.targets)
    readable = field.name != "deleted_at"  # the hub's own
    return FieldMap(
        field.name, field.name, readable=readable, targets=targets, kind_native=field.companion, free=True
    )


MAPS: Mapping[str, EntityMap] = {name: _plain(entity) for name, entity in ENTITIES.items()}
