"""``load``: rows as a table of texts, found again by external ids; created or changed, all of them or none."""

from datetime import datetime
from typing import Any

from sandbox.odoo.errors import BROKEN, Lacking, Refused, RowsRefused, access_error, value_error
from sandbox.odoo.reading import api_model
from sandbox.odoo.schema import X2MANY, Field
from sandbox.odoo.writing import Writing
from sandbox.store import Values

CONFLICT = "could not serialize access due to concurrent update\n"
TRUE = ("1", "true", "yes")
FALSE = ("", "0", "false", "no")


class Bad(Exception):
    """A cell that cannot be taken."""

    def __init__(self, message: str, field: str = "", more: Any = None, label: str = "") -> None:
        super().__init__(message)
        self.facts: Values = {"message": message}
        if field:
            self.facts["field"] = field
        if more is not None:
            self.facts["moreinfo"] = more
        if label:
            self.facts["field_name"] = label


class Loading(Writing):
    @api_model
    def load(self, fields: Any, data: Any) -> Values:
        names = [str(f) for f in fields]
        for name in names:
            if name not in ("id", ".id") and name.partition("/")[0] not in self._fields:
                raise value_error(f"Invalid field name {name.partition('/')[0]!r}")
        db, messages, done = self._env.db, [], []
        made: list[int] = []
        if "id" in names and self._conflict([str(row[names.index("id")]) for row in data]):
            return self._failed([_told(0, {"message": CONFLICT})])
        rows = [dict(zip(names, row, strict=False)) for row in data]
        try:
            with db.store.savepoint():
                for number, row in enumerate(rows):
                    values, wrong = self._cells(row)
                    try:
                        key = self._put(row, values, made)
                        done.append(key)
                    except Bad as bad:
                        wrong.append(bad)
                    except Refused as refused:
                        if isinstance(refused, RowsRefused):  # told of all rows together, then of this one
                            messages.append(_told(0, {"message": refused.message}))
                        wrong.append(_bad(refused))
                    messages += [_told(number, bad.facts) for bad in wrong]
                _refuse_if(messages)
                self._after_load(made)
        except _Refuse:
            db.outbox.drop()
            return self._failed(messages)
        return {"ids": done, "messages": [], "nextrow": 0}

    def _failed(self, messages: list[Values]) -> Values:
        return {"ids": False, "messages": messages, "nextrow": 0}

    def _conflict(self, external: list[str]) -> bool:
        """Whether another load of the same rows is under way, by an option of the sandbox."""
        db = self._env.db
        options, now = db.frame.options, db.frame.clock.seconds()
        if options["load_conflicts"] > 0:
            options["load_conflicts"] -= 1
            return True
        if options["load_seconds"] <= 0:
            return False
        keys = [(self._name, each) for each in external]
        if any(db.loading.get(key, 0.0) > now for key in keys):
            return True
        db.loading.update(dict.fromkeys(keys, now + options["load_seconds"]))
        return False

    # --- cells ----------------------------------------------------------------------------------------------

    def _cells(self, row: Values) -> tuple[Values, list[Bad]]:
        values: Values = {}
        wrong: list[Bad] = []
        for column, text in row.items():
            if column in ("id", ".id"):
                continue
            name, _, sub = column.partition("/")
            try:
                values[name] = self._cell(self._fields[name], sub, text)
            except Bad as bad:
                wrong.append(bad)
        return values, wrong

    def _cell(self, field: Field, sub: str, text: Any) -> Any:
        if field.relation:
            return self._reference(field, sub, text)
        if text is None or text is False or text == "":
            return False
        match field.type:
            case "boolean":
                return _boolean(text)
            case "integer" | "many2one_reference":
                return _converted(int, field, text, "an integer")
            case "float" | "monetary":
                return _converted(float, field, text, "a number")
            case "datetime":
                return _time(field, text, "%Y-%m-%d %H:%M:%S", "datetime", "2012-12-31 23:59:59")
            case "date":
                return _time(field, str(text)[:10], "%Y-%m-%d", "date", "2012-12-31")
            case "selection":
                for key, label in field.selection:
                    if str(text).lower() in (key.lower(), label.lower()):
                        return key
                raise Bad(
                    f"Value '{text}' not found in selection field '{field.string}'", field.name,
                    [label or str(key) for key, label in field.selection if label or key], field.string,
                )  # fmt: skip
        return text

    def _reference(self, field: Field, sub: str, text: Any) -> Any:
        if not text:
            return False
        parts = str(text).split(",") if field.type in X2MANY else [str(text)]
        ids = [self._one(field, sub, part) for part in parts]
        return [[6, 0, ids]] if field.type in X2MANY else ids[0]

    def _one(self, field: Field, sub: str, text: str) -> int:
        possible = {
            "name": "Possible Values", "type": "ir.actions.act_window", "target": "new", "view_mode": "list,form",
            "views": [[False, "list"], [False, "form"]], "context": {"create": False}, "help": "See all possible values",
        }  # fmt: skip
        more: Values = {**possible, "res_model": "ir.model.data", "domain": [["model", "=", field.relation]]}
        if sub == "id":
            found = self._env.xmlid(text if "." in text else f"__import__.{text}")
            if found is not None and found[0] == field.relation:
                return found[1]
            kind = "external id"
        elif sub == ".id":
            if text.isdigit() and self._env.row(field.relation, int(text)) is not None:
                return int(text)
            kind = "database id"
        else:
            named = self._env.sudo()[field.relation]._named(text, "=")
            if named:
                return named[0]
            more, kind = {**possible, "res_model": field.relation}, "name"
        raise Bad(
            f"No matching record found for {kind} '{text}' in field '{field.string}'",
            field.name,
            more,
            field.string,
        )

    # --- rows -----------------------------------------------------------------------------------------------

    def _load_create(self, values: Values) -> int:
        """A new row of an import."""
        return int(self._browse([]).create([values])[0])

    def _after_load(self, keys: list[int]) -> None:
        """What a model does with the new rows of an import, when all of them are there."""

    def _put(self, row: Values, values: Values, made: list[int]) -> int:
        """Create or change the row that the external or the database id names; `made` takes what is new."""
        if row.get(".id"):
            key = str(row[".id"])
            if key not in self._rows():
                raise Bad(f"Unknown database identifier '{key}'", ".id")
            self._browse([int(key)]).write(values)
            return int(key)
        external = str(row.get("id") or "")
        if not external:
            made.append(self._load_create(values))
            return made[-1]
        module, dot, name = external.partition(".")
        module, name = (module, name) if dot else ("__import__", external)
        found = self._env.xmlid(f"{module}.{name}")
        if found is not None:
            if found[0] != self._name:
                raise access_error(
                    f"For external id {external} when trying to create/update a record of model {self._name} found record of "
                    f"different model {found[0]} ({found[1]})"
                )
            self._browse([found[1]]).write(values)
            return found[1]
        key = self._load_create(values)
        made.append(key)
        data = {"module": module, "name": name, "model": self._name, "res_id": key, "noupdate": False}
        self._env.sudo()["ir.model.data"].create([data])
        return key


