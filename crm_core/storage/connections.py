"""Connections: rows of the table `config`, one per connection."""

from collections.abc import Iterator
from dataclasses import replace

from crm_core.model.connection import Connection, Tenant
from crm_core.ports import Row, Table, every_row
from crm_core.storage import layout
from crm_core.storage.state import inserted, json_data, json_values, replaced

_PREFIX = "connection~"


class Connections:
    def __init__(self, table: Table) -> None:
        self._table = table

    def get(self, tenant: Tenant, uid: str) -> Connection | None:
        row = self._table.get(layout.CONFIG, tenant.name, f"{_PREFIX}{layout.quote(uid)}")
        return Connection.from_json(tenant, json_data(row), row.etag) if row else None

    def every(self, tenant: Tenant) -> Iterator[Connection]:
        """By uid; a tenant has tens of them, not thousands."""
        rows = every_row(
            self._table, layout.CONFIG, pk=tenant.name, rk=_PREFIX, rk_to=f"{_PREFIX}{layout.AFTER}"
        )
        for row in rows:
            yield Connection.from_json(tenant, json_data(row), row.etag)

    def insert(self, connection: Connection) -> Connection:
        return replace(connection, etag=inserted(self._table, layout.CONFIG, _row(connection)))

    def save(self, connection: Connection) -> Connection:
        """RowChanged if somebody else has saved it since it was read."""
        return replace(
            connection, etag=replaced(self._table, layout.CONFIG, _row(connection), connection.etag)
        )

    def delete(self, connection: Connection) -> None:
        self._table.delete(layout.CONFIG, connection.tenant.name, _PREFIX + connection.uid)


def _row(connection: Connection) -> Row:
    return Row(connection.tenant.name, _PREFIX + connection.uid, json_values(connection.to_json()))
