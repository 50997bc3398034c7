"""Leads, opportunities, products, quotes, orders, invoices and campaigns: columns, lengths, choices.

Source: Microsoft's Common Data Model (crmCommon: sales, marketing), and the Web API's entity and action reference.
"""

from crm_core.connectors.dynamics365.tables.common import (
    ADDRESS,
    CURRENCY,
    CUSTOMER,
    DESCRIPTION,
    OWNER,
    SYSTEM_FIELDS,
    Closing,
    Table,
    address,
    money,
    ref,
    states,
    table,
    table_of,
)
from crm_core.model.entities import CAMPAIGN, INVOICE, LEAD, LINE, OPPORTUNITY, ORDER, PRODUCT, QUOTE
from crm_core.model.field_map import FieldMap

_LEAD_SOURCES = {
    1: "Advertisement", 2: "Employee Referral", 3: "External Referral", 4: "Partner", 5: "Public Relations",
    6: "Seminar", 7: "Trade Show", 8: "Web", 9: "Word of Mouth", 10: "Other",
}  # fmt: skip
_RATINGS = {1: "hot", 2: "warm", 3: "cold"}

LEADS = table_of(
    LEAD,
    FieldMap("subject", "subject", length=300),
    FieldMap("first_name", "firstname", length=50),
    FieldMap("last_name", "lastname", length=50),
    FieldMap("company", "companyname", length=100),
    FieldMap("email", "emailaddress1", length=100),
    FieldMap("phone", "telephone1", length=50),
    FieldMap("mobile", "mobilephone", length=20),
    FieldMap("job_title", "jobtitle", length=100),
    FieldMap("website", "websiteurl", length=200),
    FieldMap("source", "leadsourcecode", names=_LEAD_SOURCES),
    FieldMap("rating", "leadqualitycode", names=_RATINGS),
    money("estimated_value", "estimatedamount"),
    CURRENCY,
    *ADDRESS,
    ref("account_id", "parentaccountid", "account"),
    ref("contact_id", "parentcontactid", "contact"),
    ref("campaign_id", "campaignid", "campaign"),
    DESCRIPTION,
    OWNER,
    *states({0: "open", 1: "qualified", 2: "disqualified"}),
    merges=True,
)

OPPORTUNITIES = table_of(
    OPPORTUNITY,
    FieldMap("name", "name", length=300),
    ref("account_id", "parentaccountid", "account"),
    ref("contact_id", "parentcontactid", "contact"),
    money("amount", "estimatedvalue"),
    CURRENCY,
    FieldMap("close_date", "estimatedclosedate"),
    FieldMap("probability", "closeprobability"),
    FieldMap("stage", "stepname", length=200),
    FieldMap("rating", "opportunityratingcode", names=_RATINGS),
    ref("lead_id", "originatingleadid", "lead"),
    ref("campaign_id", "campaignid", "campaign"),
    DESCRIPTION,
    OWNER,
    *states({0: "open", 1: "won", 2: "lost"}),
    # Web API actions WinOpportunity and LoseOpportunity; the reasons of the Common Data Model.
    closings={
        "won": Closing("WinOpportunity", "OpportunityClose", 3, "Won"),
        "lost": Closing("LoseOpportunity", "OpportunityClose", 4, "Lost"),
    },
    locked=frozenset({"won", "lost"}),
)

PRODUCTS = table_of(
    PRODUCT,
    FieldMap("name", "name", length=100),
    FieldMap("sku", "productnumber", length=100),
    FieldMap("kind", "producttypecode", names={1: "goods", 3: "service"}),
    FieldMap("unit", "defaultuomid/name", length=100),
    money("price", "price"),
    money("cost", "standardcost"),
    CURRENCY,
    DESCRIPTION,
    *states({0: "active", 1: "inactive", 2: "draft"}),
    required=frozenset({"unit"}),
    # Of the columns that a product can't be without, the one that people rarely mean to choose.
    defaults={"quantitydecimal": 2},
)


def _lines(document: str) -> Table:
    """The table of the lines of a document.

    A line names a product, whose unit it then has unless it says another one, or is written in by its description.
    """
    logical = f"{document}detail"
    return table(
        LINE,
        FieldMap("key", f"{logical}id", writable=False),
        ref("product_id", "productid", "product"),
        FieldMap("sku", "productid/productnumber", writable=False),
        FieldMap("description", "productdescription", length=500),
        FieldMap("quantity", "quantity", scale=5),
        FieldMap("unit", "uomid/name", length=100),
        money("unit_price", "priceperunit"),
        money("discount", "manualdiscountamount"),
        money("tax", "tax"),
        money("total", "extendedamount", writable=False),
        logical=logical,
        remote=f"{logical}s",
        parent=f"{document}id",
    )


