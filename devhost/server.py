"""The HTTP side: takes requests as the platform's web server does and hands them to the functions."""

import logging
import secrets

from aiohttp import web, web_protocol
from aiohttp.http_exceptions import HttpProcessingError
from aiohttp.http_parser import HttpRequestParserPy
from multidict import CIMultiDict

from devhost.plan import HttpPlan, Plan
from devhost.routes import is_reserved
from devhost.target import Target, parse
from devhost.worker import HttpAnswer, HttpCall, Worker

log = logging.getLogger("devhost")

_BODY_LIMIT = 100 * 1024 * 1024
# The web server writes these itself.
_OWN_HEADERS = ("content-length", "transfer-encoding", "connection")


class HttpServer:
    """Serves the HTTP functions of a plan."""

    def __init__(self, plan: Plan, worker: Worker, key: str) -> None:
        """Take what to serve and the key that functions above anonymous ask for."""
        self._plan = plan
        self._worker = worker
        self._key = key
        self._runner: web.ServerRunner | None = None

    async def start(self, host: str, port: int) -> int:
        """Listen; gives the port, which matters when 0 was asked for. An OSError says what's wrong with it."""
        # aiohttp's parser in C refuses raw UTF-8 in a request target and methods that it doesn't know; its twin in
        # Python takes both. aiohttp's own switch, an environment variable, would slow the app's clients too.
        web_protocol.HttpRequestParser = HttpRequestParserPy
        # Bodies reach the function as they were sent, compressed or not; 32 KB is the web server's header limit.
        server = web.Server(self._handle, auto_decompress=False, access_log=None, max_field_size=32768)
        # How long a shutdown waits is the host's to say, which ends the process: never cancel a running function.
        self._runner = web.ServerRunner(server, shutdown_timeout=86400)
        await self._runner.setup()
        await web.TCPSite(self._runner, host, port).start()
        return self._runner.addresses[0][1]

    async def stop(self) -> None:
        """Take no more requests and wait for the running ones."""
        if self._runner is not None:
            await self._runner.cleanup()

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        try:
            return await self._answer(request)
        except (ConnectionError, web.RequestPayloadError, HttpProcessingError):
            # The client went away or broke its own body off; nobody has to be told.
            return web.Response(status=400)
        except Exception:
            # A fault of this host or a response that can't be sent, such as one with a line break in a header.
            log.exception("%s %s couldn't be answered", request.method, request.path)
            return web.Response(status=500)

    async def _answer(self, request: web.BaseRequest) -> web.StreamResponse:
        target = parse(request.raw_path)
        if "\0" in target.path:
            return web.Response(status=400)
        match = None if is_reserved(target.path) else self._plan.router.find(request.method, target.path)
        if match is None:
            # No route or a wrong method: the platform makes no difference.
            return web.Response(status=404)
        name, route_params = match
        http = self._plan.http[name]
        if not self._may(http, request, target):
            return web.Response(status=401)
        body = await _read(request)
        if body is None:
            return web.Response(status=413)
        answer = await self._worker.invoke_http(http.function, _call(request, target, route_params, body))
        return _response(answer or HttpAnswer(500))

    def _may(self, http: HttpPlan, request: web.BaseRequest, target: Target) -> bool:
        """Say whether the request carries the key, where the function asks for one."""
        if http.level == "anonymous":
            return True
        code = next((value for name, value in target.query.items() if name.lower() == "code"), "")
        given = request.headers.get("x-functions-key") or code
        return secrets.compare_digest(given.encode(), self._key.encode())


def _call(request: web.BaseRequest, target: Target, route_params: dict[str, str], body: bytes) -> HttpCall:
    headers: dict[str, str] = {}
    for name, value in request.headers.items():
        # The platform lowers names and joins repeated headers.
        lower = name.lower()
        headers[lower] = f"{headers[lower]},{value}" if lower in headers else value
    url = f"http://{request.host}{target.url}"
    return HttpCall(request.method.upper(), url, headers, target.query, route_params, body)


async def _read(request: web.BaseRequest) -> bytes | None:
    """Read the whole body; None if it's over the platform's limit."""
    if (request.content_length or 0) > _BODY_LIMIT:
        return None
    if request.headers.get("expect", "").lower() == "100-continue":
        await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        # Those bytes aren't part of the response.
        request.writer.output_size = 0
    body = bytearray()
    async for chunk in request.content.iter_any():
        body += chunk
        if len(body) > _BODY_LIMIT:
            return None
    return bytes(body)


def _response(answer: HttpAnswer) -> web.Response:
    headers = CIMultiDict((n, v) for n, v in answer.headers if n.lower() not in _OWN_HEADERS)
    # These have no body, whatever the function says; for HEAD aiohttp leaves it out.
    body = b"" if answer.status in (204, 304) else answer.body
    return web.Response(status=answer.status, headers=headers, body=body)
