"""How a connection proves who it is: tokens that are kept and renewed, and credentials that last."""

import base64
import copy
import hashlib
import json
import re
import threading
from abc import ABC, abstractmethod
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Protocol

from crm_core.connector import Account, TokenFacts, Tools
from crm_core.errors import (
    BadAnswer,
    HubError,
    Misconfigured,
    StoreUnavailable,
    VendorError,
)
from crm_core.log import Log, plain
from crm_core.ports import count

_log = Log("crm_core.auth")

RENEW_SECONDS = 300.0
"""A token is renewed this long before it ends (or after half its life, if that is later)."""
TOKEN_REQUEST_SECONDS = 15.0
CLAIM_SECONDS = 10.0
"""How long the other instances of the hub leave the asking to one of them; after that they ask themselves."""
POLL_SECONDS = 0.25
MAX_REJECTED = 8


class Auth(Protocol):
    """The credentials of one connection as headers."""

    def headers(self, force: bool = False, rejected: Mapping[str, str] | None = None) -> Mapping[str, str]:
        """`force`: those in `rejected` (default: the current ones) were refused, others are needed; the same
        ones back mean that there are none. Raises AuthFailed, Unavailable, RateLimited, Misconfigured.
        """
        ...

    def asked(self) -> bool:
        """Whether the current credentials are this process's own latest: nobody has newer ones."""
        ...

    def invalidate(self) -> None:
        """The current credentials were refused: never use them again."""
        ...

    def facts(self, *, fresh: bool = False) -> TokenFacts | None:
        """Of the token that `headers` gives, or with `fresh` of a new one; None if there are no tokens."""
        ...


class Lasting:
    """Credentials that every call bears as they are, such as an API key: there are no others, and none to ask for."""

    def __init__(self, headers: Mapping[str, str]) -> None:
        self._headers = headers

    def headers(self, force: bool = False, rejected: Mapping[str, str] | None = None) -> Mapping[str, str]:  # noqa: ARG002
        return self._headers

    def asked(self) -> bool:
        return True

    def invalidate(self) -> None:
        """A person gives another one."""

    def facts(self, *, fresh: bool = False) -> TokenFacts | None:  # noqa: ARG002  # as `Auth` has it
        return None


@dataclass(frozen=True)
class _Token:
    text: str = field(repr=False)
    renew_at: float
    expires: float
    """Epoch seconds, both."""
    asked: bool = False
    """By this process; others were left in the store by another."""


