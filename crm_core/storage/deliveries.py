"""Deliveries: what goes out to a receiver, a row each, with every attempt; beside `events.py`, which has what came in.

In the partition of its connection a delivery has its own row and, while it is open or has failed, another one: by when it
is due next, or by its id. Both change in one transaction.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from crm_core.model.connection import Tenant
from crm_core.ports import Blob, Operation, Row, RowChanged, RowExists, RowPage, Table, Value, every_row
from crm_core.storage import layout
from crm_core.storage.ageing import PAGE_ROWS, drop
from crm_core.storage.state import json_data, json_values

State = Literal["open", "done", "failed", "discarded"]
OVER: frozenset[State] = frozenset({"done", "discarded"})
"""Nothing more becomes of these."""
MAX_INLINE = 40 * 1024
"""A longer body is a blob: a property of a row holds 64 KiB."""
MAX_TOGETHER = 40
"""So many new ones fit a transaction, whatever their bodies are."""
MAX_ATTEMPTS = 30
"""So many attempts are kept; those before the first of them were somebody's wish to send it again."""


@dataclass(frozen=True)
class Attempt:
    """`status`: of the answer, 0 if none came. `words`: how the answer begins, or why there is none."""

    time: str
    status: int
    ms: int
    words: str = ""


@dataclass(frozen=True)
class Delivery:
    """One version of a record for one receiver. `kind`: of its event; `time`: when that version was made. `body`: the same
    with every attempt; without a `content_type` it is the event itself, of which no message could be made. `due`: when it
    is to be sent next, or given up by who is sending it. `tries`: attempts since it was last open for the first time.
    `outcome`: in a word, what came of it.
    """

    id: str
    time: str
    entity: str
    record: str
    version: int
    kind: str
    content_type: str
    body: bytes = field(repr=False)
    headers: Mapping[str, str] = field(default_factory=dict)
    blob: str = ""
    state: State = "open"
    due: str = ""
    tries: int = 0
    attempts: tuple[Attempt, ...] = ()
    outcome: str = ""
    etag: str = field(default="", compare=False)

    def after(self, attempt: Attempt, state: State, due: str, outcome: str) -> "Delivery":
        kept = (*self.attempts, attempt)[-MAX_ATTEMPTS:]
        return replace(
            self, attempts=kept, tries=self.tries + 1, state=state, due=due if state == "open" else "", outcome=outcome
        )  # fmt: skip

    @property
    def place(self) -> str:
        """The row key by which it is found while something is left to do, "" for none."""
        if self.state == "open":
            return f"{layout.OPEN}{self.due}~{self.id}"
        return layout.FAILED + self.id if self.state == "failed" else ""


