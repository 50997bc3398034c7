"""Filters: OData `$filter` text parsed by a library into a small tree of our own, which connectors translate.

What the tree can't say is refused by name, so no connector meets a construct that it does not know.
"""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from crm_core.errors import BadRequest

MAX_BYTES = 4096
MAX_NODES = 100
MAX_DEPTH = 30


class Kind(StrEnum):
    """How a literal was written."""

    TEXT = "text"
    INTEGER = "integer"
    DECIMAL = "decimal"
    BOOLEAN = "boolean"
    NULL = "null"
    DATE = "date"
    INSTANT = "instant"
    GUID = "guid"


@dataclass(frozen=True)
class Literal:
    """A value; `text` is its content, unquoted and unescaped."""

    kind: Kind
    text: str


class Operator(StrEnum):
    EQ = "eq"
    NE = "ne"
    GT = "gt"
    GE = "ge"
    LT = "lt"
    LE = "le"


class Function(StrEnum):
    CONTAINS = "contains"
    STARTSWITH = "startswith"
    ENDSWITH = "endswith"


@dataclass(frozen=True)
class Compare:
    field: str
    operator: Operator
    value: Literal


@dataclass(frozen=True)
class AnyOf:
    """`field in (...)`."""

    field: str
    values: tuple[Literal, ...]


@dataclass(frozen=True)
class Match:
    """A text function of a field."""

    function: Function
    field: str
    value: Literal


@dataclass(frozen=True)
class Not:
    node: "Node"


@dataclass(frozen=True)
class Both:
    """`and`."""

    left: "Node"
    right: "Node"


@dataclass(frozen=True)
class Either:
    """`or`."""

    left: "Node"
    right: "Node"


Node = Compare | AnyOf | Match | Not | Both | Either


def parse_filter(text: str, parameter: str = "filter") -> Node:
    """The tree of a `$filter`; raises BadRequest that names `parameter` and the remedy.

    Size, number of nodes and depth are checked before anything walks the tree by recursion.
    """
    text = text.strip()
    if not text:
        raise BadRequest.field(parameter, "The filter is empty; leave it out.")
    if len(text.encode("utf-8", "surrogatepass")) > MAX_BYTES:
        raise BadRequest.field(
            parameter, f"The filter is longer than {MAX_BYTES} bytes; ask for less at once."
        )
    _check_functions(text, parameter)
    from odata_query.exceptions import ODataException
    from odata_query.grammar import ODataLexer, ODataParser

    try:
        parsed = ODataParser().parse(ODataLexer().tokenize(_UNREADABLE.sub(_readable, text)))
    except RecursionError:  # the library walks a long path by recursion while it parses
        raise BadRequest.field(
            parameter, f"The filter is nested deeper than {MAX_DEPTH}; make it flatter."
        ) from None
    except ODataException as error:
        raise BadRequest.field(parameter, f"The filter can't be read: {_where(error, text)}") from None
    if parsed is None:
        raise BadRequest.field(parameter, "The filter can't be read: it is empty.")
    _check_size(parsed, parameter)
    return _Converter(parameter).node(parsed)


_TEXT = r"'(?:[^']|'')*'"
# A text literal (left alone, whatever is in it), a list of one value, which the library takes only with a comma, or
# a `not` right before its parenthesis.
_UNREADABLE = re.compile(rf"{_TEXT}|\bin\s*\(\s*({_TEXT}|[^\s,()']+)\s*\)|\b(not)\(", re.IGNORECASE)


def _readable(match: re.Match[str]) -> str:
    if match[1] is not None:
        return f"in ({match[1]},)"
    return "not (" if match[2] is not None else match[0]


def _place(index: int, text: str) -> int:
    """Where in the caller's text a place of the readable text is."""
    for match in _UNREADABLE.finditer(text):
        added = len(_readable(match)) - len(match[0])
        if match.end() + added > index:
            break
        index -= added
    return index


_CALL = re.compile(rf"{_TEXT}|(?<![\w./])([a-z_][\w.]*)\s*\(", re.IGNORECASE)
_WORDS = frozenset(Operator) | {
    "in",
    "and",
    "or",
    "not",
    "any",
    "all",
    "add",
    "sub",
    "mul",
    "div",
    "mod",
    "has",
}


def _check_functions(text: str, parameter: str) -> None:
    """Refuses a function by its name, whatever its arguments look like: the library can't read those of a vendor's."""
    for match in _CALL.finditer(text):
        name = match[1]
        if name is not None and name not in set(Function) and name.lower() not in _WORDS:
            raise BadRequest.field(parameter, f"The filter uses the function '{name}'; {_instead_of(name)}.")


KNOWN = "known are eq, ne, gt, ge, lt, le, in, and, or, not, contains, startswith, endswith"
_BY_TIMES = "compare with dates or times, such as created_at ge 2026-11-01 and created_at lt 2026-12-01"
# What to write instead of functions that callers know from elsewhere, by patterns of their names in lower case.
_INSTEAD = (
    (r"tolower|toupper", "leave it out, texts are compared without regard to letter case"),
    (r"indexof|substring(of)?|(not)?like|beginswith", "use contains, startswith or endswith"),
    (r"in", "use in, such as kind in ('customer','partner')"),
    (r"notin", "use not, such as not (kind in ('customer','partner'))"),
    (r"between|notbetween", "use ge and le"),
    (r"year|month|day|hour|minute|(fractional)?seconds?|date|time|now|(min|max)datetime", _BY_TIMES),
    (
        r"(last|next|this|olderthan|in.*fiscal).*|(not)?on(orafter|orbefore)?|today|tomorrow|yesterday",
        _BY_TIMES,
    ),
)


