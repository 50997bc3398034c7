"""A diagnosis whose parts hang or break: the others are told all the same. (Each failure has its test in tests/app.)"""

import threading
import time

import pytest

from crm_core import diagnosis
from crm_core.errors import StoreUnavailable
from crm_core.ports import measured


@pytest.fixture
def bench(memory_bench):
    memory_bench.connect()
    yield memory_bench
    memory_bench.remote.clear_faults()
    for thread in threading.enumerate():  # those that nobody waited for
        if thread.name == diagnosis.THREAD:
            thread.join(20)


@pytest.fixture
def hurry(monkeypatch):
    """Nobody waits longer than this."""
    monkeypatch.setattr(diagnosis, "CHECK_SECONDS", 1.0)
    monkeypatch.setattr(diagnosis, "LONGER", {})


def found(bench):
    return {each.check: each for each in bench.hub.diagnosis.of(bench.connection)}


def statuses(findings):
    return {name: each.status for name, each in findings.items()}


def all_ok_but(**others):
    return {**dict.fromkeys(diagnosis.CHECKS, "ok"), **others}


def test_a_sign_in_that_hangs_costs_its_own_time_only(bench, hurry):
    bench.remote.fault("delay", seconds=3, path="*/oauth2/v2.0/token")
    began = time.monotonic()
    findings = found(bench)
    assert time.monotonic() - began < 3
    assert statuses(findings) == all_ok_but(token="failed", permission="skipped")
    token = findings["token"]
    assert (token.code, token.message) == ("Timeout", "No answer within 1 s.")
    assert token.remedy == "Check the sign-in address and the network, and try again."
    assert 1000 <= token.milliseconds < 2000


def test_a_slow_call_fails_by_its_own_name_before_its_check_is_given_up(bench, monkeypatch):
    slow = diagnosis.Diagnosis(
        bench.hub.admin, bench.hub.secrets, bench.hub.tools, bench.hub.table, bench.queue,
        bench.hub.engine.blob, bench.hub.pool,
    )  # fmt: skip
    monkeypatch.setattr(slow, "_tools", diagnosis.replace(bench.hub.tools, call_deadline=1.0))
    bench.hub.diagnosis = slow
    bench.remote.fault("delay", seconds=3, path="*/accounts*")
    permission = found(bench)["permission"]
    assert (permission.status, permission.code) == ("failed", "Unavailable")
    assert permission.message == "'127.0.0.1' did not answer in time."


def test_a_store_that_hangs_is_told_last_and_holds_nobody_up(bench, hurry, monkeypatch):
    free = threading.Event()
    upsert = bench.hub.table.upsert

    def hanging(table, row):
        if row.pk.endswith("~diagnose"):
            free.wait(10)
        return upsert(table, row)

    monkeypatch.setattr(bench.hub.table, "upsert", hanging)
    try:
        findings = found(bench)
    finally:
        free.set()
    assert statuses(findings) == all_ok_but(storage="failed")
    assert findings["storage"].code == "Timeout"


def test_all_of_it_ends_when_its_time_is_up(bench, monkeypatch):
    monkeypatch.setattr(diagnosis, "TOTAL_SECONDS", 1.0)
    bench.remote.fault("delay", seconds=3, path="*/oauth2/v2.0/token")
    began = time.monotonic()
    findings = found(bench)
    assert time.monotonic() - began < 2.5
    assert findings["token"].code == findings["connectivity"].code == "Timeout"
    # What was begun at once is done long before.
    assert (findings["storage"].status, findings["queues"].status) == ("ok", "ok")


def test_a_bug_in_one_check_is_told_by_its_kind_and_hides_no_other(bench, monkeypatch, lines, caplog):
    def broken(_):
        raise KeyError("a secret may be in here")

    monkeypatch.setattr(bench.queue, "probe", broken)
    findings = found(bench)
    assert statuses(findings) == all_ok_but(queues="failed")
    assert findings["queues"].code == "KeyError"
    assert findings["queues"].message == "Something went wrong here (KeyError); the hub's log has more."
    (line,) = lines("check failed")
    assert line["error"] == "KeyError"
    assert "a secret" not in caplog.text


def test_storage_that_is_away_while_secrets_are_read_is_no_wrong_secret(bench, monkeypatch):
    def away(*_):
        raise StoreUnavailable("get from table secrets: 503 ServerBusy")

    monkeypatch.setattr(bench.hub.secrets, "get", away)
    findings = found(bench)
    skipped = dict.fromkeys(("token", "connectivity", "permission"), "skipped")
    assert statuses(findings) == all_ok_but(secrets="failed", **skipped)
    assert findings["secrets"].code == "StoreUnavailable"
    assert findings["secrets"].remedy.startswith("Check that the storage account, or the vault")


def test_its_calls_are_counted_as_the_caller_s(bench):
    with measured() as meter:
        found(bench)
    # Discovery and token, the bare address, who we are, one record.
    assert meter.total("remote_calls") == 5
    assert meter.total("storage_calls") > 5


def test_it_changes_nothing_that_a_person_set(bench):
    before = bench.hub.connections.get(bench.connection.tenant, bench.connection.uid)
    states = bench.hub.states.read(bench.connection.tenant, bench.connection.uid)
    found(bench)
    assert bench.hub.connections.get(bench.connection.tenant, bench.connection.uid) == before
    assert bench.hub.states.read(bench.connection.tenant, bench.connection.uid) == states
