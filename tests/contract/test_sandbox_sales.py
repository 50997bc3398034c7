"""The sales app of the sandbox, as a sender sees it: what it takes, what it keeps, and how it fails."""

import base64
import http.client
import json
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta

import pytest
from standardwebhooks import Webhook

from sandbox.sales import Sales
from sandbox.testing import Client, running

TOKEN = "a-token-of-the-sales-app"
SECRET = "whsec_" + base64.b64encode(b"k" * 32).decode()
BODY = json.dumps({"hello": "world ñ"}, ensure_ascii=False)


@pytest.fixture
def client():
    with running(Sales(TOKEN, SECRET)) as sandbox, Client(sandbox.url) as found:
        yield found


def signed(body=BODY, *, identifier="msg_1", at=None, secret=SECRET, token=TOKEN, **more):
    """As the reference implementation of Standard Webhooks signs it."""
    at = at or datetime.now(UTC)
    headers = {
        "webhook-id": identifier,
        "webhook-timestamp": str(int(at.timestamp())),
        "webhook-signature": Webhook(secret).sign(identifier, at, body),
        "X-CRM-Webhook-Token": token,
        **more,
    }
    return {name: value for name, value in headers.items() if value}


def post(client, headers, body=BODY):
    return client.call("POST", "/any/path", body.encode(), headers)


def rows(client):
    return client.call("GET", "/_sandbox/rows/received?limit=100").json()


def fault(client, kind, **more):
    assert client.call("POST", "/_sandbox/faults", {"kind": kind, **more}).status == 200


def test_what_is_signed_and_bears_the_token_is_taken_and_kept(client):
    answer = post(client, signed())
    assert (answer.status, answer.json()) == (200, {"ok": True, "id": "msg_1"})
    (row,) = rows(client)
    assert row["id"] == "msg_1"
    assert row["values"]["body"] == {"hello": "world ñ"}
    assert (row["values"]["path"], row["values"]["times"]) == ("/any/path", 1)


def test_the_same_once_more_is_counted_and_not_kept_twice(client):
    assert [post(client, signed()).status for _ in range(3)] == [200] * 3
    (row,) = rows(client)
    assert row["values"]["times"] == 3


@pytest.mark.parametrize(
    ("headers", "word"),
    [
        (lambda: signed(token=""), "X-CRM-Webhook-Token is missing"),
        (lambda: signed(token="another"), "token"),
        (lambda: signed(**{"webhook-signature": ""}), "missing"),
        (lambda: signed(**{"webhook-signature": "v1,AAAA"}), "webhook-signature is wrong"),
        (
            lambda: signed(secret="whsec_" + base64.b64encode(b"x" * 32).decode()),
            "webhook-signature is wrong",
        ),
        (lambda: signed("other body"), "webhook-signature is wrong"),
        (lambda: signed(at=datetime.now(UTC) - timedelta(minutes=6)), "five minutes"),
        (lambda: signed(at=datetime.now(UTC) + timedelta(minutes=6)), "five minutes"),
        (lambda: signed(**{"webhook-id": "another"}), "webhook-signature is wrong"),
    ],
)
def test_anything_else_is_refused_and_not_kept(client, headers, word):
    answer = post(client, headers())
    assert answer.status == 401
    assert word in answer.json()["error"]
    assert rows(client) == []


def test_one_of_several_signatures_is_enough(client):
    headers = signed()
    headers["webhook-signature"] = f"v1,AAAA {headers['webhook-signature']} v2,x"
    assert post(client, headers).status == 200


def test_what_is_no_json_or_no_post_is_refused(client):
    assert post(client, signed("{no"), "{no").status == 400
    assert client.call("GET", "/any/path").status == 405


def test_without_token_and_secret_everything_is_taken():
    with running(Sales()) as sandbox, Client(sandbox.url) as client:
        assert post(client, {}).status == 200
        assert len(rows(client)) == 1


@pytest.mark.parametrize("status", [302, 400, 410, 429, 500, 503])
def test_it_fails_as_it_is_told_to_and_then_takes_it(client, status):
    fault(client, "status", status=status, count=1, retry_after=7, headers={"Location": "/elsewhere"})
    answer = post(client, signed())
    assert (answer.status, answer.headers["Retry-After"], answer.headers["Location"]) == (
        status,
        "7",
        "/elsewhere",
    )
    assert rows(client) == []
    assert post(client, signed()).status == 200


