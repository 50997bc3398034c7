"""The control endpoint ``/_sandbox/...``: how tests and people steer a sandbox. See README.md for each call."""

import hmac
import json
from collections.abc import Callable
from dataclasses import asdict, fields
from datetime import UTC, datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, unquote

from sandbox.frame import Fault, Limits, Request, Response, json_response
from sandbox.store import Values

if TYPE_CHECKING:
    from sandbox.app import System

FAULT_FIELDS = {f.name for f in fields(Fault)} - {"id", "struck"}


class Wrong(Exception):
    """A control call that cannot be done, with its status."""

    def __init__(self, text: str, status: int = 400) -> None:
        super().__init__(text)
        self.status = status


def _time(value: Any) -> datetime | None:
    if value is None:
        return None
    try:
        at = datetime.fromisoformat(str(value))
    except ValueError:
        raise Wrong(f"no ISO time: {value}") from None
    return at if at.tzinfo else at.replace(tzinfo=UTC)


def _object(body: bytes, number: type = float) -> Values:
    value = json.loads(body, parse_float=number) if body else {}
    if not isinstance(value, dict):
        raise Wrong("a JSON object was expected")
    return value


class Control:
    """Answers control calls; each route is one small method."""

    def __init__(self, system: "System", key: str, save: Callable[[], None]) -> None:
        self._system = system
        self._frame = system.frame
        self._key = key
        self._save = save
        self._routes: dict[tuple[str, str], Callable[[Values, Request], Any]] = {
            ("GET", "health"): lambda _b, _r: {"ok": True, "system": system.name},
            ("GET", "stats"): self._stats,
            ("POST", "fill"): self._fill,
            ("POST", "reset"): self._reset,
            ("POST", "save"): lambda _b, _r: self._save(),
            ("GET", "clock"): self._clock,
            ("POST", "clock"): self._set_clock,
            ("GET", "options"): self._options,
            ("POST", "options"): self._set_options,
            ("GET", "faults"): self._faults,
            ("POST", "faults"): self._add_fault,
            ("DELETE", "faults"): self._clear_faults,
            ("GET", "requests"): self._requests,
            ("DELETE", "requests"): lambda _b, _r: self._frame.log.clear(),
            ("POST", "tokens/revoke"): lambda _b, _r: {"revoked": system.revoke()},
        }

    def handle(self, request: Request) -> Response:
        given = request.headers.get("x-sandbox-key", "")
        if self._key and not hmac.compare_digest(given.encode(), self._key.encode()):
            return json_response(403, {"error": "the header x-sandbox-key is missing or wrong"})
        path = request.path.removeprefix("/_sandbox/").strip("/")
        try:
            result = self._call(
                request, path, _object(request.body, Decimal if path.startswith("rows/") else float)
            )
        except json.JSONDecodeError:
            return json_response(400, {"error": "the body is not JSON"})
        except Wrong as wrong:
            return json_response(wrong.status, {"error": str(wrong)})
        except Exception as refused:  # a system's own refusal knows its answer
            if hasattr(refused, "response"):
                answer: Response = refused.response()
                return answer
            raise
        return Response(204) if result is None else json_response(200, result)

    def _call(self, request: Request, path: str, body: Values) -> Any:
        if path == "rows" or path.startswith("rows/"):
            return self._rows(request, [unquote(p) for p in path.split("/")[1:]], body)
        if path.startswith("faults/") and request.method == "DELETE":
            self._frame.faults.clear(int(path.removeprefix("faults/")))
            return None
        route = self._routes.get((request.method, path))
        if route is None:
            known = sorted(f"{m} {p}" for m, p in self._routes)
            raise Wrong(
                f"no such control call; there are {', '.join(known)} and rows/<table>[/<id>[/merge]]", 404
            )
        return route(body, request)

    def _stats(self, _body: Values, _request: Request) -> Values:
        store = self._frame.store
        return {
            "counts": dict(sorted(self._frame.log.counts.items())),
            "rows": {t: len(store.table(t).rows) for t in self._system.tables()},
            "deleted": {t: len(store.table(t).dead) for t in self._system.tables()},
            "version": store.version,
            "now": self._frame.clock.now().isoformat(),
        }

    def _table(self, name: Any) -> str:
        if name not in self._system.tables():
            raise Wrong(f"no such table: {name}; there are {', '.join(self._system.tables())}", 404)
        return str(name)

    def _fill(self, body: Values, _request: Request) -> Values:
        tables = [self._table(each) for each in body.get("tables") or [body.get("table")]]
        count, seed = int(body.get("count", 100)), int(body.get("seed", 1))
        rows = {table: self._system.fill(table, count, seed) for table in tables}
        self._save()
        return {"rows": rows} if "tables" in body else {"table": tables[0], "rows": rows[tables[0]]}

    def _reset(self, _body: Values, _request: Request) -> None:
        self._frame.faults.clear()
        self._frame.throttle.clear()
        self._frame.throttle.limits = Limits()
        self._frame.clock.real()
        self._frame.log.clear()
        self._system.reset()
        self._save()

    def _clock(self, _body: Values, _request: Request) -> Values:
        return {"now": self._frame.clock.now().isoformat(), "frozen": self._frame.clock.frozen}

    def _set_clock(self, body: Values, request: Request) -> Values:
        """``{"set": time, "frozen": false}``, ``{"advance": seconds}`` or ``{"real": true}``."""
        if body.get("real"):
            self._frame.clock.real()
        if (at := _time(body.get("set"))) is not None:
            self._frame.clock.set(at, frozen=bool(body.get("frozen")))
        if "advance" in body:
            self._frame.clock.advance(float(body["advance"]))
        return self._clock(body, request)

    def _options(self, _body: Values, _request: Request) -> Values:
        return {**self._frame.options, "limits": asdict(self._frame.throttle.limits)}

    def _set_options(self, body: Values, request: Request) -> Values:
        options = self._frame.options
        for name, value in body.items():
            if name == "limits" and isinstance(value, dict):
                self._frame.throttle.limits = Limits(**{**asdict(self._frame.throttle.limits), **value})
            elif name not in options:
                raise Wrong(f"no such option: {name}; there are {', '.join([*options, 'limits'])}")
            elif isinstance(options[name], dict) and isinstance(value, dict):
                options[name] = {**options[name], **value}
            else:
                options[name] = value
        return self._options(body, request)

    def _faults(self, _body: Values, _request: Request) -> list[Values]:
        return [asdict(f) for f in self._frame.faults.active]

    def _add_fault(self, body: Values, _request: Request) -> Values:
        if unknown := body.keys() - FAULT_FIELDS:
            raise Wrong(f"a fault has no {min(unknown)}; it has {', '.join(sorted(FAULT_FIELDS))}")
        if body.get("kind") not in Fault.KINDS:
            raise Wrong(f"kind must be one of {', '.join(Fault.KINDS)}")
        return asdict(self._frame.faults.add(Fault(**body)))

    def _clear_faults(self, _body: Values, _request: Request) -> None:
        self._frame.faults.clear()

    def _requests(self, _body: Values, request: Request) -> list[Values]:
        since = parse_qs(request.query).get("since", ["0"])[0]
        return self._frame.log.since(int(since))

    def _rows(self, request: Request, parts: list[str], body: Values) -> Any:
        """Rows as a person at the vendor changes them: no token, no throttle, but the vendor's own checks."""
        if not parts:
            raise Wrong("rows/<table> is needed", 404)
        table = self._table(parts[0])
        lag = None if body.get("lag") is None else float(body["lag"])
        values, at = body.get("values", {}), _time(body.get("at"))
        match request.method, len(parts):
            case "GET", 1:
                limit = int(parse_qs(request.query).get("limit", ["100"])[0])
                return [self._system.show(table, i) for i in self._frame.store.table(table).ids()[:limit]]
            case "POST", 1:
                return self._system.person_create(table, values, lag, at)
            case "GET", 2:
                shown = self._system.show(table, parts[1].lower())
                if shown is None:
                    raise Wrong("no such row", 404)
                return shown
            case "PATCH", 2:
                return self._system.person_update(table, parts[1].lower(), values, lag, at)
            case "DELETE", 2:
                self._system.person_delete(table, parts[1].lower(), lag)
                return None
            case "POST", 3 if parts[2] == "merge":
                self._system.person_merge(table, parts[1].lower(), str(body.get("into", "")).lower())
                return None
        raise Wrong("no such control call", 404)
