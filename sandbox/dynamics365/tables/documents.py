"""Quotes, orders, invoices and their lines. Lengths and values: Common Data Model (crmCommon/sales).

An invoice and its lines are no part of that model's files here: they have the columns of an order where the vendor
has them too.
"""

from sandbox.dynamics365.tables.common import (
    CURRENCY,
    OWNED,
    PROCESS,
    SYSTEM,
    Choices,
    Facts,
    amounts,
    numbered,
    state,
)

OPTIONS: dict[str, Choices] = {
    "freighttermscode": {1: "FOB", 2: "No Charge"},
    "document.shippingmethodcode": numbered(1, "Airborne|DHL|FedEx|UPS|Postal Mail|Full Load|Will Call"),
    "line.producttypecode": numbered(
        1, "Product|Bundle|Required Bundle Product|Optional Bundle Product|Project-based Service"
    ),
    "propertyconfigurationstatus": numbered(0, "Edit|Rectify|Not Configured"),
}

# The server adds these up from the lines; discount and freight are the document's own.
TOTALS = f"""
    {amounts("DiscountAmount", "FreightAmount")}
    DiscountPercentage decimal scale=2
    {
    amounts(
        "TotalLineItemAmount",
        "TotalLineItemDiscountAmount",
        "TotalDiscountAmount",
        "TotalAmountLessFreight",
        "TotalTax",
        "TotalAmount",
        facts="ro",
    )
}
    PricingErrorCode picklist
"""


def _place(prefix: str, freight: str, *, composite: bool = True) -> str:
    """A billing or shipping address."""
    return f"""
    {prefix}_Name string 200
    {prefix}_ContactName string 150
    {prefix}_Line1 string 250
    {prefix}_Line2 string 250
    {prefix}_Line3 string 250
    {prefix}_City string 80
    {prefix}_StateOrProvince string 50
    {prefix}_PostalCode string 20
    {prefix}_Country string 80
    {prefix}_Telephone string 50
    {prefix}_Fax string 50
    {prefix}_AddressId guid
    {f"{prefix}_FreightTermsCode picklist of={freight}" if freight else ""}
    {f"{prefix}_Composite memo 1000 ro" if composite else ""}
    """


def _document(accounts: str, contacts: str, campaign: str, opportunity: str, prices: str) -> str:
    """What quote, order and invoice have alike; the names are those of the ways back."""
    return f"""
    Name string 300 req=app
    Description memo 2000
    EmailAddress string 100
    CustomerId lookup to=account:customerid_account,contact:customerid_contact req=app back=account:{accounts},contact:{contacts}
    OpportunityId lookup to=opportunity:opportunityid back=opportunity:{opportunity}
    CampaignId lookup to=campaign:campaignid back=campaign:{campaign}
    PriceLevelId lookup to=pricelevel:pricelevelid req=app back=pricelevel:{prices}
    RequestDeliveryBy date
    PaymentTermsCode picklist
    FreightTermsCode picklist
    ShippingMethodCode picklist of=document.shippingmethodcode
    WillCall bool
    OnHoldTime int ro
    LastOnHoldTime datetime
    {TOTALS}{_place("BillTo", "")}{_place("ShipTo", "default")}{PROCESS}{CURRENCY}{OWNED}
    """


LOCKED = """
    IsPriceLocked bool
    LastBackofficeSubmit datetime
    PriorityCode picklist of=default default=1
    SubmitDate datetime
    SubmitStatus int
    SubmitStatusDescription memo 2000
    DateFulfilled date
"""
LINE = f"""
    ProductName string 500 ro
    ProductDescription string 500
    IsProductOverridden bool
    IsPriceOverridden bool
    Description memo 2000
    Quantity decimal scale=5
    UoMId lookup to=uom:uomid
    {amounts("PricePerUnit", "ManualDiscountAmount", "Tax")}
    {amounts("BaseAmount", "ExtendedAmount", "VolumeDiscountAmount", facts="ro")}
    LineItemNumber int
    SequenceNumber int
    ProductTypeCode picklist of=line.producttypecode
    PricingErrorCode picklist
    PropertyConfigurationStatus picklist default=2
    {CURRENCY}{SYSTEM}
"""
SHIPPED = f"""
    RequestDeliveryBy date
    WillCall bool
    {_place("ShipTo", "freighttermscode", composite=False)}
"""
COUNTED = """
    IsCopied bool
    QuantityBackordered decimal scale=5
    QuantityCancelled decimal scale=5
    QuantityShipped decimal scale=5
"""

