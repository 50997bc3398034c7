"""What sync works with: stores, queue, clock, and a way to open a connection. Wired by the hub."""

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from crm_core.connector import Connector
from crm_core.errors import BadRequest
from crm_core.log import current_trace
from crm_core.model.connection import Connection, Tenant
from crm_core.model.entities import Entity
from crm_core.model.fields import hub_time
from crm_core.model.record import NOTHING
from crm_core.model.state import Mode, Run
from crm_core.ports import Blob, Clock, Ids, Meter, Pool, Queue, Table
from crm_core.storage import layout
from crm_core.storage.deliveries import Deliveries
from crm_core.storage.due import Due
from crm_core.storage.events import Events
from crm_core.storage.held import Held
from crm_core.storage.hints import Hints
from crm_core.storage.journal import DeadLetters
from crm_core.storage.keys import Keys
from crm_core.storage.records import Records
from crm_core.storage.run_log import RunLog
from crm_core.storage.state import RunStore, StateStore
from crm_core.sync.sides import Breaker, Config, side_of

MESSAGE_VERSION = 1


@dataclass(frozen=True)
class Job:
    """What a queue message asks for, by kind and ids. `attempt`: how often it failed before. `trace`: what led to it.
    `buckets`: of a push or of deliveries, those that have work. `event`: of a webhook, what came, or the id of its row
    alone; of a delivery its id, of none all that are due.
    `task`: of work on many things at once, which and how.
    """

    kind: str
    tenant: Tenant
    connection: str = ""
    entity: str = ""
    run: str = ""
    attempt: int = 0
    trace: str = ""
    buckets: str = ""
    event: Mapping[str, Any] = NOTHING
    task: Mapping[str, Any] = NOTHING

    def to_message(self) -> str:
        data = {"v": MESSAGE_VERSION, "job": self.kind, **vars(self), "tenant": self.tenant.name}
        data.pop("kind")
        return json.dumps({name: value for name, value in data.items() if value}, ensure_ascii=False)

    @classmethod
    def from_message(cls, body: str) -> "Job":
        """Raises ValueError for what is no message of ours."""
        data = json.loads(body)
        if not isinstance(data, dict) or data.get("v") not in (MESSAGE_VERSION, MESSAGE_VERSION - 1):
            raise ValueError("not a message of this version")
        known = {
            name: data[name]
            for name in ("connection", "entity", "run", "attempt", "trace", "buckets", "event", "task")
            if name in data
        }
        try:
            tenant = Tenant(str(data["tenant"]))
        except BadRequest:
            raise ValueError("not a tenant") from None
        return cls(str(data["job"]), tenant, **known)


@dataclass(frozen=True)
class Tuning:
    """Sizes, times and limits of sync, each with its unit in its name.

    `push_start_seconds`: a write begins so soon after its attempt was saved, or not at all. `attempt_seconds`: so long
    after that it may still reach the remote: the time to begin, a call's deadline of 100 s, and 120 s that it may be on
    its way. `push_delay_seconds`: after a change of configuration, until a push run begins. `sweep_buckets`: how many
    of the 16 the tick looks at each minute. `breaker_...`: a field that flips so often in this time waits for a person.
    `plan_hours`: after its end a plan may be applied for so long.
    `log_days`, `export_days`, `run_days`, `event_days`, `delivery_days`, `history_days`: how long lines of the log of runs,
    parts of exports, runs, webhooks that are done, deliveries that are over, and steps of records are kept.
    """

    fresh_slice_seconds: float = 20
    bulk_slice_seconds: float = 240
    lease_seconds: float = 90
    batch_records: int = 4000
    batch_seconds: float = 5
    page_records: int = 5000
    brake_deletes: float = 20
    brake_deletes_percent: float = 5
    brake_creates: float = 500
    brake_creates_percent: float = 50
    push_records: int = 400
    push_start_seconds: float = 30
    attempt_seconds: float = 250
    push_delay_seconds: float = 120
    sweep_buckets: int = 1
    breaker_flips: float = 4
    breaker_seconds: float = 600
    plan_hours: float = 24
    log_days: float = 30
    export_days: float = 7
    run_days: float = 90
    event_days: float = 30
    delivery_days: float = 30
    history_days: float = 90

    @property
    def breaker(self) -> Breaker:
        return Breaker(self.breaker_flips, self.breaker_seconds)


