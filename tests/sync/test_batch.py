"""A long batch as a run: what becomes of it when workers die, messages come twice and the remote has its limits.

Over the in-memory twins and real HTTP to the sandbox, with a clock that a test can put forward. Writes go one by one, as
the base class of connectors makes them, so that a fault strikes some of them; how many go in one call is the connector's.
"""

from collections import Counter
from contextlib import closing
from dataclasses import replace
from datetime import timedelta
from decimal import Decimal

import pytest

from crm_core.connection_admin import Wanted
from crm_core.connector import Connector, Write
from crm_core.connectors.dynamics365 import Dynamics365
from crm_core.errors import BadRequest
from crm_core.functions.batch import batch
from crm_core.functions.bodies import BatchBody
from crm_core.functions.web import Call, Incoming, Principal, Role
from crm_core.hub import Hub
from crm_core.model.connection import DEFAULT_TENANT
from crm_core.settings import load
from crm_core.storage import layout
from crm_core.storage.memory import MemoryBlob, MemoryQueue, MemoryTable
from crm_core.sync.results import Progress, carry_out, results
from crm_core.system import SystemClock
from tests.sync.conftest import Bench, environment, handle_next

ACCOUNTS = "*/accounts*"
TABLE_CALLS = ("get", "query", "insert", "replace", "upsert", "delete", "transact")


class Clock(SystemClock):
    """Real time, put forward by whoever waits."""

    ahead = 0.0

    def now(self):
        return super().now() + timedelta(seconds=self.ahead)

    def monotonic(self):
        return super().monotonic() + self.ahead

    def sleep(self, seconds):
        self.ahead += seconds


class Crash(BaseException):
    """The process ends here."""


@pytest.fixture
def bench(remote, request, monkeypatch):
    monkeypatch.setattr(Dynamics365, "write", Connector.write)
    clock = Clock()
    queue = MemoryQueue(clock)
    settings = load(environment("UseDevelopmentStorage=true", remote, **getattr(request, "param", {})))
    hub = Hub(settings, clock=clock, table=MemoryTable(), queue=queue, blob=MemoryBlob())
    with closing(hub):
        bench = Bench(hub, remote, queue)
        bench.connect()
        bench.opened.connector.check()
        yield bench


def start(bench, items, size=4, **how):
    """A run of these writes, `size` to a part, on its way."""
    progress = Progress(len(items), size, **how)
    return bench.hub.start_batch(bench.opened, "account", items, progress, "key:test")


def outcomes(bench, run):
    return results(bench.hub.engine, DEFAULT_TENANT, bench.run(run.id), 0, 10_000)


def codes(bench, run):
    """By index: the error's code, or what was done."""
    return {
        each.index: each.outcome.error.code if each.outcome.error else each.verb
        for each in outcomes(bench, run)
    }


def to_the_end(bench, run, hours=3):
    """Works, and lets time pass to the next message, until the run has ended; gives the row and the seconds passed."""
    began = bench.hub.clock.ahead
    while True:
        bench.work()
        found = bench.run(run.id)
        if found.ended:
            return found, bench.hub.clock.ahead - began
        moments = [each for lane in layout.QUEUES if (each := bench.queue.next_visible(lane))]
        assert moments, "nothing is on its way"
        bench.hub.clock.sleep(max(0.0, (min(moments) - bench.hub.clock.now()).total_seconds()) + 0.001)
        assert bench.hub.clock.ahead < hours * 3600


def creates(number):
    return [Write({"name": f"New {n}"}) for n in range(number)]


def names(bench):
    return Counter(row["values"]["name"] for row in bench.remote.control("GET", "rows/account?limit=100000"))


def patches(bench):
    return sum(each["method"] == "PATCH" for each in bench.remote.control("GET", "requests"))


def etag(bench, rid):
    return bench.opened.connector.get("account", rid).etag


# --- the plain case ----------------------------------------------------------------------------------------------


