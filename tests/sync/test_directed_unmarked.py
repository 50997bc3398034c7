"""Creates at a system that takes neither an id of ours nor a marker, without a match rule, each as its sequence of steps:
nothing but its values tells what was made. What holds these tests: see test_directed.py.
"""

from crm_core.model.fields import hub_time
from crm_core.storage import layout
from tests.sync.directed import TENANT, UNTIL, World, dies, linked, unanswered


def begun(kinds="af", **fields):
    """A world in which a record is to be made at `r2`."""
    world = World(kinds)
    world.add("r1", phone="0", **fields)
    world.pull("r1")
    return world


def lost(world):
    """The row is made at `r2`, and the answer is lost."""
    world.calls.after("r2 create", happens=unanswered)
    world.push("r2")
    assert len(world.claims("r2")) == 1
    world.later(10)  # the system is asked again


def test_a_row_whose_answer_was_lost_is_no_record_of_its_own():
    world = begun()
    lost(world)
    world.pull("r2")
    assert len(world.records()) == 1
    world.settle()
    assert len(world.records()) == 1
    assert world.everywhere("phone") == [["0"]] * 3
    assert not world.claims("r2")


def test_a_row_whose_worker_died_is_found_by_its_values():
    world = begun()
    world.calls.after("r2 create", happens=dies)
    world.dies(lambda: world.push("r2"))
    world.pull("r2")
    world.settle()
    assert len(world.records()) == 1
    assert world.everywhere("phone") == [["0"]] * 3
    assert world.sent("r2", "create") == 1


def test_what_was_not_made_is_made_once_that_is_sure():
    """The request never arrives. A person's row is looked at, which is another one."""
    world = begun()
    world.calls.late("r2 create")
    world.push("r2")
    world.add("r2", last_name="Q", phone="9")
    world.settle()
    assert world.everywhere("phone") == [["0", "9"]] * 3
    assert world.sent("r2", "create") == 2


def test_a_persons_row_of_the_same_moment_waits_and_becomes_a_record():
    world = begun()
    lost(world)
    world.add("r2", last_name="Q", phone="9")
    world.pull("r2")
    assert len(world.records()) == 1
    world.settle()
    assert len(world.records()) == 2
    assert world.everywhere("phone") == [["0", "9"]] * 3
    assert not world.items("review")


def test_a_row_that_is_made_while_its_page_is_fetched_is_held_back():
    """A pull begins; before it asks for its page a create begins, and its answer is lost."""
    world = begun()
    world.calls.before("r2 changes", happens=lambda: lost(world))
    world.pull("r2")
    assert len(world.records()) == 1
    world.settle()
    assert len(world.records()) == 1
    assert world.everywhere("phone") == [["0"]] * 3


def test_a_row_that_is_seen_before_its_answer_is_here_is_held_back():
    world = begun()
    world.calls.after("r2 create", happens=lambda: world.pull("r2"))
    world.push("r2")
    assert len(world.records()) == 1
    world.settle()
    assert world.everywhere("phone") == [["0"]] * 3


def test_a_claim_that_is_made_once_more_keeps_its_time():
    """A worker that has read the record before another one began its create claims it too, and goes no further. The row
    that was seen between the two claims still waits.
    """
    world = begun()

    def meanwhile():
        lost(world)
        world.pull("r2")
        world.later(60)

    world.calls.after("get records", world.record().id, happens=meanwhile)
    world.push("r2")
    world.held("r2")
    assert len(world.records()) == 1
    world.settle()
    assert len(world.records()) == 1
    assert world.everywhere("phone") == [["0"]] * 3
    assert world.sent("r2", "create") == 1
    assert not world.claims("r2")


def test_a_row_whose_claim_is_settled_while_it_is_merged_leads_to_its_record():
    """A pull has the row's page in its hands, and has found nothing at its id. Before it looks for claims another worker
    settles the one that there was.
    """
    world = begun()
    world.calls.before("r2 changes", happens=lambda: lost(world))

    def meanwhile():
        world.later(UNTIL)
        world.push("r2")
        assert not world.claims("r2")

    own = layout.derived_record_id(TENANT, "r2", "contact", "r21")
    world.calls.after("get records", own, happens=meanwhile)
    world.pull("r2")
    world.settle()
    assert len(world.records()) == 1
    assert world.everywhere("phone") == [["0"]] * 3


