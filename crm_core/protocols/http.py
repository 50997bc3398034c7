"""HTTP through the egress guard: the one `Transport` of the hub.

Connections dial the address that the guard judged (so a name can't be resolved to something else after it
was allowed); certificate and SNI go by the host's name. Nothing comes from the environment. `requests` and
`urllib3` are imported with the first request.
"""

import re
import socket
import ssl
import threading
from collections import OrderedDict
from collections.abc import Mapping
from contextlib import closing
from contextvars import ContextVar
from dataclasses import replace
from typing import TYPE_CHECKING, Any
from urllib.parse import SplitResult

from crm_core.connector import Answer, Request
from crm_core.errors import BadAnswer, BadRequest, HubError, Misconfigured, Unavailable
from crm_core.log import Log, current_trace, new_span, quiet_libraries, traceparent
from crm_core.ports import Clock, count
from crm_core.protocols.guard import Guard, port_of
from crm_core.protocols.shown import shown_path, shown_query

if TYPE_CHECKING:
    import requests
    from urllib3.connection import HTTPConnection
    from urllib3.connectionpool import HTTPConnectionPool

_log = Log("crm_core.http")

CONNECT_SECONDS = 10.0
READ_SECONDS = 30.0
CAP_BYTES = 64 * 1024 * 1024
"""The longest answer, after decompression."""
CHUNK_BYTES = 64 * 1024
MAX_ORIGINS = 64
REQUEST_ID_HEADERS = ("x-ms-service-request-id", "x-ms-request-id", "request-id", "x-request-id", "req_id")

_FAILURES = frozenset(each.__name__ for each in (Unavailable, BadAnswer, Misconfigured))

attempt_number: ContextVar[int] = ContextVar("attempt_number", default=1)
"""Which attempt the caller is at, for the log line."""


def request_id(headers: Mapping[str, str]) -> str:
    """The vendor's id of a request from its answer's headers (names in lower case), fit for a log line."""
    found = next((headers[name] for name in REQUEST_ID_HEADERS if headers.get(name)), "")
    return re.sub(r"[^\w.:|-]", "", found, flags=re.ASCII)[:80]


class _Exchange:
    """One request on its way: when it has to be over, and whether any of it may have left this machine."""

    def __init__(self, clock: Clock, seconds: float) -> None:
        self._clock = clock
        self._deadline = clock.monotonic() + seconds
        self.sent = False

    def remaining(self) -> float:
        """Seconds left; raises TimeoutError at the end."""
        left = self._deadline - self._clock.monotonic()
        if left <= 0:
            raise TimeoutError("the time for the whole exchange is over")
        return left


_current: ContextVar[_Exchange | None] = ContextVar("exchange", default=None)


class _Timed(socket.socket):
    """A socket whose every wait ends with the exchange: a server that sends one byte at a time can't hold a
    thread longer than the request allows. (A socket's own timeout starts anew with every byte.)
    """

    def _limit(self, *, sending: bool = False) -> None:
        exchange = _current.get()
        if exchange is None:
            return
        left, own = exchange.remaining(), self.gettimeout()
        self.settimeout(left if own is None else min(left, own))
        if sending:
            exchange.sent = True

    def recv_into(self, *args: Any, **kwargs: Any) -> int:
        self._limit()
        return super().recv_into(*args, **kwargs)

    def send(self, *args: Any, **kwargs: Any) -> int:
        self._limit(sending=True)
        return super().send(*args, **kwargs)

    def sendall(self, *args: Any, **kwargs: Any) -> None:
        self._limit(sending=True)
        super().sendall(*args, **kwargs)


class _TimedTls(_Timed, ssl.SSLSocket):
    """The same over TLS. The handshake is no sending: nothing of the request has left before it is done."""


