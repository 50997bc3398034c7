"""Reading: page by page into the records, and the comparison of ids after everything was read."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any, TypeVar

from crm_core.connector import Cursor, Page
from crm_core.errors import CursorExpired
from crm_core.log import bound
from crm_core.model.entities import ENTITIES
from crm_core.model.fields import hub_time
from crm_core.model.filters import parse_filter
from crm_core.model.state import Run
from crm_core.ports import Future
from crm_core.storage import layout
from crm_core.sync import brake, compare, failures, gaps
from crm_core.sync.apply import Applier
from crm_core.sync.merge import Snapshot
from crm_core.sync.pulling.base import Fetched
from crm_core.sync.pulling.ending import Ending
from crm_core.sync.schedule import is_reached, next_due

A = TypeVar("A", bound=Applier)


class Reading(Ending):
    """From a place in the feed to its end, or to the end of the slice."""

    def _is_idle(self, page: Page) -> bool:
        """Nothing has changed since the cursor: no lease is needed, one conditional write says so."""
        return self._from_the_cursor and not self.run.slices and not page.changes and not page.more

    def _cursor(self) -> Cursor | None:
        if self._from_the_cursor:
            return self.state.cursor
        return self._beginning() if self.run.cursor is None else self.run.cursor

    def _beginning(self) -> Cursor | None:
        """Where one that keeps its own place begins; None: where the feed does."""
        if not (self.run.since or self.run.filter):
            return self.run.start
        where = parse_filter(self.run.filter) if self.run.filter else None
        return self.opened.connector.begin(self.job.entity, since=self.run.since, where=where)

    def _first_page(self) -> Fetched:
        try:
            return self._fetch(self._cursor())
        except CursorExpired:
            self._restart()
            return self._fetch(self._cursor())

    def _restart(self) -> None:
        """The place in the feed is lost. Who goes on from the entity's reads everything, and compares ids for deletes."""
        if self.run.partial:
            self.run = replace(self.run, cursor=None, start=None, read=0)
        else:
            self.run = replace(self.run, mode="full", cursor=None, read=0, seen=0)

    def _fetch(self, cursor: Cursor | None) -> Fetched:
        lo = hub_time(self.engine.clock.now())
        page = self.opened.connector.changes(self.job.entity, cursor, size=self.engine.tuning.page_records)
        return Fetched(page, lo, hub_time(self.engine.clock.now()))

    def _read_and_compare(self) -> None:
        applier = self.applier = self._applier()
        if self.first is not None:
            cursor = self._read(applier)
            if cursor is None:
                return
            if not self._compares:
                self._succeed(cursor)
                return
            self.run = replace(self.run, cursor={"compare": 0, "live": 0, "done": cursor})
            self._braked(brake.judge_whole, applier)
        self._compare(applier)

    def _compare(self, applier: Applier) -> None:
        assert self.run.cursor is not None
        done: Mapping[str, Any] = self.run.cursor["done"]
        live: int = self.run.cursor["live"]
        for number in range(self.run.cursor["compare"], len(layout.BUCKETS)):
            judge = partial(self._braked, brake.judge, applier)
            live += compare.delete_missing(applier, self.run, layout.BUCKETS[number], judge)
            self._checkpoint(applier, {"compare": number + 1, "live": live, "done": done})
            self._let_changes_through(applier)
            if self._time_is_up() and number + 1 < len(layout.BUCKETS):
                self._continue()  # after a step, so that however short a slice is it gets further
                return
        compare.forget(self.engine, self.job.tenant, self.run.id)
        self.state = replace(
            self.state, known=live
        )  # counted, where a crash can have made the running sum wrong
        self._succeed(done)

    def _braked(self, judge: Callable[..., None], applier: Applier, *about: Any) -> None:
        """Lets the brake look at what is about to be done, beside all that was done and let through: raises Stopped."""
        judge(applier, replace(self.run, counts=added(self.run.counts, self.run.through)), *about)

    def _applier(self) -> Applier:
        return self._made(
            Applier,
            self.run.id,
            # Once a load was done there may be rows of ours among those that are read.
            fresh=self.run.fresh_start and not self.state.last_success,
            whole=self._compares,
            watch=self._from_the_cursor and gaps.counted(self.opened, self.state),
            strategy=self.run.policy,
        )

    def _read(self, applier: Applier) -> Cursor | None:
        """Reads pages to the end of the feed and gives its cursor; None if the rest is for another slice.

        The next page is fetched while a batch is written. When the time is up no further page is asked for.
        """
        clock, tuning = self.engine.clock, self.engine.tuning
        fetched, self.first = self.first, None
        assert fetched is not None
        batch: list[Snapshot] = []
        began = clock.monotonic()
        while True:
            page = fetched.page
            batch.extend(self._wanted(fetched.snapshots(), len(batch)))
            enough = 0 < self.run.limit <= self.run.read + len(batch)
            stop = enough or self._time_is_up()
            following: Future[Fetched] | None = None
            if page.more and not stop:
                following = self.engine.pool.prefetch(partial(self._fetch, page.cursor))
            full = len(batch) >= tuning.batch_records or clock.monotonic() - began >= tuning.batch_seconds
            if full or following is None:
                self._apply(batch, applier)
                self._checkpoint(applier, page.cursor)
                self._let_changes_through(applier)
                batch, began = [], clock.monotonic()
            if following is None:
                if page.more and not enough:
                    self._continue()
                    return None
                return page.cursor
            fetched = following.result()

    def _wanted(self, snapshots: list[Snapshot], waiting: int) -> list[Snapshot]:
        """As many as the run may still read, beyond those that wait to be applied."""
        return snapshots[: self.run.limit - self.run.read - waiting] if self.run.limit else snapshots

    def _apply(self, batch: list[Snapshot], applier: Applier) -> None:
        self._braked(brake.judge_batch, applier, batch)
        if self._compares:
            self.run = compare.remember(applier, self.run, batch)
        applier.apply(batch)
        self.run = replace(self.run, read=self.run.read + len(batch))

    def _plain(self, run: str) -> Applier:
        """That of the schedule's pulls, for a run of theirs."""
        return self._made(Applier, run)

    def _made(self, kind: type[A], run: str, **more: Any) -> A:
        """An applier of this slice. `more`: what is special about it."""
        return kind(
            self.engine, self.job.tenant, ENTITIES[self.job.entity], self.opened, run, known=self.state.known,
            careful=self.careful, keep_lease=self._keep_lease, **more,
        )  # fmt: skip

    def _let_changes_through(self, applier: Applier) -> None:
        """A run that reads everything, or another part, has the lease for long. What changed since the entity's cursor
        is read in between when that is due, so that nobody's edit waits for the end of the run; a batch at a time, so
        that the run does not wait for a busy system either. It is a run of the schedule's own.
        """
        state, now = self.state, self.engine.clock.now()
        if self._from_the_cursor or not state.last_success or state.cursor is None:
            return
        if self.opened.connection.paused or not is_reached(state.due, now):
            return
        batch: list[Snapshot] = []
        cursor, more = state.cursor, True
        try:
            while more and len(batch) < self.engine.tuning.batch_records:
                fetched = self._fetch(cursor)
                batch += fetched.snapshots()
                cursor, more = fetched.page.cursor, fetched.page.more
        except CursorExpired:
            return  # this run, or the next one, reads everything
        # No work of this run: who asks what that did, or takes it back, means none of it.
        through = self.engine.new_run(self.job.connection, self.job.entity, "incremental", "schedule")
        with bound(run=through.id):
            changes = self.applier = self._plain(through.id)
            self._braked(brake.judge_batch, changes, batch)
            changes.apply(batch)
            told = self._told_through(
                replace(through, counts=changes.tally.counts(), read=len(batch), done=cursor)
            )
        self.run = replace(self.run, through=added(self.run.through, changes.tally.counts()))
        known, _ = self._sums(changes)
        now = self.engine.clock.now()
        if not more:
            told |= {"due": next_due(self.opened.connection.schedule, now), "last_success": hub_time(now)}
        self._save_state(cursor=cursor, known=known, lease_until=self._lease_end(), **told)
        applier.checkpointed(known)
        self.applier = applier

    def _told_through(self, run: Run) -> dict[str, Any]:
        """The row of what was let through, if that changed something, as one of the schedule has; gives what the state row
        says of it.
        """
        if not any(amount for name, amount in run.counts.items() if name != "unchanged"):
            return {}
        now = hub_time(self.engine.clock.now())
        ended = replace(run, status="succeeded", started_at=run.created_at, ended_at=now)
        self.engine.runs.insert(self.job.tenant, ended)
        failures.begun(ended)
        failures.told(ended)
        return {"last_run": ended.id}


def added(counts: Mapping[str, int], more: Mapping[str, int]) -> dict[str, int]:
    """Sums by name."""
    return {**counts, **{name: counts.get(name, 0) + amount for name, amount in more.items()}}
