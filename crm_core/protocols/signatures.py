"""How a webhook proves where it comes from, as values: a connector names the scheme, the hub hands it the secrets.

Every scheme looks at the bytes as they came and at nothing that was parsed from them (`ClientState` aside, whose proof
lies in the body). Texts are compared in constant time, and with every secret that is active: while one is being
changed there are several. An empty secret proves nothing.
"""

import base64
import binascii
import hashlib
import hmac
import re
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any, Literal

from crm_core.connector import Hook
from crm_core.errors import BadAnswer, Misconfigured, SignatureInvalid

WINDOW_SECONDS = 300.0
"""How old a signed time may be, and how far ahead: what Standard Webhooks and HubSpot's v3 say."""
_DIGITS = re.compile(r"[0-9]{1,16}", re.ASCII)


def secrets_of(text: str) -> tuple[str, ...]:
    """The secrets that a connection's setting holds: one or, while it is being changed, several with blanks between."""
    return tuple(text.split())


def fingerprint(secret: str) -> str:
    """Which secret it was, for people; it can't be turned back into a long random one."""
    return hashlib.sha256(secret.encode()).hexdigest()[:8]


class Scheme(ABC):
    """One way to prove where a webhook comes from."""

    @abstractmethod
    def proof(self, hook: Hook, secrets: Sequence[str], now: float) -> str:
        """The fingerprint of the secret that proves it. `now`: epoch seconds.

        Raises SignatureInvalid, and Misconfigured where the hub lacks a setting that the scheme needs.
        """


class Encoding(Enum):
    """How a signature is written. Hex in either case; base64 with its padding or without, and in one way only."""

    HEX = "hex"
    BASE64 = "base64"

    def decoded(self, text: str) -> bytes:
        """Empty, which no signature is, for what is not of this form."""
        try:
            if self is Encoding.HEX:
                return bytes.fromhex(text) if text.isalnum() else b""
            found = base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
            # The last character may have bits that mean nothing.
            return found if base64.b64encode(found).rstrip(b"=") == text.encode().rstrip(b"=") else b""
        except (ValueError, binascii.Error):
            return b""


class Part(Enum):
    """What a signature may be over, beside fixed text."""

    METHOD = "method"
    URI = "uri"
    BODY = "body"
    TIMESTAMP = "timestamp"
    ID = "id"


@dataclass(frozen=True)
class Stamp:
    """The header with the time of signing. A webhook outside of the window is refused: it may be a recorded one."""

    header: str
    unit: Literal["seconds", "milliseconds"] = "seconds"
    window: float = WINDOW_SECONDS

    def read(self, hook: Hook, now: float) -> str:
        """As it was sent. Raises SignatureInvalid for one that is missing, no number, too old or too far ahead."""
        text = hook.headers.get(self.header, "")
        if not _DIGITS.fullmatch(text):
            raise SignatureInvalid(f"The webhook has no time in {self.header}.")
        seconds = int(text) / (1000 if self.unit == "milliseconds" else 1)
        if abs(now - seconds) > self.window:
            raise SignatureInvalid(f"The time in {self.header} is not of the last {self.window:g} s.")
        return text


@dataclass(frozen=True)
class Hmac(Scheme):
    """HMAC-SHA256 of `over`, in a header.

    `over`: parts of the request and fixed text, in order. `prefix`: before the signature, such as "sha256=".
    `several`: the header may bear more than one, with blanks between, each with the prefix; others than ours are
    passed by. `stamp`: needed if the time is signed. `identifier`: the header with the signed id. `decoded`:
    characters of the URI that are signed as themselves where they came percent-encoded. `key_prefix`: the secret is
    base64 behind it, or without it.
    """

    header: str
    over: tuple[Part | str, ...] = (Part.BODY,)
    encoding: Encoding = Encoding.HEX
    prefix: str = ""
    several: bool = False
    stamp: Stamp | None = None
    identifier: str = ""
    decoded: str = ""
    key_prefix: str = ""

    def proof(self, hook: Hook, secrets: Sequence[str], now: float) -> str:
        text = hook.headers.get(self.header, "")
        given = text.split(" ") if self.several else [text]
        told = [
            self.encoding.decoded(each.removeprefix(self.prefix))
            for each in given
            if each.startswith(self.prefix)
        ]
        timestamp = self.stamp.read(hook, now) if self.stamp else ""
        signed = b"".join(self._bytes(hook, part, timestamp) for part in self.over)
        wanted = [(secret, self._digest(secret, signed)) for secret in secrets]
        return _first(
            secret for secret, digest in wanted for one in told if digest and hmac.compare_digest(digest, one)
        )

    def _digest(self, secret: str, signed: bytes) -> bytes:
        """Empty for a secret that is none."""
        key = secret.encode()
        if self.key_prefix:
            key = Encoding.BASE64.decoded(secret.removeprefix(self.key_prefix))
        return hmac.digest(key, signed, "sha256") if key else b""

    def _bytes(self, hook: Hook, part: "Part | str", timestamp: str) -> bytes:
        if isinstance(part, str):
            return part.encode()
        if part is Part.BODY:
            return hook.body
        if part is Part.METHOD:
            return hook.method.encode()
        if part is Part.TIMESTAMP:
            return timestamp.encode()
        if part is Part.ID:
            return _needed(hook, self.identifier).encode("utf-8", "surrogateescape")
        if not hook.url.startswith("https://") and not hook.url.startswith("http://"):
            raise Misconfigured("PUBLIC_URL is missing; the system signs the address that it calls.")
        return _partly_decoded(hook.url, self.decoded).encode()


