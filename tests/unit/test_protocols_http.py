"""HTTP through the guard, against real servers on loopback."""

import gzip
import socket
import ssl
import struct
import subprocess
import sys
import threading
import time
import zlib
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

import certifi
import pytest
import trustme

from crm_core.connector import Request
from crm_core.errors import BadAnswer, BadRequest, Misconfigured, Unavailable
from crm_core.log import bound
from crm_core.ports import measured
from crm_core.protocols import http as http_module
from crm_core.protocols.guard import Guard
from crm_core.protocols.http import Http, attempt_number, request_id

ROOT = Path(__file__).resolve().parents[2]
SECRET = "planted-secret-0123"


class RealClock:
    now = staticmethod(lambda: datetime.now(UTC))
    monotonic = staticmethod(time.monotonic)
    sleep = staticmethod(time.sleep)


def answer(body=b"", *headers, status="200 OK"):
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", *headers]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


class Server:
    """Answers each request by `reply(request, connection)`: bytes, or None after it has done all itself and
    the connection is to be closed. `tls`: a server context. Keeps the requests and counts connections.
    """

    def __init__(self, reply, tls=None):
        self.reply, self.tls = reply, tls
        self.requests, self.connections = [], 0
        self.lock = threading.Lock()
        self.threads, self.open = [], []
        self.socket = socket.create_server(("127.0.0.1", 0), backlog=64)
        self.port = self.socket.getsockname()[1]
        self.url = f"{'https' if tls else 'http'}://127.0.0.1:{self.port}"
        self.acceptor = threading.Thread(target=self.accept)
        self.acceptor.start()

    def accept(self):
        while True:
            try:
                connection = self.socket.accept()[0]
            except OSError:
                return
            thread = threading.Thread(target=self.serve, args=(connection,))
            with self.lock:
                self.connections += 1
                self.threads.append(thread)
                self.open.append(connection)
            thread.start()

    def serve(self, connection):
        try:
            if self.tls:
                plain, connection = connection, self.tls.wrap_socket(connection, server_side=True)
                with self.lock:
                    self.open.remove(plain)
                    self.open.append(connection)
            while request := self.read(connection):
                with self.lock:
                    self.requests.append(request)
                reply = self.reply(request, connection)
                if reply is None:
                    return
                connection.sendall(reply)
        except OSError:
            pass
        finally:
            connection.close()

    def read(self, connection):
        data = b""
        while b"\r\n\r\n" not in data:
            part = connection.recv(65536)
            if not part:
                return b""
            data += part
        head, _, body = data.partition(b"\r\n\r\n")
        length = next(
            (int(x[15:]) for x in head.split(b"\r\n") if x.lower().startswith(b"content-length:")), 0
        )
        while len(body) < length:
            part = connection.recv(65536)
            if not part:
                return b""
            body += part
        return head + b"\r\n\r\n" + body

    def close(self):
        self.socket.shutdown(socket.SHUT_RDWR)
        self.socket.close()
        self.acceptor.join(5)
        with self.lock:
            still_open, threads = list(self.open), list(self.threads)
        for connection in still_open:
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        for thread in threads:
            thread.join(5)
            assert not thread.is_alive()


@pytest.fixture
def serve():
    servers = []

    def start(reply, tls=None):
        servers.append(Server(reply, tls))
        return servers[-1]

    yield start
    for each in servers:
        each.close()


@pytest.fixture
def make_http():
    made = []

    def make(**options):
        made.append(Http(Guard(allow_loopback=True, allow_private=False), RealClock(), **options))
        return made[-1]

    yield make
    for each in made:
        each.close()


@pytest.fixture
def http(make_http):
    return make_http()


@pytest.fixture(scope="module")
def ca():
    return trustme.CA()


@pytest.fixture(scope="module")
def ca_file(ca, tmp_path_factory):
    path = tmp_path_factory.mktemp("ca") / "ca.pem"
    ca.cert_pem.write_to_path(str(path))
    return str(path)


