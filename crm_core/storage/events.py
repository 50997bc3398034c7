"""Webhooks that came in: a row each, with what came, until its work is done and after.

In the partition of its connection an event has its own row and, while its work is open, another one by which the tick
finds it. Both change in one transaction. A change that its system names is remembered once it is done, so that a repeat
of it is known; what is merely open is worked on again.
"""

import base64
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from crm_core.model.connection import Tenant
from crm_core.ports import Blob, Operation, Row, RowChanged, RowExists, Table, every_row
from crm_core.storage import layout
from crm_core.storage.ageing import PAGE_ROWS, drop
from crm_core.storage.state import json_data, json_values

State = Literal["open", "done", "dead"]


@dataclass(frozen=True)
class Inbound:
    """A verified webhook. `time`: when it came. `proof`: the fingerprint of the secret that proved it. `headers`: those
    that are kept. `blob`: where the body is, if it is too long for a message. `outcome`: once it is done, what came of
    it, and `change`: by what a repeat is known.
    """

    id: str
    time: str
    proof: str
    headers: Mapping[str, str] = field(repr=False)
    body: bytes = field(repr=False)
    blob: str = ""
    state: State = "open"
    outcome: str = ""
    change: str = ""
    etag: str = field(default="", compare=False)

    def to_message(self) -> dict[str, Any]:
        """The body as text if it is UTF-8, else in base64."""
        data: dict[str, Any] = {
            "id": self.id,
            "time": self.time,
            "proof": self.proof,
            "headers": dict(self.headers),
        }
        if self.blob:
            return {**data, "blob": self.blob}
        try:
            return {**data, "text": self.body.decode()}
        except UnicodeDecodeError:
            return {**data, "base64": base64.b64encode(self.body).decode()}

    @classmethod
    def from_message(cls, data: Mapping[str, Any]) -> "Inbound":
        """Without its body if that is in a blob."""
        body = base64.b64decode(data["base64"]) if "base64" in data else data.get("text", "").encode()
        return cls(data["id"], data["time"], data["proof"], data["headers"], body, data.get("blob", ""))


class Events:
    def __init__(self, table: Table, blob: Blob) -> None:
        self._table = table
        self._blob = blob

    def open(self, tenant: Tenant, connection: str, event: Inbound) -> Inbound:
        """As it is stored: one that is there already may be done."""
        pk = layout.event_pk(tenant, connection)
        first = Operation("insert", _row(pk, event))
        index = Operation("insert", Row(pk, layout.OPEN + event.id, json_values({"time": event.time})))
        try:
            return replace(event, etag=self._table.transact(layout.EVENTS, [first, index])[0])
        except RowExists:
            present = self.get(tenant, connection, event.id)
            return present or replace(event, state="done")  # only what is done, and old, is ever deleted

    def get(self, tenant: Tenant, connection: str, event_id: str) -> Inbound | None:
        """Without its body if that is in a blob."""
        row = self._table.get(layout.EVENTS, layout.event_pk(tenant, connection), layout.EVENT + event_id)
        return _event(row) if row else None

    def reopen(self, tenant: Tenant, connection: str, event: Inbound) -> None:
        """Its work is open again. RowChanged if somebody else has just changed it."""
        pk = layout.event_pk(tenant, connection)
        first = Operation("replace", _row(pk, replace(event, state="open", outcome="")), event.etag)
        index = Operation("upsert", Row(pk, layout.OPEN + event.id, json_values({"time": event.time})))
        self._table.transact(layout.EVENTS, [first, index])

    def whole(self, event: Inbound) -> Inbound:
        """With its body, wherever that is."""
        return replace(event, body=self._blob.get(event.blob) or b"") if event.blob else event

    def page(
        self, tenant: Tenant, connection: str, *, top: int, token: str | None
    ) -> tuple[list[Inbound], str | None]:
        """Newest first, without the bodies that are in blobs."""
        page = self._table.query(
            layout.EVENTS, pk=layout.event_pk(tenant, connection),
            rk=layout.EVENT, rk_to=layout.EVENT + layout.AFTER, top=top, token=token,
        )  # fmt: skip
        return [_event(row) for row in page.rows], page.token

    def drop_old(self, tenant: Tenant, connection: str, before: int, token: str | None) -> str | None:
        """Deletes what is done of a page of the events that came before a time (epoch milliseconds), and what knew repeats
        of them; gives the next page. Those that are open or dead stay.
        """
        pk = layout.event_pk(tenant, connection)
        page = self._table.query(
            layout.EVENTS, pk=pk, rk=layout.EVENT + layout.newest_first_from(before), rk_to=layout.EVENT + layout.AFTER,
            top=PAGE_ROWS, token=token, select=["json"],
        )  # fmt: skip
        told = [(row, data) for row in page.rows if (data := json_data(row))["state"] == "done"]
        beside = {row.rk: layout.SEEN + data["change"] for row, data in told if data.get("change")}
        gone = drop(self._table, layout.EVENTS, [row for row, _ in told], beside)
        for row, data in told:
            if data["blob"] and row.rk in gone:
                self._blob.delete(data["blob"])
        return page.token

    def waiting(self, tenant: Tenant, connection: str, before: str) -> Iterator[str]:
        """The ids of events that came before a time and whose work is not done."""
        pk = layout.event_pk(tenant, connection)
        rows = every_row(self._table, layout.EVENTS, pk=pk, rk=layout.OPEN, rk_to=layout.OPEN + layout.AFTER)
        for row in rows:
            if json_data(row)["time"] < before:
                yield row.rk.removeprefix(layout.OPEN)

    def is_done(self, tenant: Tenant, connection: str, change: str) -> bool:
        """Whether a change that its system names was worked on to the end."""
        row = self._table.get(layout.EVENTS, layout.event_pk(tenant, connection), layout.SEEN + change)
        return row is not None

    def end(
        self, tenant: Tenant, connection: str, event: Inbound, state: State, outcome: str, change: str = ""
    ) -> None:
        """Closes an event, whether its row was opened or not. `change`: what is done with it, by which repeats are known."""
        pk = layout.event_pk(tenant, connection)
        ended = replace(event, state=state, outcome=outcome, change=change)
        operations = [Operation("upsert", _row(pk, ended))]
        if change:
            operations.append(
                Operation("upsert", Row(pk, layout.SEEN + change, json_values({"id": event.id})))
            )
        index = Operation("delete", Row(pk, layout.OPEN + event.id))
        try:
            self._table.transact(layout.EVENTS, [*operations, index])
        except RowChanged:  # it was never opened, or another worker has ended it
            self._table.transact(layout.EVENTS, operations)


def _row(pk: str, event: Inbound) -> Row:
    """The body as bytes of its own: as text it would take twice the place."""
    data = {
        "id": event.id,
        "time": event.time,
        "proof": event.proof,
        "headers": dict(event.headers),
        "blob": event.blob,
        "state": event.state,
        "outcome": event.outcome,
        **({"change": event.change} if event.change else {}),
    }
    body = {} if event.blob else {"body": event.body}
    return Row(pk, layout.EVENT + event.id, {**json_values(data), **body})


def _event(row: Row) -> Inbound:
    data = json_data(row)
    body = row.values.get("body", b"")
    assert isinstance(body, bytes)
    return Inbound(
        data["id"], data["time"], data["proof"], data["headers"], body, data["blob"],
        data["state"], data["outcome"], data.get("change", ""), row.etag,
    )  # fmt: skip
