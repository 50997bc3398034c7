"""The local host runs HTTP, queue and timer functions by the platform's rules: one host, a real Azurite."""

import base64
import http.client
import itertools
import json
import socket
import time
from datetime import UTC, datetime
from pathlib import Path

import pytest
import requests
from azure.storage.queue import QueueClient, TextBase64EncodePolicy

from devhost.child import Child

APP = Path(__file__).resolve().parent.parent / "data" / "devhost_app"
INVISIBILITY = 4
KEY = "the-key"


@pytest.fixture(scope="module")
def host(azurite):
    arguments = ["--port", "0", "--settings", str(APP / "settings.json"), "--functions-key", KEY]
    arguments += ["--queue-invisibility", str(INVISIBILITY)]
    with Child(APP, *arguments, env={"AzureWebJobsStorage": azurite}) as child:
        yield child
        assert child.stop() == 0
        assert child.process.returncode == 0


@pytest.fixture(scope="module")
def get(host):
    with requests.Session() as session:
        session.trust_env = False
        yield lambda path, method="GET", **more: session.request(method, host.url + path, timeout=30, **more)


@pytest.fixture(scope="module")
def seen(get):
    """What the app remembers under a name, waiting until there are `count` of it."""

    def look(what, count=1, seconds=30):
        deadline = time.monotonic() + seconds
        while len(found := get(f"/api/seen/{what}").json()) < count:
            assert time.monotonic() < deadline, f"{len(found)} of {count} {what} after {seconds} s"
            time.sleep(0.05)
        return found

    return look


@pytest.fixture(scope="module")
def queues(azurite):
    """Clients of queues by name; they send base64 unless told not to and read the stored text."""
    clients = {}

    def queue(name, **policies):
        key = (name, *policies)
        if key not in clients:
            clients[key] = QueueClient.from_connection_string(azurite, name, **policies)
        return clients[key]

    yield queue
    for client in clients.values():
        client.close()


@pytest.fixture
def send(host, queues):
    client = queues("devhost-jobs", message_encode_policy=TextBase64EncodePolicy())
    return lambda **work: client.send_message(json.dumps(work), time_to_live=-1)


def wait_for(what, seconds=30):
    deadline = time.monotonic() + seconds
    while not (found := what()):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    return found


def count(queue):
    return queue.get_queue_properties().approximate_message_count


def raw(host, request):
    """Send bytes as they are and give the response with its whole body."""
    name, port = host.url.removeprefix("http://").split(":")
    with socket.create_connection((name, int(port)), timeout=10) as s:
        s.sendall(request)
        response = http.client.HTTPResponse(s, method=request.split(b" ")[0].decode())
        response.begin()
        return response.status, response.read(), response


# --- HTTP ---


def test_a_request_reaches_the_function_whole(get, host):
    response = get(
        "/API/echo/Abc/x%20y/?a=1&b=%C3%A9+z&A=2&empty=&c=%2B",
        "POST",
        data=b"\x00\xff",
        headers={"X-Mine": "me", "traceparent": "00-" + "a" * 32 + "-" + "b" * 16 + "-01"},
    )
    found = response.json()
    assert response.status_code == 200
    assert response.headers["content-type"] == "application/json"
    assert response.headers["x-echo"] == "yes"
    assert response.cookies["a"] == "1"
    assert found["method"] == "POST"
    assert found["function"] == "echo"
    assert found["route"] == {"one": "Abc", "two": "x y"}
    # Names are case-insensitive, repeated values joined, those without a value not handed over.
    assert found["query"] == {"a": "1,2", "b": "é z", "c": "+"}
    assert found["url"] == f"{host.url}/API/echo/Abc/x%20y/?a=1&b=%C3%A9+z&A=2&empty=&c=%2B"
    assert found["headers"]["x-mine"] == "me"
    assert found["body"] == "\x00\xff"
    assert found["traceparent"].startswith("00-" + "a" * 32)
    assert found["traceparent"].endswith("-01")
    assert "b" * 16 not in found["traceparent"]


@pytest.mark.parametrize(
    ("path", "route"),
    [
        ("/api/echo/abc", {"one": "abc"}),
        ("/api/echo/abc/", {"one": "abc"}),
        ("/api/echo/abc/a%2Fb", {"one": "abc", "two": "a%2Fb"}),
        ("/api/echo/abc/a+b", {"one": "abc", "two": "a+b"}),
        ("/api/echo/abc/%C3%B3", {"one": "abc", "two": "ó"}),
        ("/api/echo/abc/%F3", {"one": "abc", "two": "%F3"}),
        ("/api/echo/abc/x/../y", {"one": "abc", "two": "y"}),
    ],
)
def test_route_parameters_arrive_decoded(host, path, route):
    status, body, _ = raw(host, f"GET {path} HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n".encode())
    assert status == 200
    assert json.loads(body)["route"] == route