def tls_context(ca, *names):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    ca.issue_cert(*names).configure_cert(context)
    return context


def get(url, **options):
    return Request("GET", url, **options)


def test_an_answer_has_status_lower_case_headers_and_body(http, serve):
    server = serve(lambda *_: answer(b"hello", "X-One: 1", "ETag: W/1", status="404 Not Found"))
    with measured() as meter:
        got = http.send(
            Request("POST", f"{server.url}/a%20b(x='1')?$q=%26", {"X-Own": "yes"}, b"body"), connection="c1"
        )
    assert (got.status, got.headers["x-one"], got.headers["etag"], got.body) == (404, "1", "W/1", b"hello")
    head, _, body = server.requests[0].partition(b"\r\n\r\n")
    assert head.startswith(b"POST /a%20b(x='1')?$q=%26 HTTP/1.1\r\n")
    assert b"X-Own: yes" in head
    assert b"Accept-Encoding: gzip, deflate\r\n" in head + b"\r\n"
    assert f"Host: 127.0.0.1:{server.port}".encode() in head
    assert body == b"body"
    told = meter.counts()
    assert told.pop(("remote_milliseconds", "c1")) >= 0
    assert told == {("remote_calls", "c1"): 1}  # a refusal is an answer


def test_connections_are_kept_and_cookies_are_not(http, serve):
    server = serve(lambda *_: answer(b"x", "Set-Cookie: tenant=a; Path=/"))
    for _ in range(3):
        assert http.send(get(server.url), connection="c").headers["set-cookie"] == "tenant=a; Path=/"
    assert server.connections == 1
    assert b"ookie" not in b"".join(server.requests)


def test_nothing_comes_from_the_environment(http, serve, monkeypatch, tmp_path):
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login me password planted\n")
    for name, value in {
        "HTTP_PROXY": "http://127.0.0.1:9",
        "http_proxy": "http://127.0.0.1:9",
        "ALL_PROXY": "http://127.0.0.1:9",
        "NETRC": str(netrc),
        "REQUESTS_CA_BUNDLE": "/nowhere",
    }.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.delenv("no_proxy", raising=False)
    server = serve(lambda *_: answer(b"x"))
    assert http.send(get(server.url), connection="c").status == 200
    assert b"uthorization" not in server.requests[0]


def test_redirects_are_answers(http, serve):
    server = serve(lambda *_: answer(b"moved", f"Location: {server.url}/next", status="302 Found"))
    got = http.send(get(server.url), connection="c")
    assert (got.status, got.headers["location"], got.body) == (302, f"{server.url}/next", b"moved")
    assert len(server.requests) == 1


def test_the_endless_body_of_a_redirect_is_capped(make_http, serve):
    def reply(_, connection):
        connection.sendall(b"HTTP/1.1 302 Found\r\nLocation: /next\r\n\r\n")
        while True:
            connection.sendall(bytes(65536))

    server = serve(reply)
    with pytest.raises(BadAnswer, match="1000000 bytes"):
        make_http(cap_bytes=1_000_000).send(get(server.url, timeout=2), connection="c")


def test_compressed_answers_are_read(http, serve):
    packed = {b"gzip": gzip.compress(b"text" * 1000), b"deflate": zlib.compress(b"text" * 1000)}

    def reply(request, _):
        kind = request.split(b" ")[1][1:]
        return answer(packed[kind], f"Content-Encoding: {kind.decode()}")

    server = serve(reply)
    for kind in ("gzip", "deflate"):
        assert http.send(get(f"{server.url}/{kind}"), connection="c").body == b"text" * 1000


def test_the_cap_counts_decompressed_bytes(make_http, serve):
    bomb = gzip.compress(bytes(50_000_000))
    assert len(bomb) < 100_000
    server = serve(lambda *_: answer(bomb, "Content-Encoding: gzip"))
    with pytest.raises(BadAnswer, match="1000000 bytes"):
        make_http(cap_bytes=1_000_000).send(get(server.url), connection="c")


