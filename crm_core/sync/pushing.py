"""The steps by which records reach a remote system: look, claim, save the attempt, write, settle.

The order of I/O is docs/sync.md's. No lease guards a push: a record's ETag and the attempt in its link do. Whatever
happens between two steps, what may be at the remote stands in the link before it is sent, and the next worker looks
before it sends again.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any

from crm_core.connector import STOPPING, Change, Outcome, Verb, Write
from crm_core.errors import (
    CallerError,
    HubError,
    NotBegun,
    RecordGone,
    Recovery,
    Rejected,
    VersionMismatch,
)
from crm_core.log import Log
from crm_core.model.connection import Tenant
from crm_core.model.entities import Entity
from crm_core.model.fields import hub_time
from crm_core.model.matchkeys import match_key
from crm_core.model.record import Attempt, Link, Record, is_sendable, open_items, wants_push
from crm_core.ports import derived_id
from crm_core.retry import backoff
from crm_core.storage import layout
from crm_core.storage.records import RecordWrite, Stored, Tomb
from crm_core.sync import deletes, merge
from crm_core.sync.apply import Applier
from crm_core.sync.draft import Draft, LinkDraft
from crm_core.sync.engine import Engine, Opened
from crm_core.sync.merge import Merged, Snapshot
from crm_core.sync.references import Ref, References
from crm_core.sync.saving import Origin, Saved, save, write_of
from crm_core.sync.sides import Config, Side, side_of

_log = Log("crm_core.sync")

MAX_ROUNDS = 12
"""How often a record is taken up again in one job; what still has work then comes with the next."""
PARK_FAILURES = 10
PARK_BAD_ANSWERS = 3


@dataclass(eq=False)
class _Task:
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


class Pusher:
    """Pushes records of one entity to one connection. Afterwards: `later`: when the first of those that had to be left
    may be tried (RFC 3339, "" for none); `wakes`: who else has something to do; `made`: a record came to life there;
    `settled`: a claim was; `waits`: a record waits for another one.
    """

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
        self.loaded = loaded
        self.in_time = in_time
        self.references = References(engine, tenant, entity)
        self.later = ""
        self.wakes: set[tuple[str, str]] = set()
        self.made = self.settled = self.waits = False
        self._tokens: set[str] = set()
        self._leads: dict[str, str] = {}
        self._outage = False
        self._attempts_at = 0.0
        self._searched: dict[str, str] = {}

    def push(self, ids: Sequence[str]) -> list[str]:
        """Gives the ids that still have work to do at once. Raises Stop for what concerns the whole connection."""
        left = list(ids)
        for _ in range(MAX_ROUNDS):
            if not left or not self.in_time():
                break
            self._configure()
            left = self._round(left)
        return left

    def _configure(self) -> None:
        self.config: Config = self.engine.sides(self.tenant, self.entity.name)
        if self.uid not in self.config:
            self.config[self.uid] = side_of(self.opened.connection, type(self.connector), self.entity)
        self.side: Side = self.config[self.uid]

    def _now(self) -> str:
        return hub_time(self.engine.clock.now())

    def _after(self, seconds: float) -> str:
        return hub_time(self.engine.clock.now() + timedelta(seconds=seconds))

    def _wait_until(self, moment: str) -> None:
        self.later = min(self.later, moment) if self.later else moment

    # --- one round -----------------------------------------------------------------------------------------------

    def _round(self, ids: Sequence[str]) -> list[str]:
        tasks = self._read(ids)
        again: list[str] = []
        looks = [task for task in tasks if self._must_look(task)]
        claims = [task for task in looks if self._link(task).state == "creating"]
        for task in self._looked([task for task in looks if task not in claims]):
            self._after_look(task, tasks, again)
        for task in claims:
            self._take_up(task, tasks, again)
        tasks = self._searched_first(tasks, again)
        self._attempts_at = self.engine.clock.monotonic()  # before the first `until` is reckoned
        self._leads = {}
        ready = [task for task in tasks if self._prepare(task, again)]
        # Before a claim is saved: a row that is made under our id has to lead to its record from the first moment.
        self.engine.records.redirect_many(self.tenant, self.entity.name, self._leads)
        ready = self._save_attempts(ready, again)
        if ready:
            self._settle(self._written(ready), again)
        return list(dict.fromkeys(again))

    def _read(self, ids: Sequence[str]) -> list[_Task]:
        """The records that have something to do here now; what only the configuration changed is saved."""
        stored = [each for each in self._stored(ids).values() if isinstance(each.content, Record)]
        self.references.read(each.content for each in stored if isinstance(each.content, Record))
        tasks, stale = [], []
        for each in stored:
            assert isinstance(each.content, Record)
            record = Draft(self.references.settled(each.content, self.config), self.config).finished()
            task = _Task(each, record)
            link = record.links.get(self.uid)
            if link is not None and wants_push(record, link):
                if not self._is_busy(link):
                    tasks.append(task)
            elif open_items(record) != open_items(each.content):
                stale.append(write_of(each, record, self._by()))
        self._save(stale)
        return tasks

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

    def _is_busy(self, link: Link) -> bool:
        """Whether another worker may be at it, or a failure is too young; notes when to come back."""
        now = self._now()
        wait = link.failed.get("next", "")
        if link.deleting is not None:
            wait = max(wait, link.deleting.until)
        if link.attempt is not None and not (link.attempt.token in self._tokens and self.side.if_match):
            wait = max(wait, link.attempt.until)
        if link.state == "creating" and link.attempt is not None and not self.connector.own_ids:
            lag = self.connector.index_lag_seconds
            wait = max(wait, merge.later(link.attempt.until, lag)) if lag else wait
        if link.state == "new" and not self.loaded:
            return True  # the end of the first load wakes it
        if wait >= now:
            self._wait_until(wait)
            return True
        return False

    def _link(self, task: _Task) -> Link:
        return task.record.links[self.uid]

    def _must_look(self, task: _Task) -> bool:
        link = self._link(task)
        if link.attempt is not None or link.deleting is not None:
            return True
        return link.state == "live" and not (self.side.if_match and link.ver)

    def _by(self) -> Origin:
        return Origin(self._now(), self.uid)

    def _save(self, writes: Sequence[RecordWrite]) -> Saved:
        saved = save(self.engine, self.tenant, self.entity.name, writes)
        self.wakes |= {each for each in saved.wakes if each[0] != self.uid}
        for record_id in saved.large:
            self.engine.dead_letters.add(
                self.tenant, kind="record", cause="The record does not fit into a row of the store.",
                connection=self.uid, entity=self.entity.name, rid=record_id,
            )  # fmt: skip
        return saved

    def park(self, ids: Sequence[str], cause: str) -> None:
        """Records at which the hub itself fails: their links give up, and say so."""
        self._configure()
        for stored in self._stored(ids).values():
            if isinstance(stored.content, Record) and self.uid in stored.content.links:
                draft = Draft(stored.content, self.config)
                draft.link(self.uid).parked = {"cause": "Bug", "message": cause, "time": self._now()}
                self._save([write_of(stored, draft.finished(), self._by())])

    def reopen(self, ids: Sequence[str]) -> bool:
        """Lets records go on that waited for what is there by now; gives whether one still waits."""
        self._configure()
        left, writes = False, []
        for stored in self._stored(ids).values():
            if not isinstance(stored.content, Record) or self.uid not in stored.content.links:
                continue
            draft = Draft(stored.content, self.config)
            link = draft.link(self.uid)
            _, missing = self.references.outward(self.uid, stored.content.fields, list(link.waits))
            left |= bool(missing)
            link.waits = {name: each for name, each in link.waits.items() if name in missing}
            after = draft.finished()
            if after is not stored.content:
                writes.append(write_of(stored, after, self._by()))
        saved = save(self.engine, self.tenant, self.entity.name, writes)
        self.wakes |= saved.wakes
        return left or bool(saved.stale)

    # --- looking -------------------------------------------------------------------------------------------------

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

    def _looked(self, tasks: Sequence[_Task]) -> list[_Task]:
        """The tasks with what a point read said of them, merged."""
        if not tasks:
            return []
        lo = self._now()
        rids = [self._link(task).rid for task in tasks]
        try:
            found = self.connector.get_many(self.entity.name, rids)
        except HubError as error:
            raise Stop(error) from None
        for task, rid in zip(tasks, rids, strict=True):
            change = found.get(rid) or Change(rid, None)
            if change.problem:
                self._fail(task, "BadAnswer", change.problem, limit=PARK_BAD_ANSWERS)
                continue
            task.looked, task.lo = True, lo
            self._merge_look(task, self._snapshot(change, lo))
        return list(tasks)

    def _merge_look(self, task: _Task, snapshot: Snapshot) -> None:
        """Merges a point read, and closes what it proves to have landed or to be dead."""
        link = self._link(task)
        attempt, deleting = link.attempt, link.deleting
        record, change = task.record, snapshot.change
        if change.fields is None:
            merged = deletes.gone(record, self.side, self.config, link.rid, snapshot.hi)
        else:
            merged = merge.merge(record, self.side, self.config, snapshot)
        task.losers.update(merged.losers)
        after = merged.record
        now_link = after.links[self.uid]
        if attempt is not None and now_link.attempt is not None and self._is_fenced(attempt, snapshot):
            after = deletes.closed(after, self.side, self.config, deleting=False)
            after = self._without_effect(record, after)
        if deleting is not None and now_link.deleting is not None and self._is_fenced(deleting, snapshot):
            after = deletes.closed(after, self.side, self.config, deleting=True)
        task.record = after

    def _is_fenced(self, attempt: Attempt, snapshot: Snapshot) -> bool:
        """Whether a request can't change the remote any more: it lost its If-Match, or it is dead by time."""
        change = snapshot.change
        moved = self.side.if_match and change.fields is not None and change.version != attempt.ver
        return moved or snapshot.lo > attempt.until

    def _without_effect(self, before: Record, after: Record) -> Record:
        """A write after which the remote holds what it held counts as a failure, else it would be sent for ever."""
        link, was = after.links[self.uid], before.links[self.uid]
        same = [
            name
            for name in was.inflight
            if name in was.behind
            and name in link.behind
            and self.side.same(name, was.behind[name], link.behind[name])
        ]
        if not same or len(same) < len(was.inflight):
            return after
        return self._failed_link(after, "NoEffect", "The write had no effect.", PARK_FAILURES)

    def _after_look(self, task: _Task, tasks: list[_Task], again: list[str]) -> None:
        """What a look changed is saved, and the record starts again; else it goes on with this round."""
        if task.record == task.stored.content and self._may_send(task):
            return
        if task in tasks:
            tasks.remove(task)
        if task.record == task.stored.content:
            return
        link, before = self._link(task), task.stored.content
        assert isinstance(before, Record)
        self.settled |= before.links[self.uid].state == "creating" != link.state
        saved = self._save([write_of(task.stored, task.record, self._by(), losers=task.losers)])
        if wants_push(task.record, link) or saved.stale:
            again.append(task.id)

    def _may_send(self, task: _Task) -> bool:
        """An open attempt that a look did not close is only repeated under If-Match; an open delete never."""
        link = self._link(task)
        if link.deleting is not None:
            return False
        return link.attempt is None or self.side.if_match

    # --- creating ------------------------------------------------------------------------------------------------

    def _take_up(self, task: _Task, tasks: list[_Task], again: list[str]) -> None:
        """A claim whose worker is gone: the remote is asked whether the create was carried out."""
        link, lo = self._link(task), self._now()
        try:
            found = self._find_made(task, link)
        except HubError as error:
            raise Stop(error) from None
        if found is None:
            until = link.attempt.until if link.attempt else ""
            if lo <= until and (task.record.dead or not self.connector.own_ids):
                tasks.remove(task)  # it may still be made
                self._wait_until(until)
            elif task.record.dead:
                self._give_up_claim(task)
                self._after_look(task, tasks, again)
            elif lo > until and link.attempt is not None:
                self._forget_attempt(task)
            return  # it was not made: again, under the same id or marker
        self._redirect(task, found.rid)
        self._merge_look(task, self._snapshot(found, lo))
        if self._link(task).attempt is not None:
            task.record = deletes.closed(task.record, self.side, self.config, deleting=False)
        self.made = True
        self._after_look(task, tasks, again)

    def _find_made(self, task: _Task, link: Link) -> Change | None:
        entity, record = self.entity.name, task.record
        if self.connector.own_ids:
            return self.connector.get_many(entity, [link.rid]).get(link.rid)
        if self.connector.marks:
            marker = _marker(record, link)
            made = [each for each in self.connector.marked(entity, [marker]) if each.marker == marker]
            return made[0] if made else None
        key = self._key(record)
        if not key:
            return None
        name = self.side.sync.match
        hits = self.connector.search(entity, name, [record.fields[name]])
        return next((each for each in hits if not self._belongs_elsewhere(each.rid, record.id)), None)

    def _belongs_elsewhere(self, rid: str, record_id: str) -> bool:
        found = self.engine.records.find(self.tenant, self.entity.name, self._derived(rid))
        return found is not None and found.id != record_id

    def _derived(self, rid: str) -> str:
        return layout.derived_record_id(self.tenant, self.uid, self.entity.name, rid)

    def _key(self, record: Record) -> str:
        name = self.side.sync.match
        return match_key(name, record.fields.get(name)) if name else ""

    def _forget_attempt(self, task: _Task) -> None:
        """What was on its way is dead: the next attempt is the only one."""
        draft = Draft(task.record, self.config)
        link = draft.link(self.uid)
        link.attempt, link.inflight = None, {}
        draft.tidy(link, self.side)
        task.record = draft.finished()

    def _give_up_claim(self, task: _Task) -> None:
        draft = Draft(task.record, self.config)
        link = draft.link(self.uid)
        link.forget()
        link.state, link.rid = "gone", ""
        task.record = draft.finished()

    def _redirect(self, task: _Task, rid: str) -> None:
        """Lets the remote id lead to the record, before its link is saved. Where its delete was read already the record
        is read once more, as soon as the link is there.
        """
        derived = self._derived(rid)
        if derived == task.id:
            return
        there = self.engine.records.get(self.tenant, self.entity.name, derived)
        tomb = there if there is not None and isinstance(there.content, Tomb) else None
        if tomb is not None:
            self.engine.held.hold(self.tenant, self.uid, self.entity.name, rid, self._now())
        self.engine.records.redirect(self.tenant, self.entity.name, derived, task.id, tomb)

    def _searched_first(self, tasks: list[_Task], again: list[str]) -> list[_Task]:
        """Where a match rule holds, a record that is new here is looked for before it is made: a hit is read as a hint,
        and only a record that stayed as it was is made.
        """
        news = [
            task
            for task in tasks
            if self._link(task).state == "new"
            and self._key(task.record)
            and self._searched.get(task.id) != task.stored.etag
            and not any(each.get("decided") == "separate" for each in task.record.reviews)
        ]
        if not news:
            return tasks
        name = self.side.sync.match
        holders = self.engine.pool.map(
            lambda task: self._holder(self._key(task.record), task.id),
            news,
        )
        for task, holder in zip(news, holders, strict=True):
            if self._is_another(task, holder):
                tasks = [each for each in tasks if each is not task]
        news = [task for task in news if task in tasks]
        by_key = {self._key(task.record): task for task in news}
        try:
            hits = self.connector.search(
                self.entity.name, name, list(dict.fromkeys(task.record.fields[name] for task in news))
            )
        except HubError as error:
            raise Stop(error) from None
        met: set[str] = set()
        for hit in hits:
            known = by_key.get(match_key(name, (hit.fields or {}).get(name)))
            if known is not None:
                met.add(known.id)
        for task in news:
            self._searched[task.id] = task.stored.etag
        if hits:
            now = self._now()
            hints = [Snapshot(Change(hit.rid, None), now, now, hint=True) for hit in hits]
            applier = Applier(self.engine, self.tenant, self.entity, self.opened, "")
            applier.apply(hints)
        again.extend(met)
        return [task for task in tasks if task.id not in met]

    def _holder(self, key: str, record_id: str) -> str:
        """Who has a match key. It is read first: the record was claimed by it when it was made."""
        keys, entity = self.engine.keys, self.entity.name
        return keys.match_of(self.tenant, entity, key) or keys.claim_match(
            self.tenant, entity, key, record_id
        )

    def _is_another(self, task: _Task, holder: str) -> bool:
        """Whether another record has the match key, and may be the same: then a person decides before one is made."""
        if holder == task.id:
            return False
        other = self.engine.records.find(self.tenant, self.entity.name, holder)
        if other is None or other.id == task.id or self._key(other) != self._key(task.record):
            self.engine.keys.move_match(
                self.tenant, self.entity.name, self._key(task.record), holder, task.id
            )
            return False
        draft = Draft(task.record, self.config)
        draft.reviews.append({"kind": "match", "connection": self.uid, "record": other.id})
        self._save([write_of(task.stored, draft.finished(), self._by())])
        return True

    # --- preparing and sending -----------------------------------------------------------------------------------

    def _prepare(self, task: _Task, again: list[str]) -> bool:
        """Decides what is sent, and puts it into the link. False if nothing is; what that changed is saved."""
        record, link = task.record, self._link(task)
        if record.dead:
            task.verb = "delete"
        else:
            task.verb = "update" if link.state == "live" else "create"
        draft = Draft(record, self.config)
        part = draft.link(self.uid)
        sent = {} if record.dead else self._sendable(task, part)
        holds = task.verb == "create" and bool(part.waits.keys() & self.side.needed)
        if (not sent and task.verb != "delete") or holds:
            if part.attempt is not None:
                self._wait_until(
                    part.attempt.until
                )  # what was taken back may still land; a look closes it then
            task.record = draft.finished()
            if task.record is not task.stored.content:
                saved = self._save([write_of(task.stored, task.record, self._by())])
                again.extend(saved.stale)
            return False
        task.token = self.engine.ids.uuid()
        task.lo = task.lo or self._now()
        self._note_attempt(task, draft, part, sent)
        task.record = draft.finished()
        return True

    def _sendable(self, task: _Task, link: LinkDraft) -> Mapping[str, Any]:
        """The fields to send, as the remote takes them; those whose reference is not there yet wait."""
        record = task.record
        if task.verb == "create":
            names = [
                name
                for name in record.fields
                if name in self.side.writes
                and not (
                    name in link.refused and self.side.same(name, link.refused[name], record.fields[name])
                )
            ]
            task.sent = {name: record.fields[name] for name in names}
        else:
            now = self._link(task)
            for name in [each for each in link.behind if each not in self.side.writes]:
                link.echo[name] = link.behind.pop(name)  # it is written no more
            names = [
                name for name in now.behind if is_sendable(record, now, name) and name in self.side.writes
            ]
            task.sent = {name: record.fields.get(name) for name in names}
        self._with_companions(task)
        outward, missing = self.references.outward(self.uid, record.fields, task.sent)
        for name, (entity, record_id) in missing.items():
            kind = self.entity.by_name.get(name)
            for each in {name, kind.companion if kind else ""} - {""}:
                outward.pop(each, None)
            if record_id and name in link.behind:
                link.waits[name] = f"{entity}~{record_id}"
                self.waits = True
            elif name in link.behind:
                link.echo[name] = link.behind.pop(name)  # it leads to what this connection does not keep
        task.sent = {name: value for name, value in task.sent.items() if name in outward}
        task.missing = {name: ref for name, ref in missing.items() if ref[1]}
        return outward

    def _with_companions(self, task: _Task) -> None:
        """What a reference leads to goes with it, and it with that."""
        for each in self.entity.fields:
            beside = each.companion
            if beside and (each.name in task.sent or beside in task.sent):
                for name in (each.name, beside):
                    task.sent = {**task.sent, name: task.record.fields.get(name)}

    def _note_attempt(self, task: _Task, draft: Draft, link: LinkDraft, outward: Mapping[str, Any]) -> None:
        seconds = self.engine.tuning.attempt_seconds
        before = link.deleting if task.verb == "delete" else link.attempt
        attempt = Attempt(
            task.token, self._after(seconds), link.ver, n=before.n + 1 if before is not None else 1
        )
        if task.verb == "delete":
            link.deleting = attempt
            task.write = Write(verb="delete", rid=link.rid, if_match=self._etag(link))
            return
        if task.verb == "create":
            self._claim(task, draft, link)
        link.attempt = attempt
        for name, value in task.sent.items():
            values = list(link.inflight.get(name, ()))
            if not any(self.side.same(name, value, each) for each in values):
                values.append(value)
            link.inflight[name] = values
        if task.verb == "create":
            key = link.rid if self.connector.own_ids else ""
            marker = f"{task.id}.{link.gen}" if self.connector.marks else ""
            task.write = Write({n: v for n, v in outward.items() if v is not None}, key=key, marker=marker)
        else:
            task.write = Write(outward, verb="update", rid=link.rid, if_match=self._etag(link))

    def _etag(self, link: LinkDraft) -> str:
        return link.etag or self.side.etag_of(link.ver) if self.side.if_match and link.ver else ""

    def _claim(self, task: _Task, draft: Draft, link: LinkDraft) -> None:
        """The link says that a create may be under way, before it is: its base is empty, its id is ours if we choose it."""
        if link.state == "new":
            link.state = "creating"
            draft.empty_base(link, self.side)
            for name, (entity, record_id) in task.missing.items():
                link.waits[name] = f"{entity}~{record_id}"
                self.waits = True
        if self.connector.own_ids:
            link.rid = derived_id(self.uid, task.id, str(link.gen))
            self._leads[self._derived(link.rid)] = task.id

    def _save_attempts(self, tasks: list[_Task], again: list[str]) -> list[_Task]:
        """What may be at the remote stands in the link before it is sent."""
        if not tasks:
            return []
        saved = self._save([write_of(task.stored, task.record, self._by()) for task in tasks])
        lost = {*saved.stale, *saved.large}
        again.extend(saved.stale)
        self._tokens.update(task.token for task in tasks if task.id not in lost)
        return [task for task in tasks if task.id not in lost]

    def _may_begin(self) -> bool:
        """A request that begins later than its attempt allows could land after others take it for dead."""
        return self.engine.clock.monotonic() - self._attempts_at < self.engine.tuning.push_start_seconds

    def _written(self, tasks: Sequence[_Task]) -> list[tuple[_Task, Outcome]]:
        if not self._may_begin():
            late = NotBegun("Was not begun. Its attempt was saved too long ago.")
            return [(task, Outcome(error=late)) for task in tasks]
        outcomes = self.connector.write(
            self.entity.name, [task.write for task in tasks], self.engine.pool, self._may_begin
        )
        return list(zip(tasks, outcomes, strict=True))

    # --- settling ------------------------------------------------------------------------------------------------

    def _settle(self, results: Sequence[tuple[_Task, Outcome]], again: list[str]) -> None:
        """Merges every answer into its row as it now is. Raises Stop at the end if one error is everybody's."""
        wrote = any(outcome.error is None for _, outcome in results)
        stops = [o.error for _, o in results if o.error is not None and o.error.recovery in _STOPPING]
        stops = [each for each in stops if not isinstance(each, NotBegun)] or stops
        # Whether the system can be read says nothing: what fails while no write gets through is no record's own fault.
        self._outage = bool(stops) and not wrote
        open_ones = {task.id: (task, outcome) for task, outcome in results}
        for _ in range(MAX_ROUNDS):
            if not open_ones:
                break
            rows = self._stored(list(open_ones))
            writes: list[RecordWrite] = []
            for record_id, (task, outcome) in open_ones.items():
                stored = rows.get(record_id)
                if stored is None or not isinstance(stored.content, Record):
                    continue
                write = self._settled(task, outcome, stored, stored.content, again)
                if write is not None:
                    writes.append(write)
            saved = self._save(writes)
            for write in writes:
                after = write.after
                if write.id not in saved.stale and isinstance(after, Record):
                    link = after.links[self.uid]
                    if wants_push(after, link):
                        again.append(write.id)
            open_ones = {each: open_ones[each] for each in saved.stale}
        stops = [each for each in stops if self._outage or each.recovery in STOPPING - {Recovery.RETRY}]
        if stops and not isinstance(stops[0], NotBegun):
            raise Stop(stops[0])

    def _settled(
        self, task: _Task, outcome: Outcome, stored: Stored, record: Record, again: list[str]
    ) -> RecordWrite | None:
        """What an answer makes of a row; None if it is another worker's by now, or only a look can tell."""
        link = record.links.get(self.uid)
        if link is None:
            return None
        mine = link.deleting if task.verb == "delete" else link.attempt
        if mine is None or mine.token != task.token:
            return None
        error = outcome.error
        if isinstance(error, VersionMismatch) and task.verb == "update":
            again.append(task.id)  # what was sent may have landed earlier: a look tells
            return None
        record = self.references.settled(record, self.config)
        if task.verb == "delete":
            merged = self._settled_delete(record, link, error)
        elif error is None:
            merged = self._settled_write(task, outcome, record, link)
        elif isinstance(error, VersionMismatch) and self.connector.own_ids:
            merged = self._settled_exists(task, record, link)
        else:
            merged = Merged(self._settled_error(task, error, record), {})
        if merged is None:
            again.append(task.id)
            return None
        self.settled |= task.verb == "create"
        return write_of(stored, merged.record, self._by(), losers=merged.losers)

    def _settled_write(self, task: _Task, outcome: Outcome, record: Record, link: Link) -> Merged | None:
        change = outcome.change
        if change is None or change.problem or change.fields is None:
            return Merged(
                self._failed_link(record, "BadAnswer", "The answer can't be read.", PARK_BAD_ANSWERS), {}
            )
        if task.verb == "create":
            if change.rid != link.rid:  # the claim led an id of our own here, before it could be anybody's
                self._redirect(task, change.rid)
            self.made = True
        elif not merge.settles(link, self.side, change.version):
            return None
        snapshot = self._snapshot(change, task.lo)
        merged = merge.merge(record, self.side, self.config, snapshot, task.sent)
        draft = Draft(merged.record, self.config)
        part = draft.link(self.uid)
        part.close(self.side)
        part.failed = {}
        draft.tidy(part, self.side)
        return Merged(draft.finished(), merged.losers)

    def _settled_exists(self, task: _Task, record: Record, link: Link) -> Merged | None:
        """A create under our id is answered by "exists": an earlier one was carried out. If no read finds the row it was
        deleted since, and the record is made under another id.
        """
        lo = self._now()
        try:
            found = self.connector.get_many(self.entity.name, [link.rid]).get(link.rid)
        except HubError as error:
            return Merged(self._settled_error(task, error, record), {})
        if found is not None and found.problem:
            return Merged(
                self._failed_link(record, "BadAnswer", "The answer can't be read.", PARK_BAD_ANSWERS), {}
            )
        if found is None:
            draft = Draft(record, self.config)
            draft.link(self.uid).renewed()
            return Merged(draft.finished(), {})
        self.made = True
        merged = merge.merge(record, self.side, self.config, self._snapshot(found, lo))
        return Merged(deletes.closed(merged.record, self.side, self.config, deleting=False), merged.losers)

    def _settled_delete(self, record: Record, link: Link, error: HubError | None) -> Merged | None:
        if error is None or isinstance(error, RecordGone):
            return deletes.gone(record, self.side, self.config, link.rid, self._now())
        if isinstance(error, VersionMismatch):
            draft = Draft(record, self.config)
            part = draft.link(self.uid)
            # A look comes next: without an attempt that is closed by now, it needs one to be asked for.
            part.deleting = None
            part.attempt = part.attempt or Attempt("", self._now(), part.ver)
            return Merged(draft.finished(), {})
        if _not_executed(error):
            after = record
            if link.deleting is not None and link.deleting.n == 1:
                after = deletes.closed(record, self.side, self.config, deleting=True)
            return Merged(self._noted(after, error), {})
        if self._outage:
            return Merged(record, {})
        return Merged(self._failed_link(record, error.code, error.message, PARK_FAILURES), {})

    def _settled_error(self, task: _Task, error: HubError, record: Record) -> Record:
        draft = Draft(record, self.config)
        link = draft.link(self.uid)
        alone = link.attempt is not None and link.attempt.n == 1
        if isinstance(error, RecordGone) and task.verb == "update":
            return deletes.gone(record, self.side, self.config, link.rid, self._now()).record
        if isinstance(error, Rejected | CallerError) or (
            isinstance(error, RecordGone) and task.verb == "create"
        ):
            return self._refused(task, error, draft, link, alone=alone)
        if _not_executed(error):
            if alone:
                self._undo_attempt(task, draft, link)
            return self._noted(draft.finished(), error)
        if isinstance(error, VersionMismatch) and alone:
            self._undo_attempt(task, draft, link)  # another row has its key
            record = draft.finished()
        if self._outage:
            return record
        limit = PARK_BAD_ANSWERS if error.recovery is Recovery.PARK else PARK_FAILURES
        return self._failed_link(record, error.code, error.message, limit)

    def _undo_attempt(self, task: _Task, draft: Draft, link: LinkDraft) -> None:
        """It was surely not carried out: nothing of it is left."""
        if task.verb == "create":
            gen = link.gen
            link.forget()
            link.state, link.rid, link.gen = "new", "", gen
            return
        link.attempt = None
        link.inflight = {}
        draft.tidy(link, self.side)

    def _refused(self, task: _Task, error: HubError, draft: Draft, link: LinkDraft, *, alone: bool) -> Record:
        """The remote rejects values: they are not sent again until they change; the others go on."""
        told = [each.field for each in error.errors if each.field in task.sent]
        named = told or list(task.sent)
        if task.verb == "create":
            if not alone:
                # An earlier one may have been carried out: a look tells, once it surely was or never will be.
                return self._failed_link(draft.finished(), error.code, error.message, PARK_FAILURES)
            refused = {**link.refused, **{name: task.sent[name] for name in told}}
            self._undo_attempt(task, draft, link)
            if told and not self.side.needed & set(told):
                # It is made without them: an owner whom the other system does not know must not hold up a person.
                link.behind, link.refused = dict.fromkeys(refused), refused
                return draft.finished()
            link.parked = {
                "cause": error.code,
                "message": error.message,
                "time": self._now(),
                "fields": named,
            }
            return draft.finished()
        for name in named:
            if name in link.behind:
                link.refused[name] = task.sent[name]
        if alone:
            link.attempt, link.inflight = None, {}
        draft.tidy(link, self.side)
        return draft.finished()

    def _noted(self, record: Record, error: HubError) -> Record:
        """What was not carried out counts against the record only if others get through."""
        if isinstance(error, NotBegun) or error.recovery in STOPPING or self._outage:
            return record
        return self._failed_link(record, error.code, error.message, PARK_FAILURES)

    def _fail(self, task: _Task, code: str, message: str, limit: int) -> None:
        task.record = self._failed_link(task.record, code, message, limit)

    def _failed_link(self, record: Record, code: str, message: str, limit: int) -> Record:
        """One more failure in a row; the link gives up after so many."""
        draft = Draft(record, self.config)
        link = draft.link(self.uid)
        count = link.failed.get("n", 0) + 1
        wait = backoff(count, self.engine.ids.fraction())
        link.failed = {"n": count, "cause": code, "message": message, "next": self._after(wait)}
        if count >= limit:
            link.parked = {"cause": code, "message": message, "time": self._now(), "failures": count}
        self._wait_until(link.failed["next"])
        return draft.finished()


_STOPPING = STOPPING | {Recovery.ENTITY_WAITS}


def _marker(record: Record, link: Link) -> str:
    return f"{record.id}.{link.gen}"


def _not_executed(error: HubError) -> bool:
    """Whether an error says that the write surely was not carried out, for a reason that is not the record's."""
    if getattr(error, "outcome_unknown", False):
        return False
    return error.recovery in _STOPPING
