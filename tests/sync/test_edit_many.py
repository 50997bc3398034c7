"""Many writes of an app in one call, and a store that stops answering in the middle of it."""

import pytest

from crm_core.errors import NotBegun, StoreUnavailable
from crm_core.model.entities import ENTITIES
from crm_core.storage import layout
from crm_core.sync.edit_many import Edit, ManyEditor
from tests.sync.directed import TENANT, World

BY = "key:test"
IDS = [f"{bucket}0000000-0000-4000-8000-000000000000" for bucket in layout.BUCKETS[:8]]


@pytest.fixture
def world():
    return World("a")


def away():
    raise StoreUnavailable("away")


def editor(world):
    return ManyEditor(world.engine, TENANT, ENTITIES["contact"], BY)


def creates(ids):
    return [Edit("create", record_id, {"last_name": record_id[0]}) for record_id in ids]


def told(outcomes):
    """Of each what it says happened."""
    known = {type(None): "written", NotBegun: "not begun"}
    return [
        "unknown" if getattr(each.error, "outcome_unknown", False) else known[type(each.error)]
        for each in outcomes
    ]


@pytest.mark.parametrize("is_written", [True, False], ids=["the answer is lost", "the request is lost"])
def test_what_the_store_wrote_before_it_stopped_answering_is_told(world, is_written):
    then = world.calls.after if is_written else world.calls.before
    world.calls.after("transact records", happens=lambda: then("transact records", happens=away))
    outcomes = editor(world).carry_out(creates(IDS))
    said, there = told(outcomes), {each.id for each in world.records()}
    assert said == ["written", "unknown", *["not begun"] * 6]
    for each, record_id, outcome in zip(said, IDS, outcomes, strict=True):
        if each == "unknown":
            assert (record_id in there) == is_written
        else:
            assert (record_id in there) == (each == "written") == (outcome.record is not None)
    again = editor(world).carry_out(creates(IDS))
    assert told(again) == ["written"] * 8
    assert len(world.records()) == 8


def test_of_one_bucket_the_transactions_before_are_told_too(world):
    ids = [f"a{number:07}-0000-4000-8000-000000000000" for number in range(120)]
    calls = world.calls
    calls.after("transact records", happens=lambda: calls.before("transact records", happens=away))
    said = told(editor(world).carry_out(creates(ids)))
    assert said == [*["written"] * 50, *["unknown"] * 50, *["not begun"] * 20]
    assert {each.id for each in world.records()} == set(ids[:50])


def test_where_the_store_does_not_even_read_nothing_is_begun(world):
    world.calls.before("get records", happens=away)
    edits = [Edit("update", record_id, {"last_name": "New"}) for record_id in IDS]
    assert told(editor(world).carry_out(edits)) == ["not begun"] * 8


def test_a_wake_up_that_is_not_taken_changes_no_outcome(world, monkeypatch):
    monkeypatch.setattr(world.queue, "send", lambda *_: away())
    assert told(editor(world).carry_out(creates(IDS))) == ["written"] * 8
    assert len(world.records()) == 8
