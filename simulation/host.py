"""The Functions host of the simulation: instances with the real functions, messages, poison, the minute's tick."""

import functools
import json
import random
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import azure.functions as func

import crm_core.hub
from crm_core.errors import StoreUnavailable
from crm_core.functions import endpoint, triggers
from crm_core.functions.app import build
from crm_core.hub import Hub
from crm_core.protocols import auth
from crm_core.storage import layout
from crm_core.storage.memory import MemoryQueue, Message
from simulation.faults import Faults
from simulation.history import History
from simulation.scheduler import SECOND, START, Crash, Lock, Owner, Scheduler, Work

MINUTE = 60 * SECOND
LANES = (*layout.QUEUES, *(f"{lane}-poison" for lane in layout.QUEUES))
MAX_DELIVERIES = 5
RETRY_SECONDS = 30.0
"""host.json: maxDequeueCount and visibilityTimeout."""
FOR_EVER = 1e6
AT_A_TIME = 3
"""Messages of one lane that an instance works on."""


@dataclass(eq=False)
class Instance(Owner):
    """One process: its hub with its caches, and its own bulk slots."""

    hub: Hub = field(init=False)
    slots: threading.BoundedSemaphore = field(
        default_factory=lambda: threading.BoundedSemaphore(triggers.BULK_SLICES)
    )
    busy: dict[str, int] = field(default_factory=lambda: dict.fromkeys(LANES, 0))
    holding: list[tuple[str, Message, Work]] = field(default_factory=list)
    """The messages that it works on: their invisibility is renewed while it lives."""
    mourned: bool = False
    """Its successor is on the way."""


class Envelope:
    """A queue message as the worker library hands it to a function."""

    def __init__(self, message: Message) -> None:
        self.id = str(message.id)
        self.dequeue_count = message.dequeue_count
        self._body = message.body.encode()

    def get_body(self) -> bytes:
        return self._body


@dataclass
class Reply:
    """What a caller got; status 0: no answer, because the instance died."""

    status: int
    body: Any = None
    headers: Mapping[str, str] = field(default_factory=dict)


@functools.cache
def functions() -> dict[str, Callable[..., Any]]:
    """The app's real functions by name, indexed as the host indexes them."""
    return {each.get_function_name(): each.get_user_function() for each in build().get_functions()}


