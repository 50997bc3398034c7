"""Webhooks come in: what gets in, what does not, and what becomes of it in the store."""

import gzip
import json
import time
import uuid

import pytest

from tests.app.conftest import SECRET, settings_of, wait_until

pytestmark = pytest.mark.xdist_group("app-api")

KEY = "the~key/of+webhooks-0123456789"
REFUSED = "The webhook could not be verified."


def post_of(table, rid, message="Update", **more):
    """What a step of Dataverse posts (a RemoteExecutionContext), cut short."""
    return {
        "BusinessUnitId": str(uuid.uuid4()), "CorrelationId": str(uuid.uuid4()), "Depth": 1, "MessageName": message,
        "Mode": 1, "Stage": 40, "OperationCreatedOn": "/Date(1767607872000+0000)/", "OperationId": str(uuid.uuid4()),
        "PrimaryEntityName": table, "PrimaryEntityId": rid, "InputParameters": [], "PreEntityImages": [], **more,
    }  # fmt: skip


@pytest.fixture
def hooked(api, connect):
    """A connection that was pulled once and takes webhooks: (its slug, the address)."""
    slug = "hooked-" + uuid.uuid4().hex[:8]
    connect(slug, secrets={"client_secret": SECRET, "webhook_key": KEY})
    api.run(slug)
    (address,) = api.ok("POST", f"/api/integrations/{slug}/webhook")["value"]
    assert address["url"].startswith("https://hub.example.test/api/webhooks/")
    assert address["until"] is None
    return slug, address["url"]


def send(api, url, body, key=KEY, **more):
    headers = {"x-hub-token": key, **more.pop("headers", {})} if key is not None else more.pop("headers", {})
    data = body if isinstance(body, bytes) else json.dumps(body)
    return api("POST", url, data=data, key=None, headers=headers, **more)


def events(api, slug):
    return api.ok("GET", f"/api/events?connection={slug}&top=200")["value"]


def event(api, slug, answer):
    """The event of a webhook that was taken, once its work is done."""
    assert answer.status_code == 202, answer.text
    path = f"/api/events/{answer.json()['id']}?connection={slug}"

    def done():
        found = api("GET", path)
        return found.status_code == 200 and found.json()["state"] != "open" and found.json()

    return wait_until(done)


# --- what becomes of it ------------------------------------------------------------------------------------------


def test_a_change_is_in_the_store_soon_after_its_webhook(api, hooked, account, sandbox):
    slug, url = hooked
    rid = account(name="Comes by webhook")
    assert rid not in api.stored(slug)
    found = event(api, slug, send(api, url, post_of("account", rid, "Create")))
    assert (found["state"], found["outcome"]) == ("done", "read again")
    record = wait_until(lambda: api.stored(slug).get(rid))
    assert (record["name"], record["version"]) == ("Comes by webhook", 1)

    sandbox.update(rid, name="Changed")
    send(api, url, post_of("account", rid.upper()))
    record = wait_until(lambda: (now := api.stored(slug)[rid])["version"] == 2 and now)
    assert record["name"] == "Changed"

    sandbox.delete(rid)
    send(api, url, post_of("account", rid, "Delete"))
    assert wait_until(lambda: api.stored(slug)[rid].get("deleted_at"))


def test_nothing_else_is_believed_than_what_the_system_says_when_asked(api, hooked, account):
    """A body that lies about a record changes nothing but when it is read."""
    slug, url = hooked
    rid = account(name="As it is")
    lie = [
        {
            "key": "Target",
            "value": {"LogicalName": "account", "Attributes": [{"key": "name", "value": "Lie"}]},
        }
    ]
    event(api, slug, send(api, url, post_of("account", rid, InputParameters=lie)))
    assert wait_until(lambda: api.stored(slug).get(rid))["name"] == "As it is"
    nobody = str(uuid.uuid4())
    event(api, slug, send(api, url, post_of("account", nobody, "Create", InputParameters=lie)))
    rid = account(name="After it")
    event(api, slug, send(api, url, post_of("account", rid, "Create")))
    wait_until(lambda: rid in api.stored(slug))
    assert nobody not in api.stored(slug)


