"""What failed and waits for a person: listed by cause, done again, edited, discarded; and that nothing is tried for ever."""

import json
import uuid
from dataclasses import replace

import pytest

from crm_core.connection_admin import Wanted as Asked
from crm_core.errors import BadRequest, Conflict, NotFound
from crm_core.model.connection import DEFAULT_TENANT
from crm_core.model.entities import ENTITIES
from crm_core.model.record import open_items
from crm_core.ports import measured
from crm_core.storage import layout
from crm_core.sync import conflicts, deadletters, intake
from crm_core.sync.deadletters import Wanted
from crm_core.sync.engine import Job
from tests.sync.pairs import only, refuse_phone
from tests.sync.receivers import told
from tests.sync.test_webhooks import event, hooked, post_of, send

BY = "key:test"


def waiting(hub, top=100, **wanted):
    """Everything that waits, page after page."""
    found, place = [], {}
    while place is not None:
        some, place = deadletters.page(hub.engine, DEFAULT_TENANT, Wanted(**wanted), place, top=top)
        found += some
    return found


def causes(hub):
    return {(each.first.code, each.first.field): each.count for each in deadletters.grouped(waiting(hub))}


def one(hub, waiting_id):
    """(where it waits, it)."""
    return deadletters.find(hub.engine, DEFAULT_TENANT, waiting_id, BY)


def replay(hub, waiting_id):
    source, found = one(hub, waiting_id)
    source.replay(found)
    source.finish()


def poison(bench, job):
    bench.hub.poisoned(layout.FRESH, job.to_message())


def job_of(bench, kind, **more):
    return Job(kind, DEFAULT_TENANT, bench.connection.uid, **{"entity": "account", **more})


# --- values that a remote refuses, pushes that gave up ------------------------------------------------------------


@pytest.fixture
def refused(linked):
    """The remote b has refused the phone of the one record: (pair, rid at a, rid at b)."""
    pair, rid, other = linked()
    refuse_phone(pair, rid, other)
    pair.remotes["b"].clear_faults()
    return pair, rid, other


class TestRefused:
    def test_it_waits_with_the_words_of_the_vendor(self, refused):
        pair, _, other = refused
        (found,) = waiting(pair.hub)
        assert (found.kind, found.code, found.field) == ("refused", "Rejected", "phone")
        assert found.message.endswith("400: The phone is wrong.")
        assert (found.connection, found.about["remote_id"]) == (pair.connections["b"].uid, other)
        assert only(conflicts.of(only(pair.records()))).about["message"] == found.message

    def test_a_replay_sends_it_again(self, refused):
        pair, _, other = refused
        (found,) = waiting(pair.hub)
        source, _ = one(pair.hub, found.id)
        before = pair.records()
        assert source.plan(found)["values"] == {"phone": "x"}
        pair.work()
        assert pair.records() == before
        replay(pair.hub, found.id)
        pair.work()
        assert pair.rows("b")[other]["telephone1"] == "x"
        assert waiting(pair.hub) == []
        with pytest.raises(NotFound):
            replay(pair.hub, found.id)

    def test_one_that_is_discarded_stays_as_it_is_there_until_it_is_changed(self, refused):
        pair, rid, other = refused
        (found,) = waiting(pair.hub)
        source, _ = one(pair.hub, found.id)
        source.discard(found, "nobody calls them")
        record = only(pair.records())
        assert open_items(record) == frozenset()
        assert pair.items("refused") == set()
        told = record.links[pair.connections["b"].uid].why["phone"]["discarded"]
        assert (told["by"], told["reason"]) == (BY, "nobody calls them")
        assert (waiting(pair.hub), list(conflicts.of(record))) == ([], [])
        pair.settle()
        assert pair.rows("b")[other]["telephone1"] == "1"
        pair.remotes["a"].update(rid, telephone1="y")
        pair.settle()
        assert pair.rows("b")[other]["telephone1"] == "y"
        assert only(pair.records()).links[pair.connections["b"].uid].why == {}

    def test_one_that_is_refused_again_is_asked_about_again(self, refused):
        pair, rid, other = refused
        source, found = one(pair.hub, only(waiting(pair.hub)).id)
        source.discard(found, "no")
        pair.remotes["b"].fault(
            "status", path=f"*accounts({other})*", method="PATCH", status=400, message="Still wrong.", count=1
        )
        pair.remotes["a"].update(rid, telephone1="z")
        pair.pull("a")
        assert only(waiting(pair.hub)).message.endswith("400: Still wrong.")

    def test_its_values_are_edited_at_the_record(self, refused):
        pair = refused[0]
        source, found = one(pair.hub, only(waiting(pair.hub)).id)
        record = only(pair.records()).id
        with pytest.raises(Conflict, match=f"PATCH /api/records/accounts/{record}"):
            source.edit(found, "{}")


