"""The golden calls: `counts.json`, by size of the load and of its pages. A lost call shows as a difference."""

import json
from collections.abc import Mapping
from pathlib import Path

from benchmarks.systems import CHANGED, SyncResult
from benchmarks.worker import Cost, Result

FILE = Path(__file__).with_name("counts.json")


def name_of(records: int, page: int) -> str:
    return f"{records} accounts by {page}"


def push_name_of(records: int) -> str:
    return f"{records} contacts pushed"


def sync_name_of(system: str) -> str:
    return f"{CHANGED} contacts of {system}"


def push_calls_of(create: Cost, update: Cost) -> dict[str, dict[str, int]]:
    """What the file holds of a push."""
    parts = {"create": create, "update": update}
    return {name: {"remote": cost.remote, "storage": cost.storage} for name, cost in parts.items()}


def sync_calls_of(result: SyncResult) -> dict[str, dict[str, int]]:
    """What the file holds of a system."""
    parts = {"pull": result.pull, "create": result.create, "update": result.update}
    return {name: {"remote": cost.remote, "storage": cost.storage} for name, cost in parts.items()}


def calls_of(result: Result) -> dict[str, dict[str, int]]:
    """What the file holds of a result."""
    parts = {"first load": result.load, "nothing new": result.nothing}
    return {name: {"remote": cost.remote, "storage": cost.storage} for name, cost in parts.items() if cost}


def golden() -> dict[str, Mapping[str, Mapping[str, int]]]:
    found: dict[str, Mapping[str, Mapping[str, int]]] = json.loads(FILE.read_text())
    return found


def save(found: Mapping[str, Mapping[str, Mapping[str, int]]]) -> None:
    FILE.write_text(json.dumps(found, indent=2) + "\n")
