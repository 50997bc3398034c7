"""Undo of a run: planned first, then carried out as ordinary writes that reach every system."""

import pytest

from crm_core.errors import BadRequest, Conflict
from crm_core.model.connection import DEFAULT_TENANT
from crm_core.model.entities import ENTITIES
from crm_core.model.record import open_items
from crm_core.storage import layout
from crm_core.storage.plans import Parts, PlanReader
from crm_core.sync.engine import Job
from crm_core.sync.undoing import carrying, planning, starting
from crm_core.sync.undoing.base import Slice
from tests.sync.pairs import only

BY = "key:test"


def run_of(pair, run_id):
    return pair.hub.runs.get(DEFAULT_TENANT, run_id)


def decisions(pair, run):
    parts = Parts.from_json(run.plan)
    return list(PlanReader(pair.hub.engine.blob, DEFAULT_TENANT, run.id, parts).every())


def planned(pair, run):
    """The plan of a run's undo: (its run, its decisions)."""
    plan = starting.start(pair.hub.engine, DEFAULT_TENANT, run, BY)
    pair.work()
    plan = run_of(pair, plan.id)
    assert (plan.mode, plan.of, plan.undoes, plan.status) == ("plan", "undo", run.id, "succeeded")
    return plan, decisions(pair, plan)


def applied(pair, plan):
    run = starting.apply(pair.hub.engine, DEFAULT_TENANT, plan, BY)
    pair.work()
    run = run_of(pair, run.id)
    assert (run.mode, run.of, run.undoes, run.status) == ("undo", plan.id, plan.undoes, "succeeded")
    return run, decisions(pair, run)


def undone(pair, run):
    return applied(pair, planned(pair, run)[0])


def outcomes(told):
    return [(each["action"], each["outcome"], each["why"]) for each in told]


def editor(pair):
    return pair.hub.editor(DEFAULT_TENANT, ENTITIES["account"], BY)


def history(pair, record):
    return list(pair.hub.records.history(DEFAULT_TENANT, "account", record.id))