def test_operations_are_carried_out_and_each_has_its_outcome(bench):
    changed, deleted = bench.remote.create("Old"), bench.remote.create("Gone")
    missing = "00000000-0000-4000-8000-000000000000"
    run = start(
        bench,
        [
            *creates(5),
            Write({"name": "Changed"}, verb="update", rid=changed, if_match=etag(bench, changed)),
            Write(verb="delete", rid=deleted),
            BadRequest.field("colour", "colour: is no field of account."),
            Write({"name": "Nobody"}, verb="update", rid=missing),
        ],
    )
    assert (run.mode, run.status, run.origin) == ("batch", "queued", "key:test")
    bench.work()
    ended = bench.run(run.id)
    assert (ended.status, ended.read, ended.problem) == ("succeeded", 9, None)
    assert ended.counts == {"created": 5, "updated": 1, "deleted": 1, "failed": 2}
    found = codes(bench, run)
    assert [found[index] for index in range(9)] == [
        *["create"] * 5, "update", "delete", "BadRequest", "RecordGone",
    ]  # fmt: skip
    assert names(bench) == Counter([*(f"New {n}" for n in range(5)), "Changed"])
    made = outcomes(bench, run)[0]
    assert (made.outcome.change.fields["name"], made.rid) == ("New 0", made.outcome.change.rid)
    assert made.outcome.change.etag == etag(bench, made.rid)
    refused = outcomes(bench, run)[7].outcome.error
    assert (refused.http_status, refused.errors[0].field) == (400, "colour")
    gone = outcomes(bench, run)[8].outcome.error
    assert (gone.system, gone.vendor_status, gone.http_status) == ("dynamics365", 404, 404)
    assert bench.hub.engine.blob.get(f"runs/default/{run.id}/items") is None
    assert bench.health().health == "ok"
    # Of the four at a time, each that meets an owner first asks for the e-mail.
    assert 8 + 1 <= ended.calls["remote"] <= 8 + 4


@pytest.mark.parametrize(
    "bench", [{"FRESH_SLICE_SECONDS": "0.001", "BULK_SLICE_SECONDS": "0.001"}], indirect=True
)
def test_however_short_a_slice_is_it_gets_further(bench):
    run = start(bench, creates(10))
    bench.work()
    ended = bench.run(run.id)
    assert (ended.status, ended.counts["created"]) == ("succeeded", 10)
    assert 2 <= ended.slices < 10  # each part takes one at least
    assert names(bench) == Counter(f"New {n}" for n in range(10))


def test_what_is_not_done_in_a_fresh_slice_goes_on_in_bulk(bench, monkeypatch):
    clock = bench.hub.clock
    sent = bench.hub.tools.transport.send

    def slow(request, **more):
        clock.sleep(3)
        return sent(request, **more)

    monkeypatch.setattr(bench.hub.tools.transport, "send", slow)
    run = start(bench, creates(12))
    assert handle_next(bench.hub, bench.queue)
    assert bench.run(run.id).status == "running"
    assert (bench.queue.size(layout.FRESH), bench.queue.size(layout.BULK)) == (0, 1)
    bench.work()
    assert (bench.run(run.id).status, bench.run(run.id).slices) == ("succeeded", 1)


def test_minimal_and_raw_decide_what_is_kept(bench):
    kept = {}
    for how in ({}, {"minimal": True}, {"raw": True}):
        run = start(bench, creates(1), **how)
        bench.work()
        (kept[str(how)],) = outcomes(bench, run)
    plain, minimal, raw = (each.outcome.change for each in kept.values())
    assert (plain.fields["name"], plain.raw) == ("New 0", {})
    assert (minimal.fields, minimal.raw, bool(minimal.etag)) == ({}, {}, True)
    assert raw.raw["name"] == "New 0"


def test_what_stops_a_batch_and_its_end_are_lines(bench, lines):
    bench.remote.fault("throttle", retry_after=60, count=1, path=ACCOUNTS)
    to_the_end(bench, run := start(bench, creates(2)))
    (stopped,) = lines("batch stopped")
    assert (stopped["run"], stopped["error"], stopped["status"]) == (run.id, "RateLimited", 429)
    assert stopped["again_in"] >= 60
    (ended,) = lines("run")
    told = {name: ended[name] for name in ("run", "mode", "status", "read", "origin")}
    assert told == {"run": run.id, "mode": "batch", "status": "succeeded", "read": 2, "origin": "key:test"}
    assert ended["counts"]["created"] == 2


def test_the_line_of_a_batch_that_failed_says_why(bench, lines):
    bench.remote.fault("reset", path=ACCOUNTS)
    to_the_end(bench, start(bench, creates(2)))
    (ended,) = lines("run")
    assert (ended["status"], ended["error"], ended["counts"]["failed"]) == ("failed", "Unavailable", 2)
    assert "again_in" not in lines("batch stopped")[-1]


