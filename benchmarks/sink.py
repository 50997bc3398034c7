"""A table service that answers at once: it keeps the small tables, and of records only how many there were.

It speaks what the hub's writer speaks (entity group transactions, point reads, range queries) with the answers of the
real service, and checks keys of inserts but neither signatures nor ETags: it is for one caller, and for measuring it.
`python -m benchmarks.sink` prints a line of JSON with its connection string, and its address for `/figures` and `/empty`.
"""

import asyncio
import json
import re
import signal
from collections import Counter
from typing import Any
from urllib.parse import unquote

from aiohttp import web

ACCOUNT = "sink"
KEY = "c2luaw=="
FORGOTTEN = "records"
JSON = "application/json;odata=minimalmetadata;streaming=true;charset=utf-8"
ETAG = "W/\"datetime'2026-01-01T00%3A00%3A00.0000000Z'\""

_PART = re.compile(rb"\n(POST|PUT|DELETE) \S+/(\w+)(\([^\r\n]*\))? HTTP/1\.1\r\n")
_BODY = re.compile(rb"\r\n\r\n(\{[^\r\n]*\})?\r\n")
_KEYS = re.compile(r"(\w+)\(PartitionKey='(.*)',RowKey='(.*)'\)")
_TERM = re.compile(r"(PartitionKey|RowKey) (eq|ge|lt) '((?:[^']|'')*)'")
_HEAD = "--batchresponse_sink\r\nContent-Type: multipart/mixed; boundary=changesetresponse_sink\r\n\r\n"
_TAIL = "--changesetresponse_sink--\r\n--batchresponse_sink--\r\n"
_ANSWER = (
    "--changesetresponse_sink\r\nContent-Type: application/http\r\nContent-Transfer-Encoding: binary\r\n\r\n"
    "HTTP/1.1 {status}\r\nX-Content-Type-Options: nosniff\r\nCache-Control: no-cache\r\n"
    "DataServiceVersion: 3.0;\r\n{more}\r\n\r\n"
)
_DONE = _ANSWER.format(
    status="204 No Content", more=f"Preference-Applied: return-no-content\r\nETag: {ETAG}\r\n"
)
_EXISTS = _ANSWER.format(status="409 Conflict", more=f"Content-Type: {JSON}\r\n") + json.dumps(
    {"odata.error": {"code": "EntityAlreadyExists", "message": {"lang": "en-US", "value": "0:It exists."}}}
)

Row = dict[str, Any]


class Sink:
    """Its rows by table and key, and what it was asked: `requests`, and `rows` written by table."""

    def __init__(self) -> None:
        self.empty()

    def empty(self) -> None:
        self._tables: dict[str, dict[tuple[str, str], Row]] = {}
        self.requests = 0
        self.rows: Counter[str] = Counter()

    async def answer(self, request: web.Request) -> web.Response:
        if request.path == "/figures":
            return web.json_response({"requests": self.requests, "rows": self.rows})
        if request.path == "/empty":
            self.empty()
            return web.Response()
        self.requests += 1
        if request.method == "POST" and request.path.endswith("/$batch"):
            return self._batch(await request.read())
        if request.method == "POST":  # /Tables
            return web.Response(status=201, text="{}", content_type="application/json")
        path = unquote(request.path.rpartition("/")[2])
        found = _KEYS.fullmatch(path)
        if found is None:
            return self._query(path.removesuffix("()"), request.query.get("$filter", ""))
        row = self._tables.get(found[1], {}).get((_text(found[2]), _text(found[3])))
        return _json(row or _error("ResourceNotFound"), 200 if row else 404)

    def _query(self, table: str, terms: str) -> web.Response:
        rows = self._tables.get(table, {})
        wanted = [
            (name == "RowKey", operator, _text(value)) for name, operator, value in _TERM.findall(terms)
        ]
        found = [rows[key] for key in sorted(rows) if all(_holds(key, term) for term in wanted)]
        return _json({"value": found}, 200)

    def _batch(self, body: bytes) -> web.Response:
        steps = list(_PART.finditer(body))
        table = steps[0][2].decode()
        text = _DONE * len(steps)
        if table != FORGOTTEN:
            text = self._keep(self._tables.setdefault(table, {}), body, steps)
        self.rows[table] += len(steps)
        return web.Response(
            status=202,
            headers={"Content-Type": "multipart/mixed; boundary=batchresponse_sink"},
            body=(_HEAD + text + _TAIL).encode(),
        )

    def _keep(self, rows: dict[tuple[str, str], Row], body: bytes, steps: list[re.Match[bytes]]) -> str:
        for step in steps:
            if step[1] == b"DELETE":
                found = _KEYS.search(unquote(f"t{(step[3] or b'').decode()}"))
                assert found is not None
                rows.pop((_text(found[2]), _text(found[3])), None)
                continue
            content = _BODY.search(body, step.end() - 2)
            assert content is not None
            row = json.loads(content[1])
            key = (row["PartitionKey"], row["RowKey"])
            if step[1] == b"POST" and key in rows:
                return _EXISTS
            rows[key] = {"odata.etag": ETAG, **row}
        return _DONE * len(steps)


def _text(literal: str) -> str:
    return literal.replace("''", "'")


def _holds(key: tuple[str, str], term: tuple[bool, str, str]) -> bool:
    second, operator, value = term
    return {"eq": key[second] == value, "ge": key[second] >= value, "lt": key[second] < value}[operator]


def _error(code: str) -> Row:
    return {"odata.error": {"code": code, "message": {"lang": "en-US", "value": code}}}


def _json(value: Row, status: int) -> web.Response:
    return web.Response(status=status, text=json.dumps(value), headers={"Content-Type": JSON})


async def _serve() -> None:
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    application = web.Application(client_max_size=8 * 1024 * 1024)
    application.router.add_route("*", "/{tail:.*}", Sink().answer)
    runner = web.AppRunner(application, access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    address = "http://127.0.0.1:%d" % runner.addresses[0][1]  # noqa: UP031
    endpoints = "".join(f"{kind}Endpoint={address}/{ACCOUNT};" for kind in ("Table", "Queue", "Blob"))
    connection = f"DefaultEndpointsProtocol=http;AccountName={ACCOUNT};AccountKey={KEY};{endpoints}"
    print(json.dumps({"connection_string": connection, "address": address}), flush=True)
    await stop.wait()
    await runner.cleanup()


if __name__ == "__main__":
    asyncio.run(_serve())
