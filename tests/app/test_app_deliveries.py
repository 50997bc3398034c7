"""Deliveries over HTTP: a write of a record reaches a receiver, signed; what fails is seen, and sent again."""

import base64
import json
import uuid

import pytest
from standardwebhooks import Webhook

from tests.app.conftest import Sandbox, wait_until

pytestmark = pytest.mark.xdist_group("app-api")

SECRET = "whsec_" + base64.b64encode(b"the key of deliveries, 32 bytes.").decode()
TOKEN = "the~token/of+deliveries-0123456789"


@pytest.fixture(scope="module")
def sales(start_sandbox):
    """The sales app: it takes only what bears the token and the signature."""
    return start_sandbox("--token", TOKEN, "--signing-secret", SECRET, system="sales")


@pytest.fixture
def receiver(api, sales, connect):
    """Makes connections that tell the sales app of appointments; gives the slug."""
    sales.control("POST", "reset")

    def make(**changes):
        slug = "tells-" + uuid.uuid4().hex[:8]
        body = {
            "connector": "webhook",
            "settings": {"url": f"{sales.url}/webhooks", "token_header": "X-CRM-Webhook-Token", **changes.pop("settings", {})},
            "secrets": {"token": TOKEN, "signing_secret": SECRET},
            "entities": {"appointment": {"direction": "push"}},
            **changes,
        }  # fmt: skip
        connect(slug, **body)
        return slug

    return make


def posts(sales: Sandbox):
    return [each for each in sales.control("GET", "requests") if each["method"] == "POST"]


def appointment(api, **fields):
    found = api.ok("POST", "/api/records/appointments", {"at": "2026-11-24T13:45:00Z", **fields})
    return found["id"]


def deliveries(api, slug, status=""):
    more = f"&status={status}" if status else ""
    return [each for page in api.pages(f"/api/deliveries?connection={slug}&top=20{more}") for each in page]


def delivered(api, slug, record, version=1, *states):
    """The delivery of a version, once it is in one of the states."""

    def found():
        mine = [
            each for each in deliveries(api, slug) if (each["record"], each["version"]) == (record, version)
        ]
        return next((each for each in mine if each["state"] in (states or ("done",))), None)

    return wait_until(found)


def test_a_write_reaches_the_receiver_signed_and_with_its_token(api, receiver, sales):
    slug = receiver()
    record = appointment(api, status="planned", place="Lima")
    first = delivered(api, slug, record)
    assert (first["event"], first["outcome"], first["tries"]) == ("created", "taken", 1)
    api.ok("PATCH", f"/api/records/appointments/{record}", {"status": "done"})
    second = delivered(api, slug, record, 2)
    api.ok("DELETE", f"/api/records/appointments/{record}?confirm=true")
    third = delivered(api, slug, record, 3)
    assert [each["event"] for each in (second, third)] == ["updated", "deleted"]
    sent = posts(sales)
    assert [each["headers"]["webhook-id"] for each in sent] == [first["id"], second["id"], third["id"]]
    told = Webhook(SECRET).verify(sent[1]["body"], sent[1]["headers"])
    assert told["type"] == "crmhub.appointment.updated"
    assert told["subject"] == record
    assert told["data"]["old"] == {"status": "planned"}
    assert told["data"]["record"]["status"] == "done"
    whole = api.ok("GET", f"/api/deliveries/{second['id']}?connection={slug}")
    assert json.loads(whole["body"]) == told
    assert whole["content_type"].startswith("application/cloudevents+json")


