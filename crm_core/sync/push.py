"""Push: from the open items of a connection to the remote system, bucket by bucket. The steps are in `pushing/`.

A push has no lease and no place to keep: the open items say what is left, so a message that comes twice, or never,
costs calls or time and nothing else. A job sends at most one message to come back itself, at most one for each
connection that has something to learn, and at most two for what waited for a create.
"""

from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import timedelta

from crm_core.connector import Change
from crm_core.errors import HubError, StoreUnavailable
from crm_core.log import Log
from crm_core.model.entities import ENTITIES
from crm_core.model.fields import hub_time, parse_instant, seconds_until
from crm_core.model.record import Record, has_open_create, open_items
from crm_core.ports import MAX_TRANSACTION_OPERATIONS, RowChanged
from crm_core.storage import layout
from crm_core.storage.held import Claim
from crm_core.storage.records import RecordWrite
from crm_core.storage.state import States
from crm_core.sync import failures
from crm_core.sync.apply import Applier
from crm_core.sync.deliver import deliver
from crm_core.sync.engine import Engine, Job, Opened, wake
from crm_core.sync.identity import may_have_made
from crm_core.sync.merge import CLOCK_MARGIN, Snapshot
from crm_core.sync.pushing import Pusher, Stop
from crm_core.sync.saving import portions, save

_log = Log("crm_core.sync")

CAREFUL_DELIVERY = 3
"""From this delivery of a message on, records are pushed one by one, so that one that raises is found."""
MIN_WAIT_SECONDS = 1.0


def push(engine: Engine, job: Job, lane: str, deliveries: int = 1) -> None:
    """Works on one slice of a push; what is not done continues in another message. What a connection delivers goes its
    own way (deliver.py).

    Raises what is a bug or trouble of our own storage; the message then comes again.
    """
    opened = engine.open(job.tenant, job.connection)
    states = engine.states.read(job.tenant, job.connection) if opened else None
    if opened is None or states is None:
        _let_go(engine, job)
        return
    sync = opened.connection.entities.get(job.entity)
    if opened.connector.delivers_to and (sync is None or not sync.pushes):
        _forget_events(engine, job)
        return
    state = states.entities.get(job.entity)
    if sync is None or state is None or opened.connection.paused or state.waits:
        return  # the tick finds what is open once it may go on
    if states.connection.health == "needs_attention":
        return
    if opened.connector.delivers_to:
        deliver(engine, job, lane, opened, states, careful=deliveries >= CAREFUL_DELIVERY)
        return
    wait = seconds_until(states.connection.not_before, engine.clock.now())
    if wait > 0:
        _come_back(engine, job, states, wait)
        return
    if states.connection.health == "unreachable":
        probing = failures.probe(engine, job, states)
        if probing is None:
            _come_back(engine, job, states, failures.PROBE_SECONDS)
            return
        states = probing
    # Not by the cursor, which moves with every batch of the first load.
    loaded = not sync.pulls or bool(state.last_success)
    _Push(engine, job, lane, opened, states, loaded=loaded, careful=deliveries >= CAREFUL_DELIVERY).work()


