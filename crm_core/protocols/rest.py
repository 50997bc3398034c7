"""The REST client of one connection: addresses below its base URL, its token, short retries, clear errors."""

import json as jsonlib
import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, quote_plus

from crm_core.connector import Account, Answer, Request, Tools, Window
from crm_core.errors import (
    AuthFailed,
    BadAnswer,
    BadRequest,
    FieldError,
    HubError,
    NotPermitted,
    RateLimited,
    RecordGone,
    Rejected,
    Unavailable,
    VendorError,
    VersionMismatch,
)
from crm_core.model.json_text import dump_json
from crm_core.protocols.budget import Budget
from crm_core.protocols.guard import Origins, path_and_query, split_url, stays_below
from crm_core.protocols.http import attempt_number, request_id
from crm_core.protocols.limits import MAX_WAIT_SECONDS, Limits
from crm_core.retry import JITTER

if TYPE_CHECKING:
    from crm_core.protocols.auth import Auth

ATTEMPTS = 3
BACKOFF_SECONDS = (0.2, 0.8)
RATE_LIMIT_REPEATS = 2
REFRESHES = 2
"""Forced ones after a 401: the first may bring a token that another instance left, and that is void as well."""
REQUEST_SECONDS = 30.0
MAX_RETRY_AFTER_SECONDS = 86400.0
MAX_MESSAGE = 500
EXCERPT = 4000
REPEATABLE_METHODS = frozenset({"GET", "HEAD", "OPTIONS", "PUT", "DELETE"})

# What may stand unencoded (RFC 3986 section 3.3 and 3.4). OData keys and options use $ ( ) , ' : @ and /.
_SAFE_IN_PATH = "/%()=,'@$:!*+&;~"
_SAFE_IN_NAME = "$@()',*:!/~"
_SAFE_IN_VALUE = "$@()',*:!/~"
_SAFE_IN_QUERY = "%&=;+?$@()',*:!/~"

_deadline: ContextVar[float | None] = ContextVar("deadline", default=None)
"""Of the verb that is under way, by the monotonic clock."""

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]+")
"""And half characters, which no store takes: a system that cuts its own words in the middle of one sends them."""
_CREDENTIALS = (
    (re.compile(r"\b(bearer|basic|zoho-oauthtoken)\s+[\w.~+/=-]{6,}", re.IGNORECASE), r"\1 ***"),
    (re.compile(r"\beyJ[\w-]{4,}\.[\w-]*(\.[\w-]*)?"), "***"),
    (
        re.compile(
            r"\b(client_secret|access_token|refresh_token|id_token|client_assertion|password|api_?key|sig)"
            r"(\"\s*:\s*\"|=)[^\s\"&]+",
            re.IGNORECASE,
        ),
        r"\1\2***",
    ),
)


@dataclass(frozen=True)
class _Call:
    """One call of `Rest.call`, ready to be sent as often as needed."""

    method: str
    url: str
    headers: Mapping[str, str]
    body: bytes | None
    repeatable: bool
    expect: Collection[int]
    deadline: float
    seen: list[str] = field(repr=False)
    """Values of credential headers so far: they never reach a message."""
    timeout: float = REQUEST_SECONDS


