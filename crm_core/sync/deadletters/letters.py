"""The rows of the table `deadletters`: messages that failed at every delivery, webhooks among them, and remote records
that could not be taken in.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, NoReturn

from crm_core.errors import BadRequest, Conflict, NotFound
from crm_core.model.connection import Tenant
from crm_core.model.fields import hub_time
from crm_core.model.state import Mode
from crm_core.ports import RowChanged
from crm_core.storage import layout
from crm_core.storage.events import Inbound
from crm_core.storage.journal import Letter
from crm_core.sync import intake, starting
from crm_core.sync.deadletters.base import Place, Waiting, Wanted
from crm_core.sync.engine import Engine, Job, Opened

MAX_PAYLOAD = 40 * 1024
"""Of UTF-8: a message with it has room in the queue."""
SENT_AGAIN = frozenset({"push", "hints", "held", "waiting"})
"""Jobs that look for themselves what is left to do."""
RUNS: Mapping[str, Mode] = {"pull": "incremental", "widen": "push"}
"""Jobs of runs: the run is over, so that a new one does the work."""
EDITED = "edited"
"""Stands in an event that a person made from another one where the fingerprint of its proof would."""


_ID = re.compile(r"[A-Za-z0-9._-]{1,100}")


@dataclass
class Letters:
    engine: Engine
    tenant: Tenant
    by: str = ""

    def page(self, wanted: Wanted, place: Place, top: int) -> tuple[list[Waiting], Place | None]:
        found, after = self.engine.dead_letters.page(self.tenant, top=top, after=place.get("after", ""))
        return [each for each in map(_waiting, found) if wanted.has(each)], {
            "after": after
        } if after else None

    def find(self, waiting_id: str) -> Waiting | None:
        if "~" in waiting_id:
            return None
        letter = self._letter(waiting_id)
        return replace(_waiting(letter), payload=self._payload(letter))

    def plan(self, waiting: Waiting) -> Mapping[str, Any]:
        return self._steps(waiting)[1]

    def replay(self, waiting: Waiting) -> None:
        letter = self._letter(waiting.id)
        do, _ = self._steps(waiting)
        do()
        if letter.kind != "event" or letter.edited:  # else `intake.replay` has closed it
            self._close(letter, "replayed")

    def discard(self, waiting: Waiting, reason: str) -> None:
        self._close(self._letter(waiting.id), "discarded", reason)

    def edit(self, waiting: Waiting, payload: str) -> Waiting:
        letter = self._letter(waiting.id)
        if "edit" not in waiting.ways:
            raise Conflict(
                f"A dead letter of kind {letter.kind} has no payload to be edited; replay it as it is, or discard it."
            )
        if len(payload.encode()) > MAX_PAYLOAD:
            raise BadRequest.field("payload", f"payload: is longer than {MAX_PAYLOAD} bytes; shorten it.")
        if letter.kind != "event":
            self._job(payload)
        try:
            edited = self.engine.dead_letters.edit(self.tenant, letter, payload, self.by)
        except RowChanged:
            raise _busy() from None
        return replace(_waiting(edited), payload=payload)

    def finish(self) -> None:
        """Nothing is put off."""

    # --- what is to be done --------------------------------------------------------------------------------------

    def _steps(self, waiting: Waiting) -> tuple[Callable[[], None], Mapping[str, Any]]:
        """(what a replay does, what it is in words). Raises Conflict or BadRequest where it can't be done."""
        letter = self._letter(waiting.id)
        if letter.cut:
            raise Conflict("Only a part of this message was kept, for it is too long; discard it.")
        if letter.kind == "record":
            return self._read_again(letter.connection, letter.entity, letter.rid)
        if letter.kind == "event":
            return self._event(letter)
        job = self._job(self._payload(letter) or "")
        if job.kind in RUNS:
            return self._new_run(job)
        if job.kind in SENT_AGAIN:
            opened = self._opened(job.connection)
            if job.entity not in opened.connection.entities and (job.entity or job.kind != "waiting"):
                _wrong(f"entity: {opened.connection.slug} has no '{job.entity}'")
            again = replace(job, attempt=0, trace="")
            return lambda: self.engine.send(layout.FRESH, again), _told("send the message again", again)
        raise Conflict(
            f"A message of kind {job.kind} can't be replayed, for its work is over; its run says what became of it. Discard it."
        )

    def _read_again(self, uid: str, entity: str, rid: str) -> tuple[Callable[[], None], Mapping[str, Any]]:
        opened = self._opened(uid)
        if not rid:
            raise Conflict(
                "The record was not made there yet; shorten its texts over /api/records, and discard this."
            )
        if not opened.connector.polls:
            raise Conflict(
                f"{opened.connection.slug} can't be asked for a record: replay the webhook that told of it "
                "(GET /api/events, POST /api/events/{id}/replay), and discard this."
            )
        sync = opened.connection.entities.get(entity)
        if sync is None or not sync.pulls:
            raise Conflict(f"{opened.connection.slug} does not read {entity} any more; discard it.")
        told = {"would": "read the record again at the remote system", "entity": entity, "remote_id": rid}
        return lambda: intake.look_again(self.engine, self.tenant, uid, entity, [rid]), told

    def _event(self, letter: Letter) -> tuple[Callable[[], None], Mapping[str, Any]]:
        opened = self._opened(letter.connection)
        found = self._inbound(letter)
        if found is None:
            raise Conflict("Of this webhook nothing is left; discard it.")
        if letter.payload is not None:
            event_id = layout.newest_first(
                int(self.engine.clock.now().timestamp() * 1000), self.engine.ids.uuid()
            )
            found = Inbound(
                event_id, hub_time(self.engine.clock.now()), EDITED, found.headers, letter.payload.encode()
            )
        events, outcome = intake.told_by(opened, found)
        told = {
            "would": "do the work of the webhook again",
            "outcome": outcome,
            "reads": [{"entity": each.entity, "remote_id": each.rid} for each in events],
        }

        def do() -> None:
            if letter.payload is None:
                intake.replay(self.engine, self.tenant, letter.connection, found, self.by)
                return
            self.engine.events.open(self.tenant, letter.connection, found)
            self.engine.send(
                layout.FRESH, Job("event", self.tenant, letter.connection, event={"id": found.id})
            )

        return do, told

    def _new_run(self, job: Job) -> tuple[Callable[[], None], Mapping[str, Any]]:
        opened = self._opened(job.connection)
        run = self.engine.runs.get(self.tenant, job.run) if job.run else None
        if run is not None and run.mode == "apply":
            raise Conflict(f"Apply the plan again by POST /api/runs/{run.of}/apply, or discard this.")
        asked = starting.Asked.of_run(run) if run is not None else starting.Asked(RUNS[job.kind])

        def do() -> None:
            starting.start(self.engine, opened, [job.entity], asked, self.by)

        starting.may_start(self.engine, opened, [job.entity], asked)
        return do, {"would": "start a run", "mode": asked.mode, "entity": job.entity}

    # --- what is there -------------------------------------------------------------------------------------------

    def _letter(self, letter_id: str) -> Letter:
        """Raises NotFound, which says what became of one that is closed."""
        good = _ID.fullmatch(letter_id)
        letter = self.engine.dead_letters.get(self.tenant, letter_id) if good else None
        if letter is None:
            raise NotFound(f"There is no dead letter '{letter_id}'; GET /api/deadletters lists them.")
        if letter.closed:
            closed = letter.closed
            why = f": {closed['reason']}" if closed.get("reason") else ""
            raise NotFound(
                f"The dead letter '{letter_id}' was {closed['how']} by {closed.get('by', 'somebody')} at {closed['time']}{why}"
            )
        return letter

    def _payload(self, letter: Letter) -> str | None:
        """What a replay works on, as a person sees and edits it."""
        if letter.payload is not None:
            return letter.payload
        if letter.kind == "record":
            return None
        found = self._inbound(letter) if letter.kind == "event" else None
        return found.body.decode("utf-8", "replace") if found is not None else letter.body

    def _inbound(self, letter: Letter) -> Inbound | None:
        """The webhook with its body, as it came."""
        found = self.engine.events.get(self.tenant, letter.connection, letter.id)
        return self.engine.events.whole(found) if found is not None else None

    def _job(self, text: str) -> Job:
        """Raises BadRequest for what is no message of this tenant."""
        try:
            job = Job.from_message(text)
        except (ValueError, KeyError, TypeError, RecursionError):
            _wrong("is no message of the hub: JSON with v, job, tenant, connection and entity")
        if job.tenant != self.tenant:
            _wrong("is a message of another tenant")
        if not (isinstance(job.connection, str) and isinstance(job.entity, str) and isinstance(job.run, str)):
            _wrong("connection, entity and run are texts")
        known = sorted({*RUNS, *SENT_AGAIN})
        if job.kind not in known:
            _wrong(f"job: expected one of {', '.join(known)}; others can't be done again")
        return job

    def _opened(self, uid: str) -> Opened:
        """Raises Conflict for a connection that is gone, Misconfigured for one that can't be opened."""
        opened = self.engine.open(self.tenant, uid) if uid else None
        if opened is None:
            raise Conflict(f"The connection '{uid}' is not there any more; discard it.")
        return opened

    def _close(self, letter: Letter, how: str, reason: str = "") -> None:
        try:
            self.engine.dead_letters.close(self.tenant, letter, how, self.by, reason)
        except RowChanged:
            raise _busy() from None


def _waiting(letter: Letter) -> Waiting:
    about = {"remote_id": letter.rid, "queue": letter.queue, "edited": dict(letter.edited)}
    if letter.kind == "event":
        about["event"] = letter.id
    return Waiting(
        letter.id,
        letter.kind,
        letter.connection,
        letter.entity,
        letter.code or letter.kind,
        letter.field,
        letter.cause,
        letter.time,
        ("replay", "discard") if letter.kind == "record" else ("replay", "edit", "discard"),
        {name: value for name, value in about.items() if value},
    )


def _told(would: str, job: Job) -> Mapping[str, Any]:
    about = {"job": job.kind, "connection": job.connection, "entity": job.entity}
    return {"would": would, **{name: value for name, value in about.items() if value}}


def _wrong(what: str) -> NoReturn:
    raise BadRequest.field("payload", f"payload: {what}. Edit it by PATCH, or discard it.")


def _busy() -> Conflict:
    return Conflict("Somebody else has just changed this dead letter; look at it again.")
