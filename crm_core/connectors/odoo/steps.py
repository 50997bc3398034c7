"""Changes of state that Odoo makes by a method, not by a value: what to call, from which state. Facts only.

Sources: Odoo 19, crm/models/crm_lead.py (`action_set_won`, `action_set_lost`, `action_unarchive`), mail/models/mail_activity.py
(`action_done`) and sale/models/sale_order.py (`action_confirm`, `action_cancel`, `action_draft`, `action_quotation_sent`).
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Call:
    """A method of the record. `context`: what it is told besides."""

    method: str
    context: Mapping[str, Any] = field(default_factory=dict)


CANCEL = Call("action_cancel", {"disable_cancel_warning": True})  # before 17 a question would come instead
DRAFT, SENT, CONFIRM = Call("action_draft"), Call("action_quotation_sent"), Call("action_confirm")
_SALE: Mapping[tuple[str, str], tuple[Call, ...]] = {
    ("draft", "sent"): (SENT,),
    ("draft", "sale"): (CONFIRM,),
    ("draft", "cancel"): (CANCEL,),
    ("sent", "draft"): (CANCEL, DRAFT),
    ("sent", "sale"): (CONFIRM,),
    ("sent", "cancel"): (CANCEL,),
    ("sale", "draft"): (CANCEL, DRAFT),
    ("sale", "sent"): (CANCEL, DRAFT, SENT),
    ("sale", "cancel"): (CANCEL,),
    ("cancel", "draft"): (DRAFT,),
    ("cancel", "sent"): (DRAFT, SENT),
    ("cancel", "sale"): (DRAFT, CONFIRM),
}
UNARCHIVE, WON, LOST = Call("action_unarchive"), Call("action_set_won"), Call("action_set_lost")
REOPEN = Call("")
"""No method: the first stage that does not mean won is written."""
_LEAD: Mapping[tuple[str, str], tuple[Call, ...]] = {
    ("open", "won"): (WON,),
    ("open", "lost"): (LOST,),
    ("won", "open"): (REOPEN,),
    ("won", "lost"): (REOPEN, LOST),
    ("lost", "open"): (UNARCHIVE,),
    ("lost", "won"): (UNARCHIVE, WON),
}
DONE = "done"
# `action_cancel` of an activity deletes it: that is what a delete does here.
_ACTIVITY: Mapping[tuple[str, str], tuple[Call, ...]] = {
    ("open", DONE): (Call("action_done"),),
    (DONE, "open"): (UNARCHIVE,),
}
STEPS: Mapping[str, Mapping[tuple[str, str], tuple[Call, ...]]] = {
    "sale.order": _SALE,
    "crm.lead": _LEAD,
    "mail.activity": _ACTIVITY,
}
"""By model: (state, wanted state) -> what leads there."""
FIRST = {"sale.order": "draft", "crm.lead": "open", "mail.activity": "open"}
"""The state of a new record."""
OPENING = frozenset({"draft", "sent", "open"})
"""States in which a record can be changed: to get there comes before the other values of a write, else after them."""