def test_an_answer_of_exactly_the_cap_is_read(make_http, serve):
    server = serve(lambda *_: answer(bytes(1000)))
    assert len(make_http(cap_bytes=1000).send(get(server.url), connection="c").body) == 1000
    with pytest.raises(BadAnswer):
        make_http(cap_bytes=999).send(get(server.url), connection="c")


def test_a_broken_encoding_is_a_bad_answer(http, serve):
    server = serve(lambda *_: answer(b"no gzip at all", "Content-Encoding: gzip"))
    with pytest.raises(BadAnswer, match="decompressed"):
        http.send(get(server.url), connection="c")


def drip(head, connection, stop):
    connection.sendall(head)
    while not stop.is_set():
        connection.sendall(b"x")
        time.sleep(0.02)


@pytest.mark.parametrize(
    "head",
    [b"HTTP/1.1 200 OK\r\nX-Slow: ", b"HTTP/1.1 200 OK\r\nContent-Length: 999999\r\n\r\n", b"HTTP/1.1 200 O"],
    ids=["header", "body", "status line"],
)
@pytest.mark.parametrize("secure", [False, True], ids=["http", "https"])
def test_a_slow_drip_ends_with_the_request(make_http, serve, ca, ca_file, head, secure):
    stop = threading.Event()
    server = serve(
        lambda _, connection: drip(head, connection, stop), tls_context(ca, "127.0.0.1") if secure else None
    )
    started = time.monotonic()
    try:
        with pytest.raises(Unavailable) as caught:
            make_http(ca_bundle=ca_file).send(get(server.url, timeout=0.4), connection="c")
    finally:
        stop.set()
    assert 0.3 < time.monotonic() - started < 1.5
    assert caught.value.timeout
    assert caught.value.outcome_unknown
    assert caught.value.http_status == 504


@pytest.mark.parametrize(
    ("status", "counted"),
    [
        ("200 OK", {}),
        ("412 Precondition Failed", {}),
        ("429 Too Many Requests", {"remote_rate_limits": 1, "remote_failures": 1}),
        ("500 Internal Server Error", {"remote_failures": 1}),
        ("504 Gateway Timeout", {"remote_failures": 1}),
    ],
)
def test_what_a_remote_failed_to_do_is_counted(http, serve, status, counted):
    server = serve(lambda *_: answer(b"", status=status))
    with measured() as meter:
        http.send(get(server.url), connection="c")
    told = {name: amount for (name, _), amount in meter.counts().items() if name != "remote_milliseconds"}
    assert told == {"remote_calls": 1, **counted}


def test_no_answer_in_time(http, serve):
    release = threading.Event()
    server = serve(lambda *_: release.wait(5) and None)
    try:
        with measured() as meter, pytest.raises(Unavailable, match="did not answer in time") as caught:
            http.send(get(f"{server.url}/p?{SECRET}", timeout=0.2), connection="c")
    finally:
        release.set()
    assert caught.value.timeout
    assert caught.value.outcome_unknown
    assert SECRET not in str(caught.value)
    assert meter.total("remote_calls") == 1


@pytest.mark.parametrize("secure", [False, True], ids=["http", "https"])
def test_a_server_that_does_not_read_a_long_body(make_http, ca, ca_file, secure):
    done = threading.Event()

    def accept():
        connection = server.accept()[0]
        if secure:
            connection = tls_context(ca, "127.0.0.1").wrap_socket(connection, server_side=True)
        with connection:
            done.wait(5)

    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=accept)
        thread.start()
        url = f"{'https' if secure else 'http'}://127.0.0.1:{server.getsockname()[1]}"
        started = time.monotonic()
        with pytest.raises(Unavailable) as caught:
            make_http(ca_bundle=ca_file).send(
                Request("POST", url, body=bytes(30_000_000), timeout=0.5), connection="c"
            )
        assert time.monotonic() - started < 1.5
        done.set()
        thread.join()
    assert caught.value.timeout
    assert caught.value.outcome_unknown


