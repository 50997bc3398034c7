"""Companies and people: res.partner.

Source: Odoo 19, base/models/res_partner.py, and the fields that `fields_get` tells.
"""

from crm_core.connectors.odoo.models.common import (
    ACTIVE,
    ADDRESS,
    OWNER,
    SYSTEM_FIELDS,
    WebAddress,
    model,
    ref,
    text,
)
from crm_core.model.entities import ACCOUNT, CONTACT

PARTNER = "res.partner"

ACCOUNTS = model(
    ACCOUNT,
    PARTNER,
    text("name", "name"),
    text("number", "ref"),
    text("tax_id", "vat"),
    text("email", "email"),
    text("phone", "phone"),
    WebAddress("website", "website"),
    text("industry", "industry_id/name"),
    *ADDRESS,
    ref("parent_id", "parent_id", "account", kind=True),
    text("description", "comment"),
    OWNER,
    *ACTIVE,
    *SYSTEM_FIELDS,
    domain=[["is_company", "=", True]],
    constant={"is_company": True},
)

# A partner has one name, which is the whole of it.
CONTACTS = model(
    CONTACT,
    PARTNER,
    text("last_name", "name"),
    text("email", "email"),
    text("phone", "phone"),
    text("job_title", "function"),
    *ADDRESS,
    ref("account_id", "parent_id", "account", kind=True),
    text("description", "comment"),
    OWNER,
    *ACTIVE,
    *SYSTEM_FIELDS,
    domain=[["is_company", "=", False]],
    constant={"is_company": False},
)
