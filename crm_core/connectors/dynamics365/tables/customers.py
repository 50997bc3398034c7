"""Accounts and contacts: columns, lengths, choices.

Source: Microsoft's Common Data Model (crmCommon), and the Web API's entity reference.
"""

from crm_core.connectors.dynamics365.tables.common import (
    ADDRESS,
    CURRENCY,
    DESCRIPTION,
    INACTIVE,
    OWNER,
    money,
    ref,
    ref_to_several,
    states,
    table_of,
)
from crm_core.model.entities import ACCOUNT, CONTACT
from crm_core.model.field_map import FieldMap
from crm_core.model.mapping import Navigation

_INDUSTRIES = (
    "Accounting", "Agriculture and Non-petrol Natural Resource Extraction", "Broadcasting Printing and Publishing",
    "Brokers", "Building Supply Retail", "Business Services", "Consulting", "Consumer Services",
    "Design, Direction and Creative Management", "Distributors, Dispatchers and Processors",
    "Doctor's Offices and Clinics", "Durable Manufacturing", "Eating and Drinking Places", "Entertainment Retail",
    "Equipment Rental and Leasing", "Financial", "Food and Tobacco Processing",
    "Inbound Capital Intensive Processing", "Inbound Repair and Services", "Insurance", "Legal Services",
    "Non-Durable Merchandise Retail", "Outbound Consumer Service", "Petrochemical Extraction and Distribution",
    "Service Retail", "SIG Affiliations", "Social Services", "Special Outbound Trade Contractors", "Specialty Realty",
    "Transportation", "Utility Creation and Distribution", "Vehicle Retail", "Wholesale",
)  # fmt: skip

# customertypecode 11 (Vendor) and the like have no name of their own here and stay "native:11".
_ACCOUNT_KINDS = {1: "competitor", 3: "customer", 5: "partner", 8: "prospect", 10: "supplier", 12: "other"}

ACCOUNTS = table_of(
    ACCOUNT,
    FieldMap("name", "name", length=160),
    FieldMap("number", "accountnumber", length=20),
    FieldMap("email", "emailaddress1", length=100),
    FieldMap("phone", "telephone1", length=50),
    FieldMap("website", "websiteurl", length=200),
    FieldMap("industry", "industrycode", names=dict(enumerate(_INDUSTRIES, 1))),
    FieldMap("kind", "customertypecode", names=_ACCOUNT_KINDS),
    FieldMap("employees", "numberofemployees"),
    money("annual_revenue", "revenue"),
    CURRENCY,
    *ADDRESS,
    ref("parent_id", "parentaccountid", "account"),
    ref("primary_contact_id", "primarycontactid", "contact"),
    DESCRIPTION,
    OWNER,
    *states(INACTIVE),
    lists=(
        Navigation("contact_customer_accounts", "contact", many=True),
        Navigation("account_parent_account", "account", many=True),
        Navigation("opportunity_customer_accounts", "opportunity", many=True),
        Navigation("incident_customer_accounts", "case", many=True),
    ),
    merges=True,
)

CONTACTS = table_of(
    CONTACT,
    FieldMap("first_name", "firstname", length=50),
    FieldMap("last_name", "lastname", length=50),
    FieldMap("email", "emailaddress1", length=100),
    FieldMap("phone", "telephone1", length=50),
    FieldMap("mobile", "mobilephone", length=50),
    FieldMap("job_title", "jobtitle", length=100),
    FieldMap("department", "department", length=100),
    FieldMap("birthdate", "birthdate"),
    *ADDRESS,
    # The customer of a contact is an account or another contact; only an account is its account_id.
    ref_to_several("account_id", "parentcustomerid", "parentcustomerid_{}", ("account",)),
    FieldMap("email_opt_out", "donotbulkemail"),
    DESCRIPTION,
    OWNER,
    *states(INACTIVE),
    lists=(
        Navigation("parentcustomerid_contact", "contact"),
        Navigation("contact_customer_contacts", "contact", many=True),
        Navigation("account_primary_contact", "account", many=True),
        Navigation("incident_customer_contacts", "case", many=True),
    ),
    merges=True,
)
