"""Plans in a world that a test tells (directed.py): made, read, carried out, and compared with what they said."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from crm_core.errors import HubError
from crm_core.model.state import Run
from crm_core.storage import layout
from crm_core.storage.plans import Parts, PlanReader
from crm_core.sync import jobs, starting
from crm_core.sync.engine import Opened
from crm_core.sync.planning import applying
from tests.sync.directed import TENANT, Died, World


def opened(world: World, uid: str) -> Opened:
    found = world.engine.open(TENANT, uid)
    assert found is not None
    return found


def stored(world: World, run_id: str) -> Run:
    found = world.engine.runs.get(TENANT, run_id)
    assert found is not None
    return found


def ask(world: World, uid: str, mode: Any = "plan", **options: Any) -> Run:
    """A run that somebody asks for; its work waits until somebody works."""
    asked = starting.Asked(mode, **options)
    return starting.start(world.engine, opened(world, uid), [world.entity], asked, "key:test")


def plan(world: World, uid: str, of: str = "incremental", **options: Any) -> Run:
    run = ask(world, uid, of=of, **options)
    work_on(world, run)
    return stored(world, run.id)


def begin_apply(world: World, planned: Run) -> Run:
    return applying.start(world.engine, TENANT, stored(world, planned.id), "key:test")


def apply(world: World, planned: Run) -> Run:
    """Carries it out; what that wakes waits until somebody works."""
    run = begin_apply(world, planned)
    work_on(world, run)
    return stored(world, run.id)


def work_on(world: World, run: Run) -> None:
    """Handles the messages of one run to its end. A worker that dies leaves its message, which comes again; of one that
    has to wait the time passes.
    """
    others: list[tuple[str, str]] = []
    for _ in range(200):
        if _has_ended(world, run):
            break
        lane, message = _next(world)
        if message is None:
            world.later(60)
            continue
        assert world.queue.delete(lane, message)
        if json.loads(message.body).get("run") != run.id:
            others.append((lane, message.body))
            continue
        try:
            jobs.handle(world.engine, lane, message.body, message.dequeue_count)
        except (Died, HubError):
            world.queue.send(lane, message.body)
    else:
        raise AssertionError("the run never ends")
    for lane, body in others:
        world.queue.send(lane, body)


def _has_ended(world: World, run: Run) -> bool:
    """As the test sees it: no call of a worker's."""
    carry_out = world.calls.__dict__.pop("carry_out", None)
    ended = stored(world, run.id).ended
    if carry_out is not None:
        world.calls.__dict__["carry_out"] = carry_out
    return ended


def _next(world: World) -> tuple[str, Any]:
    for lane in layout.QUEUES:
        for message in world.queue.receive(lane, invisible=600):
            return lane, message
    return "", None


def decisions(world: World, run: Run) -> list[dict[str, Any]]:
    return list(PlanReader(world.engine.blob, TENANT, run.id, Parts.from_json(run.plan)).every())


def said(decisions: Sequence[Mapping[str, Any]]) -> list[tuple[str, dict[str, Any]]]:
    """(action, new values) of each."""
    return [
        (each["action"], {name: new["new"] for name, new in each["fields"].items()}) for each in decisions
    ]


def outcomes(decisions: Sequence[Mapping[str, Any]]) -> list[tuple[str, str, str | None]]:
    return [(each["action"], each["outcome"], each["why"]) for each in decisions]


def writes(world: World, begun: int) -> list[str]:
    """What was written since, at the remotes and in the store, the rows of runs aside."""
    return [
        text for text in world.calls.texts[begun:] if not text.startswith(_READS) and " runs " not in text
    ]


_READS = ("get ", "query ", *(f"r{n} {verb} " for n in (1, 2) for verb in ("changes", "get", "search")))