def test_only_what_becomes_what_was_asked_for_with_the_payload_that_was(api, receiver, sales):
    slug = receiver(
        settings={"payload": "mapped"},
        entities={"appointment": {"direction": "push", "becomes": "status eq 'done'", "filter": "project ne 'X'"}},
        mappings={
            "appointment": {
                "zone": "America/Lima",
                "fields": {
                    "at": {"to": "cita.fecha", "zoneless": True},
                    "status": {"to": "estado", "direction": "out", "values": [{"ours": "done", "theirs": "Realizada"}],
                               "unmapped": "default", "default": {"theirs": "?"}},
                },
                "targets": {"origen": {"constant": "CRM"}, "cita.lugar": {"template": "{place|upper}"}},
            }
        },
    )  # fmt: skip
    record = appointment(api, status="planned", place="Lima", project="A")
    other = appointment(api, status="done", place="Lima", project="X")
    api.ok("PATCH", f"/api/records/appointments/{record}", {"status": "done"})
    found = delivered(api, slug, record, 2)
    api.ok("PATCH", f"/api/records/appointments/{record}", {"notes": "more"})
    api.ok("PATCH", f"/api/records/appointments/{other}", {"notes": "more"})
    last = appointment(api, status="done", place="Cusco")
    delivered(api, slug, last)
    assert {(each["record"], each["version"]) for each in deliveries(api, slug)} == {(record, 2), (last, 1)}
    (sent,) = [each for each in posts(sales) if each["headers"]["webhook-id"] == found["id"]]
    assert json.loads(sent["body"]) == {
        "cita": {"fecha": "2026-11-24T08:45:00", "lugar": "LIMA"}, "estado": "Realizada", "origen": "CRM",
    }  # fmt: skip
    assert sent["headers"]["content-type"].startswith("application/json")
    assert (sent["headers"]["ce-subject"], sent["headers"]["ce-type"]) == (
        record,
        "crmhub.appointment.updated",
    )


def test_a_failure_comes_again_after_five_seconds_and_is_told(api, receiver, sales):
    slug = receiver()
    sales.fault("status", status=503, message="not just now", count=1)
    record = appointment(api)
    first = wait_until(lambda: (now := delivered(api, slug, record, 1, "open"))["attempts"] and now)
    assert first["attempts"][0]["status"] == 503
    assert "not just now" in first["attempts"][0]["words"]
    assert first["due"]
    assert [each["id"] for each in deliveries(api, slug, "open")] == [first["id"]]
    done = delivered(api, slug, record)
    assert [each["status"] for each in done["attempts"]] == [503, 200]
    one, two = posts(sales)
    assert one["headers"]["webhook-id"] == two["headers"]["webhook-id"] == done["id"]
    assert one["body"] == two["body"]
    assert deliveries(api, slug, "open") == []


def test_a_receiver_that_is_gone_stops_the_connection_until_a_person_resumes_it(api, receiver, sales):
    slug = receiver()
    sales.fault("status", status=410, count=1)
    record = appointment(api)
    wait_until(lambda: api.ok("GET", f"/api/integrations/{slug}")["state"] == "needs_attention")
    found = api.ok("GET", f"/api/integrations/{slug}")
    assert found["problem"]["code"] == "ReceiverGone"
    second = appointment(api)
    resumed = api.ok("POST", f"/api/integrations/{slug}/resume")
    assert resumed["state"] == "ok"
    delivered(api, slug, second)
    delivery = delivered(api, slug, record, 1, "open", "done")
    assert delivery["attempts"][0]["status"] == 410


def test_one_is_sent_again_with_the_same_id_and_body(api, receiver, sales, problem):
    slug = receiver()
    record = appointment(api)
    found = delivered(api, slug, record)
    again = api("POST", f"/api/deliveries/{found['id']}/replay?connection={slug}")
    assert (again.status_code, again.json()["state"]) == (202, "open")
    wait_until(lambda: len(posts(sales)) == 2)
    wait_until(lambda: api.ok("GET", f"/api/deliveries/{found['id']}?connection={slug}")["state"] == "done")
    one, two = posts(sales)
    assert (one["headers"]["webhook-id"], one["body"]) == (two["headers"]["webhook-id"], two["body"])
    (kept,) = sales.control("GET", "rows/received?limit=10")
    assert kept["values"]["times"] == 2
    sales.fault("status", status=500, count=1)
    api.ok("POST", f"/api/deliveries/{found['id']}/replay?connection={slug}")
    wait_until(lambda: api.ok("GET", f"/api/deliveries/{found['id']}?connection={slug}")["tries"] == 1)
    refused = api("POST", f"/api/deliveries/{found['id']}/replay?connection={slug}")
    problem(refused, 409, "Conflict", "The delivery is being sent; look at it again in a while.")


