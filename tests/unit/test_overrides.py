"""Overrides of mappings: each kind of them, both ways, and that what is written is read back as `canon` says."""

from datetime import datetime
from decimal import ROUND_HALF_UP, Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crm_core.connectors.dynamics365.tables import TABLES
from crm_core.errors import BadRequest
from crm_core.model.entities import ACCOUNT
from crm_core.model.field_map import FieldMap
from crm_core.model.mapping import EntityMap, NativeField
from crm_core.model.overrides import effective

ACCOUNTS = TABLES["account"]
PLAIN = EntityMap(
    ACCOUNT,
    remote="companies",
    key="id",
    modified="changed",
    version="rev",
    fields=(
        FieldMap("name", "title", length=40),
        FieldMap("phone", "tel"),
        FieldMap("kind", "type", names={1: "customer", 2: "supplier"}),
        FieldMap("created_at", "made", writable=False),
    ),
)


def plain(fields=None, targets=None, **more):
    return effective(PLAIN, {"fields": fields or {}, "targets": targets or {}, **more})


def test_without_overrides_the_map_is_the_declared_one():
    assert effective(PLAIN, {}) is PLAIN


def test_a_renamed_field_is_read_and_written_at_another_property():
    emap = plain({"phone": {"to": "mobile"}})
    assert emap.inward({"mobile": "1", "tel": "2"}) == {"phone": "1"}
    assert emap.outward({"phone": "1"}) == {"mobile": "1"}
    assert emap.find("mobile").field == "phone"
    assert emap.find("tel") is None


def test_a_renamed_field_leaves_the_facts_of_the_old_property_behind():
    emap = plain({"name": {"to": "long_title"}, "kind": {"to": "class", "values": {"partner": "P"}}})
    assert emap.outward({"name": "x" * 41, "kind": "partner"}) == {"long_title": "x" * 41, "class": "P"}
    with pytest.raises(BadRequest, match="longer than the 5 characters"):
        plain({"name": {"to": "long_title", "length": 5}}).outward({"name": "x" * 6})


def test_a_field_that_the_system_has_not_declared_can_be_mapped():
    emap = plain({"tax_id": {"to": "ruc"}})
    assert emap.inward({"ruc": "20-1"}) == {"tax_id": "20-1"}
    assert "tax_id" in emap.read_names
    assert "tax_id" in emap.written_names


def test_a_field_that_is_null_is_not_mapped():
    emap = plain({"phone": None})
    assert "phone" not in emap.by_field
    assert "phone" not in (*emap.read_names, *emap.written_names)
    with pytest.raises(BadRequest, match="not available at this system"):
        emap.accept({"phone": "1"}, {}, create=False)


def test_a_nested_target_is_a_part_of_its_property():
    emap = plain({"city": {"to": "address.city"}, "state": {"to": "address.region.name"}})
    row = emap.outward({"city": "Lima", "state": "LIM"})
    assert row == {"address": {"city": "Lima", "region": {"name": "LIM"}}}
    assert emap.inward(row) == {"city": "Lima", "state": "LIM"}
    for odd in ({}, {"address": None}, {"address": "text"}, {"address": {"region": []}}):
        assert emap.inward(odd) == {}
    assert emap.by_field["city"].natives == ("address",)


def test_several_targets_are_all_written_and_the_first_is_read():
    emap = plain({"name": {"to": ["title", "legal", "search.name"]}})
    row = emap.outward({"name": "Acme"})
    assert row == {"title": "Acme", "legal": "Acme", "search": {"name": "Acme"}}
    assert emap.inward({"title": "Acme", "legal": "Other"}) == {"name": "Acme"}


def test_a_constant_of_ours_stands_in_every_record_that_is_read():
    emap = plain({"currency": {"constant": "PEN"}, "x_paid": {"type": "boolean", "constant": False}})
    assert emap.inward({}) == {"currency": "PEN", "x_paid": False}
    assert "currency" not in emap.written_names
    with pytest.raises(BadRequest, match="read only"):
        emap.accept({"currency": "USD"}, {}, create=False)


