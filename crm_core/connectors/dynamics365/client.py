"""The Web API of one environment: its requests, its answers, its batches, its errors."""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any
from urllib.parse import parse_qsl, quote, urlsplit

from crm_core.connector import Answer
from crm_core.connectors.dynamics365.tables import TABLES
from crm_core.connectors.dynamics365.tables.common import LOOKUP_KIND, SYSTEM, Table
from crm_core.errors import (
    BadAnswer,
    FieldError,
    HubError,
    NotSupported,
    Rejected,
    Unavailable,
    VendorError,
)
from crm_core.model.json_text import dump_json
from crm_core.ports import Ids
from crm_core.protocols.odata_batch import ChangeSet, Part, decode, encode
from crm_core.protocols.rest import Rest, explain_status

BATCH_SECONDS = 90.0
"""One request that carries many takes longer than one that carries one."""

IDS_PER_READ = 100
"""Ids of one read: keeps the URL far below the limit of 32,768 characters."""
NO_ROW = ("0x80040217", "0x80060891")
"""The codes of a row that is not there."""

Options = Sequence[tuple[str, str]] | str


class Client:
    """Calls the Web API through `rest`. Safe for many threads."""

    def __init__(self, rest: Rest, ids: Ids) -> None:
        self.rest = rest
        self._ids = ids

    def call(
        self, method: str, path: str, *, headers: Mapping[str, str] | None = None, **more: Any
    ) -> Answer:
        odata = {"OData-MaxVersion": "4.0", "OData-Version": "4.0"}
        return self.rest.call(method, path, headers={**odata, **(headers or {})}, **more)

    def json(self, method: str, path: str, **more: Any) -> dict[str, Any]:
        """The object that an answer holds; raises BadAnswer for anything else."""
        return json_of(self.call(method, path, **more), method)

    def send(self, part: Part, *, repeatable: bool) -> Answer:
        """A request that could be part of a batch, alone."""
        address = part.url.removeprefix(self.rest.base_url)
        path, _, query = address.partition("?")
        headers = {"Content-Type": "application/json", **part.headers} if part.body else part.headers
        return self.call(
            part.method, path, query=query, headers=headers, body=part.body, repeatable=repeatable
        )

    def rows(self, collection: str, query: Options, headers: Mapping[str, str] | None = None) -> list[Any]:
        """Every row of a question whose answers are known to be few; pages are followed."""
        found: list[Any] = []
        while True:
            body = self.json("GET", collection, query=query, headers=headers)
            found += rows_of(body)
            following = following_of(body.get("@odata.nextLink"), collection)
            if not following:
                return found
            query = following

    def rows_by_id(
        self,
        collection: str,
        column: str,
        ids: Sequence[str],
        select: Sequence[str] = (),
        *more: tuple[str, str],
        headers: Mapping[str, str] | None = None,
    ) -> Iterator[list[Any]]:
        """The rows whose column is one of these ids, in portions. `select`: what is read of them; nothing: all. `more`:
        further options.
        """
        for start in range(0, len(ids), IDS_PER_READ):
            where = " or ".join(f"{column} eq {each}" for each in ids[start : start + IDS_PER_READ])
            options = [("$select", ",".join(select))] if select else []
            yield self.rows(collection, [*options, ("$filter", where), *more], headers)

    def part(
        self,
        method: str,
        path: str,
        *,
        query: Options = (),
        headers: Mapping[str, str] | None = None,
        json: Any = None,
    ) -> Part:
        """A request to be sent inside a batch."""
        body = dump_json(json) if json is not None else None
        return Part(
            method,
            self.rest.url(path, query),
            {"Accept": "application/json", **(headers or {})},
            body,
        )

    def batch(
        self, items: Sequence[Part | ChangeSet], *, repeatable: bool = False
    ) -> list[Answer | list[Answer] | HubError]:
        """What became of each, in their order: a good part's answer, a change set's answers, or the error.

        Raises what the batch as a whole meets.
        """
        boundary = f"batch_{self._ids.uuid()}"
        answer = self.call(
            "POST",
            "$batch",
            headers={
                "Content-Type": f'multipart/mixed; boundary="{boundary}"',
                "Accept": "multipart/mixed",
                "Prefer": "odata.continue-on-error",
            },
            body=encode(items, boundary),
            repeatable=repeatable,
            timeout=BATCH_SECONDS,
        )
        try:
            found = decode(answer, len(items))
        except BadAnswer as error:
            error.system, error.vendor_status = SYSTEM, answer.status
            error.outcome_unknown = True
            raise
        return [self._judged(each) for each in found]

    def _judged(self, each: Answer | list[Answer]) -> Answer | list[Answer] | HubError:
        if isinstance(each, Answer) and not 200 <= each.status < 300:
            return self.rest.part_error(each)
        return each


