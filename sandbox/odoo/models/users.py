"""Users, their groups and companies."""

from typing import Any

from sandbox.odoo.access import EVERYBODY
from sandbox.odoo.errors import broken, value_error
from sandbox.odoo.orm import BaseModel
from sandbox.odoo.reading import api_model
from sandbox.store import Row, Values


class ResUsers(BaseModel):
    _names = ("name", "login")

    def _groups_field(self) -> str:
        return "group_ids" if "group_ids" in self._fields else "groups_id"

    def _defaults(self) -> Values:
        return {**super()._defaults(), "company_id": 1, "company_ids": [1], self._groups_field(): [EVERYBODY]}

    def _prepare(self, vals: Values) -> None:
        if vals.get("login") and self._env.db.store.table(self._name).where("login", vals["login"]):
            raise broken("You can not have two users with the same login!")
        if not vals.get("partner_id"):
            about = {"name": vals.get("name") or vals.get("login"), "email": vals.get("email") or False}
            vals["partner_id"] = self._env.sudo()["res.partner"].create([about])[0]

    def _parted(self, vals: Values) -> tuple[Values, Values, Values]:
        own, beyond, lines = super()._parted({k: v for k, v in vals.items() if k != "password"})
        return own, beyond, lines

    def _remember(self, row: Row, vals: Values) -> None:
        if vals.get("password"):
            self._env.db.keys.passwords[int(row.id)] = str(vals["password"])
            self._env.db.secrets.add(str(vals["password"]))

    def _after_create(self, row: Row, vals: Values) -> None:
        self._remember(row, vals)

    def _after_write(self, old: Row, row: Row, vals: Values) -> None:
        self._remember(row, vals)

    def _compute_password(self, _row: Row) -> str:
        return ""

    def _compute_all_group_ids(self, row: Row) -> list[int]:
        return sorted(self._env.db.access.groups(int(row.id)))

    def _compute_share(self, row: Row) -> bool:
        return EVERYBODY not in self._env.db.access.groups(int(row.id))

    def _compute_display_name(self, row: Row) -> Any:
        return self._getter("name")(row) or row.values.get("login")

    @api_model
    def context_get(self) -> Values:
        partner = self._env.rows(self._name)[str(self._env.uid)].values["partner_id"]
        about = self._env.rows("res.partner")[str(partner)].values
        return {"lang": about.get("lang") or "en_US", "tz": about.get("tz") or False, "uid": self._env.uid}

    def has_group(self, group_ext_id: str) -> bool:
        if len(self._ids) != 1:
            raise value_error(f"Expected singleton: res.users({', '.join(map(str, self._ids))})")
        uid = int(self._ids[0])
        found = self._env.xmlid(group_ext_id)
        return found is not None and found[0] == "res.groups" and found[1] in self._env.db.access.groups(uid)


class ResGroups(BaseModel):
    def _compute_display_name(self, row: Row) -> Any:
        return row.values.get("full_name") or row.values.get("name")


class ResCurrency(BaseModel):
    def _compute_decimal_places(self, row: Row) -> int:
        rounding = row.values.get("rounding") or 0.01
        return len(f"{rounding:f}".rstrip("0").partition(".")[2])

    def _compute_display_name(self, row: Row) -> Any:
        return row.values.get("name")


class ResLang(BaseModel):
    def _defaults(self) -> Values:
        return {
            **super()._defaults(),
            "direction": "ltr",
            "date_format": "%m/%d/%Y",
            "time_format": "%H:%M:%S",
            "week_start": "7",
            "grouping": "[3,0]",
            "decimal_point": ".",
        }


class IrConfigParameter(BaseModel):
    _names = ("key",)

    @api_model
    def get_param(self, key: str, default: Any = False) -> Any:
        self._check("read")
        found = self._env.db.store.table(self._name).where("key", key)
        return found[0].values.get("value") if found else default

    @api_model
    def set_param(self, key: str, value: Any) -> Any:
        found = self._env.db.store.table(self._name).where("key", key)
        if not found:
            self.create([{"key": key, "value": str(value)}])
            return False
        old = found[0].values.get("value")
        self._browse([int(found[0].id)]).write({"value": str(value)})
        return old


for _class in (ResUsers, IrConfigParameter):
    for _name, _function in vars(_class).items():
        if callable(_function) and not _name.startswith("_"):
            _function.__qualname__ = f"{_class.__name__}.{_name}"
CLASSES: dict[str, type[BaseModel]] = {
    "res.users": ResUsers,
    "res.groups": ResGroups,
    "res.currency": ResCurrency,
    "res.lang": ResLang,
    "ir.config_parameter": IrConfigParameter,
}
