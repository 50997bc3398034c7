"""The command line against answers that a real hub gives rarely or not yet, and where its key goes."""

import json
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

from crm_core.cli.client import is_local
from crm_core.cli.failures import Exit
from tests.cli_driver import environment, piped
from tests.recorded_hub import problem, recorded_hub
from tests.unit.conftest import KEY
from tests.unit.recorded_answers import OTHER_HOST, RUN

ROOT = Path(__file__).resolve().parents[2]
EMPTY = (200, {"value": []})


class TestErrors:
    @pytest.mark.parametrize(
        ("answer", "code", "words"),
        [
            (problem(401, "Unauthenticated", "The API key is wrong."), 4, ["The API key is wrong.", "CRMHUB_KEY", "trace 000"]),
            (problem(403, "Forbidden", "This needs the role Operator; the key has Reader."), 4, ["Operator", "a key with the role"]),
            (problem(404, "NotFound", "There is nothing at /api/runs; GET"), 5, ["older than this command"]),
            (problem(409, "Conflict", "The run r-9 works."), 6, ["r-9"]),
            (problem(412, "Stale", "It has moved on."), 6, ["Look at it again"]),
            (problem(400, "BadRequest", "one: a.", errors=[{"field": "one", "message": "one: a."}, {"field": "two", "message": "two: b."}]), 2, ["one: a.", "two: b."]),
            (problem(500, "Bug", "The hub has a fault."), 1, ["a fault of the hub's own"]),
            (problem(502, "AuthFailed", "The sign-in failed.", vendor={"system": "dynamics365", "status": 401, "code": "AADSTS7", "message": "no\x1b[31m"}), 1,
             ["dynamics365 said: 401 AADSTS7 no\\u001b[31m", "doctor"]),
            ((200, b"<html>a router</html>"), 3, ["not JSON"]),
            ((200, []), 3, ["it is no hub"]),
            ((200, b"[" * 100_000), 3, ["it is no hub"]),
            ((502, b"Bad Gateway"), 3, ["answers 502, but not as a hub does"]),
            ((503, {"error": "busy"}), 3, ["answers 503"]),
            ((301, b"", {"Location": "https://elsewhere.example/"}), 3, ["redirects to https://elsewhere.example/", "--url"]),
        ],
    )  # fmt: skip
    def test_each_is_told_with_what_to_do(self, hub, cli, answer, code, words):
        hub.say("GET", "/api/runs", answer)
        done = cli("runs")
        assert (done.code, done.out) == (code, "")
        assert all(word in done.err for word in words), done.err
        assert "\x1b" not in done.err

    def test_a_time_to_wait_is_told(self, hub, cli):
        status, body, headers = problem(503, "RateLimited", "It is busy.")
        hub.say("GET", "/api/runs", (status, body, {**headers, "Retry-After": "7"}))
        done = cli("runs")
        assert (done.code, "Try again in 7 s." in done.err) == (1, True)

    def test_no_hub_is_told_with_the_way_to_one(self):
        done = piped("runs", env={"CRMHUB_URL": "http://127.0.0.1:9", "CRMHUB_KEY": KEY})
        assert (done.code, done.out) == (3, "")
        assert "No hub answers at http://127.0.0.1:9" in done.err
        assert "make run" in done.err

    def test_a_hub_that_does_not_answer_is_left(self, hub, cli):
        hub.say("GET", "/api/runs", lambda _: (time.sleep(3), EMPTY)[1])
        done = cli("runs", "--timeout", "1")
        assert (done.code, "has not answered for 1 s" in done.err) == (3, True)

    def test_a_connection_that_ends_without_an_answer_is_tried_once_more_as_the_same_request(self, hub, cli):
        queued = {**RUN, "status": "queued", "ended_at": None}
        hub.say("POST", "/api/runs", (0, b""), (202, queued))
        assert cli("sync", "run", "demo", "--no-wait").code == 0
        first, second = hub.asked
        assert first.headers["idempotency-key"] == second.headers["idempotency-key"]
        assert first.body == second.body == {"connection": "demo", "mode": "incremental"}
        hub.say("POST", "/api/runs", (0, b""))
        assert cli("sync", "run", "demo", "--no-wait").code == 3

    @pytest.mark.parametrize(
        "url",
        [
            "hub.example.com", "ftp://hub.example.com", "http://user:word@127.0.0.1", "http://:word@127.0.0.1", "http://",
            "http://[", "http://[::1", "http://hub..example.com", f"http://{'a' * 70}.example.com", "http://127.0.0.1:x",
            "http://127.0.0.1:99999", "http://127.0.0.1/ñ", "http://127.0.0.1/?key=x",
        ],
    )  # fmt: skip
    def test_what_is_no_address_is_said(self, url):
        done = piped("runs", "--url", url)
        assert (done.code, "--url: expected an address" in done.err) == (2, True), done.err

    @pytest.mark.parametrize("text", ["inf", "1e400", "nan", "86401", "0"])
    def test_a_time_that_nobody_waits_is_refused(self, hub, cli, text):
        done = cli("runs", "--timeout", text)
        assert (done.code, "--timeout" in done.err, hub.asked) == (2, True, []), done.err

    @pytest.mark.parametrize(
        "arguments",
        [
            ("records", "list", b"\x80"),
            ("records", "list", "accounts", "--filter", b"\x80"),
            ("conflicts", "resolve", "c", "--value", b"\x80"),
            ("runs", "--columns", b"id,\x80"),
            (b"\x80",),
        ],
    )
    def test_what_is_no_text_is_refused(self, hub, cli, arguments):
        done = cli(*arguments)
        assert (done.code, "is not UTF-8" in done.err, hub.asked) == (2, True, []), done.err

    def test_without_its_packages_it_says_which_are_missing(self):
        program = "import sys; sys.modules['typer'] = None; sys.argv = ['x']; from crm_core.__main__ import main; sys.exit(main())"
        done = subprocess.run(
            [sys.executable, "-c", program], env=environment(), capture_output=True, check=False
        )
        assert (done.returncode, b"requirements-cli.txt" in done.stderr, b"Traceback" in done.stderr) == (
            1,
            True,
            False,
        )


