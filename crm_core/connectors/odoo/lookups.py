"""Texts that stand in another model (a user's e-mail, a country's name), and what a partner is: read by id, together."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from crm_core.connectors.odoo.client import Client
from crm_core.connectors.odoo.domains import escaped, joined
from crm_core.connectors.odoo.models.common import LOOKUPS, SYSTEM, Lookup, Model
from crm_core.connectors.odoo.wire import number_of
from crm_core.errors import BadAnswer, BadRequest
from crm_core.ports import Clock
from crm_core.protocols.kept import Kept

KEPT_SECONDS = 600.0
BOUND_SECONDS = 60.0
"""How long a text is known to stand for a record: many writes name the same owner and country."""
MAX_SHOWN = 20
IDS_PER_READ = 1000

Row = Mapping[str, Any]


@dataclass(frozen=True)
class Partner:
    """`company`: the id of the company that the partner is, or belongs to; "" for a person by himself."""

    is_company: bool
    company: str


def rows_of(told: Any) -> list[dict[str, Any]]:
    """The rows of an answer; raises BadAnswer for anything else."""
    if not isinstance(told, list) or not all(isinstance(row, dict) and "id" in row for row in told):
        raise BadAnswer("The answer has no list of records.", system=SYSTEM)
    return told


class Lookups:
    """Safe for many threads."""

    def __init__(self, client: Client, clock: Clock) -> None:
        self._client = client
        self._kept: Kept[tuple[str, str], str] = Kept(clock, KEPT_SECONDS)
        self._bound: Kept[tuple[str, str, str], int] = Kept(clock, BOUND_SECONDS)

    def texts(self, model: Model, rows: Sequence[Row]) -> Mapping[str, Mapping[str, str]]:
        """By path, the text of each id that the rows refer to, of those that no display name tells."""
        found = {}
        for each in model.fields:
            lookup = LOOKUPS.get(each.native)
            if lookup is not None and not lookup.shown:
                column = each.native.partition("/")[0]
                found[each.native] = self._texts(
                    lookup, {str(row[column]) for row in rows if row.get(column)}
                )
        return found

    def _texts(self, lookup: Lookup, ids: set[str]) -> Mapping[str, str]:
        """The text of each id, "" for one without."""

        def read(missing: list[tuple[str, str]]) -> dict[tuple[str, str], str]:
            rows = self._by_id(lookup.model, sorted(rid for _, rid in missing), [lookup.text])
            texts = {str(row["id"]): str(row.get(lookup.text) or "") for row in rows}
            return {key: texts.get(key[1], "") for key in missing}

        found = self._kept.many([(lookup.model, rid) for rid in ids], read)
        return {rid: text for (_, rid), text in found.items()}

    def partners(self, ids: Iterable[str]) -> Mapping[str, Partner]:
        """What these partners are; of one that is not there, or that we may not see, nothing."""
        fields = ["is_company", "commercial_partner_id"]
        rows = {str(row["id"]): row for row in self._by_id("res.partner", sorted(set(ids)), fields)}
        heads = {_first(row["commercial_partner_id"]) for row in rows.values()} - rows.keys() - {""}
        rows |= {str(row["id"]): row for row in self._by_id("res.partner", sorted(heads), fields)}
        found = {}
        for rid, row in rows.items():
            head = _first(row["commercial_partner_id"])
            company = head if head in rows and rows[head]["is_company"] else ""
            found[rid] = Partner(bool(row["is_company"]), rid if row["is_company"] else company)
        return found

    def _by_id(self, model: str, ids: Sequence[str], fields: Sequence[str]) -> list[dict[str, Any]]:
        found = []
        for start in range(0, len(ids), IDS_PER_READ):
            wanted = [int(rid) for rid in ids[start : start + IDS_PER_READ]]
            found += rows_of(
                self._client.call(model, "search_read", domain=[["id", "in", wanted]], fields=list(fields))
            )
        return found

    def bound(self, model: Model, row: Row) -> dict[str, Any]:
        """Native values to be written, each text of another model replaced by the id of the record that has it.

        Raises BadRequest naming the field for a text that no record has, or several have.
        """
        bound: dict[str, Any] = {}
        for path, value in row.items():
            lookup = LOOKUPS.get(path)
            if lookup is None or lookup.within:
                bound[path] = value
            else:
                bound[path.partition("/")[0]] = (
                    None if value is None else str(self._id(model, path, lookup, str(value)))
                )
        for path, value in row.items():
            lookup = LOOKUPS.get(path)
            if lookup is not None and lookup.within:
                del bound[path]
                inside = bound.get(lookup.within)
                found = None if value is None else str(self._id(model, path, lookup, str(value), inside))
                bound[path.partition("/")[0]] = found
        return bound

    def _id(self, model: Model, path: str, lookup: Lookup, text: str, inside: str | None = None) -> int:
        return self._bound.one(
            (path, text, inside or ""), lambda: self._id_read(model, path, lookup, text, inside)
        )

    def _id_read(self, model: Model, path: str, lookup: Lookup, text: str, inside: str | None) -> int:
        field = next(each.field for each in model.fields if each.native == path and each.writable)
        parts: list[list[Any]] = [[[lookup.text, "=ilike", escaped(text)]]]
        if inside:
            parts.append([[lookup.within, "=", number_of(inside)]])
        rows = self._rows(lookup, joined("&", parts))
        if not rows and lookup.by_id and text.isascii() and text.isdigit():
            rows = self._rows(lookup, [["id", "=", number_of(text)]])
        if len(rows) == 1:
            return int(rows[0]["id"])
        told = f"{len(rows)} of {lookup.model} have" if rows else f"none of {lookup.model} has"
        expected = "one that has"
        if not rows and lookup.few:
            known = sorted(str(row.get(lookup.text)) for row in self._rows(lookup, []))
            expected = f"one of {', '.join(known[:MAX_SHOWN])}"
        raise BadRequest.field(field, f"{field}: {told} '{text}' as {lookup.text}; expected {expected}.")

    def _rows(self, lookup: Lookup, domain: list[Any]) -> list[dict[str, Any]]:
        context = {"active_test": True}
        return rows_of(
            self._client.call(
                lookup.model,
                "search_read",
                domain=domain,
                fields=[lookup.text],
                limit=MAX_SHOWN + 1,
                context=context,
            )
        )

    def open_stage(self) -> int:
        """The first stage that does not mean won."""
        told = self._client.call(
            "crm.stage",
            "search_read",
            domain=[["is_won", "=", False]],
            fields=["id"],
            order="sequence,id",
            limit=1,
        )
        rows = rows_of(told)
        if not rows:
            raise BadRequest.field(
                "status", "status: this Odoo has no stage but those that mean won; add one there."
            )
        return int(rows[0]["id"])

    def won_stages(self, ids: Iterable[str]) -> frozenset[str]:
        """Those of the stages that mean won."""
        wanted = set(ids)
        told = self._texts(Lookup("crm.stage", "is_won", shown=False), wanted) if wanted else {}
        return frozenset(rid for rid, text in told.items() if text == "True")


def _first(pair: Any) -> str:
    return str(pair[0]) if isinstance(pair, list) and pair else ""
