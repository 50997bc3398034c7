"""A run from its start to its end, with its progress on standard error."""

import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from crm_core.cli.client import path_of
from crm_core.cli.command import PROGRAM, Job
from crm_core.cli.failures import Exit, Failure, Unreachable
from crm_core.cli.output import Item, console_of, on_terminal, plain

COLUMNS = (
    "id", "connection", "entity", "mode", "status", "created_at", "seconds", "read",
    "created=counts.created", "updated=counts.updated", "deleted=counts.deleted",
    "unchanged=counts.unchanged", "failed=counts.failed",
)  # fmt: skip
TABLE = (*COLUMNS[:7], "changes")
DETAILS = (
    *COLUMNS[:5], "of", "strategy", "since", "filter", "limit", "origin", "created_at", "started_at", "ended_at", *COLUMNS[6:],
    "remote calls=calls.remote", "storage calls=calls.storage", "outcome", "problem=problem.message", "trace",
)  # fmt: skip
FIRST_POLL, LAST_POLL = 0.2, 2.0
PATIENCE = 60.0
"""Seconds that a hub may be gone while it is waited for: it goes on by itself meanwhile."""
Run = dict[str, Any]
Told = Callable[[Run], None]


def ended(run: Run) -> bool:
    """Whether nothing more happens by itself."""
    return bool(run.get("ended_at")) or run["status"] in ("succeeded", "failed", "stopped", "cancelled")


def start(job: Job, path: str, body: Mapping[str, Any] | None = None) -> Run:
    """Asks for a run, and says so."""
    run: Run = job.hub.post(path, body)
    whose = " of ".join(each for each in (run.get("entity"), run.get("connection")) if each)
    job.say(f"Run {run['id']}: {run['mode']}" + (f", {whose}." if whose else "."))
    return run


def until_end(job: Job, run: Run) -> Run:
    """The run once it has ended. Ctrl-C leaves it as it is, and says how to see it again."""
    try:
        with _progress() as told:
            return _follow(job, run, told)
    except KeyboardInterrupt:
        raise Failure(
            Exit.INTERRUPTED,
            f"The run {run['id']} goes on without you.",
            f"`{PROGRAM} sync status {run['id']} --wait` follows it, `{PROGRAM} runs cancel {run['id']}` ends it.",
        ) from None


def _follow(job: Job, run: Run, told: Told) -> Run:
    pause, silent_since = FIRST_POLL, 0.0
    while not ended(run):
        told(run)
        time.sleep(pause)
        pause = min(pause * 1.3, LAST_POLL)
        try:
            run = job.hub.get(path_of("runs", run["id"]))
            silent_since = 0.0
        except Failure as failure:
            if not isinstance(failure, Unreachable) and getattr(failure, "status", 0) not in (429, 503):
                raise
            silent_since = silent_since or time.monotonic()
            if time.monotonic() - silent_since > PATIENCE:
                raise
    told(run)
    return run


@contextmanager
def _progress() -> Iterator[Told]:
    """What is told of a run is a bar on a terminal, and nothing elsewhere."""
    if not on_terminal(sys.stderr):
        yield lambda _: None
        return
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    shown = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.fields[figures]}"),
        TimeElapsedColumn(),
    )
    with Progress(*shown, console=console_of(sys.stderr), transient=True) as progress:
        task = progress.add_task("waits", total=None, figures="")

        def told(run: Run) -> None:
            done, expected, entity = _figures(run)
            figures = f"{done:,} of {expected:,}" if expected else f"{done:,}"
            status = "waits" if run["status"] == "queued" else run["status"]
            words = plain(" ".join(each for each in (status, entity) if each))
            progress.update(task, completed=done, total=expected, description=words, figures=figures)

        yield told


def _figures(run: Run) -> tuple[int, int | None, str]:
    """Done, expected if that is known, and the entity at which it is."""
    progress = run.get("progress") or {}
    entity = str(progress.get("entity") or run.get("entity") or "")
    return int(progress.get("done") or run.get("read") or 0), progress.get("expected"), entity


def verdict(job: Job, run: Run) -> Exit:
    """The exit code of a run, with a word on standard error where it did not succeed."""
    status = run["status"]
    if status == "succeeded" or not ended(run):
        return Exit.OK
    why = (run.get("problem") or {}).get("message", "")
    lines = [
        f"The run {run['id']} {'was stopped' if status == 'stopped' else 'failed'}{f': {why}' if why else '.'}"
    ]
    for child in run.get("children") or ():
        if child["status"] not in ("succeeded", "running", "queued"):
            reason = (child.get("problem") or {}).get("message", "")
            lines.append(f"  {child.get('entity')}: {child['status']} {reason}".rstrip())
    if status == "stopped":
        parts = run.get("children") or [run]
        stopped = [each["id"] for each in parts if each["status"] == "stopped"]
        lines += [
            f"What to do: `{PROGRAM} runs approve {each}` lets it go on, `{PROGRAM} runs cancel {each}` ends it."
            for each in stopped
        ]
    job.say("\n".join(lines))
    return Exit.FAILED


def show(job: Job, run: Run) -> Exit:
    """The run as data, its parts below it; gives the exit code."""
    children = run.get("children") or []
    if children and job.out.form != "json":
        job.out.rows(*lines(job, [*children, {**run, "entity": "all"}]))
    else:
        job.out.one(run, DETAILS)
    return verdict(job, run)


def lines(job: Job, runs: Iterable[Item]) -> tuple[Iterator[Item], Sequence[str]]:
    """Runs as the rows of a list, and its columns: a table says in one what changed."""
    if job.out.form != "table":
        return iter(runs), COLUMNS
    return ({**run, "changes": _changes(run.get("counts") or {})} for run in runs), TABLE


def _changes(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {count}" for name, count in counts.items() if count) or "nothing"


def find(job: Job, run_id: str) -> Run:
    """Raises Refusal for one that there is not."""
    run: Run = job.hub.get(path_of("runs", run_id))
    return run