def json_of(answer: Answer, method: str) -> dict[str, Any]:
    """The object that an answer holds; raises BadAnswer for anything else."""
    try:
        body = answer.json()
    except BadAnswer as error:
        problem = error
    else:
        if isinstance(body, dict):
            return body
        problem = BadAnswer("The answer is no JSON object.")
    problem.system = SYSTEM
    problem.vendor_status = answer.status
    problem.outcome_unknown = method != "GET"  # the status says done, and the record can't be read
    raise problem


def rows_of(body: Any) -> list[Any]:
    rows = body.get("value") if isinstance(body, dict) else None
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise BadAnswer("The answer has no list of records.", system=SYSTEM)
    return rows


def following_of(link: Any, collection: str) -> str:
    """The query of a link to more of the same collection, "" without one. Its host and path are not followed."""
    if not link:
        return ""
    try:
        parts = urlsplit(str(link))
    except ValueError:
        raise BadAnswer("The link to the next page is no address.", system=SYSTEM) from None
    if parts.path.rstrip("/").rpartition("/")[2].lower() != collection:
        raise BadAnswer(f"The link to the next page leads to {parts.path!r}.", system=SYSTEM)
    # Sent again as it came, but as valid URL text: some servers leave spaces and quotes in it.
    return "&".join(
        f"{quote(name, safe='$')}={quote(value, safe='')}"
        for name, value in parse_qsl(parts.query, keep_blank_values=True)
    )


def explain(answer: Answer) -> HubError:
    """By status, refined by Dataverse's codes (Web API: "Parse errors from the response")."""
    error = explain_status(answer, SYSTEM)
    if not isinstance(error, VendorError):
        return error
    code = error.vendor_code.lower()
    vendor: dict[str, Any] = {
        "system": SYSTEM,
        "vendor_status": answer.status,
        "vendor_code": error.vendor_code,
        "request_id": error.request_id,
    }
    # A deadlock or timeout of the vendor's database is passing, whatever the status says.
    if code in ("0x80044150", "0x80044151"):
        return Unavailable(error.message, **vendor)
    if answer.status == 501:
        return NotSupported(error.message)
    if answer.status == 405:
        return Rejected(error.message, **vendor)
    if answer.status == 404 and code not in (*NO_ROW, ""):
        return BadAnswer(error.message, **vendor)
    if isinstance(error, Rejected):
        error.errors = _field_errors(error.message)
    return error


def _field_errors(message: str) -> tuple[FieldError, ...]:
    """The columns that a refusal names, by their canonical names."""
    named = re.findall(
        r"property named '(\w+)'|'(\w+)' attribute|attribute '(\w+)'|property '(\w+)'|value (?:\S+ )?of '(\w+)'"
        r"|\b(\w+) cannot be null|\b(\w+) is missing",
        message,
    )
    errors = []
    for native in dict.fromkeys(name for names in named for name in names if name):
        found = next((each for table in TABLES.values() if (each := table.find(native))), None)
        errors.append(FieldError(found.field if found else native, message))
    return tuple(errors)


def prefer(tables: Sequence[Table], *preferences: str, annotations: Sequence[str] = ()) -> dict[str, str]:
    """The header Prefer; the kind of what a lookup points at is asked for only where it can be several."""
    terms = [*([LOOKUP_KIND] if any(each.several for each in tables) else []), *annotations]
    included = [f'odata.include-annotations="{",".join(terms)}"'] if terms else []
    wanted = ",".join([*preferences, *included])
    return {"Prefer": wanted} if wanted else {}
