"""A hub between two remote systems, whose queue and clock the test works by hand."""

import itertools
import json
import threading
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from crm_core.connection_admin import Wanted
from crm_core.errors import Conflict
from crm_core.hub import Hub
from crm_core.model.connection import DEFAULT_TENANT, Connection, EntitySync, Schedule
from crm_core.model.entities import ENTITIES
from crm_core.model.record import Record, open_items
from crm_core.settings import load
from crm_core.storage import layout
from crm_core.storage.azure import AzureTable, StorageAccount
from crm_core.storage.memory import MemoryQueue
from crm_core.sync import conflicts, resolving
from crm_core.sync.edit import Editor
from crm_core.system import SystemClock
from sandbox.testing import Running
from tests.sync.conftest import SECRET, Prefixed, Remote, environment
from tests.sync.processes import Ended

SOON = {"PUSH_DELAY_SECONDS": "0.001", "SWEEP_BUCKETS": "16", "ATTEMPT_SECONDS": "1"}
NEWS = ("created", "updated", "deleted", "failed")


class AheadClock(SystemClock):
    """The system's, which can be put forward: what has to wait for minutes is tested in none."""

    ahead = timedelta()

    def now(self) -> datetime:
        return super().now() + self.ahead

    def monotonic(self) -> float:
        return super().monotonic() + self.ahead.total_seconds()


def only(items: Any) -> Any:
    (item,) = items
    return item


def settings_of(sandbox: Running) -> dict[str, str]:
    facts, https = sandbox.describe(), sandbox.https
    return {
        "base_url": str(https),
        "authority": str(https),
        "tenant_id": facts["tenant"],
        "client_id": facts["client_id"],
    }


