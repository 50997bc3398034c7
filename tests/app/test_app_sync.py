"""Pulling accounts into the store: by hand, through the queue, and by the timer alone."""

import json
import time
from decimal import Decimal

import pytest
from azure.core.exceptions import ResourceNotFoundError
from azure.data.tables import TableClient
from azure.storage.queue import QueueClient, TextBase64EncodePolicy

from tests.app.conftest import many_at_once, too_many

pytestmark = pytest.mark.xdist_group("app-sync")

EXCHANGE = {"id", "entity", "connection", "etag", "version", "links"}
NO_COUNTS = {"created": 0, "updated": 0, "deleted": 0, "unchanged": 0, "failed": 0}


def fields(item):
    """The canonical fields of an item, empty ones left out."""
    return {name: value for name, value in item.items() if name not in EXCHANGE and value is not None}


def history(api, record):
    return api.ok("GET", f"/api/records/accounts/{record['id']}/history")["value"]


@pytest.fixture
def pulled(api, connect, sandbox):
    """A connection whose first pull is done, and its run."""
    connect("pulled")
    return api.run("pulled")


def test_a_run_is_accepted_followed_and_succeeds(api, connect, sandbox):
    uid = connect("first")["uid"]
    answer = api("POST", "/api/runs", {"connection": "first"})
    run = answer.json()
    assert answer.status_code == 202
    assert answer.headers["Operation-Location"] == f"https://hub.example.test/api/runs/{run['id']}"
    assert answer.headers["Retry-After"] == "1"
    expected = {
        "connection": "first",
        "entity": "account",
        "mode": "incremental",
        "status": "queued",
        "origin": "key:settings",
        "started_at": None,
        "ended_at": None,
        "problem": None,
    }
    assert {name: run[name] for name in expected} == expected
    ended = api.ended(answer.headers["Operation-Location"])
    rows = len(sandbox.accounts())
    assert (ended["status"], ended["problem"]) == ("succeeded", None)
    assert (ended["read"], ended["counts"]) == (rows, {**NO_COUNTS, "created": rows})
    assert ended["calls"]["remote"] >= rows // 25
    assert 0 < ended["calls"]["storage"] < rows
    assert 0 < ended["seconds"] < 30
    assert ended["created_at"] <= ended["started_at"] <= ended["ended_at"]
    assert api.ok("GET", f"/api/runs/{run['id']}") == ended
    assert ended["id"] in [each["id"] for each in api.ok("GET", "/api/runs?top=5")["value"]]
    state = api.ok("GET", f"/api/integrations/{uid}")
    sync = state["sync"][0]
    assert (state["state"], sync["entity"], sync["known"]) == ("ok", "account", rows)
    assert (sync["last_run"], sync["running"], sync["next_run"]) == (run["id"], None, None)
    assert sync["last_success"] == ended["ended_at"]


def test_the_store_holds_every_row_as_the_remote_has_it(api, pulled, sandbox):
    rows = sandbox.accounts()
    stored = api.stored("pulled")
    live = {
        each["id"]: each
        for page in api.pages("/api/crm/accounts?connection=pulled&top=1000")
        for each in page
    }
    assert stored.keys() == rows.keys() == live.keys()
    for rid, record in stored.items():
        expected = fields(live[rid])
        if "parent_id" in expected:  # there the remote's id, here the record's
            expected["parent_id"] = stored[expected["parent_id"]]["id"]
        assert fields(record) == expected
        assert (record["name"], record["created_at"]) == (rows[rid]["name"], rows[rid]["createdon"])
        revenue = rows[rid].get("revenue")
        assert (revenue is None) == ("annual_revenue" not in record)
        if revenue is not None:
            assert Decimal(record["annual_revenue"]) == Decimal(str(revenue))
        (link,) = record["links"]
        assert (link["id"], link["state"], link["version"]) == (rid, "live", str(rows[rid]["versionnumber"]))
        assert (record["version"], record["etag"], record["entity"]) == (1, '"1"', "account")
    some = next(iter(stored.values()))
    (created,) = history(api, some)
    assert {name: created[name] for name in ("version", "change", "origin", "run", "old")} == {
        "version": 1,
        "change": "create",
        "origin": "pulled",
        "run": pulled["id"],
        "old": {},
    }


