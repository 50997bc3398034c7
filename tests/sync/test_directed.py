"""Faults of a naive sync that seeds meet too seldom, each as its sequence of steps: pages, reads and writes.

Each test ends where everybody agrees, and no edit is lost. That each fails once its fault is planted is held by
test_mutants.py. Creates and deletes: test_directed_creates.py, test_directed_deletes.py.
"""

from tests.sync.directed import UNTIL, World, dies, linked


def test_a_page_that_was_fetched_before_a_push_does_not_undo_it():
    """Fault 1. A title was edited and read; a page is fetched that tells of it once more; an app's phone is pushed upon
    it; the page is applied: its phone is the old one, and no edit of anybody's.
    """
    world = linked("aa")
    world.change("r2", job_title="Next")
    world.pull("r2")
    world.chances["r2"].again = True

    def meanwhile():
        world.edit(phone="1")
        world.push("r2")

    world.calls.after("r2 changes", happens=meanwhile)
    world.pull("r2")
    world.chances["r2"].again = False
    world.settle()
    assert world.everywhere("phone") == [["1"]] * 3
    assert world.everywhere("job_title") == [["Next"]] * 3
    assert world.replaced("phone") == ["0"]


def test_a_point_read_belongs_to_the_row_that_was_read_before_it():
    """Fault 2. A worker reads the record and then the remote's row, and pauses; an edit is pushed there and saved; the worker
    goes on: what it read is the old value, and belongs to a record that is no more.
    """
    world = linked("aa")

    def meanwhile():
        world.edit(phone="1")
        world.push("r2")

    world.calls.after("r2 get", happens=meanwhile)
    world.hint("r2", world.rid("r2"))
    world.settle()
    assert world.everywhere("phone") == [["1"]] * 3
    assert world.replaced("phone") == ["0"]


def test_an_edit_of_the_same_second_as_our_write_is_seen():
    """Fault 3. The phone is written, and in that second a person edits the title there: both bear one time."""
    world = linked("ab")
    world.edit(phone="1")
    world.push("r2")
    world.change("r2", job_title="Next")
    world.settle()
    assert world.everywhere("job_title") == [["Next"]] * 3


def test_what_a_remote_makes_of_our_value_is_nobodys_edit():
    """Fault 4. A title is written and shortened there, and the worker dies before the answer is here."""
    world = linked("ab")
    world.edit(job_title="Alexander")
    world.calls.after("r2 update", happens=dies)
    world.dies(lambda: world.push("r2"))
    world.later(UNTIL)
    world.settle()
    assert world.everywhere("job_title") == [["Alexander"], ["Alexander"], ["Alexan"]]


def test_what_a_remote_made_of_our_value_is_remembered():
    """Fault 5. A title is written and shortened there; later a person edits another field of the row. And once the title
    was edited there, what it was shortened to is a value like any other.
    """
    world = linked("ab")
    world.edit(job_title="Alexander")
    world.push("r2")
    world.change("r2", phone="1")
    world.settle()
    assert world.everywhere("job_title") == [["Alexander"], ["Alexander"], ["Alexan"]]
    for title in ("Alex", "Alexan"):
        world.change("r2", job_title=title)
        world.settle()
        assert world.everywhere("job_title") == [[title]] * 3


def test_a_value_that_would_change_nothing_there_is_not_sent():
    """Fault 23. The remote writes phones in small letters; ours differs from what it holds by that alone."""
    world = linked("ab")
    world.edit(phone="abc")
    world.settle()
    before = world.sent("r2")
    world.edit(phone="Abc")
    world.settle()
    assert world.sent("r2") == before
    assert world.everywhere("phone") == [["Abc"], ["Abc"], ["abc"]]


def test_a_412_says_nothing_of_what_was_sent_before():
    """Fault 6. A title is written and shortened there, the answer is lost, the repeat gets 412; meanwhile an app sets
    another title. The look finds our own value: no edit of a person's, so nobody is asked, and the new title is sent.
    """
    world = linked("ac", policy="manual")
    world.edit(job_title="Alexander")
    world.calls.repeated("r2 update")
    world.calls.before("r2 get", happens=lambda: world.edit(job_title="Chief"))
    world.push("r2")
    world.settle()
    assert not world.items("conflict")
    assert world.everywhere("job_title") == [["Chief"]] * 3


def test_a_write_that_came_too_late_goes_again_at_once():
    """A person edits the title right before the phone is written: the write is refused, what is there now is read,
    and the phone is written upon that. Nothing failed.
    """
    world = linked("aa")
    world.edit(phone="1")
    world.calls.before("r2 update", happens=lambda: world.change("r2", job_title="Next"))
    world.push("r2")
    assert world.rows("r2")[world.rid("r2")]["phone"] == "1"
    assert not world.record().links["r2"].failed
    world.settle()
    assert world.everywhere("job_title") == [["Next"]] * 3


def test_a_write_that_is_refused_again_and_again_waits_longer_each_time():
    """At a remote whose version is never the one that was read."""
    world = linked("aa")
    world.edit(phone="1")
    for number in range(4):
        title = f"Next {number}"
        world.calls.before("r2 update", happens=lambda title=title: world.change("r2", job_title=title))
    world.push("r2")
    assert world.sent("r2", "update") == 2
    assert world.record().links["r2"].failed["n"] == 1


