"""The sandbox's columns against Microsoft's Common Data Model: lengths, choices, states and their reasons.

The model's files are in the folder named by CRMHUB_SPECS; without it these tests are skipped.
"""

import json
import os
from pathlib import Path

import pytest

from sandbox.dynamics365.schema import TABLES

SPECS = os.environ.get("CRMHUB_SPECS", "")
CDM = Path(SPECS) / "dataverse" / "cdm"
pytestmark = pytest.mark.skipif(not SPECS, reason="CRMHUB_SPECS does not name the folder of specifications")

CRM = "foundationCommon/crmCommon"
FILES = {
    "account": ("Account", "foundationCommon/Account", f"{CRM}/Account"), "quote": (f"{CRM}/sales/Quote",),
    "contact": ("Contact", "foundationCommon/Contact", f"{CRM}/Contact"), "quotedetail": (f"{CRM}/sales/QuoteProduct",),
    "lead": (f"{CRM}/Lead",), "product": ("foundationCommon/Product",), "salesorder": (f"{CRM}/sales/Order",),
    "opportunity": (f"{CRM}/sales/Opportunity",), "salesorderdetail": (f"{CRM}/sales/OrderProduct",),
    "opportunityproduct": (f"{CRM}/sales/OpportunityProduct",), "incident": (f"{CRM}/service/Case",), "task": ("Task",),
}  # fmt: skip


def attributes(node):
    """Every attribute of a file that is a column."""
    if isinstance(node, dict):
        if node.get("sourceName"):
            yield node
            return
        for value in node.values():
            yield from attributes(value)
    elif isinstance(node, list):
        for value in node:
            yield from attributes(value)


def choices(node):
    """The rows of a list of values: label, value, order, and for reasons the state."""
    if isinstance(node, dict):
        if node.get("entityShape", "").startswith("listLookup"):
            return [row[1:] for row in node["constantValues"]]
        return next((found for value in node.values() if (found := choices(value))), [])
    if isinstance(node, list):
        return next((found for value in node if (found := choices(value))), [])
    return []


def columns(table):
    """Pairs of the model's attribute and our column."""
    for name in FILES[table]:
        (definition,) = json.loads((CDM / f"{name}.cdm.json").read_text(encoding="utf-8-sig"))["definitions"]
        for attribute in attributes(definition["hasAttributes"]):
            if (column := TABLES[table].columns.get(attribute["sourceName"])) is not None:
                yield attribute, column


@pytest.mark.parametrize("table", FILES)
def test_lengths_are_those_of_the_model(table):
    known = {
        c.name: (a["maximumLength"], c.length) for a, c in columns(table) if "maximumLength" in a and c.length
    }
    assert known or table == "task"
    assert {n: pair for n, pair in known.items() if pair[0] != pair[1]} == {}


@pytest.mark.parametrize("table", FILES)
def test_choices_are_those_of_the_model(table):
    found = {
        c.name: {int(row[1]) for row in rows}
        for a, c in columns(table)
        if (rows := choices(a.get("dataType")))
    }
    ours = {name: set(TABLES[table].columns[name].options) for name in found}
    assert {n: (found[n], ours[n]) for n in found if found[n] != ours[n]} == {}


@pytest.mark.parametrize("table", [t for t in FILES if "statuscode" in TABLES[t].columns])
def test_reasons_belong_to_the_states_of_the_model(table):
    pairs = {
        c.name: choices(a.get("dataType")) for a, c in columns(table) if c.name in ("statecode", "statuscode")
    }
    states = TABLES[table].columns["statecode"].options
    reasons = TABLES[table].columns["statuscode"].states
    assert {int(row[1]): row[0] for row in pairs["statecode"]} == states
    assert {int(row[1]): int(row[3]) for row in pairs["statuscode"]} == reasons
