"""The hub in the test's process, over Azurite and a Dataverse sandbox that it reaches by HTTPS."""

import itertools
from collections.abc import Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from crm_core.connection_admin import Wanted
from crm_core.hub import Hub
from crm_core.model.connection import DEFAULT_TENANT, Connection, EntitySync, Schedule
from crm_core.model.record import Record, open_items
from crm_core.model.state import Run
from crm_core.settings import load
from crm_core.storage import layout
from crm_core.storage.memory import MemoryBlob, MemoryQueue, MemoryTable
from crm_core.system import SystemClock
from sandbox.dynamics365 import Dataverse
from sandbox.dynamics365.org import Identity
from sandbox.odoo import Odoo
from sandbox.testing import Client, Running, running

if TYPE_CHECKING:
    from tests.sync.pairs import Pair
    from tests.sync.two_sides import OdooSide

KEY = "0123456789abcdef0123456789abcdef"
SECRET = "sync-test-secret-value"
_numbers = itertools.count()


@pytest.fixture(scope="session")
def sandbox(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    ca = tmp_path_factory.mktemp("tls") / "ca.pem"
    with running(Dataverse(Identity(client_secret=SECRET)), tls_ca=ca) as sandbox:
        yield sandbox


@dataclass
class Remote:
    """`table`: the one that a person works in."""

    sandbox: Running
    client: Client
    table: str = "account"

    def control(self, method: str, path: str, body: Any = None) -> Any:
        answer = self.client.call(method, f"/_sandbox/{path}", body)
        assert answer.status < 300, answer.body
        return answer.json() if answer.body else None

    def create(self, name: str, **more: Any) -> str:
        return self.add({"name": name, **more.pop("values", {})}, **more)

    def add(self, values: dict[str, Any], **more: Any) -> str:
        return str(self.control("POST", f"rows/{self.table}", {"values": values, **more})["id"])

    def rows(self) -> dict[str, dict[str, Any]]:
        """What there is, by id."""
        found = self.control("GET", f"rows/{self.table}?limit=100000")
        return {row["id"]: row["values"] for row in found}

    def update(self, rid: str, lag: float | None = None, at: str | None = None, **values: Any) -> None:
        timing = {name: value for name, value in (("lag", lag), ("at", at)) if value is not None}
        self.control("PATCH", f"rows/{self.table}/{rid}", {"values": values, **timing})

    def delete(self, rid: str) -> None:
        self.control("DELETE", f"rows/{self.table}/{rid}")

    def fault(self, kind: str, **more: Any) -> None:
        self.control("POST", "faults", {"kind": kind, "count": None, **more})

    def clear_faults(self) -> None:
        self.control("DELETE", "faults")

    def options(self, **values: Any) -> None:
        self.control("POST", "options", values)

    def requests(self) -> int:
        """API calls so far (tokens and control calls aside)."""
        return sum("/api/data/" in each["path"] for each in self.control("GET", "requests"))


@pytest.fixture
def remote(sandbox: Running) -> Iterator[Remote]:
    """The sandbox, empty, and what a person does there."""
    with Client(sandbox.url) as client:
        assert client.call("POST", "/_sandbox/reset").status == 204
        yield Remote(sandbox, client)


@pytest.fixture(scope="session")
def second_sandbox(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    ca = tmp_path_factory.mktemp("tls2") / "ca.pem"
    with running(Dataverse(Identity(client_secret=SECRET), 2), tls_ca=ca) as sandbox:
        yield sandbox


@pytest.fixture
def second_remote(second_sandbox: Running) -> Iterator[Remote]:
    """Another tenant of the same kind, empty."""
    with Client(second_sandbox.url) as client:
        assert client.call("POST", "/_sandbox/reset").status == 204
        yield Remote(second_sandbox, client)


def handle_next(hub: Hub, queue: MemoryQueue) -> bool:
    """Works on the first message that is visible, of the lanes in their order; whether there was one."""
    for lane in layout.QUEUES:
        messages = queue.receive(lane)
        if messages:
            hub.handle(lane, messages[0].body, messages[0].dequeue_count)
            assert queue.delete(lane, messages[0])
            return True
    return False


@dataclass
class Bench:
    """A hub whose queue the test works off by hand."""

    hub: Hub
    remote: Remote
    queue: MemoryQueue
    connection: Connection = field(init=False)

    def connect(self, slug: str = "demo", **wanted: Any) -> Connection:
        facts = self.remote.sandbox.describe()
        https = self.remote.sandbox.https
        settings = {
            "base_url": https,
            "authority": https,
            "tenant_id": facts["tenant"],
            "client_id": facts["client_id"],
        }
        entities = wanted.pop("entities", {"account": "pull"})
        self.connection = self.hub.admin.create(
            DEFAULT_TENANT,
            slug,
            "dynamics365",
            Wanted(
                settings,
                {"client_secret": SECRET},
                entities={name: EntitySync.from_json(each) for name, each in entities.items()},
                **{"schedule": Schedule(minutes=1), **wanted},
            ),
        )
        return self.connection

    @property
    def opened(self) -> Any:
        """The connection and its connector, as the hub holds them."""
        return self.hub.open(DEFAULT_TENANT, self.connection.uid)

    def work(self, limit: int = 200) -> int:
        """Handles messages that are visible now until there are none; gives how many."""
        for handled in range(limit):
            if not handle_next(self.hub, self.queue):
                return handled
        raise AssertionError("the lanes never become empty")

    def pull(self, mode: Any = "incremental", **part: str) -> Run:
        """A run that somebody waits for, to its end. `part`: `since` and `where` of one that reads a part."""
        run = self.hub.start_run(DEFAULT_TENANT, self.connection.uid, [], mode, "key:test", **part)
        self.work()
        return self.run(run.id)

    def run(self, run_id: str) -> Run:
        found = self.hub.runs.get(DEFAULT_TENANT, run_id)
        assert found is not None
        return found

    def state(self, entity: str = "account") -> Any:
        states = self.hub.states.read(DEFAULT_TENANT, self.connection.uid)
        assert states is not None
        return states.entities[entity]

    def health(self) -> Any:
        states = self.hub.states.read(DEFAULT_TENANT, self.connection.uid)
        assert states is not None
        return states.connection

    def due(self, moment: str = "2020-01-01T00:00:00Z") -> None:
        """As if the next pull's time had come."""
        from dataclasses import replace

        self.hub.states.save_entity(
            DEFAULT_TENANT, self.connection.uid, "account", replace(self.state(), due=moment)
        )

    def stored(self) -> dict[str, Record]:
        """Every record by its remote id; open item rows must be what the records say."""
        found: dict[str, Record] = {}
        wanted = set()
        for bucket in layout.BUCKETS:
            for each in self.hub.records.scan(DEFAULT_TENANT, "account", bucket):
                if isinstance(each.content, Record):
                    link = each.content.links[self.connection.uid]
                    assert link.rid not in found
                    found[link.rid] = each.content
                    wanted |= {(kind, uid, each.id) for kind, uid in open_items(each.content)}
        rows = {
            item
            for bucket in layout.BUCKETS
            for item in self.hub.records.open_items(DEFAULT_TENANT, "account", bucket)
        }
        assert rows == wanted
        return found

    def assert_equal(self) -> None:
        """Every live row at the remote is a live record with its values, and nothing else is alive here."""
        rows = self.remote.rows()
        stored = self.stored()
        alive = {rid for rid, each in stored.items() if each.links[self.connection.uid].state == "live"}
        assert alive == set(rows)
        for rid, values in rows.items():
            assert stored[rid].fields["name"] == values["name"]
            assert "deleted_at" not in stored[rid].fields
        for rid in stored.keys() - alive:
            assert stored[rid].fields["deleted_at"]
        assert self.state().known == len(alive)

    def dead_letters(self) -> list[dict[str, Any]]:
        from crm_core.storage.state import json_data

        page = self.hub.table.query(layout.DEADLETTERS, pk=DEFAULT_TENANT.name)
        return [json_data(row) for row in page.rows]


def environment(azurite: str, remote: Remote, **more: str) -> dict[str, str]:
    return {
        "AzureWebJobsStorage": azurite,
        "HUB_API_KEY": KEY,
        "INTEGRATION_ENCRYPTION_KEY": KEY,
        "ALLOW_LOOPBACK": "true",
        "CA_BUNDLE": str(remote.sandbox.ca),
        **more,
    }


class Prefixed:
    """A table port whose tables have names of their own, so that tests share one Azurite."""

    def __init__(self, table: Any, prefix: str = "") -> None:
        self._table = table
        self.prefix = prefix or f"t{next(_numbers)}x"

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._table, name)
        if name == "close":
            return method
        return lambda table, *args, **kwargs: method(self.prefix + table, *args, **kwargs)


@pytest.fixture
def bench(azurite: str, remote: Remote, request: pytest.FixtureRequest) -> Iterator[Bench]:
    """Over Azurite. `@pytest.mark.parametrize("bench", [{...}], indirect=True)` gives settings."""
    from crm_core.storage.azure import AzureTable, StorageAccount

    settings = getattr(request, "param", {})
    queue = MemoryQueue(SystemClock())
    with closing(AzureTable(StorageAccount(azurite))) as table:
        hub = Hub(load(environment(azurite, remote, **settings)), table=Prefixed(table), queue=queue)
        with closing(hub):
            yield Bench(hub, remote, queue)


@pytest.fixture
def memory_bench(remote: Remote, request: pytest.FixtureRequest) -> Iterator[Bench]:
    """Over the in-memory twins, for tests of many runs."""
    settings = getattr(request, "param", {})
    queue = MemoryQueue(SystemClock())
    hub = Hub(
        load(environment("UseDevelopmentStorage=true", remote, **settings)),
        table=MemoryTable(),
        queue=queue,
        blob=MemoryBlob(),
    )
    with closing(hub):
        yield Bench(hub, remote, queue)


@pytest.fixture
def pair(remote: Remote, second_remote: Remote, tmp_path: Path) -> Iterator["Pair"]:
    """A hub over the in-memory twins, between two tenants."""
    from tests.sync.pairs import SOON, AheadClock, Pair

    bundle = tmp_path / "ca.pem"
    bundle.write_bytes(remote.sandbox.ca.read_bytes() + second_remote.sandbox.ca.read_bytes())
    clock = AheadClock()
    queue = MemoryQueue(clock)
    settings = {**environment("UseDevelopmentStorage=true", remote), "CA_BUNDLE": str(bundle), **SOON}
    hub = Hub(load(settings), clock=clock, table=MemoryTable(), queue=queue, blob=MemoryBlob())
    with closing(hub):
        yield Pair([hub], queue, clock, {"a": remote, "b": second_remote})


@pytest.fixture
def linked(pair: "Pair") -> Any:
    """Gives a pair whose one record, "Contoso", is on both sides: (pair, rid at a, rid at b)."""
    from tests.sync.pairs import only

    def make(**sync: Any) -> "tuple[Pair, str, str]":
        rid = pair.remotes["a"].create("Contoso", values={"telephone1": "1"})
        pair.connect("a", {"account": {"direction": "both", **sync}})
        pair.connect("b", {"account": {"direction": "both", **sync}})
        pair.both()
        return pair, rid, only(pair.rows("b"))

    return make


@pytest.fixture(params=["sandbox", pytest.param("real", marks=pytest.mark.oracle)])
def odoo(request: pytest.FixtureRequest) -> "Iterator[OdooSide]":
    """Odoo as a side of a link: the sandbox, new, or the real server, empty."""
    from tests.sync.two_sides import OdooSide

    with ExitStack() as stack:
        if request.param == "sandbox":
            facts = stack.enter_context(running(Odoo())).describe()
        else:
            real = request.getfixturevalue("real_odoo")
            names = {"url": "URL", "database": "DB", "login": "USER", "api_key": "API_KEY"}
            facts = {name: real[f"ODOO_{each}"] for name, each in names.items()}
        client = stack.enter_context(Client(facts["url"]))
        side = OdooSide(client, facts, steady=request.param == "real")
        side.clear()
        yield side


@pytest.fixture
def systems(azurite: str, remote: Remote, odoo: "OdooSide", tmp_path: Path) -> "Iterator[Pair]":
    """Two instances of a hub over Azurite, between Dynamics 365 as `a` and Odoo as `b`."""
    from tests.sync.pairs import paired
    from tests.sync.two_sides import DynamicsSide
    from tests.sync.two_systems import CONTACTS

    sides = {"a": DynamicsSide(remote, odoo.steady), "b": odoo}
    with paired(azurite, remote, sides, b"", tmp_path, most=10 * CONTACTS) as pair:
        yield pair
