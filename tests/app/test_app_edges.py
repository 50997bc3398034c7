"""The edges of the API: hostile and odd input, each with the exact answer, and what a double click does."""

import json
import time
import uuid
from urllib.parse import quote

import pytest
from azure.core.exceptions import ResourceNotFoundError
from azure.data.tables import TableClient
from azure.storage.queue import QueueClient, TextBase64EncodePolicy

pytestmark = [pytest.mark.xdist_group("app-edges"), pytest.mark.usefixtures("demo")]

ACCOUNTS = "/api/crm/accounts"


def bad(problem, answer, detail, *fields):
    problem(answer, 400, "BadRequest", detail, *fields)


# --- values ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", ["1e400", "1e30", "-1e29", "1" + "0" * 40 + ".0"])
def test_a_whole_number_far_too_large_is_400(api, problem, account, number):
    rid = account(name="Large")
    answer = api("PATCH", f"{ACCOUNTS}/{rid}", data=f'{{"employees": {number}}}')
    bad(problem, answer, "employees: expected a whole number of at most 64 bits.", "employees")


@pytest.mark.parametrize("value", [[], {}, [3], {"a": 1}, True, False, "abc", 1.5])
@pytest.mark.parametrize(
    ("name", "known"), [("customertypecode", "1, 3, 5, 8, 10, 12"), ("statecode", "0, 1")]
)
def test_what_is_no_native_choice_is_400(api, problem, sandbox, account, name, known, value):
    rid = account(name="Choice")
    before = sandbox.values(rid)
    answer = api("PATCH", f"{ACCOUNTS}/{rid}", {name: value})
    bad(problem, answer, f"{name}: expected one of {known}.", name)
    assert sandbox.values(rid) == before


@pytest.mark.parametrize("value", ["native:abc", "native:", "native:1_1", "native:1.5"])
def test_a_native_value_that_is_no_number_is_400(api, problem, account, value):
    rid = account(name="Native")
    detail = (
        "kind: expected one of competitor, customer, partner, prospect, supplier, other, "
        "or native: and the system's own value."
    )
    bad(problem, api("PATCH", f"{ACCOUNTS}/{rid}", {"kind": value}), detail, "kind")


@pytest.mark.parametrize("name", ["parent_id", "_parentaccountid_value"])
@pytest.mark.parametrize("value", ["not-an-id", "x) or (y", "00000000-0000-0000-0000-00000000000", 5])
def test_a_reference_that_is_no_id_is_400_before_the_remote_sees_it(
    api, problem, sandbox, account, name, value
):
    rid = account(name="Bound")
    seen = sandbox.last_request()
    expected = "the id of a record at the system" if isinstance(value, str) else "text"
    answer = api("PATCH", f"{ACCOUNTS}/{rid}", {name: value})
    bad(problem, answer, f"{name}: expected {expected}.", name)
    assert not [each for each in sandbox.requests_since(seen) if each["method"] == "PATCH"]


@pytest.mark.parametrize("method", ["POST", "PATCH"])
def test_a_reference_to_what_is_not_there_is_422_by_its_field(api, account, method):
    """Not 404: what the caller asked for, a collection or a record, is there."""
    path = ACCOUNTS if method == "POST" else f"{ACCOUNTS}/{account(name='Orphan')}"
    parent = str(uuid.uuid4())
    answer = api(method, path, {"name": "Orphan", "parent_id": parent})
    assert (answer.status_code, answer.json()["code"]) == (422, "Rejected")
    assert answer.json()["vendor"]["status"] == 404
    assert answer.json()["detail"] == (
        f"dynamics365 answered 404: Entity 'account' With Id = {parent} Does Not Exist"
    )
    assert [each["field"] for each in answer.json()["errors"]] == ["parent_id"]


def test_the_id_of_a_new_record_is_the_hub_s(api, problem):
    answer = api("POST", ACCOUNTS, {"name": "Own id", "accountid": str(uuid.uuid4())})
    bad(problem, answer, "accountid: is the record's id, which the hub chooses; leave it out.", "accountid")


@pytest.mark.parametrize(
    ("path", "data"),
    [
        (ACCOUNTS, r'{"name": "x", "\ud800": 1}'),
        (ACCOUNTS, r'{"name": "\ud83d"}'),
        ("/api/runs", r'{"\ud800": 1}'),
        ("/api/integrations", r'{"slug": "x", "connector": "dynamics365", "settings": {"\ud800": "x"}}'),
    ],
)
def test_half_a_character_in_a_body_is_400(api, problem, path, data):
    answer = api("POST", path, data=data)
    bad(problem, answer, "body: has half a character (a lone surrogate).", "body")


