"""The trace from a request or a tick through messages to the remote system, and the log lines of jobs and runs."""

import json
import re
from dataclasses import replace

import pytest

from crm_core.functions import triggers
from crm_core.log import bound, current_trace
from crm_core.model.connection import DEFAULT_TENANT
from crm_core.storage import layout
from crm_core.sync import merge, starting
from crm_core.sync.engine import Job
from tests.sync.conftest import handle_next

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
HEADER = re.compile(r"00-([0-9a-f]{32})-([0-9a-f]{16})-01")
SMALL = {"PAGE_RECORDS": "2", "FRESH_SLICE_SECONDS": "0.000001", "BULK_SLICE_SECONDS": "0.000001"}


def messages(bench, *lanes):
    """The messages that wait, as they are; they stay."""
    waiting = (each for lane in lanes or layout.QUEUES for each in bench.queue._queues.get(lane, {}).values())
    return [json.loads(each.body) for each in waiting]


def headers(bench):
    """(trace, span) of each request that the remote system got; None where there was none."""
    found = [each["headers"].get("traceparent", "") for each in bench.remote.control("GET", "requests")]
    return [match.groups() if (match := HEADER.fullmatch(each)) else None for each in found]


def start(bench, trace=TRACE):
    with bound(trace=trace):
        return bench.hub.start_run(DEFAULT_TENANT, bench.connection.uid, [], "full", "key:test")


class Envelope:
    def __init__(self, body, dequeue_count=1):
        self.body, self.dequeue_count = body, dequeue_count

    def get_body(self):
        return self.body.encode()


@pytest.fixture
def functions(memory_bench, monkeypatch):
    """The app's real queue and timer functions, over the hub of the test."""
    from simulation.host import functions

    monkeypatch.setattr(triggers, "the_hub", lambda: memory_bench.hub)
    return functions()


@pytest.mark.parametrize("memory_bench", [SMALL], indirect=True)
def test_a_trace_goes_through_every_message_of_a_run_to_every_remote_call(memory_bench, lines):
    bench = memory_bench
    for number in range(7):
        bench.remote.create(f"Row {number}")
    bench.connect()
    run = start(bench)
    traces = []
    while waiting := messages(bench):
        traces += [each["trace"] for each in waiting]
        assert handle_next(bench.hub, bench.queue)
    assert bench.run(run.id).status == "succeeded"
    assert bench.run(run.id).slices > 2
    assert set(traces) == {TRACE}
    assert bench.run(run.id).trace == TRACE
    got = headers(bench)
    assert len(got) > 5
    assert {each[0] for each in got} == {TRACE}
    assert len({each[1] for each in got}) == len(got)
    spans = [(each["trace"], each["span"]) for each in lines("remote request")]
    assert sorted(spans) == sorted(got)
    assert current_trace() == ""


def test_every_remote_request_is_one_line(memory_bench, lines):
    bench = memory_bench
    bench.remote.create("Row")
    bench.connect()
    bench.remote.fault("status", path="*/accounts*", status=500, count=1)
    bench.pull()
    got = [(each["method"], each["path"], each["status"]) for each in bench.remote.control("GET", "requests")]
    assert [(each["method"], each["path"], each["status"]) for each in lines("remote request")] == got
    assert ("GET", "/api/data/v9.2/accounts", 500) in got
    assert {each["connection"] for each in lines("remote request")} == {bench.connection.uid}
    assert {each["run"] for each in lines("remote request")} == {bench.state().last_run}
    assert {each["entity"] for each in lines("remote request")} == {"account"}


def test_a_run_that_comes_again_keeps_its_trace(memory_bench, lines):
    bench = memory_bench
    bench.connect()
    bench.remote.fault("status", path="*/accounts*", status=503)
    start(bench)
    bench.work()
    (waiting,) = messages(bench)
    assert (waiting["trace"], waiting["attempt"]) == (TRACE, 1)
    (line,) = lines("pull failed")
    named = ("level", "trace", "error", "status", "attempt", "entity", "connection")
    assert [line[name] for name in named] == [
        "WARNING", TRACE, "Unavailable", 503, 1, "account", bench.connection.uid,
    ]  # fmt: skip
    assert line["again_in"] > 0


def test_a_message_without_a_trace_gets_the_one_of_its_invocation(memory_bench, functions):
    bench = memory_bench
    bench.remote.create("Row")
    bench.connect()
    run = start(bench)
    body = json.dumps({name: value for name, value in messages(bench)[0].items() if name != "trace"})
    functions[layout.FRESH](Envelope(body))
    assert bench.run(run.id).status == "succeeded"
    (trace,) = {each[0] for each in headers(bench)}
    assert trace != TRACE
    assert len(trace) == 32


def test_each_tick_begins_a_trace(memory_bench, functions, lines):
    bench = memory_bench
    bench.connect()
    functions["tick"](None)
    functions["tick"](None)
    first, second = (each["trace"] for each in messages(bench))
    assert first != second
    assert [(each["trace"], each["jobs"]) for each in lines("tick")] == [(first, 1), (second, 1)]
    bench.remote.create("Row")
    bench.work()
    (run,) = bench.hub.runs.page(DEFAULT_TENANT, top=5, token=None)[0]
    assert run.trace == first