class _Refuse(Exception):
    """Ends a load of which something is wrong."""


def _refuse_if(messages: list[Values]) -> None:
    if messages:
        raise _Refuse


def _bad(refused: Refused) -> Bad:
    field = refused.field if isinstance(refused, Lacking) else ""
    return Bad(refused.message.removeprefix(BROKEN), field)


def _boolean(text: Any) -> bool:
    if not hasattr(text, "lower"):
        raise Refused("builtins.AttributeError", f"{type(text).__name__!r} object has no attribute 'lower'")
    return text.lower() in TRUE or text.lower() not in FALSE


def _told(number: int, facts: Values) -> Values:
    return {"rows": {"from": number, "to": number}, "record": number, "type": "error", **facts}


def _converted(kind: type, field: Field, text: Any, what: str) -> Any:
    try:
        return kind(text)
    except ValueError:
        raise Bad(
            f"'{text}' does not seem to be {what} for field '{field.string}'", field.name, label=field.string
        ) from None


def _time(field: Field, text: Any, form: str, kind: str, example: str) -> str:
    try:
        return datetime.strptime(str(text), form).strftime(form)  # noqa: DTZ007 - the server's times are naive
    except ValueError:
        raise Bad(
            f"'{text}' does not seem to be a valid {kind} for field '{field.string}'",
            field.name,
            f"Use the format '{example}'",
            field.string,
        ) from None
