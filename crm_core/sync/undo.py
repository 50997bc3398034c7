"""Gives a record back what it was: an ordinary write of the hub, which flows to every connection that has the record."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from crm_core.errors import BadRequest
from crm_core.model.entities import Entity
from crm_core.model.fields import Type
from crm_core.model.record import HUB, Record
from crm_core.sync.draft import Draft
from crm_core.sync.edit import MAX_TRIES, Editor, Leads, check_version, contended, losers_of, with_living
from crm_core.sync.merge import DELETED_AT
from crm_core.sync.past import state_at
from crm_core.sync.saving import Origin, write_of
from crm_core.sync.sides import Config


@dataclass(frozen=True)
class Undone:
    """The record after it, the fields that have other values now, and of those that could not be given back, why."""

    record: Record
    fields: tuple[str, ...]
    left: Mapping[str, str]


class Undoer(Editor):
    """An editor that goes back."""

    def undo(self, record_id: str, version: int, if_match: str = "") -> Undone:
        """The record as it was at a version, a deleted one alive again.

        Raises NotFound, Stale, BadRequest for a version at which there is nothing to go back to, and Conflict where its
        history does not reach so far or its match key is another record's by now.
        """
        for _ in range(MAX_TRIES):
            stored = self._found(record_id, dead=True)
            record = stored.content
            assert isinstance(record, Record)
            check_version(record, if_match)
            if not 1 <= version <= record.version:
                raise BadRequest.field("version", f"version: expected one from 1 to {record.version}.")
            steps = list(self.engine.records.history(self.tenant, self.entity.name, record.id, version + 1))
            was = state_at(record, steps, version)
            if was.dead:
                raise BadRequest.field(
                    "version", f"version: the record was deleted at version {version}; delete it instead."
                )
            given, left = settable(self.entity, record, was.fields, self._leads)
            if record.dead:
                self.claim_changed(record, {**record.fields, **given}, unchanged_too=True)
            else:
                self.claim_changed(record, given)
            after = put_back(record, self.entity, self._config(), given, self._now())
            if after is record:
                return Undone(record, (), left)
            step = write_of(
                stored, after, Origin(self._now(), HUB, by=self.by), losers=losers_of(record, after)
            )
            if self._save(step):
                return Undone(after, tuple(changed_names(record, after)), left)
        raise contended()


def settable(
    entity: Entity, record: Record, wanted: Mapping[str, Any], leads: Leads
) -> tuple[dict[str, Any], dict[str, str]]:
    """(of the fields that differ from what is wanted those that may be set, of the others why not).

    A reference to what became another record leads to that one, one to what lives no more is left. Of a record that is to
    live again those that stay are looked at, too.
    """
    given: dict[str, Any] = {}
    left: dict[str, str] = {}
    for name in sorted(record.fields.keys() | wanted.keys()):
        value = wanted.get(name)
        if _is_same(entity, record, name, value):
            continue
        problem = unsettable(entity, name, value)
        if problem:
            left[name] = problem
        else:
            given[name] = value
    _lead(entity, record, given, left, leads)
    return {name: value for name, value in given.items() if not _is_same(entity, record, name, value)}, left


def _is_same(entity: Entity, record: Record, name: str, value: Any) -> bool:
    kind, ours = entity.by_name.get(name), record.fields.get(name)
    return bool(ours == value or (kind is not None and kind.same(ours, value)))


def _lead(entity: Entity, record: Record, given: dict[str, Any], left: dict[str, str], leads: Leads) -> None:
    """A reference, and what tells of which entity it is, go together or stay together."""
    for kind in entity.fields:
        if not (kind.targets or kind.type is Type.LINES):
            continue
        names = [name for name in (kind.name, kind.companion) if name]
        if not record.dead and not given.keys() & {*names}:
            continue
        told = {name: given.get(name, record.fields.get(name)) for name in names}
        found, missing = with_living(entity, told, leads)
        if missing:
            for name in names:
                given.pop(name, None)
            left[kind.name] = missing[kind.name][0]
        else:
            given |= found


def unsettable(entity: Entity, name: str, value: Any) -> str:
    """Why a field can't be given a value it had; "" if it can."""
    kind = entity.by_name.get(name)
    if kind is None:
        return f"is no field of {entity.name} any more"
    if name == DELETED_AT:
        return "" if value is None else "marks a delete; delete the record instead"
    if kind.read_only:
        return "is read only"
    if kind.required and value is None:
        return "can't be emptied"
    return ""


def put_back(record: Record, entity: Entity, config: Config, fields: Mapping[str, Any], now: str) -> Record:
    """The record alive and with these values; the same object if it is so already.

    One that was deleted, or marked as deleted, is made again where it is gone, as when a remote system restores it.
    """
    draft = Draft(record, config)
    if record.dead:
        draft.revive("")
    if DELETED_AT in fields and record.fields.get(DELETED_AT) is not None:
        for uid, side in config.items():
            if draft.has_link(uid) and draft.link_now(uid).state == "gone" and side.deletes != "ignore":
                draft.link(uid).renewed()
    for name, value in fields.items():
        if not _is_same(entity, record, name, value):
            draft.set_value(name, value, HUB, now)
    return draft.finished()


def changed_names(before: Record, after: Record) -> list[str]:
    names = before.fields.keys() | after.fields.keys()
    return sorted(name for name in names if before.fields.get(name) != after.fields.get(name))
