"""Which record a remote row makes or leads to when it is first seen: match keys and redirects.

A key is claimed by an insert, so of two rows that are seen at once one makes the record and the other finds it, even
before it is there. A redirect is written before the record's link is (docs/sync.md).
Where a record gets another key, the next one is claimed, the record written, and only then the one before freed: it is the
record's own until then. Whoever dies in between leaves a claim of a record that has another key, and whoever needs that key
finds out and takes it.
"""

from collections.abc import Iterable, Sequence
from typing import Protocol

from crm_core.model.connection import Tenant
from crm_core.model.matchkeys import match_key
from crm_core.model.record import Record
from crm_core.storage import layout
from crm_core.storage.held import Claim
from crm_core.storage.keys import MatchClaim
from crm_core.storage.records import Stored
from crm_core.sync.engine import Engine
from crm_core.sync.merge import CLOCK_MARGIN, Snapshot, later
from crm_core.sync.sides import Side, Sides

LOOK_FIRST = "look"
"""No id: the row has to be read by itself before its claim may be moved."""
HOLD = "hold"
"""No id: the row may be what an open create of ours has made; only that can tell."""

MOVING = "moving"
"""No id: a record gets or gives up its key just now; once that is written the key tells."""


class Place(Protocol):
    """Who asks: the engine, and the part of the connection."""

    engine: Engine
    tenant: Tenant

    @property
    def side(self) -> Side: ...


def place(by: Place, own_id: str, tomb: Stored | None, snapshot: Snapshot, only: str = "") -> str:
    """The id of the record that a row leads to, `own_id` if it makes one; the redirect to any other is there then.

    `tomb`: what is at its own id. `only`: the record that it may lead to, "" for any; where that is another one by now
    MOVING, and nothing is written. LOOK_FIRST where only a point read can tell.
    """
    assert snapshot.change.fields is not None
    engine, tenant, side = by.engine, by.tenant, by.side
    entity, name = side.entity.name, side.sync.match
    key = match_key(name, snapshot.change.fields.get(name))
    if not key:
        return own_id
    makes = only in ("", own_id)
    if not makes and engine.keys.match_of(tenant, entity, key) is None:
        return MOVING
    holder = engine.keys.claim_match(tenant, entity, key, own_id)
    if holder == own_id:
        return own_id
    target, there = engine.records.follow(tenant, entity, holder)
    record = there.content if there else None
    if isinstance(record, Record) and match_key(name, record.fields.get(name)) != key:
        if not snapshot.point_read:
            return LOOK_FIRST
        if not makes:
            return MOVING
        engine.keys.move_match(tenant, entity, key, holder, own_id)
        return place(by, own_id, tomb, snapshot, only)
    if target == own_id:
        return own_id
    if only not in ("", target):
        return MOVING
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


def match_names(sides: Sides) -> list[str]:
    """The fields by which any connection matches the records of an entity."""
    return sorted({each.sync.match for each in sides.values() if each.sync.match})


def changed_keys(names: Iterable[str], before: Record, after: Record) -> list[tuple[str, str]]:
    """(match key before, match key after) of each of these fields whose key a write changes; "" for none."""
    keys = (
        (match_key(name, before.fields.get(name)), match_key(name, after.fields.get(name)))
        for name in names
        if before.fields.get(name) != after.fields.get(name)
    )
    return [(old, new) for old, new in keys if old != new]


def claim_next(
    engine: Engine, tenant: Tenant, names: Iterable[str], before: Record, after: Record
) -> list[MatchClaim]:
    """Before a record is written: claims the keys that it is about to have, of which whoever has one keeps it. Gives what
    it is about to give up, as `given_up`.
    """
    names = list(names)
    for _, new in changed_keys(names, before, after):
        if new:
            engine.keys.claim_match(tenant, after.entity, new, after.id)
    return given_up(engine, tenant, names, before, after)


def given_up(
    engine: Engine, tenant: Tenant, names: Iterable[str], before: Record, after: Record
) -> list[MatchClaim]:
    """The claims of keys that a record has no more once it is written, to be given to `free` then. Read before that: one
    that the record makes again later on is another one.
    """
    found = (
        engine.keys.match_claim(tenant, before.entity, old, before.id)
        for old, _ in changed_keys(names, before, after)
        if old
    )
    return [each for each in found if each is not None]


def free(engine: Engine, claims: Sequence[MatchClaim]) -> None:
    """After the record that had them was written."""
    for each in claims:
        engine.keys.free_match(each)
