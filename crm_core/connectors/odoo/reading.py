"""Reading in Odoo's words: names resolved, questions as domains, answered rows as changes."""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from crm_core.connector import UNKNOWN, Change, Count, Query, QueryPage
from crm_core.connectors.odoo.activities import Activities
from crm_core.connectors.odoo.client import Client
from crm_core.connectors.odoo.columns import Columns
from crm_core.connectors.odoo.domains import MAX_ID, domain_of, joined, whole
from crm_core.connectors.odoo.lookups import Lookups, rows_of
from crm_core.connectors.odoo.metadata import Metadata
from crm_core.connectors.odoo.models.common import LOOKUPS, OF_STAGE, SYSTEM, Domain, Model, root
from crm_core.connectors.odoo.references import OF_PARTNER
from crm_core.connectors.odoo.wire import clean
from crm_core.errors import BadRequest, RecordGone
from crm_core.model.field_map import FieldMap
from crm_core.model.filters import Node
from crm_core.model.mapping import required_names
from crm_core.model.record import NOTHING

MAX_PAGE = 1000
"""Rows of a page at most: the server has no limit, but computed fields take their time."""
LINES = "lines"

Row = Mapping[str, Any]


class Reader:
    """Reads rows, with what they need from other models. Safe for many threads."""

    def __init__(self, client: Client, metadata: Metadata, lookups: Lookups, activities: Activities) -> None:
        self.client = client
        self.metadata = metadata
        self._lookups = lookups
        self._activities = activities

    def query(self, model: Model, query: Query) -> QueryPage:
        """Ordered by id, a page begins after the last id; in another order, which ends in the id, at a number of rows
        (odoo/odoo issue 190412: an order that is not unique shows rows twice).
        """
        asked = query.cursor or self._question(model, query)
        domain, order, fields = list(asked["domain"]), str(asked["order"]), list(asked["fields"])
        size = min(query.top, MAX_PAGE)
        after, offset = int(asked.get("after", 0)), int(asked.get("offset", 0))
        where = joined("&", [domain, [["id", ">", after]]]) if after else domain
        rows = self.rows(model, where, fields, order=order, limit=size + 1, offset=offset)
        more, rows = len(rows) > size, rows[:size]
        place = {"after": rows[-1]["id"]} if more and order == "id asc" else {"offset": offset + size}
        cursor = (
            {
                "domain": domain,
                "order": order,
                "fields": fields,
                "lines": asked["lines"],
                "only": list(asked["only"]),
                **place,
            }
            if more
            else None
        )
        count = None
        if query.count:
            count = Count(int(self.client.call(model.remote, "search_count", domain=domain)), at_least=False)
        items = self.changes(model, rows, lines=bool(asked["lines"]))
        if asked["only"]:
            items = [_only(model, change, asked["only"]) for change in items]
        return QueryPage(items, cursor, count)

    def _question(self, model: Model, query: Query) -> dict[str, Any]:
        columns = Columns(model, self.metadata, self._activities)
        parts = [whole(model.domain)] if model.domain else []
        if query.filter is not None:
            parts.append(domain_of(query.filter, columns))
        terms = {columns.ordered(each.field): each.descending for each in query.orderby}
        terms.setdefault("id", False)
        order = ",".join(f"{name} {'desc' if down else 'asc'}" for name, down in terms.items())
        fields = self.select_of(model)
        if query.select:
            chosen = {native for name in query.select for native in columns.selected(name)}
            fields = list(dict.fromkeys(["id", *chosen, model.version]))
        lines = model.lines is not None and (not query.select or LINES in query.select)
        return {
            "domain": joined("&", parts),
            "order": order,
            "fields": fields,
            "lines": lines,
            "only": query.select,
        }

    def filter(self, model: Model, node: Node) -> Domain:
        return domain_of(node, Columns(model, self.metadata, self._activities))

    def get(self, model: Model, rid: str) -> Change:
        found = self.get_many(model, [rid]).get(rid)
        if found is None:
            raise RecordGone(f"There is no {model.entity.name} {rid}.", system=SYSTEM, vendor_status=404)
        return found

    def get_many(self, model: Model, rids: Sequence[str]) -> dict[str, Change]:
        """`search_read` by id: unlike `read` it leaves out what is gone, and what our user may not see."""
        found: dict[str, Change] = {}
        domain = model.domain if model.known is None else model.known
        for ids in portions(rids):
            where = joined("&", [[["id", "in", ids]], *([whole(domain)] if domain else [])])
            rows = self.rows(model, where, self.select_of(model))
            found |= {change.rid: change for change in self.changes(model, rows)}
        return found

    def ids_there(self, model: Model, rids: Sequence[str]) -> frozenset[str]:
        """Those of the ids that are of this entity."""
        domain = model.domain if model.known is None else model.known
        found: set[str] = set()
        for ids in portions(rids):
            where = joined("&", [[["id", "in", ids]], *([whole(domain)] if domain else [])])
            found |= {str(each) for each in self.client.call(model.remote, "search", domain=where)}
        return frozenset(found)

    def rows(
        self,
        model: Model,
        domain: Domain,
        fields: Sequence[str],
        *,
        order: str = "id asc",
        limit: int = 0,
        offset: int = 0,
    ) -> list[dict[str, Any]]:
        """Rows as they come, of fields that are named: without names every field would be worked out."""
        called = {name: self.metadata.called(model, name) for name in fields}

        def read(domain: Domain, **more: Any) -> list[dict[str, Any]]:
            names = list(called.values())
            told = self.client.call(
                model.remote, "search_read", domain=domain, fields=names, order=order, **more
            )
            return rows_of(told)

        part = {"limit": limit} if limit else {}
        rows = []
        if not (offset and model.sieved):
            rows = read(domain, **part, **({"offset": offset} if offset else {}))
        if model.sieved and limit and len(rows) < limit:  # whether these are all, only the whole list tells
            found = self.client.call(model.remote, "search", domain=domain, order=order)
            ids = found[offset : offset + limit]
            rows = read([["id", "in", ids]]) if len(ids) > len(rows) else rows
        for name, there in called.items():
            if name != there:
                for row in rows:
                    row[name] = row.pop(there)
        return rows

    def select_of(self, model: Model) -> list[str]:
        """The fields to read of a model, of those that this server has."""
        there = self.metadata.facts(model)
        readable = [each for each in model.fields if each.readable and each.native != "order_line"]
        names = required_names(readable, "id", model.modified, model.version)
        return list(dict.fromkeys(root(name) for name in names if root(name) in there))

    # --- rows ----------------------------------------------------------------------------------------------------

    def changes(
        self,
        model: Model,
        rows: Sequence[Row],
        *,
        lines: bool = True,
        raw: bool = True,
        markers: Mapping[str, str] = NOTHING,
    ) -> list[Change]:
        types = self.metadata.types(model)
        cleaned = [clean(row, types) for row in rows]
        self._complete(model, cleaned)
        if self._activities.holds(model):
            self._activities.complete(cleaned)
        by_document = self._lines(model.lines, rows) if model.lines is not None and lines else None
        return [
            self._change(model, row, as_it_came if raw else NOTHING, by_document, markers)
            for row, as_it_came in zip(cleaned, rows, strict=True)
        ]

    def _complete(self, model: Model, rows: Sequence[dict[str, Any]]) -> None:
        """Adds what stands in other models."""
        texts = self._lookups.texts(model, rows)
        paths = {each.native for each in model.fields if not each.native.endswith("/name")}
        shown = [path for path in paths if path in LOOKUPS and LOOKUPS[path].shown]
        partners = {root(each.kind_native or each.native) for each in model.fields if _of_partner(each)}
        ids = {row[column] for row in rows for column in partners if row.get(column)}
        known = self._lookups.partners(ids) if ids else {}
        stages = {row["stage_id"] for row in rows if row.get("stage_id")} if model.states else set()
        won = self._lookups.won_stages(stages) if stages else frozenset()
        there = self.metadata.facts(model)
        for row in rows:
            for path in shown:
                row[path] = row.get(f"{root(path)}/name")
            for path, by_id in texts.items():
                row[path] = by_id.get(row.get(root(path)) or "") or None
            for column in partners:
                partner = known.get(row.get(column) or "")
                if partner is not None:
                    row[f"{column}/kind"] = "account" if partner.is_company else "contact"
                    row[f"{column}/account"] = partner.company or None
                    row[f"{column}/contact"] = None if partner.is_company else row[column]
                elif row.get(column):
                    row[f"{column}/kind"] = "unknown"
            if model.states and ("active" in row or "active" not in there):
                row[OF_STAGE] = (
                    model.archived
                    if not row.get("active", True)
                    else "won"
                    if row.get("stage_id") in won
                    else "open"
                )

    def _lines(self, model: Model, rows: Sequence[Row]) -> Mapping[int, list[dict[str, Any]]]:
        """By document, its lines in their order."""
        by_document: dict[int, list[dict[str, Any]]] = defaultdict(list)
        ids = [int(row["id"]) for row in rows]
        if not ids:
            return by_document
        fields = [*self.select_of(model), model.parent]
        found = self.rows(model, [[model.parent, "in", ids]], fields, order=f"{model.parent},sequence,id")
        types = self.metadata.types(model)
        cleaned = [clean(row, types) for row in found]
        self._complete(model, cleaned)
        for row in cleaned:
            row["id"] = str(row["id"])
            by_document[int(row[model.parent])].append(model.inward(row))
        return by_document

    def _change(
        self,
        model: Model,
        row: dict[str, Any],
        raw: Row,
        by_document: Mapping[int, list[dict[str, Any]]] | None,
        markers: Mapping[str, str],
    ) -> Change:
        rid = str(row["id"])
        problem = ""
        if by_document is not None:
            row["order_line"] = by_document.get(row["id"], [])
        try:
            fields = model.inward(row)
        except (ValueError, TypeError, ArithmeticError) as error:
            fields, problem = {}, f"The remote's value can't be read: {error}."
        if model.lines is not None and by_document is None:
            fields[LINES] = UNKNOWN
        at = str(row.get(model.modified) or "")
        return Change(
            rid, fields, version=at, modified=at, raw=raw, problem=problem, marker=markers.get(rid, "")
        )


