"""Odoo's words: values on the wire, domains, posts of automation rules, errors. What the server says of them is tried in
tests/contract/connectors.
"""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crm_core.connector import Answer, Event, Hook
from crm_core.connectors.odoo import hooks
from crm_core.connectors.odoo.client import explain
from crm_core.connectors.odoo.domains import Column, domain_of, escaped, whole
from crm_core.connectors.odoo.wire import cleaned, html_of, loaded, sent, text_of
from crm_core.errors import (
    AuthFailed,
    BadAnswer,
    Misconfigured,
    NotPermitted,
    NotSupported,
    RecordGone,
    Rejected,
    SignatureInvalid,
    Unavailable,
)
from crm_core.model.fields import Type
from crm_core.model.filters import parse_filter
from crm_core.model.literals import SERIAL_TYPE

POST = {"_action": "Send(#396)", "_id": 85, "_model": "res.partner", "id": 85, "is_company": False, "name": "Hook",
        "write_date": "2026-11-21 21:12:21.046665"}  # fmt: skip


def post(body, **more):
    return Hook(more.get("headers", {}), more.get("query", {}), json.dumps(body).encode())


@pytest.mark.parametrize("value", ["57", 57, [57, "Germany"]])
def test_a_many2one_is_read_as_its_id_and_written_as_a_number(value):
    assert cleaned("many2one", value if value != "57" else 57) == "57"
    assert sent("many2one", "57") == 57
    assert sent("many2one", None) is False


def test_a_reference_that_is_no_number_is_never_written():
    for wrong in ("Germany", "57.0", "", "٣"):
        with pytest.raises(ValueError, match="expected the id"):
            sent("many2one", wrong)


def test_false_is_empty_but_of_a_boolean():
    assert [cleaned(kind, False) for kind in ("char", "date", "many2one", "float")] == [None] * 4
    assert cleaned("boolean", False) is False
    assert cleaned("integer", 0) == 0


def test_times_are_utc_there_and_rfc_3339_here():
    assert cleaned("datetime", "2026-11-21 21:08:50") == "2026-11-21T21:08:50Z"
    assert sent("datetime", "2026-11-21T21:08:50.7Z") == "2026-11-21 21:08:50"
    assert loaded("datetime", "2026-11-21T22:08:50+01:00") == "2026-11-21 21:08:50"


@given(st.text(st.characters(exclude_characters="\r\x00", exclude_categories=("Cs",)), min_size=1))
def test_text_as_html_reads_as_the_same_text(text):
    assert text_of(html_of(text)) == text


def test_a_persons_html_reads_as_lines():
    assert text_of("<div>One</div>\n<ul><li>Two &amp; <b>three</b></li></ul><p>Four<br/>five</p>") == (
        "One\nTwo & three\nFour\nfive"
    )


def column(name):
    kinds = {
        "flag": Type.BOOLEAN,
        "time": Type.INSTANT,
        "day": Type.INSTANT,
        "ref": SERIAL_TYPE,
        "amount": Type.MONEY,
    }
    kept = name in ("flag", "amount")
    return Column(
        name,
        name,
        kinds.get(name, Type.TEXT),
        empty=[] if kept else [[name, "=", False]],
        filled=[[name, "!=", False]],
        dates=name == "day",
    )


@pytest.mark.parametrize(
    ("text", "domain"),
    [
        ("name eq 'a%'", [["name", "=ilike", "a\\%"]]),
        ("not (name eq 'a')", ["|", ["name", "=", False], "!", ["name", "=ilike", "a"]]),
        ("name eq null and ref eq 5", ["&", ["name", "=", False], ["ref", "=", 5]]),
        ("not (name eq null or ref eq 5)",
         ["&", ["name", "!=", False], "|", ["ref", "=", False], ["ref", "!=", 5]]),
        ("time gt 2026-11-21T21:08:50.5Z", [["time", ">=", "2026-11-21 21:08:51"]]),
        ("time eq 2026-11-21T22:08:50+01:00",
         ["&", ["time", ">=", "2026-11-21 21:08:50"], ["time", "<", "2026-11-21 21:08:51"]]),
        ("day ge 2026-11-21T00:00:01Z", [["day", ">", "2026-11-21"]]),
        ("day ge 2026-11-21", [["day", ">=", "2026-11-21"]]),
        ("day lt 2026-11-22T01:00:00+05:30", [["day", "<=", "2026-11-21"]]),
        ("not (day le 2026-11-21)", ["|", ["day", "=", False], ["day", ">", "2026-11-21"]]),
        ("day eq 2026-11-21T10:00:00Z", [[0, "=", 1]]),
        ("amount eq null", [[0, "=", 1]]),
        ("flag ne true", [["flag", "=", False]]),
    ],
)  # fmt: skip
def test_the_domain_that_goes_out_leaves_no_version_a_choice(text, domain):
    assert domain_of(parse_filter(text), column) == domain


