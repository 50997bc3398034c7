"""Filters: the text that goes out, and their evaluation over our own records. The two have to mean the same."""

import re
from datetime import UTC, datetime

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from crm_core.connectors.dynamics365.tables import ACCOUNTS, CONTACTS
from crm_core.errors import BadRequest
from crm_core.model.connection import DEFAULT_TENANT
from crm_core.model.entities import ACCOUNT, CONTACT
from crm_core.model.fields import Type
from crm_core.model.filters import (
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
from crm_core.model.literals import GUID_TYPE
from crm_core.model.matching import fold, matcher
from crm_core.model.record import Record, Stamp
from crm_core.protocols.odata import Column, filter_text
from crm_core.storage import layout
from crm_core.storage.memory import MemoryTable
from crm_core.storage.records import MAX_EXAMINED, Records, RecordWrite
from crm_core.system import ThreadPool
from sandbox.dynamics365.expression import Parser
from sandbox.dynamics365.filters import compile_filter

TYPES = {
    "text": Type.TEXT,
    "kind": Type.INTEGER,
    "whole": Type.INTEGER,
    "money": Type.MONEY,
    "flag": Type.BOOLEAN,
    "day": Type.DATE,
    "time": Type.INSTANT,
    "ref": GUID_TYPE,
}
KINDS = {"customer": (3,), "partner": (5,)}


def column(name):
    return Column(name, f"n_{name}", TYPES[name], KINDS if name == "kind" else {})


@pytest.mark.parametrize(
    ("text", "sent"),
    [
        ("text eq 'O''B'", "n_text eq 'O''B'"),
        ("text ne 'x'", "(n_text ne 'x' or n_text eq null)"),
        ("not (text eq 'x')", "(n_text ne 'x' or n_text eq null)"),
        ("not (text ne 'x')", "n_text eq 'x'"),
        ("text eq ''", "n_text eq null"),
        ("text ne null", "n_text ne null"),
        ("not (text eq null)", "n_text ne null"),
        ("whole gt 5", "n_whole gt 5"),
        ("not (whole gt 5)", "(n_whole le 5 or n_whole eq null)"),
        ("not (whole ge 5)", "(n_whole lt 5 or n_whole eq null)"),
        ("not (whole lt 5)", "(n_whole ge 5 or n_whole eq null)"),
        ("not (whole le 5)", "(n_whole gt 5 or n_whole eq null)"),
        ("not contains(text,'x')", "(not contains(n_text,'x') or n_text eq null)"),
        ("not (whole eq 1 and flag eq true)",
         "((n_whole ne 1 or n_whole eq null) or (n_flag ne true or n_flag eq null))"),
        ("not (whole eq 1 or not (flag eq true))", "((n_whole ne 1 or n_whole eq null) and n_flag eq true)"),
        ("text in ('a')", "(n_text eq 'a')"),
        ("text in ('a',null,'')", "(n_text eq 'a' or n_text eq null or n_text eq null)"),
        ("not (text in ('a','b'))", "((n_text ne 'a' or n_text eq null) and (n_text ne 'b' or n_text eq null))"),
        ("kind in ('customer','native:11')", "(n_kind eq 3 or n_kind eq 11)"),
        ("money gt 1.50e2", "n_money gt 150"),
        ("money eq 0.10", "n_money eq 0.10"),
        ("time gt 2026-01-02", "n_time gt 2026-01-02T00:00:00Z"),
        ("time gt 2026-01-02T01:00:00.5+02:00", "n_time gt 2026-01-01T23:00:00.500000Z"),
        ("day eq 2026-01-02", "n_day eq 2026-01-02"),
        ("ref eq 629CA2A0-024A-EA11-A815-000D3A591218", "n_ref eq 629ca2a0-024a-ea11-a815-000d3a591218"),
    ],
)  # fmt: skip
def test_the_text_that_goes_out_leaves_no_server_a_choice(text, sent):
    assert filter_text(parse_filter(text), column) == sent


def test_nothing_is_in_an_empty_list_and_everything_is_not():
    """No caller can write it, but what a caller may see can be an empty list."""
    none = AnyOf("text", ())
    assert filter_text(none, column) == "(n_text eq null and n_text ne null)"
    assert filter_text(Not(none), column) == "(n_text eq null or n_text ne null)"
    empty, full = record({}), record({"name": "x"})
    test, opposite = (matcher(node, ACCOUNT) for node in (AnyOf("name", ()), Not(AnyOf("name", ()))))
    assert [test(empty), test(full), opposite(empty), opposite(full)] == [False, False, True, True]


def test_a_type_that_no_filter_knows_is_refused_by_the_field_s_name():
    for kind in (Kind.TEXT, Kind.INTEGER):
        node = Compare("tags", Operator.EQ, Literal(kind, "1"))
        with pytest.raises(BadRequest, match="compares tags with '1'; expected another field"):
            filter_text(node, lambda name: Column(name, name, "tags", {}))


# --- our own records ---------------------------------------------------------------------------------------------


def record(fields, record_id="0" * 8 + "-0000-4000-8000-" + "0" * 12, entity=ACCOUNT):
    stamp = Stamp("2026-01-01T00:00:00Z", "c")
    created = {"time": "2026-01-01T00:00:00Z", "origin": "c", "run": "r"}
    return Record(record_id, entity.name, fields, stamp, created)


def ids(number):
    return f"{number:08x}-0000-4000-8000-000000000000"


REFS = [ids(number) for number in range(3)]
WORDS = ["a", "A", "b", "ab", "'", "''", "%", "_", "[a]", "ß", "SS", "é", "e\u0301", "x y", "null"]
AMOUNTS = ["0", "1", "1.0", "-1.50", "2.5", "1000000000000.01"]
DAYS = ["1999-12-31", "2026-01-01", "2026-01-02"]
TIMES = ["2026-01-01T00:00:00Z", "2026-01-01T10:00:00Z", "2026-01-02T00:00:00.500000Z"]

# (field, canonical values, how they are written in a filter)
FIELDS = {
    "name": (WORDS, Kind.TEXT),
    "kind": (["customer", "partner", "native:11"], Kind.TEXT),
    "employees": ([-5, 0, 7], Kind.INTEGER),
    "annual_revenue": (AMOUNTS, Kind.DECIMAL),
    "parent_id": (REFS, Kind.GUID),
    "created_at": (TIMES, Kind.INSTANT),
    "birthdate": (DAYS, Kind.DATE),
    "email_opt_out": ([True, False], Kind.BOOLEAN),
}
OF_CONTACT = ("birthdate", "email_opt_out")
UNORDERED = ("kind", "parent_id", "email_opt_out")


def literals(name):
    values, kind = FIELDS[name]
    written = st.sampled_from(values).map(
        lambda value: Literal(kind, str(value).lower() if kind is Kind.BOOLEAN else str(value))
    )
    return st.one_of(written, st.just(Literal(Kind.NULL, "null")))  # fmt: skip


@st.composite
def leaves(draw, names):
    name = draw(st.sampled_from(names))
    literal = draw(literals(name))
    if name == "name" and literal.kind is Kind.TEXT and draw(st.booleans()):
        return Match(draw(st.sampled_from(Function)), name, literal)
    if draw(st.integers(0, 3)) == 0:
        return AnyOf(name, tuple(draw(st.lists(literals(name), max_size=3))))
    unordered = name in UNORDERED or literal.kind is Kind.NULL
    operator = draw(st.sampled_from([Operator.EQ, Operator.NE] if unordered else list(Operator)))
    return Compare(name, operator, literal)


def trees(names):
    return st.recursive(
        leaves(names),
        lambda inner: st.one_of(
            st.builds(Both, inner, inner), st.builds(Either, inner, inner), st.builds(Not, inner)
        ),
        max_leaves=6,
    )


EDM = {
    Type.MONEY: "Edm.Decimal", Type.INTEGER: "Edm.Int32", Type.BOOLEAN: "Edm.Boolean",
    Type.DATE: "Edm.Date", Type.INSTANT: "Edm.DateTimeOffset", Type.REF: "Edm.Guid", Type.TEXT: "Edm.String",
}  # fmt: skip


class Scope:
    """The sandbox's view of a row, for its own evaluation of a filter text."""

    def __init__(self, emap):
        self.emap = emap

    def property(self, path):
        each = self.emap.by_native[path]
        kind = Type.INTEGER if each.names else self.emap.entity.by_name[each.field].type
        return (lambda values: values.get(path)), EDM[kind]

    def now(self):
        return datetime(2026, 1, 1, tzinfo=UTC)


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_a_filter_finds_the_same_in_our_records_as_a_server_by_the_text_that_goes_out(data):
    """The sandbox's evaluation was written from the vendor's documentation, ours was not."""
    of_contact = data.draw(st.booleans())
    entity, emap = (CONTACT, CONTACTS) if of_contact else (ACCOUNT, ACCOUNTS)
    names = [name for name in FIELDS if (name in OF_CONTACT) == of_contact]
    fields = {
        name: value
        for name in names
        if (value := data.draw(st.sampled_from([None, *FIELDS[name][0]]))) is not None
    }
    node = data.draw(trees(names))

    def resolve(name):
        each = emap.by_field[name]
        kind = Type.INTEGER if each.names else GUID_TYPE if each.targets else entity.by_name[name].type
        return Column(name, each.native, kind, each.values)

    row = {}
    for name, value in fields.items():
        each = emap.by_field[name]
        row[each.native] = each.outward(entity.by_name[name], value)
    sent = filter_text(node, resolve, pattern=lambda _, text: re.sub(r"[%_[]", r"[\g<0>]", text))
    test = compile_filter(Parser(sent).parse(), Scope(emap))
    assert matcher(node, entity)(record(fields, entity=entity)) == test(row)


@pytest.mark.parametrize(
    ("text", "fields", "matches"),
    [
        ("name eq 'X'", {"name": "x"}, True),
        ("name eq 'STRASSE'", {"name": "straße"}, True),
        ("name gt 'b'", {"name": "C"}, True),
        ("name eq null", {"name": ""}, True),
        ("annual_revenue eq 1.500", {"annual_revenue": "1.5"}, True),
        ("annual_revenue gt 9", {"annual_revenue": "10"}, True),
        ("created_at eq 2026-01-01T02:00:00+02:00", {"created_at": "2026-01-01T00:00:00.000000Z"}, True),
        ("created_at gt 2026-01-01", {"created_at": "2026-01-01T00:00:00Z"}, False),
        ("kind eq 'native:11'", {"kind": "native:11"}, True),
        ("kind eq 'native:AB'", {"kind": "native:ab"}, False),
        ("id eq 00000000-0000-4000-8000-000000000000", {}, True),
        (f"parent_id eq {ids(10)}", {"parent_id": ids(10).upper()}, True),
        ("parent_id eq 0000000A-0000-4000-8000-000000000000", {"parent_id": ids(10)}, True),
    ],
)
def test_values_are_compared_as_what_they_are(text, fields, matches):
    assert matcher(parse_filter(text), ACCOUNT)(record(fields)) is matches


# --- a walk through them -----------------------------------------------------------------------------------------


def stored(fields_by_id):
    """A store with these records."""
    records = Records(MemoryTable(), ThreadPool())
    by_bucket = {}
    for record_id, fields in fields_by_id.items():
        write = RecordWrite(record_id, None, record(fields, record_id))
        by_bucket.setdefault(layout.bucket(record_id), []).append(write)
    for bucket, writes in by_bucket.items():
        assert not records.commit(DEFAULT_TENANT, "account", bucket, writes).stale
    return records


def walked(records, text, top):
    """The pages of a walk, each as ids."""
    test = matcher(parse_filter(text), ACCOUNT) if text else None
    pages, place = [], {}
    while place is not None:
        found, place = records.walk(DEFAULT_TENANT, "account", place, top=top, test=test)
        pages.append([each.id for each in found])
        assert len(pages) < 1000
    return pages


@settings(max_examples=150, deadline=None)
@given(
    st.dictionaries(st.uuids().map(str), st.sampled_from(["a", "A", "b"]), max_size=40),
    st.integers(1, 7),
    st.sampled_from(["", "name eq 'a'", "name ne 'a'", "name eq 'none'"]),
)
def test_a_walk_gives_each_record_that_is_asked_for_once_and_in_order(names, top, text):
    records = stored({record_id: {"name": name} for record_id, name in names.items()})
    test = matcher(parse_filter(text), ACCOUNT) if text else lambda _: True
    pages = walked(records, text, top)
    wanted = [each for each in sorted(names) if test(record({"name": names[each]}))]
    assert [each for page in pages for each in page] == wanted
    assert all(len(page) <= top for page in pages)


def test_a_page_that_is_full_with_the_last_record_is_the_last():
    records = stored({f"f{number}000000-0000-4000-8000-000000000000": {"name": "a"} for number in range(4)})
    assert len(walked(records, "", 2)) == len(walked(records, "name eq 'a'", 2)) == 2


class Counting(MemoryTable):
    """Remembers how many rows its queries gave."""

    def __init__(self):
        super().__init__()
        self.rows = 0
        self.most = 0

    def query(self, *arguments, **more):
        page = super().query(*arguments, **more)
        self.rows += len(page.rows)
        self.most = max(self.most, len(page.rows))
        return page


@pytest.fixture(scope="module")
def many():
    """5,200 records, of which only the last is called `last`."""
    table = Counting()
    records = Records(table, ThreadPool())
    writes = [RecordWrite(ids(number), None, record({"name": "x"}, ids(number))) for number in range(5199)]
    writes.append(RecordWrite(ids(9999), None, record({"name": "last"}, ids(9999))))
    assert len(records.commit(DEFAULT_TENANT, "account", "0", writes).written) == 5200
    return records, table


def test_a_page_looks_at_five_thousand_rows_at_most_and_says_that_there_is_more(many):
    records, table = many
    test = matcher(parse_filter("name eq 'last'"), ACCOUNT)
    table.rows = 0
    found, place = records.walk(DEFAULT_TENANT, "account", {}, top=100, test=test)
    assert (found, table.rows) == ([], MAX_EXAMINED)
    assert place == {"bucket": 0, "after": ids(4999)}
    found, place = records.walk(DEFAULT_TENANT, "account", place, top=100, test=test)
    assert [each.id for each in found] == [ids(9999)]
    assert place is None
    assert table.rows == 5200
    assert table.most <= 1000  # what is held at once


def test_a_page_goes_on_after_its_last_record_and_looks_at_no_row_twice_over(many):
    records, _ = many
    test = matcher(parse_filter("name eq 'x'"), ACCOUNT)
    first, place = records.walk(DEFAULT_TENANT, "account", {}, top=7, test=test)
    second, _ = records.walk(DEFAULT_TENANT, "account", place, top=7, test=test)
    assert [each.id for each in [*first, *second]] == [ids(number) for number in range(14)]


def test_a_place_of_an_older_version_leads_on(many):
    """Old and new code run together while the app is updated."""
    records, _ = many
    _, token = records.page(DEFAULT_TENANT, "account", "0", top=10, token=None)
    found, _ = records.walk(DEFAULT_TENANT, "account", {"bucket": 0, "token": token}, top=2)
    assert [each.id for each in found] == [ids(10), ids(11)]


ANY_TEXT = st.text(
    st.characters(exclude_categories=["Cs"], exclude_characters="\x00"), min_size=1, max_size=20
)


@settings(max_examples=200, deadline=None)
@example(["O'Brien", "o'brien", "obrien"], 0)
@example(["a_b", "axb", "%", "a%"], 2)
@example(["İ", "i", "I", "\u0131", "ß", "ss"], 4)
@given(st.lists(ANY_TEXT, min_size=1, max_size=6), st.integers(0, 5))
def test_any_text_finds_exactly_the_records_equal_to_it(texts, which):
    literal = texts[which % len(texts)]
    records = stored({ids(number): {"name": text} for number, text in enumerate(texts)})
    quoted = literal.replace("'", "''")
    same = [ids(number) for number, text in enumerate(texts) if fold(text) == fold(literal)]
    for text in (f"name eq '{quoted}'", f"name in ('{quoted}')", f"not (name ne '{quoted}')"):
        assert [each for page in walked(records, text, 100) for each in page] == same
