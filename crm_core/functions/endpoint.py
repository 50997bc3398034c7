"""The route table and what every request passes: match, authorise, validate, answer or explain.

One HTTP function per first segment takes every method, so the host decides nothing about routes; the table here
does, with literals before parameters and 405 for a method that a path lacks. Each request is one log line, by its
route, never by its path.
"""

import hashlib
import hmac
import math
import os
import re
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from http import HTTPStatus
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

import azure.functions as func

from crm_core.errors import (
    BadRequest,
    FieldError,
    Forbidden,
    HubError,
    NotBegun,
    NotFound,
    RateLimited,
    TooManyRequests,
    Unauthenticated,
    Unavailable,
    VendorError,
)
from crm_core.functions.web import (
    Call,
    Handler,
    Incoming,
    Parameter,
    Principal,
    Reply,
    Role,
    json_object,
    parse_query,
    parse_url,
    take_parameters,
    trace_id,
)
from crm_core.log import Log, bind, bound, new_span, new_trace, traceparent
from crm_core.model.connection import DEFAULT_TENANT
from crm_core.model.entities import BY_PATH
from crm_core.ports import count, measured

if TYPE_CHECKING:
    from pydantic import BaseModel
    from werkzeug.routing import MapAdapter

    from crm_core.hub import Hub

_log = Log("crm_core.api")

PROBLEM = "application/problem+json"
METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")


@dataclass(frozen=True)
class Route:
    """One line of the table. `role` None: open to everybody. `body`: how its JSON is validated, if it has one.

    `long`: it may also answer 202, with a run to follow. `refused`: parameters of other APIs, and what to do instead.
    `raw`: the handler itself proves who calls, and gets the request as it came: no key, parameter, body or
    Idempotency-Key is looked at before. `bare`: it may be called without a body, which is then {}.
    """

    method: str
    path: str
    handler: Handler
    role: Role | None
    summary: str
    parameters: tuple[Parameter, ...] = ()
    body: "Callable[[], type[BaseModel]] | None" = None
    item_body: bool = False
    answer: int = 200
    tag: str = ""
    long: bool = False
    refused: tuple[tuple[str, str], ...] = ()
    raw: bool = False
    bare: bool = False


ROUTES: list[Route] = []


def route(
    method: str,
    path: str,
    *,
    role: Role | None,
    parameters: Sequence[Parameter] = (),
    body: "Callable[[], type[BaseModel]] | None" = None,
    item_body: bool = False,
    answer: int = 200,
    long: bool = False,
    refused: Mapping[str, str] | None = None,
    raw: bool = False,
    bare: bool = False,
) -> Callable[[Handler], Handler]:
    """Declares a handler. `path` in werkzeug's form below the root; `body` gives a pydantic model, imported late;
    `item_body`: the body is an item of the entity in the path.
    """

    def declare(handler: Handler) -> Handler:
        summary = (handler.__doc__ or "").strip().split("\n")[0]
        tag = path.split("/")[2] if path.startswith("/api/") else "system"
        ROUTES.append(
            Route(
                method, path, handler, role, summary, tuple(parameters), body, item_body, answer, tag, long,
                tuple((refused or {}).items()), raw, bare,
            )
        )  # fmt: skip
        return handler

    return declare


def register(app: func.FunctionApp) -> None:
    """One anonymous function for each first segment of the table; who may call is decided here, not by the host."""
    for segment in sorted({_segment(each.path) for each in ROUTES}):
        name = "http_" + segment.removeprefix("api/").replace(".", "_").replace("-", "_")
        triggered = app.route(
            route=f"{segment}/{{*path}}", methods=METHODS, auth_level=func.AuthLevel.ANONYMOUS
        )(_named(name))
        app.function_name(name)(triggered)


def _named(name: str) -> Callable[[func.HttpRequest], func.HttpResponse]:
    def function(req: func.HttpRequest) -> func.HttpResponse:
        return respond(req)

    function.__name__ = name
    return function


def _segment(path: str) -> str:
    parts = path.lstrip("/").split("/")
    return "/".join(parts[:2]) if parts[0] == "api" else parts[0]


_hub_lock = threading.Lock()


def the_hub() -> "Hub":
    """The hub of this process, made from the environment; raises Misconfigured, and tries again at the next call."""
    with _hub_lock:
        return _make_hub()


@cache
def _make_hub() -> "Hub":
    from crm_core.hub import Hub  # with all that it wires: indexing the app needs none of it
    from crm_core.settings import load
    from crm_core.system import search_garbage_seldom, share_one_heap

    search_garbage_seldom()
    share_one_heap()
    return Hub(load(os.environ))


