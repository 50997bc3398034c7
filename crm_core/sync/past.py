"""What a record was: told by what each of its steps replaced, from the present back. Pure.

A record that was made has no step; each later version has one, which keeps the values that it replaced, and as a rule those
that it gave. Where it does not, the value that a step gave a field is what the next step of that field replaced, or what is
there now. Where steps are missing, nobody
knows what they did: what they hide is left out, never guessed.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from crm_core.errors import Conflict
from crm_core.model.record import Record
from crm_core.storage.records import HistoryEntry


@dataclass(frozen=True)
class Told:
    """A step with the values that it gave, those of fields whose next step is lost aside."""

    step: HistoryEntry
    new: Mapping[str, Any]


@dataclass(frozen=True)
class State:
    """What a record was at a version."""

    fields: Mapping[str, Any]
    dead: bool


def told(record: Record, steps: Iterable[HistoryEntry], top: int) -> tuple[list[Told], bool]:
    """(the first `top` of these steps with their new values, whether more follow). `steps`: oldest first, up to the
    present; no more of them are taken than it needs.
    """
    page: list[HistoryEntry] = []
    found: list[dict[str, Any]] = []
    open_names: dict[str, int] = {}  # field -> the step of the page that gave its newest value so far
    more, last = False, 0
    for step in steps:
        if last and step.version != last + 1:
            open_names.clear()
        last = step.version
        for name in step.old.keys() & open_names.keys():
            found[open_names.pop(name)][name] = step.old[name]
        if len(page) == top:
            more = True
            if not open_names:
                return _told(page, found), more
            continue
        open_names |= dict.fromkeys(step.old.keys() - step.new.keys(), len(page))
        page.append(step)
        found.append({name: step.new[name] for name in step.old if name in step.new})
    if last >= record.version:
        for name, number in open_names.items():
            found[number][name] = record.fields.get(name)
    return _told(page, found), more


def made_with(
    record: Record, first: HistoryEntry | None, steps: Callable[[], Iterable[HistoryEntry]]
) -> Mapping[str, Any] | None:
    """The values that a record was made with; None if nobody knows them any more. `first`: the oldest step that is kept,
    `steps`: reads all of them, where that one does not tell.
    """
    if record.version == 1:
        return record.fields
    if first is None or first.version != 2:
        return None
    if first.made is not None:
        return first.made
    known = list(steps())
    return None if missing(record, known) else state_at(record, known, 1).fields


def _told(page: Sequence[HistoryEntry], found: Sequence[Mapping[str, Any]]) -> list[Told]:
    return [Told(step, new) for step, new in zip(page, found, strict=True)]


def missing(record: Record, steps: Sequence[HistoryEntry], version: int = 1) -> list[int]:
    """The versions after this one of which history tells nothing any more."""
    known = {step.version for step in steps}
    return [each for each in range(version + 1, record.version + 1) if each not in known]


def state_at(record: Record, steps: Sequence[HistoryEntry], version: int) -> State:
    """The record at a version. `steps`: those after it, oldest first. Raises Conflict where one of them is lost."""
    lost = missing(record, steps, version)
    if lost:
        raise Conflict(
            f"What the record was at version {version} is not known any more: its history keeps nothing of version {lost[0]}."
        )
    fields, dead = dict(record.fields), record.dead
    for step in reversed(steps):
        if version < step.version <= record.version:
            fields |= step.old
            dead = (dead or step.revived) and not step.died
    return State({name: value for name, value in fields.items() if value is not None}, dead)
