"""Templates of mappings: `{field}` and `{field|function}` become a tree; nothing else means anything in them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crm_core.model.templates import FUNCTIONS, MAX_LENGTH, MAX_PLACEHOLDERS, Placeholder, Template

VALUES = {
    "name": "  acme del Perú  ",
    "number": 7,
    "email": "Ana@Example.COM",
    "phone": "+51 (1) 555-01",
    "vip": True,
    "at": "2026-11-24T13:45:00Z",
    "empty": None,
}


@pytest.mark.parametrize(
    ("text", "made"),
    [
        ("{number}", "7"),
        ("C-{number}", "C-7"),
        ("{number}/{number}", "7/7"),
        ("{{{number}}}", "{7}"),
        ("{name|trim|upper}", "ACME DEL PERÚ"),
        ("{name|trim|capital}", "Acme del Perú"),
        ("{name|first} {name|last}", "acme Perú"),
        ("{email|lower}", "ana@example.com"),
        ("{email|domain}", "example.com"),
        ("{number|domain}", None),
        ("{phone|digits}", "5115550" + "1"),
        ("{vip}", "true"),
        ("{at|date}", "2026-11-24"),
        ("C-{empty}", None),
        ("{empty}{number}", "7"),
        ("{ number | trim }", "7"),
    ],
)
def test_a_template_says_its_fields(text, made):
    assert Template.parse(text).text(VALUES) == made


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{name", "'{' at character 1 is never closed"),
        ("a}", "'}' at character 2 closes nothing"),
        ("{}", "expected the name of a field"),
        ("{name.upper}", "expected the name of a field"),
        ("{0}", "expected the name of a field"),
        ("{name!r}", "expected the name of a field"),
        ("{name:>10}", "expected the name of a field"),
        ("{name|__class__}", "'__class__' is no function; known are upper, lower"),
        ("{name|}", "'' is no function"),
        ("{x}" * (MAX_PLACEHOLDERS + 1), f"more than {MAX_PLACEHOLDERS} fields in it"),
        ("x" * (MAX_LENGTH + 1), f"more than {MAX_LENGTH} characters"),
    ],
)
def test_what_is_no_template_is_refused_with_the_place(text, message):
    with pytest.raises(ValueError) as caught:
        Template.parse(text)
    assert message in str(caught.value)


@given(st.text(st.characters(codec="utf-8"), max_size=50))
def test_text_without_braces_stands_as_it_is(text):
    doubled = text.replace("{", "{{").replace("}", "}}")
    assert "".join(Template.parse(doubled).parts) == text


@given(st.text(max_size=10), st.text(max_size=10), st.text(min_size=1, max_size=20))
def test_what_one_field_made_is_read_back(before, after, value):
    def plain(text):
        return text.replace("{", "{{").replace("}", "}}")

    template = Template.parse(f"{plain(before)}{{name}}{plain(after)}")
    assert template.reversible
    assert template.back(template.text({"name": value})) == value


def test_what_a_template_did_not_make_is_not_its_own():
    template = Template.parse("C-{number}/X")
    assert template.back("C-7/X") == "7"
    for text in ("7", "C-7", "7/X", "C-/", "c-7/X"):
        assert template.back(text) is None


def test_functions_and_several_fields_lead_nowhere_back():
    assert not Template.parse("{name|upper}").reversible
    assert not Template.parse("{first_name} {last_name}").reversible
    assert Template.parse("{first_name} {last_name|upper}").names == ("first_name", "last_name")


@given(st.sampled_from(sorted(FUNCTIONS)), st.text(max_size=30))
def test_a_function_gives_text_of_any_text(name, text):
    assert isinstance(Placeholder("x", (name,)).text({"x": text}), str)
