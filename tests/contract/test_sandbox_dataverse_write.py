"""Writing to the Dataverse sandbox by raw HTTP: create, upsert, conditions, lookups, checks, normalisation."""

import json
import uuid
from decimal import Decimal

import pytest

from sandbox.dynamics365 import Dataverse
from sandbox.testing import options, running, signed_in

API = "/api/data/v9.2"
ROW = {"Prefer": "return=representation"}


@pytest.fixture(scope="module")
def sandbox():
    with running(Dataverse()) as sandbox:
        yield sandbox


@pytest.fixture(scope="module")
def client(sandbox):
    with signed_in(sandbox) as client:
        yield client


@pytest.fixture
def account(client):
    """A fresh account; gives its path."""
    return f"{API}/accounts({create(client, name='Fresh')})"


def create(client, set_name="accounts", **values):
    answer = client.call("POST", f"{API}/{set_name}", values)
    assert answer.status == 204, answer.body
    return answer.headers["OData-EntityId"][-37:-1]


def read(client, path, select=""):
    answer = client.call("GET", path + (options(select=select) if select else ""))
    assert answer.status == 200, answer.body
    return json.loads(answer.body, parse_float=Decimal)


def refused(answer, status, code):
    assert (answer.status, answer.code) == (status, code), answer.body
    return answer.json()["error"]["message"]


def test_create_answers_204_with_the_address_or_201_with_the_row(client):
    made = client.call("POST", f"{API}/accounts", {"name": "A"})
    assert (made.status, made.body) == (204, b"")
    assert made.headers["OData-EntityId"].startswith(f"{client.origin}{API}/accounts(")
    row = client.call("POST", f"{API}/accounts?$select=name,createdon", {"name": "B"}, ROW)
    assert row.status == 201
    assert "OData-EntityId" not in row.headers
    assert row.headers["Preference-Applied"] == "return=representation"
    assert set(row.json()) == {"@odata.context", "@odata.etag", "name", "createdon", "accountid"}


def test_the_row_of_an_answer_is_annotated_when_asked(client):
    prefer = {"Prefer": 'return=representation,odata.include-annotations="*"'}
    row = client.call("POST", f"{API}/accounts", {"name": "B", "industrycode": 7}, prefer).json()
    assert row["industrycode@OData.Community.Display.V1.FormattedValue"] == "Consulting"


def test_a_given_id_is_taken_once(client):
    given = str(uuid.uuid4()).upper()
    assert client.call("POST", f"{API}/accounts", {"accountid": given, "name": "A"}).status == 204
    assert read(client, f"{API}/accounts({given})", "name")["accountid"] == given.lower()
    again = client.call("POST", f"{API}/accounts", {"accountid": given, "name": "A"})
    assert refused(again, 412, "0x80040237") == "A record with matching key values already exists."


def test_patch_is_an_upsert(client):
    path = f"{API}/accounts({uuid.uuid4()})"
    assert client.call("PATCH", path, {"name": "made"}).headers["OData-EntityId"] == client.origin + path
    assert client.call("PATCH", path, {"telephone1": "1"}).status == 204
    row = read(client, path, "name,telephone1,versionnumber")
    assert (row["name"], row["telephone1"]) == ("made", "1")
    changed = client.call("PATCH", path + "?$select=name", {"name": "two"}, ROW)
    assert (changed.status, changed.json()["name"]) == (200, "two")
    assert read(client, path, "versionnumber")["versionnumber"] > row["versionnumber"]
    new = client.call("PATCH", f"{API}/accounts({uuid.uuid4()})?$select=name", {"name": "n"}, ROW)
    assert new.status == 201


def test_conditions_make_it_a_pure_update_or_a_pure_create(client, account):
    nowhere = f"{API}/accounts({uuid.uuid4()})"
    refused(client.call("PATCH", nowhere, {"name": "x"}, {"If-Match": "*"}), 404, "0x80040217")
    refused(client.call("PATCH", account, {"name": "x"}, {"If-None-Match": "*"}), 412, "0x80040237")
    assert client.call("PATCH", account, {"name": "y"}, {"If-Match": "*"}).status == 204
    assert client.call("PATCH", nowhere, {"name": "x"}, {"If-None-Match": "*"}).status == 204
    assert client.call("PATCH", nowhere, {"name": "z"}, {"If-None-Match": "null"}).status == 204


