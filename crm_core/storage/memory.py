"""The storage ports in memory: the twins of Azure Storage for property tests and simulation.

Same limits, order, pages, conflicts and failing index as Azure, which the contract tests and a differential
test hold. What differs: tables, queues and the container are always there, a page with rows left is always
full, and an unavailable store has to be played by the caller.

Threads may share a twin. Each transaction is applied to a copy of its partition, which then takes the old
one's place; two transactions on one partition exclude each other.
"""

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from itertools import count as counter

from crm_core.ports import (
    Clock,
    Operation,
    Row,
    RowChanged,
    RowExists,
    RowPage,
    Value,
    Waiting,
    check_key,
    count,
)
from crm_core.storage.batch import (
    check_blob,
    check_message,
    check_names,
    check_operations,
    decode_token,
    encode_token,
    encode_transaction,
    entity_path,
    page_query,
)

_ADDRESS = "https://account.table.core.windows.net"


def _ordinal(key: str) -> bytes:
    """Sorts as the service does: by UTF-16 code units, so an emoji comes before U+E000."""
    return key.encode("utf-16-be")


def _plain(value: Value) -> Value:
    """The value without a subclass such as an enumeration, as a service would give it back."""
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, bytes):
        return bytes(value)
    if isinstance(value, bool):
        return value
    return int(value) if isinstance(value, int) else float(value)


@dataclass(frozen=True)
class _Partition:
    """Never changed, only replaced."""

    rows: dict[str, Row] = field(default_factory=dict)
    order: list[tuple[bytes, str]] = field(default_factory=list)
    """The row keys in the service's order."""

    def with_rows(self, rows: dict[str, Row]) -> "_Partition":
        order = self.order
        if rows.keys() != self.rows.keys():
            kept = [place for place in order if place[1] in rows]
            order = sorted(kept + [(_ordinal(rk), rk) for rk in rows.keys() - self.rows.keys()])
        return _Partition(rows, order)


class MemoryTable:
    """`Table` in memory."""

    def __init__(self) -> None:
        self._partitions: dict[tuple[str, str], _Partition] = {}
        self._busy: dict[tuple[str, str], object] = {}
        self._numbers = counter(1)

    def close(self) -> None:
        """Nothing to let go; the rows stay."""

    def get(self, table: str, pk: str, rk: str) -> Row | None:
        check_key(pk)
        check_key(rk)
        entity_path(table, pk, rk)  # refuses a lone surrogate
        count("storage_calls")
        partition = self._partitions.get((table, pk))
        return partition.rows.get(rk) if partition else None

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
        """As the port says; ValueError for a `top` that is not 1 to 1000 and for a foreign token."""
        page_query("", top, token, select)
        count("storage_calls")
        start_pk, start_rk = decode_token(token) if token else ("", "")
        low, high = (rk, rk_to) if pk is not None and pk_to is None else ("", None)
        rows: list[Row] = []
        for each in self._chosen(table, pk, pk_to, start_pk):
            begin = max(low, start_rk, key=_ordinal) if each == start_pk else low
            rows.extend(self._rows(table, each, begin, high, top + 1 - len(rows)))
            if len(rows) > top:
                # Like Azurite's, the token is the first key of the next page.
                return RowPage(
                    [_selected(row, select) for row in rows[:top]], encode_token(each, rows[top].rk)
                )
        return RowPage([_selected(row, select) for row in rows])

    def _chosen(self, table: str, pk: str | None, pk_to: str | None, start: str) -> list[str]:
        """The partition keys of a query in order, from `start` on."""
        if pk is not None and pk_to is None:
            return [pk]
        low, high = max(_ordinal(pk or ""), _ordinal(start)), _ordinal(pk_to) if pk_to is not None else None
        keys = sorted((_ordinal(key), key) for name, key in list(self._partitions) if name == table)
        return [key for place, key in keys if low <= place and (high is None or place < high)]

    def _rows(self, table: str, pk: str, low: str, high: str | None, limit: int) -> list[Row]:
        partition = self._partitions.get((table, pk), _Partition())
        begin = bisect_left(partition.order, (_ordinal(low), ""))
        end = len(partition.order) if high is None else bisect_left(partition.order, (_ordinal(high), ""))
        return [partition.rows[rk] for _, rk in partition.order[begin : min(end, begin + limit)]]

    def insert(self, table: str, row: Row) -> str:
        return self.transact(table, [Operation("insert", row)])[0]

    def replace(self, table: str, row: Row, etag: str = "*") -> str:
        return self.transact(table, [Operation("replace", row, etag)])[0]

    def upsert(self, table: str, row: Row) -> str:
        return self.transact(table, [Operation("upsert", row)])[0]

    def delete(self, table: str, pk: str, rk: str, etag: str = "*") -> None:
        try:
            self.transact(table, [Operation("delete", Row(pk, rk), etag)])
        except RowChanged:
            if etag != "*":
                raise

    def transact(self, table: str, operations: Sequence[Operation]) -> list[str]:
        check_operations(operations)
        encode_transaction(
            _ADDRESS, table, operations
        )  # refuses what has no form on the wire or is over 4 MiB
        count("storage_calls")
        key = (table, operations[0].row.pk)
        with self._alone(key):
            before = self._partitions.get(key, _Partition())
            rows = dict(before.rows)
            etags = [self._apply(rows, operation, index) for index, operation in enumerate(operations)]
            self._partitions[key] = before.with_rows(rows)
        return etags

    def _apply(self, rows: dict[str, Row], operation: Operation, index: int) -> str:
        """Carries out one operation on the rows of a partition and gives its ETag."""
        row, there = operation.row, rows.get(operation.row.rk)
        if operation.kind == "insert" and there is not None:
            raise RowExists(index)
        if operation.kind in {"replace", "delete"} and (
            there is None or operation.etag not in {"*", there.etag}
        ):
            raise RowChanged(index)
        if operation.kind == "delete":
            del rows[row.rk]
            return ""
        values = {name: _plain(value) for name, value in row.values.items()}
        etag = f'W/"{next(self._numbers)}"'
        rows[row.rk] = replace(row, values=values, etag=etag)
        return etag

    @contextmanager
    def _alone(self, key: tuple[str, str]) -> Iterator[None]:
        """One thread at a time for a partition. setdefault is atomic; the other is done in microseconds."""
        mine = object()
        while self._busy.setdefault(key, mine) is not mine:
            pass
        try:
            yield
        finally:
            del self._busy[key]


