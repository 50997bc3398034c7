"""Tokens by client credentials: msal itself against a small authority over TLS."""

import base64
import hashlib
import json
import ssl
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs

import pytest
import trustme

from crm_core.connector import Account, Tools
from crm_core.errors import AuthFailed, BadAnswer, Misconfigured, RateLimited, StoreUnavailable, Unavailable
from crm_core.ports import measured
from crm_core.protocols.entra import ClientCredentials
from crm_core.protocols.guard import Guard, Origins
from crm_core.protocols.http import Http

SECRET = "planted~secret&0123"
SCOPE = "https://org.example/.default"


class Clock:
    """The real time, plus `ahead` seconds."""

    def __init__(self):
        self.ahead = 0.0

    def now(self):
        return datetime.now(UTC) + timedelta(seconds=self.ahead)

    def monotonic(self):
        return time.monotonic()

    def sleep(self, seconds):
        raise AssertionError("nobody sleeps here")


class Store:
    def __init__(self):
        self.rows, self.down = {}, None

    def get(self, tenant, uid):
        return self.rows.get((tenant, uid))

    def put(self, tenant, uid, token, expires):
        if self.down:
            raise self.down
        self.rows[tenant, uid] = (token, expires)

    def claim(self, tenant, uid, now, seconds):
        return "claim"

    def release(self, tenant, uid, claim):
        assert claim == "claim"


class Authority:
    """A token endpoint with TLS. `steps`: (status, body, headers) to answer first; then tokens t1, t2, ..."""

    def __init__(self, ca):
        self.steps, self.discovery, self.lifetime, self.delay = [], [], 3600, 0.0
        self.discoveries, self.forms, self.elsewhere, self.fixed = 0, [], "", ""
        self.lock = threading.Lock()
        owner = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def answer(self):
                form = self.rfile.read(int(self.headers.get("Content-Length", 0))).decode()
                status, body, headers = owner.reply(self.path, form)
                data = body if isinstance(body, bytes) else json.dumps(body).encode()
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            do_GET = do_POST = answer  # noqa: N815  # http.server finds them by name

            def log_message(self, *_):
                pass

        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        ca.issue_cert("127.0.0.1").configure_cert(context)
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = False
        self.server.socket = context.wrap_socket(self.server.socket, server_side=True)
        self.url = f"https://127.0.0.1:{self.server.server_port}"
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.01,))
        self.thread.start()

    def reply(self, path, form):
        with self.lock:
            if path.endswith("/openid-configuration"):
                self.discoveries += 1
                if self.discovery:
                    return self.discovery.pop(0)
                base = f"{self.elsewhere or self.url}/{path.split('/')[1]}"
                endpoints = {
                    f"{each}_endpoint": f"{base}/oauth2/v2.0/{each}" for each in ("authorization", "token")
                }
                return 200, {"issuer": f"{base}/v2.0", **endpoints}, {}
            self.forms.append((path, {name: values[0] for name, values in parse_qs(form).items()}))
            number = len(self.forms)
            if self.steps:
                return self.steps.pop(0)
        time.sleep(self.delay)
        token = self.fixed or f"token-{number}"
        return 200, {"token_type": "Bearer", "expires_in": self.lifetime, "access_token": token}, {}

    def close(self):
        self.server.shutdown()
        self.thread.join()
        self.server.server_close()


@pytest.fixture(scope="module")
def ca():
    return trustme.CA()


@pytest.fixture
def hub(ca, tmp_path):
    """An authority with all that a connection needs to ask it."""
    file = tmp_path / "ca.pem"
    ca.cert_pem.write_to_path(str(file))
    authority, clock, store = Authority(ca), Clock(), Store()
    http = Http(Guard(allow_loopback=True, allow_private=False), clock, ca_bundle=str(file))

    class Hub:
        tools = Tools(http, store, clock, None)

        @staticmethod
        def auth(secret=SECRET, **changed):
            named = {
                "authority": authority.url,
                "tenant_id": "tenant-1",
                "client_id": "client-1",
                "scope": SCOPE,
                "origins": Origins((), allow_loopback=True),
                "system": "acme",
            }
            account = Account("default", "uid-1", {}, {"client_secret": secret})
            return ClientCredentials(account, Hub.tools, client_secret=secret, **{**named, **changed})

    Hub.authority, Hub.clock, Hub.store, Hub.http = authority, clock, store, http
    yield Hub
    http.close()
    authority.close()


