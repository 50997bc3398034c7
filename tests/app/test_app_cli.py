"""The command line against a real hub: every example, at a terminal and in a pipe."""

import csv
import io
import json
import re
import shlex
from pathlib import Path

import pytest

from tests.app.cli_world import World, world
from tests.app.conftest import API_KEY
from tests.cli_driver import (
    at_terminal,
    commands,
    examples_of,
    examples_of_help,
    filled,
    in_shell,
    piped,
    without_colours,
)

pytestmark = pytest.mark.xdist_group("app-cli")

ROOT = Path(__file__).resolve().parents[2]
HELP = examples_of_help()
DOCUMENTED = [
    each for page in ("docs/cli.md", "README.md", "README.es.md") for each in examples_of(ROOT / page)
]
ESCAPE = "\x1b"


@pytest.fixture(scope="module")
def made(authority, tmp_path_factory, start_sandbox):
    with world(authority, tmp_path_factory, start_sandbox) as found:
        yield found


@pytest.fixture
def there(made: World):
    yield made
    made.tidy()


@pytest.fixture
def cli(there):
    """Runs a command in pipes; what it writes holds no key and no traceback."""

    def run(*arguments, env=None, typed=None):
        done = piped(*arguments, env={**there.env, **(env or {})}, typed=typed)
        assert API_KEY not in done.out + done.err
        assert "Traceback" not in done.err, done.err
        return done

    return run


@pytest.mark.parametrize("example", list(dict.fromkeys([*HELP, *DOCUMENTED])))
def test_every_example_works(there, example):
    line = (
        example
        if "-m crm_core" in example or example.startswith("crmhub")
        else f"python -m crm_core {example}"
    )
    line = line.replace(".venv/bin/python", "python")
    if example.startswith("crmhub"):
        line = f'eval "$(python -m crm_core completion bash)"\n{line}'
    done = in_shell(filled(line, there.find), there.env)
    assert done.code in ((0, 141) if "| head" in line else (0,)), (done.out, done.err)
    assert "Traceback" not in done.err
    assert API_KEY not in done.out + done.err
    if "|" in line or ">" in line:
        return
    if re.search(r"(--output|-o) json", example):
        json.loads(done.out)
    if re.search(r"(--output|-o) csv", example):
        head, *rows = csv.reader(io.StringIO(done.out))
        assert all(len(row) == len(head) for row in rows)


def test_help_shows_the_examples_of_every_command():
    shown = "\n".join(piped(*words, "--help").out for words in commands())
    for example in HELP:
        assert f"  python -m crm_core {example}\n" in shown
    for words in commands():
        assert any(shlex.split(each)[: len(words)] == words for each in HELP), f"{words} has no example"


class TestPipe:
    def test_data_is_on_stdout_and_all_else_on_stderr(self, there, cli):
        there.sandbox.create(name="For the pipe")
        done = cli("sync", "run", "demo", "--entity", "account", "--output", "json")
        assert done.code == 0, done.err
        run = json.loads(done.out)
        assert (run["status"], run["entity"]) == ("succeeded", "account")
        assert run["counts"]["created"] >= 1
        assert done.err == f"Run {run['id']}: incremental, account of demo.\n"
        assert ESCAPE not in done.out + done.err

    def test_a_run_of_several_entities_is_shown_by_its_parts(self, cli):
        done = cli("sync", "run", "demo", "--output", "csv")
        rows = list(csv.DictReader(io.StringIO(done.out)))
        assert [row["entity"] for row in rows][-1] == "all"
        assert {row["entity"] for row in rows[:-1]} == {"account", "lead"}
        assert {row["status"] for row in rows} == {"succeeded"}

    def test_a_list_follows_its_pages(self, there, cli):
        all_of_them = cli("records", "list", "accounts", "--all", "--output", "json")
        stored = {each["id"] for page in there.hub.pages("/api/records/accounts?top=7") for each in page}
        assert {each["id"] for each in json.loads(all_of_them.out)} == stored
        assert len(stored) >= 30
        assert all_of_them.err == ""
        some = cli("records", "list", "accounts", "--limit", "3", "--output", "json")
        assert len(json.loads(some.out)) == 3
        assert some.err == "These are the first 3; --limit and --all show more.\n"

    def test_csv_has_every_field_and_no_formula(self, there, cli):
        there.hub.ok(
            "POST", "/api/records/accounts", {"name": "=1+1", "phone": "+57 1", "description": "una\ndos"}
        )
        done = cli("records", "list", "accounts", "--all", "--output", "csv")
        rows = list(csv.DictReader(io.StringIO(done.out)))
        (mine,) = [row for row in rows if row["name"] == "'=1+1"]
        assert (mine["phone"], mine["description"]) == ("'+57 1", "una\ndos")
        fields = {name for page in there.hub.pages("/api/records/accounts") for each in page for name in each}
        assert set(rows[0]) == fields

    def test_columns_are_chosen(self, cli):
        done = cli("runs", "--limit", "2", "--output", "csv", "--columns", "id,counts.created")
        assert done.out.splitlines()[0] == "id,counts.created"

    def test_a_table_in_a_pipe_is_not_cut(self, there, cli):
        made = there.hub.ok("POST", "/api/records/accounts", {"name": "Ñandú " * 30})
        done = cli("records", "list", "accounts", "--filter", f"name eq '{made['name']}'")
        head, row = done.out.splitlines()
        assert made["name"].strip() in row
        assert head.split()[:3] == ["id", "version", "name"]

    @pytest.mark.parametrize("form", ["table", "json", "csv"])
    def test_a_reader_that_goes_is_no_error(self, there, form):
        line = f"python -m crm_core records list accounts --all --output {form} | head -1; exit ${{PIPESTATUS[0]}}"
        done = in_shell(line, there.env)
        assert (done.code in (0, 141), done.err) == (True, ""), done  # 0: all of it was in the pipe already

    def test_a_question_that_nobody_can_answer_is_not_taken_for_a_yes(self, there, cli):
        made = there.record()
        done = cli("records", "undo", "accounts", made, "--to", "1", typed="y\n")
        assert done.code == 2
        assert "Say --yes" in done.err
        assert there.hub.ok("GET", f"/api/records/accounts/{made}")["version"] == 2


