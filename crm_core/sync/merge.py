"""What a snapshot of a remote record does to the hub's record: pure, no I/O, no clock.

Connections are pulled, one to a record, so of the decision table the rows "the remote did not touch it" and "take"
apply. `behind` and `echo` are honoured where they are, so that the base of the merge is right from the start.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from enum import Enum
from typing import Any

from crm_core.connector import Change
from crm_core.model.entities import Entity
from crm_core.model.fields import parse_instant
from crm_core.model.record import Link, Record, Stamp

DELETED_AT = "deleted_at"


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What a remote said of one record. `lo`, `hi`: hub time before the request and after the response."""

    change: Change
    lo: str
    hi: str
    point_read: bool = False


class Verdict(Enum):
    """Whether a snapshot may be merged as it is."""

    SKIP = "skip"
    MERGE = "merge"
    LOOK = "look"
    """Only a point read, made after the row was read, can tell."""


def guard(record: Record, connection: str, snapshot: Snapshot, *, ordered: bool) -> Verdict:
    """The version guard. A point read belongs to the row read before it and is always mergeable.

    An entry for a link that is gone or has no version, and every delete, needs a look: a page may be older than what
    the hub has. Versions that are no ordered numbers are equal or need a look.
    """
    if snapshot.point_read:
        return Verdict.MERGE
    link = record.links.get(connection)
    change = snapshot.change
    if link is None or not link.ver or link.state != "live" or record.dead or change.fields is None:
        return Verdict.LOOK
    if change.version == link.ver:
        return Verdict.SKIP
    if not ordered:
        return Verdict.LOOK
    return Verdict.MERGE if int(change.version) > int(link.ver) else Verdict.SKIP


def first_seen(record_id: str, entity: Entity, connection: str, snapshot: Snapshot, run: str) -> Record:
    """The record that a remote record makes, with its live link."""
    change = snapshot.change
    assert change.fields is not None
    return Record(
        id=record_id,
        entity=entity.name,
        fields=change.fields,
        stamp=Stamp(_change_time(snapshot), connection),
        created={"time": snapshot.hi, "origin": connection, "run": run},
        links={connection: Link("live", rid=change.rid, ver=change.version, seen=snapshot.hi)},
    )


def merge(
    record: Record, entity: Entity, mapped: Iterable[str], connection: str, snapshot: Snapshot
) -> Record:
    """The record after a snapshot of a live remote record; the same object if nothing but its age is new.

    `mapped`: the fields that the connection reads; others are left alone. A link that was gone lives again.
    """
    change = snapshot.change
    assert change.fields is not None
    link = record.links.get(connection) or Link("live", rid=change.rid)
    fields = dict(record.fields)
    taken: dict[str, Any] = {}
    for name in mapped:
        theirs, ours = change.fields.get(name), fields.get(name)
        if entity.by_name[name].same(theirs, link.held(name, ours)):
            continue  # the remote did not touch it
        taken[name] = theirs
    if link.state == "gone" and fields.get(DELETED_AT) is not None:
        taken[DELETED_AT] = None
    for name, value in taken.items():
        _set(fields, name, value)
    merged_link = replace(
        link,
        state="live",
        rid=change.rid,
        ver=change.version,
        seen=max(link.seen, snapshot.hi),
        behind={name: value for name, value in link.behind.items() if name not in taken},
        echo={name: value for name, value in link.echo.items() if name not in taken},
    )
    if not taken and replace(merged_link, seen=link.seen) == link:
        return record
    return _changed(record, fields, taken, Stamp(_change_time(snapshot), connection)).with_link(
        connection, merged_link
    )


def gone(record: Record, connection: str, now: str) -> Record:
    """The record after its remote record was deleted (delete policy `mark`): the link is gone, the record stays."""
    link = record.links.get(connection)
    if link is None or link.state == "gone":
        return record
    fields = {**record.fields, DELETED_AT: now}
    marked = _changed(record, fields, {DELETED_AT: now}, Stamp(now, connection))
    return marked.with_link(connection, replace(link, state="gone", seen=max(link.seen, now)))


def old_values(before: Record, after: Record) -> dict[str, Any]:
    """The values that a step replaced, null where there was none."""
    names = before.fields.keys() | after.fields.keys()
    return {
        name: before.fields.get(name)
        for name in sorted(names)
        if before.fields.get(name) != after.fields.get(name)
    }


def _set(fields: dict[str, Any], name: str, value: Any) -> None:
    if value is None:
        fields.pop(name, None)
    else:
        fields[name] = value


def _changed(record: Record, fields: Mapping[str, Any], taken: Mapping[str, Any], stamp: Stamp) -> Record:
    """The record with new fields, their stamps and, if any changed, its next version."""
    if not taken:
        return record
    stamps = {**record.stamps, **dict.fromkeys(taken, stamp)}
    return replace(
        record,
        fields=dict(fields),
        stamps={name: each for name, each in stamps.items() if each != record.stamp},
        version=record.version + 1,
    )


def _change_time(snapshot: Snapshot) -> str:
    """The remote's time of the change, but never later than the hub read it: a fast clock must not win for an hour."""
    modified = snapshot.change.modified
    if not modified or parse_instant(modified) > parse_instant(snapshot.hi):
        return snapshot.hi
    return modified
