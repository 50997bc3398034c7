"""Bad input and bad remotes: each answer is exactly the problem+json that a caller can act on."""

import json
import re
import socket
import uuid
from urllib.parse import quote

import pytest

from crm_core.connectors.dynamics365 import Dynamics365
from crm_core.functions.endpoint import rendered
from crm_core.functions.web import Reply
from crm_core.log import new_trace
from crm_core.model.entities import BY_PATH

pytestmark = [pytest.mark.xdist_group("app-api"), pytest.mark.usefixtures("demo")]

ACCOUNTS = "/api/crm/accounts"
RID = "629ca2a0-024a-ea11-a815-000d3a591218"
KNOWN = ", ".join(Dynamics365.entities["account"].by_field)
ENTITIES = f"known are {', '.join(BY_PATH)}."
PULLED = ", ".join(Dynamics365.entities)
IN_SETTINGS = ", ".join(each.name for each in Dynamics365.settings if not each.secret)
IN_SECRETS = ", ".join(each.name for each in Dynamics365.settings if each.secret)
OPERATORS = "known are eq, ne, gt, ge, lt, le, in, and, or, not, contains, startswith, endswith."
BAD_ID = "id: expected an id such as 629ca2a0-024a-ea11-a815-000d3a591218."
CONFIRM = "confirm: a delete can't be taken back; say confirm=true."
QUERY_PARAMETERS = "connection, filter, select, orderby, expand, top, count, skiptoken, raw, stale"
DECIMAL = 'expected a decimal number, as text ("1250.50") or as a number'
INSTANT = "a time with a zone, such as 2026-11-24T13:45:00Z"


def bad(problem, answer, detail, *fields, **more):
    """400, with the detail under the named fields."""
    problem(answer, 400, "BadRequest", detail, *fields, **more)


# --- paths and methods -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "detail"),
    [
        ("/api/crm/gadgets", f"There is no entity 'gadgets'; {ENTITIES}"),
        ("/api/crm/account", f"There is no entity 'account'; {ENTITIES}"),
        ("/api/crm/Accounts", f"There is no entity 'Accounts'; {ENTITIES}"),
        (f"/api/crm/gadgets/{RID}", f"There is no entity 'gadgets'; {ENTITIES}"),
        ("/api/records/gadgets", f"There is no entity 'gadgets'; {ENTITIES}"),
        (f"/api/records/gadgets/{RID}/history", f"There is no entity 'gadgets'; {ENTITIES}"),
        (f"/api/records/accounts/{RID}", f"There is no stored account '{RID}'."),
        ("/api/records/accounts/zzz", "There is no stored account 'zzz'."),
        ("/api/records/accounts/ñ%27%2F/history", "There is no stored account 'ñ''."),
        ("/api/runs/12345", "There is no run '12345'."),
        ("/api/runs/a~b", "There is no run 'a~b'."),
        ("/api/integrations/nobody", "There is no connection 'nobody'; GET /api/integrations lists them."),
        ("/api/crm/accounts?connection=nobody", "There is no connection 'nobody'; GET /api/integrations lists them."),
        ("/api/crm/system/health?connection=no", "There is no connection 'no'; GET /api/integrations lists them."),
        ("/api/crm/a/b/c", "There is nothing at /api/crm/a/b/c; GET /api/openapi.json lists the routes."),
        ("/api/crm", "There is nothing at /api/crm; GET /api/openapi.json lists the routes."),
        ("/health/more", "There is nothing at /health/more; GET /api/openapi.json lists the routes."),
    ],
)  # fmt: skip
def test_what_is_not_there_is_404_and_says_what_is(api, problem, path, detail):
    if path.endswith("/history") and "ñ" in path:
        detail = (
            "There is nothing at /api/records/accounts/ñ'//history; GET /api/openapi.json lists the routes."
        )
    problem(api("GET", path), 404, "NotFound", detail)


@pytest.mark.parametrize("path", ["/", "/nope", "/api", "/api/nope", "/api/nope/at/all"])
def test_a_path_below_no_function_is_the_host_s_bare_404(api, path):
    answer = api("GET", path)
    assert (answer.status_code, answer.content) == (404, b"")


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("PUT", "/api/crm/accounts", "GET, HEAD, POST"),
        ("DELETE", "/api/crm/accounts", "GET, HEAD, POST"),
        ("PATCH", "/api/crm/accounts", "GET, HEAD, POST"),
        ("OPTIONS", "/api/crm/accounts", "GET, HEAD, POST"),
        ("PUT", f"/api/crm/accounts/{RID}", "DELETE, GET, HEAD, PATCH"),
        ("POST", f"/api/crm/accounts/{RID}", "DELETE, GET, HEAD, PATCH"),
        ("POST", "/health", "GET, HEAD"),
        ("PUT", "/api/records/accounts", "GET, HEAD, POST"),
        ("PUT", f"/api/records/accounts/{RID}", "DELETE, GET, HEAD, PATCH"),
        ("PUT", "/api/integrations", "GET, HEAD, POST"),
        ("POST", "/api/integrations/demo", "DELETE, GET, HEAD, PATCH"),
        ("GET", "/api/integrations/demo/test", "POST"),
        ("DELETE", "/api/runs", "GET, HEAD, POST"),
        ("POST", "/api/openapi.json", "GET, HEAD"),
    ],
)
def test_a_wrong_method_is_405_and_says_which_are_right(api, problem, method, path, allowed):
    answer = api(method, path)
    problem(answer, 405, "MethodNotAllowed", f"{path} does not take {method}; it takes {allowed}.")
    assert answer.headers["Allow"] == allowed


@pytest.mark.parametrize("method", ["GET", "PATCH", "DELETE"])
@pytest.mark.parametrize("rid", ["x", "0", RID[:-1], RID + "0", f"({RID})", "a'b", "ñ"])
def test_a_bad_id_is_400(api, problem, method, rid):
    body = {"name": "x"} if method == "PATCH" else None
    answer = api(method, f"{ACCOUNTS}/{rid}" + ("?confirm=true" if method == "DELETE" else ""), body)
    bad(problem, answer, BAD_ID, "id")


@pytest.mark.parametrize("path", [f"{ACCOUNTS}/{RID}", f"{ACCOUNTS}/{RID}?confirm=false"])
def test_a_delete_without_confirm_is_400(api, problem, path):
    bad(problem, api("DELETE", path), CONFIRM, "confirm")


def test_a_delete_with_a_strange_confirm_is_400(api, problem):
    answer = api("DELETE", f"{ACCOUNTS}/{RID}?confirm=yes")
    bad(problem, answer, "confirm: expected true or false.", "confirm")
    answer = api("DELETE", "/api/integrations/demo")
    bad(
        problem, answer, "confirm: a connection's secrets can't be brought back; say confirm=true.", "confirm"
    )


