"""`make new-connector`: the skeleton passes the checks of style and types, and its contract tests are red for one reason.

It is written into a copy of the repository: discovery finds it there, as it would here.
"""

import os
import runpy
import shutil
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

ROOT = Path(__file__).resolve().parents[2]
COPIED = ("crm_core", "sandbox", "tests", "docs", ".ci")
NAME = "acme"
LONGEST = "a" * 40


def python(root, *arguments):
    """Runs a module or script there, without what a surrounding pytest tells its own."""
    env = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    command = [sys.executable, *arguments]
    return subprocess.run(command, cwd=root, env=env, capture_output=True, text=True, check=False)


def generated(root, name):
    return python(root, ".ci/new_connector.py", name)


@pytest.fixture(scope="module")
def skeletons(tmp_path_factory):
    """A copy of the repository with a short and a long name in it, and the files that are new."""
    root = tmp_path_factory.mktemp("repository")
    for folder in COPIED:
        shutil.copytree(ROOT / folder, root / folder, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", root)
    before = set(root.rglob("*"))
    for name in (NAME, LONGEST):
        run = generated(root, name)
        assert run.returncode == 0, run.stderr
        assert f"crm_core/connectors/{name}/__init__.py: written" in run.stdout
    return root, sorted(str(path) for path in set(root.rglob("*.py")) - before)


def test_it_passes_the_checks_of_style_and_types(skeletons):
    root, files = skeletons
    assert len(files) == 8
    for check in (["ruff", "check"], ["ruff", "format", "--check"]):
        run = python(root, "-m", *check, *files)
        assert run.returncode == 0, run.stdout
    run = python(root, "-m", "mypy", f"crm_core/connectors/{NAME}", f"sandbox/{NAME}")
    assert run.returncode == 0, run.stdout


def test_its_contract_tests_are_found_and_fail_for_what_is_to_be_written(skeletons, tmp_path):
    """All of the suite is collected; what is run are the tests of records, and those of what it declares."""
    root, _ = skeletons
    report = tmp_path / "report.xml"
    chosen = f"(test_records and {NAME}-) or [{NAME}]"
    run = python(
        root, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-k", chosen, f"--junitxml={report}",
        "tests/contract/connectors",
    )  # fmt: skip
    assert run.returncode == 1, run.stdout  # 2: an error of the collection
    cases = list(ET.parse(report).iter("testcase"))
    reasons = [each.get("message") for case in cases for each in case.iter("failure")]
    assert len(reasons) >= 10
    assert {reason.partition(":")[0] for reason in reasons} == {"NotImplementedError"}
    assert not [case.get("name") for case in cases if case.find("error") is not None]
    declared = [case for case in cases if case.get("name", "").endswith(f"[{NAME}]")]
    assert [case.find("failure") for case in declared] == [None, None, None]


def test_its_sandbox_starts_and_is_filled_and_answers_by_a_404_of_its_own(skeletons):
    root, _ = skeletons
    code = f"""
from sandbox.frame import Request
from sandbox.app import App
from sandbox.{NAME} import {NAME.capitalize()} as System
system = System()
assert system.fill("contacts", 3, 1) == system.fill("contacts", 3, 1) == 3
assert len(system.frame.store.table("contacts").rows) == 3
answer = App(system).handle(Request("GET", "/contacts"))
assert answer.status == 404 and b"nothing at /contacts" in answer.body, answer
"""
    run = python(root, "-c", code)
    assert run.returncode == 0, run.stderr
    assert python(root, "-m", "sandbox", NAME, "--help").returncode == 0


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("Acme", "2 to 40 small letters and digits"),
        ("9lives", "2 to 40 small letters and digits"),
        ("a_b", "2 to 40 small letters and digits"),
        ("a", "2 to 40 small letters and digits"),
        ("a" * 41, "2 to 40 small letters and digits"),
        ("../acme", "2 to 40 small letters and digits"),
        (NAME, f"is taken: there is crm_core/connectors/{NAME}"),
        ("dynamics365", "is taken: there is crm_core/connectors/dynamics365"),
        ("frame", "is taken: there is sandbox/frame.py"),
        ("world", "is taken: there is tests/contract/connectors/world.py"),
        ("class", "is a word of Python"),
        ("none", "is a word of Python"),
        ("connector", "Connector means something else"),
    ],
)
def test_a_name_that_can_not_be_is_refused_by_name(skeletons, name, reason):
    root, _ = skeletons
    script = runpy.run_path(str(ROOT / ".ci" / "new_connector.py"))
    before = {path: path.stat().st_mtime_ns for path in root.rglob("*.py")}
    with pytest.raises(script["Refused"]) as caught:
        script["write"](name, root)
    assert str(caught.value).startswith(f"'{name}' ")
    assert reason in str(caught.value)
    assert {path: path.stat().st_mtime_ns for path in root.rglob("*.py")} == before


def test_a_refusal_is_one_line_and_a_status(skeletons):
    root, _ = skeletons
    run = generated(root, "odoo")
    assert (run.returncode, run.stdout) == (1, "")
    assert run.stderr == "new-connector: 'odoo' is taken: there is crm_core/connectors/odoo.\n"