class Http:
    """Sends requests for all connections; safe for many threads. `ca_bundle`: a file of CAs to trust as well."""

    def __init__(
        self,
        guard: Guard,
        clock: Clock,
        *,
        ca_bundle: str = "",
        connect_timeout: float = CONNECT_SECONDS,
        cap_bytes: int = CAP_BYTES,
        pool: int = 32,
    ) -> None:
        self._guard = guard
        self._clock = clock
        self._ca_bundle = ca_bundle
        self._connect_timeout = connect_timeout
        self._cap_bytes = cap_bytes
        self._pool = pool
        self._sessions: OrderedDict[str, requests.Session] = OrderedDict()
        self._context: ssl.SSLContext | None = None
        self._lock = threading.Lock()
        quiet_libraries()

    def send(self, request: Request, *, connection: str) -> Answer:
        """Any status is an answer, redirects too. One log line, one "remote_calls" if anything went out.

        The trace of the work in hand goes along as `traceparent`, the line bears its span.

        Raises BadRequest (guard, header), Unavailable (no connection, timeout, broken off), BadAnswer (too
        long, not decodable), Misconfigured (the certificate is not trusted). No message holds path, query,
        header or body. The name look-up alone is bounded by the resolver, not by the request's timeout.
        """
        parts = self._guard.check_url(request.url)
        check_headers(request.headers)
        exchange = _Exchange(self._clock, request.timeout)
        token = _current.set(exchange)
        started = self._clock.monotonic()
        trace, span = current_trace(), ""
        if trace:
            span = new_span()
            request = replace(request, headers={**request.headers, "traceparent": traceparent(trace, span)})
        answer, failure = None, "bug"
        try:
            answer = self._exchange(request, parts, exchange)
        except HubError as error:
            failure = error.code
            raise
        finally:
            _current.reset(token)
            milliseconds = round((self._clock.monotonic() - started) * 1000)
            _count(connection, str(answer.status) if answer else failure, milliseconds, sent=exchange.sent)
            _log.info(
                "remote request",
                connection=connection,
                method=request.method,
                host=parts.netloc,
                path=shown_path(parts.path),
                query=shown_query(parts.query),
                status=answer.status if answer else None,
                error=None if answer else failure,
                ms=milliseconds,
                attempt=attempt_number.get(),
                request_id=request_id(answer.headers) if answer else "",
                span=span,
            )
        return answer

    def close(self) -> None:
        """Closes idle connections; the next request opens new ones."""
        with self._lock:
            sessions = list(self._sessions.values())
            self._sessions.clear()
        for session in sessions:
            session.close()

    def _exchange(self, request: Request, parts: SplitResult, exchange: _Exchange) -> Answer:
        import requests
        import urllib3

        session = self._session(parts)
        try:
            prepared = session.prepare_request(
                requests.Request(request.method, parts.geturl(), request.headers, data=request.body)
            )
            timeout = (min(self._connect_timeout, request.timeout), min(READ_SECONDS, request.timeout))
            with closing(
                session.send(prepared, stream=True, timeout=timeout, allow_redirects=False)
            ) as response:
                body = self._read(response, exchange)
                headers = {name.lower(): value for name, value in response.headers.items()}
                return Answer(response.status_code, headers, body)
        except (requests.RequestException, urllib3.exceptions.HTTPError, OSError, ValueError) as error:
            # Their texts hold the URL with its query, and they carry the request with its headers:
            # raised below, outside of this block, so that no traceback shows them.
            failure = _failure(error, exchange, parts.hostname or "")
        raise failure

    def _read(self, response: "requests.Response", exchange: _Exchange) -> bytes:
        """The decompressed body, or BadAnswer as soon as it is over the cap."""
        chunks, size = [], 0
        for chunk in response.iter_content(CHUNK_BYTES):
            size += len(chunk)
            if size > self._cap_bytes:
                raise BadAnswer(
                    f"The answer is longer than {self._cap_bytes} bytes; ask for less at once.",
                    vendor_status=response.status_code,
                )
            chunks.append(chunk)
            exchange.remaining()
        return b"".join(chunks)

    def _session(self, parts: SplitResult) -> "requests.Session":
        key = f"{parts.scheme}://{parts.netloc}"
        with self._lock:
            session = self._sessions.get(key)
            if session is None:
                if parts.scheme == "https" and self._context is None:
                    self._context = _tls_context(self._ca_bundle)
                session = _new_session(parts.scheme, _new_pool(parts, self._guard, self._context, self._pool))
                self._sessions[key] = session
            self._sessions.move_to_end(key)
            oldest = self._sessions.popitem(last=False)[1] if len(self._sessions) > MAX_ORIGINS else None
        if oldest is not None:
            oldest.close()  # connections in use are closed when they come back
        return session


