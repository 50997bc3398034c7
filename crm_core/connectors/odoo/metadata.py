"""What a server says of its own fields, custom ones included (`fields_get`): their types, and whether they are there."""

from collections.abc import Mapping
from dataclasses import dataclass

from crm_core.connectors.odoo.client import Client
from crm_core.connectors.odoo.models.common import SYSTEM, Model
from crm_core.errors import BadAnswer, NotSupported
from crm_core.model.fields import Type
from crm_core.model.literals import SERIAL_TYPE
from crm_core.model.mapping import NativeField

NATIVE_TYPES: Mapping[str, str] = {
    "char": Type.TEXT,
    "text": Type.TEXT,
    "html": Type.TEXT,
    "selection": Type.TEXT,
    "integer": Type.INTEGER,
    "float": Type.DECIMAL,
    "monetary": Type.MONEY,
    "boolean": Type.BOOLEAN,
    "date": Type.DATE,
    "datetime": Type.INSTANT,
    "many2one": SERIAL_TYPE,
}
"""Odoo's types of fields -> how their literals are written. Others can't be filtered or written here."""
KNOWN_TYPES = frozenset(NATIVE_TYPES.values())
RENAMED: Mapping[str, Mapping[str, str]] = {"sale.order.line": {"product_uom_id": "product_uom"}}
"""Fields by their name since 19, and what they were called before."""
_ATTRIBUTES = ("type", "readonly", "relation", "selection", "sortable", "searchable", "required")


@dataclass(frozen=True)
class Facts:
    """One field of one model. `selection`: value -> label."""

    name: str
    type: str
    readonly: bool
    required: bool
    sortable: bool
    searchable: bool
    relation: str
    selection: Mapping[str, str]


class Metadata:
    """Asks for each model once. Safe for many threads."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._models: dict[str, Mapping[str, Facts]] = {}
        self._before: dict[str, dict[str, str]] = {}

    def facts(self, model: Model) -> Mapping[str, Facts]:
        """By the name that is declared here. Raises NotSupported, naming the app, for a model that is not there."""
        if model.remote not in self._models:
            try:
                told = self._client.call(model.remote, "fields_get", attributes=list(_ATTRIBUTES))
            except NotSupported:
                app = f"; install the app {model.module}" if model.module else ""
                raise NotSupported(
                    f"This Odoo has no {model.remote}, which {model.entity.name} is kept in{app}."
                ) from None
            if not isinstance(told, dict):
                raise BadAnswer("The answer to fields_get names no fields.", system=SYSTEM)
            found = {name: _facts(name, each) for name, each in told.items() if isinstance(each, dict)}
            older = {
                now: before
                for now, before in RENAMED.get(model.remote, {}).items()
                if now not in found and before in found
            }
            self._before[model.remote] = older
            self._models[model.remote] = found | {now: found[before] for now, before in older.items()}
        return self._models[model.remote]

    def called(self, model: Model, name: str) -> str:
        """What this server calls the field that is declared by that name."""
        self.facts(model)
        return self._before[model.remote].get(name, name)

    def types(self, model: Model) -> Mapping[str, str]:
        return {name: each.type for name, each in self.facts(model).items()}

    def described(self, model: Model) -> Mapping[str, NativeField]:
        return {
            name: NativeField(
                name,
                NATIVE_TYPES.get(each.type, each.type),
                not each.readonly and each.type in NATIVE_TYPES and name != "id",
                each.selection,
                each.relation,
            )
            for name, each in self.facts(model).items()
        }


def _facts(name: str, told: Mapping[str, object]) -> Facts:
    selection = told.get("selection")
    pairs = selection if isinstance(selection, list) else []
    return Facts(
        name,
        str(told.get("type", "")),
        bool(told.get("readonly")),
        bool(told.get("required")),
        bool(told.get("sortable", True)),
        bool(told.get("searchable", True)),
        str(told.get("relation") or ""),
        {str(pair[0]): str(pair[1]) for pair in pairs if isinstance(pair, list) and len(pair) == 2},
    )
