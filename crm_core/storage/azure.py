"""The storage ports on Azure Storage (and Azurite) and Azure Key Vault, through the public SDKs.

Importing this module loads no SDK: each port loads its own when it is first used. Ports may be shared by
threads. Tables, queues and the container are made when an answer says that they are missing.

After a lost answer the SDK may send a request again: then RowExists or RowChanged can mean that our own write
came through the first time, so the caller reads the row before it draws a conclusion.
"""

import hashlib
import json
import os
import re
import ssl
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar
from urllib.parse import urlsplit

from crm_core.errors import Misconfigured, StoreUnavailable
from crm_core.ports import (
    Clock,
    Operation,
    Row,
    RowChanged,
    RowPage,
    Waiting,
    check_key,
    count,
)
from crm_core.storage.batch import (
    BATCH_HEADERS,
    READ_HEADERS,
    Missing,
    Wire,
    check_blob,
    check_message,
    check_operations,
    encode_transaction,
    entity_path,
    page_query,
    range_filter,
    refusal,
)
from crm_core.storage.secrets import KEY_BYTES, bundle_json, parse_key

if TYPE_CHECKING:
    from azure.core.credentials import TokenCredential
    from azure.core.exceptions import HttpResponseError
    from azure.core.pipeline.transport import RequestsTransport
    from azure.keyvault.secrets import SecretClient
    from azure.storage.blob import BlobClient, BlobServiceClient
    from azure.storage.queue import QueueClient, QueueMessage, QueueServiceClient

AUDIENCE = "https://storage.azure.com"
CONNECT_SECONDS, READ_SECONDS = 5, 30
RETRIES = 2
PROBE_SECONDS = 60
"""How long the message of a probe is hidden: longer than its way back takes."""
BLOCK_BYTES = 64 * 1024
"""How much of an answer is read at a time: that to a transaction in one piece (the SDK's own number is 4 KiB)."""
CONNECTIONS = 32
"""How many connections a port keeps open: more than the worker has threads (the SDK's own number is 10)."""

VAULT_SECONDS = 60.0
"""How long a process uses its copy of a bundle."""
DATA_KEY = "crmhub-data-key"
DATA_KEY_SECONDS = 900.0
"""How long a process uses its copy of the data key."""
SETTLED_SECONDS = 3.0
"""After this nobody else is about to make the first data key (the vault's times are whole seconds)."""
RECOVER_SECONDS, RECOVER_TRIES = 2.0, 5
_VAULT_NAME = re.compile(r"[0-9A-Za-z-]{1,100}")

_COMPLETE = re.compile(
    r"(?i)^UseDevelopmentStorage=true$|SharedAccessSignature=.|^(?=.*AccountName=[^;])(?=.*AccountKey=[^;])"
)
"""A connection string with a way in."""


@dataclass(frozen=True)
class StorageAccount:
    """Where the account is and how to get in: a connection string, or the URIs and a credential.

    `UseDevelopmentStorage=true` means Azurite on its own ports. `credential` is called once by each port.
    `ca_bundle`: a file of certificates to trust besides the usual ones.
    """

    connection_string: str = field(default="", repr=False)
    # A URI may hold a shared access signature, so it is not shown either.
    table_uri: str = field(default="", repr=False)
    queue_uri: str = field(default="", repr=False)
    blob_uri: str = field(default="", repr=False)
    credential: "Callable[[], TokenCredential] | None" = None
    ca_bundle: str = ""


def managed_identity(client_id: str = "") -> "Callable[[], TokenCredential]":
    """A credential factory for `StorageAccount` and `AzureSecrets`; an empty `client_id` is the system-assigned identity."""

    def make() -> "TokenCredential":
        from azure.identity import ManagedIdentityCredential

        return ManagedIdentityCredential(client_id=client_id or None)

    return make


class _Closable(Protocol):
    def close(self) -> None: ...


C = TypeVar("C", bound=_Closable)


