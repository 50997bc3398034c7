"""The states of each table, their reasons, and how a row gets from one to another."""

from sandbox.dynamics365.tables.common import Choices, Facts

# State label: reason label, ... ; the first reason of a state is its default. A new row has the first of all.
STATES: dict[str, str] = {
    "account": "0 Active: 1 Active; 1 Inactive: 2 Inactive",
    "contact": "0 Active: 1 Active; 1 Inactive: 2 Inactive",
    "transactioncurrency": "0 Active: 1 Active; 1 Inactive: 2 Inactive",
    "uomschedule": "0 Active: 1 Active; 1 Inactive: 2 Inactive",
    "pricelevel": "0 Active: 100001 Active; 1 Inactive: 100002 Inactive",
    "lead": "0 Open: 1 New, 2 Contacted; 1 Qualified: 3 Qualified; "
    "2 Disqualified: 4 Lost, 5 Cannot Contact, 6 No Longer Interested, 7 Canceled",
    "opportunity": "0 Open: 1 In Progress, 2 On Hold; 1 Won: 3 Won; 2 Lost: 4 Canceled, 5 Out-Sold",
    "incident": "0 Active: 1 In Progress, 2 On Hold, 3 Waiting for Details, 4 Researching; "
    "1 Resolved: 5 Problem Solved, 1000 Information Provided; 2 Canceled: 6 Canceled, 2000 Merged",
    "product": "0 Active: 1 Active; 1 Retired: 2 Retired; 2 Draft: 0 Draft; 3 Under Revision: 3 Under Revision",
    "quote": "0 Draft: 1 In Progress; 1 Active: 2 In Progress, 3 Open; 2 Won: 4 Won; "
    "3 Closed: 5 Lost, 6 Canceled, 7 Revised",
    "salesorder": "0 Active: 1 New, 2 Pending; 1 Submitted: 3 In Progress; 2 Canceled: 4 No Money; "
    "3 Fulfilled: 100001 Complete, 100002 Partial; 4 Invoiced: 100003 Invoiced",
    "invoice": "0 Active: 1 New, 2 Partially Shipped, 4 Billed, 5 Booked, 6 Installed; "
    "1 Closed (deprecated): 3 Canceled (deprecated), 7 Paid in Full (deprecated); "
    "2 Paid: 100001 Complete, 100002 Partial; 3 Canceled: 100003 Canceled",
    "campaign": "0 Active: 0 Proposed, 1 Ready To Launch, 2 Launched, 3 Completed, 4 Canceled, 5 Suspended; "
    "1 Inactive: 6 Inactive",
    "task": "0 Open: 2 Not Started, 3 In Progress, 4 Waiting on someone else, 7 Deferred; "
    "1 Completed: 5 Completed; 2 Canceled: 6 Canceled",
    "phonecall": "0 Open: 1 Open; 1 Completed: 2 Made, 4 Received; 2 Canceled: 3 Canceled",
    "email": "0 Open: 1 Draft, 8 Failed; 1 Completed: 2 Completed, 3 Sent, 4 Received, 6 Pending Send, 7 Sending; "
    "2 Canceled: 5 Canceled",
    "appointment": "0 Open: 1 Free, 2 Tentative; 1 Completed: 3 Completed; 2 Canceled: 4 Canceled; "
    "3 Scheduled: 5 Busy, 6 Out of Office",
    "activitypointer": "0 Open: 1 Open; 1 Completed: 2 Completed; 2 Canceled: 3 Canceled; 3 Scheduled: 4 Scheduled",
    "closing": "1 Completed: 2 Completed; 0 Open: 1 Open; 2 Canceled: 3 Canceled",
}

# closed: states in which a row is read-only. final: no update leads out of them. by: states that an update cannot
# set, with the message that does. merged: what a row becomes that was merged into another.
RULES: dict[str, Facts] = {
    "account": {"merged": (1, 2)},
    "contact": {"merged": (1, 2)},
    "lead": {"merged": (2, 7)},
    "incident": {"closed": (1, 2), "by": {1: "CloseIncident"}, "merged": (2, 2000)},
    "opportunity": {"closed": (1, 2), "by": {1: "WinOpportunity", 2: "LoseOpportunity"}},
    "quote": {"closed": (2, 3), "final": (2, 3), "by": {2: "WinQuote", 3: "CloseQuote"}},
    "salesorder": {"by": {2: "CancelSalesOrder", 3: "FulfillSalesOrder"}},
    "task": {"closed": (1, 2)},
    "phonecall": {"closed": (1, 2)},
    "email": {"closed": (1, 2)},
    "appointment": {"closed": (1, 2)},
}

# Actions that close a row: they take its new status reason and a row of their own, which names it by a lookup.
# starts: states that they start from. sets: column of the row = column of the closing row, if that has a value.
_CASE: Facts = {
    "table": "incident",
    "part": "IncidentResolution",
    "closing": "incidentresolution",
    "starts": (0,),
}
_DEAL: Facts = {
    "table": "opportunity", "part": "OpportunityClose", "closing": "opportunityclose", "starts": (0,),
    "sets": {"actualvalue": "actualrevenue", "actualclosedate": "actualend"},
}  # fmt: skip
_QUOTE: Facts = {
    "table": "quote", "part": "QuoteClose", "closing": "quoteclose", "starts": (1,), "sets": {"closedon": "actualend"},
}  # fmt: skip
_ORDER: Facts = {"table": "salesorder", "part": "OrderClose", "closing": "orderclose", "starts": (0, 1)}
ACTIONS: list[Facts] = [
    {"name": "CloseIncident", "state": 1, **_CASE},
    {"name": "WinOpportunity", "state": 1, **_DEAL},
    {"name": "LoseOpportunity", "state": 2, **_DEAL},
    {"name": "WinQuote", "state": 2, **_QUOTE},
    {"name": "CloseQuote", "state": 3, **_QUOTE},
    {"name": "CancelSalesOrder", "state": 2, **_ORDER},
    {"name": "FulfillSalesOrder", "state": 3, **_ORDER},
]


def choices() -> dict[str, Choices]:
    """The states and reasons of every table as choices ``table.statecode`` and ``table.statuscode``."""
    found: dict[str, Choices] = {}
    for table, text in STATES.items():
        states: Choices = {}
        reasons: Choices = {}
        for part in text.split("; "):
            head, _, tail = part.partition(": ")
            number, _, label = head.partition(" ")
            states[int(number)] = label
            for reason in tail.split(", "):
                value, _, name = reason.partition(" ")
                reasons[int(value)] = (name, int(number))
        found |= {f"{table}.statecode": states, f"{table}.statuscode": reasons}
    return found
