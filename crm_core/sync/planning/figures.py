"""What a plan, or what carries one out, comes to: sums beside the parts, in the run's row."""

from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from crm_core.errors import Misconfigured
from crm_core.model.connection import Tenant
from crm_core.model.state import Run
from crm_core.storage.plans import Digest, Parts, PlanReader, PlanWriter
from crm_core.sync.brake import Stopped
from crm_core.sync.engine import Engine, Job
from crm_core.sync.planning.decisions import Decision, marked

ACTIONS = ("create", "update", "link", "delete", "revive", "conflict", "later", "failed")
SENT = ("create", "update", "delete")
OUTCOMES = ("applied", "drifted", "failed")
COUNTED: Mapping[str, str] = {
    "create": "created",
    "update": "updated",
    "link": "updated",
    "revive": "updated",
    "delete": "deleted",
    "failed": "failed",
}


@dataclass
class Figures:
    """`actions`: decisions by action; `pushes`: by connection, what would be sent there; `outcomes`: of an apply; `brakes`:
    where the brake would stop the run, {what, at, amount, known, limit}; `beside`: decisions beyond one for each row that
    was read.
    """

    actions: Counter[str] = field(default_factory=Counter)
    pushes: dict[str, Counter[str]] = field(default_factory=dict)
    outcomes: Counter[str] = field(default_factory=Counter)
    brakes: list[Mapping[str, Any]] = field(default_factory=list)
    beside: int = 0

    @classmethod
    def of(cls, run: Run) -> "Figures":
        known = run.plan
        return cls(
            Counter(known.get("actions", {})),
            {uid: Counter(each) for uid, each in known.get("pushes", {}).items()},
            Counter(known.get("outcomes", {})),
            list(known.get("brakes", ())),
            known.get("beside", 0),
        )

    def add(self, decision: Decision) -> None:
        self.actions[decision["action"]] += 1
        if "outcome" in decision:
            self.outcomes[decision["outcome"]] += 1
        for each in decision["pushes"]:
            self.sent(each["connection"], each["action"])

    def sent(self, connection: str, action: str) -> None:
        """One more write would go to a connection."""
        self.pushes.setdefault(connection, Counter())[action] += 1

    def braked(self, stopped: Stopped) -> None:
        """The brake would stop the run here."""
        self.brakes.append(
            {
                "what": "creates" if stopped.creates_at else "deletes",
                "at": stopped.creates_at or None,
                "amount": stopped.amount,
                "known": stopped.known,
                "limit": stopped.limit,
            }
        )

    def to_json(self, parts: Parts) -> dict[str, Any]:
        return {
            **parts.to_json(),
            "actions": dict(self.actions),
            "pushes": {uid: dict(each) for uid, each in self.pushes.items()},
            "outcomes": dict(self.outcomes),
            "brakes": self.brakes,
            "beside": self.beside,
        }

    def counts(self, read: int) -> dict[str, int]:
        """As those of any run; `read`: records, of which those without a decision are unchanged."""
        found = Counter[str]()
        for action, amount in self.actions.items():
            if action in COUNTED:
                found[COUNTED[action]] += amount
        return {**found, "unchanged": max(0, read - self.actions.total() + self.beside)}


class Telling:
    """What a slice decides, on its way into the parts and the figures of its run."""

    def __init__(self, engine: Engine, job: Job, run: Run) -> None:
        parts = Parts.from_json(run.plan)
        self.figures = Figures.of(run)
        self._writer = PlanWriter(engine.blob, job.tenant, run.id, parts, engine.ids.uuid())

    def tell(self, decision: Decision, digests: list[Digest]) -> None:
        """`digests`: what it is known again by, the first of them its mark."""
        self.figures.add(decision)
        known = digests and "outcome" not in decision
        self._writer.add(marked(decision, digests[0]) if known else decision, digests)

    def note(self, digests: list[Digest]) -> None:
        self._writer.note(digests)

    def saved(self) -> dict[str, Any]:
        """For the run's row, after the parts."""
        return self.figures.to_json(self._writer.flush())


def reader(engine: Engine, job: Job, run: Run) -> PlanReader:
    """What is in the parts of a run."""
    return PlanReader(engine.blob, job.tenant, run.id, Parts.from_json(run.plan))


def forecast(engine: Engine, tenant: Tenant, run: Run, seconds: float) -> dict[str, Any]:
    """About what doing it takes: the calls that deciding took, and those of the writes that follow, as many to a call as
    each system takes, and each followed by a look; in the time that calls took until now.
    """
    made = run.calls.get("remote", 0)
    sending = 0
    for uid, sums in Figures.of(run).pushes.items():
        opened = None
        with suppress(Misconfigured):  # another connection's trouble; nothing is sent there now
            opened = engine.open(tenant, uid)
        if opened is not None:
            sending += 2 * -(-sums.total() // opened.connector.batch_size)
    return {
        "remote_calls": made + sending,
        "seconds": round(seconds * (made + sending) / made if made else seconds, 3),
    }
