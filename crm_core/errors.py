"""The error taxonomy. One attribute, `recovery`, decides what sync does; `status` is for callers.

HubError
├── CallerError              answered at once; the caller has to change something
│   ├── BadRequest           400
│   ├── Unauthenticated      401
│   ├── SignatureInvalid     401  a webhook whose proof is wrong
│   ├── Forbidden            403
│   ├── NotFound             404
│   ├── NotSupported         405  this system can't
│   ├── Conflict             409  something else holds the place
│   ├── Stale                412  If-Match does not hold
│   ├── TooLarge             413
│   ├── UnsupportedMedia     415  a content type or encoding that is not taken
│   ├── Unprocessable        422  a key used again for another request
│   └── TooManyRequests      429  the hub's own limit
├── Misconfigured            503  a setting or secret is missing or wrong
├── StoreUnavailable         503  our own storage does not answer
├── NotBegun                 503  one of many writes that was not sent, because of another or of the time
├── Bug                      500  a fault of the hub's own, kept as the outcome of one of many writes
└── VendorError                   keeps the vendor's status, code, request id and message
    ├── AuthFailed           502
    ├── NotPermitted         502
    ├── Rejected             422
    ├── RecordGone           404
    ├── VersionMismatch      409
    ├── CursorExpired        409
    ├── RateLimited          503
    │   └── OverBudget       503  our own share of what the system allows is used up
    ├── Unavailable          503 (504 after a timeout)
    └── BadAnswer            502
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any, ClassVar


class Recovery(Enum):
    """What sync does about an error; callers of the API only see its status."""

    ANSWER = "answer"
    """Tell the caller; repeating it unchanged can't help."""
    ATTENTION = "attention"
    """The connection needs a person: no attempts are spent until it is mended."""
    ENTITY_WAITS = "entity_waits"
    """Only this entity of the connection waits for a person."""
    REFUSE = "refuse"
    """The named fields are refused; everything else goes on."""
    GONE = "gone"
    """The record was deleted there."""
    REREAD = "reread"
    """Read the record again and merge."""
    FULL_RUN = "full_run"
    """The place in the feed is lost: read everything again."""
    WAIT = "wait"
    """Wait as long as the vendor says; not an attempt."""
    RETRY = "retry"
    """Counts against the connection; try again later."""
    PARK = "park"
    """A few attempts, then a person looks at it."""


@dataclass(frozen=True)
class FieldError:
    """What is wrong with one field or parameter, and what to do about it."""

    field: str
    message: str


class HubError(Exception):
    """Base of every error the hub raises on purpose."""

    status: ClassVar[int] = 500
    recovery: ClassVar[Recovery] = Recovery.ANSWER

    def __init__(self, message: str, *, errors: Sequence[FieldError] = ()) -> None:
        super().__init__(message)
        self.message = message
        self.errors = tuple(errors)

    @property
    def code(self) -> str:
        """The stable name of this kind of error in answers, logs and docs."""
        return type(self).__name__

    @property
    def http_status(self) -> int:
        return self.status


class CallerError(HubError):
    """The request can't be served as it is."""

    status = 400


class BadRequest(CallerError):
    status = 400

    @classmethod
    def field(cls, field: str, message: str) -> "BadRequest":
        """One wrong field: its name and the remedy in one sentence."""
        return cls(message, errors=[FieldError(field, message)])


class Unauthenticated(CallerError):
    status = 401


class SignatureInvalid(CallerError):
    status = 401


class Forbidden(CallerError):
    status = 403


class NotFound(CallerError):
    status = 404


class NotSupported(CallerError):
    status = 405


class Conflict(CallerError):
    status = 409


class Stale(CallerError):
    status = 412


class Unprocessable(CallerError):
    status = 422


class TooLarge(CallerError):
    status = 413


class UnsupportedMedia(CallerError):
    status = 415


class TooManyRequests(CallerError):
    """Come again after `retry_after` seconds."""

    status = 429

    def __init__(self, message: str, *, retry_after: float) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class Misconfigured(HubError):
    """A setting or secret is missing or wrong; the message names it."""

    status = 503
    recovery = Recovery.ATTENTION


class StoreUnavailable(HubError):
    """Azure Storage does not answer; the message queue tries again."""

    status = 503
    recovery = Recovery.RETRY
    outcome_unknown = False
    """A write may have been carried out all the same."""

    def __init__(self, message: str, *, outcome_unknown: bool = False) -> None:
        super().__init__(message)
        self.outcome_unknown = outcome_unknown


