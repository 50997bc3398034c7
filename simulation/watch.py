"""What must hold at every step: looks at each write of the store at the moment it is carried out."""

import json
import re
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from crm_core.ports import Operation, Row
from crm_core.storage import layout
from simulation.history import History
from simulation.scheduler import Scheduler

Key = tuple[str, str, str]
GUARDED = (layout.RECORDS, layout.STATE, layout.RUNS)
WATCHED, _ = layout.watched_range()
"""Say only when a run is looked at: the last one to say so is right."""
"""Tables whose rows are only ever replaced by somebody who has read what is replaced."""


@dataclass
class Watch:
    """Broken invariants are kept in `violations`; the first one ends the simulation."""

    scheduler: Scheduler
    history: History
    remote_version: Callable[[str], str]
    """Of a row at the remote now, "" if it is not there."""
    violations: list[str] = field(default_factory=list)
    late_runs: set[str] = field(default_factory=set)
    """Rows of runs that a worker made after it had lost their lease; the same worker ends them, if it lives."""
    _lease: str = ""
    _etags: dict[Key, str] = field(default_factory=dict)
    _records: dict[Key, Mapping[str, Any]] = field(default_factory=dict)
    _alive: dict[tuple[str, str, str], str] = field(default_factory=dict)
    _steps: dict[str, set[int]] = field(default_factory=lambda: defaultdict(set))

    def broken(self, text: str) -> None:
        self.violations.append(text)
        self.history.note("watch", "## {}", text)

    # --- what a worker knows -------------------------------------------------------------------------------------

    def read(self, table: str, rows: Sequence[Row]) -> None:
        if table in GUARDED:
            seen = self.scheduler.current.work.seen
            for row in rows:
                seen[table, row.pk, row.rk] = row.etag

    def answered(self, table: str, operations: Sequence[Operation], etags: Sequence[str]) -> None:
        if table in GUARDED:
            seen = self.scheduler.current.work.seen
            for operation, etag in zip(operations, etags, strict=True):
                seen[table, operation.row.pk, operation.row.rk] = etag

    # --- what happens to the store -------------------------------------------------------------------------------

    def wrote(self, table: str, operations: Sequence[Operation], etags: Sequence[str]) -> None:
        if table not in GUARDED:
            return
        task = self.scheduler.current
        for operation, etag in zip(operations, etags, strict=True):
            if operation.row.pk.startswith(WATCHED):
                continue
            key = (table, operation.row.pk, operation.row.rk)
            before = self._etags.get(key)
            if operation.kind in {"replace", "upsert"} and task.work.seen.get(key) != before:
                self.broken(
                    f"lost update: {task.name} replaced {table} {key[2]} without having read it as it was"
                )
            if operation.kind == "delete":
                self._etags.pop(key, None)
            else:
                self._etags[key] = etag
            if table == layout.RUNS and operation.kind == "insert":
                run = json.loads(str(operation.row.values["json"]))
                if run["origin"] == "schedule" and self._lease != run["id"]:
                    self.late_runs.add(run["id"])
        if table == layout.RECORDS:
            self._records_written(task.name, operations)
        elif table == layout.STATE:
            self._state_written(task.name, operations)

    def _records_written(self, who: str, operations: Sequence[Operation]) -> None:
        for operation in operations:
            if operation.row.rk.startswith("h~"):
                _, record_id, version = operation.row.rk.split("~")
                self._steps[record_id].add(int(version))
        for operation in operations:
            row = operation.row
            if row.rk >= layout.RECORD_ROWS_END or operation.kind == "delete":
                continue
            if row.values["kind"] != "record":
                self.history.note(who, "   {} {}", row.values["kind"], row.rk)
                continue
            self._record_written(who, row, json.loads(str(row.values["json"])))

    def _record_written(self, who: str, row: Row, after: Mapping[str, Any]) -> None:
        key = (layout.RECORDS, row.pk, row.rk)
        before = self._records.get(key)
        self._records[key] = after
        version, old = after["version"], before["version"] if before else 0
        links = " ".join(f"{link['state']} {link.get('ver', '')}" for link in after["links"].values())
        name = after["fields"].get("name", "")
        self.history.note(who, "=> record {} v{} -> v{} {!r} {}", row.rk, old, version, name, links)
        if version < old:
            self.broken(f"record {row.rk} went back from version {old} to {version}")
        if self._steps[row.rk] != set(range(2, version + 1)):
            self.broken(
                f"record {row.rk} has version {version} and the history {sorted(self._steps[row.rk])}"
            )
        for uid, link in after["links"].items():
            place = (row.pk.split("~")[1], uid, link["rid"])
            if link["state"] == "live":
                other = self._alive.setdefault(place, row.rk)
                if other != row.rk:
                    self.broken(f"remote record {link['rid']} is alive in {other} and in {row.rk}")
            elif self._alive.get(place) == row.rk:
                del self._alive[place]
                if self.remote_version(link["rid"]) == link.get("ver"):
                    self.broken(
                        f"record {row.rk} is marked, but {link['rid']} is as it was: nobody deleted it"
                    )

    def _state_written(self, who: str, operations: Sequence[Operation]) -> None:
        for operation in operations:
            row = operation.row
            if operation.kind == "delete" or "json" not in row.values:
                continue
            state = json.loads(str(row.values["json"]))
            if row.rk == layout.CONNECTION_RK:
                told = f"health {state.get('health')} failures {state.get('failures', 0)}"
                told += f" not before {state['not_before'][11:19]}" if state.get("not_before") else ""
            else:
                self._lease = state.get("lease_run", "")
                told = f"cursor {_place(state.get('cursor'))}, lease {state.get('lease_run') or 'free'}"
                told += f", due {state.get('due', '')[11:19]}"
                told += f", {state['problem']['code']}" if state.get("problem") else ""
            self.history.note(who, "=> state of {}: {}", row.rk.removeprefix("entity~"), told)


def _place(cursor: Mapping[str, Any] | None) -> str:
    """A cursor in a word."""
    if cursor is None:
        return "none"
    match = re.search(r"deltatoken=(\d+)", str(cursor.get("delta", "")))
    if match:
        return f"after {match[1]}"
    return f"after {cursor['since'] or 'nothing'}" if "since" in cursor else "within a page"
