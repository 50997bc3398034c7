"""Deliveries: from what happened to a record to the receiver of a connection.

An event item becomes a row, with its body as it will be sent, and only after that it goes; then the delivery's schedule
applies. Nothing can be read back, so there is no claim and no look: a receiver may get a delivery twice, with the same id.

Deliveries of one record are sent first in the order of its versions. So an item stays until its delivery was tried: who
finds that another worker is at an older version puts the newer one off for a moment. One that has to be sent again is not
waited for.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta

from crm_core.connector import Delivered, Message
from crm_core.errors import BadRequest, HubError, StoreUnavailable
from crm_core.log import Log
from crm_core.model.connection import EntitySync, Tenant
from crm_core.model.entities import Entity
from crm_core.model.fields import hub_time, parse_instant, seconds_until
from crm_core.model.filters import parse_filter
from crm_core.model.json_text import dump_json, parse_json
from crm_core.model.matching import matcher
from crm_core.model.record_event import RecordEvent
from crm_core.model.state import Problem
from crm_core.ports import RowChanged, count
from crm_core.retry import delivery_delay
from crm_core.storage import layout
from crm_core.storage.deliveries import MAX_TOGETHER, Attempt, Delivery
from crm_core.storage.run_log import note
from crm_core.storage.state import States
from crm_core.sync.engine import Engine, Job, Opened
from crm_core.sync.saving import portions

_log = Log("crm_core.deliveries")

HOLD_SECONDS = 120.0
"""So long a delivery is left to the worker that took it."""
BEGIN_SECONDS = 60.0
"""So long after it took them a worker begins to send deliveries; an attempt takes 15 s at most."""
AFTER_SECONDS = 2.0
"""So long a version is put off while another worker sends an older one of the same record."""
CLOCK_SECONDS = 2.0
"""So far the clocks of two instances may be apart."""
WIDTH = 4
GONE = 410
TOO_MANY = 429
UNMADE = ""
"""The content type of a delivery of whose event no message could be made."""


def passes(sync: EntitySync, entity: Entity, event: RecordEvent) -> bool:
    """Whether a connection wants to be told of an event. Pure."""
    if sync.events and event.kind not in sync.events:
        return False
    now = event.now()
    if sync.filter and not matcher(parse_filter(sync.filter), entity)(now):
        return False
    if not sync.becomes:
        return True
    test, before = matcher(parse_filter(sync.becomes), entity), event.before()
    return test(now) and not (before is not None and test(before))


@dataclass(frozen=True)
class Verdict:
    """What an attempt comes to: the delivery's next state, after how many seconds it is sent again, and why."""

    state: str
    delay: float = 0.0
    outcome: str = ""


def verdict(tries: int, status: int, asked: float | None) -> Verdict:
    """After so many attempts, the last of which was answered so (0: not at all). Pure."""
    if 200 <= status < 300:
        return Verdict("done", outcome="taken")
    words = _words(status)
    delay = delivery_delay(tries, asked)
    if delay is None:
        return Verdict("failed", outcome=f"{words}; given up after {tries} attempts")
    return Verdict("open", delay, words)


def _words(status: int) -> str:
    if not status:
        return "no answer"
    if 300 <= status < 400:
        return f"redirected ({status}), which is not followed"
    return f"refused ({status})"


def deliver(engine: Engine, job: Job, lane: str, opened: Opened, states: States, *, careful: bool) -> None:
    """Makes deliveries of what happened in the buckets of a job and sends each once; what is not done goes on in another
    message. `careful`: an event that raises is set aside, and does not stop the others.
    """
    slice_end = engine.slice_end(lane)
    buckets = job.buckets or layout.BUCKETS
    sender = Sender(engine, job.tenant, opened)
    for number, bucket in enumerate(buckets):
        events = engine.records.events(job.tenant, job.entity, bucket, job.connection)
        for portion in portions(events, MAX_TOGETHER):
            if engine.clock.monotonic() >= slice_end:
                engine.send(layout.BULK, replace(job, buckets=buckets[number:]))
                return
            _Portion(sender, job, states, careful=careful).work(bucket, portion, slice_end)
            if sender.stopped:
                return  # the tick finds what is left


