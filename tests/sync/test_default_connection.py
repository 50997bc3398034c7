"""The connection that the settings describe, and the figures that a process leaves behind."""

import pytest

from crm_core.errors import Misconfigured
from crm_core.hub import Hub
from crm_core.model.connection import DEFAULT_TENANT, Schedule
from crm_core.ports import measured
from crm_core.settings import load
from crm_core.storage import layout
from tests.sync.conftest import SECRET, environment


@pytest.fixture
def start(memory_bench, remote):
    """Another process of the hub over the same store, with these settings."""
    bench = memory_bench
    hubs = []

    def make(**more):
        facts = remote.sandbox.describe()
        family = {
            "CRM_TENANT_ID": facts["tenant"],
            "CRM_CLIENT_ID": facts["client_id"],
            "CRM_CLIENT_SECRET": SECRET,
            "CRM_D365_BASE_URL": remote.sandbox.https,
        }
        settings = load(environment("UseDevelopmentStorage=true", remote, **{**family, **more}))
        hub = Hub(settings, table=bench.hub.table, queue=bench.queue, blob=bench.hub.engine.blob)
        hubs.append(hub)
        return hub

    yield make
    for each in hubs:
        each.close()


def test_it_is_made_once_and_follows_the_settings(start):
    hub = start(DYNAMICS_365_SYNC_INTERVAL="120000")
    hub.prepare()
    made = hub.find(DEFAULT_TENANT, "dynamics365")
    assert (made.connector, made.schedule) == ("dynamics365", Schedule(minutes=2))
    assert hub.connect(DEFAULT_TENANT, "").connection.uid == made.uid
    again = start(DYNAMICS_365_SYNC_INTERVAL="120000")
    again.prepare()
    assert again.find(DEFAULT_TENANT, "dynamics365").etag == made.etag, "an unchanged start saves nothing"
    off = start(DYNAMICS_365_SYNC_ENABLED="false", CRM_API_VERSION="9.1")
    off.prepare()
    changed = off.find(DEFAULT_TENANT, "dynamics365")
    assert (changed.uid, changed.schedule) == (made.uid, Schedule(minutes=None))
    assert changed.settings["api_version"] == "9.1"


def test_a_wrong_one_is_named_and_does_not_stop_the_others(start, memory_bench):
    memory_bench.connect()
    hub = start(CRM_D365_BASE_URL="https://crm.example.org")
    with pytest.raises(Misconfigured, match="base_url"):
        hub.prepare()
    assert hub.tick() == 1


def test_figures_are_added_up_by_the_minute_and_the_connection(memory_bench):
    bench = memory_bench
    bench.remote.create("Row")
    bench.connect()
    with measured() as meter:
        bench.pull()
    bench.hub.add_figures(meter, flush=True)
    bench.hub.add_figures(meter, flush=True)
    rows = bench.hub.table.query(layout.STATS).rows
    remote = [row for row in rows if bench.connection.uid in row.rk]
    total = sum(int(row.values["remote_calls"]) for row in remote)
    assert total == 2 * meter.total("remote_calls")
