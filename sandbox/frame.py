"""What all fake systems share: messages, faults, throttle, log of requests; rows are in ``store.py``.

Nothing here knows a vendor. Everything is synchronous and in memory.
"""

import fnmatch
import itertools
import json
import re
from collections import deque
from collections.abc import Container, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

from sandbox.store import Clock, Store, Values


@dataclass(frozen=True, slots=True)
class Request:
    """One request as it came over the wire; ``path`` and ``query`` still percent-encoded."""

    method: str
    path: str
    query: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)  # names in lower case
    body: bytes = b""
    origin: str = "http://127.0.0.1"  # scheme://host:port that the caller asked for


@dataclass(frozen=True, slots=True)
class Response:
    """One answer, and what the carrier shall do with it on the way.

    ``delay`` seconds pass before anything is sent; with ``abort`` the connection is reset instead of answering;
    with ``cut`` only so many bytes of the body are sent before the reset.
    """

    status: int
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    delay: float = 0.0
    abort: bool = False
    cut: int | None = None


def json_response(status: int, value: Any, headers: Mapping[str, str] | None = None) -> Response:
    """A value as a JSON answer."""
    body = json.dumps(value, ensure_ascii=False, default=str).encode()
    return Response(status, {"Content-Type": "application/json; charset=utf-8", **(headers or {})}, body)


@dataclass
class Fault:
    """A fault that waits for requests.

    It strikes ``count`` times (None: always), after letting ``skip`` matching requests pass. ``method`` is a name or
    ``*``, ``path`` a glob over path and query (or a regular expression if it starts with ``re:``).
    """

    kind: str
    method: str = "*"
    path: str = "*"
    count: int | None = 1
    skip: int = 0
    status: int = 0
    code: str = ""
    message: str = ""
    retry_after: str | int | None = None  # seconds, or "date:SECONDS" for an HTTP date
    seconds: float = 0.0
    text: str = ""
    headers: Values = field(default_factory=dict)
    id: int = 0
    struck: int = 0

    KINDS: ClassVar[tuple[str, ...]] = (
        "status",
        "throttle",
        "privilege",
        "delay",
        "reset",
        "reset_after",
        "garbage",
        "truncate",
        "cut",
        "html",
        "content_type",
    )

    def matches(self, request: Request) -> bool:
        if self.method not in ("*", request.method) or (self.count is not None and self.struck >= self.count):
            return False
        target = request.path + ("?" + request.query if request.query else "")
        if self.path.startswith("re:"):
            return re.search(self.path[3:], target) is not None
        return fnmatch.fnmatchcase(target, self.path) or fnmatch.fnmatchcase(request.path, self.path)


class Faults:
    """The faults in force; the first that matches a request strikes."""

    def __init__(self) -> None:
        self.active: list[Fault] = []
        self._ids = itertools.count(1)

    def add(self, fault: Fault) -> Fault:
        added = replace(fault, id=next(self._ids), struck=0)
        self.active.append(added)
        return added

    def clear(self, fault_id: int | None = None) -> None:
        self.active = [f for f in self.active if fault_id is not None and f.id != fault_id]

    def strike(self, request: Request, kinds: Container[str] = Fault.KINDS) -> Fault | None:
        for fault in self.active:
            if fault.kind in kinds and fault.matches(request):
                if fault.skip > 0:
                    fault.skip -= 1
                    continue
                fault.struck += 1
                return fault
        return None


@dataclass
class Limits:
    """A vendor's protection limits per caller: what a sliding window of seconds may hold."""

    requests: int = 6000
    seconds: float = 1200.0
    concurrent: int = 52
    window: float = 300.0
    cost: float = 0.0  # execution seconds that each request is booked with


@dataclass(frozen=True)
class Refusal:
    """Which limit was hit, and for how many seconds the caller shall stay away."""

    limit: str
    retry_after: int