# What the system itself adds up of a document is read only.
_AMOUNTS = (
    money("subtotal", "totallineitemamount", writable=False),
    money("discount", "totaldiscountamount", writable=False),
    money("tax", "totaltax", writable=False),
    money("shipping", "freightamount"),
    money("total", "totalamount", writable=False),
)
_LINES = FieldMap("lines", "lines")
_ADDRESSES = (*address("bill_", "billto"), *address("ship_", "shipto"))

QUOTES = table_of(
    QUOTE,
    FieldMap("name", "name", length=300),
    FieldMap("number", "quotenumber", length=100, kept=True),
    CUSTOMER,
    ref("opportunity_id", "opportunityid", "opportunity"),
    FieldMap("valid_from", "effectivefrom", midnight=True),
    FieldMap("valid_until", "effectiveto", midnight=True),
    CURRENCY,
    _LINES,
    *_AMOUNTS,
    *_ADDRESSES,
    DESCRIPTION,
    OWNER,
    *states({0: "draft", 1: "active", 2: "won", 3: "lost"}),
    # Only an active quote is won or lost, and stays so: what comes next is a revision, which is another quote.
    closings={
        "won": Closing("WinQuote", "QuoteClose", 4, "Won", start="active"),
        "lost": Closing("CloseQuote", "QuoteClose", 5, "Lost", start="active"),
    },
    final=frozenset({"won", "lost"}),
    lines=_lines("quote"),
)

ORDERS = table_of(
    ORDER,
    FieldMap("name", "name", length=300),
    FieldMap("number", "ordernumber", length=100, kept=True),
    CUSTOMER,
    ref("quote_id", "quoteid", "quote"),
    ref("opportunity_id", "opportunityid", "opportunity"),
    FieldMap("date", "submitdate", midnight=True),
    FieldMap("requested_delivery", "requestdeliveryby"),
    CURRENCY,
    _LINES,
    *_AMOUNTS,
    *_ADDRESSES,
    DESCRIPTION,
    OWNER,
    *states({0: "draft", 1: "open", 2: "canceled", 3: "fulfilled", 4: "invoiced"}),
    closings={
        "canceled": Closing("CancelSalesOrder", "OrderClose", 4, "Canceled"),
        "fulfilled": Closing("FulfillSalesOrder", "OrderClose", 100001, "Fulfilled"),
    },
    # The actions begin from an order that is none of these.
    locked=frozenset({"canceled", "fulfilled", "invoiced"}),
    defaults={"ispricelocked": False},
    lines=_lines("salesorder"),
)

INVOICES = table_of(
    INVOICE,
    FieldMap("name", "name", length=300),
    FieldMap("number", "invoicenumber", length=100, kept=True),
    CUSTOMER,
    ref("order_id", "salesorderid", "order"),
    FieldMap("due_date", "duedate"),
    CURRENCY,
    _LINES,
    *_AMOUNTS,
    DESCRIPTION,
    # State 1 (Closed) is deprecated and has no name here.
    *states({0: "open", 2: "paid", 3: "canceled"}),
    defaults={"ispricelocked": False},
    lines=_lines("invoice"),
)

_CAMPAIGN_KINDS = {1: "Advertisement", 2: "Direct Marketing", 3: "Event", 4: "Co-branding", 5: "Other"}

CAMPAIGNS = table_of(
    CAMPAIGN,
    FieldMap("name", "name", length=128),
    FieldMap("kind", "typecode", names=_CAMPAIGN_KINDS),
    FieldMap("starts_on", "proposedstart"),
    FieldMap("ends_on", "proposedend"),
    money("budget", "budgetedcost"),
    money("actual_cost", "totalactualcost", writable=False),
    money("expected_revenue", "expectedrevenue"),
    CURRENCY,
    DESCRIPTION,
    OWNER,
    # What matters to people is the reason: every campaign under way has the state 0 (Active).
    FieldMap("status", "statuscode", names={0: "planned", 2: "active", 3: "done", 4: "canceled"}),
    *SYSTEM_FIELDS,
)