def _selected(row: Row, select: Sequence[str] | None) -> Row:
    if select is None:
        return row
    return replace(row, values={name: row.values[name] for name in select if name in row.values})


@dataclass(frozen=True)
class Message:
    """A message as it was received; `receipt` proves this delivery to `delete` and `release`."""

    id: int
    body: str
    dequeue_count: int
    receipt: int


@dataclass(frozen=True)
class _Waiting:
    body: str
    visible: datetime
    sent: datetime
    dequeue_count: int = 0
    receipt: int = 0


class MemoryQueue:
    """`Queue` in memory, with the other end that the Functions host has.

    Messages come in the order in which they become visible.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._queues: dict[str, dict[int, _Waiting]] = {}
        self._numbers = counter(1)

    def close(self) -> None:
        """Nothing to let go; the messages stay."""

    def send(self, queue: str, body: str, delay: float = 0.0) -> None:
        """As the port says. Raises ValueError for a body over 48 KiB or a delay over 7 days."""
        invisible = check_message(body, delay)
        count("storage_calls")
        now = self._clock.now()
        waiting = _Waiting(body, now + timedelta(seconds=invisible), now)
        self._queues.setdefault(queue, {})[next(self._numbers)] = waiting

    def probe(self, queue: str) -> Waiting:
        """As the port says; there is nothing to prove."""
        count("storage_calls")
        now = self._clock.now()
        messages = list(self._queues.get(queue, {}).items())
        visible = [(each.visible, number, each) for number, each in messages if each.visible <= now]
        first = min(visible, key=lambda place: place[:2], default=None)
        return Waiting(len(messages), (now - first[2].sent).total_seconds() if first else None)

    def receive(self, queue: str, *, limit: int = 1, invisible: float = 30.0) -> list[Message]:
        """Up to `limit` visible messages, each hidden from others for `invisible` seconds from now."""
        now = self._clock.now()
        messages = self._queues.get(queue, {})
        received: list[Message] = []
        seen = list(messages.items())
        seen.sort(key=lambda item: (item[1].visible, item[0]))
        for number, _ in seen:
            if len(received) == limit:
                break
            # To pop is to win the message against other threads.
            waiting = messages.pop(number, None)
            if waiting is None:
                continue
            if waiting.visible > now:
                messages[number] = waiting
                continue
            receipt, times = next(self._numbers), waiting.dequeue_count + 1
            hidden = now + timedelta(seconds=invisible)
            messages[number] = replace(waiting, visible=hidden, dequeue_count=times, receipt=receipt)
            received.append(Message(number, waiting.body, times, receipt))
        return received

    def delete(self, queue: str, message: Message) -> bool:
        """False if the message was delivered again in the meantime, or is gone."""
        return self._take(queue, message) is not None

    def release(self, queue: str, message: Message, delay: float = 0.0) -> bool:
        """Makes a failed message visible again after `delay` seconds; False as for `delete`."""
        waiting = self._take(queue, message)
        if waiting is not None:
            visible = self._clock.now() + timedelta(seconds=delay)
            self._queues[queue][message.id] = replace(waiting, visible=visible, receipt=next(self._numbers))
        return waiting is not None

    def _take(self, queue: str, message: Message) -> _Waiting | None:
        messages = self._queues.get(queue, {})
        waiting = messages.pop(message.id, None)
        if waiting is not None and waiting.receipt != message.receipt:
            messages[message.id] = waiting
            return None
        return waiting

    def size(self, queue: str) -> int:
        """How many messages there are, visible or not."""
        return len(self._queues.get(queue, {}))

    def next_visible(self, queue: str) -> datetime | None:
        """When the next message can be received (maybe in the past); None if there is none."""
        return min((waiting.visible for waiting in list(self._queues.get(queue, {}).values())), default=None)


class MemoryBlob:
    """`Blob` in memory."""

    def __init__(self) -> None:
        self._blobs: dict[str, bytes] = {}

    def close(self) -> None:
        """Nothing to let go; the blobs stay."""

    def put(self, name: str, data: bytes) -> None:
        check_blob(name)
        count("storage_calls")
        self._blobs[name] = bytes(data)

    def get(self, name: str, offset: int = 0, length: int | None = None) -> bytes | None:
        """Up to `length` bytes from `offset`; b"" beyond the end, None if there is no such blob."""
        check_blob(name, offset, length)
        count("storage_calls")
        data = self._blobs.get(name)
        return None if data is None else data[offset : None if length is None else offset + length]

    def delete(self, name: str) -> None:
        check_blob(name)
        count("storage_calls")
        self._blobs.pop(name, None)

    def names(self, prefix: str, top: int = 1000) -> list[str]:
        check_names(prefix, top)
        count("storage_calls")
        return sorted(name for name in list(self._blobs) if name.startswith(prefix))[:top]
