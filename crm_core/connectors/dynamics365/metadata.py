"""What an environment's own metadata says of its columns, custom ones included."""

from collections.abc import Mapping
from typing import Any

from crm_core.connectors.dynamics365.client import Client
from crm_core.connectors.dynamics365.tables.common import Table
from crm_core.model.fields import Type
from crm_core.model.literals import GUID_TYPE
from crm_core.model.mapping import NativeField

# AttributeType of EntityDefinitions -> how its literals are written. Others can't be filtered or written here.
NATIVE_TYPES: Mapping[str, str] = {
    "String": Type.TEXT,
    "Memo": Type.TEXT,
    "Integer": Type.INTEGER,
    "BigInt": Type.INTEGER,
    "Picklist": Type.INTEGER,
    "State": Type.INTEGER,
    "Status": Type.INTEGER,
    "Decimal": Type.DECIMAL,
    "Double": Type.DECIMAL,
    "Money": Type.MONEY,
    "Boolean": Type.BOOLEAN,
    "DateTime": Type.INSTANT,
    "Uniqueidentifier": GUID_TYPE,
    "Lookup": GUID_TYPE,
    "Customer": GUID_TYPE,
    "Owner": GUID_TYPE,
}
KNOWN_TYPES = frozenset(NATIVE_TYPES.values())
_LOOKUPS = ("Lookup", "Customer", "Owner")
_COLUMNS = "LogicalName,AttributeType,IsValidForCreate,IsValidForUpdate,IsValidForRead"


class Metadata:
    """Asks for each table once."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._fields: dict[str, Mapping[str, NativeField]] = {}

    def fields(self, table: Table) -> Mapping[str, NativeField]:
        """By name as it is read; a lookup's is _name_value. Of a table with kinds: theirs as well."""
        fields: dict[str, NativeField] = {}
        for each in (*table.kinds.values(), table):
            fields |= self._of(each.logical)
        return fields

    def _of(self, logical: str) -> Mapping[str, NativeField]:
        if logical not in self._fields:
            path = f"EntityDefinitions(LogicalName='{logical}')/Attributes"
            rows = self._client.rows(path, [("$select", _COLUMNS)])
            self._fields[logical] = {
                field.name: field
                for row in rows
                if row.get("LogicalName") and row.get("IsValidForRead", True)
                for field in [_native_field(row)]
            }
        return self._fields[logical]


def _native_field(row: Mapping[str, Any]) -> NativeField:
    kind = str(row.get("AttributeType", ""))
    name = str(row["LogicalName"])
    if kind in _LOOKUPS:
        return NativeField(f"_{name}_value", GUID_TYPE, writable=False)
    writable = bool(row.get("IsValidForCreate") or row.get("IsValidForUpdate")) and kind in NATIVE_TYPES
    return NativeField(name, NATIVE_TYPES.get(kind, kind), writable)
