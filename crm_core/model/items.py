"""An app's item for a stored record, checked against the canonical model. Pure."""

from collections.abc import Mapping
from typing import Any

from crm_core.errors import BadRequest, FieldError
from crm_core.model.entities import RESERVED, Entity
from crm_core.model.fields import Field, Type
from crm_core.model.literals import GUID

HUB_ONLY = frozenset({"deleted_at"})
"""What the hub alone sets."""


def accept_item(entity: Entity, body: Mapping[str, Any], *, create: bool) -> dict[str, Any]:
    """The canonical values of an item, null for what is to be emptied. References are record ids.

    Raises BadRequest with one error for each wrong field, and for each that is missing on create.
    """
    fields: dict[str, Any] = {}
    errors: list[FieldError] = []
    for name, value in body.items():
        try:
            fields[name] = _accepted(entity, name, value)
        except ValueError as error:
            errors.append(FieldError(name, f"{name}: {error}."))
    for each in entity.fields:
        problem = _missing(entity, each, fields, body, create=create)
        if problem:
            errors.append(FieldError(each.name, f"{each.name}: {problem}."))
    if not errors and not fields:
        errors.append(FieldError("body", "The body names no field to write."))
    if errors:
        raise BadRequest(errors[0].message, errors=errors)
    return fields


def _accepted(entity: Entity, name: str, value: Any) -> Any:
    kind = entity.by_name.get(name)
    if kind is None or name in RESERVED:
        known = ", ".join(each.name for each in entity.fields if not each.read_only)
        raise ValueError(f"is no field of {entity.name}; known are {known}")
    if kind.read_only or name in HUB_ONLY:
        raise ValueError("is read only; leave it out")
    parsed = kind.parse(value)
    if kind.type is Type.REF and parsed is not None:
        if not GUID.fullmatch(parsed):
            raise ValueError("expected the id of a stored record")
        return parsed.lower()
    return parsed


def _missing(
    entity: Entity, field: Field, fields: Mapping[str, Any], body: Mapping[str, Any], *, create: bool
) -> str:
    """What is wrong with what the item says, or does not say, of a field as a whole; "" for nothing."""
    if field.required:
        if create and fields.get(field.name) is None and field.name not in body:
            return f"required to create {entity.name}"
        if field.name in fields and fields[field.name] is None:
            return "can't be emptied"
    beside = field.companion
    if beside and fields.get(field.name) is not None and fields.get(beside) is None:
        if len(field.targets) == 1:
            return ""
        return f"can be of several kinds; give {beside} too: {', '.join(field.targets)}"
    if beside and fields.get(beside) is not None and fields.get(field.name) is None:
        return f"goes with {beside}; give both"
    return ""