def reset(connection):
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


@pytest.mark.parametrize("part", [b"", b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nshort"])
def test_a_connection_that_breaks_after_the_request_left(http, serve, part):
    def reply(_, connection):
        connection.sendall(part)
        if not part:
            reset(connection)

    server = serve(reply)
    with pytest.raises(Unavailable, match="broke off") as caught:
        http.send(Request("POST", server.url, body=b"x"), connection="c")
    assert caught.value.outcome_unknown
    assert not caught.value.timeout


def test_a_refused_connection_sent_nothing(http):
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    with measured() as meter, pytest.raises(Unavailable, match="No connection to '127") as caught:
        http.send(Request("POST", f"http://127.0.0.1:{port}/?{SECRET}", body=b"x"), connection="c")
    assert not caught.value.outcome_unknown
    assert not caught.value.timeout
    assert SECRET not in str(caught.value)
    assert meter.counts() == {("remote_failures", "c"): 1}


def test_a_connect_timeout_sent_nothing(make_http):
    # A full backlog: Linux drops further SYNs.
    with socket.socket() as full:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        waiting = [socket.socket() for _ in range(4)]
        for each in waiting:
            each.setblocking(False)
            each.connect_ex(full.getsockname())
        try:
            with pytest.raises(Unavailable, match="in time") as caught:
                make_http(connect_timeout=0.2).send(
                    get(f"http://127.0.0.1:{full.getsockname()[1]}"), connection="c"
                )
        finally:
            for each in waiting:
                each.close()
    assert caught.value.timeout
    assert not caught.value.outcome_unknown


def test_a_reset_in_the_handshake_sent_nothing(http):
    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=lambda: reset(server.accept()[0]))
        thread.start()
        with measured() as meter, pytest.raises(Unavailable) as caught:
            http.send(
                Request("POST", f"https://127.0.0.1:{server.getsockname()[1]}", body=b"x"), connection="c"
            )
        thread.join()
    assert not caught.value.outcome_unknown
    assert meter.total("remote_calls") == 0


def test_a_handshake_that_never_ends_is_a_timeout(make_http):
    with socket.create_server(("127.0.0.1", 0)) as silent, pytest.raises(Unavailable) as caught:
        make_http(connect_timeout=0.2).send(
            get(f"https://127.0.0.1:{silent.getsockname()[1]}"), connection="c"
        )
    assert caught.value.timeout
    assert not caught.value.outcome_unknown


def test_an_idle_connection_that_the_server_closed_is_replaced(http, serve):
    def reply(_, connection):
        connection.sendall(answer(b"x"))

    server = serve(reply)
    for _ in range(2):
        assert http.send(Request("POST", server.url, body=b"1"), connection="c").body == b"x"
        server.threads[-1].join(5)  # the server has closed it
    assert server.connections == 2


def test_a_private_ca_is_trusted_beside_the_public_ones(make_http, serve, ca, ca_file):
    server = serve(lambda *_: answer(b"safe"), tls_context(ca, "127.0.0.1"))
    assert make_http(ca_bundle=ca_file).send(get(server.url), connection="c").body == b"safe"
    public = ssl.create_default_context(cafile=certifi.where()).cert_store_stats()["x509_ca"]
    assert http_module._tls_context("").cert_store_stats()["x509_ca"] == public
    assert http_module._tls_context(ca_file).cert_store_stats()["x509_ca"] == public + 1


def test_an_unknown_ca_names_the_setting(http, serve, ca):
    server = serve(lambda *_: answer(b"x"), tls_context(ca, "127.0.0.1"))
    with measured() as meter, pytest.raises(Misconfigured, match="CA_BUNDLE"):
        http.send(get(server.url), connection="c")
    assert meter.total("remote_calls") == 0
    assert not server.requests


def test_a_certificate_for_another_name_is_refused(make_http, serve, ca, ca_file):
    server = serve(lambda *_: answer(b"x"), tls_context(ca, "other.example"))
    with pytest.raises(Misconfigured, match="mismatch"):
        make_http(ca_bundle=ca_file).send(get(server.url), connection="c")


@pytest.mark.parametrize("content", [None, "no certificate"])
def test_a_wrong_ca_file_is_named(make_http, tmp_path, content):
    path = tmp_path / "ca.pem"
    if content:
        path.write_text(content)
    with pytest.raises(Misconfigured, match="CA_BUNDLE"):
        make_http(ca_bundle=str(path)).send(get("https://127.0.0.1:9"), connection="c")


def resolving(monkeypatch, *answers):
    calls = []

    def fake(host, port, *args, **kwargs):
        calls.append(host)
        address = answers[min(len(calls), len(answers)) - 1]
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port))]

    monkeypatch.setattr(socket, "getaddrinfo", fake)
    return calls


