"""The model: fields, filters, mappings, records. Pure, so tested by values and properties."""

import json
import uuid
from contextlib import suppress
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crm_core.connectors.dynamics365 import normal_version
from crm_core.connectors.dynamics365.tables import ACCOUNTS, TABLES
from crm_core.errors import BadRequest
from crm_core.model.entities import ENTITIES, RESERVED
from crm_core.model.fields import Field, Type
from crm_core.model.filters import (
    MAX_BYTES,
    MAX_DEPTH,
    MAX_NODES,
    AnyOf,
    Both,
    Compare,
    Either,
    Function,
    Kind,
    Literal,
    Match,
    Not,
    Operator,
    parse_filter,
)
from crm_core.model.mapping import NativeField
from crm_core.model.record import Attempt, Link, Record, Stamp, open_items
from crm_core.ports import derived_id
from crm_core.protocols.odata import Column, filter_text
from crm_core.protocols.rest import dump_json

MONEY = Field("amount", Type.MONEY)


class TestFields:
    @pytest.mark.parametrize(
        ("kind", "value", "wanted"),
        [
            (Type.TEXT, "x", "x"),
            (Type.TEXT, "", None),
            (Type.TEXT, None, None),
            (Type.INTEGER, 5, 5),
            (Type.INTEGER, Decimal("5.0"), 5),
            (Type.DECIMAL, Decimal("1.50"), "1.50"),
            (Type.MONEY, "922337203685477.5807", "922337203685477.5807"),
            (Type.MONEY, "1e3", "1000"),
            (Type.MONEY, "-0", "0"),
            (Type.BOOLEAN, False, False),
            (Type.DATE, "2026-11-24", "2026-11-24"),
            (Type.INSTANT, "2026-11-24T10:00:00-03:00", "2026-11-24T13:00:00Z"),
            (Type.INSTANT, "2026-11-24T10:00:00.5Z", "2026-11-24T10:00:00.500000Z"),
        ],
    )
    def test_values_are_read_into_one_form(self, kind, value, wanted):
        assert Field("f", kind).parse(value) == wanted

    @pytest.mark.parametrize(
        ("kind", "value"),
        [
            (Type.TEXT, 5),
            (Type.TEXT, "a\x00b"),
            (Type.TEXT, "half \ud83d"),
            (Type.TEXT, ["x"]),
            (Type.INTEGER, True),
            (Type.INTEGER, "5"),
            (Type.INTEGER, Decimal("5.5")),
            (Type.INTEGER, 2**63),
            (Type.DECIMAL, True),
            (Type.DECIMAL, "NaN"),
            (Type.DECIMAL, "1e400"),
            (Type.DECIMAL, "cien"),
            (Type.BOOLEAN, "true"),
            (Type.DATE, "2026-02-30"),
            (Type.DATE, "24/11/2026"),
            (Type.INSTANT, "2026-11-24T10:00:00"),
            (Type.INSTANT, "yesterday"),
            (Type.INSTANT, 5),
        ],
    )
    def test_other_values_are_refused_with_what_is_expected(self, kind, value):
        with pytest.raises(ValueError, match="expected"):
            Field("f", kind).parse(value)

    @given(
        st.decimals(allow_nan=False, allow_infinity=False, min_value=-(10**15), max_value=10**15, places=6)
    )
    def test_an_amount_keeps_every_digit_and_equals_itself_in_any_scale(self, number):
        text = MONEY.parse(number)
        assert Decimal(text) == number
        assert MONEY.same(text, MONEY.parse(f"{number:f}000"))

    def test_equal_values_are_the_same_and_nothing_equals_only_nothing(self):
        assert MONEY.same("1.5", "1.50")
        assert not MONEY.same("1.5", "1.51")
        assert not MONEY.same(None, "0")
        assert MONEY.same(None, None)


def test_no_entity_has_a_reserved_field_and_paths_are_unique():
    for entity in ENTITIES.values():
        assert not RESERVED & entity.by_name.keys()
    assert len({entity.path for entity in ENTITIES.values()}) == len(ENTITIES)


