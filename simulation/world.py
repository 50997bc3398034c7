"""The whole: hub instances over one store, the sandbox, people and a caller; rounds of trouble, then of quiet."""

from dataclasses import dataclass, field
from typing import Any

from crm_core.hub import Hub
from crm_core.model.connection import DEFAULT_TENANT
from crm_core.settings import load
from crm_core.storage.memory import MemoryBlob, MemoryQueue, MemoryTable
from sandbox.app import App
from sandbox.dynamics365 import Dataverse
from sandbox.dynamics365.org import Identity
from sandbox.store import Clock
from simulation.checks import ATTENTION, Checks
from simulation.faults import Faults, Rates
from simulation.history import History
from simulation.host import Host, Instance, in_this_process
from simulation.people import KEY, SECRET, TABLE, Caller, People, tolerated
from simulation.ports import Seam, SimBlob, SimQueue, SimTable, SimTransport
from simulation.scheduler import Owner, Scheduler, SimClock, SimIds, SimPool, Work
from simulation.watch import Watch

BASE, AUTHORITY = "https://simulation.crm.dynamics.com", "https://login.microsoftonline.com"
SETTLE_SECONDS = 3 * 3600
"""All work is done within this time after the last fault: backoff, leases and invisibility end long before."""
ROUNDS = 3
STEPS = 36


@dataclass(frozen=True)
class Shape:
    """What differs between seeds besides chance itself."""

    instances: int
    tracked: bool
    minutes: int
    invisible: float
    remote_skew: float
    token_seconds: int
    rows: int
    settings: dict[str, str]
    rates: Rates

    @classmethod
    def drawn(cls, scheduler: Scheduler) -> "Shape":
        chance = scheduler.chance("shape")
        lease = chance.choice((10.0, 30.0, 90.0))
        settings = {
            "BRAKE_DELETES": "1000000",  # people delete at random here, and nobody is there to approve
            "PAGE_RECORDS": str(chance.randint(2, 5)),
            "BATCH_RECORDS": str(chance.randint(2, 8)),
            "LEASE_SECONDS": str(lease),
            "FRESH_SLICE_SECONDS": str(chance.choice((0.2, 0.2, 2, 20))),
            "BULK_SLICE_SECONDS": str(chance.choice((0.5, 20, 240))),
        }
        return cls(
            instances=chance.randint(2, 3),
            tracked=chance.random() < 0.7,
            minutes=chance.choice((1, 1, 2)),
            invisible=chance.choice((60.0, 120.0, 600.0)),
            remote_skew=chance.uniform(-30, 30),
            token_seconds=chance.choice((700, 3599)),
            rows=chance.randint(4, 16),
            settings=settings,
            rates=Rates.drawn(chance, lease),
        )


@dataclass
class Verdict:
    """How a simulation ended: `violations` empty is good."""

    violations: list[str]
    turns: int
    minutes: float
    struck: dict[str, int]
    runs: int
    history: list[str] = field(repr=False, default_factory=list)

    @property
    def good(self) -> bool:
        return not self.violations


