"""A connection as the merge sees it: which fields it reads and writes, how it stores them, what decides. No I/O."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from crm_core.connector import Connector, VersionKind
from crm_core.model.connection import Connection, Deletes, EntitySync, Policy
from crm_core.model.entities import Entity
from crm_core.model.fields import Field
from crm_core.model.filters import parse_filter
from crm_core.model.matching import Test, matcher
from crm_core.model.overrides import effective_or_declared
from crm_core.model.record import same_value
from crm_core.model.record_event import KINDS

INNER = frozenset({"deleted_at"})
"""Fields of the hub alone: no connection reads or writes them."""


@dataclass(frozen=True)
class Breaker:
    """A field that connections change there and back so often in so many seconds waits for a person."""

    flips: float = 4
    seconds: float = 600


@dataclass(frozen=True)
class Side:
    """One connection's part in one entity.

    `entity`: with the custom fields of its mapping. `reads`, `writes`: the fields that go either way. `passes`: its filter. `store`: the value that the remote holds,
    and gives back, once it has stored one. `mapping`: the version of its overrides; `since`: the one that last mapped a
    field otherwise, "*" for any. `etag_of`: what If-Match is usually given for a version. `needed`: the
    fields without which nothing is made there. `untold`: the fields that it writes and no answer of this system tells,
    whatever the direction. `delivers`: the kinds of events that it is told of; such a connection has no part in the merge
    but what it reads.
    """

    uid: str
    entity: Entity
    reads: frozenset[str]
    writes: frozenset[str]
    sync: EntitySync
    versions: VersionKind
    if_match: bool
    passes: Test | None
    store: Callable[[str, Any], Any]
    mapping: int = 0
    since: Mapping[str, int] = field(default_factory=dict)
    etag_of: Callable[[str], str] = str
    needed: frozenset[str] = frozenset()
    breaker: Breaker = Breaker()
    untold: frozenset[str] = frozenset()
    delivers: frozenset[str] = frozenset()

    @property
    def deletes(self) -> Deletes:
        return self.sync.deletes

    def policy(self, name: str) -> Policy:
        return self.sync.policies.get(name, self.sync.policy)

    def decided_by(self, policy: Policy) -> "Side":
        """The same with one policy for every field."""
        return replace(self, sync=replace(self.sync, policy=policy, policies={}))

    def maps(self, name: str) -> bool:
        return name in self.reads or name in self.writes

    def remapped(self, version: int) -> list[str]:
        """The fields that are mapped otherwise than by that version."""
        return [
            name
            for name in sorted(self.reads | self.writes)
            if max(self.since.get(name, 0), self.since.get("*", 0)) > version
        ]

    def is_kept_there(self, name: str) -> bool:
        """Whether each system keeps the field by itself: nobody writes it."""
        kind = self.entity.by_name.get(name)
        return kind is not None and kind.read_only

    def odd_etag(self, version: str, etag: str) -> str:
        """The ETag, if it can't be told from the version; else ""."""
        return etag if etag and etag != self.etag_of(version) else ""

    def canon(self, name: str, value: Any) -> Any:
        """What this remote would store for a value; what it can't store at all is compared as it is."""
        if value is None:
            return None
        try:
            return self.store(name, value)
        except ValueError:
            return value

    def same(self, name: str, left: Any, right: Any) -> bool:
        return same_value(self.entity.name, name, left, right)


Sides = Mapping[str, Side]
"""Every connection that has the entity, by uid."""


class Config(dict[str, Side]):
    """The sides of one entity as they were read at `read_at`, by the monotonic clock."""

    def __init__(self, sides: Sides, read_at: float) -> None:
        super().__init__(sides)
        self.read_at = read_at


def with_customs(entity: Entity, sides: Sides) -> Entity:
    """The entity with the custom fields of every connection; the choices of one are those of all."""
    found: dict[str, Field] = {}
    for side in sides.values():
        for each in side.entity.fields:
            if each.name not in entity.by_name:
                choices = (*(found[each.name].choices if each.name in found else ()), *each.choices)
                found[each.name] = replace(each, choices=tuple(dict.fromkeys(choices)))
    return replace(entity, fields=(*entity.fields, *found.values())) if found else entity


def side_of(connection: Connection, kind: type[Connector], entity: Entity, breaker: Breaker) -> Side:
    """The part of a connection in an entity that it has."""
    sync = connection.entities[entity.name]
    saved = connection.mappings.get(entity.name)
    emap = effective_or_declared(kind.entities[entity.name], saved)
    told, written = frozenset(emap.read_names) - INNER, frozenset(emap.written_names) - INNER
    delivers = frozenset(sync.events or KINDS) if kind.delivers_to and sync.pushes else frozenset[str]()
    if kind.delivers_to:
        written = frozenset()
    passes = matcher(parse_filter(sync.filter), emap.entity) if sync.filter else None
    return Side(
        connection.uid,
        emap.entity,
        told if sync.pulls else frozenset(),
        written if sync.pushes else frozenset(),
        sync,
        kind.versions,
        kind.if_match,
        passes,
        emap.canon,
        saved["version"] if saved else 0,
        saved.get("since", {}) if saved else {},
        kind.etag_of,
        emap.required | {each.name for each in emap.entity.fields if each.required},
        breaker,
        written - told if sync.pushes else frozenset(),
        delivers,
    )
