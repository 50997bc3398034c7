"""What is new: by delta link where a table tracks changes, else by modifiedon.

Source: Microsoft's "Use change tracking to synchronize data with external systems".
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any
from urllib.parse import parse_qsl

from crm_core.connector import Change, Cursor, Page
from crm_core.connectors.dynamics365 import kinds
from crm_core.connectors.dynamics365.client import Client, Options, following_of, json_of, prefer, rows_of
from crm_core.connectors.dynamics365.reading import MAX_PAGE, Reader, select_of
from crm_core.connectors.dynamics365.tables.common import SYSTEM, Table
from crm_core.errors import CursorExpired, NotSupported, RecordGone, Rejected
from crm_core.model.fields import instant_text
from crm_core.model.filters import Node
from crm_core.ports import Clock
from crm_core.protocols.delta import overlapping, recent, server_time

OVERLAP = timedelta(minutes=5)
"""How far the feed by modifiedon reads back: rows committed late bear an earlier time."""
EARLIEST = "1753-01-01T00:00:00Z"
"""Dataverse takes no earlier time."""
MAP = "map"
"""Of a cursor: the mark of the map that it was read by, if that has overrides."""


class Feed:
    """The changes of one table at a time; of a table with kinds, those of each of their tables in turn."""

    def __init__(self, client: Client, reader: Reader, clock: Clock) -> None:
        self._client = client
        self._reader = reader
        self._clock = clock

    def begin(self, table: Table, since: str, where: Node | None) -> Cursor:
        """Where a run begins that reads only what was modified since a time ("": ever) and passes a filter."""
        if table.mark:
            return {**self.begin(replace(table, mark=""), since, where), MAP: table.mark}
        if table.kinds:
            parts = {
                own.remote: self.begin(own, since, kinds.of_one(where, table, own) if where else None)
                for own in table.kinds.values()
            }
            return _turns(table, parts)
        return {"since": since, "seen": {}, "filter": self._reader.filter(table, where) if where else ""}

    def changes(self, table: Table, cursor: Cursor | None, size: int) -> Page:
        """Raises CursorExpired for a place that was reached with another map: what was read by that reads otherwise."""
        if cursor is not None and cursor.get(MAP, "") != table.mark:
            raise CursorExpired(f"The mapping of {table.entity.name} is another one now.", system=SYSTEM)
        page = self._changes(table, cursor, size)
        if not table.mark or page.cursor is None:
            return page
        return replace(page, cursor={**page.cursor, MAP: table.mark})

    def _changes(self, table: Table, cursor: Cursor | None, size: int) -> Page:
        """Cursors: {"delta": query of the delta or next link}, or {"since", "seen"} with {"next", "newest"} between
        pages and {"filter"} where only some rows are wanted; of a table with kinds {"tables": theirs, "turn": whose}.
        """
        if table.kinds:
            return self._in_turn(table, cursor, size)
        try:
            if cursor is None:
                return self._first(table, size)
            _check_columns(table, str(cursor.get("delta") or cursor.get("next") or ""))
            if "delta" in cursor:
                return self._tracked(table, str(cursor["delta"]), size)
            return self._by_time(table, cursor, size)
        except (Rejected, RecordGone) as error:
            if cursor is None or not ({"delta", "next"} & cursor.keys()):
                raise
            # The vendor names no code for a token out of its window (default 7 days); what else a link of its own
            # could be refused for shows again when the full run asks afresh.
            raise CursorExpired(error.message, system=SYSTEM, vendor_status=error.vendor_status) from None

    def _in_turn(self, table: Table, cursor: Cursor | None, size: int) -> Page:
        at = cursor if cursor is not None else _turns(table, {})
        turn = str(at.get("turn"))
        order = [each.remote for each in table.kinds.values()]
        if turn not in order:  # code of another version wrote it
            raise CursorExpired(
                f"This place in the feed is of no table of {table.entity.name}.", system=SYSTEM
            )
        tables = dict(at["tables"])
        while True:
            own = next(each for each in table.kinds.values() if each.remote == turn)
            page = self.changes(own, tables.get(turn), size)
            tables[turn] = page.cursor
            last = turn == order[-1]
            if not page.more:
                turn = order[0] if last else order[order.index(turn) + 1]
            # A kind without news is no page of its own, so that a pull with nothing new is one.
            if page.changes or page.more or last:
                return Page(page.changes, {"tables": tables, "turn": turn}, more=page.more or not last)

    def _first(self, table: Table, size: int) -> Page:
        options = [("$select", ",".join(select_of(table)))]
        try:
            return self._tracked(table, options, size)
        except (Rejected, NotSupported):
            return self._by_time(table, {"since": "", "seen": {}}, size)  # the table does not track changes

    def _tracked(self, table: Table, options: Options, size: int) -> Page:
        headers = prefer([table], "odata.track-changes", f"odata.maxpagesize={min(size, MAX_PAGE)}")
        body = self._client.json("GET", table.remote, query=options, headers=headers)
        changes = self._entries(table, rows_of(body))
        following = following_of(body.get("@odata.nextLink"), table.remote)
        if following:
            return Page(changes, {"delta": following}, more=True)
        delta = following_of(body.get("@odata.deltaLink"), table.remote)
        if delta:
            return Page(changes, {"delta": delta}, more=False)
        # A server that does not track changes may just leave the link out; the order by time is safe to go on from.
        return Page(changes, {"since": "", "seen": {}}, more=True)

    def _entries(self, table: Table, rows: Sequence[Mapping[str, Any]]) -> list[Change]:
        deleted: list[Change] = []
        alive: list[Mapping[str, Any]] = []
        for row in rows:
            if "@odata.context" in row and str(row["@odata.context"]).endswith("/$deletedEntity"):
                deleted.append(Change(str(row["id"]).lower(), None))
            else:
                alive.append(row)
        # Deletes come after all that is alive, as the vendor sends them.
        return [*self._reader.changes(table, alive, raw=False), *deleted]

    def _by_time(self, table: Table, cursor: Cursor, size: int) -> Page:
        """Ordered by (modifiedon, id), from `since` less the overlap; rows that the cursor has seen are dropped."""
        since, seen = str(cursor["since"]), dict(cursor["seen"])
        where = str(cursor.get("filter") or "")
        options: Options = str(cursor["next"]) if "next" in cursor else _ordered(table, since, where)
        headers = prefer([table], f"odata.maxpagesize={min(size, MAX_PAGE)}")
        answer = self._client.call("GET", table.remote, query=options, headers=headers)
        body = json_of(answer, "GET")
        read = self._reader.changes(table, rows_of(body), raw=False)
        now = server_time(answer) or instant_text(self._clock.now().replace(microsecond=0))
        began = str(cursor.get("began") or now)
        # A row with a time in the future must not carry the cursor over all that comes until then.
        times = (change.modified for change in read if change.modified <= now)
        newest = max([str(cursor.get("newest") or since), *times])
        fresh = [change for change in read if seen.get(change.rid, ("",))[0] != change.version]
        seen |= {change.rid: (change.version, change.modified) for change in read}
        following = following_of(body.get("@odata.nextLink"), table.remote)
        kept = recent(seen, _overlapping(newest))
        asked = {"filter": where} if where else {}
        if following:
            paging = {"next": following, "since": since, "newest": newest, "seen": kept, "began": began}
            return Page(fresh, {**paging, **asked}, more=True)
        if newest and newest == since:
            # Nothing newer came: go on from the server's own time, or a burst would be read again until an edit.
            newest = max(newest, min(began, server_time(answer)))
        # Pages take their time: what was committed late after the first of them must lie in the next overlap.
        newest = max(since, min(newest, began))
        kept = recent(seen, _overlapping(newest))
        return Page(fresh, {"since": newest, "seen": kept, **asked}, more=False)


def _check_columns(table: Table, link: str) -> None:
    """Raises CursorExpired for a link that older code asked for, if it lacks columns that are read now: a field that
    it does not bring would look empty.
    """
    selected = dict(parse_qsl(link)).get("$select")
    if selected is not None and not set(select_of(table)) <= set(selected.split(",")):
        raise CursorExpired(f"More columns of {table.remote} are read now.", system=SYSTEM)


def _ordered(table: Table, since: str, where: str) -> list[tuple[str, str]]:
    options = [
        ("$select", ",".join(select_of(table))),
        ("$orderby", f"{table.modified} asc,{table.key} asc"),
    ]
    terms = [f"({where})"] if where else []
    if since:
        terms.append(f"{table.modified} ge {_overlapping(since)}")
    return [*options, ("$filter", " and ".join(terms))] if terms else options


def _overlapping(time: str) -> str:
    """Where the overlap before a time begins, "" for ever."""
    return overlapping(time, OVERLAP, EARLIEST) if time else ""


def _turns(table: Table, tables: Mapping[str, Cursor]) -> Cursor:
    return {"tables": tables, "turn": next(iter(table.kinds.values())).remote}