def test_a_raw_amount_has_all_its_digits(api, account):
    rid = account(name="Raw money")
    api.ok("PATCH", f"{ACCOUNTS}/{rid}", {"annual_revenue": "922337203685476.58"})
    assert "922337203685476.58" in api("GET", f"{ACCOUNTS}/{rid}?raw=true").text.partition('"raw"')[2]


def test_a_replayed_answer_has_the_same_raw_values(api, sandbox):
    key = {"Idempotency-Key": str(uuid.uuid4())}
    body = {"name": f"Raw replay {uuid.uuid4()}", "annual_revenue": "12.5"}
    first = api("POST", f"{ACCOUNTS}?raw=true", body, headers=key)
    again = api("POST", f"{ACCOUNTS}?raw=true", body, headers=key)
    sandbox.delete(first.json()["id"])
    assert first.status_code == 201
    assert again.content == first.content


# --- names in paths and headers ----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["a/b", "\x00", "#", "?", "\\", "x" * 600, "x\ny", "a'b", "ñ"])
def test_a_name_that_can_be_no_connection_s_is_404(api, problem, name):
    detail = f"There is no connection '{name}'; GET /api/integrations lists them."
    problem(api("GET", f"{ACCOUNTS}?connection={quote(name, safe='')}"), 404, "NotFound", detail)
    answer = api("POST", "/api/runs", {"connection": name})
    if len(name) > 100:
        bad(problem, answer, "connection: string should have at most 100 characters.", "connection")
    else:
        problem(answer, 404, "NotFound", detail)
    if len(name) == 1 and name != "\x00":
        problem(api("GET", f"/api/integrations/{quote(name, safe='')}"), 404, "NotFound", detail)


@pytest.mark.parametrize("path", ["/api/runs/" + "9" * 1500, "/api/records/accounts/" + "0" * 1500])
def test_an_id_of_great_length_is_404(api, path):
    answer = api("GET", path)
    assert (answer.status_code, answer.json()["code"]) == (404, "NotFound")


@pytest.mark.parametrize("cause", ["#", "?~x", "\x01~x", "x" * 600, "ñ~1", "~"])
def test_of_a_cause_that_can_be_none_nothing_waits_and_nobody_else_s_figures_are_lost(api, cause):
    assert api.ok("GET", f"/api/deadletters/causes/{quote(cause, safe='')}")["value"] == []
    if len(cause) <= 200:
        counted = api.ok("POST", "/api/deadletters/replay?dry_run=true", {"cause": cause})
        assert counted["count"] == 0
    assert api.ok("GET", "/api/crm/system/stats")


@pytest.mark.parametrize("name", ["", "zz", "#", "?", "\\", "\x01", "x" * 600, "ñ"])
@pytest.mark.parametrize(
    "path",
    [
        "/api/conflicts/account~{}~x~value~phone",
        "/api/deadletters/account~{}~x~refused~phone",
        "/api/deadletters/a{}",
    ],
)
def test_a_name_that_can_be_nothing_s_that_waits_is_404(api, path, name):
    for method, path_of, body in (
        ("GET", path, None),
        ("POST", f"{path}/replay", None),
        ("POST", path, {"take": "ours"}),
    ):
        if ("deadletters" in path) is (body is None) or method == "GET":
            answer = api(method, path_of.format(quote(name, safe="")), body)
            assert (answer.status_code, answer.json()["code"]) == (404, "NotFound")


@pytest.mark.parametrize("header", [b"X-API-KEY: \xff", b"Authorization: Bearer \xff"])
def test_a_key_that_is_no_utf8_is_401(api, header):
    request = b"GET /api/connectors HTTP/1.1\r\nHost: h\r\nConnection: close\r\n" + header + b"\r\n\r\n"
    status, headers, body = api.raw(request)
    assert (status, headers["content-type"]) == (401, "application/problem+json")
    assert json.loads(body)["detail"] == "The API key is wrong; send it in the header X-API-KEY."


def test_an_idempotency_key_that_is_no_utf8_is_400(api):
    head = f"POST /api/runs HTTP/1.1\r\nHost: h\r\nConnection: close\r\nX-API-KEY: {api.key}\r\n".encode()
    status, headers, body = api.raw(head + b"Content-Length: 2\r\nIdempotency-Key: \xff\r\n\r\n{}")
    assert (status, headers["content-type"]) == (400, "application/problem+json")
    assert [each["field"] for each in json.loads(body)["errors"]] == ["Idempotency-Key"]


@pytest.mark.parametrize("form", ["{etag}", '"other", {etag}', "{strong}", "*"])
def test_if_none_match_in_every_form_of_the_standard(api, account, form):
    """RFC 9110 section 13.1.2: lists, weak comparison and *."""
    rid = account(name="Forms")
    etag = api("GET", f"{ACCOUNTS}/{rid}").headers["ETag"]
    value = form.format(etag=etag, strong=etag.removeprefix("W/"))
    assert api("GET", f"{ACCOUNTS}/{rid}", headers={"If-None-Match": value}).status_code == 304


