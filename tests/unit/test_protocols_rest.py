"""The REST client of one connection: addresses, credentials, retries, errors, JSON."""

import json
import socket
import threading
import time
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from email.utils import format_datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qsl, quote, quote_plus, urlsplit

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crm_core.connector import Account, Answer, Tools
from crm_core.errors import (
    AuthFailed,
    BadAnswer,
    BadRequest,
    FieldError,
    Misconfigured,
    NotPermitted,
    RateLimited,
    RecordGone,
    Rejected,
    Unavailable,
    VendorError,
    VersionMismatch,
)
from crm_core.protocols.guard import Guard, Origins
from crm_core.protocols.http import Http, attempt_number
from crm_core.protocols.rest import Rest, dump_json, explain_status, redact, retry_after

SECRET = "planted-secret-0123"
BASE = "https://x.example/api/v1"
NOW = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)


class FakeClock:
    def __init__(self):
        self.seconds, self.slept = 0.0, []

    def now(self):
        return NOW + timedelta(seconds=self.seconds)

    def monotonic(self):
        return self.seconds

    def sleep(self, seconds):
        self.slept.append(seconds)
        self.seconds += seconds


class RealClock:
    now = staticmethod(lambda: datetime.now(UTC))
    monotonic = staticmethod(time.monotonic)
    sleep = staticmethod(lambda seconds: time.sleep(seconds / 20))


class Ids:
    def fraction(self):
        return 0.5


class Script:
    """A transport that gives the listed answers and errors in order."""

    def __init__(self, clock, *steps, seconds=0.0):
        self.clock, self.steps, self.seconds = clock, list(steps), seconds
        self.requests, self.attempts = [], []

    def send(self, request, *, connection):
        assert connection == "uid-1"
        self.requests.append(request)
        self.attempts.append(attempt_number.get())
        self.clock.seconds += self.seconds
        step = self.steps.pop(0)
        if isinstance(step, Exception):
            raise step
        return step


class Tokens:
    """Credentials that are t0, and after each forced refresh t1, t2, ... up to `last`; the first `left` of those were
    left by another instance.
    """

    def __init__(self, last=9, left=0):
        self.number, self.last, self.forced, self.invalidated = 0, last, [], 0
        self.left = left

    def headers(self, force=False, rejected=None):
        if force:
            self.forced.append(rejected)
            self.number = min(self.last, self.number + 1)
        return {"Authorization": f"Bearer token-{self.number}-{SECRET}"}

    def asked(self):
        return self.number > self.left

    def invalidate(self):
        self.invalidated += 1


def reply(status=200, body=b"{}", **headers):
    return Answer(status, {name.replace("_", "-"): value for name, value in headers.items()}, body)


def unavailable(*, unknown):
    return Unavailable("no answer", outcome_unknown=unknown)


def client(*steps, auth=None, explain=None, seconds=0.0, deadline=100.0, base_url=BASE, secrets=None):
    clock = FakeClock()
    script = Script(clock, *steps, seconds=seconds)
    rest = Rest(
        Account("default", "uid-1", {}, secrets or {"client_secret": SECRET}),
        Tools(script, None, clock, Ids(), call_deadline=deadline),
        system="acme",
        base_url=base_url,
        auth=auth or Tokens(),
        origins=Origins((".example",)),
        explain=explain or (lambda answer: explain_status(answer, "acme")),
        concurrency=2,
    )
    return rest, script, clock


def url_of(path, query=(), base_url=BASE):
    rest, script, _ = client(reply(), base_url=base_url)
    rest.call("GET", path, query=query)
    return script.requests[0].url


