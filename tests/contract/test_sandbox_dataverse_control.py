"""Tokens, limits, faults and the control endpoint of the Dataverse sandbox, by raw HTTP."""

import json
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

import pytest

from sandbox.app import App
from sandbox.dynamics365 import Dataverse, Identity
from sandbox.frame import Fault, Request
from sandbox.testing import Client, running, signed_in

API = "/api/data/v9.2"


@pytest.fixture(scope="module")
def sandbox():
    with running(Dataverse()) as sandbox:
        yield sandbox


@pytest.fixture
def client(sandbox):
    with Client(sandbox.url) as control:
        assert control.call("POST", "/_sandbox/reset").status == 204
    with signed_in(sandbox) as client:
        client.call("DELETE", "/_sandbox/requests")
        yield client


def control(client, method, path, body=None):
    answer = client.call(method, f"/_sandbox/{path}", body)
    assert answer.status in (200, 204), answer.body
    return answer.json() if answer.body else None


# --- tokens ---------------------------------------------------------------------------------------------


def ask(client, tenant=None, **changed):
    identity = Identity()
    form = {
        "grant_type": "client_credentials", "client_id": identity.client_id, "client_secret": identity.client_secret,
        "scope": f"{client.origin}/.default", **changed,
    }  # fmt: skip
    body = "&".join(f"{k}={v}" for k, v in form.items() if v is not None).encode()
    return client.call(
        "POST",
        f"/{tenant or identity.tenant}/oauth2/v2.0/token",
        body,
        {"Content-Type": "application/x-www-form-urlencoded"},
    )


@pytest.mark.parametrize(
    ("changed", "status", "error", "code"),
    [
        ({"client_secret": "wrong"}, 401, "invalid_client", 7000215),
        ({"client_secret": None}, 401, "invalid_client", 7000218),
        ({"client_id": "who"}, 400, "unauthorized_client", 700016),
        ({"tenant": "nowhere"}, 400, "invalid_request", 90002),
        ({"grant_type": "password"}, 400, "unsupported_grant_type", 70003),
        ({"grant_type": None}, 400, "invalid_request", 900144),
        ({"scope": "https://other.crm4.dynamics.com/.default"}, 400, "invalid_resource", 500011),
        ({"scope": "user_impersonation"}, 400, "invalid_scope", 1002012),
        ({"client_assertion": "no.jwt", "client_assertion_type": "x"}, 401, "invalid_client", 700027),
    ],
)  # fmt: skip
def test_the_token_endpoint_refuses_with_the_directory_s_codes(client, changed, status, error, code):
    answer = ask(client, **changed)
    body = answer.json()
    assert (answer.status, body["error"], body["error_codes"]) == (status, error, [code])
    assert body["error_description"].startswith(f"AADSTS{code}: ")
    assert {"timestamp", "trace_id", "correlation_id"} <= body.keys()


def test_discovery_stays_on_the_origin_that_was_asked(client):
    tenant = Identity().tenant
    found = client.call("GET", f"/{tenant}/v2.0/.well-known/openid-configuration").json()
    assert found["token_endpoint"] == f"{client.origin}/{tenant}/oauth2/v2.0/token"
    assert all(
        v.startswith(client.origin)
        for k, v in found.items()
        if k.endswith(("_endpoint", "_uri")) or k == "issuer"
    )
    instance = client.call("GET", "/common/discovery/instance?api-version=1.1").json()
    assert instance["tenant_discovery_endpoint"].endswith("openid-configuration")
    assert client.call("GET", "/nowhere/v2.0/.well-known/openid-configuration").status == 400


@pytest.mark.parametrize("header", [None, "Bearer", "Bearer nonsense", "Basic eDp5"])
def test_without_a_token_it_is_401_with_a_challenge(client, header):
    headers = {"Authorization": header} if header else {}
    with Client(client.origin, headers) as stranger:
        answer = stranger.call("GET", f"{API}/WhoAmI")
    assert answer.status == 401
    assert answer.headers["WWW-Authenticate"].startswith("Bearer ")
    assert Identity().tenant in answer.headers["WWW-Authenticate"]


