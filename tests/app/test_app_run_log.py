"""The log of runs over HTTP: what work leaves, and how it is asked for."""

import pytest

from tests.app.conftest import many_at_once, too_many, wait_until

pytestmark = pytest.mark.xdist_group("app-sync")

LOGS = "/api/integrations/logs"


def lines(api, query="", most=100):
    """All lines that a query finds, newest first."""
    return [each for page in api.pages(f"{LOGS}?{query}", most) for each in page]


def events(found):
    return [each["event"] for each in found]


def of_run(api, run):
    """The lines of a run once its end is there: they are written after the run's row."""
    return wait_until(
        lambda: found if "run.ended" in events(found := lines(api, f"run={run['id']}")) else None, 20
    )


def test_a_run_tells_who_asked_for_it_and_how_it_ended(api, connect):
    connect("logged")
    run = api.run("logged")
    found = of_run(api, run)
    assert events(found) == ["run.ended", "run.begun", "run.asked"]
    ended, begun, asked = found
    assert (ended["level"], ended["connection"], ended["entity"]) == ("info", "logged", "account")
    assert (ended["message"], ended["read"]) == ("The run succeeded.", run["read"])
    assert ended["counts"] == {"created": run["counts"]["created"]}
    assert begun["message"] == "A run of mode incremental began, for key:settings."
    assert begun["origin"] == "key:settings"
    assert (asked["connection"], asked["run"]) == ("logged", run["id"])
    assert asked["trace"] == begun["trace"] == ended["trace"] == run["trace"]
    assert [each["time"] for each in found] == sorted((each["time"] for each in found), reverse=True)


def test_an_undo_and_its_plan_tell_who_asked_when_they_began_and_how_they_ended(api, connect, account):
    connect("taken-back")
    account(name="Made by mistake")
    run = api.run("taken-back")
    plan = api.ended(api("POST", f"/api/runs/{run['id']}/undo").headers["Operation-Location"])
    undo = api.ended(api("POST", f"/api/runs/{plan['id']}/apply").headers["Operation-Location"])
    for each, of, words in ((plan, "undo", "A plan of the undo"), (undo, plan["id"], "The undo")):
        found = of_run(api, each)
        assert events(found) == ["run.ended", "run.begun", "run.asked"]
        _, begun, asked = found
        assert asked["message"] == f"{words} of run {run['id']} was asked for by key:settings."
        assert begun["message"] == f"A run of mode {each['mode']} began, for key:settings."
        assert (begun["of"], begun["undoes"], begun["origin"]) == (of, run["id"], "key:settings")
        assert {(line["connection"], line["entity"]) for line in found} == {("taken-back", "account")}
        assert {line["trace"] for line in found} == {each["trace"]}


def test_a_batch_tells_who_asked_when_it_began_and_how_it_ended(api, connect):
    connect("batched")
    operations = [{"method": "create", "fields": {"name": f"Batched {number}"}} for number in range(3)]
    started = api(
        "POST", "/api/crm/accounts/batch?connection=batched", {"operations": operations},
        headers={"Prefer": "respond-async"},
    )  # fmt: skip
    run = api.ended(started.headers["Operation-Location"])
    found = of_run(api, run)
    assert events(found) == ["run.ended", "run.begun", "run.asked"]
    assert [line["message"] for line in found[1:]] == [
        "A run of mode batch began, for key:settings.",
        "A batch of 3 operations was asked for by key:settings.",
    ]
    assert {(line["connection"], line["entity"]) for line in found} == {("batched", "account")}


def test_many_decisions_at_once_tell_when_they_began_and_how_they_ended(api, connect):
    connect("decided")
    body = {"where": {"entity": "accounts", "connection": "decided", "field": "phone"}, "take": "theirs"}
    as_of = api.ok("POST", "/api/conflicts/resolve", {**body, "preview": True})["as_of"]
    started = api("POST", "/api/conflicts/resolve", {**body, "as_of": as_of})
    assert started.status_code == 202, started.text
    found = of_run(api, api.ended(started.headers["Operation-Location"]))
    assert events(found) == ["run.ended", "run.begun", "run.asked"]
    assert (found[1]["message"], found[1]["origin"]) == (
        "A run of mode resolve began, for key:settings.", "key:settings",
    )  # fmt: skip
    assert {(line["connection"], line["entity"]) for line in found} == {("decided", "account")}


