"""The real clock, ids and parallel work: the only place that imports time, random numbers and threads for them."""

import ctypes
import gc
import random
import secrets
import time
import uuid
from collections.abc import Callable, Sequence
from concurrent.futures import Future as ThreadFuture
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from contextvars import copy_context
from datetime import UTC, datetime
from typing import TypeVar

from crm_core.ports import Future

T = TypeVar("T")
R = TypeVar("R")

POOL_THREADS = 32
GARBAGE_AFTER = 50_000
"""New objects between two searches for cycles (Python's own number is 700): about those of a page."""
_ARENA_MAX = -8
"""M_ARENA_MAX of glibc's malloc.h."""


def search_garbage_seldom() -> None:
    """For a process of the hub: a page is many thousand objects that form no cycle and live until they are written, and
    looking through them again and again is a tenth of a load's CPU time. What is loaded by now stays, and is passed over.
    """
    gc.freeze()
    gc.set_threshold(GARBAGE_AFTER)


def share_one_heap() -> None:
    """For a process of the hub, before it starts threads: glibc gives each thread a heap of its own and keeps what is
    freed there for it. Pages are read by one thread after another, so a long load ends up with the room of a page in
    several heaps. Python's lock lets one thread run at a time: they don't get in each other's way in one.
    """
    with suppress(OSError, AttributeError, TypeError):  # not on glibc
        ctypes.CDLL(None).mallopt(_ARENA_MAX, 1)


class SystemClock:
    def now(self) -> datetime:
        return datetime.now(UTC)

    def monotonic(self) -> float:
        return time.monotonic()

    def sleep(self, seconds: float) -> None:
        time.sleep(seconds)


class SystemIds:
    def uuid(self) -> str:
        return str(uuid.uuid4())

    def token(self, size: int) -> str:
        return secrets.token_urlsafe(size)

    def fraction(self) -> float:
        return random.random()  # noqa: S311  # jitter, not a secret


class ThreadPool:
    """One pool of threads for a process. Its calls see the caller's context, so that meters count them."""

    def __init__(self, threads: int = POOL_THREADS) -> None:
        self._threads = threads
        self._executor: ThreadPoolExecutor | None = None

    def _submit(self, call: Callable[[], R]) -> ThreadFuture[R]:
        if self._executor is None:
            self._executor = ThreadPoolExecutor(self._threads, thread_name_prefix="crmhub")
        return self._executor.submit(copy_context().run, call)

    def map(self, call: Callable[[T], R], items: Sequence[T], width: int = 4) -> list[R]:
        """The caller's thread works too, so that a full pool slows work down but never stops it."""
        if len(items) < 2 or width < 2:
            return [call(item) for item in items]
        todo = iter(range(len(items)))
        results: dict[int, R] = {}
        failures: list[BaseException] = []

        def work() -> None:
            for index in todo:
                if failures:
                    return
                try:
                    results[index] = call(items[index])
                except BaseException as error:  # noqa: BLE001  # raised again in the caller's thread
                    failures.append(error)

        helpers = [self._submit(work) for _ in range(min(width, len(items)) - 1)]
        work()
        for helper in helpers:
            if not helper.cancel():
                helper.result()
        if failures:
            raise failures[0]
        return [results[index] for index in range(len(items))]

    def prefetch(self, call: Callable[[], R]) -> Future[R]:
        return self._submit(call)

    def close(self) -> None:
        if self._executor is not None:
            self._executor.shutdown(cancel_futures=True)
