"""The methods of every model that count and sum rows in groups."""

from collections.abc import Callable
from typing import Any

from sandbox.odoo.errors import value_error
from sandbox.odoo.reading import Reading, api_model, rank
from sandbox.odoo.schema import X2MANY
from sandbox.store import Row, Values


class Grouping(Reading):
    def _groups(self, rows: list[Row], by: list[str]) -> dict[tuple[Any, ...], list[Row]]:
        getters = []
        for each in by:
            name, _, unit = each.partition(":")
            if name not in self._fields:
                raise value_error(f"Invalid field {name!r} on model {self._name!r}")
            field = self._fields[name]
            if not field.store and not field.sortable and field.type not in X2MANY:
                raise self._unkept(field)
            getters.append((self._getter(name), {"day": 10, "month": 7, "year": 4}.get(unit)))
        found: dict[tuple[Any, ...], list[Row]] = {}
        for row in rows:
            values = (get(row) for get, _ in getters)
            key = tuple(
                (v[:cut] if cut and v else v) or False for v, (_, cut) in zip(values, getters, strict=True)
            )
            found.setdefault(key, []).append(row)
        ranks = [
            self._ranking(each.partition(":")[0], {key[n] for key in found}) for n, each in enumerate(by)
        ]
        return dict(
            sorted(found.items(), key=lambda item: [how(v) for how, v in zip(ranks, item[0], strict=True)])
        )

    def _ranking(self, name: str, values: set[Any]) -> Callable[[Any], tuple[bool, Any]]:
        """By what groups of these values are sorted: those of a reference as its rows are."""
        field = self._fields[name]
        if field.type == "boolean":
            return lambda v: (False, int(v))
        if field.type != "many2one" or field.relation not in self._env.db.schema.models:
            return rank
        target, rows = self._env.sudo()[field.relation], self._env.rows(field.relation)
        ordered = target._sorted((rows[str(v)] for v in values if str(v) in rows), None)
        places = {int(row.id): place for place, row in enumerate(ordered)}
        return lambda v: rank(places.get(v))

    def _aggregate(self, spec: str, rows: list[Row]) -> Any:
        name, _, how = spec.partition(":")
        if name == "__count":
            return len(rows)
        if name not in self._fields:
            raise value_error(f"Invalid field {name!r} on model {self._name!r}")
        values = [v for r in rows if (v := self._getter(name)(r)) is not None]
        functions: dict[str, Callable[[list[Any]], Any]] = {
            "sum": sum, "count": len, "count_distinct": lambda v: len(set(v)), "array_agg": list,
            "min": lambda v: min(v, default=False), "max": lambda v: max(v, default=False),
            "avg": lambda v: sum(v) / len(v) if v else False,
        }  # fmt: skip
        if how not in functions:
            raise value_error(f"Invalid aggregate method {how!r} for {spec!r}.")
        return functions[how](values)

    @api_model
    def formatted_read_group(
        self, domain: Any, groupby: Any = (), aggregates: Any = (), having: Any = (), offset: int = 0,
        limit: int | None = None, order: str | None = None,
    ) -> list[Values]:  # fmt: skip
        by = list(groupby)
        groups = self._groups(self._select(domain), by) if by else {(): self._select(domain)}
        found = []
        for key, rows in groups.items():
            shown = {
                n: self._shown(self._fields[n.partition(":")[0]], v or None, named=True)
                for n, v in zip(by, key, strict=True)
            }
            where = [[n, "=", v] for n, v in zip(by, key, strict=True)] or [[1, "=", 1]]
            found.append(
                {**shown, "__extra_domain": where, **{a: self._aggregate(a, rows) for a in aggregates}}
            )
        return self._cut(found, offset, limit)

    @api_model
    def read_group(
        self, domain: Any, fields: Any, groupby: Any, offset: int = 0, limit: int | None = None, orderby: Any = False,
        lazy: bool = True,
    ) -> list[Values]:  # fmt: skip
        by = [groupby] if isinstance(groupby, str) else list(groupby)
        by = by[:1] if lazy else by
        found = []
        for key, rows in self._groups(self._select(domain), by).items():
            shown = {
                n: self._shown(self._fields[n.partition(":")[0]], v or None, named=True)
                for n, v in zip(by, key, strict=True)
            }
            count = {f"{by[0]}_count" if lazy and by else "__count": len(rows)}
            sums = {
                name: self._aggregate(f"{name}:{how or 'sum'}", rows)
                for name, _, how in (str(f).partition(":") for f in fields)
                if name not in by
                and name in self._fields
                and (how or self._fields[name].type in ("integer", "float", "monetary"))
            }
            leaves = [*domain, *([n, "=", v] for n, v in zip(by, key, strict=True))]
            domain_of = (
                [*["&"] * (sum(not isinstance(n, str) for n in leaves) - 1), *leaves] if domain else leaves
            )
            found.append({**shown, **count, **sums, "__domain": domain_of})
        return self._cut(found, offset, limit)
