"""Pulling accounts from a Dataverse server into the store, over Azurite and real HTTP."""

import weakref
from dataclasses import replace
from datetime import timedelta

import pytest

from crm_core.errors import BadRequest, Conflict
from crm_core.model.connection import DEFAULT_TENANT
from crm_core.model.fields import hub_time, parse_instant
from crm_core.ports import measured
from crm_core.storage import layout
from crm_core.storage.records import HistoryEntry, Redirect, Tomb
from crm_core.sync.engine import Job

SMALL = {"PAGE_RECORDS": "7", "BATCH_RECORDS": "10"}


def history(bench, record_id):
    return list(bench.hub.records.history(DEFAULT_TENANT, "account", record_id))


def test_a_first_load_stores_every_row_once(bench):
    rids = {bench.remote.create(f"Compañía {n}") for n in range(30)}
    bench.connect()
    run = bench.pull()
    assert run.status == "succeeded"
    assert run.counts == {"created": 30, "updated": 0, "deleted": 0, "unchanged": 0, "failed": 0}
    assert bench.stored().keys() == rids
    bench.assert_equal()
    for record in bench.stored().values():
        assert record.version == 1
        assert history(bench, record.id) == []
        assert record.created["run"] == run.id


def test_nothing_new_costs_one_remote_and_two_storage_calls(bench):
    bench.remote.create("Uno")
    bench.connect()
    bench.pull()
    bench.due()
    bench.hub.tick()
    with measured() as meter:
        assert bench.work() == 1
    assert meter.total("remote_calls") == 1
    assert meter.total("storage_calls") == 2


def test_a_scheduled_pull_that_changes_nothing_leaves_no_run(bench):
    bench.remote.create("Uno")
    bench.connect()
    bench.hub.tick()
    bench.work()
    bench.due()
    bench.hub.tick()
    bench.work()
    runs, _ = bench.hub.runs.page(DEFAULT_TENANT, top=10, token=None)
    assert [run.origin for run in runs] == ["schedule"]
    assert runs[0].counts["created"] == 1


def test_changes_deletes_and_returns_are_merged_with_their_history(bench):
    kept, changed, deleted = (bench.remote.create(name) for name in ("Kept", "Changed", "Deleted"))
    bench.connect()
    bench.pull()
    bench.remote.update(changed, name="Ñandú & Co", telephone1="+56 2 555")
    bench.remote.delete(deleted)
    new = bench.remote.create("New")
    run = bench.pull()
    assert run.counts == {"created": 1, "updated": 1, "deleted": 1, "unchanged": 0, "failed": 0}
    stored = bench.stored()
    assert stored.keys() == {kept, changed, deleted, new}
    after = stored[changed]
    assert (after.version, after.fields["name"], after.fields["phone"]) == (2, "Ñandú & Co", "+56 2 555")
    (step,) = history(bench, after.id)
    assert isinstance(step, HistoryEntry)
    assert (step.version, step.run, step.old["name"], step.old["phone"]) == (2, run.id, "Changed", None)
    gone = stored[deleted]
    assert gone.fields["name"] == "Deleted"
    assert history(bench, gone.id)[0].change == "delete"
    bench.assert_equal()


def test_a_second_pull_reads_only_what_is_new(bench):
    for n in range(20):
        bench.remote.create(f"Row {n}")
    bench.connect()
    bench.pull()
    bench.remote.create("One more")
    assert bench.pull().read == 1


def test_a_change_of_a_field_that_is_not_mapped_moves_no_version(bench):
    rid = bench.remote.create("Row")
    bench.connect()
    bench.pull()
    bench.remote.update(rid, fax="123")
    run = bench.pull()
    (record,) = bench.stored().values()
    # updated_at is mapped, and the remote's time of the change is to the second.
    assert run.counts["failed"] == 0
    assert record.fields["name"] == "Row"
    assert record.links[bench.connection.uid].ver


