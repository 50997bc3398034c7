"""The grammar of ``$filter``: text to tree (Web API: filter rows). Evaluation is in ``filters.py``."""

import re
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from sandbox.dynamics365.errors import bad_query

_TOKEN = re.compile(
    r"""\s*(?:
    (?P<string>'(?:[^']|'')*')
    |(?P<guid>[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{12})
    |(?P<datetime>\d{4}-\d\d-\d\dT\d\d:\d\d(?::\d\d(?:\.\d+)?)?(?:Z|[+-]\d\d:\d\d))
    |(?P<date>\d{4}-\d\d-\d\d)
    |(?P<number>-?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?)
    |(?P<text>"(?:[^"\\]|\\.)*")
    |(?P<name>[A-Za-z_@$][\w.]*(?:/[A-Za-z_$][\w.]*)*)
    |(?P<punct>[()\[\],=:])
    )""",
    re.VERBOSE,
)
COMPARISONS = ("eq", "ne", "gt", "ge", "lt", "le")
MAX_DEPTH = 100
MAX_CONDITIONS = 500  # Dataverse: total conditions of one query


@dataclass(frozen=True)
class Literal:
    value: Any
    edm: str


@dataclass(frozen=True)
class Property:
    path: str


@dataclass(frozen=True)
class Compare:
    operator: str
    left: "Literal | Property"
    right: "Literal | Property"


@dataclass(frozen=True)
class Call:
    """A function of OData (arguments in ``args``) or of Dataverse (arguments by name in ``named``)."""

    name: str
    args: tuple["Literal | Property", ...] = ()
    named: tuple[tuple[str, Any], ...] = ()


@dataclass(frozen=True)
class Logic:
    operator: str  # and, or, not
    terms: tuple["Node", ...]


Node = Compare | Call | Logic | Property | Literal


@dataclass(frozen=True)
class Token:
    kind: str
    text: str
    at: int


def tokens(text: str) -> list[Token]:
    """The words of a filter; what is no word is a syntax error with its position."""
    found: list[Token] = []
    at = 0
    while text[at:].strip():
        match = _TOKEN.match(text, at)
        if match is None or match.lastgroup is None:
            at += len(text[at:]) - len(text[at:].lstrip())
            if text[at] == "'":
                raise bad_query(
                    f"There is an unterminated string literal at position {len(text)} in '{text}'."
                )
            raise bad_query(f"Syntax error at position {at} in '{text}'.")
        found.append(Token(match.lastgroup, match.group(match.lastgroup), match.start(match.lastgroup)))
        at = match.end()
    return found