# --- filters -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["name in ('Odd')", "name eq 'Odd' and employees in (1)"])
def test_a_list_of_one_value_is_a_list(api, account, text):
    rid = account(name="Odd", numberofemployees=1)
    found = api.ok("GET", f"{ACCOUNTS}?filter={quote(text)}")["value"]
    assert [each["id"] for each in found] == [rid]


@pytest.mark.parametrize(
    "text", [" name eq 'Odd'", "name eq 'Odd' ", "  name  eq  'Odd'  ", "\tname eq 'Odd'\n"]
)
def test_spaces_around_a_filter_do_no_harm(api, account, text):
    rid = account(name="Odd")
    found = api.ok("GET", f"{ACCOUNTS}?filter={quote(text)}")["value"]
    assert [each["id"] for each in found] == [rid]


@pytest.mark.parametrize("blank", ["%20", "+", "%09"])
def test_a_blank_filter_is_400(api, problem, blank):
    answer = api("GET", f"{ACCOUNTS}?top=1&filter={blank}")
    bad(problem, answer, "The filter is empty; leave it out.", "filter")


def test_a_filter_of_a_very_long_path_is_400(api, problem):
    answer = api("GET", f"{ACCOUNTS}?filter=" + "a/" * 1500 + "b%20eq%201")
    bad(problem, answer, "The filter is nested deeper than 30; make it flatter.", "filter")


# --- connections -------------------------------------------------------------------------------------------------

FOREIGN = (
    "Credentials may not go to %s: allowed are %s. "
    "Correct the connection's address, or let an Admin confirm this origin for the connection."
)
DATAVERSE = "*.dynamics.com, *.dynamics.cn, *.microsoftdynamics.us, *.appsplatform.us"
SIGN_IN = "login.microsoftonline.com, login.microsoftonline.us, login.partner.microsoftonline.cn"


@pytest.mark.parametrize(
    ("change", "field", "detail"),
    [
        (
            {"settings": {"base_url": "https://crm.example.org"}},
            "settings.base_url",
            FOREIGN % ("https://crm.example.org", DATAVERSE),
        ),
        (
            {"settings": {"authority": "https://login.example.org"}},
            "settings.authority",
            FOREIGN % ("https://login.example.org", SIGN_IN),
        ),
        (
            {"settings": {"authority": "http://127.0.0.1:1"}},
            "settings.authority",
            "Microsoft's sign-in library takes https only.",
        ),
        (
            {"settings": {"tenant_id": "common"}},
            "settings.tenant_id",
            "The tenant id 'common' names no tenant; enter the one of the organisation.",
        ),
        (
            {"confirmed_origin": "nonsense"},
            "confirmed_origin",
            "The URL is not absolute; write it as https://host/path.",
        ),
        (
            {"confirmed_origin": "https://169.254.169.254"},
            "confirmed_origin",
            "'169.254.169.254' is a link-local, metadata or reserved address; the hub never calls it.",
        ),
    ],
)
def test_what_the_connector_refuses_names_its_setting_and_nothing_is_saved(
    api, problem, demo, change, field, detail
):
    bad(problem, api("PATCH", "/api/integrations/demo", change), f"{field}: {detail}", field)
    found = api.ok("GET", "/api/integrations/demo")
    assert (found["settings"], found["confirmed_origin"]) == (demo["settings"], None)


@pytest.mark.parametrize("cron", ["0 0 0 30 2 *", "0 0 0 31 4 *"])
def test_a_cron_that_never_comes_is_400(api, cron):
    answer = api("PATCH", "/api/integrations/demo", {"schedule": {"cron": cron}})
    assert answer.status_code == 400
    assert [each["field"] for each in answer.json()["errors"]] == ["schedule.cron"]


@pytest.mark.parametrize("cron", ["0 0 8 * * WED", "0 0 8 * JUL *", "0 0 8 * * TUE,WED", "0 8 * * mon"])
def test_a_cron_may_name_days_and_months(api, connect, cron):
    assert connect("named", schedule={"cron": cron})["schedule"] == {"cron": cron}


def test_connections_to_choose_from_are_in_the_order_of_their_slugs(api, problem, connect):
    for slug in ("zulu", "alpha", "mike"):
        connect(slug)
    detail = "connection: say which one, by its name; there are alpha, demo, mike, zulu."
    bad(problem, api("GET", ACCOUNTS), detail, "connection")


