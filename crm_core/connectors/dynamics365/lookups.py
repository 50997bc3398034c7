"""Texts that stand in another table: a user's e-mail for an owner, a code for a currency, a name for a unit.

The change feed brings no row of another table along (no $expand with odata.track-changes), so these are read by id,
once for all rows of a page, and kept for a while.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from crm_core.connectors.dynamics365.client import Client
from crm_core.connectors.dynamics365.tables.common import LOOKUPS, Lookup, Table
from crm_core.errors import BadRequest
from crm_core.ports import Clock
from crm_core.protocols.kept import Kept
from crm_core.protocols.odata import quoted

KEPT_SECONDS = 600.0
BOUND_SECONDS = 60.0
"""How long a text is known to stand for a row: many writes name the same owner and currency."""
MAX_SHOWN = 20

Row = Mapping[str, Any]


class Lookups:
    """Reads the rows that have the texts; keeps a text for ten minutes. Safe for many threads."""

    def __init__(self, client: Client, clock: Clock) -> None:
        self._client = client
        self._kept: Kept[tuple[str, str], str] = Kept(clock, KEPT_SECONDS)
        self._bound: Kept[tuple[str, str], Mapping[str, str]] = Kept(clock, BOUND_SECONDS)

    def beside(self, table: Table, rows: Sequence[Row]) -> Callable[[Row], dict[str, str]]:
        """What gives the texts that one of these rows refers to, by path; one read for each other table."""
        texts = {
            each.native: (lookup.native, by_id)
            for each in table.fields
            if (lookup := LOOKUPS.get(each.native))
            and (by_id := self._texts(lookup, {str(rid) for row in rows if (rid := row.get(lookup.native))}))
        }

        def of(row: Row) -> dict[str, str]:
            return {
                path: text
                for path, (native, by_id) in texts.items()
                if (rid := row.get(native)) and (text := by_id[str(rid)])
            }

        return of

    def _texts(self, lookup: Lookup, ids: set[str]) -> Mapping[str, str]:
        """The text of each id, "" for one without."""

        def read(missing: list[tuple[str, str]]) -> dict[tuple[str, str], str]:
            rids = sorted(rid for _, rid in missing)
            texts = {
                str(row.get(lookup.key, "")).lower(): str(row.get(lookup.text) or "")
                for rows in self._client.rows_by_id(lookup.collection, lookup.key, rids, lookup.select)
                for row in rows
            }
            return {key: texts.get(key[1].lower(), "") for key in missing}

        found = self._kept.many([(lookup.collection, rid) for rid in ids], read)
        return {rid: text for (_, rid), text in found.items()}

    def bound(self, table: Table, row: Mapping[str, Any]) -> dict[str, Any]:
        """Native properties to be written, each text in them replaced by the reference to the row that has it.

        Raises BadRequest naming the field for a text that no row has, or several have.
        """
        bound: dict[str, Any] = {}
        for path, value in row.items():
            lookup = LOOKUPS.get(path)
            if lookup is None:
                bound[path] = value
            elif value is None:
                bound[lookup.bind] = None
            else:
                bound.update(self._reference(lookup, _field(table, path), str(value)))
        return bound

    def _reference(self, lookup: Lookup, field: str, text: str) -> Mapping[str, str]:
        return self._bound.one((lookup.bind, text), lambda: self._reference_read(lookup, field, text))

    def _reference_read(self, lookup: Lookup, field: str, text: str) -> Mapping[str, str]:
        rows = [
            row
            for row in self._rows(lookup, f"{lookup.text} eq {quoted(text)}")
            if str(row.get(lookup.text, "")).casefold() == text.casefold()
        ]
        active = [row for row in rows if not row.get("isdisabled")] or rows
        if len(active) != 1:
            found = (
                f"{len(active)} of the {lookup.collection} have"
                if active
                else f"none of the {lookup.collection} has"
            )
            expected = "one that has"
            if not active and lookup.few:
                known = sorted(
                    {str(row.get(lookup.text)) for row in self._rows(lookup, f"{lookup.text} ne null")}
                )
                expected = f"one of {', '.join(known[:MAX_SHOWN])}"
            raise BadRequest.field(field, f"{field}: {found} '{text}' as {lookup.text}; expected {expected}.")
        row = active[0]
        bound = {f"{lookup.bind}@odata.bind": f"/{lookup.collection}({row[lookup.key]})"}
        # A product needs the unit's group too; only a unit's row tells it.
        if lookup.bind == "defaultuomid" and row.get("_uomscheduleid_value"):
            bound["defaultuomscheduleid@odata.bind"] = f"/uomschedules({row['_uomscheduleid_value']})"
        return bound

    def _rows(self, lookup: Lookup, where: str) -> Sequence[Row]:
        options = [("$select", ",".join(lookup.select))] if lookup.select else []
        return self._client.rows(lookup.collection, [*options, ("$filter", where)])


def _field(table: Table, path: str) -> str:
    """The canonical field that is written as this path."""
    return next(each.field for each in table.fields if each.writable and (path,) in each.places)
