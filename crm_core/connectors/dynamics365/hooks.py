"""What a webhook of Dataverse posts (a service endpoint with steps), and what proves that it comes from there.

Dataverse signs no body; the only proof is the key that is registered with the endpoint: WebhookKey sends it as the
parameter `code`, HttpHeader in a header. The body is a RemoteExecutionContext; over 256 KB it lacks what it is about
but for the id. Order is not promised and a post may come twice, so an event is a hint to read the row.
Sources: "Use webhooks to create external handlers", "Register a webhook", "Understand the execution context".
"""

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from crm_core.connector import Event, Hook
from crm_core.connectors.dynamics365.tables import TABLES
from crm_core.connectors.dynamics365.tables.common import SYSTEM
from crm_core.errors import BadAnswer
from crm_core.model.fields import hub_time
from crm_core.protocols.signatures import AnyOf, HeaderToken, QueryToken

PROOF = AnyOf((QueryToken("code"), HeaderToken("x-hub-token")))
"""The key of WebhookKey, or the header X-Hub-Token of HttpHeader."""
ENTITIES: Mapping[str, str] = {
    logical: entity
    for entity, table in TABLES.items()
    for logical in (table.logical, *(kind.logical for kind in table.kinds.values()))
}
"""By the table's name; each kind of activity is a table."""
_GUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE)
_NO_GUID = "00000000-0000-0000-0000-000000000000"
_DATE = re.compile(r"/Date\((\d{1,14})([+-]\d{4})?\)/")


def parse(hook: Hook) -> list[Event]:
    """The row that a step ran for, if it is of a table that we have. Raises BadAnswer for what no step posts."""
    told = hook.json()
    table, rid = (
        (told.get("PrimaryEntityName"), told.get("PrimaryEntityId"))
        if isinstance(told, Mapping)
        else ("", "")
    )
    if not isinstance(table, str) or not isinstance(rid, str) or not _GUID.fullmatch(rid):
        raise BadAnswer("The post names no PrimaryEntityName and PrimaryEntityId.", system=SYSTEM)
    entity = ENTITIES.get(table.lower())
    return [Event(entity, rid.lower(), _when(told))] if entity else []


def _when(told: Mapping[str, Any]) -> str:
    """When the operation was made, if it has an id: then no other one posts the same."""
    operation, made = told.get("OperationId"), told.get("OperationCreatedOn")
    found = _DATE.fullmatch(made) if isinstance(made, str) else None
    if not isinstance(operation, str) or not _GUID.fullmatch(operation) or operation == _NO_GUID or not found:
        return ""
    return hub_time(datetime.fromtimestamp(int(found[1]) / 1000, UTC))