class TestFilters:
    def test_everything_that_is_known_becomes_the_tree(self):
        node = parse_filter("(a eq 'O''Brien' and b in (1,2)) or not contains(c,'x')")
        assert node == Either(
            Both(
                Compare("a", Operator.EQ, Literal(Kind.TEXT, "O'Brien")),
                AnyOf("b", (Literal(Kind.INTEGER, "1"), Literal(Kind.INTEGER, "2"))),
            ),
            Not(Match(Function.CONTAINS, "c", Literal(Kind.TEXT, "x"))),
        )

    @pytest.mark.parametrize(
        ("text", "what"),
        [
            ("a", "the name 'a'"),
            ("a eq b", "the name 'b'"),
            ("a/b eq 1", "a path"),
            ("tolower(a) eq 'x'", "the function 'tolower'"),
            ("geo.distance(a,b) lt 5", "the function 'geo.distance'"),
            ("a add 1 eq 2", "arithmetic"),
            ("-a eq 1", "arithmetic"),
            ("contains(a)", "1 given"),
            ("contains(a,5)", "a text in quotes"),
            ("a any(x: x eq 1)", "can't be read"),
            ("a eq", "can't be read"),
            ("a eq 'x", "can't be read"),
            ("a === 1", "can't be read"),
            ("b in ('x') foo", "unexpected ' foo' at position 11."),
            ("not(a eq 1) and b in (2) foo", "unexpected ' foo' at position 25."),
            ("a foo and b in ('x')", "at position 2."),
            ("", "is empty"),
            ("a eq duration'P1D'", "duration"),
        ],
    )
    def test_what_is_not_known_is_refused_by_name(self, text, what):
        with pytest.raises(BadRequest) as caught:
            parse_filter(text)
        assert what in caught.value.message
        assert caught.value.errors[0].field == "filter"

    def test_size_nodes_and_depth_are_limited(self):
        for text in (
            "a eq '" + "x" * MAX_BYTES + "'",
            " or ".join(["a eq 1"] * MAX_NODES),
            "not (" * (MAX_DEPTH + 5) + "a eq 1" + ")" * (MAX_DEPTH + 5),
            "(" * 1500 + "a eq 1" + ")" * 1500 + " and " + "not (" * 100 + "a eq 1" + ")" * 100,
        ):
            with pytest.raises(BadRequest, match=r"longer|more than|deeper"):
                parse_filter(text)

    @given(st.text(max_size=200))
    def test_any_text_is_parsed_or_refused_and_nothing_else_happens(self, text):
        with suppress(BadRequest):
            parse_filter(text)

    @given(st.text(max_size=60).filter(lambda text: "\x00" not in text))
    def test_a_literal_goes_out_as_it_came_in(self, value):
        """What is written into a filter is read back as the same literal: nothing leaves its quotes."""
        quoted = value.replace("'", "''")
        try:
            node = parse_filter(f"a eq '{quoted}'")
        except BadRequest:
            return  # the library can't read it, so it never goes out
        assert node == Compare("a", Operator.EQ, Literal(Kind.TEXT, value))
        sent = filter_text(node, lambda name: Column(name, name, Type.TEXT, {}))
        held = Literal(Kind.TEXT, value) if value else Literal(Kind.NULL, "null")
        assert parse_filter(sent) == Compare("a", Operator.EQ, held)


class TestMapping:
    def described(self):
        return {
            "fax": NativeField("fax", Type.TEXT, writable=True),
            "versionnumber": NativeField("versionnumber", Type.INTEGER, writable=False),
        }

    def test_canonical_and_native_names_mean_the_same(self):
        one, _ = ACCOUNTS.accept({"name": "A", "phone": "1", "industry": "Consulting"}, {}, create=True)
        other, _ = ACCOUNTS.accept({"name": "A", "telephone1": "1", "industrycode": 7}, {}, create=True)
        assert one == other

    @pytest.mark.parametrize(
        ("body", "fields"),
        [
            ({"name": "A", "colour": "red"}, ["colour"]),
            ({"name": "A", "phone": 5, "employees": "x"}, ["phone", "employees"]),
            ({"name": "A", "updated_at": "2026-01-01T00:00:00Z"}, ["updated_at"]),
            ({"name": "A", "deleted_at": None}, ["deleted_at"]),
            ({"name": "A", "phone": "1", "telephone1": "2"}, ["telephone1"]),
            ({"name": "A", "versionnumber": 5}, ["versionnumber"]),
            ({"name": "A", "fax": {"x": 1}}, ["fax"]),
            ({"name": "A", "tax_id": "1"}, ["tax_id"]),
            ({"phone": "1"}, ["name"]),
            ({"name": ""}, ["name"]),
            ({"name": 5}, ["name"]),
            ({"name": "A", "id": "x"}, ["id"]),
            ({"name": "x" * 161}, ["name"]),
            ({"name": "A", "kind": "friend"}, ["kind"]),
            ({"name": "A", "industry": "Nonsense"}, ["industry"]),
        ],
    )
    def test_every_wrong_field_is_named(self, body, fields):
        with pytest.raises(BadRequest) as caught:
            ACCOUNTS.accept(body, self.described(), create=True)
        assert [error.field for error in caught.value.errors] == fields

    def test_a_native_value_without_a_name_is_kept_both_ways(self):
        assert ACCOUNTS.inward({"customertypecode": 11})["kind"] == "native:11"
        assert ACCOUNTS.outward({"kind": "native:11"}) == {"customertypecode": 11}

    def test_references_are_bound_and_emptied_by_their_navigation_name(self):
        rid = "629ca2a0-024a-ea11-a815-000d3a591218"
        assert ACCOUNTS.outward({"parent_id": rid}) == {"parentaccountid@odata.bind": f"/accounts({rid})"}
        assert ACCOUNTS.outward({"parent_id": None}) == {"parentaccountid": None}

    def test_an_amount_is_a_json_number_with_every_digit(self):
        row = ACCOUNTS.outward({"annual_revenue": "922337203685477.5807"})
        assert dump_json(row) == b'{"revenue":922337203685477.5807}'

    @pytest.mark.parametrize(("given_", "wanted"), [("9.2", "v9.2"), ("v9.0", "v9.0"), (" V9.1 ", "v9.1")])
    def test_versions_have_one_form(self, given_, wanted):
        assert normal_version(given_) == wanted

    def test_a_wrong_version_is_named(self):
        with pytest.raises(BadRequest, match=r"such as v9\.2"):
            normal_version("../../x")


