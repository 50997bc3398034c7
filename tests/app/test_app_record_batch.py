"""Many writes of stored records in one call: each with an outcome of its own, those on one record in their order."""

import uuid

import pytest

pytestmark = pytest.mark.xdist_group("app-api")

CONTACTS = "/api/records/contacts"
BATCH = f"{CONTACTS}/batch?confirm=true"
NOBODY = "3f5f4fd2-3d0a-5d0c-9f5b-1d2f4b6f7a10"


def send(api, *operations, **more):
    return api.ok("POST", more.pop("path", BATCH), {"operations": list(operations)}, **more)


def creates(number, **fields):
    return [{"method": "create", "fields": {"last_name": f"Ada {each}", **fields}} for each in range(number)]


def test_each_operation_has_its_own_outcome_in_their_order(api):
    made = [api.ok("POST", CONTACTS, {"last_name": name}) for name in ("One", "Two", "Three", "Four")]
    one, two, three, four = (each["id"] for each in made)
    answer = send(
        api,
        {"method": "create", "fields": {"last_name": "New", "phone": "1"}},
        {"method": "update", "id": one.upper(), "fields": {"phone": "2"}, "if_match": '"1"'},
        {"method": "update", "id": two, "fields": {"phone": "2"}, "if_match": '"7"'},
        {"method": "delete", "id": three},
        {"method": "update", "id": NOBODY, "fields": {"phone": "2"}},
        {"method": "update", "id": "7", "fields": {"phone": "2"}},
        {"method": "create", "fields": {"shoe_size": 43}},
        {"method": "update", "id": four},
        {"method": "update", "id": four, "fields": {"account_id": NOBODY}},
        "nothing",
        {"method": "delete", "id": NOBODY},
    )
    shown = answer["value"]
    assert answer["counts"] == {"created": 1, "updated": 1, "deleted": 1, "failed": 8}
    assert [each["index"] for each in shown] == list(range(11))
    assert [each["status"] for each in shown] == [201, 200, 412, 204, 404, 404, 400, 400, 400, 400, 404]
    assert (shown[0]["item"]["last_name"], shown[0]["etag"]) == ("New", '"1"')
    assert api.ok("GET", f"{CONTACTS}/{shown[0]['id']}") == shown[0]["item"]
    assert (shown[1]["id"], shown[1]["etag"], shown[1]["item"]["phone"]) == (one, '"2"', "2")
    assert (shown[2]["id"], shown[2]["error"]["code"]) == (two, "Stale")
    assert shown[3] == {"index": 3, "status": 204, "id": three}
    assert api("GET", f"{CONTACTS}/{three}").status_code == 404
    assert shown[6]["error"]["errors"][0]["field"] == "shoe_size"
    assert shown[7]["error"]["errors"][0]["message"] == "fields: required to update."
    assert shown[8]["error"]["errors"][0]["message"] == f"account_id: there is no stored account '{NOBODY}'."
    assert api.ok("GET", f"{CONTACTS}/{four}")["version"] == 1


def test_operations_on_one_record_are_carried_out_in_their_order(api):
    item = api.ok("POST", CONTACTS, {"last_name": "Ada"})
    steps = [{"method": "update", "id": item["id"], "fields": {"phone": str(each)}} for each in range(5)]
    last = {"method": "update", "id": item["id"], "fields": {"city": "Lima"}, "if_match": '"6"'}
    late = {"method": "update", "id": item["id"], "fields": {"phone": "late"}}
    answer = send(api, *steps, last, {"method": "delete", "id": item["id"]}, late)
    assert [each["status"] for each in answer["value"]] == [200, 200, 200, 200, 200, 200, 204, 404]
    assert [each["item"]["phone"] for each in answer["value"][:5]] == list("01234")
    told = api.ok("GET", f"{CONTACTS}/{item['id']}/history")["value"]
    assert [step["new"].get("phone") for step in told][1:6] == list("01234")
    assert [step["change"] for step in told][-1] == "delete"


def test_a_thousand_records_are_made_changed_and_deleted(api):
    made = send(api, *creates(1000))
    assert made["counts"] == {"created": 1000, "updated": 0, "deleted": 0, "failed": 0}
    ids = [each["id"] for each in made["value"]]
    assert len(set(ids)) == 1000
    change = [{"method": "update", "id": each, "fields": {"phone": str(n)}} for n, each in enumerate(ids)]
    changed = send(api, *change, headers={"Prefer": "return=minimal"})
    assert changed["counts"]["updated"] == 1000
    assert [each["id"] for each in changed["value"]] == ids
    assert all("item" not in each and each["etag"] == '"2"' for each in changed["value"])
    assert api.ok("GET", f"{CONTACTS}/{ids[777]}")["phone"] == "777"
    gone = send(api, *({"method": "delete", "id": each} for each in ids))
    assert gone["counts"]["deleted"] == 1000
    assert api("GET", f"{CONTACTS}/{ids[3]}").status_code == 404


