"""Calls to one Odoo server: JSON-2 where it has it (19 and later), else JSON-RPC (14 to 18), and what a refusal means.

Sources: Odoo's "External JSON-2 API" and "External RPC API"; shapes and statuses as Odoo 19.0 answered them.
"""

import json as jsonlib
import re
from collections.abc import Mapping, Sequence
from typing import Any

from crm_core.connector import Answer
from crm_core.connectors.odoo.models.common import SYSTEM
from crm_core.errors import (
    AuthFailed,
    BadAnswer,
    FieldError,
    HubError,
    Misconfigured,
    NotPermitted,
    NotSupported,
    RecordGone,
    Rejected,
    Unavailable,
    VendorError,
)
from crm_core.protocols.delta import server_time
from crm_core.protocols.rest import Rest, explain_status

READS = frozenset(
    {
        "search_read", "search", "search_count", "read", "fields_get", "context_get", "get_external_id",
        "check_object_reference", "default_get",
    }
)  # fmt: skip
"""Methods that change nothing."""
BULK_SECONDS = 90.0
FIRST_JSON2 = 19
"""The first version with JSON-2."""

# Of the exceptions that JSON-RPC names, the status that JSON-2 gives them.
_STATUSES = {
    "AccessDenied": 401,
    "AccessError": 403,
    "MissingError": 404,
    "NotFound": 404,
    "LockError": 409,
    "UserError": 422,
    "ValidationError": 422,
    "RedirectWarning": 422,
    "UnprocessableEntity": 422,
}
_PERMANENT = frozenset(
    {"ValueError", "TypeError", "KeyError", "AttributeError", "NotNullViolation", "UniqueViolation", "CheckViolation",
     "ForeignKeyViolation", "NumericValueOutOfRange", "StringDataRightTruncation", "InvalidTextRepresentation"}
)  # fmt: skip
"""Exceptions that come again however often the same is sent, though their status is 500."""
SERIALIZE = "could not serialize access"
"""What the database says of two that wrote at once; the server itself has tried five times by then."""


class Client:
    """Calls methods of models through `rest`. Safe for many threads.

    `way`: "json2", "jsonrpc", or "" to ask the server. `context`: goes with every call.
    """

    def __init__(
        self, rest: Rest, *, way: str, database: str, user: str, secret: str, context: Mapping[str, Any]
    ) -> None:
        self.rest = rest
        self._way = way
        self._database, self._user, self._secret = database, user, secret
        self._context = dict(context)
        self._uid = 0
        self.server_time = ""
        """By the latest answer, to the second; "" if the server does not tell."""

    def call(
        self,
        model: str,
        method: str,
        *,
        ids: Sequence[int] | None = None,
        context: Mapping[str, Any] | None = None,
        repeatable: bool | None = None,
        timeout: float = 30.0,
        **named: Any,
    ) -> Any:
        """What the method gives, None included. `named`: its arguments. `repeatable`: twice does no harm."""
        whole = {**self._context, **(context or {})}
        reads = method in READS
        once_more = reads if repeatable is None else repeatable
        if self._json2():
            body = {**({} if ids is None else {"ids": list(ids)}), **named, "context": whole}
            answer = self.rest.call(
                "POST", f"json/2/{model}/{method}", json=body, headers=self._headers(),
                repeatable=once_more, timeout=timeout,
            )  # fmt: skip
            self.server_time = server_time(answer)
            return _told(answer, reads=reads)
        arguments = [] if ids is None else [list(ids)]
        inner = [
            self._database,
            self.uid(),
            self._secret,
            model,
            method,
            arguments,
            {**named, "context": whole},
        ]
        return self._rpc("object", "execute_kw", inner, reads=reads, repeatable=once_more, timeout=timeout)

    def uid(self) -> int:
        """The number of the user that we are; asked once."""
        if not self._uid:  # two threads may ask at once, and are told the same
            self._uid = self._asked_uid()
        return self._uid

    def _asked_uid(self) -> int:
        if self._json2():
            told = self.call("res.users", "context_get")
            uid = told.get("uid") if isinstance(told, dict) else None
        else:
            if not self._database:
                text = "settings.database: JSON-RPC needs the name of the database; give it."
                raise Misconfigured(text, errors=[FieldError("settings.database", text)])
            args = [self._database, self._user, self._secret, {}]
            uid = self._rpc("common", "authenticate", args, reads=True, repeatable=True)
            if uid is False:  # a refusal is no error there
                raise AuthFailed(
                    "Odoo refuses the user and the password or API key; check both, and the database.",
                    system=SYSTEM,
                )
        if not isinstance(uid, int) or isinstance(uid, bool):
            raise BadAnswer("The answer names no user.", system=SYSTEM)
        return uid

    def version(self) -> int:
        """The server's own number; asked without credentials. A server before 19 has only the older way to ask."""
        answer = self.rest.call("GET", "web/version", repeatable=True, expect=(404, 303))
        if answer.status == 200:
            told = answer.json()
        else:
            told = self._rpc("common", "version", [], reads=True, repeatable=True)
        numbers = None
        if isinstance(told, dict):
            numbers = told.get("version_info") or told.get("server_version_info")  # the older way's name
        found = re.search(r"\d+", str(numbers[0])) if isinstance(numbers, list) and numbers else None
        if found is None:
            raise BadAnswer("The answer tells no version of Odoo.", system=SYSTEM)
        return int(found[0])

    def way(self) -> str:
        """How the server is spoken to."""
        return "json2" if self._json2() else "jsonrpc"

    def _json2(self) -> bool:
        if not self._way:
            self._way = "json2" if self.version() >= FIRST_JSON2 else "jsonrpc"
        return self._way == "json2"

    def _headers(self) -> dict[str, str]:
        database = {"X-Odoo-Database": self._database} if self._database else {}
        return {**database, "Authorization": f"bearer {self._secret}"}

    def _rpc(
        self,
        service: str,
        method: str,
        args: list[Any],
        *,
        reads: bool,
        repeatable: bool,
        timeout: float = 30.0,
    ) -> Any:
        params = {"service": service, "method": method, "args": args}
        body = {"jsonrpc": "2.0", "method": "call", "id": 1, "params": params}
        answer = self.rest.call("POST", "jsonrpc", json=body, repeatable=repeatable, timeout=timeout)
        self.server_time = server_time(answer)
        told = _told(answer, reads=reads)
        if not isinstance(told, dict) or "jsonrpc" not in told:
            raise _unreadable("The answer is none of JSON-RPC.", answer, reads=reads)
        if "error" in told:
            raise self.rest.part_error(_as_json2(told["error"], answer))
        return told.get("result")  # a None is left out


