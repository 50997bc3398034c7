"""What was accepted, and what came of it: the account of a two-way soak, in plain words. Pure."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

Values = Mapping[str, Any]
HUB = "the hub"
FIELDS: Mapping[str, Mapping[str, str]] = {
    HUB: {"phone": "phone", "job_title": "job_title", "department": "department"},
    "": {"phone": "telephone1", "job_title": "jobtitle", "department": "department"},
}
"""The field of an edit -> its name at a place; "" is a system's own."""
EMAIL = {HUB: "email", "": "emailaddress1"}


@dataclass
class Ledger:
    """`contacts`: e-mail -> field -> the last value that was accepted. Each field is edited at one place only, so that
    no policy decides what has to come of it.
    """

    contacts: dict[str, dict[str, str]] = field(default_factory=dict)
    edits: int = 0

    def made(self, email: str, **values: str) -> None:
        """Also of one that was changed before its maker got an answer."""
        self.contacts.setdefault(email, {}).update(values)

    def edited(self, email: str, name: str, value: str) -> None:
        self.contacts.setdefault(email, {})[name] = value
        self.edits += 1


@dataclass(frozen=True)
class Account:
    """What a ledger comes to. `applied`: place -> how many contacts are there with every accepted value; `lost` and
    `twice`: each in a sentence.
    """

    accepted: int
    edits: int
    applied: Mapping[str, int]
    lost: Sequence[str]
    twice: Sequence[str]

    @property
    def good(self) -> bool:
        return not self.lost and not self.twice

    def lines(self) -> Iterator[str]:
        places = ", ".join(f"{number:,} at {place}" for place, number in self.applied.items())
        yield f"accepted: {self.accepted:,} contacts and {self.edits:,} edits"
        yield f"applied:  contacts that are there once, with every value: {places}"
        for name, texts in (("twice", self.twice), ("lost", self.lost)):
            yield f"{name + ':':9} {len(texts)}"
            yield from (f"          {text}" for text in texts[:5])


def account_of(ledger: Ledger, places: Mapping[str, Sequence[Values]]) -> Account:
    """Compares the ledger with what each place holds; `places`: name -> its contacts, in its own words."""
    lost, twice, applied = [], [], {}
    for place, rows in places.items():
        kind = HUB if place == HUB else ""
        names, email = FIELDS[kind], EMAIL[kind]
        counts = Counter(row[email] for row in rows)
        by_email = {row[email]: row for row in rows}
        twice += [f"{each} is {count} times at {place}" for each, count in counts.items() if count > 1]
        twice += [
            f"nobody made {each}, which is at {place}" for each in counts if each not in ledger.contacts
        ]
        applied[place] = 0
        for each, values in ledger.contacts.items():
            missing = list(_missing(each, values, by_email.get(each), names, place))
            lost += missing
            applied[place] += not missing and counts[each] == 1
    return Account(len(ledger.contacts), ledger.edits, applied, lost, twice)


def _missing(
    email: str, values: Mapping[str, str], row: Values | None, names: Mapping[str, str], place: str
) -> Iterator[str]:
    if row is None:
        yield f"{email} is not at {place}"
        return
    for name, value in values.items():
        if row.get(names[name]) != value:
            yield f"{email} at {place}: {name} is {row.get(names[name])!r}, and {value!r} was accepted"
