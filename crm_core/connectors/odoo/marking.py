"""External ids as the hub's markers: what a create bears, so that it is made once and found again.

Source: Odoo's "External identifiers" and `load` of the ORM. `load` with an external id that is known updates that record;
of several that come at once one makes it, and the others are told that the database could not serialize them.
Ordinary users may not read ir.model.data, but may ask which record an external id stands for, and the other way round.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from crm_core.connectors.odoo.client import Client
from crm_core.connectors.odoo.models.common import Model
from crm_core.errors import Rejected

MODULE = "crm_hub"
"""What stands before the point: no app's name, since an update of an app deletes what bears it and is not its."""


def external_id(marker: str) -> str:
    return f"{MODULE}.{marker}"


class Markers:
    def __init__(self, client: Client) -> None:
        self._client = client

    def of(self, model: Model, rows: Sequence[Mapping[str, Any]]) -> Mapping[str, str]:
        """By id, the marker of each of these rows that has one. Only what our own user has made is asked for."""
        ours = self._client.uid()
        ids = [int(row["id"]) for row in rows if row.get("create_uid") and row["create_uid"][0] == ours]
        if not ids:
            return {}
        told = self._client.call(model.remote, "get_external_id", ids=ids)
        found = {str(rid): str(name) for rid, name in told.items()} if isinstance(told, dict) else {}
        prefix = external_id("")
        return {rid: name.removeprefix(prefix) for rid, name in found.items() if name.startswith(prefix)}

    def find(self, marker: str) -> tuple[str, str] | None:
        """(model, id) of the record whose create bore a marker."""
        try:
            told = self._client.call("ir.model.data", "check_object_reference", module=MODULE, xml_id=marker)
        except Rejected:  # "External ID not found in the system"
            return None
        if isinstance(told, list) and len(told) == 2 and isinstance(told[1], int) and told[1]:
            return str(told[0]), str(told[1])
        return None
