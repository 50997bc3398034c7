"""Many writes at once: carried out while the caller waits, or as a run that the caller follows."""

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, cast

from crm_core.errors import BadRequest, FieldError, HubError, NotFound
from crm_core.functions import runs
from crm_core.functions.crm import CONNECTION, RAW, etag_of, item_of, open_entity, write_of
from crm_core.functions.endpoint import problem, route, validated
from crm_core.functions.web import Call, Parameter, Reply, Role, flag, link, preferences, whole_number
from crm_core.model.entities import ENTITIES, Entity
from crm_core.ports import derived_id

if TYPE_CHECKING:
    from pydantic import BaseModel

    from crm_core.connector import Change, Connector, Write
    from crm_core.functions.bodies import BatchBody, OperationBody
    from crm_core.hub import Hub
    from crm_core.sync.engine import Opened
    from crm_core.sync.results import Item, Result

MAX_ITEMS_AT_ONCE, MAX_CALLS_AT_ONCE = 100, 50
"""More operations, or more remote calls, become a run."""
BEGIN_SECONDS = 70.0
"""While a caller waits nothing is begun after this time: a live call has 100 s, a request to the system 30 s of them."""
DEFAULT_TOP, MAX_TOP = 100, 200
STATUS: Mapping[str, int] = {"create": 201, "update": 200, "delete": 204}
COUNTED: Mapping[int, str] = {201: "created", 200: "updated", 204: "deleted"}
"""What an outcome's status counts as; any other one failed."""


def batch_body() -> "type[BaseModel]":
    from crm_core.functions.bodies import BatchBody

    return BatchBody


@route(
    "POST",
    "/api/crm/<entities>/batch",
    role=Role.OPERATOR,
    parameters=[CONNECTION, RAW, Parameter("confirm", "Has to be true if an operation deletes")],
    body=batch_body,
    long=True,
)
def batch(call: Call) -> Reply:
    """Creates, updates and deletes up to 1,000 records; each operation has an outcome of its own.

    The answer is 200 whatever the outcomes are: each has the status that the call alone would have had, in the order
    of the operations, and `counts` sums them up. (A 207 would say no more: clients look at the outcomes either way.)
    What is wrong with one operation is its outcome, 400, and stops no other; what is wrong with the whole, such as a
    delete without confirm=true, is refused before anything is done. Operations are carried out in any order. Once the
    system asks to wait, does not answer, or the time is over, the rest are 503 `NotBegun`: send them again. The same
    request under its `Idempotency-Key` carries out those of 5xx without `outcome_unknown`, and no other once more.

    Over 100 operations, over 50 where the system takes one in a call, or with `Prefer: respond-async`, it becomes a run: 202, and the outcomes
    are at /api/runs/{id}/outcomes. With `Prefer: return=minimal` outcomes have no item.
    """
    from crm_core.sync.results import Progress, carry_out

    hub, opened, connector, entity = open_entity(call)
    operations: list[Any] = cast("BatchBody", call.body).operations
    check_confirmed(call, operations)
    items = _items(call, opened, entity, operations)
    wanted = preferences(call.incoming.headers)
    minimal = wanted.get("return") == "minimal"
    applied = {"Preference-Applied": "return=minimal"} if minimal else {}
    raw = flag(call.parameters, "raw")
    known = known_of(call, minimal=minimal)
    if not known and ("respond-async" in wanted or is_long(items, connector.batch_size)):
        progress = Progress.start(len(items), connector.batch_size, minimal=minimal, raw=raw)
        run = hub.start_batch(opened, entity.name, items, progress, call.principal.id)
        if "respond-async" in wanted:
            applied["Preference-Applied"] = ", ".join(["respond-async", *applied.values()])
        reply = runs.accepted(call, run)
        return replace(reply, headers={**reply.headers, **applied})
    end = hub.clock.monotonic() + BEGIN_SECONDS
    left = [index for index in range(len(items)) if index not in known]
    todo = [items[index] for index in left]
    found = carry_out(opened, entity.name, todo, hub.pool, lambda: hub.clock.monotonic() < end)
    results = (replace(each, index=left[each.index]) for each in found)
    shown = [_outcome(call, opened, entity, each, item=not minimal, raw=raw) for each in results]
    return answer_of({**known, **{each["index"]: each for each in shown}}, applied)