class Throttle:
    """Counts requests and execution time per caller in a sliding window; waits grow for callers who ignore them."""

    def __init__(self, clock: Clock) -> None:
        self.limits = Limits()
        self._clock = clock
        self._calls: dict[str, deque[float]] = {}
        self._blocked: dict[str, tuple[float, int]] = {}
        self.running: dict[str, int] = {}

    def enter(self, caller: str) -> Refusal | None:
        now = self._clock.seconds()
        until, wait = self._blocked.get(caller, (0.0, 0))
        if now < until:  # ignored the wait: it grows
            wait = min(wait * 2, int(self.limits.window))
            self._blocked[caller] = (now + wait, wait)
            return Refusal("requests", wait)
        calls = self._calls.setdefault(caller, deque())
        while calls and calls[0] <= now - self.limits.window:
            calls.popleft()
        if self.running.get(caller, 0) >= self.limits.concurrent:
            return Refusal("concurrent", 2)
        full = len(calls) >= self.limits.requests
        slow = (len(calls) + 1) * self.limits.cost > self.limits.seconds
        if full or slow:
            wait = max(1, min(int(calls[0] + self.limits.window - now) + 1, 30) if calls else 1)
            self._blocked[caller] = (now + wait, wait)
            return Refusal("requests" if full else "seconds", wait)
        calls.append(now)
        return None

    def remaining(self, caller: str) -> tuple[int, float]:
        """Requests and execution seconds that the caller has left in the window."""
        used = len(self._calls.get(caller, ()))
        return max(0, self.limits.requests - used), max(0.0, self.limits.seconds - used * self.limits.cost)

    def clear(self) -> None:
        self._calls.clear()
        self._blocked.clear()


HIDDEN = frozenset({"authorization", "cookie", "x-sandbox-key", "proxy-authorization"})
BODY_CAP = 16_384


class RequestLog:
    """The last requests, without credentials, for tests to read."""

    def __init__(self, clock: Clock, secret_fields: tuple[str, ...] = (), size: int = 20_000) -> None:
        self._clock = clock
        self._entries: deque[Values] = deque(maxlen=size)
        self._next = itertools.count(1)
        self._secret = re.compile(rf"\b({'|'.join(secret_fields) or 'client_secret'})=[^&]*")
        self.secrets: set[str] = set()  # texts that are hidden wherever they stand
        self.counts: dict[str, int] = {}

    def add(
        self, request: Request, response: Response, fault: str | None, elapsed: float, *, part: bool = False
    ) -> None:
        """Note one exchange; ``part`` marks an operation inside a batch."""
        text = self._hidden(self._secret.sub(r"\1=***", request.body[:BODY_CAP].decode("utf-8", "replace")))
        self._entries.append(
            {
                "seq": next(self._next),
                "at": self._clock.now().isoformat(),
                "method": request.method,
                "path": request.path,
                "query": request.query,
                "status": 0 if response.abort else response.status,
                "headers": {k: self._hidden(v) for k, v in request.headers.items() if k not in HIDDEN},
                "body": text,
                "body_bytes": len(request.body),
                "answer_bytes": len(response.body),
                "retry_after": response.headers.get("Retry-After"),
                "fault": fault,
                "part": part,
                "ms": round(elapsed * 1000, 2),
            }
        )
        if part:
            return
        key = f"{request.method} {0 if response.abort else response.status}"
        self.counts[key] = self.counts.get(key, 0) + 1

    def _hidden(self, text: str) -> str:
        for secret in self.secrets:
            text = text.replace(secret, "***")
        return text

    def since(self, seq: int) -> list[Values]:
        return [e for e in self._entries if e["seq"] > seq]

    def clear(self) -> None:
        self._entries.clear()
        self.counts.clear()


@dataclass
class Frame:
    """The parts of one sandbox, put together."""

    clock: Clock
    store: Store
    faults: Faults
    throttle: Throttle
    log: RequestLog
    options: Values
