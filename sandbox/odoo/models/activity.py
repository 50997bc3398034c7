"""Activities: what somebody has to do about a row. Done in version 19, they are archived; before, they were gone."""

from typing import Any

from sandbox.odoo.errors import broken
from sandbox.odoo.orm import BaseModel
from sandbox.odoo.values import DAYS
from sandbox.store import Row, Values

DONE_BY = 100  # numbers of messages, of which this server keeps none


class MailActivity(BaseModel):
    def _defaults(self) -> Values:
        return {"active": True, "activity_type_id": 4, "user_id": None}

    def _prepare(self, vals: Values) -> None:
        if vals.get("res_model_id"):
            model = self._env.row("ir.model", vals["res_model_id"])
            vals["res_model"] = model.values["model"] if model else None
        elif vals.get("res_model"):  # read of the reference: what is written here is lost
            vals["res_model"] = None
        if "date_deadline" not in vals:
            vals["date_deadline"] = self._env.now.strftime(DAYS)
        if vals.get("res_model") and not vals.get("res_id"):
            raise broken("Activities have to be linked to records with a not null res_id.")
        if not vals.get("res_model"):
            if vals.get("res_id"):
                raise broken("Activities have to be linked to records with a not null res_id.")
            if not vals.get("user_id"):
                raise broken("Activities must be assigned if not attached to a document.")

    def _parted(self, vals: Values) -> tuple[Values, Values, Values]:
        own, beyond, lines = super()._parted({k: v for k, v in vals.items() if k != "res_model"})
        if "res_model" in vals:
            own["res_model"] = vals["res_model"]
        return own, beyond, lines

    def _compute_res_model(self, row: Row) -> Any:
        return row.values.get("res_model")

    def _document(self, row: Row) -> tuple[BaseModel, Row] | None:
        name = row.values.get("res_model")
        if name not in self._env.db.schema.models:
            return None
        found = self._env.row(name, row.values.get("res_id"))
        return None if found is None else (self._env.sudo()[name], found)

    def _compute_res_name(self, row: Row) -> Any:
        found = self._document(row)
        return found[0]._getter("display_name")(found[1]) if found else None

    def _compute_display_name(self, row: Row) -> Any:
        kind = self._env.row("mail.activity.type", row.values.get("activity_type_id"))
        return row.values.get("summary") or (kind.values["name"] if kind else None)

    def _compute_state(self, row: Row) -> Any:
        if not row.values.get("active"):
            return "done"
        deadline, today = row.values.get("date_deadline") or "", self._env.now.strftime(DAYS)
        return "overdue" if deadline < today else "today" if deadline == today else "planned"

    def _finish(self, feedback: Any = False) -> int:
        day = self._env.now.strftime(DAYS)
        if self._env.db.version >= 19:
            self.write({"active": False, "date_done": day, **({"feedback": feedback} if feedback else {})})
        else:
            self.unlink()
        return DONE_BY + int(self._ids[-1] if self._ids else 0)

    def action_done(self) -> int:
        return self._finish()

    def action_feedback(self, feedback: Any = False, attachment_ids: Any = None) -> int:
        return self._finish(feedback)


class MailActivityType(BaseModel):
    def _defaults(self) -> Values:
        return {
            **super()._defaults(),
            "category": "default",
            "delay_count": 0,
            "delay_unit": "days",
            "delay_from": "previous_activity",
            "decoration_type": None,
            "chaining_type": "suggest",
        }


for _name in ("action_done", "action_feedback"):
    getattr(MailActivity, _name).__qualname__ = f"MailActivity.{_name}"
CLASSES: dict[str, type[BaseModel]] = {"mail.activity": MailActivity, "mail.activity.type": MailActivityType}
