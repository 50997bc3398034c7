"""Push runs that end before their time, and what a changed configuration wants of them all the same."""

from dataclasses import replace
from datetime import timedelta

import pytest

from crm_core.connection_admin import Wanted
from crm_core.model.connection import DEFAULT_TENANT, EntitySync
from crm_core.model.fields import hub_time
from crm_core.storage import layout
from crm_core.sync import brake, cancelling, jobs, push_runs, schedule
from crm_core.sync.engine import Job
from tests.sync.directed import TENANT, Died, World, dies
from tests.sync.planned import ask, stored
from tests.sync.test_plans import state, tune

RECORDS = 12
DELAY, HOUR = 120, 3600


@pytest.fixture
def world():
    """With records that `r2` is to have and has not, because it was only read until now."""
    found = World("aa", page=1)
    found._direct("r2", "pull")
    for number in range(RECORDS):
        found.add("r1", phone=str(number))
    found.pull("r1")
    found.work()
    assert (len(found.records()), found.rows("r2")) == (RECORDS, {})
    found.read_too("r2")
    return found


def change(world):
    """A person saves another configuration of `r2`."""
    wanting = push_runs.wanting(state(world, "r2"), hub_time(world.clock.now() + timedelta(seconds=DELAY)))
    world.engine.states.save_entity(TENANT, "r2", world.entity, wanting)


def one_message(world, seconds=0.0):
    """Works for so long on the first message of a push run; of others, nothing is seen for ten minutes."""
    whole = world.engine.tuning
    tune(world, fresh_slice_seconds=seconds, bulk_slice_seconds=seconds)
    for lane in layout.QUEUES:
        for message in world.queue.receive(lane, limit=1000, invisible=600):
            if Job.from_message(message.body).kind == "widen":
                assert world.queue.delete(lane, message)
                try:
                    jobs.handle(world.engine, lane, message.body, message.dequeue_count)
                finally:
                    world.engine = replace(world.engine, tuning=whole)
                return
    raise AssertionError("there is none")


def lose_messages(world):
    for lane in layout.QUEUES:
        for message in world.queue.receive(lane, limit=1000):
            assert world.queue.delete(lane, message)


def begun(world):
    """The push run that the tick began for the change, after its first slice."""
    change(world)
    lose_messages(world)
    world.later(DELAY + 1)
    schedule.tick(world.engine)
    one_message(world)
    run = stored(world, state(world, "r2").push_run)
    assert (run.origin, run.status) == ("schedule", "running")
    return run


def runs(world):
    """Those that look, the newest first."""
    return [each for each in world.engine.runs.page(TENANT, top=100, token=None)[0] if each.mode == "push"]


def come_to_rest(world):
    """As time goes by; `r2` has to have every record in the end, and no run may be left."""
    for _ in range(70):
        schedule.tick(world.engine)
        world.work()
        world.later(60)
    assert len(world.rows("r2")) == RECORDS
    assert [each.status for each in runs(world) if not each.ended] == []
    row = state(world, "r2")
    assert (row.push_due, row.push_run, row.push_wanted) == ("", "", "")


def cancel(world, run):
    return cancelling.cancel(world.engine, TENANT, stored(world, run.id))


def test_what_a_configuration_wants_comes_an_hour_after_its_run_was_cancelled(world):
    cancelled = cancel(world, begun(world))
    assert (cancelled.status, cancelled.problem.code) == ("failed", "Cancelled")
    row = state(world, "r2")
    put_off = hub_time(world.clock.now() + timedelta(seconds=HOUR))
    assert (row.push_run, row.push_due) == ("", put_off)
    assert f"a push run begins at {put_off}. POST /api/runs" in cancelled.problem.message
    lose_messages(world)
    before = world.rows("r2")
    for _ in range(50):
        world.later(60)
        schedule.tick(world.engine)
        lose_messages(world)
    assert len(runs(world)) == 1
    assert world.rows("r2") == before
    come_to_rest(world)
    assert [each.status for each in runs(world)] == ["succeeded", "failed"]


