"""Times that a system keeps without a zone: read, and written, in the zone of its connection. Pure.

Where clocks go back an hour comes twice: such a time means the first of the two. Where they go forward an hour is
missing: such a time is read as if the clocks had not been changed yet (02:30 is then what the clocks show as 03:30).
"""

from datetime import datetime
from zoneinfo import ZoneInfo

from crm_core.model.fields import instant_text, parse_instant


def zone_of(name: str) -> ZoneInfo:
    """Raises ValueError for what is no zone of the IANA database."""
    try:
        return ZoneInfo(name)
    except (OSError, KeyError, ValueError):  # KeyError: ZoneInfoNotFoundError
        raise ValueError("expected a time zone such as America/Lima or UTC") from None


def instant_of(text: str, zone: ZoneInfo) -> str:
    """The instant (RFC 3339, UTC) of a time; one that has a zone keeps it. Raises ValueError for what is no time."""
    try:
        moment = datetime.fromisoformat(text)
    except (TypeError, ValueError):
        raise ValueError("expected a time, such as 2026-11-24T13:45:00") from None
    if moment.tzinfo is not None:
        return instant_text(parse_instant(text))
    try:
        return instant_text(moment.replace(tzinfo=zone))
    except OverflowError:
        raise ValueError("expected a time of the calendar from year 1 to 9999") from None


def local_of(instant: str, zone: ZoneInfo) -> str:
    """An instant as the clocks of the zone show it, without a zone."""
    try:
        return parse_instant(instant).astimezone(zone).replace(tzinfo=None).isoformat()
    except OverflowError:
        raise ValueError("expected a time of the calendar from year 1 to 9999") from None
