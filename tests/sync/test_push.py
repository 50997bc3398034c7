"""Two Dynamics tenants linked through the hub: what a person does on one side arrives on the other, once."""

import json
from dataclasses import replace

import pytest

from crm_core.connection_admin import Wanted
from crm_core.model.connection import DEFAULT_TENANT, EntitySync, Schedule
from crm_core.model.entities import ENTITIES
from crm_core.model.record import open_items
from crm_core.storage import layout
from crm_core.sync import conflicts, resolving
from crm_core.sync.engine import Job
from tests.sync.pairs import SOON, only, refuse_phone


@pytest.fixture
def one_at_a_time(monkeypatch):
    monkeypatch.setitem(SOON, "PUSH_RECORDS", "1")


def test_a_row_made_on_one_side_is_made_on_the_other_and_edits_go_both_ways(pair):
    rid = pair.remotes["a"].create("Contoso", values={"telephone1": "1"})
    pair.connect("a")
    pair.connect("b")
    pair.both()
    (other,) = pair.rows("b")
    assert pair.rows("b")[other]["name"] == "Contoso"
    pair.remotes["b"].update(other, telephone1="2")
    pair.both()
    assert pair.rows("a")[rid]["telephone1"] == "2"
    pair.remotes["a"].update(rid, name="Contoso SA")
    pair.both()
    assert pair.rows("b")[other]["name"] == "Contoso SA"
    record = only(pair.records())
    assert open_items(record) == frozenset()
    calls = {name: each.requests() for name, each in pair.remotes.items()}
    pair.both()
    assert {name: each.requests() - calls[name] for name, each in pair.remotes.items()} == {"a": 1, "b": 1}
    assert only(pair.records()) == record
    assert (len(pair.rows("a")), len(pair.rows("b"))) == (1, 1)


def phones(pair, *rids):
    return tuple(pair.rows(name)[rid]["telephone1"] for name, rid in zip("ab", rids, strict=True))


class TestBothChangeOneField:
    @pytest.mark.parametrize(
        ("policy", "expected"),
        [("newest", "b"), ("remote", "b"), ("local", "a"), ("manual", None), ("skip", None)],
    )
    def test_the_policy_decides_and_the_history_keeps_what_lost(self, linked, policy, expected):
        pair, rid, other = linked(policy=policy)
        pair.remotes["a"].update(rid, telephone1="a", description="from a")
        pair.remotes["b"].update(other, telephone1="b", address1_city="Lima")
        pair.pull("a")  # what b has is not seen before ours is on its way there
        pair.pull("b")
        pair.settle()
        record = only(pair.records())
        if expected is not None:
            assert phones(pair, rid, other) == (expected, expected)
            assert open_items(record) == frozenset()
            assert {row["description"] for name in "ab" for row in pair.rows(name).values()} == {"from a"}
            steps = list(pair.hub.records.history(DEFAULT_TENANT, "account", record.id))
            assert [each.losers["phone"] for each in steps if "phone" in each.losers] == [
                "a" if expected == "b" else "b"
            ]
            return
        assert phones(pair, rid, other) == ("a", "b")
        asked = only(item for item in conflicts.of(record) if item.field == "phone")
        assert (asked.about["ours"], asked.about["theirs"], asked.about["base"]) == ("a", "b", "1")
        for item in list(conflicts.of(record)):
            editor = pair.hub.editor(DEFAULT_TENANT, ENTITIES["account"], "key:test")
            resolving.resolve(editor, conflicts.find(pair.hub.engine, DEFAULT_TENANT, item.id), "theirs")
        pair.settle()
        assert phones(pair, rid, other) == ("b", "b")
        assert pair.rows("a")[rid]["address1_city"] == "Lima"
        assert open_items(only(pair.records())) == frozenset()