def test_a_run_begun_by_hand_does_what_was_put_off(world):
    cancel(world, begun(world))
    lose_messages(world)
    by_hand = ask(world, "r2", "push")
    world.work()
    assert stored(world, by_hand.id).status == "succeeded"
    assert state(world, "r2").push_wanted == ""
    come_to_rest(world)
    assert len(runs(world)) == 2


def test_a_run_begun_by_hand_before_a_change_may_be_looked_for_does_not_stand_for_it(world):
    change(world)
    wanted = state(world, "r2").push_due
    by_hand = ask(world, "r2", "push")
    world.work()
    assert stored(world, by_hand.id).status == "succeeded"
    assert (state(world, "r2").push_due, state(world, "r2").push_run) == (wanted, "")
    come_to_rest(world)
    assert [each.origin for each in runs(world)] == ["schedule", "key:test"]


@pytest.mark.parametrize("wish", [False, True])
def test_who_cancels_a_run_begun_by_hand_ends_just_that(world, wish):
    if wish:
        change(world)
    wanted = state(world, "r2").push_due
    by_hand = ask(world, "r2", "push")
    one_message(world)
    cancelled = cancel(world, by_hand)
    assert (state(world, "r2").push_due, state(world, "r2").push_run) == (wanted, "")
    assert ("a push run begins at" in cancelled.problem.message) is wish
    if wish:
        come_to_rest(world)


def test_a_run_that_another_one_takes_over_from_has_ended(world):
    first = begun(world)
    by_hand = ask(world, "r2", "push")
    lose_messages(world)
    world.engine.send(layout.FRESH, Job("widen", TENANT, "r2", world.entity, by_hand.id))
    one_message(world)
    left = stored(world, first.id)
    assert (left.status, left.problem.code) == ("failed", "Overtaken")
    assert left.problem.message == f"Push run {by_hand.id} has taken its place."
    assert state(world, "r2").push_run == by_hand.id
    cancel(world, by_hand)
    assert state(world, "r2").push_due < hub_time(world.clock.now()), "not put off: that run was another one"
    come_to_rest(world)


@pytest.mark.parametrize("at_work", [False, True])
def test_a_run_whose_row_a_worker_took_that_died_then_has_ended(world, at_work):
    first = begun(world)
    by_hand = ask(world, "r2", "push")

    def taken():
        row = replace(state(world, "r2"), push_run=by_hand.id)
        world.engine.states.save_entity(TENANT, "r2", world.entity, row)

    if at_work:
        world.calls.before("query records", happens=taken)
    else:
        taken()
    lose_messages(world)
    world.engine.send(layout.FRESH, Job("widen", TENANT, "r2", world.entity, first.id))
    one_message(world)
    assert stored(world, first.id).problem.message == f"Push run {by_hand.id} has taken its place."
    come_to_rest(world)
    assert stored(world, by_hand.id).status == "succeeded"


def test_of_two_workers_that_are_to_begin_one_run_one_does(world):
    change(world)
    lose_messages(world)
    world.later(DELAY + 1)
    schedule.tick(world.engine)
    body = Job("widen", TENANT, "r2", world.entity).to_message()
    world.calls.before("replace state", happens=lambda: jobs.handle(world.engine, layout.FRESH, body, 1))
    one_message(world, 20)
    assert world.calls.all_happened()
    assert [each.status for each in runs(world)] == ["succeeded"]
    come_to_rest(world)


@pytest.mark.parametrize("dead", [False, True])
def test_a_run_that_a_change_overtakes_has_ended_and_the_next_one_looks_at_everything(world, dead):
    first = begun(world)
    change(world)
    if dead:
        lose_messages(world)
    else:
        one_message(world)  # its worker goes on until the change may be looked for
        assert stored(world, first.id).status == "running"
        world.later(DELAY + 1)
    come_to_rest(world)
    over = stored(world, first.id)
    assert (over.status, over.problem.code) == ("failed", "Overtaken")
    assert over.problem.message.startswith("The connection was changed since it began")
    newest = runs(world)[0]
    assert (newest.status, newest.read) == ("succeeded", RECORDS)


