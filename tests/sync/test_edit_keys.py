"""The match key of a record is its own until the write that gives it up is made."""

import pytest

from crm_core.errors import Conflict, Stale
from crm_core.model.entities import ENTITIES
from crm_core.sync.edit_many import Edit, ManyEditor
from crm_core.sync.undo import Undoer
from tests.sync.directed import TENANT, World

BY = "key:test"


@pytest.fixture
def world():
    """A hub with one record, that everybody is matched with by its e-mail."""
    made = World("aa", match="email")
    made.forget("r2")
    made._editor().create({"last_name": "P", "email": "old@example.com"})
    return made


def one_by_one(world, record, if_match=""):
    world._editor().update(record.id, {"email": "new@example.com"}, if_match)


def many(world, record, if_match=""):
    edit = Edit("update", record.id, {"email": "new@example.com"}, if_match)
    (done,) = ManyEditor(world.engine, TENANT, ENTITIES["contact"], BY).carry_out([edit])
    if done.error is not None:
        raise done.error


@pytest.mark.parametrize("write", [one_by_one, many])
def test_a_write_that_is_refused_after_its_claim_gives_nothing_up(world, write):
    record = world.record()
    world.calls.before("transact records", happens=lambda: world._editor().update(record.id, {"phone": "1"}))
    with pytest.raises(Stale):
        write(world, record, "1")
    assert world.record().fields["email"] == "old@example.com"
    with pytest.raises(Conflict):
        world._editor().create({"last_name": "Q", "email": "old@example.com"})
    assert len(world.records()) == 1


def back(world, record):
    Undoer(world.engine, TENANT, ENTITIES["contact"], BY).undo(record.id, 1)


@pytest.mark.parametrize("write", [one_by_one, many])
def test_a_key_that_was_given_up_is_free(world, write):
    record = world.record()
    write(world, record)
    world._editor().create({"last_name": "Q", "email": "old@example.com"})
    with pytest.raises(Conflict):
        back(world, record)
    other = next(each for each in world.records() if each.id != record.id)
    world._editor().update(other.id, {"email": "other@example.com"})
    back(world, record)
    world._editor().create({"last_name": "R", "email": "new@example.com"})
    assert sorted(each.fields["email"] for each in world.records()) == [
        "new@example.com", "old@example.com", "other@example.com",
    ]  # fmt: skip
