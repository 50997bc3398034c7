"""Cases. Lengths and values: Common Data Model (crmCommon/service)."""

from sandbox.dynamics365.tables.common import (
    CURRENCY,
    OWNED,
    PROCESS,
    SYSTEM,
    Choices,
    Facts,
    numbered,
    state,
)

OPTIONS: dict[str, Choices] = {
    "caseorigincode": {1: "Phone", 2: "Email", 3: "Web", 2483: "Facebook", 3986: "Twitter"},
    "casetypecode": numbered(1, "Question|Problem|Request"),
    "incident.prioritycode": numbered(1, "High|Normal|Low"),
    "contractservicelevelcode": numbered(1, "Gold|Silver|Bronze"),
    "customersatisfactioncode": {
        5: "Very Satisfied", 4: "Satisfied", 3: "Neutral", 2: "Dissatisfied", 1: "Very Dissatisfied",
    },
    "servicestage": numbered(0, "Identify|Research|Resolve"),
    "sla": numbered(1, "In Progress|Nearing Noncompliance|Succeeded|Noncompliant"),
}  # fmt: skip

INCIDENT = f"""
    IncidentId key req=sys
    Title string 200 req=app
    TicketNumber string 100 ro
    Description memo 2000
    CaseOriginCode picklist
    CaseTypeCode picklist
    PriorityCode picklist of=incident.prioritycode default=2
    SeverityCode picklist of=default default=1
    ContractServiceLevelCode picklist
    CustomerSatisfactionCode picklist
    IncidentStageCode picklist of=default default=1
    ServiceStage picklist
    IsEscalated bool
    EscalatedOn datetime ro
    FollowupBy datetime
    ResolveBy datetime
    ResponseBy datetime
    ResolveBySLAStatus picklist of=sla
    FirstResponseSLAStatus picklist of=sla
    FirstResponseSent bool
    CustomerContacted bool
    ActivitiesComplete bool
    CheckEmail bool
    BlockedProfile bool
    DecrementEntitlementTerm bool
    FollowUpTaskCreated bool ro
    IsDecrementing bool
    RouteCase bool
    ActualServiceUnits int
    BilledServiceUnits int
    OnHoldTime int ro
    LastOnHoldTime datetime
    NumberOfChildIncidents int ro
    Merged bool ro
    EmailAddress string 100
    ProductSerialNumber string 100
    SentimentValue double
    InfluenceScore double
    CustomerId lookup to=account:customerid_account,contact:customerid_contact req=sys back=account:incident_customer_accounts,contact:incident_customer_contacts cascade
    PrimaryContactId lookup to=contact:primarycontactid back=contact:contact_as_primary_contact
    ResponsibleContactId lookup to=contact:responsiblecontactid back=contact:contact_as_responsible_contact
    ParentCaseId lookup to=incident:parentcaseid back=incident:incident_parent_incident
    MasterId lookup ro to=incident:masterid back=incident:incident_master_incident
    ProductId lookup to=product:productid back=product:product_incidents
    SubjectId lookup to=subject:subjectid back=subject:subject_incidents
    {PROCESS}{CURRENCY}{OWNED}{state("incident")}{SYSTEM}
"""

ENTITIES: list[Facts] = [
    {
        "name": "incident", "set": "incidents", "primary_name": "title", "code": 112, "columns": INCIDENT,
        "tracked": True, "number": "ticketnumber CAS",
    },
]  # fmt: skip
