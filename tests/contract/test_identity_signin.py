"""How a connection to Dataverse signs in: msal itself against Entra and the platform's identity endpoint, our own fakes."""

import re
from contextlib import closing
from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import NameOID

from crm_core.connection_admin import Wanted
from crm_core.connector import Account, Tools
from crm_core.connectors.dynamics365 import Dynamics365
from crm_core.errors import AuthFailed, BadAnswer, BadRequest, Misconfigured, Unavailable
from crm_core.hub import Hub
from crm_core.model.connection import DEFAULT_TENANT
from crm_core.protocols.entra import Certificate, ClientCredentials, ManagedIdentity
from crm_core.protocols.guard import Guard, Origins
from crm_core.protocols.http import Http
from crm_core.settings import load
from crm_core.storage.memory import MemoryBlob, MemoryQueue, MemoryTable
from crm_core.storage.secrets import Cipher, StoredTokens
from crm_core.system import SystemClock, SystemIds
from tests.contract.fake_azure import HEADER, IDENTITY, fake_azure

RESOURCE = "https://org.crm.dynamics.com"
SECRET = "planted~client-secret&0123"
PASSPHRASE = "planted-passphrase-0123"
KEY = "0123456789abcdef0123456789abcdef"


def certified(key):
    """A certificate for a key, as PEM."""
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "crm hub")])
    now = datetime.now(UTC)
    made = x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number(), now - timedelta(1),
                                   now + timedelta(1)).sign(key, hashes.SHA256())  # fmt: skip
    return made.public_bytes(serialization.Encoding.PEM).decode()


def private(key, passphrase="", form=serialization.PrivateFormat.PKCS8):
    locked = (
        serialization.BestAvailableEncryption(passphrase.encode())
        if passphrase
        else serialization.NoEncryption()
    )
    return key.private_bytes(serialization.Encoding.PEM, form, locked).decode()


RSA, OTHER, CURVE = (
    rsa.generate_private_key(65537, 2048),
    rsa.generate_private_key(65537, 2048),
    ec.generate_private_key(ec.SECP256R1()),
)
CERTIFICATE, OTHER_CERTIFICATE = certified(RSA), certified(OTHER)
TRADITIONAL = serialization.PrivateFormat.TraditionalOpenSSL


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with fake_azure(tmp_path_factory.mktemp("azure")) as fake:
        yield fake


@pytest.fixture
def azure(server, monkeypatch):
    server.reset()
    monkeypatch.setenv("IDENTITY_ENDPOINT", server.identity_url)
    monkeypatch.setenv("IDENTITY_HEADER", HEADER)
    return server


@pytest.fixture
def tools(azure):
    clock = SystemClock()
    # Loopback is allowed for the fake of Entra; the identity endpoint would need no leave.
    with closing(
        Http(Guard(allow_loopback=True, allow_private=False), clock, ca_bundle=str(azure.ca))
    ) as http:
        yield Tools(
            http, StoredTokens(MemoryTable(), Cipher(b"k" * 32)), clock, SystemIds(), allow_loopback=True
        )


def application(azure, tools, uid="uid-1", tenant="tenant-1", client="client-1", **proof):
    secrets = {"client_secret": proof["client_secret"]} if "client_secret" in proof else {}
    return ClientCredentials(
        Account("default", uid, {}, secrets),
        tools,
        authority=azure.url,
        tenant_id=tenant,
        client_id=client,
        scope=f"{RESOURCE}/.default",
        origins=Origins((), allow_loopback=True),
        system="acme",
        **proof,
    )


def identity(tools, uid="uid-1", client_id=""):
    return ManagedIdentity(
        Account("default", uid, {}, {}), tools, resource=RESOURCE, client_id=client_id, system="acme"
    )


def text_of(headers):
    return headers["Authorization"].removeprefix("Bearer ")


# --- certificates ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("pem", "passphrase"),
    [
        (private(RSA) + CERTIFICATE, ""),
        (CERTIFICATE + private(RSA, form=TRADITIONAL), ""),
        (private(RSA) + OTHER_CERTIFICATE + CERTIFICATE, ""),
        (private(RSA, PASSPHRASE) + CERTIFICATE, PASSPHRASE),
        (private(RSA, PASSPHRASE, TRADITIONAL) + CERTIFICATE, PASSPHRASE),
        (private(RSA) + CERTIFICATE, "not-needed"),
        ((private(RSA) + CERTIFICATE).replace("\n", "\r\n"), ""),
    ],
)
def test_a_certificate_signs_in(azure, tools, pem, passphrase):
    azure.clients["tenant-1", "client-1"] = CERTIFICATE
    certificate = Certificate.parse(pem, passphrase, "cert")
    auth = application(azure, tools, certificate=certificate)
    assert azure.issued[text_of(auth.headers())] == RESOURCE
    assert azure.count("POST /tenant-1/oauth2/v2.0/token") == 1


