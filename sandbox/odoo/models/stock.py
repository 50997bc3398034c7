"""Stock on hand (stock.quant), where the module is installed: counted quantities are applied by an action."""

from sandbox.odoo.orm import BaseModel
from sandbox.odoo.values import stamp
from sandbox.store import Row, Values

ADJUSTMENT = "inventory"


class StockQuant(BaseModel):
    def _defaults(self) -> Values:
        return {"quantity": 0.0, "reserved_quantity": 0.0, "company_id": 1, "in_date": stamp(self._env.now)}

    def _counted(self, vals: Values) -> None:
        if "inventory_quantity" in vals:
            vals["inventory_quantity_set"] = True

    def _prepare(self, vals: Values) -> None:
        self._counted(vals)

    def _before_write(self, rows: list[Row], vals: Values) -> None:
        self._counted(vals)

    def _compute_available_quantity(self, row: Row) -> float:
        return float(row.values.get("quantity") or 0) - float(row.values.get("reserved_quantity") or 0)

    def _compute_inventory_diff_quantity(self, row: Row) -> float:
        return float(row.values.get("inventory_quantity") or 0) - float(row.values.get("quantity") or 0)

    def _compute_inventory_quantity(self, row: Row) -> float:
        return (
            float(row.values.get("inventory_quantity") or 0)
            if row.values.get("inventory_quantity_set")
            else 0.0
        )

    def _inverse_inventory_quantity(self) -> None: ...

    def _compute_display_name(self, row: Row) -> str:
        place = self._env.row("stock.location", row.values.get("location_id"))
        return str(place.values.get("complete_name")) if place else ""

    def action_apply_inventory(self) -> None:
        """The counted quantity is the quantity; what came or went is booked at the place for adjustments."""
        places = self._env.rows("stock.location").values()
        other = next(int(p.id) for p in places if p.values.get("usage") == ADJUSTMENT)
        for row in self._existing():
            counted = self._compute_inventory_quantity(row)
            difference = counted - float(row.values.get("quantity") or 0)
            self._touch(
                row.id, {"quantity": counted, "inventory_quantity": 0.0, "inventory_quantity_set": False}
            )
            self._book(row.values["product_id"], other, -difference)

    def _book(self, product: int, place: int, quantity: float) -> None:
        quants = self._env.db.store.table(self._name).where("product_id", product)
        for quant in quants:
            if quant.values.get("location_id") == place:
                self._touch(quant.id, {"quantity": float(quant.values.get("quantity") or 0) + quantity})
                return
        self.create([{"product_id": product, "location_id": place, "quantity": quantity}])


class StockLocation(BaseModel):
    _names = ("complete_name",)

    def _compute_display_name(self, row: Row) -> str:
        return str(row.values.get("complete_name") or row.values.get("name"))


StockQuant.action_apply_inventory.__qualname__ = "StockQuant.action_apply_inventory"
CLASSES: dict[str, type[BaseModel]] = {"stock.quant": StockQuant, "stock.location": StockLocation}
