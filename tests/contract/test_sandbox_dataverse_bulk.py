"""Many operations in one request to the Dataverse sandbox: $batch and the ...Multiple actions, by raw HTTP."""

import email
import email.policy
import re
import uuid

import pytest

from sandbox.dynamics365 import Dataverse
from sandbox.testing import running, signed_in

API = "/api/data/v9.2"
KIND = "Microsoft.Dynamics.CRM.account"


@pytest.fixture(scope="module")
def client():
    with running(Dataverse()) as sandbox, signed_in(sandbox) as client:
        yield client


def part(method, url, body="", content_id=None, headers="Content-Type: application/json\r\n"):
    mark = f"Content-ID: {content_id}\r\n" if content_id else ""
    return (
        f"Content-Type: application/http\r\nContent-Transfer-Encoding: binary\r\n{mark}\r\n"
        f"{method} {url} HTTP/1.1\r\n{headers}\r\n{body}"
    )


def multipart(boundary, parts):
    return "".join(f"--{boundary}\r\n{p}\r\n" for p in parts) + f"--{boundary}--\r\n"


def changes(boundary, *parts):
    return f'Content-Type: multipart/mixed; boundary="{boundary}"\r\n\r\n' + multipart(boundary, parts)


def batch(client, *parts, prefer=""):
    headers = {"Content-Type": 'multipart/mixed; boundary="b_1"', "Prefer": prefer}
    return client.call("POST", f"{API}/$batch", multipart("b_1", parts).encode(), headers)


def read(answer):
    """The parts of a batch's answer as (status, content id, headers, body); a change set is a list."""

    def one(message):
        if message.is_multipart():
            return [one(m) for m in message.get_payload()]
        head, _, rest = message.get_payload().partition("\r\n")
        inner = email.message_from_string(rest, policy=email.policy.HTTP)
        return int(head.split()[1]), message["Content-ID"], inner, inner.get_payload()

    kind = answer.headers["Content-Type"]
    assert re.fullmatch(r"multipart/mixed; boundary=batchresponse_[0-9a-f-]{36}", kind)
    whole = email.message_from_bytes(
        f"Content-Type: {kind}\r\n\r\n".encode() + answer.body, policy=email.policy.HTTP
    )
    return one(whole)


def count(client):
    return int(client.call("GET", f"{API}/accounts/$count").body)


def test_a_change_set_refers_to_its_own_rows_and_echoes_content_ids(client):
    answer = batch(
        client,
        changes(
            "cs_1",
            part("POST", f"{API}/accounts", '{"name":"Set"}', 1),
            part(
                "POST",
                f"{API}/contacts",
                '{"lastname":"In it","parentcustomerid_account@odata.bind":"$1"}',
                2,
            ),
            part("PATCH", "$1", '{"telephone1":"5"}', 3),
        ),
        part(
            "GET",
            f"{API}/accounts?$filter=name%20eq%20'Set'&$select=name,telephone1",
            headers="Accept: application/json\r\n",
        ),
    )
    assert answer.status == 200
    inside, found = read(answer)
    assert [(p[0], p[1]) for p in inside] == [(204, "1"), (204, "2"), (204, "3")]
    assert "/accounts(" in inside[0][2]["OData-EntityId"]
    assert found[0] == 200
    assert '"telephone1":"5"' in found[3]


def test_a_failed_change_set_is_undone_and_answers_with_one_part(client):
    before = count(client)
    parts = [
        changes(
            "cs_1",
            part("POST", f"{API}/accounts", '{"name":"undone"}', 1),
            part("POST", f"{API}/accounts", '{"nonsense":1}', 2),
            part("POST", f"{API}/accounts", '{"name":"never"}', 3),
        ),
        part("POST", f"{API}/accounts", '{"name":"after"}'),
    ]
    stopped = batch(client, *parts)
    assert stopped.status == 400  # the status of the part is the status of the whole
    ((status, mark, _, body),) = read(stopped)
    assert (status, mark) == (400, "2")
    assert "nonsense" in body
    assert count(client) == before
    went_on = batch(client, *parts, prefer="odata.continue-on-error")
    assert went_on.status == 200
    assert [p[0] for p in read(went_on)] == [400, 204]
    assert count(client) == before + 1


