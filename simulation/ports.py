"""The in-memory ports as a worker sees them: a switch before and after each call, and the faults between."""

import re
from collections.abc import Callable, Sequence
from email.utils import format_datetime
from typing import TypeVar
from urllib.parse import unquote, urlsplit

from crm_core.connector import Answer
from crm_core.connector import Request as Outgoing
from crm_core.errors import StoreUnavailable, Unavailable
from crm_core.ports import Operation, Row, RowPage, StoreError, count
from crm_core.storage import layout
from crm_core.storage.memory import MemoryBlob, MemoryQueue, MemoryTable
from sandbox.app import App
from sandbox.frame import Request as Arriving
from simulation import faults as kinds
from simulation.faults import Faults
from simulation.history import History
from simulation.scheduler import Scheduler
from simulation.watch import Watch

R = TypeVar("R")

TABLE_SECONDS, QUEUE_SECONDS, BLOB_SECONDS, REMOTE_SECONDS = 0.004, 0.006, 0.01, 0.08


ROW = re.compile(rb'"(?:accountid|id)":\s?"([0-9a-f-]{36})"')
HAND_ROWS = 0.4
"""Rows are read by the dozen, answers one by one."""


class Seam:
    """What the four ports share."""

    def __init__(self, scheduler: Scheduler, faults: Faults, history: History) -> None:
        self.scheduler = scheduler
        self.faults = faults
        self.history = history

    def store(self, what: str, usual: float, fates: tuple[str, ...], call: Callable[[], R]) -> R:
        """One call of the store. A repeated one is the SDK's: sent again after a lost answer, it may meet itself."""
        task = self.scheduler.current
        self.scheduler.live()
        if self.history.verbose:
            self.history.note(task.name, "   {}", what)
        self.faults.pause(usual / 2, brief=what.startswith("table.transact"))
        fate = self.faults.fate(task, what, fates)
        if fate == "crash before":
            self.faults.crash()
        if fate == "lost":
            raise StoreUnavailable("The store does not answer.")
        failure: StoreError | None = None
        result: R | None = None
        for _ in range(2 if fate == "repeated" else 1):
            try:
                result, failure = call(), None
            except StoreError as error:
                failure = error
        self.faults.pause(usual / 2)
        if fate == "crash after":
            self.faults.crash()
        if fate == "unanswered":
            raise StoreUnavailable("The store does not answer.")
        if failure is not None:
            raise failure
        return result  # type: ignore[return-value]  # set unless it failed


class SimTable:
    def __init__(self, seam: Seam, inner: MemoryTable, watch: Watch) -> None:
        self._seam = seam
        self._inner = inner
        self._watch = watch

    def get(self, table: str, pk: str, rk: str) -> Row | None:
        what = f"table.get {table} {rk}"
        self._hold(table)
        row = self._seam.store(what, TABLE_SECONDS, kinds.READ, lambda: self._inner.get(table, pk, rk))
        if row is not None:
            self._watch.read(table, [row])
        self._hold(table)
        return row

    def _hold(self, table: str) -> None:
        """Before a record is read a page is in hand, after it the record as well."""
        if table == layout.RECORDS and self._seam.faults.chance.random() < HAND_ROWS:
            self._seam.faults.pause(0.0, hand=True)

    def query(
        self,
        table: str,
        *,
        pk: str | None = None,
        pk_to: str | None = None,
        rk: str = "",
        rk_to: str | None = None,
        top: int = 1000,
        token: str | None = None,
        select: Sequence[str] | None = None,
    ) -> RowPage:
        what = f"table.query {table} {pk or ''}"
        page = self._seam.store(
            what,
            TABLE_SECONDS,
            kinds.READ,
            lambda: self._inner.query(
                table, pk=pk, pk_to=pk_to, rk=rk, rk_to=rk_to, top=top, token=token, select=select
            ),
        )
        self._watch.read(table, page.rows)
        return page

    def insert(self, table: str, row: Row) -> str:
        return self._write(table, "insert", row, "*", lambda: self._inner.insert(table, row))

    def replace(self, table: str, row: Row, etag: str = "*") -> str:
        return self._write(table, "replace", row, etag, lambda: self._inner.replace(table, row, etag))

    def upsert(self, table: str, row: Row) -> str:
        return self._write(table, "upsert", row, "*", lambda: self._inner.upsert(table, row))

    def delete(self, table: str, pk: str, rk: str, etag: str = "*") -> None:
        def call() -> str:
            self._inner.delete(table, pk, rk, etag)
            return ""

        self._write(table, "delete", Row(pk, rk), etag, call)

    def transact(self, table: str, operations: Sequence[Operation]) -> list[str]:
        what = f"table.transact {table} of {len(operations)} in {operations[0].row.pk}"
        return self._change(table, what, operations, lambda: self._inner.transact(table, operations))

    def _write(self, table: str, kind: str, row: Row, etag: str, call: Callable[[], str]) -> str:
        what = f"table.{kind} {table} {row.rk}"
        operation = Operation(kind, row, etag)  # type: ignore[arg-type]  # one of its kinds
        return self._change(table, what, [operation], lambda: [call()])[0]

    def _change(
        self, table: str, what: str, operations: Sequence[Operation], call: Callable[[], list[str]]
    ) -> list[str]:
        def carried_out() -> list[str]:
            etags = call()
            self._watch.wrote(table, operations, etags)
            return etags

        etags = self._seam.store(what, TABLE_SECONDS, kinds.TABLE, carried_out)
        self._watch.answered(table, operations, etags)
        return etags


