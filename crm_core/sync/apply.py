"""Applies a batch of snapshots to the records: read rows, decide, look where only a point read can tell, commit.

The order of I/O matters: a point read is made after the row that it is merged into was read, and is written with
that row's ETag; where the row has moved on, that entry starts again. Which record a row leads to: `applying/`.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from crm_core.connector import Change
from crm_core.errors import HubError
from crm_core.log import Log
from crm_core.model.fields import hub_time
from crm_core.model.record import Record, wants_push
from crm_core.ports import RowChanged
from crm_core.storage import layout
from crm_core.storage.records import RecordWrite, Redirect, Stored, Tomb
from crm_core.sync import identity, merge
from crm_core.sync.applying.base import WRITE_WIDTH, Committed, Decided, Entry, Planned, Tally, grouped
from crm_core.sync.applying.placing import Placing
from crm_core.sync.engine import wake
from crm_core.sync.merge import Snapshot, Verdict
from crm_core.sync.noting import note_writes
from crm_core.sync.saving import with_events

_log = Log("crm_core.sync")

MAX_CONFIG_SECONDS = 110.0
"""A transaction whose configuration is older starts again: a push run after a change begins at 120 s."""
MAX_ROUNDS = 20
"""How often an entry starts again because its row moved on; more is a bug, not contention."""


@dataclass
class Applier(Placing):
    """Applies batches for one run: `apply`, then `checkpointed` once the state row vouches for it."""

    def apply(self, snapshots: Iterable[Snapshot]) -> None:
        """Every snapshot is merged, skipped, held back, or kept as a dead letter; afterwards nothing of the batch is
        open. Whoever is to learn of it is woken.
        """
        wake(self.engine, self.tenant, self.entity.name, self.applied(snapshots))

    def applied(self, snapshots: Iterable[Snapshot]) -> set[tuple[str, str]]:
        """As `apply`, but gives whom to wake."""
        self._configure()
        self._apply(snapshots)
        wakes, self.wakes = self.wakes, set()
        return wakes

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
                self.set_aside(snapshot.change, f"bug: {type(error).__name__}", "Bug")

    def checkpointed(self, known: int) -> None:
        """What was applied until now is vouched for by the state row; counting begins anew."""
        self.known, self.tally, self.made, self.news = known, Tally(), [], []

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
        self.references = self._new_references()
        entries = self._newest(snapshots)
        if self.fresh and not self.side.sync.match and not (self.unmarked and self._claims()):
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

    def _newest(self, snapshots: Iterable[Snapshot]) -> list[Entry]:
        """One entry for each remote record, the last one read; what can't be read is set aside."""
        newest: dict[str, Entry] = {}
        for snapshot in snapshots:
            change = snapshot.change
            if change.problem:
                self.set_aside(change, change.problem)
                continue
            newest[change.rid] = Entry(self.record_id(change.rid), self._with_record_ids(snapshot))
        return list(newest.values())

    def _insert_unread(self, entries: list[Entry]) -> list[Entry]:
        """First load: inserts without a read. Gives the entries that have to be read after all."""
        alive = [entry for entry in entries if entry.snapshot.change.fields is not None]
        left = [entry for entry in entries if entry.snapshot.change.fields is None]
        buckets = grouped(alive, lambda entry: layout.bucket(entry.id))
        # Made one by one as they are written, so that not all of them are in memory at once.
        writes = {
            bucket: ((self._insert(entry, None), entry, "created") for entry in group)
            for bucket, group in buckets.items()
        }
        return left + self._commit(writes)

    def _round(self, entries: list[Entry]) -> list[Entry]:
        """Reads the rows, decides, looks, commits. Gives the entries whose rows moved on meanwhile."""
        rows = self._read([entry.id for entry in entries])
        records = (each.content for each in rows.values() if isinstance(each.content, Record))
        self.references.read(records, (entry.snapshot.change.fields for entry in entries))
        decided = Decided()
        for entry in entries:
            self._decide(self._resolved(entry), rows.get(entry.id), decided)
        if decided.looks:
            looks, decided.looks = decided.looks, []
            for entry in self._look(looks):
                self._decide(entry, rows.get(entry.id), decided)
        self._first_seen(decided)
        for entry, stored in decided.doubles:
            self._double(entry, stored, decided)
        writes = grouped(decided.writes, lambda planned: layout.bucket(planned[0].id))
        return self._commit(writes) + decided.elsewhere

    def _decide(self, entry: Entry, stored: Stored | None, decided: Decided) -> None:
        """Adds what follows from one entry and its row."""
        content = stored.content if stored else None
        snapshot = entry.newest
        alive = snapshot.change.fields is not None
        if isinstance(content, Redirect) and entry.beside and self._end_of(content.to) == entry.beside:
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
        elif isinstance(content, Tomb) and snapshot.payload is not None and snapshot.hi <= content.time:
            self.tally.unchanged += 1
        elif isinstance(content, Tomb) and snapshot.payload is not None and not alive:
            later = Tomb(snapshot.hi, self.uid, snapshot.change.rid)  # what came before it is over too
            self._write(decided, RecordWrite(entry.id, stored, later), entry, "unchanged")
        elif content is None and not alive:
            tomb = Tomb(snapshot.hi, self.uid, snapshot.change.rid)
            self._write(decided, RecordWrite(entry.id, None, tomb), entry, "unchanged")
        elif content is None or (alive and snapshot.point_read):
            decided.firsts.append((entry, stored))
        elif not alive:
            self.tally.unchanged += 1
        else:
            decided.looks.append(entry)

    def _end_of(self, record_id: str) -> str:
        """Where an id leads in the end: what became another record may have become a third one since."""
        return self.engine.records.follow(self.tenant, self.entity.name, record_id)[0]

    def _decide_known(self, entry: Entry, stored: Stored, record: Record, decided: Decided) -> None:
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

    def _is_same_version(self, record: Record, snapshot: Snapshot) -> bool:
        link = record.links.get(self.uid)
        return link is not None and link.ver == snapshot.change.version

    def _commit(self, buckets: Mapping[str, Iterable[Planned]]) -> list[Entry]:
        """Commits bucket by bucket, counts, sets aside what fits no row; gives the entries to read again."""
        if buckets:
            # What was read long ago may be gone: a full run of another worker would never tell of it again.
            self.keep_lease()
        again: list[Entry] = []
        if self.engine.clock.monotonic() - self.config.read_at > MAX_CONFIG_SECONDS:
            return [entry.again() for planned in buckets.values() for _, entry, _ in planned]
        for done in self.engine.pool.map(self._commit_bucket, list(buckets.items()), WRITE_WIDTH):
            self.tally.add(done.tally)
            self.made.extend(done.made)
            self.news.extend(done.news)
            self.wakes |= done.wakes
            for change, name in done.too_large:
                self.set_aside(
                    change,
                    f"The record does not fit into a row of the store; its largest field is {name or 'unknown'}.",
                    "TooLarge",
                    name,
                )
            again.extend(done.again)
        return again

    def _commit_bucket(self, item: tuple[str, Iterable[Planned]]) -> Committed:
        """Beside other buckets, in a thread of its own; what it leaves no longer holds the records."""
        bucket, planned = item
        about: dict[str, tuple[Entry, str]] = {}

        def writes() -> Iterator[RecordWrite]:
            for write, entry, count in planned:
                about[write.id] = entry, count
                yield write

        told = with_events(writes(), self.config)
        result = self.engine.records.commit(self.tenant, self.entity.name, bucket, told)
        done = Committed()
        self._note_written(result.written)
        for write in result.written:
            entry, count = about[write.id]
            self._count(write, count, done)
            identity.free(self.engine, self.leaving.pop(write.id, ()))
            self._written(write, entry)
            if self.watch and count != "unchanged":
                done.news.append((entry.rid, entry.newest.change.modified))
        done.too_large = [(about[write.id][0].snapshot.change, name) for write, name in result.too_large]
        done.again = [about[write.id][0].again() for write in result.stale]
        return done

    def _note_written(self, writes: Sequence[RecordWrite]) -> None:
        """For the log of runs."""
        note_writes(writes)

    def _count(self, write: RecordWrite, count: str, done: Committed) -> None:
        tally = done.tally
        setattr(tally, count, getattr(tally, count) + 1)
        lives = self._is_live(write.after)
        lived = write.before is not None and self._is_live(write.before.content)
        tally.known += lives - lived
        if lives and not lived and isinstance(write.after, Record):
            done.made.append(write.after.links[self.uid].rid)
        done.wakes.update((uid, layout.bucket(write.id)) for uid in write.tells)
        if isinstance(write.after, Record):
            done.wakes.update(
                (uid, layout.bucket(write.id))
                for uid, link in write.after.links.items()
                if link.wants and wants_push(write.after, link)
            )