def test_a_constant_of_theirs_is_written_with_everything_that_is_written():
    emap = plain(targets={"origin.system": {"constant": "hub"}, "active": {"constant": True}})
    always = {"origin": {"system": "hub"}, "active": True}
    assert emap.outward({"name": "Acme"}) == {"title": "Acme", **always}
    assert emap.outward({}, {}) == always
    assert emap.outward({}) == {}


def test_a_template_of_one_field_is_read_back():
    emap = plain({"number": {"to": "code", "template": "C-{number}"}})
    assert emap.outward({"number": "7"}) == {"code": "C-7"}
    assert emap.inward({"code": "C-7"}) == {"number": "7"}
    assert emap.inward({"code": "X7"}) == {"number": "native:X7"}
    assert emap.outward({"number": "native:X7"}) == {"code": "X7"}
    assert emap.canon("number", "native:C-7") == "7"
    assert emap.outward({"number": None}) == {"code": None}


def test_a_template_can_refuse_what_it_did_not_make():
    emap = plain({"employees": {"to": "code", "template": "{employees} people"}})
    assert emap.outward({"employees": 7}) == {"code": "7 people"}
    assert emap.inward({"code": "7 people"}) == {"employees": 7}
    for text in ("7", "many people"):
        with pytest.raises(ValueError, match="code: is not of the form"):
            emap.inward({"code": text})


def test_a_lossy_template_gives_back_what_its_functions_made():
    emap = plain({"number": {"to": "code", "template": "C-{number|upper}", "lossy": True, "length": 6}})
    assert emap.outward({"number": "ab"}) == {"code": "C-AB"}
    assert emap.inward({"code": "C-AB"}) == {"number": "AB"}
    assert emap.canon("number", "ab") == "AB"
    with pytest.raises(BadRequest, match="number: longer than the 6 characters"):
        emap.outward({"number": "abcde"})


def test_a_template_of_several_fields_is_written_whenever_one_of_them_is():
    emap = plain(targets={"label": {"template": "{name|upper} ({phone})"}})
    assert emap.outward({"name": "Acme", "phone": "1"})["label"] == "ACME (1)"
    assert emap.outward({"phone": "1"}, {"name": "Acme", "phone": "9"}) == {"tel": "1", "label": "ACME (1)"}
    assert emap.outward({"name": "Acme"}, {})["label"] == "ACME ()"
    assert emap.outward({"kind": "customer"}) == {"type": 1}
    assert emap.along({"phone": "1"}) == ("name",)
    assert emap.along({"phone": "1", "name": "Acme"}) == ()
    with pytest.raises(BadRequest, match="phone: is written together with name; give all of them"):
        emap.outward({"phone": "1"})


def test_a_template_of_a_field_that_is_mapped_no_other_way_makes_it_one_that_is_written():
    emap = plain(targets={"label": {"template": "{description|upper}"}})
    assert "description" in emap.written_names
    assert "description" not in emap.read_names
    assert emap.outward({"name": "x"}, {}) == {"title": "x"}
    assert emap.outward({"description": "x"}) == {"label": "X"}
    assert emap.accept({"description": "x"}, {}, create=False) == ({"description": "x"}, {})
    assert emap.canon("description", "x") == "x"


def test_a_custom_field_can_be_part_of_a_template_and_nothing_else():
    emap = plain({"x_legal": {"type": "text"}}, {"label": {"template": "Legal: {x_legal}"}})
    assert emap.accept({"x_legal": "Acme S.A."}, {}, create=False) == ({"x_legal": "Acme S.A."}, {})
    assert emap.outward({"x_legal": "Acme S.A."}) == {"label": "Legal: Acme S.A."}
    assert "x_legal" in emap.written_names
    assert "x_legal" not in emap.read_names


def test_a_field_that_is_only_read_is_not_written_for_being_part_of_a_template():
    emap = plain({"phone": {"read_only": True}}, {"label": {"template": "{name} {phone}"}})
    assert emap.written_names == ("name", "kind")
    assert emap.along({"name": "Acme"}) == ("phone",)
    assert emap.outward({"name": "Acme"}, {"phone": "1"}) == {"title": "Acme", "label": "Acme 1"}


