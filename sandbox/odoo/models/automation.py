"""Automation rules whose action is a webhook (base.automation with ir.actions.server), outgoing and incoming."""

import ast
import uuid
from typing import Any

from sandbox.odoo.domains import Domains
from sandbox.odoo.errors import value_error
from sandbox.odoo.orm import BaseModel
from sandbox.odoo.values import exact
from sandbox.store import Row, Values

# Which triggers an event sets off.
TRIGGERS = {
    "create": ("on_create_or_write", "on_create"),
    "write": ("on_create_or_write", "on_write"),
    "archive": ("on_create_or_write", "on_write", "on_archive", "on_unarchive"),
    "unlink": ("on_unlink",),
}
GETTER = "model.env[payload.get('_model')].browse(int(payload.get('_id')))"


class BaseAutomation(BaseModel):
    def _defaults(self) -> Values:
        return {**super()._defaults(), "record_getter": GETTER, "log_webhook_calls": False}

    def _prepare(self, vals: Values) -> None:
        vals["webhook_uuid"] = str(uuid.UUID(int=self._env.db.random.getrandbits(128), version=4))

    def _compute_url(self, row: Row) -> str:
        hook = row.values.get("trigger") == "on_webhook"
        return f"{self._env.db.base_url}/web/hook/{row.values['webhook_uuid']}" if hook else ""

    def _fire(self, model: BaseModel, event: str, ids: list[int], vals: Values) -> None:
        """Put the posts of this event of rows into the outbox."""
        for rule in self._rows().values():
            told = rule.values
            if not told.get("active") or told.get("trigger") not in TRIGGERS[event]:
                continue
            about = self._env.row("ir.model", told.get("model_id"))
            if about is None or about.values["model"] != model._name or not self._meant(told, event, vals):
                continue
            kept = self._filtered(model, told.get("filter_domain"), ids)
            for action in (
                self._env.row("ir.actions.server", k) for k in self._getter("action_server_ids")(rule)
            ):
                if action is not None and action.values.get("state") == "webhook":
                    for key in kept:
                        self._post(model, action, event, key)

    def _meant(self, told: Values, event: str, vals: Values) -> bool:
        if told["trigger"] == "on_archive":
            return vals.get("active") is False
        if told["trigger"] == "on_unarchive":
            return bool(vals.get("active"))
        watched = [self._env.row("ir.model.fields", k) for k in told.get("trigger_field_ids") or ()]
        names = {f.values["name"] for f in watched if f is not None}
        return not names or event in ("create", "unlink") or bool(names & vals.keys())

    def _filtered(self, model: BaseModel, domain: Any, ids: list[int]) -> list[int]:
        if not domain:
            return ids
        try:
            read = ast.literal_eval(domain)
        except (ValueError, SyntaxError):
            raise value_error(f"Invalid domain: {domain}") from None
        test, rows = Domains(self._env).predicate(model, read), model._rows()
        return [k for k in ids if str(k) in rows and test(rows[str(k)])]

    def _post(self, model: BaseModel, action: Row, event: str, key: int) -> None:
        fields = [self._env.row("ir.model.fields", k) for k in action.values.get("webhook_field_ids") or ()]
        names = sorted({f.values["name"] for f in fields if f is not None} | {"id"})
        times = int(self._env.db.frame.options["hook_posts"].get(model._name, {}).get(event, 1))
        head = {"_action": f"{action.values['name']}(#{action.id})", "_id": key, "_model": model._name}
        fresh = self._env.sudo()[model._name]

        def body() -> Values | None:
            row = fresh._rows().get(str(key))
            return (
                None
                if row is None
                else {**head, **{n: posted(fresh, n, row) for n in names if n in fresh._fields}}
            )

        if event == "unlink":  # the row can still be read now, but not when it is sent
            last = body()
            self._env.db.outbox.add(action.values["webhook_url"], lambda: last, times)
        else:
            self._env.db.outbox.add(action.values["webhook_url"], body, times)

    def _incoming(self, hook: str, payload: Any) -> int:
        """The status of a call of ``/web/hook/{uuid}``: the row that it speaks of has to be named."""
        found = [r for r in self._rows().values() if r.values.get("webhook_uuid") == hook]
        if not found or not found[0].values.get("active") or found[0].values.get("trigger") != "on_webhook":
            return 404
        if (found[0].values.get("record_getter") or GETTER) != GETTER:
            return 200
        try:
            named = payload["_model"] in self._env.db.schema.models and int(payload["_id"]) > 0
        except (KeyError, TypeError, ValueError):
            return 500
        return 200 if named else 500


class IrActionsServer(BaseModel):
    def _defaults(self) -> Values:
        return {
            "type": "ir.actions.server",
            "state": "object_write",
            "usage": "ir_actions_server",
            "sequence": 5,
        }


def posted(model: BaseModel, name: str, row: Row) -> Any:
    """A value as a webhook sends it: references as ids, times with their microseconds."""
    if name in ("create_date", "write_date"):
        return exact(row.created if name == "create_date" else row.modified)
    return model._shown(model._fields[name], model._getter(name)(row), named=False)


CLASSES: dict[str, type[BaseModel]] = {
    "base.automation": BaseAutomation,
    "ir.actions.server": IrActionsServer,
}
