"""Credentials go nowhere else, and are in no log, error or repr."""

import json
import traceback
from dataclasses import replace
from functools import partial

import pytest

from crm_core.connector import Query, Write
from crm_core.errors import BadAnswer, HubError, Misconfigured, error_to_json
from tests.contract.connectors.relay import relayed
from tests.contract.connectors.world import SkippingClock

ELSEWHERE = "https://elsewhere.example"


@pytest.fixture
def entity(world):
    return next(iter(world.connector.entities))


def addresses(world):
    """The settings that say where something is."""
    kind = type(world.connector)
    return [each.name for each in kind.settings if each.kind == "url"]


def test_no_setting_can_send_the_credentials_to_another_origin(world):
    access = world.remote.access(world.remote.origin)
    assert addresses(world)
    for name in addresses(world):
        for address in (ELSEWHERE, "https://10.0.0.7"):
            changed = replace(access, settings={**access.settings, name: address})
            with pytest.raises(Misconfigured) as caught:
                world.open(changed).check()
            assert [each.field for each in caught.value.errors] == [f"settings.{name}"]


def test_a_redirect_is_not_followed(world, entity, relay, thief):
    connector = world.open(world.remote.access(relay.url), clock=SkippingClock())
    made = world.make(world.variant(entity))
    connector.check()
    for status in (301, 302, 307, 308):
        relay.plant("redirect", status=status, headers={"Location": f"{thief.url}/x"})
        with pytest.raises(HubError):
            connector.get(entity, made.rid)
    assert thief.seen == []


def test_a_link_to_another_origin_is_not_followed(world, entity, relay, thief):
    """Only its path and query are taken, or it is refused."""
    connector = world.open(world.remote.access(relay.url), clock=SkippingClock())
    for _ in range(4):
        world.make(world.variant(entity))
    connector.check()
    relay.plant("elsewhere", origin=thief.url, times=1000)
    cursor = None
    try:
        for _ in range(3):
            page = connector.query(entity, Query(top=1, cursor=cursor))
            cursor = page.cursor
            assert cursor is not None
    except BadAnswer:
        pass
    cursor = None
    try:
        for _ in range(3):
            page = connector.changes(entity, cursor, size=1)
            cursor = page.cursor
    except BadAnswer:
        pass
    assert any(each.replaced for each in relay.seen) is world.remote.links
    assert thief.seen == []


@pytest.fixture
def thief(world, started):
    """Another origin, which would let everything in."""
    remote = world.remote
    with relayed(remote.origin, remote.ca, started.certificate, remote.reads, remote.credentials) as other:
        yield other


def test_no_secret_is_in_a_log_an_error_or_a_repr(world, entity, relay, caplog, lines, loud):
    lines()
    loud()
    access = world.remote.access(relay.url)
    connector = world.open(access, clock=SkippingClock())
    made = world.make(world.variant(entity))
    errors = []

    def attempt(call):
        try:
            call()
        except HubError as error:
            errors.append(error)

    attempt(connector.check)
    world.remote.revoke()
    attempt(lambda: connector.get(entity, made.rid))
    for kind in ("reset", "garbage", "html", "status", "redirect"):
        relay.plant(kind, times=3)
        attempt(lambda: connector.get(entity, made.rid))
        relay.faults.clear()
    for status in (400, 401, 403, 404, 409, 429, 500):
        relay.plant("echo", status=status, times=10)
        other = world.open(access, clock=SkippingClock())
        attempt(partial(other.get, entity, made.rid))
        relay.faults.clear()
    attempt(
        lambda: connector.update(entity, made.rid, Write({world.text(world.variant(entity)): "x"}, {"no": 1}))
    )
    wrong = {name: f"{value}-wrong" for name, value in access.secrets.items()}
    attempt(lambda: world.open(replace(access, secrets=wrong)).check())
    assert len(errors) >= 12
    tokens = {relay.credentials(each) for each in relay.seen} - {""}
    assert tokens
    secrets = {*tokens, *access.secrets.values(), *wrong.values()}
    said = [each.getMessage() for each in caplog.records]
    said += [str(each.exc_info) for each in caplog.records if each.exc_info]
    for error in errors:
        said += [str(error), repr(error), json.dumps(error_to_json(error), default=str)]
        said += traceback.format_exception(error)
    said += [repr(each) for each in (access, connector, connector.token(), vars(connector))]
    assert len(said) > 20
    assert not [(secret, text) for text in said for secret in secrets if secret in text]