def test_one_record_by_its_id_with_its_etag(api, pulled):
    record = next(iter(api.stored("pulled").values()))
    path = f"/api/records/accounts/{record['id']}"
    answer = api("GET", path)
    assert (answer.json(), answer.headers["ETag"]) == (record, record["etag"])
    assert api.ok("GET", path.replace(record["id"], record["id"].upper())) == record
    same = api("GET", path, headers={"If-None-Match": record["etag"]})
    assert (same.status_code, same.content) == (304, b"")


def test_what_a_person_does_at_the_remote_is_in_the_store_after_a_run(api, pulled, sandbox, account):
    changed, deleted = account(name="Before", telephone1="1"), account(name="Not for long", revenue=5)
    assert api.run("pulled")["counts"] == {**NO_COUNTS, "created": 2}
    before = api.stored("pulled")

    sandbox.update(changed, name="After", telephone1=None, emailaddress1="a@b.example")
    sandbox.delete(deleted)
    created = account(name="Brand new")
    run = api.run("pulled")
    assert (run["status"], run["read"]) == ("succeeded", 3)
    assert run["counts"] == {**NO_COUNTS, "created": 1, "updated": 1, "deleted": 1}

    after = api.stored("pulled")
    record = after[changed]
    assert (record["id"], record["version"], record["etag"]) == (before[changed]["id"], 2, '"2"')
    assert (record["name"], record["email"]) == ("After", "a@b.example")
    assert "phone" not in record
    assert int(record["links"][0]["version"]) > int(before[changed]["links"][0]["version"])
    step = history(api, record)[1]
    old = {"name": "Before", "phone": "1", "email": None}
    if record["updated_at"] != before[changed]["updated_at"]:
        old["updated_at"] = before[changed]["updated_at"]
    assert {name: step[name] for name in ("version", "change", "origin", "run", "old")} == {
        "version": 2,
        "change": "update",
        "origin": "pulled",
        "run": run["id"],
        "old": old,
    }

    gone = after[deleted]
    assert gone["deleted_at"]
    assert (gone["name"], gone["annual_revenue"], gone["version"]) == ("Not for long", "5.0000", 2)
    assert [link["state"] for link in gone["links"]] == ["gone"]
    step = history(api, gone)[1]
    assert (step["change"], step["run"], step["old"]) == ("delete", run["id"], {"deleted_at": None})

    assert (after[created]["name"], after[created]["version"]) == ("Brand new", 1)
    untouched = before.keys() - {changed, deleted}
    assert {rid: after[rid] for rid in untouched} == {rid: before[rid] for rid in untouched}


def test_a_run_with_nothing_new_costs_one_call_and_changes_nothing(api, pulled, sandbox):
    before = api.stored("pulled")
    seen = sandbox.last_request()
    run = api.run("pulled")
    assert (run["status"], run["read"], run["counts"]) == ("succeeded", 0, NO_COUNTS)
    assert run["calls"]["remote"] == 1
    assert len([each for each in sandbox.requests_since(seen) if "/api/data/" in each["path"]]) == 1
    assert api.stored("pulled") == before


def test_a_full_run_finds_nothing_to_do(api, pulled, sandbox):
    before = api.stored("pulled")
    run = api.run("pulled", "full")
    rows = len(sandbox.accounts())
    assert (run["mode"], run["status"], run["read"]) == ("full", "succeeded", rows)
    assert run["counts"] == {**NO_COUNTS, "unchanged": rows}
    assert api.stored("pulled") == before
    assert api.run("pulled")["counts"] == NO_COUNTS


def test_a_full_run_finds_changes_and_deletes_by_comparing(api, pulled, sandbox, account):
    changed, deleted = account(name="Compared"), account(name="Compared and missed")
    api.run("pulled")
    sandbox.update(changed, name="Compared again")
    sandbox.delete(deleted)
    run = api.run("pulled", "full")
    rows = len(sandbox.accounts())
    assert run["counts"] == {**NO_COUNTS, "updated": 1, "deleted": 1, "unchanged": rows - 1}
    stored = api.stored("pulled")
    assert stored[changed]["name"] == "Compared again"
    assert (stored[deleted]["links"][0]["state"], bool(stored[deleted]["deleted_at"])) == ("gone", True)
    # The next incremental run meets the delete once more, and knows it.
    assert api.run("pulled")["counts"] in (NO_COUNTS, {**NO_COUNTS, "unchanged": 1})