def test_an_etag_guards_updates_and_deletes(client, account):
    etag = read(client, account, "name")["@odata.etag"]
    assert client.call("PATCH", account, {"name": "new"}, {"If-Match": etag}).status == 204
    refused(client.call("PATCH", account, {"name": "late"}, {"If-Match": etag}), 412, "0x80060882")
    refused(client.call("DELETE", account, headers={"If-Match": etag}), 412, "0x80060882")
    assert read(client, account, "name")["name"] == "new"
    fresh = read(client, account, "name")["@odata.etag"]
    assert client.call("DELETE", account, headers={"If-Match": fresh}).status == 204


def test_delete_and_delete_again(client, account):
    assert client.call("DELETE", account).status == 204
    refused(client.call("DELETE", account), 404, "0x80040217")
    refused(client.call("GET", account), 404, "0x80040217")


def test_single_properties_are_put_and_deleted(client, account):
    assert client.call("PUT", f"{account}/telephone1", {"value": "555"}).status == 204
    assert read(client, account, "telephone1")["telephone1"] == "555"
    assert client.call("DELETE", f"{account}/telephone1").status == 204
    assert read(client, account, "telephone1")["telephone1"] is None
    assert client.call("PUT", f"{account}/telephone1", {"nonsense": 1}).status == 400
    assert client.call("PUT", f"{account}/nonsense", {"value": 1}).status == 400
    assert client.call("DELETE", f"{account}/modifiedon").status == 400


def test_lookups_are_bound_cleared_and_read(client, account):
    contact = create(client, "contacts", lastname="C")
    column = "_primarycontactid_value"
    for reference in (
        f"/contacts({contact})",
        f"contacts({contact})",
        f"{client.origin}{API}/contacts({contact})",
    ):
        assert client.call("PATCH", account, {"primarycontactid@odata.bind": reference}).status == 204
        assert read(client, account, column)[column] == contact
        assert client.call("PATCH", account, {"primarycontactid": None}).status == 204
        assert read(client, account, column)[column] is None
    assert (
        client.call(
            "PUT",
            f"{account}/primarycontactid/$ref",
            {"@odata.id": f"{client.origin}{API}/contacts({contact})"},
        ).status
        == 204
    )
    assert read(client, account, column)[column] == contact
    assert client.call("DELETE", f"{account}/primarycontactid/$ref").status == 204
    assert read(client, account, column)[column] is None


def test_a_polymorphic_lookup_names_its_target(client):
    parent = create(client, name="P")
    other = create(client, "contacts", lastname="Boss")
    contact = f"{API}/contacts({create(client, 'contacts', lastname='L', **{'parentcustomerid_account@odata.bind': f'/accounts({parent})'})})"
    shown = client.call(
        "GET",
        contact + options(select="_parentcustomerid_value"),
        headers={"Prefer": 'odata.include-annotations="*"'},
    ).json()
    assert shown["_parentcustomerid_value@Microsoft.Dynamics.CRM.lookuplogicalname"] == "account"
    assert (
        client.call("PATCH", contact, {"parentcustomerid_contact@odata.bind": f"/contacts({other})"}).status
        == 204
    )
    assert read(client, contact, "_parentcustomerid_value")["_parentcustomerid_value"] == other
    refused(
        client.call("PATCH", contact, {"parentcustomerid_contact@odata.bind": f"/accounts({parent})"}),
        400,
        "0x80048d19",
    )


def test_a_lookup_by_alternate_key(client, account):
    create(client, name="Keyed", accountnumber="K-1")
    assert (
        client.call("PATCH", account, {"parentaccountid@odata.bind": "/accounts(accountnumber='K-1')"}).status
        == 204
    )
    assert client.call("GET", f"{account}/parentaccountid" + options(select="name")).json()["name"] == "Keyed"


@pytest.mark.parametrize(
    "name", ["PrimaryContactId", "PrimaryContactid", "primaryContactId", "parentcustomerid"]
)
def test_a_navigation_name_in_the_wrong_case_is_undeclared(client, account, name):
    contact = create(client, "contacts", lastname="C")
    answer = client.call("PATCH", account, {f"{name}@odata.bind": f"/contacts({contact})"})
    assert f"An undeclared property '{name}' which only has property annotations" in refused(
        answer, 400, "0x80048d19"
    )


