"""Answers that are no data: HTML of the server and of what stands before it, and the headers of both."""

import json
from html import escape
from typing import Any

from sandbox.frame import Request, Response

HTML = "text/html; charset=utf-8"
GATEWAY = "<html>\r\n<head><title>{0} {1}</title></head>\r\n<body>\r\n<center><h1>{0} {1}</h1></center>\r\n<hr><center>nginx</center>\r\n</body>\r\n</html>\r\n"
REASONS = {
    429: "Too Many Requests",
    500: "Internal Server Error",
    502: "Bad Gateway",
    503: "Service Temporarily Unavailable",
    504: "Gateway Time-out",
}
NOT_FOUND = "The requested URL was not found on the server. If you entered the URL manually please check your spelling and try again."
NO_DATABASE = (
    "<!DOCTYPE html>\n<title>404 Not Found</title>\n<h1>Not Found</h1>\n<p>No database is selected and the requested URL was not "
    "found in the server-wide controllers.</p>\n<p>Please verify the hostname, <a href=/web/login>login</a> and try again.</p>\n\n"
    "<!-- Alternatively, use the X-Odoo-Database header. -->\n"
)


def media_type(request: Request) -> str:
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


def json_answer(value: Any, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    body = json.dumps(value, ensure_ascii=False).encode("utf-8", "surrogatepass")
    return Response(status, {"Content-Type": "application/json; charset=utf-8", **(headers or {})}, body)


def html(status: int, text: str, headers: dict[str, str] | None = None) -> Response:
    return Response(status, {"Content-Type": HTML, **(headers or {})}, text.encode())


def page(status: int, title: str, text: str, headers: dict[str, str] | None = None) -> Response:
    shown = (
        f"<!doctype html>\n<html lang=en>\n<title>{status} {title}</title>\n<h1>{title}</h1>\n<p>{text}</p>\n"
    )
    return html(status, shown, headers)


def not_found() -> Response:
    return page(404, "Not Found", NOT_FOUND)


def unsupported(path: str, kind: str, accepted: str) -> Response:
    """The route wants another type of body."""
    text = (
        f"Request inferred type is compatible with [&#39;http&#39;] but {escape(repr(path))} is type={escape(repr(kind))}."
        "<br><br>Please verify the Content-Type request header and try again."
    ).replace("&#x27;", "&#39;")
    return page(415, "Unsupported Media Type", text, {"Accept": accepted})


def gateway(status: int) -> Response:
    """A proxy's page."""
    return Response(
        status, {"Content-Type": "text/html"}, GATEWAY.format(status, REASONS.get(status, "Error")).encode()
    )
