"""The whole hub without one secret in its settings but the API key: storage, vault and Dataverse by identity or certificate."""

import json
import os
import shutil
import signal
import subprocess
from contextlib import ExitStack, closing
from datetime import UTC, datetime, timedelta
from urllib.parse import urlencode

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import NameOID

from crm_core.connection_admin import Wanted
from crm_core.connector import Query
from crm_core.errors import AuthFailed, Misconfigured
from crm_core.hub import Hub
from crm_core.model.connection import DEFAULT_TENANT
from crm_core.model.record import Record
from crm_core.ports import measured
from crm_core.settings import load
from crm_core.storage import layout
from crm_core.storage.key_vault import DATA_KEY
from crm_core.system import SystemClock
from sandbox.dynamics365 import Dataverse
from sandbox.dynamics365.org import Identity
from sandbox.testing import Client, running
from tests.conftest import ACCOUNT, AZURITE, free_ports, wait_for_port
from tests.contract.fake_azure import HEADER, IDENTITY, fake_azure

PASSPHRASE = "planted-passphrase-0123"
SECRET = "planted~sandbox-secret&0123"
API_KEY = "planted-api-key-0123456789abcdef"


def credential():
    """(private key, encrypted; certificate), both PEM."""
    key = rsa.generate_private_key(65537, 2048)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "crm hub")])
    now = datetime.now(UTC)
    made = x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number(), now - timedelta(1),
                                   now + timedelta(1)).sign(key, hashes.SHA256())  # fmt: skip
    locked = serialization.BestAvailableEncryption(PASSPHRASE.encode())
    pem = serialization.Encoding.PEM
    return (
        key.private_bytes(pem, serialization.PrivateFormat.PKCS8, locked).decode(),
        made.public_bytes(pem).decode(),
    )


PRIVATE, CERTIFICATE = credential()


class Clock(SystemClock):
    """The real clock, plus what a test skips."""

    ahead = 0.0

    def now(self):
        return super().now() + timedelta(seconds=self.ahead)

    def monotonic(self):
        return super().monotonic() + self.ahead

    def sleep(self, seconds):
        self.ahead += seconds


def watch(queue):
    """What is sent to Azure's queue from now on, for the test to work off."""
    sent, send = [], queue.send

    def both(name, body, delay=0.0):
        send(name, body, delay)
        sent.append((name, body))

    queue.send = both
    return sent


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("identity")


@pytest.fixture(scope="module")
def server(folder):
    with fake_azure(folder) as fake:
        yield fake


@pytest.fixture(scope="module")
def sandbox(folder):
    system = Dataverse(Identity(certificate=CERTIFICATE, client_secret=SECRET))
    with running(system, tls_ca=folder / "sandbox-ca.pem") as sandbox:
        yield sandbox


@pytest.fixture(scope="module")
def storage(folder, server):
    """An Azurite that takes tokens only; its settings as the platform gives them."""
    ports = free_ports(3)
    command = [shutil.which("node"), str(AZURITE), "--silent", "--inMemoryPersistence", "--disableTelemetry"]
    command += ["--skipApiVersionCheck", "--oauth", "basic"]
    command += ["--cert", str(folder / "leaf.pem"), "--key", str(folder / "leaf.key")]
    settings = {
        "AzureWebJobsStorage__credential": "managedidentity",
        "AzureWebJobsStorage__clientId": IDENTITY,
    }
    for service, port in zip(("blob", "queue", "table"), ports, strict=True):
        command += [f"--{service}Port", str(port)]
        settings[f"AzureWebJobsStorage__{service}ServiceUri"] = f"https://127.0.0.1:{port}/{ACCOUNT}"
    env = {**os.environ, "NODE_OPTIONS": "--no-warnings"}
    azurite = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=env)
    try:
        for port in ports:
            wait_for_port(port, azurite)
        yield settings
    finally:
        azurite.send_signal(signal.SIGTERM)
        azurite.wait(10)


