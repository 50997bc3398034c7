"""For tests: a sandbox in a thread, and a plain client that speaks raw HTTP to any server."""

import asyncio
import http.client
import json
import select
import ssl
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import quote, urlencode, urlsplit

from sandbox.app import App, System
from sandbox.server import Listen, names_of, serve
from sandbox.store import Values


@dataclass(frozen=True)
class Answer:
    """A response as it came."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def code(self) -> str:
        """The code of an error answer of the OData kind."""
        return str(self.json()["error"]["code"])


class Client:
    """One keep-alive connection to one origin. Not for several threads."""

    def __init__(self, origin: str, headers: Mapping[str, str] | None = None, ca: Path | None = None) -> None:
        self.origin = origin
        self.headers = dict(headers or {})
        parts = urlsplit(origin)
        assert parts.hostname is not None
        if parts.scheme == "https":
            context = ssl.create_default_context(cafile=str(ca))
            self._connection: http.client.HTTPConnection = http.client.HTTPSConnection(
                parts.hostname, parts.port, timeout=30, context=context
            )
        else:
            self._connection = http.client.HTTPConnection(parts.hostname, parts.port, timeout=30)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._connection.close()

    def call(
        self, method: str, url: str, body: Any = None, headers: Mapping[str, str] | None = None
    ) -> Answer:
        """One exchange. ``url`` is a path or an absolute URL of this origin; a body that is no bytes becomes JSON."""
        target = url.removeprefix(self.origin)
        data = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
        kind = {"Content-Type": "application/json; charset=utf-8"} if data is not None else {}
        sent = {**self.headers, **kind, **(headers or {})}
        try:
            if self._is_closed_there():
                self._connection.close()
            try:
                self._connection.request(method, target, data, sent)
            except BrokenPipeError:  # an idle connection that the server has closed: nothing has reached it
                self._connection.close()
                self._connection.request(method, target, data, sent)
            response = self._connection.getresponse()
            return Answer(response.status, dict(response.getheaders()), response.read())
        except BaseException:
            self._connection.close()
            raise

    def _is_closed_there(self) -> bool:
        """Whether something has come that nobody asked for, such as the end of a connection that was idle for long."""
        sock = self._connection.sock
        return sock is not None and bool(select.select([sock], [], [], 0)[0])


def options(**values: str) -> str:
    """Query options from keywords, percent-encoded: ``options(filter="a eq 1")`` is ``?$filter=a%20eq%201``."""
    return "?" + urlencode({f"${k}": v for k, v in values.items()}, quote_via=quote)


@dataclass(frozen=True)
class Running:
    """A sandbox that listens."""

    app: App
    url: str
    https: str | None
    ca: Path | None

    def describe(self) -> Values:
        return self.app.system.describe(self.https or self.url)


@contextmanager
def running(
    system: System, *, tls_ca: Path | None = None, control_key: str = "", data: Path | None = None
) -> Iterator[Running]:
    """The system on a free port of loopback, in a thread; with ``tls_ca`` also over HTTPS."""
    app = App(system, control_key, data)
    listen = Listen(tls_port=0 if tls_ca else None, ca=tls_ca)
    ready = threading.Event()
    found: list[str] = []
    failed: list[BaseException] = []
    loop = asyncio.new_event_loop()
    stop = asyncio.Event()

    def opened(origins: list[str]) -> None:
        system.origins(names_of(origins))
        found.extend(origins)
        ready.set()

    def body() -> None:
        try:
            loop.run_until_complete(serve(app, listen, opened, stop))
        except BaseException as error:  # noqa: BLE001 - handed to the caller below
            failed.append(error)
            ready.set()
        finally:
            loop.close()

    thread = threading.Thread(target=body, name=f"sandbox {system.name}")
    thread.start()
    try:
        ready.wait(20)
        if failed:
            raise failed[0]
        yield Running(app, found[0], found[1] if len(found) > 1 else None, tls_ca)
    finally:
        if not loop.is_closed():
            loop.call_soon_threadsafe(stop.set)
        thread.join(20)


def signed_in(sandbox: Running) -> Client:
    """A client of the sandbox's HTTP origin with a token of the client credentials flow."""
    facts = sandbox.app.system.describe(sandbox.url)
    client = Client(sandbox.url)
    form = {
        "grant_type": "client_credentials",
        "client_id": facts["client_id"],
        "client_secret": facts["client_secret"],
        "scope": facts["scope"],
    }
    answer = client.call("POST", facts["token_url"], urlencode(form).encode())
    client.headers["Authorization"] = f"Bearer {answer.json()['access_token']}"
    return client