@pytest.mark.parametrize("bench", [SMALL], indirect=True)
def test_pages_smaller_than_a_batch_are_written_together(bench):
    for n in range(40):
        bench.remote.create(f"Row {n}")
    bench.connect()
    run = bench.pull()
    assert run.counts["created"] == 40
    assert run.calls["remote"] >= 6
    bench.assert_equal()


@pytest.mark.parametrize(
    "bench", [{**SMALL, "FRESH_SLICE_SECONDS": "0.000001", "BULK_SLICE_SECONDS": "0.000001"}], indirect=True
)
@pytest.mark.parametrize("mode", ["incremental", "full"])
def test_a_run_is_cut_into_slices_that_follow_each_other(bench, mode):
    for n in range(30):
        bench.remote.create(f"Row {n}")
    bench.connect()
    run = bench.pull(mode)
    assert run.status == "succeeded"
    assert run.slices >= 4
    assert run.counts["created"] == 30
    assert bench.state().lease_run == ""
    bench.assert_equal()


class TestWithoutChangeTracking:
    """The feed by modifiedon: whole seconds, ties, late rows, no tombstones."""

    @pytest.fixture(autouse=True)
    def _untracked(self, remote):
        remote.options(tracking={"account": False})

    def test_the_same_second_loses_nothing(self, bench):
        at = "2026-11-01T10:00:00Z"
        first = bench.remote.create("First", at=at)
        bench.connect()
        bench.pull()
        second = bench.remote.create("Second", at=at)
        bench.remote.update(first, name="First again", at=at)
        run = bench.pull()
        assert (run.counts["created"], run.counts["updated"]) == (1, 1)
        assert bench.stored()[second].fields["name"] == "Second"
        assert bench.stored()[first].fields["name"] == "First again"

    def test_a_row_that_is_committed_late_is_found(self, bench):
        bench.remote.create("Early", at="2026-11-01T10:05:00Z")
        bench.connect()
        bench.pull()
        late = bench.remote.create("Late", at="2026-11-01T10:01:00Z")
        bench.pull()
        assert late in bench.stored()

    def test_the_overlap_is_read_but_not_written_again(self, bench):
        for n in range(5):
            bench.remote.create(f"Row {n}", at="2026-11-01T10:00:00Z")
        bench.connect()
        bench.pull()
        run = bench.pull()
        assert (run.read, run.counts["unchanged"]) == (0, 0)

    @pytest.mark.parametrize("bench", [SMALL], indirect=True)
    def test_pages_of_one_second_are_all_read(self, bench):
        for n in range(33):
            bench.remote.create(f"Row {n}", at="2026-11-01T10:00:00Z")
        bench.connect()
        assert bench.pull().counts["created"] == 33
        bench.assert_equal()

    def test_a_full_run_finds_deletes_by_comparing_ids(self, bench):
        rids = [bench.remote.create(f"Row {n}") for n in range(20)]
        bench.connect()
        bench.pull()
        for rid in rids[:7]:
            bench.remote.delete(rid)
        assert bench.pull().counts["deleted"] == 0
        run = bench.pull("full")
        assert (run.counts["deleted"], run.counts["unchanged"]) == (7, 13)
        bench.assert_equal()
        assert bench.hub.engine.blob.get(f"runs/default/{run.id}/000000") is None


def test_a_cursor_that_the_vendor_forgot_leads_to_a_full_run(bench):
    kept, deleted = bench.remote.create("Kept"), bench.remote.create("Deleted")
    bench.connect()
    bench.pull()
    bench.remote.delete(deleted)
    expired = replace(bench.state(), cursor={"delta": "%24deltatoken=1%2108%2f22%2f2017%2008%3a10%3a44"})
    bench.hub.states.save_entity(DEFAULT_TENANT, bench.connection.uid, "account", expired)
    run = bench.pull()
    assert (run.status, run.mode, run.counts["deleted"]) == ("succeeded", "full", 1)
    bench.assert_equal()
    bench.remote.update(kept, name="Kept on")
    assert bench.pull().mode == "incremental"
    bench.assert_equal()