class _Push:
    def __init__(
        self,
        engine: Engine,
        job: Job,
        lane: str,
        opened: Opened,
        states: States,
        *,
        loaded: bool,
        careful: bool,
    ) -> None:
        self.engine = engine
        self.job = job
        self.states = states
        self.careful = careful
        self.slice_end = engine.slice_end(lane)
        self.buckets = job.buckets or layout.BUCKETS
        self.pusher = Pusher(
            engine, job.tenant, ENTITIES[job.entity], opened, loaded=loaded, in_time=self._in_time
        )

    def _in_time(self) -> bool:
        return self.engine.clock.monotonic() < self.slice_end

    def work(self) -> None:
        left = ""
        try:
            left = self._buckets()
        except Stop as stop:
            self._stopped(stop.error)
        else:
            failures.recovered(self.engine, self.job, self.states.connection)
            if left:
                self.engine.send(layout.BULK, replace(self.job, buckets=left, attempt=0))
            elif self.pusher.later:
                wait = seconds_until(self.pusher.later, self.engine.clock.now())
                _come_back(self.engine, replace(self.job, attempt=0), self.states, wait)
        finally:
            self._tell_others()

    def _buckets(self) -> str:
        """Gives the buckets that still have work to do at once. Portions go across them, so that calls are full."""
        left: set[str] = set()
        size = 1 if self.careful else self.engine.tuning.push_records
        for number, ids in enumerate(portions(self._open(), size)):
            if number and not self._in_time():
                left.update(self.buckets[self.buckets.index(layout.bucket(ids[0])) :])
                break
            left.update(layout.bucket(each) for each in self._pushed(ids))
        return "".join(each for each in self.buckets if each in left)

    def _open(self) -> Iterator[str]:
        for bucket in self.buckets:
            for _, _, record_id in self.engine.records.open_items(
                self.job.tenant, self.job.entity, bucket, kind="push", connection=self.job.connection
            ):
                yield record_id

    def _pushed(self, ids: Sequence[str]) -> list[str]:
        if not self.careful:
            return self.pusher.push(ids)
        try:
            return self.pusher.push(ids)
        except (HubError, Stop, RowChanged):
            raise
        except Exception as error:  # noqa: BLE001  # a bug with one record must not stop the others
            _log.bug("record parked", error)
            self.pusher.park(ids, type(error).__name__)
            return []

    def _stopped(self, error: HubError) -> None:
        """The system asks to wait, does not answer, or needs a person."""
        if isinstance(error, StoreUnavailable):
            raise error
        delay = failures.push_failed(self.engine, self.job, self.states, error)
        if delay is not None:
            again = replace(self.job, attempt=self.job.attempt + 1)
            states = self.engine.states.read(self.job.tenant, self.job.connection)
            _come_back(self.engine, again, states, delay, failures.lane_after(error))

    def _tell_others(self) -> None:
        engine, job, pusher = self.engine, self.job, self.pusher
        wake(engine, job.tenant, job.entity, pusher.wakes)
        if pusher.settled:
            engine.send(layout.FRESH, Job("held", job.tenant, job.connection, job.entity))
        if pusher.waits or pusher.made:
            self._note_waiting(waits=pusher.waits)
            if pusher.made and self.states.connection.waiting:
                engine.send(layout.FRESH, Job("waiting", job.tenant, job.connection))

    def _note_waiting(self, *, waits: bool) -> None:
        """The connection's row says whether a record waits for another one: nobody looks for them else."""
        states = self.engine.states.read(self.job.tenant, self.job.connection)
        if states is None:
            return
        self.states = states
        if waits and not states.connection.waiting:
            with suppress(RowChanged):  # the tick's sweep finds them too
                saved = self.engine.states.save_connection(
                    self.job.tenant, self.job.connection, replace(states.connection, waiting=True)
                )
                self.states = replace(states, connection=saved)


def _come_back(
    engine: Engine, job: Job, states: States | None, seconds: float, lane: str = layout.FRESH
) -> None:
    """One delayed message for an entity at a time: its time stands in the connection's row."""
    if states is None:
        return
    now = engine.clock.now()
    at = hub_time(now + timedelta(seconds=max(seconds, MIN_WAIT_SECONDS)))
    waking = states.connection.wake.get(job.entity, "")
    if waking and hub_time(now) < waking <= at:
        return
    wakes = {**states.connection.wake, job.entity: at}
    with suppress(RowChanged):  # one message too many does no harm
        engine.states.save_connection(job.tenant, job.connection, replace(states.connection, wake=wakes))
    engine.send(lane, replace(job, buckets=""), max(seconds, MIN_WAIT_SECONDS))


def held(engine: Engine, job: Job, lane: str, deliveries: int = 1) -> None:  # noqa: ARG001  # a handler's parameters
    """Reads again what was held back while a create was open; what still has to wait stays, and so does everything
    while the system does not answer: the tick sends another one.
    """
    opened = engine.open(job.tenant, job.connection)
    claims, entries = engine.held.of(job.tenant, job.connection, job.entity, engine.tuning.push_records)
    if opened is None:
        engine.held.release(claims)
    if opened is None or job.entity not in opened.connection.entities:
        for entry in entries:
            engine.held.close(entry)
        return
    claims = _still_open(engine, job, claims)
    entries = [each for each in entries if not may_have_made(claims, each.time)]
    if not entries or opened.connection.paused:
        return
    states = engine.states.read(job.tenant, job.connection)
    if states is None or states.connection.health != "ok":
        return
    if seconds_until(states.connection.not_before, engine.clock.now()) > 0:
        return
    now = hub_time(engine.clock.now())
    applier = Applier(engine, job.tenant, ENTITIES[job.entity], opened, "", careful=True)
    try:
        applier.apply([Snapshot(Change(each.rid, None), now, each.time, hint=True) for each in entries])
    except StoreUnavailable:
        raise
    except HubError as error:
        failures.push_failed(engine, job, states, error)
        return
    for entry in entries:
        engine.held.close(entry)


