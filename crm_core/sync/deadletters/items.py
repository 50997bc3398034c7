"""What waits at records: values that a remote refused, and pushes that gave up. The open items say where, the records what.

A list costs two short queries for each bucket of an entity, and a point read for each record that waits.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from crm_core.errors import Conflict, NotFound
from crm_core.model.connection import Tenant
from crm_core.model.entities import ENTITIES
from crm_core.model.fields import hub_time
from crm_core.model.record import NOTHING, Record
from crm_core.sync import conflicts, resolving, shelves
from crm_core.sync.deadletters.base import Place, Waiting, Wanted
from crm_core.sync.draft import Draft
from crm_core.sync.edit import QuietEditor
from crm_core.sync.engine import Engine
from crm_core.sync.sides import Config

KINDS = ("parked", "refused")
UNKNOWN_CODE = "Rejected"
"""Of a value that was refused before its cause was kept."""


@dataclass
class Items:
    engine: Engine
    tenant: Tenant
    by: str = ""
    _editors: dict[str, QuietEditor] = field(default_factory=dict)

    def page(self, wanted: Wanted, place: Place, top: int) -> tuple[list[Waiting], Place | None]:
        named = [wanted.entity] if wanted.entity else sorted(ENTITIES)
        entities = shelves.had(self.engine, self.tenant, wanted.uid, named)
        items, after = shelves.page(self.engine, self.tenant, KINDS, entities, place, uid=wanted.uid, top=top)
        found = list(dict.fromkeys((each.entity, each.record) for each in items))
        return self._waiting(found, wanted), after

    def _waiting(self, found: list[tuple[str, str]], wanted: Wanted) -> list[Waiting]:
        rows = self.engine.pool.map(
            lambda each: self.engine.records.get(self.tenant, each[0], each[1]), found, shelves.WIDTH
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
        resolving.resolve(self._editor(waiting), self._conflict(waiting), "retry")

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
        for editor in self._editors.values():
            editor.finish()

    def _conflict(self, waiting: Waiting) -> conflicts.Conflict:
        return conflicts.find(self.engine, self.tenant, waiting.id)

    def _editor(self, waiting: Waiting) -> QuietEditor:
        if waiting.entity not in self._editors:
            self._editors[waiting.entity] = QuietEditor(
                self.engine, self.tenant, ENTITIES[waiting.entity], self.by
            )
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
