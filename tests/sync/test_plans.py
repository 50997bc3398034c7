"""Plans one by one: what is told, what is left, what is refused and why, and runs that end before their time."""

import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta

import pytest

from crm_core.errors import BadRequest, Conflict, Misconfigured
from crm_core.ports import Row, RowExists
from crm_core.storage import layout
from crm_core.storage.memory import MemoryTable
from crm_core.storage.plans import Digest
from crm_core.sync import cancelling, schedule, starting
from crm_core.sync.engine import Job
from crm_core.sync.planning import outcomes as outcomes_module
from crm_core.sync.planning.outcomes import Index
from crm_core.sync.planning.overlay import Numbers, Overlay
from crm_core.sync.undoing import starting as undoing
from tests.sync.directed import TENANT, Died, World, dies, linked
from tests.sync.planned import (
    apply,
    ask,
    begin_apply,
    decisions,
    opened,
    outcomes,
    plan,
    said,
    stored,
    work_on,
    writes,
)


def tune(world: World, **tuning: float) -> None:
    world.engine = replace(world.engine, tuning=replace(world.engine.tuning, **tuning))


def state(world: World, uid: str = "r1"):
    states = world.engine.states.read(TENANT, uid)
    assert states is not None
    return states.entities[world.entity]


def one(world: World, run):
    (found,) = decisions(world, run)
    return found


@pytest.mark.parametrize(
    ("policy", "action", "wins"),
    [("manual", "conflict", None), ("remote", "update", "theirs"), ("local", "update", "ours")],
)
def test_what_both_sides_changed_is_shown_with_who_wins(policy, action, wins):
    world = linked("aa", policy=policy)
    world.edit(phone="ours")
    world.change("r1", phone="theirs")
    begun = len(world.calls.texts)
    planned = plan(world, "r1")
    found = one(world, planned)
    assert found["action"] == action
    assert found["conflicts"] == {
        "phone": {"ours": "ours", "theirs": "theirs", "base": "0", "policy": policy, "wins": wins}
    }
    assert writes(world, begun) == []
    assert outcomes(decisions(world, apply(world, planned))) == [(action, "applied", None)]
    conflict = bool(world.record().links["r1"].conflict)
    assert (world.record().fields["phone"], conflict) == (
        "theirs" if wins == "theirs" else "ours",
        wins is None,
    )


def test_a_strategy_decides_in_its_run_alone():
    world = linked("aa", policy="manual")
    world.edit(phone="ours")
    world.change("r1", phone="theirs")
    planned = plan(world, "r1", strategy="dynamics-wins")
    assert one(world, planned)["conflicts"]["phone"]["wins"] == "theirs"
    work_on(world, ask(world, "r1", "incremental", strategy="local-wins"))
    assert world.replaced("phone") == ["0"]
    record = world.record()
    assert (record.fields["phone"], record.links["r1"].conflict) == ("ours", {})
    assert outcomes(decisions(world, apply(world, planned)))[0][1] == "drifted"
    world.edit(phone="again")
    world.change("r1", phone="and there")
    world.pull("r1")
    assert world.record().links["r1"].conflict  # the schedule's pull asks, as the connection says


def test_deletes_revivals_and_what_is_told_to_whom():
    world = linked("aa")
    rid = world.rid("r1")
    world.remove("r1", rid)
    planned = plan(world, "r1")
    found = one(world, planned)
    assert (found["action"], found["remote_id"]) == ("delete", rid)
    assert found["pushes"] == [{"connection": "r2", "action": "delete", "fields": {}}]
    assert planned.plan["pushes"] == {"r2": {"delete": 1}}
    assert not world.record().dead
    apply(world, planned)
    assert world.record().dead
    world.work()
    assert not world.rows("r2")


@pytest.mark.parametrize("batch", [1, 4000])
def test_what_follows_from_an_earlier_batch_is_left_to_the_next_pull(batch):
    """Two new rows with one e-mail: the second is linked to what the first makes."""
    world = World("aa", match="email")
    tune(world, batch_records=batch)
    world.engine = replace(world.engine, tuning=replace(world.engine.tuning, page_records=1))
    for phone in ("1", "2"):
        world.add("r1", phone=phone, email="same@example.com")
    planned = plan(world, "r1")
    actions = [each for each, _ in said(decisions(world, planned))]
    assert actions == (["create", "later"] if batch == 1 else ["create", "create"])
    done = apply(world, planned)
    assert [each[1] for each in outcomes(decisions(world, done))].count("applied") == actions.count("create")
    tune(world, batch_records=4000)
    world.pull("r1")
    world.settle()
    assert len(world.records()) == 2


