"""Many writes in one call: each operation has its own outcome, and long batches are runs that the caller follows."""

import json
import time
import uuid
from collections import Counter
from urllib.parse import quote

import pytest

from crm_core.connector import Write
from crm_core.errors import BadRequest
from crm_core.functions.batch import is_long
from crm_core.model.entities import BY_PATH

pytestmark = [pytest.mark.xdist_group("app-batch"), pytest.mark.usefixtures("demo")]

BATCH = "/api/crm/accounts/batch?connection=demo"
ACCOUNTS = "/api/crm/accounts"
BULK = "*/accounts/Microsoft.Dynamics.CRM.CreateMultiple"
ASYNC = {"Prefer": "respond-async"}
NOBODY = "00000000-0000-4000-8000-000000000000"


@pytest.fixture
def label(sandbox):
    """Begins the names of a test; what bears it goes with the test."""
    text = f"Batch {uuid.uuid4().hex[:8]}"
    yield text
    for rid, values in sandbox.accounts().items():
        if values["name"].startswith(text):
            sandbox.delete(rid)


@pytest.fixture
def held(sandbox, label):
    """How many accounts bear each of the test's names."""
    return lambda: Counter(
        values["name"].removeprefix(label).strip()
        for values in sandbox.accounts().values()
        if values["name"].startswith(label)
    )


def creates(label, number):
    return [{"method": "create", "fields": {"name": f"{label} {n}"}} for n in range(number)]


def numbers(number):
    return Counter(str(n) for n in range(number))


def outcomes(api, run, top=100):
    return [each for page in api.pages(f"/api/runs/{run['id']}/outcomes?top={top}") for each in page]


def without_trace(body):
    return {name: value for name, value in body.items() if name != "traceId"}


# --- while the caller waits --------------------------------------------------------------------------------------


def test_each_operation_has_its_outcome_in_the_order_of_the_operations(api, account, label, held):
    changed, deleted, moved = account(name=f"{label} old"), account(name=f"{label} x"), account(name="Moved")
    etag = api("GET", f"{ACCOUNTS}/{changed}").headers["ETag"]
    answer = api(
        "POST",
        f"{BATCH}&confirm=true",
        {
            "operations": [
                {"method": "create", "fields": {"name": f"{label} made", "telephone1": "1"}},
                {"method": "update", "id": changed, "fields": {"phone": "2"}, "if_match": etag},
                {"method": "delete", "id": deleted},
                {"method": "create", "fields": {"name": "x", "colour": "blue"}},
                {"method": "update", "id": NOBODY, "fields": {"name": "x"}},
                {"method": "update", "id": moved, "fields": {"name": "x"}, "if_match": 'W/"1"'},
                {"method": "update", "id": "no-id", "fields": {"name": "x"}},
                {"method": "delete", "id": NOBODY.replace("8", "9")},
            ]
        },
    )
    assert answer.status_code == 200
    body = answer.json()
    assert body["counts"] == {"created": 1, "updated": 1, "deleted": 1, "failed": 5}
    found = body["value"]
    assert [each["index"] for each in found] == list(range(8))
    assert [each["status"] for each in found] == [201, 200, 204, 400, 404, 412, 400, 404]
    made, updated, gone, *refused = found
    assert made["item"] == api.ok("GET", f"{ACCOUNTS}/{made['id']}")
    assert (made["item"]["phone"], made["etag"]) == ("1", made["item"]["etag"])
    assert updated["item"] == api.ok("GET", f"{ACCOUNTS}/{changed}")
    assert (updated["id"], updated["item"]["phone"]) == (changed, "2")
    assert gone == {"index": 2, "status": 204, "id": deleted}
    assert all("item" not in each and each["error"]["status"] == each["status"] for each in refused)
    assert held() == Counter(["made", "old"])
    assert "Retry-After" not in answer.headers


