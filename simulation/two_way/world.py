"""The whole: processes over one store, two or three remote systems, people; trouble, then quiet, then the verdict."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any

from crm_core.model.connection import Connection, EntitySync, Schedule
from crm_core.model.fields import hub_time
from crm_core.model.record import Link, Record
from crm_core.model.state import EntityState
from crm_core.ports import RowChanged, every_row
from crm_core.storage import layout
from crm_core.storage.memory import MemoryTable
from crm_core.storage.records import Records, Redirect, Tomb
from crm_core.storage.state import StateStore
from crm_core.sync import starting
from crm_core.sync.engine import Engine, Tuning
from simulation.faults import Faults, Rates
from simulation.history import History
from simulation.host import Instance
from simulation.scheduler import Owner, Scheduler, SimPool, Work
from simulation.two_way.checks import Checks, Watching
from simulation.two_way.model import Model, Thing
from simulation.two_way.people import People
from simulation.two_way.process import TENANT, EngineHost, Process, Stores
from simulation.two_way.remotes import KINDS, TAGS, Server, connector_class

SETTLE_SECONDS = 6 * 3600
STEPS = 40
DIRECTIONS = ("both", "both", "both", "pull", "push")


@dataclass(frozen=True)
class Shape:
    """What differs between seeds besides chance itself."""

    kinds: tuple[str, ...]
    directions: tuple[str, ...]
    policy: str
    deletes_policy: str
    match: bool
    entities: tuple[str, ...]
    instances: int
    invisible: float
    skews: tuple[float, ...]
    rates: Rates
    tuning: Tuning
    apps: bool
    app_deletes: bool
    creates: float
    deletes: float
    restores: float
    reverts: float
    references: float
    bad: float
    widens: bool
    meddling: float
    hurry: tuple[float, ...]

    @classmethod
    def drawn(cls, scheduler: Scheduler) -> "Shape":
        chance = scheduler.chance("shape")
        lease = chance.choice((10.0, 30.0))
        count = chance.choice((2, 2, 3))
        deleting = chance.random() < 0.5
        directions = tuple(chance.choice(DIRECTIONS) for _ in range(count))
        widens = chance.random() < 0.2
        if widens:
            directions = ("pull", *directions[1:])
        rates = Rates.drawn(chance, lease)
        kinds = tuple(chance.choice("aabcde") for _ in range(count))
        # Without a marker only a match rule tells what a create whose answer was lost has made.
        match = "d" in kinds or chance.random() < 0.5
        late = chance.choice((0.0, 0.02, 0.1))
        return cls(
            kinds=kinds,
            directions=directions,
            policy=chance.choice(("newest", "newest", "remote", "local", "manual", "skip")),
            deletes_policy=chance.choice(("mark", "ignore", "propagate", "propagate", "propagate")),
            match=match,
            entities=("contact",) if "d" in kinds else chance.choice((("contact",), ("contact", "account"))),
            instances=chance.randint(2, 3),
            invisible=chance.choice((60.0, 120.0)),
            skews=tuple(chance.uniform(-30, 30) for _ in range(count)),
            rates=replace(rates, late=late, bare=chance.choice((0.0, 0.02))),
            tuning=Tuning(
                fresh_slice_seconds=chance.choice((0.2, 2, 20)),
                bulk_slice_seconds=chance.choice((0.5, 20, 240)),
                lease_seconds=lease,
                batch_records=chance.randint(1, 8),
                page_records=chance.randint(1, 5),
                brake_deletes=1e9,
                brake_creates=1e9,
                breaker_flips=1e9,
                push_records=chance.randint(1, 8),
                push_start_seconds=10,
                attempt_seconds=90,
                sweep_buckets=16,
            ),
            apps=chance.random() < 0.7,
            app_deletes=deleting and chance.random() < 0.5,
            creates=chance.choice((0.1, 0.3)),
            deletes=chance.choice((0.05, 0.15)) if deleting else 0.0,
            restores=chance.choice((0.0, 0.05)) if deleting else 0.0,
            reverts=chance.choice((0.0, 0.3)),
            references=0.3,
            bad=chance.choice((0.0, 0.0, 0.05)),
            widens=widens,
            meddling=chance.choice((0.0, 0.1, 0.3)),
            hurry=chance.choice(((0.05, 1.0, 10.0, 60.0), (0.05, 0.2, 1.0), (1.0, 10.0, 60.0))),
        )


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


class World:
    """One simulation, for one seed. `shape`: changes what the seed drew."""

    def __init__(self, seed: int, *, shape: dict[str, Any] | None = None, **history: Any) -> None:
        self.scheduler = scheduler = Scheduler(seed)
        self.history = History(scheduler, **history)
        self.shape = replace(Shape.drawn(scheduler), **(shape or {}))
        self.model = Model()
        self.faults = Faults(scheduler, self.history, self.shape.rates)
        self.watch = Watching(self)
        self.stores = Stores(scheduler, self.history, self.faults, self.watch, self.shape.tuning)
        self.stores.checked = self.watch.about_to_write
        self.table: MemoryTable = self.stores.table
        self.servers: dict[str, Server] = {}
        self._begin_connections()
        self._machines = scheduler.chance("machines")
        self.host = EngineHost(
            scheduler, self.history, self.faults, self.stores.queue, self._process,
            instances=self.shape.instances, invisible=self.shape.invisible,
        )  # fmt: skip
        self.outside = Process(self.stores, "outside")
        self.people = People(self)
        self.checks = Checks(self)
        scheduler.poll = self.host.poll
        self._chance = scheduler.chance("course")
        self._meantime = scheduler.chance("meanwhile")
        self.faults.meanwhile = self._meanwhile
        self._records = Records(self.table, SimPool(scheduler))

    def _process(self, instance: Instance) -> Any:
        return Process(self.stores, instance.name, skew=self._machines.uniform(-5, 5))

    def _meanwhile(self, work: Work, seconds: float) -> None:
        """While somebody pauses a person is at the rows in question, and another worker gets the same message."""
        chance = self._meantime
        if chance.random() < self.shape.meddling:
            self._soon(seconds * chance.random())
        if chance.random() < 0.3:
            self.scheduler.later(seconds * chance.random(), lambda: self.host.again(work))

    def touched(self, place: str, rid: str) -> None:
        """The hub has just written a row; now and then a person does in the same second."""
        self.people.touched(place, rid)
        if self._meantime.random() < self.shape.meddling:
            self._soon(self._meantime.choice((0.01, 0.1, 0.5)))

    def _soon(self, seconds: float) -> None:
        def happens() -> None:
            if self.faults.on:
                self.people.meddle()

        self.scheduler.later(seconds, happens)

    # --- configuration -------------------------------------------------------------------------------------------

    def _begin_connections(self) -> None:
        shape = self.shape
        states = StateStore(self.table)
        for number, (letter, direction) in enumerate(zip(shape.kinds, shape.directions, strict=True)):
            uid = f"r{number + 1}"
            self.servers[uid] = Server(
                uid, KINDS[letter], self.scheduler, shape.skews[number], rejects=shape.bad > 0
            )
            self.servers[uid].changed = self.watch.changed
            self.stores.servers[uid] = self.servers[uid]
            self.stores.kinds[uid] = connector_class(letter)
            self.stores.connections[uid] = self._connection(uid, direction)
            now = hub_time(self.scheduler.time)
            later = hub_time(self.scheduler.time + timedelta(seconds=120))
            states.begin(TENANT, uid, {
                entity: EntityState(
                    due=now if direction != "push" else "", push_due=later if direction != "pull" else ""
                )
                for entity in shape.entities
            })  # fmt: skip

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

    def match(self, entity: str) -> str:
        return "email" if self.shape.match and entity == "contact" else ""

    def _widen(self) -> None:
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
                    states.save_entity(
                        TENANT, "r1", entity, replace(found.entities[entity], push_due=later, push_run="")
                    )
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

    # --- the course of things ------------------------------------------------------------------------------------

    def run(self, steps: int = STEPS) -> Verdict:
        try:
            self._course(steps)
        finally:
            self.scheduler.close()
        return Verdict(
            self.violations(), self.scheduler.turns, self.scheduler.now / 60e6,
            dict(sorted(self.faults.struck.items())), self.watch.writes, self.history.lines(),
        )  # fmt: skip

    def violations(self) -> list[str]:
        return [*self.watch.violations, *self.host.raised]

    def _course(self, steps: int) -> None:
        self.history.note("", "{}", self.shape)
        self.scheduler.later(0, self.host.tick)
        for number in range(2):
            self.history.note("", "==== trouble {}", number + 1)
            self._trouble(steps // 2, widens=self.shape.widens and number == 1)
            if self.violations():
                return
            self.history.note("", "==== quiet {}", number + 1)
            self._quiet()
            if self.violations():
                return

    def _trouble(self, steps: int, *, widens: bool) -> None:
        self.faults.on = True
        for server in self.servers.values():
            server.rejects = self.shape.bad > 0

        def act() -> None:
            for number in range(steps):
                self.scheduler.switch(self._chance.choice(self.shape.hurry) * self._chance.random() * 2)
                if widens and number == steps // 2:
                    self._widen()
                self.people.act()

        work = Work("people", spared=True)
        people = self.scheduler.spawn("people", Owner("people"), act, work)
        if not self.scheduler.run(lambda: people.done or bool(self.violations()), 3600 * 24):
            self.watch.broken("the people can't go on")
        if people.error is not None:
            raise people.error
        self.faults.on = False

    def _quiet(self) -> None:
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
            if not self.scheduler.call("person", self.people.decide_all):
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
                    starting.start(
                        engine, replace(opened, connection=connection), wanted, "full", "key:person"
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
