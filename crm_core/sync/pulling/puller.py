"""One slice of a pull: from the row's look to the end of the time, or of the feed."""

from dataclasses import replace

from crm_core.connector import Cursor
from crm_core.errors import HubError, StoreUnavailable
from crm_core.model.fields import hub_time
from crm_core.ports import RowChanged
from crm_core.sync import brake, failures
from crm_core.sync.pulling.beginning import Beginning
from crm_core.sync.pulling.reading import Reading


class Puller(Beginning, Reading):
    """One slice."""

    def work(self) -> None:
        now = self.engine.clock.now()
        if self._is_over() or not self._may_begin(now):
            return
        if not self.run.started_at:
            fresh = self.state.cursor is None and self.state.known == 0
            self.run = replace(
                self.run,
                status="running",
                started_at=hub_time(now),
                fresh_start=fresh,
                start=self._start(),
                expected=self._expected(),
            )
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

    def _start(self) -> Cursor | None:
        """The place where one begins that reads no more than so many records."""
        return self.state.cursor if self.run.mode == "incremental" and self.run.limit else self.run.start

    def _pull(self) -> None:
        if not self._comparing():
            self.first = self._first_page()
            if self._is_idle(self.first.page):
                if self._promised:
                    failures.begun(self.run)
                self._succeed(self.first.page.cursor)
                return
        self._take_lease()
        self._read_and_compare()
