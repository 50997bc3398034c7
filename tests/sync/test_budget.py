"""The budget of calls between lanes: bulk work that has to wait holds up neither fresh changes nor callers."""

from datetime import timedelta

import pytest

from crm_core.connector import Spent, Window
from crm_core.connectors.dynamics365 import Dynamics365
from crm_core.model.connection import DEFAULT_TENANT
from crm_core.ports import measured
from crm_core.storage import layout
from crm_core.storage.ledger import StoredLedger
from tests.sync.test_webhooks import ahead  # noqa: F401  # a fixture

CALLS = 100


@pytest.fixture
def small(ahead, monkeypatch):  # noqa: F811  # pytest's way
    """(bench, clock), at a system that allows 100 calls in 5 minutes: 80 of bulk work, 95 of fresh."""
    monkeypatch.setattr(Dynamics365, "windows", (Window("burst", CALLS, 300),))
    bench, clock = ahead
    over = clock.now().timestamp() % 300
    clock.ahead = timedelta(seconds=301 - over)  # so that no window ends in the test by itself
    bench.connect()
    bench.pull()
    return bench, clock


def ledger(bench):
    return StoredLedger(bench.hub.table)


def number(clock):
    return int(clock.now().timestamp() // 300)


def leave(bench, clock, left):
    """Other instances have spent all but so many."""
    taken = ledger(bench).spent("default", bench.connection.uid, "burst", number(clock)).now
    ledger(bench).take(
        "default", bench.connection.uid, "burst", number(clock), CALLS - left - taken, CALLS, 1.0
    )


def drain(bench, lane):
    """The instance has used up what it took for itself."""
    from crm_core.errors import OverBudget
    from crm_core.ports import lane_of

    token = lane_of.set(lane)
    try:
        for _ in range(10):
            bench.opened.connector.rest._budget.take()
    except OverBudget:
        pass
    finally:
        lane_of.reset(token)


def handle(bench, lane):
    (message,) = bench.queue.receive(lane)
    bench.hub.handle(lane, message.body, 1)
    assert bench.queue.delete(lane, message)


def test_a_pull_with_nothing_new_costs_what_it_did(small):
    bench, _ = small
    bench.due()
    bench.hub.tick()
    with measured() as meter:
        bench.work()
    assert (meter.total("remote_calls"), meter.total("storage_calls")) == (1, 2)


def test_bulk_waits_in_its_lane_while_fresh_changes_come(small):
    bench, clock = small
    rid = bench.remote.create("Contoso")
    leave(bench, clock, 18)
    drain(bench, "bulk")
    run = bench.hub.start_run(DEFAULT_TENANT, "demo", [], "full", "key:test")
    (message,) = bench.queue.receive(layout.FRESH)
    bench.queue.delete(layout.FRESH, message)
    bench.queue.send(layout.BULK, message.body)
    calls = bench.remote.requests()
    handle(bench, layout.BULK)
    assert bench.remote.requests() == calls
    assert (bench.run(run.id).status, bench.run(run.id).problem.code) == ("running", "OverBudget")
    assert (bench.health().health, bench.health().not_before) == ("ok", "")
    wait = bench.queue.next_visible(layout.BULK) - clock.now()
    assert timedelta(seconds=30) < wait < timedelta(seconds=600)
    assert bench.queue.next_visible(layout.FRESH) is None
    bench.due()
    bench.hub.tick()
    handle(bench, layout.FRESH)
    assert bench.stored()[rid].fields["name"] == "Contoso"
    clock.ahead += wait + timedelta(seconds=1)
    bench.work()
    assert bench.run(run.id).status == "succeeded"


def test_fresh_work_waits_too_where_nearly_nothing_is_left_and_callers_do_not(small):
    bench, clock = small
    leave(bench, clock, 5)
    drain(bench, "fresh")
    bench.due()
    bench.hub.tick()
    calls = bench.remote.requests()
    handle(bench, layout.FRESH)
    assert bench.remote.requests() == calls
    assert bench.state().problem.code == "OverBudget"
    assert bench.health().not_before > bench.state().problem.time
    assert bench.hub.tick() == 0  # nobody is sent there for nothing
    assert bench.opened.connector.check()
    assert bench.remote.requests() == calls + 1
    clock.ahead += timedelta(minutes=10)
    bench.hub.tick()
    bench.work()
    assert bench.state().problem is None


def test_it_is_forgotten_with_the_connection(small):
    bench, clock = small
    leave(bench, clock, 50)
    told = bench.hub.budget(bench.connection)
    assert [(each["window"], each["calls"], each["left"]) for each in told] == [("burst", CALLS, 50)]
    bench.hub.admin.delete(bench.connection)
    assert ledger(bench).spent("default", bench.connection.uid, "burst", number(clock)) == Spent()
