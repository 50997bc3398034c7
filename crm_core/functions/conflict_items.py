"""Conflicts as callers see them: in a list, and one with all that there is to know of it."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from crm_core.errors import HubError
from crm_core.functions.web import link
from crm_core.model.connection import Connection
from crm_core.model.entities import ENTITIES
from crm_core.model.record import HUB, Record

if TYPE_CHECKING:
    from crm_core.hub import Hub
    from crm_core.sync.conflicts import Conflict
    from crm_core.sync.explaining import Explained, Origin
    from crm_core.sync.resolving import Outcome
    from crm_core.sync.sides import Config

MAX_COUNTED = 1000
Names = Mapping[str, str]
"""Connection uid -> slug."""


def item_of(conflict: "Conflict", names: Names) -> dict[str, Any]:
    """As a list shows it."""
    from crm_core.sync.conflicts import REVIEWS, WAYS

    record = conflict.record
    review = conflict.kind in REVIEWS
    about = {name: value for name, value in conflict.about.items() if name not in ("record", "time")}
    return {
        "id": conflict.id,
        "kind": conflict.kind,
        "entity": record.entity,
        "record": record.id,
        "version": record.version,
        "etag": conflict.etag,
        "connection": names.get(conflict.connection, conflict.connection),
        "field": None if review else conflict.field or None,
        **about,
        **({"other": conflict.other.id if conflict.other else conflict.about["record"]} if review else {}),
        "time": conflict.time,
        "ways": list(WAYS[conflict.kind]),
        "links": links_of(conflict),
    }


def links_of(conflict: "Conflict") -> dict[str, str]:
    """Where there is more about it: a refused value and a push that gave up are a dead letter too, under the same id."""
    record = conflict.record
    path = f"/api/records/{ENTITIES[record.entity].path}"
    links = {"self": f"/api/conflicts/{conflict.id}", "record": f"{path}/{record.id}"}
    if conflict.kind in ("refused", "parked"):
        links["deadletter"] = f"/api/deadletters/{conflict.id}"
    if conflict.other is not None:
        links["other"] = f"{path}/{conflict.other.id}"
    return links


def waiting_of(record: Record, names: Names) -> list[dict[str, Any]]:
    """What of a record waits for a person, in short, with where to find it."""
    from crm_core.sync.conflicts import REVIEWS, of

    return [
        {
            "id": each.id,
            "kind": each.kind,
            "connection": names.get(each.connection, each.connection),
            "field": None if each.kind in REVIEWS else each.field or None,
            "links": links_of(each),
        }
        for each in of(record)
    ]


def waiting_at(hub: "Hub", connection: Connection, entity: str) -> dict[str, Any]:
    """How many records of an entity wait for a person at a connection, by what for, and where they are listed."""
    from crm_core.sync import shelves
    from crm_core.sync.conflicts import ITEMS

    kinds = sorted(set(ITEMS.values()))
    items, rest = shelves.page(
        hub.engine, connection.tenant, kinds, [entity], {}, uid=connection.uid, top=MAX_COUNTED
    )
    which = {"connection": connection.slug, "entity": ENTITIES[entity].path}
    return {
        **{kind: sum(each.kind == kind for each in items) for kind in kinds},
        "countIsLowerBound": rest is not None,
        "conflicts": link("", "/api/conflicts", which),
        "deadletters": link("", "/api/deadletters", which),
    }


def whole_item(explained: "Explained", config: "Config", names: Names) -> dict[str, Any]:
    """One, with who set each side's value and when, what other connections hold, and what each choice would do."""
    from crm_core.functions.history import held_item
    from crm_core.functions.records import item_of_record

    conflict, known = explained.conflict, dict(names)
    item = item_of(conflict, names)
    if explained.policy:
        item["policy"] = explained.policy
    if explained.ours is not None:
        item["ours_from"] = _origin(explained.ours, names)
    if explained.theirs is not None:
        remote_id = conflict.record.links[conflict.connection].rid
        item["theirs_from"] = {**_origin(explained.theirs, names), "remote_id": remote_id}
    if explained.held:
        item["connections"] = [
            {**held_item(each, names), "remote_id": conflict.record.links[each.connection].rid or None}
            for each in explained.held
        ]
    if explained.story:
        item["story"] = [
            {"old": each.old, "new": each.new, **_origin(each.origin, names)} for each in explained.story
        ]
    if conflict.other is not None:
        item["records"] = [item_of_record(each, known) for each in (conflict.record, conflict.other)]
        item["differs"] = _differs(conflict.record, conflict.other)
    item["choices"] = [_choice(conflict, way, explained, config, names) for way in item["ways"]]
    return item


def _origin(origin: "Origin", names: Names) -> dict[str, Any]:
    return {
        "from": origin.origin if origin.origin == HUB else names.get(origin.origin, origin.origin),
        "by": origin.by or None,
        "time": origin.time,
        "run": origin.run or None,
        "version": origin.version or None,
    }


def _differs(record: Record, other: Record) -> dict[str, Any]:
    from crm_core.sync.explaining import changes_of

    return {name: list(both) for name, both in changes_of(record, other).items()}


_DOES = {
    ("value", "ours"): "The hub's value stays, and is sent to {connection} if that is written there.",
    (
        "value",
        "theirs",
    ): "The value of {connection} becomes the hub's, and is sent to every other connection.",
    (
        "value",
        "value",
    ): "Another value, given as `value`, becomes the hub's, and is sent to every connection.",
    ("match", "separate"): "They are two: both records stay, each goes to every connection that wants it.",
    ("match", "link"): "They are one: the kept record gets what only the other one has, and its rows.",
    ("merge", "separate"): "The record stays as it is, without a row at {connection}.",
    ("merge", "link"): "The record becomes part of the one that it was merged into there.",
    ("refused", "retry"): "The same value is sent to {connection} again.",
    (
        "refused",
        "value",
    ): "Another value, given as `value`, becomes the hub's, and is sent to every connection.",
    ("parked", "retry"): "What {connection} lacks is sent there again.",
}


def _choice(
    conflict: "Conflict", way: str, explained: "Explained", config: "Config", names: Names
) -> dict[str, Any]:
    kind = "value" if conflict.kind == "flip" else conflict.kind
    slug = names.get(conflict.connection, conflict.connection)
    does = {"take": way, "does": _DOES[kind, way].format(connection=slug)}
    found = explained.choices.get(way)
    if isinstance(found, HubError):
        return {**does, "problem": {"code": found.code, "message": found.message}}
    return does if found is None else {**does, **outcome_item(found, config, names)}


def outcome_item(outcome: "Outcome", config: "Config", names: Names) -> dict[str, Any]:
    """What a decision changes here, what it sends where, and what it gives up."""
    from crm_core.sync.explaining import changes_of, pushes_of

    before, after = outcome.steps[0]
    sent = [push for step in outcome.steps for push in pushes_of(*step, config)]
    return {
        "record": after.id,
        "fields": {name: {"old": old, "new": new} for name, (old, new) in changes_of(before, after).items()},
        "pushes": [
            {
                "connection": names.get(each.connection, each.connection),
                "action": each.action,
                "record": each.record,
                "fields": {name: {"old": old, "new": new} for name, (old, new) in each.fields.items()},
            }
            for each in sent
        ],
        "gives_up": dict(outcome.losers),
    }
