"""The log of runs: what was done, by whom, what it waited for and what it left to people."""

from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from crm_core.errors import BadRequest
from crm_core.functions.endpoint import route
from crm_core.functions.web import Call, Parameter, Reply, Role, link, whole_number
from crm_core.model.connection import Tenant
from crm_core.model.entities import BY_PATH, ENTITIES
from crm_core.model.fields import parse_instant

if TYPE_CHECKING:
    from crm_core.hub import Hub
    from crm_core.storage.run_log import Line

DEFAULT_TOP, MAX_TOP = 100, 500
MAX_TEXT = 100


@route(
    "GET",
    "/api/integrations/logs",
    role=Role.READER,
    parameters=[
        Parameter("connection", "Of this connection only, by slug or uid"),
        Parameter("entity", "Of this entity only"),
        Parameter("run", "Of this run only, by its id"),
        Parameter("level", "info, warning or error: so bad or worse"),
        Parameter("since", "From this time on (RFC 3339)"),
        Parameter("until", "Before this time (RFC 3339)"),
        Parameter(
            "text", f"With this text in it, whatever the case of its letters; at most {MAX_TEXT} characters"
        ),
        Parameter("top", f"Lines of a page, 1 to {MAX_TOP}, {DEFAULT_TOP} if missing"),
        Parameter("skiptoken", "From nextLink; goes on after a page"),
    ],
)
def logs(call: Call) -> Reply:
    """Lines of the log of runs, newest first, a page at a time.

    A page can be short, or empty, and still have a nextLink: it examines at most 5,000 lines, and ten days. An idle pull
    leaves no line. Lines are kept for LOG_DAYS.
    """
    hub: Hub = call.hub
    parameters = dict(call.parameters)
    token = parameters.pop("skiptoken", "")
    top = whole_number(parameters, "top", DEFAULT_TOP, MAX_TOP)
    pairs = (f"{name}={value}" for name, value in sorted(parameters.items()))
    about = (call.tenant.name, call.principal.id, "logs", *pairs)
    place = dict(hub.open_token(token, *about)) if token else {}
    test = line_test(hub, call.tenant, parameters)
    since, until = span(hub, parameters, place.pop("began", ""))
    found, following = hub.engine.run_log.page(call.tenant, place, since, until, top=top, test=test)
    names = {each.uid: each.slug for each in hub.connections.every(call.tenant)}
    body: dict[str, Any] = {"value": [line.shown(names) for line in found]}
    if following is not None:
        # Lines that come meanwhile are no part of what is being read.
        sealed = hub.seal_token({**following, "began": until.isoformat()}, *about)
        body["nextLink"] = link(
            hub.settings.public_url, call.incoming.path, {**parameters, "skiptoken": sealed}
        )
    return Reply(200, body)


def span(hub: "Hub", parameters: Mapping[str, str], began: str = "") -> tuple[datetime, datetime]:
    """From when until when lines are wanted, within what is kept; a run's are not older than the run."""
    now = hub.clock.now()
    since = now - timedelta(days=hub.engine.tuning.log_days)
    since = max(since, _moment(parameters, "since") or since, _begin_of(parameters.get("run", "")) or since)
    end = now + timedelta(seconds=1)
    until = min(_moment(parameters, "until") or end, end)  # days that are still to come have no lines
    if began:
        until = min(until, datetime.fromisoformat(began))
    until = max(until, since)
    return since, until


def _moment(parameters: Mapping[str, str], name: str) -> datetime | None:
    text = parameters.get(name, "")
    try:
        return parse_instant(text) if text else None
    except ValueError:
        raise BadRequest.field(
            name, f"{name}: expected a time with a zone, such as 2026-11-24T13:45:00Z."
        ) from None


def _begin_of(run_id: str) -> datetime | None:
    """About when a run was made, by its id."""
    from crm_core.storage.layout import made_at

    milliseconds = made_at(run_id)
    if milliseconds is None:
        return None
    return datetime.fromtimestamp(milliseconds / 1000, UTC) - timedelta(minutes=1)


def line_test(hub: "Hub", tenant: Tenant, parameters: Mapping[str, str]) -> "Callable[[Line], bool]":
    """Whether a line is wanted, by connection, entity, run, level and text. Raises BadRequest."""
    from crm_core.storage.run_log import LEVELS

    name, entity = parameters.get("connection", ""), parameters.get("entity", "")
    uid = hub.uid_of(tenant, name) if name else ""
    if entity in BY_PATH:
        entity = BY_PATH[entity].name
    if entity and entity not in ENTITIES:
        raise BadRequest.field("entity", f"entity: there is no '{entity}'; known are {', '.join(ENTITIES)}.")
    level, text = parameters.get("level", ""), parameters.get("text", "").casefold()
    if level and level not in LEVELS:
        raise BadRequest.field("level", f"level: expected one of {', '.join(LEVELS)}.")
    if len(text) > MAX_TEXT:
        raise BadRequest.field("text", f"text: is longer than {MAX_TEXT} characters.")
    levels = LEVELS[LEVELS.index(level) :] if level in LEVELS else LEVELS
    run = parameters.get("run", "")

    def wanted(line: "Line") -> bool:
        return (
            (not uid or line.connection == uid)
            and (not entity or line.entity == entity)
            and (not run or line.run == run)
            and line.level in levels
            and (not text or text in f"{line.event} {line.message}".casefold())
        )

    return wanted
