"""Ending a run before its time: whoever works on it stops at the next checkpoint, and what was applied stays.

The run's row first: its worker can't save it any more. Then the state row of the entity, which the worker may hold: that
is given back as it was at the last checkpoint, so that the next pull goes on there and reads once more what was applied
since. A worker that dies in between leaves a lease, which the tick gives back. What a changed configuration wants of a push run
is not given up with it (push_runs.py): pausing the connection, or changing it once more, does that.
"""

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime

from crm_core.errors import Conflict
from crm_core.model.connection import Tenant
from crm_core.model.state import EntityState, Run
from crm_core.ports import RowChanged
from crm_core.sync import brake, compare, failures, push_runs
from crm_core.sync.engine import Engine
from crm_core.sync.results import closed, forget_items

CODE = "Cancelled"
TRIES = 5


def cancel(engine: Engine, tenant: Tenant, run: Run) -> Run:
    """Ends a run, and those that it is the parent of; gives it as it is then. Raises Conflict for one that has ended."""
    if not run.children:
        return _cancel(engine, tenant, run)
    children = [child for each in run.children if (child := engine.runs.get(tenant, each))]
    left = [each for each in children if not each.ended]
    if not left:
        raise Conflict(f"Run {run.id} has ended.")
    refused: list[Conflict] = []
    for each in left:
        try:
            _cancel(engine, tenant, each)
        except Conflict as error:  # it has just ended, which must not keep the others going
            now = engine.runs.get(tenant, each.id)
            if now is not None and not now.ended:
                refused.append(error)
    if refused:
        raise refused[0]
    return run


def _cancel(engine: Engine, tenant: Tenant, run: Run) -> Run:
    for _ in range(TRIES):
        if brake.is_stopped(engine, tenant, run):
            return brake.cancel(engine, tenant, run)
        if run.ended:
            raise Conflict(f"Run {run.id} is {run.status}; only one that has not ended can be cancelled.")
        try:
            words = "A person ended the run." + _put_off(engine, tenant, run)
            ended = failures.end_run(engine, tenant, closed(run) if run.mode == "batch" else run, CODE, words)
        except RowChanged:  # its worker has just saved it
            run = engine.runs.get(tenant, run.id) or run
            continue
        _let_go(engine, tenant, ended)
        return ended
    raise Conflict(f"Run {run.id} is being saved by its worker; try again.")


def _put_off(engine: Engine, tenant: Tenant, run: Run) -> str:
    """What the run says of what is wanted all the same."""
    if run.mode != "push":
        return ""
    states = engine.states.read(tenant, run.connection)
    state = states.entities.get(run.entity) if states else None
    return push_runs.told(state, run, engine.clock.now())


def _let_go(engine: Engine, tenant: Tenant, run: Run) -> None:
    """What the run holds beside its row."""
    if run.mode == "batch":
        forget_items(engine, tenant, run)
        return
    compare.forget(engine, tenant, run.id)
    later = brake.put_off(engine, tenant, run.connection)
    for _ in range(TRIES):
        states = engine.states.read(tenant, run.connection)
        state = states.entities.get(run.entity) if states else None
        if state is None or run.id not in (state.lease_run, state.push_run):
            return
        try:
            engine.states.save_entity(
                tenant, run.connection, run.entity, _freed(state, run, later, engine.clock.now())
            )
        except RowChanged:
            continue  # its worker, or a new schedule
        return


def _freed(
    state: EntityState, run: Run, later: Callable[[EntityState], EntityState], now: datetime
) -> EntityState:
    """`later`: until the schedule's next pull, if this was one from its place: it would begin again at once."""
    if state.push_run == run.id:
        state = push_runs.ended(state, run, now)
    if state.lease_run == run.id:
        state = replace(state, lease_run="", lease_until="")
        if run.mode == "incremental" and not run.partial:
            state = later(state)
    return state
