"""Webhooks of Dataverse: asynchronous steps after an operation, posted as a RemoteExecutionContext.

Which there are is an option of the sandbox, not rows of serviceendpoint and sdkmessageprocessingstep. Sources: "Use webhooks to
create external handlers", "Register a webhook", "Work with Microsoft Dataverse data in your Azure solution".
"""

import json
import random
import uuid
from decimal import Decimal
from typing import Any
from urllib.parse import quote

from sandbox.dynamics365.schema import TABLES, Column
from sandbox.frame import Frame
from sandbox.posting import FAULTS, Outbox
from sandbox.store import Row, Values

OPTIONS: Values = {
    # By name: {"url", "authtype": 4 (WebhookKey) or 5 (HttpHeader), "authvalue": the key or {header: value}, "tables"}
    "webhooks": {},
    "webhook_faults": FAULTS,
}
CONTRACTS = "http://schemas.microsoft.com/xrm/2011/Contracts"
SIZE_LIMIT = 256 * 1024
"""Over it a post says so in a header and leaves out what is in brackets in the documentation."""
LEFT_OUT = ("ParentContext", "InputParameters", "PreEntityImages", "PostEntityImages")


class Hooks:
    """Watches what is committed and sends the posts of it, each when its time has come."""

    def __init__(self, frame: Frame, org_id: str, seed: int) -> None:
        self._frame = frame
        self._org_id = org_id
        self._random = random.Random(seed)
        self._outbox = Outbox("dataverse webhooks", self._random)

    def committed(self, table: str, old: Row | None, new: Row | None) -> None:
        """After an operation on a row; ``new`` is None after a delete."""
        for hook in self._frame.options["webhooks"].values():
            if table in hook.get("tables", TABLES):
                self._put(hook, table, old, new)

    def _put(self, hook: Values, table: str, old: Row | None, new: Row | None) -> None:
        message = "Delete" if new is None else "Create" if old is None else "Update"
        context = self._context(table, message, old, new)
        body = json.dumps(context, default=str).encode()
        headers = {
            "Content-Type": "application/json; charset=utf-8",
            "x-ms-dynamics-organization": "org.crm.dynamics.com",
            "x-ms-dynamics-entity-name": table,
            "x-ms-dynamics-request-name": message,
            "x-ms-correlation-request-id": context["CorrelationId"],
        }
        if len(body) > SIZE_LIMIT:
            headers["x-ms-dynamics-msg-size-exceeded"] = "true"
            body = json.dumps({k: v for k, v in context.items() if k not in LEFT_OUT}, default=str).encode()
        url = hook["url"]
        if hook.get("authtype", 4) == 4:
            url += f"{'&' if '?' in url else '?'}code={quote(hook['authvalue'], safe='')}"
        else:
            headers |= hook["authvalue"]
        self._outbox.put(lambda: (url, headers, body), self._frame.options["webhook_faults"])

    def _context(self, table: str, message: str, old: Row | None, new: Row | None) -> Values:
        row = new or old
        assert row is not None
        user = row.values.get("_modifiedby_value")
        stamp = f"/Date({int(self._frame.clock.now().timestamp() * 1000)}+0000)/"
        target = _reference(table, row.id) if new is None else _target(table, old, new)
        return {
            "BusinessUnitId": str(uuid.UUID(int=1)),
            "CorrelationId": self._id(),
            "Depth": 1,
            "InitiatingUserId": user,
            "InputParameters": [{"key": "Target", "value": target}],
            "IsExecutingOffline": False,
            "MessageName": message,
            "Mode": 1,
            "OperationCreatedOn": stamp,
            "OperationId": self._id(),
            "OrganizationId": self._org_id,
            "OrganizationName": "org",
            "OutputParameters": [{"key": "id", "value": row.id}] if message == "Create" else [],
            "ParentContext": None,
            "PostEntityImages": [],
            "PreEntityImages": [],
            "PrimaryEntityId": row.id,
            "PrimaryEntityName": table,
            "RequestId": self._id(),
            "SharedVariables": [],
            "Stage": 40,
            "UserId": user,
        }

    def _id(self) -> str:
        return str(uuid.UUID(int=self._random.getrandbits(128), version=4))


def _reference(table: str, key: str) -> Values:
    return {"__type": f"EntityReference:{CONTRACTS}", "Id": key, "LogicalName": table, "Name": None}


def _target(table: str, old: Row | None, new: Row) -> Values:
    """The row with the columns that the operation wrote."""
    before = old.values if old else {}
    columns = TABLES[table].columns.values()
    changed = [each for each in columns if new.values.get(each.wire) != before.get(each.wire)]
    return {
        "__type": f"Entity:{CONTRACTS}",
        "Attributes": [
            {"key": each.name, "value": _value(each, new.values)}
            for each in changed
            if each.name != "versionnumber"
        ],
        "Id": new.id,
        "LogicalName": table,
    }


def _value(column: Column, values: Values) -> Any:
    value = values.get(column.wire)
    if value is None:
        return None
    if column.kind == "lookup":
        return _reference(values.get(column.type_key) or "", value)
    if column.kind in ("picklist", "state", "status"):
        return {"__type": f"OptionSetValue:{CONTRACTS}", "Value": value}
    if column.kind == "money":
        return {"__type": f"Money:{CONTRACTS}", "Value": float(value)}
    return float(value) if isinstance(value, Decimal) else value
