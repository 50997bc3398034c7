"""The brake: a run that would mark too many records as deleted stops, and a person decides.

Over the in-memory twins and real HTTP to the sandbox.
"""

from dataclasses import replace

import pytest

from crm_core.errors import Conflict
from crm_core.model.connection import DEFAULT_TENANT
from crm_core.storage import layout
from crm_core.sync import compare
from crm_core.sync.engine import Job

from .test_crash import Crash, Points, crashing_work

SMALL = {"PAGE_RECORDS": "10", "BATCH_RECORDS": "10", "BRAKE_DELETES": "4", "BRAKE_DELETES_PERCENT": "20"}
"""Of the 30 records that each test has, 6 may go; the limit is the larger of the two."""
ROWS = 30

pytestmark = pytest.mark.parametrize("memory_bench", [SMALL], indirect=True)


@pytest.fixture
def bench(memory_bench):
    return memory_bench


@pytest.fixture
def rids(bench, request):
    """The remote ids of the rows, pulled once."""
    tracked = getattr(request, "param", True)
    bench.remote.options(tracking={"account": tracked}, limits={"requests": 10**9, "seconds": 10**9})
    rids = [bench.remote.create(f"Row {number}") for number in range(ROWS)]
    bench.connect()
    assert bench.pull().counts["created"] == ROWS
    return rids


def delete(bench, rids):
    for rid in rids:
        bench.remote.delete(rid)


def living(bench):
    return sum(not record.fields.get("deleted_at") for record in bench.stored().values())


def approve(bench, run_id):
    approved = bench.hub.approve_run(DEFAULT_TENANT, bench.run(run_id))
    bench.work()
    return approved


def tick(bench):
    """The schedule's next pull; gives how many messages it sent."""
    bench.due()
    sent = bench.hub.tick()
    bench.work()
    return sent


def test_as_many_deletes_as_the_limit_pass(bench, rids):
    delete(bench, rids[:6])
    run = bench.pull()
    assert (run.status, run.counts["deleted"], living(bench)) == ("succeeded", 6, 24)
    bench.assert_equal()


def test_one_more_stops_the_run_before_its_batch(bench, rids):
    delete(bench, rids[:7])
    bench.remote.update(rids[9], name="In the same batch")
    before = bench.state()
    run = bench.pull()
    assert (run.status, run.ended, run.ended_at, run.counts["deleted"]) == ("stopped", False, "", 0)
    assert run.problem.code == "Brake"
    assert "shows at least 7 of about 30 records as deleted" in run.problem.message
    assert "up to 6 are" in run.problem.message
    assert f"POST /api/runs/{run.id}/approve" in run.problem.message
    assert f"POST /api/runs/{run.id}/cancel" in run.problem.message
    state = bench.state()
    assert (state.cursor, state.known) == (before.cursor, before.known)
    assert (state.lease_run, state.lease_until, state.stopped_run) == ("", "", run.id)
    assert state.problem == run.problem
    assert living(bench) == ROWS
    assert bench.stored()[rids[9]].fields["name"] == "Row 9"


def test_deletes_are_counted_over_the_batches_of_a_run(bench, rids):
    """No page alone has too many of them: the feed shows the updates first."""
    for rid in rids[:5]:
        bench.remote.update(rid, name="Changed")
    delete(bench, rids[10:20])
    run = bench.pull()
    assert (run.status, run.read, run.counts["deleted"]) == ("stopped", 10, 5)
    assert "shows at least 10 of about 30" in run.problem.message
    assert (living(bench), bench.state().known) == (25, 25)
    approve(bench, run.id)
    assert bench.run(run.id).counts["deleted"] == 10
    bench.assert_equal()


def test_deletes_of_what_is_not_here_do_not_count(bench, rids):
    """Rows that came and went between two pulls."""
    delete(bench, [bench.remote.create(f"Short {number}") for number in range(9)])
    delete(bench, rids[:6])
    run = bench.pull()
    assert (run.status, run.counts["deleted"]) == ("succeeded", 6)
    bench.assert_equal()


