"""Logs: one JSON object a line, with what the work in hand is about. The lowest layer: it imports nothing of ours.

On Azure the worker's own handler on the root logger sends each record's *message* to the host, which keeps it in
Application Insights with the level and the logger's name; a handler or formatter of ours would never be asked. A
filter of the logger `crm_core` is not asked for the loggers below it, and a record factory does not see `extra`. So
the message itself is the JSON, and `Log` is the only way to write one (lint: nothing else imports `logging`). A
traceback would be lines of its own with the values in its messages, so a bug is told by its type and its places.

What a line never holds: values of records, credentials, bodies, texts of vendors or of libraries. It has names from
fixed lists, ids, counts and times; whoever adds a field keeps to that.
"""

import json
import logging
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import UTC, datetime
from types import TracebackType

Field = str | int | float | bool | None | Sequence[str] | Mapping[str, int]
"""None, "" and what is empty is left out."""

MAX_TEXT = 1000
MAX_PLACES = 20

_NOTHING: Mapping[str, str] = {}
_about: ContextVar[Mapping[str, str]] = ContextVar("log_about", default=_NOTHING)


@contextmanager
def bound(**fields: str) -> Iterator[None]:
    """Lines written inside the block bear these fields: trace, tenant, principal, connection, entity, run, ...

    "" takes one away. A Pool carries them into its threads, `Engine.send` the trace into messages.
    """
    token = _about.set({**_about.get(), **fields})
    try:
        yield
    finally:
        _about.reset(token)


def bind(**fields: str) -> None:
    """As `bound`, for what becomes known on the way: until the block that is open around the caller ends. Without
    one it does nothing, for nobody would take the fields away again.
    """
    about = _about.get()
    if about is not _NOTHING:
        _about.set({**about, **fields})


def current_trace() -> str:
    """The W3C trace id of the work in hand, or ""."""
    return _about.get().get("trace", "")


def about(name: str) -> str:
    """What the work in hand is about: a field that was bound, or ""."""
    return _about.get().get(name, "")


def new_trace() -> str:
    return os.urandom(16).hex()


def new_span() -> str:
    return os.urandom(8).hex()


def traceparent(trace: str, span: str) -> str:
    """The header of W3C Trace Context, version 00, sampled."""
    return f"00-{trace}-{span}-01"


class Log:
    """A logger by name whose messages are JSON. `event` is a fixed text; what differs is in the fields."""

    def __init__(self, name: str) -> None:
        self._logger = logging.getLogger(name)

    def info(self, event: str, **fields: Field) -> None:
        self._write(logging.INFO, event, fields)

    def warning(self, event: str, **fields: Field) -> None:
        self._write(logging.WARNING, event, fields)

    def error(self, event: str, **fields: Field) -> None:
        self._write(logging.ERROR, event, fields)

    def bug(self, event: str, bug: BaseException, **fields: Field) -> None:
        """An error that nobody foresaw: its type, those it came from, and where. Its message may hold a value."""
        first, *causes = _chain(bug)
        told: dict[str, Field] = {
            "error": type(first).__name__,
            "causes": [type(each).__name__ for each in causes],
            "at": _places(bug.__traceback__),
        }
        self._write(logging.ERROR, event, {**fields, **told})

    def _write(self, level: int, event: str, fields: Mapping[str, Field]) -> None:
        if not self._logger.isEnabledFor(level):
            return
        line: dict[str, Field] = {
            "time": datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "level": logging.getLevelName(level),
            "logger": self._logger.name,
            "event": event,
        }
        for name, value in {**_about.get(), **fields}.items():
            if value is None or value in ("", [], {}):
                continue
            line[name] = value[:MAX_TEXT] if isinstance(value, str) else value
        # ASCII, so that no character of a value can end the line.
        self._logger.log(level, json.dumps(line, separators=(",", ":"), default=_kind), stacklevel=3)


def plain(code: str) -> str:
    """A vendor's code if it looks like one; a vendor may write anything there."""
    return code if re.fullmatch(r"[A-Za-z0-9_.:-]{1,60}", code, re.ASCII) else ""


def _kind(value: object) -> str:
    """Instead of what JSON does not know: never its repr, which may show anything."""
    return type(value).__name__


def _chain(error: BaseException) -> list[BaseException]:
    """The error and those it came from, as a traceback would show them."""
    found: list[BaseException] = []
    each: BaseException | None = error
    while each is not None and len(found) < MAX_PLACES and each not in found:
        found.append(each)
        each = each.__cause__ or (None if each.__suppress_context__ else each.__context__)
    return found


def _places(traceback: TracebackType | None) -> list[str]:
    """The innermost frames as "folder/file.py:line function", outermost first."""
    places: list[str] = []
    while traceback is not None:
        code = traceback.tb_frame.f_code
        file = "/".join(code.co_filename.replace("\\", "/").split("/")[-2:])
        places.append(f"{file}:{traceback.tb_lineno} {code.co_name}")
        traceback = traceback.tb_next
    return places[-MAX_PLACES:]


_QUIET = {
    # At DEBUG every path with its query; as a warning the whole URL of an answer with odd headers.
    "urllib3": logging.ERROR,
    # Its texts quote answers of token endpoints; the hub makes an error of its own of each failure.
    "msal": logging.CRITICAL,
    # At INFO the address and headers of each storage call, so keys of rows; one line a call would drown ours too.
    "azure.core": logging.WARNING,
    "azure.data": logging.WARNING,
    "azure.storage": logging.WARNING,
    "azure.keyvault": logging.WARNING,
    "azure.identity": logging.WARNING,
}


def quiet_libraries() -> None:
    """Keeps addresses with queries, headers and answers out of what libraries log, whatever the root's level is.

    Called once, where the app is made (PYTHON_ENABLE_DEBUG_LOGGING sets the root to DEBUG); imports none of them.
    """
    for name, level in _QUIET.items():
        logging.getLogger(name).setLevel(level)