class TestUpdates:
    def test_the_values_are_back_at_the_hub_and_at_both_systems(self, linked):
        pair, rid, other = linked()
        pair.remotes["a"].update(rid, name="Wrong", telephone1="wrong")
        run = pair.pull("a")
        assert pair.rows("b")[other]["name"] == "Wrong"
        plan, (decision,) = planned(pair, run)
        record = only(pair.records())
        assert record.fields["name"] == "Wrong"  # nothing is written by a plan
        uids = {name: made.uid for name, made in pair.connections.items()}
        assert (decision["action"], decision["record_id"], decision["remote_id"]) == (
            "update",
            record.id,
            rid,
        )
        assert decision["fields"] == {
            "name": {"old": "Wrong", "new": "Contoso"},
            "phone": {"old": "wrong", "new": "1"},
        }
        assert {each["connection"]: each["action"] for each in decision["pushes"]} == dict.fromkeys(
            uids.values(), "update"
        )
        assert plan.plan["actions"] == {"update": 1}
        assert plan.counts["updated"] == 1
        undo, told = applied(pair, plan)
        assert outcomes(told) == [("update", "applied", None)]
        assert undo.counts == {"updated": 1}
        record = only(pair.records())
        assert (record.fields["name"], record.fields["phone"]) == ("Contoso", "1")
        step = next(each for each in history(pair, record) if each.run == undo.id)
        assert (step.origin, step.by, step.old["name"]) == ("hub", BY, "Wrong")
        for name, each in (("a", rid), ("b", other)):
            assert (pair.rows(name)[each]["name"], pair.rows(name)[each]["telephone1"]) == ("Contoso", "1")
        assert open_items(record) == frozenset()
        pair.settle()
        assert only(pair.records()).fields["name"] == "Contoso"

    def test_what_was_undone_is_nothing_to_undo_any_more(self, linked):
        pair, rid, _ = linked()
        pair.remotes["a"].update(rid, name="Wrong")
        run = pair.pull("a")
        undone(pair, run)
        pair.settle()
        plan, told = planned(pair, run)
        assert (told, plan.plan["actions"]) == ([], {})
        for name in ("a", "b"):
            for of in ("incremental", "full", "push"):
                uid = pair.connections[name].uid
                started = pair.hub.start_run(DEFAULT_TENANT, uid, [], "plan", BY, of=of)
                pair.work()
                ended = run_of(pair, started.id)
                assert (ended.status, ended.plan["actions"]) == ("succeeded", {}), (name, of)
        pair.both()
        assert not any(map(pair.pull("a").counts.get, ("created", "updated", "deleted", "failed")))

    def test_an_undo_can_be_undone(self, linked):
        pair, rid, _ = linked()
        pair.remotes["a"].update(rid, name="Right after all")
        run = pair.pull("a")
        undo, _ = undone(pair, run)
        undone(pair, undo)
        assert only(pair.records()).fields["name"] == "Right after all"
        assert pair.rows("a")[rid]["name"] == "Right after all"

    def test_what_was_changed_again_is_listed_and_left(self, linked):
        pair, rid, other = linked()
        pair.remotes["a"].update(rid, name="Wrong", telephone1="wrong")
        run = pair.pull("a")
        record = only(pair.records())
        editor(pair).update(record.id, {"phone": "right"})
        pair.work()
        version = only(pair.records()).version
        _, (decision,) = planned(pair, run)
        assert decision["fields"] == {"name": {"old": "Wrong", "new": "Contoso"}}
        assert decision["conflicts"] == {
            "phone": {
                "ours": "right", "theirs": "1", "base": "wrong", "policy": "undo", "wins": "ours",
                "why": decision["conflicts"]["phone"]["why"],
            }
        }  # fmt: skip
        assert decision["conflicts"]["phone"]["why"].startswith("Changed again at version ")
        assert decision["version"] == version
        undone(pair, run)
        row = pair.rows("b")[other]
        assert (row["name"], row["telephone1"]) == ("Contoso", "right")
        assert pair.rows("a")[rid]["telephone1"] == "right"
        _, (left,) = planned(pair, run)
        assert (left["action"], left["fields"], list(left["conflicts"])) == ("conflict", {}, ["phone"])
        _, told = undone(pair, run)
        assert [each["outcome"] for each in told] == ["drifted"]

    def test_a_change_between_plan_and_apply_is_refused_and_one_of_another_field_is_not(self, linked):
        pair, rid, _ = linked()
        second = pair.remotes["a"].create("Fabrikam")
        pair.both()
        for each, name in ((rid, "Wrong"), (second, "Wrong too")):
            pair.remotes["a"].update(each, name=name)
        run = pair.pull("a")
        plan, _ = planned(pair, run)
        records = {each.fields["name"]: each for each in pair.records()}
        editor(pair).update(records["Wrong"].id, {"name": "Right"})
        editor(pair).update(records["Wrong too"].id, {"phone": "7"})
        _, told = applied(pair, plan)
        by_record = {each["record_id"]: each for each in told}
        drifted = by_record[records["Wrong"].id]
        assert drifted["outcome"] == "drifted"
        assert drifted["why"].startswith("Changed since at version ")
        assert by_record[records["Wrong too"].id]["outcome"] == "applied"
        assert sorted(each.fields["name"] for each in pair.records()) == ["Fabrikam", "Right"]
        assert pair.values("a") == ["Fabrikam", "Right"]


class TestLife:
    def test_a_record_that_the_run_made_goes_unless_somebody_has_touched_it(self, linked):
        pair, _, _ = linked()
        for name in ("Made by mistake", "Touched"):
            pair.remotes["a"].create(name)
        run = pair.pull("a")
        pair.settle()
        made = {each.fields["name"]: each for each in pair.records()}
        editor(pair).update(made["Touched"].id, {"phone": "1"})
        pair.work()
        _, told = planned(pair, run)
        found = {each["record_id"]: each for each in told}
        assert found[made["Made by mistake"].id]["action"] == "delete"
        assert {each["action"] for each in found[made["Made by mistake"].id]["pushes"]} == {"delete"}
        left = found[made["Touched"].id]
        assert (left["action"], left["fields"]) == ("conflict", {})
        assert left["why"].startswith("The run made the record. Changed again at version ")
        _, told = undone(pair, run)
        assert sorted(each["outcome"] for each in told) == ["applied", "drifted"]
        assert pair.values("a") == pair.values("b") == ["Contoso", "Touched"]
        pair.settle()
        assert pair.values("a") == pair.values("b") == ["Contoso", "Touched"]

    def test_a_record_that_was_deleted_with_the_run_lives_again_everywhere(self, linked):
        pair, rid, _other = linked(deletes="propagate")
        pair.remotes["a"].delete(rid)
        run = pair.pull("a")
        assert pair.rows("a") == pair.rows("b") == {}
        assert only(pair.records()).dead
        _, (decision,) = planned(pair, run)
        assert (decision["action"], decision["fields"]) == ("revive", {})
        assert [each["action"] for each in decision["pushes"]] == ["create", "create"]
        undone(pair, run)
        pair.settle()
        assert pair.values("a") == pair.values("b") == ["Contoso"]
        assert not only(pair.records()).dead

    def test_a_record_that_was_marked_is_made_again_where_it_is_gone(self, linked):
        pair, rid, other = linked()
        pair.remotes["a"].delete(rid)
        run = pair.pull("a")
        assert only(pair.records()).fields["deleted_at"]
        _, (decision,) = planned(pair, run)
        assert decision["action"] == "revive"
        assert decision["fields"]["deleted_at"]["new"] is None
        undone(pair, run)
        pair.settle()
        assert pair.values("a") == pair.values("b") == ["Contoso"]
        assert pair.rows("b").keys() == {other}
        assert "deleted_at" not in only(pair.records()).fields

    def test_a_record_that_the_run_brought_back_goes_again(self, linked):
        pair, rid, _other = linked(deletes="propagate")
        record = only(pair.records())
        editor(pair).delete(record.id)
        pair.lose("push")
        pair.remotes["a"].update(rid, name="Edited")
        run = pair.pull("a")
        assert not only(pair.records()).dead
        _, (decision,) = planned(pair, run)
        assert decision["action"] == "delete"
        undone(pair, run)
        pair.settle()
        assert pair.rows("a") == pair.rows("b") == {}

    def test_what_was_deleted_since_is_left(self, linked):
        pair, rid, _ = linked()
        pair.remotes["a"].update(rid, name="Wrong")
        run = pair.pull("a")
        editor(pair).delete(only(pair.records()).id)
        pair.work()
        _, (decision,) = planned(pair, run)
        assert (decision["action"], decision["why"]) == ("conflict", "The record was deleted since.")


