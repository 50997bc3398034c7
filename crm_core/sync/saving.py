"""Writing records whose change was decided elsewhere: with their history, and who has to learn of it."""

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

from crm_core.model.connection import Tenant
from crm_core.model.record import NOTHING, Record, wants_push
from crm_core.model.record_event import RecordEvent, event_of, fitted, is_alive
from crm_core.storage import layout
from crm_core.storage.keys import MatchClaim
from crm_core.storage.records import CommitResult, HistoryEntry, RecordWrite, Stored
from crm_core.sync import identity
from crm_core.sync.engine import Engine
from crm_core.sync.merge import old_values
from crm_core.sync.noting import note_writes
from crm_core.sync.sides import Sides

T = TypeVar("T")

WRITE_WIDTH = 4
PERSON = "person"
"""What decided a conflict that no policy did."""


@dataclass(frozen=True)
class Origin:
    """Who changes records: hub time, a connection's uid or the hub, the run if there is one, and of an app's write the
    principal.
    """

    time: str
    origin: str
    run: str = ""
    by: str = ""


def write_of(
    stored: Stored,
    after: Record,
    by: Origin,
    *,
    losers: Mapping[str, Any] = NOTHING,
    policy: Callable[[str], str] = lambda _: PERSON,
    change: str = "",
) -> RecordWrite:
    """A record's write; with history if its version moves. `policy`: what decided the conflicts of a field."""
    before = stored.content
    assert isinstance(before, Record)
    if after.version == before.version:
        return RecordWrite(stored.id, stored, after)
    step = HistoryEntry(
        after.version,
        by.time,
        by.origin,
        by.run,
        old_values(before, after),
        change or change_of(before, after),
        dict(losers),
        by.by,
        {name: policy(name) for name in losers},
    )
    return RecordWrite(stored.id, stored, after, step)


def change_of(before: Record, after: Record) -> str:
    """What history calls a step."""
    if before.dead != after.dead:
        return "delete" if after.dead else "revive"
    return "update"


def portions(items: Iterable[T], size: int) -> Iterator[list[T]]:
    """The items in lists of this size, the last one with what is left."""
    left = iter(items)
    while portion := list(itertools.islice(left, size)):
        yield portion


@dataclass
class Saved:
    """`written`: the records that are; `stale`: those to be read again; `large`: those that fit no row; `unsure`: those
    that may be written, since the store gave no answer; `wakes`: (connection, bucket) of pushes.
    """

    written: list[str] = field(default_factory=list)
    stale: list[str] = field(default_factory=list)
    large: list[str] = field(default_factory=list)
    unsure: list[str] = field(default_factory=list)
    wakes: set[tuple[str, str]] = field(default_factory=set)


def save(
    engine: Engine,
    tenant: Tenant,
    entity: str,
    writes: Sequence[RecordWrite],
    *,
    claimed: bool = False,
    saved: Saved | None = None,
) -> Saved:
    """Commits writes bucket by bucket, and has deliveries made of what they did. The match keys that they give records are
    claimed before, unless they are `claimed`, and those that they give up freed after that. `saved`: to be filled in; it has
    what was done also where this raises.
    """
    saved = Saved() if saved is None else saved
    sides = engine.sides(tenant, entity)
    leaving = _leaving(engine, tenant, identity.match_names(sides), writes, claimed=claimed)
    buckets: dict[str, list[RecordWrite]] = {}
    for write in with_events(writes, sides):
        buckets.setdefault(layout.bucket(write.id), []).append(write)
    results = {bucket: CommitResult() for bucket in buckets}
    try:
        engine.pool.map(
            lambda item: engine.records.commit(tenant, entity, item[0], item[1], results[item[0]]),
            list(buckets.items()),
            WRITE_WIDTH,
        )
    finally:
        for result in results.values():
            saved.written += [write.id for write in result.written]
            saved.stale += [write.id for write in result.stale]
            saved.large += [write.id for write, _ in result.too_large]
            saved.unsure += [write.id for write in result.unsure]
            saved.wakes |= wakes_of(result.written)
            note_writes(result.written)
    for result in results.values():
        for write in result.written:
            identity.free(engine, leaving.get(write.id, ()))
    return saved


def _leaving(
    engine: Engine, tenant: Tenant, names: Sequence[str], writes: Iterable[RecordWrite], *, claimed: bool
) -> dict[str, list[MatchClaim]]:
    """By record what it is about to give up of its match keys."""
    found: dict[str, list[MatchClaim]] = {}
    ask = identity.given_up if claimed else identity.claim_next
    for write in writes if names else ():
        before, after = write.before.content if write.before else None, write.after
        if isinstance(before, Record) and isinstance(after, Record) and before.version != after.version:
            found[write.id] = ask(engine, tenant, names, before, after)
    return found


def with_events(writes: Iterable[RecordWrite], sides: Sides) -> Iterable[RecordWrite]:
    """The writes with what happened, for each connection that delivers it: part of the record's own transaction, so that
    no version goes by untold.
    """
    receivers = {uid: side.delivers for uid, side in sides.items() if side.delivers}
    return (_with_event(write, receivers) for write in writes) if receivers else writes


def _with_event(write: RecordWrite, receivers: Mapping[str, frozenset[str]]) -> RecordWrite:
    """Of a new version only. Whoever made it is not told: it would hear itself."""
    after, before = write.after, write.before.content if write.before else None
    if not isinstance(after, Record):
        return _with_end(write, before, receivers) if isinstance(before, Record) else write
    was = before if isinstance(before, Record) else None
    if was is not None and was.version == after.version:
        return write
    step = write.history
    time, origin = (step.time, step.origin) if step else (after.created["time"], after.created["origin"])
    event = event_of(was, after, old_values(was, after) if was else {}, time, origin)
    tells = tuple(sorted(uid for uid, kinds in receivers.items() if uid != origin and event.kind in kinds))
    return replace(write, event=fitted(event, len(tells)), tells=tells) if tells else write


def _with_end(write: RecordWrite, before: Record, receivers: Mapping[str, frozenset[str]]) -> RecordWrite:
    """Of a record that is another one from now on: whoever was told of it hears that it is gone."""
    step = write.history
    tells = tuple(sorted(uid for uid, kinds in receivers.items() if "deleted" in kinds))
    if step is None or not tells or not is_alive(before):
        return write
    event = RecordEvent(
        before.id, before.entity, step.version, "deleted", step.time, step.origin, before.fields
    )
    return replace(write, event=fitted(event, len(tells)), tells=tells)


def wakes_of(writes: Iterable[RecordWrite]) -> set[tuple[str, str]]:
    """The connections that have something to do after these writes, with the bucket."""
    found: set[tuple[str, str]] = set()
    for write in writes:
        bucket = layout.bucket(write.id)
        found.update((uid, bucket) for uid in write.tells)
        if isinstance(write.after, Record):
            found.update(
                (uid, bucket)
                for uid, link in write.after.links.items()
                if (link.wants or link.attempt or link.deleting) and wants_push(write.after, link)
            )
    return found