def bearer(token):
    return {"Authorization": f"Bearer {token}"}


def refusal(number, text="was refused", status=401):
    body = {
        "error": "invalid_client",
        "error_description": f"AADSTS{number}: It {text}.\r\nTrace ID: x",
        "error_codes": [int(number)],
        "trace_id": "trace-1",
    }
    return status, body, {}


def test_a_token_is_asked_for_once_and_kept(hub):
    auth = hub.auth()
    with measured() as meter:
        assert auth.headers() == bearer("token-1")
        assert auth.headers() == bearer("token-1")
    assert hub.authority.forms == [
        (
            "/tenant-1/oauth2/v2.0/token",
            {
                "grant_type": "client_credentials",
                "client_id": "client-1",
                "client_secret": SECRET,
                "scope": SCOPE,
                "client_info": "1",
            },
        )
    ]
    told = {name: amount for (name, uid), amount in meter.counts().items() if uid == "uid-1"}
    assert told.pop("remote_milliseconds") >= 0
    assert told == {"remote_calls": 2, "tokens_asked": 1, "tokens_from_memory": 1}  # discovery and token
    token, expires = hub.store.rows["default", "uid-1"]
    assert token.endswith(" token-1")
    assert SECRET not in token
    assert expires == pytest.approx(hub.clock.now().timestamp() + 3600, abs=5)


def test_another_instance_takes_it_from_the_store(hub):
    hub.auth().headers()
    with measured() as meter:
        assert hub.auth().headers() == bearer("token-1")
    assert len(hub.authority.forms) == 1
    assert meter.counts() == {("tokens_from_store", "uid-1"): 1}


def fingerprint(token):
    return hashlib.sha256(token.encode()).hexdigest()[:16]


def test_the_facts_of_a_token_are_those_of_the_one_that_is_sent(hub):
    auth = hub.auth()
    facts = auth.facts()
    assert auth.headers() == bearer("token-1")
    assert (facts.fingerprint, facts.audience) == (fingerprint("token-1"), "https://org.example")
    now = hub.clock.now().timestamp()
    assert facts.expires == pytest.approx(now + 3600, abs=5)
    assert facts.renews == pytest.approx(now + 3300, abs=5)
    assert auth.facts() == facts
    assert hub.auth().facts() == facts  # the store keeps them too
    assert len(hub.authority.forms) == 1


def test_fresh_facts_are_those_of_a_new_token_which_is_used_from_then_on(hub):
    auth = hub.auth()
    auth.headers()
    assert auth.facts(fresh=True).fingerprint == fingerprint("token-2")
    assert auth.headers() == bearer("token-2")
    assert hub.auth().headers() == bearer("token-2")


def test_fresh_facts_show_a_refusal_although_a_token_is_at_hand(hub):
    auth = hub.auth()
    auth.headers()
    hub.authority.steps = [refusal("7000222", "has expired")]
    with pytest.raises(AuthFailed, match="7000222"):
        auth.facts(fresh=True)
    assert auth.headers() == bearer("token-1")  # what works goes on


def jwt(body):
    return f"e30.{base64.urlsafe_b64encode(body).decode().rstrip('=')}.sign"


@pytest.mark.parametrize(
    ("token", "audience"),
    [
        (jwt(b'{"aud": "https://org.example/"}'), "https://org.example/"),
        (jwt(b'{"aud": "00000007-0000-0000-c000-000000000000"}'), "00000007-0000-0000-c000-000000000000"),
        (jwt(b'{"aud": "' + b"x" * 500 + b'"}'), "x" * 200),
        (jwt(b'{"aud": ["a"]}'), "https://org.example"),
        (jwt(b'{"sub": "x"}'), "https://org.example"),
        (jwt(b"[1]"), "https://org.example"),
        (jwt(b"\xff\xfe"), "https://org.example"),
        (jwt(b"[" * 20000), "https://org.example"),
        ("a.!.b", "https://org.example"),
        ("opaque", "https://org.example"),
    ],
)
def test_the_audience_is_what_the_token_says_or_else_what_was_asked_for(hub, token, audience):
    hub.authority.fixed = token
    assert hub.auth().facts().audience == audience


