"""What every `Queue` does, on Azurite and in memory, and what a queue's other end gets."""

import base64
import time
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import pytest
from azure.storage.queue import QueueClient, QueueServiceClient, TextBase64DecodePolicy

from crm_core.ports import MAX_DELAY_SECONDS, MAX_MESSAGE_BYTES, Queue, Waiting, measured
from crm_core.storage.azure import AzureQueue, StorageAccount
from crm_core.storage.memory import MemoryQueue


class SetClock:
    """A clock that a test moves."""

    def __init__(self) -> None:
        self.time = datetime(2026, 1, 1, tzinfo=UTC)

    def now(self) -> datetime:
        return self.time

    def monotonic(self) -> float:
        return self.time.timestamp()

    def sleep(self, seconds: float) -> None:
        self.time += timedelta(seconds=seconds)


@pytest.fixture
def clock():
    return SetClock()


@pytest.fixture(params=["memory", "azure"])
def store(request, clock):
    if request.param == "memory":
        yield MemoryQueue(clock)
        return
    azure = AzureQueue(StorageAccount(request.getfixturevalue("azurite")))
    yield azure
    azure.close()


@pytest.fixture
def queue():
    return f"q-{uuid4().hex}"


@pytest.fixture
def azure_queue(azurite):
    azure = AzureQueue(StorageAccount(azurite))
    yield azure
    azure.close()


@pytest.fixture
def far_end(azurite):
    """The SDK as the Functions host uses it."""
    with QueueServiceClient.from_connection_string(azurite) as service:
        yield lambda name: service.get_queue_client(name, message_decode_policy=TextBase64DecodePolicy())


def received(store, queue, request) -> list[str]:
    if isinstance(store, MemoryQueue):
        return [message.body for message in store.receive(queue, limit=32)]
    client = request.getfixturevalue("far_end")(queue)
    return [message.content for message in client.receive_messages(max_messages=32)]


def test_a_store_is_a_queue(store):
    checked: Queue = store
    assert checked


@pytest.mark.parametrize("body", ['{"v":1}', "Añadir 🦤 \x00\r\n <&>", " ", ""])
def test_a_message_arrives_as_it_was_sent(store, queue, request, body):
    store.send(queue, body)
    assert received(store, queue, request) == [body]


def test_a_delayed_message_is_not_there_yet(store, queue, request):
    store.send(queue, "later", delay=60)
    store.send(queue, "at once", delay=-5)
    assert received(store, queue, request) == ["at once"]


def test_the_largest_message(store, queue, request):
    body = "ñ" * (MAX_MESSAGE_BYTES // 2)
    store.send(queue, body)
    assert received(store, queue, request) == [body]
    with pytest.raises(ValueError, match="49153 bytes"):
        store.send(queue, f"{body}x")


def test_the_longest_delay(store, queue):
    store.send(queue, "later", delay=MAX_DELAY_SECONDS)
    with pytest.raises(ValueError, match="delay"):
        store.send(queue, "too late", delay=MAX_DELAY_SECONDS + 1)


def test_a_lone_surrogate_is_refused(store, queue):
    with pytest.raises(ValueError):
        store.send(queue, "\ud800")


def test_a_send_is_one_call(store, queue):
    store.send(queue, "makes the queue")
    with measured() as meter:
        store.send(queue, "x")
    assert meter.total("storage_calls") == 1


def test_a_probe_leaves_no_message_and_tells_what_waits(store, queue, request):
    assert store.probe(queue) == Waiting(0, None)
    store.send(queue, "later", delay=60)
    assert store.probe(queue) == Waiting(1, None)
    store.send(queue, "now")
    waiting = store.probe(queue)
    assert waiting.messages == 2
    assert 0 <= waiting.oldest_seconds < 5
    assert received(store, queue, request) == ["now"]


def test_a_probe_tells_how_long_the_first_message_waits(store, queue, clock):
    store.send(queue, "first")
    if isinstance(store, MemoryQueue):
        clock.sleep(2)
    else:
        time.sleep(2.1)  # the service's times are whole seconds
    store.send(queue, "second")
    assert 1 <= store.probe(queue).oldest_seconds <= 4


# --- Azure only -------------------------------------------------------------------------------------------


def test_the_queue_is_made_on_first_need(azure_queue, queue, far_end):
    with measured() as meter:
        azure_queue.send(queue, "x")
    assert meter.total("storage_calls") == 3  # refused, made, sent
    assert [message.content for message in far_end(queue).receive_messages()] == ["x"]


def test_a_probe_makes_the_queue(azure_queue, queue):
    with measured() as meter:
        azure_queue.probe(queue)
    assert meter.total("storage_calls") == 6  # refused, made; sent, taken back, properties, a peek
    with measured() as meter:
        azure_queue.probe(queue)
    assert meter.total("storage_calls") == 4


def test_nobody_sees_the_message_of_a_probe_on_its_way(azure_queue, queue, far_end, monkeypatch):
    """Nor later, should it not be taken back: it does not live."""
    delete, seen = QueueClient.delete_message, []

    def late(client, message):
        seen.append((far_end(queue).receive_message(), message.expires_on - message.inserted_on))
        delete(client, message)

    monkeypatch.setattr(QueueClient, "delete_message", late)
    azure_queue.probe(queue)
    assert seen == [(None, timedelta(seconds=61))]


def test_a_message_never_expires_and_is_base64(azure_queue, queue, azurite):
    azure_queue.send(queue, "ñ", delay=0.5)
    with QueueServiceClient.from_connection_string(azurite) as service:
        client = service.get_queue_client(queue)
        assert client.receive_message() is None  # half a second is rounded up to one
        azure_queue.send(queue, "ñ")
        message = client.receive_message()
    assert message.expires_on.year == 9999
    assert base64.b64decode(message.content).decode() == "ñ"


# --- the other end of the twin ----------------------------------------------------------------------------


def test_the_twin_delivers_again_until_deleted(clock):
    queue = MemoryQueue(clock)
    queue.send("work", "first")
    clock.sleep(1)
    queue.send("work", "second")
    first, second = queue.receive("work", limit=2, invisible=30)
    assert (first.body, first.dequeue_count, second.body) == ("first", 1, "second")
    assert queue.receive("work") == []
    assert queue.delete("work", first)
    assert not queue.delete("work", first)
    assert queue.next_visible("work") == clock.now() + timedelta(seconds=30)
    clock.sleep(30)
    again = queue.receive("work")[0]
    assert (again.body, again.dequeue_count) == ("second", 2)
    assert not queue.delete("work", second)
    assert queue.release("work", again, delay=5)
    assert not queue.delete("work", again)
    assert queue.receive("work") == []
    clock.sleep(5)
    third = queue.receive("work")[0]
    assert third.dequeue_count == 3
    assert queue.delete("work", third)
    assert queue.size("work") == 0
    assert queue.next_visible("work") is None


def test_the_twin_takes_the_first_visible_first(clock):
    queue = MemoryQueue(clock)
    for name, delay in (("c", 3), ("a", 1), ("b", 2), ("hidden", 10)):
        queue.send("work", name, delay=delay)
    clock.sleep(5)
    assert [message.body for message in queue.receive("work", limit=2)] == ["a", "b"]
    assert [message.body for message in queue.receive("work", limit=2)] == ["c"]
    assert queue.size("work") == 4
    assert queue.receive("elsewhere") == []