class TestKey:
    @pytest.mark.parametrize(
        ("url", "local"),
        [
            ("http://127.0.0.1:7071", True), ("http://localhost:1", True), ("http://[::1]:1", True), ("http://127.9.9.9", True),
            ("http://127.0.0.1.example.com", False), ("https://hub.example.com", False), ("http://localhost.example.com", False),
            ("http://10.0.0.1", False),
        ],
    )  # fmt: skip
    def test_only_this_machine_is_local(self, url, local):
        assert is_local(url) is local

    @pytest.mark.parametrize(
        ("name", "text"),
        [
            (".data/api-key", f"{KEY}\n"),
            ("local.settings.json", json.dumps({"Values": {"HUB_API_KEY": KEY}})),
        ],
    )
    def test_the_local_hub_s_own_key_is_found(self, hub, tmp_path, name, text):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
        hub.say("GET", "/api/runs", EMPTY)
        assert piped("runs", env={"CRMHUB_URL": hub.url}, cwd=tmp_path).code == 0
        assert [each.headers.get("x-api-key") for each in hub.asked] == [KEY]

    def test_it_goes_to_no_other_machine(self, tmp_path):
        (tmp_path / ".data").mkdir()
        (tmp_path / ".data/api-key").write_text(KEY)
        program = (
            "from crm_core.cli.client import find_key\n"
            "print([find_key(url, '', None).text for url in ('https://hub.example.com', 'http://127.0.0.1:1')])"
        )
        done = subprocess.run(
            [sys.executable, "-c", program], env=environment(), cwd=tmp_path, capture_output=True, check=True
        )
        assert done.stdout.decode().strip() == str(["", KEY])

    def test_options_win_over_the_environment_and_a_file_over_both(self, hub, cli, tmp_path):
        hub.say("GET", "/api/runs", EMPTY)
        file = tmp_path / "key"
        file.write_text("of-the-file-0123456789\n")
        cli("runs", "--key", "of-the-option-0123456789")
        cli("runs", "--key", "of-the-option-0123456789", "--key-file", str(file))
        cli("--key-file", str(file), "runs")
        assert [each.headers["x-api-key"][:12] for each in hub.asked] == [
            "of-the-optio",
            "of-the-file-",
            "of-the-file-",
        ]

    def test_a_key_that_is_none_is_refused_without_showing_it(self, cli):
        done = cli("runs", "--key", "a\u00f1b\nsecret")
        assert (done.code, "secret" in done.err) == (2, False)
        gone = cli("runs", "--key-file", "/nonexistent/key")
        assert (gone.code, "can't be read" in gone.err) == (2, True)

    def test_links_of_a_page_are_followed_at_the_hub_that_was_asked(self, hub, cli):
        first = {"value": [RUN], "nextLink": f"{OTHER_HOST}/api/runs?top=200&skiptoken=a%2Fb"}
        hub.say("GET", "/api/runs", (200, first), (200, {"value": [{**RUN, "id": "run-2"}]}))
        done = cli("runs", "--all", "--output", "json")
        assert [each["id"] for each in json.loads(done.out)] == ["run-1", "run-2"]
        assert hub.asked[1].target == "/api/runs?top=200&skiptoken=a%2Fb"

    def test_a_hub_behind_a_path_is_asked_for_the_next_page_there(self, hub, cli):
        """The hub's own address may have another path than the one by which it was asked."""
        for base in ("/crm", "/elsewhere/crm", ""):
            first = {"value": [RUN], "nextLink": f"{OTHER_HOST}{base}/api/runs?top=200&skiptoken=a%2Fb"}
            hub.say("GET", "/crm/api/runs", (200, first), EMPTY)
            assert cli("runs", "--all", "--url", f"{hub.url}/crm").code == 0
            assert hub.asked[-1].target == "/crm/api/runs?top=200&skiptoken=a%2Fb"

    @pytest.mark.parametrize(
        "link",
        ["http:@elsewhere.example/a?b=c", "//elsewhere.example/a?b=c", "http://[/a?b=c", "?b=c"],
    )
    def test_no_link_of_a_list_leads_elsewhere(self, hub, cli, link):
        hub.say("GET", "/api/runs", (200, {"value": [RUN], "nextLink": link}), EMPTY)
        assert cli("runs", "--all").code == 0
        assert [each.target for each in hub.asked[1:]] == ["/api/runs?b=c"]

    def test_no_proxy_is_asked_for_this_machine_and_no_redirect_gets_the_key(self, hub, cli):
        with recorded_hub() as other:
            hub.say("GET", "/api/runs", (302, b"", {"Location": other.url + "/api/runs"}))
            assert cli("runs", env={"http_proxy": other.url, "HTTP_PROXY": other.url}).code == 3
            assert other.asked == []
            assert len(hub.asked) == 1

    def test_a_key_in_the_clear_is_warned_of(self):
        done = piped("runs", "--url", "http://192.0.2.1:9", "--key", KEY, "--timeout", "1")
        assert done.code == 3
        assert "is not https" in done.err


