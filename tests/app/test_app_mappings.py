"""Overrides of a connection's mapping, from their save to the rows that they make at the Dataverse sandbox."""

from urllib.parse import quote

import pytest

pytestmark = [pytest.mark.xdist_group("app-api"), pytest.mark.usefixtures("demo")]

PATH = "/api/integrations/mapped/mappings/account"
ACCOUNTS = "/api/crm/accounts?connection=mapped"
NORTH, SOUTH, ISLANDS = 100000000, 100000001, 100000002
DOCUMENT = {
    "zone": "America/Lima",
    "fields": {
        "tax_id": {"to": "new_taxid", "length": 20},
        "phone": {"to": ["telephone2", "telephone3"]},
        "website": None,
        "number": {"template": "C-{number}"},
        "industry": {
            "to": "new_segment",
            "values": [
                {"ours": "retail", "theirs": "Retail"},
                {"ours": "retail", "theirs": {"contains": "shop"}},
                {"ours": "wholesale", "theirs": "WHS"},
            ],
        },
        "x_region": {
            "type": "choice",
            "choices": ["north", "south"],
            "to": "new_region",
            "values": {"north": NORTH, "south": SOUTH},
        },
        "x_score": {"type": "integer", "to": "new_score", "required": True},
        "x_margin": {"type": "decimal", "to": "new_margin", "scale": 2},
        "x_partner": {"type": "boolean", "to": "new_ispartner"},
        "x_audited_at": {"type": "instant", "to": "new_auditedat", "whole_seconds": True},
        "x_visited_at": {"type": "instant", "to": "new_visitedat", "zoneless": True},
        "x_made_by": {"type": "text", "constant": "dataverse"},
        "x_where": {"type": "text", "from": "{address1_city}, {address1_country|upper}"},
        "description": {"read_only": True},
        "x_legal": {"type": "text"},
    },
    "targets": {
        "new_source": {"constant": "crm-hub"},
        "new_label": {"template": "{name|upper} ({tax_id})"},
        "new_legalname": {"template": "Legal: {x_legal}"},
    },
}
FIELDS = {
    "name": "Acme",
    "tax_id": "20-1",
    "phone": "555",
    "number": "7",
    "industry": "wholesale",
    "city": "Lima",
    "country": "Peru",
    "x_region": "south",
    "x_score": 5,
    "x_margin": "1.2500000000",  # as Dataverse tells a decimal number
    "x_partner": True,
    "x_audited_at": "2026-11-24T18:45:00Z",
    "x_visited_at": "2026-11-24T18:45:00Z",
}
ROW = {
    "name": "Acme",
    "new_taxid": "20-1",
    "telephone1": None,
    "telephone2": "555",
    "telephone3": "555",
    "accountnumber": "C-7",
    "new_segment": "WHS",
    "new_region": SOUTH,
    "new_score": 5,
    "new_ispartner": True,
    "new_auditedat": "2026-11-24T18:45:00Z",
    "new_visitedat": "2026-11-24T13:45:00",
    "new_source": "crm-hub",
    "new_label": "ACME (20-1)",
}


@pytest.fixture
def mapped(connect):
    return connect("mapped", mappings={"account": DOCUMENT})


@pytest.fixture
def made(api, sandbox, mapped):
    """An account that was made through the overrides; it goes with the test."""
    item = api.ok("POST", ACCOUNTS, FIELDS)
    yield item
    sandbox.delete(item["id"])


def one(rid):
    return f"/api/crm/accounts/{rid}?connection=mapped"


# --- live ----------------------------------------------------------------------------------------------------------


def test_what_is_written_arrives_by_the_overrides_and_comes_back_by_them(api, sandbox, made):
    row = sandbox.values(made["id"])
    assert {name: row.get(name) for name in ROW} == ROW
    read = api.ok("GET", one(made["id"]))
    expected = {**FIELDS, "x_made_by": "dataverse", "x_where": "Lima, PERU"}
    for item in (made, read):
        assert {name: item[name] for name in expected} == expected
        assert "website" not in item


