"""Undo of a run leaves what it can't know of, and what was linked with others; and the plans that are carried out no more."""

from dataclasses import replace

import pytest

from crm_core.errors import Conflict
from crm_core.model.fields import hub_time
from crm_core.storage import layout
from crm_core.storage.records import RecordWrite
from crm_core.sync import starting as runs
from crm_core.sync.undoing import starting
from tests.sync.directed import TENANT, World, linked
from tests.sync.planned import ask, decisions, opened, outcomes, stored, work_on

BY = "key:test"


def pulled(world):
    run = ask(world, "r1", "incremental")
    work_on(world, run)
    world.settle()
    return stored(world, run.id)


def planned(world, run):
    plan = starting.start(world.engine, TENANT, run, BY)
    work_on(world, plan)
    return stored(world, plan.id)


def applied(world, plan):
    run = starting.apply(world.engine, TENANT, plan, BY)
    work_on(world, run)
    world.settle()
    return stored(world, run.id)


def erase(world):
    """The history of everything until now."""
    world.later(1)
    for bucket in layout.BUCKETS:
        world.engine.records.drop_old_history(TENANT, world.entity, bucket, hub_time(world.clock.now()), "")


def same_row_at(world, uid):
    return world.add(uid, email="p@example.com", phone="0")


def test_a_record_that_is_linked_with_a_row_which_was_there_is_left():
    world = World("aa", match="email")
    same_row_at(world, "r2")
    same_row_at(world, "r1")
    run = pulled(world)
    assert (run.counts["created"], world.record().version) == (1, 1)
    assert [world.record().links[uid].found for uid in ("r1", "r2")] == [False, True]
    plan = planned(world, run)
    assert [(each["action"], each["pushes"]) for each in decisions(world, plan)] == [("conflict", [])]
    applied(world, plan)
    assert world.everywhere("phone") == [["0"]] * 3


def test_one_that_is_linked_with_such_a_row_after_the_plan_is_left():
    world = World("aa", match="email")
    world.only_written("r2")
    same_row_at(world, "r1")
    run = ask(world, "r1", "incremental")
    work_on(world, run)
    plan = planned(world, stored(world, run.id))
    assert [each["action"] for each in decisions(world, plan)] == ["delete"]
    same_row_at(world, "r2")
    world.settle()
    done = applied(world, plan)
    assert outcomes(decisions(world, done)) == [
        ("delete", "drifted", "Linked since with one that was there before.")
    ]
    assert world.everywhere("phone") == [["0"]] * 3


def test_one_that_was_united_with_another_is_left():
    world = World("aa", match="email")
    world.forget("r2")
    same_row_at(world, "r1")
    run = pulled(world)
    kept = world.record()
    second = world.add("r1", phone="0")
    world.pull("r1")
    other = next(each for each in world.records() if each.id != kept.id)
    assert second == other.links["r1"].rid
    world._editor().unite(other.id, kept.id)
    told = decisions(world, planned(world, run))
    assert [each["action"] for each in told] == ["conflict"]


def test_what_the_history_does_not_tell_any_more_is_taken_for_a_change_of_somebody():
    world = linked("aa")
    world.add("r1", phone="1", email="q@example.com")
    world.change("r1", next(iter(world.rows("r1"))), phone="2")
    run = pulled(world)
    assert (run.counts["created"], run.counts["updated"]) == (1, 1)
    for each in world.records():
        world.edit(each.id, phone="9")
    world.settle()
    erase(world)
    world.edit(next(each.id for each in world.records() if each.created["run"] != run.id), job_title="New")
    told = decisions(world, planned(world, run))
    assert [each["action"] for each in told] == ["conflict"]  # of the other nothing is known at all
    assert "Nothing is known any more" in told[0]["why"]
    assert world.everywhere("phone") == [["9", "9"]] * 3


def test_a_change_after_the_plan_that_the_history_has_lost_is_not_written_over():
    world = linked("aa")
    world.change("r1", phone="2")
    run = pulled(world)
    plan = planned(world, run)
    world.edit(phone="9")
    world.settle()
    erase(world)
    done = applied(world, plan)
    ((action, outcome, why),) = outcomes(decisions(world, done))
    assert (action, outcome) == ("update", "drifted")
    assert why.startswith("Nothing is known any more of version ")
    assert world.everywhere("phone") == [["9"]] * 3


def test_what_a_run_did_to_a_record_that_became_another_one_is_not_undone_at_the_next_one_of_its_id():
    world = World("aa", match="email")
    world.forget("r2")
    kept = world._editor().create({"last_name": "P", "phone": "k"})
    rid = world.add("r1", phone="1")
    world.pull("r1")
    duplicate = next(each for each in world.records() if each.id != kept.id)
    world.change("r1", rid, phone="2")
    run = pulled(world)
    assert run.counts["updated"] == 1
    world._editor().unite(duplicate.id, kept.id)
    ended = world.engine.records.get(TENANT, world.entity, duplicate.id)
    assert ended is not None
    # what has the id now is another record, as the applier makes one where two rows are told apart again
    made = replace(duplicate, version=ended.content.version + 1, fields={"last_name": "New", "phone": "7"})
    bucket = layout.bucket(duplicate.id)
    world.engine.records.commit(
        TENANT, world.entity, bucket, [RecordWrite(duplicate.id, ended, replace(made, links={}))]
    )
    told = decisions(world, planned(world, run))
    assert [each for each in told if each["record_id"] == duplicate.id] == []


def test_the_undo_of_what_undid_a_run_of_several_entities_is_of_all_of_them():
    world = World("aa", entities=("contact", "account"))
    world.add("r1", phone="1")
    world.add("r1", "account", name="A")
    run = runs.start(world.engine, opened(world, "r1"), ["contact", "account"], runs.Asked("full"), BY)
    for each in run.children:
        work_on(world, stored(world, each))
    world.settle()
    undo = applied(world, planned(world, run))
    assert (undo.entity, undo.counts) == ("", {"deleted": 2})
    assert all(record.dead for entity in ("contact", "account") for record in world.records(entity))
    again = applied(world, planned(world, undo))
    assert again.counts == {"updated": 2}
    assert not any(record.dead for entity in ("contact", "account") for record in world.records(entity))


def test_an_old_plan_of_an_undo_is_refused():
    world = linked("aa")
    world.change("r1", phone="2")
    plan = planned(world, pulled(world))
    world.later(25 * 3600)
    with pytest.raises(Conflict, match="older than 24 hours"):
        starting.apply(world.engine, TENANT, plan, BY)


def test_what_is_to_be_done_with_a_run_that_is_not_kept_any_more_fails_and_says_so():
    world = linked("aa")
    world.change("r1", phone="2")
    run = pulled(world)
    plan = planned(world, run)
    undo = starting.apply(world.engine, TENANT, plan, BY)
    second = starting.start(world.engine, TENANT, run, BY)
    world.engine.runs.delete(TENANT, [plan, run])
    for each in (undo, second):
        work_on(world, each)
        ended = stored(world, each.id)
        assert (ended.status, ended.problem.code) == ("failed", "NotFound")