def test_the_same_request_twice_makes_its_records_once(api):
    name = f"once {uuid.uuid4()}"
    body = {"operations": creates(3, city=name)}
    key = {"Idempotency-Key": f"batch {uuid.uuid4()}"}
    first, second = (api("POST", BATCH, body, headers=key) for _ in range(2))
    assert first.json() == second.json()
    assert second.headers["Idempotent-Replayed"] == "true"
    found = [each for page in api.pages(f"{CONTACTS}?filter=city eq '{name}'") for each in page]
    assert len(found) == 3


def test_a_key_of_the_caller_s_makes_one_record_however_often_it_is_sent(api):
    one = {"method": "create", "key": f"row {uuid.uuid4()}", "fields": {"last_name": "Keyed"}}
    first, again = send(api, one, *creates(2))["value"], send(api, *creates(2), one)["value"]
    assert first[0]["id"] == again[2]["id"]
    assert [each["status"] for each in (*first, *again)] == [201] * 6
    assert api.ok("GET", f"{CONTACTS}/{first[0]['id']}")["version"] == 1


def test_a_key_that_two_creates_of_a_batch_have_is_refused_the_second(api):
    """It would make the same record, and its values would be lost."""
    keys = [f"row {uuid.uuid4()}" for _ in range(2)]
    operations = [
        {"method": "create", "key": keys[0], "fields": {"shoe_size": 43}},
        {"method": "create", "key": keys[0], "fields": {"last_name": "One", "phone": "1"}},
        {"method": "create", "key": keys[1], "fields": {"last_name": "Other"}},
        {"method": "create", "key": keys[0], "fields": {"last_name": "Two", "phone": "2"}},
    ]
    answer = send(api, *operations)
    shown = answer["value"]
    assert [each["status"] for each in shown] == [400, 201, 201, 400]
    assert shown[3]["error"]["errors"][0] == {
        "field": "key",
        "message": "key: operation 1 names the same; put them together, or send another batch.",
    }
    assert answer["counts"] == {"created": 2, "updated": 0, "deleted": 0, "failed": 2}
    assert shown[1]["item"]["last_name"] == "One"


def test_of_two_with_one_match_key_the_second_is_refused(api, connect):
    connect("matched", entities={"contact": {"direction": "pull", "match": "email"}})
    mails = [f"{uuid.uuid4().hex}@example.com" for _ in range(2)]
    first, second, third = send(
        api,
        {"method": "create", "fields": {"last_name": "One", "email": mails[0]}},
        {"method": "create", "fields": {"last_name": "Two", "email": mails[0]}},
        {"method": "create", "fields": {"last_name": "Three", "email": mails[1]}},
    )["value"]
    assert [each["status"] for each in (first, second, third)] == [201, 409, 201]
    assert first["id"] in second["error"]["detail"]
    taken, given = send(
        api,
        {"method": "update", "id": third["id"], "fields": {"email": mails[0]}},
        {"method": "update", "id": first["id"], "fields": {"email": "other@example.com"}},
    )["value"]
    assert (taken["status"], given["status"]) == (409, 200)


def test_a_key_that_two_operations_claim_is_the_first_one_s_and_the_order_stays(api, connect):
    connect("claimed", entities={"contact": {"direction": "pull", "match": "email"}})
    mails = [f"{uuid.uuid4().hex}@example.com" for _ in range(2)]
    one, two = (api.ok("POST", CONTACTS, {"last_name": name})["id"] for name in ("One", "Two"))
    made, taken = send(
        api,
        {"method": "create", "fields": {"last_name": "New", "email": mails[0]}},
        {"method": "update", "id": one, "fields": {"email": mails[0]}},
    )["value"]
    assert (made["status"], taken["status"]) == (201, 409)
    assert made["id"] in taken["error"]["detail"]
    late, first, second = send(
        api,
        {"method": "update", "id": one, "fields": {"email": mails[1]}, "if_match": '"7"'},
        {"method": "update", "id": two, "fields": {"email": mails[1], "phone": "1"}},
        {"method": "update", "id": two, "fields": {"phone": "2"}},
    )["value"]
    assert [each["status"] for each in (late, first, second)] == [412, 200, 200]
    assert (second["item"]["email"], second["item"]["phone"]) == (mails[1], "2")


@pytest.mark.parametrize(
    ("path", "body", "field"),
    [
        (f"{CONTACTS}/batch", {"operations": [{"method": "delete", "id": NOBODY}]}, "confirm"),
        (BATCH, {"operations": []}, "operations"),
        (BATCH, {"operations": [{}] * 1001}, "operations"),
        (BATCH, {}, "operations"),
    ],
)
def test_what_is_wrong_with_the_whole_is_refused_before_anything_is_done(api, path, body, field):
    answer = api("POST", path, body)
    assert answer.status_code == 400
    assert answer.json()["errors"][0]["field"] == field
