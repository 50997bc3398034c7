"""Entities beyond accounts and contacts over HTTP: references, states, lines, activities, as a caller sees them."""

import uuid
from decimal import Decimal
from urllib.parse import quote

import pytest

pytestmark = [pytest.mark.xdist_group("app-entities"), pytest.mark.usefixtures("demo")]


@pytest.fixture
def case(api, account):
    return api.ok(
        "POST", "/api/crm/cases", {"title": "Sin señal", "customer_account_id": account(name="Cliente")}
    )


def lists(api, entities, text, **more):
    options = "".join(f"&{name}={quote(value)}" for name, value in more.items())
    return api.ok("GET", f"/api/crm/{entities}?filter={quote(text)}{options}")["value"]


def test_a_case_knows_its_customer_by_one_name_or_by_two(api, problem, account, case):
    assert case["customer_type"] == "account"
    assert case["status"] == "open"
    assert case["number"]
    contact = api.ok("POST", "/api/crm/contacts", {"last_name": "Peña"})["id"]
    both = {"customer_id": contact, "customer_type": "contact"}
    changed = api.ok("PATCH", f"/api/crm/cases/{case['id']}", both)
    assert {name: changed[name] for name in both} == both
    (found,) = lists(api, "cases", f"customer_id eq {contact}")
    assert found["id"] == case["id"]
    detail = "customer_id: can be of several kinds; give customer_type too: account, contact."
    problem(
        api("PATCH", f"/api/crm/cases/{case['id']}", {"customer_id": contact}),
        400,
        "BadRequest",
        detail,
        "customer_id",
    )
    answer = api("POST", "/api/crm/cases", {"title": "Nobody's"})
    problem(answer, 400, "BadRequest", "customer_id: required to create case.", "customer_id")


def test_a_case_is_resolved_read_only_and_opened_again_by_its_status(api, case):
    path = f"/api/crm/cases/{case['id']}"
    resolved = api.ok(
        "PATCH", path, {"status": "resolved", "resolution": "Router cambiado", "priority": "high"}
    )
    assert (resolved["status"], resolved["priority"]) == ("resolved", "high")
    assert "resolution" not in resolved
    refused = api("PATCH", path, {"title": "Other"})
    assert (refused.status_code, refused.json()["code"]) == (422, "Rejected")
    again = api.ok("PATCH", path, {"status": "open", "title": "Sin señal otra vez"})
    assert (again["status"], again["title"]) == ("open", "Sin señal otra vez")
    canceled = api.ok("PATCH", path, {"status": "canceled"})
    assert canceled["status"] == "canceled"
    # Already closed, and written all the same: opened, changed and closed in one step.
    assert api.ok("PATCH", path, {"status": "resolved", "title": "Closed"})["title"] == "Closed"
    assert api.ok("GET", path)["status"] == "resolved"


def test_if_match_holds_for_a_state_that_an_action_sets(api, problem, case):
    path = f"/api/crm/cases/{case['id']}"
    old = case["etag"]
    new = api.ok("PATCH", path, {"priority": "low"})["etag"]
    answer = api("PATCH", path, {"status": "resolved"}, headers={"If-Match": old})
    assert (answer.status_code, answer.json()["code"]) == (412, "Stale")
    assert api.ok("GET", path)["status"] == "open"
    assert (
        api("PATCH", path, {"status": "resolved"}, headers={"If-Match": new}).json()["status"] == "resolved"
    )


def test_a_name_that_says_one_kind_is_for_writing(api, problem, case):
    answer = api("GET", "/api/crm/cases?filter=customer_contact_id ne null")
    problem(
        answer, 400, "BadRequest", "filter: 'customer_contact_id' is for writing; name customer_id.", "filter"
    )
    answer = api("PATCH", f"/api/crm/cases/{case['id']}", {"customer_contact_id": None})
    detail = "customer_contact_id: can't be emptied for one kind alone; say customer_id null."
    problem(answer, 400, "BadRequest", detail, "customer_contact_id")


def test_a_closed_case_says_what_to_do(api, case):
    path = f"/api/crm/cases/{case['id']}"
    api.ok("PATCH", path, {"status": "canceled"})
    refused = api("PATCH", path, {"title": "Other"}).json()
    assert refused["code"] == "Rejected"
    assert "This case is canceled; say which status it is to have as well" in refused["detail"]