def test_a_deleted_row_that_comes_back_lives_again(bench):
    rid = bench.remote.create("Phoenix")
    bench.connect()
    bench.pull()
    bench.remote.delete(rid)
    bench.pull()
    bench.remote.control("POST", "rows/account", {"values": {"accountid": rid, "name": "Phoenix II"}})
    run = bench.pull()
    assert run.counts["updated"] == 1
    bench.assert_equal()
    (record,) = bench.stored().values()
    assert record.version == 3


def test_a_delete_of_a_row_never_seen_leaves_a_tomb_that_an_old_page_does_not_wake(bench):
    bench.connect()
    bench.pull()
    rid = bench.remote.create("Short life")
    bench.remote.delete(rid)
    bench.pull()
    assert bench.stored() == {}
    record_id = layout.derived_record_id(DEFAULT_TENANT, bench.connection.uid, "account", rid)
    stored = bench.hub.records.get(DEFAULT_TENANT, "account", record_id)
    assert stored is None or isinstance(stored.content, Tomb)


class TestPart:
    """A run that reads only what was modified since a time, or passes a filter."""

    def test_it_reads_what_passes_and_leaves_the_place_in_the_feed_alone(self, bench):
        for name in ("Andes one", "Andes two", "Other"):
            bench.remote.create(name)
        bench.connect()
        run = bench.pull(where="startswith(name,'Andes')")
        assert (run.status, run.counts["created"], run.read) == ("succeeded", 2, 2)
        assert sorted(each.fields["name"] for each in bench.stored().values()) == ["Andes one", "Andes two"]
        state = bench.state()
        assert (state.cursor, state.last_success, state.last_run) == (None, "", run.id)
        assert state.lease_run == ""
        # The first load still reads everything.
        assert bench.pull().read == 3
        assert len(bench.stored()) == 3

    def test_the_schedule_goes_on_where_it_was(self, bench):
        rid = bench.remote.create("Row")
        bench.connect()
        bench.pull()
        before = bench.state()
        bench.remote.update(rid, name="Changed")
        assert bench.pull(where="name eq 'Changed'").counts["updated"] == 1
        after = bench.state()
        assert (after.cursor, after.due, after.last_success) == (
            before.cursor,
            before.due,
            before.last_success,
        )
        assert bench.pull().counts["unchanged"] == 1  # the feed tells of it once more

    def test_since_reads_the_newer_ones(self, bench):
        bench.remote.create("Old", at="2020-01-01T00:00:00Z")
        bench.remote.create("New")
        bench.connect()
        run = bench.pull(since="2024-01-01T00:00:00Z")
        assert [each.fields["name"] for each in bench.stored().values()] == ["New"]
        assert (run.since, run.filter, run.partial) == ("2024-01-01T00:00:00Z", "", True)

    @pytest.mark.parametrize("since", ["0001-01-01T00:00:00Z", "1752-12-31T00:00:00Z"])
    def test_since_the_beginning_of_time_is_since_ever(self, bench, since):
        bench.remote.create("Row")
        bench.connect()
        assert bench.pull(since=since).read == 1

    def test_a_place_that_is_lost_in_the_middle_begins_this_run_anew(self, bench):
        for number in range(25):
            bench.remote.create(f"Row {number:02}")
        bench.connect()
        bench.remote.fault("status", status=400, path="*skiptoken*", count=1)
        run = bench.pull(where="contains(name,'Row')")
        assert (run.status, run.mode, len(bench.stored())) == ("succeeded", "incremental", 25)
        assert bench.state().cursor is None

    def test_a_field_that_is_none_is_refused_before_anything_is_done(self, bench):
        bench.connect()
        with pytest.raises(BadRequest, match="'colour' is no field of account"):
            bench.pull(where="colour eq 'red'")
        assert bench.queue.size(layout.FRESH) == 0

    @pytest.mark.parametrize("status", [400, 403])
    def test_what_it_meets_is_not_the_schedule_s(self, bench, status):
        bench.remote.create("Row")
        bench.connect()
        bench.pull()
        bench.due()
        before = bench.state()
        bench.remote.fault("status", status=status, path="*filter*")
        run = bench.pull(where="name eq 'Row'")
        assert (run.status, run.problem.code) == ("failed", {400: "Rejected", 403: "NotPermitted"}[status])
        after = bench.state()
        assert (after.due, after.waits, after.problem) == (before.due, False, None)
        assert after.lease_run == ""

    def test_what_the_schedule_met_is_not_mended_by_it(self, bench):
        bench.remote.create("Row")
        bench.connect()
        bench.remote.fault("status", status=403, path="*/accounts*", count=1)
        assert bench.pull().status == "failed"
        before = bench.state()
        assert (before.waits, before.problem.code) == (True, "NotPermitted")
        assert bench.pull(where="name eq 'Row'").status == "succeeded"
        after = bench.state()
        assert (after.waits, after.problem) == (True, before.problem)

    def test_another_part_may_be_read_beside_it(self, bench):
        bench.connect()
        first = bench.hub.start_run(
            DEFAULT_TENANT, "demo", [], "incremental", "key:test", where="name eq 'a'"
        )
        other = bench.hub.start_run(
            DEFAULT_TENANT, "demo", [], "incremental", "key:test", where="name eq 'b'"
        )
        with pytest.raises(Conflict, match=first.id):
            bench.hub.start_run(DEFAULT_TENANT, "demo", [], "incremental", "key:test", where="name eq 'a'")
        bench.work()
        assert {bench.run(each.id).status for each in (first, other)} == {"succeeded"}


