"""The way back from a run."""

from typing import TYPE_CHECKING

from crm_core.functions import runs
from crm_core.functions.endpoint import route
from crm_core.functions.web import Call, Reply, Role

if TYPE_CHECKING:
    from crm_core.hub import Hub


@route("POST", "/api/runs/<run_id>/undo", role=Role.OPERATOR, answer=202)
def undo(call: Call) -> Reply:
    """Plans to give back what a run changed; follow it at Operation-Location, and have it done by its /apply.

    Fields that somebody has changed since, and records that the run made and somebody has touched since, stay and are listed.
    What the history tells nothing of any more is told as a number under `erased`; where that is all, the plan fails.
    409 for a run that has not ended or is too old to be known, 400 for one that changes no stored record.
    """
    from crm_core.sync.undoing import starting

    hub: Hub = call.hub
    plan = starting.start(hub.engine, call.tenant, runs.find(call), call.principal.id)
    return runs.accepted(call, plan)