def test_one_that_came_between_the_look_and_the_claim_is_taken(hub, monkeypatch):
    released = []

    def claim(*_):
        monkeypatch.undo()
        monkeypatch.setattr(hub.store, "release", lambda *about: released.append(about[-1]))
        hub.auth().headers()  # another instance asks, and is done before our claim is granted
        return "claim"

    monkeypatch.setattr(hub.store, "claim", claim)
    assert hub.auth().headers() == bearer("token-1")
    assert len(hub.authority.forms) == 1
    assert released == ["claim"]


@pytest.mark.parametrize(
    "changed", [{"secret": "other-secret"}, {"client_id": "client-2"}, {"scope": "https://b/.default"}]
)
def test_a_token_of_other_credentials_is_not_used(hub, changed):
    hub.auth().headers()
    assert hub.auth(**changed).headers() == bearer("token-2")


def test_twenty_cold_threads_make_one_call(hub):
    hub.authority.delay = 0.1
    auth = hub.auth()
    with ThreadPoolExecutor(20) as pool:
        got = list(pool.map(lambda _: auth.headers(), range(20)))
    assert got == [bearer("token-1")] * 20
    assert len(hub.authority.forms) == 1
    assert hub.authority.discoveries == 1


def test_twenty_cold_threads_share_a_failure(hub):
    hub.authority.discovery = [(503, {}, {})] * 20
    auth = hub.auth()
    ready = threading.Barrier(20)
    original = hub.store.get

    def slow(tenant, uid):
        time.sleep(0.5)
        return original(tenant, uid)

    hub.store.get = slow

    def work(_):
        ready.wait()
        with pytest.raises(Unavailable) as caught:
            auth.headers()
        return caught.value

    with ThreadPoolExecutor(20) as pool:
        errors = list(pool.map(work, range(20)))
    assert hub.authority.discoveries == 1
    assert len({id(each) for each in errors}) == 20
    assert {each.vendor_status for each in errors} == {503}


def test_a_token_is_renewed_five_minutes_early(hub):
    auth = hub.auth()
    auth.headers()
    hub.clock.ahead = 3290
    assert auth.headers() == bearer("token-1")
    assert hub.auth().headers() == bearer("token-1")
    hub.clock.ahead = 3310
    assert hub.auth().headers() == bearer("token-2")
    assert auth.headers() == bearer("token-2")
    assert hub.authority.discoveries == 2


def test_a_short_token_is_used_for_half_its_life(hub):
    hub.authority.lifetime = 60
    auth = hub.auth()
    auth.headers()
    hub.clock.ahead = 25
    assert auth.headers() == bearer("token-1")
    hub.clock.ahead = 35
    assert auth.headers() == bearer("token-2")


def test_a_rejected_token_is_replaced_and_never_taken_from_the_store(hub):
    auth = hub.auth()
    first = auth.headers()
    assert auth.headers(force=True, rejected=first) == bearer("token-2")
    assert auth.headers() == bearer("token-2")
    assert hub.auth().headers() == bearer("token-2")
    # without naming it, the current one is meant
    assert auth.headers(force=True) == bearer("token-3")


def test_what_another_instance_renewed_is_taken(hub):
    auth, other = hub.auth(), hub.auth()
    first = auth.headers()
    assert other.headers() == first
    other.headers(force=True, rejected=first)
    assert auth.headers(force=True, rejected=first) == bearer("token-2")
    assert len(hub.authority.forms) == 2


def test_twenty_threads_with_the_same_rejected_token_make_one_call(hub):
    auth = hub.auth()
    first = auth.headers()
    with ThreadPoolExecutor(20) as pool:
        got = list(pool.map(lambda _: auth.headers(force=True, rejected=first), range(20)))
    assert got == [bearer("token-2")] * 20
    assert len(hub.authority.forms) == 2


