"""Records, redirects, tombs, history and open items: one partition per tenant, entity and bucket.

A change of a record, of its open items and of its history is one transaction under the record's ETag.
"""

import json
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from crm_core.errors import StoreUnavailable
from crm_core.frozen import frozen_dataclass
from crm_core.model.connection import Tenant
from crm_core.model.record import SCHEMA_VERSION, Record, open_items
from crm_core.model.record_event import DELETED_AT, RecordEvent
from crm_core.ports import (
    MAX_TRANSACTION_BYTES,
    MAX_TRANSACTION_OPERATIONS,
    Operation,
    Pool,
    Row,
    RowChanged,
    RowExists,
    RowTooLarge,
    StoreError,
    Table,
    Value,
    every_row,
    row_size,
    some_rows,
    wire_size,
)
from crm_core.storage import layout
from crm_core.storage.ageing import PAGE_ROWS, drop

PLAIN_CHARACTERS = 30_000
"""Longer JSON is compressed; what is shorter stays readable in any storage browser (docs/adr/0002)."""
PART_BYTES = 60 * 1024
SCAN_PAGE = 1000
MAX_WALK_CALLS = 20
MAX_EXAMINED = 5000
"""Rows that one page of a filtered walk looks at: a filter that finds nothing must not read a whole table."""
MAX_REDIRECTS = 5
WIRE_FACTOR, WIRE_ROW_BYTES = 3, 1024
"""The most that a row grows on the wire: escapes and base64, part headers."""


@dataclass(frozen=True)
class Redirect:
    """The remote record of this derived id is the record `to`. `version`: the last one of the record that was here, if one
    was: a record that is made here again goes on from it.
    """

    to: str
    version: int = 0


@dataclass(frozen=True)
class Tomb:
    """A delete was read for a remote id that the hub never had: an older page must not create it."""

    time: str
    connection: str
    rid: str


@frozen_dataclass(frozen=True, slots=True)
class Stored:
    """What a row at a record id holds, and its ETag."""

    id: str
    content: Record | Redirect | Tomb
    etag: str


@dataclass(frozen=True)
class HistoryEntry:
    """One step of a record: the version it made, when, by whom (an origin), in which run, and the values before.

    `change`: `update`, `delete` (also one that only marks) or `revive`. `losers`: of each conflict that was decided, the
    value that was given up; `policies`: what decided it, a policy's name or `person`. `by`: the principal of an app's write.
    `new`: the values that it gave, and `made`, in the first step alone, all values that the record was made with: noted
    when the step is stored, so that nobody has to read what came after it. Both are missing where the row would become
    long, and in rows of earlier times.
    """

    version: int
    time: str
    origin: str
    run: str
    old: Mapping[str, Any]
    change: str = "update"
    losers: Mapping[str, Any] = field(default_factory=dict)
    by: str = ""
    policies: Mapping[str, str] = field(default_factory=dict)
    new: Mapping[str, Any] = field(default_factory=dict, compare=False)
    made: Mapping[str, Any] | None = field(default=None, compare=False)

    @property
    def died(self) -> bool:
        """Whether the record was dead from this step on: a delete that only marks says so in a field."""
        return self.change == "delete" and DELETED_AT not in self.old

    @property
    def revived(self) -> bool:
        return self.change == "revive"

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> "HistoryEntry":
        """What a newer version of this code wrote beside it is passed over."""
        return cls(**{name: value for name, value in data.items() if name in cls.__dataclass_fields__})


@frozen_dataclass(frozen=True, slots=True)
class RecordWrite:
    """One record to be written: what was read (None: nothing there), what it becomes, and its history.

    `event`: what happened, for each of the connections in `tells`, which deliver it.
    """

    id: str
    before: Stored | None
    after: "Record | Tomb | Redirect"
    history: HistoryEntry | None = None
    event: RecordEvent | None = None
    tells: tuple[str, ...] = ()