def test_a_reset_before_it_keeps_nothing_and_one_after_it_has_kept_it(client):
    fault(client, "reset", count=1)
    with pytest.raises((ConnectionError, http.client.HTTPException)):
        post(client, signed())
    assert rows(client) == []
    fault(client, "reset_after", count=1)
    with pytest.raises((ConnectionError, http.client.HTTPException)):
        post(client, signed())
    assert len(rows(client)) == 1


def test_the_log_has_every_attempt_without_the_token(client):
    fault(client, "status", status=500, count=1, method="POST")
    post(client, signed())
    post(client, signed())
    found = [each for each in client.call("GET", "/_sandbox/requests").json() if each["method"] == "POST"]
    assert [each["status"] for each in found] == [500, 200]
    assert json.loads(found[0]["body"]) == json.loads(BODY)
    assert found[0]["headers"]["webhook-id"] == "msg_1"
    assert TOKEN not in json.dumps(found)


def test_reset_and_delete_take_away_what_it_got(client):
    post(client, signed())
    assert client.call("DELETE", "/_sandbox/rows/received/msg_1").status == 204
    assert rows(client) == []
    post(client, signed())
    assert client.call("POST", "/_sandbox/reset").status == 204
    assert rows(client) == []


def test_the_command_line_starts_it():
    arguments = [sys.executable, "-m", "sandbox", "sales", "--token", TOKEN, "--token-header", "X-T"]
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        facts = json.loads(process.stdout.readline())
        try:
            assert (facts["system"], facts["token"], facts["token_header"]) == ("sales", TOKEN, "X-T")
            with Client(facts["http"]) as client:
                assert post(client, {}).status == 401
                assert post(client, {"X-T": TOKEN}).status == 200
        finally:
            process.terminate()
        assert process.wait(20) == 0


# --- what it sends -----------------------------------------------------------------------------------------------


@pytest.fixture
def pair():
    """An app that sends, and one that takes what is signed and bears the token."""
    with (
        running(Sales(TOKEN, SECRET)) as taker, Client(taker.url) as to,
        running(Sales()) as sender, Client(sender.url) as by,
    ):  # fmt: skip
        hook = {"url": f"{taker.url}/hooks", "signing_secret": SECRET, "token": TOKEN}
        by.call("POST", "/_sandbox/options", {"webhooks": {"taker": hook}})
        yield by, to


def send(client, count=1, **faults):
    client.call(
        "POST", "/_sandbox/options", {"webhook_faults": {"times": 1, "lost": 0.0, "delay": 0.0, **faults}}
    )
    for number in range(count):
        client.call("POST", "/_sandbox/rows/sent", {"values": {"number": number}})


def taken(client, count):
    """The rows, once there are so many posts."""
    until = time.monotonic() + 20
    while sum(row["values"]["times"] for row in rows(client)) < count and time.monotonic() < until:
        time.sleep(0.02)
    return rows(client)


def test_what_it_sends_is_signed(pair):
    by, to = pair
    send(by)
    (row,) = taken(to, 1)
    assert row["values"]["body"] == {"number": 0}
    (request,) = [each for each in to.call("GET", "/_sandbox/requests").json() if each["method"] == "POST"]
    headers = {name: value for name, value in request["headers"].items() if name.startswith("webhook-")}
    assert Webhook(SECRET).verify(request["body"], headers) == {"number": 0}


def test_repeats_have_one_id(pair):
    by, to = pair
    send(by, 2, times=3)
    assert [row["values"]["times"] for row in taken(to, 6)] == [3, 3]


def test_what_is_held_up_comes_out_of_order(pair):
    by, to = pair
    send(by, 20, delay=0.5)
    taken(to, 20)
    posts = [each for each in to.call("GET", "/_sandbox/requests").json() if each["method"] == "POST"]
    numbers = [json.loads(each["body"])["number"] for each in posts]
    assert numbers != sorted(numbers)
    assert sorted(numbers) == list(range(20))


def test_what_is_lost_never_comes(pair):
    by, to = pair
    send(by, 20, lost=1.0)
    send(by)
    assert len(taken(to, 1)) == 1


def test_what_is_refused_for_now_comes_once_more(pair):
    by, to = pair
    fault(to, "status", status=503, count=1)
    send(by)
    assert len(taken(to, 1)) == 1
