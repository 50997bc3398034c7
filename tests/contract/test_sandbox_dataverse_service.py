"""Cases and campaigns of the Dataverse sandbox, and how people's changes differ from a client's, by raw HTTP."""

import json
import uuid
from decimal import Decimal

import pytest

from sandbox.dynamics365 import Dataverse
from sandbox.testing import options, running, signed_in

API = "/api/data/v9.2"


@pytest.fixture(scope="module")
def client():
    with running(Dataverse()) as sandbox, signed_in(sandbox) as client:
        yield client


def create(client, set_name, **values):
    answer = client.call("POST", f"{API}/{set_name}", values)
    assert answer.status == 204, answer.body
    return answer.headers["OData-EntityId"][-37:-1]


def read(client, path, **wanted):
    answer = client.call("GET", f"{API}/{path}" + options(**wanted))
    assert answer.status == 200, answer.body
    return json.loads(answer.body, parse_float=Decimal)


def patch(client, path, **values):
    return client.call("PATCH", f"{API}/{path}", values, {"If-Match": "*"})


def refused(answer, status, code):
    assert (answer.status, answer.code) == (status, code), answer.body
    return answer.json()["error"]["message"]


@pytest.fixture
def account(client):
    return create(client, "accounts", name="Customer")


@pytest.fixture
def case(client, account):
    return create(
        client, "incidents", title="Broken", **{"customerid_account@odata.bind": f"/accounts({account})"}
    )


def close(client, key, status=5, **more):
    told = {"subject": "Done", "incidentid@odata.bind": f"/incidents({key})", **more}
    return client.call("POST", f"{API}/CloseIncident", {"IncidentResolution": told, "Status": status})


def test_a_case_needs_a_customer_and_gets_number_and_defaults(client, account):
    assert refused(client.call("POST", f"{API}/incidents", {"title": "x"}), 400, "0x80040203") == (
        "You should specify a parent contact or account."
    )
    contact = create(client, "contacts", lastname="Caller")
    bind = {"customerid_contact@odata.bind": f"/contacts({contact})"}
    key = create(client, "incidents", title="x", caseorigincode=2483, casetypecode=2, **bind)
    row = client.call(
        "GET", f"{API}/incidents({key})", headers={"Prefer": 'odata.include-annotations="*"'}
    ).json()
    assert row["ticketnumber"].startswith("CAS-")
    assert (row["statecode"], row["statuscode"], row["prioritycode"], row["isescalated"]) == (0, 1, 2, False)
    assert row["_customerid_value"] == contact
    assert row["_customerid_value@Microsoft.Dynamics.CRM.lookuplogicalname"] == "contact"
    assert (
        row["_customerid_value@Microsoft.Dynamics.CRM.associatednavigationproperty"] == "customerid_contact"
    )
    assert row["caseorigincode@OData.Community.Display.V1.FormattedValue"] == "Facebook"
    assert (
        patch(
            client, f"incidents({key})", **{"customerid_account@odata.bind": f"/accounts({account})"}
        ).status
        == 204
    )
    assert read(client, f"incidents({key})", select="_customerid_value")["_customerid_value"] == account
    refused(patch(client, f"incidents({key})", customerid_account=None), 400, "0x80040216")
    for name, value in (("ticketnumber", "T-1"), ("escalatedon", "2026-01-01T00:00:00Z"), ("merged", True)):
        assert name in refused(patch(client, f"incidents({key})", **{name: value}), 400, "0x80048d19")


@pytest.mark.parametrize("change", [{"statecode": 1, "statuscode": 5}, {"statecode": 1}])
def test_a_case_is_not_resolved_by_an_update_nor_made_resolved(client, account, case, change):
    assert "use the CloseIncidentRequest message" in refused(
        patch(client, f"incidents({case})", **change), 400, "0x80048408"
    )
    bind = {"customerid_account@odata.bind": f"/accounts({account})"}
    refused(client.call("POST", f"{API}/incidents", {"title": "x", **bind, **change}), 400, "0x80048408")


@pytest.mark.parametrize(
    "change", [{"statuscode": 5}, {"statecode": 0, "statuscode": 6}, {"statecode": 2, "statuscode": 1}]
)
def test_reasons_belong_to_their_state(client, case, change):
    refused(patch(client, f"incidents({case})", **change), 400, "0x80048408")


