"""How many calls a connection may make in a time: taken in blocks from one ledger, callers before fresh before bulk."""

from datetime import UTC, datetime

import pytest

from crm_core.connector import Account, Answer, Spent, Tools, Window
from crm_core.errors import OverBudget, RateLimited, StoreUnavailable
from crm_core.ports import lane_of
from crm_core.protocols.budget import Budget, forecast
from crm_core.protocols.guard import Origins
from crm_core.protocols.rest import Rest, explain_status
from crm_core.storage.ledger import StoredLedger
from crm_core.storage.memory import MemoryTable
from crm_core.system import SystemIds

BEGIN = 300 * 6_000_000


class Clock:
    """The first second of a window of 300."""

    def __init__(self):
        self.seconds = float(BEGIN)

    def now(self):
        return datetime.fromtimestamp(self.seconds, UTC)

    def monotonic(self):
        return self.seconds

    def sleep(self, seconds):
        self.seconds += seconds


class Table(MemoryTable):
    """Counts the calls, and fails if told so."""

    def __init__(self):
        super().__init__()
        self.calls = 0
        self.down = False

    def _called(self):
        self.calls += 1
        if self.down:
            raise StoreUnavailable("down")

    def get(self, *args):
        self._called()
        return super().get(*args)

    def insert(self, *args):
        self._called()
        return super().insert(*args)

    def replace(self, *args):
        self._called()
        return super().replace(*args)


BURST = Window("burst", 400, 300, "x-left")
"""Blocks of 20; the first 10 calls of a process in a window are light."""


@pytest.fixture
def world():
    """(clock, table, how an instance is made)."""
    clock, table = Clock(), Table()
    tools = Tools(None, None, clock, SystemIds(), ledger=StoredLedger(table))
    return (
        clock,
        table,
        lambda *windows: Budget(Account("default", "uid-1", {}, {}), tools, windows or (BURST,)),
    )


@pytest.fixture
def lane():
    """Says whose work it is."""
    token = lane_of.set("")
    yield lane_of.set
    lane_of.reset(token)


def calls(budget, most=10_000):
    """As many as it lets through, up to `most`; and the refusal."""
    for number in range(most):
        try:
            budget.take()
        except OverBudget as error:
            return number, error
    return most, None


