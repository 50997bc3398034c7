"""A hub that tells a receiver what happens, over the in-memory twins and real HTTP to the sandbox's sales app."""

import base64
import json
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from standardwebhooks import Webhook

from crm_core.connection_admin import Wanted
from crm_core.hub import Hub
from crm_core.model.connection import DEFAULT_TENANT, Connection, EntitySync, Schedule
from crm_core.model.entities import ENTITIES
from crm_core.model.fields import hub_time
from crm_core.model.record import Record
from crm_core.settings import load
from crm_core.storage import layout
from crm_core.storage.deliveries import Delivery
from crm_core.storage.memory import MemoryBlob, MemoryQueue, MemoryTable
from sandbox.sales import Sales
from sandbox.testing import Client, Running, running
from tests.sync.conftest import handle_next
from tests.sync.pairs import AheadClock

SECRET = "whsec_" + base64.b64encode(b"a signing secret of 32 bytes....").decode()
TOKEN = "the-token-of-the-sales-app"
KEY = "0123456789abcdef0123456789abcdef"


@dataclass
class Told:
    """A hub, its queue and clock, and the receiver. Several connections can lead to it."""

    hub: Hub
    queue: MemoryQueue
    clock: AheadClock
    sandbox: Running
    client: Client
    connection: Connection | None = None

    @property
    def uid(self) -> str:
        assert self.connection is not None
        return self.connection.uid

    # --- the hub ---------------------------------------------------------------------------------------------------

    def connect(self, entities: Any = None, slug: str = "sales", **wanted: Any) -> Connection:
        settings = {"url": f"{self.sandbox.url}/webhooks", "token_header": "X-CRM-Webhook-Token"}
        entities = {"contact": {"direction": "push"}} if entities is None else entities
        self.connection = self.hub.admin.create(
            DEFAULT_TENANT,
            slug,
            "webhook",
            Wanted(
                {**settings, **wanted.pop("settings", {})},
                wanted.pop("secrets", {"signing_secret": SECRET, "token": TOKEN}),
                entities={name: EntitySync.from_json(each) for name, each in entities.items()},
                schedule=Schedule(),
                **wanted,
            ),
        )
        self.hub.forget(self.connection)
        return self.connection

    def editor(self, entity: str = "contact") -> Any:
        return self.hub.editor(DEFAULT_TENANT, ENTITIES[entity], "key:test")

    def create(self, entity: str = "contact", **fields: Any) -> Record:
        made: Record = self.editor(entity).create(fields)
        return made

    def work(self, limit: int = 300) -> None:
        """Handles the messages that are visible now until there are none."""
        for _ in range(limit):
            if not handle_next(self.hub, self.queue):
                return
        raise AssertionError("the lanes never become empty")

    def wait(self, seconds: float) -> None:
        """So much time goes by, here and at the receiver."""
        self.clock.ahead += timedelta(seconds=seconds)
        self.control("POST", "clock", {"advance": seconds})

    def later(self, seconds: float) -> None:
        """The same, with what was to be done in it."""
        self.wait(seconds)
        self.work()

    def tick(self) -> None:
        self.hub.tick()
        self.work()

    def items(self, entity: str = "contact") -> list[tuple[str, int]]:
        """What is yet to be made a delivery: record and version."""
        return [
            (each.record, each.version)
            for bucket in layout.BUCKETS
            for each in self.hub.records.events(DEFAULT_TENANT, entity, bucket, self.uid)
        ]

    def deliveries(self) -> list[Delivery]:
        """The oldest first."""
        found, _ = self.hub.engine.deliveries.page(DEFAULT_TENANT, self.uid, top=1000, token=None)
        return sorted(found, key=lambda each: (each.time, each.version))

    def one(self) -> Delivery:
        (found,) = self.deliveries()
        return found

    def health(self) -> Any:
        states = self.hub.states.read(DEFAULT_TENANT, self.uid)
        assert states is not None
        return states.connection

    def now(self) -> str:
        return hub_time(self.clock.now())

    # --- the receiver ----------------------------------------------------------------------------------------------

    def control(self, method: str, path: str, body: Any = None) -> Any:
        answer = self.client.call(method, f"/_sandbox/{path}", body)
        assert answer.status < 300, answer.body
        return answer.json() if answer.body else None

    def fault(self, kind: str, **more: Any) -> None:
        self.control("POST", "faults", {"kind": kind, "count": None, **more})

    def well(self) -> None:
        self.control("DELETE", "faults")

    def received(self) -> dict[str, dict[str, Any]]:
        return {each["id"]: each["values"] for each in self.control("GET", "rows/received?limit=10000")}

    def posts(self) -> list[dict[str, Any]]:
        """Every attempt, as it came."""
        return [each for each in self.control("GET", "requests") if each["method"] == "POST"]


def proven(post: dict[str, Any], secret: str = SECRET) -> Any:
    """What a post says, if the reference implementation of Standard Webhooks takes its signature."""
    return Webhook(secret).verify(post["body"], post["headers"])


def data(post: dict[str, Any]) -> Any:
    return json.loads(post["body"])["data"]


@contextmanager
def told(**settings: str) -> Iterator[Told]:
    """Nothing is connected yet."""
    clock = AheadClock()
    queue = MemoryQueue(clock)
    environment = {
        "AzureWebJobsStorage": "UseDevelopmentStorage=true",
        "HUB_API_KEY": KEY,
        "INTEGRATION_ENCRYPTION_KEY": KEY,
        "ALLOW_LOOPBACK": "true",
        "SWEEP_BUCKETS": "16",
        **settings,
    }
    with ExitStack() as stack:
        sandbox = stack.enter_context(running(Sales(TOKEN, SECRET)))
        client = stack.enter_context(Client(sandbox.url))
        hub = Hub(load(environment), clock=clock, table=MemoryTable(), queue=queue, blob=MemoryBlob())
        stack.enter_context(closing(hub))
        yield Told(hub, queue, clock, sandbox, client)
