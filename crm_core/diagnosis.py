"""What is wrong with a connection: each part of the way to its records is tried by a real call.

A check uses nothing that a process keeps: settings, secrets and token are read or asked for anew. It changes
nothing that lasts, and its words hold no secret and no token.
"""

import threading
from collections.abc import Callable, Mapping
from contextvars import copy_context
from dataclasses import dataclass, field, replace
from queue import Empty, SimpleQueue
from typing import Any, Literal

from crm_core.connection_admin import ConnectionAdmin
from crm_core.connector import Connector, Query, Tools
from crm_core.errors import (
    AuthFailed,
    BadRequest,
    FieldError,
    HubError,
    Misconfigured,
    NotSupported,
    RateLimited,
    StoreUnavailable,
    Unavailable,
)
from crm_core.log import Log
from crm_core.model.connection import Connection
from crm_core.model.fields import hub_time
from crm_core.model.record import SCHEMA_VERSION
from crm_core.ports import Blob, Clock, Pool, Queue, Row, Secrets, StoreError, Table, Value
from crm_core.storage import layout

_log = Log("crm_core.diagnosis")

CHECKS = ("settings", "secrets", "token", "connectivity", "permission", "storage", "queues")
"""In the order in which they are told."""
NEEDS: Mapping[str, tuple[str, ...]] = {
    "token": ("settings", "secrets"),
    "connectivity": ("settings", "secrets"),
    "permission": ("token", "connectivity"),
}
"""What can't be tried, or would only repeat the failure, unless these succeeded."""
TOTAL_SECONDS = 90.0
"""For all of them (a live call has 100 s)."""
CHECK_SECONDS = 15.0
LONGER: Mapping[str, float] = {"token": 20.0, "permission": 30.0}
"""A token is two requests; each entity is read."""
CALL_SECONDS = 12.0
"""For one call of the remote: it fails by its own name before its check is given up."""
WIDTH = 4
THREAD = "crmhub-diagnose"

Status = Literal["ok", "failed", "skipped"]
Outcome = tuple[Mapping[str, Any], Exception | None]
"""What a check found, and why it failed all the same."""


@dataclass(frozen=True)
class Finding:
    """What one check gave. `found`: facts; `code` and `message`: why it failed or was skipped; `remedy`: what to do."""

    check: str
    status: Status
    milliseconds: int = 0
    found: Mapping[str, Any] = field(default_factory=dict)
    code: str = ""
    message: str = ""
    remedy: str = ""


class _Work:
    """One check at work in a thread of its own: however slow it is, it costs the others nothing.

    Whoever waits no longer leaves it to its own timeouts. Its calls are counted as the caller's.
    """

    def __init__(self, call: Callable[[], Outcome], clock: Clock) -> None:
        self._call = call
        self._clock = clock
        self.began = clock.monotonic()
        self._done: SimpleQueue[tuple[Outcome, float]] = SimpleQueue()
        run = copy_context().run
        threading.Thread(target=run, args=(self._run,), name=THREAD, daemon=True).start()

    def _run(self) -> None:
        try:
            outcome = self._call()
        except (HubError, StoreError) as error:
            outcome = {}, error
        except Exception as error:  # noqa: BLE001  # the other checks are told all the same
            _log.bug("check failed", error)
            outcome = {}, error
        self._done.put((outcome, self._clock.monotonic()))

    def result(self, until: float) -> tuple[Outcome, int] | None:
        """(outcome, milliseconds); None if it is not there by then (a monotonic time)."""
        try:
            outcome, ended = self._done.get(timeout=max(0.0, until - self._clock.monotonic()))
        except Empty:
            return None
        return outcome, round((ended - self.began) * 1000)


@dataclass
class _Case:
    """One diagnosis on its way."""

    connection: Connection
    end: float
    bundle: Mapping[str, str] = field(default_factory=dict, repr=False)
    wrong_secrets: tuple[FieldError, ...] = ()
    connector: Connector | None = None
    findings: dict[str, Finding] = field(default_factory=dict)

    @property
    def label(self) -> str:
        return self.connector.label if self.connector else self.connection.connector

    @property
    def opened(self) -> Connector:
        assert self.connector is not None
        return self.connector


