"""HTTP: which path is what."""

import hashlib
import inspect
import json
import re
import secrets
from typing import Any
from urllib.parse import unquote

from sandbox.frame import Request, Response
from sandbox.odoo.calls import by_name, execute, guarded
from sandbox.odoo.env import Database, Env
from sandbox.odoo.errors import Refused, not_found
from sandbox.odoo.models.automation import BaseAutomation
from sandbox.odoo.orm import BaseModel, private
from sandbox.odoo.pages import NO_DATABASE, html, json_answer, media_type, unsupported
from sandbox.odoo.pages import not_found as no_page
from sandbox.odoo.rpc import Services, json_rpc, json_rpc_error, read_json_rpc, xml_rpc

JSON2 = re.compile(r"/json/2/([^/]+)/([^/]+)")
JSON2_ROUTE = "/json/2/<__model__>/<__method__>"
DID_YOU_MEAN = "Did you mean POST /json/2/<model>/<method>?"
NO_KEY = "User not authenticated, use an API Key with a Bearer Authorization header."


def refusal(refused: Refused) -> Response:
    """As JSON-2 tells an exception."""
    headers = {"WWW-Authenticate": "Bearer "} if refused.status == 401 else {}
    return json_answer(refused.data(), refused.status, headers)


class Routes:
    """All that the server answers."""

    def __init__(self, db: Database) -> None:
        self._db = db
        self._services = Services(db)
        self._sessions: dict[str, int] = {}

    def handle(self, request: Request) -> Response:
        path = unquote(request.path)
        if path == "/jsonrpc":
            return json_rpc(self._db, self._services, request)
        if path.startswith("/xmlrpc/"):
            return self._xml(request, path)
        if path in ("/web/version", "/json/version"):
            return self._version() if self._db.version >= 19 else no_page()
        if path == "/web/webclient/version_info":
            return self._json_rpc(request, path, lambda _params: self._services.version())
        if path.startswith("/json/"):
            return (
                self._json2(request, path)
                if self._db.version >= 19 and path.startswith("/json/2")
                else no_page()
            )
        if path.startswith("/doc-bearer/") and self._db.version >= 19:
            return self._documented(request, path)
        if path.startswith("/web/hook/"):
            return self._hook(request, path.removeprefix("/web/hook/"))
        if path.startswith(("/web/session/", "/web/dataset/")):
            return self._web(request, path)
        if path in ("/", "/web", "/web/login"):
            return html(
                200, "<!DOCTYPE html>\n<html><head><title>Odoo</title></head><body>Log in</body></html>"
            )
        return no_page()

    def _version(self) -> Response:
        info = [self._db.version, 0, 0, "final", 0, ""]
        return json_answer({"version_info": info, "version": f"{self._db.version}.0"})

    def _xml(self, request: Request, path: str) -> Response:
        parts = path.removeprefix("/xmlrpc/").split("/")
        if request.method != "POST" or len(parts) > 2 or (len(parts) == 2 and parts[0] != "2"):
            return no_page()
        return xml_rpc(self._services, request, parts[-1], numbered=len(parts) == 2)

    # --- JSON-2 ---------------------------------------------------------------------------------------------

    def _other_database(self, request: Request) -> bool:
        return (
            request.headers.get("x-odoo-database", self._db.identity.database) != self._db.identity.database
        )

    def _caller(self, request: Request) -> int:
        """The user of the bearer key."""
        scheme, _, key = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not key:
            raise Refused("werkzeug.exceptions.Unauthorized", NO_KEY)
        uid = self._db.keys.api_keys.get(key.strip())
        user = None if uid is None else self._db.store.get("res.users", str(uid))
        if uid is None or user is None or not user.values.get("active"):
            raise Refused("werkzeug.exceptions.Unauthorized", "Invalid apikey")
        return uid

    def _json2(self, request: Request, path: str) -> Response:
        if self._other_database(request):
            return html(404, NO_DATABASE)
        match = JSON2.fullmatch(path)
        known = match is not None and request.method == "POST"
        if request.body and media_type(request) != "application/json":
            return unsupported(JSON2_ROUTE if known else path, "json2", "application/json")
        try:
            if not known or match is None:
                raise not_found(DID_YOU_MEAN)
            uid = self._caller(request)
            return json_answer(by_name(self._db, uid, match[1], match[2], self._arguments(request)))
        except Refused as refused:
            return refusal(refused)

    def _arguments(self, request: Request) -> dict[str, Any]:
        """What is no object is taken as no arguments."""
        if not request.body:
            return {}
        try:
            told = json.loads(request.body)
        except ValueError as error:
            raise Refused(
                "werkzeug.exceptions.BadRequest", f"could not parse the body as json: {error}"
            ) from None
        return told if isinstance(told, dict) else {}

    def _documented(self, request: Request, path: str) -> Response:
        """``/doc-bearer/{model}.json``: fields and methods of a model."""
        name = path.removeprefix("/doc-bearer/").removesuffix(".json")
        try:
            uid = self._caller(request)
            if name not in self._db.schema.models or not path.endswith(".json"):
                raise not_found(
                    "The requested URL was not found on the server. If you entered the URL manually please check your "
                    "spelling and try again."
                )
            model: BaseModel = Env(self._db, uid, self._db.frame.clock.now())[name]
        except Refused as refused:
            return refusal(refused)
        methods = {
            each: _described(getattr(type(model), each))
            for each in dir(type(model))
            if not private(each) and callable(getattr(type(model), each))
        }
        fields = {k: {**v, "module": None} for k, v in model.fields_get().items()}
        answer = json_answer(
            {"model": name, "name": model._model.string, "doc": None, "fields": fields, "methods": methods}
        )
        tag = hashlib.sha256(answer.body).hexdigest()
        if request.headers.get("if-none-match") == tag:
            return Response(304, {"ETag": tag})
        return Response(
            200, {**answer.headers, "ETag": tag, "Cache-Control": "no-cache, private"}, answer.body
        )

    # --- webhooks and the web client's own calls ----------------------------------------------------------------

    def _hook(self, request: Request, hook: str) -> Response:
        try:
            payload = json.loads(request.body) if request.body else {}
        except ValueError:
            payload = {}
        rules = Env(self._db, 1, self._db.frame.clock.now(), su=True)["base.automation"]
        assert isinstance(rules, BaseAutomation)
        status = rules._incoming(hook, payload)
        return json_answer({"status": "ok" if status == 200 else "error"}, status)

    def _json_rpc(self, request: Request, path: str, work: Any) -> Response:
        read = read_json_rpc(request, path)
        if isinstance(read, Response):
            return read
        number, params = read
        try:
            result = guarded(lambda: work(params))
        except Refused as refused:
            return json_rpc_error(self._db, number, refused)
        return json_answer({"jsonrpc": "2.0", "id": number, **({} if result is None else {"result": result})})

    def _session(self, request: Request) -> int | None:
        found = re.search(r"session_id=([\w-]+)", request.headers.get("cookie", ""))
        return self._sessions.get(found[1]) if found else None

    def _web(self, request: Request, path: str) -> Response:
        """The calls of the web client that client libraries use: a session in a cookie instead of a key."""
        if path == "/web/session/authenticate":
            return self._authenticate(request)
        uid = self._session(request)
        if path == "/web/session/destroy":
            return self._json_rpc(request, path, lambda _params: None)
        if uid is None:
            error = {
                "code": 100,
                "message": "Odoo Session Expired",
                "data": Refused("odoo.http.SessionExpiredException", "Session expired").data(),
            }
            return json_answer({"jsonrpc": "2.0", "id": None, "error": error})
        if path == "/web/session/get_session_info":
            return self._json_rpc(request, path, lambda _params: self._about(uid))
        if path.startswith("/web/dataset/call_kw"):
            return self._json_rpc(
                request,
                path,
                lambda p: execute(self._db, uid, p["model"], p["method"], p["args"], p.get("kwargs") or {}),
            )
        return no_page()

    def _about(self, uid: int) -> dict[str, Any]:
        context = execute(self._db, uid, "res.users", "context_get", [], {})
        about = {"uid": uid, "db": self._db.identity.database, "user_context": context}
        return {
            **about,
            "server_version": f"{self._db.version}.0",
            "server_version_info": [self._db.version, 0, 0, "final", 0, ""],
        }

    def _authenticate(self, request: Request) -> Response:
        signed: list[str] = []

        def work(params: dict[str, Any]) -> dict[str, Any]:
            uid = self._services.sign_in(params["login"], params["password"])
            if uid is None or params["db"] != self._db.identity.database:
                raise Refused("odoo.exceptions.AccessDenied", "Access Denied")
            signed.append(secrets.token_urlsafe(32))
            self._sessions[signed[0]] = uid
            return self._about(uid)

        answer = self._json_rpc(request, request.path, work)
        cookie = {"Set-Cookie": f"session_id={signed[0]}; HttpOnly; Path=/"} if signed else {}
        return Response(answer.status, {**answer.headers, **cookie}, answer.body)


def _described(function: Any) -> dict[str, Any]:
    """A method as the documentation tells it: clients that call by position take the names from here."""
    signature = inspect.signature(function)
    parameters = {
        name: {} if each.default is each.empty else {"default": each.default}
        for name, each in signature.parameters.items()
        if name != "self" and each.kind is not each.VAR_KEYWORD
    }
    of_model = hasattr(function, "_api_model")
    return {
        "signature": f"({', '.join(parameters)})",
        "parameters": parameters,
        "api": ["model"] if of_model else [],
    }
