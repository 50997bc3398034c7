"""Figures by the minute: written by each instance for itself, read as sums of a period."""

from datetime import UTC, datetime, timedelta

import pytest

from crm_core.errors import BadRequest
from crm_core.model.connection import DEFAULT_TENANT, Tenant
from crm_core.ports import measured
from crm_core.storage import journal
from crm_core.storage.journal import Stats
from crm_core.storage.memory import MemoryTable

ONE, OTHER = "5f0c7f4e-0000-4000-8000-000000000001", "5f0c7f4e-0000-4000-8000-000000000002"
MIDNIGHT = datetime(2026, 3, 1, tzinfo=UTC)


class SetClock:
    time = MIDNIGHT

    def now(self):
        return self.time


@pytest.fixture
def clock():
    return SetClock()


@pytest.fixture
def table():
    return MemoryTable()


@pytest.fixture
def add(table, clock):
    """Adds figures at a minute after midnight, as an instance."""

    def call(minute, connection=ONE, instance="a", tenant=DEFAULT_TENANT, **amounts):
        clock.time = MIDNIGHT + timedelta(minutes=minute, seconds=59)
        Stats(table, clock, instance).add(tenant, connection, amounts)

    return call


@pytest.fixture
def read(table, clock):
    def call(first, last, tenant=DEFAULT_TENANT):
        begin, end = (MIDNIGHT + timedelta(minutes=each) for each in (first, last))
        return Stats(table, clock, "reader").read(tenant, begin, end)

    return call


def test_a_period_is_the_sum_of_its_minutes_over_all_instances(add, read):
    add(0, remote_calls=1)
    add(1, remote_calls=2, tokens_asked=1)
    add(1, remote_calls=4)
    add(1, instance="b", remote_calls=8)
    add(2, remote_calls=16)
    add(3, remote_calls=32)
    assert read(1, 2) == {ONE: {"remote_calls": 30, "tokens_asked": 1}}


@pytest.mark.parametrize("first", [True, False], ids=["first of the minute", "later"])
def test_two_threads_that_add_at_once_lose_nothing(table, add, read, monkeypatch, first):
    """Both read the row before either has written it."""
    if not first:
        add(1, remote_calls=1)
    get = table.get

    def raced(*place):
        found = get(*place)
        monkeypatch.undo()
        add(1, remote_calls=10)
        return found

    monkeypatch.setattr(table, "get", raced)
    add(1, remote_calls=100)
    assert read(1, 1) == {ONE: {"remote_calls": 110 if first else 111}}


@pytest.mark.parametrize("first", [True, False])
def test_two_threads_that_add_the_same_at_once_lose_nothing(table, add, read, monkeypatch, first):
    """What both write is the same row, and it is counted twice all the same."""
    if not first:
        add(1, remote_calls=1)
    get = table.get

    def raced(*place):
        found = get(*place)
        monkeypatch.undo()
        add(1, remote_calls=10)
        return found

    monkeypatch.setattr(table, "get", raced)
    add(1, remote_calls=10)
    assert read(1, 1) == {ONE: {"remote_calls": 20 if first else 21}}


def test_each_connection_and_the_hub_have_their_own(add, read):
    add(1, remote_calls=1)
    add(1, OTHER, remote_calls=2)
    add(1, "", storage_calls=4)
    assert read(0, 1) == {ONE: {"remote_calls": 1}, OTHER: {"remote_calls": 2}, "": {"storage_calls": 4}}


def test_a_period_goes_over_midnight_and_over_days(add, read):
    for number, minute in enumerate((-1440 - 2, -1440 - 1, -1, 0, 1440, 1441)):
        add(minute, remote_calls=10**number)
    assert read(-1, 0) == {ONE: {"remote_calls": 1100}}
    assert read(-1440 - 1, 1440) == {ONE: {"remote_calls": 11110}}
    with measured() as meter:
        read(-1, 0)
    assert meter.total("storage_calls") == 2  # a partition each


def test_a_tenant_sees_none_of_another_s(add, read):
    add(1, remote_calls=1)
    assert read(0, 1, Tenant("elsewhere")) == {}


def test_a_period_with_too_many_figures_is_refused(add, read, monkeypatch):
    monkeypatch.setattr(journal, "MAX_STATS_ROWS", 2)
    for minute in (1, 2, 3):
        add(minute, remote_calls=1)
    assert read(2, 3) == {ONE: {"remote_calls": 2}}
    with pytest.raises(BadRequest, match="ask for a shorter one") as refused:
        read(1, 3)
    assert refused.value.errors[0].field == "minutes"
