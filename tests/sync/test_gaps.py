"""Changes that pulls find and no webhook told of: counted once, and not where a webhook is on its way or could not be."""

from datetime import timedelta

import pytest

from crm_core.model.connection import DEFAULT_TENANT
from crm_core.model.entities import ENTITIES
from crm_core.model.fields import hub_time
from crm_core.model.state import ConnectionState, EntityState
from crm_core.ports import measured
from crm_core.storage.hints import Heard
from crm_core.sync.gaps import word
from tests.sync.test_webhooks import ahead, hooked, left, post_of, send  # noqa: F401  # a fixture

LATER = timedelta(minutes=5)


@pytest.fixture
def told(ahead):  # noqa: F811  # pytest's way
    """A bench with an address for webhooks, its clock, the address."""
    bench, clock = ahead
    address = hooked(bench)
    pass_on(bench, clock, timedelta(minutes=1))
    return bench, clock, address


def pass_on(bench, clock, time=LATER):
    """So much time passes, here and at the remote."""
    clock.ahead += time
    bench.remote.control("POST", "clock", {"advance": time.total_seconds()})


def heard(bench, entity="account"):
    return bench.hub.engine.hints.heard(DEFAULT_TENANT, bench.connection.uid).get(entity, Heard())


def poll(bench):
    """A pull of the schedule."""
    bench.due()
    bench.hub.tick()
    bench.work()
    assert bench.state().problem is None


def test_what_a_webhook_told_of_is_not_missed(told):
    bench, clock, address = told
    rid = bench.remote.create("Contoso")
    send(bench, address, post_of(rid))
    bench.work()
    pass_on(bench, clock)
    poll(bench)
    assert rid in bench.stored()
    assert (bench.state().missed, heard(bench).read) == (0, 1)
    assert heard(bench).time > bench.health().hooked_at
    for _ in range(3):
        bench.remote.update(rid, name="Again")
        send(bench, address, post_of(rid))
        bench.work()
    assert heard(bench).read == 4
    assert left(bench) == []


def test_what_none_told_of_is_counted_once(told):
    bench, clock, _ = told
    for name in ("One", "Two"):
        bench.remote.create(name)
    pass_on(bench, clock)
    poll(bench)
    state = bench.state()
    assert (state.missed, state.unsure) == (2, {})
    assert state.missed_at
    poll(bench)
    assert bench.state().missed == 2
    rid = bench.remote.create("Three")
    pass_on(bench, clock)
    poll(bench)
    assert bench.state().missed == 3
    bench.remote.delete(rid)  # nobody tells when
    poll(bench)
    pass_on(bench, clock)
    poll(bench)
    assert bench.state().missed == 4


@pytest.mark.parametrize(("comes", "missed"), [(True, 0), (False, 1)])
def test_what_changed_just_now_is_judged_by_a_later_pull(told, comes, missed):
    bench, clock, address = told
    rid = bench.remote.create("Contoso")
    poll(bench)
    assert (bench.state().missed, bench.state().unsure["n"]) == (0, 1)
    if comes:  # after the pull that found it
        send(bench, address, post_of(rid))
        bench.work()
    poll(bench)
    assert bench.state().unsure["n"] == 1
    pass_on(bench, clock)
    poll(bench)  # that finds nothing
    assert (bench.state().missed, bench.state().unsure) == (missed, {})


def test_pulls_each_minute_that_always_find_something_tell_it_too(told):
    bench, clock, _ = told
    for minute in range(6):
        bench.remote.create(f"Row {minute}")
        pass_on(bench, clock, timedelta(minutes=1))
        poll(bench)
    assert bench.state().missed >= 3


def test_what_is_to_be_read_again_anyway_is_not_missed(told):
    """Its webhook came; the read waits."""
    bench, clock, _ = told
    rid = bench.remote.create("Contoso")
    bench.hub.engine.hints.add(DEFAULT_TENANT, bench.connection.uid, "account", [rid], hub_time(clock.now()))
    pass_on(bench, clock)
    bench.pull()
    assert rid in bench.stored()
    assert (bench.state().missed, bench.state().unsure) == (0, {})
    assert heard(bench).time  # though nobody has worked on it


def test_what_changed_before_there_was_an_address_is_not_missed(ahead):  # noqa: F811  # pytest's way
    bench, clock = ahead
    bench.connect()
    bench.pull()
    bench.remote.create("Before")
    pass_on(bench, clock)
    bench.connection = bench.hub.hooks.renew(bench.connection, at_once=False)
    bench.hub.forget(bench.connection)
    poll(bench)
    assert len(bench.stored()) == 1
    assert (bench.state().missed, bench.state().unsure) == (0, {})
    since = bench.health().hooked_at
    bench.connection = bench.hub.hooks.renew(bench.connection, at_once=False)
    assert bench.health().hooked_at == since
    bench.connection = bench.hub.hooks.remove(bench.connection)
    pass_on(bench, clock)
    bench.hub.hooks.renew(bench.connection, at_once=False)
    assert bench.health().hooked_at > since


def test_what_the_hub_wrote_itself_is_not_missed(ahead):  # noqa: F811  # pytest's way
    bench, clock = ahead
    hooked(bench, entities={"account": "both"})
    editor = bench.hub.editor(DEFAULT_TENANT, ENTITIES["account"], "key:test")
    made = editor.create({"name": "Ours"})
    bench.work()
    editor.update(made.id, {"phone": "2"})
    bench.work()
    pass_on(bench, clock)
    poll(bench)
    assert len(bench.remote.rows()) == 1
    assert (bench.state().missed, bench.state().unsure) == (0, {})


def test_it_costs_one_query_where_something_is_new_and_nothing_without_an_address(ahead):  # noqa: F811  # pytest's way
    bench, clock = ahead
    bench.connect()
    bench.pull()

    def cost(*names):
        for name in names:
            bench.remote.create(name)
        pass_on(bench, clock)
        bench.due()
        bench.hub.tick()
        bench.hub.open(DEFAULT_TENANT, bench.connection.uid)  # a copy that is fresh, whoever made it
        with measured() as meter:
            bench.work()
        return meter.total("storage_calls")

    cost("First")
    idle, one, many = cost(), cost("One"), cost("Two")
    assert one == many
    assert "unsure" not in bench.state().to_json()
    bench.connection = bench.hub.hooks.renew(bench.connection, at_once=False)
    bench.hub.forget(bench.connection)
    cost()
    assert cost() == idle
    assert cost("Three") == one + 1


@pytest.mark.parametrize(
    ("missed_at", "last", "minutes", "expected"),
    [
        ("", "", 0, "quiet"),
        ("", "", 60, "quiet"),
        ("", "12:00", 60, "works"),
        ("11:00", "12:00", 60, "loses some"),
        ("12:01", "12:00", 10, "loses some"),
        ("12:01", "12:00", 16, "silent"),
        ("12:01", "", 2, "loses some"),
        ("12:01", "", 60, "silent"),
        ("11:00", "12:00", 24 * 60, "works"),
    ],
)
def test_it_is_told_in_a_word(missed_at, last, minutes, expected):
    from crm_core.model.fields import parse_instant

    def at(text):
        return f"2026-01-05T{text}:00.000000Z" if text else ""

    state = EntityState(missed=1 if missed_at else 0, missed_at=at(missed_at))
    connection = ConnectionState(hooked=True, hooked_at=at("12:00"))
    now = parse_instant(at("12:00")) + timedelta(minutes=minutes)
    assert word(state, connection, Heard(at(last), 1 if last else 0), now) == expected
