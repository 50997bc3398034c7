"""``$batch`` in multipart form (Web API: execute batch operations)."""

import http
import re
from collections.abc import Callable
from dataclasses import dataclass, replace

from sandbox.dynamics365.errors import PAYLOAD, Refused, bad_query
from sandbox.dynamics365.keys import parse_reference
from sandbox.dynamics365.options import read_preferences
from sandbox.dynamics365.routes import Api
from sandbox.dynamics365.schema import SETS
from sandbox.frame import Fault, Frame, Refusal, Request, Response

MAX_OPERATIONS = 1000
ANSWERED = frozenset({"status", "throttle", "privilege"})  # kinds of faults that can strike one part
CRLF = b"\r\n"


@dataclass(frozen=True)
class Operation:
    """One part that is a request."""

    request: Request
    content_id: str | None


Item = Operation | list[Operation]


def malformed(text: str) -> Refused:
    return Refused(400, PAYLOAD, f"Error identified in Payload provided by the user: {text}")


def _boundary(content_type: str) -> bytes:
    match = re.search(r'boundary="?([^";]+)"?', content_type)
    if not content_type.lower().startswith("multipart/mixed") or match is None:
        raise malformed("Invalid multi-part content type: 'multipart/mixed' with a boundary was expected.")
    return match[1].strip().encode()


def _parts(body: bytes, boundary: bytes) -> list[tuple[dict[str, str], bytes]]:
    """Headers and content of each part. Lines must end with CRLF."""
    chunks = (CRLF + body).split(CRLF + b"--" + boundary)
    if len(chunks) < 2 or not chunks[-1].startswith(b"--"):
        raise malformed("The batch is not terminated: lines end with CRLF and the last boundary with '--'.")
    parts = []
    for chunk in chunks[1:-1]:
        head, separator, content = chunk.removeprefix(CRLF).partition(CRLF + CRLF)
        if not separator:
            raise malformed("A blank line is missing between the headers of a part and its content.")
        parts.append((_headers(head), content))
    return parts


def _headers(head: bytes) -> dict[str, str]:
    pairs = (line.decode("utf-8", "replace").partition(":") for line in head.split(CRLF) if line.strip())
    return {name.strip().lower(): value.strip() for name, _, value in pairs}


def _operation(headers: dict[str, str], content: bytes, outer: Request, version: str) -> Operation:
    head, _, body = content.partition(CRLF + CRLF)
    first, _, rest = head.partition(CRLF)
    # Spaces in the URL are taken as they are: Microsoft's own client sends filters so.
    match = re.fullmatch(r"([A-Z]+) (\S.*) HTTP/1\.1", first.decode("utf-8", "replace").strip())
    if match is None:
        raise malformed("The request line of a part is not valid.")
    url = match[2]
    url = re.sub(r"^https?://[^/]+", "", url)
    if not url.startswith("/") and not url.startswith("$"):
        url = f"/api/data/{version}/{url}"
    path, _, query = url.partition("?")
    request = Request(match[1], path, query, _headers(rest), body.removesuffix(CRLF), outer.origin)
    return Operation(request, headers.get("content-id"))


def read(outer: Request, version: str) -> list[Item]:
    """The operations of a batch; a change set is a list of them."""
    items: list[Item] = []
    for headers, content in _parts(outer.body, _boundary(outer.headers.get("content-type", ""))):
        kind = headers.get("content-type", "")
        if kind.startswith("application/http"):
            items.append(_operation(headers, content, outer, version))
            continue
        changes = [_operation(h, c, outer, version) for h, c in _parts(content, _boundary(kind))]
        if any(c.request.method == "GET" for c in changes):
            raise malformed("A change set may not contain a GET request.")
        if any(not c.content_id for c in changes):
            raise malformed("Each request of a change set needs a Content-ID.")
        items.append(changes)
    operations = [o for item in items for o in (item if isinstance(item, list) else [item])]
    if len(operations) > MAX_OPERATIONS:
        raise Refused(
            400,
            "0x80060000",
            f"The batch has {len(operations)} operations; at most {MAX_OPERATIONS} are allowed.",
        )
    ids = [o.content_id for o in operations if o.content_id]
    if len(set(ids)) < len(ids):
        raise malformed("The Content-ID of a request is not unique in the batch.")
    return items


class Stopped(Exception):
    """A change set failed: everything in it is undone."""

    def __init__(self, operation: Operation, response: Response) -> None:
        super().__init__(response.status)
        self.operation, self.response = operation, response


