"""What is kept of a connection and what is counted: token, clear-cache, stats and cache-stats through the whole hub."""

import re
from datetime import UTC, datetime, timedelta

import pytest

pytestmark = [pytest.mark.xdist_group("app-api"), pytest.mark.usefixtures("demo")]

SYSTEM = "/api/crm/system"


def tokens_asked(sandbox, seen):
    return sum(each["path"].endswith("/oauth2/v2.0/token") for each in sandbox.requests_since(seen))


# --- token ---------------------------------------------------------------------------------------------------------


def test_a_token_is_told_by_expiry_audience_and_fingerprint(api, connect, sandbox):
    connect("told")
    seen = sandbox.last_request()
    told = api.ok("GET", f"{SYSTEM}/token?connection=told")
    assert told.keys() == {
        "connection", "audience", "expires_at", "expires_in_seconds", "renewed_from", "fingerprint",
    }  # fmt: skip
    assert (told["connection"], told["audience"]) == ("told", sandbox.url)
    assert re.fullmatch(r"[0-9a-f]{16}", told["fingerprint"])
    expires = datetime.fromisoformat(told["expires_at"])
    assert abs(expires - datetime.now(UTC) - timedelta(seconds=3600)) < timedelta(seconds=30)
    assert expires - datetime.fromisoformat(told["renewed_from"]) == timedelta(seconds=300)
    assert 3500 < told["expires_in_seconds"] <= 3600
    # It is the one that calls send: the next call asks for none, and it stays the same.
    api.ok("GET", "/api/crm/accounts?connection=told&top=1")
    assert api.ok("GET", f"{SYSTEM}/token?connection=told")["fingerprint"] == told["fingerprint"]
    assert tokens_asked(sandbox, seen) == 1


def test_a_token_that_is_refused_is_the_vendor_s_error(api, connect):
    connect("refused-token", secrets={"client_secret": "a-wrong~secret+of/tests"})
    answer = api("GET", f"{SYSTEM}/token?connection=refused-token")
    assert (answer.status_code, answer.json()["code"]) == (502, "AuthFailed")


# --- clear-cache -----------------------------------------------------------------------------------------------------


def test_a_cleared_cache_asks_for_a_new_token_at_once(api, connect, sandbox):
    connect("cleared")
    first = api.ok("GET", f"{SYSTEM}/token?connection=cleared")["fingerprint"]
    for generation in (1, 2):
        seen = sandbox.last_request()
        cleared = api.ok("POST", f"{SYSTEM}/clear-cache?connection=cleared")
        assert cleared == {
            "status": "ok", "connection": "cleared", "generation": generation, "everywhere_within_seconds": 60,
        }  # fmt: skip
        second = api.ok("GET", f"{SYSTEM}/token?connection=cleared")["fingerprint"]
        assert second != first
        assert tokens_asked(sandbox, seen) == 1
        first = second
    # A change by a person keeps the generation.
    api.ok("PATCH", "/api/integrations/cleared", {"schedule": {}})
    assert api.ok("GET", f"{SYSTEM}/cache-stats?connection=cleared")["generation"] == 2


def test_a_connection_that_can_t_be_opened_can_still_be_cleared(api, connect):
    connect("broken", secrets={"client_secret": "a-wrong~secret+of/tests"})
    assert api.ok("POST", f"{SYSTEM}/clear-cache?connection=broken")["status"] == "ok"


def test_the_other_connections_keep_what_they_have(api, connect):
    connect("one")
    connect("other")
    kept = api.ok("GET", f"{SYSTEM}/token?connection=other")["fingerprint"]
    api.ok("POST", f"{SYSTEM}/clear-cache?connection=one")
    assert api.ok("GET", f"{SYSTEM}/token?connection=other")["fingerprint"] == kept


# --- stats and cache-stats -------------------------------------------------------------------------------------------


@pytest.fixture
def owned(account):
    """Where an account is that has an owner and a currency, whatever other tests leave in the sandbox."""
    return f"/api/crm/accounts/{account(name='Owned', revenue=12.5)}"


