"""One remote with a connection to it, and the records that tests are made of: all from what the connector declares."""

import itertools
import json
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

from crm_core.connector import Account, Change, Connector, Tools, Transport, Write
from crm_core.hub import connector_class
from crm_core.model.field_map import FieldMap
from crm_core.model.fields import Field, Type
from crm_core.model.mapping import EntityMap
from crm_core.ports import Clock
from crm_core.protocols.guard import Guard
from crm_core.protocols.http import Http
from crm_core.storage.memory import MemoryTable
from crm_core.storage.secrets import Cipher, StoredTokens
from crm_core.system import SystemClock, SystemIds, ThreadPool
from tests.contract.connectors.remote import Access, Remote, Variant, variants

SMALL: Mapping[Type, Any] = {
    Type.INTEGER: 42,
    Type.DECIMAL: "2.5",
    Type.MONEY: "1250.5",
    Type.BOOLEAN: True,
    Type.DATE: "2026-02-28",
}
APART = frozenset({"status", "lines"})
"""Fields with tests of their own."""
_numbers = itertools.count(1)


class SkippingClock(SystemClock):
    """Real time, but sleeping takes none: it is as late afterwards as if it had."""

    def __init__(self) -> None:
        self.slept = 0.0

    def monotonic(self) -> float:
        return super().monotonic() + self.slept

    def sleep(self, seconds: float) -> None:
        self.slept += seconds


def unique(text: str) -> str:
    """A text that no other record has."""
    return f"{text} {next(_numbers):06d}"


def needed(emap: EntityMap) -> list[str]:
    """The fields that a create can't be without."""
    return [
        each.name
        for each in emap.entity.fields
        if (each.required or each.name in emap.required) and each.name in emap.by_field
    ]


def writable(emap: EntityMap) -> dict[str, tuple[Field, FieldMap]]:
    """What a record can be given and tells again, apart from what has tests of its own."""
    known = emap.entity.by_name
    return {
        name: (known[name], each)
        for name, each in emap.by_field.items()
        if each.writable and each.readable and not known[name].read_only and name not in APART
    }


def free_text(emap: EntityMap, texts: Mapping[str, str]) -> list[str]:
    """The fields that hold any text, required ones first."""
    names = [
        name
        for name, (kind, each) in writable(emap).items()
        if kind.type is Type.TEXT and not each.names and name not in texts
    ]
    return sorted(names, key=lambda name: name not in needed(emap))


@dataclass
class World:
    """`access`: what the connection has; another one can be opened beside it."""

    remote: Remote
    access: Access
    ca_bundle: str
    stack: ExitStack
    connector: Connector = field(init=False)
    pool: ThreadPool = field(default_factory=ThreadPool)
    _shared: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.stack.callback(self.pool.close)
        self.connector = self.open()

    def open(
        self,
        access: Access | None = None,
        *,
        clock: Clock | None = None,
        deadline: float = 100.0,
        maps: Mapping[str, Mapping[str, Any]] | None = None,
        through: Callable[[Transport], Transport] = lambda transport: transport,
    ) -> Connector:
        """A connection as the hub opens it, with its own transport and no token yet; `maps`: its overrides.

        `through`: what stands between the connection and its transport.
        """
        used, clock = access or self.access, clock or SystemClock()
        transport = Http(Guard(allow_loopback=True, allow_private=False), clock, ca_bundle=self.ca_bundle)
        self.stack.callback(transport.close)
        tokens = StoredTokens(MemoryTable(), Cipher(bytes(32)))
        tools = Tools(through(transport), tokens, clock, SystemIds(), True, self.ca_bundle, deadline)
        account = Account("default", SystemIds().uuid(), used.settings, used.secrets, maps=maps or {})
        return connector_class(self.remote.system)(account, tools)

    # --- values --------------------------------------------------------------------------------------------------

    def shared(self, entity: str) -> str:
        """The id of a record to refer to, which no test changes."""
        if entity not in self._shared:
            variant = self.variant(entity)
            rid = self.connector.create(entity, Write(self.least(variant))).rid
            self.remote.shared(entity, rid)
            self._shared[entity] = rid
        return self._shared[entity]

    def variant(self, entity: str) -> Variant:
        return next(each for each in variants(self.remote.system) if each.entity == entity)

    def value(self, emap: EntityMap, name: str) -> dict[str, Any]:
        """A field with a good value; of a reference also what it leads to."""
        kind, each = emap.entity.by_name[name], emap.by_field[name]
        if name in self.remote.texts:
            return {name: self.remote.texts[name]}
        if each.names:
            return {name: next(iter(each.names.values()))}
        if each.targets:
            target = each.targets[0].entity
            more = {kind.companion: target} if kind.companion else {}
            return {name: self.shared(target), **more}
        if kind.type is Type.TEXT:
            return {name: unique(name)[-(each.length or 60) :]}
        if kind.type is Type.INSTANT:
            order = [one.name for one in emap.entity.fields if one.type is Type.INSTANT]
            return {name: f"2026-02-28T13:{order.index(name):02d}:10Z"}
        return {name: SMALL[kind.type]}

    def least(self, variant: Variant) -> dict[str, Any]:
        """What a create can't be without."""
        values = [self.value(variant.map, name) for name in needed(variant.map)]
        return {**{name: value for each in values for name, value in each.items()}, **variant.fixed}

    def full(self, variant: Variant) -> dict[str, Any]:
        """A value for every field that can be written; of several that set one property, for the first."""
        names = {
            each.targets[0].write if each.targets else name: name
            for name, (_, each) in reversed(writable(variant.map).items())
        }
        values = [self.value(variant.map, name) for name in names.values()]
        given = {name: value for each in values for name, value in each.items()}
        return {**self.least(variant), **given, **variant.fixed}

    def make(self, variant: Variant, **more: Any) -> Change:
        return self.connector.create(variant.entity, Write({**self.least(variant), **more}))

    def text(self, variant: Variant) -> str:
        """A field that holds any text."""
        return free_text(variant.map, self.remote.texts)[0]

    def feed(self, variant: Variant, cursor: Any = None, size: int = 50) -> tuple[list[Change], Any]:
        """Every change after a cursor, and the cursor after them, which is kept as JSON in between."""
        found: list[Change] = []
        while True:
            page = self.connector.changes(variant.entity, cursor, size=size)
            found += page.changes
            cursor = json.loads(json.dumps(page.cursor))
            if not page.more:
                return found, cursor


def differing(
    emap: EntityMap,
    expected: Mapping[str, Any],
    found: Mapping[str, Any] | None,
    change: Callable[[str, Any], Any] = lambda _, value: value,
) -> dict[str, tuple[Any, Any]]:
    """The fields whose values are not the same: name -> (expected, found)."""
    known = emap.entity.by_name
    assert found is not None
    return {
        name: (change(name, value), found.get(name))
        for name, value in expected.items()
        if not known[name].same(change(name, value), found.get(name))
    }


def canon(emap: EntityMap, name: str, value: Any) -> Any:
    """What the remote says that it stores of a value."""
    each = emap.by_field.get(name)
    return each.canon(emap.entity.by_name[name], value) if each is not None else value