# --- remotes that answer nonsense --------------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["[]", "5", "null", '"x"'])
@pytest.mark.parametrize("what", ["list", "one", "update", "test"])
def test_a_json_answer_of_a_wrong_shape_is_502(api, account, faults, what, text):
    rid = account(name="Misshapen")
    faults("garbage", text=text, path="re:/api/data/", count=None)
    calls = {
        "list": ("GET", f"{ACCOUNTS}?top=1", None),
        "one": ("GET", f"{ACCOUNTS}/{rid}", None),
        "update": ("PATCH", f"{ACCOUNTS}/{rid}", {"phone": "1"}),
        "test": ("POST", "/api/integrations/demo/test", None),
    }
    answer = api(*calls[what])
    assert (answer.status_code, answer.json()["code"]) == (502, "BadAnswer"), answer.text
    assert answer.json()["vendor"]["system"] == "dynamics365"


def test_metadata_of_a_wrong_shape_is_502(api, problem, account, faults, connect):
    connect("undescribed")
    rid = account(name="Undescribed")
    faults("garbage", text='{"no": "value"}', path="*EntityDefinitions*", count=None)
    answer = api("PATCH", f"{ACCOUNTS}/{rid}?connection=undescribed", {"fax": "1"})
    detail = "The answer has no list of records."
    problem(answer, 502, "BadAnswer", detail, vendor={"system": "dynamics365", "message": detail})


def test_a_bad_answer_names_its_system(api, faults):
    faults("html", path="*/accounts*")
    assert api("GET", f"{ACCOUNTS}?top=1").json()["vendor"]["system"] == "dynamics365"


# --- runs and messages -------------------------------------------------------------------------------------------


def test_a_second_run_is_409_while_the_first_waits_in_the_queue_or_reads_its_first_page(
    api, problem, connect, faults
):
    """A double click makes one run."""
    connect("clicked")
    faults("delay", seconds=1, path="*/accounts*")
    first = api("POST", "/api/runs", {"connection": "clicked"})
    second = api("POST", "/api/runs", {"connection": "clicked"})
    run = first.json()["id"]
    detail = f"Run {run} is doing this for account now; follow it at /api/runs/{run}."
    problem(second, 409, "Conflict", detail)
    assert api.ended(first.headers["Operation-Location"])["status"] == "succeeded"


@pytest.mark.parametrize("new", [True, False], ids=["rows to read", "nothing new"])
def test_every_run_that_was_accepted_ends(api, connect, faults, new):
    """Two runs that want the lease at once: the one that loses it waits, and then does its work."""
    connect("raced")
    if not new:
        api.run("raced")
    faults("delay", seconds=1, count=2, path="*/accounts*")
    modes = ("incremental", "full")
    accepted = [api("POST", "/api/runs", {"connection": "raced", "mode": mode}) for mode in modes]
    assert [each.status_code for each in accepted] == [202, 202]
    for each in accepted:
        assert api.ended(each.headers["Operation-Location"], 40)["status"] == "succeeded"


def test_a_message_of_a_bad_tenant_becomes_a_dead_letter(api, connect, azurite):
    connect("queued")
    message = '{"v": 1, "job": "pull", "tenant": "Not A Tenant", "connection": "x"}'
    with (
        QueueClient.from_connection_string(
            azurite, "fresh", message_encode_policy=TextBase64EncodePolicy()
        ) as queue,
        TableClient.from_connection_string(azurite, "deadletters") as table,
    ):
        queue.send_message(message, time_to_live=-1)
        deadline = time.monotonic() + 15
        while time.monotonic() < deadline:
            time.sleep(0.1)
            try:
                letters = [json.loads(row["json"]) for row in table.list_entities()]
            except ResourceNotFoundError:
                continue  # the table comes with the first letter
            if found := [each for each in letters if each["body"] == message]:
                assert (found[0]["kind"], found[0]["queue"]) == ("message", "fresh")
                return
    pytest.fail("no dead letter after 15 s")


def test_a_bad_api_version_is_told_once(api, problem):
    answer = api("PATCH", "/api/integrations/demo", {"settings": {"api_version": "latest"}})
    detail = "settings.api_version: Expected a version such as v9.2."
    problem(answer, 400, "BadRequest", detail, "settings.api_version")


def test_a_cron_that_never_comes_is_told_so(api):
    answer = api("PATCH", "/api/integrations/demo", {"schedule": {"cron": "0 0 0 30 2 *"}})
    assert "five or six fields" not in answer.json()["detail"]


def test_a_wrong_shape_is_named_in_the_words_of_json(api, faults):
    for text in ("5", "null"):
        faults("garbage", text=text, path="*/accounts*")
        detail = api("GET", f"{ACCOUNTS}?top=1").json()["detail"]
        assert "a int" not in detail
        assert "NoneType" not in detail


def test_a_connection_tells_which_of_its_secrets_are_set(connect):
    assert connect("told")["secrets"] == ["client_secret"]
