"""Pull: from a remote feed into the records, page by page, under the lease of the entity's state row. The steps are in
`pulling/`.

The order of I/O is that of docs/architecture.md: the first page is fetched before the lease is taken, so that a pull
with nothing new costs one read and one write; a checkpoint is saved only after its batch is applied; whoever loses
the row's ETag stops.
"""

from dataclasses import replace

from crm_core.errors import HubError, StoreUnavailable
from crm_core.model.fields import hub_time
from crm_core.ports import RowChanged, measured
from crm_core.sync import brake, failures
from crm_core.sync.engine import Engine, Job
from crm_core.sync.pulling.beginning import Beginning
from crm_core.sync.pulling.reading import Reading

CAREFUL_DELIVERY = 3
"""From this delivery of a message on, records are applied one by one, so that one that raises does not stop the rest."""


def pull(engine: Engine, job: Job, lane: str, deliveries: int = 1) -> None:
    """Works on one slice of a pull; what is not done continues in another message.

    Raises what is a bug or trouble of our own storage; the message then comes again. Failures of the remote system
    are recorded where people see them, and do not raise.
    """
    opened = engine.open(job.tenant, job.connection)
    states = engine.states.read(job.tenant, job.connection) if opened else None
    run = engine.runs.get(job.tenant, job.run) if job.run else None
    if opened is None or states is None or job.entity not in states.entities:
        if run is not None and not run.ended:
            failures.end_run(engine, job.tenant, run, "NotFound", "The connection or its entity was deleted.")
        return
    if run is not None and run.ended and states.entities[job.entity].lease_run != run.id:
        return
    with measured() as meter:
        _Pull(engine, job, lane, opened, states, run, meter, careful=deliveries >= CAREFUL_DELIVERY).work()


class _Pull(Beginning, Reading):
    """One slice."""

    def work(self) -> None:
        now = self.engine.clock.now()
        if self._is_over() or not self._may_begin(now):
            return
        if not self.run.started_at:
            fresh = self.state.cursor is None and self.state.known == 0
            self.run = replace(self.run, status="running", started_at=hub_time(now), fresh_start=fresh)
        if self._from_the_cursor and self.state.cursor is None and self.state.begun:
            # A first load left records and no cursor; what was deleted since then only a comparison shows.
            self.run = replace(self.run, mode="full")
        try:
            if self._end_lapsed():
                self._pull()
        except StoreUnavailable:
            raise
        except brake.Stopped as stopped:
            self._stop(stopped)
        except RowChanged:
            self._look_again()
            self._overtaken()
        except HubError as error:
            failures.pull_failed(
                self.engine, self.job, self.opened, self.states, self.state, self._counted(), error
            )

    def _pull(self) -> None:
        if not self._comparing():
            self.first = self._first_page()
            if self._is_idle(self.first.page):
                self._succeed(self.first.page.cursor)
                return
        self._take_lease()
        self._read_and_compare()
