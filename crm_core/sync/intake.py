"""Webhooks that were accepted: from the message to an event's row, from there to hints, and from hints to the records.

An event's message is the event until its row is written; whatever stops the work after that, the row is open and the
tick sends another message. A hint is all that an event leads to: which record of which entity is to be read again. So
neither order nor repeats matter, and what is older than what the hub has is dropped by the version guard.
"""

import hashlib
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace

from crm_core.connector import Change, Event, Hook
from crm_core.errors import BadAnswer, Conflict, HubError, NotSupported, StoreUnavailable
from crm_core.log import Log
from crm_core.model.connection import Connection, Tenant
from crm_core.model.entities import ENTITIES
from crm_core.model.fields import hub_time, parse_instant, seconds_until
from crm_core.ports import RowChanged, count
from crm_core.storage import layout
from crm_core.storage.events import Inbound
from crm_core.storage.hints import Hint
from crm_core.storage.state import States, json_data
from crm_core.sync import failures
from crm_core.sync.apply import Applier
from crm_core.sync.engine import Engine, Job, Opened
from crm_core.sync.merge import Snapshot

_log = Log("crm_core.intake")

CAREFUL_DELIVERY = 3
"""From this delivery of a message on, hints are read one by one, so that one that raises is found."""
AGAIN_SECONDS = 2.0
"""When a record is read once more that was announced again while it was read."""
MAX_RID = 200
MARK_TRIES = 5


def event(engine: Engine, job: Job, lane: str, deliveries: int = 1) -> None:  # noqa: ARG001  # a handler's parameters
    """Works on one event: its row first, then its hints or what it says itself, then it is done.

    A repeat of a change that is done is dropped; one of a change that is merely open is not: nobody may be at it.
    """
    found = _opened(engine, job)
    if found is None or found.state != "open":
        return
    opened = engine.open(job.tenant, job.connection)
    if opened is None:
        engine.events.end(job.tenant, job.connection, found, "done", "the connection is gone")
        return
    if opened.connection.paused and not opened.connector.polls:
        return  # what it says is all there is: it stays open, and the tick sends another message
    found = engine.events.whole(found)
    told, outcome = told_by(opened, found)
    change = _change(found, told)
    if change and "again" not in job.event and engine.events.is_done(job.tenant, job.connection, change):
        count("webhooks_repeated", connection=job.connection)
        outcome, change = "a repeat", ""
    else:
        for entity, rids in _wanted(opened.connection, told).items():
            if engine.hints.add(job.tenant, job.connection, entity, rids, hub_time(engine.clock.now())):
                engine.send(layout.FRESH, Job("hints", job.tenant, job.connection, entity))
        if any(each.change for each in told):
            outcome = _merged(engine, job, opened, _stamped(engine, job, opened, found, told), deliveries)
    engine.events.end(job.tenant, job.connection, found, "done", outcome, change)
    _log.info("webhook", outcome=outcome, hints=len(told))


def _opened(engine: Engine, job: Job) -> Inbound | None:
    """The event as its row has it, which is written if it is not there yet; None where there is none."""
    if "time" in job.event:
        return engine.events.open(job.tenant, job.connection, Inbound.from_message(job.event))
    return engine.events.get(job.tenant, job.connection, job.event.get("id", ""))


def told_by(opened: Opened, found: Inbound) -> tuple[Sequence[Event], str]:
    """What a webhook is about, and in a word what it led to; content that says nothing to us is kept all the same."""
    try:
        told = opened.connector.parse(Hook(found.headers, {}, found.body))
    except (BadAnswer, NotSupported):
        return (), "not understood"
    told = [each for each in told if len(each.rid) <= MAX_RID]
    return told, "read again" if told else "about nothing here"


def _change(found: Inbound, told: Sequence[Event]) -> str:
    """Names the change that a webhook tells of; "" where another change may say the same."""
    if not told or not all(each.when for each in told):
        return ""
    whens = " ".join(dict.fromkeys(each.when for each in told)).encode()
    return hashlib.sha256(b"%d %s %s" % (len(whens), whens, found.body)).hexdigest()


def _wanted(connection: Connection, told: Sequence[Event]) -> Mapping[str, list[str]]:
    """By entity, what is to be read again, if the connection reads that."""
    found: dict[str, list[str]] = {}
    for each in dict.fromkeys((each.entity, each.rid) for each in told if each.change is None):
        sync = connection.entities.get(each[0])
        if sync is not None and sync.pulls:
            found.setdefault(each[0], []).append(each[1])
    return found


def _stamped(
    engine: Engine, job: Job, opened: Opened, found: Inbound, told: Sequence[Event]
) -> Mapping[str, list[Snapshot]]:
    """By entity that the connection reads, what a system that can't be asked says, in the order in which webhooks came in;
    what a person replays comes in now. What the system itself says of the time decides where both sides changed a field.
    """
    time = hub_time(engine.clock.now()) if "again" in job.event else found.time
    snapshots: dict[str, list[Snapshot]] = {}
    for each in told:
        sync = opened.connection.entities.get(each.entity)
        if each.change is not None and sync is not None and sync.pulls:
            change = replace(each.change, version=_version(time, found.id))
            told_of = frozenset(change.fields or ())
            snapshot = Snapshot(change, time, time, point_read=True, payload=told_of)
            snapshots.setdefault(each.entity, []).append(snapshot)
    return snapshots


