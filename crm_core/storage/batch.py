"""Rows in the wire format of Azure Tables, sent through the SDK's own pipeline.

The SDK spends 25 times the CPU of the format itself on an entity group transaction and 10 times on reading
a page, so this one format is written by hand: OData JSON with minimal metadata, and a multipart/mixed
changeset for a transaction. Authentication, retries and connections stay the SDK's, which is also the
reference in the tests.
"""

import base64
import json
import math
import re
from binascii import b2a_base64
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from crm_core.errors import Misconfigured, StoreUnavailable
from crm_core.model.json_text import short_json
from crm_core.ports import (
    MAX_DELAY_SECONDS,
    MAX_MESSAGE_BYTES,
    MAX_TRANSACTION_BYTES,
    Operation,
    Row,
    RowChanged,
    RowExists,
    RowPage,
    RowTooLarge,
    Value,
    check_row,
    check_transaction,
    wire_size,
)

if TYPE_CHECKING:
    from azure.data.tables import TableServiceClient

MAX_NAME_CHARACTERS = 255
MAX_PAGE_ROWS = 1000
MAX_BLOB_NAME_CHARACTERS = 1024
MAX_NAMES = 5000
"""Of a page of the names of blobs."""
SYSTEM_NAMES = frozenset({"PartitionKey", "RowKey", "Timestamp"})
READ_HEADERS = {"Accept": "application/json;odata=minimalmetadata", "DataServiceVersion": "3.0"}

_INT64 = range(-(2**63), 2**63)
_TOO_LARGE = frozenset(
    {
        "EntityTooLarge",
        "PropertyValueTooLarge",
        "TooManyProperties",
        "RequestBodyTooLarge",
        "ContentLengthExceeded",
    }
)
_ETAG_FORM = re.compile(r'\*|W/"[^"\x00-\x20\x7f]+"')

# A boundary must not begin a line inside a part. No part can hold such a line: JSON escapes line breaks and
# keys are percent-encoded. So the boundaries are fixed.
_BATCH, _CHANGESET = "batch_crmhub", "changeset_crmhub"
BATCH_HEADERS = {**READ_HEADERS, "Content-Type": f"multipart/mixed; boundary={_BATCH}"}
_HEAD = f"--{_BATCH}\r\nContent-Type: multipart/mixed; boundary={_CHANGESET}\r\n\r\n".encode()
_PART = f"--{_CHANGESET}\r\nContent-Type: application/http\r\nContent-Transfer-Encoding: binary\r\n\r\n"
_TAIL = f"--{_CHANGESET}--\r\n--{_BATCH}--\r\n".encode()
_COMMON = "Accept: application/json;odata=minimalmetadata\r\nDataServiceVersion: 3.0;\r\n"
_JSON = f"Content-Type: application/json\r\n{_COMMON}"

_ANSWER_LINE = re.compile(r"\n(?:HTTP/1\.\d (\d{3})|ETag: *([^\r\n]+))")
_INDEX = re.compile(r"(\d+):")

_LINE_SEPARATOR, _PARAGRAPH_SEPARATOR = "\u2028".encode(), "\u2029".encode()
_SEPARATORS_BEGIN = _LINE_SEPARATOR[:1]
"""A single byte is found ten times as fast as several."""
_decoder = json.JSONDecoder()


class Missing(StoreUnavailable):
    """There is no such table, queue, container or blob yet."""


# --- what both implementations check, besides what ports does ---------------------------------------------


@lru_cache(maxsize=1024)
def check_name(name: str) -> None:
    """Raises ValueError for the name of a property that is no identifier of at most 255 characters."""
    if not name.isidentifier() or len(name) > MAX_NAME_CHARACTERS or name in SYSTEM_NAMES:
        raise ValueError(f"a property can't be named {name!r}")


def check_operations(operations: Sequence[Operation]) -> int:
    """The size of all rows as check_row counts it; raises what check_transaction and check_row raise.

    An ETag must be "*" or one that a store gave: with an empty one a replace would quietly be an upsert.
    """
    check_transaction(operations)
    size = 0
    for operation in operations:
        if operation.kind in {"replace", "delete"} and not _ETAG_FORM.fullmatch(operation.etag):
            raise ValueError(f'a {operation.kind} needs an ETag that a store gave, or "*"')
        size += check_row(operation.row)
    return size


