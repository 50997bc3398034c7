"""Cases and activities: columns, lengths, choices.

Source: Microsoft's Common Data Model (crmCommon: service, activities), and the Web API's entity and action reference.
"""

from dataclasses import replace

from crm_core.connectors.dynamics365.tables.common import (
    CUSTOMER,
    DESCRIPTION,
    OWNER,
    Closing,
    Table,
    instant,
    ref,
    ref_to_several,
    states,
    table,
    table_of,
)
from crm_core.model.entities import ACTIVITY, CASE
from crm_core.model.field_map import FieldMap

CASES = table_of(
    CASE,
    FieldMap("title", "title", length=200),
    FieldMap("number", "ticketnumber", writable=False),
    CUSTOMER,
    ref("contact_id", "primarycontactid", "contact"),
    # 2483 is Facebook, 3986 Twitter.
    FieldMap(
        "origin",
        "caseorigincode",
        names={1: "phone", 2: "email", 3: "web", 2483: "social", 3986: "social"},
    ),
    FieldMap("kind", "casetypecode", names={1: "question", 2: "problem", 3: "request"}),
    FieldMap("priority", "prioritycode", names={1: "high", 2: "normal", 3: "low"}),
    DESCRIPTION,
    ref("product_id", "productid", "product"),
    # The subject of the IncidentResolution that CloseIncident makes; the case itself does not tell it.
    FieldMap("resolution", "resolution", length=200, readable=False),
    instant("due_at", "resolveby"),
    OWNER,
    *states({0: "open", 1: "resolved", 2: "canceled"}),
    closings={"resolved": Closing("CloseIncident", "IncidentResolution", -1, "Resolved", text="resolution")},
    locked=frozenset({"resolved", "canceled"}),
    merges=True,
)

_REGARDING = ("account", "contact", "lead", "opportunity", "case", "quote", "order", "invoice", "campaign")
_STATES = {0: "open", 1: "done", 2: "canceled"}
_PRIORITY = FieldMap("priority", "prioritycode", names={0: "low", 1: "normal", 2: "high"})
_DIRECTION = FieldMap("direction", "directioncode", names={True: "out", False: "in"})
_KINDS = {"task": "task", "phonecall": "call", "email": "email", "appointment": "meeting"}


def _activity(logical: str, ends: str, names: dict[int, str], *fields: FieldMap, reason: int = 1) -> Table:
    """The table of one kind of activity.

    `ends`: the canonical field that its scheduled end is. `names`: its states, the open one first, and `reason` the
    status reason of that.
    """
    return table(
        ACTIVITY,
        FieldMap("kind", "activitytypecode", names=_KINDS, writable=False),
        FieldMap("subject", "subject", length=200),
        DESCRIPTION,
        instant("starts_at", "scheduledstart"),
        instant(ends, "scheduledend"),
        instant("completed_at", "actualend"),
        _PRIORITY,
        *fields,
        ref_to_several("regarding_id", "regardingobjectid", f"regardingobjectid_{{}}_{logical}", _REGARDING),
        OWNER,
        *states(names),
        logical=logical,
        remote=f"{logical}s",
        key="activityid",
        # Done and canceled activities can't be written until they are open again.
        locked=frozenset({"done", "canceled"}),
        reopened={"statecode": next(iter(names)), "statuscode": reason},
        constant={"activitytypecode": logical},
    )


KINDS = {
    "task": _activity("task", "due_at", _STATES, reason=2),
    "call": _activity("phonecall", "due_at", _STATES, _DIRECTION),
    "email": _activity("email", "due_at", _STATES, _DIRECTION),
    # 3 is Scheduled, which an appointment is from the start.
    "meeting": _activity(
        "appointment",
        "ends_at",
        {3: "open", **_STATES},
        FieldMap("location", "location", length=400),
        reason=5,
    ),
}
_EVERY = _activity("activitypointer", "due_at", {**_STATES, 3: "open"})
ACTIVITIES = replace(
    _EVERY,
    fields=(
        FieldMap("kind", "activitytypecode", names=_KINDS),
        *(each for each in _EVERY.fields if each.field != "kind"),
        instant("ends_at", "scheduledend"),
        _DIRECTION,
        FieldMap("location", "location", length=400),
    ),
    navigations=(),
    locked=frozenset(),
    constant={},
    kinds=KINDS,
)
"""What the kinds have in common is listed from here; the rest is read and written in the table of the kind."""
