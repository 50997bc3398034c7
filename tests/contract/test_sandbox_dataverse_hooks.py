"""Webhooks of the Dataverse sandbox, as a receiver sees them."""

import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from sandbox.dynamics365 import Dataverse
from sandbox.testing import Client, running


@pytest.fixture
def receiver():
    """A server that keeps what is posted to it, and answers what it is told to."""
    posts, answers = [], []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            body = self.rfile.read(int(self.headers["Content-Length"]))
            headers = {name.lower(): value for name, value in self.headers.items()}
            posts.append((self.path, headers, json.loads(body)))
            self.send_response(answers.pop(0) if answers else 200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *arguments):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/hook", posts, answers
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def client():
    with running(Dataverse()) as sandbox, Client(sandbox.url) as found:
        yield found


def control(client, method, path, body=None):
    answer = client.call(method, f"/_sandbox/{path}", body)
    assert answer.status < 300, answer.body
    return answer.json() if answer.body else None


def told(posts, count):
    """The posts, once there are so many; and that there are no more of them."""
    deadline = time.monotonic() + 10
    while len(posts) < count and time.monotonic() < deadline:
        time.sleep(0.01)
    time.sleep(0.1)
    found, posts[:] = list(posts), []
    assert len(found) == count
    return found


def test_an_operation_is_posted_as_its_context(client, receiver):
    url, posts, _ = receiver
    hook = {"url": url, "authvalue": "a key+", "tables": ["account"]}
    control(client, "POST", "options", {"webhooks": {"hub": hook}})
    values = {"name": "Contoso", "revenue": 5, "customertypecode": 3}
    rid = control(client, "POST", "rows/account", {"values": values})["id"]
    ((path, headers, body),) = told(posts, 1)
    assert path == "/hook?code=a%20key%2B"
    assert headers["x-ms-dynamics-entity-name"] == "account"
    assert headers["x-ms-dynamics-request-name"] == body["MessageName"] == "Create"
    assert (body["PrimaryEntityName"], body["PrimaryEntityId"]) == ("account", rid)
    ((name, target),) = ((each["key"], each["value"]) for each in body["InputParameters"])
    assert (name, target["LogicalName"], target["Id"]) == ("Target", "account", rid)
    attributes = {each["key"]: each["value"] for each in target["Attributes"]}
    assert attributes["name"] == "Contoso"
    assert attributes["revenue"]["Value"] == 5
    assert attributes["customertypecode"]["Value"] == 3
    assert attributes["ownerid"]["LogicalName"] == "systemuser"

    control(client, "PATCH", f"rows/account/{rid}", {"values": {"telephone1": "1"}})
    ((_, _, update),) = told(posts, 1)
    assert update["MessageName"] == "Update"
    names = {each["key"] for each in update["InputParameters"][0]["value"]["Attributes"]}
    assert names <= {"telephone1", "modifiedon", "modifiedby"}
    assert "telephone1" in names
    assert update["OperationId"] != body["OperationId"]

    control(client, "DELETE", f"rows/account/{rid}")
    ((_, _, delete),) = told(posts, 1)
    assert (delete["MessageName"], delete["PrimaryEntityId"]) == ("Delete", rid)
    assert "Attributes" not in delete["InputParameters"][0]["value"]
    control(client, "POST", "rows/contact", {"values": {"lastname": "Other"}})
    told(posts, 0)


def test_a_refused_operation_is_not_told(client, receiver):
    url, posts, _ = receiver
    control(
        client,
        "POST",
        "options",
        {"webhooks": {"hub": {"url": url, "authtype": 5, "authvalue": {"X-Key": "k"}}}},
    )
    assert client.call("POST", "/_sandbox/rows/account", {"values": {"name": 5}}).status == 400
    told(posts, 0)
    control(client, "POST", "rows/account", {"values": {"name": "Fits"}})
    ((path, headers, _),) = told(posts, 1)
    assert (path, headers["x-key"]) == ("/hook", "k")


def test_a_long_post_leaves_out_what_it_is_about(receiver, monkeypatch):
    """No column of the sandbox is so long, so the limit is another one here."""
    monkeypatch.setattr("sandbox.dynamics365.hooks.SIZE_LIMIT", 2000)
    url, posts, _ = receiver
    with running(Dataverse()) as sandbox, Client(sandbox.url) as client:
        control(client, "POST", "options", {"webhooks": {"hub": {"url": url, "authvalue": "k"}}})
        values = {"name": "Long", "description": "x" * 1990}
        rid = control(client, "POST", "rows/account", {"values": values})["id"]
    ((_, headers, body),) = told(posts, 1)
    assert headers["x-ms-dynamics-msg-size-exceeded"] == "true"
    assert (body["PrimaryEntityId"], body["MessageName"]) == (rid, "Create")
    assert not body.keys() & {"ParentContext", "InputParameters", "PreEntityImages", "PostEntityImages"}


@pytest.mark.parametrize(
    ("status", "times"), [(503, 2), (502, 2), (504, 2), (500, 1), (429, 1), (404, 1), (202, 1)]
)
def test_only_some_refusals_are_sent_once_more(client, receiver, status, times):
    url, posts, answers = receiver
    answers += [status] * 5
    control(client, "POST", "options", {"webhooks": {"hub": {"url": url, "authvalue": "k"}}})
    control(client, "POST", "rows/account", {"values": {"name": "Contoso"}})
    time.sleep(1.2)
    found = told(posts, times)
    assert len({each["OperationId"] for _, _, each in found}) == 1


def test_repeats_losses_and_delays_are_on_demand(client, receiver):
    url, posts, _ = receiver
    control(
        client,
        "POST",
        "options",
        {"webhooks": {"hub": {"url": url, "authvalue": "k"}}, "webhook_faults": {"times": 3}},
    )
    control(client, "POST", "rows/account", {"values": {"name": "Thrice"}})
    assert len({each["OperationId"] for _, _, each in told(posts, 3)}) == 1
    control(client, "POST", "options", {"webhook_faults": {"times": 1, "lost": 1.0}})
    control(client, "POST", "rows/account", {"values": {"name": "Lost"}})
    told(posts, 0)
    control(client, "POST", "options", {"webhook_faults": {"lost": 0.0, "delay": 0.5}})
    made = [control(client, "POST", "rows/account", {"values": {"name": str(n)}})["id"] for n in range(12)]
    found = [each["PrimaryEntityId"] for _, _, each in told(posts, 12)]
    assert sorted(found) == sorted(made)
    assert found != made
