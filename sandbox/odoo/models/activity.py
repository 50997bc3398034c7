"""Activities: what somebody has to do about a row. Done in version 19, they are archived; before, they were gone."""

from collections.abc import Iterable
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from sandbox.odoo.errors import (
    Refused,
    broken,
    hidden,
    missing,
    refused_rows,
    type_error,
    user_error,
    value_error,
)
from sandbox.odoo.orm import BaseModel
from sandbox.odoo.schema import Model
from sandbox.odoo.values import DAYS, refuse_sql, stored, to_many2one
from sandbox.store import Row, Values

if TYPE_CHECKING:
    from sandbox.odoo.env import Env

NO_ROW = "Activities have to be linked to records with a not null res_id."
NOBODY = "Activities must be assigned if not attached to a document."
DOCUMENT = ("res_model_id", "res_model", "res_id")


class MailActivity(BaseModel):
    """What one is about is told by ``res_model_id`` and ``res_id``. ``res_model`` follows the former when that is written,
    and ``res_name`` is the document's name of that moment.
    """

    def __init__(self, env: "Env", model: Model, ids: Iterable[Any] = ()) -> None:
        super().__init__(env, model, ids)
        self._writable: dict[str, bool] = {}  # by model: whether who calls may change its rows

    def _today(self) -> str:
        return self._env.now.strftime(DAYS)

    def _defaults(self) -> Values:
        about = self._env.context.get("default_res_model")
        types = self._env["mail.activity.type"]
        first = next(
            (t for t in types._sorted(types._search([]), None) if t.values.get("res_model") in (None, about)),
            None,
        )
        found = {
            "active": True,
            "activity_type_id": int(first.id) if first else False,
            "date_deadline": self._today(),
        }
        return found | ({"res_model_id": self._model_id(about)} if about else {})

    def _model_id(self, name: str) -> int | None:
        return next((int(r.id) for r in self._env.db.store.table("ir.model").where("model", name)), None)

    # --- values that are not kept ---------------------------------------------------------------------------

    def _compute_res_model(self, row: Row) -> Any:
        return row.values.get("res_model")

    def _inverse_res_model(self) -> None: ...

    def _compute_display_name(self, row: Row) -> Any:
        kind = self._env.row("mail.activity.type", row.values.get("activity_type_id"))
        return row.values.get("summary") or (kind.values["name"] if kind else None)

    def _compute_state(self, row: Row) -> Any:
        if not row.values.get("active"):
            return "done"
        deadline, today = row.values.get("date_deadline") or "", self._today()
        return "overdue" if deadline < today else "today" if deadline == today else "planned"

    def _compute_can_write(self, row: Row) -> bool:
        return self._mine(row) or self._about_mine(row)

    # --- who may see and change what ------------------------------------------------------------------------

    def _mine(self, row: Row) -> bool:
        return self._env.su or row.values.get("user_id") == self._env.uid

    def _about_mine(self, row: Row) -> bool:
        """Whether the document is there, and may be changed by who calls."""
        name = row.values.get("res_model")
        if name not in self._env.db.schema.models or self._env.row(name, row.values.get("res_id")) is None:
            return False
        if name not in self._writable:
            self._writable[name] = self._env.db.access.allowed(self._env, name, "write")
        return self._writable[name]

    def _search(self, domain: Any) -> list[Row]:
        """Without those of others about what one may not change."""
        return [row for row in super()._search(domain) if self._compute_can_write(row)]

    def _found(self) -> list[Row]:
        return self._seen(super()._found())

    def _existing(self) -> list[Row]:
        return self._seen(super()._existing())

    def _seen(self, rows: list[Row]) -> list[Row]:
        if not all(self._compute_can_write(row) for row in rows):
            who = self._env.sudo()["res.users"]._label(self._env.uid)
            raise hidden(who, "Activity", self._name)
        return rows

    def _after_create(self, row: Row, _vals: Values) -> None:
        about = row.values.get("res_model")
        if not (self._env.su or (self._about_mine(row) if about else self._mine(row))):
            raise refused_rows("Activity", "create", [int(row.id)], self._env.uid)

    # --- writing --------------------------------------------------------------------------------------------

    def _model_named(self, value: Any) -> str | None:
        """The model that a reference to ``ir.model`` leads to."""
        key = to_many2one(value)
        if key is None:
            return None
        model = self._env.row("ir.model", key)
        if model is None:
            raise missing("ir.model", key, self._env.uid)
        return str(model.values["model"])

    def _linked(self, about: Values) -> None:
        """The database's own constraint on what an activity is of."""
        if (about.get("res_model") and not about.get("res_id")) or (
            about.get("res_id") and not about.get("res_model")
        ):
            raise broken(NO_ROW)
        if not about.get("res_model") and not about.get("user_id"):
            raise broken(NOBODY)

    def _name_of(self, about: Values) -> Any:
        name = about.get("res_model")
        row = self._env.row(name, about.get("res_id")) if name in self._env.db.schema.models else None
        return None if row is None else self._env.sudo()[str(name)]._getter("display_name")(row)

    def _prepare(self, vals: Values) -> None:
        for name in ("res_model_id", "user_id"):
            _refuse_texts(vals.get(name))
        vals["res_model"] = self._model_named(vals.get("res_model_id"))
        vals["res_id"] = stored(self._name, self._fields["res_id"], vals.get("res_id"))
        self._linked({**vals, "user_id": to_many2one(vals.get("user_id"))})
        vals["res_name"] = self._name_of(vals)
        vals["date_done"] = None if vals.get("active") else vals.get("date_done") or self._today()

    def write(self, vals: Any) -> bool:
        for name in vals:
            if name not in self._fields:
                raise value_error(f"Invalid field {name!r} in {self._name!r}")
        self._check("write")
        rows = self._rows()
        known = [rows[str(k)] for k in self._ids if str(k) in rows]
        others = [int(row.id) for row in known if not self._compute_can_write(row)]
        if others:
            raise refused_rows("Activity", "write", others, self._env.uid)
        return super().write(vals)

    def _before_write(self, rows: list[Row], vals: Values) -> None:
        state = vals.get("state")
        if state and state not in self._fields["state"].keys:
            raise value_error(f"Wrong value for {self._name}.state: {state!r}")
        user = vals.get("user_id")
        if user is True:
            raise type_error("'bool' object is not iterable")
        _refuse_texts(user[:1] if isinstance(user, str) else user)  # a text is taken as a list of its letters
        if user and (
            isinstance(user, str) or (isinstance(user, int) and self._env.row("res.users", user) is None)
        ):
            raise missing("res.users", user, self._env.uid)
        if (
            "date_deadline" in vals
            and not vals["date_deadline"]
            and any(r.values.get("user_id") for r in rows)
        ):
            raise type_error("'<=' not supported between instances of 'bool' and 'datetime.date'")

    def _write(self, old: Row, vals: Values) -> None:
        super()._write(old, {**vals, **self._following(old, vals)})

    def _following(self, old: Row, vals: Values) -> Values:
        """What changes with what is written: name and model of the document, and the day when it was done."""
        found: Values = {}
        if "active" in vals:
            done = vals.get("date_done") or old.values.get("date_done") or self._today()
            found["date_done"] = False if vals["active"] else done
        about = {**old.values, **vals}
        if "res_model_id" in vals:
            found["res_model"] = about["res_model"] = self._model_named(vals["res_model_id"])
        if "res_id" in vals:
            about["res_id"] = stored(self._name, self._fields["res_id"], vals["res_id"])
        about["user_id"] = to_many2one(about.get("user_id"))
        self._linked(about)
        if vals.keys() & set(DOCUMENT):
            found["res_name"] = self._name_of(about)
            if about["res_model"] and self._env.row(about["res_model"], about["res_id"]) is None:
                raise missing(about["res_model"], about["res_id"], self._env.uid)
        return found

    # --- done -----------------------------------------------------------------------------------------------

    def _finish(self, feedback: Any = False) -> int | bool:
        """The first of the messages that tell it at the documents; this server keeps no messages, only their numbers.

        One that is done is told again only with a new feedback.
        """
        told = [
            r for r in self._existing() if r.values.get("res_model") and (feedback or r.values.get("active"))
        ]
        for name in (str(row.values["res_model"]) for row in told):
            if not self._env.db.schema.models[name].thread:
                wrong = f"{name!r} object has no attribute 'message_post_with_source'"
                raise Refused("builtins.AttributeError", wrong)
        messages = [self._env.db.next_id("mail.message") for _ in told]
        if self._env.db.version >= 19:
            self.write({"active": False, **({"feedback": feedback} if feedback else {})})
        else:
            self.unlink()
        return messages[0] if messages else False

    def action_done(self) -> int | bool:
        return self._finish()

    def action_feedback(self, feedback: Any = False, attachment_ids: Any = None) -> int | bool:
        return self._finish(feedback)

    def action_cancel(self) -> None:
        self.unlink()

    def action_reschedule_today(self) -> None:
        self.write({"date_deadline": self._today()})

    def action_reschedule_tomorrow(self) -> None:
        self.write({"date_deadline": (self._env.now + timedelta(days=1)).strftime(DAYS)})