def test_the_judged_address_is_dialled_and_the_name_is_shown_and_verified(
    make_http, serve, ca, ca_file, monkeypatch
):
    context, shown = tls_context(ca, "sap.example"), []
    context.sni_callback = lambda _, name, __: shown.append(name)
    server = serve(lambda *_: answer(b"x"), context)
    calls = resolving(monkeypatch, "127.0.0.1", "169.254.169.254")
    http = make_http(ca_bundle=ca_file)
    url = f"https://sap.example:{server.port}/"
    assert http.send(get(url), connection="c").body == b"x"
    assert calls == ["sap.example"]
    assert shown == ["sap.example"]
    assert f"Host: sap.example:{server.port}".encode() in server.requests[0]
    # the kept connection goes on to the judged address; a new one is judged anew
    http.send(get(url), connection="c")
    assert len(calls) == 1
    http.close()
    with pytest.raises(BadRequest, match="never calls"):
        http.send(get(url), connection="c")
    assert len(calls) == 2
    assert len(server.requests) == 2


def test_the_next_address_is_tried_if_one_refuses(http, serve, monkeypatch):
    server = serve(lambda *_: answer(b"x"))

    def fake(host, port, *args, **kwargs):
        return [
            (socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port))
            for address in ("127.0.0.2", "127.0.0.1")
        ]

    monkeypatch.setattr(socket, "getaddrinfo", fake)
    assert http.send(get(f"http://localhost:{server.port}"), connection="c").body == b"x"


def test_the_guard_speaks_before_anything_is_sent(serve):
    server = serve(lambda *_: answer(b"x"))
    with measured() as meter, pytest.raises(BadRequest, match="ALLOW_LOOPBACK"):
        Http(Guard(allow_loopback=False, allow_private=True), RealClock()).send(
            get(server.url), connection="c"
        )
    assert meter.counts() == {}
    assert server.connections == 0


@pytest.mark.parametrize(
    "headers",
    [
        {"X-A": "a\r\nX-B: b"},
        {"X-A": "\u20ac"},
        {"X-A": " a"},
        {"X A": "a"},
        {"X-A\n": "a"},
        {"X-A": "a\x00"},
    ],
)
def test_headers_that_break_a_request_apart_are_refused(http, headers):
    with pytest.raises(BadRequest, match=r"[Hh]eader") as caught:
        http.send(get("http://127.0.0.1:9", headers=headers), connection="c")
    assert "X-B" not in str(caught.value)


