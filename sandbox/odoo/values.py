"""What a field takes from a client, what is kept of it, and what is given back."""

from datetime import UTC, datetime, timedelta
from decimal import ROUND_HALF_UP, Decimal
from typing import Any

from sandbox.odoo.errors import Refused, type_error, value_error
from sandbox.odoo.markup import sanitized
from sandbox.odoo.schema import NUMBERS, Field

SECONDS = "%Y-%m-%d %H:%M:%S"
DAYS = "%Y-%m-%d"


def stamp(at: datetime) -> str:
    """A time of the database as it is sent: UTC, whole seconds, cut."""
    return exact(at)[:19]


def exact(at: datetime) -> str:
    """The same with its microseconds, as the database has it."""
    return at.replace(tzinfo=None).isoformat(" ", "microseconds")


def _parsed(text: str, form: str) -> datetime:
    try:
        return datetime.strptime(text, form).replace(tzinfo=UTC)
    except ValueError as error:
        raise value_error(str(error)) from None


def to_datetime(value: Any) -> str | None:
    """Only ``YYYY-MM-DD HH:MM:SS`` can be written, or the beginning of it."""
    if not value:
        return None
    if not isinstance(value, str):
        raise type_error(f"object of type {type(value).__name__!r} has no len()")
    return _parsed(value, SECONDS[: max(len(value) - 2, 0)] if len(value) < 19 else SECONDS).strftime(SECONDS)


def to_date(value: Any) -> str | None:
    """A date; of anything longer the first ten characters count."""
    if not value:
        return None
    if not isinstance(value, str):
        raise type_error(f"{type(value).__name__!r} object is not subscriptable")
    return _parsed(value[:10], DAYS).strftime(DAYS)


def _number(value: Any, kind: type) -> Any:
    try:
        return kind(value or 0)
    except ValueError as error:
        raise value_error(str(error)) from None
    except TypeError as error:
        raise type_error(str(error)) from None


def rounded(amount: float) -> float:
    """An amount of money with the digits of its currency. A new row keeps what it was given."""
    return float(Decimal(repr(amount)).quantize(Decimal("0.01"), ROUND_HALF_UP))


def to_text(field: Field, value: Any) -> str | None:
    if value is None or value is False:
        return None
    text = value.decode() if isinstance(value, bytes) else str(value)
    if "\x00" in text:
        raise value_error("A string literal cannot contain NUL (0x00) characters.")
    if field.type == "html":
        return sanitized(text)
    return text[: field.size] if field.size else text


def to_many2one(value: Any) -> int | None:
    """Anything but a whole number is taken as no value, without a word: texts and ``[id, name]`` as it is read."""
    if isinstance(value, bool) or not isinstance(value, int):
        return None
    return value or None


def stored(model: str, field: Field, value: Any) -> Any:
    """What is kept of a value that a client writes; x2many commands are not for here."""
    match field.type:
        case "many2one":
            return to_many2one(value)
        case "boolean":
            return bool(value)
        case "integer":
            return _number(value, int)
        case "many2one_reference":
            return _number(value, int) or None
        case "float" | "monetary":
            return _number(value, float)
        case "datetime":
            return to_datetime(value)
        case "date":
            return to_date(value)
        case "selection":
            if not value:
                return None
            if value not in field.keys and len(field.selection) != 1:
                raise value_error(f"Wrong value for {model}.{field.name}: {value!r}")
            return value
        case _:
            return to_text(field, value) if not isinstance(value, (dict, list)) else value


def given(field: Field, value: Any) -> Any:
    """As a read gives it, references as ids: nothing is ``false`` whatever the type, or zero for numbers."""
    if field.type in NUMBERS:
        return (int if field.type == "integer" else float)(value or 0)
    if field.type == "many2one_reference":
        return value or 0 if field.name == "res_id" else value or False
    if field.type in ("one2many", "many2many"):
        return list(value or ())
    if field.type == "boolean":
        return bool(value)
    return False if value is None else value


def domain_time(value: Any) -> datetime | bool:
    """A time in a domain: naive, with ``T`` or a blank, with a fraction or without; a date is its first second."""
    if value is False or value is None:
        return False
    if not isinstance(value, str):
        raise value_error(f"Failed to cast {value!r} into a datetime")
    try:
        read = datetime.fromisoformat(value)
    except ValueError:
        raise value_error(f"Invalid term {value!r} in expression date: {value!r}") from None
    if read.tzinfo is not None:
        raise value_error(f"expecting only datetimes with no timezone: {value!r}")
    return read


def bounds(operator: str, value: Any) -> tuple[str, str] | bool:
    """An inequality over whole seconds as ``>=`` or ``<`` and a text: `> T` is `>= T + 1 s`; False if nothing can match."""
    at = domain_time(value)
    if not isinstance(at, datetime):
        return False
    at = at.replace(microsecond=0)
    step = timedelta(days=1) if isinstance(value, str) and len(value) == 10 else timedelta(seconds=1)
    if operator in (">", "<="):
        at += step
    return ">=" if operator in (">", ">=") else "<", at.strftime(SECONDS)


def refuse_sql(text: str, kind: str = "integer") -> Refused:
    return Refused(
        "psycopg2.errors.InvalidTextRepresentation", f'invalid input syntax for type {kind}: "{text}"\n'
    )
