"""Many conflicts decided at once as a person has said: a run of mode `resolve`, in slices.

It goes through what waits once, so what comes later is not among it. A conflict that has changed since the person looked
(`as_of`) is left as it is and told, and so is what can't be decided now. Repeating it does no harm: what is decided does
not wait any more.

What a worker has read can come into the store after a look that was later than the reading. So a look says of the conflicts
that were recent at its time which it has shown; a recent one that it has not shown as it is counts as changed.
"""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any

from crm_core.errors import BadRequest, HubError, NotFound, Stale, StoreUnavailable
from crm_core.log import Log
from crm_core.model.connection import Tenant
from crm_core.model.entities import ENTITIES
from crm_core.model.fields import hub_time, parse_instant
from crm_core.model.record import digest
from crm_core.model.state import Run
from crm_core.ports import RowChanged, wire_size
from crm_core.storage import layout
from crm_core.sync import conflicts, failures, starting
from crm_core.sync.conflicts import REVIEWS, Conflict
from crm_core.sync.edit import Editor, QuietEditor
from crm_core.sync.engine import Engine, Job
from crm_core.sync.intake import CAREFUL_DELIVERY
from crm_core.sync.resolving import Choice, Outcome, outcome, resolve_all

_log = Log("crm_core.conflicts")

JOB = "resolve"
PORTION = 100
MAX_LEFT = 100
"""Of so many that were left a run tells which and why."""
MAX_LEFT_BYTES, MAX_TASK_BYTES = 36_000, 20_000
"""Of the run's row, which has both in one property."""
LATE = timedelta(minutes=10)
"""So long after it was read something can come into the store: then a function is ended (functionTimeout of host.json)."""
MARK_LENGTH = 10
MAX_SHOWN = 500
"""Of so many recent conflicts a look says that it has shown them; more are left until they are older."""


@dataclass(frozen=True)
class Task:
    """What is to be decided, and how. `which`: by what they are sought, as `conflicts.sought` takes it. `value`: goes with
    `take` value. `as_of`: hub time until which they are as the person saw them. `shown`: the `mark` of each that was recent
    then and that the person was shown; None of a person who has not looked.
    """

    which: Mapping[str, Any]
    take: str
    value: Any = None
    as_of: str = ""
    shown: Sequence[str] | None = None

    def to_json(self) -> dict[str, Any]:
        return {
            "which": dict(self.which),
            "take": self.take,
            "value": self.value,
            "as_of": self.as_of,
            "shown": None if self.shown is None else list(self.shown),
        }

    @classmethod
    def of(cls, run: Run) -> "Task":
        data = run.cursor or {}
        return cls(data["which"], data["take"], data["value"], data["as_of"], data.get("shown"))


def start(engine: Engine, tenant: Tenant, task: Task, by: str) -> Run:
    """Puts it on its way; gives the run that tells what becomes of it. Raises BadRequest for a value that its row can't hold."""
    if _size(task.to_json()) > MAX_TASK_BYTES:
        raise BadRequest.field(
            "value", "value: is too long to be given to many at once; decide the conflicts one by one."
        )
    run = engine.new_run(
        task.which.get("connection", ""),
        task.which.get("entity", ""),
        "resolve",
        by,
        cursor={**task.to_json(), "place": {}},
    )
    return starting.begin_one(engine, tenant, run, f"A decision about many: {task.take}")


def preview(
    editors: Mapping[str, Editor], engine: Engine, found: Sequence[Conflict], task: Task
) -> list[Outcome | HubError]:
    """What would become of each; nothing is written. `editors`: by entity."""

    def would(each: Conflict) -> Outcome | HubError:
        editor = editors[each.record.entity]
        try:
            _check_age(each, task)
            config = engine.sides(editor.tenant, each.record.entity)
            return outcome(editor, config, [Choice(each, task.take, task.value)])
        except StoreUnavailable:
            raise
        except HubError as error:
            return error

    return engine.pool.map(would, found)


def mark(conflict: Conflict) -> str:
    """By what a look says that it has shown this conflict as it is."""
    return digest([conflict.id, conflict.etag])[:MARK_LENGTH]


def shown(found: Iterable[Conflict], task: Task) -> list[str]:
    """What `Task.shown` is for a person who was shown these."""
    return [mark(each) for each in found if _is_recent(each, task.as_of)][:MAX_SHOWN]


def _is_recent(conflict: Conflict, as_of: str) -> bool:
    """Whether it can have come into the store after a look though it was read before it."""
    return conflict.settled > hub_time(parse_instant(as_of) - LATE)


