"""One thread, many greenlets, a virtual clock: the seed chooses who runs next, and time moves only here."""

import heapq
import random
import uuid
from base64 import urlsafe_b64encode
from collections.abc import Callable, Sequence
from contextvars import Context, copy_context
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Generic, TypeVar

from greenlet import getcurrent, greenlet

T = TypeVar("T")
R = TypeVar("R")

START = datetime(2026, 3, 2, 8, 0, tzinfo=UTC)
SECOND = 1_000_000
"""Time is counted in whole microseconds, so that it does not depend on how it was added up."""
STEP = 500
"""What one turn of a greenlet takes."""


class Crash(BaseException):
    """The process of this worker has ended: nothing in the code under test may catch it."""


class Stuck(Exception):
    """Nothing can run any more, though somebody is waited for."""


@dataclass(eq=False)
class Owner:
    """Whose work a task is: a process that can die. `faults`: what struck the work, for the rule of dead letters."""

    name: str
    dead: bool = False


@dataclass(eq=False)
class Work:
    """One invocation with everything it started; `seen`: the ETags it knows, `faults`: what struck it."""

    name: str
    spared: bool = False
    """No fault strikes it, because nobody would come after it."""
    faults: list[str] = field(default_factory=list)
    seen: dict[tuple[str, str, str], str] = field(default_factory=dict)
    holds: list[bytes] = field(default_factory=list)
    """The remote rows of the last answer that it got."""


@dataclass(eq=False)
class Task:
    """A greenlet and what came of it."""

    name: str
    owner: Owner
    work: Work
    run: greenlet | None = None
    done: bool = False
    value: Any = None
    error: BaseException | None = None
    waiters: list["Task"] = field(default_factory=list)

    def result(self) -> Any:
        if self.error is not None:
            raise self.error
        return self.value


class Scheduler:
    """`poll` is called before each turn and gives the time of the next outside event, if there is one."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.now = 0
        self.turns = 0
        self.tasks: dict[int, Task] = {}
        self.poll: Callable[[], int | None] = lambda: None
        self._choice = self.chance("schedule")
        self._ready: list[Task] = []
        self._timers: list[tuple[int, int, Callable[[], None]]] = []
        self._number = 0
        self._killed: list[Owner] = []
        self._loop = getcurrent()

    def chance(self, name: str) -> random.Random:
        """A stream of random numbers of its own, so that one more draw elsewhere does not move it."""
        return random.Random(f"{self.seed} {name}")  # noqa: S311  # reproducible on purpose

    def reseed(self, name: str) -> None:
        """From here on another order of turns."""
        self._choice = self.chance(name)

    @property
    def time(self) -> datetime:
        return START + timedelta(microseconds=self.now)

    # --- tasks ---------------------------------------------------------------------------------------------------

    @property
    def current(self) -> Task:
        task: Task = getcurrent().task
        return task

    def spawn(self, name: str, owner: Owner, call: Callable[[], Any], work: Work | None = None) -> Task:
        """Starts a task beside the caller, in a copy of its context."""
        self._number += 1
        number = self._number
        task = Task(name, owner, work or Work(name))

        def body() -> None:
            try:
                self.live()
                task.value = call()
            except BaseException as error:  # noqa: BLE001  # raised again where its result is taken
                task.error = error
            task.done = True
            del self.tasks[number]
            self._ready.extend(task.waiters)

        task.run = greenlet(body, self._loop)
        task.run.task = task
        task.run.gr_context = copy_context() if getcurrent() is not self._loop else Context()
        self.tasks[number] = task
        self._ready.append(task)
        return task

    def later(self, seconds: float, call: Callable[[], None]) -> None:
        self.at(self.now + int(seconds * SECOND), call)

    def at(self, when: int, call: Callable[[], None]) -> None:
        self._number += 1
        heapq.heappush(self._timers, (when, self._number, call))

    def kill(self, owner: Owner) -> None:
        """Ends a process: each of its tasks, wherever it stands, before anybody else runs."""
        owner.dead = True
        self._killed.append(owner)

    # --- what tasks call -----------------------------------------------------------------------------------------

    def switch(self, seconds: float = 0.0) -> None:
        """Lets others run, for at least so long. Raises Crash if the task's process has died."""
        self.live()
        task = self.current
        if seconds > 0:
            self.later(seconds, lambda: self._ready.append(task))
        else:
            self._ready.append(task)
        self._away()

    def live(self) -> None:
        """A dead process makes no further call, not even on its way out."""
        if self.current.owner.dead:
            raise Crash

    def wait(self, task: Task) -> None:
        while not task.done:
            task.waiters.append(self.current)
            self._away()

    def park(self, line: list[Task]) -> None:
        """Waits in a line until somebody calls `wake` for it."""
        line.append(self.current)
        self._away()

    def wake(self, line: list[Task]) -> None:
        self._ready.extend(line)
        line.clear()

    def _away(self) -> None:
        self.live()
        self._loop.switch()
        self.live()

    # --- the loop ------------------------------------------------------------------------------------------------

    def run(self, until: Callable[[], bool], seconds: float) -> bool:
        """Runs tasks until the condition holds; False if it does not after so much virtual time."""
        deadline = self.now + int(seconds * SECOND)
        while True:
            self._bury()
            if until():
                return True
            event = self.poll()
            if not self._ready:
                if not self._advance(event, deadline):
                    return False
                continue
            self.turns += 1
            self.now += STEP
            self._fire()
            index = self._choice.randrange(len(self._ready))
            self._ready[index], self._ready[-1] = self._ready[-1], self._ready[index]
            task = self._ready.pop()
            if not task.done:
                assert task.run is not None
                task.run.switch()

    def call(self, name: str, call: Callable[[], R]) -> R:
        """Runs one task of the outside world to its end."""
        task = self.spawn(name, Owner(name), call, Work(name, spared=True))
        if not self.run(lambda: task.done, 3600):
            raise Stuck(name)
        result: R = task.result()
        return result

    def _advance(self, event: int | None, deadline: int) -> bool:
        """Jumps to the next timer or outside event."""
        times = [when for when in (self._timers[0][0] if self._timers else None, event) if when is not None]
        if not times or min(times) > deadline:
            return False
        self.now = max(self.now, min(times))
        self._fire()
        return True

    def _fire(self) -> None:
        while self._timers and self._timers[0][0] <= self.now:
            heapq.heappop(self._timers)[2]()

    def _bury(self) -> None:
        while self._killed:
            owner = self._killed.pop()
            for task in [each for each in self.tasks.values() if each.owner is owner]:
                if task.run:  # true once it has begun
                    task.run.throw(Crash)
                else:
                    task.error = Crash()
                    self._ready.extend(task.waiters)
                task.done = True
            self.tasks = {number: task for number, task in self.tasks.items() if not task.done}

    def close(self) -> None:
        """Ends every task, so that none is left to the garbage collector."""
        for owner in {id(task.owner): task.owner for task in self.tasks.values()}.values():
            self.kill(owner)
        self._bury()


