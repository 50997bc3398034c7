"""Deleting rows that were kept for a time: many at once, and what somebody has just changed stays; and blobs."""

from collections.abc import Iterable

from crm_core.ports import MAX_TRANSACTION_OPERATIONS, Blob, Operation, Row, RowChanged, Table

PAGE_ROWS = 200
"""Rows that one look at what may be old reads."""
AT_ONCE = MAX_TRANSACTION_OPERATIONS // 2
"""Each row can have another one beside it."""


def drop(table: Table, name: str, rows: Iterable[Row], beside: dict[str, str] | None = None) -> set[str]:
    """Deletes rows as they were read, and gives the row keys of those that are gone by this call. `beside`: of a row key
    another one of the same partition that goes with it, and stays with it.
    """
    gone: set[str] = set()
    by_partition: dict[str, list[Row]] = {}
    for row in rows:
        by_partition.setdefault(row.pk, []).append(row)
    for found in by_partition.values():
        for start in range(0, len(found), AT_ONCE):
            gone |= _drop_together(table, name, found[start : start + AT_ONCE], beside or {})
    return gone


def _drop_together(table: Table, name: str, rows: list[Row], beside: dict[str, str]) -> set[str]:
    operations = [Operation("delete", row, row.etag) for row in rows]
    keys = dict.fromkeys(beside[row.rk] for row in rows if row.rk in beside)
    operations += [Operation("delete", Row(rows[0].pk, rk)) for rk in keys]
    while operations:
        try:
            table.transact(name, operations)
        except RowChanged as error:  # it is gone already, or is another one by now
            left = beside.get(operations.pop(error.index).row.rk)
            operations = [each for each in operations if each.row.rk != left]
        else:
            return {each.row.rk for each in operations}
    return set()


def drop_blobs(blob: Blob, prefix: str) -> None:
    """Deletes all whose names begin so, whoever has written them: what no row names any more, too."""
    while names := blob.names(prefix):
        for name in names:
            blob.delete(name)
