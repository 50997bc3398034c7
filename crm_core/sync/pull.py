"""Pull: from a remote feed into the records, page by page, under the lease of the entity's state row.

The order of I/O is that of docs/architecture.md: the first page is fetched before the lease is taken, so that a pull
with nothing new costs one read and one write; a checkpoint is saved only after its batch is applied; whoever loses
the row's ETag stops.
"""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from functools import partial
from typing import Any

from crm_core.connector import Cursor, Page
from crm_core.errors import CursorExpired, HubError, StoreUnavailable, VendorError
from crm_core.log import Log, bind, current_trace
from crm_core.model.entities import ENTITIES
from crm_core.model.fields import hub_time, seconds_until
from crm_core.model.filters import parse_filter
from crm_core.model.state import COUNTS, EntityState, Run
from crm_core.ports import Future, Meter, RowChanged, RowExists, measured
from crm_core.storage import layout
from crm_core.storage.state import States
from crm_core.sync import brake, compare, failures, gaps
from crm_core.sync.apply import Applier
from crm_core.sync.engine import Engine, Job, Opened, wake
from crm_core.sync.merge import Snapshot
from crm_core.sync.schedule import is_due, is_reached, lapsed, next_due

_log = Log("crm_core.sync")

CAREFUL_DELIVERY = 3
"""From this delivery of a message on, records are applied one by one, so that one that raises does not stop the rest."""
WAIT_FOR_LEASE_SECONDS = 15.0
WAIT_AFTER_RACE_SECONDS = 2.0


@dataclass(frozen=True)
class Fetched:
    """A page and the hub times around its request."""

    page: Page
    lo: str
    hi: str

    def snapshots(self) -> list[Snapshot]:
        return [Snapshot(change, self.lo, self.hi) for change in self.page.changes]


def pull(engine: Engine, job: Job, lane: str, deliveries: int = 1) -> None:
    """Works on one slice of a pull; what is not done continues in another message.

    Raises what is a bug or trouble of our own storage; the message then comes again. Failures of the remote system
    are recorded where people see them, and do not raise.
    """
    opened = engine.open(job.tenant, job.connection)
    states = engine.states.read(job.tenant, job.connection) if opened else None
    run = engine.runs.get(job.tenant, job.run) if job.run else None
    if opened is None or states is None or job.entity not in states.entities:
        if run is not None and not run.ended:
            failures.end_run(engine, job.tenant, run, "NotFound", "The connection or its entity was deleted.")
        return
    if run is not None and run.ended and states.entities[job.entity].lease_run != run.id:
        return
    with measured() as meter:
        _Pull(engine, job, lane, opened, states, run, meter, careful=deliveries >= CAREFUL_DELIVERY).work()