class TestParked:
    @pytest.fixture
    def parked(self, linked):
        pair, _, _ = linked()
        uid = pair.connections["b"].uid
        stored = pair.hub.records.get(DEFAULT_TENANT, "account", only(pair.records()).id)
        link = stored.content.links[uid]
        told = {"cause": "NotPermitted", "message": "May not.", "time": "2026-01-02T00:00:00.000000Z"}
        after = stored.content.with_link(uid, replace(link, parked=told, behind={"phone": "0"}))
        from crm_core.storage.records import RecordWrite

        write = RecordWrite(stored.id, stored, after)
        pair.hub.records.commit(DEFAULT_TENANT, "account", layout.bucket(stored.id), [write])
        return pair

    def test_a_mended_credential_lets_it_go_on(self, parked):
        pair = parked
        found = only(waiting(pair.hub))
        assert (found.kind, found.code, found.message) == ("parked", "NotPermitted", "May not.")
        pair.hub.mended(pair.connections["b"])
        pair.work()
        assert waiting(pair.hub) == []
        assert pair.items("parked") == set()

    def test_other_causes_are_nothing_to_a_credential(self, refused):
        pair = refused[0]
        pair.hub.mended(pair.connections["b"])
        pair.work()
        assert only(waiting(pair.hub)).code == "Rejected"

    def test_discarded_it_is_left_alone_until_somebody_edits_the_record(self, parked):
        pair = parked
        source, found = one(pair.hub, only(waiting(pair.hub)).id)
        source.discard(found, "never mind")
        assert (waiting(pair.hub), pair.items("parked")) == ([], set())
        pair.settle()
        record = only(pair.records())
        assert record.links[pair.connections["b"].uid].parked["discarded"]["reason"] == "never mind"
        pair.hub.editor(DEFAULT_TENANT, ENTITIES["account"], BY).update(record.id, {"phone": "7"})
        pair.settle()
        assert only(pair.rows("b").values())["telephone1"] == "7"
        assert not only(pair.records()).links[pair.connections["b"].uid].parked


# --- dead letters -------------------------------------------------------------------------------------------------


