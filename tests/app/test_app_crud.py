"""Live CRUD of accounts: what a caller sends arrives at the Dataverse sandbox, and what it holds comes back whole."""

import json
import uuid
from decimal import Decimal
from urllib.parse import quote, quote_plus

import pytest

pytestmark = [pytest.mark.xdist_group("app-api"), pytest.mark.usefixtures("demo")]

ACCOUNTS = "/api/crm/accounts"
TECNOLOGIA = ("Tecnología Ñandú S.A.", "Alta Tecnología de México", "IT Tecnología")


@pytest.fixture
def companies(account):
    """Three companies of technology with growing revenue, and one that is none."""
    made = {
        name: account(name=name, revenue=revenue)
        for name, revenue in zip(TECNOLOGIA, (500_000, 1_500_000, 2_500_000), strict=True)
    }
    account(name="Panadería La Espiga", revenue=9_000_000)
    return made


def names(page):
    return sorted(each["name"] for each in page["value"])


def filtered(text, parameter="filter", more=""):
    return f"{ACCOUNTS}?{quote(parameter)}={quote(text)}{more}"


# --- the seed's calls, as written --------------------------------------------------------------------------------


def test_the_seed_s_search_by_name_url_encoded_by_the_client(api, companies):
    found = api.ok("GET", f"{ACCOUNTS}?filter_query=" + quote("contains(name,'Tecnología')"))
    assert names(found) == sorted(TECNOLOGIA)
    assert {each["id"] for each in found["value"]} == set(companies.values())


def test_the_seed_s_search_by_name_in_raw_utf8(api, companies):
    target = f"{ACCOUNTS}?filter_query=contains(name,'Tecnología')".encode()
    head = b" HTTP/1.1\r\nHost: hub\r\nX-API-KEY: " + api.key.encode() + b"\r\nConnection: close\r\n\r\n"
    status, headers, body = api.raw(b"GET " + target + head)
    assert (status, headers["content-type"]) == (200, "application/json")
    assert names(json.loads(body)) == sorted(TECNOLOGIA)
    assert "Tecnología".encode() in body


def test_a_plus_is_a_space_and_an_encoded_plus_is_a_plus(api, account, companies):
    plus = account(name="A+B Tecnología", revenue=1)
    text = "contains(name,'Tecnología') and revenue gt 1000000"
    assert names(api.ok("GET", f"{ACCOUNTS}?filter_query={quote_plus(text)}")) == sorted(TECNOLOGIA[1:])
    found = api.ok("GET", f"{ACCOUNTS}?filter_query=" + quote_plus("name eq 'A+B Tecnología'"))
    assert [each["id"] for each in found["value"]] == [plus]


@pytest.mark.parametrize(
    "text",
    [
        "contains(name,'Tecnología') and revenue gt 1000000",
        "contains(name,'Tecnología') and annual_revenue gt 1000000",
        "contains(name,'Tecnología') and statecode eq 0 and revenue gt 1000000 and revenue lt 1e7",
        "contains(name,'Tecnología') and status eq 'active' and not (name eq 'Tecnología Ñandú S.A.')",
        "contains(name,'Tecnología') and (revenue ge 1500000.00 and revenue le 2500000)",
        "name in ('Alta Tecnología de México', 'IT Tecnología', 'No such company')",
        "startswith(name,'IT Tec') or endswith(name,'gía de México')",
        "createdon gt 2025-01-01T00:00:00Z and contains(name,'Tecnología') and revenue ne 500000",
        "created_at gt 2025-01-01 and contains(name,'Tecnología') and revenue ne 500000",
    ],
)
def test_filters_take_native_and_canonical_names(api, companies, text):
    assert names(api.ok("GET", filtered(text))) == sorted(TECNOLOGIA[1:])


@pytest.mark.parametrize("parameter", ["filter", "$filter", "filter_query", "%24filter", "$filter_query"])
def test_the_filter_has_several_names(api, companies, parameter):
    path = f"{ACCOUNTS}?{parameter}=" + quote("startswith(name,'IT Tec')")
    assert names(api.ok("GET", path)) == ["IT Tecnología"]


def test_the_seed_s_list_with_a_status_and_a_page_size(api, companies):
    found = api.ok("GET", f"{ACCOUNTS}?filter_query=statuscode eq 1&top=25")
    assert len(found["value"]) == 25
    assert {each["status"] for each in found["value"]} == {"active"}
    assert found["nextLink"]


