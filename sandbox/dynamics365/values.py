"""One value of a body as it is stored: type, length, choice and range are checked (types and lengths: CDM)."""

import json
import re
from datetime import UTC, date, datetime
from decimal import ROUND_HALF_UP, Decimal
from typing import Any, NoReturn

from sandbox.dynamics365 import errors
from sandbox.dynamics365.documents import money
from sandbox.dynamics365.errors import Refused, bad_payload
from sandbox.dynamics365.keys import GUID
from sandbox.dynamics365.org import Org
from sandbox.dynamics365.schema import Column, Entity

EARLIEST = datetime(1753, 1, 1, tzinfo=UTC)
INT_MAX = 2**31 - 1
DOUBLE_MAX = Decimal(100_000_000_000)  # the platform's bound of a floating point column
MONEY_MAX = Decimal(922337203685477)
TEN = Decimal("0.0000000001")


def store_value(org: Org, entity: Entity, column: Column, value: Any) -> Any:
    """One value as stored: type, length, choice and range checked."""
    if value is None:
        if column.kind == "state":
            raise Refused(400, errors.UNEXPECTED, "statecode cannot be null.")
        return None
    kind = column.kind
    if isinstance(value, str):
        value = _unquoted(column, value)
    if kind in ("string", "memo"):
        return _text(org, entity, column, value)
    if kind == "bool":
        return value if isinstance(value, bool) else _wrong(value, column)
    if kind in ("int", "picklist", "state", "status", "bigint"):
        return _integer(entity, column, value)
    if kind in ("money", "decimal", "double"):
        return _number(column, value)
    if not isinstance(value, str):
        _wrong(value, column)
    if kind == "guid":
        return value.lower() if GUID.fullmatch(value) else _wrong(value, column)
    return _date(column, value) if kind == "date" else _time(column, value)


def _unquoted(column: Column, text: str) -> Any:
    """Microsoft's OData reader takes quoted integers, doubles and booleans, but no quoted decimals."""
    if column.kind in ("int", "picklist", "state", "status") and re.fullmatch(r"-?\d{1,10}", text):
        return int(text)
    if column.kind == "double" and re.fullmatch(r"-?\d{1,15}(\.\d{1,15})?", text):
        return Decimal(text)
    if column.kind == "bool" and text in ("true", "false"):
        return text == "true"
    if column.kind in ("money", "decimal"):
        raise bad_payload(
            f"Cannot convert a value to target type '{column.edm}' because of conflict between input format string/number and "
            "parameter 'IEEE754Compatible' false/true."
        )
    return text


def _wrong(value: Any, column: Column) -> NoReturn:
    shown = value if not isinstance(value, dict | list) else json.dumps(value, default=str)
    raise bad_payload(f"Cannot convert the literal '{shown}' to the expected type '{column.edm}'.")


def _text(org: Org, entity: Entity, column: Column, value: Any) -> str | None:
    if not isinstance(value, str):
        _wrong(value, column)
    # Lengths count UTF-16 code units, as SQL's nvarchar does: an emoji takes two.
    if len(value.encode("utf-16-le", "surrogatepass")) // 2 > column.length:
        raise Refused(
            400,
            errors.TOO_LONG,
            f"A validation error occurred.  The length of the '{column.name}' attribute of the '{entity.name}' entity "
            f"exceeded the maximum allowed length of '{column.length}'.",
        )
    return None if value == "" and org.options["empty_as_null"] else value


def _integer(entity: Entity, column: Column, value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        _wrong(value, column)
    if column.options and value not in column.options:
        accepted = ",".join(map(str, column.options))
        raise Refused(
            400,
            errors.BAD_OPTION,
            f"A validation error occurred. The value {value} of '{column.name}' on record of type '{entity.name}' is outside "
            f"the valid range. Accepted Values: {accepted}",
        )
    if column.kind == "int" and not -INT_MAX - 1 <= value <= INT_MAX:
        _wrong(value, column)
    if (column.low is not None and value < column.low) or (column.high is not None and value > column.high):
        raise _outside(column)
    return value


def _outside(column: Column) -> Refused:
    return Refused(
        400,
        errors.TOO_LONG,
        f"A validation error occurred. The value of '{column.name}' is outside the valid range.",
    )


def _number(column: Column, value: Any) -> Any:
    if isinstance(value, bool) or not isinstance(value, int | Decimal):
        _wrong(value, column)
    number = Decimal(value)
    if column.kind == "double" and abs(number) < DOUBLE_MAX:
        return float(number)
    if column.kind == "double" or not number.is_finite() or abs(number) > MONEY_MAX:
        raise _outside(column)
    if column.kind == "decimal":  # sent with ten decimals, whatever its own scale
        return number.quantize(Decimal(1).scaleb(-column.scale), ROUND_HALF_UP).quantize(TEN)
    return money(number)


def _time(column: Column, value: str) -> str:
    if not re.match(r"\d{4}-\d\d-\d\dT\d\d:\d\d", value):
        _wrong(value, column)
    try:
        at = datetime.fromisoformat(value)
        if at.tzinfo is None:
            _wrong(value, column)
        at = at.astimezone(UTC)
    except (ValueError, OverflowError):
        _wrong(value, column)
    if at < EARLIEST:
        raise Refused(
            400,
            errors.TOO_LONG,
            "DateTime is less than minimum value supported by CrmDateTime. Actual value: "
            f"{value}, Minimum value supported: 01/01/1753 00:00:00",
        )
    return at.strftime("%Y-%m-%dT%H:%M:%SZ")


def _date(column: Column, value: str) -> str:
    try:
        day = date.fromisoformat(value) if re.fullmatch(r"\d{4}-\d\d-\d\d", value) else _wrong(value, column)
    except ValueError:
        _wrong(value, column)
    if day < EARLIEST.date():
        raise Refused(
            400,
            errors.TOO_LONG,
            f"DateTime is less than minimum value supported by CrmDateTime. Actual value: {value}",
        )
    return value
