"""A table that reads through and keeps what is written to itself: whoever works over it changes nothing.

It is emptied after each batch, so that it never holds more than one. What was written in an earlier one is known by 64
bits of each row alone: whoever needs such a row again has come to what follows from another decision, and is told so.
"""

import itertools
from array import array
from bisect import bisect_left
from collections.abc import Iterable, Sequence
from typing import Any

from crm_core.ports import Operation, Row, RowChanged, RowExists, RowPage, Table
from crm_core.storage import layout
from crm_core.storage.plans import Digest, digest

MAX_RUNS = 8
"""Sorted pieces that are looked through one by one, before they become one."""

Key = tuple[str, str, str]


class Follows(Exception):  # no failure: what follows can't be told before the other decision is carried out
    """What is asked for depends on what this plan decided before."""


class Numbers:
    """A set of 64-bit numbers, 8 bytes each."""

    def __init__(self, numbers: Iterable[int] = ()) -> None:
        self._pieces: list[array[int]] = []
        self.add(numbers)

    def add(self, numbers: Iterable[int]) -> None:
        if piece := array("Q", sorted(numbers)):
            self._pieces.append(piece)
        if len(self._pieces) > MAX_RUNS:
            whole = array("Q")
            for each in self._pieces:
                whole.extend(each)
            self._pieces = [array("Q", sorted(whole))]

    def __contains__(self, number: int) -> bool:
        for piece in self._pieces:
            at = bisect_left(piece, number)
            if at < len(piece) and piece[at] == number:
                return True
        return False

    def __len__(self) -> int:
        return sum(map(len, self._pieces))


