"""Which calls fail, and how: drawn from the seed, in a profile of its own for each seed."""

import random
from collections.abc import Callable
from dataclasses import dataclass

from simulation.history import History
from simulation.scheduler import Crash, Scheduler, Task, Work


@dataclass(frozen=True)
class Rates:
    """How often each thing happens to a call. `stall`: that one greenlet pauses; `hand`: that it does with an answer
    in its hands, which is old when it goes on.
    """

    crash: float
    lost: float
    unanswered: float
    repeated: float
    refused: float
    broken: float
    stall: float
    hand: float
    lease: float
    duplicate: float
    late: float = 0.0
    """A request lands after its caller took it for dead."""
    bare: float = 0.0
    """An answer to a write that shows no record."""

    @classmethod
    def drawn(cls, chance: random.Random, lease: float) -> "Rates":
        """Some seeds have few faults, some many, some slow workers that get in each other's way: one mix would hide
        what others show.
        """
        slow = chance.random() < 0.4
        scale = 0.2 if slow else chance.choice((0.5, 2.0, 5.0))
        pauses = chance.choice((0.5, 2.0, 6.0))
        return cls(
            crash=0.004 * scale,
            lost=0.004 * scale,
            unanswered=0.006 * scale,
            repeated=0.004 * scale,
            refused=0.010 * scale,
            broken=0.002 * scale,
            stall=0.004 * pauses,
            hand=0.5 if slow else chance.choice((0.02, 0.1)),
            lease=lease,
            duplicate=0.5 if slow else 0.08,
        )


TABLE = ("crash", "lost", "unanswered", "repeated")
READ = ("crash", "lost", "unanswered")
REMOTE = ("crash", "lost", "unanswered", "refused", "broken")


class Faults:
    """Off until `on`: a quiet hub has to finish its work."""

    def __init__(self, scheduler: Scheduler, history: History, rates: Rates) -> None:
        self.on = False
        self.rates = rates
        self.struck: dict[str, int] = {}
        self.meanwhile: Callable[[Work, float], None] = lambda _work, _seconds: None
        """What others do while somebody pauses for so many seconds."""
        self.chance = scheduler.chance("faults")
        self._scheduler = scheduler
        self._history = history
        self._pace = scheduler.chance("pace")

    def fate(self, task: Task, what: str, kinds: tuple[str, ...]) -> str:
        """What befalls a call, "" for nothing. Notes it with the work that it strikes."""
        fate = self._fate(kinds) if self.on and not task.work.spared else ""
        if fate:
            self.struck[fate] = self.struck.get(fate, 0) + 1
            task.work.faults.append(f"{fate} {what}")
            self._history.note(task.name, "!! {} of {}", fate, what)
        return fate

    def _fate(self, kinds: tuple[str, ...]) -> str:
        drawn = self.chance.random()
        for kind in kinds:
            drawn -= getattr(self.rates, kind)
            if drawn < 0:
                return self.chance.choice(("crash before", "crash after")) if kind == "crash" else kind
        return ""

    def strikes(self) -> int:
        """Calls that something befell; pauses aside."""
        return sum(count for kind, count in self.struck.items() if kind != "stall")

    def crash(self) -> None:
        """The end of the process that the current task belongs to."""
        self._scheduler.kill(self._scheduler.current.owner)
        raise Crash

    def pause(self, usual: float, *, hand: bool = False, brief: bool = False) -> None:
        """The switch at a call: about `usual` seconds, now and then so long that a lease ends meanwhile.

        `hand`: what was just read is in use; mostly the pause is then so short that the lease is not looked at again.
        `brief`: it does not outlast the lease. Between the last look at the lease and the write of a record that is
        first seen nothing protects: no row is there whose ETag could have moved.
        """
        task = self._scheduler.current
        seconds = usual * self._pace.random() * 2
        if self.on and (stalled := self._stalled(hand=hand, brief=brief, spared=task.work.spared)):
            seconds = stalled
            self.struck["stall"] = self.struck.get("stall", 0) + 1
            self._history.note(task.name, ".. paused for {} s", f"{seconds:.1f}")
            self.meanwhile(task.work, seconds)
        self._scheduler.switch(seconds)

    def _stalled(self, *, hand: bool, brief: bool, spared: bool) -> float:
        """How many seconds this call pauses, 0 for no longer than usual."""
        pace = self._pace
        if pace.random() >= (self.rates.hand if hand else self.rates.stall) or spared:
            return 0.0
        within = pace.random() < (0.9 if hand else 0.4) or brief
        longest = self.rates.lease / 3 if within else self.rates.lease + 150
        return longest * (0.5 + 0.5 * pace.random() if hand else pace.random())
