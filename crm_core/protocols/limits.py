"""How fast one connection may be called: so many calls at a time, and none before the moment that its system named. And
how fast others may call the hub.
"""

import copy
import threading
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager

from crm_core.errors import RateLimited
from crm_core.ports import Clock

MAX_WAIT_SECONDS = 2.0
"""A longer wait becomes a delayed queue message, never a sleep (DESIGN.md section 6)."""
LOOK_SECONDS = 0.02
BUSY_SECONDS = 1.0
"""When to come again, if every call under way is a long one."""


MAX_CALLERS = 10_000
"""Callers that a gate remembers; whoever came longest ago is forgotten first."""


class Gate:
    """So many calls a minute of each caller in this process, as many at once; safe for many threads.

    It asks no storage: whoever floods the hub must not cost it anything.
    """

    def __init__(self, clock: Clock, per_minute: float) -> None:
        self._clock = clock
        self._most = max(1.0, per_minute)
        self._per_second = per_minute / 60
        self._left: OrderedDict[str, tuple[float, float]] = OrderedDict()
        """By caller: how many calls were left, and when."""
        self._lock = threading.Lock()

    def wait(self, caller: str) -> float:
        """Seconds until the caller may call; 0 if it may now."""
        with self._lock:
            left = self._left_of(caller)
        return 0.0 if left >= 1 else (1 - left) / self._per_second

    def take(self, caller: str) -> float:
        """As `wait`, and if it may, this was a call."""
        with self._lock:
            left = self._left_of(caller)
            if left < 1:
                return (1 - left) / self._per_second
            self._left[caller] = left - 1, self._clock.monotonic()
            self._left.move_to_end(caller)
            if len(self._left) > MAX_CALLERS:
                self._left.popitem(last=False)
        return 0.0

    def _left_of(self, caller: str) -> float:
        left, at = self._left.get(caller, (self._most, 0.0))
        return min(self._most, left + (self._clock.monotonic() - at) * self._per_second)


class Limits:
    """The calls of one connection in this process; safe for many threads.

    Other processes have their own: what the system says no to is shared by sync through the connection's state row.
    """

    def __init__(self, clock: Clock, width: int) -> None:
        """`width`: calls at a time."""
        self._clock = clock
        self._width = width
        self._free = threading.BoundedSemaphore(width)
        self._not_before = 0.0
        self._told: RateLimited | None = None

    def throttled(self, error: RateLimited) -> None:
        """The system has asked to be left alone for a time."""
        until = self._clock.monotonic() + (error.retry_after or 0.0)
        if until > self._not_before:
            self._not_before, self._told = until, error

    @contextmanager
    def call(self) -> Iterator[None]:
        """Around one call: waits up to 2 s for its turn.

        Raises RateLimited with when to come again; in the system's own words if it is the system that wants a pause.
        """
        give_up = self._clock.monotonic() + MAX_WAIT_SECONDS
        self._wait_for_the_system(give_up)
        # Looked at again and again: a thread that waits inside of a lock could not be simulated.
        while not self._free.acquire(blocking=False):
            if self._clock.monotonic() >= give_up:
                raise RateLimited(
                    f"{self._width} calls of this connection are under way, as many as it may have; come again.",
                    retry_after=BUSY_SECONDS,
                )
            self._clock.sleep(LOOK_SECONDS)
        try:
            yield
        finally:
            self._free.release()

    def _wait_for_the_system(self, give_up: float) -> None:
        wait = self._not_before - self._clock.monotonic()
        if wait <= 0:
            return
        if self._not_before > give_up and self._told is not None:
            error = copy.copy(self._told)  # every raise adds to an exception's traceback
            error.retry_after = wait
            raise error
        self._clock.sleep(wait)
