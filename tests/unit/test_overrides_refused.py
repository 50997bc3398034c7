"""Overrides that can't be: each refusal names the path, what is wrong and what to do."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crm_core.connector import maps_of
from crm_core.connectors.dynamics365 import Dynamics365
from crm_core.connectors.dynamics365.tables import TABLES
from crm_core.errors import BadRequest, Misconfigured
from crm_core.model.mapping import NativeField
from crm_core.model.override_rules import WORDS
from crm_core.model.overrides import MAX_BYTES, MAX_FIELDS, effective

DESCRIBED = {
    each.name: each
    for each in (
        NativeField("name", "text", writable=True),
        NativeField("emailaddress1", "text", writable=True),
        NativeField("emailaddress2", "text", writable=True),
        NativeField("telephone1", "text", writable=True),
        NativeField("new_region", "integer", writable=True),
        NativeField("new_score", "integer", writable=True),
        NativeField("new_margin", "decimal", writable=True),
        NativeField("new_label", "text", writable=True),
        NativeField("new_visitedat", "text", writable=True),
        NativeField("new_auditedat", "instant", writable=True),
        NativeField("new_ispartner", "boolean", writable=True),
        NativeField("new_photo", "Image", writable=False),
        NativeField("modifiedon", "instant", writable=False),
        NativeField("_new_dealerid_value", "guid", writable=False),
    )
}


def refused(document, entity="account", described=None):
    """The errors of a document, by path without the beginning."""
    with pytest.raises(BadRequest) as caught:
        effective(TABLES[entity], document, described, f"mappings.{entity}")
    start = f"mappings.{entity}"
    for each in caught.value.errors:
        assert each.message.startswith(f"{each.field}: ")
        assert each.message.endswith(".")
    return {
        each.field.removeprefix(start).removeprefix("."): each.message.removeprefix(f"{each.field}: ")
        for each in caught.value.errors
    }


LOSSY = 'mend it, or say "direction": "in" or "out", or "lossy": true.'
FORM = "expected the name of a field, such as {name} or {name|upper}."


@pytest.mark.parametrize(
    ("fields", "path", "message"),
    [
        ({"emial": {"to": "x"}}, "emial", "is no field of account; email is one."),
        ({"region": {"to": "x"}}, "region", "is no field of account; a custom one begins with x_, such as x_region."),
        ({"x_Region": {"to": "x"}}, "x_Region", "is no field of account; a custom one begins with x_, such as x_region."),
        ({"x_a": None}, "x_a", "expected an object that says its type and where it is kept."),
        ({"x_a": {"to": "p"}}, "x_a.type", ("a custom field needs a type; expected one of text, integer, decimal, money, "
         "boolean, date, instant, choice, choices.")),
        ({"x_a": {"to": "p", "type": "ref"}}, "x_a.type", ("a custom field needs a type; expected one of text, integer, "
         "decimal, money, boolean, date, instant, choice, choices.")),
        ({"x_a": {"to": "p", "type": "choice"}}, "x_a.choices",
         "expected a list of the names of a field of type choice, and of no other."),
        ({"x_a": {"type": "text"}}, "x_a", ("say one of to (a property), from (a template of properties) or constant; or let "
         "a template of targets name it.")),
        ({"tax_id": {}}, "tax_id", "say one of to (a property), from (a template of properties) or constant."),
        ({"tax_id": {"to": "a", "constant": "b"}}, "tax_id",
         "say one of to (a property), from (a template of properties) or constant."),
        ({"phone": "telephone2"}, "phone", "expected an object with"),
        ({"phone": {"too": "a"}}, "phone.too", "means nothing here; known are direction,"),
        ({"phone": {"to": "a", "type": "text"}}, "phone.type", "means nothing here; known are direction,"),
        ({"phone": {"to": 5}}, "phone.to", "expected the name of a property, or a list of at most 10."),
        ({"phone": {"to": "a..b"}}, "phone.to",
         "expected a property of the system, or property.part for one inside another."),
        ({"phone": {"to": "a'b"}}, "phone.to",
         "expected a property of the system, or property.part for one inside another."),
        ({"phone": {"direction": "up"}}, "phone.direction", "expected both, in (read only) or out (written only)."),
        ({"updated_at": {"direction": "both"}}, "updated_at.direction",
         "updated_at is read only in the model; leave direction out, or say in."),
        ({"phone": {"constant": "1", "direction": "out"}}, "phone.direction",
         "phone is read only by its 'constant'; leave direction out, or say in."),
        ({"phone": {"read_only": True, "direction": "both"}}, "phone.direction",
         "phone is said to be read only; leave direction out, or say in."),
        ({"phone": {"read_only": True, "required": True}}, "phone.required",
         "is never written, so it can't be required; leave it out."),
        ({"phone": {"to": ["a", "b"], "direction": "in"}}, "phone.to",
         "several properties are for writing, and this field is never written; name one."),
        ({"phone": {"required": "yes"}}, "phone.required", "expected true or false."),
        ({"status": {"to": "x"}}, "status",
         "leads the system's own steps, so it stays as it is declared; map another field."),
        ({"parent_id": {"to": "x"}}, "parent_id.to", "means nothing here; known are direction, read_only, required."),
        ({"phone": {"length": -1}}, "phone.length", "expected a whole number from 1 to 1000000."),
        ({"phone": {"length": True}}, "phone.length", "expected a whole number from 1 to 1000000."),
        ({"phone": {"zoneless": True}}, "phone.zoneless", "means nothing of phone, which is text; leave it out."),
        ({"phone": {"scale": 2}}, "phone.scale", "means nothing of phone, which is text; leave it out."),
        ({"x_a": {"to": "p", "type": "instant", "zoneless": True}}, "x_a.zoneless",
         "a time without a zone needs one to be read in; say zone, such as America/Lima."),
        ({"x_a": {"to": "p", "type": "instant", "zone": "Lima"}}, "x_a.zone",
         "expected a time zone such as America/Lima or UTC."),
        ({"employees": {"constant": "many"}}, "employees.constant", "expected a whole number."),
        ({"phone": {"constant": ""}}, "phone.constant", "expected a value."),
        ({"phone": {"constant": "1", "values": {"1": "2"}}}, "phone.values",
         "means nothing here; known are constant, direction, read_only, required."),
        # templates
        ({"phone": {"to": "a", "template": "{phone"}}, "phone.template",
         "'{' at character 1 is never closed; write {{ for the brace itself."),
        ({"phone": {"to": "a", "template": "{phone.x}"}}, "phone.template", f"'{{phone.x}}': {FORM}"),
        ({"phone": {"to": "a", "template": "none"}}, "phone.template",
         "names no field; say constant for what is always the same."),
        ({"phone": {"to": "a", "template": "{phone|digits}"}}, "phone.template",
         'phone can\'t be read back from it; say "direction": "out", or "lossy": true.'),
        ({"phone": {"to": "a", "template": "{phone}/{phone|digits}", "lossy": True}}, "phone.template",
         'phone can\'t be read back from it at all; say "direction": "out".'),
        ({"x_a": {"type": "boolean", "to": "a", "template": "{x_a}"}}, "x_a.template",
         'x_a can\'t be read back from it; say "direction": "out", or "lossy": true.'),
        ({"phone": {"to": "a", "template": "{name}"}}, "phone.template",
         "can name phone only; what is made of other fields stands in targets."),
        ({"phone": {"to": "a", "template": "{phone}", "direction": "in"}}, "phone.template",
         "phone is never written; say from for a template that is read by."),
        ({"phone": {"to": "a", "template": "{phone}", "values": {"a": "b"}}}, "phone.template",
         "goes with no values; say one of the two."),
        ({"phone": {"unmapped": "keep"}}, "phone.unmapped", "goes with values; leave it out."),
        # values
        ({"phone": {"values": {}}}, "phone.values", 'expected an object such as {"ours": "theirs"}, or a list of rules.'),
        ({"phone": {"values": ["a"]}}, "phone.values.0", "expected an object with ours, theirs."),
        ({"phone": {"values": [{"ours": "a"}]}}, "phone.values.0", "expected an object with ours and theirs."),
        ({"phone": {"values": {"a": 1, "b": "x"}}}, "phone.values",
         "the system's values are of one type: text, whole numbers, or true and false."),
        ({"phone": {"values": {"a": None}}}, "phone.values.0.theirs", "expected a text, a whole number, true or false."),
        ({"kind": {"values": {"client": 1}}}, "kind.values.0.ours",
         "expected one of customer, prospect, partner, supplier, competitor, other."),
        ({"phone": {"values": [{"ours": "a", "theirs": {"like": "b"}}]}}, "phone.values.0.theirs.like",
         "means nothing here; known are contains, in."),
        ({"phone": {"values": [{"ours": "a", "theirs": {"contains": ""}}]}}, "phone.values.0.theirs.contains",
         "expected a text."),
        ({"phone": {"values": [{"ours": {"in": ["a"]}, "theirs": {"in": ["b"]}}]}}, "phone.values.0",
         "has a condition on both sides, so it translates to nothing; name one value."),
        ({"phone": {"values": [{"ours": "a", "theirs": 1}] * 2}}, "phone.values.1", "is given twice; leave one out."),
        ({"phone": {"values": {"a": 1}, "unmapped": "drop"}}, "phone.unmapped",
         "expected keep (of a text or a choice), default or reject."),
        ({"employees": {"values": [{"ours": 1, "theirs": "one"}], "unmapped": "keep"}}, "employees.unmapped",
         "expected keep (of a text or a choice), default or reject."),
        ({"phone": {"values": {"a": 1}, "unmapped": "default"}}, "phone.default",
         'goes with "unmapped": "default", and that needs it.'),
        ({"phone": {"values": {"a": 1}, "default": {"ours": "a"}}}, "phone.default",
         'goes with "unmapped": "default", and that needs it.'),
        ({"phone": {"values": {"a": 1}, "unmapped": "default", "default": {}}}, "phone.default",
         "say ours (what is read), theirs (what is written), or both."),
        # lossy
        ({"phone": {"values": {"a": 1, "b": 1}}}, "phone.values", f"'b' is written as '1', which is read as 'a'; {LOSSY}"),
        ({"phone": {"values": [{"ours": "a", "theirs": {"contains": "x"}}]}}, "phone.values",
         f"'a' is read but no rule says how it is written; add one with its value; {LOSSY}"),
        ({"phone": {"values": [{"ours": {"in": ["a", "b"]}, "theirs": "x"}]}}, "phone.values",
         f"'a' is written as 'x', which is read as 'native:x'; {LOSSY}"),
        ({"phone": {"values": [{"ours": {"contains": "a"}, "theirs": "x"}]}}, "phone.values",
         f"what contains a text is written as one value, and can't be read back; {LOSSY}"),
        ({"phone": {"values": {"a": "x"}, "unmapped": "default", "default": {"theirs": "y"}}}, "phone.values",
         f"every value without a rule is written as 'y', and can't be read back; {LOSSY}"),
        ({"phone": {"values": [{"ours": "b", "theirs": {"contains": "x"}}, {"ours": "a", "theirs": "ax"},
                               {"ours": "b", "theirs": "x"}]}}, "phone.values",
         f"'a' is written as 'ax', which is read as 'b'; {LOSSY}"),
        # the whole
        ({"x_tel": {"type": "text", "to": "telephone1"}}, "x_tel", ("writes telephone1, and so does fields.phone; give one "
         'of them another property, or say "direction": "in".')),
        ({"x_a": {"type": "text", "to": "p"}, "x_b": {"type": "text", "to": "p.q"}}, "x_b", ("writes p.q, and so does "
         'fields.x_a; give one of them another property, or say "direction": "in".')),
        ({"x_a": {"type": "text", "to": ["p", "p"]}}, "x_a", ("writes p, and so does "
         'fields.x_a; give one of them another property, or say "direction": "in".')),
        ({"x_a": {"type": "text", "to": "accountid"}}, "x_a", "accountid is the system's own; nothing is written to it."),
        ({"website": {"to": "emailaddress1", "direction": "in"}}, "website", ("emailaddress1 feeds email and website, by "
         "both of which records are known again; let it feed one of them.")),
    ],
)  # fmt: skip
def test_a_rule_that_can_not_be_is_refused_by_its_path(fields, path, message):
    found = refused({"fields": fields})
    assert list(found) == [f"fields.{path}"]
    # A message without its end lists what is known.
    told = found[f"fields.{path}"]
    assert told == message if message.endswith(".") else told.startswith(message)


@pytest.mark.parametrize(
    ("targets", "path", "message"),
    [
        ({"p": {"constant": "a", "template": "{name}"}}, "p", "say either constant or template."),
        ({"p": {}}, "p", "say either constant or template."),
        ({"p": "a"}, "p", "expected an object with constant, template."),
        ({"p": {"constant": None}}, "p.constant", "expected a text, a whole number, true or false."),
        ({"a b": {"constant": 1}}, "a b", "expected a property of the system, or property.part for one inside another."),
        ({"p": {"template": "{nam}"}}, "p.template", "'nam' is no field of account."),
        ({"p": {"template": "{parent_id}"}}, "p.template", "'parent_id' is no single value; leave it out."),
        ({"p": {"template": "{name} {tax_id}"}}, "p.template",
         "'tax_id' is not read from this system, so it can't stand beside others; map it too."),
        ({"name": {"template": "{phone}"}}, "name", ("writes name, and so does fields.name; give one of them another "
         'property, or say "direction": "in".')),
    ],
)  # fmt: skip
def test_a_target_that_can_not_be_is_refused_by_its_path(targets, path, message):
    assert refused({"targets": targets}) == {f"targets.{path}": message}


def test_everything_that_is_wrong_is_told_at_once():
    document = {
        "zone": "Mars",
        "fields": {"phon": {}, "phone": {"direction": "x"}},
        "targets": {"p": {}},
        "more": 1,
    }
    assert list(refused(document)) == ["more", "zone", "fields.phon", "fields.phone.direction", "targets.p"]


@pytest.mark.parametrize(
    ("document", "path", "message"),
    [
        ({"fields": []}, "fields", "expected an object."),
        ({"targets": 5}, "targets", "expected an object."),
        ({"fields": {f"x_{n}": {"type": "text", "to": f"p{n}"} for n in range(MAX_FIELDS + 1)}}, "fields",
         f"has more than {MAX_FIELDS} entries."),
        ({"fields": {"phone": {"to": "x" * MAX_BYTES}}}, "",
         f"is longer than {MAX_BYTES} bytes; leave out what is as it is declared."),
        ({"zone": 5}, "zone", "expected a time zone such as America/Lima or UTC."),
        ({"zone": "\ud800"}, "", "a text has half a character (a lone surrogate)."),
    ],
)  # fmt: skip
def test_a_document_that_is_none_is_refused(document, path, message):
    assert refused(document)[path] == message


def test_an_entity_in_several_tables_keeps_its_declared_map():
    found = refused({"fields": {"x_a": {"type": "text", "to": "new_a"}}}, "activity")
    assert found == {
        "": "is kept in several tables there (task, call, email, meeting); its mapping can't be changed."
    }


@pytest.mark.parametrize(
    ("fields", "path", "message"),
    [
        ({"tax_id": {"to": "ruc"}}, "tax_id.to", ("the system has no property 'ruc' here; "
         "name one that is there.")),
        ({"tax_id": {"to": "new_labell"}}, "tax_id.to",
         "the system has no property 'new_labell' here; new_label is one."),
        ({"tax_id": {"to": ["new_label", "nope"]}}, "tax_id.to",
         "the system has no property 'nope' here; name one that is there."),
        ({"tax_id": {"to": "new_label.part"}}, "tax_id.to",
         "'new_label' is text at the system and has no parts; name it alone."),
        ({"tax_id": {"to": "new_score"}}, "tax_id.to",
         "'new_score' is integer at the system, expected text; translate it by values, or name another."),
        ({"x_a": {"type": "integer", "to": "new_label"}}, "x_a.to",
         "'new_label' is text at the system, expected integer; translate it by values, or name another."),
        ({"x_a": {"type": "choices", "to": "new_label"}}, "x_a.to",
         "'new_label' is text at the system, expected choices; translate it by values, or name another."),
        ({"x_a": {"type": "boolean", "to": "new_score"}}, "x_a.to",
         "'new_score' is integer at the system, expected boolean; translate it by values, or name another."),
        ({"x_a": {"type": "text", "to": "new_region", "values": {"n": "North"}}}, "x_a.to",
         "'new_region' is integer at the system, expected text; translate it by values, or name another."),
        ({"x_a": {"type": "instant", "to": "new_auditedat", "zoneless": True, "zone": "UTC"}}, "x_a.to",
         "'new_auditedat' is instant at the system, expected text; translate it by values, or name another."),
        ({"x_a": {"type": "text", "to": "_new_dealerid_value"}}, "x_a.to", ("'_new_dealerid_value' is read only at the "
         'system; say "direction": "in", or name another property.')),
        ({"x_a": {"type": "text", "from": "{new_label} {nope}"}}, "x_a.from",
         "the system has no property 'nope' here; name one that is there."),
    ],
)  # fmt: skip
def test_what_the_system_has_not_is_refused_by_its_own_metadata(fields, path, message):
    assert refused({"fields": fields}, described=DESCRIBED) == {f"fields.{path}": message}


@pytest.mark.parametrize(
    ("targets", "message"),
    [
        ({"nope": {"constant": 1}}, "the system has no property 'nope' here; name one that is there."),
        ({"new_score": {"constant": "a"}},
         "'new_score' is integer at the system, expected text; translate it by values, or name another."),
        ({"new_ispartner": {"template": "{name}"}},
         "'new_ispartner' is boolean at the system, expected text; translate it by values, or name another."),
        ({"modifiedon": {"constant": "x"}}, "modifiedon is the system's own; nothing is written to it."),
    ],
)  # fmt: skip
def test_a_target_that_the_system_has_not_is_refused(targets, message):
    assert refused({"targets": targets}, described=DESCRIBED) == {f"targets.{next(iter(targets))}": message}


def test_what_fits_the_metadata_is_taken():
    fields = {
        "tax_id": {"to": "new_label"},
        "x_region": {"type": "choice", "choices": ["north"], "to": "new_region", "values": {"north": 100_000_000}},
        "x_margin": {"type": "money", "to": "new_margin"},
        "x_score": {"type": "decimal", "to": "new_score", "direction": "in"},
        "x_at": {"type": "instant", "to": "new_visitedat", "zoneless": True, "zone": "UTC"},
        "x_dealer": {"type": "text", "to": "_new_dealerid_value", "direction": "in"},
    }  # fmt: skip
    emap = effective(
        TABLES["account"], {"fields": fields, "targets": {"emailaddress2": {"constant": "a"}}}, DESCRIBED
    )
    assert {*fields} <= {*emap.read_names}


@pytest.mark.parametrize(
    "rule",
    [
        {"values": {"a": "1", "b": "1"}, "lossy": True},
        {"values": {"a": "1", "b": "1"}, "direction": "out"},
        {"values": {"a": "1", "b": "1"}, "direction": "in"},
        {"template": "{phone|digits}", "lossy": True},
        {"template": "{phone|digits}", "direction": "out"},
    ],
)
def test_what_loses_something_is_taken_when_it_is_said(rule):
    emap = effective(TABLES["account"], {"fields": {"phone": {"to": "telephone2", **rule}}})
    assert emap.by_field["phone"].native == "telephone2"


def test_a_connection_whose_mapping_fits_no_more_says_so_when_it_is_opened():
    document = {"fields": {"phone": {"to": "websiteurl"}}}  # as if the connector declared the website since
    with pytest.raises(Misconfigured) as caught:
        maps_of(Dynamics365, {"account": document})
    assert caught.value.message.startswith(
        "The mapping fits no more. mappings.account.fields.phone: writes websiteurl"
    )
    assert [each.field for each in caught.value.errors] == ["mappings.account.fields.phone"]


# --- whatever is said ---------------------------------------------------------------------------------------------

LEAF = st.one_of(
    st.none(), st.booleans(), st.integers(-3, 3), st.decimals(), st.text(max_size=4),
    st.sampled_from(["text", "{name}", "{", "a.b", "in", "out", "default", "instant", "choice", "UTC"]),
)  # fmt: skip
KEYS = st.sampled_from([*WORDS, "ours", "theirs", "contains", "in", "x"])


def within(inner):
    """JSON whose parts are of `inner`."""
    return st.one_of(LEAF, st.lists(inner, max_size=3), st.dictionaries(KEYS, inner, max_size=4))


ODD = within(within(within(LEAF)))
NAMES = st.sampled_from(
    ["name", "phone", "status", "parent_id", "created_at", "x_a", "x_b", "employees", "nope", ""]
)


@given(
    st.fixed_dictionaries(
        {},
        optional={
            "zone": ODD,
            "fields": st.one_of(ODD, st.dictionaries(NAMES, ODD, max_size=3)),
            "targets": st.one_of(
                ODD, st.dictionaries(st.sampled_from(["p", "p.q", "new_label", ".", ""]), ODD)
            ),
        },
    )
)
@settings(max_examples=300)
def test_a_document_of_any_shape_is_a_map_or_refused_by_name(document):
    errors = []
    try:
        emap = effective(TABLES["account"], document, DESCRIBED, "mappings.account")
        emap.inward({"name": "Acme", "accountid": "1", "p": "x"})
    except BadRequest as refusal:
        errors = refusal.errors
    assert all(each.message.startswith("mappings.account") for each in errors)