def test_a_change_while_a_worker_looks_is_not_lost(world):
    begun(world)
    world.calls.before("query records", happens=lambda: change(world))
    one_message(world, 20)
    assert world.calls.all_happened()
    assert runs(world)[0].status == "succeeded"
    assert state(world, "r2").push_due == state(world, "r2").push_wanted > hub_time(world.clock.now())
    come_to_rest(world)
    assert [each.status for each in runs(world)] == ["succeeded", "succeeded"]


def test_a_pull_that_saves_the_row_does_not_stop_a_push_run(world):
    run = begun(world)

    def pulled():
        row = state(world, "r2")
        world.engine.states.save_entity(TENANT, "r2", world.entity, replace(row, known=row.known + 1))

    world.calls.before("query records", happens=pulled)
    one_message(world, 20)
    assert world.calls.all_happened()
    assert stored(world, run.id).status == "succeeded"


@pytest.mark.parametrize("mode", ["incremental", "full"])
def test_a_push_run_that_saves_the_row_does_not_stop_a_pull(world, mode):
    """Nor does a changed configuration; neither is lost. The pull goes on with the message that it has."""
    world.add("r2", phone="new")
    run = ask(world, "r2", mode)

    def meanwhile():
        change(world)
        now = state(world, "r2")
        world.engine.states.save_entity(TENANT, "r2", world.entity, replace(now, push_run="another"))

    world.calls.after("r2 changes", happens=meanwhile)
    for lane in layout.QUEUES:
        for message in world.queue.receive(lane, limit=1000, invisible=600):
            if Job.from_message(message.body).run == run.id:
                jobs.handle(world.engine, lane, message.body, 1)
    assert world.calls.all_happened()
    assert stored(world, run.id).status == "succeeded"
    now = state(world, "r2")
    assert (now.push_run, bool(now.push_wanted), now.lease_run) == ("another", True, "")


@pytest.mark.parametrize("gone", ["entity", "direction"])
def test_a_run_of_what_is_not_pushed_any_more_has_ended(world, gone):
    run = begun(world)
    if gone == "entity":
        world.engine.states.remove(TENANT, "r2", world.entity)
    else:
        world._direct("r2", "pull")
        at = hub_time(world.clock.now() + timedelta(seconds=DELAY))
        none = push_runs.wanting_none(state(world, "r2"), at)
        world.engine.states.save_entity(TENANT, "r2", world.entity, none)
        lose_messages(world)
        world.later(DELAY + 1)
        schedule.tick(world.engine)
    one_message(world)
    ended = stored(world, run.id)
    code = "NotFound" if gone == "entity" else "Overtaken"
    assert (ended.status, ended.problem.code) == ("failed", code)
    if gone == "direction":
        assert (state(world, "r2").push_due, state(world, "r2").push_run) == ("", "")


@pytest.mark.parametrize("call", ["insert runs", "replace runs", "query records", "replace state"])
@pytest.mark.parametrize("when", ["before", "after"])
def test_a_worker_that_dies_leaves_no_run_behind(world, call, when):
    change(world)
    lose_messages(world)
    world.later(DELAY + 1)
    schedule.tick(world.engine)
    getattr(world.calls, when)(call, happens=dies)
    with pytest.raises(Died):
        one_message(world, 20)
    come_to_rest(world)
    assert [each.status for each in runs(world)] == ["succeeded"]


def test_a_run_that_failed_at_every_delivery_is_begun_again_later(world):
    run = begun(world)
    body = Job("widen", TENANT, "r2", world.entity, run.id).to_message()
    lose_messages(world)
    for _ in range(2):
        jobs.poisoned(world.engine, layout.BULK, body)
    assert stored(world, run.id).problem.code == "Poison"
    lose_messages(world)
    come_to_rest(world)


def test_what_the_brake_stopped_and_a_person_cancelled_is_asked_again_an_hour_later(world):
    tune(world, brake_creates=5)
    change(world)
    lose_messages(world)
    world.later(DELAY + 1)
    schedule.tick(world.engine)
    one_message(world, 20)
    stopped = stored(world, state(world, "r2").stopped_run)
    cancelled = brake.cancel(world.engine, TENANT, stopped)
    row = state(world, "r2")
    assert (row.stopped_run, row.push_due) == ("", hub_time(world.clock.now() + timedelta(seconds=HOUR)))
    assert row.push_due in cancelled.problem.message
    lose_messages(world)
    world.later(HOUR)
    schedule.tick(world.engine)
    one_message(world, 20)
    again = stored(world, state(world, "r2").stopped_run)
    assert again.id != stopped.id
    brake.approve(world.engine, TENANT, again)
    come_to_rest(world)


