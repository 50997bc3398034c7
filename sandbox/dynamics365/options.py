"""Reading a request's query options and ``Prefer`` header, with the vendor's refusals.

Web API: query data overview (supported options), page results, change tracking.
"""

import re
from dataclasses import dataclass, field
from urllib.parse import unquote_plus

from sandbox.dynamics365.errors import Refused, bad_query
from sandbox.frame import Request

MAX_PAGE = 5000
MAX_URL = 32_768
KNOWN = frozenset(
    {"$select", "$expand", "$orderby", "$filter", "$top", "$count", "$skiptoken", "$deltatoken"}
)
UNSUPPORTED = {
    "$skip": "Skip Clause is not supported in CRM",
    "$search": "The query option '$search' is not supported.",
    "$format": "The query option '$format' is not supported.",
}


@dataclass(frozen=True)
class Query:
    """The options of one request, decoded; ``raw`` keeps them as they came, for links."""

    options: dict[str, str]
    raw: list[tuple[str, str]]
    aliases: dict[str, str] = field(default_factory=dict)

    def get(self, name: str) -> str | None:
        return self.options.get(name)

    def names(self, name: str) -> list[str]:
        """A comma-separated option as a list."""
        return [part.strip() for part in self.options.get(name, "").split(",") if part.strip()]

    def link(self, url: str, extra: str) -> str:
        """The request's own URL with one more option instead of earlier tokens."""
        kept = [f"{k}={v}" for k, v in self.raw if unquote_plus(k) not in ("$skiptoken", "$deltatoken")]
        return f"{url}?{'&'.join([*kept, extra])}"


def read_query(raw: str) -> Query:
    """The query string as options; unknown ones with a dollar are refused, others ignored (like ``tag``)."""
    options: dict[str, str] = {}
    aliases: dict[str, str] = {}
    pairs: list[tuple[str, str]] = []
    for part in raw.split("&"):
        if not part:
            continue
        name, _, value = part.partition("=")
        pairs.append((name, value))
        name, value = unquote_plus(name), unquote_plus(value)
        if name in options:
            raise bad_query(
                f"Query option '{name}' was specified more than once, but it must be specified at most once."
            )
        if name.startswith("@"):
            aliases[name] = value
        else:
            options[name] = value
    for name in options:
        if name in UNSUPPORTED:
            raise bad_query(UNSUPPORTED[name])
        if name == "$apply" or name.lower() in ("fetchxml", "sql"):
            raise Refused(501, "", f"'{name}' is a part of Dataverse that this sandbox does not have.")
        if name.startswith("$") and name not in KNOWN:
            raise bad_query(f"The query parameter {name} is not supported")
    return Query(options, pairs, aliases)


def positive(text: str, name: str) -> int:
    if not re.fullmatch(r"\d+", text):
        raise bad_query(
            f"Invalid value '{text}' for {name} query option found. The {name} query option requires a non-negative integer value."
        )
    return int(text)


@dataclass(frozen=True)
class Preferences:
    """What the client asked for in ``Prefer``."""

    page_size: int | None = None
    representation: bool = False
    track_changes: bool = False
    continue_on_error: bool = False
    annotations: tuple[str, ...] = ()

    def annotated(self, term: str) -> bool:
        """Whether an annotation is to be sent: ``*``, its name, or ``Namespace.*``."""
        return any(
            a in ("*", term) or (a.endswith(".*") and term.startswith(a[:-1])) for a in self.annotations
        )

    def applied(self) -> dict[str, str]:
        """The header that confirms what was honoured."""
        parts = []
        if self.annotations:
            parts.append(f'odata.include-annotations="{",".join(self.annotations)}"')
        if self.page_size is not None:
            parts.append(f"odata.maxpagesize={self.page_size}")
        if self.track_changes:
            parts.append("odata.track-changes")
        if self.representation:
            parts.append("return=representation")
        return {"Preference-Applied": ", ".join(parts)} if parts else {}


_PART = re.compile(r'\s*([\w.\-]+)\s*(?:=\s*(?:"([^"]*)"|([^",]+)))?\s*(?:,|$)')


def read_preferences(request: Request, cap: int = MAX_PAGE) -> Preferences:
    """The ``Prefer`` header; what is not known is ignored, as the standard says."""
    found = {
        name.lower(): quoted or plain.strip()
        for name, quoted, plain in _PART.findall(request.headers.get("prefer", ""))
    }
    size = found.get("odata.maxpagesize", found.get("maxpagesize"))
    if size is not None and not (size.isdigit() and int(size) > 0):
        raise bad_query(f"Invalid value '{size}' for the preference odata.maxpagesize.")
    return Preferences(
        page_size=min(int(size), cap) if size is not None else None,
        representation=found.get("return") == "representation",
        track_changes="odata.track-changes" in found,
        continue_on_error="odata.continue-on-error" in found,
        annotations=tuple(
            a.strip() for a in found.get("odata.include-annotations", "").split(",") if a.strip()
        ),
    )
