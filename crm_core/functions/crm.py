"""Live CRUD: through a connection to the remote system, without the store."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from crm_core.errors import BadAnswer, BadRequest, HubError, NotFound, NotSupported, VersionMismatch
from crm_core.functions import stale
from crm_core.functions.endpoint import route
from crm_core.functions.web import Call, Parameter, Reply, Role, flag, link, not_modified, whole_number
from crm_core.model.entities import BY_PATH, Entity
from crm_core.model.expand import Expansion, parse_expand, refuse
from crm_core.model.filters import Function, Operator, parse_filter
from crm_core.model.options import parse_names, parse_orders

if TYPE_CHECKING:
    from crm_core.connector import Change, Connector, Query, QueryPage, Step, Write
    from crm_core.hub import Hub
    from crm_core.sync.engine import Opened

MAX_TOP = 1000
DEFAULT_TOP = 100
MAX_RELATED = 20_000
"""Records that the lists of an expand may bring along at once: an answer is held in memory as a whole."""

CONNECTION = Parameter("connection", "Slug or uid of the connection; needed if there are several")
RAW = Parameter("raw", "true: add the remote's own answer under 'raw'")
EXPAND = Parameter(
    "expand",
    "What records lead to, one level, such as"
    " 'primarycontactid($select=fullname),contact_customer_accounts($select=email;$top=5)'",
)
NO_SKIP = "pages have no numbers; follow nextLink until there is none"


def filter_parameter(names: str) -> Parameter:
    """`names`: which field names it takes."""
    about = f"OData $filter with {names} names: {', '.join((*Operator, 'in', 'and', 'or', 'not', *Function))}"
    return Parameter("filter", about, aliases=("filter_query",))


def entity_of(path: str) -> Entity:
    """Raises NotFound that lists the entities."""
    entity = BY_PATH.get(path)
    if entity is None:
        raise NotFound(f"There is no entity '{path}'; known are {', '.join(BY_PATH)}.")
    return entity


def open_entity(call: Call) -> "tuple[Hub, Opened, Connector, Entity]":
    hub: Hub = call.hub
    entity = entity_of(call.parts["entities"])
    opened = hub.connect(call.tenant, call.parameters.get("connection", ""))
    opened.connector.map(entity.name)
    return hub, opened, opened.connector, entity


def item_of(
    opened: "Opened",
    entity: Entity,
    change: "Change",
    *,
    raw: bool,
    select: tuple[str, ...] = (),
    steps: "Sequence[Step]" = (),
) -> dict[str, Any]:
    """A flat item with what it was expanded by, under the names that the caller used.

    An expanded list that is cut short says so beside it, by `{name}@more`.
    """
    from crm_core.connector import Related

    item: dict[str, Any] = {
        "id": change.rid,
        "entity": entity.name,
        "connection": opened.connection.slug,
        "etag": change.etag,
    }
    _fill(item, opened.connector, entity, change, raw=raw, select=select)
    for step in steps:
        name, found = step.asked.name, change.expanded[step.asked.name]
        if isinstance(found, Related):
            item[name] = [_led_to(opened.connector, step, each, raw=raw) for each in found.changes]
            if found.more:
                item[f"{name}@more"] = True
        else:
            item[name] = None if found is None else _led_to(opened.connector, step, found, raw=raw)
    return item


def _led_to(connector: "Connector", step: "Step", change: "Change", *, raw: bool) -> dict[str, Any]:
    entity = step.target.entity
    item: dict[str, Any] = {"id": change.rid, "entity": entity.name}
    if change.etag:  # not every system gives one here
        item["etag"] = change.etag
    _fill(item, connector, entity, change, raw=raw, select=step.asked.select)
    return item


def _fill(
    item: dict[str, Any],
    connector: "Connector",
    entity: Entity,
    change: "Change",
    *,
    raw: bool,
    select: tuple[str, ...],
) -> None:
    """Adds the canonical fields, empty ones as null; properties without a canonical name if they were asked for."""
    from crm_core.connector import UNKNOWN

    if change.problem:
        raise BadAnswer(change.problem, system=connector.name)
    emap = connector.map(entity.name)
    fields = change.fields or {}
    wanted = {each.field if (each := emap.find(name)) else name for name in select}
    for name in emap.read_names:
        value = fields.get(name)
        if value is not UNKNOWN and (not wanted or name in wanted):
            item[name] = value
    for name in select:
        if emap.find(name) is None and name in change.raw and name not in item:
            item[name] = change.raw[name]
    if raw:
        item["raw"] = {
            name: value for name, value in change.raw.items() if not name.startswith("@odata.context")
        }


def _steps(
    connector: "Connector", entity: Entity, parameters: Mapping[str, str], rows: int
) -> "tuple[Step, ...]":
    """What is to be expanded for so many rows; raises BadRequest that names `expand`."""
    text = parameters.get("expand", "")
    steps = connector.steps(entity.name, parse_expand(text)) if text else ()
    related = rows * sum(step.asked.size for step in steps if step.navigation.many)
    if related > MAX_RELATED:
        raise refuse(
            f"could bring along {related} records at once, more than {MAX_RELATED};"
            " ask for fewer by top, or by $top in the parentheses."
        )
    return steps


@route(
    "GET",
    "/api/crm/<entities>",
    role=Role.READER,
    parameters=[
        CONNECTION,
        filter_parameter("canonical or native"),
        Parameter("select", "Fields, with commas between them"),
        Parameter("orderby", "Such as 'name asc, revenue desc'"),
        EXPAND,
        Parameter("top", f"Items of a page, 1 to {MAX_TOP}, {DEFAULT_TOP} if missing"),
        Parameter(
            "count",
            "true: adds 'count', how many there are in all, and 'countIsLowerBound': the system stopped counting there",
        ),
        Parameter("skiptoken", "From nextLink; goes on after a page"),
        RAW,
        stale.STALE,
    ],
    refused={"skip": NO_SKIP},
)
def query(call: Call) -> Reply:
    """Items of the remote system, a page at a time."""
    from crm_core.connector import Query

    hub, opened, connector, entity = open_entity(call)
    parameters = dict(call.parameters)
    token = parameters.pop("skiptoken", "")
    top = whole_number(parameters, "top", DEFAULT_TOP, MAX_TOP)
    select = parse_names(parameters.get("select", ""), "select")
    orders = parse_orders(parameters.get("orderby", ""), "orderby")
    steps = _steps(connector, entity, parameters, top)
    about = _bound_to(call, opened, parameters)
    cursor = hub.open_token(token, *about) if token else None
    node = parse_filter(parameters["filter"]) if parameters.get("filter") else None
    expand = tuple(step.asked for step in steps)
    count = wants_count(connector, parameters)
    asked = Query(node, select, orders, top=top, cursor=cursor, expand=expand, count=count)
    raw = flag(parameters, "raw")
    page = _page(call, opened, entity, asked)
    body: dict[str, Any] = {
        **_told(page),
        "value": [item_of(opened, entity, each, raw=raw, select=select, steps=steps) for each in page.items],
    }
    if page.cursor is not None:
        following = {**parameters, "skiptoken": hub.seal_token(page.cursor, *about)}
        body["nextLink"] = link(hub.settings.public_url, call.incoming.path, following)
    return Reply(200, body, page.headers(hub) if isinstance(page, stale.Aged) else {})


def wants_count(connector: "type[Connector] | Connector", parameters: Mapping[str, str]) -> bool:
    """Whether to count; raises NotSupported where the system can't."""
    wanted = flag(parameters, "count")
    if wanted and not connector.counts:
        raise NotSupported(f"{connector.label} can't count; leave count out and follow nextLink.")
    return wanted


