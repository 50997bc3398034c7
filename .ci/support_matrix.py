"""Writes docs/support-matrix.md from what the connectors declare: `support_matrix.py` (or `make docs`).

Everything comes from the declarations that the hub itself works by (`crm_core.connector`, `crm_core.model.mapping`), for
every connector that discovery finds; where a system keeps the kinds of an entity apart, the maps of these are found in
the connector's own kind of map by their type.
"""

# ruff: noqa: INP001, T201 - a script, no package
import dataclasses
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from crm_core.connector import Connector  # noqa: E402 - the repository is no installed package
from crm_core.hub import connector_class, connector_names  # noqa: E402
from crm_core.model.entities import ENTITIES, Entity  # noqa: E402
from crm_core.model.field_map import FieldMap  # noqa: E402
from crm_core.model.fields import Field, Type  # noqa: E402
from crm_core.model.mapping import EntityMap  # noqa: E402

FILE = ROOT / "docs" / "support-matrix.md"
FEW = 10
"""Names of values that a cell still holds; more stand below the table."""

INTRODUCTION = """\
# What each connector supports

Written by `make docs` from what the connectors declare, so don't edit it; a test compares the two.

A field has the same name at every system; *there* is what the system itself calls it, which requests may use as well.
**Read**: answers and pulls tell it. **Write**: a create or update may set it. A canonical field that is not in a table is not
available at that system: naming it in a write is refused, and answers leave it out. What a system has without a canonical
name, such as custom columns, can be filtered by, selected and written under the system's own name.

`!` after a field: needed to create. A value that the system has and that has no name here is read and written as
`native:` and that value.
"""


def page() -> str:
    """The whole document."""
    found = [connector_class(name) for name in connector_names()]
    parts = [INTRODUCTION, overview(found), *(section(each) for each in found)]
    return "\n".join(parts)


def overview(found: Iterable[type[Connector]]) -> str:
    """Which entity is at which connector, with the number of its fields there of those that it has."""
    classes = list(found)
    rows = [
        [f"{entity.name} (`{entity.path}`)", *(_share(each, entity) for each in classes)]
        for entity in ENTITIES.values()
    ]
    return "## Entities\n\n" + _table(["entity", *(each.label for each in classes)], rows)


def _share(connector: type[Connector], entity: Entity) -> str:
    emap = connector.entities.get(entity.name)
    if emap is None:
        return "-"
    if connector.delivers_to:
        return "told of all fields"
    return f"[{len(_mapped(emap))} of {len(_own(entity))} fields](#{_anchor(connector, entity.name)})"


def _own(entity: Entity) -> list[Field]:
    """The fields that a remote system can have: what the hub itself keeps is left out."""
    beside = {field.companion for field in entity.fields if field.companion}
    return [field for field in entity.fields if field.name != "deleted_at" and field.name not in beside]


def _mapped(emap: EntityMap) -> list[Field]:
    return [field for field in _own(emap.entity) if field.name in emap.by_field]


def _anchor(connector: type[Connector], entity: str) -> str:
    return f"{connector.name}-{entity}"


def section(connector: type[Connector]) -> str:
    """One connector: what it can do, then its entities."""
    if connector.delivers_to:
        return _receiver(connector)
    facts = [
        ["entities", ", ".join(connector.entities)],
        ["pulled unless the connection says otherwise", ", ".join(connector.pulled or connector.entities)],
        ["live calls", "list, get, create, update, delete, batch" + _expand_too(connector)],
        ["writes in one call of the system", str(connector.batch_size)],
        ["calls of one connection at a time, in each process", str(connector.concurrency)],
        ["minutes between two pulls, unless the connection says otherwise", str(connector.default_minutes)],
        ["runs with `since` or a filter", _yes(connector.begin is not Connector.begin)],
        ["versions of records", connector.versions],
        ["`If-Match`", _yes(connector.if_match)],
        ["the same create twice makes one record", _yes(connector.own_ids)],
        ["a create whose answer was lost is found again by", _found_by(connector)],
        ["pulls are told of deletes", _yes(connector.tells_deletes)],
        ["settings", _settings(connector, secret=False)],
        ["secrets", _settings(connector, secret=True)],
    ]
    head = f"## {connector.label} (`{connector.name}`)\n\n" + _table(["", ""], facts)
    return "\n".join([head, *(_entity(connector, emap) for emap in connector.entities.values())])


def _receiver(connector: type[Connector]) -> str:
    """One that is told of changes, by our own names."""
    facts = [
        ["entities", ", ".join(connector.entities)],
        ["live calls", "none: every version of a record is delivered, and nothing is read back"],
        ["settings", _settings(connector, secret=False)],
        ["secrets", _settings(connector, secret=True)],
    ]
    names = "Every field goes under its own name, unless the connection's mapping says otherwise."
    return f"## {connector.label} (`{connector.name}`)\n\n" + _table(["", ""], facts) + f"\n{names}\n"


def _found_by(connector: type[Connector]) -> str:
    """For all entities alike, or by entity."""
    words = {"id": "its id, which is ours", "marker": "a marker", "": "its values alone"}
    found = {name: words[connector.found_by(name)] for name in connector.entities}
    if len(set(found.values())) == 1:
        return next(iter(found.values()))
    return ", ".join(f"{name}: {how}" for name, how in found.items())


