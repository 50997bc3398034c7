"""What a person is asked of two linked tenants, and what follows from each answer."""

from dataclasses import replace

import pytest

from crm_core.errors import BadRequest, Conflict
from crm_core.functions import resolving as over_http
from crm_core.functions.bodies import ResolveBody
from crm_core.functions.web import Call, Incoming, Principal, Role
from crm_core.model.connection import DEFAULT_TENANT
from crm_core.model.entities import ENTITIES
from crm_core.model.fields import hub_time
from crm_core.model.record import Attempt, open_items
from crm_core.storage.records import Records, Redirect
from crm_core.sync import conflicts, resolving, resolving_many
from crm_core.sync.engine import Job
from crm_core.sync.saving import Origin, save, write_of
from tests.sync.pairs import only
from tests.sync.processes import Ended

MATCHED = {"account": {"direction": "both", "match": "website"}}


def editor(pair):
    return pair.hub.editor(DEFAULT_TENANT, ENTITIES["account"], "key:test")


def asked(pair):
    """Everything that waits for a person."""
    return [item for record in pair.records() for item in conflicts.of(record)]


def decide(pair, take):
    found = only(asked(pair))
    return resolving.resolve(editor(pair), conflicts.find(pair.hub.engine, DEFAULT_TENANT, found.id), take)


class TestTwins:
    """Two rows of one key in one system: are they one?"""

    @pytest.fixture
    def twins(self, pair):
        """(pair, the rid that the record has, the rid of its twin)."""
        a = pair.remotes["a"]
        one = a.create("Twins", values={"websiteurl": "twins.example", "telephone1": "1"})
        pair.connect("a", MATCHED)
        pair.connect("b", MATCHED)
        pair.settle()
        other = a.create(
            "Twins SA", values={"websiteurl": "twins.example", "telephone1": "2", "address1_city": "Lima"}
        )
        pair.settle()
        assert only(asked(pair)).kind == "match"
        return pair, one, other

    def test_linked_they_are_one_record_with_what_only_the_second_had(self, twins):
        pair, one, other = twins
        double = only(asked(pair)).record
        kept = decide(pair, "link")
        pair.settle()
        record = only(pair.records())
        assert record.id == kept.id
        assert (record.fields["name"], record.fields["phone"]) == ("Twins", "1")
        assert record.fields["city"] == "Lima"
        assert pair.rows("a")[one]["address1_city"] == "Lima"
        assert only(pair.rows("b").values())["address1_city"] == "Lima"
        assert pair.rows("a")[other]["name"] == "Twins SA"  # left as it is
        step = list(pair.hub.records.history(DEFAULT_TENANT, "account", record.id))
        assert {"name": "Twins SA", "phone": "2"}.items() <= {
            name: value for each in step for name, value in each.losers.items()
        }.items()
        assert open_items(record) == frozenset()
        assert pair.hub.records.find(DEFAULT_TENANT, "account", double.id) == record

    def test_a_question_about_what_has_become_the_record_itself_is_closed(self, twins):
        pair, _, _ = twins
        item = only(asked(pair))
        kept = decide(pair, "link")
        late = {"kind": "match", "connection": item.connection, "record": item.record.id}
        editor(pair).change(kept.id, lambda record, _: replace(record, reviews=(*record.reviews, late)))
        (again,) = pair.waiting("match")
        assert again.other.id == again.record.id == kept.id
        assert resolving.outcome(editor(pair), {}, [resolving.Choice(again, "link")]).losers == {}
        decide(pair, "link")
        assert asked(pair) == []
        pair.settle()
        assert len(pair.records()) == 1

    def test_what_is_linked_is_not_asked_again_by_a_run_that_reads_everything(self, twins):
        pair, _, _ = twins
        decide(pair, "link")
        pair.settle()
        before = pair.records()
        assert pair.pull("a", "full").status == "succeeded"
        assert asked(pair) == []
        assert pair.records() == before

    def test_an_edit_of_the_second_row_is_not_lost_but_asked_about(self, twins):
        pair, _, other = twins
        decide(pair, "link")
        pair.settle()
        pair.remotes["a"].update(other, telephone1="3")
        pair.settle()
        again = only(asked(pair))
        assert again.kind == "match"
        assert again.record.fields["phone"] == "3"
        assert again.record.version > 1  # a record was here, whose versions somebody may have been told of
        assert len(pair.rows("b")) == 1
        decide(pair, "link")
        pair.settle()
        assert len(pair.records()) == 1
        assert asked(pair) == []

    def test_the_second_row_can_be_deleted_and_nothing_happens(self, twins):
        pair, one, other = twins
        decide(pair, "link")
        pair.settle()
        pair.remotes["a"].delete(other)
        pair.settle()
        record = only(pair.records())
        assert "deleted_at" not in record.fields
        assert record.links[pair.connections["a"].uid].rid == one

    def test_the_first_row_is_deleted_and_the_second_stands_for_the_record(self, twins):
        pair, one, other = twins
        decide(pair, "link")
        pair.settle()
        pair.remotes["a"].delete(one)
        pair.settle()
        pair.remotes["a"].update(other, telephone1="3")
        pair.settle()
        record = only(pair.records())
        assert "deleted_at" not in record.fields
        assert record.links[pair.connections["a"].uid].rid == other
        assert only(pair.rows("b").values())["telephone1"] == "3"

    def test_a_crash_between_the_two_writes_is_made_good_by_the_same_call(self, twins, monkeypatch):
        pair, _, _ = twins
        from crm_core.sync import edit

        writes = []

        def dies(engine, tenant, entity, given, **more):
            if isinstance(given[0].after, Redirect):
                raise KeyboardInterrupt
            writes.append(given)
            return save(engine, tenant, entity, given, **more)

        with monkeypatch.context() as patched:
            patched.setattr(edit, "save", dies)
            with pytest.raises(KeyboardInterrupt):
                decide(pair, "link")
        assert len(writes) == 1
        pair.settle()
        assert len(pair.records()) == 2
        decide(pair, "link")
        pair.settle()
        record = only(pair.records())
        assert record.fields["city"] == "Lima"
        assert len([each for each in record.reviews if each.get("decided") == "link"]) == 1
        assert (len(pair.rows("a")), len(pair.rows("b"))) == (2, 1)

    def test_while_a_write_is_on_its_way_nothing_is_linked(self, twins):
        pair, _, _ = twins
        item = only(asked(pair))
        stored = pair.hub.records.get(DEFAULT_TENANT, "account", item.record.id)
        link = item.record.links[item.connection]
        open_one = replace(link, attempt=Attempt("t", "2099-01-01T00:00:00.000000Z"))
        after = stored.content.with_link(item.connection, open_one)
        now = Origin("2026-01-01T00:00:00.000000Z", "hub")
        assert not save(pair.hub.engine, DEFAULT_TENANT, "account", [write_of(stored, after, now)]).stale
        with pytest.raises(Conflict, match="on its way"):
            decide(pair, "link")


