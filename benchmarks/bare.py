"""The floor: a loop that downloads the same pages, parses them and writes the same bytes, with no hub between."""

import gc
import json
import time
from collections.abc import Sequence
from contextlib import closing
from decimal import Decimal
from typing import Any

import requests

from benchmarks.worker import Bench, Cost, Result, Task, cpu_seconds, peak_kib
from crm_core.connector import Answer, Request, Transport
from crm_core.ports import Operation
from crm_core.storage import layout
from crm_core.storage.azure import AzureTable, StorageAccount
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
        cost = _loop(session, asked, written, table.transactions)
    return Result(Cost(load.records, *cost), None, peak_kib(), counts)


def _loop(
    session: requests.Session, asked: Sequence[Request], table: AzureTable, transactions: Sequence[Any]
) -> tuple[float, float, int, int]:
    began, cpu = time.monotonic(), cpu_seconds()
    for request in asked:
        answer = session.get(request.url, headers=dict(request.headers))
        answer.raise_for_status()
        json.loads(answer.content, parse_float=Decimal)
    for operations in transactions:
        table.transact(layout.RECORDS, operations)
    return time.monotonic() - began, cpu_seconds() - cpu, len(asked), len(transactions)