class TestLease:
    def take(self, bench, seconds, run="another-run"):
        until = hub_time(bench.hub.clock.now() + timedelta(seconds=seconds))
        held = replace(bench.state(), lease_run=run, lease_until=until)
        bench.hub.states.save_entity(DEFAULT_TENANT, bench.connection.uid, "account", held)

    def test_a_scheduled_pull_leaves_a_held_lease_alone(self, bench):
        bench.remote.create("Row")
        bench.connect()
        self.take(bench, 60)
        bench.hub.engine.send(layout.FRESH, Job("pull", DEFAULT_TENANT, bench.connection.uid, "account"))
        assert bench.work() == 1
        assert bench.stored() == {}
        assert bench.queue.size(layout.FRESH) == 0

    def test_a_promised_run_waits_for_it(self, bench):
        bench.remote.create("Row")
        bench.connect()
        self.take(bench, 60)
        run = bench.hub.start_run(DEFAULT_TENANT, "demo", [], "incremental", "key:test")
        assert bench.work() == 1
        assert bench.run(run.id).status == "queued"
        assert bench.queue.size(layout.FRESH) == 1

    def test_the_tick_revives_a_lapsed_lease_under_its_own_run(self, bench):
        bench.remote.create("Row")
        bench.connect()
        self.take(bench, -1, run="99999999999999-dead")
        bench.hub.tick()
        bench.work()
        assert len(bench.stored()) == 1
        assert bench.run("99999999999999-dead").status == "succeeded"
        assert bench.state().lease_run == ""

    def test_a_second_run_of_the_same_mode_is_refused_with_the_first_ones_id(self, bench):
        bench.connect()
        first = bench.hub.start_run(DEFAULT_TENANT, "demo", [], "incremental", "key:test")
        self.take(bench, 60, run=first.id)
        with pytest.raises(Conflict, match=first.id):
            bench.hub.start_run(DEFAULT_TENANT, "demo", [], "incremental", "key:test")


