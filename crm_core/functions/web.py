"""Requests and replies as the rim sees them: parsed once, checked by name."""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from enum import IntEnum
from typing import Any
from urllib.parse import parse_qsl, quote, urlencode, urlsplit

from crm_core.errors import BadRequest
from crm_core.model.connection import Tenant
from crm_core.model.json_text import dump_json

MAX_BODY = 1024 * 1024
IGNORED_PARAMETERS = frozenset({"code"})
"""The host's own: a function key."""
_TRACEPARENT = re.compile(r"00-([0-9a-f]{32})-[0-9a-f]{16}-[0-9a-f]{2}")


class Role(IntEnum):
    """What a caller may do; each role includes those before it."""

    READER = 1
    OPERATOR = 2
    INTEGRATOR = 3
    ADMIN = 4


@dataclass(frozen=True)
class Principal:
    """Who calls: the tenant they belong to and what they may do. `id` names them in records and logs."""

    tenant: Tenant
    id: str
    role: Role


@dataclass(frozen=True)
class Incoming:
    """One HTTP request. `path` is decoded, without the trailing slash; header names in lower case. `target`: path and
    query as they were called.
    """

    method: str
    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str] = field(repr=False)
    body: bytes = field(repr=False)
    trace: str = ""
    target: str = field(default="", repr=False)


@dataclass(frozen=True)
class Reply:
    """An answer: `body` None is no body, else JSON; `text` instead: what was written before. `unfinished`: the same request
    under its Idempotency-Key may do more.
    """

    status: int = 200
    body: Any = None
    headers: Mapping[str, str] = field(default_factory=dict)
    content_type: str = "application/json"
    text: str = ""
    unfinished: bool = False

    def data(self) -> bytes:
        if self.text:
            return self.text.encode()
        return b"" if self.body is None else dump_json(self.body)


def parse_query(text: str) -> dict[str, str]:
    """Parameters by name, "+" as a space. Raises BadRequest for one given twice, "x" and "$x" alike."""
    found: dict[str, str] = {}
    for name, value in parse_qsl(text, keep_blank_values=True):
        plain = name.removeprefix("$")
        if plain in IGNORED_PARAMETERS:
            continue
        if plain in found:
            raise BadRequest.field(plain, f"{plain}: is given twice; send it once, with or without '$'.")
        found[plain] = value
    return found


def trace_id(traceparent: str) -> str:
    """The trace of a W3C traceparent, or "" if it is none."""
    match = _TRACEPARENT.fullmatch(traceparent.strip().lower())
    return match[1] if match and set(match[1]) != {"0"} else ""


def parse_url(url: str) -> tuple[str, str]:
    """(path, query) of the request's URL, still encoded."""
    parts = urlsplit(url)
    return parts.path, parts.query


def json_object(body: bytes) -> dict[str, Any]:
    """The body as a JSON object, fractions as Decimal; raises BadRequest that says what is wrong with it."""
    if len(body) > MAX_BODY:
        raise BadRequest.field("body", f"body: is longer than {MAX_BODY} bytes.")
    try:
        data = json.loads(body, parse_float=Decimal, parse_constant=_no_constant)
    except RecursionError:
        raise BadRequest.field("body", "body: is nested too deep.") from None
    except ArithmeticError:
        raise BadRequest.field("body", "body: has a number that is too large.") from None
    except (ValueError, UnicodeDecodeError) as error:
        where = (
            f" at line {error.lineno}, column {error.colno}"
            if isinstance(error, json.JSONDecodeError)
            else ""
        )
        raise BadRequest.field("body", f"body: is not JSON{where}.") from None
    if b"\\u" in body:
        try:
            json.dumps(data, ensure_ascii=False, default=str).encode()
        except UnicodeEncodeError:
            raise BadRequest.field("body", "body: has half a character (a lone surrogate).") from None
    if not isinstance(data, dict):
        raise BadRequest.field("body", 'body: expected a JSON object, such as {"name": "..."}.')
    return data


def _no_constant(_: str) -> None:
    raise ValueError("NaN and Infinity are not JSON")


@dataclass(frozen=True)
class Parameter:
    """One query parameter that a route takes. `aliases` mean the same."""

    name: str
    about: str
    aliases: tuple[str, ...] = ()
    required: bool = False


def take_parameters(
    query: Mapping[str, str], declared: Sequence[Parameter], refused: Mapping[str, str]
) -> dict[str, str]:
    """The declared parameters by their first name; raises BadRequest naming an unknown one, or one given twice.

    `refused`: what callers know from elsewhere and is not to be had here, with what to do instead.
    """
    names = {alias: each.name for each in declared for alias in (each.name, *each.aliases)}
    taken: dict[str, str] = {}
    for name, value in query.items():
        if name in refused:
            raise BadRequest.field(name, f"{name}: is not supported here; {refused[name]}.")
        if name not in names:
            known = ", ".join(each.name for each in declared) or "none"
            raise BadRequest.field(name, f"{name}: is no parameter of this route; known are {known}.")
        if names[name] in taken:
            raise BadRequest.field(name, f"{name}: is given twice, under two names; send one of them.")
        taken[names[name]] = value
    return taken


def whole_number(parameters: Mapping[str, str], name: str, default: int, highest: int) -> int:
    text = parameters.get(name, "")
    if not text:
        return default
    if not re.fullmatch(r"\d{1,9}", text) or not 1 <= int(text) <= highest:
        raise BadRequest.field(name, f"{name}: expected a whole number from 1 to {highest}.")
    return int(text)


def not_modified(headers: Mapping[str, str], etag: str) -> bool:
    """Whether If-None-Match names the ETag: a list, "*", weak comparison (RFC 9110 section 13.1.2)."""
    given = headers.get("if-none-match", "")
    if given.strip() == "*":
        return True
    tags = re.findall(r'"[^"]*"', given)
    return bool(etag) and etag.removeprefix("W/") in tags


def flag(parameters: Mapping[str, str], name: str) -> bool:
    text = parameters.get(name, "false").lower()
    if text not in ("true", "false", "1", "0"):
        raise BadRequest.field(name, f"{name}: expected true or false.")
    return text in ("true", "1")


def preferences(headers: Mapping[str, str]) -> dict[str, str]:
    """What a caller would like, by the header Prefer (RFC 7240), names in lower case; the first of a name counts."""
    found: dict[str, str] = {}
    for part in headers.get("prefer", "").split(","):
        name, _, value = part.partition(";")[0].partition("=")
        if name.strip():
            found.setdefault(name.strip().lower(), value.strip().strip('"').lower())
    return found


def link(base: str, path: str, parameters: Mapping[str, str]) -> str:
    """Our own URL; `base` "" gives one that is relative to the host."""
    query = urlencode(parameters, quote_via=quote)
    return f"{base}{quote(path)}{'?' if query else ''}{query}"


Handler = Callable[["Call"], Reply]


@dataclass(frozen=True)
class Call:
    """What a handler gets: the hub, who calls, the path's parts, parameters and the body that the route declares.

    `key`: a UUID of the request's Idempotency-Key, "" without one. `earlier`: the body of its unfinished answer, if the
    request came before.
    """

    hub: Any
    principal: Principal
    incoming: Incoming
    parts: Mapping[str, str]
    parameters: Mapping[str, str]
    body: Any = None
    key: str = ""
    earlier: Any = None

    @property
    def tenant(self) -> Tenant:
        return self.principal.tenant
