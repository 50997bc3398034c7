"""How many calls one connection may still make in a time that its system counts: burst, day.

A process takes calls in blocks from the ledger that all instances share, so that a call costs no storage. What a process makes
below LIGHT calls in a window is in nobody's way and is not written down. A window slides: of the one before, the part
counts that is not over yet. Callers who wait come before fresh changes, those before bulk: each has its SHARE.
"""

import threading
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from crm_core.connector import Account, Tools, Window
from crm_core.errors import OverBudget, StoreUnavailable
from crm_core.model.fields import hub_time
from crm_core.ports import RowChanged, StoreError, lane_of

LIGHT = 150
BLOCKS = 20
"""A block is so much of a window's calls: the less, the better it is shared; the more, the fewer storage calls."""
SHARE = {"": 1.0, "fresh": 0.95, "bulk": 0.8}
"""By lane, how much of a window may be spent before it has to wait."""
MIN_WAIT_SECONDS = 1.0
TOLD_SECONDS = 15.0
"""How long it is believed what an answer told."""


class Budget:
    """The calls of one connection in this process; safe for many threads."""

    def __init__(self, account: Account, tools: Tools, windows: Sequence[Window]) -> None:
        self._counts = [_Count(account, tools, each) for each in windows if tools.ledger is not None]

    def take(self) -> None:
        """One call. Raises OverBudget with when to come again."""
        for each in self._counts:
            each.take(lane_of.get())

    def told(self, headers: Mapping[str, str]) -> None:
        for each in self._counts:
            each.told(headers)


class _Count:
    """One window. No thread waits for another one that asks the ledger: it goes on, so that as many calls as are made
    at a time may be too many.
    """

    def __init__(self, account: Account, tools: Tools, window: Window) -> None:
        self._account = account
        self._tools = tools
        self._window = window
        self._block = max(2, window.calls // BLOCKS)
        self._light = min(LIGHT, self._block // 2)
        self._number = -1
        self._granted = 0
        self._noted = False
        """Whether the light part of this window stands in the ledger."""
        self._asking = False
        self._waits: dict[str, float] = {}
        """By lane, until when nothing is left for it; epoch seconds."""
        self._told = (window.calls, 0.0)
        self._lock = threading.Lock()

    def take(self, lane: str) -> None:
        now = self._tools.clock.now().timestamp()
        number = int(now // self._window.seconds)
        self._refuse(lane, now)
        with self._lock:
            if number != self._number:
                self._number, self._granted = number, self._light
                self._noted = False
            if self._granted > 0 or self._asking:
                self._granted -= 1
                return
            self._asking = True
        try:
            self._ask(lane, number, now)
        finally:
            self._asking = False

    def _ask(self, lane: str, number: int, now: float) -> None:
        """A block more, this call included; raises OverBudget."""
        assert self._tools.ledger is not None
        window, account = self._window, self._account
        left = 1 - now / window.seconds % 1
        most = window.calls * SHARE[lane]
        try:
            spent = self._tools.ledger.take(
                account.tenant, account.uid, window.name, number, self._block, most, left
            )
        except (RowChanged, StoreError, StoreUnavailable):
            return  # what can't be counted just now is not held up: the system says no itself
        if spent.now + spent.before * left + self._block <= most:
            with self._lock:
                self._granted += self._block - 1 - (0 if self._noted else self._light)
                self._noted = True
            return
        wait = _until(window, spent.now, spent.before, most - self._block, left)
        self._waits[lane] = now + max(MIN_WAIT_SECONDS, wait)
        self._refuse(lane, now)

    def told(self, headers: Mapping[str, str]) -> None:
        """What an answer says of the calls that are left."""
        text = headers.get(self._window.left, "") if self._window.left else ""
        if text.isascii() and text.isdigit():
            self._told = int(text), self._tools.clock.now().timestamp()

    def _refuse(self, lane: str, now: float) -> None:
        until = self._waits.get(lane, 0.0)
        left, at = self._told
        if lane and now - at < TOLD_SECONDS and left <= self._window.calls - self._window.calls * SHARE[lane]:
            until = max(until, at + TOLD_SECONDS)
        if until > now:
            calls, seconds = self._window.calls, self._window.seconds
            raise OverBudget(
                f"Of the {calls} calls that the system allows in {seconds} s, {lane or 'a caller'} may spend no more now.",
                retry_after=until - now,
                shared=lane != "bulk",
            )


def _until(window: Window, now: int, before: int, most: float, left: float) -> float:
    """Seconds until no more than `most` count as spent, if nobody spends any: what passes is first the window before, then
    this one.
    """
    seconds = window.seconds
    if now <= most:
        return seconds * (left - (most - now) / before) if before else 0.0
    return seconds * (left + 1 - most / now)


def forecast(tenant: str, uid: str, window: Window, tools: Tools) -> Mapping[str, Any]:
    """What is spent and left, and when nothing will be if it goes on like this in the window at hand."""
    assert tools.ledger is not None
    now = tools.clock.now().timestamp()
    over = now / window.seconds % 1
    spent = tools.ledger.spent(tenant, uid, window.name, int(now // window.seconds))
    counted = min(window.calls, round(spent.now + spent.before * (1 - over)))
    left = window.calls - counted
    # In a second so many are spent, and so many of the window before pass.
    pace = spent.now / (over * window.seconds) - spent.before / window.seconds if over else 0.0
    ends = left / pace if pace > 0 else None
    out = ends is not None and ends <= (1 - over) * window.seconds
    return {
        "window": window.name,
        "calls": window.calls,
        "seconds": window.seconds,
        "spent": counted,
        "left": left,
        "runs_out_at": hub_time(datetime.fromtimestamp(now + (ends or 0.0), UTC)) if out else None,
    }