@pytest.mark.parametrize(
    ("path", "query", "url"),
    [
        ("accounts", (), f"{BASE}/accounts"),
        ("/accounts", (), f"{BASE}/accounts"),
        ("", (), BASE),
        ("accounts(name='O%27Neil b')", (), f"{BASE}/accounts(name='O%27Neil%20b')"),
        ("a/\u00e4", (), f"{BASE}/a/%C3%A4"),
        (
            "a",
            [("$select", "x,y"), ("$filter", "name eq 'a b'")],
            f"{BASE}/a?$select=x,y&$filter=name%20eq%20'a%20b'",
        ),
        ("a", [("q", "a&b=c+d#e;f%"), ("q", "2")], f"{BASE}/a?q=a%26b%3Dc%2Bd%23e%3Bf%25&q=2"),
        ("a", [("$expand", "p($select=x)")], f"{BASE}/a?$expand=p($select%3Dx)"),
        ("a", "$skiptoken=%3Ca%3E&x=1", f"{BASE}/a?$skiptoken=%3Ca%3E&x=1"),
        ("a", "x=a b#c", f"{BASE}/a?x=a%20b%23c"),
        ("entity:verb", (), f"{BASE}/entity:verb"),
    ],
)
def test_addresses(path, query, url):
    assert url_of(path, query) == url
    assert url_of(path, query, base_url=f"{BASE}/") == url


@settings(deadline=None)
@given(st.lists(st.tuples(st.text(min_size=1), st.text())))
def test_a_query_arrives_as_it_was_meant(query):
    try:
        dump_json(query)
    except BadRequest:
        return
    url = url_of("a", query)
    assert parse_qsl(urlsplit(url).query, keep_blank_values=True, max_num_fields=1000) == query
    assert url.isascii()


@pytest.mark.parametrize(
    "path",
    ["..", "../x", "a/../b", "a/%2e%2e/b", "%2E./b", "a\\..\\b", "//evil.example/x", "https://evil.example/x", "a?x=1",
     "a#b", "a\r\nb", "a%5c..", "..%2fadmin", "/..", "http:/x", "///x"],
)  # fmt: skip
def test_a_path_stays_below_the_base(path):
    rest, script, _ = client(reply())
    with pytest.raises(BadRequest, match="base address"):
        rest.call("GET", path)
    assert not script.requests


@pytest.mark.parametrize(
    "base_url", ["ftp://x.example", "https://x.example/?a=b", "x.example", "https://u:p@x.example"]
)
def test_a_base_url_is_checked(base_url):
    with pytest.raises(BadRequest):
        client(base_url=base_url)


def test_credentials_go_to_allowed_origins_only():
    auth = Tokens()
    rest, script, _ = client(reply(), auth=auth, base_url="https://x.evil.com/api")
    with pytest.raises(Misconfigured, match=r"https://x\.evil\.com"):
        rest.call("GET", "a", query=[("q", SECRET)])
    assert not script.requests


def test_a_link_is_followed_below_the_base_whatever_its_origin():
    rest, script, _ = client(reply(), reply())
    rest.follow("https://evil.example.com/api/v1/a?$skiptoken=%41", headers={"Prefer": "x"})
    rest.follow("/api/v1/b")
    assert [each.url for each in script.requests] == [f"{BASE}/a?$skiptoken=%41", f"{BASE}/b"]
    assert script.requests[0].headers["Prefer"] == "x"
    with pytest.raises(BadAnswer):
        rest.follow("https://x.example/other/a")


def test_what_is_sent():
    rest, script, _ = client(reply(204, b""), reply(201), reply())
    rest.call(
        "patch", "a", json={"name": "\u00e4", "x": None, "n": Decimal("1.10")}, headers={"If-Match": "*"}
    )
    rest.call("POST", "$batch", body=b"raw", headers={"content-type": "multipart/mixed"})
    rest.call("GET", "a", headers={"Authorization": "mine", "Accept": "text/plain"})
    first, second, third = script.requests
    assert (first.method, first.body) == ("PATCH", '{"name":"\u00e4","x":null,"n":1.10}'.encode())
    assert first.headers == {
        "Accept": "application/json",
        "Content-Type": "application/json",
        "If-Match": "*",
        "Authorization": f"Bearer token-0-{SECRET}",
    }
    assert (second.body, second.headers["content-type"]) == (b"raw", "multipart/mixed")
    assert third.headers["Authorization"].startswith("Bearer token-0")
    assert third.headers["Accept"] == "text/plain"
    assert [each.repeatable for each in script.requests] == [False, False, True]


def test_expected_statuses_are_answers():
    for status in (304, 404, 412):
        rest, _, _ = client(reply(status))
        assert rest.call("GET", "a", expect=(304, 404, 412)).status == status
    rest, _, _ = client(reply(304))
    with pytest.raises(BadAnswer):
        rest.call("GET", "a")


