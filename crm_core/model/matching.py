"""A filter over the hub's own records, evaluated in process.

What it answers is what a remote system answers to the same filter as the hub sends it (docs/adr/0006): texts are
compared without regard to letter case, and of an empty field only `eq null`, `ne` a value and what `not` makes of
the others are true.
"""

import operator
from collections.abc import Callable, Mapping
from datetime import date
from decimal import Decimal
from typing import Any

from crm_core.errors import BadRequest
from crm_core.model.entities import Entity
from crm_core.model.fields import Type, parse_instant
from crm_core.model.filters import AnyOf, Both, Compare, Either, Function, Match, Node, Not, Operator
from crm_core.model.literals import GUID_TYPE, check_compare, check_match
from crm_core.model.record import Record

Test = Callable[[Record], bool]


def matcher(node: Node, entity: Entity) -> Test:
    """Whether a record is what the filter asks for. Raises BadRequest, as a remote system's translation does."""
    if isinstance(node, Both):
        left, right = matcher(node.left, entity), matcher(node.right, entity)
        return lambda record: left(record) and right(record)
    if isinstance(node, Either):
        left, right = matcher(node.left, entity), matcher(node.right, entity)
        return lambda record: left(record) or right(record)
    if isinstance(node, Not):
        inner = matcher(node.node, entity)
        return lambda record: not inner(record)
    if isinstance(node, AnyOf):
        each = [matcher(Compare(node.field, Operator.EQ, value), entity) for value in node.values]
        return lambda record: any(test(record) for test in each)
    return _compare(node, entity) if isinstance(node, Compare) else _match(node, entity)


def check_name(name: str, entity: Entity, parameter: str) -> str:
    """The name of a stored field, or id; raises BadRequest that names the parameter and what there is."""
    if name != "id" and name not in entity.by_name:
        known = ", ".join(entity.by_name)
        raise BadRequest.field(
            parameter, f"{parameter}: '{name}' is no field of {entity.name}; known are {known}."
        )
    return name


def fold(text: str) -> str:
    """The form in which texts are compared."""
    return text.casefold()


def _kind(name: str, entity: Entity) -> tuple[str, tuple[str, ...]]:
    """(type of a field's values, the names that it takes)."""
    if check_name(name, entity, "filter") == "id":
        return GUID_TYPE, ()
    beside = next((each.name for each in entity.fields if each.companion == name), None)
    if beside is not None:  # as a remote system's translation does
        raise BadRequest.field("filter", f"filter: '{name}' only goes with {beside}; name that one.")
    field = entity.by_name[name]
    return GUID_TYPE if field.type is Type.REF else field.type, field.choices


def _reader(name: str, key: Callable[[Any], Any]) -> Callable[[Record], Any]:
    """Reads a field as something that can be compared; None for nothing, which an empty text is too."""

    def read(record: Record) -> Any:
        value = record.id if name == "id" else record.fields.get(name)
        return None if value is None or value == "" else key(value)

    return read


def _compare(node: Compare, entity: Entity) -> Test:
    kind, names = _kind(node.field, entity)
    wanted: Any = check_compare(node, kind, names)
    if kind == Type.TEXT and wanted is not None:
        wanted = fold(wanted)
    read, compare = _reader(node.field, _KEYS.get(kind, _itself)), _OPERATORS[node.operator]
    if node.operator in (Operator.EQ, Operator.NE):
        return lambda record: compare(read(record), wanted)

    def ordered(record: Record) -> bool:
        value = read(record)
        return value is not None and compare(value, wanted)

    return ordered


def _match(node: Match, entity: Entity) -> Test:
    check_match(node, *_kind(node.field, entity))
    read, part, matches = _reader(node.field, fold), fold(node.value.text), _FUNCTIONS[node.function]

    def test(record: Record) -> bool:
        value = read(record)
        return value is not None and matches(value, part)

    return test


def _itself(value: Any) -> Any:
    return value


_KEYS: Mapping[str, Callable[[Any], Any]] = {
    Type.TEXT: fold,
    Type.DECIMAL: Decimal,
    Type.MONEY: Decimal,
    Type.DATE: date.fromisoformat,
    Type.INSTANT: parse_instant,
    GUID_TYPE: str.lower,
}
_OPERATORS: Mapping[Operator, Callable[[Any, Any], bool]] = {
    Operator.EQ: operator.eq,
    Operator.NE: operator.ne,
    Operator.GT: operator.gt,
    Operator.GE: operator.ge,
    Operator.LT: operator.lt,
    Operator.LE: operator.le,
}
_FUNCTIONS: Mapping[Function, Callable[[str, str], bool]] = {
    Function.CONTAINS: operator.contains,
    Function.STARTSWITH: str.startswith,
    Function.ENDSWITH: str.endswith,
}
