"""The frame of all sandboxes: rows and versions, late commits, transactions, clock, faults, throttle, log, file."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandbox.frame import Fault, Faults, Limits, Request, RequestLog, Response, Throttle
from sandbox.state import load, save
from sandbox.store import Clock, Dead, Row, Store, from_json, to_json

START = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)


@pytest.fixture
def clock():
    clock = Clock()
    clock.set(START, frozen=True)
    return clock


@pytest.fixture
def store(clock):
    return Store(clock)


def test_clock_is_set_advanced_frozen_and_real_again():
    clock = Clock(lambda: 1000.0)
    assert clock.seconds() == 1000.0
    clock.set(START)
    assert clock.now() == START
    assert not clock.frozen
    clock.advance(90)
    assert clock.now() == START + timedelta(seconds=90)
    clock.set(START, frozen=True)
    clock.advance(1)
    assert clock.frozen
    assert clock.now() == START + timedelta(seconds=1)
    clock.real()
    assert clock.seconds() == 1000.0


def test_every_write_and_delete_takes_the_next_version_and_versions_cross_a_power_of_ten(store):
    first = store.write("t", "a", {"x": 1})
    for _ in range(200):
        last = store.write("t", "a", {"x": 2})
    assert str(first.version) > str(last.version)  # as text they would sort wrongly
    assert last.version == first.version + 200
    store.delete("t", "a")
    assert store.table("t").dead["a"].version == last.version + 1
    store.delete("t", "a")  # gone already: nothing happens
    assert store.version == last.version + 1


def test_a_late_commit_appears_later_with_its_old_time_and_the_next_version(store, clock):
    assert store.write("t", "late", {"n": 1}, lag=60) is None
    clock.advance(30)
    early = store.write("t", "early", {"n": 2})
    assert store.get("t", "late") is None
    clock.advance(30)
    late = store.get("t", "late")
    assert late.modified < early.modified
    assert late.version > early.version


def test_a_late_change_never_takes_a_row_back_in_time(store, clock):
    store.write("t", "a", {"x": 1, "y": 1})
    store.write("t", "a", {"x": 2}, lag=10)
    clock.advance(5)
    newer = store.write("t", "a", {"y": 3})
    clock.advance(10)
    row = store.get("t", "a")
    assert row.values == {"x": 2, "y": 3}
    assert row.modified == newer.modified


def test_a_failed_transaction_leaves_nothing_and_the_feed_still_works(store):
    kept = store.write("t", "kept", {"x": 1})
    store.write("t", "gone", {"x": 1})
    store.delete("t", "gone")
    before = store.version

    def fail():
        with store.transaction():
            store.write("t", "kept", {"x": 2})
            store.write("t", "gone", {"x": 2})
            with store.transaction():
                store.write("t", "new", {"x": 2})
            store.delete("t", "kept")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert store.get("t", "kept") == kept
    assert store.get("t", "new") is None
    assert "gone" in store.table("t").dead
    rows, dead = store.table("t").changes(0, store.version)
    assert [r.id for r in rows] == ["kept"]
    assert [d.id for d in dead] == ["gone"]
    assert store.table("t").changes(before, store.version) == ([], [])


STEPS = st.lists(
    st.tuples(st.sampled_from(["write", "delete", "rollback", "mark"]), st.sampled_from("abc")), max_size=60
)


def fail(store, key):
    with store.transaction():
        store.write("t", key, {"n": -1})
        store.delete("t", "a")
        raise ZeroDivisionError


@given(STEPS)
def test_changes_since_any_mark_lead_from_then_to_now(steps):
    """Applying a delta to a copy taken at its token gives the present, whatever happened between."""
    store = Store(Clock(lambda: 0.0))
    copies = [(store.version, {})]
    for number, (kind, key) in enumerate(steps):
        if kind == "write":
            store.write("t", key, {"n": number})
        elif kind == "delete":
            store.delete("t", key)
        elif kind == "rollback":
            with pytest.raises(ZeroDivisionError):
                fail(store, key)
        else:
            copies.append((store.version, dict(store.table("t").rows)))
    for version, copy in copies:
        rows, dead = store.table("t").changes(version, store.version)
        assert [r.version for r in rows] == sorted({r.version for r in rows})
        for row in rows:
            copy[row.id] = row
        for gone in dead:
            copy.pop(gone.id, None)
        assert copy == store.table("t").rows


def test_the_log_of_changes_does_not_grow_without_bound(store):
    for n in range(5000):
        store.write("t", "a", {"n": n})
    assert len(store.table("t")._log) < 2000
    rows, _ = store.table("t").changes(0, store.version)
    assert [r.values["n"] for r in rows] == [4999]


def test_rows_survive_a_file_exactly(store, clock, tmp_path):
    values = {"money": Decimal("10.5000"), "text": "ñ \U0001f9c9 'x' \ud800", "none": None, "flag": True}
    store.write("t", "a", values)
    store.write("t", "b", {"x": 1})
    store.delete("t", "b")
    file = tmp_path / "deep" / "state.json"
    save(store, file)
    other = Store(clock)
    load(other, file)
    assert other.version == store.version
    assert other.table("t").rows == store.table("t").rows
    assert other.table("t").dead == store.table("t").dead
    assert other.table("t").changes(0, other.version) == store.table("t").changes(0, store.version)
    assert [p.name for p in file.parent.iterdir()] == ["state.json"]  # no temporary file is left
    assert from_json(to_json(values)) == values


def test_stamp_sees_every_commit(clock):
    seen = []
    store = Store(clock, lambda table, row: seen.append((table, row.id)))
    store.write("t", "a", {})
    store.write("t", "b", {}, lag=5)
    clock.advance(5)
    store.table("t")
    assert seen == [("t", "a"), ("t", "b")]
    assert isinstance(store.get("t", "b"), Row)
    assert not isinstance(store.get("t", "b"), Dead)


def test_faults_strike_by_method_and_path_after_a_skip_and_so_often():
    faults = Faults()
    added = faults.add(Fault("status", method="POST", path="*/accounts*", count=2, skip=1))
    post = Request("POST", "/api/accounts")
    assert faults.strike(Request("GET", "/api/accounts")) is None
    assert faults.strike(Request("POST", "/api/contacts")) is None
    assert [faults.strike(post) is not None for _ in range(5)] == [False, True, True, False, False]
    assert faults.active[0].struck == 2
    faults.clear(added.id)
    assert faults.active == []
    faults.add(Fault("status", path=r"re:\$filter=.*name", count=None))
    assert faults.strike(Request("GET", "/x", "$filter=a and name"))
    assert faults.strike(Request("GET", "/x", "$select=name")) is None
    assert faults.strike(Request("GET", "/x", "$filter=name"), {"reset"}) is None
    faults.clear()
    assert faults.strike(Request("GET", "/x", "$filter=name")) is None


def test_throttle_refuses_when_the_window_is_full_and_waits_grow_when_ignored(clock):
    throttle = Throttle(clock)
    throttle.limits = Limits(requests=3, window=300)
    assert [throttle.enter("u") for _ in range(3)] == [None] * 3
    assert throttle.remaining("u") == (0, 1200.0)
    first = throttle.enter("u")
    assert first.limit == "requests"
    second = throttle.enter("u")
    assert second.retry_after > first.retry_after
    assert throttle.enter("other") is None
    clock.advance(301)
    assert throttle.enter("u") is None


def test_throttle_counts_execution_time_and_concurrency(clock):
    throttle = Throttle(clock)
    throttle.limits = Limits(seconds=10, cost=4)
    assert [throttle.enter("u") for _ in range(2)] == [None, None]
    assert throttle.enter("u").limit == "seconds"
    throttle.clear()
    throttle.running["u"] = 52
    assert throttle.enter("u").limit == "concurrent"


def test_the_log_keeps_no_credentials(clock):
    log = RequestLog(clock, ("client_secret", "client_assertion"))
    request = Request(
        "POST",
        "/t/token",
        "",
        {"authorization": "Bearer s3cret", "x-sandbox-key": "k", "accept": "a"},
        b"grant_type=x&client_secret=s3cret&client_assertion=ey.s3cret&scope=y",
    )
    log.add(request, Response(200, {}, b"ok"), None, 0.001)
    (entry,) = log.since(0)
    assert "s3cret" not in str(entry)
    assert entry["headers"] == {"accept": "a"}
    assert entry["body"] == "grant_type=x&client_secret=***&client_assertion=***&scope=y"
    assert log.counts == {"POST 200": 1}
    log.add(Request("GET", "/x"), Response(200, {}, b"", abort=True), "reset_after", 0.0)
    assert log.since(entry["seq"])[0]["status"] == 0
    log.clear()
    assert log.since(0) == []
