"""A plan of a push: what the open items of a connection, and the looking of a push run, would send there."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from crm_core.connector import Change
from crm_core.model.entities import ENTITIES
from crm_core.model.fields import hub_time
from crm_core.model.matchkeys import match_key
from crm_core.model.record import Link, Record
from crm_core.storage import layout
from crm_core.storage.plans import Digest
from crm_core.storage.records import RecordWrite, Stored
from crm_core.sync import brake
from crm_core.sync.draft import Draft
from crm_core.sync.engine import Engine, Job, Opened, config_of
from crm_core.sync.merge import Snapshot
from crm_core.sync.planning.base import PlanBase
from crm_core.sync.planning.deciding import rehearsed
from crm_core.sync.planning.decisions import Decision, mark, push_of, undecided
from crm_core.sync.planning.figures import SENT
from crm_core.sync.references import References
from crm_core.sync.sides import Config, Side

PORTION = 500
UNDER_WAY = "A write of it is under way, or was and nobody knows its outcome yet."
WAITS = "It waits for a record that is not there yet."


@dataclass(frozen=True)
class Sending:
    """What would be sent of a record. `write`: what its row becomes before."""

    decision: Decision
    write: RecordWrite


class Deciding:
    """Decides what a push would send of some records, by reading alone."""

    def __init__(self, engine: Engine, job: Job, opened: Opened) -> None:
        self.engine, self.job, self.opened = engine, job, opened
        self.entity = ENTITIES[job.entity]
        self.uid = opened.connection.uid

    def decide(self, rows: Sequence[Stored]) -> list[Sending]:
        """In the order of the rows; of one that has nothing to send there is none."""
        config = config_of(self.engine, self.opened, self.entity)
        records = {each.id: each for each in rows if isinstance(each.content, Record)}
        references = References(self.engine, self.job.tenant, self.entity)
        references.read(each.content for each in records.values() if isinstance(each.content, Record))
        found: dict[str, Sending] = {}
        for each in records.values():
            assert isinstance(each.content, Record)
            after = Draft(references.settled(each.content, config), config).finished()
            decision = self._decision(after, references, config)
            if decision is not None:
                found[each.id] = Sending(decision, RecordWrite(each.id, each, after))
        return list(self._matched(found, config).values())

    def _decision(self, record: Record, references: References, config: Config) -> Decision | None:
        told, side = push_of(record, self.uid, config), config[self.uid]
        if told is None:
            return None
        link = record.links[self.uid]
        if link.attempt or link.deleting or link.state == "creating":
            return undecided("later", side, record.id, link.rid, UNDER_WAY)
        _, missing = references.outward(self.uid, record.fields, list(told["fields"]))
        fields = {name: each for name, each in told["fields"].items() if name not in missing}
        waits = link.state == "new" and missing.keys() & side.needed
        if told["action"] != "delete" and (waits or not fields):
            return undecided("later", side, record.id, link.rid, WAITS) if missing else None
        return {
            "record_id": record.id,
            "entity": record.entity,
            "connection": self.uid,
            "remote_id": _rid(link),
            "action": told["action"],
            "fields": fields,
            "conflicts": {},
            "pushes": [],
        }

    def _matched(self, found: dict[str, Sending], config: Config) -> dict[str, Sending]:
        """Where a match rule holds, a record that is new there is looked for: what is found is linked and not made."""
        side = config[self.uid]
        by_key = {
            key: each
            for each in found.values()
            if (key := _key(each, side)) and each.decision["action"] == "create"
        }
        if not by_key:
            return found
        name = side.sync.match
        values = list(dict.fromkeys(each.decision["fields"][name]["new"] for each in by_key.values()))
        hits = self.opened.connector.search(self.entity.name, name, values)
        for hit in hits:
            known = by_key.get(match_key(name, (hit.fields or {}).get(name)))
            if known is not None:
                linked = self._linked(hit.rid, known)
                found[known.write.id] = replace(known, decision=linked or known.decision)
        return found

    def _linked(self, rid: str, known: Sending) -> Decision | None:
        """What becomes of a record by what was found there: as whoever is about to make it would read it."""
        now = hub_time(self.engine.clock.now())
        hint = Snapshot(Change(rid, None), now, now, hint=True)
        told, _ = rehearsed(self.engine, self.job.tenant, self.entity, self.opened, [hint])
        return next((each for each in told if each["record_id"] == known.write.id), None)


def _rid(link: Link) -> str | None:
    return link.rid or None if link.state != "new" else None


def _key(sending: Sending, side: Side) -> str:
    """The match key by which a record is looked for before it is made."""
    record, name = sending.write.after, side.sync.match
    assert isinstance(record, Record)
    if not name or name not in sending.decision["fields"]:
        return ""
    if any(each.get("decided") == "separate" for each in record.reviews):
        return ""
    return match_key(name, record.fields.get(name))


class PushPlan(PlanBase):
    """One slice of a plan of a push: bucket by bucket, in the order of ids."""

    def work(self) -> None:
        if not self.run.started_at:
            self._begin_run(cursor={"bucket": 0, "after": ""})
        deciding = Deciding(self.engine, self.job, self.opened)
        while True:
            place = self.run.cursor or {"bucket": 0, "after": ""}
            if place["bucket"] >= len(layout.BUCKETS) or self._is_enough():
                self._succeed(None)
                return
            rows, more = self.engine.records.page(
                self.job.tenant,
                self.job.entity,
                layout.BUCKETS[place["bucket"]],
                top=self._portion(),
                token=place.get("token"),
                after=place["after"],
            )
            self._decide(deciding, rows)
            following = {"bucket": place["bucket"] + 1, "after": ""}
            if more is not None:  # a page can be empty and not the last
                following = (
                    {**place, "after": rows[-1].id, "token": None} if rows else {**place, "token": more}
                )
            self.run = replace(self.run, cursor=following)
            is_late = self._time_is_up()
            if is_late or following["bucket"] > place["bucket"]:
                self._save_run(self._with_figures())  # says how far it is, and learns that it was cancelled
            if is_late:
                self._continue()
                return

    def _portion(self) -> int:
        return min(PORTION, self.run.limit - self.run.read) if self.run.limit else PORTION

    def _is_enough(self) -> bool:
        return 0 < self.run.limit <= self.run.read

    def _expected(self) -> int:
        return -1

    def _decide(self, deciding: Deciding, rows: Sequence[Stored]) -> None:
        before = self.telling.figures.actions["create"]
        sendings = deciding.decide(rows)
        made = sum(each.decision["action"] == "create" for each in sendings)
        self._judge(before, made)
        for each in sendings:
            action = each.decision["action"]
            self.telling.tell(each.decision, [mark(each.decision)] if action != "later" else _NONE)
            if action in SENT:
                self.telling.figures.sent(self.job.connection, action)
        self.run = replace(
            self.run, read=self.run.read + sum(isinstance(each.content, Record) for each in rows)
        )

    def _judge(self, before: int, made: int) -> None:
        figures, slug = self.telling.figures, self.opened.connection.slug
        if figures.brakes:
            return
        try:
            brake.judge_creates(self.engine.tuning, self.run, before, made, self.state.known, slug)
        except brake.Stopped as stopped:
            figures.braked(stopped)


_NONE: list[Digest] = []
