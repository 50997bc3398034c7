"""A Dynamics 365 environment as a system of the sandbox: what the frame asks of it, and the way to the Web API."""

import copy
import re
import uuid
from datetime import datetime, timedelta
from email.utils import format_datetime

from sandbox.dynamics365 import batch, business, hooks, samples
from sandbox.dynamics365.auth import Auth
from sandbox.dynamics365.errors import UNSUPPORTED, Refused, no_segment
from sandbox.dynamics365.org import OPTIONS, Identity, Org, stamp
from sandbox.dynamics365.routes import Api
from sandbox.dynamics365.schema import TABLES, Entity
from sandbox.dynamics365.writing import Caller, Writer
from sandbox.frame import Fault, Faults, Frame, Refusal, Request, RequestLog, Response, Throttle
from sandbox.store import Clock, Store, Values

VERSION = re.compile(r"/api/data/(v9\.[012])(?:/(.*))?")
LIMITS = {
    "requests": (
        "0x80072322",
        "Number of requests exceeded the limit of {n} over time window of {w} seconds.",
    ),
    "seconds": (
        "0x80072321",
        "Combined execution time of incoming requests exceeded limit of {s} milliseconds over time window of {w} seconds. Decrease number of concurrent requests or reduce the duration of requests and try again later.",
    ),
    "concurrent": ("0x80072326", "Number of concurrent requests exceeded the limit of {c}."),
}


