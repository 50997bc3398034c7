"""Reading from the Dataverse sandbox by raw HTTP: columns, filters, order, pages, counts, annotations, metadata."""

import json
import uuid
from decimal import Decimal

import pytest

from sandbox.dynamics365 import Dataverse
from sandbox.testing import options, running, signed_in

API = "/api/data/v9.2"
EVERYTHING = {"Prefer": 'odata.include-annotations="*"'}


@pytest.fixture(scope="module")
def sandbox():
    with running(Dataverse()) as sandbox:
        yield sandbox


@pytest.fixture(scope="module")
def client(sandbox):
    with signed_in(sandbox) as client:
        yield client


@pytest.fixture(scope="module")
def rows(client):
    """A few rows that the tests of this module know; everything else is left alone."""
    contact = create(client, "contacts", lastname="Ñandú", firstname="Zoé", emailaddress1="zoe@x.example")
    parent = create(client, "accounts", name="Parent", revenue=1000.5, industrycode=1)
    child = create(
        client,
        "accounts",
        name="O'Brien & Söhne",
        numberofemployees=1234,
        industrycode=7,
        creditonhold=True,
        **{
            "primarycontactid@odata.bind": f"/contacts({contact})",
            "parentaccountid@odata.bind": f"/accounts({parent})",
        },
    )
    member = create(
        client,
        "contacts",
        lastname="Pérez",
        birthdate="1990-05-17",
        **{"parentcustomerid_account@odata.bind": f"/accounts({child})"},
    )
    return {"contact": contact, "parent": parent, "child": child, "member": member}


def create(client, set_name, **values):
    answer = client.call("POST", f"{API}/{set_name}", values)
    assert answer.status == 204, answer.body
    return answer.headers["OData-EntityId"][-37:-1]


def get(client, path, headers=None):
    answer = client.call("GET", API + path, headers=headers)
    assert answer.status == 200, answer.body
    return answer.json()


def refused(client, path, headers=None):
    answer = client.call("GET", API + path, headers=headers)
    assert answer.status == 400, answer.body
    return answer.json()["error"]


def names(client, text):
    return {r["name"] for r in get(client, "/accounts" + options(select="name", filter=text))["value"]}


def test_a_row_has_its_key_its_etag_and_only_what_was_selected(client, rows):
    row = get(client, f"/accounts({rows['child']})" + options(select="name,versionnumber"))
    assert set(row) == {"@odata.context", "@odata.etag", "name", "versionnumber", "accountid"}
    assert row["@odata.etag"] == f'W/"{row["versionnumber"]}"'
    assert row["@odata.context"].endswith("/$metadata#accounts(name,versionnumber)/$entity")


def test_without_select_all_columns_come_lookups_as_values(client, rows):
    row = get(client, f"/accounts({rows['child']})")
    assert row["_primarycontactid_value"] == rows["contact"]
    assert "primarycontactid" not in row
    assert row["telephone1"] is None
    assert row["createdon"].endswith("Z")
    assert len(row["createdon"]) == len("2026-01-05T10:11:12Z")


def test_annotations_only_when_asked(client, rows):
    path = f"/accounts({rows['child']})" + options(
        select="industrycode,_primarycontactid_value,statecode,creditonhold,numberofemployees"
    )
    assert not any("@OData" in k or "@Microsoft" in k for k in get(client, path))
    row = get(client, path, EVERYTHING)
    shown = "@OData.Community.Display.V1.FormattedValue"
    assert row["industrycode" + shown] == "Consulting"
    assert row["statecode" + shown] == "Active"
    assert row["creditonhold" + shown] == "Yes"
    assert row["numberofemployees" + shown] == "1,234"
    assert row["_primarycontactid_value" + shown] == "Zoé Ñandú"
    assert row["_primarycontactid_value@Microsoft.Dynamics.CRM.lookuplogicalname"] == "contact"
    assert (
        row["_primarycontactid_value@Microsoft.Dynamics.CRM.associatednavigationproperty"]
        == "primarycontactid"
    )
    some = get(client, path, {"Prefer": 'odata.include-annotations="Microsoft.Dynamics.CRM.*"'})
    assert not any(shown in k for k in some)
    assert any("lookuplogicalname" in k for k in some)


