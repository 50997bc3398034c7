"""Activities of the Dataverse sandbox: their kinds, their shared list and their parties, by raw HTTP."""

import json
import re

import pytest

from sandbox.dynamics365 import Dataverse
from sandbox.testing import options, running, signed_in

API = "/api/data/v9.2"
TRACK = {"Prefer": "odata.track-changes"}
KINDS = {"task": "tasks", "phonecall": "phonecalls", "email": "emails", "appointment": "appointments"}


@pytest.fixture(scope="module")
def sandbox():
    with running(Dataverse()) as sandbox:
        yield sandbox


@pytest.fixture(scope="module")
def client(sandbox):
    with signed_in(sandbox) as client:
        yield client


def create(client, set_name, **values):
    answer = client.call("POST", f"{API}/{set_name}", values)
    assert answer.status == 204, answer.body
    return answer.headers["OData-EntityId"][-37:-1]


def read(client, path, **wanted):
    answer = client.call("GET", f"{API}/{path}" + options(**wanted))
    assert answer.status == 200, answer.body
    return answer.json()


def patch(client, path, **values):
    return client.call("PATCH", f"{API}/{path}", values, {"If-Match": "*"})


def refused(answer, status, code):
    assert (answer.status, answer.code) == (status, code), answer.body
    return answer.json()["error"]["message"]


@pytest.fixture
def account(client):
    return create(client, "accounts", name="About", emailaddress1="about@x.example")


@pytest.fixture
def contact(client):
    return create(client, "contacts", lastname="Guest", emailaddress1="guest@x.example")


def parties(client, path, collection):
    """What a person sees of the parties: participation type -> addresses."""
    row = read(
        client,
        path,
        select="subject",
        expand=f"{collection}($select=participationtypemask,addressused,_partyid_value)",
    )
    found = {}
    for party in row[collection]:
        found.setdefault(party["participationtypemask"], []).append(party["addressused"])
    return {mask: sorted(a or "" for a in addresses) for mask, addresses in found.items()}


@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_has_its_columns_and_says_what_it_is_about(client, account, kind):
    nav = f"regardingobjectid_account_{kind}"
    own = {
        "task": {"percentcomplete": 10}, "phonecall": {"phonenumber": "555", "directioncode": False},
        "email": {"description": "<p>Hi</p>", "directioncode": False}, "appointment": {"location": "Here"},
    }[kind]  # fmt: skip
    times = {"scheduledstart": "2026-05-01T10:00:00Z", "scheduledend": "2026-05-01T11:00:00Z"}
    key = create(
        client,
        KINDS[kind],
        subject="Talk",
        prioritycode=2,
        **own,
        **times,
        **{f"{nav}@odata.bind": f"/accounts({account})"},
    )
    path = f"{KINDS[kind]}({key})"
    row = read(client, path, expand=f"{nav}($select=name)")
    assert {k: row[k] for k in own} == own
    assert (row["activityid"], row["activitytypecode"], row["scheduledend"]) == (
        key,
        kind,
        times["scheduledend"],
    )
    assert row["_regardingobjectid_value"] == account
    assert row[nav]["name"] == "About"
    assert (row["statecode"], row["statuscode"]) == (0, 2 if kind == "task" else 1)
    assert read(
        client, KINDS[kind], select="subject", filter=f"{nav}/name eq 'about' and activityid eq {key}"
    )["value"]
    schema = {"phonecall": "Phonecalls"}.get(kind, KINDS[kind].capitalize())
    children = read(
        client, f"accounts({account})", select="name", expand=f"Account_{schema}($select=subject)"
    )
    assert [c["subject"] for c in children[f"Account_{schema}"]] == ["Talk"]
    for wrong in (f"regardingobjectid_Account_{kind}", "regardingobjectid_account", "regardingobjectid"):
        answer = client.call("POST", f"{API}/{KINDS[kind]}", {f"{wrong}@odata.bind": f"/accounts({account})"})
        assert f"'{wrong}'" in refused(answer, 400, "0x80048d19")
    refused(patch(client, path, subject="x" * 201), 400, "0x80044331")
    refused(patch(client, path, activitytypecode="letter"), 400, "0x80048d19")


