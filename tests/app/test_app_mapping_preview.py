"""What a mapping makes of one real record, its versions, their differences, and going back to one."""

import pytest

pytestmark = [pytest.mark.xdist_group("app-api"), pytest.mark.usefixtures("demo")]

PATH = "/api/integrations/tried/mappings/account"
SEGMENTS = [
    {"ours": "retail", "theirs": "Retail"},
    {"ours": "retail", "theirs": {"contains": "shop"}},
    {"ours": "wholesale", "theirs": "WHS"},
]
SAVED = {
    "fields": {"industry": {"to": "new_segment", "values": SEGMENTS}, "website": None},
    "targets": {"new_label": {"template": "{name|upper}"}},
}


@pytest.fixture
def tried(connect):
    return connect("tried", mappings={"account": SAVED})


def fields_of(found):
    return {each["name"]: each for each in found["fields"]}


def preview(api, **body):
    return api.ok("POST", f"{PATH}/preview", body)


# --- preview -------------------------------------------------------------------------------------------------------


def test_a_remote_record_is_shown_both_ways_with_the_rule_that_did_it(api, sandbox, account, tried):
    rid = account(name="Big Shop", new_segment="Corner shop", telephone1="555")
    before = sandbox.last_request()
    found = preview(api, remote_id=rid)
    assert (found["record_id"], found["remote_id"], found["version"]) == (None, rid, 1)
    fields = fields_of(found)
    assert fields["industry"]["in"] == {
        "from": {"new_segment": "Corner shop"},
        "to": "retail",
        "hub": None,
        "outcome": "read",
        "rule": "fields.industry.values.1",
    }
    assert fields["industry"]["out"] == {
        "from": "retail",
        "to": {"new_segment": "Retail"},
        "outcome": "sent",
        "rule": "fields.industry.values.0",
    }
    assert fields["phone"]["in"] == {
        "from": {"telephone1": "555"}, "to": "555", "hub": None, "outcome": "read", "rule": None,
    }  # fmt: skip
    assert "website" not in fields
    assert found["targets"] == [
        {"to": "new_label", "from": ["name"], "value": "BIG SHOP", "rule": "targets.new_label"}
    ]
    asked = [each for each in sandbox.requests_since(before) if "/accounts" in each["path"]]
    assert [each["method"] for each in asked] == ["GET"]
    assert sandbox.values(rid)["new_segment"] == "Corner shop"
    assert api.stored("tried") == {}


def test_a_stored_record_is_tried_with_overrides_that_are_not_saved(api, sandbox, account, tried):
    rid = account(name="Acme", new_segment="Bank", new_taxid="20-1")
    api.run("tried")
    record = api.stored("tried")[rid]
    sandbox.update(rid, telephone1="777")
    wanted = {
        "fields": {
            "industry": {
                "to": "new_segment",
                "values": {"finance": "Bank"},
                "unmapped": "default",
                "default": {"ours": "other", "theirs": "Other"},
                "lossy": True,
            },
            "tax_id": {"to": "new_taxid", "length": 3},
            "number": {"to": "accountnumber", "direction": "in"},
        }
    }
    found = preview(api, record_id=record["id"], overrides=wanted)
    assert (found["record_id"], found["remote_id"], found["version"]) == (record["id"], rid, None)
    fields = fields_of(found)
    assert fields["industry"]["in"]["to"] == "finance"
    assert fields["industry"]["in"]["hub"] == "native:Bank"
    assert fields["industry"]["in"]["rule"] == "fields.industry.values.finance"
    out = fields["industry"]["out"]
    assert (out["outcome"], out["rule"], out["to"]) == (
        "default", "fields.industry.default", {"new_segment": "Other"},
    )  # fmt: skip
    assert fields["phone"]["in"]["to"] == "777"
    assert fields["phone"]["in"]["hub"] is None
    assert fields["number"]["out"] is None
    assert fields["name"]["out"]["to"] == {"name": "Acme"}
    assert api.ok("GET", PATH)["document"] == SAVED
    assert api.ok("GET", f"/api/records/accounts/{record['id']}") == record


