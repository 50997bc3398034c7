"""What waits at records: values that a remote refused, and pushes that gave up. The open items say where, the records what.

A list costs two short queries for each bucket of an entity, and a point read for each record that waits.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from crm_core.errors import Conflict, Misconfigured, NotFound
from crm_core.model.connection import Tenant
from crm_core.model.entities import ENTITIES
from crm_core.model.fields import hub_time
from crm_core.model.record import NOTHING, Record
from crm_core.storage import layout
from crm_core.sync import conflicts
from crm_core.sync.deadletters.base import Place, Waiting, Wanted
from crm_core.sync.draft import Draft
from crm_core.sync.edit import Editor
from crm_core.sync.engine import Engine, wake
from crm_core.sync.sides import Config

KINDS = ("parked", "refused")
Shelf = tuple[str, str, str]
"""Entity, bucket and kind: one range of open items."""
WIDTH = 4
AHEAD = 16
"""Queries that are made at once, though the first of them may fill the page."""
UNKNOWN_CODE = "Rejected"
"""Of a value that was refused before its cause was kept."""


class _Quiet(Editor):
    """Gathers whom to wake: of a thousand replays each connection gets one message, not a thousand."""

    def __init__(self, engine: Engine, tenant: Tenant, entity: str, by: str) -> None:
        super().__init__(engine, tenant, ENTITIES[entity], by)
        self.places: set[tuple[str, str]] = set()

    def _wake(self, places: set[tuple[str, str]]) -> None:
        self.places |= places


@dataclass
class Items:
    engine: Engine
    tenant: Tenant
    by: str = ""
    _editors: dict[str, _Quiet] = field(default_factory=dict)

    def page(self, wanted: Wanted, place: Place, top: int) -> tuple[list[Waiting], Place | None]:
        shelves = self._shelves(wanted, tuple(place.get("shelf", ())))
        after: str = place["after"] if shelves and list(shelves[0]) == place.get("shelf") else ""
        found: dict[tuple[str, str], None] = {}
        while shelves and len(found) < top:
            some = list(zip(shelves[:AHEAD], [after, *[""] * (AHEAD - 1)], strict=False))
            pages = self.engine.pool.map(
                lambda each: self._ids(*each[0], wanted.uid, each[1], top), some, WIDTH
            )
            for (shelf, began), (ids, rest) in zip(some, pages, strict=True):
                taken = ids[: top - len(found)]
                found.update(((shelf[0], record_id), None) for record_id, _ in taken)
                if len(taken) < len(ids):
                    after = layout.open_item_rk(shelf[2], taken[-1][1], taken[-1][0]) if taken else began
                    break
                after = rest
                if after:
                    break
                shelves = shelves[1:]
        waiting = self._waiting(list(found), wanted)
        return waiting, {"shelf": list(shelves[0]), "after": after} if shelves else None

    def _shelves(self, wanted: Wanted, first: Shelf | tuple[()]) -> list[Shelf]:
        """Every range in which some may wait, from the `first` on: of the entities that a connection has."""
        named = [wanted.entity] if wanted.entity else sorted(ENTITIES)
        every = (
            (entity, bucket, kind)
            for entity in self._had(wanted, named)
            for bucket in layout.BUCKETS
            for kind in KINDS
        )
        return [each for each in every if each >= first]

    def _had(self, wanted: Wanted, named: Sequence[str]) -> list[str]:
        """Those of these entities that the connection has, or any. The connection itself is asked, not the list of all of
        them: that may be a minute old, and who asks for many is served by whichever instance, once.
        """
        with suppress(Misconfigured):  # one that can't be opened has what waits all the same
            if wanted.uid and (opened := self.engine.open(self.tenant, wanted.uid)) is not None:
                return [each for each in named if each in opened.connection.entities]
        found = ((each, self.engine.sides(self.tenant, each)) for each in named)
        return [each for each, sides in found if sides and (not wanted.uid or wanted.uid in sides)]

    def _ids(
        self, entity: str, bucket: str, kind: str, uid: str, after: str, top: int
    ) -> tuple[list[tuple[str, str]], str]:
        return self.engine.records.open_page(
            self.tenant, entity, bucket, kind, connection=uid, after=after, top=top
        )

    def _waiting(self, found: list[tuple[str, str]], wanted: Wanted) -> list[Waiting]:
        rows = self.engine.pool.map(
            lambda each: self.engine.records.get(self.tenant, each[0], each[1]), found, WIDTH
        )
        records = [each.content for each in rows if each is not None and isinstance(each.content, Record)]
        return [each for record in records for each in _of(record) if wanted.has(each)]

    def find(self, waiting_id: str) -> Waiting | None:
        parts = waiting_id.split("~")
        if len(parts) != 5 or parts[3] not in KINDS:
            return None
        conflict = conflicts.find(self.engine, self.tenant, waiting_id)
        return next(each for each in _of(conflict.record) if each.id == waiting_id)

    def plan(self, waiting: Waiting) -> Mapping[str, Any]:
        conflict = conflicts.find(self.engine, self.tenant, waiting.id)
        link = conflict.record.links[waiting.connection]
        fields = [waiting.field] if waiting.kind == "refused" else sorted(link.behind)
        return {
            "would": "make the record there"
            if link.state == "new"
            else "send the record's values there again",
            "entity": waiting.entity,
            "record": conflict.record.id,
            "values": {name: conflict.record.fields.get(name) for name in fields},
        }

    def replay(self, waiting: Waiting) -> None:
        conflicts.resolve(self._editor(waiting), self._conflict(waiting), "retry")

    def discard(self, waiting: Waiting, reason: str) -> None:
        """The remote keeps what it has until the record's value changes; nobody is asked any more."""
        note = {"by": self.by, "time": hub_time(self.engine.clock.now()), "reason": reason}

        def discarded(record: Record, config: Config) -> Record:
            if not any(each.id == waiting.id for each in conflicts.of(record)):
                raise NotFound(f"'{waiting.id}' was decided just now.")
            draft = Draft(record, config)
            link = draft.link(waiting.connection)
            if waiting.kind == "parked":
                link.parked = {**link.parked, "discarded": note}
            else:
                link.why[waiting.field] = {**link.why.get(waiting.field, NOTHING), "discarded": note}
            return draft.finished()

        conflict = self._conflict(waiting)
        self._editor(waiting).change(conflict.record.id, discarded)

    def edit(self, waiting: Waiting, payload: str) -> Waiting:  # noqa: ARG002  # a source's parameters
        where = f"/api/records/{ENTITIES[waiting.entity].path}/{waiting.about['record']}"
        raise Conflict(
            f"A record's values are edited over PATCH {where}; what was refused is then sent again."
        )

    def finish(self) -> None:
        for entity, editor in self._editors.items():
            wake(self.engine, self.tenant, entity, editor.places)
            editor.places = set()

    def _conflict(self, waiting: Waiting) -> conflicts.Conflict:
        return conflicts.find(self.engine, self.tenant, waiting.id)

    def _editor(self, waiting: Waiting) -> _Quiet:
        if waiting.entity not in self._editors:
            self._editors[waiting.entity] = _Quiet(self.engine, self.tenant, waiting.entity, self.by)
        return self._editors[waiting.entity]


def _of(record: Record) -> Iterator[Waiting]:
    """What of a record waits because it failed; a conflict that is to be decided has not failed."""
    for each in conflicts.of(record):
        if each.kind not in KINDS:
            continue
        link = record.links[each.connection]
        told = link.parked if each.kind == "parked" else link.why.get(each.field, NOTHING)
        fields = told.get("fields", ())
        about = {"record": record.id, "remote_id": link.rid, "fields": list(fields)}
        yield Waiting(
            each.id,
            each.kind,
            each.connection,
            record.entity,
            told.get("cause") or UNKNOWN_CODE,
            each.field or (fields[0] if len(fields) == 1 else ""),
            told.get("message", ""),
            told.get("time") or link.seen or record.stamp.time,
            ("replay", "discard"),
            {name: value for name, value in about.items() if value},
        )