@pytest.mark.parametrize(
    ("headers", "detail"),
    [
        ({}, "An API key is needed; send it in the header X-API-KEY."),
        ({"X-API-KEY": "wrong"}, "The API key is wrong; send it in the header X-API-KEY."),
        ({"Authorization": "Bearer wrong"}, "The API key is wrong; send it in the header X-API-KEY."),
    ],
)
def test_no_key_and_a_wrong_key_are_401_before_anything_else(api, problem, headers, detail):
    answer = api("POST", f"{ACCOUNTS}?nonsense=1", data="not json", key=None, headers=headers)
    problem(answer, 401, "Unauthenticated", detail)
    assert answer.headers["WWW-Authenticate"] == 'Bearer realm="crm-hub"'


# --- query parameters --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("query", "field", "detail"),
    [
        ("nope=1", "nope", f"nope: is no parameter of this route; known are {QUERY_PARAMETERS}."),
        ("Top=1", "Top", f"Top: is no parameter of this route; known are {QUERY_PARAMETERS}."),
        ("$top=1&top=1", "top", "top: is given twice; send it once, with or without '$'."),
        ("top=1&top=2", "top", "top: is given twice; send it once, with or without '$'."),
        ("filter=name eq 'a'&filter_query=name eq 'a'", "filter_query",
         "filter_query: is given twice, under two names; send one of them."),
        ("top=0", "top", "top: expected a whole number from 1 to 1000."),
        ("top=-1", "top", "top: expected a whole number from 1 to 1000."),
        ("top=abc", "top", "top: expected a whole number from 1 to 1000."),
        ("top=1.5", "top", "top: expected a whole number from 1 to 1000."),
        ("top=100000", "top", "top: expected a whole number from 1 to 1000."),
        ("top=1001", "top", "top: expected a whole number from 1 to 1000."),
        ("raw=yes", "raw", "raw: expected true or false."),
        ("select=nope", "select", f"select: 'nope' is no field of account; known are {KNOWN}."),
        ("select=name,,phone", "select", "select: expected field names with commas between them."),
        ("select=*", "select", "select: expected field names with commas between them."),
        ("select=name)", "select", "select: expected field names with commas between them."),
        ("orderby=nope", "orderby", f"orderby: 'nope' is no field of account; known are {KNOWN}."),
        ("orderby=name up", "orderby",
         "orderby: expected 'field' or 'field desc', with commas between them."),
        ("orderby=name desc phone", "orderby",
         "orderby: expected 'field' or 'field desc', with commas between them."),
        ("orderby=name,", "orderby", "orderby: expected 'field' or 'field desc', with commas between them."),
        ("skiptoken=nonsense", "skiptoken",
         "skiptoken: belongs to another query or was changed; follow nextLink as it is."),
        ("skiptoken=%C3%B1", "skiptoken",
         "skiptoken: belongs to another query or was changed; follow nextLink as it is."),
    ],
)  # fmt: skip
def test_a_bad_query_parameter_is_400_by_its_name(api, problem, query, field, detail):
    bad(problem, api("GET", f"{ACCOUNTS}?{query}"), detail, field)


@pytest.mark.parametrize(
    ("method", "path", "field", "known"),
    [
        ("GET", f"{ACCOUNTS}/{RID}?top=1", "top", "connection, expand, raw, stale"),
        ("PATCH", f"{ACCOUNTS}/{RID}?confirm=true", "confirm", "connection, raw"),
        ("POST", f"{ACCOUNTS}?top=1", "top", "connection, raw"),
        ("GET", "/health?x=1", "x", "none"),
        ("GET", "/api/connectors?top=1", "top", "none"),
        (
            "GET",
            "/api/records/accounts?stale=ok",
            "stale",
            "filter, select, orderby, top, skiptoken, deleted",
        ),
        ("POST", "/api/runs?mode=full", "mode", "none"),
    ],
)
def test_an_unknown_parameter_is_400_on_every_route(api, problem, method, path, field, known):
    answer = api(method, path, {"name": "x"} if method != "GET" else None)
    bad(problem, answer, f"{field}: is no parameter of this route; known are {known}.", field)


FOREIGN = "skiptoken: belongs to another query or was changed; follow nextLink as it is."


@pytest.mark.parametrize(
    "change",
    [
        ("top=5", "top=6"),
        ("orderby=name", "orderby=phone"),
        ("orderby=name&", ""),
        ("/api/crm/accounts", "/api/records/accounts"),
        ("skiptoken=", "raw=true&skiptoken="),
        ("skiptoken=", "filter=name%20ne%20null&skiptoken="),
        ("skiptoken=", "connection=demo&skiptoken="),
    ],
)
def test_a_skiptoken_of_another_query_is_400(api, problem, change):
    following = api.ok("GET", f"{ACCOUNTS}?top=5&orderby=name")["nextLink"]
    other = following.replace(*change)
    assert other != following
    if "/records/" in other:
        other = other.replace("orderby=name&", "")
    bad(problem, api("GET", other), FOREIGN, "skiptoken")
    assert api("GET", following).status_code == 200


@pytest.mark.parametrize("place", [-1, -9, 0.5, 0.1])
def test_a_tampered_skiptoken_is_400(api, problem, place):
    following = api.ok("GET", f"{ACCOUNTS}?top=5")["nextLink"]
    head, token = following.split("skiptoken=")
    at = place if isinstance(place, int) else int(len(token) * place)
    changed = token[:at] + ("A" if token[at] != "A" else "B") + token[at:][1:]
    bad(problem, api("GET", f"{head}skiptoken={changed}"), FOREIGN, "skiptoken")


def test_the_tokens_of_two_lists_are_no_way_into_each_other(api, problem, connect):
    connect("records-walk")
    api.run("records-walk")
    following = api.ok("GET", "/api/records/accounts?top=5")["nextLink"]
    token = following.split("skiptoken=")[1]
    for path in (
        f"{ACCOUNTS}?connection=demo&top=5&",
        f"{ACCOUNTS}?connection=records-walk&top=5&",
        "/api/runs?top=5&",
        "/api/records/accounts?top=6&",
    ):
        bad(problem, api("GET", f"{path}skiptoken={token}"), FOREIGN, "skiptoken")


