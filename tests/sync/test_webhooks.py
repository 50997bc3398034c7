"""Webhooks from the address to the record: what each step costs, and what is left when a worker dies in between."""

import json
import uuid
from contextlib import closing
from datetime import timedelta

import pytest

from crm_core.connection_admin import Wanted
from crm_core.connector import Hook
from crm_core.errors import Conflict, SignatureInvalid
from crm_core.hub import Hub
from crm_core.model.connection import DEFAULT_TENANT
from crm_core.model.fields import hub_time
from crm_core.model.record import Record
from crm_core.ports import measured
from crm_core.settings import load
from crm_core.storage import layout
from crm_core.storage.events import Inbound
from crm_core.storage.memory import MemoryBlob, MemoryQueue, MemoryTable
from crm_core.sync import intake
from tests.sync.conftest import SECRET, Bench, environment
from tests.sync.pairs import SOON, AheadClock
from tests.sync.test_crash import crashing_work, points  # noqa: F401  # a fixture

KEY = "a-key-of-webhooks"


def post_of(rid, table="account", message="Update", **more):
    return {
        "MessageName": message, "OperationCreatedOn": "/Date(1767607872000)/", "OperationId": str(uuid.uuid4()),
        "PrimaryEntityName": table, "PrimaryEntityId": rid, **more,
    }  # fmt: skip


def hooked(bench, **wanted):
    """Connects with a key; gives the address."""
    bench.connect(**wanted)
    bench.pull()
    saved = bench.hub.admin.update(bench.connection, Wanted(secrets={"webhook_key": KEY}))
    bench.connection = bench.hub.hooks.renew(saved, at_once=False)
    bench.hub.forget(bench.connection)
    (address,) = bench.connection.hooks
    return address


def send(bench, address, body, key=KEY):
    """Gives the event's id."""
    sent = Hook({"content-type": "application/json", "x-hub-token": key}, {}, json.dumps(body).encode())
    found = bench.hub.receiver.receive(address, sent, "1.2.3.4")
    assert isinstance(found, str)
    return found


def event(bench, event_id):
    return bench.hub.engine.events.get(DEFAULT_TENANT, bench.connection.uid, event_id)


def left(bench):
    """What is open: of events, and of hints."""
    rows = bench.hub.table.query(layout.EVENTS).rows
    return sorted(
        row.rk
        for row in rows
        if row.rk.startswith(layout.OPEN) or ("~hint~" in row.pk and not row.rk.endswith(layout.HEARD))
    )


def test_a_webhook_costs_one_storage_call_at_its_intake_and_a_long_one_two(bench):
    address = hooked(bench)
    rid = bench.remote.create("Contoso")
    send(bench, address, {})  # whose address it is, and the connection, are known for a minute
    with measured() as meter:
        for _ in range(10):
            send(bench, address, post_of(rid))
    assert meter.total("storage_calls") == 10
    assert meter.total("webhooks_accepted") == 10
    send(bench, address, post_of(rid, Padding="x" * 60_000))  # makes the container
    with measured() as meter:
        send(bench, address, post_of(rid, Padding="x" * 60_000))
    assert meter.total("storage_calls") == 2


def test_its_work_costs_few(memory_bench):
    """The row; whether the change is done; the hint; the end. Then the read, once for all of them."""
    bench = memory_bench
    address = hooked(bench)
    rid = bench.remote.create("Contoso")
    send(
        bench, address, post_of(bench.remote.create("First"))
    )  # what is asked once for a connection, is asked
    bench.work()
    for _ in range(5):
        send(bench, address, post_of(rid))
    calls = bench.remote.requests()
    with measured() as meter:
        for message in bench.queue.receive(layout.FRESH, limit=5):
            bench.hub.handle(layout.FRESH, message.body, 1)
            assert bench.queue.delete(layout.FRESH, message)
    assert meter.total("storage_calls") == 5 * 4 + 4 + 1  # a hint that is there is written again; one message
    bench.work()
    assert bench.remote.requests() - calls == 1
    assert bench.stored()[rid].fields["name"] == "Contoso"
    assert left(bench) == []


