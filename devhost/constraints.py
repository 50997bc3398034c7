"""The inline constraints of a route parameter, such as `int` in `{id:int}`.

In: the text after the colon. Out: a test of a decoded path segment. They accept what the host's router does
(ASP.NET Core), so white space round a number passes and a regex matches anywhere and in any case.
"""

import re
from collections.abc import Callable
from datetime import datetime

from devhost.refusal import Refusal

Test = Callable[[str], bool]

_INTEGER = re.compile(r"\s*[+-]?[0-9]{1,40}\s*")
_NUMBER = re.compile(r"\s*[+-]?([0-9][0-9,]*\.?[0-9]*|\.[0-9]+)(e[+-]?[0-9]+)?\s*", re.IGNORECASE)
_HEX = "[0-9a-f]"
_GUID = re.compile(
    rf"\s*({_HEX}{{32}}|(?P<open>[{{(])?{_HEX}{{8}}(-{_HEX}{{4}}){{3}}-{_HEX}{{12}}(?(open)[}})]))\s*",
    re.IGNORECASE,
)
_CALL = re.compile(r"(?P<name>[^(]*)(\((?P<arguments>.*)\))?", re.DOTALL)


def _integer(bits: int) -> Test:
    limit = 1 << (bits - 1)
    return lambda text: bool(_INTEGER.fullmatch(text)) and -limit <= int(text) < limit


def _between(low: float, high: float) -> Test:
    long = _integer(64)
    return lambda text: long(text) and low <= int(text) <= high


def _length(low: float, high: float) -> Test:
    return lambda text: low <= len(text) <= high


def _number(text: str) -> bool:
    return bool(_NUMBER.fullmatch(text))


def _datetime(text: str) -> bool:
    # .NET reads many more forms; ISO 8601 is the one that a route should promise.
    try:
        datetime.fromisoformat(text.strip())
    except ValueError:
        return False
    return True


def _regex(pattern: str) -> Test:
    # .NET writes a named group as (?<name>...), Python as (?P<name>...).
    compiled = re.compile(re.sub(r"\(\?<(?=[A-Za-z_])", "(?P<", pattern), re.IGNORECASE)
    return lambda text: compiled.search(text) is not None


_PLAIN: dict[str, Test] = {
    "int": _integer(32),
    "long": _integer(64),
    "guid": lambda text: bool(_GUID.fullmatch(text)),
    "alpha": lambda text: bool(re.fullmatch("[a-zA-Z]*", text)),
    "bool": lambda text: text.strip().lower() in ("true", "false"),
    "decimal": _number,
    "double": _number,
    "float": _number,
    "datetime": _datetime,
    "required": bool,
}
_INFINITE = float("inf")
_COUNTED: dict[tuple[str, int], Callable[..., Test]] = {
    ("length", 1): lambda exact: _length(exact, exact),
    ("length", 2): _length,
    ("minlength", 1): lambda low: _length(low, _INFINITE),
    ("maxlength", 1): lambda high: _length(0, high),
    ("min", 1): lambda low: _between(low, _INFINITE),
    ("max", 1): lambda high: _between(-_INFINITE, high),
    ("range", 2): _between,
}


def constraint(text: str) -> Test:
    """Give the test for one constraint such as `int`, `length(2,5)` or `regex(^a+$)`; refuses others."""
    call = _CALL.fullmatch(text)
    if call is None:
        raise Refusal(f"the constraint '{text}' can't be read")
    name, arguments = call["name"].strip().lower(), call["arguments"]
    if name == "regex" and arguments:
        try:
            return _regex(arguments)
        except re.error as error:
            raise Refusal(f"the constraint '{text}' is no regular expression: {error}") from None
    if arguments is None and name in _PLAIN:
        return _PLAIN[name]
    numbers = [part.strip() for part in (arguments or "").split(",")]
    if (name, len(numbers)) in _COUNTED and all(_INTEGER.fullmatch(number) for number in numbers):
        return _COUNTED[name, len(numbers)](*(int(number) for number in numbers))
    raise Refusal(f"the constraint '{text}' is unknown")
