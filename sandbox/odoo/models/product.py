"""Products: a template with one variant. What a variant has of its template is read and written there."""

from typing import Any

from sandbox.odoo.orm import BaseModel
from sandbox.odoo.reading import api_model
from sandbox.store import Row, Values

# What a variant keeps itself, and its template shows and passes on.
OF_VARIANT = ("default_code", "barcode", "standard_price", "weight", "volume")


def labelled(code: Any, name: Any) -> str:
    return f"[{code}] {name}" if code else str(name or "")


class ProductTemplate(BaseModel):
    _names = ("name", "default_code")

    def _defaults(self) -> Values:
        kept = {
            **super()._defaults(), "sequence": 1, "type": "consu", "service_tracking": "no", "list_price": 1.0, "sale_ok": True,
            "purchase_ok": True, "uom_id": 1, "taxes_id": [1], "supplier_taxes_id": [2], "expense_policy": "no",
            "detailed_type": "consu", "uom_po_id": 1, "tracking": "none",
        }  # fmt: skip
        return {k: v for k, v in kept.items() if k in self._fields}

    def _variants(self, row: Row) -> list[Row]:
        return self._env.db.store.table("product.product").where("product_tmpl_id", int(row.id))

    def _of_variant(self, row: Row, name: str) -> Any:
        variants = self._variants(row)
        return variants[0].values.get(name) if len(variants) == 1 else None

    def _compute_default_code(self, row: Row) -> Any:
        return self._of_variant(row, "default_code")

    def _compute_barcode(self, row: Row) -> Any:
        return self._of_variant(row, "barcode")

    def _compute_standard_price(self, row: Row) -> Any:
        return self._of_variant(row, "standard_price")

    def _compute_product_variant_ids(self, row: Row) -> list[int]:
        return [int(r.id) for r in self._variants(row) if r.values.get("active")]

    def _compute_product_variant_id(self, row: Row) -> int | None:
        return next(iter(self._compute_product_variant_ids(row)), None)

    def _compute_product_variant_count(self, row: Row) -> int:
        return len(self._compute_product_variant_ids(row))

    def _compute_currency_id(self, _row: Row) -> int:
        return int(self._env.rows("res.company")["1"].values["currency_id"])

    def _compute_display_name(self, row: Row) -> str:
        return labelled(self._compute_default_code(row), row.values.get("name"))

    def _compute_qty_available(self, row: Row) -> float:
        products = self._env["product.product"]
        return sum(products._compute_qty_available(v) for v in self._variants(row))

    _compute_virtual_available = _compute_qty_available

    def _after_create(self, row: Row, vals: Values) -> None:
        if self._env.context.get("create_product_product", True):
            own = {k: v for k, v in vals.items() if k in OF_VARIANT}
            quiet = self._env.with_context({**self._env.context, "default_name": None})
            quiet.sudo()["product.product"]._variant(int(row.id), {**own, "active": vals.get("active", True)})

    def _after_write(self, old: Row, row: Row, vals: Values) -> None:
        own = {k: v for k, v in vals.items() if k in (*OF_VARIANT, "active")}
        if own:
            for variant in self._variants(row):
                self._env.sudo()["product.product"]._plain(variant, own)

    def _before_unlink(self, rows: list[Row]) -> None:
        """Its variants go first, and refuse if something uses them."""
        for row in rows:
            for variant in list(self._variants(row)):
                self._env.sudo()["product.product"]._unlink(variant, with_template=False)


class ProductProduct(BaseModel):
    _names = ("default_code", "name", "barcode")

    def _defaults(self) -> Values:
        return self._env["product.template"]._defaults()

    def _compute_currency_id(self, _row: Row) -> int:
        return int(self._env.rows("res.company")["1"].values["currency_id"])

    def _compute_lst_price(self, row: Row) -> Any:
        return self._getter("list_price")(row)

    def _inverse_lst_price(self) -> None: ...

    def _compute_display_name(self, row: Row) -> str:
        return labelled(row.values.get("default_code"), self._getter("name")(row))

    def _compute_qty_available(self, row: Row) -> float:
        if "stock.quant" not in self._env.db.schema.models:
            return 0.0
        places = self._env.rows("stock.location")
        quants = self._env.db.store.table("stock.quant").where("product_id", int(row.id))
        return sum(
            float(q.values.get("quantity") or 0)
            for q in quants
            if places[str(q.values["location_id"])].values.get("usage") in ("internal", "transit")
        )

    _compute_virtual_available = _compute_qty_available
    _compute_free_qty = _compute_qty_available

    @api_model
    def create(self, vals_list: Any) -> list[int]:
        """A variant comes with a template, unless it is told one."""
        self._check("create")
        found = []
        for vals in [vals_list] if isinstance(vals_list, dict) else vals_list:
            given = dict(vals)
            if "lst_price" in given:
                given["list_price"] = given.pop("lst_price")
            if given.get("product_tmpl_id"):
                found.append(self._variant(given.pop("product_tmpl_id"), given))
                continue
            self._known(given)
            template = self._env["product.template"].create(
                [{k: v for k, v in given.items() if not k.startswith("x_")}]
            )[0]
            variant = self._env.db.store.table(self._name).where("product_tmpl_id", template)[0]
            own = {k: v for k, v in given.items() if k.startswith("x_")}
            if own:
                self._plain(variant, own)
            found.append(int(variant.id))
        return found

    def _known(self, vals: Values) -> None:
        from sandbox.odoo.errors import value_error

        for name in vals:
            if name not in self._fields:
                raise value_error(f"Invalid field {name!r} in {self._name!r}")

    def _variant(self, template: int, vals: Values) -> int:
        key = self._env.db.next_id(self._name)
        own, _, _ = self._parted(vals)
        who = {"create_uid": self._env.uid, "write_uid": self._env.uid, "active": True}
        self._env.db.store.write(
            self._name, str(key), {**who, **own, "product_tmpl_id": template}, at=self._env.now
        )
        self._notify("create", [key], vals)
        return key

    def _plain(self, row: Row, vals: Values) -> None:
        own, _, _ = self._parted(vals)
        self._touch(row.id, own)
        self._notify("write", [int(row.id)], vals)

    def _before_write(self, rows: list[Row], vals: Values) -> None:
        if "lst_price" in vals:
            vals["list_price"] = vals.pop("lst_price")

    def _unlink(self, row: Row, *, with_template: bool = True) -> None:
        super()._unlink(row)
        template = self._env.row("product.template", row.values["product_tmpl_id"])
        last = not self._env.db.store.table(self._name).where(
            "product_tmpl_id", row.values["product_tmpl_id"]
        )
        if with_template and last and template is not None:
            self._env.sudo()["product.template"]._unlink(template)


class ProductCategory(BaseModel):
    def _compute_complete_name(self, row: Row) -> str:
        above = self._env.row(self._name, row.values.get("parent_id"))
        own = row.values.get("name") or ""
        return own if above is None else f"{self._compute_complete_name(above)} / {own}"

    _compute_display_name = _compute_complete_name


ProductProduct.create.__qualname__ = "ProductProduct.create"
CLASSES: dict[str, type[BaseModel]] = {
    "product.template": ProductTemplate,
    "product.product": ProductProduct,
    "product.category": ProductCategory,
}
