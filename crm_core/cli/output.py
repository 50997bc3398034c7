"""Data, on standard output: a table for people, JSON with all there is, or CSV. Nothing else is written there."""

import json
import re
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from enum import StrEnum
from itertools import chain, islice
from typing import Any

Item = Mapping[str, Any]
CHUNK = 500
"""Rows of a table whose widths are found together: a longer list is shown as it comes."""
KEPT_BYTES = 4_000_000
"""Of items that wait until all columns are known; more of them wait in a file."""
NARROW = 12
"""What wraps does not get narrower than this: where the terminal is, each item gets its own lines."""
TIME = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)\.\d+Z")
SIGNS = r"=+\-@\uff1d\uff0b\uff0d\uff20\ufe66\ufe62\ufe63\ufe6b"
FORMULA = re.compile(rf"""\A(?='*[{SIGNS}\t\r\n])|(?<=[;\t\r\n])(?=['"]*[{SIGNS}])""")
"""Where a spreadsheet takes what follows for the beginning of a formula, the full-width and small forms too, also where ";", a
tab or the end of a line parts cells for it; before apostrophes one more is needed, so that every text can be had back."""
NUMBER = re.compile(r"-?[0-9]+(\.[0-9]+)?")
# What a terminal would obey rather than show, and what turns the order of letters round.
CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
COLOURS = {
    "ok": "green", "succeeded": "green", "create": "green", "applied": "green", "same": "green",
    "running": "cyan", "queued": "cyan", "update": "cyan", "link": "cyan", "info": "cyan",
    "stopped": "yellow", "paused": "yellow", "waits": "yellow", "drifted": "yellow", "warning": "yellow", "skipped": "yellow",
    "conflict": "yellow", "differs": "yellow", "cancelled": "yellow",
    "failed": "red", "delete": "red", "error": "red", "refused": "red", "parked": "red", "unreachable": "red", "needs_attention": "red",
}  # fmt: skip


class Format(StrEnum):
    TABLE = "table"
    JSON = "json"
    CSV = "csv"


def on_terminal(stream: Any) -> bool:
    return bool(stream.isatty())


def plain(text: str) -> str:
    """A text on one line that does nothing to the terminal that shows it."""
    return CONTROL.sub(_escape, text)


def _escape(found: "re.Match[str]") -> str:
    known = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}
    return known.get(found[0], f"\\u{ord(found[0]):04x}")


def pick(item: Item, path: str) -> Any:
    """The value at a path such as counts.created; None where there is none."""
    if path in item:
        return item[path]
    value: Any = item
    for part in path.split("."):
        value = value.get(part) if isinstance(value, Mapping) else None
    return value


def cell(value: Any) -> str:
    """A value as a table shows it; a time to the second."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, str):
        return TIME.sub(r"\1Z", plain(value)) if TIME.fullmatch(value) else plain(value)
    if isinstance(value, Sequence) and all(isinstance(each, str | int | float) for each in value):
        return plain(", ".join(str(each) for each in value))
    return plain(_compact(value)) if isinstance(value, Mapping | Sequence) else str(value)


def csv_cell(value: Any) -> str:
    """A value in CSV: what a spreadsheet would take for a formula gets an apostrophe before it, as in the hub's exports."""
    if value is None:
        return ""
    text = _compact(value) if isinstance(value, bool | Mapping | list) else str(value)
    return text if isinstance(value, int | float) or NUMBER.fullmatch(text) else FORMULA.sub("'", text)


def _compact(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(", ", ": "))


def json_text(value: Any, indent: int | None = None) -> str:
    """JSON that any terminal can show: control characters are escaped there anyway, but for those above 127."""
    return re.sub(
        "[\x7f-\x9f]",
        lambda found: f"\\u{ord(found[0]):04x}",
        json.dumps(value, ensure_ascii=False, indent=indent),
    )


