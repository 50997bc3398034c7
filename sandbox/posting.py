"""Webhooks that a system of the sandbox sends: each when its time has come, repeated, held up and lost on demand."""

import heapq
import itertools
import random
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable

from sandbox.store import Values

FAULTS: Values = {"times": 1, "lost": 0.0, "delay": 0.0}
"""Of each post: how often it is sent, the part that is lost, and seconds until it is sent, from 0 to this: so they come out
of order.
"""
AGAIN = (502, 503, 504)
"""After these a post is sent once more, after any other refusal never."""
TIMEOUT = 60.0
Post = Callable[[str, dict[str, str], bytes], int]
Made = tuple[str, dict[str, str], bytes]
"""Address, headers and body of a post."""


def post(url: str, headers: dict[str, str], body: bytes) -> int:
    """The status of the answer; 503 for none."""
    try:
        request = urllib.request.Request(url, body, headers)  # noqa: S310 - the address of the option
        with urllib.request.urlopen(request, timeout=TIMEOUT) as answer:  # noqa: S310
            return int(answer.status)
    except urllib.error.HTTPError as refused:
        refused.close()
        return refused.code
    except (OSError, ValueError):
        return 503


class Outbox:
    """Posts that are due, sent by a thread of its own that begins with the first."""

    def __init__(self, name: str, chance: random.Random) -> None:
        self._name = name
        self._chance = chance
        self._order = itertools.count()
        self._due: list[tuple[float, int, Callable[[], Made], bool]] = []
        self._wake = threading.Condition()
        self._worker: threading.Thread | None = None
        self.post: Post = post
        self.sent = 0

    def put(self, made: Callable[[], Made], faults: Values) -> None:
        """`made`: gives the post as it is when it is sent, so that a signature is as new as that."""
        for _ in range(int(faults["times"])):
            if self._chance.random() >= faults["lost"]:
                self._later(self._chance.uniform(0, faults["delay"]), made, again=True)

    def _later(self, seconds: float, made: Callable[[], Made], *, again: bool) -> None:
        with self._wake:
            heapq.heappush(self._due, (time.monotonic() + seconds, next(self._order), made, again))
            if self._worker is None:
                self._worker = threading.Thread(target=self._work, name=self._name, daemon=True)
                self._worker.start()
            self._wake.notify()

    def _work(self) -> None:
        while True:
            with self._wake:
                while not self._due or self._due[0][0] > time.monotonic():
                    self._wake.wait(self._due[0][0] - time.monotonic() if self._due else None)
                _, _, made, again = heapq.heappop(self._due)
            self.sent += 1
            if self.post(*made()) in AGAIN and again:
                self._later(1.0, made, again=False)