class TestLetters:
    def test_a_record_that_could_not_be_taken_in_is_read_again(self, memory_bench):
        bench = memory_bench
        bench.connect()
        bench.pull()
        rid = bench.remote.create("Contoso")
        bench.hub.engine.dead_letters.add(
            DEFAULT_TENANT, kind="record", code="BadAnswer", cause="can't be read", field="name",
            connection=bench.connection.uid, entity="account", rid=rid,
        )  # fmt: skip
        found = only(waiting(bench.hub))
        assert (found.code, found.field, found.message) == ("BadAnswer", "name", "can't be read")
        source, _ = one(bench.hub, found.id)
        assert source.plan(found)["remote_id"] == rid
        assert rid not in bench.stored()
        with pytest.raises(Conflict):
            source.edit(found, "{}")
        replay(bench.hub, found.id)
        bench.work()
        assert bench.stored()[rid].fields["name"] == "Contoso"
        assert waiting(bench.hub) == []
        with pytest.raises(NotFound, match=f"replayed by {BY}"):
            replay(bench.hub, found.id)

    def test_what_is_to_be_read_again_waits_for_a_system_that_does_not_answer(self, memory_bench):
        """It has no webhooks: the tick looks for hints all the same from now on."""
        bench = memory_bench
        bench.connect()
        bench.pull()
        rid = bench.remote.create("Contoso")
        bench.hub.engine.dead_letters.add(
            DEFAULT_TENANT, kind="record", code="Bug", cause="bug", connection=bench.connection.uid,
            entity="account", rid=rid,
        )  # fmt: skip
        bench.remote.fault("status", status=503)
        replay(bench.hub, only(waiting(bench.hub)).id)
        bench.work()
        assert rid not in bench.stored()
        bench.remote.clear_faults()
        well = replace(bench.health(), not_before="", failures=0, health="ok")
        bench.hub.states.save_connection(DEFAULT_TENANT, bench.connection.uid, well)
        bench.hub.tick()
        bench.work()
        assert rid in bench.stored()

    def test_a_poisoned_pull_is_done_by_a_new_run(self, memory_bench):
        bench = memory_bench
        bench.connect()
        rid = bench.remote.create("Contoso")
        poison(bench, job_of(bench, "pull"))
        found = only(waiting(bench.hub))
        assert (found.kind, found.code) == ("pull", "Poison")
        source, _ = one(bench.hub, found.id)
        assert source.plan(found) == {"would": "start a run", "mode": "incremental", "entity": "account"}
        replay(bench.hub, found.id)
        bench.work()
        assert rid in bench.stored()
        assert waiting(bench.hub) == []

    def test_what_can_t_be_done_says_why_and_stays(self, memory_bench):
        bench = memory_bench
        bench.connect()
        poison(bench, job_of(bench, "pull"))
        found = only(waiting(bench.hub))
        bench.hub.forget(bench.hub.admin.pause(bench.connection, paused=True))
        with pytest.raises(Conflict, match="paused"):
            one(bench.hub, found.id)[0].plan(found)
        with pytest.raises(Conflict, match="paused"):
            replay(bench.hub, found.id)
        assert only(waiting(bench.hub)).id == found.id

    def test_a_job_that_is_over_can_only_be_discarded(self, memory_bench):
        bench = memory_bench
        bench.connect()
        poison(bench, job_of(bench, "batch"))
        found = only(waiting(bench.hub))
        with pytest.raises(BadRequest, match=r"can't be done again"):
            replay(bench.hub, found.id)
        source, found = one(bench.hub, found.id)
        source.discard(found, "sent again by hand")
        assert waiting(bench.hub) == []
        with pytest.raises(NotFound, match=r"discarded by key:test at .*: sent again by hand"):
            one(bench.hub, found.id)

    def test_what_was_no_message_is_edited_and_done(self, memory_bench):
        bench = memory_bench
        bench.connect()
        rid = bench.remote.create("Contoso")
        bench.queue.send(layout.FRESH, "no json")
        bench.work()
        found = only(waiting(bench.hub))
        assert (found.connection, found.code) == ("", "NotAJob")
        with pytest.raises(BadRequest, match=r"^payload: is no message of the hub"):
            replay(bench.hub, found.id)
        source, found = one(bench.hub, found.id)
        assert found.payload == "no json"
        for wrong in (
            "{",
            json.dumps({"v": 1, "job": "pull", "tenant": "other"}),
            json.dumps({"v": 1, "job": "batch", "tenant": "default"}),
            json.dumps({"v": 1, "job": "pull", "tenant": "default", "connection": 7}),
            "x" * 50_000,
        ):
            with pytest.raises(BadRequest, match=r"^payload: "):
                source.edit(found, wrong)
        source.edit(found, job_of(bench, "pull").to_message())
        _, found = one(bench.hub, found.id)
        assert json.loads(found.payload)["job"] == "pull"
        assert found.about["edited"]["by"] == BY
        replay(bench.hub, found.id)
        bench.work()
        assert rid in bench.stored()
        kept = bench.hub.engine.dead_letters.get(DEFAULT_TENANT, found.id)
        assert (kept.body, kept.closed["how"]) == ("no json", "replayed")

    def test_a_message_for_what_a_connection_does_not_have_is_not_sent(self, memory_bench):
        bench = memory_bench
        bench.connect()
        poison(bench, job_of(bench, "push", entity="nothing"))
        with pytest.raises(BadRequest, match="entity: demo has no 'nothing'"):
            replay(bench.hub, only(waiting(bench.hub)).id)
        gone = Job("push", DEFAULT_TENANT, "gone", "account")
        poison(bench, gone)
        with pytest.raises(Conflict, match="'gone' is not there any more"):
            replay(bench.hub, only(waiting(bench.hub, connection="gone")).id)

    def test_a_long_message_is_kept_whole(self, memory_bench):
        bench = memory_bench
        body = "ñ" * 20_000
        bench.queue.send(layout.FRESH, body)
        bench.work()
        assert one(bench.hub, only(waiting(bench.hub)).id)[1].payload == body

    def test_somebody_who_was_slower_changes_nothing(self, memory_bench):
        bench = memory_bench
        bench.queue.send(layout.FRESH, "no json")
        bench.work()
        letters = bench.hub.engine.dead_letters
        seen = letters.get(DEFAULT_TENANT, only(waiting(bench.hub)).id)
        letters.edit(DEFAULT_TENANT, seen, "other", BY)
        from crm_core.ports import RowChanged

        for late in (
            lambda: letters.edit(DEFAULT_TENANT, seen, "mine", BY),
            lambda: letters.close(DEFAULT_TENANT, seen, "discarded", BY),
        ):
            with pytest.raises(RowChanged):
                late()
        assert letters.get(DEFAULT_TENANT, seen.id).payload == "other"