class Rest:
    """Calls one system below `base_url` with the credentials of one connection. Safe for many threads.

    `explain`: the connector's reading of a refusing answer (`Connector.explain`). `concurrency`: calls at a time;
    `windows`: calls in a time.
    """

    def __init__(
        self,
        account: Account,
        tools: Tools,
        *,
        system: str,
        base_url: str,
        auth: "Auth",
        origins: Origins,
        explain: Callable[[Answer], HubError],
        concurrency: int,
        windows: Sequence[Window] = (),
    ) -> None:
        """Raises BadRequest if `base_url` is no absolute http(s) URL, or has a query."""
        parts = split_url(base_url)
        if parts.query:
            raise BadRequest("The base address has a query (?...); leave it out.")
        self.base_url = parts.geturl().rstrip("/")
        self._connection = account.uid
        self._secrets = tuple(account.secrets.values())
        self._tools = tools
        self._system = system
        self._auth = auth
        self._origins = origins
        self._explain = explain
        self._limits = Limits(tools.clock, concurrency)
        self._budget = Budget(account, tools, windows)

    def call(
        self,
        method: str,
        path: str,
        *,
        query: Sequence[tuple[str, str]] | str = (),
        headers: Mapping[str, str] | None = None,
        json: Any = None,
        body: bytes | None = None,
        repeatable: bool | None = None,
        expect: Collection[int] = (),
        timeout: float = REQUEST_SECONDS,
    ) -> Answer:
        """The answer, if its status is 2xx or in `expect`.

        `path`: below the base, values in it percent-encoded by the caller. `query`: pairs, or text that is
        encoded already (of a link). `body`: instead of `json`. `repeatable`: sending it twice does no harm
        (default: by method). `timeout`: seconds for one try. Repeats only with waits of at most 2 s and within `Tools.call_deadline`.
        Raises what `explain` makes of any other status, AuthFailed after one forced token refresh,
        Unavailable, BadAnswer, Misconfigured (credentials may not go there), BadRequest (path, body, guard).
        """
        url = self.url(path, query)
        self._origins.check(url)
        sent_headers = {"Accept": "application/json", **(headers or {})}
        if json is not None:
            body = dump_json(json)
            if not any(name.lower() == "content-type" for name in sent_headers):
                sent_headers["Content-Type"] = "application/json"
        once_more = method.upper() in REPEATABLE_METHODS if repeatable is None else repeatable
        deadline = _deadline.get() or self._tools.clock.monotonic() + self._tools.call_deadline
        call = _Call(method.upper(), url, sent_headers, body, once_more, expect, deadline, [], timeout)
        return self._repeat(call)

    @contextmanager
    def verb(self) -> Iterator[None]:
        """The calls inside share the time that one verb has: a caller waits for all of them."""
        if _deadline.get() is not None:
            yield
            return
        token = _deadline.set(self._tools.clock.monotonic() + self._tools.call_deadline)
        try:
            yield
        finally:
            _deadline.reset(token)

    def follow(self, link: str, *, headers: Mapping[str, str] | None = None) -> Answer:
        """GET of a link from an answer; only its path and query are taken. Raises BadAnswer, and as `call`."""
        path, _, query = path_and_query(link, self.base_url).partition("?")
        return self.call("GET", path, query=query, headers=headers)

    def reach(self) -> Answer:
        """What the base address answers without credentials, in one try; a 401 proves as well that it is there.

        Raises what `explain` makes of a 5xx, Unavailable, Misconfigured (certificate), BadRequest (guard).
        """
        deadline = self._tools.clock.monotonic() + self._tools.call_deadline
        call = _Call("GET", self.base_url, {"Accept": "application/json"}, None, True, (), deadline, [])
        try:
            answer = self._send(call, {})
        except VendorError as failed:
            raise self._filled(call, failed) from None
        if answer.status >= 500:
            raise self._explained(call, answer)
        return answer

    def part_error(self, answer: Answer) -> HubError:
        """The error that a refusing part of a batch's answer means."""
        return self._explained(_Call("POST", self.base_url, {}, None, False, (), 0.0, []), answer)

    def url(self, path: str, query: Sequence[tuple[str, str]] | str = ()) -> str:
        """The address of a path below the base, encoded; raises BadRequest for one that leads out of it."""
        relative = path.removeprefix("/")
        if path.startswith("//") or re.search(r"[?#]|^[A-Za-z][\w+.-]*:/", path) or not stays_below(relative):
            raise BadRequest("The path leads out of the connection's base address.")
        url = self.base_url
        if relative:
            url += "/" + quote(relative, safe=_SAFE_IN_PATH)
        if isinstance(query, str):
            text = quote(query, safe=_SAFE_IN_QUERY)
        else:
            text = "&".join(
                f"{quote(name, safe=_SAFE_IN_NAME)}={quote(value, safe=_SAFE_IN_VALUE)}"
                for name, value in query
            )
        return f"{url}?{text}" if text else url

    def _repeat(self, call: _Call) -> Answer:
        clock = self._tools.clock
        failures = rate_limits = 0
        unknown = False
        while True:
            error: HubError
            try:
                answer = self._attempt(call, failures + rate_limits + 1)
                if 200 <= answer.status < 300 or answer.status in call.expect:
                    return answer
                if unknown and call.method == "DELETE" and answer.status in (404, 410):
                    return answer  # the try whose answer was lost has deleted it
                error = self._explained(call, answer)
            except VendorError as failed:
                error = self._filled(call, failed)
            # One try with an unknown outcome leaves it unknown, whatever the later ones say.
            unknown = unknown or (isinstance(error, VendorError) and error.outcome_unknown)
            if unknown and isinstance(error, VendorError):
                error.outcome_unknown = True
            delay: float | None = None
            spread = 0.0
            if isinstance(error, RateLimited):
                rate_limits += 1
                # Without an answer it is our own limit, which has waited.
                delay = (
                    error.retry_after if error.vendor_status and rate_limits <= RATE_LIMIT_REPEATS else None
                )
                spread = JITTER * self._tools.ids.fraction()  # or all who wait come back at once
            elif isinstance(error, Unavailable) and (call.repeatable or not error.outcome_unknown):
                failures += 1
                delay = self._backoff(failures, error) if failures < ATTEMPTS else None
            if delay is None or delay > MAX_WAIT_SECONDS or clock.monotonic() + delay >= call.deadline:
                raise error
            clock.sleep(delay * (1 + spread))

    def _backoff(self, failures: int, error: Unavailable) -> float:
        wait = BACKOFF_SECONDS[failures - 1] * (1 + 0.5 * self._tools.ids.fraction())
        return max(wait, error.retry_after or 0.0)

    def _attempt(self, call: _Call, number: int) -> Answer:
        """One try: with a 401, a forced refresh and the same again (a 401 was not carried out)."""
        token = attempt_number.set(number)
        try:
            credentials = self._auth.headers()
            answer = self._send(call, credentials)
            for _ in range(REFRESHES):
                if answer.status != 401 or 401 in call.expect:
                    return answer
                fresh = self._auth.headers(force=True, rejected=credentials)
                if fresh == credentials:
                    return answer
                credentials, answer = fresh, self._send(call, fresh)
                if self._auth.asked():
                    break
            if answer.status == 401 and 401 not in call.expect:
                self._auth.invalidate()
            return answer
        finally:
            attempt_number.reset(token)

    def _send(self, call: _Call, credentials: Mapping[str, str]) -> Answer:
        for value in credentials.values():
            call.seen.extend((value, value.rpartition(" ")[2]))
        left = call.deadline - self._tools.clock.monotonic()
        if left <= 0:
            raise Unavailable("The time for this call is over.", timeout=True)
        request = Request(
            call.method,
            call.url,
            {**call.headers, **credentials},
            call.body,
            timeout=min(call.timeout, left),
            repeatable=call.repeatable,
        )
        self._budget.take()
        with self._limits.call():
            answer = self._tools.transport.send(request, connection=self._connection)
        self._budget.told(answer.headers)
        return answer

    def _explained(self, call: _Call, answer: Answer) -> HubError:
        error = self._explain(answer)
        if isinstance(error, VendorError):
            error.vendor_status = error.vendor_status or answer.status
            error.request_id = error.request_id or request_id(answer.headers)
        if isinstance(error, Unavailable) and not _surely_refused(answer):
            # Only a 503 that asks to come again says that nothing was done; a gateway's 502 or 504, or a
            # server's 500, may come after the write.
            error.outcome_unknown = True
        error = self._filled(call, error)
        if isinstance(error, RateLimited):
            self._limits.throttled(error)
        return error

    def _filled(self, call: _Call, error: HubError) -> HubError:
        secrets = (*self._secrets, *call.seen)
        if isinstance(error, VendorError):
            error.system = error.system or self._system
            error.vendor_code = redact(error.vendor_code, secrets)
        error.message = redact(error.message, secrets)
        error.args = (error.message,)
        error.errors = tuple(FieldError(each.field, redact(each.message, secrets)) for each in error.errors)
        return error


