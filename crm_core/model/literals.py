"""What a filter asks of a field, checked by the field's type: the same for a remote system and for our own records.

A literal becomes a value: text, int, Decimal, bool, date, datetime or None, never the text that the caller wrote.
"""

import re
from collections.abc import Collection, Mapping
from datetime import date, datetime
from decimal import Decimal

from crm_core.errors import BadRequest
from crm_core.model.fields import NATIVE_PREFIX, Type, decimal_text, parse_instant
from crm_core.model.filters import Compare, Kind, Literal, Match, Operator

GUID = re.compile(r"[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{12}")
GUID_TYPE = "guid"
"""An id, as a type beside those of fields."""
SERIAL_TYPE = "serial"
"""An id of a system that numbers its records."""
IDS = (GUID_TYPE, SERIAL_TYPE)

Value = str | int | Decimal | bool | date | datetime | None


def check_compare(node: Compare, kind: str, names: Collection[str] = ()) -> Value:
    """What a field of a type is compared with; None is nothing. Raises BadRequest saying what is expected.

    `kind`: a `Type` or one of IDS. `names`: the texts that the field takes, none for any.
    """
    ordered = node.operator not in (Operator.EQ, Operator.NE)
    literal = node.value
    if ordered and literal.kind is not Kind.NULL:
        if names and literal.kind is Kind.TEXT:
            raise _refuse(f"{node.field} {node.operator} a name; names have no order, use eq, ne or in.")
        if kind in IDS:
            raise _refuse(f"{node.field} {node.operator} an id; ids have no order, use eq, ne or in.")
        if kind == Type.BOOLEAN:
            raise _refuse(f"{node.field} {node.operator} true or false; they have no order, use eq or ne.")
    value = check_literal(node.field, literal, kind, names)
    if ordered and value is None:
        raise _refuse(f"{node.field} {node.operator} null; use eq or ne.")
    return value


def check_literal(field: str, literal: Literal, kind: str, names: Collection[str] = ()) -> Value:
    """The value of one literal; an empty text is nothing, as it is where values are kept."""
    if literal.kind is Kind.NULL:
        return None
    if names and literal.kind is Kind.TEXT:
        return _name(field, literal.text, names)
    try:
        value = _value(kind, literal)
    except (ValueError, ArithmeticError):
        value = None
    if value is None:
        expected = EXPECTED.get(kind, "another field; this one can't be compared")
        if literal.kind is Kind.TEXT and kind in UNQUOTED:
            expected += ", without quotes"
        raise _refuse(f"{field} with {literal.text!r}; expected {expected}.")
    return None if value == "" else value


def check_match(node: Match, kind: str, names: Collection[str] = ()) -> None:
    """Raises BadRequest for a text function of what is no free text."""
    if kind != Type.TEXT or names:
        raise BadRequest.field(
            "filter",
            f"The filter uses {node.function} with {node.field}, which holds no free text; use eq or in.",
        )


def unknown_name(field: str, text: str, names: Collection[str]) -> BadRequest:
    """The error for a text that is none of a field's names."""
    return _refuse(f"{field} with {text!r}; expected one of {', '.join(names)}.")


def _name(field: str, text: str, names: Collection[str]) -> str:
    if text in names or text.startswith(NATIVE_PREFIX):
        return text
    raise unknown_name(field, text, names)


def _refuse(what: str) -> BadRequest:
    return BadRequest.field("filter", f"The filter compares {what}")


def _value(kind: str, literal: Literal) -> Value:
    """None (or an error) if the literal is none of the type's."""
    text, written = literal.text, literal.kind
    if kind == Type.TEXT:
        return text if written is Kind.TEXT else None
    if not text.isascii():  # a digit of another script is no digit of a number here
        return None
    if kind == GUID_TYPE:
        known = written in (Kind.GUID, Kind.TEXT) and GUID.fullmatch(text)
        return text.lower() if known else None
    if kind == SERIAL_TYPE:
        known = written in (Kind.INTEGER, Kind.TEXT) and re.fullmatch(r"[1-9][0-9]{0,18}", text)
        return text if known else None
    if kind == Type.INTEGER:
        return _integer(text) if written in (Kind.INTEGER, Kind.TEXT) else None
    if kind in (Type.DECIMAL, Type.MONEY):
        return Decimal(decimal_text(Decimal(text))) if written in (Kind.INTEGER, Kind.DECIMAL) else None
    if kind == Type.BOOLEAN:
        return text == "true" if written is Kind.BOOLEAN else None
    if kind == Type.DATE:
        return date.fromisoformat(text) if written is Kind.DATE else None
    if kind == Type.INSTANT and written in (Kind.INSTANT, Kind.DATE):
        # A date alone means its first moment in UTC.
        return parse_instant(f"{text}T00:00:00Z" if written is Kind.DATE else text)
    return None


def _integer(text: str) -> int | None:
    number = int(text) if re.fullmatch(r"[+-]?[0-9]{1,19}", text) else 2**63
    return number if -(2**63) <= number < 2**63 else None


UNQUOTED = frozenset({Type.DECIMAL, Type.MONEY, Type.BOOLEAN, Type.DATE, Type.INSTANT})
EXPECTED: Mapping[str, str] = {
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
    SERIAL_TYPE: "an id such as 57",
}
