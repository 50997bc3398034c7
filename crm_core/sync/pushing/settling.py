"""Settling: what an answer, or an error, makes of the record that was sent."""

from collections.abc import Sequence

from crm_core.connector import STOPPING, Outcome
from crm_core.errors import CallerError, HubError, NotBegun, RecordGone, Recovery, Rejected, VersionMismatch
from crm_core.model.record import Attempt, Link, Record, wants_push
from crm_core.storage.records import RecordWrite, Stored
from crm_core.sync import deletes, merge
from crm_core.sync.draft import Draft, LinkDraft
from crm_core.sync.merge import Merged
from crm_core.sync.pushing.base import PARK_BAD_ANSWERS, PARK_FAILURES, PushBase, Stop, Task
from crm_core.sync.saving import write_of

MAX_TRIES = 12
"""How often an answer is merged anew because its row moved on."""


class Settling(PushBase):
    """Answers merged into the rows as they now are."""

    def _settle(self, results: Sequence[tuple[Task, Outcome]], again: list[str]) -> None:
        """Merges every answer into its row as it now is. Raises Stop at the end if one error is everybody's."""
        wrote = any(outcome.error is None for _, outcome in results)
        stops = [o.error for _, o in results if o.error is not None and o.error.recovery in _STOPPING]
        stops = [each for each in stops if not isinstance(each, NotBegun)] or stops
        # Whether the system can be read says nothing: what fails while no write gets through is no record's own fault.
        self._outage = bool(stops) and not wrote
        open_ones = {task.id: (task, outcome) for task, outcome in results}
        for _ in range(MAX_TRIES):
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
        self, task: Task, outcome: Outcome, stored: Stored, record: Record, again: list[str]
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
            self._refused_first.setdefault(task.id, task.token)
            again.append(task.id)  # what was sent may have landed earlier: a look tells
            return None
        record = self.references.settled(record, self.config)
        if task.verb == "delete":
            merged = self._settled_delete(record, link, error)
        elif error is None:
            merged = self._settled_write(task, outcome, record, link)
        elif isinstance(error, VersionMismatch) and self.found_by == "id":
            merged = self._settled_exists(task, record, link)
        else:
            merged = Merged(self._settled_error(task, error, record), {})
        if merged is None:
            again.append(task.id)
            return None
        self.settled |= task.verb == "create"
        return write_of(stored, merged.record, self._by(), losers=merged.losers, policy=self.side.policy)

    def _settled_write(self, task: Task, outcome: Outcome, record: Record, link: Link) -> Merged | None:
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

    def _settled_exists(self, task: Task, record: Record, link: Link) -> Merged | None:
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

    def _settled_error(self, task: Task, error: HubError, record: Record) -> Record:
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

    def _undo_attempt(self, task: Task, draft: Draft, link: LinkDraft) -> None:
        """It was surely not carried out: nothing of it is left."""
        if task.verb == "create":
            gen = link.gen
            link.forget()
            link.state, link.rid, link.gen = "new", "", gen
            return
        link.attempt = None
        link.inflight = {}
        draft.tidy(link, self.side)

    def _refused(self, task: Task, error: HubError, draft: Draft, link: LinkDraft, *, alone: bool) -> Record:
        """The remote rejects values: they are not sent again until they change; the others go on."""
        words = {each.field: each.message for each in error.errors if each.field in task.sent}
        told = list(words)
        named = told or list(task.sent)
        why = {
            name: {"cause": error.code, "message": words.get(name, error.message), "time": self._now()}
            for name in named
        }
        if task.verb == "create":
            if not alone:
                # An earlier one may have been carried out: a look tells, once it surely was or never will be.
                return self._failed_link(draft.finished(), error.code, error.message, PARK_FAILURES)
            refused = {**link.refused, **{name: task.sent[name] for name in told}}
            self._undo_attempt(task, draft, link)
            if told and not self.side.needed & set(told):
                # It is made without them: an owner whom the other system does not know must not hold up a person.
                link.behind, link.refused = dict.fromkeys(refused), refused
                link.why = {**link.why, **why}
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
                link.refused[name], link.why[name] = task.sent[name], why[name]
        if alone:
            link.attempt, link.inflight = None, {}
        draft.tidy(link, self.side)
        return draft.finished()

    def _noted(self, record: Record, error: HubError) -> Record:
        """What was not carried out counts against the record only if others get through."""
        if isinstance(error, NotBegun) or error.recovery in STOPPING or self._outage:
            return record
        return self._failed_link(record, error.code, error.message, PARK_FAILURES)


_STOPPING = STOPPING | {Recovery.ENTITY_WAITS}


def _not_executed(error: HubError) -> bool:
    """Whether an error says that the write surely was not carried out, for a reason that is not the record's."""
    if getattr(error, "outcome_unknown", False):
        return False
    return error.recovery in _STOPPING