def test_a_line_s_product_is_an_id_and_there(api, product, account):
    quote = {"name": "Q", "customer_account_id": account(name="C")}
    for bad in (f"{product['id']} or productnumber ne null", "../accounts", "zzz"):
        answer = api("POST", "/api/crm/quotes", {**quote, "lines": [{"product_id": bad, "quantity": "1"}]})
        assert (answer.status_code, answer.json()["errors"][0]["field"]) == (400, "lines")
        assert "expected the id of a record at the system" in answer.json()["detail"]
    nobody = str(uuid.uuid4())
    answer = api("POST", "/api/crm/quotes", {**quote, "lines": [{"product_id": nobody, "quantity": "1"}]})
    assert (answer.status_code, answer.json()["errors"][0]["field"]) == (422, "lines")
    answer = api("POST", "/api/crm/quotes", {**quote, "lines": [{"description": "x", "unit": "box"}]})
    assert "line 1: unit: what is written in has no unit" in answer.json()["detail"]


def test_what_there_is_no_currency_of_is_refused_with_those_that_there_are(api, account):
    answer = api("PATCH", f"/api/crm/accounts/{account(name='C')}", {"currency": "XXX"})
    assert answer.json()["errors"][0]["field"] == "currency"
    assert "expected one of USD" in answer.json()["detail"]


def test_a_run_of_several_entities_tells_its_end_in_the_list_too(api):
    run = api.run("demo")
    listed = api.ok("GET", "/api/runs")["value"]
    (found,) = [each for each in listed if each["id"] == run["id"]]
    assert (found["status"], found["ended_at"]) == (run["status"], run["ended_at"])
    assert all("children" not in each for each in listed)


def test_a_resolution_goes_with_the_state(api, problem, case):
    answer = api("PATCH", f"/api/crm/cases/{case['id']}", {"resolution": "Nothing"})
    detail = "resolution: goes with status resolved; give both, or leave it out."
    problem(answer, 400, "BadRequest", detail, "resolution")


def test_an_opportunity_is_won_and_lost(api, account):
    made = api.ok(
        "POST", "/api/crm/opportunities", {"name": "Obra", "account_id": account(name="C"), "amount": "10.50"}
    )
    path = f"/api/crm/opportunities/{made['id']}"
    assert (Decimal(made["amount"]), made["status"]) == (Decimal("10.5"), "open")
    assert api.ok("PATCH", path, {"status": "won"})["status"] == "won"
    assert api.ok("PATCH", path, {"status": "lost"})["status"] == "lost"
    assert api.ok("PATCH", path, {"status": "open"})["status"] == "open"


@pytest.fixture
def product(api):
    sku = f"SKU-{uuid.uuid4().hex[:8]}"
    units = [each["unit"] for each in api.ok("GET", "/api/crm/products?top=1")["value"]]
    return api.ok(
        "POST", "/api/crm/products", {"name": "Cable", "sku": sku, "unit": units[0], "price": "3.25"}
    )


def test_a_quote_has_its_lines_in_every_answer(api, account, product):
    lines = [
        {"product_id": product["id"], "quantity": "2", "unit_price": "3.25"},
        {"description": "Instalación", "quantity": "1", "unit_price": "40", "tax": "7.6"},
    ]
    body = {"name": "Oferta", "customer_account_id": account(name="C"), "lines": lines, "ship_city": "Quito"}
    made = api.ok("POST", "/api/crm/quotes", body)
    first, second = made["lines"]
    assert (first["product_id"], first["sku"], first["unit"]) == (
        product["id"],
        product["sku"],
        product["unit"],
    )
    assert (second["description"], "product_id" in second) == ("Instalación", False)
    path = f"/api/crm/quotes/{made['id']}"
    assert api.ok("GET", path) == made
    (listed,) = lists(api, "quotes", f"id eq {made['id']}")
    assert listed["lines"] == made["lines"]
    # A line by its key stays, another goes, a new one comes.
    wanted = [{**second, "quantity": "3"}, {"description": "Viaje", "quantity": "1", "unit_price": "5"}]
    changed = api.ok("PATCH", path, {"lines": wanted})["lines"]
    assert [each["description"] for each in changed] == ["Instalación", "Viaje"]
    assert (changed[0]["key"], float(changed[0]["quantity"])) == (second["key"], 3)
    assert first["key"] not in {each["key"] for each in changed}
    assert api.ok("PATCH", path, {"lines": []})["lines"] is None


