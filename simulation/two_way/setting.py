"""The parts: processes over one store, two or three remote systems, people who act, what is checked; and how it all comes
to rest. Whoever drives it says what happens and when (`world.py`, and the state machine of the tests).
"""

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any

from crm_core.errors import Conflict
from crm_core.model.connection import Connection, EntitySync, Schedule
from crm_core.model.fields import hub_time
from crm_core.model.record import Link, Record
from crm_core.model.state import EntityState
from crm_core.ports import RowChanged, every_row
from crm_core.storage import layout
from crm_core.storage.memory import MemoryTable
from crm_core.storage.records import Records, Redirect, Tomb
from crm_core.storage.state import StateStore
from crm_core.sync import push_runs, starting
from crm_core.sync.engine import Engine
from simulation.faults import Faults
from simulation.history import History
from simulation.host import Instance
from simulation.scheduler import Scheduler, SimPool
from simulation.two_way.acts import Acts
from simulation.two_way.checks import Checks
from simulation.two_way.model import Model, Thing
from simulation.two_way.process import TENANT, EngineHost, Process, Stores
from simulation.two_way.receiver import UID, Told
from simulation.two_way.remotes import connector_class
from simulation.two_way.servers import KINDS, ONE_WAY, TAGS, Server, edited_names
from simulation.two_way.shape import Shape
from simulation.two_way.watching import Watching

SETTLE_SECONDS = 6 * 3600


@dataclass
class Verdict:
    """How a simulation ended: `violations` empty is good."""

    violations: list[str]
    turns: int
    minutes: float
    struck: dict[str, int]
    writes: int
    history: list[str]

    @property
    def good(self) -> bool:
        return not self.violations


