"""Carrying out a plan of a push: decides again, record by record in the order of the plan, and sends what it says.

What is sent goes the way of every push, which looks before it sends and saves what may be there. Whoever is at a record
meanwhile has it.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from crm_core.model.entities import ENTITIES
from crm_core.model.record import Record
from crm_core.model.state import Run
from crm_core.sync.engine import wake
from crm_core.sync.planning.base import PlanBase
from crm_core.sync.planning.decisions import Decision, mark, mark_of, place_of
from crm_core.sync.planning.figures import reader
from crm_core.sync.planning.outcomes import ALREADY, LATER, Now, stored_rows, trouble, with_outcome
from crm_core.sync.planning.pushes import Deciding, Sending
from crm_core.sync.pushing import Pusher, Stop
from crm_core.sync.saving import save

PORTION = 200
NOT_YET = "It was not sent yet; it goes with the next push."


class SendPlan(PlanBase):
    """One slice of it."""

    def __init__(self, *args: Any, plan: Run, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.plan = reader(self.engine, self.job, plan)
        self.plan_run = plan

    def _expected(self) -> int:
        return int(self.plan_run.plan.get("decisions", -1))

    def work(self) -> None:
        if not self.run.started_at:
            self._begin_run()
        deciding = Deciding(self.engine, self.job, self.opened)
        place: Any = self.run.cursor or {}
        while place is not None:
            decisions, place = self.plan.page(place, top=PORTION)
            try:
                self._send(deciding, decisions)
            except Stop as stop:
                raise stop.error from None
            self.run = replace(self.run, read=self.run.read + len(decisions), cursor=place)
            if place is not None:
                self._save_run(self._with_figures())
                if self._time_is_up():
                    self._continue()
                    return
        self._succeed(None)

    def _send(self, deciding: Deciding, decisions: Sequence[Decision]) -> None:
        ids = [each["record_id"] for each in decisions if mark_of(each) is not None]
        rows = stored_rows(self.engine, self.job.tenant, self.job.entity, ids)
        now = {each.write.id: each for each in deciding.decide(rows)}
        wanted = [
            now[each["record_id"]]
            for each in decisions
            if each["record_id"] in now and mark(now[each["record_id"]].decision) == mark_of(each)
        ]
        stale = self._open_items(wanted)
        sent = [each.write.id for each in wanted if each.write.id not in stale]
        before = Now.read(self.engine, self.job.tenant, self.job.entity, decisions)
        if sent:
            self._push(sent)
        after = Now.read(self.engine, self.job.tenant, self.job.entity, decisions)
        for each in decisions:
            told = self._outcome(each, each["record_id"] in sent, before, after)
            self.telling.tell(told, [place_of(each)])

    def _open_items(self, wanted: Sequence[Sending]) -> list[str]:
        """The rows as the connection's configuration now wants them; gives those that somebody changed just now."""
        writes = [
            each.write
            for each in wanted
            if each.write.before and each.write.after is not each.write.before.content
        ]
        return save(self.engine, self.job.tenant, self.job.entity, writes).stale

    def _push(self, ids: Sequence[str]) -> None:
        """Raises Stop for what concerns the whole connection: what was sent stays, and is found so when it comes again."""
        loaded = not self.opened.connection.entities[self.job.entity].pulls or bool(self.state.last_success)
        pusher = Pusher(
            self.engine,
            self.job.tenant,
            ENTITIES[self.job.entity],
            self.opened,
            loaded=loaded,
            in_time=lambda: True,
        )
        try:
            pusher.push(ids)
        finally:
            wake(self.engine, self.job.tenant, self.job.entity, pusher.wakes)

    def _outcome(self, decision: Decision, was_sent: bool, before: Now, after: Now) -> Decision:
        if decision["action"] == "later":
            return with_outcome(decision, "drifted", LATER)
        if after.is_sent(decision):
            return with_outcome(decision, "applied", "" if was_sent else ALREADY)
        if not was_sent:
            return with_outcome(decision, "drifted", before.drift(decision))
        record = after.rows.get(decision["record_id"])
        link = record.links.get(self.job.connection) if isinstance(record, Record) else None
        return with_outcome(decision, "failed", (trouble(link) if link else "") or NOT_YET)
