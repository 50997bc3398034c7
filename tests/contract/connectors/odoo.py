"""Odoo: our sandbox and the real server, by JSON-2 and by JSON-RPC. What a person does there, the administrator does by his password."""

import json
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any, ClassVar

from crm_core.connectors.odoo.client import READS
from crm_core.connectors.odoo.models.common import LOOKUPS, Model
from crm_core.connectors.odoo.wire import sent
from sandbox.odoo import Odoo as Server
from sandbox.testing import Client, running
from tests.contract.connectors.relay import Seen
from tests.contract.connectors.remote import Access, Remote, Variant
from tests.contract.connectors.steered import Steered


class Odoo(Remote):
    """Any server that speaks Odoo's JSON-RPC: `start` gives `origin` and what follows."""

    system = "odoo"
    protocol: ClassVar[str] = "json2"
    texts: ClassVar = {
        "country": "Germany",
        "state": "Berlin",
        "industry": "Construction",
        "source": "Newsletter",
        "stage": "Qualified",
        "lost_reason": "Too expensive",
        "category": "Goods",
        "unit": "Units",
        "owner_email": "person@odoo.example",
    }
    missing = "2147483000"
    links = False
    database: str
    user: str
    password: str
    api_key: str
    _client: Client

    def begin(self, stack: ExitStack) -> None:
        """The administrator has an e-mail address, by which owners are named."""
        self._client = stack.enter_context(Client(self.origin))
        self._uid = self._rpc("common", "authenticate", self.database, self.user, self.password, {})
        self._do("res.users", "write", [self._uid], {"email": self.texts["owner_email"]})

    def shared(self, entity: str, rid: str) -> None:
        """A company takes the address of its only contact, and gives it to the later ones."""
        if entity == "account":
            kids = [{"name": f"Contact {each}", "parent_id": int(rid)} for each in (1, 2)]
            self._do("res.partner", "create", kids)

    def access(self, base: str) -> Access:
        settings = {
            "base_url": base,
            "database": self.database,
            "username": self.user,
            "protocol": self.protocol,
        }
        return Access(settings, {"api_key": self.api_key})

    def reads(self, request: Seen) -> bool:
        if request.path.startswith("/json/2/"):
            return request.path.rpartition("/")[2] in READS
        if request.path == "/jsonrpc":
            params = json.loads(request.body)["params"]
            return params["service"] == "common" or params["args"][4] in READS
        return True

    def credentials(self, request: Seen) -> str:
        if request.path == "/jsonrpc":
            arguments = json.loads(request.body)["params"]["args"]
            return str(arguments[2]) if len(arguments) > 2 else ""
        return super().credentials(request)

    def _rpc(self, service: str, method: str, *arguments: Any) -> Any:
        params = {"service": service, "method": method, "args": arguments}
        body = {"jsonrpc": "2.0", "method": "call", "id": 1, "params": params}
        told = self._client.call("POST", "/jsonrpc", body).json()
        assert "error" not in told, told["error"]["data"]["message"]
        return told.get("result")

    def _do(self, model: str, method: str, *arguments: Any) -> Any:
        return self._rpc(
            "object", "execute_kw", self.database, self._uid, self.password, model, method, list(arguments)
        )

    def natives(self, variant: Variant, fields: Mapping[str, Any]) -> dict[str, Any]:
        """Of references the numbers; a person writes texts as they are."""
        emap = variant.map
        assert isinstance(emap, Model)
        found = {}
        for name, value in emap.outward(fields).items():
            each = emap.find(name)
            kind = "many2one" if each is not None and each.targets else "char"
            assert name not in LOOKUPS
            found[name] = sent(kind, value)
        return found

    def row(self, variant: Variant, fields: Mapping[str, Any]) -> dict[str, Any]:
        """A new record with what makes it one of its entity."""
        emap = variant.map
        assert isinstance(emap, Model)
        return {**emap.constant, **self.natives(variant, fields)}

    def person_creates(
        self, variant: Variant, fields: Mapping[str, Any], *, lag: float = 0.0, ago: float = 0.0
    ) -> str:
        assert not lag
        assert not ago
        return str(self._do(variant.map.remote, "create", self.row(variant, fields)))

    def person_updates(self, variant: Variant, rid: str, fields: Mapping[str, Any]) -> None:
        self._do(variant.map.remote, "write", [int(rid)], self.natives(variant, fields))

    def person_deletes(self, variant: Variant, rid: str) -> None:
        if variant.map.lines is not None:
            self._do(variant.map.remote, "action_cancel", [int(rid)])
        self._do(variant.map.remote, "unlink", [int(rid)])

    def revoke(self) -> None:
        """There are no tokens."""

    def calm(self) -> None:
        """No fault is planted there."""


class Sandbox(Steered, Odoo):
    name = "sandbox"
    privilege = "odoo.exceptions.AccessError"
    version: ClassVar[int] = 19

    def start(self, folder: Path, stack: ExitStack) -> None:  # as the base has it
        sandbox = stack.enter_context(running(Server(version=self.version)))
        facts = sandbox.describe()
        self.origin, self.database = sandbox.url, str(facts["database"])
        self.user, self.password = str(facts["login"]), str(facts["password"])
        self.api_key = str(facts["api_key"])
        self.steer(sandbox, stack)
        self.begin(stack)

    def person_creates(
        self, variant: Variant, fields: Mapping[str, Any], *, lag: float = 0.0, ago: float = 0.0
    ) -> str:
        return str(self._row(variant.map.remote, self.row(variant, fields), lag, ago)["id"])


class SandboxRpc(Sandbox):
    """A server that has the older protocol alone, and the fields of its time."""

    name = "sandbox by JSON-RPC"
    protocol = "jsonrpc"
    version = 17
    unreached: ClassVar = {"activity": frozenset({"done"})}


class Real(Odoo):
    name = "real"
    oracle = True
    lacks: ClassVar = {
        "late": "The real Odoo has its own clock",
        "forbid": "The real Odoo's user may do everything",
        "throttle": "Odoo names no time to come again",
    }

    def start(self, folder: Path, stack: ExitStack) -> None:  # as the base has it
        facts = self.request.getfixturevalue("real_odoo")
        self.origin, self.database = facts["ODOO_URL"], facts["ODOO_DB"]
        self.user, self.password, self.api_key = (
            facts["ODOO_USER"],
            facts["ODOO_PASSWORD"],
            facts["ODOO_API_KEY"],
        )
        self.begin(stack)


class RealRpc(Real):
    """The same by the older protocol."""

    name = "real by JSON-RPC"
    protocol = "jsonrpc"
    # What the older protocol asks and is told is tried in full at the sandbox of an older version.
    feeds_only = True


REMOTES = (Sandbox, SandboxRpc, Real, RealRpc)