@pytest.mark.parametrize(
    ("lines", "detail"),
    [
        ([{"key": str(uuid.UUID(int=1)), "quantity": "1"}], "the document has no line"),
        ([{"quantity": "1"}], "line 1: a line names a product_id, or has a description"),
        ([{"description": "x", "colour": "red"}], "line 1: 'colour' is no field of a line"),
        ([{"description": "x", "quantity": "many"}], "line 1: quantity: expected a decimal number"),
        ("all", "expected a list of lines"),
    ],
)
def test_a_wrong_line_is_named(api, account, lines, detail):
    answer = api(
        "POST", "/api/crm/quotes", {"name": "Q", "customer_account_id": account(name="C"), "lines": lines}
    )
    assert (answer.status_code, answer.json()["errors"][0]["field"]) == (400, "lines")
    assert detail in answer.json()["detail"]


def test_activities_are_listed_together_and_kept_apart(api, problem, account):
    about = {"regarding_account_id": account(name="C")}
    subject = f"Act {uuid.uuid4().hex[:8]}"
    kinds = {
        "task": {"due_at": "2026-12-01T15:00:00Z", "priority": "high"},
        "call": {"direction": "out"},
        "email": {"direction": "in"},
        "meeting": {
            "starts_at": "2026-12-01T15:00:00Z",
            "ends_at": "2026-12-01T16:00:00Z",
            "location": "Sala 1",
        },
    }
    made = {
        kind: api.ok("POST", "/api/crm/activities", {"kind": kind, "subject": subject, **about, **more})
        for kind, more in kinds.items()
    }
    for kind, more in kinds.items():
        item = made[kind]
        assert item.items() >= {"kind": kind, "status": "open", "regarding_type": "account", **more}.items()
        assert api.ok("GET", f"/api/crm/activities/{item['id']}") == item
    listed = lists(api, "activities", f"subject eq '{subject}'")
    assert {each["kind"]: each["id"] for each in listed} == {kind: item["id"] for kind, item in made.items()}
    # What the shared list does not tell is left out, not shown as empty.
    assert all("location" not in each and "direction" not in each for each in listed)
    (meeting,) = lists(api, "activities", f"subject eq '{subject}' and kind eq 'meeting'")
    assert meeting["ends_at"] == "2026-12-01T16:00:00Z"
    path = f"/api/crm/activities/{made['task']['id']}"
    assert api.ok("PATCH", path, {"status": "done"})["status"] == "done"
    assert api.ok("PATCH", path, {"status": "open", "priority": "low"})["priority"] == "low"
    detail = "kind: can't be changed; make another one."
    problem(api("PATCH", path, {"kind": "call"}), 400, "BadRequest", detail, "kind")
    assert api("DELETE", f"{path}?confirm=true").status_code == 204
    assert api("GET", path).status_code == 404
    answer = api("POST", "/api/crm/activities", {"kind": "note", "subject": "x"})
    assert (answer.status_code, answer.json()["errors"][0]["field"]) == (400, "kind")


def test_an_owner_is_named_by_e_mail_and_a_currency_by_its_code(api, problem, account):
    rid = account(name="C")
    item = api.ok("GET", f"/api/crm/accounts/{rid}")
    email = item["owner_email"]
    assert "@" in email
    assert rid in {each["id"] for each in lists(api, "accounts", f"owner_email eq '{email}' and name eq 'C'")}
    currency = api.ok("PATCH", f"/api/crm/accounts/{rid}", {"currency": "USD"})["currency"]
    assert currency == "USD"
    answer = api("PATCH", f"/api/crm/accounts/{rid}", {"owner_email": "nobody@example.test"})
    detail = "owner_email: none of the systemusers has 'nobody@example.test' as internalemailaddress; expected one that has."
    problem(answer, 400, "BadRequest", detail, "owner_email")


def test_many_cases_are_resolved_at_once(api, account):
    customer = account(name="C")
    made = [
        api.ok("POST", "/api/crm/cases", {"title": f"Case {n}", "customer_account_id": customer})["id"]
        for n in range(3)
    ]
    operations = [{"method": "update", "id": rid, "fields": {"status": "resolved"}} for rid in made]
    operations.append({"method": "update", "id": str(uuid.uuid4()), "fields": {"status": "resolved"}})
    found = api.ok("POST", "/api/crm/cases/batch", {"operations": operations})["value"]
    assert [each["status"] for each in found] == [200, 200, 200, 404]
    assert {each["item"]["status"] for each in found[:3]} == {"resolved"}


def test_a_connector_tells_of_each_entity_by_what_a_create_is_found_again(api):
    found = {
        each["name"]: {entity["creates_found_by"] for entity in each["entities"]}
        for each in api.ok("GET", "/api/connectors")["value"]
    }
    assert found == {"dynamics365": {"id"}, "odoo": {"marker"}, "webhook": {None}}  # nothing is made there
