"""A batch of records whose end was not begun, and the same request once more under its Idempotency-Key."""

import json

import azure.functions as func
import pytest

from crm_core.errors import StoreUnavailable
from crm_core.functions import app, endpoint, record_batch
from crm_core.hub import Hub
from crm_core.settings import load
from crm_core.storage import layout
from crm_core.storage.memory import MemoryBlob, MemoryQueue, MemoryTable
from crm_core.system import SystemClock

KEY = "0123456789abcdef0123456789abcdef"
CONTACTS = "/api/records/contacts"
NUMBER = 60
"""Records that are in all buckets, but for one or two."""


class Fading(MemoryTable):
    """Takes `left` more transactions of records, and then none; None: all there are. `then`: happens once, before the next
    replacement in the table `where`. `mute`: a table that can't be asked.
    """

    left = then = None
    where = mute = ""

    def transact(self, table, operations):
        if self.then is not None and table == self.where and operations[0].kind == "replace":
            then, self.then = self.then, None
            then()
        if self.left is not None and table == layout.RECORDS:
            if self.left < 1:
                raise StoreUnavailable("away")
            self.left -= 1
        return super().transact(table, operations)

    def query(self, table, **more):
        if table == self.mute:
            raise StoreUnavailable("away")
        return super().query(table, **more)


@pytest.fixture
def table():
    return Fading()


@pytest.fixture
def call(table, monkeypatch):
    """Calls the hub; gives the answer's headers and body."""
    settings = load(
        {
            "AzureWebJobsStorage": "UseDevelopmentStorage=true",
            "HUB_API_KEY": KEY,
            "INTEGRATION_ENCRYPTION_KEY": KEY,
        }
    )
    hub = Hub(settings, table=table, queue=MemoryQueue(SystemClock()), blob=MemoryBlob())
    monkeypatch.setattr(endpoint, "the_hub", lambda: hub)
    assert app.build  # it declares the routes

    def call(method, path, body=None, status=200, **headers):
        headers = {"X-API-KEY": KEY, **{name.replace("_", "-"): each for name, each in headers.items()}}
        given = b"" if body is None else json.dumps(body).encode()
        request = func.HttpRequest(method, f"http://hub{path}", headers=headers, body=given)
        answer = endpoint.respond(request)
        assert answer.status_code == status, answer.get_body()
        return answer.headers, json.loads(answer.get_body())

    return call


@pytest.fixture
def send(call):
    def send(operations, status=200, **headers):
        body = {"operations": operations}
        return call("POST", f"{CONTACTS}/batch?confirm=true", body, status, idempotency_key="one", **headers)

    return send


def creates(number):
    return [{"method": "create", "fields": {"last_name": f"Ada {each}"}} for each in range(number)]


@pytest.fixture
def half(call, send, table):
    """A batch of changes that the store left in the middle: (its operations, its outcomes)."""
    made = call("POST", f"{CONTACTS}/batch", {"operations": creates(NUMBER)})[1]["value"]
    operations = [
        {"method": "update", "id": each["id"], "fields": {"phone": "1"}, "if_match": '"1"'} for each in made
    ]
    table.left = 3
    shown = send(operations)[1]["value"]
    table.left = None
    return operations, shown


def kinds(shown):
    """The indexes of what was done, of what may have been, and of what was not begun."""
    return tuple(
        [each["index"] for each in shown if kind(each) == wanted]
        for wanted in ("done", "unknown", "NotBegun")
    )


def kind(outcome):
    if outcome["status"] < 300:
        return "done"
    return "unknown" if outcome.get("outcome_unknown") else outcome["error"]["code"]


def test_what_the_time_did_not_suffice_for_is_begun_by_the_same_request(send, monkeypatch):
    with monkeypatch.context() as late:
        late.setattr(record_batch, "BEGIN_SECONDS", -1)
        first = send(creates(3))[1]
    assert kinds(first["value"]) == ([], [], [0, 1, 2])
    headers, second = send(creates(3))
    assert second["counts"] == {"created": 3, "updated": 0, "deleted": 0, "failed": 0}
    assert "Idempotent-Replayed" not in headers
    headers, third = send(creates(3))
    assert headers["Idempotent-Replayed"] == "true"
    assert third == second


def test_a_repeat_does_what_was_not_begun_and_nothing_else_again(call, send, half):
    operations, first = half
    done, unknown, left = kinds(first)
    assert done
    assert unknown
    assert left
    moved = first[done[0]]["id"]
    call("PATCH", f"{CONTACTS}/{moved}", {"phone": "2"})
    headers, again = send(operations)
    assert "Idempotent-Replayed" not in headers
    assert [again["value"][each] for each in (*done, *unknown)] == [first[each] for each in (*done, *unknown)]
    assert {again["value"][each]["status"] for each in left} == {200}
    assert [each["index"] for each in again["value"]] == list(range(NUMBER))
    assert again["counts"] == {
        "created": 0,
        "updated": len(done) + len(left),
        "deleted": 0,
        "failed": len(unknown),
    }
    assert call("GET", f"{CONTACTS}/{moved}")[1]["phone"] == "2"
    headers, third = send(operations)
    assert headers["Idempotent-Replayed"] == "true"
    assert third == again


def test_a_repeat_that_fails_as_a_whole_may_come_again(call, send, half, table):
    operations, first = half
    table.mute = layout.CONFIG
    send(operations, 503)
    table.mute = ""
    done, unknown, left = kinds(first)
    again = send(operations)[1]["value"]
    assert kinds(again) == (sorted([*done, *left]), unknown, [])


def test_a_repeat_can_be_left_in_the_middle_too(send, half, table):
    operations, first = half
    table.left = 2
    second = send(operations)[1]["value"]
    table.left = None
    last = send(operations)[1]["value"]
    assert len(kinds(first)[0]) < len(kinds(second)[0]) < len(kinds(last)[0])
    assert kinds(last)[2] == []
    assert kinds(last)[1] == kinds(second)[1]


def test_a_repeat_beside_one_that_is_at_work_is_refused(send, half, table):
    operations, _ = half
    met = []
    table.where, table.then = layout.RECORDS, lambda: met.append(send(operations, 409)[1]["code"])
    again = send(operations)[1]["value"]
    assert met == ["Conflict"]
    assert kinds(again)[2] == []


def test_of_two_repeats_that_begin_at_once_one_carries_on(send, half, table):
    operations, _ = half
    met = []
    table.where, table.then = layout.KEYS, lambda: met.append(send(operations)[1])
    assert send(operations, 409)[1]["code"] == "Conflict"
    assert kinds(met[0]["value"])[2] == []
    assert send(operations)[1] == met[0]


def test_the_repeat_says_whether_it_shows_items(send, half):
    operations, first = half
    headers, again = send(operations, prefer="return=minimal")
    assert headers["Preference-Applied"] == "return=minimal"
    assert any("item" in each for each in first)
    assert not any("item" in each for each in again["value"])