def test_money_is_a_number_with_its_scale_in_the_text(client, rows):
    answer = client.call(
        "GET",
        f"{API}/accounts({rows['parent']}){options(select='revenue,revenue_base,exchangerate,_transactioncurrencyid_value')}",
    )
    assert b'"revenue":1000.5000' in answer.body
    row = json.loads(answer.body, parse_float=Decimal)
    assert row["revenue"] == row["revenue_base"] == Decimal("1000.5000")
    assert row["_transactioncurrencyid_value"]  # the default currency was filled in


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("name eq 'PARENT'", {"Parent"}),
        ("name eq 'o''brien & söhne'", {"O'Brien & Söhne"}),
        ("contains(name,'BRIEN')", {"O'Brien & Söhne"}),
        ("startswith(name,'par') or endswith(name,'SÖHNE')", {"Parent", "O'Brien & Söhne"}),
        ("not contains(name,'brien')", {"Parent"}),
        ("numberofemployees gt 1233 and numberofemployees lt 1235", {"O'Brien & Söhne"}),
        ("numberofemployees ge 1235 or numberofemployees le 1", set()),
        ("numberofemployees eq null", {"Parent"}),
        ("numberofemployees ne 1234", {"Parent"}),  # also rows without a value
        ("revenue eq 1000.5", {"Parent"}),
        ("revenue gt 1000", {"Parent"}),
        ("industrycode eq 7 and statecode eq 0", {"O'Brien & Söhne"}),
        ("(industrycode eq 1 or industrycode eq 7) and not (name eq 'Parent')", {"O'Brien & Söhne"}),
        ("creditonhold eq true", {"O'Brien & Söhne"}),
        ("creditonhold ne true", {"Parent"}),
        ("primarycontactid/emailaddress1 eq 'ZOE@x.example'", {"O'Brien & Söhne"}),
        ("parentaccountid/name eq 'parent'", {"O'Brien & Söhne"}),
        ("createdon ge 2020-01-01T00:00:00Z and createdon lt 2999-01-01", {"Parent", "O'Brien & Söhne"}),
        ("createdon gt 2999-01-01T00:00:00.5+02:00", set()),
        ("Microsoft.Dynamics.CRM.In(PropertyName='industrycode',PropertyValues=[\"1\",\"9\"])", {"Parent"}),
        ("Microsoft.Dynamics.CRM.In(PropertyName='name',PropertyValues=['PARENT'])", {"Parent"}),
        ("Microsoft.Dynamics.CRM.NotIn(PropertyName='industrycode',PropertyValues=[\"1\"])", {"O'Brien & Söhne"}),
        ("Microsoft.Dynamics.CRM.Between(PropertyName='numberofemployees',PropertyValues=[\"1\",\"1234\"])", {"O'Brien & Söhne"}),
        ("Microsoft.Dynamics.CRM.LastXDays(PropertyName='createdon',PropertyValue=2)", {"Parent", "O'Brien & Söhne"}),
        ("Microsoft.Dynamics.CRM.OnOrAfter(PropertyName='createdon',PropertyValue='2999-01-01')", set()),
        ("Microsoft.Dynamics.CRM.Today(PropertyName='createdon') eq true", {"Parent", "O'Brien & Söhne"}),
    ],
)  # fmt: skip
def test_filters_are_evaluated(client, rows, text, expected):
    known = {"Parent", "O'Brien & Söhne"}
    assert names(client, text) & known == expected


def test_lookups_are_compared_with_ids_without_quotes(client, rows):
    assert names(client, f"_parentaccountid_value eq {rows['parent'].upper()}") == {"O'Brien & Söhne"}
    assert names(client, f"accountid eq {rows['parent']}") == {"Parent"}
    assert (
        "incompatible types"
        in refused(client, "/accounts" + options(filter=f"accountid eq '{rows['parent']}'"))["message"]
    )


