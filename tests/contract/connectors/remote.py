"""A server that connectors are tested against, as a connector's module in this folder describes it.

The suite knows no vendor: what it has to do at the vendor's side (a person's edit, a token that is void) it asks for
here, and what a server can't do it skips with the reason that is given here and listed in tests/expected_skips.txt.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import pytest

from crm_core.connector import Connector
from crm_core.hub import connector_class
from crm_core.model.fields import Type
from crm_core.model.mapping import EntityMap
from tests.contract.connectors.relay import Seen


@dataclass(frozen=True)
class Access:
    """What a connection needs: settings and secrets."""

    settings: Mapping[str, str]
    secrets: Mapping[str, str] = field(repr=False)


@dataclass(frozen=True)
class Variant:
    """One kind of record of an entity. `fixed`: the fields that say which, where the entity has several kinds."""

    system: str
    entity: str
    fixed: Mapping[str, str] = field(default_factory=dict)

    @property
    def map(self) -> EntityMap:
        return connector_class(self.system).entity_map(self.entity).of(self.fixed)

    @property
    def id(self) -> str:
        return "-".join((self.entity, *self.fixed.values()))


def variants(system: str) -> list[Variant]:
    """Every entity of a connector; one with a required choice once for each of its values."""
    found = []
    connector: type[Connector] = connector_class(system)
    for name, emap in connector.entities.items():
        kinds = [
            each.name
            for each in emap.entity.fields
            if each.type is Type.CHOICE and each.required and each.name in emap.by_field
        ]
        if kinds:
            (kind,) = kinds
            values = dict.fromkeys(emap.by_field[kind].names.values())
            found += [Variant(system, name, {kind: value}) for value in values]
        else:
            found.append(Variant(system, name))
    return found


class Remote(ABC):
    """One server. It is started once for all tests of a process."""

    system: ClassVar[str]
    """The connector's name."""
    name: ClassVar[str]
    lacks: ClassVar[Mapping[str, str]] = {}
    """What this server can't do -> why. The names are those that tests ask for by `able`."""
    texts: ClassVar[Mapping[str, str]] = {}
    """Texts that this server has to know already, such as a currency's code, by canonical field."""
    unreached: ClassVar[Mapping[str, frozenset[str]]] = {}
    """Statuses that no record of it is led to, by entity: a write of one is refused, whatever the connector declares."""
    feeds_only: ClassVar[bool] = False
    """It differs from another one in its feed of changes alone."""
    oracle: ClassVar[bool] = False
    """It is the vendor's own code, or on it, and needs a program that not every machine has."""

    missing: ClassVar[str] = "11111111-1111-4111-8111-111111111111"
    """An id that no record of it ever had."""

    links: ClassVar[bool] = True
    """Its answers hold addresses of its own, such as that of the next page."""

    request: pytest.FixtureRequest
    """For a server that a fixture starts."""
    origin: str
    """https://host:port (of some, http), known when it is started."""
    ca: Path | None = None
    """The certificates that it is trusted by; None: it is called by http."""

    @abstractmethod
    def start(self, folder: Path, stack: ExitStack) -> None:
        """Starts it, or skips what needs it; `stack` ends it. `folder`: for its files."""

    @abstractmethod
    def access(self, base: str) -> Access:
        """For a connection that calls `base`, which leads here."""

    @abstractmethod
    def person_creates(
        self, variant: Variant, fields: Mapping[str, Any], *, lag: float = 0.0, ago: float = 0.0
    ) -> str:
        """A person at the vendor makes a record of text fields.

        It bears the time of `ago` seconds before, and becomes visible after `lag` (both need "late").
        """

    @abstractmethod
    def person_updates(self, variant: Variant, rid: str, fields: Mapping[str, Any]) -> None:
        """A person at the vendor changes text fields."""

    @abstractmethod
    def person_deletes(self, variant: Variant, rid: str) -> None: ...

    def shared(self, entity: str, rid: str) -> None:  # noqa: B027 - most servers need nothing
        """A record that many will refer to was made: what keeps it from changing by that, and them by it."""

    @abstractmethod
    def revoke(self) -> None:
        """Every token is void."""

    def forbid(self) -> None:
        """The next call is refused because the hub's user lacks a privilege (needs "forbid")."""
        raise NotImplementedError

    def throttle(self, seconds: int) -> None:
        """The next call is refused because there were too many; come again after `seconds` (needs "throttle")."""
        raise NotImplementedError

    @abstractmethod
    def calm(self) -> None:
        """No fault waits any more."""

    def reads(self, request: Seen) -> bool:
        """Whether a request that came changes nothing."""
        return request.method in ("GET", "HEAD")

    def credentials(self, request: Seen) -> str:
        """The token or key that a request bore, without the word before it."""
        return request.headers.get("Authorization", "").rpartition(" ")[2]

    def advance(self, seconds: float) -> None:
        """The server's clock goes on (needs "late")."""
        raise NotImplementedError

    def natives(self, variant: Variant, fields: Mapping[str, Any]) -> dict[str, Any]:
        """Plain canonical fields as the vendor's own properties."""
        return variant.map.outward(fields)


def remotes_of(module: Any) -> Sequence[type[Remote]]:
    """What a module of this folder offers."""
    found: Sequence[type[Remote]] = module.REMOTES
    return found