@given(st.lists(st.text(), min_size=1, max_size=4))
def test_a_derived_id_is_the_uuid_of_its_parts(parts):
    namespace = uuid.UUID("3f5f4fd2-3d0a-5d0c-9f5b-1d2f4b6f7a10")
    try:
        expected = str(uuid.uuid5(namespace, "\x1f".join(parts)))
    except UnicodeEncodeError:
        with pytest.raises(UnicodeEncodeError):
            derived_id(*parts)
    else:
        assert derived_id(*parts) == expected


class TestRecord:
    def record(self, **more):
        base = {
            "id": "0",
            "entity": "account",
            "fields": {"name": "Ñ"},
            "stamp": Stamp("2026-01-01T00:00:00Z", "c"),
            "created": {"time": "t", "origin": "c", "run": "r"},
        }
        return Record(**{**base, **more})

    def test_a_record_survives_its_row(self):
        record = self.record(
            version=3,
            stamps={"name": Stamp("t", "d")},
            dead=True,
            links={"c": Link("live", "rid", "5", "s", {"a": 1}, {"b": None})},
        )
        assert Record.from_json("0", "account", record.to_json()) == record

    def test_what_newer_code_wrote_is_kept(self):
        """Old and new code run together while the app is updated."""
        data = json.loads(self.record(links={"c": Link("live", "rid")}).to_json())
        data["later"] = [1]
        data["links"]["c"]["later"] = {"token": "x"}
        again = json.loads(Record.from_json("0", "account", json.dumps(data)).to_json())
        assert again["later"] == [1]
        assert again["links"]["c"]["later"] == {"token": "x"}

    def test_a_pulled_link_wants_nothing_and_a_new_one_a_push(self):
        assert open_items(self.record(links={"c": Link("live", "r"), "d": Link("gone", "r")})) == frozenset()
        assert open_items(self.record(links={"c": Link("new")})) == frozenset()
        assert open_items(self.record(links={"c": Link("new", wants=True)})) == {("push", "c")}

    def test_a_link_comes_back_from_its_row_as_it_was(self):
        link = Link(
            "live", "r", "5", "2026-01-01T00:00:00Z", {"name": None}, {"city": "x"}, ("old",), 1,
            {"name": ["a", None]}, Attempt("t", "2026-01-02T00:00:00Z", "4", read=True, n=2), Attempt("u", "z"),
            {"name": {"theirs": "b", "base": None, "time": "t"}}, {"phone": "1"}, {"parent_id": "account~1"},
            wants=True, parked={"cause": "c"}, failed={"n": 1},
        )  # fmt: skip
        record = self.record(
            links={"c": link}, reviews=({"kind": "match", "connection": "c", "record": "1"},)
        )
        assert Record.from_json("0", "account", record.to_json()) == record


@pytest.mark.parametrize("entity", TABLES)
def test_every_mapped_field_is_canonical_and_no_native_name_is_used_twice(entity):
    table = TABLES[entity]
    known = table.entity.by_name
    assert {each.field for each in table.fields} <= known.keys()
    assert len(table.by_field) == len(table.fields)
    for name, each in table.by_field.items():
        assert set(each.values) <= set(known[name].choices or each.values)
        assert {target.entity for target in each.targets} <= set(known[name].targets)
        assert bool(each.targets) == bool(known[name].targets)
    # Two fields may share a property only where they say different things of it.
    shared = {each.native for each in table.fields if table.by_native[each.native] is not each}
    assert shared <= {"statuscode", "scheduledend"}
