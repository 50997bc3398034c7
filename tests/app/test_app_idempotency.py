"""The same request twice: with an Idempotency-Key a POST is carried out once, and repeats get its answer."""

import time
import uuid
from concurrent.futures import ThreadPoolExecutor

import pytest

pytestmark = [pytest.mark.xdist_group("app-api"), pytest.mark.usefixtures("demo")]

ACCOUNTS = "/api/crm/accounts"
PENDING = "The first request with this Idempotency-Key has not been answered yet; ask again later."


@pytest.fixture
def key():
    return {"Idempotency-Key": f"key {uuid.uuid4()}"}


@pytest.fixture
def company(sandbox):
    """A body with a name that nobody has; what it made goes with the test."""
    body = {"name": f"Once {uuid.uuid4()}", "annual_revenue": "0.10", "description": "ñ 😀 \"'\\"}
    yield body
    for rid in sandbox.named(body["name"]):
        sandbox.delete(rid)


def own(answer):
    """An answer without what belongs to the exchange, not to the request."""
    dropped = ("Date", "traceparent", "Idempotent-Replayed", "Server", "Content-Length")
    headers = {name: value for name, value in answer.headers.items() if name not in dropped}
    return answer.status_code, headers, answer.content


def test_a_repeat_gets_the_same_answer_and_nothing_is_made_twice(api, sandbox, company, key):
    first = api("POST", ACCOUNTS, company, headers=key)
    assert first.status_code == 201
    assert "Idempotent-Replayed" not in first.headers
    for _ in range(2):
        again = api("POST", ACCOUNTS, company, headers=key)
        assert own(again) == own(first)
        assert again.headers["Idempotent-Replayed"] == "true"
    assert sandbox.named(company["name"]) == [first.json()["id"]]


def test_without_a_key_or_with_another_one_it_is_another_request(api, sandbox, company, key):
    other = {"Idempotency-Key": str(uuid.uuid4())}
    ids = {api.ok("POST", ACCOUNTS, company, headers=each)["id"] for each in (key, other, {}, {})}
    assert len(ids) == 4
    assert sorted(sandbox.named(company["name"])) == sorted(ids)


def test_a_key_with_another_body_is_422(api, problem, sandbox, company, key):
    detail = "The Idempotency-Key was used for another request; take a new one."
    assert api("POST", ACCOUNTS, company, headers=key).status_code == 201
    answer = api("POST", ACCOUNTS, {**company, "phone": "1"}, headers=key)
    problem(answer, 422, "Unprocessable", detail)
    answer = api("POST", f"{ACCOUNTS}?raw=true", company, headers=key)
    problem(answer, 422, "Unprocessable", detail)
    assert len(sandbox.named(company["name"])) == 1
    assert api("POST", ACCOUNTS, company, headers=key).status_code == 201


def test_of_many_at_once_one_is_made_and_the_others_get_its_answer_or_409(
    api, problem, sandbox, company, key, faults
):
    faults("delay", seconds=0.5, method="PATCH", path="*/accounts*")
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: api("POST", ACCOUNTS, company, headers=key), range(8)))
    made = [each for each in answers if each.status_code == 201]
    refused = [each for each in answers if each.status_code != 201]
    assert made
    assert refused
    assert len({each.content for each in made}) == 1
    for answer in refused:
        problem(answer, 409, "Conflict", PENDING)
    assert sandbox.named(company["name"]) == [made[0].json()["id"]]
    assert own(api("POST", ACCOUNTS, company, headers=key)) == own(made[0])


def test_a_refusal_is_an_answer_and_is_repeated_too(api, company, key):
    """Also its trace id: it leads to what happened."""
    first = api("POST", ACCOUNTS, {"nope": 1}, headers=key)
    again = api("POST", ACCOUNTS, {"nope": 1}, headers=key)
    assert own(again) == own(first)
    assert first.status_code == 400
    assert again.headers["Idempotent-Replayed"] == "true"
    assert again.headers["Content-Type"] == "application/problem+json"


def test_a_failure_that_changed_nothing_may_be_repeated_under_the_same_key(
    api, sandbox, company, key, faults
):
    faults("throttle", retry_after=3, path="*/accounts*")
    first = api("POST", ACCOUNTS, company, headers=key)
    assert (first.status_code, first.headers["Retry-After"]) == (503, "3")
    time.sleep(3)
    again = api("POST", ACCOUNTS, company, headers=key)
    assert again.status_code == 201
    assert sandbox.named(company["name"]) == [again.json()["id"]]


@pytest.mark.parametrize("given", ["k" * 201, "k" * 5000, ""])
def test_a_key_of_a_wrong_length_is_400(api, problem, sandbox, company, given):
    answer = api("POST", ACCOUNTS, company, headers={"Idempotency-Key": given})
    detail = "Idempotency-Key: expected 1 to 200 characters of ASCII."
    problem(answer, 400, "BadRequest", detail, "Idempotency-Key")
    assert sandbox.named(company["name"]) == []


def test_a_key_of_200_characters_of_any_kind_is_taken(api, company):
    given = {"Idempotency-Key": ("~/\\#?%'\"" * 25)}
    first = api("POST", ACCOUNTS, company, headers=given)
    assert first.status_code == 201
    assert own(api("POST", ACCOUNTS, company, headers=given)) == own(first)


def test_a_key_belongs_to_its_route(api, company, key):
    assert api("POST", ACCOUNTS, company, headers=key).status_code == 201
    run = api("POST", "/api/runs", {"connection": "demo"}, headers=key)
    assert run.status_code == 202
    again = api("POST", "/api/runs", {"connection": "demo"}, headers=key)
    assert own(again) == own(run)
    assert again.headers["Operation-Location"] == run.headers["Operation-Location"]
    assert api.ended(run.headers["Operation-Location"])["status"] == "succeeded"


def test_a_connection_is_made_once(api, demo, sandbox, key):
    body = {
        "slug": "made-once",
        "connector": "dynamics365",
        "settings": demo["settings"],
        "secrets": {"client_secret": sandbox.facts["client_secret"]},
        "schedule": {},
    }
    first = api("POST", "/api/integrations", body, headers=key)
    again = api("POST", "/api/integrations", body, headers=key)
    assert first.status_code == 201
    assert own(again) == own(first)
    assert api("DELETE", "/api/integrations/made-once?confirm=true").status_code == 204


def test_the_key_means_nothing_to_other_methods(api, account, key):
    rid = account(name="Patched twice")
    for phone in ("1", "2"):
        assert api.ok("PATCH", f"{ACCOUNTS}/{rid}", {"phone": phone}, headers=key)["phone"] == phone


@pytest.mark.parametrize("then", [[("status", 503, 2)], [("throttle", 429, 1)]], ids=["then 503", "then 429"])
def test_a_create_whose_answer_was_lost_is_made_once_under_its_key(api, sandbox, faults, then):
    """Whatever the tries after the lost answer met, the caller's repeat finds the record that the first one made."""
    name = f"Lost {uuid.uuid4()}"
    key = {"Idempotency-Key": str(uuid.uuid4())}
    faults("reset_after", method="PATCH", path="*/accounts*", count=1)
    for kind, status, count in then:
        faults(kind, method="PATCH", path="*/accounts*", count=count, status=status, retry_after=3)
    api("POST", "/api/crm/accounts", {"name": name}, headers=key)
    time.sleep(3)
    api("POST", "/api/crm/accounts", {"name": name}, headers=key)
    found = api.ok("GET", f"/api/crm/accounts?filter=name%20eq%20'{name}'")["value"]
    assert len(found) == 1
    sandbox.delete(found[0]["id"])