def test_a_parameter_alias_stands_for_a_literal(client, rows):
    found = get(client, "/accounts" + options(select="name", filter="name eq @p1") + "&@p1='PARENT'")
    assert [r["name"] for r in found["value"]] == ["Parent"]


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ("$select=nonsense", "Could not find a property named 'nonsense' on type 'Microsoft.Dynamics.CRM.account'."),
        ("$select=primarycontactid", "Could not find a property named 'primarycontactid' on type 'Microsoft.Dynamics.CRM.account'."),
        ("$filter=nonsense%20eq%201", "Could not find a property named 'nonsense' on type 'Microsoft.Dynamics.CRM.account'."),
        ("$orderby=nonsense", "Could not find a property named 'nonsense' on type 'Microsoft.Dynamics.CRM.account'."),
        ("$expand=nonsense", "Could not find a property named 'nonsense' on type 'Microsoft.Dynamics.CRM.account'."),
        ("$skip=1", "Skip Clause is not supported in CRM"),
        ("$search=x", "The query option '$search' is not supported."),
        ("$format=json", "The query option '$format' is not supported."),
        ("$foo=1", "The query parameter $foo is not supported"),
        ("$filter=name%20eq%20'a", "There is an unterminated string literal at position 10 in 'name eq 'a'."),
        ("$filter=name%20eq", "Syntax error at position 7 in 'name eq'."),
        ("$filter=name%20eq%20'a')", "Syntax error at position 11 in 'name eq 'a')'."),
        ("$filter=name%20eq%201", "A binary operator with incompatible types was detected. Found operand types 'Edm.String' and 'Edm.Int32' for operator kind 'Equal'."),
        ("$filter=name", "The $filter expression must evaluate to a single boolean value."),
        ("$filter=contains(industrycode,'1')", "No function signature for the function with name 'contains' matches the specified arguments: 'Edm.Int32', 'Edm.String'."),
        ("$filter=tolower(name)%20eq%20'a'", "The function is not supported as an operand of a comparison."),
        ("$top=-1", "Invalid value '-1' for $top query option found. The $top query option requires a non-negative integer value."),
        ("$top=1&$top=2", "Query option '$top' was specified more than once, but it must be specified at most once."),
        ("$skiptoken=made-up", "Malformed XML in the Paging Cookie"),
        ("$deltatoken=made-up", "Invalid delta token."),
    ],
)  # fmt: skip
def test_wrong_queries_are_refused_with_the_reason(client, query, message):
    error = refused(client, f"/accounts?{query}")
    assert error == {"code": "0x80060888", "message": message}


def test_other_options_without_a_dollar_are_ignored(client, rows):
    assert client.call("GET", f"{API}/accounts?$top=1&tag=hub").status == 200
    for other_language in ("fetchXml=%3Cfetch/%3E", "sql=SELECT%20name%20FROM%20account"):
        assert client.call("GET", f"{API}/accounts?{other_language}").status == 501


def test_unlimited_nesting_and_conditions_are_refused(client):
    assert (
        client.call("GET", f"{API}/accounts" + options(filter="(" * 150 + "name eq 'a'" + ")" * 150)).status
        == 400
    )
    assert (
        client.call("GET", f"{API}/accounts" + options(filter=" or ".join(["name eq 'a'"] * 501))).status
        == 400
    )


def test_unknown_sets_rows_and_keys(client):
    assert client.call("GET", f"{API}/nosuch").status == 404
    assert (
        client.call("GET", f"{API}/account").json()["error"]["message"]
        == "Resource not found for the segment 'account'."
    )
    missing = client.call("GET", f"{API}/accounts({uuid.uuid4()})")
    assert (missing.status, missing.code) == (404, "0x80040217")
    assert client.call("GET", f"{API}/accounts(accountnumber='none')").status == 404
    assert client.call("GET", f"{API}/accounts(name='x')").status == 400
    assert client.call("GET", "/api/data/v8.2/accounts").status == 404
    assert client.call("PUT", f"{API}/accounts").status == 405


def test_expand_follows_lookups_and_collections_one_level(client, rows):
    row = get(
        client,
        f"/accounts({rows['child']})"
        + options(
            select="name",
            expand="primarycontactid($select=fullname),contact_customer_accounts($select=lastname)",
        ),
    )
    assert row["primarycontactid"]["fullname"] == "Zoé Ñandú"
    assert [c["lastname"] for c in row["contact_customer_accounts"]] == ["Pérez"]
    page = get(
        client,
        "/accounts"
        + options(
            select="name",
            filter="name eq 'Parent'",
            expand="primarycontactid,account_parent_account($select=name)",
        ),
    )
    assert page["value"][0]["primarycontactid"] is None
    assert [a["name"] for a in page["value"][0]["account_parent_account"]] == ["O'Brien & Söhne"]
    owner = get(
        client, f"/accounts({rows['child']})" + options(select="name", expand="createdby($select=fullname)")
    )
    assert owner["createdby"]["fullname"]


def expanded(client, rows, text, **headers):
    path = f"/accounts({rows['child']})" + options(select="name", expand=text)
    return client.call("GET", API + path, headers=headers or None)


def test_an_expanded_list_takes_filter_order_and_top_and_is_not_paged(client):
    family = {"child": create(client, "accounts", name="Family")}
    for n in range(4):
        bound = {"parentcustomerid_account@odata.bind": f"/accounts({family['child']})"}
        create(client, "contacts", lastname=f"L{n};)", **bound)
    inner = "$select=lastname;$filter=lastname ge 'L1;)' and startswith(lastname,'L');$orderby=lastname desc"
    for more, wanted in (("", ["L3;)", "L2;)", "L1;)"]), (";$top=2", ["L3;)", "L2;)"])):
        text = f"contact_customer_accounts({inner}{more})"
        row = expanded(client, family, text, Prefer="odata.maxpagesize=1").json()
        assert [c["lastname"] for c in row["contact_customer_accounts"]] == wanted
        # What comes with the rows of a list unasked: their etag, their key, and the lookup that leads back.
        for contact in row["contact_customer_accounts"]:
            assert contact.keys() == {"@odata.etag", "lastname", "contactid", "_parentcustomerid_value"}