def test_a_certificate_that_entra_does_not_know(azure, tools):
    azure.clients["tenant-1", "client-1"] = OTHER_CERTIFICATE
    certificate = Certificate.parse(private(RSA) + CERTIFICATE, "", "cert")
    with pytest.raises(AuthFailed, match=r"AADSTS700027.*upload its public part"):
        application(azure, tools, certificate=certificate).headers()


@pytest.mark.parametrize(
    ("pem", "passphrase", "field", "says"),
    [
        ("", "", "cert", "one private key and its certificate"),
        ("nonsense", "", "cert", "one private key and its certificate"),
        (CERTIFICATE, "", "cert", "one private key and its certificate"),
        (private(RSA), "", "cert", "one private key and its certificate"),
        (private(RSA) + private(OTHER) + CERTIFICATE, "", "cert", "one private key"),
        (private(RSA) + OTHER_CERTIFICATE, "", "cert", "another private key"),
        (private(CURVE) + certified(CURVE), "", "cert", "no RSA key"),
        (private(RSA, PASSPHRASE) + CERTIFICATE, "", "cert_passphrase", "is missing"),
        (private(RSA, PASSPHRASE) + CERTIFICATE, "planted-wrong", "cert", "check the passphrase too"),
        (re.sub("(?<=KEY-----\n).{64}", "A" * 64, private(RSA)) + CERTIFICATE, "", "cert", "can't be read"),
        (private(RSA) + CERTIFICATE.replace("MII", "AAA", 1), "", "cert", "can't be read"),
    ],
)  # fmt: skip
def test_a_wrong_certificate_is_named_and_not_shown(pem, passphrase, field, says):
    with pytest.raises(Misconfigured, match=says) as caught:
        Certificate.parse(pem, passphrase, "cert")
    assert [error.field for error in caught.value.errors] == [field]
    assert caught.value.__suppress_context__ or caught.value.__context__ is None
    shown = repr(vars(caught.value))
    assert "planted" not in shown
    assert not any(line in shown for line in pem.splitlines() if len(line) > 40)


# --- managed identity ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("client_id", ["", IDENTITY])
def test_a_managed_identity_signs_in(azure, tools, client_id):
    auth = identity(tools, client_id=client_id)
    assert azure.issued[text_of(auth.headers())] == RESOURCE  # without /.default
    assert auth.headers() == auth.headers()
    assert azure.asked == [f"GET /msi/token {RESOURCE}"]


def test_a_refused_token_of_an_identity_is_replaced(azure, tools):
    auth = identity(tools)
    first = auth.headers()
    assert auth.headers(force=True, rejected=first) != first
    assert azure.count("/msi/token") == 2


def test_an_identity_without_leave_for_loopback(azure):
    """The platform's own endpoint is no address that a connection could name: the guard has no say."""
    clock = SystemClock()
    with closing(Http(Guard(allow_loopback=False, allow_private=False), clock)) as http:
        tools = Tools(http, StoredTokens(MemoryTable(), Cipher(b"k" * 32)), clock, SystemIds())
        assert text_of(identity(tools).headers()) in azure.issued


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        ((400, {"statusCode": 400, "message": "No identity planted"}, {}), AuthFailed),
        ((401, {"statusCode": 401, "message": "planted"}, {}), AuthFailed),
        ((500, {"statusCode": 500, "message": "planted"}, {}), Unavailable),
        ((429, b"planted", {}), Unavailable),
        ((200, b"planted", {}), BadAnswer),
        ((200, {"access_token": "planted"}, {}), AuthFailed),
        ((200, {"access_token": "planted", "expires_on": "soon"}, {}), AuthFailed),
        ((200, {"access_token": "pla nted", "expires_on": "9000000000"}, {}), BadAnswer),
        ((302, {}, {"Location": "http://169.254.169.254/"}), AuthFailed),
    ],
)
def test_answers_of_the_identity_endpoint(azure, tools, answer, kind, caplog, loud):
    loud()
    azure.identity_answers = [answer]
    auth = identity(tools)
    with pytest.raises(kind) as caught:
        auth.headers()
    assert "planted" not in f"{caught.value.message} {caplog.text}"
    assert text_of(auth.headers()) in azure.issued


def test_no_identity_endpoint(azure, tools, monkeypatch):
    monkeypatch.setenv("IDENTITY_ENDPOINT", "http://127.0.0.1:1/msi/token")
    with pytest.raises(Unavailable, match="does not answer") as caught:
        identity(tools).headers()
    assert caught.value.__context__ is None