def test_a_401_is_tried_once_with_other_credentials():
    auth = Tokens()
    rest, script, clock = client(reply(401), reply(200), auth=auth)
    assert rest.call("POST", "a", json={}).status == 200
    assert [each.headers["Authorization"] for each in script.requests] == [
        f"Bearer token-0-{SECRET}",
        f"Bearer token-1-{SECRET}",
    ]
    assert auth.forced == [{"Authorization": f"Bearer token-0-{SECRET}"}]
    assert auth.invalidated == 0
    assert not clock.slept


def test_a_token_that_another_instance_left_and_that_is_void_too_is_replaced_as_well():
    auth = Tokens(left=1)
    rest, script, _ = client(reply(401), reply(401), reply(200), auth=auth)
    assert rest.call("POST", "a", json={}).status == 200
    assert len(script.requests) == 3
    assert auth.invalidated == 0
    auth = Tokens(left=9)
    rest, script, _ = client(*[reply(401)] * 3, auth=auth)
    with pytest.raises(AuthFailed):
        rest.call("GET", "a")
    assert len(script.requests) == 3
    assert auth.invalidated == 1


def test_a_second_401_is_auth_failed():
    auth = Tokens()
    body = json.dumps(
        {"error": {"code": "bad", "message": f"no: token-0-{SECRET} token-1-{SECRET}"}}
    ).encode()
    rest, script, _ = client(reply(401, body), reply(401, body, request_id="r-1"), auth=auth)
    with pytest.raises(AuthFailed) as caught:
        rest.call("GET", "a")
    assert len(script.requests) == 2
    assert auth.invalidated == 1
    error = caught.value
    assert (error.system, error.vendor_status, error.vendor_code, error.request_id) == (
        "acme",
        401,
        "bad",
        "r-1",
    )
    assert str(error) == "acme answered 401: no: *** ***"


def test_credentials_without_an_alternative_are_not_sent_again():
    rest, script, _ = client(reply(401), auth=Tokens(last=0))
    with pytest.raises(AuthFailed):
        rest.call("GET", "a")
    assert len(script.requests) == 1


def test_an_expected_401_is_an_answer():
    auth = Tokens()
    rest, _, _ = client(reply(401), auth=auth)
    assert rest.call("GET", "a", expect=(401,)).status == 401
    assert not auth.forced


def test_unavailable_is_tried_three_times():
    rest, script, clock = client(*[unavailable(unknown=True)] * 3)
    with pytest.raises(Unavailable) as caught:
        rest.call("GET", "a")
    assert script.attempts == [1, 2, 3]
    assert clock.slept == [0.2 * 1.25, 0.8 * 1.25]
    assert caught.value.system == "acme"


def test_a_server_error_is_tried_again():
    rest, script, _ = client(reply(500), reply(502), reply(200))
    assert rest.call("GET", "a").status == 200
    assert script.attempts == [1, 2, 3]


@pytest.mark.parametrize("step", [unavailable(unknown=True), reply(500), reply(502), reply(503), reply(504)])
def test_a_write_of_unknown_outcome_is_not_repeated(step):
    for method in ("POST", "PATCH"):
        rest, script, clock = client(step)
        with pytest.raises(Unavailable) as caught:
            rest.call(method, "a", json={})
        assert caught.value.outcome_unknown
        assert len(script.requests) == 1
        assert not clock.slept


def test_an_explanation_that_forgets_the_unknown_outcome_is_corrected():
    rest, _, _ = client(reply(500), explain=lambda _: Unavailable("oops"))
    with pytest.raises(Unavailable) as caught:
        rest.call("POST", "a", json={})
    assert caught.value.outcome_unknown
    assert caught.value.vendor_status == 500


@pytest.mark.parametrize("step", [unavailable(unknown=False), reply(503, retry_after="1")])
def test_a_write_that_was_surely_not_done_is_repeated(step):
    rest, script, _ = client(step, reply(201))
    assert rest.call("POST", "a", json={}).status == 201
    assert len(script.requests) == 2


