"""How one thing becomes two, or two become one, each as its sequence of steps. What holds these tests: see
test_directed.py.
"""

from crm_core.errors import Conflict
from tests.sync.directed import UNTIL, World, dies, linked


def test_of_two_first_sights_one_makes_the_record():
    """Fault 10. Two remotes show the same address for the first time; while the worker of the one claims it, the
    other's does all its work.
    """
    world = World("aa", match="email")
    world.add("r1", email="p@example.com")
    world.add("r2", email="P@example.com")
    world.calls.before("sert keys", happens=lambda: world.pull("r2"))  # an insert, or an upsert
    world.pull("r1")
    world.settle()
    assert len(world.records()) == 1
    assert world.everywhere("last_name") == [["P"]] * 3


def test_nothing_is_made_where_the_first_load_is_not_done():
    """What a remote has is not in the hub yet: the row that would be made may be among it."""
    world = World("ab")
    world.forget_first_load("r2")
    world.add("r1")
    world.pull("r1")
    world.push("r2")
    assert world.sent("r2", "create") == 0
    world.settle()
    assert world.everywhere("last_name") == [["P"]] * 3


def test_a_row_that_the_index_does_not_show_yet_is_waited_for():
    """Fault 13. A create gets no answer, and is carried out at the last moment. For twenty seconds a search by its
    marker finds nothing.
    """
    world = World("ab")
    world.add("r1")
    world.pull("r1")
    arrives = world.calls.late("r2 create")
    world.push("r2")
    world.later(UNTIL - 2)
    arrives()
    world.chances["r2"].lag = 1.0
    world.later(4)
    world.push("r2")
    world.later(20)
    world.settle()
    assert len(world.rows("r2")) == 1


def test_a_row_under_our_own_id_leads_to_its_record_before_it_is_made():
    """Fault 11. A row is made under an id of ours, and a pull sees it before the answer is here."""
    world = World("aa")
    world.add("r1")
    world.pull("r1")
    world.calls.after("r2 create", happens=lambda: world.pull("r2"))
    world.push("r2")
    world.settle()
    assert len(world.records()) == 1
    assert world.everywhere("last_name") == [["P"]] * 3


def test_a_row_that_bears_our_marker_is_what_we_are_making():
    """Fault 11. The same at a remote that chooses its ids: the row is known by its marker alone."""
    world = World("ab")
    world.add("r1")
    world.pull("r1")
    world.calls.after("r2 create", happens=lambda: world.pull("r2"))
    world.push("r2")
    world.settle()
    assert len(world.records()) == 1
    assert world.everywhere("last_name") == [["P"]] * 3


def test_a_row_leads_to_its_record_before_the_record_is_linked_to_it():
    """Fault 12. A worker makes a row, and dies as soon as the record says so."""
    world = World("ab")
    world.add("r1")
    world.pull("r1")
    world.calls.after(
        "r2 create", happens=lambda: world.calls.after("transact records", '"rid":"r21"', happens=dies)
    )
    world.dies(lambda: world.push("r2"))
    world.settle()
    assert len(world.records()) == 1
    assert world.everywhere("last_name") == [["P"]] * 3


def test_nobody_elses_row_takes_the_place_of_one_that_is_being_made():
    """Fault 19. While a row is made a person enters one of the same address there, and a pull reads that first. It is
    a double, about which a person decides; the record's row is the one that was made for it.
    """
    world = World("ab", match="email")
    world.add("r1", email="p@example.com")
    world.pull("r1")
    theirs = []

    def meanwhile():
        theirs.append(world.add("r2", email="p@example.com"))
        world.pull("r2")

    world.calls.before("r2 create", happens=meanwhile)
    world.push("r2")
    world.settle()
    assert len(world.records()) == 2
    first, double = sorted(world.records(), key=lambda each: len(each.reviews))
    (ours,) = world.rows("r2").keys() - {*theirs}
    assert first.links["r2"].rid == ours
    assert double.links["r2"].rid == theirs[0]
    assert double.reviews[0]["record"] == first.id
    assert len(world.rows("r1")) == 1


def test_a_row_that_matches_a_dead_record_brings_that_one_back():
    """Fault 20. A person is deleted everywhere, and entered anew. A second record would stand beside the first, which any
    edit that was not read yet can bring back.
    """
    world = linked("aa", match="email")
    before = world.record().id
    world.remove("r1")
    world.pull("r1")
    world.work()
    assert world.record().dead
    world.add("r1", email="p@example.com", phone="1")
    world.settle()
    assert world.record().id == before
    assert world.everywhere("phone") == [["1"]] * 3


def test_a_row_whose_forerunner_is_gone_is_no_double():
    """Fault 20. A person is deleted and entered anew at once, and the feed tells of the second row alone."""
    world = linked("ae", match="email")
    world.remove("r2")
    world.add("r2", email="p@example.com", phone="1")
    world.settle()
    assert not world.items("review")
    assert not world.record().dead
    assert world.everywhere("phone") == [["1"]] * 3


def test_a_row_whose_own_id_is_anothers_record_is_kept_apart():
    """Fault 26. A worker claims the key of a row and dies. A second row of that key makes the record, at the first
    one's id. The first one is a double, and its own id is taken.
    """
    world = World("aa", match="email")
    first = world.add("r1", email="p@example.com")
    world.calls.after("insert keys", happens=dies)
    world.dies(lambda: world.pull("r1"))
    second = world.add("r1", email="p@example.com")
    world.hint("r1", second)
    made = world.record()
    assert made.links["r1"].rid == second
    world.later(100)
    world.settle()
    (double,) = [each for each in world.records() if each.id != made.id]
    assert (double.links["r1"].rid, double.reviews[0]["record"]) == (first, made.id)
    assert len(world.rows("r2")) == 1


def test_a_row_that_is_restored_before_it_is_made_anew_is_the_records_again():
    """Fault 28. A row is deleted before an edit gets there, so another is to be made; before that it is restored."""
    world = linked("aa", policy="local")
    rid = world.rid("r2")
    world.edit(phone="1")
    world.remove("r2")
    world.pull("r2")
    world.servers["r2"].restore("contact", rid, "person")
    world.pull("r2")
    world.settle()
    assert world.rid("r2") == rid
    assert world.everywhere("phone") == [["1"]] * 3


def is_taken(world, email):
    """Whether an app is refused another record of an address."""
    try:
        world._editor().create({"last_name": "Q", "email": email})
    except Conflict:
        return True
    return False


def test_a_key_is_its_records_own_until_another_one_is_written():
    world = linked("aa", match="email")
    world.change("r1", email="new@example.com")
    world.calls.before("transact records", "~contact~", happens=dies)
    world.dies(lambda: world.pull("r1"))
    assert is_taken(world, "p@example.com")
    world.later(UNTIL)
    world.settle()
    assert world.record().fields["email"] == "new@example.com"


def test_a_key_that_a_record_has_again_is_not_freed():
    world = linked("aa", match="email")
    world.change("r1", email="new@example.com")
    world.calls.before("delete keys", happens=lambda: world.edit(email="p@example.com"))
    world.pull("r1")
    assert world.record().fields["email"] == "p@example.com"
    assert is_taken(world, "p@example.com")
    assert world.calls.all_happened()