def test_a_lookup_to_nothing_is_404_and_direct_values_are_refused(client, account):
    missing = client.call("PATCH", account, {"primarycontactid@odata.bind": f"/contacts({uuid.uuid4()})"})
    refused(missing, 404, "0x80040217")
    direct = client.call("PATCH", account, {"_primarycontactid_value": str(uuid.uuid4())})
    assert "Navigation properties" in refused(direct, 400, "0x80048d19")


def test_the_owner_can_be_changed_but_not_taken_away(client, account):
    users = client.call("GET", f"{API}/systemusers?$select=fullname").json()["value"]
    me = client.call("GET", f"{API}/WhoAmI").json()["UserId"]
    other = next(u["systemuserid"] for u in users if u["systemuserid"] != me)
    columns = ("_ownerid_value", "_createdby_value", "_modifiedby_value")
    assert {read(client, account, ",".join(columns))[c] for c in columns} == {me}
    assert client.call("PATCH", account, {"ownerid@odata.bind": f"/systemusers({other})"}).status == 204
    assert read(client, account, "_owninguser_value")["_owninguser_value"] == other
    assert client.call("PATCH", account, {"ownerid": None}).status == 400


@pytest.mark.parametrize(
    ("values", "code", "part"),
    [
        ({"nonsense": 1}, "0x80048d19", "The property 'nonsense' does not exist on type 'Microsoft.Dynamics.CRM.account'"),
        ({"name": 1}, "0x80048d19", "Cannot convert the literal '1' to the expected type 'Edm.String'"),
        ({"name": {"a": 1}}, "0x80048d19", "'Edm.String'"),
        ({"numberofemployees": "many"}, "0x80048d19", "Cannot convert the literal 'many' to the expected type 'Edm.Int32'"),
        ({"numberofemployees": 1.5}, "0x80048d19", "'Edm.Int32'"),
        ({"numberofemployees": 2**31}, "0x80048d19", "'Edm.Int32'"),
        ({"revenue": "12.5"}, "0x80048d19", "IEEE754Compatible"),
        ({"revenue": 1e17}, "0x80044331", "outside the valid range"),
        ({"creditonhold": 1}, "0x80048d19", "'Edm.Boolean'"),
        ({"industrycode": "Consulting"}, "0x80048d19", "'Edm.Int32'"),
        ({"industrycode": 34}, "0x8004431a", "The value 34 of 'industrycode' on record of type 'account' is outside the valid range. Accepted Values: 1,2,"),
        ({"accountnumber": "x" * 21}, "0x80044331", "The length of the 'accountnumber' attribute of the 'account' entity exceeded the maximum allowed length of '20'."),
        ({"name": "\U0001f9c9" * 81}, "0x80044331", "'160'"),  # an emoji takes two places
        ({"lastusedincampaign": "yesterday"}, "0x80048d19", "'Edm.DateTimeOffset'"),
        ({"lastusedincampaign": "2026-01-01T10:00:00"}, "0x80048d19", "'Edm.DateTimeOffset'"),
        ({"lastusedincampaign": "1752-12-31T00:00:00Z"}, "0x80044331", "1753"),
        ({"modifiedon": "2020-01-01T00:00:00Z"}, "0x80048d19", "Property modifiedon is read-only"),
        ({"versionnumber": 1}, "0x80048d19", "Property versionnumber is read-only"),
        ({"masterid@odata.bind": "/accounts(00000000-0000-4000-8000-000000000001)"}, "0x80040217", "Does Not Exist"),
        ({"statecode": None}, "0x80040216", "statecode"),
        ({"statuscode": 2}, "0x80048408", "2 is not a valid status code for state code AccountState.Active"),
        ({"statecode": 5}, "0x8004431a", "Accepted Values: 0,1"),
    ],
)  # fmt: skip
def test_wrong_values_are_refused_and_nothing_changes(client, account, values, code, part):
    before = read(client, account)
    answer = client.call("PATCH", account, {"telephone2": "must not stay", **values})
    assert part in answer.json()["error"]["message"]
    assert answer.code == code
    assert answer.status == (404 if code == "0x80040217" else 400)
    assert read(client, account) == before


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b'"x"', b'{"name":"x"', b"\xff"])
def test_a_body_that_is_no_object_is_refused(client, body):
    refused(client.call("POST", f"{API}/accounts", body), 400, "0x80048d19")


