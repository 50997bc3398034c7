"""Fields as one connection maps them: what the declared map of a field can't say. Pure.

On its way out a value is translated (`translation`, or `template`), put in the system's form, and set at one place
or several; on its way in the same happens backwards, from the first place.
"""

import dataclasses
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from zoneinfo import ZoneInfo

from crm_core.model.field_map import FieldMap
from crm_core.model.fields import NATIVE_PREFIX, Field, Type
from crm_core.model.local_time import instant_of, local_of
from crm_core.model.mapping import merge_into
from crm_core.model.templates import Template
from crm_core.model.value_maps import ValueMap

Path = tuple[str, ...]
"""A property, and its parts from the outside to the inside."""

BY_TEXT = (Type.TEXT, Type.CHOICE, Type.DATE, Type.INSTANT, Type.INTEGER, Type.DECIMAL, Type.MONEY)
"""Types whose values can be read back from the text that a template made of them."""


def path_of(text: str) -> Path:
    """`details.region` as ("details", "region"); raises ValueError for what is no path."""
    parts = tuple(text.split("."))
    if len(parts) > 5 or not all(
        re.fullmatch(r"[A-Za-z_@$/#][\w@$/-]{0,99}", part, re.ASCII) for part in parts
    ):
        raise ValueError("expected a property of the system, or property.part for one inside another")
    return parts


def path_text(path: Path) -> str:
    return ".".join(path)


def at(row: Mapping[str, Any], path: Path) -> Any:
    """What stands at a path of a row; None where there is nothing."""
    value: Any = row
    for part in path:
        value = value.get(part) if isinstance(value, Mapping) else None
    return value


def nested(path: Path, value: Any) -> dict[str, Any]:
    """The row that holds a value at a path and nothing else."""
    for part in reversed(path[1:]):
        value = {part: value}
    return {path[0]: value}