class TestFlipping:
    """Two systems, each of which puts a field right as it sees it."""

    def flip(self, pair, rid, other, rounds):
        """After each exchange both sides' own rule has its say."""
        for _ in range(rounds):
            for name, row, value in (("a", rid, "upper"), ("b", other, "lower")):
                if pair.rows(name)[row]["telephone1"] != value:
                    pair.remotes[name].update(row, telephone1=value)
            pair.both()

    def test_it_stops_after_four_times_and_a_person_is_asked(self, linked):
        pair, rid, other = linked()
        self.flip(pair, rid, other, 12)
        item = only(asked(pair))
        assert (item.kind, item.field, item.about["flips"]) == ("flip", "phone", 4)
        assert {item.about["ours"], item.about["theirs"]} == {"upper", "lower"}
        steps = list(pair.hub.records.history(DEFAULT_TENANT, "account", item.record.id))
        assert sum("phone" in each.old for each in steps) <= 7
        calls = {name: each.requests() for name, each in pair.remotes.items()}
        pair.both()
        assert {name: each.requests() - calls[name] for name, each in pair.remotes.items()} == {
            "a": 1,
            "b": 1,
        }
        pair.remotes["a"].update(rid, name="Contoso SA")  # the other fields go on
        pair.both()
        assert pair.rows("b")[other]["name"] == "Contoso SA"

    @pytest.mark.parametrize("take", ["ours", "theirs"])
    def test_once_decided_both_sides_have_it(self, linked, take):
        pair, rid, other = linked()
        self.flip(pair, rid, other, 12)
        item = only(asked(pair))
        decide(pair, take)
        pair.settle()
        expected = item.about[take]
        assert pair.rows("a")[rid]["telephone1"] == pair.rows("b")[other]["telephone1"] == expected
        assert open_items(only(pair.records())) == frozenset()

    def test_people_who_write_what_is_new_are_not_asked(self, linked):
        pair, rid, other = linked()
        for number in range(6):
            pair.remotes["a"].update(rid, telephone1=f"a{number}")
            pair.both()
            pair.remotes["b"].update(other, telephone1=f"b{number}")
            pair.both()
        assert asked(pair) == []
        assert pair.rows("a")[rid]["telephone1"] == "b5"

    def test_a_field_that_goes_back_once_an_hour_is_nobodys_quarrel(self, linked):
        pair, rid, other = linked()
        for _ in range(6):
            pair.remotes["a"].update(rid, telephone1="upper")
            pair.both()
            pair.later(1800)
            pair.remotes["b"].update(other, telephone1="lower")
            pair.both()
            pair.later(1800)
        assert asked(pair) == []


