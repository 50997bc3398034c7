"""Exports: asked for, followed as runs, and read part by part."""

from datetime import UTC
from typing import TYPE_CHECKING, Any, cast

from crm_core.errors import BadRequest, NotFound
from crm_core.functions import runs
from crm_core.functions.endpoint import route
from crm_core.functions.web import Call, Reply, Role
from crm_core.model.entities import BY_PATH, ENTITIES
from crm_core.model.fields import instant_text, parse_instant
from crm_core.model.filters import parse_filter
from crm_core.model.matching import matcher

if TYPE_CHECKING:
    from pydantic import BaseModel

    from crm_core.functions.bodies import ExportBody
    from crm_core.hub import Hub
    from crm_core.model.entities import Entity
    from crm_core.model.state import Run

CONTENT_TYPES = {"csv": "text/csv", "jsonl": "application/x-ndjson"}


def _export_body() -> "type[BaseModel]":
    from crm_core.functions.bodies import ExportBody

    return ExportBody


@route("POST", "/api/exports", role=Role.OPERATOR, body=_export_body, answer=202)
def start(call: Call) -> Reply:
    """Writes records, their history, or the log of runs into parts that are read at /api/exports/{id}/parts/{n}.

    It is a run: follow it at Operation-Location. Parts are deleted after EXPORT_DAYS.
    """
    from crm_core.sync import export_sources, exports

    hub: Hub = call.hub
    body = cast("ExportBody", call.body)
    _check(body)
    connections = list(hub.connections.every(call.tenant))
    entity = _entity(body)
    whole: Entity | None = None
    if entity:
        from crm_core.model.overrides import with_customs

        documents = [saved["document"] for each in connections if (saved := each.mappings.get(entity))]
        whole = with_customs(ENTITIES[entity], documents)
        if body.filter:
            matcher(parse_filter(body.filter), whole)
    wanted = export_sources.Wanted(
        body.what,
        body.format,
        hub.find(call.tenant, body.connection).uid if body.connection else "",
        _moment(body.until, "until"),
        body.bom,
        export_sources.customs_of(ENTITIES[entity], whole) if whole and body.what == "records" else (),
        {each.uid: each.slug for each in connections},
    )
    since = _moment(body.since, "since")
    run = exports.start(hub.engine, call.tenant, wanted, entity, call.principal.id, since, body.filter)
    return runs.accepted(call, run)


def _check(body: "ExportBody") -> None:
    """Raises BadRequest for what means nothing of that which is exported."""
    for name, of in (
        ("filter", ("records",)),
        ("since", ("history", "logs")),
        ("until", ("history", "logs")),
    ):
        if getattr(body, name) and body.what not in of:
            raise BadRequest.field(name, f"{name}: is for {' and '.join(of)}; leave it out.")
    if body.what != "logs" and not body.entity:
        raise BadRequest.field("entity", f"entity: say of which entity the {body.what} are wanted.")
    if body.bom and body.format != "csv":
        raise BadRequest.field("bom", "bom: is for csv; leave it out.")


def _entity(body: "ExportBody") -> str:
    name = BY_PATH[body.entity].name if body.entity in BY_PATH else body.entity
    if name and name not in ENTITIES:
        raise BadRequest.field(
            "entity", f"entity: there is no '{body.entity}'; known are {', '.join(ENTITIES)}."
        )
    return name


def _moment(text: str, name: str) -> str:
    try:
        return instant_text(parse_instant(text).astimezone(UTC)) if text else ""
    except ValueError:
        raise BadRequest.field(
            name, f"{name}: expected a time with a zone, such as 2026-11-24T13:45:00Z."
        ) from None


def shown(hub: "Hub", run: "Run") -> dict[str, Any]:
    """What a run of mode `export` shows beside what every run does. `parts`: that can be read now."""
    from crm_core.sync import export_sources, exports

    wanted = export_sources.Wanted.of(run)
    return {
        "what": wanted.what,
        "format": wanted.format,
        "parts": run.seen,
        "part": f"/api/exports/{run.id}/parts/{{n}}",
        "until": wanted.until or None,
        "expires_at": exports.expires_at(hub.engine, run),
    }


@route("GET", "/api/exports/<run_id>/parts/<number>", role=Role.READER)
def part(call: Call) -> Reply:
    """One part of an export, by its number from 1 on; put together in their order they are the file.

    Only who asked for it, and an Admin, reads it; for anybody else there is no such export.
    """
    from crm_core.sync import export_sources, exports

    hub: Hub = call.hub
    run = runs.find(call)
    own = run.origin == call.principal.id or call.principal.role >= Role.ADMIN
    if run.mode != "export" or not own:
        raise NotFound(f"There is no export '{run.id}'.")
    text = call.parts["number"]
    number = int(text) if text.isascii() and text.isdigit() and len(text) <= 9 else 0
    data = exports.part(hub.engine, call.tenant, run, number)
    if data is None:
        gone = 1 <= number <= run.seen
        why = (
            f"was deleted at {exports.expires_at(hub.engine, run)}"
            if gone
            else f"is not there; there are {run.seen}"
        )
        raise NotFound(f"Part '{text}' of export {run.id} {why}.")
    wanted = export_sources.Wanted.of(run)
    day = run.created_at[:10]
    name = "-".join(each for each in (run.entity, wanted.what, day, f"{number:04d}") if each)
    headers = {"Content-Disposition": f'attachment; filename="{name}.{wanted.format}"'}
    return Reply(200, None, headers, CONTENT_TYPES[wanted.format], data.decode())