def _refuse_texts(value: Any) -> None:
    """References that the server gives to the database as they are: texts are no numbers there."""
    for each in value if isinstance(value, (list, tuple)) else [value]:
        if isinstance(each, str) and each and not each.isdigit():
            raise refuse_sql(each)


class MailActivityType(BaseModel):
    _kept = ("call", "meeting", "todo")  # of the types that come with the database

    def _defaults(self) -> Values:
        return {
            **super()._defaults(),
            "category": "default",
            "sequence": 10,
            "delay_count": 0,
            "delay_unit": "days",
            "delay_from": "previous_activity",
            "decoration_type": None,
            "chaining_type": "suggest",
        }

    def _compute_delay_label(self, row: Row) -> str:
        unit = dict(self._fields["delay_unit"].selection)[row.values["delay_unit"]]
        return f"{row.values.get('delay_count') or 0} {unit}"

    def _before_unlink(self, rows: list[Row]) -> None:
        kept = {self._env.xmlid(f"mail.mail_activity_data_{name}") for name in self._kept}
        for row in rows:
            if (self._name, int(row.id)) in kept:
                raise user_error(f"You cannot delete {row.values['name']} as it is required in various apps.")


for _name, _function in vars(MailActivity).items():
    if callable(_function) and not _name.startswith("_"):
        _function.__qualname__ = f"MailActivity.{_name}"
CLASSES: dict[str, type[BaseModel]] = {"mail.activity": MailActivity, "mail.activity.type": MailActivityType}
