"""Rows of a fake system: tables under one ordered version, with a clock, late commits and transactions.

Knows no vendor. In memory; ``Store.dump`` and ``Store.load`` are for the file that keeps it between runs.
"""

import bisect
import heapq
import itertools
import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

Values = dict[str, Any]


class Clock:
    """The time of one sandbox: the machine's by default; it can be set, advanced and frozen."""

    def __init__(self, source: Callable[[], float] = time.time) -> None:
        self._source = source
        self._offset = 0.0
        self._frozen: float | None = None

    def seconds(self) -> float:
        return self._frozen if self._frozen is not None else self._source() + self._offset

    def now(self) -> datetime:
        return datetime.fromtimestamp(self.seconds(), UTC)

    def set(self, at: datetime, *, frozen: bool = False) -> None:
        self._offset = at.timestamp() - self._source()
        self._frozen = at.timestamp() if frozen else None

    def advance(self, seconds: float) -> None:
        self._offset += seconds
        if self._frozen is not None:
            self._frozen += seconds

    def real(self) -> None:
        self._offset, self._frozen = 0.0, None

    @property
    def frozen(self) -> bool:
        return self._frozen is not None


@dataclass(frozen=True, slots=True)
class Row:
    """One row as of its last commit. Never changed in place: a write makes a new one."""

    id: str
    values: Values
    version: int
    created: datetime
    modified: datetime


@dataclass(frozen=True, slots=True)
class Dead:
    """What is remembered of a deleted row."""

    id: str
    version: int
    at: datetime


class Table:
    """The rows of one table, who was deleted, and the order in which they changed."""

    def __init__(self) -> None:
        self.rows: dict[str, Row] = {}
        self.dead: dict[str, Dead] = {}
        self.generation = 0  # moves with every commit: caches of results hang on it
        self._log: list[
            tuple[int, str]
        ] = []  # (version, id), ascending; an entry counts if the row still has it
        self._ids: list[str] | None = None
        self._indexes: dict[str, dict[Any, dict[str, None]]] = {}  # column -> value -> ids of rows

    def where(self, column: str, value: Any) -> list[Row]:
        """The rows with that value, in the order in which they came to have it; from an index, made when first asked."""
        if column not in self._indexes:
            index: dict[Any, dict[str, None]] = {}
            for row in self.rows.values():
                index.setdefault(row.values.get(column), {})[row.id] = None
            self._indexes[column] = index
        return [self.rows[key] for key in self._indexes[column].get(value, ())]

    def _index(self, key: str, old: Row | None, new: Row | None) -> None:
        for column, index in self._indexes.items():
            before = None if old is None else (old.values.get(column),)
            after = None if new is None else (new.values.get(column),)
            if before == after:
                continue
            if before is not None:
                index[before[0]].pop(key)
            if after is not None:
                index.setdefault(after[0], {})[key] = None

    def ids(self) -> list[str]:
        """All ids, sorted (numbers as such); kept until a row comes or goes."""
        if self._ids is None:
            self._ids = sorted(self.rows, key=lambda key: (len(key), key))
        return self._ids

    def put(self, row: Row) -> None:
        old = self.rows.get(row.id)
        if old is None:
            self._ids = None
        self.rows[row.id] = row
        self._index(row.id, old, row)
        self.dead.pop(row.id, None)
        self._append(row.version, row.id)

    def remove(self, dead: Dead) -> None:
        old = self.rows.pop(dead.id, None)
        if old is not None:
            self._ids = None
            self._index(dead.id, old, None)
        self.dead[dead.id] = dead
        self._append(dead.version, dead.id)

    def restore(self, key: str, row: Row | None, dead: Dead | None) -> None:
        """Put one id back to what it was before a transaction that failed."""
        self._index(key, self.rows.pop(key, None), row)
        self.dead.pop(key, None)
        if row is not None:
            self.rows[key] = row
            bisect.insort(self._log, (row.version, key))
        if dead is not None:
            self.dead[key] = dead
            bisect.insort(self._log, (dead.version, key))
        self._ids = None
        self.generation += 1

    def changes(self, since: int, upto: int) -> tuple[list[Row], list[Dead]]:
        """Rows and deletes whose last change has a version in (since, upto], each by version."""
        rows: list[Row] = []
        dead: list[Dead] = []
        start = bisect.bisect_right(self._log, (since, "\U0010ffff"))
        last = None
        for entry in itertools.islice(self._log, start, None):
            version, key = entry
            if version > upto:
                break
            if entry == last:  # put back by a rollback
                continue
            last = entry
            row, gone = self.rows.get(key), self.dead.get(key)
            if row is not None and row.version == version:
                rows.append(row)
            elif gone is not None and gone.version == version:
                dead.append(gone)
        return rows, dead

    def _append(self, version: int, key: str) -> None:
        self.generation += 1
        self._log.append((version, key))
        if len(self._log) > 1000 + 4 * (len(self.rows) + len(self.dead)):
            self._log = sorted(
                [(r.version, r.id) for r in self.rows.values()]
                + [(d.version, d.id) for d in self.dead.values()]
            )


