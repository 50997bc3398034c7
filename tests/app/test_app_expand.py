"""`expand` over HTTP: what a record leads to comes along in the same answer, under the name that the caller used."""

from urllib.parse import quote

import pytest

from crm_core.connectors.dynamics365 import Dynamics365
from crm_core.functions.crm import MAX_RELATED

pytestmark = [pytest.mark.xdist_group("app-api"), pytest.mark.usefixtures("demo")]

ACCOUNTS = "/api/crm/accounts"
CONTACTS = "/api/crm/contacts"
RID = "629ca2a0-024a-ea11-a815-000d3a591218"
CONTACT_FIELDS = list(Dynamics365.entities["contact"].by_field)


@pytest.fixture(scope="module")
def family(api, demo):
    """A company with a parent, three people, the first of whom is its primary contact, and a person of none."""

    def make(path, **body):
        return api.ok("POST", f"{path}?connection=demo", body)["id"]

    parent = make(ACCOUNTS, name="Holding Ñandú")
    company = make(ACCOUNTS, name="Familia S.A.", parent_id=parent)
    people = [
        make(
            CONTACTS, first_name=f"P{n}", last_name="O'Neil; (x)", email=f"p{n}@x.example", account_id=company
        )
        for n in range(3)
    ]
    alone = make(CONTACTS, last_name="Sola")
    api.ok("PATCH", f"{ACCOUNTS}/{company}?connection=demo", {"primary_contact_id": people[0]})
    yield {"parent": parent, "company": company, "people": people, "alone": alone}
    for path, rids in ((CONTACTS, [*people, alone]), (ACCOUNTS, [company, parent])):
        for rid in rids:
            api("DELETE", f"{path}/{rid}?connection=demo&confirm=true")


def only(page):
    (item,) = page["value"]
    return item


def company(family):
    return quote(f"name eq 'Familia S.A.' and id eq {family['company']}")


# --- calls as callers write them ----------------------------------------------------------------------------------


def test_the_seed_s_accounts_with_their_contacts(api, family):
    expand = "contact_customer_accounts($select=contactid,firstname,lastname)"
    item = only(
        api.ok("GET", f"{ACCOUNTS}?$select=accountid,name&$expand={expand}&$top=10&$filter={company(family)}")
    )
    people = item.pop("contact_customer_accounts")
    assert item.pop("etag")
    rid = family["company"]
    assert item == {
        "id": rid,
        "entity": "account",
        "connection": "demo",
        "name": "Familia S.A.",
        "accountid": rid,
    }
    assert all(each.pop("etag") for each in people)
    wanted = [
        {"id": rid, "entity": "contact", "first_name": f"P{n}", "last_name": "O'Neil; (x)", "contactid": rid}
        for n, rid in enumerate(family["people"])
    ]
    assert sorted(people, key=lambda each: each["first_name"]) == wanted


@pytest.mark.parametrize("parameter", ["expand", "$expand", "%24expand"])
def test_a_reference_and_a_list_at_once(api, family, parameter):
    expand = "primarycontactid($select=fullname),contact_customer_accounts($select=fullname,email;$top=5)"
    item = only(api.ok("GET", f"{ACCOUNTS}?{parameter}={expand}&filter={company(family)}"))
    first = family["people"][0]
    assert item["primarycontactid"] == {"id": first, "entity": "contact", "fullname": "P0 O'Neil; (x)"}
    assert item["primary_contact_id"] == first
    emails = sorted(each["email"] for each in item["contact_customer_accounts"])
    assert emails == [f"p{n}@x.example" for n in range(3)]
    assert {frozenset(each) for each in item["contact_customer_accounts"]} == {
        frozenset({"id", "entity", "etag", "fullname", "email"})
    }
    assert "contact_customer_accounts@more" not in item


def test_contacts_with_the_account_that_they_belong_to(api, family):
    path = f"{CONTACTS}?expand=parentcustomerid_account($select=name)&filter=last_name in ('Sola','O''Neil; (x)')"
    items = {each["id"]: each for each in api.ok("GET", path)["value"]}
    account = {"id": family["company"], "entity": "account", "name": "Familia S.A."}
    assert [items[rid]["parentcustomerid_account"] for rid in family["people"]] == [account] * 3
    assert items[family["alone"]]["parentcustomerid_account"] is None