def check_message(body: str, delay: float) -> int:
    """The delay in whole seconds, rounded up; a negative one is none.

    Raises ValueError for a body over 48 KiB and for a delay over 7 days.
    """
    size = len(body.encode())
    if size > MAX_MESSAGE_BYTES:
        raise ValueError(f"a message of {size} bytes is over {MAX_MESSAGE_BYTES}")
    if delay > MAX_DELAY_SECONDS:
        raise ValueError(f"a delay of {delay} seconds is over {MAX_DELAY_SECONDS}")
    return max(0, math.ceil(delay))


def check_blob(name: str, offset: int = 0, length: int | None = None) -> None:
    """Raises ValueError for a name of no or over 1024 characters and for a negative range."""
    if not 1 <= len(name) <= MAX_BLOB_NAME_CHARACTERS:
        raise ValueError(
            f"the name of a blob has 1 to {MAX_BLOB_NAME_CHARACTERS} characters, not {len(name)}"
        )
    if offset < 0 or (length is not None and length < 0):
        raise ValueError("a range has no negative offset or length")


def check_names(prefix: str, top: int) -> None:
    """Raises ValueError for a prefix that is too long, and for a page of no names or of too many."""
    if len(prefix) > MAX_BLOB_NAME_CHARACTERS:
        raise ValueError(f"the name of a blob has at most {MAX_BLOB_NAME_CHARACTERS} characters")
    if not 1 <= top <= MAX_NAMES:
        raise ValueError(f"a page has 1 to {MAX_NAMES} names, not {top}")


# --- rows -------------------------------------------------------------------------------------------------


def encode_row(row: Row) -> bytes:
    """The row as OData JSON, in one line.

    Raises ValueError or TypeError for names and values that the service has no form for; ints have 64 bits.
    """
    entity: dict[str, Any] = {"PartitionKey": row.pk, "RowKey": row.rk}
    for name, value in row.values.items():
        check_name(name)
        if isinstance(value, str | bool):
            entity[name] = value
        elif isinstance(value, bytes):
            entity[f"{name}@odata.type"] = "Edm.Binary"
            entity[name] = b2a_base64(value, newline=False).decode("ascii")
        elif isinstance(value, int):
            if value not in _INT64:
                raise ValueError(f"property {name} is over 64 bits")
            entity[f"{name}@odata.type"] = "Edm.Int64"
            entity[name] = f"{value:d}"
        elif isinstance(value, float):
            entity[f"{name}@odata.type"] = "Edm.Double"
            entity[name] = value if math.isfinite(value) else _odd_number(value)
        else:
            raise TypeError(f"property {name} can't be a {type(value).__name__}")
    text = short_json(entity)
    if _SEPARATORS_BEGIN in text:
        # Azurite finds the body by a pattern that ends at a Unicode line separator; escaped it is the same JSON.
        text = text.replace(_LINE_SEPARATOR, b"\\u2028").replace(_PARAGRAPH_SEPARATOR, b"\\u2029")
    return text


def _odd_number(value: float) -> str:
    if math.isnan(value):
        return "NaN"
    return "Infinity" if value > 0 else "-Infinity"


_READERS: Mapping[str, Callable[[str], Value]] = {
    "Edm.Int64": int,
    "Edm.Double": float,
    "Edm.Binary": base64.b64decode,
}
"""How a JSON string of an annotated type is read; of other types (DateTime, Guid) the text is kept."""


def decode_row(entity: Mapping[str, Any]) -> Row:
    """The row of one OData JSON object, without the service's own properties."""
    values: dict[str, Value] = {}
    for name, value in entity.items():
        # Only metadata has a dot ("odata.etag", "count@odata.type"). A selected value that the row lacks is null.
        if "." in name or value is None:
            continue
        kind = entity.get(name + "@odata.type")
        if kind is None:
            values[name] = value
        elif isinstance(value, str):
            values[name] = _READERS[kind](value) if kind in _READERS else value
        else:
            values[name] = float(value) if kind == "Edm.Double" else value
    timestamp = values.pop("Timestamp", "")
    etag = entity.get("odata.etag") or f"W/\"datetime'{quote(str(timestamp), safe='')}'\""
    return Row(str(values.pop("PartitionKey")), str(values.pop("RowKey")), values, etag)