def _instead_of(function: str) -> str:
    name = function.rpartition(".")[2].lower()
    return next((remedy for pattern, remedy in _INSTEAD if re.fullmatch(pattern, name)), KNOWN)


def _where(error: Exception, text: str) -> str:
    """Where the library stopped, in the caller's own text."""
    token = getattr(error, "token", None)
    index = getattr(token, "index", None)
    if getattr(error, "eof", False) or index is None:
        return "it ends too early." if getattr(error, "eof", False) else f"{error}"
    index = _place(index, text)
    return f"unexpected {text[index : index + 20]!r} at position {index + 1}."


def _children(node: Any) -> Iterator[Any]:
    for name in ("left", "right", "operand", "owner", "op", "comparator"):
        child = getattr(node, name, None)
        if child is not None:
            yield child
    for name in ("args", "val"):
        children = getattr(node, name, None)
        if isinstance(children, (list, tuple)):
            yield from children


def _check_size(parsed: Any, parameter: str) -> None:
    """Walks without recursion: the tree may be as deep as the text is long."""
    nodes = 0
    stack = [(parsed, 1)]
    while stack:
        node, depth = stack.pop()
        nodes += 1
        if nodes > MAX_NODES:
            raise BadRequest.field(
                parameter, f"The filter has more than {MAX_NODES} parts; ask for less at once."
            )
        if depth > MAX_DEPTH:
            raise BadRequest.field(
                parameter, f"The filter is nested deeper than {MAX_DEPTH}; make it flatter."
            )
        stack.extend((child, depth + 1) for child in _children(node))


class _Converter:
    """From the library's tree to ours; every kind of node by the name of its class."""

    def __init__(self, parameter: str) -> None:
        self.parameter = parameter

    def refuse(self, what: str) -> BadRequest:
        return BadRequest.field(
            self.parameter,
            f"The filter uses {what}; {KNOWN}.",
        )

    def node(self, node: Any) -> Node:
        known: dict[str, Callable[[Any], Node]] = {
            "BoolOp": self.boolean,
            "UnaryOp": self.unary,
            "Compare": self.compare,
            "Call": self.call,
        }
        name = type(node).__name__
        if name not in known:
            raise self.refuse(_describe(node))
        return known[name](node)

    def boolean(self, node: Any) -> Node:
        left, right = self.node(node.left), self.node(node.right)
        return Both(left, right) if type(node.op).__name__ == "And" else Either(left, right)

    def unary(self, node: Any) -> Node:
        if type(node.op).__name__ != "Not":
            raise self.refuse("arithmetic")
        return Not(self.node(node.operand))

    def compare(self, node: Any) -> Node:
        field = self.field(node.left)
        operator = {"Eq": "eq", "NotEq": "ne", "Gt": "gt", "GtE": "ge", "Lt": "lt", "LtE": "le"}.get(
            type(node.comparator).__name__
        )
        if operator is None:
            if type(node.right).__name__ != "List" or not node.right.val:
                raise self.refuse("'in' without a list of values in parentheses")
            return AnyOf(field, tuple(self.literal(value) for value in node.right.val))
        return Compare(field, Operator(operator), self.literal(node.right))

    def call(self, node: Any) -> Node:
        name = node.func.full_name()
        if name not in set(Function):
            raise self.refuse(f"the function '{name}'")
        if len(node.args) != 2:
            raise self.refuse(f"'{name}' with {len(node.args)} arguments, it takes a field and a text")
        value = self.literal(node.args[1])
        if value.kind is not Kind.TEXT:
            raise self.refuse(f"'{name}' with something other than a text in quotes")
        return Match(Function(name), self.field(node.args[0]), value)

    def field(self, node: Any) -> str:
        if type(node).__name__ != "Identifier" or node.namespace:
            raise self.refuse(f"{_describe(node)} where a field name belongs")
        name: str = node.name
        return name

    def literal(self, node: Any) -> Literal:
        kind = {
            "String": Kind.TEXT,
            "Integer": Kind.INTEGER,
            "Float": Kind.DECIMAL,
            "Boolean": Kind.BOOLEAN,
            "Date": Kind.DATE,
            "DateTime": Kind.INSTANT,
            "GUID": Kind.GUID,
        }.get(type(node).__name__)
        if type(node).__name__ == "Null":
            return Literal(Kind.NULL, "null")
        if kind is None:
            raise self.refuse(f"{_describe(node)} where a value belongs (a text stands in quotes)")
        return Literal(kind, node.val.lower() if kind is Kind.BOOLEAN else node.val)


def _describe(node: Any) -> str:
    name = type(node).__name__
    if name == "Identifier":
        return f"the name '{node.full_name()}'"
    if name == "Attribute":
        return "a path through another record"
    if name == "Call":
        return f"the function '{node.func.full_name()}'"
    if name in ("BinOp", "UnaryOp"):
        return "arithmetic"
    if name == "CollectionLambda":
        return "any or all"
    return f"a {name.lower()}"
