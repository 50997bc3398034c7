"""What waits for creates of ours whose outcome is open: entries of a feed that one of them may have made, and claims.

An entry is a row per connection and remote id. Whoever has settled the create reads that record again and closes the
row; one that is held once more in the meantime has another ETag and stays open. A claim is a row per create that nothing
but its values can identify. It is there before the create is sent, and until its outcome is known: a pull that finds
it holds back every remote record that the hub does not know (docs/adr/0011).
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace

from crm_core.errors import StoreUnavailable
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

CLAIM_TRIES = 5


@dataclass(frozen=True)
class HeldEntry:
    """A remote record that is to be read once the creates are settled that may have made it: those that were claimed
    before `time`, when it is known to have been there.
    """

    connection: str
    entity: str
    rid: str
    time: str
    row: Row


@dataclass(frozen=True)
class Claim:
    """A create of a record. `time`: before it was first sent, `again`: when it was last claimed."""

    connection: str
    entity: str
    record: str
    time: str
    again: str
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

    def every(self, tenant: Tenant) -> Iterator[HeldEntry | Claim]:
        """Of all connections."""
        token: str | None = None
        first, after = layout.held_range(tenant)
        while True:
            page = self._table.query(layout.EVENTS, pk=first, pk_to=after, token=token)
            for row in page.rows:
                yield _read(row)
            token = page.token
            if token is None:
                return

    def of(
        self, tenant: Tenant, connection: str, entity: str, top: int
    ) -> tuple[list[Claim], list[HeldEntry]]:
        """Some of one entity of a connection, claims first."""
        page = self._table.query(
            layout.EVENTS,
            pk=layout.held_pk(tenant, connection),
            rk=f"{entity}~",
            rk_to=f"{entity}~{layout.AFTER}",
            top=top,
        )
        found = [_read(row) for row in page.rows]
        return (
            [each for each in found if isinstance(each, Claim)],
            [each for each in found if isinstance(each, HeldEntry)],
        )

    def rids(self, tenant: Tenant, connection: str, entity: str) -> Iterator[str]:
        """The remote ids of everything that is held of one entity of a connection."""
        pk = layout.held_pk(tenant, connection)
        for row in every_row(
            self._table, layout.EVENTS, pk=pk, rk=f"{entity}~", rk_to=f"{entity}~{layout.AFTER}"
        ):
            found = _read(row)
            if isinstance(found, HeldEntry):
                yield found.rid

    def close(self, entry: HeldEntry) -> None:
        """Unless it was held again since it was read."""
        with suppress(RowChanged):
            self._table.delete(layout.EVENTS, entry.row.pk, entry.row.rk, entry.row.etag)

    def claim(
        self, tenant: Tenant, connection: str, entity: str, records: Sequence[str], time: str
    ) -> Mapping[str, Claim]:
        """Before the creates are sent; gives the claims by record. One that is open keeps its time: what another worker has
        sent under it may have made a row since then. Raises StoreUnavailable if others change them all the time.
        """
        found: dict[str, Claim] = {}
        for start in range(0, len(records), MAX_TRANSACTION_OPERATIONS):
            part = records[start : start + MAX_TRANSACTION_OPERATIONS]
            open_ones: dict[str, Claim] = {}
            for _ in range(CLAIM_TRIES):
                made = [
                    _claim(
                        tenant, Claim(connection, entity, each, time, time, Row("", "")), open_ones.get(each)
                    )
                    for each in part
                ]
                operations = [
                    Operation("replace", each.row, open_ones[each.record].row.etag)
                    if each.record in open_ones
                    else Operation("insert", each.row)
                    for each in made
                ]
                try:
                    etags = self._table.transact(layout.EVENTS, operations)
                except (RowExists, RowChanged):
                    open_ones = {each.record: each for each in self.claims(tenant, connection, entity)}
                    continue
                for each, etag in zip(made, etags, strict=True):
                    found[each.record] = replace(each, row=replace(each.row, etag=etag))
                break
            else:
                raise StoreUnavailable("The claims of creates are being changed.")
        return found

    def claims(self, tenant: Tenant, connection: str, entity: str) -> list[Claim]:
        """All that are open in one entity of a connection."""
        first, after = layout.claim_range(entity)
        rows = every_row(
            self._table, layout.EVENTS, pk=layout.held_pk(tenant, connection), rk=first, rk_to=after
        )
        return [each for each in map(_read, rows) if isinstance(each, Claim)]

    def release(self, claims: Sequence[Claim]) -> None:
        """Of one connection, those that were not made anew since they were read."""
        for start in range(0, len(claims), MAX_TRANSACTION_OPERATIONS):
            part = [each.row for each in claims[start : start + MAX_TRANSACTION_OPERATIONS]]
            try:
                self._table.transact(layout.EVENTS, [Operation("delete", row, row.etag) for row in part])
            except RowChanged:
                for row in part:
                    with suppress(RowChanged):
                        self._table.delete(layout.EVENTS, row.pk, row.rk, row.etag)


def _claim(tenant: Tenant, claim: Claim, before: Claim | None) -> Claim:
    """The claim with its row; it has the time of the one before."""
    first = min(claim.time, before.time) if before else claim.time
    values = {"entity": claim.entity, "record": claim.record, "time": first, "again": claim.again}
    pk, rk = layout.held_pk(tenant, claim.connection), layout.claim_rk(claim.entity, claim.record)
    return replace(claim, time=first, row=Row(pk, rk, json_values(values)))


def _read(row: Row) -> HeldEntry | Claim:
    data = json_data(row)
    connection = row.pk.rpartition("~")[2]
    if "record" in data:
        again = data.get("again", data["time"])
        return Claim(connection, data["entity"], data["record"], data["time"], again, row)
    return HeldEntry(connection, data["entity"], data["rid"], data["time"], row)
