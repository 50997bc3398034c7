"""The seams to the world: storage, secrets, time, ids and parallel work, each with its limits.

`sync`, `model` and `storage` use time, random numbers and threads only through `Clock`, `Ids` and
`Pool`, so that the whole hub can run under a seeded scheduler. Limits of Azure Storage are checked
here, by every implementation, because the emulator does not enforce all of them.
"""

import hashlib
import re
import threading
import uuid
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import lru_cache
from typing import Literal, Protocol, TypeVar

from crm_core.frozen import frozen_dataclass

Value = str | int | float | bool | bytes
"""What a property of a row can be. int is stored as a 64-bit integer."""

T = TypeVar("T")
R = TypeVar("R")
R_co = TypeVar("R_co", covariant=True)

MAX_TRANSACTION_OPERATIONS = 100
MAX_TRANSACTION_BYTES = 4 * 1024 * 1024
MAX_ROW_BYTES = 1024 * 1024
MAX_PROPERTY_BYTES = 64 * 1024
MAX_PROPERTIES = 252
MAX_KEY_CHARACTERS = 512
MAX_MESSAGE_BYTES = 48 * 1024
"""64 KiB on the wire, base64: 48 KiB of payload."""
MAX_DELAY_SECONDS = 7 * 24 * 3600
"""The longest invisibility of a queue message."""
_FORBIDDEN_IN_KEYS = re.compile(r"[/\\#?\x00-\x1f\x7f-\x9f]")


class StoreError(Exception):
    """Base of what a store answers; the caller that knows the row decides what it means."""


class RowExists(StoreError):
    """Insert of a key that is taken (409). `index`: which operation of a transaction."""

    def __init__(self, index: int = 0) -> None:
        super().__init__(f"the row of operation {index} exists")
        self.index = index


class RowChanged(StoreError):
    """The ETag does not match (412), or the row to change is gone (404). `index` as above."""

    def __init__(self, index: int = 0) -> None:
        super().__init__(f"the row of operation {index} has changed")
        self.index = index


class RowTooLarge(StoreError):
    """The row can't be stored; `property_name` is the largest part."""

    def __init__(self, message: str, property_name: str = "") -> None:
        super().__init__(message)
        self.property_name = property_name


@frozen_dataclass(frozen=True, slots=True)
class Row:
    """One row of a table. `etag` is empty until the store has given one."""

    pk: str
    rk: str
    values: Mapping[str, Value] = field(default_factory=dict)
    etag: str = ""

    def with_values(self, **values: Value) -> "Row":
        """The same row with some values changed; others, known or not, stay."""
        return replace(self, values={**self.values, **values})


@frozen_dataclass(frozen=True, slots=True)
class Operation:
    """One step of a transaction. `etag` guards replace and delete; "*" means whatever is there."""

    kind: Literal["insert", "replace", "upsert", "delete"]
    row: Row
    etag: str = "*"


@dataclass(frozen=True, slots=True)
class RowPage:
    """Rows ordered by (pk, rk); `token` goes on after the last of them, None at the end.

    A page can be empty and still have a token.
    """

    rows: Sequence[Row]
    token: str | None = None


class Table(Protocol):
    """Rows by key. Raises RowExists, RowChanged, RowTooLarge, and StoreUnavailable when storage does not answer."""

    def get(self, table: str, pk: str, rk: str) -> Row | None: ...

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
        """One call, at most `top` (1-1000) rows.

        In the partition `pk`: rows with `rk` <= RowKey < `rk_to`. With `pk_to`: rows of all partitions with
        `pk` <= PartitionKey < `pk_to` (row keys are not looked at). Neither: the whole table.
        `select` names the values that are wanted.
        """
        ...

    def insert(self, table: str, row: Row) -> str:
        """Gives the ETag. RowExists if the key is taken."""
        ...

    def replace(self, table: str, row: Row, etag: str = "*") -> str:
        """Replaces the whole row; RowChanged if the ETag is another one or the row is gone."""
        ...

    def upsert(self, table: str, row: Row) -> str: ...

    def delete(self, table: str, pk: str, rk: str, etag: str = "*") -> None:
        """RowChanged if the ETag is another one; a missing row is no error with "*"."""
        ...

    def transact(self, table: str, operations: Sequence[Operation]) -> list[str]:
        """All or nothing, in one partition, each row once: at most 100 operations and 4 MiB.

        Gives the ETags in order ("" for a delete). RowExists and RowChanged name the first operation
        that failed by its index.
        """
        ...