class TestFailures:
    def test_a_wrong_secret_needs_attention_and_a_saved_one_mends_it(self, bench):
        from crm_core.connection_admin import Wanted

        bench.remote.create("Row")
        bench.connect()
        bench.hub.admin.update(bench.connection, Wanted(secrets={"client_secret": "wrong-secret-value"}))
        run = bench.pull()
        assert (run.status, run.problem.code) == ("failed", "AuthFailed")
        assert "7000215" in run.problem.message
        assert "wrong-secret-value" not in run.problem.message
        assert bench.health().health == "needs_attention"
        bench.due()
        assert bench.hub.tick() == 0
        connection = bench.hub.connections.get(DEFAULT_TENANT, bench.connection.uid)
        bench.hub.forget(
            bench.hub.admin.update(connection, Wanted(secrets={"client_secret": "sync-test-secret-value"}))
        )
        assert bench.health().health == "ok"
        bench.due()
        assert bench.hub.tick() == 1
        bench.work()
        bench.assert_equal()

    def test_a_missing_privilege_stops_the_entity_only(self, bench):
        bench.remote.create("Row")
        bench.connect()
        bench.remote.fault("privilege", path="*/accounts*")
        run = bench.pull()
        assert (run.status, run.problem.code) == ("failed", "NotPermitted")
        assert bench.state().waits
        assert bench.health().health == "ok"
        bench.due()
        assert bench.hub.tick() == 0

    def test_a_rate_limit_makes_everybody_wait_and_is_no_attempt(self, bench):
        bench.remote.create("Row")
        bench.connect()
        bench.remote.fault("throttle", path="*/accounts*", retry_after=120)
        run = bench.hub.start_run(DEFAULT_TENANT, "demo", [], "incremental", "key:test")
        assert bench.work() == 1
        assert not bench.run(run.id).ended
        assert bench.health().not_before > hub_time(bench.hub.clock.now() + timedelta(seconds=110))
        assert bench.hub.tick() == 0
        assert bench.queue.size(layout.FRESH) == 1

    def test_a_system_that_does_not_answer_becomes_unreachable_and_well_again(self, bench):
        bench.remote.create("Row")
        bench.connect()
        bench.remote.fault("status", status=503, path="*/accounts*")
        for failures in (1, 2, 3):
            bench.due()
            self.no_wait(bench)
            assert bench.hub.tick() == 1
            bench.work()
            assert bench.health().failures == failures
        assert bench.health().health == "unreachable"
        bench.remote.clear_faults()
        self.no_wait(bench)
        bench.hub.tick()
        bench.work()
        assert bench.health().health == "ok"
        assert bench.health().failures == 0
        bench.assert_equal()

    def test_one_worker_asks_for_all_while_the_system_does_not_answer(self, bench, monkeypatch):
        """Two entities are due and a caller waits for both; the other run comes again when the system has answered."""
        bench.connect(entities={"account": "pull", "contact": "pull"})
        unwell = replace(bench.health(), health="unreachable", failures=3)
        bench.hub.states.save_connection(DEFAULT_TENANT, bench.connection.uid, unwell)
        run = bench.hub.start_run(DEFAULT_TENANT, "demo", [], "incremental", "key:test")
        bench.due()
        connector = bench.hub.open(DEFAULT_TENANT, bench.connection.uid).connector
        real, asked = connector.changes, []

        def changes(entity, cursor, *, size):
            asked.append(entity)
            if len(asked) == 1:
                assert bench.hub.tick() == 0  # nobody is sent while one asks
                bench.work()  # what was sent before looks, and goes back
                assert len(asked) == 1
            return real(entity, cursor, size=size)

        monkeypatch.setattr(connector, "changes", changes)
        assert bench.hub.tick() == 2
        bench.work()
        assert len(asked) == 1
        assert bench.health().health == "ok"
        assert bench.hub.tick() == 1
        bench.work()
        assert asked == ["account", "contact"]
        assert sorted(bench.run(each).status for each in run.children) == ["queued", "succeeded"]
        assert bench.queue.size(layout.FRESH) == 1

    def test_the_turn_of_one_that_fails_ends_with_the_backoff(self, bench):
        bench.connect()
        unwell = replace(bench.health(), health="unreachable", failures=3)
        bench.hub.states.save_connection(DEFAULT_TENANT, bench.connection.uid, unwell)
        bench.remote.fault("status", status=503, path="*/accounts*")
        bench.hub.tick()
        bench.work()
        wait = parse_instant(bench.health().not_before) - bench.hub.clock.now()
        assert 35 < wait.total_seconds() < 45  # 5 s doubled three times, and a tenth

    @staticmethod
    def no_wait(bench):
        state = replace(bench.health(), not_before="")
        bench.hub.states.save_connection(DEFAULT_TENANT, bench.connection.uid, state)

    @pytest.mark.parametrize("kind", ["garbage", "truncate", "html"])
    def test_an_answer_that_is_none_fails_the_run_after_three_attempts(self, bench, kind):
        bench.connect()
        bench.remote.fault(kind, path="*/accounts*")
        run = bench.hub.start_run(DEFAULT_TENANT, "demo", [], "incremental", "key:test")
        for _ in range(3):
            bench.work()
            job = Job("pull", DEFAULT_TENANT, bench.connection.uid, "account", run.id, attempt=2)
            bench.hub.engine.send(layout.FRESH, job)
        bench.work()
        assert (bench.run(run.id).status, bench.run(run.id).problem.code) == ("failed", "BadAnswer")
        assert bench.state().lease_run == ""