def test_an_update_of_one_part_of_a_template_writes_it_with_the_others(api, sandbox, made):
    api.ok("PATCH", one(made["id"]), {"x_legal": "Acme S.A."})
    assert sandbox.values(made["id"])["new_legalname"] == "Legal: Acme S.A."
    api.ok("PATCH", one(made["id"]), {"tax_id": "20-2"})
    assert sandbox.values(made["id"])["new_label"] == "ACME (20-2)"
    api.ok("PATCH", one(made["id"]), {"name": "Acme Sur", "x_region": None})
    row = sandbox.values(made["id"])
    assert (row["new_label"], row["new_taxid"], row.get("new_region")) == ("ACME SUR (20-2)", "20-2", None)


def test_values_of_others_are_read_by_the_conditions_and_kept_else(api, sandbox, made):
    for theirs, ours in (("Big SHOP", "retail"), ("Bank", "native:Bank")):
        sandbox.update(made["id"], new_segment=theirs)
        assert api.ok("GET", one(made["id"]))["industry"] == ours
    sandbox.update(made["id"], new_region=ISLANDS)
    assert api.ok("GET", one(made["id"]))["x_region"] == f"native:{ISLANDS}"
    api.ok("PATCH", one(made["id"]), {"industry": "native:Bank", "x_region": f"native:{ISLANDS}"})
    assert sandbox.values(made["id"])["new_region"] == ISLANDS


def test_lists_filter_select_and_order_by_the_names_of_the_overrides(api, made):
    def found(text, more=""):
        return api.ok("GET", f"{ACCOUNTS}&filter={quote(text)}{more}")["value"]

    by_field = found(
        "x_region eq 'south' and x_score ge 5 and tax_id eq '20-1'",
        "&orderby=x_score&select=x_where,x_region",
    )
    assert [each["id"] for each in by_field] == [made["id"]]
    assert {name: by_field[0].get(name) for name in ("x_where", "x_region", "name")} == {
        "x_where": "Lima, PERU", "x_region": "south", "name": None,
    }  # fmt: skip
    assert [each["id"] for each in found("new_label eq 'ACME (20-1)' and new_visitedat ne null")] == [
        made["id"]
    ]
    (raw,) = api.ok("GET", f"{ACCOUNTS}&filter=new_taxid%20eq%20'20-1'&select=new_label")["value"]
    assert raw["new_label"] == "ACME (20-1)"


@pytest.mark.parametrize("name", ["industry", "number", "x_visited_at", "x_where", "x_made_by"])
def test_what_the_system_can_not_compare_is_no_filter(api, mapped, problem, name):
    answer = api("GET", f"{ACCOUNTS}&filter={name}%20eq%20null")
    problem(answer, 400, "BadRequest", f"filter: '{name}' can't be asked for here; leave it out.", "filter")


@pytest.mark.parametrize(
    ("body", "field", "message"),
    [
        ({"description": "x"}, "description", "description: is read only; leave it out."),
        ({"x_where": "x"}, "x_where", "x_where: is read only; leave it out."),
        ({"website": "x"}, "website", "website: is not available at this system."),
        ({"x_score": "5"}, "x_score", "x_score: expected a whole number."),
        ({"x_region": "west"}, "x_region", "x_region: expected one of north, south."),
        ({"new_segment": "a", "industry": "retail"}, "new_segment",
         "new_segment: is written by industry too; leave one out."),
        ({"tax_id": "x" * 21}, "tax_id", "tax_id: longer than the 20 characters that the system stores."),
        ({"x_nothing": 1}, "x_nothing", "x_nothing: is no field of account."),
    ],
)  # fmt: skip
def test_a_write_that_the_mapping_refuses_names_the_field(api, made, problem, body, field, message):
    problem(api("PATCH", one(made["id"]), body), 400, "BadRequest", message, field)


def test_a_field_that_the_mapping_requires_is_asked_for(api, mapped, problem):
    answer = api("POST", ACCOUNTS, {"name": "Acme"})
    problem(answer, 400, "BadRequest", "x_score: required to create account.", "x_score")


