"""Workers of a hub that are processes of their own, and are killed in the middle of a job as if the machine had died."""

import json
import os
import random
import signal
import sys
import threading
from contextlib import ExitStack, closing
from datetime import timedelta

from crm_core.hub import Hub
from crm_core.settings import load
from crm_core.storage.azure import AzureTable, StorageAccount
from tests.sync.conftest import Prefixed
from tests.sync.pairs import AheadClock
from tests.sync.processes import Ended, Process, say

LATEST = 40
"""A worker that is to die does so at one of its first calls of another system: a table, a remote."""


class Workers:
    """Those of a pair; `kills`: how many of them are still to be killed, each at another call."""

    def __init__(self, pair, count, seed):
        self.pair = pair
        self.kills = 0
        self._rng = random.Random(seed)
        self._lock = threading.Lock()
        self.all = [Worker(self) for _ in range(count)]

    def last_call(self):
        """After how many calls the worker of the next job is to die; 0: it is not."""
        with self._lock:
            return self._rng.randrange(1, LATEST) if self.kills > 0 else 0

    def died(self):
        with self._lock:
            self.kills -= 1

    def end(self):
        for each in self.all:
            each.process.process.kill()
            each.process.end()


class Worker:
    """What a pair takes for a hub that handles messages."""

    def __init__(self, workers):
        self.workers = workers
        self.begin()

    def begin(self):
        pair = self.workers.pair
        self.process = Process("tests.sync.workers", "child")
        self.process.tell([pair.environ, pair.hub.table.prefix])

    def handle(self, lane, body, dequeue_count):
        """Raises Ended if the process dies over it; another one takes its place."""
        ahead = self.workers.pair.clock.ahead.total_seconds()
        self.process.tell([lane, body, dequeue_count, ahead, self.workers.last_call()])
        try:
            while (told := self.process.answer()) is not None:
                self.workers.pair.queue.send(*told)
        except Ended:
            assert self.process.end() == -signal.SIGKILL
            self.workers.died()
            self.begin()
            raise


# --- within the process ----------------------------------------------------------------------------------------------


class Outbox:
    """What is sent is sent at once, whatever becomes of the process."""

    def send(self, lane, body, delay=0.0):
        say([lane, body, delay])


class Calls:
    """Counts the calls of other systems, before each and after it; at the last one the process is killed."""

    def __init__(self):
        self.left = 0
        self._lock = threading.Lock()

    def pass_by(self):
        with self._lock:
            self.left -= 1
            if self.left == 0:
                os.kill(os.getpid(), signal.SIGKILL)

    def around(self, call):
        def counted(*args, **kwargs):
            self.pass_by()
            result = call(*args, **kwargs)
            self.pass_by()
            return result

        return counted


class Counted:
    """A table port whose calls are counted."""

    def __init__(self, table, calls):
        self._table = table
        self._calls = calls

    def __getattr__(self, name):
        method = getattr(self._table, name)
        return method if name == "close" else self._calls.around(method)


def child():
    """The first line says which hub it works for, each further one what to handle, and after how many calls to die."""
    environ, prefix = json.loads(sys.stdin.readline())
    calls, clock = Calls(), AheadClock()
    with ExitStack() as stack:
        table = stack.enter_context(closing(AzureTable(StorageAccount(environ["AzureWebJobsStorage"]))))
        counted = Counted(Prefixed(table, prefix), calls)
        hub = stack.enter_context(closing(Hub(load(environ), clock=clock, table=counted, queue=Outbox())))
        hub.tools.transport.send = calls.around(hub.tools.transport.send)
        for line in sys.stdin:
            lane, body, dequeue_count, ahead, calls.left = json.loads(line)
            clock.ahead = timedelta(seconds=ahead)
            hub.handle(lane, body, dequeue_count)
            say(None)
