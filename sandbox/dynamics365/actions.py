"""Actions that change the state of a row: closing messages, and QualifyLead (Web API: actions)."""

from typing import TYPE_CHECKING, Any

from sandbox.dynamics365 import errors, lifecycle
from sandbox.dynamics365.errors import Refused, bad_payload
from sandbox.dynamics365.org import wire_time
from sandbox.dynamics365.schema import TABLES, Action, Entity
from sandbox.dynamics365.wire import answer
from sandbox.dynamics365.writing import Caller, read_body
from sandbox.frame import Response
from sandbox.store import Row, Values

if TYPE_CHECKING:
    from sandbox.dynamics365.routes import Api, Call

DEFAULT = -1  # the first reason of the state


def close(api: "Api", call: "Call", action: Action) -> Response:
    """Close a row: it takes the state, and a row of its own tells of it."""
    body = read_body(call.request.body)
    part = _parameters(action, body)
    entity, closing = TABLES[action.table], TABLES[action.closing]
    caller = api.caller(call)
    lookup = closing.columns[entity.key]
    told = api.writer.patch(closing, part, None, caller)
    key = told.get(lookup.wire)
    if key is None:
        raise Refused(400, errors.INVALID, f"Required field '{entity.key}' of '{action.part}' is missing.")
    entity, row = api.row(action.table, key)
    api.org.allow("Write", entity)
    state: Values = {"statecode": action.state}
    if body["Status"] != DEFAULT:
        state["statuscode"] = _whole(body["Status"])
    lifecycle.pair(entity, state, action.state, -1, row.id)
    if row.values["statecode"] not in action.starts:
        raise Refused(
            400, errors.NOT_OPEN, f"The {entity.name} is in a state that {action.name} does not start from."
        )
    told["actualend"] = told.get("actualend") or wire_time(api.org.now())
    with api.org.store.transaction():
        api.writer.insert(closing, None, told, caller)
        for name, source in action.sets.items():
            value = told.get(source)
            if value is not None:
                state[name] = value[:10] if entity.columns[name].kind == "date" else value
        api.writer.store(entity, row.id, state, caller)
    return Response(204, {"OData-Version": "4.0"})


def _whole(status: Any) -> int:
    if isinstance(status, bool) or not isinstance(status, int):
        raise bad_payload(f"Cannot convert the literal '{status}' to the expected type 'Edm.Int32'.")
    return status


def _parameters(action: Action, body: Values) -> Values:
    """The closing row of a call; each parameter must be there, and no other."""
    for name in body:
        if name not in (action.part, "Status") and not name.startswith("@"):
            raise bad_payload(
                f"The parameter '{name}' in the request payload is not a valid parameter for the operation '{action.name}'."
            )
    if body.get("Status") is None:
        raise bad_payload(
            f"One or more parameters of the operation '{action.name}' are missing from the request payload. "
            "The missing parameters are: Status."
        )
    if not isinstance(body.get(action.part), dict):
        raise Refused(400, errors.INVALID, f"Required field '{action.part}' is missing.")
    return dict(body[action.part])


LEAD_FLAGS = {"account": "CreateAccount", "contact": "CreateContact", "opportunity": "CreateOpportunity"}
LEAD_MORE = ("OpportunityCurrencyId", "OpportunityCustomerId", "SourceCampaignId")
COPIED = {
    "account": {"companyname": "name", "emailaddress1": "emailaddress1", "telephone1": "telephone1", "websiteurl": "websiteurl"},
    "contact": {
        "firstname": "firstname", "lastname": "lastname", "emailaddress1": "emailaddress1", "telephone1": "telephone1",
        "mobilephone": "mobilephone", "jobtitle": "jobtitle",
    },
    "opportunity": {
        "subject": "name", "estimatedamount": "estimatedvalue", "estimatedclosedate": "estimatedclosedate",
        "description": "description",
    },
}  # fmt: skip


