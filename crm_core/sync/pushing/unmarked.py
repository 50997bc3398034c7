"""Creates that nothing but their values identifies: the system takes neither an id of ours nor a marker, and the record has
no match key. A claim of theirs lets pulls hold back what the hub does not know; where an answer was lost, the rows that
came to be there since are compared with what was sent. Why so: docs/adr/0011.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from crm_core.connector import Change, Cursor
from crm_core.errors import CursorExpired, HubError, NotSupported
from crm_core.model.fields import Type, parse_instant
from crm_core.model.matchkeys import match_key
from crm_core.model.record import Link, Record
from crm_core.storage.records import RecordWrite, Redirect, Stored, Tomb
from crm_core.sync import deletes, merge
from crm_core.sync.draft import Draft
from crm_core.sync.merge import Snapshot
from crm_core.sync.pushing.base import PARK_BAD_ANSWERS, PARK_FAILURES, Stop, Task
from crm_core.sync.pushing.looking import Looking

SINCE_MARGIN_SECONDS = 300.0
"""By how much a remote's clock may be wrong, where its rows are asked for by their time."""


@dataclass
class Strangers:
    """Rows that were there after a create was dead, and of which the hub had no record. `rows`: with what is at the id
    each of them would have (a tomb). By record: `led`, the row that leads to it, though its link does not say so yet;
    `asked`, the records that a person is asked about for it.
    """

    rows: list[tuple[Snapshot, Stored | None]] = field(default_factory=list)
    led: dict[str, Snapshot] = field(default_factory=dict)
    asked: dict[str, list[str]] = field(default_factory=dict)


