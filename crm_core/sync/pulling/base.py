"""The state of one slice of a pull, and how its place is kept."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any

from crm_core.connector import Cursor, Page
from crm_core.log import bind, current_trace
from crm_core.model.fields import hub_time, seconds_until
from crm_core.model.state import COUNTS, EntityState, Run
from crm_core.ports import Meter, RowChanged, RowExists
from crm_core.storage import layout
from crm_core.storage.state import States
from crm_core.sync import compare, entity_state, failures, gaps
from crm_core.sync.apply import Applier
from crm_core.sync.engine import Engine, Job, Opened, calls_with
from crm_core.sync.merge import Snapshot


@dataclass(frozen=True)
class Fetched:
    """A page and the hub times around its request."""

    page: Page
    lo: str
    hi: str

    def snapshots(self) -> list[Snapshot]:
        return [Snapshot(change, self.lo, self.hi) for change in self.page.changes]


class PullBase:
    """What every step of a pull works on."""

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

    @property
    def _promised(self) -> bool:
        """A caller was told of this run."""
        return self.stored_run and self.run.owed

    @property
    def _from_the_cursor(self) -> bool:
        """It goes on from the entity's place in the feed, and moves it."""
        return self.run.mode == "incremental" and not self.run.partial

    @property
    def _compares(self) -> bool:
        """It reads everything, and what it did not read is looked for at the end."""
        return self.run.mode == "full"

    def _expected(self) -> int:
        """About how many records it will read; -1 where nobody knows."""
        known = self.state.known if self._compares and self.state.known else -1
        return min(known, self.run.limit) if self.run.limit and known >= 0 else known

    def _comparing(self) -> bool:
        return bool(self.run.cursor and "compare" in self.run.cursor)

    def _time_is_up(self) -> bool:
        return self.engine.clock.monotonic() >= self.slice_end

    # --- saving --------------------------------------------------------------------------------------------------

    def _lease_end(self) -> str:
        return hub_time(self.engine.clock.now() + timedelta(seconds=self.engine.tuning.lease_seconds))

    def _save_state(self, **changes: Any) -> None:
        before = self.state
        self.state = entity_state.save(
            self.engine,
            self.job,
            before,
            lambda state: replace(state, **changes),
            lambda found: entity_state.beside_push_runs(found, before),
        )

    def _keep_lease(self) -> None:
        """Renews the lease when a third of it is over, so that a long batch is not taken for a dead worker."""
        now = self.engine.clock.now()
        left = seconds_until(self.state.lease_until, now)
        if left < self.engine.tuning.lease_seconds * 2 / 3:
            self._save_state(lease_until=self._lease_end())

    def _take_lease(self) -> None:
        self._save_state(lease_run=self.run.id, lease_until=self._lease_end(), begun=True)
        if self._compares and not self._comparing():
            self.run = compare.begin_part(self.run, self.engine.ids.uuid())
        if self._promised:
            if not self.run.slices and not self.run.approved:
                failures.begun(self.run)
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
        return replace(self.run, calls=calls_with(self.run.calls, self.meter))

    def _save_run(self, run: Run) -> None:
        runs = self.engine.runs
        if not self.stored_run:
            try:
                etag = runs.insert(self.job.tenant, run).etag
            except RowExists:
                raise RowChanged from None
            self.stored_run = True
            failures.begun(run)
        else:
            etag = runs.save(self.job.tenant, run).etag
        self.run = replace(self.run, etag=etag)

    def _continue(self) -> None:
        """The rest is for another message, which takes the lease over by the run's id."""
        self.run = replace(self.run, slices=self.run.slices + 1)
        self._save_run(self._counted())
        failures.goes_on(self.run)
        self.engine.send(layout.BULK, replace(self.job, run=self.run.id, attempt=0))
