"""What a post of Dataverse says, and what proves it."""

import json

import pytest

from crm_core.connector import Event, Hook
from crm_core.connectors.dynamics365 import hooks
from crm_core.errors import BadAnswer, SignatureInvalid

RID = "7a387fde-9856-4543-a564-502a063c5ab1"
POST = {
    "MessageName": "Update", "OperationCreatedOn": "/Date(1767607872123+0000)/", "OperationId": RID[::-1].replace("-", "")[:8]
    + "-0000-4000-8000-000000000001", "PrimaryEntityName": "account", "PrimaryEntityId": RID.upper(),
    "InputParameters": [{"key": "Target", "value": {"LogicalName": "contact", "Id": RID}}],
}  # fmt: skip


def post(body, **more):
    return Hook(more.get("headers", {}), more.get("query", {}), json.dumps(body).encode())


def test_a_post_is_about_its_primary_row():
    assert hooks.parse(post(POST)) == [Event("account", RID, "2026-01-05T10:11:12.123000Z")]


@pytest.mark.parametrize(
    ("table", "entity"),
    [
        ("contact", "contact"), ("incident", "case"), ("salesorder", "order"), ("task", "activity"),
        ("phonecall", "activity"), ("email", "activity"), ("appointment", "activity"), ("Account", "account"),
    ],
)  # fmt: skip
def test_each_table_is_an_entity(table, entity):
    assert [each.entity for each in hooks.parse(post({**POST, "PrimaryEntityName": table}))] == [entity]


def test_tables_that_we_do_not_have_say_nothing():
    for table in ("systemuser", "salesorderdetail", "fax", ""):
        assert hooks.parse(post({**POST, "PrimaryEntityName": table})) == []


@pytest.mark.parametrize(
    "change",
    [
        {"OperationId": "00000000-0000-0000-0000-000000000000"}, {"OperationId": None}, {"OperationId": "x"},
        {"OperationCreatedOn": None}, {"OperationCreatedOn": "2026-01-05T10:11:12Z"}, {"OperationCreatedOn": "/Date(x)/"},
    ],
)  # fmt: skip
def test_without_the_id_of_its_operation_another_post_may_be_the_same(change):
    assert [each.when for each in hooks.parse(post({**POST, **change}))] == [""]


@pytest.mark.parametrize(
    "body",
    [
        [], "x", None, {}, {"PrimaryEntityName": "account"}, {**POST, "PrimaryEntityId": 1},
        {**POST, "PrimaryEntityId": f"{RID}'"}, {**POST, "PrimaryEntityName": None}, {**POST, "PrimaryEntityId": f"{RID}\n"},
    ],
)  # fmt: skip
def test_what_no_step_posts_is_refused(body):
    with pytest.raises(BadAnswer):
        hooks.parse(post(body))


def test_the_key_comes_as_code_or_in_a_header():
    assert hooks.PROOF.proof(post(POST, query={"code": "k"}), ["k"], 0.0)
    assert hooks.PROOF.proof(post(POST, headers={"x-hub-token": "k"}), ["k"], 0.0)
    for sent in (post(POST), post(POST, query={"token": "k"}), post(POST, headers={"x-functions-key": "k"})):
        with pytest.raises(SignatureInvalid):
            hooks.PROOF.proof(sent, ["k"], 0.0)
