"""Connections and connectors: what there is, and how a connection is made, changed, tested and removed."""

from collections.abc import Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any, cast

from crm_core.errors import BadRequest
from crm_core.functions.endpoint import route
from crm_core.functions.web import Call, Parameter, Reply, Role, flag
from crm_core.model.connection import POLICIES, Connection, EntitySync, Schedule
from crm_core.model.fields import parse_instant

if TYPE_CHECKING:
    from pydantic import BaseModel

    from crm_core.connector import Connector
    from crm_core.functions.bodies import ConnectionBody, ConnectionPatch, Entities, EntityBody, ScheduleBody
    from crm_core.hub import Hub
    from crm_core.model.state import ConnectionState, EntityState, Run
    from crm_core.storage.hints import Heard
    from crm_core.storage.state import States


def _connection_body() -> "type[BaseModel]":
    from crm_core.functions.bodies import ConnectionBody

    return ConnectionBody


def _connection_patch() -> "type[BaseModel]":
    from crm_core.functions.bodies import ConnectionPatch

    return ConnectionPatch


def _state(name: str, state: "EntityState") -> dict[str, Any]:
    from crm_core.sync import push_runs

    problem = vars(state.problem) if state.problem else None
    return {
        "entity": name,
        "known": state.known,
        "last_success": state.last_success or None,
        "next_run": state.due or None,
        "running": state.lease_run or None,
        "next_push_run": None if state.push_run else push_runs.due(state) or None,
        "push_run": state.push_run or None,
        "stopped_run": state.stopped_run or None,
        "last_run": state.last_run or None,
        "waits": state.waits,
        "problem": problem,
    }


def _item(connection: Connection, states: "States | None") -> dict[str, Any]:
    """A connection as people see it: secrets are not in it, not even their names' values."""
    from crm_core.model.state import ConnectionState

    state = states.connection if states else ConnectionState()
    return {
        "uid": connection.uid,
        "slug": connection.slug,
        "connector": connection.connector,
        "state": "paused" if connection.paused else state.health,
        "problem": vars(state.problem) if state.problem else None,
        "not_before": state.not_before or None,
        "settings": dict(connection.settings),
        "secrets": list(connection.secret_names),
        "entities": {name: each.to_json() for name, each in connection.entities.items()},
        "mappings": {entity: saved["version"] for entity, saved in connection.mappings.items()},
        "schedule": connection.schedule.to_json(),
        "confirmed_origin": connection.confirmed_origin or None,
        "created_at": connection.created_at,
        "updated_at": connection.updated_at,
        "sync": [_state(name, each) for name, each in (states.entities if states else {}).items()],
    }


def _reply(call: Call, connection: Connection, status: int = 200) -> Reply:
    hub: Hub = call.hub
    body = _item(connection, hub.states.read(call.tenant, connection.uid))
    headers = {"Location": f"/api/integrations/{connection.slug}"} if status == 201 else {}
    return Reply(status, body, headers)


def _find(call: Call) -> Connection:
    """As it is stored, never a copy, and without opening it: one whose secrets can't be read can still be mended."""
    hub: Hub = call.hub
    return hub.find(call.tenant, call.parts["connection"])


@route("GET", "/api/connectors", role=Role.READER)
def connectors(_: Call) -> Reply:
    """Every connector: the settings and secrets that a connection needs, and its entities."""
    from crm_core.hub import connector_class, connector_names

    return Reply(200, {"value": [_connector(connector_class(name)) for name in connector_names()]})


def _connector(kind: "type[Connector]") -> dict[str, Any]:
    return {
        "name": kind.name,
        "label": kind.label,
        "settings": [
            {
                "name": each.name,
                "label": each.label,
                "kind": each.kind,
                "required": each.required,
                "secret": each.secret,
                "default": each.default or None,
                "help": each.help or None,
            }
            for each in kind.settings
        ],
        "entities": [
            {
                "entity": name,
                "path": emap.entity.path,
                "pulled": name in (kind.pulled or kind.entities),
                "creates_found_by": kind.found_by(name) or None,
                "fields": [
                    {
                        "name": each.field,
                        "native": each.native,
                        "writable": each.writable,
                        "length": each.length,
                    }
                    for each in emap.fields
                ],
            }
            for name, emap in kind.entities.items()
        ],
        "default_minutes": kind.default_minutes,
        "counts": kind.counts,
    }


