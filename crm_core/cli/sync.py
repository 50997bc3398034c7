"""Sync: started, planned, applied, and how it goes."""

from typing import Annotated, Any

import typer

from crm_core.cli import decisions, follow
from crm_core.cli.client import path_of
from crm_core.cli.command import PROGRAM, Job, NoWait, Yes, command, group
from crm_core.cli.complete import ConnectionName, OfConnection
from crm_core.cli.failures import Exit, Failure, Refusal

STATUS = (
    "connection", "entity", "health", "paused", "last_success", "lag=lag_seconds", "next_run", "running", "stopped_run", "known",
    "problem=problem.message",
)  # fmt: skip
MODES = ("incremental", "full", "push")
app = group(
    "sync", "Sync, now and by hand.", ["sync status", "sync run demo", "sync plan demo --entity account"]
)

Entities = Annotated[
    list[str] | None,
    typer.Option(
        "--entity",
        "-e",
        metavar="NAME",
        help="This entity (account), perhaps several times; else all that go that way.",
    ),
]
Since = Annotated[
    str, typer.Option("--since", metavar="TIME", help="Only what was modified since: 2026-11-24T13:45:00Z.")
]
Filter = Annotated[str, typer.Option("--filter", metavar="ODATA", help="Only what passes: city eq 'Quito'.")]
Most = Annotated[
    int | None, typer.Option("--limit", min=1, metavar="N", help="Reads so many records at most.")
]
Strategy = Annotated[
    str,
    typer.Option(
        "--strategy", metavar="POLICY",
        help="What decides where both sides changed a field, for this run only: newest, remote, local, manual, skip.",
    ),
]  # fmt: skip
Mode = Annotated[
    str,
    typer.Option(
        "--mode",
        metavar="MODE",
        help="incremental (what is new), full (everything) or push (what is not there yet).",
    ),
]
Decisions = Annotated[int, typer.Option("--decisions", min=0, metavar="N", help="Shows so many decisions.")]


def _body(connection: str, mode: str, **options: Any) -> dict[str, Any]:
    """What is not asked for is left out: an older hub knows fewer options."""
    return {"connection": connection, "mode": mode} | {
        name: value for name, value in options.items() if value
    }


def _mode(mode: str) -> str:
    if mode not in MODES:
        raise Failure(Exit.USAGE, f"--mode: expected one of {', '.join(MODES)}.")
    return mode


@command(
    app,
    "run",
    examples=["sync run demo", "sync run demo --entity account --mode full", "sync run demo --no-wait"],
)
def run(
    job: Job,
    connection: ConnectionName,
    entity: Entities = None,
    mode: Mode = "incremental",
    since: Since = "",
    filter_: Filter = "",
    limit: Most = None,
    strategy: Strategy = "",
    no_wait: NoWait = False,
) -> Exit:
    """Starts a run now and waits for its end; Ctrl-C ends the waiting, not the run."""
    body = _body(
        connection, _mode(mode), entities=entity, since=since, filter=filter_, limit=limit, strategy=strategy
    )
    started = follow.start(job, path_of("runs"), body)
    return follow.show(job, started if no_wait else follow.until_end(job, started))


@command(
    app, "plan",
    examples=["sync plan demo", "sync plan demo --mode full --entity account --output json", "sync plan demo --strategy remote --limit 100"],
)  # fmt: skip
def plan(
    job: Job,
    connection: ConnectionName,
    entity: Entities = None,
    mode: Mode = "incremental",
    since: Since = "",
    filter_: Filter = "",
    limit: Most = None,
    strategy: Strategy = "",
    decisions_: Decisions = 20,
    no_wait: NoWait = False,
) -> Exit:
    """Says what a run would do to each record, and does nothing: neither here nor at a remote system.

    --mode says which run is planned. `sync apply` then does exactly what the plan says.
    """
    body = _body(
        connection,
        "plan",
        of=_mode(mode),
        entities=entity,
        since=since,
        filter=filter_,
        limit=limit,
        strategy=strategy,
    )
    try:
        started = follow.start(job, path_of("runs"), body)
    except Refusal as refusal:
        if refusal.is_about("mode") and refusal.is_about("of"):
            raise Failure(Exit.NOT_FOUND, "This hub does not plan runs yet.", "Update the hub.") from None
        raise
    if no_wait:
        return follow.show(job, started)
    return decisions.show_plan(job, follow.until_end(job, started), decisions_)


PlanId = Annotated[str, typer.Argument(metavar="PLAN", help="The plan's id, as `sync plan` told it.")]


@command(app, "apply", examples=["sync apply PLAN --yes"])
def apply(
    job: Job, plan_id: PlanId, yes: Yes = False, decisions_: Decisions = 20, no_wait: NoWait = False
) -> Exit:
    """Carries out a plan; asks before it does. What has changed since the plan is left alone and listed: exit code 6."""
    found = follow.find(job, plan_id)
    if found["mode"] != "plan":
        raise Failure(
            Exit.USAGE, f"The run {plan_id} is no plan but of mode {found['mode']}.", "`sync plan` makes one."
        )
    if not follow.ended(found):
        raise Failure(
            Exit.CONFLICT,
            "The plan has not ended yet.",
            f"`{PROGRAM} sync status {plan_id} --wait` waits for it.",
        )
    counts = figures(found)
    job.confirm(f"{counts or 'Nothing is known of it'} at {found['connection']}. Apply it?", yes=yes)
    started = follow.start(job, path_of("runs", plan_id, "apply"))
    if no_wait:
        return follow.show(job, started)
    return decisions.show_done(job, follow.until_end(job, started), decisions_)


def figures(run: follow.Run) -> str:
    """What a plan would do, in words: create 3, update 2."""
    plans = [each.get("plan") or {} for each in run.get("children") or [run]]
    totals = {name: sum(int(each.get(name) or 0) for each in plans) for name in decisions.ACTIONS}
    return ", ".join(f"{name} {count}" for name, count in totals.items() if count) or "Nothing to do"


@command(
    app,
    "status",
    examples=["sync status", "sync status --connection demo --output json", "sync status RUN --wait"],
)
def status(
    job: Job,
    run_id: Annotated[str, typer.Argument(metavar="[RUN]", help="A run; else every connection.")] = "",
    connection: OfConnection = "",
    wait: Annotated[bool, typer.Option("--wait", help="Until the run has ended.")] = False,
) -> Exit:
    """Says how sync goes, by connection and entity, or how one run goes."""
    if not run_id:
        found = job.hub.get(path_of("integrations", "status"), {"connection": connection})["value"]
        job.show(found, STATUS, "There is nothing that is kept in step.")
        return Exit.OK
    found = follow.find(job, run_id)
    if wait:
        found = follow.until_end(job, found)
    return follow.show(job, found)
