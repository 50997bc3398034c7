"""An Odoo server as a system of the sandbox: what the frame asks of it."""

import copy
from collections.abc import Callable
from datetime import datetime
from decimal import Decimal
from typing import Any

from sandbox.frame import Fault, Faults, Frame, Refusal, Request, RequestLog, Response, Throttle
from sandbox.odoo import samples
from sandbox.odoo.calls import guarded
from sandbox.odoo.env import ADMIN, OPTIONS, Database, Env, Identity
from sandbox.odoo.errors import Refused
from sandbox.odoo.orm import BaseModel
from sandbox.odoo.pages import gateway
from sandbox.odoo.routes import Routes, refusal
from sandbox.odoo.rpc import json_rpc_error
from sandbox.odoo.schema import LATEST, OLDEST
from sandbox.store import Clock, Store, Values


class Odoo:
    """An Odoo server with one database. ``handle`` is the whole of it: request in, answer out."""

    name = "odoo"
    main_tables = ("res.partner",)
    side_tables = ("product.template", "crm.lead", "sale.order", "mail.activity")

    def __init__(
        self,
        identity: Identity | None = None,
        seed: int = 1,
        clock: Clock | None = None,
        options: Values | None = None,
        version: int = LATEST,
        modules: tuple[str, ...] = (),
    ) -> None:
        if not OLDEST <= version <= LATEST:
            raise ValueError(f"no such version: {version}; there are {OLDEST} to {LATEST}")
        clock = clock or Clock()
        self._start_options = {**OPTIONS, **(options or {})}
        self.frame = Frame(
            clock,
            Store(clock),
            Faults(),
            Throttle(clock),
            RequestLog(clock),
            copy.deepcopy(self._start_options),
        )
        self.db = Database(self.frame, identity or Identity(), version, modules, seed)
        self.routes = Routes(self.db)

    # --- what the frame asks of every system ----------------------------------------------------------------

    def describe(self, origin: str) -> Values:
        """What a client needs to connect."""
        who = self.db.identity
        return {
            "system": self.name, "url": origin, "api": f"{origin}/json/2/" if self.db.version >= LATEST else f"{origin}/jsonrpc",
            "database": who.database, "login": who.login, "password": who.password, "api_key": who.api_key,
            "reader_key": who.reader_key, "version": f"{self.db.version}.0",
        }  # fmt: skip

    def origins(self, names: set[str]) -> None:
        self.db.base_url = min(names)

    def caller_of(self, _request: Request) -> str | None:
        """Nobody is throttled: the server has no limits."""
        return None

    def handle(self, request: Request) -> Response:
        answer = self.routes.handle(request)
        return Response(answer.status, {**answer.headers, "Connection": "close"}, answer.body)

    def fault_response(self, fault: Fault, request: Request) -> Response:
        """With a ``code``, an exception of the server in the words of the protocol; else a page of what stands before it."""
        name = fault.code or ("odoo.exceptions.AccessError" if fault.kind == "privilege" else "")
        if not name:
            answer = gateway(fault.status or {"throttle": 429}.get(fault.kind, 503))
            after = {} if fault.retry_after is None else {"Retry-After": str(fault.retry_after)}
            return Response(answer.status, {**answer.headers, **after, **fault.headers}, answer.body)
        refused = Refused(name, fault.message or "The sandbox was told to fail.")
        if request.path == "/jsonrpc":
            return json_rpc_error(self.db, None, refused)
        answer = refusal(refused)
        return Response(fault.status or answer.status, {**answer.headers, **fault.headers}, answer.body)

    def refusal_response(self, refusal: Refusal) -> Response:
        return Response(429, {"Retry-After": str(refusal.retry_after)}, gateway(429).body)

    def tables(self) -> list[str]:
        return list(self.db.schema.models)

    def filled(self, table: str) -> bool:
        """Whether there are more rows than those of a new database."""
        return len(self.frame.store.table(table).rows) > self.db.first_rows.get(table, 0)

    def fill(self, table: str, count: int, seed: int) -> int:
        return samples.fill(self.db, table, count, seed)

    def revoke(self) -> int:
        """All keys are void; passwords stay."""
        count = len(self.db.keys.api_keys)
        self.db.keys.api_keys.clear()
        return count

    def reset(self) -> None:
        """The database of the start, with the options and keys of the start."""
        self.frame.store.clear()
        self.frame.options.clear()
        self.frame.options.update(copy.deepcopy(self._start_options))
        self.db.seed()

    def loaded(self) -> None:
        self.db.restore_fields()

    # --- people ----------------------------------------------------------------------------------------------

    def _person(
        self, table: str, lag: float | None, at: datetime | None, work: Callable[[BaseModel], Any]
    ) -> Any:
        wait = self.frame.options["lag"] if lag is None else lag
        return guarded(lambda: self.db.run(lambda begun: work(Env(self.db, ADMIN, begun)[table]), wait, at))

    def person_create(self, table: str, values: Values, lag: float | None, at: datetime | None) -> Values:
        key = self._person(table, lag, at, lambda model: model.create([_plain(values)])[0])
        return self.show(table, str(key)) or {"id": str(key), "pending": True}

    def person_update(
        self, table: str, key: str, values: Values, lag: float | None, at: datetime | None
    ) -> Values:
        self._person(table, lag, at, lambda model: model._browse([int(key)]).write(_plain(values)))
        return self.show(table, key) or {}

    def person_delete(self, table: str, key: str, lag: float | None) -> None:
        self._person(table, lag, None, lambda model: model._browse([int(key)]).unlink())

    def person_merge(self, table: str, key: str, into: str) -> None:
        """What refers to the row refers to the other one, and the row is gone."""

        def work(model: BaseModel) -> None:
            for other, field in self.db.schema.references.get(table, ()):
                for row in list(self.frame.store.table(other.name).where(field.name, int(key))):
                    model._env[other.name]._browse([int(row.id)]).write({field.name: int(into)})
            model._browse([int(key)]).unlink()

        self._person(table, 0.0, None, work)

    def show(self, table: str, key: str) -> Values | None:
        """A row as stored, for control: times with microseconds."""
        row = self.frame.store.get(table, key)
        if row is None:
            return None
        times = {"create_date": row.created.isoformat(), "write_date": row.modified.isoformat()}
        kept = {k: v for k, v in row.values.items() if v is not None}
        return {"id": row.id, "version": row.version, "values": {**kept, **times}}


def _plain(value: Any) -> Any:
    """Control bodies have exact decimals; clients of this server send floats."""
    if isinstance(value, Decimal):
        return float(value)
    if isinstance(value, dict):
        return {k: _plain(v) for k, v in value.items()}
    return [_plain(v) for v in value] if isinstance(value, list) else value
