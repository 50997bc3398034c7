"""The documents say what the code says."""

import re
import runpy
from pathlib import Path

import pytest

from crm_core.functions.app import build
from crm_core.functions.endpoint import ROUTES
from crm_core.model.filters import MAX_BYTES, MAX_DEPTH, MAX_NODES, Function, Operator
from crm_core.settings import NAMES
from crm_core.storage import layout
from crm_core.storage.records import MAX_EXAMINED

ROOT = Path(__file__).resolve().parents[2]
README, SPANISH = ((ROOT / name).read_text() for name in ("README.md", "README.es.md"))


@pytest.mark.parametrize("page", [README, SPANISH], ids=["en", "es"])
def test_the_readme_lists_every_setting(page):
    missing = [name for name in NAMES if f"`{name}`" not in page]
    assert not missing


def test_both_readmes_give_the_same_commands():
    def commands(page):
        blocks = re.findall(r"```sh\n(.*?)```", page, flags=re.DOTALL)
        lines = (line.split(" #")[0].rstrip() for block in blocks for line in block.splitlines())
        return [line for line in lines if line and not line.startswith("#")]

    assert commands(README) == commands(SPANISH)


def test_the_layout_page_names_every_table_and_queue():
    page = layout.__doc__ or ""
    for name in (*layout.TABLES, *layout.QUEUES):
        assert name in page


def test_the_page_of_filters_says_what_there_is():
    page = (ROOT / "docs" / "filters.md").read_text()
    for word in (*Operator, *Function, "in", "and", "or", "not"):
        assert f"`{word}`" in page
    for limit in (MAX_BYTES, MAX_NODES, MAX_DEPTH, MAX_EXAMINED):
        assert f"{limit:,} " in page


def test_every_dependency_has_its_line():
    page = (ROOT / "docs" / "dependencies.md").read_text().lower()
    for file in ("requirements.txt", "requirements-dev.txt", "requirements-alone.txt"):
        for line in (ROOT / file).read_text().splitlines():
            if "==" in line:
                assert re.split(r"==", line)[0].lower() in page


def test_every_test_that_a_promise_names_exists():
    page = (ROOT / "docs" / "promises.md").read_text()
    for path in re.findall(r"`(tests/[\w/.]+)`", page):
        assert (ROOT / path).exists(), path


def test_every_route_has_a_summary():
    assert build() is not None
    assert [each.path for each in ROUTES if not each.summary] == []


def test_the_support_matrix_says_what_the_connectors_declare():
    page = runpy.run_path(str(ROOT / ".ci" / "support_matrix.py"))["page"]()
    written = (ROOT / "docs" / "support-matrix.md").read_text()
    assert written == page, "renew docs/support-matrix.md by `make docs`"


@pytest.mark.parametrize(
    "page", [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")], ids=lambda path: path.name
)
def test_every_link_inside_the_repository_leads_somewhere(page):
    for link in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        target, _, section = link.partition("#")
        if "://" in link:
            continue
        other = (page.parent / target).resolve() if target else page
        assert other.exists(), link
        if section:
            assert section in _anchors(other.read_text()), link


def _anchors(text):
    """The names that headings get: in lower case, without signs, with hyphens for blanks."""
    heads = re.findall(r"^#+ (.+)$", text, flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", head).strip().lower().replace(" ", "-") for head in heads}
