"""What failed and will not succeed by itself: by cause, shown, and done again."""

from typing import Annotated

import typer

from crm_core.cli.client import path_of
from crm_core.cli.command import All, Job, Limit, Yes, command, group
from crm_core.cli.complete import OfConnection
from crm_core.cli.failures import Exit, Failure

CAUSES = ("cause", "count", "connection", "code", "field", "message", "oldest", "newest")
COLUMNS = ("id", "kind", "connection", "entity", "code", "field", "message", "time", "ways")
app = group(
    "deadletters", "What failed and waits for a person (docs/deadletters.md).",
    ["deadletters", "deadletters show LETTER", "deadletters replay LETTER"],
)  # fmt: skip

Cause = Annotated[
    str, typer.Option("--cause", metavar="CAUSE", help="Of this cause only, as the list tells it.")
]
Letter = Annotated[str, typer.Argument(metavar="ID", help="Its id, as `deadletters list --cause` tells it.")]


@command(
    app, "list", listing=True, examples=["deadletters list", "deadletters --connection demo --output csv"]
)
def list_(
    job: Job, cause: Cause = "", connection: OfConnection = "", limit: Limit = 50, everything: All = False
) -> None:
    """Lists the causes, the largest first; with --cause everything that waits for that one."""
    path, columns = (
        (path_of("deadletters", "causes", cause), COLUMNS) if cause else (path_of("deadletters"), CAUSES)
    )
    # Of causes, a page is what was looked at; the default looks at enough.
    query = {"connection": connection} | ({} if cause else {"top": None})
    job.list(path, columns, query, limit=limit, everything=everything, none="Nothing waits.")


@command(app, "show", examples=["deadletters show LETTER"])
def show(job: Job, letter: Letter) -> None:
    """Shows one, with what it is about."""
    job.out.one(job.hub.get(path_of("deadletters", letter)))


@command(
    app, "replay", examples=["deadletters replay LETTER", "deadletters replay --connection demo --dry-run"]
)
def replay(
    job: Job,
    letter: Annotated[
        str, typer.Argument(metavar="[ID]", help="One, by its id; else many, by the options.")
    ] = "",
    cause: Cause = "",
    connection: OfConnection = "",
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Says what would be done, and does nothing.")
    ] = False,
    yes: Yes = False,
) -> Exit:
    """Has one done again, or all of a cause or connection: those are counted first, and it asks."""
    query = {"dry_run": "true"}
    if letter:
        job.out.one(job.hub.post(path_of("deadletters", letter, "replay"), {}, query if dry_run else None))
        return Exit.OK
    body = {name: text for name, text in (("cause", cause), ("connection", connection)) if text}
    if not body:
        raise Failure(Exit.USAGE, "Name one by its id, or many by --cause or --connection.")
    path = path_of("deadletters", "replay")
    seen = job.hub.post(path, body, query)
    if not dry_run:
        least = "at least " if seen.get("countIsLowerBound") else ""
        job.confirm(f"Have {least}{seen['count']} done again?", yes=yes)
        seen = job.hub.post(path, body)
    job.out.one(seen)
    return Exit.OK
