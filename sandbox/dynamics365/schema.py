"""The tables as data: columns with types, lengths, choices and lookups.

Sources: the Common Data Model (lengths, choice values), and the Web API reference of the vendor for navigation
names, which are not derivable by rule.
"""

import re
from dataclasses import dataclass, field
from functools import cache, cached_property
from typing import Any

from sandbox.dynamics365.tables import ACTIONS, ENTITIES, OPTIONS, RULES

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
    default: Any = None  # what a new row has without being told
    scale: int = 10  # decimals of a decimal number
    low: int | None = None
    high: int | None = None
    cascade: bool = False  # deleted with its parent, if the option says so
    parental: bool = False  # always deleted with its parent

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
class States:
    """How rows of a table get from one state to another."""

    first: tuple[int, int] = (0, 1)  # state and reason of a new row
    closed: frozenset[int] = frozenset()  # states in which a row is read-only
    final: frozenset[int] = frozenset()  # states that no update leads out of
    by: dict[int, str] = field(
        default_factory=dict
    )  # states that an update cannot set -> the message that does
    merged: tuple[int, int] | None = None  # what a row becomes that was merged into another


@dataclass(frozen=True)
class Action:
    """A message that closes a row and leaves another row about it."""

    name: str
    table: str
    part: str  # the parameter with the closing row
    closing: str  # its table
    state: int
    starts: tuple[int, ...]  # states that it starts from
    sets: dict[str, str] = field(default_factory=dict)  # column of the row -> column of the closing row


OPERATIONS = "list get create update delete"


@dataclass(frozen=True)
class Entity:
    """One table."""

    name: str
    schema_name: str
    set_name: str
    primary_name: str
    type_code: int
    columns: dict[str, Column]
    key: str
    states: States
    alternate_keys: tuple[str, ...] = ()
    duplicate_rule: str = ""  # the column that the default duplicate rule compares
    tracked: bool = False  # change tracking is on from the start
    number: tuple[str, str] | None = None  # a column that the server numbers, and the numbers' prefix
    lines: str = ""  # the lookup to the document whose lines these are
    activity: bool = False
    view: tuple[str, ...] = ()  # the tables whose rows it lists
    operations: frozenset[str] = frozenset(OPERATIONS.split())

    @property
    def names(self) -> tuple[str, ...]:
        """What lookups to its rows call their table."""
        return self.view or (self.name,)

    @cached_property
    def composites(self) -> list[str]:
        """Prefixes of the addresses that the server writes as one text."""
        return [name.removesuffix("composite") for name in self.columns if name.endswith("_composite")]

    @cached_property
    def base_amounts(self) -> list[tuple[str, str]]:
        """Columns of amounts in the base currency, each with the column of the amount."""
        return [(name, name.removesuffix("_base")) for name in self.columns if name.endswith("_base")]

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
        default=_value(facts["default"]) if "default" in facts else False if kind == "bool" else None,
        scale=int(facts.get("scale", 10)),
        low=int(facts["min"]) if "min" in facts else None,
        high=int(facts["max"]) if "max" in facts else None,
        cascade="cascade" in facts,
        parental="parental" in facts,
    )


def _value(text: str) -> int | bool:
    return text == "true" if text in ("true", "false") else int(text)


def _pairs(text: str) -> dict[str, str]:
    return dict(pair.split(":") for pair in text.split(",")) if text else {}


def _entity(spec: dict[str, Any]) -> Entity:
    lines = [line.strip() for line in spec["columns"].splitlines() if line.strip()]
    columns = {c.name: c for c in map(_column, lines)}
    name = spec["name"]
    return Entity(
        name=name,
        schema_name=spec.get("schema", name.capitalize()),
        set_name=spec["set"],
        primary_name=spec["primary_name"],
        type_code=spec["code"],
        columns=columns,
        key=spec.get("key", f"{name}id"),
        states=_states(name, columns),
        alternate_keys=tuple(re.findall(r"\S+", spec.get("keys", ""))),
        duplicate_rule=spec.get("duplicates", ""),
        tracked=spec.get("tracked", False),
        number=tuple(spec["number"].split()) if "number" in spec else None,
        lines=spec.get("lines", ""),
        activity=spec.get("activity", False),
        view=tuple(spec.get("view", "").split()),
        operations=frozenset(spec.get("only", OPERATIONS).split()),
    )


def _states(name: str, columns: dict[str, Column]) -> States:
    rules = RULES.get(name, {})
    reasons = columns["statuscode"].states if "statuscode" in columns else {1: 0}
    reason, state = next(iter(reasons.items()))
    return States(
        first=(state, reason),
        closed=frozenset(rules.get("closed", ())),
        final=frozenset(rules.get("final", ())),
        by=rules.get("by", {}),
        merged=rules.get("merged"),
    )


TABLES: dict[str, Entity] = {e.name: e for e in map(_entity, ENTITIES)}
SETS: dict[str, Entity] = {e.set_name: e for e in TABLES.values()}
CLOSINGS: dict[str, Action] = {a.name: a for a in (Action(**facts) for facts in ACTIONS)}
# Documents: table -> the table of its lines and their lookup to it.
LINES: dict[str, tuple[Entity, Column]] = {
    target: (line, line.columns[line.lines])
    for line in TABLES.values()
    if line.lines
    for target in line.columns[line.lines].targets
}


def collections(entity: Entity) -> dict[str, tuple[Entity, Column]]:
    """Collection-valued navigation properties of a table: name -> (table of the rows, their lookup)."""
    return _collections(entity.name)


@cache
def _collections(name: str) -> dict[str, tuple[Entity, Column]]:
    return {
        column.reverse[name]: (other, column)
        for other in TABLES.values()
        for column in other.columns.values()
        if name in column.reverse
    }


@cache
def references(name: str) -> list[tuple[Entity, Column]]:
    """The lookups that can point to rows of a table; a view's are those of the tables that it lists."""
    return [
        (other, column)
        for other in TABLES.values()
        if not other.view
        for column in other.columns.values()
        if name in column.targets
    ]
