"""Runs that somebody asks for: checked, put into their rows, and on their way."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import timedelta

from crm_core.errors import BadRequest, Conflict, HubError
from crm_core.log import bind
from crm_core.model.connection import Connection, Tenant
from crm_core.model.fields import hub_time, parse_instant
from crm_core.model.filters import parse_filter
from crm_core.model.state import Mode, Run
from crm_core.ports import RowChanged
from crm_core.storage import layout
from crm_core.storage.run_log import note
from crm_core.sync import brake, failures, results, watching
from crm_core.sync.engine import Engine, Opened

RECENT_RUNS, RECENT_HOURS = 200, 1
"""Where a second run that does the same looks for the first."""
STILL_QUEUED = timedelta(minutes=2)
"""A run that is asked for again and still waits after this time gets a second message: it may have lost its first."""
PLANNED = ("incremental", "full", "push")
"""The modes that there can be a plan of."""


@dataclass(frozen=True)
class Asked:
    """What somebody asks of a run. `since`, `where`: read only what was modified since (RFC 3339) and passes the filter;
    `limit`: at most so many records of each entity; `strategy`: what decides, in this run alone; `of`: of a plan, the mode
    that it is a plan of.
    """

    mode: Mode = "incremental"
    since: str = ""
    where: str = ""
    limit: int = 0
    strategy: str = ""
    of: str = ""

    @classmethod
    def of_run(cls, run: Run) -> "Asked":
        """What was asked of a run."""
        return cls(run.mode, run.since, run.filter, run.limit, run.strategy, run.of)

    @property
    def does(self) -> Mode:
        """The mode whose work it does or plans."""
        return (self.of or "incremental") if self.mode == "plan" else self.mode  # type: ignore[return-value]  # as the body allows

    def check(self) -> None:
        """Raises BadRequest for what makes no sense together, with the remedy."""
        if self.of and self.mode != "plan":
            raise BadRequest.field("of", "of: says what a plan is a plan of; give it with mode plan alone.")
        if self.of and self.of not in PLANNED:
            raise BadRequest.field("of", f"of: expected one of {', '.join(PLANNED)}.")
        if self.does != "incremental":
            for name, given in (("since", self.since), ("filter", self.where)):
                if given:
                    raise BadRequest.field(name, f"{name}: a {self.does} run reads everything; leave it out.")
        if self.strategy and self.does == "push":
            raise BadRequest.field(
                "strategy", "strategy: a push sends what was decided before; give it with a run that reads."
            )
        if self.limit and self.does == "full":
            raise BadRequest.field(
                "limit",
                "limit: a full run deletes what it did not read; leave it out, or use mode incremental.",
            )
        if self.limit and self.mode == "push":
            raise BadRequest.field(
                "limit", "limit: a push run looks at every record; leave it out, or plan it first."
            )


def start(engine: Engine, opened: Opened, entities: Sequence[str], asked: Asked, origin: str) -> Run:
    """Puts a run on its way: one per entity, and a parent if they are several. Gives what the caller follows.

    Raises BadRequest, NotSupported, and Conflict that names the run doing the same which is at work.
    """
    asked.check()
    connection = opened.connection
    wanted = may_start(engine, opened, entities, asked)
    if asked.since or asked.where:
        node = parse_filter(asked.where) if asked.where else None
        for entity in wanted:
            opened.connector.begin(entity, since=asked.since, where=node)
    _refuse_second(engine, connection, wanted, asked)
    return begin(engine, connection, [_new_run(engine, connection, each, asked, origin) for each in wanted])


def begin(engine: Engine, connection: Connection, runs: Sequence[Run], *, of: str = "") -> Run:
    """Runs of one kind, one for each entity, into their rows and on their way; gives the one that the caller follows.

    `of`: of the parent, if it is another's than the runs' own.
    """
    tenant = connection.tenant
    for run in runs:
        watching.watch(engine, tenant, run.id)
    runs = [engine.runs.insert(tenant, run) for run in runs]
    followed = runs[0]
    if len(runs) > 1:
        now = engine.clock.now()
        followed = replace(
            followed,
            id=layout.newest_first(int(now.timestamp() * 1000), engine.ids.uuid()),
            entity="",
            created_at=hub_time(now),
            start=None,
            of=of or followed.of,
            children=tuple(run.id for run in runs),
            etag="",
        )
        engine.runs.insert(tenant, followed)
    bind(run=followed.id)
    note(
        "run.asked",
        f"A run of mode {followed.mode} was asked for by {followed.origin}: {', '.join(each.entity for each in runs)}.",
        connection=connection.uid,
    )
    for index, run in enumerate(runs):
        try:
            send(engine, tenant, run)
        except HubError as error:
            if _never_began(engine, tenant, run, error):
                for unsent in runs[index + 1 :]:  # nobody would ever work on them
                    failures.end_run(engine, tenant, unsent, error.code, error.message)
                raise
    return followed


def begin_one(engine: Engine, tenant: Tenant, run: Run, what: str) -> Run:
    """A run of no connection's entity into its row and on its way. `what` is asked for, as the log of runs says."""
    watching.watch(engine, tenant, run.id)
    run = engine.runs.insert(tenant, run)
    bind(run=run.id)
    failures.asked(run, what)
    try:
        send(engine, tenant, run)
    except HubError as error:
        if _never_began(engine, tenant, run, error):
            raise
    return run