def _count(connection: str, outcome: str, milliseconds: int, *, sent: bool) -> None:
    """A call is what went out; a failure is also what could not. A refusal (4xx) is an answer, a 429 is a failure."""
    if sent:
        count("remote_calls", connection=connection)
        count("remote_milliseconds", connection=connection, amount=milliseconds)
    if outcome == "429":
        count("remote_rate_limits", connection=connection)
    if outcome == "429" or outcome.startswith("5") or outcome in _FAILURES:
        count("remote_failures", connection=connection)


def _tls_context(ca_bundle: str) -> ssl.SSLContext:
    """Trusts the public CAs and those in the file `ca_bundle`. Raises Misconfigured if it can't be read."""
    import certifi
    from urllib3.util.ssl_ import create_urllib3_context

    context = create_urllib3_context()
    context.load_verify_locations(certifi.where())
    if ca_bundle:
        try:
            context.load_verify_locations(ca_bundle)
        except OSError as error:  # ssl.SSLError is one
            raise Misconfigured(f"CA_BUNDLE names no readable file of PEM certificates ({error}).") from None
    context.sslsocket_class = _TimedTls
    return context


def _new_session(scheme: str, pool: "HTTPConnectionPool") -> "requests.Session":
    """A session for one origin over its pool, with nothing from the environment."""
    import requests
    from requests.adapters import HTTPAdapter
    from requests.cookies import RequestsCookieJar

    class Adapter(HTTPAdapter):
        def get_connection_with_tls_context(self, *_: Any, **__: Any) -> "HTTPConnectionPool":
            return pool

        def cert_verify(self, *_: Any, **__: Any) -> None:
            """The pool's TLS context says what is trusted."""

        def close(self) -> None:
            super().close()
            pool.close()

    class NoCookies(RequestsCookieJar):
        """Connections of several tenants share a session: a cookie would carry one's state to another.
        (Dataverse spreads load over its servers when its affinity cookie is not sent back.)
        """

        def set_cookie(self, *_: Any, **__: Any) -> None:
            return None

    class Session(requests.Session):
        def get_redirect_target(self, resp: "requests.Response") -> None:  # noqa: ARG002  # requests names it
            """None: or requests would read the body of a redirect, without our cap, to prepare the next one."""
            return

    session = Session()
    session.trust_env = False
    session.cookies = NoCookies()
    session.headers.clear()
    session.headers.update({"User-Agent": "crm-hub", "Accept": "*/*", "Accept-Encoding": "gzip, deflate"})
    for prefix in list(session.adapters):
        session.adapters.pop(prefix).close()
    session.mount(f"{scheme}://", Adapter())
    return session


def _new_pool(
    parts: SplitResult, guard: Guard, context: ssl.SSLContext | None, size: int
) -> "HTTPConnectionPool":
    """Connections to one origin that dial only addresses which the guard gives."""
    import urllib3
    from urllib3.connection import HTTPConnection, HTTPSConnection

    class Plain(HTTPConnection):
        def _new_conn(self) -> socket.socket:
            return _dial(self, guard)

    class Tls(HTTPSConnection):
        def _new_conn(self) -> socket.socket:
            return _dial(self, guard)

    host, port = parts.hostname or "", port_of(parts)
    if parts.scheme == "https":
        secure = urllib3.HTTPSConnectionPool(host, port, maxsize=size, retries=False, ssl_context=context)
        secure.ConnectionCls = Tls
        return secure
    plain = urllib3.HTTPConnectionPool(host, port, maxsize=size, retries=False)
    plain.ConnectionCls = Plain
    return plain


