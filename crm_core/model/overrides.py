"""The overrides of one connection and entity: a JSON document, checked, and the map that they make of the declared one.

docs/mapping.md describes the document, with an example of each kind. Pure.
"""

import hashlib
import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from difflib import get_close_matches
from typing import Any, Generic, TypeVar
from zoneinfo import ZoneInfo

from crm_core.errors import BadRequest, FieldError
from crm_core.model.entities import Entity
from crm_core.model.field_map import FieldMap
from crm_core.model.fields import Field, Type
from crm_core.model.joined import joined
from crm_core.model.local_time import zone_of
from crm_core.model.mapping import Derived, EntityMap, NativeField
from crm_core.model.override_fields import Composed, Constant, Path, overridden, path_of, path_text
from crm_core.model.override_rules import (
    CUSTOM,
    NO_PLACE,
    WRITTEN,
    Place,
    Wrong,
    field_of,
    only,
    template_of,
)
from crm_core.model.override_types import remote_errors

MAX_FIELDS = 200
MAX_BYTES = 60_000
IDENTITY = frozenset(
    {
        "email",
        "tax_id",
        "number",
        "sku",
        "barcode",
        "external_id",
        "document_number",
        "manychat_id",
        "website",
    }
)
"""Fields by which the records of several systems are known to be the same thing."""

Map = TypeVar("Map", bound=EntityMap)


def effective(
    declared: Map,
    document: Mapping[str, Any],
    described: Mapping[str, NativeField] | None = None,
    where: str = "",
) -> Map:
    """The map that the overrides make. Raises BadRequest with an error for each wrong thing, named by its path.

    `described`: the remote's own properties, by which names and types are checked too. `where`: the document's path.
    """
    if not document:
        return declared
    return _Compiler(declared, document, where or declared.entity.name).map(described)


def effective_or_declared(declared: Map, saved: Mapping[str, Any] | None) -> Map:
    """The map that saved overrides make; the declared one without any, and where they fit no more."""
    if saved:
        with suppress(BadRequest):  # the connection itself tells what is wrong
            return effective(declared, saved["document"])
    return declared


def with_customs(entity: Entity, documents: Iterable[Mapping[str, Any]]) -> Entity:
    """The entity with the custom fields that documents declare of it; the choices of one are those of all."""
    found: dict[str, Field] = {}
    for document in documents:
        for name, rule in (document.get("fields") or {}).items():
            if CUSTOM.fullmatch(name) and isinstance(rule, Mapping):
                choices = (*(found[name].choices if name in found else ()), *rule.get("choices", ()))
                found[name] = Field(name, Type(rule["type"]), choices=tuple(dict.fromkeys(choices)))
    return replace(entity, fields=(*entity.fields, *found.values())) if found else entity