def respond(req: func.HttpRequest) -> func.HttpResponse:
    """Every request comes through here, and every one gets an answer that a program can read."""
    began = time.perf_counter()
    trace = trace_id(req.headers.get("traceparent", "")) or new_trace()
    with bound(trace=trace):
        reply, response = rendered(_replied(req, trace), trace)
        refusal = reply.body if reply.content_type == PROBLEM and isinstance(reply.body, dict) else {}
        tell = _log.info if reply.status < 500 else _log.warning
        tell(
            "request",
            method=req.method.upper() if req.method.upper() in METHODS else "other",
            status=reply.status,
            error=refusal.get("code", ""),
            ms=round((time.perf_counter() - began) * 1000),
        )
    return response


def _replied(req: func.HttpRequest, trace: str) -> Reply:
    try:
        hub = the_hub()
        from crm_core.storage.run_log import collected  # the hub has loaded it

        with measured() as meter, collected(hub.engine.run_log, hub.clock):
            count("requests")
            try:
                reply = _answer(hub, req, trace)
            finally:
                hub.add_figures(meter)
    except HubError as error:
        return problem(error, trace)
    except Exception as error:  # noqa: BLE001  # the last place that can still give the caller an answer
        return _bug(error, trace)
    return reply


def _bug(error: Exception, trace: str) -> Reply:
    _log.bug("bug while answering", error)
    return _problem(500, "Bug", "Something went wrong here; the trace id helps to find it.", trace)


def rendered(reply: Reply, trace: str) -> tuple[Reply, func.HttpResponse]:
    """(what is answered, as the platform takes it): the reply, or that it can't be written."""
    try:
        return reply, _response(reply, trace)
    except Exception as error:  # noqa: BLE001  # as above: a caller gets an answer, whatever is wrong with this one
        bug = _bug(error, trace)
        return bug, _response(bug, trace)


def _response(reply: Reply, trace: str) -> func.HttpResponse:
    headers = {
        "traceparent": traceparent(trace, new_span()),
        "Cache-Control": "no-store",
        **reply.headers,
    }
    return func.HttpResponse(
        reply.data(), status_code=reply.status, headers=headers, mimetype=reply.content_type, charset="utf-8"
    )


def _answer(hub: "Hub", req: func.HttpRequest, trace: str) -> Reply:
    raw_path, raw_query = parse_url(req.url)
    incoming = Incoming(
        method=req.method.upper(),
        path="/" + unquote(raw_path).strip("/"),
        query={},
        headers={name.lower(): value for name, value in req.headers.items()},
        body=req.get_body(),
        trace=trace,
        target=raw_path + (f"?{raw_query}" if raw_query else ""),
    )
    found, parts = match(incoming.method, incoming.path)
    entity = BY_PATH.get(parts.get("entities", ""))
    bind(route=re.sub(r"<(\w+)>", r"{\1}", found.path), entity=entity.name if entity else "")
    if found.raw:
        return found.handler(Call(hub, ANYBODY, incoming, parts, {}))
    principal = authenticate(hub, incoming, found.role)
    bind(tenant=principal.tenant.name, principal=principal.id)
    if found.role is not None:
        hub.prepare()
    parameters = take_parameters(parse_query(raw_query), found.parameters, dict(found.refused))
    body = _body(found, incoming)
    call = Call(hub, principal, incoming, parts, parameters, body)
    if found.method == "POST" and "idempotency-key" in incoming.headers:
        from crm_core.functions.repeats import once  # which needs this module

        return once(call, found)
    return found.handler(call)


# --- matching ----------------------------------------------------------------------------------------------------


@cache
def _adapter() -> "MapAdapter":
    from werkzeug.routing import Map, Rule

    rules = [Rule(each.path, methods=[each.method], endpoint=each) for each in ROUTES]
    return Map(rules, strict_slashes=False, merge_slashes=False).bind("hub")


def match(method: str, path: str) -> tuple[Route, Mapping[str, str]]:
    """The route and the parts of its path; raises NotFound, or MethodNotAllowed with what the path allows."""
    from werkzeug.exceptions import HTTPException
    from werkzeug.exceptions import MethodNotAllowed as Refused

    try:
        found, parts = _adapter().match(path, method=method)
    except Refused as error:
        raise MethodNotAllowed(method, path, error.valid_methods or ()) from None
    except HTTPException:
        raise NotFound(f"There is nothing at {path}; GET /api/openapi.json lists the routes.") from None
    assert isinstance(found, Route)
    return found, parts