# --- filters -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "detail"),
    [
        ("nope eq 1", f"filter: 'nope' is no field of account; known are {KNOWN}."),
        ("tax_id eq 'x'", f"filter: 'tax_id' is no field of account; known are {KNOWN}."),
        ("name like 'x'", "The filter can't be read: unexpected \" like 'x'\" at position 5."),
        ("name eq 'a' xor name eq 'b'", "The filter can't be read: unexpected \" xor name eq 'b'\" at position 12."),
        ("name eq", "The filter can't be read: unexpected ' eq' at position 5."),
        ("name eq 'open", "The filter can't be read: unexpected \"'open\" at position 9."),
        ("name eq 'a';drop", "The filter can't be read: unexpected ';drop' at position 12."),
        ('name eq "a"', "The filter can't be read: unexpected '\"a\"' at position 9."),
        ("((((", "The filter can't be read: it ends too early."),
        ("name", f"The filter uses the name 'name'; {OPERATORS}"),
        ("true", f"The filter uses a boolean; {OPERATORS}"),
        ("length(name) eq 3", f"The filter uses the function 'length'; {OPERATORS}"),
        ("matchesPattern(name,'x')", f"The filter uses the function 'matchesPattern'; {OPERATORS}"),
        ("substringof('x',name)",
         "The filter uses the function 'substringof'; use contains, startswith or endswith."),
        ("contains(name)", "The filter can't be read: Function 'contains' takes 2 arguments. 1 given."),
        ("contains(name,3)", f"The filter uses 'contains' with something other than a text in quotes; {OPERATORS}"),
        ("contains(kind,'cust')", "The filter uses contains with kind, which holds no free text; use eq or in."),
        ("contains(revenue,'1')", "The filter uses contains with revenue, which holds no free text; use eq or in."),
        ("parentaccountid/name eq 'x'",
         f"The filter uses a path through another record where a field name belongs; {OPERATORS}"),
        ("x/any(a:a/name eq 'b')", f"The filter uses any or all; {OPERATORS}"),
        ("employees add 1 eq 2", f"The filter uses arithmetic where a field name belongs; {OPERATORS}"),
        ("name eq phone", f"The filter uses the name 'phone' where a value belongs (a text stands in quotes); {OPERATORS}"),
        ("employees eq 'x'", "The filter compares employees with 'x'; expected a whole number."),
        ("employees eq 1.5", "The filter compares employees with '1.5'; expected a whole number."),
        ("revenue gt 'x'", "The filter compares revenue with 'x'; expected a number, without quotes."),
        ("name eq 3", "The filter compares name with '3'; expected a text in quotes."),
        ("createdon gt 'x'", f"The filter compares createdon with 'x'; expected {INSTANT}, without quotes."),
        ("createdon gt 5", f"The filter compares createdon with '5'; expected {INSTANT}."),
        ("creditonhold eq 'yes'", "The filter compares creditonhold with 'yes'; expected true or false, without quotes."),
        ("parent_id eq 'x'",
         "The filter compares parent_id with 'x'; expected an id such as 629ca2a0-024a-ea11-a815-000d3a591218."),
        ("accountid eq 5",
         "The filter compares accountid with '5'; expected an id such as 629ca2a0-024a-ea11-a815-000d3a591218."),
        ("kind eq 'best'",
         ("The filter compares kind with 'best'; "
         "expected one of competitor, customer, partner, prospect, supplier, other.")),
        ("kind gt 'customer'",
         "The filter compares kind gt a name; names have no order, use eq, ne or in."),
        ("name gt null", "The filter compares name gt null; use eq or ne."),
        ("name eq '" + "x" * 4100 + "'", "The filter is longer than 4096 bytes; ask for less at once."),
        ("not (" * 31 + "name eq 'a'" + ")" * 31,
         "The filter is nested deeper than 30; make it flatter."),
        (" or ".join(["employees eq 1"] * 40), "The filter has more than 100 parts; ask for less at once."),
        ("employees in (" + ",".join(map(str, range(120))) + ")",
         "The filter has more than 100 parts; ask for less at once."),
    ],
)  # fmt: skip
def test_a_bad_filter_is_400_and_says_what_is_wrong(api, problem, sandbox, text, detail):
    seen = sandbox.last_request()
    bad(problem, api("GET", f"{ACCOUNTS}?filter={quote(text)}"), detail, "filter")
    assert not [each for each in sandbox.requests_since(seen) if each["path"].endswith("/accounts")]


@pytest.mark.parametrize("parameter", ["$filter", "filter_query"])
def test_a_filter_under_another_name_is_refused_in_the_same_words(api, problem, parameter):
    detail = f"filter: 'nope' is no field of account; known are {KNOWN}."
    bad(problem, api("GET", f"{ACCOUNTS}?{parameter}=nope eq 1"), detail, "filter")


@pytest.mark.parametrize(
    ("text", "status"),
    [
        ("(" * 2000 + "name eq 'a'" + ")" * 2000, 200),  # parentheses alone make nothing deeper
        ("not " * 900 + "name", 400),
        ("(" * 4000, 400),
        ("name eq '" + "''" * 700 + "'", 200),
        ("1 add " * 600 + "1 eq 1", 400),
        ("employees in (" + "1," * 1900 + "1)", 400),
    ],
)
def test_a_hostile_filter_is_answered_in_no_time(api, text, status):
    answer = api("GET", f"{ACCOUNTS}?top=1&filter={quote(text, safe='()')}")
    assert answer.status_code == status, answer.text
    if status == 400:
        assert [each["field"] for each in answer.json()["errors"]] == ["filter"]
    assert answer.elapsed.total_seconds() < 2


# --- bodies ------------------------------------------------------------------------------------------------------

NOT_JSON = [
    ("", "body: is not JSON at line 1, column 1."),
    ("name=x", "body: is not JSON at line 1, column 1."),
    ('{"name": "x"', "body: is not JSON at line 1, column 13."),
    ('{"name": "x",\n "phone": nope}', "body: is not JSON at line 2, column 11."),
    ("{'name': 'x'}", "body: is not JSON at line 1, column 2."),
    ('{"employees": NaN}', "body: is not JSON."),
    ('{"employees": -Infinity}', "body: is not JSON."),
    (b'{"name": "\xff"}', "body: is not JSON."),
    ("[]", 'body: expected a JSON object, such as {"name": "..."}.'),
    ('[{"name": "x"}]', 'body: expected a JSON object, such as {"name": "..."}.'),
    ('"name"', 'body: expected a JSON object, such as {"name": "..."}.'),
    ("null", 'body: expected a JSON object, such as {"name": "..."}.'),
    ("[" * 100_000, "body: is nested too deep."),
    ('{"name": "' + "x" * 1024 * 1024 + '"}', "body: is longer than 1048576 bytes."),
]


@pytest.mark.parametrize(("data", "detail"), NOT_JSON, ids=[str(each[0])[:20] for each in NOT_JSON])
@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", ACCOUNTS),
        ("PATCH", f"{ACCOUNTS}/{RID}"),
        ("POST", "/api/integrations"),
        ("POST", "/api/runs"),
    ],
)
def test_a_body_that_is_no_json_object_is_400(api, problem, method, path, data, detail):
    bad(problem, api(method, path, data=data), detail, "body")


