"""OData 4 multipart batches (OData 4.01 Protocol, section 11.7.7): many requests in one, some of them atomically.

Knows no vendor. Lines end in CRLF, as the format demands; the multipart answer is parsed by the standard library.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from email.message import MIMEPart
from email.parser import BytesParser
from email.policy import HTTP

from crm_core.connector import Answer
from crm_core.errors import BadAnswer
from crm_core.protocols.http import check_headers


@dataclass(frozen=True)
class Part:
    """One request of a batch. `url`: absolute, encoded. `body`: JSON bytes."""

    method: str
    url: str
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes | None = field(default=None, repr=False)


ChangeSet = tuple[Part, ...]
"""Requests of which all are carried out or none; they may not read."""


def encode(items: Sequence[Part | ChangeSet], boundary: str) -> bytes:
    """The body of a batch whose content type is `multipart/mixed; boundary={boundary}`.

    Raises BadRequest for a header that would break its part apart: what follows it could be any header or body.
    """
    lines: list[bytes] = []
    number = 0
    for position, item in enumerate(items):
        lines.append(f"--{boundary}".encode())
        if isinstance(item, Part):
            lines += _part(item, "")
            continue
        # Readers may take a line that begins with the outer boundary for it (RFC 2046, section 5.1.1).
        inner = f"changeset_{position}_{boundary}"
        lines += [f"Content-Type: multipart/mixed; boundary={inner}".encode(), b""]
        for part in item:
            number += 1
            lines += [f"--{inner}".encode(), *_part(part, str(number))]
        lines += [f"--{inner}--".encode(), b""]
    lines += [f"--{boundary}--".encode(), b""]
    return b"\r\n".join(lines)


def _part(part: Part, content_id: str) -> list[bytes]:
    lines = ["Content-Type: application/http", "Content-Transfer-Encoding: binary"]
    if content_id:
        lines.append(f"Content-ID: {content_id}")
    headers = {"Content-Type": "application/json; type=entry", **part.headers} if part.body else part.headers
    check_headers(headers)
    lines += [
        "",
        f"{part.method} {part.url} HTTP/1.1",
        *(f"{name}: {value}" for name, value in headers.items()),
    ]
    return [*(line.encode() for line in lines), b"", part.body or b""]


def decode(answer: Answer, expected: int) -> list[Answer | list[Answer]]:
    """What became of each item: the answer of a part, the answers of a change set, or the one by which it failed.

    Raises BadAnswer for what is no such answer, or has not as many parts as expected.
    """
    kind = answer.headers.get("content-type", "")
    parsed = BytesParser(policy=HTTP).parsebytes(f"Content-Type: {kind}\r\n\r\n".encode() + answer.body)
    if not parsed.is_multipart() or parsed.defects:
        raise BadAnswer(f"The answer to a batch is no multipart text, but {kind[:80] or 'of no type'}.")
    found: list[Answer | list[Answer]] = []
    for each in parsed.iter_parts():
        if each.is_multipart():
            inner = [_answer(part) for part in each.iter_parts()]
            failed = next((one for one in inner if one.status >= 400), None)
            found.append(failed or inner)
        else:
            found.append(_answer(each))
    if len(found) != expected:
        raise BadAnswer(f"A batch of {expected} requests was answered by {len(found)} parts.")
    return found


def _answer(part: MIMEPart) -> Answer:
    raw = part.get_payload(decode=True)
    head, _, body = bytes(raw if isinstance(raw, bytes) else b"").partition(b"\r\n\r\n")
    line, *headers = head.decode("utf-8", "replace").splitlines() or [""]
    words = line.split(" ", 2)
    if len(words) < 2 or not words[0].startswith("HTTP/") or not words[1].isdigit():
        raise BadAnswer("A part of the answer to a batch has no status.")
    pairs = (header.partition(":") for header in headers)
    return Answer(
        int(words[1]), {name.strip().lower(): value.strip() for name, _, value in pairs}, body.strip()
    )