class _Once(Generic[C]):
    """A client made on first use. If two threads make it at once the first one's stays; no lock is needed."""

    def __init__(self, make: Callable[[], C]) -> None:
        self._make = make
        self._made: dict[str, C] = {}

    def get(self) -> C:
        client = self._made.get("")
        if client is None:
            mine = self._make()
            client = self._made.setdefault("", mine)
            if client is not mine:
                mine.close()
        return client

    def close(self) -> None:
        """Closes the client, if there is one; the next use makes another."""
        client = self._made.pop("", None)
        if client is not None:
            client.close()


def _transport(ca_bundle: str) -> "RequestsTransport":
    """Raises Misconfigured for a bundle that can't be read."""
    from azure.core.pipeline.transport import RequestsTransport

    options: dict[str, Any] = {}
    if ca_bundle:
        context = options["ssl_context"] = ssl.create_default_context()
        try:
            context.load_verify_locations(ca_bundle)
        except OSError as error:  # ssl.SSLError is one
            raise Misconfigured(f"CA_BUNDLE names no readable file of PEM certificates ({error}).") from None
    # Nothing from the environment, as with remote systems; to look there again costs a tenth of a call.
    transport = RequestsTransport(
        connection_timeout=CONNECT_SECONDS,
        read_timeout=READ_SECONDS,
        connection_data_block_size=BLOCK_BYTES,
        use_env_settings=False,
    )
    transport.open()
    # The transport has no option for the size of its pool, nor for more certificates. Nothing has been sent yet.
    for adapter in transport.session.adapters.values():
        adapter.init_poolmanager(CONNECTIONS, CONNECTIONS, **options)
    return transport


def _connect(
    account: StorageAccount,
    uri: str,
    with_string: Callable[..., C],
    with_credential: Callable[..., C],
    **options: Any,
) -> C:
    """A service client. Raises Misconfigured if the settings can't be used."""
    text = account.connection_string.strip().rstrip(";")
    options["transport"] = _transport(account.ca_bundle)
    with suppress(ValueError):  # the SDK's own message may quote the address
        # Without a way in the SDK would go on as an anonymous caller.
        if _COMPLETE.search(text):
            return with_string(text, **options)
        if not text and uri and (account.credential or "sig=" in uri):
            credential = account.credential() if account.credential else None
            return with_credential(uri, credential=credential, audience=AUDIENCE, **options)
    options["transport"].close()
    raise Misconfigured(
        "The storage settings can't be used: give a complete connection string, or https URIs of tables,"
        " queues and blobs with a managed identity."
    )


@contextmanager
def _calling(what: str) -> Iterator[None]:
    """Counts one call to storage and turns the SDK's errors into ours.

    The SDK's messages may hold addresses with signatures: they are neither repeated nor chained.
    """
    from azure.core.exceptions import AzureError, ClientAuthenticationError, HttpResponseError

    count("storage_calls")
    try:
        yield
    except ClientAuthenticationError as error:
        raise refusal(error.status_code or 401, _code(error), what) from None
    except HttpResponseError as error:
        if error.status_code == 404:
            raise Missing(f"{what}: {_code(error)}") from None
        # Without a status no answer came, or none that could be read.
        raise refusal(error.status_code or 503, _code(error), what) from None
    except AzureError as error:
        raise StoreUnavailable(f"{what}: {type(error).__name__}") from None


def _code(error: Exception) -> str:
    code = getattr(error, "error_code", None)
    return str(getattr(code, "value", code) or type(error).__name__)


