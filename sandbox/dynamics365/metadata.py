"""EntityDefinitions: what clients ask about tables and columns (Web API: query table definitions)."""

import uuid
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from sandbox.dynamics365.errors import Refused, bad_query
from sandbox.dynamics365.expression import Parser
from sandbox.dynamics365.filters import Getter, compile_filter
from sandbox.dynamics365.keys import Segment
from sandbox.dynamics365.options import Query, positive
from sandbox.dynamics365.org import NAMESPACE, Org
from sandbox.dynamics365.schema import ATTRIBUTE, TABLES, Column, Entity, references
from sandbox.dynamics365.wire import answer
from sandbox.frame import Response
from sandbox.store import Values

DERIVED = "Microsoft.Dynamics.CRM."
CASTS = {
    "StringAttributeMetadata": ("string",), "MemoAttributeMetadata": ("memo",), "IntegerAttributeMetadata": ("int",),
    "BigIntAttributeMetadata": ("bigint",), "MoneyAttributeMetadata": ("money",), "DecimalAttributeMetadata": ("decimal",),
    "DoubleAttributeMetadata": ("double",), "BooleanAttributeMetadata": ("bool",), "PicklistAttributeMetadata": ("picklist",),
    "StateAttributeMetadata": ("state",), "StatusAttributeMetadata": ("status",), "LookupAttributeMetadata": ("lookup",),
    "DateTimeAttributeMetadata": ("datetime", "date"), "UniqueIdentifierAttributeMetadata": ("key", "guid"),
}  # fmt: skip
# Types as the reference names them (a key is an ordinary unique identifier).
CAST_OF = {kind: name for name, kinds in CASTS.items() for kind in kinds}
EXPANDABLE = ("OptionSet", "GlobalOptionSet")


def _id(*parts: str) -> str:
    return str(uuid.uuid5(NAMESPACE, "/".join(parts)))


def _label(text: str) -> Values:
    label = {
        "Label": text,
        "LanguageCode": 1033,
        "IsManaged": True,
        "MetadataId": _id("label", text),
        "HasChanged": None,
    }
    return {"LocalizedLabels": [label], "UserLocalizedLabel": label}


def entity_facts(org: Org, entity: Entity) -> Values:
    return {
        "LogicalName": entity.name,
        "SchemaName": entity.schema_name,
        "EntitySetName": entity.set_name,
        "LogicalCollectionName": entity.set_name,
        "CollectionSchemaName": entity.set_name,
        "PrimaryIdAttribute": entity.key,
        "PrimaryNameAttribute": entity.primary_name,
        "ObjectTypeCode": entity.type_code,
        "ChangeTrackingEnabled": org.tracked(entity),
        "IsOptimisticConcurrencyEnabled": True,
        "IsActivity": entity.activity,
        "IsCustomEntity": False,
        "IsIntersect": False,
        "IsPrivate": False,
        "DisplayName": _label(entity.schema_name),
        "MetadataId": _id(entity.name),
    }


def _option(value: int, text: str, column: Column) -> Values:
    option: Values = {"Value": value, "Label": _label(text), "Color": None, "IsManaged": True}
    if column.kind == "status":
        option["State"] = column.states[value]
    return option


def option_set(entity: Entity, column: Column) -> Values:
    name = f"{entity.name}_{column.name}"
    common = {"Name": name, "IsCustomOptionSet": False, "IsGlobal": False, "MetadataId": _id(name, "options")}
    if column.kind == "bool":
        return {
            **common, "OptionSetType": "Boolean",
            "TrueOption": _option(1, "Yes", column), "FalseOption": _option(0, "No", column),
        }  # fmt: skip
    kind = {"state": "State", "status": "Status"}.get(column.kind, "Picklist")
    return {
        **common,
        "OptionSetType": kind,
        "Options": [_option(v, t, column) for v, t in column.options.items()],
    }


def attribute_facts(entity: Entity, column: Column) -> Values:
    """What every column tells; facts of its type are in ``typed_facts``."""
    required = {
        "Value": column.required,
        "CanBeChanged": True,
        "ManagedPropertyLogicalName": "canmodifyrequirementlevelsettings",
    }
    kind = (
        "Owner"
        if column.name == "ownerid"
        else "Customer"
        if column.name in ("parentcustomerid", "customerid")
        else ATTRIBUTE[column.kind]
    )
    return {
        "LogicalName": column.name,
        "SchemaName": column.schema_name,
        "EntityLogicalName": entity.name,
        "AttributeType": kind,
        "AttributeTypeName": {"Value": f"{kind}Type"},
        "AttributeOf": None,
        "IsPrimaryId": column.kind == "key",
        "IsPrimaryName": column.name == entity.primary_name,
        "IsValidForCreate": column.create,
        "IsValidForUpdate": column.update and column.kind != "key",
        "IsValidForRead": True,
        "IsCustomAttribute": False,
        "IsLogical": False,
        "RequiredLevel": required,
        "DisplayName": _label(column.schema_name),
        "MetadataId": _id(entity.name, column.name),
    }


