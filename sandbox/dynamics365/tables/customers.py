"""Accounts and contacts. Lengths and values: Common Data Model (crmCommon)."""

from sandbox.dynamics365.tables.common import MONEY, OWNED, SYSTEM, Choices, Facts, address, numbered, state

OPTIONS: dict[str, Choices] = {
    "accountcategorycode": {1: "Preferred Customer", 2: "Standard"},
    "customertypecode": numbered(
        1,
        "Competitor|Consultant|Customer|Investor|Partner|Influencer|Press|Prospect|Reseller|Supplier|Vendor|Other",
    ),
    "ownershipcode": numbered(1, "Public|Private|Subsidiary|Other"),
    "gendercode": {1: "Male", 2: "Female"},
    "familystatuscode": numbered(1, "Single|Married|Divorced|Widowed"),
    "new_region": {100000000: "North", 100000001: "South", 100000002: "Islands"},
    "accountrolecode": numbered(1, "Decision Maker|Employee|Influencer"),
    "preferredappointmentdaycode": numbered(0, "Sunday|Monday|Tuesday|Wednesday|Thursday|Friday|Saturday"),
    "preferredappointmenttimecode": numbered(1, "Morning|Afternoon|Evening"),
}

CUSTOMER = """
    CustomerSizeCode picklist of=default
    PreferredContactMethodCode picklist default=1
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

# What an organisation has added for itself: a custom column bears its publisher's prefix.
CUSTOM = """
    new_Region picklist
    new_TaxId string 20
    new_LegalName string 200
    new_Segment string 50
    new_Label string 200
    new_Source string 50
    new_Score int
    new_Margin decimal scale=2
    new_IsPartner bool
    new_AuditedAt datetime
    new_VisitedAt string 40
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
    OriginatingLeadId lookup to=lead:originatingleadid back=lead:account_originating_lead
    MasterId lookup ro to=account:masterid back=account:account_master_account
    {CUSTOMER}{address(1)}{address(2)}{CUSTOM}{MONEY}{OWNED}{state("account")}{SYSTEM}
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
    OriginatingLeadId lookup to=lead:originatingleadid back=lead:contact_originating_lead
    MasterId lookup ro to=contact:masterid back=contact:contact_master_contact
    {CUSTOMER}{address(1)}{address(2)}{MONEY}{OWNED}{state("contact")}{SYSTEM}
"""

ENTITIES: list[Facts] = [
    {
        "name": "account", "set": "accounts", "primary_name": "name", "code": 1, "columns": ACCOUNT,
        "keys": "accountnumber", "duplicates": "name", "tracked": True,
    },
    {
        "name": "contact", "set": "contacts", "primary_name": "fullname", "code": 2, "columns": CONTACT,
        "duplicates": "emailaddress1", "tracked": True,
    },
]  # fmt: skip