def test_raw_utf8_in_the_target_arrives_decoded(host):
    request = "GET /api/echo/abc/café?q=ñ HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n".encode()
    status, body, _ = raw(host, request)
    found = json.loads(body)
    assert (status, found["route"]["two"], found["query"]) == (200, "café", {"q": "ñ"})
    assert found["url"] == "http://h/api/echo/abc/caf%C3%A9?q=%C3%B1"
    latin = request.decode().encode("latin-1")
    assert json.loads(raw(host, latin)[1])["route"]["two"] == "caf%E9"


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("DELETE", "/api/echo/abc"),
        ("PUT", "/api/boom"),
        ("GET", "/api/echo/ab1"),
        ("GET", "/api/echo"),
        ("GET", "/api//any"),
        ("GET", "/any"),
        ("GET", "/"),
        ("GET", "/admin/host/status"),
        ("GET", "/runtime/webhooks"),
    ],
)
def test_no_route_and_a_wrong_method_are_a_bare_404(get, method, path):
    response = get(path, method)
    assert (response.status_code, response.content) == (404, b"")


def test_a_route_without_methods_takes_any(get, host):
    assert get("/api/any", "PATCH").text == "PATCH"
    assert raw(host, b"FOO /api/any HTTP/1.1\r\nHost: h\r\n\r\n")[:2] == (200, b"FOO")


def test_head_is_answered_where_get_is(host):
    status, body, response = raw(host, b"HEAD /api/echo/abc HTTP/1.1\r\nHost: h\r\n\r\n")
    assert (status, body) == (200, b"")
    assert int(response.headers["content-length"]) > 0


def test_bodies_are_whole_both_ways(get):
    body = bytes(range(256)) * 8192  # 2 MB
    response = get("/api/files/a/b", "PUT", data=body)
    assert (response.status_code, response.headers["rest"]) == (201, "a/b")
    assert response.content == body
    response = get("/api/files", "PUT", data=iter([b"in ", b"chunks"]))
    assert (response.content, "rest" in response.headers) == (b"in chunks", False)


def test_a_body_over_the_limit_is_refused(host):
    request = b"PUT /api/files/x HTTP/1.1\r\nHost: h\r\nContent-Length: 104857601\r\n\r\n"
    assert raw(host, request)[0] == 413


def test_expect_continue_is_answered(host):
    request = b"PUT /api/files HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\n"
    name, port = host.url.removeprefix("http://").split(":")
    with socket.create_connection((name, int(port)), timeout=10) as s:
        s.sendall(request)
        assert s.recv(100).startswith(b"HTTP/1.1 100 Continue")
        s.sendall(b"hi")
        assert b"201" in s.recv(100)


def test_a_function_that_raises_is_an_empty_500_with_a_traceback_in_the_log(get, host):
    response = get("/api/boom")
    assert (response.status_code, response.content) == (500, b"")
    wait_for(lambda: any("boom failed" in line for line in host.err))
    assert any('raise ValueError("kaboom")' in line for line in host.err)


def test_an_answer_that_cant_be_sent_is_a_500(get):
    assert get("/api/broken").status_code == 500
    assert get("/api/nothing").status_code == 204


def test_garbage_is_a_400_and_the_host_goes_on(host):
    assert raw(host, b"GARBAGE\r\n\r\n")[0] == 400
    assert raw(host, b"GET /api/echo/a%00 HTTP/1.1\r\nHost: h\r\n\r\n")[0] == 400
    assert (
        raw(host, b"PUT /api/files HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n")[0] == 400
    )
    name, port = host.url.removeprefix("http://").split(":")
    with socket.create_connection((name, int(port)), timeout=10) as s:
        s.sendall(b"PUT /api/files HTTP/1.1\r\nHost: h\r\nContent-Length: 9\r\n\r\nabc")
    assert raw(host, b"GET /api/any HTTP/1.1\r\nHost: h\r\n\r\n")[0] == 200
    assert not any("couldn't be answered" in line and "broken" not in line for line in host.err)


def test_a_function_above_anonymous_asks_for_the_key(get):
    assert get("/api/locked").status_code == 401
    assert get("/api/locked", headers={"x-functions-key": "wrong"}).status_code == 401
    assert get("/api/locked?code=wrong").status_code == 401
    assert get("/api/locked", headers={"x-functions-key": KEY}).text == "open"
    assert get(f"/api/locked?code={KEY}").text == "open"


def test_the_table_lists_functions_and_urls(host):
    table = [line.split() for line in host.out]
    assert ["echo", "http", "GET,POST", f"{host.url}/api/echo/{{one:alpha}}/{{two?}}"] in table
    assert ["job", "queue", "devhost-jobs"] in table
    assert ["every_second", "timer", "*/1", *"*****"] in table
    assert not any(KEY in line for line in host.out)


