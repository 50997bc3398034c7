"""Two Dynamics tenants linked through the hub: what a person does on one side arrives on the other, once."""

from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any

import pytest

from crm_core.connection_admin import Wanted
from crm_core.hub import Hub
from crm_core.model.connection import DEFAULT_TENANT, Connection, EntitySync, Schedule
from crm_core.model.record import Record, open_items
from crm_core.settings import load
from crm_core.storage import layout
from crm_core.storage.memory import MemoryBlob, MemoryQueue, MemoryTable
from crm_core.system import SystemClock
from sandbox.dynamics365 import Dataverse
from sandbox.dynamics365.org import Identity
from sandbox.testing import Client, Running, running
from tests.sync.conftest import SECRET, Remote, environment

BOTH = {"account": {"direction": "both"}}
SOON = {"PUSH_DELAY_SECONDS": "0.001", "SWEEP_BUCKETS": "16", "ATTEMPT_SECONDS": "1"}


@pytest.fixture(scope="session")
def second_sandbox(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    ca = tmp_path_factory.mktemp("tls2") / "ca.pem"
    with running(Dataverse(Identity(client_secret=SECRET), 2), tls_ca=ca) as sandbox:
        yield sandbox


@dataclass
class Pair:
    """A hub between two remotes, whose queue the test works off by hand."""

    hub: Hub
    queue: MemoryQueue
    remotes: dict[str, Remote]
    connections: dict[str, Connection] = field(default_factory=dict)

    def connect(self, name: str, entities: Any = None, **wanted: Any) -> Connection:
        remote = self.remotes[name]
        facts, https = remote.sandbox.describe(), remote.sandbox.https
        settings = {
            "base_url": https,
            "authority": https,
            "tenant_id": facts["tenant"],
            "client_id": facts["client_id"],
        }
        made = self.hub.admin.create(
            DEFAULT_TENANT,
            name,
            "dynamics365",
            Wanted(
                settings,
                {"client_secret": SECRET},
                {each: EntitySync.from_json(how) for each, how in (entities or BOTH).items()},
                Schedule(),
                **wanted,
            ),
        )
        self.hub.forget(made)
        self.connections[name] = made
        return made

    def pull(self, name: str, mode: Any = "incremental") -> Any:
        run = self.hub.start_run(DEFAULT_TENANT, self.connections[name].uid, [], mode, "key:test")
        self.work()
        return self.hub.runs.get(DEFAULT_TENANT, run.id)

    def work(self, limit: int = 500) -> int:
        for handled in range(limit):
            if not any(self._one(lane) for lane in layout.QUEUES):
                return handled
        raise AssertionError("the lanes never become empty")

    def _one(self, lane: str) -> bool:
        messages = self.queue.receive(lane)
        if not messages:
            return False
        self.hub.handle(lane, messages[0].body, messages[0].dequeue_count)
        assert self.queue.delete(lane, messages[0])
        return True

    def both(self) -> None:
        for name in self.connections:
            self.pull(name)
        self.hub.tick()
        self.work()

    def records(self) -> list[Record]:
        found, wanted = [], set()
        for bucket in layout.BUCKETS:
            for each in self.hub.records.scan(DEFAULT_TENANT, "account", bucket):
                if isinstance(each.content, Record):
                    found.append(each.content)
                    wanted |= {(*item, each.id) for item in open_items(each.content)}
        rows = {
            item
            for bucket in layout.BUCKETS
            for item in self.hub.records.open_items(DEFAULT_TENANT, "account", bucket)
        }
        assert rows == wanted
        return found

    def rows(self, name: str) -> dict[str, dict[str, Any]]:
        return {
            row["id"]: row["values"] for row in self.remotes[name].control("GET", "rows/account?limit=100000")
        }

    def values(self, name: str, column: str = "name") -> list[Any]:
        return sorted(str(values.get(column)) for values in self.rows(name).values())


@pytest.fixture
def pair(remote: Remote, second_sandbox: Running, tmp_path: Any) -> Iterator[Pair]:
    with Client(second_sandbox.url) as client:
        assert client.call("POST", "/_sandbox/reset").status == 204
        other = Remote(second_sandbox, client)
        bundle = tmp_path / "ca.pem"
        bundle.write_bytes(remote.sandbox.ca.read_bytes() + second_sandbox.ca.read_bytes())
        queue = MemoryQueue(SystemClock())
        settings = {**environment("UseDevelopmentStorage=true", remote), "CA_BUNDLE": str(bundle), **SOON}
        hub = Hub(load(settings), table=MemoryTable(), queue=queue, blob=MemoryBlob())
        with closing(hub):
            yield Pair(hub, queue, {"a": remote, "b": other})


def only(items):
    (item,) = items
    return item


def test_a_row_made_on_one_side_is_made_on_the_other_and_edits_go_both_ways(pair):
    rid = pair.remotes["a"].create("Contoso", values={"telephone1": "1"})
    pair.connect("a")
    pair.connect("b")
    pair.both()
    (other,) = pair.rows("b")
    assert pair.rows("b")[other]["name"] == "Contoso"
    pair.remotes["b"].update(other, telephone1="2")
    pair.both()
    assert pair.rows("a")[rid]["telephone1"] == "2"
    pair.remotes["a"].update(rid, name="Contoso SA")
    pair.both()
    assert pair.rows("b")[other]["name"] == "Contoso SA"
    record = only(pair.records())
    assert open_items(record) == frozenset()
    calls = {name: each.requests() for name, each in pair.remotes.items()}
    pair.both()
    assert {name: each.requests() - calls[name] for name, each in pair.remotes.items()} == {"a": 1, "b": 1}
    assert only(pair.records()) == record
    assert (len(pair.rows("a")), len(pair.rows("b"))) == (1, 1)
