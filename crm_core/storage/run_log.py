"""The log of runs: what people want to know of the work that nobody watched, a small row for each line, newest first.

Lines are noted while work is done and written once at its end, in one transaction for each day: work that has nothing to
tell costs no call. A line that can't be written never fails the work. It holds no secret and no body: ids, names of
fields, counts, and the words of a system, shortened.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any, Literal

from crm_core.errors import HubError
from crm_core.log import Log, about
from crm_core.model.connection import DEFAULT_TENANT, Tenant
from crm_core.model.fields import hub_time, parse_instant
from crm_core.model.record import NOTHING
from crm_core.ports import Clock, Ids, Operation, Row, StoreError, Table, some_rows
from crm_core.storage import layout
from crm_core.storage.ageing import PAGE_ROWS, drop
from crm_core.storage.state import json_data, json_values

_log = Log("crm_core.storage")

Level = Literal["info", "warning", "error"]
LEVELS: Sequence[Level] = ("info", "warning", "error")
MAX_OF_EVENT = 20
"""So many lines of one event does a piece of work leave; how many more there were is told by one more."""
MAX_LINES = 90
"""In all; a transaction takes 100 rows."""
MAX_MESSAGE = 500
READ_ROWS = 1000
MAX_EXAMINED, MAX_CALLS = 5000, 10
"""Rows that one page of lines looks at, and calls that it makes: an empty day costs one, too."""


@dataclass(frozen=True)
class Line:
    """One thing that happened. `event`: a word from a fixed list, such as `run.ended`; `facts`: ids, names, counts."""

    time: str
    level: Level
    event: str
    message: str
    connection: str = ""
    entity: str = ""
    run: str = ""
    trace: str = ""
    facts: Mapping[str, Any] = NOTHING
    id: str = field(default="", compare=False)

    def to_json(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if value and name != "id"}

    def shown(self, names: Mapping[str, str]) -> dict[str, Any]:
        """As people see it, its facts beside the rest; `names`: connection uid -> slug."""
        own = {
            "time": self.time,
            "level": self.level,
            "event": self.event,
            "message": self.message,
            "connection": names.get(self.connection, self.connection) or None,
            "entity": self.entity or None,
            "run": self.run or None,
            "trace": self.trace or None,
        }
        return {**self.facts, **own}

    @classmethod
    def from_json(cls, data: Mapping[str, Any], line_id: str) -> "Line":
        known = {name: value for name, value in data.items() if name in cls.__dataclass_fields__}
        return cls(**{"message": "", **known, "id": line_id})


# --- noting ------------------------------------------------------------------------------------------------------


@dataclass
class _Noted:
    """The lines of the work in hand; those that are too many are only counted."""

    clock: Clock
    tenant: Tenant = DEFAULT_TENANT
    lines: list[Line] = field(default_factory=list)
    of_event: Counter[str] = field(default_factory=Counter)

    def add(self, line: Line) -> None:
        self.of_event[line.event] += 1
        if self.of_event[line.event] <= MAX_OF_EVENT and len(self.lines) < MAX_LINES:
            self.lines.append(line)

    def all(self) -> list[Line]:
        """With a line for each event of which there were more; it is about what the first line is about."""
        kept = Counter(each.event for each in self.lines)
        first, now = self.lines[0], hub_time(self.clock.now())
        return [
            *self.lines,
            *(
                replace(
                    first,
                    time=now,
                    level="info",
                    event=event,
                    message=f"And {left} more of these.",
                    facts={"more": left},
                )
                for event, amount in self.of_event.items()
                if (left := amount - kept[event])
            ),
        ]


_noted: ContextVar[_Noted | None] = ContextVar("noted", default=None)


def note(event: str, message: str, level: Level = "info", **more: Any) -> None:
    """A line of the work in hand; without one that collects lines it is dropped.

    Connection, entity, run and trace are those of the work, unless `more` names others; what else it has are facts.
    """
    noted = _noted.get()
    if noted is None:
        return
    where = {
        name: str(more.pop(name, "") or about(name)) for name in ("connection", "entity", "run", "trace")
    }
    facts = {name: value for name, value in more.items() if value not in (None, "", [], {})}
    tenant = about("tenant")
    if tenant:
        noted.tenant = Tenant(tenant)
    words = message[:MAX_MESSAGE].encode("utf-8", "replace").decode()  # a system may send half characters
    noted.add(Line(hub_time(noted.clock.now()), level, event, words, **where, facts=facts))


@contextmanager
def collected(log: "RunLog", clock: Clock) -> Iterator[None]:
    """Collects what is noted inside the block, also by threads of a Pool, and writes it at the end, however that comes."""
    noted = _Noted(clock)
    token = _noted.set(noted)
    try:
        yield
    finally:
        _noted.reset(token)
        if noted.lines:
            try:
                log.write(noted.tenant, noted.all())
            except (StoreError, HubError, ValueError) as error:  # also of a text that no store takes
                _log.warning("lines not written", error=type(error).__name__)


# --- stored ------------------------------------------------------------------------------------------------------


class RunLog:
    def __init__(self, table: Table, ids: Ids) -> None:
        self._table = table
        self._ids = ids

    def write(self, tenant: Tenant, lines: Sequence[Line]) -> None:
        """One call, two around midnight."""
        mark = self._ids.uuid()[:12]
        days: dict[str, list[Operation]] = {}
        for number, line in enumerate(lines):
            milliseconds = int(parse_instant(line.time).timestamp() * 1000)
            # The later of two lines of one moment comes first, too.
            rk = f"{layout.journal_time(milliseconds)}-{mark}~{999 - number:03d}"
            row = Row(layout.journal_pk(tenant, line.time[:10]), rk, json_values(line.to_json()))
            days.setdefault(line.time[:10], []).append(Operation("insert", row))
        for operations in days.values():
            self._table.transact(layout.JOURNAL, operations)

    def page(
        self,
        tenant: Tenant,
        place: Mapping[str, str],
        since: datetime,
        until: datetime,
        *,
        top: int,
        test: Callable[[Line], bool],
    ) -> tuple[list[Line], Mapping[str, str] | None]:
        """Lines from `since` until before `until` that pass, newest first: (at most `top`, the place after them or None).

        `place`: {} for the beginning. A page looks at a bounded number of rows and days: it can be short, or empty, and
        not the last.
        """
        found: list[Line] = []
        day, after = place.get("day") or until.date().isoformat(), place.get("after", "")
        examined = 0
        for _ in range(MAX_CALLS):
            rows, more = self._rows(tenant, day, after, since, until)
            for row in rows:
                examined, after = examined + 1, row.rk
                line = Line.from_json(json_data(row), f"{day}~{row.rk}")
                if test(line):
                    found.append(line)
                    if len(found) == top:
                        return found, {"day": day, "after": after}
            if not more:
                day, after = _day_before(day), ""
                if day < since.date().isoformat():
                    return found, None
            if examined >= MAX_EXAMINED:
                break
        return found, {"day": day, "after": after}

    def _rows(
        self, tenant: Tenant, day: str, after: str, since: datetime, until: datetime
    ) -> tuple[Sequence[Row], bool]:
        """Of one day, beyond the row key `after`; and whether there may be more of it. One call, unless a page is empty and not
        the last.
        """
        newest = layout.journal_time(int(until.timestamp() * 1000) - 1)
        oldest = layout.journal_time(int(since.timestamp() * 1000))
        page = some_rows(
            self._table, layout.JOURNAL, pk=layout.journal_pk(tenant, day), rk=max(newest, f"{after}!" if after else ""),
            rk_to=oldest + layout.AFTER, top=READ_ROWS,
        )  # fmt: skip
        return page.rows, page.token is not None

    def drop_before(self, tenant: Tenant, day: str, token: str | None) -> str | None:
        """Deletes a page of the lines of the days before one; gives the next page."""
        first, after = layout.journal_range(tenant, day)
        page = self._table.query(
            layout.JOURNAL, pk=first, pk_to=after, top=PAGE_ROWS, token=token, select=["v"]
        )
        drop(self._table, layout.JOURNAL, page.rows)
        return page.token


def _day_before(day: str) -> str:
    return (datetime.fromisoformat(day) - timedelta(days=1)).date().isoformat()
