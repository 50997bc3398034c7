"""One decision, as people read it and as it is known again: from a write, what it would do. Pure."""

from collections.abc import Mapping
from typing import Any

from crm_core.model.json_text import ordered_json
from crm_core.model.record import NOTHING, Link, Record, is_sendable, wants_push
from crm_core.storage.plans import Digest, digest
from crm_core.storage.records import RecordWrite
from crm_core.sync.merge import DELETED_AT
from crm_core.sync.saving import with_events
from crm_core.sync.sides import Side, Sides

ASSIGNED: Mapping[str, Any] = {"assigned": True}
"""A value that only the write can tell."""
EVENTS = {"created": "create", "updated": "update", "deleted": "delete"}

Decision = dict[str, Any]
"""`action`: create, update, link, delete, revive, conflict; of what a plan can't decide: `failed`, and `later` for what
follows from another decision. Connections by uid.
"""


def of_write(write: RecordWrite, side: Side, rid: str, sides: Sides) -> Decision | None:
    """What a write of the connection's row would do; None where people see no difference."""
    after = write.after
    if not isinstance(after, Record):
        return None
    before = write.before.content if write.before and isinstance(write.before.content, Record) else None
    fields = changed(before, after)
    conflicts = _conflicts(before, after, write, side)
    reviews = [each["kind"] for each in after.reviews if before is None or each not in before.reviews]
    pushes = _pushes(write, before, after, sides)
    action = _action(before, after, side.uid, fields, conflicts, reviews)
    if not (action or pushes):
        return None
    decision: Decision = {
        "record_id": after.id,
        "entity": after.entity,
        "connection": side.uid,
        "remote_id": rid or None,
        "action": action or "update",
        "fields": fields,
        "conflicts": conflicts,
        "pushes": pushes,
    }
    return {**decision, "reviews": reviews} if reviews else decision


def undecided(action: str, side: Side, record_id: str, rid: str, why: str) -> Decision:
    """What the plan can't tell of a row, and why."""
    return {
        "record_id": record_id or None,
        "entity": side.entity.name,
        "connection": side.uid,
        "remote_id": rid or None,
        "action": action,
        "fields": {},
        "conflicts": {},
        "pushes": [],
        "why": why,
    }


def mark(decision: Decision) -> Digest:
    """What a decision is known again by: the row that it is about, and all that it says."""
    said = ordered_json({name: each for name, each in decision.items() if name not in _BESIDE})
    return Digest(about(name_of(decision)), digest(said))


_BESIDE = ("id", "mark", "outcome", "why")
"""What a decision is called, and what became of it."""


def name_of(decision: Decision) -> str:
    """The row that it is about by its id at the connection or, where it has none, by its record's."""
    return str(decision["remote_id"] or decision["record_id"])


def about(name: str) -> int:
    return digest("about", name)


def place_of(decision: Decision) -> Digest:
    """What a decision of a plan is known again by, whatever it says."""
    return Digest(about(name_of(decision)), digest("place", str(decision["id"])))


def marked(decision: Decision, digest: Digest) -> Decision:
    """With its mark: what is read again of a plan may be written otherwise."""
    return {**decision, "mark": f"{digest.of:016x}{digest.says:016x}"}


def mark_of(decision: Decision) -> Digest | None:
    """Of one that was read from a plan; None of what a plan can't decide."""
    text = decision.get("mark", "")
    return Digest(int(text[:16], 16), int(text[16:], 16)) if text else None


def changed(before: Record | None, after: Record) -> dict[str, Any]:
    """{name: {old, new}} of the fields that differ."""
    old: Mapping[str, Any] = before.fields if before else NOTHING
    found = {}
    for name in sorted(old.keys() | after.fields.keys()):
        was, now = old.get(name), after.fields.get(name)
        if was != now:
            found[name] = {"old": was, "new": ASSIGNED if name == DELETED_AT and now is not None else now}
    return found


def _action(
    before: Record | None,
    after: Record,
    uid: str,
    fields: Mapping[str, Any],
    conflicts: Mapping[str, Any],
    reviews: list[str],
) -> str:
    if before is None:
        return "create"
    was, now = before.links.get(uid), after.links.get(uid)
    lived, lives = _is_live(was), _is_live(now)
    if lived and not lives:
        return "delete"
    if lives and not lived and was is not None and was.state == "gone" and was.rid:
        return "revive"
    if lives and (not lived or was is None or (now is not None and was.rid != now.rid)):
        return "link"
    asked = any(each["wins"] is None for each in conflicts.values()) or bool(reviews)
    if asked or (conflicts and not fields):
        return "conflict"
    return "update" if fields else ""


def _is_live(link: Link | None) -> bool:
    return link is not None and link.state == "live"


def _conflicts(before: Record | None, after: Record, write: RecordWrite, side: Side) -> dict[str, Any]:
    """Of the fields that both sides changed: those that a person is to decide, and those that the policy decided."""
    old = before.links.get(side.uid) if before else None
    now = after.links.get(side.uid)
    found: dict[str, Any] = {}
    for name, each in (now.conflict if now else NOTHING).items():
        if (
            old is None
            or old.conflict.get(name, NOTHING).get("theirs") != each["theirs"]
            or name not in old.conflict
        ):
            policy = "breaker" if each.get("flips") else side.policy(name)
            found[name] = {
                "ours": after.fields.get(name),
                "theirs": each["theirs"],
                "base": each["base"],
                "policy": policy,
                "wins": None,
            }
    for name, lost in (write.history.losers if write.history else NOTHING).items():
        ours = before.fields.get(name) if before else None
        taken = after.fields.get(name) != ours
        found[name] = {
            "ours": ours,
            "theirs": after.fields.get(name) if taken else lost,
            "base": old.held(name, ours) if old else None,
            "policy": side.policy(name),
            "wins": "theirs" if taken else "ours",
        }
    return found


def _pushes(write: RecordWrite, before: Record | None, after: Record, sides: Sides) -> list[dict[str, Any]]:
    """What other systems, and this one, would be told."""
    found = []
    for uid in sorted(after.links):
        told = push_of(after, uid, sides)
        if told is not None and (before is None or told != push_of(before, uid, sides)):
            found.append(told)
    for each in with_events([write], sides):
        if each.event is not None:
            action = EVENTS.get(each.event.kind, "update")
            found += [{"connection": uid, "action": action, "fields": {}} for uid in each.tells]
    return found


def push_of(record: Record, uid: str, sides: Sides) -> dict[str, Any] | None:
    """What a push would send of a record to a connection now; None for nothing."""
    link, side = record.links.get(uid), sides.get(uid)
    if link is None or side is None or not wants_push(record, link):
        return None
    if record.dead:
        return {"connection": uid, "action": "delete", "fields": {}}
    if link.state == "live":
        fields = {
            name: {"old": link.behind[name], "new": record.fields.get(name)}
            for name in sorted(link.behind)
            if name in side.writes and is_sendable(record, link, name)
        }
        return {"connection": uid, "action": "update", "fields": fields}
    fields = {
        name: {"old": None, "new": value}
        for name, value in sorted(record.fields.items())
        if name in side.writes and value is not None
    }
    return {"connection": uid, "action": "create", "fields": fields}
