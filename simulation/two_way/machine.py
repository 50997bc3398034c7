"""Sync in both directions as a state machine of Hypothesis, over the parts that the seeded simulation has too: people,
workers and faults one rule each, so that what fails shrinks to a short history.

`python -m simulation.two_way.machine --examples 5000`: many of them.
"""

import argparse
import logging
import random
import sys
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from hypothesis import HealthCheck, note, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from crm_core.errors import HubError
from crm_core.storage import layout
from crm_core.sync import starting
from simulation.faults import Faults
from simulation.host import Instance
from simulation.scheduler import Scheduler
from simulation.two_way.model import Thing
from simulation.two_way.process import TENANT
from simulation.two_way.servers import TAGS, ServerRow
from simulation.two_way.setting import Setting
from simulation.two_way.shape import Shape

FATES = ("crash before", "crash after", "lost", "unanswered", "refused", "repeated", "late", "bare", "stall")
ENTITY = "contact"
LINES = 120
"""Of the history that a failure shows."""

values = st.one_of(
    st.sampled_from(("new", "new X", "new Long")),
    st.integers(0, 2).map(lambda which: f"old {which}"),
    st.just("none"),
)
indices = st.integers(0, 3)
seconds = st.sampled_from((0.0, 0.05, 1.0, 20.0, 70.0, 200.0))


class Planned(Faults):
    """Each fault is planned: what befalls the n-th call from now on that it can befall."""

    def __init__(self, scheduler: Scheduler, *about: Any) -> None:
        super().__init__(scheduler, *about)
        self.plans: list[tuple[str, int]] = []

    def _next(self, fits: Callable[[str], bool]) -> str:
        found = ""
        for number, (kind, left) in enumerate(self.plans):
            if fits(kind):
                self.plans[number] = (kind, left - 1)
                found = found or (kind if left == 0 else "")
        self.plans = [each for each in self.plans if each[1] >= 0]
        return found

    def _fate(self, kinds: tuple[str, ...]) -> str:
        return self._next(lambda kind: kind.split(" ")[0] in kinds)

    def _stalled(self, *, hand: bool, brief: bool, spared: bool) -> float:  # noqa: ARG002  # each pause counts
        if spared or not self._next(lambda kind: kind == "stall"):
            return 0.0
        return self.rates.lease / 3 if brief else self.rates.lease + 150


class Played(Setting):
    """The parts, where nothing is handed out before somebody says so."""

    faults: Planned

    def __init__(self, shape: Shape) -> None:
        super().__init__(Scheduler(1), shape)
        self._mine = random.Random(1)  # noqa: S311  # reproducible on purpose
        self.scheduler.poll = self._wait
        self.faults.on = True

    def _faults(self) -> Planned:
        return Planned(self.scheduler, self.history, self.shape.rates)

    def decides(self) -> bool:
        return self._mine.random() < 0.5

    def _wait(self) -> int | None:
        self.host.replace_dead()
        return None

    def pass_time(self, long: float) -> None:
        passed: list[bool] = []
        self.scheduler.later(long, lambda: passed.append(True))
        self.scheduler.run(lambda: bool(passed or self.violations()), long + 1)

    def rest(self) -> None:
        self.faults.on = False
        self.scheduler.poll = self.host.poll
        self.scheduler.later(0, self.host.tick)
        self.come_to_rest()