@pytest.mark.parametrize(
    "target", ["contact", "lead", "opportunity", "incident", "quote", "salesorder", "invoice", "campaign"]
)
def test_activities_can_be_about_many_tables(client, contact, target):
    plural = {"opportunity": "opportunities"}.get(target, f"{target}s")
    bind = {"customerid_contact@odata.bind": f"/contacts({contact})"} if target == "incident" else {}
    key = contact if target == "contact" else create(client, plural, **bind)
    task = create(
        client, "tasks", subject="x", **{f"regardingobjectid_{target}_task@odata.bind": f"/{plural}({key})"}
    )
    row = client.call(
        "GET",
        f"{API}/tasks({task})?$select=subject,_regardingobjectid_value",
        headers={"Prefer": 'odata.include-annotations="*"'},
    ).json()
    assert row["_regardingobjectid_value@Microsoft.Dynamics.CRM.lookuplogicalname"] == target
    assert (
        row["_regardingobjectid_value@Microsoft.Dynamics.CRM.associatednavigationproperty"]
        == f"regardingobjectid_{target}_task"
    )
    pointer = client.call(
        "GET", f"{API}/activitypointers({task})", headers={"Prefer": 'odata.include-annotations="*"'}
    ).json()
    assert (
        pointer["_regardingobjectid_value@Microsoft.Dynamics.CRM.associatednavigationproperty"]
        == f"regardingobjectid_{target}"
    )


@pytest.mark.parametrize(
    ("kind", "done", "canceled", "first"),
    [("task", 5, 6, 2), ("phonecall", 4, 3, 1), ("email", 3, 5, 1), ("appointment", 3, 4, 1)],
)
def test_closed_activities_are_read_only_until_they_are_opened_again(client, kind, done, canceled, first):
    key = create(client, KINDS[kind], subject="Talk")
    path = f"{KINDS[kind]}({key})"
    refused(patch(client, path, statecode=1, statuscode=canceled), 400, "0x80048408")
    assert patch(client, path, subject="Talked", statecode=1, statuscode=done).status == 204
    row = read(client, path, select="actualend,modifiedon,subject")
    assert (row["actualend"], row["subject"]) == (row["modifiedon"], "Talked")
    refused(patch(client, path, subject="Late"), 400, "0x80040220")
    refused(patch(client, path, statecode=2, statuscode=canceled), 400, "0x80040220")
    assert patch(client, path, statecode=1, statuscode=done).status == 204  # nothing new
    assert patch(client, path, statecode=0, subject="Open").status == 204
    assert read(client, path, select="statuscode")["statuscode"] == first
    assert (
        patch(client, path, statecode=2, statuscode=canceled, actualend="2026-01-01T00:00:00Z").status == 204
    )
    assert read(client, path, select="actualend")["actualend"] == "2026-01-01T00:00:00Z"
    refused(patch(client, path, prioritycode=0), 400, "0x80040220")


def test_an_appointment_can_be_scheduled_and_is_open_then(client):
    key = create(client, "appointments", subject="Meet", statecode=3, statuscode=5)
    assert patch(client, f"appointments({key})", subject="Meet again").status == 204
    assert read(client, f"appointments({key})", select="statuscode")["statuscode"] == 5


def test_the_shared_list_has_all_kinds_and_is_only_read(client, sandbox):
    made = {create(client, set_name, subject=f"List {kind}"): kind for kind, set_name in KINDS.items()}
    condition = "startswith(subject,'List ')"
    rows = read(
        client,
        "activitypointers",
        select="activitytypecode,subject,versionnumber,statecode",
        filter=condition,
        orderby="subject",
    )["value"]
    assert {r["activityid"]: r["activitytypecode"] for r in rows} == made
    assert [r["subject"] for r in rows] == sorted(f"List {k}" for k in KINDS)
    for row in rows:
        one = read(client, f"{KINDS[made[row['activityid']]]}({row['activityid']})", select="versionnumber")
        assert one["versionnumber"] == row["versionnumber"]
    key = next(iter(made))
    assert patch(client, f"tasks({key})", subject="List changed").status == 204
    assert read(client, f"activitypointers({key})", select="subject")["subject"] == "List changed"
    page = client.call(
        "GET",
        f"{API}/activitypointers" + options(select="subject", filter=condition),
        headers={"Prefer": "odata.maxpagesize=3"},
    ).json()
    rest = client.call("GET", page["@odata.nextLink"], headers={"Prefer": "odata.maxpagesize=3"}).json()
    assert (len(page["value"]), len(rest["value"]), "@odata.nextLink" in rest) == (3, 1, False)
    for call in (
        client.call("POST", f"{API}/activitypointers", {"subject": "x"}),
        patch(client, f"activitypointers({key})", subject="x"),
        client.call("DELETE", f"{API}/activitypointers({key})"),
        client.call("PUT", f"{API}/activitypointers({key})/subject", {"value": "x"}),
        client.call("POST", f"{API}/activityparties", {"addressused": "a@x.example"}),
        client.call("POST", f"{API}/incidentresolutions", {"subject": "x"}),
    ):
        refused(call, 405, "0x80040800")
    assert (
        client.call(
            "POST", f"{API}/activitypointers/Microsoft.Dynamics.CRM.CreateMultiple", {"Targets": []}
        ).status
        == 405
    )
    refused(client.call("GET", f"{API}/activitypointers", headers=TRACK), 400, "0x80060889")
    assert client.call("DELETE", f"{API}/tasks({key})").status == 204
    assert client.call("GET", f"{API}/activitypointers({key})").status == 404