@pytest.mark.parametrize("top", [7, 60, 1000])
def test_pages_of_records_visit_each_record_once(api, pulled, top):
    pages = list(api.pages(f"/api/records/accounts?top={top}", most=2000))
    ids = [each["id"] for page in pages for each in page]
    assert len(ids) == len(set(ids))
    assert set(ids) >= {each["id"] for each in api.stored("pulled").values()}
    assert max(map(len, pages)) <= top


def test_pages_of_runs_visit_each_run_once_newest_first(api, pulled):
    for _ in range(3):
        api.run("pulled")
    ids = [each["id"] for page in api.pages("/api/runs?top=2") for each in page]
    assert len(ids) == len(set(ids)) >= 4
    assert ids == sorted(ids)
    # The ids tell them apart to the millisecond.
    times = [
        api.ok("GET", f"/api/runs/{each}")["created_at"][: len("2026-11-24T20:59:51.515")] for each in ids
    ]
    assert times == sorted(times, reverse=True)


def test_a_paused_connection_is_not_pulled_until_it_goes_on(api, problem, pulled):
    paused = api.ok("POST", "/api/integrations/pulled/pause")
    assert (paused["state"], paused["slug"]) == ("paused", "pulled")
    answer = api("POST", "/api/runs", {"connection": "pulled"})
    detail = "The connection pulled is paused; resume it by POST /api/integrations/pulled/resume."
    problem(answer, 409, "Conflict", detail)
    assert api.ok("GET", "/api/crm/accounts?connection=pulled&top=1")["value"]  # live calls go on
    assert api.ok("POST", "/api/integrations/pulled/resume")["state"] == "ok"
    assert api.run("pulled")["status"] == "succeeded"


def test_a_second_run_of_the_same_mode_is_409_and_names_the_first(api, problem, connect, faults):
    connect("busy")
    faults("delay", seconds=1.5, skip=1, path="*/accounts*")  # the second page: the lease is held then
    first = api("POST", "/api/runs", {"connection": "busy"})
    run = first.json()["id"]
    deadline = time.monotonic() + 10
    while api.ok("GET", "/api/integrations/busy")["sync"][0]["running"] != run:
        assert time.monotonic() < deadline
    answer = api("POST", "/api/runs", {"connection": "busy"})
    detail = f"Run {run} is doing this for account now; follow it at /api/runs/{run}."
    problem(answer, 409, "Conflict", detail)
    found = api.ok("GET", f"/api/runs/{run}")
    assert (found["status"], found["started_at"] is not None) == ("running", True)
    assert api.ended(first.headers["Operation-Location"])["status"] == "succeeded"
    assert api.run("busy")["status"] == "succeeded"


def test_a_run_goes_on_after_the_remote_s_limit_is_over(api, connect, faults, sandbox):
    connect("limited")
    faults("throttle", retry_after=3, skip=1, path="*/accounts*")
    run = api.run("limited")
    rows = len(sandbox.accounts())
    assert (run["status"], run["counts"]) == ("succeeded", {**NO_COUNTS, "created": rows})
    assert run["seconds"] >= 3
    assert api.stored("limited").keys() == sandbox.accounts().keys()


def test_a_missing_privilege_stops_that_entity_until_a_test_succeeds(api, connect, faults):
    connect("guarded")
    faults("privilege", code="prvReadAccount", path="*/accounts*")
    run = api.run("guarded")
    assert (run["status"], run["problem"]["code"]) == ("failed", "NotPermitted")
    assert "prvReadAccount" in run["problem"]["message"]
    state = api.ok("GET", "/api/integrations/guarded")
    assert (state["state"], state["sync"][0]["waits"]) == ("ok", True)
    assert state["sync"][0]["problem"]["code"] == "NotPermitted"
    api.ok("POST", "/api/integrations/guarded/test")
    sync = api.ok("GET", "/api/integrations/guarded")["sync"][0]
    assert (sync["waits"], sync["problem"]) == (False, None)
    assert api.run("guarded")["status"] == "succeeded"