def test_a_run_asked_for_again_gets_another_message_in_its_own_trace(memory_bench, monkeypatch):
    from crm_core.errors import Conflict

    bench = memory_bench
    bench.connect()
    start(bench)
    monkeypatch.setattr(starting, "STILL_QUEUED", -starting.STILL_QUEUED)
    with pytest.raises(Conflict):
        start(bench, "f" * 32)
    assert [each["trace"] for each in messages(bench)] == [TRACE, TRACE]


def test_an_owed_run_whose_worker_died_comes_again_in_its_own_trace(memory_bench):
    bench = memory_bench
    bench.connect()
    run = start(bench)
    bench.queue._queues.clear()
    died = replace(bench.state(), lease_run=run.id, lease_until="2020-01-01T00:00:00.000000Z")
    bench.hub.states.save_entity(DEFAULT_TENANT, bench.connection.uid, "account", died)
    with bound(trace="f" * 32):
        job = Job("pull", DEFAULT_TENANT, bench.connection.uid, "account")
        bench.hub.engine.send(layout.FRESH, job)
    bench.work()
    assert [(each["run"], each["trace"]) for each in messages(bench)] == [(run.id, TRACE)]


def test_a_job_and_a_run_s_end_are_a_line_each(memory_bench, lines):
    bench = memory_bench
    for number in range(3):
        bench.remote.create(f"Row {number}")
    bench.connect()
    run = start(bench)
    bench.work()
    about = {
        "trace": TRACE, "tenant": "default", "connection": bench.connection.uid, "entity": "account", "run": run.id,
        "level": "INFO",
    }  # fmt: skip
    (job,) = lines("job")
    assert 0 <= job.pop("ms") < 60_000
    assert job.pop("time")
    assert job == {
        **about, "logger": "crm_core.jobs", "event": "job", "outcome": "done", "kind": "pull", "lane": "fresh",
        "deliveries": 1, "attempt": 0,
    }  # fmt: skip
    (end,) = lines("run")
    assert end.pop("time")
    assert 0 <= end.pop("seconds") < 60
    stored = bench.run(run.id)
    assert end == {
        **about, "logger": "crm_core.sync", "event": "run", "mode": "full", "origin": "key:test",
        "status": "succeeded", "read": 3, "slices": 0, "calls": dict(stored.calls),
        "counts": {"created": 3, "updated": 0, "deleted": 0, "unchanged": 0, "failed": 0},
    }  # fmt: skip


def test_a_run_that_fails_says_so_once(memory_bench, lines):
    bench = memory_bench
    bench.connect()
    bench.remote.fault("privilege", path="*/accounts*")
    run = start(bench)
    bench.work()
    (end,) = lines("run")
    assert (end["run"], end["status"], end["error"]) == (run.id, "failed", "NotPermitted")


def test_a_bug_in_a_job_leaves_its_type_and_place_and_no_value(
    memory_bench, functions, lines, caplog, monkeypatch
):
    bench = memory_bench
    bench.remote.create("planted-value")
    bench.connect()
    start(bench)
    (body,) = (json.dumps(each) for each in messages(bench))

    def broken(record_id, entity, side, sides, snapshot, run):
        raise KeyError(snapshot.change.fields["name"])

    monkeypatch.setattr(merge, "first_seen", broken)
    with pytest.raises(triggers.Failed) as caught:
        functions[layout.FRESH](Envelope(body))
    assert str(caught.value) == "KeyError; the log line 'function failed' says where."
    assert caught.value.__suppress_context__
    (job,) = lines("job")
    assert (job["level"], job["error"], job["outcome"]) == ("ERROR", "KeyError", "comes again")
    assert job["trace"] == TRACE
    assert job["at"][-1].startswith("sync/test_trace.py")
    functions[layout.FRESH](Envelope(body, 3))  # from the third delivery on record by record
    assert [each["error"] for each in lines("record set aside")] == ["KeyError"]
    assert "planted-value" not in caplog.text


def test_poison_and_what_is_no_job_are_lines(memory_bench, functions, lines):
    bench = memory_bench
    bench.connect()
    run = start(bench)
    (job,) = messages(bench)
    functions["fresh_poison"](Envelope(json.dumps(job)))
    functions["fresh_poison"](Envelope(json.dumps(job)))
    functions["fresh_poison"](Envelope("planted"))
    functions[layout.BULK](Envelope("planted"))
    assert [(each["run"], each["trace"], each["outcome"]) for each in lines("poison")] == [
        (run.id, TRACE, "restarted"),
        (run.id, TRACE, "dead letter"),
    ]
    assert {each["trace"] for each in messages(bench)} == {TRACE}
    assert [(each["lane"], each.get("error")) for each in lines("message is no job")] == [
        ("fresh", None), ("bulk", "JSONDecodeError"),
    ]  # fmt: skip


def test_a_job_s_trace_is_one_field_of_its_message():
    job = Job("pull", DEFAULT_TENANT, "c", "account", "r", trace=TRACE)
    assert Job.from_message(job.to_message()) == job
    assert Job.from_message(Job("pull", DEFAULT_TENANT).to_message()).trace == ""


def test_the_simulation_carries_the_context_into_its_tasks():
    from simulation.scheduler import Scheduler, SimPool

    scheduler = Scheduler(1)
    pool = SimPool(scheduler)

    def work():
        with bound(trace=TRACE):
            return [pool.prefetch(current_trace).result(), *pool.map(lambda _: current_trace(), [1, 2, 3])]

    assert scheduler.call("work", work) == [TRACE] * 4
