"""A load, with people at the vendor at work meanwhile, and with the host killed as planned."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from demo import drive
from demo.fill import TABLE
from demo.parts import Parts
from demo.trouble import Trouble
from soak.plan import BATCH_PAGES, Edit, Kill, Plan
from soak.system import Asked, System

_POLL_SECONDS = 0.03
_AGAIN_WITHIN = 120.0
"""Seconds: the lease has lapsed by then and two ticks have come."""


@dataclass(frozen=True)
class Struck:
    """A kill as it came: seconds after the run was asked for, records stored shortly before, pages asked for since the
    host started, seconds until the next host asked for one.
    """

    at: float
    moment: float
    read: int
    pages: int
    again: float


@dataclass
class Load:
    """What came of a load. `run`: as GET /api/runs/{id} tells it at the end; `asked`: of the sandbox in its time."""

    run: dict[str, Any]
    asked: Asked
    seconds: float
    struck: list[Struck] = field(default_factory=list)


class People:
    """Edit by edit, as the load goes on."""

    def __init__(self, system: System, edits: Sequence[Edit]) -> None:
        self._system = system
        self._edits = edits
        self._done = 0
        self.touched: dict[str, int] = {}
        """How often a row was changed that was there before."""
        self.deleted: set[str] = set()
        self.created: set[str] = set()

    def work(self, share: float) -> None:
        """What is due when this share of the load is done."""
        while self._done < min(1.0, share) * len(self._edits):
            self._do(self._edits[self._done], self._done)
            self._done += 1

    def _do(self, edit: Edit, number: int) -> None:
        path = f"/rows/{TABLE}"
        values = {"name": f"Soak {number}", "telephone1": f"+57 1 {number:07}"}
        if edit.verb == "create":
            self.created.add(str(self._system.control.call("POST", path, {"values": values})[1]["id"]))
            return
        self.touched[edit.rid] = self.touched.get(edit.rid, 0) + 1
        if edit.verb == "delete":
            self.deleted.add(edit.rid)
            self._system.control.call("DELETE", f"{path}/{edit.rid}")
        else:
            self._system.control.call("PATCH", f"{path}/{edit.rid}", {"values": values})


def undisturbed(system: System, parts: Parts, slug: str) -> Load:
    """A run that nobody disturbs: the load of a new connection, else what is new."""
    return _Loading(system, parts, slug).to_the_end()


def killed_load(system: System, parts: Parts, plan: Plan, people: People, slug: str) -> Load:
    """A load whose host is killed at each point of the plan; raises Trouble if the load is over before its last kill."""
    loading = _Loading(system, parts, slug)
    for kill in plan.kills:
        loading.kill(kill, plan, people)
    return loading.to_the_end(plan, people)


class _Loading:
    """A run from its beginning to its end."""

    def __init__(self, system: System, parts: Parts, slug: str) -> None:
        self._system, self._parts = system, parts
        drive.connect(system.hub, system.sandbox, slug)
        self._before = self._last = system.asked().last
        self._pages = 0
        self._struck: list[Struck] = []
        self._began = time.monotonic()
        self._run = drive.start_run(system.hub, slug)

    def kill(self, kill: Kill, plan: Plan, people: People) -> None:
        read = self._until(kill.records, plan, people)
        self._linger(kill.pause, read + plan.page * BATCH_PAGES)
        at, moment = time.monotonic() - self._began, time.time()
        self._system.kill_hub()
        self._look()
        pages = self._pages
        self._system.start_hub()
        again = self._at_work_again() - at
        self._struck.append(Struck(at, moment, read, pages, again))

    def _linger(self, seconds: float, records: int) -> None:
        """So long, but not past so many records: on a fast machine the load must not end meanwhile."""
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0 and self._system.run(self._run)["read"] <= records:
            self._parts.pause(min(left, _POLL_SECONDS))

    def _at_work_again(self) -> float:
        """Waits until the new host has asked for a page, or ended the run; gives the seconds since the beginning."""
        died, self._pages = time.monotonic(), 0
        while not self._pages and self._system.run(self._run)["ended_at"] is None:
            if time.monotonic() - died > _AGAIN_WITHIN:
                number = len(self._struck) + 1
                raise Trouble(
                    f"Nobody went on with the run in {_AGAIN_WITHIN:g} seconds after kill {number}."
                )
            self._parts.pause(_POLL_SECONDS)
            self._look()
        return time.monotonic() - self._began

    def _until(self, records: int, plan: Plan, people: People) -> int:
        """Waits until so many are in the store and this host has begun; gives how many there are."""
        while True:
            run = self._system.run(self._run)
            if run["ended_at"] is not None:
                number = len(self._struck) + 1
                raise Trouble(
                    f"The run {run['status']} ({run['problem']}) before kill {number} of {len(plan.kills)}: "
                    "not a soak. More records (RECORDS=) make it longer."
                )
            people.work(run["read"] / plan.records)
            self._look()
            if run["read"] >= records and self._pages:
                return int(run["read"])
            self._parts.pause(_POLL_SECONDS)

    def _look(self) -> None:
        asked = self._system.asked(self._last)
        self._last = asked.last
        self._pages += asked.pages

    def to_the_end(self, plan: Plan | None = None, people: People | None = None) -> Load:
        deadline = time.monotonic() + 900
        while True:
            run = self._system.run(self._run)
            if run["ended_at"] is not None:
                break
            if plan and people:
                people.work(run["read"] / plan.records)
            if time.monotonic() > deadline:
                raise Trouble(f"The run {self._run} hasn't ended after 15 minutes: {run}")
            self._parts.pause(_POLL_SECONDS)
        seconds = time.monotonic() - self._began
        return Load(run, self._system.asked(self._before), seconds, self._struck)