def test_batches_and_pulls_do_not_refuse_each_other(bench):
    first, second = start(bench, creates(2)), start(bench, creates(2))
    pull = bench.hub.start_run(DEFAULT_TENANT, "demo", [], "incremental", "key:test")
    third = start(bench, creates(2))
    bench.work()
    assert {bench.run(each.id).status for each in (first, second, third, pull)} == {"succeeded"}
    assert bench.state().last_run == pull.id
    assert bench.state().lease_run == ""


# --- limits and outages ------------------------------------------------------------------------------------------


def test_a_limit_in_the_middle_is_waited_for_and_nothing_is_sent_meanwhile(bench):
    bench.remote.fault("throttle", retry_after=120, skip=6, count=1, path=ACCOUNTS)
    run = start(bench, creates(30), size=30)
    bench.work()
    waiting = bench.run(run.id)
    assert (waiting.status, waiting.problem.code) == ("running", "RateLimited")
    assert 6 <= waiting.read < 30
    sent = patches(bench)
    assert sent == waiting.read + 1  # what was under way besides, and no more
    bench.work()
    assert patches(bench) == sent
    ended, seconds = to_the_end(bench, run)
    assert (ended.status, ended.counts["created"], ended.problem) == ("succeeded", 30, None)
    assert seconds >= 120
    assert set(names(bench).values()) == {1}
    assert len(names(bench)) == 30
    blobs = [name for name in bench.hub.engine.blob._blobs if run.id in name]
    assert blobs == [f"runs/default/{run.id}/outcomes/0000-{ended.parts[0]}"]


def test_after_a_limit_nothing_is_even_looked_at(bench, monkeypatch):
    monkeypatch.setattr(type(bench.opened.connector), "concurrency", 1)
    rid = bench.remote.create("Old")
    update = Write({"name": "New"}, verb="update", rid=rid, if_match=etag(bench, rid))
    bench.remote.fault("reset_after", method="PATCH", path=ACCOUNTS, count=1)
    run = start(bench, [update, *creates(3)])
    bench.work()
    assert bench.run(run.id).problem.code == "Unavailable"
    bench.remote.fault("throttle", retry_after=60, path=ACCOUNTS, count=1)
    bench.hub.clock.sleep(20)
    before = bench.remote.requests()
    bench.work()
    assert (bench.run(run.id).problem.code, bench.remote.requests()) == ("RateLimited", before + 1)
    assert to_the_end(bench, run)[0].counts == {"created": 3, "updated": 1}


def test_a_batch_waits_while_the_connection_may_not_call(bench):
    bench.remote.fault("throttle", retry_after=300, count=1, path=ACCOUNTS)
    assert bench.pull().problem.code == "RateLimited"
    before = bench.remote.requests()
    run = start(bench, creates(2))
    bench.work()
    assert (bench.run(run.id).status, bench.remote.requests()) == ("queued", before)
    ended, seconds = to_the_end(bench, run)
    assert ended.status == "succeeded"
    assert seconds >= 299


def test_a_remote_that_goes_away_and_comes_back_is_waited_for(bench):
    bench.remote.fault("reset", skip=5, path=ACCOUNTS)
    run = start(bench, creates(12))
    for _ in range(4):
        bench.work()
        bench.hub.clock.sleep(60)
    assert (bench.run(run.id).status, bench.run(run.id).problem.code) == ("running", "Unavailable")
    assert bench.health().health == "unreachable"
    bench.remote.clear_faults()
    ended, _ = to_the_end(bench, run)
    assert (ended.status, ended.counts["created"]) == ("succeeded", 12)
    assert set(names(bench).values()) == {1}
    assert bench.health().health == "ok"


def test_a_remote_that_goes_away_often_is_given_up_only_if_nothing_gets_through(bench):
    run = start(bench, creates(60))
    outages = 0
    while not bench.run(run.id).ended:
        bench.remote.clear_faults()
        if outages < 14:
            bench.remote.fault("reset", path=ACCOUNTS, skip=4)
        outages += 1
        bench.work()
        bench.hub.clock.sleep(1000)
    assert outages > 14
    assert (bench.run(run.id).status, bench.run(run.id).counts) == ("succeeded", {"created": 60})
    assert set(names(bench).values()) == {1}


