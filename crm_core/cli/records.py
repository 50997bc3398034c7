"""Records: what the hub holds, where it came from, and an earlier version again."""

from collections.abc import Iterable, Iterator
from typing import Annotated, Any

import typer

from crm_core.cli.client import path_of
from crm_core.cli.command import All, Job, Limit, Yes, command, group
from crm_core.cli.decisions import changes
from crm_core.cli.failures import Exit, Failure
from crm_core.cli.output import Item, cell, peek

NAMES = (
    "name",
    "full_name",
    "first_name",
    "last_name",
    "title",
    "subject",
    "number",
    "email",
    "phone",
    "status",
)
"""What a person knows a record by; a table shows those that the first record has."""
HISTORY = ("version", "change", "time", "origin", "by", "run", "changes=told")
WHY = (
    "field", "value", "since", "from=from.origin", "by=from.by", "run", "version", "replaced", "policy", "won=decided.won",
    "lost=decided.lost", "erased",
)  # fmt: skip
LINKS = ("connection", "id", "state", "seen", "behind", "conflicts", "refused", "waits", "parked")
AT = ("connection", "state", "holds", "may_hold")
LEFT = ("field", "message")
app = group(
    "records", "The stored records.",
    ["records list accounts --filter \"city eq 'Quito'\"", "records get accounts RECORD", "records history accounts RECORD"],
)  # fmt: skip

Entity = Annotated[str, typer.Argument(metavar="ENTITIES", help="By its plural: accounts, contacts, cases.")]
RecordId = Annotated[str, typer.Argument(metavar="ID", help="The record's id.")]


@command(
    app, "list",
    examples=["records list accounts --limit 3", 'records list accounts --filter "name ne null" --select name,city --output csv',
              "records list accounts --all --output json"],
)  # fmt: skip
def list_(
    job: Job,
    entities: Entity,
    filter_: Annotated[
        str, typer.Option("--filter", metavar="ODATA", help="Only what passes: city eq 'Quito'.")
    ] = "",
    select: Annotated[
        str, typer.Option("--select", metavar="FIELDS", help="These fields only, with commas.")
    ] = "",
    deleted: Annotated[
        str,
        typer.Option(
            "--deleted", metavar="only|with", help="Deleted records: only them, or with the others."
        ),
    ] = "",
    limit: Limit = 50,
    everything: All = False,
) -> None:
    """Lists records in the order of their ids. CSV and JSON have all fields; a table has --select, or some."""
    query = {"filter": filter_, "select": select, "deleted": deleted}
    pages = job.hub.items(path_of("records", entities), query, limit=None if everything else limit)
    any_of_them, items = peek(pages)
    columns: list[str] = []
    if job.out.form == "table" and any_of_them:
        first, items = _first(items)
        chosen = [each.strip() for each in select.split(",") if each.strip()] or [
            name for name in NAMES if first.get(name)
        ]
        columns = ["id", "version", *dict.fromkeys(chosen), "links=told"]
        items = ({**each, "told": _links(each)} for each in items)
    job.show(items, columns, "There is none.")
    job.more(pages, limit)


def _first(items: Iterable[Any]) -> tuple[dict[str, Any], Iterator[Any]]:
    from itertools import chain

    waiting = iter(items)
    first = next(waiting)
    return first, chain([first], waiting)


def _links(record: Item) -> list[str]:
    """Where it is, and how it is there."""
    return [f"{each['connection']}: {each['state']}" for each in record.get("links") or ()]


@command(app, "get", examples=["records get accounts RECORD", "records get accounts RECORD --output json"])
def get(job: Job, entities: Entity, record_id: RecordId) -> None:
    """Shows one with its links: where it is, and what waits there."""
    job.out.one(job.hub.get(path_of("records", entities, record_id)), below={"links": LINKS})


@command(app, "history", examples=["records history accounts RECORD"])
def history(
    job: Job, entities: Entity, record_id: RecordId, limit: Limit = 100, everything: All = False
) -> None:
    """Says what happened to one, version by version: when, from where, by whom, in which run."""
    pages = job.hub.items(
        path_of("records", entities, record_id, "history"), {"top": None}, limit=None if everything else limit
    )
    raw = job.out.form == "json"
    job.show((each if raw else {**each, "told": _step(each)} for each in pages), HISTORY)
    job.more(pages, limit)


def _step(step: dict[str, Any]) -> str:
    """What a version changed: old and new values, or the old ones where the hub tells no others."""
    old, new = step.get("old") or {}, step.get("new")
    if new is None:
        return "; ".join(f"{name} was {cell(value) or '(empty)'}" for name, value in old.items())
    if step.get("change") == "create":
        return changes(new)
    return changes({name: {"old": old.get(name), "new": new.get(name)} for name in {**old, **new}})


@command(app, "why", examples=["records why accounts RECORD phone"])
def why(
    job: Job,
    entities: Entity,
    record_id: RecordId,
    field: Annotated[str, typer.Argument(metavar="FIELD", help="A field's name.")],
) -> None:
    """Says why a field has its value: where it came from and when, what it replaced, what decided, what each connection holds."""
    found = job.hub.get(path_of("records", entities, record_id, "why", field))
    connections = found.get("connections") or []
    if job.out.form == "csv":
        job.out.rows(
            [{"field": found.get("field"), "value": found.get("value"), **each} for each in connections],
            ("field", "value", *AT),
        )
        return
    job.out.one(found, WHY)
    if job.out.form == "table" and connections:
        job.out.gap()
        job.out.rows(connections, AT)


@command(app, "undo", examples=["records undo accounts RECORD --to 1 --yes"])
def undo(
    job: Job,
    entities: Entity,
    record_id: RecordId,
    version: Annotated[
        int, typer.Option("--to", min=1, metavar="VERSION", help="The version that is wanted again.")
    ],
    yes: Yes = False,
) -> None:
    """Gives a record the values of an earlier version, an ordinary change that goes everywhere; `history` tells the versions."""
    path = path_of("records", entities, record_id)
    try:
        etag = job.hub.get(path)["etag"]
    except Failure as failure:
        if failure.code is not Exit.NOT_FOUND:
            raise
        etag = ""  # of a deleted one that is wanted again, there is nothing to look at
    job.confirm(f"Give {record_id} the values of version {version}, here and at every connection?", yes=yes)
    headers = {"If-Match": etag} if etag else {}
    done = job.hub.call("POST", path + "/undo", None, {"version": version}, headers)[0]
    if job.out.form == "table":
        left = (done.pop("undone", None) or {}).get("left")
        done = {**done, "left": left} if left else done
    job.out.one(done, below={"links": LINKS, "left": LEFT})
