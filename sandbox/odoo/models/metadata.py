"""What a server says of itself in rows: models, fields (custom ones can be made), external ids, modules, rights."""

import ast
from typing import Any

from sandbox.odoo.env import custom_field
from sandbox.odoo.errors import broken, user_error
from sandbox.odoo.orm import BaseModel
from sandbox.odoo.reading import api_model
from sandbox.odoo.schema import LATEST
from sandbox.store import Row, Values


class IrModel(BaseModel):
    _names = ("name", "model")

    def _of(self, name: str) -> int | None:
        return next((int(r.id) for r in self._env.db.store.table(self._name).where("model", name)), None)

    def _compute_count(self, row: Row) -> int:
        return len(self._env.rows(row.values["model"]))


class IrModelFields(BaseModel):
    _names = ("field_description", "name")

    def _defaults(self) -> Values:
        return {"state": "manual", "store": True, "required": False, "readonly": False, "copied": True}

    def _prepare(self, vals: Values) -> None:
        model = self._env.row("ir.model", vals.get("model_id"))
        name = str(vals.get("name") or "")
        if model is not None:
            vals["model"] = model.values["model"]
            if not name.startswith("x_"):
                raise broken("Custom fields must have a name that starts with 'x_'!")
            if name in self._env.db.schema.models[model.values["model"]].fields:
                raise broken("Field names must be unique per model.")
        vals.setdefault("field_description", name)

    def _after_create(self, row: Row, vals: Values) -> None:
        self._env.db.schema.add(
            row.values["model"], custom_field({**row.values, "selection_values": self._options(vals)})
        )

    def _options(self, vals: Values) -> list[list[str]]:
        """The values of a selection, given as text or as rows."""
        text = vals.get("selection")
        if text:
            return [list(map(str, pair)) for pair in ast.literal_eval(text)]
        lines = vals.get("selection_ids") or []
        return [[str(c[2]["value"]), str(c[2].get("name") or c[2]["value"])] for c in lines if c[0] == 0]

    def _parted(self, vals: Values) -> tuple[Values, Values, Values]:
        options = self._options(vals)
        own, beyond, _ = super()._parted(
            {k: v for k, v in vals.items() if k not in ("selection_ids", "selection")}
        )
        if options:
            own["selection_values"] = options
        return own, beyond, {}

    def _before_unlink(self, rows: list[Row]) -> None:
        for row in rows:
            if row.values.get("state") != "manual":
                raise user_error("This column contains module data and cannot be removed!")
            self._env.db.schema.drop(row.values["model"], row.values["name"])


class IrModelData(BaseModel):
    _names = ("module", "name")

    def _of(self, model: str, key: int) -> list[str]:
        rows = self._env.db.store.table(self._name).where("res_id", key)
        return [f"{r.values['module']}.{r.values['name']}" for r in rows if r.values.get("model") == model]

    def _defaults(self) -> Values:
        return {"module": "", "noupdate": False}

    def _prepare(self, vals: Values) -> None:
        if self._env.xmlid(f"{vals.get('module')}.{vals.get('name')}") is not None:
            raise broken("You cannot have multiple records with the same external ID in the same module!")

    def _compute_complete_name(self, row: Row) -> str:
        return ".".join(x for x in (row.values.get("module"), row.values.get("name")) if x)

    def _compute_reference(self, row: Row) -> str:
        return f"{row.values.get('model')},{row.values.get('res_id')}"

    _compute_display_name = _compute_complete_name

    @api_model
    def check_object_reference(
        self, module: str, xml_id: str, raise_on_access_error: bool = False
    ) -> list[Any]:
        found = self._env.xmlid(f"{module}.{xml_id}")
        if found is None:
            raise user_error(f"No such external ID: {module}.{xml_id}")
        return list(found)


class IrModelAccess(BaseModel):
    @api_model
    def check(self, model: str, mode: str = "read", raise_exception: bool = True) -> bool:
        if not self._env.db.access.allowed(self._env, model, mode) and raise_exception:
            self._env.db.access.check(self._env, model, mode)
        return self._env.db.access.allowed(self._env, model, mode)


class IrModuleModule(BaseModel):
    _names = ("name", "shortdesc")

    def _compute_state(self, row: Row) -> str:
        optional = row.values["name"] in ("stock", "sale_stock")
        if optional:
            return "installed" if "stock" in self._env.db.modules else "uninstalled"
        return str(row.values.get("state") or "uninstalled")

    def _compute_latest_version(self, row: Row) -> Any:
        kept = str(row.values.get("latest_version") or "19.0.1.0")
        return (
            f"{self._env.db.version}.{kept.partition('.')[2]}"
            if self._compute_state(row) == "installed"
            else None
        )

    def _compute_installed_version(self, row: Row) -> str:
        kept = str(row.values.get("latest_version") or f"{LATEST}.0.1.0")
        return f"{self._env.db.version}.{kept.partition('.')[2]}"


CLASSES: dict[str, type[BaseModel]] = {
    "ir.model": IrModel,
    "ir.model.fields": IrModelFields,
    "ir.model.data": IrModelData,
    "ir.model.access": IrModelAccess,
    "ir.module.module": IrModuleModule,
}
