"""stale=ok: what the store answers while the remote system is down, how old it is, and what it does not answer."""

from datetime import UTC, datetime

import pytest

pytestmark = pytest.mark.xdist_group("app-stale")

COMPANY = {"name": "Caf\u00e9 Am\u00e9rica", "address1_city": "Le\u00f3n", "revenue": 1250.5}


@pytest.fixture
def held(api, connect, account):
    """(id of an account, its live item) behind a connection whose first pull is done."""
    rid = account(**COMPANY)
    connect("aged", entities={"account": "pull", "contact": "pull"})
    live = api.ok("GET", f"/api/crm/accounts/{rid}?connection=aged")
    assert api.run("aged", seconds=60)["status"] == "succeeded"
    return rid, live


@pytest.fixture
def down(faults):
    """The remote breaks every call of its API off."""
    return lambda: faults("reset", path="re:/api/data/", count=None)


@pytest.fixture
def contact(account, sandbox):
    """(id of a contact, id of the account that it belongs to)."""
    company = account(name="Its company")
    bound = {"lastname": "\u00d1and\u00fa", "parentcustomerid_account@odata.bind": f"/accounts({company})"}
    rid = sandbox.control("POST", "rows/contact", {"values": bound})["id"]
    yield rid, company
    sandbox.control("DELETE", "faults")
    sandbox.control("DELETE", f"rows/contact/{rid}")


def assert_aged(answer):
    assert answer.status_code == 200, answer.text
    warning = answer.headers["Warning"]
    assert warning.startswith('110 crm-hub "Response is stale: as of ')
    as_of = datetime.fromisoformat(warning.partition("as of ")[2].rstrip('"'))
    age = (datetime.now(UTC) - as_of).total_seconds()
    assert 0 <= age < 120
    assert int(answer.headers["Age"]) == pytest.approx(age, abs=2)


def test_while_the_remote_answers_nothing_is_different(api, held):
    rid, live = held
    answer = api("GET", f"/api/crm/accounts/{rid}?connection=aged&stale=ok")
    assert answer.json() == live
    assert answer.headers["ETag"] == live["etag"]
    assert not {"Warning", "Age"} & answer.headers.keys()


def test_an_item_comes_from_the_store_with_its_age_and_without_an_etag(api, held, down):
    rid, live = held
    down()
    answer = api("GET", f"/api/crm/accounts/{rid}?connection=aged&stale=ok")
    assert_aged(answer)
    assert answer.json() == {**live, "etag": ""}
    assert "ETag" not in answer.headers
    assert_aged(api("GET", f"/api/crm/accounts/{rid.upper()}?connection=aged&stale=ok"))


def test_without_the_word_the_trouble_is_told(api, held, down):
    rid, _ = held
    down()
    answer = api("GET", f"/api/crm/accounts/{rid}?connection=aged")
    assert (answer.status_code, answer.json()["code"]) == (503, "Unavailable")
    assert answer.headers["Retry-After"]


def test_what_the_store_does_not_hold_only_the_remote_can_tell(api, held, down, account):
    newer = account(name="Made after the pull")
    down()
    answer = api("GET", f"/api/crm/accounts/{newer}?connection=aged&stale=ok")
    assert (answer.status_code, answer.json()["code"]) == (503, "Unavailable")


def test_pages_of_the_store_hold_every_record_once(api, held, down, sandbox):
    _, live = held
    down()
    found = {}
    path = "/api/crm/accounts?connection=aged&stale=ok&top=13"
    while path:
        answer = api("GET", path)
        assert_aged(answer)
        page = answer.json()
        assert not found.keys() & {item["id"] for item in page["value"]}
        found.update({item["id"]: item for item in page["value"]})
        path = page.get("nextLink", "")
    assert found.keys() == sandbox.accounts().keys()
    assert found[live["id"]] == {**live, "etag": ""}


def test_a_page_after_one_of_the_remote_is_not_made_up(api, held, down):
    first = api.ok("GET", "/api/crm/accounts?connection=aged&stale=ok&top=5")
    down()
    answer = api("GET", first["nextLink"])
    assert (answer.status_code, answer.json()["code"]) == (503, "Unavailable")


def test_a_page_after_one_of_the_store_stays_in_its_order_when_the_remote_is_back(api, held, down, sandbox):
    down()
    first = api.ok("GET", "/api/crm/accounts?connection=aged&stale=ok&top=40")
    sandbox.control("DELETE", "faults")
    second = api("GET", first["nextLink"])
    assert_aged(second)
    assert not {item["id"] for item in first["value"]} & {item["id"] for item in second.json()["value"]}


