"""How one field is called at a remote system, and how its values change on the way; declared, pure."""

import dataclasses
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from decimal import ROUND_HALF_UP, Context, Decimal
from functools import cached_property
from typing import Any

from crm_core.model.fields import (
    MAX_DECIMAL_EXPONENT,
    NATIVE_PREFIX,
    Field,
    Type,
    checked_text,
    decimal_text,
    instant_text,
    parse_instant,
)

_DIGITS = Context(prec=2 * MAX_DECIMAL_EXPONENT + 2)
"""Room for every digit that an amount can have."""


@dataclass(frozen=True)
class Target:
    """Where a reference may lead. `native`: what the remote calls that entity. `write`: the property that writes the
    reference, and `value` what it is then set to, with {id} for the id; `clear`: the property that is set to null.
    """

    entity: str
    native: str
    write: str
    value: str
    clear: str


@dataclass(frozen=True)
class FieldMap:
    """One canonical field at a remote system.

    `native`: the property as it is read and filtered. `names`: native value -> canonical name; of several values with
    one name the first is written. `nothing`: the native value that says that there is none, of a property that is never
    empty there. `readable`: False for what the remote takes and never tells. `kept`: where it is emptied, the remote has
    a value of its own. `midnight`: the remote keeps the date as its first moment in UTC.
    What the remote stores of a value (`canon`): `length`: the longest text, in UTF-16 code units; a longer one is
    refused, never cut. `scale`: digits after the point of an amount, which it rounds half up. `whole_seconds`: it cuts
    the fraction of a time. `day`: it keeps of a time the day in UTC alone, which is read as its first moment.
    A reference has `targets`, and where it can lead to several entities at the remote `kind_native`, the property that
    tells which; a row without that property is of the first. `form`: the pattern of its ids. `free`: a connection's
    mapping may say where it is kept; of any other reference only the connector can.
    """

    field: str
    native: str
    names: Mapping[Any, str] = dataclasses.field(default_factory=dict)
    nothing: Any = None
    length: int | None = None
    scale: int | None = None
    whole_seconds: bool = False
    day: bool = False
    writable: bool = True
    readable: bool = True
    midnight: bool = False
    kept: bool = False
    targets: tuple[Target, ...] = ()
    kind_native: str = ""
    form: str = ""
    free: bool = False

    @property
    def natives(self) -> tuple[str, ...]:
        """The properties to ask the remote for."""
        return (self.native,)

    @property
    def sources(self) -> Sequence[tuple[str, ...]]:
        """What a read looks at, in the form of `places`."""
        return ((self.native,),)

    @property
    def places(self) -> Sequence[tuple[str, ...]]:
        """What a write sets: properties, each with its parts from the outside to the inside; of a reference the one
        that it is read by.
        """
        return ((self.native,),)

    @property
    def plain(self) -> bool:
        """Whether the remote's own name means this field too, so that it can be filtered and written by it."""
        return True

    @property
    def askable(self) -> bool:
        """Whether a filter or an order can name it."""
        return self.readable

    @property
    def take(self) -> Callable[[Mapping[str, Any]], Any] | None:
        """What gives the remote's value out of a row; None: it is what the row holds under `native`."""
        return None

    def is_told(self, row: Mapping[str, Any]) -> bool:
        """Whether a row that may be a part of one says anything of the field, be it that it is empty."""
        return self.readable and self.native in row

    def put(self, value: Any) -> Mapping[str, Any]:
        """The properties that hold a value that `outward` gave."""
        return {self.native: value}

    @cached_property
    def values(self) -> Mapping[str, tuple[Any, ...]]:
        """Canonical name -> its native values, the one that is written first."""
        values: dict[str, tuple[Any, ...]] = {}
        for value, name in self.names.items():
            values[name] = (*values.get(name, ()), value)
        return values

    def target(self, row: Mapping[str, Any]) -> Target | None:
        """Where the reference of a remote row leads; None for an entity that is not among its targets."""
        kind = row.get(self.kind_native) if self.kind_native else None
        if kind is None:
            return self.targets[0]
        return next((each for each in self.targets if each.native == kind), None)

    def reader(self, kind: Field) -> Callable[[Any], Any]:
        """What gives the canonical value of what the remote holds, if that is not empty.

        It raises ValueError where it can't be one.
        """
        names, nothing, parse = self.names, self.nothing, kind.parser
        if names:
            return lambda value: names.get(value) or (None if value == nothing else f"{NATIVE_PREFIX}{value}")
        if self.midnight:
            return lambda value: parse(str(value)[:10])
        if self.day:
            return lambda value: parse(_first_moment(str(value)))
        if kind.type in (Type.CHOICES, Type.LINES):
            return kind.parse  # an empty list is nothing
        if kind.type not in (Type.TEXT, Type.CHOICE):
            return parse

        check = checked_text if kind.type is Type.TEXT else parse

        def text(value: Any) -> Any:
            if isinstance(value, str):
                return check(value)
            return str(value).lower() if isinstance(value, bool) else str(value)

        return text

    def outward(self, kind: Field, value: Any) -> Any:
        """What is sent for a canonical value; amounts as Decimal. Raises ValueError saying what is expected."""
        if value is None:
            return self.nothing
        if self.names:
            return self._native_of_name(value)
        if self.form and not re.fullmatch(self.form, value):
            raise ValueError("expected the id of a record at the system")
        if isinstance(value, str):
            self.check_length(value)
        if kind.type in (Type.DECIMAL, Type.MONEY):
            return Decimal(value)
        if self.midnight:
            return _first_moment(value)
        if self.day:
            return parse_instant(value).date().isoformat()
        return value

    def check_length(self, text: str) -> None:
        """Raises ValueError for a text that the system would cut."""
        if self.length is not None and _units(text) > self.length:
            raise ValueError(f"longer than the {self.length} characters that the system stores")

    def canon(self, kind: Field, value: Any) -> Any:
        """The canonical value that the remote holds once it has stored this one (sync-semantics.md, section 1)."""
        if value is None:
            return None
        if self.names and value not in self.values:
            return self._named_by_value.get(value, value)
        if self.scale is not None and kind.type in (Type.DECIMAL, Type.MONEY):
            step = Decimal(1).scaleb(-self.scale)
            return decimal_text(Decimal(value).quantize(step, ROUND_HALF_UP, _DIGITS))
        if self.whole_seconds and kind.type is Type.INSTANT:
            return instant_text(parse_instant(value).replace(microsecond=0))
        if self.day:
            return _first_moment(parse_instant(value).date().isoformat())
        return value

    @cached_property
    def _named_by_value(self) -> Mapping[str, str | None]:
        """What is read of a native value that was given under its prefix although it has a name, or says nothing."""
        named: dict[str, str | None] = {f"{NATIVE_PREFIX}{value}": name for value, name in self.names.items()}
        return named if self.nothing is None else {**named, f"{NATIVE_PREFIX}{self.nothing}": None}

    def _native_of_name(self, value: str) -> Any:
        if value in self.values:
            return self.values[value][0]
        text = value.removeprefix(NATIVE_PREFIX)
        if text != value and text:
            if self._kind is str:
                return text
            if self._kind is int and re.fullmatch(r"-?[0-9]{1,10}", text):
                return int(text)
        raise ValueError(
            f"expected one of {', '.join(self.values)}, or {NATIVE_PREFIX} and the system's own value"
        )

    @cached_property
    def _kind(self) -> type:
        """The type of the native values."""
        return type(next(iter(self.names)))

    def named(self, value: Any) -> str | None:
        """The canonical name of a native value that a caller gave; raises ValueError saying what is expected."""
        if value in (None, "", self.nothing):
            return None
        if type(value) is not self._kind:
            known = ", ".join(str(each) for each in self.names)
            raise ValueError(f"expected one of {known}")
        return self.names.get(value, f"{NATIVE_PREFIX}{value}")


def _first_moment(day: str) -> str:
    """Of a date, in UTC."""
    return f"{day}T00:00:00Z"


def _units(text: str) -> int:
    """How long a text is in UTF-16 code units: a character beyond the first 65,536 takes two."""
    return len(text) + sum(character > "\uffff" for character in text)
