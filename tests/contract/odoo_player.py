"""Calls of an Odoo server as data, and the player that makes them and takes out of the answers what differs from day to day.

``$name`` in a call is the id that an earlier call kept under that name. Ids, times, days near today and tracebacks are taken
out of answers before they are compared: an id that was kept becomes its name, any other ``#``.
"""

import json
import re
import time
import urllib.error
import urllib.request
import xmlrpc.client
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from typing import Any

PARTNER, LEAD, ORDER, LINE, PRODUCT, ACTIVITY = (
    *("res.partner", "crm.lead", "sale.order", "sale.order.line", "product.product", "mail.activity"),
)
TIME = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d(\.\d+)?")
DAY = re.compile(r"\d{4}-\d\d-\d\d")
JSON = {"Content-Type": "application/json"}


@dataclass(frozen=True)
class Call:
    """One call. ``way`` is json2, jsonrpc, xmlrpc or http; ``keep`` names the first id of the answer."""

    name: str
    way: str
    target: tuple[str, ...]
    arguments: Any = None
    keep: str = ""
    headers: dict[str, str] = field(default_factory=dict)
    key: bool = True
    wait: float = 0.0  # seconds before it
    only: tuple[str, ...] = ()  # members of the answer that count


def j2(name: str, model: str, method: str, /, *, keep: str = "", wait: float = 0.0, **arguments: Any) -> Call:
    return Call(name, "json2", (model, method), arguments, keep, wait=wait)


def new(keep: str, model: str, /, **values: Any) -> Call:
    return j2(f"create {keep}", model, "create", keep=keep, vals_list=[values])


def get(name: str, model: str, key: str, *fields: str) -> Call:
    return j2(name, model, "read", ids=[key], fields=list(fields))


def put(name: str, model: str, key: Any, /, **values: Any) -> Call:
    return j2(name, model, "write", ids=[key], vals=values)


def find(name: str, domain: Any, model: str = PARTNER, **more: Any) -> Call:
    return j2(name, model, "search", domain=domain, **more)


def rpc(name: str, *args: Any, keep: str = "", **named: Any) -> Call:
    return Call(
        name,
        "jsonrpc",
        ("object", "execute_kw"),
        ["$db", 2, "$key", args[0], args[1], list(args[2:]), named],
        keep,
    )


def http(
    name: str,
    method: str,
    path: str,
    body: Any = None,
    *,
    key: bool = True,
    only: tuple[str, ...] = (),
    **headers: str,
) -> Call:
    named = {k.replace("_", "-"): v for k, v in headers.items()}
    return Call(name, "http", (method, path), body, "", named, key, only=only)


def xml(name: str, *args: Any, service: str = "object", path: str = "/xmlrpc/2/", keep: str = "") -> Call:
    return Call(name, "xmlrpc", (path + service,), list(args), keep)