def may_start(engine: Engine, opened: Opened, entities: Sequence[str], asked: Asked) -> list[str]:
    """The entities of such a run. Raises BadRequest, and Conflict where a person has to do something first."""
    connection = opened.connection
    wanted = _wanted(opened, entities, asked.does)
    if asked.mode != "plan":  # the brake does not stop a plan
        brake.refuse(engine.states.read(connection.tenant, connection.uid), wanted)
    return wanted


def start_batch(
    engine: Engine,
    opened: Opened,
    entity: str,
    items: Sequence[results.Item],
    progress: results.Progress,
    origin: str,
) -> Run:
    """Puts a caller's long batch on its way as a run. It waits neither for other batches nor for pulls."""
    connection, tenant = opened.connection, opened.connection.tenant
    run = replace(_new_run(engine, connection, entity, Asked("batch"), origin), cursor=vars(progress))
    watching.watch(engine, tenant, run.id)
    results.keep_items(engine, tenant, run, items)
    run = engine.runs.insert(tenant, run)
    try:
        send(engine, tenant, run)
    except HubError as error:
        if _never_began(engine, tenant, run, error):
            results.forget_items(engine, tenant, run)
            raise
    return run


def _wanted(opened: Opened, entities: Sequence[str], mode: Mode) -> list[str]:
    """The entities of a run: all that go its way, unless some are named."""
    connection = opened.connection
    if mode == "push" and opened.connector.delivers_to:
        raise BadRequest.field(
            "mode", f"mode: {connection.slug} is told of changes when they are made; no run looks for them."
        )

    if mode != "push" and not opened.connector.polls:
        raise BadRequest.field(
            "mode",
            f"mode: {connection.slug} can't be asked for changes; they come by its webhooks.",
        )

    def goes(entity: str) -> bool:
        sync = connection.entities[entity]
        return sync.pushes if mode == "push" else sync.pulls

    wanted = list(dict.fromkeys(entities or filter(goes, connection.entities)))
    if not wanted:
        raise BadRequest.field("mode", f"mode: nothing of {connection.slug} goes that way; see its entities.")
    for entity in wanted:
        if entity not in connection.entities:
            known = ", ".join(connection.entities)
            raise BadRequest.field(
                "entities", f"entities: {connection.slug} has no '{entity}'; it has {known}."
            )
        if not goes(entity):
            way = connection.entities[entity].direction
            raise BadRequest.field(
                "entities",
                f"entities: {entity} of {connection.slug} has direction {way}; a {mode} run does nothing.",
            )
    if connection.paused:
        raise Conflict(
            f"The connection {connection.slug} is paused; resume it by POST /api/integrations/{connection.slug}/resume."
        )
    return wanted


def refuse_old(engine: Engine, plan: Run) -> None:
    """Raises Conflict for a plan that may not be carried out any more."""
    hours = engine.tuning.plan_hours
    if parse_instant(plan.ended_at) + timedelta(hours=hours) < engine.clock.now():
        raise Conflict(f"The plan {plan.id} is older than {hours:g} hours; make another one.")


def send(engine: Engine, tenant: Tenant, run: Run) -> None:
    """The run's first message."""
    engine.send(layout.FRESH, watching.job_of(engine, tenant, run))


def _never_began(engine: Engine, tenant: Tenant, run: Run, error: HubError) -> bool:
    """Ends a run whose message was not sent. Its answer may have been lost: then somebody is at work on the run."""
    try:
        failures.end_run(engine, tenant, run, error.code, error.message)
    except RowChanged:
        return False
    return True


def _refuse_second(engine: Engine, connection: Connection, entities: Sequence[str], asked: Asked) -> None:
    """Of the newest runs: one that does the same, that somebody waits for and that has not ended is enough."""
    recent, _ = engine.runs.page(connection.tenant, top=RECENT_RUNS, token=None)
    now = engine.clock.now()
    oldest, late = hub_time(now - timedelta(hours=RECENT_HOURS)), hub_time(now - STILL_QUEUED)
    for run in recent:
        if run.connection != connection.uid or run.entity not in entities:
            continue
        if Asked.of_run(run) != asked:
            continue
        if not run.ended and run.owed and run.created_at >= oldest:
            if run.status == "queued" and run.created_at < late:
                send(engine, connection.tenant, run)  # whoever asked for it may have died before it was sent
            raise Conflict(
                f"Run {run.id} is doing this for {run.entity} now; follow it at /api/runs/{run.id}."
            )


def _new_run(engine: Engine, connection: Connection, entity: str, asked: Asked, origin: str) -> Run:
    return engine.new_run(
        connection.uid,
        entity,
        asked.mode,
        origin,
        since=asked.since,
        filter=asked.where,
        limit=asked.limit,
        strategy=asked.strategy,
        of=asked.of,
    )
