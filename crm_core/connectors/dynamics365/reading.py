"""Reading in Dataverse's words: names resolved, options of a question, and answered rows as changes."""

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from crm_core.connector import UNKNOWN, Change, Count, Query, QueryPage, Related, Step
from crm_core.connectors.dynamics365 import kinds
from crm_core.connectors.dynamics365.client import Client, following_of, prefer, rows_of
from crm_core.connectors.dynamics365.lookups import Lookups
from crm_core.connectors.dynamics365.metadata import KNOWN_TYPES, Metadata
from crm_core.connectors.dynamics365.tables.common import LOOKUPS, MASTER, SYSTEM, Table
from crm_core.errors import BadAnswer, BadRequest
from crm_core.model.expand import Expansion, inside
from crm_core.model.field_map import FieldMap
from crm_core.model.fields import Type
from crm_core.model.filters import Node
from crm_core.model.literals import GUID_TYPE
from crm_core.model.mapping import EntityMap, required_names
from crm_core.model.options import Order
from crm_core.model.record import NOTHING
from crm_core.protocols.odata import Column, check_guid, expand_text, filter_text, key_segment

MAX_PAGE = 5000
"""Rows of a page at most (Page results: odata.maxpagesize)."""
FRESH: Mapping[str, str] = {"If-None-Match": "null"}
"""What expands a list may be answered from a cache without this header (Web API: "Join tables")."""
COUNT_LIMIT = 5000
"""Where Dataverse stops counting ("Count number of rows")."""
COUNT_ANNOTATIONS = (
    "Microsoft.Dynamics.CRM.totalrecordcount",
    "Microsoft.Dynamics.CRM.totalrecordcountlimitexceeded",
)
ANY_TEXT = "startswith({column},'[^\ue000]')"
"""True of every value where patterns are known (it begins with anything but that character), else of none."""
_WILDCARD = re.compile(r"[%_[]")
LINES = "lines"
KIND = "activitytypecode"

Row = Mapping[str, Any]