# --- side by side ----------------------------------------------------------------------------------------------------


def test_connections_of_several_tenants_share_no_token(azure, tools):
    azure.clients = {
        ("tenant-1", "client-1"): SECRET,
        ("tenant-2", "client-1"): "other",
        ("tenant-2", "client-2"): CERTIFICATE,
    }
    certificate = Certificate.parse(private(RSA) + CERTIFICATE, "", "cert")

    def every():
        return [
            application(azure, tools, "uid-1", "tenant-1", client_secret=SECRET),
            application(azure, tools, "uid-2", "tenant-2", client_secret="other"),
            application(azure, tools, "uid-3", "tenant-2", "client-2", certificate=certificate),
            identity(tools, "uid-4"),
            identity(tools, "uid-5", IDENTITY),
        ]

    first, again = ([text_of(auth.headers()) for auth in every()] for _ in range(2))
    assert len(set(first)) == 5
    assert again == first  # each from the store
    assert azure.count("POST /tenant-1/oauth2/") == 1
    assert azure.count("POST /tenant-2/oauth2/") == 2
    assert azure.count("/msi/token") == 2


def test_a_connection_that_signs_in_otherwise_gets_another_token(azure, tools):
    """One connection, one place in the store: what was kept for other credentials is not taken."""
    azure.clients = {
        ("tenant-1", "client-1"): SECRET,
        ("tenant-2", "client-1"): SECRET,
        ("tenant-1", "client-2"): CERTIFICATE,
    }
    certificate = Certificate.parse(private(RSA) + CERTIFICATE, "", "cert")
    ways = [
        application(azure, tools, client_secret=SECRET),
        application(azure, tools, tenant="tenant-2", client_secret=SECRET),
        application(azure, tools, client="client-2", certificate=certificate),
        identity(tools),
        identity(tools, client_id=IDENTITY),
    ]
    assert len({text_of(auth.headers()) for auth in ways}) == 5


def test_nothing_secret_is_logged_or_shown(azure, tools, caplog, loud):
    loud()
    azure.clients = {("tenant-1", "client-1"): SECRET, ("tenant-1", "client-2"): CERTIFICATE}
    pem = private(RSA, PASSPHRASE)
    certificate = Certificate.parse(pem + CERTIFICATE, PASSPHRASE, "cert")
    ways = [
        application(azure, tools, "uid-1", client_secret=SECRET),
        application(azure, tools, "uid-2", client="client-2", certificate=certificate),
        identity(tools, "uid-3"),
    ]
    for auth in ways:
        auth.headers()
    azure.clients = {("tenant-1", "client-1"): "changed", ("tenant-1", "client-2"): OTHER_CERTIFICATE}
    azure.identity_answers = [(400, {"statusCode": 400, "message": HEADER}, {})]
    shown = [caplog.text, repr(certificate), *(f"{auth!r} {auth._held!r}" for auth in ways)]
    for auth in ways:
        with pytest.raises(AuthFailed) as caught:
            auth.headers(force=True)
        shown += [str(caught.value), repr(vars(caught.value))]
    everything = "\n".join([*shown, caplog.text])
    hidden = [
        SECRET,
        PASSPHRASE,
        HEADER,
        *azure.issued,
        *(line for line in pem.splitlines() if len(line) > 60),
    ]
    assert [each for each in hidden if each in everything] == []
    assert "tenant-1" in everything


# --- the connection --------------------------------------------------------------------------------------------------


@pytest.fixture
def hub(azure):
    environment = {
        "AzureWebJobsStorage": "UseDevelopmentStorage=true",
        "HUB_API_KEY": KEY,
        "INTEGRATION_ENCRYPTION_KEY": KEY,
        "ALLOW_LOOPBACK": "true",
        "CA_BUNDLE": str(azure.ca),
    }
    queue = MemoryQueue(SystemClock())
    with closing(Hub(load(environment), table=MemoryTable(), queue=queue, blob=MemoryBlob())) as hub:
        yield hub


PLACE = {"base_url": RESOURCE}
CLIENT = {"tenant_id": "tenant-1", "client_id": "client-1"}
PEM = private(RSA) + CERTIFICATE
LOCKED = private(RSA, PASSPHRASE) + CERTIFICATE


