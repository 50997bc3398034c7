"""How the clients of the SDKs of Azure Storage and Key Vault are made. Importing this module loads none of them."""

import ssl
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

from crm_core.errors import Misconfigured

if TYPE_CHECKING:
    from azure.core.credentials import TokenCredential
    from azure.core.pipeline.transport import RequestsTransport

CONNECT_SECONDS, READ_SECONDS = 5, 30
RETRIES = 2
BLOCK_BYTES = 64 * 1024
"""How much of an answer is read at a time: that to a transaction in one piece (the SDK's own number is 4 KiB)."""
CONNECTIONS = 32
"""How many connections a port keeps open: more than the worker has threads (the SDK's own number is 10)."""


def managed_identity(client_id: str = "") -> "Callable[[], TokenCredential]":
    """A credential factory for `StorageAccount` and `AzureSecrets`; an empty `client_id` is the system-assigned identity."""

    def make() -> "TokenCredential":
        from azure.identity import ManagedIdentityCredential

        return ManagedIdentityCredential(client_id=client_id or None)

    return make


class Closable(Protocol):
    def close(self) -> None: ...


C = TypeVar("C", bound=Closable)


class Once(Generic[C]):
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


def transport(ca_bundle: str) -> "RequestsTransport":
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
