"""What of a run's changes of one record can be taken back, by the record and its history. Pure.

A field goes back to what it was before the run, as long as nobody has changed it since. What was changed again is left, and
told with both values. A record that the run made is deleted if nobody has touched it since, nor linked it with what was there before; one that it
deleted lives again. What the history does not tell any more is taken for somebody's change. A reference goes back to the record
that became of the one it led to, and stays where that one lives no more.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from crm_core.model.entities import Entity
from crm_core.model.record import Record
from crm_core.storage.records import HistoryEntry, Redirect
from crm_core.sync import deletes
from crm_core.sync.edit import Leads
from crm_core.sync.merge import DELETED_AT
from crm_core.sync.past import missing
from crm_core.sync.planning.decisions import Decision, push_of
from crm_core.sync.sides import Config, Sides
from crm_core.sync.undo import put_back, settable

POLICY = "undo"
UNITED = "unite"
"""The last step of a record that became another one; what has its id after that is a new record."""


@dataclass
class _Back:
    """What taking back comes to. `fields`: name -> the value before; `conflicts`, `left`: those that stay, and why; `why`:
    why all of it stays.
    """

    action: str = ""
    why: str = ""
    fields: dict[str, Any] = field(default_factory=dict)
    conflicts: dict[str, Mapping[str, Any]] = field(default_factory=dict)
    left: dict[str, str] = field(default_factory=dict)


def decide(
    record: Record,
    steps: Sequence[HistoryEntry],
    runs: Collection[str],
    entity: Entity,
    sides: Sides,
    uid: str,
    leads: Leads,
) -> Decision | None:
    """What undoing these runs would do to a record; None for nothing. `steps`: its history, oldest first; `uid`: the
    connection that the runs are of; `leads`: where references lead once all of it is undone. Beside what every decision has: `version`, of the record as it is, `found`: at how many
    connections it is linked with what the hub did not make, and `left`: the fields that can't be given back, and why.
    """
    back = _back(record, steps, runs, entity, leads)
    if back is None or not (back.action or back.conflicts or back.left or back.why):
        return None
    action = back.action or "conflict"
    after = carried_out(record, entity, sides, action, back.fields, record.stamp.time)
    link = record.links.get(uid)
    decision: Decision = {
        "record_id": record.id,
        "entity": record.entity,
        "connection": uid,
        "remote_id": (link.rid if link else "") or None,
        "action": action,
        "fields": {
            name: {"old": record.fields.get(name), "new": value} for name, value in back.fields.items()
        },
        "conflicts": back.conflicts,
        "pushes": _pushes(record, after, sides),
        "version": record.version,
        "found": found_at(record),
    }
    beside = {"left": back.left, "why": back.why}
    return {**decision, **{name: each for name, each in beside.items() if each}}


def revives(record: Record, steps: Sequence[HistoryEntry], runs: Collection[str], entity: Entity) -> bool:
    """Whether undoing these runs brings a record back to life."""
    back = _back(record, steps, runs, entity, lambda _, record_id: record_id) if record.dead else None
    return back is not None and back.action == "revive"


def carried_out(
    record: Record, entity: Entity, sides: Sides, action: str, fields: Mapping[str, Any], now: str
) -> Record:
    """The record after a decision; the same object if that changes nothing."""
    config = sides if isinstance(sides, Config) else Config(sides, 0.0)
    if action == "delete":
        return deletes.deleted_by_app(record, config)
    if action == "conflict":
        return record
    return put_back(record, entity, config, fields, now)


def _back(
    record: Record, steps: Sequence[HistoryEntry], runs: Collection[str], entity: Entity, leads: Leads
) -> _Back | None:
    begun = _begun(steps)
    steps = [step for step in steps if step.version > begun]
    lost = missing(record, steps, begun)
    if record.created.get("run") in runs:
        return _unmade(record, steps, runs, entity, lost)
    if not any(step.run in runs for step in steps):
        return None
    if lost:
        known = [step for step in steps if step.version > lost[-1]]
        if any(step.run in runs for step in steps[: len(steps) - len(known)]):
            return _Back(why=_unknown(lost))
        steps = known
    back = _Back()
    life = _life(record, steps, runs)
    if record.dead and life != "revive":
        if _lives_before(steps, runs):
            back.why = "The record was deleted since."
        return back
    if life == "delete":
        others = _touched(steps, runs, entity)
        return _Back(why=f"The run brought it back to life. {_by(others)}") if others else _Back("delete")
    _fields_back(back, record, steps, runs, entity, leads)
    if life == "revive" or DELETED_AT in back.fields:
        back.action = "revive"
    elif back.fields:
        back.action = "update"
    return back


def changes_of(content: Record | Redirect, steps: Iterable[HistoryEntry], runs: Collection[str]) -> int:
    """How many changes of these runs are known of what is, or was, at a record id."""
    made = isinstance(content, Record) and content.created.get("run") in runs
    return made + sum(step.run in runs for step in steps)


def hidden(content: Record | Redirect, steps: Sequence[HistoryEntry], since: str, until: str) -> int:
    """How many versions of what is, or was, at a record id may have been made between two times, of which the history
    keeps nothing.
    """
    times = {step.version: step.time for step in steps}
    begun = _begun(steps) if isinstance(content, Record) else 1
    earliest = content.created["time"] if isinstance(content, Record) and begun == 1 else ""
    found = lost = 0
    for version in range(begun + 1, content.version + 1):
        if version not in times:
            lost += 1
            continue
        found += lost if earliest <= until and times[version] >= since else 0
        earliest, lost = times[version], 0
    return found + (lost if earliest <= until else 0)


def _begun(steps: Iterable[HistoryEntry]) -> int:
    """The first version of the record that has the id now."""
    return max((step.version for step in steps if step.change == UNITED), default=0) + 1


def _unmade(
    record: Record, steps: Sequence[HistoryEntry], runs: Collection[str], entity: Entity, lost: Sequence[int]
) -> _Back | None:
    """Of a record that the run made. `lost`: the versions of which nothing is known any more."""
    if record.dead:
        return None
    others = _touched(steps, runs, entity)
    if others:
        return _Back(why=f"The run made the record. {_by(others)}")
    if lost:
        return _Back(why=f"The run made the record. {_unknown(lost)}")
    if found_at(record):
        return _Back(why="The run made the record. It was linked since with one that was there before.")
    return _Back("delete")


def found_at(record: Record) -> int:
    """At how many connections the record is linked with a row that was not made for it alone."""
    return sum(link.found and link.state == "live" for link in record.links.values())


def _life(record: Record, steps: Sequence[HistoryEntry], runs: Collection[str]) -> str:
    """What is to become of the record's life, if the run was the last to change it."""
    last = next((step for step in reversed(steps) if step.died or step.revived), None)
    if last is None or last.run not in runs:
        return ""
    first = last
    for step in reversed(steps):
        if step.died or step.revived:
            if step.run not in runs:
                break
            first = step
    was_dead = first.revived
    if was_dead == record.dead:
        return ""
    return "delete" if was_dead else "revive"


