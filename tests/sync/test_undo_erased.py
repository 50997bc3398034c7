"""Undo of a run of which the history does not tell everything any more: what can't be undone is a number with a reason, and
nothing is left silently out.
"""

import pytest

from crm_core.errors import Conflict
from crm_core.functions import plans
from crm_core.model.fields import hub_time
from crm_core.storage import layout
from crm_core.sync.undoing import planning, starting
from crm_core.sync.undoing.base import Slice
from tests.sync.directed import TENANT, World, linked
from tests.sync.planned import decisions, work_on
from tests.sync.test_undo_leaves import BY, applied, erase, planned, pulled
from tests.sync.test_undo_references import of_both

DAYS = 24 * 3600


def erase_of(world, record):
    """The history until now of whatever is in the record's bucket."""
    world.later(1)
    before = hub_time(world.clock.now())
    world.engine.records.drop_old_history(TENANT, record.entity, layout.bucket(record.id), before, "")


def of(number, *, of):
    return {
        "changes": number,
        "of": of,
        "why": f"{number} of the {of} changes that the run made can't be undone any more: the history keeps nothing of them."
        " It is kept for 90 days (HISTORY_DAYS).",
    }


@pytest.fixture
def two():
    """Two contacts in buckets of their own, whose phones a run has changed: (world, the run)."""
    world = World("aa")
    rids = [world.add("r1", phone=phone) for phone in ("0", "1")]
    world.settle()
    first, second = world.records()
    assert layout.bucket(first.id) != layout.bucket(second.id)
    for rid in rids:
        world.change("r1", rid, phone="wrong")
    run = pulled(world)
    assert run.counts["updated"] == 2
    return world, run


def test_a_run_of_which_nothing_is_known_is_refused(two):
    world, run = two
    erase(world)
    plan = planned(world, run)
    assert (plan.status, plan.problem.code) == ("failed", "Conflict")
    told = of(2, of=2)
    assert plan.problem.message == f"Nothing of the run {run.id} can be undone. {told['why']}"
    assert plan.plan["erased"] == told
    assert plans.summary(plan, {})["plan"]["erased"] == told
    with pytest.raises(
        Conflict, match=r"is failed; only one that succeeded .* Nothing of the run .*HISTORY_DAYS"
    ):
        starting.apply(world.engine, TENANT, plan, BY)
    assert world.everywhere("phone") == [["wrong"] * 2] * 3


@pytest.mark.parametrize("slices", [False, True])
def test_what_is_known_is_undone_and_the_rest_is_told(two, slices, monkeypatch):
    world, run = two
    if slices:
        monkeypatch.setattr(planning, "PAGE", 1)
        monkeypatch.setattr(Slice, "time_is_up", lambda _: True)
    lost, known = world.records()
    erase_of(world, lost)
    plan = planned(world, run)
    assert (plan.status, plan.plan["erased"]) == ("succeeded", of(1, of=2))
    assert (plan.slices > 10) is slices
    assert [(each["record_id"], each["action"]) for each in decisions(world, plan)] == [(known.id, "update")]
    assert plans.summary(plan, {})["plan"]["erased"]["changes"] == 1
    applied(world, plan)
    now = {each.id: each.fields["phone"] for each in world.records()}
    assert now[lost.id] == "wrong" != now[known.id]


def test_what_is_known_again_and_again_is_said_each_time(two):
    world, run = two
    erase_of(world, world.records()[0])
    applied(world, planned(world, run))
    plan = planned(world, run)
    assert (plan.status, decisions(world, plan), plan.plan["erased"]) == ("succeeded", [], of(1, of=2))


def test_nothing_is_said_of_a_run_that_is_known_though_others_are_not(two):
    world, _ = two
    erase(world)
    for each in world.records():
        world.change("r1", each.links["r1"].rid, phone="wrong again")
    plan = planned(world, pulled(world))
    assert (plan.plan["actions"], "erased" in plan.plan) == ({"update": 2}, False)
    assert "erased" not in plans.summary(plan, {})["plan"]


def test_what_was_lost_at_another_time_is_not_taken_for_the_run_s(two):
    world, _ = two
    world.later(60)
    for each in world.records():
        world.change("r1", each.links["r1"].rid, phone="wrong again")
    run = pulled(world)
    world.engine.records.drop_old_history(
        TENANT, world.entity, layout.bucket(world.records()[0].id), run.started_at, ""
    )
    assert "erased" not in planned(world, run).plan


def test_what_a_run_made_is_known_without_a_history():
    world = World("aa")
    world.add("r1", phone="0")
    run = pulled(world)
    erase(world)
    plan = planned(world, run)
    assert (plan.plan["actions"], "erased" in plan.plan) == ({"delete": 1}, False)


def test_changes_of_a_record_that_became_another_one_are_known():
    world = linked("aa")
    second = world.add("r1", phone="1")
    world.settle()
    world.change("r1", second, phone="2")
    run = pulled(world)
    kept, duplicate = sorted(world.records(), key=lambda each: each.fields["phone"])
    world._editor().unite(duplicate.id, kept.id)
    plan = planned(world, run)
    assert (decisions(world, plan), "erased" in plan.plan) == ([], False)


def test_the_parts_of_a_run_are_summed():
    world = World("aa", entities=("contact", "account"))
    rids = world.add("r1", phone="0"), world.add("r1", "account", name="A")
    of_both(world)
    world.change("r1", rids[0], phone="1")
    world.change("r1", rids[1], "account", name="B")
    run = of_both(world)
    erase(world)  # of the contacts
    plan = planned(world, run)
    assert (plan.plan["actions"], plan.plan["erased"]) == ({"update": 1}, of(1, of=2))


def test_a_run_that_is_older_than_any_history_is_refused_at_once(two):
    world, run = two
    world.later(105 * DAYS)  # one bucket a day is gone through, so it may still be there
    starting.start(world.engine, TENANT, run, BY)
    world.later(2 * DAYS)
    with pytest.raises(
        Conflict, match=r"it ended at .* history of its 2 changes is kept for 90 days \(HISTORY_DAYS\)"
    ):
        starting.start(world.engine, TENANT, run, BY)


def test_an_old_run_that_made_records_is_planned():
    world = World("aa")
    world.add("r1", phone="0")
    run = pulled(world)
    world.later(110 * DAYS)
    plan = starting.start(world.engine, TENANT, run, BY)
    work_on(world, plan)
    assert decisions(world, world.engine.runs.get(TENANT, plan.id))[0]["action"] == "delete"
