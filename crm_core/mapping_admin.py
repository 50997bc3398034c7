"""The overrides of mappings in the life of a connection: their versions, and what is checked when they are saved."""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from crm_core.connector import Connector
from crm_core.errors import BadRequest, FieldError, HubError, NotSupported
from crm_core.model.connection import Connection
from crm_core.model.overrides import effective

Mappings = Mapping[str, Mapping[str, Any]]
"""By entity {"version", "saved_at", "document", "since"}. `since`: field -> the version that last mapped it otherwise than
before, "*" for all of them.
"""


def next_mappings(
    present: Mappings, wanted: Mapping[str, Mapping[str, Any] | None] | None, now: str
) -> Mappings:
    """What is saved: a document that differs is the entity's next version, and one that is none (or {}) is as declared.

    An entity keeps its number when its overrides go, so that no version is ever given twice.
    """
    saved = dict(present)
    for entity, given in (wanted or {}).items():
        document = dict(given or {})
        before = present.get(entity)
        if document != (before["document"] if before else {}):
            version = before["version"] + 1 if before else 1
            changed = dict.fromkeys(_changed_fields(before["document"] if before else {}, document), version)
            saved[entity] = {
                "version": version,
                "saved_at": now,
                "document": document,
                "since": {**(before.get("since", {}) if before else {}), **changed},
            }
    return saved


def _changed_fields(before: Mapping[str, Any], after: Mapping[str, Any]) -> set[str]:
    """The fields whose value at the remote is another one now; "*" where that may be any."""
    if before.get("zone") != after.get("zone"):
        return {"*"}
    one, other = (_rules(each) for each in (before, after))
    return {name for name in one.keys() | other.keys() if one.get(name) != other.get(name)}


def differences(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[dict[str, Any]]:
    """What overrides say otherwise than others: by field or property {field, change, before, after}, in the order of names.

    `change`: `added`, `removed` or `changed`. A field that overrides do not name is as the connector declares it.
    """
    found = []
    was, now = (dict(_parts(each)) for each in (before, after))
    for name in sorted(was.keys() | now.keys()):
        old, new = was.get(name, _NO_RULE), now.get(name, _NO_RULE)
        if json.dumps(old, sort_keys=True) == json.dumps(new, sort_keys=True):  # true is not 1
            continue
        change = "added" if old is _NO_RULE else "removed" if new is _NO_RULE else "changed"
        shown = {side: rule for side, rule in (("before", old), ("after", new)) if rule is not _NO_RULE}
        found.append({"field": name, "change": change, **shown})
    return found


_NO_RULE = "no rule"
"""Null is one: it says that a field is not mapped."""


def _parts(document: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    if document.get("zone") is not None:
        yield "zone", document["zone"]
    for part in ("fields", "targets"):
        for name, rule in (document.get(part) or {}).items():
            yield f"{part}.{name}", rule


def _rules(document: Mapping[str, Any]) -> Mapping[str, Any]:
    fields = document.get("fields")
    return fields if isinstance(fields, Mapping) else {}


def changed_entities(before: Mappings, after: Mappings) -> list[str]:
    return [entity for entity, saved in after.items() if saved != before.get(entity)]


def mapping_errors(kind: type[Connector], mappings: Mappings) -> Sequence[FieldError]:
    """What is wrong with overrides in themselves, an error for each thing, named by its path."""
    errors: list[FieldError] = []
    for entity, saved in mappings.items():
        where = f"mappings.{entity}"
        if entity not in kind.entities:
            known = ", ".join(kind.entities)
            errors.append(
                FieldError(where, f"{where}: {kind.label} has no such entity here; it has {known}.")
            )
            continue
        try:
            effective(kind.entities[entity], saved["document"], where=where)
        except BadRequest as error:
            errors += error.errors
    return errors


def check_at_remote(connector: Connector, mappings: Mappings, entities: Iterable[str]) -> None:
    """Asks the remote which properties it has, and checks names and types by them.

    Raises BadRequest with an error for each wrong thing, and what the call raises: a mapping that nobody could check
    might stop every pull. A system without metadata is not asked.
    """
    errors: list[FieldError] = []
    for entity in entities:
        document, where = mappings[entity]["document"], f"mappings.{entity}"
        if not document:
            continue
        try:
            described = connector.describe(entity)
        except NotSupported:
            continue
        except HubError as error:
            error.message = f"{where}: can't be checked now, so nothing was saved. {error.message}"
            error.args = (error.message,)
            raise
        try:
            effective(connector.entity_map(entity), document, described, where)
        except BadRequest as error:
            errors += error.errors
    if errors:
        raise BadRequest(errors[0].message, errors=errors)


def check_custom_types(connection: Connection, entities: Iterable[str], others: Iterable[Connection]) -> None:
    """A custom field is of one type at every connection, since all of them write it into the same record.

    Raises BadRequest with an error for each that is not.
    """
    errors: list[FieldError] = []
    known = {
        (entity, name): (kind, other.slug)
        for other in others
        if other.uid != connection.uid
        for entity in other.mappings
        for name, kind in custom_types(other, entity).items()
    }
    for entity in entities:
        for name, kind in custom_types(connection, entity).items():
            there, slug = known.get((entity, name), (kind, ""))
            if there != kind:
                path = f"mappings.{entity}.fields.{name}.type"
                text = (
                    f"{path}: is {there} at the connection {slug}; give it that type, or take another name."
                )
                errors.append(FieldError(path, text))
    if errors:
        raise BadRequest(errors[0].message, errors=errors)


def custom_types(connection: Connection, entity: str) -> Mapping[str, str]:
    """The custom fields that a connection declares of an entity, with their types."""
    fields = connection.mappings[entity]["document"].get("fields") or {}
    return {name: rule["type"] for name, rule in fields.items() if rule and "type" in rule}
