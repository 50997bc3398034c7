"""The storage ports on Azure Storage (and Azurite), through the public SDKs.

Importing this module loads no SDK: each port loads its own when it is first used. Ports may be shared by
threads. Tables, queues and the container are made when an answer says that they are missing.

After a lost answer the SDK may send a request again: then RowExists or RowChanged can mean that our own write
came through the first time, so the caller reads the row before it draws a conclusion.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from crm_core.errors import Misconfigured, StoreUnavailable
from crm_core.ports import (
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
    check_names,
    check_operations,
    encode_transaction,
    entity_path,
    page_query,
    range_filter,
    refusal,
)
from crm_core.storage.clients import RETRIES, C, Once, transport

if TYPE_CHECKING:
    from azure.core.credentials import TokenCredential
    from azure.storage.blob import BlobClient, BlobServiceClient
    from azure.storage.queue import QueueClient, QueueMessage, QueueServiceClient

AUDIENCE = "https://storage.azure.com"
PROBE_SECONDS = 60
"""How long the message of a probe is hidden: longer than its way back takes."""

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


def _connect(
    account: StorageAccount,
    uri: str,
    with_string: Callable[..., C],
    with_credential: Callable[..., C],
    **options: Any,
) -> C:
    """A service client. Raises Misconfigured if the settings can't be used."""
    text = account.connection_string.strip().rstrip(";")
    options["transport"] = transport(account.ca_bundle)
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
        self._wire = Once(self._connect)

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
        self._service = Once(self._connect)

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
        self._service = Once(self._connect)

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

    def names(self, prefix: str, top: int = 1000) -> list[str]:
        """None while there is no container."""
        check_names(prefix, top)
        client = self._service.get().get_container_client(self._container)
        pages = client.list_blob_names(name_starts_with=prefix, results_per_page=top).by_page()
        while True:
            try:
                with _calling(f"list of container {self._container}"):
                    found = list(next(pages, ()))
            except Missing:
                return []
            # The service may give an empty page that is not the last.
            if found or not getattr(pages, "continuation_token", None):
                return found
