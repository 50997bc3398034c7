"""The methods of every model that only read."""

import re
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

from sandbox.odoo.domains import Domains, conditions_of_all, names, nodes, pattern
from sandbox.odoo.errors import Refused, user_error, value_error
from sandbox.odoo.schema import X2MANY, Field, Model
from sandbox.odoo.values import exact, given, refuse_sql
from sandbox.store import Row, Values

if TYPE_CHECKING:
    from sandbox.odoo.env import Env

Getter = Callable[[Row], Any]
ORDER = re.compile(
    r"\s*([a-z0-9_.:]+(\s+(asc|desc))?(\s+nulls\s+(first|last))?\s*,\s*)*[a-z0-9_.:]+(\s+(asc|desc))?(\s+nulls\s+(first|last))?\s*",
    re.IGNORECASE,
)


def api_model(function: Any) -> Any:
    """A method of the model, not of rows: it takes no ids."""
    function._api_model = True
    return function


def _key(value: Any) -> Any:
    return value if isinstance(value, (int, float, str)) else str(value)


class Reading:
    """A model in an environment, and the rows with some ids. Methods without an underscore are for clients.

    ``_names`` are the fields by which rows are found by name. ``_compute_{field}(row)`` gives the value of a field that is not
    kept.
    """

    _names: tuple[str, ...] = ()

    def __init__(self, env: "Env", model: Model, ids: Iterable[Any] = ()) -> None:
        self._env = env
        self._model = model
        self._name = model.name
        self._fields = model.fields
        self._ids = list(ids)
        self._getters: dict[str, Getter] = {}

    # --- values of rows -------------------------------------------------------------------------------------

    def _rows(self) -> dict[str, Row]:
        return self._env.rows(self._name)

    def _found(self) -> list[Row]:
        """Those of the ids that exist."""
        rows = self._rows()
        for key in self._ids:
            if isinstance(key, str) and not key.isdigit():
                raise refuse_sql(key)
        return [rows[str(k)] for k in self._ids if str(k) in rows]

    def _getter(self, name: str) -> Getter:
        """How to get a field's value of a row, references as ids."""
        if name not in self._getters:
            self._getters[name] = self._make_getter(self._fields[name])
        return self._getters[name]

    def _make_getter(self, field: Field) -> Getter:
        compute = getattr(self, f"_compute_{field.name}", None)
        match field.name:
            case "id":
                return lambda row: int(row.id)
            case "create_date":
                return lambda row: exact(row.created)
            case "write_date" | "__last_update":
                return lambda row: exact(row.modified)
        if compute is not None:
            return compute
        if field.related and field.related != field.name:
            return self._follower(field)
        if field.type == "one2many" and field.relation in self._env.db.schema.models:
            return self._lines(field)
        if field.type == "many2many":
            rows = self._env.rows(field.relation) if field.relation in self._env.db.schema.models else {}
            return lambda row: [k for k in row.values.get(field.name) or () if str(k) in rows]
        return lambda row: row.values.get(field.name)

    def _follower(self, field: Field) -> Getter:
        """The value at the end of a path of references."""
        first, _, rest = field.related.partition(".")
        if not rest or self._fields[first].relation not in self._env.db.schema.models:
            return lambda row: row.values.get(field.name)
        get, target = self._getter(first), self._env.sudo()[self._fields[first].relation]
        last = rest.partition(".")[0]
        if last not in target._fields:
            return lambda row: row.values.get(field.name)
        if "." in rest:
            step = Field(rest, field.type, "", related=rest)
            after: Getter = target._follower(step)
        else:
            after = target._getter(rest)
        rows = self._env.rows(target._name)
        return lambda row: after(rows[key]) if (key := str(get(row))) in rows else None

    def _lines(self, field: Field) -> Getter:
        """The rows that lead here, in their order."""
        target = self._env.sudo()[field.relation]
        back = target._fields.get(field.relation_field)
        if back is None or not back.store:
            return lambda _row: []
        table = self._env.db.store.table(field.relation)
        if back.type == "many2one_reference":
            return lambda row: [
                int(r.id)
                for r in target._sorted(table.where(back.name, int(row.id)), None)
                if r.values.get("res_model", r.values.get("model")) == self._name
                and r.values.get("active", True)
            ]
        hidden = "active" in target._fields
        return lambda row: [
            int(r.id)
            for r in target._sorted(table.where(back.name, int(row.id)), None)
            if not hidden or r.values.get("active", True)
        ]

    def _compute_display_name(self, row: Row) -> Any:
        name = self._model.rec_name
        return (self._getter(name)(row) or False) if name else f"{self._name},{row.id}"

    def _label(self, key: Any) -> list[Any] | bool:
        """A reference as it is read: id and name."""
        row = self._rows().get(str(key))
        return [int(row.id), self._getter("display_name")(row)] if row is not None else False

    def _shown(self, field: Field, value: Any, *, named: bool) -> Any:
        value = given(field, value)
        if field.type == "many2one" and value:
            known = field.relation in self._env.db.schema.models
            if not named:
                return value
            return self._env.sudo()[field.relation]._label(value) if known else False
        return value[:19] if field.type == "datetime" and value else value

    def _check(self, operation: str) -> None:
        self._env.db.access.check(self._env, self._name, operation)

    # --- search ---------------------------------------------------------------------------------------------

    def _candidates(self, domain: list[Any]) -> Iterable[Row]:
        """The rows worth looking at: few, where a condition that all must meet names ids or an indexed value."""
        table = self._env.db.store.table(self._name)
        for name, operator, value in conditions_of_all(domain):
            if name == "id" and operator in ("=", "in"):
                wanted = value if isinstance(value, (list, tuple)) else [value]
                return [table.rows[k] for k in dict.fromkeys(map(str, wanted)) if k in table.rows]
            field = self._fields.get(name)
            plain = (
                field is not None
                and field.store
                and not field.related
                and not hasattr(self, f"_compute_{name}")
            )
            kind = field is not None and (field.type, type(value)) in (("char", str), ("many2one", int))
            if plain and kind and operator == "=" and value and name not in ("create_uid", "write_uid"):
                return table.where(name, value)
        return table.rows.values()

    def _search(self, domain: Any) -> list[Row]:
        test = Domains(self._env).predicate(self, domain)
        listed = nodes(domain)
        hide = (
            "active" in self._fields
            and self._env.context.get("active_test", True)
            and "active" not in names(listed)
        )
        return [
            row for row in self._candidates(listed) if (not hide or row.values.get("active")) and test(row)
        ]

    def _unkept(self, field: Field) -> Refused:
        """Why the database cannot be asked by a field: it is told of the row that the value comes from."""
        first, _, rest = field.related.partition(".")
        model, name = (self._fields[first].relation, rest) if rest else (self._name, field.name)
        return value_error(f"Cannot convert {model}.{name} to SQL because it is not stored")

    def _ordering(self, order: str | None) -> list[tuple[Getter, bool]]:
        text = order or self._model.order or "id"
        if not isinstance(text, str) or not ORDER.fullmatch(text):
            raise user_error(
                f'Invalid "order" specified ({text}). A valid "order" specification is a comma-separated list of valid field '
                "names (optionally followed by asc/desc for the direction)"
            )
        found: list[tuple[Getter, bool]] = []
        for part in text.split(","):
            name, *direction = part.split()
            field = self._fields.get(name)
            if field is None and not order:  # the model's own order, by a field that was not recorded
                continue
            if field is None:
                raise value_error(f"Invalid field {name!r} on model {self._name!r}")
            if not field.store and not field.sortable:
                raise self._unkept(field)
            down = bool(direction) and direction[0].lower() == "desc"
            found += self._terms(field, down)
        return found

    def _terms(self, field: Field, down: bool) -> list[tuple[Getter, bool]]:
        get = self._getter(field.name)
        if (
            field.type != "many2one"
            or field.relation not in self._env.db.schema.models
            or field.relation == self._name
        ):
            return [(get, down)]
        target, rows = self._env.sudo()[field.relation], self._env.rows(field.relation)
        return [
            (
                lambda row, inner=inner: inner(rows[key]) if (key := str(get(row))) in rows else None,
                down != turned,
            )
            for inner, turned in target._ordering(None)
        ]

    def _sorted(self, rows: Iterable[Row], order: str | None) -> list[Row]:
        """As the database sorts: nothing comes after everything, or first when turned round."""
        found = list(rows)
        for get, down in reversed(self._ordering(order)):
            found.sort(key=lambda r, get=get: rank(get(r)), reverse=down)
        return found

    def _cut(self, rows: list[Any], offset: Any, limit: Any) -> list[Any]:
        if limit is not None and not isinstance(limit, (int, bool)):
            raise refuse_sql(str(limit), "bigint")
        if limit and limit < 0:
            raise Refused("psycopg2.errors.InvalidRowCountInLimitClause", "LIMIT must not be negative\n")
        start = int(offset or 0)
        return rows[start : start + limit if limit else None]

    def _select(self, domain: Any, offset: Any = 0, limit: Any = None, order: str | None = None) -> list[Row]:
        self._check("read")
        return self._cut(self._sorted(self._search(domain), order), offset, limit)

    @api_model
    def search(
        self, domain: Any, offset: int = 0, limit: int | None = None, order: str | None = None
    ) -> list[int]:
        return [int(row.id) for row in self._select(domain, offset, limit, order)]

    @api_model
    def search_count(self, domain: Any, limit: int | None = None) -> int:
        self._check("read")
        found = len(self._search(domain))
        return min(found, limit) if limit else found

    @api_model
    def search_read(
        self, domain: Any = None, fields: Any = None, offset: int = 0, limit: int | None = None, order: str | None = None,
        **read_kwargs: Any,
    ) -> list[Values]:  # fmt: skip
        columns = self._columns(fields)
        return self._read(
            self._select(domain or [], offset, limit, order),
            columns,
            read_kwargs.get("load", "_classic_read"),
        )

    def _columns(self, fields: Any) -> list[Field]:
        for name in fields or ():
            if name not in self._fields:
                raise value_error(f"Invalid field {name!r} on {self._name!r}")
        return [self._fields[name] for name in fields or self._fields]

    def _read(self, rows: Iterable[Row], columns: list[Field], load: Any) -> list[Values]:
        steps = [(f, self._getter(f.name)) for f in columns if f.name != "id"]
        named = load == "_classic_read"
        return [
            {"id": int(r.id), **{f.name: self._shown(f, get(r), named=named) for f, get in steps}}
            for r in rows
        ]

    def read(self, fields: Any = None, load: Any = "_classic_read") -> list[Values]:
        self._check("read")
        columns = self._columns(fields)
        return self._read(self._found(), columns, load)

    def web_read(self, specification: Mapping[str, Any]) -> list[Values]:
        self._check("read")
        return self._web(self._found(), specification)

    @api_model
    def web_search_read(
        self, domain: Any, specification: Mapping[str, Any], offset: int = 0, limit: int | None = None,
        order: str | None = None, count_limit: int | None = None,
    ) -> Values:  # fmt: skip
        rows = self._select(domain, 0, None, order)
        return {
            "length": min(len(rows), count_limit or len(rows)),
            "records": self._web(self._cut(rows, offset, limit), specification),
        }

    def _web(self, rows: list[Row], specification: Mapping[str, Any]) -> list[Values]:
        found = self._read(rows, self._columns(list(specification) or ["id"]), None)
        for name, inner in specification.items():
            field = self._fields[name]
            if not inner.get("fields") or field.relation not in self._env.db.schema.models:
                continue
            target = self._env[field.relation]
            for row in found:
                keys = row[name] if isinstance(row[name], list) else [row[name]] if row[name] else []
                read = target._browse(keys).web_read(inner["fields"])
                row[name] = read if field.type in X2MANY else (read[0] if read else False)
        return found

    def _browse(self, ids: Iterable[Any]) -> Any:
        return type(self)(self._env, self._model, ids)

    # --- names ----------------------------------------------------------------------------------------------

    def _named(self, text: str, operator: str = "ilike") -> list[int]:
        """The ids of rows whose name matches."""
        match = pattern(operator, text).fullmatch if operator.endswith("like") else text.__eq__
        wanted = self._names or ((self._model.rec_name,) if self._model.rec_name else ("display_name",))
        getters = [self._getter(n) for n in wanted if n in self._fields]
        hide = "active" in self._fields and self._env.context.get("active_test", True)
        return [
            int(row.id)
            for row in self._rows().values()
            if (not hide or row.values.get("active"))
            and any(match(str(v)) for get in getters if (v := get(row)))
        ]

    @api_model
    def name_search(
        self, name: str = "", domain: Any = None, operator: str = "ilike", limit: int = 100
    ) -> list[Any]:
        self._check("read")
        rows = self._search(domain or [])
        if name:
            found = set(self._named(name, operator))
            rows = [r for r in rows if int(r.id) in found]
        return [
            [int(r.id), self._getter("display_name")(r)]
            for r in self._cut(self._sorted(rows, None), 0, limit)
        ]

    def _tree(self, start: set[int], *, down: bool) -> set[int]:
        """Rows and all below them, or above."""
        table, found, todo = self._env.db.store.table(self._name), set(start), list(start)
        while todo:
            key = todo.pop()
            if down:
                near = [int(r.id) for r in table.where("parent_id", key)]
            else:
                row = table.rows.get(str(key))
                near = [row.values["parent_id"]] if row is not None and row.values.get("parent_id") else []
            todo += [k for k in near if k not in found]
            found.update(near)
        return found

    # --- about the model ------------------------------------------------------------------------------------

    @api_model
    def fields_get(self, allfields: Any = None, attributes: Any = None) -> Values:
        return {
            name: field.told(attributes)
            for name, field in sorted(self._fields.items())
            if not allfields or name in allfields
        }

    def _defaults(self) -> Values:
        """What a new row has that nobody said anything about."""
        return {"active": True} if "active" in self._fields else {}

    @api_model
    def default_get(self, fields: Any) -> Values:
        found = {
            **self._defaults(),
            **{k[8:]: v for k, v in self._env.context.items() if k.startswith("default_")},
        }
        return {
            k: [[6, 0, v]] if self._fields[k].type in X2MANY else v
            for k, v in found.items()
            if k in fields and k in self._fields
        }

    @api_model
    def check_access_rights(self, operation: str, raise_exception: bool = True) -> bool | None:
        allowed = self._env.db.access.allowed(self._env, self._name, operation)
        if not raise_exception:
            return allowed
        self._check(operation)
        return None if self._env.db.version >= 19 else True

    def has_access(self, operation: str) -> bool:
        return self._env.db.access.allowed(self._env, self._name, operation)

    def get_external_id(self) -> dict[str, str]:
        """By id, the external id; empty for rows without one."""
        named = self._env.sudo()["ir.model.data"]
        return {str(key): next(iter(named._of(self._name, int(key))), "") for key in self._ids}

    def get_metadata(self) -> list[Values]:
        found = []
        for row in self.read(["create_uid", "create_date", "write_uid", "write_date"]):
            named = self._env.sudo()["ir.model.data"]._of(self._name, row["id"])
            xmlids = [{"xmlid": x, "noupdate": False} for x in named]
            found.append({**row, "xmlid": named[0] if named else False, "noupdate": False, "xmlids": xmlids})
        return found


def rank(value: Any) -> tuple[bool, Any]:
    nothing = value is None or value is False
    return nothing, 0 if nothing else _key(value)