def test_an_answer_that_was_lost_is_looked_for_before_anything_is_repeated(bench):
    """Writes got through and their answers did not: creates are made once, an update with If-Match is no 412."""
    changed, deleted = bench.remote.create("Old"), bench.remote.create("Gone")
    items = [
        *creates(2),
        Write({"name": "Changed"}, verb="update", rid=changed, if_match=etag(bench, changed)),
        Write(verb="delete", rid=deleted, if_match=etag(bench, deleted)),
    ]
    bench.remote.fault("reset_after", path=ACCOUNTS, count=14)
    ended, _ = to_the_end(bench, run := start(bench, items))
    assert (ended.status, ended.counts) == ("succeeded", {"created": 2, "updated": 1, "deleted": 1})
    assert names(bench) == Counter(["New 0", "New 1", "Changed"])
    assert outcomes(bench, run)[2].outcome.change.etag == etag(bench, changed)


def test_an_update_that_the_system_stored_in_its_own_way_is_found_all_the_same(bench):
    rid = bench.remote.create("Old")
    before = etag(bench, rid)
    bench.remote.fault("reset_after", method="PATCH", path=ACCOUNTS, count=1)
    run = start(bench, [Write({"annual_revenue": "10.555"}, verb="update", rid=rid, if_match=before)])
    ended, _ = to_the_end(bench, run)
    (found,) = outcomes(bench, run)
    assert (ended.counts, found.outcome.error) == ({"updated": 1}, None)
    assert Decimal(found.outcome.change.fields["annual_revenue"]) == Decimal("10.56")


def test_an_update_whose_outcome_nobody_can_tell_says_so(bench):
    """Our write may have got through before somebody else's: 412 that does not say the write was not made."""
    rid = bench.remote.create("Old")
    bench.remote.fault("reset_after", method="PATCH", path=ACCOUNTS, count=1)
    run = start(bench, [Write({"name": "Ours"}, verb="update", rid=rid, if_match=etag(bench, rid))])
    bench.work()
    assert names(bench) == Counter(["Ours"])
    bench.remote.update(rid, name="Theirs")
    ended, _ = to_the_end(bench, run)
    (found,) = outcomes(bench, run)
    assert (ended.counts, found.outcome.error.code) == ({"failed": 1}, "Stale")
    assert "not known" in found.outcome.error.message
    assert names(bench) == Counter(["Theirs"])


def test_an_update_that_never_got_through_is_repeated(bench):
    rid = bench.remote.create("Old")
    bench.remote.fault("reset", method="PATCH", path=ACCOUNTS, count=1)
    run = start(bench, [Write({"name": "Ours"}, verb="update", rid=rid, if_match=etag(bench, rid))])
    ended, _ = to_the_end(bench, run)
    assert (ended.counts, names(bench)) == ({"updated": 1}, Counter(["Ours"]))


def test_if_match_that_does_not_hold_is_412_and_stops_nobody(bench):
    rid = bench.remote.create("Old")
    old = etag(bench, rid)
    bench.remote.update(rid, name="Theirs")
    run = start(bench, [Write({"name": "Ours"}, verb="update", rid=rid, if_match=old), *creates(1)])
    bench.work()
    assert codes(bench, run) == {0: "Stale", 1: "create"}
    assert "repeat the change" in outcomes(bench, run)[0].outcome.error.message


@pytest.mark.parametrize("width", [1, 4])
@pytest.mark.parametrize(
    ("how", "unknown"), [({"status": 500}, True), ({"status": 503, "retry_after": 1}, False)]
)
def test_an_operation_that_alone_fails_holds_up_nobody(bench, monkeypatch, width, how, unknown):
    monkeypatch.setattr(type(bench.opened.connector), "concurrency", width)
    bad = bench.remote.create("Bad")
    bench.remote.fault("status", method="PATCH", path=f"*{bad}*", **how)
    run = start(bench, [Write({"name": "x"}, verb="update", rid=bad), *creates(11)])
    ended, seconds = to_the_end(bench, run)
    assert (ended.status, ended.counts) == ("succeeded", {"created": 11, "failed": 1})
    assert codes(bench, run)[0] == "Unavailable"
    assert outcomes(bench, run)[0].outcome.error.outcome_unknown is unknown
    assert seconds < 60


