"""Remote systems in memory: a server that people work with, and the connector that the hub speaks through."""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, ClassVar

from crm_core.connector import Account, Change, Connector, Cursor, Page, Query, QueryPage, Tools, Write
from crm_core.errors import FieldError as Wrong
from crm_core.errors import HubError, NotSupported, RecordGone, Rejected, VersionMismatch
from crm_core.model.entities import ENTITIES
from crm_core.model.fields import hub_time
from crm_core.model.mapping import EntityMap, FieldMap, Target
from crm_core.model.matchkeys import match_key
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
KEPT = ("created_at", "updated_at")
"""What a system keeps by itself."""
TAGS = {"contact": "department", "account": "industry"}
"""The field that says which thing a row is; nobody edits it."""


def edited_names(entity: str) -> list[str]:
    """The fields that people edit and the model knows the values of."""
    return [name for name in NAMES[entity] if name not in (TAGS[entity], "email", *REFERENCES, *KEPT)]


class SimMap(EntityMap):
    """The map of an entity; what the system makes of a value is declared here."""

    cut: ClassVar[bool] = False

    def canon(self, name: str, value: Any) -> Any:
        if self.cut and isinstance(value, str):
            return stored(name, value)
        return value


class CutMap(SimMap):
    cut = True


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
    rid: str
    states: list[State]
    made: int
    marker: str = ""

    @property
    def now(self) -> State:
        return self.states[-1]

    def at(self, moment: int) -> State | None:
        """The row as it was then."""
        return next((each for each in reversed(self.states) if each.at <= moment), None)


@dataclass
class Server:
    """`skew`: seconds that its clock is ahead. `rejects`: it refuses values that begin with BAD."""

    name: str
    kind: Kind
    scheduler: Scheduler
    skew: float
    rejects: bool = False
    rows: dict[str, dict[str, ServerRow]] = field(default_factory=dict)
    changed: Callable[[str, str, "ServerRow", Mapping[str, Any] | None, str], None] = lambda *_: None
    """(server, entity, row, fields before, by whom) of each change."""
    numbers: int = 0
    made: int = 0
    trash: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.chance = self.scheduler.chance(f"server {self.name}")

    def table(self, entity: str) -> dict[str, ServerRow]:
        return self.rows.setdefault(entity, {})

    def alive(self, entity: str) -> list[ServerRow]:
        return [each for each in self.table(entity).values() if each.now.fields is not None]

    def get(self, entity: str, rid: str) -> ServerRow | None:
        row = self.table(entity).get(rid)
        return row if row is not None and row.now.fields is not None else None

    def _state(self, fields: Mapping[str, Any] | None) -> State:
        self.numbers += 1
        clock = START + timedelta(microseconds=self.scheduler.now) + timedelta(seconds=self.skew)
        clock = clock.replace(microsecond=0)
        if fields is not None:
            now = hub_time(clock)[:19] + "Z"
            fields = {**fields, "updated_at": now, "created_at": fields.get("created_at", now)}
        return State(self.scheduler.now, fields, self.numbers, clock)

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
        row = table[rid] = ServerRow(rid, [self._state(kept)], self.scheduler.now, marker)
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
            row.states.append(self._state(after))
        self.changed(self.name, entity, row, before, by)
        return row

    def delete(self, entity: str, rid: str, by: str, if_match: str = "") -> None:
        row = self.get(entity, rid)
        if row is None:
            raise RecordGone("gone")
        if if_match and self.kind.if_match and if_match != self.version(row.now):
            raise VersionMismatch("moved on")
        before = row.now.fields
        row.states.append(self._state(None))
        self.changed(self.name, entity, row, before, by)

    def restore(self, entity: str, rid: str, by: str) -> None:
        row = self.table(entity)[rid]
        row.states.append(self._state(row.states[-2].fields))
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
        since = int(cursor["since"]) if cursor else 0
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
        if not part:
            return Page([], {"since": since}, more=False)
        last = max(since, part[-1][0])
        changes = [self.change(row, state) for _, row, state in part]
        self.chance.shuffle(changes)
        return Page(changes, {"since": last}, more=len(found) > size)

    def known_to_index(self, entity: str) -> list[ServerRow]:
        lag = int(self.kind.index_lag * SECOND * self.chance.random())
        moment = self.scheduler.now - lag
        found = []
        for row in self.table(entity).values():
            state = row.at(moment)
            if state is not None and state.fields is not None:
                found.append(row)
        return found


Wire = Callable[[str, Callable[[], Any], bool], Any]
"""Carries out a call at a remote, with what may befall it: (what it is, the call, whether it writes)."""