class Dataverse:
    """A Dynamics 365 environment. ``handle`` is the whole of it: request in, answer out."""

    name = "dynamics365"
    main_tables = ("account", "contact")
    side_tables = (*business.MAKERS,)

    def __init__(
        self,
        identity: Identity | None = None,
        seed: int = 1,
        clock: Clock | None = None,
        options: Values | None = None,
    ) -> None:
        clock = clock or Clock()
        self._start_options = {**OPTIONS, **hooks.OPTIONS, **(options or {})}
        self.frame = Frame(
            clock,
            Store(clock, stamp, views={e.name: e.view for e in TABLES.values() if e.view}),
            Faults(),
            Throttle(clock),
            RequestLog(clock, ("client_secret", "client_assertion")),
            copy.deepcopy(self._start_options),
        )
        self.org = Org(self.frame, identity or Identity(), seed)
        self.auth = Auth(self.org)
        self.writer = Writer(self.org)
        self.api = Api(self.org, self.writer)
        self.org.seed_rows()
        self.hooks = hooks.Hooks(self.frame, self.org.id, seed)
        self.frame.store.watch = self.hooks.committed

    # --- what the frame asks of every system -------------------------------------------------------------

    def describe(self, origin: str) -> Values:
        """What a client needs to connect."""
        identity = self.org.identity
        return {
            "system": self.name, "url": origin, "api": f"{origin}/api/data/v9.2/", "tenant": identity.tenant,
            "authority": f"{origin}/{identity.tenant}", "token_url": f"{origin}/{identity.tenant}/oauth2/v2.0/token",
            "client_id": identity.client_id, "client_secret": identity.client_secret, "scope": f"{origin}/.default",
        }  # fmt: skip

    def origins(self, names: set[str]) -> None:
        """The origins under which this server is known: audiences that tokens are given out for."""
        self.org.origins = names

    def caller_of(self, request: Request) -> str | None:
        """Whom a request counts against; None for what is not throttled."""
        if not request.path.startswith("/api/"):
            return None
        return self.org.app_user

    def handle(self, request: Request) -> Response:
        try:
            match = VERSION.fullmatch(request.path)
            if match is not None:
                self.auth.check(request)
                return self._decorate(request, self._api(request, match[1], match[2] or ""))
            parts = request.path.strip("/").split("/")
            return self.auth.handle(request, parts) or no_segment(parts[0]).response()
        except Refused as refused:
            return self._decorate(request, refused.response())

    def fault_response(self, fault: Fault, _request: Request) -> Response:
        """A fault's answer in the vendor's shape."""
        status = fault.status or {"throttle": 429, "privilege": 403}.get(fault.kind, 503)
        if fault.kind == "privilege":
            missing = self.org.privilege_missing(fault.code or "prvWriteAccount")
            return self._decorate(None, missing.response())
        if fault.kind == "throttle" or (fault.kind == "status" and status == 429):
            code, text = LIMITS.get(fault.code or "requests", (fault.code, fault.message))
            text = fault.message or text.format(n=6000, w=300, s=1200000, c=52)
        else:
            code, text = fault.code, fault.message or "The service is temporarily unavailable."
        headers = {
            **fault.headers,
            **self._retry_after(
                fault.retry_after if fault.retry_after is not None else (10 if status == 429 else None)
            ),
        }
        response = Refused(status, code, text, headers).response()
        # A limit is told by the service itself; other failures can be those of what stands before it.
        return self._decorate(None, response) if fault.kind == "throttle" else response

    def refusal_response(self, refusal: Refusal) -> Response:
        """A protection limit was hit (service protection API limits)."""
        limits = self.frame.throttle.limits
        code, text = LIMITS[refusal.limit]
        text = text.format(
            n=limits.requests, w=int(limits.window), s=int(limits.seconds * 1000), c=limits.concurrent
        )
        return self._decorate(
            None, Refused(429, code, text, {"Retry-After": str(refusal.retry_after)}).response()
        )

    def fill(self, table: str, count: int, seed: int) -> int:
        return samples.fill(self.org, table, count, seed)

    def filled(self, table: str) -> bool:
        return bool(self.frame.store.table(table).rows)

    def tables(self) -> list[str]:
        return list(TABLES)

    def revoke(self) -> int:
        return self.auth.revoke()

    def reset(self) -> None:
        """Empty, with the options of the start. Versions go on: delta tokens from before are expired."""
        self.frame.store.clear()
        self.frame.options.clear()
        self.frame.options.update(copy.deepcopy(self._start_options))
        self.org.results.clear()
        self.org.first_version = self.frame.store.version + 1
        self.frame.store.version += 1
        self.org.seed_rows()

    def loaded(self) -> None:
        """Rows came from a file; nothing hangs on them here."""

    def _person(self, lag: float | None, at: datetime | None) -> Caller:
        return Caller(
            self.org.person, checked=False, lag=self.org.options["lag"] if lag is None else lag, at=at
        )

    def _changeable(self, table: str) -> Entity:
        """A table whose rows people change themselves."""
        entity = TABLES[table]
        if "create" not in entity.operations:
            raise Refused(400, UNSUPPORTED, f"Rows of '{table}' are not written by themselves.")
        return entity

    def person_create(self, table: str, values: Values, lag: float | None, at: datetime | None) -> Values:
        entity = self._changeable(table)
        key = self.writer.create(entity, dict(values), self._person(lag, at))
        return self.show(table, key) or {"id": key, "pending": True}

    def person_update(
        self, table: str, key: str, values: Values, lag: float | None, at: datetime | None
    ) -> Values:
        self._changeable(table)
        entity, row = self.api.row(table, key)
        self.writer.update(entity, row, dict(values), self._person(lag, at))
        return self.show(table, key) or {}

    def person_delete(self, table: str, key: str, lag: float | None) -> None:
        self._changeable(table)
        entity, row = self.api.row(table, key)
        self.writer.delete(entity, row, self._person(lag, None))

    def person_merge(self, table: str, key: str, into: str) -> None:
        entity, subordinate = self.api.row(table, key)
        _, target = self.api.row(table, into)
        self.writer.merge(entity, target, subordinate, {}, self._person(0.0, None))

    def show(self, table: str, key: str) -> Values | None:
        """A row as stored, for control."""
        row = self.frame.store.get(table, key)
        return (
            None
            if row is None
            else {
                "id": row.id,
                "version": row.version,
                "values": {k: v for k, v in row.values.items() if v is not None},
            }
        )

    # --- the Web API --------------------------------------------------------------------------------------

    def _api(self, request: Request, version: str, rest: str) -> Response:
        if rest == "$batch":
            return batch.handle(
                self.api, self.frame, self.fault_response, self.refusal_response, request, version
            )
        return self.api.handle(request, version, rest)

    # --- headers ------------------------------------------------------------------------------------------

    def _decorate(self, request: Request | None, response: Response) -> Response:
        """The headers that every answer of the API has."""
        requests, seconds = self.frame.throttle.remaining(self.org.app_user)
        service = str(uuid.UUID(int=self.org.random.getrandbits(128), version=4))
        headers = {
            "x-ms-service-request-id": service, "REQ_ID": service, "Allow": "OPTIONS,GET,HEAD,POST",
            "x-ms-ratelimit-burst-remaining-xrm-requests": str(requests),
            "x-ms-ratelimit-time-remaining-xrm-requests": f"{seconds:,.2f}", "x-ms-dop-hint": "4",
        }  # fmt: skip
        if request is not None and "x-ms-client-request-id" in request.headers:
            headers["x-ms-client-request-id"] = request.headers["x-ms-client-request-id"]
        return Response(response.status, {**headers, **response.headers}, response.body)

    def _retry_after(self, value: str | int | None) -> dict[str, str]:
        if value is None:
            return {}
        text = str(value)
        if text.startswith("date:"):
            at = self.org.now() + timedelta(seconds=int(text.removeprefix("date:")))
            text = format_datetime(at.replace(microsecond=0), usegmt=True)
        return {"Retry-After": text}
