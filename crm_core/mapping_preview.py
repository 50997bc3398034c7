"""What a mapping makes of one real record, both ways: what would be read, what would be sent, and which rule did it.

At most one record of the remote system is read; nothing is written anywhere.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from crm_core.connector import UNKNOWN, Change
from crm_core.errors import BadRequest, NotSupported, RecordGone
from crm_core.model.connection import Tenant
from crm_core.model.field_map import FieldMap
from crm_core.model.fields import NATIVE_PREFIX
from crm_core.model.joined import EVENT_TIME, ID
from crm_core.model.json_text import parse_json
from crm_core.model.mapping import EntityMap
from crm_core.model.mapping_lint import warnings
from crm_core.model.override_fields import Overridden, at, path_text
from crm_core.model.record import Record
from crm_core.model.record_event import RecordEvent
from crm_core.model.value_maps import ValueMap
from crm_core.storage import layout
from crm_core.sync.deliver import joined
from crm_core.sync.engine import Engine, Opened
from crm_core.sync.references import Ref, References


@dataclass(frozen=True)
class Sample:
    """The record that a mapping is tried on. `record`: what the hub has; `change`: what the remote has. One may be None."""

    record: Record | None
    change: Change | None


def sample(
    engine: Engine, tenant: Tenant, opened: Opened, entity: str, *, record_id: str, rid: str
) -> Sample:
    """The record by one of its names, with the other side of it where there is one.

    Raises RecordGone for a remote record that is not there, BadRequest for an id that is none here, and what a call raises.
    """
    if rid:
        change = opened.connector.get(entity, rid)
        derived = layout.derived_record_id(tenant, opened.connection.uid, entity, change.rid)
        return Sample(engine.records.find(tenant, entity, derived), change)
    known = layout.is_record_id(record_id)
    record = engine.records.find(tenant, entity, record_id) if known else None
    if record is None:
        raise BadRequest.field("record_id", f"record_id: there is no stored {entity} '{record_id}'.")
    link = record.links.get(opened.connection.uid)
    if link is None or link.state != "live":
        return Sample(record, None)
    try:
        return Sample(record, opened.connector.get(entity, link.rid))
    except (NotSupported, RecordGone):
        return Sample(
            record, None
        )  # a system that can't be asked; or it was deleted and no pull has seen that


def preview(
    engine: Engine, tenant: Tenant, opened: Opened, entity: str, found: Sample, document: Mapping[str, Any]
) -> dict[str, Any]:
    """What the mapping of `opened` makes of a record. `document`: the overrides that it was made of."""
    emap = opened.connector.map(entity)
    if found.change is not None:
        emap = emap.of(found.change.fields or {})
    references = References(engine, tenant, emap.entity)
    inward = _inward(tenant, opened, emap, references, found)
    source: Mapping[str, Any] = found.record.fields if found.record else inward.values
    event = (
        _event(engine, tenant, opened, found.record)
        if opened.connector.delivers_to and found.record
        else None
    )
    if event is not None:
        source = {**event.fields, ID: event.record, EVENT_TIME: event.time}
    outward = _Outward(opened, emap, references, source, document)
    fields = [
        {
            "name": each.field,
            "type": emap.entity.by_name[each.field].type,
            "in": inward.told(each, found, document),
            "out": outward.told(each),
        }
        for each in emap.fields
    ]
    mapped = {*emap.read_names, *emap.written_names}
    return {
        "record_id": found.record.id if found.record else None,
        "remote_id": found.change.rid if found.change else None,
        "problem": (found.change.problem or None) if found.change else None,
        "fields": fields,
        "targets": list(outward.targets()),
        "unmapped": sorted(
            name for name in (found.record.fields if found.record else source) if name not in mapped
        ),
        "warnings": list(warnings(emap)),
        **({"message": _message(opened, event)} if event is not None else {}),
    }


def _event(engine: Engine, tenant: Tenant, opened: Opened, record: Record) -> RecordEvent:
    """As if the record had just been changed, with what a delivery tells of the records that it refers to."""
    stamp = record.stamp
    event = RecordEvent(
        record.id, record.entity, record.version, "updated", stamp.time, stamp.origin, record.fields
    )
    return joined(engine, tenant, event, opened.connector.joins(record.entity))


def _message(opened: Opened, event: RecordEvent) -> dict[str, Any]:
    """The body that would be delivered, or why none can be made."""
    try:
        made = opened.connector.message("preview", event)
    except BadRequest as error:
        return {"content_type": None, "body": None, "problem": error.message}
    return {"content_type": made.content_type, "body": parse_json(made.body), "problem": None}


# --- what is read ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Inward:
    """`values`: what the hub would have, references as record ids. `refused`: field -> why it can't be read."""

    values: Mapping[str, Any]
    refused: Mapping[str, str]

    def told(self, each: FieldMap, found: Sample, document: Mapping[str, Any]) -> dict[str, Any] | None:
        """None where the field is not read, or nothing was."""
        if found.change is None or not each.readable:
            return None
        have = {path_text(path): at(found.change.raw, path) for path in each.sources}
        value = self.values.get(each.field)
        told: dict[str, Any] = {
            "from": have,
            "to": value,
            "hub": found.record.fields.get(each.field) if found.record else None,
        }
        if each.field in self.refused:
            outcome, told["message"] = "refused", self.refused[each.field]
        elif value is None:
            outcome = "empty"
        else:
            outcome = "kept" if _is_native(value) else "read"
        theirs = next(iter(have.values()), None)
        translation = _translation(each)
        rule = "" if translation is None or outcome == "empty" else _rule(translation, theirs, inward=True)
        if rule == "default":
            outcome = "default"
        return {**told, "outcome": outcome, "rule": _path(each, rule, document)}


