"""Exports: records, their history, or the log of runs, written into blobs that a caller reads part by part.

A run of mode `export` without a lease: its row says which worker is at it and how far it got, so memory is that of one
part, whatever is exported, and a worker that dies costs the part in hand. Parts put together are the file.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, fields, replace
from datetime import datetime, timedelta
from typing import Any, Literal

from crm_core.errors import HubError
from crm_core.log import bind, current_trace
from crm_core.model import csv_text
from crm_core.model.connection import Tenant
from crm_core.model.entities import ENTITIES, Entity
from crm_core.model.fields import Field, Type, hub_time, parse_instant
from crm_core.model.filters import parse_filter
from crm_core.model.json_text import short_json
from crm_core.model.matching import matcher
from crm_core.model.record import HUB, NOTHING, Record
from crm_core.model.state import Run
from crm_core.ports import Meter, RowChanged, measured
from crm_core.storage import layout
from crm_core.storage.due import DueRow
from crm_core.storage.run_log import Line, note
from crm_core.sync import compare, failures
from crm_core.sync.engine import Engine, Job

JOB = "export"
PART_BYTES = 4 * 1024 * 1024
"""The most that a part holds; a single line that is longer has a part of its own."""
PAGE = 500

What = Literal["records", "history", "logs"]
Format = Literal["csv", "jsonl"]
COLUMNS: Mapping[What, Sequence[str]] = {
    "history": ("record", "version", "change", "time", "origin", "run", "by", "old", "losers"),
    "logs": ("time", "level", "event", "message", "connection", "entity", "run", "trace", "facts"),
}
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


# --- asked for, read, deleted ------------------------------------------------------------------------------------


def start(
    engine: Engine, tenant: Tenant, wanted: Wanted, entity: str, origin: str, since: str, where: str
) -> Run:
    """Puts an export on its way. Its parts are deleted in `export_days`, which is written down before there are any."""
    now = engine.clock.now()
    run = Run(
        layout.newest_first(int(now.timestamp() * 1000), engine.ids.uuid()), wanted.connection, entity, "export",
        origin=origin, created_at=hub_time(now), trace=current_trace(), since=since, filter=where, cursor=vars(wanted),
    )  # fmt: skip
    engine.due.add(tenant, expires_at(engine, run), JOB, run.id, {})
    run = engine.runs.insert(tenant, run)
    bind(run=run.id)
    note("run.asked", f"An export of {wanted.what} was asked for by {origin}.")
    try:
        engine.send(layout.FRESH, Job(JOB, tenant, wanted.connection, entity, run.id, trace=run.trace))
    except HubError as error:
        with suppress(RowChanged):  # the answer was lost, and somebody is at work on it
            failures.end_run(engine, tenant, run, error.code, error.message)
            raise
    return run


def expires_at(engine: Engine, run: Run) -> str:
    """When its parts are deleted."""
    return hub_time(parse_instant(run.created_at) + timedelta(days=engine.tuning.export_days))


def part(engine: Engine, tenant: Tenant, run: Run, number: int) -> bytes | None:
    """A part by its number, from 1 on; None for one that is not there, or not any more."""
    if not 1 <= number <= run.seen:
        return None
    return engine.blob.get(compare.blob_name(tenant, run, number - 1))


def delete(engine: Engine, tenant: Tenant, row: DueRow) -> None:
    """The parts of an export whose time is over."""
    run = engine.runs.get(tenant, row.id)
    if run is not None:
        compare.forget(engine, tenant, run)


# --- the work ----------------------------------------------------------------------------------------------------


def export(engine: Engine, job: Job, lane: str, deliveries: int = 1) -> None:  # noqa: ARG001  # a handler's parameters
    """Works on one slice of an export; what is not done continues in another message."""
    run = engine.runs.get(job.tenant, job.run) if job.run else None
    if run is None or run.mode != "export" or run.ended:
        return
    with measured() as meter, suppress(RowChanged):  # whoever has the row goes on
        _Export(engine, job, lane, run, meter).work()


class _Export:
    def __init__(self, engine: Engine, job: Job, lane: str, run: Run, meter: Meter) -> None:
        self.engine = engine
        self.job = job
        self.run = run
        self.calls = run.calls
        self.meter = meter
        self.wanted = Wanted.of(run)
        self.source = _SOURCES[self.wanted.what](engine, job.tenant, run, self.wanted)
        self.slice_end = engine.slice_end(lane)

    def work(self) -> None:
        self._take()
        lines: list[bytes] = []
        size = count = 0
        place = self.wanted.place
        if not self.run.seen and not place:
            lines = self._head()
            size = sum(map(len, lines))
        for data, after in self.source.lines(place):
            if lines and size + len(data) > PART_BYTES:
                self._put(lines, count, place)
                lines, size, count = [], 0, 0
            if data:
                lines.append(data)
                size, count = size + len(data), count + 1
            place = after
            if not data and self.engine.clock.monotonic() >= self.slice_end:
                self._put(lines, count, place)
                self._continue()
                return
        self._put(lines, count, place)
        self._save(status="succeeded", ended_at=hub_time(self.engine.clock.now()), problem=None)
        failures.told(self.run)

    def _head(self) -> list[bytes]:
        if self.wanted.format != "csv":
            return []
        bom = csv_text.BOM if self.wanted.bom else ""
        return [(bom + csv_text.row(self.source.columns)).encode()]

    def _take(self) -> None:
        """The row names this worker's mark; what another one may have left behind its last save goes."""
        if not self.run.started_at:
            failures.begun(self.run)
        before = self.run
        marked = compare.begin_part(self.run, self.engine.ids.uuid())
        started = self.run.started_at or hub_time(self.engine.clock.now())
        self._save(parts=marked.parts, status="running", started_at=started)
        if before.parts:
            self.engine.blob.delete(compare.blob_name(self.job.tenant, before, before.seen))

    def _put(self, lines: Sequence[bytes], count: int, place: Place) -> None:
        """A part, then the row that counts it and says where the next one begins."""
        if not lines:
            self._save(cursor=vars(replace(self.wanted, place=place)))
            return
        name = compare.blob_name(self.job.tenant, self.run, self.run.seen)
        self.engine.blob.put(name, b"".join(lines))
        try:
            self._save(
                seen=self.run.seen + 1,
                read=self.run.read + count,
                cursor=vars(replace(self.wanted, place=place)),
            )
        except RowChanged:
            self.engine.blob.delete(name)  # it is nobody's
            raise

    def _save(self, **changes: Any) -> None:
        calls = {
            name: self.calls.get(name, 0) + self.meter.total(f"{name}_calls")
            for name in ("remote", "storage")
        }
        self.run = self.engine.runs.save(self.job.tenant, replace(self.run, calls=calls, **changes))

    def _continue(self) -> None:
        self._save(slices=self.run.slices + 1)
        failures.goes_on(self.run)
        self.engine.send(layout.BULK, replace(self.job, attempt=0))