class Tokens(ABC):
    """The tokens of one connection: looked for in memory, then in the token store, then asked for.

    One request at a time, however many threads and instances of the hub need one.
    """

    def __init__(self, account: Account, tools: Tools, system: str, audience: str, *told: str) -> None:
        """`audience`: whom the token is for; `told`: everything else that it depends on, secrets too."""
        self._account = account
        self._tools = tools
        self._system = system
        self._audience = audience
        # Marks a stored token as asked for with exactly these credentials: after a change of the secret
        # a test must prove the new one, not live on a token of the old.
        self._mark = hashlib.sha256("\n".join((*told, audience)).encode()).hexdigest()[:16]
        self._lock = threading.Lock()
        self._held: _Token | None = None
        self._rejected: tuple[str, ...] = ()
        self._failures = 0
        self._failure: HubError | None = None

    @abstractmethod
    def _request(self) -> Mapping[str, Any]:
        """A new token as msal gives it. Raises as `Auth.headers`."""

    def headers(self, force: bool = False, rejected: Mapping[str, str] | None = None) -> Mapping[str, str]:
        return {"Authorization": f"Bearer {self._current(force, rejected).text}"}

    def facts(self, *, fresh: bool = False) -> TokenFacts:
        if fresh:
            with self._lock:
                token = self._held = self._asked()
        else:
            token = self._current(force=False, rejected=None)
        fingerprint = hashlib.sha256(token.text.encode()).hexdigest()[:16]
        return TokenFacts(
            _audience(token.text) or self._audience.removesuffix("/.default"),
            token.expires,
            token.renew_at,
            fingerprint,
        )

    def _current(self, force: bool, rejected: Mapping[str, str] | None) -> _Token:
        """As `headers` says."""
        held = self._held
        if not force and held is not None and self._good(held):
            count("tokens_from_memory", connection=self._account.uid)
            return held
        refused = ""
        if force:
            refused = rejected.get("Authorization", "").removeprefix("Bearer ") if rejected else ""
            refused = refused or (held.text if held else "")
        seen = self._failures
        with self._lock:
            self._refuse(refused)
            held = self._held
            if held is None or not self._good(held):
                if self._failure is not None and self._failures != seen:
                    # Another thread asked while this one waited: its failure is ours. A copy, because
                    # every raise adds to an exception's traceback.
                    raise copy.copy(self._failure)
                held = self._held = self._stored() or self._claimed()
            return held

    def asked(self) -> bool:
        held = self._held
        return held is None or held.asked

    def invalidate(self) -> None:
        with self._lock:
            self._refuse(self._held.text if self._held else "")
            self._held = None

    def _refuse(self, text: str) -> None:
        if text and text not in self._rejected:
            _log.warning("token", outcome="rejected", connection=self._account.uid, audience=self._audience)
            # Replaced, never changed: `_good` reads it without the lock.
            self._rejected = (*self._rejected, text)[-MAX_REJECTED:]

    def _good(self, token: _Token) -> bool:
        return token.text not in self._rejected and self._tools.clock.now().timestamp() < token.renew_at

    def _stored(self) -> _Token | None:
        """The token that another instance of the hub left, if it is good."""
        found = self._tools.tokens.get(self._account.tenant, self._account.uid)
        if found is None:
            return None
        mark, _, text = found[0].partition(" ")
        token = _Token(text, found[1] - RENEW_SECONDS, found[1])
        if mark != self._mark or not self._good(token):
            return None
        count("tokens_from_store", connection=self._account.uid)
        self._got("shared", found[1] - self._tools.clock.now().timestamp())
        return token

    def _claimed(self) -> _Token:
        """The token that another instance is just asking for, or a new one. The lock is held."""
        clock, name = self._tools.clock, (self._account.tenant, self._account.uid)
        give_up = clock.monotonic() + CLAIM_SECONDS
        claim = self._claim()
        while not claim and clock.monotonic() < give_up:
            clock.sleep(POLL_SECONDS)
            found = self._stored()
            if found is not None:
                return found
            claim = self._claim()
        try:
            # Between our look and our claim another instance may have come and gone.
            found = self._stored() if claim else None
            if found is None:
                return self._asked()
        except BaseException:
            # The others need not wait for one that failed.
            self._release(name, claim)
            raise
        self._release(name, claim)
        return found

    def _release(self, name: tuple[str, str], claim: str) -> None:
        if claim:
            with suppress(StoreUnavailable):
                self._tools.tokens.release(*name, claim)

    def _claim(self) -> str:
        now = self._tools.clock.now().timestamp()
        try:
            return self._tools.tokens.claim(self._account.tenant, self._account.uid, now, CLAIM_SECONDS)
        except StoreUnavailable:
            return "nobody's"  # a second call for a token is better than none

    def _asked(self) -> _Token:
        """A new token from the authority, also put into the store. The lock is held."""
        count("tokens_asked", connection=self._account.uid)
        try:
            text, seconds = self._read(self._request())
        except HubError as error:
            self._failure, self._failures = error, self._failures + 1
            self._not_got(error)
            raise
        self._failure = None
        self._got("renewed" if self._held or self._rejected else "new", seconds)
        if text in self._rejected:
            # The authority insists on it; asking on every call would not help.
            self._rejected = tuple(each for each in self._rejected if each != text)
        now = self._tools.clock.now().timestamp()
        try:
            self._tools.tokens.put(
                self._account.tenant, self._account.uid, f"{self._mark} {text}", now + seconds
            )
        except (StoreUnavailable, Misconfigured) as error:
            _log.warning("token not kept", connection=self._account.uid, error=error.code)
        return _Token(text, now + seconds - min(RENEW_SECONDS, seconds / 2), now + seconds, asked=True)

    def _got(self, outcome: str, seconds: float) -> None:
        _log.info(
            "token",
            outcome=outcome,
            connection=self._account.uid,
            audience=self._audience,
            expires_in=round(seconds),
        )

    def _not_got(self, error: HubError) -> None:
        vendor = error if isinstance(error, VendorError) else None
        _log.warning(
            "token",
            outcome="refused",
            connection=self._account.uid,
            audience=self._audience,
            error=error.code,
            status=vendor.vendor_status if vendor else None,
            vendor_code=plain(vendor.vendor_code) if vendor else "",
            request_id=vendor.request_id if vendor else "",
        )

    def _read(self, result: Mapping[str, Any]) -> tuple[str, float]:
        """(token, lifetime in seconds); raises BadAnswer if they can't be used."""
        text, seconds = result.get("access_token"), result.get("expires_in")
        if (
            not isinstance(text, str)
            or not re.fullmatch(r"[\x21-\x7e]+", text)
            or not isinstance(seconds, int | float)
            or not 0 < seconds < 1e9
        ):
            raise BadAnswer("The token answer has no usable token or lifetime.", system=self._system)
        return text, float(seconds)


def _audience(text: str) -> str:
    """The audience that a token names itself; "" if it is no JWT. Unverified: who takes the token has to do that."""
    try:
        body = text.split(".")[1]
        named = json.loads(base64.urlsafe_b64decode(body + "=" * (-len(body) % 4)))["aud"]
    except (ValueError, LookupError, TypeError, RecursionError):
        return ""
    return named[:200] if isinstance(named, str) else ""