# --- queues ---


def test_a_message_that_succeeds_is_deleted(send, seen, queues):
    before = datetime.now(UTC).timestamp()
    sent = send(tag="good")
    (found,) = seen("good")
    assert found["id"] == sent.id
    assert found["count"] == 1
    assert found["receipt"]
    assert found["inserted"] >= int(before)
    assert found["expires"] == 9999
    assert 0 < found["hidden"] <= INVISIBILITY
    seen("good-done")
    wait_for(lambda: count(queues("devhost-jobs")) == 0)


def test_a_message_that_fails_comes_again_and_ends_as_poison_as_it_was(send, seen, queues):
    send(tag="bad", fail=True)
    found = seen("bad", 3)
    assert [delivery["count"] for delivery in found] == [1, 2, 3]
    # visibilityTimeout is 2 s in host.json.
    for earlier, later in itertools.pairwise(found):
        assert 1.5 < later["at"] - earlier["at"] < 6
    poison = queues("devhost-jobs-poison")
    (message,) = wait_for(lambda: take(poison))
    assert json.loads(base64.b64decode(message.content)) == {"tag": "bad", "fail": True}
    # The copy lives 7 days, although the message itself never expired.
    assert (message.expires_on - message.inserted_on).days == 7
    assert len(seen("bad")) == 3
    wait_for(lambda: count(queues("devhost-jobs")) == 0)


def take(queue):
    """Receive and delete all messages; none while the queue doesn't exist."""
    try:
        messages = list(queue.receive_messages())
    except Exception as error:
        if getattr(error, "error_code", None) != "QueueNotFound":
            raise
        return []
    for message in messages:
        queue.delete_message(message)
    return messages


def test_a_message_that_isnt_base64_is_poison_at_once(host, queues):
    queues("devhost-jobs").send_message('{"tag": "plain <&> ó"}')
    (message,) = wait_for(lambda: take(queues("devhost-jobs-poison")))
    assert message.content == '{"tag": "plain <&> ó"}'


def test_a_failure_in_a_poison_queue_makes_no_other(seen, queues, host):
    queue = queues("devhost-own-poison", message_encode_policy=TextBase64EncodePolicy())
    queue.send_message("x")
    seen("own-poison")
    time.sleep(0.5)
    assert count(queue) == 1
    with pytest.raises(Exception, match="QueueNotFound"):
        queues("devhost-own-poison-poison").get_queue_properties()


def test_a_message_that_someone_else_took_meanwhile_is_left_to_them(send, seen, queues):
    send(tag="taken", seconds=1)
    (found,) = seen("taken")
    # Its receipt is void from now on and it's there for anybody: the host itself, a second time.
    queues("devhost-jobs").update_message(found["id"], found["receipt"], visibility_timeout=0)
    seen("taken-done", 2)
    wait_for(lambda: count(queues("devhost-jobs")) == 0)
    assert [delivery["count"] for delivery in seen("taken", 2)] == [1, 2]


def test_invisibility_is_renewed_while_a_message_runs(send, seen, queues):
    send(tag="long", seconds=INVISIBILITY * 1.7)
    seen("long-done", seconds=40)
    wait_for(lambda: count(queues("devhost-jobs")) == 0)
    assert len(seen("long")) == 1


def test_no_more_messages_run_at_once_than_batch_size_and_threshold(send, seen, queues):
    for number in range(16):
        send(tag="many", seconds=0.2 + number % 3 * 0.4)
    seen("many-done", 16)
    found = seen("many", 16)
    # batchSize 3 and newBatchThreshold 1.
    assert max(message["most"] for message in found) == 4
    wait_for(lambda: count(queues("devhost-jobs")) == 0)


# --- timers ---


def test_a_timer_fires_on_its_schedule(seen):
    found = seen("every-second", 4)
    assert not any(run["past_due"] for run in found)
    assert all(0 <= run["at"] % 1 < 0.9 for run in found)
    assert 0.5 < (found[3]["at"] - found[2]["at"]) < 1.5


def test_a_timer_never_overlaps_itself_and_says_when_it_is_past_due(seen):
    done = seen("overrunning-done", 4)
    starts = seen("overrunning", 4)
    for end, start in zip(done, starts[1:], strict=False):
        assert end["at"] <= start["at"]
    # The first run took 4.5 s: the occurrences missed meanwhile are one late run.
    assert [run["past_due"] for run in starts[:4]] == [False, True, False, False]


def test_run_on_startup_runs_at_start(seen):
    assert [run["past_due"] for run in seen("yearly")] == [False]
