"""What only the ports on Azure do: lazy imports, tables on first need, failures, settings, secrets."""

import base64
import logging
import socket
import subprocess
import sys
import threading
import time
import traceback
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from uuid import uuid4

import pytest
from azure.core.credentials import AccessToken
from azure.core.exceptions import ClientAuthenticationError

from crm_core.errors import Misconfigured, StoreUnavailable
from crm_core.ports import Operation, Row, RowChanged, measured
from crm_core.storage import azure, clients
from crm_core.storage.azure import AzureBlob, AzureQueue, AzureTable, StorageAccount

ROOT = Path(__file__).resolve().parents[2]
SECRET = base64.b64encode(b"very secret key of the account").decode()


def all_ports(account: StorageAccount) -> list[tuple[object, list]]:
    """Each port with calls that reach storage."""
    table, queue, blob = AzureTable(account), AzureQueue(account), AzureBlob(account, "hidden-things")
    return [
        (
            table,
            [
                lambda: table.get("Table1", "hidden pk", "hidden rk"),
                lambda: table.query("Table1", pk="hidden pk"),
                lambda: table.insert("Table1", Row("hidden pk", "hidden rk", {"x": "hidden value"})),
                lambda: table.delete("Table1", "hidden pk", "hidden rk"),
                lambda: table.transact("Table1", [Operation("upsert", Row("hidden pk", "hidden rk"))]),
            ],
        ),
        (queue, [lambda: queue.send("queue1", "hidden body")]),
        (
            blob,
            [
                lambda: blob.put("hidden name", b"x"),
                lambda: blob.get("hidden name"),
                lambda: blob.delete("hidden name"),
            ],
        ),
    ]


def failures(account: StorageAccount, kind: type[Exception]) -> list[str]:
    """The whole text, traceback included, of what every call raises; closes the ports."""
    texts = []
    for port, calls in all_ports(account):
        for call in calls:
            with pytest.raises(kind) as error:
                call()
            shown = "".join(traceback.format_exception(error.value))
            assert not any(
                word in shown.splitlines()[-1] for word in ("hidden pk", "hidden rk", "hidden value")
            )
            texts.append(f"{error.value}\n{shown}")
        port.close()
    return texts


@pytest.fixture
def no_retries(monkeypatch):
    """For failures that need no second try to be seen."""
    monkeypatch.setattr(azure, "RETRIES", 0)


@pytest.fixture
def store(azurite):
    table = AzureTable(StorageAccount(azurite))
    yield table
    table.close()


@pytest.fixture
def table():
    return f"T{uuid4().hex}"


@pytest.fixture
def closed_port():
    """A port on which nothing listens."""
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        yield s.getsockname()[1]


def connection_string(port: int, access: str) -> str:
    url = f"http://127.0.0.1:{port}/devstoreaccount1"
    return f"{access};BlobEndpoint={url};QueueEndpoint={url};TableEndpoint={url}"


