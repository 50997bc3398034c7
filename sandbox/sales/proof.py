"""What proves that a webhook comes from the CRM: a token in a header, or a signature of Standard Webhooks 1.0."""

import base64
import hashlib
import hmac
from collections.abc import Mapping

TOLERANCE_SECONDS = 300
PREFIX = "whsec_"


def token_fault(headers: Mapping[str, str], name: str, token: str) -> str:
    """What is wrong with the token, "" for nothing. Header names are in lower case."""
    given = headers.get(name.lower())
    if given is None:
        return f"the header {name} is missing"
    return "" if hmac.compare_digest(given.encode(), token.encode()) else f"the token in {name} is wrong"


def signature_fault(headers: Mapping[str, str], body: bytes, secret: str, now: float) -> str:
    """What is wrong with the signature, "" for nothing.

    https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md: the identifier, the time
    and the body with full stops between, HMAC-SHA256 with the key that is base64 behind ``whsec_``; of several
    signatures, with blanks between, one has to be right.
    """
    identifier, time, given = (
        headers.get(f"webhook-{name}", "") for name in ("id", "timestamp", "signature")
    )
    if not (identifier and time and given):
        return "webhook-id, webhook-timestamp or webhook-signature is missing"
    if not time.isdecimal() or abs(now - int(time)) > TOLERANCE_SECONDS:
        return "webhook-timestamp is not of the last five minutes"
    wanted = _signature(identifier, time, body, secret)
    right = [hmac.compare_digest(each.encode(), wanted) for each in given.split(" ")]
    return "" if any(right) else "webhook-signature is wrong"


def signed(identifier: str, body: bytes, secret: str, now: float) -> dict[str, str]:
    """The headers of a webhook that is signed now."""
    time = str(int(now))
    signature = _signature(identifier, time, body, secret).decode()
    return {"webhook-id": identifier, "webhook-timestamp": time, "webhook-signature": signature}


def _signature(identifier: str, time: str, body: bytes, secret: str) -> bytes:
    key = base64.b64decode(secret.removeprefix(PREFIX))
    digest = hmac.new(key, f"{identifier}.{time}.".encode() + body, hashlib.sha256).digest()
    return b"v1," + base64.b64encode(digest)