class Reader:
    """Reads rows, with what they need from other tables. Safe for many threads."""

    def __init__(self, client: Client, metadata: Metadata, lookups: Lookups) -> None:
        self._client = client
        self._metadata = metadata
        self._lookups = lookups
        self._wildcards: set[tuple[str, str]] = set()

    def query(self, table: Table, query: Query, steps: Sequence[Step]) -> QueryPage:
        options: Sequence[tuple[str, str]] | str
        if query.cursor is not None:
            options = str(query.cursor["next"])
        else:
            options = [*self.options(table, query), *self._expand(steps)]
            options += [("$count", "true")] if query.count else []
        annotations = COUNT_ANNOTATIONS if query.count else ()
        headers = _headers(
            table, steps, f"odata.maxpagesize={min(query.top, MAX_PAGE)}", annotations=annotations
        )
        body = self._client.json("GET", table.remote, query=options, headers=headers)
        following = following_of(body.get("@odata.nextLink"), table.remote)
        lines = not query.select or LINES in query.select
        items = self.changes(table, rows_of(body), steps, lines=lines)
        count = count_of(body) if query.count else None
        return QueryPage(items, {"next": following} if following else None, count)

    def get(self, table: Table, rid: str, steps: Sequence[Step] = ()) -> Change:
        path = key_segment(table.remote, check_guid(rid))
        options = [("$select", ",".join(select_of(table))), *self._expand(steps)]
        row = self._client.json("GET", path, query=options, headers=_headers(table, steps))
        return self.changes(table, [row], steps)[0]

    def get_many(self, table: Table, rids: Sequence[str]) -> dict[str, Change]:
        found: dict[str, Change] = {}
        for rows in self._by_ids(table, rids, select_of(table)):
            found |= {change.rid: change for change in self.changes(table, rows)}
        return found

    def tables_of(self, table: Table, rids: Sequence[str]) -> dict[str, Table]:
        """By id, the table of the row's own kind; for what does not exist, nothing."""
        found: dict[str, Table] = {}
        for rows in self._by_ids(table, rids, [table.key, KIND]):
            for row in rows:
                found[str(row.get(table.key)).lower()] = own_table(table, row)
        return found

    def _by_ids(self, table: Table, rids: Sequence[str], select: Sequence[str]) -> Iterator[list[Row]]:
        ids = [check_guid(rid) for rid in rids]
        return self._client.rows_by_id(table.remote, table.key, ids, select, headers=prefer([table]))

    # --- options -------------------------------------------------------------------------------------------------

    def options(self, table: Table, asked: Query | Expansion) -> list[tuple[str, str]]:
        """The options of a question for many rows."""
        columns = Columns(table, self._metadata)
        options = [_select(table, asked.select, columns)]
        if asked.filter is not None:
            options.append(("$filter", self.filter(table, asked.filter)))
        # The key as the last term makes pages stable (Dataverse: "Page results").
        terms = {
            (columns.ordered(order.field) if order.field != table.key else table.key): order.descending
            for order in (*asked.orderby, Order(table.key))
        }
        options.append(
            ("$orderby", ",".join(f"{name} {'desc' if down else 'asc'}" for name, down in terms.items()))
        )
        return options

    def filter(self, table: Table, node: Node) -> str:
        """`$filter` text. A wildcard in brackets is itself ("Use wildcard characters in conditions for string values")."""

        def pattern(column: Column, text: str) -> str:
            if not _WILDCARD.search(text) or not self._knows_patterns(table, column.native):
                return text
            return _WILDCARD.sub(r"[\g<0>]", text)

        node = kinds.of_all(node, table) if table.kinds else node
        return filter_text(node, Columns(table, self._metadata), pattern=pattern)

    def _knows_patterns(self, table: Table, column: str) -> bool:
        """Asked until it is known of a column, and only for a filter that has such a character.

        Dataverse documents patterns; what else speaks its language may not know them, and would take their escape
        for text. Where no row has a value yet the answer does not matter now, and may be another one later.
        """
        asked = (table.remote, column)
        if asked in self._wildcards:
            return True
        options = [("$select", table.key), ("$filter", ANY_TEXT.format(column=column))]
        headers = {"Prefer": "odata.maxpagesize=1"}
        if not rows_of(self._client.json("GET", table.remote, query=options, headers=headers)):
            return False
        self._wildcards.add(asked)
        return True

    def _expand(self, steps: Sequence[Step]) -> list[tuple[str, str]]:
        """The option `$expand`, or nothing."""
        items = []
        for step in steps:
            target = table_of(step.target)
            with inside(step.asked.name):
                if step.navigation.many:
                    options = self.options(target, step.asked)
                    # One more than wanted tells whether there are more: the list's own nextLink does not, it is always
                    # there and leads to the whole list again ("Single $expand on collection-valued navigation
                    # properties").
                    options.append(("$top", str(step.asked.size + 1)))
                else:
                    options = [_select(target, step.asked.select, Columns(target, self._metadata))]
            items.append((step.navigation.native, options))
        return [("$expand", expand_text(items))] if items else []

    # --- rows ----------------------------------------------------------------------------------------------------

    def changes(
        self,
        table: Table,
        rows: Sequence[Row],
        steps: Sequence[Step] = (),
        *,
        lines: bool = True,
        raw: bool = True,
    ) -> list[Change]:
        """What rows say, with what they need from other tables, with the rows themselves or (`raw`) without.

        Raises BadAnswer for one without its key, or without what `steps` asked to be expanded.
        """
        texts = self._lookups.beside(table, rows)
        for step in steps:  # at once, or each row would ask for those that it leads to
            self._lookups.beside(table_of(step.target), _all_led_to(step, rows))
        lines_of = self._lines(table, table.lines, rows) if table.lines is not None and lines else None

        def whole(row: Row) -> Row:
            more = {**table.constant, **texts(row)}
            if lines_of is not None:
                more[LINES] = lines_of.get(str(row.get(table.key)).lower(), [])
            return {**row, **more} if more else row

        ways = {step.navigation.native for step in steps}
        return [
            change_of(
                table,
                whole(row),
                _without(row, ways) if raw else NOTHING,
                {step.asked.name: self._led_to(step, row) for step in steps} if steps else NOTHING,
            )
            for row in rows
        ]

    def _lines(self, table: Table, lines: Table, rows: Sequence[Row]) -> Mapping[str, list[dict[str, Any]]]:
        """By document, its lines in their order."""
        parent = f"_{lines.parent}_value"
        by_document: dict[str, list[dict[str, Any]]] = defaultdict(list)
        rids = [str(row[table.key]) for row in rows if row.get(table.key)]
        select, order = [*select_of(lines), parent], ("$orderby", f"lineitemnumber asc,{lines.key} asc")
        for found in self._client.rows_by_id(
            lines.remote, parent, rids, select, order, headers=prefer([lines])
        ):
            texts = self._lookups.beside(lines, found)
            for row in found:
                by_document[str(row.get(parent)).lower()].append(lines.inward({**row, **texts(row)}))
        return by_document

    def _led_to(self, step: Step, row: Row) -> Related | Change | None:
        name = step.navigation.native
        target = table_of(step.target)
        if name not in row:  # left out must not look like empty
            raise BadAnswer(f"The answer lacks {name}, which was to be expanded.", system=SYSTEM)
        found = row[name]
        if step.navigation.many:
            rows = rows_of({"value": found})
            size = step.asked.size
            return Related(self.changes(target, rows[:size], lines=False), more=len(rows) > size)
        if found is None:
            return None
        return self.changes(target, rows_of({"value": [found]}), lines=False)[0]