class Diagnosis:
    """Tries a connection and what the hub itself stands on. Safe for many threads."""

    def __init__(
        self,
        admin: ConnectionAdmin,
        secrets: Secrets,
        tools: Tools,
        table: Table,
        queue: Queue,
        blob: Blob,
        pool: Pool,
    ) -> None:
        self._admin = admin
        self._secrets = secrets
        self._tools = replace(tools, call_deadline=CALL_SECONDS)
        self._clock = tools.clock
        self._table = table
        self._queue = queue
        self._blob = blob
        self._pool = pool

    def of(self, connection: Connection) -> list[Finding]:
        """A finding for each of `CHECKS`, in that order, within `TOTAL_SECONDS`; raises nothing that a check meets."""
        case = _Case(connection, self._clock.monotonic() + TOTAL_SECONDS)
        storage = _Work(lambda: self._storage(connection), self._clock)
        queues = _Work(self._queues, self._clock)
        self._try(case, "secrets", lambda: self._bundle(case))
        self._try(case, "settings", lambda: self._settings(case))
        self._tell_wrong_secrets(case)
        self._try(case, "token", lambda: self._token(case))
        self._try(case, "connectivity", lambda: (case.opened.reach(), None))
        self._try(case, "permission", lambda: self._permission(case))
        self._take(case, "storage", storage)
        self._take(case, "queues", queues)
        return [case.findings[check] for check in CHECKS]

    def _try(self, case: _Case, check: str, call: Callable[[], Outcome]) -> None:
        lacking = [each for each in NEEDS.get(check, ()) if case.findings[each].status != "ok"]
        # A system without tokens skips that check, and the next one is tried.
        lacking = [each for each in lacking if case.findings[each].code != NotSupported.__name__]
        if lacking:
            message = f"Not tried: it needs {' and '.join(lacking)}."
            remedy = f"Mend {' and '.join(lacking)} first."
            case.findings[check] = Finding(check, "skipped", message=message, remedy=remedy)
            return
        if self._clock.monotonic() >= case.end:
            case.findings[check] = _late(check, 0, case)
            return
        self._take(case, check, _Work(call, self._clock))

    def _take(self, case: _Case, check: str, work: _Work) -> None:
        seconds = LONGER.get(check, CHECK_SECONDS)
        given = work.result(min(work.began + seconds, case.end))
        if given is None:
            waited = round((self._clock.monotonic() - work.began) * 1000)
            case.findings[check] = _late(check, waited, case)
            return
        (found, error), milliseconds = given
        if error is None:
            case.findings[check] = Finding(check, "ok", milliseconds, found)
            return
        status: Status = "skipped" if isinstance(error, NotSupported) else "failed"
        case.findings[check] = Finding(
            check, status, milliseconds, found, _code(error), _message(error), _remedy(check, error, case)
        )

    # --- the checks ----------------------------------------------------------------------------------------------

    def _bundle(self, case: _Case) -> Outcome:
        tenant, uid = case.connection.tenant.name, case.connection.uid
        self._secrets.invalidate(tenant, uid)  # the vault itself, not this process's copy
        case.bundle = self._secrets.get(tenant, uid) or {}
        return {"names": sorted(case.bundle)}, None

    def _settings(self, case: _Case) -> Outcome:
        """As they are checked when they are saved, and as the connector takes them."""
        try:
            case.connector = self._admin.check(case.connection, case.bundle, self._tools)
        except BadRequest as error:
            case.wrong_secrets = tuple(each for each in error.errors if each.field.startswith("secrets."))
            others = [each for each in error.errors if each not in case.wrong_secrets]
            if others or not case.wrong_secrets:
                raise BadRequest(error.message, errors=others) from None
        return {"connector": case.connection.connector}, None

    def _tell_wrong_secrets(self, case: _Case) -> None:
        """What settings and secrets can only be checked together for is the fault of the one that is named."""
        held = case.findings["secrets"]
        if held.status == "ok" and case.wrong_secrets:
            error = Misconfigured("", errors=case.wrong_secrets)
            case.findings["secrets"] = replace(
                held, status="failed", code=_code(error), message=_message(error),
                remedy=_remedy("secrets", error, case),
            )  # fmt: skip

    def _token(self, case: _Case) -> Outcome:
        token = case.opened.token(fresh=True)
        if token is None:
            raise NotSupported(f"{case.label} is called without an access token.")
        found = {"audience": token.audience, "fingerprint": token.fingerprint}
        return {**found, "expires_in_seconds": round(token.expires - self._clock.now().timestamp())}, None

    def _permission(self, case: _Case) -> Outcome:
        """Who we are there, and one record of each entity that the connection declares."""
        connector = case.opened
        who = connector.check()

        def read(entity: str) -> HubError | None:
            try:
                connector.query(entity, Query(top=1))
            except HubError as error:
                return error
            return None

        entities = list(case.connection.entities)
        errors = self._pool.map(read, entities, WIDTH)
        told = {
            entity: error.message if error else "ok" for entity, error in zip(entities, errors, strict=True)
        }
        return {**who, "entities": told}, next((error for error in errors if error), None)

    def _storage(self, connection: Connection) -> Outcome:
        """Writes, reads and deletes a row and a blob under a name that nobody else uses."""
        name = self._tools.ids.uuid()
        values: dict[str, Value] = {"v": SCHEMA_VERSION, "time": hub_time(self._clock.now())}
        row = Row(f"{connection.tenant.name}~diagnose", name, values)
        self._table.upsert(layout.KEYS, row)
        read = self._table.get(layout.KEYS, row.pk, name)
        self._table.delete(layout.KEYS, row.pk, name)
        blob, data = f"diagnose/{name}", name.encode()
        self._blob.put(blob, data)
        held = self._blob.get(blob)
        self._blob.delete(blob)
        if read is None or dict(read.values) != values or held != data:
            raise StoreUnavailable("What was read is not what was just written.")
        return {}, None

    def _queues(self) -> Outcome:
        return {name: vars(self._queue.probe(name)) for name in layout.QUEUES}, None


