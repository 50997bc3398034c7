"""Many writes of an app into the hub's own records: as `edit.py` makes each, but committed together.

Writes of one record keep their order: they go in rounds, each with the next write of every record. A round reads its rows
bucket by bucket and commits them as many to a transaction as fit; whose row has moved on is decided anew.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from crm_core.connector import Verb, not_begun
from crm_core.errors import HubError, StoreUnavailable
from crm_core.model.connection import Tenant
from crm_core.model.entities import Entity
from crm_core.model.matchkeys import match_key
from crm_core.model.record import HUB, NOTHING, Record
from crm_core.storage import layout
from crm_core.storage.records import RecordWrite, Redirect, Stored
from crm_core.sync import deletes
from crm_core.sync.edit import MAX_TRIES, Editor, check_version, contended, losers_of, no_record, too_large
from crm_core.sync.engine import Engine
from crm_core.sync.saving import Origin, Saved, save, write_of

DECIDE_WIDTH = 8
"""Writes that are decided at a time: a claim of a key and a look at what is referred to are calls to the store."""
LATE = "The batch ran out of time."
UNSURE = "The store gave no answer: it may have been written all the same."


@dataclass(frozen=True)
class Edit:
    """One write. `record_id`: of a create the one that it is made at. `fields`: canonical values, checked."""

    verb: Verb
    record_id: str
    fields: Mapping[str, Any] = NOTHING
    if_match: str = ""


@dataclass(frozen=True)
class Edited:
    """What became of one: the record as it is now, or why not."""

    record: Record | None = None
    error: HubError | None = None


@dataclass
class _Open:
    """A write without an outcome. `tries`: how often its row had moved on."""

    index: int
    edit: Edit
    tries: int = 0

    @property
    def again(self) -> bool:
        return self.tries > 0


@dataclass
class _Round:
    """Which records, and which match keys, the writes of a round are about: no two of them about the same."""

    ids: set[str] = field(default_factory=set)
    keys: set[str] = field(default_factory=set)

    def takes(self, record_id: str, keys: set[str]) -> bool:
        """Whether a write can be in it. One that can't still keeps those after it on the same things out."""
        free = record_id not in self.ids and not keys & self.keys
        self.ids.add(record_id)
        self.keys |= keys
        return free


