"""The measured process: the hub's own pull, from a message in the queue to its end, over HTTP to both sides.

Reads a task as JSON from its input and prints what it measured; its CPU time and memory are its alone.
"""

import itertools
import json
import resource
import sys
import time
import uuid
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from crm_core.connection_admin import Wanted
from crm_core.connector import Query, Transport
from crm_core.errors import StoreUnavailable
from crm_core.hub import Hub
from crm_core.model.connection import DEFAULT_TENANT, Connection, EntitySync, Schedule
from crm_core.ports import Blob, Table, measured
from crm_core.settings import load
from crm_core.storage import layout
from crm_core.storage.memory import MemoryBlob, MemoryQueue
from crm_core.sync.engine import Job
from crm_core.system import SystemClock, search_garbage_seldom, share_one_heap

ENTITY = "account"
DELIVERIES = 5
READ, RAW = "read", "raw"
"""Of `Result.scale`: downloading and parsing the pages, and writing the same bytes without signature or SDK."""
_KEY = "0123456789abcdef0123456789abcdef"


@dataclass(frozen=True)
class Task:
    """`kind`: "pull", "plan", "push" or "sync" (of so many `records`), "bare" for the same pages and bytes without the hub, or
    "export jsonl" and "export csv" of what a pull with the same salt has loaded.
    `remote`: what the server says of itself.
    `storage`: a connection string. `still`: under a clock that stands still, so that no slice ends. `salt`: of the
    fixed ids; a store that has seen a salt needs another one.
    """

    kind: str
    remote: Mapping[str, str]
    storage: str
    page: int
    still: bool = False
    salt: str = "benchmark"
    records: int = 0


@dataclass(frozen=True)
class Cost:
    """What one piece of work took. `cpu`: seconds, user and system. `slices`: messages worked off."""

    records: int
    seconds: float
    cpu: float
    remote: int = 0
    storage: int = 0
    slices: int = 1


@dataclass(frozen=True)
class Result:
    """`nothing`: the cost of the run after the first load, for which nothing had changed. `peak_kib`: of the process.
    `scale`: of the bare loop, the CPU seconds by which this machine is compared with another one.
    """

    load: Cost
    nothing: Cost | None = None
    peak_kib: int = 0
    counts: Mapping[str, int] = field(default_factory=dict)
    scale: Mapping[str, float] = field(default_factory=dict)


class _Clock(SystemClock):
    """The system's, with dates that can be moved."""

    ahead = timedelta()

    def now(self) -> datetime:
        return super().now() + self.ahead


class _StillClock(_Clock):
    """It is always the same moment."""

    def now(self) -> datetime:
        return datetime(2026, 6, 1, 12, tzinfo=UTC) + self.ahead

    def monotonic(self) -> float:
        return 0.0

    def sleep(self, seconds: float) -> None:
        raise RuntimeError(f"nothing waits here, but somebody wants to for {seconds} s")


class FixedIds:
    """The same ids in every run: on them depends how many records a bucket, and so a transaction, gets."""

    def __init__(self, salt: str) -> None:
        self._salt = salt
        self._numbers = itertools.count()

    def uuid(self) -> str:
        return str(uuid.uuid5(uuid.NAMESPACE_OID, f"{self._salt} {next(self._numbers)}"))

    def token(self, size: int) -> str:
        return (self.uuid() + self.uuid())[:size]

    def fraction(self) -> float:
        return 0.5


def _dynamics(remote: Mapping[str, str]) -> tuple[Mapping[str, str], Mapping[str, str]]:
    settings = {
        "base_url": remote["http"],
        "authority": remote["url"],
        "tenant_id": remote["tenant"],
        "client_id": remote["client_id"],
    }
    return settings, {"client_secret": remote["client_secret"]}


def _odoo(remote: Mapping[str, str]) -> tuple[Mapping[str, str], Mapping[str, str]]:
    settings = {"base_url": remote["http"], "database": remote["database"], "username": remote["login"]}
    return settings, {"api_key": remote["api_key"]}


ACCOUNTS = {"dynamics365": _dynamics, "odoo": _odoo}
"""By system: the settings and secrets of a connection to a server that says this of itself."""


def environment_of(task: Task) -> dict[str, str]:
    """The settings of a hub for a task."""
    return {
        "AzureWebJobsStorage": task.storage,
        "HUB_API_KEY": _KEY,
        "INTEGRATION_ENCRYPTION_KEY": _KEY,
        "ALLOW_LOOPBACK": "true",
        "CA_BUNDLE": task.remote["ca"],
        "PAGE_RECORDS": str(task.page),
    }


