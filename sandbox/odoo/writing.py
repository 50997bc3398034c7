"""The methods of every model that write. Each call is one transaction; ``env.Database.run`` begins and ends it."""

from collections.abc import Mapping
from typing import Any

from sandbox.odoo.errors import Refused, in_use, missing, not_null, type_error, value_error
from sandbox.odoo.grouping import Grouping
from sandbox.odoo.reading import api_model
from sandbox.odoo.schema import NUMBERS, X2MANY, Field
from sandbox.odoo.values import rounded, stored
from sandbox.store import Row, Values

# Written by the server alone; in what clients write they are passed over without a word.
MAGIC = frozenset(
    ("id", "create_date", "write_date", "create_uid", "write_uid", "__last_update", "display_name")
)
CREATE, UPDATE, DELETE, UNLINK, LINK, CLEAR, SET = range(7)


class Writing(Grouping):
    """What a model may say of its own: ``_prepare`` fills in a new row, ``_before_write`` and ``_before_unlink`` refuse,
    ``_after_create`` and ``_after_write`` carry a change further. ``_followed`` are references whose row is looked at while
    writing, so that a missing one is told as missing.
    """

    _followed: tuple[str, ...] = ()
    _unfilled: tuple[str, ...] = ()  # required, but filled by what is not modelled here

    def _prepare(self, vals: Values) -> None: ...
    def _after_create(self, row: Row, vals: Values) -> None: ...
    def _before_write(self, rows: list[Row], vals: Values) -> None: ...
    def _after_write(self, old: Row, row: Row, vals: Values) -> None: ...
    def _before_unlink(self, rows: list[Row]) -> None: ...

    # --- create ---------------------------------------------------------------------------------------------

    @api_model
    def create(self, vals_list: Any) -> list[int]:
        self._check("create")
        return [self._create(dict(v)) for v in ([vals_list] if isinstance(vals_list, Mapping) else vals_list)]

    def _create(self, given: Values) -> int:
        for name in given:
            if name not in self._fields:
                raise value_error(f"Invalid field {name!r} in {self._name!r}")
        context = {
            k[8:]: v
            for k, v in self._env.context.items()
            if k.startswith("default_") and k[8:] in self._fields
        }
        vals = {**self._defaults(), **context, **{k: v for k, v in given.items() if k not in MAGIC}}
        self._prepare(vals)
        own, beyond, lines = self._parted(vals)
        self._links(own)
        self._required(own)
        key = self._env.db.next_id(self._name)
        who = {"create_uid": self._env.uid, "write_uid": self._env.uid}
        self._env.db.store.write(self._name, str(key), {**own, **who}, at=self._env.now)
        self._beyond(str(key), beyond)
        for name, commands in lines.items():
            self._command(key, self._fields[name], commands)
        row = self._rows()[str(key)]
        self._after_create(row, vals)
        self._notify("create", [key], vals)
        return key

    def _parted(self, vals: Values) -> tuple[Values, Values, Values]:
        """What is kept in the row, what belongs to another row (``_inherits``), and commands for lines."""
        own: Values = {}
        beyond: Values = {}
        lines: Values = {}
        for name, value in vals.items():
            field = self._fields[name]
            if field.type in X2MANY:
                self._commands(field, value)
            if field.related.count(".") == 1 and not field.readonly:
                beyond[name] = value
            elif field.type == "one2many":
                lines[name] = value
            elif field.type == "many2many":
                own[name] = self._ids_after(field, [], value)
            elif not hasattr(self, f"_compute_{name}") or hasattr(self, f"_inverse_{name}"):
                own[name] = stored(self._name, field, value)
        return own, beyond, lines

    def _beyond(self, key: str, vals: Values) -> None:
        for name, value in vals.items():
            first, _, rest = self._fields[name].related.partition(".")
            target = self._getter(first)(self._rows()[key])
            if target and self._fields[first].relation in self._env.db.schema.models:
                self._env.sudo()[self._fields[first].relation]._browse([target]).write({rest: value})

    def _links(self, own: Values) -> None:
        """Refuse references to rows that are not there."""
        for name, value in own.items():
            field = self._fields[name]
            known = field.relation in self._env.db.schema.models
            if (
                field.type != "many2one"
                or not value
                or not known
                or str(value) in self._env.rows(field.relation)
            ):
                continue
            if name in self._followed:
                raise missing(field.relation, value, self._env.uid)
            raise in_use(self._model.string, self._name, field.string, name)

    def _required(self, own: Values, names: Any = None) -> None:
        for field in self._fields.values() if names is None else (self._fields[n] for n in names):
            if not field.required or not field.store or field.type in (*NUMBERS, *X2MANY, "boolean"):
                continue
            computed = field.related or field.name in MAGIC or hasattr(self, f"_compute_{field.name}")
            if not computed and field.name not in self._unfilled and own.get(field.name) in (None, ""):
                raise not_null(field.string, field.name, self._model.string, self._name)

    # --- write ----------------------------------------------------------------------------------------------

    def _existing(self) -> list[Row]:
        rows = self._rows()
        for key in self._ids:
            if isinstance(key, str) or str(key) not in rows:
                raise missing(self._name, key, self._env.uid)
        return [rows[str(k)] for k in dict.fromkeys(self._ids)]

    def write(self, vals: Any) -> bool:
        self._check("write")
        if not self._ids:
            return True
        for name in vals:
            if name not in self._fields:
                raise Refused("builtins.KeyError", name)
        rows = self._existing()
        vals = {k: v for k, v in vals.items() if k not in MAGIC}
        self._before_write(rows, vals)
        for old in rows:
            self._write(old, vals)
        self._notify("archive" if vals.keys() == {"active"} else "write", [int(r.id) for r in rows], vals)
        return True

    def _write(self, old: Row, vals: Values) -> None:
        scalar = {k: v for k, v in vals.items() if self._fields[k].type not in X2MANY}
        own, beyond, _ = self._parted(scalar)
        for name, value in own.items():
            if self._fields[name].type == "monetary" and value != old.values.get(name):
                own[name] = rounded(value)
        self._links(own)
        self._required(own, own)
        for name in vals.keys() - scalar.keys():
            field = self._fields[name]
            if field.type == "many2many":
                own[name] = self._ids_after(field, list(old.values.get(name) or ()), vals[name])
        self._touch(old.id, own)
        self._beyond(old.id, beyond)
        for name in vals.keys() - scalar.keys():
            if self._fields[name].type == "one2many":
                self._command(int(old.id), self._fields[name], vals[name])
        self._after_write(old, self._rows()[old.id], vals)

    def _touch(self, key: str, patch: Values) -> None:
        """Change a row as it is, without rules; its time moves."""
        self._env.db.store.write(self._name, key, {**patch, "write_uid": self._env.uid}, at=self._env.now)

    # --- lines and links ------------------------------------------------------------------------------------

    def _commands(self, field: Field, value: Any) -> list[Any]:
        if not value:
            return []
        if not isinstance(value, (list, tuple)):
            raise value_error(f"Wrong value for {self._name}.{field.name}: {value}")
        if all(isinstance(v, (list, tuple)) for v in value):
            return list(value)
        if any(isinstance(v, (list, dict)) for v in value):
            raise type_error(
                f"unhashable type: {next(type(v).__name__ for v in value if isinstance(v, (list, dict)))!r}"
            )
        return [[SET, 0, list(value)]]

    def _ids_after(self, field: Field, ids: list[int], value: Any) -> list[int]:
        """The ids of a many2many after commands."""
        target = self._env[field.relation] if field.relation in self._env.db.schema.models else None
        found = [] if not value else list(ids)
        for code, *rest in self._commands(field, value):
            match code:
                case 0 if target is not None:
                    found += target.create([rest[1]])
                case 1 if target is not None:
                    target._browse([rest[0]]).write(rest[1])
                case 2 if target is not None:
                    target._browse([rest[0]]).unlink()
                    found = [k for k in found if k != rest[0]]
                case 3:
                    found = [k for k in found if k != rest[0]]
                case 4:
                    found.append(rest[0])
                case 5:
                    found = []
                case 6:
                    found = list(rest[1])
        return list(dict.fromkeys(found))

    def _command(self, key: int, field: Field, value: Any) -> None:
        """Commands for the lines of a row."""
        if field.relation not in self._env.db.schema.models or not field.relation_field:
            return
        target = self._env[field.relation]
        back = field.relation_field
        mine = [int(r.id) for r in self._env.db.store.table(field.relation).where(back, key)]
        for code, *rest in self._commands(field, value or [[CLEAR, 0, 0]]):
            match code:
                case 0:
                    target.create([{**rest[1], back: key}])
                case 1:
                    target._browse([rest[0]]).write(rest[1])
                case 2:
                    target._browse([rest[0]]).unlink()
                case 3:
                    self._detach(target, back, [rest[0]])
                case 4:
                    target._browse([rest[0]]).write({back: key})
                case 5:
                    self._detach(target, back, mine)
                case 6:
                    self._detach(target, back, [k for k in mine if k not in rest[1]])
                    target._browse([k for k in rest[1] if k not in mine]).write({back: key})

    def _detach(self, target: "Writing", back: str, ids: list[int]) -> None:
        """A line that cannot be without its row goes."""
        lines = target._browse(ids)
        if target._fields[back].required or target._fields[back].ondelete == "cascade":
            lines.unlink()
        else:
            lines.write({back: False})

    # --- unlink ---------------------------------------------------------------------------------------------

    def unlink(self) -> bool:
        self._check("unlink")
        rows = self._existing()
        self._before_unlink(rows)
        self._notify("unlink", [int(r.id) for r in rows], {})
        for row in rows:
            self._unlink(row)
        return True

    def _unlink(self, row: Row) -> None:
        store, key = self._env.db.store, int(row.id)
        users = [
            (model, field, each)
            for model, field in self._env.db.schema.references.get(self._name, ())
            for each in store.table(model.name).where(field.name, key)
        ]
        for model, field, _ in users:
            if field.ondelete in ("restrict", "") or (field.ondelete == "set null" and field.required):
                raise in_use(model.string, model.name, field.string, field.name)
        store.delete(self._name, row.id)
        for model, field, each in users:
            if field.ondelete == "cascade":
                if each.id in store.table(model.name).rows:
                    self._env.sudo()[model.name]._unlink(each)
            else:  # the database does it, so the row's own time stays
                store.write(model.name, each.id, {field.name: None}, at=each.modified)
        for name, column in (("ir.model.data", "model"), ("mail.activity", "res_model")):
            for each in list(store.table(name).where("res_id", key)):
                if each.values.get(column) == self._name:
                    self._env.sudo()[name]._unlink(each)

    # --- more -----------------------------------------------------------------------------------------------

    def copy(self, default: Any = None) -> list[int]:
        made = []
        for row in self._existing():
            vals = {
                k: v
                for k, v in row.values.items()
                if k in self._fields and k not in MAGIC and v is not None and not self._fields[k].related
            }
            if isinstance(vals.get("name"), str):
                vals["name"] = f"{vals['name']} (copy)"
            made += self.create([{**vals, **(default or {})}])
        return made

    def _set_active(self, active: bool) -> None:
        if "active" not in self._fields:
            raise Refused("builtins.AssertionError", f"No 'active' field on model {self._name}")
        turned = [int(r.id) for r in self._existing() if bool(r.values.get("active")) != active]
        self._browse(turned).write({"active": active})

    def action_archive(self) -> None:
        self._set_active(False)

    def action_unarchive(self) -> None:
        self._set_active(True)

    def toggle_active(self) -> None:
        active = [int(r.id) for r in self._existing() if r.values.get("active")]
        self._browse([k for k in self._ids if k not in active]).action_unarchive()
        self._browse(active).action_archive()

    @api_model
    def name_create(self, name: str) -> list[Any]:
        key = self.create([{self._model.rec_name or "name": name}])[0]
        return [key, self._getter("display_name")(self._rows()[str(key)])]

    # --- webhooks -------------------------------------------------------------------------------------------

    def _notify(self, event: str, ids: list[int], vals: Values) -> None:
        """Let the automation rules of the model know; what they post leaves when the transaction commits."""
        rules = self._env.sudo()["base.automation"]
        if rules._rows():
            rules._fire(self, event, ids, vals)