@route("GET", "/api/integrations", role=Role.READER)
def integrations(call: Call) -> Reply:
    """Every connection with its state."""
    hub: Hub = call.hub
    found = sorted(hub.connections.every(call.tenant), key=lambda each: each.slug)
    items = [_item(each, hub.states.read(call.tenant, each.uid)) for each in found]
    return Reply(200, {"value": items})


@route(
    "GET",
    "/api/integrations/status",
    role=Role.READER,
    parameters=[
        Parameter("connection", "Of this connection only, by slug or uid"),
        Parameter(
            "waiting", "true: adds how many records wait for a person, by what for, and where they are listed"
        ),
    ],
)
def status(call: Call) -> Reply:
    """How sync goes, per connection and entity: last success and how long ago, next run, and what stands in its way.

    `counts` are those of `last_run`, the newest that changed something or that somebody asked for. `webhooks`, where the
    connection has an address for them: when the last one told of the entity, how many records were read for them, how many
    changes pulls found that none had told of, and in a word how that looks.
    """
    hub: Hub = call.hub
    name = call.parameters.get("connection", "")
    found = [hub.find(call.tenant, name)] if name else list(hub.connections.every(call.tenant))
    now = hub.clock.now()
    rows = [
        (connection, states.connection, entity, state)
        for connection in sorted(found, key=lambda each: each.slug)
        if (states := hub.states.read(call.tenant, connection.uid))
        for entity, state in states.entities.items()
    ]
    heard = {each.uid: hub.engine.hints.heard(call.tenant, each.uid) for each in found if each.hooks}
    last = hub.pool.map(
        lambda row: hub.runs.get(call.tenant, row[3].last_run) if row[3].last_run else None, rows
    )
    items = [_status(*row, run, heard, now) for row, run in zip(rows, last, strict=True)]
    if flag(call.parameters, "waiting"):
        from crm_core.functions.conflict_items import waiting_at

        items = [
            {**item, "waiting": waiting_at(hub, row[0], row[2])}
            for item, row in zip(items, rows, strict=True)
        ]
    return Reply(200, {"value": items})


def _status(
    connection: Connection,
    whole: "ConnectionState",
    entity: str,
    state: "EntityState",
    last: "Run | None",
    heard: "Mapping[str, Mapping[str, Heard]]",
    now: datetime,
) -> dict[str, Any]:
    from crm_core.model.state import COUNTS

    lag = (now - parse_instant(state.last_success)).total_seconds() if state.last_success else None
    return {
        "connection": connection.slug,
        "uid": connection.uid,
        "health": whole.health,
        "paused": connection.paused,
        **_state(entity, state),
        "lag_seconds": None if lag is None else round(max(0.0, lag), 3),
        "counts": {name: last.counts.get(name, 0) for name in COUNTS} if last else None,
        "webhooks": _webhooks(connection, whole, entity, state, heard.get(connection.uid), now),
    }


def _webhooks(
    connection: Connection,
    whole: "ConnectionState",
    entity: str,
    state: "EntityState",
    heard: "Mapping[str, Heard] | None",
    now: datetime,
) -> dict[str, Any] | None:
    """None where none can come, or nothing is read."""
    from crm_core.storage.hints import Heard
    from crm_core.sync import gaps

    sync = connection.entities.get(entity)
    if heard is None or sync is None or not sync.pulls:
        return None
    told = heard.get(entity, Heard())
    return {
        "since": whole.hooked_at or None,
        "last": told.time or None,
        "read": told.read,
        "missed": state.missed,
        "missed_at": state.missed_at or None,
        "state": gaps.word(state, whole, told, now),
    }


def _entities(body: "Entities | None") -> dict[str, EntitySync] | None:
    return None if body is None else {name: _sync(each) for name, each in body.items()}


def _sync(body: "EntityBody") -> EntitySync:
    policies = {name: POLICIES[policy] for name, policy in body.policies.items()}
    return EntitySync(
        body.direction, POLICIES[body.policy], policies, body.deletes, body.match, body.filter,
        tuple(sorted(set(body.events))), body.becomes,
    )  # fmt: skip


def _schedule(body: "ScheduleBody | None") -> Schedule | None:
    return Schedule(body.minutes, body.cron) if body is not None else None


