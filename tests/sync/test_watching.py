"""Runs that have lost their message, or whose worker died without one: the tick finds them, and leaves the others alone."""

from dataclasses import replace
from datetime import timedelta
from typing import get_args

import pytest

from crm_core.errors import RateLimited
from crm_core.model.connection import DEFAULT_TENANT
from crm_core.model.fields import hub_time
from crm_core.model.state import Mode, Run
from crm_core.ports import measured
from crm_core.storage import layout
from crm_core.storage.state import Watched
from crm_core.sync import export_sources, exports, jobs, resolving_many, schedule, watching
from crm_core.sync.engine import Job
from crm_core.sync.planning import applying, sending
from crm_core.sync.undoing import carrying
from crm_core.sync.undoing import starting as undoing
from tests.sync.directed import TENANT, Died, World, dies
from tests.sync.planned import ask, plan, stored, work_on
from tests.sync.test_plans import state, tune

BY = "key:test"
RECORDS = 4


@pytest.fixture
def world():
    """With some records that `r1` changes again."""
    found = World("aa", page=1)
    rids = [found.add("r1", phone=str(number)) for number in range(RECORDS)]
    found.settle()
    for rid in rids:
        found.change("r1", rid, phone=f"new {rid}")
    tune(found, batch_records=1)
    return found


def pulled(world):
    run = ask(world, "r1", "incremental")
    work_on(world, run)
    return stored(world, run.id)


def undo_planned(world):
    run = undoing.start(world.engine, TENANT, pulled(world), BY)
    work_on(world, run)
    return stored(world, run.id)


def push_planned(world):
    for each in world.records():
        world.edit(each.id, phone=f"ours {each.id[:4]}")
    return plan(world, "r1", of="push")


def exported(world):
    wanted = export_sources.Wanted("records", "jsonl")
    return exports.start(world.engine, TENANT, wanted, world.entity, BY, "", "")


BEGIN = {
    "plan": lambda world: ask(world, "r1", "plan", of="incremental"),
    "plan of a push": lambda world: ask(world, "r1", "plan", of="push"),
    "apply of a push": lambda world: applying.start(world.engine, TENANT, push_planned(world), BY),
    "export": exported,
    "resolve": lambda world: resolving_many.start(
        world.engine, TENANT, resolving_many.Task({"entity": world.entity}, "ours"), BY
    ),
    "plan of an undo": lambda world: undoing.start(world.engine, TENANT, pulled(world), BY),
    "undo": lambda world: undoing.apply(world.engine, TENANT, undo_planned(world), BY),
}
HELD = {
    "incremental": lambda world: ask(world, "r1", "incremental"),
    "full": lambda world: ask(world, "r1", "full"),
    "apply": lambda world: applying.start(world.engine, TENANT, plan(world, "r1"), BY),
    "push": lambda world: ask(world, "r1", "push"),
}
"""Those that an entity's row holds, once they have begun."""


def messages(world, run):
    """How many there are for a run; all of them are lost."""
    found = 0
    for lane in layout.QUEUES:
        for message in world.queue.receive(lane, limit=1000):
            assert world.queue.delete(lane, message)
            found += Job.from_message(message.body).run == run.id
    return found


def handle_one(world, run, seconds=0.0):
    """One message of a run, for so long; the others are lost."""
    whole = world.engine.tuning
    tune(world, fresh_slice_seconds=seconds, bulk_slice_seconds=seconds)
    bodies = [
        (lane, message.body)
        for lane in layout.QUEUES
        for message in world.queue.receive(lane, limit=1000)
        if world.queue.delete(lane, message) and Job.from_message(message.body).run == run.id
    ]
    try:
        lane, body = bodies[0]
        jobs.handle(world.engine, lane, body, 1)
    finally:
        world.engine = replace(world.engine, tuning=whole)


def ends(world, run, seconds):
    """Minute after minute, at most so long."""
    for _ in range(int(seconds / 60) + 1):
        world.later(60)
        schedule.tick(world.engine)
        world.work()
    return stored(world, run.id)


@pytest.mark.parametrize("what", [*BEGIN, *HELD])
def test_a_run_whose_first_message_is_lost_begins_some_minutes_later(world, what):
    run = {**BEGIN, **HELD}[what](world)
    assert messages(world, run) == 1
    assert stored(world, run.id).status == "queued"
    assert ends(world, run, 180).status == "succeeded"


@pytest.mark.parametrize("what", BEGIN)
def test_a_run_whose_message_is_lost_between_two_slices_goes_on(world, what, monkeypatch):
    for module in (carrying, sending):
        monkeypatch.setattr(module, "PORTION", 1)
    run = BEGIN[what](world)
    handle_one(world, run)
    begun = stored(world, run.id)
    assert (begun.status, begun.slices) == ("running", 1)
    assert messages(world, run) == 1
    assert ends(world, run, 2 * watching.LOST_SECONDS + 120).status == "succeeded"


@pytest.mark.parametrize("what", BEGIN)
@pytest.mark.parametrize("save", [1, 2])
def test_a_run_whose_worker_died_after_a_save_goes_on(world, what, save):
    run = BEGIN[what](world)
    for _ in range(save - 1):
        world.calls.after("replace runs", run.id, happens=lambda: None)
    world.calls.after("replace runs", run.id, happens=dies)
    with pytest.raises(Died):
        handle_one(world, run)
    assert messages(world, run) == 0
    assert ends(world, run, 2 * watching.LOST_SECONDS + 120).status == "succeeded"