class MethodNotAllowed(HubError):
    """The path exists, but not with this method."""

    status = 405

    def __init__(self, method: str, path: str, allowed: Iterable[str]) -> None:
        self.allowed = sorted(set(allowed))
        super().__init__(f"{path} does not take {method}; it takes {', '.join(self.allowed)}.")


# --- who calls ---------------------------------------------------------------------------------------------------

ANYBODY = Principal(DEFAULT_TENANT, "anybody", Role.READER)


def authenticate(hub: "Hub", incoming: Incoming, role: Role | None) -> Principal:
    """The caller, by X-API-KEY or the same key as Bearer; open routes take anybody, and know who has a key.

    Raises Unauthenticated without or with a wrong key, Forbidden if the role does not suffice.
    """
    key = incoming.headers.get("x-api-key", "")
    if not key:
        scheme, _, value = incoming.headers.get("authorization", "").partition(" ")
        key = value.strip() if scheme.lower() == "bearer" else ""
    principal = _principal(hub, key) if key else None
    if principal is None:
        if role is None and not key:
            return ANYBODY
        what = "The API key is wrong" if key else "An API key is needed"
        raise Unauthenticated(f"{what}; send it in the header X-API-KEY.")
    if role is not None and principal.role < role:
        raise Forbidden(
            f"This needs the role {role.name.title()}; the key has {principal.role.name.title()}."
        )
    return principal


def _principal(hub: "Hub", key: str) -> Principal | None:
    """Hashes are compared, in constant time, so that neither length nor content of the right key shows."""
    given, wanted = (
        hashlib.sha256(text.encode("utf-8", "surrogateescape")).digest()
        for text in (key, hub.settings.api_key)
    )
    if hmac.compare_digest(given, wanted):
        return Principal(DEFAULT_TENANT, "key:settings", Role.ADMIN)
    return None


# --- bodies ------------------------------------------------------------------------------------------------------


def _body(found: Route, incoming: Incoming) -> Any:
    if found.body is not None:
        given = b"{}" if found.bare and not incoming.body else incoming.body
        return validated(found.body(), json_object(given))
    if found.item_body:
        return json_object(incoming.body)
    return None


def validated(model: "type[BaseModel]", data: Mapping[str, Any]) -> "BaseModel":
    """The body as the model; raises BadRequest with an error for each wrong field."""
    from pydantic import ValidationError

    try:
        return model.model_validate(data)
    except ValidationError as error:
        errors = []
        for each in error.errors(include_url=False, include_context=False, include_input=False):
            name = ".".join(str(part) for part in each["loc"]) or "body"
            text = each["msg"][0].lower() + each["msg"][1:]
            errors.append(FieldError(name, f"{name}: {text.removeprefix('value error, ')}."))
        raise BadRequest(errors[0].message, errors=errors) from None


# --- errors ------------------------------------------------------------------------------------------------------


def problem(error: HubError, trace: str) -> Reply:
    """An error as problem+json (RFC 9457), the vendor's own words kept."""
    extra: dict[str, Any] = {}
    headers: dict[str, str] = {}
    if error.errors:
        extra["errors"] = [{"field": each.field, "message": each.message} for each in error.errors]
    if isinstance(error, VendorError):
        vendor = {
            "system": error.system,
            "status": error.vendor_status,
            "code": error.vendor_code,
            "message": error.message,
            "requestId": error.request_id,
        }
        extra["vendor"] = {name: value for name, value in vendor.items() if value}
    if isinstance(error, (RateLimited, Unavailable, NotBegun, TooManyRequests)):
        headers["Retry-After"] = str(max(1, math.ceil(error.retry_after or 5)))
    if isinstance(error, MethodNotAllowed):
        headers["Allow"] = ", ".join(error.allowed)
    if isinstance(error, Unauthenticated):
        headers["WWW-Authenticate"] = 'Bearer realm="crm-hub"'
    return _problem(error.http_status, error.code, error.message, trace, extra, headers)


def _problem(
    status: int,
    code: str,
    detail: str,
    trace: str,
    extra: Mapping[str, Any] | None = None,
    headers: Mapping[str, str] | None = None,
) -> Reply:
    body = {
        "type": "about:blank",
        "title": HTTPStatus(status).phrase,
        "status": status,
        "code": code,
        "detail": detail,
        "traceId": trace,
        **(extra or {}),
    }
    return Reply(status, body, headers or {}, PROBLEM)
