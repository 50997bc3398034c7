"""Who may have a plan carried out, and how that begins."""

from crm_core.errors import Conflict
from crm_core.model.connection import Tenant
from crm_core.model.state import Run
from crm_core.sync import brake, starting
from crm_core.sync.engine import Engine, Opened
from crm_core.sync.undoing import starting as undoing


def start(engine: Engine, tenant: Tenant, plan: Run, origin: str) -> Run:
    """Puts what a plan says on its way: one run per entity, and a parent if they are several; gives what the caller
    follows. Raises Conflict that says why not.
    """
    if plan.mode != "plan":
        raise Conflict(f"Run {plan.id} is no plan, but of mode {plan.mode}; only a plan can be applied.")
    if plan.of == undoing.OF_UNDO:
        return undoing.apply(engine, tenant, plan, origin)
    plans = [found for each in plan.children if (found := engine.runs.get(tenant, each))] or [plan]
    for each in plans:
        _check(engine, each)
    opened = _opened(engine, tenant, plan)
    brake.refuse(engine.states.read(tenant, plan.connection), [each.entity for each in plans])
    _refuse_second(engine, tenant, {each.id for each in plans})
    runs = [_run(engine, each, origin) for each in plans]
    return starting.begin(engine, opened.connection, runs, of=plan.id)


def _check(engine: Engine, plan: Run) -> None:
    if not plan.ended:
        raise Conflict(f"The plan {plan.id} is not complete yet; follow it at /api/runs/{plan.id}.")
    if plan.status != "succeeded":
        raise Conflict(f"The plan {plan.id} failed; make another one.")
    starting.refuse_old(engine, plan)


def _opened(engine: Engine, tenant: Tenant, plan: Run) -> Opened:
    opened = engine.open(tenant, plan.connection)
    if opened is None:
        raise Conflict(f"The connection of the plan {plan.id} was deleted.")
    slug = opened.connection.slug
    if opened.connection.paused:
        raise Conflict(f"The connection {slug} is paused; resume it by POST /api/integrations/{slug}/resume.")
    return opened


def _refuse_second(engine: Engine, tenant: Tenant, plans: set[str]) -> None:
    recent, _ = engine.runs.page(tenant, top=starting.RECENT_RUNS, token=None)
    for run in recent:
        if run.mode == "apply" and run.of in plans and not run.ended:
            raise Conflict(f"Run {run.id} is applying this plan now; follow it at /api/runs/{run.id}.")


def _run(engine: Engine, plan: Run, origin: str) -> Run:
    return engine.new_run(
        plan.connection,
        plan.entity,
        "apply",
        origin,
        since=plan.since,
        filter=plan.filter,
        limit=plan.limit,
        strategy=plan.strategy,
        of=plan.id,
        start=plan.start,
        plan={"of": plan.of},
    )
