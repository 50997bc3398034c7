"""What a failed pull leaves behind: where people see it, and when it is tried again. Recovery is the error's own."""

from contextlib import suppress
from dataclasses import replace
from datetime import timedelta

from crm_core.errors import HubError, OverBudget, Recovery, VendorError
from crm_core.log import Log, plain
from crm_core.model.connection import Tenant
from crm_core.model.fields import hub_time, parse_instant
from crm_core.model.state import COUNTS, ConnectionState, EntityState, Problem, Run
from crm_core.ports import RowChanged
from crm_core.retry import Retry, decide
from crm_core.storage import layout
from crm_core.storage.run_log import note
from crm_core.storage.state import States
from crm_core.sync.engine import Engine, Job, Opened
from crm_core.sync.schedule import lapsed, next_due

_log = Log("crm_core.sync")

FAILURES_UNTIL_UNREACHABLE = 3
PROBE_SECONDS = 60.0
"""How long the others leave the asking to one worker while the system does not answer."""
PROMISED_ATTEMPTS = 3
"""A run that a caller waits for fails after this many attempts; the schedule goes on trying."""


def pull_failed(
    engine: Engine, job: Job, opened: Opened, states: States, state: EntityState, run: Run, error: HubError
) -> None:
    """Records the error at the entity, the connection and the run, and sees to the next attempt."""
    now = engine.clock.now()
    problem = Problem(error.code, error.message, hub_time(now))
    attempt = job.attempt + 1
    holds_lease = state.lease_run == run.id
    promised = bool(run.etag) or holds_lease
    decision = decide(error, max(attempt, states.connection.failures + 1), engine.ids.fraction())
    again = isinstance(decision, Retry) and (
        (not decision.counts or attempt < PROMISED_ATTEMPTS)
        if promised
        else error.recovery is not Recovery.PARK
    )
    delay = decision.delay if isinstance(decision, Retry) else 0.0
    tell("pull failed", error, attempt, delay if again else None)
    waits = error.recovery is Recovery.ENTITY_WAITS
    # What a caller's since or filter met says nothing of the schedule's own pulls.
    changes = state if run.partial else replace(state, problem=problem, waits=waits)
    if holds_lease and not again:
        changes = replace(changes, lease_run="", lease_until="")
    elif holds_lease:
        until = now + timedelta(seconds=delay + engine.tuning.lease_seconds)
        changes = replace(changes, lease_until=hub_time(until))
    if not again and not waits and not run.partial:
        changes = replace(changes, due=next_due(opened.connection.schedule, now))
    try:
        engine.states.save_entity(job.tenant, job.connection, job.entity, changes)
    except RowChanged:
        # Another worker has taken over; a run that a caller was promised is still owed and comes again.
        if run.etag and run.owed:
            engine.send(layout.FRESH, replace(job, run=run.id, attempt=attempt), delay)
        return
    connection_failed(engine, job, states.connection, error, delay, problem)
    if not again:
        if run.etag:
            with suppress(RowChanged):  # another worker of this run has saved it and goes on
                end_run(engine, job.tenant, run, error.code, error.message)
    elif promised:
        if run.etag:
            with suppress(RowChanged):
                engine.runs.save(job.tenant, replace(run, problem=problem))
        counted = attempt if isinstance(decision, Retry) and decision.counts else job.attempt
        engine.send(lane_after(error), replace(job, run=run.id, attempt=counted), delay)


def lane_after(error: HubError) -> str:
    """Where work comes back that an error stopped: what may not take of the fresh lane's share stays out of it."""
    return layout.BULK if isinstance(error, OverBudget) and not error.shared else layout.FRESH


def push_failed(engine: Engine, job: Job, states: States, error: HubError) -> float | None:
    """Records what stopped a push at the connection, or at the entity where only that waits for a person; gives after
    how many seconds it may come back, None if a person has to mend something first.
    """
    decision = decide(error, max(job.attempt, states.connection.failures) + 1, engine.ids.fraction())
    delay = decision.delay if isinstance(decision, Retry) else None
    tell("push failed", error, job.attempt + 1, delay)
    problem = Problem(error.code, error.message, hub_time(engine.clock.now()))
    if error.recovery is Recovery.ENTITY_WAITS:
        state = states.entities[job.entity]
        with suppress(RowChanged):  # a pull has just recorded what it found
            engine.states.save_entity(
                job.tenant, job.connection, job.entity, replace(state, waits=True, problem=problem)
            )
        return None
    connection_failed(engine, job, states.connection, error, delay or 0.0, problem)
    return delay


def probe(engine: Engine, job: Job, states: States) -> States | None:
    """Takes the turn to ask a system that does not answer; None while another worker has it.

    The others see the turn in "not before", or lose the row; it ends with the answer or, if the worker dies, by itself.
    """
    until = hub_time(engine.clock.now() + timedelta(seconds=PROBE_SECONDS))
    state = replace(states.connection, not_before=until)
    try:
        saved = engine.states.save_connection(job.tenant, job.connection, state)
    except RowChanged:
        return None
    return replace(states, connection=saved)


def tell(event: str, error: HubError, attempt: int, again_in: float | None) -> None:
    """The log line of work that the remote system stopped; `again_in`: seconds, None for never."""
    vendor = error if isinstance(error, VendorError) else None
    _log.warning(
        event,
        error=error.code,
        status=vendor.vendor_status if vendor else None,
        vendor_code=plain(vendor.vendor_code) if vendor else "",
        request_id=vendor.request_id if vendor else "",
        attempt=attempt,
        again_in=None if again_in is None else round(again_in),
    )
    again = "A person has to see to it." if again_in is None else f"Again in {round(again_in)} s."
    note(
        "work.waits" if again_in is not None else "work.failed",
        f"{event[:1].upper()}{event[1:]}: {error.message} {again}",
        "warning" if again_in is not None else "error",
        error=error.code,
        status=vendor.vendor_status if vendor else None,
        vendor_code=plain(vendor.vendor_code) if vendor else "",
        request_id=vendor.request_id if vendor else "",
        attempt=attempt,
    )


