"""Who may begin: a run that is over, waits, or stands back, and what a dead worker left."""

from contextlib import suppress
from dataclasses import replace
from datetime import datetime

from crm_core.model.fields import seconds_until
from crm_core.ports import RowChanged
from crm_core.storage import layout
from crm_core.sync import brake, failures
from crm_core.sync.pulling.ending import Ending
from crm_core.sync.schedule import is_due, lapsed

WAIT_FOR_LEASE_SECONDS = 15.0


class Beginning(Ending):
    """Before anything is read."""

    def _is_over(self) -> bool:
        """Whether the run has ended, was stopped, or can't begin; sees to what that leaves to be done."""
        if self.run.ended:
            self._finish_ended()
        elif self.run.status == "stopped":
            self._finish_stopped()
        elif self.state.stopped_run:
            self._stand_back(self.state.stopped_run)
        elif self.stored_run and not self._promised and self.state.lease_run != self.run.id:
            self._end_overtaken()  # it lost its lease in a pause, before it saved its row
        else:
            return False
        return True

    def _may_begin(self, now: datetime) -> bool:
        promised = self._promised
        wait = seconds_until(self.states.connection.not_before, now)
        held = self.state.lease_run not in ("", self.run.id) and not lapsed(self.state, now)
        if wait > 0 or held:
            if promised:
                self.engine.send(layout.FRESH, self.job, max(wait, WAIT_FOR_LEASE_SECONDS if held else 0.0))
            return False
        if self.opened.connection.paused and not promised:
            return False
        # A message of the schedule that comes twice finds the row not due any more.
        ours = self.state.lease_run == self.run.id
        if not (promised or ours or is_due(self.state, now)):
            return False
        if self.states.connection.health != "unreachable" or self._may_probe():
            return True
        if promised or ours:
            self.engine.send(layout.FRESH, self.job, failures.PROBE_SECONDS)
        return False

    def _may_probe(self) -> bool:
        """A system that does not answer is asked by one worker at a time, whichever entities and runs are waiting."""
        probing = failures.probe(self.engine, self.job, self.states)
        if probing is None:
            return False
        self.states = probing
        return True

    def _end_lapsed(self) -> bool:
        """Another run's lapsed lease is taken over: nobody comes back for the row of one of the schedule, and one
        that a caller was told of may have no message any more. False if the brake stopped it: nothing begins then.
        """
        if self.state.lease_run in ("", self.run.id):
            return True
        left = self.engine.runs.get(self.job.tenant, self.state.lease_run)
        if left is None or left.ended:
            return True
        if left.status == "stopped":
            self._name_stopped(left)
            self._stand_back(left.id)
            return False
        if not left.owed:
            failures.end_run(
                self.engine, self.job.tenant, left, "Overtaken", "Its worker died; another run went on."
            )
        else:
            again = replace(self.job, run=left.id, attempt=0, trace=left.trace or self.job.trace)
            self.engine.send(layout.FRESH, again, WAIT_FOR_LEASE_SECONDS)
        return True

    def _finish_ended(self) -> None:
        """The worker died after its run's row said so and before the state row did."""
        try:
            if self.run.status == "succeeded" and self.run.done is not None:
                self._close(self.run.done)
            else:
                failures.release_lease(self.engine, self.job)
        except RowChanged:
            return  # another worker has seen to it

    def _finish_stopped(self) -> None:
        """The worker died after its run's row said so and before the state row did; or the message came twice."""
        if self.state.stopped_run == self.run.id:
            return
        if self.state.lease_run != self.run.id:
            self._end_overtaken()
            return
        with suppress(RowChanged):  # another worker has seen to it
            self._name_stopped(self.run)

    def _stand_back(self, stopped: str) -> None:
        """The brake stopped a run of this entity. One that began to wait before that fails; its caller may ask again."""
        if self.stored_run and self.run.id != stopped:
            message = brake.stands_in_the_way(self.job.entity, stopped)
            with suppress(RowChanged):  # it has ended
                failures.end_run(self.engine, self.job.tenant, self.run, brake.CODE, message)