def test_the_brake_does_not_stop_a_plan_which_says_that_it_would():
    world = World("aa")
    tune(world, brake_deletes=1, brake_deletes_percent=0, brake_creates=2, brake_creates_percent=0)
    for number in range(4):
        world.add("r1", phone=str(number))
    planned = plan(world, "r1")
    (brake,) = planned.plan["brakes"]
    assert (planned.status, brake["what"], brake["at"], brake["amount"]) == ("succeeded", "creates", "r2", 4)
    assert state(world).stopped_run == ""
    apply(world, planned)
    assert len(world.records()) == 4
    world.work()
    for rid in sorted(world.rows("r1"))[:3]:
        world.remove("r1", rid)
    world.pull("r1")
    assert state(world).stopped_run
    planned = plan(world, "r1")
    assert (planned.plan["brakes"][0]["what"], planned.plan["actions"]) == ("deletes", {"delete": 3})
    with pytest.raises(Conflict, match="was stopped by the brake"):
        begin_apply(world, planned)


def test_a_full_plan_finds_what_the_feed_does_not_tell():
    world = linked("dd")
    rid = world.rid("r1")
    world.remove("r1", rid)
    assert decisions(world, plan(world, "r1")) == []
    begun = len(world.calls.texts)
    planned = plan(world, "r1", "full")
    assert (one(world, planned)["action"], writes(world, begun)) == ("delete", [])
    assert (planned.expected, planned.read) == (1, 0)
    assert outcomes(decisions(world, apply(world, planned))) == [("delete", "applied", None)]
    assert world.record().links["r1"].state == "gone"


def test_a_row_that_came_back_is_not_deleted_by_an_old_plan():
    world = linked("dd")
    world.remove("r1", world.rid("r1"))
    planned = plan(world, "r1", "full")
    row = next(iter(world.servers["r1"].rows[world.entity].values()))
    world.servers["r1"].restore(world.entity, row.rid, "person")
    (outcome,) = outcomes(decisions(world, apply(world, planned)))
    assert outcome[:2] == ("delete", "drifted")
    assert world.record().links["r1"].state == "live"


def test_a_plan_of_a_push_shows_fields_and_sends_just_those_records():
    world = linked("aa")
    world.edit(phone="5")
    planned = plan(world, "r2", "push")
    found = one(world, planned)
    assert (found["action"], found["fields"]) == ("update", {"phone": {"old": "0", "new": "5"}})
    assert planned.plan["pushes"] == {"r2": {"update": 1}}
    done = apply(world, planned)
    assert outcomes(decisions(world, done)) == [("update", "applied", None)]
    assert [row["phone"] for row in world.rows("r2").values()] == ["5"]
    assert [row["phone"] for row in world.rows("r1").values()] == ["0"]
    assert outcomes(decisions(world, apply(world, planned))) == [("update", "applied", "It was so already.")]
    world.edit(phone="6")
    (outcome,) = outcomes(decisions(world, apply(world, planned)))
    assert outcome == ("update", "drifted", "Changed at the hub since: phone.")


def test_a_push_finds_by_reading_what_it_would_not_make():
    world = World("aa", match="email")
    world.add("r2", email="same@example.com", phone="7")
    world.add("r1", email="same@example.com")
    world.pull("r1")
    begun = len(world.calls.texts)
    planned = plan(world, "r2", "push")
    found = one(world, planned)
    assert (found["action"], found["fields"]["phone"]) == ("link", {"old": None, "new": "7"})
    assert writes(world, begun) == []
    apply(world, planned)
    assert len(world.rows("r2")) == 1
    assert world.record().fields["phone"] == "7"


def test_a_limit_reads_so_many_and_leaves_the_place():
    world = World("aa", page=2)
    for number in range(5):
        world.add("r1", phone=str(number))
    place = state(world).cursor
    run = ask(world, "r1", "incremental", limit=3)
    work_on(world, run)
    assert (stored(world, run.id).read, len(world.records()), state(world).cursor) == (3, 3, place)
    planned = plan(world, "r1", limit=4)
    assert (planned.read, planned.plan["actions"]) == (4, {"create": 1})
    apply(world, planned)
    assert len(world.records()) == 4
    world.pull("r1")
    assert len(world.records()) == 5


def test_what_is_due_is_let_through_while_a_plan_is_applied():
    world = linked("aa")
    world.change("r1", phone="planned")
    planned = plan(world, "r1")
    world.add("r1", phone="new")
    due = replace(state(world), due="2020-01-01T00:00:00Z")
    world.engine.states.save_entity(TENANT, "r1", world.entity, due)
    done = apply(world, planned)
    assert outcomes(decisions(world, done)) == [("update", "applied", None)]
    assert len(world.records()) == 2
    assert done.counts["created"] == 0