def test_a_record_that_fits_no_row_is_a_dead_letter_and_the_rest_goes_on(bench, monkeypatch):
    import random

    noise = "".join(random.Random(1).choices([chr(c) for c in range(0x4E00, 0x9FFF)], k=1_100_000))
    rid = bench.remote.create("Huge")
    small = bench.remote.create("Small")
    bench.connect()
    opened = bench.hub.open(DEFAULT_TENANT, bench.connection.uid)
    original = opened.connector.changes

    def changes(entity, cursor, *, size):  # no account can hold so much; the next entities can
        page = original(entity, cursor, size=size)
        grown = [
            replace(each, fields={**each.fields, "description": noise}) if each.rid == rid else each
            for each in page.changes
        ]
        return replace(page, changes=grown)

    monkeypatch.setattr(opened.connector, "changes", changes)
    run = bench.pull()
    assert (run.status, run.counts["created"], run.counts["failed"]) == ("succeeded", 1, 1)
    assert bench.stored().keys() == {small}
    (letter,) = bench.dead_letters()
    assert (letter["rid"], letter["entity"]) == (rid, "account")
    assert "description" in letter["cause"]


def test_a_second_row_of_a_record_that_lives_is_kept_beside_it_and_a_person_is_asked(bench):
    rid = bench.remote.create("Row")
    bench.connect()
    bench.pull()
    (record,) = bench.stored().values()
    other = bench.remote.create("Other")
    other_id = layout.derived_record_id(DEFAULT_TENANT, bench.connection.uid, "account", other)
    from crm_core.ports import Row

    pk = layout.records_pk(DEFAULT_TENANT, "account", layout.bucket(other_id))
    bench.hub.table.insert(layout.RECORDS, Row(pk, other_id, {"kind": "redirect", "v": 1, "to": record.id}))
    bench.pull()
    stored = bench.hub.records.get(DEFAULT_TENANT, "account", other_id)
    assert stored.content == Redirect(record.id)
    both = bench.stored()
    assert both.keys() == {rid, other}
    assert both[rid] == record
    assert both[other].reviews == (
        {"kind": "match", "connection": bench.connection.uid, "record": record.id},
    )
    bench.remote.update(other, name="Renamed")
    bench.pull()
    assert bench.stored()[other].fields["name"] == "Renamed"
    bench.remote.delete(other)
    bench.pull()
    assert bench.stored()[other].links[bench.connection.uid].state == "gone"
    assert bench.stored()[rid] == record


