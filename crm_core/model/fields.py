"""Fields of the canonical model: their types, how a value is read from JSON and when two values are the same.

Canonical values are JSON values: text, integer and boolean as they are; decimal and money as a string
in plain notation; date "2026-11-24"; instant RFC 3339 in UTC ending in "Z"; choice and reference as
text; choices as a list of texts; lines as a list of objects. Nothing, null, empty text and an empty list are the same
thing and are kept as None.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, date, datetime
from decimal import Decimal, InvalidOperation
from enum import StrEnum
from functools import cached_property, partial
from typing import Any

MAX_DECIMAL_EXPONENT = 30
"""Amounts beyond 10**30 or finer than 10**-30 are typing errors, and would print as very long text."""
_WHOLE_SECOND = re.compile(r"\d{4}-\d\d-\d\dT([01]\d|2[0-3]):\d\d:\d\dZ", re.ASCII)
"""An instant that is written as we write it."""
_HALF = re.compile("[\ud800-\udfff]")
NATIVE_PREFIX = "native:"
"""A native value without a canonical name is kept under this prefix (canonical-model: policy `keep`)."""


class Type(StrEnum):
    TEXT = "text"
    INTEGER = "integer"
    DECIMAL = "decimal"
    MONEY = "money"
    BOOLEAN = "boolean"
    DATE = "date"
    INSTANT = "instant"
    CHOICE = "choice"
    CHOICES = "choices"
    REF = "ref"
    LINES = "lines"


@dataclass(frozen=True)
class Field:
    """One field of an entity. `targets`: the entities that a reference can lead to; `fields`: what a line has."""

    name: str
    type: Type
    required: bool = False
    read_only: bool = False
    choices: tuple[str, ...] = ()
    targets: tuple[str, ...] = ()
    fields: tuple["Field", ...] = ()

    @property
    def companion(self) -> str:
        """The field that names the entity a reference leads to, where that can be several; else ""."""
        return f"{self.name.removesuffix('_id')}_type" if len(self.targets) > 1 else ""

    def parse(self, value: Any) -> Any:
        """The canonical value of a JSON value; raises ValueError saying what is expected."""
        if value is None or value == "" or (value == [] and self.type in (Type.CHOICES, Type.LINES)):
            return None
        return self.parser(value)

    @cached_property
    def parser(self) -> Callable[[Any], Any]:
        """`parse` for a value that is not empty, made once: a first load needs it a million times."""
        return partial(_PARSERS[self.type], self)

    def same(self, left: Any, right: Any) -> bool:
        """Whether two canonical values are one value (1.50 and 1.5 are)."""
        if left == right:
            return True
        if left is None or right is None:
            return False
        if self.type in (Type.DECIMAL, Type.MONEY):
            return Decimal(left) == Decimal(right)
        if self.type is Type.LINES:
            return len(left) == len(right) and all(
                each.same(one.get(each.name), other.get(each.name))
                for one, other in zip(left, right, strict=True)
                for each in self.fields
            )
        return False


def decimal_text(value: Decimal) -> str:
    """Plain notation, every digit kept; raises ValueError for what is no sensible amount."""
    if not value.is_finite() or abs(value.adjusted()) > MAX_DECIMAL_EXPONENT:
        raise ValueError("expected a decimal number of at most 30 digits before or after the point")
    text = format(value, "f")
    return "0" if text == "-0" else text


def instant_text(value: datetime) -> str:
    """RFC 3339 in UTC, a fraction only where there is one."""
    moment = value if value.tzinfo is UTC else value.astimezone(UTC)
    return moment.isoformat().replace("+00:00", "Z")


def hub_time(value: datetime) -> str:
    """RFC 3339 in UTC, always with microseconds: the order of such texts is the order of the times."""
    return value.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


def parse_instant(text: str) -> datetime:
    """A point in time with a zone; raises ValueError without one."""
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None:
        raise ValueError("a time needs a zone, such as 2026-11-24T13:45:00Z")
    if moment.tzinfo is UTC:
        return moment
    try:
        return moment.astimezone(UTC)
    except OverflowError:
        raise ValueError("a time of the calendar from year 1 to 9999") from None


def _text(_: Field, value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError("expected text")
    return checked_text(value)


def checked_text(value: str) -> str:
    """The text as it is; raises ValueError for one that no store takes."""
    if "\x00" in value or not (value.isascii() or _HALF.search(value) is None):
        raise ValueError("expected text without NUL or half characters")
    return value


def _integer(_: Field, value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int | Decimal):
        raise ValueError("expected a whole number")
    if isinstance(value, Decimal) and value.is_finite() and value.adjusted() > MAX_DECIMAL_EXPONENT:
        raise ValueError("expected a whole number of at most 64 bits")
    if value != int(value):
        raise ValueError("expected a whole number")
    number = int(value)
    if not -(2**63) <= number < 2**63:
        raise ValueError("expected a whole number of at most 64 bits")
    return number


def _decimal(_: Field, value: Any) -> str:
    if isinstance(value, bool) or not isinstance(value, (str, int, float, Decimal)):
        raise ValueError('expected a decimal number, as text ("1250.50") or as a number')
    try:
        number = value if isinstance(value, Decimal) else Decimal(str(value))
    except InvalidOperation:
        raise ValueError('expected a decimal number, as text ("1250.50") or as a number') from None
    return decimal_text(number)


def _boolean(_: Field, value: Any) -> bool:
    if not isinstance(value, bool):
        raise ValueError("expected true or false")
    return value


def _date(_: Field, value: Any) -> str:
    if not isinstance(value, str) or not re.fullmatch(r"\d{4}-\d\d-\d\d", value):
        raise ValueError("expected a date, such as 2026-11-24")
    try:
        return date.fromisoformat(value).isoformat()
    except ValueError:
        raise ValueError("expected a date of the calendar, such as 2026-11-24") from None


def _instant(_: Field, value: Any) -> str:
    try:
        moment = parse_instant(value)
        return value if _WHOLE_SECOND.fullmatch(value) else instant_text(moment)
    except (TypeError, ValueError, OverflowError):
        raise ValueError("expected a time with a zone, such as 2026-11-24T13:45:00Z") from None


def _choice(field: Field, value: Any) -> str:
    if isinstance(value, str) and (value in field.choices or value.startswith(NATIVE_PREFIX)):
        return value
    raise ValueError(f"expected one of {', '.join(field.choices)}")


def _choices(_: Field, value: Any) -> list[str]:
    if not isinstance(value, list) or not all(isinstance(each, str) and each for each in value):
        raise ValueError("expected a list of texts")
    return [_text(_, each) for each in value]


def _lines(field: Field, value: Any) -> list[dict[str, Any]]:
    """What a line leaves empty is left out of it."""
    if not isinstance(value, list) or not all(isinstance(each, dict) for each in value):
        raise ValueError("expected a list of lines, each an object")
    return [_line(field, number, each) for number, each in enumerate(value, 1)]


def _line(field: Field, number: int, value: dict[str, Any]) -> dict[str, Any]:
    known = {each.name: each for each in field.fields}
    line = {}
    for name, each in value.items():
        if name not in known:
            raise ValueError(f"line {number}: '{name}' is no field of a line; known are {', '.join(known)}")
        try:
            line[name] = known[name].parse(each)
        except ValueError as error:
            raise ValueError(f"line {number}: {name}: {error}") from None
    return line


_PARSERS = {
    Type.TEXT: _text,
    Type.INTEGER: _integer,
    Type.DECIMAL: _decimal,
    Type.MONEY: _decimal,
    Type.BOOLEAN: _boolean,
    Type.DATE: _date,
    Type.INSTANT: _instant,
    Type.CHOICE: _choice,
    Type.CHOICES: _choices,
    Type.REF: _text,
    Type.LINES: _lines,
}


def seconds_until(moment: str, now: datetime) -> float:
    """From now to an RFC 3339 time, negative if it is over; 0 for ""."""
    return (parse_instant(moment) - now).total_seconds() if moment else 0.0
