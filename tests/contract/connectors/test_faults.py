"""What goes wrong on the way and at the vendor: the right error, and recovery from it."""

import pytest

from crm_core.connector import Connector, Query, Write
from crm_core.errors import AuthFailed, BadAnswer, NotPermitted, RateLimited, Recovery, Unavailable
from crm_core.model.filters import parse_filter
from tests.contract.connectors.world import SkippingClock, unique

LATE = 1.0
"""Seconds that an answer comes after its time is over."""


@pytest.fixture
def entity(world):
    """Any one: faults are the same for all."""
    return next(iter(world.connector.entities))


@pytest.fixture
def wired(world, relay):
    """A connection through the relay, signed in, whose waits take no time."""
    connector = world.open(world.remote.access(relay.url), clock=SkippingClock())
    connector.check()
    relay.clear()
    yield connector
    world.remote.calm()


@pytest.fixture
def made(world, entity):
    return world.make(world.variant(entity))


def name_of(world, entity):
    return world.text(world.variant(entity))


# --- sign-in -----------------------------------------------------------------------------------------------------


def has_tokens(world):
    """Whether the system gives tokens that end; others take the same key with every call."""
    return type(world.connector).token is not Connector.token


def test_a_token_is_asked_for_once_and_proves_who_we_are(world, relay):
    connector = world.open(world.remote.access(relay.url))
    first, second = connector.check(), connector.check()
    assert first == second
    assert first
    facts = connector.token()
    if not has_tokens(world):
        assert facts is None
        return
    assert facts is not None
    assert connector.token() == facts


def test_a_void_token_is_renewed_once_and_the_call_is_repeated(world, entity, made, wired, relay):
    if not has_tokens(world):
        return
    before = wired.token()
    world.remote.revoke()
    assert wired.get(entity, made.rid).fields == made.fields
    assert wired.token().fingerprint != before.fingerprint
    tries = [each for each in relay.seen if each.status == 401]
    assert len(tries) == 1
    relay.clear()
    wired.get(entity, made.rid)
    assert 401 not in {each.status for each in relay.seen}


def test_a_write_with_a_void_token_is_made_once(world, entity, wired):
    if not has_tokens(world):
        return
    name, text = name_of(world, entity), unique("void")
    world.remote.revoke()
    wired.create(entity, Write({**world.least(world.variant(entity)), name: text}))
    assert count(wired, entity, name, text) == 1


def test_refused_with_a_fresh_token_too_is_a_failed_sign_in(world, entity, made, wired, relay):
    relay.plant("status", status=401, times=10)
    with pytest.raises(AuthFailed) as caught:
        wired.get(entity, made.rid)
    assert caught.value.recovery is Recovery.ATTENTION
    refused = [each for each in relay.seen if each.status == 401]
    assert 2 <= len(refused) <= 3 if has_tokens(world) else len(refused) == 1
    relay.clear()
    assert wired.get(entity, made.rid).fields == made.fields


def test_a_wrong_secret_is_a_failed_sign_in(world):
    access = world.remote.access(world.remote.origin)
    wrong = type(access)(access.settings, {name: f"{value}-wrong" for name, value in access.secrets.items()})
    with pytest.raises(AuthFailed):
        world.open(wrong).check()


# --- what the vendor refuses ----------------------------------------------------------------------------------------


def test_a_missing_privilege_is_not_permitted(world, entity, made, wired, able):
    able("forbid")
    world.remote.forbid()
    with pytest.raises(NotPermitted) as caught:
        wired.get(entity, made.rid)
    assert caught.value.recovery is Recovery.ENTITY_WAITS
    assert caught.value.vendor_code
    assert wired.get(entity, made.rid).fields == made.fields


def test_403_is_not_permitted_whatever_its_body(entity, made, wired, relay):
    relay.plant("status", status=403)
    with pytest.raises(NotPermitted):
        wired.get(entity, made.rid)


def test_too_many_calls_wait_as_long_as_the_vendor_says(world, entity, made, wired, able):
    able("throttle")
    world.remote.throttle(30)
    with pytest.raises(RateLimited) as caught:
        wired.get(entity, made.rid)
    assert caught.value.recovery is Recovery.WAIT
    assert caught.value.retry_after == 30
    with pytest.raises(RateLimited):  # nobody of this connection calls before the time
        wired.get(entity, made.rid)


def test_429_by_anybody_on_the_way_is_too_many_calls(entity, made, wired, relay):
    relay.plant("status", status=429, headers={"Retry-After": "17"})
    with pytest.raises(RateLimited) as caught:
        wired.get(entity, made.rid)
    assert caught.value.retry_after == 17
    assert len(relay.seen) == 1


def test_a_short_wait_is_waited_and_the_call_repeated(entity, made, wired, relay):
    relay.plant("status", status=429, headers={"Retry-After": "1"})
    assert wired.get(entity, made.rid).fields == made.fields
    assert [each.status for each in relay.seen[:2]] == [429, 200]


# --- the way there and back -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [500, 502, 503, 504])
def test_a_read_is_repeated_after_5xx_and_then_given_up(entity, made, wired, relay, status):
    relay.plant("status", status=status, times=2)
    assert wired.get(entity, made.rid).fields == made.fields
    relay.plant("status", status=status, times=10)
    with pytest.raises(Unavailable) as caught:
        wired.get(entity, made.rid)
    assert caught.value.recovery is Recovery.RETRY
    assert caught.value.vendor_status == status
    assert caught.value.http_status == (504 if status == 504 else 503)


@pytest.mark.parametrize("kind", ["reset", "reset_after"])
def test_a_read_is_repeated_after_a_reset(entity, made, wired, relay, kind):
    relay.plant(kind, times=2)
    assert wired.get(entity, made.rid).fields == made.fields
    relay.plant(kind, times=10)
    with pytest.raises(Unavailable):
        wired.get(entity, made.rid)


