"""The engine between remote systems of the simulation, for one sequence of steps that a test tells.

Nothing runs beside anything else: a test says at which call another worker, or a person, comes in between; whoever
made the call goes on after that. Tests take no fixture, so that one can be run with a fault planted.
"""

from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from typing import Any

from crm_core.errors import Unavailable
from crm_core.model.connection import DEFAULT_TENANT, Connection, EntitySync, Schedule
from crm_core.model.entities import ENTITIES
from crm_core.model.fields import hub_time
from crm_core.model.record import Record, open_items
from crm_core.model.state import EntityState
from crm_core.storage import layout
from crm_core.storage.deliveries import Deliveries
from crm_core.storage.due import Due
from crm_core.storage.events import Events
from crm_core.storage.held import Held
from crm_core.storage.hints import Hints
from crm_core.storage.journal import DeadLetters
from crm_core.storage.keys import Keys
from crm_core.storage.memory import MemoryBlob, MemoryQueue, MemoryTable
from crm_core.storage.records import HistoryEntry, Records
from crm_core.storage.run_log import RunLog
from crm_core.storage.state import RunStore, StateStore
from crm_core.sync import conflicts, jobs, resolving, schedule
from crm_core.sync.edit import Editor
from crm_core.sync.engine import Engine, Job, Opened, Tuning
from crm_core.sync.sides import Config, side_of
from simulation.scheduler import SECOND, Scheduler, SimClock, SimIds
from simulation.two_way.remotes import KINDS, Server, connector_class

TENANT = DEFAULT_TENANT
UNTIL = 251.0
"""After so many seconds an attempt is certainly dead."""
LONGEST_SETTLE = 40


class Died(BaseException):
    """The worker's process has ended: nothing in the engine may catch it."""


def _only(found: Collection[Any]) -> Any:
    assert len(found) == 1, found
    return next(iter(found))


def dies() -> None:
    raise Died


def unanswered() -> None:
    raise Unavailable("No answer in time.", timeout=True, outcome_unknown=True)


class Steady:
    """A server's chance, in the test's hands. `lag`: how much of its lag a list or an index has; `again`: whether a
    feed repeats what it has told.
    """

    lag = 0.0
    again = False

    def random(self) -> float:
        return self.lag

    def choice(self, options: Sequence[Any]) -> Any:
        return options[-1 if self.again else 0]

    def shuffle(self, items: list[Any]) -> None:
        """They stay as they are."""


class OneByOne:
    """`Pool` of one: everything in its order."""

    def map(self, call: Callable[[Any], Any], items: Sequence[Any], width: int = 4) -> list[Any]:
        return [call(item) for item in items]

    def prefetch(self, call: Callable[[], Any]) -> Any:
        value = call()
        return type("Done", (), {"result": lambda _: value})()


class Calls:
    """Every call of the store and of the remotes, as a text. What is to happen at one happens once, at the first whose
    text has all the words.
    """

    def __init__(self) -> None:
        self.texts: list[str] = []
        self._planned: list[tuple[str, tuple[str, ...], Callable[..., Any]]] = []

    def before(self, *words: str, happens: Callable[[], Any]) -> None:
        self._planned.append(("before", words, happens))

    def after(self, *words: str, happens: Callable[[], Any]) -> None:
        """Once it was carried out, before whoever made it goes on."""
        self._planned.append(("after", words, happens))

    def late(self, *words: str) -> Callable[[], None]:
        """The request gets no answer in time. Gives what lets it arrive after all."""
        kept: list[Callable[[], Any]] = []

        def happens(call: Callable[[], Any]) -> None:
            kept.append(call)
            unanswered()

        def arrives() -> None:
            kept.pop()()

        self._planned.append(("instead", words, happens))
        return arrives

    def repeated(self, *words: str) -> None:
        """The request is carried out, its answer is lost, and the connector sends it once more."""

        def happens(call: Callable[[], Any]) -> Any:
            call()
            return call()

        self._planned.append(("instead", words, happens))

    def bare(self, *words: str) -> None:
        """The request is carried out, and its answer shows no record."""

        def happens(call: Callable[[], Any]) -> Any:
            return replace(call(), fields=None, problem="no record in the answer")

        self._planned.append(("instead", words, happens))

    def carry_out(self, text: str, call: Callable[[], Any]) -> Any:
        self.texts.append(text)
        if (happens := self._taken("before", text)) is not None:
            happens()
        instead = self._taken("instead", text)
        answer = instead(call) if instead is not None else call()
        if (happens := self._taken("after", text)) is not None:
            happens()
        return answer

    def _taken(self, when: str, text: str) -> Callable[..., Any] | None:
        for planned in self._planned:
            if planned[0] == when and all(word in text for word in planned[1]):
                self._planned.remove(planned)
                return planned[2]
        return None

    def all_happened(self) -> bool:
        return not self._planned


