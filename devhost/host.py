"""Puts the parts together: starts them in order, waits for a signal, and stops them in order."""

import asyncio
import contextlib
import errno
import logging
import os
import secrets
import signal
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from devhost.plan import Plan, make_plan
from devhost.queues import Listener, Tuning
from devhost.refusal import Refusal
from devhost.server import HttpServer
from devhost.settings import HostJson, load_local_settings, read_host_json
from devhost.storage import AzureError
from devhost.timers import Timer
from devhost.worker import Worker

log = logging.getLogger("devhost")


@dataclass(frozen=True)
class Options:
    """The command line."""

    app: Path
    host: str = "127.0.0.1"
    port: int = 7071
    settings: Path | None = None
    functions_key: str | None = None
    grace: float = 30
    tuning: Tuning = field(default_factory=Tuning)


async def serve(options: Options) -> int:
    """Run the app until a signal; gives the exit code. Raises a Refusal instead of starting by halves."""
    if options.settings and not options.settings.is_file():
        raise Refusal(f"there is no settings file {options.settings}")
    load_local_settings(options.settings or options.app / "local.settings.json")
    host = read_host_json(options.app)
    worker = Worker(options.app, host.function_timeout)
    await worker.load()
    plan = make_plan(worker.functions, host, os.environ)
    key = options.functions_key or secrets.token_urlsafe(24)
    async with contextlib.AsyncExitStack() as stack:
        stack.callback(worker.close)
        listeners = await _listeners(plan, worker, host, options.tuning, stack)
        server = HttpServer(plan, worker, key)
        stop = _stop_on_signal()
        address = await _listen(server, options)
        tasks = [asyncio.create_task(part.run(stop)) for part in listeners]
        tasks += [asyncio.create_task(Timer(timer, worker).run(stop)) for timer in plan.timers]
        _announce(plan, address)
        if plan.needs_key and not options.functions_key:
            print(f"Functions key: {key}")
        print(f"Host started on {address}", flush=True)
        await _until_stopped(stop, tasks)
        tasks += [asyncio.create_task(server.stop()), asyncio.create_task(worker.idle())]
        return await _drain(tasks, options.grace)


async def _listeners(
    plan: Plan,
    worker: Worker,
    host: HostJson,
    tuning: Tuning,
    stack: contextlib.AsyncExitStack,
) -> list[Listener]:
    """Make the queue listeners and their queues; refuses, by function, an account that isn't there."""
    threads = stack.enter_context(ThreadPoolExecutor(8, "devhost-storage"))
    listeners = []
    for queue in plan.queues:
        try:
            listener = Listener(queue, worker, host.queues, tuning, threads)
            stack.callback(listener.close)
            await listener.prepare()
        except (ValueError, AzureError) as error:
            reason = str(error).split("\n", 1)[0]
            raise Refusal(
                f"function {queue.function.name}: queue {queue.queue} can't be reached: {reason}"
            ) from None
        listeners.append(listener)
    return listeners


async def _listen(server: HttpServer, options: Options) -> str:
    try:
        port = await server.start(options.host, options.port)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise Refusal(f"port {options.port} on {options.host} is taken by another process") from None
        raise Refusal(f"can't listen on {options.host}:{options.port}: {error.strerror}") from None
    return f"http://{options.host}:{port}"


def _stop_on_signal() -> asyncio.Event:
    """Give the event that the first SIGTERM or SIGINT sets; a second one ends the process at once."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()

    def on_signal(number: int) -> None:
        if stop.is_set():
            os._exit(128 + number)
        stop.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, on_signal, number)
    return stop


def _announce(plan: Plan, address: str) -> None:
    rows = [
        (name, "http", ",".join(http.methods) or "any method", f"{address}/{http.route}")
        for name, http in plan.http.items()
    ]
    rows += [(timer.function.name, "timer", timer.text, "") for timer in plan.timers]
    rows += [(queue.function.name, "queue", queue.queue, "") for queue in plan.queues]
    rows += [(name, "disabled", "", "") for name in plan.disabled]
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    for row in rows:
        cells = [cell.ljust(width) for cell, width in zip(row, [*widths, 0], strict=True)]
        print("  ".join(cells).rstrip())


async def _until_stopped(stop: asyncio.Event, tasks: list[asyncio.Task[None]]) -> None:
    """Wait for the signal; a part that ends by itself has a bug, which mustn't pass in silence."""
    stopping = asyncio.create_task(stop.wait())
    done, _ = await asyncio.wait({stopping, *tasks}, return_when=asyncio.FIRST_COMPLETED)
    for task in done - {stopping}:
        log.error("the host stops: a part of it failed", exc_info=task.exception())
    stop.set()
    await stopping


async def _drain(tasks: list[asyncio.Task[None]], grace: float) -> int:
    """Let what runs finish; gives the exit code."""
    done, pending = await asyncio.wait(tasks, timeout=grace)
    if pending:
        print(f"devhost: running functions didn't end within {grace:g} seconds", file=sys.stderr, flush=True)
        sys.stdout.flush()
        # A thread can't be stopped, and the interpreter would wait for it.
        os._exit(1)
    return 1 if any(task.exception() for task in done) else 0
