"""What waits for a person: conflicts of values, matches and merges to decide, refused values, links that gave up.

All of it stands in the records; the open items only say where. How one is decided: `resolving.py`.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from crm_core.errors import BadRequest, NotFound
from crm_core.model.connection import Tenant
from crm_core.model.entities import ENTITIES
from crm_core.model.fields import hub_time, parse_instant
from crm_core.model.filters import parse_filter
from crm_core.model.matching import check_name, matcher
from crm_core.model.record import Link, Record, digest
from crm_core.storage import layout
from crm_core.sync import shelves
from crm_core.sync.engine import Engine
from crm_core.sync.sides import with_customs

ITEMS = {
    "value": "conflict",
    "flip": "conflict",
    "match": "review",
    "merge": "review",
    "refused": "refused",
    "parked": "parked",
}
"""Each kind with that of its open item."""
KINDS = tuple(ITEMS)
VALUES = ("value", "flip")
"""Two values of a field, of which one is to be."""
REVIEWS = ("match", "merge")
"""Two records, of which a person says whether they are one."""
WAYS: Mapping[str, tuple[str, ...]] = {
    "value": ("ours", "theirs", "value"),
    "flip": ("ours", "theirs", "value"),
    "match": ("separate", "link"),
    "merge": ("separate", "link"),
    "refused": ("retry", "value"),
    "parked": ("retry",),
}


@dataclass(frozen=True)
class Conflict:
    """One thing that a person has to decide. `field`: of a conflict of values, or a refused one; of a review the
    other record's id. `about`: what is known. `other`: of a review, the other record, None if it is gone, or was not read.
    """

    kind: str
    connection: str
    record: Record
    field: str
    about: Mapping[str, Any]
    other: Record | None = None

    @property
    def id(self) -> str:
        return f"{self.record.entity}~{self.record.id}~{self.connection}~{self.kind}~{self.field}"

    @property
    def etag(self) -> str:
        """Another one as soon as the values that a person decides between are other than they were seen."""
        told = {name: value for name, value in self.about.items() if name != "flips"}
        if self.kind in REVIEWS:
            records = [[each.id, each.fields] for each in (self.record, self.other) if each]
            return f'"{digest([told["record"], records])}"'
        return f'"{digest([self.kind, self.record.fields.get(self.field), told])}"'

    @property
    def time(self) -> str:
        """When it came to wait, as far as that is known."""
        link = self.record.links.get(self.connection)
        if self.kind == "match" or link is None:
            return self.record.created["time"]
        return str(link.seen if self.kind == "merge" else self.about.get("time") or link.seen)

    @property
    def settled(self) -> str:
        """Hub time since when nothing has changed that a person decides on: rather too late than too early."""
        if self.kind in REVIEWS:
            return max(_last_change(each) for each in (self.record, self.other) if each)
        stamp, links = self.record.stamp_of(self.field), self.record.links
        seen = (links[uid].seen for uid in (self.connection, stamp.origin) if uid in links)
        # A stamp of a connection may be of now too: a person has decided for what it holds.
        return max([_in_full(stamp.time), *seen])


def _last_change(record: Record) -> str:
    stamps = [record.stamp, *record.stamps.values()]
    seen = (each.seen for each in record.links.values())
    return max([record.created["time"], *(_in_full(each.time) for each in stamps), *seen])


def _in_full(moment: str) -> str:
    """A time as the hub writes it: a remote's is as short as that tells it."""
    return hub_time(parse_instant(moment)) if moment else ""


def of(record: Record) -> Iterator[Conflict]:
    """Everything of a record that waits for a person."""
    for uid, link in record.links.items():
        for name, asked in link.conflict.items():
            kind = "flip" if "flips" in asked else "value"
            yield Conflict(kind, uid, record, name, {**asked, "ours": record.fields.get(name)})
        for name in link.asks:
            yield Conflict("refused", uid, record, name, {"ours": link.refused[name], **_why(link, name)})
        if link.gave_up:
            yield Conflict("parked", uid, record, "", _said(link.parked))
    for each in record.reviews:
        if not each.get("decided"):
            yield Conflict(
                each["kind"], each["connection"], record, each["record"], {"record": each["record"]}
            )