def test_a_repeat_of_what_is_done_is_dropped(api, hooked, account, sandbox):
    slug, url = hooked
    rid = account(name="Once")
    post = post_of("account", rid, "Create")
    event(api, slug, send(api, url, post))
    wait_until(lambda: rid in api.stored(slug))
    again = [event(api, slug, send(api, url, post)) for _ in range(3)]
    assert [each["outcome"] for each in again] == ["a repeat"] * 3
    # Another operation on the same record is none.
    assert event(api, slug, send(api, url, post_of("account", rid)))["outcome"] == "read again"
    # Without an id of the operation nobody can tell.
    bare = {"PrimaryEntityName": "account", "PrimaryEntityId": rid}
    assert [event(api, slug, send(api, url, bare))["outcome"] for _ in range(2)] == ["read again"] * 2


@pytest.mark.parametrize(
    ("body", "outcome"),
    [
        ({"PrimaryEntityName": "systemuser", "PrimaryEntityId": str(uuid.uuid4())}, "about nothing here"),
        ({"PrimaryEntityName": "account", "PrimaryEntityId": "no id"}, "not understood"),
        ([1, 2], "not understood"),
        (b"{", "not understood"),
        (b"\xff\xfe", "not understood"),
        (b"[" * 20_000, "not understood"),
        (b"", "not understood"),
    ],
)
def test_what_is_proven_is_kept_whatever_it_says(api, hooked, body, outcome):
    slug, url = hooked
    found = event(api, slug, send(api, url, body))
    assert (found["state"], found["outcome"]) == ("done", outcome)
    sent = body if isinstance(body, bytes) else json.dumps(body).encode()
    assert found["body"] == sent.decode("utf-8", "replace")


def test_a_long_body_is_kept_whole(api, hooked, account):
    slug, url = hooked
    rid = account(name="Long one")
    post = post_of("account", rid, "Create", Padding="ñ" * 100_000)
    answer = send(api, url, post, headers={"x-ms-dynamics-msg-size-exceeded": "true"})
    found = event(api, slug, answer)
    assert json.loads(found["body"]) == post
    assert found["headers"]["x-ms-dynamics-msg-size-exceeded"] == "true"
    wait_until(lambda: rid in api.stored(slug))


def test_an_entity_that_is_not_pulled_is_not_read(api, sandbox, hooked, account):
    slug, url = hooked
    email = f"{uuid.uuid4().hex}@example.com"
    values = {"lastname": "Not pulled", "emailaddress1": email}
    contact = sandbox.control("POST", "rows/contact", {"values": values})["id"]
    found = event(api, slug, send(api, url, post_of("contact", contact)))
    assert found["state"] == "done"
    rid = account(name="What is pulled")
    event(api, slug, send(api, url, post_of("account", rid)))
    wait_until(lambda: rid in api.stored(slug))
    assert api.ok("GET", f"/api/records/contacts?filter=email eq '{email}'")["value"] == []
    sandbox.control("DELETE", f"rows/contact/{contact}")


def test_what_comes_while_a_connection_is_paused_is_read_later(api, hooked, account, sandbox):
    slug, url = hooked
    api.ok("POST", f"/api/integrations/{slug}/pause")
    rid = account(name="Waits")
    before = sandbox.last_request()
    event(api, slug, send(api, url, post_of("account", rid, "Create")))
    assert rid not in api.stored(slug)
    assert not [each for each in sandbox.requests_since(before) if rid in str(each)]
    api.ok("POST", f"/api/integrations/{slug}/resume")
    wait_until(lambda: rid in api.stored(slug))


def test_no_credential_is_kept(api, hooked):
    slug, url = hooked
    headers = {
        "Authorization": "Basic " + KEY, "Cookie": KEY, "X-API-KEY": KEY, "traceparent": "00-" + "a" * 32 + "-" + "b" * 16 + "-01",
        "x-ms-dynamics-entity-name": "account", "User-Agent": "Dynamics/9", "X-Other": KEY,
    }  # fmt: skip
    found = event(api, slug, send(api, f"{url}?code={KEY}&x={KEY}", {}, headers=headers))
    assert KEY not in json.dumps(found)
    assert found["headers"] == {
        "content-type": "application/json", "user-agent": "Dynamics/9", "x-ms-dynamics-entity-name": "account",
    }  # fmt: skip
    assert len(found["proof"]) == 8


