"""How many webhooks one local host process accepts in a second, beside the same queue put in a loop, and beside requests
that the hub refuses without any work.

The host looks at its queues too seldom to work any of them off meanwhile. The loops run in eight threads here, over HTTP
to their server. Host, Microsoft's worker and the hub share one interpreter, so no webhook can be faster than an idle
request and a put one after the other: what it costs beyond both is the hub's.
"""

import json
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import requests

from crm_core.storage.azure import AzureQueue, StorageAccount
from demo import drive, start
from demo.folder import Folder, connection_string
from demo.http import Client
from demo.parts import Parts
from demo.ports import free_ports
from demo.trouble import Trouble

AIM = 0.7
"""Of the bare loop's speed."""
THREADS = 8
SELDOM = "600"
BODY_BYTES = 2500
"""About what a post of Dataverse has."""
_KEY = "a-key-of-the-benchmark"
_LIMITS = {"WEBHOOKS_PER_MINUTE": "1000000000", "WEBHOOKS_PER_SOURCE": "1000000000"}

One = Callable[[], None]


@dataclass(frozen=True)
class Speed:
    """Calls in a second, and how long one took: the median, and what one of a hundred exceeded, in milliseconds."""

    per_second: float
    p50: float
    p99: float

    def __str__(self) -> str:
        return f"{self.per_second:,.0f} a second (p50 {self.p50:.0f} ms, p99 {self.p99:.0f} ms)"


@dataclass(frozen=True)
class Intake:
    accepted: Speed
    bare: Speed
    idle: Speed
    """Requests without a key, which the hub refuses."""

    @property
    def ratio(self) -> float:
        return self.accepted.per_second / self.bare.per_second

    @property
    def of_host(self) -> float:
        """The speed as a part of that of an idle request and a put, one after the other."""
        return self.accepted.per_second * (1 / self.idle.per_second + 1 / self.bare.per_second)


def measure(parts: Parts, folder: Path, count: int) -> Intake:
    """So many webhooks, and so many bare messages."""
    with ExitStack() as stack:
        kept, ports = Folder(folder), free_ports()
        stack.callback(kept.close)
        azurite = start.start_azurite(parts, kept, ports, start.check_tools(), in_memory=True)
        part, ca = start.start_sandbox(parts, kept, ports, seed=1)
        start.azurite_ready(parts, azurite, ports)
        sandbox = start.sandbox_ready(parts, part)
        options = ("--poll-min", SELDOM, "--poll-max", SELDOM)
        _, url = start.start_hub(parts, kept, ports, ca, *options, settings=_LIMITS)
        hub = Client(parts, "The hub", url, kept.log("hub"), {"X-API-KEY": kept.api_key})
        stack.callback(hub.close)
        drive.connect(hub, sandbox)
        path = f"/api/integrations/{drive.CONNECTION}"
        hub.call("PATCH", path, {"secrets": {"webhook_key": _KEY}})
        _, made = hub.call("POST", f"{path}/webhook")
        address = f"{url}/api/webhooks/{made['value'][0]['url'].rpartition('/')[2]}"
        queue = AzureQueue(StorageAccount(connection_string(ports)))
        stack.callback(queue.close)
        _sender(address)()
        queue.send("bare", _body())
        accepted = _speed(lambda: _sender(address), count)
        idle = _speed(lambda: _sender(f"{url}/api/runs", 401), count)
        return Intake(accepted, _speed(lambda: lambda: queue.send("bare", _body()), count), idle)


def _body() -> str:
    told = {"PrimaryEntityName": "account", "PrimaryEntityId": str(uuid.uuid4()), "Padding": "x" * BODY_BYTES}
    return json.dumps(told)


def _sender(address: str, status: int = 202) -> One:
    session = requests.Session()
    session.trust_env = False
    headers = {"Content-Type": "application/json", "X-Hub-Token": _KEY}

    def one() -> None:
        answer = session.post(address, data=_body(), headers=headers, timeout=60)
        if answer.status_code != status:
            raise Trouble(f"A webhook was answered {answer.status_code}: {answer.text[:300]}")

    return one


def _speed(make: Callable[[], One], count: int) -> Speed:
    """`make` gives each thread its own way to do one."""
    taken: list[float] = []

    def work() -> None:
        one = make()
        for _ in range(count // THREADS):
            began = time.perf_counter()
            one()
            taken.append(time.perf_counter() - began)

    threads = [threading.Thread(target=work) for _ in range(THREADS)]
    began = time.perf_counter()
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    seconds = time.perf_counter() - began
    if len(taken) != count // THREADS * THREADS:
        raise Trouble("Not every webhook was taken.")
    taken.sort()
    return Speed(
        len(taken) / seconds, taken[len(taken) // 2] * 1000, taken[int(len(taken) * 0.99) - 1] * 1000
    )


def lines(found: Intake | None) -> Iterator[str]:
    if found is not None:
        yield (
            f"Webhooks: {found.accepted} accepted by one host, bare queue puts: {found.bare}; "
            f"{found.ratio:.2f} of it (aim {AIM}). Idle requests of that host: {found.idle}; a webhook has "
            f"{found.of_host:.2f} of the speed of an idle request and a put."
        )
