"""Rows of sync's state: connections, their entities, runs, dead letters and figures."""

import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

from crm_core.model.connection import Tenant
from crm_core.model.record import SCHEMA_VERSION
from crm_core.model.state import ConnectionState, EntityState, Run
from crm_core.ports import Row, RowChanged, RowExists, Table, Value, every_row
from crm_core.storage import layout
from crm_core.storage.ageing import PAGE_ROWS, drop


def json_values(data: Mapping[str, Any]) -> dict[str, Value]:
    """A small row's values: its JSON in one readable property."""
    return {"v": SCHEMA_VERSION, "json": json.dumps(data, ensure_ascii=False, sort_keys=True)}


def json_data(row: Row) -> dict[str, Any]:
    data: dict[str, Any] = json.loads(str(row.values["json"]))
    return data


def inserted(table: Table, name: str, row: Row) -> str:
    """Inserts a row. The SDK may send a request again after a lost answer: a row that is there as we sent it is ours."""
    try:
        return table.insert(name, row)
    except RowExists:
        return _ours(table, name, row) or _again(RowExists())


def replaced(table: Table, name: str, row: Row, etag: str) -> str:
    """Replaces a row under its ETag; a row that is there as we sent it is ours, as with `inserted`."""
    try:
        return table.replace(name, row, etag)
    except RowChanged:
        return _ours(table, name, row) or _again(RowChanged())


def _ours(table: Table, name: str, row: Row) -> str:
    present = table.get(name, row.pk, row.rk)
    return present.etag if present is not None and dict(present.values) == dict(row.values) else ""


def _again(error: Exception) -> str:
    raise error


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
        found = None
        entities = {}
        for row in every_row(self._table, layout.STATE, pk=layout.state_pk(tenant, connection)):
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
        present = {row.rk for row in every_row(self._table, layout.STATE, pk=pk)}
        wanted = {layout.CONNECTION_RK: ConnectionState().to_json()}
        wanted |= {layout.entity_rk(name): state.to_json() for name, state in entities.items()}
        for rk, data in wanted.items():
            if rk not in present:
                with suppress(RowExists):  # somebody else has just begun it
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
        for row in list(every_row(self._table, layout.STATE, pk=pk)):
            if not entity or row.rk == layout.entity_rk(entity):
                self._table.delete(layout.STATE, pk, row.rk)

    def _replace(self, tenant: Tenant, connection: str, rk: str, data: Mapping[str, Any], etag: str) -> str:
        row = Row(layout.state_pk(tenant, connection), rk, json_values(data))
        return replaced(self._table, layout.STATE, row, etag)


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


@dataclass(frozen=True)
class Watched:
    """A run that has not ended. `at`: when to look at it (RFC 3339); `etag`: of its row at the last look."""

    id: str
    at: str
    etag: str = ""


class RunStore:
    def __init__(self, table: Table) -> None:
        self._table = table

    def insert(self, tenant: Tenant, run: Run) -> Run:
        etag = inserted(self._table, layout.RUNS, Row(tenant.name, run.id, json_values(run.to_json())))
        return replace(run, etag=etag)

    def get(self, tenant: Tenant, run_id: str) -> Run | None:
        row = self._table.get(layout.RUNS, tenant.name, run_id)
        return Run.from_json(json_data(row), row.etag) if row else None

    def save(self, tenant: Tenant, run: Run) -> Run:
        """Raises RowChanged if another worker has saved it."""
        row = Row(tenant.name, run.id, json_values(run.to_json()))
        etag = replaced(self._table, layout.RUNS, row, run.etag)
        return replace(run, etag=etag)

    def old(self, tenant: Tenant, before: int, token: str | None) -> tuple[list[Run], str | None]:
        """A page of those that were begun before a time (epoch milliseconds), and the next page."""
        page = self._table.query(
            layout.RUNS, pk=tenant.name, rk=layout.newest_first_from(before), top=PAGE_ROWS, token=token
        )
        return [Run.from_json(json_data(row), row.etag) for row in page.rows], page.token

    def delete(self, tenant: Tenant, runs: Iterable[Run]) -> None:
        """As they were read."""
        drop(self._table, layout.RUNS, [Row(tenant.name, each.id, etag=each.etag) for each in runs])

    def watch(self, tenant: Tenant, watched: Watched) -> None:
        """Says when to look at a run, in place of what was said before."""
        values = json_values({"at": watched.at, "etag": watched.etag})
        self._table.upsert(layout.RUNS, Row(layout.watched_pk(tenant), watched.id, values))

    def watched(self) -> Iterator[tuple[Tenant, Watched]]:
        """Of all tenants: one query per 1,000."""
        first, after = layout.watched_range()
        token: str | None = None
        while True:
            page = self._table.query(layout.RUNS, pk=first, pk_to=after, token=token)
            for row in page.rows:
                yield layout.watched_tenant(row.pk), Watched(row.rk, **_watched(row))
            token = page.token
            if token is None:
                return

    def unwatch(self, tenant: Tenant, run_id: str) -> None:
        self._table.delete(layout.RUNS, layout.watched_pk(tenant), run_id)

    def page(self, tenant: Tenant, *, top: int, token: str | None) -> tuple[list[Run], str | None]:
        """Newest first."""
        page = self._table.query(layout.RUNS, pk=tenant.name, top=top, token=token)
        return [Run.from_json(json_data(row), row.etag) for row in page.rows], page.token


def _watched(row: Row) -> dict[str, str]:
    data = json_data(row)
    return {name: data.get(name, "") for name in ("at", "etag")}
