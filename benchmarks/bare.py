"""The floor: a loop that downloads the same pages, parses them and writes the same bytes, with no hub between."""

import gc
import http.client
import json
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from decimal import Decimal
from urllib.parse import urlsplit

import requests

from benchmarks.worker import RAW, READ, Bench, Cost, Result, Task, cpu_seconds, peak_kib
from crm_core.connector import Answer, Request, Transport
from crm_core.ports import Operation
from crm_core.storage import layout
from crm_core.storage.azure import AzureTable, StorageAccount
from crm_core.storage.batch import BATCH_HEADERS, encode_transaction
from crm_core.storage.memory import MemoryTable


class _Heard:
    """A transport that keeps what was asked for records, headers and all."""

    def __init__(self, transport: Transport, asked: list[Request]) -> None:
        self._transport = transport
        self._asked = asked

    def send(self, request: Request, *, connection: str) -> Answer:
        if "/api/data/" in request.url:
            self._asked.append(request)
        return self._transport.send(request, connection=connection)


class _Kept(MemoryTable):
    """A table that keeps the transactions of records as they were handed to it."""

    def __init__(self) -> None:
        super().__init__()
        self.transactions: list[Sequence[Operation]] = []

    def transact(self, table: str, operations: Sequence[Operation]) -> list[str]:
        if table == layout.RECORDS:
            self.transactions.append(operations)
            return [""] * len(operations)
        return super().transact(table, operations)


def bare(task: Task) -> Result:
    """The cost of the loop alone. The hub has done the same before, so the remote system has every page at hand."""
    table, asked = _Kept(), list[Request]()
    bench = Bench(task, table, lambda transport: _Heard(transport, asked))
    with closing(bench.hub):
        load, counts = bench.first_load()
    gc.collect()
    gc.freeze()  # what was kept is no work of the loop
    with closing(AzureTable(StorageAccount(task.storage))) as written, requests.Session() as session:
        written.get(layout.CONFIG, "warm", "up")
        read = _timed(lambda: _read(session, asked))
        wrote = _timed(lambda: _write(written, table.transactions))
    raw = _timed(lambda: _write_raw(table_service(task.storage), table.transactions))
    cost = Cost(load.records, read[0] + wrote[0], read[1] + wrote[1], len(asked), len(table.transactions))
    return Result(cost, None, peak_kib(), counts, {READ: read[1], RAW: raw[1]})


def _timed(work: Callable[[], None]) -> tuple[float, float]:
    """Seconds by the clock, and of the CPU."""
    began, cpu = time.monotonic(), cpu_seconds()
    work()
    return time.monotonic() - began, cpu_seconds() - cpu


def _read(session: requests.Session, asked: Sequence[Request]) -> None:
    for request in asked:
        answer = session.get(request.url, headers=dict(request.headers))
        answer.raise_for_status()
        json.loads(answer.content, parse_float=Decimal)


def _write(table: AzureTable, transactions: Sequence[Sequence[Operation]]) -> None:
    for operations in transactions:
        table.transact(layout.RECORDS, operations)


def table_service(connection: str) -> str:
    """The address of the tables in a connection string."""
    return next(part for part in connection.split(";") if part.startswith("TableEndpoint=")).partition("=")[2]


def _write_raw(address: str, transactions: Sequence[Sequence[Operation]]) -> None:
    """The same bytes by the simplest means there are: unsigned, over one connection, whose answers are read and no more.
    The sink asks for no more either.
    """
    parts = urlsplit(address)
    connection = http.client.HTTPConnection(parts.netloc)
    for operations in transactions:
        body = encode_transaction(address, layout.RECORDS, operations)
        connection.request("POST", f"{parts.path}/$batch", body, BATCH_HEADERS)
        answer = connection.getresponse()
        answer.read()
        if answer.status != 202:
            raise RuntimeError(f"the sink answered {answer.status}")
    connection.close()
