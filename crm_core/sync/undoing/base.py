"""What the slices of an undo share: the run's row is all that they save, with what was told until then.

A worker that is too late gets RowChanged and stops: whoever saved the run's row has the run.
"""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from crm_core.model.connection import Tenant
from crm_core.model.fields import hub_time
from crm_core.model.state import Problem, Run
from crm_core.ports import Meter
from crm_core.storage import layout
from crm_core.sync import failures
from crm_core.sync.engine import Engine, Job, calls_with
from crm_core.sync.planning.figures import Telling


def parts_of(engine: Engine, tenant: Tenant, run: Run) -> list[Run]:
    """A run, with those that it is the parent of."""
    return [run, *filter(None, (engine.runs.get(tenant, each) for each in run.children))]


def changes_made(parts: Iterable[Run]) -> int:
    """How many changes of records a run has counted."""
    return sum(
        each.counts.get(name, 0)
        for each in parts
        if not each.children
        for name in ("created", "updated", "deleted")
    )


class Slice:
    """One slice."""

    def __init__(self, engine: Engine, job: Job, lane: str, run: Run, meter: Meter) -> None:
        self.engine = engine
        self.job = job
        self.run = run
        self.meter = meter
        self.calls = dict(run.calls)
        self.slice_end = engine.slice_end(lane)
        self.telling = Telling(engine, job, run)

    def counts(self) -> Mapping[str, int]:
        """Of the run as it is now."""
        raise NotImplementedError

    def begin(self) -> None:
        if not self.run.started_at:
            self.save(status="running", started_at=hub_time(self.engine.clock.now()))
            failures.begun(self.run)

    def save(self, **changes: Any) -> None:
        calls = calls_with(self.calls, self.meter)
        plan = {**self.telling.saved(), **changes.pop("plan", {})}
        run = replace(self.run, plan=plan, counts=self.counts(), calls=calls, **changes)
        self.run = self.engine.runs.save(self.job.tenant, run)

    def time_is_up(self) -> bool:
        return self.engine.clock.monotonic() >= self.slice_end

    def go_on(self, cursor: Mapping[str, Any]) -> None:
        self.save(cursor=cursor, slices=self.run.slices + 1)
        self.engine.send(layout.BULK, replace(self.job, attempt=0))

    def succeed(self, **changes: Any) -> None:
        now = hub_time(self.engine.clock.now())
        self.save(status="succeeded", ended_at=now, cursor=None, problem=None, **changes)
        failures.told(self.run)

    def fail(self, code: str, message: str, **changes: Any) -> None:
        now = hub_time(self.engine.clock.now())
        problem = Problem(code, message, now)
        self.save(status="failed", ended_at=now, cursor=None, problem=problem, **changes)
        failures.told(self.run)