def test_a_refusal_is_that_of_the_single_call(api, account, label):
    rid = account(name=label)
    alone = [
        api("POST", ACCOUNTS, {"name": label, "nope": 1, "employees": "x"}),
        api("POST", ACCOUNTS, {"name": label, "parent_id": NOBODY}),
        api("PATCH", f"{ACCOUNTS}/{rid}", {"name": "x"}, headers={"If-Match": 'W/"1"'}),
        api("PATCH", f"{ACCOUNTS}/{NOBODY}", {"name": "x"}),
        api("PATCH", f"{ACCOUNTS}/{rid}", {}),
    ]
    operations = [
        {"method": "create", "fields": {"name": label, "nope": 1, "employees": "x"}},
        {"method": "create", "fields": {"name": label, "parent_id": NOBODY}},
        {"method": "update", "id": rid, "fields": {"name": "x"}, "if_match": 'W/"1"'},
        {"method": "update", "id": NOBODY, "fields": {"name": "x"}},
    ]
    answer = api("POST", BATCH, {"operations": operations})
    empty = api("POST", BATCH, {"operations": [{"method": "update", "id": rid, "fields": {}}]})
    found = [*answer.json()["value"], *empty.json()["value"]]
    trace = answer.headers["traceparent"].split("-")[1]
    assert {each["error"]["traceId"] for each in answer.json()["value"]} == {trace}
    assert (
        [each["status"] for each in found]
        == [each.status_code for each in alone]
        == [400, 422, 412, 404, 400]
    )
    for each, single in zip(found, alone, strict=True):
        mine, theirs = without_trace(each["error"]), without_trace(single.json())
        for body in (mine, theirs):
            body.get("vendor", {}).pop("requestId", None)
        assert mine == theirs
    # A native name, a trace of our own and odd letters go the same way as alone.
    assert found[0]["error"]["errors"][0]["field"] == "nope"


def test_minimal_outcomes_have_no_item(api, label):
    answer = api("POST", BATCH, {"operations": creates(label, 1)}, headers={"Prefer": "return=minimal"})
    (made,) = answer.json()["value"]
    assert made.keys() == {"index", "status", "id", "etag"}
    assert answer.headers["Preference-Applied"] == "return=minimal"
    whole = api("POST", f"{BATCH}&raw=true", {"operations": creates(label, 1)})
    assert "Preference-Applied" not in whole.headers
    assert whole.json()["value"][0]["item"]["raw"]["name"] == f"{label} 0"


@pytest.mark.parametrize(
    ("operation", "field", "detail"),
    [
        (3, "operation", 'operation: expected an object such as {"method": "create", ...}.'),
        ({"fields": {"name": "x"}}, "method", "method: field required."),
        (
            {"method": "upsert", "fields": {"name": "x"}},
            "method",
            "method: input should be 'create', 'update' or 'delete'.",
        ),
        ({"method": "create"}, "fields", "fields: required to create."),
        ({"method": "create", "fields": []}, "fields", "fields: input should be a valid dictionary."),
        ({"method": "update", "fields": {"name": "x"}}, "id", "id: required to update."),
        ({"method": "update", "id": 5, "fields": {"name": "x"}}, "id", "id: input should be a valid string."),
        (
            {"method": "create", "id": NOBODY, "fields": {"name": "x"}},
            "id",
            "id: is not for the method create; leave it out.",
        ),
        (
            {"method": "create", "fields": {"name": "x"}, "if_match": "*"},
            "if_match",
            "if_match: is not for the method create; leave it out.",
        ),
        (
            {"method": "update", "id": NOBODY, "fields": {"name": "x"}, "if_match": "*\r\nCallerObjectId: x"},
            "if_match",
            "if_match: expected an etag, such as an answer has.",
        ),
        (
            {"method": "update", "id": NOBODY, "fields": {"name": "x"}, "key": "k"},
            "key",
            "key: is not for the method update; leave it out.",
        ),
        (
            {"method": "create", "fields": {"name": "x"}, "item": {}},
            "item",
            "item: extra inputs are not permitted.",
        ),
        ({"method": "create", "fields": {"phone": "1"}}, "name", "name: required to create account."),
    ],
)
def test_what_is_wrong_with_an_operation_is_its_outcome(api, label, held, operation, field, detail):
    answer = api("POST", BATCH, {"operations": [operation, *creates(label, 1)]})
    wrong, good = answer.json()["value"]
    assert (wrong["status"], wrong["error"]["code"], wrong["error"]["detail"]) == (400, "BadRequest", detail)
    assert {"field": field, "message": detail} in wrong["error"]["errors"]
    assert (good["status"], held()) == (201, numbers(1))