class Columns:
    """Resolves names of requests: canonical, declared native, or in the remote's own metadata, asked for when needed."""

    def __init__(self, table: Table, metadata: Metadata) -> None:
        self._table = table
        self._metadata = metadata

    def __call__(self, name: str, parameter: str = "filter") -> Column:
        each = self._table.find(name)
        if name in self._table.specific:
            field = self._table.specific[name][0].field
            raise BadRequest.field(parameter, f"{parameter}: '{name}' is for writing; name {field}.")
        if each is not None:
            days = each.midnight and name != each.native
            kind = Type.DATE if days else self._type(each, name, parameter)
            return Column(name, each.native, kind, self._values(each, name), days)
        if name in ("id", self._table.key):
            return Column(name, self._table.key, GUID_TYPE, {})
        if name in self._table.companions:
            beside = self._table.companions[name].field
            raise BadRequest.field(
                parameter, f"{parameter}: '{name}' only goes with {beside}; name that one."
            )
        described = self._metadata.fields(self._table).get(name)
        if described is None or described.type not in KNOWN_TYPES:
            known = ", ".join(self._table.by_field)
            raise BadRequest.field(
                parameter,
                f"{parameter}: '{name}' is no field of {self._table.entity.name}; known are {known}.",
            )
        return Column(name, name, described.type, {})

    @staticmethod
    def _values(each: FieldMap, name: str) -> Mapping[str, Sequence[str | int | bool]]:
        """By the remote's own name of the field its own texts are known as well."""
        own = [value for value in each.names if name == each.native and isinstance(value, str)]
        return {**each.values, **{value: (value,) for value in own}}

    def ordered(self, name: str) -> str:
        """The property to order by; raises BadRequest for one that is in another table."""
        native = self(name, "orderby").native
        if native in LOOKUPS:
            raise BadRequest.field(
                "orderby", f"orderby: '{name}' is kept in another table; order by another."
            )
        return native

    def selected(self, name: str) -> tuple[str, ...]:
        """The properties that have to be read for a field; none for what is not a property of the row."""
        each = self._table.find(name) or self._table.companions.get(name)
        if each is not None and not each.readable:
            raise BadRequest.field("select", f"select: '{name}' is never told; leave it out.")
        if each is not None and self._only_of_a_kind(each):
            raise BadRequest.field(
                "select",
                f"select: '{name}' is told of a single {self._table.entity.name} only; leave it out.",
            )
        natives = each.natives if each is not None else (self(name, "select").native,)
        return tuple(_column(native) for native in natives if native != LINES)

    def _type(self, each: FieldMap, name: str, parameter: str) -> str:
        if each.targets:
            return GUID_TYPE
        kind = self._table.entity.by_name[each.field].type
        if kind is Type.LINES or not each.askable or self._only_of_a_kind(each):
            raise BadRequest.field(parameter, f"{parameter}: '{name}' can't be asked for here; leave it out.")
        if (each.names and isinstance(next(iter(each.names)), int)) or each.native == "statuscode":
            return Type.BOOLEAN if isinstance(next(iter(each.names), None), bool) else Type.INTEGER
        return Type.INSTANT if each.midnight else kind

    def _only_of_a_kind(self, each: FieldMap) -> bool:
        """Whether the list that stands for several tables lacks a field."""
        return bool(self._table.kinds) and each.native not in LISTED


