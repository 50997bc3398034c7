"""Many conflicts decided at once: first shown what would be done, then done as a run."""

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, cast

from crm_core.errors import BadRequest, HubError
from crm_core.functions.conflict_items import item_of, outcome_item
from crm_core.functions.conflicts import check_value, moment, names_of, sought_of
from crm_core.functions.endpoint import route
from crm_core.functions.runs import accepted
from crm_core.functions.web import Call, Parameter, Reply, Role, link, whole_number
from crm_core.model.entities import ENTITIES
from crm_core.model.fields import hub_time
from crm_core.model.items import accept_item

if TYPE_CHECKING:
    from pydantic import BaseModel

    from crm_core.functions.bodies import ResolveBody
    from crm_core.hub import Hub
    from crm_core.sync.conflicts import Conflict, Sought
    from crm_core.sync.resolving import Outcome
    from crm_core.sync.resolving_many import Task

DEFAULT_TOP, MAX_TOP = 50, 200
COUNTED = 1000
"""So many a preview tells of in its counts."""
BETWEEN = "~"
"""Between the time of an `as_of` and what else it says."""
EXAMINED = 5000
"""Open items that a preview looks at, whether they are sought or not: beyond them its nextLink goes on."""


def _resolve_body() -> "type[BaseModel]":
    from crm_core.functions.bodies import ResolveBody

    return ResolveBody


@route(
    "POST",
    "/api/conflicts/resolve",
    role=Role.OPERATOR,
    body=_resolve_body,
    parameters=[
        Parameter("top", f"Of a preview: about so many items, 1 to {MAX_TOP}, {DEFAULT_TOP} if missing"),
        Parameter(
            "skiptoken",
            "From the nextLink of a preview, to which the same body is sent; goes on after a page",
        ),
    ],
    answer=202,
)
def resolve_many(call: Call) -> Reply:
    """Decides every conflict that is sought in one way: `ours`, `theirs`, `value`; or `separate`, `link` of matches and merges.

    With preview, nothing is done: it counts them (up to 1,000, among 5,000 that wait), and tells of a page of them what would
    change and be sent; a page can be empty, and still have a nextLink. Its
    `as_of` goes with the real call: what has changed since then is left as it is. That one is a run: `updated` counts what was
    decided, `unchanged` what was left, `failed` what could not be decided; `left` says which and why.
    """
    from crm_core.sync.resolving_many import start

    hub: Hub = call.hub
    body = cast("ResolveBody", call.body)
    wanted, task = _task(call, body)
    if body.preview:
        return _preview(call, wanted, task)
    for name in call.parameters:
        raise BadRequest.field(name, f"{name}: only goes with a preview; leave it out.")
    return accepted(call, start(hub.engine, call.tenant, task, call.principal.id))


def _task(call: Call, body: "ResolveBody") -> "tuple[Sought, Task]":
    from crm_core.sync.conflicts import REVIEWS, VALUES
    from crm_core.sync.resolving_many import Task

    hub: Hub = call.hub
    given = {name: value for name, value in body.where.model_dump().items() if value}
    if not set(given) - {"kind"}:
        raise BadRequest.field(
            "where", "where: name an entity, a connection or a time; not everything at once."
        )
    kinds = REVIEWS if body.take in ("separate", "link") else VALUES
    wanted = sought_of(call, {**given, "kind": given.get("kind") or ",".join(kinds)})
    if not set(wanted.kinds) <= set(kinds):
        raise BadRequest.field(
            "take",
            f"take: {body.take} decides conflicts of the kinds {', '.join(kinds)}; what was refused, or gave up, is done"
            " again at /api/deadletters.",
        )
    which = {
        "filter_text": given.get("filter", ""),
        "kinds": list(wanted.kinds),
        "entity": wanted.entity,
        "connection": wanted.connection,
        "field": wanted.field,
        "since": wanted.since,
    }
    as_of, shown = _look(body.as_of, hub_time(hub.engine.clock.now()))
    return wanted, Task(which, body.take, _value(call, body, wanted), as_of, shown)