def test_a_record_is_named_once(api, account, label, held):
    rid = account(name=f"{label} old")
    answer = api(
        "POST",
        f"{BATCH}&confirm=true",
        {
            "operations": [
                {"method": "update", "id": rid, "fields": {"name": f"{label} new"}},
                {"method": "delete", "id": rid.upper()},
                {"method": "create", "key": "k", "fields": {"name": f"{label} once"}},
                {"method": "create", "key": "k", "fields": {"name": f"{label} twice"}},
            ]
        },
    )
    found = answer.json()["value"]
    assert [each["status"] for each in found] == [200, 400, 201, 400]
    assert [found[n]["error"]["errors"][0] for n in (1, 3)] == [
        {
            "field": name,
            "message": f"{name}: operation {first} names the same; put them together, or send another batch.",
        }
        for name, first in (("id", 0), ("key", 2))
    ]
    assert held() == Counter(["new", "once"])


@pytest.mark.parametrize(
    ("body", "field", "detail"),
    [
        ({}, "operations", "operations: field required."),
        ({"operations": {}}, "operations", "operations: input should be a valid list."),
        (
            {"operations": []},
            "operations",
            "operations: list should have at least 1 item after validation, not 0.",
        ),
        (
            {"operations": [{"method": "create", "fields": {"name": "x"}}] * 1001},
            "operations",
            "operations: list should have at most 1000 items after validation, not 1001.",
        ),
        ({"operations": [1], "items": []}, "items", "items: extra inputs are not permitted."),
    ],
)
def test_what_is_wrong_with_the_whole_is_400_and_nothing_is_done(api, problem, sandbox, body, field, detail):
    seen = sandbox.last_request()
    problem(api("POST", BATCH, body), 400, "BadRequest", detail, field)
    assert not sandbox.requests_since(seen)


def test_a_body_over_1_mib_is_400(api, problem):
    operation = {"method": "create", "fields": {"name": "x", "description": "y" * 1900}}
    answer = api("POST", BATCH, {"operations": [operation] * 600})
    problem(answer, 400, "BadRequest", "body: is longer than 1048576 bytes.", "body")


@pytest.mark.parametrize("more", ["", "&confirm=false"])
def test_deletes_have_to_be_confirmed_before_anything_is_done(
    api, problem, sandbox, account, label, held, more
):
    rid = account(name=f"{label} old")
    body = {"operations": [*creates(label, 1), {"method": "delete", "id": rid}]}
    detail = "confirm: the batch has deletes, which can't be taken back; say confirm=true."
    for headers in ({}, {"Prefer": "respond-async"}):
        problem(api("POST", BATCH + more, body, headers=headers), 400, "BadRequest", detail, "confirm")
    assert held() == Counter(["old"])


def test_an_unknown_entity_or_connection_is_404(api, problem):
    answer = api("POST", "/api/crm/widgets/batch?connection=demo", {"operations": creates("x", 1)})
    problem(answer, 404, "NotFound", f"There is no entity 'widgets'; known are {', '.join(BY_PATH)}.")
    answer = api("POST", "/api/crm/accounts/batch?connection=none", {"operations": creates("x", 1)})
    detail = "There is no connection 'none'; GET /api/integrations lists them."
    problem(answer, 404, "NotFound", detail)


def test_a_limit_leaves_all_of_its_call_to_be_sent_again(api, sandbox, label, held, faults):
    faults("throttle", retry_after=3, count=1, method="POST", path=BULK)
    seen = sandbox.last_request()
    answer = api("POST", BATCH, {"operations": creates(label, 40)})
    assert (answer.status_code, answer.headers["Retry-After"]) == (200, "3")
    found = answer.json()["value"]
    for each in found:
        assert (each["status"], each["error"]["code"]) == (503, "RateLimited")
        assert 2 < each["retry_after"] <= 3
        assert "outcome_unknown" not in each
    assert held() == Counter()
    assert len([each for each in sandbox.requests_since(seen) if each["method"] == "POST"]) == 1
    time.sleep(3.2)
    assert api.ok("POST", BATCH, {"operations": creates(label, 40)})["counts"]["created"] == 40
    assert held() == numbers(40)