class TestDeletes:
    def test_a_delete_marks_and_the_other_side_stays(self, linked):
        pair, rid, other = linked()
        pair.remotes["a"].delete(rid)
        pair.both()
        record = only(pair.records())
        assert (record.dead, bool(record.fields["deleted_at"])) == (False, True)
        assert pair.rows("b").keys() == {other}

    def test_it_goes_everywhere_where_that_is_wanted(self, linked):
        pair, rid, _ = linked(deletes="propagate")
        pair.remotes["a"].delete(rid)
        pair.both()
        assert only(pair.records()).dead
        assert pair.rows("b") == {}
        pair.settle()
        assert (pair.rows("a"), pair.rows("b")) == ({}, {})

    def test_an_edit_that_it_did_not_know_of_makes_the_row_anew(self, linked):
        pair, rid, other = linked(deletes="propagate")
        pair.remotes["b"].update(other, telephone1="2")
        pair.remotes["a"].delete(rid)
        pair.pull("b")
        pair.pull("a")
        pair.settle()
        (again,) = pair.rows("a")
        assert again != rid
        assert phones(pair, again, other) == ("2", "2")

    def test_what_an_app_deletes_goes_everywhere(self, linked):
        pair, _, _ = linked()
        record = only(pair.records())
        pair.hub.editor(DEFAULT_TENANT, ENTITIES["account"], "key:test").delete(record.id)
        pair.work()
        assert (pair.rows("a"), pair.rows("b")) == ({}, {})


class TestMatching:
    def test_rows_of_one_key_are_linked_and_empty_sides_are_filled(self, pair):
        pair.remotes["a"].create(
            "Contoso", values={"websiteurl": "https://www.contoso.example/", "telephone1": "1"}
        )
        pair.remotes["b"].create("CONTOSO", values={"websiteurl": "contoso.example", "description": "from b"})
        how = {"account": {"direction": "both", "match": "website", "policy": "local"}}
        pair.connect("a", how)
        pair.connect("b", how)
        pair.settle()
        record = only(pair.records())
        assert {each.state for each in record.links.values()} == {"live"}
        for name in "ab":
            row = only(pair.rows(name).values())
            assert (row["name"], row["telephone1"], row["description"]) == ("Contoso", "1", "from b")

    def test_a_row_that_the_hub_never_read_is_found_before_another_is_made(self, pair):
        pair.connect("a", {"account": {"direction": "both", "match": "website"}})
        pair.connect("b", {"account": {"direction": "push", "match": "website"}})
        pair.remotes["b"].create("There", values={"websiteurl": "contoso.example"})
        pair.remotes["a"].create("Contoso", values={"websiteurl": "contoso.example"})
        pair.settle()
        assert only(pair.rows("b").values())["name"] == "Contoso"

    @pytest.mark.usefixtures("one_at_a_time")
    def test_however_many_are_found_the_push_wakes_another_connection_once(self, pair):
        how = {"account": {"direction": "both", "match": "website"}}
        made = {name: pair.connect(name, how) for name in "ab"}
        pair.settle()
        for number in range(5):
            values = {"websiteurl": f"row{number}.example"}
            pair.remotes["a"].create(f"Row {number}", values=values)
            pair.remotes["b"].create(f"Row {number}", values={**values, "description": "from b"})
        pair.start("a")
        pair.work_one("pull")
        pair.work_one("push")
        lane = pair.queue.receive("fresh", limit=100)
        woken = [job["connection"] for each in lane if (job := json.loads(each.body))["job"] == "push"]
        assert woken.count(made["a"].uid) == 1
        assert len(pair.items("push")) == 5

    def test_two_rows_of_one_key_in_one_system_are_kept_apart_and_nothing_is_made_of_the_second(self, pair):
        for _ in range(2):
            pair.remotes["a"].create("Twins", values={"websiteurl": "twins.example"})
        how = {"account": {"direction": "both", "match": "website"}}
        pair.connect("a", how)
        pair.connect("b", how)
        pair.settle()
        assert len(pair.records()) == 2
        assert len(pair.rows("b")) == 1
        asked = only(item for record in pair.records() for item in conflicts.of(record))
        assert asked.kind == "match"
        editor = pair.hub.editor(DEFAULT_TENANT, ENTITIES["account"], "key:test")
        resolving.resolve(editor, asked, "separate")
        pair.settle()
        assert len(pair.rows("b")) == 2