def test_an_approval_does_not_let_a_later_change_through(world):
    tune(world, brake_creates=5)
    change(world)
    lose_messages(world)
    world.later(DELAY + 1)
    schedule.tick(world.engine)
    one_message(world, 20)
    stopped = stored(world, state(world, "r2").stopped_run)
    change(world)
    world.later(DELAY + 1)
    brake.approve(world.engine, TENANT, stopped)
    one_message(world, 20)
    assert stored(world, stopped.id).problem.code == "Overtaken"
    again = stored(world, state(world, "r2").stopped_run)
    assert (again.status, again.approved) == ("stopped", False)


def test_rows_of_older_code_say_what_is_wanted_by_a_time_without_a_run(world):
    at = hub_time(world.clock.now() + timedelta(seconds=DELAY))
    world.engine.states.save_entity(
        TENANT, "r2", world.entity, replace(state(world, "r2"), push_due=at, push_run="")
    )
    by_hand = ask(world, "r2", "push")
    one_message(world)
    cancel(world, by_hand)
    assert state(world, "r2").push_due == at
    come_to_rest(world)


def test_a_message_too_many_begins_no_second_run(world):
    change(world)
    lose_messages(world)
    world.later(DELAY + 1)
    schedule.tick(world.engine)
    schedule.tick(world.engine)
    world.work()
    assert len(runs(world)) == 1
    come_to_rest(world)
    assert len(runs(world)) == 1


def test_beside_a_stopped_run_none_begins(world):
    tune(world, brake_creates=5)
    change(world)
    lose_messages(world)
    world.later(DELAY + 1)
    schedule.tick(world.engine)
    by_hand = ask(world, "r2", "push")
    lose_messages(world)
    body = Job("widen", TENANT, "r2", world.entity).to_message()
    jobs.handle(world.engine, layout.FRESH, body, 1)
    stopped = state(world, "r2").stopped_run
    jobs.handle(world.engine, layout.FRESH, body, 1)
    late = Job("widen", TENANT, "r2", world.entity, by_hand.id).to_message()
    jobs.handle(world.engine, layout.FRESH, late, 1)
    assert {each.id for each in runs(world)} == {stopped, by_hand.id}
    refused = stored(world, by_hand.id)
    assert (refused.status, refused.problem.code) == ("failed", "Brake")
    assert f"Run {stopped}" in refused.problem.message
    assert state(world, "r2").stopped_run == stopped
    schedule.tick(world.engine)
    assert state(world, "r2").push_run == ""


def test_a_saved_configuration_wants_a_run_until_nothing_is_pushed_any_more(memory_bench):
    bench = memory_bench
    bench.connect(entities={"account": {"direction": "both"}})
    row = bench.state()
    assert row.push_due == row.push_wanted > hub_time(bench.hub.clock.now())

    def save(**sync):
        bench.connection = bench.hub.admin.update(
            bench.hub.find(DEFAULT_TENANT, "demo"), Wanted(entities={"account": EntitySync.from_json(sync)})
        )
        return bench.state()

    row = save(direction="pull")
    assert (row.push_due, row.push_wanted) == ("", "")
    row = save(direction="both", deletes="ignore")
    assert row.push_due == row.push_wanted > hub_time(bench.hub.clock.now())
    named = replace(row, push_run="a run", push_due="2020-01-01T00:00:00Z")
    bench.hub.states.save_entity(DEFAULT_TENANT, bench.connection.uid, "account", named)
    again = save(direction="both", deletes="mark")
    assert (again.push_run, again.push_due) == ("a run", again.push_wanted)
    assert again.push_wanted > row.push_wanted
    none = save(direction="pull")
    assert (none.push_run, none.push_wanted) == ("a run", "")
    assert none.push_due > hub_time(bench.hub.clock.now())
