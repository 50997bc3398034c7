"""Remote systems in memory: what each kind is like, its rows, and its feed."""

import hashlib
from bisect import bisect_right
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from crm_core.connector import Change, Cursor, Page
from crm_core.errors import FieldError as Wrong
from crm_core.errors import RecordGone, Rejected, VersionMismatch
from crm_core.model.fields import hub_time
from simulation.scheduler import SECOND, START, Scheduler

CUT = 6
"""Characters of a `job_title` that the second and the third kind keep."""
BAD = "bad"
"""A value that begins so is rejected where `rejects` says so."""
NAMES: Mapping[str, tuple[str, ...]] = {
    "contact": (
        "last_name",
        "email",
        "phone",
        "job_title",
        "department",
        "account_id",
        "created_at",
        "updated_at",
    ),
    "account": ("name", "phone", "industry", "primary_contact_id", "created_at", "updated_at"),
}
REFERENCES = {"account_id": "account", "primary_contact_id": "contact"}
ONE_WAY = "phone"
"""The field that some connections map inwards or outwards only."""
LATE_SECONDS = 20.0
"""A change may be committed so long after it got its number and its time."""
GAP = 16
"""Numbers that are left free for those that are committed late."""
KEPT = ("created_at", "updated_at")
"""What a system keeps by itself."""
TAGS = {"contact": "department", "account": "industry"}
"""The field that says which thing a row is; nobody edits it."""


def edited_names(entity: str) -> list[str]:
    """The fields that people edit and the model knows the values of."""
    return [name for name in NAMES[entity] if name not in (TAGS[entity], "email", *REFERENCES, *KEPT)]


def stored(name: str, value: str) -> str:
    """What a system of the second or third kind keeps: a title is cut, a phone loses its capitals."""
    if name == "job_title":
        return value[:CUT]
    return value.lower() if name == "phone" else value


@dataclass(frozen=True)
class Kind:
    """How a system behaves."""

    versions: str
    if_match: bool = False
    own_ids: bool = False
    marks: bool = False
    tells_deletes: bool = True
    list_lag: float = 0.0
    index_lag: float = 0.0
    cut: bool = False


KINDS = {
    "a": Kind("ordered", if_match=True, own_ids=True),
    "b": Kind("coarse", marks=True, index_lag=20.0, cut=True),
    "c": Kind("opaque", if_match=True, list_lag=15.0, cut=True, marks=True),
    "d": Kind("opaque", list_lag=15.0, index_lag=10.0, cut=True, tells_deletes=False),
    "e": Kind("coarse", if_match=False, own_ids=True, tells_deletes=False),
    "f": Kind("coarse"),
    "g": Kind("ordered", if_match=True, cut=True),
}


@dataclass
class State:
    """A row as it was from a time on; `fields` None: deleted."""

    at: int
    fields: Mapping[str, Any] | None
    number: int
    modified: datetime


@dataclass
class ServerRow:
    """`by`: who made it. `missed`: a search by a value that it has was answered without it, for the index did not know
    it yet. `looks`: when a read by its id was answered.
    """

    rid: str
    states: list[State]
    made: int
    marker: str = ""
    by: str = ""
    missed: bool = False
    looks: list[int] = field(default_factory=list)

    @property
    def now(self) -> State:
        return self.states[-1]

    def says(self, name: str, state: State) -> bool:
        """Whether a field tells of an edit in a state of the row: that it is empty does so only if it was not before."""
        return any(
            each.fields is not None and each.fields.get(name) is not None
            for each in self.states
            if each.at <= state.at
        )

    def at(self, moment: int) -> State | None:
        """The row as it was then."""
        return next((each for each in reversed(self.states) if each.at <= moment), None)


