"""What a remote stores of a value, as its field's map declares it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crm_core.connectors.dynamics365.tables import TABLES
from crm_core.model.field_map import FieldMap
from crm_core.model.fields import Field, Type

AMOUNT = Field("amount", Type.MONEY)
TIME = Field("due_at", Type.INSTANT)
TEXT = Field("name", Type.TEXT)


@pytest.mark.parametrize(
    ("given_value", "stored"),
    [
        ("1.005", "1.01"),
        ("-1.005", "-1.01"),
        ("1.0049", "1.00"),
        ("7", "7.00"),
        ("0.001", "0.00"),
        (None, None),
    ],
)
def test_an_amount_is_rounded_half_up_to_the_scale(given_value, stored):
    assert FieldMap("amount", "n", scale=2).canon(AMOUNT, given_value) == stored


def test_an_amount_of_thirty_digits_keeps_them_all():
    assert FieldMap("amount", "n", scale=10).canon(AMOUNT, "9" * 30) == "9" * 30 + "." + "0" * 10


@given(st.decimals(-(10**12), 10**12, places=6))
def test_what_is_stored_is_stored_as_it_is(number):
    each = FieldMap("amount", "n", scale=2)
    once = each.canon(AMOUNT, format(number, "f"))
    assert each.canon(AMOUNT, once) == once


@pytest.mark.parametrize(
    ("given_value", "stored"),
    [
        ("2026-02-28T13:45:10.999999Z", "2026-02-28T13:45:10Z"),
        ("2026-02-28T13:45:10Z", "2026-02-28T13:45:10Z"),
    ],
)
def test_a_time_loses_its_fraction(given_value, stored):
    assert FieldMap("due_at", "n", whole_seconds=True).canon(TIME, given_value) == stored


@pytest.mark.parametrize(
    ("given_value", "sent", "stored"),
    [
        ("2026-02-28T23:59:59.9Z", "2026-02-28", "2026-02-28T00:00:00Z"),
        ("2026-03-01T01:30:00+05:30", "2026-02-28", "2026-02-28T00:00:00Z"),
        ("2026-02-28T00:00:00Z", "2026-02-28", "2026-02-28T00:00:00Z"),
        (None, None, None),
    ],
)
def test_of_a_time_the_day_in_utc_is_kept_and_read_as_its_first_moment(given_value, sent, stored):
    each = FieldMap("due_at", "n", day=True)
    assert each.outward(TIME, given_value) == sent
    assert each.canon(TIME, given_value) == stored
    if sent is not None:
        assert each.reader(TIME)(sent) == stored


def test_without_a_declaration_a_value_stays():
    for kind, value in ((AMOUNT, "1.23456"), (TIME, "2026-02-28T13:45:10.5Z"), (TEXT, "  Ñ  ")):
        assert FieldMap(kind.name, "n").canon(kind, value) == value


def test_a_length_counts_utf_16_code_units():
    each = FieldMap("name", "n", length=4)
    assert each.outward(TEXT, "🙂🙂") == "🙂🙂"
    for text in ("🙂🙂x", "abcde"):
        with pytest.raises(ValueError, match="longer than the 4 characters"):
            each.outward(TEXT, text)


def test_a_native_value_that_has_a_name_comes_back_by_it():
    accounts = TABLES["account"]
    assert accounts.canon("kind", "native:3") == "customer"
    assert accounts.canon("kind", "native:11") == "native:11"
    assert accounts.canon("kind", "customer") == "customer"


def test_an_entity_stores_what_its_fields_do_and_leaves_alone_what_it_has_not():
    accounts = TABLES["account"]
    assert accounts.canon("annual_revenue", "1.005") == "1.01"
    assert accounts.canon("tax_id", "20-1") == "20-1"
    assert accounts.canon("name", None) is None


def test_a_line_stores_what_the_fields_of_a_line_do():
    lines = [{"description": "Oil", "unit_price": "1.005"}]
    assert TABLES["quote"].canon("lines", lines) == [{"description": "Oil", "unit_price": "1.01"}]


def test_what_may_be_written_is_mapped_writable_and_not_read_only():
    names = TABLES["case"].written_names
    assert {"title", "status", "customer_id", "customer_type", "resolution"} <= set(names)
    assert not {"number", "created_at", "status_reason", "deleted_at"} & set(names)
    assert len(set(names)) == len(names)
