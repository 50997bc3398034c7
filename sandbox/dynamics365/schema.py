"""The tables as data: columns with types, lengths, choices and lookups.

Sources: the Common Data Model's Account, Contact and User (lengths, choice values), and the Web API reference
of the vendor for navigation names, which are not derivable by rule.
"""

import re
from dataclasses import dataclass, field
from functools import cached_property

from sandbox.dynamics365.tables import ENTITIES, OPTIONS

EDM = {
    "key": "Edm.Guid", "guid": "Edm.Guid", "lookup": "Edm.Guid", "string": "Edm.String", "memo": "Edm.String",
    "int": "Edm.Int32", "picklist": "Edm.Int32", "state": "Edm.Int32", "status": "Edm.Int32",
    "bigint": "Edm.Int64", "money": "Edm.Decimal", "decimal": "Edm.Decimal", "double": "Edm.Double",
    "bool": "Edm.Boolean", "datetime": "Edm.DateTimeOffset", "date": "Edm.Date",
}  # fmt: skip
ATTRIBUTE = {
    "key": "Uniqueidentifier", "guid": "Uniqueidentifier", "lookup": "Lookup", "string": "String", "memo": "Memo",
    "int": "Integer", "picklist": "Picklist", "state": "State", "status": "Status", "bigint": "BigInt",
    "money": "Money", "decimal": "Decimal", "double": "Double", "bool": "Boolean", "datetime": "DateTime",
    "date": "DateTime",
}  # fmt: skip


@dataclass(frozen=True)
class Column:
    """One column. ``wire`` is its name in answers: lookups are read as ``_name_value``."""

    name: str
    schema_name: str
    kind: str
    length: int = 0
    options: dict[int, str] = field(default_factory=dict)
    states: dict[int, int] = field(default_factory=dict)  # status reason -> state
    targets: dict[str, str] = field(
        default_factory=dict
    )  # target table -> navigation property (case-sensitive)
    reverse: dict[str, str] = field(default_factory=dict)  # target table -> its collection of these rows
    create: bool = True
    update: bool = True
    required: str = "None"
    cascade: bool = False

    @property
    def wire(self) -> str:
        return f"_{self.name}_value" if self.kind == "lookup" else self.name

    @property
    def type_key(self) -> str:
        """Where a lookup keeps which table its value points into."""
        return f"_{self.name}_type"

    @property
    def edm(self) -> str:
        return EDM[self.kind]


@dataclass(frozen=True)
class Entity:
    """One table."""

    name: str
    schema_name: str
    set_name: str
    primary_name: str
    type_code: int
    columns: dict[str, Column]
    alternate_keys: tuple[str, ...] = ()
    duplicate_rule: str = ""  # the column that the default duplicate rule compares

    @property
    def key(self) -> str:
        return f"{self.name}id"

    @cached_property
    def by_wire(self) -> dict[str, Column]:
        return {c.wire: c for c in self.columns.values()}

    @cached_property
    def navigation(self) -> dict[str, tuple[Column, str]]:
        """Single-valued navigation properties: name -> (lookup column, target table)."""
        return {nav: (c, target) for c in self.columns.values() for target, nav in c.targets.items()}

    def nav_names(self) -> list[str]:
        return sorted(self.navigation)


def _column(line: str) -> Column:
    """A column from one line of ``tables.py``: SchemaName kind [length] [word=value ...]."""
    schema_name, kind, *words = line.split()
    facts: dict[str, str] = {}
    length = 0
    for word in words:
        name, _, value = word.partition("=")
        if word.isdigit():
            length = int(word)
        else:
            facts[name] = value
    options = (
        OPTIONS.get(facts.get("of", schema_name.lower()), {})
        if kind in ("picklist", "state", "status")
        else {}
    )
    readonly = "ro" in facts
    return Column(
        name=schema_name.lower(),
        schema_name=schema_name,
        kind=kind,
        length=length,
        options={k: v[0] if isinstance(v, tuple) else v for k, v in options.items()},
        states={k: v[1] for k, v in options.items() if isinstance(v, tuple)},
        targets=_pairs(facts.get("to", "")),
        reverse=_pairs(facts.get("back", "")),
        create=not readonly,
        update=not readonly and "once" not in facts,
        required={"sys": "SystemRequired", "app": "ApplicationRequired", "rec": "Recommended"}.get(
            facts.get("req", ""), "None"
        ),
        cascade="cascade" in facts,
    )


def _pairs(text: str) -> dict[str, str]:
    return dict(pair.split(":") for pair in text.split(",")) if text else {}


def _entity(spec: dict[str, str | int]) -> Entity:
    lines = [line.strip() for line in str(spec["columns"]).splitlines() if line.strip()]
    columns = {c.name: c for c in map(_column, lines)}
    name = str(spec["name"])
    return Entity(
        name=name,
        schema_name=str(spec.get("schema", name.capitalize())),
        set_name=str(spec["set"]),
        primary_name=str(spec["primary_name"]),
        type_code=int(spec["code"]),
        columns=columns,
        alternate_keys=tuple(re.findall(r"\S+", str(spec.get("keys", "")))),
        duplicate_rule=str(spec.get("duplicates", "")),
    )


TABLES: dict[str, Entity] = {e.name: e for e in map(_entity, ENTITIES)}
SETS: dict[str, Entity] = {e.set_name: e for e in TABLES.values()}


def collections(entity: Entity) -> dict[str, tuple[Entity, Column]]:
    """Collection-valued navigation properties of a table: name -> (table of the rows, their lookup)."""
    return {
        column.reverse[entity.name]: (other, column)
        for other in TABLES.values()
        for column in other.columns.values()
        if entity.name in column.reverse
    }