def many(pair, number):
    """So many rows at a, linked with as many at b, whose name, phone and city a person then changes: the run that read it."""
    a = pair.remotes["a"]
    rids = [
        a.create(f"Company {each}", values={"telephone1": str(each), "address1_city": "Lima"})
        for each in range(number)
    ]
    pair.connect("a")
    pair.connect("b")
    pair.settle()
    for each in rids:
        a.update(each, name="Wrong", telephone1=f"9{each}", address1_city=None)
    return pair.pull("a")


def values(rows):
    names = ("name", "telephone1", "address1_city")
    return sorted(tuple(str(row.get(name)) for name in names) for row in rows.values())


def wanted(number):
    return sorted((f"Company {each}", str(each), "Lima") for each in range(number))


@pytest.fixture
def unbraked(monkeypatch):
    from tests.sync.pairs import SOON

    monkeypatch.setitem(SOON, "BRAKE_CREATES", "2000")
    monkeypatch.setitem(SOON, "BRAKE_CREATES_PERCENT", "100")


def test_a_thousand_updates_are_undone_at_the_hub_and_at_both_systems(unbraked, pair):
    run = many(pair, 1000)
    assert run.counts["updated"] == 1000
    pair.settle()
    assert values(pair.rows("b")) != wanted(1000)
    plan, told = planned(pair, run)
    assert (plan.plan["actions"], len(told)) == ({"update": 1000}, 1000)
    undo, told = applied(pair, plan)
    assert undo.counts == {"updated": 1000}
    pair.settle()
    fields = [each.fields for each in pair.records()]
    assert sorted((each["name"], each["phone"], each["city"]) for each in fields) == wanted(1000)
    assert values(pair.rows("a")) == values(pair.rows("b")) == wanted(1000)
    assert planned(pair, run)[1] == []


