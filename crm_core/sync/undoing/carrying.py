"""Carrying out the plan of an undo: ordinary writes of the hub, which flow to every connection, a portion at a time.

Each decision is held against the record as it is now: what was changed since is refused, by itself. A message that comes
twice, or after a worker has died, finds its own writes in the history and makes none again.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

from crm_core.errors import Conflict
from crm_core.log import Log
from crm_core.model.entities import ENTITIES
from crm_core.model.fields import hub_time
from crm_core.model.record import HUB, NOTHING, Record
from crm_core.model.state import Run
from crm_core.ports import RowChanged, measured
from crm_core.storage.records import HistoryEntry, RecordWrite, Stored
from crm_core.sync import failures
from crm_core.sync.edit import MAX_TRIES, Editor, Leads, losers_of
from crm_core.sync.engine import Engine, Job, wake
from crm_core.sync.past import missing
from crm_core.sync.planning.base import NO_PLAN
from crm_core.sync.planning.decisions import Decision
from crm_core.sync.planning.figures import COUNTED, reader
from crm_core.sync.planning.outcomes import stored_rows, with_outcome
from crm_core.sync.saving import Origin, save, write_of
from crm_core.sync.sides import with_customs
from crm_core.sync.undo import settable
from crm_core.sync.undoing.base import Slice, parts_of
from crm_core.sync.undoing.deciding import carried_out, found_at, told_left, touches
from crm_core.sync.undoing.leading import Leading

_log = Log("crm_core.sync")

PORTION = 200
"""Decisions between two saves of the run: so many a crash repeats."""

CARRIED = ("update", "delete", "revive")
CHANGED_SINCE = "Changed again since the run."


def carry_out(engine: Engine, job: Job, lane: str, deliveries: int = 1) -> None:  # noqa: ARG001  # a handler's parameters
    """Works on one slice of an undo; what is not done continues in another message."""
    run = engine.runs.get(job.tenant, job.run)
    if run is None or run.ended:
        return
    plan = engine.runs.get(job.tenant, run.of)
    if plan is None:
        with suppress(RowChanged):
            failures.end_run(engine, job.tenant, run, "NotFound", NO_PLAN)
        return
    with measured() as meter:
        try:
            _Carrying(engine, job, lane, run, meter, plan=plan).work()
        except RowChanged:
            _log.info("undo", outcome="in the hands of another worker")


@dataclass(frozen=True)
class _Outcome:
    """`applied`, `drifted` or `failed`, and why. `left`: of fields that stay as they are after all, why."""

    name: str
    why: str = ""
    left: Mapping[str, str] = NOTHING


class _Carrying(Slice):
    def __init__(self, *args: Any, plan: Run, **more: Any) -> None:
        super().__init__(*args, **more)
        self.decisions = reader(self.engine, self.job, plan)
        self.tally = Counter(self.run.counts)
        undone = self.engine.runs.get(self.job.tenant, plan.undoes)
        parts = parts_of(self.engine, self.job.tenant, undone) if undone is not None else []
        self.undone = frozenset([plan.undoes, *(each.id for each in parts)])

    def work(self) -> None:
        self.begin()
        place: Mapping[str, int] | None = self.run.cursor or {}
        while place is not None:
            portion, place = self.decisions.page(place, top=PORTION)
            outcomes = self._outcomes(portion)
            for decision in portion:
                self._note(decision, outcomes[decision["id"]])
            self.run = replace(self.run, read=self.run.read + len(portion))
            if place is None:
                break
            if self.time_is_up():
                self.go_on(place)
                return
            self.save(cursor=place)
        self.succeed()

    def counts(self) -> Mapping[str, int]:
        return dict(self.tally)

    def _note(self, decision: Decision, outcome: _Outcome) -> None:
        if outcome.left:
            fields = {name: each for name, each in decision["fields"].items() if name not in outcome.left}
            decision = {**decision, "fields": fields, "left": {**decision.get("left", {}), **outcome.left}}
        told = with_outcome(decision, outcome.name, outcome.why)
        if outcome.name == "applied":
            self.tally[COUNTED[decision["action"]]] += 1
        else:
            told["pushes"] = []
            self.tally["failed"] += 1
        self.telling.tell(told, [])

    def _outcomes(self, portion: Sequence[Decision]) -> dict[int, _Outcome]:
        """By the decision's place in the plan."""
        found: dict[int, _Outcome] = {}
        by_entity: dict[str, list[Decision]] = {}
        for each in portion:
            if each["action"] in CARRIED:
                by_entity.setdefault(each["entity"], []).append(each)
            else:
                why = each.get("why") or " ".join(each.get("left", {}).values())
                found[each["id"]] = _Outcome(
                    "drifted", CHANGED_SINCE if each["conflicts"] or not why else why
                )
        leads = Leading(self.engine, self.job.tenant, self.undone)
        for entity, decisions in by_entity.items():
            found |= _Portion(self.engine, self.job, self.run, entity, leads).carry_out(decisions)
        return found


