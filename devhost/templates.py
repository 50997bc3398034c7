"""A route template of the host's router (ASP.NET Core), parsed: `crm/{entity:alpha}/{id?}`, `files/{*rest}`.

In: the template's text. Out: a `Template` that matches a decoded path and gives its parameters.
What was recorded from Microsoft's router is in the vectors that the tests run.
"""

import re
from dataclasses import dataclass

from devhost.constraints import Test, constraint
from devhost.refusal import Refusal


@dataclass(frozen=True)
class Parameter:
    """`{name:constraints=default?}` or `{*name}`; a default of None means that there is none."""

    name: str
    tests: tuple[tuple[str, Test], ...] = ()
    default: str | None = None
    optional: bool = False
    catch_all: bool = False

    def accepts(self, value: str | None) -> bool:
        """Say whether the constraints hold; those of a missing optional value aren't asked."""
        if value is None:
            return self.optional or not self.tests
        return all(test(value) for _, test in self.tests)

    @property
    def shape(self) -> str:
        """The parameter without its name: two templates of one shape match the same paths."""
        tests = "".join(f":{text}" for text, _ in self.tests)
        return f"{{{'*' * self.catch_all}{tests}={self.default or ''}{'?' * self.optional}}}"


Part = str | Parameter


@dataclass(frozen=True)
class Segment:
    """What lies between two slashes; `pattern` is set when it mixes text and parameters: `{name}.{ext}`."""

    parts: tuple[Part, ...]
    pattern: re.Pattern[str] | None = None

    @property
    def shape(self) -> str:
        return "".join(part.lower() if isinstance(part, str) else part.shape for part in self.parts)


class Template:
    """One parsed template; `match` gives its parameters for a path, or None."""

    def __init__(self, text: str) -> None:
        """Parse the text; refuses what the host's router fails to register."""
        if text.startswith(("/", "~")):
            raise Refusal(f"the route '{text}' may not begin with '{text[0]}'")
        pieces = text.removesuffix("/").split("/") if text else []
        # A regex may hold a slash: a piece whose braces aren't closed goes on in the next one.
        self.segments = [_segment(piece, text) for piece in _rejoin(pieces)]
        parameters = [
            part for segment in self.segments for part in segment.parts if isinstance(part, Parameter)
        ]
        names = [parameter.name.lower() for parameter in parameters]
        if len(set(names)) < len(names):
            raise Refusal(f"the route '{text}' names a parameter twice")
        if any(p.catch_all for s in self.segments[:-1] for p in s.parts if isinstance(p, Parameter)):
            raise Refusal(f"the route '{text}' has something behind its catch-all parameter")
        self.parameters = parameters

    @property
    def shape(self) -> str:
        return "/".join(segment.shape for segment in self.segments)

    def match(self, path: str) -> dict[str, str] | None:
        """Give the parameters when the decoded path (`/a/b`) matches; None when it doesn't."""
        # A trailing slash is ignored, but a catch-all that lies over it keeps it.
        asked = path[1:].split("/") if len(path) > 1 else []
        if asked and not asked[-1]:
            asked.pop()
        found: dict[str, str] = {}
        for index, text in enumerate(asked):
            # An empty segment never matches.
            if not text or index >= len(self.segments):
                return None
            segment = self.segments[index]
            if isinstance(last := segment.parts[0], Parameter) and last.catch_all:
                found[last.name] = path.split("/", index + 1)[index + 1]
                break
            if not _take(segment, text, found):
                return None
        else:
            if not all(_may_be_missing(segment) for segment in self.segments[len(asked) :]):
                return None
        for parameter in self.parameters:
            if parameter.default is not None:
                found.setdefault(parameter.name, parameter.default)
        if not all(parameter.accepts(found.get(parameter.name)) for parameter in self.parameters):
            return None
        return found


def _take(segment: Segment, text: str, found: dict[str, str]) -> bool:
    """Match one segment of the path and add its parameters to `found`."""
    if segment.pattern is not None:
        match = segment.pattern.fullmatch(text)
        if match is None:
            return False
        names = [part.name for part in segment.parts if isinstance(part, Parameter)]
        found.update({n: v for n, v in zip(names, match.groups(), strict=True) if v is not None})
        return True
    part = segment.parts[0]
    if isinstance(part, str):
        return part.lower() == text.lower()
    found[part.name] = text
    return True