def test_operations_outside_change_sets_are_independent_and_in_order(client):
    before = count(client)
    parts = [
        part("POST", "accounts", '{"name":"one"}'),
        part("DELETE", f"accounts({uuid.uuid4()})"),
        part("POST", "accounts", '{"name":"two"}'),
    ]
    assert batch(client, *parts).status == 404
    assert count(client) == before + 1
    answer = batch(client, *parts, prefer="odata.continue-on-error")
    assert [p[0] for p in read(answer)] == [204, 404, 204]


@pytest.mark.parametrize(
    "parts",
    [
        [changes("c", part("GET", f"{API}/accounts", "", 1))],
        [changes("c", part("POST", f"{API}/accounts", '{"name":"x"}'))],  # no Content-ID
        [
            changes("c", part("POST", f"{API}/accounts", "{}", 1)),
            changes("d", part("POST", f"{API}/accounts", "{}", 1)),
        ],
        ["Content-Type: application/http\r\n\r\nnonsense\r\n\r\n"],
        [part("GET", f"{API}/accounts?$top=1")] * 1001,
    ],
    ids=["get in a change set", "no content id", "content id twice", "no request line", "1001 operations"],
)
def test_a_batch_refused_as_a_whole_is_plain_json(client, parts):
    before = count(client)
    answer = batch(client, *parts)
    assert answer.status == 400
    assert answer.headers["Content-Type"].startswith("application/json")
    assert answer.json()["error"]["message"]
    assert count(client) == before


def test_lines_must_end_with_crlf_and_a_batch_must_be_multipart(client):
    body = multipart("b_1", [part("GET", f"{API}/WhoAmI")]).replace("\r\n", "\n").encode()
    kind = {"Content-Type": "multipart/mixed; boundary=b_1"}
    assert client.call("POST", f"{API}/$batch", body, kind).status == 400
    assert client.call("POST", f"{API}/$batch", b"{}", {"Content-Type": "application/json"}).status == 400
    assert client.call("GET", f"{API}/$batch").status == 405


def test_a_reference_must_be_declared_earlier_and_no_batch_in_a_batch(client):
    answer = batch(client, changes("c", part("PATCH", "$7", '{"name":"x"}', 1)))
    assert "Content-ID Reference: '$7' does not exist in the batch context." in read(answer)[0][3]
    bind = batch(
        client,
        changes(
            "c", part("POST", "contacts", '{"lastname":"x","parentcustomerid_account@odata.bind":"$8"}', 1)
        ),
    )
    assert "Content-ID Reference: '$8' does not exist in the batch context." in read(bind)[0][3]
    assert read(batch(client, part("POST", f"{API}/$batch", "")))[0][0] == 400


def test_every_part_counts_against_the_limits_and_can_fail_alone(client):
    client.call(
        "POST",
        "/_sandbox/faults",
        {"kind": "status", "status": 503, "method": "GET", "path": "*/contacts", "retry_after": 7},
    )
    answer = batch(
        client, part("GET", f"{API}/contacts"), part("GET", f"{API}/WhoAmI"), prefer="odata.continue-on-error"
    )
    failed, fine = read(answer)
    assert (failed[0], failed[2]["Retry-After"], fine[0]) == (503, "7", 200)
    client.call("POST", "/_sandbox/options", {"limits": {"requests": 1}})
    try:
        left = batch(client, part("GET", f"{API}/WhoAmI"))
        assert left.status == 429
    finally:
        client.call("POST", "/_sandbox/reset")


def many(client, verb, targets, set_name="accounts", kind=KIND):
    body = {"Targets": [{"@odata.type": kind, **t} for t in targets]}
    return client.call("POST", f"{API}/{set_name}/Microsoft.Dynamics.CRM.{verb}", body)


@pytest.fixture(autouse=True)
def _fresh_token(client):
    if client.call("GET", f"{API}/WhoAmI").status == 401:
        raise AssertionError("a reset must not revoke tokens")