QUOTE = f"""
    QuoteId key req=sys
    QuoteNumber string 100
    RevisionNumber int ro default=0
    EffectiveFrom datetime
    EffectiveTo datetime
    ExpiresOn datetime
    ClosedOn datetime
    {_document("quote_customer_accounts", "quote_customer_contacts", "campaign_quotes", "opportunity_quotes", "price_level_quotes")}
    {state("quote")}{SYSTEM}
"""
ORDER = f"""
    SalesOrderId key req=sys
    OrderNumber string 100
    QuoteId lookup to=quote:quoteid back=quote:quote_orders
    {LOCKED}
    {_document("order_customer_accounts", "order_customer_contacts", "campaign_orders", "opportunity_sales_orders", "price_level_orders")}
    {state("salesorder")}{SYSTEM}
"""
INVOICE = f"""
    InvoiceId key req=sys
    InvoiceNumber string 100
    SalesOrderId lookup to=salesorder:salesorderid back=salesorder:order_invoices
    DateDelivered date
    DueDate date
    {LOCKED}
    {_document("invoice_customer_accounts", "invoice_customer_contacts", "campaign_invoices", "opportunity_invoices", "price_level_invoices")}
    {state("invoice")}{SYSTEM}
"""

ENTITIES: list[Facts] = [
    {
        "name": "quote", "set": "quotes", "primary_name": "name", "code": 1084, "columns": QUOTE, "tracked": True,
        "number": "quotenumber QUO",
    },
    {
        "name": "quotedetail", "schema": "QuoteDetail", "set": "quotedetails", "primary_name": "quotedetailname",
        "code": 1085, "lines": "quoteid", "tracked": True,
        "columns": f"""
            QuoteDetailId key req=sys
            QuoteDetailName string 100 ro
            QuoteId lookup to=quote:quoteid req=sys back=quote:quote_details parental
            QuoteStateCode int ro
            ProductId lookup to=product:productid back=product:product_quote_details
            {SHIPPED}{LINE}
        """,
    },
    {
        "name": "salesorder", "schema": "SalesOrder", "set": "salesorders", "primary_name": "name", "code": 1088,
        "columns": ORDER, "tracked": True, "number": "ordernumber ORD",
    },
    {
        "name": "salesorderdetail", "schema": "SalesOrderDetail", "set": "salesorderdetails",
        "primary_name": "salesorderdetailname", "code": 1089, "lines": "salesorderid", "tracked": True,
        "columns": f"""
            SalesOrderDetailId key req=sys
            SalesOrderDetailName string 100 ro
            SalesOrderId lookup to=salesorder:salesorderid req=sys back=salesorder:order_details parental
            SalesOrderStateCode int ro
            SalesOrderIsPriceLocked bool ro
            ProductId lookup to=product:productid back=product:product_order_details
            {SHIPPED}{COUNTED}{LINE}
        """,
    },
    {
        "name": "invoice", "set": "invoices", "primary_name": "name", "code": 1090, "columns": INVOICE, "tracked": True,
        "number": "invoicenumber INV",
    },
    {
        "name": "invoicedetail", "schema": "InvoiceDetail", "set": "invoicedetails",
        "primary_name": "invoicedetailname", "code": 1091, "lines": "invoiceid", "tracked": True,
        "columns": f"""
            InvoiceDetailId key req=sys
            InvoiceDetailName string 100 ro
            InvoiceId lookup to=invoice:invoiceid req=sys back=invoice:invoice_details parental
            InvoiceStateCode int ro
            InvoiceIsPriceLocked bool ro
            ProductId lookup to=product:productid back=product:product_invoice_details
            {SHIPPED}{COUNTED}{LINE}
        """,
    },
]  # fmt: skip