def test_of_a_connection_that_is_deleted_nothing_waits_though_a_record_waits_there_for_several_things(linked):
    pair, rid, other = linked(policy="manual")
    pair.remotes["a"].update(rid, telephone1="2")
    pair.remotes["b"].update(other, telephone1="3")
    pair.pull("a")
    record = only(asked(pair)).record
    editor(pair).update(record.id, {"city": "Lima"})
    uid = pair.connections["b"].uid
    assert {kind for kind, at in open_items(only(pair.records())) if at == uid} == {"conflict", "push"}
    pair.hub.admin.delete(pair.connections["b"])
    pair.hub.forget(pair.connections["b"])
    pair.work()
    assert {at for _, at in open_items(only(pair.records()))} <= {pair.connections["a"].uid}
    assert asked(pair) == []


class TestMerges:
    """A person makes two rows one at a remote."""

    @pytest.fixture
    def merged(self, pair):
        """Gives a pair, where one of two records was merged into the other at a: (pair, the rid of the one, of the other)."""

        def make(**sync):
            rids = [pair.remotes["a"].create(name) for name in ("Loser", "Winner")]
            for name in "ab":
                pair.connect(name, {"account": {"direction": "both", **sync}})
            pair.settle()
            pair.remotes["a"].control("POST", f"rows/account/{rids[0]}/merge", {"into": rids[1]})
            return pair, *rids

        return make

    @pytest.mark.parametrize("deletes", ["ignore", "mark", "propagate"])
    def test_nothing_is_deleted_and_a_person_is_asked_once(self, merged, deletes):
        pair, _, winner = merged(deletes=deletes)
        pair.settle()
        pair.pull("a", "full")
        item = only(asked(pair))
        assert (item.kind, item.record.fields["name"]) == ("merge", "Loser")
        kept = next(each for each in pair.records() if each.fields["name"] == "Winner")
        assert item.about["record"] == kept.id
        assert kept.links[pair.connections["a"].uid].rid == winner
        assert "deleted_at" not in item.record.fields
        assert pair.values("b") == ["Loser", "Winner"]

    def test_a_push_that_meets_it_does_not_take_it_for_deleted(self, merged):
        pair, loser, _ = merged(deletes="propagate")
        record = next(each for each in pair.records() if each.fields["name"] == "Loser")
        editor(pair).update(record.id, {"phone": "7"})
        pair.work()  # the row has moved on: it is looked at before anything is sent
        item = only(asked(pair))
        assert (item.kind, item.record.id) == ("merge", record.id)
        assert not pair.rows("a")[loser].get("telephone1")
        pair.settle()
        assert "7" in pair.values("b", "telephone1")
        assert not any(each.dead for each in pair.records())

    def test_rows_that_were_merged_before_are_no_records(self, pair):
        rids = [pair.remotes["a"].create(name) for name in ("Loser", "Winner")]
        pair.remotes["a"].control("POST", f"rows/account/{rids[0]}/merge", {"into": rids[1]})
        pair.connect("a")
        pair.connect("b")
        pair.settle()
        assert [each.fields["name"] for each in pair.records()] == ["Winner"]
        assert pair.values("b") == ["Winner"]
        assert asked(pair) == []

    def test_into_a_row_that_the_hub_never_had_it_can_only_stay(self, merged):
        pair, _, winner = merged()
        stranger = pair.remotes["a"].create("Stranger")
        pair.remotes["a"].control("POST", f"rows/account/{winner}/merge", {"into": stranger})
        pair.pull("a")
        items = [each for each in pair.waiting("merge") if each.record.fields["name"] == "Winner"]
        kept = only(items).other
        assert kept is not None  # read in the same pull
        assert kept.fields["name"] == "Stranger"


