"""What many tables have: system columns, owner, money, addresses, and choices that several of them use."""

from typing import Any

Facts = dict[str, Any]  # one table; see the package's docstring
Choices = dict[int, str | tuple[str, int]]


def numbered(first: int, text: str) -> Choices:
    """``A|B`` as choices from ``first`` on."""
    return dict(enumerate(text.split("|"), first))


INDUSTRIES = [
    "Accounting",
    "Agriculture and Non-petrol Natural Resource Extraction",
    "Broadcasting Printing and Publishing",
    "Brokers",
    "Building Supply Retail",
    "Business Services",
    "Consulting",
    "Consumer Services",
    "Design, Direction and Creative Management",
    "Distributors, Dispatchers and Processors",
    "Doctor's Offices and Clinics",
    "Durable Manufacturing",
    "Eating and Drinking Places",
    "Entertainment Retail",
    "Equipment Rental and Leasing",
    "Financial",
    "Food and Tobacco Processing",
    "Inbound Capital Intensive Processing",
    "Inbound Repair and Services",
    "Insurance",
    "Legal Services",
    "Non-Durable Merchandise Retail",
    "Outbound Consumer Service",
    "Petrochemical Extraction and Distribution",
    "Service Retail",
    "SIG Affiliations",
    "Social Services",
    "Special Outbound Trade Contractors",
    "Specialty Realty",
    "Transportation",
    "Utility Creation and Distribution",
    "Vehicle Retail",
    "Wholesale",
]

# Choices by the name that a column's ``of=`` gives, or by the column's own name.
OPTIONS: dict[str, Choices] = {
    "industrycode": dict(enumerate(INDUSTRIES, 1)),
    "preferredcontactmethodcode": numbered(1, "Any|Email|Phone|Fax|Mail"),
    "paymenttermscode": numbered(1, "Net 30|2% 10, Net 30|Net 45|Net 60"),
    "default": {1: "Default Value"},
    "rating": numbered(1, "Hot|Warm|Cold"),
    "budgetstatus": numbered(0, "No Committed Budget|May Buy|Can Buy|Will Buy"),
    "initialcommunication": numbered(0, "Contacted|Not Contacted"),
    "need": numbered(0, "Must have|Should have|Good to have|No need"),
    "purchaseprocess": numbered(0, "Individual|Committee|Unknown"),
    "timeframe": numbered(0, "Immediate|This Quarter|Next Quarter|This Year|Unknown"),
    "pricingerrorcode": numbered(
        0,
        "None|Detail Error|Missing Price Level|Inactive Price Level|Missing Quantity|"
        "Missing Unit Price|Missing Product|Invalid Product|Missing Pricing Code|Invalid Pricing Code|"
        "Missing UOM|Product Not In Price Level|Missing Price Level Amount|"
        "Missing Price Level Percentage|Missing Price|Missing Current Cost|Missing Standard Cost|"
        "Invalid Price Level Amount|Invalid Price Level Percentage|Invalid Price|Invalid Current Cost|"
        "Invalid Standard Cost|Invalid Rounding Policy|Invalid Rounding Option|"
        "Invalid Rounding Amount|Price Calculation Error|Invalid Discount Type|"
        "Discount Type Invalid State|Invalid Discount|Invalid Quantity|Invalid Pricing Precision|"
        "Missing Product Default UOM|Missing Product UOM Schedule|Inactive Discount Type|"
        "Invalid Price Level Currency|Price Attribute Out Of Range|Base Currency Attribute Overflow|"
        "Base Currency Attribute Underflow",
    ),
}

SYSTEM = """
    CreatedOn datetime ro
    ModifiedOn datetime ro
    OverriddenCreatedOn datetime once
    VersionNumber bigint ro
    CreatedBy lookup ro to=systemuser:createdby
    ModifiedBy lookup ro to=systemuser:modifiedby
    ImportSequenceNumber int once
"""
OWNED = """
    OwnerId lookup to=systemuser:ownerid,team:ownerid req=sys
    OwningUser lookup ro to=systemuser:owninguser
    OwningTeam lookup ro to=team:owningteam
    OwningBusinessUnit lookup ro to=businessunit:owningbusinessunit
"""
MONEY = """
    TransactionCurrencyId lookup to=transactioncurrency:transactioncurrencyid
    ExchangeRate decimal ro
"""
# Where the currency is required, the server fills in the organisation's own.
CURRENCY = MONEY.replace("transactioncurrencyid", "transactioncurrencyid req=app")
PROCESS = """
    ProcessId guid
    StageId guid
    TraversedPath string 1250
"""


def state(table: str) -> str:
    """The two columns of a table's states, which are in ``states.py``."""
    return f"""
    StateCode state req=sys of={table}.statecode
    StatusCode status of={table}.statuscode
"""


def amounts(*names: str, facts: str = "") -> str:
    """Columns of money, each with its amount in the base currency."""
    return "".join(f"\n    {n} money {facts}\n    {n}_Base money ro" for n in names) + "\n"


def address(n: int, name: int = 200) -> str:
    """One address of a customer or lead (customerAddressInline); only the length of its name differs."""
    return f"""
    Address{n}_AddressTypeCode picklist of=default
    Address{n}_Name string {name}
    Address{n}_Line1 string 250
    Address{n}_Line2 string 250
    Address{n}_Line3 string 250
    Address{n}_City string 80
    Address{n}_StateOrProvince string 50
    Address{n}_County string 50
    Address{n}_Country string 80
    Address{n}_PostalCode string 20
    Address{n}_PostOfficeBox string 20
    Address{n}_Telephone1 string 50
    Address{n}_Telephone2 string 50
    Address{n}_Fax string 50
    Address{n}_Latitude double
    Address{n}_Longitude double
    Address{n}_Composite memo 1000 ro
"""