@dataclass
class Pair:
    """`entity` is what flows between the two. `hubs`: the instances that share store and queue; `hub` is the first.
    `workers`: who works in their place, where several do; `environ`: the settings of such a one.
    """

    hubs: list[Hub]
    queue: MemoryQueue
    clock: AheadClock
    remotes: dict[str, Remote]
    entity: str = "account"
    connections: dict[str, Connection] = field(default_factory=dict)
    workers: list[Any] = field(default_factory=list)
    environ: dict[str, str] = field(default_factory=dict)

    @property
    def hub(self) -> Hub:
        return self.hubs[0]

    def connect(self, name: str, entities: Any = None, **wanted: Any) -> Connection:
        settings = settings_of(self.remotes[name].sandbox)
        secrets = {"client_secret": SECRET}
        return self.add(name, settings, secrets, entities or {self.entity: {"direction": "both"}}, **wanted)

    def add(
        self,
        name: str,
        settings: dict[str, str],
        secrets: dict[str, str],
        entities: Any,
        *,
        connector: str = "dynamics365",
        **wanted: Any,
    ) -> Connection:
        made = self.hub.admin.create(
            DEFAULT_TENANT,
            name,
            connector,
            Wanted(
                settings,
                secrets,
                {each: EntitySync.from_json(how) for each, how in entities.items()},
                Schedule(),
                **wanted,
            ),
        )
        for hub in self.hubs:
            hub.forget(made)
        self.connections[name] = made
        return made

    def pulled(self) -> list[str]:
        """The connections of which something is read, as they are saved now."""
        saved = {each.uid: each for each in self.hub.connections.every(DEFAULT_TENANT)}
        return [
            name
            for name, made in self.connections.items()
            if any(each.pulls for each in saved[made.uid].entities.values())
        ]

    # --- work ----------------------------------------------------------------------------------------------------

    def start(self, name: str, mode: Any = "incremental") -> Any:
        return self.hub.start_run(DEFAULT_TENANT, self.connections[name].uid, [], mode, "key:test")

    def pull(self, name: str, mode: Any = "incremental") -> Any:
        run = self.start(name, mode)
        self.work()
        return self.hub.runs.get(DEFAULT_TENANT, run.id)

    def work(self, limit: int = 500) -> int:
        """Handles messages that are visible now until there are none; gives how many."""
        for handled in range(limit):
            if not any(self._one(self.hub, lane) for lane in layout.QUEUES):
                return handled
        raise AssertionError("the lanes never become empty")

    def _one(self, worker: Any, lane: str) -> bool:
        """A message whose worker dies comes again, as the host sees to it."""
        messages = self.queue.receive(lane, invisible=600)
        if not messages:
            return False
        try:
            worker.handle(lane, messages[0].body, messages[0].dequeue_count)
        except Ended:
            assert self.queue.release(lane, messages[0])
        else:
            assert self.queue.delete(lane, messages[0])
        return True

    def work_one(self, kind: str) -> None:
        """Handles the first message of a kind, and leaves the others."""
        for lane in layout.QUEUES:
            messages = self.queue.receive(lane, limit=10_000)
            for each in messages:
                if json.loads(each.body)["job"] == kind:
                    self.hub.handle(lane, each.body, each.dequeue_count)
                    assert self.queue.delete(lane, each)
                    kind = ""
                else:
                    self.queue.release(lane, each)
        assert not kind, f"no message of kind {kind}"

    def work_together(self) -> None:
        """Every worker handles messages at once, until there is none that is visible."""
        failed: list[BaseException] = []
        workers = self.workers or self.hubs
        busy = [threading.Event() for _ in workers]

        def body(number: int) -> None:
            try:
                while not failed:
                    busy[number].set()
                    if any(self._one(workers[number], lane) for lane in layout.QUEUES):
                        continue
                    busy[number].clear()
                    if not any(each.is_set() for each in busy):
                        return
                    threading.Event().wait(0.005)
            except BaseException as error:  # noqa: BLE001  # raised below, in the test's thread
                failed.append(error)

        threads = [threading.Thread(target=body, args=(number,)) for number in range(len(workers))]
        for each in threads:
            each.start()
        for each in threads:
            each.join()
        if failed:
            raise failed[0]

    def lose(self, kind: str) -> int:
        """Takes the messages of a kind that wait away, as if they had never come; gives how many there were."""
        lost = 0
        for lane in layout.QUEUES:
            for message in self.queue.receive(lane, limit=10_000):
                if json.loads(message.body)["job"] == kind:
                    lost += self.queue.delete(lane, message)
                else:
                    self.queue.release(lane, message)
        return lost

    def both(self) -> None:
        for name in self.pulled():
            self.pull(name)
        self.hub.tick()
        self.work()

    def later(self, seconds: float) -> None:
        """So much time passes, here and at both remotes."""
        self.clock.ahead += timedelta(seconds=seconds)
        for each in self.remotes.values():
            each.control("POST", "clock", {"advance": seconds})

    def settle(self, rounds: int = 60) -> None:
        """Pulls, pushes and ticks, with the time that must pass between, until a round finds nothing new anywhere."""
        for _ in range(rounds):
            runs = []
            for name in self.pulled():
                with suppress(Conflict):  # the one before waits to come again
                    runs.append(self.start(name))
            self.work_together()
            swept = self.hub.tick()
            self.work_together()
            started = [part for each in runs for part in each.children or [each.id]]
            ended = [self.hub.runs.get(DEFAULT_TENANT, each) for each in started]
            quiet = all(
                each is not None and each.status == "succeeded" and not any(map(each.counts.get, NEWS))
                for each in ended
            )
            waits = [self.queue.next_visible(lane) for lane in layout.QUEUES]
            if quiet and len(runs) == len(self.pulled()) and not swept and not any(waits):
                return
            soonest = min((each for each in waits if each), default=self.clock.now())
            self.later(max(60.0, (soonest - self.clock.now()).total_seconds() + 1))
        raise AssertionError(f"not settled after {rounds} rounds: {sorted(self.items('push'))[:5]}")

    # --- what there is -------------------------------------------------------------------------------------------

    def items(self, kind: str) -> set[tuple[str, str]]:
        """(connection, record id) of the open items of a kind."""
        return {
            (uid, record_id)
            for bucket in layout.BUCKETS
            for _, uid, record_id in self.hub.records.open_items(
                DEFAULT_TENANT, self.entity, bucket, kind=kind
            )
        }

    def conflicts(self) -> list[Any]:
        """Every one that waits for a person to decide between two values."""
        return self.waiting("value")

    def waiting(self, *kinds: str) -> list[Any]:
        """Everything of these kinds, or at all, that waits for a person."""
        found: list[Any] = []
        place: Any = {}
        while place is not None:
            sought = conflicts.Sought(kinds, self.entity)
            page, place = conflicts.page(self.hub.engine, DEFAULT_TENANT, sought, place, top=1000)
            found += page
        return found

    def decide(self, conflict: Any, take: str, value: Any = None, etag: str = "") -> Record:
        """A person decides one of them."""
        return resolving.resolve(self.editor(), conflict, take, value, etag)

    def editor(self) -> Editor:
        return self.hub.editor(DEFAULT_TENANT, ENTITIES[self.entity], "key:test")

    def records(self) -> list[Record]:
        """Every record; open item rows must be what the records say."""
        found, wanted = [], set()
        for bucket in layout.BUCKETS:
            for each in self.hub.records.scan(DEFAULT_TENANT, self.entity, bucket):
                if isinstance(each.content, Record):
                    found.append(each.content)
                    wanted |= {(*item, each.id) for item in open_items(each.content)}
        rows = set(
            itertools.chain.from_iterable(
                self.hub.records.open_items(DEFAULT_TENANT, self.entity, bucket) for bucket in layout.BUCKETS
            )
        )
        assert rows == wanted
        return found

    def rows(self, name: str) -> dict[str, dict[str, Any]]:
        return self.remotes[name].rows()

    def values(self, name: str, column: str = "name") -> list[Any]:
        return sorted(str(values.get(column)) for values in self.rows(name).values())


