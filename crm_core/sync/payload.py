"""Snapshots of systems that can't be asked: what a webhook says is all that there is, and it may be a part. Pure."""

from dataclasses import replace
from typing import TYPE_CHECKING

from crm_core.model.record import Record
from crm_core.sync.sides import Side

if TYPE_CHECKING:
    from crm_core.sync.merge import Snapshot


def is_old(record: Record, side: Side, snapshot: "Snapshot") -> bool:
    """Whether something was merged that came later, or this itself. Versions are the order in which webhooks came in."""
    link = record.links.get(side.uid)
    if link is None or link.rid != snapshot.change.rid:
        return False
    if link.state == "gone" and snapshot.hi <= link.seen:
        return True
    return bool(link.ver) and int(snapshot.change.version or 0) <= int(link.ver)


def alone(snapshot: "Snapshot") -> "Snapshot":
    """Of a record that nobody knows yet: what is not told is empty, as what is told to be."""
    fields = snapshot.change.fields
    if not snapshot.payload or fields is None or None not in fields.values():
        return snapshot
    known = {name: value for name, value in fields.items() if value is not None}
    return replace(snapshot, change=replace(snapshot.change, fields=known))


def whole(record: Record, side: Side, snapshot: "Snapshot") -> "Snapshot":
    """With what the system is known to hold of the fields that are not told: those it did not touch."""
    fields = snapshot.change.fields
    if not snapshot.payload or fields is None:
        return snapshot
    link = record.links.get(side.uid)
    held = {}
    if link is not None and link.state == "live" and link.rid == snapshot.change.rid:
        untold = side.reads - fields.keys()
        held = {name: link.held(name, record.fields.get(name)) for name in untold}
    return alone(replace(snapshot, change=replace(snapshot.change, fields={**held, **fields})))
