"""A push run: looks at every record of an entity for a connection that is to have more of them than before.

It writes nothing anywhere: it opens the items that pushes work off, as the connection's configuration now says. It
begins some time after that was saved, so that no worker still inserts records by an older copy behind its back; the
state row says when, which run does it, and what is wanted until one has done it (push_runs.py).
"""

from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from datetime import timedelta
from typing import Any

from crm_core.log import Log, bind
from crm_core.model.fields import hub_time
from crm_core.model.record import Record
from crm_core.model.state import EntityState, Run
from crm_core.ports import Meter, RowChanged, measured
from crm_core.storage import layout
from crm_core.storage.records import RecordWrite, Stored
from crm_core.storage.run_log import note
from crm_core.sync import brake, entity_state, failures, watching
from crm_core.sync.draft import Draft
from crm_core.sync.engine import Engine, Job, Opened, calls_with, wake
from crm_core.sync.push_runs import OVERTAKEN, due, ended, is_outdated, wanted
from crm_core.sync.saving import portions, save
from crm_core.sync.schedule import is_reached

_log = Log("crm_core.sync")

PORTION = 500
CHANGED = (
    "The connection was changed since it began, or shortly before; another push run looks at every record"
    " by the new configuration."
)
NOTHING_PUSHED = "Nothing of the entity is pushed to the connection any more."
GONE = "The connection or its entity was deleted."


def widen(engine: Engine, job: Job, lane: str, deliveries: int = 1) -> None:  # noqa: ARG001  # a handler's parameters
    """Works on one slice of a push run; what is not done continues in another message."""
    opened = engine.open(job.tenant, job.connection)
    states = engine.states.read(job.tenant, job.connection) if opened else None
    run = engine.runs.get(job.tenant, job.run) if job.run else None
    state = states.entities.get(job.entity) if states else None
    with measured() as meter, suppress(RowChanged):  # whoever has the row goes on
        if opened is None or state is None:
            if run is not None and not run.ended:
                failures.end_run(engine, job.tenant, run, "NotFound", GONE)
            return
        sync = opened.connection.entities.get(job.entity)
        if sync is None or not sync.pushes:
            _nothing_to_do(engine, job, state, run)
            return
        if run is not None and is_outdated(state, run, engine.clock.now()):
            over = failures.end_run(engine, job.tenant, run, OVERTAKEN, CHANGED)
            state = _close(engine, job, state, over) if state.push_run == run.id else state
            job, run = replace(job, run=""), None  # by the new configuration, now
        if _may_work(engine, job, opened, state, run):
            _Widen(engine, job, lane, opened, state, run, meter).work()


def _may_work(engine: Engine, job: Job, opened: Opened, state: EntityState, run: Run | None) -> bool:
    """Whether there is work for a message; sees to what a worker left that died, or was overtaken."""
    if run is None:
        # One that comes twice finds that nothing is due any more, or another one at work.
        named = state.push_run in ("", job.run)
        return named and is_reached(due(state), engine.clock.now()) and not opened.connection.paused
    if run.ended:
        if state.push_run == run.id:
            _close(engine, job, state, run)
        return False
    if run.status == "stopped":
        return False
    if state.stopped_run:  # one that began to wait before that fails; its caller may ask again
        message = brake.stands_in_the_way(job.entity, state.stopped_run)
        failures.end_run(engine, job.tenant, run, brake.CODE, message)
        return False
    if run.started_at and state.push_run != run.id:
        _end_overtaken(engine, job, state, run)
        return False
    return True


def _nothing_to_do(engine: Engine, job: Job, state: EntityState, run: Run | None) -> None:
    """Nothing of the entity is pushed any more."""
    if run is not None and not run.ended:
        failures.end_run(engine, job.tenant, run, OVERTAKEN, NOTHING_PUSHED)
    if is_reached(due(state), engine.clock.now()):
        none = replace(state, push_wanted="", push_due="", push_run="")
        engine.states.save_entity(job.tenant, job.connection, job.entity, none)


def _end_overtaken(engine: Engine, job: Job, state: EntityState | None, run: Run) -> None:
    if state is None:
        failures.end_run(engine, job.tenant, run, "NotFound", GONE)
    else:
        failures.end_run(engine, job.tenant, run, OVERTAKEN, _by(state))


def _by(state: EntityState) -> str:
    return f"Push run {state.push_run} has taken its place." if state.push_run else CHANGED