def test_the_caller_says_what_is_repeatable():
    rest, script, _ = client(unavailable(unknown=True), reply(200))
    rest.call("PATCH", "a", json={}, repeatable=True)
    assert [each.repeatable for each in script.requests] == [True, True]
    rest, script, _ = client(unavailable(unknown=True))
    with pytest.raises(Unavailable):
        rest.call("PUT", "a", json={}, repeatable=False)


def test_a_short_rate_limit_is_waited_for_twice():
    limited = reply(429, retry_after="2")
    rest, script, clock = client(limited, limited, reply(200))
    assert rest.call("POST", "a", json={}).status == 200
    assert clock.slept == [2.1, 2.1]  # half of the 10 % by which those who wait are spread
    rest, script, _ = client(limited, limited, limited)
    with pytest.raises(RateLimited) as caught:
        rest.call("GET", "a")
    assert caught.value.retry_after == 2.0
    assert len(script.requests) == 3


@pytest.mark.parametrize("headers", [{"retry_after": "3"}, {}])
def test_a_long_or_unnamed_rate_limit_is_the_callers(headers):
    rest, script, clock = client(reply(429, **headers))
    with pytest.raises(RateLimited):
        rest.call("GET", "a")
    assert len(script.requests) == 1
    assert not clock.slept


def test_a_server_that_asks_for_a_long_wait_is_not_tried_again():
    rest, script, _ = client(reply(503, retry_after="30"))
    with pytest.raises(Unavailable) as caught:
        rest.call("GET", "a")
    assert caught.value.retry_after == 30
    assert len(script.requests) == 1


def test_other_errors_are_not_tried_again():
    for status in (400, 403, 404, 409, 418):
        rest, script, _ = client(reply(status))
        with pytest.raises(VendorError, match=f"acme answered {status}"):
            rest.call("GET", "a")
        assert len(script.requests) == 1


def test_everything_ends_with_the_deadline_of_the_call():
    rest, script, clock = client(*[unavailable(unknown=True)] * 3, seconds=30, deadline=50)
    with pytest.raises(Unavailable):
        rest.call("GET", "a")
    assert [each.timeout for each in script.requests] == [30.0, pytest.approx(50 - 30 - 0.25)]
    assert clock.seconds < 61
    rest, script, _ = client(reply(401), seconds=10, deadline=10)
    with pytest.raises(Unavailable) as caught:
        rest.call("GET", "a")
    assert caught.value.timeout
    assert len(script.requests) == 1


def test_secrets_reach_no_error():
    message = f"bad {SECRET} {quote(SECRET)} Bearer abcdefghij token-0-{SECRET}"
    steps = {
        "explained": reply(400, json.dumps({"message": message}).encode()),
        "raised": Unavailable(message, outcome_unknown=True),
        "cut": reply(500, b"x" * 470 + message.encode()),
        "html": reply(500, f"<html>{message}".encode()),
    }
    for step in steps.values():
        rest, _, _ = client(step)
        with pytest.raises(VendorError, match=r"\*\*\*") as caught:
            rest.call("POST", "a", json={"x": SECRET})
        assert SECRET not in str(caught.value) + repr(caught.value) + caught.value.message
        assert "planted" not in str(caught.value)
        assert "abcdefghij" not in str(caught.value)


def test_the_connectors_explanation_is_kept_and_redacted():
    told = Rejected(f"no {SECRET}", vendor_code="X", errors=[FieldError("name", f"not {SECRET}")])
    rest, _, _ = client(reply(400, x_request_id="r"), explain=lambda _: told)
    with pytest.raises(Rejected) as caught:
        rest.call("POST", "a", json={})
    error = caught.value
    assert (error.message, error.errors) == ("no ***", (FieldError("name", "not ***"),))
    assert (error.system, error.vendor_status, error.vendor_code, error.request_id) == ("acme", 400, "X", "r")


@pytest.mark.parametrize(
    ("status", "kind"),
    [(400, Rejected), (401, AuthFailed), (403, NotPermitted), (404, RecordGone), (409, VersionMismatch), (410, RecordGone),
     (412, VersionMismatch), (422, Rejected), (429, RateLimited), (500, Unavailable), (503, Unavailable), (504, Unavailable),
     (302, BadAnswer), (304, BadAnswer), (405, BadAnswer), (413, BadAnswer), (418, BadAnswer)],
)  # fmt: skip
def test_what_statuses_mean(status, kind):
    error = explain_status(reply(status, b"", x_request_id="r"), "acme")
    assert type(error) is kind
    assert (error.system, error.vendor_status, error.request_id) == ("acme", status, "r")


