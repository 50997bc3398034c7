"""What is kept for a time only is deleted once a day: the tick sends one message, and the work goes a page at a time.

One thing after the other, each from its beginning to its end; a slice whose time is up tells the next one how far it came.
Of the history one bucket a day is gone through, so that every one's turn comes in 16 days.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from datetime import datetime, timedelta

from crm_core.model.connection import Tenant
from crm_core.model.entities import ENTITIES
from crm_core.model.fields import hub_time
from crm_core.model.state import Run
from crm_core.storage import layout
from crm_core.storage.ageing import drop_blobs
from crm_core.storage.due import DueRow
from crm_core.sync import exports
from crm_core.sync.engine import Engine, Job

DUE_PIECE = 20
WITH_BLOBS = frozenset({"full", "batch", "plan", "apply", "undo", "export"})
"""The modes of runs that write blobs."""

DELETES: Mapping[str, Callable[[Engine, Tenant, DueRow], None]] = {exports.JOB: exports.delete}
"""Who deletes what is due, by its kind."""

Sweep = Callable[[str | None], str | None]
"""Deletes what is over of a page, None for the first one; gives the next page, None at the end."""


def retention(engine: Engine, job: Job, lane: str, deliveries: int = 1) -> None:  # noqa: ARG001  # a handler's parameters
    """Deletes what is over; what is left when the slice's time is up continues in another message."""
    end = engine.slice_end(lane)
    number, place = job.task.get("sweep", 0), job.task.get("place")
    sweeps = list(_sweeps(engine, job.tenant))
    while number < len(sweeps):
        place = sweeps[number](place)
        if place is None:
            number += 1
        if engine.clock.monotonic() >= end and number < len(sweeps):
            task = {"sweep": number, "place": place} if place is not None else {"sweep": number}
            engine.send(layout.BULK, replace(job, task=task))
            return


def _sweeps(engine: Engine, tenant: Tenant) -> Iterator[Sweep]:
    """The same ones in the same order all day, but for connections that come and go."""
    now, tuning = engine.clock.now(), engine.tuning
    yield lambda _: _due(engine, tenant)
    first_day = _before(now, tuning.log_days).date().isoformat()
    yield lambda place: engine.run_log.drop_before(tenant, first_day, place)
    yield lambda place: _runs(engine, tenant, _before(now, tuning.run_days), place)
    events, deliveries = (
        _milliseconds(_before(now, days)) for days in (tuning.event_days, tuning.delivery_days)
    )
    for uid in sorted(uid for owner, uid, _ in engine.states.every() if owner == tenant):
        yield lambda place, uid=uid: engine.events.drop_old(tenant, uid, events, place)  # type: ignore[misc]  # bound now
        yield lambda place, uid=uid: engine.deliveries.drop_old(tenant, uid, deliveries, place)  # type: ignore[misc]  # bound now
    bucket = layout.BUCKETS[now.toordinal() % len(layout.BUCKETS)]
    steps = hub_time(_before(now, tuning.history_days))
    for entity in ENTITIES:
        yield lambda place, entity=entity: (  # type: ignore[misc]  # bound now
            engine.records.drop_old_history(tenant, entity, bucket, steps, place or "") or None
        )


def _before(now: datetime, days: float) -> datetime:
    return now - timedelta(days=days)


def _milliseconds(moment: datetime) -> int:
    return int(moment.timestamp() * 1000)


def _due(engine: Engine, tenant: Tenant) -> str | None:
    """What is due by now; newer code may have made some, and knows how to delete it."""
    due = engine.due.until(tenant, hub_time(engine.clock.now()), DUE_PIECE)
    known = [row for row in due if row.kind in DELETES]
    for row in known:
        DELETES[row.kind](engine, tenant, row)
        engine.due.done(tenant, row)
    return "" if len(due) == DUE_PIECE and known else None


def _runs(engine: Engine, tenant: Tenant, before: datetime, place: str | None) -> str | None:
    """Runs that ended before a time, after what they left in blobs; a parent after all of its runs."""
    runs, following = engine.runs.old(tenant, _milliseconds(before), place)
    here, ended_before = {each.id: each for each in runs}, hub_time(before)

    def is_over(run: Run) -> bool:
        if not run.children:
            return run.ended and run.ended_at < ended_before
        children = (here.get(each) or engine.runs.get(tenant, each) for each in run.children)
        return all(is_over(child) for child in children if child is not None)

    gone = [each for each in runs if is_over(each)]
    for each in gone:
        _forget(engine, tenant, each)
    engine.runs.delete(tenant, gone)
    return following


def _forget(engine: Engine, tenant: Tenant, run: Run) -> None:
    """All its blobs, those of workers too that died or were overtaken before its row named them."""
    if run.mode in WITH_BLOBS and not run.children:
        drop_blobs(engine.blob, layout.run_blobs(tenant, run.id))
