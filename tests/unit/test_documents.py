"""The documents say what the code says."""

import json
import re
import runpy
from pathlib import Path
from typing import get_args

import pytest

from crm_core.connectors.dynamics365.metadata import _native_field
from crm_core.connectors.dynamics365.tables import TABLES
from crm_core.functions.app import build
from crm_core.functions.endpoint import ROUTES
from crm_core.model.filters import MAX_BYTES, MAX_DEPTH, MAX_NODES, Function, Operator
from crm_core.model.override_rules import MAX_RULES, WORDS
from crm_core.model.overrides import IDENTITY, MAX_FIELDS, effective
from crm_core.model.overrides import MAX_BYTES as MAX_BYTES_OF_MAPPING
from crm_core.model.templates import FUNCTIONS, MAX_LENGTH
from crm_core.model.value_maps import Unmapped
from crm_core.settings import NAMES
from crm_core.storage import layout
from crm_core.storage.records import MAX_EXAMINED
from sandbox.dynamics365.schema import ATTRIBUTE
from sandbox.dynamics365.schema import TABLES as SANDBOX

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


MAPPING = (ROOT / "docs" / "mapping.md").read_text()


def account_columns():
    """What a Dataverse tells of its accounts, as the connector reads it."""
    columns = SANDBOX["account"].columns.values()
    rows = [
        {"LogicalName": each.name, "AttributeType": ATTRIBUTE[each.kind], "IsValidForCreate": each.create,
         "IsValidForUpdate": each.update}
        for each in columns
    ]  # fmt: skip
    return {field.name: field for field in map(_native_field, rows)}


@pytest.mark.parametrize(("about", "text"), re.findall(r"```json (\w+)\n(.*?)```", MAPPING, re.DOTALL))
def test_every_example_of_a_mapping_is_one(about, text):
    document = json.loads(text)
    # The metadata of Dataverse lists no property with parts.
    emap = effective(TABLES["account"], document, None if about == "nested" else account_columns())
    mapped = {name for name, rule in document.get("fields", {}).items() if rule is not None}
    assert mapped <= {*emap.by_field, *emap.parts}
    assert len(emap.derived) == len(document.get("targets", {}))


def test_the_page_of_mappings_says_what_there_is():
    for word in (*FUNCTIONS, *get_args(Unmapped), *IDENTITY, *WORDS):
        assert f"`{word}`" in MAPPING or f'"{word}"' in MAPPING, word
    for limit in (MAX_BYTES_OF_MAPPING, MAX_FIELDS, MAX_RULES, MAX_LENGTH):
        assert f"{limit:,} " in MAPPING


def test_every_dependency_has_its_line():
    page = (ROOT / "docs" / "dependencies.md").read_text().lower()
    for file in (
        "requirements.txt",
        "requirements-cli.txt",
        "requirements-dev.txt",
        "requirements-alone.txt",
    ):
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