class TestWebhooks:
    @pytest.fixture
    def dead(self, memory_bench):
        """(bench, the id of an event that failed at every delivery, the record that it is about)."""
        bench = memory_bench
        address = hooked(bench)
        rid = bench.remote.create("Contoso")
        sent = send(bench, address, post_of(rid))
        (message,) = bench.queue.receive(layout.FRESH)
        for _ in range(2):  # the tick sends another message for an event that is open
            bench.hub.poisoned(layout.FRESH, message.body)
        bench.queue.delete(layout.FRESH, message)
        return bench, sent, rid

    def test_one_waits_once_and_shows_what_came(self, dead):
        bench, sent, rid = dead
        found = only(waiting(bench.hub))
        assert (found.id, found.kind, found.about["event"]) == (sent, "event", sent)
        source, found = one(bench.hub, found.id)
        assert json.loads(found.payload)["PrimaryEntityId"] == rid
        assert source.plan(found)["reads"] == [{"entity": "account", "remote_id": rid}]
        assert event(bench, sent).state == "dead"
        replay(bench.hub, sent)
        bench.work()
        assert event(bench, sent).state == "done"
        assert rid in bench.stored()
        assert waiting(bench.hub) == []

    def test_replayed_as_an_event_it_waits_no_more(self, dead):
        bench, sent, _ = dead
        intake.replay(bench.hub.engine, DEFAULT_TENANT, bench.connection.uid, event(bench, sent), BY)
        assert waiting(bench.hub) == []

    def test_with_another_body_it_is_another_event(self, dead):
        bench, sent, _ = dead
        other = bench.remote.create("Other")
        source, found = one(bench.hub, sent)
        source.edit(found, json.dumps(post_of(other)))
        assert one(bench.hub, sent)[0].plan(found)["reads"] == [{"entity": "account", "remote_id": other}]
        replay(bench.hub, sent)
        bench.work()
        assert bench.stored().keys() == {other}
        assert event(bench, sent).state == "dead"
        events, _ = bench.hub.engine.events.page(DEFAULT_TENANT, bench.connection.uid, top=10, token=None)
        assert sorted((each.state, each.proof == "edited") for each in events) == [
            ("dead", False),
            ("done", True),
        ]
        assert waiting(bench.hub) == []