def spent(table, clock, number=None):
    number = int(clock.seconds // 300) if number is None else number
    return StoredLedger(table).spent("default", "uid-1", "burst", number)


def test_without_a_window_nothing_is_counted(world):
    _, table, _ = world
    tools = Tools(None, None, Clock(), SystemIds(), ledger=StoredLedger(table))
    assert calls(Budget(Account("default", "u", {}, {}), tools, ()))[0] == 10_000
    bare = Tools(None, None, Clock(), SystemIds())
    assert calls(Budget(Account("default", "u", {}, {}), bare, (BURST,)))[0] == 10_000
    assert table.calls == 0


def test_a_block_costs_two_storage_calls_and_the_light_ones_none(world):
    clock, table, instance = world
    budget = instance()
    assert calls(budget, 10) == (10, None)
    assert table.calls == 0
    calls(budget, 1)
    assert (table.calls, spent(table, clock)) == (2, Spent(20))
    table.calls = 0
    calls(budget, 9)
    assert table.calls == 0
    calls(budget, 1)
    assert (table.calls, spent(table, clock).now) == (2, 40)


@pytest.mark.parametrize(("whose", "most"), [("", 400), ("fresh", 380), ("bulk", 320)])
def test_each_lane_has_its_share(world, lane, whose, most):
    _, table, instance = world
    lane(whose)
    made, error = calls(instance())
    assert made == most
    assert error.shared == (whose != "bulk")
    assert error.retry_after == pytest.approx(300, abs=20)
    table.calls = 0
    assert calls(instance(), 11)[0] == 10  # another instance: its light ones
    assert table.calls == 1
    assert isinstance(error, RateLimited)


def test_bulk_leaves_room_for_fresh_and_fresh_for_callers(world, lane):
    _, _, instance = world
    budget = instance()
    made = {}
    for whose in ("bulk", "fresh", ""):
        lane(whose)
        made[whose] = calls(budget)[0]
    assert made == {"bulk": 320, "fresh": 60, "": 20}


def test_instances_share_what_there_is(world):
    _, _, instance = world
    several = [instance() for _ in range(4)]
    made = 0
    for _ in range(200):
        made += sum(calls(each, 1)[0] for each in several)
    assert 400 - 4 * 10 <= made <= 400


def test_who_was_refused_asks_nobody_until_it_may(world, lane):
    clock, table, instance = world
    lane("bulk")
    budget = instance()
    _, error = calls(budget)
    table.calls = 0
    for _ in range(50):
        assert calls(budget, 1)[0] == 0
    assert table.calls == 0
    clock.seconds += error.retry_after + 1
    assert calls(budget, 30)[0] > 0


def test_a_window_slides(world):
    clock, _, instance = world
    budget = instance()
    made, error = calls(budget)
    assert made == 400
    clock.seconds += 300  # of the window before, all counts still
    assert calls(budget)[0] == 0
    clock.seconds = BEGIN + error.retry_after + 1  # and now all but a block
    assert calls(budget)[0] == 20
    clock.seconds = BEGIN + 450
    assert 160 <= calls(budget)[0] <= 180
    clock.seconds = BEGIN + 1500  # long ago
    assert calls(budget)[0] == 400


def test_an_answer_that_says_that_little_is_left_stops_bulk_first(world, lane):
    clock, _, instance = world
    budget = instance()
    for left, whose, goes in (
        (81, "bulk", True), (80, "bulk", False), (80, "fresh", True), (20, "fresh", False), (0, "", True),
    ):  # fmt: skip
        lane(whose)
        budget.told({"x-left": str(left)})
        assert (calls(budget, 1)[0] == 1) == goes, (left, whose)
    lane("bulk")
    clock.seconds += 16  # nobody believes it any more
    assert calls(budget, 1)[0] == 1
    for text in ("", "many", "-1", "\u0661"):
        budget.told({"x-left": text})
        assert calls(budget, 1)[0] == 1


def test_where_the_storage_does_not_answer_nothing_is_held_up(world):
    _, table, instance = world
    table.down = True
    assert calls(instance(), 1000) == (1000, None)


def test_two_windows_hold_both(world):
    _, _, instance = world
    budget = instance(BURST, Window("daily", 100, 86_400))
    assert calls(budget)[0] == 100


def test_it_is_told_when_it_runs_out(world):
    clock, table, instance = world
    tools = Tools(None, None, clock, SystemIds(), ledger=StoredLedger(table))

    def told():
        return dict(forecast("default", "uid-1", BURST, tools))

    idle = {"window": "burst", "calls": 400, "seconds": 300, "spent": 0, "left": 400, "runs_out_at": None}
    assert told() == idle
    calls(instance(), 200)
    clock.seconds += 60
    now = told()
    assert (now["spent"], now["left"]) == (200, 200)
    assert now["runs_out_at"] == datetime.fromtimestamp(BEGIN + 120, UTC).isoformat(
        timespec="microseconds"
    ).replace("+00:00", "Z")
    clock.seconds += 100  # it went on slower
    assert told()["runs_out_at"] is None
    clock.seconds = BEGIN + 450
    assert told()["spent"] == 100


def test_nothing_is_sent_that_is_over_the_budget():
    sent = []

    class System:
        def send(self, request, *, connection):
            sent.append(connection)
            return Answer(200, {"x-left": "7"}, b"{}")

    class Key:
        def headers(self, **_):
            return {"X-Key": "k"}

    tools = Tools(System(), None, Clock(), SystemIds(), ledger=StoredLedger(MemoryTable()))
    rest = Rest(
        Account("default", "uid-1", {}, {}), tools, system="acme", base_url="https://api.example.com", auth=Key(),
        origins=Origins((".example.com",)), explain=lambda answer: explain_status(answer, "acme"), concurrency=3,
        windows=(BURST,),
    )  # fmt: skip
    token = lane_of.set("bulk")
    try:
        rest.call("GET", "/x")
        with pytest.raises(OverBudget) as refused:  # the answer said so
            rest.call("GET", "/x")
    finally:
        lane_of.reset(token)
    assert len(sent) == 1
    assert (refused.value.vendor_status, refused.value.outcome_unknown) == (None, False)
    rest.call("GET", "/x")  # a caller
    assert len(sent) == 2