def _why(link: Link, name: str) -> dict[str, Any]:
    return {"theirs": link.behind.get(name), **_said(link.why.get(name, {}))}


def _said(told: Mapping[str, Any]) -> dict[str, Any]:
    """What a remote said of what it refuses: its code, its words, when, and the fields that it named."""
    said = {"code": told.get("cause", ""), "message": told.get("message", ""), "time": told.get("time", "")}
    return {**said, "fields": list(told["fields"])} if told.get("fields") else said


@dataclass(frozen=True)
class Sought:
    """Which of them: of these kinds (any without), of an entity, a connection, a field, waiting since a time or later, of
    records that pass a test.
    """

    kinds: Sequence[str] = ()
    entity: str = ""
    connection: str = ""
    field: str = ""
    since: str = ""
    test: Callable[[Record], bool] | None = None

    def has(self, conflict: Conflict) -> bool:
        has_field = conflict.kind not in REVIEWS and conflict.field == self.field
        return (
            conflict.kind in (self.kinds or KINDS)
            and self.connection in ("", conflict.connection)
            and (not self.field or has_field)
            and self.since <= conflict.time
            and (self.test is None or self.test(conflict.record))
        )


def sought(engine: Engine, tenant: Tenant, filter_text: str = "", **which: Any) -> Sought:
    """As `Sought`, with a filter (OData) of the record's fields. Raises BadRequest for names that the entity does not have."""
    name = which.get("entity", "")
    if not name:
        if filter_text:
            raise BadRequest.field("filter", "filter: goes with entity, whose fields it names.")
        return Sought(**which)
    entity = with_customs(ENTITIES[name], engine.sides(tenant, name))
    if which.get("field"):
        check_name(which["field"], entity, "field")
    return Sought(**which, test=matcher(parse_filter(filter_text), entity) if filter_text else None)


def page(
    engine: Engine, tenant: Tenant, wanted: Sought, place: Mapping[str, Any], *, top: int
) -> tuple[list[Conflict], Mapping[str, Any] | None]:
    """What waits, and the place after it (None at the end). At most `top` open items are looked at, of which one may stand
    for several conflicts of a record, or for none that is sought.
    """
    kinds = sorted({ITEMS[kind] for kind in wanted.kinds or KINDS})
    named = [wanted.entity] if wanted.entity else ENTITIES
    entities = shelves.had(engine, tenant, wanted.connection, named)
    items, after = shelves.page(engine, tenant, kinds, entities, place, uid=wanted.connection, top=top)
    rows = engine.pool.map(
        lambda item: engine.records.get(tenant, item.entity, item.record), items, shelves.WIDTH
    )
    found = [
        each
        for item, row in zip(items, rows, strict=True)
        if row is not None and isinstance(row.content, Record)
        for each in of(row.content)
        if (ITEMS[each.kind], each.connection) == (item.kind, item.connection) and wanted.has(each)
    ]
    return with_others(engine, tenant, found), after


def with_others(engine: Engine, tenant: Tenant, found: Iterable[Conflict]) -> list[Conflict]:
    """The same, reviews with the other record."""

    def whole(each: Conflict) -> Conflict:
        if each.kind not in REVIEWS:
            return each
        return replace(each, other=engine.records.find(tenant, each.record.entity, each.about["record"]))

    return engine.pool.map(whole, list(found), shelves.WIDTH)


def find(engine: Engine, tenant: Tenant, conflict_id: str) -> Conflict:
    """Raises NotFound for one that is none any more."""
    parts = conflict_id.split("~")
    if len(parts) == 5 and parts[0] in ENTITIES and layout.is_record_id(parts[1]):
        record = engine.records.find(tenant, parts[0], parts[1])
        for each in of(record) if record is not None else ():
            if each.id.split("~")[2:] == parts[2:]:
                return with_others(engine, tenant, [each])[0]
    raise NotFound(f"There is no open conflict '{conflict_id}'; it may have been decided.")
