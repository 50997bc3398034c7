"""Microsoft's Python worker library, wrapped: the only file that knows its insides (azure-functions-runtime 1.3.0).

In: an app folder. Out: its functions with their bindings, and one way to invoke each kind of trigger. The library
indexes function_app.py, decodes inputs, runs the code and encodes answers exactly as on the platform.
"""

import asyncio
import json
import logging
import re
import secrets
import sys
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import azure_functions_runtime as runtime
from azure_functions_runtime.bindings.datumdef import Datum
from azure_functions_runtime.native_invocation import invocation_request_native

from devhost.refusal import Refusal

log = logging.getLogger("devhost")
# The library logs under the name of the SDK.
_library_log = logging.getLogger("azure.functions")


class _Record(SimpleNamespace):
    """Stands in for any protobuf message: the library only sets and reads attributes."""


class _BindingInfo(_Record):
    inout, out, undefined = 2, 1, 0


class _StatusResult(_Record):
    Failure: ClassVar = 0
    Success: ClassVar = 1


_PROTOS = SimpleNamespace(
    BindingInfo=_BindingInfo,
    StatusResult=_StatusResult,
    **dict.fromkeys(
        (
            "FunctionMetadataResponse",
            "RpcException",
            "RpcFunctionMetadata",
            "RpcRetryOptions",
            "WorkerInitResponse",
            "WorkerMetadata",
        ),
        _Record,
    ),
)


@dataclass(frozen=True)
class Function:
    """One indexed function: its trigger and other bindings as the SDK declares them (function.json's keys)."""

    name: str
    id: str
    trigger: Mapping[str, Any]
    others: tuple[Mapping[str, Any], ...]

    @property
    def kind(self) -> str:
        """The trigger's type, such as httpTrigger."""
        return str(self.trigger["type"])


@dataclass(frozen=True)
class HttpCall:
    """A request as the function gets it."""

    method: str
    url: str
    headers: Mapping[str, str]
    query: Mapping[str, str]
    route_params: Mapping[str, str]
    body: bytes


@dataclass(frozen=True)
class HttpAnswer:
    """What the function answered."""

    status: int
    headers: list[tuple[str, str]] = field(default_factory=list)
    body: bytes = b""


class _NoRepeat(logging.Filter):
    """Drops the library's own line about a failed invocation: the host logs it with the function's name."""

    def filter(self, record: logging.LogRecord) -> bool:
        return record.msg not in ("Native invocation failed", "Native sync invocation failed")


