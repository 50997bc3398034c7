"""What happened to a record with one of its versions, as deliveries tell of it. Pure."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Final, Literal, get_args

from crm_core.model.record import NOTHING, Record, Stamp

Kind = Literal["created", "updated", "deleted"]
"""`created`: the record came to life, for the first time or again. `deleted`: it is dead, or marked as deleted."""
KINDS: Final = frozenset(get_args(Kind))
MAX_CHARACTERS = 250_000
"""Of all its values together, and of all copies of it: they have to fit in rows, and in one transaction with the record and
its history, whatever the characters are.
"""
DELETED_AT = "deleted_at"


@dataclass(frozen=True, slots=True)
class RecordEvent:
    """One version of a record. `fields`: all of its values then. `old`: of the fields that changed, the values before, null
    where there was none; empty of a record that came to life. `time`, `origin`: when and from where it was changed.
    `cut`: fields that were too long to be kept here.
    """

    record: str
    entity: str
    version: int
    kind: Kind
    time: str
    origin: str
    fields: Mapping[str, Any]
    old: Mapping[str, Any] = NOTHING
    cut: tuple[str, ...] = ()

    def now(self) -> Record:
        """The record of this version, as far as a filter looks at it."""
        return _bare(self, self.fields)

    def before(self) -> Record | None:
        """The record of the version before, as far as a filter looks at it; None where there was none, or a dead one."""
        if self.kind == "created":
            return None
        fields = {**self.fields, **self.old}
        return _bare(self, {name: value for name, value in fields.items() if value is not None})

    def to_json(self) -> dict[str, Any]:
        """What is not told by the key of its row."""
        data: dict[str, Any] = {"kind": self.kind, "time": self.time, "origin": self.origin}
        data |= {"fields": dict(self.fields), "old": dict(self.old)}
        return {**data, "cut": list(self.cut)} if self.cut else data

    @classmethod
    def from_json(cls, record: str, entity: str, version: int, data: Mapping[str, Any]) -> "RecordEvent":
        return cls(
            record, entity, version, data["kind"], data["time"], data["origin"], data["fields"], data["old"],
            tuple(data.get("cut", ())),
        )  # fmt: skip


def _bare(event: RecordEvent, fields: Mapping[str, Any]) -> Record:
    return Record(event.record, event.entity, fields, Stamp(event.time, event.origin), {})


def event_of(
    before: Record | None, after: Record, old: Mapping[str, Any], time: str, origin: str
) -> RecordEvent:
    """What a write made of a record. `before`: None where there was none. `old`: the values that it replaced."""
    lived, lives = before is not None and is_alive(before), is_alive(after)
    kind: Kind = "updated"
    if lives and not lived:
        kind = "created"
    elif lived and not lives:
        kind = "deleted"
    return RecordEvent(
        after.id, after.entity, after.version, kind, time, origin, after.fields,
        NOTHING if kind == "created" else old,
    )  # fmt: skip


def is_alive(record: Record) -> bool:
    return not record.dead and record.fields.get(DELETED_AT) is None


def fitted(event: RecordEvent, copies: int = 1) -> RecordEvent:
    """The event without its longest values, if all of them are too long together. `copies`: so many go into one transaction."""
    limit = MAX_CHARACTERS // copies
    sizes = {name: _size(event.fields.get(name)) for name in event.fields.keys() | event.old.keys()}
    for name, value in event.old.items():
        sizes[name] += _size(value)
    total, cut = sum(sizes.values()), list[str]()
    for name in sorted(sizes, key=lambda each: (-sizes[each], each)):
        if total <= limit:
            break
        total -= sizes[name]
        cut.append(name)
    if not cut:
        return event
    fields, old = (
        {name: value for name, value in values.items() if name not in cut}
        for values in (event.fields, event.old)
    )
    return replace(event, fields=fields, old=old, cut=tuple(sorted(cut)))


def _size(value: Any) -> int:
    if isinstance(value, str):
        return len(value)
    return len(json.dumps(value, ensure_ascii=False)) if isinstance(value, list | dict) else 20
