"""Presences between a CRM and a sales app: the two routes of docs/recipes/presencias.md. What is sent and taken, and how it
is named there, is the mapping of the connections `comercial` and `presencia-crm`.
"""

from contextlib import suppress
from typing import TYPE_CHECKING, Any

from crm_core.errors import BadRequest, Misconfigured, NotFound
from crm_core.functions.endpoint import route
from crm_core.functions.web import Call, Reply, Role
from crm_core.functions.webhooks import received
from crm_core.model.connection import DEFAULT_TENANT
from crm_core.model.fields import hub_time

if TYPE_CHECKING:
    from pydantic import BaseModel

    from crm_core.connector import Connector, Hook
    from crm_core.functions.bodies import PresenceBody
    from crm_core.hub import Hub
    from crm_core.model.record_event import RecordEvent

_SAMPLE = {
    "first_name": "Cliente",
    "last_name": "de Prueba",
    "mobile": "999888777",
    "email": "prueba@example.com",
    "city": "Lima",
    "interest": "OASIS 2 (AUCALLAMA)",
    "source": "OPC",
}


@route("POST", "/api/webhook-presencia-crm", role=None, answer=202, raw=True)
def presence(call: Call) -> Reply:
    """Takes a presence of the CRM, with its token in X-CRM-Webhook-Token: makes or changes a visit, and a sale if it tells of
    one.
    """
    from crm_core.connection_admin import default_uid
    from crm_core.settings import SENDER

    def take(hook: "Hook", source: str) -> Any:
        hub: Hub = call.hub
        with suppress(Misconfigured):  # of another connection: who has a key is told
            hub.prepare()  # this one may be as new as the settings
        return hub.receiver.receive_at((DEFAULT_TENANT, default_uid(SENDER)), hook, source)

    return received(call, take)


def _presence_body() -> "type[BaseModel]":
    from crm_core.functions.bodies import PresenceBody

    return PresenceBody


@route("POST", "/api/test-webhook", role=Role.OPERATOR, body=_presence_body, bare=True)
def send_presence(call: Call) -> Reply:
    """Sends a presence to the sales app and tells what it answers: that of a stored appointment, lead or visit which the body
    names by its id, or without one that of a made-up appointment.
    """
    from crm_core.settings import RECEIVER
    from crm_core.sync.deliver import joined

    hub: Hub = call.hub
    body: PresenceBody = call.body
    given = {name: value for name, value in body.model_dump().items() if value}
    if len(given) > 1:
        raise BadRequest.field("body", f"body: names {' and '.join(given)}; name one of them, or none.")
    opened = hub.connect(DEFAULT_TENANT, RECEIVER)
    entity, record_id = next(iter(given.items()), ("appointment", ""))
    delivery = f"test-{hub.ids.uuid()}"
    event = _stored(hub, entity, record_id) if record_id else _made_up(delivery, hub_time(hub.clock.now()))
    connector: Connector = opened.connector
    if record_id and (joins := connector.joins(entity)):
        event = joined(hub.engine, DEFAULT_TENANT, event, joins)
    message = connector.message(delivery, event)
    answer = connector.tell(message)
    told = {"status": answer.status, "words": answer.excerpt}
    return Reply(200, {"webhook_id": message.id, "receiver": told, "payload": message.body.decode()})


def _stored(hub: "Hub", entity: str, record_id: str) -> "RecordEvent":
    from crm_core.model.record_event import RecordEvent
    from crm_core.storage import layout

    found = (
        hub.engine.records.find(DEFAULT_TENANT, entity, record_id) if layout.is_record_id(record_id) else None
    )
    if found is None:
        raise NotFound(f"There is no {entity} '{record_id}'.")
    now = hub_time(hub.clock.now())
    return RecordEvent(found.id, entity, found.version, "updated", now, "", found.fields)


def _made_up(name: str, now: str) -> "RecordEvent":
    from crm_core.model.record_event import RecordEvent

    fields = {f"lead_id.{field}": value for field, value in _SAMPLE.items()}
    fields |= {"at": now, "place": "Sala de ventas", "status": "done"}
    return RecordEvent(f"TEST-{name[5:13]}", "appointment", 1, "updated", now, "", fields)