def _of_partner(each: FieldMap) -> bool:
    return each.kind_native.endswith("/kind") or each.native.partition("/")[2] in OF_PARTNER


def _only(model: Model, change: Change, names: Sequence[str]) -> Change:
    """A record without what was read for its version alone."""
    found = [model.find(name) or model.companions.get(name) for name in names]
    wanted = {each.field for each in found if each is not None}
    wanted |= {model.entity.by_name[name].companion for name in wanted}
    fields = {
        name: value for name, value in (change.fields or {}).items() if name in wanted or value is UNKNOWN
    }
    return replace(change, fields=fields)


def portions(rids: Sequence[str], size: int = 1000) -> Iterator[list[int]]:
    """Ids as numbers; raises BadRequest for what is none. Beyond 32 bits there is no record."""
    for rid in rids:
        check_id(rid)
    numbers = [int(rid) for rid in rids if int(rid) <= MAX_ID]
    for start in range(0, len(numbers), size):
        yield numbers[start : start + size]


def check_id(rid: str) -> int:
    """Raises BadRequest if the text is no id."""
    if not (rid.isascii() and rid.isdigit() and 1 <= len(rid) <= 10 and rid[0] != "0"):
        raise BadRequest.field("id", "id: expected an id such as 57.")
    return int(rid)
