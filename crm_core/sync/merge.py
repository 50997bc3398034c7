"""What a snapshot of a remote record does to the hub's record: pure, no I/O, no clock.

The decision table is docs/sync.md's; the numbers in the comments are its rows. Which snapshots may be merged at all:
`guard`. Deletes: `deletes.py`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import timedelta
from enum import Enum
from typing import Any

from crm_core.connector import Change, VersionKind
from crm_core.frozen import frozen_dataclass
from crm_core.model.entities import Entity
from crm_core.model.fields import hub_time, parse_instant
from crm_core.model.record import NOTHING, Link, Record, Stamp
from crm_core.sync import payload
from crm_core.sync.draft import Draft, LinkDraft
from crm_core.sync.sides import Side, Sides

DELETED_AT = "deleted_at"
CLOCK_MARGIN = timedelta(seconds=10)
"""The clocks of the hub's instances differ by less."""


@frozen_dataclass(frozen=True, slots=True)
class Snapshot:
    """What a remote said of one record. `lo`, `hi`: hub time before the request and after the response. `hint`: nobody
    said more than that there is something to read. `payload`: the fields that a system which can't be asked
    tells: all that there is, and perhaps a part of the record (`payload.py`).
    """

    change: Change
    lo: str
    hi: str
    point_read: bool = False
    hint: bool = False
    payload: frozenset[str] | None = None


@dataclass(frozen=True, slots=True)
class Merged:
    """The record after it (the same object if nothing is new), and what was given up in conflicts, by field."""

    record: Record
    losers: Mapping[str, Any]


class Verdict(Enum):
    """Whether a snapshot may be merged as it is."""

    SKIP = "skip"
    MERGE = "merge"
    LOOK = "look"
    """Only a point read, made after the row was read, can tell."""


def guard(record: Record, side: Side, snapshot: Snapshot, *, lag: float = 0.0) -> Verdict:
    """The version guard. A point read belongs to the row read before it and is always mergeable.

    `lag`: seconds that a list's answer may be old. An entry for a link that is gone or has no version, for another
    remote id, for a dead record, and every delete, needs a look: a page may be older than what the hub has.
    """
    if snapshot.payload is not None:
        return Verdict.SKIP if payload.is_old(record, side, snapshot) else Verdict.MERGE
    if snapshot.point_read:
        return Verdict.MERGE
    link, change = record.links.get(side.uid), snapshot.change
    if link is None or not link.ver or link.state != "live" or record.dead or change.fields is None:
        return Verdict.LOOK
    if link.rid != change.rid:
        return Verdict.LOOK
    if side.versions == "opaque":
        return _guard_opaque(link, snapshot, lag)
    order = _order(side.versions, change.version, link.ver)
    if order != 0 or side.versions == "ordered":
        return Verdict.MERGE if order > 0 else Verdict.SKIP
    return Verdict.SKIP if _holds(record, link, side, change.fields) else Verdict.LOOK


def _guard_opaque(link: Link, snapshot: Snapshot, lag: float) -> Verdict:
    if snapshot.change.version == link.ver:
        return Verdict.SKIP
    oldest = parse_instant(snapshot.lo) - timedelta(seconds=lag) - CLOCK_MARGIN
    return Verdict.MERGE if hub_time(oldest) > link.seen else Verdict.LOOK


def _order(kind: VersionKind, one: str, other: str) -> int:
    """Which of two versions is the later one: > 0 the first."""
    if kind == "ordered":
        return int(one) - int(other)
    left, right = parse_instant(one), parse_instant(other)
    return (left > right) - (left < right)


def _holds(record: Record, link: Link, side: Side, theirs: Mapping[str, Any]) -> bool:
    return all(
        side.same(name, theirs.get(name), link.held(name, record.fields.get(name))) for name in side.reads
    )


def settles(link: Link, side: Side, version: str) -> bool:
    """Whether the answer to our own write may be merged as that, or a newer read has been merged meanwhile."""
    if link.attempt is None:
        return False
    if not link.attempt.read or not link.ver:
        return True
    if side.versions == "opaque":
        return version == link.ver
    order = _order(side.versions, version, link.ver)
    return order > 0 or (order == 0 and side.versions == "ordered")


