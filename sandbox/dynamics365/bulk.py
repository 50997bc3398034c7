"""CreateMultiple, UpdateMultiple, UpsertMultiple (bulk operation messages): one transaction each."""

from typing import TYPE_CHECKING, Any

from sandbox.dynamics365.errors import MISSING, UNEXPECTED, Refused, bad_payload, no_row, no_segment
from sandbox.dynamics365.keys import GUID, find, parse_reference
from sandbox.dynamics365.schema import SETS, Entity
from sandbox.dynamics365.wire import answer
from sandbox.dynamics365.writing import Caller, Writer, read_body
from sandbox.frame import Response
from sandbox.store import Values

if TYPE_CHECKING:
    from sandbox.dynamics365.routes import Api, Call

PREFIX = "Microsoft.Dynamics.CRM."


def bound(api: "Api", call: "Call", entity: Entity, name: str) -> Response:
    """An action bound to a table's set; without the namespace there is no such thing."""
    verbs = {"CreateMultiple": _create, "UpdateMultiple": _update, "UpsertMultiple": _upsert}
    verb = verbs.get(name.removeprefix(PREFIX)) if name.startswith(PREFIX) else None
    offered = "create" in entity.operations and api.org.options["multiple"].get(entity.name, True)
    if verb is None or not offered:
        raise no_segment(name)
    if call.request.method != "POST":
        raise Refused(
            405,
            "",
            f"The requested resource does not support http method '{call.request.method}'.",
            {"Allow": "POST"},
        )
    targets = _targets(entity, read_body(call.request.body))
    caller = api.caller(call)
    with api.org.store.transaction():  # standard tables: one bad row rolls back all
        ids = [verb(api.writer, entity, target, caller) for target in targets]
    if verb is not _create:
        return Response(204, {"OData-Version": "4.0"})
    return answer(
        200, {"@odata.context": f"{call.base}/$metadata#{PREFIX}CreateMultipleResponse", "Ids": ids}
    )


def _targets(entity: Entity, body: Values) -> list[Values]:
    targets = body.get("Targets")
    if not isinstance(targets, list) or not targets or not all(isinstance(t, dict) for t in targets):
        raise bad_payload("The parameter 'Targets' must be a collection of rows.")
    for target in targets:
        if str(target.get("@odata.type", "")).removeprefix("#") != PREFIX + entity.name:
            raise bad_payload(f"Each target needs '@odata.type': '{PREFIX}{entity.name}'.")
    return targets


def _create(writer: Writer, entity: Entity, target: Values, caller: Caller) -> str:
    return writer.create(entity, target, caller)


def _id(entity: Entity, target: Values) -> str | None:
    given = target.get(entity.key)
    if given is None:
        return None
    if not isinstance(given, str) or not GUID.fullmatch(given):
        raise bad_payload(f"Cannot convert the literal '{given}' to the expected type 'Edm.Guid'.")
    return given.lower()


def _update(writer: Writer, entity: Entity, target: Values, caller: Caller) -> str:
    key = _id(entity, target)
    if key is None:
        raise Refused(400, MISSING, f"Each target needs '{entity.key}'.")
    row = writer.org.store.get(entity.name, key)
    if row is None:
        raise no_row(entity.name, key)
    writer.update(entity, row, target, caller)
    return key


def _upsert(writer: Writer, entity: Entity, target: Values, caller: Caller) -> str:
    """By id or by ``@odata.id`` with an alternate key, whose column must not be in the body as well."""
    reference: Any = target.get("@odata.id")
    fixed: Values = {}
    key = _id(entity, target)
    row = writer.org.store.get(entity.name, key) if key else None
    if key is None and reference is not None:
        set_name, named = parse_reference(str(reference))
        if SETS.get(set_name) is not entity:
            raise bad_payload(f"'{reference}' is no row of '{entity.set_name}'.")
        row = find(writer.org, entity, named)
        key = named.guid
        fixed = {} if named.guid else named.pairs(entity)
    if row is not None:
        writer.update(entity, row, target, caller)
        return row.id
    if fixed.keys() & target.keys():
        raise Refused(400, UNEXPECTED, "An item with the same key has already been added.")
    return writer.create(entity, target, caller, key, fixed)