def _code(error: Exception) -> str:
    return error.code if isinstance(error, HubError) else type(error).__name__


def _message(error: Exception) -> str:
    """Every field's own words; nothing of an exception that may quote anything."""
    if isinstance(error, HubError):
        return " ".join(each.message for each in error.errors) or error.message
    return f"Something went wrong here ({type(error).__name__}); the hub's log has more."


_PATCH = "PATCH /api/integrations/{slug}"
_REMEDIES: Mapping[tuple[str, type[Exception] | None], str] = {
    ("settings", None): f"Correct the connection by {_PATCH}.",
    ("secrets", None): f"Save the connection's secrets again by {_PATCH}.",
    ("token", AuthFailed): f"Correct the credentials there, or here by {_PATCH}.",
    ("token", Unavailable): "Check the sign-in address and the network, and try again.",
    ("token", None): f"Check the sign-in address and the credentials of the connection; correct them by {_PATCH}.",
    ("connectivity", Unavailable): "Check the address in the connection's settings, and that network and firewalls"
    " let the hub reach it; try again.",
    ("connectivity", None): f"Correct what the message names: the address by {_PATCH}, else the hub's settings.",
    ("permission", AuthFailed): "{label} refuses a token that was just given: check that the environment's address and"
    " the tenant belong together.",
    ("permission", Unavailable): "{label} is there but does not serve; try again in some minutes.",
    ("permission", None): "Give the hub's user at {label} what the message names, such as a role with that privilege.",
    ("storage", None): "Check the setting AzureWebJobsStorage, that the hub's identity has the roles Storage Table and"
    " Blob Data Contributor, and that the account lets the hub in.",
    ("queues", None): "Check the setting AzureWebJobsStorage, that the hub's identity has the role Storage Queue Data"
    " Contributor, and that the account lets the hub in.",
}  # fmt: skip


def _late(check: str, waited: int, case: _Case) -> Finding:
    """For a check that was waited for, or not begun, so long (milliseconds)."""
    return Finding(
        check, "failed", waited, code="Timeout", message=f"No answer within {waited / 1000:.0f} s.",
        remedy=_remedy(check, Unavailable(""), case),
    )  # fmt: skip


def _remedy(check: str, error: Exception, case: _Case) -> str:
    """What to do about it, in one sentence."""
    if isinstance(error, RateLimited):
        return f"Wait {round(error.retry_after or 60)} s and try again: {case.label} counts the hub's calls."
    if isinstance(error, StoreUnavailable) and check == "secrets":
        return "Check that the storage account, or the vault in KEY_VAULT_URL, is there and lets the hub in; try again."
    text = _REMEDIES.get((check, type(error))) or _REMEDIES[check, None]
    return text.format(slug=case.connection.slug, label=case.label)