@given(st.text(min_size=1))
def test_wildcards_of_a_text_are_themselves(text):
    kept = escaped(text).replace("\\\\", "").replace("\\%", "").replace("\\_", "")
    assert not set(kept) & {"%", "_", "\\"}


def test_several_conditions_become_one_expression():
    assert whole([["a", "=", 1], "|", ["b", "=", 2], ["c", "=", 3]]) == [
        "&",
        ["a", "=", 1],
        "|",
        ["b", "=", 2],
        ["c", "=", 3],
    ]


@pytest.mark.parametrize(
    ("status", "name", "message", "kind"),
    [
        (401, "werkzeug.exceptions.Unauthorized", "Invalid apikey", AuthFailed),
        (403, "odoo.exceptions.AccessError", "You are not allowed to access 'Lead' (crm.lead)", NotPermitted),
        (404, "odoo.exceptions.MissingError", "Record does not exist", RecordGone),
        (404, "werkzeug.exceptions.NotFound", "the model 'stock.quant' does not exist", NotSupported),
        (422, "odoo.exceptions.ValidationError", "no", Rejected),
        (500, "builtins.ValueError", "Invalid field 'x' on 'res.partner'", Rejected),
        (500, "psycopg2.errors.SerializationFailure", "could not serialize access", Unavailable),
        (500, "builtins.RuntimeError", "out of luck", Unavailable),
        (409, "odoo.exceptions.LockError", "locked", Unavailable),
    ],
)
def test_an_error_means_what_its_exception_says(status, name, message, kind):
    body = json.dumps({"name": name, "message": message, "debug": "Traceback /opt/odoo/secret"}).encode()
    error = explain(Answer(status, {}, body))
    assert type(error) is kind
    assert "Traceback" not in repr(vars(error)) + str(error)


def test_a_404_that_is_no_json_names_the_settings():
    assert type(explain(Answer(404, {"content-type": "text/html"}, b"<p>no such database"))) is Misconfigured


def test_a_post_is_a_hint_to_what_the_model_holds():
    assert hooks.parse(post(POST)) == [Event("contact", "85", "2026-11-21T21:12:21.046665Z")]
    bare = {"_id": 85, "_model": "res.partner"}
    assert {each.entity for each in hooks.parse(post(bare))} == {"account", "contact"}
    assert hooks.parse(post({"_id": 1, "_model": "project.task"})) == []
    assert hooks.parse(post({"_id": 1, "_model": "mail.activity", "active": False})) == [
        Event("activity", "1", "")
    ]
    for wrong in ([], {}, {"_model": "res.partner", "_id": True}, {"_model": 1, "_id": 1}):
        with pytest.raises(BadAnswer):
            hooks.parse(post(wrong))


def test_a_post_proves_itself_by_our_token_alone():
    assert hooks.PROOF.proof(post(POST, query={"token": "t-ñ"}), ["new", "t-ñ"], 0.0)
    assert hooks.PROOF.proof(post(POST, headers={"x-hub-token": "t"}), ["t"], 0.0)
    for hook, secrets in (
        (post(POST), [""]),
        (post(POST, query={"token": ""}), [""]),
        (post(POST, query={"token": "u"}), ["t"]),
    ):
        with pytest.raises(SignatureInvalid):
            hooks.PROOF.proof(hook, secrets, 0.0)


def test_only_a_time_with_its_microseconds_names_one_change():
    for text in ("2026-11-21 21:12:21", "", None, 5):
        assert {each.when for each in hooks.parse(post({**POST, "write_date": text}))} == {""}
