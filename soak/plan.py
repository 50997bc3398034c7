"""What a soak does, by its seed: how large the pieces are, when the host is killed, what people change. Pure."""

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

PAGES = 80
BATCH_PAGES = 2
LONGEST_PAUSE = 0.4
"""Seconds: longer than a batch takes, so that a kill may hit any step of it."""
LAST_KILL = 0.85
"""The share of the load after which no kill is planned, so that the last one does not come after its end."""
IN_FLIGHT = BATCH_PAGES + 1
"""Pages that a worker has read and not saved the place after: those of its batch, and the one that is fetched meanwhile."""
INVISIBILITY_SECONDS = 3
REAL_INVISIBILITY_MINUTES = 10
HOST_OPTIONS = (
    "--queue-invisibility",
    str(INVISIBILITY_SECONDS),
    "--poll-min",
    "0.05",
    "--poll-max",
    "0.5",
)

Verb = Literal["update", "create", "delete"]


@dataclass(frozen=True)
class Kill:
    """When so many records are in the store, and so many seconds later."""

    records: int
    pause: float


@dataclass(frozen=True)
class Edit:
    """What a person does at the vendor, to the row `rid` ("" for a new one)."""

    verb: Verb
    rid: str = ""


@dataclass(frozen=True)
class Plan:
    """`settings`: of the hub, so small that a load has many checkpoints, slices and hand-overs between the lanes."""

    records: int
    kills: tuple[Kill, ...]
    page: int

    @property
    def settings(self) -> Mapping[str, str]:
        return {
            "PAGE_RECORDS": str(self.page),
            "BATCH_RECORDS": str(self.page * BATCH_PAGES),
            "FRESH_SLICE_SECONDS": "2",
            "BULK_SLICE_SECONDS": "4",
            "LEASE_SECONDS": "15",
        }

    def most_calls(self, created: int, deleted: int) -> int:
        """How often the remote system may be asked for records, kills and all.

        Each page once, and one call to look at each deleted row. A kill may waste the pages that its worker had in
        flight. It may also hit between the sending of a slice's next message and the deletion of its own: then both
        come, two workers race, and the one that loses has wasted as many.
        """
        pages = -(-(self.records + created) // self.page)
        return pages + deleted + len(self.kills) * 2 * IN_FLIGHT


def make_plan(records: int, kills: int, seed: int) -> Plan:
    """Kills spread over the load; by every second seed or so the first one comes with the first page, before anything
    is stored: then the run that goes on reads everything and compares, else it goes on from the last checkpoint.
    """
    rng = random.Random(f"kills {seed}")
    part = records / max(1, kills)
    points = [int((number + rng.random()) * part * LAST_KILL) for number in range(kills)]
    if points and rng.random() < 0.5:
        points[0] = 0
    struck = tuple(Kill(point, rng.uniform(0, LONGEST_PAUSE)) for point in points)
    return Plan(records, struck, max(1, records // PAGES))


def make_edits(rows: Mapping[str, Mapping[str, Any]], seed: int) -> Sequence[Edit]:
    """A hundredth of the rows changes, as many are new or go as are a fifth of that; no row that another refers to goes."""
    rng = random.Random(f"people {seed}")
    parents = {values.get("_parentaccountid_value") for values in rows.values()}
    ids = sorted(rows)
    updates = max(20, len(ids) // 100)
    leaves = [rid for rid in ids if rid not in parents]
    edits = [Edit("update", rid) for rid in rng.choices(ids, k=updates)]
    edits += [Edit("delete", rid) for rid in rng.sample(leaves, updates // 5)]
    edits += [Edit("create")] * (updates // 5)
    rng.shuffle(edits)
    gone: set[str] = set()
    possible = []
    for edit in edits:
        if edit.rid not in gone:
            possible.append(edit)
        if edit.verb == "delete":
            gone.add(edit.rid)
    return possible