LISTED = frozenset(
    {
        "activitytypecode", "subject", "description", "scheduledstart", "scheduledend", "actualend", "prioritycode",
        "_regardingobjectid_value", "owninguser/internalemailaddress", "statecode", "statuscode", "createdon",
        "modifiedon",
    }
)  # fmt: skip
"""The columns that every kind of activity has (activitypointer)."""


def _select(table: Table, names: Sequence[str], columns: Columns) -> tuple[str, str]:
    selected = [native for name in names for native in columns.selected(name)]
    if not names:
        return "$select", ",".join(select_of(table))
    # What tells the table of a row is needed whatever is asked for.
    kind = [KIND] if table.kinds else []
    return "$select", ",".join(dict.fromkeys([table.key, *kind, *selected, table.version]))


def select_of(table: Table) -> list[str]:
    """The properties to read of a row of a table."""
    readable = [each for each in table.fields if each.readable]
    master = [MASTER] if table.merges else []
    names = required_names(readable, table.key, table.modified, table.version, *master)
    hidden = {LINES}
    if table.kinds:
        hidden |= {each.native for each in table.fields} - LISTED
    return list(dict.fromkeys(_column(name) for name in names if name not in hidden))


def _column(name: str) -> str:
    """The column of the row for a property, which may be a text that stands in another table."""
    return LOOKUPS[name].native if name in LOOKUPS else name


def _headers(
    table: Table, steps: Sequence[Step], *preferences: str, annotations: Sequence[str] = ()
) -> dict[str, str]:
    tables = [table, *(table_of(step.target) for step in steps)]
    headers = prefer(tables, *preferences, annotations=annotations)
    return {**headers, **FRESH} if steps else headers


def count_of(body: Mapping[str, Any]) -> Count:
    """How many rows a question finds. Raises BadAnswer where the answer does not tell."""
    total = body.get("@odata.count")
    if not isinstance(total, int) or isinstance(total, bool):
        raise BadAnswer("The answer lacks the count that was asked for.", system=SYSTEM)
    # A server that does not say whether it stopped there may have.
    return Count(total, bool(body.get(f"@{COUNT_ANNOTATIONS[1]}", total == COUNT_LIMIT)))


def _all_led_to(step: Step, rows: Sequence[Row]) -> list[Row]:
    """What a way of an `expand` leads to from all rows, as far as it can be read."""
    found = (row.get(step.navigation.native) for row in rows)
    each = (one for some in found for one in (some if isinstance(some, list) else [some]))
    return [one for one in each if isinstance(one, dict)]


def table_of(emap: EntityMap) -> Table:
    assert isinstance(emap, Table)
    return emap


def own_table(table: Table, row: Row) -> Table:
    """The table of a row's own kind; the table itself if it has no kinds, or not this one."""
    kind = table.by_field["kind"].names.get(row.get(KIND)) if table.kinds else None
    return table.kinds.get(kind, table) if kind else table


def _without(row: Row, names: set[str]) -> Row:
    """A row without what it was expanded by: each expanded record has its own raw."""
    return (
        {name: value for name, value in row.items() if name.partition("@")[0] not in names} if names else row
    )


def change_of(table: Table, row: Row, raw: Row, expanded: Mapping[str, Related | Change | None]) -> Change:
    """What a row says, with the texts and lines that belong to it; `raw`: as it came."""
    try:
        rid = str(row[table.key]).lower()
    except KeyError:
        raise BadAnswer(f"A record without {table.key} came back.", system=SYSTEM) from None
    try:
        fields = own_table(table, row).inward(row)
        problem = ""
    except (ValueError, TypeError, ArithmeticError) as error:
        fields, problem = {}, f"The remote's value can't be read: {error}."
    if table.lines is not None and LINES not in row:
        fields[LINES] = UNKNOWN
    if table.kinds:
        fields |= {each.field: UNKNOWN for each in table.fields if each.native not in LISTED}
    return Change(
        rid,
        fields,
        version=str(row.get(table.version, "")),
        modified=str(row.get(table.modified) or ""),
        etag=str(row.get("@odata.etag", "")),
        raw=raw,
        problem=problem,
        winner=str(row.get(MASTER) or "").lower() if table.merges else "",
        expanded=expanded,
    )
