"""Fresh changes beside a run that reads everything: they do not wait for its end, and no older page undoes them."""

import pytest

from crm_core.errors import CursorExpired

SMALL = {"PAGE_RECORDS": "5", "BATCH_RECORDS": "5"}
ROWS = 30

pytestmark = pytest.mark.parametrize("memory_bench", [SMALL], indirect=True)


@pytest.fixture
def bench(memory_bench):
    """30 rows, pulled once."""
    memory_bench.remote.options(limits={"requests": 10**9, "seconds": 10**9})
    rids = [memory_bench.remote.create(f"Row {number}") for number in range(ROWS)]
    memory_bench.connect()
    assert memory_bench.pull().counts["created"] == ROWS
    memory_bench.rids = rids
    return memory_bench


@pytest.fixture
def events(bench, monkeypatch):
    """What happens, in order: ("page", is it of the run that reads everything) and ("saved", names, who has the lease)."""
    told = []
    connector, records = type(bench.opened.connector), type(bench.hub.engine.records)
    changes, commit = connector.changes, records.commit
    bench.during = {}

    def fetched(self, entity, cursor, *, size):
        page = changes(self, entity, cursor, size=size)
        told.append(("page", cursor != bench.state().cursor))
        bench.during.pop(len([each for each in told if each[0] == "page"]), lambda: None)()
        return page

    def saved(self, tenant, entity, bucket, writes):
        done = commit(self, tenant, entity, bucket, writes)
        told.append(
            ("saved", [each.after.fields.get("name") for each in done.written], bench.state().lease_run)
        )
        return done

    monkeypatch.setattr(connector, "changes", fetched)
    monkeypatch.setattr(records, "commit", saved)
    return told


def rename(bench, number, name):
    return lambda: bench.remote.update(bench.rids[number], name=name)


def place_of(events, name):
    (place,) = [number for number, each in enumerate(events) if each[0] == "saved" and name in each[1]]
    return place


def test_a_change_is_here_long_before_the_run_is_over(bench, events):
    bench.due()
    bench.during[1] = rename(bench, 0, "Fresh")
    run = bench.pull("full")
    assert run.status == "succeeded"
    place = place_of(events, "Fresh")
    assert events[place][2] == run.id
    assert events[place + 1 :].count(("page", True)) >= 2
    assert run.read == ROWS
    bench.assert_equal()


def test_before_it_is_due_nothing_is_asked_for(bench, events):
    run = bench.pull("full")
    assert [each for each in events if each == ("page", False)] == []
    assert run.status == "succeeded"


@pytest.mark.parametrize("row", range(0, ROWS, 5))
def test_a_page_that_is_older_than_the_change_does_not_undo_it(bench, events, row):
    """The page with the row was fetched, or is fetched, before or after it changes."""
    bench.due()
    bench.during[1] = rename(bench, row, "Fresh")
    assert bench.pull("full").status == "succeeded"
    bench.pull()
    assert bench.stored()[bench.rids[row]].fields["name"] == "Fresh"
    bench.assert_equal()


def test_when_the_schedule_says_so_and_then_not_before_its_next_time(bench, events):
    bench.due()
    assert bench.pull("full").status == "succeeded"
    assert len([each for each in events if each == ("page", False)]) == 1
    assert bench.state().due > "2026"


def test_a_busy_system_does_not_hold_up_the_run(bench, events):
    """Changes without end: the run goes on between them."""
    bench.due()

    def busy(number):
        def edit():
            for row in range(10):
                bench.remote.update(bench.rids[row], name=f"Busy {number} {row}")
            bench.during[number + 1] = busy(number + 1) if number < 40 else lambda: None

        return edit

    bench.during[1] = busy(1)
    run = bench.pull("full")
    assert run.status == "succeeded"
    bench.pull()
    bench.assert_equal()


def test_a_place_that_the_system_has_forgotten_does_not_stop_the_run(bench, events, monkeypatch):
    bench.due()
    connector = type(bench.opened.connector)
    changes = connector.changes
    lost = []

    def fetched(self, entity, cursor, *, size):
        if cursor is not None and cursor == bench.state().cursor:
            lost.append(1)
            raise CursorExpired("The place in the feed is lost.")
        return changes(self, entity, cursor, size=size)

    monkeypatch.setattr(connector, "changes", fetched)
    run = bench.pull("full")
    assert (run.status, bool(lost)) == ("succeeded", True)


def test_too_many_deletes_among_the_changes_stop_the_run(bench, events):
    bench.hub.engine.tuning.__dict__.update(brake_deletes=2, brake_deletes_percent=1)
    bench.due()

    def gone():
        for rid in bench.rids[:9]:
            bench.remote.delete(rid)

    bench.during[1] = gone
    run = bench.pull("full")
    assert (run.status, bench.state().stopped_run) == ("stopped", run.id)
    assert len(bench.stored()) == ROWS


@pytest.mark.parametrize("part", [{"where": "name ne 'Nobody'"}, {"since": "2020-01-01T00:00:00Z"}])
def test_beside_a_run_that_reads_a_part_too(bench, events, part):
    bench.due()
    bench.during[1] = rename(bench, 0, "Fresh")
    run = bench.pull("incremental", **part)
    assert run.status == "succeeded"
    assert events[place_of(events, "Fresh")][2] == run.id
    bench.pull()
    bench.assert_equal()
