"""What the Dataverse sandbox tells about its tables and columns (EntityDefinitions), by raw HTTP."""

import pytest

from sandbox.dynamics365 import Dataverse
from sandbox.testing import options, running, signed_in

API = "/api/data/v9.2"


def get(client, path):
    answer = client.call("GET", API + path)
    assert answer.status == 200, answer.body
    return answer.json()


@pytest.fixture(scope="module")
def client():
    with running(Dataverse()) as sandbox, signed_in(sandbox) as client:
        yield client


def refused(client, path):
    answer = client.call("GET", API + path)
    assert answer.status == 400, answer.body
    return answer.json()["error"]


def test_table_definitions(client):
    wanted = "EntitySetName,PrimaryIdAttribute,PrimaryNameAttribute,ChangeTrackingEnabled"
    account = get(client, "/EntityDefinitions(LogicalName='account')" + options(select=wanted))
    assert {k: account[k] for k in wanted.split(",")} == {
        "EntitySetName": "accounts", "PrimaryIdAttribute": "accountid", "PrimaryNameAttribute": "name", "ChangeTrackingEnabled": True,
    }  # fmt: skip
    found = get(
        client,
        "/EntityDefinitions"
        + options(select="LogicalName,EntitySetName,PrimaryIdAttribute", filter="LogicalName eq 'contact'"),
    )
    assert [e["EntitySetName"] for e in found["value"]] == ["contacts"]
    assert client.call("GET", f"{API}/EntityDefinitions(LogicalName='nosuch')").status == 404
    assert client.call("GET", f"{API}/EntityDefinitions" + options(select="Nonsense")).status == 400


def test_column_definitions(client):
    at = "/EntityDefinitions(LogicalName='account')/Attributes"
    columns = {c["LogicalName"]: c for c in get(client, at)["value"]}
    name = columns["name"]
    assert (name["SchemaName"], name["AttributeType"], name["MaxLength"]) == ("Name", "String", 160)
    assert name["RequiredLevel"]["Value"] == "ApplicationRequired"
    assert columns["modifiedon"]["IsValidForCreate"] is columns["modifiedon"]["IsValidForUpdate"] is False
    assert columns["modifiedon"]["IsValidForRead"] is True
    assert columns["primarycontactid"]["AttributeType"] == "Lookup"
    assert columns["statecode"]["RequiredLevel"]["Value"] == "SystemRequired"
    # Facts of a type can be selected only after a cast to it.
    assert refused(client, at + options(select="LogicalName,MaxLength"))["message"].endswith(
        "'Microsoft.Dynamics.CRM.AttributeMetadata'."
    )
    texts = get(
        client,
        f"{at}/Microsoft.Dynamics.CRM.StringAttributeMetadata" + options(select="LogicalName,MaxLength"),
    )["value"]
    assert {t["LogicalName"]: t["MaxLength"] for t in texts}["accountnumber"] == 20
    one = get(client, f"{at}(LogicalName='name')")
    assert one["MaxLength"] == 160
    filtered = get(
        client,
        at
        + options(
            select="LogicalName",
            filter="AttributeType eq Microsoft.Dynamics.CRM.AttributeTypeCode'Money' and IsValidForCreate eq true",
        ),
    )
    assert {"revenue", "creditlimit"} <= {c["LogicalName"] for c in filtered["value"]}


def test_choices_are_told_with_values_labels_and_states(client):
    at = "/EntityDefinitions(LogicalName='account')/Attributes"
    picks = get(
        client,
        f"{at}/Microsoft.Dynamics.CRM.PicklistAttributeMetadata"
        + options(select="LogicalName", expand="OptionSet,GlobalOptionSet"),
    )["value"]
    industry = next(p for p in picks if p["LogicalName"] == "industrycode")
    labels = {o["Value"]: o["Label"]["UserLocalizedLabel"]["Label"] for o in industry["OptionSet"]["Options"]}
    assert len(labels) == 33
    assert labels[7] == "Consulting"
    status = get(
        client, f"{at}(LogicalName='statuscode')/Microsoft.Dynamics.CRM.StatusAttributeMetadata/OptionSet"
    )
    assert {o["Value"]: o["State"] for o in status["Options"]} == {1: 0, 2: 1}


def test_navigation_names_can_be_looked_up(client):
    found = get(
        client,
        "/EntityDefinitions(LogicalName='contact')/ManyToOneRelationships"
        + options(
            select="ReferencingAttribute,ReferencingEntityNavigationPropertyName",
            filter="ReferencingAttribute eq 'parentcustomerid'",
        ),
    )
    assert {r["ReferencingEntityNavigationPropertyName"] for r in found["value"]} == {
        "parentcustomerid_account",
        "parentcustomerid_contact",
    }
    keys = get(client, "/EntityDefinitions(LogicalName='account')/Keys")["value"]
    assert (keys[0]["KeyAttributes"], keys[0]["EntityKeyIndexStatus"]) == (["accountnumber"], "Active")


def test_relationships_are_called_like_the_collections_at_their_other_end(client):
    found = get(client, "/RelationshipDefinitions(SchemaName='contact_customer_accounts')")
    assert found["@odata.type"] == "#Microsoft.Dynamics.CRM.OneToManyRelationshipMetadata"
    ends = ("ReferencedEntity", "ReferencingEntity", "ReferencingEntityNavigationPropertyName")
    assert [found[name] for name in ends] == ["account", "contact", "parentcustomerid_account"]
    kind = "RelationshipType eq Microsoft.Dynamics.CRM.RelationshipType'OneToManyRelationship'"
    rows = get(
        client,
        "/RelationshipDefinitions"
        + options(select="SchemaName", filter=f"{kind} and ReferencedEntity eq 'quote'"),
    )
    assert {"quote_details", "quote_orders"} <= {row["SchemaName"] for row in rows["value"]}
    assert client.call("GET", f"{API}/RelationshipDefinitions(SchemaName='nosuch')").status == 404
    assert client.call("POST", f"{API}/RelationshipDefinitions", {}).status == 405
