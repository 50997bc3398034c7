"""One hub over HTTP, by the standard library alone: what starts with each command has to start fast."""

import json
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode, urlsplit

from crm_core.cli.failures import Exit, Failure, Refusal, Unreachable

LOCAL = "http://127.0.0.1:7071"
"""Where `make run` and Core Tools serve."""
HERE = Path(__file__).resolve().parents[2]
LONGEST = 86_400
"""Seconds that anybody may wait for an answer: beyond some years no system can count them."""
PAGE = 200
"""Items that are asked for at once: what every list takes."""
NOT_RUNNING = (
    "`make run` starts one on this machine; --url or the environment variable CRMHUB_URL names another."
)
Query = Mapping[str, str | int | None]


@dataclass(frozen=True)
class Key:
    """A key and where it is from, for people; its text is never shown."""

    text: str = field(repr=False)
    source: str


def is_local(url: str) -> bool:
    """Whether it is this machine: by an address, or the one name that always is."""
    from ipaddress import ip_address

    try:
        host = (urlsplit(url).hostname or "").lower()
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False


def find_key(url: str, key: str, file: Path | None) -> Key:
    """The key that was given or, for a hub on this machine alone, the one that was made for it; perhaps "".

    A key of this machine is sent to no other.
    """
    if file is not None:
        try:
            return Key(file.read_text("utf-8").strip(), f"The key is that of {file}")
        except (OSError, UnicodeDecodeError) as error:
            why = getattr(error, "strerror", None) or "it is not text"
            raise Failure(Exit.USAGE, f"The key file {file} can't be read: {why}.") from None
    if key:
        return Key(key.strip(), "The key is that of --key or CRMHUB_KEY")
    for folder in (Path.cwd(), HERE) if is_local(url) else ():
        for name, read in ((".data/api-key", str.strip), ("local.settings.json", _of_settings)):
            try:
                found = read((folder / name).read_text("utf-8"))
            except (OSError, ValueError):
                continue
            if found:
                return Key(found, f"The key is that of {folder / name}")
    return Key("", "")


def _of_settings(text: str) -> str:
    values = json.loads(text).get("Values")
    return str(values.get("HUB_API_KEY") or "") if isinstance(values, dict) else ""


def _is_address(url: str) -> bool:
    """Whether requests can go there: without a name and password, which would be shown, and without a query."""
    try:
        parts = urlsplit(url)
        host = (parts.hostname or "").encode("idna").decode()
        port = parts.port
    except ValueError:
        return False
    plain = parts.path.isascii() and not (parts.query or parts.fragment) and "@" not in parts.netloc
    return plain and bool(host) and port != 0 and parts.scheme in ("http", "https")


def path_of(*parts: str) -> str:
    """`/api/a/b`, each part encoded whole."""
    return "/api/" + "/".join(quote(part, safe="") for part in parts)


