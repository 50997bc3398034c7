"""Answers of a hub, recorded as the API describes them, over real HTTP on loopback: for what a test can't make a hub say."""

import json
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Answer = tuple[int, Any] | tuple[int, Any, Mapping[str, str]]
"""Status and body: JSON, or bytes as they are; perhaps headers."""


@dataclass(frozen=True)
class Asked:
    """A request that came: `target` is its path and query."""

    method: str
    target: str
    body: Any
    headers: Mapping[str, str]

    @property
    def path(self) -> str:
        return self.target.partition("?")[0]


@dataclass
class Recorded:
    """`answers` by method and path; several are given one after another, the last again and again."""

    url: str
    answers: dict[tuple[str, str], list[Answer | Callable[[Asked], Answer]]] = field(default_factory=dict)
    asked: list[Asked] = field(default_factory=list)

    def say(self, method: str, path: str, *answers: Answer | Callable[[Asked], Answer]) -> None:
        self.answers[method, path] = list(answers)

    def answer(self, asked: Asked) -> Answer:
        self.asked.append(asked)
        kept = self.answers.get((asked.method, asked.path))
        if kept is None:
            return problem(
                404, "NotFound", f"There is nothing at {asked.path}; GET /api/openapi.json lists the routes."
            )
        first = kept.pop(0) if len(kept) > 1 else kept[0]
        return first(asked) if callable(first) else first


def problem(status: int, code: str, detail: str, **more: Any) -> Answer:
    body = {
        "type": "about:blank",
        "title": code,
        "status": status,
        "code": code,
        "detail": detail,
        "traceId": "0" * 32,
    }
    return status, {**body, **more}, {"Content-Type": "application/problem+json"}


@contextmanager
def recorded_hub() -> Iterator[Recorded]:
    class Handler(BaseHTTPRequestHandler):
        def handle_any(self) -> None:
            length = int(self.headers.get("Content-Length") or 0)
            body = json.loads(self.rfile.read(length)) if length else None
            headers = {name.lower(): value for name, value in self.headers.items()}
            status, told, *more = hub.answer(Asked(self.command, self.path, body, headers))
            if status == 0:  # the connection ends before an answer
                self.close_connection = True
                self.connection.close()
                return
            data = told if isinstance(told, bytes) else json.dumps(told).encode()
            self.send_response(status)
            for name, value in {"Content-Length": str(len(data)), **(more[0] if more else {})}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(data)

        do_GET = do_POST = handle_any  # noqa: N815 - the names are the library's

        def log_message(self, *_: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        hub = Recorded(f"http://127.0.0.1:{server.server_port}")
        hub.say("GET", "/health", (200, {"status": "ok"}))
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield hub
        server.shutdown()
        thread.join()