# --- many ---------------------------------------------------------------------------------------------------------


def letters(bench, number, **more):
    for each in range(number):
        bench.hub.engine.dead_letters.add(
            DEFAULT_TENANT,
            **{
                "kind": "record", "code": "BadAnswer", "cause": f"Row {each} is wrong.", "entity": "account",
                "connection": bench.connection.uid, "rid": str(uuid.uuid4()), **more,
            },
        )  # fmt: skip


class TestMany:
    def test_they_are_grouped_by_cause_and_each_is_on_one_page(self, memory_bench):
        bench = memory_bench
        bench.connect()
        letters(bench, 5)
        letters(bench, 2, field="name")
        letters(bench, 1, code="Bug", connection="other")
        poison(bench, job_of(bench, "pull"))
        assert causes(bench.hub) == {
            ("BadAnswer", ""): 5, ("BadAnswer", "name"): 2, ("Bug", ""): 1, ("Poison", ""): 1,
        }  # fmt: skip
        largest = deadletters.grouped(waiting(bench.hub))[0]
        assert (largest.first.message, len(largest.examples)) == ("Row 4 is wrong.", 3)
        assert largest.oldest < largest.first.time
        assert largest.kinds == {"record": 5}
        for top in (1, 2, 3, 100):
            found = [each.id for each in waiting(bench.hub, top=top)]
            assert len(found) == len(set(found)) == 9
        assert len(waiting(bench.hub, cause=f"{bench.connection.uid}~BadAnswer~name")) == 2

    def test_of_a_time(self, memory_bench):
        bench = memory_bench
        bench.connect()
        letters(bench, 3)
        last, middle, first = sorted(waiting(bench.hub), key=lambda each: each.time, reverse=True)
        assert {each.id for each in waiting(bench.hub, since=middle.time)} == {last.id, middle.id}
        assert [each.id for each in waiting(bench.hub, until=middle.time)] == [first.id]

    def test_refused_values_of_many_records_come_page_by_page(self, pair):
        pair.connect("a")
        pair.settle()
        editor = pair.hub.editor(DEFAULT_TENANT, ENTITIES["account"], BY)
        for each in range(7):
            editor.create({"name": f"Row {each}", "kind": "native:77", "owner_email": "nobody@example.com"})
        pair.work()
        uid = pair.connections["a"].uid
        assert causes(pair.hub) == {("Rejected", "kind"): 7, ("BadRequest", "owner_email"): 7}
        everything = {each.id for each in waiting(pair.hub)}
        for top in (1, 2, 5):
            found = [each.id for each in waiting(pair.hub, top=top)]
            assert (len(found), set(found)) == (14, everything)
        assert len(waiting(pair.hub, connection=uid, entity="account")) == 14
        assert waiting(pair.hub, connection="another") == waiting(pair.hub, entity="contact") == []

    def test_a_list_reads_the_index_and_what_waits(self, memory_bench):
        """Two ranges of each bucket, however many records there are; and the records that wait."""
        bench = memory_bench
        bench.connect()
        for each in range(30):
            bench.remote.create(f"Row {each}")
        bench.pull()
        waiting(bench.hub)
        with measured() as meter:
            waiting(bench.hub)
        assert meter.total("storage_calls") == 1 + 2 * 16

    def test_a_replay_of_many_goes_through_the_list_once_and_so_many_a_minute(self, memory_bench):
        bench = memory_bench
        bench.connect()
        bench.pull()
        letters(bench, 7)
        letters(bench, 2, code="Bug")
        wanted = Wanted(cause=f"{bench.connection.uid}~BadAnswer~")
        deadletters.start(bench.hub.engine, DEFAULT_TENANT, wanted, "replay", by=BY, per_minute=3)
        letters(bench, 1)  # came later
        messages = bench.queue.receive(layout.FRESH)
        sizes = []
        while messages:
            lane = layout.FRESH if not sizes else layout.BULK
            bench.hub.handle(lane, messages[0].body, 1)
            bench.queue.delete(lane, messages[0])
            sizes.append(len(waiting(bench.hub, cause=wanted.cause)))
            again = bench.queue.next_visible(layout.BULK)
            if again is None:
                break
            assert (again - bench.hub.clock.now()).total_seconds() > 55
            messages = list(_all(bench, layout.BULK))
        assert sizes == [5, 2, 1]
        assert causes(bench.hub) == {("BadAnswer", ""): 1, ("Bug", ""): 2}

    def test_what_fails_again_is_not_tried_for_ever(self, refused):
        pair, _, other = refused
        pair.remotes["b"].fault(
            "status",
            path=f"*accounts({other})*",
            method="PATCH",
            status=400,
            message="Wrong again.",
            count=None,
        )
        calls = len(pair.remotes["b"].control("GET", "requests"))
        deadletters.start(
            pair.hub.engine, DEFAULT_TENANT, Wanted(entity="account"), "replay", by=BY, per_minute=100
        )
        pair.settle()
        assert only(waiting(pair.hub)).message.endswith("400: Wrong again.")
        sent = [
            each
            for each in pair.remotes["b"].control("GET", "requests")[calls:]
            if each["method"] in ("PATCH", "POST") and "oauth" not in each["path"]
        ]
        assert len(sent) <= 2

    def test_many_are_discarded_with_one_reason(self, memory_bench):
        bench = memory_bench
        bench.connect()
        letters(bench, 4)
        ids = [each.id for each in waiting(bench.hub)]
        deadletters.start(
            bench.hub.engine,
            DEFAULT_TENANT,
            Wanted(connection=bench.connection.uid),
            "discard",
            by=BY,
            per_minute=9,
            reason="old",
        )
        bench.work()
        assert waiting(bench.hub) == []
        kept = [bench.hub.engine.dead_letters.get(DEFAULT_TENANT, each) for each in ids]
        assert {(each.closed["how"], each.closed["reason"]) for each in kept} == {("discarded", "old")}

    def test_one_that_can_t_be_done_holds_up_no_other(self, memory_bench):
        bench = memory_bench
        bench.connect()
        bench.pull()
        letters(bench, 2)
        poison(bench, job_of(bench, "batch"))
        other = bench.connection
        broken = bench.connect("broken")
        letters(bench, 1, code="Bug")
        bench.connection = other
        letters(bench, 2)
        bench.hub.secrets.delete("default", broken.uid)
        bench.hub.forget(broken)
        deadletters.start(
            bench.hub.engine, DEFAULT_TENANT, Wanted(since="2020"), "replay", by=BY, per_minute=100
        )
        bench.work()
        assert sorted(each.code for each in waiting(bench.hub)) == ["Bug", "Poison"]
        assert bench.health().health == "ok"
        deadletters.start(
            bench.hub.engine,
            DEFAULT_TENANT,
            Wanted(connection=bench.connection.uid),
            "replay",
            by=BY,
            per_minute=100,
        )
        bench.work()
        assert sorted(each.kind for each in waiting(bench.hub)) == ["batch", "record"]