@pytest.mark.parametrize("memory_bench", [{"LEASE_SECONDS": "0.001"}], indirect=True)
def test_a_crash_at_any_call_loses_nothing_and_does_nothing_twice(memory_bench, points, monkeypatch):  # noqa: F811
    """A worker that dies before or after any of its calls, and the message comes again; then a redelivery."""
    monkeypatch.setattr("crm_core.sync.schedule.OVERDUE_SECONDS", -1.0)
    bench = memory_bench
    bench.remote.options(limits={"requests": 10**9, "seconds": 10**9})
    rid = bench.remote.create("Name")
    address = hooked(bench)
    at = 0
    crashed = True
    while crashed:
        bench.remote.update(rid, name=f"Name {at}")
        sent = send(bench, address, post_of(rid))
        (message,) = bench.queue.receive(layout.FRESH)
        bench.queue.release(layout.FRESH, message)
        crashed = crashing_work(bench, points, at)
        bench.work()
        bench.hub.tick()
        bench.work()
        record = bench.stored()[rid]
        assert (record.fields["name"], record.version) == (f"Name {at}", at + 2), f"crash at call {at}"
        assert event(bench, sent).state == "done"
        assert left(bench) == []
        calls = bench.remote.requests()
        bench.hub.handle(layout.FRESH, message.body, 2)  # the same message once more
        bench.work()
        assert bench.remote.requests() == calls
        at += 1
    assert at > 15
    assert bench.dead_letters() == []


def test_an_event_whose_message_is_lost_is_found_by_the_tick(memory_bench):
    bench = memory_bench
    hooked(bench)
    rid = bench.remote.create("Contoso")
    lost = Inbound("1-lost", "2020-01-01T00:00:00Z", "p", {}, json.dumps(post_of(rid)).encode())
    new = Inbound("2-new", hub_time(bench.hub.clock.now()), "p", {}, lost.body)
    for each in (lost, new):
        bench.hub.engine.events.open(DEFAULT_TENANT, bench.connection.uid, each)
    bench.hub.tick()
    bench.work()
    assert (event(bench, "1-lost").state, event(bench, "2-new").state) == ("done", "open")
    assert bench.stored()[rid].fields["name"] == "Contoso"


def test_the_tick_asks_for_webhooks_only_where_they_may_come(memory_bench):
    bench = memory_bench
    bench.connect()
    bench.pull()
    bench.hub.tick()
    with measured() as before:
        bench.hub.tick()
    bench.hub.hooks.renew(bench.connection, at_once=False)
    with measured() as after:
        bench.hub.tick()
    assert after.total("storage_calls") == before.total("storage_calls") + 2


def test_an_event_that_fails_at_every_delivery_is_dead_and_stays_so(memory_bench, monkeypatch):
    bench = memory_bench
    address = hooked(bench)
    rid = bench.remote.create("Contoso")
    sent = send(bench, address, post_of(rid))
    (message,) = bench.queue.receive(layout.FRESH)

    def broken(_):
        raise ZeroDivisionError

    connector = type(bench.opened.connector)
    with monkeypatch.context() as patch:
        patch.setattr(connector, "parse", lambda *_: broken(_))
        with pytest.raises(ZeroDivisionError):
            bench.hub.handle(layout.FRESH, message.body, 5)
    assert event(bench, sent).state == "open"
    bench.hub.poisoned(layout.FRESH, message.body)
    bench.queue.delete(layout.FRESH, message)
    assert event(bench, sent).state == "dead"
    (letter,) = bench.dead_letters()
    assert (letter["kind"], letter["connection"]) == ("event", bench.connection.uid)
    bench.hub.handle(layout.FRESH, message.body, 1)  # only a person opens it again
    bench.hub.tick()
    bench.work()
    assert event(bench, sent).state == "dead"
    assert rid not in bench.stored()
    assert left(bench) == []
    found = event(bench, sent)
    intake.replay(bench.hub.engine, DEFAULT_TENANT, bench.connection.uid, found)
    with pytest.raises(Conflict):
        intake.replay(bench.hub.engine, DEFAULT_TENANT, bench.connection.uid, found)  # as it was before
    with pytest.raises(Conflict):
        intake.replay(bench.hub.engine, DEFAULT_TENANT, bench.connection.uid, event(bench, sent))
    bench.work()
    assert event(bench, sent).state == "done"
    assert bench.stored()[rid].fields["name"] == "Contoso"
    assert left(bench) == []


