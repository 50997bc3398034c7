"""What the slices of plans, and of what sends one, share: the run's row is all that they save."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from crm_core.connector import Cursor
from crm_core.model.fields import hub_time, parse_instant
from crm_core.model.state import Run
from crm_core.storage.plans import Digest
from crm_core.sync import failures
from crm_core.sync.engine import Engine, Job, Opened
from crm_core.sync.planning.deciding import Told
from crm_core.sync.planning.figures import Telling, forecast
from crm_core.sync.pulling.base import PullBase

NO_PLAN = "The plan is not kept any more; make another one."


class PlanBase(PullBase):
    """Whoever saved the run's row has the run: a worker that is too late gets RowChanged and stops."""

    def __init__(
        self, engine: Engine, job: Job, lane: str, opened: Opened, *rest: Any, careful: bool
    ) -> None:
        super().__init__(engine, job, lane, opened, *rest, careful=careful)
        self.saved = self.run
        """As its row says: what a failure goes back to."""
        self._begin_telling()

    def _begin_telling(self) -> None:
        self.telling = Telling(self.engine, self.job, self.run)

    def counted(self) -> Run:
        """The run as it was saved last, with the calls made since."""
        return replace(self.saved, calls=self._counted().calls)

    def _begin_run(self, **changes: Any) -> None:
        """Of a slice that is the first."""
        now = hub_time(self.engine.clock.now())
        self.run = replace(self.run, status="running", started_at=now, **changes)
        self._save_run(replace(self.run, expected=self._expected()))
        failures.begun(self.run)

    def _tell(self, told: Sequence[Told], kept: list[Digest]) -> None:
        for decision, digests in told:
            self.telling.tell(decision, digests)
        self.telling.note(kept)

    def _with_figures(self) -> Run:
        told = self.telling.saved()
        counts = self.telling.figures.counts(self.run.read)
        return replace(self._counted(), plan=told, counts=counts, problem=None)

    def _save_run(self, run: Run) -> None:
        self.saved = self.engine.runs.save(self.job.tenant, run)
        # The calls are those of the slices before: this one's are counted anew at each save.
        self.run = replace(self.saved, calls=self.run.calls)

    def _succeed(self, cursor: Cursor | None) -> None:
        now = self.engine.clock.now()
        seconds = (now - parse_instant(self.run.started_at)).total_seconds()
        ended = replace(
            self._with_figures(), status="succeeded", ended_at=hub_time(now), done=cursor, cursor=None
        )
        if ended.mode == "plan":
            expected = forecast(self.engine, self.job.tenant, ended, seconds)
            ended = replace(ended, plan={**ended.plan, **expected})
        self._save_run(ended)
        failures.told(ended)
