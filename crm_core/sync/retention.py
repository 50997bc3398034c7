"""What is kept for a time only is deleted once a day: the tick sends one message, and the work is done a bounded piece at a time."""

from collections.abc import Callable, Mapping
from datetime import timedelta

from crm_core.model.connection import Tenant
from crm_core.model.fields import hub_time
from crm_core.storage import layout
from crm_core.storage.due import DueRow
from crm_core.sync import exports
from crm_core.sync.engine import Engine, Job

PIECE = 1000
"""Lines that are deleted before the time is looked at."""
DUE_PIECE = 20

DELETES: Mapping[str, Callable[[Engine, Tenant, DueRow], None]] = {exports.JOB: exports.delete}
"""Who deletes what is due, by its kind."""


def retention(engine: Engine, job: Job, lane: str, deliveries: int = 1) -> None:  # noqa: ARG001  # a handler's parameters
    """Deletes what is over; what is left when the slice's time is up continues in another message."""
    end = engine.slice_end(lane)
    while _piece(engine, job.tenant):
        if engine.clock.monotonic() >= end:
            engine.send(layout.BULK, job)
            return


def _piece(engine: Engine, tenant: Tenant) -> bool:
    """Some of each kind; whether there may be more."""
    now = engine.clock.now()
    first_day = (now - timedelta(days=engine.tuning.log_days)).date().isoformat()
    lines = engine.run_log.drop_before(tenant, first_day, PIECE)
    due = engine.due.until(tenant, hub_time(now), DUE_PIECE)
    for row in due:
        delete = DELETES.get(row.kind)
        if delete is not None:  # else newer code made it, and knows how to delete it
            delete(engine, tenant, row)
            engine.due.done(tenant, row)
    done = [row for row in due if row.kind in DELETES]
    return lines >= PIECE or (len(due) == DUE_PIECE and bool(done))
