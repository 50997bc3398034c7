"""The parts of a benchmark as processes: the remote system, the sink, Azurite, and a fresh worker for each task."""

import json
import subprocess
import sys
import urllib.request
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks.export import Exported, of_json
from benchmarks.systems import SyncResult
from benchmarks.worker import Cost, Result, Task, result_of
from demo import start
from demo.folder import Folder, connection_string, environment
from demo.parts import Parts
from demo.ports import free_ports
from demo.trouble import Trouble

SEED = 1
PUSH_PAGE = 5000
_TABLE = "account"


class Bench:
    """What the rows share. `folder`: for logs, certificates and Azurite's data. `parts` are stopped by the caller."""

    def __init__(self, parts: Parts, folder: Path) -> None:
        self._parts = parts
        self._folder = folder
        self._azurite = ""
        self.remote = self._started("remote", "--ca", str(folder / "ca.pem"))
        self.sink = self._started("sink")
        self._filled = 0

    def _started(self, name: str, *arguments: str) -> Mapping[str, str]:
        """Starts one of our servers; gives what it says of itself."""
        command = [sys.executable, "-m", f"benchmarks.{name}", *arguments]
        log = self._folder / f"{name}.log"
        part = self._parts.start(name, command, log, environment(), cwd=start.ROOT, grace=10)
        return start.sandbox_ready(self._parts, part)

    def azurite(self) -> str:
        """A connection string; starts it with the first call."""
        if not self._azurite:
            folder, ports = Folder(self._folder), free_ports()
            part = start.start_azurite(self._parts, folder, ports, start.check_tools(), in_memory=True)
            start.azurite_ready(self._parts, part, ports)
            folder.close()
            self._azurite = connection_string(ports)
        return self._azurite

    def fill(self, records: int) -> None:
        """The remote system has exactly these accounts, with the same ids each time."""
        if self._filled != records:
            self.control("reset")
            self.control("fill", {"table": _TABLE, "count": records, "seed": SEED})
            self._filled = records

    def control(
        self, path: str, body: Mapping[str, Any] | None = None, remote: Mapping[str, str] | None = None
    ) -> None:
        request = urllib.request.Request(  # noqa: S310 - our own server on loopback
            f"{(remote or self.remote)['control']}{path}",
            json.dumps(body or {}).encode(),
            {"Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request) as answer:  # noqa: S310 - the same
            answer.read()

    def figures(self) -> Mapping[str, Any]:
        """What the sink was asked since it was last emptied."""
        with urllib.request.urlopen(f"{self.sink['address']}/figures") as answer:  # noqa: S310 - our own server
            found: Mapping[str, Any] = json.load(answer)
        return found

    def empty_sink(self) -> None:
        """So that the fixed ids can come again."""
        urllib.request.urlopen(f"{self.sink['address']}/empty").close()  # noqa: S310 - our own server

    def run(self, kind: str, storage: str, page: int, *, still: bool = False, salt: str = "") -> Result:
        """One task in a process of its own. Without a salt the ids are those of the golden counts."""
        return result_of(self._done(Task(kind, self.remote, storage, page, still, salt or "benchmark")))

    def export(self, kind: str, records: int, salt: str) -> Exported:
        """What it costs to export the accounts that a pull with this salt has loaded into Azurite."""
        task = Task(f"export {kind}", self.remote, self.azurite(), PUSH_PAGE, salt=salt, records=records)
        return of_json(self._done(task))

    def push(self, records: int) -> tuple[Cost, Cost]:
        """What it costs to make so many records at the remote system, and then to change each of them."""
        self.control("reset")
        self.control("options", {"limits": {"requests": 10**9, "seconds": 10**9}})
        self._filled = 0
        storage = self.sink["connection_string"]
        done = self._done(Task("push", self.remote, storage, PUSH_PAGE, still=True, records=records))
        return Cost(**done["create"]), Cost(**done["update"])

    def sync(self, system: str, records: int) -> SyncResult:
        """What it costs to make so many records at a system of the sandbox, to change them there and to read changes."""
        ca = self._folder / f"{system}-ca.pem"
        command = [sys.executable, "-m", "sandbox", system, "--tls-port", "0", "--ca", ca]
        part = self._parts.start(
            system, command, self._folder / f"{system}.log", environment(), cwd=start.ROOT, grace=10
        )
        remote = start.sandbox_ready(self._parts, part)
        if system == "dynamics365":
            self.control("options", {"limits": {"requests": 10**9, "seconds": 10**9}}, remote)
        task = Task("sync", remote, self.sink["connection_string"], PUSH_PAGE, still=True, records=records)
        return SyncResult(**{name: Cost(**cost) for name, cost in self._done(task).items()})

    def _done(self, task: Task) -> Mapping[str, Any]:
        """What a worker says that did a task."""
        self._parts.check()
        done = subprocess.run(
            [sys.executable, "-m", "benchmarks.worker"],
            cwd=start.ROOT, env=environment(), input=json.dumps(asdict(task)).encode(), capture_output=True, check=False,
        )  # fmt: skip
        self._parts.check()
        if done.returncode:
            raise Trouble(f"The worker ended with {done.returncode}:\n{done.stderr.decode()}")
        found: Mapping[str, Any] = json.loads(done.stdout)
        return found
