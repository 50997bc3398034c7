"""What the command line writes: tables, JSON and CSV."""

import csv
import io
import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crm_core.cli.output import cell, csv_cell, json_text
from crm_core.model import csv_text


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("=1+1", "'=1+1"), ("+57 1", "'+57 1"), ("-5.00", "-5.00"), ("-5.00-2", "'-5.00-2"), ("\n=x", "'\n'=x"), ("'=x", "''=x"), ("\uff1dx", "'\uff1dx"), ("@x", "'@x"), ("\tx", "'\tx"), ("\rx", "'\rx"),
        ("Acme;=1+1;", "Acme;'=1+1;"), ("a\t-1", "a\t'-1"), ('a;"=1"', "a;'\"=1\""), ("a\r\n\r\nb; -1", "a\r\n\r\nb; -1"), ("\ufe66x", "'\ufe66x"), (["a;=1"], '["a;\'=1"]'),
        ("a=b", "a=b"), (-5, "-5"), (None, ""), (True, "true"), (["=1"], '["=1"]'), ({"a": None}, '{"a": null}'),
    ],
)  # fmt: skip
def test_csv_has_no_formula(value, shown):
    assert csv_cell(value) == shown


@given(text=st.text(st.sampled_from("ab ;\t\r\n'\"=-\ufe62\uff20")))
def test_csv_escapes_as_the_hub_s_exports_do(text):
    assert csv_cell(text) == csv_text.cell(text)


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("a\x1b[2Jb\nc", "a\\u001b[2Jb\\nc"), ("x\u202ey", "x\\u202ey"), ("\x9b31m", "\\u009b31m"), (["a", "b"], "a, b"),
        (None, ""), (False, "no"), ("2026-11-24T13:45:00.123Z", "2026-11-24T13:45:00Z"), ({"a": ["b"]}, '{"a": ["b"]}'),
    ],
)  # fmt: skip
def test_a_table_does_nothing_to_the_terminal(value, shown):
    assert cell(value) == shown


def test_json_is_exact_and_harmless():
    text = json_text({"a": "Ñ\x1b\x9b\u202e"})
    assert json.loads(text) == {"a": "Ñ\x1b\x9b\u202e"}
    assert not re.search("[\x00-\x1f\x7f-\x9f]", text)


def test_columns_that_come_late_are_not_lost(hub, cli):
    items = [{"id": str(n), f"field_{n // 150}": "x"} for n in range(400)]
    pages = [
        (
            200,
            {
                "value": items[n : n + 200],
                **({"nextLink": f"{hub.url}/api/records/accounts?skiptoken=1"} if n == 0 else {}),
            },
        )
        for n in (0, 200)
    ]
    hub.say("GET", "/api/records/accounts", *pages)
    rows = list(csv.DictReader(io.StringIO(cli("records", "list", "accounts", "--all", "-o", "csv").out)))
    assert list(rows[0]) == ["id", "field_0", "field_1", "field_2"]
    assert len(rows) == 400


def test_wide_letters_are_aligned(hub, cli):
    hub.say("GET", "/api/runs", (200, {"value": [{"id": "漢字", "mode": "x"}, {"id": "ab", "mode": "y"}]}))
    assert cli("runs", "--columns", "id,mode").out == "id    mode\n漢字  x\nab    y\n"


def test_a_terminal_without_the_letters_shows_something(hub, cli):
    hub.say("GET", "/api/runs", (200, {"value": [{"id": "Ñandú 漢"}]}))
    done = cli(
        "runs",
        "--columns",
        "id",
        env={"PYTHONIOENCODING": "latin-1", "PYTHONUTF8": "0"},
        encoding="latin-1",
    )
    assert (done.code, "\\u6f22" in done.out) == (0, True)


def test_a_lone_end_of_line_in_a_text_begins_no_row(hub, cli):
    item = {"id": "a\r1+1", "name": "b\n2", "note": "c\r\n3"}
    hub.say("GET", "/api/records/accounts", (200, {"value": [item]}))
    text = cli("records", "list", "accounts", "-o", "csv").out
    assert list(csv.reader(io.StringIO(text, newline=""))) == [list(item), list(item.values())]
    assert '"a\r1+1"' in text
