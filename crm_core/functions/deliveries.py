"""Deliveries: what went out to the receiver of a connection, every attempt, and sending it again."""

from datetime import datetime
from typing import TYPE_CHECKING, Any, cast

from crm_core.errors import BadRequest, NotFound
from crm_core.functions.endpoint import route
from crm_core.functions.web import Call, Parameter, Reply, Role, link, whole_number

if TYPE_CHECKING:
    from pydantic import BaseModel

    from crm_core.functions.bodies import ReplayBody
    from crm_core.hub import Hub
    from crm_core.model.connection import Connection
    from crm_core.storage.deliveries import Delivery

PATH = "/api/deliveries"
MAX_TOP = 200
MAX_REPLAYED = 500
"""With one call: a receiver that was away for long is not flooded, and the call ends in time."""
STATES = ("open", "done", "failed", "discarded")

_CONNECTION = Parameter("connection", "Of this connection, by slug or uid; of the only one if missing")


def _item(delivery: "Delivery") -> dict[str, Any]:
    return {
        "id": delivery.id,
        "time": delivery.time,
        "entity": delivery.entity,
        "record": delivery.record,
        "version": delivery.version,
        "event": delivery.kind,
        "state": delivery.state,
        "outcome": delivery.outcome or None,
        "due": delivery.due or None,
        "tries": delivery.tries,
        "attempts": [vars(each) for each in delivery.attempts],
    }


def _found(call: Call) -> "Connection":
    hub: Hub = call.hub
    return hub.find(call.tenant, call.parameters.get("connection", ""))


@route(
    "GET",
    PATH,
    role=Role.OPERATOR,
    parameters=[
        _CONNECTION,
        Parameter("status", "Only those that are open, done, failed or discarded"),
        Parameter("top", "How many, 1 to 200"),
        Parameter("skiptoken", "Of nextLink"),
    ],
)
def deliveries(call: Call) -> Reply:
    """What a connection was told, or is to be told, with every attempt but without the bodies. The newest first; those that
    are open in the order in which they are due. A page can be shorter than asked for and not the last.
    """
    from crm_core.sync import redeliver

    hub: Hub = call.hub
    connection = _found(call)
    status = call.parameters.get("status", "")
    if status and status not in STATES:
        raise BadRequest.field("status", f"status: expected one of {', '.join(STATES)}.")
    top = whole_number(call.parameters, "top", 50, MAX_TOP)
    about = (call.tenant.name, call.principal.id, "deliveries", connection.uid, status, str(top))
    given = call.parameters.get("skiptoken", "")
    token = hub.open_token(given, *about)["token"] if given else None
    found, after = redeliver.page(hub.engine, call.tenant, connection.uid, status, top=top, token=token)
    body: dict[str, Any] = {"value": [_item(each) for each in found]}
    if after is not None:
        parameters = {
            "connection": connection.uid,
            "top": str(top),
            **({"status": status} if status else {}),
            "skiptoken": hub.seal_token({"token": after}, *about),
        }
        body["nextLink"] = link(hub.settings.public_url, PATH, parameters)
    return Reply(200, body)


def _delivery(call: Call) -> "tuple[Connection, Delivery]":
    from crm_core.storage.layout import is_delivery_id

    hub: Hub = call.hub
    connection = _found(call)
    name = call.parts["delivery"]
    found = hub.engine.deliveries.get(call.tenant, connection.uid, name) if is_delivery_id(name) else None
    if found is None:
        raise NotFound(f"There is no delivery '{name}' of {connection.slug}.")
    return connection, found


@route("GET", f"{PATH}/<delivery>", role=Role.OPERATOR, parameters=[_CONNECTION])
def delivery(call: Call) -> Reply:
    """One delivery with its body and the headers that tell of it, as it is sent; those with secrets are not kept."""
    hub: Hub = call.hub
    _, found = _delivery(call)
    body = hub.engine.deliveries.whole(found).body.decode("utf-8", "replace")
    told = {"content_type": found.content_type or None, "headers": dict(found.headers), "body": body}
    return Reply(200, {**_item(found), **told})


@route("POST", f"{PATH}/<delivery>/replay", role=Role.OPERATOR, parameters=[_CONNECTION], answer=202)
def replay_delivery(call: Call) -> Reply:
    """Sends a delivery again, with the same id and body and by the whole schedule, whatever came of it; 409 while it is open."""
    from crm_core.sync import redeliver

    hub: Hub = call.hub
    connection, found = _delivery(call)
    return Reply(202, _item(redeliver.replay(hub.engine, call.tenant, connection.uid, found)))


def _replay_body() -> "type[BaseModel]":
    from crm_core.functions.bodies import ReplayBody

    return ReplayBody


@route("POST", f"{PATH}/replay", role=Role.OPERATOR, body=_replay_body, answer=202)
def replay_deliveries(call: Call) -> Reply:
    """Sends many again: those that failed or, with `status` `all`, those that were taken too, of the versions made in a
    range of time. About 500 with one call; with `next` of its answer another one goes on.
    """
    from crm_core.storage.layout import is_delivery_id
    from crm_core.sync import redeliver

    hub: Hub = call.hub
    body = cast("ReplayBody", call.body)
    since, until = _moment("since", body.since), _moment("until", body.until)
    if since is None and until is None and body.status == "all":
        raise BadRequest.field("since", "since: is needed to send everything again; say since when.")
    if body.next and not is_delivery_id(body.next):
        raise BadRequest.field("next", "next: expected what an earlier answer says.")
    connection = hub.find(call.tenant, body.connection)
    replayed, left = redeliver.replay_range(
        hub.engine, call.tenant, connection.uid, since, until,
        after=body.next, failed_only=body.status == "failed", most=MAX_REPLAYED,
    )  # fmt: skip
    return Reply(202, {"connection": connection.slug, "replayed": replayed, "next": left})


def _moment(name: str, text: str) -> datetime | None:
    from crm_core.model.fields import parse_instant

    if not text:
        return None
    try:
        return parse_instant(text)
    except ValueError:
        raise BadRequest.field(
            name, f"{name}: expected a time with a zone, such as 2026-11-24T13:45:00Z."
        ) from None