def first_seen(
    record_id: str, entity: Entity, side: Side, sides: Sides, snapshot: Snapshot, run: str
) -> Record:
    """The record that a remote record makes: its live link, and a wish of everybody who is to have it."""
    change = payload.alone(snapshot).change
    assert change.fields is not None
    record = Record(
        id=record_id,
        entity=entity.name,
        fields=change.fields,
        stamp=Stamp(change_time(snapshot), side.uid),
        created={"time": snapshot.hi, "origin": side.uid, "run": run},
        links={
            side.uid: Link(
                "live",
                rid=change.rid,
                ver=change.version,
                seen=snapshot.hi,
                mapping=side.mapping,
                etag=side.odd_etag(change.version, change.etag),
                told=dict.fromkeys(snapshot.payload, change.version) if snapshot.payload else NOTHING,
            )
        },
    )
    if len(sides) == 1 and not side.writes:
        return record
    return Draft(record, sides).finished()


def merge(
    record: Record, side: Side, sides: Sides, snapshot: Snapshot, sent: Mapping[str, Any] | None = None
) -> Merged:
    """The record after a snapshot of a remote record that is alive.

    `sent`: what we wrote, field -> value, when the snapshot is the answer to that. A record without a link of this
    connection gets one, with no common past. References in the snapshot are the hub's record ids.
    """
    draft = Draft(record, sides)
    link = linked(draft, side, snapshot.change.rid)
    if draft.dead and _touched(draft, link, side, snapshot.change):
        draft.revive(side.uid)
    if link.state == "gone":
        link.state = "live"
        if draft.fields.get(DELETED_AT) is not None:
            draft.set_value(DELETED_AT, None, side.uid, snapshot.hi)
    elif link.state in ("new", "creating"):
        link.state = "live"
    _merge_fields(draft, link, side, snapshot, sent or {}, answer=sent is not None)
    _after(draft, link, side, snapshot, answer=sent is not None)
    if draft.fields == record.fields and _is_age_alone(draft, record, side):
        return Merged(record, {})
    return Merged(draft.finished(), draft.losers)


def linked(draft: Draft, side: Side, rid: str) -> LinkDraft:
    """The link, of this remote id; a new one, or one under another id, has an empty base."""
    if not draft.has_link(side.uid):
        link = draft.add_link(side.uid, Link("live", rid=rid, mapping=side.mapping, found=True))
        draft.empty_base(link, side)
        return link
    link = draft.link(side.uid)
    unmade = link.state == "new" or (link.state == "gone" and not link.rid)
    if unmade or (link.rid and link.rid != rid):
        if link.rid and link.rid != rid:
            link.former = (*link.former, link.rid)
        link.former = tuple(each for each in link.former if each != rid)
        if link.state != "gone":
            link.state = "live"
        link.forget()
        link.ver, link.told, link.found = "", {}, True
        draft.empty_base(link, side)
    link.rid = rid
    return link


def _touched(draft: Draft, link: LinkDraft, side: Side, change: Change) -> bool:
    """Whether somebody edited the row of a dead record, or brought it back."""
    assert change.fields is not None
    if link.state == "gone":
        return True
    for name in side.reads:
        theirs = change.fields.get(name)
        if side.is_kept_there(name):
            continue
        if not side.same(name, theirs, link.held(name, draft.fields.get(name))) and not is_ours(
            link, side, name, theirs
        ):
            return True
    return False


def is_ours(link: Link | LinkDraft, side: Side, name: str, theirs: Any) -> bool:
    """Whether a value is one that we sent, as it was or as the remote stores it."""
    return any(
        side.same(name, theirs, each) or side.same(name, theirs, side.canon(name, each))
        for each in link.inflight.get(name, ())
    )


