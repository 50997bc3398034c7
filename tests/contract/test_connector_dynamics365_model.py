"""The columns that the Dynamics connector names, against Microsoft's Common Data Model: names, lengths, choices.

Of tables that the model's files lack (invoices, campaigns, most activities), the contract suite finds wrong names and
lengths at the server on Microsoft's OData code, which has the model's columns.
"""

import json

import pytest

from crm_core.connectors.dynamics365.tables import TABLES
from crm_core.connectors.dynamics365.tables.common import LOOKUPS
from tests.contract.test_sandbox_dataverse_model import CDM, FILES, SPECS, attributes, choices

pytestmark = pytest.mark.skipif(not SPECS, reason="CRMHUB_SPECS does not name the folder of specifications")

ADDRESS_PARTS = ("line1", "line2", "city", "stateorprovince", "postalcode", "country")
OF_EVERY_TABLE = frozenset(
    {"createdon", "modifiedon", "versionnumber", "owninguser", "transactioncurrencyid"}
)
"""Columns that the model's files take from a common base."""
ELSEWHERE = frozenset({"customerid", *(f"address1_{part}" for part in ADDRESS_PARTS)})
"""Columns that the model describes apart: a customer as one lookup for each table, addresses as a table."""
OF_EVERY_ACTIVITY = frozenset(
    {"activityid", "activitytypecode", "subject", "scheduledstart", "scheduledend", "actualend", "prioritycode",
     "regardingobjectid", "statecode", "statuscode", "description"}
)  # fmt: skip


def tables():
    """Every table that rows are read from or written to, by its logical name."""
    found = {}
    for table in TABLES.values():
        for each in (
            *table.kinds.values(),
            *([table.lines] if table.lines else []),
            *([] if table.kinds else [table]),
        ):
            found[each.logical] = each
    return found


def model(logical):
    """The attributes of the model's files by column name."""
    found = {}
    for name in FILES[logical]:
        (definition,) = json.loads((CDM / f"{name}.cdm.json").read_text("utf-8-sig"))["definitions"]
        found |= {each["sourceName"]: each for each in attributes(definition["hasAttributes"])}
    return found


def column(native):
    """The column that a property is of: a lookup's is _name_value, one of another table's rows is a path."""
    native = LOOKUPS[native].native if native in LOOKUPS else native
    return native.removeprefix("_").removesuffix("_value") if native.startswith("_") else native


def columns(table):
    """(column, its field's map) of what is a column."""
    hidden = {each.native for each in table.fields if not each.readable} | {"lines"}
    return [(column(each.native), each) for each in table.fields if each.native not in hidden]


COVERED = sorted(tables().keys() & FILES.keys())


def test_the_models_files_cover_most_tables():
    assert {"account", "contact", "lead", "opportunity", "incident", "product", "quote", "salesorder"} <= set(
        COVERED
    )


@pytest.mark.parametrize("logical", COVERED)
def test_every_column_is_in_the_model(logical):
    base = (
        OF_EVERY_TABLE
        | ELSEWHERE
        | (OF_EVERY_ACTIVITY if tables()[logical].key == "activityid" else frozenset())
    )
    names = {name for name, _ in columns(tables()[logical])}
    assert names - model(logical).keys() - base == set()


@pytest.mark.parametrize("logical", COVERED)
def test_every_length_is_the_models(logical):
    known = model(logical)
    pairs = {
        name: (each.length, known[name]["maximumLength"])
        for name, each in columns(tables()[logical])
        if name in known
        and "maximumLength" in known[name]
        and each.writable
        and not each.targets
        and each.native not in LOOKUPS
    }
    assert {name: pair for name, pair in pairs.items() if pair[0] != pair[1]} == {}


@pytest.mark.parametrize("logical", COVERED)
def test_every_choice_is_one_of_the_models(logical):
    known = model(logical)
    wrong = {
        name: set(each.names) - values
        for name, each in columns(tables()[logical])
        if each.names and name in known
        if (values := {int(row[1]) for row in choices(known[name].get("dataType"))})
        if not all(isinstance(value, bool) for value in each.names)
        if set(each.names) - values
    }
    assert wrong == {}


@pytest.mark.parametrize("logical", COVERED)
def test_every_reason_of_a_closing_is_of_the_state_that_it_sets(logical):
    table, known = tables()[logical], model(logical)
    states = (
        {int(row[1]) for row in choices(known["statecode"].get("dataType"))}
        if "statecode" in known
        else set()
    )
    reasons = {int(row[1]): int(row[3]) for row in choices(known.get("statuscode", {}).get("dataType"))}
    for status, closing in table.closings.items():
        (state,) = table.by_field["status"].values[status]
        assert state in states
        assert closing.reason == -1 or reasons[closing.reason] == state
    if table.reopened and reasons and table.locked:
        assert reasons[table.reopened["statuscode"]] == table.reopened["statecode"]
