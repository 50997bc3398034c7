"""`expand`: the records that a record leads to, one level deep. Its text parsed into a small tree of our own:

    item (',' item)*        item = name [ '(' option (';' option)* ')' ]        option = ['$'] word '=' value

What the tree can't say is refused by name. Where a name leads, a connector declares (`mapping.Navigation`).
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from crm_core.errors import BadRequest
from crm_core.model.filters import MAX_BYTES, Node, parse_filter
from crm_core.model.options import Order, parse_names, parse_orders

PARAMETER = "expand"
MAX_ITEMS = 10
DEFAULT_TOP = 100
MAX_TOP = 1000
"""Of the records of one list. A list without an end could be as long as the remote's whole table."""
OPTIONS = ("select", "filter", "orderby", "top")

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_FORM = (
    "expected names with commas between them, each perhaps with options, such as name($select=email;$top=5)"
)


@dataclass(frozen=True)
class Expansion:
    """One item: where to go from a record, by its name, and what of the records there. `top` None: none was given."""

    name: str
    select: tuple[str, ...] = ()
    filter: Node | None = None
    orderby: tuple[Order, ...] = ()
    top: int | None = None

    @property
    def size(self) -> int:
        """Records of a list at most."""
        return DEFAULT_TOP if self.top is None else self.top

    @property
    def for_lists_only(self) -> tuple[str, ...]:
        """The options given that mean something only for a list."""
        given = {"filter": self.filter is not None, "orderby": self.orderby, "top": self.top is not None}
        return tuple(name for name in given if given[name])


def refuse(message: str) -> BadRequest:
    """The error for what is wrong with `expand`; `message` says what and the remedy."""
    return BadRequest.field(PARAMETER, f"{PARAMETER}: {message}")


@contextmanager
def inside(name: str) -> Iterator[None]:
    """What is refused inside the block is wrong inside the parentheses of this item, and says so."""
    try:
        yield
    except BadRequest as error:
        raise refuse(f"in {name}: {error.message.removeprefix(f'{PARAMETER}: ')}") from None


def parse_expand(text: str) -> tuple[Expansion, ...]:
    """The tree of an `expand`; raises BadRequest that names it and the remedy, and nothing else."""
    if not text.strip():
        raise refuse("is empty; leave it out.")
    if len(text.encode("utf-8", "surrogatepass")) > MAX_BYTES:
        raise refuse(f"is longer than {MAX_BYTES} bytes; ask for less at once.")
    parts = _split(text, ",")
    if len(parts) > MAX_ITEMS:
        raise refuse(f"has more than {MAX_ITEMS} items; ask for less at once.")
    items = tuple(_item(part) for part in parts)
    names = [each.name for each in items]
    for name in names:
        if names.count(name) > 1:
            raise refuse(f"'{name}' is there twice; name it once, with all its options.")
    return items


def _split(text: str, separator: str) -> list[str]:
    """The parts between separators that stand outside parentheses and quotes (a doubled quote stays inside)."""
    parts, depth, quoted, start = [], 0, False, 0
    for at, char in enumerate(text):
        if char == "'":
            quoted = not quoted
        elif quoted:
            continue
        elif char == "(":
            depth += 1
        elif char == ")":
            depth -= 1
            if depth < 0:
                raise refuse("a parenthesis is closed that was not opened; take it out.")
        elif char == separator and depth == 0:
            parts.append(text[start:at])
            start = at + 1
    if quoted:
        raise refuse("a quote is not closed; close it (a quote inside a text is written twice).")
    if depth:
        raise refuse("a parenthesis is not closed; close it.")
    stripped = [part.strip() for part in (*parts, text[start:])]
    if not all(stripped):
        raise refuse(f"has an empty part; take the '{separator}' or the parentheses out.")
    return stripped


def _item(text: str) -> Expansion:
    name, opened, rest = text.partition("(")
    name = name.rstrip()
    if not _NAME.fullmatch(name) or (opened and not rest.endswith(")")):
        raise refuse(f"{text[:60]!r} can't be read; {_FORM}.")
    if not opened:
        return Expansion(name)
    with inside(name):
        return Expansion(name, **_options(rest[:-1]))


def _options(text: str) -> dict[str, Any]:
    """The options between the parentheses, parsed, by their names without `$`."""
    found: dict[str, Any] = {}
    for part in _split(text, ";"):
        word, equals, value = (piece.strip() for piece in part.partition("="))
        option = word.removeprefix("$")
        if option == "expand":
            raise refuse(
                "another expand inside is not supported, only one level; ask for it by a second call."
            )
        if option not in OPTIONS:
            known = ", ".join(f"${each}" for each in OPTIONS)
            raise refuse(f"{word[:60]!r} is no option here; known are {known}, with ';' between them.")
        if option in found:
            raise refuse(f"{option} is given twice; give it once.")
        if not equals or not value:
            raise refuse(f"{option} has no value; give it one, as in ${option}=..., or leave it out.")
        found[option] = _value(option, value)
    return found


def _value(option: str, text: str) -> Any:
    if option == "select":
        return parse_names(text, option)
    if option == "orderby":
        return parse_orders(text, option)
    if option == "filter":
        return parse_filter(text)
    if not re.fullmatch(r"[0-9]{1,9}", text) or not 1 <= int(text) <= MAX_TOP:
        raise refuse(f"top: expected a whole number from 1 to {MAX_TOP}.")
    return int(text)
