"""What happened: dead letters with their cause, and figures by the minute."""

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import suppress
from datetime import datetime, time, timedelta

from crm_core.errors import BadRequest
from crm_core.model.connection import Tenant
from crm_core.model.fields import hub_time
from crm_core.ports import Clock, Ids, Row, RowChanged, RowExists, Table, every_row
from crm_core.storage import layout
from crm_core.storage.state import json_values

MAX_BODY_CHARACTERS = 24_000
MAX_STATS_ROWS = 100_000
"""That one question about figures reads: 100 pages."""
ADD_TRIES = 5
HUB = "hub"
"""Stands for the hub's own figures where others have a connection's uid."""


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
        """Adds to this minute's figures of a connection ("" for the hub's own).

        Two threads of a process may add at once: under the row's ETag neither loses the other's. RowChanged: too many.
        """
        now = self._clock.now()
        pk = f"{tenant.name}~{now:%Y-%m-%d}"
        rk = f"{now:%H%M}~{connection or HUB}~{layout.quote(self._instance)}"
        for _ in range(ADD_TRIES):
            row = self._table.get(layout.STATS, pk, rk) or Row(pk, rk)
            totals = {name: int(row.values.get(name, 0)) + amount for name, amount in amounts.items()}
            with suppress(RowExists, RowChanged):
                # Not by `replaced`: two threads that add the same to the same row write the same, and one would
                # take the other's row for its own.
                if row.etag:
                    self._table.replace(layout.STATS, row.with_values(**totals), row.etag)
                else:
                    self._table.insert(layout.STATS, row.with_values(**totals))
                return
        raise RowChanged

    def read(self, tenant: Tenant, begin: datetime, end: datetime) -> dict[str, Counter[str]]:
        """The sums of the minutes from that of `begin` to that of `end`, by connection ("" for the hub's own).

        Raises BadRequest if there are too many figures for one answer.
        """
        found: dict[str, Counter[str]] = {}
        for index, row in enumerate(self._rows(tenant, begin, end)):
            if index == MAX_STATS_ROWS:
                raise BadRequest.field(
                    "minutes",
                    "minutes: this period has too many figures for one answer; ask for a shorter one.",
                )
            owner = row.rk.split("~")[1]
            amounts = {name: value for name, value in row.values.items() if isinstance(value, int)}
            found.setdefault("" if owner == HUB else owner, Counter()).update(amounts)
        return found

    def _rows(self, tenant: Tenant, begin: datetime, end: datetime) -> Iterator[Row]:
        """One partition is one day; row keys begin with the minute."""
        while begin <= end:
            last = min(end, datetime.combine(begin.date(), time.max, begin.tzinfo))
            yield from every_row(
                self._table,
                layout.STATS,
                pk=f"{tenant.name}~{begin:%Y-%m-%d}",
                rk=f"{begin:%H%M}",
                rk_to=f"{last:%H%M}~{layout.AFTER}",
            )
            begin = datetime.combine(begin.date() + timedelta(days=1), time.min, begin.tzinfo)