def test_a_plan_grows_old():
    world = linked("aa")
    world.change("r1", phone="planned")
    planned = plan(world, "r1")
    world.later(timedelta(hours=24).total_seconds() - 60)
    begin_apply(world, planned)
    with pytest.raises(Conflict, match="is applying this plan now"):
        begin_apply(world, planned)
    world.later(120)
    with pytest.raises(Conflict, match="is older than 24 hours; make another one"):
        begin_apply(world, planned)


def test_options_that_make_no_sense_together_are_refused():
    world = linked("aa")
    for options, name in (({"limit": 1}, "limit"), ({"since": "2026-01-01T00:00:00Z"}, "since")):
        with pytest.raises(BadRequest, match=f"^{name}: a full run"):
            ask(world, "r1", "full", **options)
    with pytest.raises(BadRequest, match=r"^of: expected one of incremental, full, push\."):
        ask(world, "r1", "plan", of="batch")


@pytest.mark.parametrize("mode", ["incremental", "full", "plan", "push"])
@pytest.mark.parametrize("begun", [False, True])
def test_a_cancelled_run_stops_and_loses_nothing(mode, begun):
    world = World("aa", page=1)
    world.work()
    tune(world, batch_records=1, fresh_slice_seconds=0, bulk_slice_seconds=0)
    for number in range(4):
        world.add("r1", phone=str(number))
    run = ask(world, "r1", mode)
    if begun:
        _one_message(world)
        assert stored(world, run.id).status == "running"
    cancelled = cancelling.cancel(world.engine, TENANT, stored(world, run.id))
    assert (cancelled.status, cancelled.problem.code) == ("failed", "Cancelled")
    row = state(world)
    assert (row.lease_run, row.push_run, row.push_due) == ("", "", "")
    read = len(world.records())
    _one_message(world)
    assert stored(world, run.id) == cancelled
    assert len(world.records()) == read
    with pytest.raises(Conflict, match="only one that has not ended can be cancelled"):
        cancelling.cancel(world.engine, TENANT, cancelled)
    tune(world, batch_records=4000, fresh_slice_seconds=20, bulk_slice_seconds=240)
    world.settle()
    assert len(world.rows("r2")) == len(world.records()) == 4


def test_a_run_that_is_cancelled_while_its_worker_reads_stops_at_the_next_checkpoint():
    world = World("aa", page=1)
    tune(world, batch_records=1)
    for number in range(4):
        world.add("r1", phone=str(number))
    run = ask(world, "r1", "incremental")
    world.calls.after(
        "r1 changes",
        "1",
        happens=lambda: cancelling.cancel(world.engine, TENANT, stored(world, run.id)),
    )
    work_on(world, run)
    assert stored(world, run.id).problem.code == "Cancelled"
    assert len(world.records()) < 4
    schedule.tick(world.engine)
    world.settle()
    assert len(world.records()) == 4


def _one_message(world: World) -> None:
    lane = next((each for each in layout.QUEUES if world._handled(each)), None)
    assert lane is not None or not world.queue.receive(layout.FRESH)


def test_a_plan_whose_connection_is_gone_fails_and_one_that_is_unanswered_comes_again():
    world = linked("aa")
    world.change("r1", phone="5")
    run = ask(world, "r1", of="incremental")
    for _ in range(2):
        world.calls.before("r1 changes", happens=_unanswered)
    before = world.engine.states.read(TENANT, "r1")
    work_on(world, run)
    assert (stored(world, run.id).status, stored(world, run.id).problem) == ("succeeded", None)
    assert world.engine.states.read(TENANT, "r1") == before  # the connection is not told
    run = ask(world, "r1", of="full")
    world.forget("r1")
    work_on(world, run)
    assert stored(world, run.id).problem.code == "NotFound"


def _unanswered() -> None:
    from tests.sync.directed import unanswered

    unanswered()


def test_a_plan_of_a_lost_place_reads_everything():
    world = linked("aa")
    world.change("r1", phone="5")
    world.calls.before("r1 changes", happens=_expired)
    planned = plan(world, "r1")
    assert (planned.of, one(world, planned)["action"]) == ("full", "update")
    assert outcomes(decisions(world, apply(world, planned)))[0][1] == "applied"


def _expired() -> None:
    from crm_core.errors import CursorExpired

    raise CursorExpired("Gone.")


def test_digests_are_found_whatever_their_number(monkeypatch):
    monkeypatch.setattr(outcomes_module, "SORTED_AT_ONCE", 3)
    told = [Digest(number % 7, number) for number in range(1, 40)]
    index = Index(iter(told))
    assert all(each in index for each in told)
    assert sorted(index.says(3)) == [each.says for each in told if each.of == 3]
    assert Digest(3, 1000) not in index
    assert not list(index.says(99))
    numbers = Numbers()
    for number in range(50):
        numbers.add([number * 2])
    assert all((number in numbers) == (number % 2 == 0) for number in range(100))
    assert len(numbers) == 50


