"""What is over is deleted after its time, a page at a time, and what waits for somebody stays."""

from dataclasses import replace
from datetime import timedelta
from typing import get_args

import pytest

from crm_core.model.connection import DEFAULT_TENANT
from crm_core.model.state import Mode, Run
from crm_core.ports import Row
from crm_core.storage import layout
from crm_core.storage.ageing import drop
from crm_core.storage.events import Inbound
from crm_core.storage.plans import Parts, PlanReader, PlanWriter
from crm_core.storage.state import json_data
from crm_core.sync.engine import Job
from crm_core.sync.retention import retention
from tests.sync.receivers import told
from tests.sync.test_inbound import App

JOB = Job("retention", DEFAULT_TENANT)


@pytest.fixture
def hub():
    with told() as found:
        yield found


def sweep(hub, days=0.0):
    """So much later."""
    hub.clock.ahead += timedelta(days=days)
    retention(hub.hub.engine, JOB, layout.BULK)


def rows(hub, prefix):
    return [row.rk for row in hub.hub.table.query(layout.EVENTS).rows if row.rk.startswith(prefix)]


def test_webhooks_that_are_done_go_after_30_days_with_what_knew_their_repeats(hub):
    app = App(hub)
    first = app.post({"id": "7", "last_name": "Torres"})
    hub.work()
    hub.clock.ahead += timedelta(days=2)
    app.post({"id": "8", "last_name": "Rojas", "note": "x" * 60_000})
    app.post({"id": "9", "last_name": "Vega"})
    hub.work()
    sweep(hub, 28.5)
    assert app.event(first) is None
    assert len(rows(hub, layout.EVENT)) == 2
    assert any(each.startswith("events/") for each in hub.hub.engine.blob._blobs)
    engine, found = hub.hub.engine, app.event(rows(hub, layout.EVENT)[0].removeprefix(layout.EVENT))
    engine.events.end(DEFAULT_TENANT, app.connection.uid, found, "dead", "failed")
    sweep(hub, 2)
    assert rows(hub, layout.EVENT) == [layout.EVENT + found.id]
    assert not any(each.startswith("events/") for each in engine.blob._blobs)
    assert app.record("8") is not None


def test_what_knows_repeats_goes_with_its_event_though_another_worker_was_there_before(hub):
    app = App(hub)
    engine, uid = hub.hub.engine, app.connection.uid
    event_id = app.post({"id": "7", "last_name": "Torres"})
    hub.work()
    found = app.event(event_id)
    engine.events.end(DEFAULT_TENANT, uid, found, "done", "merged", "abc")
    assert engine.events.is_done(DEFAULT_TENANT, uid, "abc")
    hub.hub.table.delete(layout.EVENTS, layout.event_pk(DEFAULT_TENANT, uid), layout.SEEN + "abc")
    sweep(hub, 31)
    assert rows(hub, layout.EVENT) == []


def test_what_knows_repeats_stays_with_an_event_that_somebody_took_up_again(hub):
    app = App(hub)
    engine, uid, table = hub.hub.engine, app.connection.uid, hub.hub.table
    for number, change in ((7, "abc"), (8, "def")):
        event_id = app.post({"id": str(number), "last_name": "Torres"})
        hub.work()
        engine.events.end(DEFAULT_TENANT, uid, app.event(event_id), "done", "merged", change)
    pk, (changed, _) = layout.event_pk(DEFAULT_TENANT, uid), rows(hub, layout.EVENT)
    read = table.query(layout.EVENTS, pk=pk, rk=layout.EVENT, rk_to=layout.EVENT + layout.AFTER).rows
    beside = {row.rk: layout.SEEN + json_data(row)["change"] for row in read}
    (same,) = (row for row in read if row.rk == changed)
    table.replace(layout.EVENTS, Row(pk, changed, {**same.values, "more": "x"}), same.etag)
    gone = drop(table, layout.EVENTS, read, beside)
    assert rows(hub, layout.EVENT) == [changed]
    assert rows(hub, layout.SEEN) == [beside[changed]]
    assert changed not in gone
    assert beside[changed] not in gone


def test_deliveries_that_were_taken_go_after_30_days_and_those_that_failed_stay(hub):
    hub.connect()
    hub.create(last_name="Torres")
    hub.work()
    hub.fault("status", status=400)
    failed = hub.create(last_name="Rojas")
    hub.work()
    for hours in (1, 2, 5, 10, 14, 20, 24, 30, 30, 30):
        hub.later(hours * 3600)
        hub.tick()
    assert {each.state for each in hub.deliveries()} == {"done", "failed"}
    sweep(hub, 31)
    (left,) = hub.deliveries()
    assert (left.record, left.state) == (failed.id, "failed")


def test_history_goes_after_90_days_in_the_turn_of_its_bucket(hub):
    record = hub.create(last_name="Torres")
    hub.editor().update(record.id, {"last_name": "Rojas"})
    hub.clock.ahead += timedelta(days=60)
    hub.editor().update(record.id, {"last_name": "Vega"})

    def steps():
        return [each.version for each in hub.hub.records.history(DEFAULT_TENANT, "contact", record.id)]

    for _ in range(16):
        sweep(hub, 1)
    assert steps() == [2, 3]
    sweep(hub, 15)
    for _ in range(16):
        sweep(hub, 1)
    assert steps() == [3]


