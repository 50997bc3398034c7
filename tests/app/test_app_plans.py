"""Plans over the API: made, paged through and carried out; runs with options, and their end before their time."""

import pytest

pytestmark = pytest.mark.xdist_group("app-sync")


@pytest.fixture
def linked(api, connect, sandbox):
    """Connects, once everything was pulled; gives the ids of the rows there."""

    def make(slug, **more):
        connect(slug, **more)
        api.run(slug)
        return sandbox.accounts()

    return make


def planned(api, body):
    answer = api("POST", "/api/runs", {"mode": "plan", **body})
    assert answer.status_code == 202, answer.text
    return api.ended(answer.headers["Operation-Location"])


def applied(api, plan_id):
    answer = api("POST", f"/api/runs/{plan_id}/apply")
    assert answer.status_code == 202, answer.text
    assert (answer.json()["mode"], answer.json()["of"]) == ("apply", plan_id)
    return api.ended(answer.headers["Operation-Location"])


def all_decisions(api, run, **query):
    path = f"/api/runs/{run['id']}?" + "&".join(f"{name}={value}" for name, value in query.items())
    found = []
    while path:
        page = api.ok("GET", path)
        found += page["decisions"]
        path = page.get("nextLink", "").removeprefix("https://hub.example.test")
    return found


def test_a_plan_is_made_read_and_applied(api, linked, sandbox):
    rows = linked("planned")
    first, second, third = list(rows)[:3]
    new = sandbox.create(name="Planned S.A.")
    sandbox.update(first, name="Changed there")
    sandbox.delete(second)
    before = api.stored("planned")
    plan = planned(api, {"connection": "planned"})
    assert (plan["status"], plan["of"], plan["read"]) == ("succeeded", "incremental", 3)
    sums = {
        name: plan["plan"][name] for name in ("create", "update", "delete", "conflict", "unchanged", "failed")
    }
    assert sums == {"create": 1, "update": 1, "delete": 1, "conflict": 0, "unchanged": 0, "failed": 0}
    assert plan["plan"]["remote_calls"] >= 1
    assert plan["progress"] == {"done": 3, "expected": None, "entity": None}
    assert api.stored("planned") == before
    by_rid = {each["remote_id"]: each for each in plan["decisions"]}
    assert by_rid[first]["fields"]["name"] == {"old": rows[first]["name"], "new": "Changed there"}
    assert (by_rid[new]["action"], by_rid[second]["action"]) == ("create", "delete")
    assert by_rid[second]["fields"]["deleted_at"] == {"old": None, "new": {"assigned": True}}
    assert by_rid[first]["record_id"] == before[first]["id"]
    assert {each["connection"] for each in plan["decisions"]} == {"planned"}
    assert "nextLink" not in plan
    assert all_decisions(api, plan, top=1) == plan["decisions"]
    assert all_decisions(api, plan, action="update") == [by_rid[first]]

    sandbox.update(third, name="Not in the plan")
    sandbox.update(first, name="Drifted")
    run = applied(api, plan["id"])
    assert (run["status"], run["outcome"]) == ("succeeded", {"applied": 2, "drifted": 1, "failed": 0})
    outcome = {each["remote_id"]: (each["outcome"], each["why"]) for each in run["decisions"]}
    assert outcome[new] == outcome[second] == ("applied", None)
    assert outcome[first][0] == "drifted"
    assert "not as the plan had read it" in outcome[first][1]
    stored = api.stored("planned")
    assert stored[new]["name"] == "Planned S.A."
    assert stored[second]["deleted_at"]
    assert (stored[first]["name"], stored[third]["name"]) == (rows[first]["name"], rows[third]["name"])

    again = applied(api, plan["id"])
    assert {each["why"] for each in again["decisions"] if each["outcome"] == "applied"} == {
        "It was so already."
    }
    api.run("planned")
    stored = api.stored("planned")
    assert (stored[first]["name"], stored[third]["name"]) == ("Drifted", "Not in the plan")


