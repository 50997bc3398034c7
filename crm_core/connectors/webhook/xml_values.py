"""Values of XML, which are all texts, as the kinds that their fields have."""

import re
from collections.abc import Callable, Mapping
from typing import Any

from crm_core.model.fields import Type
from crm_core.model.mapping import EntityMap
from crm_core.model.override_fields import Path, at

_WHOLE = re.compile(r"[+-]?\d{1,19}")
_TRUTHS = {"true": True, "1": True, "false": False, "0": False}
"""What XML Schema part 2, 3.2.2 calls a boolean."""


def of_xml(emap: EntityMap, item: Mapping[str, Any]) -> Mapping[str, Any]:
    """The item with whole numbers and truths where its entity's fields want them, and a list of one where a part that may
    come several times came once. What a mapping translates, or makes of several properties, stays text.
    """
    found = dict(item)
    for each in emap.fields:
        kind = emap.entity.by_name[each.field].type
        convert = _BY_TYPE.get(kind)
        if convert is None or len(each.sources) != 1 or getattr(each, "translation", None) is not None:
            continue
        path = tuple(each.sources[0])
        value = at(found, path)
        if value is not None:
            found = _with(found, path, convert(value))
    return found


def _with(row: Mapping[str, Any], path: Path, value: Any) -> dict[str, Any]:
    """The row with another value at a path that it has."""
    name, rest = path[0], path[1:]
    return {**row, name: _with(row[name], rest, value) if rest else value}


def _whole(value: Any) -> Any:
    return int(value) if isinstance(value, str) and _WHOLE.fullmatch(value.strip()) else value


def _truth(value: Any) -> Any:
    return _TRUTHS.get(value.strip(), value) if isinstance(value, str) else value


def _several(value: Any) -> Any:
    return value if isinstance(value, list) else [value]


_BY_TYPE: Mapping[Type, Callable[[Any], Any]] = {
    Type.INTEGER: _whole,
    Type.BOOLEAN: _truth,
    Type.LINES: _several,
    Type.CHOICES: _several,
}
