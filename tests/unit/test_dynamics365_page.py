"""docs/connectors/dynamics365.md says what the connector declares and does."""

import re
from pathlib import Path

import pytest

from crm_core import errors
from crm_core.connector import MANY_WIDTH
from crm_core.connectors.dynamics365 import Dynamics365
from crm_core.connectors.dynamics365.feed import OVERLAP
from crm_core.connectors.dynamics365.reading import MAX_PAGE
from crm_core.connectors.dynamics365.tables import TABLES
from crm_core.connectors.dynamics365.tables.common import LOOKUPS
from crm_core.functions.crm import MAX_TOP
from crm_core.protocols.entra import REMEDIES

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "connectors" / "dynamics365.md").read_text()
# Whose privileges let a text of another table be read.
READ_BY = {
    "systemusers": "User",
    "transactioncurrencies": "Currency",
    "uoms": "Product",
    "products": "Product",
}


def rows(head):
    """The cells of the table whose heading begins so."""
    lines = PAGE[PAGE.index(f"| {head} |") :].split("\n\n")[0].splitlines()
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


def test_every_setting_has_its_row_and_secrets_are_marked():
    told = [(re.search(r"`(\w+)`", cells[0])[1], "(secret)" in cells[0]) for cells in rows("setting")]
    assert sorted(told) == sorted((each.name, each.secret) for each in Dynamics365.settings)


def test_every_entity_has_the_privileges_that_its_reads_need():
    told = {cells[0]: set(cells[2].split(", ")) for cells in rows("entity | table in the role editor")}
    needed = {}
    for name, table in TABLES.items():
        maps = [table, *table.kinds.values(), *([table.lines] if table.lines else [])]
        found = {
            LOOKUPS[each.native].collection for one in maps for each in one.fields if each.native in LOOKUPS
        }
        own = {"Product"} if name == "product" else set()
        needed[name] = {READ_BY[each] for each in found} - own
    assert told == needed


def test_every_state_that_an_action_sets_has_its_row():
    told = {}
    for entity, status, action, reason in rows("entity | status"):
        told[entity, status] = (re.search(r"`(\w+)`", action)[1], reason, "activated first" in action)
    declared = {
        (name, status): each for name, table in TABLES.items() for status, each in table.closings.items()
    }
    assert told.keys() == declared.keys()
    for key, each in declared.items():
        action, reason, activated = told[key]
        assert action == each.action
        assert reason.startswith("the default one" if each.reason == -1 else str(each.reason))
        assert activated == (each.start == "active")


@pytest.mark.parametrize(
    "error", [errors.Misconfigured, errors.Stale, errors.NotSupported, *errors.VendorError.__subclasses__()]
)
def test_every_error_is_explained_with_its_status(error):
    told = " ".join(cells[0] for cells in rows("the hub says"))
    assert f"`{error.__name__}`" in told
    if error is not errors.CursorExpired:  # no caller sees it
        assert re.search(rf"`{error.__name__}`[^`]*{error.status}", told)


@pytest.mark.parametrize(
    "error", [errors.Unauthenticated, errors.Forbidden, errors.Misconfigured, errors.StoreUnavailable]
)
def test_what_is_not_the_remotes_is_told_apart(error):
    told = PAGE[PAGE.index("By its status:") : PAGE.index("| the hub says |")]
    assert f"`{error.__name__}`" in told
    assert str(error.status) in told


def test_every_code_of_the_sign_in_is_explained():
    assert [code for code in REMEDIES if code not in PAGE] == []


def test_limits_and_addresses():
    assert f"at most {Dynamics365.concurrency} calls at a time" in PAGE
    assert f"and {MANY_WIDTH} for one batch" in PAGE
    assert f"up to {MAX_PAGE:,} rows" in PAGE
    assert f"live lists up to {MAX_TOP:,}" in PAGE
    assert OVERLAP.total_seconds() == 300
    assert "five minutes before" in PAGE
    for origin in Dynamics365.origins:
        assert f"`{origin.removeprefix('.')}`" in PAGE
    assert f"without it, {' and '.join(Dynamics365.pulled)}," in PAGE