def test_a_remote_that_stays_away_ends_the_run_and_every_operation_has_an_outcome(bench):
    bench.remote.fault("reset", skip=5, path=ACCOUNTS)
    ended, seconds = to_the_end(bench, run := start(bench, creates(12)))
    assert (ended.status, ended.problem.code) == ("failed", "Unavailable")
    assert 600 < seconds < 3 * 3600
    done = ended.counts["created"]
    assert 4 <= done <= 5
    assert ended.counts == {"created": done, "failed": 12 - done}
    found = codes(bench, run)
    assert sorted(found) == list(range(12))
    assert set(found.values()) == {"create", "Unavailable", "NotBegun"}
    for each in outcomes(bench, run):
        if each.outcome.error is not None:
            unknown = getattr(each.outcome.error, "outcome_unknown", False)
            assert (each.outcome.error.http_status, unknown) == (503, found[each.index] == "Unavailable")
    assert bench.hub.engine.blob.get(f"runs/default/{run.id}/items") is None


def test_credentials_that_are_refused_end_the_run_and_need_a_person(bench):
    run = start(bench, creates(6))
    bench.hub.tools.tokens.drop("default", bench.connection.uid)
    bench.hub.forget(bench.hub.admin.update(bench.connection, Wanted(secrets={"client_secret": "wrong" * 5})))
    bench.work()
    ended = bench.run(run.id)
    assert (ended.status, ended.problem.code, ended.counts) == ("failed", "AuthFailed", {"failed": 6})
    assert bench.health().health == "needs_attention"
    assert set(codes(bench, run).values()) == {"NotBegun"}
    assert names(bench) == Counter()


# --- workers -----------------------------------------------------------------------------------------------------


def work_until_crash(bench):
    """True if a worker died; its message is there again."""
    for _ in range(50):
        messages = [(lane, m) for lane in layout.QUEUES for m in bench.queue.receive(lane)]
        if not messages:
            return False
        for lane, message in messages:
            try:
                bench.hub.handle(lane, message.body, message.dequeue_count)
            except Crash:
                bench.queue.release(lane, message)
                return True
            bench.queue.delete(lane, message)
    raise AssertionError("the lanes never become empty")


@pytest.fixture
def points(bench, monkeypatch):
    """Counts calls at the seams; `points.left` of them pass, then the process ends."""

    class Points:
        left = None

    def around(target, name):
        call = getattr(target, name)

        def guarded(*args, **kwargs):
            passing()
            result = call(*args, **kwargs)
            passing()
            return result

        monkeypatch.setattr(target, name, guarded)

    def passing():
        if Points.left is not None:
            if Points.left == 0:
                raise Crash
            Points.left -= 1

    hub = bench.hub
    monkeypatch.setattr(type(bench.opened.connector), "concurrency", 1)
    for name in TABLE_CALLS:
        around(hub.table, name)
    for name in ("put", "get", "delete"):
        around(hub.engine.blob, name)
    around(hub.queue, "send")
    around(hub.tools.transport, "send")
    return Points


def test_a_crash_at_any_call_changes_nothing_in_the_end(bench, points):
    """Whichever call a worker dies before or after: one outcome each, and the remote holds what was asked for once."""
    left = 0
    crashed = True
    while crashed:
        assert bench.remote.client.call("POST", "/_sandbox/reset").status == 204
        bench.hub.forget(bench.connection)
        bench.opened.connector.check()
        old = [bench.remote.create(f"Old {n}") for n in range(4)]
        run = start(
            bench,
            [
                Write({"name": "Made 0"}),
                Write(
                    {"name": "Kept 0", "phone": "1"}, verb="update", rid=old[0], if_match=etag(bench, old[0])
                ),
                Write(verb="delete", rid=old[1]),
                Write({"name": "Made 1"}),
                Write(verb="delete", rid=old[2], if_match=etag(bench, old[2])),
                Write({"name": "Kept 1"}, verb="update", rid=old[3]),
                Write({"name": "y"}, verb="update", rid="00000000-0000-4000-8000-000000000000"),
            ],
            size=3,
        )
        points.left = left
        crashed = work_until_crash(bench)
        points.left = None
        bench.work()
        ended = bench.run(run.id)
        where = f"crash at call {left}"
        assert ended.status == "succeeded", where
        assert ended.counts == {"created": 2, "updated": 2, "deleted": 2, "failed": 1}, where
        assert ended.read == 7, where
        found = codes(bench, run)
        assert [found[index] for index in range(7)] == [
            "create", "update", "delete", "create", "delete", "update", "RecordGone",
        ], where  # fmt: skip
        assert names(bench) == Counter(["Made 0", "Made 1", "Kept 0", "Kept 1"]), where
        assert bench.hub.engine.blob.get(f"runs/default/{run.id}/items") is None, where
        left += 1
    assert left > 40