def test_one_bad_row_fails_alone_though_all_go_in_one_call(api, sandbox, label, held):
    operations = creates(label, 5)
    # The hub lets it through; only the system knows which owners there are.
    operations[2]["fields"]["parent_id"] = str(uuid.uuid4())
    seen = sandbox.last_request()
    found = api.ok("POST", BATCH, {"operations": operations})
    assert found["counts"] == {"created": 4, "updated": 0, "deleted": 0, "failed": 1}
    bad = found["value"][2]
    assert bad["status"] in (404, 422)
    assert bad["error"]["vendor"]["system"] == "dynamics365"
    assert held() == Counter(["0", "1", "3", "4"])
    sent = [each["path"].rpartition("/")[2] for each in sandbox.requests_since(seen) if not each["part"]]
    assert sent == ["Microsoft.Dynamics.CRM.CreateMultiple", "$batch"]


def test_what_was_carried_out_though_its_answer_was_lost_is_made_once(api, label, held, faults):
    faults("reset_after", count=1, method="POST", path=BULK)
    found = api.ok("POST", BATCH, {"operations": creates(label, 30)})
    assert found["counts"]["created"] == 30
    assert held() == numbers(30)


def test_an_outcome_that_is_not_known_says_so(api, label, held, faults):
    faults("status", status=500, count=None, method="POST", path=BULK)
    found = api.ok("POST", BATCH, {"operations": creates(label, 30)})["value"]
    assert {each["error"]["code"] for each in found} == {"Unavailable"}
    assert all(each["outcome_unknown"] for each in found)
    assert held() == Counter()


# --- the same batch twice ----------------------------------------------------------------------------------------


def test_a_repeat_under_an_idempotency_key_gets_the_same_answer_however_long(api, label, held):
    key = {"Idempotency-Key": str(uuid.uuid4())}
    operations = creates(label, 50)
    for each in operations:
        each["fields"]["description"] = "ñ" * 1900
    first = api("POST", BATCH, {"operations": operations}, headers=key)
    again = api("POST", BATCH, {"operations": operations}, headers=key)
    assert first.json()["counts"]["created"] == 50
    assert len(first.content) > 100_000
    assert (again.status_code, again.content) == (200, first.content)
    assert again.headers["Idempotent-Replayed"] == "true"
    assert held() == numbers(50)


def test_a_repeat_under_an_idempotency_key_sends_what_was_not_done(api, label, held, faults):
    key = {"Idempotency-Key": str(uuid.uuid4())}
    operations = [{"method": "create", "fields": {"nope": 1}}, *creates(label, 20)]
    faults("throttle", retry_after=3, count=1, method="POST", path=BULK)
    first = api("POST", BATCH, {"operations": operations}, headers=key)
    assert [each["status"] for each in first.json()["value"]] == [400, *[503] * 20]
    time.sleep(3.2)
    second, third = (api("POST", BATCH, {"operations": operations}, headers=key) for _ in range(2))
    assert second.json()["counts"] == {"created": 20, "updated": 0, "deleted": 0, "failed": 1}
    assert second.json()["value"][0] == first.json()["value"][0]
    assert [each["index"] for each in second.json()["value"]] == list(range(21))
    assert ("Retry-After" in second.headers, third.headers["Idempotent-Replayed"]) == (False, "true")
    assert third.content == second.content
    assert held() == numbers(20)


def test_a_create_with_a_key_of_the_callers_is_made_once(api, label, held):
    operation = {"method": "create", "key": f"{label} order 7", "fields": {"name": f"{label} 0"}}
    first = api.ok("POST", BATCH, {"operations": [operation]})["value"][0]
    again = api.ok("POST", BATCH, {"operations": [*creates(label, 2)[1:], operation]})["value"][1]
    assert (again["status"], again["id"]) == (201, first["id"])
    assert held() == numbers(2)