def _needed(hook: Hook, header: str) -> str:
    text = hook.headers.get(header, "")
    if not text:
        raise SignatureInvalid(f"The webhook has no {header}.")
    return text


def _partly_decoded(url: str, characters: str) -> str:
    """Only these characters are taken out of their percent-encoding."""
    for each in characters:
        url = re.sub(f"%{ord(each):02X}", lambda _, plain=each: plain, url, flags=re.IGNORECASE)  # type: ignore[misc]
    return url


STANDARD_WEBHOOKS = Hmac(
    "webhook-signature",
    (Part.ID, ".", Part.TIMESTAMP, ".", Part.BODY),
    Encoding.BASE64,
    prefix="v1,",
    several=True,
    stamp=Stamp("webhook-timestamp"),
    identifier="webhook-id",
    key_prefix="whsec_",
)
"""Standard Webhooks 1.0, symmetric: several signatures while the sender changes its secret."""

SIGNING_KEY_BYTES = range(24, 65)


def signing_key(secret: str) -> bytes:
    """The key that a secret of Standard Webhooks stands for. Raises ValueError saying what is expected."""
    key = Encoding.BASE64.decoded(secret.removeprefix(STANDARD_WEBHOOKS.key_prefix))
    if len(key) not in SIGNING_KEY_BYTES:
        raise ValueError("expected whsec_ and 24 to 64 bytes in base64")
    return key


def standard_signature(key: bytes, message_id: str, seconds: int, body: bytes) -> str:
    """What STANDARD_WEBHOOKS proves, with its version before it."""
    signed = f"{message_id}.{seconds}.".encode() + body
    digest = hmac.digest(key, signed, "sha256")
    return STANDARD_WEBHOOKS.prefix + base64.b64encode(digest).decode()


@dataclass(frozen=True)
class HeaderToken(Scheme):
    """The secret itself in a header, behind a prefix such as "Bearer " if there is one."""

    header: str
    prefix: str = ""

    def proof(self, hook: Hook, secrets: Sequence[str], now: float) -> str:  # noqa: ARG002  # it has no time
        text = hook.headers.get(self.header, "")
        return _same(text.removeprefix(self.prefix) if text.startswith(self.prefix) else "", secrets)


@dataclass(frozen=True)
class QueryToken(Scheme):
    """The secret itself in a parameter of the address."""

    parameter: str

    def proof(self, hook: Hook, secrets: Sequence[str], now: float) -> str:  # noqa: ARG002  # it has no time
        return _same(hook.query.get(self.parameter, ""), secrets)


@dataclass(frozen=True)
class BasicAuth(Scheme):
    """User and password as HTTP Basic; a secret is "user:password"."""

    def proof(self, hook: Hook, secrets: Sequence[str], now: float) -> str:  # noqa: ARG002  # it has no time
        kind, _, text = hook.headers.get("authorization", "").partition(" ")
        given = Encoding.BASE64.decoded(text) if kind.lower() == "basic" else b""
        return _same(given.decode("utf-8", "replace"), [each for each in secrets if ":" in each])


@dataclass(frozen=True)
class ClientState(Scheme):
    """The secret as a property of each item of a list in the body: of a list that is empty nothing is proven.

    The one scheme that has to read the body first; what can't be read proves nothing.
    """

    items: str = "value"
    name: str = "clientState"

    def proof(self, hook: Hook, secrets: Sequence[str], now: float) -> str:  # noqa: ARG002  # it has no time
        try:
            told = hook.json()
        except BadAnswer:
            told = None
        items = told.get(self.items) if isinstance(told, Mapping) else None
        proofs = [self._of(each, secrets) for each in items] if isinstance(items, list) else []
        if not proofs:
            raise SignatureInvalid("The webhook bears no client state.")
        return proofs[0]

    def _of(self, item: Any, secrets: Sequence[str]) -> str:
        state = item.get(self.name) if isinstance(item, Mapping) else None
        return _same(state if isinstance(state, str) else "", secrets)


@dataclass(frozen=True)
class AnyOf(Scheme):
    """One of several schemes suffices."""

    schemes: tuple[Scheme, ...]

    def proof(self, hook: Hook, secrets: Sequence[str], now: float) -> str:
        refused: SignatureInvalid | None = None
        for each in self.schemes:
            try:
                return each.proof(hook, secrets, now)
            except SignatureInvalid as error:
                refused = error
        raise refused or SignatureInvalid("There is no scheme.")


def _same(given: str, secrets: Sequence[str]) -> str:
    """The fingerprint of the secret that a text is."""
    told = given.encode("utf-8", "surrogatepass")
    return _first(each for each in secrets if hmac.compare_digest(told, each.encode()))


def _first(matching: Iterable[str]) -> str:
    """Of the secrets that match; all are compared, so that the time does not tell which one did."""
    found = [each for each in matching if each]
    if not found:
        raise SignatureInvalid("The proof of the webhook is missing or wrong.")
    return fingerprint(found[0])
