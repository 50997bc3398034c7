"""What people see of deliveries, and what they have sent again."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime

from crm_core.errors import Conflict
from crm_core.model.connection import Tenant
from crm_core.model.fields import hub_time
from crm_core.ports import RowChanged
from crm_core.storage import layout
from crm_core.storage.deliveries import MAX_TOGETHER, Delivery
from crm_core.sync.engine import Engine, Job
from crm_core.sync.saving import portions

SCAN_ROWS = 200


def page(
    engine: Engine, tenant: Tenant, connection: str, state: str, *, top: int, token: str | None
) -> tuple[list[Delivery], str | None]:
    """Those in a state, or all for "", without the bodies that are in blobs; how to go on or None."""
    if state in ("open", "failed"):
        find = engine.deliveries.open if state == "open" else engine.deliveries.failed
        ids, after = find(tenant, connection, top=top, token=token)
        found = engine.pool.map(lambda each: engine.deliveries.get(tenant, connection, each), ids)
        return [each for each in found if each is not None and each.state == state], after
    rows, after = engine.deliveries.page(tenant, connection, top=top, token=token)
    return [each for each in rows if not state or each.state == state], after


def replay(engine: Engine, tenant: Tenant, connection: str, found: Delivery) -> Delivery:
    """Sends one again, whatever came of it, by the whole schedule. Raises Conflict while it is being sent."""
    refused = Conflict("The delivery is being sent; look at it again in a while.")
    if found.state == "open":
        raise refused
    try:
        (opened,) = _reopened(engine, tenant, connection, [found])
    except RowChanged:
        raise refused from None
    return opened


def replay_range(
    engine: Engine,
    tenant: Tenant,
    connection: str,
    since: datetime | None,
    until: datetime | None,
    *,
    after: str,
    failed_only: bool,
    most: int,
) -> tuple[int, str | None]:
    """Sends again what was told of versions made in a range, the newest first: (how many, None or, where there may be more
    than about `most`, the last one's id). `after`: goes on after that one. What is being sent is left alone.
    """
    newest, oldest = (layout.delivery_time(_milliseconds(each)) if each else "" for each in (until, since))
    newest = layout.after_id(after) if after else newest
    done = examined = 0
    token: str | None = None
    while True:
        if failed_only:
            ids, token = engine.deliveries.failed(
                tenant, connection, top=SCAN_ROWS, token=token, since=oldest, until=newest
            )
            gets = engine.pool.map(lambda each: engine.deliveries.get(tenant, connection, each), ids)
            found = [each for each in gets if each is not None and each.state == "failed"]
        else:
            rows, token = engine.deliveries.page(
                tenant, connection, top=SCAN_ROWS, token=token, since=oldest, until=newest
            )
            found = [each for each in rows if each.state != "open"]
        for portion in portions(found, MAX_TOGETHER):
            done += _replayed(engine, tenant, connection, portion)
            examined += len(portion)
            if examined >= most:
                return done, portion[-1].id
        if token is None:
            return done, None


def _milliseconds(moment: datetime) -> int:
    return int(moment.timestamp() * 1000)


def _replayed(engine: Engine, tenant: Tenant, connection: str, portion: Sequence[Delivery]) -> int:
    """How many; one that somebody else has just changed is left to them."""
    try:
        return len(_reopened(engine, tenant, connection, portion))
    except RowChanged:
        if len(portion) == 1:
            return 0
        return sum(_replayed(engine, tenant, connection, [each]) for each in portion)


def _reopened(engine: Engine, tenant: Tenant, connection: str, found: Sequence[Delivery]) -> list[Delivery]:
    now = hub_time(engine.clock.now())
    changes = [
        (each, replace(each, state="open", due=now, tries=0, outcome="to be sent again")) for each in found
    ]
    saved = engine.deliveries.save_all(tenant, connection, changes)
    for each in saved:
        engine.send(layout.FRESH, Job("delivery", tenant, connection, event={"id": each.id}))
    return saved
