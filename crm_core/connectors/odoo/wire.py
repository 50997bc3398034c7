"""Values on the wire: what Odoo answers as clean values, and clean values as Odoo takes them. By the type of a field.

Clean are: None for what is empty, an id as text, a time in RFC 3339, an amount as Decimal, plain text for HTML.
Sources: Odoo's "ORM API", Fields (`convert_to_read`), and what Odoo 19.0 answered (a many2one that is written as text or as
the pair that was read is emptied without a word; `false` stands for empty of every type).
"""

import html
from collections.abc import Mapping
from datetime import UTC
from decimal import Decimal
from html.parser import HTMLParser
from typing import Any

from crm_core.model.fields import parse_instant

NUMBERS = frozenset({"integer", "float", "monetary"})
"""Types that are never empty: what has no number reads as 0."""
REFERENCE = "many2one"
BY_NUMBER = frozenset({REFERENCE, "many2one_reference"})
BLOCKS = frozenset(
    {"p", "div", "li", "ul", "ol", "table", "tr", "blockquote", "pre", "h1", "h2", "h3", "h4", "h5", "h6"}
)


def clean(row: Mapping[str, Any], types: Mapping[str, str]) -> dict[str, Any]:
    """A row with clean values; of a many2one its display name besides, as `field/name`."""
    found: dict[str, Any] = {}
    for name, value in row.items():
        kind = types.get(name, "integer" if name == "id" else "")
        found[name] = cleaned(kind, value)
        if kind == REFERENCE and isinstance(value, list) and len(value) == 2:
            found[f"{name}/name"] = value[1] or None
    return found


def cleaned(kind: str, value: Any) -> Any:
    """One value. `False` is empty for every type but boolean, so a number 0 stays and a text "0" too."""
    if kind == "boolean":
        return bool(value)
    if value is False or value is None:
        return None
    if kind == REFERENCE:
        return str(value[0] if isinstance(value, list) else value)
    if kind == "many2one_reference":
        return str(value) if value else None
    if kind == "datetime":
        return f"{value[:10]}T{value[11:19]}Z"
    if kind == "html":
        return text_of(value)
    if kind == "float" and isinstance(value, Decimal):
        return _without_noise(value)
    return value


def _without_noise(value: Decimal) -> Decimal:
    """What Odoo works out by binary fractions, such as 4.729999999999997, as the amount that is meant."""
    rounded = round(value, 9)
    return rounded.normalize() if rounded else Decimal(0)


def sent(kind: str, value: Any) -> Any:
    """A clean value as `write` takes it. Raises ValueError for a reference that is no number."""
    if kind in BY_NUMBER:
        return False if value is None else number_of(value)
    if value is None:
        return False
    if kind == "datetime":
        return parse_instant(value).astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S")
    if kind == "html":
        return html_of(value)
    return value


def loaded(kind: str, value: Any) -> str:
    """A clean value as a cell of `load` takes it; "" leaves the field to its default."""
    if value is None:
        return ""
    if kind == "boolean":
        return "1" if value else "0"
    if isinstance(value, Decimal):
        return format(value, "f")
    return str(sent(kind, value))


def number_of(rid: str) -> int:
    """The number of an id."""
    if not (isinstance(rid, str) and rid.isascii() and rid.isdigit() and len(rid) <= 10):
        raise ValueError("expected the id of a record at the system, such as 57")
    return int(rid)


def html_of(text: str) -> str:
    """Plain text as HTML that reads as the same text."""
    return f"<p>{html.escape(text, quote=False).replace(chr(10), '<br>')}</p>"


def text_of(markup: str) -> str | None:
    """The text of HTML: a line for each paragraph and break, without tags; None where nothing is said."""
    reader = _Text()
    reader.feed(markup)
    reader.close()
    return reader.text() or None


class _Text(HTMLParser):
    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self._parts: list[str] = []
        self._ended = False
        """A block has ended, and what comes begins on a line of its own."""

    def handle_starttag(self, tag: str, attrs: Any) -> None:  # noqa: ARG002  # as the base has it
        if tag == "br":
            self._add("\n")
        elif tag in BLOCKS and self._parts:
            self._ended = True

    def handle_endtag(self, tag: str) -> None:
        self._ended = self._ended or (tag in BLOCKS and bool(self._parts))

    def handle_data(self, data: str) -> None:
        if self._ended and not data.strip():
            return  # what stands between blocks is no text
        self._add(data)

    def _add(self, text: str) -> None:
        if self._ended:
            self._parts.append("\n")
            self._ended = False
        self._parts.append(text)

    def text(self) -> str:
        return "".join(self._parts)
