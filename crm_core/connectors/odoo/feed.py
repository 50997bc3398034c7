"""What is new, by write_date: a fixed window that is paged by id, which laps over what was read before.

What Odoo does that this answers to (seen of 19.0): write_date is the time at which the transaction began, so a row may
become visible minutes later under an older time; it is kept by microseconds and told by seconds, so neither `>` nor a
place (write_date, id) finds all of one second; it moves with writes that change nothing. There are no tombstones: what
was deleted shows in a full run only, which compares ids.
"""

import hashlib
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from crm_core.connector import Change, Cursor, Page
from crm_core.connectors.odoo.client import Client
from crm_core.connectors.odoo.domains import joined, whole
from crm_core.connectors.odoo.marking import Markers
from crm_core.connectors.odoo.models.common import SYSTEM, Model
from crm_core.connectors.odoo.reading import MAX_PAGE, Reader
from crm_core.errors import CursorExpired
from crm_core.model.fields import instant_text, parse_instant
from crm_core.model.filters import Node
from crm_core.model.json_text import dump_json
from crm_core.ports import Clock
from crm_core.protocols.delta import overlapping, recent

OVERLAP = timedelta(seconds=120)
"""How far the feed reads back: transactions of this length are not missed."""
EARLIEST = "1970-01-01T00:00:00Z"
MAP = "map"
"""Of a cursor: the mark of the map that it was read by, if that has overrides."""


class Feed:
    """The changes of one entity at a time. A cursor is {"since", "seen"}, between pages {"after", "began", "newest"}
    besides, and {"filter"} where only some rows are wanted.
    """

    def __init__(self, client: Client, reader: Reader, markers: Markers, clock: Clock) -> None:
        self._client = client
        self._reader = reader
        self._markers = markers
        self._clock = clock

    def begin(self, model: Model, since: str, where: Node | None) -> Cursor:
        cursor = {"since": since, "from": since, "seen": {}, **({MAP: model.mark} if model.mark else {})}
        return {**cursor, "filter": self._reader.filter(model, where)} if where is not None else cursor

    def changes(self, model: Model, cursor: Cursor | None, size: int) -> Page:
        """Raises CursorExpired for a place that was reached with another map."""
        at: Mapping[str, Any] = cursor if cursor is not None else {"since": "", "seen": {}}
        if cursor is not None and cursor.get(MAP, "") != model.mark:
            raise CursorExpired(f"The mapping of {model.entity.name} is another one now.", system=SYSTEM)
        since, seen = str(at["since"]), dict(at["seen"])
        limit = min(size, MAX_PAGE)
        fields = [*self._reader.select_of(model), "create_uid"]
        rows = self._reader.rows(model, self._window(model, at), fields, limit=limit + 1)
        now = self._client.server_time or instant_text(self._clock.now().replace(microsecond=0))
        began = str(at.get("began") or now)
        more, rows = len(rows) > limit, rows[:limit]
        marked = self._markers.of(model, rows) if rows else {}
        read = self._reader.changes(model, rows, raw=False, markers=marked)
        fresh = [change for change in read if seen.get(change.rid, ("",))[0] != _digest(change)]
        seen |= {change.rid: (_digest(change), change.modified) for change in read}
        newest = max([str(at.get("newest") or since), *(each.modified for each in read)])
        kept = {name: at[name] for name in ("filter", MAP) if name in at} | (
            {MAP: model.mark} if model.mark else {}
        )
        if more:
            paging = {"after": rows[-1]["id"], "began": began, "newest": newest, "since": since}
            paging |= {"from": at["from"]} if "from" in at else {}
            return Page(fresh, {**kept, **paging, "seen": recent(seen, "")}, more=True)
        # What was read lies before the first page was asked for, or comes again: a row that is changed while pages are
        # read bears a time after that. Without news the place goes on with the clock, or a burst were read for ever.
        newest = began if newest in ("", since) else min(newest, began)
        newest = max(since, newest)
        return Page(fresh, {**kept, "since": newest, "seen": recent(seen, _start(newest))}, more=False)

    def _window(self, model: Model, at: Mapping[str, Any]) -> list[Any]:
        """`from`: where a run that a person asked for begins exactly; else the overlap before the place."""
        parts = [whole(model.domain)] if model.domain else []
        if at.get("filter"):
            parts.append(list(at["filter"]))
        start = str(at.get("from") or "") if "from" in at else _start(str(at["since"]))
        if start:
            moment = parse_instant(start).strftime("%Y-%m-%d %H:%M:%S")
            changed = [[[model.modified, ">=", moment]]]
            if model.lines is not None:  # a line that is changed by itself does not move its document's time
                changed.append([[f"order_line.{model.lines.modified}", ">=", moment]])
            parts.append(joined("|", changed))
        if at.get("after"):
            parts.append([["id", ">", int(at["after"])]])
        return joined("&", parts)


def _start(time: str) -> str:
    return overlapping(time, OVERLAP, EARLIEST) if time else ""


def _digest(change: Change) -> str:
    """What a row said: its time alone tells too little, since two changes of one second bear the same."""
    told = dump_json([change.version, change.problem, dict(change.fields or {})])
    return hashlib.sha256(told).hexdigest()[:12]
