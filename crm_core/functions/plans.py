"""How runs show what they planned, or carried out: sums beside the run, and the decisions page by page."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from crm_core.errors import BadRequest
from crm_core.functions.web import Call, Parameter, link, whole_number

if TYPE_CHECKING:
    from crm_core.hub import Hub
    from crm_core.model.state import Run

DEFAULT_TOP, MAX_TOP = 50, 200
SUMS = ("create", "update", "link", "delete", "revive", "conflict", "later", "failed")
SENT = ("create", "update", "delete")
OUTCOMES = ("applied", "drifted", "failed")
TELLING = frozenset({"plan", "apply", "undo"})
"""The modes of runs that have decisions."""
PARAMETERS = (
    Parameter("top", f"Decisions of a page, 1 to {MAX_TOP}, {DEFAULT_TOP} if missing"),
    Parameter("skiptoken", "From nextLink; goes on after a page"),
    Parameter("action", f"Only the decisions with this action: {', '.join(SUMS)}"),
)


def summary(run: "Run", names: Mapping[str, str]) -> dict[str, Any]:
    """What a plan that has ended comes to, or so far what an apply did; nothing for other runs."""
    told = run.plan
    if run.mode == "plan" and run.ended:
        actions = told.get("actions", {})
        pushes = {
            names.get(uid, uid): {name: sums.get(name, 0) for name in SENT}
            for uid, sums in told.get("pushes", {}).items()
        }
        plan = {
            **{name: actions.get(name, 0) for name in SUMS},
            "unchanged": run.counts.get("unchanged", 0),
            "remote_calls": told.get("remote_calls", 0),
            "seconds": told.get("seconds", 0.0),
            "pushes": pushes,
            "brakes": list(told.get("brakes", ())),
            **({"erased": told["erased"]} if "erased" in told else {}),
        }
        return {"plan": plan}
    if run.mode in TELLING and run.mode != "plan":
        sums = told.get("outcomes", {})
        return {"outcome": {name: sums.get(name, 0) for name in OUTCOMES}}
    return {}


def summed(items: list[dict[str, Any]]) -> dict[str, Any]:
    """Of a parent, the sums of its children's; nothing while one is missing."""
    found: dict[str, Any] = {}
    for name in ("plan", "outcome"):
        if all(name in each for each in items):
            found[name] = _added([each[name] for each in items])
    return found


def _added(sums: list[dict[str, Any]]) -> dict[str, Any]:
    total: dict[str, Any] = {}
    for each in sums:
        for name, value in each.items():
            if isinstance(value, dict):
                total[name] = _added([total.get(name, {}), value])
            elif isinstance(value, list):
                total[name] = [*total.get(name, []), *value]
            else:
                total[name] = total.get(name, 0) + value
    return total


def decisions(call: Call, run: "Run", names: Mapping[str, str], *, ended: bool) -> dict[str, Any]:
    """`decisions`, a page of them, and `nextLink`; nothing for a run that has none. `ended`: whether the run, or all that
    it is the parent of, has.
    """
    if run.mode not in TELLING or (run.mode == "plan" and not ended):
        given = [name for name in ("top", "skiptoken", "action") if call.parameters.get(name)]
        if given:
            raise BadRequest.field(given[0], f"{given[0]}: run {run.id} has no decisions to page through.")
        return {}
    hub: Hub = call.hub
    top = whole_number(call.parameters, "top", DEFAULT_TOP, MAX_TOP)
    action = call.parameters.get("action", "")
    if action and action not in SUMS:
        raise BadRequest.field("action", f"action: expected one of {', '.join(SUMS)}.")
    about = (call.tenant.name, call.principal.id, "decisions", run.id, str(top), action)
    given_token = call.parameters.get("skiptoken", "")
    place = hub.open_token(given_token, *about) if given_token else {}
    found, following = _page(call, run, place, top, action)
    body: dict[str, Any] = {"decisions": [_shown(each, names) for each in found]}
    if following is not None:
        query = {"top": str(top), "skiptoken": hub.seal_token(following, *about)}
        body["nextLink"] = link(
            hub.settings.public_url, call.incoming.path, query | ({"action": action} if action else {})
        )
    return body


def _page(
    call: Call, run: "Run", place: Mapping[str, Any], top: int, action: str
) -> tuple[list[dict[str, Any]], dict[str, Any] | None]:
    """Of a parent those of one child after the other: (decisions, the place after them or None at the end)."""
    from crm_core.storage.plans import Parts, PlanReader

    hub: Hub = call.hub
    runs = run.children or (run.id,)
    number = place.get("child", 0)
    found: list[dict[str, Any]] = []
    within = place.get("place", {})
    while number < len(runs):
        one = run if runs[number] == run.id else hub.runs.get(call.tenant, runs[number])
        if one is not None:
            reader = PlanReader(hub.engine.blob, call.tenant, one.id, Parts.from_json(one.plan))
            page, after = reader.page(within, top=top - len(found), action=action)
            found += page
            if after is not None:
                return found, {"child": number, "place": after}
        number, within = number + 1, {}
        if len(found) == top:
            break
    return found, {"child": number, "place": {}} if number < len(runs) else None


def _shown(decision: Mapping[str, Any], names: Mapping[str, str]) -> dict[str, Any]:
    """Connections by the names that people know."""
    told = {name: each for name, each in decision.items() if name != "mark"}
    pushes = [
        {**each, "connection": names.get(each["connection"], each["connection"])} for each in told["pushes"]
    ]
    return {
        **told,
        "connection": names.get(told["connection"], told["connection"]),
        "pushes": pushes,
    }
