"""Overrides against what a remote's metadata tells of its properties: whether they are there, and of which type. Pure."""

from collections.abc import Iterable, Iterator, Mapping
from difflib import get_close_matches
from typing import Any

from crm_core.errors import FieldError
from crm_core.model.field_map import FieldMap
from crm_core.model.fields import Field, Type
from crm_core.model.mapping import Derived, NativeField
from crm_core.model.override_fields import Composed, Constant, Overridden, Path, path_text

_READ: Mapping[Type, frozenset[str]] = {
    Type.INTEGER: frozenset({Type.INTEGER}),
    Type.DECIMAL: frozenset({Type.DECIMAL, Type.MONEY, Type.INTEGER}),
    Type.MONEY: frozenset({Type.DECIMAL, Type.MONEY, Type.INTEGER}),
    Type.BOOLEAN: frozenset({Type.BOOLEAN}),
    Type.DATE: frozenset({Type.INSTANT, Type.DATE, Type.TEXT}),
    Type.INSTANT: frozenset({Type.INSTANT, Type.TEXT}),
    Type.CHOICE: frozenset({Type.TEXT}),
    Type.CHOICES: frozenset({Type.CHOICES}),
}
"""The properties' types that a field's value can be read of as it is; a text, of any."""
_WRITTEN: Mapping[Type, frozenset[str]] = {
    **_READ,
    Type.TEXT: frozenset({Type.TEXT}),
    Type.DECIMAL: frozenset({Type.DECIMAL, Type.MONEY}),
    Type.MONEY: frozenset({Type.DECIMAL, Type.MONEY}),
}
_OF_VALUE: Mapping[type, frozenset[str]] = {
    str: frozenset({Type.TEXT}),
    bool: frozenset({Type.BOOLEAN}),
    int: frozenset({Type.INTEGER, Type.DECIMAL, Type.MONEY}),
}
_SCALAR = frozenset(Type)


def remote_errors(
    where: str,
    rules: Mapping[str, Any],
    fields: Mapping[str, FieldMap],
    known: Mapping[str, Field],
    derived: Iterable[Derived],
    described: Mapping[str, NativeField],
) -> list[FieldError]:
    """An error for each property that is not there, not of the type, or not to be written."""
    checks = _Checks(described)
    found: list[tuple[str, str]] = []
    for name, rule in rules.items():
        each = fields.get(name)
        if rule is None or not isinstance(each, Overridden):
            continue
        if "to" in rule:
            found += [(f"fields.{name}.to", text) for text in checks.field(each, known[name])]
        elif each.source is not None:
            texts = (checks.there((native,)) for native in each.source.names)
            found += [(f"fields.{name}.from", text) for text in texts if text]
    for one in derived:
        assert isinstance(one, Composed | Constant)
        kinds = _OF_VALUE[type(one.value)] if isinstance(one, Constant) else _OF_VALUE[str]
        found += [(f"targets.{path_text(one.path)}", text) for text in checks.written(one.path, kinds)]
    return [FieldError(f"{where}.{path}", f"{where}.{path}: {text}.") for path, text in found]


class _Checks:
    def __init__(self, described: Mapping[str, NativeField]) -> None:
        self._described = described

    def there(self, path: Path) -> str:
        """Why a path can't be, or ""."""
        native = self._described.get(path[0])
        if native is None:
            near = get_close_matches(path[0], list(self._described), 1)
            hint = f"; {near[0]} is one" if near else "; name one that is there"
            return f"the system has no property '{path[0]}' here{hint}"
        if len(path) > 1 and native.type in _SCALAR:
            return f"'{path[0]}' is {native.type} at the system and has no parts; name it alone"
        return ""

    def field(self, each: Overridden, kind: Field) -> Iterator[str]:
        first = (each.native, *each.path)
        missing = self.there(first)
        if missing:
            yield missing
        elif each.readable:
            yield from self._typed(first, self._kinds(each, kind, _READ))
        if each.writable:
            for path in each.places[1:] if missing else each.places:
                yield from self.written(path, self._kinds(each, kind, _WRITTEN))

    def written(self, path: Path, kinds: frozenset[str] | None) -> Iterator[str]:
        missing = self.there(path)
        if missing:
            yield missing
            return
        if not self._described[path[0]].writable:
            yield f'\'{path[0]}\' is read only at the system; say "direction": "in", or name another property'
            return
        yield from self._typed(path, kinds)

    @staticmethod
    def _kinds(
        each: Overridden, kind: Field, by_type: Mapping[Type, frozenset[str]]
    ) -> frozenset[str] | None:
        """The types that a property can have; None: any."""
        if each.translation is not None:
            return _OF_VALUE[each.translation.kind]
        if each.template is not None or each.zoneless:
            return _OF_VALUE[str]
        return by_type.get(kind.type)

    def _typed(self, path: Path, kinds: frozenset[str] | None) -> Iterator[str]:
        native = self._described[path[0]]
        if kinds is not None and len(path) == 1 and native.type not in kinds:
            expected = " or ".join(sorted(kinds))
            yield f"'{path[0]}' is {native.type} at the system, expected {expected}; translate it by values, or name another"