def test_one_record_by_its_id_and_the_canonical_name_of_a_reference(api, family):
    got = api.ok("GET", f"{CONTACTS}/{family['people'][1]}?expand=account_id(select=name,parent_id)")
    assert got["account_id"] == {
        "id": family["company"],
        "entity": "account",
        "name": "Familia S.A.",
        "parent_id": family["parent"],
    }
    assert got["first_name"] == "P1"
    assert api.ok("GET", f"{CONTACTS}/{family['alone']}?expand=account_id")["account_id"] is None


def test_an_expanded_contact_of_a_contact_has_no_account(api, sandbox, account):
    """The lookup of a contact can be either; only what the vendor adds to it, when asked, tells which."""

    def contact(**values):
        return sandbox.control("POST", "rows/contact", {"values": {"lastname": "Jefa", **values}})["id"]

    above = contact()
    first = contact(**{"parentcustomerid_contact@odata.bind": f"/contacts({above})"})
    rid = account(name="Reports", **{"primarycontactid@odata.bind": f"/contacts({first})"})
    found = api.ok("GET", f"{ACCOUNTS}/{rid}?expand=primarycontactid")["primarycontactid"]
    assert (found["id"], found["account_id"]) == (first, None)
    item = api.ok("GET", f"{CONTACTS}/{first}?expand=parentcustomerid_contact($select=last_name),account_id")
    assert (item["parentcustomerid_contact"]["id"], item["account_id"]) == (above, None)
    for each in (first, above):
        sandbox.control("DELETE", f"rows/contact/{each}")


def test_without_a_select_every_canonical_field_is_there_empty_ones_as_null(api, family):
    got = api.ok("GET", f"{ACCOUNTS}/{family['company']}?expand=primarycontactid,contact_customer_accounts")
    wanted = api.ok("GET", f"{CONTACTS}/{family['people'][0]}")
    assert [name for name in wanted if name not in ("id", "entity", "connection", "etag")] == CONTACT_FIELDS
    del wanted["connection"]
    (same,) = (each for each in got["contact_customer_accounts"] if each["id"] == wanted["id"])
    assert same == wanted
    del wanted["etag"]  # the vendor gives none behind a lookup
    assert got["primarycontactid"] == wanted


# --- lists --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("top", "more"), [(1, True), (2, True), (3, None)])
def test_a_list_that_is_cut_short_says_so(api, family, top, more):
    expand = f"contact_customer_accounts($select=email;$orderby=email desc;$top={top})"
    for item in (
        api.ok("GET", f"{ACCOUNTS}/{family['company']}?expand={expand}"),
        only(api.ok("GET", f"{ACCOUNTS}?expand={expand}&filter={company(family)}")),
    ):
        emails = [each["email"] for each in item["contact_customer_accounts"]]
        assert emails == ["p2@x.example", "p1@x.example", "p0@x.example"][:top]
        assert item.get("contact_customer_accounts@more") is more


def test_a_list_without_a_top_ends_at_a_hundred_and_says_so(api, sandbox, account):
    rid = account(name="Populous")
    bound = {"parentcustomerid_account@odata.bind": f"/accounts({rid})"}
    people = [
        sandbox.control("POST", "rows/contact", {"values": {"lastname": f"{n}", **bound}})["id"]
        for n in range(101)
    ]
    item = api.ok("GET", f"{ACCOUNTS}/{rid}?expand=contact_customer_accounts($select=email)")
    assert (len(item["contact_customer_accounts"]), item["contact_customer_accounts@more"]) == (100, True)
    sandbox.control("DELETE", f"rows/contact/{people.pop()}")
    item = api.ok("GET", f"{ACCOUNTS}/{rid}?expand=contact_customer_accounts($select=email)")
    assert len(item["contact_customer_accounts"]) == 100
    assert "contact_customer_accounts@more" not in item
    for each in people:
        sandbox.control("DELETE", f"rows/contact/{each}")


