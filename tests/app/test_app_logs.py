"""What the running app logs: one JSON object a line, and one trace from a caller to the remote system."""

import json
import re
import time
import uuid

import pytest

pytestmark = pytest.mark.xdist_group("app-api")


@pytest.fixture
def parent():
    """A caller's trace, and the header that names it."""
    trace = uuid.uuid4().hex
    return trace, {"traceparent": f"00-{trace}-b7ad6b7169203331-01"}


@pytest.fixture
def lines(api):
    """The lines of one event in one trace; waits for the first of them, which comes through a pipe."""

    def found(event, trace, seconds=10):
        deadline = time.monotonic() + seconds
        while True:
            own = [json.loads(each) for each in api.child.err if each.startswith('{"')]
            read = [each for each in own if each["event"] == event and each.get("trace") == trace]
            if read:
                return read
            assert time.monotonic() < deadline, own[-20:]
            time.sleep(0.02)

    return found


def test_a_request_is_one_line_by_its_route_and_without_its_values(api, demo, account, lines, parent):
    trace, header = parent
    rid = account(name="Line")
    api.ok("PATCH", f"/api/crm/accounts/{rid}?connection=demo", {"phone": "0034-planted"}, headers=header)
    (line,) = lines("request", trace)
    assert 0 < line.pop("ms") < 60_000
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", line.pop("time"))
    assert line == {
        "level": "INFO",
        "logger": "crm_core.api",
        "event": "request",
        "trace": trace,
        "route": "/api/crm/{entities}/{rid}",
        "entity": "account",
        "tenant": "default",
        "principal": "key:settings",
        "connection": demo["uid"],
        "method": "PATCH",
        "status": 200,
    }
    # Around it a token and the names of owners, if this is the first call.
    (remote,) = (each for each in lines("remote request", trace) if rid in each["path"])
    assert (remote["trace"], remote["connection"], remote["principal"]) == (
        trace,
        demo["uid"],
        "key:settings",
    )
    assert remote["path"] == f"/api/data/v9.2/accounts({rid})"


@pytest.mark.parametrize(
    ("method", "path", "key", "told"),
    [
        ("GET", "/api/crm/accounts/planted-value", "wrong-key", ("/api/crm/{entities}/{rid}", 401, "Unauthenticated")),
        ("GET", "/api/crm/planted-value", None, ("/api/crm/{entities}", 401, "Unauthenticated")),
        ("GET", "/api/crm/planted-value/1/2/3", None, (None, 404, "NotFound")),
        ("DELETE", "/health", None, (None, 405, "MethodNotAllowed")),
    ],
)  # fmt: skip
def test_a_refused_request_is_one_line_too(api, lines, method, path, key, told):
    trace = api(method, path, key=key).json()["traceId"]
    (line,) = lines("request", trace)
    assert (line.get("route"), line["status"], line["error"]) == told
    assert "principal" not in line
    assert "planted" not in json.dumps(line)


def test_one_trace_leads_from_the_caller_through_the_queue_to_the_remote_system(
    api, sandbox, demo, lines, parent
):
    trace, header = parent
    before = sandbox.last_request()
    started = api("POST", "/api/runs", {"connection": "demo", "mode": "full"}, headers=header)
    run = api.ended(started.headers["Operation-Location"])
    assert run["status"] == "succeeded"
    assert run["trace"] == trace
    assert started.headers["traceparent"].split("-")[1] == trace
    (job,), (end,) = lines("job", trace), lines("run", trace)
    assert job["trace"] == end["trace"] == trace
    assert job["run"] == end["run"] == run["id"]
    assert end["counts"] == run["counts"]
    (request,) = (each for each in lines("request", trace) if each["method"] == "POST")
    assert (request["trace"], request["run"]) == (trace, run["id"])
    got = [each["headers"]["traceparent"].split("-") for each in sandbox.requests_since(before)]
    assert len(got) > 1
    assert {each[1] for each in got} == {trace}
    assert {each[2] for each in got} == {each["span"] for each in lines("remote request", trace)}
