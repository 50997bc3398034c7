"""Reading in Odoo's words: names resolved, questions as domains, answered rows as changes."""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from crm_core.connector import UNKNOWN, Change, Count, Query, QueryPage
from crm_core.connectors.odoo.client import Client
from crm_core.connectors.odoo.domains import MAX_ID, Column, domain_of, joined, whole
from crm_core.connectors.odoo.lookups import Lookups, rows_of
from crm_core.connectors.odoo.metadata import KNOWN_TYPES, NATIVE_TYPES, Metadata
from crm_core.connectors.odoo.models.common import LOOKUPS, SYSTEM, Domain, Model
from crm_core.connectors.odoo.wire import NUMBERS, clean
from crm_core.errors import BadRequest, RecordGone
from crm_core.model.field_map import FieldMap
from crm_core.model.fields import Type
from crm_core.model.filters import Node
from crm_core.model.literals import SERIAL_TYPE
from crm_core.model.mapping import required_names
from crm_core.model.record import NOTHING

MAX_PAGE = 1000
"""Rows of a page at most: the server has no limit, but computed fields take their time."""
LINES = "lines"
OF_STAGE = "active/status"
"""The status that stage and archive tell together."""
OF_PARTNER = ("account", "contact")

Row = Mapping[str, Any]


def root(path: str) -> str:
    """The field of the row that a path begins with."""
    return path.partition("/")[0]


class Reader:
    """Reads rows, with what they need from other models. Safe for many threads."""

    def __init__(self, client: Client, metadata: Metadata, lookups: Lookups) -> None:
        self.client = client
        self.metadata = metadata
        self._lookups = lookups

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
        columns = Columns(model, self.metadata)
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
        return domain_of(node, Columns(model, self.metadata))

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
        more: dict[str, Any] = {"limit": limit} if limit else {}
        if offset:
            more["offset"] = offset
        called = {name: self.metadata.called(model, name) for name in fields}
        told = self.client.call(
            model.remote, "search_read", domain=domain, fields=list(called.values()), order=order, **more
        )
        rows = rows_of(told)
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
            if model.states and "active" in row:
                row[OF_STAGE] = (
                    "lost" if not row["active"] else "won" if row.get("stage_id") in won else "open"
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


class Columns:
    """Resolves names of requests: canonical, declared native, or among the server's own fields."""

    def __init__(self, model: Model, metadata: Metadata) -> None:
        self._model = model
        self._metadata = metadata

    def __call__(self, name: str, parameter: str = "filter") -> Column:
        model = self._model
        each = model.find(name)
        if name in model.specific:
            field = model.specific[name][0].field
            raise BadRequest.field(parameter, f"{parameter}: '{name}' is for writing; name {field}.")
        if each is not None:
            return self._declared(each, name, parameter)
        if name in ("id", model.key):
            return Column(name, "id", SERIAL_TYPE)
        if name in model.companions:
            beside = model.companions[name].field
            raise BadRequest.field(
                parameter, f"{parameter}: '{name}' only goes with {beside}; name that one."
            )
        facts = self._metadata.facts(model).get(name)
        kind = NATIVE_TYPES.get(facts.type, "") if facts is not None else ""
        if facts is None or kind not in KNOWN_TYPES:
            raise self._unknown(name, parameter)
        empties = not (facts.type in NUMBERS or facts.type == "boolean")
        return Column(
            name, name, kind, empty=[[name, "=", False]] if empties else [], filled=[[name, "!=", False]]
        )

    def _unknown(self, name: str, parameter: str) -> BadRequest:
        entity, known = self._model.entity.name, ", ".join(self._model.by_field)
        return BadRequest.field(
            parameter, f"{parameter}: '{name}' is no field of {entity}; known are {known}."
        )

    def _declared(self, each: FieldMap, name: str, parameter: str) -> Column:
        kind = self._model.entity.by_name[each.field].type
        column = root(each.native)
        facts = self._metadata.facts(self._model).get(column)
        if facts is None:
            raise BadRequest.field(
                parameter, f"{parameter}: this Odoo has no {column} for '{name}'; leave it out."
            )
        if kind is Type.LINES or not each.askable:
            raise BadRequest.field(parameter, f"{parameter}: '{name}' can't be asked for here; leave it out.")
        empty: Domain = [[column, "=", False]]
        filled: Domain = [[column, "!=", False]]
        if each.targets:
            return self._reference(each, name, column)
        if each.native == OF_STAGE:
            return Column(name, column, Type.TEXT, states=self._model.states, filled=filled)
        if each.native in LOOKUPS:
            path = f"{column}.{LOOKUPS[each.native].text}"
            return Column(name, path, Type.TEXT, empty=empty, filled=filled)
        if facts.type == "boolean" and not each.names:
            return Column(name, column, Type.BOOLEAN)
        if each.names:
            own = {value: (value,) for value in (*each.names, each.nothing) if isinstance(value, str)}
            values = {**each.values, **(own if name == each.native else {})}
            if facts.type == "boolean" or facts.type in NUMBERS:
                return Column(name, column, NATIVE_TYPES[facts.type], values, filled=filled)
            if each.nothing is not None:
                none = [column, "=", each.nothing]
                empty, filled = joined("|", [empty, [none]]), joined("&", [filled, ["!", none]])
            nothing = each.nothing or ""
            return Column(name, column, Type.TEXT, values, empty=empty, filled=filled, nothing=nothing)
        if facts.type in NUMBERS:
            return Column(name, column, kind, filled=filled)
        days = each.midnight and name != each.native
        if each.midnight:
            kind = Type.DATE if days else Type.INSTANT
        return Column(name, column, kind, empty=empty, filled=filled, days=days)

    @staticmethod
    def _reference(each: FieldMap, name: str, column: str) -> Column:
        """A reference to a partner means those of one kind alone, where the field can't lead to the other."""
        there: Domain = [[column, "!=", False]]
        empty: Domain = [[column, "=", False]]
        which = each.native.partition("/")[2]
        entities = {target.entity for target in each.targets}
        if which == "account":
            path = f"{column}.commercial_partner_id"
        elif which == "contact" or (each.kind_native and len(entities) == 1):
            path = column
        else:
            return Column(name, column, SERIAL_TYPE, empty=empty, filled=there)
        company = which != "contact"
        filled = joined("&", [there, [[f"{path}.is_company", "=", company]]])
        lacking = joined("|", [empty, [[f"{path}.is_company", "=", not company]]])
        return Column(name, path, SERIAL_TYPE, empty=lacking, filled=filled, guarded=True)

    def ordered(self, name: str) -> str:
        """The field to order by; raises BadRequest for what is kept in another model, or is not kept at all."""
        column = self(name, "orderby").path
        each = self._model.find(name)
        facts = self._metadata.facts(self._model).get(column)
        if "." in column or (each is not None and "/" in each.native):
            raise BadRequest.field(
                "orderby", f"orderby: '{name}' is kept in another model; order by another."
            )
        if facts is not None and not facts.sortable:
            raise BadRequest.field(
                "orderby", f"orderby: '{name}' is worked out when it is read; order by another."
            )
        return column

    def selected(self, name: str) -> tuple[str, ...]:
        """The fields that have to be read for a name."""
        each = self._model.find(name) or self._model.companions.get(name)
        if each is None:
            return (self(name, "select").path,)
        if each.native == OF_STAGE:
            return ("active", "stage_id")
        return tuple(root(native) for native in each.natives if native != "order_line")