class Worker:
    """The indexed app. One per process: the library keeps its state in module globals."""

    def __init__(self, app: Path, timeout: float | None) -> None:
        """Take the app folder and the seconds after which an invocation is reported as too long."""
        self._app = app
        self._timeout = timeout
        self._running = 0
        self._idle = asyncio.Event()
        self._idle.set()
        self.functions: list[Function] = []

    async def load(self) -> None:
        """Start the thread pool and index function_app.py; refuses an app that the platform couldn't load."""
        folder = str(self._app)
        if folder not in sys.path:
            sys.path.insert(0, folder)
        runtime.start_threadpool_executor()
        # A failure comes back in the answer; its log lines (with the whole sys.path) would only repeat it.
        _library_log.setLevel(logging.CRITICAL)
        request = _Record(
            request=_Record(worker_init_request=_Record(capabilities={}, function_app_directory=folder)),
            properties={"host": "127.0.0.1", "protos": _PROTOS},
        )
        try:
            answer = await runtime.worker_init_request(request)
        except SystemExit as error:
            raise Refusal(f"the app ended the process while it was loaded (exit code {error.code})") from None
        if answer.result.status != _StatusResult.Success:
            raise Refusal(self._reason(answer.result.exception))
        found = (await runtime.functions_metadata_request(request)).function_metadata_results
        if not found:
            raise Refusal(f"there is no function in {self._app / 'function_app.py'}")
        self.functions = sorted(map(_function, found), key=lambda function: function.name.lower())
        _library_log.setLevel(logging.WARNING)
        _library_log.addFilter(_NoRepeat())

    def _reason(self, error: Any) -> str:
        """Give one line for an indexing error, with the place in the app where it happened."""
        # The library appends advice and sys.path to import errors.
        message = " ".join(error.message.split(". Cannot find module", 1)[0].split())
        places = re.findall(r'File "([^"]+)", line (\d+)', error.stack_trace)
        own = [(file, line) for file, line in places if Path(file).is_relative_to(self._app)]
        place = f" ({own[-1][0]}, line {own[-1][1]})" if own else ""
        return f"the app can't be loaded: {message}{place}"

    async def invoke_http(self, function: Function, call: HttpCall) -> HttpAnswer | None:
        """Run an HTTP function; None if it failed (which is logged)."""
        body = Datum(call.body, "bytes")
        value = {"method": _text(call.method), "url": _text(call.url), "body": body}
        value |= {
            "headers": _texts(call.headers),
            "params": _texts(call.route_params),
            "query": _texts(call.query),
        }
        traceparent, tracestate = call.headers.get("traceparent"), call.headers.get("tracestate", "")
        ok, result = await self._invoke(
            function, Datum(value, "http"), {}, _child_of(traceparent), tracestate
        )
        return _answer(result) if ok else None

    async def invoke_timer(self, function: Function, *, past_due: bool) -> bool:
        """Run a timer function; says whether it succeeded."""
        state = {"Schedule": {"AdjustForDST": True}, "ScheduleStatus": None, "IsPastDue": past_due}
        ok, _ = await self._invoke(function, Datum(json.dumps(state), "json"), {}, _child_of(None))
        return ok

    async def invoke_queue(self, function: Function, body: bytes, metadata: Mapping[str, str]) -> bool:
        """Run a queue function with a message's decoded body and trigger metadata; says whether it succeeded."""
        try:
            message = _text(body.decode())
        except UnicodeDecodeError:
            message = Datum(body, "bytes")
        ok, _ = await self._invoke(function, message, _texts(metadata), _child_of(None))
        return ok

    async def _invoke(
        self,
        function: Function,
        value: Datum,
        metadata: dict[str, Datum],
        traceparent: str,
        tracestate: str = "",
    ) -> tuple[bool, Datum | None]:
        """Run one invocation: sync code in the library's thread pool, async code on this loop."""
        invocation = str(uuid.uuid4())
        late = None
        if self._timeout is not None:
            # The platform would end the whole worker process here; a thread can't be ended.
            too_long = f"{function.name} runs longer than functionTimeout ({self._timeout:g} s)"
            late = asyncio.get_running_loop().call_later(self._timeout, log.error, "%s", too_long)
        self._running += 1
        self._idle.clear()
        try:
            ok, result, _, error, trace = await invocation_request_native(
                invocation,
                function.id,
                [(function.trigger["name"], value)],
                metadata,
                trace_parent=traceparent,
                trace_state=tracestate,
            )
        finally:
            self._running -= 1
            if not self._running:
                self._idle.set()
            if late is not None:
                late.cancel()
        if not ok:
            log.error("%s failed (invocation %s): %s\n%s", function.name, invocation, error, trace)
        return ok, result

    async def idle(self) -> None:
        """Wait until no invocation runs, those included whose caller has gone."""
        await self._idle.wait()

    def close(self) -> None:
        """End the library's thread pool; every invocation has to be over."""
        runtime.stop_threadpool_executor()


def _function(metadata: Any) -> Function:
    bindings = [json.loads(raw) for raw in metadata.raw_bindings]
    trigger = next(b for b in bindings if b["type"].lower().endswith("trigger"))
    others = tuple(b for b in bindings if b is not trigger)
    return Function(metadata.name, metadata.function_id, trigger, others)


def _text(value: str) -> Datum:
    return Datum(value, "string")


def _texts(values: Mapping[str, str]) -> dict[str, Datum]:
    return {name: _text(value) for name, value in values.items()}


def _child_of(traceparent: str | None) -> str:
    """Give a W3C traceparent for the invocation: a new span of the caller's trace, or a new trace."""
    match = re.fullmatch(r"00-([0-9a-f]{32})-[0-9a-f]{16}-([0-9a-f]{2})", traceparent or "")
    trace, flags = match.groups() if match else (secrets.token_hex(16), "00")
    return f"00-{trace}-{secrets.token_hex(8)}-{flags}"


def _answer(result: Datum | None) -> HttpAnswer:
    """Read the function's answer: an HttpResponse, a plain text, or nothing."""
    if result is None or result.value is None:
        return HttpAnswer(200)
    if result.type != "http":
        return HttpAnswer(200, [("content-type", "text/plain; charset=utf-8")], str(result.value).encode())
    value = result.value
    headers = [(name, datum.value) for name, datum in value["headers"].items()]
    cookies = [morsel.OutputString() for cookie in value["cookies"] or () for morsel in cookie.values()]
    headers += [("set-cookie", cookie) for cookie in cookies]
    return HttpAnswer(int(value["status_code"].value), headers, value["body"].value)
