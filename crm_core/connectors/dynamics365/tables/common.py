"""What the tables of Dataverse share: how a table is declared, references, addresses, owners, currencies, states."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from crm_core.model.entities import Entity
from crm_core.model.field_map import FieldMap, Target
from crm_core.model.literals import GUID
from crm_core.model.mapping import EntityMap, Navigation

SYSTEM = "dynamics365"
LOOKUP_KIND = "Microsoft.Dynamics.CRM.lookuplogicalname"
"""The annotation that tells what a lookup to several tables points at."""

LOGICAL: Mapping[str, tuple[str, str]] = {
    "account": ("account", "accounts"),
    "contact": ("contact", "contacts"),
    "lead": ("lead", "leads"),
    "opportunity": ("opportunity", "opportunities"),
    "case": ("incident", "incidents"),
    "product": ("product", "products"),
    "quote": ("quote", "quotes"),
    "order": ("salesorder", "salesorders"),
    "invoice": ("invoice", "invoices"),
    "campaign": ("campaign", "campaigns"),
}
"""Canonical entity -> the table's logical name and its entity set."""


@dataclass(frozen=True)
class Closing:
    """A state that no update sets but an action, which writes a row of `record` about it.

    `reason`: the status reason that goes with it, -1 for the default one. `subject`: what the row says unless the
    canonical field `text` says something. `start`: the canonical status that the action begins from, where that is not
    the one of a new row.
    """

    action: str
    record: str
    reason: int
    subject: str
    text: str = ""
    start: str = ""


MASTER = "_masterid_value"


@dataclass(frozen=True)
class Table(EntityMap):
    """An entity's table. `logical`: its name in the metadata.

    `closings`: canonical status -> the action that sets it. `locked`: the statuses in which a row can't be written
    until `reopened` is (Web API: "Reactivate").
    `defaults`: what a create says unless the caller does. `lines`: the table of a document's lines, and `parent` their
    lookup to it. `kinds`: canonical kind -> the table of its rows; the table itself then only lists. `constant`: what
    holds for every row. `merges`: a row can be merged into another one, whose id it then has in MASTER (action Merge).
    """

    logical: str = ""
    closings: Mapping[str, Closing] = field(default_factory=dict)
    locked: frozenset[str] = frozenset()
    reopened: Mapping[str, int] = field(default_factory=lambda: {"statecode": 0, "statuscode": 1})
    defaults: Mapping[str, Any] = field(default_factory=dict)
    lines: "Table | None" = None
    parent: str = ""
    kinds: Mapping[str, "Table"] = field(default_factory=dict)
    constant: Mapping[str, Any] = field(default_factory=dict)
    merges: bool = False

    @property
    def fixed(self) -> Mapping[str, str]:
        if self.kinds:
            return {
                "": f"is kept in several tables there ({', '.join(self.kinds)}); its mapping can't be changed"
            }
        led = "leads the system's own steps, so it stays as it is declared; map another field"
        texts = {each.text for each in self.closings.values() if each.text}
        return dict.fromkeys(("status", "lines", *texts), led)

    def of(self, fields: Mapping[str, Any]) -> "Table":
        return self.kinds.get(str(fields.get("kind")), self)

    @property
    def several(self) -> bool:
        """Whether a reference can lead to several tables, so that answers have to tell which."""
        return any(each.kind_native for each in self.fields)


@dataclass(frozen=True)
class Lookup:
    """A text that stands in another table, in `text` of the row of `collection` that the property `native` refers to.

    `select`: what is read of that row; nothing: all. `bind`: the navigation property that writes the reference. `few`:
    the table has so few rows that a message can name them.
    """

    collection: str
    key: str
    text: str
    native: str
    bind: str
    select: tuple[str, ...] = ()
    few: bool = False