def test_a_field_can_be_read_by_a_template_of_properties():
    emap = plain({"x_full": {"type": "text", "from": "{first} {last|upper}"}})
    assert emap.inward({"first": "Ana", "last": "Ruiz"}) == {"x_full": "Ana RUIZ"}
    assert emap.inward({"first": None}) == {}
    assert emap.by_field["x_full"].natives == ("first", "last")
    assert "x_full" not in emap.written_names


SEGMENTS = {
    "x_segment": {
        "type": "choice",
        "choices": ["retail", "wholesale", "other"],
        "to": "segment",
        "values": [
            {"ours": "retail", "theirs": "Retail"},
            {"ours": "retail", "theirs": {"contains": "shop"}},
            {"ours": "wholesale", "theirs": "WHS"},
            {"ours": "wholesale", "theirs": {"in": ["WHL", "WHX"]}},
            {"ours": "other", "theirs": "Other"},
        ],
    }
}


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        ("Retail", "retail"),
        ("SHOPPING centre", "retail"),
        ("WHL", "wholesale"),
        ("whl", "native:whl"),
        ("Bank", "native:Bank"),
    ],
)
def test_conditions_are_tried_in_their_order(theirs, ours):
    assert plain(SEGMENTS).inward({"segment": theirs}) == {"x_segment": ours}


def test_values_are_written_by_the_rule_that_names_one():
    emap = plain(SEGMENTS)
    assert emap.outward({"x_segment": "retail"}) == {"segment": "Retail"}
    assert emap.outward({"x_segment": "native:Bank"}) == {"segment": "Bank"}
    assert emap.canon("x_segment", "native:WHX") == "wholesale"
    assert not emap.by_field["x_segment"].askable


def with_policy(**policy):
    rule = {"to": "segment", "values": {"a": 1, "b": 2}, "type": "text", **policy}
    return plain({"x_segment": rule})


def test_what_no_rule_names_is_kept():
    emap = with_policy()
    assert emap.inward({"segment": 3}) == {"x_segment": "native:3"}
    assert emap.outward({"x_segment": "native:3"}) == {"segment": 3}
    for value in ("c", "native:x", "native:"):
        with pytest.raises(BadRequest, match=r"expected one of a, b, or native:"):
            emap.outward({"x_segment": value})


def test_what_no_rule_names_is_taken_for_the_default():
    emap = with_policy(unmapped="default", default={"ours": "a"})
    assert emap.inward({"segment": 3}) == {"x_segment": "a"}
    with pytest.raises(BadRequest, match=r"expected one of a, b\."):
        emap.outward({"x_segment": "c"})
    emap = with_policy(unmapped="default", default={"ours": "a", "theirs": 9}, lossy=True)
    assert emap.outward({"x_segment": "c"}) == {"segment": 9}
    assert emap.canon("x_segment", "c") == "a"


def test_what_no_rule_names_is_rejected():
    emap = with_policy(unmapped="reject")
    with pytest.raises(ValueError, match="segment: no rule of the mapping names this value"):
        emap.inward({"segment": 3})
    with pytest.raises(BadRequest, match=r"expected one of a, b\."):
        emap.outward({"x_segment": "native:3"})


def test_true_is_not_one():
    emap = plain({"x_yes": {"type": "text", "to": "flag", "values": {"yes": True, "no": False}}})
    assert emap.inward({"flag": True}) == {"x_yes": "yes"}
    assert emap.inward({"flag": 1}) == {"x_yes": "native:1"}
    assert emap.outward({"x_yes": "native:true"}) == {"flag": True}


def test_a_field_of_another_type_is_translated_too():
    rules = [{"ours": True, "theirs": "Y"}, {"ours": False, "theirs": "N"}]
    emap = plain({"x_vip": {"type": "boolean", "to": "vip", "values": rules}})
    assert emap.inward({"vip": "Y"}) == {"x_vip": True}
    assert emap.outward({"x_vip": False}) == {"vip": "N"}
    with pytest.raises(ValueError, match="no rule"):
        emap.inward({"vip": "?"})