@contextmanager
def paired(
    azurite: str,
    remote: Remote,
    sides: dict[str, Any],
    other_ca: bytes,
    folder: Path,
    *,
    entity: str = "contact",
    most: int = 1000,
) -> Iterator[Pair]:
    """Two instances of the hub between two sides, over Azurite. `remote`: the sandbox of one of them. `most`: so many
    rows a run may make, or delete, before the brake stops it.
    """
    bundle = folder / "ca.pem"
    assert remote.sandbox.ca is not None
    bundle.write_bytes(remote.sandbox.ca.read_bytes() + other_ca)
    remote.table = "contact"
    remote.options(limits={"requests": 10**9, "seconds": 10**9})
    clock = AheadClock()
    queue = MemoryQueue(clock)
    brakes = {"BRAKE_CREATES": str(most), "BRAKE_DELETES": str(most)}
    environ = {**environment(azurite, remote), "CA_BUNDLE": str(bundle), **brakes, **SOON}
    settings = load(environ)
    table = Prefixed(AzureTable(StorageAccount(azurite)))
    with ExitStack() as stack:
        hubs = [Hub(settings, clock=clock, table=table, queue=queue) for _ in range(2)]
        for each in hubs:
            stack.enter_context(closing(each))
        yield Pair(hubs, queue, clock, sides, entity, environ=environ)


def refuse_phone(pair: Pair, rid: str, other: str) -> None:
    """The phone that is edited at a is refused once at b, where the record is `other`."""
    pair.remotes["b"].fault(
        "status",
        path=f"*accounts({other})*",
        method="PATCH",
        status=400,
        message="The phone is wrong.",
        count=1,
    )
    pair.remotes["a"].update(rid, telephone1="x")
    pair.pull("a")