class TestReceivers:
    def test_a_connection_that_comes_to_be_written_gets_what_it_has_not(self, pair):
        for number in range(3):
            pair.remotes["a"].create(f"Row {number}")
        pair.connect("a", {"account": {"direction": "pull"}})
        pair.pull("a")
        made = pair.connect("b", {"account": {"direction": "pull"}})
        pair.pull("b")
        assert pair.rows("b") == {}
        wanted = Wanted(entities={"account": EntitySync("both")})
        pair.hub.forget(pair.hub.admin.update(made, wanted))
        pair.settle()
        assert pair.values("b") == ["Row 0", "Row 1", "Row 2"]

    def test_only_what_passes_the_filter_is_made(self, pair):
        for name in ("Keep 1", "Drop", "Keep 2"):
            pair.remotes["a"].create(name)
        pair.connect("a")
        pair.connect("b", {"account": {"direction": "push", "filter": "startswith(name,'Keep')"}})
        pair.settle()
        assert pair.values("b") == ["Keep 1", "Keep 2"]

    def test_too_many_creates_at_once_wait_for_a_person(self, pair):
        pair.hub.engine.tuning.__dict__["brake_creates"] = 2
        for number in range(4):
            pair.remotes["a"].create(f"Row {number}")
        pair.connect("a", {"account": {"direction": "pull"}})
        pair.pull("a")
        made = pair.connect("b", {"account": {"direction": "pull"}})
        pair.pull("b")
        pair.hub.forget(pair.hub.admin.update(made, Wanted(entities={"account": EntitySync("push")})))
        pair.later(1)
        pair.hub.tick()
        pair.work()
        runs = pair.hub.runs.page(DEFAULT_TENANT, top=50, token=None)[0]
        stopped = only(run for run in runs if run.status == "stopped")
        assert stopped.mode == "push"
        assert len(pair.rows("b")) <= 2
        pair.hub.approve_run(DEFAULT_TENANT, stopped)
        pair.settle()
        assert len(pair.rows("b")) == 4


class TestRefusals:
    def test_a_value_that_the_remote_rejects_holds_up_nothing_else(self, linked):
        pair, rid, other = linked()
        refuse_phone(pair, rid, other)
        record = only(pair.records())
        (item,) = conflicts.of(record)
        assert (item.kind, item.field) == ("refused", "phone")
        pair.remotes["b"].clear_faults()
        pair.remotes["a"].update(rid, name="Other")
        pair.both()
        assert pair.rows("b")[other]["name"] == "Other"
        assert phones(pair, rid, other) == ("x", "1")
        editor = pair.hub.editor(DEFAULT_TENANT, ENTITIES["account"], "key:test")
        resolving.resolve(editor, conflicts.find(pair.hub.engine, DEFAULT_TENANT, item.id), "retry")
        pair.work()
        assert phones(pair, rid, other) == ("x", "x")


def test_a_reference_waits_for_what_it_leads_to_and_cycles_are_made_in_two_steps(pair):
    parent = pair.remotes["a"].create("Parent")
    child = pair.remotes["a"].create("Child", values={"parentaccountid@odata.bind": f"/accounts({parent})"})
    pair.remotes["a"].update(parent, **{"parentaccountid@odata.bind": f"/accounts({child})"})
    pair.connect("a")
    pair.connect("b")
    pair.settle()
    there = {row["name"]: (rid, row["_parentaccountid_value"]) for rid, row in pair.rows("b").items()}
    assert there["Child"][1] == there["Parent"][0]
    assert there["Parent"][1] == there["Child"][0]
    assert not pair.items("wait")


def test_a_call_is_filled_from_all_buckets(pair):
    """One for each bucket would be sixteen."""
    rids = [pair.remotes["a"].create(f"Row {number}") for number in range(60)]
    pair.connect("a")
    pair.connect("b")
    pair.pull("a")
    pair.pull("b")
    pair.both()
    assert len(pair.rows("b")) == 60
    for rid in rids:
        pair.remotes["a"].update(rid, telephone1="1")
    pair.remotes["b"].control("DELETE", "requests")
    pair.pull("a")
    assert pair.values("b", "telephone1") == ["1"] * 60
    paths = [each["path"] for each in pair.remotes["b"].control("GET", "requests")]
    assert sum(path.endswith("$batch") for path in paths) == 1


def test_an_owner_whom_a_system_does_not_know_holds_up_nobody(pair):
    pair.connect("a")
    pair.settle()
    editor = pair.hub.editor(DEFAULT_TENANT, ENTITIES["account"], "key:test")
    made = editor.create({"name": "Contoso", "owner_email": "nobody@example.com"})
    pair.work()
    assert only(pair.rows("a").values())["name"] == "Contoso"
    (item,) = conflicts.of(only(pair.records()))
    assert (item.kind, item.field) == ("refused", "owner_email")
    editor.update(made.id, {"phone": "2"})
    pair.work()
    assert only(pair.rows("a").values())["telephone1"] == "2"
    editor.update(made.id, {"owner_email": "person@sandbox.example"})
    pair.work()
    record = only(pair.records())
    assert (len(pair.rows("a")), open_items(record)) == (1, frozenset())