class Player:
    """Plays calls against one server."""

    def __init__(self, server: dict[str, str]) -> None:
        self._server = server
        self._kept: dict[str, Any] = {"db": server["ODOO_DB"], "key": server["ODOO_API_KEY"]}
        self._models: dict[tuple[str, int], str] = {}

    def play(self, calls: Iterable[Call]) -> dict[str, Any]:
        return {call.name: self.answer(call) for call in calls}

    def answer(self, call: Call) -> Any:
        time.sleep(call.wait)
        arguments = self._filled(call.arguments)
        answer = getattr(self, f"_{call.way}")(call, arguments)
        value = answer.get("body", answer.get("result")) if isinstance(answer, dict) else answer
        if call.keep:
            found = value.get("result") if isinstance(value, dict) else value
            key = found[0] if isinstance(found, list) else found
            assert isinstance(key, int), f"{call.name}: {answer}"
            self._kept[call.keep] = key
            self._models[self._called(call, arguments)[0], key] = call.keep
        if call.only:
            answer = {**answer, "body": {k: answer["body"][k] for k in call.only}}
        model, method = self._called(call, arguments)
        if method in ("action_done", "action_feedback"):  # they answer with the id of a message
            model = "mail.message"
        return self._shape(
            answer, model, ids=method in ("search", "create", "load", "action_done", "action_feedback")
        )

    @staticmethod
    def _called(call: Call, arguments: Any) -> tuple[str, str]:
        """Model and method of a call of a row's method."""
        if call.way == "json2":
            return call.target[0], call.target[1]
        rows = call.target[0] == "object" or call.target[0].endswith("/object")
        return (arguments[3], arguments[4]) if rows else ("", "")

    def _filled(self, value: Any) -> Any:
        if isinstance(value, str) and value.startswith("$"):
            return self._kept[value[1:]]
        if isinstance(value, dict):
            return {k: self._filled(v) for k, v in value.items()}
        return [self._filled(v) for v in value] if isinstance(value, (list, tuple)) else value

    # --- ways -----------------------------------------------------------------------------------------------

    def _send(self, method: str, path: str, body: Any, headers: dict[str, str]) -> dict[str, Any]:
        data = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
        request = urllib.request.Request(
            self._server["ODOO_URL"] + path, data, {**JSON, **headers}, method=method
        )
        try:
            answer = urllib.request.urlopen(request)
        except urllib.error.HTTPError as error:
            answer = error
        with answer:
            text = answer.read()
            kind = str(answer.headers["Content-Type"]).partition(";")[0]
            shown = json.loads(text) if kind == "application/json" else text.decode()
            more = {"www": answer.headers["WWW-Authenticate"]} if answer.headers["WWW-Authenticate"] else {}
            return {"status": answer.status, "type": kind, "body": shown, **more}

    def _http(self, call: Call, arguments: Any) -> Any:
        headers = {"Authorization": f"bearer {self._kept['key']}"} if call.key else {}
        return self._send(
            *call.target,
            call.arguments if isinstance(call.arguments, bytes) else arguments,
            {**headers, **call.headers},
        )

    def _json2(self, call: Call, arguments: Any) -> Any:
        headers = {"Authorization": f"bearer {self._kept['key']}"}
        return self._send("POST", "/json/2/{}/{}".format(*call.target), arguments, headers)

    def _jsonrpc(self, call: Call, arguments: Any) -> Any:
        service, method = call.target
        params = {"service": service, "method": method, "args": arguments}
        return self._send(
            "POST", "/jsonrpc", {"jsonrpc": "2.0", "method": "call", "id": 7, "params": params}, {}
        )

    def _xmlrpc(self, call: Call, arguments: Any) -> Any:
        proxy = xmlrpc.client.ServerProxy(self._server["ODOO_URL"] + call.target[0])
        try:
            with proxy:
                if call.target[0].endswith("common"):
                    return {"result": getattr(proxy, arguments[0])(*arguments[1:])}
                return {"result": proxy.execute_kw(*arguments)}
        except xmlrpc.client.Fault as fault:
            trace = "Traceback" in fault.faultString
            return {
                "fault": fault.faultCode,
                "text": fault.faultString.strip().rpartition("\n")[2] if trace else fault.faultString,
            }

    # --- what stays of an answer --------------------------------------------------------------------------------

    def _id(self, model: str, key: int) -> str:
        return self._models.get((model, key), "#")

    def _shape(self, value: Any, model: str, *, ids: bool, at: str = "") -> Any:
        if isinstance(value, dict):
            return {
                k: v
                if k == "id" and "jsonrpc" in value
                else self._shape(v, model, ids=ids and k in ("body", "result", "ids"), at=k)
                for k, v in value.items()
                if k not in ("debug", "write_date", "create_date") or not isinstance(v, str)
            }
        if isinstance(value, list):
            if len(value) == 2 and isinstance(value[0], int) and isinstance(value[1], str):
                return ["#", value[1]]
            references = at.endswith(("_ids", "_line")) or at in ("child_ids", "category_id")
            return [
                "#" if references and isinstance(v, int) else self._shape(v, model, ids=ids) for v in value
            ]
        if isinstance(value, bool) or value is None:
            return value
        if isinstance(value, int) and (ids or at == "id"):
            return self._id(model, value)
        if isinstance(value, int) and (at.endswith("_id") or at == "record"):
            return "#"
        return self._text(value, model) if isinstance(value, str) else value

    def _text(self, value: str, model: str) -> str:
        if (
            model == ACTIVITY
            and DAY.fullmatch(value)
            and abs((date.fromisoformat(value) - datetime.now(UTC).date()).days) <= 1
        ):
            return "<today>"
        if TIME.fullmatch(value) and not value.startswith("2026-12-01 "):
            return "<time>"
        value = re.sub(r"port \d+", "port N", value)
        value = re.sub(r"different model (\S+) \(\d+\)", r"different model \1 (#)", value)
        value = re.sub(r"User: (?!2\))\d+", "User: #", value)
        value = re.sub(r"(Records: |\(id=)\d+", r"\1#", value)
        return value.partition("\nLINE ")[0].rstrip("\n") if "invalid input syntax" in value else value
