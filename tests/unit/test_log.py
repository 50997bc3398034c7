"""Log lines: one JSON object each, with the context of the work, and nothing of what the work is done on."""

import json
import logging
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from contextvars import copy_context
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crm_core import log as log_module
from crm_core.log import Log, bind, bound, current_trace, plain, quiet_libraries, traceparent
from crm_core.model.fields import Type
from crm_core.model.filters import AnyOf, Both, Compare, Either, Function, Kind, Literal, Match, Not, Operator
from crm_core.protocols.odata import GUID_TYPE, Column, filter_text
from crm_core.protocols.rest import _SAFE_IN_VALUE, quote
from crm_core.protocols.shown import shown_path, shown_query
from crm_core.system import ThreadPool

ROOT = Path(__file__).resolve().parents[2]
_log = Log("crm_core.test")


# --- lines -------------------------------------------------------------------------------------------------------


def test_a_line_has_time_level_logger_event_context_and_fields_in_this_order(lines):
    with bound(trace="t1", principal="key:settings", run=""):
        _log.warning("something", status=200, counts={"created": 1}, error=None, at=[], text="a\nb")
    (line,) = lines()
    assert list(line) == [
        "time", "level", "logger", "event", "trace", "principal", "status", "counts", "text",
    ]  # fmt: skip
    assert line.pop("time").endswith("Z")
    assert line == {
        "level": "WARNING",
        "logger": "crm_core.test",
        "event": "something",
        "trace": "t1",
        "principal": "key:settings",
        "status": 200,
        "counts": {"created": 1},
        "text": "a\nb",
    }


def test_context_nests_and_ends_with_its_block():
    with bound(trace="t1", connection="c1"):
        with bound(connection="c2"):
            bind(entity="account")
            assert log_module._about.get() == {"trace": "t1", "connection": "c2", "entity": "account"}
        assert log_module._about.get() == {"trace": "t1", "connection": "c1"}
        assert current_trace() == "t1"
    assert current_trace() == ""


def test_what_becomes_known_outside_of_every_block_stays_with_nobody():
    bind(connection="c1")
    assert log_module._about.get() == {}


def test_a_pool_carries_the_context_into_its_threads_and_nothing_out_of_them():
    def work(number):
        seen = current_trace()
        bind(trace=f"inner-{number}")
        return seen

    with closing(ThreadPool(4)) as pool, bound(trace="outer"):
        pooled = copy_context().run(pool.map, work, range(1, 40), 4)
        assert pool.prefetch(current_trace).result() == "outer"
        assert current_trace() == "outer"
    assert pooled[0] == "outer"
    assert set(pooled) <= {"outer", *(f"inner-{number}" for number in range(40))}


def test_two_threads_do_not_see_each_other_s_context():
    def work(number):
        with bound(trace=f"t{number}"):
            return all(current_trace() == f"t{number}" for _ in range(1000))

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(work, range(40)))


@given(
    event=st.text(), fields=st.dictionaries(st.sampled_from("abc"), st.text() | st.integers() | st.floats())
)
def test_whatever_is_told_is_one_line_of_ascii(event, fields):
    kept = []
    handler = logging.Handler()
    handler.emit = lambda record: kept.append(handler.format(record))
    logger = logging.getLogger("crm_core.test")
    logger.addHandler(handler)
    try:
        _log.error(event, **fields)
    finally:
        logger.removeHandler(handler)
    (line,) = kept
    assert line.isascii()
    assert len(line.splitlines()) == 1
    assert json.loads(line)["event"] == event


def test_a_long_text_is_cut_and_a_strange_value_is_told_by_its_type(lines):
    _log.error("x", text="a" * 5000, thing=object())
    (line,) = lines()
    assert len(line["text"]) == log_module.MAX_TEXT
    assert line["thing"] == "object"


def test_a_bug_is_told_by_type_and_places_without_its_message(lines, caplog):
    def inner():
        try:
            int("planted-value-1")
        except ValueError as error:
            raise KeyError("planted-value-2") from error

    try:
        inner()
    except KeyError as error:
        _log.bug("bug", error, function="tick")
    (line,) = lines()
    assert (line["level"], line["error"], line["causes"]) == ("ERROR", "KeyError", ["ValueError"])
    assert line["function"] == "tick"
    assert [place.partition(":")[0] for place in line["at"]] == ["unit/test_log.py"] * 2
    assert line["at"][-1].endswith(" inner")
    assert "planted" not in caplog.text
    assert not any(record.exc_info or record.exc_text for record in caplog.records)


