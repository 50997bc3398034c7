"""What an export costs: the records of a load that is in the store already, into parts, in a process of its own.

Peak memory is to be that of a part and a page of rows, whatever the number of records is.
"""

import csv
import io
import itertools
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass

from benchmarks.worker import ENTITY, FixedIds, Task, cpu_seconds, environment_of, peak_kib
from crm_core.hub import Hub
from crm_core.model.connection import DEFAULT_TENANT
from crm_core.model.state import Run
from crm_core.ports import measured
from crm_core.settings import load
from crm_core.storage import layout
from crm_core.storage.memory import MemoryQueue
from crm_core.sync import export_sources, exports
from crm_core.system import SystemClock

FORMATS: Sequence[export_sources.Format] = ("jsonl", "csv")


@dataclass(frozen=True)
class Exported:
    """`longest`: bytes of the largest part. `peak_kib`: of the process, before a part was read."""

    format: str
    records: int
    parts: int
    longest: int
    seconds: float
    cpu: float
    storage: int
    slices: int
    peak_kib: int


def export(task: Task) -> Exported:
    """Exports the records of the connection that a task of kind "pull" with this salt has loaded, and counts them."""
    wanted_format = next(each for each in FORMATS if each == task.kind.removeprefix("export "))
    clock = SystemClock()
    queue = MemoryQueue(clock)
    hub = Hub(load(environment_of(task)), clock=clock, ids=FixedIds(f"{task.salt} {task.kind}"), queue=queue)
    with closing(hub):
        uid = hub.keys.uid_of(DEFAULT_TENANT, task.salt)
        assert uid is not None
        wanted = export_sources.Wanted("records", wanted_format, uid, names={uid: task.salt})
        hub.engine.blob.delete("warm")  # as in a process that has worked before
        began, cpu = clock.monotonic(), cpu_seconds()
        with measured() as meter:
            run = exports.start(hub.engine, DEFAULT_TENANT, wanted, ENTITY, "key:benchmark", "", "")
            slices = _work(hub, queue)
        cost = clock.monotonic() - began, cpu_seconds() - cpu, meter.total("storage_calls")
        peak = peak_kib()
        ended = hub.runs.get(DEFAULT_TENANT, run.id)
        assert ended is not None
        assert ended.status == "succeeded", ended.problem
        sizes = [_lines(hub, ended, number + 1) for number in range(ended.seen)]
        head = 1 if wanted_format == "csv" else 0
        lines = sum(count for count, _ in sizes) - head
        assert lines == ended.read == task.records, (lines, ended.read, task.records)
        longest = max(size for _, size in sizes)
        return Exported(wanted_format, lines, ended.seen, longest, *cost, slices, peak)


def _lines(hub: Hub, run: Run, number: int) -> tuple[int, int]:
    """How many records of a file a part has, and bytes."""
    data = exports.part(hub.engine, DEFAULT_TENANT, run, number)
    assert data is not None
    if export_sources.Wanted.of(run).format == "jsonl":
        return data.count(b"\n"), len(data)
    return sum(1 for _ in csv.reader(io.StringIO(data.decode(), newline=""), strict=True)), len(data)


def _work(hub: Hub, queue: MemoryQueue) -> int:
    """Handles messages until there are none; gives how many."""
    for handled in itertools.count():
        found = ((lane, message) for lane in layout.QUEUES for message in queue.receive(lane))
        lane, message = next(found, ("", None))
        if message is None:
            return handled
        hub.handle(lane, message.body, 1)
        queue.delete(lane, message)
    raise AssertionError


def lines(found: Sequence[Exported]) -> Iterator[str]:
    for each in found:
        yield (
            f"export: {each.records:,} accounts as {each.format}: {each.parts} parts of at most {each.longest:,} bytes, "
            f"peak {each.peak_kib / 1024:.0f} MiB, {each.storage * 1000 / each.records:.1f} storage calls for 1,000, "
            f"{each.cpu:.1f} CPU s, {each.seconds:.1f} s"
        )
    by_format: dict[str, list[Exported]] = {}
    for each in found:
        by_format.setdefault(each.format, []).append(each)
    for name, group in by_format.items():
        if len(group) > 1:
            yield f"export: peak as {name}, the largest beside the smallest: {_ratio(group):.2f} times"


def _ratio(group: Sequence[Exported]) -> float:
    ordered = sorted(group, key=lambda each: each.records)
    return ordered[-1].peak_kib / ordered[0].peak_kib


def of_json(data: Mapping[str, object]) -> Exported:
    return Exported(**data)  # type: ignore[arg-type]  # as it was written