def test_the_seed_s_create_takes_native_names(api, sandbox):
    body = {
        "name": "IT Quest Solutions",
        "telephone1": "+1-555-0123",
        "emailaddress1": "info@itqs.com",
        "websiteurl": "https://www.itqs.com",
    }
    made = api("POST", ACCOUNTS, body)
    assert made.status_code == 201
    item = made.json()
    assert {name: item[name] for name in ("entity", "connection", "name", "phone", "email", "website")} == {
        "entity": "account",
        "connection": "demo",
        "name": "IT Quest Solutions",
        "phone": "+1-555-0123",
        "email": "info@itqs.com",
        "website": "https://www.itqs.com",
    }
    held = sandbox.values(item["id"])
    assert {name: held[name] for name in body} == body
    assert made.headers["ETag"] == item["etag"]
    assert made.headers["Location"] == f"{ACCOUNTS}/{item['id']}?connection=demo"
    assert api.ok("GET", made.headers["Location"]) == item
    sandbox.delete(item["id"])


def test_the_seed_s_update_and_delete(api, sandbox, account):
    rid = account(name="Sistema de facturación")
    changed = api.ok("PATCH", f"{ACCOUNTS}/{rid}", {"name": "Sistema de facturación - RESUELTO"})
    assert changed["name"] == "Sistema de facturación - RESUELTO"
    assert sandbox.values(rid)["name"] == "Sistema de facturación - RESUELTO"
    answer = api("DELETE", f"{ACCOUNTS}/{rid}?confirm=true")
    assert (answer.status_code, answer.content) == (204, b"")
    assert rid not in sandbox.accounts()


def test_ids_are_taken_in_capitals_too(api, account):
    rid = account(name="Capital")
    assert api.ok("GET", f"{ACCOUNTS}/{rid.upper()}")["id"] == rid


# --- lists -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "query",
    [
        "top=7",
        "top=7&orderby=name",
        "top=7&orderby=name desc",
        "$top=9&$orderby=revenue desc,telephone1 asc&$select=name,revenue",
        "top=9&orderby=kind&filter=statecode eq 0",
        "top=11&orderby=annual_revenue,name desc&filter=contains(name,'a') or revenue gt 0",
        "top=13&orderby=updated_at desc&raw=true",
    ],
)
def test_nextlink_leads_through_every_row_exactly_once(api, sandbox, query):
    pages = list(api.pages(f"{ACCOUNTS}?{query}"))
    ids = [each["id"] for page in pages for each in page]
    whole = api.ok("GET", f"{ACCOUNTS}?top=1000&{query.partition('&')[2]}")
    assert "nextLink" not in whole
    assert ids == [each["id"] for each in whole["value"]]
    assert len(set(ids)) == len(ids)
    if "filter" not in query:
        assert set(ids) == sandbox.accounts().keys()
    top = int(query.split("top=")[1].split("&")[0])
    assert {len(page) for page in pages[:-1]} == {top}
    assert len(pages[-1]) <= top


def test_orderby_orders(api):
    items = api.ok("GET", f"{ACCOUNTS}?top=1000&orderby=employees desc&filter=employees ne null")["value"]
    counts = [each["employees"] for each in items]
    assert counts == sorted(counts, reverse=True)
    assert len(counts) > 10


def test_select_gives_the_named_fields_only(api):
    always = {"id", "entity", "connection", "etag"}
    one = api.ok("GET", f"{ACCOUNTS}?top=1&select=name,phone")["value"][0]
    assert one.keys() == always | {"name", "phone"}
    native = api.ok("GET", f"{ACCOUNTS}?top=1&$select=name,telephone1")["value"][0]
    assert native == one


def test_select_takes_properties_without_a_canonical_name(api, account):
    rid = account(name="With a fax", fax="+1 2", creditonhold=True)
    items = api.ok("GET", f"{ACCOUNTS}?select=fax,creditonhold&filter=fax eq '%2B1 2'")["value"]
    etag = items[0].pop("etag")
    assert items == [
        {"id": rid, "entity": "account", "connection": "demo", "fax": "+1 2", "creditonhold": True}
    ]
    assert etag


