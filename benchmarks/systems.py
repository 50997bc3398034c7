"""Remote calls for 1,000 changed records, at every system that the hub knows, beside the fewest that its API allows.

What the sandboxes are asked, not how long they take: the counts are the same on every machine.
"""

import json
import math
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

from benchmarks.push import ENTITY, Pushes
from benchmarks.worker import Cost, Task
from crm_core.model.connection import DEFAULT_TENANT, EntitySync
from crm_core.storage.memory import MemoryTable

CHANGED = 1_000
LATER = timedelta(minutes=5)
CONNECTORS = Path(__file__).resolve().parents[1] / "crm_core" / "connectors"
MAIL = "person"
"""How the addresses begin of the contacts that the benchmark made."""


@dataclass(frozen=True)
class Remote:
    """`table`, `mail`, `phone`: what contacts are called there. `least`: by what is done with so many of them, the fewest
    calls in which the system's API can do that and tell what came of each.
    """

    table: str
    mail: str
    phone: str
    least: Callable[[int], Mapping[str, int]]


def _dataverse(records: int) -> Mapping[str, int]:
    """A page holds 5,000 rows, a batch and CreateMultiple 1,000; what CreateMultiple made is read by another call."""
    calls = math.ceil(records / 1_000)
    return {"pull": math.ceil(records / 5_000), "create": 2 * calls, "update": calls}


def _odoo(records: int) -> Mapping[str, int]:
    """No limit of a page or of a load is known; what was written is read by another call, for its write_date."""
    calls = math.ceil(records / 1_000)
    return {"pull": calls, "create": 2 * calls, "update": 2 * calls}


REMOTES = {
    "dynamics365": Remote("contact", "emailaddress1", "telephone1", _dataverse),
    "odoo": Remote("res.partner", "email", "phone", _odoo),
}


@dataclass(frozen=True)
class SyncResult:
    """What it cost to make records at a system, to change each of them there, and to read what a person changed there."""

    create: Cost
    update: Cost
    pull: Cost

    @property
    def calls(self) -> Mapping[str, int]:
        """Of the remote, by what was done."""
        return {"pull": self.pull.remote, "create": self.create.remote, "update": self.update.remote}


class _Sync(Pushes):
    entities: Mapping[str, EntitySync] = {ENTITY: EntitySync("both")}

    def later(self) -> None:
        """Beyond the second of what was written, and beyond what a feed reads back."""
        self.clock.ahead += LATER
        self._control("POST", "clock", {"advance": LATER.total_seconds()})

    def edited(self) -> int:
        """A person gives each of the benchmark's contacts another phone at the system; gives how many there are."""
        remote = REMOTES[self.task.remote["system"]]
        rows = f"rows/{remote.table}"
        found = [
            row
            for row in self._control("GET", f"{rows}?limit=1000000")
            if str(row["values"].get(remote.mail)).startswith(MAIL)
        ]
        for number, row in enumerate(found):
            self._control("PATCH", f"{rows}/{row['id']}", {"values": {remote.phone: f"+52 {number}"}})
        return len(found)

    def _control(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> Any:
        request = urllib.request.Request(  # noqa: S310 - our own server on loopback
            f"{self.task.remote['control']}{path}",
            json.dumps(body).encode() if body else None,
            {"Content-Type": "application/json"},
            method=method,
        )
        with urllib.request.urlopen(request) as answer:  # noqa: S310 - the same
            return json.loads(answer.read() or b"null")


def sync(task: Task) -> SyncResult:
    bench = _Sync(task, MemoryTable())
    with closing(bench.hub):
        bench.first_load()
        bench.later()
        bench.write(1)
        bench.push(1)  # as in a process that has met the owner of records
        bench.pull()
        bench.later()
        ids = bench.write(task.records)
        create = bench.push(task.records)
        bench.later()
        bench.change(ids)
        update = bench.push(task.records)
        bench.pull()
        bench.later()
        found = bench.edited()
        pull = bench.pull()
        phones = [bench.hub.records.get(DEFAULT_TENANT, ENTITY, each) for each in ids]
        seen = sum(
            1 for each in phones if each is not None and each.content.fields["phone"].startswith("+52 ")
        )
        if (found, seen) != (task.records + 1, task.records):
            raise RuntimeError(f"of {task.records} contacts {found - 1} are there, and {seen} edits arrived")
        return SyncResult(create, update, replace(pull, records=task.records))


def lines_of(connector: str) -> int:
    """Lines of code and comment of a connector."""
    return sum(len(each.read_text("utf-8").splitlines()) for each in (CONNECTORS / connector).rglob("*.py"))


def lines(found: Mapping[str, SyncResult]) -> Iterator[str]:
    for system, result in found.items():
        least = REMOTES[system].least(result.pull.records)
        calls = ", ".join(f"{what} {each} ({least[what]})" for what, each in result.calls.items())
        yield (
            f"{system}: remote calls for {result.pull.records:,} contacts, and the least possible: {calls}; "
            f"{lines_of(system):,} lines of connector"
        )
