"""Facts about tables: one line per column, ``SchemaName kind [length] [facts]``; the logical name is lower case.

Facts: ``ro`` read-only, ``once`` writable on create only, ``req=`` level of requirement, ``of=`` name of the
choices, ``to=table:NavigationProperty`` targets of a lookup, ``back=table:collection`` the way back.
Lengths and values: Common Data Model (crmCommon); addresses: customerAddressInline.
"""

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


def _from(first: int, text: str) -> dict[int, str | tuple[str, int]]:
    return dict(enumerate(text.split("|"), first))


# Choices by column; for status reasons (label, state that the reason belongs to).
OPTIONS: dict[str, dict[int, str | tuple[str, int]]] = {
    "industrycode": dict(enumerate(INDUSTRIES, 1)),
    "accountcategorycode": {1: "Preferred Customer", 2: "Standard"},
    "preferredcontactmethodcode": {1: "Any", 2: "Email", 3: "Phone", 4: "Fax", 5: "Mail"},
    "customertypecode": {
        1: "Competitor", 2: "Consultant", 3: "Customer", 4: "Investor", 5: "Partner", 6: "Influencer", 7: "Press",
        8: "Prospect", 9: "Reseller", 10: "Supplier", 11: "Vendor", 12: "Other",
    },
    "ownershipcode": {1: "Public", 2: "Private", 3: "Subsidiary", 4: "Other"},
    "paymenttermscode": {1: "Net 30", 2: "2% 10, Net 30", 3: "Net 45", 4: "Net 60"},
    "default": {1: "Default Value"},
    "gendercode": {1: "Male", 2: "Female"},
    "familystatuscode": {1: "Single", 2: "Married", 3: "Divorced", 4: "Widowed"},
    "accountrolecode": {1: "Decision Maker", 2: "Employee", 3: "Influencer"},
    "preferredappointmentdaycode": _from(0, "Sunday|Monday|Tuesday|Wednesday|Thursday|Friday|Saturday"),
    "preferredappointmenttimecode": {1: "Morning", 2: "Afternoon", 3: "Evening"},
    "accessmode": _from(0, "Read-Write|Administrative|Read|Support User|Non-interactive|Delegated Admin"),
    "statecode": {0: "Active", 1: "Inactive"},
    "statuscode": {1: ("Active", 0), 2: ("Inactive", 1)},
}  # fmt: skip

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
STATE = """
    StateCode state req=sys
    StatusCode status
"""
MONEY = """
    TransactionCurrencyId lookup to=transactioncurrency:transactioncurrencyid
    ExchangeRate decimal ro
"""


def _address(n: int) -> str:
    return f"""
    Address{n}_AddressTypeCode picklist of=default
    Address{n}_Name string 200
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


CUSTOMER = """
    CustomerSizeCode picklist of=default
    PreferredContactMethodCode picklist
    PaymentTermsCode picklist
    ShippingMethodCode picklist of=default
    TerritoryCode picklist of=default
    Description memo 2000
    EMailAddress1 string 100
    EMailAddress2 string 100
    EMailAddress3 string 100
    Telephone1 string 50
    Telephone2 string 50
    Telephone3 string 50
    Fax string 50
    FtpSiteUrl string 200
    WebSiteUrl string 200
    CreditLimit money
    CreditLimit_Base money ro
    CreditOnHold bool
    DoNotPhone bool
    DoNotFax bool
    DoNotEMail bool
    DoNotBulkEMail bool
    DoNotPostalMail bool
    DoNotBulkPostalMail bool
    DoNotSendMM bool
    FollowEmail bool
    MarketingOnly bool
    ParticipatesInWorkflow bool
    PreferredAppointmentDayCode picklist
    PreferredAppointmentTimeCode picklist
    PreferredSystemUserId lookup to=systemuser:preferredsystemuserid
    LastUsedInCampaign datetime
    OnHoldTime int ro
    LastOnHoldTime datetime
    Merged bool ro