class Bench:
    """A hub with one connection that has never been pulled, and a queue that is worked off here.

    `table`, `blob`: instead of the task's storage and of memory; `listen` puts something before the hub's transport.
    """

    entities: Mapping[str, EntitySync] = {ENTITY: EntitySync()}

    def __init__(
        self,
        task: Task,
        table: Table | None = None,
        listen: Callable[[Transport], Transport] | None = None,
        blob: Blob | None = None,
    ) -> None:
        self.task = task
        self.entity = next(iter(self.entities))
        self.clock = _StillClock() if task.still else _Clock()
        self.queue = MemoryQueue(self.clock)
        self.hub = Hub(
            load(environment_of(task)),
            clock=self.clock,
            ids=FixedIds(task.salt),
            queue=self.queue,
            blob=blob or MemoryBlob(),
            table=table,
        )
        if listen is not None:
            self.hub.tools = replace(self.hub.tools, transport=listen(self.hub.tools.transport))
        self.connection = self._connect(task.remote, task.salt)
        self._warm()

    def _warm(self) -> None:
        """As in a process that has worked before: it has its copy of the connection, the libraries are loaded, it has met
        the owners and the currencies of records, and it signed in a day ago.
        """
        opened = self.hub.open(DEFAULT_TENANT, self.connection.uid)
        assert opened is not None
        opened.connector.query(self.entity, Query(top=100))
        self.clock.ahead += timedelta(days=1)

    def _connect(self, remote: Mapping[str, str], slug: str) -> Connection:
        settings, secrets = ACCOUNTS[remote["system"]](remote)
        wanted = Wanted(settings, secrets, entities=self.entities, schedule=Schedule(minutes=60))
        return self.hub.admin.create(DEFAULT_TENANT, slug, remote["system"], wanted)

    def first_load(self) -> tuple[Cost, Mapping[str, int]]:
        """A run that somebody asked for, to its end; its counts."""
        run = self.hub.start_run(
            DEFAULT_TENANT, self.connection.uid, [self.entity], "incremental", "key:benchmark"
        )
        cost = self._cost(self._work)
        ended = self.hub.runs.get(DEFAULT_TENANT, run.id)
        assert ended is not None
        if ended.status != "succeeded":
            raise RuntimeError(f"the run {ended.status}: {ended.problem}")
        return replace(cost, records=ended.read), ended.counts

    def pull(self) -> Cost:
        """A pull of the schedule in a process whose copy of the connection is fresh."""
        states = self.hub.states.read(DEFAULT_TENANT, self.connection.uid)
        assert states is not None
        due = replace(states.entities[self.entity], due="2020-01-01T00:00:00Z")
        self.hub.states.save_entity(DEFAULT_TENANT, self.connection.uid, self.entity, due)
        self.hub.open(DEFAULT_TENANT, self.connection.uid)
        self.hub.engine.send(layout.FRESH, Job("pull", DEFAULT_TENANT, self.connection.uid, self.entity))
        return self._cost(self._work)

    def worked(self) -> Cost:
        """What it takes to handle every message there is."""
        return self._cost(self._work)

    def _work(self) -> int:
        """Handles messages until there are none; gives how many."""
        for handled in itertools.count():
            found = ((lane, message) for lane in layout.QUEUES for message in self.queue.receive(lane))
            lane, message = next(found, ("", None))
            if message is None:
                return handled
            self._deliver(lane, message.body)
            self.queue.delete(lane, message)
        raise AssertionError

    def _deliver(self, lane: str, body: str) -> None:
        """As the host does: what fails for want of storage comes again."""
        for delivery in range(1, DELIVERIES):
            try:
                self.hub.handle(lane, body, delivery)
            except StoreUnavailable:
                continue
            return
        self.hub.handle(lane, body, DELIVERIES)

    def _cost(self, work: Callable[[], int]) -> Cost:
        began, cpu = time.monotonic(), cpu_seconds()
        with measured() as meter:
            slices = work()
        return Cost(
            0,
            time.monotonic() - began,
            cpu_seconds() - cpu,
            meter.total("remote_calls"),
            meter.total("storage_calls"),
            slices,
        )


def cpu_seconds() -> float:
    """User and system time of all threads of this process so far."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def peak_kib() -> int:
    """The most memory that this program has had. getrusage would count what its parent had before it began."""
    status = Path("/proc/self/status")
    lines = status.read_text().splitlines() if status.exists() else []
    found = [line.split()[1] for line in lines if line.startswith("VmHWM:")]
    return int(found[0]) if found else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def pull(task: Task) -> Result:
    bench = Bench(task)
    with closing(bench.hub):
        cost, counts = bench.first_load()
        peak = peak_kib()
        return Result(cost, bench.pull(), peak, counts)


def main() -> int:
    task = Task(**json.load(sys.stdin))
    search_garbage_seldom()  # this and the next as the app does
    share_one_heap()
    if task.kind == "bare":
        from benchmarks.bare import bare

        result = asdict(bare(task))
    elif task.kind == "push":
        from benchmarks.push import push

        result = asdict(push(task))
    elif task.kind == "plan":
        from benchmarks.plan import plan

        result = asdict(plan(task))
    elif task.kind == "sync":
        from benchmarks.systems import sync

        result = asdict(sync(task))
    elif task.kind.startswith("export "):
        from benchmarks.export import export

        result = asdict(export(task))
    else:
        result = asdict(pull(task))
    print(json.dumps(result))
    return 0


def result_of(data: Mapping[str, Any]) -> Result:
    nothing = data["nothing"]
    costs = {"load": Cost(**data["load"]), "nothing": Cost(**nothing) if nothing else None}
    return Result(**{**data, **costs})


if __name__ == "__main__":
    sys.exit(main())