def test_a_batch_writes_by_the_overrides(api, sandbox, mapped):
    operations = [
        {"method": "create", "fields": {**FIELDS, "name": f"Acme {n}", "number": None}} for n in range(3)
    ]
    done = api.ok("POST", "/api/crm/accounts/batch?connection=mapped", {"operations": operations})["value"]
    assert [each["status"] for each in done] == [201] * 3
    rids = [each["item"]["id"] for each in done]
    assert [sandbox.values(rid)["new_label"] for rid in rids] == [f"ACME {n} (20-1)" for n in range(3)]
    changes = [{"method": "update", "id": rid, "fields": {"tax_id": "9", "x_score": 1}} for rid in rids]
    api.ok("POST", "/api/crm/accounts/batch?connection=mapped", {"operations": changes})
    assert [sandbox.values(rid)["new_label"] for rid in rids] == [f"ACME {n} (9)" for n in range(3)]
    for rid in rids:
        sandbox.delete(rid)


# --- pulled --------------------------------------------------------------------------------------------------------


def test_a_pull_stores_custom_fields_and_another_mapping_reads_all_again(api, made):
    assert api.run("mapped")["status"] == "succeeded"
    stored = api.stored("mapped")[made["id"]]
    expected = {**FIELDS, "x_made_by": "dataverse", "x_where": "Lima, PERU"}
    assert {name: stored.get(name) for name in expected} == expected
    for text in (
        "x_region eq 'south' and x_score gt 4 and x_margin le 1.25",
        "x_visited_at gt 2026-11-24T18:00:00Z",
    ):
        page = api.ok("GET", f"/api/records/accounts?filter={quote(text)}&select=x_score&top=1000")
        assert [(each["id"], each["x_score"]) for each in page["value"]] == [(stored["id"], 5)]
    assert api.run("mapped")["counts"]["updated"] == 0
    api.ok("PATCH", "/api/integrations/mapped", {"mappings": {"account": {"fields": {}}}})
    run = api.run("mapped")
    assert (run["status"], run["mode"]) == ("succeeded", "full")


# --- saved ---------------------------------------------------------------------------------------------------------


def test_a_mapping_shows_what_holds_and_what_was_said(api, mapped):
    assert mapped["mappings"] == {"account": 1}
    found = api.ok("GET", PATH)
    assert found == api.ok("GET", f"{PATH}s")
    assert (found["version"], found["document"]) == (1, DOCUMENT)
    fields = {each["name"]: each for each in found["effective"]["fields"]}
    assert fields["phone"] == {
        "name": "phone",
        "type": "text",
        "reads": ["telephone2"],
        "writes": ["telephone2", "telephone3"],
        "direction": "both",
        "required": False,
        "length": None,
    }
    assert "website" not in fields
    assert (fields["x_where"]["reads"], fields["x_where"]["direction"]) == (
        ["address1_city", "address1_country"],
        "in",
    )
    assert fields["x_score"]["required"]
    assert found["effective"]["targets"] == [
        {"to": "new_label", "from": ["name", "tax_id"]},
        {"to": "new_legalname", "from": ["x_legal"]},
        {"to": "new_source", "from": []},
    ]
    plain = api.ok("GET", "/api/integrations/mapped/mappings/contact")
    assert (plain["version"], plain["document"]) == (0, {})
    assert {each["name"] for each in plain["effective"]["fields"]} >= {"last_name", "account_id"}


