"""The sales app as a system of the sandbox: what the frame asks of it, and how the command line makes it.

Any path takes posts of JSON. What was proven is a row of ``received``, the same webhook (by ``webhook-id``) once more is
counted in its row; the log of requests has every attempt, whatever was answered. It fails as it is told to by the faults of
control: statuses with or without ``retry_after`` (410 for good), ``delay`` beyond the sender's patience, ``reset`` before
and ``reset_after`` it was kept, ``garbage``, redirects (a ``status`` with a ``Location``).

It sends webhooks of its own too: each row of ``sent`` that control makes is posted to those of the option ``webhooks``.
"""

import argparse
import copy
import json
import random
import uuid
from datetime import datetime

from sandbox.frame import (
    Fault,
    Faults,
    Frame,
    Refusal,
    Request,
    RequestLog,
    Response,
    Throttle,
    json_response,
)
from sandbox.posting import FAULTS, Outbox
from sandbox.sales.proof import signature_fault, signed, token_fault
from sandbox.store import Clock, Store, Values

RECEIVED, SENT = "received", "sent"
OPTIONS: Values = {
    # By name: {"url", "signing_secret": whsec_..., or "token" and "token_header"}
    "webhooks": {},
    "webhook_faults": FAULTS,
}
TOKEN_HEADER = "X-CRM-Webhook-Token"  # noqa: S105 - the name of a header


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--token", default="", help="the token that every webhook has to bear")
    parser.add_argument("--token-header", default=TOKEN_HEADER, help="the header that it stands in")
    parser.add_argument(
        "--signing-secret", default="", help="whsec_...: every webhook has to be signed by it"
    )


def make(arguments: argparse.Namespace) -> "Sales":
    return Sales(arguments.token, arguments.signing_secret, arguments.token_header)


class Sales:
    """``handle`` is the whole of it: request in, answer out. Without token and secret it takes everything."""

    name = "sales"
    main_tables: tuple[str, ...] = ()
    side_tables: tuple[str, ...] = ()

    def __init__(
        self,
        token: str = "",
        signing_secret: str = "",
        token_header: str = TOKEN_HEADER,
        clock: Clock | None = None,
    ) -> None:
        clock = clock or Clock()
        self.frame = Frame(
            clock, Store(clock), Faults(), Throttle(clock), RequestLog(clock), copy.deepcopy(OPTIONS)
        )
        self.frame.log.secrets = {each for each in (token, signing_secret) if each}
        self.token, self.signing_secret, self.token_header = token, signing_secret, token_header
        self._outbox = Outbox("sales webhooks", random.Random(1))

    # --- the CRM ---------------------------------------------------------------------------------------------------

    def handle(self, request: Request) -> Response:
        """200 for what is proven and JSON, also once more."""
        if request.method != "POST":
            return _refused(405, "POST a webhook", {"Allow": "POST"})
        wrong = self._wrong(request)
        if wrong:
            return _refused(401, wrong)
        try:
            body = json.loads(request.body)
        except ValueError:
            return _refused(400, "the body is no JSON")
        key = request.headers.get("webhook-id") or str(uuid.uuid4())
        present = self.frame.store.get(RECEIVED, key)
        times = 1 if present is None else present.values["times"] + 1
        values = {
            "path": request.path,
            "body": body,
            "content_type": request.headers.get("content-type"),
            "times": times,
        }
        self.frame.store.write(RECEIVED, key, values)
        return json_response(200, {"ok": True, "id": key})

    def _send(self, key: str, body: bytes) -> None:
        """Repeats of a webhook have one id."""
        for hook in self.frame.options["webhooks"].values():

            def made(hook: Values = hook) -> tuple[str, dict[str, str], bytes]:
                headers = {"Content-Type": "application/json"}
                if secret := hook.get("signing_secret"):
                    headers |= signed(key, body, secret, self.frame.clock.seconds())
                if token := hook.get("token"):
                    headers[hook.get("token_header", TOKEN_HEADER)] = token
                return hook["url"], headers, body

            self._outbox.put(made, self.frame.options["webhook_faults"])

    def _wrong(self, request: Request) -> str:
        if self.token and (wrong := token_fault(request.headers, self.token_header, self.token)):
            return wrong
        if self.signing_secret:
            now = self.frame.clock.seconds()
            return signature_fault(request.headers, request.body, self.signing_secret, now)
        return ""

    def caller_of(self, _request: Request) -> str | None:
        """Nobody is throttled unless a fault says so."""
        return None

    def fault_response(self, fault: Fault, request: Request) -> Response:  # noqa: ARG002  # as `System` has it
        status = fault.status or {"throttle": 429, "privilege": 403}.get(fault.kind, 503)
        after = {} if fault.retry_after is None else {"Retry-After": str(fault.retry_after)}
        return _refused(status, fault.message or "The sandbox was told to fail.", {**after, **fault.headers})

    def refusal_response(self, refusal: Refusal) -> Response:
        return _refused(429, "too many requests", {"Retry-After": str(refusal.retry_after)})

    # --- the frame -------------------------------------------------------------------------------------------------

    def origins(self, names: set[str]) -> None:
        """Its answers hold no addresses."""

    def describe(self, origin: str) -> Values:
        """What a sender needs."""
        return {
            "system": self.name, "url": origin, "api": f"{origin}/webhooks", "token": self.token,
            "token_header": self.token_header, "signing_secret": self.signing_secret,
        }  # fmt: skip

    def tables(self) -> list[str]:
        return [RECEIVED, SENT]

    def filled(self, table: str) -> bool:
        return bool(self.frame.store.table(table).rows)

    def fill(self, table: str, count: int, seed: int) -> int:  # noqa: ARG002  # as `System` has it
        """There are no samples of what others send."""
        return 0

    def revoke(self) -> int:
        """There is nothing to sign in with."""
        return 0

    def reset(self) -> None:
        self.frame.store.clear()

    def loaded(self) -> None:
        """Nothing is computed from the rows."""

    def show(self, table: str, key: str) -> Values | None:
        row = self.frame.store.get(table, key)
        return None if row is None else {"id": row.id, "version": row.version, "values": row.values}

    def person_create(self, table: str, values: Values, lag: float | None, at: datetime | None) -> Values:
        key = str(uuid.uuid4())
        self.frame.store.write(table, key, values, at=at, lag=lag or 0.0)
        if table == SENT:
            self._send(key, json.dumps(values, ensure_ascii=False).encode())
        return self.show(table, key) or {"id": key, "pending": True}

    def person_update(
        self, table: str, key: str, values: Values, lag: float | None, at: datetime | None
    ) -> Values:
        self.frame.store.write(table, key, values, at=at, lag=lag or 0.0)
        return self.show(table, key) or {}

    def person_delete(self, table: str, key: str, lag: float | None) -> None:
        self.frame.store.delete(table, key, lag=lag or 0.0)

    def person_merge(self, table: str, key: str, into: str) -> None:
        raise NotImplementedError("what was received is never one thing with another")


def _refused(status: int, message: str, headers: Values | None = None) -> Response:
    return json_response(status, {"error": message}, headers)
