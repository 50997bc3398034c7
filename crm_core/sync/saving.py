"""Writing records whose change was decided elsewhere: with their history, and who has to learn of it."""

import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from crm_core.model.connection import Tenant
from crm_core.model.record import Record, wants_push
from crm_core.storage import layout
from crm_core.storage.records import HistoryEntry, RecordWrite, Stored
from crm_core.sync.engine import Engine
from crm_core.sync.merge import old_values

T = TypeVar("T")

WRITE_WIDTH = 4


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
    stored: Stored, after: Record, by: Origin, *, losers: Any = None, change: str = ""
) -> RecordWrite:
    """A record's write; with history if its version moves."""
    before = stored.content
    assert isinstance(before, Record)
    if after.version == before.version:
        return RecordWrite(stored.id, stored, after)
    kind = change or ("delete" if after.dead and not before.dead else "update")
    step = HistoryEntry(
        after.version, by.time, by.origin, by.run, old_values(before, after), kind, dict(losers or {}), by.by
    )
    return RecordWrite(stored.id, stored, after, step)


def portions(items: Iterable[T], size: int) -> Iterator[list[T]]:
    """The items in lists of this size, the last one with what is left."""
    left = iter(items)
    while portion := list(itertools.islice(left, size)):
        yield portion


@dataclass
class Saved:
    """`stale`: records to be read again; `large`: those that fit no row; `wakes`: (connection, bucket) of pushes."""

    stale: list[str] = field(default_factory=list)
    large: list[str] = field(default_factory=list)
    wakes: set[tuple[str, str]] = field(default_factory=set)


def save(engine: Engine, tenant: Tenant, entity: str, writes: Sequence[RecordWrite]) -> Saved:
    """Commits writes bucket by bucket."""
    buckets: dict[str, list[RecordWrite]] = {}
    for write in writes:
        buckets.setdefault(layout.bucket(write.id), []).append(write)
    saved = Saved()
    for result in engine.pool.map(
        lambda item: engine.records.commit(tenant, entity, item[0], item[1]),
        list(buckets.items()),
        WRITE_WIDTH,
    ):
        saved.stale += [write.id for write in result.stale]
        saved.large += [write.id for write, _ in result.too_large]
        saved.wakes |= wakes_of(result.written)
    return saved


def wakes_of(writes: Iterable[RecordWrite]) -> set[tuple[str, str]]:
    """The connections that have something to do after these writes, with the bucket."""
    return {
        (uid, layout.bucket(write.id))
        for write in writes
        if isinstance(write.after, Record)
        for uid, link in write.after.links.items()
        if (link.wants or link.attempt or link.deleting) and wants_push(write.after, link)
    }
