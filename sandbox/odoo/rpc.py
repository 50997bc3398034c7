"""The older protocols: services ``common``, ``object`` and ``db`` by JSON-RPC and by XML-RPC."""

import json
import re
import xmlrpc.client
from typing import Any

from sandbox.frame import Request, Response
from sandbox.odoo.calls import execute, guarded
from sandbox.odoo.env import Database
from sandbox.odoo.errors import Refused, access_denied, missing, type_error
from sandbox.odoo.pages import html, json_answer, media_type, unsupported

CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f]")
# XML-RPC fault codes; anything else is 1 and has the traceback as its text.
WARNING, DENIED, NO_ACCESS = 2, 3, 4
FAULTS = {
    "odoo.exceptions.AccessDenied": DENIED,
    "odoo.exceptions.AccessError": NO_ACCESS,
    "odoo.exceptions.MissingError": WARNING,
    "odoo.exceptions.RedirectWarning": WARNING,
    "odoo.exceptions.UserError": WARNING,
    "odoo.exceptions.ValidationError": WARNING,
}
ARGUMENTS = {
    "authenticate": ("db", "login", "password", "user_agent_env"),
    "login": ("db", "login", "password"),
}


class Services:
    """What can be called."""

    def __init__(self, db: Database) -> None:
        self._db = db

    def version(self) -> dict[str, Any]:
        serie = f"{self._db.version}.0"
        info = [self._db.version, 0, 0, "final", 0, ""]
        return {
            "server_version": serie,
            "server_version_info": info,
            "server_serie": serie,
            "protocol_version": 1,
        }

    def call(self, service: str, method: str, args: list[Any]) -> Any:
        if service == "common":
            return self._common(method, args)
        if service == "db":
            return self._databases(method, args)
        if service == "object":
            return self._object(method, args)
        raise Refused("builtins.KeyError", service)

    def _common(self, method: str, args: list[Any]) -> Any:
        if method == "version":
            return self.version()
        if method == "about":
            return "See http://openerp.com"
        if method not in ARGUMENTS:
            raise Refused("builtins.Exception", f"Method not found: {method}")
        lacking = [f"'{name}'" for name in ARGUMENTS[method][len(args) :]]
        if lacking:
            listed = (
                lacking[0]
                if len(lacking) == 1
                else f"{', '.join(lacking[:-1])}, and {lacking[-1]}"
                if len(lacking) > 2
                else " and ".join(lacking)
            )
            plural = "s" if len(lacking) > 1 else ""
            raise type_error(
                f"exp_{method}() missing {len(lacking)} required positional argument{plural}: {listed}"
            )
        self._known(args[0])
        return self.sign_in(args[1], args[2]) or False

    def _databases(self, method: str, args: list[Any]) -> Any:
        if method == "server_version":
            return f"{self._db.version}.0"
        if method == "db_exist":
            return bool(args) and args[0] == self._db.identity.database
        if method == "list" and self._db.frame.options["list_db"]:
            return [self._db.identity.database]
        raise access_denied()

    def _known(self, name: Any) -> None:
        if name != self._db.identity.database:
            raise Refused(
                "psycopg2.OperationalError",
                f'connection to server at "127.0.0.1", port 5432 failed: FATAL:  database "{name}" does not exist\n',
            )

    def sign_in(self, login: Any, secret: Any) -> int | None:
        """The user with this login and password, or one of his keys."""
        for row in self._db.store.table("res.users").where("login", login):
            if row.values.get("active") and self._right(int(row.id), secret):
                return int(row.id)
        return None

    def _right(self, uid: int, secret: Any) -> bool:
        keys = self._db.keys
        return bool(secret) and (keys.passwords.get(uid) == secret or keys.api_keys.get(secret) == uid)

    def _object(self, method: str, args: list[Any]) -> Any:
        name, uid, secret, model, call, *rest = args
        if not secret:
            raise access_denied()
        if method not in ("execute", "execute_kw"):
            raise Refused("builtins.NameError", f"Method not available {method}")
        self._known(name)
        if self._db.store.get("res.users", str(int(uid))) is None:
            raise missing("res.users", int(uid), int(uid))
        if not self._right(int(uid), secret):
            raise access_denied()
        if method == "execute":
            return execute(self._db, int(uid), model, call, rest, {})
        positional, named = rest if len(rest) > 1 else (rest[0], {})
        return execute(self._db, int(uid), model, call, positional, named or {})