def test_a_range_is_sent_again(api, receiver, sales):
    slug = receiver()
    records = [appointment(api) for _ in range(3)]
    found = [delivered(api, slug, each) for each in records]
    times = sorted(each["time"] for each in found)
    body = {"connection": slug, "since": times[1], "status": "all"}
    assert api.ok("POST", "/api/deliveries/replay", body) == {"connection": slug, "replayed": 2, "next": None}
    wait_until(lambda: len(posts(sales)) == 5)
    assert api.ok("POST", "/api/deliveries/replay", {"connection": slug})["replayed"] == 0


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"status": "all"}, "since"),
        ({"since": "yesterday"}, "since"),
        ({"until": "2026-11-24T13:45:00"}, "until"),
        ({"next": "x"}, "next"),
        ({"status": "open"}, "status"),
    ],
)
def test_a_range_that_is_none_is_refused_by_its_field(api, receiver, body, field):
    answer = api("POST", "/api/deliveries/replay", {"connection": receiver(), **body})
    assert answer.status_code == 400
    assert [each["field"] for each in answer.json()["errors"]] == [field]


def test_a_test_send_tells_what_the_receiver_says(api, receiver, sales):
    slug = receiver()
    answer = api.ok("POST", f"/api/integrations/{slug}/test")
    assert (answer["status"], answer["receiver"]["status"]) == ("ok", 200)
    (sent,) = posts(sales)
    told = Webhook(SECRET).verify(sent["body"], sent["headers"])
    assert (told["type"], told["id"]) == ("crmhub.test", answer["webhook_id"])
    sales.fault("status", status=422, message="we want a phone", count=1)
    refused = api("POST", f"/api/integrations/{slug}/test")
    assert refused.status_code == 422
    assert "we want a phone" in refused.json()["detail"]
    assert refused.json()["vendor"]["status"] == 422
    sales.fault("status", status=302, headers={"Location": sales.url}, count=1)
    assert "redirect" in api("POST", f"/api/integrations/{slug}/test").json()["detail"]
    api.ok("PATCH", f"/api/integrations/{slug}", {"secrets": {"token": "another-token-than-theirs"}})
    refused = api("POST", f"/api/integrations/{slug}/test")
    assert refused.json()["code"] == "AuthFailed"


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"settings": {"url": ""}}, "settings.url"),
        ({"settings": {"url": "http://app.example.com/hooks"}}, "settings.url"),
        ({"settings": {"url": "https://10.0.0.7/hooks"}}, "settings.url"),
        ({"settings": {"url": "https://169.254.169.254/latest"}}, "settings.url"),
        ({"settings": {"token_header": ""}}, "settings.token_header"),
        ({"settings": {"headers": "nothing"}}, "settings.headers"),
        ({"settings": {"payload": "some"}}, "settings.payload"),
        ({"secrets": {"signing_secret": "short"}}, "secrets.signing_secret"),
        ({"entities": {"appointment": {"direction": "push", "becomes": "state eq 'x'"}}}, "entities.appointment.becomes"),
        ({"entities": {"appointment": {"direction": "push", "events": ["born"]}}}, "entities.appointment.events.0"),
    ],
)  # fmt: skip
def test_what_is_wrong_with_a_connection_is_told_by_its_field(api, sales, changes, field):
    settings = {"url": f"{sales.url}/webhooks", "token_header": "X-T", **changes.pop("settings", {})}
    body = {
        "slug": "wrong-" + uuid.uuid4().hex[:8], "connector": "webhook",
        "settings": {name: value for name, value in settings.items() if value}, "secrets": {"token": TOKEN},
        "entities": {"appointment": {"direction": "push"}}, **changes,
    }  # fmt: skip
    answer = api("POST", "/api/integrations", body)
    assert answer.status_code == 400, answer.text
    assert field in [each["field"] for each in answer.json()["errors"]]