class Unmarked(Looking):
    """How a record comes once to a remote that can't tell what we made."""

    def _claim_unmarked(self, tasks: Sequence[Task]) -> None:
        """Before such creates are sent, and before their records say so: whoever sees a row that one of them made, and
        looks after that, finds its claim.
        """
        ids = [task.id for task in tasks if task.verb == "create" and self._is_unmarked(task.record)]
        if ids:
            self._claimed |= self.engine.held.claim(self.tenant, self.uid, self.entity.name, ids, self._now())

    def _take_up_unmarked(self, claims: Sequence[Task], tasks: list[Task], again: list[str]) -> None:
        """Such creates whose outcome nobody knows: once they surely are dead, and lists would show what they made."""
        now, ready = self._now(), []
        for task in claims:
            attempt = self._link(task).attempt
            assert attempt is not None
            until = merge.later(attempt.until, self.connector.list_lag_seconds)
            if now > until:
                ready.append(task)
            else:
                tasks.remove(task)
                self._wait_until(until)
        if not ready:
            return
        for claim in self.engine.held.claims(self.tenant, self.uid, self.entity.name):
            self._claimed[claim.record] = claim
        try:
            strangers = self._strangers(ready)
        except HubError as error:
            raise Stop(error) from None
        for task in ready:
            self._settle_unmarked(task, strangers, tasks, again)

    def _settle_unmarked(self, task: Task, strangers: Strangers, tasks: list[Task], again: list[str]) -> None:
        """One row with all that was sent is what was made; none with anything of it: nothing was. Else a person is asked."""
        link, rows = self._link(task), strangers.rows
        led = strangers.led.get(task.id)
        equal = [each for each in rows if self._is_as_sent(link, each[0])]
        alike = equal or [each for each in rows if self._resembles(link, each[0])]
        asked = strangers.asked.get(task.id, [])
        if led is not None:
            self._adopt(task, led, tasks, again)
        elif len(equal) == 1 and not asked:
            rows.remove(equal[0])
            self._redirect(task, equal[0][0].change.rid)
            target, _ = self.engine.records.follow(
                self.tenant, self.entity.name, self._derived(equal[0][0].change.rid)
            )
            if target == task.id:
                self._adopt(task, equal[0][0], tasks, again)
            else:
                tasks.remove(task)
                again.append(task.id)  # somebody was faster
        elif task.record.dead:
            self._give_up_claim(task)
            self._after_look(task, tasks, again)
        elif alike and not self.side.sync.pulls:
            self._unsure(task, alike, tasks, again)
        elif asked or alike:
            self._ask_which(task, asked or self._kept_apart(task, alike), tasks, again)
            strangers.rows = [each for each in rows if each not in alike]
        else:
            self._not_made(task, tasks, again)

    def _not_made(self, task: Task, tasks: list[Task], again: list[str]) -> None:
        """It is made again, unless it failed too often; until the outcome was known that could not be said."""
        failed = self._link(task).failed
        limit = PARK_BAD_ANSWERS if failed.get("cause") == "BadAnswer" else PARK_FAILURES
        if failed.get("n", 0) < limit:
            self._forget_attempt(task)
            return
        draft = Draft(task.record, self.config)
        link = draft.link(self.uid)
        link.forget()
        link.state = "new"
        told = {name: failed[name] for name in ("cause", "message")}
        link.parked = {**told, "time": self._now(), "failures": failed["n"]}
        task.record = draft.finished()
        self._after_look(task, tasks, again)

    def _adopt(self, task: Task, snapshot: Snapshot, tasks: list[Task], again: list[str]) -> None:
        """A row that leads to the record is what its create has made."""
        self._merge_look(task, snapshot)
        if self._link(task).attempt is not None:
            task.record = deletes.closed(task.record, self.side, self.config, deleting=False)
        self.made = True
        self._after_look(task, tasks, again)

    def _forget_attempt(self, task: Task) -> None:
        """What was on its way is dead: the next attempt is the only one."""
        draft = Draft(task.record, self.config)
        link = draft.link(self.uid)
        link.attempt, link.inflight = None, {}
        draft.tidy(link, self.side)
        task.record = draft.finished()

    def _give_up_claim(self, task: Task) -> None:
        draft = Draft(task.record, self.config)
        link = draft.link(self.uid)
        link.forget()
        link.state, link.rid = "gone", ""
        task.record = draft.finished()

    # --- what came to be there ------------------------------------------------------------------------------------

    def _strangers(self, tasks: Sequence[Task]) -> Strangers:
        """What no pull has made a record of: what is held, and what the feed tells beyond the entity's cursor. The cursor
        is read first: what is before it then is held by now.
        """
        rids = list(dict.fromkeys([*self._listed(tasks), *self._held_back()]))
        stored = self._stored([self._derived(rid) for rid in rids])
        ids = {task.id for task in tasks}
        found = Strangers()
        alive = {}
        for rid in rids:
            content = there.content if (there := stored.get(self._derived(rid))) else None
            if content is None or isinstance(content, Tomb):
                alive[rid] = ""
            elif isinstance(content, Redirect) and content.to in ids:
                alive[rid] = content.to
            elif isinstance(content, Record):
                for each in content.reviews:
                    if (each["kind"], each["connection"]) == ("match", self.uid) and not each.get("decided"):
                        found.asked.setdefault(each["record"], []).append(content.id)
        lo = self._now()
        for rid, change in self.connector.get_many(self.entity.name, list(alive)).items():
            if change.problem or (not alive[rid] and self._has_key(change)):
                continue
            snapshot = self._snapshot(change, lo)
            if alive[rid]:
                found.led[alive[rid]] = snapshot
            else:
                found.rows.append((snapshot, stored.get(self._derived(rid))))
        return found

    def _held_back(self) -> list[str]:
        return list(self.engine.held.rids(self.tenant, self.uid, self.entity.name))

    def _listed(self, tasks: Sequence[Task]) -> list[str]:
        """The remote ids that the feed tells beyond the entity's cursor, which stays where it is. Of an entity that was
        never read, those of rows that changed since the creates were begun.
        """
        states = self.engine.states.read(self.tenant, self.uid)
        state = states.entities.get(self.entity.name) if states else None
        if state is not None and state.cursor is not None:
            try:
                return [each.rid for each in self._changes(state.cursor)]
            except CursorExpired:
                pass
        ends = [attempt.until for task in tasks if (attempt := self._link(task).attempt) is not None]
        since = merge.later(min(ends), -self.engine.tuning.attempt_seconds - SINCE_MARGIN_SECONDS)
        try:
            begin: Cursor | None = self.connector.begin(self.entity.name, since=since, where=None)
        except NotSupported:
            begin = None
        return [
            each.rid
            for each in self._changes(begin)
            if not each.modified or parse_instant(each.modified) >= parse_instant(since)
        ]

    def _changes(self, cursor: Cursor | None) -> list[Change]:
        found: list[Change] = []
        more = True
        while more:
            page = self.connector.changes(self.entity.name, cursor, size=self.engine.tuning.page_records)
            found += [each for each in page.changes if each.fields is not None]
            cursor, more = page.cursor, page.more
        return found

    def _has_key(self, change: Change) -> bool:
        """Such a row is nobody's whose record has no key."""
        name = self.side.sync.match
        return bool(name and match_key(name, (change.fields or {}).get(name)))

    def _compared(self, link: Link) -> list[str]:
        """What was sent that answers tell, whether the connection is pulled or not."""
        untold = self.side.untold
        return [name for name in link.inflight if name not in untold and not self.side.is_kept_there(name)]

    def _is_as_sent(self, link: Link, snapshot: Snapshot) -> bool:
        """Whether a row has every value that was sent, as that was or as the remote stores it."""
        fields, names = snapshot.change.fields or {}, self._compared(link)
        return bool(names) and all(merge.is_ours(link, self.side, name, fields.get(name)) for name in names)

    def _resembles(self, link: Link, snapshot: Snapshot) -> bool:
        """Whether a row may be what was sent, and was changed since: it has one of the texts. Where no answer tells what
        was sent, any may.
        """
        fields, names = snapshot.change.fields or {}, self._compared(link)
        known = self.side.entity.by_name
        texts = [
            name
            for name in names
            if name in known and known[name].type is Type.TEXT and fields.get(name) is not None
        ]
        return not names or any(merge.is_ours(link, self.side, name, fields[name]) for name in texts)

    # --- what a person is asked -------------------------------------------------------------------------------------

    def _kept_apart(self, task: Task, rows: Sequence[tuple[Snapshot, Stored | None]]) -> list[str]:
        """Makes records of rows, of which nothing is made elsewhere until a person says whether one is the task's. Gives
        their ids; fewer if a pull was faster.
        """
        asked = {"kind": "match", "connection": self.uid, "record": task.id}
        writes = []
        for snapshot, tomb in rows:
            self._keep_in_sight(snapshot.change.rid)
            record_id = self._derived(snapshot.change.rid)
            made = merge.first_seen(record_id, self.entity, self.side, {}, snapshot, "")
            apart = Draft(replace(made, reviews=(asked,)), self.config).finished()
            writes.append(RecordWrite(record_id, tomb, apart))
        saved = self._save(writes)
        return [write.id for write in writes if write.id not in {*saved.stale, *saved.large}]

    def _unsure(
        self, task: Task, rows: Sequence[tuple[Snapshot, Stored | None]], tasks: list[Task], again: list[str]
    ) -> None:
        """Of a system that is only written no row becomes a record: the record gives up there, and says why."""
        draft = Draft(task.record, self.config)
        link = draft.link(self.uid)
        link.forget()
        link.state = "new"
        made = ", ".join(sorted(snapshot.change.rid for snapshot, _ in rows))
        told = f"An answer was lost, and it may have been made there as {made}. A retry makes it once more."
        link.parked = {"cause": "Ambiguous", "message": told, "time": self._now()}
        task.record = draft.finished()
        self._after_look(task, tasks, again)

    def _keep_in_sight(self, rid: str) -> None:
        """Held until the claim is settled, so that whoever takes it up next, should this worker die, finds it again: no
        pull holds back what has a record.
        """
        self.engine.held.hold(self.tenant, self.uid, self.entity.name, rid, self._now())

    def _ask_which(self, task: Task, records: Sequence[str], tasks: list[Task], again: list[str]) -> None:
        """The record is made by nobody until a person has said whether it is one of these."""
        if not records:
            tasks.remove(task)
            again.append(task.id)
            return
        draft = Draft(task.record, self.config)
        link = draft.link(self.uid)
        link.forget()
        link.state, link.rid = "new", ""
        for each in records:
            asked = {"kind": "match", "connection": self.uid, "record": each}
            if asked not in draft.reviews:
                draft.reviews.append(asked)
        task.record = draft.finished()
        self._after_look(task, tasks, again)