@pytest.mark.parametrize(
    ("body", "code", "text"),
    [
        ('{"error":{"code":"0x80040217","message":"gone"}}', "0x80040217", "gone"),
        ('{"error":{"code":7,"message":"gone"}}', "7", "gone"),
        ('{"message":"gone","code":"E"}', "E", "gone"),
        ('[{"message":"gone","errorCode":"E"}]', "", "gone"),
        ('{"error":"invalid_grant","error_description":"gone"}', "invalid_grant", "gone"),
        ('{"error":"gone"}', "gone", "gone"),
        ('{"error":{"message":{"a":1}}}', "", '{"error":{"message":{"a":1}}}'),
        ("<html>gone", "", "<html>gone"),
        ('"gone"', "", '"gone"'),
        ("[]", "", "[]"),
        ("", "", "no reason given"),
    ],
)
def test_where_the_reason_stands(body, code, text):
    error = explain_status(reply(400, body.encode()), "acme")
    assert (error.vendor_code, error.message) == (code, f"acme answered 400: {text}")


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"retry-after": ""}, None),
        ({"retry-after": "0"}, 0),
        ({"retry-after": " 17 "}, 17),
        ({"retry-after": "1.5"}, 1.5),
        ({"retry-after": "-5"}, 0),
        ({"retry-after": "99999999"}, 86400),
        ({"retry-after": "1e5"}, None),
        ({"retry-after": "inf"}, None),
        ({"retry-after": "nan"}, None),
        ({"retry-after": "9" * 400}, None),
        ({"retry-after": "\u0661"}, None),
        ({"retry-after": "soon"}, None),
        ({"retry-after": "Sun, 22 Nov 2026 12:00:30 GMT"}, 30),
        ({"retry-after": "Sun, 22 Nov 2026 11:00:00 GMT"}, 0),
        ({"retry-after": "Sun, 22 Nov 2026 14:00:30 +0200"}, 30),
        ({"retry-after": "Sun, 22 Nov 2099 12:00:30 GMT"}, 86400),
        ({"retry-after": "Sun, 22 Nov 2026 12:00:30 GMT", "date": "Sun, 22 Nov 2026 12:00:20 GMT"}, 10),
        ({"retry-after": "Sun, 99 Nov 2026 12:00:30 GMT"}, None),
    ],
)
def test_retry_after(headers, seconds):
    assert retry_after(headers, NOW) == seconds


def test_retry_after_needs_a_time_to_count_from():
    assert retry_after({"retry-after": "Sun, 22 Nov 2026 12:00:30 GMT"}) is None


@settings(deadline=None)
@given(st.text() | st.datetimes(timezones=st.just(UTC)).map(lambda each: format_datetime(each, usegmt=True)))
def test_retry_after_never_fails(text):
    found = retry_after({"retry-after": text}, NOW)
    assert found is None or 0 <= found <= 86400


NUMBERS = st.decimals(allow_nan=False, allow_infinity=False, places=6) | st.integers()
VALUES = st.recursive(
    st.none() | st.booleans() | NUMBERS | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), inner),
    max_leaves=20,
)


@settings(deadline=None)
@given(VALUES)
def test_json_comes_back_with_every_digit(value):
    assert json.loads(dump_json(value), parse_float=Decimal) == value


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (Decimal("12345678901234567890.123456789"), b"12345678901234567890.123456789"),
        (Decimal("1.10"), b"1.10"),
        (Decimal("1E+3"), b"1000"),
        (Decimal("1E-7"), b"0.0000001"),
        (Decimal("-0"), b"-0"),
        (0.1, b"0.1"),
        ({}, b"{}"),
        ([], b"[]"),
        ((1, "a"), b'[1,"a"]'),
        ({"\u00e4": "\u20ac"}, '{"\u00e4":"\u20ac"}'.encode()),
    ],
)
def test_json(value, text):
    assert dump_json(value) == text


