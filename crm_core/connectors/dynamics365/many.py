"""Many writes in few calls, each with an outcome of its own.

Creates go by CreateMultiple under ids of ours, updates without If-Match by UpdateMultiple; both are one transaction,
so where one row is bad nothing is done, and the rows go once more as independent parts of a $batch, which finds it
(Web API: "Use bulk operation messages", "Execute batch operations"). Updates with If-Match and deletes are such parts
from the start. What takes several requests goes alone.
"""

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from crm_core.connector import STOPPING, Answer, Outcome, Write, not_begun
from crm_core.connectors.dynamics365.client import BATCH_SECONDS, NO_ROW, Client, json_of
from crm_core.connectors.dynamics365.reading import Reader
from crm_core.connectors.dynamics365.tables.common import SYSTEM, Table
from crm_core.connectors.dynamics365.writing import STATUS, Writer, is_plain, kind_of, missing_reference
from crm_core.errors import (
    BadAnswer,
    HubError,
    NotPermitted,
    NotSupported,
    RecordGone,
    Rejected,
    VendorError,
    VersionMismatch,
)
from crm_core.model.literals import GUID
from crm_core.protocols.odata import check_guid, key_segment
from crm_core.protocols.odata_batch import Part
from crm_core.protocols.rest import after_writing

ROWS_PER_CALL = 100
"""Of a bulk message or a batch: up to 1,000 are allowed, but the whole call has to end in its time."""
BULK = {"create": "CreateMultiple", "update": "UpdateMultiple"}

Outcomes = dict[int, Outcome]
Unit = Callable[[], Outcomes]
"""Carries out one or more writes by one call or few; what becomes of each by its index."""


@dataclass(frozen=True)
class _Row:
    """One write that is one request."""

    index: int
    table: Table
    rid: str
    write: Write
    body: Mapping[str, Any]


