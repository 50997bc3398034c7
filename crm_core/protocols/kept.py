"""What was read of a system is known for a while, so that many records that name the same thing cost one read."""

from collections.abc import Callable, Collection, Mapping
from typing import Generic, TypeVar

from crm_core.ports import Clock

K = TypeVar("K")
V = TypeVar("V")

MAX_KEPT = 10_000
"""Answers at most: beyond, all are forgotten, so that memory does not grow with the number of records."""


class Kept(Generic[K, V]):
    """Answers by key, each for so many seconds after it was asked for. Safe for many threads."""

    def __init__(self, clock: Clock, seconds: float) -> None:
        self._clock = clock
        self._seconds = seconds
        self._known: dict[K, tuple[V, float]] = {}

    def one(self, key: K, read: Callable[[], V]) -> V:
        """The answer, read if it is not known. What `read` raises is not kept."""
        return self.many([key], lambda _: {key: read()})[key]

    def many(self, keys: Collection[K], read: Callable[[list[K]], Mapping[K, V]]) -> dict[K, V]:
        """The answer for each key. `read` gives one for each of those that are not known; it is not called for none."""
        now = self._clock.monotonic()
        found = {}
        for key in keys:
            known = self._known.get(key)
            if known is not None and known[1] > now:
                found[key] = known[0]
        missing = [key for key in keys if key not in found]
        if not missing:
            return found
        if len(self._known) + len(missing) > MAX_KEPT:
            self._known = {}
        for key, value in read(missing).items():
            found[key] = value
            self._known[key] = (value, now + self._seconds)
        return found
