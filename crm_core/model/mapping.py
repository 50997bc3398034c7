"""How the fields of an entity are called at a remote system, and how values change on the way; declared, pure."""

import dataclasses
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from functools import cached_property
from typing import Any

from crm_core.errors import BadRequest, FieldError
from crm_core.model.entities import RESERVED, Entity
from crm_core.model.fields import NATIVE_PREFIX, Field, Type


@dataclass(frozen=True)
class FieldMap:
    """One canonical field at a remote system.

    `native`: the property as it is read and filtered. `names`: native value -> canonical name, one to one.
    `length`: the longest text the remote stores. `bind`: the navigation property by which a reference is
    written, and `bind_path` the collection that it points into. `kind`: the entity that a reference to several kinds
    has to be for this field, told by the property `kind_native` beside it; a row without that property is of this kind.
    `form`: the pattern of a reference's id.
    """

    field: str
    native: str
    names: Mapping[Any, str] = dataclasses.field(default_factory=dict)
    length: int | None = None
    writable: bool = True
    bind: str = ""
    bind_path: str = ""
    kind: str = ""
    kind_native: str = ""
    form: str = ""

    @cached_property
    def values(self) -> Mapping[str, Any]:
        """Canonical name -> native value."""
        return {name: value for value, name in self.names.items()}

    def inward(self, kind: Field, value: Any) -> Any:
        """The canonical value of what the remote holds; raises ValueError where it can't be one."""
        if value is None or value == "":
            return None
        if self.names:
            return self.names.get(value, f"{NATIVE_PREFIX}{value}")
        if kind.type in (Type.TEXT, Type.CHOICE) and not isinstance(value, str):
            return str(value).lower() if isinstance(value, bool) else str(value)
        return kind.parse(value)

    def outward(self, kind: Field, value: Any) -> Any:
        """What is sent for a canonical value; amounts as Decimal. Raises ValueError saying what is expected."""
        if value is None:
            return None
        if self.names:
            return self._native_of_name(value)
        if self.form and not re.fullmatch(self.form, value):
            raise ValueError("expected the id of a record at the system")
        if self.length is not None and len(value) > self.length:
            raise ValueError(f"longer than the {self.length} characters that the system stores")
        if kind.type in (Type.DECIMAL, Type.MONEY):
            return Decimal(value)
        return value

    def _native_of_name(self, value: str) -> Any:
        if value in self.values:
            return self.values[value]
        text = value.removeprefix(NATIVE_PREFIX)
        if text != value and text:
            if not self._numbered:
                return text
            if re.fullmatch(r"-?[0-9]{1,10}", text):
                return int(text)
        raise ValueError(
            f"expected one of {', '.join(self.values)}, or {NATIVE_PREFIX} and the system's own value"
        )

    @cached_property
    def _numbered(self) -> bool:
        """Whether the native values are numbers."""
        return all(isinstance(known, int) for known in self.names)

    def named(self, value: Any) -> str | None:
        """The canonical name of a native value that a caller gave; raises ValueError saying what is expected."""
        if value is None or value == "":
            return None
        kind: type = int if self._numbered else str
        if not isinstance(value, kind) or isinstance(value, bool):
            known = ", ".join(str(each) for each in self.names)
            raise ValueError(f"expected one of {known}")
        return self.names.get(value, f"{NATIVE_PREFIX}{value}")


@dataclass(frozen=True)
class NativeField:
    """A property that the remote's own metadata lists. `writable`: on create or update."""

    name: str
    type: str
    writable: bool


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


@dataclass(frozen=True)
class EntityMap:
    """An entity at a remote system. `remote`: its collection or model there; `key`: the property of the id."""

    entity: Entity
    remote: str
    key: str
    modified: str
    version: str
    fields: tuple[FieldMap, ...]
    navigations: tuple[Navigation, ...] = ()

    @cached_property
    def by_field(self) -> Mapping[str, FieldMap]:
        return {each.field: each for each in self.fields}

    @cached_property
    def by_native(self) -> Mapping[str, FieldMap]:
        return {each.native: each for each in self.fields}

    def find(self, name: str) -> FieldMap | None:
        """The map of a canonical or native name."""
        return self.by_field.get(name) or self.by_native.get(name)

    def navigation(self, name: str) -> Navigation | None:
        """The way of a native name, or of the canonical reference that it follows."""
        return next((each for each in self.navigations if name in (each.native, each.field)), None)

    def inward(self, row: Mapping[str, Any]) -> dict[str, Any]:
        """The canonical fields of a remote row; empty ones are left out. Raises ValueError naming the property."""
        known = self.entity.by_name
        fields: dict[str, Any] = {}
        for each in self.fields:
            if each.kind and row.get(each.kind_native, each.kind) != each.kind:
                continue  # a reference to something else
            try:
                value = each.inward(known[each.field], row.get(each.native))
            except ValueError as error:
                raise ValueError(f"{each.native}: {error}") from None
            if value is not None:
                fields[each.field] = value
        return fields

    def outward(self, fields: Mapping[str, Any]) -> dict[str, Any]:
        """Native properties for canonical fields, references as they are bound; raises BadRequest naming fields."""
        known = self.entity.by_name
        row: dict[str, Any] = {}
        errors = []
        for name, value in fields.items():
            each = self.by_field[name]
            try:
                native = each.outward(known[name], value)
            except ValueError as error:
                errors.append(FieldError(name, f"{name}: {error}."))
                continue
            if each.bind and native is not None:
                row[f"{each.bind}@odata.bind"] = f"/{each.bind_path}({native})"
            else:
                row[each.bind or each.native] = native
        if errors:
            raise BadRequest(errors[0].message, errors=errors)
        return row

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
        if create:
            errors.extend(
                FieldError(each.name, f"{each.name}: required to create {self.entity.name}.")
                for each in self.entity.fields
                if each.required and each.name in self.by_field and fields.get(each.name) is None
                if not any(self._is(error.field, each.name) for error in errors)
            )
        if not errors and not fields and not native:
            errors.append(FieldError("body", "The body names no field to write."))
        if errors:
            raise BadRequest(errors[0].message, errors=errors)
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
            kind = self.entity.by_name[each.field]
            if kind.read_only or not each.writable:
                raise ValueError("is read only; leave it out")
            if each.field in fields:
                raise ValueError(f"is given twice, as {each.field} and as {each.native}; leave one out")
            is_native_value = name == each.native and each.names and name not in self.by_field
            accepted = each.named(value) if is_native_value else kind.parse(value)
            each.outward(kind, accepted)
            fields[each.field] = accepted
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


def required_names(maps: Iterable[FieldMap], key: str, *more: str) -> list[str]:
    """The properties to ask the remote for, each once, the key first."""
    return list(dict.fromkeys([key, *(each.native for each in maps), *more]))