class _Portion:
    """Events that become deliveries together."""

    def __init__(self, sender: "Sender", job: Job, states: States, *, careful: bool) -> None:
        self.sender = sender
        self.engine = sender.engine
        self.job = job
        self.opened = sender.opened
        self.careful = careful
        self.wait = seconds_until(states.connection.not_before, self.engine.clock.now())

    def work(self, bucket: str, events: Sequence[RecordEvent], slice_end: float) -> None:
        """The receiver may have asked to be left alone: then the tick sends them once it may."""
        engine, job = self.engine, self.job
        until = min(slice_end, engine.clock.monotonic() + BEGIN_SECONDS)
        made = [found for each in events if (found := self._made(each)) is not None]
        new = engine.deliveries.insert(job.tenant, job.connection, made)
        others = self._at_work({each.id for each in made} - {each.id for each in new})
        if self.wait <= 0:
            self._send(
                [each for each in new if each.record not in {one.record for one in others}], made, until
            )
            self._put_off([each for each in new if each.record in {one.record for one in others}])
        theirs = {(each.record, each.version) for each in others}
        done = [each for each in events if (each.record, each.version) not in theirs]
        engine.records.close_events(job.tenant, job.entity, bucket, job.connection, done)

    def _at_work(self, ids: Iterable[str]) -> list[Delivery]:
        """Those of deliveries that were there which another worker is sending."""
        now = hub_time(self.engine.clock.now())
        found = self.engine.pool.map(
            lambda each: self.engine.deliveries.get(self.job.tenant, self.job.connection, each), sorted(ids)
        )
        return [each for each in found if each is not None and each.state == "open" and each.due > now]

    def _send(self, new: Sequence[Delivery], made: Sequence[Delivery], until: float) -> None:
        bodies = {each.id: each.body for each in made}
        clock, sender = self.engine.clock, self.sender

        def one_record(deliveries: Sequence[Delivery]) -> None:
            for each in deliveries:
                if each.state == "open" and not sender.stopped and clock.monotonic() < until:
                    sender.send(each, bodies[each.id])

        self.engine.pool.map(one_record, _by_record(new), WIDTH)

    def _put_off(self, new: Iterable[Delivery]) -> None:
        engine, job = self.engine, self.job
        for each in new:
            if each.state == "open":
                due = hub_time(engine.clock.now() + timedelta(seconds=AFTER_SECONDS))
                try:
                    engine.deliveries.save(job.tenant, job.connection, each, replace(each, due=due))
                except RowChanged:
                    continue
                again = Job("delivery", job.tenant, job.connection, event={"id": each.id})
                engine.send(layout.FRESH, again, AFTER_SECONDS)

    def _made(self, event: RecordEvent) -> Delivery | None:
        """What is to be delivered of an event, if anything; what no message can be made of waits for a person."""
        try:
            sync = self.opened.connection.entities[self.job.entity]
            if not passes(sync, self.opened.connector.map(self.job.entity).entity, event):
                return None
            return _with_message(self.engine, self.job.tenant, self.opened, self._held(event), event)
        except BadRequest as error:
            return self._aside(event, _unmade(error))
        except HubError:
            raise
        except Exception as error:
            if not self.careful:
                raise
            _log.bug("event set aside", error)
            return self._aside(
                event, f"no message can be made of it: {type(error).__name__}, a fault of the hub"
            )

    def _held(self, event: RecordEvent) -> Delivery:
        """By this worker until it has sent it, or died."""
        due = hub_time(self.engine.clock.now() + timedelta(seconds=max(HOLD_SECONDS, self.wait)))
        milliseconds = int(parse_instant(event.time).timestamp() * 1000)
        name = layout.delivery_id(self.job.connection, event.record, event.version, milliseconds)
        return Delivery(
            name, event.time, event.entity, event.record, event.version, event.kind, UNMADE, dump_json(event.to_json()),
            due=due,
        )  # fmt: skip

    def _aside(self, event: RecordEvent, outcome: str) -> Delivery:
        return replace(self._held(event), state="failed", due="", outcome=outcome)


