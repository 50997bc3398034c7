"""A caller's long batch: many writes of one entity, carried out at the remote system as a run of mode `batch`.

What is promised. Each operation gets one outcome, saved part by part (PART_SIZE operations) before the next part is
begun, and a worker that lost the run's ETag stops. So a crash, or a message delivered twice, can repeat at most the
operations of one part. A repeat does no second harm:

- a create bears an id of ours, from the run and its index (or from the caller's key): where the system takes it, the
  record is made once, and the repeat finds it;
- before an update is repeated, the record is read: if it holds what was to be written, the update is done. If it does
  not and has moved on from If-Match, nobody can tell any more whose edit that was: the outcome is 412 and says so;
- a repeated delete of what is gone is done.

The remote's limits and outages are waited for as a pull does, and the run goes on where it was. An operation at which
the system fails again and again (ITEM_TRIES times) although it can be read keeps its error and holds up nobody. A run that gives up leaves
no operation without an outcome: what was not begun, and what may have been carried out, say so.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any

from crm_core.connector import STOPPING, Change, Outcome, Query, Write
from crm_core.errors import (
    Bug,
    HubError,
    NotBegun,
    RecordGone,
    Recovery,
    Stale,
    StoreUnavailable,
)
from crm_core.log import Log
from crm_core.model.fields import hub_time, seconds_until
from crm_core.model.json_text import dump_json
from crm_core.model.state import Problem, Run
from crm_core.ports import Meter, RowChanged, measured
from crm_core.retry import Retry, decide
from crm_core.storage import layout
from crm_core.storage.state import States
from crm_core.sync import failures, watching
from crm_core.sync.engine import Engine, Job, Opened, calls_with
from crm_core.sync.results import (
    COUNTED,
    Progress,
    Result,
    closed,
    forget_items,
    items_of,
    part_name,
    part_of,
    result_of,
)

_log = Log("crm_core.sync")

CAREFUL_DELIVERY = 3
"""From this delivery of a message on, operations are carried out one by one, so that one that raises is found."""
ATTEMPTS = 10
"""A run fails when the system has not answered this often in a row: about half an hour."""
ITEM_TRIES = 3


def batch(engine: Engine, job: Job, lane: str, deliveries: int = 1) -> None:
    """Works on one slice of a batch; what is not done continues in another message.

    Raises what is a bug or trouble of our own storage; the message then comes again.
    """
    run = engine.runs.get(job.tenant, job.run) if job.run else None
    if run is None or run.mode != "batch":
        return
    if run.ended:
        forget_items(engine, job.tenant, run)  # the worker died after the row said so
        return
    opened = engine.open(job.tenant, job.connection)
    states = engine.states.read(job.tenant, job.connection) if opened else None
    if opened is None or states is None:
        with suppress(RowChanged):
            failures.end_run(engine, job.tenant, closed(run), "NotFound", "The connection was deleted.")
            forget_items(engine, job.tenant, run)
        return
    wait = seconds_until(states.connection.not_before, engine.clock.now())
    if wait > 0:
        engine.send(layout.FRESH, job, wait)
        return
    with measured() as meter:
        _Batch(engine, job, lane, opened, states, run, meter, careful=deliveries >= CAREFUL_DELIVERY).work()


class _Batch:
    def __init__(
        self,
        engine: Engine,
        job: Job,
        lane: str,
        opened: Opened,
        states: States,
        run: Run,
        meter: Meter,
        *,
        careful: bool,
    ) -> None:
        self.engine = engine
        self.job = job
        self.opened = opened
        self.states = states
        self.run = run
        self.calls = run.calls
        self.meter = meter
        self.careful = careful
        self.progress = Progress.of(run)
        self.answered_before = self.progress.answered
        self.slice_end = engine.slice_end(lane)

    def work(self) -> None:
        self.items = items_of(self.engine, self.job.tenant, self.run)
        number = self.progress.part_at_hand(self.run)
        known = part_of(self.engine, self.job.tenant, self.run, number)
        try:
            self._take(number, known)
            stop = self._parts(number, known)
            if stop is not None:
                self._stopped(stop)
            elif self.run.read < self.progress.total:
                self._continue()
            else:
                self._succeed()
        except RowChanged:
            _log.info("batch", outcome="in the hands of another worker")

    def _take(self, number: int, known: Mapping[int, Result]) -> None:
        """Says in the row that a worker is at it; whoever had it before loses its ETag."""
        unsure = set(self.progress.unsure)
        if self.progress.open:
            unsure.update(index for index in self._range(number) if index not in known)
        self.progress = replace(self.progress, open=True, unsure=sorted(unsure))
        started = self.run.started_at or hub_time(self.engine.clock.now())
        if not self.run.started_at:
            failures.begun(self.run)
        self._save(status="running", started_at=started)

    def _range(self, number: int) -> range:
        first = number * self.progress.size
        return range(first, min(first + self.progress.size, self.progress.total))

    def _parts(self, number: int, known: dict[int, Result]) -> HubError | None:
        """Part after part; gives what stopped them, None at the end or when the slice's time is up."""
        while todo := [index for index in self._range(number) if index not in known]:
            stop = self._attempt(todo, known)
            self._checkpoint(number, known)
            if stop is not None:
                return stop
            if all(index in known for index in todo):
                number, known = number + 1, {}
            if not self._in_time():
                return None
        return None

    def _in_time(self) -> bool:
        return self.engine.clock.monotonic() < self.slice_end

    # --- carrying out --------------------------------------------------------------------------------------------

    def _attempt(self, todo: Sequence[int], known: dict[int, Result]) -> HubError | None:
        """Adds what becomes known of these operations; gives the error that stopped them, if one did."""
        writes: dict[int, Write] = {}
        for index in todo:
            item = self.items[index]
            if isinstance(item, Write):
                writes[index] = item
            else:
                known[index] = Result(index, Outcome(error=item))
        results = [
            result_of(self.opened, index, writes[index], outcome) for index, outcome in self._outcomes(writes)
        ]
        return self._note(results, known)

    def _outcomes(self, writes: Mapping[int, Write]) -> Iterator[tuple[int, Outcome]]:
        """What may have been sent before comes last, one by one, as each is looked at."""
        unsure = set(self.progress.unsure)
        alone = [index for index in writes if self.careful or index in unsure]
        together = [index for index in writes if index not in alone]
        if together:
            outcomes = self.opened.connector.write(
                self.job.entity, [writes[index] for index in together], self.engine.pool, self._in_time
            )
            yield from zip(together, outcomes, strict=True)
            if any(_stops(outcome.error) for outcome in outcomes):
                return
        for position, index in enumerate(alone):
            if (position or together) and not self._in_time():
                return
            outcome = self._alone(writes[index], unsure=index in unsure)
            yield index, outcome
            if _stops(outcome.error):
                return

    def _alone(self, write: Write, *, unsure: bool) -> Outcome:
        try:
            return self._settle(write) if unsure else self._write_one(write)
        except Exception as error:
            if not self.careful:
                raise
            _log.bug("operation set aside", error)
            return Outcome(
                error=Bug(f"A fault of the hub ({type(error).__name__}); look before you repeat this.")
            )

    def _write_one(self, write: Write) -> Outcome:
        return self.opened.connector.write_one(self.job.entity, write)

    def _settle(self, write: Write) -> Outcome:
        """A write that may have been carried out before: looked at before it is repeated."""
        if write.verb == "create":
            return self._write_one(write)  # its key finds what an earlier try made
        try:
            held = self.opened.connector.get(self.job.entity, write.rid)
        except RecordGone as error:
            return Outcome() if write.verb == "delete" else Outcome(error=error)
        except HubError as error:
            return Outcome(error=error)
        if write.verb == "update" and self._holds(held, write):
            return Outcome(held)
        if write.verb == "update" and write.if_match and held.etag != write.if_match:
            return Outcome(
                error=Stale(
                    "The record has changed since it was read, and whether this update was carried out before that "
                    "is not known; read it again."
                )
            )
        return self._write_one(write)

    def _holds(self, held: Change, write: Write) -> bool:
        """Whether a record has the values of a write, as they are or as the system stores them. A native property may
        not be in the answer: then not. What the system never tells goes with something that it does.
        """
        have = held.fields or {}
        emap = self.opened.connector.map(self.job.entity).of(have)
        known, maps = emap.entity.by_name, emap.by_field
        told = {
            name: value
            for name, value in write.fields.items()
            if name not in emap.parts and (name not in maps or maps[name].readable)
        }

        def holds(name: str, value: Any) -> bool:
            return any(known[name].same(have.get(name), each) for each in (value, emap.canon(name, value)))

        return all(holds(name, value) for name, value in told.items()) and all(
            name in held.raw and held.raw[name] == value for name, value in write.native.items()
        )

    def _note(self, results: Sequence[Result], known: dict[int, Result]) -> HubError | None:
        """Keeps what became of writes; gives the error that stops the batch, if one does."""
        tries, unsure = dict(self.progress.tries), set(self.progress.unsure)
        stops: list[HubError] = []
        failed = [each for each in results if _may_be_its_own(each.outcome.error)]
        if failed and self._system_answers():
            tries |= {str(each.index): tries.get(str(each.index), 0) + 1 for each in failed}
        for result in results:
            error, index = result.outcome.error, result.index
            if isinstance(error, NotBegun):
                continue
            if error is None or not _stops(error) or tries.get(str(index), 0) >= ITEM_TRIES:
                known[index] = result
                tries.pop(str(index), None)
                unsure.discard(index)
                continue
            stops.append(error)
            if getattr(error, "outcome_unknown", False):
                unsure.add(index)
        answered = self.progress.answered + sum(not _stops(each.outcome.error) for each in results)
        self.progress = replace(self.progress, tries=tries, unsure=sorted(unsure), answered=answered)
        return max(stops, key=_weight, default=None)

    def _system_answers(self) -> bool:
        """Whether it can be read while a write fails: then the failure may be that write's own, and no outage."""
        try:
            self.opened.connector.query(self.job.entity, Query(top=1))
        except HubError:
            return False
        return True

    # --- saving --------------------------------------------------------------------------------------------------

    def _save(self, **changes: Any) -> None:
        calls = calls_with(self.calls, self.meter)
        run = replace(self.run, cursor=vars(self.progress), calls=calls, **changes)
        self.run = self.engine.runs.save(self.job.tenant, run)

    def _checkpoint(self, number: int, known: Mapping[int, Result]) -> None:
        """The outcomes of a part, then the row that names them; what they replace goes."""
        tenant, blob = self.job.tenant, self.engine.blob
        before = part_of(self.engine, tenant, self.run, number) if number < len(self.run.parts) else {}
        minimal, raw = self.progress.minimal, self.progress.raw
        mark = self.engine.ids.uuid()[:8]
        data = [known[index].to_json(minimal=minimal, raw=raw) for index in sorted(known)]
        blob.put(part_name(tenant, self.run, number, mark), dump_json(data))
        counts = dict(self.run.counts)
        for index in known.keys() - before.keys():
            result = known[index]
            name = "failed" if result.outcome.error is not None else COUNTED[result.verb]
            counts[name] = counts.get(name, 0) + 1
        old = self.run.parts[number] if number < len(self.run.parts) else ""
        read = self.run.read + len(known) - len(before)
        self._save(parts=(*self.run.parts[:number], mark), counts=counts, read=read)
        if old:
            blob.delete(part_name(tenant, self.run, number, old))

    def _continue(self) -> None:
        self.progress = replace(self.progress, open=False)
        self._save(slices=self.run.slices + 1, problem=None)
        failures.goes_on(self.run)
        failures.recovered(self.engine, self.job, self.states.connection)
        self.engine.send(layout.BULK, replace(self.job, attempt=0))

    def _succeed(self) -> None:
        """All operations have an outcome, be it a refusal."""
        self.progress = replace(self.progress, open=False)
        now = hub_time(self.engine.clock.now())
        self._save(status="succeeded", ended_at=now, problem=None)
        failures.told(self.run)
        forget_items(self.engine, self.job.tenant, self.run)
        failures.recovered(self.engine, self.job, self.states.connection)

    def _stopped(self, error: HubError) -> None:
        """The system asks to wait, does not answer, or needs a person: the run waits, or fails with the rest not begun."""
        self.progress = replace(self.progress, open=False)
        engine, job, connection = self.engine, self.job, self.states.connection
        now = hub_time(engine.clock.now())
        problem = Problem(error.code, error.message, now)
        if isinstance(error, StoreUnavailable):
            self._save(problem=problem)
            raise error
        attempt = job.attempt + 1
        if self.progress.answered > self.answered_before:
            health = "ok" if connection.health == "unreachable" else connection.health
            attempt, connection = 1, replace(connection, failures=0, health=health)
        decision = decide(error, max(attempt, connection.failures + 1), engine.ids.fraction())
        counts = isinstance(decision, Retry) and decision.counts
        delay = decision.delay if isinstance(decision, Retry) else 0.0
        again = isinstance(decision, Retry) and (not counts or attempt < ATTEMPTS)
        failures.tell("batch stopped", error, attempt, delay if again else None)
        if again:
            self._save(problem=problem)
            failures.connection_failed(engine, job, connection, error, delay, problem)
            again_job = replace(job, attempt=attempt if counts else attempt - 1)
            watching.come_back(engine, layout.FRESH, again_job, delay)
            return
        self.run = closed(self.run)
        self._save(status="failed", ended_at=now, problem=problem)
        failures.told(self.run)
        failures.connection_failed(engine, job, connection, error, delay, problem)
        forget_items(engine, job.tenant, self.run)


def _stops(error: HubError | None) -> bool:
    return error is not None and error.recovery in STOPPING


def _may_be_its_own(error: HubError | None) -> bool:
    return error is not None and error.recovery is Recovery.RETRY and not isinstance(error, StoreUnavailable)


def _weight(error: HubError) -> tuple[bool, float]:
    """Of several errors the one to act on: what needs a person, then what asks for the longest wait."""
    return error.recovery is Recovery.ATTENTION, getattr(error, "retry_after", None) or 0.0