def test_a_cause_that_was_left_out_on_purpose_stays_out(lines):
    try:
        try:
            int("x")
        except ValueError:
            raise KeyError from None
    except KeyError as error:
        _log.bug("bug", error)
    assert "causes" not in lines()[0]


def test_the_header_of_a_trace():
    assert traceparent("a" * 32, "b" * 16) == f"00-{'a' * 32}-{'b' * 16}-01"
    made = {log_module.new_trace() for _ in range(50)} | {log_module.new_span() for _ in range(50)}
    assert {len(each) for each in made} == {16, 32}
    assert len(made) == 100


@pytest.mark.parametrize(
    ("code", "told"), [("0x80040217", "0x80040217"), ("a b", ""), ("x" * 61, ""), ("***", ""), ("ñ", "")]
)
def test_a_vendor_s_code_is_told_if_it_looks_like_one(code, told):
    assert plain(code) == told


LIBRARIES = [
    "urllib3.connectionpool",
    "msal.application",
    "azure.core.pipeline.policies.http_logging_policy",
    "azure.identity._internal.decorators",
    "azure.storage.queue",
]


def test_libraries_tell_no_addresses_though_the_root_says_everything(caplog):
    caplog.set_level(logging.DEBUG)
    for name in LIBRARIES:
        logging.getLogger(name).setLevel(logging.NOTSET)
    quiet_libraries()
    for name in LIBRARIES:
        logging.getLogger(name).info("https://x.example/?sig=planted")
        logging.getLogger(name).debug("https://x.example/?sig=planted")
    logging.getLogger("msal.oauth2cli").error("Token response is not in json format: planted")
    assert not caplog.records


def test_making_the_app_keeps_libraries_quiet_and_imports_none_of_them():
    program = (
        "import logging, sys\n"
        "logging.basicConfig(level=logging.DEBUG)\n"
        "import function_app\n"
        "print([logging.getLogger(each).isEnabledFor(logging.INFO) for each in ('msal', 'urllib3', 'azure.core')])\n"
        "print([each for each in ('requests', 'urllib3', 'msal', 'azure.core') if each in sys.modules])"
    )
    run = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert run.stdout.splitlines() == ["[False, False, False]", "[]"]


# --- addresses ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "shown"),
    [
        ("/services/T0A1/B0B2/aB3dE5fG7hI9jK1lM3nO", "/services/T0A1/B0B2/..."),
        (
            "/accounts(2d1e8a52-9d4f-4b6e-8f0a-1c2b3d4e5f60)",
            "/accounts(2d1e8a52-9d4f-4b6e-8f0a-1c2b3d4e5f60)",
        ),
        ("/x/2d1e8a52-9d4f-4b6e-8f0a-1c2b3d4e5f60/y", "/x/2d1e8a52-9d4f-4b6e-8f0a-1c2b3d4e5f60/y"),
        ("/sobjects/Account/0015g00000XyzAbAAJ", "/sobjects/Account/0015g00000XyzAbAAJ"),
        ("/api/data/v9.2/$batch", "/api/data/v9.2/$batch"),
        ("/a%0Ab", "/ab"),
        ("/" + "a" * 400, "/" + "a" * 299),
        ("/contacts(email='a%2Fb%40c.d')/name", "/contacts(email='...')/name"),
        ("/contacts(number=4711,code='x''y')", "/contacts(number=...,code='...')"),
        ("/Partner('1003764')", "/Partner('...')"),
        ("/Partner('it''s)", "/..."),
        ("/numbers(4711)", "/numbers(...)"),
        ("/v1/contact/email/ann%40example.org/profile", "/v1/contact/email/.../profile"),
        ("/search/John%20Smith", "/search/..."),
    ],
)
def test_paths_in_the_log(path, shown):
    assert shown_path(path) == shown


