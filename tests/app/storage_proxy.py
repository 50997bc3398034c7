"""A proxy in front of Azurite that keeps what the hub sends to storage, rows and messages that are gone later too."""

import base64
import http.client
import re
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

HOP = frozenset({"connection", "transfer-encoding", "keep-alive"})
TABLE = re.compile(rb"/([a-z]+)\(|/([A-Za-z]+)(?: HTTP|$)", re.MULTILINE)


class Recorder:
    """`sent`: (place, bytes) of each request; a place is "table records", "queues" or "blobs"."""

    def __init__(self) -> None:
        self.sent: list[tuple[str, bytes]] = []

    def add(self, service: str, head: bytes, body: bytes) -> None:
        place = service
        if service == "table":
            target = unquote(head.split(b" ", 2)[1].decode()).encode()
            found = TABLE.search(body if target.rstrip(b"/").endswith(b"$batch") else target)
            place = f"table {(found[1] or found[2]).decode() if found else '?'}"
        self.sent.append((place, head + body))
        for text in re.findall(rb"<MessageText>(.*?)</MessageText>", body):
            with suppress(ValueError):
                self.sent.append((place, base64.b64decode(text)))


def _handler(recorder: Recorder, service: str, port: int) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        wbufsize = -1

        def forward(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            head = f"{self.requestline}\r\n{self.headers}".encode()
            recorder.add(service, head, body)
            headers = {name: value for name, value in self.headers.items() if name.lower() not in HOP}
            with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=60)) as upstream:
                upstream.request(self.command, self.path, body or None, headers)
                answer = upstream.getresponse()
                data = answer.read()
            self.send_response_only(answer.status, answer.reason)
            for name, value in answer.getheaders():
                if name.lower() not in HOP | {"content-length"}:
                    self.send_header(name, value)
            if answer.status not in (204, 304):
                self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(data)
            self.wfile.flush()

        do_GET = do_PUT = do_POST = do_DELETE = do_MERGE = do_PATCH = do_HEAD = forward  # noqa: N815  # found by name

        def log_message(self, *_: object) -> None:
            pass

    return Handler


@contextmanager
def recorded(connection_string: str) -> Iterator[tuple[str, Recorder]]:
    """Gives the connection string that leads through the proxy, and what is kept."""
    recorder, servers = Recorder(), []
    for name, service in (("Blob", "blobs"), ("Queue", "queues"), ("Table", "table")):
        found = re.search(rf"{name}Endpoint=([^;]+)", connection_string)
        assert found
        port = urlsplit(found[1]).port
        assert port
        server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(recorder, service, port))
        server.disable_nagle_algorithm = True
        threading.Thread(target=server.serve_forever, args=(0.05,)).start()
        servers.append(server)
        connection_string = connection_string.replace(
            f"{name}Endpoint=http://127.0.0.1:{port}/",
            f"{name}Endpoint=http://127.0.0.1:{server.server_port}/",
        )
    try:
        yield connection_string, recorder
    finally:
        for server in servers:
            server.shutdown()
            server.server_close()