@contextmanager
def after_writing() -> Iterator[None]:
    """For reads after a write that was carried out: where one fails, what came of the write can't be told, but the
    write must not look like one that can be repeated.
    """
    try:
        yield
    except VendorError as error:
        error.outcome_unknown = True
        error.message = f"Written, but what came of it can't be read: {error.message}"
        raise


def retry_after(headers: Mapping[str, str], now: datetime | None = None) -> float | None:
    """Seconds that a Retry-After header asks for (RFC 9110 section 10.2.3), 0 to one day; None without one.

    A date counts from the answer's own Date header (the clocks may differ), else from `now`.
    """
    text = headers.get("retry-after", "").strip()
    if re.fullmatch(r"[+-]?[0-9]{1,15}(\.[0-9]{1,15})?", text, re.ASCII):
        seconds = float(text)
    else:
        until, since = _http_date(text), _http_date(headers.get("date", "")) or now
        if until is None or since is None:
            return None
        seconds = (until - since).total_seconds()
    return min(MAX_RETRY_AFTER_SECONDS, max(0.0, seconds))


def _http_date(text: str) -> datetime | None:
    try:
        date = parsedate_to_datetime(text)
        return date.replace(tzinfo=UTC) if date.tzinfo is None else date.astimezone(UTC)
    except (ValueError, TypeError, IndexError, OverflowError):
        return None


