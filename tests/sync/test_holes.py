"""Holes that were found by reading the code with bad intent: each stays closed."""

from dataclasses import replace
from datetime import timedelta

import pytest

from crm_core.connection_admin import ABANDONED_MINUTES
from crm_core.errors import BadRequest, Conflict, StoreUnavailable
from crm_core.model.connection import DEFAULT_TENANT, Connection
from crm_core.model.fields import hub_time, instant_text
from crm_core.ports import Meter, Row, RowChanged, RowExists
from crm_core.storage import layout
from crm_core.storage.memory import MemoryTable
from crm_core.storage.state import inserted, json_values, replaced
from crm_core.sync.engine import Job


def down(*_):
    raise StoreUnavailable("nobody answers")


def test_an_unreadable_point_read_is_set_aside_and_the_record_stays(memory_bench, monkeypatch):
    bench = memory_bench
    bench.remote.options(tracking={"account": False})
    rid = bench.remote.create("Whole")
    bench.connect()
    bench.pull()
    connector = bench.hub.open(DEFAULT_TENANT, bench.connection.uid).connector
    real = connector.get_many
    monkeypatch.setattr(
        connector,
        "get_many",
        lambda entity, rids: {
            key: replace(change, fields={}, problem="can't be read")
            for key, change in real(entity, rids).items()
        },
    )
    monkeypatch.setattr(connector, "changes", _without(connector.changes, rid))
    run = bench.pull("full")
    assert run.counts["failed"] == 1
    assert bench.stored()[rid].fields["name"] == "Whole"
    assert [letter["cause"] for letter in bench.dead_letters()] == ["can't be read"]


def _without(changes, rid):
    def read(entity, cursor, *, size):
        page = changes(entity, cursor, size=size)
        return replace(page, changes=[each for each in page.changes if each.rid != rid])

    return read


class TestFeedByTime:
    @pytest.fixture(autouse=True)
    def _untracked(self, remote):
        remote.options(tracking={"account": False})

    def test_a_time_in_the_future_does_not_carry_the_cursor_away(self, memory_bench):
        bench = memory_bench
        bench.remote.create("From 2030", at="2030-01-01T00:00:00Z")
        bench.connect()
        bench.pull()
        new = bench.remote.create("Now")
        bench.pull()
        assert new in bench.stored()

    def test_a_burst_of_one_second_is_not_read_again_for_ever(self, memory_bench):
        bench = memory_bench
        at = instant_text((bench.hub.clock.now() - timedelta(minutes=20)).replace(microsecond=0))
        for n in range(400):
            bench.remote.create(f"Row {n}", at=at)
        bench.connect()
        assert bench.pull().counts["created"] == 400
        reads = [bench.pull().read for _ in range(4)]
        assert reads[-1] == 0, reads


def test_a_poisoned_scheduled_pull_waits_for_its_next_time_and_says_why(memory_bench):
    bench = memory_bench
    bench.connect()
    job = Job("pull", DEFAULT_TENANT, bench.connection.uid, "account")
    bench.hub.poisoned(layout.FRESH, job.to_message())
    assert bench.state().problem.code == "Bug"
    assert bench.hub.tick() == 0


def test_a_worker_that_dies_between_the_run_s_row_and_the_state_row_leaves_nothing_open(
    memory_bench, monkeypatch
):
    bench = memory_bench
    bench.remote.create("Row")
    bench.connect()

    class Died(BaseException):
        pass

    def die(*_):
        raise Died

    from crm_core.sync.pull import Puller

    run = bench.hub.start_run(DEFAULT_TENANT, "demo", [], "incremental", "key:test")
    with monkeypatch.context() as patch:
        patch.setattr(Puller, "_close", die)
        (message,) = bench.queue.receive(layout.FRESH)
        with pytest.raises(Died):
            bench.hub.handle(layout.FRESH, message.body, 1)
    assert bench.run(run.id).status == "succeeded"
    assert bench.state().lease_run == run.id
    bench.hub.handle(layout.FRESH, message.body, 2)
    bench.queue.delete(layout.FRESH, message)
    assert bench.state().lease_run == ""
    assert bench.pull().read == 0


def test_figures_that_can_not_be_written_fail_nothing(memory_bench, monkeypatch):
    bench = memory_bench
    monkeypatch.setattr(bench.hub.stats, "add", down)
    meter = Meter()
    meter.add("remote_calls", "c", 1)
    bench.hub.add_figures(meter, flush=True)


