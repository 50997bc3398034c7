"""The undo of a run that somebody asks for: its plan first, and then the plan carried out."""

from crm_core.errors import BadRequest, Conflict
from crm_core.log import bind
from crm_core.model.connection import Tenant
from crm_core.model.state import Mode, Run
from crm_core.storage import layout
from crm_core.sync.engine import Engine, Job
from crm_core.sync.starting import refuse_old
from crm_core.sync.undoing.base import parts_of

UNDOABLE = frozenset({"incremental", "full", "apply", "undo"})
"""Those that change records."""
OF_UNDO = "undo"
"""What the plan of an undo is a plan of."""


def start(engine: Engine, tenant: Tenant, run: Run, origin: str) -> Run:
    """Puts the plan of a run's undo on its way. Raises BadRequest for a run that changes no record, Conflict for one that
    has not ended.
    """
    if run.mode not in UNDOABLE:
        raise BadRequest.field(
            "run_id", f"run_id: a run of mode {run.mode} changes no stored record; there is nothing to undo."
        )
    parts = parts_of(engine, tenant, run)
    if not all(each.ended for each in parts if not each.children):
        raise Conflict(f"Run {run.id} has not ended; wait for it, or cancel it first.")
    return _begun(engine, tenant, run, "plan", OF_UNDO, run.id, origin)


def apply(engine: Engine, tenant: Tenant, plan: Run, origin: str) -> Run:
    """Puts the undo that a plan describes on its way. Raises Conflict for a plan that is not complete, or too old."""
    if plan.status != "succeeded":
        raise Conflict(f"The plan {plan.id} is {plan.status}; only one that succeeded can be carried out.")
    refuse_old(engine, plan)
    return _begun(engine, tenant, plan, "undo", plan.id, plan.undoes, origin)


def _begun(engine: Engine, tenant: Tenant, about: Run, mode: Mode, of: str, undoes: str, origin: str) -> Run:
    run = engine.new_run(about.connection, about.entity, mode, origin, of=of, undoes=undoes)
    run = engine.runs.insert(tenant, run)
    bind(run=run.id)
    kind = "undo_plan" if mode == "plan" else "undo"
    engine.send(layout.FRESH, Job(kind, tenant, run.connection, run.entity, run.id, trace=run.trace))
    return run
