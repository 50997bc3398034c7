"""Leads and opportunities. Lengths and values: Common Data Model (crmCommon, crmCommon/sales)."""

from sandbox.dynamics365.tables.common import (
    CURRENCY,
    MONEY,
    OWNED,
    PROCESS,
    SYSTEM,
    Choices,
    Facts,
    address,
    amounts,
    numbered,
    state,
)
from sandbox.dynamics365.tables.documents import LINE, TOTALS

OPTIONS: dict[str, Choices] = {
    "leadsourcecode": numbered(
        1,
        "Advertisement|Employee Referral|External Referral|Partner|Public Relations|Seminar|Trade Show|Web|Word of Mouth|Other",
    ),
    "lead.salesstage": {0: "Qualify"},
    "opportunity.salesstage": numbered(0, "Qualify|Develop|Propose|Close"),
}

SELLING = """
    BudgetStatus picklist
    ConfirmInterest bool
    DecisionMaker bool
    EvaluateFit bool
    InitialCommunication picklist
    Need picklist
    OnHoldTime int ro
    LastOnHoldTime datetime
    ParticipatesInWorkflow bool
    PriorityCode picklist of=default default=1
    PurchaseProcess picklist
    PurchaseTimeFrame picklist of=timeframe
    QualificationComments memo 2000
    SalesStageCode picklist of=default default=1
    ScheduleFollowUp_Prospect datetime
    ScheduleFollowUp_Qualify datetime
    TimeSpentByMeOnEmailAndMeetings string 1250 ro
"""

LEAD = f"""
    LeadId key req=sys
    Subject string 300 req=app
    Salutation string 100
    FirstName string 50 req=rec
    MiddleName string 50
    LastName string 50 req=app
    FullName string 160 ro
    JobTitle string 100
    CompanyName string 100 req=rec
    EMailAddress1 string 100
    EMailAddress2 string 100
    EMailAddress3 string 100
    MobilePhone string 20
    Telephone1 string 50
    Telephone2 string 50
    Telephone3 string 50
    Fax string 50
    Pager string 20
    WebSiteUrl string 200
    LeadSourceCode picklist
    LeadQualityCode picklist of=rating default=2
    IndustryCode picklist
    SIC string 20
    NumberOfEmployees int
    EstimatedValue double
    EstimatedCloseDate date
    {amounts("EstimatedAmount", "BudgetAmount", "Revenue")}
    Description memo 2000
    PreferredContactMethodCode picklist default=1
    DoNotPhone bool
    DoNotFax bool
    DoNotEMail bool
    DoNotBulkEMail bool
    DoNotPostalMail bool
    DoNotSendMM bool
    FollowEmail bool
    LastUsedInCampaign datetime
    SalesStage picklist of=lead.salesstage
    Merged bool ro
    YomiCompanyName string 100
    YomiFirstName string 150
    YomiLastName string 150
    CustomerId lookup to=account:customerid_account,contact:customerid_contact back=account:lead_customer_accounts,contact:lead_customer_contacts
    ParentAccountId lookup to=account:parentaccountid back=account:lead_parent_account
    ParentContactId lookup to=contact:parentcontactid back=contact:lead_parent_contact
    CampaignId lookup to=campaign:campaignid back=campaign:campaign_leads
    MasterId lookup ro to=lead:masterid back=lead:lead_master_lead
    QualifyingOpportunityId lookup to=opportunity:qualifyingopportunityid back=opportunity:lead_qualifying_opportunity
    {SELLING}{PROCESS}{address(1, 100)}{address(2, 100)}{MONEY}{OWNED}{state("lead")}{SYSTEM}
"""

OPPORTUNITY = f"""
    OpportunityId key req=sys
    Name string 300 req=app
    Description memo 2000
    {amounts("EstimatedValue", "ActualValue", "BudgetAmount")}
    EstimatedCloseDate date
    ActualCloseDate date
    CloseProbability int max=100 min=0
    StepName string 200
    StepId guid
    SalesStage picklist of=opportunity.salesstage
    OpportunityRatingCode picklist of=rating default=2
    IsRevenueSystemCalculated bool
    TimeLine picklist of=timeframe
    EmailAddress string 100
    CurrentSituation memo 2000
    CustomerNeed memo 2000
    CustomerPainPoints memo 2000
    ProposedSolution memo 2000
    QuoteComments memo 2000
    FinalDecisionDate date
    ScheduleProposalMeeting datetime
    CaptureProposalFeedback bool
    CompleteFinalProposal bool
    CompleteInternalReview bool
    DevelopProposal bool
    FileDebrief bool
    IdentifyCompetitors bool
    IdentifyCustomerContacts bool
    IdentifyPursuitTeam bool
    PresentFinalProposal bool
    PresentProposal bool
    PursuitDecision bool
    ResolveFeedback bool
    SendThankYouNote bool
    CustomerId lookup to=account:customerid_account,contact:customerid_contact back=account:opportunity_customer_accounts,contact:opportunity_customer_contacts
    ParentAccountId lookup to=account:parentaccountid back=account:opportunity_parent_account
    ParentContactId lookup to=contact:parentcontactid back=contact:opportunity_parent_contact
    OriginatingLeadId lookup to=lead:originatingleadid back=lead:opportunity_originating_lead
    CampaignId lookup to=campaign:campaignid back=campaign:campaign_opportunities
    PriceLevelId lookup to=pricelevel:pricelevelid back=pricelevel:price_level_opportunties
    {TOTALS}{SELLING}{PROCESS}{CURRENCY}{OWNED}{state("opportunity")}{SYSTEM}
"""

ENTITIES: list[Facts] = [
    {
        "name": "lead", "set": "leads", "primary_name": "fullname", "code": 4, "columns": LEAD, "tracked": True,
        "duplicates": "emailaddress1",
    },
    {
        "name": "opportunity", "set": "opportunities", "primary_name": "name", "code": 3, "columns": OPPORTUNITY,
        "tracked": True,
    },
    {
        "name": "opportunityproduct", "schema": "OpportunityProduct", "set": "opportunityproducts",
        "primary_name": "opportunityproductname", "code": 1083, "lines": "opportunityid", "tracked": True,
        "columns": f"""
            OpportunityProductId key req=sys
            OpportunityProductName string 100 ro
            OpportunityId lookup to=opportunity:opportunityid req=sys back=opportunity:product_opportunities parental
            OpportunityStateCode int ro
            ProductId lookup to=product:productid back=product:product_opportunities_product
            {LINE}
        """,
    },
]  # fmt: skip