def test_the_log_has_one_line_without_query_headers_and_bodies(http, serve, caplog, lines):
    server = serve(lambda *_: answer(SECRET.encode(), f"X-Thing: {SECRET}", "x-ms-request-id: id-1\x0b2"))
    token = attempt_number.set(2)
    try:
        http.send(
            Request(
                "PATCH",
                f"{server.url}/contacts(email='me%40{SECRET}')/x?q={SECRET}",
                {"Authorization": f"Bearer {SECRET}"},
                SECRET.encode(),
            ),
            connection="c",
        )
    finally:
        attempt_number.reset(token)
    assert SECRET not in caplog.text
    (line,) = lines()
    assert datetime.fromisoformat(line.pop("time")).tzinfo
    assert 0 <= line.pop("ms") < 5000
    assert line == {
        "level": "INFO",
        "logger": "crm_core.http",
        "event": "remote request",
        "connection": "c",
        "method": "PATCH",
        "host": f"127.0.0.1:{server.port}",
        "path": "/contacts(email='...')/x",
        "query": "q=...",
        "status": 200,
        "attempt": 2,
        "request_id": "id-12",
    }


def test_the_trace_goes_along_and_the_line_bears_its_span(http, serve, lines):
    server = serve(lambda *_: answer(b"x"))
    trace = "4bf92f3577b34da6a3ce929d0e0e4736"
    with bound(trace=trace):
        http.send(get(server.url), connection="c")
        http.send(get(server.url), connection="c")
    http.send(get(server.url), connection="c")
    first, second, without = lines()
    assert first["trace"] == second["trace"] == trace
    assert first["span"] != second["span"]
    for line, request in zip((first, second), server.requests, strict=False):
        assert f"\r\ntraceparent: 00-{trace}-{line['span']}-01\r\n".encode() in request
    assert "trace" not in without
    assert b"traceparent" not in server.requests[2]


def test_a_failure_is_logged_by_its_kind(http, caplog, lines):
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    with pytest.raises(Unavailable) as caught:
        http.send(get(f"http://127.0.0.1:{port}/a?{SECRET}", headers={"X": SECRET}), connection="c")
    (line,) = lines()
    assert (line["path"], line["error"]) == ("/a", "Unavailable")
    assert "status" not in line
    assert SECRET not in caplog.text
    error = caught.value
    assert error.__context__ is None or error.__suppress_context__


def test_no_library_error_hangs_on_ours(http, serve):
    server = serve(lambda _, connection: reset(connection))
    with pytest.raises(Unavailable) as caught:
        http.send(get(f"{server.url}/?{SECRET}", headers={"X": SECRET}), connection="c")
    assert caught.value.__context__ is None
    assert caught.value.__cause__ is None


def test_request_ids_are_taken_in_order_and_cleaned():
    assert request_id({"x-request-id": "b", "x-ms-service-request-id": "a"}) == "a"
    assert request_id({"x-request-id": "a\nb<c>" + "d" * 100}) == "abc" + "d" * 77
    assert request_id({}) == ""


def test_twenty_threads_share_one_client(http, serve):
    server = serve(lambda request, _: answer(request.split(b" ")[1]))

    def work(number):
        return http.send(get(f"{server.url}/{number}"), connection="c").body.decode()

    with ThreadPoolExecutor(20) as pool:
        assert list(pool.map(work, range(200))) == [f"/{number}" for number in range(200)]
    assert server.connections <= 20


def test_sessions_of_old_origins_are_closed(http, serve, monkeypatch):
    monkeypatch.setattr(http_module, "MAX_ORIGINS", 1)
    server = serve(lambda *_: answer(b"x"))
    for host in ("127.0.0.1", "localhost", "127.0.0.1", "localhost"):
        assert http.send(get(f"http://{host}:{server.port}"), connection="c").body == b"x"
        assert len(http._sessions) == 1
    assert server.connections == 4


def test_importing_loads_no_http_library():
    program = (
        "import sys, crm_core.protocols.rest, crm_core.protocols.entra\n"
        "print([each for each in ('requests', 'urllib3', 'msal', 'certifi', 'idna') if each in sys.modules])"
    )
    run = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert run.stdout.strip() == "[]"