def _version(time: str, event_id: str) -> str:
    """Grows with the time; two webhooks of the same microsecond differ by their ids."""
    microseconds = round(parse_instant(time).timestamp() * 1_000_000)
    return str((microseconds << 16) + int(hashlib.sha256(event_id.encode()).hexdigest()[:4], 16))


def _merged(
    engine: Engine, job: Job, opened: Opened, snapshots: Mapping[str, list[Snapshot]], deliveries: int
) -> str:
    """Merges what was told; gives the outcome in a word."""
    for entity, told in snapshots.items():
        careful = deliveries >= CAREFUL_DELIVERY
        Applier(engine, job.tenant, ENTITIES[entity], opened, "", careful=careful).apply(told)
    return "merged" if snapshots else "about nothing here"


def replay(engine: Engine, tenant: Tenant, connection: str, found: Inbound, by: str = "") -> None:
    """A person has the work of an event done again, whatever came of it. Raises Conflict while it is open.

    Its dead letter, if it has one, waits no more.
    """
    opened = engine.open(tenant, connection)
    if opened is not None and opened.connection.paused and not opened.connector.polls:
        raise Conflict(f"{opened.connection.slug} is paused; resume it, then replay the event.")
    refused = Conflict("The event is being worked on; look at it again in a while.")
    if found.state == "open":
        raise refused
    try:
        engine.events.reopen(tenant, connection, found)
    except RowChanged:
        raise refused from None
    again = {"id": found.id, "again": True}
    engine.send(layout.FRESH, Job("event", tenant, connection, event=again))
    letter = engine.dead_letters.get(tenant, found.id)
    if letter is not None and not letter.closed:
        with suppress(RowChanged):  # somebody else has just closed it
            engine.dead_letters.close(tenant, letter, "replayed", by)


def look_again(engine: Engine, tenant: Tenant, connection: str, entity: str, rids: Sequence[str]) -> None:
    """These remote records are read again soon. The tick looks for hints of the connection from now on, whether webhooks
    come in for it or not: the system may not answer just now.
    """
    for _ in range(MARK_TRIES):
        states = engine.states.read(tenant, connection)
        if states is None or states.connection.hooked:
            break
        with suppress(RowChanged):
            engine.states.save_connection(tenant, connection, replace(states.connection, hooked=True))
            break
    if engine.hints.add(tenant, connection, entity, rids, hub_time(engine.clock.now())):
        engine.send(layout.FRESH, Job("hints", tenant, connection, entity))


def buried(engine: Engine, job: Job) -> None:
    """An event whose work failed at every delivery of its message: only a person opens it again (`replay`)."""
    found = _opened(engine, job)
    if found is not None and found.state == "open":
        engine.events.end(job.tenant, job.connection, found, "dead", "failed; see the dead letters")


def hints(engine: Engine, job: Job, lane: str, deliveries: int = 1) -> None:
    """Reads again what was announced of one entity, until nothing is left. What has to wait stays, and so does everything
    while the system does not answer: the tick sends another message.
    """
    opened = engine.open(job.tenant, job.connection)
    sync = opened.connection.entities.get(job.entity) if opened else None
    if opened is None or sync is None or not sync.pulls or not opened.connector.polls:
        engine.hints.drop(job.tenant, job.connection, job.entity)
        return
    states = engine.states.read(job.tenant, job.connection)
    if states is None or opened.connection.paused or not _may(engine, job, states):
        return
    slice_end = engine.slice_end(lane)
    size = engine.tuning.push_records
    place = (job.tenant, job.connection, job.entity)
    read = 0
    while True:
        worker, heard = engine.hints.worker(*place)
        heard = heard.and_more(json_data(worker)["time"] if worker else "", read)
        if engine.clock.monotonic() >= slice_end:
            engine.send(layout.BULK, job)
            break
        found = engine.hints.of(*place, size)
        if not found:
            if worker is None:
                break
            if engine.hints.dismiss(worker, heard):
                return
            continue
        if not _read_again(engine, job, opened, states, found, careful=deliveries >= CAREFUL_DELIVERY):
            break
        read += len(found)
        closed = engine.pool.map(engine.hints.close, found)
        if not all(closed):
            engine.send(layout.FRESH, job, AGAIN_SECONDS)
            heard = heard.and_more("", len(found))
            break
    if read:
        engine.hints.hear(*place, heard)


def _may(engine: Engine, job: Job, states: States) -> bool:
    """Whether anything may be read of this entity now."""
    state = states.entities.get(job.entity)
    if state is None or state.waits or state.stopped_run or states.connection.health != "ok":
        return False
    return seconds_until(states.connection.not_before, engine.clock.now()) <= 0


def _read_again(
    engine: Engine, job: Job, opened: Opened, states: States, found: Sequence[Hint], *, careful: bool
) -> bool:
    """Whether all of it was read and merged; if not, the connection's state says why."""
    now = hub_time(engine.clock.now())
    applier = Applier(engine, job.tenant, ENTITIES[job.entity], opened, "", careful=careful)
    try:
        applier.apply([Snapshot(Change(each.rid, None), now, now, hint=True) for each in found])
    except StoreUnavailable:
        raise
    except HubError as error:
        failures.push_failed(engine, job, states, error)
        return False
    return True