class AzureTable:
    """`Table` on Azure Tables. Raises StoreUnavailable and Misconfigured besides what the port names."""

    def __init__(self, account: StorageAccount) -> None:
        self._account = account
        self._wire = _Once(self._connect)

    def _connect(self) -> Wire:
        from azure.data.tables import TableServiceClient

        client: TableServiceClient = _connect(
            self._account,
            self._account.table_uri,
            TableServiceClient.from_connection_string,
            TableServiceClient,
            retry_total=RETRIES,
            retry_backoff_factor=0.4,
        )
        return Wire(client)

    def close(self) -> None:
        self._wire.close()

    def get(self, table: str, pk: str, rk: str) -> Row | None:
        check_key(pk)
        check_key(rk)
        what = f"get from table {table}"
        with _calling(what):
            answer = self._wire.get().send("GET", entity_path(table, pk, rk), READ_HEADERS, {})
        if answer.status == 404:
            return None
        if answer.status != 200:
            raise answer.refusal(what)
        return answer.row()

    def query(
        self,
        table: str,
        *,
        pk: str | None = None,
        pk_to: str | None = None,
        rk: str = "",
        rk_to: str | None = None,
        top: int = 1000,
        token: str | None = None,
        select: Sequence[str] | None = None,
    ) -> RowPage:
        """As the port says; ValueError for a `top` that is not 1 to 1000 and for a foreign token."""
        query = page_query(range_filter(pk, pk_to, rk, rk_to), top, token, select)
        what = f"query of table {table}"
        with _calling(what):
            answer = self._wire.get().send("GET", f"{table}()", READ_HEADERS, query)
        if answer.status == 404:
            return RowPage(())
        if answer.status != 200:
            raise answer.refusal(what)
        return answer.page()

    def insert(self, table: str, row: Row) -> str:
        return self.transact(table, [Operation("insert", row)])[0]

    def replace(self, table: str, row: Row, etag: str = "*") -> str:
        return self.transact(table, [Operation("replace", row, etag)])[0]

    def upsert(self, table: str, row: Row) -> str:
        return self.transact(table, [Operation("upsert", row)])[0]

    def delete(self, table: str, pk: str, rk: str, etag: str = "*") -> None:
        try:
            self.transact(table, [Operation("delete", Row(pk, rk), etag)])
        except RowChanged:
            if etag != "*":
                raise

    def transact(self, table: str, operations: Sequence[Operation]) -> list[str]:
        """As the port says; makes the table if it is missing.

        One write is a transaction of one: the same price and the same answers, one format.
        """
        check_operations(operations)
        body = encode_transaction(self._wire.get().base_url, table, operations)
        try:
            return self._submit(table, operations, body)
        except Missing:
            self._make_table(table)
            return self._submit(table, operations, body)

    def _submit(self, table: str, operations: Sequence[Operation], body: bytes) -> list[str]:
        what = f"transaction on table {table}"
        with _calling(what):
            answer = self._wire.get().send("POST", "$batch", BATCH_HEADERS, {}, body)
        return answer.etags(operations, what)

    def _make_table(self, table: str) -> None:
        with _calling(f"creation of table {table}"):
            self._wire.get().client.create_table_if_not_exists(table)


class AzureQueue:
    """`Queue` on Azure Queues; bodies are base64 as the Functions host expects them.

    Raises StoreUnavailable and Misconfigured besides what the port names.
    """

    def __init__(self, account: StorageAccount) -> None:
        self._account = account
        self._service = _Once(self._connect)

    def _connect(self) -> "QueueServiceClient":
        from azure.storage.queue import LinearRetry, QueueServiceClient

        client: QueueServiceClient = _connect(
            self._account,
            self._account.queue_uri,
            QueueServiceClient.from_connection_string,
            QueueServiceClient,
            retry_policy=LinearRetry(backoff=1, retry_total=RETRIES, random_jitter_range=1),
        )
        return client

    def close(self) -> None:
        self._service.close()

    def send(self, queue: str, body: str, delay: float = 0.0) -> None:
        """As the port says; makes the queue if it is missing.

        Raises ValueError for a body over 48 KiB or a delay over 7 days. A negative delay is none.
        """
        invisible = check_message(body, delay)
        # The default time to live is 7 days; -1 is for ever.
        self._put(self._client(queue), body, invisible, -1)

    def probe(self, queue: str) -> Waiting:
        """As the port says, in four calls; makes the queue if it is missing."""
        client = self._client(queue)
        # Should it not be taken back, it is gone a second after it shows (the service wants it to live longer than
        # it is hidden).
        sent = self._put(client, "probe", PROBE_SECONDS, PROBE_SECONDS + 1)
        with _calling(f"deletion in queue {queue}"):
            client.delete_message(sent)
        with _calling(f"properties of queue {queue}"):
            messages = client.get_queue_properties().approximate_message_count or 0
        with _calling(f"peek at queue {queue}"):
            first = client.peek_messages(1)
        inserted = first[0].inserted_on if first else None
        # By the service's own clock at both ends.
        oldest = (
            max(0.0, (sent.inserted_on - inserted).total_seconds()) if sent.inserted_on and inserted else None
        )
        return Waiting(messages, oldest)

    def _client(self, queue: str) -> "QueueClient":
        from azure.storage.queue import TextBase64EncodePolicy

        return self._service.get().get_queue_client(queue, message_encode_policy=TextBase64EncodePolicy())

    def _put(self, client: "QueueClient", body: str, invisible: int, lives: int) -> "QueueMessage":
        """Makes the queue if it is missing."""
        from azure.core.exceptions import ResourceExistsError

        try:
            return _put_message(client, body, invisible, lives)
        except Missing:
            # Another process may be making it too.
            with _calling(f"creation of queue {client.queue_name}"), suppress(ResourceExistsError):
                client.create_queue()
            return _put_message(client, body, invisible, lives)