def connector_class(letter: str) -> type["SimConnector"]:
    kind = KINDS[letter]
    emap = CutMap if kind.cut else SimMap
    entities = {
        name: emap(ENTITIES[name], name, "id", "modified", "version", tuple(map(_field, names)))
        for name, names in NAMES.items()
    }
    return type(
        f"Sim{letter.upper()}",
        (SimConnector,),
        {
            "name": f"sim{letter}", "label": letter, "entities": entities, "versions": kind.versions,
            "own_ids": kind.own_ids, "marks": kind.marks, "if_match": kind.if_match,
            "tells_deletes": kind.tells_deletes, "list_lag_seconds": kind.list_lag,
            "index_lag_seconds": kind.index_lag,
        },
    )  # fmt: skip


def _field(name: str) -> FieldMap:
    targets = (Target(REFERENCES[name], REFERENCES[name], name, "{id}", name),) if name in REFERENCES else ()
    return FieldMap(name, name, targets=targets)


class SimConnector(Connector):
    """One connection's view of a server. `wire` is set by whoever opens it."""

    settings = ()
    origins = ()
    concurrency = 2

    server: Server
    wire: Wire

    def __init__(self, account: Account, tools: Tools) -> None:
        """Never opened the usual way."""

    @classmethod
    def opened(cls, server: Server, wire: Wire) -> "SimConnector":
        made = cls.__new__(cls)
        made.server, made.wire = server, wire
        return made

    def _call(self, what: str, call: Callable[[], Any], *, writes: bool = False) -> Any:
        return self.wire(f"{self.server.name} {what}", call, writes)

    def check(self) -> Mapping[str, Any]:
        return {}

    def describe(self, entity: str) -> Mapping[str, Any]:  # noqa: ARG002
        return {}

    def query(self, entity: str, query: Query) -> QueryPage:  # noqa: ARG002
        raise NotSupported("not asked for here")

    def get(self, entity: str, rid: str, **_: Any) -> Change:
        found = self.get_many(entity, [rid])
        if rid not in found:
            raise RecordGone("gone")
        return found[rid]

    def get_many(self, entity: str, rids: Sequence[str]) -> Mapping[str, Change]:
        def call() -> Mapping[str, Change]:
            rows = [row for rid in dict.fromkeys(rids) if (row := self.server.get(entity, rid)) is not None]
            return {row.rid: self.server.change(row, row.now) for row in rows}

        found: Mapping[str, Change] = self._call(f"get {entity} {' '.join(rids)}", call)
        return found

    def search(self, entity: str, name: str, values: Sequence[str]) -> Sequence[Change]:
        wanted = {match_key(name, value) for value in values}

        def call() -> list[Change]:
            return [
                self.server.change(row, row.now)
                for row in self.server.known_to_index(entity)
                if row.now.fields is not None and match_key(name, row.now.fields.get(name)) in wanted
            ]

        found: Sequence[Change] = self._call(f"search {entity} {values}", call)
        return found

    def marked(self, entity: str, markers: Sequence[str]) -> Sequence[Change]:
        def call() -> list[Change]:
            rows = [row for row in self.server.known_to_index(entity) if row.marker in markers]
            return [self.server.change(row, row.now) for row in rows if row.now.fields is not None]

        found: Sequence[Change] = self._call(f"search {entity} by marker", call)
        return found

    def create(self, entity: str, write: Write) -> Change:
        def call() -> Change:
            row = self.server.create(entity, write.fields, "hub", key=write.key, marker=write.marker)
            return self.server.change(row, row.now)

        made: Change = self._call(
            f"create {entity} {write.fields} {write.key or write.marker}", call, writes=True
        )
        return made

    def update(self, entity: str, rid: str, write: Write, if_match: str = "") -> Change:
        def call() -> Change:
            row = self.server.update(entity, rid, write.fields, "hub", if_match)
            return self.server.change(row, row.now)

        made: Change = self._call(f"update {entity} {rid} {write.fields} if {if_match}", call, writes=True)
        return made

    def delete(self, entity: str, rid: str, if_match: str = "") -> None:
        self._call(
            f"delete {entity} {rid} if {if_match}",
            lambda: self.server.delete(entity, rid, "hub", if_match),
            writes=True,
        )

    def changes(self, entity: str, cursor: Cursor | None, *, size: int) -> Page:
        found: Page = self._call(f"changes {entity} {cursor}", lambda: self.server.page(entity, cursor, size))
        return found

    def explain(self, answer: Any) -> HubError:
        raise NotImplementedError