class Setting:
    """The parts, in one place. `decides`: what a person at rest chooses for a field in conflict, ours if true."""

    def __init__(self, scheduler: Scheduler, shape: Shape, **history: Any) -> None:
        self.scheduler = scheduler
        self.history = History(scheduler, **history)
        self.shape = shape
        self.model = Model()
        self.faults = self._faults()
        self.watch = Watching(self)
        self.stores = Stores(scheduler, self.history, self.faults, self.watch, shape.tuning)
        self.stores.checked = self.watch.about_to_write
        self.stores.begun, self.stores.sent = self.watch.begun, self.watch.sent
        self.table: MemoryTable = self.stores.table
        self.servers: dict[str, Server] = {}
        self._begin_connections()
        self._machines = scheduler.chance("machines")
        self.host = EngineHost(
            self.stores, self._process, instances=shape.instances, invisible=shape.invisible
        )
        self.outside = Process(self.stores, "outside")
        self.acts = Acts(self)
        self.checks = Checks(self)
        scheduler.poll = self.host.poll
        self._records = Records(self.table, SimPool(scheduler))

    def _faults(self) -> Faults:
        """What may befall the calls of processes."""
        raise NotImplementedError

    def decides(self) -> bool:
        raise NotImplementedError

    def _process(self, instance: Instance) -> Any:
        return Process(self.stores, instance.name, skew=self._machines.uniform(-5, 5))

    def touched(self, place: str, rid: str) -> None:
        """The hub has just written a row."""

    def violations(self) -> list[str]:
        return [*self.watch.violations, *self.host.raised]

    # --- configuration -------------------------------------------------------------------------------------------

    def _begin_connections(self) -> None:
        shape = self.shape
        states = StateStore(self.table)
        for number, (letter, direction) in enumerate(zip(shape.kinds, shape.directions, strict=True)):
            uid = f"r{number + 1}"
            self.servers[uid] = Server(
                uid,
                KINDS[letter],
                self.scheduler,
                shape.skews[number],
                rejects=shape.bad > 0,
                late=shape.late_commits,
            )
            self.servers[uid].changed = self.watch.changed
            self.stores.servers[uid] = self.servers[uid]
            self.stores.kinds[uid] = connector_class(letter, shape.ways[number])
            self.stores.connections[uid] = self._connection(uid, direction)
            now = hub_time(self.scheduler.time)
            later = hub_time(self.scheduler.time + timedelta(seconds=120))
            states.begin(TENANT, uid, {
                entity: EntityState(
                    due=now if direction != "push" else "", push_due=later if direction != "pull" else ""
                )
                for entity in shape.entities
            })  # fmt: skip

        if shape.told:
            sync = {entity: EntitySync("push") for entity in shape.entities}
            self.stores.kinds[UID] = Told
            self.stores.connections[UID] = Connection(
                TENANT, UID, UID, "webhook", {}, sync, Schedule(), "", ""
            )
            states.begin(TENANT, UID, {entity: EntityState() for entity in shape.entities})

    def _connection(self, uid: str, direction: str) -> Connection:
        shape = self.shape
        sync = {
            entity: EntitySync(
                direction,
                policy=shape.policy,
                deletes=shape.deletes_policy,
                match=self.match(entity),  # type: ignore[arg-type]
            )
            for entity in shape.entities
        }
        return Connection(TENANT, uid, uid, "sim", {}, sync, Schedule(minutes=1), "", "")

    def names(self, place: str, entity: str) -> list[str]:
        """The fields that people edit at a place; what a system never tells nobody types there."""
        told = edited_names(entity)
        if place != "hub" and self.stores.kinds[place].hidden in told:
            told.remove(ONE_WAY)
        return told

    def writes(self, uid: str, entity: str) -> frozenset[str]:
        """The fields that the hub may write there."""
        if not self.stores.connections[uid].entities[entity].pushes:
            return frozenset()
        return frozenset(self.stores.kinds[uid].entities[entity].written_names)

    def match(self, entity: str) -> str:
        return "email" if self.shape.match and entity == "contact" else ""

    def widen(self) -> None:
        """The first connection, which was only pulled, is to be written too."""
        states = StateStore(self.table)
        self.history.note("person", "** r1 becomes both")
        self.stores.connections["r1"] = self._connection("r1", "both")
        for entity in self.shape.entities:
            for _ in range(5):
                found = states.read(TENANT, "r1")
                assert found is not None
                later = hub_time(self.scheduler.time + timedelta(seconds=120))
                try:
                    states.save_entity(TENANT, "r1", entity, push_runs.wanting(found.entities[entity], later))
                except RowChanged:
                    continue
                break

    # --- looking without touching --------------------------------------------------------------------------------

    def records(self, entity: str) -> list[Record]:
        return [content for _, content in self.stored(entity) if isinstance(content, Record)]

    def stored(self, entity: str) -> Iterator[tuple[str, Record | Redirect | Tomb]]:
        for bucket in layout.BUCKETS:
            for each in self._records.scan(TENANT, entity, bucket):
                yield each.id, each.content

    def record_of(self, thing: Thing) -> Record | None:
        return next(
            (each for each in self.records(thing.entity) if each.fields.get(TAGS[thing.entity]) == thing.tag),
            None,
        )

    def link(self, thing: Thing, uid: str) -> Link | None:
        record = self.record_of(thing)
        return record.links.get(uid) if record else None

    # --- quiet ----------------------------------------------------------------------------------------------------

    def come_to_rest(self) -> None:
        """Faults have stopped: all work gets done, people decide what waits for them, and then all must hold."""
        self.faults.on = False
        for server in self.servers.values():
            server.rejects = False
        # A full run mends what a careless guard let pass: it is left out where the feeds tell of deletes.
        compares = not all(each.kind.tells_deletes for each in self.servers.values())
        for _ in range(6):
            if not self._settle():
                return
            if compares:
                self._full_runs()
                if not self._settle():
                    return
            if not self.scheduler.call("person", lambda: self.acts.decide_all(self.decides)):
                break
        if not self._settle():
            return
        self.checks.at_rest()
        if self.violations():
            return
        before = self._all_rows()
        self._full_runs()
        if self._settle():
            after = self._all_rows()
            changed = sorted(key for key in before.keys() | after.keys() if before.get(key) != after.get(key))
            if changed:
                self.watch.broken(f"a further round wrote {changed}")

    def _settle(self) -> bool:
        self.checks.begin_quiet()
        done = self.scheduler.run(
            lambda: bool(self.violations()) or not self.checks.unfinished(), SETTLE_SECONDS
        )
        if not done:
            self.watch.broken(f"work is never done: {self.checks.unfinished()}")
        return not self.violations()

    def _full_runs(self) -> None:
        """Deletes that a feed does not tell are found by comparing."""
        engine: Engine = self.outside.engine

        def start() -> None:
            for uid, connection in self.stores.connections.items():
                wanted = [entity for entity, sync in connection.entities.items() if sync.pulls]
                opened = engine.open(TENANT, uid)
                assert opened is not None
                if wanted:
                    with suppress(Conflict):  # the one whose message was lost comes by this
                        starting.start(
                            engine,
                            replace(opened, connection=connection),
                            wanted,
                            starting.Asked("full"),
                            "key:person",
                        )

        self.scheduler.call("full", start)

    def _all_rows(self) -> dict[Any, Any]:
        found: dict[Any, Any] = {}
        for entity in self.shape.entities:
            for bucket in layout.BUCKETS:
                pk = layout.records_pk(TENANT, entity, bucket)
                for row in every_row(self.table, layout.RECORDS, pk=pk):
                    if row.values.get("kind") != "tomb":  # an old delete that the feed repeats is noted
                        found[pk, row.rk] = row.etag
        for name, server in self.servers.items():
            found["server", name] = str(server.numbers)
        return found