def test_one_way_fields_go_one_way_and_are_their_own_canon():
    out = plain({"name": {"direction": "out"}, "phone": {"direction": "in"}, "kind": {"read_only": True}})
    assert out.inward({"title": "Acme", "tel": "1", "type": 1}) == {"phone": "1", "kind": "customer"}
    assert out.outward({"name": "Acme"}) == {"title": "Acme"}
    assert out.written_names == ("name",)
    assert out.canon("kind", "native:1") == "native:1"
    for name in ("phone", "kind"):
        with pytest.raises(BadRequest, match=f"{name}: is read only"):
            out.accept({name: "1"}, {}, create=False)


def test_a_required_field_is_asked_for_on_create():
    emap = plain({"phone": {"required": True}})
    with pytest.raises(BadRequest, match="phone: required to create account"):
        emap.accept({"name": "Acme"}, {}, create=True)
    assert emap.accept({"name": "Acme"}, {}, create=False) == ({"name": "Acme"}, {})
    unwritten = plain({"name": {"read_only": True}})
    assert unwritten.accept({"phone": "1"}, {}, create=True) == ({"phone": "1"}, {})


def test_custom_fields_have_types_both_ways():
    emap = plain(
        {
            "x_score": {"type": "integer", "to": "score"},
            "x_margin": {"type": "decimal", "to": "margin", "scale": 1},
            "x_on": {"type": "date", "to": "on", "midnight": True},
        }
    )
    row = {"score": 7, "margin": Decimal("1.25"), "on": "2026-11-24T00:00:00Z"}
    fields = {"x_score": 7, "x_margin": "1.25", "x_on": "2026-11-24"}
    assert emap.inward(row) == fields
    assert emap.outward(fields) == row
    assert emap.canon("x_margin", "1.25") == "1.3"
    assert emap.entity.by_name["x_score"].type == "integer"
    assert "x_score" not in ACCOUNT.by_name
    with pytest.raises(BadRequest, match="x_score: expected a whole number"):
        emap.accept({"x_score": "7"}, {}, create=False)


def test_times_without_a_zone_are_of_the_connection_s():
    emap = plain(
        {
            "x_at": {"type": "instant", "to": "at", "zoneless": True},
            "x_utc": {"type": "instant", "to": "utc"},
        },
        zone="America/Lima",
    )
    row = {"at": "2026-11-24 13:45:00", "made": "2026-11-24T00:00:00", "utc": "2026-11-24T01:00:00"}
    assert emap.inward(row) == {
        "created_at": "2026-11-24T05:00:00Z",
        "x_at": "2026-11-24T18:45:00Z",
        "x_utc": "2026-11-24T06:00:00Z",
    }
    assert emap.outward({"x_at": "2026-11-24T18:45:00Z", "x_utc": "2026-11-24T06:00:00Z"}) == {
        "at": "2026-11-24T13:45:00",
        "utc": "2026-11-24T06:00:00Z",
    }
    own = plain({"x_at": {"type": "instant", "to": "at", "zoneless": True, "zone": "Europe/Madrid"}})
    assert own.inward({"at": "2026-07-01T12:00:00"}) == {"x_at": "2026-07-01T10:00:00Z"}
    # The second of two equal hours comes back as the first.
    assert own.canon("x_at", "2026-10-25T01:30:00Z") == "2026-10-25T00:30:00Z"


def test_a_native_name_of_a_translated_field_means_the_property_itself():
    emap = plain({"number": {"to": "code", "template": "C-{number}"}})
    described = {"code": NativeField("code", "text", writable=True)}
    assert emap.accept({"code": "raw"}, described, create=False) == ({}, {"code": "raw"})
    for body in ({"code": "raw", "number": "7"}, {"number": "7", "code": "raw"}):
        with pytest.raises(BadRequest, match="code: is written by number too; leave one out"):
            emap.accept(body, described, create=False)


def test_two_documents_have_two_marks():
    one, other = plain({"phone": {"to": "a"}}), plain({"phone": {"to": "b"}})
    assert PLAIN.mark == ""
    assert len({one.mark, other.mark, PLAIN.mark}) == 3
    assert plain({"phone": {"to": "a"}}).mark == one.mark