def test_a_record_that_is_announced_again_while_it_is_read_is_read_again(memory_bench, monkeypatch):
    bench = memory_bench
    address = hooked(bench)
    rid = bench.remote.create("Before")
    send(bench, address, post_of(rid))
    connector = type(bench.opened.connector)
    read = connector.get_many

    def and_again(self, entity, rids):
        found = read(self, entity, rids)
        monkeypatch.setattr(connector, "get_many", read)
        bench.remote.update(rid, name="After")
        bench.hub.engine.hints.add(
            DEFAULT_TENANT, bench.connection.uid, entity, list(rids), "2026-01-01T00:00:00Z"
        )
        return found

    monkeypatch.setattr(connector, "get_many", and_again)
    bench.work()
    assert bench.stored()[rid].fields["name"] == "Before"
    assert left(bench) == [f"account~{rid}", "~account"]
    bench.hub.tick()  # sooner than its own message, which waits two seconds
    bench.work()
    assert bench.stored()[rid].fields["name"] == "After"
    assert left(bench) == []


def test_a_hint_that_comes_just_before_the_worker_leaves_is_read(memory_bench, monkeypatch):
    """Whoever brings it finds a worker called, and calls none."""
    bench = memory_bench
    address = hooked(bench)
    first, last = bench.remote.create("First"), bench.remote.create("Last")
    send(bench, address, post_of(first))
    hints = bench.hub.engine.hints
    look, called = hints.of, []

    def and_one_more(*args):
        found = look(*args)
        if not found and not called:
            called.append(
                hints.add(DEFAULT_TENANT, bench.connection.uid, "account", [last], "2026-01-01T00:00:00Z")
            )
        return found

    monkeypatch.setattr(hints, "of", and_one_more)
    bench.work()
    assert called == [False]
    assert {first, last} <= bench.stored().keys()
    assert left(bench) == []


@pytest.fixture
def ahead(remote):
    """A bench, and its clock, which can be put forward."""
    clock = AheadClock()
    queue = MemoryQueue(clock)
    settings = {**environment("UseDevelopmentStorage=true", remote), **SOON}
    hub = Hub(load(settings), clock=clock, table=MemoryTable(), queue=queue, blob=MemoryBlob())
    with closing(hub):
        yield Bench(hub, remote, queue), clock


@pytest.mark.parametrize("kind", ["unavailable", "throttle"])
def test_while_the_system_does_not_answer_everything_stays(ahead, remote, kind):
    bench, clock = ahead
    address = hooked(bench)
    rid = remote.create("Contoso")
    fault = {"unavailable": ("status", {"status": 503}), "throttle": ("throttle", {})}[kind]
    remote.fault(fault[0], **fault[1])
    sent = send(bench, address, post_of(rid))
    bench.work()
    assert event(bench, sent).state == "done"
    assert left(bench) == [f"account~{rid}", "~account"]
    remote.clear_faults()
    for _ in range(60):
        clock.ahead += timedelta(minutes=1)
        bench.hub.tick()
        bench.work()
    assert bench.stored()[rid].fields["name"] == "Contoso"
    assert left(bench) == []


def test_a_former_address_is_good_for_a_day(ahead):
    bench, clock = ahead
    old = hooked(bench)
    bench.connection = bench.hub.hooks.renew(bench.connection, at_once=False)
    bench.hub.forget(bench.connection)
    (new,) = bench.connection.hooks.keys() - {old}
    clock.ahead = timedelta(hours=23, minutes=59)
    for each in (old, new):
        send(bench, each, {})
    clock.ahead = timedelta(hours=24, minutes=1)
    send(bench, new, {})
    with pytest.raises(SignatureInvalid):
        send(bench, old, {})
    bench.connection = bench.hub.hooks.renew(bench.connection, at_once=False)
    assert bench.hub.keys.owner_of(old) is None
    assert bench.hub.keys.owner_of(new) == (DEFAULT_TENANT, bench.connection.uid)