def test_secrets_do_not_go_to_another_receiver(api, receiver):
    slug = receiver()
    moved = {"settings": {"url": "https://elsewhere.example/hooks"}}
    answer = api("PATCH", f"/api/integrations/{slug}", moved)
    assert answer.status_code == 400
    assert [each["field"] for each in answer.json()["errors"]] == ["settings.url"]
    api.ok(
        "PATCH", f"/api/integrations/{slug}", {**moved, "secrets": {"token": TOKEN, "signing_secret": SECRET}}
    )


def test_events_are_of_connections_that_are_told(api, connect, sandbox):
    answer = api("PATCH", "/api/integrations/" + connect("plain-" + uuid.uuid4().hex[:8])["slug"],
                 {"entities": {"account": {"direction": "both", "events": ["created"]}}})  # fmt: skip
    assert answer.status_code == 400
    assert [each["field"] for each in answer.json()["errors"]] == ["entities.account.events"]


def test_what_is_not_there_is_404_and_a_status_is_one_of_three(api, receiver):
    slug = receiver()
    for name in ("x", "00000000000000-0a3f8c1e-0000-4000-8000-000000000001"):
        assert api("GET", f"/api/deliveries/{name}?connection={slug}").status_code == 404
    answer = api("GET", f"/api/deliveries?connection={slug}&status=lost")
    assert [each["field"] for each in answer.json()["errors"]] == ["status"]


def test_lists_go_on_by_their_link(api, receiver):
    slug = receiver()
    records = {appointment(api) for _ in range(5)}
    for each in records:
        delivered(api, slug, each)
    pages = list(api.pages(f"/api/deliveries?connection={slug}&top=2"))
    assert [len(page) for page in pages] == [2, 2, 1]
    assert {each["record"] for page in pages for each in page} == records
    times = [each["time"] for page in pages for each in page]
    assert times == sorted(times, reverse=True)


def test_nothing_is_read_from_or_written_to_who_is_told(api, receiver):
    slug = receiver()
    for method, path, body in (
        ("GET", "/api/crm/appointments", None),
        ("GET", "/api/crm/appointments/x", None),
        ("POST", "/api/crm/appointments", {"at": "2026-11-24T13:45:00Z"}),
        ("DELETE", "/api/crm/appointments/x", None),
    ):
        more = "&confirm=true" if method == "DELETE" else ""
        answer = api(method, f"{path}?connection={slug}{more}", body)
        assert (answer.status_code, answer.json()["code"]) == (405, "NotSupported"), (
            method,
            path,
            answer.text,
        )
    for mode in ("incremental", "full", "push"):
        answer = api("POST", "/api/runs", {"connection": slug, "mode": mode})
        assert (answer.status_code, [each["field"] for each in answer.json()["errors"]]) == (400, ["mode"])
    found = api.ok("GET", f"/api/crm/system/diagnose?connection={slug}")
    assert found["connection"] == slug
    assert api.ok("GET", f"/api/integrations/status?connection={slug}")["value"][0]["next_run"] is None


def test_a_connection_that_is_told_says_what_it_needs(api):
    (found,) = [each for each in api.ok("GET", "/api/connectors")["value"] if each["name"] == "webhook"]
    assert {each["name"] for each in found["settings"] if each["secret"]} == {
        "signing_secret",
        "token",
        "url_query",
        "webhook_secret",
    }
    assert "visit" in {each["entity"] for each in found["entities"]}