@pytest.mark.parametrize("kind", ["reset", "reset_after"])
def test_a_create_whose_answer_was_lost_is_made_once(world, entity, wired, relay, kind):
    name, text = name_of(world, entity), unique("lost")
    write = Write({**world.least(world.variant(entity)), name: text}, key=own_id())
    relay.plant(kind, writes=True)
    outcome = wired.write_one(entity, write)
    if outcome.error is not None:
        assert outcome.error.outcome_unknown  # to be looked for, not to be sent again blindly
        if wired.found_by(entity) != "id":
            return
        outcome = wired.write_one(entity, write)
    assert wired.get(entity, outcome.change.rid).fields == outcome.change.fields
    assert count(wired, entity, name, text) == 1


@pytest.mark.parametrize("kind", ["reset", "reset_after"])
def test_an_update_whose_answer_was_lost_is_carried_out_or_not_known(world, entity, made, wired, relay, kind):
    name = name_of(world, entity)
    relay.plant(kind, writes=True)
    after = wired.update(entity, made.rid, Write({name: "repeated"}))
    assert after.fields[name] == "repeated"  # a plain update does no harm twice
    if not wired.if_match:
        return
    relay.plant(kind, writes=True)
    with pytest.raises(Unavailable) as caught:  # not sent again: that would look like another's edit
        wired.update(entity, made.rid, Write({name: "guarded"}), if_match=after.etag)
    assert caught.value.outcome_unknown
    relay.clear()
    done = kind == "reset_after"
    assert wired.get(entity, made.rid).fields[name] == ("guarded" if done else "repeated")


@pytest.mark.parametrize("kind", ["reset", "reset_after"])
def test_a_delete_whose_answer_was_lost_is_done(entity, made, wired, relay, kind):
    relay.plant(kind, writes=True)
    wired.delete(entity, made.rid)
    assert wired.get_many(entity, [made.rid]) == {}


@pytest.mark.parametrize("kind", ["reset", "reset_after", "status"])
def test_many_creates_whose_answer_was_lost_are_made_once(world, entity, wired, relay, kind):
    name, text = name_of(world, entity), unique("many")
    least = world.least(world.variant(entity))
    writes = [Write({**least, name: text}, key=own_id()) for _ in range(3)]
    relay.plant(kind, writes=True)
    outcomes = wired.write(entity, writes, world.pool, lambda: True)
    if any(each.error for each in outcomes):
        assert all(each.error.recovery is Recovery.RETRY for each in outcomes if each.error)
        outcomes = wired.write(entity, writes, world.pool, lambda: True)
    assert [each.error for each in outcomes] == [None] * 3
    assert count(wired, entity, name, text) == 3


def test_no_write_is_begun_after_one_that_met_what_all_would_meet(world, entity, wired, relay):
    """The outcomes say which were surely not sent."""
    name, text = name_of(world, entity), unique("stopped")
    least = world.least(world.variant(entity))
    relay.plant("status", status=429, headers={"Retry-After": "60"}, times=1000)
    total = 3 * wired.batch_size
    writes = [Write({**least, name: text}, key=own_id()) for _ in range(total)]
    outcomes = wired.write(entity, writes, world.pool, lambda: True)
    assert {each.error.recovery for each in outcomes} == {Recovery.WAIT}
    relay.clear()
    assert count(world.connector, entity, name, text) == 0


def test_an_answer_that_does_not_come_in_time_is_a_timeout(world, entity, made, relay):
    connector = world.open(world.remote.access(relay.url), deadline=LATE)
    connector.check()
    relay.clear()
    relay.plant("delay", seconds=2 * LATE, times=3)
    with pytest.raises(Unavailable) as caught:
        connector.get(entity, made.rid)
    assert caught.value.timeout
    assert caught.value.http_status == 504


@pytest.mark.parametrize("kind", ["garbage", "html", "half"])
def test_an_answer_that_can_not_be_read_is_a_bad_answer(entity, made, wired, relay, kind):
    relay.plant(kind)
    with pytest.raises(BadAnswer) as caught:
        wired.get(entity, made.rid)
    assert caught.value.recovery is Recovery.PARK
    assert not caught.value.outcome_unknown
    assert wired.get(entity, made.rid).fields == made.fields


@pytest.mark.parametrize("kind", ["garbage", "html", "half"])
def test_a_write_whose_answer_can_not_be_read_may_have_been_carried_out(
    world, entity, made, wired, relay, kind
):
    name = name_of(world, entity)
    relay.plant(kind, writes=True)
    with pytest.raises(BadAnswer) as caught:
        wired.update(entity, made.rid, Write({name: "unread"}))
    assert caught.value.outcome_unknown
    assert wired.get(entity, made.rid).fields[name] == "unread"


@pytest.mark.parametrize("kind", ["garbage", "html", "half", "reset", "status"])
def test_a_page_that_breaks_can_be_asked_for_again(world, entity, wired, relay, kind):
    made = {world.make(world.variant(entity)).rid for _ in range(3)}
    first = wired.changes(entity, None, size=1000)
    relay.plant(kind, times=3)
    with pytest.raises((BadAnswer, Unavailable)):
        wired.changes(entity, first.cursor, size=1000)
    relay.clear()
    wired.changes(entity, first.cursor, size=1000)
    assert made <= {change.rid for change in first.changes}


def own_id():
    return f"0000cccc-0000-4000-8000-{int(unique('').strip()):012d}"


def count(connector, entity, name, text):
    return len(connector.query(entity, Query(parse_filter(f"{name} eq '{text}'"))).items)
