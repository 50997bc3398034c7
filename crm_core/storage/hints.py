"""Remote records that may have changed: read again by a worker, one for each entity of a connection at a time.

A row per connection and remote id, so that however often a record is announced, it waits once; one that is announced
again while it is read has another ETag and stays. Beside them a row per entity says that a worker was called: whoever
finds it there only touches it, and the worker ends when it finds neither hints nor a touch.
"""

from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass

from crm_core.model.connection import Tenant
from crm_core.ports import (
    MAX_TRANSACTION_OPERATIONS,
    Operation,
    Row,
    RowChanged,
    RowExists,
    Table,
    every_row,
)
from crm_core.storage import layout
from crm_core.storage.state import json_data, json_values


@dataclass(frozen=True)
class Hint:
    """A remote record that is to be read again."""

    entity: str
    rid: str
    row: Row


@dataclass(frozen=True)
class Heard:
    """What webhooks told of an entity: when the last one did, and how many records were read for them."""

    time: str = ""
    read: int = 0

    def and_more(self, time: str, read: int) -> "Heard":
        return Heard(max(self.time, time), self.read + read)


class Hints:
    def __init__(self, table: Table) -> None:
        self._table = table

    def add(self, tenant: Tenant, connection: str, entity: str, rids: Sequence[str], time: str) -> bool:
        """Whether a worker has to be called."""
        pk = layout.hint_pk(tenant, connection)
        called = False
        size = MAX_TRANSACTION_OPERATIONS - 1
        for start in range(0, len(rids), size):
            rows = [
                Operation(
                    "upsert", Row(pk, layout.held_rk(entity, rid), json_values({"rid": rid, "time": time}))
                )
                for rid in rids[start : start + size]
            ]
            worker = Row(pk, layout.hint_worker_rk(entity), json_values({"time": time}))
            try:
                self._table.transact(layout.EVENTS, [*rows, Operation("insert", worker)])
                called = True
            except RowExists:
                self._table.transact(layout.EVENTS, [*rows, Operation("upsert", worker)])
        return called

    def worker(self, tenant: Tenant, connection: str, entity: str) -> tuple[Row | None, Heard]:
        """To be read before the hints; with what was heard of the entity until now. One call."""
        first = layout.hint_worker_rk(entity)
        # Entities whose names begin like this one's are in the range too.
        rows = every_row(
            self._table,
            layout.EVENTS,
            pk=layout.hint_pk(tenant, connection),
            rk=first,
            rk_to=first + layout.HEARD + layout.AFTER,
        )
        found = {row.rk: row for row in rows}
        heard = found.get(first + layout.HEARD)
        return found.get(first), Heard(**json_data(heard)) if heard is not None else Heard()

    def dismiss(self, worker: Row, heard: Heard) -> bool:
        """False if it was touched since it was read: there may be new hints. `heard`: by the worker's end."""
        try:
            kept = Operation("upsert", _heard_row(worker.pk, worker.rk, heard))
            self._table.transact(layout.EVENTS, [Operation("delete", worker, worker.etag), kept])
        except RowChanged:
            return False
        return True

    def hear(self, tenant: Tenant, connection: str, entity: str, heard: Heard) -> None:
        """Keeps what was heard, of a worker that leaves before the end."""
        pk = layout.hint_pk(tenant, connection)
        self._table.upsert(layout.EVENTS, _heard_row(pk, layout.hint_worker_rk(entity), heard))

    def heard(self, tenant: Tenant, connection: str) -> dict[str, Heard]:
        """What webhooks told of each entity; what nobody has read yet counts by its time."""
        found: dict[str, Heard] = {}
        for row in self._workers(tenant, connection):
            entity = row.rk.removeprefix("~").removesuffix(layout.HEARD)
            data = json_data(row)
            found[entity] = found.get(entity, Heard()).and_more(data["time"], data.get("read", 0))
        return found

    def of(self, tenant: Tenant, connection: str, entity: str, top: int) -> list[Hint]:
        """Some of one entity."""
        page = self._table.query(
            layout.EVENTS,
            pk=layout.hint_pk(tenant, connection),
            rk=f"{entity}~",
            rk_to=f"{entity}~{layout.AFTER}",
            top=top,
        )
        return [Hint(entity, json_data(row)["rid"], row) for row in page.rows]

    def close(self, hint: Hint) -> bool:
        """False if the record was announced again since the hint was read."""
        try:
            self._table.delete(layout.EVENTS, hint.row.pk, hint.row.rk, hint.row.etag)
        except RowChanged:
            return self._gone(hint)
        return True

    def _gone(self, hint: Hint) -> bool:
        """Another worker has closed it."""
        return self._table.get(layout.EVENTS, hint.row.pk, hint.row.rk) is None

    def entities(self, tenant: Tenant, connection: str) -> Iterator[str]:
        """Those for which a worker was called."""
        for row in self._workers(tenant, connection):
            if not row.rk.endswith(layout.HEARD):
                yield row.rk.removeprefix("~")

    def _workers(self, tenant: Tenant, connection: str) -> Iterator[Row]:
        pk = layout.hint_pk(tenant, connection)
        return every_row(self._table, layout.EVENTS, pk=pk, rk="~", rk_to=f"~{layout.AFTER}")

    def drop(self, tenant: Tenant, connection: str, entity: str) -> None:
        """Forgets an entity that the connection does not read any more."""
        pk = layout.hint_pk(tenant, connection)
        while True:
            worker, _ = self.worker(tenant, connection, entity)
            hints = self.of(tenant, connection, entity, 1000)
            for hint in hints:
                with suppress(RowChanged):
                    self._table.delete(layout.EVENTS, hint.row.pk, hint.row.rk, hint.row.etag)
            if not hints and (worker is None or self.dismiss(worker, Heard())):
                self._table.delete(layout.EVENTS, pk, layout.hint_worker_rk(entity) + layout.HEARD)
                return


def _heard_row(pk: str, worker_rk: str, heard: Heard) -> Row:
    return Row(pk, worker_rk + layout.HEARD, json_values(vars(heard)))