def test_runs_go_after_90_days_with_their_plans_if_they_have_ended(hub):
    engine = hub.hub.engine
    made = {}
    for name, status in (("plan", "succeeded"), ("left", "running")):
        now = int(hub.clock.now().timestamp() * 1000)
        run = Run(layout.newest_first(now, name), "c", "contact", "plan", status=status)
        writer = PlanWriter(engine.blob, DEFAULT_TENANT, run.id, Parts(), "abcdefgh")
        writer.add({"action": "create"})
        made[name] = engine.runs.insert(DEFAULT_TENANT, replace(run, plan=writer.flush().to_json()))
        overtaken = PlanWriter(engine.blob, DEFAULT_TENANT, run.id, Parts(), "overtook")
        overtaken.add({"action": "create"})
        overtaken.flush()
    sweep(hub, 89)
    assert all(engine.runs.get(DEFAULT_TENANT, each.id) for each in made.values())
    sweep(hub, 2)
    assert engine.runs.get(DEFAULT_TENANT, made["plan"].id) is None
    assert engine.runs.get(DEFAULT_TENANT, made["left"].id) is not None

    def kept(run):
        parts = Parts.from_json(run.plan)
        return list(PlanReader(engine.blob, DEFAULT_TENANT, run.id, parts).every())

    assert [len(kept(each)) for each in made.values()] == [0, 1]
    left = f"runs/{DEFAULT_TENANT.name}/{made['left'].id}/plan/"
    assert [name.startswith(left) for name in engine.blob._blobs] == [True] * 4


def test_a_run_that_took_long_goes_90_days_after_its_end(hub):
    engine = hub.hub.engine
    now = int(hub.clock.now().timestamp() * 1000)
    run = Run(layout.newest_first(now, "long"), "c", "contact", "full", status="running")
    run = engine.runs.insert(DEFAULT_TENANT, run)
    sweep(hub, 100)
    engine.runs.save(DEFAULT_TENANT, replace(run, status="succeeded", ended_at=hub.now()))
    sweep(hub, 89)
    assert engine.runs.get(DEFAULT_TENANT, run.id) is not None
    sweep(hub, 2)
    assert engine.runs.get(DEFAULT_TENANT, run.id) is None


@pytest.mark.parametrize("first", ["parent", "child"])
def test_a_parent_stays_as_long_as_one_of_its_runs(hub, first):
    """Whichever of them is looked at first."""
    engine = hub.hub.engine
    now = int(hub.clock.now().timestamp() * 1000)

    def made(name, **more):
        time = now + (name == first)
        run = Run(layout.newest_first(time, name), "c", "contact", "full", **more)
        return engine.runs.insert(DEFAULT_TENANT, run)

    stopped = made("child", status="stopped")
    ended = made("ended", status="succeeded", ended_at=hub.now())
    parent = made("parent", children=(ended.id, stopped.id))

    def left():
        there = [run for run in (stopped, ended, parent) if engine.runs.get(DEFAULT_TENANT, run.id)]
        return [run.id.rpartition("-")[2] for run in there]

    sweep(hub, 200)
    assert left() == ["child", "parent"]
    engine.runs.save(DEFAULT_TENANT, replace(stopped, status="failed", ended_at=hub.now()))
    sweep(hub, 89)
    assert left() == ["child", "parent"]
    sweep(hub, 2)
    sweep(hub, 1)
    assert left() == []


def test_all_that_workers_left_of_any_run_goes_with_it(hub):
    engine = hub.hub.engine
    now = int(hub.clock.now().timestamp() * 1000)
    modes = [mode for mode in get_args(Mode) if mode not in ("incremental", "push", "resolve")]
    for number, mode in enumerate(modes):
        run_id = layout.newest_first(now + number, "a")
        engine.runs.insert(DEFAULT_TENANT, Run(run_id, "c", "contact", mode, status="failed"))
        for name in (
            "items",
            "outcomes/0000-x",
            "000000-aa/000000",
            "123456-aa/123456",
            "plan/000000-x/000000",
        ):
            engine.blob.put(f"runs/{DEFAULT_TENANT.name}/{run_id}/{name}", b"x")
    sweep(hub, 91)
    assert engine.runs.page(DEFAULT_TENANT, top=10, token=None)[0] == []
    assert dict(engine.blob._blobs) == {}


def test_a_slice_whose_time_is_up_tells_the_next_one_how_far_it_came(hub):
    app = App(hub)
    engine = hub.hub.engine
    now = int(hub.clock.now().timestamp() * 1000)
    for number in range(450):
        came = Inbound(layout.newest_first(now + number, hub.hub.ids.uuid()), hub.now(), "", {}, b"{}")
        engine.events.end(DEFAULT_TENANT, app.connection.uid, came, "done", "about nothing here")
    hub.clock.ahead += timedelta(days=31)
    engine = replace(engine, tuning=replace(engine.tuning, bulk_slice_seconds=-1))
    retention(engine, JOB, layout.BULK)
    messages = 0
    while rows(hub, layout.EVENT):
        (message,) = hub.queue.receive(layout.BULK)
        job = Job.from_message(message.body)
        hub.queue.delete(layout.BULK, message)
        retention(engine, job, layout.BULK)
        messages += 1
        assert messages < 30
    assert messages > 3
