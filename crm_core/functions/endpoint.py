"""The route table and what every request passes: match, authorise, validate, answer or explain.

One HTTP function per first segment takes every method, so the host decides nothing about routes; the table here
does, with literals before parameters and 405 for a method that a path lacks.
"""

import hashlib
import hmac
import logging
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, partial
from http import HTTPStatus
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

import azure.functions as func

from crm_core.errors import FieldError, Forbidden, HubError, NotFound, RateLimited, Unauthenticated, Unavailable
from crm_core.errors import BadRequest, VendorError
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
from crm_core.hub import Hub
from crm_core.model.connection import DEFAULT_TENANT
from crm_core.ports import measured
from crm_core.settings import load

if TYPE_CHECKING:
    from pydantic import BaseModel
    from werkzeug.routing import MapAdapter

_log = logging.getLogger("crm_core.api")

METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")


@dataclass(frozen=True)
class Route:
    """One line of the table. `role` None: open to everybody. `body`: how its JSON is validated, if it has one."""

    method: str
    path: str
    handler: Handler
    role: Role | None
    summary: str
    parameters: tuple[Parameter, ...] = ()
    body: "Callable[[], type[BaseModel]] | None" = None
    item_body: bool = False
    answer: int = 200
    tags: tuple[str, ...] = field(default=())


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
) -> Callable[[Handler], Handler]:
    """Declares a handler. `path` in werkzeug's form below the root; `body` gives a pydantic model, imported late;
    `item_body`: the body is an item of the entity in the path.
    """

    def declare(handler: Handler) -> Handler:
        summary = (handler.__doc__ or "").strip().split("\n")[0]
        tag = path.split("/")[2] if path.startswith("/api/") else "system"
        ROUTES.append(
            Route(method, path, handler, role, summary, tuple(parameters), body, item_body, answer, (tag,))
        )
        return handler

    return declare


def register(app: func.FunctionApp) -> None:
    """One anonymous function for each first segment of the table; who may call is decided here, not by the host."""
    for segment in sorted({_segment(each.path) for each in ROUTES}):
        name = "http_" + segment.removeprefix("api/").replace(".", "_").replace("-", "_")
        handler = partial(_function)
        handler.__name__ = name  # type: ignore[attr-defined]  # the name the worker shows
        decorated = app.route(
            route=f"{segment}/{{*path}}", methods=list(METHODS), auth_level=func.AuthLevel.ANONYMOUS
        )(_named(name))
        app.function_name(name)(decorated)


def _named(name: str) -> Callable[[func.HttpRequest], func.HttpResponse]:
    def function(req: func.HttpRequest) -> func.HttpResponse:
        return respond(req)

    function.__name__ = name
    return function


def _segment(path: str) -> str:
    parts = path.lstrip("/").split("/")
    return "/".join(parts[:2]) if parts[0] == "api" else parts[0]


def _function(req: func.HttpRequest) -> func.HttpResponse:
    return respond(req)


@cache
def the_hub() -> Hub:
    """The hub of this process, made from the environment; raises Misconfigured, and tries again at the next call."""
    return Hub(load(os.environ))


def respond(req: func.HttpRequest) -> func.HttpResponse:
    """Every request comes through here, and every one gets an answer that a program can read."""
    trace = trace_id(req.headers.get("traceparent", "")) or os.urandom(16).hex()
    try:
        hub = the_hub()
        with measured() as meter:
            try:
                reply = _answer(hub, req, trace)
            finally:
                hub.add_figures(meter)
    except HubError as error:
        reply = problem(error, trace)
    except Exception:
        _log.exception("bug while answering %s, trace %s", req.method, trace)
        reply = _problem(500, "Bug", "Something went wrong here; the trace id helps to find it.", trace)
    headers = {"traceparent": f"00-{trace}-{os.urandom(8).hex()}-01", "Cache-Control": "no-store", **reply.headers}
    return func.HttpResponse(
        reply.data(), status_code=reply.status, headers=headers, mimetype=reply.content_type, charset="utf-8"
    )
