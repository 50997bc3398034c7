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

    def worker(self, tenant: Tenant, connection: str, entity: str) -> Row | None:
        """To be read before the hints."""
        return self._table.get(
            layout.EVENTS, layout.hint_pk(tenant, connection), layout.hint_worker_rk(entity)
        )

    def dismiss(self, worker: Row) -> bool:
        """False if it was touched since it was read: there may be new hints."""
        try:
            self._table.delete(layout.EVENTS, worker.pk, worker.rk, worker.etag)
        except RowChanged:
            return False
        return True

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
        rows = every_row(
            self._table,
            layout.EVENTS,
            pk=layout.hint_pk(tenant, connection),
            rk="~",
            rk_to=f"~{layout.AFTER}",
        )
        for row in rows:
            yield row.rk.removeprefix("~")

    def drop(self, tenant: Tenant, connection: str, entity: str) -> None:
        """Forgets an entity that the connection does not read any more."""
        while True:
            worker = self.worker(tenant, connection, entity)
            hints = self.of(tenant, connection, entity, 1000)
            for hint in hints:
                with suppress(RowChanged):
                    self._table.delete(layout.EVENTS, hint.row.pk, hint.row.rk, hint.row.etag)
            if not hints and (worker is None or self.dismiss(worker)):
                return