def test_a_list_is_filtered_with_any_text(api, family):
    inner = "$select=email;$filter=last_name eq 'O''Neil; (x)' and (emailaddress1 ne 'p1@x.example' and status eq 'active')"
    item = api.ok(
        "GET", f"{ACCOUNTS}/{family['company']}?expand=" + quote(f"contact_customer_accounts({inner})")
    )
    emails = sorted(each["email"] for each in item["contact_customer_accounts"])
    assert emails == ["p0@x.example", "p2@x.example"]


# --- pages, raw, ETags, calls -------------------------------------------------------------------------------------


def test_following_pages_are_expanded_too_and_another_expand_is_another_query(api, problem, family):
    query = "select=name&top=25&expand=" + quote(
        "contact_customer_accounts($select=email;$top=2),primarycontactid"
    )
    found = [each for page in api.pages(f"{ACCOUNTS}?{query}") for each in page]
    assert len(found) > 50
    assert all(isinstance(each["contact_customer_accounts"], list) for each in found)
    (item,) = (each for each in found if each["id"] == family["company"])
    assert (len(item["contact_customer_accounts"]), item["contact_customer_accounts@more"]) == (2, True)
    assert item["primarycontactid"]["id"] == family["people"][0]
    following = api.ok("GET", f"{ACCOUNTS}?{query}")["nextLink"]
    answer = api("GET", following.replace("%3D2", "%3D3"))
    detail = "skiptoken: belongs to another query or was changed; follow nextLink as it is."
    problem(answer, 400, "BadRequest", detail, "skiptoken")


def test_raw_is_each_record_s_own(api, family):
    expand = "primarycontactid($select=email),contact_customer_accounts($select=email;$top=1)"
    item = api.ok("GET", f"{ACCOUNTS}/{family['company']}?raw=true&expand={expand}")
    assert item["raw"]["accountid"] == family["company"]
    assert not [
        name for name in item["raw"] if name.startswith(("primarycontactid", "contact_customer_accounts"))
    ]
    assert item["primarycontactid"]["raw"]["contactid"] == family["people"][0]
    (one,) = item["contact_customer_accounts"]
    assert one["raw"]["emailaddress1"] == one["email"]


def test_an_expanded_record_is_never_304(api, family):
    """Its ETag is that of the record alone: it stays the same when what it leads to changes."""
    path = f"{ACCOUNTS}/{family['company']}"
    first = api("GET", f"{path}?expand=primarycontactid($select=email)")
    same = {"If-None-Match": first.headers["ETag"]}
    assert first.headers["ETag"] == first.json()["etag"]
    assert api("GET", path, headers=same).status_code == 304
    api.ok("PATCH", f"{CONTACTS}/{family['people'][0]}", {"phone": "+56 2 1"})
    again = api("GET", f"{path}?expand=primarycontactid($select=phone)", headers=same)
    assert (again.status_code, again.json()["primarycontactid"]["phone"]) == (200, "+56 2 1")
    assert again.headers["ETag"] == first.headers["ETag"]


def test_expanding_costs_one_call_which_no_cache_may_answer(api, sandbox, family):
    api.ok("GET", f"{ACCOUNTS}/{family['company']}?expand=primarycontactid($select=fullname)")
    seen = sandbox.last_request()
    api.ok(
        "GET",
        f"{ACCOUNTS}/{family['company']}?expand=primarycontactid,contact_customer_accounts,parentaccountid",
    )
    (call,) = sandbox.requests_since(seen)
    assert (call["method"], call["headers"]["if-none-match"]) == ("GET", "null")


def test_an_empty_expand_is_none(api, family):
    assert api.ok("GET", f"{ACCOUNTS}/{family['company']}?expand=") == api.ok(
        "GET", f"{ACCOUNTS}/{family['company']}"
    )


def test_openapi_shows_the_parameter(api):
    paths = api.ok("GET", "/api/openapi.json")["paths"]
    for path in ("/api/crm/{entities}", "/api/crm/{entities}/{rid}"):
        (expand,) = (each for each in paths[path]["get"]["parameters"] if each["name"] == "expand")
        assert "primarycontactid($select=fullname)" in expand["description"]


# --- refused ------------------------------------------------------------------------------------------------------