class TestMessages:
    def test_what_is_no_job_becomes_a_dead_letter(self, bench):
        for body in ("not json", '{"v": 99}', '{"v": 1, "job": "dance", "tenant": "default"}', "[]"):
            bench.queue.send(layout.FRESH, body)
        assert bench.work() == 4
        assert {letter["body"] for letter in bench.dead_letters()} == {
            "not json",
            '{"v": 99}',
            '{"v": 1, "job": "dance", "tenant": "default"}',
            "[]",
        }

    def test_a_poisoned_run_is_restarted_once_without_progress_then_fails(self, bench):
        bench.connect()
        run = bench.hub.start_run(DEFAULT_TENANT, "demo", [], "incremental", "key:test")
        (message,) = bench.queue.receive(layout.FRESH)
        bench.queue.delete(layout.FRESH, message)
        bench.hub.poisoned(layout.FRESH, message.body)
        assert bench.queue.size(layout.BULK) == 1
        assert not bench.run(run.id).ended
        bench.hub.poisoned(layout.BULK, message.body)
        assert bench.run(run.id).status == "failed"
        assert bench.dead_letters()[0]["connection"] == bench.connection.uid

    def test_a_job_of_a_deleted_connection_ends_its_run(self, bench):
        bench.connect()
        run = bench.hub.start_run(DEFAULT_TENANT, "demo", [], "incremental", "key:test")
        bench.hub.admin.delete(bench.connection)
        bench.hub.forget(bench.connection)
        bench.work()
        assert bench.run(run.id).status == "failed"


def test_references_are_kept_as_record_ids_whether_their_record_is_here_or_not(bench):
    account = bench.remote.create("Casa matriz")
    contact = bench.remote.control(
        "POST",
        "rows/contact",
        {"values": {"lastname": "Rojas", "parentcustomerid_account@odata.bind": f"/accounts({account})"}},
    )["id"]
    connection = bench.connect(entities={"contact": "pull"})
    bench.pull()
    record_id = layout.derived_record_id(DEFAULT_TENANT, connection.uid, "contact", contact)
    stored = bench.hub.records.get(DEFAULT_TENANT, "contact", record_id).content
    assert stored.fields["last_name"] == "Rojas"
    assert stored.fields["account_id"] == layout.derived_record_id(
        DEFAULT_TENANT, connection.uid, "account", account
    )


def test_a_run_of_several_entities_has_a_run_for_each(bench):
    bench.remote.create("Cuenta")
    bench.remote.control("POST", "rows/contact", {"values": {"lastname": "Rojas"}})
    bench.connect(entities={"account": "pull", "contact": "pull"})
    parent = bench.hub.start_run(DEFAULT_TENANT, "demo", [], "incremental", "key:test")
    bench.work()
    children = [bench.run(child) for child in parent.children]
    assert {child.entity: child.counts["created"] for child in children} == {"account": 1, "contact": 1}


@pytest.mark.parametrize("memory_bench", [{"PAGE_RECORDS": "7", "BATCH_RECORDS": "7"}], indirect=True)
def test_no_page_is_kept_longer_than_it_is_worked_on(memory_bench, monkeypatch):
    """Or memory would grow with the number of pages; the first one is fetched elsewhere than the others."""
    for number in range(40):
        memory_bench.remote.create(f"Row {number}")
    memory_bench.connect()
    connector = memory_bench.opened.connector
    changes, pages, alive = connector.changes, [], []

    def watched(*args, **more):
        alive.append(sum(each() is not None for each in pages))
        page = changes(*args, **more)
        pages.append(weakref.ref(page))
        return page

    monkeypatch.setattr(connector, "changes", watched)
    assert memory_bench.pull().counts["created"] == 40
    assert len(alive) == 6
    assert max(alive) <= 1  # the one that is being written while the next is fetched
