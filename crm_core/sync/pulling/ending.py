"""How a run ends: done, stopped by the brake, or overtaken by another worker."""

from contextlib import suppress
from dataclasses import replace
from typing import Any

from crm_core.connector import Cursor
from crm_core.errors import VendorError
from crm_core.log import Log
from crm_core.model.fields import hub_time
from crm_core.model.state import COUNTS, Run
from crm_core.ports import RowChanged
from crm_core.storage import layout
from crm_core.storage.run_log import note
from crm_core.sync import brake, failures
from crm_core.sync.engine import wake
from crm_core.sync.pulling.base import PullBase
from crm_core.sync.schedule import next_due

_log = Log("crm_core.sync")

WAIT_AFTER_RACE_SECONDS = 2.0


class Ending(PullBase):
    """The run's row first, the state row after it."""

    def _stop(self, stopped: brake.Stopped) -> None:
        """The run's row first, as at its end: a worker that dies in between leaves a lease, and whoever takes it over
        finds the run stopped.
        """
        assert self.applier is not None
        now = hub_time(self.engine.clock.now())
        known, counts = self._sums(self.applier)
        self.run = replace(self.run, status="stopped", counts=counts, problem=stopped.problem(self.run, now))
        try:
            self._save_run(self._counted())
            self._name_stopped(self.run, known=known)
        except RowChanged:
            self._look_again()
            self._overtaken()
            return
        assert self.run.problem is not None
        note("run.stopped", self.run.problem.message, "warning", run=self.run.id)
        what = {"creates" if stopped.creates_at else "deletes": stopped.amount}
        _log.warning("run stopped", **what, known=stopped.known, limit=stopped.limit)

    def _name_stopped(self, run: Run, **changes: Any) -> None:
        """Gives the lease back and lets no run begin before a person has decided about the stopped one."""
        self._save_state(lease_run="", lease_until="", stopped_run=run.id, problem=run.problem, **changes)

    def _succeed(self, cursor: Cursor) -> None:
        """The run's row first: a worker that dies in between leaves a lease, which the tick gives back."""
        now = self.engine.clock.now()
        if self.stored_run:
            counts = {name: self.run.counts.get(name, 0) for name in COUNTS}
            self.run = replace(
                self.run, status="succeeded", ended_at=hub_time(now), done=cursor, cursor=None, counts=counts
            )
            ended = self._counted()
            self._save_run(ended)
            failures.told(ended)
        self._close(cursor)

    def _close(self, cursor: Cursor) -> None:
        now = self.engine.clock.now()
        ended: dict[str, Any] = {"lease_run": "", "lease_until": ""}
        if not self.run.partial:  # one that read a part says nothing of the rest
            ended |= {
                "waits": False,
                "problem": None,
                "cursor": cursor,
                "due": next_due(self.opened.connection.schedule, now),
                "last_success": self.run.ended_at or hub_time(now),
                **self._gaps(()),
            }
        if self.stored_run:
            ended["last_run"] = self.run.id
        first_load = not self.state.last_success and not self.run.partial
        self._save_state(**ended)
        if first_load and self.opened.connection.entities[self.job.entity].pushes:
            # What the hub has and the remote has not was held back until all of it was read.
            places = [(self.job.connection, bucket) for bucket in layout.BUCKETS]
            wake(self.engine, self.job.tenant, self.job.entity, places)
        failures.recovered(self.engine, self.job, self.states.connection)

    # --- overtaken -----------------------------------------------------------------------------------------------

    def _look_again(self) -> None:
        if self.applier is None or not self.applier.made:
            return
        try:
            self.applier.look_again()
        except VendorError as error:
            _log.warning("overtaken run could not look again", error=error.code)

    def _overtaken(self) -> None:
        """Another worker has the row: what we applied is applied, the cursor is theirs.

        If it works for another run, ours is still owed to its caller and comes again later; one of the schedule is over.
        """
        states = self.engine.states.read(self.job.tenant, self.job.connection)
        state = states.entities.get(self.job.entity) if states else None
        if state is None:
            return
        if state.lease_run == self.run.id:
            self._give_back()
            return
        if self._promised:
            self.engine.send(layout.FRESH, replace(self.job, run=self.run.id), WAIT_AFTER_RACE_SECONDS)
        elif self.stored_run:
            self._end_overtaken()

    def _give_back(self) -> None:
        """A run that was cancelled just before it took the lease has it for nothing."""
        run = self.engine.runs.get(self.job.tenant, self.run.id) if self.stored_run else None
        if run is not None and run.ended:
            failures.release_lease(self.engine, replace(self.job, run=run.id))

    def _end_overtaken(self) -> None:
        with suppress(RowChanged):  # it has ended
            failures.end_run(self.engine, self.job.tenant, self.run, "Overtaken", "Another run has gone on.")