@pytest.mark.parametrize(("kind", "to"), [("email", 2), ("phonecall", 2), ("appointment", 5), ("task", 11)])
def test_parties_come_with_the_activity(client, account, contact, kind, to):
    collection = f"{kind}_activity_parties"
    user = client.call("GET", f"{API}/systemusers" + options(filter="internalemailaddress ne null")).json()[
        "value"
    ][0]["systemuserid"]
    body = [
        {"partyid_contact@odata.bind": f"/contacts({contact})", "participationtypemask": to},
        {
            "partyid_account@odata.bind": f"/accounts({account})",
            "participationtypemask": to,
            "addressused": "other@x.example",
        },
        {"partyid_systemuser@odata.bind": f"/systemusers({user})", "participationtypemask": 1},
        {"addressused": "nobody@x.example", "participationtypemask": 3},
    ]
    regarding = {f"regardingobjectid_account_{kind}@odata.bind": f"/accounts({account})"}
    key = create(client, KINDS[kind], subject="Party", **{collection: body}, **regarding)
    path = f"{KINDS[kind]}({key})"
    given = {
        1: ["person@sandbox.example"],
        to: ["guest@x.example", "other@x.example"],
        3: ["nobody@x.example"],
    }
    # The server adds what it is about (8) and whose it is (9).
    assert parties(client, path, collection) == {**given, 8: ["about@x.example"], 9: [""]}
    listed = read(
        client,
        "activitypointers",
        select="subject",
        filter=f"activityid eq {key}",
        expand="activitypointer_activity_parties($select=addressused)",
    )
    assert len(listed["value"][0]["activitypointer_activity_parties"]) == 6
    # An update without a list leaves them alone, one with a list replaces those that people gave.
    assert patch(client, path, subject="Same party").status == 204
    assert parties(client, path, collection) == {**given, 8: ["about@x.example"], 9: [""]}
    assert (
        patch(
            client, path, **{collection: [{"addressused": "new@x.example", "participationtypemask": to}]}
        ).status
        == 204
    )
    assert parties(client, path, collection) == {to: ["new@x.example"], 8: ["about@x.example"], 9: [""]}
    assert patch(client, path, **{f"regardingobjectid_account_{kind}": None}).status == 204
    assert parties(client, path, collection) == {to: ["new@x.example"], 9: [""]}
    assert client.call("DELETE", f"{API}/{path}").status == 204
    left = read(client, "activityparties", select="addressused", filter=f"_activityid_value eq {key}")
    assert left["value"] == []


def test_a_party_must_be_someone_in_some_part_or_nothing_is_made(client, contact):
    count = client.call("GET", f"{API}/emails/$count").body
    bind = {"partyid_contact@odata.bind": f"/contacts({contact})"}
    for wrong, code, status in (
        ({"participationtypemask": 2}, "0x80040203", 400),
        (bind, "0x80040203", 400),
        ({**bind, "participationtypemask": 77}, "0x8004431a", 400),
        ({"partyid_Contact@odata.bind": f"/contacts({contact})", "participationtypemask": 2}, "0x80048d19", 400),
        ({"partyid@odata.bind": f"/contacts({contact})", "participationtypemask": 2}, "0x80048d19", 400),
        ({"partyid_contact@odata.bind": "/contacts(11111111-1111-1111-1111-111111111111)", "participationtypemask": 2}, "0x80040217", 404),
    ):  # fmt: skip
        fine = {**bind, "participationtypemask": 1}
        refused(
            client.call("POST", f"{API}/emails", {"subject": "x", "email_activity_parties": [fine, wrong]}),
            status,
            code,
        )
    assert client.call("POST", f"{API}/emails", {"email_activity_parties": {}}).status == 400
    assert client.call("POST", f"{API}/phonecalls", {"email_activity_parties": []}).status == 400
    assert client.call("GET", f"{API}/emails/$count").body == count
    assert (
        client.call(
            "GET", f"{API}/activityparties/$count" + options(filter=f"_partyid_value eq {contact}")
        ).body
        == b"0"
    )