LOOKUPS: Mapping[str, Lookup] = {
    "owninguser/internalemailaddress": Lookup(
        "systemusers",
        "systemuserid",
        "internalemailaddress",
        "_owninguser_value",
        "ownerid",
        ("systemuserid", "internalemailaddress", "isdisabled"),
    ),
    "transactioncurrencyid/isocurrencycode": Lookup(
        "transactioncurrencies",
        "transactioncurrencyid",
        "isocurrencycode",
        "_transactioncurrencyid_value",
        "transactioncurrencyid",
        ("transactioncurrencyid", "isocurrencycode"),
        few=True,
    ),
    "defaultuomid/name": Lookup("uoms", "uomid", "name", "_defaultuomid_value", "defaultuomid", few=True),
    "uomid/name": Lookup("uoms", "uomid", "name", "_uomid_value", "uomid", few=True),
    "productid/productnumber": Lookup(
        "products",
        "productid",
        "productnumber",
        "_productid_value",
        "productid",
        ("productid", "productnumber"),
    ),
}
"""By the path that a field's map names, which is also how a filter names it."""


def ref(name: str, column: str, target: str) -> FieldMap:
    """A reference to one table: read as _column_value, written by its navigation property."""
    return FieldMap(name, f"_{column}_value", targets=(_target(target, column),), form=GUID.pattern)


def ref_to_several(name: str, column: str, navigation: str, targets: tuple[str, ...]) -> FieldMap:
    """A reference to one of several tables. `navigation`: its properties for writing, with {} for the table."""
    native = f"_{column}_value"
    return FieldMap(
        name,
        native,
        targets=tuple(_target(each, navigation.format(LOGICAL[each][0])) for each in targets),
        kind_native=f"{native}@{LOOKUP_KIND}",
        form=GUID.pattern,
    )


def _target(entity: str, navigation: str) -> Target:
    logical, collection = LOGICAL[entity]
    return Target(entity, logical, f"{navigation}@odata.bind", f"/{collection}({{id}})", navigation)


def ways(fields: tuple[FieldMap, ...]) -> Iterator[Navigation]:
    """The ways that the references of a table lead."""
    for each in fields:
        for target in each.targets:
            # Only where the reference leads to one entity does its canonical name say which way is meant.
            yield Navigation(target.clear, target.entity, field=each.field if len(each.targets) == 1 else "")


def address(prefix: str, column: str) -> tuple[FieldMap, ...]:
    return (
        FieldMap(f"{prefix}street", f"{column}_line1", length=250),
        FieldMap(f"{prefix}street2", f"{column}_line2", length=250),
        FieldMap(f"{prefix}city", f"{column}_city", length=80),
        FieldMap(f"{prefix}state", f"{column}_stateorprovince", length=50),
        FieldMap(f"{prefix}postal_code", f"{column}_postalcode", length=20),
        FieldMap(f"{prefix}country", f"{column}_country", length=80),
    )


def money(name: str, column: str, *, writable: bool = True) -> FieldMap:
    """An amount: rounded to the currency's decimals, which are two unless a person chose others."""
    return FieldMap(name, column, scale=2, writable=writable)


def instant(name: str, column: str) -> FieldMap:
    return FieldMap(name, column, whole_seconds=True)


ADDRESS = address("", "address1")
OWNER = FieldMap("owner_email", "owninguser/internalemailaddress")
CURRENCY = FieldMap("currency", "transactioncurrencyid/isocurrencycode")
CUSTOMER = ref_to_several("customer_id", "customerid", "customerid_{}", ("account", "contact"))
DESCRIPTION = FieldMap("description", "description", length=2000)


def states(names: Mapping[int, str]) -> tuple[FieldMap, ...]:
    """The state that matters to people, and what every row has besides."""
    return (FieldMap("status", "statecode", names=names), *SYSTEM_FIELDS)


SYSTEM_FIELDS = (
    FieldMap("status_reason", "statuscode", writable=False),
    FieldMap("created_at", "createdon", writable=False),
    FieldMap("updated_at", "modifiedon", writable=False),
)
INACTIVE = {0: "active", 1: "inactive"}


def table(entity: Entity, *fields: FieldMap, logical: str, remote: str, key: str = "", **more: Any) -> Table:
    """A table of facts; its references are ways to expand. `more`: as `Table` has it."""
    lists = more.pop("lists", ())
    return Table(
        entity,
        remote=remote,
        key=key or f"{logical}id",
        modified="modifiedon",
        version="versionnumber",
        fields=fields,
        navigations=(*ways(fields), *lists),
        logical=logical,
        **more,
    )


def table_of(entity: Entity, *fields: FieldMap, **more: Any) -> Table:
    """The table of an entity that has one of its own."""
    logical, remote = LOGICAL[entity.name]
    return table(entity, *fields, logical=logical, remote=remote, **more)
