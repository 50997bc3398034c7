"""Connections: which there are, how they are, and whether they work."""

from collections.abc import Iterator
from typing import Any

from crm_core.cli.client import path_of
from crm_core.cli.command import Job, command, group
from crm_core.cli.complete import ConnectionName
from crm_core.cli.failures import Exit

COLUMNS = (
    "slug", "connector", "state", "entities=entity_names", "schedule=every", "last_success", "problem=problem.message",
)  # fmt: skip
DETAILS = (
    "slug", "uid", "connector", "state", "problem=problem.message", "not_before", "settings", "secrets", "entities", "mappings",
    "schedule",  "budget", "created_at", "updated_at",
)  # fmt: skip
ENTITIES = (
    "entity", "direction", "policy", "deletes", "match", "filter", "known", "last_success", "next_run", "problem=problem.message",
)  # fmt: skip
BUDGET = ("window", "calls", "seconds", "spent", "left", "runs_out_at")
app = group(
    "connections",
    "The connections to remote systems.",
    ["connections", "connections show demo", "connections test demo"],
)


def _told(item: dict[str, Any]) -> dict[str, Any]:
    """A connection with what a line of a table says of it."""
    schedule = item.get("schedule") or {}
    every = f"{schedule['minutes']} min" if schedule.get("minutes") else schedule.get("cron") or "by hand"
    times = [each["last_success"] for each in item.get("sync") or () if each.get("last_success")]
    return {
        **item,
        "entity_names": list(item.get("entities") or ()),
        "every": every,
        "last_success": max(times, default=None),
    }


@command(app, "list", listing=True, examples=["connections list", "connections --output json"])
def list_(job: Job) -> None:
    """Lists them with their state."""
    found: list[dict[str, Any]] = job.hub.get(path_of("integrations"))["value"]
    raw = job.out.form == "json"
    items: Iterator[dict[str, Any]] = (each if raw else _told(each) for each in found)
    job.show(items, COLUMNS, "There is no connection yet; README.md says how one is made.")


@command(app, "show", examples=["connections show demo"])
def show(job: Job, connection: ConnectionName) -> None:
    """Shows one: its settings, never its secrets, its entities, and how sync goes."""
    found = job.hub.get(path_of("integrations", connection))
    if job.out.form == "table":
        states = {each["entity"]: each for each in found["sync"]}
        rows = [{"entity": name, **each, **states.get(name, {})} for name, each in found["entities"].items()]
        found = {**found, "entities": rows}
    job.out.one(found, DETAILS, below={"entities": ENTITIES, "budget": BUDGET})


@command(app, "test", examples=["connections test demo"])
def test(job: Job, connection: ConnectionName) -> None:
    """Proves by a call to the remote system that the credentials work; one that needed attention works again."""
    job.out.one(job.hub.post(path_of("integrations", connection, "test")))


@command(app, "pause", examples=["connections pause demo"])
def pause(job: Job, connection: ConnectionName) -> None:
    """Stops its schedule; live calls and manual runs go on."""
    _switch(job, connection, "pause")


@command(app, "resume", examples=["connections resume demo"])
def resume(job: Job, connection: ConnectionName) -> Exit:
    """Lets its schedule go on."""
    _switch(job, connection, "resume")
    return Exit.OK


def _switch(job: Job, connection: str, way: str) -> None:
    job.out.one(job.hub.post(path_of("integrations", connection, way)), DETAILS[:5])