def test_raw_adds_the_remote_s_own_answer(api, account):
    rid = account(name="Raw", revenue=12, customertypecode=3)
    plain = api.ok("GET", f"{ACCOUNTS}/{rid}")
    item = api.ok("GET", f"{ACCOUNTS}/{rid}?raw=true")
    raw = item.pop("raw")
    assert item == plain
    assert (raw["accountid"], raw["name"], raw["customertypecode"], raw["revenue"]) == (rid, "Raw", 3, 12)
    assert raw["@odata.etag"] == item["etag"]
    assert "@odata.context" not in raw
    listed = api.ok("GET", f"{ACCOUNTS}?raw=1&filter=name eq 'Raw'")["value"]
    assert listed[0]["raw"]["accountid"] == rid
    assert "raw" not in api.ok("GET", f"{ACCOUNTS}?raw=false&filter=name eq 'Raw'")["value"][0]


def test_a_connection_is_named_by_slug_or_uid(api, demo, companies):
    by_slug = api.ok("GET", filtered("name eq 'IT Tecnología'", more="&connection=demo"))
    by_uid = api.ok("GET", filtered("name eq 'IT Tecnología'", more=f"&connection={demo['uid']}"))
    assert by_slug == by_uid == api.ok("GET", filtered("name eq 'IT Tecnología'"))
    assert by_slug["value"][0]["connection"] == "demo"


# --- ETags -------------------------------------------------------------------------------------------------------


def test_if_none_match_answers_304_until_the_record_changes(api, sandbox, account):
    rid = account(name="Cached")
    first = api("GET", f"{ACCOUNTS}/{rid}")
    etag = first.headers["ETag"]
    again = api("GET", f"{ACCOUNTS}/{rid}", headers={"If-None-Match": etag})
    assert (again.status_code, again.content, again.headers["ETag"]) == (304, b"", etag)
    sandbox.update(rid, name="Cached no more")
    changed = api("GET", f"{ACCOUNTS}/{rid}", headers={"If-None-Match": etag})
    assert (changed.status_code, changed.json()["name"]) == (200, "Cached no more")
    assert changed.headers["ETag"] != etag


@pytest.mark.parametrize("query", ["", "?raw=true"])
def test_head_is_get_without_the_body(api, account, query):
    rid = account(name="Head")
    got = api("GET", f"{ACCOUNTS}/{rid}{query}")
    answer = api("HEAD", f"{ACCOUNTS}/{rid}{query}")
    assert (answer.status_code, answer.content) == (200, b"")
    assert answer.headers["ETag"] == got.headers["ETag"]
    assert answer.headers["Content-Type"] == "application/json"


def test_head_of_a_missing_record_is_404(api):
    answer = api("HEAD", f"{ACCOUNTS}/{uuid.uuid4()}")
    assert (answer.status_code, answer.content) == (404, b"")


def test_a_patch_with_the_right_if_match_changes_and_gives_the_next_etag(api, account):
    rid = account(name="Matched")
    etag = api.ok("GET", f"{ACCOUNTS}/{rid}")["etag"]
    changed = api("PATCH", f"{ACCOUNTS}/{rid}", {"phone": "1"}, headers={"If-Match": etag})
    assert changed.status_code == 200
    assert changed.headers["ETag"] == changed.json()["etag"] != etag
    again = api("PATCH", f"{ACCOUNTS}/{rid}", {"phone": "2"}, headers={"If-Match": changed.headers["ETag"]})
    assert again.json()["phone"] == "2"
    assert api("PATCH", f"{ACCOUNTS}/{rid}", {"phone": "3"}, headers={"If-Match": "*"}).status_code == 200


STALE = "The record has changed since it was read; read it again and repeat the change."


@pytest.mark.parametrize("method", ["PATCH", "DELETE"])
def test_a_stale_if_match_is_412_and_nothing_is_done(api, problem, sandbox, account, method):
    rid = account(name="Stale")
    etag = api.ok("GET", f"{ACCOUNTS}/{rid}")["etag"]
    sandbox.update(rid, name="Changed by a person")
    body = {"name": "Lost update"} if method == "PATCH" else None
    query = "?confirm=true" if method == "DELETE" else ""
    answer = api(method, f"{ACCOUNTS}/{rid}{query}", body, headers={"If-Match": etag})
    problem(answer, 412, "Stale", STALE)
    assert sandbox.values(rid)["name"] == "Changed by a person"


