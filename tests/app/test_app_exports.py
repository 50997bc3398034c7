"""Exports over HTTP: asked for, followed, read part by part."""

import csv
import io
import json

import pytest

from tests.app.conftest import PUBLIC_URL, wait_until

pytestmark = pytest.mark.xdist_group("app-sync")


@pytest.fixture
def exported(api):
    """Asks for an export and gives its run at its end, with the bytes of its parts."""

    def export(**body):
        answer = api("POST", "/api/exports", body)
        assert answer.status_code == 202, answer.text
        run = api.ended(answer.headers["Operation-Location"])
        assert (run["mode"], run["status"], run["problem"]) == ("export", "succeeded", None)
        parts = [api("GET", f"/api/exports/{run['id']}/parts/{n + 1}").content for n in range(run["parts"])]
        return run, b"".join(parts)

    return export


def rows_of(data):
    return list(csv.DictReader(io.StringIO(data.decode("utf-8-sig"), newline=""), strict=True))


def lines_of(data):
    return [json.loads(line) for line in data.splitlines()]


def test_every_record_is_exported_with_the_values_that_the_api_shows(api, connect, account, exported):
    connect("exported", mappings={"account": {"fields": {"x_region": {"type": "text", "to": "new_label"}}}})
    rid = account(name="=HYPERLINK(1)", new_label="north", revenue=-1250.5)
    api.run("exported")
    stored = api.stored("exported")
    run, data = exported(what="records", entity="accounts", connection="exported")
    lines = {each["id"]: each for each in lines_of(data)}
    assert run["read"] == len(lines) == len(stored)
    assert (run["what"], run["format"], run["parts"], run["entity"]) == ("records", "jsonl", 1, "account")
    assert run["connection"] == "exported"
    assert run["expires_at"] > run["ended_at"]
    for record in stored.values():
        line = lines[record["id"]]
        same = {name: value for name, value in record.items() if name not in ("links", "etag")}
        assert {name: value for name, value in line.items() if name != "links"} == same
        assert {each["connection"]: each["id"] for each in line["links"]}["exported"] == next(
            each["id"] for each in record["links"] if each["connection"] == "exported"
        )

    _, data = exported(
        what="records",
        format="csv",
        entity="account",
        connection="exported",
        filter="x_region eq 'north'",
        bom=True,
    )
    assert data.startswith(b"\xef\xbb\xbfid,version,name,")
    (row,) = rows_of(data)
    record = stored[rid]
    assert (row["id"], row["version"], row["name"]) == (
        record["id"],
        str(record["version"]),
        "'=HYPERLINK(1)",
    )
    assert (row["x_region"], row["annual_revenue"]) == ("north", record["annual_revenue"])
    assert row["annual_revenue"].startswith("-1250.5")
    assert json.loads(row["links"])[0]["id"] in {each["id"] for each in record["links"]}


def test_a_part_is_a_file_of_its_type_and_what_is_not_there_says_so(api, connect, exported, problem):
    connect("typed")
    api.run("typed")
    run, data = exported(what="records", format="csv", entity="account", connection="typed")
    path = f"/api/exports/{run['id']}/parts"
    answer = api("GET", f"{path}/1")
    assert answer.content == data
    assert answer.headers["Content-Type"].startswith("text/csv")
    day = run["created_at"][:10]
    assert answer.headers["Content-Disposition"] == f'attachment; filename="account-records-{day}-0001.csv"'
    for number in ("0", "2", "x"):
        text = f"Part '{number}' of export {run['id']} is not there; there are 1."
        problem(api("GET", f"{path}/{number}"), 404, "NotFound", text)
    pulled = api.run("typed")
    problem(
        api("GET", f"/api/exports/{pulled['id']}/parts/1"),
        404,
        "NotFound",
        f"There is no export '{pulled['id']}'.",
    )
    assert api("GET", f"{path}/1", key=None).status_code == 401


def test_history_and_logs_are_exported_of_a_time(api, connect, account, sandbox, exported):
    connect("told")
    rid = account(name="Before")
    api.run("told")
    record = api.stored("told")[rid]
    sandbox.update(rid, name="After")
    run = api.run("told")
    _, data = exported(what="history", entity="account", connection="told")
    mine = [each for each in lines_of(data) if each["record"] == record["id"]]
    steps = api.ok("GET", f"/api/records/accounts/{record['id']}/history")["value"]
    for line, step in zip(mine, steps, strict=True):
        assert {name: line[name] for name in ("version", "change", "time", "origin", "run", "old")} == {
            name: step[name] for name in ("version", "change", "time", "origin", "run", "old")
        }
    _, data = exported(
        what="history", format="csv", entity="account", connection="told", since=run["created_at"]
    )
    late = [each for each in rows_of(data) if each["record"] == record["id"]]
    assert [(each["version"], each["change"]) for each in late] == [("2", "update")]
    assert json.loads(late[0]["old"])["name"] == "Before"

    wait_until(lambda: len(api.ok("GET", f"/api/integrations/logs?run={run['id']}")["value"]) == 3)
    logs = api.ok("GET", "/api/integrations/logs?connection=told")["value"]
    newest = max(each["time"] for each in logs)
    _, data = exported(what="logs", connection="told", until=newest)
    expected = [each for each in logs if each["time"] < newest]
    assert [each for each in lines_of(data) if each["event"] != "run.asked"] == [
        each for each in expected if each["event"] != "run.asked"
    ]
    _, data = exported(what="logs", format="csv", connection="told", until=newest)
    assert [each["event"] for each in rows_of(data)] == [each["event"] for each in expected]


def test_the_same_request_twice_is_one_export(api, connect):
    connect("again")
    body = {"what": "records", "entity": "account", "connection": "again"}
    headers = {"Idempotency-Key": "export-once"}
    first, second = (api("POST", "/api/exports", body, headers=headers) for _ in range(2))
    assert (first.status_code, second.status_code) == (202, 202)
    assert first.json()["id"] == second.json()["id"]
    assert second.headers["Operation-Location"].startswith(f"{PUBLIC_URL}/api/runs/")
    assert second.headers["Idempotent-Replayed"] == "true"
    api.ended(first.headers["Operation-Location"])


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"what": "records"}, "entity"),
        ({"what": "history"}, "entity"),
        ({"what": "everything", "entity": "account"}, "what"),
        ({"what": "records", "entity": "nothing"}, "entity"),
        ({"what": "records", "entity": "account", "since": "2026-01-01T00:00:00Z"}, "since"),
        ({"what": "history", "entity": "account", "filter": "name eq 'x'"}, "filter"),
        ({"what": "records", "entity": "account", "filter": "nope eq 'x'"}, "filter"),
        ({"what": "logs", "until": "today"}, "until"),
        ({"what": "logs", "bom": True}, "bom"),
        ({"what": "logs", "format": "xlsx"}, "format"),
    ],
)
def test_a_wish_that_means_nothing_is_named_and_starts_nothing(api, body, field):
    answer = api("POST", "/api/exports", body)
    assert (answer.status_code, answer.json()["errors"][0]["field"]) == (400, field)