def test_a_token_expires_and_can_be_revoked(client):
    control(client, "POST", "options", {"token_seconds": 60})
    answer = ask(client).json()
    assert (answer["expires_in"], answer["ext_expires_in"], answer["token_type"]) == (60, 60, "Bearer")
    assert "refresh_token" not in answer
    client.headers["Authorization"] = f"Bearer {answer['access_token']}"
    control(client, "POST", "clock", {"advance": 59})
    assert client.call("GET", f"{API}/WhoAmI").status == 200
    control(client, "POST", "clock", {"advance": 2})
    expired = client.call("GET", f"{API}/WhoAmI")
    assert expired.status == 401
    assert 'error="invalid_token"' in expired.headers["WWW-Authenticate"]
    client.headers["Authorization"] = f"Bearer {ask(client).json()['access_token']}"
    assert client.call("GET", f"{API}/WhoAmI").status == 200
    assert control(client, "POST", "tokens/revoke")["revoked"] >= 1
    assert client.call("GET", f"{API}/WhoAmI").status == 401


@pytest.mark.parametrize(("state", "code"), [("missing", "0x80072560"), ("disabled", "0x80040225")])
def test_an_app_user_that_is_missing_or_disabled_may_do_nothing(client, state, code):
    control(client, "POST", "options", {"app_user": state})
    answer = client.call("GET", f"{API}/WhoAmI")
    assert (answer.status, answer.code) == (403, code)


# --- limits and faults ----------------------------------------------------------------------------------


def test_protection_limits_refuse_with_code_and_growing_wait(client):
    first = client.call("GET", f"{API}/WhoAmI")
    left = int(first.headers["x-ms-ratelimit-burst-remaining-xrm-requests"])
    again = client.call("GET", f"{API}/WhoAmI")
    assert int(again.headers["x-ms-ratelimit-burst-remaining-xrm-requests"]) == left - 1
    assert again.headers["x-ms-service-request-id"] != first.headers["x-ms-service-request-id"]
    control(client, "POST", "options", {"limits": {"requests": 3}})
    assert client.call("GET", f"{API}/WhoAmI").status == 200
    refused = client.call("GET", f"{API}/WhoAmI")
    assert (refused.status, refused.code) == (429, "0x80072322")
    ignored = client.call("GET", f"{API}/WhoAmI")
    assert int(ignored.headers["Retry-After"]) > int(refused.headers["Retry-After"]) > 0
    control(client, "POST", "clock", {"advance": 301})
    assert client.call("GET", f"{API}/WhoAmI").status == 200
    control(client, "POST", "options", {"limits": {"requests": 6000, "seconds": 10, "cost": 6}})
    assert client.call("GET", f"{API}/WhoAmI").code == "0x80072321"


def fault(client, **values):
    return control(client, "POST", "faults", values)


def test_status_faults_in_the_vendor_s_shape(client):
    fault(client, kind="throttle", count=2, retry_after=3)
    for _ in range(2):
        answer = client.call("GET", f"{API}/accounts")
        assert (answer.status, answer.code, answer.headers["Retry-After"]) == (429, "0x80072322", "3")
    assert client.call("GET", f"{API}/accounts").status == 200
    fault(client, kind="throttle", code="concurrent")
    assert client.call("GET", f"{API}/accounts").code == "0x80072326"
    fault(client, kind="status", status=503, retry_after="date:120")
    busy = client.call("GET", f"{API}/accounts")
    wait = parsedate_to_datetime(busy.headers["Retry-After"]) - datetime.now(UTC)
    assert (busy.status, 100 < wait.total_seconds() <= 121) == (503, True)
    fault(client, kind="status", status=500, code="0x80044150", message="SQL error 1205")
    assert client.call("GET", f"{API}/accounts").json() == {
        "error": {"code": "0x80044150", "message": "SQL error 1205"}
    }
    fault(client, kind="privilege", code="prvReadAccount")
    answer = client.call("GET", f"{API}/accounts")
    assert (answer.status, answer.code) == (403, "0x80040220")
    assert "prvReadAccount" in answer.json()["error"]["message"]


def test_faults_of_the_body(client):
    fault(client, kind="garbage")
    with pytest.raises(json.JSONDecodeError):
        client.call("GET", f"{API}/WhoAmI").json()
    fault(client, kind="truncate")
    with pytest.raises(json.JSONDecodeError):
        client.call("GET", f"{API}/WhoAmI").json()
    fault(client, kind="html", status=502)
    page = client.call("GET", f"{API}/WhoAmI")
    assert (page.status, page.headers["Content-Type"]) == (502, "text/html")
    fault(client, kind="content_type")
    assert client.call("GET", f"{API}/WhoAmI").headers["Content-Type"] == "text/plain"
    fault(client, kind="content_type", text="application/xml")
    assert client.call("GET", f"{API}/WhoAmI").headers["Content-Type"] == "application/xml"


