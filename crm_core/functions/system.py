"""Health, and the description of the API."""

from crm_core.functions.crm import CONNECTION
from crm_core.functions.endpoint import ANYBODY, route
from crm_core.functions.web import Call, Reply, Role
from crm_core.hub import Hub


@route("GET", "/health", role=None)
def health(_: Call) -> Reply:
    """Whether the hub answers; calls nothing."""
    return Reply(200, {"status": "ok"})


@route("GET", "/api/crm/system/health", role=None, parameters=[CONNECTION])
def crm_health(call: Call) -> Reply:
    """Whether the hub answers; with a key also which system it speaks to. Calls no remote system."""
    if call.principal is ANYBODY:
        return Reply(200, {"status": "ok"})
    hub: Hub = call.hub
    connection = hub.connect(call.tenant, call.parameters.get("connection", "")).connection
    states = hub.states.read(call.tenant, connection.uid)
    state = "paused" if connection.paused else states.connection.health if states else "ok"
    answer = {
        "status": "ok" if state in ("ok", "paused") else state,
        "connection": connection.slug,
        "d365": connection.settings.get("base_url"),
        "api_version": connection.settings.get("api_version") or "v9.2",
    }
    return Reply(200, answer)


@route("GET", "/api/openapi.json", role=Role.READER)
def openapi(call: Call) -> Reply:
    """The API as OpenAPI 3.1."""
    from crm_core.functions.openapi import document

    hub: Hub = call.hub
    return Reply(200, document(hub.settings.public_url))
