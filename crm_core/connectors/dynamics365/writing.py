"""Writing in Dataverse's words: what a write takes, as requests.

Most writes are one PATCH. Some take several requests, which go as one change set so that all of it happens or
nothing: states that only an action sets, lines of a document, rows that have to be opened again first.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from crm_core.connector import Change, Write
from crm_core.connectors.dynamics365.client import Client, prefer
from crm_core.connectors.dynamics365.lookups import Lookups
from crm_core.connectors.dynamics365.reading import LINES, select_of
from crm_core.connectors.dynamics365.tables.common import SYSTEM, Closing, Table
from crm_core.errors import BadAnswer, BadRequest, FieldError, Rejected, VendorError
from crm_core.model.field_map import FieldMap
from crm_core.model.literals import GUID
from crm_core.ports import Ids
from crm_core.protocols.odata import key_segment
from crm_core.protocols.odata_batch import Part

STATUS = "status"
KIND = "kind"


def kind_of(table: Table, write: Write) -> Table:
    """The table that a create goes to; raises BadRequest for a kind that has none."""
    if not table.kinds:
        return table
    found = table.kinds.get(str(write.fields.get(KIND)))
    if found is None:
        raise BadRequest.field(
            KIND,
            f"kind: this system has no such {table.entity.name}; expected one of {', '.join(table.kinds)}.",
        )
    return found


def closing_of(table: Table, write: Write) -> Closing | None:
    """The action that sets the state that a write asks for, if it takes one."""
    return table.closings.get(str(write.fields.get(STATUS)))


def first_status(table: Table) -> str:
    """The status of a new row, which an opened one has again."""
    return next(iter(table.by_field[STATUS].names.values()))


def needs_steps(table: Table, write: Write, status: str | None) -> bool:
    """Whether a row in this state gets to the one that a write asks for only by way of another."""
    if status in table.locked:
        return True
    closing = closing_of(table, write)
    return closing is not None and closing.start not in ("", status) and status not in table.final


def emptied(table: Table, write: Write) -> list[FieldMap]:
    """The references to one of several tables that a write empties."""
    return [
        each
        for name, value in write.fields.items()
        if value is None and (each := table.by_field.get(name)) is not None and each.kind_native
    ]


def is_plain(table: Table, write: Write) -> bool:
    """Whether a write is one request, and can be made without a look at the row."""
    if write.verb == "update" and (emptied(table, write) or table.along(write.fields)):
        return False
    return LINES not in write.fields and closing_of(table, write) is None


def spared(table: Table, write: Write, now: Change) -> Write:
    """A write without the references that it empties and that lead to what has no name here: nobody who reads them as
    empty means those.
    """
    foreign = {each.field for each in emptied(table, write) if each.target(now.raw) is None}
    if not foreign:
        return write
    return replace(write, fields={name: value for name, value in write.fields.items() if name not in foreign})


def missing_reference(table: Table, rid: str, write: Write, error: VendorError) -> VendorError:
    """A 404 to a write can mean the record, or one that it refers to; the message names the id."""
    referred = [
        (name, value)
        for name, value in write.fields.items()
        if name in table.by_field and table.by_field[name].targets
    ]
    referred += [(LINES, line.get("product_id")) for line in write.fields.get(LINES) or []]
    for name, value in referred:
        found = isinstance(value, str) and value.lower() != rid and value.lower() in error.message.lower()
        if found:
            return Rejected(
                error.message,
                system=SYSTEM,
                vendor_status=error.vendor_status,
                vendor_code=error.vendor_code,
                request_id=error.request_id,
                errors=[FieldError(name, f"{name}: {error.message}")],
            )
    return error


def select(table: Table) -> tuple[str, str]:
    return "$select", ",".join(select_of(table))


@dataclass(frozen=True)
class Writer:
    """Makes requests of writes; reads only what a text or a line has to be looked up by."""

    client: Client
    lookups: Lookups
    ids: Ids

    def body(self, table: Table, write: Write, *, create: bool, now: Change | None = None) -> dict[str, Any]:
        """The row that a write sends, without the lines and the state that go separately; `now`: the row as it is.

        Raises BadRequest naming the field for what the table has not.
        """
        closing = closing_of(table, write)
        apart = {LINES}
        if table.constant and (create or self._same_kind(table, write)):
            apart.add(KIND)
        if closing is not None:
            apart |= {STATUS, closing.text}
        fields = {name: value for name, value in write.fields.items() if name not in apart}
        self._refuse_foreign(table, fields, closing)
        beside: Mapping[str, Any] | None = {} if create else None
        if now is not None and table.along(fields):
            if now.problem:
                raise BadAnswer(now.problem, system=SYSTEM)
            beside = now.fields
        row = {**self.lookups.bound(table, table.outward(fields, beside)), **write.native}
        return {**table.defaults, **row} if create else row

    @staticmethod
    def _same_kind(table: Table, write: Write) -> bool:
        names = table.by_field[KIND].names
        return write.fields.get(KIND) in {names[value] for value in table.constant.values()}

    @staticmethod
    def _refuse_foreign(table: Table, fields: Mapping[str, Any], closing: Closing | None) -> None:
        known = {*table.by_field, *table.companions, *table.parts}
        for name in fields:
            if name == KIND and not table.by_field[name].writable:
                raise BadRequest.field(name, f"{name}: can't be changed; make another one.")
            if name not in known:
                raise BadRequest.field(name, f"{name}: {table.logical} has none; leave it out.")
            states = ", ".join(status for status, each in table.closings.items() if each.text == name)
            if states and closing is None:
                raise BadRequest.field(
                    name, f"{name}: goes with status {states}; give both, or leave it out."
                )

    def create(self, table: Table, rid: str, write: Write) -> list[Part]:
        """The requests of a create under an id that is ours."""
        parts = [self.patch(table, rid, self.body(table, write, create=True), {"If-None-Match": "*"})]
        if table.lines is not None:
            given = write.fields.get(LINES) or []
            parts += self._lines(table, table.lines, rid, given, ())
        return [*parts, *self._closing(table, rid, write, first_status(table))]

    def update(
        self, table: Table, rid: str, write: Write, if_match: str, now: Change | None = None
    ) -> list[Part]:
        """The requests of an update; `now`: the row as it is, known where lines change or it `needs_steps`."""
        status = now.fields.get(STATUS) if now is not None and now.fields is not None else None
        locked = STATUS in write.fields and status in table.locked
        body = self.body(table, write, create=False, now=now)
        bodies = []
        if locked:
            bodies.append(dict(table.reopened))
            if write.fields.get(STATUS) == first_status(table):
                body = {
                    name: value for name, value in body.items() if name not in ("statecode", "statuscode")
                }
        # An action takes no If-Match: an update without a change before it does.
        if body or (not bodies and (if_match or LINES in write.fields)):
            bodies.append(body)
        parts = [
            self.patch(table, rid, each, {"If-Match": (if_match or "*") if not number else "*"})
            for number, each in enumerate(bodies)
        ]
        if table.lines is not None and LINES in write.fields:
            there = (now.fields or {}).get(LINES) or [] if now is not None else []
            parts += self._lines(table, table.lines, rid, write.fields[LINES] or [], there)
        return [*parts, *self._closing(table, rid, write, first_status(table) if locked else status)]

    def patch(self, table: Table, rid: str, body: Mapping[str, Any], headers: Mapping[str, str]) -> Part:
        return self.client.part(
            "PATCH",
            key_segment(table.remote, rid),
            query=[select(table)],
            headers={**headers, **prefer([table], "return=representation")},
            json=body,
        )

    def read(self, table: Table, rid: str) -> Part:
        path = key_segment(table.remote, rid)
        return self.client.part("GET", path, query=[select(table)], headers=prefer([table]))

    def _closing(self, table: Table, rid: str, write: Write, status: str | None) -> list[Part]:
        """The action that a write's state takes. `status`: the state that the row is in then; None: not known."""
        closing = closing_of(table, write)
        if closing is None:
            return []
        parts = []
        if status is not None and closing.start not in ("", status):
            state = table.by_field[STATUS]
            begun = {state.native: state.values[closing.start][0]}
            parts.append(self.patch(table, rid, begun, {"If-Match": "*"}))
        said = write.fields.get(closing.text) if closing.text else None
        about = {
            "subject": said or closing.subject,
            f"{table.key}@odata.bind": f"/{table.remote}({rid})",
        }
        body = {closing.record: about, "Status": closing.reason}
        return [*parts, self.client.part("POST", closing.action, json=body)]

    # --- lines -----------------------------------------------------------------------------------------------------

    def _lines(
        self,
        table: Table,
        lines: Table,
        rid: str,
        given: Sequence[Mapping[str, Any]],
        there: Sequence[Mapping[str, Any]],
    ) -> list[Part]:
        """What makes the lines of a document those that are given: by key, the others new; raises BadRequest."""
        before = {str(line["key"]): line for line in there}
        given = [{**line, "key": str(line["key"]).lower()} if line.get("key") else line for line in given]
        rows = self._line_rows(lines, given, before)
        kept = {str(line["key"]) for line in given if line.get("key")}
        # Lines have the order of their numbers, which may be any: where one comes, goes or moves, all are numbered.
        moved = [line.get("key") for line in given] != list(before)
        parts = [
            self.client.part("DELETE", key_segment(lines.remote, key)) for key in before if key not in kept
        ]
        for number, (line, row) in enumerate(zip(given, rows, strict=True), 1):
            key = line.get("key")
            numbered = {"lineitemnumber": number} if moved else {}
            if not key:
                parent = {f"{lines.parent}@odata.bind": f"/{table.remote}({rid})"}
                parts.append(self.client.part("POST", lines.remote, json={**row, **numbered, **parent}))
            elif moved or before[str(key)] != line:
                path = key_segment(lines.remote, str(key))
                parts.append(
                    self.client.part("PATCH", path, json={**row, **numbered}, headers={"If-Match": "*"})
                )
        return parts

    def _line_rows(
        self,
        lines: Table,
        given: Sequence[Mapping[str, Any]],
        before: Mapping[str, Mapping[str, Any]],
    ) -> list[dict[str, Any]]:
        units = self._units_of(given)
        rows: list[dict[str, Any]] = []
        named: set[str] = set()
        for number, line in enumerate(given, 1):
            key = line.get("key")
            if key and key not in before:
                raise BadRequest.field(LINES, f"lines: line {number}: the document has no line {key}.")
            if key in named:
                raise BadRequest.field(LINES, f"lines: line {number}: line {key} is given twice.")
            named |= {key} if key else set()
            was = before.get(str(key), {})
            # What a line that is there does not say stays as it is; what it says is null goes.
            whole = {**was, **line}
            same = {name: value for name, value in whole.items() if value is not None} == was
            try:
                rows.append({} if same else self._line_row(lines, whole, was, units))
            except BadRequest as error:
                raise BadRequest.field(LINES, f"lines: line {number}: {error.message}") from None
        return rows

    def _line_row(
        self, lines: Table, line: Mapping[str, Any], was: Mapping[str, Any], units: Mapping[str, str]
    ) -> dict[str, Any]:
        """What is sent for a line; `was`: the line as it is, if it is there."""
        fields = {name: value for name, value in line.items() if lines.by_field[name].writable}
        product = fields.get("product_id")
        if product is None:
            if not fields.get("description"):
                raise BadRequest("a line names a product_id, or has a description of what is written in.")
            if fields.get("unit"):
                raise BadRequest("unit: what is written in has no unit of the catalogue; leave it out.")
        elif product == was.get("product_id") and fields.get("unit") == was.get("unit"):
            fields.pop("unit", None)  # the name alone may be that of several units
            units = {}
        row = self.lookups.bound(lines, lines.outward(fields))
        row["isproductoverridden"] = product is None
        if fields.get("unit_price") is not None:
            row["ispriceoverridden"] = True  # else the price list's price stays
        if product is not None and "unit" not in fields and product.lower() in units:
            row["uomid@odata.bind"] = f"/uoms({units[product.lower()]})"
        return row

    def _units_of(self, given: Sequence[Mapping[str, Any]]) -> dict[str, str]:
        """By product, its own unit, for lines that name none: a line of a product can't be without."""
        named = {str(line["product_id"]) for line in given if line.get("product_id") and not line.get("unit")}
        products = sorted(each for each in named if GUID.fullmatch(each))  # what is no id is refused later
        units: dict[str, str] = {}
        select = ("productid", "_defaultuomid_value")
        for rows in self.client.rows_by_id("products", "productid", products, select):
            units |= {
                str(row["productid"]).lower(): str(row["_defaultuomid_value"])
                for row in rows
                if row.get("_defaultuomid_value")
            }
        return units
