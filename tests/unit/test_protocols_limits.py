"""How fast a connection is called: calls at a time, and the pause that a system asks for."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from crm_core.connector import Account, Answer, Tools
from crm_core.errors import RateLimited
from crm_core.protocols import limits
from crm_core.protocols.guard import Origins
from crm_core.protocols.limits import MAX_CALLERS, Gate, Limits
from crm_core.protocols.rest import Rest, explain_status
from crm_core.system import SystemClock, SystemIds


class Steady:
    """A clock that moves only when somebody sleeps."""

    def __init__(self):
        self.seconds = 1000.0

    def monotonic(self):
        return self.seconds

    def sleep(self, seconds):
        self.seconds += seconds


class System:
    """A remote system that counts who calls it at the same time, and says what it is told to say."""

    def __init__(self, seconds=0.02):
        self.seconds = seconds
        self.now = self.most = self.calls = 0
        self.answers = []
        self._lock = threading.Lock()

    def send(self, _request, *, connection):
        with self._lock:
            self.now += 1
            self.calls += 1
            self.most = max(self.most, self.now)
        time.sleep(self.seconds)
        with self._lock:
            self.now -= 1
            return self.answers.pop(0) if self.answers else Answer(200, {}, b"{}")


class Key:
    def headers(self, **_):
        return {"X-Key": "k"}


def client(system, *, width=3):
    return Rest(
        Account("default", "uid-1", {}, {}),
        Tools(system, None, SystemClock(), SystemIds()),
        system="acme",
        base_url="https://acme.example",
        auth=Key(),
        origins=Origins((".example",)),
        explain=lambda answer: explain_status(answer, "acme"),
        concurrency=width,
    )


def test_no_more_calls_at_a_time_than_the_connection_may_have():
    system = System()
    rest = client(system)
    with ThreadPoolExecutor(20) as pool:
        answers = list(pool.map(lambda _: rest.call("GET", "a").status, range(60)))
    assert answers == [200] * 60
    assert system.most == 3


def test_who_has_waited_two_seconds_for_a_turn_is_told_to_come_again():
    clock = Steady()
    line = Limits(clock, 1)
    with line.call(), pytest.raises(RateLimited, match="1 calls") as told, line.call():
        pass
    assert told.value.retry_after == limits.BUSY_SECONDS
    assert 1002.0 <= clock.seconds < 1002.1
    with line.call():
        pass


def test_a_failed_call_gives_its_place_back():
    line = Limits(Steady(), 1)
    for _ in range(3):
        with pytest.raises(ValueError, match="broken"), line.call():
            raise ValueError("broken")


def test_a_short_pause_is_slept_through_and_a_long_one_is_refused_at_once():
    clock = Steady()
    line = Limits(clock, 1)
    line.throttled(RateLimited("slower", retry_after=1.5))
    line.throttled(RateLimited("slower", retry_after=0.5))  # the longer one holds
    line.throttled(RateLimited("slower"))
    with line.call():
        assert clock.seconds == 1001.5
    line.throttled(RateLimited("much slower", retry_after=30, vendor_code="x"))
    clock.sleep(10)
    with pytest.raises(RateLimited, match="much slower") as told, line.call():
        pass
    assert (told.value.vendor_code, told.value.retry_after) == ("x", pytest.approx(20))
    assert clock.seconds == pytest.approx(1011.5)
    clock.sleep(20)
    with line.call():
        pass


def test_what_one_caller_was_told_all_of_the_process_heed():
    system = System(seconds=0)
    system.answers = [Answer(429, {"retry-after": "60"}, b"{}")]
    rest = client(system)
    for _ in range(3):
        with pytest.raises(RateLimited) as told:
            rest.call("GET", "a")
        assert 59 < told.value.retry_after <= 60
    assert system.calls == 1


def test_a_gate_lets_so_many_a_minute_through_and_says_when_to_come_again():
    clock = Steady()
    gate = Gate(clock, 30)
    assert [gate.take("a") for _ in range(30)] == [0.0] * 30
    assert gate.take("a") == gate.wait("a") == pytest.approx(2.0)
    assert gate.wait("b") == gate.take("b") == 0.0
    clock.sleep(1.5)
    assert gate.wait("a") == pytest.approx(0.5)
    clock.sleep(0.5)
    assert (gate.wait("a"), gate.take("a")) == (0.0, 0.0)
    assert gate.take("a") > 0
    clock.sleep(3600)
    assert [gate.take("a") for _ in range(31)].count(0.0) == 30


def test_a_gate_of_less_than_one_a_minute_lets_one_through():
    clock = Steady()
    gate = Gate(clock, 0.5)
    assert gate.take("a") == 0.0
    assert gate.take("a") == pytest.approx(120.0)


def test_a_gate_forgets_whoever_came_longest_ago():
    gate = Gate(Steady(), 1)
    assert gate.take("first") == 0.0
    for number in range(MAX_CALLERS):
        assert gate.take(f"other {number}") == 0.0
    assert gate.take("first") == 0.0
    assert gate.take(f"other {MAX_CALLERS - 1}") > 0
