"""What processes keep of a connection, and how all of them lose it: two hubs over one store."""

import threading
from contextlib import closing
from datetime import timedelta

import pytest

from crm_core.errors import Conflict, NotFound
from crm_core.hub import CACHE_SECONDS, Hub
from crm_core.model.connection import DEFAULT_TENANT
from crm_core.ports import RowChanged, measured
from crm_core.storage import layout
from crm_core.system import SystemClock


class Clock(SystemClock):
    """The real clock, plus what a test skips."""

    ahead = 0.0

    def now(self):
        return super().now() + timedelta(seconds=self.ahead)

    def monotonic(self):
        return super().monotonic() + self.ahead


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def hubs(memory_bench, clock):
    """Two instances over the bench's store, with one connection."""
    memory_bench.connect()
    old = memory_bench.hub
    parts = {"table": old.table, "queue": memory_bench.queue, "blob": old.engine.blob, "clock": clock}
    with closing(Hub(old.settings, **parts)) as one, closing(Hub(old.settings, **parts)) as other:
        yield one, other


def fingerprint(hub):
    return hub.connect(DEFAULT_TENANT, "demo").connector.token().fingerprint


def clear(hub):
    return hub.clear_cache(hub.find(DEFAULT_TENANT, "demo"))


def test_an_instance_shares_its_token_with_the_others(hubs):
    one, other = hubs
    assert fingerprint(one) == fingerprint(other)


def test_the_instance_that_clears_forgets_at_once_and_the_others_within_60_seconds(hubs, clock):
    one, other = hubs
    first = fingerprint(one)
    assert fingerprint(other) == first
    held = other.connect(DEFAULT_TENANT, "demo").connector
    assert clear(one).generation == 1
    second = fingerprint(one)
    assert second != first
    # The other one has looked at the connection just now: it goes on with its copy.
    clock.ahead += CACHE_SECONDS - 1
    assert other.connect(DEFAULT_TENANT, "demo").connector is held
    assert fingerprint(other) == first
    clock.ahead += 1
    assert other.connect(DEFAULT_TENANT, "demo").connector is not held
    assert fingerprint(other) == second
    assert fingerprint(one) == second


def test_looking_for_a_new_generation_costs_no_call_of_its_own(hubs, clock):
    """It is in the row that is read every 60 s anyway."""
    one, _ = hubs
    fingerprint(one)
    uid = one.connect(DEFAULT_TENANT, "demo").connection.uid
    with measured() as meter:
        one.open(DEFAULT_TENANT, uid)
    assert meter.total("storage_calls") == 0
    clock.ahead += CACHE_SECONDS
    with measured() as meter:
        one.open(DEFAULT_TENANT, uid)
    assert meter.total("storage_calls") == 1
    assert meter.total("connections_read") == 1


def test_what_the_remote_said_of_itself_is_asked_for_anew(hubs, memory_bench):
    one, _ = hubs

    def described():
        before = memory_bench.remote.requests()
        one.connect(DEFAULT_TENANT, "demo").connector.describe("account")
        return memory_bench.remote.requests() - before

    assert [described(), described()] == [1, 0]
    clear(one)
    assert described() == 1


def test_a_copy_that_was_read_before_the_clearing_is_not_kept_after_it(hubs, monkeypatch):
    """A thread that reads the connection while another clears: it may use its copy once, but nobody else does."""
    one, _ = hubs
    read, cleared = threading.Event(), threading.Event()
    get = one.connections.get

    def slow(tenant, uid):
        found = get(tenant, uid)
        if threading.current_thread() is reader:
            read.set()
            assert cleared.wait(10)
        return found

    opened = []
    uid = one.find(DEFAULT_TENANT, "demo").uid
    reader = threading.Thread(target=lambda: opened.append(one.open(DEFAULT_TENANT, uid)))
    monkeypatch.setattr(one.connections, "get", slow)
    reader.start()
    assert read.wait(10)
    clear(one)
    cleared.set()
    reader.join(10)
    assert opened[0].connection.generation == 0
    assert one.open(DEFAULT_TENANT, uid).connection.generation == 1


def test_a_copy_that_was_read_before_a_change_here_is_not_kept_after_it(hubs, monkeypatch):
    """Who resumes a connection and then asks for a run must not hear that it is paused."""
    one, _ = hubs
    found = one.admin.pause(one.find(DEFAULT_TENANT, "demo"), paused=True)
    one.forget(found)
    get = one.connections.get

    def resumed_meanwhile(tenant, uid):
        before = get(tenant, uid)
        monkeypatch.setattr(one.connections, "get", get)
        one.forget(one.admin.pause(before, paused=False))
        return before

    monkeypatch.setattr(one.connections, "get", resumed_meanwhile)
    assert one.open(DEFAULT_TENANT, found.uid).connection.paused
    assert not one.open(DEFAULT_TENANT, found.uid).connection.paused


def test_who_sees_the_new_generation_finds_no_old_token(hubs, monkeypatch):
    """The other instance reads the connection's row at the very moment when it is new."""
    one, other = hubs
    first = fingerprint(one)
    save = one.connections.save
    seen = []

    def watched(connection):
        saved = save(connection)
        seen.append(fingerprint(other))
        return saved

    monkeypatch.setattr(one.connections, "save", watched)
    clear(one)
    assert seen[0] != first
    assert fingerprint(one) == seen[0]


def test_a_change_by_somebody_else_at_the_same_time_stays(hubs, monkeypatch):
    one, other = hubs
    get = one.connections.get
    losses = iter([True])

    def raced(tenant, uid):
        found = get(tenant, uid)
        if next(losses, False):
            other.admin.pause(other.find(DEFAULT_TENANT, "demo"), paused=True)
        return found

    connection = one.find(DEFAULT_TENANT, "demo")
    monkeypatch.setattr(one.connections, "get", raced)
    assert one.clear_cache(connection).generation == 1
    stored = other.find(DEFAULT_TENANT, "demo")
    assert (stored.paused, stored.generation) == (True, 1)


def test_a_connection_that_others_change_all_the_time_is_a_conflict(hubs, monkeypatch):
    one, _ = hubs

    def lost(_):
        raise RowChanged

    monkeypatch.setattr(one.connections, "save", lost)
    with pytest.raises(Conflict, match="try again"):
        clear(one)


def test_a_connection_that_is_gone_can_t_be_cleared(hubs):
    one, other = hubs
    connection = one.find(DEFAULT_TENANT, "demo")
    other.admin.delete(connection)
    with pytest.raises(NotFound, match="demo"):
        one.clear_cache(connection)
    assert not one.table.query(layout.SECRETS).rows