def _by_record(deliveries: Iterable[Delivery]) -> list[list[Delivery]]:
    groups: dict[str, list[Delivery]] = {}
    for each in deliveries:
        groups.setdefault(each.record, []).append(each)
    return list(groups.values())


def joined(engine: Engine, tenant: Tenant, event: RecordEvent, joins: Mapping[str, str]) -> RecordEvent:
    """With the fields of the records that it refers to, by `reference.field`, as they are now: a point read for each
    reference. `joins`: reference -> the entity that it leads to.
    """
    fields = dict(event.fields)
    for reference, entity in joins.items():
        record_id = event.fields.get(reference)
        found = engine.records.find(tenant, entity, record_id) if record_id else None
        if found is not None:
            fields |= {f"{reference}.{name}": value for name, value in found.fields.items()}
    return replace(event, fields=fields)


def _with_message(
    engine: Engine, tenant: Tenant, opened: Opened, delivery: Delivery, event: RecordEvent
) -> Delivery:
    """Raises BadRequest for values that the connection's mapping can't put."""
    joins = opened.connector.joins(event.entity)
    message = opened.connector.message(delivery.id, joined(engine, tenant, event, joins) if joins else event)
    return replace(
        delivery, content_type=message.content_type, body=message.body, headers=message.headers, blob=""
    )


def _unmade(error: BadRequest) -> str:
    return f"no message can be made of it: {error.message}"


class Sender:
    """Sends deliveries of one connection. `stopped`: the receiver wants no more, for a time or for good."""

    def __init__(self, engine: Engine, tenant: Tenant, opened: Opened) -> None:
        self.engine = engine
        self.tenant = tenant
        self.opened = opened
        self.stopped = False

    def send(self, delivery: Delivery, body: bytes) -> None:
        """One attempt, kept with what came of it; a next one is on its way by a message."""
        engine, uid = self.engine, self.opened.connection.uid
        time, began = hub_time(engine.clock.now()), engine.clock.monotonic()
        answer = self._answer(Message(delivery.id, delivery.content_type, body, delivery.headers))
        ms = round((engine.clock.monotonic() - began) * 1000)
        judged = verdict(delivery.tries + 1, answer.status, answer.retry_after)
        due = hub_time(engine.clock.now() + timedelta(seconds=judged.delay))
        attempt = Attempt(time, answer.status, ms, answer.excerpt)
        after = delivery.after(attempt, judged.state, due, judged.outcome)  # type: ignore[arg-type]
        count("deliveries_done" if judged.state == "done" else "deliveries_refused", connection=uid)
        _log.info(
            "delivery",
            delivery=delivery.id,
            status=answer.status,
            ms=ms,
            attempt=after.tries,
            state=judged.state,
        )
        self._heed(answer)
        try:
            engine.deliveries.save(self.tenant, uid, delivery, after)
        except RowChanged:
            return  # somebody else has it, and says what comes next
        if judged.state == "failed":
            text = f"A delivery of {delivery.record} was {judged.outcome}. {answer.excerpt}".rstrip()
            note("delivery.failed", text, "error", connection=uid, entity=delivery.entity, record=delivery.record,
                 delivery=delivery.id, status=answer.status)  # fmt: skip
        if judged.state == "open" and answer.status != GONE:
            # After a 429 others set the connection's time too, a moment later than this.
            engine.send(
                layout.BULK,
                Job("delivery", self.tenant, uid, event={"id": delivery.id}),
                judged.delay + self.stopped,
            )

    def _answer(self, message: Message) -> Delivered:
        try:
            return self.opened.connector.deliver(message)
        except StoreUnavailable:
            raise
        except HubError as error:
            return Delivered(0, error.message)

    def _heed(self, answer: Delivered) -> None:
        """410: nobody is there any more, and a person has to say how it goes on. 429: not before the time that it asks for."""
        if answer.status not in (GONE, TOO_MANY):
            return
        self.stopped = True
        engine, uid = self.engine, self.opened.connection.uid
        states = engine.states.read(self.tenant, uid)
        if states is None:
            return
        now = engine.clock.now()
        if answer.status == GONE:
            problem = Problem("ReceiverGone", GONE_WORDS, hub_time(now))
            text = f"The connection waits for a person: {GONE_WORDS}"
            note("connection.needs_attention", text, "error", connection=uid, error=problem.code)
            changed = replace(states.connection, health="needs_attention", problem=problem)
        else:
            wait = delivery_delay(1, answer.retry_after) or 0.0
            until = max(states.connection.not_before, hub_time(now + timedelta(seconds=wait)))
            changed = replace(states.connection, not_before=until)
        try:
            engine.states.save_connection(self.tenant, uid, changed)
        except RowChanged:
            return  # the next answer says the same


