"""What waits for a person: listed, shown, decided, one or many."""

import json
from typing import Annotated, Any

import typer

from crm_core.cli import follow
from crm_core.cli.client import path_of
from crm_core.cli.command import All, Job, Limit, Yes, command, group
from crm_core.cli.complete import OfConnection
from crm_core.cli.failures import Exit, Failure, Refusal

COLUMNS = (
    "id",
    "kind",
    "entity",
    "record",
    "connection",
    "field",
    "ours",
    "theirs",
    "message",
    "time",
    "ways",
)
HELD = ("connection", "state", "holds", "remote_id")
CHOICES = ("take", "does")
PREVIEW = (
    "id",
    "kind",
    "entity",
    "record",
    "connection",
    "field",
    "ours",
    "theirs",
    "pushes=pushed",
    "problem",
)
app = group(
    "conflicts", "What waits for a person's word: conflicts, reviews, refused values.",
    ["conflicts", "conflicts show CONFLICT", "conflicts resolve CONFLICT --take ours"],
)  # fmt: skip

Kind = Annotated[
    str, typer.Option("--kind", metavar="KIND", help="value, flip, match, merge, refused or parked.")
]
Entity = Annotated[
    str,
    typer.Option("--entity", "-e", metavar="ENTITIES", help="Of this entity only, by its plural: accounts."),
]
Field = Annotated[str, typer.Option("--field", metavar="NAME", help="About this field only.")]
Since = Annotated[str, typer.Option("--since", metavar="TIME", help="Since then: 2026-11-24T13:45:00Z.")]
Filter = Annotated[
    str, typer.Option("--filter", metavar="ODATA", help="Of records that pass: city eq 'Quito'.")
]
ConflictId = Annotated[str, typer.Argument(metavar="CONFLICT", help="Its id, as `conflicts` tells it.")]


@command(
    app,
    "list",
    listing=True,
    examples=["conflicts list", "conflicts --kind value --entity accounts --output json"],
)
def list_(
    job: Job,
    kind: Kind = "",
    entity: Entity = "",
    connection: OfConnection = "",
    field: Field = "",
    since: Since = "",
    filter_: Filter = "",
    limit: Limit = 50,
    everything: All = False,
) -> None:
    """Lists what waits: both values of a field, records that may be one, what a system refused."""
    query = {
        "kind": kind,
        "entity": entity,
        "connection": connection,
        "field": field,
        "since": since,
        "filter": filter_,
    }
    job.list(
        path_of("conflicts"),
        COLUMNS,
        query,
        limit=limit,
        everything=everything,
        none="Nothing waits for a person.",
    )


@command(app, "show", examples=["conflicts show CONFLICT"])
def show(job: Job, conflict_id: ConflictId) -> None:
    """Shows one, with the ways in which it can be decided."""
    job.out.one(
        job.hub.get(path_of("conflicts", conflict_id)), below={"connections": HELD, "choices": CHOICES}
    )


