"""A plan of a pull: reads as that would, decides as that would, and writes its own run's row and parts alone.

It takes no lease, moves no cursor and tells no connection how it fared. Whoever saved the run's row has the run: a worker
that is too late stops.
"""

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import cached_property
from typing import Any

from crm_core.connector import Cursor
from crm_core.errors import HubError, StoreUnavailable
from crm_core.log import Log
from crm_core.model.entities import ENTITIES
from crm_core.model.fields import hub_time, seconds_until
from crm_core.model.state import Problem, Run
from crm_core.ports import Meter, RowChanged, measured
from crm_core.retry import Retry, decide
from crm_core.storage.plans import Digest
from crm_core.storage.state import States
from crm_core.sync import brake, compare, failures, watching
from crm_core.sync.apply import Applier
from crm_core.sync.engine import Engine, Job, Opened
from crm_core.sync.merge import Snapshot
from crm_core.sync.planning.base import NO_PLAN, PlanBase
from crm_core.sync.planning.deciding import Decider, Told
from crm_core.sync.planning.figures import reader
from crm_core.sync.planning.overlay import Numbers, Overlay, Unsent
from crm_core.sync.planning.pushes import PushPlan
from crm_core.sync.planning.sending import SendPlan
from crm_core.sync.pull import CAREFUL_DELIVERY
from crm_core.sync.pulling.reading import Reading

_log = Log("crm_core.sync")

ATTEMPTS = 3
"""A plan fails after so many: nothing is lost with it."""


def plan(engine: Engine, job: Job, lane: str, deliveries: int = 1) -> None:
    """Works on one slice of a plan, or of what sends one; what is not done continues in another message."""
    run = engine.runs.get(job.tenant, job.run) if job.run else None
    if run is None or run.ended:
        return
    opened = engine.open(job.tenant, job.connection)
    states = engine.states.read(job.tenant, job.connection) if opened else None
    if opened is None or states is None or job.entity not in states.entities:
        with suppress(RowChanged):  # somebody ended it
            failures.end_run(engine, job.tenant, run, "NotFound", "The connection or its entity was deleted.")
        return
    wait = seconds_until(states.connection.not_before, engine.clock.now())
    if wait > 0:
        engine.send(lane, job, wait)
        return
    if stop := _in_the_way(engine, job, opened, run):
        with suppress(RowChanged):
            failures.end_run(engine, job.tenant, run, "Conflict", stop)
        return
    careful = deliveries >= CAREFUL_DELIVERY
    with measured() as meter, suppress(RowChanged):  # it was cancelled, or another worker has it
        work = _worker(engine, job, lane, opened, states, run, meter, careful=careful)
        try:
            work.work()
        except StoreUnavailable:
            raise
        except HubError as error:
            _failed(engine, job, states, work.counted(), error)


def _in_the_way(engine: Engine, job: Job, opened: Opened, run: Run) -> str:
    """Why nothing may be sent any more, "" if it may: a plan sends nothing."""
    if run.mode != "apply":
        return ""
    if opened.connection.paused:
        slug = opened.connection.slug
        return f"The connection {slug} was paused; what is left is sent once it is resumed."
    return "" if engine.runs.get(job.tenant, run.of) else NO_PLAN


def _worker(
    engine: Engine,
    job: Job,
    lane: str,
    opened: Opened,
    states: States,
    run: Run,
    meter: Meter,
    *,
    careful: bool,
) -> "PullPlan | PushPlan | SendPlan":
    if run.mode == "apply":
        planned = engine.runs.get(job.tenant, run.of)
        assert planned is not None, "it was there just now"
        return SendPlan(engine, job, lane, opened, states, run, meter, careful=careful, plan=planned)
    kind = PushPlan if run.of == "push" else PullPlan
    return kind(engine, job, lane, opened, states, run, meter, careful=careful)


