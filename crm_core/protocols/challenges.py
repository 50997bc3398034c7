"""What a system asks of an address before it sends webhooks there, and what is answered. Nothing of it is kept.

Sources: CloudEvents "HTTP 1.1 Web Hooks for Event Delivery", section 4; Microsoft Graph "Receive change notifications
through webhooks"; Azure Event Grid "Endpoint validation with Event Grid schema".
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from crm_core.connector import Hook
from crm_core.errors import BadAnswer

MAX_LENGTH = 1024
"""Of a text that is sent back; Graph's has some 200 characters."""


@dataclass(frozen=True)
class Answer:
    """`text`: plain, or JSON."""

    text: str = ""
    content_type: str = "text/plain"
    headers: Mapping[str, str] = field(default_factory=dict)


def before_proof(hook: Hook, origins: tuple[str, ...], per_minute: float) -> Answer | None:
    """What is asked without any proof: an address that nobody can guess is enough for it.

    `origins`: of the senders that the CloudEvents handshake allows. `per_minute`: how many webhooks one may send.
    """
    if hook.method == "OPTIONS":
        origin = hook.headers.get("webhook-request-origin", "")
        if origin.lower() not in origins:
            return None
        headers = {"WebHook-Allowed-Origin": origin, "Allow": "POST"}
        if "webhook-request-rate" in hook.headers:
            headers["WebHook-Allowed-Rate"] = str(int(per_minute))
        return Answer(headers=headers)
    token = hook.query.get("validationToken", "")
    if token and not hook.body and len(token) <= MAX_LENGTH:
        return Answer(token)
    return None


def after_proof(hook: Hook) -> Answer | None:
    """Event Grid wants the code of its own validation event back. It bears the secret in the address, as its events do."""
    if hook.headers.get("aeg-event-type", "").lower() != "subscriptionvalidation":
        return None
    try:
        told = hook.json()
    except BadAnswer:
        return None
    code = _code(told)
    if not 0 < len(code) <= MAX_LENGTH:
        return None
    return Answer(json.dumps({"validationResponse": code}), "application/json")


def _code(told: Any) -> str:
    first = told[0] if isinstance(told, list) and told else None
    data = first.get("data") if isinstance(first, Mapping) else None
    code = data.get("validationCode") if isinstance(data, Mapping) else None
    return code if isinstance(code, str) else ""
