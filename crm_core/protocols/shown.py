"""Addresses as a log line may show them: the form of a request without any value that it carries."""

import re
from urllib.parse import unquote, unquote_plus
from uuid import UUID

MAX_PATH, MAX_QUERY = 300, 500
HIDDEN = "..."

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")
_SEGMENT = re.compile(r"[A-Za-z0-9_.~$:+-]*")
_KEYED = re.compile(r"([A-Za-z0-9_.~$:+-]*)\((.*)\)", re.DOTALL)
_NAME = re.compile(r"[$@]?[A-Za-z_][A-Za-z0-9_.-]{0,59}")

# OData options whose text is made of names, operators and literals, and those that say how much is wanted.
_EXPRESSIONS = frozenset({"filter", "select", "orderby", "expand", "apply", "compute"})
_SIZES = frozenset({"top", "skip", "count"})
_SIZE = re.compile(r"[0-9]{1,9}|true|false")

# In order: literals in quotes (the end of the text ends them too), ids, what begins with a digit or sign (numbers,
# dates, times), names and operators, marks. What is none of these is hidden as well.
_TOKEN = re.compile(
    r"""(?P<quoted>'(?:[^']|'')*(?:'|$)|"(?:[^"\\]|\\.)*(?:"|$))
    |(?P<id>[0-9A-Fa-f]{8}-[0-9A-Fa-f-]*)
    |(?P<number>[+-]?\.?[0-9][\w.:+-]*)
    |(?P<word>[$@]?[A-Za-z_][A-Za-z0-9_]*(?:[./][A-Za-z_][A-Za-z0-9_]*)*)
    |(?P<mark>[\s(),;=\[\]{}:/*]+)
    |(?P<other>.)""",
    re.VERBOSE | re.DOTALL,
)
_VALUES = frozenset({"true", "false", "inf", "nan"})


def shown_path(path: str) -> str:
    """A path with its ids and without other values: keys in quotes or by name (such as an e-mail address),
    segments that are no plain word, and what looks like a key of access (the secret part of a hook's address).
    """
    plain = _CONTROL.sub("", unquote(path))
    # A value in quotes may hold the slash that parts segments.
    plain = re.sub(r"'(?:[^']|'')*(?:'|$)", f"'{HIDDEN}'", plain)
    return "/".join(_shown_segment(segment) for segment in plain.split("/"))[:MAX_PATH]


def _shown_segment(segment: str) -> str:
    keyed = _KEYED.fullmatch(segment)
    if keyed:
        return f"{keyed[1]}({_shown_key(keyed[2])})"
    return segment if _SEGMENT.fullmatch(segment) and not _is_access_key(segment) else HIDDEN


def _shown_key(key: str) -> str:
    """What stands in brackets: an id stays, a value in quotes is hidden already, of name=value pairs the names stay."""
    if not key or key == f"'{HIDDEN}'" or _is_uuid(key):
        return key
    shown = []
    for part in key.split(","):
        name, mark, value = part.strip().partition("=")
        hidden = f"'{HIDDEN}'" if value.startswith("'") else HIDDEN
        shown.append(f"{name}={hidden}" if mark and _NAME.fullmatch(name) else HIDDEN)
    return ",".join(shown)


def _is_access_key(segment: str) -> bool:
    shape = re.fullmatch(r"(?=.*[0-9])(?=.*[A-Za-z])[A-Za-z0-9_.=+~$:-]{20,}", segment)
    return bool(shape) and not _is_uuid(segment)


def _is_uuid(text: str) -> bool:
    try:
        UUID(text)
    except ValueError:
        return False
    return True


def shown_query(query: str) -> str:
    """A query by the names of its options. Of OData expressions names and operators stay, every literal is hidden;
    of options that are not known here every value is.
    """
    return "&".join(_shown_option(each) for each in query.split("&") if each)[:MAX_QUERY]


def _shown_option(option: str) -> str:
    given, mark, text = option.partition("=")
    name, value = unquote_plus(given), unquote_plus(text)
    if not mark or not _NAME.fullmatch(name) or _is_access_key(name):
        return HIDDEN
    plain = name.removeprefix("$").lower()
    if plain in _EXPRESSIONS:
        return f"{name}={_shown_expression(value)}"
    return f"{name}={value if plain in _SIZES and _SIZE.fullmatch(value) else HIDDEN}"


def _shown_expression(text: str) -> str:
    return "".join(map(_shown_token, _TOKEN.finditer(text)))


def _shown_token(token: re.Match[str]) -> str:
    kind, text = token.lastgroup, token[0]
    if kind == "mark":
        return " " if text.isspace() else _CONTROL.sub("", text)
    if kind == "word" and text.lower() not in _VALUES:
        return text
    return f"'{HIDDEN}'" if kind == "quoted" else HIDDEN