@pytest.mark.parametrize(
    ("settings", "secrets"),
    [
        (CLIENT, {"client_secret": SECRET}),
        ({**CLIENT, "auth": "secret"}, {"client_secret": SECRET}),
        ({**CLIENT, "auth": "certificate"}, {"client_certificate": PEM}),
        (
            {**CLIENT, "auth": "certificate"},
            {"client_certificate": LOCKED, "client_certificate_passphrase": PASSPHRASE},
        ),
        ({"auth": "managed_identity"}, {}),
        ({"auth": "managed_identity", "identity_client_id": IDENTITY}, {}),
    ],
)
def test_each_way_needs_only_its_own(hub, settings, secrets):
    made = hub.admin.create(DEFAULT_TENANT, "demo", "dynamics365", Wanted({**PLACE, **settings}, secrets))
    assert isinstance(hub.connect(DEFAULT_TENANT, "demo").connector, Dynamics365)
    assert SECRET not in repr(made)


@pytest.mark.parametrize(
    ("settings", "secrets", "fields"),
    [
        ({}, {}, {"settings.tenant_id", "settings.client_id", "secrets.client_secret"}),
        ({**CLIENT, "auth": "secret"}, {"client_certificate": PEM}, {"secrets.client_secret"}),
        ({"auth": "certificate"}, {"client_secret": SECRET},
         {"settings.tenant_id", "settings.client_id", "secrets.client_certificate"}),
        ({**CLIENT, "auth": "certificate"}, {"client_certificate": "planted nonsense"}, {"secrets.client_certificate"}),
        ({**CLIENT, "auth": "certificate"}, {"client_certificate": LOCKED}, {"secrets.client_certificate_passphrase"}),
        ({**CLIENT, "auth": "password"}, {"client_secret": SECRET}, {"settings.auth"}),
        ({**CLIENT, "client_id": "@Microsoft.KeyVault(SecretUri=https://planted)"}, {"client_secret": SECRET},
         {"settings.client_id"}),
        (CLIENT, {"client_secret": " @microsoft.keyvault(SecretUri=https://planted)"}, {"secrets.client_secret"}),
        (CLIENT, {"client_secret": "x" * 16_001}, {"secrets.client_secret"}),
        ({**CLIENT, "auth": "certificate"}, {"client_certificate": PEM + "planted " * 1500, "client_secret": "x" * 16_000},
         {"secrets.client_secret"}),
    ],
)  # fmt: skip
def test_what_is_wrong_is_named_field_by_field(hub, settings, secrets, fields):
    with pytest.raises(BadRequest) as caught:
        hub.admin.create(DEFAULT_TENANT, "demo", "dynamics365", Wanted({**PLACE, **settings}, secrets))
    assert {error.field for error in caught.value.errors} == fields
    shown = repr(vars(caught.value))
    assert "planted" not in shown
    assert SECRET not in shown
    assert not list(hub.connections.every(DEFAULT_TENANT))
    # The slug is free.
    hub.admin.create(DEFAULT_TENANT, "demo", "dynamics365", Wanted({**PLACE, "auth": "managed_identity"}, {}))


def test_a_connection_can_change_its_way(hub):
    made = hub.admin.create(
        DEFAULT_TENANT, "demo", "dynamics365", Wanted({**PLACE, **CLIENT}, {"client_secret": SECRET})
    )
    with pytest.raises(BadRequest) as caught:
        hub.admin.update(made, Wanted({"auth": "certificate"}))
    assert [error.field for error in caught.value.errors] == ["secrets.client_certificate"]
    wanted = Wanted({"auth": "certificate"}, {"client_certificate": PEM, "client_secret": ""})
    changed = hub.admin.update(made, wanted)
    assert changed.settings["auth"] == "certificate"
    assert set(hub.secrets.get("default", made.uid)) == {"client_certificate"}
    with pytest.raises(BadRequest, match="Key Vault reference"):
        hub.admin.update(changed, Wanted({"tenant_id": "@Microsoft.KeyVault(VaultName=v;SecretName=s)"}))


def test_secrets_that_can_not_be_read_can_be_saved_again(hub):
    settings, secrets = {**PLACE, **CLIENT}, {"client_secret": SECRET}
    made = hub.admin.create(DEFAULT_TENANT, "demo", "dynamics365", Wanted(settings, secrets))
    row = hub.table.get("secrets", "default", f"bundle~{made.uid}")
    hub.table.replace("secrets", row.with_values(sealed="1.00000000.AAAA"))
    with pytest.raises(Misconfigured, match="can't be read"):
        hub.admin.update(made, Wanted({"api_version": "v9.1"}))
    hub.admin.update(made, Wanted(secrets=secrets))
    assert hub.secrets.get("default", made.uid) == secrets


def test_a_deleted_connection_leaves_neither_secrets_nor_token(hub):
    made = hub.admin.create(
        DEFAULT_TENANT, "demo", "dynamics365", Wanted({**PLACE, **CLIENT}, {"client_secret": SECRET})
    )
    hub.tools.tokens.put("default", made.uid, "token", 1e12)
    hub.admin.delete(made)
    assert not hub.table.query("secrets").rows