def test_read_only_columns_can_be_ignored_instead_by_option(client, account):
    assert client.call("POST", "/_sandbox/options", {"readonly": "ignore"}).status == 200
    try:
        before = read(client, account, "createdon")
        assert client.call("PATCH", account, {"createdon": "2020-01-01T00:00:00Z", "name": "z"}).status == 204
        assert read(client, account, "createdon,name")["createdon"] == before["createdon"]
    finally:
        client.call("POST", "/_sandbox/options", {"readonly": "refuse"})


def test_values_are_stored_as_the_platform_stores_them(client, account):
    sent = {
        "revenue": 1234.565, "lastusedincampaign": "2026-01-05T12:11:12.987+02:00", "telephone1": "",
        "description": "  kept as it is \n", "address1_latitude": 19.4326, "address1_line1": "Calle 1", "address1_city": "Lima",
    }  # fmt: skip
    assert client.call("PATCH", account, sent).status == 204
    row = read(client, account)
    assert row["revenue"] == Decimal("1234.5700")
    assert row["lastusedincampaign"] == "2026-01-05T10:11:12Z"
    assert row["telephone1"] == ""
    assert row["description"] == "  kept as it is \n"
    assert row["address1_latitude"] == Decimal("19.4326")
    assert row["address1_composite"] == "Calle 1\r\nLima"
    assert row["donotemail"] is False
    assert row["preferredcontactmethodcode"] == 1


def test_quoted_integers_doubles_and_booleans_are_taken_as_microsoft_s_reader_does(client, account):
    sent = {
        "numberofemployees": "12",
        "industrycode": "7",
        "creditonhold": "true",
        "address1_latitude": "1.5",
    }
    assert client.call("PATCH", account, sent).status == 204
    row = read(client, account, ",".join(sent))
    assert [row[name] for name in sent] == [12, 7, True, Decimal("1.5")]


def test_an_empty_text_can_be_stored_as_no_value_by_option(client, account):
    client.call("POST", "/_sandbox/options", {"empty_as_null": True})
    try:
        assert client.call("PATCH", account, {"telephone1": ""}).status == 204
        assert read(client, account, "telephone1")["telephone1"] is None
    finally:
        client.call("POST", "/_sandbox/options", {"empty_as_null": False})


def test_contact_names_are_computed_and_dates_have_no_time(client):
    contact = f"{API}/contacts({create(client, 'contacts', firstname='Ana', lastname='Núñez', birthdate='1990-05-17')})"
    row = read(client, contact)
    assert (row["fullname"], row["birthdate"]) == ("Ana Núñez", "1990-05-17")
    assert client.call("PATCH", contact, {"fullname": "X"}).status == 400
    assert client.call("PATCH", contact, {"birthdate": "1990-05-17T00:00:00Z"}).status == 400
    assert client.call("PATCH", contact, {"firstname": None}).status == 204
    assert read(client, contact, "fullname")["fullname"] == "Núñez"


def test_state_and_reason_go_in_pairs(client, account):
    assert client.call("PATCH", account, {"statecode": 1}).status == 204
    row = read(client, account, "statecode,statuscode")
    assert (row["statecode"], row["statuscode"]) == (1, 2)
    assert client.call("PATCH", account, {"statecode": 0, "statuscode": 1}).status == 204
    assert read(client, account, "statuscode")["statuscode"] == 1


def test_creation_time_can_be_given_once(client):
    path = f"{API}/accounts({create(client, name='Old', overriddencreatedon='2019-02-03T04:05:06Z')})"
    assert read(client, path, "createdon")["createdon"] == "2019-02-03T04:05:06Z"
    assert client.call("PATCH", path, {"overriddencreatedon": "2018-01-01T00:00:00Z"}).status == 400


