"""Timer triggers: runs a function on its schedule, in UTC, never twice at once."""

import asyncio
import logging
from datetime import UTC, datetime

from devhost.plan import TimerPlan
from devhost.worker import Worker

log = logging.getLogger("devhost")

# Later than this is past due: an occurrence that fell into the previous run, or a machine that slept.
_LATE = 3.0
# The longest sleep, so that a corrected clock is noticed.
_NAP = 30.0


class Timer:
    """Serves one timer function until it's told to stop."""

    def __init__(self, plan: TimerPlan, worker: Worker) -> None:
        self._plan = plan
        self._worker = worker

    async def run(self, stop: asyncio.Event) -> None:
        """Fire until `stop`; a run under way is finished first."""
        if self._plan.run_on_startup:
            await self._worker.invoke_timer(self._plan.function, past_due=False)
        last = datetime.now(UTC)
        while not stop.is_set():
            due = self._plan.schedule.after(last)
            if due is None:
                log.warning(
                    "%s never fires: its schedule '%s' has no date", self._plan.function.name, self._plan.text
                )
                await stop.wait()
                return
            if not await _sleep_until(due, stop):
                return
            # What was missed while the previous run went on is made up for by one late run, not by many.
            last = datetime.now(UTC)
            late = (last - due).total_seconds()
            await self._worker.invoke_timer(self._plan.function, past_due=late > _LATE)


async def _sleep_until(due: datetime, stop: asyncio.Event) -> bool:
    """Sleep until the moment; False if `stop` came first."""
    while (left := (due - datetime.now(UTC)).total_seconds()) > 0:
        try:
            await asyncio.wait_for(stop.wait(), min(left, _NAP))
        except TimeoutError:
            continue
        return False
    return not stop.is_set()