class Machine(RuleBasedStateMachine):
    world: Played
    _values = 0

    @initialize(
        kinds=st.lists(st.sampled_from("abcde"), min_size=2, max_size=3),
        directions=st.lists(st.sampled_from(("both", "pull", "push")), min_size=3, max_size=3),
        ways=st.lists(st.sampled_from(("both", "in", "out")), min_size=3, max_size=3),
        policy=st.sampled_from(("newest", "remote", "local", "manual", "skip")),
        deletes=st.sampled_from(("propagate", "mark", "ignore")),
        match=st.booleans(),
        late=st.sampled_from((0.0, 0.5)),
    )
    def begins(
        self, kinds: Any, directions: Any, ways: Any, policy: str, deletes: str, match: bool, late: float
    ) -> None:
        count = len(kinds)
        drawn = Shape.drawn(Scheduler(1))
        tuning = replace(
            drawn.tuning, fresh_slice_seconds=20, bulk_slice_seconds=240, lease_seconds=drawn.rates.lease,
            batch_records=4, page_records=3, push_records=4,
        )  # fmt: skip
        shape = replace(
            drawn, kinds=tuple(kinds), directions=("both", *directions[1:count]), ways=tuple(ways[:count]),
            policy=policy, deletes_policy=deletes, match=match or "d" in kinds, entities=(ENTITY,), instances=2,
            skews=(0.0, 20.0, -20.0)[:count], bad=0.0, widens=False, late_commits=late, tuning=tuning,
        )  # fmt: skip
        self.world = Played(shape)

    # --- people --------------------------------------------------------------------------------------------------

    def _place(self, which: int) -> str:
        connections = self.world.stores.connections
        read = [uid for uid, each in connections.items() if each.entities[ENTITY].pulls]
        return read[which % len(read)]

    def _row(self, place: str, which: int) -> ServerRow | None:
        alive = self.world.servers[place].alive(ENTITY)
        rows = [each for each in alive if each.now.fields and each.now.fields.get(TAGS[ENTITY])]
        return rows[which % len(rows)] if rows else None

    def _value(self, thing: Thing, name: str, kind: str) -> Any:
        what, _, which = kind.partition(" ")
        old = sorted({each.value for each in thing.of(name) if each.value is not None})
        if what == "old" and old:
            return old[int(which) % len(old)]
        if what == "none" and name != "last_name":
            return None
        self._values += 1
        return f"{self._values:04d}{which if what == 'new' else ''}"

    def _name(self, place: str, which: int) -> str:
        names = self.world.names(place, ENTITY)
        return names[which % len(names)]

    def _first(self, place: str, thing: Thing, which: int) -> dict[str, Any]:
        names = {"last_name": None, self._name(place, which): None}
        return {name: self._value(thing, name, "new") for name in names}

    def _act(self, call: Callable[[], None]) -> None:
        self.world.scheduler.call("person", call)

    @rule(place=indices, again=st.booleans(), which=indices)
    def creates(self, place: int, again: bool, which: int) -> None:
        world, where = self.world, self._place(place)
        known = [each for each in world.model.things.values() if where not in each.places]
        again = again and bool(known) and bool(world.match(ENTITY))
        thing = known[which % len(known)] if again else world.acts.begun(ENTITY)
        world.acts.create(where, thing, self._first(where, thing, which), again=again)

    @rule(place=indices, row=indices, name=indices, value=values)
    def edits(self, place: int, row: int, name: int, value: str) -> None:
        where = self._place(place)
        found = self._row(where, row)
        if found is not None:
            thing = self.world.acts.thing_of(ENTITY, found.now.fields or {})
            assert thing is not None
            field = self._name(where, name)
            self.world.acts.edit(where, ENTITY, found, {field: self._value(thing, field, value)})

    @rule(place=indices, row=indices)
    def deletes(self, place: int, row: int) -> None:
        where = self._place(place)
        found = self._row(where, row)
        if found is not None:
            self.world.acts.delete(where, ENTITY, found)

    @rule(place=indices, row=indices)
    def restores(self, place: int, row: int) -> None:
        where = self._place(place)
        gone = [each for each in self.world.servers[where].table(ENTITY).values() if each.now.fields is None]
        if gone:
            self.world.acts.restore(where, ENTITY, gone[row % len(gone)])

    @rule(which=indices)
    def app_creates(self, which: int) -> None:
        thing = self.world.acts.begun(ENTITY)
        self._act(lambda: self.world.acts.app_create(thing, self._first("hub", thing, which)))

    @rule(record=indices, name=indices, value=values)
    def app_edits(self, record: int, name: int, value: str) -> None:
        field = self._name("hub", name)
        if found := self._record(record):
            self._act(
                lambda: self.world.acts.app_edit(
                    ENTITY, found, lambda thing: (field, self._value(thing, field, value))
                )
            )

    @rule(record=indices)
    def app_deletes(self, record: int) -> None:
        if found := self._record(record):
            self._act(lambda: self.world.acts.app_delete(ENTITY, found))

    def _record(self, which: int) -> str:
        alive = [each.id for each in self.world.records(ENTITY) if not each.dead]
        return alive[which % len(alive)] if alive else ""

    @rule()
    def decides_conflicts(self) -> None:
        self._act(lambda: bool(self.world.acts.decide_all(self.world.decides)) and None)

    # --- workers -------------------------------------------------------------------------------------------------

    def _worker(self, which: int) -> Instance | None:
        instance = self.world.host.instances[which % len(self.world.host.instances)]
        return None if instance.dead else instance

    def _work(self, worker: int, lane: str) -> bool:
        world = self.world
        instance = self._worker(worker)
        visible = world.stores.queue.next_visible(lane)
        if instance is None or visible is None or visible > world.scheduler.time:
            return False
        world.host.deliver(lane, instance)
        return True

    @rule(worker=indices, lane=st.sampled_from(layout.QUEUES), then=seconds)
    def works(self, worker: int, lane: str, then: float) -> None:
        if self._work(worker, lane):
            self.world.pass_time(then)

    @rule(worker=indices, place=indices, mode=st.sampled_from(("incremental", "full")), then=seconds)
    def pulls(self, worker: int, place: int, mode: Any, then: float) -> None:
        engine, uid = self.world.outside.engine, self._place(place)

        def start() -> None:
            opened = engine.open(TENANT, uid)
            assert opened is not None
            try:
                starting.start(engine, opened, [ENTITY], starting.Asked(mode), "key:person")
            except HubError:
                return  # one is under way

        self._act(start)
        if self._work(worker, layout.FRESH):
            self.world.pass_time(then)

    @rule(worker=indices, then=seconds)
    def sweeps(self, worker: int, then: float) -> None:
        instance = self._worker(worker)
        if instance is not None:
            self.world.host.sweep(instance)
            self.world.pass_time(then)

    @rule(then=seconds, turns=st.integers(0, 5))
    def time_passes(self, then: float, turns: int) -> None:
        self.world.scheduler.reseed(f"turns {turns}")
        self.world.pass_time(then)

    # --- faults --------------------------------------------------------------------------------------------------

    @rule(kind=st.sampled_from(FATES), after=st.integers(0, 40))
    def fault(self, kind: str, after: int) -> None:
        self.world.faults.plans.append((kind, after))

    @rule(lane=st.sampled_from(layout.QUEUES))
    def message_lost(self, lane: str) -> None:
        for message in self.world.stores.queue.receive(lane):
            self.world.stores.queue.delete(lane, message)

    # --- what must hold ------------------------------------------------------------------------------------------

    @precondition(lambda self: hasattr(self, "world"))
    @invariant()
    def nothing_is_broken(self) -> None:
        broken = self.world.violations()
        if broken:
            note("\n".join([*self.world.history.lines()[-LINES:], *broken]))
        assert not broken, broken[0]

    def teardown(self) -> None:
        if not hasattr(self, "world"):
            return
        try:
            if not self.world.violations():
                self.world.rest()
                self.nothing_is_broken()
        finally:
            self.world.scheduler.close()


def profile(examples: int, *, steady: bool) -> settings:
    """`steady`: the same examples each time."""
    return settings(
        max_examples=examples, stateful_step_count=30, deadline=None, derandomize=steady,
        database=None, suppress_health_check=list(HealthCheck), print_blob=not steady,
    )  # fmt: skip


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m simulation.two_way.machine", description=__doc__)
    parser.add_argument("--examples", type=int, default=5000, help="how many (default: %(default)s)")
    given = parser.parse_args(arguments)
    logging.disable()
    run_state_machine_as_test(Machine, settings=profile(given.examples, steady=False))
    sys.stdout.write(f"{given.examples} examples, none of them bad\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
