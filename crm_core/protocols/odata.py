"""OData 4 as a protocol: filters, options and entity keys as text, literals always escaped. Knows no vendor."""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from crm_core.errors import BadRequest
from crm_core.model.fields import NATIVE_PREFIX, Type, parse_instant
from crm_core.model.filters import AnyOf, Both, Compare, Either, Kind, Literal, Match, Node, Not, Operator

GUID = re.compile(r"[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{12}")

GUID_TYPE = "guid"


@dataclass(frozen=True)
class Column:
    """A property that can be asked for. `type`: how its literals are written, a `Type` or "guid".

    `values`: canonical name -> native value, where the names are ours.
    """

    name: str
    native: str
    type: str
    values: Mapping[str, str | int | bool]


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


def filter_text(node: Node, column: Callable[[str], Column]) -> str:
    """`$filter` text of a tree. `column` resolves names and raises BadRequest for unknown ones."""
    if isinstance(node, Both):
        return f"({filter_text(node.left, column)} and {filter_text(node.right, column)})"
    if isinstance(node, Either):
        return f"({filter_text(node.left, column)} or {filter_text(node.right, column)})"
    if isinstance(node, Not):
        return f"not ({filter_text(node.node, column)})"
    if isinstance(node, Compare):
        return _compare(column(node.field), node.operator, node.value)
    if isinstance(node, AnyOf):
        # `in` is not everywhere; a chain of `or` is.
        each = column(node.field)
        return "(" + " or ".join(_compare(each, Operator.EQ, value) for value in node.values) + ")"
    return _match(node, column(node.field))


def _match(node: Match, column: Column) -> str:
    if column.type != Type.TEXT or column.values:
        raise BadRequest.field(
            "filter",
            f"The filter uses {node.function} with {column.name}, which holds no free text; use eq or in.",
        )
    return f"{node.function}({column.native},{quoted(node.value.text)})"


def _compare(column: Column, operator: Operator, literal: Literal) -> str:
    if literal.kind is Kind.NULL:
        if operator not in (Operator.EQ, Operator.NE):
            raise BadRequest.field(
                "filter", f"The filter compares {column.name} {operator} null; use eq or ne."
            )
        return f"{column.native} {operator} null"
    if column.values and operator not in (Operator.EQ, Operator.NE) and literal.kind is Kind.TEXT:
        raise BadRequest.field(
            "filter",
            f"The filter compares {column.name} {operator} a name; names have no order, use eq, ne or in.",
        )
    return f"{column.native} {operator} {_literal(column, literal)}"


def _literal(column: Column, literal: Literal) -> str:
    """The literal as the column's type is written; raises BadRequest saying what is expected."""
    text = literal.text
    if column.values and literal.kind is Kind.TEXT:
        return _named(column, text)
    if column.type == Type.TEXT and literal.kind is Kind.TEXT:
        return quoted(text)
    if column.type == GUID_TYPE and literal.kind in (Kind.GUID, Kind.TEXT) and GUID.fullmatch(text):
        return text.lower()
    if (
        column.type == Type.INTEGER
        and literal.kind in (Kind.INTEGER, Kind.TEXT)
        and re.fullmatch(r"-?\d{1,19}", text)
    ):
        return text
    if column.type in (Type.DECIMAL, Type.MONEY) and literal.kind in (Kind.INTEGER, Kind.DECIMAL):
        return text
    if column.type == Type.BOOLEAN and literal.kind is Kind.BOOLEAN:
        return text
    if column.type == Type.INSTANT and literal.kind in (Kind.INSTANT, Kind.DATE):
        return _instant(column, literal)
    if column.type == Type.DATE and literal.kind is Kind.DATE:
        return text
    raise BadRequest.field(
        "filter", f"The filter compares {column.name} with {text!r}; expected {_EXPECTED[column.type]}."
    )


def _instant(column: Column, literal: Literal) -> str:
    """A date alone means its first moment in UTC."""
    text = f"{literal.text}T00:00:00Z" if literal.kind is Kind.DATE else literal.text
    try:
        parse_instant(text)
    except ValueError:
        raise BadRequest.field(
            "filter",
            f"The filter compares {column.name} with {literal.text!r}; expected {_EXPECTED[Type.INSTANT]}.",
        ) from None
    return text


def _named(column: Column, text: str) -> str:
    if text in column.values:
        value: Any = column.values[text]
    elif text.startswith(NATIVE_PREFIX) and re.fullmatch(r"-?\d{1,19}", text.removeprefix(NATIVE_PREFIX)):
        value = int(text.removeprefix(NATIVE_PREFIX))
    else:
        raise BadRequest.field(
            "filter",
            f"The filter compares {column.name} with {text!r}; expected one of {', '.join(column.values)}.",
        )
    return quoted(value) if isinstance(value, str) else str(value).lower()


_EXPECTED: Mapping[str, str] = {
    Type.TEXT: "a text in quotes",
    Type.CHOICE: "one of its names in quotes",
    Type.INTEGER: "a whole number",
    Type.DECIMAL: "a number",
    Type.MONEY: "a number",
    Type.BOOLEAN: "true or false",
    Type.DATE: "a date, such as 2026-11-24",
    Type.INSTANT: "a time with a zone, such as 2026-11-24T13:45:00Z",
    Type.REF: "an id",
    GUID_TYPE: "an id such as 629ca2a0-024a-ea11-a815-000d3a591218",
}