"""

ACCOUNT = f"""
    AccountId key req=sys
    Name string 160 req=app
    AccountNumber string 20
    AccountCategoryCode picklist
    AccountRatingCode picklist of=default
    AccountClassificationCode picklist of=default
    BusinessTypeCode picklist of=default
    CustomerTypeCode picklist
    IndustryCode picklist
    OwnershipCode picklist
    NumberOfEmployees int
    Revenue money
    Revenue_Base money ro
    MarketCap money
    MarketCap_Base money ro
    SharesOutstanding int
    SIC string 20
    StockExchange string 20
    TickerSymbol string 10
    YomiName string 160
    PrimarySatoriId string 200
    PrimaryTwitterId string 128
    ParentAccountId lookup to=account:parentaccountid back=account:account_parent_account
    PrimaryContactId lookup to=contact:primarycontactid back=contact:account_primary_contact
    MasterId lookup ro to=account:masterid back=account:account_master_account
    {CUSTOMER}{_address(1)}{_address(2)}{MONEY}{OWNED}{STATE}{SYSTEM}
"""

CONTACT = f"""
    ContactId key req=sys
    FirstName string 50 req=rec
    MiddleName string 50
    LastName string 50 req=app
    FullName string 160 ro
    NickName string 100
    Salutation string 100
    Suffix string 10
    JobTitle string 100
    Department string 100
    EmployeeId string 50
    GovernmentId string 50
    ExternalUserIdentifier string 50
    AccountRoleCode picklist
    CustomerTypeCode picklist of=default
    LeadSourceCode picklist of=default
    EducationCode picklist of=default
    HasChildrenCode picklist of=default
    FamilyStatusCode picklist
    GenderCode picklist
    BirthDate date
    Anniversary date
    NumberOfChildren int
    ChildrensNames string 255
    SpousesName string 100
    ManagerName string 100
    ManagerPhone string 50
    AssistantName string 100
    AssistantPhone string 50
    MobilePhone string 50
    Pager string 50
    Business2 string 50
    Callback string 50
    Company string 50
    Home2 string 50
    AnnualIncome money
    AnnualIncome_Base money ro
    IsBackofficeCustomer bool
    ParentCustomerId lookup to=account:parentcustomerid_account,contact:parentcustomerid_contact back=account:contact_customer_accounts,contact:contact_customer_contacts cascade
    MasterId lookup ro to=contact:masterid back=contact:contact_master_contact
    {CUSTOMER}{_address(1)}{_address(2)}{MONEY}{OWNED}{STATE}{SYSTEM}
"""

ENTITIES: list[dict[str, str | int]] = [
    {
        "name": "account", "set": "accounts", "primary_name": "name", "code": 1, "columns": ACCOUNT,
        "keys": "accountnumber", "duplicates": "name",
    },
    {
        "name": "contact", "set": "contacts", "primary_name": "fullname", "code": 2, "columns": CONTACT,
        "duplicates": "emailaddress1",
    },
    {
        "name": "systemuser", "schema": "SystemUser", "set": "systemusers", "primary_name": "fullname", "code": 8,
        "columns": f"""
            SystemUserId key req=sys
            FirstName string 64
            LastName string 64
            FullName string 200 ro
            DomainName string 1024
            InternalEMailAddress string 100
            Title string 128
            IsDisabled bool ro
            AccessMode picklist
            ApplicationId guid once
            AzureActiveDirectoryObjectId guid ro
            BusinessUnitId lookup to=businessunit:businessunitid
            {SYSTEM}
        """,
    },
    {
        "name": "team", "set": "teams", "primary_name": "name", "code": 9,
        "columns": f"""
            TeamId key req=sys
            Name string 160
            BusinessUnitId lookup to=businessunit:businessunitid
            {SYSTEM}
        """,
    },
    {
        "name": "businessunit", "schema": "BusinessUnit", "set": "businessunits", "primary_name": "name", "code": 10,
        "columns": f"""
            BusinessUnitId key req=sys
            Name string 160
            {SYSTEM}
        """,
    },
    {
        "name": "transactioncurrency", "schema": "TransactionCurrency", "set": "transactioncurrencies",
        "primary_name": "currencyname", "code": 9105,
        "columns": f"""
            TransactionCurrencyId key req=sys
            CurrencyName string 100
            ISOCurrencyCode string 5
            CurrencySymbol string 13
            CurrencyPrecision int
            ExchangeRate decimal
            {STATE}{SYSTEM}
        """,
    },
]  # fmt: skip