def test_invalidated_credentials_are_gone(hub):
    auth = hub.auth()
    auth.headers()
    auth.invalidate()
    assert auth.headers() == bearer("token-2")
    auth.invalidate()
    auth.invalidate()
    assert auth.headers() == bearer("token-3")


def test_an_authority_that_insists_on_a_token_is_asked_once_per_refusal(hub):
    hub.authority.fixed = "same"
    auth = hub.auth()
    first = auth.headers()
    assert auth.headers(force=True, rejected=first) == first
    assert auth.headers() == first
    assert len(hub.authority.forms) == 2


@pytest.mark.parametrize(
    ("number", "remedy"),
    [("7000215", "value"), ("7000222", "expired"), ("700016", "client id"), ("90002", "tenant id"), ("500011", "address"),
     ("12345", "was refused")],
)  # fmt: skip
@pytest.mark.parametrize("status", [400, 401])
def test_a_refusal_says_what_to_do(hub, number, remedy, status):
    hub.authority.steps = [refusal(number, f"was refused for {SECRET}", status)]
    with pytest.raises(AuthFailed) as caught:
        hub.auth().headers()
    error = caught.value
    assert error.message.startswith(f"AADSTS{number}: It was refused for ***.")
    assert remedy in error.message
    assert (error.system, error.vendor_code, error.vendor_status) == ("acme", number, status)
    assert error.request_id == "trace-1"
    assert "Trace" not in error.message


def test_a_corrected_refusal_is_not_remembered(hub):
    hub.authority.steps = [refusal("7000215", status=400)]
    auth = hub.auth()
    with pytest.raises(AuthFailed):
        auth.headers()
    assert auth.headers() == bearer("token-2")


def test_an_unknown_tenant_is_refused_at_discovery(hub):
    hub.authority.discovery = [refusal("90002", status=400)]
    auth = hub.auth()
    with pytest.raises(AuthFailed, match="check the tenant id"):
        auth.headers()
    assert auth.headers() == bearer("token-1")


@pytest.mark.parametrize("where", ["discovery", "steps"])
def test_trouble_at_the_authority(hub, where):
    auth = hub.auth()
    setattr(
        hub.authority,
        where,
        [(503, {"error": "busy"}, {"Retry-After": "7"}), (429, {}, {"Retry-After": "9"})],
    )
    with pytest.raises(Unavailable) as down:
        auth.headers()
    assert down.value.retry_after == 7
    assert not down.value.outcome_unknown
    with pytest.raises(RateLimited) as limited:
        auth.headers()
    assert limited.value.retry_after == 9
    assert auth.headers()["Authorization"].startswith("Bearer token-")


def test_no_authority_is_unavailable_with_a_known_outcome(hub):
    with pytest.raises(Unavailable) as caught:
        hub.auth(authority="https://127.0.0.1:1").headers()
    assert not caught.value.outcome_unknown


@pytest.mark.parametrize(
    "step",
    [
        (200, b"no json", {}),
        (400, b"<html>", {}),
        (302, {}, {"Location": "https://evil.example"}),
        (200, {"access_token": "a b", "expires_in": 3600}, {}),
        (200, {"access_token": "a\r\nX: y", "expires_in": 3600}, {}),
        (200, {"access_token": "abc", "expires_in": -1}, {}),
        (200, {"access_token": "abc", "expires_in": "soon"}, {}),
        (200, {}, {}),
        (200, {"access_token": 5, "expires_in": 3600}, {}),
        (200, [], {}),
        (400, [], {}),
    ],
)
def test_impossible_token_answers(hub, step):
    hub.authority.steps = [step]
    with pytest.raises(BadAnswer):
        hub.auth().headers()
    assert not hub.store.rows


@pytest.mark.parametrize(
    "step",
    [
        (200, {}, {}),
        (200, {"authorization_endpoint": 5, "token_endpoint": 5}, {}),
        (200, [], {}),
        (200, b"x", {}),
        (302, {}, {"Location": "/"}),
    ],
)
def test_impossible_discoveries(hub, step):
    hub.authority.discovery = [step]
    with pytest.raises(BadAnswer):
        hub.auth().headers()
    assert not hub.authority.forms


