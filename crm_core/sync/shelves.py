"""Where records wait for a person: the ranges of their open items, gone through a page at a time. Only ids; the records say
the rest.
"""

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from crm_core.errors import Misconfigured
from crm_core.model.connection import Tenant
from crm_core.storage import layout
from crm_core.sync.engine import Engine

Shelf = tuple[str, str, str]
"""Entity, bucket and kind: one range of open items."""
WIDTH = 4
AHEAD = 16
"""Queries that are made at once, though the first of them may fill the page."""


@dataclass(frozen=True)
class Item:
    """One open item: of this kind, at this connection of the record."""

    entity: str
    kind: str
    connection: str
    record: str


def page(
    engine: Engine,
    tenant: Tenant,
    kinds: Sequence[str],
    entities: Iterable[str],
    place: Mapping[str, Any],
    *,
    uid: str = "",
    top: int,
) -> tuple[list[Item], Mapping[str, Any] | None]:
    """At most `top` items of these kinds, of one connection if it is named, and the place after them, None at the end."""
    first = tuple(place.get("shelf", ()))
    shelves = [each for each in _shelves(entities, kinds) if each >= first]
    after: str = place["after"] if shelves and list(shelves[0]) == place.get("shelf") else ""
    found: list[Item] = []
    while shelves and len(found) < top:
        some = list(zip(shelves[:AHEAD], [after, *[""] * (AHEAD - 1)], strict=False))
        pages = engine.pool.map(
            lambda each: engine.records.open_page(tenant, *each[0], connection=uid, after=each[1], top=top),
            some,
            WIDTH,
        )
        for (shelf, began), (ids, rest) in zip(some, pages, strict=True):
            taken = ids[: top - len(found)]
            found += [Item(shelf[0], shelf[2], connection, record) for record, connection in taken]
            if len(taken) < len(ids):
                after = layout.open_item_rk(shelf[2], taken[-1][1], taken[-1][0]) if taken else began
                break
            after = rest
            if after:
                break
            shelves = shelves[1:]
    return found, {"shelf": list(shelves[0]), "after": after} if shelves else None


def _shelves(entities: Iterable[str], kinds: Sequence[str]) -> list[Shelf]:
    return sorted(
        (entity, bucket, kind) for entity in entities for bucket in layout.BUCKETS for kind in kinds
    )


def had(engine: Engine, tenant: Tenant, uid: str, named: Iterable[str]) -> list[str]:
    """Those of these entities that the connection has; with "" those that any has. The connection itself is asked, not the
    list of all of them: that may be a minute old, and who asks for many is served by whichever instance, once.
    """
    with suppress(Misconfigured):  # one that can't be opened has what waits all the same
        if uid and (opened := engine.open(tenant, uid)) is not None:
            return [each for each in named if each in opened.connection.entities]
    found = ((each, engine.sides(tenant, each)) for each in named)
    return [each for each, sides in found if sides and (not uid or uid in sides)]
