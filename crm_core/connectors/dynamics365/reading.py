"""Reading in Dataverse's words: names resolved, options of a question, and answered rows as changes."""

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from crm_core.connector import Change, Count, Query, Related, Step
from crm_core.connectors.dynamics365.tables import NATIVE_TYPES, SYSTEM, select_of
from crm_core.errors import BadAnswer, BadRequest
from crm_core.model.expand import Expansion, inside
from crm_core.model.fields import Type
from crm_core.model.literals import GUID_TYPE
from crm_core.model.mapping import EntityMap, FieldMap, NativeField
from crm_core.model.options import Order
from crm_core.protocols.odata import Column, expand_text, filter_text

Describe = Callable[[str], Mapping[str, NativeField]]
"""`Connector.describe`."""
Wild = Callable[[EntityMap, str], bool]
"""Whether the text functions take some characters for patterns, in a column of that table."""
FRESH: Mapping[str, str] = {"If-None-Match": "null"}
"""What expands a list may be answered from a cache without this header (Web API: "Join tables")."""

_EXPECTED_TYPES = frozenset(NATIVE_TYPES.values())


class Columns:
    """Resolves names of requests: canonical, declared native, or in the remote's own metadata, asked for when needed."""

    def __init__(self, emap: EntityMap, describe: Describe) -> None:
        self._emap = emap
        self._describe = describe

    def __call__(self, name: str, parameter: str = "filter") -> Column:
        each = self._emap.find(name)
        if each is not None:
            return Column(name, each.native, self._type(each), each.values)
        if name in ("id", self._emap.key):
            return Column(name, self._emap.key, GUID_TYPE, {})
        described = self._describe(self._emap.entity.name).get(name)
        if described is None or described.type not in _EXPECTED_TYPES:
            known = ", ".join(self._emap.by_field)
            raise BadRequest.field(
                parameter,
                f"{parameter}: '{name}' is no field of {self._emap.entity.name}; known are {known}.",
            )
        return Column(name, name, described.type, {})

    def _type(self, each: FieldMap) -> str:
        if each.bind:
            return GUID_TYPE
        if each.names or each.native == "statuscode":
            return Type.INTEGER
        return self._emap.entity.by_name[each.field].type


_WILDCARD = re.compile(r"[%_[]")
ANY_TEXT = "startswith({column},'[^\ue000]')"
"""True of every value where patterns are known (it begins with anything but that character), else of none."""


def options_of(
    emap: EntityMap, asked: Query | Expansion, describe: Describe, wild: Wild
) -> list[tuple[str, str]]:
    """The options of a question for many rows."""
    columns = Columns(emap, describe)

    def pattern(column: Column, text: str) -> str:
        # A wildcard in brackets is itself ("Use wildcard characters in conditions for string values").
        if not _WILDCARD.search(text) or not wild(emap, column.native):
            return text
        return _WILDCARD.sub(r"[\g<0>]", text)

    options = [_select(emap, asked.select, columns)]
    if asked.filter is not None:
        options.append(("$filter", filter_text(asked.filter, columns, pattern=pattern)))
    # The key as the last term makes pages stable (Dataverse: "Page results").
    orders = [*asked.orderby, Order(emap.key)]
    terms = {
        (columns(order.field, "orderby").native if order.field != emap.key else emap.key): order.descending
        for order in orders
    }
    options.append(
        ("$orderby", ",".join(f"{name} {'desc' if down else 'asc'}" for name, down in terms.items()))
    )
    return options


def _select(emap: EntityMap, names: Sequence[str], columns: Columns) -> tuple[str, str]:
    selected = [columns(name, "select").native for name in names]
    wanted = [emap.key, *selected, emap.version] if selected else select_of(emap)
    return "$select", ",".join(dict.fromkeys(wanted))


def expand_of(steps: Sequence[Step], describe: Describe, wild: Wild) -> list[tuple[str, str]]:
    """The option `$expand`, or nothing."""
    items = []
    for step in steps:
        with inside(step.asked.name):
            if step.navigation.many:
                options = options_of(step.target, step.asked, describe, wild)
                # One more than wanted tells whether there are more: the list's own nextLink does not, it is always
                # there and leads to the whole list again ("Single $expand on collection-valued navigation properties").
                options.append(("$top", str(step.asked.size + 1)))
            else:
                columns = Columns(step.target, describe)
                options = [_select(step.target, step.asked.select, columns)]
        items.append((step.navigation.native, options))
    return [("$expand", expand_text(items))] if items else []


COUNT_LIMIT = 5000
"""Where Dataverse stops counting ("Count number of rows")."""
COUNT_ANNOTATIONS = (
    "Microsoft.Dynamics.CRM.totalrecordcount",
    "Microsoft.Dynamics.CRM.totalrecordcountlimitexceeded",
)


def count_of(body: Mapping[str, Any]) -> Count:
    """How many rows a question finds. Raises BadAnswer where the answer does not tell."""
    total = body.get("@odata.count")
    if not isinstance(total, int) or isinstance(total, bool):
        raise BadAnswer("The answer lacks the count that was asked for.", system=SYSTEM)
    # A server that does not say whether it stopped there may have.
    return Count(total, bool(body.get(f"@{COUNT_ANNOTATIONS[1]}", total == COUNT_LIMIT)))


def rows_of(body: Any) -> Sequence[Mapping[str, Any]]:
    rows = body.get("value") if isinstance(body, dict) else None
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise BadAnswer("The answer has no list of records.", system=SYSTEM)
    return rows


def change_of(emap: EntityMap, row: Mapping[str, Any], steps: Sequence[Step] = ()) -> Change:
    """What a row says. Raises BadAnswer for one without its key, or without what `steps` asked to be expanded."""
    try:
        rid = str(row[emap.key]).lower()
    except KeyError:
        raise BadAnswer(f"A record without {emap.key} came back.", system=SYSTEM) from None
    try:
        fields = emap.inward(row)
        problem = ""
    except (ValueError, TypeError, ArithmeticError) as error:
        fields, problem = {}, f"The remote's value can't be read: {error}."
    expanded = {step.asked.name: _led_to(step, row) for step in steps}
    if steps:  # each expanded record has its own raw
        ways = {step.navigation.native for step in steps}
        row = {name: value for name, value in row.items() if name.partition("@")[0] not in ways}
    return Change(
        rid,
        fields,
        version=str(row.get(emap.version, "")),
        modified=str(row.get(emap.modified) or ""),
        etag=str(row.get("@odata.etag", "")),
        raw=row,
        problem=problem,
        expanded=expanded,
    )


def _led_to(step: Step, row: Mapping[str, Any]) -> Related | Change | None:
    name = step.navigation.native
    if name not in row:  # left out must not look like empty
        raise BadAnswer(f"The answer lacks {name}, which was to be expanded.", system=SYSTEM)
    found = row[name]
    if step.navigation.many:
        rows = rows_of({"value": found})
        size = step.asked.size
        return Related([change_of(step.target, each) for each in rows[:size]], more=len(rows) > size)
    if found is None:
        return None
    return change_of(step.target, rows_of({"value": [found]})[0])
