"""JSON as it comes and as it is stored: the library that is fast says what Python's own says, to the last digit."""

import json
from decimal import Decimal

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from crm_core.model.json_text import _reader, ordered_json, parse_json

NUMBERS = st.from_regex(r"-?(0|[1-9][0-9]{0,25})(\.[0-9]{1,25})?([eE][+-]?[0-9]{1,3})?", fullmatch=True)
TEXTS = st.text(max_size=8).map(json.dumps) | st.text(max_size=8).map(
    lambda text: json.dumps(text, ensure_ascii=False)
)
SPACE = st.sampled_from(["", " ", "\n\t", "\r"])


def _joined(parts: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    lists = st.tuples(st.lists(parts, max_size=4), SPACE).map(
        lambda drawn: f"[{(',' + drawn[1]).join(drawn[0])}]"
    )
    objects = st.tuples(st.lists(st.tuples(TEXTS, parts), max_size=4), SPACE).map(
        lambda drawn: "{" + ",".join(f"{name}{drawn[1]}:{drawn[1]}{value}" for name, value in drawn[0]) + "}"
    )
    return lists | objects


DOCUMENTS = st.recursive(NUMBERS | TEXTS | st.sampled_from(["null", "true", "false"]), _joined, max_leaves=12)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.text(max_size=12),
    lambda parts: st.lists(parts, max_size=4) | st.dictionaries(st.text(max_size=12), parts, max_size=6),
    max_leaves=20,
)


def told(body: bytes) -> str:
    """What Python's own reader makes of a body: values with their types, or that it is no JSON."""
    try:
        return repr(json.loads(body, parse_float=Decimal))
    except (ValueError, RecursionError, ArithmeticError):
        return "no JSON"


def read(body: bytes) -> str:
    try:
        return repr(parse_json(body))
    except (ValueError, RecursionError, ArithmeticError):
        return "no JSON"


@given(DOCUMENTS)
@example('{"a": 1, "b": 2, "a": 3}')
@example("123456789012345678901234567890")
def test_a_document_says_what_it_says_to_pythons_reader(text):
    body = text.encode("utf-8", "surrogatepass")
    assert read(body) == told(body)


@given(DOCUMENTS.map(lambda text: text.encode("utf-8", "surrogatepass")), st.data())
def test_a_broken_one_does_too(body, data):
    at = data.draw(st.integers(0, len(body)))
    body = body[:at] + data.draw(st.binary(max_size=2)) + body[at + data.draw(st.integers(0, 2)) :]
    assert read(body) == told(body)


@pytest.mark.parametrize(
    "body",
    [
        b"NaN",
        b"[Infinity, -Infinity]",
        b'"\\ud800"',
        b'{"\\ud800": "\\ud83d\\u0041"}',
        b'"\xed\xa0\x80"',
        b"\xef\xbb\xbf[1]",
        '{"a": 0.10}'.encode("utf-16"),
        b"1e999999999999999999999",
        b"1" * 5000,
        b"[" * 100_000,
        b"[" * 900 + b"]" * 900,
        b'"\x01"',
        b'"\xff"',
        b"[1,]",
        b"01",
        b"",
    ],
    ids=lambda body: repr(body[:12]),
)
def test_what_only_one_of_the_two_takes_is_as_pythons_reader_has_it(body):
    assert read(body) == told(body)


def test_an_amount_keeps_its_digits_without_pythons_reader():
    """And the usual answer does not fall back to it."""
    body = b'{"revenue": 922337203685477.5807, "rate": 1.10}'
    assert _reader()(body) == {"revenue": Decimal("922337203685477.5807"), "rate": Decimal("1.10")}
    assert str(parse_json(body)["rate"]) == "1.10"


@given(st.dictionaries(st.text(max_size=12), VALUES, max_size=6))
@example({"\uffff": 1, "\U00010000": 2, "": 3, "é": {"b": '\x7f\x1f\u2028"\\/', "a": []}})
def test_a_stored_text_is_the_one_that_older_versions_wrote(data):
    """Equal records are equal texts, whichever version of this code wrote them."""
    assert ordered_json(data) == json.dumps(data, ensure_ascii=False, separators=(",", ":"), sort_keys=True)
