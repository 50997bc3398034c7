"""Outgoing webhooks: posts of automation rules, sent after the commit, once, without signature, and forgotten."""

import json
import queue
import threading
import urllib.request
from collections.abc import Callable
from contextlib import suppress

from sandbox.frame import Frame

TIMEOUT = 1.0
AGENT = "python-requests/2.31.0"
Deliver = Callable[[str, bytes], None]
Body = Callable[[], dict[str, object] | None]


def post(url: str, body: bytes) -> None:
    """One post, whatever comes of it: a receiver that fails or is slow has lost it."""
    headers = {"Content-Type": "application/json", "User-Agent": AGENT, "Accept": "*/*"}
    with suppress(OSError, ValueError):
        request = urllib.request.Request(url, body, headers)  # noqa: S310 - the rule's own URL
        urllib.request.urlopen(request, timeout=TIMEOUT).close()  # noqa: S310


class Outbox:
    """Posts of the transaction that is under way, and a thread that sends those of the committed ones in order.

    ``deliver`` can be replaced, for a simulation that has no network.
    """

    def __init__(self, frame: Frame) -> None:
        self._frame = frame
        self._open: list[tuple[str, Body, int]] = []
        self._queue: queue.SimpleQueue[tuple[str, bytes]] = queue.SimpleQueue()
        self._worker: threading.Thread | None = None
        self.deliver: Deliver = self._later
        self.sent = 0

    def add(self, url: str, body: Body, times: int) -> None:
        """So many posts of what the body is when the transaction commits; None then: no post."""
        self._open.append((url, body, times))

    def drop(self) -> None:
        """The transaction failed."""
        self._open.clear()

    def send(self) -> None:
        """The transaction has committed."""
        posts, self._open = self._open, []
        if self._frame.options["hooks_lost"]:
            return
        for url, body, times in posts:
            if (values := body()) is None:
                continue
            data = json.dumps(values, sort_keys=True, default=str).encode()
            for _ in range(times):
                self.sent += 1
                self.deliver(url, data)

    def _later(self, url: str, body: bytes) -> None:
        if self._worker is None:
            self._worker = threading.Thread(target=self._work, name="odoo webhooks", daemon=True)
            self._worker.start()
        self._queue.put((url, body))

    def _work(self) -> None:
        while True:
            post(*self._queue.get())