def test_faults_are_limited_by_method_path_and_count_and_can_be_listed_and_cleared(client):
    one = fault(client, kind="status", status=500, method="PATCH", path="*/accounts(*", count=None)
    two = fault(client, kind="status", status=502, path="*/oauth2/v2.0/token")
    assert client.call("GET", f"{API}/accounts").status == 200
    assert client.call("PATCH", f"{API}/accounts(00000000-0000-4000-8000-000000000001)", {}).status == 500
    assert ask(client).status == 502
    assert [(f["id"], f["struck"]) for f in control(client, "GET", "faults")] == [
        (one["id"], 1),
        (two["id"], 1),
    ]
    control(client, "DELETE", f"faults/{two['id']}")
    assert [f["id"] for f in control(client, "GET", "faults")] == [one["id"]]
    control(client, "DELETE", "faults")
    assert control(client, "GET", "faults") == []
    assert client.call("POST", "/_sandbox/faults", {"kind": "nonsense"}).status == 400
    assert client.call("POST", "/_sandbox/faults", {"kind": "status", "nonsense": 1}).status == 400


def test_rules_run_in_process_without_a_socket():
    """A simulation calls the same rules and is told what the carrier would have to do."""
    app = App(Dataverse())
    app.frame.faults.add(Fault("reset_after"))
    answer = app.handle(Request("GET", f"{API}/WhoAmI"))
    assert answer.abort
    assert app.handle(Request("GET", f"{API}/WhoAmI")).status == 401


# --- the control endpoint -------------------------------------------------------------------------------


def test_fill_is_believable_repeatable_and_awkward_enough(client):
    assert control(client, "POST", "fill", {"table": "account", "count": 400, "seed": 4}) == {
        "table": "account",
        "rows": 400,
    }
    control(client, "POST", "fill", {"table": "contact", "count": 50, "seed": 4})
    rows = control(client, "GET", "rows/account?limit=400")
    names = [r["values"]["name"] for r in rows]
    text = "".join(names)
    assert any(c in text for c in "áéíóúñ")
    assert {"&", "'", "\U0001f9c9"} <= set(text)
    assert any("\u0590" <= c <= "\u06ff" for c in text)  # right to left
    assert max(map(len, names)) <= 160
    linked = client.call("GET", f"{API}/contacts/$count").body
    assert linked == b"50"
    assert (
        control(client, "POST", "fill", {"table": "account", "count": 400, "seed": 4})["rows"] == 400
    )  # the same rows
    other = Dataverse()
    other.fill("account", 400, 4)
    assert {r["id"] for r in rows} == set(other.frame.store.table("account").rows)
    assert client.call("POST", "/_sandbox/fill", {"table": "nonsense"}).status == 404


def test_filled_rows_pass_the_checks_of_the_api(client):
    control(client, "POST", "fill", {"table": "account", "count": 60, "seed": 9})
    control(client, "POST", "fill", {"table": "contact", "count": 60, "seed": 9})
    for set_name, key in (("accounts", "accountid"), ("contacts", "contactid")):
        for row in client.call("GET", f"{API}/{set_name}").json()["value"]:
            writable = {
                k: v
                for k, v in row.items()
                if not k.startswith(("_", "@")) and v is not None and k not in READ_ONLY
            }
            again = client.call("PATCH", f"{API}/{set_name}({row[key]})", writable)
            assert again.status == 204, again.body


READ_ONLY = {
    "createdon", "modifiedon", "versionnumber", "fullname", "merged", "exchangerate", "revenue_base", "creditlimit_base",
    "address1_composite", "overriddencreatedon",
}  # fmt: skip