# --- addresses --------------------------------------------------------------------------------------------


def _literal(text: str) -> str:
    """Text inside an OData literal: quotes are doubled."""
    return text.replace("'", "''")


def entity_path(table: str, pk: str, rk: str) -> str:
    """The address of a row below the service's."""
    return f"{table}(PartitionKey='{quote(_literal(pk), safe='')}',RowKey='{quote(_literal(rk), safe='')}')"


def range_filter(pk: str | None, pk_to: str | None, rk: str, rk_to: str | None) -> str:
    """The `$filter` of `Table.query`; empty for the whole table."""
    terms: list[str] = []
    if pk_to is not None:
        terms = [f"PartitionKey ge '{_literal(pk)}'"] if pk else []
        terms.append(f"PartitionKey lt '{_literal(pk_to)}'")
    elif pk is not None:
        terms = [f"PartitionKey eq '{_literal(pk)}'"]
        if rk:
            terms.append(f"RowKey ge '{_literal(rk)}'")
        if rk_to is not None:
            terms.append(f"RowKey lt '{_literal(rk_to)}'")
    return " and ".join(terms)


def encode_token(pk: str, rk: str) -> str:
    """Where the next page begins, as opaque text."""
    return base64.urlsafe_b64encode(json.dumps({"PartitionKey": pk, "RowKey": rk}).encode()).decode("ascii")


def decode_token(token: str) -> tuple[str, str]:
    """What encode_token was given; raises ValueError for anything else."""
    try:
        place = json.loads(base64.urlsafe_b64decode(token))
        return str(place["PartitionKey"]), str(place["RowKey"])
    except (ValueError, KeyError, TypeError):
        raise ValueError("this is no token of a page") from None


def page_query(conditions: str, top: int, token: str | None, select: Sequence[str] | None) -> dict[str, str]:
    """The query parameters of one page. Raises ValueError for a `top` that is not 1 to 1000 or a foreign token."""
    if not 1 <= top <= MAX_PAGE_ROWS:
        raise ValueError(f"a page has 1 to {MAX_PAGE_ROWS} rows, not {top}")
    query = {"$top": str(top)}
    if conditions:
        query["$filter"] = conditions
    if select is not None:
        query["$select"] = ",".join([*sorted(SYSTEM_NAMES), *select])
    if token is not None:
        query["NextPartitionKey"], query["NextRowKey"] = decode_token(token)
    return query


# --- transactions -----------------------------------------------------------------------------------------


def encode_transaction(base_url: str, table: str, operations: Sequence[Operation]) -> bytes:
    """The body of POST $batch. Raises ValueError over 4 MiB, the service's limit for the encoded body."""
    parts = [_HEAD]
    insert = f"{_PART}POST {base_url}/{table} HTTP/1.1\r\n{_JSON}Prefer: return-no-content\r\n\r\n".encode()
    for operation in operations:
        row, kind = operation.row, operation.kind
        if kind == "insert":
            parts.append(insert)
        else:
            verb = "DELETE" if kind == "delete" else "PUT"
            # Without If-Match a PUT is an upsert.
            condition = "" if kind == "upsert" else f"If-Match: {operation.etag}\r\n"
            parts.append(
                f"{_PART}{verb} {base_url}/{entity_path(table, row.pk, row.rk)} HTTP/1.1\r\n"
                f"{_COMMON if kind == 'delete' else _JSON}{condition}\r\n".encode()
            )
        if kind != "delete":
            parts.append(encode_row(row))
        parts.append(b"\r\n")
    parts.append(_TAIL)
    body = b"".join(parts)
    if len(body) > MAX_TRANSACTION_BYTES:
        raise ValueError(f"a transaction of {len(body)} bytes is over {MAX_TRANSACTION_BYTES}")
    return body


def parse_answer(answer: str, operations: Sequence[Operation], what: str) -> list[str]:
    """The ETag of each operation ("" for a delete) from the multipart answer to a transaction.

    Raises what `refusal` gives for the operation that failed: the service answers with that part alone and
    puts its index before its message.
    """
    etags: list[str] = []
    # A body in the answer is one line of JSON, so these lines are the parts' own.
    for line in _ANSWER_LINE.finditer(answer):
        status, etag = line.groups()
        if status is None:
            etags[-1:] = [etag]
        elif status.startswith("2"):
            etags.append("")
        else:
            code, message = read_error(answer[line.end() :])
            found = _INDEX.match(message)
            index = int(found[1]) if found else 0
            row = operations[index].row if index < len(operations) else None
            raise refusal(int(status), code, what, index, row)
    if len(etags) != len(operations):
        raise StoreUnavailable(f"{what}: the answer has {len(etags)} parts for {len(operations)} operations")
    return etags