@pytest.mark.parametrize(
    ("body", "field", "detail"),
    [
        ({"nope": 1}, "nope", "nope: is no field of account."),
        ({"name": 5}, "name", "name: expected text."),
        ({"name": {"a": 1}}, "name", "name: expected text."),
        ({"name": ["a"]}, "name", "name: expected text."),
        ({"name": True}, "name", "name: expected text."),
        ({"name": "a\x00b"}, "name", "name: expected text without NUL or half characters."),
        ({"name": "x" * 161}, "name", "name: longer than the 160 characters that the system stores."),
        ({"telephone1": "1" * 51}, "telephone1", "telephone1: longer than the 50 characters that the system stores."),
        ({"description": "x" * 2001}, "description",
         "description: longer than the 2000 characters that the system stores."),
        ({"employees": "5"}, "employees", "employees: expected a whole number."),
        ({"employees": 1.5}, "employees", "employees: expected a whole number."),
        ({"employees": True}, "employees", "employees: expected a whole number."),
        ({"employees": 2**63}, "employees", "employees: expected a whole number of at most 64 bits."),
        ({"annual_revenue": "much"}, "annual_revenue", f"annual_revenue: {DECIMAL}."),
        ({"annual_revenue": False}, "annual_revenue", f"annual_revenue: {DECIMAL}."),
        ({"revenue": []}, "revenue", f"revenue: {DECIMAL}."),
        ({"annual_revenue": "1e31"}, "annual_revenue",
         "annual_revenue: expected a decimal number of at most 30 digits before or after the point."),
        ({"annual_revenue": "NaN"}, "annual_revenue",
         "annual_revenue: expected a decimal number of at most 30 digits before or after the point."),
        ({"kind": "best"}, "kind",
         "kind: expected one of customer, prospect, partner, supplier, competitor, other."),
        ({"kind": 3}, "kind", "kind: expected one of customer, prospect, partner, supplier, competitor, other."),
        ({"status": "asleep"}, "status", "status: expected one of active, inactive."),
        ({"created_at": "2026-01-01T00:00:00Z"}, "created_at", "created_at: is read only; leave it out."),
        ({"modifiedon": "2026-01-01T00:00:00Z"}, "modifiedon", "modifiedon: is read only; leave it out."),
        ({"status_reason": "2"}, "status_reason", "status_reason: is read only; leave it out."),
        ({"deleted_at": None}, "deleted_at", "deleted_at: is not available at this system."),
        ({"tax_id": "x"}, "tax_id", "tax_id: is not available at this system."),
        ({"versionnumber": 1}, "versionnumber", "versionnumber: is read only; leave it out."),
        ({"_parentaccountid_value@odata.bind": "/accounts(x)"}, "_parentaccountid_value@odata.bind",
         "_parentaccountid_value@odata.bind: is no field of account."),
        ({"id": RID}, "id", "id: is no field of account."),
        ({"links": []}, "links", "links: is no field of account."),
        ({"fax": ["1"]}, "fax", "fax: expected a single value."),
        ({"phone": "1", "telephone1": "1"}, "telephone1",
         "telephone1: is given twice, as phone and as telephone1; leave one out."),
        ({}, "body", "The body names no field to write."),
    ],
)  # fmt: skip
def test_a_wrong_value_is_400_by_its_field_and_nothing_is_written(
    api, problem, sandbox, account, body, field, detail
):
    rid = account(name="Untouched")
    before = sandbox.values(rid)
    bad(problem, api("PATCH", f"{ACCOUNTS}/{rid}", body), detail, field)
    assert sandbox.values(rid) == before


def test_every_wrong_field_is_named_at_once(api, problem):
    body = {"nope": 1, "employees": "many", "tax_id": "x", "phone": "1"}
    messages = {
        "nope": "nope: is no field of account.",
        "employees": "employees: expected a whole number.",
        "tax_id": "tax_id: is not available at this system.",
        "name": "name: required to create account.",
    }
    bad(problem, api("POST", ACCOUNTS, body), messages["nope"], messages=messages)


@pytest.mark.parametrize("body", [{}, {"phone": "1"}, {"name": None}, {"name": ""}])
def test_a_create_without_what_is_required_is_400(api, problem, body):
    bad(problem, api("POST", ACCOUNTS, body), "name: required to create account.", "name")


def test_the_trace_of_the_caller_is_in_the_answer(api):
    trace = uuid.uuid4().hex
    answer = api("GET", f"{ACCOUNTS}?nope=1", headers={"traceparent": f"00-{trace}-{'1' * 16}-01"})
    assert answer.json()["traceId"] == trace
    assert answer.headers["traceparent"].split("-")[1] == trace


# --- connections -------------------------------------------------------------------------------------------------