@dataclass
class Batch:
    """The execution of one batch."""

    api: Api
    frame: Frame
    fault_response: Callable[[Fault, Request], Response]
    refusal_response: Callable[[Refusal], Response]
    version: str

    def run(self, operation: Operation, references: dict[str, tuple[str, str]]) -> Response:
        """One operation: it counts against the limits, and faults for answers may strike it."""
        request = operation.request
        if (refusal := self.frame.throttle.enter(self.api.org.app_user)) is not None:
            return self.refusal_response(refusal)
        fault = self.frame.faults.strike(request, ANSWERED)
        try:
            response = self.fault_response(fault, request) if fault else self._answer(request, references)
        except Refused as refused:
            response = refused.response()
        self.frame.log.add(request, response, fault.kind if fault else None, 0.0, part=True)
        if operation.content_id and response.status < 300:
            self._reference(operation, response, references)
        return response

    def _answer(self, request: Request, references: dict[str, tuple[str, str]]) -> Response:
        path = request.path.removeprefix("/") if request.path.startswith("/$") else request.path
        if path.startswith("$"):
            name, _, rest = path.partition("/")
            if name not in references:
                raise malformed(f"Content-ID Reference: '{name}' does not exist in the batch context.")
            table, key = references[name]
            set_name = next(s for s, e in SETS.items() if e.name == table)
            path = f"/api/data/{self.version}/{set_name}({key})" + (f"/{rest}" if rest else "")
        match = re.fullmatch(r"/api/data/(v9\.[012])/(.*)", path)
        if match is None or match[2] == "$batch":
            raise bad_query("A batch may only contain operations of this API, and no batch.")
        return self.api.handle(replace(request, path=path), match[1], match[2], references)

    def _reference(
        self, operation: Operation, response: Response, references: dict[str, tuple[str, str]]
    ) -> None:
        url = response.headers.get("OData-EntityId")
        if url:
            set_name, key = parse_reference(url)
            references[f"${operation.content_id}"] = (SETS[set_name].name, key.text)

    def change_set(self, operations: list[Operation]) -> list[tuple[Operation, Response]]:
        """All or nothing; raises ``Stopped`` with the part that failed."""
        references: dict[str, tuple[str, str]] = {}
        done = []
        with self.frame.store.transaction():
            for operation in operations:
                response = self.run(operation, references)
                if response.status >= 400:
                    raise Stopped(operation, response)
                done.append((operation, response))
        return done


def _http(operation: Operation, response: Response) -> bytes:
    """A part of the answer."""
    echo = f"Content-ID: {operation.content_id}\r\n" if operation.content_id else ""
    reason = http.HTTPStatus(response.status).phrase
    headers = "".join(f"{k}: {v}\r\n" for k, v in response.headers.items())
    head = f"Content-Type: application/http\r\nContent-Transfer-Encoding: binary\r\n{echo}\r\nHTTP/1.1 {response.status} {reason}\r\n{headers}\r\n"
    return head.encode() + response.body


def _multipart(parts: list[bytes], boundary: str) -> bytes:
    mark = f"--{boundary}".encode()
    return CRLF.join([line for part in parts for line in (mark, part)] + [mark + b"--", b""])


def handle(
    api: Api,
    frame: Frame,
    fault_response: Callable[[Fault, Request], Response],
    refusal_response: Callable[[Refusal], Response],
    outer: Request,
    version: str,
) -> Response:
    """A whole batch. Without ``odata.continue-on-error`` it ends at the first failure, with that status outside."""
    if outer.method != "POST":
        raise Refused(405, "", "A batch is posted.", {"Allow": "POST"})
    go_on = read_preferences(outer).continue_on_error
    batch = Batch(api, frame, fault_response, refusal_response, version)
    parts: list[bytes] = []
    status = 200
    for item in read(outer, version):
        failed = None
        if isinstance(item, list):
            try:
                done = [_http(o, r) for o, r in batch.change_set(item)]
                inner = f"changesetresponse_{api.org.new_id()}"
                parts.append(
                    f"Content-Type: multipart/mixed; boundary={inner}\r\n\r\n".encode()
                    + _multipart(done, inner)
                )
            except Stopped as stopped:
                failed = stopped.response
                parts.append(_http(stopped.operation, failed))
        else:
            response = batch.run(item, {})
            failed = response if response.status >= 400 else None
            parts.append(_http(item, response))
        if failed is not None and not go_on:
            status = failed.status
            break
    boundary = f"batchresponse_{api.org.new_id()}"
    return Response(
        status,
        {"Content-Type": f"multipart/mixed; boundary={boundary}", "OData-Version": "4.0"},
        _multipart(parts, boundary),
    )
