"""The filter table at every remote: the same records, or the same clear refusal; and any text is found by itself alone."""

import re
import time

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from crm_core.connector import Query, Write
from crm_core.errors import BadRequest
from crm_core.model.fields import parse_instant
from crm_core.model.filters import Compare, Kind, Literal, Operator, parse_filter
from tests.contract.connectors.world import unique, writable
from tests.filter_cases import ACCOUNTS, AN_ID, CASES, CONTACTS, Refused, in_zone

ROWS = {"account": ACCOUNTS, "contact": CONTACTS}
DOTS = {"dotted", "dotless"}
"""Databases differ in whether the Turkish letter with a dot is the one without in another case."""
filled = {}


def rows_at(world):
    """The rows of the table, made once at each remote, of the fields that the connector has there."""
    if world.remote.name not in filled.setdefault(world.remote.system, {}):
        filled[world.remote.system][world.remote.name] = made = {}
        for entity, rows in ROWS.items():
            emap = world.connector.map(entity)
            for key, fields in rows.items():
                given = {
                    moved(name): made[value[1:-1]].rid if str(value).startswith("<") else value
                    for name, value in fields.items()
                    if moved(name) in emap.by_field and accepts(emap, moved(name))
                }
                made[key] = world.connector.create(entity, Write(given))
                if key == "old":
                    time.sleep(1.1)  # times are whole seconds there: the next row's has to be another one
    return filled[world.remote.system][world.remote.name]


def accepts(emap, name):
    """Whether a system that has the field takes the table's values of it: industries may be its own."""
    each = emap.by_field[name]
    return name != "industry" or not each.native.endswith("/name")


def moved(text):
    """The names by which the table tells its groups apart: addresses and departments are not everybody's own."""
    return re.sub(r"\bdepartment\b", "job_title", re.sub(r"\bcity\b", "email", text))


def text_at(case, rows):
    text = moved(case.text)

    def known(match):
        key, _, zone = match[1].partition(".created_at")
        row = rows[key]
        return in_zone(row.fields["created_at"], zone) if ".created_at" in match[1] else row.rid

    return re.sub(r"<([^>]+)>", known, text)


def lacking(emap, text):
    """A field of the table's that the system lacks, or whose values are its own."""
    names = {name for rows in ROWS.values() for fields in rows.values() for name in fields}
    names |= {
        "status_reason",
        "telephone1",
        "statuscode",
        "customertypecode",
        "accountid",
        "_parentaccountid_value",
    }
    bare = re.sub(r"'(?:[^']|'')*'", "", text)
    found = set(re.findall(r"[A-Za-z_]\w*", bare)) & names
    return {name for name in found if emap.find(name) is None and name != emap.key}, found


@pytest.mark.parametrize("case", CASES, ids=[each.text[:60] for each in CASES])
def test_a_filter_finds_the_same_at_every_system(world, case):
    rows = rows_at(world)
    emap = world.connector.map(case.entity)
    text = text_at(case, rows)
    missing, named = lacking(emap, text)

    def ask():
        return world.connector.query(case.entity, Query(parse_filter(text), top=500)).items

    if missing and not isinstance(case.expected, Refused):
        with pytest.raises(BadRequest) as caught:
            ask()
        assert any(f"'{name}'" in caught.value.message for name in missing)
        return
    if "industry" in named and not emap.by_field["industry"].names:
        return  # any text may be one there
    if isinstance(case.expected, Refused):
        if (
            case.expected.detail.endswith(AN_ID)
            and "with '5'" in case.expected.detail
            and world.remote.missing.isdigit()
        ):
            return  # which is an id of this system
        with pytest.raises(BadRequest) as caught:
            ask()
        if not missing and AN_ID not in case.expected.detail:
            assert caught.value.message.startswith(case.expected.detail)
        return
    if named & {"status_reason", *(n for n in named if emap.find(n) is None)}:
        return  # its own values
    keys = {row.rid: key for key, row in rows.items()}
    found = {keys[each.rid] for each in ask() if each.rid in keys}
    most = set(case.expected.split())
    least = set(case.exact.split()) if case.exact is not None else most
    needed = least & most
    if most & DOTS:
        most |= DOTS
    assert needed <= found <= most | least


ANY_TEXT = st.text(st.characters(exclude_categories=("Cs", "Cc")), min_size=1, max_size=20)


@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_text_finds_exactly_the_record_that_has_it(world, data):
    """Whatever characters a text has, none of it is taken for the system's own language."""
    name, mark = world.text(world.variant("account")), unique("any")
    text = mark + data.draw(ANY_TEXT)
    made = world.connector.create("account", Write({**world.least(world.variant("account")), name: text}))
    world.connector.create("account", Write({**world.least(world.variant("account")), name: f"{mark}%_\\'x"}))
    node = Compare(name, Operator.EQ, Literal(Kind.TEXT, made.fields[name]))
    assert [each.rid for each in world.connector.query("account", Query(node)).items] == [made.rid]
    assert parse_instant(made.fields["created_at"])


def test_a_choice_is_found_by_its_name_and_where_there_is_none_as_null(world, variant):
    emap, mark = variant.map, unique("choice")
    names = [
        name
        for name, (_, each) in writable(emap).items()
        if each.names and each.askable and not each.kept and name not in (*world.least(variant), "status")
    ]
    if not names:
        return
    text = world.text(variant)
    made = world.make(variant, **{text: mark})

    def found(condition):
        filters = parse_filter(f"{text} eq '{mark}' and {condition}")
        return [each.rid for each in world.connector.query(variant.entity, Query(filters)).items]

    def refused(name):
        try:
            found(f"{name} eq null")
        except BadRequest as error:
            return f"'{name}' can't be asked for" in error.message
        return False

    for name in names:
        if refused(name):  # an activity's list tells less than the table of its kind
            continue
        if name not in made.fields:
            assert (found(f"{name} eq null"), found(f"{name} ne null")) == ([made.rid], [])
        value = next(iter(emap.by_field[name].values))
        world.connector.update(variant.entity, made.rid, Write({name: value}))
        assert (found(f"{name} eq '{value}'"), found(f"{name} eq null")) == ([made.rid], [])
        assert found(f"{name} ne '{value}'") == []
        world.connector.update(variant.entity, made.rid, Write({name: None}))
        assert (found(f"{name} eq null"), found(f"not ({name} eq '{value}')")) == ([made.rid], [made.rid])
        assert (found(f"{name} eq '{value}'"), found(f"{name} ne null")) == ([], [])
