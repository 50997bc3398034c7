"""The measured process of a push: records that apps made or changed in the hub, from a message to the last answer.

The store is the in-memory one, which counts calls as the real one's do: the sink keeps no records to read.
"""

from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace

from benchmarks.worker import Bench, Cost, Task
from crm_core.model.connection import DEFAULT_TENANT, EntitySync
from crm_core.model.entities import ENTITIES
from crm_core.storage import layout
from crm_core.storage.memory import MemoryTable
from crm_core.sync.engine import Job

ENTITY = "contact"
BY = "key:benchmark"


@dataclass(frozen=True)
class PushResult:
    """What it cost to make the records there, and then to change a field of each."""

    create: Cost
    update: Cost


class Pushes(Bench):
    """What apps write in the hub, and its way out."""

    entities: Mapping[str, EntitySync] = {ENTITY: EntitySync("push")}

    def write(self, records: int) -> Sequence[str]:
        """Apps make so many; gives their ids."""
        editor = self.hub.editor(DEFAULT_TENANT, ENTITIES[ENTITY], BY)
        return [
            editor.create(
                {"first_name": "Ada", "last_name": f"Last {number}", "email": f"person{number}@example.com"}
            ).id
            for number in range(records)
        ]

    def change(self, ids: Sequence[str]) -> None:
        editor = self.hub.editor(DEFAULT_TENANT, ENTITIES[ENTITY], BY)
        for number, each in enumerate(ids):
            editor.update(each, {"phone": f"+51 {number}"})

    def push(self, records: int) -> Cost:
        """One wake-up instead of those of every write, as if they had come together."""
        for lane in layout.QUEUES:
            for message in self.queue.receive(lane, limit=10 * records):
                self.queue.delete(lane, message)
        self.hub.engine.send(layout.FRESH, Job("push", DEFAULT_TENANT, self.connection.uid, ENTITY))
        cost = self._cost(self._work)
        left = [
            item
            for bucket in layout.BUCKETS
            for item in self.hub.records.open_items(DEFAULT_TENANT, ENTITY, bucket)
        ]
        if left:
            raise RuntimeError(f"{len(left)} records were not pushed")
        return replace(cost, records=records)


def push(task: Task) -> PushResult:
    bench = Pushes(task, MemoryTable())
    with closing(bench.hub):
        bench.write(1)
        bench.push(
            1
        )  # as in a process that has met the owner of records; else several calls at once ask for it
        ids = bench.write(task.records)
        create = bench.push(task.records)
        bench.change(ids)
        return PushResult(create, bench.push(task.records))
