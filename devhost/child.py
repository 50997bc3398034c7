"""A host in a process of its own, for tests and demos: start it, know its URL, stop it.

with Child(app, "--port", "0", env={"AzureWebJobsStorage": ...}) as host:
    requests.get(f"{host.url}/api/hello")
"""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO, Self

_READY = "Host started on "


class Child:
    """`python -m devhost --app APP ARGUMENTS` with its output in `out` and `err`, line by line."""

    def __init__(self, app: Path, *arguments: str, env: Mapping[str, str] | None = None) -> None:
        """Start the process with `env` on top of this process's environment; `ready` waits for it."""
        root = str(Path(__file__).resolve().parent.parent)
        paths = os.pathsep.join(path for path in (root, os.environ.get("PYTHONPATH")) if path)
        self.out: list[str] = []
        self.err: list[str] = []
        self.url = ""
        self.process = subprocess.Popen(  # noqa: S603 - our own interpreter and module
            [sys.executable, "-m", "devhost", "--app", str(app), *arguments],
            env={**os.environ, "PYTHONPATH": paths, "PYTHONUNBUFFERED": "1", **(env or {})},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            encoding="utf-8",
            errors="replace",
        )
        self._readers = [
            threading.Thread(target=_read, args=(stream, lines.append), daemon=True)
            for stream, lines in ((self.process.stdout, self.out), (self.process.stderr, self.err))
        ]
        for reader in self._readers:
            reader.start()

    def ready(self, seconds: float = 60) -> Self:
        """Wait for the line that says that it serves; a RuntimeError holds what it said instead."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            url = next((line.removeprefix(_READY) for line in self.out if line.startswith(_READY)), None)
            if url:
                self.url = url
                return self
            if self.process.poll() is not None:
                break
            time.sleep(0.02)
        code = self.stop()
        raise RuntimeError(f"the host didn't start (exit code {code}):\n" + "\n".join(self.err))

    def signal(self, number: int = signal.SIGTERM) -> None:
        """Send a signal, if it still runs."""
        if self.process.poll() is None:
            self.process.send_signal(number)

    def wait(self, seconds: float = 60) -> int:
        """Wait for its end and all of its output; gives the exit code."""
        try:
            code = self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise
        finally:
            for reader in self._readers:
                reader.join()
        return code

    def stop(self, seconds: float = 60) -> int:
        """End it as a user does (SIGTERM); gives the exit code."""
        self.signal()
        return self.wait(seconds)

    def __enter__(self) -> Self:
        try:
            return self.ready()
        except BaseException:
            self.stop()
            raise

    def __exit__(self, *_: object) -> None:
        self.stop()


def _read(stream: IO[str] | None, keep: Callable[[str], None]) -> None:
    assert stream is not None
    with stream:
        for line in stream:
            keep(line.rstrip("\n"))
