"""Activities (mail.activity): their types, and the records that they can be at.

Source: Odoo 19, mail/models/mail_activity.py, mail/data/mail_activity_type_data.xml, calendar/data.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from crm_core.connectors.odoo.models.common import (
    ID_FORM,
    OF_STAGE,
    OWNER,
    SYSTEM_FIELDS,
    AnyRecord,
    model,
    text,
)
from crm_core.model.entities import ACTIVITY
from crm_core.model.field_map import FieldMap, Target

KIND = "activity_type_id/kind"
"""What the type of an activity stands for: the type that Odoo brings for it, or else the type's own name."""
TYPES_MODULE = "mail"
TYPES = {
    "mail_activity_data_todo": "task",
    "mail_activity_data_call": "call",
    "mail_activity_data_email": "email",
    "mail_activity_data_meeting": "meeting",
}
"""The types that Odoo brings, by their external ids: their names are translated, and a person may change them."""
CATEGORIES = {"phonecall": "mail_activity_data_call", "meeting": "mail_activity_data_meeting"}
"""What a type of a person's own has in common with one of these: what Odoo does with such an activity."""


@dataclass(frozen=True)
class Document:
    """A model that activities can be at. `field`: tells what a record of it is, by `entities`."""

    field: str
    entities: Mapping[str | bool, str]


DOCUMENTS: Mapping[str, Document] = {
    "res.partner": Document("is_company", {True: "account", False: "contact"}),
    "crm.lead": Document("type", {"lead": "lead", "opportunity": "opportunity"}),
    # "done" is a locked order of 14 to 16. A canceled one may have been either; a quote is what most were.
    "sale.order": Document(
        "state", {"draft": "quote", "sent": "quote", "sale": "order", "done": "order", "cancel": "quote"}
    ),
}
CANCELED = "cancel"
"""The state in which a document is in the lists of quotes and of orders."""
RECORD = "res_id"
"""The number of the record that an activity is at; `res_model` and `res_model_id` tell of which model."""


def _target(entity: str) -> Target:
    place = f"{RECORD}/{entity}"
    return Target(entity, entity, place, "{id}", place)


# Odoo has no notes among them: what is only written down is a message there.
ACTIVITIES = model(
    ACTIVITY,
    "mail.activity",
    FieldMap("kind", KIND, names=TYPES),
    text("subject", "summary"),
    text("description", "note"),
    FieldMap("due_at", "date_deadline", day=True, kept=True),
    FieldMap("completed_at", "date_done", day=True, writable=False),
    AnyRecord(
        "regarding_id",
        RECORD,
        targets=tuple(
            _target(each) for one in DOCUMENTS.values() for each in dict.fromkeys(one.entities.values())
        ),
        kind_native=f"{RECORD}/kind",
        form=ID_FORM,
    ),
    OWNER,
    # Since 19 what is done is archived; before, it is only if its type says so, and else deleted.
    FieldMap("status", OF_STAGE, names={"open": "open", "done": "done"}),
    FieldMap("status_reason", "active", writable=False),
    *SYSTEM_FIELDS,
    module="Discuss",
    states={"open": [["active", "=", True]], "done": [["active", "=", False]]},
    initial="open",
    archived="done",
    sieved=True,
)