def qualify_lead(api: "Api", call: "Call", entity: Entity, row: Row) -> Response:
    """``leads(id)/Microsoft.Dynamics.CRM.QualifyLead``: makes rows from the lead, and answers with what it made."""
    body = read_body(call.request.body)
    for name in body:
        if name not in (*LEAD_FLAGS.values(), *LEAD_MORE, "Status"):
            raise bad_payload(
                f"The parameter '{name}' in the request payload is not a valid parameter for the operation 'QualifyLead'."
            )
    if missing := [n for n in (*LEAD_FLAGS.values(), "Status") if body.get(n) is None]:
        raise bad_payload(
            "One or more parameters of the operation 'QualifyLead' are missing from the request payload. "
            f"The missing parameters are: {', '.join(missing)}."
        )
    if row.values["statecode"] == 1:
        raise Refused(400, errors.NOT_OPEN, "The lead is already closed.")
    state: Values = {"statecode": 1}
    if body["Status"] != DEFAULT:
        state["statuscode"] = _whole(body["Status"])
    lifecycle.pair(entity, state, 1, -1, row.id)
    caller = api.caller(call)
    made: dict[str, str] = {}
    with api.org.store.transaction():
        for table, flag in LEAD_FLAGS.items():
            if body[flag]:
                made[table] = _from_lead(api, row, table, made, caller)
        if "opportunity" in made:
            state |= {
                "_qualifyingopportunityid_value": made["opportunity"],
                "_qualifyingopportunityid_type": "opportunity",
            }
        api.writer.store(entity, row.id, state, caller)
    value = [{"@odata.type": f"#Microsoft.Dynamics.CRM.{t}", TABLES[t].key: key} for t, key in made.items()]
    return answer(
        200,
        {
            "@odata.context": f"{call.base}/$metadata#Collection(Microsoft.Dynamics.CRM.crmbaseentity)",
            "value": value,
        },
    )


def _from_lead(api: "Api", lead: Row, table: str, made: dict[str, str], caller: Caller) -> str:
    """A row made from a lead: its values, what belongs together, and the way back to the lead."""
    values = {new: lead.values[old] for old, new in COPIED[table].items() if lead.values.get(old) is not None}
    links: Values = {"_originatingleadid_value": lead.id, "_originatingleadid_type": "lead"}
    account = made.get("account") or lead.values.get("_parentaccountid_value")
    contact = made.get("contact") or lead.values.get("_parentcontactid_value")
    if table == "contact" and account:
        links |= {"_parentcustomerid_value": account, "_parentcustomerid_type": "account"}
    if table == "opportunity":
        customer = (account, "account") if account else (contact, "contact")
        links |= {"_customerid_value": customer[0], "_customerid_type": customer[1] if customer[0] else None}
        links |= {"_parentaccountid_value": account, "_parentaccountid_type": "account" if account else None}
        links |= {"_parentcontactid_value": contact, "_parentcontactid_type": "contact" if contact else None}
        for name in ("_campaignid_value", "_campaignid_type"):
            links[name] = lead.values.get(name)
    return api.writer.insert(TABLES[table], None, {**values, **links}, caller)


def bulk_delete(api: "Api", call: "Call") -> Response:
    """``BulkDelete``: the rows that its queries find. The vendor does it later; here it is done before the answer."""
    body = read_body(call.request.body)
    queries = body.get("QuerySet")
    if not isinstance(queries, list) or not all(isinstance(q, dict) for q in queries):
        raise bad_payload("The parameter 'QuerySet' must be a collection of queries.")
    with api.org.store.transaction():
        for query in queries:
            entity = TABLES.get(str(query.get("EntityName")))
            if entity is None or "delete" not in entity.operations:
                raise bad_payload(
                    f"The entity with a name = '{query.get('EntityName')}' cannot be deleted in bulk."
                )
            for key in _wanted(entity, query):
                row = api.org.store.get(entity.name, key)
                if row is not None:
                    api.writer.delete(entity, row, api.caller(call))
    context = f"{call.base}/$metadata#Microsoft.Dynamics.CRM.BulkDeleteResponse"
    return answer(200, {"@odata.context": context, "JobId": api.org.new_id()})


def _wanted(entity: Entity, query: Values) -> list[str]:
    """The ids that a query names; other conditions are a part of Dataverse that this sandbox does not have."""
    conditions = (query.get("Criteria") or {}).get("Conditions") or []
    if len(conditions) != 1 or (conditions[0].get("AttributeName"), conditions[0].get("Operator")) != (
        entity.key,
        "In",
    ):
        raise Refused(
            501, "", f"BulkDelete by anything but a list of '{entity.key}' is not a part of this sandbox."
        )
    return [str(v.get("Value")).lower() for v in conditions[0].get("Values") or []]
