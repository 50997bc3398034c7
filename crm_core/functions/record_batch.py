"""Many writes of stored records at once; in the shapes of a batch at a remote system (batch.py)."""

from typing import TYPE_CHECKING, Any, cast

from crm_core.errors import BadRequest, NotFound
from crm_core.functions.batch import (
    BEGIN_SECONDS,
    STATUS,
    answer_of,
    batch_body,
    check_confirmed,
    check_unnamed,
    known_of,
    operation_of,
    refusal,
)
from crm_core.functions.crm import entity_of, etag_of
from crm_core.functions.endpoint import route
from crm_core.functions.records import item_of_record, names_of, with_customs_of
from crm_core.functions.web import Call, Parameter, Reply, Role, preferences
from crm_core.model.entities import Entity
from crm_core.model.items import accept_item
from crm_core.ports import derived_id
from crm_core.storage import layout

if TYPE_CHECKING:
    from crm_core.errors import HubError
    from crm_core.functions.bodies import BatchBody
    from crm_core.hub import Hub
    from crm_core.sync.edit_many import Edit, Edited


@route(
    "POST",
    "/api/records/<entities>/batch",
    role=Role.OPERATOR,
    parameters=[Parameter("confirm", "Has to be true if an operation deletes")],
    body=batch_body,
)
def batch(call: Call) -> Reply:
    """Creates, updates and deletes up to 1,000 stored records; each operation has an outcome of its own.

    The answer is 200 whatever the outcomes are: each has the status that the call alone would have had, in the order of the
    operations, and `counts` sums them up. What is wrong with one is its outcome and stops no other; what is wrong with the
    whole, such as a delete without confirm=true, is refused before anything is done. Operations on one record are carried
    out in their order; a `key` is that of one create. What the time did not suffice for, or the store does not answer any more, is 503 `NotBegun`: send
    it again. What was sent to the store and not answered is 503 with `outcome_unknown`: it may have been done.

    The same request under its `Idempotency-Key` carries out those of 5xx without `outcome_unknown`, and no other once more.
    With `Prefer: return=minimal` outcomes have no item.
    """
    from crm_core.sync.edit_many import ManyEditor

    hub: Hub = call.hub
    entity = with_customs_of(entity_of(call.parts["entities"]), hub.connections.every(call.tenant))
    operations: list[Any] = cast("BatchBody", call.body).operations
    check_confirmed(call, operations)
    named: dict[str, int] = {}
    edits = [_edit(call, entity, index, each, named) for index, each in enumerate(operations)]
    minimal = preferences(call.incoming.headers).get("return") == "minimal"
    names = names_of(hub, call.tenant)  # before anything is done: afterwards no outcome may be lost
    end = hub.clock.monotonic() + BEGIN_SECONDS
    editor = ManyEditor(hub.engine, call.tenant, entity, call.principal.id)
    known = known_of(call, minimal=minimal)
    todo = {index: edit for index, edit in enumerate(edits) if index not in known}
    found = editor.carry_out(list(todo.values()), lambda: hub.clock.monotonic() < end)
    shown = {
        index: _outcome(call, index, edit, each, None if minimal else names)
        for (index, edit), each in zip(todo.items(), found, strict=True)
    }
    return answer_of({**known, **shown}, {"Preference-Applied": "return=minimal"} if minimal else {})


def _edit(call: Call, entity: Entity, index: int, operation: Any, named: dict[str, int]) -> "Edit | HubError":
    """An operation as a write, or as what is wrong with it. `named`: the keys of the operations before it."""
    from crm_core.sync.edit_many import Edit

    try:
        body = operation_of(operation)
        fields = (
            {} if body.fields is None else accept_item(entity, body.fields, create=body.method == "create")
        )
        check_unnamed(named, index, "key", body.key or "")  # it would make the same record, with other values
    except BadRequest as error:
        return error
    record_id = (body.id or "").lower()
    if body.method == "create":
        record_id = _new_id(call, entity, index, body.key or "")
    elif not layout.is_record_id(record_id):
        return NotFound(f"There is no stored {entity.name} '{body.id}'.")
    return Edit(body.method, record_id, fields, etag_of(body.if_match or ""))


def _new_id(call: Call, entity: Entity, index: int, given: str) -> str:
    """Where a create goes: by the caller's own key, else by the request's Idempotency-Key, it comes to the same place again."""
    if given:
        return derived_id(call.tenant.name, call.principal.id, "records", entity.name, "key", given)
    hub: Hub = call.hub
    return derived_id(call.key, str(index)) if call.key else hub.ids.uuid()


def _outcome(
    call: Call, index: int, edit: "Edit | HubError", edited: "Edited", names: dict[str, str] | None
) -> dict[str, Any]:
    """`names`: of connections; None: without the item."""
    from crm_core.sync.edit_many import Edit

    rid = edit.record_id if isinstance(edit, Edit) and edit.verb != "create" else ""
    if edited.error is not None or not isinstance(edit, Edit):
        assert edited.error is not None
        return {"index": index, **refusal(edited.error, rid, call.incoming.trace)}
    record = edited.record
    assert record is not None
    shown: dict[str, Any] = {"index": index, "status": STATUS[edit.verb], "id": record.id}
    if edit.verb == "delete":
        return shown
    item = item_of_record(record, names or {})
    shown["etag"] = item["etag"]
    return {**shown, "item": item} if names is not None else shown
