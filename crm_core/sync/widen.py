"""A push run: looks at every record of an entity for a connection that is to have more of them than before.

It writes nothing anywhere: it opens the items that pushes work off, as the connection's configuration now says. It
begins some time after that was saved, so that no worker still inserts records by an older copy behind its back; the
state row says when, and which run does it.
"""

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
from crm_core.sync import brake, failures
from crm_core.sync.draft import Draft
from crm_core.sync.engine import Engine, Job, Opened, calls_with, wake
from crm_core.sync.saving import portions, save

_log = Log("crm_core.sync")

PORTION = 500


def widen(engine: Engine, job: Job, lane: str, deliveries: int = 1) -> None:  # noqa: ARG001  # a handler's parameters
    """Works on one slice of a push run; what is not done continues in another message."""
    opened = engine.open(job.tenant, job.connection)
    states = engine.states.read(job.tenant, job.connection) if opened else None
    run = engine.runs.get(job.tenant, job.run) if job.run else None
    state = states.entities.get(job.entity) if states else None
    if opened is None or state is None:
        if run is not None and not run.ended:
            failures.end_run(engine, job.tenant, run, "NotFound", "The connection or its entity was deleted.")
        return
    if run is not None and (run.ended or run.status == "stopped"):
        if run.ended and state.push_run == run.id:
            with suppress(RowChanged):  # another worker has seen to it, or the next one will
                _close(engine, job, state, run)
        return
    if opened.connection.paused and run is None:
        return
    with measured() as meter, suppress(RowChanged):  # whoever has the row goes on
        _Widen(engine, job, lane, opened, state, run, meter).work()


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
        bind(run=self.run.id)

    def _new_run(self) -> Run:
        run = self.engine.new_run(
            self.job.connection, self.job.entity, "push", "schedule", trace=self.job.trace
        )
        return self.engine.runs.insert(self.job.tenant, run)

    def work(self) -> None:
        now = self.engine.clock.now()
        self._keep(push_run=self.run.id)
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

    def _keep(self, **changes: Any) -> None:
        """Says that a worker is at it; one that dies is followed by another after the lease."""
        until = hub_time(self.engine.clock.now() + timedelta(seconds=self.engine.tuning.lease_seconds))
        self.state = self.engine.states.save_entity(
            self.job.tenant,
            self.job.connection,
            self.job.entity,
            replace(self.state, push_due=until, **changes),
        )

    def _save(self, **changes: Any) -> None:
        calls = calls_with(self.calls, self.meter)
        run = replace(self.run, calls=calls, **changes)
        self.run = self.engine.runs.save(self.job.tenant, run)

    def _stop(self, stopped: brake.Stopped) -> None:
        now = hub_time(self.engine.clock.now())
        self._save(status="stopped", problem=stopped.problem(self.run, now))
        self.state = self.engine.states.save_entity(
            self.job.tenant,
            self.job.connection,
            self.job.entity,
            replace(self.state, push_due="", push_run="", stopped_run=self.run.id, problem=self.run.problem),
        )
        assert self.run.problem is not None
        note("run.stopped", self.run.problem.message, "warning", run=self.run.id)
        _log.warning("run stopped", creates=stopped.amount, known=stopped.known, limit=stopped.limit)


def _close(engine: Engine, job: Job, state: EntityState, run: Run) -> None:
    """The state row names it no more."""
    engine.states.save_entity(
        job.tenant, job.connection, job.entity, replace(state, push_due="", push_run="", last_run=run.id)
    )