def test_alternate_keys_find_update_create_and_are_unique(client):
    path = f"{API}/accounts(accountnumber='A%27%27%2F7')"  # A''/7, the quote doubled
    assert client.call("GET", path).status == 404
    assert client.call("PATCH", path, {"name": "by key"}).status == 204
    row = read(client, path, "name,accountnumber")
    assert row["accountnumber"] == "A'/7"
    assert client.call("PATCH", path, {"name": "again"}).status == 204
    assert read(client, f"{API}/accounts({row['accountid']})", "name")["name"] == "again"
    refused(client.call("POST", f"{API}/accounts", {"accountnumber": "a'/7"}), 412, "0x80060892")
    refused(
        client.call("PATCH", f"{API}/accounts(accountnumber='new')", {"accountnumber": "new"}),
        400,
        "0x80040216",
    )
    refused(
        client.call("PATCH", f"{API}/accounts(accountnumber='absent')", {"name": "x"}, {"If-Match": "*"}),
        404,
        "0x80060891",
    )


def test_duplicate_detection_only_when_turned_on(client):
    create(client, name="Twice")
    create(client, name="Twice")
    on = {"MSCRM.SuppressDuplicateDetection": "false"}
    refused(client.call("POST", f"{API}/accounts", {"name": "TWICE"}, on), 412, "0x80040333")
    assert client.call("POST", f"{API}/accounts", {"name": "Only once"}, on).status == 204


def test_related_rows_can_be_created_with_the_row_or_not_at_all(client):
    body = {"name": "Deep", "primarycontactid": {"lastname": "Inside"}}
    path = client.call("POST", f"{API}/accounts", body).headers["OData-EntityId"]
    assert client.call("GET", f"{path}/primarycontactid?$select=lastname").json()["lastname"] == "Inside"
    before = client.call("GET", f"{API}/contacts/$count").body
    assert client.call("POST", f"{API}/accounts", {**body, "nonsense": 1}).status == 400
    assert client.call("GET", f"{API}/contacts/$count").body == before


def test_deleting_a_row_clears_the_lookups_to_it(client):
    contact = create(client, "contacts", lastname="Gone")
    path = f"{API}/accounts({create(client, name='Left', **{'primarycontactid@odata.bind': f'/contacts({contact})'})})"
    before = read(client, path, "_primarycontactid_value,versionnumber")
    assert client.call("DELETE", f"{API}/contacts({contact})").status == 204
    after = read(client, path, "_primarycontactid_value,versionnumber")
    assert after["_primarycontactid_value"] is None
    assert after["versionnumber"] > before["versionnumber"]


def test_merge_leaves_an_inactive_subordinate_that_names_its_master(client):
    one, two = create(client, name="Master"), create(client, name="Sub")
    kind = "Microsoft.Dynamics.CRM.account"
    body = {
        "Target": {"@odata.type": kind, "accountid": one}, "Subordinate": {"@odata.type": kind, "accountid": two},
        "UpdateContent": {"@odata.type": kind, "accountid": one, "telephone1": "9"}, "PerformParentingChecks": False,
    }  # fmt: skip
    assert client.call("POST", f"{API}/Merge", body).status == 204
    sub = read(client, f"{API}/accounts({two})", "merged,statecode,_masterid_value")
    assert (sub["merged"], sub["statecode"], sub["_masterid_value"]) == (True, 1, one)
    assert read(client, f"{API}/accounts({one})", "telephone1")["telephone1"] == "9"
    assert client.call("GET", f"{API}/Merge").status == 405
    assert client.call("POST", f"{API}/Merge", {**body, "Subordinate": body["Target"]}).status == 400


def test_missing_privileges_are_named(client, account):
    assert (
        client.call(
            "POST",
            "/_sandbox/options",
            {"deny": ["prvWriteAccount", "prvReadContact", "prvDeleteAccount", "prvCreateContact"]},
        ).status
        == 200
    )
    try:
        assert "prvWriteAccount" in refused(client.call("PATCH", account, {"name": "x"}), 403, "0x80040220")
        assert "prvDeleteAccount" in refused(client.call("DELETE", account), 403, "0x80040220")
        assert "prvReadContact" in refused(client.call("GET", f"{API}/contacts"), 403, "0x80040220")
        assert "prvCreateContact" in refused(
            client.call("POST", f"{API}/contacts", {"lastname": "x"}), 403, "0x80040220"
        )
        assert client.call("GET", account).status == 200
    finally:
        client.call("POST", "/_sandbox/options", {"deny": []})