class Deliveries:
    def __init__(self, table: Table, blob: Blob) -> None:
        self._table = table
        self._blob = blob

    def insert(self, tenant: Tenant, connection: str, deliveries: Sequence[Delivery]) -> list[Delivery]:
        """Those that were not there before, as they are stored; at most MAX_TOGETHER at a time."""
        left = [self._shortened(tenant, connection, each) for each in deliveries]
        pk = layout.delivery_pk(tenant, connection)
        while left:
            operations = [operation for each in left for operation in _inserts(pk, each)]
            ends = [len(_inserts(pk, each)) for each in left]
            try:
                etags = self._table.transact(layout.EVENTS, operations)
            except RowExists as error:
                del left[_owner(ends, error.index)]
            else:
                starts = [sum(ends[:number]) for number in range(len(ends))]
                return [replace(each, etag=etags[start]) for each, start in zip(left, starts, strict=True)]
        return []

    def _shortened(self, tenant: Tenant, connection: str, delivery: Delivery) -> Delivery:
        if len(delivery.body) <= MAX_INLINE:
            return delivery
        name = layout.event_blob(tenant, connection, delivery.id)
        self._blob.put(name, delivery.body)
        return replace(delivery, body=b"", blob=name)

    def get(self, tenant: Tenant, connection: str, delivery_id: str) -> Delivery | None:
        """Without its body if that is in a blob."""
        row = self._table.get(
            layout.EVENTS, layout.delivery_pk(tenant, connection), layout.EVENT + delivery_id
        )
        return _delivery(row) if row else None

    def whole(self, delivery: Delivery) -> Delivery:
        """With its body, wherever that is."""
        return replace(delivery, body=self._blob.get(delivery.blob) or b"") if delivery.blob else delivery

    def save(self, tenant: Tenant, connection: str, before: Delivery, after: Delivery) -> Delivery:
        """RowChanged if somebody else has just changed it."""
        return self.save_all(tenant, connection, [(before, after)])[0]

    def save_all(
        self, tenant: Tenant, connection: str, changes: Sequence[tuple[Delivery, Delivery]]
    ) -> list[Delivery]:
        """All of them or, with RowChanged, none; at most MAX_TOGETHER."""
        pk = layout.delivery_pk(tenant, connection)
        kept = [
            (before, self._shortened(tenant, connection, after) if after.body != before.body else after)
            for before, after in changes
        ]
        operations: list[Operation] = []
        places: list[int] = []
        for before, after in kept:
            places.append(len(operations))
            operations.append(Operation("replace", _row(pk, after), before.etag))
            if before.place != after.place:
                if before.place:
                    operations.append(Operation("delete", Row(pk, before.place)))
                operations += _index(pk, after)
        etags = self._table.transact(layout.EVENTS, operations)
        return [replace(after, etag=etags[place]) for (_, after), place in zip(kept, places, strict=True)]

    # --- what there is -------------------------------------------------------------------------------------------

    def page(
        self,
        tenant: Tenant,
        connection: str,
        *,
        top: int,
        token: str | None,
        since: str = "",
        until: str = "",
    ) -> tuple[list[Delivery], str | None]:
        """Newest first, without the bodies that are in blobs. `since`, `until`: how their ids begin (`delivery_time`), the
        newest of them and the oldest.
        """
        page = self._range(tenant, connection, layout.EVENT, top, token, since, until)
        return [_delivery(row) for row in page.rows], page.token

    def failed(
        self,
        tenant: Tenant,
        connection: str,
        *,
        top: int,
        token: str | None,
        since: str = "",
        until: str = "",
    ) -> tuple[list[str], str | None]:
        """The ids of those that wait for a person, newest first."""
        page = self._range(tenant, connection, layout.FAILED, top, token, since, until)
        return [row.rk.removeprefix(layout.FAILED) for row in page.rows], page.token

    def drop_old(self, tenant: Tenant, connection: str, before: int, token: str | None) -> str | None:
        """Deletes what is over of a page of the deliveries of versions made before a time (epoch milliseconds); gives the
        next page. Those that are open or failed stay.
        """
        pk = layout.delivery_pk(tenant, connection)
        page = self._table.query(
            layout.EVENTS, pk=pk, rk=layout.EVENT + layout.newest_first_from(before), rk_to=layout.EVENT + layout.AFTER,
            top=PAGE_ROWS, token=token, select=["json"],
        )  # fmt: skip
        over = [(row, data) for row in page.rows if (data := json_data(row))["state"] in OVER]
        gone = drop(self._table, layout.EVENTS, [row for row, _ in over])
        for row, data in over:
            if data["blob"] and row.rk in gone:
                self._blob.delete(data["blob"])
        return page.token

    def due(self, tenant: Tenant, connection: str, now: str) -> Iterator[str]:
        """The ids of those that are to be sent, the one that has waited longest first."""
        pk = layout.delivery_pk(tenant, connection)
        rows = every_row(self._table, layout.EVENTS, pk=pk, rk=layout.OPEN, rk_to=layout.OPEN + now)
        for row in rows:
            yield row.rk.rpartition("~")[2]

    def any_due(self, tenant: Tenant, connection: str, now: str) -> bool:
        pk = layout.delivery_pk(tenant, connection)
        page = self._table.query(layout.EVENTS, pk=pk, rk=layout.OPEN, rk_to=layout.OPEN + now, top=1)
        return bool(page.rows)

    def open(
        self, tenant: Tenant, connection: str, *, top: int, token: str | None
    ) -> tuple[list[str], str | None]:
        """The ids of those that are being sent, the one that is due first first."""
        page = self._range(tenant, connection, layout.OPEN, top, token)
        return [row.rk.rpartition("~")[2] for row in page.rows], page.token

    def _range(
        self,
        tenant: Tenant,
        connection: str,
        kind: str,
        top: int,
        token: str | None,
        since: str = "",
        until: str = "",
    ) -> RowPage:
        """`kind`: how the keys of the rows begin; newer ones come first."""
        return self._table.query(
            layout.EVENTS, pk=layout.delivery_pk(tenant, connection), rk=kind + until,
            rk_to=kind + since + layout.AFTER, top=top, token=token,
        )  # fmt: skip


def _owner(sizes: Sequence[int], index: int) -> int:
    """Which of several with so many operations each the operation belongs to."""
    end = 0
    for position, size in enumerate(sizes):
        end += size
        if index < end:
            return position
    raise RowChanged(index)


def _index(pk: str, delivery: Delivery) -> list[Operation]:
    return [Operation("insert", Row(pk, delivery.place, json_values({})))] if delivery.place else []


def _inserts(pk: str, delivery: Delivery) -> list[Operation]:
    return [Operation("insert", _row(pk, delivery)), *_index(pk, delivery)]


_KEPT = (
    "time",
    "entity",
    "record",
    "version",
    "kind",
    "content_type",
    "blob",
    "state",
    "due",
    "tries",
    "outcome",
)


def _row(pk: str, delivery: Delivery) -> Row:
    """The body as bytes of its own: as text it would take twice the place."""
    data: dict[str, Any] = {name: getattr(delivery, name) for name in _KEPT}
    data["headers"] = dict(delivery.headers)
    data["attempts"] = [vars(each) for each in delivery.attempts]
    body: Mapping[str, Value] = {} if delivery.blob else {"body": delivery.body}
    return Row(pk, layout.EVENT + delivery.id, {**json_values(data), **body})


def _delivery(row: Row) -> Delivery:
    data = json_data(row)
    body = row.values.get("body", b"")
    assert isinstance(body, bytes)
    attempts = tuple(Attempt(**each) for each in data.pop("attempts"))
    known = {name: data[name] for name in (*_KEPT, "headers")}
    return Delivery(row.rk.removeprefix(layout.EVENT), body=body, attempts=attempts, etag=row.etag, **known)
