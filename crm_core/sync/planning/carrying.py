"""Carrying out a plan of a pull: reads again from the plan's own start, decides again, and writes what the plan says.

A write is made only if the plan has the very same decision: what is not in it comes with the next pull, and what is
another one by now is refused. It has the lease as every pull has, and leaves the entity's place in the feed alone.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from crm_core.connector import Change, Cursor
from crm_core.model.fields import hub_time
from crm_core.model.state import Run
from crm_core.storage.plans import Digest
from crm_core.storage.records import RecordWrite, Stored
from crm_core.sync import identity
from crm_core.sync.apply import Applier
from crm_core.sync.applying.base import Decided, Entry
from crm_core.sync.merge import Snapshot
from crm_core.sync.planning.deciding import rehearsed
from crm_core.sync.planning.decisions import Decision, about, mark, name_of, of_write, place_of
from crm_core.sync.planning.figures import Telling, reader
from crm_core.sync.planning.outcomes import (
    ALREADY,
    HELD,
    LATER,
    OTHERWISE,
    TOO_LARGE,
    UNREADABLE,
    WHY,
    Index,
    Now,
    with_outcome,
)
from crm_core.sync.pulling.puller import Puller

PORTION = 200
"""Decisions that are looked through at once after the reading."""


@dataclass
class Carrier(Applier):
    """`planned`: the decisions that may be carried out. `done`: those that were, `notes`: of rows whose decision was not,
    why; both since they were last taken. `batch`: the rows that are being applied, as they were read; `led`: by remote id
    the records that the keys of those lead to which are seen for the first time.
    """

    planned: Index = field(kw_only=True)
    done: list[Decision] = field(default_factory=list)
    notes: list[Digest] = field(default_factory=list)
    batch: dict[str, Snapshot] = field(default_factory=dict)
    led: dict[str, str] = field(default_factory=dict)

    def wanted(self, snapshots: Iterable[Snapshot]) -> list[Snapshot]:
        """Those of rows that the plan decides something of."""
        return [each for each in snapshots if any(self.planned.says(about(each.change.rid)))]

    def taken(self) -> tuple[list[Decision], list[Digest]]:
        done, notes, self.done, self.notes = self.done, self.notes, [], []
        self.batch = {}
        return done, notes

    def _write(self, decided: Decided, write: RecordWrite, entry: Entry, count: str) -> bool:
        decision = of_write(write, self.side, entry.rid, self.config)
        if decision is None:
            return False  # bookkeeping, which the next pull does
        if mark(decision) not in self.planned:
            self._note(entry.rid, OTHERWISE)
            return False
        return super()._write(decided, write, entry, count)

    def _newest(self, snapshots: Iterable[Snapshot]) -> list[Entry]:
        read = list(snapshots)
        self.batch = {each.change.rid: each for each in read}
        return super()._newest(read)

    def _first_seen(self, decided: Decided) -> None:
        """What claims a key, or leads to another record from then on, is in the plan: neither can be taken back."""
        placed: list[tuple[Entry, Stored | None]] = []
        keyed: list[tuple[Entry, Stored | None]] = []
        for first in decided.firsts:
            key = self._key(first[0])
            (keyed if key and key not in decided.moving else placed).append(first)
        self.led = self._leads([entry for entry, _ in keyed], decided)
        making = {self._key(entry) for entry, _ in keyed if self.led.get(entry.rid) == entry.id}
        for entry, stored in keyed:
            led = self.led.get(entry.rid)
            if led is None:
                continue  # not as planned, and told so
            if led != entry.id and self._key(entry) in making:
                decided.elsewhere.append(entry.again())  # once that record is there, it leads to it
            else:
                placed.append((entry, stored))
        decided.firsts = placed
        super()._first_seen(decided)

    def _double(self, entry: Entry, beside: Stored | None, decided: Decided) -> None:
        """Where the other row's delete comes first and is not planned, this one would wait for it for ever."""
        if entry.beside not in decided.taken:
            told, _ = self._rehearsed([entry])
            every = [each for decisions in told.values() for each in decisions]
            if not self._is_planned(every):
                self._leave(entry, every)
                return
        super()._double(entry, beside, decided)

    def _lead(self, entry: Entry, stored: Stored | None) -> str:
        return identity.place(self, entry.id, stored, entry.newest, only=self.led.get(entry.rid, ""))

    def _leads(self, entries: list[Entry], decided: Decided) -> dict[str, str]:
        """Of rows that are seen for the first time those of which the plan has all that they lead to, by remote id, with the
        record that their key leads to. One that leads to a record which is written just now is asked about after that.
        """
        while entries:
            told, led = self._rehearsed(entries)
            left = [entry for entry in entries if self._is_planned(told[entry.rid])]
            if len(left) == len(entries):
                return {each.rid: led.get(each.rid, each.id) for each in entries}
            for entry in entries:
                if entry in left:
                    continue
                if led.get(entry.rid) in decided.taken:
                    decided.elsewhere.append(entry.again())
                else:
                    self._leave(entry, told[entry.rid])
            entries = left  # what followed from the others is another decision without them
        return {}

    def _rehearsed(self, entries: Sequence[Entry]) -> tuple[dict[str, list[Decision]], dict[str, str]]:
        decisions, led = rehearsed(
            self.engine,
            self.tenant,
            self.entity,
            self.opened,
            [self.batch[entry.rid] for entry in entries],
            whole=self.whole,
            strategy=self.strategy,
            keep_lease=self.keep_lease,
        )
        told: dict[str, list[Decision]] = {entry.rid: [] for entry in entries}
        for each in decisions:
            told.setdefault(each["remote_id"], []).append(each)
        return told, led

    def _is_planned(self, decisions: Sequence[Decision]) -> bool:
        return bool(decisions) and all(mark(each) in self.planned for each in decisions)

    def _leave(self, entry: Entry, decisions: Sequence[Decision]) -> None:
        """Tells why a row is not placed."""
        for each in decisions:
            if each["action"] == "later":
                self._hold(entry.rid)
            elif each["action"] == "failed":
                self.set_aside(entry.snapshot.change, each["why"], each["code"])
            elif mark(each) not in self.planned:
                self._note(entry.rid, OTHERWISE)

    def _written(self, write: RecordWrite, entry: Entry) -> None:
        decision = of_write(write, self.side, entry.rid, self.config)
        if decision is not None:
            self.done.append(decision)

    def _hold(self, rid: str, seen: str = "") -> None:  # noqa: ARG002  # the step's parameters
        self._note(rid, HELD)

    def set_aside(self, change: Change, cause: str, code: str = "BadAnswer", field: str = "") -> None:  # noqa: ARG002
        self.tally.failed += 1
        self._note(change.rid, TOO_LARGE if code == "TooLarge" else UNREADABLE)

    def _note(self, rid: str, why: int) -> None:
        self.notes.append(Digest(about(rid), why))