def _inward(
    tenant: Tenant, opened: Opened, emap: EntityMap, references: References, found: Sample
) -> _Inward:
    change = found.change
    if change is None:
        return _Inward({}, {})
    values, refused = dict(change.fields or {}), dict[str, str]()
    if change.problem:  # one value that can't be read hides the others: each is read by itself
        for each in emap.fields:
            try:
                values |= replace(emap, fields=(each,), derived=()).inward(change.raw)
            except (ValueError, TypeError, ArithmeticError) as error:
                refused[each.field] = f"{each.field}: {error}."
    known = {name: value for name, value in values.items() if value is not None and value is not UNKNOWN}
    uid = opened.connection.uid
    told = emap.entity.with_references(
        known, lambda entity, rid: layout.derived_record_id(tenant, uid, entity, rid)
    )
    references.resolved([told])
    return _Inward(references.resolve(told), refused)


# --- what is sent ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Outward:
    """`fields`: of the record, references as record ids."""

    opened: Opened
    emap: EntityMap
    references: References
    fields: Mapping[str, Any]
    document: Mapping[str, Any]

    def told(self, each: FieldMap) -> dict[str, Any] | None:
        """None where the field is not written."""
        name, entity = each.field, self.emap.entity
        kind = entity.by_name.get(name)
        if kind is None or not each.writable or kind.read_only or self.emap.read_only:
            return None
        value = self.fields.get(name)
        translation = _translation(each)
        rule = "" if translation is None or value is None else _rule(translation, value, inward=False)
        told: dict[str, Any] = {"from": value, "to": {}, "rule": _path(each, rule, self.document)}
        names = [name, kind.companion] if kind.companion else [name]
        ours, missing = self._outward(names)
        if missing:
            target, record_id = next(iter(missing.values()))
            what = f"the {target} {record_id} is not there yet" if record_id else f"no {target} is kept there"
            return {**told, "outcome": "waits", "message": f"{name}: {what}."}
        try:
            told["to"] = replace(self.emap, derived=()).outward(ours, beside=self.fields)
        except BadRequest as error:
            return {**told, "outcome": "refused", "message": error.message}
        if value is None:
            return {**told, "outcome": "empty"}
        if rule == "default":
            return {**told, "outcome": "default"}
        return {**told, "outcome": "kept" if _is_native(value) else "sent"}

    def _outward(self, names: Sequence[str]) -> tuple[Mapping[str, Any], Mapping[str, Ref]]:
        """References as they are sent: as the system's own ids or, in a delivery, as ours."""
        if self.opened.connector.delivers_to:
            return {name: self.fields.get(name) for name in names}, {}
        return self.references.outward(self.opened.connection.uid, self.fields, names)

    def targets(self) -> Iterator[dict[str, Any]]:
        """What is written besides the fields."""
        for each in self.emap.derived:
            if self.emap.read_only:
                return
            made = at(each.put(self.fields), each.path)
            to = path_text(each.path)
            yield {"to": to, "from": list(each.sources), "value": made, "rule": f"targets.{to}"}


# --- which rule did it -------------------------------------------------------------------------------------------


def _is_native(value: Any) -> bool:
    return isinstance(value, str) and value.startswith(NATIVE_PREFIX)


def _translation(each: FieldMap) -> ValueMap | None:
    return each.translation if isinstance(each, Overridden) else None


def _rule(values: ValueMap, value: Any, *, inward: bool) -> str:
    """`values.{number}` of the rule that translates a value, else what becomes of one that no rule names."""
    number = values.reading(value) if inward else values.writing(value)
    if number is not None:
        return f"values.{number}"
    default = values.default_ours if inward else values.default_theirs
    return "default" if values.unmapped == "default" and default is not None else "unmapped"


def _path(each: FieldMap, rule: str, document: Mapping[str, Any]) -> str | None:
    """The place in the overrides that decides about the field; None where it is as the connector declares it."""
    rules = document.get("fields") or {}
    said = rules.get(each.field)
    if said is None:
        return None
    given = said.get("values")
    if rule.startswith("values.") and isinstance(given, Mapping):
        # An object's rules are in the order of our values, and are found by them.
        rule = f"values.{sorted(given)[int(rule.removeprefix('values.'))]}"
    return f"fields.{each.field}" + (f".{rule}" if rule else "")