@dataclass(frozen=True)
class Waiting:
    """What a queue holds: about how many messages, hidden ones too, and for how long the first visible one has
    been there (None without one).
    """

    messages: int
    oldest_seconds: float | None


class Queue(Protocol):
    def send(self, queue: str, body: str, delay: float = 0.0) -> None:
        """Puts a message (at most 48 KiB of UTF-8) that never expires, visible after `delay` seconds."""
        ...

    def probe(self, queue: str) -> Waiting:
        """Proves that messages can be sent, by one that nobody sees and that is taken back; tells what waits."""
        ...


class Blob(Protocol):
    """Whole values by name, in one container."""

    def put(self, name: str, data: bytes) -> None: ...

    def get(self, name: str, offset: int = 0, length: int | None = None) -> bytes | None:
        """None if there is no such blob."""
        ...

    def delete(self, name: str) -> None:
        """A missing blob is no error."""
        ...

    def names(self, prefix: str, top: int = 1000) -> Sequence[str]:
        """At most `top` (1-5000) of the names that begin so, in the order of their characters. One call."""
        ...


class Secrets(Protocol):
    """One bundle of secrets per connection."""

    def get(self, tenant: str, name: str) -> Mapping[str, str] | None: ...

    def put(self, tenant: str, name: str, bundle: Mapping[str, str]) -> str:
        """Gives the version of the bundle."""
        ...

    def delete(self, tenant: str, name: str) -> None: ...

    def invalidate(self, tenant: str, name: str) -> None:
        """The next `get` gives no copy that was made before."""
        ...


class Clock(Protocol):
    def now(self) -> datetime:
        """The time in UTC, with time zone."""
        ...

    def monotonic(self) -> float:
        """Seconds that never go back."""
        ...

    def sleep(self, seconds: float) -> None: ...


class Ids(Protocol):
    def uuid(self) -> str:
        """A random UUID."""
        ...

    def token(self, size: int) -> str:
        """`size` random bytes, URL-safe text; fit for secrets."""
        ...

    def fraction(self) -> float:
        """A random number, 0 <= x < 1, for jitter."""
        ...


class Future(Protocol[R_co]):
    def result(self) -> R_co: ...


class Pool(Protocol):
    """Parallel work. An exception of a call is raised where its result is taken."""

    def map(self, call: Callable[[T], R], items: Sequence[T], width: int = 4) -> list[R]:
        """Results in the order of the items; after a failure no further item is begun."""
        ...

    def prefetch(self, call: Callable[[], R]) -> "Future[R]":
        """Starts `call` now, beside the caller."""
        ...


_NAMESPACE = uuid.UUID("3f5f4fd2-3d0a-5d0c-9f5b-1d2f4b6f7a10")
"""Fixed for ever: derived ids of stored records depend on it."""


def derived_id(*parts: str) -> str:
    """The UUID that these parts always give (a record's id from connection, entity and remote id)."""
    # What uuid.uuid5 does, without the object that it makes of it.
    digest = bytearray(
        hashlib.sha1(_NAMESPACE.bytes + "\x1f".join(parts).encode(), usedforsecurity=False).digest()
    )
    digest[6] = digest[6] & 0x0F | 0x50
    digest[8] = digest[8] & 0x3F | 0x80
    text = digest.hex()
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:32]}"


def wire_size(value: Value) -> int:
    """Bytes that a value takes in a row: text counts as UTF-16."""
    if isinstance(value, str):
        return len(value) * 2 if value.isascii() else len(value.encode("utf-16-le"))
    if isinstance(value, bytes):
        return len(value)
    return 8


def check_key(value: str) -> None:
    """Raises ValueError for a key that the service would refuse. Keys are built by our own layout."""
    if len(value) > MAX_KEY_CHARACTERS:
        raise ValueError(f"a key of {len(value)} characters is over {MAX_KEY_CHARACTERS}")
    if wrong := _FORBIDDEN_IN_KEYS.search(value):
        raise ValueError(f"a key can't hold {wrong[0]!r}")


def check_row(row: Row) -> int:
    """The size of the row in bytes; raises RowTooLarge or ValueError where the service would refuse it."""
    _check_partition(row.pk)
    check_key(row.rk)
    return row_size(row)


_check_partition = lru_cache(maxsize=256)(check_key)
"""Most rows are of a few partitions."""