def test_a_message_of_a_plan_that_has_ended_does_nothing():
    world = linked("aa")
    planned = plan(world, "r1")
    begun = len(world.calls.texts)
    world.engine.send(layout.FRESH, Job("plan", TENANT, "r1", world.entity, planned.id))
    world.work()
    assert writes(world, begun) == []
    assert stored(world, planned.id) == planned


def test_what_carries_out_the_plan_of_a_push_stops_where_the_connection_is_paused():
    world = linked("aa")
    world.edit(phone="2")
    run = begin_apply(world, plan(world, "r1", of="push"))
    world.pause("r1")
    work_on(world, run)
    ended = stored(world, run.id)
    assert (ended.status, ended.problem.code) == ("failed", "Conflict")
    assert "was paused" in ended.problem.message
    assert [each["phone"] for each in world.rows("r1").values()] == ["0"]
    world.pause("r1", paused=False)
    world.settle()
    assert world.everywhere("phone") == [["2"]] * 3


def test_a_child_that_ends_just_now_does_not_keep_the_others_of_its_parent_going():
    world = World("aa", entities=("contact", "account"))
    asked = starting.Asked("full")
    parent = starting.start(world.engine, opened(world, "r1"), ["contact", "account"], asked, "key:test")
    first, second = parent.children
    world.calls.after("get runs", second, happens=lambda: work_on(world, stored(world, first)))
    cancelling.cancel(world.engine, TENANT, parent)
    assert stored(world, first).status == "succeeded"
    assert stored(world, second).problem.code == "Cancelled"
    with pytest.raises(Conflict, match="has ended"):
        cancelling.cancel(world.engine, TENANT, parent)


def test_of_two_threads_that_claim_one_key_in_a_plan_one_has_it():
    table, both = MemoryTable(), threading.Barrier(2)
    read = table.get

    def get(*about: str):
        found = read(*about)
        both.wait(5)
        return found

    table.get = get
    overlay = Overlay(table, Numbers())

    def claim(_: int) -> bool:
        try:
            overlay.insert(layout.KEYS, Row("pk", "rk"))
        except RowExists:
            return False
        return True

    with ThreadPoolExecutor(2) as pool:
        assert sorted(pool.map(claim, range(2))) == [False, True]


@pytest.mark.parametrize("mode", ["full", "stopped"])
def test_a_run_of_a_connection_that_can_t_be_opened_can_be_cancelled(mode):
    world = linked("aa")
    run = ask(world, "r1", "full")
    world.calls.after("r1 changes", happens=dies)
    with pytest.raises(Died):
        world.work()
    held = replace(state(world), lease_run=run.id, lease_until="9999-01-01T00:00:00.000000Z")
    if mode == "stopped":
        held = replace(state(world), stopped_run=run.id)
        world.engine.runs.save(TENANT, replace(stored(world, run.id), status="stopped"))
    world.engine.states.save_entity(TENANT, "r1", world.entity, held)

    def closed(*_: object):
        raise Misconfigured("The secret is gone.")

    cancelling.cancel(replace(world.engine, open=closed), TENANT, stored(world, run.id))
    assert (state(world).lease_run, state(world).stopped_run) == ("", "")
    assert stored(world, run.id).problem.code == "Cancelled"


def test_a_plan_does_not_fail_for_another_connection_that_can_t_be_opened():
    world = linked("aa")
    world.change("r1", phone="2")
    run = ask(world, "r1")
    opens = world.engine.open

    def some(tenant, uid: str):
        if uid == "r2":
            raise Misconfigured("The secret is gone.")
        return opens(tenant, uid)

    world.engine = replace(world.engine, open=some)
    work_on(world, run)
    planned = stored(world, run.id)
    assert (planned.status, planned.plan["pushes"]) == ("succeeded", {"r2": {"update": 1}})


@pytest.mark.parametrize("of", ["push", "undo"])
def test_what_goes_through_all_records_learns_soon_that_it_was_cancelled(of):
    world = linked("aa")
    world.change("r1", phone="2")
    pull = ask(world, "r1", "incremental")
    work_on(world, pull)
    if of == "push":
        run = ask(world, "r1", of=of)
    else:
        run = undoing.start(world.engine, TENANT, stored(world, pull.id), "key:test")
    world.calls.before(
        "query records", "~4'", happens=lambda: cancelling.cancel(world.engine, TENANT, stored(world, run.id))
    )
    begun = len(world.calls.texts)
    work_on(world, run)
    world.work()
    assert world.calls.all_happened()
    assert not [text for text in world.calls.texts[begun:] if "query records" in text and "~5'" in text]
    assert stored(world, run.id).problem.code == "Cancelled"
