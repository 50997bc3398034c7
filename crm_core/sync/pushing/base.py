"""What the steps of a push share: the record in hand, what is kept of it, failures."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any

from crm_core.connector import Change, Verb, Write
from crm_core.errors import HubError
from crm_core.model.connection import Tenant
from crm_core.model.entities import Entity
from crm_core.model.fields import hub_time
from crm_core.model.matchkeys import match_key
from crm_core.model.record import Link, Record, has_open_create
from crm_core.retry import backoff
from crm_core.storage import layout
from crm_core.storage.held import Claim
from crm_core.storage.records import RecordWrite, Stored, Tomb
from crm_core.sync.draft import Draft
from crm_core.sync.engine import Engine, Opened, config_of
from crm_core.sync.merge import Snapshot
from crm_core.sync.references import Ref, References
from crm_core.sync.saving import Origin, Saved, save
from crm_core.sync.sides import Config, Side

PARK_FAILURES = 10
PARK_BAD_ANSWERS = 3
REDIRECT_TRIES = 3


@dataclass(eq=False)
class Task:
    """A record on its way to the remote. `stored`: as it was read; `record`: what it has become since, unsaved.
    `looked`: the point read that belongs to the row.
    """

    stored: Stored
    record: Record
    lo: str = ""
    looked: bool = False
    verb: Verb = "update"
    sent: Mapping[str, Any] = field(default_factory=dict)
    token: str = ""
    write: Write = field(default_factory=Write)
    missing: Mapping[str, Ref] = field(default_factory=dict)
    losers: dict[str, Any] = field(default_factory=dict)

    @property
    def id(self) -> str:
        return self.stored.id


class Stop(Exception):  # no error of its own: it carries the one that the next records would meet too
    def __init__(self, error: HubError) -> None:
        self.error = error


class PushBase:
    """The state of one push, and how records are read, saved and given up."""

    def __init__(
        self,
        engine: Engine,
        tenant: Tenant,
        entity: Entity,
        opened: Opened,
        *,
        loaded: bool,
        in_time: Callable[[], bool],
    ) -> None:
        """`loaded`: what the remote had is in the hub, or nothing of it is pulled; before, nothing is made there."""
        self.engine = engine
        self.tenant = tenant
        self.entity = entity
        self.opened = opened
        self.uid = opened.connection.uid
        self.connector = opened.connector
        self.found_by = opened.connector.found_by(entity.name)
        self.loaded = loaded
        self.in_time = in_time
        self.references = References(engine, tenant, entity)
        self.later = ""
        self.wakes: set[tuple[str, str]] = set()
        self.made = self.settled = self.waits = False
        self._tokens: set[str] = set()
        self._refused_first: dict[str, str] = {}
        self._leads: dict[str, str] = {}
        self._outage = False
        self._attempts_at = 0.0
        self._searched: dict[str, str] = {}
        self._claimed: dict[str, Claim] = {}

    def _configure(self) -> None:
        self.config: Config = config_of(self.engine, self.opened, self.entity)
        self.side: Side = self.config[self.uid]

    def _now(self) -> str:
        return hub_time(self.engine.clock.now())

    def _after(self, seconds: float) -> str:
        return hub_time(self.engine.clock.now() + timedelta(seconds=seconds))

    def _wait_until(self, moment: str) -> None:
        self.later = min(self.later, moment) if self.later else moment

    def _stored(self, ids: Sequence[str]) -> dict[str, Stored]:
        buckets: dict[str, list[str]] = {}
        for each in ids:
            buckets.setdefault(layout.bucket(each), []).append(each)
        found = self.engine.pool.map(
            lambda item: self.engine.records.read_many(
                self.tenant, self.entity.name, item[0], item[1], len(item[1])
            ),
            list(buckets.items()),
        )
        return {each.id: each for part in found for each in part.values()}

    def _link(self, task: Task) -> Link:
        return task.record.links[self.uid]

    def _by(self) -> Origin:
        return Origin(self._now(), self.uid)

    def _save(self, writes: Sequence[RecordWrite]) -> Saved:
        saved = save(self.engine, self.tenant, self.entity.name, writes)
        self.wakes |= {each for each in saved.wakes if each[0] != self.uid}
        for write in writes:
            if write.id in saved.large and isinstance(write.after, Record):
                self.engine.dead_letters.add(
                    self.tenant, kind="record", code="TooLarge", cause="The record does not fit into a row of the store.",
                    connection=self.uid, entity=self.entity.name, rid=write.after.links[self.uid].rid,
                )  # fmt: skip
        if self._claimed:
            self._release(writes, {*saved.stale, *saved.large})
        return saved

    def _release(self, writes: Sequence[RecordWrite], lost: Collection[str]) -> None:
        """The claims of creates whose outcome is known now, as their records say."""
        done = [
            self._claimed.pop(write.id)
            for write in writes
            if write.id in self._claimed
            and write.id not in lost
            and not has_open_create(write.after, self.uid)
        ]
        self.engine.held.release(done)

    def _is_unmarked(self, record: Record) -> bool:
        """Whether nothing but its values tells what a create of a record makes there, or may have made."""
        if self.found_by:
            return False
        name, link = self.side.sync.match, record.links.get(self.uid)
        if not name:
            return True
        if link is not None and has_open_create(record, self.uid):
            values = link.inflight.get(name, ())
        else:
            values = [record.fields.get(name)] if name in self.side.writes else []
        return not any(match_key(name, each) for each in values)

    def _snapshot(self, change: Change, lo: str) -> Snapshot:
        """What the remote says, references as the hub keeps them."""
        hi = self._now()
        if change.fields is not None:
            fields = self.entity.with_references(
                change.fields,
                lambda entity, rid: layout.derived_record_id(self.tenant, self.uid, entity, rid),
            )
            self.references.resolved([fields])
            change = replace(change, fields=self.references.resolve(fields))
        return Snapshot(change, lo, hi, point_read=True)

    def _derived(self, rid: str) -> str:
        return layout.derived_record_id(self.tenant, self.uid, self.entity.name, rid)

    def _key(self, record: Record) -> str:
        name = self.side.sync.match
        return match_key(name, record.fields.get(name)) if name else ""

    def _redirect(self, task: Task, rid: str) -> None:
        """Lets the remote id lead to the record, before its link is saved. Where its delete was read already the record
        is read once more, as soon as the link is there.
        """
        derived = self._derived(rid)
        if derived == task.id:
            return
        for _ in range(REDIRECT_TRIES):
            there = self.engine.records.get(self.tenant, self.entity.name, derived)
            if there is not None and not isinstance(there.content, Tomb):
                return
            if there is not None:
                self.engine.held.hold(self.tenant, self.uid, self.entity.name, rid, self._now())
            if (
                self.engine.records.redirect(self.tenant, self.entity.name, derived, task.id, there)
                == task.id
            ):
                if there is not None:
                    # Once more: whoever read it before the redirect was there found nothing, and closed it.
                    self.engine.held.hold(self.tenant, self.uid, self.entity.name, rid, self._now())
                return  # else the delete was read just now

    def _is_outcome_open(self, record: Record) -> bool:
        """Whether a record can't give up yet: until it is known what was made, whatever is new there is held back."""
        return has_open_create(record, self.uid) and self._is_unmarked(record)

    def _fail(self, task: Task, code: str, message: str, limit: int) -> None:
        task.record = self._failed_link(task.record, code, message, limit)

    def _failed_link(self, record: Record, code: str, message: str, limit: int) -> Record:
        """One more failure in a row; the link gives up after so many."""
        draft = Draft(record, self.config)
        link = draft.link(self.uid)
        count = link.failed.get("n", 0) + 1
        wait = backoff(count, self.engine.ids.fraction())
        link.failed = {"n": count, "cause": code, "message": message, "next": self._after(wait)}
        if count >= limit and not self._is_outcome_open(record):
            link.parked = {"cause": code, "message": message, "time": self._now(), "failures": count}
        self._wait_until(link.failed["next"])
        return draft.finished()