def _dial(connection: "HTTPConnection", guard: Guard) -> socket.socket:
    """A socket to the host of a urllib3 connection, by an address that the guard gives.

    The addresses are tried in order and share the connect timeout. Raises BadRequest, Unavailable.
    """
    exchange = _current.get()
    assert exchange is not None
    addresses = guard.addresses(connection.host, connection.port)
    seconds = connection.timeout if isinstance(connection.timeout, int | float) else CONNECT_SECONDS
    timed_out = False
    for address in addresses:
        dialled = _Timed(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_STREAM)
        try:
            for option in connection.socket_options or ():
                dialled.setsockopt(*option)
            dialled.settimeout(min(exchange.remaining(), seconds / len(addresses)))
            dialled.connect((address, connection.port))
            # The TLS handshake comes next and has the whole connect timeout.
            dialled.settimeout(min(exchange.remaining(), seconds))
        except OSError as error:
            dialled.close()
            timed_out = timed_out or isinstance(error, TimeoutError)
        except BaseException:
            dialled.close()
            raise
        else:
            return dialled
    reason = "it does not answer in time" if timed_out else "it refuses or can't be reached"
    raise Unavailable(f"No connection to '{connection.host}': {reason}.", timeout=timed_out)


def _failure(error: Exception, exchange: _Exchange, host: str) -> HubError:
    """What a failed exchange means, from the library's error and from what was sent."""
    import requests
    import urllib3

    chain = _chain(error)
    certificate = next((each for each in chain if isinstance(each, ssl.SSLCertVerificationError)), None)
    if certificate is not None:
        return Misconfigured(
            f"The certificate of '{host}' is not trusted ({certificate.verify_message}). If a private CA "
            "signed it, name that CA's file in CA_BUNDLE."
        )
    if isinstance(error, requests.exceptions.ContentDecodingError):
        return BadAnswer(f"The answer of '{host}' can't be decompressed.")
    if not exchange.sent and isinstance(
        error, requests.exceptions.InvalidURL | requests.exceptions.InvalidHeader
    ):
        return BadRequest(f"The request to '{host}' has a URL or header that can't be sent.")
    timeouts = (TimeoutError, requests.Timeout, urllib3.exceptions.TimeoutError)
    if any(isinstance(each, timeouts) for each in chain):
        return Unavailable(f"'{host}' did not answer in time.", timeout=True, outcome_unknown=exchange.sent)
    if any(isinstance(each, ssl.SSLError | urllib3.exceptions.SSLError) for each in chain):
        return Unavailable(f"The TLS connection to '{host}' failed.", outcome_unknown=exchange.sent)
    return Unavailable(f"The connection to '{host}' broke off.", outcome_unknown=exchange.sent)


def _chain(error: BaseException) -> list[BaseException]:
    """An error with all that it wraps, by cause, context, `reason` or argument."""
    found: list[BaseException] = []
    waiting: list[Any] = [error]
    while waiting:
        each = waiting.pop()
        if isinstance(each, BaseException) and not any(each is known for known in found):
            found.append(each)
            waiting += [each.__cause__, each.__context__, getattr(each, "reason", None), *each.args]
    return found


def check_headers(headers: Mapping[str, str]) -> None:
    """Raises BadRequest, naming the header only, for what would break the request apart."""
    for name, value in headers.items():
        if not re.fullmatch(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+", name):
            raise BadRequest("A header's name is not valid.")
        if re.search(r"[^\x20-\x7e\t\xa0-\xff]", value) or value != value.strip():
            raise BadRequest(
                f"The value of the header '{name}' can't be sent: it has characters that don't fit."
            )