def connection_failed(
    engine: Engine, job: Job, connection: ConnectionState, error: HubError, delay: float, problem: Problem
) -> None:
    """The connection waits for a person, for the vendor's limit, or until it answers again."""
    changes = connection
    if isinstance(error, OverBudget) and not error.shared:
        return  # fresh changes go on
    if error.recovery is Recovery.ATTENTION:
        changes = replace(connection, health="needs_attention", problem=problem)
    elif error.recovery in (Recovery.WAIT, Recovery.RETRY):
        until = hub_time(engine.clock.now() + timedelta(seconds=delay))
        # While it is unreachable the time in the row is our own turn to ask, which is over.
        later = until if connection.health == "unreachable" else max(connection.not_before, until)
        changes = replace(connection, not_before=later)
        if error.recovery is Recovery.RETRY:
            failed = connection.failures + 1
            unreachable = failed >= FAILURES_UNTIL_UNREACHABLE
            changes = replace(
                changes,
                failures=failed,
                health="unreachable" if unreachable else connection.health,
                problem=problem,
            )
    if changes != connection:
        _save_connection(engine, job, changes)
    if changes.health != connection.health:
        wait = "does not answer" if changes.health == "unreachable" else "waits for a person"
        note(
            f"connection.{changes.health}",
            f"The connection {wait}: {error.message}",
            "error",
            error=error.code,
        )


def recovered(engine: Engine, job: Job, connection: ConnectionState) -> None:
    """After a success: the connection is well, if it was not."""
    if connection.failures or connection.health == "unreachable":
        well = replace(connection, failures=0, health="ok", not_before="", problem=None)
        _save_connection(engine, job, well)
        if connection.health != "ok":
            note("connection.ok", "The connection answers again.")


def _save_connection(engine: Engine, job: Job, state: ConnectionState) -> None:
    try:
        engine.states.save_connection(job.tenant, job.connection, state)
    except RowChanged:
        return  # another worker has just recorded what it found, which is as new as ours


def end_run(engine: Engine, tenant: Tenant, run: Run, code: str, message: str) -> Run:
    """A run that a person looks at failed, with the cause."""
    now = hub_time(engine.clock.now())
    problem = Problem(code, message, now)
    ended = engine.runs.save(tenant, replace(run, status="failed", ended_at=now, problem=problem))
    told(ended)
    return ended


def asked(run: Run, what: str) -> None:
    """The line of a run that somebody asks for."""
    text = f"{what} was asked for by {run.origin}."
    note("run.asked", text, run=run.id, connection=run.connection, entity=run.entity)


def begun(run: Run) -> None:
    """The line of a run that begins to work."""
    names = ("mode", "origin", "since", "filter", "limit", "strategy", "of", "undoes")
    options = {name: getattr(run, name) for name in names}
    who = "by its schedule" if run.origin == "schedule" else f"for {run.origin}"
    note("run.begun", f"A run of mode {run.mode} began, {who}.", run=run.id, **options)


def goes_on(run: Run) -> None:
    """The line of a run whose slice is over and that goes on with another message."""
    note(
        "run.slice",
        f"Slice {run.slices} is over after {run.read} records; the run goes on.",
        run=run.id,
        read=run.read,
    )


def told(run: Run) -> None:
    """The log lines of a run that has ended."""
    seconds = (parse_instant(run.ended_at) - parse_instant(run.started_at or run.created_at)).total_seconds()
    _log.info(
        "run",
        run=run.id,
        connection=run.connection,
        entity=run.entity,
        mode=run.mode,
        origin=run.origin,
        status=run.status,
        error=run.problem.code if run.problem else "",
        read=run.read,
        counts={name: run.counts.get(name, 0) for name in COUNTS},
        calls=run.calls,
        slices=run.slices,
        seconds=round(seconds, 3),
    )
    problem = f": {run.problem.message}" if run.problem else "."
    counts = {name: amount for name, amount in run.counts.items() if amount}
    note(
        "run.ended",
        f"The run {run.status}{problem}",
        "error" if run.status == "failed" else "info",
        run=run.id,
        connection=run.connection,
        entity=run.entity,
        mode=run.mode,
        error=run.problem.code if run.problem else "",
        read=run.read,
        counts=counts,
        seconds=round(seconds, 3),
    )


def release_lease(engine: Engine, job: Job) -> None:
    """Gives back the lease of a run that ended without its worker; the schedule goes on."""
    set_back(engine, job)


def set_back(engine: Engine, job: Job, code: str = "", message: str = "") -> None:
    """Lets the schedule go on after a job that is over: next time as usual, with the problem if there is one."""
    opened = engine.open(job.tenant, job.connection)
    states = engine.states.read(job.tenant, job.connection)
    state = states.entities.get(job.entity) if states else None
    now = engine.clock.now()
    if opened is None or state is None or (state.lease_run not in ("", job.run) and not lapsed(state, now)):
        return
    changes = replace(state, lease_run="", lease_until="", due=next_due(opened.connection.schedule, now))
    if code:
        changes = replace(changes, problem=Problem(code, message, hub_time(now)))
    try:
        engine.states.save_entity(job.tenant, job.connection, job.entity, changes)
    except RowChanged:
        return  # its worker lives after all
