"""A relay in front of any server: it breaks what goes through it as networks, gateways and servers do.

It knows no vendor; what a vendor itself answers to (a void token, a missing privilege) its server is asked for.
"""

import http.client
import ssl
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from socket import SO_LINGER, SOL_SOCKET
from urllib.parse import urlsplit

HOP = frozenset({"connection", "transfer-encoding", "keep-alive", "content-length"})


@dataclass
class Seen:
    """One request that came. `fault`: the one that struck it. `replaced`: addresses in its answer."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes = field(repr=False)
    fault: str = ""
    status: int = 0
    replaced: int = 0


@dataclass
class Fault:
    """`status`, `delay` (before the answer), `reset` (nothing was done), `reset_after` (it was done), `garbage`,
    `html`, `half` (of the body), `elsewhere` (every address of the server in the answer leads to another origin),
    `redirect` (to another origin), or `echo` (a refusal that quotes the credentials).
    """

    kind: str
    times: int = 1
    writes: bool = False
    """Only requests that write are struck."""
    status: int = 503
    seconds: float = 0.0
    headers: dict[str, str] = field(default_factory=dict)
    origin: str = ""


class Relay:
    """`url`: its origin. `seen`: the requests that came."""

    def __init__(
        self, target: str, ca: Path | None, reads: Callable[[Seen], bool], credentials: Callable[[Seen], str]
    ) -> None:
        """`ca`: None for a target by http. `reads`, `credentials`: what the remote knows of a request."""
        self.target = urlsplit(target)
        self.ca = ca
        self.reads, self.credentials = reads, credentials
        self.url = ""
        self.seen: list[Seen] = []
        self.faults: list[Fault] = []
        self._lock = threading.Lock()

    def plant(self, kind: str, **more: object) -> None:
        self.faults.append(Fault(kind, **more))

    def clear(self) -> None:
        self.seen.clear()
        self.faults.clear()

    def strike(self, seen: Seen) -> Fault | None:
        with self._lock:
            for fault in self.faults:
                if fault.times > 0 and (not fault.writes or not self.reads(seen)):
                    fault.times -= 1
                    return fault
        return None

    def forward(
        self, method: str, path: str, headers: dict[str, str], body: bytes
    ) -> tuple[int, list[tuple[str, str]], bytes]:
        host, port = self.target.hostname or "", self.target.port
        upstream: http.client.HTTPConnection
        if self.ca is None:
            upstream = http.client.HTTPConnection(host, port, timeout=30)
        else:
            context = ssl.create_default_context(cafile=str(self.ca))
            upstream = http.client.HTTPSConnection(host, port, timeout=30, context=context)
        with closing(upstream):
            upstream.request(method, path, body or None, headers)
            answer = upstream.getresponse()
            return answer.status, answer.getheaders(), answer.read()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    relay: Relay

    def handle_error(self, request: object, address: object) -> None:
        """A connection that the caller has given up is no error here."""


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    protocol_version = "HTTP/1.1"
    wbufsize = -1

    def serve(self) -> None:
        relay = self.server.relay
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        headers = {name: value for name, value in self.headers.items() if name.lower() not in HOP}
        seen = Seen(self.command, self.path, headers, body)
        fault = relay.strike(seen) or Fault("")
        seen.fault = fault.kind
        relay.seen.append(seen)
        if fault.kind == "reset":
            self._reset()
            return
        if fault.kind in ("status", "redirect", "echo"):
            seen.status = fault.status
            quoted = relay.credentials(seen) if fault.kind == "echo" else ""
            self._answer(fault.status, list(fault.headers.items()), f"<p>No, {quoted}</p>".encode())
            return
        status, given, data = relay.forward(self.command, self.path, headers, body)
        seen.status = status
        if fault.kind == "reset_after":
            self._reset()
            return
        if fault.kind == "delay":
            time.sleep(fault.seconds)
        broken = {
            "garbage": b"{]not json\x00",
            "html": b"<html>login</html>",
            "half": data[: len(data) // 2],
        }
        data = broken.get(fault.kind, data)
        if fault.kind == "elsewhere":
            seen.replaced = data.count(relay.url.encode())
            data = data.replace(relay.url.encode(), fault.origin.encode())
        self._answer(status, given, data)

    def _answer(self, status: int, headers: list[tuple[str, str]], data: bytes) -> None:
        self.send_response_only(status)
        for name, value in headers:
            if name.lower() not in HOP:
                self.send_header(name, value)
        if status not in (204, 304):
            self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if status not in (204, 304) and self.command != "HEAD":
            self.wfile.write(data)
        with suppress(OSError):  # the caller has not waited
            self.wfile.flush()

    def _reset(self) -> None:
        self.connection.setsockopt(SOL_SOCKET, SO_LINGER, struct.pack("ii", 1, 0))
        self.close_connection = True

    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = do_PATCH = serve  # noqa: N815  # found by name

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def relayed(
    target: str,
    ca: Path | None,
    certificate: Path,
    reads: Callable[[Seen], bool],
    credentials: Callable[[Seen], str],
) -> Iterator[Relay]:
    """A relay to the origin `target`, whose certificate `ca` proves. `certificate`: PEM with the relay's own key."""
    relay = Relay(target, ca, reads, credentials)
    server = _Server(("127.0.0.1", 0), _Handler)
    server.relay = relay
    server.disable_nagle_algorithm = True
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    relay.url = f"https://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield relay
    finally:
        server.shutdown()
        server.server_close()
        thread.join(10)
