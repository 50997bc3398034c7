"""One round of a push after the other: read, look, claim, save the attempt, write, settle."""

from collections.abc import Mapping, Sequence
from typing import Any

from crm_core.connector import Outcome, Write
from crm_core.errors import NotBegun
from crm_core.model.record import Attempt, Link, Record, is_sendable, open_items, wants_push
from crm_core.sync import merge
from crm_core.sync.draft import Draft, LinkDraft
from crm_core.sync.pushing.base import Task
from crm_core.sync.pushing.creating import Creating
from crm_core.sync.pushing.settling import Settling
from crm_core.sync.saving import save, write_of

MAX_ROUNDS = 12
"""How often a record is taken up again in one job; what still has work then comes with the next."""


class Pusher(Creating, Settling):
    """Pushes records of one entity to one connection. Afterwards: `later`: when the first of those that had to be left
    may be tried (RFC 3339, "" for none); `wakes`: who else has something to do; `made`: a record came to life there;
    `settled`: a claim was; `waits`: a record waits for another one.
    """

    def push(self, ids: Sequence[str]) -> list[str]:
        """Gives the ids that still have work to do at once. Raises Stop for what concerns the whole connection."""
        left = list(ids)
        for _ in range(MAX_ROUNDS):
            if not left or not self.in_time():
                break
            self._configure()
            left = self._round(left)
        return left

    def _round(self, ids: Sequence[str]) -> list[str]:
        tasks = self._read(ids)
        again: list[str] = []
        looks = [task for task in tasks if self._must_look(task)]
        claims = [task for task in looks if self._link(task).state == "creating"]
        for task in self._looked([task for task in looks if task not in claims]):
            self._after_look(task, tasks, again)
        unmarked = [task for task in claims if self._is_unmarked(task.record)]
        for task in claims:
            if task not in unmarked:
                self._take_up(task, tasks, again)
        self._take_up_unmarked(unmarked, tasks, again)
        tasks = self._searched_first(tasks, again)
        self._attempts_at = self.engine.clock.monotonic()  # before the first `until` is reckoned
        self._leads = {}
        ready = [task for task in tasks if self._prepare(task, again)]
        # Before a claim is saved: a row that is made under our id has to lead to its record from the first moment.
        self.engine.records.redirect_many(self.tenant, self.entity.name, self._leads)
        self._claim_unmarked(ready)
        ready = self._save_attempts(ready, again)
        if ready:
            self._settle(self._written(ready), again)
        return list(dict.fromkeys(again))

    def _read(self, ids: Sequence[str]) -> list[Task]:
        """The records that have something to do here now; what only the configuration changed is saved."""
        stored = [each for each in self._stored(ids).values() if isinstance(each.content, Record)]
        self.references.read(each.content for each in stored if isinstance(each.content, Record))
        tasks, stale = [], []
        for each in stored:
            assert isinstance(each.content, Record)
            record = Draft(self.references.settled(each.content, self.config), self.config).finished()
            task = Task(each, record)
            link = record.links.get(self.uid)
            if link is not None and wants_push(record, link):
                if not self._is_busy(link):
                    tasks.append(task)
            elif open_items(record) != open_items(each.content):
                stale.append(write_of(each, record, self._by()))
        self._save(stale)
        return tasks

    def _is_busy(self, link: Link) -> bool:
        """Whether another worker may be at it, or a failure is too young; notes when to come back."""
        now = self._now()
        wait = link.failed.get("next", "")
        if link.deleting is not None:
            wait = max(wait, link.deleting.until)
        if link.attempt is not None and not (link.attempt.token in self._tokens and self.side.if_match):
            wait = max(wait, link.attempt.until)
        if link.state == "creating" and link.attempt is not None and self.found_by != "id":
            lag = self.connector.index_lag_seconds
            wait = max(wait, merge.later(link.attempt.until, lag)) if lag else wait
        if link.state == "new" and not self.loaded:
            return True  # the end of the first load wakes it
        if wait >= now:
            self._wait_until(wait)
            return True
        return False

    def _must_look(self, task: Task) -> bool:
        link = self._link(task)
        if link.attempt is not None or link.deleting is not None:
            return True
        return link.state == "live" and not (self.side.if_match and link.ver)

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

    def _prepare(self, task: Task, again: list[str]) -> bool:
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

    def _sendable(self, task: Task, link: LinkDraft) -> Mapping[str, Any]:
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

    def _with_companions(self, task: Task) -> None:
        """What a reference leads to goes with it, and it with that."""
        for each in self.entity.fields:
            beside = each.companion
            if beside and (each.name in task.sent or beside in task.sent):
                for name in (each.name, beside):
                    task.sent = {**task.sent, name: task.record.fields.get(name)}

    def _note_attempt(self, task: Task, draft: Draft, link: LinkDraft, outward: Mapping[str, Any]) -> None:
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
            key = link.rid if self.found_by == "id" else ""
            marker = f"{task.id}.{link.gen}" if self.found_by == "marker" else ""
            task.write = Write({n: v for n, v in outward.items() if v is not None}, key=key, marker=marker)
        else:
            task.write = Write(outward, verb="update", rid=link.rid, if_match=self._etag(link))

    def _etag(self, link: LinkDraft) -> str:
        return link.etag or self.side.etag_of(link.ver) if self.side.if_match and link.ver else ""

    def _save_attempts(self, tasks: list[Task], again: list[str]) -> list[Task]:
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

    def _written(self, tasks: Sequence[Task]) -> list[tuple[Task, Outcome]]:
        if not self._may_begin():
            late = NotBegun("Was not begun. Its attempt was saved too long ago.")
            return [(task, Outcome(error=late)) for task in tasks]
        outcomes = self.connector.write(
            self.entity.name, [task.write for task in tasks], self.engine.pool, self._may_begin
        )
        return list(zip(tasks, outcomes, strict=True))