def _put_message(client: "QueueClient", body: str, invisible: int, lives: int) -> "QueueMessage":
    with _calling(f"send to queue {client.queue_name}"):
        return client.send_message(body, visibility_timeout=invisible, time_to_live=lives)


class AzureBlob:
    """`Blob` on one container of Azure Blob Storage.

    Raises StoreUnavailable and Misconfigured besides what the port names.
    """

    def __init__(self, account: StorageAccount, container: str) -> None:
        self._account = account
        self._container = container
        self._service = _Once(self._connect)

    def _connect(self) -> "BlobServiceClient":
        from azure.storage.blob import BlobServiceClient, LinearRetry

        client: BlobServiceClient = _connect(
            self._account,
            self._account.blob_uri,
            BlobServiceClient.from_connection_string,
            BlobServiceClient,
            retry_policy=LinearRetry(backoff=1, retry_total=RETRIES, random_jitter_range=1),
        )
        return client

    def close(self) -> None:
        self._service.close()

    def put(self, name: str, data: bytes) -> None:
        """Overwrites; makes the container if it is missing."""
        from azure.core.exceptions import ResourceExistsError

        check_blob(name)
        client = self._service.get().get_blob_client(self._container, name)
        try:
            self._upload(client, data)
        except Missing:
            # Another process may be making it too.
            with _calling(f"creation of container {self._container}"), suppress(ResourceExistsError):
                self._service.get().create_container(self._container)
            self._upload(client, data)

    def _upload(self, client: "BlobClient", data: bytes) -> None:
        with _calling(f"put to container {self._container}"):
            client.upload_blob(data, overwrite=True)

    def get(self, name: str, offset: int = 0, length: int | None = None) -> bytes | None:
        """Up to `length` bytes from `offset`; b"" beyond the end, None if there is no such blob."""
        from azure.core.exceptions import HttpResponseError

        check_blob(name, offset, length)
        client = self._service.get().get_blob_client(self._container, name)
        whole = offset == 0 and length is None
        try:
            with _calling(f"get from container {self._container}"):
                try:
                    # A range of no bytes can't be asked for.
                    found = client.download_blob(
                        None if whole else offset, None if length is None else max(length, 1)
                    )
                    return found.readall()[:length]
                except HttpResponseError as error:
                    if error.status_code == 416:  # the range begins beyond the end
                        return b""
                    raise
        except Missing:
            return None

    def delete(self, name: str) -> None:
        check_blob(name)
        client = self._service.get().get_blob_client(self._container, name)
        with suppress(Missing), _calling(f"deletion in container {self._container}"):
            client.delete_blob()