def read_error(text: str) -> tuple[str, str]:
    """Code and message of the OData error in the text; empty if there is none."""
    start = text.find("{")
    if start < 0:
        return "", ""
    try:
        error = _decoder.raw_decode(text, start)[0]["odata.error"]
        return str(error["code"]), str(error["message"]["value"])
    except (ValueError, KeyError, TypeError):
        return "", ""


def refusal(status: int, code: str, what: str, index: int = 0, row: Row | None = None) -> Exception:
    """The error for an answer of Azure Storage that is no success.

    `what` names the operation and its table, queue or container; `index` and `row` the failed operation.
    The service's message is left out: it may quote what was sent.
    """
    reason = f"{what}: {status} {code}".rstrip()
    if code == "TableNotFound":
        return Missing(reason)
    if code == "EntityAlreadyExists":
        return RowExists(index)
    if status == 413 or code in _TOO_LARGE:
        values = row.values if row else {}
        return RowTooLarge(reason, max(values, key=lambda name: wire_size(values[name]), default=""))
    if status in {404, 412}:
        return RowChanged(index)
    if status in {401, 403}:
        return Misconfigured(
            f"{reason}. Check the storage connection string or, with a managed identity, the storage URIs, the"
            " client id and the roles Storage Table, Queue and Blob Data Contributor; and this machine's clock."
        )
    # 409 is left for what is about to be made or deleted, 408 and 429 for a busy service.
    if status >= 500 or status in {408, 409, 429}:
        return StoreUnavailable(reason)
    return ValueError(f"{reason} (operation {index})")


@dataclass(frozen=True)
class Answer:
    """What the service answered, whatever its status."""

    status: int
    headers: Mapping[str, str]
    text: str

    def row(self) -> Row:
        return decode_row(json.loads(self.text))

    def page(self) -> RowPage:
        """The rows of a query and where the next page begins."""
        rows = [decode_row(entity) for entity in json.loads(self.text)["value"]]
        pk = self.headers.get("x-ms-continuation-NextPartitionKey")
        rk = self.headers.get("x-ms-continuation-NextRowKey")
        return RowPage(rows, encode_token(pk or "", rk or "") if pk or rk else None)

    def etags(self, operations: Sequence[Operation], what: str) -> list[str]:
        """As parse_answer, also when the transaction was refused as a whole."""
        if self.status != 202:
            raise self.refusal(what)
        return parse_answer(self.text, operations, what)

    def refusal(self, what: str) -> Exception:
        return refusal(self.status, read_error(self.text)[0], what)


class Wire:
    """The pipeline of the SDK's client: what goes through it is ours."""

    def __init__(self, client: "TableServiceClient") -> None:
        self.client = client
        # With a SAS in the address the query of every request ends with it.
        self.base_url, _, self._sas = client.url.partition("?")

    def close(self) -> None:
        self.client.close()

    def send(
        self, method: str, path: str, headers: Mapping[str, str], query: Mapping[str, str], body: bytes = b""
    ) -> Answer:
        """One request; raises what azure.core raises when no answer comes."""
        from azure.core.rest import HttpRequest  # the SDK is loaded on first need

        terms = [f"{name}={quote(value, safe='')}" for name, value in query.items()]
        if self._sas:
            terms.append(self._sas)
        request = HttpRequest(
            method,
            f"{self.base_url}/{path}" + ("?" + "&".join(terms) if terms else ""),
            headers={"x-ms-version": self.client.api_version, **headers},
            content=body or None,
        )
        # The SDK's client has no public way to send a request of one's own; this line alone reaches inside.
        # stream: the SDK's policy that decodes bodies knows no multipart and would decode JSON a second time.
        response = self.client._client.send_request(request, stream=True)  # noqa: SLF001  # see above
        return Answer(response.status_code, response.headers, response.read().decode())