def test_the_status_says_what_webhooks_told_of_and_what_they_did_not(api, hooked, account, connect):
    slug, url = hooked

    def told(of):
        (entity,) = api.ok("GET", f"/api/integrations/status?connection={of}")["value"]
        return entity["webhooks"]

    first = told(slug)
    assert first | {"since": ""} == {
        "since": "", "last": None, "read": 0, "missed": 0, "missed_at": None, "state": "quiet",
    }  # fmt: skip
    rid = account(name="Told of")
    event(api, slug, send(api, url, post_of("account", rid, "Create")))
    after = wait_until(lambda: (now := told(slug))["read"] and now)
    assert (after["read"], after["missed"], after["state"]) == (1, 0, "works")
    assert after["last"] > first["since"] == after["since"]
    other = "no-hook-" + uuid.uuid4().hex[:8]
    connect(other)
    assert told(other) is None


# --- a Dataverse that sends them itself --------------------------------------------------------------------------


@pytest.fixture
def telling(api, hooked, sandbox):
    """The sandbox tells the connection of every account, as faults say; gives its slug."""
    slug, url = hooked
    path = url.removeprefix("https://hub.example.test")

    def tell(authtype=5, **faults):
        value = {"X-Hub-Token": KEY} if authtype == 5 else KEY
        hook = {"url": api.url + path, "authtype": authtype, "authvalue": value, "tables": ["account"]}
        sandbox.control(
            "POST",
            "options",
            {"webhooks": {slug: hook}, "webhook_faults": {"times": 1, "lost": 0.0, "delay": 0.0, **faults}},
        )
        return slug

    yield tell
    sandbox.control("POST", "options", {"webhooks": {slug: {"tables": []}}})


@pytest.mark.parametrize("authtype", [4, 5])
def test_what_a_person_does_in_dataverse_is_in_the_store_without_a_pull(
    api, telling, account, sandbox, authtype
):
    slug = telling(authtype)
    rid = account(name="Told")
    assert wait_until(lambda: api.stored(slug).get(rid))["name"] == "Told"
    sandbox.update(rid, name="Told again", telephone1="1")
    wait_until(lambda: api.stored(slug)[rid]["name"] == "Told again")
    sandbox.delete(rid)
    wait_until(lambda: api.stored(slug)[rid].get("deleted_at"))


def test_repeats_disorder_and_delays_end_as_the_system_is(api, telling, account, sandbox):
    slug = telling(times=3, delay=1.5)
    rids = [account(name=f"Row {number}") for number in range(6)]
    for turn in range(5):
        for rid in rids:
            sandbox.update(rid, name=f"{rid[:4]} {turn}")
    sandbox.delete(rids[0])

    def same():
        stored = api.stored(slug)
        left = {rid: stored[rid]["name"] for rid in rids[1:] if rid in stored}
        gone = rids[0] not in stored or stored[rids[0]].get("deleted_at")  # it may never have been read
        return gone and left == {rid: f"{rid[:4]} 4" for rid in rids[1:]}

    wait_until(same)
    wait_until(
        lambda: len(found := events(api, slug)) >= 111 and all(each["state"] == "done" for each in found)
    )
    time.sleep(2.5)  # a read that was put off
    assert same()


def test_a_webhook_that_is_lost_is_made_good_by_the_next_pull(api, telling, account):
    slug = telling(lost=1.0)
    rid = account(name="Nobody told")
    assert api.run(slug)["counts"]["created"] == 1
    assert api.stored(slug)[rid]["name"] == "Nobody told"
    assert events(api, slug) == []


# --- an Odoo that sends them itself ------------------------------------------------------------------------------