class _Pull:
    def __init__(
        self,
        engine: Engine,
        job: Job,
        lane: str,
        opened: Opened,
        states: States,
        run: Run | None,
        meter: Meter,
        *,
        careful: bool,
    ) -> None:
        self.engine = engine
        self.job = job
        self.opened = opened
        self.states = states
        self.state: EntityState = states.entities[job.entity]
        self.stored_run = run is not None
        self.meter = meter
        self.careful = careful
        self.slice_end = engine.slice_end(lane)
        self.run = run or self._scheduled_run()
        self.applier: Applier | None = None
        self.first: Fetched | None = None
        """Taken out when it is read: whoever kept it would keep a page in memory to the end of the run."""
        bind(run=self.run.id)

    def _scheduled_run(self) -> Run:
        """A run of the schedule has no row before it changes something. A lease that lapsed keeps its run's id."""
        now = self.engine.clock.now()
        run_id = self.job.run or layout.newest_first(int(now.timestamp() * 1000), self.engine.ids.uuid())
        return Run(
            run_id, self.job.connection, self.job.entity, origin="schedule", created_at=hub_time(now),
            trace=self.job.trace or current_trace(),
        )  # fmt: skip

    def work(self) -> None:
        now = self.engine.clock.now()
        if self._is_over() or not self._may_begin(now):
            return
        if not self.run.started_at:
            fresh = self.state.cursor is None and self.state.known == 0
            self.run = replace(self.run, status="running", started_at=hub_time(now), fresh_start=fresh)
        if self._from_the_cursor and self.state.cursor is None and self.state.begun:
            # A first load left records and no cursor; what was deleted since then only a comparison shows.
            self.run = replace(self.run, mode="full")
        try:
            if self._end_lapsed():
                self._pull()
        except StoreUnavailable:
            raise
        except brake.Stopped as stopped:
            self._stop(stopped)
        except RowChanged:
            self._look_again()
            self._overtaken()
        except HubError as error:
            failures.pull_failed(
                self.engine, self.job, self.opened, self.states, self.state, self._counted(), error
            )

    def _is_over(self) -> bool:
        """Whether the run has ended, was stopped, or can't begin; sees to what that leaves to be done."""
        if self.run.ended:
            self._finish_ended()
        elif self.run.status == "stopped":
            self._finish_stopped()
        elif self.state.stopped_run:
            self._stand_back(self.state.stopped_run)
        elif self.stored_run and not self._promised and self.state.lease_run != self.run.id:
            self._end_overtaken()  # it lost its lease in a pause, before it saved its row
        else:
            return False
        return True

    def _pull(self) -> None:
        if not self._comparing():
            self.first = self._first_page()
            if self._is_idle(self.first.page):
                self._succeed(self.first.page.cursor)
                return
        self._take_lease()
        self._read_and_compare()

    def _may_begin(self, now: datetime) -> bool:
        promised = self._promised
        wait = seconds_until(self.states.connection.not_before, now)
        held = self.state.lease_run not in ("", self.run.id) and not lapsed(self.state, now)
        if wait > 0 or held:
            if promised:
                self.engine.send(layout.FRESH, self.job, max(wait, WAIT_FOR_LEASE_SECONDS if held else 0.0))
            return False
        if self.opened.connection.paused and not promised:
            return False
        # A message of the schedule that comes twice finds the row not due any more.
        ours = self.state.lease_run == self.run.id
        if not (promised or ours or is_due(self.state, now)):
            return False
        if self.states.connection.health != "unreachable" or self._may_probe():
            return True
        if promised or ours:
            self.engine.send(layout.FRESH, self.job, failures.PROBE_SECONDS)
        return False

    def _may_probe(self) -> bool:
        """A system that does not answer is asked by one worker at a time, whichever entities and runs are waiting."""
        probing = failures.probe(self.engine, self.job, self.states)
        if probing is None:
            return False
        self.states = probing
        return True

    def _end_lapsed(self) -> bool:
        """Another run's lapsed lease is taken over: nobody comes back for the row of one of the schedule, and one
        that a caller was told of may have no message any more. False if the brake stopped it: nothing begins then.
        """
        if self.state.lease_run in ("", self.run.id):
            return True
        left = self.engine.runs.get(self.job.tenant, self.state.lease_run)
        if left is None or left.ended:
            return True
        if left.status == "stopped":
            self._name_stopped(left)
            self._stand_back(left.id)
            return False
        if not left.owed:
            failures.end_run(
                self.engine, self.job.tenant, left, "Overtaken", "Its worker died; another run went on."
            )
        else:
            again = replace(self.job, run=left.id, attempt=0, trace=left.trace or self.job.trace)
            self.engine.send(layout.FRESH, again, WAIT_FOR_LEASE_SECONDS)
        return True

    # --- reading -------------------------------------------------------------------------------------------------

    def _finish_ended(self) -> None:
        """The worker died after its run's row said so and before the state row did."""
        try:
            if self.run.status == "succeeded" and self.run.done is not None:
                self._close(self.run.done)
            else:
                failures.release_lease(self.engine, self.job)
        except RowChanged:
            return  # another worker has seen to it

    def _finish_stopped(self) -> None:
        """The worker died after its run's row said so and before the state row did; or the message came twice."""
        if self.state.stopped_run == self.run.id:
            return
        if self.state.lease_run != self.run.id:
            self._end_overtaken()
            return
        with suppress(RowChanged):  # another worker has seen to it
            self._name_stopped(self.run)

    def _stand_back(self, stopped: str) -> None:
        """The brake stopped a run of this entity. One that began to wait before that fails; its caller may ask again."""
        if self.stored_run and self.run.id != stopped:
            message = brake.stands_in_the_way(self.job.entity, stopped)
            with suppress(RowChanged):  # it has ended
                failures.end_run(self.engine, self.job.tenant, self.run, brake.CODE, message)

    def _look_again(self) -> None:
        if self.applier is None or not self.applier.made:
            return
        try:
            self.applier.look_again()
        except VendorError as error:
            _log.warning("overtaken run could not look again", error=error.code)

    def _overtaken(self) -> None:
        """Another worker has the row: what we applied is applied, the cursor is theirs.

        If it works for another run, ours is still owed to its caller and comes again later; one of the schedule is over.
        """
        states = self.engine.states.read(self.job.tenant, self.job.connection)
        state = states.entities.get(self.job.entity) if states else None
        if state is None or state.lease_run == self.run.id:
            return
        if self._promised:
            self.engine.send(layout.FRESH, replace(self.job, run=self.run.id), WAIT_AFTER_RACE_SECONDS)
        elif self.stored_run:
            self._end_overtaken()

    def _end_overtaken(self) -> None:
        with suppress(RowChanged):  # it has ended
            failures.end_run(self.engine, self.job.tenant, self.run, "Overtaken", "Another run has gone on.")

    @property
    def _promised(self) -> bool:
        """A caller was told of this run."""
        return self.stored_run and self.run.owed

    @property
    def _from_the_cursor(self) -> bool:
        """It goes on from the entity's place in the feed, and moves it."""
        return self.run.mode == "incremental" and not self.run.partial

    def _is_idle(self, page: Page) -> bool:
        """Nothing has changed since the cursor: no lease is needed, one conditional write says so."""
        return self._from_the_cursor and not self.run.slices and not page.changes and not page.more

    def _comparing(self) -> bool:
        return bool(self.run.cursor and "compare" in self.run.cursor)

    def _cursor(self) -> Cursor | None:
        if self._from_the_cursor:
            return self.state.cursor
        return self._beginning() if self.run.partial and self.run.cursor is None else self.run.cursor

    def _beginning(self) -> Cursor:
        where = parse_filter(self.run.filter) if self.run.filter else None
        return self.opened.connector.begin(self.job.entity, since=self.run.since, where=where)

    def _first_page(self) -> Fetched:
        try:
            return self._fetch(self._cursor())
        except CursorExpired:
            if self.run.partial:
                self.run = replace(self.run, cursor=None, read=0)
                return self._fetch(self._beginning())
            # The place in the feed is lost: this run reads everything, and compares ids for deletes.
            self.run = replace(self.run, mode="full", cursor=None, read=0, seen=0)
            return self._fetch(None)

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
            if self.run.mode == "incremental":
                self._succeed(cursor)
                return
            self.run = replace(self.run, cursor={"compare": 0, "live": 0, "done": cursor})
            brake.judge_whole(applier, self.run)
        assert self.run.cursor is not None
        done: Mapping[str, Any] = self.run.cursor["done"]
        live: int = self.run.cursor["live"]
        for number in range(self.run.cursor["compare"], len(layout.BUCKETS)):
            judge = partial(brake.judge, applier, self.run)
            live += compare.delete_missing(applier, self.run, layout.BUCKETS[number], judge)
            self._checkpoint(applier, {"compare": number + 1, "live": live, "done": done})
            self._let_changes_through(applier)
            if self._time_is_up() and number + 1 < len(layout.BUCKETS):
                self._continue()  # after a step, so that however short a slice is it gets further
                return
        compare.forget(self.engine, self.job.tenant, self.run)
        self.state = replace(
            self.state, known=live
        )  # counted, where a crash can have made the running sum wrong
        self._succeed(done)

    def _applier(self) -> Applier:
        return Applier(
            self.engine,
            self.job.tenant,
            ENTITIES[self.job.entity],
            self.opened,
            self.run.id,
            # Once a load was done there may be rows of ours among those that are read.
            fresh=self.run.fresh_start and not self.state.last_success,
            known=self.state.known,
            careful=self.careful,
            whole=self.run.mode == "full",
            keep_lease=self._keep_lease,
            watch=self._from_the_cursor and gaps.counted(self.opened, self.state),
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
            batch.extend(fetched.snapshots())
            stop = self._time_is_up()
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
                if page.more:
                    self._continue()
                    return None
                return page.cursor
            fetched = following.result()

    def _apply(self, batch: list[Snapshot], applier: Applier) -> None:
        brake.judge_batch(applier, self.run, batch)
        if self.run.mode == "full":
            self.run = compare.remember(applier, self.run, batch)
        applier.apply(batch)
        self.run = replace(self.run, read=self.run.read + len(batch))

    def _let_changes_through(self, applier: Applier) -> None:
        """A run that reads everything, or another part, has the lease for long. What changed since the entity's cursor
        is read in between when that is due, so that nobody's edit waits for the end of the run; a batch at a time, so
        that the run does not wait for a busy system either.
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
        brake.judge_batch(applier, self.run, batch)
        applier.apply(batch)
        known, counts = self._sums(applier)
        now = self.engine.clock.now()
        ended = (
            {}
            if more
            else {"due": next_due(self.opened.connection.schedule, now), "last_success": hub_time(now)}
        )
        self._save_state(cursor=cursor, known=known, lease_until=self._lease_end(), **ended)
        self.run = replace(self.run, counts=counts)
        applier.checkpointed(known)

    def _time_is_up(self) -> bool:
        return self.engine.clock.monotonic() >= self.slice_end

    # --- saving --------------------------------------------------------------------------------------------------

    def _lease_end(self) -> str:
        return hub_time(self.engine.clock.now() + timedelta(seconds=self.engine.tuning.lease_seconds))

    def _save_state(self, **changes: Any) -> None:
        self.state = self.engine.states.save_entity(
            self.job.tenant, self.job.connection, self.job.entity, replace(self.state, **changes)
        )

    def _keep_lease(self) -> None:
        """Renews the lease when a third of it is over, so that a long batch is not taken for a dead worker."""
        now = self.engine.clock.now()
        left = seconds_until(self.state.lease_until, now)
        if left < self.engine.tuning.lease_seconds * 2 / 3:
            self._save_state(lease_until=self._lease_end())

    def _take_lease(self) -> None:
        self._save_state(lease_run=self.run.id, lease_until=self._lease_end(), begun=True)
        if self.run.mode == "full" and not self._comparing():
            self.run = compare.begin_part(self.run, self.engine.ids.uuid())
        if self._promised:
            self._save_run(self.run)  # says "running" to whoever follows it

    def _checkpoint(self, applier: Applier, cursor: Cursor) -> None:
        """Saves how far we are, after the batch before it is applied, and renews the lease."""
        known, counts = self._sums(applier)
        if self._from_the_cursor:
            told = self._gaps(applier.news)
            self._save_state(cursor=cursor, known=known, lease_until=self._lease_end(), **told)
            self.run = replace(self.run, counts=counts)
        else:
            self._save_state(known=known, lease_until=self._lease_end())
            self.run = replace(self.run, counts=counts, cursor=cursor)
        applier.checkpointed(known)
        if self.stored_run or any(counts[name] for name in COUNTS if name != "unchanged"):
            self._save_run(self._counted())

    def _gaps(self, news: Sequence[tuple[str, str]]) -> Mapping[str, Any]:
        """What the state row says of webhooks that did not come."""
        return gaps.judged(
            self.engine, self.opened, self.states.connection, self.job.entity, self.state, news
        )

    def _sums(self, applier: Applier) -> tuple[int, dict[str, int]]:
        """How many records live at the connection, and the run's counts, with what was done since the last checkpoint."""
        tally = applier.tally
        counts = {name: self.run.counts.get(name, 0) + getattr(tally, name) for name in COUNTS}
        return max(0, self.state.known + tally.known), counts

    def _counted(self) -> Run:
        """The run with the calls made so far in this slice."""
        calls = {
            name: self.run.calls.get(name, 0) + self.meter.total(f"{name}_calls")
            for name in ("remote", "storage")
        }
        return replace(self.run, calls=calls)

    def _save_run(self, run: Run) -> None:
        runs = self.engine.runs
        if not self.stored_run:
            try:
                etag = runs.insert(self.job.tenant, run).etag
            except RowExists:
                raise RowChanged from None
            self.stored_run = True
        else:
            etag = runs.save(self.job.tenant, run).etag
        self.run = replace(self.run, etag=etag)

    def _continue(self) -> None:
        """The rest is for another message, which takes the lease over by the run's id."""
        self.run = replace(self.run, slices=self.run.slices + 1)
        self._save_run(self._counted())
        self.engine.send(layout.BULK, replace(self.job, run=self.run.id, attempt=0))

    def _stop(self, stopped: brake.Stopped) -> None:
        """The run's row first, as at its end: a worker that dies in between leaves a lease, and whoever takes it over
        finds the run stopped.
        """
        assert self.applier is not None
        now = hub_time(self.engine.clock.now())
        known, counts = self._sums(self.applier)
        self.run = replace(self.run, status="stopped", counts=counts, problem=stopped.problem(self.run, now))
        try:
            self._save_run(self._counted())
            self._name_stopped(self.run, known=known)
        except RowChanged:
            self._look_again()
            self._overtaken()
            return
        what = {"creates" if stopped.creates_at else "deletes": stopped.amount}
        _log.warning("run stopped", **what, known=stopped.known, limit=stopped.limit)

    def _name_stopped(self, run: Run, **changes: Any) -> None:
        """Gives the lease back and lets no run begin before a person has decided about the stopped one."""
        self._save_state(lease_run="", lease_until="", stopped_run=run.id, problem=run.problem, **changes)

    def _succeed(self, cursor: Cursor) -> None:
        """The run's row first: a worker that dies in between leaves a lease, which the tick gives back."""
        now = self.engine.clock.now()
        if self.stored_run:
            counts = {name: self.run.counts.get(name, 0) for name in COUNTS}
            self.run = replace(
                self.run, status="succeeded", ended_at=hub_time(now), done=cursor, cursor=None, counts=counts
            )
            ended = self._counted()
            self._save_run(ended)
            failures.told(ended)
        self._close(cursor)

    def _close(self, cursor: Cursor) -> None:
        now = self.engine.clock.now()
        ended: dict[str, Any] = {"lease_run": "", "lease_until": ""}
        if not self.run.partial:  # one that read a part says nothing of the rest
            ended |= {
                "waits": False,
                "problem": None,
                "cursor": cursor,
                "due": next_due(self.opened.connection.schedule, now),
                "last_success": self.run.ended_at or hub_time(now),
                **self._gaps(()),
            }
        if self.stored_run:
            ended["last_run"] = self.run.id
        first_load = not self.state.last_success and not self.run.partial
        self._save_state(**ended)
        if first_load and self.opened.connection.entities[self.job.entity].pushes:
            # What the hub has and the remote has not was held back until all of it was read.
            places = [(self.job.connection, bucket) for bucket in layout.BUCKETS]
            wake(self.engine, self.job.tenant, self.job.entity, places)
        failures.recovered(self.engine, self.job, self.states.connection)
