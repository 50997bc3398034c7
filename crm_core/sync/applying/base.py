"""What the steps of applying a batch share: entries on their way into records, rows as they are, point reads."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Literal, TypeVar

from crm_core.connector import Change
from crm_core.frozen import frozen_dataclass
from crm_core.model.connection import Policy, Tenant
from crm_core.model.entities import Entity
from crm_core.model.fields import hub_time
from crm_core.model.record import Record
from crm_core.model.state import COUNTS
from crm_core.storage import layout
from crm_core.storage.held import Claim
from crm_core.storage.keys import MatchClaim
from crm_core.storage.records import RecordWrite, Redirect, Stored, Tomb
from crm_core.storage.run_log import note
from crm_core.sync.engine import Engine, Opened, config_of
from crm_core.sync.merge import Snapshot
from crm_core.sync.references import References
from crm_core.sync.sides import Config, Side

T = TypeVar("T")

WRITE_WIDTH = 4
"""Transactions at a time: more threads buy nothing."""


@dataclass
class Tally:
    """What a run did, by name of the count; `known`: by how many the records with a live link have grown."""

    created: int = 0
    updated: int = 0
    deleted: int = 0
    unchanged: int = 0
    failed: int = 0
    known: int = 0

    def counts(self) -> dict[str, int]:
        return {name: getattr(self, name) for name in COUNTS}

    def add(self, other: "Tally") -> None:
        for name, amount in vars(other).items():
            setattr(self, name, getattr(self, name) + amount)


@frozen_dataclass(frozen=True, slots=True)
class Entry:
    """A snapshot on its way into the record `id`. `looked`: a point read made in this round. `beside`: the record that
    its remote id leads to, which lives at another one.
    """

    id: str
    snapshot: Snapshot
    looked: Snapshot | None = None
    beside: str = ""

    @property
    def newest(self) -> Snapshot:
        return self.looked or self.snapshot

    def again(self) -> "Entry":
        """For another round: a point read is worth nothing once its row has moved on."""
        return Entry(self.id, self.snapshot, beside=self.beside)

    def moved(self, record_id: str, beside: str = "") -> "Entry":
        return Entry(record_id, self.snapshot, beside=beside)

    @property
    def rid(self) -> str:
        return self.snapshot.change.rid


Planned = tuple[RecordWrite, Entry, str]
"""What is to be written, of which entry, and as what it counts."""


@dataclass
class Committed:
    """What became of one bucket's writes. `again`: the entries whose rows have to be read again."""

    tally: Tally = field(default_factory=Tally)
    made: list[str] = field(default_factory=list)
    news: list[tuple[str, str]] = field(default_factory=list)
    too_large: list[tuple[Change, str]] = field(default_factory=list)
    again: list[Entry] = field(default_factory=list)
    wakes: set[tuple[str, str]] = field(default_factory=set)


@dataclass
class Decided:
    """What the rows of a round led to. `firsts`: entries whose row makes a record, with what is at its id (a tomb),
    if no record has its match key. `doubles`: rows whose record lives at another remote id, with what is at theirs.
    `moving`: the match keys that the writes give records, or take from them.
    """

    writes: list[Planned] = field(default_factory=list)
    looks: list[Entry] = field(default_factory=list)
    elsewhere: list[Entry] = field(default_factory=list)
    firsts: list[tuple[Entry, Stored | None]] = field(default_factory=list)
    doubles: list[tuple[Entry, Stored | None]] = field(default_factory=list)
    taken: set[str] = field(default_factory=set)
    moving: set[str] = field(default_factory=set)

    def write(self, write: RecordWrite, entry: Entry, count: str) -> None:
        self.taken.add(write.id)
        self.writes.append((write, entry, count))


