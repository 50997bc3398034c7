"""The brake: a run that would mark far more records as deleted than usual, or make far more at a remote system, stops,
and goes on only if a person says so.

It is judged before a batch is applied; that batch then is not. While the state row of the entity names a stopped run,
none works on it. Whoever lets one go on or ends it saves the run's row first, then the state row: if they die in
between, the same call can be made again.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import timedelta

from crm_core.errors import Conflict, Misconfigured
from crm_core.log import about
from crm_core.model.connection import Tenant
from crm_core.model.fields import hub_time
from crm_core.model.state import EntityState, Problem, Run
from crm_core.ports import RowChanged
from crm_core.storage import layout
from crm_core.storage.run_log import note
from crm_core.storage.state import States
from crm_core.sync import compare, failures, push_runs
from crm_core.sync.apply import Applier
from crm_core.sync.engine import Engine, Job, Tuning
from crm_core.sync.merge import Snapshot
from crm_core.sync.schedule import next_due

CODE = "Brake"
SAVE_TRIES = 5


class Stopped(Exception):  # no error: the run waits for a person
    """More deletes than a run may apply by itself, or more `creates_at` another connection, named by its slug."""

    def __init__(self, amount: int, known: int, limit: int, *, creates_at: str = "") -> None:
        self.amount, self.known, self.limit, self.creates_at = amount, known, limit, creates_at

    def problem(self, run: Run, time: str) -> Problem:
        if self.creates_at:
            shown = (
                f"At least {self.amount} records would be made at {self.creates_at}, which knows about"
                f" {self.known}; up to {self.limit} are made there without asking. If that is right,"
                f" POST /api/runs/{run.id}/approve makes them; if not, narrow that connection's filter and"
            )
        else:
            shown = (
                f"The remote system shows at least {self.amount} of about {self.known} records as deleted, and up to"
                f" {self.limit} are marked without asking. If that is right, POST /api/runs/{run.id}/approve marks them;"
                " if not, put the remote system right and"
            )
        return Problem(CODE, f"{shown} POST /api/runs/{run.id}/cancel.", time)


def limit(tuning: Tuning, known: int) -> int:
    """How many of the records that are known a run may mark as deleted."""
    return int(max(tuning.brake_deletes, known * tuning.brake_deletes_percent / 100))


def judge_batch(applier: Applier, run: Run, batch: Sequence[Snapshot]) -> None:
    """Raises Stopped if the deletes of a batch, with those that the run has applied, are too many, or its records that
    the hub has not, each of which is to be made at every other connection that wants it.
    """
    last = {each.change.rid: each.change for each in batch if not each.change.problem}
    rids = [rid for rid, change in last.items() if change.fields is None]
    judge(applier, run, len(rids), lambda: applier.living(rids))
    _judge_new(applier, run, [rid for rid, change in last.items() if change.fields is not None])


def _judge_new(applier: Applier, run: Run, rids: Sequence[str]) -> None:
    engine, entity = applier.engine, applier.entity.name
    before = run.counts.get("created", 0) + applier.tally.created
    if run.approved or before + len(rids) <= engine.tuning.brake_creates:
        return
    unknown: int | None = None
    for uid in applier.receivers():
        opened, states = engine.open(applier.tenant, uid), engine.states.read(applier.tenant, uid)
        if opened is None or states is None or entity not in states.entities:
            continue
        known = states.entities[entity].known
        if before + len(rids) <= limit_of_creates(engine.tuning, known):
            continue
        if unknown is None:
            unknown = applier.unknown(rids)
        judge_creates(engine.tuning, run, before, unknown, known, opened.connection.slug)


def judge_whole(applier: Applier, run: Run) -> None:
    """Raises Stopped if a full run has read far fewer records than there were, such as none: before the first bucket.

    What is known by the running sum may be wrong, as pushes delete too; it is counted before a run is stopped for it.
    """

    def counted() -> int:
        alive = sum(1 for bucket in layout.BUCKETS for _ in compare.living(applier, bucket))
        return max(0, alive - run.read)

    judge(applier, run, max(0, applier.known + applier.tally.known - run.read), counted)


def judge(applier: Applier, run: Run, deletes: int, certain: Callable[[], int]) -> None:
    """Raises Stopped if so many more deletes are too many for the run.

    `certain`: how many of them would mark a record; it may cost a call and is asked only where it matters.
    """
    if run.approved or not deletes:
        return
    before = run.counts.get("deleted", 0) + applier.tally.deleted
    known = applier.known + applier.tally.known + before
    most = limit(applier.engine.tuning, known)
    if before + deletes <= most:
        return
    deletes = certain()
    if before + deletes > most:
        raise Stopped(before + deletes, known, most)


def limit_of_creates(tuning: Tuning, known: int) -> int:
    """How many records a run may make at a remote system that has `known`."""
    return int(max(tuning.brake_creates, known * tuning.brake_creates_percent / 100))


def judge_creates(tuning: Tuning, run: Run, before: int, creates: int, known: int, at: str) -> None:
    """Raises Stopped if so many more records are too many for a run to make at the connection `at`, which has `known`."""
    most = limit_of_creates(tuning, known)
    if creates and not run.approved and before + creates > most:
        raise Stopped(before + creates, known, most, creates_at=at)


def refuse(states: States | None, entities: Sequence[str]) -> None:
    """Raises Conflict that names the stopped run of one of the entities, and both ways out."""
    for entity in entities:
        state = states.entities.get(entity) if states else None
        if state is not None and state.stopped_run:
            raise Conflict(stands_in_the_way(entity, state.stopped_run))


def stands_in_the_way(entity: str, run_id: str) -> str:
    return (
        f"Run {run_id} of {entity} was stopped by the brake; let it go on by POST /api/runs/{run_id}/approve,"
        f" or end it by POST /api/runs/{run_id}/cancel."
    )


def approve(engine: Engine, tenant: Tenant, run: Run) -> Run:
    """Lets a stopped run go on, without the brake. Raises Conflict for one that is not stopped."""
    if run.ended:
        raise _not_stopped(run)
    _check(engine, tenant, run)
    if run.status == "stopped":
        run = _saved(engine, tenant, replace(run, status="running", approved=True, problem=None))
        note("run.approved", "A person let the stopped run go on, without the brake.", run=run.id,
             connection=run.connection, entity=run.entity, by=about("principal"))  # fmt: skip
    if run.mode == "push":
        due = hub_time(engine.clock.now())
        _release(engine, tenant, run, lambda state: replace(state, push_due=due, push_run=run.id))
        engine.send(layout.FRESH, Job("widen", tenant, run.connection, run.entity, run.id, trace=run.trace))
        return run
    # With a lease of its own, so that the tick revives it if the message is never sent.
    until = hub_time(engine.clock.now() + timedelta(seconds=engine.tuning.lease_seconds))
    _release(engine, tenant, run, lambda state: replace(state, lease_run=run.id, lease_until=until))
    engine.send(layout.FRESH, Job("pull", tenant, run.connection, run.entity, run.id, trace=run.trace))
    return run


def is_stopped(engine: Engine, tenant: Tenant, run: Run) -> bool:
    """Whether the run, or the state row still, says so."""
    return run.status == "stopped" or _naming(engine, tenant, run) is not None


def cancel(engine: Engine, tenant: Tenant, run: Run) -> Run:
    """Ends a stopped run; its batch stays unapplied."""
    now = engine.clock.now()
    if not run.ended:
        words = "A person ended the stopped run."
        if run.mode == "push":
            words += push_runs.told(_naming(engine, tenant, run), run, now)
        try:
            run = failures.end_run(engine, tenant, run, "Cancelled", words)
        except RowChanged:
            raise _just_now(run) from None
    if run.mode == "push":
        _release(engine, tenant, run, lambda state: push_runs.ended(state, run, now))
        return run
    _release(engine, tenant, run, put_off(engine, tenant, run.connection))
    compare.forget(engine, tenant, run.id)
    return run


def put_off(engine: Engine, tenant: Tenant, connection: str) -> Callable[[EntityState], EntityState]:
    """What lets an entity wait for its schedule's next time; one whose connection can't be opened stays due as it is."""
    try:
        opened = engine.open(tenant, connection)
    except Misconfigured:
        return lambda state: state
    due = next_due(opened.connection.schedule, engine.clock.now()) if opened else ""
    return lambda state: replace(state, due=due)


def _check(engine: Engine, tenant: Tenant, run: Run) -> None:
    """Raises Conflict unless the run, or the state row still, says that it is stopped."""
    if run.children:
        raise Conflict(f"Run {run.id} is of several entities; name the stopped one of its children.")
    if not is_stopped(engine, tenant, run):
        raise _not_stopped(run)


def _not_stopped(run: Run) -> Conflict:
    return Conflict(f"Run {run.id} is {run.status}; only a stopped one can be approved.")


def _naming(engine: Engine, tenant: Tenant, run: Run) -> EntityState | None:
    """The state row that names the run as stopped."""
    states = engine.states.read(tenant, run.connection)
    state = states.entities.get(run.entity) if states else None
    return state if state is not None and state.stopped_run == run.id else None


def _saved(engine: Engine, tenant: Tenant, run: Run) -> Run:
    try:
        return engine.runs.save(tenant, run)
    except RowChanged:
        raise _just_now(run) from None


def _just_now(run: Run) -> Conflict:
    return Conflict(f"Run {run.id} was approved or cancelled by somebody else just now.")


def _release(engine: Engine, tenant: Tenant, run: Run, change: Callable[[EntityState], EntityState]) -> None:
    """Takes the run's name out of the state row, if it is there."""
    for _ in range(SAVE_TRIES):
        state = _naming(engine, tenant, run)
        if state is None:
            return
        freed = replace(change(state), stopped_run="", problem=None)
        try:
            engine.states.save_entity(tenant, run.connection, run.entity, freed)
        except RowChanged:
            continue  # such as a new schedule
        return
    raise Conflict(f"The state of {run.entity} is being changed by others; try again.")
