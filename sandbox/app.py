"""Puts a system into the frame: control, log, throttle and faults around its rules. Synchronous throughout."""

import time
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Protocol

from sandbox.control import Control
from sandbox.frame import Fault, Frame, Refusal, Request, Response
from sandbox.state import load, save
from sandbox.store import Values

CONTROL = "/_sandbox/"


class System(Protocol):
    """What a fake system has to offer."""

    name: str
    frame: Frame
    main_tables: tuple[str, ...]  # filled by --records
    side_tables: tuple[str, ...]  # filled with a few rows

    def origins(self, names: set[str]) -> None: ...

    def handle(self, request: Request) -> Response: ...
    def describe(self, origin: str) -> Values: ...
    def caller_of(self, request: Request) -> str | None: ...
    def fault_response(self, fault: Fault, request: Request) -> Response: ...
    def refusal_response(self, refusal: Refusal) -> Response: ...
    def tables(self) -> list[str]: ...
    def fill(self, table: str, count: int, seed: int) -> int: ...
    def filled(self, table: str) -> bool: ...
    def revoke(self) -> int: ...
    def reset(self) -> None: ...
    def loaded(self) -> None: ...
    def show(self, table: str, key: str) -> Values | None: ...
    def person_create(self, table: str, values: Values, lag: float | None, at: datetime | None) -> Values: ...
    def person_update(
        self, table: str, key: str, values: Values, lag: float | None, at: datetime | None
    ) -> Values: ...
    def person_delete(self, table: str, key: str, lag: float | None) -> None: ...
    def person_merge(self, table: str, key: str, into: str) -> None: ...


class App:
    """One running sandbox: ``handle`` answers the system's clients and the control endpoint."""

    def __init__(self, system: System, control_key: str = "", data: Path | None = None) -> None:
        self.system = system
        self.frame = system.frame
        self.data = data
        if data is not None and data.exists():
            load(system.frame.store, data)
            system.loaded()
        self.control = Control(system, control_key, self.save)

    def save(self) -> None:
        """Keep the rows in the data file, if there is one; whole or not at all."""
        if self.data is not None:
            save(self.frame.store, self.data)

    def handle(self, request: Request) -> Response:
        """Answer one request. Whoever carries the answer has to obey ``delay``, ``abort`` and ``cut``."""
        if request.path.startswith(CONTROL):
            return self.control.handle(request)
        started = time.perf_counter()
        fault = self.frame.faults.strike(request)
        response = self._answer(request) if fault is None else self._faulty(request, fault)
        self.frame.log.add(
            request, response, None if fault is None else fault.kind, time.perf_counter() - started
        )
        return response

    def _answer(self, request: Request) -> Response:
        caller = self.system.caller_of(request)
        if caller is not None and (refusal := self.frame.throttle.enter(caller)) is not None:
            return self.system.refusal_response(refusal)
        return self.system.handle(request)

    def _faulty(self, request: Request, fault: Fault) -> Response:
        before = {"reset", "html", "status", "throttle", "privilege"}
        if fault.kind in before:
            return self._before(request, fault)
        change: Callable[[Response], Response] = {
            "delay": lambda r: replace(r, delay=fault.seconds),
            "reset_after": lambda r: replace(r, abort=True),
            "garbage": lambda r: replace(r, body=(fault.text or "{]not json\x00").encode()),
            "truncate": lambda r: replace(r, body=r.body[: len(r.body) // 2]),
            "cut": lambda r: replace(r, cut=len(r.body) // 2),
            "content_type": lambda r: replace(
                r, headers={**r.headers, "Content-Type": fault.text or "text/plain"}
            ),
        }[fault.kind]
        return change(self._answer(request))

    def _before(self, request: Request, fault: Fault) -> Response:
        """Faults that strike before the system saw the request."""
        if fault.kind == "reset":
            return Response(0, abort=True)
        if fault.kind == "html":
            page = (
                fault.text
                or "<!DOCTYPE html><html><head><title>Service Unavailable</title></head><body>Try later.</body></html>"
            )
            return Response(fault.status or 200, {"Content-Type": "text/html"}, page.encode())
        return replace(self.system.fault_response(fault, request), delay=fault.seconds)
