"""The undo of a run that somebody asks for: its plan first, and then the plan carried out."""

from collections.abc import Sequence
from datetime import timedelta

from crm_core.errors import BadRequest, Conflict
from crm_core.model.connection import Tenant
from crm_core.model.fields import hub_time
from crm_core.model.state import Mode, Run
from crm_core.storage import layout
from crm_core.sync.engine import Engine
from crm_core.sync.starting import begin_one, refuse_old
from crm_core.sync.undoing.base import changes_made, parts_of

UNDOABLE = frozenset({"incremental", "full", "apply", "undo"})
"""Those that change records."""
OF_UNDO = "undo"
"""What the plan of an undo is a plan of."""


def start(engine: Engine, tenant: Tenant, run: Run, origin: str) -> Run:
    """Puts the plan of a run's undo on its way. Raises BadRequest for a run that changes no record, Conflict for one that
    has not ended, or that is too old to be known.
    """
    if run.mode not in UNDOABLE:
        raise BadRequest.field(
            "run_id", f"run_id: a run of mode {run.mode} changes no stored record; there is nothing to undo."
        )
    parts = parts_of(engine, tenant, run)
    if not all(each.ended for each in parts if not each.children):
        raise Conflict(f"Run {run.id} has not ended; wait for it, or cancel it first.")
    _refuse_forgotten(engine, run, parts)
    return _begun(engine, tenant, run, "plan", OF_UNDO, run.id, origin)


def _refuse_forgotten(engine: Engine, run: Run, parts: Sequence[Run]) -> None:
    """Raises Conflict for a run that is so old that the history of all its changes was deleted; what it made says so itself."""
    days = engine.tuning.history_days
    kept = hub_time(engine.clock.now() - timedelta(days=days + len(layout.BUCKETS)))
    made = changes_made(parts)
    if (
        made
        and max(each.ended_at for each in parts) < kept
        and not any(e.counts.get("created") for e in parts)
    ):
        raise Conflict(
            f"Nothing of the run {run.id} can be undone: it ended at {max(each.ended_at for each in parts)}, and the"
            f" history of its {made} changes is kept for {days:g} days (HISTORY_DAYS)."
        )


def apply(engine: Engine, tenant: Tenant, plan: Run, origin: str) -> Run:
    """Puts the undo that a plan describes on its way. Raises Conflict for a plan that is not complete, or too old."""
    if plan.status != "succeeded":
        why = f" {plan.problem.message}" if plan.problem else ""
        raise Conflict(
            f"The plan {plan.id} is {plan.status}; only one that succeeded can be carried out.{why}"
        )
    refuse_old(engine, plan)
    return _begun(engine, tenant, plan, "undo", plan.id, plan.undoes, origin)


def _begun(engine: Engine, tenant: Tenant, about: Run, mode: Mode, of: str, undoes: str, origin: str) -> Run:
    run = engine.new_run(about.connection, about.entity, mode, origin, of=of, undoes=undoes)
    what = f"{'A plan of the' if mode == 'plan' else 'The'} undo of run {undoes}"
    return begin_one(engine, tenant, run, what)