class AzureSecrets:
    """`Secrets` on Azure Key Vault, and the data key of the `Cipher`. Raises StoreUnavailable and Misconfigured.

    A bundle is one secret: a JSON object that a person may also change there. Role: Key Vault Secrets Officer. A
    deleted bundle stays in the vault, recoverable, for as long as the vault's soft delete says.
    (Microsoft Learn, "About Azure Key Vault secrets" and "Azure Key Vault soft-delete overview".)
    """

    def __init__(
        self, url: str, credential: "Callable[[], TokenCredential]", clock: Clock, *, ca_bundle: str = ""
    ) -> None:
        """Calls nobody. `url`: of the vault; `credential` is called once, on first use."""
        self._url = url
        self._credential = credential
        self._clock = clock
        self._ca_bundle = ca_bundle
        self._client = _Once(self._connect)
        self._copies: dict[str, tuple[Mapping[str, str], float]] = {}
        self._key: tuple[str, bytes, float] | None = None

    def _connect(self) -> "_Vault":
        from azure.keyvault.secrets import SecretClient

        credential, transport = self._credential(), _transport(self._ca_bundle)
        # A vault says for which resource it wants a token, and the SDK compares that with the vault's domain.
        # A local one has no such domain.
        local = urlsplit(self._url).hostname in {"localhost", "127.0.0.1", "::1"}
        client = SecretClient(
            self._url,
            credential,
            transport=transport,
            retry_total=RETRIES,
            verify_challenge_resource=not local,
        )
        return _Vault(client, credential)

    def close(self) -> None:
        self._client.close()

    def get(self, tenant: str, name: str) -> Mapping[str, str] | None:
        """From this process's copy if it is at most 60 s old."""
        secret = _secret_name(tenant, name)
        copy = self._copies.get(secret)
        if copy is not None and self._clock.monotonic() < copy[1]:
            count("secrets_from_memory", connection=name)
            return copy[0]
        count("secrets_asked", connection=name)
        try:
            with _vault_call(f"get of the secret {secret}"):
                text = self._client.get().secrets.get_secret(secret).value or ""
        except Missing:
            self._copies.pop(secret, None)
            return None
        return self._keep(secret, _read_bundle(secret, text))

    def _keep(self, secret: str, bundle: Mapping[str, str]) -> Mapping[str, str]:
        kept = MappingProxyType(dict(bundle))
        self._copies[secret] = (kept, self._clock.monotonic() + VAULT_SECONDS)
        return kept

    def put(self, tenant: str, name: str, bundle: Mapping[str, str]) -> str:
        """Also over a secret of this name that was deleted and that the vault still keeps: it is recovered first."""
        secret = _secret_name(tenant, name)
        tags = {"tenant": tenant, "connection": name}
        version = self._set(secret, bundle_json(bundle), content_type="application/json", tags=tags)
        self._keep(secret, bundle)
        return version

    def _set(self, secret: str, text: str, **more: Any) -> str:
        client = self._client.get().secrets
        for attempt in range(1, RECOVER_TRIES + 1):
            try:
                with _vault_call(f"set of the secret {secret}"):
                    return client.set_secret(secret, text, **more).properties.version or ""
            except _Kept:
                if attempt == RECOVER_TRIES:
                    raise
            with suppress(Missing, _Kept), _vault_call(f"recovery of the secret {secret}"):
                client.begin_recover_deleted_secret(secret)
            self._clock.sleep(RECOVER_SECONDS)
        raise AssertionError

    def delete(self, tenant: str, name: str) -> None:
        secret = _secret_name(tenant, name)
        self._copies.pop(secret, None)
        with suppress(Missing), _vault_call(f"deletion of the secret {secret}"):
            self._client.get().secrets.begin_delete_secret(secret)

    def invalidate(self, tenant: str, name: str) -> None:
        """The next `get` asks the vault."""
        self._copies.pop(_secret_name(tenant, name), None)

    # --- the data key --------------------------------------------------------------------------------------------

    def data_key(self) -> bytes:
        """The 32 bytes of the data key: its oldest version that is enabled; made if there is none.

        The oldest, so that instances that make it at once end with the same one. To change it, add a version and
        disable the older ones; what the old key has encrypted is then as good as gone.
        """
        key = self._key
        if key is not None and self._clock.monotonic() < key[2]:
            return key[1]
        try:
            version = self._first_version()
            data = key[1] if key is not None and key[0] == version else self._read_key(version)
        except StoreUnavailable:
            if key is None:
                raise
            version, data, _ = key  # a vault that is away for a while stops nobody
        self._key = (version, data, self._clock.monotonic() + DATA_KEY_SECONDS)
        return data

    def _read_key(self, version: str) -> bytes:
        try:
            with _vault_call(f"get of the secret {DATA_KEY}"):
                text = self._client.get().secrets.get_secret(DATA_KEY, version).value or ""
        except Missing:
            raise StoreUnavailable(f"the secret {DATA_KEY} is being changed") from None
        return parse_key(text, f"The secret {DATA_KEY}")

    def _first_version(self) -> str:
        """Waits while another instance may be about to make an older one."""
        for _ in range(3):
            versions = self._key_versions()
            now = self._clock.now().timestamp()
            if versions and now - versions[0][0] >= SETTLED_SECONDS:
                break
            if not versions:
                self._set(DATA_KEY, os.urandom(KEY_BYTES).hex())
            self._clock.sleep(SETTLED_SECONDS)
        else:
            versions = self._key_versions()
        if not versions:
            raise StoreUnavailable(f"the secret {DATA_KEY} is being made")
        return versions[0][1]

    def _key_versions(self) -> list[tuple[float, str]]:
        """(when it was made, version) of those that are enabled, oldest first."""
        try:
            with _vault_call(f"list of the versions of the secret {DATA_KEY}"):
                found = list(self._client.get().secrets.list_properties_of_secret_versions(DATA_KEY))
        except Missing:
            return []
        return sorted(
            (each.created_on.timestamp() if each.created_on else 0.0, each.version or "")
            for each in found
            if each.enabled
        )