def _merge_fields(
    draft: Draft, link: LinkDraft, side: Side, snapshot: Snapshot, sent: Mapping[str, Any], *, answer: bool
) -> None:
    theirs = snapshot.change.fields
    assert theirs is not None
    for name, value in sent.items():
        _settle(draft, link, side, name, value, theirs)
    rest = [name for name in sorted(side.reads) if name not in sent]
    clashes = [
        name
        for name in rest
        if not side.is_kept_there(name) and _clashes(draft, link, side, name, theirs.get(name))
    ]
    skipped = any(
        side.policy(name) == "skip" and not _dissolves(link, side, name, theirs.get(name)) for name in clashes
    )
    for name in rest:
        value, ours = theirs.get(name), draft.fields.get(name)
        if side.same(name, value, link.held(name, ours)):
            continue  # 2: the remote did not touch it
        if side.is_kept_there(name):
            _note_kept(draft, link, side, snapshot, name, ours_alone=answer or skipped)
            continue
        if is_ours(link, side, name, value):
            _landed(draft, link, side, name, value)  # 3
        elif name in clashes:
            _decide(draft, link, side, snapshot, name, skipped)  # 6
        elif not link.is_behind(side, name):
            if skipped:
                _ask(draft, link, side, snapshot, name)
            else:
                _accept(draft, link, side, snapshot, name)  # 4
        else:
            link.put(side, name, value)  # 5: agreed; tidy removes it
            link.conflict.pop(name, None)


def _note_kept(
    draft: Draft, link: LinkDraft, side: Side, snapshot: Snapshot, name: str, *, ours_alone: bool
) -> None:
    """A field that each system keeps by itself, such as when a row was changed. What our own write made of it there is
    nobody's edit, and two systems can't be asked to agree: the later one is shown.
    """
    assert snapshot.change.fields is not None
    value, time = snapshot.change.fields.get(name), change_time(snapshot)
    stamp = draft.stamps.get(name, draft.before.stamp)
    older = link.is_behind(side, name) and parse_instant(time) < parse_instant(stamp.time)
    if ours_alone or link.inflight or older:
        link.put(side, name, value)
    else:
        _take(draft, link, side, name, value, time)


def _clashes(draft: Draft, link: LinkDraft, side: Side, name: str, theirs: Any) -> bool:
    """Row 6: both sides changed the field, to different values."""
    ours = draft.fields.get(name)
    return not (
        side.same(name, theirs, link.held(name, ours))
        or is_ours(link, side, name, theirs)
        or not link.is_behind(side, name)
        or side.same(name, theirs, ours)
        or side.same(name, theirs, side.canon(name, ours))
    )


def _settle(
    draft: Draft, link: LinkDraft, side: Side, name: str, sent: Any, fields: Mapping[str, Any]
) -> None:
    """Row 1: the remote's answer to what we wrote. A field that is never read is as we sent it."""
    theirs = fields.get(name) if name in side.reads else sent
    link.echo.pop(name, None)
    link.refused.pop(name, None)
    ours = draft.fields.get(name)
    if name not in side.reads:
        link.inflight.pop(name, None)
    if not side.same(name, ours, sent):
        link.behind[name] = theirs
        return
    link.behind.pop(name, None)
    if not side.same(name, theirs, ours):
        link.echo[name] = theirs


def _landed(draft: Draft, link: LinkDraft, side: Side, name: str, theirs: Any) -> None:
    """Row 3: our own write is seen."""
    ours = draft.fields.get(name)
    link.echo.pop(name, None)
    is_newest = any(side.same(name, ours, each) for each in link.inflight[name])
    if not is_newest or not side.same(name, theirs, side.canon(name, ours)):
        link.behind[name] = theirs
        return
    link.behind.pop(name, None)
    link.conflict.pop(name, None)
    if not side.same(name, theirs, ours):
        link.echo[name] = theirs


def _take(draft: Draft, link: LinkDraft, side: Side, name: str, value: Any, time: str) -> None:
    link.drop(name)
    draft.set_value(name, value, side.uid, time)


def _accept(draft: Draft, link: LinkDraft, side: Side, snapshot: Snapshot, name: str) -> None:
    """Takes the remote's value, unless two connections change the field back and forth: then a person is asked which
    of both is to be. What set them on each other is found at the remotes, not here.
    """
    assert snapshot.change.fields is not None
    value = snapshot.change.fields.get(name)
    flips = draft.count_flip(name, value, side, snapshot.hi)
    if flips >= side.breaker.flips:
        _ask(draft, link, side, snapshot, name, flips)
    else:
        _take(draft, link, side, name, value, change_time(snapshot))