class Carrying(Puller):
    """One slice of it. After the reading the plan is gone through once more: what was not carried out is told, and why."""

    def __init__(self, *args: Any, plan: Run, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.plan = reader(self.engine, self.job, plan)
        self.plan_run = plan
        self.telling = Telling(self.engine, self.job, self.run)

    @property
    def _compares(self) -> bool:
        return False

    def _comparing(self) -> bool:
        return bool(self.run.cursor and "settle" in self.run.cursor)

    def _expected(self) -> int:
        return self.plan_run.read or -1

    def _applier(self) -> Applier:
        return self._made(
            Carrier,
            self.run.id,
            whole=self.plan_run.of == "full",
            strategy=self.run.policy,
            planned=Index(each for each in self.plan.digests() if each.says),
        )

    def _apply(self, batch: list[Snapshot], applier: Applier) -> None:
        assert isinstance(applier, Carrier)
        applier.apply(applier.wanted(batch))
        self.run = replace(self.run, read=self.run.read + len(batch))

    def _checkpoint(self, applier: Applier, cursor: Cursor) -> None:
        assert isinstance(applier, Carrier)
        done, notes = applier.taken()
        for decision in done:
            self.telling.tell(with_outcome(decision, "applied"), [mark(decision)])
        self.telling.note(notes)
        self.run = replace(self.run, plan=self.telling.saved())
        super()._checkpoint(applier, cursor)

    def _read_and_compare(self) -> None:
        applier = self.applier = self._applier()
        if self.first is not None:
            cursor = self._read(applier)
            if cursor is None:
                return
            self.run = replace(self.run, cursor={"settle": {}, "done": cursor})
            self._save_run(self._counted())
        self._settle(applier)

    def _settle(self, applier: Applier) -> None:
        assert isinstance(applier, Carrier)
        assert self.run.cursor is not None
        done = self.run.cursor["done"]
        place = self.run.cursor["settle"]
        while place is not None:
            decisions, place = self.plan.page(place, top=PORTION)
            self._settle_portion(applier, decisions)
            self._checkpoint(applier, {"settle": place or {}, "done": done})
            if place is not None and self._time_is_up():
                self._continue()
                return
        self._succeed(done)

    def _settle_portion(self, applier: Carrier, decisions: Sequence[Decision]) -> None:
        met = self._met()
        left = [each for each in decisions if not met.has(each)]
        if self.plan_run.of == "full":
            # What the comparison had found gone the feed does not tell of.
            gone = [
                each["remote_id"]
                for each in left
                if each["action"] == "delete" and not any(met.says(about(each["remote_id"])))
            ]
            now = hub_time(self.engine.clock.now())
            applier.apply([Snapshot(Change(rid, None), now, now) for rid in gone])
            done = Index(mark(each) for each in applier.done)
            left = [each for each in left if not done.has(each)]
        now_is = Now.read(self.engine, self.job.tenant, self.job.entity, left)
        for each in left:
            told = _outcome(each, list(met.says(about(name_of(each)))), now_is)
            self.telling.tell(told, [place_of(each)])

    def _met(self) -> Index:
        """What this run's slices have done and noted until now."""
        if self._index is None:
            self._index = Index(
                each for each in reader(self.engine, self.job, self.run).digests() if each.says
            )
        return self._index

    _index: Index | None = None


def _outcome(decision: Decision, notes: Sequence[int], now: Now) -> Decision:
    """Of a decision that this run did not carry out."""
    action = decision["action"]
    if action == "later":
        return with_outcome(decision, "drifted", LATER)
    if action == "failed":
        return with_outcome(decision, "failed", decision["why"])
    if now.is_so(decision):
        return with_outcome(decision, "applied", ALREADY)
    for note in notes:
        if note in WHY:
            return with_outcome(decision, "failed", WHY[note])
    return with_outcome(decision, "drifted", now.drift(decision, met=OTHERWISE in notes))