def test_references_are_the_remote_s_ids_again(api, connect, contact, down):
    rid, company = contact
    connect("aged", entities={"account": "pull", "contact": "pull"})
    live = api.ok("GET", f"/api/crm/contacts/{rid}?connection=aged")
    assert live["account_id"] == company
    assert api.run("aged", seconds=60)["status"] == "succeeded"
    down()
    assert api.ok("GET", f"/api/crm/contacts/{rid}?connection=aged&stale=ok") == {**live, "etag": ""}


def test_a_reference_to_several_entities_is_the_remote_s_id_again(api, connect, account, down):
    company = account(name="Its company")
    connect("aged", entities={"account": "pull", "case": "pull"})
    body = {"title": "Sin se\u00f1al", "customer_account_id": company}
    live = api.ok("POST", "/api/crm/cases?connection=aged", body)
    assert api.run("aged", seconds=60)["status"] == "succeeded"
    down()
    aged = api.ok("GET", f"/api/crm/cases/{live['id']}?connection=aged&stale=ok")
    assert (aged["customer_id"], aged["customer_type"]) == (company, "account")
    assert aged == {**live, "etag": ""}
    path = "/api/crm/cases?connection=aged&stale=ok&top=1000&select=customer_id,customer_type"
    listed = {item["id"]: item for item in api.ok("GET", path)["value"]}[live["id"]]
    assert (listed["customer_id"], listed["customer_type"]) == (company, "account")


def test_a_reference_to_what_was_not_pulled_is_left_out_and_not_null(api, connect, contact, down):
    rid, _ = contact
    connect("aged", entities={"contact": "pull"})
    assert api.run("aged", seconds=60)["status"] == "succeeded"
    down()
    item = api.ok("GET", f"/api/crm/contacts/{rid}?connection=aged&stale=ok")
    assert "account_id" not in item
    assert item["last_name"] == "\u00d1and\u00fa"


def test_a_deleted_record_does_not_come_back(api, held, sandbox, down):
    rid, _ = held
    sandbox.delete(rid)
    assert api.run("aged")["counts"]["deleted"] == 1
    down()
    answer = api("GET", f"/api/crm/accounts/{rid}?connection=aged&stale=ok")
    assert answer.status_code == 503
    listed = api.ok("GET", "/api/crm/accounts?connection=aged&stale=ok&top=1000")["value"]
    assert rid not in {item["id"] for item in listed}


def test_a_rate_limit_counts_as_down_and_a_refusal_does_not(api, held, faults, sandbox):
    rid, live = held
    faults("privilege", path="*/accounts*", count=1)
    answer = api("GET", f"/api/crm/accounts/{rid}?connection=aged&stale=ok")
    assert (answer.status_code, answer.json()["code"]) == (502, "NotPermitted")
    faults("throttle", retry_after=3, path="*/accounts*", count=1)
    answer = api("GET", f"/api/crm/accounts/{rid}?connection=aged&stale=ok")
    assert_aged(answer)
    assert answer.json()["name"] == live["name"]


def test_a_connection_that_is_known_to_be_unreachable_is_not_waited_for(api, held, down, sandbox):
    rid, _ = held
    down()
    started = api("POST", "/api/runs", {"connection": "aged"})
    api.ended(started.headers["Operation-Location"], 60)
    assert api.ok("GET", "/api/integrations/aged")["state"] == "unreachable"
    before = sandbox.last_request()
    assert_aged(api("GET", f"/api/crm/accounts/{rid}?connection=aged&stale=ok"))
    assert sandbox.requests_since(before) == []


@pytest.mark.parametrize(
    ("query", "detail"),
    [
        ("stale=yes", "stale: expected ok, or leave it out."),
        ("stale=ok&filter=name%20eq%20'x'", "stale: the store can't answer 'filter'; leave one of them out."),
        ("stale=ok&orderby=name", "stale: the store can't answer 'orderby'; leave one of them out."),
        ("stale=ok&raw=true", "stale: the store can't answer 'raw'; leave one of them out."),
        ("stale=ok&select=name,fax", "stale: the store has no 'fax'; leave it out of select."),
    ],
)
def test_what_the_store_can_t_say_is_refused_beforehand(api, demo, problem, query, detail):
    problem(api("GET", f"/api/crm/accounts?connection=demo&{query}"), 400, "BadRequest", detail, "stale")