def test_what_can_not_be_read_or_sent_says_so_and_hides_nothing_else(api, account, tried):
    rid = account(name="Acme", new_segment="Unheard of", telephone1="55501")
    strict = {"fields": {"industry": {"to": "new_segment", "values": SEGMENTS, "unmapped": "reject"}}}
    found = preview(api, remote_id=rid, overrides=strict)
    fields = fields_of(found)
    assert "new_segment" in found["problem"]
    refused = fields["industry"]["in"]
    assert (refused["outcome"], refused["to"], refused["rule"]) == (
        "refused", None, "fields.industry.unmapped",
    )  # fmt: skip
    assert refused["message"].endswith(
        "no rule of the mapping names this value; add one, or say what becomes of others."
    )
    assert fields["phone"]["in"]["to"] == "55501"
    short = {"fields": {"phone": {"to": "telephone1", "length": 3}}}
    out = fields_of(preview(api, remote_id=rid, overrides=short))["phone"]["out"]
    assert (out["outcome"], out["to"], out["rule"]) == ("refused", {}, "fields.phone")
    assert out["message"] == "phone: longer than the 3 characters that the system stores."
    kept = fields_of(preview(api, remote_id=rid))["industry"]
    assert (kept["in"]["outcome"], kept["in"]["to"], kept["out"]["to"]) == (
        "kept", "native:Unheard of", {"new_segment": "Unheard of"},
    )  # fmt: skip


def test_a_mapping_that_may_be_meant_otherwise_is_told(api, account, tried):
    rid = account(name="Acme")
    found = preview(api, remote_id=rid, overrides={"fields": {"phone": {"to": "new_taxid"}}})
    assert found["warnings"][0].startswith("fields.phone: a phone number is sent as new_taxid")


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "record_id"),
        ({"record_id": "a", "remote_id": "b"}, "record_id"),
        ({"record_id": "00000000-0000-5000-8000-000000000000"}, "record_id"),
        ({"remote_id": "x", "overrides": {"fields": {"emial": {}}}}, "mappings.account.fields.emial"),
    ],
)
def test_a_preview_of_nothing_or_of_a_wrong_mapping_is_refused(api, tried, body, field):
    answer = api("POST", f"{PATH}/preview", body)
    assert (answer.status_code, answer.json()["errors"][0]["field"]) == (400, field)


def test_a_remote_record_that_is_not_there_is_not_found(api, tried):
    answer = api("POST", f"{PATH}/preview", {"remote_id": "00000000-0000-4000-8000-000000000000"})
    assert answer.status_code == 404


def test_a_connection_that_is_told_shows_the_message_that_it_would_get(api, start_sandbox):
    url = start_sandbox(system="sales").url
    body = {
        "slug": "informed", "connector": "webhook", "settings": {"url": url, "payload": "mapped"}, "schedule": {},
        "entities": {"appointment": {"direction": "push"}},
        "mappings": {"appointment": {"fields": {"at": {"to": "when"}}}},
    }  # fmt: skip
    api.ok("POST", "/api/integrations", body)
    try:
        lead = api.ok("POST", "/api/records/leads", {"last_name": "Quispe", "email": "ana@example.com"})
        visit = {"at": "2026-11-24T13:45:00Z", "lead_id": lead["id"], "place": "Lima"}
        record = api.ok("POST", "/api/records/appointments", visit)
        wanted = {"fields": {"lead_id.email": {"to": "who.email"}, "at": {"to": "when"}, "id": {"to": "key"}}}
        path = "/api/integrations/informed/mappings/appointment/preview"
        found = api.ok("POST", path, {"record_id": record["id"], "overrides": wanted})
        assert found["message"]["body"] == {
            "who": {"email": "ana@example.com"}, "when": "2026-11-24T13:45:00Z", "key": record["id"],
        }  # fmt: skip
        out = fields_of(found)["lead_id.email"]["out"]
        assert (out["from"], out["to"], out["rule"]) == (
            "ana@example.com", {"who": {"email": "ana@example.com"}}, "fields.lead_id.email",
        )  # fmt: skip
        assert found["remote_id"] is None
        assert api("POST", path, {"remote_id": "1"}).status_code == 405
    finally:
        api("DELETE", "/api/integrations/informed?confirm=true")


