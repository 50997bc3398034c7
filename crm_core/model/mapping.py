"""How an entity is called at a remote system, and how its rows become canonical fields and back; declared, pure."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Protocol

from crm_core.errors import BadRequest, FieldError
from crm_core.model.entities import RESERVED, Entity
from crm_core.model.field_map import FieldMap, Target
from crm_core.model.fields import Type


@dataclass(frozen=True)
class NativeField:
    """A property that the remote's own metadata lists. `writable`: on create or update.

    `choices`: the values that it takes, each with its label. `target`: what a reference leads to, as the remote calls it.
    """

    name: str
    type: str
    writable: bool
    choices: Mapping[str, str] = field(default_factory=dict)
    target: str = ""


@dataclass(frozen=True)
class Navigation:
    """A way from a record to others that one call can bring along (`expand`). `native`: its name at the remote.

    `target`: the entity that it leads to. `many`: to a list, not to one record. `field`: the canonical reference
    that it follows, by whose name it can be asked for too.
    """

    native: str
    target: str
    many: bool = False
    field: str = ""


class Derived(Protocol):
    """Properties that are written and never read: a constant, or a text made of several fields."""

    @property
    def path(self) -> tuple[str, ...]:
        """The property, with its parts from the outside to the inside."""
        ...

    @property
    def sources(self) -> tuple[str, ...]:
        """The canonical fields that it is made of; none for a constant."""
        ...

    def put(self, fields: Mapping[str, Any]) -> Mapping[str, Any]:
        """The properties for the values of its sources."""
        ...


@dataclass(frozen=True)
class EntityMap:
    """An entity at a remote system. `remote`: its collection or model there; `key`: the property of the id.

    `required`: fields that this system needs on create beside those that the entity does. `lines`: the map of a
    document's lines. `final`: statuses that no update leads out of. `derived`: what is written besides the fields.
    `read_only`: nothing is made, changed or deleted there. `keeps_lines`: a line that a new document has is never taken
    away again.
    `mark`: of the overrides that made this map of the declared one, "" for none; a place in a feed belongs to it,
    since after another map all has to be read again. `joins`: of a system that is told of whole records: its mapping may
    name what `joined.py` knows, too.
    """

    entity: Entity
    remote: str
    key: str
    modified: str
    version: str
    fields: tuple[FieldMap, ...]
    navigations: tuple[Navigation, ...] = ()
    required: frozenset[str] = frozenset()
    lines: "EntityMap | None" = None
    final: frozenset[str] = frozenset()
    derived: tuple[Derived, ...] = ()
    mark: str = ""
    read_only: bool = False
    keeps_lines: bool = False
    joins: bool = False

    @property
    def fixed(self) -> Mapping[str, str]:
        """Fields that no override changes, since the connector's own steps rest on them, each with the reason; by ""
        the reason why none can be changed at all.
        """
        return {}

    def of(self, fields: Mapping[str, Any]) -> "EntityMap":  # noqa: ARG002  # for subclasses
        """The map of a record with these fields: of an entity that the remote keeps in several places, one of them."""
        return self

    @cached_property
    def by_field(self) -> Mapping[str, FieldMap]:
        return {each.field: each for each in self.fields}

    @cached_property
    def by_native(self) -> Mapping[str, FieldMap]:
        """Where two fields share a property, it is the first one's."""
        return {each.native: each for each in reversed(self.fields) if each.plain}

    @cached_property
    def companions(self) -> Mapping[str, FieldMap]:
        """The references that can lead to several entities, by the field that names which."""
        known = self.entity.by_name
        return {name: each for each in self.fields if (name := known[each.field].companion)}

    @cached_property
    def specific(self) -> Mapping[str, tuple[FieldMap, str]]:
        """Names that say reference and entity at once, such as customer_account_id."""
        return {
            f"{each.field.removesuffix('_id')}_{target}_id": (each, target)
            for each in self.companions.values()
            for target in self.entity.by_name[each.field].targets
        }

    @cached_property
    def read_names(self) -> tuple[str, ...]:
        """The canonical fields that an answer of this system tells, in the order of their declaration."""
        names: list[str] = []
        for each in self.fields:
            companion = self.entity.by_name[each.field].companion
            if each.readable:
                names += [each.field, companion] if companion else [each.field]
        return tuple(names)

    @cached_property
    def written_names(self) -> tuple[str, ...]:
        """The canonical fields that may be written at this system, in the order of their declaration."""
        names: list[str] = []
        for each in self.fields:
            kind = self.entity.by_name[each.field]
            if each.writable and not kind.read_only:
                names += [each.field, kind.companion] if kind.companion else [each.field]
        return (*names, *self.parts)

    @cached_property
    def parts(self) -> tuple[str, ...]:
        """The canonical fields that are no property of their own but part of one: written, and never read."""
        sources = dict.fromkeys(name for each in self.derived for name in each.sources)
        known = self.entity.by_name
        return tuple(name for name in sources if name not in self.by_field and not known[name].read_only)

    def canon(self, name: str, value: Any) -> Any:
        """The value of a canonical field that this system would hold, and give back, once it was written
        (sync-semantics.md, section 1). What is not mapped here, or can't be written, is as it is.
        """
        each = self.by_field.get(name)
        if each is None or value is None:
            return value
        if self.lines is not None and self.entity.by_name[name].type is Type.LINES:
            return [{key: self.lines.canon(key, part) for key, part in line.items()} for line in value]
        return each.canon(self.entity.by_name[name], value)

    @cached_property
    def _written_by(self) -> Mapping[str, frozenset[str]]:
        """The properties whose own name means no field, each with the fields that write them."""
        found: dict[str, frozenset[str]] = {}
        for each in self.fields:
            for place in each.places if each.writable and not each.plain else ():
                found[place[0]] = found.get(place[0], frozenset()) | {each.field}
        return found

    def find(self, name: str) -> FieldMap | None:
        """The map of a canonical or native name."""
        if name in self.specific:
            return self.specific[name][0]
        return self.by_field.get(name) or self.by_native.get(name)

    def navigation(self, name: str) -> Navigation | None:
        """The way of a native name, or of the canonical reference that it follows."""
        return next((each for each in self.navigations if name in (each.native, each.field)), None)

    def inward(self, row: Mapping[str, Any]) -> dict[str, Any]:
        """The canonical fields of a remote row; empty ones are left out. Raises ValueError naming the property."""
        fields: dict[str, Any] = {}
        native = ""
        try:
            for name, native, read in self._readers:
                value = row.get(native)
                if value is not None and value != "" and (value := read(value)) is not None:
                    fields[name] = value
            for each, native, take, read, companion in self._other_readers:
                value = take(row) if take else row.get(native)
                if value is None or value == "":
                    continue
                target = each.target(row) if each.targets else None
                if each.targets and target is None:
                    continue  # a reference to something else
                if (value := read(value)) is not None:
                    fields[each.field] = value
                    if companion and target is not None:
                        fields[companion] = target.entity
        except ValueError as error:
            raise ValueError(f"{native}: {error}") from None
        return fields

    def told(self, row: Mapping[str, Any]) -> dict[str, Any]:
        """As `inward`, of a row that may tell a part of the fields: null for what it says is empty."""
        fields = self.inward(row)
        for each in self.fields:
            told = each.is_told(row)
            companion = self.entity.by_name[each.field].companion
            if each.field in fields and each.natives and not told:
                del fields[each.field]  # made of several properties, some of which are not here
            elif told and each.field not in fields:
                if each.targets and row.get(each.native) not in (None, ""):
                    raise ValueError(f"{each.native}: leads to an entity that is not known here")
                fields |= {each.field: None, **({companion: None} if companion else {})}
        return fields

    @cached_property
    def _readers(self) -> Sequence[tuple[str, str, Callable[[Any], Any]]]:
        """Of each field that is a property of its own: its name, `native`, and how its value is read."""
        known = self.entity.by_name
        return [
            (each.field, each.native, each.reader(known[each.field]))
            for each in self.fields
            if each.readable and each.take is None and not each.targets
        ]

    @cached_property
    def _other_readers(self) -> Sequence["_Reader"]:
        """Of the other fields, references among them: the field, `native`, `take`, how its value is read, its
        companion.
        """
        known = self.entity.by_name
        return [
            (each, each.native, each.take, each.reader(known[each.field]), known[each.field].companion)
            for each in self.fields
            if each.readable and (each.take is not None or each.targets)
        ]

    def outward(self, fields: Mapping[str, Any], beside: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Native properties for canonical fields, references as they are written; raises BadRequest naming fields.

        `beside`: the fields that the record has anyway, none for a new one; None: they are not known, which is refused
        where they are needed (`along`).
        """
        row: dict[str, Any] = {}
        errors = []
        for name, value in fields.items():
            try:
                merge_into(row, self._written(name, value, fields))
            except ValueError as error:
                errors.append(FieldError(name, f"{name}: {error}."))
        missing = self.along(fields) if beside is None else ()
        if missing:
            name = next(iter(fields))
            text = f"{name}: is written together with {', '.join(missing)}; give all of them."
            errors.append(FieldError(name, text))
        if errors:
            raise BadRequest(errors[0].message, errors=errors)
        is_new = beside is not None and not beside
        for each in self.derived:
            wanted = any(name in fields for name in each.sources) if each.sources else bool(row) or is_new
            if wanted:
                merge_into(row, each.put({**(beside or {}), **fields}))
        return row

    def along(self, fields: Iterable[str]) -> tuple[str, ...]:
        """The fields whose values have to be known to write these: others that a property is made of as well."""
        given = set(fields)
        return tuple(
            dict.fromkeys(
                name
                for each in self.derived
                if given.intersection(each.sources)
                for name in each.sources
                if name not in given
            )
        )

    def _written(self, name: str, value: Any, fields: Mapping[str, Any]) -> Mapping[str, Any]:
        if name in self.companions:
            beside = self.companions[name].field
            if fields.get(beside) is None and value is not None:
                raise ValueError(f"goes with {beside}; give both")
            return {}
        if name in self.parts:
            return {}
        each = self.by_field[name]
        native = each.outward(self.entity.by_name[name], value)
        if not each.targets:
            return each.put(native)
        target = self._target(each, fields)
        if native is None:
            return {target.clear: None}
        return {target.write: target.value.format(id=native)}

    def _target(self, each: FieldMap, fields: Mapping[str, Any]) -> Target:
        kind = self.entity.by_name[each.field]
        wanted = fields.get(kind.companion) if kind.companion else None
        if wanted is None:
            if kind.companion and fields[each.field] is not None:
                raise ValueError(
                    f"can be of several kinds; give {kind.companion} too: {', '.join(kind.targets)}"
                )
            return each.targets[0]
        found = next((target for target in each.targets if target.entity == wanted), None)
        if found is None:
            known = ", ".join(target.entity for target in each.targets)
            raise ValueError(f"leads to no {wanted} at this system; expected one of {known}")
        return found

    def accept(
        self, body: Mapping[str, Any], described: Mapping[str, NativeField], *, create: bool
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """What a caller's item says: (canonical fields, native properties without a canonical name).

        Names may be canonical or the remote's own. Raises BadRequest with one error for each wrong field.
        """
        fields: dict[str, Any] = {}
        native: dict[str, Any] = {}
        errors: list[FieldError] = []
        for name, value in body.items():
            try:
                self._accept_one(name, value, described, fields, native)
            except ValueError as error:
                errors.append(FieldError(name, f"{name}: {error}."))
        errors.extend(
            FieldError(name, f"{name}: is written by {', '.join(sorted(others))} too; leave one out.")
            for name in native
            if (others := self._written_by.get(name, frozenset()).intersection(fields))
        )
        if create:
            errors.extend(
                FieldError(each.name, f"{each.name}: required to create {self.entity.name}.")
                for each in self.entity.fields
                if each.required or each.name in self.required
                if each.name in self.by_field and fields.get(each.name) is None
                if self.by_field[each.name].writable
                if not any(self._is(error.field, each.name) for error in errors)
            )
        if not errors and not fields and not native:
            errors.append(FieldError("body", "The body names no field to write."))
        if errors:
            raise BadRequest(errors[0].message, errors=errors)
        self.outward(fields, {})  # what only the fields together can tell
        return fields, native

    def _is(self, name: str, field_name: str) -> bool:
        each = self.find(name)
        return each is not None and each.field == field_name

    def _accept_one(
        self,
        name: str,
        value: Any,
        described: Mapping[str, NativeField],
        fields: dict[str, Any],
        native: dict[str, Any],
    ) -> None:
        each = self.find(name)
        if each is not None and name not in RESERVED:
            self._accept_mapped(each, name, value, described, fields, native)
            return
        if name in self.companions:
            accepted = self.entity.by_name[name].parse(value)
            if fields.get(name, accepted) != accepted:
                raise ValueError(f"says {accepted}, but another name says {fields[name]}; leave one out")
            fields[name] = accepted
            return
        if name in self.parts:
            fields[name] = self.entity.by_name[name].parse(value)
            return
        if name == self.key:
            raise ValueError("is the record's id, which the hub chooses; leave it out")
        if name in self.entity.by_name:
            raise ValueError("is not available at this system")
        remote = described.get(name)
        if remote is None:
            raise ValueError(f"is no field of {self.entity.name}")
        if not remote.writable:
            raise ValueError("is read only; leave it out")
        if isinstance(value, (dict, list)):
            raise ValueError("expected a single value")
        native[name] = value

    def _accept_mapped(
        self,
        each: FieldMap,
        name: str,
        value: Any,
        described: Mapping[str, NativeField],
        fields: dict[str, Any],
        native: dict[str, Any],
    ) -> None:
        kind = self.entity.by_name[each.field]
        if kind.read_only or not each.writable:
            raise ValueError("is read only; leave it out")
        if each.field in fields:
            other = "by another name" if name in self.specific else f"as {each.field} and as {each.native}"
            raise ValueError(f"is given twice, {other}; leave one out")
        if name in self.specific and value is None:
            raise ValueError(f"can't be emptied for one kind alone; say {each.field} null")
        is_native_value = name == each.native and each.names and name not in self.by_field
        accepted = each.named(value) if is_native_value else kind.parse(value)
        each.outward(kind, accepted)
        fields[each.field] = accepted
        if name in self.specific and accepted is not None:
            self._accept_one(kind.companion, self.specific[name][1], described, fields, native)


_Reader = tuple[FieldMap, str, Callable[[Mapping[str, Any]], Any] | None, Callable[[Any], Any], str]


def merge_into(row: dict[str, Any], more: Mapping[str, Any]) -> None:
    """Adds properties to a row; where both have an object under a name, its parts."""
    for name, value in more.items():
        present = row.get(name)
        if isinstance(value, Mapping) and isinstance(present, dict):
            merge_into(present, value)
        else:
            row[name] = value


def required_names(maps: Iterable[FieldMap], key: str, *more: str) -> list[str]:
    """The properties to ask the remote for, each once, the key first."""
    return list(dict.fromkeys([key, *(name for each in maps for name in each.natives), *more]))