def _may_be_missing(segment: Segment) -> bool:
    part = segment.parts[0]
    return (
        segment.pattern is None
        and isinstance(part, Parameter)
        and (part.optional or part.catch_all or part.default is not None)
    )


def _rejoin(pieces: list[str]) -> list[str]:
    joined: list[str] = []
    for piece in pieces:
        if joined and _open(joined[-1]):
            joined[-1] += "/" + piece
        else:
            joined.append(piece)
    return joined


def _open(text: str) -> bool:
    plain = text.replace("{{", "").replace("}}", "")
    return plain.count("{") > plain.count("}")


# Within a parameter a brace has to be doubled: `{x:regex(^a{{2}}$)}`.
_PIECE = re.compile(
    r"(?P<literal>(?:[^{}?]|\{\{|\}\})+)|\{(?!\{)(?P<inside>(?:[^{}]|\{\{|\}\})+)\}(?!\}(?!\}))", re.DOTALL
)


def _unescape(text: str) -> str:
    return text.replace("{{", "{").replace("}}", "}")


def _segment(text: str, template: str) -> Segment:
    """Parse what lies between two slashes."""
    parts: list[Part] = []
    at = 0
    while at < len(text):
        piece = _PIECE.match(text, at)
        if piece is None:
            raise Refusal(
                f"the route '{template}' can't be read at '{text[at:]}' (a brace inside a parameter must be doubled)"
            )
        literal = piece["literal"]
        parts.append(_unescape(literal) if literal else _parameter(_unescape(piece["inside"]), template))
        at = piece.end()
    if not parts:
        raise Refusal(f"the route '{template}' has an empty segment")
    if len(parts) == 1:
        return Segment(tuple(parts))
    return Segment(tuple(parts), _complex(parts, template))


def _complex(parts: list[Part], template: str) -> re.Pattern[str]:
    """Give the pattern of a segment such as `{a}-{b}`: greedy, so that the last separator divides."""
    pattern = ""
    for index, part in enumerate(parts):
        if isinstance(part, str):
            pattern += re.escape(part)
            continue
        before = parts[index - 1] if index else None
        if isinstance(before, Parameter):
            raise Refusal(f"the route '{template}' has two parameters without a text between them")
        if part.catch_all or part.default is not None:
            raise Refusal(f"the route '{template}' has a catch-all or default inside a segment")
        if not part.optional:
            pattern += "(.+)"
        elif before == "." and index == len(parts) - 1:
            # The router drops the dot together with the optional part behind it.
            pattern = pattern.removesuffix(re.escape(".")) + r"(?:\.(.+))?"
        else:
            raise Refusal(f"in the route '{template}' an optional part may only follow a dot at the end")
    return re.compile(pattern, re.IGNORECASE | re.DOTALL)


def _parameter(inside: str, template: str) -> Parameter:
    """Parse what stands between the braces of a parameter."""
    stars = len(inside) - len(inside.lstrip("*"))
    text, optional = inside[stars:], inside.endswith("?")
    text = text.removesuffix("?")
    name_end = min((text.find(c) for c in ":=" if c in text), default=len(text))
    name, rest = text[:name_end], text[name_end:]
    if not name or set(name) & set("/{}?*") or stars > 2 or (stars and optional):
        raise Refusal(f"the route '{template}' has a parameter that can't be read: '{{{inside}}}'")
    constraints, default = _constraints(rest)
    if optional and default is not None:
        raise Refusal(f"the route '{template}' has an optional parameter with a default: '{{{inside}}}'")
    try:
        tests = tuple((c, constraint(c)) for c in constraints)
    except Refusal as refusal:
        raise Refusal(f"the route '{template}' can't be registered: {refusal}") from None
    return Parameter(name, tests, default, optional, bool(stars))


def _constraints(rest: str) -> tuple[list[str], str | None]:
    """Cut `:int:min(5)=7` into its constraints and its default."""
    found: list[str] = []
    while rest.startswith(":"):
        # A ')' ends the arguments only where another constraint, a default or nothing follows it.
        match = re.match(r":([^(:=]*\(.*?\)(?=[:=]|$)|[^:=]*)", rest, re.DOTALL)
        assert match is not None  # the second branch matches anything, nothing included
        found.append(match[1])
        rest = rest[match.end() :]
    return found, rest[1:] if rest.startswith("=") else None
