"""Entries of a feed that are held back while a create of ours is open: one of them may be what it made.

A row per connection and remote id. Whoever has settled the create reads that record again and closes the row; one that
is held once more in the meantime has another ETag and stays open.
"""

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass

from crm_core.model.connection import Tenant
from crm_core.ports import Row, RowChanged, Table
from crm_core.storage import layout
from crm_core.storage.state import json_data, json_values


@dataclass(frozen=True)
class HeldEntry:
    """A remote record that is to be read once the create is settled."""

    connection: str
    entity: str
    rid: str
    row: Row


class Held:
    def __init__(self, table: Table) -> None:
        self._table = table

    def hold(self, tenant: Tenant, connection: str, entity: str, rid: str, time: str) -> None:
        """Before the cursor is saved that has passed it."""
        values = json_values({"entity": entity, "rid": rid, "time": time})
        self._table.upsert(
            layout.EVENTS, Row(layout.held_pk(tenant, connection), layout.held_rk(entity, rid), values)
        )

    def every(self, tenant: Tenant) -> Iterator[HeldEntry]:
        """Of all connections."""
        token: str | None = None
        first, after = layout.held_range(tenant)
        while True:
            page = self._table.query(layout.EVENTS, pk=first, pk_to=after, token=token)
            for row in page.rows:
                yield _entry(row)
            token = page.token
            if token is None:
                return

    def of(self, tenant: Tenant, connection: str, entity: str, top: int) -> list[HeldEntry]:
        """Some of one entity of a connection."""
        page = self._table.query(
            layout.EVENTS,
            pk=layout.held_pk(tenant, connection),
            rk=f"{entity}~",
            rk_to=f"{entity}~{layout.AFTER}",
            top=top,
        )
        return [_entry(row) for row in page.rows]

    def close(self, entry: HeldEntry) -> None:
        """Unless it was held again since it was read."""
        with suppress(RowChanged):
            self._table.delete(layout.EVENTS, entry.row.pk, entry.row.rk, entry.row.etag)


def _entry(row: Row) -> HeldEntry:
    data = json_data(row)
    return HeldEntry(row.pk.rpartition("~")[2], data["entity"], data["rid"], row)