def _decide(draft: Draft, link: LinkDraft, side: Side, snapshot: Snapshot, name: str, skipped: bool) -> None:
    assert snapshot.change.fields is not None
    theirs, policy, time = snapshot.change.fields.get(name), side.policy(name), change_time(snapshot)
    if skipped or policy in ("manual", "skip") or "flips" in link.conflict.get(name, ()):
        _ask(draft, link, side, snapshot, name)
        return
    ours = draft.fields.get(name)
    stamp = draft.stamps.get(name, draft.before.stamp)
    if policy == "remote" or (policy == "newest" and parse_instant(time) >= parse_instant(stamp.time)):
        _accept(draft, link, side, snapshot, name)
        if name not in link.conflict:
            draft.losers[name] = ours
        return
    draft.losers[name] = theirs
    link.put(side, name, theirs)
    link.conflict.pop(name, None)


def _dissolves(link: LinkDraft, side: Side, name: str, theirs: Any) -> bool:
    """Whether a value is the one from which both sides set out: who gave it took back what we ask about."""
    open_one = link.conflict.get(name)
    return open_one is not None and side.same(name, theirs, open_one["base"])


def _ask(draft: Draft, link: LinkDraft, side: Side, snapshot: Snapshot, name: str, flips: int = 0) -> None:
    """Neither side is overwritten until a person decides. What was asked before is asked anew with the newer value;
    one that goes back to the base dissolves the question. `flips`: how often the field went there and back.
    """
    assert snapshot.change.fields is not None
    theirs, ours = snapshot.change.fields.get(name), draft.fields.get(name)
    open_one = link.conflict.get(name)
    base = open_one["base"] if open_one else link.held(name, ours)
    dissolves = _dissolves(link, side, name, theirs)
    link.put(side, name, theirs)
    if dissolves:
        del link.conflict[name]
        return
    flips = flips or (open_one or {}).get("flips", 0)
    more = {"flips": flips} if flips else {}
    link.conflict[name] = {"theirs": theirs, "base": base, "time": change_time(snapshot), **more}


def _after(draft: Draft, link: LinkDraft, side: Side, snapshot: Snapshot, *, answer: bool) -> None:
    version = snapshot.change.version
    if side.if_match and link.attempt is not None and version != link.attempt.ver:
        link.settle_open(side)
    draft.tidy(link, side)
    if snapshot.payload is not None:
        payload.note(link, snapshot)
    else:
        link.ver, link.etag = version, side.odd_etag(version, snapshot.change.etag)
    is_new = link.frozen() is not link.before or draft.fields != draft.before.fields
    if not answer and is_new and link.attempt is not None and not link.attempt.read:
        link.attempt = replace(link.attempt, read=True)
    link.seen = max(link.seen, snapshot.hi)


def _is_age_alone(draft: Draft, record: Record, side: Side) -> bool:
    """Whether `seen` is all that is new: that is not worth a write."""
    link = draft.link(side.uid)
    before = record.links.get(side.uid)
    return (
        before is not None
        and replace(link.frozen(), seen=before.seen) == before
        and draft.dead == record.dead
        and not draft.losers
    )


def later(moment: str, seconds: float) -> str:
    """A hub time so much after another."""
    return hub_time(parse_instant(moment) + timedelta(seconds=seconds))


def old_values(before: Record, after: Record) -> dict[str, Any]:
    """The values that a step replaced, null where there was none."""
    names = before.fields.keys() | after.fields.keys()
    return {
        name: before.fields.get(name)
        for name in sorted(names)
        if before.fields.get(name) != after.fields.get(name)
    }


def change_time(snapshot: Snapshot) -> str:
    """The remote's time of the change, but never later than the hub read it: a fast clock must not win for an hour."""
    modified = snapshot.change.modified
    if not modified or parse_instant(modified) > parse_instant(snapshot.hi):
        return snapshot.hi
    return modified
