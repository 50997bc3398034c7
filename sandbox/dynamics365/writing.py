"""Create, update, upsert and delete (Web API: create, update and delete rows; conditional operations; keys)."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from typing import Any

from sandbox.dynamics365 import documents, duplicates, errors, lifecycle, parties
from sandbox.dynamics365.errors import Refused, bad_payload, no_row
from sandbox.dynamics365.keys import GUID, find, parse_reference
from sandbox.dynamics365.org import Org, wire_time
from sandbox.dynamics365.schema import SETS, TABLES, Column, Entity, collections, references
from sandbox.dynamics365.values import store_value
from sandbox.store import Row, Values


@dataclass
class Caller:
    """Who writes, and how: the app user by the API, or a person at the vendor by control."""

    user: str
    checked: bool = True  # privileges are checked
    lag: float = 0.0
    at: datetime | None = None
    detect_duplicates: bool = False
    references: dict[str, tuple[str, str]] = field(
        default_factory=dict
    )  # "$1" -> (table, id), inside a batch


def read_body(body: bytes) -> Values:
    """A JSON object; decimals stay exact."""
    try:
        value = json.loads(body, parse_float=Decimal)
    except (ValueError, RecursionError):
        raise bad_payload(
            "Invalid JSON. Unexpected end of input or an invalid token was found in JSON content."
        ) from None
    if not isinstance(value, dict):
        raise bad_payload("A 'StartObject' node was expected in the JSON content.")
    return value


class Writer:
    """The write operations of an environment."""

    def __init__(self, org: Org) -> None:
        self.org = org

    def create(
        self,
        entity: Entity,
        body: Values,
        caller: Caller,
        key: str | None = None,
        fixed: Values | None = None,
    ) -> str:
        """Insert a row; gives its id. ``key`` is the id from the URL of an upsert, ``fixed`` its key columns."""
        self._allow("Create", entity, caller)
        given = body.get(entity.key)
        if given is not None and (not isinstance(given, str) or not GUID.fullmatch(given)):
            raise bad_payload(f"Cannot convert the literal '{given}' to the expected type 'Edm.Guid'.")
        row_id = key or (given.lower() if given else self.org.new_id())
        if self.org.store.get(entity.name, row_id) is not None:
            raise Refused(412, errors.DUPLICATE, "A record with matching key values already exists.")
        with self.org.store.transaction():  # rows inside the row are not left behind when the row is refused
            return self._create(entity, row_id, dict(body), caller, fixed or {})

    def _create(self, entity: Entity, row_id: str, body: Values, caller: Caller, fixed: Values) -> str:
        inside = self._inside(entity, body)
        nested = self._deep(entity, body, caller)
        patch = {**fixed, **self.patch(entity, body, None, caller), **nested}
        self._required(entity, patch)
        if entity.name == parties.PARTY:
            parties.check(self.org, patch)
        self._once(entity, row_id, patch, caller)
        documents.check_line(self.org, entity, patch, None)
        return self.insert(entity, row_id, patch, caller, inside)

    def insert(
        self,
        entity: Entity,
        row_id: str | None,
        patch: Values,
        caller: Caller,
        inside: Sequence[tuple[Entity, Column, list[Values]]] = (),
    ) -> str:
        """Write a new row of checked values, with what the server adds, and the rows inside it."""
        row_id = row_id or self.org.new_id()
        patch = {**self._defaults(entity, caller), **patch}
        documents.numbered(self.org, entity, row_id, patch)
        created = patch.get("overriddencreatedon")
        at = caller.at or self.org.now()
        self.org.store.write(
            entity.name,
            row_id,
            {**patch, "_createdby_value": caller.user, "_createdby_type": "systemuser", **self._by(caller)},
            at=at,
            created=datetime.fromisoformat(created) if created else at,
            lag=caller.lag,
        )
        self._fill(entity, row_id, inside, caller)
        self._after(entity, row_id, patch, caller)
        return row_id

    def store(self, entity: Entity, key: str, patch: Values, caller: Caller) -> None:
        """Write checked values into a row that is there."""
        self.org.store.write(entity.name, key, {**patch, **self._by(caller)}, at=caller.at, lag=caller.lag)

    def _once(self, entity: Entity, key: str, patch: Values, caller: Caller) -> None:
        duplicates.unique(self.org, entity, key, patch)
        if caller.detect_duplicates:
            duplicates.detect(self.org, entity, key, patch)

    def _inside(self, entity: Entity, body: Values) -> list[tuple[Entity, Column, list[Values]]]:
        """Takes lists of related rows (deep insert) out of a body: their table, their lookup, their bodies."""
        found = []
        for name, (child, lookup) in collections(entity).items():
            rows = body.get(name)
            if rows is None:
                continue
            if not isinstance(rows, list) or not all(isinstance(r, dict) for r in rows):
                raise bad_payload(f"The property '{name}' must be a collection of rows.")
            found.append((child, lookup, body.pop(name)))
        return found

    def _fill(
        self,
        entity: Entity,
        key: str,
        inside: Sequence[tuple[Entity, Column, list[Values]]],
        caller: Caller,
    ) -> None:
        """Create the rows inside a row."""
        for child, lookup, bodies in inside:
            for body in bodies:
                self.create(child, body, caller, None, {lookup.wire: key, lookup.type_key: entity.name})

    def _after(self, entity: Entity, key: str, values: Values, caller: Caller) -> None:
        """What the server does when a row has been written: totals of documents, parties of activities."""
        if entity.lines:
            documents.add_up(self.org, entity, values, self._by(caller), caller.at, caller.lag)
        if entity.activity:
            parties.keep(self.org, entity, values, key, caller.lag)
            if entity.name == "email" and not caller.lag:
                told = parties.addresses(self.org, key)
                if told.items() - values.items():
                    self.store(entity, key, told, caller)

    def update(self, entity: Entity, row: Row, body: Values, caller: Caller) -> None:
        """Change the given columns of a row."""
        self._allow("Write", entity, caller)
        given = body.get(entity.key)
        if given is not None and str(given).lower() != row.id:
            raise bad_payload(f"The property '{entity.key}' cannot be changed.")
        body = dict(body)
        inside = self._inside(entity, body)
        if any(child.name != parties.PARTY for child, _, _ in inside):
            raise bad_payload(
                "Deep update of related rows is not supported: only the parties of an activity are."
            )
        patch = self.patch(entity, body, row, caller)
        self._once(entity, row.id, patch, caller)
        documents.check_line(self.org, entity, patch, row)
        with self.org.store.transaction():
            if inside:
                parties.clear(self.org, row.id)
            self.store(entity, row.id, patch, caller)
            self._fill(entity, row.id, inside, caller)
            self._after(entity, row.id, {**row.values, **patch}, caller)

    def delete(self, entity: Entity, row: Row, caller: Caller) -> None:
        """Delete a row; lookups to it are cleared, or their rows deleted where that is configured."""
        self._allow("Delete", entity, caller)
        with self.org.store.transaction():
            self._remove(entity, row, caller)

    def _remove(self, entity: Entity, row: Row, caller: Caller) -> None:
        self.org.store.delete(entity.name, row.id, lag=caller.lag)
        if caller.lag:
            return
        for other, column in references(entity.name):
            self._release(other, column, entity, row.id, caller)
        if entity.lines:
            documents.add_up(self.org, entity, row.values, self._by(caller), caller.at, 0.0)

    def _release(self, other: Entity, column: Column, entity: Entity, key: str, caller: Caller) -> None:
        rows = self.org.store.table(other.name).where(column.wire, key)
        children = [r for r in rows if r.values.get(column.type_key) == entity.name]
        for child in children:
            if column.parental or (column.cascade and self.org.options["cascade"]):
                self._remove(other, child, caller)
            else:
                self.store(other, child.id, {column.wire: None, column.type_key: None}, caller)

    def merge(self, entity: Entity, target: Row, subordinate: Row, content: Values, caller: Caller) -> None:
        """The subordinate stays as an inactive row that names its master (action Merge)."""
        if target.id == subordinate.id:
            raise Refused(400, errors.UNEXPECTED, "Cannot merge a record with itself.")
        if entity.states.merged is None:
            raise Refused(400, errors.UNSUPPORTED, f"Rows of '{entity.name}' cannot be merged.")
        if content:
            self.update(entity, target, content, caller)
        else:
            self.org.store.write(entity.name, target.id, self._by(caller), at=caller.at)
        state, reason = entity.states.merged
        self.org.store.write(
            entity.name,
            subordinate.id,
            {
                "merged": True, "_masterid_value": target.id, "_masterid_type": entity.name,
                "statecode": state, "statuscode": reason, **self._by(caller),
            },
            at=caller.at,
        )  # fmt: skip

    def clear(self, entity: Entity, row: Row, column: Column, caller: Caller) -> None:
        """Empty one column; for a lookup also its kind."""
        self._allow("Write", entity, caller)
        if not column.update:
            raise bad_payload(f"Property {column.name} is read-only")
        patch = {column.wire: None, column.type_key: None} if column.kind == "lookup" else {column.name: None}
        lifecycle.settle(entity, dict(patch), row, by_person=not caller.checked)
        self.store(entity, row.id, patch, caller)
        self._after(entity, row.id, {**row.values, **patch}, caller)

    def _allow(self, verb: str, entity: Entity, caller: Caller) -> None:
        if caller.checked:
            self.org.allow(verb, entity)

    def _by(self, caller: Caller) -> Values:
        return {"_modifiedby_value": caller.user, "_modifiedby_type": "systemuser"}

    def _defaults(self, entity: Entity, caller: Caller) -> Values:
        """What a new row has without being told."""
        values: Values = {c.name: c.default for c in entity.columns.values() if c.default is not None}
        if "ownerid" in entity.columns:
            values |= {
                "_ownerid_value": caller.user, "_ownerid_type": "systemuser",
                "_owninguser_value": caller.user, "_owninguser_type": "systemuser",
                "_owningbusinessunit_value": self.org.business_unit, "_owningbusinessunit_type": "businessunit",
            }  # fmt: skip
        if "statecode" in entity.columns:
            values["statecode"], values["statuscode"] = entity.states.first
        if (
            "transactioncurrencyid" in entity.columns
            and entity.columns["transactioncurrencyid"].required != "None"
        ):
            values |= self.org.own_currency()
        return values

    def _required(self, entity: Entity, patch: Values) -> None:
        """The lookups that the platform itself requires; other requirements are enforced by forms only."""
        for column in entity.columns.values():
            if column.kind == "lookup" and column.required == "SystemRequired" and column.name != "ownerid":
                if patch.get(column.wire) is not None:
                    continue
                text = f"The required lookup '{column.name}' of '{entity.name}' is missing."
                if column.name == "customerid":
                    text = "You should specify a parent contact or account."
                raise Refused(400, errors.INVALID, text)

    def _deep(self, entity: Entity, body: Values, caller: Caller) -> Values:
        """Related rows inside a create (deep insert) over single-valued navigation."""
        values: Values = {}
        for name in [n for n, v in body.items() if isinstance(v, dict) and n in entity.navigation]:
            lookup, target = entity.navigation[name]
            new = self.create(
                TABLES[target], body.pop(name), Caller(caller.user, caller.checked, at=caller.at)
            )
            values |= {lookup.wire: new, lookup.type_key: target}
        return values

    def patch(self, entity: Entity, body: Values, row: Row | None, caller: Caller) -> Values:
        """A body as stored values; raises the first thing that is wrong with it."""
        patch: Values = {}
        for name, value in body.items():
            if name.endswith("@odata.bind"):
                patch |= self._bind(entity, name.removesuffix("@odata.bind"), value, caller)
            elif "@" in name or name == entity.key:
                continue  # annotations carry nothing to store
            elif name in entity.navigation and value is None:
                lookup = entity.navigation[name][0]
                patch |= self._lookup(entity, lookup, None, None)
            else:
                column = entity.columns.get(name)
                if column is None or column.kind == "lookup":
                    raise self._no_such(entity, name)
                if (readonly := self._readonly(column, creating=row is None)) and self.org.options[
                    "readonly"
                ] == "ignore":
                    continue
                if readonly:
                    raise bad_payload(f"Property {name} is read-only")
                patch[name] = store_value(self.org, entity, column, value)
        lifecycle.settle(entity, patch, row, by_person=not caller.checked)
        lifecycle.end(entity, patch, row, wire_time(self.org.now()))
        return patch

    @staticmethod
    def _readonly(column: Column, *, creating: bool) -> bool:
        return not (column.create if creating else column.update)

    def _no_such(self, entity: Entity, name: str) -> Refused:
        if name in entity.by_wire or (name in entity.columns and entity.columns[name].kind == "lookup"):
            return bad_payload(
                "CRM do not support direct update of Entity Reference properties, Use Navigation properties instead."
            )
        return bad_payload(
            f"The property '{name}' does not exist on type 'Microsoft.Dynamics.CRM.{entity.name}'. "
            "Make sure to only use property names that are defined by the type or mark the type as open type."
        )

    def _bind(self, entity: Entity, nav: str, value: Any, caller: Caller) -> Values:
        if nav not in entity.navigation:  # also for a name in the wrong case
            raise bad_payload(
                f"An undeclared property '{nav}' which only has property annotations in the payload but no property value was found "
                "in the payload. In OData, only declared navigation properties and declared named streams can be represented as "
                "properties without values."
            )
        lookup, _ = entity.navigation[nav]
        allowed = [t for t, n in lookup.targets.items() if n == nav]
        if value is None:
            return self._lookup(entity, lookup, None, None)
        if not isinstance(value, str):
            raise bad_payload(f"The value of '{nav}@odata.bind' must be a URL.")
        if value.startswith("$") and value in caller.references:
            table, key = caller.references[value]
        elif value.startswith("$"):
            raise Refused(
                400, errors.PAYLOAD, f"Content-ID Reference: '{value}' does not exist in the batch context."
            )
        else:
            table, key = self._target(value)
        if table not in allowed:
            raise bad_payload(f"A row of '{table}' cannot be bound to '{nav}'.")
        return self._lookup(entity, lookup, table, key)

    def _target(self, url: str) -> tuple[str, str]:
        """The row that a bind URL names; it must exist."""
        set_name, key = parse_reference(url)
        if set_name not in SETS:
            raise bad_payload(f"Resource not found for the segment '{set_name}'.")
        target = SETS[set_name]
        row = find(self.org, target, key)
        if row is None:
            raise no_row(target.name, key.text)
        return target.name, row.id

    def _lookup(self, entity: Entity, lookup: Column, table: str | None, key: str | None) -> Values:
        if not lookup.update:
            if self.org.options["readonly"] == "ignore":
                return {}
            raise bad_payload(f"Property {lookup.name} is read-only")
        if key is None and lookup.required == "SystemRequired":
            raise Refused(400, errors.UNEXPECTED, f"{lookup.name} is missing: it cannot be null.")
        patch: Values = {lookup.wire: key, lookup.type_key: table}
        if lookup.name == "ownerid" and "owninguser" in entity.columns:
            user = table == "systemuser"
            patch |= {
                "_owninguser_value": key if user else None, "_owninguser_type": table if user else None,
                "_owningteam_value": None if user else key, "_owningteam_type": None if user else table,
            }  # fmt: skip
        return patch
