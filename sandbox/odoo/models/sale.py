"""Quotations and orders (sale.order) with their lines: states, and totals that follow the lines."""

from datetime import timedelta
from typing import Any

from sandbox.odoo.errors import broken, user_error
from sandbox.odoo.orm import BaseModel
from sandbox.odoo.values import stamp
from sandbox.store import Row, Values

CONFIRMED = ("sale", "done")
SENT_OR_SOLD = "You can not delete a sent quotation or a confirmed sales order. You must first cancel it."
LINE_SOLD = (
    "Once a sales order is confirmed, you can't remove one of its lines (we need to track if something gets invoiced or "
    "delivered).\n                Set the quantity to 0 instead."
)


class SaleOrder(BaseModel):
    _followed = ("partner_id",)
    _names = ("name",)

    def _defaults(self) -> Values:
        kept = {"state": "draft", "locked": False, "date_order": stamp(self._env.now), "company_id": 1}
        stock = {"picking_policy": "direct"} if "picking_policy" in self._fields else {}
        return {**kept, **stock, "user_id": self._env.uid}

    def _prepare(self, vals: Values) -> None:
        for name in ("partner_invoice_id", "partner_shipping_id"):
            vals.setdefault(name, vals.get("partner_id"))
        vals.setdefault("team_id", 1)
        vals.setdefault("currency_id", self._env.rows("res.company")["1"].values["currency_id"])
        vals.setdefault("validity_date", (self._env.now + timedelta(days=30)).strftime("%Y-%m-%d"))
        if vals.get("name", "New") == "New":
            vals["name"] = f"S{self._env.db.next_id('sale.order name'):05d}"

    def _sum(self, row: Row, name: str) -> float:
        lines = self._env.sudo()["sale.order.line"]
        return round(sum(getattr(lines, f"_compute_{name}")(line) for line in self._lines_of(row)), 2)

    def _lines_of(self, row: Row) -> list[Row]:
        return self._env.db.store.table("sale.order.line").where("order_id", int(row.id))

    def _compute_amount_untaxed(self, row: Row) -> float:
        return self._sum(row, "price_subtotal")

    def _compute_amount_tax(self, row: Row) -> float:
        return self._sum(row, "price_tax")

    def _compute_amount_total(self, row: Row) -> float:
        return round(self._compute_amount_untaxed(row) + self._compute_amount_tax(row), 2)

    def _compute_invoice_status(self, row: Row) -> str:
        asked = any(line.values.get("product_uom_qty") for line in self._lines_of(row))
        return "to invoice" if row.values.get("state") == "sale" and asked else "no"

    def _to_state(self, state: str, sources: tuple[str, ...] | None = None, **more: Any) -> None:
        for row in self._existing():
            if sources is None or row.values.get("state") in sources:
                self._browse([int(row.id)]).write({"state": state, **more})

    def action_confirm(self) -> bool:
        if any(r.values.get("state") not in ("draft", "sent") for r in self._existing()):
            raise user_error("Some orders are not in a state requiring confirmation.")
        self._to_state("sale", date_order=stamp(self._env.now))
        return True

    def action_cancel(self) -> bool:
        if any(r.values.get("locked") for r in self._existing()):
            raise user_error("You cannot cancel a locked order. Please unlock it first.")
        self._to_state("cancel")
        return True

    def action_draft(self) -> bool:
        self._to_state("draft", ("cancel", "sent"))
        return True

    def action_quotation_sent(self) -> None:
        if any(r.values.get("state") != "draft" for r in self._existing()):
            raise user_error("Only draft orders can be marked as sent directly.")
        self._to_state("sent")

    def action_lock(self) -> None:
        self.write({"locked": True})

    def action_unlock(self) -> None:
        self.write({"locked": False})

    def _before_unlink(self, rows: list[Row]) -> None:
        if any(r.values.get("state") not in ("draft", "cancel") for r in rows):
            raise user_error(SENT_OR_SOLD)


class SaleOrderLine(BaseModel):
    _followed = ("order_id",)

    def _renamed(self, new: str, old: str) -> str:
        return new if new in self._fields else old

    def _defaults(self) -> Values:
        return {"sequence": 10, "product_uom_qty": 1.0, "customer_lead": 0.0}

    def _prepare(self, vals: Values) -> None:
        unit, taxes = self._renamed("product_uom_id", "product_uom"), self._renamed("tax_ids", "tax_id")
        if vals.get("display_type"):
            vals |= {"product_uom_qty": 0.0, "price_unit": 0.0, "product_id": None}
            return
        products = self._env.sudo()["product.product"]
        product = self._env.row("product.product", vals.get("product_id"))
        if product is not None:
            vals.setdefault("name", products._getter("display_name")(product))
            vals.setdefault("price_unit", products._getter("lst_price")(product) or 0.0)
            vals.setdefault(unit, products._getter("uom_id")(product))
            vals.setdefault(taxes, [[6, 0, list(products._getter("taxes_id")(product) or ())]])
        elif vals.get("order_id") and "product_id" in self._fields and not vals.get("name"):
            raise broken("Missing required fields on accountable sale order line.")

    def _compute_price_subtotal(self, row: Row) -> float:
        v = row.values
        price = (v.get("price_unit") or 0) * (1 - (v.get("discount") or 0) / 100)
        return round(price * (v.get("product_uom_qty") or 0), 2)

    def _compute_price_tax(self, row: Row) -> float:
        rates = self._env.rows("account.tax")
        taxes = (
            rates[str(k)].values
            for k in row.values.get(self._renamed("tax_ids", "tax_id")) or ()
            if str(k) in rates
        )
        percent = sum(t.get("amount") or 0 for t in taxes if t.get("amount_type") == "percent")
        tax = round(self._compute_price_subtotal(row) * percent / 100, 2)
        # The server's own sum, with what floats leave of it.
        return round(self._compute_price_subtotal(row) + tax, 2) - self._compute_price_subtotal(row)

    def _compute_price_total(self, row: Row) -> float:
        return round(self._compute_price_subtotal(row) + self._compute_price_tax(row), 2)

    def _compute_product_template_id(self, row: Row) -> Any:
        product = self._env.row("product.product", row.values.get("product_id"))
        return product.values["product_tmpl_id"] if product else None

    def _compute_display_name(self, row: Row) -> str:
        order = self._env.row("sale.order", row.values.get("order_id"))
        partner = self._env.sudo()["res.partner"]._label(order.values.get("partner_id")) if order else False
        shown = str(row.values.get("name") or "").partition("\n")[0]
        return f"{order.values['name'] if order else ''} - {shown} ({partner[1] if isinstance(partner, list) else ''})"

    def _before_unlink(self, rows: list[Row]) -> None:
        for row in rows:
            order = self._env.row("sale.order", row.values.get("order_id"))
            if (
                order is not None
                and order.values.get("state") in CONFIRMED
                and not row.values.get("display_type")
            ):
                raise user_error(LINE_SOLD)


for _class in (SaleOrder, SaleOrderLine):
    for _name, _function in vars(_class).items():
        if callable(_function) and not _name.startswith("_"):
            _function.__qualname__ = f"{_class.__name__}.{_name}"
CLASSES: dict[str, type[BaseModel]] = {"sale.order": SaleOrder, "sale.order.line": SaleOrderLine}