@dataclass
class CommitResult:
    """`stale`: the row was not as it had been read: decide again. `too_large`: with what is too large. `unsure`: what was
    sent and not answered.
    """

    written: list[RecordWrite] = field(default_factory=list)
    stale: list[RecordWrite] = field(default_factory=list)
    too_large: list[tuple[RecordWrite, str]] = field(default_factory=list)
    unsure: list[RecordWrite] = field(default_factory=list)


class Records:
    """The records of all tenants. Raises StoreUnavailable when storage does not answer."""

    def __init__(self, table: Table, pool: Pool) -> None:
        self._table = table
        self._pool = pool

    @property
    def table(self) -> Table:
        """What they are kept in."""
        return self._table

    def get(self, tenant: Tenant, entity: str, record_id: str) -> Stored | None:
        row = self._table.get(
            layout.RECORDS, layout.records_pk(tenant, entity, layout.bucket(record_id)), record_id
        )
        return _stored(entity, row) if row else None

    def read_many(
        self, tenant: Tenant, entity: str, record_bucket: str, ids: Sequence[str], known: int
    ) -> dict[str, Stored]:
        """Rows of one bucket by id; what is not there is left out.

        `known`: about how many records the entity has: a scan of the partition is one call per 1,000 rows, which
        beats point reads when many of its rows are wanted.
        """
        pk = layout.records_pk(tenant, entity, record_bucket)
        scan_calls = 1 + known / len(layout.BUCKETS) / SCAN_PAGE
        if len(ids) <= scan_calls * 4:  # point reads run four at a time
            rows = self._pool.map(lambda record_id: self._table.get(layout.RECORDS, pk, record_id), ids)
            return {row.rk: _stored(entity, row) for row in rows if row}
        return self._scan_for(pk, entity, ids)

    def _scan_for(self, pk: str, entity: str, ids: Sequence[str]) -> dict[str, Stored]:
        """By scanning, but with no more calls than point reads would take: the partition may hold far more than known."""
        wanted, found, token = set(ids), dict[str, Stored](), None
        for _ in range(max(1, len(ids) // 4)):
            page = self._table.query(layout.RECORDS, pk=pk, rk=min(ids), rk_to=max(ids) + "~", token=token)
            found |= {row.rk: _stored(entity, row) for row in page.rows if row.rk in wanted}
            token = page.token
            if token is None:
                return found
        rest = [record_id for record_id in ids if record_id not in found]
        rows = self._pool.map(lambda record_id: self._table.get(layout.RECORDS, pk, record_id), rest)
        return found | {row.rk: _stored(entity, row) for row in rows if row}

    def page(
        self, tenant: Tenant, entity: str, record_bucket: str, *, top: int, token: str | None, after: str = ""
    ) -> tuple[list[Stored], str | None]:
        """Rows of one bucket in the order of their ids: (at most `top`, how to go on or None).

        `after`: only those after this id.
        """
        page = some_rows(
            self._table,
            layout.RECORDS,
            pk=layout.records_pk(tenant, entity, record_bucket),
            rk=layout.after_id(after) if after else "",
            rk_to=layout.RECORD_ROWS_END,
            top=top,
            token=token,
        )
        return [_stored(entity, row) for row in page.rows], page.token

    def walk(
        self,
        tenant: Tenant,
        entity: str,
        place: Mapping[str, Any],
        *,
        top: int,
        test: Callable[[Record], bool] | None = None,
        dead: bool = False,
    ) -> tuple[list[Record], Mapping[str, Any] | None]:
        """Records of all buckets in the order of their ids: (at most `top`, the place after them or None at the end).

        `place`: {} for the beginning. `test`: only those that pass it, of at most MAX_EXAMINED rows; redirects and
        tombs are passed over, and deleted records unless `dead`. So a page can be short, or empty, and not the last.
        """
        bucket: int = place.get("bucket", 0)
        after: str = place.get("after", "")
        going: str | None = place.get("token")  # of a place that an older version gave out
        found: list[Record] = []
        calls = examined = 0
        while len(found) < top and bucket < len(layout.BUCKETS):
            size = top - len(found) if test is None else min(SCAN_PAGE, MAX_EXAMINED - examined)
            if size == 0 or calls == MAX_WALK_CALLS:
                break
            calls += 1
            rows, going = self.page(
                tenant, entity, layout.BUCKETS[bucket], top=size, token=going, after=after
            )
            for row in rows:
                examined, after = examined + 1, row.id
                record = row.content
                if not isinstance(record, Record) or (record.dead and not dead):
                    continue
                if test is None or test(record):
                    found.append(record)
                    if len(found) == top:
                        break
            if going is None and (not rows or after == rows[-1].id):
                bucket, after = bucket + 1, ""
        return found, {"bucket": bucket, "after": after} if bucket < len(layout.BUCKETS) else None

    def find(self, tenant: Tenant, entity: str, record_id: str) -> Record | None:
        """By id, redirects followed."""
        _, stored = self.follow(tenant, entity, record_id)
        return stored.content if stored is not None and isinstance(stored.content, Record) else None

    def follow(self, tenant: Tenant, entity: str, record_id: str) -> tuple[str, Stored | None]:
        """(where an id leads, what is there): a record, a tomb, or None for nothing."""
        for _ in range(MAX_REDIRECTS):
            stored = self.get(tenant, entity, record_id)
            if stored is None or not isinstance(stored.content, Redirect):
                return record_id, stored
            record_id = stored.content.to
        return record_id, None

    def redirect(
        self, tenant: Tenant, entity: str, record_id: str, to: str, tomb: Stored | None = None
    ) -> str:
        """Lets the id lead to another record; gives where it leads, since one that is there stays.

        `tomb`: what was read at the id, to be replaced.
        """
        pk = layout.records_pk(tenant, entity, layout.bucket(record_id))
        row = Row(pk, record_id, _values(Redirect(to)))
        try:
            if tomb is None:
                self._table.insert(layout.RECORDS, row)
            else:
                self._table.replace(layout.RECORDS, row, tomb.etag)
        except (RowExists, RowChanged):
            present = self.get(tenant, entity, record_id)
            return present.content.to if present and isinstance(present.content, Redirect) else record_id
        return to

    def redirect_many(self, tenant: Tenant, entity: str, leads: Mapping[str, str]) -> None:
        """Lets ids lead to other records, as many to a transaction as it takes; what is there already stays."""
        buckets: dict[str, list[Row]] = {}
        for record_id, to in sorted(leads.items()):
            pk = layout.records_pk(tenant, entity, layout.bucket(record_id))
            buckets.setdefault(pk, []).append(Row(pk, record_id, _values(Redirect(to))))
        chunks = [
            rows[start : start + MAX_TRANSACTION_OPERATIONS]
            for rows in buckets.values()
            for start in range(0, len(rows), MAX_TRANSACTION_OPERATIONS)
        ]

        def inserted(rows: list[Row]) -> None:
            try:
                self._table.transact(layout.RECORDS, [Operation("insert", row) for row in rows])
            except RowExists:
                for row in rows:
                    self.redirect(tenant, entity, row.rk, leads[row.rk])

        self._pool.map(inserted, chunks)

    def scan(self, tenant: Tenant, entity: str, record_bucket: str) -> Iterator[Stored]:
        """Every row of one bucket, a page at a time."""
        pk = layout.records_pk(tenant, entity, record_bucket)
        for row in every_row(self._table, layout.RECORDS, pk=pk, rk_to=layout.RECORD_ROWS_END):
            yield _stored(entity, row)

    def history(
        self, tenant: Tenant, entity: str, record_id: str, first: int = 0, *, about: int = 0
    ) -> Iterator[HistoryEntry]:
        """Oldest first, from the version `first` on. `about`: how many of them are wanted, if not all."""
        pk = layout.records_pk(tenant, entity, layout.bucket(record_id))
        _, after = layout.history_range(record_id)
        rk = layout.history_rk(record_id, first)
        for row in every_row(self._table, layout.RECORDS, pk=pk, rk=rk, rk_to=after, about=about):
            yield HistoryEntry.from_json(json.loads(_text(row.values)))

    def steps(
        self, tenant: Tenant, entity: str, record_bucket: str, after: str, last: str
    ) -> Iterator[tuple[str, HistoryEntry]]:
        """(record id, step) of the records of one bucket after an id, up to the last one; a record's steps oldest first."""
        pk = layout.records_pk(tenant, entity, record_bucket)
        rk, rk_to = layout.histories_range(after, last)
        for row in every_row(self._table, layout.RECORDS, pk=pk, rk=rk, rk_to=rk_to):
            yield row.rk.split("~")[1], HistoryEntry.from_json(json.loads(_text(row.values)))

    def history_page(
        self, tenant: Tenant, entity: str, record_bucket: str, *, top: int, after: str
    ) -> tuple[list[tuple[str, str, HistoryEntry]], str]:
        """(row key, record id, step) of the history of one bucket, record by record, beyond the row key `after`; and the
        place after them, "" at the end. One call, unless a page is empty and not the last.
        """
        pk = layout.records_pk(tenant, entity, record_bucket)
        rk, rk_to = layout.every_history_range(after)
        page = some_rows(self._table, layout.RECORDS, pk=pk, rk=rk, rk_to=rk_to, top=top)
        found = [
            (row.rk, row.rk.split("~")[1], HistoryEntry.from_json(json.loads(_text(row.values))))
            for row in page.rows
        ]
        return found, page.rows[-1].rk if page.token else ""

    def drop_old_history(
        self, tenant: Tenant, entity: str, record_bucket: str, before: str, after: str
    ) -> str:
        """Deletes the steps made before a time (RFC 3339) of a page of one bucket; gives the next page, "" at the end."""
        found, following = self.history_page(tenant, entity, record_bucket, top=PAGE_ROWS, after=after)
        pk = layout.records_pk(tenant, entity, record_bucket)
        old = [Row(pk, rk, etag="*") for rk, _, step in found if step.time < before]  # a step never changes
        drop(self._table, layout.RECORDS, old)
        return following

    def open_items(
        self, tenant: Tenant, entity: str, record_bucket: str, *, kind: str = "", connection: str = ""
    ) -> Iterator[tuple[str, str, str]]:
        """(kind, connection uid, record id) of every open item of one bucket, or only those of a kind, and of a
        connection. Those of the kind `event`, of which a record has one for each version, only where that is asked for.
        """
        pk = layout.records_pk(tenant, entity, record_bucket)
        first = f"~{kind}~{connection}~" if connection else f"~{kind}~" if kind else "~"
        for row in every_row(self._table, layout.RECORDS, pk=pk, rk=first, rk_to=f"{first}{layout.AFTER}"):
            _, found, uid, record_id, *_ = row.rk.split("~")
            if kind or found != layout.EVENT_ITEM:
                yield found, uid, record_id

    def events(
        self, tenant: Tenant, entity: str, record_bucket: str, connection: str
    ) -> Iterator[RecordEvent]:
        """What a connection has yet to deliver, of one bucket: record by record, the oldest version first."""
        pk = layout.records_pk(tenant, entity, record_bucket)
        first = f"~{layout.EVENT_ITEM}~{connection}~"
        for row in every_row(self._table, layout.RECORDS, pk=pk, rk=first, rk_to=f"{first}{layout.AFTER}"):
            *_, record_id, version = row.rk.split("~")
            yield RecordEvent.from_json(record_id, entity, int(version), json.loads(_text(row.values)))

    def close_events(
        self, tenant: Tenant, entity: str, record_bucket: str, connection: str, events: Iterable[RecordEvent]
    ) -> None:
        """Deletes what a connection had to deliver, of one bucket, at most 100; what is gone already is."""
        pk = layout.records_pk(tenant, entity, record_bucket)
        left = [
            Operation("delete", Row(pk, layout.event_item_rk(connection, each.record, each.version)))
            for each in events
        ]
        while left:
            try:
                self._table.transact(layout.RECORDS, left)
            except RowChanged as error:
                del left[error.index]
            else:
                return

    def open_page(
        self,
        tenant: Tenant,
        entity: str,
        record_bucket: str,
        kind: str,
        *,
        connection: str,
        after: str,
        top: int,
    ) -> tuple[list[tuple[str, str]], str]:
        """(record id, connection uid) of open items of a kind in one bucket, at most `top`, beyond the place `after` ("" for
        the beginning), and the place after them, "" at the end. One call.
        """
        rk, rk_to = layout.open_items_range(kind, connection, after)
        pk = layout.records_pk(tenant, entity, record_bucket)
        page = some_rows(self._table, layout.RECORDS, pk=pk, rk=rk, rk_to=rk_to, top=top)
        found = [(row.rk.rpartition("~")[2], row.rk.split("~")[2]) for row in page.rows]
        return found, page.rows[-1].rk if page.token else ""

    def commit(
        self,
        tenant: Tenant,
        entity: str,
        record_bucket: str,
        writes: Iterable[RecordWrite],
        result: CommitResult | None = None,
    ) -> CommitResult:
        """Writes records of one bucket, as many to a transaction as fit. `result`: to be filled in; it has what was done
        also where this raises.

        A transaction in which one row was not as expected is sent again without it; where rows were expected to
        be missing and one exists, most others will exist too, so the whole transaction is stale.
        """
        pk = layout.records_pk(tenant, entity, record_bucket)
        result = CommitResult() if result is None else result
        for chunk in _pack(pk, writes, result):
            self._commit_chunk(chunk, result)
        return result

    def _commit_chunk(self, chunk: list[tuple[RecordWrite, list[Operation]]], result: CommitResult) -> None:
        while chunk:
            try:
                self._table.transact(
                    layout.RECORDS, [operation for _, operations in chunk for operation in operations]
                )
            except (RowExists, RowChanged) as error:
                failed = _owner(chunk, error)
                if isinstance(error, RowExists) and chunk[failed][0].before is None:
                    result.stale.extend(write for write, _ in chunk)
                    return
                result.stale.append(chunk.pop(failed)[0])
            except StoreUnavailable:
                result.unsure.extend(write for write, _ in chunk)
                raise
            else:
                result.written.extend(write for write, _ in chunk)
                return


def _owner(chunk: list[tuple[RecordWrite, list[Operation]]], error: RowExists | RowChanged) -> int:
    """Which write of a chunk the failed operation belongs to."""
    end = 0
    for position, (_, operations) in enumerate(chunk):
        end += len(operations)
        if error.index < end:
            return position
    raise StoreError(f"operation {error.index} of {end} can't have failed")


def _pack(
    pk: str, writes: Iterable[RecordWrite], result: CommitResult
) -> Iterator[list[tuple[RecordWrite, list[Operation]]]]:
    """Writes with their operations, in groups that fit a transaction; what fits no row goes to `too_large`."""
    chunk: list[tuple[RecordWrite, list[Operation]]] = []
    operations_count = size = 0
    for write in writes:
        operations = _operations(pk, write)
        try:
            needed = sum(row_size(operation.row) * WIRE_FACTOR + WIRE_ROW_BYTES for operation in operations)
        except RowTooLarge:
            result.too_large.append((write, _largest_field(write.after)))
            continue
        if chunk and (
            operations_count + len(operations) > MAX_TRANSACTION_OPERATIONS
            or size + needed > MAX_TRANSACTION_BYTES
        ):
            yield chunk
            chunk, operations_count, size = [], 0, 0
        chunk.append((write, operations))
        operations_count += len(operations)
        size += needed
    if chunk:
        yield chunk


def _largest_field(content: Record | Tomb | Redirect) -> str:
    if not isinstance(content, Record) or not content.fields:
        return ""
    return max(content.fields, key=lambda name: len(str(content.fields[name])))


def _operations(pk: str, write: RecordWrite) -> list[Operation]:
    """The record's row, the difference of its open items and its history entry."""
    row = Row(pk, write.id, _values(write.after))
    operations = [
        Operation("replace", row, write.before.etag) if write.before is not None else Operation("insert", row)
    ]
    wanted, stored = _items(write.after), _items(write.before.content if write.before else None)
    if wanted != stored:
        for kind, connection in sorted(wanted - stored):
            rk = layout.open_item_rk(kind, connection, write.id)
            operations.append(Operation("insert", Row(pk, rk, {"v": SCHEMA_VERSION})))
        for kind, connection in sorted(stored - wanted):
            operations.append(Operation("delete", Row(pk, layout.open_item_rk(kind, connection, write.id))))
    if write.event is not None:
        values = _packed({"v": SCHEMA_VERSION, **write.event.to_json()})
        for uid in write.tells:
            rk = layout.event_item_rk(uid, write.id, write.event.version)
            operations.append(Operation("insert", Row(pk, rk, values)))
    if write.history is not None:
        rk = layout.history_rk(write.id, write.history.version)
        operations.append(Operation("insert", Row(pk, rk, _step_values(write, write.history))))
    return operations


def _step_values(write: RecordWrite, step: HistoryEntry) -> dict[str, Value]:
    told: dict[str, Any] = {"v": SCHEMA_VERSION}
    for name in ("version", "time", "origin", "run", "old", "change", "losers", "by", "policies"):
        value = getattr(step, name)
        if value or name not in ("losers", "by", "policies"):
            told[name] = value
    before = write.before.content if write.before else None
    if not isinstance(before, Record) or not isinstance(write.after, Record):
        return _packed(told)
    beside: dict[str, Any] = {"new": {name: write.after.fields.get(name) for name in step.old}}
    if before.version == 1:
        beside["made"] = before.fields
    text = _json_text({**told, **beside})
    return _packed_text(text if len(text) <= PLAIN_CHARACTERS else _json_text(told))


def _items(content: Record | Redirect | Tomb | None) -> frozenset[tuple[str, str]]:
    return open_items(content) if isinstance(content, Record) else frozenset()


def _packed(data: Mapping[str, Any]) -> dict[str, Value]:
    return _packed_text(_json_text(data))


def _json_text(data: Mapping[str, Any]) -> str:
    return json.dumps(data, ensure_ascii=False, separators=(",", ":"), sort_keys=True)


def _packed_text(text: str) -> dict[str, Value]:
    """JSON as properties: `json` while short, else compressed in parts `z0`, `z1`, ..."""
    # No character takes more than two of UTF-16.
    if len(text) * 2 <= PLAIN_CHARACTERS or wire_size(text) <= PLAIN_CHARACTERS * 2:
        return {"json": text}
    data = zlib.compress(text.encode())
    parts = (data[start : start + PART_BYTES] for start in range(0, len(data), PART_BYTES))
    return {f"z{number}": part for number, part in enumerate(parts)}


def _text(values: Mapping[str, Value]) -> str:
    if "json" in values:
        return str(values["json"])
    parts: list[bytes] = []
    while (part := values.get(f"z{len(parts)}")) is not None:
        assert isinstance(part, bytes)
        parts.append(part)
    return zlib.decompress(b"".join(parts)).decode()


def _values(content: Record | Redirect | Tomb) -> dict[str, Value]:
    if isinstance(content, Record):
        return {"kind": "record", **_packed_text(content.to_json())}
    if isinstance(content, Redirect):
        last = {"version": content.version} if content.version else {}
        return {"kind": "redirect", "v": SCHEMA_VERSION, "to": content.to, **last}
    return {"kind": "tomb", **_packed({"v": SCHEMA_VERSION, **vars(content)})}


def _stored(entity: str, row: Row) -> Stored:
    kind = row.values["kind"]
    content: Record | Redirect | Tomb
    if kind == "record":
        content = Record.from_json(row.rk, entity, _text(row.values))
    elif kind == "redirect":
        content = Redirect(str(row.values["to"]), int(str(row.values.get("version", 0))))
    else:
        data = json.loads(_text(row.values))
        content = Tomb(data["time"], data["connection"], data["rid"])
    return Stored(row.rk, content, row.etag)