# --- values ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sent", "held"),
    [
        ('"0.1"', "0.1"),
        ("0.1", "0.1"),
        ('"922337203685476.58"', "922337203685476.58"),
        ("922337203685476.58", "922337203685476.58"),
        ('"-922337203685476.58"', "-922337203685476.58"),
        ("90071992547409.93", "90071992547409.93"),
        ('"1250.50"', "1250.50"),
        ("1e3", "1000"),
        ("0", "0"),
        ('"-0.01"', "-0.01"),
    ],
)
def test_money_is_a_decimal_text_without_any_loss(api, sandbox, account, sent, held):
    """As text or as a number of JSON, in the answer as text: it never passes through a binary fraction."""
    rid = account(name="Money")
    seen = sandbox.last_request()
    for name in ("annual_revenue", "revenue"):
        changed = api.ok("PATCH", f"{ACCOUNTS}/{rid}", data=f'{{"{name}": {sent}}}')
        assert isinstance(changed["annual_revenue"], str)
        assert Decimal(changed["annual_revenue"]) == Decimal(held)
    assert "E" not in changed["annual_revenue"].upper()
    assert api.ok("GET", f"{ACCOUNTS}/{rid}")["annual_revenue"] == changed["annual_revenue"]
    found = api.ok("GET", filtered(f"name eq 'Money' and revenue eq {held}"))["value"]
    assert [each["id"] for each in found] == [rid]
    # What travelled: all digits, as a plain number.
    bodies = [each["body"] for each in sandbox.requests_since(seen) if each["method"] == "PATCH"]
    numbers = [json.loads(each, parse_float=Decimal, parse_int=Decimal)["revenue"] for each in bodies]
    assert numbers == [Decimal(held)] * 2


@pytest.mark.parametrize(
    ("body", "native", "field", "value"),
    [
        ({"kind": "customer"}, ("customertypecode", 3), "kind", "customer"),
        ({"customertypecode": 3}, ("customertypecode", 3), "kind", "customer"),
        ({"kind": "native:11"}, ("customertypecode", 11), "kind", "native:11"),
        ({"customertypecode": 11}, ("customertypecode", 11), "kind", "native:11"),
        ({"industry": "Consulting"}, ("industrycode", 7), "industry", "Consulting"),
        ({"industrycode": 7}, ("industrycode", 7), "industry", "Consulting"),
        ({"status": "inactive"}, ("statecode", 1), "status", "inactive"),
        ({"statecode": 1}, ("statecode", 1), "status", "inactive"),
    ],
)
def test_choices_by_name_by_native_value_and_by_native_name(
    api, sandbox, account, body, native, field, value
):
    rid = account(name="Choice")
    assert api.ok("PATCH", f"{ACCOUNTS}/{rid}", body)[field] == value
    assert sandbox.values(rid)[native[0]] == native[1]
    for text in (
        f"{field} eq '{value}'",
        f"{native[0]} eq {native[1]}",
        f"{field} in ('{value}', 'native:99')",
    ):
        found = api.ok("GET", filtered(f"name eq 'Choice' and {text}"))["value"]
        assert [each["id"] for each in found] == [rid], text
    assert api.ok("GET", filtered(f"name eq 'Choice' and {field} ne '{value}'"))["value"] == []


@pytest.mark.parametrize("nothing", [None, ""])
def test_a_patch_with_null_or_empty_text_clears_the_field_and_no_other(api, sandbox, account, nothing):
    parent = account(name="Parent")
    rid = account(name="Full", telephone1="1", revenue=5, customertypecode=3, emailaddress1="a@b.example")
    api.ok("PATCH", f"{ACCOUNTS}/{rid}", {"parent_id": parent})
    assert sandbox.values(rid)["_parentaccountid_value"] == parent
    cleared = dict.fromkeys(("phone", "annual_revenue", "kind", "parent_id", "street"), nothing)
    item = api.ok("PATCH", f"{ACCOUNTS}/{rid}", cleared)
    assert [item[name] for name in cleared] == [None] * 5
    assert (item["name"], item["email"]) == ("Full", "a@b.example")
    held = sandbox.values(rid)
    assert not held.keys() & {"telephone1", "revenue", "customertypecode", "_parentaccountid_value"}


def test_only_the_named_fields_travel(api, sandbox, account):
    rid = account(name="Few", telephone1="1")
    seen = sandbox.last_request()
    api.ok("PATCH", f"{ACCOUNTS}/{rid}", {"phone": "2"})
    patches = [each for each in sandbox.requests_since(seen) if each["method"] == "PATCH"]
    assert [json.loads(each["body"]) for each in patches] == [{"telephone1": "2"}]