def test_closing_needs_every_part_right(client, case, account):
    where = {"incidentid@odata.bind": f"/incidents({case})"}
    calls = [
        ({"IncidentResolution": {"subject": "x", **where}}, "0x80048d19"),
        ({"Status": 5}, "0x80040203"),
        ({"Status": 5, "IncidentResolution": {"subject": "x"}}, "0x80040203"),
        ({"Status": 5, "IncidentResolution": {"subject": "x", "nonsense": 1, **where}}, "0x80048d19"),
        ({"Status": 5, "IncidentResolution": {"subject": "x", **where}, "More": 1}, "0x80048d19"),
        ({"Status": "5x", "IncidentResolution": {"subject": "x", **where}}, "0x80048d19"),
        ({"Status": 6, "IncidentResolution": {"subject": "x", **where}}, "0x80048408"),
        ({"Status": 99, "IncidentResolution": {"subject": "x", **where}}, "0x80048408"),
        (
            {"Status": 5, "IncidentResolution": {"incidentid@odata.bind": f"/accounts({account})"}},
            "0x80048d19",
        ),
    ]
    for body, code in calls:
        refused(client.call("POST", f"{API}/CloseIncident", body), 400, code)
    refused(close(client, str(uuid.uuid4())), 404, "0x80040217")
    assert client.call("GET", f"{API}/CloseIncident").status == 405
    assert read(client, f"incidents({case})", select="statecode")["statecode"] == 0
    assert read(client, "incidentresolutions", filter=f"_incidentid_value eq {case}")["value"] == []


def test_a_resolved_case_is_read_only_until_it_is_opened_again(client, case):
    path = f"incidents({case})"
    version = read(client, path, select="versionnumber")["versionnumber"]
    assert close(client, case, 1000, description="Reset the box", timespent=5).status == 204
    row = read(
        client,
        path,
        select="statecode,statuscode,versionnumber",
        expand="Incident_IncidentResolutions($select=subject,description,activitytypecode)",
    )
    assert (row["statecode"], row["statuscode"]) == (1, 1000)
    assert row["versionnumber"] > version
    (left,) = row["Incident_IncidentResolutions"]
    assert (left["description"], left["activitytypecode"]) == ("Reset the box", "incidentresolution")
    refused(close(client, case), 400, "0x80040211")
    refused(patch(client, path, title="Late"), 400, "0x80040220")
    refused(patch(client, path, statecode=2, statuscode=6), 400, "0x80040220")
    refused(client.call("PUT", f"{API}/{path}/title", {"value": "Late"}), 400, "0x80040220")
    assert patch(client, path, statecode=0, statuscode=1, title="Opened").status == 204
    assert close(client, case, -1).status == 204
    assert read(client, path, select="title,statuscode")["statuscode"] == 5
    assert client.call("DELETE", f"{API}/{path}").status == 204


def test_a_case_is_canceled_by_an_update_and_then_read_only(client, case):
    path = f"incidents({case})"
    assert patch(client, path, statecode=2, statuscode=6, title="Never mind").status == 204
    refused(patch(client, path, title="x"), 400, "0x80040220")
    refused(patch(client, path, title="x", statecode=2), 400, "0x80040220")
    assert patch(client, path, statecode=0).status == 204
    assert read(client, path, select="statuscode")["statuscode"] == 1


def test_people_close_in_the_app_which_sends_the_message_for_them(client, case, account):
    assert client.call("PATCH", f"/_sandbox/rows/incident/{case}", {"values": {"statecode": 1}}).status == 200
    assert read(client, f"incidents({case})", select="statuscode")["statuscode"] == 5
    again = client.call("PATCH", f"/_sandbox/rows/incident/{case}", {"values": {"title": "x"}})
    refused(again, 400, "0x80040220")
    wrong = client.call("POST", "/_sandbox/rows/incidentresolution", {"values": {"subject": "x"}})
    refused(wrong, 400, "0x80040800")


def test_a_merged_case_is_canceled_as_merged(client, account):
    bind = {"customerid_account@odata.bind": f"/accounts({account})"}
    one, two = (create(client, "incidents", title=t, **bind) for t in "ab")
    kind = {"@odata.type": "Microsoft.Dynamics.CRM.incident"}
    body = {"Target": {**kind, "incidentid": one}, "Subordinate": {**kind, "incidentid": two}}
    assert client.call("POST", f"{API}/Merge", body).status == 204
    row = read(client, f"incidents({two})", select="statecode,statuscode,merged,_masterid_value")
    assert (row["statecode"], row["statuscode"], row["merged"], row["_masterid_value"]) == (
        2,
        2000,
        True,
        one,
    )
    kind = {"@odata.type": "Microsoft.Dynamics.CRM.product"}
    product = create(client, "products", name="P")
    body = {
        "Target": {**kind, "productid": product},
        "Subordinate": {**kind, "productid": create(client, "products", name="Q")},
    }
    refused(client.call("POST", f"{API}/Merge", body), 400, "0x80040800")