def test_of_several_rows_with_all_that_was_sent_a_person_says_which_is_ours():
    world = begun()
    lost(world)
    world.add("r2", phone="0")
    world.pull("r2")
    world.settle()
    assert len(world.records()) == 3
    assert len(world.rows("r1")) == 1
    assert len(world.rows("r2")) == 2
    assert world.items("review") == {("review", "r2")}
    assert not world.claims("r2")
    world.decide("link")
    world.settle()
    assert len(world.records()) == 2
    assert len(world.rows("r1")) == 1
    assert len(world.rows("r2")) == 2


def test_of_a_row_that_was_changed_since_a_person_says_whether_it_is_ours():
    world = begun()
    ours = world.record().id
    lost(world)
    world.change("r2", phone="1")
    world.settle()
    assert len(world.rows("r1")) == len(world.rows("r2")) == 1
    assert world.items("review") == {("review", "r2")}
    world.decide("link")
    world.settle()
    assert world.record().id == ours
    assert world.everywhere("phone") == [["1"]] * 3


def test_what_a_person_says_is_another_row_is_made_elsewhere_and_ours_here():
    """It is asked of both records, and said once."""
    world = begun()
    world.calls.late("r2 create")
    world.push("r2")
    world.add("r2", phone="9")
    world.settle()
    assert world.items("review") == {("review", "r2")}
    world.decide("separate")
    assert not world.items("review")
    world.settle()
    assert world.everywhere("phone") == [["0", "9"]] * 3


def test_a_worker_that_dies_while_it_asks_asks_the_same_once_more():
    """The row has become a record that is kept apart, and the record does not say so yet."""
    world = begun()
    lost(world)
    world.change("r2", phone="1")
    world.pull("r2")
    world.later(UNTIL)
    world.calls.after("transact records", '"review', happens=dies)
    world.dies(lambda: world.push("r2"))
    world.settle()
    assert world.items("review") == {("review", "r2")}
    assert len(world.rows("r1")) == len(world.rows("r2")) == 1


def test_a_row_that_is_asked_about_is_not_forgotten_once_the_feed_has_passed_it():
    """The worker dies as above; nobody had read the row before, and the next pull finds its record."""
    world = begun()
    lost(world)
    world.change("r2", phone="1")
    world.later(UNTIL)
    world.calls.after("transact records", '"review', happens=dies)
    world.dies(lambda: world.push("r2"))
    world.pull("r2")
    world.settle()
    assert world.items("review") == {("review", "r2")}
    assert len(world.rows("r1")) == len(world.rows("r2")) == 1


def test_lists_that_lag_are_waited_for():
    """The request is carried out at the last moment; for fifteen seconds no list shows the row."""
    world = begun("ad")
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


def test_a_claim_whose_worker_died_before_it_sent_anything_is_dropped():
    world = begun()
    world.calls.after("transact events", "!", happens=dies)
    world.dies(lambda: world.push("r2"))
    world.remove("r1")
    world.pull("r1")
    assert len(world.claims("r2")) == 1
    world.settle()
    assert not world.claims("r2")
    assert world.sent("r2", "create") == 0


def test_a_claim_ends_when_its_record_dies():
    world = begun()
    world.calls.late("r2 create")
    world.push("r2")
    world.remove("r1")
    world.settle()
    assert world.record().dead
    assert not world.claims("r2")
    world.add("r2", last_name="Q", phone="9")
    world.settle()
    assert world.everywhere("phone") == [["9"]] * 3


def test_a_claim_ends_with_its_connection():
    world = begun()
    lost(world)
    world.pull("r2")
    world.forget("r2")
    world.held("r2")
    assert not list(world.engine.held.every(TENANT))


def test_of_two_workers_one_makes_the_row():
    """While the one waits for its answer the other gets the same work; then the first one dies."""
    world = begun()

    def meanwhile():
        world.push("r2")
        dies()

    world.calls.after("r2 create", happens=meanwhile)
    world.dies(lambda: world.push("r2"))
    world.settle()
    assert world.sent("r2", "create") == 1
    assert world.everywhere("phone") == [["0"]] * 3