class SimQueue:
    """Sent twice where the SDK repeats a request whose answer was lost."""

    def __init__(self, seam: Seam, inner: MemoryQueue) -> None:
        self._seam = seam
        self._inner = inner

    def send(self, queue: str, body: str, delay: float = 0.0) -> None:
        what = f"queue.send {queue}" + (f" in {delay:.0f} s" if delay else "")
        self._seam.store(what, QUEUE_SECONDS, kinds.TABLE, lambda: self._inner.send(queue, body, delay))


class SimBlob:
    def __init__(self, seam: Seam, inner: MemoryBlob) -> None:
        self._seam = seam
        self._inner = inner

    def put(self, name: str, data: bytes) -> None:
        self._call("put", name, lambda: self._inner.put(name, data))

    def get(self, name: str, offset: int = 0, length: int | None = None) -> bytes | None:
        return self._call("get", name, lambda: self._inner.get(name, offset, length))

    def delete(self, name: str) -> None:
        self._call("delete", name, lambda: self._inner.delete(name))

    def names(self, prefix: str, top: int = 1000) -> list[str]:
        return self._call("names", prefix, lambda: self._inner.names(prefix, top))

    def _call(self, verb: str, name: str, call: Callable[[], R]) -> R:
        return self._seam.store(f"blob.{verb} {name}", BLOB_SECONDS, kinds.TABLE, call)


class SimTransport:
    """`Transport` straight into the sandbox's `handle`, which decides in one step, as a database does."""

    def __init__(self, seam: Seam, sandbox: App) -> None:
        self._seam = seam
        self._sandbox = sandbox

    def send(self, request: Outgoing, *, connection: str) -> Answer:
        seam, chance = self._seam, self._seam.faults.chance
        task = seam.scheduler.current
        seam.scheduler.live()
        what = _told(request)
        if seam.history.verbose:
            seam.history.note(task.name, "   {}", what)
        seam.faults.pause(REMOTE_SECONDS / 2)
        fate = seam.faults.fate(task, what, kinds.REMOTE)
        if fate == "crash before":
            seam.faults.crash()
        count("remote_calls", connection=connection)
        if fate == "lost":
            raise Unavailable("No connection.", outcome_unknown=chance.random() < 0.5)
        if fate == "refused":
            return _refusal(chance.choice((429, 429, 500, 503)), chance.choice((None, 0, 1, 7, 40)))
        answer = self._carried_out(request)
        if seam.faults.on and request.method == "GET":
            task.work.holds = ROW.findall(answer.body)
        seam.faults.pause(REMOTE_SECONDS / 2, hand=True)
        if fate == "crash after":
            seam.faults.crash()
        if fate == "unanswered":
            raise Unavailable("No answer in time.", timeout=True, outcome_unknown=True)
        if fate == "broken":
            return Answer(answer.status, answer.headers, answer.body[: len(answer.body) // 2])
        return answer

    def _carried_out(self, request: Outgoing) -> Answer:
        parts = urlsplit(request.url)
        headers = {name.lower(): value for name, value in request.headers.items()}
        origin = f"{parts.scheme}://{parts.netloc}"
        arriving = Arriving(request.method, parts.path, parts.query, headers, request.body or b"", origin)
        response = self._sandbox.handle(arriving)
        date = format_datetime(self._sandbox.frame.clock.now().replace(microsecond=0), usegmt=True)
        answered = {"date": date, **{name.lower(): value for name, value in response.headers.items()}}
        return Answer(response.status, answered, response.body)


def _refusal(status: int, seconds: int | None) -> Answer:
    headers = {} if seconds is None else {"retry-after": str(seconds)}
    return Answer(status, {"content-type": "text/plain", **headers}, b"busy")


def _told(request: Outgoing) -> str:
    """The request in a few words: what kind of read it is says more than its query."""
    parts = urlsplit(request.url)
    words = [f"remote {request.method} {unquote(parts.path).rpartition('/')[2]}"]
    query = unquote(parts.query)
    for mark, word in (
        ("deltatoken", "since the delta"),
        ("skiptoken", "next page"),
        ("accountid eq", f"of {query.count('accountid eq')} by id"),
        ("modifiedon ge", "modified since"),
    ):
        if mark in query:
            words.append(word)
    return " ".join(words)
