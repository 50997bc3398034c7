"""The evaluation of ``$filter`` trees and of ``$orderby``: compiled to closures over rows.

Strings compare without regard to case, NULL is equal only to null, and ``ne`` also finds rows without a value
(Web API: filter rows; FetchXML operator reference).
"""

import operator
import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from decimal import Decimal, InvalidOperation
from functools import lru_cache
from typing import Any, Protocol

from sandbox.dynamics365.errors import bad_query
from sandbox.dynamics365.expression import Call, Compare, Literal, Logic, Node, Property
from sandbox.store import Values

Getter = Callable[[Values], Any]
Test = Callable[[Values], bool]


class Scope(Protocol):
    """Where a filter is evaluated: finds properties, and knows the time and the caller."""

    def property(self, path: str) -> tuple[Getter, str]:
        """The getter and EDM type of a property path; refuses an unknown one."""

    def now(self) -> datetime: ...


NUMERIC = ("Edm.Int32", "Edm.Int64", "Edm.Decimal", "Edm.Double")
_ORDER: dict[str, Callable[[Any, Any], bool]] = {
    "gt": operator.gt,
    "ge": operator.ge,
    "lt": operator.lt,
    "le": operator.le,
}
SYMBOLS = {
    "eq": "Equal", "ne": "NotEqual", "gt": "GreaterThan", "ge": "GreaterThanOrEqual",
    "lt": "LessThan", "le": "LessThanOrEqual",
}  # fmt: skip


def fold(text: str) -> str:
    """The form in which texts are compared: case does not count."""
    return text.casefold()


def instant(text: str) -> str:
    """A date-time literal in UTC in the form of stored ones, without the Z: so texts order as times do."""
    try:
        at = datetime.fromisoformat(text).astimezone(UTC)
    except (ValueError, OverflowError):
        raise bad_query(f"Unrecognized 'Edm.DateTimeOffset' literal '{text}'.") from None
    return at.isoformat().removesuffix("+00:00")


def sort_key(edm: str) -> Callable[[Any], Any]:
    """How a stored value of that type is made comparable."""
    if edm == "Edm.String":
        return fold
    if edm == "Edm.DateTimeOffset":
        return lambda v: v.removesuffix("Z")
    return lambda v: v


def comparable(getter: Getter, edm: str) -> Getter:
    """A property's value in the form in which it is compared; None stays None."""
    key = sort_key(edm)
    return lambda values: None if (value := getter(values)) is None else key(value)


def compile_filter(node: Node, scope: Scope) -> Test:
    """A tree as a test over a row's values."""
    if isinstance(node, Logic):
        return _logic(node.operator, [compile_filter(t, scope) for t in node.terms])
    if isinstance(node, Compare):
        return _compare(node, scope)
    if isinstance(node, Call):
        return _call(node, scope)
    if isinstance(node, Property):
        getter, edm = scope.property(node.path)
        if edm == "Edm.Boolean":
            return lambda v: getter(v) is True
    elif node.edm == "Edm.Boolean":
        return lambda _v: bool(node.value)
    raise bad_query("The $filter expression must evaluate to a single boolean value.")


def _logic(word: str, tests: list[Test]) -> Test:
    if word == "not":
        return lambda v: not tests[0](v)
    if word == "and":
        return lambda v: all(t(v) for t in tests)
    return lambda v: any(t(v) for t in tests)


def _operand(node: Literal | Property, scope: Scope) -> tuple[Getter, str]:
    if isinstance(node, Property):
        getter, edm = scope.property(node.path)
        return comparable(getter, edm), edm
    value = node.value
    if node.edm == "Edm.DateTimeOffset":
        value = instant(value)
    elif node.edm == "Edm.String":
        value = fold(value)
    return (lambda _v: value), node.edm


def _compatible(left: str, right: str) -> bool:
    if "null" in (left, right) or left == right:
        return True
    if left in NUMERIC and right in NUMERIC:
        return True
    # A date is a valid literal for a date-time column and the other way round.
    return {left, right} == {"Edm.Date", "Edm.DateTimeOffset"}


def _compare(node: Compare, scope: Scope) -> Test:
    (left, left_edm), (right, right_edm) = _operand(node.left, scope), _operand(node.right, scope)
    if not _compatible(left_edm, right_edm):
        raise bad_query(
            "A binary operator with incompatible types was detected. "
            f"Found operand types '{left_edm}' and '{right_edm}' for operator kind '{SYMBOLS[node.operator]}'."
        )
    if {left_edm, right_edm} == {"Edm.Date", "Edm.DateTimeOffset"}:
        left, right = _as_time(left), _as_time(right)
    if node.operator == "eq":
        return lambda v: left(v) == right(v)
    if node.operator == "ne":
        return lambda v: left(v) != right(v)
    test = _ORDER[node.operator]

    def ordered(values: Values) -> bool:
        a, b = left(values), right(values)
        return a is not None and b is not None and test(a, b)

    return ordered


def _as_time(getter: Getter) -> Getter:
    def get(values: Values) -> Any:
        value = getter(values)
        return value if value is None or "T" in value else f"{value}T00:00:00"

    return get


# The functions as patterns of SQL's LIKE, around what the caller wrote.
TEXT = {"contains": "%{}%", "startswith": "{}%", "endswith": "%{}"}
_WILDCARDS = re.compile(r"(?P<any>%)|(?P<one>_)|\[(?P<none>\^)?(?P<set>[^\]]*)\]|(?P<open>\[)", re.DOTALL)