class _Lines:
    """Writes rows with the ends of lines that a pipe is used to."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def write(self, text: str) -> None:
        self._stream.write(text.removesuffix("\r\n") + "\n")


class Output:
    """Writes data in one form. `columns`: those that a person asked for instead of a command's own."""

    def __init__(self, form: Format, columns: Sequence[str] = ()) -> None:
        self.form = form
        self.columns = columns
        self._stream = sys.stdout

    def rows(self, items: Iterable[Item], columns: Sequence[str]) -> None:
        """Many items. `columns`: paths, `name=path` for another name; none: all that the items have."""
        wanted = self.columns or columns
        if self.form is Format.JSON:
            self._json(items)
        elif not wanted:
            self._all_columns(items)
        elif self.form is Format.CSV:
            self._csv(items, _named(wanted))
        else:
            self._tables(items, _named(wanted))
        self._stream.flush()

    def one(
        self, item: Item, columns: Sequence[str] = (), below: Mapping[str, Sequence[str]] | None = None
    ) -> None:
        """One item: in a table each value on a line of its own. `below`: the columns of lists that it holds, shown below it."""
        below = (
            {} if self.columns else {name: parts for name, parts in (below or {}).items() if item.get(name)}
        )
        wanted = self.columns or columns or tuple(item)
        if self.form is Format.JSON:
            self._write(json_text(item, 2) + "\n")
        elif self.form is Format.CSV:
            self._csv([item], _named(wanted))
        else:
            self._cards([item], _named([name for name in wanted if name not in below]))
            for name, parts in below.items():
                self.gap()
                self._tables(item[name], _named(parts))
        self._stream.flush()

    def stream(self, items: Iterable[Item], columns: Sequence[str]) -> None:
        """Items as they come, each at once: JSON as one on a line, a table without frame or common widths."""
        named = _named(self.columns or columns)
        if self.form is Format.CSV:
            self._csv(items, named, flush=True)
            return
        for item in items:
            cells = (cell(pick(item, path)) for _, path in named)
            line = json_text(item) if self.form is Format.JSON else "  ".join(each for each in cells if each)
            self._write(line + "\n")
            self._stream.flush()

    def gap(self) -> None:
        """An empty line between two tables."""
        self._write("\n")

    def _write(self, text: str) -> None:
        self._stream.write(text)

    def _json(self, items: Iterable[Item]) -> None:
        """An array with an item on each line, written as they come."""
        begun = False
        for item in items:
            self._write((",\n " if begun else "[\n ") + json_text(item))
            begun = True
        self._write("\n]\n" if begun else "[]\n")

    def _csv(self, items: Iterable[Item], named: Sequence[tuple[str, str]], *, flush: bool = False) -> None:
        import csv

        # What is not the end of a line of ours is quoted because it is one of this: a lone \r ends a row for many readers.
        writer = csv.writer(_Lines(self._stream), lineterminator="\r\n")
        writer.writerow([name for name, _ in named])
        for item in items:
            cells = [csv_cell(pick(item, path)) for _, path in named]
            # A terminal gets no control characters; a file gets what there is.
            writer.writerow([plain(each) for each in cells] if on_terminal(self._stream) else cells)
            if flush:
                self._stream.flush()

    def _all_columns(self, items: Iterable[Item]) -> None:
        """The columns are known when all items are: they wait, in a file where they are many."""
        from tempfile import SpooledTemporaryFile

        names: dict[str, None] = {}
        with SpooledTemporaryFile(KEPT_BYTES, "w+", encoding="utf-8") as kept:
            for item in items:
                names |= dict.fromkeys(item)
                kept.write(json.dumps(item) + "\n")
            kept.seek(0)
            again: Iterator[Item] = (json.loads(line) for line in kept)
            named = [(name, name) for name in names]
            if self.form is Format.CSV:
                self._csv(again, named)
            else:
                self._tables(again, named)

    def _tables(self, items: Iterable[Item], named: Sequence[tuple[str, str]]) -> None:
        waiting, head = iter(items), [[name for name, _ in named]]
        while rows := list(islice(waiting, CHUNK)):
            if on_terminal(self._stream):
                self._table(rows, named)
                continue
            self._aligned([*head, *([cell(pick(row, path)) for _, path in named] for row in rows)])
            head = []

    def _aligned(self, lines: Sequence[Sequence[str]]) -> None:
        """Without frame, and nothing cut or wrapped: other programs read it."""
        from rich.cells import cell_len, set_cell_size

        widths = [max(map(cell_len, column)) for column in zip(*lines, strict=True)]
        for line in lines:
            padded = (set_cell_size(text, width) for text, width in zip(line, widths, strict=True))
            self._write("  ".join(padded).rstrip() + "\n")

    def _table(self, rows: Sequence[Item], named: Sequence[tuple[str, str]]) -> None:
        """For a terminal: coloured, as wide as it is, without columns that hold nothing."""
        from rich.cells import cell_len
        from rich.table import Table
        from rich.text import Text

        console = console_of(self._stream)
        texts = [[cell(pick(row, path)) for _, path in named] for row in rows]
        filled = [place for place in range(len(named)) if not place or any(line[place] for line in texts)]
        texts = [[line[place] for place in filled] for line in texts]
        shown = [named[place] for place in filled]
        lines = [[name for name, _ in shown], *texts]
        first, *others = (max(map(cell_len, column)) for column in zip(*lines, strict=True))
        if console.width < first + sum(2 + min(width, NARROW) for width in others):
            self._cards(rows, named)
            return
        table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
        for place, (name, _) in enumerate(shown):
            table.add_column(Text(name), overflow="fold", no_wrap=place == 0)
        for line in texts:
            table.add_row(*(Text(each, style=COLOURS.get(each, "")) for each in line))
        console.print(table)

    def _cards(self, items: Iterable[Item], named: Sequence[tuple[str, str]]) -> None:
        """Each item on lines of its own, a value on each."""
        from rich.text import Text

        console = console_of(self._stream) if on_terminal(self._stream) else None
        width = max(len(name) for name, _ in named)
        for place, item in enumerate(items):
            if place:
                self._write("\n")
            for name, path in named:
                text = cell(pick(item, path))
                if console is not None and not text:
                    continue
                if console is None:
                    self._write(f"{name:{width}}  {text}".rstrip() + "\n")
                else:
                    label = (f"{plain(name):{width}}  ", "bold")
                    console.print(Text.assemble(label, (text, COLOURS.get(text, ""))), soft_wrap=True)


def _named(columns: Iterable[str]) -> list[tuple[str, str]]:
    """Name and path of each column."""
    parts = (each.partition("=") for each in columns)
    return [(name, path or name) for name, _, path in parts]


def console_of(stream: Any) -> Any:
    """Rich on a terminal: coloured, unless NO_COLOR says otherwise (no-color.org), and nothing else of its own accord."""
    import os

    from rich.console import Console

    class Tube(Console):
        def on_broken_pipe(self) -> None:
            raise BrokenPipeError

    # Without colours there is no bold either: a plain terminal is one.
    no_colour = bool(os.environ.get("NO_COLOR"))
    return Tube(
        file=stream, color_system=None if no_colour else "auto", highlight=False, markup=False, emoji=False
    )


def peek(items: Iterable[Item]) -> tuple[bool, Iterator[Item]]:
    """Whether there is any, and all of them still."""
    waiting = iter(items)
    first = list(islice(waiting, 1))
    return bool(first), chain(first, waiting)