def _expand_too(connector: type[Connector]) -> str:
    return ", `expand`" if any(each.navigations for each in connector.entities.values()) else ""


def _settings(connector: type[Connector], *, secret: bool) -> str:
    return ", ".join(f"`{each.name}`" for each in connector.settings if each.secret is secret) or "-"


def _entity(connector: type[Connector], emap: EntityMap) -> str:
    entity = emap.entity
    kinds = dict(_kinds(emap))
    there = f"`{emap.remote}`" + (
        f"; by kind {', '.join(f'{kind} `{each.remote}`' for kind, each in kinds.items())}" if kinds else ""
    )
    blocks = [f"### {connector.name}: {entity.name}", f"At the system: {there}.", _fields(emap, kinds)]
    blocks += _long_choices(emap)
    if emap.final:
        blocks.append(f"No update leads out of the status {' or '.join(sorted(emap.final))}.")
    missing = [f"`{field.name}`" for field in _own(entity) if field.name not in emap.by_field]
    if missing:
        blocks.append(f"Not available: {', '.join(missing)}.")
    blocks += _ways(emap)
    if emap.lines is not None:
        blocks.append(
            f"Each of the `lines` (`{emap.lines.remote}` at the system):\n\n{_fields(emap.lines, {})}"
        )
    return "\n\n".join(block.rstrip("\n") for block in blocks) + "\n"


def _kinds(emap: EntityMap) -> Iterator[tuple[str, EntityMap]]:
    """The maps of the kinds of an entity, where the system keeps each kind apart."""
    for field in dataclasses.fields(emap):
        value = getattr(emap, field.name)
        if isinstance(value, Mapping):
            yield from ((key, each) for key, each in value.items() if isinstance(each, EntityMap))


def _fields(emap: EntityMap, kinds: Mapping[str, EntityMap]) -> str:
    needed = {field.name for field in emap.entity.fields if field.required} | emap.required
    rows = []
    for field in _mapped(emap):
        each = emap.by_field[field.name]
        rows.append(
            [
                f"`{field.name}`" + ("!" if field.name in needed else ""),
                _kind(field),
                "below" if field.type is Type.LINES else f"`{each.native}`",
                _yes(each.readable),
                _yes(each.writable and not field.read_only),
                "; ".join(_notes(field, each, kinds)),
            ]
        )
    return _table(["field", "type", "there", "read", "write", "notes"], rows)


def _kind(field: Field) -> str:
    return "reference" if field.type is Type.REF else str(field.type)


def _notes(field: Field, each: FieldMap, kinds: Mapping[str, EntityMap]) -> Iterator[str]:
    apart = {kind: emap.by_field[field.name] for kind, emap in kinds.items() if field.name in emap.by_field}
    if len(apart) < len(kinds):
        yield f"of {', '.join(apart)} alone"
    if apart and each.writable and not any(one.writable for one in apart.values()):
        yield "chosen by the create, not changed later"
    yield from _stored(each)
    if each.names:
        yield _choices(each) if len(each.values) <= FEW else f"{len(each.values)} names, below"
    if each.targets:
        yield f"to {', '.join(target.entity for target in each.targets)}"
        if field.companion:
            yield f"`{field.companion}` says to which"
        missing = [name for name in field.targets if name not in {target.entity for target in each.targets}]
        if missing:
            yield f"not to {', '.join(missing)}"
    unnamed = [name for name in field.choices if name not in each.values]
    if unnamed:
        yield f"not {', '.join(unnamed)}"
    for kind, one in apart.items():
        written = {name: values[0] for name, values in one.values.items() if one.writable}
        for name, value in written.items():
            if value != each.values[name][0]:
                yield f"{name} of {kind} is written as {_value(value)}"
    if "/" in each.native:
        yield "a text of another table there" + (", which has to exist" if each.writable else "")


def _stored(each: FieldMap) -> Iterator[str]:
    """What the system keeps of a value."""
    if each.length is not None:
        yield f"at most {each.length} characters"
    if each.scale is not None:
        yield f"rounded to {each.scale} digits"
    if each.whole_seconds:
        yield "whole seconds"
    if each.midnight:
        yield "kept there as the first moment of the day, UTC"
    if each.day:
        yield "the day in UTC, read as its first moment"


def _choices(each: FieldMap) -> str:
    return ", ".join(f"{name} ({', '.join(map(_value, values))})" for name, values in each.values.items())


def _value(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _long_choices(emap: EntityMap) -> list[str]:
    return [f"Names of `{each.field}`: {_choices(each)}." for each in emap.fields if len(each.values) > FEW]


def _ways(emap: EntityMap) -> list[str]:
    """What `expand` can bring along."""
    one = [
        f"`{way.native}`{f' or `{way.field}`' if way.field else ''} → {way.target}"
        for way in emap.navigations
        if not way.many
    ]
    many = [f"`{way.native}` → {way.target}" for way in emap.navigations if way.many]
    said = []
    if one:
        said.append(f"`expand` to one record: {', '.join(one)}.")
    if many:
        said.append(f"`expand` to a list: {', '.join(many)}.")
    return said


def _yes(answer: bool) -> str:
    return "yes" if answer else "no"


def _table(head: list[str], rows: list[list[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "".join("| " + " | ".join(cells) + " |\n" for cells in lines)


if __name__ == "__main__":
    FILE.write_text(page(), "utf-8")
    print(f"{FILE.relative_to(ROOT)}: written")
