"""What Dataverse calls things: tables, columns, lengths, choices. Facts only.

Source: Microsoft's Common Data Model (crmCommon), and the Web API's entity reference.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from crm_core.model.entities import ACCOUNT, CONTACT
from crm_core.model.fields import Type
from crm_core.model.literals import GUID, GUID_TYPE
from crm_core.model.mapping import EntityMap, FieldMap, NativeField, Navigation, required_names

SYSTEM = "dynamics365"

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

_LOOKUP_KIND = "Microsoft.Dynamics.CRM.lookuplogicalname"
"""The annotation that tells what a lookup to several tables points at."""


def _lookup(field: str, name: str, path: str) -> FieldMap:
    """A reference to one table: read as _name_value, written by its navigation property."""
    return FieldMap(field, f"_{name}_value", bind=name, bind_path=path, form=GUID.pattern)


_ADDRESS = (
    FieldMap("street", "address1_line1", length=250),
    FieldMap("street2", "address1_line2", length=250),
    FieldMap("city", "address1_city", length=80),
    FieldMap("state", "address1_stateorprovince", length=50),
    FieldMap("postal_code", "address1_postalcode", length=20),
    FieldMap("country", "address1_country", length=80),
)
_SYSTEM = (
    FieldMap("status", "statecode", names={0: "active", 1: "inactive"}),
    FieldMap("status_reason", "statuscode", writable=False),
    FieldMap("created_at", "createdon", writable=False),
    FieldMap("updated_at", "modifiedon", writable=False),
)

ACCOUNTS = EntityMap(
    ACCOUNT,
    remote="accounts",
    key="accountid",
    modified="modifiedon",
    version="versionnumber",
    fields=(
        FieldMap("name", "name", length=160),
        FieldMap("number", "accountnumber", length=20),
        FieldMap("email", "emailaddress1", length=100),
        FieldMap("phone", "telephone1", length=50),
        FieldMap("website", "websiteurl", length=200),
        FieldMap("industry", "industrycode", names=dict(enumerate(_INDUSTRIES, 1))),
        FieldMap("kind", "customertypecode", names=_ACCOUNT_KINDS),
        FieldMap("employees", "numberofemployees"),
        FieldMap("annual_revenue", "revenue"),
        *_ADDRESS,
        _lookup("parent_id", "parentaccountid", "accounts"),
        _lookup("primary_contact_id", "primarycontactid", "contacts"),
        FieldMap("description", "description", length=2000),
        *_SYSTEM,
    ),
    navigations=(
        Navigation("primarycontactid", "contact", field="primary_contact_id"),
        Navigation("parentaccountid", "account", field="parent_id"),
        Navigation("contact_customer_accounts", "contact", many=True),
        Navigation("account_parent_account", "account", many=True),
    ),
)

CONTACTS = EntityMap(
    CONTACT,
    remote="contacts",
    key="contactid",
    modified="modifiedon",
    version="versionnumber",
    fields=(
        FieldMap("first_name", "firstname", length=50),
        FieldMap("last_name", "lastname", length=50),
        FieldMap("email", "emailaddress1", length=100),
        FieldMap("phone", "telephone1", length=50),
        FieldMap("mobile", "mobilephone", length=50),
        FieldMap("job_title", "jobtitle", length=100),
        FieldMap("department", "department", length=100),
        FieldMap("birthdate", "birthdate"),
        *_ADDRESS,
        # The customer of a contact is an account or another contact; only an account is its account_id.
        FieldMap(
            "account_id",
            "_parentcustomerid_value",
            bind="parentcustomerid_account",
            bind_path="accounts",
            form=GUID.pattern,
            kind="account",
            kind_native=f"_parentcustomerid_value@{_LOOKUP_KIND}",
        ),
        FieldMap("email_opt_out", "donotbulkemail"),
        FieldMap("description", "description", length=2000),
        *_SYSTEM,
    ),
    navigations=(
        Navigation("parentcustomerid_account", "account", field="account_id"),
        Navigation("parentcustomerid_contact", "contact"),
        Navigation("contact_customer_contacts", "contact", many=True),
        Navigation("account_primary_contact", "account", many=True),
    ),
)

# AttributeType of EntityDefinitions -> how its literals are written. Others can't be filtered or written here.
NATIVE_TYPES: Mapping[str, str] = {
    "String": Type.TEXT,
    "Memo": Type.TEXT,
    "Integer": Type.INTEGER,
    "BigInt": Type.INTEGER,
    "Picklist": Type.INTEGER,
    "State": Type.INTEGER,
    "Status": Type.INTEGER,
    "Decimal": Type.DECIMAL,
    "Double": Type.DECIMAL,
    "Money": Type.MONEY,
    "Boolean": Type.BOOLEAN,
    "DateTime": Type.INSTANT,
    "Uniqueidentifier": GUID_TYPE,
    "Lookup": GUID_TYPE,
    "Customer": GUID_TYPE,
    "Owner": GUID_TYPE,
}
_LOOKUPS = ("Lookup", "Customer", "Owner")


def native_field(row: Mapping[str, Any]) -> NativeField:
    kind = str(row.get("AttributeType", ""))
    name = str(row["LogicalName"])
    if kind in _LOOKUPS:
        return NativeField(f"_{name}_value", GUID_TYPE, writable=False)
    writable = bool(row.get("IsValidForCreate") or row.get("IsValidForUpdate")) and kind in NATIVE_TYPES
    return NativeField(name, NATIVE_TYPES.get(kind, kind), writable)


def prefer(
    emap: EntityMap, *preferences: str, also: Iterable[EntityMap] = (), annotations: Sequence[str] = ()
) -> dict[str, str]:
    """The header Prefer; the kind of what a lookup points at is asked for only where it can be several."""
    several = any(each.kind for one in (emap, *also) for each in one.fields)
    terms = [*([_LOOKUP_KIND] if several else []), *annotations]
    included = [f'odata.include-annotations="{",".join(terms)}"'] if terms else []
    wanted = ",".join([*preferences, *included])
    return {"Prefer": wanted} if wanted else {}


def select_of(emap: EntityMap) -> list[str]:
    return required_names(emap.fields, emap.key, emap.modified, emap.version)