@dataclass(frozen=True)
class Opened:
    """A connection and the connector that speaks for it."""

    connection: Connection
    connector: Connector


@dataclass(frozen=True)
class Engine:
    """`open`: gives a connection by uid, None if it is gone; `sides`: the part that each connection has in an entity.
    Their copies are at most 60 s old.
    """

    records: Records
    keys: Keys
    held: Held
    hints: Hints
    events: Events
    deliveries: Deliveries
    states: StateStore
    runs: RunStore
    dead_letters: DeadLetters
    run_log: RunLog
    due: Due
    queue: Queue
    blob: Blob
    clock: Clock
    ids: Ids
    pool: Pool
    open: Callable[[Tenant, str], Opened | None]
    sides: Callable[[Tenant, str], Config]
    tuning: Tuning = field(default_factory=Tuning)

    def slice_end(self, lane: str) -> float:
        """When a slice that begins now has to stop, by the monotonic clock."""
        seconds = self.tuning.fresh_slice_seconds if lane == layout.FRESH else self.tuning.bulk_slice_seconds
        return self.clock.monotonic() + seconds

    def over(self, table: Table, queue: Queue) -> "Engine":
        """The same engine, whose records, keys and what else applying writes are in another table, and its messages in
        another queue.
        """
        return replace(
            self,
            records=Records(table, self.pool),
            keys=Keys(table),
            held=Held(table),
            dead_letters=DeadLetters(table, self.clock, self.ids),
            queue=queue,
        )

    def new_run(
        self, connection: str, entity: str, mode: Mode, origin: str, *, trace: str = "", **more: Any
    ) -> Run:
        """A run of now, in no row yet. `more`: its other fields."""
        now = self.clock.now()
        return Run(
            layout.newest_first(int(now.timestamp() * 1000), self.ids.uuid()), connection, entity, mode, origin=origin,
            created_at=hub_time(now), trace=trace or current_trace(), **more,
        )  # fmt: skip

    def send(self, lane: str, job: Job, delay: float = 0.0) -> None:
        """A job that goes on, or comes again, keeps its trace; a new one gets that of the work in hand."""
        job = job if job.trace else replace(job, trace=current_trace())
        self.queue.send(lane, job.to_message(), delay)


def calls_with(before: Mapping[str, int], meter: Meter) -> dict[str, int]:
    """The calls of a run: those before this slice, and those that it has made."""
    return {name: before.get(name, 0) + meter.total(f"{name}_calls") for name in ("remote", "storage")}


def config_of(engine: Engine, opened: Opened, entity: Entity) -> Config:
    """The sides of an entity; of this connection too, if it was made so lately that it is not listed yet."""
    connection = opened.connection
    config = engine.sides(connection.tenant, entity.name)
    if connection.uid not in config:
        config[connection.uid] = side_of(connection, type(opened.connector), entity, engine.tuning.breaker)
    return config


def wake(
    engine: Engine, tenant: Tenant, entity: str, places: Iterable[tuple[str, str]], kind: str = "push"
) -> None:
    """Sends a job to each connection that has something to learn, naming the buckets. A lost one costs time only:
    the tick finds what is open.
    """
    buckets: dict[str, list[str]] = {}
    for uid, bucket in places:
        buckets.setdefault(uid, []).append(bucket)
    for uid in sorted(buckets):
        engine.send(
            layout.FRESH,
            Job(kind, tenant, connection=uid, entity=entity, buckets="".join(sorted(buckets[uid]))),
        )