def typed_facts(column: Column) -> Values:
    if column.kind in ("string", "memo"):
        return {
            "MaxLength": column.length,
            "DatabaseLength": column.length * 2,
            "FormatName": {"Value": "Text"},
        }
    if column.kind in ("money", "decimal"):
        return {
            "Precision": 2 if column.kind == "money" else column.scale,
            "MinValue": -922337203685477,
            "MaxValue": 922337203685477,
        }
    if column.kind == "int":
        low, high = column.low, column.high
        return {
            "MinValue": -2147483648 if low is None else low,
            "MaxValue": 2147483647 if high is None else high,
            "Format": "None",
        }
    if column.kind in ("datetime", "date"):
        date = column.kind == "date"
        return {
            "Format": "DateOnly" if date else "DateAndTime",
            "DateTimeBehavior": {"Value": "DateOnly" if date else "UserLocal"},
        }
    if column.kind == "lookup":
        return {"Targets": list(column.targets)}
    return {}


class _Facts:
    """Metadata as a scope for filters: property types follow from their values."""

    def __init__(self, sample: Values, kind: str) -> None:
        self._sample, self._kind = sample, kind

    def now(self) -> datetime:
        return datetime.now(UTC)

    def property(self, path: str) -> tuple[Getter, str]:
        head, _, rest = path.partition("/")
        value = self._sample.get(head)
        if head not in self._sample or (rest and not isinstance(value, dict)):
            raise bad_query(
                f"Could not find a property named '{head}' on type 'Microsoft.Dynamics.CRM.{self._kind}'."
            )
        if rest and isinstance(value, dict):
            inner, edm = _Facts(value, self._kind).property(rest)
            return (lambda values: inner(values[head])), edm
        edm = {bool: "Edm.Boolean", int: "Edm.Int32"}.get(type(value), "Edm.String")
        if head == "MetadataId":
            edm = "Edm.Guid"
        return (lambda values: values.get(head)), edm


ENUMS = "Microsoft.Dynamics.CRM."


def _choose(rows: list[Values], query: Query, kind: str, sample: Values) -> list[Values]:
    text = query.get("$filter")
    if text is not None:
        # Enumeration literals carry their type: AttributeType eq Microsoft.Dynamics.CRM.AttributeTypeCode'String'
        for enum in ("AttributeTypeCode", "RelationshipType"):
            text = text.replace(f"{ENUMS}{enum}'", "'")
        test = compile_filter(Parser(text, query.aliases).parse(), _Facts(sample, kind))
        rows = [r for r in rows if test(r)]
    if (top := query.get("$top")) is not None:
        rows = rows[: positive(top, "$top")]
    return [_select(r, query, kind) for r in rows]


def _select(row: Values, query: Query, kind: str) -> Values:
    names = query.names("$select")
    if not names:
        return row
    for name in names:
        if name not in row:
            raise bad_query(
                f"Could not find a property named '{name}' on type 'Microsoft.Dynamics.CRM.{kind}'."
            )
    kept = {n: row[n] for n in names}
    extra = {n: row[n] for n in ("@odata.type", *EXPANDABLE, "Attributes") if n in row}
    return {**extra, **kept, "MetadataId": row["MetadataId"]}


def _find(segment: Segment, rows: list[Values], what: str) -> Values:
    """The row of a key: ``LogicalName='x'`` (of a relationship ``SchemaName='x'``) or the MetadataId."""
    text = segment.key.text if segment.key else ""
    name, _, value = text.partition("=")
    known = "SchemaName" if what == "relationship" else "LogicalName"
    for row in rows:
        if row["MetadataId"] == text.lower() or (name == known and value == f"'{row[known]}'"):
            return row
    raise Refused(
        404,
        "0x80060888" if what == "table" else "0x80040217",
        f"Could not find the {what} with the given key: {text}",
    )


def handle(org: Org, base: str, path: list[Segment], query: Query) -> Response:
    """``EntityDefinitions`` and what lies below it; read-only here."""
    rows = [entity_facts(org, e) for e in TABLES.values()]
    where = f"{base}/$metadata#EntityDefinitions"
    if path[0].key is None:
        return answer(
            200, {"@odata.context": where, "value": _choose(rows, query, "EntityMetadata", rows[0])}
        )
    found = _find(path[0], rows, "table")
    entity = TABLES[found["LogicalName"]]
    if len(path) == 1:
        if "Attributes" in (query.get("$expand") or ""):
            found = {**found, "Attributes": [attribute_facts(entity, c) for c in entity.columns.values()]}
        return answer(200, {"@odata.context": f"{where}/$entity", **_select(found, query, "EntityMetadata")})
    if path[1].name == "Attributes":
        return _attributes(entity, f"{where}('{entity.name}')/Attributes", path[1:], query)
    if path[1].name in RELATIONS:
        found_rows = RELATIONS[path[1].name](entity)
        sample = relationships(TABLES["account"])[0]
        return answer(200, {"value": _choose(found_rows, query, "OneToManyRelationshipMetadata", sample)})
    if path[1].name == "Keys":
        return answer(200, {"value": [_key(entity, n) for n in entity.alternate_keys]})
    raise Refused(404, "0x80060888", f"Resource not found for the segment '{path[1].name}'.")


