"""Leads and opportunities (crm.lead): stages, won and lost, and what they take from their partner."""

from typing import Any

from sandbox.odoo.errors import validation
from sandbox.odoo.models.partner import cleaned, normalized
from sandbox.odoo.orm import BaseModel
from sandbox.odoo.values import stamp
from sandbox.store import Row, Values

# What a lead takes from its partner: own field -> the partner's.
TAKEN = {
    "email_from": "email", "phone": "phone", "street": "street", "street2": "street2", "zip": "zip", "city": "city",
    "state_id": "state_id", "country_id": "country_id", "website": "website", "function": "function", "mobile": "mobile",
}  # fmt: skip
RAINBOW = "Go, go, go! Congrats for your first deal."


class CrmLead(BaseModel):
    _followed = ("partner_id",)

    def _defaults(self) -> Values:
        return {
            **super()._defaults(), "type": "opportunity", "user_id": self._env.uid, "priority": "0", "probability": 0.0,
            "expected_revenue": 0.0, "recurring_revenue": 0.0,
        }  # fmt: skip

    def _won_stage(self, key: Any) -> bool:
        stage = self._env.row("crm.stage", key)
        return stage is not None and bool(stage.values.get("is_won"))

    def _stages(self) -> list[Row]:
        return self._env["crm.stage"]._sorted(self._env.rows("crm.stage").values(), None)

    # --- values that are not kept ---------------------------------------------------------------------------

    def _compute_won_status(self, row: Row) -> str:
        v = row.values
        if self._won_stage(v.get("stage_id")) and v.get("probability") == 100:
            return "won"
        return "lost" if not v.get("active") and not v.get("probability") else "pending"

    def _compute_email_normalized(self, row: Row) -> str | None:
        return normalized(row.values.get("email_from"))

    def _compute_company_currency(self, _row: Row) -> int:
        return int(self._env.rows("res.company")["1"].values["currency_id"])

    def _compute_prorated_revenue(self, row: Row) -> float:
        return round(
            (row.values.get("expected_revenue") or 0) * (row.values.get("probability") or 0) / 100, 2
        )

    # --- writing --------------------------------------------------------------------------------------------

    def _prepare(self, vals: Values) -> None:
        cleaned(vals)
        partner = self._env.row("res.partner", vals.get("partner_id"))
        if partner is not None:
            for own, theirs in TAKEN.items():
                if own in self._fields:
                    vals.setdefault(own, partner.values.get(theirs))
            top = self._env["res.partner"]._compute_commercial_company_name(partner)
            vals.setdefault("partner_name", top)
            if not partner.values.get("is_company"):
                vals.setdefault("contact_name", partner.values.get("name"))
        vals.setdefault("company_id", 1)
        if vals.get("user_id"):
            vals.setdefault("team_id", 1)
            vals.setdefault("date_open", stamp(self._env.now))
        vals.setdefault("date_last_stage_update", stamp(self._env.now))
        if not vals.get("stage_id"):
            vals["stage_id"] = int(self._stages()[0].id)
        if self._won_stage(vals["stage_id"]):
            vals |= {"probability": 100.0, "date_closed": stamp(self._env.now)}

    def _before_write(self, rows: list[Row], vals: Values) -> None:
        now = stamp(self._env.now)
        cleaned(vals)
        if "stage_id" in vals:
            vals.setdefault("date_last_stage_update", now)
            if self._won_stage(vals["stage_id"]):
                vals |= {
                    "probability": 100.0,
                    "automated_probability": 100.0,
                    "active": vals.get("active", True),
                }
                vals.setdefault("date_closed", now)
            elif any(self._won_stage(r.values.get("stage_id")) for r in rows):
                vals.setdefault("probability", 0.0)
                vals.setdefault("date_closed", False)
        if vals.get("active") is False and vals.get("probability", 1) == 0:
            if any(self._won_stage(r.values.get("stage_id")) for r in rows) and "stage_id" not in vals:
                raise validation("A lead in a Won stage cannot be lost. Move it to another stage first.")
            vals.setdefault("date_closed", now)
        if "partner_id" in vals and isinstance(vals["partner_id"], int) and vals["partner_id"]:
            partner = self._env.row("res.partner", vals["partner_id"])
            for own, theirs in TAKEN.items() if partner is not None else ():
                if own in self._fields and partner is not None and partner.values.get(theirs):
                    vals.setdefault(own, partner.values.get(theirs))

    def action_set_won(self) -> bool:
        for row in self._existing():
            if not row.values.get("active"):
                self._browse([int(row.id)]).action_unarchive()
            won = [s for s in self._stages() if s.values.get("is_won")]
            self._browse([int(row.id)]).write({"stage_id": int(won[0].id), "probability": 100.0})
        return True

    def action_set_won_rainbowman(self) -> Any:
        self.action_set_won()
        image = "/web/static/img/smile.svg"
        return {"effect": {"fadeout": "slow", "message": RAINBOW, "img_url": image, "type": "rainbow_man"}}

    def action_set_lost(self, **additional_values: Any) -> Any:
        self._existing()
        self.write({**additional_values, "active": False, "probability": 0.0, "automated_probability": 0.0})
        return None

    def action_unarchive(self) -> None:
        super().action_unarchive()
        for row in self._existing():
            if row.values.get("lost_reason_id"):
                self._touch(row.id, {"lost_reason_id": None})

    def convert_opportunity(self, partner: Any, user_ids: Any = False, team_id: Any = False) -> bool:
        for row in self._existing():
            if row.values.get("type") == "opportunity" or not row.values.get("active"):
                continue
            vals: Values = {"type": "opportunity", "date_conversion": stamp(self._env.now)}
            if isinstance(partner, int) and partner:
                vals["partner_id"] = partner
            if user_ids:
                vals["user_id"] = user_ids[0]
            self._browse([int(row.id)]).write(vals)
        return True


class CrmTeam(BaseModel):
    def _defaults(self) -> Values:
        return {**super()._defaults(), "sequence": 10, "use_opportunities": True, "use_leads": False}


class UtmCampaign(BaseModel):
    _unfilled = ("stage_id",)

    def _defaults(self) -> Values:
        return {**super()._defaults(), "user_id": self._env.uid}

    def _prepare(self, vals: Values) -> None:
        """The name is made of the title, or the other way round."""
        vals.setdefault("title", vals.get("name"))
        vals.setdefault("name", vals.get("title"))


class CrmStage(BaseModel):
    def _defaults(self) -> Values:
        return {"sequence": 1, "is_won": False, "fold": False}


for _class in (CrmLead,):
    for _name, _function in vars(_class).items():
        if callable(_function) and not _name.startswith("_"):
            _function.__qualname__ = f"{_class.__name__}.{_name}"
CLASSES: dict[str, type[BaseModel]] = {
    "crm.lead": CrmLead,
    "crm.team": CrmTeam,
    "crm.stage": CrmStage,
    "utm.campaign": UtmCampaign,
}