@dataclass
class Server:
    """`skew`: seconds that its clock is ahead. `rejects`: it refuses values that begin with BAD. `late`: how often a
    person's change is committed after others that began later.
    """

    name: str
    kind: Kind
    scheduler: Scheduler
    skew: float
    rejects: bool = False
    late: float = 0.0
    rows: dict[str, dict[str, ServerRow]] = field(default_factory=dict)
    changed: Callable[[str, str, "ServerRow", Mapping[str, Any] | None, str], None] = lambda *_: None
    """(server, entity, row, fields before, by whom) of each change."""
    numbers: int = 0
    made: int = 0
    trash: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.chance = self.scheduler.chance(f"server {self.name}")
        self._lateness = self.scheduler.chance(f"late {self.name}")
        self._issued: list[tuple[int, int]] = [(0, 0)]
        self._used: dict[int, int] = {}

    def table(self, entity: str) -> dict[str, ServerRow]:
        return self.rows.setdefault(entity, {})

    def alive(self, entity: str) -> list[ServerRow]:
        return [each for each in self.table(entity).values() if each.now.fields is not None]

    def get(self, entity: str, rid: str) -> ServerRow | None:
        row = self.table(entity).get(rid)
        return row if row is not None and row.now.fields is not None else None

    def _clock(self, moment: int) -> datetime:
        clock = START + timedelta(microseconds=moment) + timedelta(seconds=self.skew)
        return clock.replace(microsecond=0)

    def _state(self, fields: Mapping[str, Any] | None, by: str, before: State | None = None) -> State:
        number, modified = self._stamp(by, before)
        if fields is not None:
            now = hub_time(modified)[:19] + "Z"
            fields = {**fields, "updated_at": now, "created_at": fields.get("created_at", now)}
        return State(self.scheduler.now, fields, number, modified)

    def _stamp(self, by: str, before: State | None) -> tuple[int, datetime]:
        """A number and a time; of what is committed late, those of a while ago, but never before the row's last."""
        now = self.scheduler.now
        self.numbers += GAP if self.late else 1
        number, modified = self.numbers, self._clock(now)
        if self.late and by != "hub" and self._lateness.random() < self.late:
            begun = now - int(LATE_SECONDS * SECOND * self._lateness.random())
            past = self._number_at(begun)
            used = self._used.get(past, 0) + 1
            if used < GAP and past + used > (before.number if before else 0):
                self._used[past] = used
                number, modified = past + used, self._clock(begun)
                if before is not None:
                    modified = max(modified, before.modified)
        self._issued.append((now, self.numbers))
        return number, modified

    def _number_at(self, moment: int) -> int:
        return self._issued[max(0, bisect_right(self._issued, (moment, self.numbers)) - 1)][1]

    def _kept(self, fields: Mapping[str, Any], by: str) -> dict[str, Any]:
        wrong = [name for name, value in fields.items() if isinstance(value, str) and value.startswith(BAD)]
        if wrong and self.rejects and by == "hub":
            raise Rejected("no such value", errors=[Wrong(name, "bad") for name in wrong])
        kept = {name: stored(name, value) if self.kind.cut and isinstance(value, str) else value
                for name, value in fields.items()}  # fmt: skip
        return {name: value for name, value in kept.items() if value is not None}

    def create(
        self, entity: str, fields: Mapping[str, Any], by: str, *, key: str = "", marker: str = ""
    ) -> ServerRow:
        table = self.table(entity)
        if key and key in table:
            raise VersionMismatch("exists")
        kept = self._kept(fields, by)
        self.made += 1
        rid = key or f"{self.name}{self.made}"
        row = table[rid] = ServerRow(rid, [self._state(kept, by)], self.scheduler.now, marker, by)
        self.changed(self.name, entity, row, None, by)
        return row

    def update(
        self, entity: str, rid: str, fields: Mapping[str, Any], by: str, if_match: str = ""
    ) -> ServerRow:
        row = self.get(entity, rid)
        if row is None:
            raise RecordGone("gone")
        if if_match and self.kind.if_match and if_match != self.version(row.now):
            raise VersionMismatch("moved on")
        before = row.now.fields
        assert before is not None
        self._kept(fields, by)
        after = self._kept({**before, **fields}, "")
        if (
            after != before or self.chance.random() < 0.5
        ):  # some make a version of a write that changes nothing
            row.states.append(self._state(after, by, row.now))
        self.changed(self.name, entity, row, before, by)
        return row

    def delete(self, entity: str, rid: str, by: str, if_match: str = "") -> None:
        row = self.get(entity, rid)
        if row is None:
            raise RecordGone("gone")
        if if_match and self.kind.if_match and if_match != self.version(row.now):
            raise VersionMismatch("moved on")
        before = row.now.fields
        row.states.append(self._state(None, by, row.now))
        self.changed(self.name, entity, row, before, by)

    def restore(self, entity: str, rid: str, by: str) -> None:
        row = self.table(entity)[rid]
        row.states.append(self._state(row.states[-2].fields, by, row.now))
        self.changed(self.name, entity, row, None, by)

    def version(self, state: State) -> str:
        if self.kind.versions == "ordered":
            return str(state.number)
        if self.kind.versions == "coarse":
            return hub_time(state.modified)[:19] + "Z"
        text = f"{state.number}"
        return hashlib.sha256(text.encode()).hexdigest()[:8]

    def change(self, row: ServerRow, state: State) -> Change:
        fields = dict(state.fields) if state.fields is not None else None
        return Change(row.rid, fields, self.version(state), hub_time(state.modified), marker=row.marker)

    # --- the feed ------------------------------------------------------------------------------------------------

    def page(self, entity: str, cursor: Cursor | None, size: int) -> Page:
        """Changes since a number, some of them once more, in any order; old states by the lag of lists."""
        lag = int(self.kind.list_lag * SECOND * self.chance.random())
        moment = self.scheduler.now - lag
        since, low = self._place(cursor)
        back = self.chance.choice((0, 0, 1, 3)) if cursor else 0
        found = []
        for row in self.table(entity).values():
            state = row.at(moment)
            if state is None or state.number <= since - back:
                continue
            if state.fields is None and not (self.kind.tells_deletes and cursor):
                continue
            found.append((state.number, row, state))
        found.sort(key=lambda each: each[0])
        part = found[:size]
        more = len(found) > size
        last = max(since, part[-1][0]) if part else since
        changes = [self.change(row, state) for _, row, state in part]
        self.chance.shuffle(changes)
        place = {"since": last} if not self.late else {"since": last, "low": low, "more": more}
        return Page(changes, place, more=more)

    def _place(self, cursor: Cursor | None) -> tuple[int, int]:
        """The number after which a page begins, and the one after which the next round does: what is committed late, or
        is not in the lists yet, has a number that may lie before what this round sees.
        """
        since = int(cursor["since"]) if cursor else 0
        if not self.late:
            return since, since
        if cursor and cursor["more"]:
            return since, int(cursor["low"])
        return int(cursor["low"]) if cursor else 0, self.low()

    def low(self) -> int:
        unseen = self.kind.list_lag + LATE_SECONDS
        return self._number_at(self.scheduler.now - int(unseen * SECOND))

    def search(self, entity: str, fits: Callable[[Mapping[str, Any]], bool]) -> list[ServerRow]:
        """The rows that fit and that the index knows; what it does not know yet is missed."""
        known = {row.rid for row in self.known_to_index(entity)}
        found = [row for row in self.alive(entity) if row.now.fields is not None and fits(row.now.fields)]
        for row in found:
            row.missed |= row.rid not in known
        return [row for row in found if row.rid in known]

    def known_to_index(self, entity: str) -> list[ServerRow]:
        lag = int(self.kind.index_lag * SECOND * self.chance.random())
        moment = self.scheduler.now - lag
        found = []
        for row in self.table(entity).values():
            state = row.at(moment)
            if state is not None and state.fields is not None:
                found.append(row)
        return found