@lru_cache(maxsize=256)
def like(pattern: str) -> re.Pattern[str]:
    """A pattern of LIKE as a regular expression: ``%``, ``_``, ``[set]``, ``[^set]``; a bracket makes one literal
    (Use wildcard characters in conditions for string values). A set that is no set matches nothing.
    """
    out, at = [], 0
    for match in _WILDCARDS.finditer(pattern):
        out.append(re.escape(pattern[at : match.start()]))
        at = match.end()
        if match["any"]:
            out.append(".*")
        elif match["one"]:
            out.append(".")
        elif match["set"]:
            inside = re.sub(r"[\\\[\]^&|~]", r"\\\g<0>", match["set"])
            out.append(f"[{'^' if match['none'] else ''}{inside}]")
        else:
            out.append("(?!)")
    try:
        return re.compile("".join(out) + re.escape(pattern[at:]), re.DOTALL)
    except re.error:  # a range whose end comes before its beginning
        return re.compile("(?!)")


def _call(node: Call, scope: Scope) -> Test:
    if node.named or node.name not in TEXT:
        return _vendor_call(node, scope)
    if len(node.args) != 2:
        raise bad_query(f"The function '{node.name}' takes 2 arguments.")
    operands = [_operand(arg, scope) for arg in node.args]
    if any(edm not in ("Edm.String", "null") for _, edm in operands):
        types = ", ".join(f"'{edm}'" for _, edm in operands)
        raise bad_query(
            f"No function signature for the function with name '{node.name}' matches the specified arguments: {types}."
        )
    (text, _), (part, _) = operands
    form = TEXT[node.name]

    def matches(values: Values) -> bool:
        a, b = text(values), part(values)
        return a is not None and b is not None and like(form.format(b)).fullmatch(a) is not None

    return matches


def literal_for(text: str, edm: str) -> Any:
    """A function's argument, which is always text, as a value of the column it is compared with."""
    try:
        if edm in ("Edm.Int32", "Edm.Int64"):
            return int(text)
        if edm in ("Edm.Decimal", "Edm.Double"):
            return Decimal(text)
    except (ValueError, InvalidOperation):
        raise bad_query(f"Cannot convert the literal '{text}' to the expected type '{edm}'.") from None
    if edm == "Edm.Boolean":
        return text.lower() in ("true", "1")
    if edm == "Edm.DateTimeOffset":
        return instant(text if "T" in text else f"{text}T00:00:00+00:00")
    return fold(text) if edm == "Edm.String" else text.lower()


def _vendor_call(node: Call, scope: Scope) -> Test:
    named = dict(node.named)
    if node.name not in VENDOR or "PropertyName" not in named:
        raise bad_query(f"An unknown function with name '{node.name}' was found.")
    getter, edm = scope.property(str(named["PropertyName"]))
    key = sort_key(edm)
    values = named.get("PropertyValues", [named["PropertyValue"]] if "PropertyValue" in named else [])
    if not isinstance(values, list):
        raise bad_query(f"The parameter 'PropertyValues' of '{node.name}' must be a collection.")
    test = VENDOR[node.name]([str(v) for v in values], edm, scope.now())

    def matches(row: Values) -> bool:
        value = getter(row)
        return test(None if value is None else key(value))

    return matches


VendorTest = Callable[[Any], bool]


def _in(values: list[str], edm: str, _now: datetime) -> VendorTest:
    wanted = {literal_for(v, edm) for v in values}
    return lambda v: v in wanted


def _not_in(values: list[str], edm: str, now: datetime) -> VendorTest:
    inside = _in(values, edm, now)
    return lambda v: not inside(v)


def _between(values: list[str], edm: str, _now: datetime) -> VendorTest:
    if len(values) != 2:
        raise bad_query("The function 'Between' takes two values.")
    low, high = (literal_for(v, edm) for v in values)
    return lambda v: v is not None and low <= v <= high


def _day(text: str) -> str:
    return text[:10]


def _on(compare: Callable[[str, str], bool]) -> Callable[[list[str], str, datetime], VendorTest]:
    def build(values: list[str], _edm: str, _now: datetime) -> VendorTest:
        day = _day(values[0]) if values else ""
        return lambda v: v is not None and compare(_day(v), day)

    return build


def _last(unit: timedelta) -> Callable[[list[str], str, datetime], VendorTest]:
    def build(values: list[str], edm: str, now: datetime) -> VendorTest:
        try:
            start = now - unit * int(values[0])
        except (ValueError, IndexError, OverflowError):
            raise bad_query("The value of the function must be a whole number.") from None
        if unit >= timedelta(days=1):  # counted in whole days
            start = start.replace(hour=0, minute=0, second=0, microsecond=0)
        low, high = start.isoformat()[:19], now.isoformat()[:19]
        if edm == "Edm.Date":
            low, high = low[:10], high[:10]
        return lambda v: v is not None and low <= v <= high

    return build


def _today(offset: int) -> Callable[[list[str], str, datetime], VendorTest]:
    def build(_values: list[str], _edm: str, now: datetime) -> VendorTest:
        day = (now + timedelta(days=offset)).date().isoformat()
        return lambda v: v is not None and _day(v) == day

    return build


# Web API query functions (Microsoft.Dynamics.CRM namespace).
VENDOR: dict[str, Callable[[list[str], str, datetime], VendorTest]] = {
    "In": _in,
    "NotIn": _not_in,
    "Between": _between,
    "On": _on(operator.eq),
    "OnOrAfter": _on(operator.ge),
    "OnOrBefore": _on(operator.le),
    "LastXDays": _last(timedelta(days=1)),
    "LastXHours": _last(timedelta(hours=1)),
    "LastXWeeks": _last(timedelta(weeks=1)),
    "Today": _today(0),
    "Yesterday": _today(-1),
}