@pytest.fixture
def odoo(api, start_sandbox):
    """An Odoo, the slug of a connection to it, and an automation rule there that posts to the hub."""
    server = start_sandbox(system="odoo")
    token, slug = "odoo~token+0123456789", "odoo-" + uuid.uuid4().hex[:8]
    facts = server.facts
    plain = facts["control"].partition("/_sandbox")[0]
    body = {
        "slug": slug, "connector": "odoo", "schedule": {}, "entities": {"contact": "pull"},
        "settings": {"base_url": plain, "database": facts["database"]},
        "secrets": {"api_key": facts["api_key"], "webhook_token": token},
    }  # fmt: skip
    api.ok("POST", "/api/integrations", body)
    (address,) = api.ok("POST", f"/api/integrations/{slug}/webhook")["value"]
    api.run(slug)

    def call(model, method, **arguments):
        answer = server.session.post(
            f"{plain}/json/2/{model}/{method}", json=arguments, timeout=30,
            headers={"Authorization": f"bearer {facts['api_key']}"},
        )  # fmt: skip
        assert answer.ok, answer.text
        return answer.json()

    path = address["url"].removeprefix("https://hub.example.test")
    partner = call("ir.model", "search", domain=[["model", "=", "res.partner"]])[0]
    wanted = [["model", "=", "res.partner"], ["name", "in", ["name", "is_company", "write_date"]]]
    action = {
        "name": "Tell the hub", "model_id": partner, "state": "webhook",
        "webhook_url": f"{api.url}{path}?token={token.replace('+', '%2B')}",
        "webhook_field_ids": [[6, 0, call("ir.model.fields", "search", domain=wanted)]],
    }  # fmt: skip
    for trigger in ("on_create_or_write", "on_unlink"):
        actions = [[6, 0, call("ir.actions.server", "create", vals_list=[action])]]
        rule = {"name": trigger, "model_id": partner, "trigger": trigger, "action_server_ids": actions}
        call("base.automation", "create", vals_list=[rule])
    yield slug, call
    api("DELETE", f"/api/integrations/{slug}?confirm=true")


def contacts(api, slug):
    """The stored contacts of a connection, by remote id."""
    return {
        link["id"]: record
        for page in api.pages("/api/records/contacts?top=500")
        for record in page
        for link in record["links"]
        if link["connection"] == slug
    }


def test_what_a_person_does_in_odoo_is_in_the_store_without_a_pull(api, odoo):
    slug, call = odoo
    (key,) = call("res.partner", "create", vals_list=[{"name": "Ada Lovelace", "email": "ada@x.example"}])
    record = wait_until(lambda: contacts(api, slug).get(str(key)))
    assert record["email"] == "ada@x.example"
    call("res.partner", "write", ids=[key], vals={"email": "countess@x.example"})
    assert wait_until(lambda: contacts(api, slug)[str(key)]["email"] == "countess@x.example")
    # Odoo posts the create 13 times, the write twice.
    told = wait_until(lambda: len(found := events(api, slug)) == 15 and found)
    wait_until(lambda: all(each["state"] == "done" for each in events(api, slug)))
    outcomes = [each["outcome"] for each in events(api, slug)]
    assert set(outcomes) == {"read again", "a repeat"}
    assert len({each["proof"] for each in told}) == 1
    call("res.partner", "unlink", ids=[key])
    assert wait_until(lambda: contacts(api, slug)[str(key)].get("deleted_at"))


# --- what does not get in ----------------------------------------------------------------------------------------


def test_an_unknown_address_answers_exactly_as_a_wrong_key(api, hooked, connect, problem):
    slug, url = hooked
    connect("no-key-" + uuid.uuid4().hex[:8])
    base, _, hook = url.rpartition("/")
    before = len(events(api, slug))

    def told(address, key, method="POST"):
        answer = api(method, address, data=b"{}", key=None, headers={"x-hub-token": key} if key else {})
        problem(answer, 401, "SignatureInvalid", REFUSED)
        return sorted(name for name in answer.headers)

    wrong = told(url, "wrong")
    for address, key in (
        (url, ""),
        (url, KEY + "x"),
        (url, f"{KEY},{KEY}"),
        (url, f"{KEY} "[:-2]),
        (f"{url}?code=wrong", ""),
        (f"{url}?code={KEY[:-1]}", ""),
        (f"{url}?code={KEY.replace('+', '%2B')}&code={KEY.replace('+', '%2B')}", ""),
        (f"{base}/{'A' * 22}", KEY),
        (f"{base}/{hook[:-1]}", KEY),
        (f"{base}/{hook.swapcase()}", KEY),
        (f"{base}/x", KEY),
        (f"{base}/%20{hook}", KEY),
        (f"{base}/{'x' * 5000}", KEY),
    ):
        assert told(address, key) == wrong, address
    for method in ("GET", "OPTIONS"):
        assert told(url, KEY, method) == told(f"{base}/{'A' * 22}", KEY, method) == wrong
    assert len(events(api, slug)) == before


