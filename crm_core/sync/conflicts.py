"""What waits for a person: conflicts of values, matches and merges to decide, refused values, links that gave up.

All of it stands in the records; the open items only say where.
"""

from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

from crm_core.errors import BadRequest, NotFound
from crm_core.model.connection import Tenant
from crm_core.model.entities import ENTITIES
from crm_core.model.fields import hub_time
from crm_core.model.record import HUB, Link, Record
from crm_core.storage import layout
from crm_core.sync.draft import Draft
from crm_core.sync.edit import Editor
from crm_core.sync.engine import Engine
from crm_core.sync.sides import Config

KINDS = ("value", "match", "merge", "refused", "parked")
_ITEMS = {"value": "conflict", "match": "review", "merge": "review", "refused": "refused", "parked": "parked"}
WAYS: Mapping[str, tuple[str, ...]] = {
    "value": ("ours", "theirs", "value"),
    "match": ("separate", "link"),
    "merge": ("keep", "link"),
    "refused": ("retry",),
    "parked": ("retry",),
}
MAX_LOOKED = 64
"""Buckets that one page looks into at most."""


@dataclass(frozen=True)
class Conflict:
    """One thing that a person has to decide. `field`: of a conflict of values, or a refused one. `about`: what is known."""

    kind: str
    connection: str
    record: Record
    field: str
    about: Mapping[str, Any]

    @property
    def id(self) -> str:
        return f"{self.record.entity}~{self.record.id}~{self.connection}~{self.kind}~{self.field}"


def of(record: Record) -> Iterator[Conflict]:
    """Everything of a record that waits for a person."""
    for uid, link in record.links.items():
        for name, asked in link.conflict.items():
            yield Conflict("value", uid, record, name, {**asked, "ours": record.fields.get(name)})
        for name in link.asks:
            yield Conflict("refused", uid, record, name, {"ours": link.refused[name], **_why(link, name)})
        if link.gave_up:
            yield Conflict("parked", uid, record, "", link.parked)
    for number, each in enumerate(record.reviews):
        if not each.get("decided"):
            yield Conflict(each["kind"], each["connection"], record, str(number), {"record": each["record"]})


def _why(link: Link, name: str) -> dict[str, Any]:
    told = link.why.get(name, {})
    return {"theirs": dict(link.behind), "cause": told.get("message", ""), "time": told.get("time", "")}


def page(
    engine: Engine,
    tenant: Tenant,
    place: Mapping[str, Any],
    *,
    top: int,
    entity: str = "",
    connection: str = "",
    kind: str = "",
) -> tuple[list[Conflict], Mapping[str, Any] | None]:
    """What waits, at least `top` if there is so much, and the place after it (None at the end).

    A page ends with a bucket, so that it can hold more.
    """
    places = [(name, bucket) for name in ([entity] if entity else ENTITIES) for bucket in layout.BUCKETS]
    found: list[Conflict] = []
    number: int = place.get("number", 0)
    looked = 0
    while number < len(places) and len(found) < top and looked < MAX_LOOKED:
        name, bucket = places[number]
        for record_id in _waiting(engine, tenant, name, bucket, connection, kind):
            stored = engine.records.get(tenant, name, record_id)
            if stored is not None and isinstance(stored.content, Record):
                found += [
                    each
                    for each in of(stored.content)
                    if kind in ("", each.kind) and connection in ("", each.connection)
                ]
        number += 1
        looked += 1
    return found, {"number": number} if number < len(places) else None


def _waiting(
    engine: Engine, tenant: Tenant, entity: str, bucket: str, connection: str, kind: str
) -> list[str]:
    """The records of a bucket with an open item for a person."""
    wanted = {_ITEMS[kind]} if kind else set(_ITEMS.values())
    items = engine.records.open_items(tenant, entity, bucket)
    return list(
        dict.fromkeys(
            record_id for item, uid, record_id in items if item in wanted and connection in ("", uid)
        )
    )


def find(engine: Engine, tenant: Tenant, conflict_id: str) -> Conflict:
    """Raises NotFound for one that is none any more."""
    parts = conflict_id.split("~")
    if len(parts) == 5 and parts[0] in ENTITIES:
        record = engine.records.find(tenant, parts[0], parts[1])
        for each in of(record) if record is not None else ():
            if each.id.split("~")[2:] == parts[2:]:
                return each
    raise NotFound(f"There is no open conflict '{conflict_id}'; it may have been decided.")


def resolve(editor: Editor, conflict: Conflict, take: str, value: Any = None) -> Record:
    """Decides one; gives the record. Raises BadRequest for what is no way to decide it."""
    if take not in WAYS[conflict.kind]:
        ways = ", ".join(WAYS[conflict.kind])
        raise BadRequest.field("take", f"take: a conflict of kind {conflict.kind} is decided by {ways}.")
    if take == "link":
        return editor.unite(*_in_order(editor, conflict))
    now = hub_time(editor.engine.clock.now())

    def decided(record: Record, config: Config) -> Record:
        if not any(each.id == replace(conflict, record=record).id for each in of(record)):
            raise NotFound(f"The conflict '{conflict.id}' was decided just now.")
        draft = Draft(record, config)
        link = draft.link(conflict.connection)
        name = conflict.field
        if conflict.kind == "value":
            asked = link.conflict.pop(name)
            draft.flips.pop(name, None)
            if take == "theirs":
                link.drop(name)
                draft.set_value(name, asked["theirs"], conflict.connection, now)
            elif take == "value":
                draft.set_value(name, value, HUB, now)
            draft.losers[name] = record.fields.get(name) if take == "theirs" else asked["theirs"]
        elif conflict.kind == "refused":
            del link.refused[name]
            link.unpark()
        elif conflict.kind == "parked":
            link.unpark()
        else:
            review = draft.reviews[int(name)]
            draft.reviews[int(name)] = {**review, "decided": take}
        return draft.finished()

    after = editor.change(conflict.record.id, decided)
    if take == "separate":
        _answer_the_other(editor, conflict)
    return after


def _in_order(editor: Editor, conflict: Conflict) -> tuple[str, str]:
    """The record that becomes another one, and that one. Where both ask, the one that was there first stays."""
    record = conflict.record
    other = editor.engine.records.find(editor.tenant, record.entity, conflict.about["record"])
    if (
        other is not None
        and any(each["record"] == record.id and not each.get("decided") for each in other.reviews)
        and record.created["time"] < other.created["time"]
    ):
        return other.id, record.id
    return record.id, conflict.about["record"]


def _answer_the_other(editor: Editor, conflict: Conflict) -> None:
    """Where both records ask whether they are one, a person says it once."""

    def asks(each: Mapping[str, Any]) -> bool:
        about = each["kind"], each["connection"], each["record"]
        return about == ("match", conflict.connection, conflict.record.id) and not each.get("decided")

    def answered(record: Record, config: Config) -> Record:
        draft = Draft(record, config)
        draft.reviews = [{**each, "decided": "separate"} if asks(each) else each for each in draft.reviews]
        return draft.finished()

    tenant, entity = editor.tenant, conflict.record.entity
    other = editor.engine.records.find(tenant, entity, conflict.about["record"])
    if other is not None and any(map(asks, other.reviews)):
        with suppress(NotFound):  # it is dead by now
            editor.change(other.id, answered)