def test_a_connector_s_own_kind_of_map_stays_one():
    emap = effective(ACCOUNTS, {"fields": {"tax_id": {"to": "new_taxid"}}})
    assert type(emap) is type(ACCOUNTS)
    assert emap.logical == "account"
    assert emap.navigations == ACCOUNTS.navigations


# --- what is written is read back ---------------------------------------------------------------------------------

TEXTS = st.text(st.characters(exclude_characters="\x00", exclude_categories=["Cs"]), min_size=1, max_size=8)


@st.composite
def translations(draw):
    """Rules that lose nothing: each of our values has its own of theirs; some are read by a condition as well."""
    kind = draw(st.sampled_from([st.integers(-99, 99), st.booleans(), TEXTS]))
    theirs = draw(st.lists(kind, min_size=1, max_size=5, unique=True))
    ours = draw(st.lists(TEXTS.filter(lambda text: not text.startswith("native:")),
                         min_size=len(theirs), max_size=len(theirs), unique=True))  # fmt: skip
    rules = [{"ours": left, "theirs": right} for left, right in zip(ours, theirs, strict=True)]
    if isinstance(theirs[0], str) and draw(st.booleans()):
        rules.append({"ours": ours[0], "theirs": {"contains": draw(TEXTS)}})
    return {"type": "text", "to": "v", "values": rules, "unmapped": draw(st.sampled_from(["keep", "reject"]))}


@given(translations(), st.data())
def test_a_translation_that_loses_nothing_gives_back_what_was_written(rule, data):
    emap = plain({"x_v": rule})
    value = data.draw(st.sampled_from([each["ours"] for each in rule["values"]]))
    assert emap.inward(emap.outward({"x_v": value})) == {"x_v": value}
    assert emap.canon("x_v", value) == value


@given(translations(), TEXTS)
def test_what_was_kept_comes_back_as_canon_says(rule, text):
    emap = plain({"x_v": rule})
    value = f"native:{text}"
    try:
        row = emap.outward({"x_v": value})
    except BadRequest:
        return
    canon = emap.canon("x_v", value)
    assert emap.inward(row) == {"x_v": canon}
    assert emap.canon("x_v", canon) == canon


RULES = {
    "x_text": {"type": "text", "to": "t", "template": "a-{x_text}-z"},
    "x_money": {"type": "money", "to": ["m.n", "k"], "scale": 2},
    "x_int": {"type": "integer", "to": "i", "template": "no. {x_int}"},
    "x_at": {"type": "instant", "to": "at", "zoneless": True, "whole_seconds": True},
    "x_day": {"type": "date", "to": "d", "midnight": True},
    "x_yes": {"type": "boolean", "to": "y"},
}
VALUES = {
    "x_text": TEXTS,
    "x_money": st.decimals(-(10**9), 10**9, places=4).map(lambda number: format(number, "f")),
    "x_int": st.integers(-(10**17), 10**17),
    "x_at": st.datetimes(min_value=datetime.fromisoformat("1950-01-01")).map(
        lambda moment: moment.isoformat() + "Z"
    ),
    "x_day": st.dates().map(str),
    "x_yes": st.booleans(),
}


def stored(row):
    """What a system holds that keeps two digits of an amount and whole seconds of a time."""
    kept = dict(row)
    if "at" in row:
        kept["at"] = row["at"].partition(".")[0]
    if "k" in row:
        kept["k"] = row["k"].quantize(Decimal("0.01"), ROUND_HALF_UP)
        kept["m"] = {"n": kept["k"]}
    return kept


@given(st.fixed_dictionaries({}, optional=VALUES))
def test_what_is_written_is_read_back_as_canon_says(fields):
    emap = plain(RULES, zone="Europe/Madrid")
    canon = {name: emap.canon(name, value) for name, value in fields.items()}
    assert emap.inward(stored(emap.outward(fields))) == canon
    assert {name: emap.canon(name, value) for name, value in canon.items()} == canon
