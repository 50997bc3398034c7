"""What must be there once only: alternate keys, and what the duplicate rules compare."""

from typing import Any

from sandbox.dynamics365 import errors
from sandbox.dynamics365.errors import Refused
from sandbox.dynamics365.filters import fold
from sandbox.dynamics365.org import Org
from sandbox.dynamics365.schema import Entity
from sandbox.store import Row, Values


def unique(org: Org, entity: Entity, key: str, patch: Values) -> None:
    """Refuse a second row with the same alternate key."""
    for name in entity.alternate_keys:
        value = patch.get(name)
        if value is not None and any(r.id != key for r in _same(org, entity, name, value)):
            raise Refused(
                412,
                errors.KEY_DUPLICATE,
                f"A record that has the attribute values {entity.columns[name].schema_name} already exists. The entity key "
                f"{entity.columns[name].schema_name} requires that this set of attributes contains unique values. Select unique "
                "values and try again.",
            )


def detect(org: Org, entity: Entity, key: str, patch: Values) -> None:
    """The published duplicate rule; it is used when a caller asks for it."""
    value = patch.get(entity.duplicate_rule) if entity.duplicate_rule else None
    if not (org.options["duplicate_rules"] and value is not None):
        return
    if any(
        r.id != key and r.values.get("statecode") == 0
        for r in _same(org, entity, entity.duplicate_rule, value)
    ):
        raise Refused(
            412,
            errors.DETECTED,
            "A record was not created or updated because a duplicate of the current record already exists.",
        )


def _same(org: Org, entity: Entity, name: str, value: Any) -> list[Row]:
    wanted = fold(value)
    rows = org.store.table(entity.name).rows.values()
    return [r for r in rows if (other := r.values.get(name)) is not None and fold(other) == wanted]
