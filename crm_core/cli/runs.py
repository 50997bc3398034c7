"""Runs: which there were, what they did, and what a person can do about them."""

from typing import Annotated

import typer

from crm_core.cli import decisions, follow
from crm_core.cli.client import path_of
from crm_core.cli.command import All, Job, Limit, NoWait, Yes, command, group
from crm_core.cli.failures import Exit

app = group(
    "runs",
    "What syncs did, and how they are ended or undone.",
    ["runs", "runs show RUN", "runs decisions PLAN"],
)

RunId = Annotated[str, typer.Argument(metavar="RUN", help="A run's id.")]


@command(app, "list", listing=True, examples=["runs list", "runs --limit 5 --output csv"])
def list_(job: Job, limit: Limit = 20, everything: All = False) -> None:
    """Lists them, the newest first. A scheduled pull that changed nothing leaves none."""
    pages = job.hub.items(path_of("runs"), limit=None if everything else limit)
    job.show(*follow.lines(job, pages), "There was no run yet.")
    job.more(pages, limit)


@command(app, "show", examples=["runs show RUN"])
def show(job: Job, run_id: RunId) -> Exit:
    """Shows one, with its parts. A run that failed is told of by exit code 1."""
    return follow.show(job, follow.find(job, run_id))


@command(
    app,
    "decisions",
    examples=["runs decisions PLAN --action update", "runs decisions PLAN --all --output json"],
)
def list_decisions(
    job: Job,
    run_id: RunId,
    action: Annotated[
        str,
        typer.Option("--action", metavar="NAME", help=f"Of this kind only: {', '.join(decisions.ACTIONS)}."),
    ] = "",
    limit: Limit = 50,
    everything: All = False,
) -> None:
    """Lists what a plan would do to each record, or what an apply did."""
    from itertools import islice

    found = decisions.of_run(job, follow.find(job, run_id), action)
    some = found if everything else islice(found, limit)
    job.show(decisions.told(job, some), (*decisions.COLUMNS, "outcome", "why"), "There is none.")
    if not everything and next(found, None) is not None:
        job.say(f"These are the first {limit}; --limit and --all show more.")


@command(app, "approve", examples=["runs approve STOPPED"])
def approve(job: Job, run_id: RunId, no_wait: NoWait = False) -> Exit:
    """Lets a run that the brake stopped go on, and waits for its end."""
    started = follow.start(job, path_of("runs", run_id, "approve"))
    return follow.show(job, started if no_wait else follow.until_end(job, started))


@command(app, "cancel", examples=["runs cancel STOPPED"])
def cancel(job: Job, run_id: RunId) -> None:
    """Ends a run; what it has done stays done."""
    job.out.one(job.hub.post(path_of("runs", run_id, "cancel")), follow.DETAILS)


@command(app, "undo", examples=["runs undo RUN --yes"])
def undo(job: Job, run_id: RunId, yes: Yes = False, decisions_: Annotated[
    int, typer.Option("--decisions", min=0, metavar="N", help="Shows so many decisions.")
] = 20) -> Exit:  # fmt: skip
    """Gives the records that a run changed their earlier values: shows the plan of it, asks, and carries it out."""
    from crm_core.cli.sync import figures

    planned = follow.until_end(job, follow.start(job, path_of("runs", run_id, "undo")))
    if planned["status"] != "succeeded":
        return decisions.show_plan(job, planned, decisions_)
    if not yes and job.out.form == "table":
        decisions.show_plan(job, planned, decisions_)
        job.out.gap()
    job.confirm(f"{figures(planned)} at {planned['connection']}. Undo it so?", yes=yes)
    started = follow.start(job, path_of("runs", planned["id"], "apply"))
    return decisions.show_done(job, follow.until_end(job, started), decisions_)
