"""What feeds by the time of the last change have in common: an overlap, and what was seen in it. Knows no vendor."""

from collections.abc import Mapping, Sequence
from datetime import timedelta
from email.utils import parsedate_to_datetime

from crm_core.connector import Answer
from crm_core.model.fields import instant_text, parse_instant

MAX_SEEN = 300
"""Rows of the overlap that a cursor remembers; what it forgets is read again and found unchanged."""


def overlapping(time: str, overlap: timedelta, earliest: str) -> str:
    """Where the overlap before a time begins; not before `earliest`, which is the first that the remote takes."""
    return instant_text(max(parse_instant(time), parse_instant(earliest) + overlap) - overlap)


def server_time(answer: Answer) -> str:
    """The server's clock by its answer, to the second; "" if it does not tell."""
    try:
        return instant_text(parsedate_to_datetime(answer.headers.get("date", "")))
    except (ValueError, TypeError):
        return ""


def recent(seen: Mapping[str, Sequence[str]], start: str) -> dict[str, list[str]]:
    """Of {id: (what it was, when it was changed)} what the next read of the overlap will meet again, newest first, not
    more than a cursor should hold. `start`: where the overlap begins, "" for ever.
    """
    found = sorted(
        (item for item in seen.items() if item[1][1] >= start), key=lambda item: item[1][1], reverse=True
    )
    return {rid: [what, modified] for rid, (what, modified) in found[:MAX_SEEN]}
