"""A process of the hub: the real engine, wired by hand over the in-memory ports; and the host that runs several."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from crm_core.errors import RateLimited, Unavailable
from crm_core.model.connection import DEFAULT_TENANT, Connection, Tenant
from crm_core.model.entities import ENTITIES
from crm_core.storage.deliveries import Deliveries
from crm_core.storage.due import Due
from crm_core.storage.events import Events
from crm_core.storage.held import Held
from crm_core.storage.hints import Hints
from crm_core.storage.journal import DeadLetters
from crm_core.storage.keys import Keys
from crm_core.storage.memory import MemoryBlob, MemoryQueue, MemoryTable, Message
from crm_core.storage.records import Records
from crm_core.storage.run_log import RunLog
from crm_core.storage.state import RunStore, StateStore
from crm_core.sync import jobs, schedule
from crm_core.sync.engine import Engine, Opened, Tuning
from crm_core.sync.sides import Config, side_of
from simulation.faults import Faults
from simulation.history import History
from simulation.host import Host, Instance
from simulation.ports import Seam, SimBlob, SimQueue, SimTable
from simulation.scheduler import Scheduler, SimClock, SimIds, SimPool
from simulation.two_way.receiver import UID, Receiver, Told
from simulation.two_way.remotes import Going, Wire
from simulation.two_way.servers import Server
from simulation.watch import Watch

CACHE_SECONDS = 60.0
REMOTE_SECONDS = 0.08
LANDS_WITHIN_SECONDS = 25.0
"""A request that times out may be carried out so much later: less than an attempt lives."""
REMOTE_READ = ("lost", "unanswered", "refused", "crash")
REMOTE_WRITE = ("lost", "unanswered", "late", "refused", "crash", "bare")


@dataclass
class Stores:
    """What all processes share. `connections`: as they are saved now."""

    scheduler: Scheduler
    history: History
    faults: Faults
    watch: Watch
    tuning: Tuning
    table: MemoryTable = field(default_factory=MemoryTable)
    blob: MemoryBlob = field(default_factory=MemoryBlob)
    queue: MemoryQueue = field(init=False)
    connections: dict[str, Connection] = field(default_factory=dict)
    kinds: dict[str, Any] = field(default_factory=dict)
    servers: dict[str, Server] = field(default_factory=dict)
    receiver: Receiver = field(default_factory=Receiver)
    checked: Callable[[str, str, Going], None] = lambda *_: None
    """(connection, what, the write) before the hub writes at a remote."""

    begun: Callable[[str], None] = lambda *_: None
    """A job of that kind, or the tick, begins."""
    sent: Callable[[], None] = lambda: None
    """Before the current work sends a message."""

    def __post_init__(self) -> None:
        self.queue = MemoryQueue(SimClock(self.scheduler))


class CountedQueue(SimQueue):
    """Tells who sends, once for each call."""

    def __init__(self, seam: Seam, stores: Stores) -> None:
        super().__init__(seam, stores.queue)
        self._stores = stores

    def send(self, queue: str, body: str, delay: float = 0.0) -> None:
        self._stores.sent()
        super().send(queue, body, delay)


class Process:
    """One process with its caches, its own clock and ids. `spared`: nothing befalls its calls."""

    def __init__(self, stores: Stores, name: str, *, skew: float = 0.0) -> None:
        self.stores = stores
        scheduler = stores.scheduler
        seam = Seam(scheduler, stores.faults, stores.history)
        table: Any = SimTable(seam, stores.table, stores.watch)
        self.clock = SimClock(scheduler, skew)
        pool = SimPool(scheduler)
        ids = SimIds(scheduler.chance(f"ids {name} {scheduler.now}"))
        self._known: tuple[Mapping[str, Connection], float] = ({}, -CACHE_SECONDS)
        blob = SimBlob(seam, stores.blob)
        self.engine = Engine(
            Records(table, pool), Keys(table), Held(table), Hints(table), Events(table, blob),
            Deliveries(table, blob), StateStore(table),
            RunStore(table), DeadLetters(table, self.clock, ids), RunLog(table, ids), Due(table), CountedQueue(seam, stores), blob,
            self.clock, ids, pool, self._open, self._sides, stores.tuning,
        )  # fmt: skip

    def _connections(self) -> tuple[Mapping[str, Connection], float]:
        now = self.clock.monotonic()
        if now - self._known[1] >= CACHE_SECONDS:
            self._known = dict(self.stores.connections), now
        return self._known

    def _sides(self, tenant: Tenant, entity: str) -> Config:  # noqa: ARG002  # there is one
        known, at = self._connections()
        return Config(
            {
                uid: side_of(each, self.stores.kinds[uid], ENTITIES[entity], self.stores.tuning.breaker)
                for uid, each in known.items()
                if entity in each.entities
            },
            at,
        )

    def _open(self, tenant: Tenant, uid: str) -> Opened | None:  # noqa: ARG002  # there is one
        connection = self._connections()[0].get(uid)
        if connection is None:
            return None
        if uid == UID:
            return Opened(connection, Told(self.stores.receiver, self._wire(uid)))
        server = self.stores.servers[uid]
        return Opened(connection, self.stores.kinds[uid].opened(server, self._wire(uid)))

    def _wire(self, uid: str) -> Wire:
        return lambda what, call, writes: self._carried_out(uid, what, call, writes)

    def _carried_out(self, uid: str, what: str, call: Callable[[], Any], writes: Going | None) -> Any:
        """A call at a remote, with a switch before and after it, and what befalls it."""
        stores, faults, task = self.stores, self.stores.faults, self.stores.scheduler.current
        stores.scheduler.live()
        if writes is not None:
            stores.checked(uid, what, writes)
        if stores.history.verbose or writes is not None:
            stores.history.note(task.name, "   {}", what)
        # What is to be written is not held up for longer than its attempt allows.
        faults.pause(REMOTE_SECONDS / 2, brief=writes is not None)
        fate = faults.fate(task, what, REMOTE_WRITE if writes is not None else REMOTE_READ)
        self._before(fate, what, call)
        try:
            answer = call()
        except Exception as error:
            stores.history.note(task.name, "   answers {}", type(error).__name__)
            raise
        finally:
            faults.pause(REMOTE_SECONDS / 2, hand=True)
        if fate == "crash after":
            faults.crash()
        if fate == "unanswered":
            raise Unavailable("No answer in time.", timeout=True, outcome_unknown=True)
        if fate == "bare" and answer is not None:
            return replace(answer, fields=None, problem="no record in the answer")
        return answer

    def _before(self, fate: str, what: str, call: Callable[[], Any]) -> None:
        """What keeps a request from being carried out now."""
        faults = self.stores.faults
        if fate == "crash before":
            faults.crash()
        if fate == "lost":
            raise Unavailable("No connection.", outcome_unknown=faults.chance.random() < 0.5)
        if fate == "refused":
            if faults.chance.random() < 0.5:
                raise RateLimited("Busy.", retry_after=faults.chance.choice((0, 1, 7)))
            raise Unavailable("503")
        if fate == "late":
            later = faults.chance.random() * LANDS_WITHIN_SECONDS
            self.stores.scheduler.later(later, lambda: self._lands(what, call))
            faults.pause(REMOTE_SECONDS)
            raise Unavailable("No answer in time.", timeout=True, outcome_unknown=True)

    def _lands(self, what: str, call: Callable[[], Any]) -> None:
        self.stores.history.note("remote", "~~ lands late: {}", what)
        try:
            call()
        except Exception as error:  # noqa: BLE001  # nobody hears it
            self.stores.history.note("remote", "~~ refused: {}", type(error).__name__)


class EngineHost(Host):
    """The host of processes that have an engine and no functions. `begun`: told what kind of work begins."""

    def __init__(
        self, stores: Stores, make: Callable[[Instance], Any], *, instances: int, invisible: float
    ) -> None:
        super().__init__(
            stores.scheduler, stores.history, stores.faults, stores.queue, make,
            instances=instances, invisible=invisible,
        )  # fmt: skip
        self._stores = stores

    def work(self, instance: Instance, lane: str, message: Message) -> None:
        engine = instance.hub.engine  # type: ignore[attr-defined]
        if lane.endswith("-poison"):
            jobs.poisoned(engine, lane.removesuffix("-poison"), message.body)
        else:
            told = json.loads(message.body)
            self._stores.begun("deliver" if told.get("connection") == UID else str(told["job"]))
            jobs.handle(engine, lane, message.body, message.dequeue_count)

    def minute(self, instance: Instance) -> None:
        self._stores.begun("tick")
        schedule.tick(instance.hub.engine)  # type: ignore[attr-defined]


TENANT = DEFAULT_TENANT
