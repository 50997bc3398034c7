"""How a model of Odoo is declared, and what several share: addresses, owners, references to partners."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import ROUND_HALF_UP, Decimal
from typing import Any

from crm_core.model.entities import Entity
from crm_core.model.field_map import FieldMap, Target
from crm_core.model.fields import Field
from crm_core.model.mapping import EntityMap

SYSTEM = "odoo"
ID_FORM = r"[1-9][0-9]{0,9}"
OF_STAGE = "active/status"
"""The status that stage and archive tell together."""
MODEL_NAME = "res_model"
"""The field that names the model of an `AnyRecord`."""
Domain = list[Any]
"""Conditions in Odoo's prefix notation, all of which hold unless "|" or "!" comes before them ("Search domains")."""


def root(path: str) -> str:
    """The field of the row that a path begins with."""
    return path.partition("/")[0]


@dataclass(frozen=True)
class Lookup:
    """A text that stands in another model, as `text` of the record that a many2one leads to.

    `shown`: the display name, which comes with every read, is that text. `few`: the model has so few records that a
    message can name them. `by_id`: the number of the record is taken for its text as well. `within`: a many2one beside
    it that tells several of the same text apart.
    """

    model: str
    text: str
    shown: bool = True
    few: bool = False
    by_id: bool = False
    within: str = ""


LOOKUPS: Mapping[str, Lookup] = {
    "country_id/name": Lookup("res.country", "name"),
    "state_id/name": Lookup("res.country.state", "name", shown=False, within="country_id"),
    "industry_id/name": Lookup("res.partner.industry", "name", few=True),
    "user_id/email": Lookup("res.users", "email", shown=False),
    "company_currency/name": Lookup("res.currency", "name"),
    "currency_id/name": Lookup("res.currency", "name"),
    "cost_currency_id/name": Lookup("res.currency", "name"),
    "stage_id/name": Lookup("crm.stage", "name", few=True, by_id=True),
    "source_id/name": Lookup("utm.source", "name", few=True),
    "lost_reason_id/name": Lookup("crm.lost.reason", "name", few=True),
    "uom_id/name": Lookup("uom.uom", "name", few=True),
    "product_uom_id/name": Lookup("uom.uom", "name", few=True),
    "categ_id/complete_name": Lookup("product.category", "complete_name", few=True),
    "product_id/default_code": Lookup("product.product", "default_code", shown=False),
    "location_id/complete_name": Lookup("stock.location", "complete_name"),
}
"""By the path that a field's map names."""


@dataclass(frozen=True)
class Model(EntityMap):
    """An entity's model. `module`: the app that brings it, for a server without.

    `domain`: which of the model's records lists tell of; `known`: which a point read finds, where that are more.
    `constant`: what a create sets besides. `states`: canonical status -> the records that have it, where no single
    field tells, as a domain. `initial`: the status of a new record, where calls lead to the others, and `archived` that
    of one that was set aside. `parent`: of lines, their many2one to the document. `sieved`: the server cuts a page
    before it leaves out what our user may not see, so that a short page, an empty one too, need not be the last.
    """

    module: str = ""
    domain: Domain = field(default_factory=list)
    known: Domain | None = None
    constant: Mapping[str, Any] = field(default_factory=dict)
    states: Mapping[str, Domain] = field(default_factory=dict)
    initial: str = ""
    archived: str = ""
    sieved: bool = False
    lines: "Model | None" = None
    parent: str = ""

    @property
    def fixed(self) -> Mapping[str, str]:
        led = "leads the system's own steps, so it stays as it is declared; map another field"
        return dict.fromkeys(("status", "lines"), led)


def model(entity: Entity, remote: str, *fields: FieldMap, **more: Any) -> Model:
    """A page of facts. `more`: as `Model` has it."""
    return Model(
        entity, remote=remote, key="id", modified="write_date", version="write_date", fields=fields, **more
    )


def ref(name: str, column: str, target: str, *, writable: bool = True, kind: bool = False) -> FieldMap:
    """A many2one. `kind`: the model holds several entities, and only what is of the target is meant."""
    kind_native = f"{column}/kind" if kind else ""
    return FieldMap(
        name,
        column,
        targets=(_target(target, column),),
        kind_native=kind_native,
        form=ID_FORM,
        writable=writable,
    )


def partner(name: str, column: str, targets: Sequence[str]) -> FieldMap:
    """A many2one to a partner, who is a company or a person."""
    found = tuple(_target(each, column) for each in targets)
    return FieldMap(name, column, targets=found, kind_native=f"{column}/kind", form=ID_FORM)


def _target(entity: str, column: str) -> Target:
    return Target(entity, entity, column, "{id}", column)


def text(name: str, column: str, **more: Any) -> FieldMap:
    return FieldMap(name, column, **more)


@dataclass(frozen=True)
class WebAddress(FieldMap):
    """Odoo puts http:// before an address without a scheme (res.partner `_clean_website`)."""

    def canon(self, kind: Field, value: Any) -> Any:  # noqa: ARG002  # as the base has it
        if not isinstance(value, str) or re.match(r"[A-Za-z][A-Za-z0-9+.-]*:(?![0-9]+$)", value):
            return value
        return f"http:{value}" if value.startswith("//") else f"http://{value}"


@dataclass(frozen=True)
class AnyRecord(FieldMap):
    """A reference by number to a record of the model that another field names."""

    @property
    def natives(self) -> tuple[str, ...]:
        return (self.native, MODEL_NAME)


@dataclass(frozen=True)
class Rounded(FieldMap):
    """A whole number that Odoo keeps with a fraction."""

    def reader(self, kind: Field) -> Callable[[Any], Any]:
        return lambda value: kind.parse(Decimal(value).quantize(Decimal(1), ROUND_HALF_UP))


def number(name: str, column: str, *, scale: int | None = None, writable: bool = True) -> FieldMap:
    """An amount, which is never empty there: 0 stands for nothing."""
    return FieldMap(name, column, scale=scale, writable=writable, kept=True)


def instant(name: str, column: str, *, writable: bool = True) -> FieldMap:
    return FieldMap(name, column, whole_seconds=True, writable=writable)


ADDRESS = (
    text("street", "street"),
    text("street2", "street2"),
    text("city", "city"),
    text("state", "state_id/name"),
    text("postal_code", "zip"),
    text("country", "country_id/name"),
)
OWNER = text("owner_email", "user_id/email")
SYSTEM_FIELDS = (
    instant("created_at", "create_date", writable=False),
    instant("updated_at", "write_date", writable=False),
)
ACTIVE = (
    FieldMap("status", "active", names={True: "active", False: "inactive"}),
    FieldMap("status_reason", "active", writable=False),
)
"""Archiving is Odoo's way to set a record aside: the record stays, and lists leave it out unless asked otherwise."""
