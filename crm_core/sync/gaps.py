"""Webhooks that did not come: what a pull of the schedule finds that none had told of.

What a webhook told of was read by the time of the next pull, which finds it as the hub has it. So what is new to a pull was
not told of, unless its webhook is still under way: a hint that waits says so, and what changed just now is judged by a later
pull. Nothing is asked for a connection without an address for webhooks, and nothing where a pull finds nothing new.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, Literal

from crm_core.model.fields import hub_time, parse_instant
from crm_core.model.state import ConnectionState, EntityState
from crm_core.storage.hints import Heard
from crm_core.sync.engine import Engine, Opened

GRACE_SECONDS = 120.0
"""A webhook may be so late, its work included, and clocks so far apart."""
SILENT_SECONDS = 900.0
RECENT_SECONDS = 24 * 3600.0
MAX_HINTS = 1000
"""That one query gives; where more wait nobody can tell what was told of."""

Word = Literal["quiet", "works", "loses some", "silent"]


def counted(opened: Opened, state: EntityState) -> bool:
    """Whether pulls of an entity say something of webhooks: not its first load, nor without an address."""
    return bool(opened.connection.hooks and state.last_success)


def judged(
    engine: Engine,
    opened: Opened,
    connection: ConnectionState,
    entity: str,
    state: EntityState,
    news: Sequence[tuple[str, str]],
) -> Mapping[str, Any]:
    """What changes in the state of the entity after a pull that found this (remote id, modified) new; {} for nothing.

    One query if there is news, and one if what was too fresh at an earlier pull can be judged now.
    """
    if not counted(opened, state):
        return {}
    now = engine.clock.now()
    began = connection.hooked_at
    times = {
        rid: modified or state.last_success  # of a delete nobody tells when, but it was since then
        for rid, modified in news
        if not began or _time(modified or state.last_success) >= _time(began)
    }
    told: dict[str, Any] = {}
    missed, unsure = 0, dict(state.unsure)
    tenant, uid = opened.connection.tenant, opened.connection.uid
    if unsure and _is_past(unsure["at"], now):
        heard = engine.hints.heard(tenant, uid).get(entity, Heard())
        came = heard.time and _time(heard.time) >= _time(unsure["since"]) - timedelta(seconds=GRACE_SECONDS)
        missed, unsure = (0 if came else unsure["n"]), {}
        told["unsure"] = unsure
    if times:
        waiting = engine.hints.of(tenant, uid, entity, MAX_HINTS)
        names = {hint.rid for hint in waiting}
        left = [time for rid, time in times.items() if rid not in names] if len(waiting) < MAX_HINTS else []
        fresh = [time for time in left if not _is_past(time, now)]
        missed += len(left) - len(fresh)
        if fresh:
            since = min([*fresh, unsure.get("since", fresh[0])], key=_time)
            number = unsure.get("n", 0) + len(fresh)
            told["unsure"] = {"n": number, "since": since, "at": unsure.get("at", hub_time(now))}
    if missed:
        told |= {"missed": state.missed + missed, "missed_at": hub_time(now)}
    return told


def word(state: EntityState, connection: ConnectionState, heard: Heard, now: datetime) -> Word:
    """How it is with the webhooks of an entity, in a word: `quiet`: none came, and none was missed. `silent`: pulls find
    changes and none has come for long. `loses some`: one was missed within a day.
    """
    last = heard.time or connection.hooked_at
    silent = not last or (now - _time(last)).total_seconds() > SILENT_SECONDS
    if state.missed_at > heard.time and silent:
        return "silent"
    if state.missed_at and (now - _time(state.missed_at)).total_seconds() < RECENT_SECONDS:
        return "loses some"
    return "works" if heard.time else "quiet"


def _time(text: str) -> datetime:
    return parse_instant(text)


def _is_past(moment: str, now: datetime) -> bool:
    return (now - _time(moment)).total_seconds() > GRACE_SECONDS
