"""What the instances of the hub have taken of the calls that a system allows a connection in a time: a row per window."""

from contextlib import suppress

from crm_core.connector import Spent
from crm_core.ports import Row, RowChanged, RowExists, Table, every_row
from crm_core.storage import layout
from crm_core.storage.state import json_data, json_values

TAKE_TRIES = 5


class StoredLedger:
    """`connector.Ledger` over the table `stats`."""

    def __init__(self, table: Table) -> None:
        self._table = table

    def spent(self, tenant: str, uid: str, window: str, number: int) -> Spent:
        return _spent(self._row(tenant, uid, window), number)

    def take(
        self, tenant: str, uid: str, window: str, number: int, calls: int, most: float, share: float
    ) -> Spent:
        """Two storage calls; one if nothing may be taken. RowChanged: too many others take at the same time."""
        for _ in range(TAKE_TRIES):
            row = self._row(tenant, uid, window)
            spent = _spent(row, number)
            if spent.now + spent.before * share + calls > most:
                return spent
            values = json_values({"number": number, "now": spent.now + calls, "before": spent.before})
            after = Row(layout.budget_pk(tenant), layout.budget_rk(uid, window), values)
            with suppress(RowChanged, RowExists):
                if row is None:
                    self._table.insert(layout.STATS, after)
                else:
                    self._table.replace(layout.STATS, after, row.etag)
                return spent
        raise RowChanged

    def drop(self, tenant: str, uid: str) -> None:
        pk, first = layout.budget_pk(tenant), layout.budget_rk(uid, "")
        for row in list(every_row(self._table, layout.STATS, pk=pk, rk=first, rk_to=first + layout.AFTER)):
            self._table.delete(layout.STATS, pk, row.rk)

    def _row(self, tenant: str, uid: str, window: str) -> Row | None:
        return self._table.get(layout.STATS, layout.budget_pk(tenant), layout.budget_rk(uid, window))


def _spent(row: Row | None, number: int) -> Spent:
    """As of the window at hand: what a row tells of an older one has passed."""
    data = json_data(row) if row is not None else {"number": number}
    held = data["number"]
    if held == number:
        return Spent(data.get("now", 0), data.get("before", 0))
    return Spent(0, data.get("now", 0) if held == number - 1 else 0)