def _failed(engine: Engine, job: Job, states: States, run: Run, error: HubError) -> None:
    """The plan says what went wrong, and is tried again if that may help. The connection is not told."""
    decision = decide(error, max(job.attempt + 1, states.connection.failures + 1), engine.ids.fraction())
    again = isinstance(decision, Retry) and (not decision.counts or job.attempt + 1 < ATTEMPTS)
    delay = decision.delay if isinstance(decision, Retry) else 0.0
    failures.tell("plan failed", error, job.attempt + 1, delay if again else None)
    if not again:
        failures.end_run(engine, job.tenant, run, error.code, error.message)
        return
    problem = Problem(error.code, error.message, hub_time(engine.clock.now()))
    engine.runs.save(job.tenant, replace(run, problem=problem))
    counted = job.attempt + (isinstance(decision, Retry) and decision.counts)
    watching.come_back(engine, failures.lane_after(error), replace(job, attempt=counted), delay)


class PullPlan(PlanBase, Reading):
    """One slice of a plan of a pull. `batch`: the rows that were read and are being decided, by remote id; none are while ids
    are compared.
    """

    batch: frozenset[str] = frozenset()

    def _begin_telling(self) -> None:
        super()._begin_telling()
        # The rows that the slices before this one wrote, as it were.
        known = (each.of for each in reader(self.engine, self.job, self.run).digests() if not each.says)
        self.overlay = Overlay(self.engine.records.table, Numbers(known))

    def work(self) -> None:
        if not self.run.started_at:
            self._start()
        if not self._comparing():
            self.first = self._first_page()
            if self._compares:
                self.run = compare.begin_part(self.run, self.engine.ids.uuid())
        self._read_and_compare()

    def _apply(self, batch: list[Snapshot], applier: Applier) -> None:
        self.batch = frozenset(each.change.rid for each in batch)
        super()._apply(batch, applier)
        self.batch = frozenset()

    def _tell(self, told: Sequence[Told], kept: list[Digest]) -> None:
        super()._tell(told, kept)
        read = self.batch & {decision["remote_id"] for decision, _ in told}
        self.telling.figures.beside += len(told) - len(read)

    def _start(self) -> None:
        of, start = self.run.of, None
        if of == "incremental" and not (self.run.since or self.run.filter):
            start = self.state.cursor
            if start is None and self.state.begun and not self.run.limit:
                of = "full"  # as the pull would
        self._begin_run(start=start, of=of)

    @property
    def _compares(self) -> bool:
        return self.run.of == "full"

    def _restart(self) -> None:
        """The pull would read everything, and so does its plan, from the beginning."""
        of = self.run.of if self.run.partial else "full"
        self.run = replace(self.run, of=of, cursor=None, start=None, read=0, seen=0, plan={}, counts={})
        self._begin_telling()

    def _applier(self) -> Applier:
        return Decider(
            self.engine.over(self.overlay, Unsent()),
            self.job.tenant,
            ENTITIES[self.job.entity],
            self.opened,
            self.run.id,
            known=self.state.known,
            whole=self._compares,
            strategy=self.run.policy,
            overlay=self.overlay,
            tells=self._tell,
            wary=self.careful,
        )

    @cached_property
    def _looks(self) -> Applier:
        """Asks for the brake, of the rows as they are."""
        return self._plain(self.run.id)

    def _braked(self, judge: Callable[..., None], applier: Applier, *about: Any) -> None:
        """The brake does not stop a plan; that says where it would stop the run."""
        figures = self.telling.figures
        if figures.brakes:
            return
        self._looks.tally, self._looks.known = applier.tally, applier.known
        try:
            judge(self._looks, self.run, *about)
        except brake.Stopped as stopped:
            figures.braked(stopped)

    def _checkpoint(self, applier: Applier, cursor: Cursor) -> None:
        known = max(0, self.state.known + applier.tally.known)
        self.run = replace(self.run, cursor=cursor)
        self._save_run(self._with_figures())
        self.state = replace(self.state, known=known)
        applier.checkpointed(known)

    def _let_changes_through(self, applier: Applier) -> None:
        """It holds nobody up."""

    def _keep_lease(self) -> None:
        """It has none."""
