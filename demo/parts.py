"""The processes of a demo: started, watched, stopped in the reverse order, never left behind."""

import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from demo.trouble import Stopped, Trouble

T = TypeVar("T")

_PR_SET_PDEATHSIG = 1
_LAST_LINES = 15
_POLL_SECONDS = 0.05


@dataclass(frozen=True)
class Part:
    """One process; its output goes to `log`. `grace`: seconds between SIGTERM and SIGKILL."""

    name: str
    process: subprocess.Popen[bytes]
    log: Path
    grace: float

    def lines(self) -> list[str]:
        return self.log.read_text("utf-8", errors="replace").splitlines()

    def why(self) -> str:
        """How it ended, and what it said last."""
        code = self.process.returncode
        how = f"exit code {code}" if code >= 0 else f"signal {-code}"
        said = "".join(f"\n    {line}" for line in self.lines()[-_LAST_LINES:])
        return f"{self.name} ended by itself ({how}); its log is {self.log}{':' if said else '.'}{said}"


class Parts:
    """What runs. A signal only counts here and is raised by `check`, so that no start or stop is cut in two."""

    def __init__(self) -> None:
        self._parts: list[Part] = []
        self._signals = 0

    def catch_signals(self) -> None:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, self._on_signal)

    def _on_signal(self, _number: int, _frame: object) -> None:
        self._signals += 1

    def check(self) -> None:
        """Raises Stopped if somebody wants the end, Trouble if a part has ended."""
        if self._signals:
            raise Stopped
        for part in self._parts:
            if part.process.poll() is not None:
                raise Trouble(part.why())

    def start(
        self,
        name: str,
        command: Sequence[str | Path],
        log: Path,
        env: Mapping[str, str],
        *,
        cwd: Path,
        grace: float,
    ) -> Part:
        """Start a process in a session of its own: a terminal's Ctrl-C reaches the demo alone, which stops the rest."""
        self.check()
        with log.open("wb") as out:
            process = subprocess.Popen(  # noqa: S603 - our own programs
                [str(each) for each in command],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                cwd=cwd,
                env=dict(env),
                start_new_session=True,
                preexec_fn=_tie(os.getpid()),  # noqa: PLW1509 - no other thread runs when parts are started
            )
        part = Part(name, process, log, grace)
        self._parts.append(part)
        return part

    def wait(self, part: Part, ready: Callable[[], T | None], seconds: float = 60) -> T:
        """Wait until `ready` gives something."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            found = ready()
            self.check()
            if found is not None:
                return found
            time.sleep(_POLL_SECONDS)
        raise Trouble(f"{part.name} wasn't ready after {seconds:g} seconds; its log is {part.log}.")

    def pause(self, seconds: float) -> None:
        """Sleep, but not past a signal or the end of a part."""
        deadline = time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0:
            self.check()
            time.sleep(min(left, 0.1))
        self.check()

    def kill(self, part: Part) -> None:
        """End a part and whatever it started as a power cut does, and forget it: `check` doesn't miss it."""
        self.check()
        self._parts.remove(part)
        os.killpg(part.process.pid, signal.SIGKILL)
        part.process.wait()

    def stop(self) -> None:
        """Stop all, the last one first, so that each still has what it needs. A second Ctrl-C ends them at once."""
        before = self._signals
        while self._parts:
            part = self._parts[-1]
            if part.process.poll() is None:
                part.process.terminate()
            deadline = time.monotonic() + part.grace
            while part.process.poll() is None and time.monotonic() < deadline and self._signals == before:
                time.sleep(_POLL_SECONDS)
            if part.process.poll() is None:
                os.killpg(part.process.pid, signal.SIGKILL)
            part.process.wait()
            self._parts.pop()


def _tie(parent: int) -> Callable[[], None] | None:
    """On Linux, what makes a child end when the demo is gone, even by SIGKILL, when it can't stop anybody."""
    if sys.platform != "linux":
        return None
    libc = ctypes.CDLL(None)

    def tie() -> None:
        libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != parent:  # it was gone before the line above
            os._exit(1)

    return tie
