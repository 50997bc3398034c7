"""Carries an app over HTTP and HTTPS on loopback. Rules stay synchronous; here is only transport."""

import asyncio
import json
import os
import signal
import socket
import ssl
import struct
from collections.abc import Callable
from dataclasses import dataclass, replace
from email.utils import format_datetime
from pathlib import Path

import trustme
from aiohttp import web

from sandbox.app import App
from sandbox.frame import Request, Response
from sandbox.store import Values

MAX_BODY = 128 * 1024 * 1024  # vendors take bulk bodies of about 117 MB
MAX_LINE = 96 * 1024  # vendors take longer URLs than aiohttp's default of 8 KB


class PortTaken(RuntimeError):
    """A port that somebody else listens on."""


@dataclass(frozen=True)
class Listen:
    """Where to listen, and with which certificate."""

    host: str = "127.0.0.1"
    port: int = 0
    tls_port: int | None = None
    cert: Path | None = None
    key: Path | None = None
    ca: Path | None = None  # where to write the CA of a certificate made here


def tls_context(listen: Listen) -> ssl.SSLContext:
    """The given certificate, or a new one for loopback whose CA is written to ``ca``."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    if listen.cert is not None:
        context.load_cert_chain(listen.cert, listen.key)
        return context
    authority = trustme.CA()
    authority.issue_cert("localhost", "127.0.0.1", "::1", listen.host).configure_cert(context)
    if listen.ca is not None:
        listen.ca.parent.mkdir(parents=True, exist_ok=True)
        authority.cert_pem.write_to_path(listen.ca)
    return context


async def answer(app: App, incoming: web.Request) -> web.StreamResponse:
    """One exchange: read, ask the rules, do with the connection what they say."""
    path, _, query = incoming.raw_path.partition("?")
    request = Request(
        method=incoming.method,
        path=path,
        query=query,
        headers={k.lower(): ", ".join(incoming.headers.getall(k)) for k in incoming.headers},
        body=await incoming.read(),
        origin=f"{incoming.scheme}://{incoming.host}",
    )
    caller = app.system.caller_of(request) or ""
    running = app.frame.throttle.running
    response = app.handle(request)
    running[caller] = (
        running.get(caller, 0) + 1
    )  # while it waits or is being sent, it is a concurrent request
    try:
        if response.delay > 0:
            await asyncio.sleep(response.delay)
        date = format_datetime(app.frame.clock.now(), usegmt=True)  # the clock that the rows' times are of
        return await _send(incoming, replace(response, headers={"Date": date, **response.headers}))
    finally:
        running[caller] -= 1


async def _send(incoming: web.Request, response: Response) -> web.StreamResponse:
    if response.abort:
        _reset(incoming)
        return web.Response()
    outgoing = web.Response(
        status=response.status, headers=dict(response.headers), body=response.body or None
    )
    if response.headers.get("Connection") == "close":
        outgoing.force_close()
    if response.cut is None:
        return outgoing
    stream = web.StreamResponse(
        status=response.status, headers={**response.headers, "Content-Length": str(len(response.body))}
    )
    await stream.prepare(incoming)
    await stream.write(response.body[: response.cut])
    await asyncio.sleep(0.01)  # let the part leave before the reset
    _reset(incoming)
    return stream


def _reset(incoming: web.Request) -> None:
    """Break the connection as a crashed peer does: with a reset, not an orderly end."""
    transport = incoming.transport
    if transport is None:
        return
    sock = transport.get_extra_info("socket")
    if sock is not None:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    transport.abort()


async def start(app: App, listen: Listen) -> tuple[web.AppRunner, list[str]]:
    """Listen; gives the runner (to clean up) and the origins, http first."""

    async def handler(incoming: web.Request) -> web.StreamResponse:
        return await answer(app, incoming)

    application = web.Application(client_max_size=MAX_BODY)
    application.router.add_route("*", "/{tail:.*}", handler)
    runner = web.AppRunner(
        application,
        access_log=None,
        max_line_size=MAX_LINE,
        max_field_size=MAX_LINE,
        keepalive_timeout=75,
        shutdown_timeout=2,
    )
    await runner.setup()
    origins = [await _site(runner, listen.host, listen.port, None)]
    if listen.tls_port is not None:
        origins.append(await _site(runner, listen.host, listen.tls_port, tls_context(listen)))
    return runner, origins


async def _site(runner: web.AppRunner, host: str, port: int, tls: ssl.SSLContext | None) -> str:
    site = web.TCPSite(runner, host, port, ssl_context=tls, backlog=256)
    try:
        await site.start()
    except OSError as error:
        raise PortTaken(f"cannot listen on {host}:{port}: {os.strerror(error.errno or 0).lower()}") from None
    server = site._server  # noqa: SLF001 - aiohttp has no public way to the port that was taken
    assert isinstance(server, asyncio.Server)
    return f"{'https' if tls else 'http'}://{host}:{server.sockets[0].getsockname()[1]}"


def names_of(origins: list[str]) -> set[str]:
    """The origins under which clients may know this server: 127.0.0.1 and localhost are the same."""
    return {o.replace("//127.0.0.1:", f"//{name}:") for o in origins for name in ("127.0.0.1", "localhost")}


async def serve(app: App, listen: Listen, ready: Callable[[list[str]], None], stop: asyncio.Event) -> None:
    """Serve until ``stop`` is set, then save."""
    runner, origins = await start(app, listen)
    try:
        ready(origins)
        await stop.wait()
    finally:
        assert runner.server is not None
        transports = [each.transport for each in runner.server.connections if each.transport is not None]
        await runner.cleanup()
        for transport in transports:  # over TLS a client that never closes would be waited for
            transport.abort()
        await asyncio.sleep(0)  # the loop closes them now
        app.save()


def run(app: App, listen: Listen, ready: Callable[[list[str]], None]) -> None:
    """Serve in this process until SIGTERM or SIGINT."""

    async def main() -> None:
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stop.set)
        await serve(app, listen, ready, stop)

    asyncio.run(main())


def ready_line(value: Values) -> str:
    return json.dumps(value, ensure_ascii=False)