FIVE_OR_SIX = "schedule.cron: expected five or six fields (second minute hour day month weekday), such as '0 */15 * * * *'."
TOO_OFTEN = "schedule.cron: a pull more often than each minute is not supported; use webhooks for that."
SLUG = "slug: expected a lower-case letter, then at most 39 letters, digits, '-' or '_'."
WRONG_CONNECTIONS = [
    ({"slug": "Demo"}, "slug", SLUG),
    ({"slug": "1demo"}, "slug", SLUG),
    ({"slug": "de mo"}, "slug", SLUG),
    ({"slug": "demö"}, "slug", SLUG),
    ({"slug": "demo\n"}, "slug", SLUG),
    ({"slug": ""}, "slug", SLUG),
    ({"slug": "d" * 41}, "slug", "slug: string should have at most 40 characters."),
    ({"slug": None}, "slug", "slug: input should be a valid string."),
    ({"nope": 1}, "nope", "nope: extra inputs are not permitted."),
    ({"settings": "x"}, "settings", "settings: input should be a valid dictionary."),
    ({"entities": {}}, "entities", f"entities: name at least one of {PULLED}."),
    ({"entities": {"gadget": "pull"}}, "entities.gadget",
     f"entities.gadget: Microsoft Dynamics 365 has no such entity here; it has {PULLED}."),
    ({"entities": {"account": "sideways"}}, "entities.account.direction",
     "entities.account.direction: input should be 'pull', 'push' or 'both'."),
    ({"entities": {"account": {"deletes": "all"}}}, "entities.account.deletes",
     "entities.account.deletes: input should be 'ignore', 'mark' or 'propagate'."),
    ({"schedule": {"minutes": 5, "cron": "0 * * * * *"}}, "schedule",
     "schedule: give minutes or cron, not both."),
    ({"schedule": {"minutes": 0}}, "schedule.minutes",
     "schedule.minutes: expected 1 to 10080; changes faster than that come by webhooks."),
    ({"schedule": {"minutes": 10081}}, "schedule.minutes",
     "schedule.minutes: expected 1 to 10080; changes faster than that come by webhooks."),
    ({"schedule": {"minutes": "5"}}, "schedule.minutes", "schedule.minutes: input should be a valid integer."),
    ({"schedule": {"minutes": True}}, "schedule.minutes",
     "schedule.minutes: input should be a valid integer."),
    ({"schedule": {"hours": 5}}, "schedule.hours", "schedule.hours: extra inputs are not permitted."),
    ({"schedule": {"cron": "often"}}, "schedule.cron", FIVE_OR_SIX),
    ({"schedule": {"cron": ""}}, "schedule.cron", FIVE_OR_SIX),
    ({"schedule": {"cron": "0 61 * * * *"}}, "schedule.cron", FIVE_OR_SIX),
    ({"schedule": {"cron": "0 0 0 L * *"}}, "schedule.cron", FIVE_OR_SIX),
    ({"schedule": {"cron": "@daily"}}, "schedule.cron", FIVE_OR_SIX),
    ({"schedule": {"cron": "0 0 0 1 1 * 2030"}}, "schedule.cron", FIVE_OR_SIX),
    ({"schedule": {"cron": "* * * * * *"}}, "schedule.cron", TOO_OFTEN),
    ({"schedule": {"cron": "*/10 * * * * *"}}, "schedule.cron", TOO_OFTEN),
    ({"schedule": {"cron": "0,30 * * * * *"}}, "schedule.cron", TOO_OFTEN),
]  # fmt: skip
WRONG_SETTINGS = [
    ({"base_url": "https://169.254.169.254"}, "settings.base_url",
     ("settings.base_url: '169.254.169.254' is a link-local, metadata or reserved address; "
     "the hub never calls it.")),
    ({"base_url": "https://2852039166"}, "settings.base_url",
     ("settings.base_url: '169.254.169.254' is a link-local, metadata or reserved address; "
     "the hub never calls it.")),
    ({"base_url": "https://[fd00:ec2::254]"}, "settings.base_url",
     ("settings.base_url: 'fd00:ec2::254' is a link-local, metadata or reserved address; "
     "the hub never calls it.")),
    ({"base_url": "https://metadata.google.internal"}, "settings.base_url",
     "settings.base_url: 'metadata.google.internal' is a cloud metadata host; the hub never calls it."),
    ({"base_url": "https://10.1.2.3"}, "settings.base_url",
     "settings.base_url: '10.1.2.3' is a private address; set ALLOW_PRIVATE_HOSTS if the hub may call it."),
    ({"base_url": "https://192.168.0.1:8443"}, "settings.base_url",
     "settings.base_url: '192.168.0.1' is a private address; set ALLOW_PRIVATE_HOSTS if the hub may call it."),
    ({"authority": "https://169.254.169.254"}, "settings.authority",
     ("settings.authority: '169.254.169.254' is a link-local, metadata or reserved address; "
     "the hub never calls it.")),
    ({"base_url": "http://yourorg.crm.dynamics.com"}, "settings.base_url",
     "settings.base_url: 'yourorg.crm.dynamics.com' is called by http; use https."),
    ({"base_url": "https://me:pw@yourorg.crm.dynamics.com"}, "settings.base_url",
     "settings.base_url: The URL holds a user name or password; put credentials into the secrets."),
    ({"base_url": "ftp://yourorg.crm.dynamics.com"}, "settings.base_url",
     "settings.base_url: expected an address such as https://example.com."),
    ({"base_url": "yourorg.crm.dynamics.com"}, "settings.base_url",
     "settings.base_url: expected an address such as https://example.com."),
    ({"base_url": "https://yourorg.crm.dynamics.com?x=1"}, "settings.base_url",
     "settings.base_url: expected an address such as https://example.com."),
    ({"base_url": "https://"}, "settings.base_url",
     "settings.base_url: expected an address such as https://example.com."),
    ({"base_url": "https://yourorg.crm.dynamics.com:99999"}, "settings.base_url",
     "settings.base_url: The port of 'yourorg.crm.dynamics.com' is not valid; it is 1 to 65535."),
    ({"base_url": ""}, "settings.base_url", "settings.base_url: is missing (Environment URL)."),
    ({"tenant_id": ""}, "settings.tenant_id", "settings.tenant_id: is missing (Directory (tenant) id)."),
    ({"color": "red"}, "settings.color",
     f"settings.color: is unknown; Microsoft Dynamics 365 has {IN_SETTINGS} here."),
    ({"tenant_id": "x" * 2001}, "settings.tenant_id",
     "settings.tenant_id: string should have at most 2000 characters."),
    ({"tenant_id": 5}, "settings.tenant_id", "settings.tenant_id: input should be a valid string."),
]  # fmt: skip


@pytest.fixture
def wanted(sandbox, demo):
    """The body of a good new connection."""
    return {
        "slug": "wanted",
        "connector": "dynamics365",
        "settings": demo["settings"],
        "secrets": {"client_secret": sandbox.facts["client_secret"]},
        "schedule": {},
    }


def slugs(api):
    return [each["slug"] for each in api.ok("GET", "/api/integrations")["value"]]


@pytest.mark.parametrize(("change", "field", "detail"), WRONG_CONNECTIONS)
def test_a_wrong_connection_is_400_by_its_field_and_none_is_made(api, problem, wanted, change, field, detail):
    bad(problem, api("POST", "/api/integrations", {**wanted, **change}), detail, field)
    assert slugs(api) == ["demo"]


@pytest.mark.parametrize(
    ("sync", "field"),
    [
        ({"policy": "loudest"}, "policy"),
        ({"policies": {"nope": "local"}}, "policies.nope"),
        ({"match": "employees"}, "match"),
        ({"filter": "name eq"}, "filter"),
        ({"filter": "nope eq 1"}, "filter"),
    ],
)
def test_a_wrong_way_to_keep_an_entity_in_step_is_named(api, wanted, sync, field):
    answer = api("POST", "/api/integrations", {**wanted, "entities": {"account": sync}})
    assert answer.status_code == 400, answer.text
    assert [each["field"] for each in answer.json()["errors"]] == [f"entities.account.{field}"]
    assert slugs(api) == ["demo"]


@pytest.mark.parametrize(("change", "field", "detail"), WRONG_SETTINGS)
def test_a_wrong_setting_is_400_by_its_name_and_no_connection_is_made(
    api, problem, wanted, change, field, detail
):
    settings = {**wanted["settings"], **change}
    bad(problem, api("POST", "/api/integrations", {**wanted, "settings": settings}), detail, field)
    assert slugs(api) == ["demo"]
    if field != "settings.tenant_id":
        answer = api("PATCH", "/api/integrations/demo", {"settings": change})
        bad(problem, answer, detail, field)
        assert api.ok("GET", "/api/integrations/demo")["settings"] == wanted["settings"]