def test_a_choice_that_a_system_does_not_have_holds_up_nobody(pair):
    pair.connect("a")
    pair.settle()
    editor = pair.hub.editor(DEFAULT_TENANT, ENTITIES["account"], "key:test")
    made = editor.create({"name": "Contoso", "kind": "native:77"})
    pair.work()
    (item,) = conflicts.of(only(pair.records()))
    assert (item.kind, item.field) == ("refused", "kind")
    assert only(pair.rows("a").values())["name"] == "Contoso"
    editor.update(made.id, {"kind": "customer"})
    pair.work()
    assert only(pair.rows("a").values())["customertypecode"] == 3
    assert open_items(only(pair.records())) == frozenset()


def test_a_system_that_only_takes_is_called_well_again_though_nothing_is_left_for_it(memory_bench):
    bench = memory_bench
    bench.connect(entities={"account": "push"})
    bench.work()
    unwell = replace(bench.health(), health="unreachable", failures=3)
    bench.hub.states.save_connection(DEFAULT_TENANT, bench.connection.uid, unwell)
    assert bench.hub.tick() >= 1
    bench.work()
    assert (bench.health().health, bench.health().failures) == ("ok", 0)
    assert bench.hub.tick() == 0


def test_what_was_held_back_waits_quietly_while_the_system_does_not_answer(memory_bench):
    bench = memory_bench
    rid = bench.remote.create("Contoso")
    bench.connect()
    bench.pull()
    engine, place = bench.hub.engine, (DEFAULT_TENANT, bench.connection.uid, "account")
    engine.held.hold(*place, rid, "2026-01-01T00:00:00.000000Z")
    bench.remote.fault("status", status=503)
    engine.send(layout.FRESH, Job("held", *place))
    bench.work()
    assert bench.health().failures == 1
    assert len(list(engine.held.every(DEFAULT_TENANT))) == 1
    bench.remote.clear_faults()
    bench.hub.states.save_connection(*place[:2], replace(bench.health(), not_before=""))
    engine.send(layout.FRESH, Job("held", *place))
    bench.work()
    assert list(engine.held.every(DEFAULT_TENANT)) == []
    assert bench.dead_letters() == []


@pytest.mark.parametrize("schedule", [Schedule(minutes=1), Schedule()], ids=["by the minute", "by hand"])
def test_what_was_held_back_is_read_once_the_system_answers_again(memory_bench, schedule):
    bench = memory_bench
    rid = bench.remote.create("Contoso")
    bench.connect(entities={"account": "both"}, schedule=schedule)
    bench.pull()
    bench.work()
    engine, place = bench.hub.engine, (DEFAULT_TENANT, bench.connection.uid, "account")
    bench.remote.delete(rid)
    engine.held.hold(*place, rid, "2026-01-01T00:00:00.000000Z")
    bench.remote.fault("status", status=503)
    for _ in range(3):
        bench.hub.states.save_connection(*place[:2], replace(bench.health(), not_before=""))
        engine.send(layout.FRESH, Job("held", *place))
        bench.work()
    assert bench.health().health == "unreachable"
    bench.remote.clear_faults()
    for _ in range(3):
        bench.hub.states.save_connection(*place[:2], replace(bench.health(), not_before=""))
        if schedule.minutes:
            bench.due()
        bench.hub.tick()
        bench.work()
    assert bench.health().health == "ok"
    assert list(engine.held.every(DEFAULT_TENANT)) == []


def test_nothing_is_made_before_the_first_load_is_done_however_far_its_cursor_is(pair):
    """Among the rows that are still to be read there may be this one."""
    made = pair.connect("a")
    states = pair.hub.states.read(DEFAULT_TENANT, made.uid)
    begun = replace(states.entities["account"], cursor={"begun": 1}, begun=True)
    pair.hub.states.save_entity(DEFAULT_TENANT, made.uid, "account", begun)
    editor = pair.hub.editor(DEFAULT_TENANT, ENTITIES["account"], "key:test")
    editor.create({"name": "Contoso"})
    pair.work()
    assert pair.rows("a") == {}
    pair.pull("a", "full")
    assert pair.values("a") == ["Contoso"]