def _key(entity: Entity, name: str) -> Values:
    schema = entity.columns[name].schema_name
    return {
        "LogicalName": f"{name}_key",
        "SchemaName": f"{schema}_Key",
        "KeyAttributes": [name],
        "EntityKeyIndexStatus": "Active",
        "MetadataId": _id(entity.name, name, "key"),
    }


def _relationship(entity: Entity, column: Column, target: str) -> Values:
    """One lookup to one table, with the navigation names that writes need, which are case-sensitive.

    A relationship is called like the collection at its other end.
    """
    name = column.reverse.get(target, f"{target}_{entity.name}_{column.name}")
    return {
        "RelationshipType": "OneToManyRelationship",
        "ReferencingEntity": entity.name,
        "ReferencingAttribute": column.name,
        "ReferencedEntity": target,
        "ReferencedAttribute": TABLES[target].key,
        "ReferencingEntityNavigationPropertyName": column.targets[target],
        "ReferencedEntityNavigationPropertyName": name,
        "SchemaName": name,
        "IsCustomRelationship": False,
        "MetadataId": _id(entity.name, column.name, target),
    }


def relationships(entity: Entity) -> list[Values]:
    """The lookups of a table."""
    return [_relationship(entity, c, target) for c in entity.columns.values() for target in c.targets]


def _referring(entity: Entity) -> list[Values]:
    """The lookups to a table."""
    return [_relationship(other, column, entity.name) for other, column in references(entity.name)]


RELATIONS: dict[str, Callable[[Entity], list[Values]]] = {
    "ManyToOneRelationships": relationships,
    "OneToManyRelationships": _referring,
    "ManyToManyRelationships": lambda _entity: [],
}


def relationship_definitions(base: str, path: list[Segment], query: Query) -> Response:
    """``RelationshipDefinitions``: every lookup of every table. As they could be of several types, each says its own."""
    kind = "OneToManyRelationshipMetadata"
    rows = [
        {"@odata.type": f"#{DERIVED}{kind}", **row}
        for entity in TABLES.values()
        for row in relationships(entity)
    ]
    where = f"{base}/$metadata#RelationshipDefinitions"
    if path[0].key is None:
        return answer(200, {"@odata.context": where, "value": _choose(rows, query, kind, rows[0])})
    found = _find(path[0], rows, "relationship")
    return answer(200, {"@odata.context": f"{where}/$entity", **_select(found, query, kind)})


def _attributes(entity: Entity, where: str, path: list[Segment], query: Query) -> Response:
    """Columns; facts of a type (lengths, choices) can be selected only after a cast to that type."""
    kinds: tuple[str, ...] = tuple(ATTRIBUTE)
    kind = "AttributeMetadata"
    cast = path[1].name if len(path) > 1 else ""
    if cast:
        kind = cast.removeprefix(DERIVED)
        if kind not in CASTS:
            raise Refused(404, "0x80060888", f"Resource not found for the segment '{cast}'.")
        kinds = CASTS[kind]
    columns = [c for c in entity.columns.values() if c.kind in kinds]
    rows = [_attribute(entity, c, query, cast=bool(cast)) for c in columns]
    sample = attribute_facts(entity, entity.columns[entity.key])
    if path[0].key is not None:
        row = _find(path[0], rows, "column")
        if len(path) > 2 and path[2].name in EXPANDABLE:
            return answer(
                200,
                {
                    "@odata.context": f"{where}/{path[2].name}",
                    **option_set(entity, entity.columns[row["LogicalName"]]),
                },
            )
        return answer(200, {"@odata.context": f"{where}/$entity", **_select(row, query, kind)})
    return answer(200, {"@odata.context": where, "value": _choose(rows, query, kind, sample)})


def _attribute(entity: Entity, column: Column, query: Query, *, cast: bool) -> Values:
    facts: dict[str, Any] = attribute_facts(entity, column)
    if cast or not query.names("$select"):
        facts |= typed_facts(column)
    if not cast:
        facts = {"@odata.type": f"#{DERIVED}{CAST_OF[column.kind]}", **facts}
    expand = query.get("$expand") or ""
    if cast and "OptionSet" in expand and column.kind in ("picklist", "state", "status", "bool"):
        facts["OptionSet"] = option_set(entity, column)
    if cast and "GlobalOptionSet" in expand:
        facts["GlobalOptionSet"] = None
    return facts
