"""Properties of the filter evaluator of the Dataverse sandbox: texts, cases, and any input at all, by raw HTTP."""

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sandbox.dynamics365 import Dataverse
from sandbox.testing import options, running, signed_in

API = "/api/data/v9.2"


def get(client, path):
    answer = client.call("GET", API + path)
    assert answer.status == 200, answer.body
    return answer.json()


def create(client, set_name, **values):
    answer = client.call("POST", f"{API}/{set_name}", values)
    assert answer.status == 204, answer.body
    return answer.headers["OData-EntityId"][-37:-1]


TEXTS = st.lists(
    st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=20), min_size=1, max_size=5
)


@pytest.fixture(scope="module")
def empty():
    with running(Dataverse()) as sandbox, signed_in(sandbox) as client:
        yield client


def bracketed(text):
    """A wildcard in brackets stands for itself."""
    return re.sub(r"[%_[]", r"[\g<0>]", text)


@pytest.mark.parametrize(
    ("condition", "found"),
    [
        ("contains(name,'a%b')", "a%b a_b axb a[b axxb"),
        ("contains(name,'a[%]b')", "a%b"),
        ("startswith(name,'a_b')", "a%b a_b axb a[b"),
        ("startswith(name,'a[_]b')", "a_b"),
        ("endswith(name,'[v-x]b')", "axb axxb"),
        ("endswith(name,'[^a-z]b')", "a%b a_b a[b"),
        ("contains(name,'a[[]b')", "a[b"),
        ("contains(name,'[')", ""),
        ("contains(name,'[x-v]')", ""),
        ("not contains(name,'a_b')", "axxb"),
        ("name eq 'a%b'", "a%b"),
        ("name eq 'a_b'", "a_b"),
        ("name eq 'a[%]b'", ""),
    ],
)
def test_text_functions_take_wildcards_and_comparisons_do_not(empty, condition, found):
    """Microsoft: "Use wildcard characters in conditions for string values"."""
    made = [create(empty, "accounts", name=name) for name in ("a%b", "a_b", "axb", "a[b", "axxb")]
    try:
        rows = get(empty, "/accounts" + options(select="name", filter=condition))["value"]
        assert sorted(row["name"] for row in rows) == sorted(found.split())
    finally:
        for row in made:
            empty.call("DELETE", f"{API}/accounts({row})")


@settings(max_examples=60, deadline=None)
@given(TEXTS, st.data())
def test_any_text_finds_exactly_the_rows_equal_to_it_whatever_its_case(empty, texts, data):
    made = {create(empty, "accounts", name=text): text for text in texts}
    try:
        wanted = data.draw(st.sampled_from(texts))
        literal = data.draw(st.sampled_from([wanted, wanted.upper(), wanted.lower(), wanted.swapcase()]))
        quoted = literal.replace("'", "''")
        for text, test in (
            (f"name eq '{quoted}'", lambda t: t.casefold() == literal.casefold()),
            (f"contains(name,'{bracketed(quoted)}')", lambda t: literal.casefold() in t.casefold()),
            (f"not (name ne '{quoted}')", lambda t: t.casefold() == literal.casefold()),
        ):
            found = get(empty, "/accounts" + options(select="name", filter=text))["value"]
            assert {r["accountid"] for r in found} == {i for i, t in made.items() if test(t)}
    finally:
        for row in made:
            empty.call("DELETE", f"{API}/accounts({row})")


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=40))
def test_any_filter_text_is_answered_or_refused_but_never_an_accident(empty, text):
    answer = empty.call("GET", f"{API}/accounts" + options(filter=text.encode("utf-8", "replace").decode()))
    assert answer.status in (200, 400)