def test_of_two_workers_that_take_up_a_claim_one_settles_it():
    """Both compare the rows that are there. The one is faster, and a person's change of the row is read since."""
    world = begun()
    lost(world)
    world.later(UNTIL)

    def meanwhile():
        world.push("r2")
        world.change("r2", phone="1")
        world.pull("r2")

    world.calls.after("r2 get", happens=meanwhile)
    world.push("r2")
    world.settle()
    assert len(world.records()) == 1
    assert world.everywhere("phone") == [["1"]] * 3


def test_a_worker_that_dies_between_the_redirect_and_the_link_leaves_who_made_the_row():
    """A person changes the row before the next worker comes: it leads to the record all the same."""
    world = begun()
    lost(world)
    world.later(UNTIL)
    world.calls.after("insert records", happens=dies)
    world.dies(lambda: world.push("r2"))
    world.change("r2", phone="1", last_name="Q")
    world.settle()
    assert len(world.records()) == 1
    assert world.everywhere("phone") == [["1"]] * 3


def test_what_was_there_before_a_claim_does_not_wait_for_it():
    """Where something is made all the time, a row must not wait for ever."""
    world = begun()
    lost(world)
    rid = world.add("r2", last_name="Q", phone="9")
    world.pull("r2")
    world.later(UNTIL)
    world.push("r2")
    assert not world.claims("r2")
    later = hub_time(world.clock.now())
    world.engine.held.claim(TENANT, "r2", "contact", ["00000000-0000-4000-8000-000000000000"], later)
    world.held("r2")
    assert rid in {each.links["r2"].rid for each in world.records()}


def test_a_record_that_gives_up_holds_nothing_back():
    """No answer to its create can be read, and each time a person deletes the row before it is found."""
    world = begun()
    for _ in range(3):
        world.calls.bare("r2 create")
        world.push("r2")
        world.remove("r2")
        world.later(UNTIL + 900)
    world.settle()
    assert world.items() == {("parked", "r2")}
    assert not world.claims("r2")
    world.add("r2", last_name="Q", phone="9")
    world.settle()
    assert world.everywhere("phone")[2] == ["9"]


def test_a_system_that_is_only_written_is_asked_what_came_to_be_there():
    """It was never read: what has been there for long is no candidate, though it has the same values."""
    world = World("af")
    world.add("r2", phone="0")
    world.later(3600)
    world.only_written("r2")
    world.add("r1", phone="0")
    world.pull("r1")
    lost(world)
    world.settle()
    assert len(world.rows("r2")) == 2
    assert len(world.records()) == 1
    assert world.record().links["r2"].rid == "r22"


def test_of_a_system_that_is_only_written_nothing_becomes_a_record():
    """A row there may be what was made, and was changed since: the record waits for a person, who is told which it is."""
    world = World("af")
    world.only_written("r2")
    world.add("r1", phone="0")
    world.pull("r1")
    lost(world)
    world.change("r2", phone="1")
    world.settle()
    assert len(world.records()) == len(world.rows("r2")) == 1
    assert world.items() == {("parked", "r2")}
    assert "r21" in world.record().links["r2"].parked["message"]
    assert not world.claims("r2")
    world.remove("r2")
    world.decide("retry")
    world.settle()
    assert world.everywhere("phone") == [["0"]] * 3


def test_a_first_load_holds_back_what_an_open_create_has_made():
    """A system that was only written is read from now on, while a create there is open."""
    world = World("af")
    world.only_written("r2")
    world.add("r1", phone="0")
    world.pull("r1")
    lost(world)
    world.read_too("r2")
    world.pull("r2")
    assert len(world.records()) == 1
    world.settle()
    assert len(world.records()) == 1
    assert world.everywhere("phone") == [["0"]] * 3


def test_where_others_tell_what_was_made_nothing_is_claimed():
    world = linked("ab")
    before = len(world.calls.texts)
    world.add("r1", phone="1")
    world.settle()
    assert not any("!" in each and "events" in each for each in world.calls.texts[before:])
