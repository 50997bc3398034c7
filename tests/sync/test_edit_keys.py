"""The match key of a record is its own until the write that gives it up is made."""

import pytest

from crm_core.errors import Conflict, Stale
from crm_core.model.entities import ENTITIES
from crm_core.sync import conflicts, resolving
from crm_core.sync.edit_many import Edit, ManyEditor
from crm_core.sync.undo import Undoer
from tests.sync.directed import TENANT, World, dies, linked

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


# --- a key is freed after the record that had it was written, whoever gives it another one ---------------------


def pulled(world):
    """A person changes the e-mail at a system."""
    world.change("r1", email="new@example.com")
    return lambda: world.pull("r1")


def looked_at(world):
    """The same, found by a push that looks before it sends."""
    world.change("r1", email="new@example.com")
    world.edit(phone="2")
    return lambda: world.push("r1")


def decided(world):
    """A person takes the system's e-mail of two."""
    world.edit(email="ours@example.com")
    world.change("r1", email="new@example.com")
    world.settle()
    world.edit(email="p@example.com")  # the conflict stays as it is
    (asked,) = conflicts.of(world.record())
    return lambda: resolving.resolve(world._editor(), asked, "theirs")


def edited(world):
    return lambda: world._editor().update(world.record().id, {"email": "new@example.com"})


def taken_back(world):
    """An undo gives the record the e-mail that it had."""
    world.edit(email="new@example.com")
    world.edit(email="p@example.com")
    return lambda: Undoer(world.engine, TENANT, ENTITIES["contact"], BY).undo(
        world.record().id, world.record().version - 1
    )


WAYS = [pulled, looked_at, decided, edited, taken_back]


def key_of(world, email):
    return world.engine.keys.match_of(TENANT, "contact", f"email~{email}")


@pytest.fixture(params=WAYS, ids=lambda way: way.__name__)
def change(request):
    """A world with a contact of p@example.com, and a call that gives it new@example.com."""
    made = linked("aa" if request.param is not looked_at else "fa", match="email", policy="manual")
    return made, request.param(made)


def test_a_change_moves_the_claim_from_the_old_key_to_the_new_one(change):
    world, happens = change
    record = world.record()
    happens()
    assert world.record().fields["email"] == "new@example.com"
    assert key_of(world, "new@example.com") == record.id
    assert key_of(world, "p@example.com") is None


def test_a_worker_that_dies_before_the_record_is_written_gives_no_key_up(change):
    world, happens = change
    record = world.record()
    world.calls.before("transact records", "~contact~", happens=dies)
    world.dies(happens)
    assert world.record().fields["email"] == "p@example.com"
    with pytest.raises(Conflict):
        world._editor().create({"last_name": "Q", "email": "p@example.com"})
    assert key_of(world, "p@example.com") == record.id
    # what it had claimed already is nobody's: whoever needs it takes it
    other = world._editor().create({"last_name": "Q", "email": "new@example.com"})
    assert key_of(world, "new@example.com") == other.id != record.id


def test_a_worker_that_dies_after_it_leaves_a_key_that_whoever_needs_it_takes(change):
    world, happens = change
    record = world.record()
    world.calls.before("delete keys", happens=dies)
    world.dies(happens)
    assert world.record().fields["email"] == "new@example.com"
    assert key_of(world, "new@example.com") == record.id
    assert key_of(world, "p@example.com") == record.id  # of nobody any more
    with pytest.raises(Conflict):
        world._editor().create({"last_name": "Q", "email": "new@example.com"})
    other = world._editor().create({"last_name": "Q", "email": "p@example.com"})
    assert key_of(world, "p@example.com") == other.id != record.id


def test_a_key_that_the_record_has_again_before_it_was_freed_stays_its_own(change):
    world, happens = change
    record = world.record()
    world.calls.before(
        "delete keys", happens=lambda: world._editor().update(record.id, {"email": "p@example.com"})
    )
    happens()
    assert world.calls.all_happened()
    assert world.record().fields["email"] == "p@example.com"
    assert key_of(world, "p@example.com") == record.id
    with pytest.raises(Conflict):
        world._editor().create({"last_name": "Q", "email": "p@example.com"})


def test_a_write_that_is_refused_because_the_row_has_moved_on_gives_nothing_up(change):
    world, happens = change
    record = world.record()
    seen = []

    def somebody_writes():
        world._editor().update(record.id, {"job_title": "New"})
        world.calls.before(
            "transact records", "~contact~", happens=lambda: seen.append(key_of(world, "p@example.com"))
        )

    world.calls.before("transact records", "~contact~", happens=somebody_writes)
    happens()
    assert seen == [record.id]


def test_a_row_that_takes_what_another_one_gives_up_makes_a_record_of_its_own():
    world = linked("aa", match="email")
    first = world.record()
    world.change("r1", email="new@example.com")
    world.add("r1", email="p@example.com", phone="7")
    world.pull("r1")
    by_email = {each.fields["email"]: each for each in world.records()}
    assert by_email.keys() == {"p@example.com", "new@example.com"}
    assert by_email["new@example.com"].id == first.id
    assert {email: key_of(world, email) for email in by_email} == {
        email: each.id for email, each in by_email.items()
    }
    assert world.items("review") == set()
    world.settle()
    assert world.everywhere("phone") == [["0", "7"]] * 3


def test_two_rows_that_change_their_keys_with_each_other_are_never_one():
    world = linked("aa", match="email")
    rids = [world.rid("r1"), world.add("r1", email="q@example.com", phone="7")]
    world.settle()
    for rid, email in zip(rids, ("q@example.com", "p@example.com"), strict=True):
        world.change("r1", rid, email=email)
    world.settle()
    assert len(world.records()) == 2
    assert world.items("review") == set()
    found = {each.fields["phone"]: each.fields["email"] for each in world.records()}
    assert found == {"0": "q@example.com", "7": "p@example.com"}


def test_the_key_that_one_system_goes_by_is_claimed_when_another_one_changes_it():
    world = linked("aa", match="email")
    world.match("r2", "")
    record = world.record()
    world.change("r2", email="new@example.com")
    world.pull("r2")
    assert key_of(world, "new@example.com") == record.id
    with pytest.raises(Conflict):
        world._editor().create({"last_name": "Q", "email": "new@example.com"})


def test_two_who_want_a_key_that_is_nobody_s_any_more_do_not_both_get_it(world):
    record = world.record()
    world.calls.before("delete keys", happens=dies)
    world.dies(lambda: world.edit(email="new@example.com"))
    others = [world._editor().create({"last_name": name, "phone": name}) for name in ("Q", "R")]
    world.calls.before(
        "replace keys", happens=lambda: world._editor().update(others[1].id, {"email": "old@example.com"})
    )
    with pytest.raises(Conflict):
        world._editor().update(others[0].id, {"email": "old@example.com"})
    assert key_of(world, "old@example.com") == others[1].id != record.id


def test_a_deleted_record_that_lives_again_by_one_of_its_keys_has_the_others_too():
    world = World("aa", match="phone")
    world.match("r2", "email")
    dead = world._editor().create({"last_name": "P", "phone": "55"})
    world.settle()
    world._editor().delete(dead.id)
    world.settle()
    again = world._editor().create({"last_name": "P", "phone": "55", "email": "new@example.com"})
    assert again.id == dead.id
    assert key_of(world, "new@example.com") == dead.id
    world.add("r2", email="new@example.com", phone="55")
    world.pull("r2")
    assert [each.id for each in world.records()] == [dead.id]
