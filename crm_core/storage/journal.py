"""What happened: dead letters with their cause, and figures by the minute."""

import json
from collections.abc import Mapping

from crm_core.model.connection import Tenant
from crm_core.model.fields import hub_time
from crm_core.ports import Clock, Ids, Row, Table
from crm_core.storage import layout
from crm_core.storage.state import json_values

MAX_BODY_CHARACTERS = 24_000


class DeadLetters:
    """Work without a record that will not succeed by itself."""

    def __init__(self, table: Table, clock: Clock, ids: Ids) -> None:
        self._table = table
        self._clock = clock
        self._ids = ids

    def add(self, tenant: Tenant, *, cause: str, kind: str, body: str = "", **where: str) -> str:
        """Keeps a piece of work with its cause; `where`: connection, entity, rid, queue. Gives its id."""
        now = self._clock.now()
        letter_id = layout.newest_first(int(now.timestamp() * 1000), self._ids.uuid())
        data = {
            "id": letter_id,
            "kind": kind,
            "cause": cause[:1000],
            "time": hub_time(now),
            "body": _cut(body),
            **where,
        }
        self._table.insert(layout.DEADLETTERS, Row(tenant.name, letter_id, json_values(data)))
        return letter_id


def _cut(body: str) -> str:
    """As much of a body as surely fits a property, whatever its characters become in JSON."""
    return body if len(json.dumps(body)) <= MAX_BODY_CHARACTERS else body[: MAX_BODY_CHARACTERS // 6]


class Stats:
    """Minute rollups. Each process adds its own row, so that none waits for another."""

    def __init__(self, table: Table, clock: Clock, instance: str) -> None:
        self._table = table
        self._clock = clock
        self._instance = instance

    def add(self, tenant: Tenant, connection: str, amounts: Mapping[str, int]) -> None:
        """Adds to this minute's figures of a connection ("" for the hub's own)."""
        now = self._clock.now()
        pk = f"{tenant.name}~{now:%Y-%m-%d}"
        rk = f"{now:%H%M}~{connection or 'hub'}~{layout.quote(self._instance)}"
        row = self._table.get(layout.STATS, pk, rk) or Row(pk, rk)
        totals = {name: int(row.values.get(name, 0)) + amount for name, amount in amounts.items()}
        self._table.upsert(layout.STATS, row.with_values(**totals))
