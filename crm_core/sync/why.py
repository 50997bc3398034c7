"""Why a field has its value: where that came from, what it replaced, what decided, and what each connection holds. Pure.

Told from the record's row, its links and its history, and only as far as these know: a step that is lost is named, not
guessed.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from crm_core.model.record import UNKNOWN, Link, Record, is_sendable, same_value
from crm_core.storage.records import HistoryEntry
from crm_core.sync.past import missing
from crm_core.sync.sides import Side, Sides

Holding = Literal["same", "waits", "differs", "refused", "conflict", "absent", "not mapped"]
"""`same`: it holds ours. `waits`: ours is to be sent, or on its way. `differs`: it holds another value, and nothing is to be
sent: it keeps ours in its own form, or is not written. `absent`: it does not have the record.
"""


@dataclass(frozen=True)
class Held:
    """What one connection holds of a field. `known`: whether `holds` is what it held last. `may_hold`: values of ours that
    are there already, or may still arrive. `about`: what else is noted of it, by name.
    """

    connection: str
    state: Holding
    known: bool
    holds: Any = None
    may_hold: tuple[Any, ...] = ()
    about: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class Decided:
    """A conflict about the field that was decided: at which version, by which policy (or `person`), what won, what lost."""

    version: int
    time: str
    run: str
    policy: str
    won: Any
    lost: Any
    origin: str
    by: str


@dataclass(frozen=True)
class Why:
    """`is_set`: whether it ever had a value, as far as is known. `since`: when the value was set, by the clock of where it
    came from; `told`: when the hub learned of it; `origin`: a connection's uid or the hub; `version`: of the record, None
    where that is not known; `replaced` goes with `version`. `lost`: versions of which nothing is known any more, that might
    say more.
    """

    value: Any
    is_set: bool
    since: str = ""
    told: str = ""
    origin: str = ""
    by: str = ""
    run: str = ""
    version: int | None = None
    replaced: Any = None
    decided: Decided | None = None
    held: tuple[Held, ...] = ()
    lost: tuple[int, ...] = ()


def why(record: Record, steps: Sequence[HistoryEntry], name: str, sides: Sides) -> Why:
    """Of one field. `steps`: the record's history, oldest first."""
    value = record.fields.get(name)
    held = tuple(held_at(record, name, uid, sides) for uid in {**sides, **record.links})
    changed = next((step for step in reversed(steps) if name in step.old), None)
    since = changed.version if changed else 1
    lost = tuple(missing(record, steps, since))
    decided = _decided(record, steps, name)
    if decided is not None and lost and lost[-1] > decided.version:
        decided = None  # what is lost may have changed the field again
    stamp = record.stamp_of(name)
    if changed is None and value is None and name not in record.stamps:
        return Why(None, False, decided=decided, held=held, lost=lost)
    found = Why(value, True, stamp.time, origin=stamp.origin, decided=decided, held=held, lost=lost)
    if lost:
        return found
    if changed is None:
        made = record.created
        return _of(found, made["time"], made.get("by", ""), made["run"], 1, None)
    return _of(found, changed.time, changed.by, changed.run, changed.version, changed.old[name])


def _of(found: Why, told: str, by: str, run: str, version: int, replaced: Any) -> Why:
    known = {**vars(found), "told": told, "by": by, "run": run, "version": version, "replaced": replaced}
    return Why(**known)


def _decided(record: Record, steps: Sequence[HistoryEntry], name: str) -> Decided | None:
    """The newest conflict about the field, if nothing has changed the field since."""
    for step in reversed(steps):
        if name in step.losers:
            policy = step.policies.get(name, "")
            return Decided(
                step.version, step.time, step.run, policy, record.fields.get(name), step.losers[name],
                step.origin, step.by,
            )  # fmt: skip
        if name in step.old:
            return None
    return None


def held_at(record: Record, name: str, uid: str, sides: Sides) -> Held:
    """What one connection holds of a field."""
    side, link = sides.get(uid), record.links.get(uid)
    if side is None or not side.maps(name):
        return Held(uid, "not mapped", known=False)
    if link is None or link.state == "gone":
        return Held(uid, "absent", known=False)
    if link.state != "live":
        waits: Holding = "waits" if link.wants and not link.parked else "absent"
        return Held(uid, waits, False, may_hold=tuple(link.inflight.get(name, ())), about=_parked(link))
    ours = record.fields.get(name)
    holds = link.held(name, ours)
    known = holds != UNKNOWN
    state, about = _state(record, name, side, link)
    return Held(
        uid, state, known, holds if known else None, tuple(link.inflight.get(name, ())), about
    )  # fmt: skip


def _state(record: Record, name: str, side: Side, link: Link) -> tuple[Holding, Mapping[str, Any] | None]:
    ours = record.fields.get(name)
    if name in link.conflict:
        asked = link.conflict[name]
        return "conflict", {"theirs": asked["theirs"], "base": asked["base"], "time": asked["time"]}
    if name in link.refused and same_value(record.entity, name, link.refused[name], ours):
        told = link.why.get(name, {})
        return "refused", {key: told[key] for key in ("message", "time") if key in told}
    if name in link.inflight:
        return "waits", _parked(link)
    if name in link.waits:
        return "waits", {"record": link.waits[name]}
    if name in side.writes and link.wants and not record.dead and is_sendable(record, link, name):
        return "waits", _parked(link)
    if same_value(record.entity, name, link.held(name, ours), ours):
        return "same", None
    return "differs", None


def _parked(link: Link) -> Mapping[str, Any] | None:
    """Why nothing is sent, where the link gave up."""
    if not link.parked:
        return None
    return {"parked": link.parked.get("message") or link.parked.get("cause")}