def test_a_long_batch_under_an_idempotency_key_is_one_run(api, label, held):
    headers = {"Idempotency-Key": str(uuid.uuid4()), "Prefer": "respond-async"}
    runs = [api("POST", BATCH, {"operations": creates(label, 3)}, headers=headers) for _ in range(2)]
    assert {each.status_code for each in runs} == {202}
    assert runs[0].headers["Operation-Location"] == runs[1].headers["Operation-Location"]
    assert api.ended(runs[0].headers["Operation-Location"])["counts"]["created"] == 3
    assert held() == numbers(3)


# --- long ones ---------------------------------------------------------------------------------------------------


def test_what_is_long_is_a_matter_of_operations_and_of_remote_calls():
    writes, wrong = [Write()] * 100, [BadRequest("no")] * 100
    assert [is_long(writes[:n], 1) for n in (1, 50, 51)] == [False, False, True]
    assert [is_long(writes[:n], 2) for n in (50, 51, 100)] == [False, False, False]
    assert is_long([*writes, Write()], 1000)
    assert not is_long([*writes[:50], *wrong[:50]], 1)  # what is wrong makes no call


@pytest.mark.parametrize("number", [101, 130])
def test_a_long_batch_is_a_run_with_outcomes(api, label, held, number):
    answer = api("POST", BATCH, {"operations": [*creates(label, number), {"method": "create"}]})
    run = answer.json()
    assert answer.status_code == 202
    assert answer.headers["Operation-Location"] == f"https://hub.example.test/api/runs/{run['id']}"
    assert answer.headers["Retry-After"] == "1"
    assert "Preference-Applied" not in answer.headers
    expected = {
        "connection": "demo", "entity": "account", "mode": "batch", "status": "queued", "origin": "key:settings",
        "outcomes": f"/api/runs/{run['id']}/outcomes",
    }  # fmt: skip
    assert {name: run[name] for name in expected} == expected
    ended = api.ended(answer.headers["Operation-Location"])
    assert (ended["status"], ended["problem"], ended["read"]) == ("succeeded", None, number + 1)
    assert ended["counts"] == {"created": number, "updated": 0, "deleted": 0, "unchanged": 0, "failed": 1}
    assert 2 <= ended["calls"]["remote"] <= 2 * -(-number // 50)
    for top in (100, 7):
        found = outcomes(api, run, top)
        assert [each["index"] for each in found] == list(range(number + 1))
    *made, wrong = found
    assert {each["status"] for each in made} == {201}
    assert [each["item"]["name"] for each in made] == [f"{label} {n}" for n in range(number)]
    some = made[number // 2]
    assert some["item"] == api.ok("GET", f"{ACCOUNTS}/{some['id']}")
    assert (wrong["status"], wrong["error"]["errors"][0]["field"]) == (400, "fields")
    assert wrong["error"]["traceId"] == answer.headers["traceparent"].split("-")[1]
    assert held() == numbers(number)


@pytest.mark.parametrize("prefer", ["respond-async", "Return=Minimal , Respond-Async; foo=1, wait=10"])
def test_a_short_batch_is_a_run_if_the_caller_prefers_it(api, account, label, held, prefer):
    changed, deleted = account(name=f"{label} old"), account(name=f"{label} x")
    etag = api("GET", f"{ACCOUNTS}/{changed}").headers["ETag"]
    operations = [
        {"method": "delete", "id": deleted},
        {"method": "update", "id": changed, "fields": {"annual_revenue": "0.10"}, "if_match": etag},
        {"method": "update", "id": NOBODY, "fields": {"name": "x"}},
        *creates(label, 1),
    ]
    answer = api("POST", f"{BATCH}&confirm=true", {"operations": operations}, headers={"Prefer": prefer})
    assert answer.status_code == 202
    minimal = "Minimal" in prefer
    applied = "respond-async, return=minimal" if minimal else "respond-async"
    assert answer.headers["Preference-Applied"] == applied
    ended = api.ended(answer.headers["Operation-Location"])
    assert ended["counts"] == {"created": 1, "updated": 1, "deleted": 1, "unchanged": 0, "failed": 1}
    gone, updated, missing, made = outcomes(api, ended)
    assert gone == {"index": 0, "status": 204, "id": deleted}
    assert (updated["status"], updated["id"], missing["status"], made["status"]) == (200, changed, 404, 201)
    assert missing["error"]["vendor"]["system"] == "dynamics365"
    if minimal:
        assert updated.keys() == made.keys() == {"index", "status", "id", "etag"}
    else:
        assert updated["item"] == api.ok("GET", f"{ACCOUNTS}/{changed}")
    assert held() == Counter(["old", "0"])


def test_raw_answers_of_a_run_are_kept_if_they_were_asked_for(api, label):
    headers = {"Prefer": "respond-async"}
    answer = api("POST", f"{BATCH}&raw=true", {"operations": creates(label, 1)}, headers=headers)
    (made,) = outcomes(api, api.ended(answer.headers["Operation-Location"]))
    alone = api.ok("GET", f"{ACCOUNTS}/{made['id']}?raw=true")
    assert made["item"]["raw"]["name"] == alone["raw"]["name"] == f"{label} 0"


def test_a_run_goes_on_after_the_remote_s_limit_is_over(api, label, held, faults):
    faults("throttle", retry_after=3, count=1, method="POST", path=BULK)
    answer = api("POST", BATCH, {"operations": creates(label, 60)}, headers=ASYNC)
    ended = api.ended(answer.headers["Operation-Location"])
    assert (ended["status"], ended["counts"]["created"], ended["problem"]) == ("succeeded", 60, None)
    assert ended["seconds"] >= 3
    assert held() == numbers(60)
    assert {each["status"] for each in outcomes(api, ended)} == {201}


def test_a_run_goes_on_after_the_remote_was_away(api, label, held, faults):
    faults("reset_after", count=8, method="POST", path=BULK)
    answer = api("POST", BATCH, {"operations": creates(label, 60)}, headers=ASYNC)
    ended = api.ended(answer.headers["Operation-Location"], 60)
    assert (ended["status"], ended["counts"]["created"]) == ("succeeded", 60)
    assert held() == numbers(60)


def test_two_long_batches_and_a_pull_go_side_by_side(api, label, held):
    answers = [
        api(
            "POST",
            BATCH,
            {"operations": creates(f"{label} {n} of", 101)},
            headers={"Prefer": "return=minimal"},
        )
        for n in range(2)
    ]
    assert api.run("demo")["status"] == "succeeded"
    for answer in answers:
        assert api.ended(answer.headers["Operation-Location"])["counts"]["created"] == 101
    assert len(held()) == 202


def test_only_a_batch_has_outcomes(api, problem):
    run = api.run("demo")
    detail = f"Run {run['id']} is no batch; only a batch has outcomes."
    problem(api("GET", f"/api/runs/{run['id']}/outcomes"), 404, "NotFound", detail)
    problem(api("GET", "/api/runs/abc/outcomes"), 404, "NotFound", "There is no run 'abc'.")
    assert "outcomes" not in run


def test_a_page_of_outcomes_belongs_to_its_run(api, problem, label):
    headers = {"Prefer": "respond-async, return=minimal"}
    runs = [
        api.ended(
            api("POST", BATCH, {"operations": creates(label, 3)}, headers=headers).headers[
                "Operation-Location"
            ]
        )
        for _ in range(2)
    ]
    page = api.ok("GET", f"/api/runs/{runs[0]['id']}/outcomes?top=2")
    assert len(page["value"]) == 2
    other = page["nextLink"].replace(quote(runs[0]["id"]), runs[1]["id"])
    detail = "skiptoken: belongs to another query or was changed; follow nextLink as it is."
    problem(api("GET", other), 400, "BadRequest", detail, "skiptoken")
    assert [each["index"] for each in api.ok("GET", page["nextLink"])["value"]] == [2]


def test_amounts_keep_their_digits_on_their_way_through_a_run(api, label, sandbox):
    fields = {"name": f"{label} money", "annual_revenue": "0.10", "description": "ñ 😀 \"'\\"}
    body = json.dumps({"operations": [{"method": "create", "fields": fields}]}).replace('"0.10"', "0.10")
    answer = api("POST", BATCH, data=body, headers={"Prefer": "respond-async"})
    (made,) = outcomes(api, api.ended(answer.headers["Operation-Location"]))
    assert (made["item"]["annual_revenue"], made["item"]["description"]) == ("0.1000", fields["description"])