@pytest.mark.parametrize("origin", ["caller", "schedule"])
def test_approved_it_goes_on_where_it_stopped(bench, rids, origin):
    delete(bench, rids[:20])
    stopped = bench.pull().id if origin == "caller" else ""
    if origin == "schedule":
        assert tick(bench) == 1
        stopped = bench.state().stopped_run
    assert bench.run(stopped).status == "stopped"
    approved = approve(bench, stopped)
    assert (approved.status, approved.problem) == ("running", None)
    run = bench.run(stopped)
    assert (run.status, run.counts["deleted"], run.problem) == ("succeeded", 20, None)
    state = bench.state()
    assert (state.stopped_run, state.lease_run, state.problem) == ("", "", None)
    bench.assert_equal()
    with pytest.raises(Conflict, match="is succeeded; only a stopped one"):
        approve(bench, stopped)
    delete(bench, rids[20:29])
    assert bench.pull().status == "stopped"  # the approval was for that run


def test_approved_it_goes_on_though_the_connection_is_paused(bench, rids):
    """As a run that was asked for before the pause does."""
    delete(bench, rids[:20])
    tick(bench)
    bench.hub.forget(bench.hub.admin.pause(bench.opened.connection, paused=True))
    run_id = bench.state().stopped_run
    approve(bench, run_id)
    assert bench.run(run_id).status == "succeeded"
    bench.assert_equal()


def test_a_second_approval_is_refused(bench, rids):
    delete(bench, rids[:20])
    run = bench.pull()
    stale = bench.run(run.id)
    bench.hub.approve_run(DEFAULT_TENANT, stale)
    with pytest.raises(Conflict, match="is running; only a stopped one"):
        bench.hub.approve_run(DEFAULT_TENANT, bench.run(run.id))
    bench.hub.approve_run(
        DEFAULT_TENANT, stale
    )  # at the same time as the first: both are told that it goes on
    with pytest.raises(Conflict, match="by somebody else just now"):
        bench.hub.cancel_run(DEFAULT_TENANT, stale)
    bench.work()
    bench.assert_equal()


def test_no_other_run_of_the_entity_begins(bench, rids):
    waiting = bench.hub.start_run(DEFAULT_TENANT, "demo", [], "full", "key:test")
    messages = [(lane, each) for lane in layout.QUEUES for each in bench.queue.receive(lane)]
    delete(bench, rids[:20])
    run = bench.pull()
    with pytest.raises(Conflict) as refused:
        bench.pull("full")
    assert f"/api/runs/{run.id}/approve" in refused.value.message
    assert f"/api/runs/{run.id}/cancel" in refused.value.message
    assert tick(bench) == 0
    bench.hub.engine.send(layout.FRESH, Job("pull", DEFAULT_TENANT, bench.connection.uid, "account"))
    bench.work()  # a message of the schedule that was sent before
    assert bench.state().stopped_run == run.id
    for lane, message in messages:  # a caller's, that waited
        bench.hub.handle(lane, message.body, 1)
    late = bench.run(waiting.id)
    assert (late.status, late.problem.code) == ("failed", "Brake")
    assert run.id in late.problem.message
    assert living(bench) == ROWS


def test_cancelled_it_has_failed_and_the_next_run_stops_again(bench, rids):
    delete(bench, rids[:20])
    run = bench.pull()
    cancelled = bench.hub.cancel_run(DEFAULT_TENANT, run)
    assert (cancelled.status, cancelled.problem.code) == ("failed", "Cancelled")
    assert bench.run(run.id) == cancelled
    state = bench.state()
    assert (state.stopped_run, state.problem) == ("", None)
    assert state.due > cancelled.ended_at
    for call, only in (
        (bench.hub.cancel_run, "one that has not ended"),
        (bench.hub.approve_run, "a stopped one"),
    ):
        with pytest.raises(Conflict, match=f"is failed; only {only}"):
            call(DEFAULT_TENANT, bench.run(run.id))
    assert tick(bench) == 1
    again = bench.state().stopped_run
    assert again not in ("", run.id)
    assert living(bench) == ROWS