def test_a_connection_without_a_key_takes_nothing(api, connect, problem):
    slug = "keyless-" + uuid.uuid4().hex[:8]
    connect(slug)
    (address,) = api.ok("POST", f"/api/integrations/{slug}/webhook")["value"]
    for key in ("", None, "x"):
        problem(send(api, address["url"], {}, key=key), 401, "SignatureInvalid", REFUSED)


@pytest.mark.parametrize("known", [True, False])
def test_what_is_no_webhook_is_refused_before_anything_is_known_of_the_sender(api, hooked, problem, known):
    _, url = hooked
    if not known:
        url = url.rpartition("/")[0] + "/" + "A" * 22
    compressed = send(api, url, gzip.compress(b"{}"), headers={"Content-Encoding": "gzip"})
    problem(compressed, 415, "UnsupportedMedia", "A webhook comes uncompressed, without Content-Encoding.")
    for kind in ("text/xmlx", "application/x-www-form-urlencoded", "text/plain", "", "application/jsonp"):
        problem(
            send(api, url, {}, headers={"Content-Type": kind}), 415, "UnsupportedMedia",
            "A webhook is JSON or XML: application/json, application/xml, or a type that ends in +json or +xml.",
        )  # fmt: skip
    problem(send(api, url, b" " * (1024 * 1024 + 1)), 413, "TooLarge", "A webhook has at most 1048576 bytes.")


@pytest.mark.parametrize(
    "kind", ["application/json; charset=utf-8", "APPLICATION/JSON", "application/cloudevents+json"]
)
def test_json_has_several_names(api, hooked, kind):
    slug, url = hooked
    event(api, slug, send(api, url, {}, headers={"Content-Type": kind}))


def test_other_methods_are_refused_by_name(api, hooked):
    _, url = hooked
    for method in ("PUT", "PATCH", "DELETE"):
        answer = api(method, url, key=None)
        assert (answer.status_code, answer.headers["Allow"]) == (405, "GET, HEAD, OPTIONS, POST")


def tried(hub, url, source, key):
    """The status of a webhook from a source; the last address of the header is what the front end saw."""
    headers = {"x-hub-token": key, "x-forwarded-for": source}
    answer = hub("POST", url, data=b"{}", key=None, headers=headers)
    if answer.status_code == 429:
        assert answer.json()["code"] == "TooManyRequests"
        assert 1 <= int(answer.headers["Retry-After"]) <= 60
    return answer.status_code


def test_too_many_wrong_ones_of_a_source_count_first(hooked, start_hub):
    """One a minute, of each: limits are an instance's own."""
    _, url = hooked
    hub = start_hub(WEBHOOKS_REFUSED="1", WEBHOOKS_PER_MINUTE="1")
    assert [tried(hub, url, "1.1.1.1:50", "wrong") for _ in range(3)] == [401, 429, 429]
    assert tried(hub, url, "2.2.2.2, 1.1.1.1:51", KEY) == 429  # also a right one: nobody looks at it
    assert tried(hub, url, "3.3.3.3", "wrong") == 401  # and did not use up what the system itself may send
    assert tried(hub, url, "1.1.1.1, 2.2.2.2", KEY) == 202
    assert [tried(hub, url, source, KEY) for source in ("4.4.4.4", "5.5.5.5")] == [429, 429]


def test_too_many_of_a_source_are_refused_whatever_they_are(hooked, start_hub):
    _, url = hooked
    hub = start_hub(WEBHOOKS_PER_SOURCE="1")
    unknown = url.rpartition("/")[0] + "/" + "A" * 22
    assert [tried(hub, each, "1.1.1.1", KEY) for each in (url, url, unknown)] == [202, 429, 429]
    assert [tried(hub, each, "[2001:db8::1]:443", KEY) for each in (unknown, url)] == [401, 429]
    assert tried(hub, url, "2.2.2.2", KEY) == 202