def test_stats_count_what_a_connection_calls(api, connect, faults, owned):
    connect("counted")
    before = api.ok("GET", f"{SYSTEM}/stats?connection=counted")
    assert before["remote"] == {"calls": 0, "failures": 0, "rate_limits": 0, "average_milliseconds": None}
    for _ in range(3):
        api.ok("GET", f"{owned}?connection=counted")
    faults("status", status=500, path="*/accounts*", count=3)
    faults("throttle", retry_after=17, path="*/accounts*")
    for _ in range(2):
        api("GET", "/api/crm/accounts?connection=counted")
    after = api.ok("GET", f"{SYSTEM}/stats?connection=counted")
    # Two for the token, three reads with an owner and a currency, three tries at a server that fails, one refused for its rate.
    remote = after["remote"]
    assert (remote["calls"], remote["failures"], remote["rate_limits"]) == (11, 4, 1)
    assert remote["average_milliseconds"] > 0
    assert after["tokens"] == {"asked": 1}
    # Both are of the whole hub; the call that asks is not in its own answer.
    assert after["hub"]["requests"] - before["hub"]["requests"] == 6
    assert after["hub"]["storage_calls"] > before["hub"]["storage_calls"]
    assert after["hub"].keys() == {"requests", "storage_calls", "vault_calls", "webhooks_refused"}
    assert after["webhooks"] == {"accepted": 0, "refused": 0, "repeated": 0}
    assert (after["connection"], after["minutes"]) == ("counted", 60)
    began, ended = (datetime.fromisoformat(after[name]) for name in ("from", "to"))
    assert timedelta(minutes=59) <= ended - began < timedelta(minutes=60)


def test_cache_stats_count_what_was_at_hand(api, connect, owned):
    connect("cached")
    for _ in range(4):
        api.ok("GET", f"{owned}?connection=cached")
    found = api.ok("GET", f"{SYSTEM}/cache-stats?connection=cached&minutes=5")
    assert found["tokens"] == {"hits": 5, "misses": 1, "hit_rate": 0.833, "from_memory": 5, "from_store": 0}
    assert found["connections"] == {"hits": 3, "misses": 1, "hit_rate": 0.75}
    assert found["secrets"] == {"hits": 0, "misses": 0, "hit_rate": None}  # none are kept without a vault
    assert (found["generation"], found["minutes"]) == (0, 5)


def test_figures_of_every_instance_are_added_up(api, connect, start_hub):
    """None of them lives in a process: what another instance has done shows here, and still when it is gone."""
    connect("shared")
    api.ok("GET", "/api/crm/accounts?connection=shared&top=1")
    other = start_hub()
    other.ok("GET", "/api/crm/accounts?connection=shared&top=1")
    assert other.ok("GET", f"{SYSTEM}/stats?connection=shared")["remote"]["calls"] >= 1  # and writes its own
    found = api.ok("GET", f"{SYSTEM}/cache-stats?connection=shared")
    # The other instance took the token from the store.
    assert (found["tokens"]["misses"], found["tokens"]["from_store"]) == (1, 1)
    assert found["connections"]["misses"] == 2


def test_without_a_name_the_figures_of_all_connections_are_one(api, connect):
    connect("summand")
    api.ok("GET", "/api/crm/accounts?connection=summand&top=1")
    one = api.ok("GET", f"{SYSTEM}/stats?connection=summand&hours=24")
    every = api.ok("GET", f"{SYSTEM}/stats?hours=24")
    assert every["connection"] is None
    assert "generation" not in every
    assert every["remote"]["calls"] >= one["remote"]["calls"] > 0
    assert every["minutes"] == one["minutes"] == 1440


def test_what_is_left_of_the_calls_that_a_system_allows_is_shown(api, connect):
    connect("budgeted")
    (burst,) = api.ok("GET", "/api/integrations/budgeted")["budget"]
    assert burst == {
        "window": "burst", "calls": 6000, "seconds": 300, "spent": 0, "left": 6000, "runs_out_at": None,
    }  # fmt: skip
    for _ in range(151):  # up to 150 are light
        api.ok("GET", "/api/crm/accounts?connection=budgeted&top=1")
    (burst,) = api.ok("GET", "/api/integrations/budgeted")["budget"]
    assert (burst["spent"], burst["left"]) in {(300, 5700), (0, 6000)}  # a window may have ended


@pytest.mark.parametrize("name", ["stats", "cache-stats"])
@pytest.mark.parametrize(
    ("query", "field", "detail"),
    [
        ("minutes=0", "minutes", "minutes: expected a whole number from 1 to 1440."),
        ("minutes=1441", "minutes", "minutes: expected a whole number from 1 to 1440."),
        ("hours=25", "hours", "hours: expected a whole number from 1 to 24."),
        ("hours=1&minutes=5", "hours", "hours: give minutes or hours, not both."),
        ("days=1", "days", "days: is no parameter of this route; known are connection, minutes, hours."),
    ],
)
def test_a_period_that_is_none_is_400(api, problem, name, query, field, detail):
    problem(api("GET", f"{SYSTEM}/{name}?{query}"), 400, "BadRequest", detail, field)


@pytest.mark.parametrize("name", ["diagnose", "token", "clear-cache", "stats", "cache-stats"])
def test_a_connection_that_is_not_there_is_404(api, problem, name):
    method = "POST" if name == "clear-cache" else "GET"
    answer = api(method, f"{SYSTEM}/{name}?connection=nobody")
    problem(answer, 404, "NotFound", "There is no connection 'nobody'; GET /api/integrations lists them.")