def _all(bench, lane):
    """Also those that are not visible yet."""
    from datetime import timedelta

    clock = bench.queue._clock
    now = clock.now
    clock.now = lambda: now() + timedelta(minutes=2)
    try:
        return bench.queue.receive(lane)
    finally:
        clock.now = now


def test_a_failed_pull_is_not_put_off_once_the_credential_is_mended(memory_bench):
    bench = memory_bench
    from crm_core.model.connection import Schedule

    bench.connect(schedule=Schedule(minutes=600))
    bench.remote.fault("status", status=401, path="*/accounts*")
    bench.due()
    bench.hub.tick()
    bench.work()
    assert bench.health().health == "needs_attention"
    assert bench.state().problem.code == "AuthFailed"
    bench.remote.clear_faults()
    rid = bench.remote.create("Contoso")
    bench.hub.forget(
        bench.hub.admin.update(bench.connection, Asked(secrets={"client_secret": "sync-test-secret-value"}))
    )
    bench.hub.tick()
    bench.work()
    assert rid in bench.stored()


# --- deliveries that have failed -----------------------------------------------------------------------------------


@pytest.fixture
def telling():
    with told() as found:
        yield found


def failed_delivery(hub, **fields):
    """A delivery whose every attempt was refused."""
    made = hub.create(**fields)
    hub.work()
    for _ in range(12):
        hub.later(25 * 3600)
    assert {each.state for each in hub.deliveries()} == {"failed"}
    return made