def _told(page: "QueryPage | stale.Aged") -> dict[str, Any]:
    count = None if isinstance(page, stale.Aged) else page.count
    return {} if count is None else {"count": count.total, "countIsLowerBound": count.at_least}


def _page(call: Call, opened: "Opened", entity: Entity, asked: "Query") -> "QueryPage | stale.Aged":
    connector = opened.connector
    if not stale.wanted(call.parameters, connector.map(entity.name), asked.select):
        return connector.query(entity.name, asked)
    store = stale.Store(call, opened, entity)
    if asked.cursor is not None and stale.PLACE in asked.cursor:
        return store.after(asked.cursor, asked.top)
    return store.or_live(
        lambda: connector.query(entity.name, asked), lambda: store.page(asked.cursor, asked.top)
    )


def _bound_to(call: Call, opened: "Opened", parameters: Mapping[str, str]) -> tuple[str, ...]:
    """What a skiptoken belongs to: tenant, principal, connection, entity and query."""
    pairs = (f"{name}={value}" for name, value in sorted(parameters.items()))
    return (call.tenant.name, call.principal.id, opened.connection.uid, call.parts["entities"], *pairs)


@route(
    "POST",
    "/api/crm/<entities>",
    role=Role.OPERATOR,
    parameters=[CONNECTION, RAW],
    item_body=True,
    answer=201,
)
def create(call: Call) -> Reply:
    """Makes a record in the remote system; the answer is what it holds now."""
    _, opened, connector, entity = open_entity(call)
    write = replace(write_of(connector, entity, call.body, create=True), key=call.key)
    change = connector.create(entity.name, write)
    item = item_of(opened, entity, change, raw=flag(call.parameters, "raw"))
    location = link("", f"{call.incoming.path}/{change.rid}", {"connection": opened.connection.slug})
    return Reply(201, item, {"ETag": change.etag, "Location": location})