def _still_open(engine: Engine, job: Job, claims: Sequence[Claim]) -> list[Claim]:
    """Those whose outcome is open. The others' workers died before the create was sent, or after it was settled."""
    now = engine.clock.now()
    begun = timedelta(seconds=engine.tuning.push_start_seconds) + CLOCK_MARGIN
    left = []
    for claim in claims:
        # A younger one may be about to be sent.
        if parse_instant(claim.again) + begun < now and not has_open_create(
            engine.records.find(job.tenant, job.entity, claim.record), job.connection
        ):
            engine.held.release([claim])
        else:
            left.append(claim)
    return left


def waiting(engine: Engine, job: Job, lane: str, deliveries: int = 1) -> None:  # noqa: ARG001  # a handler's parameters
    """Looks at the records of a connection that wait for others, of one entity and some buckets if the job names them:
    those whose others are there now are pushed.
    """
    opened = engine.open(job.tenant, job.connection)
    states = engine.states.read(job.tenant, job.connection)
    if opened is None or states is None:
        return
    left = False
    for entity, sync in opened.connection.entities.items():
        if sync.pushes and job.entity in ("", entity):
            for bucket in job.buckets or layout.BUCKETS:
                left |= _reopened(engine, job, opened, entity, bucket)
    if not left and not job.entity and states.connection.waiting:
        with suppress(RowChanged):
            engine.states.save_connection(
                job.tenant, job.connection, replace(states.connection, waiting=False)
            )


def _reopened(engine: Engine, job: Job, opened: Opened, entity: str, bucket: str) -> bool:
    """Whether a record of the bucket still waits."""
    waits = engine.records.open_items(job.tenant, entity, bucket, kind="wait", connection=job.connection)
    ids = [record_id for _, _, record_id in waits]
    if not ids:
        return False
    pusher = Pusher(engine, job.tenant, ENTITIES[entity], opened, loaded=True, in_time=lambda: True)
    left = pusher.reopen(ids)
    wake(engine, job.tenant, entity, pusher.wakes)
    return left


def _forget_events(engine: Engine, job: Job) -> None:
    """Nobody is told of them any more."""
    for bucket in job.buckets or layout.BUCKETS:
        events = engine.records.events(job.tenant, job.entity, bucket, job.connection)
        for portion in portions(events, MAX_TRANSACTION_OPERATIONS):
            engine.records.close_events(job.tenant, job.entity, bucket, job.connection, portion)


def _let_go(engine: Engine, job: Job) -> None:
    """The connection is no more: nothing of it is open."""
    sides = engine.sides(job.tenant, job.entity)
    if job.connection in sides:
        return
    _forget_events(engine, job)
    for bucket in job.buckets or layout.BUCKETS:
        ids = dict.fromkeys(  # a record can wait there for several things
            record_id
            for _, uid, record_id in engine.records.open_items(job.tenant, job.entity, bucket)
            if uid == job.connection
        )
        writes = []
        for record_id in ids:
            stored = engine.records.get(job.tenant, job.entity, record_id)
            if stored is not None and isinstance(stored.content, Record):
                record = stored.content
                link = record.links[job.connection]
                closed = replace(
                    link, wants=False, attempt=None, deleting=None, inflight={}, conflict={}, refused={}, waits={},
                    parked={}, failed={}, why={},
                )  # fmt: skip
                reviews = tuple(each for each in record.reviews if each["connection"] != job.connection)
                after = replace(record.with_link(job.connection, closed), reviews=reviews)
                assert not any(uid == job.connection for _, uid in open_items(after))
                writes.append(RecordWrite(stored.id, stored, after))
        save(engine, job.tenant, job.entity, writes)