def _look(text: str, now: str) -> tuple[str, list[str] | None]:
    """When a person looked, and which of the recent conflicts they were shown, from the `as_of` of a preview."""
    from crm_core.sync.resolving_many import MARK_LENGTH, MAX_SHOWN

    if not text:
        return now, None
    time, *shown = text.split(BETWEEN)
    if len(shown) > MAX_SHOWN or any(len(each) != MARK_LENGTH for each in shown):
        raise BadRequest.field("as_of", "as_of: send it as the preview gave it, or leave it out.")
    return min(moment(time, "as_of"), now), shown


def _value(call: Call, body: "ResolveBody", wanted: "Sought") -> Any:
    """The value that all of them get."""
    from crm_core.sync.sides import with_customs

    check_value(body, "value")
    if body.take != "value":
        return None
    if not (wanted.entity and wanted.field):
        raise BadRequest.field("where", "where: a value is one of a field; name the entity and the field.")
    hub: Hub = call.hub
    entity = with_customs(ENTITIES[wanted.entity], hub.sides(call.tenant, wanted.entity))
    fields = accept_item(entity, {wanted.field: body.value}, create=False)
    return hub.editor(call.tenant, entity, call.principal.id).accepted(fields)[wanted.field]


def _preview(call: Call, wanted: "Sought", task: "Task") -> Reply:
    from crm_core.sync.conflicts import page
    from crm_core.sync.resolving import in_turn
    from crm_core.sync.resolving_many import preview

    hub: Hub = call.hub
    parameters = dict(call.parameters)
    token = parameters.pop("skiptoken", "")
    top = whole_number(parameters, "top", DEFAULT_TOP, MAX_TOP)
    about = (
        call.tenant.name,
        call.principal.id,
        "resolve",
        str(top),
        repr(task.to_json()["which"]),
        task.take,
    )
    sealed = hub.open_token(token, *about) if token else dict[str, Any](place={}, as_of=task.as_of)
    place: Mapping[str, Any] | None = sealed["place"]
    # Of all pages the time of the first: who has seen them in turn decides what none of them has shown otherwise.
    task = replace(task, as_of=min(task.as_of, sealed["as_of"]))
    found: list[Conflict] = []
    shown, following, examined = 0, place, 0
    while place is not None and len(found) < COUNTED and examined < EXAMINED:
        most = COUNTED if shown else top
        some, place = page(hub.engine, call.tenant, wanted, place, top=most)
        found += some
        examined += most
        if not shown:
            shown, following = len(some), place
    editors = {name: hub.editor(call.tenant, each, call.principal.id) for name, each in ENTITIES.items()}
    would = preview(editors, hub.engine, found, task)
    taken_by = ""
    if task.take == "value":
        turn = editors[wanted.entity], wanted.field, task.value
        head, taken_by = in_turn(*turn, would[:shown], sealed.get("taken_by", ""))
        would = head + in_turn(*turn, would[shown:], taken_by)[0]
    body = _told(call, task, found, would, shown)
    body["counts"]["countIsLowerBound"] = place is not None
    if following is not None:
        going_on = {"place": following, "as_of": task.as_of, "taken_by": taken_by}
        query = {**parameters, "skiptoken": hub.seal_token(going_on, *about)}
        body["nextLink"] = link(hub.settings.public_url, call.incoming.path, query)
    return Reply(200, body)


def _told(
    call: Call, task: "Task", found: "list[Conflict]", would: "list[Outcome | HubError]", shown: int
) -> dict[str, Any]:
    from crm_core.sync import resolving_many

    hub: Hub = call.hub
    names = names_of(call)
    items, pushes, problems = [], dict[str, dict[str, int]](), 0
    decided = (each for each, does in zip(found, would, strict=True) if not isinstance(does, HubError))
    marks = resolving_many.shown(decided, task)
    for conflict, each in zip(found, would, strict=True):
        item = item_of(conflict, names)
        if isinstance(each, HubError):
            problems += 1
            items.append({**item, "problem": {"code": each.code, "message": each.message}})
            continue
        does = outcome_item(each, hub.engine.sides(call.tenant, conflict.record.entity), names)
        for push in does["pushes"]:
            actions = pushes.setdefault(push["connection"], {})
            actions[push["action"]] = actions.get(push["action"], 0) + 1
        items.append({**item, "would": does})
    counts = {"conflicts": len(found) - problems, "left": problems, "pushes": pushes}
    as_of = BETWEEN.join([task.as_of, *marks])
    return {"done": False, "take": task.take, "as_of": as_of, "counts": counts, "value": items[:shown]}