# --- versions ------------------------------------------------------------------------------------------------------


def save(api, document):
    return api.ok("PATCH", "/api/integrations/tried", {"mappings": {"account": document}})


def test_versions_are_compared_and_one_holds_again(api, tried):
    other = {"fields": {"phone": {"to": "telephone2"}, "website": None}, "zone": "America/Lima"}
    save(api, other)
    assert api.ok("GET", f"{PATH}/versions/1")["document"] == SAVED
    assert api.ok("GET", f"{PATH}/versions/0")["document"] == {}
    diff = api.ok("GET", f"{PATH}/diff")
    assert (diff["from"], diff["to"]) == (1, 2)
    assert diff["value"] == [
        {"field": "fields.industry", "change": "removed", "before": SAVED["fields"]["industry"]},
        {"field": "fields.phone", "change": "added", "after": {"to": "telephone2"}},
        {"field": "targets.new_label", "change": "removed", "before": SAVED["targets"]["new_label"]},
        {"field": "zone", "change": "added", "after": "America/Lima"},
    ]
    back = api("POST", f"{PATH}/rollback", {"version": 1}, headers={"If-Match": '"2"'})
    assert (back.status_code, back.headers["ETag"]) == (200, '"3"')
    assert (back.json()["version"], back.json()["document"]) == (3, SAVED)
    assert api.ok("GET", f"{PATH}/diff?from=1&to=3")["value"] == []
    assert [each["version"] for each in api.ok("GET", f"{PATH}/versions")["value"]] == [3, 2, 1]
    assert api.ok("POST", f"{PATH}/rollback", {"version": 0})["document"] == {}


def test_a_changed_rule_is_told_with_both_and_null_is_a_rule(api, tried):
    save(api, {"fields": {"phone": {"to": "telephone2"}, "website": {"to": "new_label"}}})
    save(api, {"fields": {"phone": {"to": "telephone3"}, "website": None}})
    assert api.ok("GET", f"{PATH}/diff?from=2&to=3")["value"] == [
        {"field": "fields.phone", "change": "changed", "before": {"to": "telephone2"},
         "after": {"to": "telephone3"}},
        {"field": "fields.website", "change": "changed", "before": {"to": "new_label"}, "after": None},
    ]  # fmt: skip


def test_a_rollback_under_an_older_version_is_refused_and_changes_nothing(api, tried, problem):
    save(api, {})
    answer = api("POST", f"{PATH}/rollback", {"version": 1}, headers={"If-Match": '"1"'})
    text = "The mapping of account has version 2 now; look at it and repeat this."
    problem(answer, 412, "Stale", text)
    assert api.ok("GET", PATH)["version"] == 2
    missing = api("POST", f"{PATH}/rollback", {"version": 9})
    problem(missing, 404, "NotFound", "The mapping of account at tried has no version 9.")


def test_a_rollback_is_checked_again_and_sends_what_saving_would_send(api, sandbox, account, connect):
    connect("tried", entities={"account": "both"}, mappings={"account": SAVED})
    rid = account(name="Acme", new_segment="WHS", websiteurl="https://acme.example")
    api.run("tried")
    record = api.stored("tried")[rid]
    assert (record["industry"], record.get("website")) == ("wholesale", None)
    save(api, {})
    assert api.run("tried")["mode"] == "full"
    assert api.stored("tried")[rid]["website"] == "https://acme.example"
    api.ok("POST", f"{PATH}/rollback", {"version": 1})
    after = api.ok("GET", "/api/integrations/tried")
    assert after["mappings"] == {"account": 3}
    assert api.run("tried")["mode"] == "full"  # as after any other mapping all is read again
    api.run("tried", "push")
    assert api.stored("tried")[rid]["industry"] == "wholesale"
