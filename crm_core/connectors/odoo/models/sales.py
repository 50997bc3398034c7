"""Leads and opportunities (crm.lead), products (product.product), quotes and orders (sale.order), campaigns, stock.

Sources: Odoo 19, crm/models/crm_lead.py, product/models, sale/models/sale_order.py, utm, stock/models/stock_quant.py.
"""

from crm_core.connectors.odoo.models.common import (
    ACTIVE,
    ADDRESS,
    OWNER,
    SYSTEM_FIELDS,
    Rounded,
    WebAddress,
    instant,
    model,
    number,
    partner,
    ref,
    text,
)
from crm_core.model.entities import (
    CAMPAIGN,
    INVENTORY_ITEM,
    LEAD,
    LINE,
    OPPORTUNITY,
    ORDER,
    PRODUCT,
    QUOTE,
)
from crm_core.model.field_map import FieldMap

_RATING = FieldMap("rating", "priority", names={"1": "cold", "2": "warm", "3": "hot"}, nothing="0")
"""The stars of a lead; "0", which every new one has, is none."""
_PARTNER = (
    FieldMap("account_id", "partner_id/account", targets=ref("account_id", "partner_id", "account").targets,
             form=ref("account_id", "partner_id", "account").form),
    FieldMap("contact_id", "partner_id/contact", targets=ref("contact_id", "partner_id", "contact").targets,
             form=ref("contact_id", "partner_id", "contact").form),
)  # fmt: skip
"""One partner, a person or a company; of a person, the account is the company that he belongs to."""

LEADS = model(
    LEAD,
    "crm.lead",
    text("last_name", "contact_name"),
    text("subject", "name", kept=True),
    text("company", "partner_name"),
    text("email", "email_from"),
    text("phone", "phone"),
    text("job_title", "function"),
    WebAddress("website", "website"),
    text("source", "source_id/name"),
    _RATING,
    number("estimated_value", "expected_revenue", scale=2),
    text("currency", "company_currency/name", writable=False),
    *ADDRESS,
    *_PARTNER,
    ref("campaign_id", "campaign_id", "campaign"),
    text("description", "description"),
    OWNER,
    FieldMap("status", "active", names={True: "open", False: "disqualified"}),
    FieldMap("status_reason", "type", writable=False),
    *SYSTEM_FIELDS,
    module="CRM",
    required=frozenset({"subject"}),
    domain=[["type", "=", "lead"]],
    constant={"type": "lead"},
)

WON = [["active", "=", True], ["stage_id.is_won", "=", True]]
LOST = [["active", "=", False]]

OPPORTUNITIES = model(
    OPPORTUNITY,
    "crm.lead",
    text("name", "name"),
    *_PARTNER,
    number("amount", "expected_revenue", scale=2),
    text("currency", "company_currency/name", writable=False),
    text("close_date", "date_deadline"),
    Rounded("probability", "probability", kept=True),
    text("stage", "stage_id/name"),
    _RATING,
    text("source", "source_id/name"),
    ref("campaign_id", "campaign_id", "campaign"),
    text("lost_reason", "lost_reason_id/name"),
    text("description", "description"),
    OWNER,
    FieldMap("status", "active/status", names={"open": "open", "won": "won", "lost": "lost"}),
    text("status_reason", "stage_id/name", writable=False),
    *SYSTEM_FIELDS,
    module="CRM",
    domain=[["type", "=", "opportunity"]],
    constant={"type": "opportunity"},
    states={
        "won": WON,
        "lost": LOST,
        "open": [["active", "=", True], "|", ["stage_id", "=", False], ["stage_id.is_won", "=", False]],
    },
    initial="open",
    archived="lost",
)