class _Widen:
    def __init__(
        self,
        engine: Engine,
        job: Job,
        lane: str,
        opened: Opened,
        state: EntityState,
        run: Run | None,
        meter: Meter,
    ) -> None:
        self.engine = engine
        self.job = job
        self.uid, self.slug = opened.connection.uid, opened.connection.slug
        self.state = state
        self.meter = meter
        self.slice_end = engine.slice_end(lane)
        self.run = run or self._new_run()
        self.calls = dict(self.run.calls)
        self.has_row = False
        """Once the state row has named this run in this slice."""
        bind(run=self.run.id)

    def _new_run(self) -> Run:
        """In no row yet: who dies before it has one leaves nothing but its name in the state row."""
        return self.engine.new_run(
            self.job.connection, self.job.entity, "push", "schedule", trace=self.job.trace
        )

    def work(self) -> None:
        try:
            self._work()
        except RowChanged:
            self._look_who_has_it()

    def _look_who_has_it(self) -> None:
        """Another worker of this run, who goes on; or another run, and then this one has ended."""
        state = entity_state.find(self.engine, self.job)
        if self.has_row and (state is None or state.push_run != self.run.id):
            _end_overtaken(self.engine, self.job, state, self.run)

    def _work(self) -> None:
        now = self.engine.clock.now()
        if self.state.push_run == self.run.id:
            self.has_row = True
        self._take()
        if not self.run.started_at:
            failures.begun(self.run)
        self._save(status="running", started_at=self.run.started_at or hub_time(now))
        first = self.run.cursor["bucket"] if self.run.cursor else 0
        for number in range(first, len(layout.BUCKETS)):
            try:
                self._bucket(layout.BUCKETS[number])
            except brake.Stopped as stopped:
                self._stop(stopped)
                return
            self._save(cursor={"bucket": number + 1})
            self._keep()
            if self.engine.clock.monotonic() >= self.slice_end and number + 1 < len(layout.BUCKETS):
                self._save(slices=self.run.slices + 1)
                failures.goes_on(self.run)
                self.engine.send(layout.BULK, replace(self.job, run=self.run.id, attempt=0))
                return
        self._save(status="succeeded", ended_at=hub_time(self.engine.clock.now()), cursor=None, problem=None)
        failures.told(self.run)
        _close(self.engine, self.job, self.state, self.run)

    def _take(self) -> None:
        """The row names this run; the one that it named until now has ended."""
        before = self.state.push_run

        def taken(state: EntityState) -> EntityState:
            nonlocal before
            before = state.push_run
            return replace(state, push_run=self.run.id, push_wanted=wanted(state), push_due=self._lease_end())

        self._save_state(taken)
        self.has_row = True
        left = self.engine.runs.get(self.job.tenant, before) if before not in ("", self.run.id) else None
        if left is not None and not left.ended and left.status != "stopped":
            with suppress(
                RowChanged
            ):  # its worker has just saved it, and sees that the row names another one
                _end_overtaken(self.engine, self.job, self.state, left)
        if not self.run.etag:
            watching.watch(self.engine, self.job.tenant, self.run.id, watching.LOST_SECONDS)
            self.run = self.engine.runs.insert(self.job.tenant, self.run)

    def _bucket(self, bucket: str) -> None:
        """Every record of a bucket as its connections now want it."""
        engine, tenant, entity = self.engine, self.job.tenant, self.job.entity
        todo = engine.records.scan(tenant, entity, bucket)
        for portion in portions(todo, PORTION):
            left = portion
            while left:
                saved = save(engine, tenant, entity, self._writes(left))
                wake(engine, tenant, entity, saved.wakes)
                again = (engine.records.get(tenant, entity, each) for each in saved.stale)
                left = [each for each in again if each is not None]

    def _writes(self, portion: list[Stored]) -> list[RecordWrite]:
        config = self.engine.sides(self.job.tenant, self.job.entity)
        found = []
        made = 0
        for stored in portion:
            if not isinstance(stored.content, Record):
                continue
            after = Draft(stored.content, config).finished()
            link, before = after.links.get(self.uid), stored.content.links.get(self.uid)
            made += link is not None and before is None
            if after is not stored.content:
                found.append(RecordWrite(stored.id, stored, after))
        created = self.run.counts.get("created", 0)
        brake.judge_creates(self.engine.tuning, self.run, created, made, self.state.known, self.slug)
        self.run = replace(
            self.run,
            read=self.run.read + len(portion),
            counts={**self.run.counts, "created": created + made},
        )
        return found

    def _keep(self) -> None:
        """Says that a worker is at it; one that dies is followed by another after the lease."""
        self._save_state(lambda state: replace(state, push_due=self._lease_end()))

    def _lease_end(self) -> str:
        return hub_time(self.engine.clock.now() + timedelta(seconds=self.engine.tuning.lease_seconds))

    def _save_state(self, change: Callable[[EntityState], EntityState]) -> None:
        """Over what pulls, and changes of configuration, have saved in it. Raises RowChanged if it names another run than
        before; only one that a person asked for takes the row from any.
        """
        self.state = entity_state.save(self.engine, self.job, self.state, change, self._over)

    def _over(self, found: EntityState) -> EntityState | None:
        if self.has_row:
            return found if found.push_run == self.run.id else None
        by_hand = bool(self.run.etag)
        as_it_was = (found.push_run, due(found)) == (self.state.push_run, due(self.state))
        return found if by_hand or as_it_was else None

    def _save(self, **changes: Any) -> None:
        calls = calls_with(self.calls, self.meter)
        run = replace(self.run, calls=calls, **changes)
        self.run = self.engine.runs.save(self.job.tenant, run)

    def _stop(self, stopped: brake.Stopped) -> None:
        now = hub_time(self.engine.clock.now())
        self._save(status="stopped", problem=stopped.problem(self.run, now))
        self._save_state(
            lambda state: replace(
                state, push_due="", push_run="", stopped_run=self.run.id, problem=self.run.problem
            )
        )
        assert self.run.problem is not None
        note("run.stopped", self.run.problem.message, "warning", run=self.run.id)
        _log.warning("run stopped", creates=stopped.amount, known=stopped.known, limit=stopped.limit)


def _close(engine: Engine, job: Job, state: EntityState, run: Run) -> EntityState:
    """The state row names it no more."""
    now = engine.clock.now()
    return entity_state.save(
        engine,
        job,
        state,
        lambda state: replace(ended(state, run, now), last_run=run.id),
        lambda found: found if found.push_run == state.push_run else None,
    )
