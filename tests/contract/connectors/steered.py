"""What every sandbox can be told: faults, the time, and rows that a person makes."""

from collections.abc import Mapping
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from typing import Any, ClassVar

from sandbox.testing import Client, Running
from tests.contract.connectors.remote import Remote


class Steered(Remote):
    """A remote that is one of our sandboxes; its `start` calls `steer`."""

    privilege: ClassVar[str]
    """What a fault of the kind "privilege" says that is lacking."""
    _steering: Client

    def steer(self, sandbox: Running, stack: ExitStack) -> None:
        self._steering = stack.enter_context(Client(sandbox.url))

    def _control(self, method: str, path: str, body: Any = None) -> Any:
        answer = self._steering.call(method, f"/_sandbox/{path}", body)
        assert answer.status < 300, answer.body
        return answer.json() if answer.body else None

    def _row(self, table: str, values: Mapping[str, Any], lag: float, ago: float) -> Any:
        """A row as a person creates it: what the sandbox says of it."""
        at = (datetime.now(UTC) - timedelta(seconds=ago)).isoformat()
        return self._control("POST", f"rows/{table}", {"values": values, "lag": lag, "at": at})

    def forbid(self) -> None:
        self._control("POST", "faults", {"kind": "privilege", "code": self.privilege})

    def throttle(self, seconds: int) -> None:
        self._control("POST", "faults", {"kind": "throttle", "retry_after": seconds})

    def calm(self) -> None:
        self._control("DELETE", "faults")
        self._control("POST", "clock", {"real": True})

    def advance(self, seconds: float) -> None:
        self._control("POST", "clock", {"advance": seconds})