def test_a_secret_among_the_settings_is_400_and_not_shown(api, problem, wanted):
    settings = {**wanted["settings"], "client_secret": wanted["secrets"]["client_secret"]}
    messages = {
        "settings.client_secret": "settings.client_secret: belongs to secrets; "
        f"Microsoft Dynamics 365 has {IN_SETTINGS} here.",
        "secrets.client_secret": "secrets.client_secret: is missing (Client secret).",
    }
    answer = api("POST", "/api/integrations", {**wanted, "settings": settings, "secrets": {}})
    bad(problem, answer, messages["settings.client_secret"], messages=messages)


def test_a_setting_among_the_secrets_is_400(api, problem, wanted):
    secrets = {**wanted["secrets"], "tenant_id": "t"}
    detail = f"secrets.tenant_id: belongs to settings; Microsoft Dynamics 365 has {IN_SECRETS} here."
    bad(
        problem, api("POST", "/api/integrations", {**wanted, "secrets": secrets}), detail, "secrets.tenant_id"
    )


@pytest.mark.parametrize("secrets", [{}, {"client_secret": ""}])
def test_a_missing_secret_is_400(api, problem, wanted, secrets):
    detail = "secrets.client_secret: is missing (Client secret)."
    answer = api("POST", "/api/integrations", {**wanted, "secrets": secrets})
    bad(problem, answer, detail, "secrets.client_secret")


def test_a_secret_can_not_be_patched_away(api, problem):
    detail = "secrets.client_secret: is missing (Client secret)."
    answer = api("PATCH", "/api/integrations/demo", {"secrets": {"client_secret": ""}})
    bad(problem, answer, detail, "secrets.client_secret")
    assert api("POST", "/api/integrations/demo/test").status_code == 200


def test_everything_missing_is_named_at_once(api, problem):
    messages = {
        "settings.base_url": "settings.base_url: is missing (Environment URL).",
        "settings.tenant_id": "settings.tenant_id: is missing (Directory (tenant) id).",
        "settings.client_id": "settings.client_id: is missing (Application (client) id).",
        "secrets.client_secret": "secrets.client_secret: is missing (Client secret).",
    }
    answer = api("POST", "/api/integrations", {"slug": "bare", "connector": "dynamics365"})
    bad(problem, answer, messages["settings.base_url"], messages=messages)
    answer = api("POST", "/api/integrations", {})
    messages = {"slug": "slug: field required.", "connector": "connector: field required."}
    bad(problem, answer, messages["slug"], messages=messages)


@pytest.mark.parametrize("name", ["siebel", "../dynamics365", "Dynamics365", ""])
def test_an_unknown_connector_is_404_and_says_which_there_are(api, problem, wanted, name):
    answer = api("POST", "/api/integrations", {**wanted, "connector": name})
    problem(answer, 404, "NotFound", f"There is no connector '{name}'; there are dynamics365, odoo, webhook.")


def test_a_slug_that_is_taken_is_409(api, problem, wanted):
    answer = api("POST", "/api/integrations", {**wanted, "slug": "demo"})
    problem(answer, 409, "Conflict", "There is a connection 'demo' already; take another slug.")


def test_with_two_connections_a_call_has_to_name_one(api, problem, connect):
    connect("second")
    detail = "connection: say which one, by its name; there are demo, second."
    for path in (ACCOUNTS, "/api/crm/system/health"):
        bad(problem, api("GET", path), detail, "connection")
    assert api("GET", f"{ACCOUNTS}?connection=second&top=1").status_code == 200


@pytest.mark.parametrize("method", ["GET", "PATCH", "DELETE"])
def test_an_unknown_connection_is_404(api, problem, method):
    answer = api(method, "/api/integrations/nobody?confirm=true" if method == "DELETE" else "/api/integrations/nobody",
                 {} if method == "PATCH" else None)  # fmt: skip
    detail = "There is no connection 'nobody'; GET /api/integrations lists them."
    problem(answer, 404, "NotFound", detail)


@pytest.mark.parametrize(
    ("body", "field", "detail"),
    [
        ({"connection": "demo", "mode": "sideways"}, "mode",
         "mode: input should be 'incremental', 'full', 'push' or 'plan'."),
        ({"connection": "demo", "entities": ["gadget"]}, "entities",
         "entities: demo has no 'gadget'; it has account."),
        ({"connection": "demo", "entities": "account"}, "entities",
         "entities: input should be a valid list."),
        ({"connection": 5}, "connection", "connection: input should be a valid string."),
        ({"conection": "demo"}, "conection", "conection: extra inputs are not permitted."),
    ],
)  # fmt: skip
def test_a_wrong_run_is_400_by_its_field(api, problem, body, field, detail):
    bad(problem, api("POST", "/api/runs", body), detail, field)


def test_a_run_of_an_unknown_connection_is_404(api, problem):
    answer = api("POST", "/api/runs", {"connection": "nobody"})
    detail = "There is no connection 'nobody'; GET /api/integrations lists them."
    problem(answer, 404, "NotFound", detail)


# --- remotes that are down, or say no ----------------------------------------------------------------------------

SYSTEM = {"system": "dynamics365"}
REFUSED = "No connection to '127.0.0.1': it refuses or can't be reached."


def request_id(answer):
    """The vendor's own id of the request that it refused."""
    found = answer.json()["vendor"]["requestId"]
    assert uuid.UUID(found)
    return found


def vendor_problem(problem, answer, status, code, detail, *fields, vendor=None, **more):
    problem(
        answer, status, code, detail, *fields, vendor={**SYSTEM, **(vendor or {}), "message": detail}, **more
    )


def test_a_remote_that_is_not_there_is_503_with_retry_after(api, problem, connect, sandbox):
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))  # bound and not listening: nobody else gets this port
        nowhere = f"https://127.0.0.1:{s.getsockname()[1]}"
        settings = {**api.ok("GET", "/api/integrations/demo")["settings"], "base_url": nowhere}
        connect("elsewhere", settings={**settings, "authority": nowhere})
        calls = [
            ("GET", f"{ACCOUNTS}?connection=elsewhere", None),
            ("POST", f"{ACCOUNTS}?connection=elsewhere", {"name": "x"}),
            ("PATCH", f"{ACCOUNTS}/{RID}?connection=elsewhere", {"name": "x"}),
            ("POST", "/api/integrations/elsewhere/test", None),
        ]
        for method, path, body in calls:
            answer = api(method, path, body)
            vendor_problem(problem, answer, 503, "Unavailable", REFUSED)
            assert answer.headers["Retry-After"] == "5"
    health = api.ok("GET", "/api/crm/system/health?connection=elsewhere")
    assert health["status"] == "ok"  # it calls no remote; live failures are the caller's to see