GONE_WORDS = (
    "The receiver answers 410: it is gone. Correct the address and test the connection, or resume it; what is open is"
    " sent then."
)


def again(engine: Engine, job: Job, lane: str, deliveries: int = 1) -> None:  # noqa: ARG001  # a handler's parameters
    """Later attempts: of the delivery that a job names, or of all that are due, a few at a time."""
    opened = engine.open(job.tenant, job.connection)
    name = str(job.event.get("id", ""))
    if opened is None:
        found = engine.deliveries.get(job.tenant, job.connection, name) if name else None
        if found is not None and found.state == "open":
            _close(engine, job, found, "the connection is gone")
        return
    states = engine.states.read(job.tenant, job.connection)
    if states is None or opened.connection.paused or states.connection.health == "needs_attention":
        return  # the tick sends another message once it may go on
    now = engine.clock.now()
    if seconds_until(states.connection.not_before, now) > 0:
        return
    sender = Sender(engine, job.tenant, opened)
    if name:
        _attempt(sender, job, name)
        return
    slice_end = engine.slice_end(lane)

    def one(delivery_id: str) -> None:
        if not sender.stopped and engine.clock.monotonic() < slice_end:
            _attempt(sender, job, delivery_id)

    for portion in portions(engine.deliveries.due(job.tenant, job.connection, hub_time(now)), MAX_TOGETHER):
        if sender.stopped or engine.clock.monotonic() >= slice_end:
            return  # the next tick goes on
        engine.pool.map(one, portion, WIDTH)


def _attempt(sender: Sender, job: Job, delivery_id: str) -> None:
    """One more, if it is due and nobody else is at it."""
    engine = sender.engine
    found = engine.deliveries.get(job.tenant, job.connection, delivery_id)
    now = engine.clock.now()
    soon = hub_time(now + timedelta(seconds=CLOCK_SECONDS))
    if found is None or found.state != "open" or found.due > soon:
        return
    held = replace(found, due=hub_time(now + timedelta(seconds=HOLD_SECONDS)))
    whole = engine.deliveries.whole(found)
    if found.content_type == UNMADE:
        try:
            whole = held = _with_message(engine, job.tenant, sender.opened, held, _event_of(whole))
        except BadRequest as error:
            _close(engine, job, found, _unmade(error))
            return
    try:
        held = engine.deliveries.save(job.tenant, job.connection, found, held)
    except RowChanged:
        return  # another worker has taken it
    sender.send(held, whole.body)


def _close(engine: Engine, job: Job, found: Delivery, outcome: str) -> None:
    ended = replace(found, state="failed", due="", outcome=outcome)
    try:
        engine.deliveries.save(job.tenant, job.connection, found, ended)
    except RowChanged:
        return


def _event_of(delivery: Delivery) -> RecordEvent:
    return RecordEvent.from_json(
        delivery.record, delivery.entity, delivery.version, parse_json(delivery.body)
    )
