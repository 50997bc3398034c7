"""A record that is being changed: what every rule of the merge works on. Pure.

Nothing here decides who is right; it keeps what each remote holds apart from what it is to hold (docs/sync.md).
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from crm_core.model.fields import parse_instant
from crm_core.model.record import (
    HUB,
    LINK_FIELDS,
    NOTHING,
    UNKNOWN,
    Attempt,
    Link,
    LinkState,
    Record,
    Stamp,
    digest,
    wants_push,
)
from crm_core.sync.sides import Side, Sides


class LinkDraft:
    """A link with its maps open for change; `Link` says what each field means."""

    state: LinkState
    rid: str
    ver: str
    seen: str
    behind: dict[str, Any]
    echo: dict[str, Any]
    former: tuple[str, ...]
    gen: int
    inflight: dict[str, Sequence[Any]]
    attempt: Attempt | None
    deleting: Attempt | None
    conflict: dict[str, Mapping[str, Any]]
    refused: dict[str, Any]
    waits: dict[str, str]
    wants: bool
    mapping: int
    etag: str
    parked: dict[str, Any]
    failed: dict[str, Any]
    why: dict[str, Mapping[str, Any]]
    told: dict[str, str]
    found: bool

    def __init__(self, link: Link) -> None:
        self.before = link
        for name in LINK_FIELDS:
            value = getattr(link, name)
            setattr(self, name, dict(value) if isinstance(value, Mapping) else value)

    def frozen(self) -> Link:
        """The link; the same object if nothing is another."""
        if self.why:
            self.why = {name: each for name, each in self.why.items() if name in self.refused}
        changed = {
            name: value
            for name in LINK_FIELDS
            if (value := getattr(self, name)) != getattr(self.before, name)
        }
        return replace(self.before, **changed) if changed else self.before

    def held(self, name: str, ours: Any) -> Any:
        if name in self.behind:
            return self.behind[name]
        return self.echo.get(name, ours)

    def is_behind(self, side: Side, name: str) -> bool:
        """Whether the remote was not told ours, or, where the connection does not write the field, can't be told."""
        return name in self.behind or (name in self.echo and name not in side.writes)

    def put(self, side: Side, name: str, value: Any) -> None:
        """Notes that the remote holds another value: one that ours has to replace there, if the connection writes it."""
        if name in side.writes or name in self.behind:
            self.echo.pop(name, None)
            self.behind[name] = value
        else:
            self.echo[name] = value

    def drop(self, name: str) -> None:
        """The remote holds ours: nothing is left to say of the field."""
        for each in (self.behind, self.echo, self.conflict, self.refused, self.waits):
            each.pop(name, None)

    def settle_open(self, side: Side) -> None:
        """Empties `inflight`: what was on its way has landed or never will.

        Of a field that is never read nobody knows which; it is sent again.
        """
        for name in self.inflight:
            if name not in side.reads:
                self.echo.pop(name, None)
                self.behind[name] = UNKNOWN
        self.inflight = {}

    def close(self, side: Side) -> None:
        self.settle_open(side)
        self.attempt = None

    def renewed(self) -> None:
        """Gone at the remote, to be made there again under another id."""
        self.state = "new"
        self.gen += 1
        if self.rid:
            self.former = (*self.former, self.rid)
        self.rid = self.ver = ""
        self.found = False
        self.forget()

    def forget(self) -> None:
        """A claim starts from an empty base: nothing of what was known of the remote's row holds for another."""
        self.behind, self.echo, self.inflight, self.conflict = {}, {}, {}, {}
        self.refused, self.waits = {}, {}
        self.attempt = self.deleting = None

    def unpark(self) -> None:
        self.parked, self.failed = {}, {}