class Table:
    """The store's table, each call told."""

    def __init__(self, table: MemoryTable, calls: Calls) -> None:
        self._table = table
        self._calls = calls

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._table, name)

        def call(table: str, *args: Any, **kwargs: Any) -> Any:
            return self._calls.carry_out(
                f"{name} {table} {args} {kwargs}", lambda: method(table, *args, **kwargs)
            )

        return call


class World:
    """`kinds`: of the remotes `r1`, `r2`, ..., by the letters of simulation/two_way/remotes.py. What each has was
    read once when a test begins: nothing.
    """

    def __init__(
        self,
        kinds: str = "aa",
        *,
        entities: Sequence[str] = ("contact",),
        match: str = "",
        policy: Any = "newest",
        page: int = 5000,
    ) -> None:
        self.calls = Calls()
        self.time = Scheduler(0)
        self.clock = SimClock(self.time)
        self.entity = entities[0]
        self.queue = MemoryQueue(self.clock)
        self.servers: dict[str, Server] = {}
        self.chances: dict[str, Steady] = {}
        self._kinds: dict[str, Any] = {}
        self._connections: dict[str, Connection] = {}
        table: Any = Table(MemoryTable(), self.calls)
        ids = SimIds(self.time.chance("ids"))
        pool = OneByOne()
        blob = MemoryBlob()
        self.engine = Engine(
            Records(table, pool), Keys(table), Held(table), Hints(table), Events(table, blob),
            Deliveries(table, blob), StateStore(table),
            RunStore(table), DeadLetters(table, self.clock, ids), RunLog(table, ids), Due(table), self.queue, blob, self.clock, ids, pool, self._open, self._sides,
            Tuning(sweep_buckets=16, page_records=page),
        )  # fmt: skip
        for number, letter in enumerate(kinds, 1):
            sync = {
                each: EntitySync(
                    "both", policy=policy, deletes="propagate", match=match if each == "contact" else ""
                )
                for each in entities
            }
            self._begin(f"r{number}", letter, sync)

    def _begin(self, uid: str, letter: str, sync: dict[str, EntitySync]) -> None:
        server = self.servers[uid] = Server(uid, KINDS[letter], self.time, 0.0)
        server.chance = self.chances[uid] = Steady()  # type: ignore[assignment]
        self._kinds[uid] = connector_class(letter)
        self._connections[uid] = Connection(TENANT, uid, uid, "sim", {}, sync, Schedule(minutes=1), "", "")
        self.engine.states.begin(TENANT, uid, {each: EntityState() for each in sync})
        for each in sync:
            self.pull(uid, each)

    def forget(self, uid: str) -> None:
        """The connection is deleted."""
        del self._connections[uid]
        self.engine.states.remove(TENANT, uid)

    def only_written(self, uid: str) -> None:
        """Nothing of it was ever read, nor will be."""
        self._direct(uid, "push")
        self.engine.states.remove(TENANT, uid)
        self.engine.states.begin(TENANT, uid, {self.entity: EntityState()})

    def pause(self, uid: str, *, paused: bool = True) -> None:
        self._connections[uid] = replace(self._connections[uid], paused=paused)

    def read_too(self, uid: str) -> None:
        """It is read from now on, as well as written."""
        self._direct(uid, "both")

    def _direct(self, uid: str, direction: Any) -> None:
        connection = self._connections[uid]
        sync = {name: replace(each, direction=direction) for name, each in connection.entities.items()}
        self._connections[uid] = replace(connection, entities=sync)

    def match(self, uid: str, name: str) -> None:
        """By which field the connection's contacts are matched from now on."""
        connection = self._connections[uid]
        sync = {each: replace(how, match=name) for each, how in connection.entities.items()}
        self._connections[uid] = replace(connection, entities=sync)

    def forget_first_load(self, uid: str) -> None:
        """As if what the remote has was never read to its end."""
        states = self.engine.states.read(TENANT, uid)
        assert states is not None
        unread = replace(states.entities[self.entity], last_success="")
        self.engine.states.save_entity(TENANT, uid, self.entity, unread)

    def _open(self, _: Any, uid: str) -> Opened | None:
        if uid not in self._connections:
            return None

        def wire(what: str, call: Callable[[], Any], writes: bool) -> Any:
            return self.calls.carry_out(what, call)

        return Opened(self._connections[uid], self._kinds[uid].opened(self.servers[uid], wire))

    def _sides(self, _: Any, entity: str) -> Config:
        sides = {
            uid: side_of(each, self._kinds[uid], ENTITIES[entity], self.engine.tuning.breaker)
            for uid, each in self._connections.items()
            if entity in each.entities
        }
        return Config(sides, self.clock.monotonic())

    # --- workers -------------------------------------------------------------------------------------------------

    def _do(self, kind: str, uid: str, entity: str) -> None:
        job = Job(kind, TENANT, uid, entity=entity or self.entity)
        jobs.handle(self.engine, layout.FRESH, job.to_message(), 1)

    def pull(self, uid: str, entity: str = "") -> None:
        """A pull of the schedule. What that wakes waits until somebody works."""
        entity = entity or self.entity
        states = self.engine.states.read(TENANT, uid)
        assert states is not None
        due = replace(states.entities[entity], due=hub_time(self.clock.now()))
        self.engine.states.save_entity(TENANT, uid, entity, due)
        self._do("pull", uid, entity)

    def push(self, uid: str, entity: str = "") -> None:
        self._do("push", uid, entity)

    def hint(self, uid: str, rid: str) -> None:
        """Somebody says that there is something to read."""
        self.engine.held.hold(TENANT, uid, self.entity, rid, hub_time(self.clock.now()))
        self.held(uid)

    def held(self, uid: str) -> None:
        """Looks at what is held."""
        self._do("held", uid, self.entity)

    def dies(self, work: Callable[[], Any]) -> None:
        """Lets a worker begin what it will not end."""
        try:
            work()
        except Died:
            return
        raise AssertionError("it did not die")

    def work(self) -> int:
        """Handles every message that is visible. Whoever dies takes its own along: the tick finds what is open."""
        for handled in range(500):
            lane = next((each for each in layout.QUEUES if self._handled(each)), None)
            if lane is None:
                return handled
        raise AssertionError("the lanes never become empty")

    def _handled(self, lane: str) -> bool:
        for message in self.queue.receive(lane, invisible=600):
            assert self.queue.delete(lane, message)
            jobs.handle(self.engine, lane, message.body, message.dequeue_count)
            return True
        return False

    def later(self, seconds: float) -> None:
        self.time.now += int(seconds * SECOND)

    def settle(self) -> None:
        """Pulls, pushes and ticks, minute after minute, until nothing moves and nothing is left to do."""
        assert self.calls.all_happened(), "the sequence did not take place"
        for _ in range(LONGEST_SETTLE):
            before = self._moved()
            self.work()
            for uid, connection in self._connections.items():
                for entity, sync in connection.entities.items():
                    if sync.pulls:
                        self.pull(uid, entity)
            schedule.tick(self.engine)
            self.work()
            if (
                before == self._moved()
                and not self.items("push")
                and not list(self.engine.held.every(TENANT))
            ):
                return
            self.later(60)
        raise AssertionError(f"it never settles: {self.items()}")

    def _moved(self) -> Any:
        numbers = [each.numbers for each in self.servers.values()]
        return numbers, [(each.id, each.version, each.links.keys()) for each in self.records()]

    # --- people --------------------------------------------------------------------------------------------------

    def add(self, uid: str, entity: str = "", **fields: Any) -> str:
        """A row made by a person; a second passes, so that the next change has another time."""
        entity = entity or self.entity
        named = {"last_name": "P"} if entity == "contact" else {}
        row = self.servers[uid].create(entity, {**named, **fields}, "person")
        self.later(1)
        return row.rid

    def change(self, uid: str, rid: str = "", entity: str = "", **fields: Any) -> None:
        self.servers[uid].update(entity or self.entity, rid or self.rid(uid), fields, "person")
        self.later(1)

    def remove(self, uid: str, rid: str = "", entity: str = "") -> None:
        self.servers[uid].delete(entity or self.entity, rid or self.rid(uid), "person")
        self.later(1)

    def decide(self, take: str) -> None:
        """What a person says to the first question about two records."""
        asked = next(each for record in self.records() for each in conflicts.of(record))
        resolving.resolve(self._editor(), asked, take)

    def edit(self, record_id: str = "", **fields: Any) -> None:
        """By an app, in the hub."""
        self._editor().update(record_id or self.record().id, fields)
        self.later(1)

    def _editor(self) -> Editor:
        return Editor(self.engine, TENANT, ENTITIES[self.entity], "key:test")

    # --- what there is -------------------------------------------------------------------------------------------

    def records(self, entity: str = "") -> list[Record]:
        return [
            each.content
            for bucket in layout.BUCKETS
            for each in self.engine.records.scan(TENANT, entity or self.entity, bucket)
            if isinstance(each.content, Record)
        ]

    def record(self, entity: str = "") -> Record:
        return _only(self.records(entity))

    def claims(self, uid: str) -> list[str]:
        """The records of which a create is open there."""
        return [each.record for each in self.engine.held.claims(TENANT, uid, self.entity)]

    def history(self, record: Record) -> list[HistoryEntry]:
        return list(self.engine.records.history(TENANT, record.entity, record.id))

    def replaced(self, name: str) -> list[Any]:
        """The values that the only record had in a field before the one it has now, the oldest first."""
        return [each.old[name] for each in self.history(self.record()) if name in each.old]

    def items(self, kind: str = "") -> set[tuple[str, str]]:
        """(kind, connection) of what is open."""
        return {
            item
            for entity in ENTITIES
            for each in self.records(entity)
            for item in open_items(each)
            if kind in ("", item[0])
        }

    def rows(self, uid: str, entity: str = "") -> dict[str, Any]:
        """The live rows of a remote, by id."""
        return {each.rid: each.now.fields for each in self.servers[uid].alive(entity or self.entity)}

    def rid(self, uid: str) -> str:
        return _only(self.rows(uid))

    def everywhere(self, name: str) -> list[list[Any]]:
        """A field's values, in the hub's living records and then at each remote, sorted."""
        hub = [each.fields.get(name) for each in self.records() if not each.dead]
        there = [[row.get(name) for row in self.rows(uid).values()] for uid in self.servers]
        return [sorted(values, key=str) for values in (hub, *there)]

    def sent(self, uid: str, *words: str) -> int:
        """How many writes to a remote had these words."""
        return sum(
            text.startswith((f"{uid} create", f"{uid} update", f"{uid} delete"))
            and all(word in text for word in words)
            for text in self.calls.texts
        )


def linked(kinds: str = "aa", **how: Any) -> World:
    """A world whose one contact, "P" with the phone "0" and the title "Old", is in both remotes."""
    world = World(kinds, **how)
    world.add("r1", phone="0", job_title="Old", email="p@example.com")
    world.pull("r1")
    world.work()
    world.settle()
    assert world.everywhere("phone") == [["0"]] * (len(kinds) + 1)
    world.later(60)
    return world
