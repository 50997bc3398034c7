"""OData batches: what is sent can be read by any reader of multipart text."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crm_core.connector import Answer
from crm_core.errors import BadAnswer, BadRequest
from crm_core.protocols.odata_batch import Part, decode, encode

POST = Part("POST", "https://x.example/rows", {"Accept": "application/json"}, b'{"a":1}')
GET = Part("GET", "https://x.example/rows", {"Accept": "application/json"})


def parts(body, boundary):
    """As RFC 2046 lets a reader do it: a line that begins with the boundary is one."""
    first, *chunks = (b"\r\n" + body).split(b"\r\n--" + boundary.encode())
    assert first == b""
    assert chunks[-1].startswith(b"--")
    return [each.removeprefix(b"\r\n").partition(b"\r\n\r\n") for each in chunks[:-1]]


def test_a_change_set_is_one_part_and_has_parts_of_its_own():
    outer = parts(encode([(POST, POST), GET, (POST,)], "b"), "b")
    assert [head.partition(b";")[0] for head, _, _ in outer] == [
        b"Content-Type: multipart/mixed",
        b"Content-Type: application/http\r\nContent-Transfer-Encoding: binary",
        b"Content-Type: multipart/mixed",
    ]
    numbers = []
    for head, _, content in (outer[0], outer[2]):
        inner = parts(content, head.decode().partition("boundary=")[2])
        for inner_head, _, request in inner:
            numbers.append(inner_head.partition(b"Content-ID: ")[2])
            assert request.rstrip() == (
                b"POST https://x.example/rows HTTP/1.1\r\nContent-Type: application/json; type=entry\r\n"
                b'Accept: application/json\r\n\r\n{"a":1}'
            )
    assert numbers == [b"1", b"2", b"3"]
    assert outer[1][2].rstrip() == b"GET https://x.example/rows HTTP/1.1\r\nAccept: application/json"


@pytest.mark.parametrize("value", ["*\r\nCallerObjectId: x", '*\r\n\r\n{"name":"x"}', "*\n", "\u2028"])
def test_a_header_can_not_break_its_part_apart(value):
    for item in (
        Part("PATCH", "https://x.example", {"If-Match": value}, b"{}"),
        (Part("DELETE", "https://x.example", {"If-Match": value}),),
    ):
        with pytest.raises(BadRequest, match="'If-Match' can't be sent"):
            encode([item], "b")


URL = "https://x.test/api/accounts"


def test_a_batch_reads_as_the_format_says():
    patch = Part("PATCH", f"{URL}(1)", {"If-Match": "*"}, b'{"a":1}')
    text = encode([(patch, Part("DELETE", f"{URL}(2)")), Part("GET", URL)], "b").decode()
    assert text.split("\r\n") == [
        "--b", "Content-Type: multipart/mixed; boundary=changeset_0_b", "",
        "--changeset_0_b", "Content-Type: application/http", "Content-Transfer-Encoding: binary", "Content-ID: 1", "",
        "PATCH https://x.test/api/accounts(1) HTTP/1.1", "Content-Type: application/json; type=entry", "If-Match: *", "",
        '{"a":1}',
        "--changeset_0_b", "Content-Type: application/http", "Content-Transfer-Encoding: binary", "Content-ID: 2", "",
        "DELETE https://x.test/api/accounts(2) HTTP/1.1", "", "", "--changeset_0_b--", "",
        "--b", "Content-Type: application/http", "Content-Transfer-Encoding: binary", "",
        "GET https://x.test/api/accounts HTTP/1.1", "", "", "--b--", "",
    ]  # fmt: skip


def answer_of(text, kind="multipart/mixed; boundary=r"):
    return Answer(200, {"content-type": kind}, text.encode())


def answered(status, body=""):
    head = (
        f"Content-Type: application/http\r\nContent-Transfer-Encoding: binary\r\n\r\nHTTP/1.1 {status} X\r\n"
    )
    return f'{head}Content-Type: application/json\r\nETag: W/"1"\r\n\r\n{body}\r\n'


@given(st.text(min_size=1, max_size=60))
def test_any_text_comes_back_as_it_was(text):
    body = json.dumps({"name": text}, ensure_ascii=False)
    inner = f"--c\r\n{answered(201, body)}--c\r\n{answered(204)}--c--\r\n"
    whole = f"--r\r\nContent-Type: multipart/mixed; boundary=c\r\n\r\n{inner}--r\r\n{answered(412, body)}--r--\r\n"
    done, failed = decode(answer_of(whole), 2)
    assert [each.status for each in done] == [201, 204]
    assert done[0].json() == failed.json() == {"name": text}
    assert failed.headers["etag"] == 'W/"1"'


def test_a_change_set_that_failed_is_the_answer_by_which_it_did():
    inner = f"--c\r\n{answered(400, '{}')}--c--\r\n"
    whole = f"--r\r\nContent-Type: multipart/mixed; boundary=c\r\n\r\n{inner}--r--\r\n"
    (failed,) = decode(answer_of(whole), 1)
    assert failed.status == 400


@pytest.mark.parametrize(
    ("text", "kind", "message"),
    [
        ('{"error":{}}', "application/json", "no multipart text, but application/json"),
        ("", "multipart/mixed; boundary=r", "no multipart text"),
        (f"--r\r\n{answered(200)}--r--\r\n", "multipart/mixed; boundary=r", "2 requests was answered by 1 parts"),
        ("--r\r\nContent-Type: application/http\r\n\r\nhello\r\n--r--\r\n", "multipart/mixed; boundary=r", "has no status"),
    ],
)  # fmt: skip
def test_what_is_no_answer_to_a_batch_is_refused(text, kind, message):
    with pytest.raises(BadAnswer, match=message):
        decode(answer_of(text, kind), 2)
