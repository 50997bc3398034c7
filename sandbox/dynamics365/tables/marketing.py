"""Campaigns. Columns: the vendor's table reference."""

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
    "campaign.typecode": numbered(1, "Advertisement|Direct Marketing|Event|Co-branding|Other"),
}

ENTITIES: list[Facts] = [
    {
        "name": "campaign", "set": "campaigns", "primary_name": "name", "code": 4400, "tracked": True,
        "number": "codename CMP",
        "columns": f"""
            CampaignId key req=sys
            Name string 128 req=app
            CodeName string 32
            TypeCode picklist of=campaign.typecode default=1
            ProposedStart date
            ProposedEnd date
            ActualStart date
            ActualEnd date
            {amounts("BudgetedCost", "OtherCost", "ExpectedRevenue")}
            {amounts("TotalActualCost", "TotalCampaignActivityActualCost", facts="ro")}
            ExpectedResponse int
            Objective memo 2000
            Description memo 2000
            Message string 256
            PromotionCodeName string 128
            IsTemplate bool once
            PriceListId lookup to=pricelevel:pricelistid back=pricelevel:PriceList_Campaigns
            {PROCESS}{CURRENCY}{OWNED}{state("campaign")}{SYSTEM}
        """,
    },
]  # fmt: skip