@dataclass
class Client:
    """`url` without the last slash; `timeout`: seconds that the hub has for an answer."""

    url: str
    key: Key
    timeout: float = 120.0

    def __post_init__(self) -> None:
        if not _is_address(self.url):
            raise Failure(Exit.USAGE, "--url: expected an address such as https://hub.example.com.")
        if not (self.key.text.isascii() and (self.key.text.isprintable())):
            raise Failure(Exit.USAGE, f"{self.key.source}, which has characters that no key has.")
        if not 1 <= self.timeout <= LONGEST:  # nor is it what is no number
            raise Failure(Exit.USAGE, f"--timeout: expected 1 to {LONGEST} seconds.")
        self.url = self.url.rstrip("/")

    @property
    def in_the_clear(self) -> bool:
        """Whether the key goes unencrypted to another machine."""
        return bool(self.key.text) and self.url.startswith("http:") and not is_local(self.url)

    def get(self, path: str, query: Query | None = None) -> Any:
        """The answer's JSON. Raises Refusal and Unreachable, as all of these do."""
        return self.call("GET", path, query)[0]

    def post(self, path: str, body: Mapping[str, Any] | None = None, query: Query | None = None) -> Any:
        return self.call("POST", path, query, body)[0]

    def items(
        self, path: str, query: Query | None = None, *, limit: int | None, name: str = "value"
    ) -> "Pages":
        """The items of a list, page after page; None: all of them. `name`: what they are called in an answer."""
        return Pages(self, path, dict(query or {}), limit, name)

    def call(
        self,
        method: str,
        path: str,
        query: Query | None = None,
        body: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> tuple[Any, Mapping[str, str]]:
        """The answer's JSON, None without one, and its headers with names in lower case."""
        from urllib.request import Request

        given = {name: str(value) for name, value in (query or {}).items() if value not in (None, "")}
        target = self.url + path + (("&" if "?" in path else "?") + urlencode(given) if given else "")
        sent = {"Accept": "application/json", **(headers or {})}
        if self.key.text:
            sent["X-API-KEY"] = self.key.text
        data = None
        if method != "GET":
            # An answer that is lost on its way can be asked for again: the hub does it once.
            sent |= {"Content-Type": "application/json"} | (
                {"Idempotency-Key": str(uuid.uuid4())} if method == "POST" else {}
            )
            data = json.dumps(body or {}).encode()
        request = Request(target, data, sent, method=method)  # noqa: S310 - the scheme was looked at
        try:
            return self._send(request)
        except ConnectionError:
            # A connection that ended without an answer: a read, or a POST with its key, can be sent again.
            if method not in ("GET", "POST"):
                raise self._silent(ConnectionError("the connection ended")) from None
        try:
            return self._send(request)
        except ConnectionError as error:
            raise self._silent(error) from None

    def _send(self, request: Any) -> tuple[Any, Mapping[str, str]]:
        """Raises Refusal, Unreachable, and ConnectionError where a connection ended before the answer."""
        from http.client import HTTPException
        from urllib.error import HTTPError, URLError

        try:
            with self._opener().open(request, timeout=self.timeout) as answer:
                return self._json(answer.status, answer.headers, answer.read())
        except HTTPError as error:
            with error:
                raise self._refusal(error.code, error.headers, _rest(error)) from None
        except (ConnectionResetError, BrokenPipeError):
            raise  # http.client's RemoteDisconnected is one of them
        except (URLError, HTTPException, OSError) as error:
            if isinstance(getattr(error, "reason", None), (ConnectionResetError, BrokenPipeError)):
                raise ConnectionResetError("the connection ended without an answer") from None
            raise self._silent(error) from None

    def _opener(self) -> Any:
        """Follows no redirect, which would take the key elsewhere; asks no proxy for this machine."""
        from urllib.request import HTTPRedirectHandler, ProxyHandler, build_opener

        class Stay(HTTPRedirectHandler):
            def redirect_request(self, *_: Any) -> None:
                return None

        return build_opener(Stay(), *([ProxyHandler({})] if is_local(self.url) else []))

    def _json(self, status: int, headers: Any, data: bytes) -> tuple[Any, Mapping[str, str]]:
        named = {name.lower(): value for name, value in headers.items()}
        if not data:
            return None, named
        try:
            found = json.loads(data)
        except (ValueError, RecursionError):
            found = None
        if not isinstance(found, dict):
            raise Unreachable(
                f"{self.url} answers {status} with something that is not JSON as a hub's; it is no hub.",
                NOT_RUNNING,
            )
        return found, named

    def _refusal(self, status: int, headers: Any, data: bytes) -> Failure:
        if 300 <= status < 400:
            where = headers.get("Location", "")
            return Unreachable(f"{self.url} redirects to {where}.", "Give the address itself by --url.")
        try:
            body = json.loads(data)
        except (ValueError, RecursionError):
            body = None
        if not isinstance(body, dict) or "title" not in body:
            return Unreachable(f"{self.url} answers {status}, but not as a hub does.", NOT_RUNNING)
        return Refusal(status, body, headers.get("Retry-After", ""), self.key.source)

    def _silent(self, error: Exception) -> Unreachable:
        reason = getattr(error, "reason", error)
        if isinstance(reason, TimeoutError):
            return Unreachable(
                f"{self.url} has not answered for {self.timeout:g} s.", "Wait longer by --timeout."
            )
        words = getattr(reason, "strerror", None) or str(reason) or type(reason).__name__
        return Unreachable(f"No hub answers at {self.url} ({words}).", NOT_RUNNING)


def _rest(error: Any) -> bytes:
    """The body of an error's answer; b"" where its connection ends before it."""
    from http.client import HTTPException

    try:
        data: bytes = error.read()
    except (OSError, HTTPException):
        return b""
    return data


class Pages:
    """The items of a list as they come. After them `more` tells whether there are more than were asked for."""

    def __init__(
        self, client: Client, path: str, query: dict[str, str | int | None], limit: int | None, name: str
    ) -> None:
        self._client = client
        self._path = path
        self._query: Query = {"top": min(limit or PAGE, PAGE), **query}
        self._limit = limit
        self._name = name
        self.more = False

    def __iter__(self) -> Iterator[dict[str, Any]]:
        told, path, query = 0, self._path, self._query
        while True:
            page = self._client.get(path, query)
            for item in page.get(self._name) or ():
                if told == self._limit:
                    self.more = True
                    return
                told += 1
                yield item
            following = page.get("nextLink")
            if not following:
                return
            if told == self._limit:
                self.more = True
                return
            path, query = _following(self._path, following), {}


def _following(path: str, link: str) -> str:
    """The path and query of the next page of a list. Of its link only the query is taken: what is before it is how the hub calls
    itself, which may be a name and a path that only others know, and gets no key.
    """
    return f"{path}?{link.partition('?')[2]}"
