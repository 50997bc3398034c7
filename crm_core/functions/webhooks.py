"""Webhooks: where they come in, the addresses of a connection, and what came in."""

import re
from collections import Counter
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl

from crm_core.errors import NotFound
from crm_core.functions.endpoint import route
from crm_core.functions.web import Call, Parameter, Reply, Role, flag, link, whole_number

if TYPE_CHECKING:
    from collections.abc import Callable

    from crm_core.connector import Hook
    from crm_core.hub import Hub
    from crm_core.model.connection import Connection
    from crm_core.storage.events import Inbound

PATH = "/api/webhooks/"
MAX_TOP = 200
_PORT = re.compile(r"(?<=[\]\d]):\d+$")


@route("POST", f"{PATH}<hook>", role=None, answer=202, raw=True)
def receive(call: Call) -> Reply:
    """Takes a webhook of the system that this address was given to.

    It is proven before anything of it is read, and kept before this answers 202. 401 for everything else, whatever is
    wrong with it; 413 for more than 1 MiB, 415 for what is compressed or no JSON, 429 for too many.
    """
    return _received(call)


@route("GET", f"{PATH}<hook>", role=None, raw=True)
def challenge(call: Call) -> Reply:
    """Answers a system that asks for a text to be sent back before it sends webhooks here."""
    return _received(call)


@route("OPTIONS", f"{PATH}<hook>", role=None, raw=True)
def handshake(call: Call) -> Reply:
    """The handshake of CloudEvents: allows the origins that WEBHOOK_ORIGINS names."""
    return _received(call)


def _received(call: Call) -> Reply:
    hub: Hub = call.hub
    return received(call, lambda hook, source: hub.receiver.receive(call.parts["hook"], hook, source))


def received(call: Call, take: "Callable[[Hook, str], Any]") -> Reply:
    """`take` is given the request and who calls; gives the event's id or the answer to a challenge."""
    from crm_core.connector import Hook  # with all that it imports: indexing the app needs none of it

    hub: Hub = call.hub
    incoming = call.incoming
    given = parse_qsl(incoming.target.partition("?")[2], keep_blank_values=True)
    names = Counter(name for name, _ in given)
    query = {name: value for name, value in given if names[name] == 1}
    base = hub.settings.public_url
    url = base + incoming.target if base else ""
    hook = Hook(incoming.headers, query, incoming.body, incoming.method, url)
    found = take(hook, _source(call))
    if isinstance(found, str):
        return Reply(202, {"id": found})
    headers = {"X-Content-Type-Options": "nosniff", **found.headers}
    return Reply(200, None, headers, found.content_type, found.text)


def _source(call: Call) -> str:
    """The address that the platform's front end saw: it is the last one, the others are what callers say."""
    last = call.incoming.headers.get("x-forwarded-for", "").rpartition(",")[2].strip()
    return _PORT.sub("", last)[:100]


def _found(call: Call) -> "Connection":
    hub: Hub = call.hub
    return hub.find(call.tenant, call.parts["connection"])


def _addresses(call: Call, connection: "Connection", status: int = 200) -> Reply:
    from crm_core.hook_admin import current

    hub: Hub = call.hub
    items = [
        {"url": link(hub.settings.public_url, PATH + hook, {}), "until": until or None}
        for hook, until in current(connection.hooks, hub.clock.now()).items()
    ]
    return Reply(status, {"connection": connection.slug, "value": items})


@route("GET", "/api/integrations/<connection>/webhook", role=Role.INTEGRATOR)
def addresses(call: Call) -> Reply:
    """The addresses to which the system of a connection may send webhooks, the newest first."""
    return _addresses(call, _found(call))


@route(
    "POST",
    "/api/integrations/<connection>/webhook",
    role=Role.INTEGRATOR,
    parameters=[Parameter("at_once", "true: the former addresses end now, not in 24 hours")],
    answer=201,
)
def renew_address(call: Call) -> Reply:
    """A first address for webhooks, or another one: the former ones are good for 24 hours more."""
    hub: Hub = call.hub
    saved = hub.hooks.renew(_found(call), at_once=flag(call.parameters, "at_once"))
    hub.forget(saved)
    return _addresses(call, saved, 201)


@route("DELETE", "/api/integrations/<connection>/webhook", role=Role.INTEGRATOR, answer=204)
def remove_addresses(call: Call) -> Reply:
    """Takes away every address: the connection takes no webhooks any more."""
    hub: Hub = call.hub
    hub.forget(hub.hooks.remove(_found(call)))
    return Reply(204)


# --- what came in ------------------------------------------------------------------------------------------------

_CONNECTION = Parameter("connection", "Of this connection, by slug or uid; of the only one if missing")
_EVENT_ID = re.compile(r"[0-9a-f-]{1,40}")


def _item(event: "Inbound") -> dict[str, Any]:
    return {
        "id": event.id,
        "time": event.time,
        "state": event.state,
        "outcome": event.outcome or None,
        "proof": event.proof,
        "headers": dict(event.headers),
    }


@route(
    "GET",
    "/api/events",
    role=Role.OPERATOR,
    parameters=[_CONNECTION, Parameter("top", "How many, 1 to 200"), Parameter("skiptoken", "Of nextLink")],
)
def events(call: Call) -> Reply:
    """The webhooks that came in for a connection, the newest first, without their bodies."""
    hub: Hub = call.hub
    connection = hub.find(call.tenant, call.parameters.get("connection", ""))
    top = whole_number(call.parameters, "top", 50, MAX_TOP)
    about = (call.tenant.name, call.principal.id, "events", connection.uid, str(top))
    given = call.parameters.get("skiptoken", "")
    token = hub.open_token(given, *about)["token"] if given else None
    found, after = hub.engine.events.page(call.tenant, connection.uid, top=top, token=token)
    body: dict[str, Any] = {"value": [_item(each) for each in found]}
    if after is not None:
        parameters = {
            "connection": connection.uid,
            "top": str(top),
            "skiptoken": hub.seal_token({"token": after}, *about),
        }
        body["nextLink"] = link(hub.settings.public_url, "/api/events", parameters)
    return Reply(200, body)


def _event(call: Call) -> "tuple[Connection, Inbound]":
    hub: Hub = call.hub
    connection = hub.find(call.tenant, call.parameters.get("connection", ""))
    name = call.parts["event"]
    found = hub.engine.events.get(call.tenant, connection.uid, name) if _EVENT_ID.fullmatch(name) else None
    if found is None:
        raise NotFound(f"There is no event '{name}' of {connection.slug}.")
    return connection, found


@route("GET", "/api/events/<event>", role=Role.OPERATOR, parameters=[_CONNECTION])
def event(call: Call) -> Reply:
    """One webhook with its body, as it came."""
    hub: Hub = call.hub
    _, found = _event(call)
    body = hub.engine.events.whole(found).body
    return Reply(200, {**_item(found), "body": body.decode("utf-8", "replace")})


@route("POST", "/api/events/<event>/replay", role=Role.OPERATOR, parameters=[_CONNECTION], answer=202)
def replay_event(call: Call) -> Reply:
    """Has the work of a webhook done again, whatever came of it; 409 while it is open."""
    from crm_core.sync import intake

    hub: Hub = call.hub
    connection, found = _event(call)
    intake.replay(hub.engine, call.tenant, connection.uid, found, call.principal.id)
    return Reply(202, {**_item(found), "state": "open", "outcome": None})