@route(
    "GET", "/api/crm/<entities>/<rid>", role=Role.READER, parameters=[CONNECTION, EXPAND, RAW, stale.STALE]
)
def get(call: Call) -> Reply:
    """One item of the remote system."""
    hub, opened, connector, entity = open_entity(call)
    steps = _steps(connector, entity, call.parameters, 1)
    found = _one(call, opened, entity, [step.asked for step in steps])
    if isinstance(found, stale.Aged):
        return Reply(200, item_of(opened, entity, found.items[0], raw=False), found.headers(hub))
    # The ETag is the record's own, for If-Match: it stays the same when an expanded record changes.
    if not steps and not_modified(call.incoming.headers, found.etag):
        return Reply(304, None, {"ETag": found.etag})
    item = item_of(opened, entity, found, raw=flag(call.parameters, "raw"), steps=steps)
    return Reply(200, item, {"ETag": found.etag})


def _one(call: Call, opened: "Opened", entity: Entity, expand: Sequence[Expansion]) -> "Change | stale.Aged":
    connector, rid = opened.connector, call.parts["rid"]
    if not stale.wanted(call.parameters, connector.map(entity.name), ()):
        return connector.get(entity.name, rid, expand=expand)
    store = stale.Store(call, opened, entity)
    return store.or_live(lambda: connector.get(entity.name, rid), lambda: store.one(rid))


@route("PATCH", "/api/crm/<entities>/<rid>", role=Role.OPERATOR, parameters=[CONNECTION, RAW], item_body=True)
def update(call: Call) -> Reply:
    """Changes the named fields in the remote system; with If-Match only if it has not moved on."""
    _, opened, connector, entity = open_entity(call)
    write = write_of(connector, entity, call.body, create=False)
    if_match = _if_match(call)
    try:
        change = connector.update(entity.name, call.parts["rid"], write, if_match)
    except VersionMismatch as error:
        raise _mismatch(error, if_match) from None
    item = item_of(opened, entity, change, raw=flag(call.parameters, "raw"))
    return Reply(200, item, {"ETag": change.etag})


@route(
    "DELETE",
    "/api/crm/<entities>/<rid>",
    role=Role.OPERATOR,
    parameters=[CONNECTION, Parameter("confirm", "Has to be true", required=True)],
    answer=204,
)
def delete(call: Call) -> Reply:
    """Deletes a record in the remote system; needs confirm=true."""
    _, _, connector, entity = open_entity(call)
    if not flag(call.parameters, "confirm"):
        raise BadRequest.field("confirm", "confirm: a delete can't be taken back; say confirm=true.")
    if_match = _if_match(call)
    try:
        connector.delete(entity.name, call.parts["rid"], if_match)
    except VersionMismatch as error:
        raise _mismatch(error, if_match) from None
    return Reply(204)


def _mismatch(error: VersionMismatch, if_match: str) -> HubError:
    from crm_core.sync.results import mismatch

    return mismatch(error, if_match)


def write_of(connector: "Connector", entity: Entity, body: Mapping[str, Any], *, create: bool) -> "Write":
    """Checks the item; asks for the remote's metadata only if it names what is not declared."""
    from crm_core.connector import Write

    emap = connector.map(entity.name)
    foreign = [name for name in body if emap.find(name) is None and name not in entity.by_name]
    described = connector.describe(entity.name) if foreign else {}
    return Write(*emap.accept(body, described, create=create))


def _if_match(call: Call) -> str:
    return etag_of(call.incoming.headers.get("if-match", ""))


def etag_of(if_match: str) -> str:
    """The version that an If-Match asks for, "" for any. Raises BadRequest for what no ETag can be."""
    value = if_match.strip()
    if not (value.isascii() and value.isprintable()):
        raise BadRequest.field("If-Match", "If-Match: expected an ETag as the hub gave it, in ASCII.")
    return "" if value == "*" else value
