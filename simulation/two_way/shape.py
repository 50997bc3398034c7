"""What one simulation is like: systems, directions, policies, faults, what people do."""

from dataclasses import dataclass, replace

from crm_core.sync.engine import Tuning
from simulation.faults import Rates
from simulation.scheduler import Scheduler
from simulation.two_way.remotes import Way

WAYS: tuple[Way, ...] = ("both", "both", "both", "in", "out")
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
    late_commits: float
    ways: tuple[Way, ...]
    unmarked: bool = False
    told: bool = False
    """A receiver is told of every version."""

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
        lateness, ways = scheduler.chance("late commits"), scheduler.chance("ways")
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
            late_commits=lateness.choice((0.0, 0.0, 0.2)),
            ways=tuple(ways.choice(WAYS) for _ in range(count)),
        )

    def without_marks(self, scheduler: Scheduler) -> "Shape":
        """With systems of which one at least can't tell what a create has made, nor does a match rule; and with more answers
        that are lost.
        """
        chance = scheduler.chance("unmarked")
        kinds = [chance.choice("abdfg") for _ in self.kinds]
        kinds[chance.randrange(len(kinds))] = chance.choice("dfg")
        lost = chance.choice((0.02, 0.1, 0.3))
        return replace(
            self,
            unmarked=True,
            kinds=tuple(kinds),
            match=False,
            entities=chance.choice((("contact",), ("contact", "account"))),
            rates=replace(self.rates, late=lost, bare=chance.choice((0.0, 0.02, 0.1)), unanswered=lost / 4),
            creates=chance.choice((0.3, 0.5)),
        )