def json_rpc_error(db: Database, number: Any, refused: Refused) -> Response:
    code = 0 if db.version >= 19 else 200
    error = {"code": code, "message": "Odoo Server Error", "data": refused.data()}
    return json_answer({"jsonrpc": "2.0", "id": number, "error": error})


def read_json_rpc(request: Request, path: str) -> tuple[Any, dict[str, Any]] | Response:
    """Id and parameters of a JSON-RPC request, or why it is none."""
    if request.body and media_type(request) not in ("application/json", "application/json-rpc"):
        return unsupported(path, "jsonrpc", "application/json, application/json-rpc")
    try:
        told = json.loads(request.body)
    except ValueError:
        return html(400, "Invalid JSON data")
    if not isinstance(told, dict):
        return html(400, "Invalid JSON-RPC data")
    params = told.get("params") or {}
    return told.get("id"), params if isinstance(params, dict) else {}


def json_rpc(db: Database, services: Services, request: Request) -> Response:
    read = read_json_rpc(request, "/jsonrpc")
    if isinstance(read, Response):
        return read
    number, params = read
    lacking = [f"'{name}'" for name in ("service", "method", "args") if name not in params]
    try:
        if lacking:
            listed = (
                ", and ".join((", ".join(lacking[:-1]), lacking[-1]))
                if len(lacking) > 2
                else " and ".join(lacking)
            )
            plural = "s" if len(lacking) > 1 else ""
            raise type_error(
                f"JSONRPC.jsonrpc() missing {len(lacking)} required positional argument{plural}: {listed}"
            )
        result = guarded(lambda: services.call(params["service"], params["method"], list(params["args"])))
    except Refused as refused:
        return json_rpc_error(db, number, refused)
    answer = {"jsonrpc": "2.0", "id": number}
    return json_answer(answer if result is None else {**answer, "result": result})


def _stripped(value: Any) -> Any:
    """XML has no control characters, so they are left out; its names are texts."""
    if isinstance(value, str):
        return CONTROL.sub("", value)
    if isinstance(value, dict):
        return {str(k): _stripped(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_stripped(v) for v in value]
    return value


def _xml(value: Any) -> Response:
    """A result or a fault. What has no XML form fails only here: the call has happened."""
    marshaller = xmlrpc.client.Marshaller(allow_none=False)
    body = marshaller.dumps(value if isinstance(value, xmlrpc.client.Fault) else (_stripped(value),))
    text = f'<?xml version="1.0"?>\n<methodResponse>\n{body}\n</methodResponse>\n'
    return Response(200, {"Content-Type": "text/xml; charset=utf-8"}, text.encode())


def _fault(refused: Refused, *, numbered: bool) -> Response:
    code = FAULTS.get(refused.name, 1)
    if numbered:
        return _xml(xmlrpc.client.Fault(code, refused.message if code != 1 else refused.traceback()))
    if code == WARNING:
        return _xml(xmlrpc.client.Fault(f"warning -- UserError\n\n{refused.message}", ""))  # type: ignore[arg-type]
    name = refused.kind if code in (DENIED, NO_ACCESS) else refused.message
    text = refused.message if code in (DENIED, NO_ACCESS) else refused.traceback()
    return _xml(xmlrpc.client.Fault(name, text))  # type: ignore[arg-type]


def xml_rpc(services: Services, request: Request, service: str, *, numbered: bool) -> Response:
    """``/xmlrpc/2/...`` has numbers as fault codes, ``/xmlrpc/...`` texts."""
    try:
        try:
            args, method = xmlrpc.client.loads(request.body, use_datetime=True)
        except Exception as error:  # noqa: BLE001 - whatever the parser says
            raise Refused(f"xml.parsers.expat.{type(error).__name__}", str(error)) from None
        result = guarded(lambda: services.call(service, str(method), list(args)))
        try:
            return _xml(result)
        except (TypeError, OverflowError) as error:
            raise type_error(str(error)) from None
    except Refused as refused:
        return _fault(refused, numbered=numbered)