PRODUCTS = model(
    PRODUCT,
    "product.product",
    text("name", "name"),
    text("sku", "default_code"),
    FieldMap("kind", "type", names={"consu": "goods", "service": "service"}, kept=True),
    text("unit", "uom_id/name", kept=True),
    number("price", "list_price"),
    number("cost", "standard_price"),
    text("currency", "currency_id/name", writable=False),
    text("category", "categ_id/complete_name", kept=True),
    text("barcode", "barcode"),
    text("description", "description_sale"),
    *ACTIVE,
    *SYSTEM_FIELDS,
    module="Sales",
)

LINES = model(
    LINE,
    "sale.order.line",
    FieldMap("key", "id", writable=False),
    ref("product_id", "product_id", "product"),
    text("sku", "product_id/default_code", writable=False),
    text("description", "name", kept=True),
    number("quantity", "product_uom_qty", scale=2),
    text("unit", "product_uom_id/name", kept=True),
    number("unit_price", "price_unit"),
    number("tax", "price_tax", writable=False),
    number("total", "price_total", writable=False),
    module="Sales",
    required=frozenset({"product_id"}),
    parent="order_id",
)

_AMOUNTS = (
    FieldMap("lines", "order_line"),
    number("subtotal", "amount_untaxed", writable=False),
    number("tax", "amount_tax", writable=False),
    number("total", "amount_total", writable=False),
)
_CUSTOMER = partner("customer_id", "partner_id", ("account", "contact"))
_CURRENCY = text("currency", "currency_id/name", writable=False)
_COMMON = (
    text("name", "client_order_ref"),
    text("number", "name", writable=False),
    _CUSTOMER,
    ref("opportunity_id", "opportunity_id", "opportunity"),
)
_ABOUT = (text("description", "note"), OWNER, text("status_reason", "state", writable=False), *SYSTEM_FIELDS)

# A quotation that is confirmed is the order from then on: the same record, which lists tell as an order alone. Where
# the hub knows the quote already, a read by its id says that it is won.
QUOTES = model(
    QUOTE,
    "sale.order",
    *_COMMON,
    text("valid_until", "validity_date"),
    _CURRENCY,
    *_AMOUNTS,
    *_ABOUT,
    FieldMap("status", "state", names={"draft": "draft", "sent": "active", "sale": "won", "cancel": "lost"}),
    module="Sales",
    required=frozenset({"customer_id"}),
    domain=[["state", "in", ["draft", "sent", "cancel"]]],
    known=[],
    initial="draft",
    lines=LINES,
)

ORDERS = model(
    ORDER,
    "sale.order",
    *_COMMON,
    FieldMap("date", "date_order", midnight=True, writable=False),
    FieldMap("requested_delivery", "commitment_date", midnight=True),
    _CURRENCY,
    *_AMOUNTS,
    *_ABOUT,
    FieldMap("status", "state", names={"sale": "open", "cancel": "canceled"}),
    module="Sales",
    required=frozenset({"customer_id"}),
    domain=[["state", "in", ["sale", "cancel"]]],
    known=[],
    initial="",
    lines=LINES,
    # "Once a sales order is confirmed, you can't remove one of its lines", says Odoo.
    keeps_lines=True,
)

CAMPAIGNS = model(
    CAMPAIGN,
    "utm.campaign",
    text("name", "title"),
    text("owner_email", "user_id/email", kept=True),
    instant("created_at", "create_date", writable=False),
    instant("updated_at", "write_date", writable=False),
    module="CRM",
)

INVENTORY_ITEMS = model(
    INVENTORY_ITEM,
    "stock.quant",
    ref("product_id", "product_id", "product", writable=False),
    text("sku", "product_id/default_code", writable=False),
    text("warehouse", "location_id/complete_name", writable=False),
    number("on_hand", "quantity", writable=False),
    number("reserved", "reserved_quantity", writable=False),
    number("available", "available_quantity", writable=False),
    text("unit", "product_uom_id/name", writable=False),
    *SYSTEM_FIELDS,
    module="Inventory",
    domain=[["location_id.usage", "=", "internal"]],
    read_only=True,
)
