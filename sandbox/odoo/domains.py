"""Search domains: a list in prefix notation becomes a predicate over rows, with the server's refusals."""

import re
from collections.abc import Callable
from datetime import date
from typing import TYPE_CHECKING, Any

from sandbox.odoo.errors import type_error, value_error
from sandbox.odoo.schema import NUMBERS, X2MANY, Field
from sandbox.odoo.values import bounds, domain_time, refuse_sql
from sandbox.store import Row

if TYPE_CHECKING:
    from sandbox.odoo.env import Env
    from sandbox.odoo.orm import BaseModel

Predicate = Callable[[Row], bool]
LIKES = ("like", "ilike", "=like", "=ilike")
OPERATORS = frozenset(
    (
        "=",
        "!=",
        "<>",
        "==",
        "=?",
        "<",
        "<=",
        ">",
        ">=",
        "in",
        "not in",
        "any",
        "not any",
        "child_of",
        "parent_of",
        *LIKES,
        *tuple(f"not {each}" for each in LIKES),
    )
)
SAME = {"<>": "!=", "==": "="}
ALIAS_ARITY = {"&": 2, "|": 2, "!": 1}


def nodes(domain: Any) -> list[Any]:
    """The domain as a list of operators and conditions, if it is one."""
    if not isinstance(domain, (list, tuple)):
        raise type_error(f"Domain() invalid argument type for domain: {domain!r}")
    for item in domain:
        if (
            item in ALIAS_ARITY
            if isinstance(item, str)
            else isinstance(item, (list, tuple)) and len(item) == 3
        ):
            continue
        raise value_error(f"Domain() invalid item in domain: {item!r}")
    return list(domain)


def names(domain: list[Any]) -> set[str]:
    """The fields that a domain speaks of at its own level."""
    return {str(n[0]) for n in domain if not isinstance(n, str)}


def conditions_of_all(domain: list[Any]) -> list[Any]:
    """The conditions that every row found must meet: those of a domain without ``|`` and ``!``."""
    return (
        [] if any(n in ("|", "!") for n in domain if isinstance(n, str)) else [n for n in domain if n != "&"]
    )


def pattern(operator: str, value: Any) -> re.Pattern[str]:
    """A LIKE pattern as a regular expression."""
    text = str(value)
    if not operator.startswith("="):
        text = f"%{text}%"
    parts = (
        re.escape(e[1:])
        if len(e) == 2 and e[0] == "\\"
        else ".*"
        if e == "%"
        else "."
        if e == "_"
        else re.escape(e)
        for e in re.findall(r"\\.|.", text, re.DOTALL)
    )
    return re.compile("".join(parts), re.DOTALL | (re.IGNORECASE if "ilike" in operator else 0))