def _lives_before(steps: Sequence[HistoryEntry], runs: Collection[str]) -> bool:
    """Whether what the run did was done to a living record."""
    dead = False
    for step in steps:
        dead = (dead or step.died) and not step.revived
        if step.run in runs and not dead:
            return True
    return False


def _fields_back(
    back: _Back,
    record: Record,
    steps: Sequence[HistoryEntry],
    runs: Collection[str],
    entity: Entity,
    leads: Leads,
) -> None:
    wanted = dict(record.fields)
    for name, (before, last, given) in _changes(steps, runs, record).items():
        kind, ours = entity.by_name.get(name), record.fields.get(name)
        if ours == before or (kind is not None and kind.same(ours, before)):
            continue
        if kind is not None and kind.read_only and name != DELETED_AT:
            continue  # each system keeps it by itself
        if last.run not in runs:
            back.conflicts[name] = _left(ours, before, given, _by([last]))
        else:
            wanted[name] = before
    back.fields, left = settable(entity, record, wanted, leads)
    back.left = told_left(left)


def _changes(
    steps: Sequence[HistoryEntry], runs: Collection[str], record: Record
) -> dict[str, tuple[Any, HistoryEntry, Any]]:
    """Of each field that the run changed: (its value before the run's last changes in a row, who changed it last, what the
    run had made of it).
    """
    found: dict[str, tuple[Any, HistoryEntry, Any]] = {}
    given: dict[str, Any] = dict(record.fields)
    closed: set[str] = set()
    last: dict[str, HistoryEntry] = {}
    for step in reversed(steps):
        for name, old in step.old.items():
            last.setdefault(name, step)
            if step.run in runs:
                if name not in closed:
                    now = found[name][2] if name in found else given.get(name)
                    found[name] = old, last[name], now
            elif name in found:
                closed.add(name)
            given[name] = old
    return found


def _touched(steps: Sequence[HistoryEntry], runs: Collection[str], entity: Entity) -> list[HistoryEntry]:
    """What others did to the record after the run had, aside from what each system keeps by itself."""
    last = max((step.version for step in steps if step.run in runs), default=1)
    return [step for step in steps if step.version > last and step.run not in runs and touches(step, entity)]


def touches(step: HistoryEntry, entity: Entity) -> bool:
    """Whether a step is more than a system's own bookkeeping."""
    if step.died or step.revived:
        return True
    return any(not _is_kept(entity, name) for name in step.old)


def _is_kept(entity: Entity, name: str) -> bool:
    kind = entity.by_name.get(name)
    return kind is not None and kind.read_only and name != DELETED_AT


def _left(ours: Any, before: Any, given: Any, why: str) -> dict[str, Any]:
    return {"ours": ours, "theirs": before, "base": given, "policy": POLICY, "wins": "ours", "why": why}


def told_left(left: Mapping[str, str]) -> dict[str, str]:
    """Of each field that can't be given back why, as people read it."""
    return {name: f"{name}: {why}." for name, why in left.items()}


def _unknown(lost: Sequence[int]) -> str:
    return f"Nothing is known any more of version {lost[-1]}."


def _by(steps: Sequence[HistoryEntry]) -> str:
    versions = ", ".join(str(step.version) for step in steps[:5])
    return f"Changed again at version {versions}."


def _pushes(before: Record, after: Record, sides: Sides) -> list[dict[str, Any]]:
    """What connections would be told of it."""
    found = []
    for uid in sorted(after.links):
        told = push_of(after, uid, sides)
        if told is not None and told != push_of(before, uid, sides):
            found.append(told)
    return found
