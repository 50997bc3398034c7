"""The decisions of a plan, an apply or an undo: what a run would do, or did, to each record."""

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any

from crm_core.cli.client import path_of
from crm_core.cli.command import PROGRAM, Job
from crm_core.cli.failures import Exit
from crm_core.cli.follow import Run, verdict
from crm_core.cli.output import cell

ACTIONS = ("create", "update", "link", "delete", "revive", "conflict", "later", "failed")
COLUMNS = ("id", "action", "entity", "record=record_id", "remote=remote_id", "changes=told", "pushes=pushed")
DONE = ("id", "outcome", "action", "entity", "record=record_id", "changes=told", "why")
SUMMARY = (
    "entity", *(f"{each}=plan.{each}" for each in ACTIONS), "unchanged=plan.unchanged", "remote calls=plan.remote_calls",
    "seconds=plan.seconds", "pushes=plan.pushes", "brakes=plan.brakes",
)  # fmt: skip


def of_run(job: Job, run: Run, action: str = "") -> Iterator[dict[str, Any]]:
    """Every decision of a run, and of its parts one after the other, page by page."""
    yield from job.hub.items(path_of("runs", run["id"]), {"action": action}, limit=None, name="decisions")


def changes(fields: Any) -> str:
    """Fields with their old and new values, as people read them."""
    if not isinstance(fields, dict):
        return ""
    return "; ".join(_change(name, value) for name, value in fields.items())


def _change(name: str, value: Any) -> str:
    if isinstance(value, dict) and {"old", "new"} & set(value):
        return f"{name}: {_word(value.get('old'))} -> {_word(value.get('new'))}"
    if isinstance(value, dict) and {"ours", "theirs"} & set(value):
        wins = f", {value['wins']} wins" if value.get("wins") else ""
        return f"{name}: ours {_word(value.get('ours'))}, theirs {_word(value.get('theirs'))}{wins}"
    return f"{name}: {_word(value)}"


def _word(value: Any) -> str:
    if value == {"assigned": True}:
        return "(the system gives it)"
    return cell(value) if value not in (None, "") else "(empty)"


def told(job: Job, decisions: Iterable[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """As they are for JSON, else with what a line of a table says of them."""
    for each in decisions:
        if job.out.form == "json":
            yield each
            continue
        fields = each.get("fields") or {}
        if each.get("action") == "create":
            fields = {name: value.get("new") for name, value in fields.items()}
        words = [changes(fields), changes(each.get("conflicts")), " ".join((each.get("left") or {}).values())]
        pushed = [f"{push.get('action')} at {push.get('connection')}" for push in each.get("pushes") or ()]
        yield {**each, "told": "; ".join(filter(None, words)), "pushed": pushed}


def show_plan(job: Job, run: Run, limit: int) -> Exit:
    """What a plan says: its figures and the first decisions; JSON has both in one."""
    found = list(islice(of_run(job, run), limit))
    if job.out.form == "json":
        job.out.one({**run, "decisions": found})
    elif job.out.form == "csv":
        job.out.rows(told(job, found), COLUMNS)
    else:
        parts = run.get("children") or []
        job.out.rows([*parts, {**run, "entity": "all"}] if parts else [run], SUMMARY)
        job.out.gap()
        job.show(told(job, found), COLUMNS, "Nothing would be done.")
    if erased := (run.get("plan") or {}).get("erased"):
        job.say(erased["why"])
    if found:
        job.say(
            f"`{PROGRAM} runs decisions {run['id']}` lists all of them, `{PROGRAM} sync apply {run['id']}` carries them out."
        )
    return verdict(job, run)


def show_done(job: Job, run: Run, limit: int) -> Exit:
    """What an apply or undo did: how many, and those that it did not do."""
    sums: dict[str, int] = run.get("outcome") or {}
    left: list[dict[str, Any]] = []
    if any(count for name, count in sums.items() if name != "applied"):
        left = list(islice((each for each in of_run(job, run) if each.get("outcome") != "applied"), limit))
    if job.out.form == "json":
        job.out.one({**run, "decisions": left})
    elif job.out.form == "csv":
        job.out.rows(told(job, left), DONE)
    else:
        job.out.one(
            run,
            ("id", "mode", "status", *(f"{name}=outcome.{name}" for name in sums), "problem=problem.message"),
        )
        if left:
            job.out.gap()
            job.out.rows(told(job, left), DONE)
    code = verdict(job, run)
    if code is Exit.OK and sums.get("drifted"):
        job.say(
            f"{sums['drifted']} of {sum(sums.values())} were not done: what they were about has changed since."
            " A new plan takes it in."
        )
        return Exit.CONFLICT
    return Exit.FAILED if sums.get("failed") else code
