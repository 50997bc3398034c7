"""Deleting rows that were kept for a time: many at once, and none twice though another worker does the same."""

from collections.abc import Iterable, Mapping, Sequence

from crm_core.ports import MAX_TRANSACTION_OPERATIONS, Operation, Row, RowChanged, Table

PAGE_ROWS = 200
"""Rows that one look at what may be old reads."""


def drop(table: Table, name: str, places: Iterable[tuple[str, Sequence[str]]]) -> int:
    """Deletes rows; `places`: partition key, and row keys that go together. Gives how many groups there were."""
    groups: dict[str, list[str]] = {}
    count = 0
    for pk, keys in places:
        groups.setdefault(pk, []).extend(keys)
        count += 1
    for pk, keys in groups.items():
        for start in range(0, len(keys), MAX_TRANSACTION_OPERATIONS):
            _drop_together(table, name, pk, dict.fromkeys(keys[start : start + MAX_TRANSACTION_OPERATIONS]))
    return count


def _drop_together(table: Table, name: str, pk: str, keys: Mapping[str, None]) -> None:
    try:
        table.transact(name, [Operation("delete", Row(pk, rk)) for rk in keys])
    except RowChanged:  # one of them is gone already, which a transaction does not forgive
        for rk in keys:
            table.delete(name, pk, rk)