def test_the_secret_goes_to_the_authority_only(hub):
    hub.authority.elsewhere = hub.authority.url.replace("127.0.0.1", "localhost")
    with pytest.raises(BadAnswer, match="another origin"):
        hub.auth().headers()
    assert not hub.authority.forms
    with pytest.raises(Misconfigured, match="Credentials may not go"):
        hub.auth(origins=Origins((".microsoftonline.com",)))


@pytest.mark.parametrize(
    ("changed", "named"),
    [({"tenant_id": ""}, "tenant id"), ({"client_id": ""}, "client id"), ({"secret": ""}, "client secret"),
     ({"tenant_id": "Common"}, "names no tenant")],
)  # fmt: skip
def test_missing_parts_are_named(hub, changed, named):
    with pytest.raises(Misconfigured, match=named):
        hub.auth(**changed)


def test_a_tenant_id_stays_one_segment(hub):
    hub.auth(tenant_id="a/../b").headers()
    assert hub.authority.forms[0][0].startswith("/a%2F")


@pytest.mark.parametrize(
    "why", [StoreUnavailable("no storage"), Misconfigured("403")], ids=["away", "refused"]
)
def test_a_token_that_cannot_be_kept_is_still_used(hub, lines, why):
    hub.store.down = why
    auth = hub.auth()
    assert auth.headers() == bearer("token-1")
    assert auth.headers() == bearer("token-1")
    (line,) = lines("token not kept")
    assert (line["connection"], line["error"]) == ("uid-1", type(why).__name__)


def told(lines):
    """The lines about tokens: what became of each and for how long, without what all of them say."""
    found = []
    for line in lines("token"):
        assert (line["connection"], line["audience"]) == ("uid-1", SCOPE)
        found.append((line["outcome"], line.get("expires_in")))
    return found


def test_every_token_is_one_line_got_shared_rejected_or_renewed(hub, lines):
    auth = hub.auth()
    auth.headers()
    auth.headers()
    assert told(lines) == [("new", 3600)]
    hub.auth().headers()
    assert told(lines)[1:] in ([("shared", 3600)], [("shared", 3599)])
    auth.headers(force=True)
    assert told(lines)[2:] == [("rejected", None), ("renewed", 3600)]
    hub.clock.ahead = 3400
    auth.headers()
    assert told(lines)[4:] == [("renewed", 3600)]


def test_a_refused_token_is_a_line_with_the_authority_s_code(hub, lines):
    hub.authority.steps = [refusal("7000215")]
    with pytest.raises(AuthFailed):
        hub.auth().headers()
    (line,) = lines("token")
    named = ("level", "outcome", "error", "status", "vendor_code", "request_id")
    assert [line[name] for name in named] == [
        "WARNING", "refused", "AuthFailed", 401, "7000215", "trace-1",
    ]  # fmt: skip


def test_an_authority_that_answers_with_the_secret_as_its_error_does_not_get_it_shown(hub, lines):
    hub.authority.steps = [(400, {"error": SECRET}, {})]
    with pytest.raises(AuthFailed) as caught:
        hub.auth().headers()
    assert SECRET not in caught.value.vendor_code
    assert "vendor_code" not in lines("token")[0]


def test_secrets_stay_out_of_logs_errors_and_reprs(hub, caplog, loud):
    loud()
    hub.authority.fixed = "planted-token-0123"
    auth = hub.auth()
    auth.headers()
    auth.headers(force=True)
    hub.authority.steps = [
        refusal("7000215", SECRET),
        (200, f"not json {SECRET}".encode(), {}),
        (500, f"oops {SECRET} planted-token-0123".encode(), {}),
    ]
    shown = [repr(auth), repr(auth._held), repr(auth._http)]
    for kind in (AuthFailed, BadAnswer, Unavailable):
        with pytest.raises(kind) as caught:
            auth.headers(force=True)
        shown += [str(caught.value), repr(caught.value), repr(vars(caught.value))]
    everything = "\n".join([caplog.text, *shown])
    assert SECRET not in everything
    assert "planted~secret" not in everything
    assert "planted-token" not in caplog.text + shown[0] + shown[1] + shown[2]