def test_only_some_former_addresses_are_kept(ahead):
    bench, clock = ahead
    made = [hooked(bench)]
    for _ in range(7):
        clock.ahead += timedelta(minutes=1)
        bench.connection = bench.hub.hooks.renew(bench.connection, at_once=False)
        made += bench.connection.hooks.keys() - set(made)
    assert set(bench.connection.hooks) == set(made[-6:])
    owned = {each for each in made if bench.hub.keys.owner_of(each)}
    assert owned == set(made[-6:])


def test_who_loses_to_another_change_leaves_no_address(memory_bench):
    bench = memory_bench
    hooked(bench)
    old = bench.connection
    bench.connection = bench.hub.admin.pause(old, paused=True)
    with pytest.raises(Conflict):
        bench.hub.hooks.renew(old, at_once=False)
    rows = bench.hub.table.query(layout.KEYS).rows
    assert {row.rk for row in rows if row.pk.startswith("~hook~")} == set(old.hooks)


def test_one_that_can_t_be_opened_keeps_its_events_for_a_person(memory_bench, monkeypatch):
    monkeypatch.setattr("crm_core.sync.schedule.OVERDUE_SECONDS", -1.0)
    bench = memory_bench
    address = hooked(bench)
    rid = bench.remote.create("Contoso")
    sent = send(bench, address, post_of(rid))
    bench.hub.secrets.delete("default", bench.connection.uid)
    bench.hub.forget(bench.connection)
    bench.work()
    assert bench.health().health == "needs_attention"
    assert event(bench, sent).state == "open"
    secrets = {"client_secret": SECRET, "webhook_key": KEY}
    bench.hub.forget(bench.hub.admin.update(bench.connection, Wanted(secrets=secrets)))
    assert bench.health().hooked
    bench.hub.tick()
    bench.work()
    assert event(bench, sent).state == "done"
    assert bench.stored()[rid].fields["name"] == "Contoso"


def test_a_deleted_connection_leaves_nothing_open(memory_bench):
    bench = memory_bench
    address = hooked(bench)
    rid = bench.remote.create("Contoso")
    sent = send(bench, address, post_of(rid))
    bench.hub.engine.hints.add(DEFAULT_TENANT, bench.connection.uid, "account", [rid], "2026-01-01T00:00:00Z")
    bench.hub.admin.delete(bench.connection)
    bench.hub.hooks.forget(bench.connection)
    bench.hub.forget(bench.connection)
    bench.work()
    assert event(bench, sent).outcome == "the connection is gone"
    assert left(bench) == []
    with pytest.raises(SignatureInvalid):
        send(bench, address, {})


def test_what_the_hub_wrote_itself_comes_back_and_changes_nothing(memory_bench):
    bench = memory_bench
    address = hooked(bench, entities={"account": "both"})
    editor = bench.hub.editor(DEFAULT_TENANT, bench.opened.connector.entity_map("account").entity, "key:test")
    made = editor.create({"name": "Ours"})
    bench.work()
    (rid,) = bench.remote.rows()
    before = bench.hub.records.get(DEFAULT_TENANT, "account", made.id)
    calls = bench.remote.requests()
    send(bench, address, post_of(rid, message="Create"))
    bench.work()
    after = bench.hub.records.get(DEFAULT_TENANT, "account", made.id)
    assert isinstance(after.content, Record)
    assert after.content.version == before.content.version
    assert bench.remote.requests() - calls == 1  # the read, and no write
    assert len(bench.remote.rows()) == 1
    assert left(bench) == []


def test_a_delete_by_webhook_does_not_take_what_came_back(memory_bench):
    """What is there when it is read, is there: a webhook that says otherwise is late."""
    bench = memory_bench
    rid = bench.remote.create("Contoso")
    address = hooked(bench)
    send(bench, address, post_of(rid, message="Delete"))
    bench.work()
    assert "deleted_at" not in bench.stored()[rid].fields
    bench.remote.delete(rid)
    send(bench, address, post_of(rid, message="Update"))
    bench.work()
    assert bench.stored()[rid].fields["deleted_at"]


def test_what_is_pushed_only_is_not_read(memory_bench):
    bench = memory_bench
    address = hooked(bench, entities={"account": "pull", "contact": "push"})
    sent = send(bench, address, post_of(str(uuid.uuid4()), "contact"))
    calls = bench.remote.requests()
    bench.work()
    assert event(bench, sent).state == "done"
    assert bench.remote.requests() == calls
    assert left(bench) == []