def test_a_read_that_fences_a_write_ends_it():
    """A worker notes that it will write the phone "1", and dies. A person edits the title there: from now on that
    write can't happen any more. An app sets "2", and then a person types "1" there: their own edit, not ours.
    """
    world = linked("aa", policy="manual")
    world.edit(phone="1")
    world.calls.before("r2 update", happens=dies)
    world.dies(lambda: world.push("r2"))
    world.change("r2", job_title="Next")
    world.pull("r2")
    world.edit(phone="2")
    world.change("r2", phone="1")
    world.pull("r2")
    assert world.items("conflict") == {("conflict", "r2")}
    assert world.record().links["r2"].conflict["phone"]["theirs"] == "1"


def test_an_answer_is_not_settled_over_a_newer_read():
    """The phone is written; before the answer is here a person edits the title there, and that is read. The answer
    bears the title that was there before: it is older than what is known.
    """
    world = linked("ab")

    def meanwhile():
        world.later(2)
        world.change("r2", job_title="Next")
        world.pull("r2")

    world.edit(phone="1")
    world.calls.after("r2 update", happens=meanwhile)
    world.push("r2")
    world.settle()
    assert world.everywhere("job_title") == [["Next"]] * 3
    assert world.everywhere("phone") == [["1"]] * 3


def test_an_edit_while_the_answer_is_on_its_way_is_sent_too():
    """Fault 8. The phone "1" is written; before the answer is here an app sets "2"."""
    world = linked("aa")
    world.edit(phone="1")
    world.calls.after("r2 update", happens=lambda: world.edit(phone="2"))
    world.push("r2")
    world.settle()
    assert world.everywhere("phone") == [["2"]] * 3


def test_there_and_back_is_an_edit_while_the_way_there_may_be_carried_out():
    """Fault 7. The phone "1" gets no answer in time, and an app sets the "0" again that was there before it. The "1"
    arrives, and a person who sees it types "2": neither of the two saw what the other did.
    """
    world = linked("ab", policy="manual")
    world.edit(phone="1")
    arrives = world.calls.late("r2 update")
    world.push("r2")
    world.edit(phone="0")
    arrives()
    world.later(10)
    world.change("r2", phone="2")
    world.pull("r2")
    assert world.items("conflict") == {("conflict", "r2")}
    world.later(UNTIL)
    world.settle()
    assert world.everywhere("phone") == [["0"], ["0"], ["2"]]


def test_a_write_that_may_still_arrive_is_waited_for():
    """Fault 9. Without If-Match: the phone "1" gets no answer in time, an app sets "2", the "1" arrives late. Had "2" been sent
    before that, the "1" would stay, and look like a person's edit.
    """
    world = linked("ab")
    world.edit(phone="1")
    arrives = world.calls.late("r2 update")
    world.push("r2")
    world.edit(phone="2")
    world.later(20)
    world.push("r2")
    arrives()
    world.pull("r2")
    world.later(UNTIL)
    world.settle()
    assert world.everywhere("phone") == [["2"]] * 3


def test_a_write_begins_soon_after_it_was_noted_or_not_at_all():
    """A worker notes that it will write the phone "1", and pauses until the note counts for nothing. Another one
    writes "2". The first one goes on: what it would write is long gone.
    """
    world = linked("ab")
    world.edit(phone="1")

    def meanwhile():
        world.later(UNTIL + 10)
        world.edit(phone="2")
        world.push("r2")

    world.calls.after("transact records", '"attempt"', happens=meanwhile)
    world.push("r2")
    world.settle()
    assert world.sent("r2", "update", "'phone': '1'") == 0
    assert world.everywhere("phone") == [["2"]] * 3


def test_a_value_that_was_rejected_is_sent_once():
    """The remote refuses a phone. Another field is edited and goes there alone; no sweep sends the phone again."""
    world = linked("aa")
    world.servers["r2"].rejects = True
    world.edit(phone="bad")
    world.push("r2")
    world.edit(job_title="Next")
    world.push("r2")
    world.settle()
    assert world.sent("r2", "'phone': 'bad'") == 1
    assert world.everywhere("job_title") == [["Next"]] * 3
    assert world.everywhere("phone") == [["bad"], ["bad"], ["0"]]


def test_a_reference_is_the_record_that_it_leads_to():
    """An account refers to a contact that is not read yet; the contact turns out to be one that the hub has, so its
    id becomes another's. An edit of the account's phone is that alone: the contact it refers to is the same.
    """
    world = World("aa", entities=("contact", "account"), match="email")
    world.add("r2", email="p@example.com")
    world.pull("r2")
    contact = world.add("r1", email="P@example.com")
    rid = world.add("r1", "account", name="N", primary_contact_id=contact)
    world.pull("r1", "account")
    world.pull("r1")
    world.settle()
    assert len(world.records()) == 1
    before = len(world.history(world.record("account")))
    world.change("r1", rid, "account", phone="1")
    world.settle()
    step, *_ = world.history(world.record("account"))[before:]
    assert step.old.keys() == {"phone", "updated_at"}
    assert world.sent("r2", "account", "primary_contact_id") == 1


def test_a_cursor_that_was_saved_has_nothing_before_it_that_was_not_applied():
    """Fault 22. A page is read, and its worker dies at the first row that it writes: the page comes again."""
    world = linked("aa")
    world.change("r2", phone="1")
    world.calls.before("transact records", happens=dies)
    world.dies(lambda: world.pull("r2"))
    world.later(100)
    world.settle()
    assert world.everywhere("phone") == [["1"]] * 3