class Parser:
    """Recursive descent over the precedence or < and < not < comparison."""

    def __init__(self, text: str, aliases: dict[str, str] | None = None) -> None:
        self.text = text
        self.aliases = aliases or {}
        self.tokens = tokens(text)
        self.at = 0
        self.depth = 0
        self.conditions = 0

    def parse(self) -> Node:
        node = self._or()
        if self.at < len(self.tokens):
            raise self._error()
        return node

    def _error(self) -> Exception:
        where = self.tokens[self.at].at if self.at < len(self.tokens) else len(self.text)
        return bad_query(f"Syntax error at position {where} in '{self.text}'.")

    def _peek(self) -> str:
        return self.tokens[self.at].text if self.at < len(self.tokens) else ""

    def _take(self, expected: str = "") -> Token:
        if self.at >= len(self.tokens) or (expected and self._peek() != expected):
            raise self._error()
        self.at += 1
        return self.tokens[self.at - 1]

    def _word(self, word: str) -> bool:
        if self._peek() == word and self.tokens[self.at].kind == "name":
            self.at += 1
            return True
        return False

    def _or(self) -> Node:
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise bad_query("Recursion limit reached while parsing the filter.")
        terms = [self._and()]
        while self._word("or"):
            terms.append(self._and())
        self.depth -= 1
        return terms[0] if len(terms) == 1 else Logic("or", tuple(terms))

    def _and(self) -> Node:
        terms = [self._not()]
        while self._word("and"):
            terms.append(self._not())
        return terms[0] if len(terms) == 1 else Logic("and", tuple(terms))

    def _not(self) -> Node:
        if self._word("not"):
            self.depth += 1
            if self.depth > MAX_DEPTH:
                raise bad_query("Recursion limit reached while parsing the filter.")
            inner = self._not()
            self.depth -= 1
            return Logic("not", (inner,))
        return self._condition()

    def _condition(self) -> Node:
        self.conditions += 1
        if self.conditions > MAX_CONDITIONS:
            raise bad_query("Number of conditions in query exceeded maximum limit.")
        if self._peek() == "(":
            self._take()
            node = self._or()
            self._take(")")
            return node
        left = self._operand()
        if self._peek() in COMPARISONS:
            operator = self._take().text
            right = self._operand()
            if isinstance(left, Call) or isinstance(right, Call):
                if (
                    operator in ("eq", "ne")
                    and isinstance(left, Call)
                    and right in (Literal(True, "Edm.Boolean"), Literal(False, "Edm.Boolean"))
                ):
                    positive = (operator == "eq") == right.value
                    return left if positive else Logic("not", (left,))
                raise bad_query("The function is not supported as an operand of a comparison.")
            return Compare(operator, left, right)
        return left

    def _operand(self) -> "Literal | Property | Call":
        token = self._take()
        if token.kind == "name":
            if token.text.startswith("@"):
                return Parser(self._alias(token.text))._operand()  # noqa: SLF001 - same class
            if token.text in ("null", "true", "false"):
                value = {"null": None, "true": True, "false": False}[token.text]
                return Literal(value, "null" if value is None else "Edm.Boolean")
            if self._peek() == "(":
                return self._call(token.text)
            return Property(token.text)
        return self._literal(token)

    def _alias(self, name: str) -> str:
        if name not in self.aliases:
            raise bad_query(f"The parameter alias '{name}' has no value.")
        return self.aliases[name]

    def _literal(self, token: Token) -> Literal:
        text = token.text
        if token.kind == "string":
            return Literal(text[1:-1].replace("''", "'"), "Edm.String")
        if token.kind == "guid":
            return Literal(text.lower(), "Edm.Guid")
        if token.kind == "datetime":
            return Literal(text, "Edm.DateTimeOffset")
        if token.kind == "date":
            return Literal(text, "Edm.Date")
        if token.kind == "number":
            whole = re.fullmatch(r"-?\d+", text) is not None
            return Literal(int(text), "Edm.Int32") if whole else Literal(Decimal(text), "Edm.Decimal")
        self.at -= 1
        raise self._error()

    def _call(self, name: str) -> Call:
        self._take("(")
        if name.startswith("Microsoft.Dynamics.CRM."):
            return Call(name.removeprefix("Microsoft.Dynamics.CRM."), named=self._named())
        args: list[Literal | Property] = []
        while True:
            operand = self._operand()
            if isinstance(operand, Call):
                raise bad_query(f"The nested function '{operand.name}' is not supported.")
            args.append(operand)
            if self._peek() == ")":
                self._take()
                return Call(name, tuple(args))
            self._take(",")

    def _named(self) -> tuple[tuple[str, Any], ...]:
        named: list[tuple[str, Any]] = []
        while self._peek() != ")":
            name = self._take().text
            self._take("=")
            named.append((name, self._value()))
            if self._peek() == ",":
                self._take()
        self._take(")")
        return tuple(named)

    def _value(self) -> Any:
        if self._peek().startswith("@"):
            return Parser(self._alias(self._take().text))._value()  # noqa: SLF001 - same class
        if self._peek() != "[":
            literal = self._operand()
            if not isinstance(literal, Literal):
                raise self._error()
            return literal.value
        self._take()
        values: list[str] = []
        while self._peek() != "]":
            token = self._take()
            if token.kind == "text":
                values.append(re.sub(r"\\(.)", r"\1", token.text[1:-1]))
            else:
                values.append(str(self._literal(token).value))
            if self._peek() == ",":
                self._take()
        self._take("]")
        return values
