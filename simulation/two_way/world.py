"""One simulation by a seed: trouble, in which people act by chance and calls fail, then quiet, then the verdict."""

from dataclasses import replace
from typing import Any

from simulation.faults import Faults
from simulation.scheduler import Owner, Scheduler, Work
from simulation.two_way.people import People
from simulation.two_way.setting import Setting, Verdict
from simulation.two_way.shape import Shape

STEPS = 40


class World(Setting):
    """One simulation, for one seed. `shape`: changes what the seed drew. `unmarked`: the other profile, of systems that
    can't tell what a create has made.
    """

    def __init__(
        self, seed: int, *, shape: dict[str, Any] | None = None, unmarked: bool = False, **history: Any
    ) -> None:
        scheduler = Scheduler(seed)
        drawn = Shape.drawn(scheduler)
        drawn = drawn.without_marks(scheduler) if unmarked else drawn
        super().__init__(scheduler, replace(drawn, **(shape or {})), **history)
        self.people = People(self)
        self._chance = scheduler.chance("course")
        self._meantime = scheduler.chance("meanwhile")
        self.faults.meanwhile = self._meanwhile

    def _faults(self) -> Faults:
        return Faults(self.scheduler, self.history, self.shape.rates)

    def decides(self) -> bool:
        return self.people.chance.random() < 0.5

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

    def _course(self, steps: int) -> None:
        self.history.note("", "{}", self.shape)
        self.scheduler.later(0, self.host.tick)
        for number in range(2):
            self.history.note("", "==== trouble {}", number + 1)
            self._trouble(steps // 2, widens=self.shape.widens and number == 1)
            if self.violations():
                return
            self.history.note("", "==== quiet {}", number + 1)
            self.come_to_rest()
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
                    self.widen()
                self.people.act()

        work = Work("people", spared=True)
        people = self.scheduler.spawn("people", Owner("people"), act, work)
        if not self.scheduler.run(lambda: people.done or bool(self.violations()), 3600 * 24):
            self.watch.broken("the people can't go on")
        if people.error is not None:
            raise people.error
        self.faults.on = False
