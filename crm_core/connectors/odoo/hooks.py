"""What an automation rule of Odoo posts ("Send Webhook Notification"), and what proves that it comes from there.

Odoo signs nothing; the only proof is a text of ours in the address that a person enters there (a header can't be set). One
change is posted several times (13 times for a create, seen of 19.0), many-to-ones as plain ids, and nothing is posted
again that was not taken: so an event is a hint to read the record, and pulls go on.
"""

from collections.abc import Mapping
from typing import Any

from crm_core.connector import Event, Hook
from crm_core.connectors.odoo.models import MODELS
from crm_core.connectors.odoo.models.common import SYSTEM
from crm_core.errors import BadAnswer
from crm_core.protocols.signatures import AnyOf, HeaderToken, QueryToken

PROOF = AnyOf((QueryToken("token"), HeaderToken("x-hub-token")))
"""The parameter of the address, or the header X-Hub-Token where a proxy adds one."""


def parse(hook: Hook) -> list[Event]:
    """The record of each entity that a post may be about: the model says that it is one of several, a read says which.

    Raises BadAnswer for what no automation rule posts.
    """
    told = hook.json()
    model, rid = (told.get("_model"), told.get("_id")) if isinstance(told, Mapping) else (None, None)
    if not isinstance(model, str) or not isinstance(rid, int) or isinstance(rid, bool) or rid < 1:
        raise BadAnswer("The post names no _model and _id.", system=SYSTEM)
    return [
        Event(entity, str(rid), _when(told))
        for entity, each in MODELS.items()
        if each.remote == model and _may_be(told, each.domain)
    ]


def _may_be(told: Mapping[str, Any], domain: list[Any]) -> bool:
    """Whether a post contradicts none of an entity's plain conditions, as far as it tells their fields."""
    for name, sign, wanted in domain:
        if name in told:
            value = told[name]
            if (sign == "=" and value != wanted) or (sign == "in" and value not in wanted):
                return False
    return True


def _when(told: Mapping[str, Any]) -> str:
    """The time of the change, if the rule posts it with its microseconds: then it is the same for all posts of one
    change, and of no other.
    """
    text = told.get("write_date")
    return f"{text[:10]}T{text[11:]}Z" if isinstance(text, str) and len(text) > 20 else ""