class Domains:
    """Makes predicates for rows of the models of an environment."""

    def __init__(self, env: "Env") -> None:
        self._env = env

    def predicate(self, model: "BaseModel", domain: Any) -> Predicate:
        todo = nodes(domain)
        stack: list[Predicate] = []
        for node in reversed(todo):
            if not isinstance(node, str):
                stack.append(self._condition(model, node))
            elif len(stack) < ALIAS_ARITY[node]:
                raise value_error(f"Domain() malformed domain {domain!r}")
            elif node == "!":
                stack.append(_not(stack.pop()))
            else:
                first, second = stack.pop(), stack.pop()
                stack.append(_both(first, second) if node == "&" else _either(first, second))
        return _all(stack[::-1])

    def _condition(self, model: "BaseModel", node: Any) -> Predicate:
        path, operator, value = node
        shown = f"({path!r}, {operator!r}, {value!r})"
        if path in (0, 1) and not isinstance(path, str):
            return lambda _row: bool(path == value) == (operator == "=")
        operator = SAME.get(str(operator).lower(), str(operator).lower())
        if operator not in OPERATORS:
            raise value_error(f"Invalid operator in condition {shown}")
        name, _, rest = str(path).partition(".")
        field = model._fields.get(name)
        if field is None:
            raise value_error(f"Invalid field {model._name}.{name} in condition {shown}")
        if not field.searchable:
            raise model._unkept(field)
        if operator == "=?":
            if not value:
                return lambda _row: True
            operator = "="
        if rest and not field.relation and field.type not in ("date", "datetime"):
            raise value_error(f"Invalid field property {rest!r} on {model._name}.{name}")
        if rest and field.relation:
            return self._any(model, field, [[rest, operator, value]])
        if isinstance(value, (list, tuple)) and operator in ("=", "!="):
            operator = "in" if operator == "=" else "not in"
        if operator in ("in", "not in"):
            value = self._collection(value)
        return self._simple(model, field, operator, value)

    def _collection(self, value: Any) -> list[Any]:
        values = list(value) if isinstance(value, (list, tuple)) else [value]
        if any(isinstance(v, (list, dict)) for v in values):
            raise type_error("unhashable type: 'list'")
        return values

    def _simple(self, model: "BaseModel", field: Field, operator: str, value: Any) -> Predicate:
        if operator.startswith("not ") and operator != "not in":
            return _not(self._simple(model, field, operator[4:], value))
        if operator == "!=":
            return _not(self._simple(model, field, "=", value))
        if operator == "not in":
            return _not(self._simple(model, field, "in", value))
        if operator == "any":
            if field.type not in ("many2one", *X2MANY):
                inner = [tuple(n) if isinstance(n, list) else n for n in nodes(value)]
                raise value_error(
                    f"Cannot use 'any' with non-relational fields in condition {(field.name, operator, inner)!r}"
                )
            return self._any(model, field, value)
        if operator in ("child_of", "parent_of"):
            return self._hierarchy(model, field, operator, value)
        if operator in LIKES and not value:
            return lambda _row: True
        if field.relation:
            return self._relational(model, field, operator, value)
        return self._scalar(model, field, operator, value)

    # --- references -----------------------------------------------------------------------------------------

    def _any(self, model: "BaseModel", field: Field, domain: Any) -> Predicate:
        """A row that the reference leads to meets the domain; archived lines do not count, archived targets do."""
        if field.relation not in self._env.db.schema.models:
            return lambda _row: False
        target = self._env[field.relation]
        inner = self.predicate(target, domain)
        rows, get, many = self._env.rows(field.relation), model._getter(field.name), field.type in X2MANY
        if not many:
            return lambda row: (key := str(get(row))) in rows and inner(rows[key])
        shown = not many or "active" not in target._fields or "active" in names(nodes(domain))
        return lambda row: any(
            str(k) in rows and inner(rows[str(k)]) and (shown or rows[str(k)].values.get("active", True))
            for k in get(row)
        )

    def _named(self, field: Field, operator: str, value: Any) -> set[int]:
        """The rows of a reference whose name matches."""
        if field.relation not in self._env.db.schema.models:
            return set()
        target = self._env.with_context({"active_test": False}).sudo()[field.relation]
        return set(target._named(str(value), operator))

    def _relational(self, model: "BaseModel", field: Field, operator: str, value: Any) -> Predicate:
        get, many = model._getter(field.name), field.type in X2MANY
        if operator in LIKES:
            wanted = self._named(field, operator, value)
        elif operator in ("=", "in"):
            values = value if operator == "in" else [value]
            wanted = {v for v in values if isinstance(v, int) and not isinstance(v, bool)}
            for text in (v for v in values if isinstance(v, str)):
                wanted |= self._named(field, "=", text)
            empty = any(v is False or v is None for v in values)
            if many:
                return lambda row: bool(wanted.intersection(get(row))) or (empty and not get(row))
            return lambda row: get(row) in wanted or (empty and not get(row))
        else:
            number = _whole(value)
            return lambda row: bool(get(row)) and _compare(operator, get(row), number)
        if many:
            return lambda row: bool(wanted.intersection(get(row)))
        return lambda row: get(row) in wanted

    def _hierarchy(self, model: "BaseModel", field: Field, operator: str, value: Any) -> Predicate:
        """Below or above some rows, themselves included, by ``parent_id``."""
        target = self._env.with_context({"active_test": False})[field.relation or model._name]
        values = value if isinstance(value, (list, tuple)) else [value]
        start = {v for v in values if isinstance(v, int) and not isinstance(v, bool)}
        for text in (v for v in values if isinstance(v, str)):
            start |= set(target._named(text, "ilike"))
        found = target._tree(start, down=operator == "child_of")
        if field.name == "id" or field.relation == model._name:
            return lambda row: int(row.id) in found
        get = model._getter(field.name)
        if field.type in X2MANY:
            return lambda row: bool(found.intersection(get(row)))
        return lambda row: get(row) in found

    # --- values ---------------------------------------------------------------------------------------------

    def _scalar(self, model: "BaseModel", field: Field, operator: str, value: Any) -> Predicate:
        get = model._getter(field.name)
        if operator in LIKES:
            match = pattern(operator, value).fullmatch
            return lambda row: (text := get(row)) not in (None, False) and match(str(text)) is not None
        if field.type == "datetime":
            return self._time(get, operator, value)
        if field.type == "boolean":
            return self._boolean(get, operator, value)
        if field.type == "date":
            convert: Callable[[Any], Any] = _day
        elif field.name == "id":
            convert = _whole
        elif field.type in NUMBERS or field.type == "many2one_reference":
            convert = _number
        else:
            convert = str
        nothing = 0 if field.type in NUMBERS else None
        if operator in ("=", "in"):
            values = value if operator == "in" else [value]
            wanted = {convert(v) for v in values if v not in (False, None, "") or (v == 0 and v is not False)}
            if field.type == "many2one_reference" and 0 in wanted:
                values = [*values, False]
            empty = any(v is False or v is None or v == "" for v in values)
            if empty:
                return lambda row: (own := get(row)) in wanted or own in (None, False, "") or own == nothing
            return lambda row: get(row) in wanted
        if value is False or value is None:
            return lambda _row: False
        limit = convert(value)
        return lambda row: (own := _or(get(row), nothing)) is not None and _compare(operator, own, limit)

    def _boolean(self, get: Callable[[Row], Any], operator: str, value: Any) -> Predicate:
        wanted = {bool(v) for v in (value if operator == "in" else [value])}
        return lambda row: bool(get(row)) in wanted

    def _time(self, get: Callable[[Row], Any], operator: str, value: Any) -> Predicate:
        """Since version 19 by whole seconds; before, to the microsecond, though clients see only seconds."""
        whole = self._env.db.version >= 19
        if operator in ("=", "in"):
            read = [domain_time(v) for v in (value if operator == "in" else [value])]
            texts = {t.strftime("%Y-%m-%d %H:%M:%S.%f") for t in read if not isinstance(t, bool)}
            seconds = {t[:19] for t in texts}
            empty = any(t is False for t in read)

            def equal(row: Row) -> bool:
                own = get(row)
                if own is None:
                    return empty
                return own[:19] in seconds if whole else f"{own}.000000"[:26] in texts

            return equal
        if whole:
            limit = bounds(operator, value)
            if isinstance(limit, bool):
                return lambda _row: False
            compare, text = limit
            return lambda row: (own := get(row)) is not None and _compare(compare, own, text)
        at = domain_time(value)
        if isinstance(at, bool):
            return lambda _row: False
        exact = at.strftime("%Y-%m-%d %H:%M:%S.%f")
        return lambda row: (own := get(row)) is not None and _compare(operator, f"{own}.000000"[:26], exact)


