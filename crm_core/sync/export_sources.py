"""What an export can hold: records, their history, or the log of runs, line by line, each with the place after it."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from datetime import datetime, timedelta
from typing import Any, Literal

from crm_core.model import csv_text
from crm_core.model.connection import Tenant
from crm_core.model.entities import ENTITIES, Entity
from crm_core.model.fields import Field, Type, parse_instant
from crm_core.model.filters import parse_filter
from crm_core.model.json_text import short_json
from crm_core.model.matching import matcher
from crm_core.model.record import HUB, NOTHING, Record
from crm_core.model.state import Run
from crm_core.storage import layout
from crm_core.storage.records import Stored
from crm_core.storage.run_log import Line
from crm_core.sync.engine import Engine

PAGE = 500
"""Rows that are read at a time."""

What = Literal["records", "history", "logs"]
Format = Literal["csv", "jsonl"]
COLUMNS: Mapping[What, Sequence[str]] = {
    "history": ("record", "version", "change", "time", "origin", "run", "by", "old", "losers"),
    "logs": ("time", "level", "event", "message", "connection", "entity", "run", "trace", "facts"),
}
OTHERS = "other_fields"
"""The column of custom fields that a record still has and no mapping names any more."""
NUMBERS = frozenset({Type.INTEGER, Type.DECIMAL, Type.MONEY})
Place = Mapping[str, Any]


@dataclass(frozen=True)
class Wanted:
    """What is exported, as the run's row keeps it. `connection`: a uid; `since`, `until`: of steps and lines, RFC 3339.
    `customs`: the custom fields of the entity, each {name, type, choices}; `names`: uid -> slug, as they were when it was
    asked for. `place`: where it goes on.
    """

    what: What
    format: Format
    connection: str = ""
    until: str = ""
    bom: bool = False
    customs: Sequence[Mapping[str, Any]] = ()
    names: Mapping[str, str] = field(default_factory=dict)
    place: Place = NOTHING

    @classmethod
    def of(cls, run: Run) -> "Wanted":
        known = {each.name for each in fields(cls)}
        return cls(**{name: value for name, value in (run.cursor or {}).items() if name in known})

    def entity(self, name: str) -> Entity:
        """With its custom fields."""
        plain = ENTITIES[name]
        more = (
            Field(each["name"], Type(each["type"]), choices=tuple(each["choices"])) for each in self.customs
        )
        return replace(plain, fields=(*plain.fields, *more)) if self.customs else plain


def customs_of(plain: Entity, whole: Entity) -> list[dict[str, Any]]:
    """The custom fields that an entity has beside its own, as `Wanted` keeps them."""
    return [
        {"name": each.name, "type": str(each.type), "choices": list(each.choices)}
        for each in whole.fields
        if each.name not in plain.by_name
    ]


class Source:
    """What is exported, line by line, each with the place after it; b"" where a page of rows is over."""

    def __init__(self, engine: Engine, tenant: Tenant, run: Run, wanted: Wanted) -> None:
        self.engine = engine
        self.tenant = tenant
        self.run = run
        self.wanted = wanted
        self.names: Mapping[str, str] = {HUB: HUB, **wanted.names}
        self.since = parse_instant(run.since) if run.since else None
        self.until = parse_instant(wanted.until) if wanted.until else None

    @property
    def columns(self) -> Sequence[str]:
        return COLUMNS[self.wanted.what]

    def lines(self, place: Place) -> Iterator[tuple[bytes, Place]]:
        raise NotImplementedError

    def line(self, item: Mapping[str, Any], numbers: frozenset[str] = frozenset()) -> bytes:
        if self.wanted.format == "jsonl":
            return short_json(item) + b"\n"
        cells = (csv_text.cell(item.get(name), number=name in numbers) for name in self.columns)
        return csv_text.row(cells).encode()

    def pages(self, number: int, after: str) -> Iterator[Sequence[Stored]]:
        """The rows of a bucket beyond an id, page by page; one can be empty and not the last."""
        token: str | None = None
        while True:
            rows, token = self.engine.records.page(
                self.tenant, self.run.entity, layout.BUCKETS[number], top=PAGE, token=token, after=after
            )
            yield rows
            if token is None:
                return

    def in_time(self, moment: str) -> bool:
        if self.since is None and self.until is None:
            return True
        when = parse_instant(moment)
        return (self.since is None or when >= self.since) and (self.until is None or when < self.until)


class _Records(Source):
    """The living records of an entity in the order of their ids, those of a connection, those that pass a filter."""

    def __init__(self, engine: Engine, tenant: Tenant, run: Run, wanted: Wanted) -> None:
        super().__init__(engine, tenant, run, wanted)
        self.entity = wanted.entity(run.entity)
        self.test = matcher(parse_filter(run.filter), self.entity) if run.filter else None
        self.numbers = frozenset(each.name for each in self.entity.fields if each.type in NUMBERS)

    @property
    def columns(self) -> Sequence[str]:
        return ("id", "version", *self.entity.by_name, "links", OTHERS)

    def lines(self, place: Place) -> Iterator[tuple[bytes, Place]]:
        for number in range(place.get("bucket", 0), len(layout.BUCKETS)):
            after: str = place.get("after", "") if number == place.get("bucket", 0) else ""
            for rows in self.pages(number, after):
                for row in rows:
                    after = row.id
                    if isinstance(row.content, Record) and self._wants(row.content):
                        yield (
                            self.line(self._item(row.content), self.numbers),
                            {"bucket": number, "after": after},
                        )
                if rows:
                    yield b"", {"bucket": number, "after": after}
            yield b"", {"bucket": number + 1}

    def _wants(self, record: Record) -> bool:
        if record.dead or (self.wanted.connection and not self._lives_at(record)):
            return False
        return self.test is None or self.test(record)

    def _lives_at(self, record: Record) -> bool:
        link = record.links.get(self.wanted.connection)
        return link is not None and link.state == "live"

    def _item(self, record: Record) -> dict[str, Any]:
        live = {uid: link for uid, link in record.links.items() if link.state == "live"}
        links: Any = [
            {"connection": self.names.get(uid, uid), "id": link.rid, "version": link.ver}
            for uid, link in live.items()
        ]
        item = {"id": record.id, "version": record.version, **record.fields, "links": links}
        if self.wanted.format == "jsonl":
            return {"id": record.id, "entity": record.entity, **item}
        others = {name: value for name, value in record.fields.items() if name not in self.entity.by_name}
        return {**item, OTHERS: others or None}


class _History(Source):
    """The steps of the records of an entity, deleted ones too: of each bucket first how its records were made."""

    def lines(self, place: Place) -> Iterator[tuple[bytes, Place]]:
        for number in range(place.get("bucket", 0), len(layout.BUCKETS)):
            here = place if number == place.get("bucket", 0) else NOTHING
            if not here.get("steps"):
                yield from self._made(number, here.get("after", ""))
                here = NOTHING
            yield from self._steps(number, here.get("after", ""))
            yield b"", {"bucket": number + 1}

    def _made(self, number: int, after: str) -> Iterator[tuple[bytes, Place]]:
        for rows in self.pages(number, after):
            for row in rows:
                after = row.id
                if isinstance(row.content, Record):
                    made = {"version": 1, "change": "create", "old": {}, **row.content.created}
                    yield self._line(row.id, made), {"bucket": number, "after": after}
            if rows:
                yield b"", {"bucket": number, "after": after}
        yield b"", {"bucket": number, "steps": True}

    def _steps(self, number: int, after: str) -> Iterator[tuple[bytes, Place]]:
        while True:
            steps, after = self.engine.records.history_page(
                self.tenant, self.run.entity, layout.BUCKETS[number], top=PAGE, after=after
            )
            for rk, record_id, step in steps:
                place = {"bucket": number, "steps": True, "after": rk}
                yield self._line(record_id, vars(step)), place
            if not after:
                return
            yield b"", {"bucket": number, "steps": True, "after": after}

    def _line(self, record_id: str, step: Mapping[str, Any]) -> bytes:
        """b"" for a step that is not wanted."""
        of_another = self.wanted.connection and step["origin"] != self.wanted.connection
        if of_another or not self.in_time(step["time"]):
            return b""
        item = {
            "record": record_id,
            **{name: step[name] for name in ("version", "change", "time")},
            "origin": self.names.get(step["origin"], step["origin"]),
            "run": step.get("run") or None,
            "by": step.get("by") or None,
            "old": dict(step["old"]),
            "losers": dict(step.get("losers") or {}) or None,
        }
        return self.line(item)


class _Logs(Source):
    """Lines of the log of runs, newest first."""

    def lines(self, place: Place) -> Iterator[tuple[bytes, Place]]:
        now = parse_instant(self.run.created_at)
        oldest = now - timedelta(days=self.engine.tuning.log_days)
        since, until = max(self.since or oldest, oldest), min(self.until or now, now)
        if until <= since:
            return
        following: Mapping[str, Any] | None = place
        while following is not None:
            found, following = self._page(following, since, until)
            for line in found:
                day, rk = line.id.split("~", 1)
                yield self.line(self._item(line)), {"day": day, "after": rk}
            if following is not None:
                yield b"", following

    def _page(
        self, place: Place, since: datetime, until: datetime
    ) -> tuple[list[Line], Mapping[str, str] | None]:
        return self.engine.run_log.page(self.tenant, place, since, until, top=PAGE, test=self._wants)

    def _wants(self, line: Line) -> bool:
        wanted = self.wanted.connection
        return (not wanted or line.connection == wanted) and (
            not self.run.entity or line.entity == self.run.entity
        )

    def _item(self, line: Line) -> dict[str, Any]:
        if self.wanted.format == "jsonl":
            return line.shown(self.names)
        return {**line.shown(self.names), "facts": dict(line.facts) or None}


SOURCES: Mapping[str, Callable[[Engine, Tenant, Run, Wanted], Source]] = {
    "records": _Records,
    "history": _History,
    "logs": _Logs,
}