def test_an_expanded_list_always_has_a_link_and_it_leads_to_the_whole_list(client, rows):
    row = expanded(
        client, rows, "contact_customer_accounts($select=lastname;$top=1),account_parent_account"
    ).json()
    link = row["contact_customer_accounts@odata.nextLink"]
    assert link.endswith(f"/accounts({rows['child']})/contact_customer_accounts?$select=lastname&$top=1")
    again = client.call("GET", link).json()["value"]
    assert [c["contactid"] for c in again] == [c["contactid"] for c in row["contact_customer_accounts"]]
    assert row["account_parent_account"] == []
    assert row["account_parent_account@odata.nextLink"].endswith("/account_parent_account")


def test_what_is_behind_a_lookup_has_no_etag_and_no_link_but_annotations_as_asked(client, rows):
    row = expanded(client, rows, "primarycontactid($select=fullname,statecode)", **EVERYTHING).json()
    assert row["primarycontactid"] == {
        "fullname": "Zoé Ñandú",
        "statecode": 0,
        "statecode@OData.Community.Display.V1.FormattedValue": "Active",
        "contactid": rows["contact"],
    }
    assert "primarycontactid@odata.nextLink" not in row
    text = "contact_customer_accounts($select=_parentcustomerid_value;$top=1)"
    lookup = "_parentcustomerid_value@Microsoft.Dynamics.CRM.lookuplogicalname"
    assert (
        expanded(client, rows, text, **EVERYTHING).json()["contact_customer_accounts"][0][lookup] == "account"
    )
    assert lookup not in expanded(client, rows, text).json()["contact_customer_accounts"][0]


@pytest.mark.parametrize(
    ("text", "status", "message"),
    [
        ("primarycontactid($top=1)", 400, "Only $select and $filter clause can be provided"),
        ("primarycontactid($orderby=fullname)", 400, "Only $select and $filter clause can be provided"),
        ("primarycontactid($filter=lastname eq 'x')", 501, "this sandbox does not have"),
        (
            "contact_customer_accounts($skip=1)",
            400,
            "The query option '$skip' is not supported inside $expand.",
        ),
        ("contact_customer_accounts($select=nope)", 400, "Could not find a property named 'nope'"),
        (",".join(["createdby"] * 16), 400, "maximum limit of 15"),
    ],
)
def test_what_can_not_be_expanded_is_refused(client, rows, text, status, message):
    answer = expanded(client, rows, text)
    assert (answer.status, message in answer.json()["error"]["message"]) == (status, True)


def test_expanding_needs_the_right_to_read_what_is_expanded(client, rows):
    client.call("POST", "/_sandbox/options", {"deny": ["prvReadContact"]})
    try:
        for text in ("primarycontactid", "contact_customer_accounts"):
            refused = expanded(client, rows, text)
            assert (refused.status, refused.code) == (403, "0x80040220")
        assert expanded(client, rows, "parentaccountid").status == 200
    finally:
        client.call("POST", "/_sandbox/options", {"deny": []})


def test_below_a_row_are_its_properties_lookups_and_collections(client, rows):
    at = f"/accounts({rows['child']})"
    assert get(client, f"{at}/name")["value"] == "O'Brien & Söhne"
    assert client.call("GET", f"{API}{at}/name/$value").body.decode() == "O'Brien & Söhne"
    assert client.call("GET", f"{API}{at}/telephone1").status == 204
    assert get(client, f"{at}/primarycontactid" + options(select="lastname"))["lastname"] == "Ñandú"
    assert get(client, f"{at}/primarycontactid/$ref")["@odata.id"].endswith(f"/contacts({rows['contact']})")
    assert len(get(client, f"{at}/contact_customer_accounts")["value"]) == 1
    assert client.call("GET", f"{API}{at}/nonsense").status == 404


def test_an_unchanged_row_is_not_sent_again_unless_annotated_or_expanded(client, rows):
    path = f"/accounts({rows['child']})" + options(select="name")
    etag = get(client, path)["@odata.etag"]
    same = client.call("GET", API + path, headers={"If-None-Match": etag})
    assert (same.status, same.body) == (304, b"")
    assert client.call("GET", API + path, headers={"If-None-Match": 'W/"1"'}).status == 200
    assert client.call("GET", API + path, headers={"If-None-Match": "null"}).status == 200
    assert client.call("GET", API + path, headers={"If-None-Match": etag, **EVERYTHING}).status == 200


