"""Filters over a table whose rows are of several kinds: a field that a kind lacks is empty in its rows. Pure.

Several fields can share a column there: the scheduled end of a meeting is its end, of all else when it is due.
"""

from collections.abc import Callable

from crm_core.connectors.dynamics365.tables.common import Table
from crm_core.model.filters import AnyOf, Both, Compare, Either, Kind, Literal, Match, Node, Not, Operator

Leaf = Compare | AnyOf | Match
NEVER = AnyOf("subject", ())
"""True of no row: nothing is in an empty list."""


def of_all(node: Node, table: Table) -> Node:
    """The filter for the table that lists every kind: what it says of a field holds for the kinds that have it."""

    def change(leaf: Leaf) -> Node:
        known = leaf.field in table.by_field
        lacking = [kind for kind, own in table.kinds.items() if leaf.field not in own.by_field]
        if not known or not lacking:
            return leaf
        others = AnyOf("kind", tuple(Literal(Kind.TEXT, kind) for kind in lacking))
        return Either(leaf, others) if _of_empty(leaf) else Both(leaf, Not(others))

    return _changed(node, change)


def of_one(node: Node, table: Table, own: Table) -> Node:
    """The filter for the table of one kind."""

    def change(leaf: Leaf) -> Node:
        if leaf.field not in table.by_field or leaf.field in own.by_field:
            return leaf
        return Not(NEVER) if _of_empty(leaf) else NEVER

    return _changed(node, change)


def _changed(node: Node, change: Callable[[Leaf], Node]) -> Node:
    if isinstance(node, Not):
        return Not(_changed(node.node, change))
    if isinstance(node, Both | Either):
        return type(node)(_changed(node.left, change), _changed(node.right, change))
    return change(node)


def _of_empty(leaf: Leaf) -> bool:
    """Whether a condition is true of an empty field (docs/adr/0006)."""
    if isinstance(leaf, Match):
        return False
    if isinstance(leaf, AnyOf):
        return any(_is_empty(value) for value in leaf.values)
    return _is_empty(leaf.value) is (leaf.operator is Operator.EQ) if leaf.operator in _EQUALITY else False


def _is_empty(value: Literal) -> bool:
    return value.kind is Kind.NULL or (value.kind is Kind.TEXT and not value.text)


_EQUALITY = (Operator.EQ, Operator.NE)