@pytest.mark.parametrize(
    ("query", "shown"),
    [
        ("$filter=name%20eq%20'O''Neill'%20and%20revenue%20gt%205e3", "$filter=name eq '...' and revenue gt ..."),
        ("$filter=contains(name,'x')&$top=25", "$filter=contains(name,'...')&$top=25"),
        ("$filter=accountid+eq+2D1E8A52-9d4f-4b6e-8f0a-1c2b3d4e5f60", "$filter=accountid eq ..."),
        ("$filter=a eq null or b eq true", "$filter=a eq null or b eq ..."),
        ("$filter=a ge 2026-11-24T13:45:00Z", "$filter=a ge ..."),
        ("$filter=a eq 'never%20ends", "$filter=a eq '...'"),
        ('$filter=x.In(PropertyName=\'n\',PropertyValues=["a","b"])',
         "$filter=x.In(PropertyName='...',PropertyValues=['...','...'])"),
        ("$filter=a eq ñandú", "$filter=a eq ...and..."),
        ("$expand=contacts($select=name;$filter=age gt 30)", "$expand=contacts($select=name;$filter=age gt ...)"),
        ("$select=name,accountid&$orderby=name%20desc", "$select=name,accountid&$orderby=name desc"),
        ("$select=address1_stateorprovince", "$select=address1_stateorprovince"),
        ("$deltatoken=919042%2108%2f22&$skiptoken=x", "$deltatoken=...&$skiptoken=..."),
        ("fetchXml=%3Cfetch%3E&@p1='x'&api-version=1", "fetchXml=...&@p1=...&api-version=..."),
        ("$top=ann&$skip=5&$count=true", "$top=...&$skip=5&$count=true"),
        ("ann@example.org&aB3dE5fG7hI9jK1lM3nO=1&", "...&..."),
        ("", ""),
        ("q=" + "a&b=" * 200, ("q=...&" + "b=...&" * 200)[:500]),
    ],
)  # fmt: skip
def test_queries_in_the_log(query, shown):
    assert shown_query(query) == shown


TYPES = {
    "name": (Type.TEXT, Kind.TEXT, st.text(min_size=1, max_size=30)),
    "employees": (Type.INTEGER, Kind.INTEGER, st.integers(-(10**18), 10**18).map(str)),
    "revenue": (
        Type.MONEY, Kind.DECIMAL, st.decimals(-(10**20), 10**20, places=4).map("{:f}".format),
    ),
    "active": (Type.BOOLEAN, Kind.BOOLEAN, st.sampled_from(["true", "false"])),
    "key": (GUID_TYPE, Kind.GUID, st.uuids().map(str)),
    "born": (Type.DATE, Kind.DATE, st.dates().map(str)),
    "changed": (
        Type.INSTANT, Kind.INSTANT, st.datetimes().map(lambda time: time.isoformat(timespec="milliseconds") + "Z"),
    ),
}  # fmt: skip


UNORDERED = {"active", "key"}


def column(name):
    return Column(name, f"native_{name}", TYPES[name][0], {})


def literals(name):
    """Two values of one kind."""
    _, kind, values = TYPES[name]
    return st.tuples(values, values).map(lambda two: tuple(Literal(kind, each) for each in two))


LEAVES = st.one_of(
    *(
        st.builds(
            lambda name, operator, two: tuple(Compare(name, operator, each) for each in two),
            st.just(name),
            st.sampled_from([Operator.EQ, Operator.NE] if name in UNORDERED else list(Operator)),
            literals(name),
        )
        for name in TYPES
    ),
    st.builds(
        lambda function, two: tuple(Match(function, "name", each) for each in two),
        st.sampled_from(Function), literals("name"),
    ),
    st.lists(literals("key"), min_size=1, max_size=4).map(
        lambda many: tuple(AnyOf("key", tuple(two[side] for two in many)) for side in (0, 1))
    ),
)  # fmt: skip
TWINS = st.recursive(
    LEAVES,
    lambda inner: st.one_of(
        st.tuples(inner, inner).map(lambda two: tuple(Both(two[0][side], two[1][side]) for side in (0, 1))),
        st.tuples(inner, inner).map(lambda two: tuple(Either(two[0][side], two[1][side]) for side in (0, 1))),
        inner.map(lambda one: (Not(one[0]), Not(one[1]))),
    ),
    max_leaves=6,
)
"""Two filters that differ in their literals alone."""


@given(TWINS)
def test_no_literal_of_a_filter_tells_on_the_line(twins):
    """Two filters that differ in their literals alone are shown alike, so that nothing of a literal can be there."""
    shown = [
        shown_query(f"$filter={quote(filter_text(each, column), safe=_SAFE_IN_VALUE)}&$top=5")
        for each in twins
    ]
    assert shown[0] == shown[1]
    assert "native_" in shown[0]


@given(st.text(), st.text())
def test_no_key_of_a_path_tells_on_the_line(one, other):
    def shown(value):
        escaped = quote(value.replace("'", "''"), safe="")
        return shown_path(f"/contacts(email='{escaped}',number={len(value)})/name")

    assert shown(one) == shown(other) == "/contacts(email='...',number=...)/name"
