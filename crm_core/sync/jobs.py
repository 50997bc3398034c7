"""From a queue message to its handler, by kind; and what becomes of a message that no handler could work on."""

from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import replace

from crm_core.errors import HubError, Misconfigured, StoreUnavailable
from crm_core.log import Log, bound, current_trace
from crm_core.model.connection import DEFAULT_TENANT
from crm_core.model.fields import hub_time
from crm_core.model.state import Problem, Run
from crm_core.ports import RowChanged
from crm_core.storage import layout
from crm_core.storage.run_log import note
from crm_core.sync import deadletters, deliver, exports, failures, intake, resolving_many
from crm_core.sync.batch import batch
from crm_core.sync.engine import Engine, Job
from crm_core.sync.planning.plan import plan
from crm_core.sync.pull import pull
from crm_core.sync.push import held, push, waiting
from crm_core.sync.results import closed, forget_items
from crm_core.sync.retention import retention
from crm_core.sync.schedule import RETENTION
from crm_core.sync.undoing.carrying import carry_out as undo
from crm_core.sync.undoing.planning import plan as plan_undo
from crm_core.sync.widen import widen

_log = Log("crm_core.jobs")

NOT_A_JOB = "NotAJob"

Handler = Callable[[Engine, Job, str, int], None]
HANDLERS: Mapping[str, Handler] = {
    "pull": pull,
    "plan": plan,
    "batch": batch,
    "push": push,
    "held": held,
    "waiting": waiting,
    "widen": widen,
    "event": intake.event,
    "hints": intake.hints,
    "delivery": deliver.again,
    "undo_plan": plan_undo,
    "undo": undo,
    deadletters.JOB: deadletters.many,
    exports.JOB: exports.export,
    RETENTION: retention,
    resolving_many.JOB: resolving_many.work,
}


def handle(engine: Engine, lane: str, body: str, deliveries: int) -> None:
    """Works on one message of a lane, in the trace that it names; raises for what the queue should deliver again.

    One log line. What is no message of ours, or of a kind that this version does not know, becomes a dead letter.
    """
    try:
        job = Job.from_message(body)
        handler = HANDLERS[job.kind]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        engine.dead_letters.add(
            DEFAULT_TENANT,
            kind="message",
            code=NOT_A_JOB,
            cause=f"not a job: {type(error).__name__}",
            body=body,
            queue=lane,
        )
        _log.error("message is no job", lane=lane, deliveries=deliveries, error=type(error).__name__)
        return
    with bound(**about(job)):
        _work(engine, handler, job, lane, deliveries)


def about(job: Job) -> dict[str, str]:
    """What the log lines of a job bear. A message of an older version names no trace."""
    return {
        "trace": job.trace or current_trace(),
        "tenant": job.tenant.name,
        "connection": job.connection,
        "entity": job.entity,
        "run": job.run,
    }


def _work(engine: Engine, handler: Handler, job: Job, lane: str, deliveries: int) -> None:
    began = engine.clock.monotonic()

    def told() -> dict[str, str | int]:
        ms = round((engine.clock.monotonic() - began) * 1000)
        return {"kind": job.kind, "lane": lane, "deliveries": deliveries, "attempt": job.attempt, "ms": ms}

    try:
        handler(engine, job, lane, deliveries)
    except Misconfigured as error:
        _set_aside(engine, job, error)
        _log.warning("job", outcome="waits for a person", error=error.code, **told())
        return
    except StoreUnavailable as error:  # which call it was, and what the storage said: words of ours alone
        _log.warning("job", outcome="comes again", error=error.code, why=error.message, **told())
        raise
    except HubError as error:
        _log.warning("job", outcome="comes again", error=error.code, **told())
        raise
    except Exception as error:
        _log.bug("job", error, outcome="comes again", **told())
        raise
    _log.info("job", outcome="done", **told())


def _set_aside(engine: Engine, job: Job, error: Misconfigured) -> None:
    """A connection can't be opened, such as one whose secret is gone: no delivery would help, a person has to.

    The connection says what is missing, a run that somebody waits for fails with that, and what is open stays open.
    One that is just being deleted has no row any more, or loses it now.
    """
    now = hub_time(engine.clock.now())
    states = engine.states.read(job.tenant, job.connection)
    if states is not None and job.kind != "plan":  # which tells nobody but its own run
        problem = Problem(error.code, error.message, now)
        failures.connection_failed(engine, job, states.connection, error, 0.0, problem)
    run = engine.runs.get(job.tenant, job.run) if job.run else None
    if run is None or run.ended or run.status == "stopped" or job.kind == "widen":  # a push run stays due
        return
    with suppress(RowChanged):  # another worker, who could open it, goes on
        _end(engine, job, run, error.code, error.message)


def _end(engine: Engine, job: Job, run: Run, code: str, message: str) -> None:
    failures.end_run(engine, job.tenant, closed(run) if run.mode == "batch" else run, code, message)
    if run.mode == "batch":
        forget_items(engine, job.tenant, run)


def poisoned(engine: Engine, lane: str, body: str) -> None:
    """A message that failed at every delivery: kept as a dead letter with its cause.

    A run that has got further since it was last poisoned is restarted instead; else it failed, and says so.
    """
    try:
        job = Job.from_message(body)
    except (ValueError, KeyError, TypeError, RecursionError):
        engine.dead_letters.add(
            DEFAULT_TENANT, kind="message", code=NOT_A_JOB, cause="not a job", body=body, queue=lane
        )
        _log.error("message is no job", lane=lane)
        return
    with bound(**about(job)):
        _bury(engine, lane, body, job)


def _bury(engine: Engine, lane: str, body: str, job: Job) -> None:
    run = engine.runs.get(job.tenant, job.run) if job.run else None
    if run is not None and not run.ended and run.status != "stopped":
        try:
            if run.read > run.restarted_at:
                engine.runs.save(job.tenant, replace(run, restarted_at=run.read))
                engine.send(layout.BULK, replace(job, attempt=0))
                _log.warning("poison", kind=job.kind, lane=lane, outcome="restarted")
                return
            _end(engine, job, run, "Poison", "The work failed at every delivery of its message.")
        except RowChanged:
            _log.info("poison", kind=job.kind, lane=lane, outcome="its run has moved on")
            return
    if job.kind == "pull" and job.connection and job.entity:
        failures.set_back(
            engine, job, "Bug", "The work failed at every delivery of its message; see the dead letters."
        )
    if job.kind == "event":
        intake.buried(engine, job)
    note(
        "work.failed",
        f"The work of kind {job.kind} failed at every delivery; it is a dead letter now.",
        "error",
    )
    engine.dead_letters.add(
        job.tenant,
        kind=job.kind,
        code="Poison",
        cause="The work failed at every delivery of its message; the log of the function says why.",
        body=body,
        letter_id=str(job.event.get("id", "")),
        queue=lane,
        connection=job.connection,
        entity=job.entity,
    )
    _log.error("poison", kind=job.kind, lane=lane, outcome="dead letter")
