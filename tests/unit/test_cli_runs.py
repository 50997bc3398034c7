"""The command line about runs: planned, applied, undone, followed, and their log; by recorded answers."""

import json
import re

import pytest

from crm_core.cli.failures import Exit
from tests.cli_driver import at_terminal, piped, without_colours
from tests.recorded_hub import problem
from tests.unit.recorded_answers import AT, DECISIONS, RUN, record_answers

EMPTY = (200, {"value": []})


class TestPlans:
    @pytest.fixture(autouse=True)
    def recorded(self, hub):
        record_answers(hub)

    def test_a_plan_is_asked_for_waited_for_and_shown(self, hub, cli):
        done = cli(
            "sync", "plan", "demo", "--mode", "full", "-e", "account", "--since", "2026-11-01T00:00:00Z", "--filter", "name ne null",
            "--limit", "100", "--strategy", "remote",
        )  # fmt: skip
        assert done.code == 0
        assert hub.asked[0].body == {
            "connection": "demo", "mode": "plan", "of": "full", "entities": ["account"], "since": "2026-11-01T00:00:00Z",
            "filter": "name ne null", "limit": 100, "strategy": "remote",
        }  # fmt: skip
        sums, decisions = done.out.split("\n\n")
        head, row = (line.split() for line in sums.splitlines())
        assert (head[:3], row[:3]) == (["entity", "create", "update"], ["account", "1", "1"])
        assert len(decisions.splitlines()) == 1 + len(DECISIONS)
        assert "name: Peña\\u001b[31m" in done.out
        assert "phone: +57 1 -> =2" in done.out
        assert "city: ours Quito, theirs Loja" in done.out
        assert "create at odoo" in done.out
        assert "sync apply plan-1" in done.err

    def test_as_json_a_plan_is_one_object_with_its_first_decisions(self, cli):
        plan = json.loads(cli("sync", "plan", "demo", "--decisions", "2", "--output", "json").out)
        assert (plan["plan"]["create"], [each["id"] for each in plan["decisions"]]) == (1, [0, 1])

    def test_all_decisions_are_listed_page_by_page(self, cli):
        listed = json.loads(cli("runs", "decisions", "plan-2", "--all", "--output", "json").out)
        assert [each["id"] for each in listed] == [0, 1, 2]
        (one,) = json.loads(cli("runs", "decisions", "plan-2", "--action", "update", "--output", "json").out)
        assert one == json.loads(json.dumps(DECISIONS[1]))
        some = cli("runs", "decisions", "plan-2", "--limit", "2")
        assert "first 2" in some.err

    def test_an_apply_needs_a_yes(self, hub, cli):
        done = cli("sync", "apply", "plan-2", typed="y\n")
        assert (done.code, "Say --yes" in done.err) == (2, True)
        assert [each.method for each in hub.asked] == ["GET"]

    @pytest.mark.parametrize(("answer", "code"), [("y\n", 0), ("yes\n", 0), ("\n", 1), ("n\n", 1)])
    def test_at_a_terminal_a_person_is_asked(self, hub, answer, code, there):
        done = at_terminal("sync", "apply", "plan-2", env=there, answers=[("[y/N]", answer)])
        assert done.code == code, done.out
        assert "create 1, update 1, conflict 1 at demo. Apply it?" in without_colours(done.out)
        assert any(each.path == "/api/runs/plan-2/apply" for each in hub.asked) is (code == 0)

    def test_what_has_drifted_is_listed_and_told_by_the_exit_code(self, hub, cli):
        record_answers(hub, drifted=True)
        done = cli("sync", "apply", "plan-2", "--yes")
        assert done.code == Exit.CONFLICT
        assert "phone has changed since" in done.out
        assert "1 of 3 were not done" in done.err
        told = json.loads(cli("sync", "apply", "plan-2", "--yes", "--output", "json").out)
        assert (told["outcome"]["drifted"], [each["id"] for each in told["decisions"]]) == (1, [1])

    def test_a_run_that_is_no_plan_is_not_applied(self, hub, cli):
        done = cli("sync", "apply", "run-1", "--yes")
        assert (done.code, "is no plan" in done.err) == (2, True)
        assert all(each.method == "GET" for each in hub.asked)

    def test_an_undo_is_shown_as_a_plan_and_asked_about(self, hub, there):
        done = at_terminal("runs", "undo", "run-1", env=there, answers=[("[y/N]", "n\n")])
        assert (done.code, "phone: +57 1 -> =2" in without_colours(done.out)) == (1, True)
        assert not any(each.path.endswith("/apply") for each in hub.asked)
        assert piped("runs", "undo", "run-1", "--yes", env=there).code == 0
        assert hub.asked[-1].path == "/api/runs/undo-of-undo-1"

    def test_many_conflicts_are_counted_first(self, hub, cli):
        words = ("conflicts", "resolve", "--kind", "value", "--field", "phone", "--take", "theirs")
        decision = {"where": {"kind": "value", "field": "phone"}, "take": "theirs"}
        assert cli(*words).code == 2
        seen = cli(*words, "--preview")
        assert (seen.code, seen.err) == (0, "Would decide 2 by theirs (1 can't be decided so).\n")
        assert "update at odoo" in seen.out
        assert [each.body for each in hub.asked] == [{**decision, "preview": True}] * 2
        hub.asked.clear()
        assert cli(*words, "--yes").code == 0
        assert [each.body for each in hub.asked] == [
            {**decision, "preview": True},
            {**decision, "as_of": AT},
            None,
        ]

    def test_many_conflicts_are_shown_before_it_asks(self, hub, there):
        words = ("conflicts", "resolve", "--kind", "value", "--field", "phone", "--take", "theirs")
        done = at_terminal(*words, env=there, answers=[("[y/N]", "n\n")])
        shown, asked, _ = without_colours(done.out).partition("Decide 2 by theirs")
        assert (done.code, bool(asked), "update at odoo" in shown) == (1, True, True), done.out
        assert len(hub.asked) == 1
        for form in ("json", "csv"):  # what a program reads is the run alone
            done = at_terminal(*words, "-o", form, env=there, answers=[("[y/N]", "y\n")], out=False)
            assert (done.code, "update at odoo" in done.out) == (0, False)

    def test_a_value_is_text_or_json(self, hub, cli):
        hub.say("POST", "/api/conflicts/c", (200, {"id": "r-1"}))
        for option, text in (("--value", "5"), ("--value-json", "5"), ("--value-json", "null")):
            assert cli("conflicts", "resolve", "c", option, text).code == 0
        assert [each.body["value"] for each in hub.asked] == ["5", 5, None]
        assert cli("conflicts", "resolve", "c", "--value-json", "{").code == 2

    def test_one_is_decided_as_it_was_seen_if_its_etag_is_said(self, hub, cli):
        hub.say(
            "POST", "/api/conflicts/c", (200, {"id": "r"}), problem(412, "Stale", "It is not what was read.")
        )
        assert cli("conflicts", "resolve", "c", "--take", "ours", "--etag", "20776b1a").code == 0
        assert cli("conflicts", "resolve", "c", "--take", "ours", "--etag", '"20776b1a"').code == 6
        assert [each.headers.get("if-match") for each in hub.asked] == ['"20776b1a"'] * 2
        assert cli("conflicts", "resolve", "--kind", "value", "--take", "ours", "--etag", "x").code == 2

    @pytest.mark.parametrize("etag", ["a\nX-Evil: 1", "a\r", "\u20ac", "\u00e9", '"a'])
    def test_what_no_etag_can_be_is_refused(self, hub, cli, etag):
        done = cli("conflicts", "resolve", "c", "--take", "ours", "--etag", etag)
        assert (done.code, "--etag: " in done.err, hub.asked) == (2, True, []), done.err

    def test_why_says_what_each_connection_holds(self, cli):
        done = cli("records", "why", "accounts", "r-1", "phone")
        assert re.search(r"^replaced +1$", done.out, flags=re.MULTILINE)
        assert re.search(r"^demo +same +2$", done.out, flags=re.MULTILINE)

    def test_an_undo_of_a_record_holds_for_what_was_looked_at(self, hub, cli):
        done = cli("records", "undo", "accounts", "r-1", "--to", "1", "--yes")
        assert (done.code, "kind: can't be given back." in done.out) == (0, True)
        assert (hub.asked[-1].body, hub.asked[-1].headers["if-match"]) == ({"version": 1}, '"3"')


