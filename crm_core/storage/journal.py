"""What happened: dead letters with their cause, and figures by the minute."""

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, fields, replace
from dataclasses import field as dataclass_field
from datetime import datetime, time, timedelta

from crm_core.errors import BadRequest
from crm_core.model.connection import Tenant
from crm_core.model.fields import hub_time
from crm_core.model.record import NOTHING
from crm_core.ports import Clock, Ids, Operation, Row, RowChanged, RowExists, Table, every_row, some_rows
from crm_core.storage import layout
from crm_core.storage.state import json_data, json_values, replaced

MAX_BODY_CHARACTERS = 24_000
"""A longer body is a property of its own."""
MAX_BODY_BYTES = 60 * 1024
"""More than a message of the queue holds; what is longer all the same is cut."""
MAX_STATS_ROWS = 100_000
"""That one question about figures reads: 100 pages."""
ADD_TRIES = 5
HUB = "hub"
"""Stands for the hub's own figures where others have a connection's uid."""


@dataclass(frozen=True)
class Letter:
    """One dead letter. `code`, `field`: what it is grouped by; `cause`: in words. `body`: what came, `cut` if not all of it
    is here. `payload`: what a person made of it; `edited` {by, time}. `closed` {how, by, time, reason}: it does not wait any
    more.
    """

    id: str
    kind: str
    cause: str
    time: str
    code: str = ""
    field: str = ""
    connection: str = ""
    entity: str = ""
    rid: str = ""
    queue: str = ""
    cut: bool = False
    edited: Mapping[str, str] = NOTHING
    closed: Mapping[str, str] = NOTHING
    body: str = dataclass_field(default="", repr=False)
    payload: str | None = dataclass_field(default=None, repr=False)
    etag: str = dataclass_field(default="", compare=False)


_NAMES = tuple(each.name for each in fields(Letter) if each.name not in ("body", "payload", "etag"))


class DeadLetters:
    """Work without a record that will not succeed by itself. What is open and what is closed are apart, so that looking at
    the one reads nothing of the other.
    """

    def __init__(self, table: Table, clock: Clock, ids: Ids) -> None:
        self._table = table
        self._clock = clock
        self._ids = ids

    def add(
        self,
        tenant: Tenant,
        *,
        cause: str,
        kind: str,
        code: str,
        body: str = "",
        letter_id: str = "",
        **where: str,
    ) -> str:
        """Keeps a piece of work with its cause; `where`: field, connection, entity, rid, queue. Gives its id.

        `letter_id`: of work that has an id of this form itself; it waits once, however often it fails.
        """
        now = self._clock.now()
        letter_id = letter_id or layout.newest_first(int(now.timestamp() * 1000), self._ids.uuid())
        kept, cut = _cut(body)
        letter = Letter(letter_id, kind, cause[:1000], hub_time(now), code, cut=cut, body=kept)
        letter = replace(letter, **where)  # type: ignore[arg-type]  # names of texts
        with suppress(RowExists):
            self._table.insert(layout.DEADLETTERS, _row(tenant, letter))
        return letter_id

    def get(self, tenant: Tenant, letter_id: str) -> Letter | None:
        """Whether it waits or not."""
        for rk in (letter_id, layout.closed_letter_rk(letter_id)):
            row = self._table.get(layout.DEADLETTERS, tenant.name, rk)
            if row is not None:
                return _letter(row)
        return None

    def page(self, tenant: Tenant, *, top: int, after: str) -> tuple[list[Letter], str]:
        """Those that wait, newest first, beyond the id `after`; and where the next page begins, "" at the end. One call."""
        page = some_rows(
            self._table,
            layout.DEADLETTERS,
            pk=tenant.name,
            rk=layout.after_id(after) if after else "",
            rk_to=layout.OPEN_LETTERS_END,
            top=top,
        )
        return [_letter(row) for row in page.rows], page.rows[-1].rk if page.token else ""

    def edit(self, tenant: Tenant, letter: Letter, payload: str, by: str) -> Letter:
        """With another payload; what came stays beside it. RowChanged if somebody else has just changed it."""
        edited = replace(letter, payload=payload, edited=self._now(by=by))
        etag = replaced(self._table, layout.DEADLETTERS, _row(tenant, edited), letter.etag)
        return replace(edited, etag=etag)

    def close(self, tenant: Tenant, letter: Letter, how: str, by: str, reason: str = "") -> Letter:
        """It waits no more. RowChanged if somebody else has just changed or closed it."""
        closed = replace(letter, closed=self._now(how=how, by=by, reason=reason))
        row = _row(tenant, closed)
        kept = Operation("upsert", replace(row, rk=layout.closed_letter_rk(letter.id)))
        self._table.transact(layout.DEADLETTERS, [kept, Operation("delete", row, letter.etag)])
        return closed

    def _now(self, **what: str) -> Mapping[str, str]:
        return {**{name: value for name, value in what.items() if value}, "time": hub_time(self._clock.now())}