def test_a_plan_of_several_entities_has_their_sums_and_all_decisions(api, connect, sandbox):
    connect("several", entities={"account": "pull", "contact": "pull"})
    plan = planned(api, {"connection": "several", "of": "full"})
    rows = len(sandbox.accounts())
    assert {each["of"] for each in plan["children"]} == {"full"}
    assert (
        plan["plan"]["create"] == plan["progress"]["done"] == sum(each["read"] for each in plan["children"])
    )
    assert len(all_decisions(api, plan, top=200)) == plan["plan"]["create"] > rows
    run = applied(api, plan["id"])
    assert run["outcome"]["applied"] == plan["plan"]["create"]
    assert {each["of"] for each in run["children"]} == {each["id"] for each in plan["children"]}
    assert len(api.stored("several")) == rows


def test_the_seed_name_of_a_run_and_its_dry_run(api, linked, sandbox):
    rows = linked("seed")
    sandbox.update(next(iter(rows)), name="Dry")
    body = {"connection": "seed", "strategy": "dynamics-wins", "limit": 1}
    answer = api("POST", "/api/integrations/sync", {**body, "dry_run": True})
    dry = api.ended(answer.headers["Operation-Location"])
    assert (dry["mode"], dry["of"], dry["plan"]["update"]) == ("plan", "incremental", 1)
    assert (dry["strategy"], dry["limit"]) == ("dynamics-wins", 1)
    answer = api("POST", "/api/integrations/sync", body)
    run = api.ended(answer.headers["Operation-Location"])
    assert (run["mode"], run["of"], run["counts"]["updated"], run["read"]) == ("incremental", None, 1, 1)
    assert (run["strategy"], run["limit"]) == ("dynamics-wins", 1)


@pytest.mark.parametrize(
    ("body", "field", "detail"),
    [
        ({"of": "full"}, "of", "of: says what a plan is a plan of; give it with mode plan alone."),
        ({"mode": "full", "limit": 5}, "limit",
         "limit: a full run deletes what it did not read; leave it out, or use mode incremental."),
        ({"mode": "plan", "of": "full", "since": "2026-01-01T00:00:00Z"}, "since",
         "since: a full run reads everything; leave it out."),
        ({"mode": "plan", "of": "push", "strategy": "manual"}, "strategy",
         "strategy: a push sends what was decided before; give it with a run that reads."),
        ({"mode": "push", "limit": 5}, "limit",
         "limit: a push run looks at every record; leave it out, or plan it first."),
        ({"limit": 0}, "limit", "limit: input should be greater than or equal to 1."),
        ({"strategy": "mine"}, "strategy", None),
    ],
)  # fmt: skip
def test_options_that_make_no_sense_together_are_refused_by_name(api, demo, problem, body, field, detail):
    for path in ("/api/runs", "/api/integrations/sync"):
        answer = api("POST", path, {"connection": "demo", **body})
        assert (answer.status_code, answer.json()["errors"][0]["field"]) == (400, field)
        if detail is not None:
            problem(answer, 400, "BadRequest", detail, field)


def test_what_is_no_plan_is_not_applied(api, linked, problem):
    linked("noplan")
    run = api.run("noplan")
    detail = f"Run {run['id']} is no plan, but of mode incremental; only a plan can be applied."
    problem(api("POST", f"/api/runs/{run['id']}/apply"), 409, "Conflict", detail)
    detail = f"action: run {run['id']} has no decisions to page through."
    problem(api("GET", f"/api/runs/{run['id']}?action=create"), 400, "BadRequest", detail, "action")


def test_a_run_that_has_not_ended_is_cancelled(api, linked, connect, sandbox, faults):
    """One that waits for a busy system; the next one finds everything."""
    rows = linked("ended")
    sandbox.update(next(iter(rows)), name="After the cancel")
    faults("throttle", count=None, retry_after=30)
    run = api.ok("POST", "/api/runs", {"connection": "ended", "mode": "full"})
    cancelled = api.ok("POST", f"/api/runs/{run['id']}/cancel")
    assert (cancelled["status"], cancelled["problem"]["code"]) == ("failed", "Cancelled")
    assert api.ended(f"/api/runs/{run['id']}")["status"] == "failed"
