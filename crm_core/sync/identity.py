"""Which record a remote row makes or leads to when it is first seen: match keys and redirects.

A key is claimed by an insert, so of two rows that are seen at once one makes the record and the other finds it, even
before it is there. A redirect is written before the record's link is (docs/sync.md).
"""

from collections.abc import Iterable
from typing import Protocol

from crm_core.model.connection import Tenant
from crm_core.model.matchkeys import match_key
from crm_core.model.record import Record
from crm_core.storage import layout
from crm_core.storage.held import Claim
from crm_core.storage.records import Stored
from crm_core.sync.engine import Engine
from crm_core.sync.merge import CLOCK_MARGIN, Snapshot, later
from crm_core.sync.sides import Side

LOOK_FIRST = "look"
"""No id: the row has to be read by itself before its claim may be moved."""
HOLD = "hold"
"""No id: the row may be what an open create of ours has made; only that can tell."""


class Place(Protocol):
    """Who asks: the engine, and the part of the connection."""

    engine: Engine
    tenant: Tenant

    @property
    def side(self) -> Side: ...


def place(by: Place, own_id: str, tomb: Stored | None, snapshot: Snapshot) -> str:
    """The id of the record that a row leads to, `own_id` if it makes one; the redirect to any other is there then.

    `tomb`: what is at its own id. LOOK_FIRST where only a point read can tell.
    """
    assert snapshot.change.fields is not None
    engine, tenant, side = by.engine, by.tenant, by.side
    entity, name = side.entity.name, side.sync.match
    key = match_key(name, snapshot.change.fields.get(name))
    if not key:
        return own_id
    holder = engine.keys.claim_match(tenant, entity, key, own_id)
    if holder == own_id:
        return own_id
    target, there = engine.records.follow(tenant, entity, holder)
    record = there.content if there else None
    if isinstance(record, Record) and match_key(name, record.fields.get(name)) != key:
        if not snapshot.point_read:
            return LOOK_FIRST
        engine.keys.move_match(tenant, entity, key, holder, own_id)
        return place(by, own_id, tomb, snapshot)
    if target == own_id:
        return own_id
    return engine.records.redirect(tenant, entity, own_id, target, tomb)


def is_being_made(by: Place, marker: str) -> bool:
    """Whether a row's marker is that of a create whose outcome the hub does not know yet."""
    record_id, _, gen = marker.rpartition(".")
    if not layout.is_record_id(record_id):
        return False  # whatever somebody else wrote there
    stored = by.engine.records.get(by.tenant, by.side.entity.name, record_id)
    record = stored.content if stored else None
    link = record.links.get(by.side.uid) if isinstance(record, Record) else None
    return link is not None and link.state == "creating" and str(link.gen) == gen


def may_have_made(claims: Iterable[Claim], seen: str) -> bool:
    """Whether one of these creates may have made a row that was seen at this hub time: it was sent before."""
    return any(claim.time <= later(seen, CLOCK_MARGIN.total_seconds()) for claim in claims)


def claim_next(engine: Engine, tenant: Tenant, name: str, before: Record, after: Record) -> None:
    """Claims the key that a record is about to have and frees the one it had; whoever has the next key keeps it."""
    old, new = match_key(name, before.fields.get(name)), match_key(name, after.fields.get(name))
    if new == old:
        return
    if new:
        engine.keys.claim_match(tenant, after.entity, new, after.id)
    if old:
        engine.keys.drop_match(tenant, after.entity, old, after.id)