class ManyEditor(Editor):
    """An editor of many records; for one call."""

    def __init__(self, engine: Engine, tenant: Tenant, entity: Entity, by: str) -> None:
        super().__init__(engine, tenant, entity, by)
        self._living: dict[tuple[str, str], str] = {}
        self._wakes: set[tuple[str, str]] = set()

    def carry_out(
        self, edits: Sequence[Edit | HubError], go_on: Callable[[], bool] = lambda: True
    ) -> list[Edited]:
        """One outcome for each, in their order. What is an error already keeps it. Once `go_on` says no, or the store does
        not answer, the rest is not begun; of what was sent to it and not answered the outcome is unknown.
        """
        done = {index: Edited(error=each) for index, each in enumerate(edits) if isinstance(each, HubError)}
        todo = [_Open(index, each) for index, each in enumerate(edits) if isinstance(each, Edit)]
        try:
            while todo:
                if not go_on():
                    done |= {each.index: Edited(error=not_begun(HubError(LATE))) for each in todo}
                    break
                todo = self._round(todo, done)
        except StoreUnavailable as error:
            left = (each.index for each in todo if each.index not in done)
            done |= {index: Edited(error=not_begun(error)) for index in left}
        finally:
            with suppress(
                StoreUnavailable
            ):  # a lost wake-up costs time only, and the outcomes are what they are
                self._wake(self._wakes)
        return [done[index] for index in range(len(edits))]

    def _round(self, todo: list[_Open], done: dict[int, Edited]) -> list[_Open]:
        """Carries out the first write of each record; gives what is left."""
        about, now, later = _Round(), list[_Open](), list[_Open]()
        for each in todo:
            takes = about.takes(each.edit.record_id, self._keys(each.edit))
            (now if takes else later).append(each)
        self._living = {ref: target for ref, target in self._living.items() if ref[0] != self.entity.name}
        rows = self._rows(each.edit.record_id for each in now if each.again or each.edit.verb != "create")
        now = _apart(now, rows, later)
        decided = self.engine.pool.map(
            lambda each: self._decided(each.edit, rows.get(each.edit.record_id)), now, DECIDE_WIDTH
        )
        planned: dict[str, tuple[_Open, RecordWrite]] = {}
        for each, result in zip(now, decided, strict=True):
            if isinstance(result, Edited):
                done[each.index] = result
            elif result.id in planned:  # a create whose match key leads where another write goes
                later.append(each)
            else:
                planned[result.id] = each, result
        again = self._commit(planned, done)
        return sorted([*again, *later], key=lambda each: each.index)

    def _commit(
        self, planned: Mapping[str, tuple[_Open, RecordWrite]], done: dict[int, Edited]
    ) -> list[_Open]:
        """Gives those whose row has moved on, as long as it is worth another try. If the store stops answering, what it
        did until then is told before this raises.
        """
        writes = [write for _, write in planned.values()]
        saved, again = Saved(), list[_Open]()
        try:
            save(self.engine, self.tenant, self.entity.name, writes, claimed=True, saved=saved)
        finally:
            self._wakes |= saved.wakes
            written, large, unsure = set(saved.written), set(saved.large), set(saved.unsure)
            for record_id, (each, write) in planned.items():
                if record_id in written:
                    assert isinstance(write.after, Record)
                    done[each.index] = Edited(write.after)
                elif record_id in large:
                    done[each.index] = Edited(error=too_large())
                elif record_id in unsure:
                    done[each.index] = Edited(error=StoreUnavailable(UNSURE, outcome_unknown=True))
                elif record_id in saved.stale and each.tries == MAX_TRIES:
                    done[each.index] = Edited(error=contended())
                else:
                    again.append(_Open(each.index, each.edit, each.tries + 1))
        return again

    def _rows(self, ids: Iterable[str]) -> dict[str, Stored]:
        """What is at these ids, redirects followed."""
        buckets: dict[str, list[str]] = {}
        for each in ids:
            buckets.setdefault(layout.bucket(each), []).append(each)
        read = self.engine.pool.map(
            lambda item: self.engine.records.read_many(self.tenant, self.entity.name, item[0], item[1], 0),
            list(buckets.items()),
        )
        found = {record_id: stored for part in read for record_id, stored in part.items()}
        for record_id, stored in found.items():
            if isinstance(stored.content, Redirect):
                led = self._stored(record_id)
                found[record_id] = led or stored
        return found

    def _keys(self, edit: Edit) -> set[str]:
        """The match keys that a write claims: of two in one batch the second has to see what the first did."""
        keys = {match_key(name, edit.fields.get(name)) for name in self._match_names() if name in edit.fields}
        return keys - {""}

    # --- one write ---------------------------------------------------------------------------------------------------

    def _decided(self, edit: Edit, stored: Stored | None) -> RecordWrite | Edited:
        """What is to be written for it, or its outcome if nothing is."""
        try:
            if edit.verb == "create":
                return self._create(edit, stored)
            if stored is None or not isinstance(stored.content, Record):
                raise no_record(self.entity, edit.record_id)
            record, config = stored.content, self._config()
            if edit.verb == "delete":
                check_version(record, edit.if_match)
                after = deletes.deleted_by_app(record, config)
            else:
                after = self._updated(record, edit)
        except StoreUnavailable:
            raise
        except HubError as error:
            return Edited(error=error)
        if after is record:
            return Edited(record)
        by = Origin(self._now(), HUB, by=self.by)
        return write_of(stored, after, by, losers=losers_of(record, after))

    def _updated(self, record: Record, edit: Edit) -> Record:
        if record.dead:
            raise no_record(self.entity, edit.record_id)
        check_version(record, edit.if_match)
        given = self._with_references(edit.fields)
        self.claim_changed(record, given)
        return self._with_values(record, self._config(), given)

    def _create(self, edit: Edit, stored: Stored | None) -> RecordWrite | Edited:
        given = {name: value for name, value in edit.fields.items() if value is not None}
        given = self._with_references(given)
        target = self._claimed(given, edit.record_id)
        if target != edit.record_id:
            stored = self._stored(target)
        if stored is None or not isinstance(stored.content, Record):
            return RecordWrite(target, stored, self._made(target, given))
        if not stored.content.dead:
            return Edited(stored.content)  # it was made by an earlier try
        after = self._living_again(stored.content, self._config(), given)
        return write_of(stored, after, Origin(self._now(), HUB, by=self.by))

    def _leads(self, entity: str, record_id: str) -> str:
        """Many refer to the same few."""
        known = self._living.get((entity, record_id))
        if known is None:
            known = super()._leads(entity, record_id)
            if known:
                self._living[entity, record_id] = known
        return known


def _apart(now: list[_Open], rows: Mapping[str, Stored], later: list[_Open]) -> list[_Open]:
    """Of the writes whose ids lead to one record the first; the others go to `later`."""
    found, places = list[_Open](), set[str]()
    for each in now:
        stored = rows.get(each.edit.record_id)
        place = stored.id if stored is not None else each.edit.record_id
        (later if place in places else found).append(each)
        places.add(place)
    return found