@pytest.fixture(scope="module")
def many():
    """A sandbox of its own with twelve accounts, several of which share every sort value."""
    with running(Dataverse()) as sandbox, signed_in(sandbox) as client:
        for n in range(12):
            create(client, "accounts", name=f"N{n % 3}", numberofemployees=n if n % 4 else None)
        yield client


def walk(client, path, size):
    """All pages by their links; the page size is asked for again each time."""
    pages, link = [], API + path
    while link:
        answer = client.call("GET", link, headers={"Prefer": f"odata.maxpagesize={size}"})
        assert answer.status == 200, answer.body
        pages.append(answer.json()["value"])
        link = answer.json().get("@odata.nextLink")
    return pages


@pytest.mark.parametrize(
    "order",
    [
        "",
        "name",
        "name desc",
        "numberofemployees desc,name",
        "numberofemployees,accountid desc",
        "modifiedon,accountid",
    ],
)
@pytest.mark.parametrize("size", [1, 5, 12])
def test_pages_give_every_row_once_and_in_order(many, order, size):
    pages = walk(
        many,
        "/accounts" + options(select="name,numberofemployees", **({"orderby": order} if order else {})),
        size,
    )
    rows = [r for page in pages for r in page]
    assert [len(p) for p in pages[:-1]] == [size] * (len(pages) - 1)
    assert len({r["accountid"] for r in rows}) == len(rows) == 12
    if order.startswith("name"):
        assert [r["name"] for r in rows] == sorted((r["name"] for r in rows), reverse=order.endswith("desc"))
    if order.startswith("numberofemployees,"):
        assert [r["numberofemployees"] for r in rows[:3]] == [None] * 3  # no value sorts first


def test_rows_that_come_or_go_between_pages_shift_nothing(many):
    first = many.call(
        "GET", f"{API}/accounts?$select=name&$orderby=name", headers={"Prefer": "odata.maxpagesize=5"}
    ).json()
    new = create(many, "accounts", name="A first")
    rest = walk(many, first["@odata.nextLink"].removeprefix(many.origin + API), 5)
    ids = [r["accountid"] for r in [*first["value"], *(r for p in rest for r in p)]]
    assert len(set(ids)) == len(ids) == 12
    assert many.call("DELETE", f"{API}/accounts({new})").status == 204


def test_top_limits_but_loses_against_a_page_size(many):
    top = get(many, "/accounts" + options(top="3"))
    assert len(top["value"]) == 3
    assert "@odata.nextLink" not in top
    both = get(many, "/accounts" + options(top="3"), {"Prefer": "odata.maxpagesize=5"})
    assert len(both["value"]) == 5
    assert "@odata.nextLink" in both


def test_a_page_is_never_larger_than_the_cap(many):
    assert many.call("POST", "/_sandbox/options", {"page_cap": 4}).status == 200
    try:
        assert len(get(many, "/accounts")["value"]) == 4
        assert len(get(many, "/accounts", {"Prefer": "odata.maxpagesize=9999"})["value"]) == 4
    finally:
        many.call("POST", "/_sandbox/options", {"page_cap": 5000})
    assert many.call("GET", f"{API}/accounts", headers={"Prefer": "odata.maxpagesize=0"}).status == 400


def test_counts(many):
    page = get(many, "/accounts" + options(count="true", filter="name eq 'N1'", top="1"))
    assert page["@odata.count"] == 4
    assert many.call("GET", f"{API}/accounts/$count").body == b"12"
    total = get(many, "/RetrieveTotalRecordCount(EntityNames=['account','contact'])")[
        "EntityRecordCountCollection"
    ]
    assert dict(zip(total["Keys"], total["Values"], strict=True)) == {"account": 12, "contact": 0}
    alias = get(many, "/RetrieveTotalRecordCount(EntityNames=@p1)?@p1=[%22account%22]")[
        "EntityRecordCountCollection"
    ]
    assert alias["Values"] == [12]


def test_a_count_stops_at_5000_and_says_so():
    system = Dataverse()
    system.fill("account", 5001, 1)
    with running(system) as sandbox, signed_in(sandbox) as client:
        page = get(client, "/accounts" + options(count="true", top="1", select="name"), EVERYTHING)
        assert page["@odata.count"] == 5000
        assert page["@Microsoft.Dynamics.CRM.totalrecordcountlimitexceeded"] is True