def test_a_message_that_comes_twice_does_nothing_twice(bench):
    run = start(bench, creates(6))
    (message,) = bench.queue.receive(layout.FRESH)
    for _ in range(2):
        bench.hub.handle(layout.FRESH, message.body, 1)
    bench.queue.delete(layout.FRESH, message)
    assert bench.run(run.id).counts == {"created": 6}
    assert patches(bench) == 6


@pytest.mark.parametrize("at", range(1, 9))
def test_of_two_workers_on_one_message_the_one_that_was_overtaken_stops(bench, monkeypatch, at):
    """The second begins in the middle of a call of the first; what both send is carried out once."""
    monkeypatch.setattr(type(bench.opened.connector), "concurrency", 1)
    changed, deleted = bench.remote.create("Old"), bench.remote.create("Gone")
    items = [
        *creates(3),
        Write({"name": "Changed"}, verb="update", rid=changed, if_match=etag(bench, changed)),
        Write(verb="delete", rid=deleted),
        *(replace(each, fields={"name": f"More {n}"}) for n, each in enumerate(creates(3))),
    ]
    run = start(bench, items, size=5)
    (message,) = bench.queue.receive(layout.FRESH)
    sent = bench.hub.tools.transport.send
    calls = 0

    def second_worker(request, **more):
        nonlocal calls
        answer = sent(request, **more)
        calls += 1
        if calls == at:
            bench.hub.handle(layout.FRESH, message.body, 2)
        return answer

    monkeypatch.setattr(bench.hub.tools.transport, "send", second_worker)
    bench.hub.handle(layout.FRESH, message.body, 1)
    ended = bench.run(run.id)
    assert (ended.status, ended.counts) == ("succeeded", {"created": 6, "updated": 1, "deleted": 1})
    expected = ["Changed", *(f"New {n}" for n in range(3)), *(f"More {n}" for n in range(3))]
    assert names(bench) == Counter(expected)
    assert len(outcomes(bench, run)) == 8


def test_from_the_third_delivery_on_the_operation_that_is_a_bug_is_found(bench, monkeypatch):
    kind = type(bench.opened.connector)
    update = kind.update

    def buggy(connector, entity, rid, write, if_match=""):
        if write.fields["name"] == "bug":
            raise ZeroDivisionError
        return update(connector, entity, rid, write, if_match)

    monkeypatch.setattr(kind, "update", buggy)
    rids = [bench.remote.create(f"Row {n}") for n in range(3)]
    texts = ("one", "bug", "three")
    run = start(bench, [Write({"name": t}, verb="update", rid=r) for t, r in zip(texts, rids, strict=True)])
    for delivery in (1, 2):
        (message,) = bench.queue.receive(layout.FRESH)
        assert message.dequeue_count == delivery
        with pytest.raises(ZeroDivisionError):
            bench.hub.handle(layout.FRESH, message.body, delivery)
        bench.queue.release(layout.FRESH, message)
    bench.work()
    assert (bench.run(run.id).status, bench.run(run.id).counts) == ("succeeded", {"updated": 2, "failed": 1})
    assert codes(bench, run) == {0: "update", 1: "Bug", 2: "update"}
    assert outcomes(bench, run)[1].outcome.error.http_status == 500


def test_a_poisoned_batch_is_restarted_once_without_progress_then_fails(bench):
    run = start(bench, creates(3))
    due = bench.state().due
    (message,) = bench.queue.receive(layout.FRESH)
    bench.queue.delete(layout.FRESH, message)
    bench.hub.poisoned(layout.FRESH, message.body)
    assert bench.queue.size(layout.BULK) == 1
    bench.hub.poisoned(layout.BULK, message.body)
    ended = bench.run(run.id)
    assert (ended.status, ended.problem.code, ended.counts) == ("failed", "Poison", {"failed": 3})
    assert set(codes(bench, run).values()) == {"NotBegun"}
    assert bench.dead_letters()[0]["kind"] == "batch"
    assert (bench.state().due, bench.state().problem) == (due, None)  # the pull is none of its business
    bench.work()
    assert names(bench) == Counter()