TEXTS = [
    "O'Brien & Søn",
    "''' quotes '' and \"doubles\" and `ticks`",
    "100% +1 %41 %2B %zz",
    "a+b c&d=e?f#g;h/i\\j",
    "日本語の会社 株式会社",
    "شركة التقنية",
    "😀 emoji 👩‍👩‍👧‍👦 family",
    "e\u0301 combining and \u00e9 composed",
    "<script>alert(1)</script> {name|upper} ${x} {{7*7}}",
    "null",
    "native:3",
    "') or 1 eq 1 or contains(name,'",
    "x' eq 'x",
]


@pytest.mark.parametrize("text", TEXTS)
def test_every_text_comes_back_as_it_was_and_is_found_by_a_filter(api, sandbox, text):
    """In a body, at the remote, in an answer, and as a quoted literal, where a quote is written twice."""
    body = {"name": text, "description": f"1\t2\r\n3 {text}", "street": text}
    made = api("POST", ACCOUNTS, body)
    assert made.status_code == 201, made.text
    rid = made.json()["id"]
    held = sandbox.values(rid)
    assert (held["name"], held["description"], held["address1_line1"]) == tuple(body.values())
    item = api.ok("GET", f"{ACCOUNTS}/{rid}")
    assert {name: item[name] for name in body} == body
    literal = text.replace("'", "''")
    for condition in (f"name eq '{literal}'", f"contains(name,'{literal}') and description ne null"):
        found = api.ok("GET", filtered(condition))["value"]
        assert [each["name"] for each in found if each["id"] == rid] == [text]
        assert len(found) == 1
    sandbox.delete(rid)


def test_a_native_property_without_a_canonical_name_can_be_written(api, sandbox, account):
    rid = account(name="Native")
    api.ok("PATCH", f"{ACCOUNTS}/{rid}", {"fax": "12", "creditonhold": True})
    held = sandbox.values(rid)
    assert (held["fax"], held["creditonhold"]) == ("12", True)
    found = api.ok("GET", filtered("name eq 'Native' and fax eq '12' and creditonhold eq true"))["value"]
    assert [each["id"] for each in found] == [rid]


# --- writes whose answer is lost ---------------------------------------------------------------------------------


def test_a_create_whose_answer_is_lost_is_made_once(api, sandbox, faults):
    """The connection breaks after the write; the hub asks again under the id it gave."""
    name = f"Lost answer {uuid.uuid4()}"
    faults("reset_after", method="PATCH", path="*/accounts*")
    made = api("POST", ACCOUNTS, {"name": name})
    assert made.status_code == 201, made.text
    assert sandbox.named(name) == [made.json()["id"]]
    sandbox.delete(made.json()["id"])


def test_a_passing_failure_of_the_remote_is_not_the_caller_s_trouble(api, account, faults, sandbox):
    rid = account(name="Patience")
    faults("status", status=503, path="*/accounts*")
    assert api.ok("GET", f"{ACCOUNTS}/{rid}")["name"] == "Patience"
    faults("throttle", retry_after=1, path="*/accounts*")
    assert api.ok("GET", f"{ACCOUNTS}/{rid}")["name"] == "Patience"
    sandbox.control("POST", "tokens/revoke")
    assert api.ok("GET", f"{ACCOUNTS}/{rid}")["name"] == "Patience"


# --- deleting ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("query", ["", "?confirm=false", "?confirm=0", "?confirm="])
def test_a_delete_without_confirm_is_refused_and_nothing_goes(api, sandbox, account, query):
    rid = account(name="Stays")
    assert api("DELETE", f"{ACCOUNTS}/{rid}{query}").status_code == 400
    assert sandbox.values(rid)["name"] == "Stays"


def test_a_deleted_record_is_gone_for_every_method(api, account):
    rid = account(name="Gone")
    etag = api.ok("GET", f"{ACCOUNTS}/{rid}")["etag"]
    assert api("DELETE", f"{ACCOUNTS}/{rid}?confirm=1", headers={"If-Match": etag}).status_code == 204
    for method, query, body in (
        ("GET", "", None),
        ("PATCH", "", {"name": "Back?"}),
        ("DELETE", "?confirm=true", None),
    ):
        answer = api(method, f"{ACCOUNTS}/{rid}{query}", body)
        assert (answer.status_code, answer.json()["code"]) == (404, "RecordGone")
