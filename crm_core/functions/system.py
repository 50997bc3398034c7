"""Health, what is wrong with a connection, what is kept of it and counted, and the description of the API."""

from collections.abc import Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from crm_core.errors import BadRequest, NotSupported
from crm_core.functions.crm import CONNECTION
from crm_core.functions.endpoint import ANYBODY, route
from crm_core.functions.web import Call, Parameter, Reply, Role, whole_number
from crm_core.model.connection import Connection
from crm_core.model.fields import hub_time

if TYPE_CHECKING:
    from crm_core.hub import Hub

MAX_HOURS = 24
DEFAULT_MINUTES = 60
PERIOD = (
    Parameter("connection", "Slug or uid of the connection; without it, all of them together"),
    Parameter("minutes", f"The last minutes, 1 to {MAX_HOURS * 60}, {DEFAULT_MINUTES} if missing"),
    Parameter("hours", f"Instead of minutes: the last hours, 1 to {MAX_HOURS}"),
)


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


def _find(call: Call) -> Connection:
    """As it is stored, and without opening it: what can't be opened can still be diagnosed."""
    hub: Hub = call.hub
    return hub.find(call.tenant, call.parameters.get("connection", ""))


# Operator: its calls count at the vendor, and the sign-in service is asked for a token.
@route("GET", "/api/crm/system/diagnose", role=Role.OPERATOR, parameters=[CONNECTION])
def diagnose(call: Call) -> Reply:
    """Tries settings, secrets, token, connectivity, permission, storage and queues, each by a real call, and says what to do."""
    hub: Hub = call.hub
    connection = _find(call)
    checks = []
    for finding in hub.diagnosis.of(connection):
        told = asdict(finding)
        checks.append({name: value if value != "" else None for name, value in told.items()})
    failed = any(each["status"] == "failed" for each in checks)
    answer = {"status": "failed" if failed else "ok", "connection": connection.slug, "checks": checks}
    return Reply(200, answer)


# Operator: where there is no token, one is asked for.
@route("GET", "/api/crm/system/token", role=Role.OPERATOR, parameters=[CONNECTION])
def token(call: Call) -> Reply:
    """What may be told of the access token that the next call sends: expiry, audience and fingerprint, never its text."""
    hub: Hub = call.hub
    opened = hub.connect(call.tenant, call.parameters.get("connection", ""))
    facts = opened.connector.token()
    if facts is None:
        raise NotSupported(f"{opened.connector.label} is called without an access token.")
    answer = {
        "connection": opened.connection.slug,
        "audience": facts.audience,
        "expires_at": hub_time(datetime.fromtimestamp(facts.expires, UTC)),
        "expires_in_seconds": round(facts.expires - hub.clock.now().timestamp()),
        "renewed_from": hub_time(datetime.fromtimestamp(facts.renews, UTC)),
        "fingerprint": facts.fingerprint,
    }
    return Reply(200, answer)


@route("POST", "/api/crm/system/clear-cache", role=Role.OPERATOR, parameters=[CONNECTION])
def clear_cache(call: Call) -> Reply:
    """Forgets what is kept of a connection, its token too: here at once, in other instances within 60 s."""
    from crm_core.hub import CACHE_SECONDS

    hub: Hub = call.hub
    renewed = hub.clear_cache(_find(call))
    answer = {
        "status": "ok",
        "connection": renewed.slug,
        "generation": renewed.generation,
        "everywhere_within_seconds": round(CACHE_SECONDS),
    }
    return Reply(200, answer)


@route("GET", "/api/crm/system/stats", role=Role.READER, parameters=PERIOD)
def stats(call: Call) -> Reply:
    """Calls to remote systems and to the hub's own storage in the last minutes or hours, over all instances; webhooks.

    Of webhooks to no address of a connection `hub` tells.
    """
    answer, figures, own = _figures(call)
    calls = figures.get("remote_calls", 0)
    answer["remote"] = {
        "calls": calls,
        "failures": figures.get("remote_failures", 0),
        "rate_limits": figures.get("remote_rate_limits", 0),
        "average_milliseconds": round(figures.get("remote_milliseconds", 0) / calls, 1) if calls else None,
    }
    answer["tokens"] = {"asked": figures.get("tokens_asked", 0)}
    answer["hub"] = {
        "requests": own.get("requests", 0),
        "storage_calls": own.get("storage_calls", 0),
        "vault_calls": own.get("vault_calls", 0),
        "webhooks_refused": own.get("webhooks_refused", 0),
    }
    names = ("accepted", "refused", "repeated")
    answer["webhooks"] = {name: figures.get(f"webhooks_{name}", 0) for name in names}
    return Reply(200, answer)


@route("GET", "/api/crm/system/cache-stats", role=Role.READER, parameters=PERIOD)
def cache_stats(call: Call) -> Reply:
    """How often a token, connection or secret was at hand in the last minutes or hours, over all instances."""
    answer, figures, _ = _figures(call)
    in_memory, in_store = figures.get("tokens_from_memory", 0), figures.get("tokens_from_store", 0)
    answer["tokens"] = {
        **_hits(in_memory + in_store, figures.get("tokens_asked", 0)),
        "from_memory": in_memory,
        "from_store": in_store,
    }
    read = figures.get("connections_read", 0)
    answer["connections"] = _hits(figures.get("connections_from_memory", 0), read)
    answer["secrets"] = _hits(figures.get("secrets_from_memory", 0), figures.get("secrets_asked", 0))
    return Reply(200, answer)


def _hits(hits: int, misses: int) -> dict[str, Any]:
    rate = round(hits / (hits + misses), 3) if hits + misses else None
    return {"hits": hits, "misses": misses, "hit_rate": rate}


def _figures(call: Call) -> tuple[dict[str, Any], Mapping[str, int], Mapping[str, int]]:
    """The beginning of an answer; the figures of the connection, or of all; those of the hub itself."""
    hub: Hub = call.hub
    minutes = _minutes(call.parameters)
    connection = _find(call) if call.parameters.get("connection") else None
    begin, found = hub.figures(call.tenant, minutes)
    own = found.get("", {})
    wanted = [found.get(connection.uid, {})] if connection else [each for uid, each in found.items() if uid]
    names = {name for each in wanted for name in each}
    answer = {
        "connection": connection.slug if connection else None,
        "from": hub_time(begin),
        "to": hub_time(hub.clock.now()),
        "minutes": minutes,
    }
    if connection:
        answer["generation"] = connection.generation
    return answer, {name: sum(each.get(name, 0) for each in wanted) for name in names}, own


def _minutes(parameters: Mapping[str, str]) -> int:
    if parameters.get("minutes") and parameters.get("hours"):
        raise BadRequest.field("hours", "hours: give minutes or hours, not both.")
    if parameters.get("hours"):
        return 60 * whole_number(parameters, "hours", 1, MAX_HOURS)
    return whole_number(parameters, "minutes", DEFAULT_MINUTES, MAX_HOURS * 60)


@route("GET", "/api/openapi.json", role=Role.READER)
def openapi(call: Call) -> Reply:
    """The API as OpenAPI 3.1."""
    from crm_core.functions.openapi import document

    hub: Hub = call.hub
    return Reply(200, document(hub.settings.public_url))
