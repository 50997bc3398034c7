"""What a long run lets through, as the schedule's own pull would have read it: whose work it is said to be."""

from dataclasses import replace
from typing import Any

import pytest

from crm_core.sync.undoing import starting as undoing
from tests.sync.directed import TENANT, World, linked
from tests.sync.planned import ask, begin_apply, decisions, outcomes, plan, stored, work_on

RUNS = {
    "full": {"mode": "full"},
    "limit": {"mode": "incremental", "limit": 1},
    "strategy": {"mode": "full", "strategy": "dynamics-wins"},
}


def _save(world: World, **changes: Any) -> None:
    states = world.engine.states.read(TENANT, "r1")
    assert states is not None
    now = replace(states.entities[world.entity], **changes)
    world.engine.states.save_entity(TENANT, "r1", world.entity, now)


def due(world: World) -> None:
    """The schedule's next pull of `r1` is due now."""
    _save(world, due="2020-01-01T00:00:00Z")


def last_run(world: World) -> str:
    states = world.engine.states.read(TENANT, "r1")
    assert states is not None
    return states.entities[world.entity].last_run


def begun(world: World, how: str):
    """A run that has something to change, and during which a person adds a row, which is due."""
    world.change("r1", phone="its own")
    run = begin_apply(world, plan(world, "r1")) if how == "apply" else ask(world, "r1", **RUNS[how])
    due(world)
    world.calls.after("r1 changes", happens=lambda: world.add("r1", last_name="New", phone="7"))
    return run


def worked(how: str):
    """(the world, the run, the record that it let through)."""
    world = linked("aa")
    run = begun(world, how)
    work_on(world, run)
    assert world.calls.all_happened()
    (record,) = [each for each in world.records() if each.fields["last_name"] == "New"]
    return world, stored(world, run.id), record


@pytest.mark.parametrize("how", ["apply", *RUNS])
def test_it_is_a_run_of_the_schedule_that_made_it(how):
    world, run, record = worked(how)
    assert record.created["run"] != run.id
    through = stored(world, record.created["run"])
    assert (through.mode, through.origin, through.status) == ("incremental", "schedule", "succeeded")
    assert (through.counts["created"], through.read > 0, through.ended) == (1, True, True)
    assert (run.status, run.counts["created"]) == ("succeeded", 0)
    assert {each.run for each in world.history(record)} <= {through.id}
    if how == "apply":
        assert outcomes(decisions(world, run)) == [("update", "applied", None)]


@pytest.mark.parametrize("how", ["apply", *RUNS])
def test_an_undo_takes_back_either_alone(how):
    world, run, record = worked(how)
    world.settle()
    for undone in (run.id, record.created["run"]):
        planned = undoing.start(world.engine, TENANT, stored(world, undone), "key:test")
        work_on(world, planned)
        work_on(world, undoing.apply(world.engine, TENANT, stored(world, planned.id), "key:test"))
        world.settle()
        alive = sorted(each.fields["last_name"] for each in world.records() if not each.dead)
        assert alive == (["New", "P"] if undone == run.id else ["P"])
    assert len(world.rows("r1")) == len(world.rows("r2")) == 1


def test_where_nothing_came_in_between_no_run_is_told_of():
    world = linked("aa")
    run = ask(world, "r1", "full")
    due(world)
    work_on(world, run)
    told, _ = world.engine.runs.page(TENANT, top=100, token=None)
    assert [each.mode for each in told if each.created_at >= run.created_at] == ["full"]
    assert last_run(world) == run.id


def test_who_is_overtaken_looks_again_at_what_it_let_through():
    """The run that went on may have compared before it was there."""
    world = linked("aa")
    run = begun(world, "full")

    def overtaken() -> None:
        (rid,) = [rid for rid, row in world.rows("r1").items() if row["last_name"] == "New"]
        world.remove("r1", rid)
        _save(world, lease_run="another", lease_until="2020-01-01T00:00:00Z")

    world.calls.after("transact records", '"New', happens=overtaken)
    world.work()
    assert world.calls.all_happened()
    assert not stored(world, run.id).ended
    (record,) = [each for each in world.records() if each.fields["last_name"] == "New"]
    assert record.links["r1"].state == "gone"


def test_the_brake_adds_up_what_is_let_through_batch_by_batch():
    world = World("aa", page=2)
    rids = [world.add("r1", last_name=f"P{number}") for number in range(12)]
    world.settle()
    tuning = replace(world.engine.tuning, brake_deletes=3, brake_deletes_percent=0, batch_records=2)
    world.engine = replace(world.engine, tuning=tuning)
    run = ask(world, "r1", "full")
    due(world)
    world.calls.after("r1 changes", happens=lambda: [world.remove("r1", rid) for rid in rids[:6]])
    world.work()
    assert world.calls.all_happened()
    stopped = stored(world, run.id)
    assert (stopped.status, stopped.through["deleted"]) == ("stopped", 2)
    assert sum(record.links["r1"].state == "gone" for record in world.records()) == 2
