"""Runs that have not ended, so that one whose message was lost gets another one.

A small row for each, written before the run's own, and read by one query of the tick, says when to look at the run. Whoever
works on a run saves its row at the end of each slice at the latest, so a run whose row is the one of the last look is worked
on by nobody. A worker writes nothing for this, but where it has to wait for long; the rows of runs that have ended go with the
next look. A message too many does no harm: of two workers on one run the second to save its row stops.
"""

from datetime import datetime, timedelta

from crm_core.log import Log
from crm_core.model.connection import Tenant
from crm_core.model.fields import hub_time, seconds_until
from crm_core.model.state import Run
from crm_core.storage import layout
from crm_core.storage.ageing import drop_blobs
from crm_core.storage.state import Watched
from crm_core.sync.engine import Engine, Job

_log = Log("crm_core.sync")

BEGUN_SECONDS = 120.0
"""A run that has not begun by then may have lost its first message."""
LOST_SECONDS = 900.0
"""A run whose row has not moved for so long is worked on by nobody: longer than the host lets any function run."""
KINDS = {
    "batch": "batch",
    "export": "export",
    "plan": "plan",
    "push": "widen",
    "resolve": "resolve",
    "undo": "undo",
}
"""The job of each mode that is no pull."""


def watch(engine: Engine, tenant: Tenant, run_id: str, seconds: float = BEGUN_SECONDS) -> None:
    """To be called before the run's row is written, so that there is none that nobody knows of."""
    at = hub_time(engine.clock.now() + timedelta(seconds=seconds))
    engine.runs.watch(tenant, Watched(run_id, at))


def come_back(engine: Engine, lane: str, job: Job, delay: float) -> None:
    """A message that comes after a while: until then the run has not lost it."""
    if delay > BEGUN_SECONDS:
        watch(engine, job.tenant, job.run, delay + LOST_SECONDS)
    engine.send(lane, job, delay)


def job_of(engine: Engine, tenant: Tenant, run: Run) -> Job:
    """What the messages of a run ask for."""
    kind = KINDS.get(run.mode, "pull")
    if run.mode == "plan" and run.of == "undo":
        kind = "undo_plan"
    if run.mode == "apply":
        of = run.plan.get("of")
        planned = engine.runs.get(tenant, run.of) if of is None else None
        kind = "plan" if "push" in (of, planned and planned.of) else "pull"
    return Job(kind, tenant, run.connection, run.entity, run.id, trace=run.trace)


def sweep(engine: Engine) -> int:
    """Looks at the runs whose time it is, and sends a message for each that has lost its own; gives how many."""
    now = engine.clock.now()
    return sum(
        _looked_at(engine, tenant, watched, now)
        for tenant, watched in engine.runs.watched()
        if watched.at <= hub_time(now)
    )


def _looked_at(engine: Engine, tenant: Tenant, watched: Watched, now: datetime) -> bool:
    """Whether a message was sent."""
    run = engine.runs.get(tenant, watched.id)
    if run is None:  # whoever began it died before its row was there
        drop_blobs(engine.blob, layout.run_blobs(tenant, watched.id))
    if run is None or run.ended or run.status == "stopped":  # approved, the entity's row holds it
        engine.runs.unwatch(tenant, watched.id)
        return False
    job = job_of(engine, tenant, run)
    is_lost = (run.status == "queued" or run.etag == watched.etag) and not _waits(engine, job, now)
    if is_lost:
        _log.warning("run has lost its message", run=run.id, mode=run.mode, status=run.status)
        engine.send(layout.BULK if run.slices else layout.FRESH, job)
    at = hub_time(now + timedelta(seconds=LOST_SECONDS))
    engine.runs.watch(tenant, Watched(run.id, at, run.etag))
    return is_lost


def _waits(engine: Engine, job: Job, now: datetime) -> bool:
    """Whether a run that does not move has a reason: its messages come again and again, or the entity's row holds it and
    the tick finds it there.
    """
    states = engine.states.read(job.tenant, job.connection) if job.connection else None
    if states is None:
        return False
    if seconds_until(states.connection.not_before, now) > 0:
        return True
    state = states.entities.get(job.entity)
    if state is None:
        return False
    if job.kind == "widen":
        return state.push_run == job.run
    return job.kind == "pull" and (bool(state.lease_run) or states.connection.health == "unreachable")