def test_importing_loads_no_sdk():
    code = (
        "import sys, crm_core.storage.azure, crm_core.storage.memory;"
        "crm_core.storage.azure.AzureTable(crm_core.storage.azure.StorageAccount('x'));"
        "print([m for m in sys.modules if m.split('.')[0] in ('azure', 'requests', 'msal')])"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_table_is_made_on_first_need(store, table):
    with measured() as meter:
        assert store.get(table, "p", "r") is None
        assert store.query(table).rows == ()
    assert meter.total("storage_calls") == 2
    with measured() as meter:
        store.insert(table, Row("p", "r"))
    assert meter.total("storage_calls") == 3  # refused, made, inserted
    with measured() as meter:
        store.insert(table, Row("p", "s"))
    assert meter.total("storage_calls") == 1


def test_a_change_in_a_missing_table(store, table):
    with pytest.raises(RowChanged):
        store.replace(table, Row("p", "r"))


def test_threads_may_all_need_the_table_first(azurite, table):
    store, start = AzureTable(StorageAccount(azurite)), threading.Barrier(8)

    def insert(n: int) -> str:
        start.wait()
        return store.insert(table, Row("p", str(n)))

    with ThreadPoolExecutor(8) as pool:
        assert len(set(pool.map(insert, range(8)))) == 8
    store.close()


def test_the_pool_holds_the_connections_of_many_threads(store, table, caplog):
    caplog.set_level(logging.WARNING, logger="urllib3")  # the hub makes it quieter
    with caplog.at_level(logging.WARNING), ThreadPoolExecutor(24) as pool:
        list(pool.map(lambda n: store.get(table, "p", str(n)), range(200)))
    assert not caplog.records


def test_a_closed_port_opens_again(store, table):
    store.close()
    store.close()
    assert store.get(table, "p", "r") is None


def test_a_table_name_that_can_not_be(store):
    with pytest.raises(ValueError):
        store.insert("1-nonsense", Row("p", "r"))


# --- failures ---------------------------------------------------------------------------------------------


def test_storage_that_is_down(closed_port, no_retries):
    account = StorageAccount(
        connection_string(closed_port, f"AccountName=devstoreaccount1;AccountKey={SECRET}")
    )
    texts = failures(account, StoreUnavailable)
    assert texts[0].startswith("get from table Table1: ")
    assert texts[5].startswith("send to queue queue1: ")
    assert texts[6].startswith("put to container hidden-things: ")
    assert not any(SECRET in text for text in texts)


def test_storage_that_is_down_is_soon_given_up(closed_port):
    account = StorageAccount(
        connection_string(closed_port, f"AccountName=devstoreaccount1;AccountKey={SECRET}")
    )
    table, queue = AzureTable(account), AzureQueue(account)
    for call in (lambda: table.get("Table1", "p", "r"), lambda: queue.send("queue1", "x")):
        begun = time.monotonic()
        with pytest.raises(StoreUnavailable):
            call()
        assert time.monotonic() - begun < 8
    table.close()
    queue.close()


def test_storage_that_does_not_answer(monkeypatch):
    monkeypatch.setattr(clients, "READ_SECONDS", 0.2)
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen(20)
        port = silent.getsockname()[1]
        account = StorageAccount(connection_string(port, f"AccountName=devstoreaccount1;AccountKey={SECRET}"))
        table = AzureTable(account)
        with pytest.raises(StoreUnavailable, match="transaction on table Table1"):
            table.insert("Table1", Row("p", "r"))
        table.close()


def test_a_signature_is_never_shown(closed_port, no_retries):
    signature = "sv=2020-01-01&sig=verysecretsignature"
    texts = failures(
        StorageAccount(connection_string(closed_port, f"SharedAccessSignature={signature}")), StoreUnavailable
    )
    address = f"http://127.0.0.1:{closed_port}/devstoreaccount1?{signature}"
    texts += failures(
        StorageAccount(table_uri=address, queue_uri=address, blob_uri=address), StoreUnavailable
    )
    assert not any("verysecretsignature" in text for text in texts)


def test_a_wrong_key(azurite):
    wrong = ";".join(
        f"AccountKey={SECRET}" if part.startswith("AccountKey") else part for part in azurite.split(";")
    )
    for text in failures(StorageAccount(wrong), Misconfigured):
        assert "Check the storage connection string" in text.splitlines()[0]
        assert SECRET not in text


def test_a_key_that_is_no_key(azurite):
    broken = ";".join(
        "AccountKey=abc" if part.startswith("AccountKey") else part for part in azurite.split(";")
    )
    failures(StorageAccount(broken), Misconfigured)


class Credential:
    """Remembers what tokens were asked for."""

    def __init__(self, error: Exception | None = None) -> None:
        self.scopes: list[str] = []
        self.error = error

    def get_token(self, *scopes: str, **_: object) -> AccessToken:
        self.scopes += scopes
        if self.error:
            raise self.error
        return AccessToken("x.y.z", int(time.time()) + 3600)


def with_credential(port: int, credential: Credential, scheme: str = "https") -> StorageAccount:
    uri = f"{scheme}://127.0.0.1:{port}/devstoreaccount1"
    return StorageAccount(table_uri=uri, queue_uri=uri, blob_uri=uri, credential=lambda: credential)


def test_tokens_are_for_storage(closed_port, no_retries):
    credential = Credential()
    failures(with_credential(closed_port, credential), StoreUnavailable)
    assert set(credential.scopes) == {"https://storage.azure.com/.default"}


def test_a_credential_that_is_refused(closed_port, no_retries):
    credential = Credential(ClientAuthenticationError("the identity hidden pk is unknown"))
    for text in failures(with_credential(closed_port, credential), Misconfigured):
        assert "Storage Table, Queue and Blob Data Contributor" in text


@pytest.mark.parametrize(
    "account",
    [
        StorageAccount(),
        StorageAccount("nonsense"),
        StorageAccount("AccountName=x"),
        StorageAccount(f"AccountName=;AccountKey={SECRET}"),
        StorageAccount(f"AccountKey={SECRET};EndpointSuffix=core.windows.net"),
        StorageAccount(table_uri="https://a", queue_uri="https://a", blob_uri="https://a"),
        with_credential(1, Credential(), scheme="http"),
    ],
)
def test_settings_that_can_not_be_used(account):
    for text in failures(account, Misconfigured):
        assert text.startswith("The storage settings can't be used")
        assert SECRET not in text


def test_development_storage():
    account = StorageAccount("UseDevelopmentStorage=true;")
    table, queue, blob = AzureTable(account), AzureQueue(account), AzureBlob(account, "c")
    assert table._wire.get().base_url == "http://127.0.0.1:10002/devstoreaccount1"
    assert queue._service.get().url.rstrip("/") == "http://127.0.0.1:10001/devstoreaccount1"
    assert blob._service.get().url.rstrip("/") == "http://127.0.0.1:10000/devstoreaccount1"
    for port in (table, queue, blob):
        port.close()


def test_an_account_does_not_show_its_secrets():
    assert SECRET not in repr(StorageAccount(f"AccountKey={SECRET}", f"https://a?sig={SECRET}"))