# --- what is exported --------------------------------------------------------------------------------------------


class _Source:
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

    def in_time(self, moment: str) -> bool:
        if self.since is None and self.until is None:
            return True
        when = parse_instant(moment)
        return (self.since is None or when >= self.since) and (self.until is None or when < self.until)


class _Records(_Source):
    """The living records of an entity in the order of their ids, those of a connection, those that pass a filter."""

    def __init__(self, engine: Engine, tenant: Tenant, run: Run, wanted: Wanted) -> None:
        super().__init__(engine, tenant, run, wanted)
        self.entity = wanted.entity(run.entity)
        self.test = matcher(parse_filter(run.filter), self.entity) if run.filter else None
        self.numbers = frozenset(each.name for each in self.entity.fields if each.type in NUMBERS)

    @property
    def columns(self) -> Sequence[str]:
        return ("id", "version", *self.entity.by_name, "links")

    def lines(self, place: Place) -> Iterator[tuple[bytes, Place]]:
        for number in range(place.get("bucket", 0), len(layout.BUCKETS)):
            after: str = place.get("after", "") if number == place.get("bucket", 0) else ""
            while True:
                rows, token = self.engine.records.page(
                    self.tenant, self.run.entity, layout.BUCKETS[number], top=PAGE, token=None, after=after
                )
                for row in rows:
                    after = row.id
                    if isinstance(row.content, Record) and self._wants(row.content):
                        yield (
                            self.line(self._item(row.content), self.numbers),
                            {"bucket": number, "after": after},
                        )
                if token is None:
                    break
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
        return {
            "id": record.id,
            **({"entity": record.entity} if self.wanted.format == "jsonl" else {}),
            "version": record.version,
            **record.fields,
            "links": links,
        }


class _History(_Source):
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
        while True:
            rows, token = self.engine.records.page(
                self.tenant, self.run.entity, layout.BUCKETS[number], top=PAGE, token=None, after=after
            )
            for row in rows:
                after = row.id
                if isinstance(row.content, Record):
                    made = {"version": 1, "change": "create", "old": {}, **row.content.created}
                    yield self._line(row.id, made), {"bucket": number, "after": after}
            if token is None:
                yield b"", {"bucket": number, "steps": True}
                return
            yield b"", {"bucket": number, "after": after}

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


class _Logs(_Source):
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


_SOURCES: Mapping[str, Callable[[Engine, Tenant, Run, Wanted], _Source]] = {
    "records": _Records,
    "history": _History,
    "logs": _Logs,
}