def test_too_many_deletes_stop_a_run_until_a_person_decides(api, problem, connect, sandbox):
    connect("braked")
    many = too_many(api, sandbox, "braked")
    api.run("braked")
    many_at_once(api, "braked", [{"method": "delete", "id": rid} for rid in many])
    run = api.run("braked")
    assert (run["status"], run["ended_at"], run["counts"]["deleted"]) == ("stopped", None, 0)
    assert run["problem"]["code"] == "Brake"
    path = f"/api/runs/{run['id']}"
    assert "Retry-After" not in api("GET", path).headers
    detail = (
        f"Run {run['id']} of account was stopped by the brake; let it go on by POST {path}/approve,"
        f" or end it by POST {path}/cancel."
    )
    problem(api("POST", "/api/runs", {"connection": "braked", "mode": "full"}), 409, "Conflict", detail)
    (state,) = api.ok("GET", "/api/integrations/status?connection=braked")["value"]
    assert (state["stopped_run"], state["running"], state["problem"]) == (run["id"], None, run["problem"])
    stored = api.stored("braked")
    assert all("deleted_at" not in stored[rid] for rid in many)

    approved = api("POST", f"{path}/approve")
    assert (approved.status_code, approved.json()["status"]) == (202, "running")
    ended = api.ended(approved.headers["Operation-Location"])
    assert (ended["status"], ended["problem"]) == ("succeeded", None)
    assert ended["counts"]["deleted"] == len(many)
    stored = api.stored("braked")
    assert all(stored[rid]["deleted_at"] for rid in many)
    ways = {
        "approve": "only a stopped one can be approved",
        "cancel": "only one that has not ended can be cancelled",
    }
    for way, only in ways.items():
        detail = f"Run {run['id']} is succeeded; {only}."
        problem(api("POST", f"{path}/{way}"), 409, "Conflict", detail)
    problem(api("POST", "/api/runs/0-0/approve"), 404, "NotFound", "There is no run '0-0'.")


def test_the_stopped_run_of_one_entity_leaves_the_others(api, problem, connect, sandbox):
    connect("two", entities={"account": "pull", "contact": "pull"})
    api.run("two")
    many = too_many(api, sandbox, "two")
    api.run("two")
    many_at_once(api, "two", [{"method": "delete", "id": rid} for rid in many])
    parent = api.run("two")
    assert (parent["status"], parent["ended_at"], parent["problem"]["code"]) == ("stopped", None, "Brake")
    by_entity = {each["entity"]: each for each in parent["children"]}
    assert (by_entity["account"]["status"], by_entity["contact"]["status"]) == ("stopped", "succeeded")
    detail = f"Run {parent['id']} is of several entities; name the stopped one of its children."
    problem(api("POST", f"/api/runs/{parent['id']}/approve"), 409, "Conflict", detail)
    contacts = api("POST", "/api/runs", {"connection": "two", "entities": ["contact"]})
    assert contacts.status_code == 202
    assert api.ended(contacts.headers["Operation-Location"])["status"] == "succeeded"
    cancelled = api.ok("POST", f"/api/runs/{by_entity['account']['id']}/cancel")
    assert (cancelled["status"], cancelled["problem"]["code"]) == ("failed", "Cancelled")
    assert api.ok("GET", f"/api/runs/{parent['id']}")["status"] == "failed"


def test_a_word_of_the_api_is_no_slug(api, problem):
    answer = api("POST", "/api/integrations", {"slug": "status", "connector": "dynamics365"})
    problem(answer, 400, "BadRequest", "slug: 'status' is a word of the API; take another one.", "slug")


def test_the_status_tells_how_sync_goes(api, connect, problem):
    connect("never", schedule={"minutes": 60})
    connect("watched", entities={"account": "pull", "contact": "pull"})
    run = api.run("watched")
    rows = api.ok("GET", "/api/integrations/status")["value"]
    names = [each["connection"] for each in rows]
    assert names == sorted(names)
    mine = [each for each in rows if each["connection"] == "watched"]
    assert api.ok("GET", "/api/integrations/status?connection=watched")["value"][0]["entity"] == "account"
    assert [each["entity"] for each in mine] == ["account", "contact"]
    for each, child in zip(mine, run["children"], strict=True):
        assert (each["health"], each["paused"], each["problem"]) == ("ok", False, None)
        assert (each["last_success"], each["last_run"]) == (child["ended_at"], child["id"])
        assert each["counts"] == child["counts"]
        assert 0 <= each["lag_seconds"] < 60
        assert (each["running"], each["stopped_run"], each["next_run"]) == (None, None, None)
    api.ok("POST", "/api/integrations/watched/pause")
    (first, _) = api.ok("GET", f"/api/integrations/status?connection={mine[0]['uid']}")["value"]
    assert first["paused"]
    assert first["lag_seconds"] > mine[0]["lag_seconds"]
    (never,) = [each for each in rows if each["connection"] == "never"]
    assert never["next_run"]
    if never["last_success"] is None:  # the timer may have been quick
        assert (never["lag_seconds"], never["counts"]) == (None, None)
    detail = "There is no connection 'nobody'; GET /api/integrations lists them."
    problem(api("GET", "/api/integrations/status?connection=nobody"), 404, "NotFound", detail)


