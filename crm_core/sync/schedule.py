"""When a connection is due, and the tick that finds what is due. Pure but for `tick`, which only reads and enqueues."""

import re
from collections.abc import Iterable, Mapping
from contextlib import suppress
from datetime import UTC, datetime, timedelta

from crm_core.errors import BadRequest, Misconfigured
from crm_core.model.connection import Schedule, Tenant
from crm_core.model.fields import hub_time, parse_instant
from crm_core.model.state import EntityState
from crm_core.storage import layout
from crm_core.sync import push_runs, watching
from crm_core.sync.engine import Engine, Job, wake

_ANY_TIME = datetime(2026, 1, 1, tzinfo=UTC)
OVERDUE_SECONDS = 120.0
"""A webhook whose work is open for so long has lost its message."""
RETENTION, RETENTION_MINUTE = "retention", 3 * 60 + 17
"""The job that deletes what is kept for a time only, and the minute of the day (UTC) at which the tick thinks of it: it costs
one message a day. A day on which the tick did not run then is caught up with on the next one.
"""
MIN_MINUTES, MAX_MINUTES = 1, 7 * 24 * 60


def check_schedule(schedule: Schedule) -> None:
    """Raises BadRequest that names the field and the remedy."""
    if schedule.minutes is not None and schedule.cron is not None:
        raise BadRequest.field("schedule", "schedule: give minutes or cron, not both.")
    if schedule.minutes is not None and not MIN_MINUTES <= schedule.minutes <= MAX_MINUTES:
        raise BadRequest.field(
            "schedule.minutes",
            f"schedule.minutes: expected {MIN_MINUTES} to {MAX_MINUTES}; changes faster than that come by webhooks.",
        )
    if schedule.cron is not None:
        _check_cron(schedule.cron)


_CRON_PART = re.compile(r"([0-9*/,-]|[A-Za-z]{3}(?![A-Za-z]))+")


def _is_valid(cron: str) -> bool:
    from croniter import croniter

    return bool(croniter.is_valid(cron, second_at_beginning=True))


def _comes(cron: str) -> bool:
    """Whether there is a next time at all: the 30th of February never comes."""
    from croniter import CroniterError, croniter

    try:
        croniter(cron, _ANY_TIME, day_or=False, second_at_beginning=True).get_next(datetime)
    except CroniterError:
        return False
    return True


def _check_cron(cron: str) -> None:
    parts = cron.split()
    if len(parts) == 6 and not parts[0].isdigit():
        raise BadRequest.field(
            "schedule.cron",
            "schedule.cron: a pull more often than each minute is not supported; use webhooks for that.",
        )
    if len(parts) in (5, 6) and _is_valid(cron) and not _comes(cron):
        raise BadRequest.field("schedule.cron", "schedule.cron: that time never comes.")
    if len(parts) not in (5, 6) or not all(map(_CRON_PART.fullmatch, parts)) or not _is_valid(cron):
        raise BadRequest.field(
            "schedule.cron",
            "schedule.cron: expected five or six fields (second minute hour day month weekday), such as '0 */15 * * * *'.",
        )


def next_due(schedule: Schedule, after: datetime) -> str:
    """When the next pull is due after a point in time, "" for never; in UTC."""
    if schedule.cron is not None:
        from croniter import croniter

        found: datetime = croniter(schedule.cron, after, day_or=False, second_at_beginning=True).get_next(
            datetime
        )
        return hub_time(found)
    if schedule.minutes is not None:
        return hub_time(after + timedelta(minutes=schedule.minutes))
    return ""


def tick(engine: Engine) -> int:
    """Enqueues a pull for every entity that is due or whose worker died, a push run where one is, and whoever has
    something to push, to deliver or to read again; gives how many messages that took. Does none of the work.

    A message too many does no harm: the worker looks at the row again. One query per 1,000 rows of state, one for
    the runs that have not ended, two for each connection that has webhooks, and one for each that delivers.
    """
    now = engine.clock.now()
    sent = 0
    known: dict[Tenant, set[str]] = {}
    for tenant, uid, states in engine.states.every():
        known.setdefault(tenant, set()).update(states.entities)
        if states.connection.health == "needs_attention" or _later(states.connection.not_before, now):
            continue
        before = sent
        if states.connection.hooked and not _is_paused(engine, tenant, uid):
            sent += _sweep_webhooks(engine, tenant, uid, now)
        if _delivers(engine, tenant, uid, states.entities) and engine.deliveries.any_due(
            tenant, uid, hub_time(now)
        ):
            engine.send(layout.BULK, Job("delivery", tenant, uid))
            sent += 1
        for entity, state in states.entities.items():
            if is_due(state, now):
                run = state.lease_run if lapsed(state, now) else ""
                engine.send(layout.FRESH, Job("pull", tenant, connection=uid, entity=entity, run=run))
                sent += 1
            if is_reached(push_runs.due(state), now):
                engine.send(
                    layout.FRESH, Job("widen", tenant, connection=uid, entity=entity, run=state.push_run)
                )
                sent += 1
        if states.connection.health == "unreachable" and sent == before:
            sent += _probe(engine, tenant, uid, states.entities)
    if now.hour * 60 + now.minute == RETENTION_MINUTE:
        for tenant in known:
            engine.send(layout.BULK, Job(RETENTION, tenant))
            sent += 1
    return (
        sent
        + watching.sweep(engine)
        + sum(_sweep(engine, tenant, entities, now) for tenant, entities in known.items())
    )


