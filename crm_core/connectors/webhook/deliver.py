"""What goes out: the body of a delivery, its signature, and the one request that sends it.

Sources: Standard Webhooks 1.0 (https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md),
CloudEvents 1.0, JSON event format.
"""

import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qsl

from crm_core.connector import Account, Delivered, Message, Request, Tools
from crm_core.errors import BadRequest
from crm_core.model.joined import EVENT_TIME, ID
from crm_core.model.json_text import dump_json
from crm_core.model.mapping import EntityMap
from crm_core.model.record_event import RecordEvent
from crm_core.ports import Clock
from crm_core.protocols.http import check_headers
from crm_core.protocols.rest import redact, retry_after
from crm_core.protocols.signatures import secrets_of, signing_key, standard_signature

TIMEOUT_SECONDS = 15.0
EXCERPT_BYTES = 2000
"""Of an answer so much is looked at; what is kept of it has 500 characters."""
CLOUD_EVENT = "application/cloudevents+json; charset=utf-8"
JSON = "application/json; charset=utf-8"
OWN_HEADERS = frozenset(
    {"content-type", "content-length", "host", "connection", "transfer-encoding", "traceparent", "expect"}
)
"""Headers that are not a connection's to say, beside those of the signature."""
SECRET_LENGTH = 8
"""A shorter value of the address's query (a version, a flag) is no secret, and is found in every text."""
_QUERY = re.compile(r"[A-Za-z0-9._~!$&'()*+,;=:@/?%-]*")
_LINE = re.compile(r"([^:\s]+)[ \t]*:[ \t]*(.*)")


class Outgoing:
    """The receiver of one connection, as its settings describe it. Raises BadRequest with the setting's name."""

    def __init__(self, account: Account, tools: Tools) -> None:
        settings, secrets = account.settings, account.secrets
        self._tools = tools
        self._uid = account.uid
        self.url = settings.get("url", "")
        self._keys = _keys(secrets.get("signing_secret", ""))
        self._headers = _headers(settings.get("headers", ""))
        query = _query(secrets.get("url_query", ""))
        self._address = f"{self.url}?{query}" if query else self.url
        self._secrets = [*secrets_of(secrets.get("signing_secret", "")), secrets.get("token", "")]
        self._secrets += _secrets_in(query)
        if secrets.get("token"):
            name = settings.get("token_header", "")
            if not name:
                raise BadRequest.field(
                    "settings.token_header",
                    "settings.token_header: is missing; say in which header the token goes.",
                )
            self._headers |= _checked("settings.token_header", name, secrets["token"])

    def send(self, message: Message) -> Delivered:
        """One request, never a second one and never to where an answer leads. Raises what the transport raises."""
        seconds = int(self._clock.now().timestamp())
        headers = {
            **self._headers,
            **message.headers,
            "Content-Type": message.content_type,
            "webhook-id": message.id,
            "webhook-timestamp": str(seconds),
        }
        if self._keys:
            signed = (standard_signature(key, message.id, seconds, message.body) for key in self._keys)
            headers["webhook-signature"] = " ".join(signed)
        request = Request("POST", self._address, headers, message.body, TIMEOUT_SECONDS, repeatable=False)
        answer = self._tools.transport.send(request, connection=self._uid)
        return Delivered(
            answer.status,
            redact(answer.excerpt(EXCERPT_BYTES), self._secrets),
            retry_after(answer.headers, self._clock.now()),
        )

    @property
    def _clock(self) -> Clock:
        return self._tools.clock


def _query(setting: str) -> str:
    """Raises BadRequest for what can't stand in an address as it is."""
    query = setting.strip().removeprefix("?")
    if not _QUERY.fullmatch(query):
        raise BadRequest.field(
            "secrets.url_query",
            "secrets.url_query: expected what follows the ? of an address, percent-encoded as it stands there.",
        )
    return query


def _secrets_in(query: str) -> list[str]:
    """What of an address's query may be a secret: each value as it stands there and as it is meant, or what has no name."""
    parts = (each.partition("=") for each in query.split("&"))
    found = [*(value or name for name, _, value in parts), *(value for _, value in parse_qsl(query))]
    return [each for each in found if len(each) >= SECRET_LENGTH]


def _keys(setting: str) -> list[bytes]:
    """One, or several while the secret is being changed."""
    try:
        return [signing_key(each) for each in secrets_of(setting)]
    except ValueError as error:
        raise BadRequest.field("secrets.signing_secret", f"secrets.signing_secret: {error}.") from None


def _headers(setting: str) -> dict[str, str]:
    """Lines of `Name: value`."""
    found: dict[str, str] = {}
    for line in filter(None, map(str.strip, setting.splitlines())):
        parts = _LINE.fullmatch(line)
        if parts is None:
            raise BadRequest.field("settings.headers", "settings.headers: expected lines of 'Name: value'.")
        found |= _checked("settings.headers", parts[1], parts[2])
    return found


def _checked(setting: str, name: str, value: str) -> dict[str, str]:
    if name.lower() in OWN_HEADERS or name.lower().startswith(("webhook-", "ce-")):
        raise BadRequest.field(setting, f"{setting}: {name} is said by the hub; take another header.")
    try:
        check_headers({name: value})
    except BadRequest as error:
        raise BadRequest.field(setting, f"{setting}: {error.message}") from None
    return {name: value}


def cloud_event(uid: str, delivery: str, event: RecordEvent) -> Message:
    """Structured JSON. `data`: the record as it was then, and of the fields that changed the values before."""
    record = {"id": event.record, "entity": event.entity, "version": event.version, **event.fields}
    data: dict[str, Any] = {"record": record, "old": dict(event.old)}
    if event.cut:
        data["cut"] = list(event.cut)
    return _event(uid, delivery, _kind(event), event.record, event.time, data)


def test_event(uid: str, delivery: str, time: str) -> Message:
    """What a test sends: of no record."""
    return _event(uid, delivery, "crmhub.test", "test", time, {})


def _event(uid: str, delivery: str, kind: str, subject: str, time: str, data: Mapping[str, Any]) -> Message:
    facts = _facts(uid, delivery, kind, subject, time)
    body = {**facts, "datacontenttype": "application/json", "data": data}
    return Message(delivery, CLOUD_EVENT, dump_json(body))


def _facts(uid: str, delivery: str, kind: str, subject: str, time: str) -> dict[str, str]:
    """The attributes of a CloudEvent."""
    return {
        "specversion": "1.0",
        "id": delivery,
        "source": f"/connections/{uid}",
        "type": kind,
        "subject": subject,
        "time": time,
    }


def _kind(event: RecordEvent) -> str:
    return f"crmhub.{event.entity}.{event.kind}"


def mapped(uid: str, emap: EntityMap, delivery: str, event: RecordEvent) -> Message:
    """As the connection's mapping says: all that the record has, null for what this change has emptied. What happened to
    which record stands in headers, as in the binary form of CloudEvents.

    Raises BadRequest with an error for each value that the mapping can't put.
    """
    fields = {**dict.fromkeys(event.old), **event.fields, ID: event.record, EVENT_TIME: event.time}
    known = {
        name: value
        for name, value in fields.items()
        if name in emap.by_field or name in emap.companions or name in emap.parts
    }
    writable = {
        name: value for name, value in known.items() if name not in emap.by_field or emap.by_field[name].writable
    }  # fmt: skip
    facts = _facts(uid, delivery, _kind(event), event.record, event.time)
    headers = {f"ce-{name}": value for name, value in facts.items()}
    return Message(delivery, JSON, dump_json(emap.outward(writable, {})), headers)