class World:
    """One simulation, for one seed."""

    def __init__(self, seed: int, **history: Any) -> None:
        self.scheduler = scheduler = Scheduler(seed)
        self.history = History(scheduler, **history)
        self.shape = shape = Shape.drawn(scheduler)
        self.faults = Faults(scheduler, self.history, shape.rates)
        self.watch = Watch(scheduler, self.history, self._remote_version)
        self.table, self.blob = MemoryTable(), MemoryBlob()
        self.queue = MemoryQueue(SimClock(scheduler))
        clock = Clock(lambda: scheduler.time.timestamp() + shape.remote_skew)
        options = {
            "tracking": {"account": shape.tracked, "contact": True},
            "token_seconds": shape.token_seconds,
        }
        self.remote = Dataverse(Identity(client_secret=SECRET), seed, clock, options)
        self.remote.origins({BASE, AUTHORITY})
        self._sandbox = App(self.remote)
        self._seam = Seam(scheduler, self.faults, self.history)
        self._machines = scheduler.chance("machines")
        self.host = Host(
            scheduler, self.history, self.faults, self.queue, self._hub,
            instances=shape.instances, invisible=shape.invisible,
        )  # fmt: skip
        self.people = People(scheduler, self.history, self.remote)
        self.caller = Caller(scheduler, self.history, self.host, self.remote)
        self.checks = Checks(self)
        scheduler.poll = self.host.poll
        self.faults.meanwhile = self._meanwhile
        self._troubled = scheduler.chance("trouble")
        self._meantime = scheduler.chance("meanwhile")

    def _remote_version(self, rid: str) -> str:
        row = self.remote.frame.store.get(TABLE, rid)
        return "" if row is None else str(row.version)

    def _hub(self, instance: Instance) -> Hub:
        """A process of its own over the common store: own caches, own clock, own ids."""
        environment = {
            "AzureWebJobsStorage": "UseDevelopmentStorage=true",
            "HUB_API_KEY": KEY,
            "INTEGRATION_ENCRYPTION_KEY": "0123456789abcdef" * 2,
            "PUBLIC_URL": "https://hub.example",
            "WEBSITE_INSTANCE_ID": instance.name,
            **self.shape.settings,
        }
        clock = SimClock(self.scheduler, self._machines.uniform(-5, 5))
        ids = SimIds(self.scheduler.chance(f"ids {self._machines.random()}"))
        hub = Hub(
            load(environment),
            clock=clock,
            ids=ids,
            pool=SimPool(self.scheduler),
            table=SimTable(self._seam, self.table, self.watch),  # type: ignore[arg-type]
            queue=SimQueue(self._seam, self.queue),
            blob=SimBlob(self._seam, self.blob),
        )
        hub.tools.transport.send = SimTransport(self._seam, self._sandbox).send  # type: ignore[method-assign]
        return hub

    # --- the course of things ------------------------------------------------------------------------------------

    def run(self, steps: int = STEPS) -> Verdict:
        with in_this_process(self.scheduler):
            try:
                self._course(steps)
            finally:
                self.scheduler.close()
        return Verdict(
            self.violations(),
            self.scheduler.turns,
            self.scheduler.now / 60e6,
            dict(sorted(self.faults.struck.items())),
            len(self.caller.promised),
            self.history.lines(),
        )

    def violations(self) -> list[str]:
        return [*self.watch.violations, *self.caller.wrong, *self.host.raised]

    def _course(self, steps: int) -> None:
        self.people.begin(self.shape.rows)
        self.scheduler.call("setup", self._connect)
        self.scheduler.later(0, self.host.tick)
        for number in range(ROUNDS):
            self.history.note("", "==== trouble {} of {}", number + 1, ROUNDS)
            self._trouble(steps // ROUNDS)
            if not self.violations():
                self.history.note("", "==== quiet {} of {}", number + 1, ROUNDS)
                self._quiet()
            if self.violations():
                return
        self.checks.further_round()

    def _connect(self) -> None:
        """The connection, made by a caller of the API."""
        identity = self.remote.org.identity
        body = {
            "slug": "demo",
            "connector": "dynamics365",
            "settings": {
                "base_url": BASE,
                "authority": AUTHORITY,
                "tenant_id": identity.tenant,
                "client_id": identity.client_id,
            },
            "secrets": {"client_secret": SECRET},
            "entities": {"account": "pull"},
            "schedule": {"minutes": self.shape.minutes},
        }
        reply = self.caller.call("POST", "/api/integrations", body, spared=True)
        assert reply.status == 201, reply.body
        (self.connection,) = self.host.instances[0].hub.connections.every(DEFAULT_TENANT)

    def _trouble(self, steps: int) -> None:
        self.faults.on = True
        work = Work("people", spared=True)
        people = self.scheduler.spawn("people", Owner("people"), lambda: self._act(steps), work)
        if not self.scheduler.run(lambda: people.done or bool(self.violations()), 3600 * 24):
            self.watch.broken("the people can't go on")
        if people.error is not None:
            raise people.error
        self.faults.on = False

    def _meanwhile(self, work: Work, seconds: float) -> None:
        """While somebody pauses, a person changes a row that it holds, and another worker gets its message."""
        chance = self._meantime

        def touched() -> None:
            if self.faults.on:
                tolerated(self.remote, lambda: self.people.meddle([rid.decode() for rid in work.holds]))

        def delivered() -> None:
            if self.faults.on:
                self.host.again(work)

        for likely, begin, happens in ((0.9, 0.0, touched), (0.8, 0.2, delivered)):
            if chance.random() < likely:
                self.scheduler.later(seconds * (begin + chance.random() * 0.2), happens)

    def _act(self, steps: int) -> None:
        chance = self._troubled
        callers = []
        for _ in range(steps):
            self.scheduler.switch(chance.choice((0.05, 1.0, 10.0, 60.0)) * chance.random() * 2)
            kind = chance.random()
            if kind < 0.55:
                tolerated(self.remote, self.people.act)
            elif kind < 0.97:
                callers.append(
                    self.scheduler.spawn("caller", Owner("caller"), self.caller.act, Work("caller"))
                )
            else:
                self.people.vendor()
        for caller in callers:
            self.scheduler.wait(caller)
            if caller.error is not None:
                raise caller.error

    def _quiet(self) -> None:
        """No faults any more: the hub itself finishes what was begun, and what people did arrives."""
        self.checks.begin_quiet()
        settled = self.scheduler.run(self._settled, SETTLE_SECONDS)
        if not settled and self.checks.unfinished() == ATTENTION:
            settled = self._mended() and self.scheduler.run(self._settled, SETTLE_SECONDS)
        if not settled:
            self.watch.broken(f"work is never done: {self.checks.unfinished()}")
            return
        if not self.violations():
            self.checks.at_rest()

    def _mended(self) -> bool:
        """Where the vendor made every token void a worker may have met two such in a row: a person tests again."""
        if not self.people.revoked:
            return False
        self.history.note("person", "** tests the connection that needs attention")
        reply = self.scheduler.call(
            "person", lambda: self.caller.call("POST", "/api/integrations/demo/test", spared=True)
        )
        return reply.status == 200

    def _settled(self) -> bool:
        return bool(self.violations()) or not self.checks.unfinished()