@command(
    app, "resolve",
    examples=["conflicts resolve CONFLICT --take ours", 'conflicts resolve CONFLICT --value "Calle 9"',
              "conflicts resolve --kind value --entity leads --take theirs --preview",
              "conflicts resolve --kind value --entity leads --take theirs --yes"],
)  # fmt: skip
def resolve(
    job: Job,
    conflict_id: Annotated[
        str, typer.Argument(metavar="[CONFLICT]", help="One, by its id; else many, by the options.")
    ] = "",
    take: Annotated[
        str,
        typer.Option("--take", metavar="WAY", help="One of its ways: ours, theirs, link, separate, retry."),
    ] = "",
    value: Annotated[
        str | None, typer.Option("--value", metavar="TEXT", help="This value, instead of --take.")
    ] = None,
    value_json: Annotated[
        str | None,
        typer.Option("--value-json", metavar="JSON", help="The same for what is no text: null, true, 5."),
    ] = None,
    etag: Annotated[
        str,
        typer.Option(
            "--etag", metavar="ETAG", help="Of one: only if it is still so, by the etag that it had."
        ),
    ] = "",
    kind: Kind = "",
    entity: Entity = "",
    connection: OfConnection = "",
    field: Field = "",
    since: Since = "",
    filter_: Filter = "",
    preview: Annotated[
        bool, typer.Option("--preview", help="Of many: says what would be decided, and does nothing.")
    ] = False,
    yes: Yes = False,
) -> Exit:
    """Decides one, or all that the options name: unless --yes is said, the first of those are shown, and it asks."""
    decision = _decision(take, value, value_json)
    where = {
        "kind": kind,
        "entity": entity,
        "connection": connection,
        "field": field,
        "since": since,
        "filter": filter_,
    }
    where = {name: text for name, text in where.items() if text}
    if conflict_id and (where or preview):
        raise Failure(Exit.USAGE, "Name one by its id, or many by the options; not both.")
    if conflict_id:
        headers = {"If-Match": _quoted(etag)} if etag else None
        job.out.one(job.hub.call("POST", path_of("conflicts", conflict_id), None, decision, headers)[0])
        return Exit.OK
    if etag:
        raise Failure(
            Exit.USAGE, "--etag: is of one; of many, what has changed since they are shown is left."
        )
    if not where:
        raise Failure(
            Exit.USAGE, "Name one by its id, or many by --kind, --entity, --connection, --field or --filter."
        )
    return _many(job, {"where": where, **decision}, preview=preview, yes=yes)


def _quoted(etag: str) -> str:
    """An etag as a header has it, given with or without its quotes."""
    text = etag[1:-1] if etag[:1] == etag[-1:] == '"' else etag
    if not (text.isascii() and text.isprintable()) or '"' in text:
        raise Failure(Exit.USAGE, "--etag: expected one as `--output json` shows it.")
    return f'"{text}"'


def _decision(take: str, value: str | None, value_json: str | None) -> dict[str, Any]:
    if sum((bool(take and take != "value"), value is not None, value_json is not None)) != 1:
        raise Failure(Exit.USAGE, "Say how it is decided: by --take, --value or --value-json, one of them.")
    if value is not None:
        return {"take": "value", "value": value}
    if value_json is None:
        return {"take": take}
    try:
        return {"take": "value", "value": json.loads(value_json)}
    except ValueError:
        raise Failure(Exit.USAGE, "--value-json: expected JSON, such as null, true or 5.") from None


def _many(job: Job, body: dict[str, Any], *, preview: bool, yes: bool) -> Exit:
    """Shows what would be decided, asks, and has it done: a run, which leaves what has changed since it was shown."""
    path = path_of("conflicts", "resolve")
    try:
        seen = job.hub.post(path, {**body, "preview": True})
    except Refusal as refusal:
        # An older hub takes the word for the id of a conflict.
        if refusal.code is Exit.NOT_FOUND or "extra inputs" in refusal.message:
            raise Failure(
                Exit.NOT_FOUND,
                "This hub decides conflicts one by one only.",
                "Update the hub, or name one by its id.",
            ) from None
        raise
    counts = seen["counts"]
    least = "at least " if counts.get("countIsLowerBound") else ""
    words = f"{least}{counts['conflicts']} by {body['take']}" + (
        f" ({counts['left']} can't be decided so)" if counts.get("left") else ""
    )
    if preview:
        _tell(job, seen)
        job.say(f"Would decide {words}.")
        return Exit.OK
    if not yes and job.out.form == "table":
        _tell(job, seen)
        job.out.gap()
    job.confirm(f"Decide {words}?", yes=yes)
    run = follow.until_end(job, follow.start(job, path, {**body, "as_of": seen["as_of"]}))
    code = follow.show(job, run)
    return Exit.FAILED if run["counts"]["failed"] else code


def _tell(job: Job, seen: dict[str, Any]) -> None:
    """What a preview tells: of each what would change and be sent."""
    if job.out.form == "json":
        job.out.one(seen)
        return
    job.show((_would(each) for each in seen["value"]), PREVIEW, "None of them waits.")


def _would(item: dict[str, Any]) -> dict[str, Any]:
    would = item.get("would") or {}
    pushed = [f"{each.get('action')} at {each.get('connection')}" for each in would.get("pushes") or ()]
    return {**item, "pushed": pushed, "problem": (item.get("problem") or {}).get("message")}