def row_size(row: Row) -> int:
    """In bytes, of a row whose keys are known to be good; raises RowTooLarge.

    Sizes as the service counts them: 4 bytes + UTF-16 keys + for each property 8 + UTF-16 name + value.
    """
    if len(row.values) > MAX_PROPERTIES:
        raise RowTooLarge(f"a row with {len(row.values)} properties is over {MAX_PROPERTIES}")
    size = 4 + 2 * (len(row.pk) + len(row.rk))
    for name, value in row.values.items():
        size += 8 + 2 * len(name) + wire_size(value)
    if size > MAX_PROPERTY_BYTES:  # else no part of it can be too large either
        _check_sizes(row, size)
    return size


def _check_sizes(row: Row, size: int) -> None:
    """Raises RowTooLarge naming the property, or the largest of a row of this size."""
    sizes = {name: wire_size(value) for name, value in row.values.items()}
    for name, value_size in sizes.items():
        if value_size > MAX_PROPERTY_BYTES:
            raise RowTooLarge(f"property {name} has {value_size} bytes, over {MAX_PROPERTY_BYTES}", name)
    if size > MAX_ROW_BYTES:
        largest = max(sizes, key=lambda name: sizes[name], default="")
        raise RowTooLarge(f"a row of {size} bytes is over {MAX_ROW_BYTES}", largest)


def check_transaction(operations: Sequence[Operation]) -> None:
    """Raises ValueError for a transaction that the service would refuse as a whole."""
    if not 1 <= len(operations) <= MAX_TRANSACTION_OPERATIONS:
        raise ValueError(
            f"a transaction has 1 to {MAX_TRANSACTION_OPERATIONS} operations, not {len(operations)}"
        )
    if len({operation.row.pk for operation in operations}) != 1:
        raise ValueError("a transaction stays in one partition")
    if len({operation.row.rk for operation in operations}) != len(operations):
        raise ValueError("a transaction names each row once")


QUERY_ROWS = 1000
"""The most that one query gives."""


def every_row(
    table: Table, name: str, *, pk: str, rk: str = "", rk_to: str | None = None, about: int = 0
) -> Iterator[Row]:
    """All rows of a range of one partition, a page at a time. `about`: how many of them are wanted, if whoever asks takes
    no more as a rule.
    """
    token: str | None = None
    top = min(about, QUERY_ROWS) or QUERY_ROWS
    while True:
        page = table.query(name, pk=pk, rk=rk, rk_to=rk_to, top=top, token=token)
        yield from page.rows
        token, top = page.token, QUERY_ROWS
        if token is None:
            return


def some_rows(
    table: Table,
    name: str,
    *,
    pk: str,
    rk: str = "",
    rk_to: str | None = None,
    top: int,
    token: str | None = None,
) -> RowPage:
    """A page of a range of one partition, for who goes on beyond the last row's key: where there is no row, there is no
    token either. One call, but for pages that the service gives empty.
    """
    while True:
        page = table.query(name, pk=pk, rk=rk, rk_to=rk_to, top=top, token=token)
        token = page.token
        if page.rows or token is None:
            return page


lane_of: ContextVar[str] = ContextVar("lane", default="")
"""The queue's lane whose message is worked on; "" where a caller waits."""


class Meter:
    """Counts by (name, connection uid or ""), such as remote and storage calls; safe to share between threads."""

    def __init__(self) -> None:
        self._counts: Counter[tuple[str, str]] = Counter()
        self._lock = threading.Lock()

    def add(self, name: str, connection: str, amount: int) -> None:
        with self._lock:
            self._counts[name, connection] += amount

    def counts(self) -> dict[tuple[str, str], int]:
        with self._lock:
            return dict(self._counts)

    def total(self, name: str) -> int:
        """The sum over connections."""
        return sum(amount for (each, _), amount in self.counts().items() if each == name)


_meters: ContextVar[tuple[Meter, ...]] = ContextVar("meters", default=())


def count(name: str, *, connection: str = "", amount: int = 1) -> None:
    """Adds to every meter that is open around the caller. A Pool carries the context into its threads."""
    for meter in _meters.get():
        meter.add(name, connection, amount)


@contextmanager
def measured() -> Iterator[Meter]:
    """A meter for what happens inside the block; meters outside go on counting."""
    meter = Meter()
    token = _meters.set((*_meters.get(), meter))
    try:
        yield meter
    finally:
        _meters.reset(token)