@route("POST", "/api/integrations", role=Role.INTEGRATOR, body=_connection_body, answer=201)
def create(call: Call) -> Reply:
    """Makes a connection; its first pull begins with the next tick."""
    from crm_core.connection_admin import Wanted

    hub: Hub = call.hub
    body = cast("ConnectionBody", call.body)
    _only_admin(call, body.confirmed_origin)
    wanted = Wanted(
        body.settings,
        body.secrets,
        _entities(body.entities),
        _schedule(body.schedule),
        body.confirmed_origin,
        mappings=body.mappings,
    )
    made = hub.admin.create(call.tenant, body.slug, body.connector, wanted)
    _note(call, made, "made", body.model_dump(exclude_unset=True))
    hub.forget(made)
    return _reply(call, made, 201)


def _note(call: Call, connection: Connection, what: str, given: Mapping[str, Any] | None = None) -> None:
    """A line of what a person did to a connection: names of what they said, no value of it."""
    from crm_core.storage.run_log import note

    said = sorted(given or {})
    text = f"The connection {connection.slug} was {what}" + (f" ({', '.join(said)})." if said else ".")
    note("config.changed", text, connection=connection.uid, by=call.principal.id)


def _only_admin(call: Call, confirmed_origin: str | None) -> None:
    if confirmed_origin and call.principal.role < Role.ADMIN:
        raise BadRequest.field(
            "confirmed_origin", "confirmed_origin: only an Admin can let credentials go elsewhere."
        )


@route("GET", "/api/integrations/<connection>", role=Role.READER)
def one(call: Call) -> Reply:
    """One connection with its state, and what is left of the calls that its system allows in a time.

    `budget`: of each window what all instances have taken of its calls, in blocks, and when it runs out if it goes on like this.
    """
    hub: Hub = call.hub
    found = _find(call)
    reply = _reply(call, found)
    return Reply(200, {**reply.body, "budget": hub.budget(found)}, reply.headers)


@route("PATCH", "/api/integrations/<connection>", role=Role.INTEGRATOR, body=_connection_patch)
def update(call: Call) -> Reply:
    """Changes a connection; a saved credential lets one that needed attention work again."""
    from crm_core.connection_admin import Wanted

    hub: Hub = call.hub
    body = cast("ConnectionPatch", call.body)
    _only_admin(call, body.confirmed_origin)
    found = _find(call)
    wanted = Wanted(
        body.settings,
        body.secrets,
        _entities(body.entities),
        _schedule(body.schedule),
        body.confirmed_origin,
        mappings=body.mappings,
    )
    saved = hub.admin.update(found, wanted)
    _note(call, saved, "changed", body.model_dump(exclude_unset=True))
    if body.paused is not None:
        saved = hub.admin.pause(saved, paused=body.paused)
    hub.forget(saved)
    if body.secrets or body.settings:
        hub.mended(saved)
    return _reply(call, saved)


@route(
    "DELETE",
    "/api/integrations/<connection>",
    role=Role.INTEGRATOR,
    parameters=[Parameter("confirm", "Has to be true", required=True)],
    answer=204,
)
def delete(call: Call) -> Reply:
    """Removes a connection, its secrets and its state; needs confirm=true. Records stay."""
    hub: Hub = call.hub
    found = _find(call)
    if not flag(call.parameters, "confirm"):
        raise BadRequest.field(
            "confirm", "confirm: a connection's secrets can't be brought back; say confirm=true."
        )
    hub.admin.delete(found)
    _note(call, found, "deleted")
    hub.hooks.forget(found)
    hub.forget(found)
    hub.let_go(found)
    return Reply(204)


@route("POST", "/api/integrations/<connection>/test", role=Role.OPERATOR)
def test(call: Call) -> Reply:
    """Proves by one call that the credentials work; a connection that needed attention works again."""
    hub: Hub = call.hub
    found = _find(call)
    hub.forget(found)
    who = hub.connect(call.tenant, found.uid).connector.check()
    hub.admin.mend(found)
    _note(call, found, "tested: it works")
    hub.mended(found)
    return Reply(200, {"status": "ok", "connection": found.slug, **who})


@route("POST", "/api/integrations/<connection>/pause", role=Role.OPERATOR)
def pause(call: Call) -> Reply:
    """Stops the schedule of a connection; live calls go on."""
    return _paused(call, paused=True)


@route("POST", "/api/integrations/<connection>/resume", role=Role.OPERATOR)
def resume(call: Call) -> Reply:
    """Lets the schedule of a connection go on."""
    return _paused(call, paused=False)


def _paused(call: Call, *, paused: bool) -> Reply:
    hub: Hub = call.hub
    saved = hub.admin.pause(_find(call), paused=paused)
    _note(call, saved, "paused" if paused else "resumed")
    hub.forget(saved)
    if not paused:
        hub.resume(saved)
    return _reply(call, saved)
