"""The state row of an entity at a connection, which a pull and a push run may hold at once: each of them saves its own part over
what the other has saved.
"""

from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace

from crm_core.model.state import EntityState
from crm_core.ports import RowChanged
from crm_core.sync.engine import Engine, Job

TRIES = 5
OF_PUSH_RUNS = ("push_due", "push_run", "push_wanted", "last_run")


def find(engine: Engine, job: Job) -> EntityState | None:
    states = engine.states.read(job.tenant, job.connection)
    return states.entities.get(job.entity) if states else None


def save(
    engine: Engine,
    job: Job,
    state: EntityState,
    change: Callable[[EntityState], EntityState],
    over: Callable[[EntityState], EntityState | None],
) -> EntityState:
    """The row as `change` makes it from `state`, or from what `over` makes of the row that another one has saved meanwhile;
    None where that is not to be saved over. Raises RowChanged.
    """
    for _ in range(TRIES):
        with suppress(RowChanged):
            return engine.states.save_entity(job.tenant, job.connection, job.entity, change(state))
        found = find(engine, job)
        mine = over(found) if found is not None else None
        if mine is None:
            break
        state = mine
    raise RowChanged


def beside_push_runs(found: EntityState, state: EntityState) -> EntityState | None:
    """A pull's state with what push runs, and changes of configuration that want one, have saved beside it; None if anything
    else was saved.
    """
    theirs = {name: getattr(found, name) for name in OF_PUSH_RUNS}
    mine = replace(state, **theirs, etag=found.etag)
    return mine if replace(mine, known=found.known) == found else None  # a pull counts anew at its end
