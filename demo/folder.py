"""The data folder: everything that a demo keeps between its runs, readable by its owner alone."""

import fcntl
import json
import os
import secrets
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import IO

import trustme
from cryptography import x509

from demo.ports import Ports
from demo.trouble import Trouble

# The public account of every Azurite; not a secret.
_ACCOUNT = "devstoreaccount1"
_ACCOUNT_KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
_RENEW_BEFORE = timedelta(days=30)
# A developer's own settings of a hub must not mix with the demo's: the host lets the environment win over the file.
_HUB_PREFIXES = (
    "AzureWebJobs",
    "AZURE_",
    "KEY_VAULT_",
    "CRM_",
    "DYNAMICS_365_",
    "WEBSITE_",
    "ALLOW_",
    "FUNCTIONS_",
)


class Folder:
    def __init__(self, path: Path) -> None:
        """Make the folder, if need be, and hold it; raises Trouble if another demo does."""
        self.path = path
        try:
            for each in (path, path / "logs", path / "azurite", path / "tls"):
                each.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise Trouble(
                f"The data folder {path} can't be made ({error.strerror}): choose another one by --data."
            ) from None
        self._lock = self._hold()
        self.api_key = self._kept("api-key", lambda: secrets.token_urlsafe(32))
        self.encryption_key = self._kept("encryption-key", lambda: secrets.token_hex(32))
        self.client_secret = self._kept("client-secret", lambda: secrets.token_urlsafe(32))
        self.odoo_key = self._kept("odoo-key", lambda: secrets.token_hex(20))

    def _hold(self) -> IO[str]:
        lock = (self.path / "lock").open("w")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            lock.close()
            raise Trouble(
                f"Another demo uses the data folder {self.path}: stop it, or choose another folder by --data."
            ) from None
        return lock

    def _kept(self, name: str, make: Callable[[], str]) -> str:
        file = self.path / name
        if not file.exists() or not file.read_text("ascii").strip():
            write_private(file, make() + "\n")
        return file.read_text("ascii").strip()

    def close(self) -> None:
        self._lock.close()

    def log(self, name: str) -> Path:
        return self.path / "logs" / f"{name}.log"

    def certificate(self) -> tuple[Path, Path, Path]:
        """(CA, certificate chain, key) for loopback, the same in every run, made anew before they expire.

        The CA's own key is kept nowhere: nobody can issue more by it.
        """
        ca, chain, key = (self.path / "tls" / name for name in ("ca.pem", "chain.pem", "key.pem"))
        if not (key.exists() and _is_good(ca) and _is_good(chain)):
            authority = trustme.CA()
            issued = authority.issue_cert("localhost", "127.0.0.1", "::1")
            write_private(ca, authority.cert_pem.bytes().decode())
            write_private(chain, b"".join(each.bytes() for each in issued.cert_chain_pems).decode())
            write_private(key, issued.private_key_pem.bytes().decode())
        return ca, chain, key

    def settings(self, ports: Ports, ca: Path, more: Mapping[str, str]) -> tuple[Path, dict[str, str]]:
        """(the hub's settings, `more` of them, as a local.settings.json; the environment to start it in)."""
        values = {
            "FUNCTIONS_WORKER_RUNTIME": "python",
            "AzureWebJobsStorage": connection_string(ports),
            "PYTHON_THREADPOOL_THREAD_COUNT": "16",
            "HUB_API_KEY": self.api_key,
            "INTEGRATION_ENCRYPTION_KEY": self.encryption_key,
            "PUBLIC_URL": f"http://127.0.0.1:{ports.hub}",
            "ALLOW_LOOPBACK": "true",
            "CA_BUNDLE": str(ca),
            **more,
        }
        file = self.path / "local.settings.json"
        write_private(file, json.dumps({"IsEncrypted": False, "Values": values}, indent=2) + "\n")
        clean = {
            name: value
            for name, value in environment().items()
            if name not in values and not name.startswith(_HUB_PREFIXES)
        }
        return file, clean


def environment() -> dict[str, str]:
    """What parts inherit: no proxy for loopback, output without delay."""
    exempt = ",".join(
        filter(None, (os.environ.get("NO_PROXY") or os.environ.get("no_proxy"), "127.0.0.1,localhost"))
    )
    return {**os.environ, "NO_PROXY": exempt, "no_proxy": exempt, "PYTHONUNBUFFERED": "1"}


def write_private(file: Path, text: str) -> None:
    """Write a file that only its owner can read."""
    with os.fdopen(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8") as out:
        os.fchmod(out.fileno(), 0o600)  # a file of before may have other rights
        out.write(text)


def _is_good(file: Path) -> bool:
    try:
        certificate = x509.load_pem_x509_certificate(file.read_bytes())
    except (OSError, ValueError):
        return False
    return certificate.not_valid_after_utc - _RENEW_BEFORE > datetime.now(UTC)


def connection_string(ports: Ports) -> str:
    services: Mapping[str, int] = {"Blob": ports.blob, "Queue": ports.queue, "Table": ports.table}
    endpoints = "".join(
        f"{name}Endpoint=http://127.0.0.1:{port}/{_ACCOUNT};" for name, port in services.items()
    )
    return f"DefaultEndpointsProtocol=http;AccountName={_ACCOUNT};AccountKey={_ACCOUNT_KEY};{endpoints}"