class TestManyAtOnce:
    """A run that decides many, and what may befall it."""

    def conflicts(self, pair, count):
        rids = [pair.remotes["a"].create(f"C{number}", values={"telephone1": "1"}) for number in range(count)]
        for name in "ab":
            pair.connect(name, {"account": {"direction": "both", "policy": "manual"}})
        pair.settle()
        there = {values["name"]: rid for rid, values in pair.rows("b").items()}
        for number, rid in enumerate(rids):
            pair.remotes["a"].update(rid, telephone1="2")
            pair.remotes["b"].update(there[f"C{number}"], telephone1="3")
        pair.pull("a")
        assert len(pair.waiting("value")) == count

    def start(self, pair, take="theirs"):
        which = {"entity": "account", "kinds": ["value"]}
        now = hub_time(pair.clock.now())
        task = resolving_many.Task(which, take, as_of=now)
        return resolving_many.start(pair.hub.engine, DEFAULT_TENANT, task, "key:test")

    def ended(self, pair, run):
        return pair.hub.runs.get(DEFAULT_TENANT, run.id)

    def test_one_that_dies_after_each_write_goes_on_and_decides_each_once(self, pair, monkeypatch):
        self.conflicts(pair, 5)
        monkeypatch.setattr(resolving_many, "PORTION", 2)
        run = self.start(pair)
        written = []
        real = resolving_many.resolve_all

        def dies(editor, choices):
            written.append(real(editor, choices).id)
            if len(written) <= 3:
                raise Ended

        monkeypatch.setattr(resolving_many, "resolve_all", dies)
        pair.work()  # what dies comes again
        assert len(written) == len(set(written)) == 5
        done = self.ended(pair, run)
        assert (done.status, done.counts["updated"]) == ("succeeded", 2)
        assert asked(pair) == []
        pair.settle()
        assert pair.values("a", "telephone1") == pair.values("b", "telephone1") == ["3"] * 5
        for record in pair.records():
            steps = [
                each for each in pair.hub.records.history(DEFAULT_TENANT, "account", record.id) if each.losers
            ]
            assert len(steps) == 1

    def test_one_that_is_ended_by_a_person_stops(self, pair, monkeypatch):
        self.conflicts(pair, 3)
        run = self.start(pair)
        ended = replace(self.ended(pair, run), status="failed")
        pair.hub.runs.save(DEFAULT_TENANT, ended)
        pair.work()
        assert len(pair.waiting("value")) == 3

    def test_two_workers_with_one_message_decide_each_once(self, pair):
        self.conflicts(pair, 4)
        run = self.start(pair)
        job = Job(resolving_many.JOB, DEFAULT_TENANT, "", "account", run.id)
        pair.hub.engine.send("fresh", job)
        pair.work()
        assert self.ended(pair, run).counts["updated"] == 4
        assert asked(pair) == []
        pair.settle()
        assert pair.values("a", "telephone1") == pair.values("b", "telephone1") == ["3"] * 4

    def test_what_a_run_keeps_of_itself_fits_its_row_whatever_was_left(self, pair, monkeypatch):
        self.conflicts(pair, 5)

        def refuses(*_):
            raise Conflict("é" * 12_000)

        monkeypatch.setattr(resolving_many, "resolve_all", refuses)
        run = self.start(pair)
        pair.work()
        done = self.ended(pair, run)
        assert (done.status, done.counts["failed"], len(done.cursor["left"])) == ("succeeded", 5, 1)

    def test_a_value_that_no_row_of_a_run_holds_is_refused_by_name(self, pair):
        task = resolving_many.Task({"entity": "account", "kinds": ["value"]}, "value", "x" * 40_000)
        with pytest.raises(BadRequest, match=r"^value: is too long"):
            resolving_many.start(pair.hub.engine, DEFAULT_TENANT, task, "key:test")

    def test_a_preview_that_finds_nothing_looks_at_so_many_and_goes_on_with_its_link(self, pair, monkeypatch):
        self.conflicts(pair, 3)
        monkeypatch.setattr(over_http, "EXAMINED", 2)
        body = {
            "where": {"entity": "accounts", "filter": "name eq 'Nobody'"},
            "take": "ours",
            "preview": True,
        }
        principal = Principal(DEFAULT_TENANT, "key:test", Role.OPERATOR)
        incoming = Incoming("POST", "/api/conflicts/resolve", {}, {}, b"")
        pages, token = [], {}
        while token is not None:
            call = Call(pair.hub, principal, incoming, {}, {"top": "1", **token}, ResolveBody(**body))
            told = over_http.resolve_many(call).body
            pages.append(told)
            following = told.get("nextLink")
            token = (
                {"skiptoken": following.rpartition("skiptoken=")[2].replace("%3D", "=")}
                if following
                else None
            )
        assert len(pages) > 1
        assert [each["counts"]["countIsLowerBound"] for each in pages] == [True] * (len(pages) - 1) + [False]
        assert [item for each in pages for item in each["value"]] == []
        assert len({each["as_of"] for each in pages}) == 1

    def ask(self, pair, **body):
        """What the call that decides many answers."""
        principal = Principal(DEFAULT_TENANT, "key:test", Role.OPERATOR)
        incoming = Incoming("POST", "/api/conflicts/resolve", {}, {}, b"")
        where = {"entity": "accounts", "kind": "value"}
        parsed = ResolveBody(where=where, take="theirs", **body)
        return over_http.resolve_many(Call(pair.hub, principal, incoming, {}, {}, parsed)).body

    def done(self, pair, as_of):
        run = self.ask(pair, as_of=as_of)
        pair.work()
        return pair.hub.runs.get(DEFAULT_TENANT, run["id"])

    def test_what_was_read_before_the_preview_and_stored_after_it_is_left(self, pair, monkeypatch):
        """Times alone say that it was there: the remote's answer had come when the person looked."""
        self.conflicts(pair, 2)
        there = {values["name"]: rid for rid, values in pair.rows("b").items()}
        pair.remotes["b"].update(there["C0"], telephone1="9")
        looks = []
        real = Records.commit

        def late(*arguments):
            if not looks:
                looks.append(self.ask(pair, preview=True))
            return real(*arguments)

        monkeypatch.setattr(Records, "commit", late)
        pair.pull("b")
        assert {each["theirs"] for each in looks[0]["value"]} == {"3"}
        done = self.done(pair, looks[0]["as_of"])
        assert (done.counts["updated"], done.counts["unchanged"]) == (1, 1)
        left = only(asked(pair))
        assert (left.record.fields["name"], left.about["theirs"]) == ("C0", "9")
        assert left.settled <= looks[0]["as_of"]
        done = self.done(pair, self.ask(pair, preview=True)["as_of"])
        assert (done.counts, asked(pair)) == ({"updated": 1}, [])

    def test_more_recent_ones_than_a_preview_can_name_are_left_until_they_are_older(self, pair, monkeypatch):
        self.conflicts(pair, 3)
        monkeypatch.setattr(resolving_many, "MAX_SHOWN", 2)
        done = self.done(pair, self.ask(pair, preview=True)["as_of"])
        assert (done.counts["updated"], done.counts["unchanged"]) == (2, 1)
        assert "may have changed" in only(done.cursor["left"])["why"]
        pair.later(resolving_many.LATE.total_seconds() + 1)
        looked = self.ask(pair, preview=True)["as_of"]
        assert "~" not in looked
        assert self.done(pair, looked).counts["updated"] == 1

    def test_without_a_look_what_is_there_is_decided(self, pair):
        self.conflicts(pair, 2)
        assert self.done(pair, "").counts["updated"] == 2