class NotBegun(HubError):
    """One of many writes that was not sent: send it again, after `retry_after` seconds if that is known."""

    status = 503
    recovery = Recovery.WAIT

    def __init__(self, message: str, *, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class Bug(HubError):
    """A fault of the hub's own; whether the write was carried out is not known."""

    status = 500
    recovery = Recovery.PARK
    outcome_unknown = True


class VendorError(HubError):
    """The remote system refused or failed. `message` is the vendor's own, redacted and shortened."""

    status = 502
    recovery = Recovery.PARK
    outcome_unknown = False
    """A write may have been carried out all the same."""

    def __init__(
        self,
        message: str,
        *,
        system: str = "",
        vendor_status: int | None = None,
        vendor_code: str = "",
        request_id: str = "",
        errors: Sequence[FieldError] = (),
    ) -> None:
        super().__init__(message, errors=errors)
        self.system = system
        self.vendor_status = vendor_status
        self.vendor_code = vendor_code
        self.request_id = request_id


class AuthFailed(VendorError):
    """Refused even with a fresh token."""

    status = 502
    recovery = Recovery.ATTENTION


class NotPermitted(VendorError):
    """The hub's user at the vendor lacks a privilege."""

    status = 502
    recovery = Recovery.ENTITY_WAITS


class Rejected(VendorError):
    """The vendor refuses these values."""

    status = 422
    recovery = Recovery.REFUSE


class RecordGone(VendorError):
    status = 404
    recovery = Recovery.GONE


class VersionMismatch(VendorError):
    status = 409
    recovery = Recovery.REREAD


class CursorExpired(VendorError):
    status = 409
    recovery = Recovery.FULL_RUN


class RateLimited(VendorError):
    """Wait `retry_after` seconds; the vendor counts our calls."""

    status = 503
    recovery = Recovery.WAIT

    def __init__(self, message: str, *, retry_after: float | None = None, **vendor: str | int | None) -> None:
        super().__init__(message, **vendor)  # type: ignore[arg-type]  # the keywords of VendorError
        self.retry_after = retry_after


class OverBudget(RateLimited):
    """Work of this lane has used up its share of the calls that the system allows in a time; nothing was sent.

    `shared`: no other work of the connection may call either, but for callers who wait.
    """

    def __init__(self, message: str, *, retry_after: float, shared: bool) -> None:
        super().__init__(message, retry_after=retry_after)
        self.shared = shared


class Unavailable(VendorError):
    """5xx, no connection or no answer in time. `outcome_unknown`: the request may have been carried out."""

    status = 503
    recovery = Recovery.RETRY

    def __init__(
        self,
        message: str,
        *,
        retry_after: float | None = None,
        timeout: bool = False,
        outcome_unknown: bool = False,
        **vendor: str | int | None,
    ) -> None:
        super().__init__(message, **vendor)  # type: ignore[arg-type]  # the keywords of VendorError
        self.retry_after = retry_after
        self.timeout = timeout
        self.outcome_unknown = outcome_unknown

    @property
    def http_status(self) -> int:
        return 504 if self.timeout else 503


class BadAnswer(VendorError):
    """The answer can't be parsed or can't be true."""

    status = 502
    recovery = Recovery.PARK


def error_to_json(error: HubError) -> dict[str, Any]:
    """An error as it is stored: everything that an answer shows of it, by the names of its attributes."""
    own = {name: value for name, value in vars(error).items() if name not in ("message", "errors")}
    return {
        "code": error.code,
        "message": error.message,
        "errors": [vars(each) for each in error.errors],
        "own": own,
    }


def error_from_json(data: Mapping[str, Any]) -> HubError:
    """The error that was stored; of a kind that this version does not know, a plain HubError."""
    kinds = {kind.__name__: kind for kind in _kinds(HubError)}
    kind = kinds.get(data["code"], HubError)
    error = kind.__new__(kind)
    HubError.__init__(error, data["message"], errors=[FieldError(**each) for each in data["errors"]])
    vars(error).update(data["own"])
    return error


def _kinds(kind: type[HubError]) -> Iterator[type[HubError]]:
    yield kind
    for each in kind.__subclasses__():
        yield from _kinds(each)
