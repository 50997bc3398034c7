"""CSV that a spreadsheet opens without carrying anything out: RFC 4180, and no cell that begins like a formula. Pure.

Which beginnings are escaped, by an apostrophe before them: OWASP, "CSV Injection"
(https://owasp.org/www-community/attacks/CSV_Injection); also their full-width and small forms, which some programs take for
the same. Where a program parts cells by ";" or tab, quotes of ours stand in the middle of a cell and hold nothing together: so
what follows one of these, or the end of a line, is escaped as a beginning is. A text that has apostrophes there already gets
one more, so that `unescaped` gives every text back.
"""

import csv
import io
import re
from collections.abc import Iterable
from typing import Any

from crm_core.model.json_text import short_json

BOM = "\ufeff"
SIGNS = "=+-@\uff1d\uff0b\uff0d\uff20\ufe66\ufe62\ufe63\ufe6b"
FORMULA = SIGNS + "\t\r\n"
_DANGEROUS = re.compile(rf"""\A(?='*[{re.escape(FORMULA)}])|(?<=[;\t\r\n])(?=['"]*[{re.escape(SIGNS)}])""")
_ESCAPED = re.compile(rf"""\A'(?='*[{re.escape(FORMULA)}])|(?<=[;\t\r\n])'(?=['"]*[{re.escape(SIGNS)}])""")
_NUMBER = re.compile(r"-?[0-9]+(\.[0-9]+)?")


def escaped(text: str) -> str:
    return _DANGEROUS.sub("'", text)


def unescaped(text: str) -> str:
    """The text of a cell that `escaped` made."""
    return _ESCAPED.sub("", text)


def cell(value: Any, *, number: bool = False) -> str:
    """A value as a cell: nothing is empty, lists and objects are JSON text. `number`: a plain number stays one, minus and all."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, list | tuple | dict):
        value = short_json(value).decode()  # type: ignore[arg-type]  # it writes lists, too
    text = str(value)
    if number and _NUMBER.fullmatch(text):
        return text
    return escaped(text)


def row(cells: Iterable[str]) -> str:
    """One record of a file, with its line's end."""
    written = io.StringIO()
    csv.writer(written, lineterminator="\r\n").writerow(cells)
    return written.getvalue()