def is_long(items: "list[Item]", batch_size: int) -> bool:
    """Whether a batch is too long for a caller to wait for it."""
    from crm_core.connector import Write

    writes = sum(isinstance(each, Write) for each in items)
    return len(items) > MAX_ITEMS_AT_ONCE or -(-writes // batch_size) > MAX_CALLS_AT_ONCE


@route(
    "GET",
    "/api/runs/<run_id>/outcomes",
    role=Role.READER,
    parameters=[
        Parameter("top", f"Items of a page, 1 to {MAX_TOP}, {DEFAULT_TOP} if missing"),
        Parameter("skiptoken", "From nextLink; goes on after a page"),
    ],
)
def outcomes(call: Call) -> Reply:
    """What became of each operation of a batch, in their order; complete once the run has ended.

    Before that, those that are known so far. They go with their run, after `RUN_DAYS`.
    """
    from crm_core.sync.results import Progress, results

    hub: Hub = call.hub
    run = runs.find(call)
    if run.mode != "batch":
        raise NotFound(f"Run {run.id} is no batch; only a batch has outcomes.")
    progress = Progress.of(run)
    top = whole_number(call.parameters, "top", DEFAULT_TOP, MAX_TOP)
    about = (call.tenant.name, call.principal.id, "outcomes", run.id, str(top))
    token = call.parameters.get("skiptoken", "")
    first: int = hub.open_token(token, *about)["first"] if token else 0
    opened = hub.open(call.tenant, run.connection)
    entity = ENTITIES[run.entity]
    found = results(hub.engine, call.tenant, run, first, top)
    body: dict[str, Any] = {
        "value": [
            _outcome(call, opened, entity, each, item=not progress.minimal, raw=progress.raw, trace=run.trace)
            for each in found
        ]
    }
    if first + top < progress.total:
        following = {"top": str(top), "skiptoken": hub.seal_token({"first": first + top}, *about)}
        body["nextLink"] = link(hub.settings.public_url, call.incoming.path, following)
    return Reply(200, body, {} if run.ended else {"Retry-After": str(runs.POLL_SECONDS)})


# --- operations --------------------------------------------------------------------------------------------------


def check_confirmed(call: Call, operations: list[Any]) -> None:
    deletes = any(isinstance(each, dict) and each.get("method") == "delete" for each in operations)
    if deletes and not flag(call.parameters, "confirm"):
        raise BadRequest.field(
            "confirm", "confirm: the batch has deletes, which can't be taken back; say confirm=true."
        )


def _items(call: Call, opened: "Opened", entity: Entity, operations: list[Any]) -> "list[Item]":
    """Each operation as a write, or as what is wrong with it. A key of the caller's becomes an id of ours."""
    items: list[Item] = []
    named: dict[str, int] = {}
    for index, operation in enumerate(operations):
        try:
            write = _write(opened.connector, entity, operation)
            # Operations go side by side, and two on one record would be in no order.
            name, value = ("id", write.rid.lower()) if write.rid else ("key", write.key)
            check_unnamed(named, index, name, value)
        except BadRequest as error:
            items.append(error)
            continue
        if write.verb == "create":
            write = replace(write, key=_key(call, opened, entity, index, write.key))
        items.append(write)
    return items


def operation_of(operation: Any) -> "OperationBody":
    """One operation of a batch; raises BadRequest for what is wrong with it."""
    from crm_core.functions.bodies import OperationBody

    if not isinstance(operation, dict):
        raise BadRequest.field(
            "operation", 'operation: expected an object such as {"method": "create", ...}.'
        )
    body = cast("OperationBody", validated(OperationBody, operation))
    needed = {"create": ("fields",), "update": ("id", "fields"), "delete": ("id",)}[body.method]
    allowed = {"create": ("key",), "update": ("if_match",), "delete": ("if_match",)}[body.method]
    given = {name: value for name, value in body if value is not None and name != "method"}
    errors = [
        FieldError(name, f"{name}: required to {body.method}.") for name in needed if name not in given
    ] + [
        FieldError(name, f"{name}: is not for the method {body.method}; leave it out.")
        for name in given
        if name not in (*needed, *allowed)
    ]
    if body.if_match is not None and not (body.if_match.isascii() and body.if_match.isprintable()):
        errors.append(FieldError("if_match", "if_match: expected an etag, such as an answer has."))
    if errors:
        raise BadRequest(errors[0].message, errors=errors)
    return body


def _write(connector: "Connector", entity: Entity, operation: Any) -> "Write":
    from crm_core.connector import Write

    body = operation_of(operation)
    write = Write()
    if body.fields is not None:
        write = write_of(connector, entity, body.fields, create=body.method == "create")
    return replace(
        write, key=body.key or "", verb=body.method, rid=body.id or "", if_match=etag_of(body.if_match or "")
    )


def check_unnamed(named: dict[str, int], index: int, name: str, value: str) -> None:
    """Raises BadRequest for a record that an earlier operation has named by the same id or key. `named`: by which one."""
    if not value:
        return
    first = named.setdefault(f"{name} {value}", index)
    if first != index:
        raise BadRequest.field(
            name, f"{name}: operation {first} names the same; put them together, or send another batch."
        )


def _key(call: Call, opened: "Opened", entity: Entity, index: int, given: str) -> str:
    """The id that a create bears: from the caller's own key, else from the request's Idempotency-Key, else "" ."""
    if given:
        uid = opened.connection.uid
        return derived_id(call.tenant.name, call.principal.id, uid, entity.name, "key", given)
    return derived_id(call.key, str(index)) if call.key else ""


# --- outcomes ----------------------------------------------------------------------------------------------------


def _outcome(
    call: Call,
    opened: "Opened | None",
    entity: Entity,
    result: "Result",
    *,
    item: bool,
    raw: bool,
    trace: str = "",
) -> dict[str, Any]:
    """`opened`: None where the connection is gone; then only what is stored of a record can be shown."""
    shown: dict[str, Any] = {"index": result.index}
    error, change = result.outcome.error, result.outcome.change
    if error is not None:
        return shown | refusal(error, result.rid, trace or call.incoming.trace)
    shown["status"] = STATUS[result.verb]
    if result.rid:
        shown["id"] = result.rid
    if change is not None:
        shown["etag"] = change.etag
        if item:
            shown["item"] = item_of(opened, entity, change, raw=raw) if opened else _left(entity, change)
    return shown


def _left(entity: Entity, change: "Change") -> dict[str, Any]:
    from crm_core.connector import UNKNOWN

    return {
        "id": change.rid,
        "entity": entity.name,
        "connection": None,
        "etag": change.etag,
        **{name: value for name, value in (change.fields or {}).items() if value is not UNKNOWN},
    }


def refusal(error: HubError, rid: str, trace: str) -> dict[str, Any]:
    reply = problem(error, trace)
    shown: dict[str, Any] = {"status": reply.status}
    if rid:
        shown["id"] = rid
    if getattr(error, "outcome_unknown", False):
        shown["outcome_unknown"] = True
    if "Retry-After" in reply.headers:
        shown["retry_after"] = int(reply.headers["Retry-After"])
    return {**shown, "error": reply.body}


def known_of(call: Call, *, minimal: bool) -> dict[int, dict[str, Any]]:
    """By operation, of a batch that comes again, the outcomes that stay: what is done, can't be done, or may be done."""
    before = call.earlier["value"] if call.earlier is not None else ()
    known = {each["index"]: each for each in before if not _may_come_again(each)}
    for each in known.values() if minimal else ():
        each.pop("item", None)
    return known


def answer_of(outcomes: Mapping[int, Mapping[str, Any]], headers: Mapping[str, str]) -> Reply:
    """The answer with the outcomes of all operations."""
    value = [outcomes[index] for index in range(len(outcomes))]
    counts = dict.fromkeys((*COUNTED.values(), "failed"), 0)
    for each in value:
        counts[COUNTED.get(each["status"], "failed")] += 1
    waits = [each["retry_after"] for each in value if "retry_after" in each]
    after = {"Retry-After": str(max(waits))} if waits else {}
    unfinished = any(_may_come_again(each) for each in value)
    return Reply(200, {"counts": counts, "value": value}, {**headers, **after}, unfinished=unfinished)


def _may_come_again(outcome: Mapping[str, Any]) -> bool:
    """Whether nothing was done, and the same may succeed later."""
    return outcome["status"] >= 500 and not outcome.get("outcome_unknown")