@dataclass(frozen=True)
class _Vault:
    """The client with its credential, which it does not close by itself."""

    secrets: "SecretClient"
    credential: "TokenCredential"

    def close(self) -> None:
        self.secrets.close()
        close: Callable[[], None] | None = getattr(self.credential, "close", None)
        if close is not None:
            close()


class _Kept(StoreUnavailable):
    """The vault keeps a deleted secret of this name, or is busy deleting or recovering it."""


def _secret_name(tenant: str, name: str) -> str:
    """Key Vault's names have letters of either case alike, digits and dashes; the digest tells everything else."""
    if not _VAULT_NAME.fullmatch(name):
        raise ValueError("the name of a bundle has letters, digits and dashes")
    digest = hashlib.sha256(f"{tenant}\x1f{name}".encode()).hexdigest()[:8]
    return f"crmhub-{name}-{digest}"


def _read_bundle(secret: str, text: str) -> dict[str, str]:
    try:
        data = json.loads(text)
    except ValueError:
        data = None
    if not isinstance(data, dict) or not all(isinstance(value, str) for value in data.values()):
        raise Misconfigured(
            f"The secret {secret} in the vault is no JSON object of texts; save the connection's secrets again."
        )
    return data


@contextmanager
def _vault_call(what: str) -> Iterator[None]:
    """Counts one call to the vault and turns the SDK's errors into ours; their messages are not repeated."""
    from azure.core.exceptions import AzureError, HttpResponseError

    count("vault_calls")
    try:
        yield
    except HttpResponseError as error:
        raise _vault_refusal(error, what) from None
    except AzureError as error:
        raise StoreUnavailable(f"{what}: {type(error).__name__}") from None
    except ValueError:  # the SDK's check of what the vault says about itself, or an answer that is no JSON
        raise Misconfigured(f"{what}: what answers at KEY_VAULT_URL is no vault.") from None


def _vault_refusal(error: "HttpResponseError", what: str) -> Exception:
    from azure.core.exceptions import ClientAuthenticationError

    told = error.error
    inner = (told.innererror or {}).get("code", "") if told else ""
    reason = f"{what}: {error.status_code or type(error).__name__} {inner}".rstrip()
    if error.status_code == 404:
        return Missing(reason)
    if error.status_code == 409:
        return _Kept(
            f"{reason}. The vault still keeps a deleted secret of this name: recover or purge it there."
        )
    if inner == "SecretDisabled":
        return Misconfigured(f"{reason}. Enable the secret in the vault.")
    if error.status_code == 403:
        return Misconfigured(
            f'{reason}. Give the identity of the hub the role "Key Vault Secrets Officer" at the vault, and let its'
            " network in."
        )
    if isinstance(error, ClientAuthenticationError):  # a 401, or there was no token to send
        return Misconfigured(
            f"{reason}. The vault takes no token of the hub: check that the app has its managed identity, in the"
            " vault's tenant, and the client id."
        )
    return StoreUnavailable(reason)