def test_a_batch_that_is_poisoned_while_a_worker_had_it_does_not_say_that_nothing_was_sent(bench, points):
    run = start(bench, creates(3), size=2)
    points.left = 16
    assert work_until_crash(bench)
    points.left = None
    assert 0 < len(names(bench)) < 3
    assert not outcomes(bench, run)
    (message,) = bench.queue.receive(layout.FRESH)
    for _ in range(2):
        bench.hub.poisoned(layout.FRESH, message.body)
    assert codes(bench, run) == {0: "Unavailable", 1: "Unavailable", 2: "NotBegun"}


def test_a_batch_of_a_deleted_connection_fails_and_keeps_its_outcomes(bench):
    run = start(bench, creates(3))
    bench.hub.admin.delete(bench.connection)
    bench.hub.forget(bench.connection)
    bench.work()
    assert (bench.run(run.id).status, bench.run(run.id).problem.code) == ("failed", "NotFound")
    assert set(codes(bench, run).values()) == {"NotBegun"}


# --- while a caller waits ----------------------------------------------------------------------------------------


def test_what_is_not_begun_in_time_says_so(bench):
    left = iter([True, True, False])
    found = carry_out(bench.opened, "account", creates(12), bench.hub.pool, lambda: next(left, False))
    done = [each for each in found if each.outcome.error is None]
    late = [each for each in found if each.outcome.error is not None]
    assert [each.index for each in found] == list(range(12))
    assert len(done) == 3
    assert {each.outcome.error.code for each in late} == {"NotBegun"}
    assert patches(bench) == 3


def test_the_first_write_is_begun_whatever_the_time(bench):
    found = carry_out(bench.opened, "account", creates(3), bench.hub.pool, lambda: False)
    assert [each.outcome.error is None for each in found] == [True, False, False]


def test_nothing_is_begun_late_in_the_time_of_a_live_call(bench, monkeypatch):
    """Each request takes eight seconds, and what has been begun may take thirty of the hundred that a call has."""
    monkeypatch.setattr(type(bench.opened.connector), "concurrency", 1)
    sent = bench.hub.tools.transport.send

    def slow(request, **more):
        bench.hub.clock.sleep(8)
        return sent(request, **more)

    monkeypatch.setattr(bench.hub.tools.transport, "send", slow)
    operations = [{"method": "create", "fields": {"name": f"New {n}"}} for n in range(20)]
    body = BatchBody.model_validate({"operations": operations})
    incoming = Incoming("POST", "/api/crm/accounts/batch", {}, {}, b"", "trace")
    principal = Principal(DEFAULT_TENANT, "key:test", Role.OPERATOR)
    reply = batch(Call(bench.hub, principal, incoming, {"entities": "accounts"}, {}, body))
    assert (reply.status, reply.body["counts"]["created"], patches(bench)) == (200, 8, 8)
    late = reply.body["value"][8:]
    assert {(each["status"], each["error"]["code"]) for each in late} == {(503, "NotBegun")}
    assert late[0]["error"]["detail"] == (
        "Was not begun. The time for this batch is over; send it in another one."
    )


# --- lost messages -----------------------------------------------------------------------------------------------


def lose(bench):
    for lane in layout.QUEUES:
        for message in bench.queue.receive(lane, limit=100):
            assert bench.queue.delete(lane, message)


def tick_to_the_end(bench, run, minutes):
    for _ in range(minutes):
        bench.hub.clock.sleep(60)
        bench.hub.tick()
        bench.work()
    return bench.run(run.id)


@pytest.mark.parametrize("bench", [{"FRESH_SLICE_SECONDS": "0.001"}], indirect=True)
@pytest.mark.parametrize(("slices", "minutes"), [(0, 3), (1, 32)], ids=["the first", "between two slices"])
def test_a_batch_that_lost_a_message_goes_on(bench, slices, minutes):
    run = start(bench, creates(10))
    for _ in range(slices):
        handle_next(bench.hub, bench.queue)
    assert bench.run(run.id).slices == slices
    lose(bench)
    found = tick_to_the_end(bench, run, minutes)
    assert (found.status, found.counts["created"]) == ("succeeded", 10)
    assert set(names(bench).values()) == {1}