def _row(tenant: Tenant, letter: Letter) -> Row:
    """A long body, and a payload, as bytes of their own: as text they would take twice the place."""
    data = {name: value for name in _NAMES if (value := getattr(letter, name))}
    short = len(json.dumps(letter.body)) <= MAX_BODY_CHARACTERS
    values = json_values({**data, "body": letter.body if short else ""})
    if not short:
        values["body"] = letter.body.encode()
    if letter.payload is not None:
        values["payload"] = letter.payload.encode()
    return Row(tenant.name, letter.id, values)


def _letter(row: Row) -> Letter:
    data = json_data(row)
    body, payload = row.values.get("body"), row.values.get("payload")
    known = {name: data[name] for name in _NAMES if name in data}
    return Letter(
        **known,
        body=body.decode() if isinstance(body, bytes) else data.get("body", ""),
        payload=payload.decode() if isinstance(payload, bytes) else None,
        etag=row.etag,
    )


def _cut(body: str) -> tuple[str, bool]:
    """As much of a body as fits, and whether that is not all of it."""
    data = body.encode("utf-8", "replace")
    return data[:MAX_BODY_BYTES].decode("utf-8", "ignore"), len(data) > MAX_BODY_BYTES


class Stats:
    """Minute rollups. Each process adds its own row, so that none waits for another."""

    def __init__(self, table: Table, clock: Clock, instance: str) -> None:
        self._table = table
        self._clock = clock
        self._instance = instance

    def add(self, tenant: Tenant, connection: str, amounts: Mapping[str, int]) -> None:
        """Adds to this minute's figures of a connection ("" for the hub's own).

        Two threads of a process may add at once: under the row's ETag neither loses the other's. RowChanged: too many.
        """
        now = self._clock.now()
        pk = f"{tenant.name}~{now:%Y-%m-%d}"
        rk = f"{now:%H%M}~{connection or HUB}~{layout.quote(self._instance)}"
        for _ in range(ADD_TRIES):
            row = self._table.get(layout.STATS, pk, rk) or Row(pk, rk)
            totals = {name: int(row.values.get(name, 0)) + amount for name, amount in amounts.items()}
            with suppress(RowExists, RowChanged):
                # Not by `replaced`: two threads that add the same to the same row write the same, and one would
                # take the other's row for its own.
                if row.etag:
                    self._table.replace(layout.STATS, row.with_values(**totals), row.etag)
                else:
                    self._table.insert(layout.STATS, row.with_values(**totals))
                return
        raise RowChanged

    def read(self, tenant: Tenant, begin: datetime, end: datetime) -> dict[str, Counter[str]]:
        """The sums of the minutes from that of `begin` to that of `end`, by connection ("" for the hub's own).

        Raises BadRequest if there are too many figures for one answer.
        """
        found: dict[str, Counter[str]] = {}
        for index, row in enumerate(self._rows(tenant, begin, end)):
            if index == MAX_STATS_ROWS:
                raise BadRequest.field(
                    "minutes",
                    "minutes: this period has too many figures for one answer; ask for a shorter one.",
                )
            owner = row.rk.split("~")[1]
            amounts = {name: value for name, value in row.values.items() if isinstance(value, int)}
            found.setdefault("" if owner == HUB else owner, Counter()).update(amounts)
        return found

    def _rows(self, tenant: Tenant, begin: datetime, end: datetime) -> Iterator[Row]:
        """One partition is one day; row keys begin with the minute."""
        while begin <= end:
            last = min(end, datetime.combine(begin.date(), time.max, begin.tzinfo))
            yield from every_row(
                self._table,
                layout.STATS,
                pk=f"{tenant.name}~{begin:%Y-%m-%d}",
                rk=f"{begin:%H%M}",
                rk_to=f"{last:%H%M}~{layout.AFTER}",
            )
            begin = datetime.combine(begin.date() + timedelta(days=1), time.min, begin.tzinfo)
