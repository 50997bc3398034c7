"""Deletes that a feed does not show: a full run remembers which records it read, and looks at the others.

Ids are kept as 16 bytes each in one blob per batch, so memory stays small; nothing is deleted that a point read
still finds.
"""

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial

from crm_core.connector import Change
from crm_core.model.connection import Tenant
from crm_core.model.fields import hub_time
from crm_core.model.record import Record
from crm_core.model.state import Run
from crm_core.storage import layout
from crm_core.storage.ageing import drop_blobs
from crm_core.sync.apply import Applier
from crm_core.sync.engine import Engine
from crm_core.sync.merge import Snapshot

ID_BYTES = 16
LOOK_BATCH = 500
NUMBER_DIGITS = 6


def begin_part(run: Run, mark: str) -> Run:
    """The run in the hands of a worker with a mark of its own. The mark of one that wrote nothing is forgotten."""
    kept = tuple(each for each in run.parts if int(each[:NUMBER_DIGITS]) < run.seen)
    return replace(run, parts=(*kept, f"{run.seen:0{NUMBER_DIGITS}}-{mark[:8]}"))


def remember(applier: Applier, run: Run, batch: Sequence[Snapshot]) -> Run:
    """Keeps the ids of a batch before it is applied; gives the run with the number of its blobs."""
    ids = (bytes.fromhex(applier.record_id(each.change.rid).replace("-", "")) for each in batch)
    applier.engine.blob.put(blob_name(applier.tenant, run, run.seen), b"".join(sorted(ids)))
    return replace(run, seen=run.seen + 1)


def delete_missing(
    applier: Applier, run: Run, bucket: str, judge: Callable[[int, Callable[[], int]], None]
) -> int:
    """Applies deletes to the live records of a bucket that the run did not read and a point read does not find.

    `judge`: called before some are applied, with how many they are at most, and what tells how many surely; it raises
    where they are too many. Gives how many of the bucket's records live at the connection afterwards.
    """
    seen = set(_seen(applier, run, int(bucket, 16)))
    live = 0

    def missing() -> Iterator[str]:
        nonlocal live
        for record_id, rid in living(applier, bucket):
            live += 1
            if record_id not in seen:
                yield rid

    candidates = missing()
    before = applier.tally.known
    while rids := list(itertools.islice(candidates, LOOK_BATCH)):
        judge(len(rids), partial(_gone, applier, rids))
        now = hub_time(applier.engine.clock.now())
        applier.apply([Snapshot(Change(rid, None), now, now) for rid in rids])
    return live + applier.tally.known - before


def _gone(applier: Applier, rids: Sequence[str]) -> int:
    """How many of the remote records a point read does not find."""
    return len(rids) - len(applier.opened.connector.get_many(applier.entity.name, rids))


def forget(engine: Engine, tenant: Tenant, run_id: str) -> None:
    """Deletes the blobs of a run, those of workers too that died or were overtaken before its row named them."""
    drop_blobs(engine.blob, layout.numbered_blobs(tenant, run_id))


def blob_name(tenant: Tenant, run: Run, number: int) -> str:
    """With the mark of the worker that wrote it: one that was overtaken must not write over another's."""
    marks = (f"{part}/" for part in reversed(run.parts) if int(part[:NUMBER_DIGITS]) <= number)
    return f"{layout.run_blobs(tenant, run.id)}{next(marks, '')}{number:0{NUMBER_DIGITS}}"


def _seen(applier: Applier, run: Run, first_digit: int) -> Iterator[bytes]:
    """The ids of one bucket: those whose first hex digit it is."""
    for number in range(run.seen):
        data = applier.engine.blob.get(blob_name(applier.tenant, run, number)) or b""
        for start in range(0, len(data), ID_BYTES):
            if data[start] >> 4 == first_digit:
                yield data[start : start + ID_BYTES]


def living(applier: Applier, bucket: str) -> Iterator[tuple[bytes, str]]:
    """(derived id, remote id) of the records of a bucket that live at this connection."""
    for stored in applier.engine.records.scan(applier.tenant, applier.entity.name, bucket):
        if isinstance(stored.content, Record):
            link = stored.content.links.get(applier.uid)
            if link is not None and link.state == "live":
                yield bytes.fromhex(applier.record_id(link.rid).replace("-", "")), link.rid
