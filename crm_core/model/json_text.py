"""JSON as it comes and leaves: amounts with all their digits."""

import json as jsonlib
import math
from collections.abc import Callable, Mapping
from decimal import Decimal
from functools import cache
from typing import Any

from crm_core.errors import BadRequest

MAX_EXPONENT = 400


def parse_json(body: bytes) -> Any:
    """What an answer says, fractions as Decimal. Raises ValueError, RecursionError or ArithmeticError if it is no JSON.

    A page of a feed is read in a third of the time that Python's own reader takes, and out of the bytes: that one needs
    the whole text first, which is four times as long as the bytes where a single character is beyond the first 65,536.
    """
    try:
        return _reader()(body)
    except (ValueError, RecursionError, ArithmeticError):
        # Python's reader takes more (NaN, half characters, UTF-16) and says what is wrong.
        return jsonlib.loads(body, parse_float=Decimal)


def ordered_json(data: Mapping[str, Any]) -> str:
    """JSON without spaces, names in their order, other than ASCII as it is: equal values are equal texts."""
    return _writers()[1](data).decode()


def short_json(data: Mapping[str, Any]) -> bytes:
    """The same with the names as they come. Neither refuses a Decimal or a time, which become text."""
    return _writers()[0](data)


def line_json(data: Mapping[str, Any]) -> bytes:
    """The same with the names as they come, and a Decimal as a plain number with all its digits: what `dump_json` writes,
    for what is known to be JSON, in a tenth of the time.
    """
    return _writers()[2](data)


@cache
def _reader() -> Callable[[bytes], Any]:
    """Made once, on first use: a cold start that needs none of it does not load the library."""
    import msgspec

    return msgspec.json.Decoder(float_hook=Decimal).decode


@cache
def _writers() -> tuple[Callable[[Any], bytes], ...]:
    """One that keeps the order of names, one that sorts them, one that writes a Decimal as a number."""
    import msgspec

    return (
        msgspec.json.Encoder().encode,
        msgspec.json.Encoder(order="sorted").encode,
        msgspec.json.Encoder(decimal_format="number").encode,
    )


def dump_json(value: Any) -> bytes:
    """JSON in UTF-8. A Decimal becomes a plain number with all its digits: money never passes through float.

    Raises BadRequest for NaN, infinity and text that is no Unicode, TypeError for what JSON does not know.
    """
    parts: list[str] = []
    _write_json(value, parts.append)
    try:
        return "".join(parts).encode()
    except UnicodeEncodeError:
        raise BadRequest("A text has half a character (a lone surrogate); it can't be sent.") from None


def _write_json(value: Any, write: Callable[[str], object]) -> None:
    if isinstance(value, Mapping):
        for index, (name, item) in enumerate(value.items()):
            if not isinstance(name, str):
                raise TypeError(f"a JSON name is text, not {type(name).__name__}")
            write(("," if index else "{") + jsonlib.dumps(name, ensure_ascii=False) + ":")
            _write_json(item, write)
        write("}" if value else "{}")
    elif isinstance(value, list | tuple):
        write("[")
        for index, item in enumerate(value):
            if index:
                write(",")
            _write_json(item, write)
        write("]")
    elif isinstance(value, Decimal):
        # The exponent is bounded: "f" writes out every zero of 1E+1000000.
        if not value.is_finite() or abs(value.adjusted()) > MAX_EXPONENT:
            raise BadRequest("A number is not finite, or too large to be sent.")
        write(format(value, "f"))
    elif isinstance(value, float) and not math.isfinite(value):
        raise BadRequest("A number is not finite; it can't be sent.")
    else:
        write(jsonlib.dumps(value, ensure_ascii=False))
