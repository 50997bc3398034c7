"""HTML as the server keeps it: parsed, without what could run, and written anew."""

import re
from html.parser import HTMLParser

VOID = frozenset(("br", "hr", "img"))
INLINE = frozenset(
    (
        "a",
        "b",
        "big",
        "br",
        "code",
        "em",
        "font",
        "i",
        "img",
        "s",
        "small",
        "span",
        "strike",
        "strong",
        "sub",
        "sup",
        "u",
    )
)
BLOCKS = frozenset(
    (
        "blockquote", "center", "dd", "div", "dl", "dt", "h1", "h2", "h3", "h4", "h5", "h6", "hr", "li", "ol", "p", "pre",
        "table", "tbody", "td", "tfoot", "th", "thead", "tr", "ul",
    )
)  # fmt: skip
DROPPED = frozenset(("script", "style", "iframe", "object", "embed"))  # with all that is in them
ENDED_BY = {
    "p": BLOCKS,
    "li": frozenset(("li",)),
    "tr": frozenset(("tr",)),
    "td": frozenset(("td", "th", "tr")),
}
BLANKS = " \t\r\n"
UNSAFE_STYLE = re.compile(r"expression|javascript:|@import", re.IGNORECASE)
ESCAPES = str.maketrans({"&": "&amp;", "<": "&lt;", ">": "&gt;", "\u00a0": "&nbsp;"})


class _Writer(HTMLParser):
    """Writes what it reads, with what is not closed closed; text at the start is a paragraph."""

    def __init__(self) -> None:
        super().__init__()
        self.written: list[str] = []
        self.open: list[str] = []
        self.roots: list[str] = []  # tags at the top, "" for text
        self.dropped = 0
        self.unwrapped = False  # a tag that is not allowed stood at the top

    def _begins(self) -> bool:
        return not self.roots and not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag in DROPPED:
            self.dropped += tag != "embed"
        if self.dropped or tag not in BLOCKS | INLINE:
            self.unwrapped = self.unwrapped or (self._begins() and tag not in ("script", "style"))
            return
        while self.open and tag in ENDED_BY.get(self.open[-1], ()):
            self._close()
        if not self.open:
            self.roots.append(tag)
        self.written.append(f"<{tag}{''.join(_attribute(name, value or '') for name, value in attrs)}>")
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag in DROPPED:
            self.dropped = max(0, self.dropped - 1)
        elif tag in self.open:
            while self._close() != tag:
                pass

    def handle_data(self, data: str) -> None:
        if self.dropped:
            return
        if self._begins():
            data = data.lstrip(BLANKS)
            if not data:
                return
            if not self.unwrapped:
                self.handle_starttag("p", [])
        if not self.open:
            self.roots.append("" if data.strip(BLANKS) else " ")
        self.written.append(data.translate(ESCAPES))

    def handle_comment(self, data: str) -> None:
        if not self._begins():
            self.written.append(f"<!--{data}-->")

    def _close(self) -> str:
        tag = self.open.pop()
        self.written.append(f"</{tag}>")
        return tag

    def text(self) -> str:
        while self.open:
            self._close()
        text = "".join(self.written)
        roots = [root for root in self.roots if root != " "]
        if self.unwrapped and not any(root in BLOCKS for root in roots):
            return f"<div>{text}</div>"
        if len(roots) > 1 and not any(root in BLOCKS for root in roots):
            return f"<span>{text}</span>"
        return text


def _attribute(name: str, value: str) -> str:
    if name.startswith("on") or (name == "style" and UNSAFE_STYLE.search(value)):
        return ""
    if name in ("href", "src") and value.strip().lower().startswith(("javascript:", "vbscript:")):
        value = ""
    quote = "'" if '"' in value else '"'
    return f" {name}={quote}{value.translate(ESCAPES)}{quote}"


def sanitized(text: str) -> str:
    """HTML without scripts, event handlers and tags that it may not have; text without tags becomes a paragraph."""
    writer = _Writer()
    writer.feed(text)
    writer.close()
    return writer.text()
