"""Applies a batch of snapshots to the records: read rows, decide, look where only a point read can tell, commit.

The order of I/O matters: a point read is made after the row that it is merged into was read, and is written with
that row's ETag; where the row has moved on, that entry starts again. Which record a row leads to: `identity.py`.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TypeVar

from crm_core.connector import Change
from crm_core.errors import HubError
from crm_core.log import Log
from crm_core.model.connection import Tenant
from crm_core.model.entities import Entity
from crm_core.model.fields import hub_time
from crm_core.model.record import Record, open_items, wants_push
from crm_core.model.state import COUNTS
from crm_core.ports import RowChanged
from crm_core.storage import layout
from crm_core.storage.records import HistoryEntry, RecordWrite, Redirect, Stored, Tomb
from crm_core.sync import deletes, identity, merge
from crm_core.sync.draft import Draft
from crm_core.sync.engine import Engine, Opened, config_of, wake
from crm_core.sync.merge import Merged, Snapshot, Verdict
from crm_core.sync.references import References
from crm_core.sync.sides import Config, Side
from crm_core.sync.unite import is_declared

_log = Log("crm_core.sync")

T = TypeVar("T")

MAX_CONFIG_SECONDS = 110.0
"""A transaction whose configuration is older starts again: a push run after a change begins at 120 s."""
MAX_ROUNDS = 20
"""How often an entry starts again because its row moved on; more is a bug, not contention."""
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


@dataclass(frozen=True, slots=True)
class _Entry:
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

    def again(self) -> "_Entry":
        """For another round: a point read is worth nothing once its row has moved on."""
        return _Entry(self.id, self.snapshot, beside=self.beside)

    def moved(self, record_id: str, beside: str = "") -> "_Entry":
        return _Entry(record_id, self.snapshot, beside=beside)

    @property
    def rid(self) -> str:
        return self.snapshot.change.rid


_Planned = tuple[RecordWrite, _Entry, str]
"""What is to be written, of which entry, and as what it counts."""


@dataclass
class _Committed:
    """What became of one bucket's writes. `again`: the entries whose rows have to be read again."""

    tally: Tally = field(default_factory=Tally)
    made: list[str] = field(default_factory=list)
    too_large: list[tuple[Change, str]] = field(default_factory=list)
    again: list[_Entry] = field(default_factory=list)
    wakes: set[tuple[str, str]] = field(default_factory=set)


@dataclass
class _Decided:
    """What the rows of a round led to. `firsts`: entries whose row makes a record, with what is at its id (a tomb),
    if no record has its match key. `doubles`: rows whose record lives at another remote id, with what is at theirs.
    """

    writes: list[_Planned] = field(default_factory=list)
    looks: list[_Entry] = field(default_factory=list)
    elsewhere: list[_Entry] = field(default_factory=list)
    firsts: list[tuple[_Entry, Stored | None]] = field(default_factory=list)
    doubles: list[tuple[_Entry, Stored | None]] = field(default_factory=list)
    taken: set[str] = field(default_factory=set)

    def write(self, write: RecordWrite, entry: _Entry, count: str) -> None:
        self.taken.add(write.id)
        self.writes.append((write, entry, count))


