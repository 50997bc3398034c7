"""The functions that no caller sees: the tick, the two lanes and what is left of their poison.

Each begins a trace; a message that names one is worked on in its own.
"""

import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING

import azure.functions as func

from crm_core.errors import HubError
from crm_core.functions.endpoint import the_hub
from crm_core.log import Log, bound, new_trace
from crm_core.ports import measured
from crm_core.storage import layout

if TYPE_CHECKING:
    from crm_core.hub import Hub

_log = Log("crm_core.triggers")

STORAGE = "AzureWebJobsStorage"
BULK_SLICES = 2
"""Bulk slices at a time on one instance: a first load never takes all threads."""
BULK_WAIT_SECONDS = 5.0

_bulk_slots = threading.BoundedSemaphore(BULK_SLICES)


class Failed(Exception):
    """A bug, by its type alone: the host logs what a function raises with its message, which may hold a value."""


@contextmanager
def _invocation(function: str) -> Iterator[None]:
    """Raises HubErrors as they are (their messages hold no values), and Failed for any other."""
    with bound(trace=new_trace()):
        try:
            yield
        except HubError:
            raise
        except Exception as error:  # noqa: BLE001  # raised again without its message
            _log.bug("function failed", error, function=function)
            raise Failed(f"{type(error).__name__}; the log line 'function failed' says where.") from None


def _collected(hub: "Hub") -> AbstractContextManager[None]:
    """Lines of the log of runs that the work leaves are written at its end."""
    from crm_core.storage.run_log import collected

    return collected(hub.engine.run_log, hub.clock)


def _handle(lane: str, message: func.QueueMessage) -> None:
    hub = the_hub()
    with _invocation(lane), measured() as meter, _collected(hub):
        try:
            hub.handle(lane, message.get_body().decode("utf-8", "replace"), message.dequeue_count or 1)
        finally:
            hub.add_figures(meter)


def register(app: func.FunctionApp) -> None:
    @app.function_name("tick")
    @app.timer_trigger(arg_name="timer", schedule="0 * * * * *", run_on_startup=False, use_monitor=False)
    def tick(timer: func.TimerRequest) -> None:  # noqa: ARG001  # the binding's name
        hub = the_hub()
        with _invocation("tick"):
            with measured() as meter:
                _log.info("tick", jobs=hub.tick())
            hub.add_figures(meter, flush=True)

    @app.function_name(layout.FRESH)
    @app.queue_trigger(arg_name="message", queue_name=layout.FRESH, connection=STORAGE)
    def fresh(message: func.QueueMessage) -> None:
        _handle(layout.FRESH, message)

    @app.function_name(layout.BULK)
    @app.queue_trigger(arg_name="message", queue_name=layout.BULK, connection=STORAGE)
    def bulk(message: func.QueueMessage) -> None:
        if not _bulk_slots.acquire(blocking=False):
            body = message.get_body().decode("utf-8", "replace")
            the_hub().queue.send(layout.BULK, body, BULK_WAIT_SECONDS)
            return
        try:
            _handle(layout.BULK, message)
        finally:
            _bulk_slots.release()

    for lane in layout.QUEUES:
        _register_poison(app, lane)


def _register_poison(app: func.FunctionApp, lane: str) -> None:
    @app.function_name(f"{lane}_poison")
    @app.queue_trigger(arg_name="message", queue_name=f"{lane}-poison", connection=STORAGE)
    def poison(message: func.QueueMessage) -> None:
        hub = the_hub()
        with _invocation(f"{lane}_poison"), _collected(hub):
            hub.poisoned(lane, message.get_body().decode("utf-8", "replace"))
