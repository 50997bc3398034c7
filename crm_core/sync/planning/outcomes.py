"""What became of each decision of a plan: which were carried out, and why the others were not."""

from array import array
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from heapq import merge
from itertools import islice
from typing import Any

from crm_core.model.connection import Tenant
from crm_core.model.record import Link, Record
from crm_core.storage import layout
from crm_core.storage.plans import Digest
from crm_core.storage.records import Stored
from crm_core.sync.engine import Engine
from crm_core.sync.planning.decisions import ASSIGNED, Decision, mark_of, place_of, push_of
from crm_core.sync.sides import Sides

SORTED_AT_ONCE = 20_000
OTHERWISE, HELD, UNREADABLE, TOO_LARGE = 1, 2, 3, 4
"""What is noted of a row whose decision was not carried out, where a digest else says what was decided."""

ALREADY = "It was so already."
WHY: Mapping[int, str] = {
    HELD: "The hub is making a record there just now, which this may be.",
    UNREADABLE: "The remote system's record can't be read now.",
    TOO_LARGE: "The record does not fit into a row of the store.",
}
NOT_MET = "The remote system does not show it any more as the plan had read it."
OTHER = "The remote system, or what the hub knows of it, is not as the plan had read it."
LATER = "It follows from another decision; the next pull brings it."


class Index:
    """Digests to be looked up, 16 bytes each."""

    def __init__(self, digests: Iterable[Digest]) -> None:
        self._of, self._says = array("Q"), array("Q")
        for each in merge(*_sorted(digests)):
            self._of.append(each.of)
            self._says.append(each.says)

    def says(self, of: int) -> Iterator[int]:
        """What was decided, or noted, of a row."""
        at = bisect_left(self._of, of)
        while at < len(self._of) and self._of[at] == of:
            yield self._says[at]
            at += 1

    def __contains__(self, digest: Digest) -> bool:
        return digest.says in self.says(digest.of)

    def has(self, decision: Decision) -> bool:
        """Whether a decision of a plan is in it, by what it says or by its place."""
        known = mark_of(decision)
        return (known is not None and known in self) or place_of(decision) in self


def _sorted(digests: Iterable[Digest]) -> list[Iterator[Digest]]:
    """In pieces, so that few at a time are ever more than 16 bytes."""
    left, pieces = iter(digests), list[Iterator[Digest]]()
    while piece := sorted(islice(left, SORTED_AT_ONCE)):
        pieces.append(_pairs(array("Q", (number for each in piece for number in each))))
    return pieces


def _pairs(numbers: "array[int]") -> Iterator[Digest]:
    for at in range(0, len(numbers), 2):
        yield Digest(numbers[at], numbers[at + 1])


@dataclass(frozen=True)
class Now:
    """How the records that decisions are about are now, by id."""

    rows: Mapping[str, Record]
    sides: Sides

    @classmethod
    def read(cls, engine: Engine, tenant: Tenant, entity: str, decisions: Sequence[Decision]) -> "Now":
        ids = list(dict.fromkeys(each["record_id"] for each in decisions if each["record_id"]))
        rows = stored_rows(engine, tenant, entity, ids)
        found = {each.id: each.content for each in rows if isinstance(each.content, Record)}
        return cls(found, engine.sides(tenant, entity))

    def is_so(self, decision: Decision) -> bool:
        """Whether the record is already as the decision would make it."""
        record = self.rows.get(decision["record_id"])
        link = record.links.get(decision["connection"]) if record else None
        if record is None or link is None:
            return False
        if decision["action"] == "delete":
            return link.state == "gone" and _holds(record, decision)
        if link.rid != decision["remote_id"] or link.state != "live":
            return False
        asked = [name for name, each in decision["conflicts"].items() if each["wins"] is None]
        return _holds(record, decision) and all(name in link.conflict for name in asked)

    def is_sent(self, decision: Decision) -> bool:
        """Whether nothing is left to send of the record, and it is there."""
        record = self.rows.get(decision["record_id"])
        link = record.links.get(decision["connection"]) if record else None
        if record is None or link is None or push_of(record, decision["connection"], self.sides) is not None:
            return False
        if decision["action"] == "delete":
            return link.state == "gone"
        return link.state == "live" and _holds(record, decision) and not trouble(link)

    def drift(self, decision: Decision, *, met: bool = False) -> str:
        """Why a decision does not hold any more, as far as the hub can tell. `met`: its row was read, and led to another one."""
        record = self.rows.get(decision["record_id"])
        if record is None and met:
            return OTHER
        if record is None:
            return NOT_MET if decision["action"] == "create" else "The hub has no such record any more."
        if decision["action"] == "create" and decision["remote_id"]:
            return "The hub has the record by now, in another way than planned."
        moved = [
            name
            for name, each in decision["fields"].items()
            if each["old"] != record.fields.get(name) and each["new"] != record.fields.get(name)
        ]
        if moved:
            return f"Changed at the hub since: {', '.join(moved)}."
        return OTHER


def _holds(record: Record, decision: Decision) -> bool:
    for name, each in decision["fields"].items():
        here = record.fields.get(name)
        if (here is None) if each["new"] == ASSIGNED else here != each["new"]:
            return False
    return True


def trouble(link: Link) -> str:
    """Why what was to be sent is not there."""
    if link.parked or link.failed:
        return str((link.parked or link.failed).get("message", ""))
    if link.refused:
        said = next((each.get("message", "") for each in link.why.values()), "")
        return f"Refused: {', '.join(sorted(link.refused))}. {said}".strip()
    if link.conflict:
        return f"A person has to decide about {', '.join(sorted(link.conflict))}."
    return f"It waits for another record: {', '.join(sorted(link.waits))}." if link.waits else ""


def stored_rows(engine: Engine, tenant: Tenant, entity: str, ids: Sequence[str]) -> list[Stored]:
    """The rows of these records, in their order."""
    found: dict[str, Stored] = {}
    buckets: dict[str, list[str]] = {}
    for each in ids:
        buckets.setdefault(layout.bucket(each), []).append(each)
    for part in engine.pool.map(
        lambda item: engine.records.read_many(tenant, entity, item[0], item[1], len(item[1])),
        list(buckets.items()),
    ):
        found |= part
    return [found[each] for each in ids if each in found]


def with_outcome(decision: Decision, outcome: str, why: str = "") -> dict[str, Any]:
    told = {name: each for name, each in decision.items() if name not in ("id", "mark")}
    return {**told, "outcome": outcome, "why": why or None}
