"""What there is to know of one conflict: who set each side's value, what other connections hold, and what each choice would do.

Everything is read from the record, its history and the configuration; nothing is written.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from crm_core.errors import HubError
from crm_core.model.connection import Tenant
from crm_core.model.record import UNKNOWN, Record, is_sendable, wants_push
from crm_core.storage.records import HistoryEntry
from crm_core.sync.conflicts import REVIEWS, VALUES, WAYS, Conflict
from crm_core.sync.edit import Editor
from crm_core.sync.engine import Engine
from crm_core.sync.resolving import Choice, Outcome, outcome
from crm_core.sync.sides import Config
from crm_core.sync.why import Held, held_at


@dataclass(frozen=True)
class Origin:
    """Where a value came from: an origin (the hub, or a connection's uid), who wrote it there as far as the hub knows, when
    (of a remote, its own time), in which run, and the version of the record that it made.
    """

    origin: str
    time: str
    by: str = ""
    run: str = ""
    version: int = 0


@dataclass(frozen=True)
class Step:
    """One change of the field: from what to what, from where, when."""

    old: Any
    new: Any
    origin: Origin


@dataclass(frozen=True)
class Explained:
    """`policy`: what decides at the connection, "" of what no policy decides. `story`: of a field that went back and forth,
    how it did, the oldest first; the last step is the one that was not taken.
    """

    conflict: Conflict
    policy: str = ""
    ours: Origin | None = None
    theirs: Origin | None = None
    held: Sequence[Held] = ()
    story: Sequence[Step] = ()
    choices: Mapping[str, Outcome | HubError] = field(default_factory=dict)


def explain(engine: Engine, tenant: Tenant, editor: Editor, conflict: Conflict) -> Explained:
    """All of it. `editor`: of whoever asks."""
    record, config = conflict.record, engine.sides(tenant, conflict.record.entity)
    choices = {way: _would(editor, config, conflict, way) for way in WAYS[conflict.kind] if way != "value"}
    if conflict.kind in REVIEWS or not conflict.field:
        return Explained(conflict, choices=choices)
    name, side = conflict.field, config.get(conflict.connection)
    steps = [each for each in engine.records.history(tenant, record.entity, record.id) if name in each.old]
    of_values = conflict.kind in VALUES
    return Explained(
        conflict,
        side.policy(name) if side is not None and of_values else "",
        _ours(record, name, steps),
        Origin(conflict.connection, conflict.about["time"]) if of_values else None,
        [held_at(record, name, uid, config) for uid in record.links],
        list(_story(conflict, steps)) if conflict.kind == "flip" else (),
        choices,
    )


def _would(editor: Editor, config: Config, conflict: Conflict, way: str) -> Outcome | HubError:
    try:
        return outcome(editor, config, [Choice(conflict, way)])
    except HubError as error:
        return error


def _ours(record: Record, name: str, steps: Sequence[HistoryEntry]) -> Origin:
    """Of a value that the record has had from the beginning, whoever made the record."""
    stamp = record.stamp_of(name)
    if steps:
        last = steps[-1]
        return Origin(last.origin, stamp.time, last.by, last.run, last.version)
    made = record.created
    return Origin(made["origin"], stamp.time, made.get("by", ""), made["run"], 1)


def _story(conflict: Conflict, steps: Sequence[HistoryEntry]) -> Iterator[Step]:
    """The changes since the field began to go back and forth, and the one that made it a conflict."""
    name, record = conflict.field, conflict.record
    since = str(record.flips.get(name, {}).get("since", ""))
    for number, each in enumerate(steps):
        new = steps[number + 1].old[name] if number + 1 < len(steps) else record.fields.get(name)
        if each.time >= since:
            yield Step(each.old[name], new, Origin(each.origin, each.time, each.by, each.run, each.version))
    yield Step(
        record.fields.get(name), conflict.about["theirs"], Origin(conflict.connection, conflict.about["time"])
    )


# --- what an outcome is -------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Push:
    """What would be sent to a connection: a create, an update or a delete, and of each field what is held there and ours."""

    connection: str
    action: str
    record: str
    fields: Mapping[str, tuple[Any, Any]]


def changes_of(before: Record, after: Record) -> dict[str, tuple[Any, Any]]:
    """Of each field that a step changes, what it was and what it becomes."""
    return {
        name: (before.fields.get(name), after.fields.get(name))
        for name in sorted(before.fields.keys() | after.fields.keys())
        if before.fields.get(name) != after.fields.get(name)
    }


def pushes_of(before: Record, after: Record, config: Config) -> Iterator[Push]:
    """What is sent because of a step that was not to be sent before it."""
    for uid, link in after.links.items():
        side = config.get(uid)
        if side is None or not link.wants or not wants_push(after, link):
            continue
        known = before.links.get(uid)
        if link.state != "live":
            if known is None or not known.wants or not wants_push(before, known):
                fields = {
                    each: (None, after.fields[each]) for each in sorted(side.writes & after.fields.keys())
                }
                yield Push(uid, "create", after.id, fields)
            continue
        names = [name for name in sorted(link.behind) if is_sendable(after, link, name)]
        fields = {
            name: (None if link.behind[name] == UNKNOWN else link.behind[name], after.fields.get(name))
            for name in names
            if known is None
            or known.parked
            or not is_sendable(before, known, name)
            or before.fields.get(name) != after.fields.get(name)
        }
        if fields:
            yield Push(uid, "update", after.id, fields)