class _Portion:
    """Decisions about records of one entity."""

    def __init__(self, engine: Engine, job: Job, run: Run, entity: str, leads: Leads) -> None:
        self.engine, self.tenant, self.run, self.leads = engine, job.tenant, run, leads
        self.left: dict[str, Mapping[str, str]] = {}
        self.sides = engine.sides(self.tenant, entity)
        self.entity = with_customs(ENTITIES[entity], self.sides)
        self.editor = Editor(engine, self.tenant, self.entity, run.origin)

    def carry_out(self, decisions: Sequence[Decision]) -> dict[int, _Outcome]:
        found: dict[int, _Outcome] = {}
        todo = list(decisions)
        for _ in range(MAX_TRIES):
            ids = [each["record_id"] for each in todo]
            rows = {each.id: each for each in stored_rows(self.engine, self.tenant, self.entity.name, ids)}
            writes: dict[str, RecordWrite] = {}
            for each in todo:
                result = self._write(each, rows.get(each["record_id"]))
                if isinstance(result, RecordWrite):
                    writes[result.id] = result
                else:
                    found[each["id"]] = result
            saved = save(self.engine, self.tenant, self.entity.name, list(writes.values()), claimed=True)
            wake(self.engine, self.tenant, self.entity.name, saved.wakes)
            for each in todo:
                if each["record_id"] in saved.large:
                    found[each["id"]] = _Outcome("failed", "The record does not fit into a row of the store.")
                elif each["record_id"] in writes and each["record_id"] not in saved.stale:
                    found[each["id"]] = _Outcome("applied", left=self.left.get(each["record_id"], NOTHING))
            todo = [each for each in todo if each["id"] not in found]
            if not todo:
                return found
        return found | {each["id"]: _Outcome("failed", "Others change it all the time.") for each in todo}

    def _write(self, decision: Decision, stored: Stored | None) -> RecordWrite | _Outcome:
        """What is to be written for a decision, or its outcome if nothing is."""
        record = stored.content if stored is not None else None
        if stored is None or not isinstance(record, Record):
            return _Outcome("drifted", "The hub has no such record any more.")
        if record.version != decision["version"]:
            steps = list(self._steps(record, decision["version"] + 1))
            if any(step.run == self.run.id for step in steps):
                return _Outcome("applied")  # by a worker that died, or a message that came twice
            if lost := missing(record, steps, decision["version"]):
                return _Outcome("drifted", f"Nothing is known any more of version {lost[-1]}.")
            why = next((why for step in steps if (why := self._drift(decision, step))), "")
            if why:
                return _Outcome("drifted", why)
        if decision["action"] == "delete" and found_at(record) > decision.get("found", 0):
            return _Outcome("drifted", "Linked since with one that was there before.")
        fields = {name: each["new"] for name, each in decision["fields"].items()}
        if decision["action"] != "delete":
            fields, left = settable(self.entity, record, {**record.fields, **fields}, self.leads)
            self.left[record.id] = told_left(left)
            if left and not fields and decision["action"] == "update":
                return _Outcome("drifted", " ".join(self.left[record.id].values()))
        try:
            if decision["action"] != "delete":
                claimed = {**record.fields, **fields} if record.dead else fields
                self.editor.claim_changed(record, claimed, unchanged_too=record.dead)
        except Conflict as error:
            return _Outcome("failed", error.message)
        now = hub_time(self.engine.clock.now())
        after = carried_out(record, self.entity, self.sides, decision["action"], fields, now)
        if after is record:
            return _Outcome("applied", "It was so already.")
        by = Origin(now, HUB, self.run.id, self.run.origin)
        return write_of(stored, after, by, losers=losers_of(record, after))

    def _steps(self, record: Record, first: int) -> Iterator[HistoryEntry]:
        return self.engine.records.history(self.tenant, self.entity.name, record.id, first)

    def _drift(self, decision: Decision, step: HistoryEntry) -> str:
        """Why a decision does not hold any more after a step that was made since; "" if it does."""
        if not touches(step, self.entity):
            return ""
        moved = sorted(step.old.keys() & decision["fields"].keys())
        if decision["action"] == "delete" or step.died or step.revived or moved:
            what = ", ".join(moved or sorted(step.old)) or step.change
            return f"Changed since at version {step.version}: {what}."
        return ""