class _Compiler(Generic[Map]):
    def __init__(self, declared: Map, document: Mapping[str, Any], where: str) -> None:
        self.declared = declared
        self.document = document
        self.where = where
        self.errors: list[FieldError] = []

    def map(self, described: Mapping[str, NativeField] | None) -> Map:
        if not self._shape():
            self._refuse()
        zone = self._zone()
        entity = self.declared.entity
        rules: Mapping[str, Any] = self.document.get("fields") or {}
        customs = [kind for name, rule in rules.items() if (kind := self._custom(name, rule)) is not None]
        known = {**entity.by_name, **{each.name: each for each in customs}}
        fields = {each.field: self._with_zone(each, known[each.field], zone) for each in self.declared.fields}
        required = set(self.declared.required)
        bare = {each.name for each in customs if not {"to", "from", "constant"} & rules[each.name].keys()}
        for name, rule in rules.items():
            if name in known and name not in bare and self._may_change(name):
                self._field(name, rule, known[name], fields, zone)
                required |= {name} if isinstance(rule, Mapping) and rule.get("required") is True else set()
        derived = self._targets(known, fields)
        self._parts(bare, rules, derived)
        if not self.errors:
            self._collisions(fields, derived)
            self._identities(fields)
        if not self.errors and described is not None:
            self.errors += remote_errors(self.where, rules, fields, known, derived, described)
        self._refuse()
        whole = replace(entity, fields=(*entity.fields, *customs)) if customs else entity
        return replace(
            self.declared,
            entity=whole,
            fields=tuple(fields.values()),
            required=frozenset(required & fields.keys()),
            derived=(*self.declared.derived, *derived),
            mark=mark_of(self.document),
        )

    def _wrong(self, path: str, text: str) -> None:
        whole = f"{self.where}.{path}" if path else self.where
        self.errors.append(FieldError(whole, f"{whole}: {text}."))

    def _refuse(self) -> None:
        if self.errors:
            raise BadRequest(self.errors[0].message, errors=self.errors)

    def _shape(self) -> bool:
        """Whether the document can be looked into at all."""
        try:
            size = len(json.dumps(self.document, ensure_ascii=False).encode())
        except TypeError:
            self._wrong("", 'a number with a fraction is written as text here, such as "1250.50"')
            return False
        except UnicodeEncodeError:
            self._wrong("", "a text has half a character (a lone surrogate)")
            return False
        if size > MAX_BYTES:
            self._wrong("", f"is longer than {MAX_BYTES} bytes; leave out what is as it is declared")
            return False
        for name in self.document:
            if name not in ("zone", "fields", "targets"):
                self._wrong(str(name), "is unknown here; expected zone, fields or targets")
        for name in ("fields", "targets"):
            part = self.document.get(name)
            if part is not None and not isinstance(part, Mapping):
                self._wrong(name, "expected an object")
                return False
            if len(part or ()) > MAX_FIELDS:
                self._wrong(name, f"has more than {MAX_FIELDS} entries")
        if "" in self.declared.fixed:
            self._wrong("", self.declared.fixed[""])
        return "" not in self.declared.fixed

    def _zone(self) -> ZoneInfo | None:
        name = self.document.get("zone")
        if name is None:
            return None
        try:
            return zone_of(name)
        except (TypeError, ValueError):
            self._wrong("zone", "expected a time zone such as America/Lima or UTC")
            return None

    # --- fields ----------------------------------------------------------------------------------------------------

    def _custom(self, name: str, rule: Any) -> Field | None:
        """The field that a rule for x_{name} declares."""
        path = f"fields.{name}"
        if name in self.declared.entity.by_name:
            return None
        if self.declared.joins and (beside := joined(self.declared.entity, name)) is not None:
            if isinstance(rule, Mapping):
                return beside
            self._wrong(path, "expected an object that says where it is written")
            return None
        if not CUSTOM.fullmatch(name):
            near = get_close_matches(name, self.declared.entity.by_name, 1)
            hint = f"{near[0]} is one" if near else "a custom one begins with x_, such as x_region"
            self._wrong(path, f"is no field of {self.declared.entity.name}; {hint}")
            return None
        if not isinstance(rule, Mapping):
            self._wrong(path, "expected an object that says its type and where it is kept")
            return None
        try:
            kind = Type(str(rule.get("type")))
        except ValueError:
            kind = Type.LINES
        if kind in (Type.REF, Type.LINES):
            known = ", ".join(each for each in Type if each not in (Type.REF, Type.LINES))
            self._wrong(f"{path}.type", f"a custom field needs a type; expected one of {known}")
            return None
        choices = rule.get("choices", [])
        texts = isinstance(choices, list) and all(isinstance(each, str) and each for each in choices)
        if not texts or bool(choices) is not (kind is Type.CHOICE):
            self._wrong(
                f"{path}.choices", "expected a list of the names of a field of type choice, and of no other"
            )
            return None
        return Field(name, kind, choices=tuple(choices))

    def _may_change(self, name: str) -> bool:
        reason = self.declared.fixed.get(name, "")
        beside = next((each.field for field, each in self.declared.companions.items() if field == name), "")
        if beside:
            reason = f"goes with {beside}; say it there"
        if reason:
            self._wrong(f"fields.{name}", reason)
        return not reason

    def _field(
        self, name: str, rule: Any, kind: Field, fields: dict[str, FieldMap], zone: ZoneInfo | None
    ) -> None:
        if rule is None:
            fields.pop(name, None)
            return
        try:
            place = Place(self.where, f"fields.{name}", rule, zone, self.declared.joins)
            if name not in self.declared.entity.by_name and not CUSTOM.fullmatch(name):
                only(place, *WRITTEN)  # of another record: told, and never read
                if rule.get("direction", "out") != "out":
                    raise place.wrong("direction", "is told and never read; leave direction out")
                place = replace(place, rule={**rule, "direction": "out"})
            fields[name] = field_of(place, kind, fields.get(name))
        except Wrong as wrong:
            self.errors += wrong.errors

    @staticmethod
    def _with_zone(each: FieldMap, kind: Field, zone: ZoneInfo | None) -> FieldMap:
        """A declared time, which is read in the zone where it bears none."""
        return overridden(each, zone=zone) if zone is not None and kind.type is Type.INSTANT else each

    # --- targets ---------------------------------------------------------------------------------------------------

    def _targets(self, known: Mapping[str, Field], fields: Mapping[str, FieldMap]) -> list[Derived]:
        derived: list[Derived] = []
        for name, rule in (self.document.get("targets") or {}).items():
            path = f"targets.{name}"
            try:
                place = Place(self.where, path, rule, None, self.declared.joins)
                only(place, "constant", "template")
                derived.append(self._target(place, path_of(name), known, fields))
            except Wrong as wrong:
                self.errors += wrong.errors
            except ValueError as error:
                self._wrong(path, str(error))
        return derived

    def _target(
        self, place: Place, path: Path, known: Mapping[str, Field], fields: Mapping[str, FieldMap]
    ) -> Derived:
        value = place.rule.get("constant")
        if ("constant" in place.rule) is ("template" in place.rule):
            raise place.wrong("", "say either constant or template")
        if "constant" in place.rule:
            if value is None or not isinstance(value, str | int) or value == "":
                raise place.wrong("constant", "expected a text, a whole number, true or false")
            return Constant(path, value)
        template = template_of(place, "template")
        for name in template.names:
            if name not in known:
                raise place.wrong("template", f"'{name}' is no field of {self.declared.entity.name}")
            if known[name].type in (Type.REF, Type.LINES, Type.CHOICES):
                raise place.wrong("template", f"'{name}' is no single value; leave it out")
            alone = name not in fields or not fields[name].readable
            if len(template.names) > 1 and alone and not self.declared.joins:
                # Who changes one of them by an update needs the others, and only the system has them.
                raise place.wrong(
                    "template",
                    f"'{name}' is not read from this system, so it can't stand beside others; map it too",
                )
        return Composed(path, template)

    def _parts(self, bare: Iterable[str], rules: Mapping[str, Any], derived: Iterable[Derived]) -> None:
        """Custom fields that are kept nowhere by themselves have to be part of a template."""
        used = {name for each in derived for name in each.sources}
        for name in sorted(bare):
            place = Place(self.where, f"fields.{name}", rules[name], None)
            try:
                if name not in used:
                    raise place.wrong("", f"{NO_PLACE}; or let a template of targets name it")
                only(place, "type", "choices")
            except Wrong as wrong:
                self.errors += wrong.errors

    # --- the whole -------------------------------------------------------------------------------------------------

    def _collisions(self, fields: Mapping[str, FieldMap], derived: Sequence[Derived]) -> None:
        """Two sources of one property; properties that no field may write."""
        writers: dict[str, list[tuple[Path, str]]] = defaultdict(list)
        for each in fields.values():
            for path in each.places if each.writable else ():
                writers[path[0]].append((path, f"fields.{each.field}"))
        for one in derived:
            writers[one.path[0]].append((one.path, f"targets.{path_text(one.path)}"))
        own = self.document.get("fields") or {}
        for native, found in writers.items():
            if native in (self.declared.key, self.declared.modified, self.declared.version):
                self._wrong(found[0][1], f"{native} is the system's own; nothing is written to it")
            for index, (path, writer) in enumerate(found):
                others = [name for other, name in found[:index] if _overlap(path, other)]
                if others:
                    # The one that the document names is at fault, not the declared one.
                    declared = writer.removeprefix("fields.") not in own and writer.startswith("fields.")
                    blamed, other = (others[0], writer) if declared else (writer, others[0])
                    self._wrong(
                        blamed,
                        f"writes {path_text(path)}, and so does {other}; give one of them another property, "
                        'or say "direction": "in"',
                    )

    def _identities(self, fields: Mapping[str, FieldMap]) -> None:
        readers: dict[str, list[str]] = defaultdict(list)
        for each in fields.values():
            if each.field in IDENTITY and each.readable:
                for source in each.sources:
                    readers[path_text(source)].append(each.field)
        own = self.document.get("fields") or {}
        for native, names in readers.items():
            if len(names) > 1:
                blamed = (
                    next(name for name in reversed(names) if name in own)
                    if set(names) & own.keys()
                    else names[-1]
                )
                self._wrong(
                    f"fields.{blamed}",
                    f"{native} feeds {' and '.join(names)}, by both of which records are known again; "
                    "let it feed one of them",
                )


def _overlap(one: Path, other: Path) -> bool:
    shorter = min(len(one), len(other))
    return one[:shorter] == other[:shorter]


def mark_of(document: Mapping[str, Any]) -> str:
    """What tells two documents apart."""
    text = json.dumps(document, sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()[:12]
