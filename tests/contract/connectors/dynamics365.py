"""Dynamics 365: our sandbox, and a server on Microsoft's own OData code."""

import json
import os
import signal
import subprocess
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import urlencode

import pytest
import trustme

from crm_core.connectors.dynamics365.tables.common import Table
from sandbox.dynamics365 import Dataverse
from sandbox.testing import Client, running
from tests.conftest import free_ports, wait_for_port
from tests.contract.connectors.remote import Access, Remote, Variant
from tests.contract.connectors.steered import Steered

API = "/api/data/v9.2"
ORACLE = os.environ.get("CRMHUB_DATAVERSE_ORACLE", "")
OWN_DATA = {"Content-Type": "application/x-www-form-urlencoded"}


class Dynamics(Remote):
    system = "dynamics365"
    tenant: str
    client_id: str
    secret: str

    def known_as(self, base: str) -> None:
        """Tokens are given for an environment's address only."""

    def access(self, base: str) -> Access:
        self.known_as(base)
        settings = {"base_url": base, "authority": self.origin, "tenant_id": self.tenant}
        return Access({**settings, "client_id": self.client_id}, {"client_secret": self.secret})

    @staticmethod
    def table(variant: Variant) -> Table:
        assert isinstance(variant.map, Table)
        return variant.map


class Sandbox(Steered, Dynamics):
    name = "sandbox"
    privilege = "prvReadAccount"
    texts: ClassVar = {"currency": "USD", "unit": "Primary Unit", "owner_email": "person@sandbox.example"}
    tracking: ClassVar[bool] = True

    def start(self, folder: Path, stack: ExitStack) -> None:
        self.ca = folder / "ca.pem"
        sandbox = stack.enter_context(running(Dataverse(), tls_ca=self.ca))
        assert sandbox.https
        self.origin = sandbox.https
        self._system = sandbox.app.system
        self._names = {self.origin}
        facts = sandbox.describe()
        self.tenant, self.client_id = str(facts["tenant"]), str(facts["client_id"])
        self.secret = str(facts["client_secret"])
        self.steer(sandbox, stack)
        self._control("POST", "options", {"limits": {"requests": 10**6, "seconds": 10**6}})
        if not self.tracking:
            tables = self._control("GET", "options")["tracking"]
            self._control("POST", "options", {"tracking": dict.fromkeys(tables, False)})

    def known_as(self, base: str) -> None:
        self._names.add(base)
        self._system.origins(self._names)

    def person_creates(
        self, variant: Variant, fields: Mapping[str, Any], *, lag: float = 0.0, ago: float = 0.0
    ) -> str:
        values = {**self.natives(variant, fields), **self.table(variant).defaults}
        made = self._row(self.table(variant).logical, values, lag, ago)
        return str(made["id"] if "id" in made else made[self.table(variant).key])

    def person_updates(self, variant: Variant, rid: str, fields: Mapping[str, Any]) -> None:
        values = {"values": self.natives(variant, fields)}
        self._control("PATCH", f"rows/{self.table(variant).logical}/{rid}", values)

    def person_deletes(self, variant: Variant, rid: str) -> None:
        self._control("DELETE", f"rows/{self.table(variant).logical}/{rid}")

    def revoke(self) -> None:
        self._control("POST", "tokens/revoke")


class Untracked(Sandbox):
    """An environment whose tables track no changes: the feed goes by the time of the last change."""

    name = "sandbox by time"
    feeds_only = True
    tracking = False
    lacks: ClassVar = {"deletes": "A Dataverse table that tracks no changes tells no deletes"}


class Oracle(Dynamics):
    name = "oracle"
    oracle = True
    texts: ClassVar = {"currency": "USD", "unit": "Unit", "owner_email": "sales@example.test"}
    tenant = "tenant-1"
    client_id = "client-1"
    secret = "oracle-secret"
    lacks: ClassVar = {
        "deletes": "The Dataverse oracle tracks no changes",
        "late": "The Dataverse oracle commits at once",
        "forbid": "The Dataverse oracle has no privileges",
        "throttle": "The Dataverse oracle names no time to come again",
        "kinds": "The Dataverse oracle does not tell what a reference leads to",
        "undo": "The Dataverse oracle undoes nothing of a change set that fails",
        "once": "The Dataverse oracle leaves out the link to what comes later, so that all is read again by time",
        "final": "The Dataverse oracle lets a quote be changed that is won or lost",
        "canon": "The Dataverse oracle keeps every digit of an amount, and the fraction of a time",
    }

    def start(self, folder: Path, stack: ExitStack) -> None:
        if not ORACLE:
            pytest.skip("CRMHUB_DATAVERSE_ORACLE does not name the Dataverse oracle")
        ca = trustme.CA()
        self.ca, leaf = folder / "ca.pem", folder / "leaf.pem"
        ca.cert_pem.write_to_path(self.ca)
        ca.issue_cert("127.0.0.1", "localhost").private_key_and_cert_chain_pem.write_to_path(leaf)
        port, tls = free_ports(2)
        command = [ORACLE, "--port", str(port), "--tls-port", str(tls), "--records", "3"]
        process = subprocess.Popen(
            [*command, "--cert", str(leaf), "--key", str(leaf)],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        stack.callback(process.stdout.close)
        stack.callback(process.wait, 10)
        stack.callback(process.send_signal, signal.SIGTERM)
        line = process.stdout.readline()
        assert line, "the oracle did not start"
        self.origin = json.loads(line)["https"]
        wait_for_port(tls, process)  # it says where before it listens
        self._client = stack.enter_context(Client(self.origin, ca=self.ca))

    def _call(self, method: str, path: str, body: Any = None) -> Any:
        form = {"grant_type": "client_credentials", "client_id": "person", "client_secret": self.secret}
        text = urlencode({**form, "scope": f"{self.origin}/.default"}).encode()
        token = self._client.call("POST", "/t/oauth2/v2.0/token", text, OWN_DATA).json()["access_token"]
        headers = {"Authorization": f"Bearer {token}", "Prefer": "return=representation"}
        answer = self._client.call(method, f"{API}/{path}", body, headers)
        assert answer.status < 300, answer.body
        return answer.json() if answer.body else None

    def person_creates(
        self, variant: Variant, fields: Mapping[str, Any], *, lag: float = 0.0, ago: float = 0.0
    ) -> str:
        assert not lag
        assert not ago
        table = self.table(variant)
        made = self._call("POST", table.remote, {**self.natives(variant, fields), **table.defaults})
        return str(made[table.key])

    def person_updates(self, variant: Variant, rid: str, fields: Mapping[str, Any]) -> None:
        self._call("PATCH", f"{self.table(variant).remote}({rid})", self.natives(variant, fields))

    def person_deletes(self, variant: Variant, rid: str) -> None:
        self._call("DELETE", f"{self.table(variant).remote}({rid})")

    def _oracle(self, path: str) -> None:
        answer = self._client.call("POST", f"/_oracle/{path}")
        assert answer.status < 300, answer.body

    def revoke(self) -> None:
        self._oracle("revoke")

    def calm(self) -> None:
        self._oracle("fail?n=0&status=503")


REMOTES = (Sandbox, Untracked, Oracle)
