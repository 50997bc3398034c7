"""What is to be deleted at a time that is known when it is made, such as the parts of an export: a row for each."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from crm_core.model.connection import Tenant
from crm_core.ports import Row, Table
from crm_core.storage import layout
from crm_core.storage.state import json_data, json_values


@dataclass(frozen=True)
class DueRow:
    """`kind`: who knows how it is deleted; `id`: of what."""

    at: str
    kind: str
    id: str
    data: Mapping[str, Any]

    @property
    def rk(self) -> str:
        return f"{self.at}~{self.kind}~{self.id}"


class Due:
    def __init__(self, table: Table) -> None:
        self._table = table

    def add(self, tenant: Tenant, at: str, kind: str, what: str, data: Mapping[str, Any]) -> None:
        """Before the thing itself is made, so that nothing stays that nobody knows of. Added twice it is one row.

        `at`: RFC 3339, UTC.
        """
        row = Row(layout.due_pk(tenant), DueRow(at, kind, what, data).rk, json_values(data))
        self._table.upsert(layout.JOURNAL, row)

    def until(self, tenant: Tenant, now: str, most: int) -> Sequence[DueRow]:
        """What is due by now, the earliest first. One call."""
        page = self._table.query(layout.JOURNAL, pk=layout.due_pk(tenant), rk_to=now, top=most)
        return [_due(row) for row in page.rows]

    def done(self, tenant: Tenant, row: DueRow) -> None:
        """After what it names is deleted."""
        self._table.delete(layout.JOURNAL, layout.due_pk(tenant), row.rk)


def _due(row: Row) -> DueRow:
    at, kind, what = row.rk.split("~", 2)
    return DueRow(at, kind, what, json_data(row))