def test_a_failed_delivery_is_listed_with_the_receivers_words_and_sent_again(telling):
    hub = telling
    hub.connect()
    hub.fault("status", status=503, message="closed for lunch")
    made = failed_delivery(hub, last_name="Torres")
    found = only(waiting(hub.hub))
    assert (found.kind, found.code, found.connection, found.about["record"]) == (
        "delivery",
        "Status503",
        hub.uid,
        made.id,
    )
    assert "closed for lunch" in found.message
    assert waiting(hub.hub, connection="another") == []
    assert found.payload is None
    source, whole = one(hub.hub, found.id)
    assert "Torres" in whole.payload
    assert source.plan(whole)["record"] == made.id
    with pytest.raises(Conflict, match="correct the mapping"):
        source.edit(whole, "{}")
    hub.well()
    replay(hub.hub, found.id)
    hub.work()
    assert waiting(hub.hub) == []
    assert [each.state for each in hub.deliveries()] == ["done"]
    with pytest.raises(NotFound):
        one(hub.hub, found.id)


def test_a_delivery_is_discarded_with_a_reason(telling):
    hub = telling
    hub.connect()
    hub.fault("status", status=500)
    failed_delivery(hub, last_name="Torres")
    source, found = one(hub.hub, only(waiting(hub.hub)).id)
    source.discard(found, "the order was taken by phone")
    assert waiting(hub.hub) == []
    discarded = only(hub.deliveries())
    assert (discarded.state, discarded.outcome) == (
        "discarded",
        f"discarded by {BY}: the order was taken by phone",
    )
    hub.later(2 * 24 * 3600)
    assert only(hub.deliveries()).state == "discarded"


def test_failed_deliveries_of_several_connections_are_listed_page_by_page(telling):
    hub = telling
    hub.fault("status", status=500)
    for slug in ("one", "two", "three"):
        hub.connect(slug=slug)
    for number in range(3):
        hub.create(last_name=f"N{number}")
    for _ in range(13):
        hub.later(25 * 3600)
    for top in (1, 2, 4, 100):
        found = [each.id for each in waiting(hub.hub, top=top) if each.kind == "delivery"]
        assert len(found) == len(set(found)) == 9
    assert len(waiting(hub.hub, connection=hub.uid)) == 3


@pytest.mark.parametrize("name", ["delivery~", "delivery~x~y", "delivery~x", "delivery~~"])
def test_what_is_no_delivery_is_not_found(telling, name):
    with pytest.raises(NotFound):
        one(telling.hub, name)


def test_a_connection_that_this_instance_has_not_listed_yet_is_asked_itself(refused):
    """Another instance has just made it: the list of all connections is up to a minute old."""
    pair, *_ = refused
    uid = only({each.connection for each in waiting(pair.hub)})
    engine = replace(pair.hub.engine, sides=lambda *_: {})
    assert deadletters.page(engine, DEFAULT_TENANT, Wanted(), {}, top=100) == ([], None)
    found, _ = deadletters.page(engine, DEFAULT_TENANT, Wanted(connection=uid), {}, top=100)
    assert [each.kind for each in found] == ["refused"]
