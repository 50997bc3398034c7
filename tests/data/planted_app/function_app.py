"""The hub's own app with two bugs in it, whose messages hold a record's value; and two ways in for a test.

A record called "bug ..." breaks the merge, one called "odd ..." breaks its answer. `planted/tick` is the timer's
function now, `planted/log` writes a line as careless code would.
"""

import logging

import azure.functions as func

from crm_core.functions import crm
from crm_core.functions.app import build
from crm_core.sync import merge

first_seen, item = merge.first_seen, crm.item_of


def broken_merge(record_id, entity, side, sides, snapshot, run):
    name = str((snapshot.change.fields or {}).get("name"))
    if name.startswith("bug "):
        raise KeyError(name)
    return first_seen(record_id, entity, side, sides, snapshot, run)


def broken_item(opened, entity, change, **more):
    name = str((change.fields or {}).get("name"))
    if name.startswith("odd "):
        try:
            int(name)
        except ValueError as error:
            raise RuntimeError(f"can't read {change.raw}") from error
    return item(opened, entity, change, **more)


merge.first_seen, crm.item_of = broken_merge, broken_item
app = build()
(tick,) = (
    each._function.get_user_function()
    for each in app._function_builders
    if each._function.get_function_name() == "tick"
)


@app.function_name("planted")
@app.route("planted/{what}", auth_level=func.AuthLevel.ANONYMOUS, methods=["POST"])
def planted(req: func.HttpRequest) -> func.HttpResponse:
    if req.route_params["what"] == "tick":
        tick(None)
    else:
        logging.getLogger("crm_core.planted").info("careless: %s", req.get_body().decode())
    return func.HttpResponse("done")
