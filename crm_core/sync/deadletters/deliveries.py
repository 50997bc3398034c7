"""Deliveries that have failed: the receiver refused each attempt, or no message could be made of the event.

A list costs a query for each connection that delivers, and a point read for each delivery.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from crm_core.errors import Conflict, NotFound
from crm_core.model.connection import Tenant
from crm_core.model.entities import ENTITIES
from crm_core.ports import RowChanged
from crm_core.storage import layout
from crm_core.storage.deliveries import Delivery
from crm_core.sync import redeliver
from crm_core.sync.deadletters.base import HUB, Place, Waiting, Wanted
from crm_core.sync.engine import Engine

KIND = "delivery"
NO_MESSAGE, NO_ANSWER = "NoMessage", "NoAnswer"


@dataclass
class FailedDeliveries:
    engine: Engine
    tenant: Tenant
    by: str = ""

    def page(self, wanted: Wanted, place: Place, top: int) -> tuple[list[Waiting], Place | None]:
        known = [wanted.uid] if wanted.uid else self._receivers()
        uids = [uid for uid in known if uid >= place.get("connection", "")]
        found: list[Waiting] = []
        token: str | None = place.get("token") if uids and uids[0] == place.get("connection") else None
        for uid in uids:
            ids, token = self.engine.deliveries.failed(
                self.tenant, uid, top=max(1, top - len(found)), token=token
            )
            gets = self.engine.pool.map(partial(self._get, uid), ids)
            found += [each for each in gets if each is not None and wanted.has(each)]
            if token is not None:
                return found, {"connection": uid, "token": token}
            if len(found) >= top and uid != uids[-1]:
                return found, {"connection": uids[uids.index(uid) + 1]}
        return found, None

    def find(self, waiting_id: str) -> Waiting | None:
        kind, _, rest = waiting_id.partition("~")
        if kind != KIND:
            return None
        delivery = self._delivery(*rest.partition("~")[::2])
        whole = self.engine.deliveries.whole(delivery)
        return replace(
            _waiting(rest.partition("~")[0], delivery), payload=whole.body.decode("utf-8", "replace")
        )

    def plan(self, waiting: Waiting) -> Mapping[str, Any]:
        delivery = self._delivery(waiting.connection, waiting.about["delivery"])
        return {
            "would": "send it again, by the whole schedule",
            "entity": delivery.entity,
            "record": delivery.record,
            "version": delivery.version,
            "event": delivery.kind,
        }

    def replay(self, waiting: Waiting) -> None:
        delivery = self._delivery(waiting.connection, waiting.about["delivery"])
        redeliver.replay(self.engine, self.tenant, waiting.connection, delivery)

    def discard(self, waiting: Waiting, reason: str) -> None:
        delivery = self._delivery(waiting.connection, waiting.about["delivery"])
        outcome = f"discarded by {self.by or HUB}: {reason}"
        given_up = replace(delivery, state="discarded", due="", outcome=outcome)
        try:
            self.engine.deliveries.save(self.tenant, waiting.connection, delivery, given_up)
        except RowChanged:
            raise Conflict("Somebody else has just decided about the delivery; look at it again.") from None

    def edit(self, waiting: Waiting, payload: str) -> Waiting:  # noqa: ARG002  # as `Source` has it
        raise Conflict(
            "What a delivery says is what the record was: correct the mapping and replay it, or discard it."
        )

    def finish(self) -> None:
        """Nothing is put off."""

    def _receivers(self) -> list[str]:
        sides = (self.engine.sides(self.tenant, entity) for entity in ENTITIES)
        return sorted({uid for each in sides for uid, side in each.items() if side.delivers})

    def _get(self, uid: str, delivery_id: str) -> Waiting | None:
        found = self.engine.deliveries.get(self.tenant, uid, delivery_id)
        return _waiting(uid, found) if found is not None and found.state == "failed" else None

    def _delivery(self, uid: str, delivery_id: str) -> Delivery:
        good = layout.is_delivery_id(delivery_id)
        found = self.engine.deliveries.get(self.tenant, uid, delivery_id) if good else None
        if found is None or found.state != "failed":
            raise NotFound(
                f"The delivery '{delivery_id}' does not wait; GET /api/deliveries shows what became of it."
            )
        return found


def _waiting(uid: str, delivery: Delivery) -> Waiting:
    last = delivery.attempts[-1] if delivery.attempts else None
    code = NO_MESSAGE if last is None else f"Status{last.status}" if last.status else NO_ANSWER
    words = last.words if last is not None and last.words else delivery.outcome
    return Waiting(
        f"{KIND}~{uid}~{delivery.id}", KIND, uid, delivery.entity, code, "", words,
        last.time if last is not None else delivery.time, ("replay", "discard"),
        {
            "delivery": delivery.id, "record": delivery.record, "version": delivery.version,
            "event": delivery.kind, "outcome": delivery.outcome,
        },
    )  # fmt: skip