def test_a_message_that_comes_twice_changes_nothing(bench, rids):
    delete(bench, rids[:20])
    run = bench.pull()
    state = bench.state()
    job = Job("pull", DEFAULT_TENANT, bench.connection.uid, "account", run.id)
    bench.hub.handle(layout.FRESH, job.to_message(), 2)
    assert (bench.run(run.id), bench.run(run.id).etag, bench.state()) == (run, run.etag, state)


class TestAFullRun:
    """The feed by time shows no deletes: only the comparison finds them."""

    @pytest.mark.parametrize("rids", [False], indirect=True)
    def test_far_fewer_rows_stop_it_before_the_first_bucket(self, bench, rids):
        delete(bench, rids[:7])
        run = bench.pull("full")
        assert (run.status, run.read, run.counts["deleted"]) == ("stopped", 23, 0)
        assert living(bench) == ROWS
        approve(bench, run.id)
        run = bench.run(run.id)
        assert (run.status, run.read, run.counts["deleted"]) == ("succeeded", 23, 7)
        bench.assert_equal()
        assert not bench.hub.engine.blob._blobs

    @pytest.mark.parametrize("rids", [False], indirect=True)
    def test_a_source_that_suddenly_is_empty_stops_it(self, bench, rids):
        delete(bench, rids)
        run = bench.pull("full")
        assert (run.status, run.read) == ("stopped", 0)
        assert "shows at least 30 of about 30" in run.problem.message
        assert living(bench) == ROWS
        bench.hub.cancel_run(DEFAULT_TENANT, run)
        assert not bench.hub.engine.blob._blobs

    @pytest.mark.parametrize("rids", [False], indirect=True)
    def test_a_sum_that_is_wrong_does_not_hide_what_is_gone(self, bench, rids, monkeypatch):
        """The buckets tell: before each step of one."""
        monkeypatch.setattr(compare, "LOOK_BATCH", 1)
        delete(bench, rids[:12])
        state = replace(bench.state(), known=20)
        bench.hub.states.save_entity(DEFAULT_TENANT, bench.connection.uid, "account", state)
        run = bench.pull("full")
        assert (run.status, run.counts["deleted"]) == ("stopped", 4)
        assert (living(bench), bench.state().known) == (ROWS - 4, 16)
        approve(bench, run.id)
        assert bench.run(run.id).status == "succeeded"
        bench.assert_equal()

    @pytest.mark.parametrize("rids", [False], indirect=True)
    def test_rows_that_only_the_feed_leaves_out_do_not_count(self, bench, rids, monkeypatch):
        """They are looked at, and are there."""
        connector = type(bench.opened.connector)
        changes = connector.changes

        def shortened(*args, **kwargs):
            page = changes(*args, **kwargs)
            return replace(page, changes=[each for each in page.changes if each.rid not in rids[:12]])

        monkeypatch.setattr(connector, "changes", shortened)
        tuning = replace(bench.hub.engine.tuning, brake_deletes=0.5)  # none at all
        monkeypatch.setattr(bench.hub, "engine", replace(bench.hub.engine, tuning=tuning))
        state = replace(bench.state(), known=0)
        bench.hub.states.save_entity(DEFAULT_TENANT, bench.connection.uid, "account", state)
        run = bench.pull("full")
        assert (run.status, run.counts["deleted"]) == ("succeeded", 0)
        assert living(bench) == ROWS