class TestDoctor:
    def test_a_key_that_may_only_read_is_told_and_asks_nothing_of_systems(self, hub, cli):
        sick = {
            "slug": "sales",
            "state": "needs_attention",
            "problem": {"code": "AuthFailed", "message": "The secret is old."},
        }
        hub.say(
            "GET",
            "/api/integrations",
            (200, {"value": [{"slug": "demo", "state": "ok"}, sick, {"slug": "off", "state": "paused"}]}),
        )
        hub.say("GET", "/api/openapi.json", (200, {"info": {"version": "9.9.9"}}))
        hub.say(
            "GET",
            "/api/deadletters",
            problem(403, "Forbidden", "This needs the role Operator; the key has Reader."),
        )
        problems = {
            "connection": "demo",
            "entity": "case",
            "problem": {"code": "NotPermitted", "message": "prvReadIncident is missing."},
        }
        hub.say("GET", "/api/integrations/status", (200, {"value": [problems]}))
        hub.say("GET", "/api/conflicts", (200, {"value": [{"id": "c"}]}))
        done = cli("doctor", "--output", "json")
        found = {each["check"]: each for each in json.loads(done.out) if each["status"] != "skipped"}
        assert done.code == 1
        assert (found["role"]["found"], found["role"]["status"], found["version"]["found"]) == (
            "Reader",
            "warning",
            "9.9.9",
        )
        assert "The secret is old." in found["connection sales"]["found"]
        assert "connections test sales" in found["connection sales"]["remedy"]
        assert (found["connection off"]["status"], "connection demo" in found) == ("warning", False)
        assert found["sync demo case"]["found"] == "prvReadIncident is missing."
        assert found["conflicts"] == {
            "check": "conflicts",
            "status": "warning",
            "found": "1 wait",
            "remedy": "`python -m crm_core conflicts`",
        }
        assert "Failed: connection sales, sync demo case." in done.err
        assert not any("diagnose" in each.path for each in hub.asked)

    def test_what_is_found_before_the_trouble_is_shown(self, hub, cli):
        hub.say("GET", "/api/integrations", problem(401, "Unauthenticated", "The API key is wrong."))
        done = cli("doctor", "--output", "json")
        assert (done.code, [each["check"] for each in json.loads(done.out)]) == (4, ["hub"])
        assert "The API key is wrong." in done.err


HEAVY = (
    "requests",
    "urllib3",
    "azure",
    "pydantic",
    "msal",
    "werkzeug",
    "rich.table",
    "rich.progress",
    "http.client",
    "urllib.request",
)


def test_help_brings_in_nothing_that_it_does_not_need():
    program = (
        "import sys; from crm_core.cli.main import run\n"
        "sys.argv = ['x', '--help']\n"
        "try:\n    run()\nfinally:\n    print('|', *sorted(sys.modules), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", program], env=environment(), capture_output=True, check=True)
    loaded = set(done.stderr.decode().split())
    assert "typer" in loaded
    assert [name for name in HEAVY if name in loaded] == []
    assert {name for name in loaded if name.startswith("crm_core.")} <= {
        name for name in loaded if name.startswith("crm_core.cli")
    }


def test_the_exit_codes_are_documented():
    page = (ROOT / "docs" / "cli.md").read_text()
    for code in Exit:
        assert re.search(rf"^\| {int(code)} \|", page, flags=re.MULTILINE), code


def test_every_command_is_documented():
    from tests.cli_driver import commands

    page = (ROOT / "docs" / "cli.md").read_text()
    for words in commands():
        assert " ".join(words) in page, words
