"""The plan of an undo: every record of the run's entities is looked at with its history, bucket by bucket; nothing is written.

What a run has changed stands in the steps of the records alone; what it has made, in the records. Both are read in the order
of ids, a page of them in memory at a time. How many changes the run has counted says how many there were: what the history
tells nothing of any more is told as a number, and a run of which nothing is left has no plan.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any

from crm_core.log import Log
from crm_core.model.connection import Tenant
from crm_core.model.entities import ENTITIES, Entity
from crm_core.model.fields import parse_instant
from crm_core.model.record import Record
from crm_core.model.state import Run
from crm_core.ports import RowChanged, measured
from crm_core.storage import layout
from crm_core.storage.records import HistoryEntry, Stored, Tomb
from crm_core.sync import failures
from crm_core.sync.engine import Engine, Job
from crm_core.sync.planning.figures import forecast
from crm_core.sync.sides import with_customs
from crm_core.sync.undoing.base import Slice, changes_made, parts_of
from crm_core.sync.undoing.deciding import changes_of, decide, hidden
from crm_core.sync.undoing.leading import Leading

_log = Log("crm_core.sync")

PAGE = 500
"""Records that are read at once."""


def plan(engine: Engine, job: Job, lane: str, deliveries: int = 1) -> None:  # noqa: ARG001  # a handler's parameters
    """Works on one slice of the plan of an undo; what is not done continues in another message."""
    run = engine.runs.get(job.tenant, job.run)
    if run is None or run.ended:
        return
    undone = engine.runs.get(job.tenant, run.undoes)
    if undone is None:
        with suppress(RowChanged):
            failures.end_run(engine, job.tenant, run, "NotFound", "The run is not kept any more.")
        return
    runs, entities = parts_of(engine, job.tenant, undone), _entities(engine, job.tenant, undone)
    with measured() as meter:
        try:
            _Planning(engine, job, lane, run, meter, runs=runs, entities=entities).work()
        except RowChanged:
            _log.info("undo", outcome="in the hands of another worker")


def _entities(engine: Engine, tenant: Tenant, run: Run) -> list[str]:
    """Those whose records a run may have changed. An undo is one run, whatever it undoes is of."""
    about: Run | None = run
    while about is not None and about.mode == "undo":
        about = engine.runs.get(tenant, about.undoes)
    if about is None:
        return list(ENTITIES)
    return list(dict.fromkeys(each.entity for each in parts_of(engine, tenant, about) if each.entity))


class _Planning(Slice):
    def __init__(
        self, *args: Any, runs: Sequence[Run] = (), entities: Sequence[str] = (), **more: Any
    ) -> None:
        super().__init__(*args, **more)
        self.runs = frozenset(each.id for each in runs)
        self.entities = entities
        self.made = changes_made(runs)
        self.since = min((each.started_at for each in runs if each.started_at), default="")
        self.until = max((each.ended_at for each in runs if each.ended_at), default=layout.AFTER)
        place = self.run.cursor or {}
        self.met, self.hidden = place.get("met", 0), place.get("hidden", 0)

    def work(self) -> None:
        self.begin()
        place: Mapping[str, Any] = self.run.cursor or {"entity": 0, "bucket": 0, "after": ""}
        while place["entity"] < len(self.entities):
            before, place = place, self._page(place)
            if place["entity"] == len(self.entities):
                break
            if self.time_is_up():
                self.go_on(self._with_sums(place))
                return
            if place["bucket"] != before["bucket"]:
                self.save(
                    cursor=self._with_sums(place)
                )  # says how far it is, and learns that it was cancelled
        seconds = (self.engine.clock.now() - parse_instant(self.run.started_at)).total_seconds()
        told = replace(self.run, plan=self.telling.saved())
        self._end(forecast(self.engine, self.job.tenant, told, seconds))

    def _with_sums(self, place: Mapping[str, Any]) -> Mapping[str, Any]:
        return {**place, "met": self.met, "hidden": self.hidden}

    def _end(self, plan: Mapping[str, Any]) -> None:
        """`met`: changes of the run that are known, `hidden`: those of anybody at its time that nobody knows any more."""
        lost = min(self.made - self.met, self.hidden)
        if lost <= 0:
            self.succeed(plan=plan)
            return
        why = (
            f"{lost} of the {self.made} changes that the run made can't be undone any more: the history keeps nothing"
            f" of them. It is kept for {self.engine.tuning.history_days:g} days (HISTORY_DAYS)."
        )
        plan = {**plan, "erased": {"changes": lost, "of": self.made, "why": why}}
        if self.met:
            self.succeed(plan=plan)
        else:
            self.fail("Conflict", f"Nothing of the run {self.run.undoes} can be undone. {why}", plan=plan)

    def counts(self) -> Mapping[str, int]:
        return self.telling.figures.counts(self.run.read)

    def _page(self, place: Mapping[str, Any]) -> Mapping[str, Any]:
        """Decides about one page of records; gives where the next one begins."""
        tenant, entity = self.job.tenant, ENTITIES[self.entities[place["entity"]]]
        bucket, after, token = layout.BUCKETS[place["bucket"]], place["after"], place.get("token")
        rows, token = self.engine.records.page(
            tenant, entity.name, bucket, top=PAGE, token=token, after=after
        )
        if rows:
            self._decide(entity, bucket, rows, after)
            after, token = rows[-1].id, token and ""
        if token is not None:
            return {**place, "after": after, "token": token or None}
        if place["bucket"] + 1 < len(layout.BUCKETS):
            return {"entity": place["entity"], "bucket": place["bucket"] + 1, "after": ""}
        return {"entity": place["entity"] + 1, "bucket": 0, "after": ""}

    def _decide(self, entity: Entity, bucket: str, rows: Sequence[Stored], after: str) -> None:
        sides = self.engine.sides(self.job.tenant, entity.name)
        entity = with_customs(entity, sides)
        steps = _by_record(
            self.engine.records.steps(self.job.tenant, entity.name, bucket, after, rows[-1].id)
        )
        leads = Leading(self.engine, self.job.tenant, self.runs)
        held = next(steps, None)
        for row in rows:
            while held is not None and held[0] < row.id:
                held = next(steps, None)
            mine = held[1] if held is not None and held[0] == row.id else []
            if not isinstance(row.content, Tomb):
                self.met += changes_of(row.content, mine, self.runs)
                self.hidden += hidden(row.content, mine, self.since, self.until)
            if not isinstance(row.content, Record):
                continue
            self.run = replace(self.run, read=self.run.read + 1)
            decision = decide(row.content, mine, self.runs, entity, sides, self.run.connection, leads)
            if decision is not None:
                self.telling.tell(decision, [])


def _by_record(
    steps: Iterator[tuple[str, HistoryEntry]],
) -> Iterator[tuple[str, list[HistoryEntry]]]:
    """The steps of each record together."""
    held: tuple[str, list[HistoryEntry]] | None = None
    for record_id, step in steps:
        if held is not None and held[0] != record_id:
            yield held
            held = None
        if held is None:
            held = record_id, []
        held[1].append(step)
    if held is not None:
        yield held