def test_each_save_that_changes_a_mapping_is_a_version(api, connect):
    connect("mapped")
    documents = [{"fields": {"phone": {"to": f"telephone{n}"}}} for n in (2, 3)]

    def save(document):
        return api.ok("PATCH", "/api/integrations/mapped", {"mappings": {"account": document}})["mappings"]

    assert save({}) == {}
    assert save(documents[0]) == {"account": 1}
    assert save(documents[0]) == {"account": 1}
    assert save(documents[1]) == {"account": 2}
    assert save(None) == {"account": 3}
    assert api.ok("PATCH", "/api/integrations/mapped", {"schedule": {}})["mappings"] == {"account": 3}
    assert save(documents[0]) == {"account": 4}
    versions = api.ok("GET", f"{PATH}/versions")["value"]
    assert [each["version"] for each in versions] == [4, 3, 2, 1]
    assert [each["document"] for each in versions] == [documents[0], {}, documents[1], documents[0]]
    assert sorted(each["saved_at"] for each in versions) == [each["saved_at"] for each in reversed(versions)]


def test_the_versions_of_a_connection_go_with_it(api, connect):
    for number in (2, 3):
        connect("mapped", mappings={"account": {"fields": {"phone": {"to": f"telephone{number}"}}}})
        assert len(api.ok("GET", f"{PATH}/versions")["value"]) == 1
        api("DELETE", "/api/integrations/mapped?confirm=true")


def test_everything_wrong_in_a_mapping_is_told_by_its_path_and_nothing_is_saved(api, connect, problem):
    connect("mapped")
    account = {"fields": {"emial": {}, "phone": {"to": "telephone2", "values": {"a": "1", "b": "1"}}}}
    answer = api(
        "PATCH", "/api/integrations/mapped", {"mappings": {"account": account, "visit": {}, "nope": {}}}
    )
    assert answer.status_code == 400
    told = {each["field"]: each["message"] for each in answer.json()["errors"]}
    assert (
        told["mappings.account.fields.emial"]
        == "mappings.account.fields.emial: is no field of account; email is one."
    )
    assert told["mappings.account.fields.phone.values"].endswith(
        """'b' is written as '1', which is read as 'a'; mend it, or say "direction": "in" or "out", or "lossy": true."""
    )
    unknown = api("PATCH", "/api/integrations/mapped", {"mappings": {"visit": {"zone": "UTC"}}}).json()[
        "errors"
    ]
    assert [each["field"] for each in unknown] == ["mappings.visit"]
    assert api.ok("GET", PATH)["version"] == 0


def test_properties_that_the_system_has_not_are_refused_when_saved(api, connect, problem):
    connect("mapped")
    fields = {"tax_id": {"to": "new_taxidd"}, "x_a": {"type": "text", "to": "new_score"}}
    answer = api("PATCH", "/api/integrations/mapped", {"mappings": {"account": {"fields": fields}}})
    first = (
        "mappings.account.fields.tax_id.to: the system has no property 'new_taxidd' here; new_taxid is one."
    )
    second = (
        "mappings.account.fields.x_a.to: 'new_score' is integer at the system, expected text;"
        " translate it by values, or name another."
    )
    messages = {"mappings.account.fields.tax_id.to": first, "mappings.account.fields.x_a.to": second}
    problem(answer, 400, "BadRequest", first, messages=messages)


def test_a_mapping_that_can_not_be_checked_is_not_saved(api, connect, faults):
    connect("mapped")
    faults("status", status=503, path="*/EntityDefinitions*", count=20)
    mapping = {"account": {"fields": {"tax_id": {"to": "new_taxid"}}}}
    answer = api("PATCH", "/api/integrations/mapped", {"mappings": mapping})
    assert answer.status_code == 503, answer.text
    assert answer.json()["detail"].startswith(
        "mappings.account: can't be checked now, so nothing was saved. "
    )
    assert api.ok("GET", PATH)["version"] == 0


def test_a_custom_field_is_of_one_type_at_all_connections(api, connect, problem):
    def rule(kind, native):
        return {"account": {"fields": {"x_same": {"type": kind, "to": native}}}}

    connect("mapped", mappings=rule("text", "new_label"))
    connect("mapped-too", mappings=rule("text", "new_source"))
    answer = api("PATCH", "/api/integrations/mapped-too", {"mappings": rule("integer", "new_score")})
    path = "mappings.account.fields.x_same.type"
    message = f"{path}: is text at the connection mapped; give it that type, or take another name."
    problem(answer, 400, "BadRequest", message, path)