@pytest.fixture
def azure(server, monkeypatch):
    server.reset()
    monkeypatch.setenv("IDENTITY_ENDPOINT", server.identity_url)
    monkeypatch.setenv("IDENTITY_HEADER", HEADER)
    return server


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def instance(azure, sandbox, storage, folder, clock):
    """Makes instances of the hub: all its settings, nothing else."""
    bundle = folder / "both.pem"
    bundle.write_bytes(azure.ca.read_bytes() + sandbox.ca.read_bytes())
    environment = {
        **storage,
        "HUB_API_KEY": API_KEY,
        "KEY_VAULT_URL": azure.url,
        "ALLOW_LOOPBACK": "true",
        "CA_BUNDLE": str(bundle),
    }
    with Client(sandbox.url) as client:
        assert client.call("POST", "/_sandbox/reset").status == 204
        for number in range(3):
            answer = client.call("POST", "/_sandbox/rows/account", {"values": {"name": f"Account {number}"}})
            assert answer.status == 200
    with ExitStack() as stack:

        def make():
            return stack.enter_context(closing(Hub(load(environment), clock=clock)))

        yield make


def place(sandbox, **more):
    facts = sandbox.describe()
    client = {"authority": sandbox.https, "tenant_id": facts["tenant"], "client_id": facts["client_id"]}
    return {"base_url": sandbox.https, **client, **more}


@pytest.fixture
def connected(azure, instance, sandbox):
    """A hub with a connection by certificate, gone afterwards."""
    hub = instance()
    secrets = {"client_certificate": PRIVATE + CERTIFICATE, "client_certificate_passphrase": PASSPHRASE}
    hub.admin.create(
        DEFAULT_TENANT, "demo", "dynamics365", Wanted(place(sandbox, auth="certificate"), secrets)
    )
    yield hub
    azure.refuse = None
    for connection in list(hub.connections.every(DEFAULT_TENANT)):
        hub.admin.delete(connection)


def names(hub, slug="demo"):
    page = hub.connect(DEFAULT_TENANT, slug).connector.query("account", Query())
    return sorted(item.fields["name"] for item in page.items)


def token_calls(sandbox):
    with Client(sandbox.url) as client:
        logged = client.call("GET", "/_sandbox/requests").json()
    return sum(each["path"].endswith("/oauth2/v2.0/token") for each in logged)


THREE = ["Account 0", "Account 1", "Account 2"]


def test_making_a_hub_calls_nobody(azure, instance):
    instance()
    assert azure.asked == []


def test_a_pull_by_certificate_with_everything_else_by_identity(
    azure, connected, instance, sandbox, caplog, loud
):
    loud()
    sent = watch(connected.queue)
    with measured() as meter:
        run = connected.start_run(DEFAULT_TENANT, "demo", ["account"], "incremental", "key:test")
        while sent:
            connected.handle(*sent.pop(0), 1)
    assert connected.runs.get(DEFAULT_TENANT, run.id).status == "succeeded"
    stored = [
        each.content.fields["name"]
        for bucket in layout.BUCKETS
        for each in connected.records.scan(DEFAULT_TENANT, "account", bucket)
        if isinstance(each.content, Record)
    ]
    assert sorted(stored) == THREE
    assert meter.total("vault_calls") <= 6
    connected.engine.blob.put("x", b"by identity")
    assert connected.engine.blob.get("x") == b"by identity"

    # Another instance, the same token: it can read what the first has encrypted under the vault's data key.
    assert token_calls(sandbox) == 1
    assert names(instance()) == THREE
    assert token_calls(sandbox) == 1
    assert azure.count("GET /msi/token https://storage.azure.com") >= 3

    # The bundle and the data key are in the vault, and nothing secret is anywhere else.
    ((name, (bundle,)),) = [each for each in azure.vault.items() if each[0] != DATA_KEY]
    assert set(json.loads(bundle["value"])) == {"client_certificate", "client_certificate_passphrase"}
    (key,) = azure.vault[DATA_KEY]
    rows = [row for table in layout.TABLES for row in connected.table.query(table).rows]
    assert any(row.rk.startswith("token~") for row in rows)
    assert not any(row.rk.startswith("bundle~") for row in rows)
    said = "\n".join(
        [caplog.text, repr(rows), repr(connected.settings), repr(connected.connect(DEFAULT_TENANT, "demo"))]
    )
    hidden = [PASSPHRASE, HEADER, API_KEY, SECRET, key["value"], *azure.issued]
    hidden += [line for line in PRIVATE.splitlines() if len(line) > 60]
    assert [each for each in hidden if each in said] == []
    assert '"method":"GET","host":"127.0.0.1' in said  # it would have been seen
    assert name in said