def test_a_remote_that_goes_away_is_503(api, problem, connect, start_sandbox):
    other = start_sandbox("--records", "3")
    origin = other.url
    connect("mortal", settings={
        **api.ok("GET", "/api/integrations/demo")["settings"], "base_url": origin, "authority": origin,
    })  # fmt: skip
    assert len(api.ok("GET", f"{ACCOUNTS}?connection=mortal")["value"]) == 3
    other.process.terminate()
    other.process.wait(20)
    answer = api("GET", f"{ACCOUNTS}?connection=mortal")
    vendor_problem(problem, answer, 503, "Unavailable", REFUSED)
    assert answer.headers["Retry-After"] == "5"


def test_a_certificate_of_a_stranger_is_503_and_says_what_to_do(api, problem, connect, start_sandbox):
    origin = start_sandbox(trusted=False).url
    connect("stranger", settings={
        **api.ok("GET", "/api/integrations/demo")["settings"], "base_url": origin, "authority": origin,
    })  # fmt: skip
    detail = (
        "The certificate of '127.0.0.1' is not trusted (unable to get local issuer certificate). "
        "If a private CA signed it, name that CA's file in CA_BUNDLE."
    )
    problem(api("GET", f"{ACCOUNTS}?connection=stranger"), 503, "Misconfigured", detail)


PRIVILEGE = (
    "dynamics365 answered 403: Principal user (Id=%s, type=8, roleCount=1, privilegeCount=537, accessMode=4), "
    "is missing prvWriteAccount privilege (Id=%s) on OTC=1 for entity 'account'. context.Caller=%s"
)


def fixed(name):
    return uuid.uuid5(uuid.UUID("6b1f9d3e-52c7-4d6f-9a55-0d365a0b0001"), name)


def test_a_missing_privilege_is_502_and_named(api, problem, account, faults):
    rid = account(name="Guarded")
    faults("privilege", code="prvWriteAccount", path="*/accounts*")
    answer = api("PATCH", f"{ACCOUNTS}/{rid}", {"phone": "1"})
    detail = PRIVILEGE % (fixed("app user"), fixed("prvWriteAccount"), fixed("app user"))
    vendor = {"status": 403, "code": "0x80040220", "requestId": request_id(answer)}
    vendor_problem(problem, answer, 502, "NotPermitted", detail, vendor=vendor)


def test_values_that_the_remote_refuses_are_422_with_their_fields(api, problem, account, faults):
    rid = account(name="Refused")
    text = "A validation error occurred. The 'telephone1' attribute is not to your taste."
    faults("status", status=400, code="0x80044331", message=text, path="*/accounts*")
    answer = api("PATCH", f"{ACCOUNTS}/{rid}", {"phone": "1"})
    detail = f"dynamics365 answered 400: {text}"
    vendor = {"status": 400, "code": "0x80044331"}
    vendor_problem(problem, answer, 422, "Rejected", detail, "phone", vendor=vendor)


def test_a_text_is_as_long_as_the_remote_counts_it(api, sandbox, account):
    """An emoji is two characters to the vendor."""
    rid = account(name="Emoji")
    answer = api("PATCH", f"{ACCOUNTS}/{rid}", {"name": "😀" * 100})
    assert (answer.status_code, answer.json()["code"]) == (400, "BadRequest")
    assert answer.json()["errors"][0]["field"] == "name"
    assert sandbox.values(rid)["name"] == "Emoji"


def test_a_record_that_is_not_there_is_404_in_the_vendor_s_words(api, problem, sandbox):
    answer = api("GET", f"{ACCOUNTS}/{RID}")
    detail = f"dynamics365 answered 404: Entity 'account' With Id = {RID} Does Not Exist"
    vendor = {"status": 404, "code": "0x80040217", "requestId": request_id(answer)}
    vendor_problem(problem, answer, 404, "RecordGone", detail, vendor=vendor)


def test_a_rate_limit_is_503_with_the_vendor_s_retry_after_and_no_second_try(
    api, problem, connect, faults, sandbox
):
    connect("throttled")
    seen = sandbox.last_request()
    faults("throttle", retry_after=17, path="*/accounts*")
    answer = api("GET", "/api/crm/accounts?top=1&connection=throttled")
    detail = "dynamics365 answered 429: Number of requests exceeded the limit of 6000 over time window of 300 seconds."
    vendor = {"status": 429, "code": "0x80072322", "requestId": request_id(answer)}
    vendor_problem(problem, answer, 503, "RateLimited", detail, vendor=vendor)
    assert answer.headers["Retry-After"] == "17"
    again = api("GET", "/api/crm/accounts?top=2&connection=throttled")
    vendor_problem(problem, again, 503, "RateLimited", detail, vendor=vendor)
    assert 14 <= int(again.headers["Retry-After"]) <= 17
    assert len([each for each in sandbox.requests_since(seen) if each["path"].endswith("/accounts")]) == 1


@pytest.mark.parametrize(
    ("text", "detail"),
    [
        ('{"value": 5}', "The answer has no list of records."),
        ('{"value": [5]}', "The answer has no list of records."),
        ('{"value": [{"name": "x"}]}', "A record without accountid came back."),
        (
            '{"value": [], "@odata.nextLink": "https://evil.example/api/data/v9.2/contacts?$skiptoken=1"}',
            "The link to the next page leads to '/api/data/v9.2/contacts'.",
        ),
    ],
)
def test_an_answer_that_makes_no_sense_is_502(api, problem, faults, text, detail):
    faults("garbage", text=text, path="*/accounts*", count=None)
    answer = api("GET", f"{ACCOUNTS}?top=1")
    vendor_problem(problem, answer, 502, "BadAnswer", detail)


@pytest.mark.parametrize(
    ("kind", "text", "detail"),
    [
        (
            "garbage",
            "{]not json",
            "The answer is not JSON: 10 bytes, application/json; odata.metadata=minimal.",
        ),
        ("html", "<html><body>Log in</body></html>", "The answer is not JSON: 32 bytes, text/html."),
    ],
)
def test_an_answer_that_is_no_json_is_502_and_not_repeated(api, problem, faults, kind, text, detail):
    faults(kind, text=text, path="*/accounts*")
    answer = api("GET", f"{ACCOUNTS}?top=1")
    vendor_problem(problem, answer, 502, "BadAnswer", detail, vendor={"status": 200})


@pytest.mark.parametrize("kind", ["reset", "cut"])
def test_a_connection_that_breaks_off_again_and_again_is_503(api, problem, faults, kind):
    faults(kind, path="*/accounts*", count=None)
    answer = api("GET", f"{ACCOUNTS}?top=1")
    vendor_problem(problem, answer, 503, "Unavailable", "The connection to '127.0.0.1' broke off.")
    assert answer.headers["Retry-After"] == "5"


