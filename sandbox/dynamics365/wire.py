"""Rows as JSON: selected columns, annotations, etags (Web API: query data, formatted values, lookups)."""

import json
import uuid
from collections.abc import Callable
from decimal import Decimal
from typing import Any

from sandbox.dynamics365.errors import no_property
from sandbox.dynamics365.options import Preferences
from sandbox.dynamics365.org import Org
from sandbox.dynamics365.schema import TABLES, Column, Entity
from sandbox.frame import Response
from sandbox.store import Row, Values

FORMATTED = "OData.Community.Display.V1.FormattedValue"
LOOKUP = "Microsoft.Dynamics.CRM.lookuplogicalname"
ASSOCIATED = "Microsoft.Dynamics.CRM.associatednavigationproperty"
CONTENT = "application/json; odata.metadata=minimal"
Render = Callable[[Row], Values]
# json writes no Decimal as a number: they pass as marked strings, and the marks and quotes are taken off after.
_MARK = f"\x01{uuid.uuid4().hex[:8]}"
_OPEN, _CLOSE = json.dumps(_MARK)[:-1], json.dumps(_MARK)[1:]


def encode(value: Any) -> bytes:
    """JSON with decimals as exact numbers."""

    def decimal(number: Any) -> str:
        assert isinstance(number, Decimal), type(number)
        return f"{_MARK}{number:f}{_MARK}"

    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), default=decimal)
    return text.replace(_OPEN, "").replace(_CLOSE, "").encode("utf-8", "surrogatepass")


def answer(status: int, value: Any, headers: dict[str, str] | None = None) -> Response:
    return Response(
        status, {"Content-Type": CONTENT, "OData-Version": "4.0", **(headers or {})}, encode(value)
    )


def etag(row: Row) -> str:
    return f'W/"{row.version}"'


def context(base: str, entity: Entity, names: list[str], *, single: bool = False, delta: bool = False) -> str:
    chosen = f"({','.join(names)})" if names else ""
    tail = "/$entity" if single else "/$delta" if delta else ""
    return f"{base}/$metadata#{entity.set_name}{chosen}{tail}"


def selected(entity: Entity, names: list[str]) -> list[Column]:
    """The columns of a ``$select``; the key always comes along, and nothing selected means everything."""
    if not names or names == ["*"]:
        return list(entity.columns.values())
    chosen = []
    for name in dict.fromkeys(names):
        if name not in entity.by_wire:
            raise no_property(name, entity.name)
        chosen.append(entity.by_wire[name])
    key = entity.columns[entity.key]
    return chosen if key in chosen else [*chosen, key]


def renderer(org: Org, columns: list[Column], preferences: Preferences) -> Render:
    """How rows of that table are written for this request."""
    names = [c.wire for c in columns]
    annotate = [
        step
        for c in columns
        for step in (_formatted(org, c, preferences), _lookup(c, preferences))
        if step is not None
    ]

    def render(row: Row) -> Values:
        get = row.values.get
        out: Values = {"@odata.etag": f'W/"{row.version}"'}
        for name in names:
            out[name] = get(name)
        for step in annotate:
            step(row.values, out)
        return out

    return render


Step = Callable[[Values, Values], None]


def _lookup(column: Column, preferences: Preferences) -> Step | None:
    if column.kind != "lookup" or not preferences.annotations:
        return None
    wire, type_key, targets = column.wire, column.type_key, column.targets
    logical, associated = preferences.annotated(LOOKUP), preferences.annotated(ASSOCIATED)

    def step(values: Values, out: Values) -> None:
        if values.get(wire) is not None:
            target = values[type_key]
            if associated:
                out[f"{wire}@{ASSOCIATED}"] = targets.get(target, column.name)
            if logical:
                out[f"{wire}@{LOOKUP}"] = target

    return step


def _formatted(org: Org, column: Column, preferences: Preferences) -> Step | None:
    if not preferences.annotated(FORMATTED) or column.kind in ("string", "memo", "key", "guid"):
        return None
    wire, name = column.wire, f"{column.wire}@{FORMATTED}"
    text = _formatter(org, column)

    def step(values: Values, out: Values) -> None:
        value = values.get(wire)
        if value is not None:
            shown = text(value, values)
            if shown is not None:
                out[name] = shown

    return step


def _formatter(org: Org, column: Column) -> Callable[[Any, Values], str | None]:
    """The text that a person would see."""
    kind = column.kind
    if kind == "lookup":

        def name_of(value: Any, values: Values) -> str | None:
            target = values.get(column.type_key)
            row = org.store.get(target, value) if target else None
            return None if row is None or target is None else row.values.get(TABLES[target].primary_name)

        return name_of
    if column.options:
        return lambda v, _: column.options.get(v)
    if kind == "bool":
        return lambda v, _: "Yes" if v else "No"
    if kind == "money":
        return lambda v, _: f"${v:,.2f}" if v >= 0 else f"(${-v:,.2f})"
    if kind in ("datetime", "date"):
        return lambda v, _: _time_text(v)
    return lambda v, _: f"{v:,}" if isinstance(v, int) else str(v)


def _time_text(value: str) -> str:
    year, month, day = value[:10].split("-")
    date = f"{int(month)}/{int(day)}/{year}"
    if "T" not in value:
        return date
    hour = int(value[11:13])
    return f"{date} {hour % 12 or 12}:{value[14:16]} {'AM' if hour < 12 else 'PM'}"
