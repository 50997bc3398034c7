"""Managed identity from end to end: a token from the platform's endpoint, Azurite over TLS that asks for one."""

import base64
import json
import os
import shutil
import signal
import socket
import subprocess
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest

from crm_core.errors import StoreUnavailable
from crm_core.ports import Operation, Row
from crm_core.storage.azure import AzureBlob, AzureQueue, AzureTable, StorageAccount
from crm_core.storage.clients import managed_identity

ROOT = Path(__file__).resolve().parents[2]
AZURITE = ROOT / "node_modules" / "azurite" / "dist" / "src" / "azurite.js"
CLIENT_ID = "6f7c2f0e-0000-4000-8000-000000000001"


def token() -> str:
    """An unsigned token such as Azurite accepts: it looks at issuer, audience and times only."""
    now = int(time.time())
    claims = {
        "aud": "https://storage.azure.com",
        "iss": "https://sts.windows.net/6f7c2f0e-0000-4000-8000-000000000002/",
        "nbf": now - 60,
        "iat": now - 60,
        "exp": now + 3600,
    }
    parts = (json.dumps(part).encode() for part in ({"alg": "RS256", "typ": "JWT"}, claims, "signature"))
    return ".".join(base64.urlsafe_b64encode(part).decode().rstrip("=") for part in parts)


@pytest.fixture
def identity(monkeypatch):
    """The identity endpoint of App Service; gives the queries that it got."""
    asked: list[dict[str, list[str]]] = []

    class Endpoint(BaseHTTPRequestHandler):
        def do_GET(self) -> None:  # the name that http.server wants
            asked.append(parse_qs(urlsplit(self.path).query))
            expires = str(int(time.time()) + 3600)
            body = json.dumps(
                {"access_token": token(), "expires_on": expires, "token_type": "Bearer"}
            ).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Endpoint) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        monkeypatch.setenv("IDENTITY_ENDPOINT", f"http://127.0.0.1:{server.server_port}/msi/token")
        monkeypatch.setenv("IDENTITY_HEADER", "header")
        yield asked
        server.shutdown()
        thread.join()


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    """A certificate of its own authority, and its key."""
    folder = tmp_path_factory.mktemp("tls")
    cert, key = folder / "cert.pem", folder / "key.pem"
    openssl = shutil.which("openssl")
    if not openssl:
        pytest.skip("needs openssl")
    names = "subjectAltName=DNS:localhost,IP:127.0.0.1"
    command = [openssl, "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    command += [
        "-days",
        "2",
        "-subj",
        "/CN=localhost",
        "-addext",
        names,
        "-keyout",
        str(key),
        "-out",
        str(cert),
    ]
    subprocess.run(command, check=True, capture_output=True)
    return cert, key


@pytest.fixture(scope="module")
def uris(certificate):
    """An Azurite that wants tokens; the URIs of its table, queue and blob services."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(3)]
    ports = [s.getsockname()[1] for s in sockets]
    for s in sockets:
        s.close()
    command = [shutil.which("node"), str(AZURITE), "--silent", "--inMemoryPersistence", "--disableTelemetry"]
    command += [
        "--skipApiVersionCheck",
        "--oauth",
        "basic",
        "--cert",
        certificate[0],
        "--key",
        certificate[1],
    ]
    for service, port in zip(("table", "queue", "blob"), ports, strict=True):
        command += [f"--{service}Port", str(port)]
    env = {**os.environ, "NODE_OPTIONS": "--no-warnings"}
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=env)
    try:
        deadline = time.monotonic() + 30
        for port in ports:
            while True:
                with socket.socket() as s:
                    if s.connect_ex(("127.0.0.1", port)) == 0:
                        break
                assert process.poll() is None
                assert time.monotonic() < deadline
                time.sleep(0.05)
        yield [f"https://127.0.0.1:{port}/devstoreaccount1" for port in ports]
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(10)


def test_all_ports_with_a_managed_identity(identity, certificate, uris):
    account = StorageAccount("", *uris, credential=managed_identity(CLIENT_ID), ca_bundle=str(certificate[0]))
    table, queue, blob = AzureTable(account), AzureQueue(account), AzureBlob(account, "container")
    etags = table.transact("Table1", [Operation("insert", Row("p", str(n), {"n": n})) for n in range(3)])
    assert [row.etag for row in table.query("Table1", pk="p").rows] == etags
    queue.send("queue1", "x")
    blob.put("x", b"1")
    assert blob.get("x") == b"1"
    for port in (table, queue, blob):
        port.close()
    assert {each for query in identity for each in query["resource"]} == {"https://storage.azure.com"}
    assert {each for query in identity for each in query["client_id"]} == {CLIENT_ID}
    assert len(identity) == 3  # a token is kept


def test_a_certificate_that_is_not_trusted(identity, uris):
    table = AzureTable(StorageAccount("", *uris, credential=managed_identity()))
    with pytest.raises(StoreUnavailable, match="get from table Table1"):
        table.get("Table1", "p", "r")
    table.close()
