"""What Odoo calls things: models, fields, choices. Facts only."""

from collections.abc import Mapping

from crm_core.connectors.odoo.models.activities import ACTIVITIES
from crm_core.connectors.odoo.models.common import Model
from crm_core.connectors.odoo.models.customers import ACCOUNTS, CONTACTS
from crm_core.connectors.odoo.models.sales import (
    CAMPAIGNS,
    INVENTORY_ITEMS,
    LEADS,
    OPPORTUNITIES,
    ORDERS,
    PRODUCTS,
    QUOTES,
)

MODELS: Mapping[str, Model] = {
    each.entity.name: each
    for each in (
        ACCOUNTS,
        CONTACTS,
        LEADS,
        OPPORTUNITIES,
        PRODUCTS,
        ACTIVITIES,
        QUOTES,
        ORDERS,
        CAMPAIGNS,
        INVENTORY_ITEMS,
    )
}
"""By canonical entity."""