class Many:
    """Cuts writes into units. `one`: carries out a write alone, its error being the outcome."""

    def __init__(
        self,
        client: Client,
        reader: Reader,
        writer: Writer,
        one: Callable[[str, Write], Outcome],
    ) -> None:
        self._client = client
        self._reader = reader
        self._writer = writer
        self._one = one
        self._without_bulk: set[tuple[str, str]] = set()

    def units(self, table: Table, writes: Sequence[Write]) -> tuple[list[Unit], Outcomes]:
        """What is to be carried out, and what became of the writes that can't be.

        Raises what reading the kinds of rows meets. Where reading what a write names meets an error that the next ones
        would meet too, nothing is carried out.
        """
        settled: Outcomes = {}
        rows: dict[tuple[str, str], list[_Row]] = defaultdict(list)
        units: list[Unit] = []
        tables = self._tables(table, writes)
        for index, write in enumerate(writes):
            try:
                row = self._row(table, tables, index, write)
            except HubError as error:
                if error.recovery in STOPPING:
                    if isinstance(error, VendorError):
                        error.outcome_unknown = False  # it was a read
                    left = Outcome(error=not_begun(error))
                    others = dict.fromkeys(range(len(writes)), left) | settled
                    return [], {**others, index: Outcome(error=error)}
                settled[index] = Outcome(error=error)
                continue
            if row is None:
                units.append(self._alone(table, index, write))
            else:
                way = BULK.get(write.verb, "") if not write.if_match else ""
                rows[row.table.remote, way].append(row)
        for (_, way), found in rows.items():
            units += [
                self._together(found[start : start + ROWS_PER_CALL], way)
                for start in range(0, len(found), ROWS_PER_CALL)
            ]
        return units, settled

    def _tables(self, table: Table, writes: Sequence[Write]) -> Mapping[str, Table]:
        if not table.kinds:
            return {}
        # What is no id is its own write's refusal, later.
        return self._reader.tables_of(table, [write.rid for write in writes if GUID.fullmatch(write.rid)])

    def _row(self, table: Table, tables: Mapping[str, Table], index: int, write: Write) -> _Row | None:
        """None for a write that takes more than one request."""
        rid = check_guid(write.rid) if write.rid else ""
        if write.verb == "create":
            own = kind_of(table, write)
            rid = write.key or self._writer.ids.uuid()
            write = replace(write, key=rid)
        elif table.kinds:
            if rid not in tables:
                raise RecordGone(f"There is no {table.entity.name} {rid}.", system=SYSTEM)
            own = tables[rid]
        else:
            own = table
        if write.verb == "delete":
            return _Row(index, own, rid, write, {})
        if not is_plain(own, write):
            return None
        body = self._writer.body(own, write, create=write.verb == "create")
        return _Row(index, own, rid, write, body)

    def _alone(self, table: Table, index: int, write: Write) -> Unit:
        return lambda: {index: self._one(table.entity.name, write)}

    def _together(self, rows: Sequence[_Row], way: str) -> Unit:
        if len(rows) == 1:
            return lambda: {rows[0].index: self._one(rows[0].table.entity.name, rows[0].write)}
        return lambda: self._carried_out(rows, way)

    # --- one call for many ---------------------------------------------------------------------------------------

    def _carried_out(self, rows: Sequence[_Row], way: str) -> Outcomes:
        """Never raises what the system answers: it is the outcome of each."""
        table = rows[0].table
        try:
            if way and (table.remote, way) not in self._without_bulk:
                try:
                    return self._bulk(table, rows, way)
                except (NotSupported, RecordGone, BadAnswer) as error:
                    if isinstance(error, BadAnswer) and error.vendor_status != 404:
                        raise
                    # A 404 with the code of a missing row is about one that a row refers to, else about the message.
                    if not isinstance(error, RecordGone) or error.vendor_code.lower() not in NO_ROW:
                        self._without_bulk.add((table.remote, way))
                except (Rejected, VersionMismatch, NotPermitted):
                    pass  # one bad row, or one that we may not write, and nothing was done
            return self._parts(rows)
        except HubError as error:
            return {row.index: Outcome(error=error) for row in rows}

    def _bulk(self, table: Table, rows: Sequence[_Row], way: str) -> Outcomes:
        kind = f"Microsoft.Dynamics.CRM.{table.logical}"
        targets = [{"@odata.type": kind, table.key: row.rid, **row.body} for row in rows]
        self._client.call(
            "POST",
            f"{table.remote}/Microsoft.Dynamics.CRM.{way}",
            json={"Targets": targets},
            # Rows under ids of ours are made once, and values without If-Match may be written twice.
            repeatable=True,
            timeout=BATCH_SECONDS,
        )
        return self._read(table, rows, {})

    def _read(self, table: Table, rows: Sequence[_Row], refused: Mapping[int, HubError]) -> Outcomes:
        """The rows as they are now; one that is not there was refused, or else deleted since it was written."""
        try:
            with after_writing():
                found = self._reader.get_many(table, [row.rid for row in rows])
        except VendorError as error:
            return {row.index: Outcome(error=error) for row in rows}
        gone = RecordGone("The record was written, and deleted by somebody since.", system=SYSTEM)
        return {
            row.index: Outcome(found[row.rid.lower()])
            if row.rid.lower() in found
            else Outcome(error=refused.get(row.index, gone))
            for row in rows
        }

    def _parts(self, rows: Sequence[_Row]) -> Outcomes:
        table = rows[0].table
        creates = all(row.write.verb == "create" for row in rows)
        answers = self._client.batch([self._part(row) for row in rows], repeatable=creates)
        outcomes: Outcomes = {}
        written: list[tuple[_Row, Answer | list[Answer]]] = []
        there: list[_Row] = []
        refused: dict[int, HubError] = {}
        for row, answer in zip(rows, answers, strict=True):
            if isinstance(answer, VersionMismatch) and row.write.verb == "create":
                there.append(row)  # an earlier try was carried out, or it is another row's key that exists
                refused[row.index] = answer
            elif isinstance(answer, Rejected) and STATUS in row.write.fields and table.locked:
                outcomes[row.index] = self._one(
                    table.entity.name, row.write
                )  # it may have to be opened first
            elif isinstance(answer, RecordGone):
                outcomes[row.index] = Outcome(error=missing_reference(table, row.rid, row.write, answer))
            elif isinstance(answer, HubError):
                outcomes[row.index] = Outcome(error=answer)
            elif row.write.verb == "delete":
                outcomes[row.index] = Outcome()
            else:
                written.append((row, answer))
        if there:
            outcomes |= self._read(table, there, refused)
        return outcomes | self._told(table, written)

    def _told(self, table: Table, written: Sequence[tuple[_Row, Answer | list[Answer]]]) -> Outcomes:
        """The rows that answers to writes hold."""
        outcomes: Outcomes = {}
        held: list[tuple[int, Mapping[str, Any]]] = []
        for row, answer in written:
            assert isinstance(answer, Answer)
            try:
                held.append((row.index, json_of(answer, "PATCH")))
            except VendorError as error:
                outcomes[row.index] = Outcome(error=error)
        try:
            with after_writing():
                changes = self._reader.changes(table, [each for _, each in held])
        except VendorError as error:
            return outcomes | {index: Outcome(error=error) for index, _ in held}
        return outcomes | {index: Outcome(change) for (index, _), change in zip(held, changes, strict=True)}

    def _part(self, row: _Row) -> Part:
        write = row.write
        if write.verb == "delete":
            headers = {"If-Match": write.if_match} if write.if_match else {}
            return self._client.part("DELETE", key_segment(row.table.remote, row.rid), headers=headers)
        precondition = (
            {"If-None-Match": "*"} if write.verb == "create" else {"If-Match": write.if_match or "*"}
        )
        return self._writer.patch(row.table, row.rid, row.body, precondition)
