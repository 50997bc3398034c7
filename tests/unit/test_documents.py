"""The documents say what the code says."""

import re
from pathlib import Path

from crm_core.functions.app import build
from crm_core.functions.endpoint import ROUTES
from crm_core.settings import NAMES
from crm_core.storage import layout

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text()


def test_the_readme_lists_every_setting():
    missing = [name for name in NAMES if f"`{name}`" not in README]
    assert not missing


def test_the_layout_page_names_every_table_and_queue():
    page = layout.__doc__ or ""
    for name in (*layout.TABLES, *layout.QUEUES):
        assert name in page


def test_every_dependency_has_its_line():
    page = (ROOT / "docs" / "dependencies.md").read_text().lower()
    for file in ("requirements.txt", "requirements-dev.txt"):
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
