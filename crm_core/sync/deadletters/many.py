"""Everything that waits for a person because it failed: listed, grouped by cause, and done again or discarded, one or many.

`SOURCES` names the places; a new one is a class with the verbs of `Source` and a line here.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from crm_core.errors import HubError, NotFound, StoreUnavailable
from crm_core.log import Log
from crm_core.model.connection import Tenant
from crm_core.model.fields import hub_time
from crm_core.storage import layout
from crm_core.sync.deadletters.base import Place, Source, Waiting, Wanted
from crm_core.sync.deadletters.deliveries import FailedDeliveries
from crm_core.sync.deadletters.items import Items
from crm_core.sync.deadletters.letters import Letters
from crm_core.sync.engine import Engine, Job

_log = Log("crm_core.deadletters")

SOURCES: tuple[Callable[[Engine, Tenant, str], Source], ...] = (Letters, Items, FailedDeliveries)

JOB = "deadletters"
EXAMPLES = 3
PORTION = 100
CREDENTIAL_CODES = ("AuthFailed", "Misconfigured", "NotPermitted")
"""What a better credential, or a privilege, may have mended."""
RELEASE_PER_MINUTE = 600
MINUTE = 60.0

Way = Literal["replay", "discard"]


@dataclass
class Group:
    """What waits for one cause. `first`: the newest, whose words stand for all."""

    cause: str
    first: Waiting
    count: int = 0
    oldest: str = ""
    kinds: Counter[str] = field(default_factory=Counter)
    entities: Counter[str] = field(default_factory=Counter)
    examples: list[Waiting] = field(default_factory=list)

    def add(self, waiting: Waiting) -> None:
        self.count += 1
        self.oldest = min(self.oldest or waiting.time, waiting.time)
        self.first = max(self.first, waiting, key=lambda each: each.time)
        self.kinds[waiting.kind] += 1
        self.entities[waiting.entity] += 1
        if len(self.examples) < EXAMPLES:
            self.examples.append(waiting)


def grouped(found: Iterable[Waiting]) -> list[Group]:
    """By cause, the largest first. Pure."""
    groups: dict[str, Group] = {}
    for each in found:
        groups.setdefault(each.cause, Group(each.cause, each)).add(each)
    return sorted(groups.values(), key=lambda group: (-group.count, group.cause))


def page(
    engine: Engine, tenant: Tenant, wanted: Wanted, place: Place, *, top: int
) -> tuple[list[Waiting], Place | None]:
    """What waits, about `top` of it, and the place after it, None at the end. It can be short and not the last."""
    number: int = place.get("source", 0)
    inner: Place | None = place.get("place", {})
    found: list[Waiting] = []
    while number < len(SOURCES):
        some, inner = SOURCES[number](engine, tenant, "").page(wanted, inner or {}, top - len(found))
        found += some
        if inner is not None:
            return found, {"source": number, "place": inner}
        number += 1
        if len(found) >= top:
            break
    return found, {"source": number, "place": {}} if number < len(SOURCES) else None


def find(engine: Engine, tenant: Tenant, waiting_id: str, by: str = "") -> tuple[Source, Waiting]:
    """One of them, and where it waits. Raises NotFound."""
    for make in SOURCES:
        source = make(engine, tenant, by)
        found = source.find(waiting_id)
        if found is not None:
            return source, found
    raise NotFound(f"There is no dead letter '{waiting_id}'; GET /api/deadletters lists them.")


def start(
    engine: Engine,
    tenant: Tenant,
    wanted: Wanted,
    way: Way,
    *,
    by: str,
    per_minute: int,
    reason: str = "",
) -> None:
    """Has many done again, or discarded, each of them once: what fails again, or comes later, is not among them."""
    until = wanted.until or hub_time(engine.clock.now())
    task = {
        "way": way,
        "wanted": replace(wanted, until=until).to_json(),
        "by": by,
        "per_minute": per_minute,
        "reason": reason,
    }
    engine.send(layout.FRESH, Job(JOB, tenant, wanted.uid, wanted.entity, task=task))


def release(engine: Engine, tenant: Tenant, uid: str) -> None:
    """After a credential of a connection was saved, or proved to work: what failed for want of one is done again."""
    wanted = Wanted(connection=uid, codes=CREDENTIAL_CODES)
    start(engine, tenant, wanted, "replay", by="hub", per_minute=RELEASE_PER_MINUTE)


def many(engine: Engine, job: Job, lane: str, deliveries: int = 1) -> None:  # noqa: ARG001  # a handler's parameters
    """Works on many of them, as `start` asked: so many a minute, the rest in another message. The list is gone through
    once, so that nothing is tried for ever.
    """
    task = job.task
    wanted = Wanted.from_json(task["wanted"])
    place: Place | None = task.get("place", {})
    left: int = task["per_minute"]
    slice_end = engine.slice_end(lane)
    done = refused = 0
    while place is not None and left > 0 and engine.clock.monotonic() < slice_end:
        found, place = page(engine, job.tenant, wanted, place, top=min(PORTION, left))
        worked = _work(engine, job.tenant, found, task)
        done, refused, left = done + worked, refused + len(found) - worked, left - len(found)
    _log.info("dead letters", way=task["way"], done=done, refused=refused, more=place is not None)
    if place is not None:
        engine.send(layout.BULK, replace(job, task={**task, "place": place}), 0.0 if left > 0 else MINUTE)


def _work(engine: Engine, tenant: Tenant, found: list[Waiting], task: Mapping[str, Any]) -> int:
    """How many it was done to; the others were faster, or say why they can't be when they are looked at one by one."""
    sources = [make(engine, tenant, task["by"]) for make in SOURCES]
    worked = 0
    for each in found:
        try:
            worked += _did(sources, each.id, task)
        except StoreUnavailable:
            raise
        except HubError:
            continue  # it was decided meanwhile, or can't be done: who looks at it alone is told why
    for source in sources:
        source.finish()
    return worked


def _did(sources: Iterable[Source], waiting_id: str, task: Mapping[str, Any]) -> bool:
    for source in sources:
        waiting = source.find(waiting_id)
        if waiting is None:
            continue
        if task["way"] == "replay":
            source.replay(waiting)
        else:
            source.discard(waiting, task["reason"])
        return True
    return False
