"""Snapshots of systems that can't be asked: what a webhook says is all that there is, and it may be a part. Pure.

Versions are the order in which webhooks came in. The link remembers for each field which one told of it last, so that a webhook
that is worked on late still brings what no later one has told of.
"""

from dataclasses import replace
from typing import TYPE_CHECKING

from crm_core.model.record import Link, Record
from crm_core.sync.draft import LinkDraft
from crm_core.sync.sides import Side

if TYPE_CHECKING:
    from crm_core.sync.merge import Snapshot


def is_old(record: Record, side: Side, snapshot: "Snapshot") -> bool:
    """Whether nothing of it is news: each field was told of later, or now; of a delete, anything was."""
    link = record.links.get(side.uid)
    if link is None or link.rid != snapshot.change.rid:
        return False
    version = int(snapshot.change.version)
    if snapshot.change.fields is None:
        return version <= int(link.ver or 0)
    if link.state == "gone":
        return snapshot.hi <= link.seen
    return not _news(link, snapshot)


def _news(link: Link, snapshot: "Snapshot") -> frozenset[str]:
    version = int(snapshot.change.version)
    return frozenset(name for name in snapshot.payload or () if version > int(link.told.get(name, 0)))


def alone(snapshot: "Snapshot") -> "Snapshot":
    """Of a record that nobody knows yet: what is not told is empty, as what is told to be."""
    fields = snapshot.change.fields
    if snapshot.payload is None or fields is None or None not in fields.values():
        return snapshot
    known = {name: value for name, value in fields.items() if value is not None}
    return replace(snapshot, change=replace(snapshot.change, fields=known))


def whole(record: Record, side: Side, snapshot: "Snapshot") -> "Snapshot":
    """With what the system is known to hold of the fields that are not told, or were told of later: it did not touch those."""
    fields = snapshot.change.fields
    if snapshot.payload is None or fields is None:
        return snapshot
    link = record.links.get(side.uid)
    if link is None or link.state not in ("live", "gone") or link.rid != snapshot.change.rid:
        return alone(snapshot)
    news = _news(link, snapshot)
    held = {name: link.held(name, record.fields.get(name)) for name in side.reads - news}
    told = {name: value for name, value in fields.items() if name in news}
    return alone(replace(snapshot, change=replace(snapshot.change, fields={**held, **told}), payload=news))


def note(link: LinkDraft, snapshot: "Snapshot") -> None:
    """What was merged into a record is known of its link from now on."""
    version = snapshot.change.version
    link.told |= dict.fromkeys(snapshot.payload or (), version)
    link.ver = str(max(int(link.ver or 0), int(version)))