Apply = Callable[[], object]
Watch = Callable[[str, Row | None, Row | None], None]
"""Told of each row after it was committed: its table, the row before and after (None: there was none, or it is gone)."""


class Store:
    """All tables under one ordered version, as a database has it.

    A write with ``lag`` commits later: until then nobody sees it, then it appears with the time at which it was
    begun, so older than rows that are visible already, and with the next version (versions follow commits).
    """

    def __init__(
        self,
        clock: Clock,
        stamp: Callable[[str, Row], None] | None = None,
        first: int = 999_900,
        views: dict[str, tuple[str, ...]] | None = None,
    ) -> None:
        self.clock = clock
        self._views = views or {}
        self._seen: dict[str, tuple[int, Table]] = {}  # views as of a version
        # Starts just below a power of ten, so that whoever compares versions as text is found out soon.
        self.version = self._first = first
        self.tables: dict[str, Table] = {}
        self._stamp = stamp or (lambda _table, _row: None)
        self._pending: list[tuple[float, int, Apply]] = []
        self._order = itertools.count()
        self._undo: list[Apply] | None = None
        self.watch: Watch | None = None
        self._told: list[tuple[str, Row | None, Row | None]] = []

    def table(self, name: str) -> Table:
        """The table as everybody sees it now: commits first what is due."""
        while self._pending and self._pending[0][0] <= self.clock.seconds():
            heapq.heappop(self._pending)[2]()
        if name in self._views:
            return self._view(name)
        return self.tables.setdefault(name, Table())

    def _view(self, name: str) -> Table:
        """The rows of several tables as one, to read only; made anew when something has been written."""
        version, view = self._seen.get(name, (-1, Table()))
        if version != self.version:
            view = Table()
            for table in self._views[name]:
                view.rows |= self.tables.setdefault(table, Table()).rows
            self._seen[name] = self.version, view
        return view

    def get(self, table: str, key: str) -> Row | None:
        return self.table(table).rows.get(key)

    def write(
        self,
        table: str,
        key: str,
        patch: Values,
        *,
        at: datetime | None = None,
        created: datetime | None = None,
        lag: float = 0.0,
    ) -> Row | None:
        """Create or change a row; gives it as committed, or None while it is still on its way."""
        begun = at or self.clock.now()
        if lag > 0:
            self.later(lag, lambda: self._commit(table, key, patch, begun, created))
            return None
        return self._commit(table, key, patch, begun, created)

    def delete(self, table: str, key: str, *, lag: float = 0.0) -> None:
        begun = self.clock.now()
        if lag > 0:
            self.later(lag, lambda: self._remove(table, key, begun))
        else:
            self._remove(table, key, begun)

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Everything written inside happens, or nothing if an exception leaves it; an inner one joins the outer."""
        if self._undo is not None:
            yield
            return
        self._undo = []
        try:
            yield
        except BaseException:
            undo, self._undo = self._undo, None
            for step in reversed(undo):
                step()
            self._told.clear()
            self.version += 1  # what was computed for a version that was undone must not be found again
            raise
        finally:
            self._undo = None
        self._tell()

    @contextmanager
    def savepoint(self) -> Iterator[None]:
        """A part of a transaction that can fail by itself: an exception that leaves it undoes what was written inside."""
        if self._undo is None:
            with self.transaction():
                yield
            return
        mark, told = len(self._undo), len(self._told)
        try:
            yield
        except BaseException:
            while len(self._undo) > mark:
                self._undo.pop()()
            del self._told[told:]
            self.version += 1
            raise

    def clear(self) -> None:
        self.tables.clear()
        self._pending.clear()
        self._seen.clear()

    def later(self, lag: float, apply: Apply) -> None:
        """Do something when a write with this lag commits, after it."""
        heapq.heappush(self._pending, (self.clock.seconds() + lag, next(self._order), apply))

    def _remember(self, table: str, key: str) -> None:
        if self._undo is not None:
            where = self.tables.setdefault(table, Table())
            old, dead = where.rows.get(key), where.dead.get(key)
            self._undo.append(lambda: where.restore(key, old, dead))

    def _changed(self, table: str, old: Row | None, new: Row | None) -> None:
        if self.watch is not None:
            self._told.append((table, old, new))
            if self._undo is None:
                self._tell()

    def _tell(self) -> None:
        told, self._told = self._told, []
        for each in told:
            assert self.watch is not None
            self.watch(*each)

    def _commit(self, table: str, key: str, patch: Values, begun: datetime, created: datetime | None) -> Row:
        self._remember(table, key)
        where = self.tables.setdefault(table, Table())
        old = where.rows.get(key)
        self.version += 1
        if old is None:
            row = Row(key, dict(patch), self.version, created or begun, begun)
        else:
            # A row locked by a slower writer would have waited: its time never runs backwards.
            row = Row(key, {**old.values, **patch}, self.version, old.created, max(old.modified, begun))
        self._stamp(table, row)
        where.put(row)
        self._changed(table, old, row)
        return row

    def _remove(self, table: str, key: str, begun: datetime) -> None:
        where = self.tables.setdefault(table, Table())
        if key in where.rows:
            self._remember(table, key)
            self.version += 1
            old = where.rows[key]
            where.remove(Dead(key, self.version, begun))
            self._changed(table, old, None)

    def dump(self) -> Values:
        """All that has committed, as JSON values (see ``to_json``)."""
        return {
            "version": self.version,
            "tables": {
                name: {
                    "rows": [
                        [r.id, r.values, r.version, r.created.isoformat(), r.modified.isoformat()]
                        for r in t.rows.values()
                    ],
                    "dead": [[d.id, d.version, d.at.isoformat()] for d in t.dead.values()],
                }
                for name, t in self.tables.items()
            },
        }

    def load(self, state: Values) -> None:
        """The inverse of ``dump``."""
        self.clear()
        self.version = state["version"]
        for name, saved in state["tables"].items():
            table = self.tables.setdefault(name, Table())
            rows = [
                Row(i, v, n, datetime.fromisoformat(c), datetime.fromisoformat(m))
                for i, v, n, c, m in saved["rows"]
            ]
            dead = [Dead(i, n, datetime.fromisoformat(a)) for i, n, a in saved["dead"]]
            things: list[Row | Dead] = [*rows, *dead]
            for thing in sorted(things, key=lambda x: x.version):
                if isinstance(thing, Row):
                    table.put(thing)
                else:
                    table.remove(thing)


def to_json(value: Any) -> str:
    """JSON text that keeps decimals exact; ``from_json`` reads it back."""
    return json.dumps(
        value,
        ensure_ascii=False,
        default=lambda v: {"$decimal": str(v)} if isinstance(v, Decimal) else str(v),
    )


def from_json(text: str) -> Any:
    return json.loads(text, object_hook=lambda d: Decimal(d["$decimal"]) if d.keys() == {"$decimal"} else d)