class TestCrashes:
    """The process ends at each call in turn; whatever the next one finds, the brake holds and can be released."""

    @pytest.fixture
    def points(self, bench, monkeypatch):
        points = Points()
        for name in ("get", "query", "insert", "replace", "transact"):
            points.around(bench.hub.table, name, monkeypatch)
        points.around(bench.hub.queue, "send", monkeypatch)
        return points

    def lapse(self, bench):
        """As if the lease of the worker that died had run out."""
        state = bench.state()
        if state.lease_run:
            lapsed = replace(state, lease_until="2020-01-01T00:00:00Z")
            bench.hub.states.save_entity(DEFAULT_TENANT, bench.connection.uid, "account", lapsed)

    @pytest.mark.parametrize("origin", ["caller", "schedule"])
    def test_a_worker_that_dies_while_it_stops_lets_none_through(self, bench, rids, points, origin):
        delete(bench, rids[:20])
        left, crashed = 0, True
        while crashed:
            if origin == "caller":
                bench.hub.start_run(DEFAULT_TENANT, "demo", [], "incremental", "key:test")
            else:
                bench.due()
                bench.hub.tick()
            crashed = crashing_work(bench, points, left)
            if left % 2:  # the message comes first, or the tick finds the lease
                bench.work()
            self.lapse(bench)
            bench.hub.tick()
            bench.work()
            state = bench.state()
            assert (living(bench), state.lease_run) == (ROWS, ""), f"crash at call {left}"
            if not state.stopped_run:
                bench.due()
                bench.hub.tick()
                bench.work()
            run = bench.run(bench.state().stopped_run)
            assert run.status == "stopped", f"crash at call {left}"
            bench.hub.cancel_run(DEFAULT_TENANT, run)
            assert [each.status for each in self.runs(bench) if not each.ended] == [], f"crash at {left}"
            left += 1
        assert left > 8

    def runs(self, bench):
        return bench.hub.runs.page(DEFAULT_TENANT, top=1000, token=None)[0]

    def test_another_run_that_takes_over_from_a_dead_one_that_stopped_stands_back(self, bench, rids):
        delete(bench, rids[:20])
        run = bench.pull()
        died = replace(bench.state(), stopped_run="", lease_run=run.id, lease_until="2020-01-01T00:00:00Z")
        bench.hub.states.save_entity(DEFAULT_TENANT, bench.connection.uid, "account", died)
        late = bench.pull("full")
        assert (late.status, late.problem.code) == ("failed", "Brake")
        state = bench.state()
        assert (state.stopped_run, state.lease_run, living(bench)) == (run.id, "", ROWS)

    @pytest.mark.parametrize("way", ["approve_run", "cancel_run"])
    def test_who_dies_while_deciding_can_decide_again(self, bench, rids, points, way):
        decide = getattr(bench.hub, way)
        left = 0
        while True:
            gone = [bench.remote.create(f"More {left} {number}") for number in range(15)]
            assert bench.pull().status == "succeeded"
            delete(bench, gone)
            stopped = bench.pull()
            assert stopped.status == "stopped"
            points.arm(left)
            try:
                decide(DEFAULT_TENANT, stopped)
            except Crash:
                crashed = True
            else:
                crashed = False
            finally:
                points.disarm()
            if crashed:
                self.decide_again(bench, stopped, way)
            bench.work()
            self.lapse(bench)
            bench.hub.tick()
            bench.work()
            run = bench.run(stopped.id)
            expected = "succeeded" if way == "approve_run" else "failed"
            assert (run.status, bench.state().stopped_run) == (expected, ""), f"crash at call {left}"
            if way == "cancel_run":
                approve(bench, bench.pull().id)
            bench.assert_equal()
            if not crashed:
                break
            left += 1
        assert left > 4

    def decide_again(self, bench, stopped, way):
        """A person who had no answer tries again; 409 where the first try had come far enough."""
        if bench.state().stopped_run != stopped.id:
            with pytest.raises(Conflict):
                getattr(bench.hub, way)(DEFAULT_TENANT, bench.run(stopped.id))
            return
        getattr(bench.hub, way)(DEFAULT_TENANT, bench.run(stopped.id))
