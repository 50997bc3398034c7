"""Timer schedules: the platform's NCRONTAB dialect, five fields or six with seconds, in UTC.

The text is read here as NCrontab reads it (ranges may be backwards, names may be cut, `n/step` starts at n,
`*/0` is every) and handed to croniter as plain lists of numbers, so no other dialect can slip in.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime

from croniter import CroniterBadDateError, croniter

from devhost.refusal import Refusal

_MONTHS = (
    "January February March April May June July August September October November December".split()  # noqa: SIM905 - reads as the calendar
)
_DAYS = "Sunday Monday Tuesday Wednesday Thursday Friday Saturday".split()  # noqa: SIM905 - reads as the calendar


@dataclass(frozen=True)
class _Field:
    name: str
    low: int
    high: int
    names: tuple[str, ...] = ()

    def value(self, text: str) -> int:
        """Read a number or a name, which may be cut (`Mon`, `J` is January)."""
        if text.isascii() and text.isdigit():
            number = int(text)
            if not self.low <= number <= self.high:
                raise Refusal(
                    f"{text} isn't between {self.low} and {self.high}, as the {self.name} has to be"
                )
            return number
        for index, name in enumerate(self.names):
            if text and name.lower().startswith(text.lower()):
                return index + self.low
        raise Refusal(f"'{text}' is no {self.name}")

    def values(self, text: str) -> set[int]:
        """Read a whole field: lists, ranges, steps."""
        if "," in text:
            return set().union(*(self.values(part) for part in text.split(",")))
        text, slash, steps = text.partition("/")
        if slash and not steps.removeprefix("-").isdecimal():
            raise Refusal(f"'{text}/{steps}' is no {self.name}")
        step = max(int(steps), 1) if slash else 1
        if text == "*":
            first, last = self.low, self.high
        elif "-" in text[1:]:
            # A backwards range is read forwards: 5-1 is 1-5.
            first, last = sorted(self.value(side) for side in text.split("-", 1))
        else:
            first = self.value(text)
            last = self.high if slash else first
        return set(range(first, last + 1, step))


_FIELDS = (
    _Field("second", 0, 59),
    _Field("minute", 0, 59),
    _Field("hour", 0, 23),
    _Field("day", 1, 31),
    _Field("month", 1, 12, tuple(_MONTHS)),
    # 7 isn't Sunday here.
    _Field("day of week", 0, 6, tuple(_DAYS)),
)


class Schedule:
    """A parsed schedule; `after` gives what comes next."""

    def __init__(self, text: str) -> None:
        """Parse the text; refuses what the platform refuses."""
        parts = text.split()
        if len(parts) not in (5, 6):
            raise Refusal(f"the schedule '{text}' must have 6 fields (or 5, without seconds)")
        try:
            lists = [
                f.values(part) for f, part in zip(_FIELDS, ["0"] * (6 - len(parts)) + parts, strict=True)
            ]
        except Refusal as refusal:
            raise Refusal(f"the schedule '{text}' isn't valid: {refusal}") from None
        self._plain = " ".join(
            "*" if len(found) > field.high - field.low else ",".join(map(str, sorted(found)))
            for field, found in zip(_FIELDS, lists, strict=True)
        )

    def after(self, moment: datetime) -> datetime | None:
        """Give the first occurrence strictly after the moment; None if there never is one."""
        return next(self.occurrences(moment), None)

    def occurrences(self, moment: datetime) -> Iterator[datetime]:
        """Give the occurrences strictly after the moment, one after the other."""
        # Day of month AND day of week have to fit, unlike in Unix cron.
        found = croniter(self._plain, moment.astimezone(UTC), day_or=False, second_at_beginning=True)
        while True:
            try:
                yield found.get_next(datetime)
            except CroniterBadDateError:
                return