@dataclass
class ApplyBase:
    """The state of one run's batches. `fresh`: the hub has no record of this connection, so rows are inserted unread.
    `known`: how many it had when the run began. `careful`: one by one, so that a record which raises is set aside
    and does not stop the others. `whole`: what has the version that was merged is merged again, since a field may be
    read that was not then, or a text that it refers to may be another. `watch`: `news` is kept. `keep_lease`: called between steps; raises RowChanged if the lease is lost.
    `strategy`: decides in place of the connection's policies, "" for these.
    """

    engine: Engine
    tenant: Tenant
    entity: Entity
    opened: Opened
    run: str
    fresh: bool = False
    known: int = 0
    careful: bool = False
    whole: bool = False
    keep_lease: Callable[[], None] = lambda: None
    watch: bool = False
    strategy: Policy | Literal[""] = ""
    tally: Tally = field(default_factory=Tally)
    made: list[str] = field(default_factory=list)
    """Remote ids of the records that came to life since the last checkpoint."""
    news: list[tuple[str, str]] = field(default_factory=list)
    """(remote id, modified) of what was new to the hub since the last checkpoint."""
    config: Config = field(init=False)
    references: References = field(init=False)
    wakes: set[tuple[str, str]] = field(default_factory=set)
    """(connection, bucket) of what has to be pushed now."""
    leaving: dict[str, list[MatchClaim]] = field(default_factory=dict)
    """By record the match keys that it gives up with the write of this round."""

    @cached_property
    def uid(self) -> str:
        return self.opened.connection.uid

    @cached_property
    def unmarked(self) -> bool:
        """Whether nothing but its values tells what a create of ours has made there, unless it has a match key."""
        return not self.opened.connector.found_by(self.entity.name)

    def _claims(self) -> list[Claim]:
        """The creates that are open there. To be read after the rows that one of them may have made."""
        return self.engine.held.claims(self.tenant, self.uid, self.entity.name)

    def record_id(self, rid: str) -> str:
        return layout.derived_record_id(self.tenant, self.uid, self.entity.name, rid)

    @property
    def side(self) -> Side:
        return self.config[self.uid]

    def _configure(self) -> None:
        """Takes the configuration for the next transactions; one that was made just now may not be listed yet."""
        self.config = config_of(self.engine, self.opened, self.entity)
        if self.strategy:
            self.config[self.uid] = self.side.decided_by(self.strategy)

    # --- what is written -----------------------------------------------------------------------------------------

    def _write(self, decided: Decided, write: RecordWrite, entry: Entry, count: str) -> bool:
        """Takes a write up into a round; whether it may be made."""
        decided.write(write, entry, count)
        return True

    def _written(self, write: RecordWrite, entry: Entry) -> None:
        """After a write was committed; beside others, in threads."""

    def _new_references(self) -> References:
        """For a batch."""
        return References(self.engine, self.tenant, self.entity)

    # --- what a remote said --------------------------------------------------------------------------------------

    def _with_record_ids(self, snapshot: Snapshot) -> Snapshot:
        """References as the hub keeps them: the derived id of what they point at, whether it is here yet or not. What has
        become another record is told as gone: what is left of its row is nobody's.
        """
        change = snapshot.change
        if change.fields is None:
            return snapshot
        if change.winner:
            return replace(snapshot, change=replace(change, fields=None))
        fields = self.entity.with_references(
            change.fields,
            lambda entity, rid: layout.derived_record_id(self.tenant, self.uid, entity, rid),
        )
        if fields is change.fields:
            return snapshot
        return replace(snapshot, change=replace(change, fields=fields))

    def _resolved(self, entry: Entry) -> Entry:
        """Its references as the records that they lead to, as far as those are here."""
        return replace(entry, snapshot=self._followed(entry.snapshot))

    def _followed(self, snapshot: Snapshot) -> Snapshot:
        fields = snapshot.change.fields
        if fields is None:
            return snapshot
        found = self.references.resolve(fields)
        return (
            snapshot if found is fields else replace(snapshot, change=replace(snapshot.change, fields=found))
        )

    def _look(self, entries: Sequence[Entry]) -> list[Entry]:
        """Point reads of these remote records, batched by id; what is not there is gone. Of a system that can't be asked
        what was told stands for them, and of the others that they are alive.
        """
        if not self.opened.connector.polls:
            return [replace(entry, looked=_told(entry.snapshot)) for entry in entries]
        lo = hub_time(self.engine.clock.now())
        rids = [entry.snapshot.change.rid for entry in entries]
        found = self.opened.connector.get_many(self.entity.name, rids)
        hi = hub_time(self.engine.clock.now())
        for change in found.values():
            if change.problem:
                self.set_aside(change, change.problem)
        looked = [
            (
                entry,
                self._with_record_ids(Snapshot(found.get(rid) or Change(rid, None), lo, hi, point_read=True)),
            )
            for entry, rid in zip(entries, rids, strict=True)
            if rid not in found or not found[rid].problem
        ]
        self.references.read((), (snapshot.change.fields for _, snapshot in looked))
        return [
            Entry(entry.id, entry.snapshot, self._followed(snapshot), entry.beside)
            for entry, snapshot in looked
        ]

    def set_aside(self, change: Change, cause: str, code: str = "BadAnswer", field: str = "") -> None:
        self.tally.failed += 1
        note("record.set_aside", f"{change.rid}: {cause}", "warning", error=code, rid=change.rid, field=field)
        self.engine.dead_letters.add(
            self.tenant,
            kind="record",
            code=code,
            cause=cause,
            field=field,
            connection=self.uid,
            entity=self.entity.name,
            rid=change.rid,
        )

    # --- what is here --------------------------------------------------------------------------------------------

    def _read(self, ids: Iterable[str]) -> dict[str, Stored]:
        by_bucket = grouped(ids, layout.bucket)
        known = self.known + self.tally.known
        found = self.engine.pool.map(
            lambda item: self.engine.records.read_many(
                self.tenant, self.entity.name, item[0], item[1], known
            ),
            list(by_bucket.items()),
            WRITE_WIDTH,
        )
        return {record_id: stored for part in found for record_id, stored in part.items()}

    def _is_live(self, content: Record | Redirect | Tomb) -> bool:
        link = content.links.get(self.uid) if isinstance(content, Record) else None
        return link is not None and link.state == "live"


def _told(snapshot: Snapshot) -> Snapshot:
    if snapshot.payload is not None:
        return snapshot
    alive = replace(snapshot.change, fields={}, version="0")
    return replace(snapshot, change=alive, point_read=True, payload=frozenset())


def grouped(items: Iterable[T], key: Callable[[T], str]) -> Mapping[str, list[T]]:
    groups: dict[str, list[T]] = {}
    for item in items:
        groups.setdefault(key(item), []).append(item)
    return groups