class Lock:
    """Stands for threading.Lock where a port is called inside: whoever waits lets others run."""

    def __init__(self, scheduler: Scheduler) -> None:
        self._scheduler = scheduler
        self._held = False
        self._line: list[Task] = []

    def __enter__(self) -> bool:
        while self._held:
            self._scheduler.park(self._line)
        self._held = True
        return True

    def __exit__(self, *_: object) -> None:
        self._held = False
        self._scheduler.wake(self._line)


# --- ports -----------------------------------------------------------------------------------------------------------


class SimClock:
    """`Clock` of one machine, `skew` seconds ahead of the others."""

    def __init__(self, scheduler: Scheduler, skew: float = 0.0) -> None:
        self._scheduler = scheduler
        self._skew = timedelta(seconds=skew)

    def now(self) -> datetime:
        return self._scheduler.time + self._skew

    def monotonic(self) -> float:
        return self._scheduler.now / SECOND

    def sleep(self, seconds: float) -> None:
        self._scheduler.switch(seconds)


class SimIds:
    """`Ids` by the seed."""

    def __init__(self, chance: random.Random) -> None:
        self._chance = chance

    def uuid(self) -> str:
        return str(uuid.UUID(int=self._chance.getrandbits(128), version=4))

    def token(self, size: int) -> str:
        return urlsafe_b64encode(self._chance.randbytes(size)).rstrip(b"=").decode()

    def fraction(self) -> float:
        return self._chance.random()


class SimPool:
    """`Pool` of greenlets: as many at a time as the real one has threads for a call."""

    def __init__(self, scheduler: Scheduler) -> None:
        self._scheduler = scheduler

    def map(self, call: Callable[[T], R], items: Sequence[T], width: int = 4) -> list[R]:
        if len(items) < 2 or width < 2:
            return [call(item) for item in items]
        todo = iter(range(len(items)))
        results: dict[int, R] = {}
        failures: list[BaseException] = []

        def work() -> None:
            for index in todo:
                if failures:
                    return
                try:
                    results[index] = call(items[index])
                except BaseException as error:  # noqa: BLE001  # raised again in the caller's greenlet
                    failures.append(error)

        helpers = [self._spawn(work) for _ in range(min(width, len(items)) - 1)]
        work()
        for helper in helpers:
            self._scheduler.wait(helper)
        if failures:
            raise failures[0]
        return [results[index] for index in range(len(items))]

    def prefetch(self, call: Callable[[], R]) -> "SimFuture[R]":
        return SimFuture(self._scheduler, self._spawn(call))

    def _spawn(self, call: Callable[[], Any]) -> Task:
        me = self._scheduler.current
        return self._scheduler.spawn(f"{me.name}'", me.owner, call, me.work)


class SimFuture(Generic[R]):
    def __init__(self, scheduler: Scheduler, task: Task) -> None:
        self._scheduler = scheduler
        self._task = task

    def result(self) -> R:
        self._scheduler.wait(self._task)
        value: R = self._task.result()
        return value