@dataclass
class Applier:
    """Applies batches for one run. `fresh`: the hub has no record of this connection, so rows are inserted unread.
    `known`: how many it had when the run began. `careful`: one by one, so that a record which raises is set aside
    and does not stop the others. `whole`: what has the version that was merged is merged again, since a field may be
    read that was not then, or a text that it refers to may be another. `keep_lease`: called between steps; raises RowChanged if the lease is lost.
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
    tally: Tally = field(default_factory=Tally)
    made: list[str] = field(default_factory=list)
    """Remote ids of the records that came to life since the last checkpoint."""
    config: Config = field(init=False)
    references: References = field(init=False)
    wakes: set[tuple[str, str]] = field(default_factory=set)
    """(connection, bucket) of what has to be pushed now."""

    @cached_property
    def uid(self) -> str:
        return self.opened.connection.uid

    def record_id(self, rid: str) -> str:
        return layout.derived_record_id(self.tenant, self.uid, self.entity.name, rid)

    @property
    def side(self) -> Side:
        return self.config[self.uid]

    def _configure(self) -> None:
        """Takes the configuration for the next transactions; one that was made just now may not be listed yet."""
        self.config = config_of(self.engine, self.opened, self.entity)

    def apply(self, snapshots: Iterable[Snapshot]) -> None:
        """Every snapshot is merged, skipped, held back, or kept as a dead letter; afterwards nothing of the batch is
        open. Whoever is to learn of it is woken.
        """
        self._configure()
        self._apply(snapshots)
        wake(self.engine, self.tenant, self.entity.name, self.wakes)
        self.wakes = set()

    def _apply(self, snapshots: Iterable[Snapshot]) -> None:
        if not self.careful:
            self._apply_together(snapshots)
            return
        for snapshot in snapshots:
            self.keep_lease()
            try:
                self._apply_together([snapshot])
            except (HubError, RowChanged):
                raise
            except Exception as error:  # noqa: BLE001  # a bug with one record must not stop the others
                _log.bug("record set aside", error)
                self.set_aside(snapshot.change, f"bug: {type(error).__name__}")

    def checkpointed(self, known: int) -> None:
        """What was applied until now is vouched for by the state row; counting begins anew."""
        self.known, self.tally, self.made = known, Tally(), []

    def living(self, rids: Sequence[str]) -> int:
        """How many of the remote records live here."""
        rows = self._read({self.record_id(rid) for rid in rids})
        return sum(self._is_live(row.content) for row in rows.values())

    def unknown(self, rids: Sequence[str]) -> int:
        """How many of the remote records lead to nothing here."""
        return len(rids) if self.fresh else len(rids) - len(self._read({self.record_id(rid) for rid in rids}))

    def receivers(self) -> list[str]:
        """The other connections that this one's new records are to be made at."""
        self._configure()
        return sorted(uid for uid, side in self.config.items() if uid != self.uid and side.writes)

    def look_again(self) -> None:
        """For a worker that was overtaken: what it brought to life may be gone at the remote, and the run that went
        on may have compared before it was there. Each of them is looked at; the lease is another's.
        """
        self.keep_lease = lambda: None
        now = hub_time(self.engine.clock.now())
        self.apply([Snapshot(Change(rid, None), now, now) for rid in dict.fromkeys(self.made)])

    def _apply_together(self, snapshots: Iterable[Snapshot]) -> None:
        self.references = References(self.engine, self.tenant, self.entity)
        entries = self._newest(snapshots)
        if self.fresh and not self.side.sync.match:
            entries = self._insert_unread(entries)
        for _ in range(MAX_ROUNDS):
            if not entries:
                return
            self.keep_lease()
            self._configure()
            entries = self._round(entries)
        raise RuntimeError(
            f"{len(entries)} records of {self.entity.name} move on faster than they can be written"
        )

    def _newest(self, snapshots: Iterable[Snapshot]) -> list[_Entry]:
        """One entry for each remote record, the last one read; what can't be read is set aside."""
        newest: dict[str, _Entry] = {}
        for snapshot in snapshots:
            change = snapshot.change
            if change.problem:
                self.set_aside(change, change.problem)
                continue
            newest[change.rid] = _Entry(self.record_id(change.rid), self._with_record_ids(snapshot))
        return list(newest.values())

    def _with_record_ids(self, snapshot: Snapshot) -> Snapshot:
        """References as the hub keeps them: the derived id of what they point at, whether it is here yet or not."""
        change = snapshot.change
        if change.fields is None:
            return snapshot
        fields = self.entity.with_references(
            change.fields,
            lambda entity, rid: layout.derived_record_id(self.tenant, self.uid, entity, rid),
        )
        if fields is change.fields:
            return snapshot
        return replace(snapshot, change=replace(change, fields=fields))

    def _resolved(self, entry: _Entry) -> _Entry:
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

    def set_aside(self, change: Change, cause: str) -> None:
        self.tally.failed += 1
        self.engine.dead_letters.add(
            self.tenant,
            kind="record",
            cause=cause,
            connection=self.uid,
            entity=self.entity.name,
            rid=change.rid,
        )

    def _insert_unread(self, entries: list[_Entry]) -> list[_Entry]:
        """First load: inserts without a read. Gives the entries that have to be read after all."""
        alive = [entry for entry in entries if entry.snapshot.change.fields is not None]
        left = [entry for entry in entries if entry.snapshot.change.fields is None]
        buckets = _grouped(alive, lambda entry: layout.bucket(entry.id))
        # Made one by one as they are written, so that not all of them are in memory at once.
        writes = {
            bucket: ((self._insert(entry, None), entry, "created") for entry in group)
            for bucket, group in buckets.items()
        }
        return left + self._commit(writes)

    def _insert(self, entry: _Entry, before: Stored | None) -> RecordWrite:
        record = merge.first_seen(entry.id, self.entity, self.side, self.config, entry.newest, self.run)
        return RecordWrite(entry.id, before, record)

    def _round(self, entries: list[_Entry]) -> list[_Entry]:
        """Reads the rows, decides, looks, commits. Gives the entries whose rows moved on meanwhile."""
        rows = self._read([entry.id for entry in entries])
        records = (each.content for each in rows.values() if isinstance(each.content, Record))
        self.references.read(records, (entry.snapshot.change.fields for entry in entries))
        decided = _Decided()
        for entry in entries:
            self._decide(self._resolved(entry), rows.get(entry.id), decided)
        if decided.looks:
            looks, decided.looks = decided.looks, []
            for entry in self._look(looks):
                self._decide(entry, rows.get(entry.id), decided)
        self._first_seen(decided)
        for entry, stored in decided.doubles:
            self._double(entry, stored, decided)
        writes = _grouped(decided.writes, lambda planned: layout.bucket(planned[0].id))
        return self._commit(writes) + decided.elsewhere

    def _read(self, ids: Iterable[str]) -> dict[str, Stored]:
        by_bucket = _grouped(ids, layout.bucket)
        known = self.known + self.tally.known
        found = self.engine.pool.map(
            lambda item: self.engine.records.read_many(
                self.tenant, self.entity.name, item[0], item[1], known
            ),
            list(by_bucket.items()),
            WRITE_WIDTH,
        )
        return {record_id: stored for part in found for record_id, stored in part.items()}

    def _decide(self, entry: _Entry, stored: Stored | None, decided: _Decided) -> None:
        """Adds what follows from one entry and its row."""
        content = stored.content if stored else None
        snapshot = entry.newest
        alive = snapshot.change.fields is not None
        if isinstance(content, Redirect) and content.to == entry.beside:
            decided.doubles.append((entry, stored))  # a person said that both are one
        elif isinstance(content, Redirect):
            decided.elsewhere.append(entry.moved(content.to))
        elif entry.id in decided.taken:
            decided.elsewhere.append(entry.again())  # one row is written once in a round
        elif isinstance(content, Record):
            assert stored is not None
            self._decide_known(entry, stored, content, decided)
        elif snapshot.hint and not snapshot.point_read:
            decided.looks.append(entry)
        elif entry.beside:
            decided.doubles.append((entry, stored))
        elif content is None and not alive:
            tomb = Tomb(snapshot.hi, self.uid, snapshot.change.rid)
            decided.write(RecordWrite(entry.id, None, tomb), entry, "unchanged")
        elif content is None or (alive and snapshot.point_read):
            decided.firsts.append((entry, stored))
        elif not alive:
            self.tally.unchanged += 1
        else:
            decided.looks.append(entry)

    def _decide_known(self, entry: _Entry, stored: Stored, record: Record, decided: _Decided) -> None:
        snapshot = entry.newest
        link = record.links.get(self.uid)
        if link is not None and link.state == "creating":
            self._hold(entry.rid)  # only the push that makes it can tell
            return
        if link is not None and link.rid != entry.rid and (link.rid or link.former) and not entry.beside:
            # Which may have a record of its own; else it is decided there.
            decided.elsewhere.append(
                entry.moved(layout.separate_record_id(self.record_id(entry.rid)), record.id)
            )
            return
        record = self.references.settled(record, self.config)
        verdict = merge.guard(record, self.side, snapshot, lag=self.opened.connector.list_lag_seconds)
        if verdict is Verdict.LOOK:
            deleted = snapshot.change.fields is None and not snapshot.hint
            if deleted and (link is None or link.state in ("gone", "new")):
                self.tally.unchanged += 1  # a delete of what is gone already: nothing to ask
                return
            decided.looks.append(entry)
            return
        if verdict is Verdict.MERGE or (self.whole and self._is_same_version(record, snapshot)):
            self._plan(entry, stored, record, self._merged(record, snapshot), decided)
        else:
            self.tally.unchanged += 1

    def _plan(
        self, entry: _Entry, stored: Stored, resolved: Record, merged: Merged, decided: _Decided
    ) -> None:
        """What is written of a record that was merged, and as what it counts. `resolved`: the stored one with its
        references followed; where that alone changes what is open it is saved.
        """
        record, after = stored.content, merged.record
        assert isinstance(record, Record)
        if after is resolved and (record is resolved or open_items(record) == open_items(resolved)):
            self.tally.unchanged += 1
            return
        deleted = entry.newest.change.fields is None
        history, count = None, "unchanged"
        if after.version != record.version:
            count = "deleted" if deleted else "updated"
            history = HistoryEntry(
                version=after.version,
                time=entry.newest.hi,
                origin=self.uid,
                run=self.run,
                old=merge.old_values(record, after),
                change="delete" if deleted else "update",
                losers=merged.losers,
            )
            self._claim_next(record, after)
        decided.write(RecordWrite(stored.id, stored, after, history), entry, count)

    def _is_same_version(self, record: Record, snapshot: Snapshot) -> bool:
        link = record.links.get(self.uid)
        return link is not None and link.ver == snapshot.change.version

    def _merged(self, record: Record, snapshot: Snapshot) -> Merged:
        change = snapshot.change
        if change.fields is not None:
            return merge.merge(record, self.side, self.config, snapshot)
        if change.winner:
            winner = self.record_id(change.winner)
            return Merged(deletes.merged_away(record, self.side, self.config, winner, snapshot.hi), {})
        return deletes.gone(record, self.side, self.config, change.rid, snapshot.hi)

    # --- which record a row leads to -----------------------------------------------------------------------------

    def _hold(self, rid: str) -> None:
        now = hub_time(self.engine.clock.now())
        self.engine.held.hold(self.tenant, self.uid, self.entity.name, rid, now)
        self.tally.unchanged += 1

    def _first_seen(self, decided: _Decided) -> None:
        """Rows that no record is known of: each makes one, or is linked to the record that has its match key."""

        def placed(item: tuple[_Entry, Stored | None]) -> str:
            entry, stored = item
            if entry.id != self.record_id(entry.rid):
                return entry.id  # its redirect leads here, to a record that nobody has made yet
            marker = entry.newest.change.marker
            if marker and identity.is_being_made(self, marker):
                return identity.HOLD
            return identity.place(self, entry.id, stored, entry.newest)

        for (entry, stored), place in zip(
            decided.firsts, self.engine.pool.map(placed, decided.firsts, WRITE_WIDTH), strict=True
        ):
            if place == identity.HOLD:
                self._hold(entry.rid)
            elif place == identity.LOOK_FIRST:
                self._place_looked(entry, stored, decided)
            else:
                self._place(entry, stored, place, decided)

    def _place(self, entry: _Entry, stored: Stored | None, place: str, decided: _Decided) -> None:
        if place != entry.id:
            decided.elsewhere.append(entry.moved(place))
        elif entry.id in decided.taken:
            decided.elsewhere.append(entry.again())
        else:
            decided.write(self._insert(entry, stored), entry, "created")

    def _place_looked(self, entry: _Entry, stored: Stored | None, decided: _Decided) -> None:
        """Its key names a record that has another one now: the row has to be as it says before it takes the key."""
        for looked in self._look([entry]):
            if looked.newest.change.fields is None:
                decided.elsewhere.append(_Entry(entry.id, replace(looked.newest, point_read=False)))
            else:
                place = identity.place(self, entry.id, stored, looked.newest)
                self._place(looked, stored, place, decided)

    def _claim_next(self, before: Record, after: Record) -> None:
        """Where the field of the match key changes the next key is claimed; whoever has it keeps it."""
        name = self.side.sync.match
        if name and before.fields.get(name) != after.fields.get(name):
            identity.claim_next(self.engine, self.tenant, name, before, after)

    def _double(self, entry: _Entry, beside: Stored | None, decided: _Decided) -> None:
        """A row that leads to a record which lives at another remote id. That one may be gone by now; are both alive,
        it is not known whether they are one, and a person decides; what was decided holds until the row is changed.
        """
        stored = self.engine.records.get(self.tenant, self.entity.name, entry.beside)
        record = stored.content if stored else None
        link = record.links.get(self.uid) if isinstance(record, Record) else None
        if stored is None or not isinstance(record, Record) or link is None or link.rid == entry.rid:
            decided.elsewhere.append(_Entry(self.record_id(entry.rid), entry.snapshot))
            return
        if link.state == "creating":
            self._hold(entry.rid)  # since it was last read
            return
        if stored.id in decided.taken:
            decided.elsewhere.append(entry.again())
            return
        if entry.snapshot.change.fields is None and not entry.snapshot.hint:
            self.tally.unchanged += 1  # a delete of what is not the record's
            return

        lives, kept = link.state == "live", record

        def said(snapshot: Snapshot) -> bool:
            return lives and is_declared(kept, self.uid, entry.rid, snapshot.change.version)

        if said(entry.snapshot):
            self.tally.unchanged += 1
            return
        rids = [entry.rid, link.rid] if link.state == "live" else [entry.rid]
        looked = {
            each.rid: each
            for each in self._look(
                [
                    entry.moved(entry.id, entry.beside),
                    *(_Entry(stored.id, Snapshot(Change(rid, None), "", "")) for rid in rids[1:]),
                ]
            )
        }
        mine = looked.get(entry.rid)
        if mine is None or mine.newest.change.fields is None or said(mine.newest):
            self.tally.unchanged += 1
        elif link.state in ("new", "gone"):
            record = self.references.settled(record, self.config)
            self._plan(mine, stored, record, self._merged(record, mine.newest), decided)
        elif (other := looked.get(link.rid)) is None:
            return  # it can't be read, and was set aside
        elif other.newest.change.fields is None:
            decided.elsewhere.append(_Entry(stored.id, other.snapshot))
            decided.elsewhere.append(entry.again())
        else:
            made = merge.first_seen(entry.id, self.entity, self.side, {}, mine.newest, self.run)
            asked = {"kind": "match", "connection": self.uid, "record": record.id}
            apart = Draft(replace(made, reviews=(asked,)), self.config).finished()
            decided.write(RecordWrite(entry.id, beside, apart), entry, "created")

    def _look(self, entries: Sequence[_Entry]) -> list[_Entry]:
        """Point reads of these remote records, batched by id; what is not there is gone."""
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
            _Entry(entry.id, entry.snapshot, self._followed(snapshot), entry.beside)
            for entry, snapshot in looked
        ]

    def _commit(self, buckets: Mapping[str, Iterable[_Planned]]) -> list[_Entry]:
        """Commits bucket by bucket, counts, sets aside what fits no row; gives the entries to read again."""
        if buckets:
            # What was read long ago may be gone: a full run of another worker would never tell of it again.
            self.keep_lease()
        again: list[_Entry] = []
        if self.engine.clock.monotonic() - self.config.read_at > MAX_CONFIG_SECONDS:
            return [entry.again() for planned in buckets.values() for _, entry, _ in planned]
        for done in self.engine.pool.map(self._commit_bucket, list(buckets.items()), WRITE_WIDTH):
            self.tally.add(done.tally)
            self.made.extend(done.made)
            self.wakes |= done.wakes
            for change, name in done.too_large:
                self.set_aside(
                    change,
                    f"The record does not fit into a row of the store; its largest field is {name or 'unknown'}.",
                )
            again.extend(done.again)
        return again

    def _commit_bucket(self, item: tuple[str, Iterable[_Planned]]) -> _Committed:
        """Beside other buckets, in a thread of its own; what it leaves no longer holds the records."""
        bucket, planned = item
        about: dict[str, tuple[_Entry, str]] = {}

        def writes() -> Iterator[RecordWrite]:
            for write, entry, count in planned:
                about[write.id] = entry, count
                yield write

        result = self.engine.records.commit(self.tenant, self.entity.name, bucket, writes())
        done = _Committed()
        for write in result.written:
            self._count(write, about[write.id][1], done)
        done.too_large = [(about[write.id][0].snapshot.change, name) for write, name in result.too_large]
        done.again = [about[write.id][0].again() for write in result.stale]
        return done

    def _count(self, write: RecordWrite, count: str, done: _Committed) -> None:
        tally = done.tally
        setattr(tally, count, getattr(tally, count) + 1)
        lives = self._is_live(write.after)
        lived = write.before is not None and self._is_live(write.before.content)
        tally.known += lives - lived
        if lives and not lived and isinstance(write.after, Record):
            done.made.append(write.after.links[self.uid].rid)
        if isinstance(write.after, Record):
            done.wakes.update(
                (uid, layout.bucket(write.id))
                for uid, link in write.after.links.items()
                if link.wants and wants_push(write.after, link)
            )

    def _is_live(self, content: Record | Redirect | Tomb) -> bool:
        link = content.links.get(self.uid) if isinstance(content, Record) else None
        return link is not None and link.state == "live"


def _grouped(items: Iterable[T], key: Callable[[T], str]) -> Mapping[str, list[T]]:
    groups: dict[str, list[T]] = {}
    for item in items:
        groups.setdefault(key(item), []).append(item)
    return groups
