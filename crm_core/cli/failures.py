"""Why a command did not do what it was asked for: one error, with an exit code and what to do."""

from collections.abc import Mapping
from enum import IntEnum
from typing import Any


class Exit(IntEnum):
    """The exit codes; docs/cli.md says the same."""

    OK = 0
    FAILED = 1
    """What was asked for failed: a run, a test, a check of the doctor's."""
    USAGE = 2
    """The command is not understood, here or by the hub."""
    UNREACHABLE = 3
    """No hub answers there."""
    REFUSED = 4
    """The key is missing or wrong, or its role does not suffice."""
    NOT_FOUND = 5
    CONFLICT = 6
    """Something else is in the way, or has changed since; of an apply also: some of it was not done because of that."""
    INTERRUPTED = 130
    PIPE = 141
    """Whoever read the output has gone."""


class Failure(Exception):
    """What people are told: what went wrong, `details` line by line, and the remedy."""

    def __init__(self, code: Exit, message: str, remedy: str = "", details: tuple[str, ...] = ()) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.remedy = remedy
        self.details = details

    def lines(self) -> list[str]:
        if self.code is Exit.PIPE:
            return []
        remedy = [f"What to do: {self.remedy}"] if self.remedy else []
        error = "" if self.code is Exit.INTERRUPTED else "Error: "
        return [f"{error}{self.message}", *(f"  {each}" for each in self.details), *remedy]


class Unreachable(Failure):
    """The hub did not answer, or something else did; asking again may help."""

    def __init__(self, message: str, remedy: str = "", details: tuple[str, ...] = ()) -> None:
        super().__init__(Exit.UNREACHABLE, message, remedy, details)


class Refusal(Failure):
    """The hub answered with an error, as problem+json. `body`: the whole of it."""

    def __init__(
        self, status: int, body: Mapping[str, Any], retry_after: str = "", key_from: str = ""
    ) -> None:
        self.status = status
        self.body = body
        message = str(body.get("detail") or body.get("title") or f"The hub answered {status}.")
        super().__init__(
            _code(status, body), message, _remedy(status, body, retry_after, key_from), _details(status, body)
        )

    def is_about(self, field: str) -> bool:
        """Whether it names a field of the request as wrong."""
        return any(
            isinstance(each, Mapping) and each.get("field") == field for each in self.body.get("errors") or ()
        )


def _is_unknown(status: int, body: Mapping[str, Any]) -> bool:
    return status == 405 or (status == 404 and str(body.get("detail", "")).startswith("There is nothing at "))


def _code(status: int, body: Mapping[str, Any]) -> Exit:
    if body.get("vendor"):
        return Exit.FAILED
    if status in (401, 403):
        return Exit.REFUSED
    if status == 404:
        return Exit.NOT_FOUND
    if status in (409, 412):
        return Exit.CONFLICT
    return Exit.USAGE if 400 <= status < 500 and status != 429 else Exit.FAILED


def _details(status: int, body: Mapping[str, Any]) -> tuple[str, ...]:
    found = [str(each.get("message", "")) for each in body.get("errors") or () if isinstance(each, Mapping)]
    lines = [each for each in found if each != body.get("detail")]
    vendor = body.get("vendor")
    if isinstance(vendor, Mapping):
        words = " ".join(str(vendor[name]) for name in ("status", "code", "message") if vendor.get(name))
        lines.append(f"{vendor.get('system', 'the remote system')} said: {words}")
    if body.get("traceId"):
        lines.append(f"{body.get('code', status)}, trace {body['traceId']}")
    return tuple(lines)


def _remedy(status: int, body: Mapping[str, Any], retry_after: str, key_from: str) -> str:
    if status == 401:
        return (
            f"{key_from or 'No key was given'}; give the hub's by --key-file or in the environment variable CRMHUB_KEY."
            " `make run` keeps the local one in .data/api-key, a hub in Azure has it in its setting HUB_API_KEY."
        )
    if status == 403:
        return "Use a key with the role that the message names."
    if _is_unknown(status, body):
        return "This hub is older than this command and can't do it yet; update the hub."
    if status == 412:
        return "Look at it again, then repeat the command."
    if retry_after:
        return f"Try again in {retry_after} s."
    if body.get("vendor") or body.get("code") == "Misconfigured":
        return "`python -m crm_core doctor` says what is wrong with a connection, and what to do."
    if status == 500:
        return "This is a fault of the hub's own; its log has more, by the trace."
    return ""
