"""The hand-written format against the SDK, its reference, and against answers as the service documents them."""

import math
from uuid import uuid4

import pytest
from azure.data.tables import EdmType, EntityProperty, TableServiceClient
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from crm_core.errors import Misconfigured, StoreUnavailable
from crm_core.ports import MAX_TRANSACTION_BYTES, Operation, Row, RowChanged, RowExists, RowTooLarge
from crm_core.storage.azure import AzureTable, StorageAccount
from crm_core.storage.batch import Missing, decode_row, encode_transaction, parse_answer, refusal

# Azurite finds keys in an address by patterns, which what looks like the end of a key and line separators confuse.
key = st.text(
    st.characters(exclude_categories=["Cs", "Cc"], exclude_characters="/\\#?\u2028\u2029"), max_size=20
).filter(lambda text: "'," not in f"'{text}" and "')" not in f"'{text}")
value = st.one_of(
    st.text(st.characters(exclude_categories=["Cs"]), max_size=40),
    st.integers(-(2**63), 2**63 - 1),
    st.sampled_from([2**63 - 1, -(2**63), 2**31, -(2**31) - 1, 0]),
    st.booleans(),
    st.floats(),
    st.binary(max_size=40),
)
name = st.one_of(st.from_regex(r"\A[A-Za-z][A-Za-z0-9_]{0,8}\Z"), st.sampled_from(["año", "_x", "P" * 255]))
row_values = st.dictionaries(name, value, max_size=8)
REFERENCE = settings(
    max_examples=150,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
LONG_KEY = "ñ" * 512
ODD = {
    "text": "\x00\u2028\u2029\x85\ufffe🦤{}'\"\\",
    "empty": "",
    "nothing": b"",
    "nan": math.nan,
    "whole": 1e16,
}


@pytest.fixture(scope="module")
def ours(azurite):
    azure = AzureTable(StorageAccount(azurite))
    yield azure
    azure.close()


@pytest.fixture(scope="module")
def reference(azurite):
    with TableServiceClient.from_connection_string(azurite) as service:
        yield service.create_table(f"T{uuid4().hex}")


def typed(values) -> dict[str, tuple[str, str]]:
    """Comparable values: the type matters, NaN is like NaN, and JavaScript knows no -0.0."""
    return {
        each: (type(found).__name__, repr(found + 0.0 if isinstance(found, float) else found))
        for each, found in values.items()
    }


def sdk_values(entity) -> dict[str, object]:
    return {
        each: found.value if isinstance(found, EntityProperty) else found
        for each, found in entity.items()
        if each not in {"PartitionKey", "RowKey"}
    }


@REFERENCE
@given(pk=key, rk=key, changed=row_values)
@example(pk="it's 100%25 🦤", rk="'%41'", changed=ODD)
@example(pk=LONG_KEY, rk=LONG_KEY, changed={"x": 1})
def test_the_sdk_reads_what_we_wrote(ours, reference, pk, rk, changed):
    table = reference.table_name
    ours.delete(table, pk, rk)
    insert, replace = Row(pk, rk, changed), Row(pk, rk, {**changed, "again": True})
    for write, row in ((ours.insert, insert), (ours.replace, replace), (ours.upsert, insert)):
        etag = write(table, row)
        entity = reference.get_entity(pk, rk)
        assert (entity["PartitionKey"], entity["RowKey"], entity.metadata["etag"]) == (pk, rk, etag)
        assert typed(sdk_values(entity)) == typed(row.values)


@REFERENCE
@given(pk=key, rk=key, changed=row_values)
@example(pk="it's 100%25 🦤", rk="'%41'", changed=ODD)
def test_we_read_what_the_sdk_wrote(ours, reference, pk, rk, changed):
    entity = {
        each: EntityProperty(found, EdmType.INT64) if type(found) is int else found
        for each, found in changed.items()
    }
    entity |= {"PartitionKey": pk, "RowKey": rk}
    etag = reference.submit_transaction([("upsert", entity, {"mode": "replace"})])[0]["etag"]
    row = ours.get(reference.table_name, pk, rk)
    assert (row.pk, row.rk, row.etag) == (pk, rk, etag)
    assert typed(row.values) == typed(changed)
    assert [typed(each.values) for each in ours.query(reference.table_name, pk=pk, rk=rk, top=1).rows] == [
        typed(row.values)
    ]


def test_types_that_others_wrote():
    entity = {
        "odata.metadata": "https://a/$metadata#T/@Element",
        "odata.etag": 'W/"1"',
        "PartitionKey": "p",
        "RowKey": "r",
        "Timestamp": "2026-01-01T00:00:00Z",
        "small": 7,
        "whole@odata.type": "Edm.Double",
        "whole": 7,
        "day@odata.type": "Edm.DateTime",
        "day": "2026-01-01T00:00:00Z",
        "guid@odata.type": "Edm.Guid",
        "guid": "c9da6455-213d-42c9-9a79-3e9149a57833",
        "null": None,
    }
    row = decode_row(entity)
    assert row == Row(
        "p",
        "r",
        {"small": 7, "whole": 7.0, "day": entity["day"], "guid": entity["guid"]},
        'W/"1"',
    )
    assert type(row.values["whole"]) is float
    del entity["odata.etag"]
    assert decode_row(entity).etag == "W/\"datetime'2026-01-01T00%3A00%3A00Z'\""


def test_the_format_of_a_transaction():
    operations = [
        Operation("insert", Row("it's", "a b", {"n": 1, "data": b"\xff", "part": 0.5, "text": "ñ"})),
        Operation("replace", Row("it's", "b"), 'W/"1"'),
        Operation("upsert", Row("it's", "c", {"yes": True})),
        Operation("delete", Row("it's", "d")),
    ]
    part = (
        "--changeset_crmhub\r\nContent-Type: application/http\r\nContent-Transfer-Encoding: binary\r\n\r\n"
        "{} HTTP/1.1\r\n{}Accept: application/json;odata=minimalmetadata\r\nDataServiceVersion: 3.0;\r\n{}\r\n{}\r\n"
    )
    json = "Content-Type: application/json\r\n"
    assert encode_transaction("https://a", "T", operations).decode() == (
        "--batch_crmhub\r\nContent-Type: multipart/mixed; boundary=changeset_crmhub\r\n\r\n"
        + part.format(
            "POST https://a/T",
            json,
            "Prefer: return-no-content\r\n",
            '{"PartitionKey":"it\'s","RowKey":"a b","n@odata.type":"Edm.Int64","n":"1",'
            '"data@odata.type":"Edm.Binary","data":"/w==","part@odata.type":"Edm.Double","part":0.5,"text":"ñ"}',
        )
        + part.format(
            "PUT https://a/T(PartitionKey='it%27%27s',RowKey='b')",
            json,
            'If-Match: W/"1"\r\n',
            '{"PartitionKey":"it\'s","RowKey":"b"}',
        )
        + part.format(
            "PUT https://a/T(PartitionKey='it%27%27s',RowKey='c')",
            json,
            "",
            '{"PartitionKey":"it\'s","RowKey":"c","yes":true}',
        )
        + part.format("DELETE https://a/T(PartitionKey='it%27%27s',RowKey='d')", "", "If-Match: *\r\n", "")
        + "--changeset_crmhub--\r\n--batch_crmhub--\r\n"
    )


def test_the_limit_of_a_transaction_counts_what_is_sent():
    rows = [Row("p", str(n), {f"p{m}": b"x" * 65_536 for m in range(12)}) for n in range(4)]
    sent = encode_transaction("https://a", "T", [Operation("upsert", row) for row in rows[:3]])
    assert len(sent) > sum(len(data) for row in rows[:3] for data in row.values.values()) * 4 / 3
    with pytest.raises(ValueError, match=str(MAX_TRANSACTION_BYTES)):
        encode_transaction("https://a", "T", [Operation("upsert", row) for row in rows])


# --- answers ----------------------------------------------------------------------------------------------

ANSWER = (
    "--batchresponse_1\r\nContent-Type: multipart/mixed; boundary=changesetresponse_2\r\n\r\n"
    "{}--changesetresponse_2--\r\n--batchresponse_1--\r\n"
)
PART = (
    "--changesetresponse_2\r\nContent-Type: application/http\r\nContent-Transfer-Encoding: binary\r\n\r\n"
    "HTTP/1.1 {}\r\nX-Content-Type-Options: nosniff\r\nCache-Control: no-cache\r\nDataServiceVersion: 3.0;\r\n{}\r\n"
)
ROW = Row("p", "secret key", {"short": "x", "long": "secret value"})
OPERATIONS = [Operation("upsert", ROW) for _ in range(3)]


def failure(status: str, code: str, message: str) -> str:
    body = f'{{"odata.error":{{"code":"{code}","message":{{"lang":"en-US","value":"{message}"}}}}}}'
    kind = "Content-Type: application/json;odata=minimalmetadata;streaming=true;charset=utf-8\r\n"
    return ANSWER.format(PART.format(status, f"{kind}\r\n{body}"))


def test_etags_in_order():
    tags = [f"W/\"datetime'2026-01-01T00%3A00%3A0{n}.1234567Z'\"" for n in range(2)]
    answer = ANSWER.format(
        PART.format("204 No Content", f"ETag: {tags[0]}\r\n")
        + PART.format("204 No Content", "")
        + PART.format("201 Created", f'ETag: {tags[1]}\r\n\r\n{{"x":"HTTP/1.1 404 ETag: no"}}')
    )
    assert parse_answer(answer, OPERATIONS, "transaction on table T") == [tags[0], "", tags[1]]


@pytest.mark.parametrize(
    ("status", "code", "kind", "index"),
    [
        ("409 Conflict", "EntityAlreadyExists", RowExists, 2),
        ("412 Precondition Failed", "UpdateConditionNotSatisfied", RowChanged, 2),
        ("404 Not Found", "ResourceNotFound", RowChanged, 2),
        ("404 Not Found", "TableNotFound", Missing, None),
        ("400 Bad Request", "EntityTooLarge", RowTooLarge, None),
        ("400 Bad Request", "PropertyValueTooLarge", RowTooLarge, None),
        ("413 Request Entity Too Large", "RequestBodyTooLarge", RowTooLarge, None),
        ("400 Bad Request", "InvalidInput", ValueError, None),
        ("409 Conflict", "TableBeingDeleted", StoreUnavailable, None),
        ("500 Internal Server Error", "OperationTimedOut", StoreUnavailable, None),
        ("503 Service Unavailable", "ServerBusy", StoreUnavailable, None),
        ("403 Forbidden", "AuthorizationPermissionMismatch", Misconfigured, None),
        ("401 Unauthorized", "InvalidAuthenticationInfo", Misconfigured, None),
    ],
)
def test_failures_of_a_transaction(status, code, kind, index):
    answer = failure(status, code, "2:It failed for secret key.\\nRequestId:1\\nTime:2026-01-01T00:00:00Z")
    with pytest.raises(kind) as error:
        parse_answer(answer, OPERATIONS, "transaction on table T")
    if index is not None:
        assert error.value.index == index
    else:
        assert "transaction on table T" in str(error.value)
    assert "secret" not in str(error.value)
    if kind is RowTooLarge:
        assert error.value.property_name == "long"


def test_a_failure_without_an_index_or_a_body():
    with pytest.raises(RowExists) as error:
        parse_answer(failure("409 Conflict", "EntityAlreadyExists", "It exists."), OPERATIONS, "x")
    assert error.value.index == 0
    with pytest.raises(StoreUnavailable):
        parse_answer(ANSWER.format(PART.format("503 Busy", "")), OPERATIONS, "x")


@pytest.mark.parametrize(
    "answer",
    ["", "<html>", ANSWER.format(""), ANSWER.format(PART.format("204 No Content", "")), "\nETag: x\r\n"],
)
def test_an_answer_that_does_not_fit(answer):
    with pytest.raises(StoreUnavailable, match="parts for 3 operations"):
        parse_answer(answer, OPERATIONS, "transaction on table T")


def test_what_to_check_when_access_is_denied():
    message = str(refusal(403, "AuthenticationFailed", "get from table T"))
    assert message.startswith(
        "get from table T: 403 AuthenticationFailed. Check the storage connection string"
    )