def redact(text: str, secrets: Collection[str] = ()) -> str:
    """A vendor's text without the given secrets (as they are, URL- or JSON-encoded), without what looks like
    credentials, without control and half characters, at most 500 characters.
    """
    forms: set[str] = set()
    for secret in secrets:
        if len(secret) >= 4:
            forms |= {secret, quote(secret, safe=""), quote_plus(secret), jsonlib.dumps(secret)[1:-1]}
    longest_first = sorted(forms, key=len, reverse=True)
    for form in longest_first:
        text = text.replace(form, "***")
    text = _CONTROL.sub(" ", text)
    for pattern, replacement in _CREDENTIALS:
        text = pattern.sub(replacement, text)
    return text if len(text) <= MAX_MESSAGE else text[: MAX_MESSAGE - 3] + "..."


def explain_status(answer: Answer, system: str, *, now: datetime | None = None) -> HubError:
    """What a refusing answer means by its status alone (DESIGN.md section 6); connectors refine it.

    Message and code are taken from the usual places of a JSON body, as they are: `Rest`, which knows the
    secrets, redacts and shortens them (shortened before, half a secret could stay).
    """
    status = answer.status
    code, text = _reason(answer)
    message = f"{system or 'The system'} answered {status}: {text or 'no reason given'}"
    vendor: dict[str, Any] = {
        "system": system,
        "vendor_status": status,
        "vendor_code": code,
        "request_id": request_id(answer.headers),
    }
    if status == 429:
        return RateLimited(message, retry_after=retry_after(answer.headers, now), **vendor)
    if status >= 500:
        return Unavailable(
            message,
            retry_after=retry_after(answer.headers, now),
            timeout=status == 504,
            outcome_unknown=not _surely_refused(answer),
            **vendor,
        )
    kinds: dict[int, type[VendorError]] = {
        400: Rejected,
        401: AuthFailed,
        403: NotPermitted,
        404: RecordGone,
        409: VersionMismatch,
        410: RecordGone,
        412: VersionMismatch,
        422: Rejected,
    }
    return kinds.get(status, BadAnswer)(message, **vendor)


def _surely_refused(answer: Answer) -> bool:
    """Whether an answer says that the request was not carried out: any 4xx, or a 503 that names a time."""
    return answer.status < 500 or (answer.status == 503 and "retry-after" in answer.headers)


def _reason(answer: Answer) -> tuple[str, str]:
    """(code, message) from a body such as {"error": {"code", "message"}}, {"message"}, {"error", "error_description"};
    else the beginning of the text.
    """
    try:
        body = answer.json()
    except BadAnswer:
        return "", answer.excerpt(EXCERPT)
    if isinstance(body, list) and body:
        body = body[0]
    inner = body.get("error", body) if isinstance(body, dict) else None
    if isinstance(inner, dict):
        message = inner.get("message", "")
        code = inner.get("code", "")
    elif isinstance(body, dict) and isinstance(inner, str):
        message, code = body.get("error_description", "") or inner, inner
    else:
        return "", answer.excerpt(EXCERPT)
    shown = code if isinstance(code, str) else str(code) if isinstance(code, int) else ""
    return shown, message if isinstance(message, str) else answer.excerpt(EXCERPT)
