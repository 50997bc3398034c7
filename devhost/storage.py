"""One storage queue with its poison queue, as the queue trigger uses them; every call blocks.

Bodies are the stored text, neither encoded nor decoded. A failing call raises an AzureError, except those that
the platform's rules ignore.
"""

from dataclasses import dataclass
from datetime import datetime

from azure.core.exceptions import AzureError, HttpResponseError, ResourceExistsError, ResourceNotFoundError
from azure.storage.queue import QueueClient

# Old enough for any Azurite, which refuses the SDK's newest by default.
_API_VERSION = "2024-11-04"
_POISON = "-poison"

__all__ = ["AzureError", "Message", "Store"]


@dataclass
class Message:
    """A received message; `receipt` changes whenever its invisibility does."""

    id: str
    text: str
    receipt: str
    dequeue_count: int
    inserted: datetime
    expires: datetime
    next_visible: datetime


class Store:
    """The queue `name` in the account of a connection string."""

    def __init__(self, connection: str, name: str) -> None:
        """Make the clients; a ValueError says what's wrong with the connection string."""
        self.name = name
        self._queue = _client(connection, name)
        # There is no poison queue for a poison queue, nor where its name would be too long.
        has_poison = not name.endswith(_POISON) and len(name + _POISON) <= 63
        self._poison = _client(connection, name + _POISON) if has_poison else None

    @property
    def has_poison(self) -> bool:
        return self._poison is not None

    def ensure(self) -> None:
        """Create the queue if it's missing."""
        _create(self._queue)

    def receive(self, count: int, invisibility: int) -> list[Message]:
        """Take up to `count` messages, which nobody else sees for `invisibility` seconds."""
        pages = self._queue.receive_messages(
            messages_per_page=count, visibility_timeout=invisibility
        ).by_page()
        return [
            Message(
                m.id,
                m.content,
                m.pop_receipt,
                m.dequeue_count,
                m.inserted_on,
                m.expires_on,
                m.next_visible_on,
            )
            for m in next(pages, [])
        ]

    def hide(self, message: Message, seconds: int) -> None:
        """Set for how long from now the message stays invisible; 0 hands it out again."""
        # Without a content the service keeps the body as it is.
        answer = self._queue.update_message(message.id, message.receipt, visibility_timeout=seconds)
        message.receipt = answer.pop_receipt

    def delete(self, message: Message) -> bool:
        """Delete the message; False if someone else has it by now or it is gone, which the platform ignores."""
        try:
            self._queue.delete_message(message.id, message.receipt)
        except ResourceNotFoundError:
            return False
        except HttpResponseError as error:
            if getattr(error, "error_code", None) != "PopReceiptMismatch":
                raise
            return False
        return True

    def bury(self, message: Message) -> None:
        """Copy the message to the poison queue (created if missing) and delete it."""
        assert self._poison is not None
        try:
            self._poison.send_message(message.text)
        except ResourceNotFoundError:
            _create(self._poison)
            # The copy expires after the service's default of 7 days, also where the message never did.
            self._poison.send_message(message.text)
        self.delete(message)

    def close(self) -> None:
        for client in (self._queue, self._poison):
            if client is not None:
                client.close()


def _client(connection: str, name: str) -> QueueClient:
    # A shutdown mustn't wait for the SDK's patience of a minute; the caller tries again anyway.
    return QueueClient.from_connection_string(
        connection,
        name,
        api_version=_API_VERSION,
        retry_total=2,
        initial_backoff=0.3,
        increment_base=1,
        random_jitter_range=0,
        connection_timeout=5,
        read_timeout=30,
    )


def _create(client: QueueClient) -> None:
    try:
        client.create_queue()
    except ResourceExistsError:
        return