def test_what_came_in_and_what_did_not_is_counted(api, hooked, account):
    slug, url = hooked
    stats = f"/api/crm/system/stats?connection={slug}&minutes=60"
    rid = account(name="Counted")
    post = post_of("account", rid)
    for _ in range(2):
        event(api, slug, send(api, url, post))
    for _ in range(3):
        send(api, url, post, key="wrong")
    # Another instance may have worked on it, which tells its figures by its next tick.
    found = wait_until(lambda: (now := api.ok("GET", stats))["webhooks"]["repeated"] and now, seconds=120)
    assert found["webhooks"] == {"accepted": 2, "refused": 3, "repeated": 1}


def test_what_comes_to_no_address_is_counted_as_the_hubs_own(api, hooked):
    """At least: what others sent to no address is counted when their requests end."""
    _, url = hooked

    def refused():
        return api.ok("GET", "/api/crm/system/stats?minutes=60")["hub"]["webhooks_refused"]

    before = refused()
    send(api, url.rpartition("/")[0] + "/" + "A" * 22, {}, key="wrong")
    wait_until(lambda: refused() > before)


# --- addresses and keys ------------------------------------------------------------------------------------------


def test_an_address_is_changed_without_a_gap(api, hooked, problem):
    slug, old = hooked
    new, former = api.ok("POST", f"/api/integrations/{slug}/webhook")["value"]
    assert (former["url"], new["until"]) == (old, None)
    assert former["until"] is not None
    assert new["url"] != old
    assert api.ok("GET", f"/api/integrations/{slug}/webhook")["value"] == [new, former]
    for url in (old, new["url"]):
        event(api, slug, send(api, url, {}))
    (last,) = api.ok("POST", f"/api/integrations/{slug}/webhook?at_once=true")["value"]
    event(api, slug, send(api, last["url"], {}))
    for url in (old, new["url"]):
        problem(send(api, url, {}), 401, "SignatureInvalid", REFUSED)
    assert api("DELETE", f"/api/integrations/{slug}/webhook").status_code == 204
    assert api.ok("GET", f"/api/integrations/{slug}/webhook")["value"] == []
    problem(send(api, last["url"], {}), 401, "SignatureInvalid", REFUSED)


def test_a_new_address_is_known_to_every_instance_at_once(api, hooked, start_hub):
    slug, url = hooked
    other = start_hub()
    event(api, slug, send(other, url, {}))  # it has a copy of the connection now
    new = api.ok("POST", f"/api/integrations/{slug}/webhook")["value"][0]
    event(api, slug, send(other, new["url"], {}))


def test_a_key_is_changed_without_a_gap(api, hooked, problem):
    slug, url = hooked
    path = f"/api/integrations/{slug}"
    first = event(api, slug, send(api, url, {}))["proof"]
    api.ok("PATCH", path, {"secrets": {"webhook_key": f"a-new-key-000 {KEY}"}})
    assert event(api, slug, send(api, url, {}))["proof"] == first
    assert event(api, slug, send(api, url, {}, key="a-new-key-000"))["proof"] != first
    api.ok("PATCH", path, {"secrets": {"webhook_key": "a-new-key-000"}})
    problem(send(api, url, {}), 401, "SignatureInvalid", REFUSED)
    event(api, slug, send(api, url, {}, key="a-new-key-000"))


def test_a_deleted_connection_takes_nothing(api, sandbox, problem):
    body = {
        "slug": "goes-soon", "connector": "dynamics365", "settings": settings_of(sandbox.facts), "schedule": {},
        "secrets": {"client_secret": SECRET, "webhook_key": KEY}, "entities": {"account": "pull"},
    }  # fmt: skip
    api.ok("POST", "/api/integrations", body)
    (address,) = api.ok("POST", "/api/integrations/goes-soon/webhook")["value"]
    assert send(api, address["url"], {}).status_code == 202
    api("DELETE", "/api/integrations/goes-soon?confirm=true")
    problem(send(api, address["url"], {}), 401, "SignatureInvalid", REFUSED)