class Host:
    """`make`: gives a new instance's hub. `invisible`: seconds until a message of a dead worker comes again."""

    def __init__(
        self,
        scheduler: Scheduler,
        history: History,
        faults: Faults,
        queue: MemoryQueue,
        make: Callable[[Instance], Hub],
        *,
        instances: int,
        invisible: float,
    ) -> None:
        self.scheduler = scheduler
        self.history = history
        self.faults = faults
        self.queue = queue
        self.raised: list[str] = []
        """Errors that left a function though no fault had struck its work."""
        self.poison: list[tuple[str, list[str]]] = []
        """(body, what struck each of its deliveries) of messages that became poison."""
        self.most = 0
        """Messages that there were at one time."""
        self.repeats = 0
        """Deliveries of a message that somebody else had in hand."""
        self._make = make
        self._invisible = invisible
        self._chance: random.Random = scheduler.chance("host")
        self._struck: dict[tuple[str, int], list[str]] = {}
        self._serial = 0
        self.instances = [self._start(f"w{number + 1}") for number in range(instances)]

    # --- processes -----------------------------------------------------------------------------------------------

    def _start(self, name: str) -> Instance:
        instance = Instance(name)
        instance.hub = self._make(instance)
        return instance

    def replace_dead(self) -> None:
        """A new process takes the place of a dead one after a while."""
        for number, instance in enumerate(self.instances):
            if instance.dead and not instance.mourned:
                instance.mourned = True
                self.history.note(instance.name, "-- its process has ended")
                for lane, message, _ in instance.holding:
                    self._struck[lane, message.id].append("its process ended")
                    self.queue.release(lane, message, self._invisible)
                self.scheduler.later(
                    self._chance.uniform(1, 30), functools.partial(self._begin_again, number)
                )

    def _begin_again(self, number: int) -> None:
        name = self.instances[number].name
        self.instances[number] = self._start(name)
        self.history.note(name, "-- a new process starts")

    def _free(self, lane: str) -> list[Instance]:
        return [each for each in self.instances if not each.dead and each.busy[lane] < AT_A_TIME]

    # --- queues --------------------------------------------------------------------------------------------------

    def poll(self) -> int | None:
        """Hands out what is visible; gives when the next message will be."""
        self.replace_dead()
        times: list[int] = []
        sizes = {lane: size for lane in LANES if (size := self.queue.size(lane))}
        self.most = max(self.most, sum(sizes.values()))
        for lane in sizes:
            visible = self.queue.next_visible(lane)
            while visible is not None and visible <= self.scheduler.time and (free := self._free(lane)):
                self.deliver(lane, self._chance.choice(free))
                visible = self.queue.next_visible(lane)
            if visible is not None:
                times.append(max(self._micros(visible), self.scheduler.now + SECOND // 10))
        return min(times, default=None)

    def _micros(self, moment: Any) -> int:
        return round((moment - START).total_seconds() * SECOND)

    def deliver(self, lane: str, instance: Instance) -> None:
        """Hands the first visible message to an instance."""
        (message,) = self.queue.receive(lane, invisible=FOR_EVER)
        self._struck.setdefault((lane, message.id), [])
        if message.dequeue_count > MAX_DELIVERIES:
            self._to_poison(lane, message)
            return
        work = self._hand_out(lane, message, instance)
        if self.faults.on and self._chance.random() < self.faults.rates.duplicate:
            self.scheduler.later(self._chance.choice((0, 1, 5)), lambda: self.again(work))

    def again(self, work: Work) -> None:
        """Delivers the message that a work has in hand once more, as a queue may at any time."""
        held = [(place, each) for each in self.instances for place in each.holding if place[2] is work]
        for (lane, message, _), instance in held:
            free = self._free(lane)
            if free and not instance.dead:
                self._hand_out(lane, message, self._chance.choice(free), again=True)

    def _hand_out(self, lane: str, message: Message, instance: Instance, *, again: bool = False) -> Work:
        self._serial += 1
        name = f"{instance.name} {lane}#{self._serial}"
        repeated = " (once more)" if again else ""
        self.history.note(name, "<- {}, delivery {}{}", _job(message.body), message.dequeue_count, repeated)
        # Poison of poison would be lost: nobody handles it, at the real host neither.
        work = Work(name, spared=lane.endswith("-poison") and message.dequeue_count >= MAX_DELIVERIES - 1)
        instance.busy[lane] += 1
        self.repeats += again
        if not again:
            instance.holding.append((lane, message, work))
        call = functools.partial(self._invoke, lane, message, instance, work)
        self.scheduler.spawn(name, instance, call, work)
        return work

    def _invoke(self, lane: str, message: Message, instance: Instance, work: Work) -> None:
        try:
            self.work(instance, lane, message)
        except Exception as error:  # noqa: BLE001  # what the host catches
            self._failed(work, error)
            self._struck[lane, message.id].append(", ".join(work.faults))
            if message.dequeue_count >= MAX_DELIVERIES:
                self._to_poison(lane, message)
            else:
                self.queue.release(lane, message, RETRY_SECONDS)
        else:
            self.history.note(work.name, "-> done")
            self.queue.delete(lane, message)
        finally:
            instance.busy[lane] -= 1
            if not instance.dead:
                instance.holding = [each for each in instance.holding if each[2] is not work]

    def _failed(self, work: Work, error: Exception) -> None:
        if isinstance(error, triggers.Failed) and isinstance(error.__context__, Exception):
            error = error.__context__  # the bug itself, which the host never sees
        self.history.note(work.name, "-> raised {}: {}", type(error).__name__, error)
        if not work.faults:
            self.raised.append(f"{work.name}: {type(error).__name__}: {error}")
        elif not isinstance(error, StoreUnavailable):
            self.history.note(work.name, "?? not the fault's own error")

    def _to_poison(self, lane: str, message: Message) -> None:
        if self.queue.delete(lane, message):
            self.history.note("host", "-- poison: {}", _job(message.body))
            self.poison.append((message.body, list(self._struck[lane, message.id])))
            self.queue.send(f"{lane}-poison", message.body)

    # --- time and callers ----------------------------------------------------------------------------------------

    def tick(self) -> None:
        """The timer function, on one instance each minute, until the end of the simulation."""
        self.scheduler.at(self.scheduler.now // MINUTE * MINUTE + MINUTE, self.tick)
        alive = [each for each in self.instances if not each.dead]
        if alive:
            self.sweep(self._chance.choice(alive))

    def sweep(self, instance: Instance) -> None:
        """The timer function, once."""
        work = Work(f"{instance.name} tick")
        self.scheduler.spawn(work.name, instance, lambda: self._tick(work, instance), work)

    def work(self, instance: Instance, lane: str, message: Message) -> None:  # noqa: ARG002  # for subclasses
        """What a process does with a message."""
        functions()[lane.replace("-", "_")](Envelope(message))

    def minute(self, instance: Instance) -> None:  # noqa: ARG002  # for subclasses
        functions()["tick"](None)

    def _tick(self, work: Work, instance: Instance) -> None:
        try:
            self.minute(instance)
        except Exception as error:  # noqa: BLE001  # what the host catches
            self._failed(work, error)

    def request(self, name: str, request: func.HttpRequest, *, spared: bool = False) -> Reply:
        """One HTTP request to an instance; called by a task of the outside world."""
        alive = [each for each in self.instances if not each.dead]
        if not alive:
            return Reply(0)
        instance = self._chance.choice(alive)
        work = Work(f"{instance.name} {name}", spared=spared)
        task = self.scheduler.spawn(work.name, instance, lambda: endpoint.respond(request), work)
        self.scheduler.wait(task)
        if isinstance(task.error, Crash) or task.value is None:
            return Reply(0)
        answer: func.HttpResponse = task.value
        body = answer.get_body()
        if answer.status_code == 500:
            self.raised.append(f"{work.name}: 500 {body!r}")
        return Reply(answer.status_code, json.loads(body) if body else None, dict(answer.headers))


def _job(body: str) -> str:
    try:
        data = json.loads(body)
    except ValueError:
        return "no job"
    run = f" of run {data['run']}" if data.get("run") else ""
    attempt = f", attempt {data['attempt']}" if data.get("attempt") else ""
    return f"{data.get('job')} {data.get('entity', '')}{run}{attempt}"


class _Slots:
    """The bulk slots of the instance that asks: each process has its own."""

    def __init__(self, scheduler: Scheduler) -> None:
        self._scheduler = scheduler

    def acquire(self, *, blocking: bool) -> bool:
        return _instance(self._scheduler).slots.acquire(blocking=blocking)

    def release(self) -> None:
        _instance(self._scheduler).slots.release()


def _instance(scheduler: Scheduler) -> Instance:
    owner = scheduler.current.owner
    assert isinstance(owner, Instance)
    return owner


@contextmanager
def in_this_process(scheduler: Scheduler) -> Iterator[None]:
    """What a process has once, each instance has once: its hub and bulk slots. Locks that are held over a call let
    others run, where a real one would stop the only thread.
    """
    locks = SimpleNamespace(Lock=lambda: Lock(scheduler))
    places: list[tuple[Any, str, Any]] = [
        (endpoint, "the_hub", lambda: _instance(scheduler).hub),
        (triggers, "the_hub", lambda: _instance(scheduler).hub),
        (triggers, "_bulk_slots", _Slots(scheduler)),
        (crm_core.hub, "threading", locks),
        (auth, "threading", locks),
    ]
    before = [getattr(place, name) for place, name, _ in places]
    for place, name, value in places:
        setattr(place, name, value)
    try:
        yield
    finally:
        for (place, name, _), value in zip(places, before, strict=True):
            setattr(place, name, value)
