"""Fixtures that several suites share: real parts on loopback, one set per test worker."""

import fcntl
import json
import logging
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

# How long an example takes is the machine's affair.
settings.register_profile("any machine", deadline=None)
settings.load_profile("any machine")

ROOT = Path(__file__).resolve().parent.parent
AZURITE = ROOT / "node_modules" / "azurite" / "dist" / "src" / "azurite.js"
# The public account of every Azurite; not a secret.
ACCOUNT = "devstoreaccount1"
ACCOUNT_KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="


def free_ports(count: int) -> list[int]:
    """Ports that are free now on loopback; held together so that they differ."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for s in sockets:
            s.bind(("127.0.0.1", 0))
        return [s.getsockname()[1] for s in sockets]
    finally:
        for s in sockets:
            s.close()


def wait_for_port(port: int, process: subprocess.Popen[bytes], seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise RuntimeError(f"the server ended with {process.returncode} before it listened on {port}")
        with socket.socket() as s:
            s.settimeout(1)
            if s.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.05)
    raise RuntimeError(f"nothing listens on port {port} after {seconds} s")


@contextmanager
def running_oracle(chain: Path, key: Path, records: int) -> Iterator[dict[str, str]]:
    """The Dataverse oracle on loopback by HTTPS: the settings of a connection to it. Skips where there is none."""
    program = os.environ.get("CRMHUB_DATAVERSE_ORACLE", "")
    if not program:
        pytest.skip("CRMHUB_DATAVERSE_ORACLE does not name the Dataverse oracle")
    port, tls = free_ports(2)
    command = [program, "--port", str(port), "--tls-port", str(tls), "--records", str(records)]
    process = subprocess.Popen([*command, "--cert", str(chain), "--key", str(key)], stdout=subprocess.PIPE)
    assert process.stdout is not None
    try:
        line = process.stdout.readline()
        assert line, "the oracle did not start"
        base = json.loads(line)["https"]
        wait_for_port(tls, process)  # it tells its address before it listens
        yield {"base_url": base, "authority": base, "tenant_id": "tenant-1", "client_id": "client-1"}
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(10)
        process.stdout.close()


REAL_ODOO = (
    "/var/tmp/crmhub-odoo-"  # of its data; its server runs as a user of its own, who must be able to enter
)


def real_odoo_command(*arguments: str) -> dict[str, str]:
    """Call the program that runs a real Odoo: what it prints of the server. Skips where this machine cannot have one."""
    program = os.environ.get("CRMHUB_REAL_ODOO", "")
    if not program:
        pytest.skip("CRMHUB_REAL_ODOO does not name the real Odoo")
    done = subprocess.run([program, *arguments], capture_output=True, text=True, check=False)
    if done.returncode == 75:
        pytest.skip(done.stderr.strip().splitlines()[-1])
    assert done.returncode == 0, done.stderr
    return dict(line.split("=", 1) for line in done.stdout.splitlines() if "=" in line)


@contextmanager
def running_odoo() -> Iterator[dict[str, str]]:
    """A real Odoo 19 with a pristine database: ODOO_URL, ODOO_DB, ODOO_USER, ODOO_PASSWORD, ODOO_API_KEY.

    What is set up stays for the next run. Each that is used at the same time has a folder of its own: it holds the lock of
    the first one that nobody else holds.
    """
    if not os.environ.get("CRMHUB_REAL_ODOO"):
        pytest.skip("CRMHUB_REAL_ODOO does not name the real Odoo")
    for number in range(100):
        lock = Path(f"{REAL_ODOO}{number}.lock").open("w")  # noqa: SIM115 - held until the end
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            break
        except BlockingIOError:
            lock.close()
    else:
        pytest.fail("a hundred real servers are in use")
    folder = ("--dir", f"{REAL_ODOO}{number}")
    with lock:
        real_odoo_command("start", *folder, "--port", str(free_pair()))
        yield real_odoo_command("reset", *folder)
        real_odoo_command("stop", *folder)


@pytest.fixture(scope="session")
def real_odoo() -> Iterator[dict[str, str]]:
    """A real Odoo that the tests of a process share, each with records of its own."""
    with running_odoo() as facts:
        yield facts


@pytest.fixture
def own_odoo() -> Iterator[dict[str, str]]:
    """A real Odoo that nobody else has written into."""
    with running_odoo() as facts:
        yield facts


def free_pair() -> int:
    """A port that is free now with the next one."""
    for _ in range(100):
        (port,) = free_ports(1)
        with socket.socket() as s:
            try:
                s.bind(("127.0.0.1", port + 1))
            except OSError:
                continue
        return port
    raise RuntimeError("no two ports side by side are free")


ORACLE_SECRET = "oracle-secret"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What wants the machine for itself comes last, when the other test workers have little left to do."""
    items.sort(key=lambda item: item.get_closest_marker("soak") is not None)


@pytest.fixture
def lines(caplog: pytest.LogCaptureFixture) -> Callable[..., list[dict[str, Any]]]:
    """The hub's log lines so far, at every level: of one event, or all."""
    caplog.set_level(logging.DEBUG)

    def found(event: str = "") -> list[dict[str, Any]]:
        own = [each.getMessage() for each in caplog.records if each.name.startswith("crm_core.")]
        read = [json.loads(each) for each in own]
        return [each for each in read if event in ("", each["event"])]

    return found


@pytest.fixture
def loud(caplog: pytest.LogCaptureFixture) -> Callable[[], None]:
    """Lets the libraries log everything whose calls hold no secret, though the hub has made them quiet."""

    def everything() -> None:
        for name in ("", "msal", "azure.core", "azure.identity", "azure.keyvault", "azure.storage"):
            caplog.set_level(logging.DEBUG, logger=name or None)

    return everything


@pytest.fixture(scope="session")
def azurite() -> Iterator[str]:
    """An Azurite in memory; gives its connection string."""
    with running_azurite(ACCOUNT, ACCOUNT_KEY) as connection_string:
        yield connection_string


@contextmanager
def running_azurite(
    account: str,
    key: str,
    environment: Mapping[str, str] | None = None,
    *,
    ports: Sequence[int] = (),
    folder: Path | None = None,
) -> Iterator[str]:
    """An Azurite in memory, or with its data in a folder; `environment` can give it an account of another name and key.

    `ports`: of blobs, queues and tables; free ones if there are none.
    """
    node = shutil.which("node")
    assert node, "the tests need Node.js for Azurite"
    assert AZURITE.exists(), "run `make install` first: the tests need Azurite"
    blob, queue, table = ports or free_ports(3)
    process = subprocess.Popen(
        [
            node,
            str(AZURITE),
            "--silent",
            *(["--location", str(folder)] if folder else ["--inMemoryPersistence"]),
            "--disableTelemetry",
            "--skipApiVersionCheck",
            "--blobPort",
            str(blob),
            "--queuePort",
            str(queue),
            "--tablePort",
            str(table),
        ],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "NODE_OPTIONS": "--no-warnings", **(environment or {})},
    )
    try:
        for port in (blob, queue, table):
            wait_for_port(port, process)
        yield (
            f"DefaultEndpointsProtocol=http;AccountName={account};AccountKey={key};"
            f"BlobEndpoint=http://127.0.0.1:{blob}/{account};QueueEndpoint=http://127.0.0.1:{queue}/{account};"
            f"TableEndpoint=http://127.0.0.1:{table}/{account};"
        )
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(10)