@pytest.mark.parametrize(
    ("status", "answered", "retry_after"),
    [(500, 503, None), (502, 503, None), (503, 503, 30), (504, 504, None)],
)
def test_a_remote_that_fails_is_503_or_504(api, problem, faults, status, answered, retry_after):
    how = {} if retry_after is None else {"retry_after": retry_after}
    faults("status", status=status, message="Out of order", path="*/accounts*", count=None, **how)
    answer = api("GET", f"{ACCOUNTS}?top=1")
    detail = f"dynamics365 answered {status}: Out of order"
    vendor_problem(problem, answer, answered, "Unavailable", detail, vendor={"status": status})
    assert answer.headers["Retry-After"] == str(retry_after or 5)


@pytest.mark.parametrize(
    ("change", "status", "number", "text", "remedy"),
    [
        ({"secrets": {"client_secret": "a-wrong~secret+of/tests"}}, 401, "7000215",
         ("Invalid client secret provided. Ensure the secret being sent in the request is the client secret value, "
         "not the client secret ID."), "Enter the secret's value, not its id."),
        ({"client_id": "nobody"}, 400, "700016",
         "Application with identifier 'nobody' was not found in the directory 'sandbox'.",
         "The application is not in this tenant: check client id and tenant id."),
    ],
)  # fmt: skip
def test_wrong_credentials_are_502_naming_the_vendor_s_code_and_the_remedy(
    api, problem, connect, change, status, number, text, remedy
):
    settings = {**api.ok("GET", "/api/integrations/demo")["settings"]}
    settings |= {name: value for name, value in change.items() if name != "secrets"}
    secrets = {"secrets": change["secrets"]} if "secrets" in change else {}
    connect("wrong-credentials", settings=settings, **secrets)
    for method, path in (
        ("POST", "/api/integrations/wrong-credentials/test"),
        ("GET", f"{ACCOUNTS}?connection=wrong-credentials"),
    ):
        answer = api(method, path)
        detail = answer.json()["detail"]
        match = re.fullmatch(
            rf"AADSTS{number}: {re.escape(text)} Trace ID: ([0-9a-f-]{{36}}) Correlation ID: [0-9a-f-]{{36}} "
            rf"Timestamp: [0-9: -]{{19}}Z {re.escape(remedy)}",
            detail,
        )
        assert match, detail
        vendor = {"status": status, "code": number, "requestId": match[1]}
        vendor_problem(problem, answer, 502, "AuthFailed", detail, vendor=vendor)


def test_an_unknown_tenant_is_502(api, connect):
    settings = {**api.ok("GET", "/api/integrations/demo")["settings"], "tenant_id": "nowhere"}
    connect("wrong-tenant", settings=settings)
    answer = api("POST", "/api/integrations/wrong-tenant/test")
    assert (answer.status_code, answer.json()["code"]) == (502, "AuthFailed")
    assert answer.json()["vendor"]["code"] == "90002"
    assert answer.json()["detail"].endswith("There is no such tenant: check the tenant id.")


def test_a_user_that_the_remote_does_not_know_is_502(api, problem, sandbox):
    sandbox.control("POST", "options", {"app_user": "missing"})
    try:
        answer = api("GET", f"{ACCOUNTS}?top=1")
    finally:
        sandbox.control("POST", "options", {"app_user": "ok"})
    detail = "dynamics365 answered 403: The user is not a member of the organization."
    vendor = {"status": 403, "code": "0x80072560", "requestId": answer.json()["vendor"]["requestId"]}
    vendor_problem(problem, answer, 502, "NotPermitted", detail, vendor=vendor)


# --- nothing leaks -----------------------------------------------------------------------------------------------


def test_no_answer_about_a_connection_holds_its_secret(api, sandbox, connect):
    """Every answer of these tests is looked through for secrets; here are those that come nearest to one."""
    made = connect("discreet")
    assert "client_secret" in made["secrets"]
    for method, path, body in (
        ("GET", "/api/integrations", None),
        ("GET", "/api/integrations/discreet", None),
        (
            "PATCH",
            "/api/integrations/discreet",
            {"secrets": {"client_secret": sandbox.facts["client_secret"]}},
        ),
        ("POST", "/api/integrations/discreet/test", None),
        ("GET", "/api/connectors", None),
    ):
        assert sandbox.facts["client_secret"] not in json.dumps(api.ok(method, path, body))


def test_a_secret_that_the_remote_repeats_is_not_passed_on(api, faults, sandbox):
    secret = sandbox.facts["client_secret"]
    text = f"You said client_secret={secret} and Bearer abcdefghijkl, {quote(secret, safe='')}"
    faults("status", status=400, message=text, path="*/accounts*")
    answer = api("GET", f"{ACCOUNTS}?top=1")
    assert answer.json()["detail"] == (
        "dynamics365 answered 400: You said client_secret=*** and Bearer ***, ***"
    )


# --- headers -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("PATCH", "/api/records/accounts/{}", {"phone": "5"}),
        ("DELETE", "/api/records/accounts/{}?confirm=true", None),
        ("POST", "/api/records/accounts/{}/undo", {"version": 1}),
        ("PATCH", ACCOUNTS + "/{}", {"phone": "5"}),
        ("POST", "/api/integrations/demo/mappings/account/rollback", {"version": 0}),
    ],
)
@pytest.mark.parametrize("given", [b"\xff", "\u00e9".encode()], ids=["bytes", "letter"])
def test_an_if_match_that_is_no_etag_is_400_and_names_it(api, problem, method, path, body, given):
    record = api.ok("POST", "/api/records/accounts", {"name": "Header"})
    answer = api(method, path.format(record["id"]), body, headers={"If-Match": b'"' + given + b'"'})
    bad(problem, answer, "If-Match: expected an ETag as the hub gave it, in ASCII.", "If-Match")
    assert api.ok("GET", f"/api/records/accounts/{record['id']}")["etag"] == record["etag"]


def test_an_answer_that_no_one_can_write_is_a_bug_with_its_trace():
    """Such as a text with half a character, wherever it came from."""
    trace = new_trace()
    told, answer = rendered(Reply(200, {"name": "\udcff"}), trace)
    assert (told.status, answer.status_code, answer.mimetype) == (500, 500, "application/problem+json")
    refusal = json.loads(answer.get_body())
    assert (refusal["code"], refusal["traceId"]) == ("Bug", trace)
    assert trace in answer.headers["traceparent"]
    _, answer = rendered(Reply(200, {"name": "\u00ff"}), trace)
    assert (answer.status_code, json.loads(answer.get_body())) == (200, {"name": "\u00ff"})