class TestFollow:
    def test_a_hub_that_is_away_for_a_moment_is_waited_for(self, hub, cli):
        running = {**RUN, "status": "running", "ended_at": None}
        hub.say("POST", "/api/runs", (202, running))
        hub.say(
            "GET",
            "/api/runs/run-1",
            problem(503, "StoreUnavailable", "Wait."),
            (502, b"restarts"),
            (200, running),
            (200, RUN),
        )
        done = cli("sync", "run", "demo", "--output", "json")
        assert (done.code, json.loads(done.out)["status"]) == (0, "succeeded")

    def test_a_run_that_is_gone_is_not_waited_for(self, hub, cli):
        hub.say("POST", "/api/runs", (202, {**RUN, "status": "running", "ended_at": None}))
        hub.say("GET", "/api/runs/run-1", problem(404, "NotFound", "There is no run 'run-1'."))
        assert cli("sync", "run", "demo").code == 5

    def test_log_lines_are_shown_once_each_as_they_come(self, hub, there):
        one, two = (
            {"time": f"2026-11-24T13:45:0{n}Z", "level": "info", "message": f"line {n}"} for n in (1, 2)
        )
        hub.say("GET", "/api/integrations/logs", (200, {"value": [two, one]}), (200, {"value": [two, one]}),
                (200, {"value": [two, {**two, "message": "line 3"}]}), problem(404, "NotFound", "It is over."))  # fmt: skip
        done = piped("logs", "--follow", "--output", "json", env=there)
        assert [json.loads(line)["message"] for line in done.out.splitlines()] == [
            "line 1",
            "line 2",
            "line 3",
        ]
        assert "since=" in hub.asked[0].target

    def test_ctrl_c_ends_following(self, hub, there):
        hub.say(
            "GET",
            "/api/integrations/logs",
            (200, {"value": [{"time": "2026-11-24T13:45:01Z", "message": "one line"}]}),
        )
        done = at_terminal("logs", "-f", env=there, answers=[("one line", "\x03")])
        assert (done.code, "Traceback" in done.out) == (0, False)

    def test_how_long_ago_is_a_time(self, hub, cli):
        hub.say("GET", "/api/integrations/logs", EMPTY)
        assert cli("logs", "--since", "2h").code == 0
        assert re.search(r"since=20\d\d-\d\d-\d\dT\d\d%3A", hub.asked[0].target)

    @pytest.mark.parametrize(
        ("arguments", "method", "path", "answer"),
        [
            (("logs",), "GET", "/api/integrations/logs", problem(404, "NotFound", "There is no connection 'logs'; GET")),
            (("logs",), "GET", "/api/integrations/logs", problem(400, "BadRequest", "top: is no parameter of this route; known are none.")),
            (("conflicts", "resolve", "--kind", "value", "--take", "ours", "--yes"), "POST", "/api/conflicts/resolve",
             problem(400, "BadRequest", "where: extra inputs are not permitted.")),
            (("sync", "plan", "demo"), "POST", "/api/runs", problem(400, "BadRequest", "mode: no.", errors=[
                {"field": "mode", "message": "mode: no."}, {"field": "of", "message": "of: no."}])),
            (("records", "why", "accounts", "x", "phone"), "GET", "/none", EMPTY),
            (("runs", "undo", "x", "--yes"), "POST", "/none", EMPTY),
        ],
    )  # fmt: skip
    def test_what_an_older_hub_has_not_is_said(self, hub, cli, arguments, method, path, answer):
        hub.say(method, path, answer)
        done = cli(*arguments)
        assert done.code == 5
        assert "pdate the hub" in done.err


def test_a_time_before_all_times_is_said(cli):
    done = cli("logs", "--since", "999999d")
    assert (done.code, "is before all time" in done.err) == (2, True)