def test_a_list_of_values_is_a_filter_and_unknown_functions_are_named(client, account):
    bind = {"customerid_account@odata.bind": f"/accounts({account})"}
    keys = [create(client, "incidents", title=f"In {n}", prioritycode=n, **bind) for n in (1, 2, 3)]
    mine = f"_customerid_value eq {account}"

    def found(condition):
        rows = read(client, "incidents", select="incidentid", filter=f"{mine} and {condition}")["value"]
        return {r["incidentid"] for r in rows}

    within = "Microsoft.Dynamics.CRM.In(PropertyName='{}',PropertyValues=[{}])"
    assert found(within.format("prioritycode", '"1","3"')) == {keys[0], keys[2]}
    assert found(within.format("incidentid", f'"{keys[1]}"')) == {keys[1]}
    assert found("not " + within.format("title", '"in 1"')) == {keys[1], keys[2]}
    for text, name in (
        (within.replace("In(", "Nonsense(").format("title", '"x"'), "Nonsense"),
        (within.format("nosuch", '"x"'), "nosuch"),
    ):
        answer = client.call("GET", f"{API}/incidents" + options(filter=text))
        assert name in refused(answer, 400, "0x80060888")


def test_a_campaign_has_status_reasons_of_its_own(client):
    key = create(client, "campaigns", name="Autumn", expectedrevenue=10, actualstart="2026-09-01")
    row = read(
        client,
        f"campaigns({key})",
        select="codename,statecode,statuscode,typecode,_transactioncurrencyid_value,actualstart",
    )
    assert row["codename"].startswith("CMP-")
    assert (row["statecode"], row["statuscode"], row["actualstart"]) == (0, 0, "2026-09-01")
    assert row["_transactioncurrencyid_value"]
    assert patch(client, f"campaigns({key})", statuscode=2).status == 204
    refused(patch(client, f"campaigns({key})", statuscode=6), 400, "0x80048408")
    assert patch(client, f"campaigns({key})", statecode=1).status == 204
    assert patch(client, f"campaigns({key})", name="Still writable").status == 204
    refused(patch(client, f"campaigns({key})", totalactualcost=1), 400, "0x80048d19")
    refused(patch(client, f"campaigns({key})", name="x" * 129), 400, "0x80044331")


def test_choices_of_a_table_are_its_own(client):
    at = "EntityDefinitions(LogicalName='incident')/Attributes/Microsoft.Dynamics.CRM."
    picks = read(
        client,
        at + "PicklistAttributeMetadata",
        select="LogicalName",
        expand="OptionSet($select=Options),GlobalOptionSet($select=Options)",
    )["value"]
    by_name = {
        p["LogicalName"]: {
            o["Value"]: o["Label"]["LocalizedLabels"][0]["Label"] for o in p["OptionSet"]["Options"]
        }
        for p in picks
    }
    assert by_name["prioritycode"] == {1: "High", 2: "Normal", 3: "Low"}
    assert by_name["caseorigincode"][3986] == "Twitter"
    (status,) = read(client, at + "StatusAttributeMetadata", select="LogicalName", expand="OptionSet")[
        "value"
    ]
    assert {o["Value"]: o["State"] for o in status["OptionSet"]["Options"]} == {
        1: 0,
        2: 0,
        3: 0,
        4: 0,
        5: 1,
        1000: 1,
        6: 2,
        2000: 2,
    }
    referring = read(
        client,
        "EntityDefinitions(LogicalName='incident')/OneToManyRelationships",
        select="ReferencingEntity,ReferencingAttribute",
    )["value"]
    assert {"incidentresolution", "task", "email"} <= {r["ReferencingEntity"] for r in referring}
    customer = read(
        client,
        "EntityDefinitions(LogicalName='incident')/Attributes(LogicalName='customerid')/Microsoft.Dynamics.CRM.LookupAttributeMetadata",
    )
    assert (customer["AttributeType"], customer["Targets"]) == ("Customer", ["account", "contact"])


@pytest.mark.parametrize(
    ("privilege", "sets"),
    [
        ("prvReadActivity", ["tasks", "phonecalls", "emails", "appointments", "activitypointers"]),
        ("prvReadOrder", ["salesorders", "salesorderdetails"]),
        ("prvReadQuote", ["quotes", "quotedetails"]),
        ("prvReadInvoice", ["invoices", "invoicedetails"]),
        ("prvReadProduct", ["products", "uoms", "uomschedules", "pricelevels"]),
        ("prvReadUser", ["systemusers"]),
    ],
)
def test_some_tables_have_the_privileges_of_another(client, privilege, sets):
    client.call("POST", "/_sandbox/options", {"deny": [privilege]})
    try:
        for each in sets:
            assert privilege in refused(client.call("GET", f"{API}/{each}"), 403, "0x80040220")
        assert client.call("GET", f"{API}/accounts").status == 200
    finally:
        client.call("POST", "/_sandbox/options", {"deny": []})