def _check_age(conflict: Conflict, task: Task) -> None:
    if task.as_of and conflict.settled > task.as_of:
        raise Stale(f"It has changed since {task.as_of}; look at it again.")
    if task.shown is not None and _is_recent(conflict, task.as_of) and mark(conflict) not in task.shown:
        raise Stale(f"It may have changed since {task.as_of}; look at it again.")


def work(engine: Engine, job: Job, lane: str, deliveries: int = 1) -> None:
    """Works on one slice; what is not done continues in another message. From the third delivery on a conflict that fails
    unexpectedly is left, so that it does not keep the others from being decided.
    """
    run = engine.runs.get(job.tenant, job.run) if job.run else None
    if run is None or run.mode != "resolve" or run.ended:
        return
    slice_end = engine.slice_end(lane)
    many = _Many(engine, job.tenant, run, careful=deliveries >= CAREFUL_DELIVERY)
    try:
        many.begin()
        while not many.done and engine.clock.monotonic() < slice_end:
            many.portion()
        many.pause()
    except RowChanged:
        _log.info("resolve", outcome="in the hands of another worker, or ended")
        return
    finally:
        many.wake()
    if not many.done:
        engine.send(layout.BULK, replace(job, attempt=0))


class _Many:
    def __init__(self, engine: Engine, tenant: Tenant, run: Run, *, careful: bool) -> None:
        self.careful = careful
        self.engine = engine
        self.tenant = tenant
        self.run = run
        self.task = Task.of(run)
        self.wanted = conflicts.sought(engine, tenant, **self.task.which)
        self.editors: dict[str, QuietEditor] = {}
        self.done = False

    def begin(self) -> None:
        if self.run.started_at:
            self._save(status="running")
        else:
            self._save(status="running", started_at=hub_time(self.engine.clock.now()))
            failures.begun(self.run)

    def portion(self) -> None:
        """Decides a part of what waits, and saves how far that is."""
        assert self.run.cursor is not None
        found, place = conflicts.page(
            self.engine, self.tenant, self.wanted, self.run.cursor["place"], top=PORTION
        )
        counts = dict(self.run.counts)
        left = list(self.run.cursor.get("left", ()))
        for some in _together(found):
            name, why = self._decide(some)
            counts[name] = counts.get(name, 0) + len(some)
            left += [{"id": each.id, "why": why} for each in some if why]
        self.done = place is None
        cursor = {**self.run.cursor, "place": place or {}, "left": _fitting(left)}
        self._save(cursor=cursor, counts=counts, read=self.run.read + len(found))

    def pause(self) -> None:
        """The end of a slice, or of the run."""
        if self.done:
            self._save(status="succeeded", ended_at=hub_time(self.engine.clock.now()))
            failures.told(self.run)
        else:
            self._save(slices=self.run.slices + 1)

    def wake(self) -> None:
        for editor in self.editors.values():
            editor.finish()

    def _decide(self, some: Sequence[Conflict]) -> tuple[str, str]:
        """Of conflicts of one record, decided by one write: as what they count, and why they are left, "" if they are not."""
        task, entity = self.task, some[0].record.entity
        if entity not in self.editors:
            by = self.run.origin
            self.editors[entity] = QuietEditor(self.engine, self.tenant, ENTITIES[entity], by)
        try:
            for each in some:
                _check_age(each, task)
            resolve_all(
                self.editors[entity], [Choice(each, task.take, task.value, each.etag) for each in some]
            )
        except StoreUnavailable:
            raise
        except NotFound:
            return "unchanged", ""  # somebody was faster, or it was one question with another one
        except HubError as error:
            return ("unchanged" if isinstance(error, Stale) else "failed"), error.message
        except Exception as error:
            if not self.careful:
                raise
            _log.bug("conflict", error, record=some[0].record.id)
            return "failed", "It failed in a way that nobody expected; the log of the function says why."
        return "updated", ""

    def _save(self, **changes: Any) -> None:
        self.run = self.engine.runs.save(self.tenant, replace(self.run, **changes))


def _size(data: Any) -> int:
    """In bytes, as the store counts them."""
    return wire_size(json.dumps(data, ensure_ascii=False))


def _fitting(left: list[Any]) -> list[Any]:
    """The first of those that were left, as many as the run's row can hold."""
    some = left[:MAX_LEFT]
    while _size(some) > MAX_LEFT_BYTES:
        some.pop()
    return some


def _together(found: Iterable[Conflict]) -> Iterator[list[Conflict]]:
    """Those of one record at one connection, which are decided by one write; reviews one by one."""
    some: list[Conflict] = []
    for each in found:
        if some and (each.kind in REVIEWS or _place(each) != _place(some[0])):
            yield some
            some = []
        some.append(each)
    if some:
        yield some


def _place(conflict: Conflict) -> tuple[str, str, str]:
    return conflict.record.entity, conflict.record.id, conflict.connection