WAYS = (
    "parentaccountid (parent_id), primarycontactid (primary_contact_id), "
    "contact_customer_accounts, account_parent_account, opportunity_customer_accounts, incident_customer_accounts"
)
OPTIONS = "known are $select, $filter, $orderby, $top, with ';' between them."
ONE_LEVEL = "another expand inside is not supported, only one level; ask for it by a second call."
PEOPLE = "contact_customer_accounts"


@pytest.mark.parametrize(
    ("text", "detail"),
    [
        ("nope", f"expand: 'nope' leads nowhere from account; known are {WAYS}."),
        ("account_id", f"expand: 'account_id' leads nowhere from account; known are {WAYS}."),
        ("PrimaryContactId", f"expand: 'PrimaryContactId' leads nowhere from account; known are {WAYS}."),
        ("parent_id,parentaccountid", "expand: 'parent_id' and 'parentaccountid' are the same; name one of them."),
        ("parent_id($top=1)", "expand: 'parent_id' leads to one account; leave top out."),
        (f"{PEOPLE}($expand=parentcustomerid_account)", f"expand: in {PEOPLE}: {ONE_LEVEL}"),
        (f"{PEOPLE}($skip=1)", f"expand: in {PEOPLE}: '$skip' is no option here; {OPTIONS}"),
        (f"{PEOPLE}($top=1001)", f"expand: in {PEOPLE}: top: expected a whole number from 1 to 1000."),
        (f"{PEOPLE}($top=1", "expand: a parenthesis is not closed; close it."),
        (f"{PEOPLE}($filter=email eq 5)",
         f"expand: in {PEOPLE}: The filter compares email with '5'; expected a text in quotes."),
        (f"{PEOPLE}($select=nope)",
         f"expand: in {PEOPLE}: select: 'nope' is no field of contact; known are {', '.join(CONTACT_FIELDS)}."),
        (",", "expand: has an empty part; take the ',' or the parentheses out."),
    ],
)  # fmt: skip
def test_a_wrong_expand_is_400_with_the_remedy(api, problem, text, detail):
    for path in (ACCOUNTS, f"{ACCOUNTS}/{RID}"):
        problem(api("GET", f"{path}?expand={quote(text)}"), 400, "BadRequest", detail, "expand")


def test_more_than_an_answer_can_hold_is_400_and_says_what_to_lower(api, problem):
    detail = (
        f"expand: could bring along 100000 records at once, more than {MAX_RELATED}; "
        "ask for fewer by top, or by $top in the parentheses."
    )
    problem(api("GET", f"{ACCOUNTS}?top=1000&expand={PEOPLE}"), 400, "BadRequest", detail, "expand")
    assert api("GET", f"{ACCOUNTS}?top=1000&expand={PEOPLE}($top=20)").status_code == 200
    assert api("GET", f"{ACCOUNTS}?top=1000&expand=primarycontactid").status_code == 200


@pytest.mark.parametrize("method", ["POST", "PATCH"])
def test_a_write_takes_no_expand(api, problem, method):
    path = ACCOUNTS if method == "POST" else f"{ACCOUNTS}/{RID}"
    answer = api(method, f"{path}?expand=primarycontactid", {"name": "x"})
    detail = "expand: is no parameter of this route; known are connection, raw."
    problem(answer, 400, "BadRequest", detail, "expand")


@pytest.mark.parametrize(
    ("more", "detail"),
    [
        ("", "The answer lacks contact_customer_accounts, which was to be expanded."),
        (', "contact_customer_accounts": null', "The answer has no list of records."),
        (', "contact_customer_accounts": [{"lastname": "x"}]', "A record without contactid came back."),
    ],
)
def test_what_a_remote_leaves_out_does_not_look_empty(api, problem, faults, more, detail):
    text = f'{{"value": [{{"accountid": "{RID}"{more}}}]}}'
    faults("garbage", text=text, path="*/accounts*", count=None)
    answer = api("GET", f"{ACCOUNTS}?top=1&expand=contact_customer_accounts")
    vendor = {"system": "dynamics365", "message": detail}
    problem(answer, 502, "BadAnswer", detail, vendor=vendor)