class TestTerminal:
    def test_a_run_shows_its_progress_and_the_result(self, there):
        there.sandbox.create(name="For the terminal")
        done = at_terminal("sync", "run", "demo", "--entity", "account", env=there.env)
        shown = without_colours(done.out)
        assert done.code == 0, done.out
        assert "\x1b[?25l" in done.out  # the cursor is hidden while the bar moves
        assert done.out.index("\x1b[?25h") < done.out.index("succeeded\x1b[0m")
        assert re.search(r"status +succeeded\n", shown)
        assert re.search(r"created +[1-9]", shown)

    def test_data_that_go_elsewhere_are_plain_though_the_rest_is_a_terminal(self, there):
        done = at_terminal("sync", "run", "demo", "--output", "json", env=there.env, out=False)
        data, _, beside = done.out.partition("\n}\n")
        assert json.loads(data + "}")["status"] == "succeeded"
        assert "\x1b[?25l" in beside

    def test_colours_are_for_terminals_that_want_them(self, there):
        coloured = at_terminal("connections", env=there.env)
        assert f"{ESCAPE}[32mok" in coloured.out
        plain = at_terminal("connections", env={**there.env, "NO_COLOR": "1"})
        assert ESCAPE not in plain.out
        assert without_colours(coloured.out) == plain.out.replace("\r\n", "\n")
        piped_out = piped("connections", env=there.env)
        assert ESCAPE not in piped_out.out

    @pytest.mark.parametrize("columns", [20, 60, 120, 250])
    def test_nothing_is_cut_however_narrow_it_is(self, there, columns):
        there.run()
        run = there.hub.ok("GET", "/api/runs?top=1")["value"][0]
        done = at_terminal("runs", "--limit", "1", env={**there.env, "NO_COLOR": "1"}, columns=columns)
        shown = done.out.replace("\r\n", "\n")
        assert run["id"] in shown
        assert "succeeded" in shown
        if columns == 250:
            assert shown.splitlines()[0].split()[:2] == ["id", "connection"]
        if columns == 60:
            assert re.search(r"^status +succeeded$", shown, flags=re.MULTILINE)

    def test_ctrl_c_leaves_the_run_and_says_how_to_see_it_again(self, there):
        there.hub.ok("POST", "/api/integrations/demo/test")
        there.sandbox.fault("delay", path="*/accounts*", seconds=4, count=1)
        done = at_terminal(
            "sync",
            "run",
            "demo",
            "--mode",
            "full",
            "--entity",
            "account",
            env=there.env,
            answers=[("\x1b[?25l", "\x03")],
        )
        there.sandbox.control("DELETE", "faults")
        shown = without_colours(done.out)
        assert done.code == 130, shown
        (run,) = re.findall(r"The run (\S+) goes on without you\.", shown)
        assert f"python -m crm_core sync status {run} --wait" in shown
        waited = piped("sync", "status", run, "--wait", "--output", "json", env=there.env)
        assert (waited.code, json.loads(waited.out)["status"]) == (0, "succeeded")

    def test_a_person_is_asked_and_no_means_no(self, there):
        made = there.record()
        words = ("records", "undo", "accounts", made, "--to", "1")
        done = at_terminal(*words, env=there.env, answers=[("[y/N]", "n\n")])
        assert done.code == 1
        assert "Nothing was done." in done.out
        assert there.hub.ok("GET", f"/api/records/accounts/{made}")["version"] == 2