def _told(answer: Answer, *, reads: bool) -> Any:
    try:
        return answer.json()
    except BadAnswer as error:
        raise _unreadable(error.message, answer, reads=reads) from None


def _unreadable(message: str, answer: Answer, *, reads: bool) -> BadAnswer:
    """The error for an answer whose status says done, and that can't be read."""
    error = BadAnswer(message, system=SYSTEM, vendor_status=answer.status)
    error.outcome_unknown = not reads
    return error


def _as_json2(error: Any, answer: Answer) -> Answer:
    """An error of JSON-RPC, whose HTTP status is always 200, as JSON-2 would have answered it. `debug` is left behind."""
    data = error.get("data") if isinstance(error, dict) else None
    data = data if isinstance(data, dict) else {}
    name, message = str(data.get("name", "")), str(data.get("message", ""))
    status = _STATUSES.get(name.rpartition(".")[2], 500)
    if name == "builtins.KeyError" and re.fullmatch(r"'?[a-z_]+(\.[a-z_]+)+'?", message):
        status, message = 404, f"the model {message} does not exist"
        name = "werkzeug.exceptions.NotFound"
    if re.match(r"Object [\w.]+ doesn't exist", message):
        status, name = 404, "werkzeug.exceptions.NotFound"
    body = jsonlib.dumps({"name": name, "message": message}).encode()
    return Answer(status, answer.headers, body)


def explain(answer: Answer) -> HubError:
    """By status, refined by the exception that Odoo names. Its `debug`, a traceback, is never shown."""
    error = explain_status(answer, SYSTEM)
    try:
        body = answer.json()
    except BadAnswer:
        body = None
    if not isinstance(body, dict) or not isinstance(body.get("name"), str):
        if answer.status == 404:
            text = "There is no Odoo, or no such database, at that address; check settings.base_url and settings.database."
            return Misconfigured(text, errors=[FieldError("settings.base_url", text)])
        return error
    name, message = body["name"], str(body.get("message", ""))
    short = name.rpartition(".")[2]
    told = f"{SYSTEM} answered {answer.status}: {message or 'no reason given'}"
    vendor: dict[str, Any] = {
        "system": SYSTEM,
        "vendor_status": answer.status,
        "vendor_code": short,
        "request_id": getattr(error, "request_id", ""),
    }
    if answer.status == 404 and short == "NotFound":
        return NotSupported(f"This Odoo lacks what was asked for: {message}")
    if SERIALIZE in message or short in (
        "LockError",
        "SerializationFailure",
        "LockNotAvailable",
        "DeadlockDetected",
    ):
        return Unavailable(told, **vendor)
    if short in _PERMANENT:
        return Rejected(told, **vendor, errors=_named(message, short))
    if isinstance(error, AuthFailed | NotPermitted | RecordGone | Unavailable):
        return type(error)(told, **vendor)
    if isinstance(error, Rejected):
        return Rejected(told, **vendor, errors=_named(message, short))
    if isinstance(error, VendorError):
        error.vendor_code = short
    return error


def _named(message: str, exception: str) -> list[FieldError]:
    """The fields that a refusal names, as Odoo calls them."""
    found = re.findall(r"[Ii]nvalid field(?: name)? '(\w+)'|\((\w+)\)|field '(\w+)'", message)
    names = [name for names in found for name in names if name]
    if exception == "KeyError" and re.fullmatch(r"'?\w+'?", message):
        names.append(message.strip("'"))
    return [FieldError(name, message) for name in dict.fromkeys(names)]