def test_a_person_at_the_vendor_writes_without_token_but_by_the_vendor_s_rules(client):
    made = control(client, "POST", "rows/account", {"values": {"name": "By hand", "revenue": 10.25}})
    me = client.call("GET", f"{API}/WhoAmI").json()["UserId"]
    row = client.call("GET", f"{API}/accounts({made['id']})?$select=name,_modifiedby_value,revenue").json()
    assert row["_modifiedby_value"] != me
    changed = control(client, "PATCH", f"rows/account/{made['id']}", {"values": {"telephone1": "1"}})
    assert changed["version"] > made["version"]
    assert changed["values"]["telephone1"] == "1"
    wrong = client.call("PATCH", f"/_sandbox/rows/account/{made['id']}", {"values": {"nonsense": 1}})
    assert (wrong.status, wrong.code) == (400, "0x80048d19")
    other = control(client, "POST", "rows/account", {"values": {"name": "Master"}})
    control(client, "POST", f"rows/account/{made['id']}/merge", {"into": other["id"]})
    merged = control(client, "GET", f"rows/account/{made['id']}")["values"]
    assert (merged["merged"], merged["statecode"], merged["_masterid_value"]) == (True, 1, other["id"])
    control(client, "DELETE", f"rows/account/{made['id']}")
    assert client.call("GET", f"/_sandbox/rows/account/{made['id']}").status == 404
    assert client.call("DELETE", f"/_sandbox/rows/account/{made['id']}").status == 404


def test_deleting_can_be_late_too_and_a_time_can_be_given(client):
    made = control(client, "POST", "rows/account", {"values": {"name": "x"}, "at": "2026-02-03T04:05:06Z"})
    assert made["values"]["modifiedon"] == made["values"]["createdon"] == "2026-02-03T04:05:06Z"
    control(client, "POST", "options", {"lag": 30})
    control(client, "DELETE", f"rows/account/{made['id']}")
    assert client.call("GET", f"{API}/accounts({made['id']})").status == 200
    control(client, "POST", "clock", {"advance": 31})
    assert client.call("GET", f"{API}/accounts({made['id']})").status == 404


def test_the_clock_is_set_frozen_advanced_and_real(client):
    frozen = control(client, "POST", "clock", {"set": "2030-01-01T00:00:00Z", "frozen": True})
    assert frozen == {"now": "2030-01-01T00:00:00+00:00", "frozen": True}
    assert control(client, "POST", "clock", {"advance": 1.5})["now"] == "2030-01-01T00:00:01.500000+00:00"
    assert control(client, "POST", "clock", {"real": True})["frozen"] is False
    assert control(client, "GET", "clock")["now"] < "2030"
    assert client.call("POST", "/_sandbox/clock", {"set": "soon"}).status == 400


def test_the_log_of_requests_tells_what_was_sent_but_no_secret(client):
    ask(client)
    client.call("POST", f"{API}/accounts?tag=hub", {"name": "Logged"}, {"x-ms-client-request-id": "abc"})
    token, post = control(client, "GET", "requests")
    assert "sandbox-secret" not in json.dumps([token, post])
    assert "Bearer" not in json.dumps([token, post])
    assert (post["method"], post["path"], post["query"], post["status"]) == (
        "POST",
        f"{API}/accounts",
        "tag=hub",
        204,
    )
    assert json.loads(post["body"]) == {"name": "Logged"}
    assert post["headers"]["x-ms-client-request-id"] == "abc"
    assert control(client, "GET", f"requests?since={token['seq']}") == [post]
    control(client, "DELETE", "requests")
    assert control(client, "GET", "requests") == []


def test_stats_options_health_and_reset(client):
    client.call("GET", f"{API}/WhoAmI")
    client.call("GET", f"{API}/nosuch")
    stats = control(client, "GET", "stats")
    assert stats["counts"] == {"GET 200": 1, "GET 404": 1}
    assert set(stats) == {"counts", "rows", "deleted", "version", "now"}
    assert control(client, "GET", "health") == {"ok": True, "system": "dynamics365"}
    before = control(client, "GET", "options")["tracking"]
    assert before["account"] is before["contact"] is True
    assert control(client, "POST", "options", {"tracking": {"contact": False}})["tracking"] == {
        **before,
        "contact": False,
    }
    assert client.call("POST", "/_sandbox/options", {"nonsense": 1}).status == 400
    control(client, "POST", "reset")
    assert control(client, "GET", "options")["tracking"] == before
    assert client.call("GET", "/_sandbox/nonsense").status == 404
    assert client.call("POST", "/_sandbox/fill", b"{").status == 400
    assert client.call("POST", "/_sandbox/fill", b"[]").status == 400


def test_the_service_document_lists_the_sets(client):
    found = client.call("GET", f"{API}/").json()["value"]
    assert {"accounts", "contacts", "systemusers"} <= {s["name"] for s in found}
