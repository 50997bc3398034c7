"""The hub's log of what it did: searched, and followed."""

import re
import time
from collections import deque
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any

import typer

from crm_core.cli.client import path_of
from crm_core.cli.command import All, Job, Limit
from crm_core.cli.complete import OfConnection
from crm_core.cli.failures import Exit, Failure, Refusal

COLUMNS = ("time", "level", "connection", "entity", "event", "message", "run")
EXAMPLES = (
    "logs --limit 20",
    "logs --level error --since 2h",
    "logs --connection demo --run RUN --output json",
)
POLL = 2.0
LATE = 60.0
"""Seconds that a line may come late."""
SEEN = 5_000
"""Lines that are remembered, so that none is shown twice."""
UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}


def logs(
    job: Job,
    connection: OfConnection = "",
    entity: Annotated[
        str, typer.Option("--entity", "-e", metavar="NAME", help="About this entity only.")
    ] = "",
    run: Annotated[str, typer.Option("--run", metavar="RUN", help="Of this run only.")] = "",
    level: Annotated[
        str, typer.Option("--level", metavar="LEVEL", help="info, warning or error: so bad or worse.")
    ] = "",
    since: Annotated[
        str,
        typer.Option(
            "--since", metavar="TIME", help="From 2026-11-24T13:45:00Z, or the last 30s, 15m, 2h, 7d."
        ),
    ] = "",
    until: Annotated[
        str, typer.Option("--until", metavar="TIME", help="Before that time, written likewise.")
    ] = "",
    text: Annotated[str, typer.Option("--text", metavar="TEXT", help="Only lines with this text.")] = "",
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Shows what comes, until Ctrl-C.")] = False,
    limit: Limit = 100,
    everything: All = False,
) -> Exit:
    """Shows the log lines of syncs. JSON is one array or, with --follow, a line for each."""
    query = {"connection": connection, "entity": entity, "run": run, "level": level, "text": text}
    if follow:
        if until:
            raise Failure(Exit.USAGE, "--until and --follow: say one of them.")
        try:
            job.out.stream(_coming(job, query, _utc(moment(since)) or moment("0s")), COLUMNS)
        except KeyboardInterrupt:
            return Exit.OK
    try:
        job.list(
            _path(), COLUMNS, {**query, "since": moment(since), "until": moment(until)},
            limit=limit, everything=everything, none="There is no such line.",
        )  # fmt: skip
    except Refusal as refusal:
        raise _older(refusal) from None
    return Exit.OK


def _before(text: str) -> str:
    """A little before a time: lines are written at the end of what they tell of, so that older ones may come later."""
    try:
        earlier = datetime.fromisoformat(text) - timedelta(seconds=LATE)
    except (ValueError, OverflowError):
        return ""
    return _text(earlier)


def _utc(text: str) -> str:
    """A time in UTC, so that the order of texts is that of times; what is none as it is, for the hub to refuse."""
    try:
        found = datetime.fromisoformat(text)
        return _text(found) if found.tzinfo else text
    except (ValueError, OverflowError):
        return text


def _text(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _path() -> str:
    return path_of("integrations", "logs")


def _older(refusal: Refusal) -> Failure:
    """An older hub takes the word for the name of a connection."""
    if (refusal.status == 404 and "'logs'" in refusal.message) or "is no parameter" in refusal.message:
        return Failure(Exit.NOT_FOUND, "This hub does not show its log yet.", "Update the hub.")
    return refusal


def moment(text: str) -> str:
    """A time with a zone as it is; what is so long ago, as 15m, as such a time."""
    ago = re.fullmatch(r"(\d{1,6})([smhd])", text)
    if not ago:
        return text
    try:
        return _text(datetime.now(UTC) - timedelta(**{UNITS[ago[2]]: int(ago[1])}))
    except OverflowError:
        raise Failure(Exit.USAGE, f"{text}: is before all time; say less.") from None


def _coming(job: Job, query: dict[str, str], since: str) -> Iterator[dict[str, Any]]:
    """Lines as they come, the oldest first, each once; a hub that does not answer for a while is asked again."""
    seen: set[str] = set()
    order: deque[str] = deque()
    newest, silent = since, 0
    while True:
        try:
            found = list(job.hub.items(_path(), {**query, "since": max(since, _before(newest))}, limit=None))
            silent = 0
        except Refusal as refusal:
            if refusal.status not in (429, 503):
                raise _older(refusal) from None
            found = []
        except Failure as failure:
            silent += 1
            if failure.code is not Exit.UNREACHABLE or silent > 30:
                raise
            found = []
        for line in sorted(found, key=lambda each: str(each["time"])):
            mark = repr(sorted(line.items(), key=lambda each: each[0]))
            if mark in seen:
                continue
            seen.add(mark)
            order.append(mark)
            newest = max(newest, str(line["time"]))
            yield line
        while len(order) > SEEN:
            seen.discard(order.popleft())
        time.sleep(POLL)
