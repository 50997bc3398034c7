"""Looking: a point read tells what became of what may be at the remote."""

from collections.abc import Sequence

from crm_core.connector import Change
from crm_core.errors import HubError
from crm_core.model.record import Attempt, Record, wants_push
from crm_core.sync import deletes, merge
from crm_core.sync.merge import Merged, Snapshot
from crm_core.sync.pushing.base import PARK_BAD_ANSWERS, PARK_FAILURES, PushBase, Stop, Task
from crm_core.sync.saving import write_of


class Looking(PushBase):
    """Point reads of records in hand, merged under the rows that were read before them."""

    def _looked(self, tasks: Sequence[Task]) -> list[Task]:
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

    def _merge_look(self, task: Task, snapshot: Snapshot) -> None:
        """Merges a point read, and closes what it proves to have landed or to be dead."""
        link = self._link(task)
        attempt, deleting = link.attempt, link.deleting
        record, change = task.record, snapshot.change
        if change.winner:
            winner = self._derived(change.winner)
            away = deletes.merged_away(record, self.side, self.config, link.rid, winner, snapshot.hi)
            merged = Merged(away, {})
        elif change.fields is None:
            merged = deletes.gone(record, self.side, self.config, link.rid, snapshot.hi)
        else:
            merged = merge.merge(record, self.side, self.config, snapshot)
        task.losers.update(merged.losers)
        after = merged.record
        now_link = after.links[self.uid]
        if attempt is not None and now_link.attempt is not None and self._is_fenced(attempt, snapshot):
            after = deletes.closed(after, self.side, self.config, deleting=False)
            if not self._came_too_late(task, attempt):
                after = self._without_effect(record, after)
        if deleting is not None and now_link.deleting is not None and self._is_fenced(deleting, snapshot):
            after = deletes.closed(after, self.side, self.config, deleting=True)
        task.record = after

    def _is_fenced(self, attempt: Attempt, snapshot: Snapshot) -> bool:
        """Whether a request can't change the remote any more: it lost its If-Match, or it is dead by time."""
        change = snapshot.change
        moved = self.side.if_match and change.fields is not None and change.version != attempt.ver
        return moved or snapshot.lo > attempt.until

    def _came_too_late(self, task: Task, attempt: Attempt) -> bool:
        """Whether somebody was faster, and the write was refused, so that it goes again at once. Only the record's first
        one in a job: at a remote whose version is never the one that was read it has to count.
        """
        return self._refused_first.get(task.id) == attempt.token

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

    def _after_look(self, task: Task, tasks: list[Task], again: list[str]) -> None:
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
        step = write_of(task.stored, task.record, self._by(), losers=task.losers, policy=self.side.policy)
        saved = self._save([step])
        if wants_push(task.record, link) or saved.stale:
            again.append(task.id)

    def _may_send(self, task: Task) -> bool:
        """An open attempt that a look did not close is only repeated under If-Match; an open delete never."""
        link = self._link(task)
        if link.deleting is not None:
            return False
        return link.attempt is None or self.side.if_match