def test_what_a_person_changes_in_the_vault_is_used_within_two_minutes(azure, connected, clock):
    assert names(connected) == THREE
    (name,) = azure.vault.keys() - {DATA_KEY}
    (good,) = azure.vault[name]
    other_private, other_certificate = credential()
    changed = {
        "client_certificate": other_private + other_certificate,
        "client_certificate_passphrase": PASSPHRASE,
    }
    azure.vault[name].append({**good, "version": "f" * 32, "value": json.dumps(changed)})
    clock.ahead += 121
    with pytest.raises(AuthFailed, match="700027"):
        names(connected)
    azure.vault[name].pop()
    clock.ahead += 121
    assert names(connected) == THREE


def test_what_works_goes_on_while_the_vault_is_away(azure, connected, clock):
    assert names(connected) == THREE
    azure.refuse = (503, {}, {"Retry-After": "0"})
    clock.ahead += 121
    assert names(connected) == THREE


def test_a_diagnosis_asks_the_vault_itself(azure, connected):
    """Copies of bundle and data key would do for minutes."""
    made = connected.connect(DEFAULT_TENANT, "demo").connection
    assert names(connected) == THREE
    told = {each.check: each for each in connected.diagnosis.of(made)}
    assert {each.status for each in told.values()} == {"ok"}
    assert told["secrets"].found == {"names": ["client_certificate", "client_certificate_passphrase"]}
    azure.refuse = azure.error(403, "Forbidden", "ForbiddenByRbac")
    told = {each.check: each for each in connected.diagnosis.of(made)}
    assert (told["secrets"].status, told["token"].status) == ("failed", "skipped")
    assert "Key Vault Secrets Officer" in told["secrets"].message
    azure.refuse = None
    (name,) = azure.vault.keys() - {DATA_KEY}
    damaged = json.dumps({"client_certificate": "not PEM"})
    azure.vault[name].append({**azure.vault[name][0], "version": "e" * 32, "value": damaged})
    told = {each.check: each for each in connected.diagnosis.of(made)}
    assert (told["settings"].status, told["secrets"].status) == ("ok", "failed")
    assert told["secrets"].message == (
        "secrets.client_certificate: expected PEM text with one private key and its certificate."
    )


def test_a_vault_that_refuses_the_hub_leaves_no_half_connection(azure, connected, sandbox):
    made = connected.connect(DEFAULT_TENANT, "demo").connection
    azure.refuse = azure.error(403, "Forbidden", "ForbiddenByRbac")
    wanted = Wanted(place(sandbox), {"client_secret": SECRET})
    with pytest.raises(Misconfigured, match="Key Vault Secrets Officer"):
        connected.admin.create(DEFAULT_TENANT, "second", "dynamics365", wanted)
    with pytest.raises(Misconfigured, match="Key Vault Secrets Officer"):
        connected.admin.delete(made)
    azure.refuse = None
    assert [each.slug for each in connected.connections.every(DEFAULT_TENANT)] == ["demo"]
    connected.admin.create(DEFAULT_TENANT, "second", "dynamics365", wanted)
    assert names(connected, "second") == THREE


def test_dataverse_by_managed_identity(azure, connected, sandbox):
    facts = sandbox.describe()

    def issue():
        """Entra's part: the sandbox knows the tokens that it gave out itself."""
        form = {"grant_type": "client_credentials", "client_id": facts["client_id"], "client_secret": SECRET,
                "scope": f"{sandbox.https}/.default"}  # fmt: skip
        path = f"/{facts['tenant']}/oauth2/v2.0/token"
        with Client(sandbox.https, ca=sandbox.ca) as client:
            return client.call("POST", path, urlencode(form).encode()).json()["access_token"]

    azure.elsewhere[sandbox.https] = issue
    for slug, client_id in (("own", ""), ("user", IDENTITY)):
        settings = {"base_url": sandbox.https, "auth": "managed_identity", "identity_client_id": client_id}
        connected.admin.create(DEFAULT_TENANT, slug, "dynamics365", Wanted(settings))
        assert names(connected, slug) == THREE
    assert azure.count(f"GET /msi/token {sandbox.https}") == 2
    facts = connected.connect(DEFAULT_TENANT, "own").connector.token(fresh=True)
    assert facts.audience == sandbox.https
    assert azure.count(f"GET /msi/token {sandbox.https}") == 3