class TestSlices:
    @pytest.fixture
    def small(self, monkeypatch):
        """Pages and portions of five, and slices that end at once."""
        monkeypatch.setattr(planning, "PAGE", 5)
        monkeypatch.setattr(carrying, "PORTION", 5)

    def test_a_plan_and_an_undo_go_on_in_another_message(self, small, pair, monkeypatch):
        run = many(pair, 23)
        monkeypatch.setattr(Slice, "time_is_up", lambda _: True)
        plan, told = planned(pair, run)
        assert plan.slices >= 15
        assert len({each["record_id"] for each in told}) == len(told) == 23
        undo, told = applied(pair, plan)
        assert undo.slices == 4
        assert len({each["record_id"] for each in told}) == len(told) == 23
        assert undo.counts == {"updated": 23}
        pair.settle()
        assert values(pair.rows("a")) == values(pair.rows("b")) == wanted(23)

    @pytest.mark.parametrize("written", [False, True])
    @pytest.mark.parametrize("call", range(0, 16, 3))
    def test_a_worker_that_dies_at_any_write_is_followed_by_one_that_repeats_nothing(
        self, small, pair, call, written
    ):
        run = many(pair, 30)  # so many that the last call is never among those that are tried
        plan, _ = planned(pair, run)
        undo = starting.apply(pair.hub.engine, DEFAULT_TENANT, plan, BY)
        message = Job("undo", DEFAULT_TENANT, run.connection, run.entity, undo.id).to_message()
        table, left = pair.hub.engine.records._table, [call]
        real = table.transact

        def dies(*args, **more):
            left[0] -= 1
            if left[0] < 0 and not written:
                raise KeyboardInterrupt
            found = real(*args, **more)
            if left[0] < 0:
                raise KeyboardInterrupt
            return found

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(table, "transact", dies)
            try:
                pair.hub.handle(layout.FRESH, message, 1)
            except KeyboardInterrupt:
                # A portion of five takes at most six writes; then the run says so.
                died = run_of(pair, undo.id)
                assert not died.ended
                assert died.read >= (call - 1) // 6 * 5
        versions = {each.id: each.version for each in pair.records()}
        pair.hub.handle(layout.FRESH, message, 2)
        pair.hub.handle(layout.FRESH, message, 3)
        undo = run_of(pair, undo.id)
        assert (undo.status, undo.counts) == ("succeeded", {"updated": 30})
        assert {each["outcome"] for each in decisions(pair, undo)} == {"applied"}
        for record in pair.records():
            steps = [step for step in history(pair, record) if step.run == undo.id]
            assert len(steps) == 1
            assert record.version - versions[record.id] in (0, 1)
        pair.settle()
        assert values(pair.rows("a")) == values(pair.rows("b")) == wanted(30)

    def test_two_workers_on_one_message_do_it_once(self, small, pair, monkeypatch):
        run = many(pair, 12)
        plan, _ = planned(pair, run)
        undo = starting.apply(pair.hub.engine, DEFAULT_TENANT, plan, BY)
        message = Job("undo", DEFAULT_TENANT, run.connection, run.entity, undo.id).to_message()
        real, first = carrying.save, [True]

        def second_comes_in(*args, **more):
            if first[0]:
                first[0] = False
                pair.hub.handle(layout.FRESH, message, 1)
            return real(*args, **more)

        monkeypatch.setattr(carrying, "save", second_comes_in)
        pair.hub.handle(layout.FRESH, message, 1)
        pair.work()
        undo = run_of(pair, undo.id)
        assert (undo.status, undo.counts) == ("succeeded", {"updated": 12})
        assert len(decisions(pair, undo)) == 12
        for record in pair.records():
            assert len([step for step in history(pair, record) if step.run == undo.id]) == 1

    def test_a_row_that_moves_between_look_and_write_is_looked_at_again(self, pair, monkeypatch):
        run = many(pair, 4)
        plan, told = planned(pair, run)
        other, same = (each["record_id"] for each in told[:2])
        real, first = carrying.save, [True]

        def somebody_writes(*args, **more):
            if first[0]:
                first[0] = False
                editor(pair).update(other, {"website": "elsewhere.example"})
                editor(pair).update(same, {"name": "Right"})
            return real(*args, **more)

        monkeypatch.setattr(carrying, "save", somebody_writes)
        _, told = applied(pair, plan)
        assert {each["record_id"]: each["outcome"] for each in told if each["outcome"] != "applied"} == {
            same: "drifted"
        }
        fields = {each.id: each.fields for each in pair.records()}
        assert fields[same]["name"] == "Right"
        assert fields[other]["website"] == "elsewhere.example"
        assert fields[other]["name"].startswith("Company ")

    def test_a_cancelled_one_stops(self, small, pair):
        from crm_core.sync import cancelling

        run = many(pair, 12)
        plan, _ = planned(pair, run)
        undo = starting.apply(pair.hub.engine, DEFAULT_TENANT, plan, BY)
        cancelling.cancel(pair.hub.engine, DEFAULT_TENANT, undo)
        pair.work()
        assert run_of(pair, undo.id).problem.code == "Cancelled"
        assert {each.fields["name"] for each in pair.records()} == {"Wrong"}


class TestRefused:
    def test_a_run_that_changes_no_record_or_has_not_ended(self, linked):
        pair, _rid, _ = linked()
        engine = pair.hub.engine
        push = pair.start("a", "push")
        with pytest.raises(BadRequest, match="a run of mode push changes no stored record"):
            starting.start(engine, DEFAULT_TENANT, push, BY)
        pair.work()
        pull = pair.start("a")
        with pytest.raises(Conflict, match="has not ended"):
            starting.start(engine, DEFAULT_TENANT, pull, BY)
        pair.work()
        plan = starting.start(engine, DEFAULT_TENANT, run_of(pair, pull.id), BY)
        with pytest.raises(Conflict, match="is queued; only one that succeeded"):
            starting.apply(engine, DEFAULT_TENANT, plan, BY)