@pytest.mark.parametrize("what", ["plan", "export", "plan of an undo"])
def test_a_run_that_is_worked_on_gets_no_message_too_many_and_its_row_goes_after_it(world, what):
    run = BEGIN[what](world)
    for _ in range(100):
        handle_one(world, run)
        run = stored(world, run.id)
        if run.ended:
            break
        world.later(watching.LOST_SECONDS)
        schedule.tick(world.engine)
        assert len([each for each in bodies(world) if each.run == run.id]) == 1
    assert (run.status, run.slices > 2) == ("succeeded", True)
    assert run.id in [each.id for _, each in world.engine.runs.watched()]
    ends(world, run, watching.LOST_SECONDS)
    assert list(world.engine.runs.watched()) == []


def bodies(world):
    found = []
    for lane in layout.QUEUES:
        for message in world.queue.receive(lane, limit=1000):
            found.append(Job.from_message(message.body))
            world.queue.release(lane, message)
    return found


def test_an_idle_tick_costs_one_query_for_this():
    world = World("aa")
    world.settle()
    before = len(world.calls.texts)
    assert schedule.tick(world.engine) == 0
    assert [text.split(" (")[0] for text in world.calls.texts[before:] if " runs " in text] == ["query runs"]


def test_a_run_that_never_got_a_row_is_forgotten(world):
    watching.watch(world.engine, TENANT, "99999999999999-aaaaaaaa-aaa")
    world.engine.blob.put(f"runs/{TENANT.name}/99999999999999-aaaaaaaa-aaa/items", b"of a batch")
    world.later(121)
    schedule.tick(world.engine)
    assert list(world.engine.runs.watched()) == []
    assert world.engine.blob.names("runs/") == []


def test_a_run_that_the_brake_stopped_is_left_to_who_approves_it(world):
    run = ask(world, "r1", "incremental")
    messages(world, run)
    world.engine.runs.save(TENANT, replace(run, status="stopped"))
    world.later(121)
    schedule.tick(world.engine)
    assert (messages(world, run), list(world.engine.runs.watched())) == (0, [])


@pytest.mark.parametrize("why", ["another pull", "not before", "does not answer"])
def test_a_run_that_has_to_wait_gets_no_message_too_many(world, why):
    run = ask(world, "r1", "plan" if why == "not before" else "full")
    messages(world, run)
    states = world.engine.states
    later = hub_time(world.clock.now() + timedelta(hours=1))
    if why == "another pull":
        held = replace(state(world), lease_run="another", lease_until=later)
        states.save_entity(TENANT, "r1", world.entity, held)
    else:
        row = states.read(TENANT, "r1").connection
        waits = {"not_before": later} if why == "not before" else {"health": "unreachable"}
        states.save_connection(TENANT, "r1", replace(row, **waits))
    world.later(121)
    schedule.tick(world.engine)
    assert messages(world, run) == 0
    assert [each.id for _, each in world.engine.runs.watched()].count(run.id) == 1


def test_a_plan_that_the_system_lets_wait_for_hours_is_not_taken_for_lost(world):
    run = ask(world, "r1", "plan")

    def limited():
        raise RateLimited("Later.", retry_after=7200.0)

    world.calls.before("r1 changes", happens=limited)
    handle_one(world, run, 20)
    for _ in range(115):
        world.later(60)
        schedule.tick(world.engine)
        assert [each for each in bodies(world) if each.run == run.id] == []
    assert ends(world, run, 3600).status == "succeeded"


def test_what_a_dead_worker_of_a_full_run_left_goes_at_its_end(world):
    run = ask(world, "r1", "full")
    world.engine.blob.put(f"runs/{TENANT.name}/{run.id}/000000-deadbeef/000000", b"ids")
    world.work()
    assert stored(world, run.id).status == "succeeded"
    assert world.engine.blob.names("runs/") == []


@pytest.mark.parametrize("mode", get_args(Mode))
def test_every_mode_has_a_job(world, mode):
    assert watching.job_of(world.engine, TENANT, Run("r", "c", mode=mode)).kind in jobs.HANDLERS


def test_over_the_emulator_a_lost_run_is_found_and_its_row_goes(bench):
    bench.connect()
    engine, past = bench.hub.engine, "2020-01-01T00:00:00Z"
    run = exports.start(
        engine, DEFAULT_TENANT, export_sources.Wanted("records", "jsonl"), "account", BY, "", ""
    )
    for lane in layout.QUEUES:
        for message in bench.queue.receive(lane, limit=100):
            assert bench.queue.delete(lane, message)
    assert [each.id for _, each in engine.runs.watched()] == [run.id]
    engine.runs.watch(DEFAULT_TENANT, Watched(run.id, past))
    bench.hub.tick()
    bench.work()
    assert bench.run(run.id).status == "succeeded"
    engine.runs.watch(DEFAULT_TENANT, Watched(run.id, past))
    bench.hub.tick()
    with measured() as meter:
        assert list(engine.runs.watched()) == []
    assert meter.total("storage_calls") == 1
    assert [each.id for each in engine.runs.page(DEFAULT_TENANT, top=10, token=None)[0]].count(run.id) == 1