class TestAskedFor:
    """POST /api/runs, when the queue does not answer."""

    def test_a_message_that_was_not_sent_ends_its_run(self, memory_bench, monkeypatch):
        bench = memory_bench
        bench.connect()
        with monkeypatch.context() as patch:
            patch.setattr(bench.queue, "send", down)
            with pytest.raises(StoreUnavailable):
                bench.hub.start_run(DEFAULT_TENANT, "demo", [], "incremental", "key:test")
        (ended,) = bench.hub.runs.page(DEFAULT_TENANT, top=5, token=None)[0]
        assert (ended.status, ended.problem.code) == ("failed", "StoreUnavailable")
        assert bench.pull().status == "succeeded"

    def test_a_message_whose_answer_was_lost_has_begun_its_run(self, memory_bench, monkeypatch):
        bench = memory_bench
        bench.remote.create("Row")
        bench.connect()
        send = bench.queue.send

        def worked_on_and_then_lost(*args):
            send(*args)
            bench.work()
            down()

        with monkeypatch.context() as patch:
            patch.setattr(bench.queue, "send", worked_on_and_then_lost)
            run = bench.hub.start_run(DEFAULT_TENANT, "demo", [], "incremental", "key:test")
        assert bench.run(run.id).status == "succeeded"

    def test_a_run_whose_asker_died_before_its_message_is_sent_when_asked_for_again(
        self, memory_bench, monkeypatch
    ):
        bench = memory_bench
        bench.remote.create("Row")
        bench.connect()
        with monkeypatch.context() as patch:
            patch.setattr(bench.queue, "send", lambda *_: None)
            lost = bench.hub.start_run(DEFAULT_TENANT, "demo", [], "incremental", "key:test")
        with pytest.raises(Conflict, match=lost.id):
            bench.pull()
        assert bench.work() == 0  # its message may still be on the way
        old = hub_time(bench.hub.clock.now() - timedelta(minutes=3))
        bench.hub.runs.save(DEFAULT_TENANT, replace(bench.run(lost.id), created_at=old))
        with pytest.raises(Conflict, match=lost.id):
            bench.pull()
        bench.work()
        assert bench.run(lost.id).status == "succeeded"
        bench.assert_equal()


class TestConnections:
    def test_a_slug_that_looks_like_a_uid_is_refused(self, memory_bench):
        with pytest.raises(BadRequest, match="slug"):
            memory_bench.connect("abcdef12-1234-4234-8234-123456789abc")

    def test_a_slug_whose_maker_died_is_free_after_some_minutes(self, memory_bench, monkeypatch):
        bench = memory_bench
        old = bench.hub.clock.now() - timedelta(minutes=ABANDONED_MINUTES + 1)
        assert bench.hub.keys.claim_slug(DEFAULT_TENANT, "demo", "dead", hub_time(old))
        bench.connect("demo")
        assert bench.hub.find(DEFAULT_TENANT, "demo").uid == bench.connection.uid

    def test_a_slug_that_is_being_claimed_is_taken(self, memory_bench):
        bench = memory_bench
        assert bench.hub.keys.claim_slug(DEFAULT_TENANT, "demo", "other", hub_time(bench.hub.clock.now()))
        with pytest.raises(Conflict):
            bench.connect("demo")

    def test_what_newer_code_wrote_is_kept(self, memory_bench):
        bench = memory_bench
        connection = bench.connect()
        data = {**connection.to_json(), "brakes": {"deletes": 5}}
        again = Connection.from_json(DEFAULT_TENANT, data, "e")
        assert again.to_json()["brakes"] == {"deletes": 5}


class TestTwice:
    """The SDK may send a write again after a lost answer; the second answer then looks like somebody else's."""

    ROW = Row("p", "r", json_values({"a": 1}))

    def test_our_own_insert_is_ours(self):
        table = MemoryTable()
        etag = table.insert(layout.STATE, self.ROW)
        assert inserted(table, layout.STATE, self.ROW) == etag
        with pytest.raises(RowExists):
            inserted(table, layout.STATE, Row("p", "r", json_values({"a": 2})))

    def test_our_own_replace_is_ours(self):
        table = MemoryTable()
        before = table.insert(layout.STATE, self.ROW)
        changed = Row("p", "r", json_values({"a": 2}))
        etag = table.replace(layout.STATE, changed, before)
        assert replaced(table, layout.STATE, changed, before) == etag
        with pytest.raises(RowChanged):
            replaced(table, layout.STATE, Row("p", "r", json_values({"a": 3})), before)