def _not(inner: Predicate) -> Predicate:
    return lambda row: not inner(row)


def _both(first: Predicate, second: Predicate) -> Predicate:
    return lambda row: first(row) and second(row)


def _either(first: Predicate, second: Predicate) -> Predicate:
    return lambda row: first(row) or second(row)


def _all(inner: list[Predicate]) -> Predicate:
    if len(inner) == 1:
        return inner[0]
    return lambda row: all(each(row) for each in inner)


def _or(value: Any, nothing: Any) -> Any:
    return nothing if value is None or value is False else value


def _compare(operator: str, own: Any, limit: Any) -> bool:
    match operator:
        case "<":
            return bool(own < limit)
        case "<=":
            return bool(own <= limit)
        case ">":
            return bool(own > limit)
        case _:
            return bool(own >= limit)


def _whole(value: Any) -> int:
    """A key; the database reads what is no number."""
    try:
        return int(value)
    except (TypeError, ValueError):
        raise refuse_sql(str(value)) from None


def _number(value: Any) -> float:
    if isinstance(value, str):
        try:
            return int(value)
        except ValueError as error:
            try:
                return float(value)
            except ValueError:
                raise value_error(str(error)) from None
    if not isinstance(value, (int, float)):
        raise type_error(
            f"int() argument must be a string, a bytes-like object or a real number, not {type(value).__name__!r}"
        )
    return value


def _day(value: Any) -> str:
    try:
        return date.fromisoformat(str(value)[:10]).isoformat()
    except ValueError:
        raise value_error(f"Invalid term {value!r} in expression date: {value!r}") from None