def test_an_email_says_its_sender_and_recipients_as_text(client, contact):
    body = [
        {"partyid_contact@odata.bind": f"/contacts({contact})", "participationtypemask": 2},
        {"addressused": "b@x.example", "participationtypemask": 2},
        {"addressused": "from@x.example", "participationtypemask": 1},
    ]
    key = create(client, "emails", subject="x", email_activity_parties=body)
    row = read(client, f"emails({key})", select="torecipients,sender,directioncode,versionnumber")
    assert set(row["torecipients"].rstrip(";").split(";")) == {"guest@x.example", "b@x.example"}
    assert (row["sender"], row["directioncode"]) == ("from@x.example", True)
    plain = create(client, "emails", subject="x", torecipients="a@x.example;", sender="s@x.example")
    assert read(client, f"emails({plain})", select="torecipients")["torecipients"] == "a@x.example;"


@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_tells_of_its_changes_and_takes_many(client, kind):
    facts = read(
        client,
        f"EntityDefinitions(LogicalName='{kind}')",
        select="EntitySetName,PrimaryIdAttribute,ChangeTrackingEnabled,IsActivity",
    )
    assert [
        facts[n] for n in ("EntitySetName", "PrimaryIdAttribute", "ChangeTrackingEnabled", "IsActivity")
    ] == [KINDS[kind], "activityid", True, True]
    link = client.call("GET", f"{API}/{KINDS[kind]}?$select=subject", headers=TRACK).json()[
        "@odata.deltaLink"
    ]
    target = {"@odata.type": f"Microsoft.Dynamics.CRM.{kind}"}
    url = f"{API}/{KINDS[kind]}/Microsoft.Dynamics.CRM."
    ids = client.call(
        "POST", url + "CreateMultiple", {"Targets": [{**target, "subject": "a"}, {**target, "subject": "b"}]}
    ).json()["Ids"]
    bodies = [{**target, "activityid": ids[0], "subject": "c"}]
    assert client.call("POST", url + "UpdateMultiple", {"Targets": bodies}).status == 204
    assert client.call("DELETE", f"{API}/{KINDS[kind]}({ids[1]})").status == 204
    changes = client.call("GET", link).json()["value"]
    assert [(c.get("activityid"), c.get("subject"), c.get("id")) for c in changes] == [
        (ids[0], "c", None),
        (None, None, ids[1]),
    ]


def test_a_batch_makes_an_activity_about_a_row_of_the_same_change_set(client):
    def part(n, url, body, prefer):
        return (
            f"--c\r\nContent-Type: application/http\r\nContent-Transfer-Encoding: binary\r\nContent-ID: {n}\r\n\r\n"
            f"POST {API}/{url} HTTP/1.1\r\nContent-Type: application/json\r\nPrefer: {prefer}\r\n\r\n{json.dumps(body)}\r\n"
        )

    about = {"subject": "Ring", "regardingobjectid_lead_task@odata.bind": "$1"}
    inner = part(1, "leads", {"lastname": "Batch"}, "") + part(2, "tasks", about, "return=representation")
    body = f"--b\r\nContent-Type: multipart/mixed; boundary=c\r\n\r\n{inner}--c--\r\n\r\n--b--\r\n".encode()
    answer = client.call("POST", f"{API}/$batch", body, {"Content-Type": "multipart/mixed; boundary=b"})
    assert answer.status == 200, answer.body
    lead = re.search(rb"OData-EntityId: \S+/leads\(([0-9a-f-]+)\)", answer.body)[1]
    assert b'"_regardingobjectid_value":"' + lead in answer.body.partition(b"HTTP/1.1 201 Created")[2]
