"""Connections: rows of the table `config`, one per connection and one per former version of a mapping."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any

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

    def keep_mappings(self, connection: Connection, entities: Iterable[str]) -> None:
        """Keeps the overrides that hold now, before others take their place; kept twice they are the same row."""
        for entity in entities:
            saved = connection.mappings.get(entity)
            if saved is not None:
                key = layout.mapping_rk(connection.uid, entity, saved["version"])
                inserted(self._table, layout.CONFIG, Row(connection.tenant.name, key, json_values(saved)))

    def mapping_versions(self, connection: Connection, entity: str) -> list[Mapping[str, Any]]:
        """The overrides that an entity's mapping had and has, newest first."""
        rk, rk_to = layout.mapping_range(connection.uid, entity)
        rows = every_row(self._table, layout.CONFIG, pk=connection.tenant.name, rk=rk, rk_to=rk_to)
        found: dict[int, Mapping[str, Any]] = {data["version"]: data for data in map(json_data, rows)}
        now = connection.mappings.get(entity)
        if now is not None:
            found[now["version"]] = now  # a save that lost to another one may have kept it already
        return [found[version] for version in sorted(found, reverse=True)]

    def delete(self, connection: Connection) -> None:
        rk, rk_to = layout.mapping_range(connection.uid)
        for row in list(every_row(self._table, layout.CONFIG, pk=connection.tenant.name, rk=rk, rk_to=rk_to)):
            self._table.delete(layout.CONFIG, row.pk, row.rk)
        self._table.delete(layout.CONFIG, connection.tenant.name, _PREFIX + connection.uid)


def _row(connection: Connection) -> Row:
    return Row(connection.tenant.name, _PREFIX + connection.uid, json_values(connection.to_json()))