class TestTwoWorkers:
    """Two instances of the hub over one store; what one does between two calls of the other is chosen exactly."""

    @pytest.fixture
    def other(self, memory_bench):
        bench = memory_bench
        from contextlib import closing

        from crm_core.hub import Hub

        hub = Hub(bench.hub.settings, table=bench.hub.table, queue=bench.queue, blob=bench.hub.engine.blob)
        with closing(hub):
            yield hub

    def once(self, monkeypatch, target, name, between):
        """`between` happens once, just before the first call of a method."""
        real, done = getattr(target, name), []

        def call(*args, **kwargs):
            if not done:
                done.append(True)
                between()
            return real(*args, **kwargs)

        monkeypatch.setattr(target, name, call)

    def job(self, bench, run=""):
        return Job("pull", DEFAULT_TENANT, bench.connection.uid, "account", run).to_message()

    @pytest.mark.parametrize("memory_bench", [{"LEASE_SECONDS": "0.001"}], indirect=True)
    def test_a_slow_worker_does_not_write_over_a_newer_version(self, memory_bench, other, monkeypatch):
        bench = memory_bench
        rid = bench.remote.create("One")
        bench.connect()
        bench.pull()
        bench.remote.update(rid, name="Two")
        run = bench.hub.start_run(DEFAULT_TENANT, "demo", [], "incremental", "key:test")

        def meanwhile():
            bench.remote.update(rid, name="Three")
            other.handle(layout.FRESH, self.job(bench, run.id), 1)

        self.once(monkeypatch, bench.hub.records, "commit", meanwhile)
        bench.work()
        assert bench.stored()[rid].fields["name"] == "Three"
        bench.due()
        bench.hub.tick()
        bench.work()
        bench.assert_equal()

    @pytest.mark.parametrize("memory_bench", [{"LEASE_SECONDS": "0.001"}], indirect=True)
    def test_a_slow_worker_does_not_bring_back_what_a_full_run_did_not_find(
        self, memory_bench, other, monkeypatch
    ):
        """It stops between the look at its lease and the write, and what it writes nobody else has ever known."""
        bench = memory_bench
        bench.remote.create("Stays")
        bench.connect()
        bench.pull()
        rid = bench.remote.create("Goes")
        bench.hub.start_run(DEFAULT_TENANT, "demo", [], "incremental", "key:test")
        (message,) = bench.queue.receive(layout.FRESH)
        bench.queue.delete(layout.FRESH, message)

        def meanwhile():
            bench.remote.delete(rid)
            full = other.start_run(DEFAULT_TENANT, "demo", [], "full", "key:test")
            other.handle(layout.FRESH, self.job(bench, full.id), 1)
            assert bench.run(full.id).status == "succeeded"

        self.once(monkeypatch, bench.hub.records, "commit", meanwhile)
        bench.hub.handle(layout.FRESH, message.body, 1)
        assert bench.stored()[rid].links[bench.connection.uid].state == "gone"

    def test_the_cursor_does_not_go_back_to_a_slow_worker_s(self, memory_bench, other, monkeypatch):
        bench = memory_bench
        bench.remote.create("One")
        bench.connect()
        bench.due()
        connector = bench.hub.open(DEFAULT_TENANT, bench.connection.uid).connector
        saved = []

        def meanwhile():
            other.handle(layout.FRESH, self.job(bench), 1)
            saved.append(bench.state())

        real = connector.changes

        def changes(entity, cursor, *, size):
            page = real(entity, cursor, size=size)
            if not saved:
                meanwhile()  # after our page was read, before anything of it is saved
            return page

        monkeypatch.setattr(connector, "changes", changes)
        bench.hub.handle(layout.FRESH, self.job(bench), 1)
        assert bench.state() == saved[0]
        assert bench.state().last_success

    def test_the_run_of_a_worker_that_lost_the_race_comes_again(self, memory_bench, other, monkeypatch):
        bench = memory_bench
        bench.remote.create("One")
        bench.connect()
        bench.due()
        connector = bench.hub.open(DEFAULT_TENANT, bench.connection.uid).connector
        self.once(monkeypatch, connector, "changes", lambda: other.handle(layout.FRESH, self.job(bench), 1))
        run = bench.hub.start_run(DEFAULT_TENANT, "demo", [], "incremental", "key:test")
        bench.work()
        assert bench.run(run.id).ended or bench.queue.size(layout.FRESH) == 1


def test_an_old_page_does_not_wake_a_row_that_was_deleted_before_the_hub_had_it(memory_bench, monkeypatch):
    bench = memory_bench
    rid = bench.remote.create("Ghost")
    bench.connect()
    connector = bench.hub.open(DEFAULT_TENANT, bench.connection.uid).connector
    page = connector.changes("account", None, size=10)
    bench.remote.delete(rid)
    record_id = layout.derived_record_id(DEFAULT_TENANT, bench.connection.uid, "account", rid)
    pk = layout.records_pk(DEFAULT_TENANT, "account", layout.bucket(record_id))
    tomb = {
        "kind": "tomb",
        **json_values({"v": 1, "time": "t", "connection": bench.connection.uid, "rid": rid}),
    }
    bench.hub.table.insert(layout.RECORDS, Row(pk, record_id, tomb))
    real, served = connector.changes, []

    def changes(entity, cursor, *, size):
        if not served:
            served.append(True)
            return page
        return real(entity, cursor, size=size)

    monkeypatch.setattr(connector, "changes", changes)
    assert bench.pull().status == "succeeded"
    assert bench.stored() == {}