def test_a_wait_tells_its_reason_in_the_system_s_words(api, connect, faults):
    connect("slowed")
    faults("throttle", retry_after=3, skip=1, path="*/accounts*")
    found = of_run(api, api.run("slowed"))
    (wait,) = [each for each in found if each["event"] == "work.waits"]
    assert (wait["level"], wait["error"], wait["status"]) == ("warning", "RateLimited", 429)
    assert wait["message"].startswith("Pull failed: ")
    assert wait["message"].endswith("Again in 3 s.")


def test_a_connection_that_needs_a_person_says_so_and_who_mended_it(api, connect, sandbox):
    connect("broken", secrets={"client_secret": "not-the-right-one"})
    run = api.run("broken")
    assert run["status"] == "failed"
    (ended, *_) = of_run(api, run)
    assert (ended["level"], ended["error"]) == ("error", "AuthFailed")
    waits = lines(api, "connection=broken&level=error&text=WAITS%20for%20a%20person")
    assert events(waits) == ["connection.needs_attention"]
    api.ok("PATCH", "/api/integrations/broken", {"secrets": {"client_secret": "another-wrong-one"}})
    changed = lines(api, "connection=broken&text=config.changed")
    assert [each["message"] for each in changed] == [
        "The connection broken was changed (secrets).",
        "The connection broken was made (connector, entities, schedule, secrets, settings, slug).",
    ]
    assert {each["by"] for each in changed} == {"key:settings"}


def test_a_stop_by_the_brake_and_what_a_person_decided_are_told(api, connect, sandbox):
    connect("halted")
    many = too_many(api, sandbox, "halted")
    api.run("halted")
    many_at_once(api, "halted", [{"method": "delete", "id": rid} for rid in many])
    run = api.run("halted")
    assert run["status"] == "stopped"
    api.ended(api("POST", f"/api/runs/{run['id']}/approve").headers["Operation-Location"])
    found = of_run(api, run)
    assert events(found) == ["run.ended", "run.approved", "run.stopped", "run.begun", "run.asked"]
    assert found[2]["message"].startswith("The remote system shows at least ")
    assert found[1]["by"] == "key:settings"


def test_what_waits_for_a_person_is_told_by_record_without_a_value(api, connect, account, sandbox, faults):
    connect("both-ways", entities={"account": {"direction": "both", "policy": "manual"}})
    rid = account(name="Contested", telephone1="1")
    api.run("both-ways")
    record = api.stored("both-ways")[rid]
    sandbox.update(rid, telephone1="theirs-555")
    faults("status", status=503, path="*/accounts(*", method="PATCH", count=1)
    api.ok("PATCH", f"/api/records/accounts/{record['id']}", {"phone": "ours-777"})
    api.run("both-ways")
    found = wait_until(lambda: lines(api, "connection=both-ways&text=record.conflict"), 30)
    assert found[0]["message"] == f"Both sides changed phone of {record['id']}; a person decides."
    assert (found[0]["record"], found[0]["fields"], found[0]["level"]) == (record["id"], ["phone"], "warning")
    for line in lines(api, "connection=both-ways"):
        assert "theirs-555" not in str(line)
        assert "ours-777" not in str(line)


def test_lines_are_found_by_what_they_are_about_a_page_at_a_time(api, connect):
    connect("paged")
    runs = [api.run("paged") for _ in range(3)]
    for run in runs:
        of_run(api, run)
    every = lines(api, "connection=paged")
    assert len(every) == 10  # made; then asked, begun and ended of each
    assert lines(api, "connection=paged&top=3") == every
    assert lines(api, "connection=paged&entity=accounts") == [each for each in every if each["entity"]]
    assert lines(api, f"run={runs[1]['id']}") == [each for each in every if each["run"] == runs[1]["id"]]
    assert lines(api, "connection=paged&level=error") == []
    middle = every[4]["time"]
    assert lines(api, f"connection=paged&since={middle}") == [e for e in every if e["time"] >= middle]
    assert lines(api, f"connection=paged&until={middle}") == [e for e in every if e["time"] < middle]
    for name in ("nobody", "%00", "%23", "a%2Fb", "x" * 600):
        assert lines(api, f"connection={name}") == []
    ahead = api.ok("GET", f"{LOGS}?connection=paged&until=9999-12-31T23:59:59Z&top=10")
    assert ahead["value"] == every  # and not ten of the days that are still to come


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("level=loud", "level"), ("since=yesterday", "since"), ("until=2026-01-01", "until"),
        ("entity=nothing", "entity"), ("text=" + "x" * 101, "text"), ("top=501", "top"),
    ],
)  # fmt: skip
def test_a_wrong_filter_is_named(api, query, field):
    answer = api("GET", f"{LOGS}?{query}")
    assert (answer.status_code, answer.json()["errors"][0]["field"]) == (400, field)