class TestDoctor:
    def test_a_well_hub_is_well(self, there, cli):
        done = cli("doctor", "--output", "json")
        found = {each["check"]: each for each in json.loads(done.out)}
        assert done.code == 0, done.out
        assert {each["status"] for each in found.values()} <= {"ok", "warning"}
        assert found["hub"]["found"] == f"answers at {there.hub.url}"
        assert "settings, secrets, token" in found["connection demo"]["found"]
        assert found["version"]["found"] == there.hub.ok("GET", "/api/openapi.json")["info"]["version"]

    def test_a_connection_that_can_not_sign_in_is_told_with_the_remedy(self, there, cli):
        there.connect("brake", there.other, {"account": "pull"})
        there.hub.ok("PATCH", "/api/integrations/brake", {"secrets": {"client_secret": "wrong"}})
        done = cli("doctor", "--output", "json")
        assert done.code == 1
        (found,) = [each for each in json.loads(done.out) if each["check"] == "connection brake: token"]
        assert found["status"] == "failed"
        assert found["remedy"]
        assert "brake: token" in done.err

    def test_a_stopped_run_is_told_with_the_way_out(self, there, cli):
        run = there.stopped()
        done = cli("doctor")
        assert done.code == 1
        assert f"runs approve {run}" in done.out
        shown = cli("runs", "show", run)
        assert (shown.code, "was stopped" in shown.err, f"runs cancel {run}" in shown.err) == (1, True, True)
        assert cli("runs", "cancel", run).code == 0


class TestExitCodes:
    @pytest.mark.parametrize(
        ("arguments", "code", "words"),
        [
            (("connections", "show", "nowhere"), 5, "There is no connection 'nowhere'"),
            (("records", "get", "accounts", "x"), 5, "There is no stored account 'x'"),
            (("records", "list", "gadgets"), 5, "There is no entity 'gadgets'"),
            (("runs", "show", "x"), 5, "There is no run 'x'"),
            (("sync", "run", "demo", "--entity", "gadget"), 2, "demo has no 'gadget'"),
            (("sync", "run", "demo", "--mode", "odd"), 2, "--mode: expected one of"),
            (("records", "list", "accounts", "--filter", "name eq"), 2, "filter"),
            (("runs", "--limit", "none"), 2, "--limit"),
            (("nothing",), 2, "No such command"),
            (("conflicts", "resolve"), 2, "--take"),
            (("conflicts", "resolve", "x", "--take", "ours"), 5, "x"),
            (("deadletters", "replay"), 2, "Name one"),
            (("runs", "list", "--output", "xml"), 2, "xml"),
        ],
    )
    def test_each_says_why(self, cli, arguments, code, words):
        done = cli(*arguments)
        assert (done.code, done.out) == (code, "")
        assert words in done.err

    def test_a_run_that_is_over_can_not_be_cancelled(self, there, cli):
        done = cli("runs", "cancel", there.run())
        assert done.code == 6

    def test_a_wrong_key_is_refused_and_not_shown(self, cli):
        done = cli("runs", env={"CRMHUB_KEY": "not-the-key-0123456789abcdef012345"})
        assert done.code == 4
        assert "The API key is wrong" in done.err
        assert "CRMHUB_KEY" in done.err
        assert "not-the-key" not in done.err

    def test_a_run_that_fails_is_a_failure(self, there, cli):
        there.connect("brake", there.other, {"account": "pull"})
        there.hub.ok("PATCH", "/api/integrations/brake", {"secrets": {"client_secret": "wrong"}})
        done = cli("sync", "run", "brake")
        assert done.code == 1
        assert "failed" in done.out
        assert "failed: " in done.err

    def test_what_a_system_says_is_told(self, there, cli):
        there.connect("brake", there.other, {"account": "pull"})
        there.hub.ok("PATCH", "/api/integrations/brake", {"secrets": {"client_secret": "wrong"}})
        done = cli("connections", "test", "brake")
        assert done.code == 1
        assert "dynamics365 said: " in done.err
        assert "doctor" in done.err