@pytest.mark.parametrize(
    "value",
    [
        Decimal("NaN"),
        Decimal("Infinity"),
        Decimal("sNaN"),
        Decimal("1E+1000000"),
        float("nan"),
        float("inf"),
        "\ud800",
    ],
)
def test_json_that_is_refused(value):
    with pytest.raises(BadRequest):
        dump_json({"a": [value]})


@pytest.mark.parametrize("value", [{1: 2}, b"x", object(), {"a": {1}}])
def test_json_of_other_types_is_a_bug(value):
    with pytest.raises(TypeError):
        dump_json(value)


@settings(deadline=None)
@given(
    st.text(
        st.characters(min_codepoint=33, max_codepoint=126, exclude_characters="*."), min_size=4, max_size=60
    ),
    st.text(max_size=600),
    st.text(max_size=600),
)
def test_a_secret_never_survives(secret, before, after):
    for form in (secret, quote(secret, safe=""), quote_plus(secret), json.dumps(secret)[1:-1]):
        shown = redact(f"{before}{form}{after}", [secret])
        assert secret not in shown
        assert len(shown) <= 500
        assert not any(ord(each) < 32 or 127 <= ord(each) < 160 for each in shown)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("Authorization: Bearer abc.def-ghi", "Authorization: Bearer ***"),
        ("basic dXNlcjpwdw==", "basic ***"),
        ("got eyJhbGciOiJub25l.eyJhIjoxfQ.sig here", "got *** here"),
        ("client_secret=abc&x=1", "client_secret=***&x=1"),
        ('{"access_token": "abc", "a": 1}', '{"access_token": "***", "a": 1}'),
        ("line\r\nbreak\x00", "line break "),
        ("cut\ud83dhere", "cut here"),
        ("the password is too short", "the password is too short"),
        ("abc", "abc"),
        ("x" * 501, "x" * 497 + "..."),
    ],
)
def test_redaction(text, shown):
    assert redact(text, ["abc"]) == shown


@contextmanager
def acme(*steps):
    """A server on loopback that answers by script: a status, or "reset" to break off; counts its requests."""
    left, seen = list(steps), []

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def answer(self):
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            seen.append((self.command, self.path, self.headers.get("Authorization")))
            step = left.pop(0)
            if step == "reset":
                self.close_connection = True
                self.connection.shutdown(socket.SHUT_RDWR)
                return
            body = json.dumps({"message": f"said {SECRET}"}).encode()
            self.send_response(step)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_GET = do_POST = do_PATCH = answer  # noqa: N815  # http.server finds them by name

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = False
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    clock = RealClock()
    http = Http(Guard(allow_loopback=True, allow_private=False), clock)
    rest = Rest(
        Account("default", "uid-1", {}, {"client_secret": SECRET}),
        Tools(http, None, clock, Ids()),
        system="acme",
        base_url=f"http://127.0.0.1:{server.server_port}/api",
        auth=Tokens(),
        origins=Origins((), allow_loopback=True),
        explain=lambda answer: explain_status(answer, "acme"),
        concurrency=2,
    )
    try:
        yield rest, seen
    finally:
        http.close()
        server.shutdown()
        thread.join()
        server.server_close()


def test_over_real_http_reads_are_repeated_and_writes_are_not(caplog, lines):
    with acme("reset", 500, 200) as (rest, seen):
        assert rest.call("GET", "a", query=[("q", SECRET)]).status == 200
        assert [each[:2] for each in seen] == [("GET", f"/api/a?q={SECRET}")] * 3
    told = [(each.get("status", each.get("error")), each["attempt"]) for each in lines("remote request")]
    assert told == [("Unavailable", 1), (500, 2), (200, 3)]
    for step in ("reset", 500):
        with acme(step) as (rest, seen):
            with pytest.raises(Unavailable) as caught:
                rest.call("POST", "a", json={"x": SECRET})
            assert caught.value.outcome_unknown
            assert len(seen) == 1
            assert SECRET not in str(caught.value) + repr(caught.value)
    assert SECRET not in caplog.text


def test_over_real_http_a_401_is_renewed():
    with acme(401, 200) as (rest, seen):
        assert rest.call("PATCH", "a", json={}).status == 200
        assert [each[2] for each in seen] == [f"Bearer token-0-{SECRET}", f"Bearer token-1-{SECRET}"]
