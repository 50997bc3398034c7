"""Queue triggers: takes messages, runs the function, and deletes, hands back or buries them as the host does.

A listener holds batchSize messages at most when it asks for more, and asks again once newBatchThreshold or fewer
are left: up to batchSize + newBatchThreshold run at once. While one runs, its invisibility is renewed.
"""

import asyncio
import base64
import binascii
import logging
from collections.abc import Callable
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Any

from devhost.plan import QueuePlan
from devhost.settings import QueueOptions
from devhost.storage import AzureError, Message, Store
from devhost.worker import Worker

log = logging.getLogger("devhost")


@dataclass(frozen=True)
class Tuning:
    """What only tests change: seconds of invisibility and between polls (poll_max None = host.json's)."""

    invisibility: int = 600
    poll_min: float = 0.1
    poll_max: float | None = None


class Listener:
    """Serves one queue function until it's told to stop."""

    def __init__(
        self,
        plan: QueuePlan,
        worker: Worker,
        options: QueueOptions,
        tuning: Tuning,
        threads: Executor,
    ) -> None:
        """Take what to serve and how; a ValueError says what's wrong with the connection string."""
        self._plan = plan
        self._worker = worker
        self._options = options
        self._tuning = tuning
        self._poll_max = max(tuning.poll_max or options.max_polling_interval, tuning.poll_min)
        self._threads = threads
        self._store = Store(plan.connection, plan.queue)
        self._running: set[asyncio.Task[None]] = set()
        self._unreachable = False

    async def _storage(self, call: Callable[..., Any], *arguments: Any) -> Any:
        """Run a blocking storage call in the host's own threads; the worker's are for functions only."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, call, *arguments)

    async def prepare(self) -> None:
        """Create the queue if it's missing."""
        await self._storage(self._store.ensure)

    def close(self) -> None:
        self._store.close()

    async def run(self, stop: asyncio.Event) -> None:
        """Take and run messages until `stop`, then let the running ones finish."""
        stopping = asyncio.create_task(stop.wait())
        delay = self._tuning.poll_min
        while not stop.is_set():
            messages = await self._receive()
            for message in messages:
                if stop.is_set():
                    await self._quietly(self._store.hide, message, 0)
                else:
                    self._start(message)
            if messages:
                delay = self._tuning.poll_min
                while len(self._running) > self._options.new_batch_threshold and not stop.is_set():
                    await asyncio.wait({stopping, *self._running}, return_when=asyncio.FIRST_COMPLETED)
            else:
                await asyncio.wait({stopping}, timeout=delay)
                delay = min(delay * 2, self._poll_max)
        if self._running:
            await asyncio.wait(self._running)

    async def _receive(self) -> list[Message]:
        try:
            messages = await self._storage(
                self._store.receive, self._options.batch_size, self._tuning.invisibility
            )
        except AzureError as error:
            if not self._unreachable:
                log.error("queue %s can't be read: %s", self._plan.queue, _short(error))  # noqa: TRY400 - one line is enough
            self._unreachable = True
            # It may have been deleted under us, with its account or by a test.
            await self._quietly(self._store.ensure)
            return []
        self._unreachable = False
        return messages

    def _start(self, message: Message) -> None:
        task = asyncio.create_task(self._handle(message))
        self._running.add(task)
        task.add_done_callback(self._running.discard)

    async def _handle(self, message: Message) -> None:
        """Run one message to its end."""
        most = self._options.max_dequeue_count
        if message.dequeue_count > most:
            # It was delivered often enough, but its last run never came to an end.
            await self._bury(message, f"was delivered {message.dequeue_count} times")
            return
        try:
            body = self._decode(message.text)
        except ValueError:
            await self._bury(message, "isn't base64")
            return
        if await self._run(message, body):
            if not await self._quietly(self._store.delete, message):
                log.warning(
                    "message %s of %s couldn't be deleted and may come again", message.id, self._plan.queue
                )
        elif not self._store.has_poison:
            # Without a poison queue the host leaves it invisible, or it would fail in a tight loop.
            return
        elif message.dequeue_count >= most:
            await self._bury(message, f"failed {message.dequeue_count} times")
        else:
            await self._quietly(self._store.hide, message, int(self._options.visibility_timeout))

    async def _run(self, message: Message, body: bytes) -> bool:
        """Run the function, keeping the message invisible for as long as it takes."""
        done = asyncio.Event()
        renewing = asyncio.create_task(self._renew(message, done))
        try:
            return await self._worker.invoke_queue(
                self._plan.function, body, _metadata(message, self._plan.queue)
            )
        finally:
            # A renewal under way has to end first: it changes the receipt that the next call needs.
            done.set()
            await renewing

    async def _renew(self, message: Message, done: asyncio.Event) -> None:
        # The host renews at half of the time that is left.
        while True:
            try:
                await asyncio.wait_for(done.wait(), self._tuning.invisibility / 2)
            except TimeoutError:
                await self._quietly(self._store.hide, message, self._tuning.invisibility)
            else:
                return

    async def _bury(self, message: Message, why: str) -> None:
        if not self._store.has_poison:
            return
        log.warning("message %s of %s %s: moved to its poison queue", message.id, self._plan.queue, why)
        await self._quietly(self._store.bury, message)

    async def _quietly(self, call: Callable[..., Any], *arguments: Any) -> bool:
        """Do a storage call whose failure has no other consequence than that a message comes again."""
        try:
            return await self._storage(call, *arguments) is not False
        except AzureError as error:
            log.warning("queue %s: %s", self._plan.queue, _short(error))
            return False

    def _decode(self, text: str) -> bytes:
        """Give the body; a ValueError says that the text isn't what messageEncoding promises."""
        if not self._options.base64:
            return text.encode()
        try:
            return base64.b64decode(text.encode("ascii"), validate=True)
        except binascii.Error as error:
            raise ValueError(str(error)) from None


def _metadata(message: Message, queue: str) -> dict[str, str]:
    """Give the trigger metadata under the host's names, all as text."""
    return {
        "Id": message.id,
        "DequeueCount": str(message.dequeue_count),
        "PopReceipt": message.receipt,
        "InsertionTime": message.inserted.isoformat(),
        "ExpirationTime": message.expires.isoformat(),
        "NextVisibleTime": message.next_visible.isoformat(),
        "QueueTrigger": queue,
    }


def _short(error: AzureError) -> str:
    """Give the first line of an SDK error, which else runs over ten."""
    return str(error).split("\n", 1)[0]
