"""References between records: as the hub keeps them, and as a remote system is told them.

A reference that comes in is the derived id of the row that it names, followed through redirects, whether that row is
here yet or not: nothing waits on the way in. One that goes out has to be at the remote already, or its field waits.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from crm_core.model.connection import Tenant
from crm_core.model.entities import Entity
from crm_core.model.record import UNKNOWN, Link, Record
from crm_core.storage.records import Stored
from crm_core.sync.draft import Draft
from crm_core.sync.engine import Engine
from crm_core.sync.sides import Sides

READ_WIDTH = 8

Ref = tuple[str, str]
"""(entity, record id)."""


@dataclass
class References:
    """For one batch or push of one entity."""

    engine: Engine
    tenant: Tenant
    entity: Entity
    _known: dict[Ref, str] = field(default_factory=dict)

    def resolved(self, fields: Iterable[Mapping[str, Any]]) -> None:
        """Reads where the references of these fields lead, as far as that is not known; `resolve` then tells."""
        wanted: dict[Ref, None] = {}

        def note(entity: str, record_id: str) -> str:
            if (entity, record_id) not in self._known and self._may_be_redirected(entity):
                wanted[entity, record_id] = None
            return record_id

        for each in fields:
            self.entity.with_references(each, note)
        for ref, target in zip(wanted, self._read(list(wanted)), strict=True):
            if target is not None:
                self._known[ref] = target

    def read(self, records: Iterable[Record], snapshots: Iterable[Mapping[str, Any] | None] = ()) -> None:
        """Reads where the references of records lead, those in what their links hold too, and those of snapshots."""
        self.resolved(
            [
                *(fields for record in records for fields in _all_fields(record)),
                *(fields for fields in snapshots if fields is not None),
            ]
        )

    def _may_be_redirected(self, entity: str) -> bool:
        """With one connection a row is where its derived id says."""
        sides = self.engine.sides(self.tenant, entity)
        return len(sides) > 1 or any(each.sync.match for each in sides.values())

    def _read(self, refs: list[Ref]) -> list[str | None]:
        """Where each leads; None for what is not there yet, which may still become a redirect."""

        def target(ref: Ref) -> str | None:
            stored = self._follow(*ref)
            return stored.id if stored is not None and isinstance(stored.content, Record) else None

        return self.engine.pool.map(target, refs, READ_WIDTH)

    def _follow(self, entity: str, record_id: str) -> Stored | None:
        return self.engine.records.follow(self.tenant, entity, record_id)[1]

    def resolve(self, fields: Mapping[str, Any]) -> Mapping[str, Any]:
        """Fields with each reference as the record that it leads to."""
        if not self._known:
            return fields
        return self.entity.with_references(
            fields, lambda entity, record_id: self._known.get((entity, record_id), record_id)
        )

    def of(self, record: Record) -> Record:
        """The record with every reference resolved, in what its links hold too; the same object if none is another."""
        if not self._known:
            return record
        links = {uid: self._of_link(link, record.fields) for uid, link in record.links.items()}
        resolved = replace(record, fields=self.resolve(record.fields), links=links)
        return record if resolved == record else resolved

    def settled(self, record: Record, sides: Sides) -> Record:
        """The record with every reference resolved; what is no difference any more is dropped."""
        resolved = self.of(record)
        if resolved is record:
            return record
        draft = Draft(resolved, sides)
        for uid in record.links:
            if uid in sides:
                draft.tidy(draft.link(uid), sides[uid])
        return draft.finished()

    def _of_link(self, link: Link, ours: Mapping[str, Any]) -> Link:
        if not (link.behind or link.echo or link.inflight or link.refused):
            return link

        def each(values: Mapping[str, Any]) -> dict[str, Any]:
            # A companion that is not among them is ours; what nobody knows leads nowhere.
            known = {name: value for name, value in values.items() if value != UNKNOWN}
            found = self.resolve({**ours, **known})
            return {name: found[name] if name in known else value for name, value in values.items()}

        lists = {
            name: [each({name: value})[name] for value in values] for name, values in link.inflight.items()
        }
        return replace(
            link,
            behind=each(link.behind),
            echo=each(link.echo),
            refused=each(link.refused),
            inflight=lists,
        )

    def outward(
        self, uid: str, fields: Mapping[str, Any], names: Iterable[str]
    ) -> tuple[dict[str, Any], dict[str, Ref]]:
        """(these fields with each reference as the connection's remote id, of the others the record that is not there).

        A reference to what the connection does not keep has no record to wait for: its `Ref` has an empty id.
        """
        found: dict[str, Any] = {}
        missing: dict[str, Ref] = {}
        for name in names:
            lacks: list[Ref] = []

            def there(entity: str, record_id: str, lacks: list[Ref] = lacks) -> str:
                rid = self._rid(uid, entity, record_id)
                if rid is None:
                    lacks.append((entity, record_id if self._keeps(uid, entity) else ""))
                return rid or ""

            # With everything beside it: a companion tells what a reference leads to.
            told = self.entity.with_references(
                {name: fields.get(name), **self._companions(fields, name)}, there
            )
            if lacks:
                missing[name] = lacks[0]
            else:
                found[name] = told[name]
        return found, missing

    def _companions(self, fields: Mapping[str, Any], name: str) -> dict[str, Any]:
        kind = self.entity.by_name.get(name)
        companion = kind.companion if kind is not None else ""
        return {companion: fields.get(companion)} if companion else {}

    def _keeps(self, uid: str, entity: str) -> bool:
        return uid in self.engine.sides(self.tenant, entity)

    def _rid(self, uid: str, entity: str, record_id: str) -> str | None:
        """The remote id of a record that lives at the connection."""
        stored = self._follow(entity, record_id)
        link = stored.content.links.get(uid) if stored and isinstance(stored.content, Record) else None
        return link.rid if link is not None and link.state == "live" else None


def _all_fields(record: Record) -> Iterator[Mapping[str, Any]]:
    yield record.fields
    for link in record.links.values():
        for held in (link.behind, link.echo, link.refused):
            if held:
                yield {**record.fields, **{name: each for name, each in held.items() if each != UNKNOWN}}
        for name, values in link.inflight.items():
            for value in values:
                yield {**record.fields, name: value}