# --- challenges --------------------------------------------------------------------------------------------------


def test_a_text_is_sent_back_as_plain_text_and_nothing_else(api, hooked, problem):
    slug, url = hooked
    before = len(events(api, slug))
    for method in ("GET", "POST"):
        text = "Validation: <script>ñ</script> + %"
        answer = api(
            method, f"{url}?validationToken=Validation%3a+%3Cscript%3E%C3%B1%3C%2Fscript%3E+%2B+%25", key=None
        )
        assert (answer.status_code, answer.text) == (200, text)
        assert answer.headers["Content-Type"] == "text/plain; charset=utf-8"
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        problem(
            api(method, f"{url}?validationToken={'x' * 1025}", key=None), 401, "SignatureInvalid", REFUSED
        )
    problem(send(api, f"{url}?validationToken=x", {}, key=None), 401, "SignatureInvalid", REFUSED)
    assert len(events(api, slug)) == before


def test_the_handshake_of_cloudevents_allows_configured_origins_only(api, hooked, problem):
    _, url = hooked
    asked = {"WebHook-Request-Origin": "EventGrid.azure.net", "WebHook-Request-Rate": "120"}
    answer = api("OPTIONS", url, key=None, headers=asked)
    assert (answer.status_code, answer.content) == (200, b"")
    assert answer.headers["WebHook-Allowed-Origin"] == "EventGrid.azure.net"
    assert answer.headers["WebHook-Allowed-Rate"] == "6000"
    for origin in ("*", "evil.example", "eventgrid.azure.net.evil.example", ""):
        refused = api("OPTIONS", url, key=None, headers={"WebHook-Request-Origin": origin})
        problem(refused, 401, "SignatureInvalid", REFUSED)
        assert "WebHook-Allowed-Origin" not in refused.headers


def test_event_grid_gets_its_code_back_if_it_bears_the_key(api, hooked, problem):
    slug, url = hooked
    before = len(events(api, slug))
    asked = [
        {
            "eventType": "Microsoft.EventGrid.SubscriptionValidationEvent",
            "data": {"validationCode": "512d38b6"},
        }
    ]
    headers = {"aeg-event-type": "SubscriptionValidation"}
    assert send(api, url, asked, headers=headers).json() == {"validationResponse": "512d38b6"}
    problem(send(api, url, asked, key="wrong", headers=headers), 401, "SignatureInvalid", REFUSED)
    assert len(events(api, slug)) == before
    for odd in ([], {}, [{"data": {}}], [{"data": {"validationCode": 5}}], b"{"):  # an event like any other
        event(api, slug, send(api, url, odd, headers=headers))


def test_a_person_has_an_event_worked_on_again(api, hooked, account, sandbox, problem):
    slug, url = hooked
    rid = account(name="Once more")
    answer = send(api, url, post_of("account", rid))
    event(api, slug, answer)
    wait_until(lambda: rid in api.stored(slug))
    sandbox.update(rid, name="Changed since")
    path = f"/api/events/{answer.json()['id']}/replay?connection={slug}"
    assert api.ok("POST", path)["state"] == "open"
    assert event(api, slug, answer)["outcome"] == "read again"  # though the change is done
    wait_until(lambda: api.stored(slug)[rid]["name"] == "Changed since")
    nobody = api("POST", f"/api/events/{'0' * 20}/replay?connection={slug}")
    problem(nobody, 404, "NotFound", f"There is no event '{'0' * 20}' of {slug}.")


# --- reading them ------------------------------------------------------------------------------------------------


def test_events_are_read_page_by_page_the_newest_first(api, hooked, problem):
    slug, url = hooked
    sent = [event(api, slug, send(api, url, {"n": n}))["id"] for n in range(5)]
    pages = list(api.pages(f"/api/events?connection={slug}&top=2"))
    assert [each["id"] for page in pages for each in page] == sent[::-1]
    assert [len(page) for page in pages] == [2, 2, 1]
    assert all("body" not in each for page in pages for each in page)
    for name in ("x", "0" * 40, "a%2Fb", "..%2F"):
        assert api("GET", f"/api/events/{name}?connection={slug}").status_code == 404