def test_create_multiple_gives_ids_in_order_or_nothing(client):
    answer = many(client, "CreateMultiple", [{"name": f"m{n}"} for n in range(3)])
    assert answer.status == 200
    names = [
        client.call("GET", f"{API}/accounts({i})?$select=name").json()["name"] for i in answer.json()["Ids"]
    ]
    assert names == ["m0", "m1", "m2"]
    before = count(client)
    assert many(client, "CreateMultiple", [{"name": "good"}, {"industrycode": 99}]).code == "0x8004431a"
    assert count(client) == before


def test_update_multiple_needs_ids_of_rows_that_exist(client):
    ids = many(client, "CreateMultiple", [{"name": "a"}, {"name": "b"}]).json()["Ids"]
    done = many(client, "UpdateMultiple", [{"accountid": i, "telephone1": "7"} for i in ids])
    assert (done.status, done.body) == (204, b"")
    assert many(client, "UpdateMultiple", [{"name": "x"}]).status == 400
    missing = many(
        client, "UpdateMultiple", [{"accountid": ids[0], "telephone1": "8"}, {"accountid": str(uuid.uuid4())}]
    )
    assert (missing.status, missing.code) == (404, "0x80040217")
    assert client.call("GET", f"{API}/accounts({ids[0]})?$select=telephone1").json()["telephone1"] == "7"


def test_upsert_multiple_by_id_and_by_alternate_key(client):
    by_key = {"@odata.id": "accounts(accountnumber='U-1')"}
    given = str(uuid.uuid4())
    assert (
        many(
            client, "UpsertMultiple", [{**by_key, "name": "new"}, {"accountid": given, "name": "given"}]
        ).status
        == 204
    )
    assert (
        many(
            client, "UpsertMultiple", [{**by_key, "name": "changed"}, {"accountid": given, "name": "given 2"}]
        ).status
        == 204
    )
    assert client.call("GET", f"{API}/accounts(accountnumber='U-1')?$select=name").json()["name"] == "changed"
    assert client.call("GET", f"{API}/accounts({given})?$select=name").json()["name"] == "given 2"
    twice = many(
        client, "UpsertMultiple", [{"@odata.id": "accounts(accountnumber='U-2')", "accountnumber": "U-2"}]
    )
    assert (twice.status, twice.code) == (400, "0x80040216")


def test_actions_need_their_namespace_and_their_targets(client):
    assert client.call("POST", f"{API}/accounts/CreateMultiple", {"Targets": []}).status == 404
    assert (
        client.call("POST", f"{API}/accounts/Microsoft.Dynamics.CRM.DeleteMultiple", {"Targets": []}).status
        == 404
    )
    assert client.call("GET", f"{API}/accounts/Microsoft.Dynamics.CRM.CreateMultiple").status == 405
    assert (
        client.call("POST", f"{API}/accounts/Microsoft.Dynamics.CRM.CreateMultiple", {"targets": []}).status
        == 400
    )
    assert (
        many(client, "CreateMultiple", [{"name": "x"}], kind="Microsoft.Dynamics.CRM.contact").status == 400
    )


def test_bulk_delete_deletes_the_rows_that_it_lists(client):
    ids = many(client, "CreateMultiple", [{"name": "a"}, {"name": "b"}, {"name": "c"}]).json()["Ids"]

    def query(**changes):
        values = [{"Value": i, "Type": "System.Guid"} for i in (*ids[:2], str(uuid.uuid4()))]
        condition = {"AttributeName": "accountid", "Operator": "In", "Values": values}
        return {"QuerySet": [{"EntityName": "account", "Criteria": {"Conditions": [condition]}, **changes}]}

    done = client.call("POST", f"{API}/BulkDelete", query())
    assert done.status == 200
    assert uuid.UUID(done.json()["JobId"])
    assert [client.call("GET", f"{API}/accounts({i})").status for i in ids] == [404, 404, 200]
    assert client.call("POST", f"{API}/BulkDelete", query(EntityName="activitypointer")).status == 400
    assert client.call("POST", f"{API}/BulkDelete", query(Criteria={"Conditions": []})).status == 501
    assert client.call("POST", f"{API}/BulkDelete", {}).status == 400
