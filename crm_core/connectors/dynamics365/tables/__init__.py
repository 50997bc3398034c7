"""What Dataverse calls things: tables, columns, lengths, choices. Facts only."""

from collections.abc import Mapping

from crm_core.connectors.dynamics365.tables.common import Table
from crm_core.connectors.dynamics365.tables.customers import ACCOUNTS, CONTACTS
from crm_core.connectors.dynamics365.tables.sales import (
    CAMPAIGNS,
    INVOICES,
    LEADS,
    OPPORTUNITIES,
    ORDERS,
    PRODUCTS,
    QUOTES,
)
from crm_core.connectors.dynamics365.tables.service import ACTIVITIES, CASES

TABLES: Mapping[str, Table] = {
    each.entity.name: each
    for each in (
        *(ACCOUNTS, CONTACTS, LEADS, OPPORTUNITIES, CASES, PRODUCTS, ACTIVITIES),
        *(QUOTES, ORDERS, INVOICES, CAMPAIGNS),
    )
}
"""By canonical entity."""