class TestPeople:
    def test_a_conflict_is_seen_and_decided(self, there, cli):
        asked = there.conflict()
        shown = json.loads(cli("conflicts", "show", asked, "--output", "json").out)
        assert (shown["ours"], shown["theirs"]) == ("2", "3")
        listed = json.loads(
            cli("conflicts", "--kind", "value", "--entity", "leads", "--all", "-o", "json").out
        )
        assert asked in [each["id"] for each in listed]
        done = cli("conflicts", "resolve", asked, "--value", "4", "--output", "json")
        assert (done.code, json.loads(done.out)["phone"]) == (0, "4")
        assert cli("conflicts", "show", asked).code == 5

    def test_what_was_refused_is_seen_and_done_again(self, there, cli):
        letter = there.letter()
        causes = json.loads(cli("deadletters", "--output", "json").out)
        (cause,) = [each for each in causes if each["field"] == "owner_email"]
        listed = json.loads(cli("deadletters", "--cause", cause["cause"], "--all", "--output", "json").out)
        assert letter in [each["id"] for each in listed]
        tried = json.loads(cli("deadletters", "replay", letter, "--dry-run", "--output", "json").out)
        assert tried["done"] is False
        assert cli("deadletters", "replay", letter).code == 0

    def test_a_paused_connection_goes_on(self, there, cli):
        assert "paused" in cli("connections", "pause", "demo").out
        assert there.hub.ok("GET", "/api/integrations/demo")["state"] == "paused"
        assert "paused" not in cli("connections", "resume", "demo").out.replace("paused  ", "")
        assert there.hub.ok("GET", "/api/integrations/demo")["state"] == "ok"

    def test_a_record_tells_its_history(self, there, cli):
        made = there.record()
        steps = json.loads(cli("records", "history", "accounts", made, "--output", "json").out)
        assert [(each["version"], each["change"]) for each in steps] == [(1, "create"), (2, "update")]
        assert "phone" in cli("records", "history", "accounts", made).out


class TestCompletion:
    def test_a_shell_completes_commands_options_and_names_of_connections(self, there):
        def offered(words, count):
            line = (
                'eval "$(python -m crm_core completion bash)"\n'
                f"COMP_WORDS=({words}); COMP_CWORD={count}; _crmhub_completion; "
                'printf "%s\\n" "${COMPREPLY[@]}"'
            )
            return in_shell(line, there.env).out.split()

        assert offered("crmhub sy", 1) == ["sync"]
        assert offered("crmhub sync ''", 2) == ["run", "plan", "apply", "status"]
        assert "--no-wait" in offered("crmhub sync run --", 3)
        assert offered("crmhub sync run de", 3) == ["demo"]
        assert offered("crmhub sync status --connection de", 4) == ["demo"]
        assert offered("crmhub runs list --output ''", 4) == ["table", "json", "csv"]

    def test_the_command_that_comes_with_it_works_in_any_folder(self, there, tmp_path):
        line = f'eval "$(python -m crm_core completion bash)"; cd {shlex.quote(str(tmp_path))}; unset PYTHONPATH; crmhub connections -o json'
        done = in_shell(line, there.env)
        assert [each["slug"] for each in json.loads(done.out)] == ["demo"]

    @pytest.mark.parametrize(
        ("shell", "asked"),
        [
            ("zsh", {"_TYPER_COMPLETE_ARGS": "crmhub sync run de"}),
            (
                "fish",
                {"_TYPER_COMPLETE_ARGS": "crmhub sync run de", "_TYPER_COMPLETE_FISH_ACTION": "get-args"},
            ),
        ],
    )
    def test_other_shells_are_answered_too(self, there, cli, shell, asked):
        script = cli("completion", shell).out
        variable, instruction = re.findall(r"(_CRMHUB_COMPLETE)=(\w+)", script)[0]
        assert all(name in script for name in asked)
        done = cli(env={**asked, variable: instruction})
        assert (done.code, "demo" in done.out, done.err) == (0, True, "")

    def test_names_are_not_offered_where_no_hub_answers(self):
        done = piped(
            env={
                "CRMHUB_URL": "http://127.0.0.1:9",
                "_CRMHUB_COMPLETE": "complete_bash",
                "COMP_WORDS": "crmhub sync run de",
                "COMP_CWORD": "3",
            }
        )
        assert (done.out.strip(), done.err) == ("", "")
