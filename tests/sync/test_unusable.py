"""A connection that can't be opened, such as one whose secret is gone: its jobs wait for a person, quietly."""

import pytest

from crm_core.connection_admin import Wanted
from crm_core.model.connection import DEFAULT_TENANT
from crm_core.storage import layout
from crm_core.sync.engine import Job
from crm_core.sync.jobs import HANDLERS
from tests.sync.conftest import SECRET

MISSING = "settings.tenant_id: The connection has no client secret."


@pytest.fixture
def without_secret(memory_bench):
    """The bench, and a connection that another process has just taken the secrets of."""
    bench = memory_bench
    bench.remote.create("Contoso")
    bench.connect()
    bench.hub.secrets.delete("default", bench.connection.uid)
    bench.hub.forget(bench.connection)
    return bench


def test_the_schedule_stops_until_a_person_has_been_there(without_secret):
    bench = without_secret
    bench.due()
    assert bench.hub.tick() == 1
    bench.work()
    assert (bench.health().health, bench.health().problem.message) == ("needs_attention", MISSING)
    assert bench.hub.tick() == 0
    assert bench.dead_letters() == []


@pytest.mark.parametrize("mode", ["full", "plan"])
def test_a_run_that_somebody_waits_for_fails_with_what_is_missing(memory_bench, mode):
    bench = memory_bench
    bench.connect()
    run = bench.hub.start_run(DEFAULT_TENANT, bench.connection.uid, [], mode, "key:test")
    bench.hub.secrets.delete("default", bench.connection.uid)
    bench.hub.forget(bench.connection)
    bench.work()
    failed = bench.run(run.id)
    assert (failed.status, failed.problem.code, failed.problem.message) == (
        "failed",
        "Misconfigured",
        MISSING,
    )


# These are their run's, or of many connections, and an event brings its row: their tests are elsewhere.
ELSEWHERE = {
    "batch",
    "event",
    "deadletters",
    "export",
    "plan",
    "resolve",
    "retention",
    "undo",
    "undo_plan",
}


@pytest.mark.parametrize("kind", sorted(set(HANDLERS) - ELSEWHERE))
def test_a_job_of_any_kind_is_set_aside_and_goes_on_with_the_secret(without_secret, kind):
    bench = without_secret
    bench.hub.engine.send(layout.FRESH, Job(kind, DEFAULT_TENANT, bench.connection.uid, "account"))
    bench.work()
    assert (bench.health().health, bench.health().problem.message) == ("needs_attention", MISSING)
    wanted = Wanted(bench.connection.settings, {"client_secret": SECRET})
    bench.hub.forget(bench.hub.admin.update(bench.connection, wanted))
    assert bench.health().health == "ok"
    bench.due()
    bench.hub.tick()
    bench.work()
    bench.assert_equal()
    assert len(bench.stored()) == 1
    assert bench.dead_letters() == []


@pytest.mark.parametrize("kind", sorted(set(HANDLERS) - {"batch", "deadletters"}))
def test_nothing_is_left_of_one_that_is_being_deleted(without_secret, kind):
    bench = without_secret
    bench.hub.states.remove(DEFAULT_TENANT, bench.connection.uid)
    bench.hub.engine.send(layout.FRESH, Job(kind, DEFAULT_TENANT, bench.connection.uid, "account"))
    bench.work()
    assert bench.hub.states.read(DEFAULT_TENANT, bench.connection.uid) is None
    assert bench.dead_letters() == []