@dataclass(frozen=True)
class Overridden(FieldMap):
    """A field with overrides. `native`: where it is read, "" for a constant or a template of several properties.

    `path`: its parts below `native`. `also`: further places that are written. `source`: the template that it is read
    by, of the system's properties. `constant`: what every record holds. `template`: what is written, of this field.
    `keeps`: a text that the template did not make is kept under the prefix `native:`, else refused.
    `zone`: of times without one; `zoneless`: such times are written, else instants in UTC.
    """

    path: Path = ()
    also: tuple[Path, ...] = ()
    source: Template | None = None
    constant: Any = None
    translation: ValueMap | None = None
    template: Template | None = None
    keeps: bool = True
    zone: ZoneInfo | None = None
    zoneless: bool = False

    @property
    def plain(self) -> bool:
        special = self.source or self.template or self.translation or self.path or self.also
        return not special and self.constant is None and not self.zoneless

    @property
    def askable(self) -> bool:
        translated = self.translation is None or (self.translation.literal and bool(self.names))
        special = self.source or self.template or self.path or self.zoneless
        return self.readable and translated and not special and self.constant is None

    @property
    def natives(self) -> tuple[str, ...]:
        if self.source is not None:
            return self.source.names
        return (self.native,) if self.native else ()

    @property
    def sources(self) -> Sequence[Path]:
        if self.source is not None:
            return [(name,) for name in self.source.names]
        return ((self.native, *self.path),) if self.native else ()

    @property
    def places(self) -> Sequence[Path]:
        return ((self.native, *self.path), *self.also) if self.writable and self.native else ()

    @property
    def take(self) -> Callable[[Mapping[str, Any]], Any] | None:
        if self.constant is not None:
            return lambda _: self.constant
        if self.source is not None:
            return self.source.text
        path = (self.native, *self.path)
        return (lambda row: at(row, path)) if self.path else None

    def is_told(self, row: Mapping[str, Any]) -> bool:
        if self.constant is not None or not self.readable:
            return False  # a constant empties nothing
        if self.source is not None:
            return all(name in row for name in self.source.names)
        inside = at(row, (self.native, *self.path[:-1])) if self.path else row
        return isinstance(inside, Mapping) and (self.path[-1] if self.path else self.native) in inside

    def put(self, value: Any) -> Mapping[str, Any]:
        row: dict[str, Any] = {}
        for place in self.places:
            merge_into(row, nested(place, value))
        return row

    def reader(self, kind: Field) -> Callable[[Any], Any]:
        if self.constant is not None:
            return lambda value: value
        if self.translation is not None:
            inward = self.translation.inward
            return lambda value: kind.parse(inward(value))
        plain = self._plain_reader(kind)
        template = self.template
        return plain if template is None else (lambda value: self._back(kind, template, plain, value))

    def _plain_reader(self, kind: Field) -> Callable[[Any], Any]:
        zone = self.zone
        if zone is not None and kind.type is Type.INSTANT:
            return lambda value: instant_of(value, zone)
        return super().reader(kind)

    def _back(self, kind: Field, template: Template, plain: Callable[[Any], Any], value: Any) -> Any:
        """Read of a text that the template made."""
        text = template.back(str(value))
        if text is None:
            if self.keeps and kind.type in (Type.TEXT, Type.CHOICE):
                return f"{NATIVE_PREFIX}{value}"
            raise ValueError("is not of the form that the mapping's template writes")
        if not text:
            return None
        if kind.type is Type.INTEGER:
            if not re.fullmatch(r"-?[0-9]{1,18}", text):
                raise ValueError(
                    "is not of the form that the mapping's template writes: expected a whole number"
                )
            return int(text)
        return plain(text)

    def outward(self, kind: Field, value: Any) -> Any:
        if value is None:
            return None
        if self.translation is not None:
            return self._checked(self.translation.outward(value))
        if self.template is not None:
            return self._checked(self._made(self.template, kind, value))
        if self.zone is not None and self.zoneless:
            return local_of(value, self.zone)
        return super().outward(kind, value)

    def _made(self, template: Template, kind: Field, value: Any) -> str | None:
        kept = isinstance(value, str) and kind.type in (Type.TEXT, Type.CHOICE) and self.keeps
        if kept and template.single and value.startswith(NATIVE_PREFIX):
            return str(value.removeprefix(NATIVE_PREFIX)) or None
        if self.zone is not None and self.zoneless:
            value = local_of(value, self.zone)
        return template.text({self.field: value})

    def _checked(self, sent: Any) -> Any:
        if isinstance(sent, str):
            self.check_length(sent)
        return sent

    def canon(self, kind: Field, value: Any) -> Any:
        """As what is written is read again; of a field that is mapped one way only the value as it is."""
        if value is None or not (self.readable and self.writable) or not self.native:
            return value
        stored = super().canon(kind, value)
        if self.translation is None and self.template is None and not self.zoneless:
            return stored
        try:
            sent = self.outward(kind, stored)
            return None if sent is None or sent == "" else self.reader(kind)(sent)
        except ValueError:
            return value


@dataclass(frozen=True)
class Constant:
    """A property that every written record has the same value in."""

    path: Path
    value: Any
    sources: tuple[str, ...] = ()

    def put(self, fields: Mapping[str, Any]) -> Mapping[str, Any]:  # noqa: ARG002  # as `Derived` has it
        return nested(self.path, self.value)


@dataclass(frozen=True)
class Composed:
    """A property with a text made of several fields."""

    path: Path
    template: Template

    @property
    def sources(self) -> tuple[str, ...]:
        return self.template.names

    def put(self, fields: Mapping[str, Any]) -> Mapping[str, Any]:
        return nested(self.path, self.template.text(fields))


def overridden(each: FieldMap, **changes: Any) -> Overridden:
    """A field's map with what a connection says otherwise."""
    facts = {one.name: getattr(each, one.name) for one in dataclasses.fields(each)}
    return Overridden(**{**facts, **changes})
