"""OData 4 as a protocol: filters, options and entity keys as text, literals always escaped. Knows no vendor."""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from decimal import Decimal
from urllib.parse import quote

from crm_core.errors import BadRequest
from crm_core.model.fields import NATIVE_PREFIX, decimal_text, instant_text
from crm_core.model.filters import AnyOf, Both, Compare, Either, Kind, Node, Not, Operator
from crm_core.model.literals import (
    GUID,
    GUID_TYPE,
    Value,
    check_compare,
    check_match,
    unknown_name,
)


@dataclass(frozen=True)
class Column:
    """A property that can be asked for. `type`: how its literals are written, a `Type` or "guid".

    `values`: canonical name -> native values, where the names are ours. `days`: it holds times, of which a date of the
    caller's means the whole day in UTC.
    """

    name: str
    native: str
    type: str
    values: Mapping[str, Sequence[str | int | bool]]
    days: bool = False


def quoted(text: str) -> str:
    """A string literal: quotes are doubled (OData 4.01 URL conventions, section 5.1.1.6.1)."""
    return "'" + text.replace("'", "''") + "'"


def key_segment(collection: str, key: str) -> str:
    """The path of one entity by its GUID key, for a key that `check_guid` has accepted."""
    return f"{collection}({quote(key, safe='')})"


def check_guid(value: str, parameter: str = "id") -> str:
    """Raises BadRequest that names the parameter if the value is no GUID."""
    if not GUID.fullmatch(value):
        raise BadRequest.field(
            parameter, f"{parameter}: expected an id such as 629ca2a0-024a-ea11-a815-000d3a591218."
        )
    return value.lower()


def expand_text(items: Iterable[tuple[str, Sequence[tuple[str, str]]]]) -> str:
    """`$expand` text: names of navigation properties, each with its options (OData 4.01 URL conventions, 5.1.3)."""
    return ",".join(
        f"{name}({';'.join(f'{option}={value}' for option, value in options)})" for name, options in items
    )


def _plain(_: Column, text: str) -> str:
    return text


def filter_text(
    node: Node,
    column: Callable[[str], Column],
    *,
    negated: bool = False,
    pattern: Callable[[Column, str], str] = _plain,
) -> str:
    """`$filter` text of a tree. `column` resolves names and raises BadRequest for unknown ones.

    Servers differ in what `not` and `ne` make of an empty field, so the text leaves them no choice (docs/adr/0006):
    `not` is carried down to the conditions, and what is true of an empty field says so. `negated`: of the tree's
    opposite. `pattern`: how the text of a text function is written where some of its characters mean more.
    """
    if isinstance(node, Not):
        return filter_text(node.node, column, negated=not negated, pattern=pattern)
    if isinstance(node, Both | Either):
        word = "and" if isinstance(node, Both) is not negated else "or"
        parts = [
            filter_text(each, column, negated=negated, pattern=pattern) for each in (node.left, node.right)
        ]
        return f"({parts[0]} {word} {parts[1]})"
    if isinstance(node, AnyOf):
        return _any_of(node, column(node.field), negated=negated)
    if isinstance(node, Compare):
        return _compare(node, column(node.field), negated=negated)
    found = column(node.field)
    check_match(node, found.type, found.values)
    text = f"{node.function}({found.native},{quoted(pattern(found, node.value.text))})"
    return _or_empty(found, f"not {text}") if negated else text


def _any_of(node: AnyOf, column: Column, *, negated: bool) -> str:
    """`in` is not everywhere; a chain of `or` is, and the longest list that a filter may have fits a URL."""
    each = [_compare(Compare(node.field, Operator.EQ, one), column, negated=negated) for one in node.values]
    if not each:  # nothing is in an empty list: what can't be true, or its opposite
        return f"({column.native} eq null {'or' if negated else 'and'} {column.native} ne null)"
    return f"({(' and ' if negated else ' or ').join(each)})"


_OPPOSITE: Mapping[Operator, Operator] = {
    Operator.EQ: Operator.NE,
    Operator.NE: Operator.EQ,
    Operator.GT: Operator.LE,
    Operator.LE: Operator.GT,
    Operator.GE: Operator.LT,
    Operator.LT: Operator.GE,
}


def _compare(node: Compare, column: Column, *, negated: bool) -> str:
    value = check_compare(node, column.type, column.values)
    operator = _OPPOSITE[node.operator] if negated else node.operator
    if column.values and isinstance(value, str) and node.value.kind is Kind.TEXT:
        text = _named(column, operator, value)
    elif column.days and isinstance(value, date):
        text = _day(column.native, operator, value)
    else:
        text = f"{column.native} {operator} {_literal(column, value)}"
    if value is None or operator is Operator.EQ:
        return text
    is_order = operator is not Operator.NE
    return text if is_order and not negated else _or_empty(column, text)


def _day(native: str, operator: Operator, day: date) -> str:
    """A condition on the day of a time."""
    begin = f"{day.isoformat()}T00:00:00Z"
    # No day follows the calendar's last one, and nothing is at its very end.
    end = f"{(day + timedelta(days=1)).isoformat()}T00:00:00Z" if day < date.max else f"{day}T23:59:59Z"
    texts = {
        Operator.EQ: f"({native} ge {begin} and {native} lt {end})",
        Operator.NE: f"({native} lt {begin} or {native} ge {end})",
        Operator.LT: f"{native} lt {begin}",
        Operator.GE: f"{native} ge {begin}",
        Operator.LE: f"{native} lt {end}",
        Operator.GT: f"{native} ge {end}",
    }
    return texts[operator]


def _or_empty(column: Column, text: str) -> str:
    return f"({text} or {column.native} eq null)"


def _literal(column: Column, value: Value) -> str:
    """A checked value as the column's type is written."""
    if value is None:
        return "null"
    if isinstance(value, str):
        return value if column.type == GUID_TYPE else quoted(value)
    if isinstance(value, datetime):
        return instant_text(value)
    if isinstance(value, Decimal):
        return decimal_text(value)
    return value.isoformat() if isinstance(value, date) else str(value).lower()


def _named(column: Column, operator: Operator, name: str) -> str:
    """A condition on the native values that a canonical name stands for."""
    kind = type(next(iter(column.values.values()))[0])
    native = name.removeprefix(NATIVE_PREFIX)
    values: Sequence[str | int | bool] = column.values.get(name, ())
    if native != name and kind is str:
        values = (native,)
    elif native != name and kind is int and re.fullmatch(r"-?[0-9]{1,19}", native):
        values = (int(native),)
    if not values:
        raise unknown_name(column.name, name, column.values)
    each = [
        f"{column.native} {operator} {quoted(value) if isinstance(value, str) else str(value).lower()}"
        for value in values
    ]
    return each[0] if len(each) == 1 else f"({(' or ' if operator is Operator.EQ else ' and ').join(each)})"
