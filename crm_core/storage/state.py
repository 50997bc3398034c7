"""Rows of sync's state: connections, their entities, runs, dead letters and figures."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from crm_core.model.connection import Tenant
from crm_core.model.record import SCHEMA_VERSION
from crm_core.model.state import ConnectionState, EntityState, Run
from crm_core.ports import Row, Table, Value
from crm_core.storage import layout


def json_values(data: Mapping[str, Any]) -> dict[str, Value]:
    """A small row's values: its JSON in one readable property."""
    return {"v": SCHEMA_VERSION, "json": json.dumps(data, ensure_ascii=False, sort_keys=True)}


def json_data(row: Row) -> dict[str, Any]:
    data: dict[str, Any] = json.loads(str(row.values["json"]))
    return data


@dataclass(frozen=True)
class States:
    """What one query tells of a connection."""

    connection: ConnectionState
    entities: Mapping[str, EntityState]


class StateStore:
    """Every save of a row is conditional on the ETag it was read with: RowChanged, and nothing was written."""

    def __init__(self, table: Table) -> None:
        self._table = table

    def read(self, tenant: Tenant, connection: str) -> States | None:
        """One query; None where the connection is gone."""
        page = self._table.query(layout.STATE, pk=layout.state_pk(tenant, connection))
        found = None
        entities = {}
        for row in page.rows:
            if row.rk == layout.CONNECTION_RK:
                found = ConnectionState.from_json(json_data(row), row.etag)
            else:
                entities[row.rk.removeprefix("entity~")] = EntityState.from_json(json_data(row), row.etag)
        return States(found, entities) if found else None

    def every(self) -> Iterator[tuple[Tenant, str, States]]:
        """All connections of all tenants with their states: one query per 1,000 rows."""
        token: str | None = None
        pk = ""
        rows: list[Row] = []
        while True:
            page = self._table.query(layout.STATE, token=token)
            for row in page.rows:
                if row.pk != pk:
                    yield from _states(pk, rows)
                    pk, rows = row.pk, []
                rows.append(row)
            token = page.token
            if token is None:
                yield from _states(pk, rows)
                return

    def begin(self, tenant: Tenant, connection: str, entities: Mapping[str, EntityState]) -> None:
        """First rows of a connection; those that exist stay."""
        pk = layout.state_pk(tenant, connection)
        present = {row.rk for row in self._table.query(layout.STATE, pk=pk, select=["v"]).rows}
        wanted = {layout.CONNECTION_RK: ConnectionState().to_json()}
        wanted |= {layout.entity_rk(name): state.to_json() for name, state in entities.items()}
        for rk, data in wanted.items():
            if rk not in present:
                self._table.insert(layout.STATE, Row(pk, rk, json_values(data)))

    def save_connection(self, tenant: Tenant, connection: str, state: ConnectionState) -> ConnectionState:
        etag = self._replace(tenant, connection, layout.CONNECTION_RK, state.to_json(), state.etag)
        return replace(state, etag=etag)

    def save_entity(self, tenant: Tenant, connection: str, entity: str, state: EntityState) -> EntityState:
        """Checkpoint, lease and due time in one conditional write."""
        etag = self._replace(tenant, connection, layout.entity_rk(entity), state.to_json(), state.etag)
        return replace(state, etag=etag)

    def remove(self, tenant: Tenant, connection: str, entity: str = "") -> None:
        """The rows of a connection, or of one of its entities."""
        pk = layout.state_pk(tenant, connection)
        for row in self._table.query(layout.STATE, pk=pk, select=["v"]).rows:
            if not entity or row.rk == layout.entity_rk(entity):
                self._table.delete(layout.STATE, pk, row.rk)

    def _replace(self, tenant: Tenant, connection: str, rk: str, data: Mapping[str, Any], etag: str) -> str:
        row = Row(layout.state_pk(tenant, connection), rk, json_values(data))
        return self._table.replace(layout.STATE, row, etag)


def _states(pk: str, rows: list[Row]) -> Iterator[tuple[Tenant, str, States]]:
    if not rows:
        return
    tenant, connection = pk.split("~")
    found = [row for row in rows if row.rk == layout.CONNECTION_RK]
    if found:
        state = ConnectionState.from_json(json_data(found[0]), found[0].etag)
        entities = {
            row.rk.removeprefix("entity~"): EntityState.from_json(json_data(row), row.etag)
            for row in rows
            if row.rk != layout.CONNECTION_RK
        }
        yield Tenant(tenant), connection, States(state, entities)


class RunStore:
    def __init__(self, table: Table) -> None:
        self._table = table

    def insert(self, tenant: Tenant, run: Run) -> Run:
        etag = self._table.insert(layout.RUNS, Row(tenant.name, run.id, json_values(run.to_json())))
        return replace(run, etag=etag)

    def get(self, tenant: Tenant, run_id: str) -> Run | None:
        row = self._table.get(layout.RUNS, tenant.name, run_id)
        return Run.from_json(json_data(row), row.etag) if row else None

    def save(self, tenant: Tenant, run: Run) -> Run:
        """Raises RowChanged if another worker has saved it."""
        etag = self._table.replace(
            layout.RUNS, Row(tenant.name, run.id, json_values(run.to_json())), run.etag
        )
        return replace(run, etag=etag)

    def page(self, tenant: Tenant, *, top: int, token: str | None) -> tuple[list[Run], str | None]:
        """Newest first."""
        page = self._table.query(layout.RUNS, pk=tenant.name, top=top, token=token)
        return [Run.from_json(json_data(row), row.etag) for row in page.rows], page.token
