"""The request target as the platform's web server (Kestrel) reads it.

In: what stands between method and version in the request line, raw UTF-8 and all. Out: the decoded path that
routes are matched on, the parsed query, and the URL that the function is told.
"""

import re
from dataclasses import dataclass
from urllib.parse import quote, unquote_to_bytes

_ENCODED = re.compile(r"(?:%[0-9A-Fa-f]{2})+")
_SLASH = re.compile(r"(%2[Ff])")
_TRIPLE = re.compile(r"(%[0-9A-Fa-f]{2})")


@dataclass(frozen=True)
class Target:
    """A request target: decoded path, query as the function gets it, encoded path + query for its URL."""

    path: str
    query: dict[str, str]
    url: str


def parse(raw: str) -> Target:
    """Parse a request target; bytes that are no UTF-8 stand in `raw` as surrogates."""
    text = _visible(raw)
    if not text.startswith("/"):
        # The absolute form, `GET http://host/path`.
        text = "/" + text.split("://", 1)[-1].partition("/")[2]
    before, mark, query = text.partition("?")
    path = _without_dots(decode(before, keep_slash=True))
    return Target(path, parse_query(query), _encode(path) + mark + quote(query, safe=_ASCII))


_ASCII = "".join(map(chr, range(33, 127)))


def _visible(raw: str) -> str:
    """Write each byte that is no UTF-8 as %XX."""
    return re.sub("[\udc80-\udcff]", lambda m: f"%{ord(m[0]) - 0xDC00:02X}", raw)


def decode(text: str, *, keep_slash: bool = False) -> str:
    """Percent-decode as Kestrel does: what isn't UTF-8 stays encoded, in a path %2F does too, + stays +."""

    def run(match: re.Match[str]) -> str:
        return unquote_to_bytes(match[0]).decode("utf-8", "surrogateescape")

    pieces = _SLASH.split(text) if keep_slash else [text]
    return _visible(
        "".join(p if _SLASH.fullmatch(p) and keep_slash else _ENCODED.sub(run, p) for p in pieces)
    )


def _without_dots(path: str) -> str:
    """Resolve `.` and `..`, which the web server does before any route is asked."""
    if "/." not in path:
        return path
    kept: list[str] = []
    segments = path.split("/")
    for index, segment in enumerate(segments):
        if segment not in (".", ".."):
            kept.append(segment)
            continue
        if segment == ".." and len(kept) > 1:
            kept.pop()
        if index == len(segments) - 1:
            kept.append("")
    return "/".join(kept) or "/"


def _encode(path: str) -> str:
    """Encode a decoded path for a URL; an encoded triple that was left (%2F) isn't encoded again."""
    pieces = _TRIPLE.split(path)
    return "".join(p if _TRIPLE.fullmatch(p) else quote(p, safe="/!$&'()*+,;=:@-._~") for p in pieces)


def parse_query(text: str) -> dict[str, str]:
    """Parse a query as the host hands it to a Python worker.

    `+` is a space, names are case-insensitive, repeated values are joined by a comma, and a name without a
    value isn't handed over at all.
    """
    values: dict[str, list[str]] = {}
    spelling: dict[str, str] = {}
    for pair in text.split("&"):
        if not pair:
            continue
        name, _, value = (decode(side.replace("+", " ")) for side in pair.partition("="))
        first = spelling.setdefault(name.lower(), name)
        values.setdefault(first, []).append(value)
    joined = {name: ",".join(several) for name, several in values.items()}
    return {name: value for name, value in joined.items() if value}
