"""Activities: one table for each kind, their shared list, their parties, and the rows that closing actions leave.

Columns: the vendor's table references; state and description of the Common Data Model (Activity, Task).
"""

from sandbox.dynamics365.tables.common import (
    CURRENCY,
    MONEY,
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
    "activity.prioritycode": numbered(0, "Low|Normal|High"),
    "participationtypemask": numbered(
        1,
        "Sender|To Recipient|CC Recipient|BCC Recipient|Required attendee|Optional attendee|Organizer|Regarding|Owner|Resource|Customer",
    ),
}

KINDS = ("task", "phonecall", "email", "appointment")
# What an activity can be about: table and the schema name that its collections of activities begin with.
REGARDING = {
    "account": "Account", "contact": "Contact", "lead": "Lead", "opportunity": "Opportunity", "incident": "Incident",
    "quote": "Quote", "salesorder": "SalesOrder", "invoice": "Invoice", "campaign": "Campaign",
}  # fmt: skip
# Who can take part, and what the collections of their parts begin with.
PARTIES = {"account": "account", "contact": "contact", "lead": "lead", "systemuser": "system_user"}


def _regarding(suffix: str, collection: str) -> str:
    """The lookup to what the activity is about; its navigation names end in the kind of activity."""
    to = ",".join(f"{t}:regardingobjectid_{t}{suffix}" for t in REGARDING)
    back = ",".join(f"{t}:{schema}_{collection}" for t, schema in REGARDING.items())
    return f"RegardingObjectId lookup to={to} back={back} cascade"


COMMON = f"""
    ActivityId key req=sys
    ActivityTypeCode string 64 ro
    Subject string 200 req=app
    Description memo 2000
    ScheduledStart datetime
    ScheduledEnd datetime
    ScheduledDurationMinutes int
    ActualStart datetime
    ActualEnd datetime
    ActualDurationMinutes int
    PriorityCode picklist of=activity.prioritycode default=1
    IsBilled bool
    IsWorkflowCreated bool
    OnHoldTime int ro
    LastOnHoldTime datetime
    {PROCESS}{MONEY}{OWNED}{SYSTEM}
"""
SORTED = """
    Category string 250
    Subcategory string 250
"""
OWN = {
    "task": f"""
        PercentComplete int min=0 max=100
        CrmTaskAssignedUniqueId guid
        {SORTED}""",
    "phonecall": f"""
        PhoneNumber string 200
        DirectionCode bool default=true
        LeftVoiceMail bool
        {SORTED}""",
    "email": f"""
        DirectionCode bool default=true
        ToRecipients string 500
        Sender string 250
        MessageId string 320
        TrackingToken string 50
        {SORTED}""",
    "appointment": f"""
        Location string 400
        IsAllDayEvent bool
        {SORTED}""",
}
NAMES: dict[str, tuple[str, str, str, int]] = {  # schema name, set, name of collections, type code
    "task": ("Task", "tasks", "Tasks", 4212),
    "phonecall": ("PhoneCall", "phonecalls", "Phonecalls", 4210),
    "email": ("Email", "emails", "Emails", 4202),
    "appointment": ("Appointment", "appointments", "Appointments", 4201),
}


def _kind(name: str) -> Facts:
    schema, set_name, collection, code = NAMES[name]
    columns = f"{COMMON}{OWN[name]}\n{_regarding(f'_{name}', collection)}\n{state(name)}"
    return {
        "name": name, "schema": schema, "set": set_name, "primary_name": "subject", "code": code, "key": "activityid",
        "activity": True, "tracked": True, "columns": columns,
    }  # fmt: skip


def _closing(name: str, schema: str, set_name: str, code: int, target: str, more: str = "") -> Facts:
    """The row that a closing action leaves: read here, made by the action."""
    return {
        "name": name, "schema": schema, "set": set_name, "primary_name": "subject", "code": code, "key": "activityid",
        "only": "list get",
        "columns": f"""
            ActivityId key req=sys
            ActivityTypeCode string 64 ro
            Subject string 200 req=app
            Description memo 2000
            ActualStart datetime
            ActualEnd datetime
            Category string 250
            {target}
            {more}
            {CURRENCY}{OWNED}{state("closing")}{SYSTEM}
        """,
    }  # fmt: skip


ENTITIES: list[Facts] = [
    *map(_kind, KINDS),
    {
        "name": "activitypointer", "schema": "ActivityPointer", "set": "activitypointers", "primary_name": "subject",
        "code": 4200, "key": "activityid", "activity": True, "view": " ".join(KINDS), "only": "list get",
        "columns": f"{COMMON}\n{_regarding('', 'ActivityPointers')}\n{state('activitypointer')}",
    },
    {
        "name": "activityparty", "schema": "ActivityParty", "set": "activityparties", "primary_name": "partyidname",
        "code": 135, "only": "list",
        "columns": f"""
            ActivityPartyId key req=sys
            ActivityId lookup to={",".join(f"{k}:activityid_{k}" for k in KINDS)} back={",".join(f"{k}:{k}_activity_parties" for k in (*KINDS, "activitypointer"))} req=sys parental
            PartyId lookup to={",".join(f"{t}:partyid_{t}" for t in PARTIES)} back={",".join(f"{t}:{name}_activity_parties" for t, name in PARTIES.items())}
            PartyIdName string 400 ro
            ParticipationTypeMask picklist
            AddressUsed string 200
            UnresolvedPartyName string 200 ro
            IsPartyDeleted bool ro
            Effort double
            VersionNumber bigint ro
        """,
    },
    _closing(
        "incidentresolution", "IncidentResolution", "incidentresolutions", 4206,
        "IncidentId lookup to=incident:incidentid back=incident:Incident_IncidentResolutions parental",
        "TimeSpent int",
    ),
    _closing(
        "opportunityclose", "OpportunityClose", "opportunitycloses", 4208,
        "OpportunityId lookup to=opportunity:opportunityid back=opportunity:Opportunity_OpportunityClose parental",
        amounts("ActualRevenue"),
    ),
    _closing(
        "quoteclose", "QuoteClose", "quotecloses", 4211,
        "QuoteId lookup to=quote:quoteid back=quote:Quote_QuoteClose parental",
        f"QuoteNumber string 100\n{amounts('ActualRevenue')}",
    ),
    _closing(
        "orderclose", "OrderClose", "ordercloses", 4209,
        "SalesOrderId lookup to=salesorder:salesorderid back=salesorder:SalesOrder_OrderClose parental",
        f"OrderNumber string 100\n{amounts('ActualRevenue')}",
    ),
]  # fmt: skip
