"""Models and fields of a version with a set of modules, from ``data/``; fields can be added while it runs."""

import json
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

DATA = Path(__file__).parent / "data"
LATEST = 19
OLDEST = 14
# Modules whose models and fields lie in folders of their own; all others are always there.
OPTIONAL = ("stock",)
MODULES = ("base", "crm", "contacts", "base_automation", "sale_management", "sale_crm", "api_doc")
NUMBERS = ("integer", "float", "monetary")
X2MANY = ("one2many", "many2many")
TEXTS = ("char", "text", "html", "selection", "reference")


def usually_sortable(kind: str, *, store: bool) -> bool:
    """Whether rows can be ordered by a field, where the server says nothing else of it."""
    return store and kind not in X2MANY


@dataclass(frozen=True)
class Field:
    """What the server knows of a field."""

    name: str
    type: str
    string: str
    required: bool = False
    readonly: bool = False
    store: bool = True
    searchable: bool = True
    manual: bool = False
    relation: str = ""
    relation_field: str = ""
    selection: tuple[tuple[str, str], ...] = ()
    related: str = ""
    ondelete: str = ""
    size: int = 0
    facts: dict[str, Any] = field(default_factory=dict, compare=False)

    @property
    def sortable(self) -> bool:
        """Of fields that are not kept, those that come from the row's own parent are, and some others."""
        return bool(self.facts.get("sortable", usually_sortable(self.type, store=self.store)))

    @property
    def keys(self) -> list[str]:
        return [key for key, _ in self.selection]

    def told(self, attributes: list[str] | None) -> dict[str, Any]:
        """As ``fields_get`` tells it."""
        facts = {
            "change_default": False, "company_dependent": False, "default_export_compatible": False, "depends": [],
            "exportable": True, "groupable": self.store and self.type not in X2MANY, "manual": self.manual, "name": self.name,
            "readonly": False, "required": False, "searchable": True, "sortable": self.sortable,
            "store": True, **{k: v for k, v in self.facts.items() if k not in ("ondelete", "related")},
        }  # fmt: skip
        if self.type == "char":
            facts = {"translate": False, "trim": True, **facts}
        return {k: v for k, v in facts.items() if attributes is None or not attributes or k in attributes}


@dataclass
class Model:
    name: str
    string: str
    order: str
    id: int
    modules: str
    xmlid: str
    thread: bool  # whether its rows have messages
    fields: dict[str, Field]

    @property
    def rec_name(self) -> str | None:
        return next((f for f in ("name", "x_name", "login") if f in self.fields), None)


def make_field(name: str, facts: dict[str, Any]) -> Field:
    known = Field.__dataclass_fields__.keys() - {"name", "facts", "selection"}
    selection = tuple((str(k), str(v)) for k, v in facts.get("selection", ()))
    return Field(
        name=name, selection=selection, facts=facts, **{k: v for k, v in facts.items() if k in known}
    )


@cache
def _read(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text("utf-8")) if path.exists() else {}


def _plain(kind: str, string: str, **more: Any) -> dict[str, Any]:
    return {"type": kind, "string": string, **more}


def _renamed(fields: dict[str, Any], new: str, old: str) -> None:
    if new in fields:
        fields[old] = fields.pop(new)


def _as_of(version: int, model: str, fields: dict[str, Any]) -> None:
    """What was otherwise before version 19. Only what the vendor's migration notes name; the rest is as in 19."""
    if version >= LATEST:
        return
    if model == "res.partner":
        fields["mobile"] = _plain("char", "Mobile")
        fields["title"] = _plain("many2one", "Title", relation="res.partner.title", ondelete="set null")
    if model == "crm.lead":
        fields["mobile"] = _plain("char", "Mobile")
        fields.pop("won_status", None)
    if model == "res.users":
        _renamed(fields, "group_ids", "groups_id")
    if model == "sale.order.line":
        _renamed(fields, "product_uom_id", "product_uom")
        _renamed(fields, "tax_ids", "tax_id")
    if model in ("product.template", "product.product"):
        fields["uom_po_id"] = _plain("many2one", "Purchase Unit", relation="uom.uom", ondelete="restrict")
        if version < 18:
            fields.pop("is_storable", None)
            fields["detailed_type"] = _plain(
                "selection",
                "Product Type",
                selection=[["consu", "Consumable"], ["service", "Service"], ["product", "Storable Product"]],
            )
    if version <= 16:
        fields["__last_update"] = _plain(
            "datetime", "Last Modified on", readonly=True, store=False, searchable=False
        )


class Schema:
    """All models that a server with this version and these modules has."""

    def __init__(self, version: int, modules: frozenset[str]) -> None:
        self.version = version
        self.folders = [DATA, *(DATA / m for m in OPTIONAL if m in modules)]
        self.models: dict[str, Model] = {}
        for folder in self.folders:
            for name, facts in _read(folder / "models.json").items():
                known = (facts[k] for k in ("string", "order", "id", "modules", "xmlid"))
                self.models[name] = Model(name, *known, thread=facts.get("thread", False), fields={})
        for name, model in self.models.items():
            fields: dict[str, Any] = {}
            for folder in self.folders:
                fields |= _read(folder / f"{name}.json")
            _as_of(version, name, fields)
            model.fields = {key: make_field(key, facts) for key, facts in fields.items()}
        self.references = self._references()

    def _references(self) -> dict[str, list[tuple[Model, Field]]]:
        """Model -> the stored many2one fields that lead to it."""
        found: dict[str, list[tuple[Model, Field]]] = {}
        for model in self.models.values():
            for each in model.fields.values():
                if each.type == "many2one" and each.store and not each.related:
                    found.setdefault(each.relation, []).append((model, each))
        return found

    def add(self, model: str, made: Field) -> None:
        """A custom field."""
        self.models[model].fields[made.name] = made
        self.references = self._references()

    def drop(self, model: str, name: str) -> None:
        self.models[model].fields.pop(name, None)
        self.references = self._references()

    def seeds(self) -> dict[str, list[dict[str, Any]]]:
        found: dict[str, list[dict[str, Any]]] = {}
        for folder in self.folders:
            found |= _read(folder / "seeds.json")
        return found

    def access(self) -> dict[str, list[tuple[int | bool, str]]]:
        found: dict[str, list[tuple[int | bool, str]]] = {}
        for folder in self.folders:
            found |= _read(folder / "access.json")
        return found