def test_a_connection_that_goes_leaves_nothing_open_also_of_a_record_that_waits_there_for_two_things(linked):
    pair, rid, other = linked()
    refuse_phone(pair, rid, other)
    pair.lose("push")
    pair.remotes["a"].update(rid, name="Contoso SA")
    gone = pair.connections["b"]
    run = pair.start("a")
    pair.work_one("pull")
    record = only(pair.records())
    assert open_items(record) >= {("push", gone.uid), ("refused", gone.uid)}, run
    pair.lose("push")
    pair.hub.admin.delete(pair.hub.find(DEFAULT_TENANT, "b"))
    pair.hub.forget(gone)
    pair.hub.handle(layout.FRESH, Job("push", DEFAULT_TENANT, gone.uid, "account").to_message(), 1)
    assert open_items(only(pair.records())) == frozenset()


class TestTooManyCreates:
    """A pull whose new rows would all be made at another system."""

    @pytest.fixture
    def braked(self, pair):
        """Gives a pair of which a is to get no more than 3 rows into b without a question."""
        for name, value in {"brake_creates": 3, "brake_creates_percent": 50, "page_records": 2}.items():
            pair.hub.engine.tuning.__dict__[name] = value
        pair.connect("b")
        pair.settle()
        pair.connect("a")
        return pair

    def test_it_stops_before_the_batch_and_goes_on_when_approved(self, braked):
        pair = braked
        for number in range(4):
            pair.remotes["a"].create(f"Row {number}")
        run = pair.pull("a")
        assert (run.status, run.counts["created"]) == ("stopped", 0)
        assert "At least 4 records would be made at b, which knows about 0; up to 3" in run.problem.message
        pair.work()
        assert pair.rows("b") == {}
        pair.hub.approve_run(DEFAULT_TENANT, run)
        pair.settle()
        assert len(pair.rows("b")) == 4

    def test_cancelled_nothing_is_made(self, braked):
        pair = braked
        for number in range(4):
            pair.remotes["a"].create(f"Row {number}")
        run = pair.pull("a")
        pair.hub.cancel_run(DEFAULT_TENANT, run)
        pair.work()
        assert pair.records() == []

    def test_as_many_as_the_limit_and_rows_that_are_known_pass(self, braked):
        pair = braked
        rids = [pair.remotes["a"].create(f"Row {number}") for number in range(3)]
        pair.settle()
        for rid in rids:
            pair.remotes["a"].update(rid, telephone1="1")
        pair.remotes["a"].create("One more")
        assert pair.pull("a").status == "succeeded"
        pair.settle()
        assert len(pair.rows("b")) == 4

    def test_half_of_what_the_other_system_has_may_be_made_there(self, braked):
        pair = braked
        for number in range(12):
            pair.remotes["b"].create(f"There {number}")
        assert pair.pull("b").status == "stopped"  # nothing is at a yet

    def test_where_nobody_is_to_get_them_there_is_no_brake(self, pair):
        pair.hub.engine.tuning.__dict__["brake_creates"] = 1
        pair.connect("b", {"account": {"direction": "pull"}})
        pair.connect("a", {"account": {"direction": "pull"}})
        for number in range(4):
            pair.remotes["a"].create(f"Row {number}")
        assert pair.pull("a").status == "succeeded"


def test_a_claim_stays_that_was_made_anew_since_it_was_read(bench):
    bench.connect()
    held, place = bench.hub.engine.held, (DEFAULT_TENANT, bench.connection.uid, "account")
    ids = [f"{number:08x}-0000-4000-8000-000000000000" for number in range(150)]
    first = held.claim(*place, ids, "2026-01-01T00:00:00.000000Z")
    again = held.claim(*place, ids[:1], "2026-01-01T00:01:00.000000Z")
    held.hold(*place, "a~!/row", "2026-01-01T00:00:00.000000Z")
    assert [each.record for each in held.claims(*place)] == ids
    assert [len(each) for each in held.of(*place, 1000)] == [150, 1]
    held.release(list(first.values()))
    assert [each.record for each in held.claims(*place)] == ids[:1]
    for _ in range(2):
        held.release(list(again.values()))
    assert held.claims(*place) == []
    assert list(held.rids(*place)) == ["a~!/row"]
