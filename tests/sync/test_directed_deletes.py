"""Deletes at the wrong moment, each as its sequence of steps. What holds these tests: see test_directed.py."""

from tests.sync.directed import World, dies, linked


def _older_page(world):
    """A pull whose page is almost ten seconds old, and tells once more what was told."""
    world.chances["r2"].lag, world.chances["r2"].again = 0.64, True
    world.pull("r2")
    world.chances["r2"].lag, world.chances["r2"].again = 0.0, False


def being_made():
    """A world whose only row is still to be made at the second remote, and what a person does there at the worst moment:
    he deletes it, and a pull reads that.
    """
    world = World("ab")
    world.add("r1")
    world.pull("r1")

    def removed():
        world.remove("r2")
        world.pull("r2")

    return world, removed


def push_to_its_end(world):
    """The delete is known in the end, and passed on."""
    world.push("r2")
    world.settle()
    assert world.record().dead
    assert world.everywhere("last_name") == [[]] * 3


def test_a_delete_that_is_read_before_the_row_has_a_redirect_is_not_lost():
    """Fault 14. A row is made; before its id is known here a person deletes it, and a pull reads that of an id that
    nobody knows. The record is linked to that id afterwards: it has to be looked at.
    """
    world, meanwhile = being_made()
    world.calls.after("r2 create", happens=meanwhile)
    push_to_its_end(world)


def test_a_delete_that_is_read_just_before_the_row_gets_its_redirect_is_not_lost():
    """Fault 14. The same after a look found nothing at the id, and before the redirect is written there."""
    world, meanwhile = being_made()
    world.calls.after(
        "r2 create", happens=lambda: world.calls.before("insert records", "redirect", happens=meanwhile)
    )
    push_to_its_end(world)


def test_what_is_held_for_a_delete_is_not_closed_before_the_row_has_its_redirect():
    """Fault 14. The delete was read, the id is held to be looked at, and somebody looks at it too early."""
    world, removed = being_made()

    def meanwhile():
        removed()
        world.calls.after("upsert events", happens=lambda: world.held("r2"))

    world.calls.after("r2 create", happens=meanwhile)
    push_to_its_end(world)


def test_a_delete_that_is_read_while_the_row_is_being_made_is_not_lost():
    """Fault 14. The same between the redirect and the link: the id leads to a record that does not know it yet."""
    world, meanwhile = being_made()
    world.calls.after("insert records", "redirect", happens=meanwhile)
    push_to_its_end(world)


def test_our_own_delete_is_not_taken_for_a_persons():
    """Fault 15. A person deletes the row at one remote; it is deleted at the other, and the worker dies before it says
    so. The person restores the row: the record lives again. That it is gone at the other one is our own doing.
    """
    world = linked("aa")
    rid = world.rid("r1")
    world.remove("r1")
    world.pull("r1")
    world.calls.after("r2 delete", happens=dies)
    world.dies(lambda: world.push("r2"))
    world.servers["r1"].restore("contact", rid, "person")
    world.pull("r1")
    assert not world.record().dead
    world.settle()
    assert world.everywhere("phone") == [["0"]] * 3


def test_a_delete_does_not_take_an_edit_along_that_nobody_read():
    """Fault 16. A person deletes the row at one remote while another one edits it at the other: the delete that goes
    there is upon what was read, so it is refused, and the edit brings the record back.
    """
    world = linked("aa")
    world.change("r2", phone="1")
    world.remove("r1")
    world.pull("r1")
    world.push("r2")
    world.settle()
    assert world.everywhere("phone") == [["1"]] * 3


def test_a_delete_that_nothing_guards_looks_first():
    """Fault 16. The same where the remote knows no If-Match: a look before the delete tells of the edit."""
    world = linked("ad")
    world.change("r2", phone="1")
    world.remove("r1")
    world.pull("r1")
    world.push("r2")
    world.settle()
    assert world.everywhere("phone") == [["1"]] * 3


def test_an_old_page_does_not_bring_a_deleted_record_back():
    """Fault 17. A row is deleted everywhere. A list that is a few seconds behind then shows it as it was."""
    world = linked("ac")
    world.change("r2", phone="1")
    world.pull("r2")
    world.later(9)
    world.remove("r2")
    world.pull("r2")
    assert world.record().dead
    _older_page(world)
    assert world.record().dead
    world.later(60)
    world.settle()
    assert world.everywhere("phone") == [[]] * 3


def test_an_old_page_does_not_delete_a_row_that_was_restored():
    """A row is deleted and restored at once; a list that is a few seconds behind tells of the delete alone."""
    world = linked("ac")
    kept, rid = world.rid("r1"), world.rid("r2")
    world.remove("r2")
    world.servers["r2"].restore("contact", rid, "person")
    world.later(9)
    _older_page(world)
    assert not world.record().dead
    world.settle()
    assert (world.rid("r1"), world.rid("r2")) == (kept, rid)


def test_an_old_page_makes_nothing_of_a_row_that_the_hub_never_had():
    """Fault 17. A row is made and deleted before the hub read it; it reads the delete, and then an older list."""
    world = World("ac")
    rid = world.add("r2")
    world.later(9)
    world.remove("r2", rid)
    world.pull("r2")
    _older_page(world)
    assert world.records() == []
    world.later(60)
    world.settle()
    assert world.everywhere("last_name") == [[]] * 3


def test_a_delete_of_a_former_id_is_none_of_the_row_that_came_after_it():
    """Fault 18. A row is deleted before an edit gets there, so it is made anew under another id. A list that is a few
    seconds behind tells of the delete, and not yet of the new row.
    """
    world = linked("ac")
    kept, former = world.rid("r1"), world.rid("r2")
    world.edit(phone="1")
    world.remove("r2")
    world.push("r2")
    assert world.rid("r2") != former
    world.later(9)
    _older_page(world)
    assert not world.record().dead
    world.settle()
    assert world.rid("r1") == kept
    assert world.everywhere("phone") == [["1"]] * 3


def test_a_delete_of_a_double_is_none_of_the_record_that_it_was_one_of():
    """Fault 18. Two rows of one key: the second is kept apart, and a person deletes it."""
    world = linked("aa", match="email")
    kept = world.rid("r1")
    double = world.add("r1", email="p@example.com")
    world.pull("r1")
    assert world.items("review")
    world.remove("r1", double)
    world.settle()
    assert world.rid("r1") == kept
    assert world.everywhere("phone") == [["0"]] * 3