class Draft:
    """A record under change. `losers`: of each conflict that was decided, the value that was given up."""

    def __init__(self, record: Record, sides: Sides) -> None:
        self.before = record
        self.sides = sides
        self.fields = dict(record.fields)
        self.stamps = dict(record.stamps)
        self.dead = record.dead
        self.reviews = list(record.reviews)
        self.flips = dict(record.flips)
        self.losers: dict[str, Any] = {}
        self._links: dict[str, LinkDraft] = {}
        for uid, link in record.links.items():
            side = sides.get(uid)
            if side is not None and link.mapping != side.mapping:
                self._remap(self.link(uid), side)
            if side is not None and side.writes and not link.wants:
                self._widen(self.link(uid), side)

    def link(self, uid: str) -> LinkDraft:
        """The link of a connection, which has one."""
        if uid not in self._links:
            self._links[uid] = LinkDraft(self.before.links[uid])
        return self._links[uid]

    def add_link(self, uid: str, link: Link) -> LinkDraft:
        made = self._links[uid] = LinkDraft(link)
        return made

    def has_link(self, uid: str) -> bool:
        return uid in self._links or uid in self.before.links

    def others(self, uid: str) -> list[tuple[Side, LinkDraft]]:
        """The links of other connections that are still there."""
        return [
            (self.sides[each], self.link(each)) for each in self._uids() if each != uid and each in self.sides
        ]

    def _uids(self) -> list[str]:
        return list(dict.fromkeys([*self.before.links, *self._links]))

    def _remap(self, link: LinkDraft, side: Side) -> None:
        """Of a field that is mapped otherwise now no common past is known. What the remote has there has to be read
        before ours may be sent.
        """
        if link.state in ("live", "gone"):
            for name in side.remapped(link.mapping):
                link.drop(name)
                link.inflight.pop(name, None)
                if self.fields.get(name) is not None:
                    link.put(side, name, None)
                if name in side.reads:
                    link.ver = ""
        link.mapping = side.mapping

    def _widen(self, link: LinkDraft, side: Side) -> None:
        """What was only read until now is to be sent: the value held there is no mere form of ours any more. Of a field
        that is never read nobody knows what is held there.
        """
        for name in [each for each in link.echo if each in side.writes]:
            if not side.same(name, link.echo[name], side.canon(name, self.fields.get(name))):
                link.behind[name] = link.echo.pop(name)
        if link.state in ("live", "gone"):
            for name in sorted(side.untold & self.fields.keys()):
                if name not in link.behind and name not in link.echo:
                    link.behind[name] = UNKNOWN

    def set_value(self, name: str, value: Any, origin: str, time: str) -> None:
        """Gives a field another value. Every other link that maps it keeps what its remote holds."""
        old = self.fields.get(name)
        if value is None:
            self.fields.pop(name, None)
        else:
            self.fields[name] = value
        self.stamps[name] = Stamp(time, origin)
        for uid in self._uids():
            if uid == origin:
                continue
            side, link = self.sides.get(uid), self.link(uid)
            if side is None:
                # Made by a worker whose configuration is newer than ours, or of a connection that is no more: what the
                # remote holds is kept all the same.
                if name not in link.behind and link.state != "new":
                    link.behind[name] = link.echo.pop(name) if name in link.echo else old
                continue
            if not side.maps(name):
                continue
            if name in link.refused and not side.same(name, link.refused[name], value):
                del link.refused[name]
            link.waits.pop(name, None)
            if name in side.writes:
                link.unpark()
            if name not in link.behind and link.state != "new":
                link.put(side, name, link.echo.pop(name) if name in link.echo else old)
            self.tidy(link, side)

    def count_flip(self, name: str, value: Any, side: Side, now: str) -> int:
        """Counts how often a field went back to what it had been, changed by connections in turns, now by this one: 0
        for a value that is new. What an app or the same connection writes begins anew, and so does the time after the
        breaker's.
        """
        known = self.flips.pop(name, None)
        if self.stamps.get(name, self.before.stamp).origin in (HUB, side.uid):
            return 0
        again: dict[str, Any] = {"n": 0, "since": now, "was": digest(self.fields.get(name))}
        if known is not None and known["was"] == digest(value) and not _is_past(known["since"], side, now):
            again |= {"n": known["n"] + 1, "since": known["since"]}
        self.flips[name] = again
        return int(again["n"])

    def tidy(self, link: LinkDraft, side: Side) -> None:
        """Drops what sending would not change, and what was noted of fields that are not behind any more."""
        for name in [*link.behind, *link.echo]:
            if name in link.inflight:
                continue
            ours = self.fields.get(name)
            if side.same(name, link.held(name, ours), ours):
                link.behind.pop(name, None)
                link.echo.pop(name, None)
            elif name in link.behind and side.same(name, link.behind[name], side.canon(name, ours)):
                link.echo[name] = link.behind.pop(name)
        for noted in (link.conflict, link.waits, link.refused):
            for name in [each for each in noted if not link.is_behind(side, each)]:
                del noted[name]

    def empty_base(self, link: LinkDraft, side: Side) -> None:
        """No common past is known: whatever both sides have was changed by both."""
        link.behind, link.echo = {}, {}
        for name in self.fields:
            if side.maps(name):
                link.put(side, name, None)

    def kill(self) -> None:
        """The record is deleted: what was never made need not be."""
        self.dead = True
        for uid in self._uids():
            link = self.link(uid)
            link.unpark()
            link.conflict = {}
            if link.state == "new":
                link.state = "gone"

    def revive(self, uid: str) -> None:
        """The record lives again: where it is gone, the connection of the change aside, it is made anew."""
        self.dead = False
        for each in self._uids():
            link = self.link(each)
            link.unpark()
            if link.state == "gone" and each != uid:
                link.renewed()

    def finished(self) -> Record:
        """The record as it now is, with its next version if a field, its life or a decided conflict is new; the same
        object if nothing is.
        """
        for uid, side in self.sides.items():
            wants = bool(side.writes) and (side.passes is None or side.passes(self._shown()))
            if self.has_link(uid):
                if wants != self.link_now(uid).wants:
                    self.link(uid).wants = wants
            elif wants and not self.dead:
                self.add_link(uid, Link("new", wants=True, mapping=side.mapping))
        before = self.before
        self._forget_failures()
        links = {**before.links, **{uid: link.frozen() for uid, link in self._links.items()}}
        stepped = self.fields != before.fields or self.dead != before.dead or bool(self.losers)
        reviews = tuple(self.reviews)
        if (
            not stepped
            and reviews == before.reviews
            and self.flips == before.flips
            and all(before.links.get(uid) is each for uid, each in links.items())
        ):
            return before
        return replace(
            before,
            fields=self.fields,
            stamps={name: each for name, each in self.stamps.items() if each != before.stamp},
            dead=self.dead,
            links=links,
            reviews=reviews,
            flips=self.flips or NOTHING,
            version=before.version + stepped,
        )

    def _forget_failures(self) -> None:
        """Where nothing is left to push nothing failed."""
        failed = [link for link in self._links.values() if link.failed and not link.parked]
        if failed:
            now = replace(self.before, fields=self.fields, dead=self.dead, reviews=tuple(self.reviews))
            for link in failed:
                if not wants_push(now, link.frozen()):
                    link.failed = {}

    def link_now(self, uid: str) -> Link | LinkDraft:
        return self._links[uid] if uid in self._links else self.before.links[uid]

    def _shown(self) -> Record:
        return self.before if self.fields == self.before.fields else replace(self.before, fields=self.fields)


def _is_past(since: str, side: Side, now: str) -> bool:
    return (parse_instant(now) - parse_instant(since)).total_seconds() > side.breaker.seconds