def _probe(engine: Engine, tenant: Tenant, uid: str, entities: Mapping[str, EntityState]) -> int:
    """A connection that nothing is pulled from by itself, and that did not answer, is tried again though nothing may be
    open there any more: else it would be called unreachable for ever. Gives how many messages that took.
    """
    for entity, state in entities.items():
        side = engine.sides(tenant, entity).get(uid)
        comes = bool(state.due or state.lease_run) and not (state.waits or state.stopped_run)
        if side is not None and side.sync.pushes and not (side.sync.pulls and comes):
            engine.send(layout.FRESH, Job("push", tenant, uid, entity))
            return 1
    return 0


def _is_paused(engine: Engine, tenant: Tenant, uid: str) -> bool:
    with suppress(Misconfigured):  # who works on the message says so
        opened = engine.open(tenant, uid)
        return opened is not None and opened.connection.paused
    return False


def _sweep_webhooks(engine: Engine, tenant: Tenant, uid: str, now: datetime) -> int:
    """Sends messages for what webhooks left: events that are open for long, entities for which hints wait. Gives how many."""
    sent = 0
    for event_id in engine.events.waiting(tenant, uid, hub_time(now - timedelta(seconds=OVERDUE_SECONDS))):
        engine.send(layout.FRESH, Job("event", tenant, uid, event={"id": event_id}))
        sent += 1
    for entity in engine.hints.entities(tenant, uid):
        engine.send(layout.FRESH, Job("hints", tenant, uid, entity))
        sent += 1
    return sent


def _delivers(engine: Engine, tenant: Tenant, uid: str, entities: Iterable[str]) -> bool:
    sides = (engine.sides(tenant, entity).get(uid) for entity in entities)
    return any(side is not None and side.delivers for side in sides)


def _minute(now: datetime) -> int:
    return int(now.timestamp()) // 60


def _sweep(engine: Engine, tenant: Tenant, entities: Iterable[str], now: datetime) -> int:
    """Wakes whoever has something to push in the buckets whose minute it is, or waits there for another record, and
    whoever held entries back, or left a claim.

    Only where a connection pushes: it costs two queries for each entity and bucket, one where it delivers, and one for
    what is held.
    """
    kinds = {entity: found for entity in sorted(entities) if (found := _swept(engine, tenant, entity))}
    if not kinds:
        return 0
    count = min(len(layout.BUCKETS), max(1, int(engine.tuning.sweep_buckets)))
    buckets = [layout.BUCKETS[(_minute(now) * count + each) % len(layout.BUCKETS)] for each in range(count)]
    sent = 0
    for entity, found in kinds.items():
        for kind, job in found:
            places = {
                (uid, bucket)
                for bucket in buckets
                for _, uid, _ in engine.records.open_items(tenant, entity, bucket, kind=kind)
            }
            wake(engine, tenant, entity, places, job)
            sent += len({uid for uid, _ in places})
    if not any(("wait", "waiting") in found for found in kinds.values()):
        return sent
    for uid, entity in sorted({(each.connection, each.entity) for each in engine.held.every(tenant)}):
        engine.send(layout.FRESH, Job("held", tenant, uid, entity))
        sent += 1
    return sent


def _swept(engine: Engine, tenant: Tenant, entity: str) -> list[tuple[str, str]]:
    """The kinds of open items that there can be of an entity, with the job that each leads to."""
    sides = engine.sides(tenant, entity).values()
    found = []
    if any(each.sync.pushes and not each.delivers for each in sides):
        found += [("push", "push"), ("wait", "waiting")]
    if any(each.delivers for each in sides):
        found.append((layout.EVENT_ITEM, "push"))
    return found


def is_due(state: EntityState, now: datetime) -> bool:
    if state.lease_run:
        return lapsed(state, now)
    return is_reached(state.due, now) and not (state.waits or state.stopped_run)


def is_reached(moment: str, now: datetime) -> bool:
    """Whether a time has come; "" never comes."""
    return bool(moment) and not _later(moment, now)


def lapsed(state: EntityState, now: datetime) -> bool:
    """A worker took the lease and did not come back."""
    return bool(state.lease_run) and not _later(state.lease_until, now)


def _later(moment: str, now: datetime) -> bool:
    return bool(moment) and parse_instant(moment) > now
