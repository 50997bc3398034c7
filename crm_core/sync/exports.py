"""Exports: records, their history, or the log of runs, written into blobs that a caller reads part by part.

A run of mode `export` without a lease: its row says which worker is at it and how far it got, so memory is that of one
part, whatever is exported, and a worker that dies costs the part in hand. Parts put together are the file.
"""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import timedelta
from typing import Any

from crm_core.errors import BadRequest
from crm_core.model import csv_text
from crm_core.model.connection import Tenant
from crm_core.model.fields import hub_time, parse_instant
from crm_core.model.state import Run
from crm_core.ports import Meter, RowChanged, measured, wire_size
from crm_core.storage import layout
from crm_core.storage.due import DueRow
from crm_core.storage.state import json_values
from crm_core.sync import compare, failures, starting
from crm_core.sync.engine import Engine, Job, calls_with
from crm_core.sync.export_sources import SOURCES, Place, Wanted

JOB = "export"
PART_BYTES = 4 * 1024 * 1024
"""The most that a part holds; a single line that is longer has a part of its own."""
MAX_ASKED_BYTES = 48 * 1024
"""Of the run's row at its beginning, which has 64 KiB; it grows by a mark for each slice."""
TOO_LARGE = {
    "filter": "is too long for an export of this entity; make it shorter.",
    "entity": "has more custom fields, with their choices, than an export can carry; take choices out of their mappings.",
    "connection": "there are more connections than an export can name; delete those that are not used any more.",
}
"""What to do about each thing that may be too large."""

# --- asked for, read, deleted ------------------------------------------------------------------------------------


def start(
    engine: Engine, tenant: Tenant, wanted: Wanted, entity: str, origin: str, since: str, where: str
) -> Run:
    """Puts an export on its way. Its parts are deleted in `export_days`, which is written down before there are any.

    Raises BadRequest for what its row can't hold.
    """
    run = engine.new_run(
        wanted.connection, entity, "export", origin, since=since, filter=where, cursor=vars(wanted)
    )
    _check_size(run, wanted)
    engine.due.add(tenant, expires_at(engine, run), JOB, run.id, {})
    return starting.begin_one(engine, tenant, run, f"An export of {wanted.what}")


def _check_size(run: Run, wanted: Wanted) -> None:
    """Raises BadRequest that names what the run's row can't hold."""
    if _size(run.to_json()) <= MAX_ASKED_BYTES:
        return
    sizes = {
        "filter": _size({"": run.filter}),
        "entity": _size({"": wanted.customs}),
        "connection": _size({"": wanted.names}),
    }
    largest = max(sizes, key=lambda name: sizes[name])
    raise BadRequest.field(largest, f"{largest}: {TOO_LARGE[largest]}")


def _size(data: Mapping[str, Any]) -> int:
    """In bytes, as the store counts them."""
    return wire_size(json_values(data)["json"])


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
    compare.forget(engine, tenant, row.id)


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
        self.source = SOURCES[self.wanted.what](engine, job.tenant, run, self.wanted)
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
        calls = calls_with(self.calls, self.meter)
        self.run = self.engine.runs.save(self.job.tenant, replace(self.run, calls=calls, **changes))

    def _continue(self) -> None:
        self._save(slices=self.run.slices + 1)
        failures.goes_on(self.run)
        self.engine.send(layout.BULK, replace(self.job, attempt=0))