class Overlay:
    """`Table` over another one. Rows of a query come in no order; checks of what nobody wrote here are left to whoever
    read it just before.

    `met`: the rows that earlier batches wrote. What is asked for among them raises Follows.
    """

    def __init__(self, table: Table, met: Numbers) -> None:
        self._below = table
        self._met = met
        self._rows: dict[Key, Row | None] = {}
        self._journal: list[tuple[Key, Row | None, bool]] = []
        self._etags = itertools.count(1)

    # --- batches -------------------------------------------------------------------------------------------------

    def mark(self) -> int:
        """A point to go back to."""
        return len(self._journal)

    def undo(self, mark: int) -> None:
        """As if nothing had been written since."""
        while len(self._journal) > mark:
            key, before, was_there = self._journal.pop()
            if was_there:
                self._rows[key] = before
            else:
                del self._rows[key]

    def drop(self) -> list[Digest]:
        """Forgets what was written; gives what it is known by from now on."""
        left = [Digest(each) for key, row in self._rows.items() for each in _digests(key, row)]
        self._met.add(each.of for each in left)
        self._rows, self._journal = {}, []
        return left

    def has_met(self, record_id: str) -> bool:
        """Whether an earlier batch wrote the row of a record's id."""
        return digest("row", record_id) in self._met

    def lenient(self) -> "Table":
        """The same rows for whoever only asks where an id leads: a record that was changed is where it was."""
        return _Lenient(self)

    # --- reading -------------------------------------------------------------------------------------------------

    def get(self, table: str, pk: str, rk: str) -> Row | None:
        key = (table, pk, rk)
        if key in self._rows:
            return self._rows[key]
        self._refuse_met(key)
        return self._below.get(table, pk, rk)

    def leads(self, table: str, pk: str, rk: str) -> Row | None:
        """As `get`, but also of a record that was changed before."""
        key = (table, pk, rk)
        if key in self._rows:
            return self._rows[key]
        if digest("lead", rk) in self._met:
            raise Follows
        return self._below.get(table, pk, rk)

    def query(
        self,
        table: str,
        *,
        pk: str | None = None,
        pk_to: str | None = None,
        rk: str = "",
        rk_to: str | None = None,
        top: int = 1000,
        token: str | None = None,
        select: Sequence[str] | None = None,
    ) -> RowPage:
        page = self._below.query(
            table, pk=pk, pk_to=pk_to, rk=rk, rk_to=rk_to, top=top, token=token, select=select
        )
        rows = [row for row in page.rows if (table, row.pk, row.rk) not in self._rows]
        if token is None:
            rows += [
                row
                for (its, its_pk, its_rk), row in list(self._rows.items())
                if row is not None
                and its == table
                and _is_within(its_pk, pk, pk_to)
                and (pk_to is not None or (rk <= its_rk and (rk_to is None or its_rk < rk_to)))
            ]
        return RowPage(rows, page.token)

    # --- writing, here alone -------------------------------------------------------------------------------------

    def insert(self, table: str, row: Row) -> str:
        key = (table, row.pk, row.rk)
        deleted = key in self._rows
        if self.get(*key) is not None:
            raise RowExists
        if deleted:
            return self._keep(table, row)
        made = Row(row.pk, row.rk, row.values, f"plan-{next(self._etags)}")
        # Atomic: of threads that claim one key at once one has it, as in the store.
        if self._rows.setdefault(key, made) is not made:
            raise RowExists
        self._journal.append((key, None, False))
        return made.etag

    def replace(self, table: str, row: Row, etag: str = "*") -> str:
        self._check((table, row.pk, row.rk), etag, 0)
        return self._keep(table, row)

    def upsert(self, table: str, row: Row) -> str:
        self._refuse_met((table, row.pk, row.rk))
        return self._keep(table, row)

    def delete(self, table: str, pk: str, rk: str, etag: str = "*") -> None:
        key = (table, pk, rk)
        if etag != "*":
            self._check(key, etag, 0)
        self._set(key, None)

    def transact(self, table: str, operations: Sequence[Operation]) -> list[str]:
        for index, each in enumerate(operations):
            key = (table, each.row.pk, each.row.rk)
            if each.kind == "insert":
                if self._rows.get(key) is not None:
                    raise RowExists(index)
            elif each.kind != "upsert" and (each.kind == "replace" or each.etag != "*"):
                self._check(key, each.etag, index)
        etags = []
        for each in operations:
            if each.kind == "delete":
                self._set((table, each.row.pk, each.row.rk), None)
                etags.append("")
            else:
                etags.append(self._keep(table, each.row))
        return etags

    def _keep(self, table: str, row: Row) -> str:
        etag = f"plan-{next(self._etags)}"
        self._set((table, row.pk, row.rk), Row(row.pk, row.rk, row.values, etag))
        return etag

    def _set(self, key: Key, row: Row | None) -> None:
        self._journal.append((key, self._rows.get(key), key in self._rows))
        self._rows[key] = row

    def _check(self, key: Key, etag: str, index: int) -> None:
        if key not in self._rows:
            self._refuse_met(key)
            return
        row = self._rows[key]
        if row is None or etag not in ("*", row.etag):
            raise RowChanged(index)

    def _refuse_met(self, key: Key) -> None:
        if any(each in self._met for each in _names(key)):
            raise Follows


class _Lenient:
    """A view of an overlay; what is written is written there."""

    def __init__(self, overlay: Overlay) -> None:
        self._overlay = overlay

    def get(self, table: str, pk: str, rk: str) -> Row | None:
        return self._overlay.leads(table, pk, rk)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._overlay, name)


def _is_within(its: str, pk: str | None, pk_to: str | None) -> bool:
    if pk is None:
        return True
    return its == pk if pk_to is None else pk <= its < pk_to


def _names(key: Key) -> list[int]:
    """What a row is known by: those of records, and match keys. All others only go with them."""
    table, pk, rk = key
    if table == layout.KEYS:
        return [digest("key", pk, rk)]
    return [digest("row", rk)] if table == layout.RECORDS and rk < layout.RECORD_ROWS_END else []


def _digests(key: Key, row: Row | None) -> list[int]:
    names = _names(key)
    if names and row is not None and row.values.get("kind") == "redirect":
        names.append(digest("lead", key[2]))
    return names


class Unsent:
    """`Queue` that sends nothing."""

    def send(self, queue: str, body: str, delay: float = 0.0) -> None:
        """Nobody is told."""

    def probe(self, queue: str) -> Any:
        raise NotImplementedError(queue)