# --- credentials -------------------------------------------------------------------------------------------------


def test_a_wrong_secret_needs_attention_and_the_right_one_mends_it(api, connect, sandbox):
    connect("secretive")
    assert api.run("secretive")["status"] == "succeeded"
    api.ok("PATCH", "/api/integrations/secretive", {"secrets": {"client_secret": "a-wrong~secret+of/tests"}})
    run = api.run("secretive")
    assert (run["status"], run["problem"]["code"]) == ("failed", "AuthFailed")
    assert run["problem"]["message"].startswith("AADSTS7000215: ")
    state = api.ok("GET", "/api/integrations/secretive")
    assert (state["state"], state["problem"]["code"]) == ("needs_attention", "AuthFailed")
    health = api.ok("GET", "/api/crm/system/health?connection=secretive")
    assert health["status"] == "needs_attention"
    listed = {each["slug"]: each["state"] for each in api.ok("GET", "/api/integrations")["value"]}
    assert listed["secretive"] == "needs_attention"

    api.ok(
        "PATCH", "/api/integrations/secretive", {"secrets": {"client_secret": sandbox.facts["client_secret"]}}
    )
    state = api.ok("GET", "/api/integrations/secretive")
    assert (state["state"], state["problem"]) == ("ok", None)
    assert api.run("secretive")["status"] == "succeeded"
    state = api.ok("GET", "/api/integrations/secretive")
    assert (state["state"], state["sync"][0]["problem"]) == ("ok", None)


# --- the queue ---------------------------------------------------------------------------------------------------


@pytest.fixture
def send(azurite):
    with QueueClient.from_connection_string(
        azurite, "fresh", message_encode_policy=TextBase64EncodePolicy()
    ) as queue:
        yield lambda text: queue.send_message(text, time_to_live=-1)


@pytest.fixture
def letters(azurite):
    """Waits for the dead letters whose body holds a text."""
    with TableClient.from_connection_string(azurite, "deadletters") as table:

        def rows():
            try:
                return list(table.query_entities("PartitionKey eq 'default'"))
            except ResourceNotFoundError:
                return []  # made with the first letter

        def find(text, seconds=20):
            deadline = time.monotonic() + seconds
            while True:
                found = [json.loads(row["json"]) for row in rows()]
                if mine := [each for each in found if text in each["body"]]:
                    return mine
                assert time.monotonic() < deadline, f"no dead letter about {text} after {seconds} s"
                time.sleep(0.1)

        yield find


@pytest.mark.parametrize(
    "message",
    [
        '{"v": 1, "job": "dance", "tenant": "default", "connection": "x"}',
        '{"v": 99, "job": "pull", "tenant": "default", "connection": "x"}',
        "no json at all: ñ",
        '["v", 1]',
    ],
)
def test_a_message_that_no_handler_knows_becomes_a_dead_letter(api, connect, send, letters, message):
    connect("lettered")  # something has to have made the queue
    send(message)
    (letter,) = letters(message)
    assert (letter["kind"], letter["queue"], letter["body"]) == ("message", "fresh", message)
    assert letter["cause"].startswith("not a job")
    assert letter["time"]


def test_a_message_about_a_connection_that_is_gone_does_no_harm(api, connect, send):
    connect("here")
    send('{"v": 1, "job": "pull", "tenant": "default", "connection": "nowhere", "entity": "account"}')
    assert api.run("here")["status"] == "succeeded"


# --- the timer; it waits, so it comes last -----------------------------------------------------------------------


def test_the_timer_alone_brings_a_change_within_two_minutes(api, connect, sandbox, account):
    connect("timed", schedule={"minutes": 1})
    assert api.run("timed")["status"] == "succeeded"
    changed = account(name="Brought by the timer")
    began = time.monotonic()
    while changed not in api.stored("timed"):
        assert time.monotonic() - began < 130
        time.sleep(1)
    record = api.stored("timed")[changed]
    (created,) = history(api, record)
    run = api.ok("GET", f"/api/runs/{created['run']}")
    assert (run["origin"], run["status"], run["counts"]["created"]) == ("schedule", "succeeded", 1)
    sync = api.ok("GET", "/api/integrations/timed")["sync"][0]
    assert sync["next_run"] > sync["last_success"]
