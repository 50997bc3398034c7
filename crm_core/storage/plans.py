"""Where the decisions of a run are kept: lines of JSON in numbered blobs, told one by one and read page by page.

For whoever plans: a `PlanWriter` for each slice, begun at what the run's row says (`Parts.from_json`). `add` each decision;
`flush` before the run's row is saved, and save the `Parts` that it gives in that row, with the run's place: what a worker
wrote who died before that is in no row, and the next one writes those numbers anew under a mark of its own.
For whoever reads: `page` from a place, {} for the beginning, or `every` from the first to the last, both without more than
a piece of a part in memory.

A decision is any JSON object; the writer puts its `id` into it, its place in the plan from 0. Beside a decision go any
number of `Digest`s, by which a later slice, or whoever carries the plan out, knows again what was decided without reading
the plan: `digests`.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Any, NamedTuple

from crm_core.model.connection import Tenant
from crm_core.model.json_text import line_json
from crm_core.ports import Blob
from crm_core.storage import layout

PART_BYTES = 4 * 1024 * 1024
"""A part ends with the decision that reaches this."""
READ_BYTES = 256 * 1024
"""A piece of a part that is read at once."""
MAX_EXAMINED = 5000
"""Decisions that one page looks at: a filter that finds nothing must not read a whole plan."""
DIGEST_BYTES = 8
_NUMBER_DIGITS = 6


class Digest(NamedTuple):
    """`of`: what it is about; `says`: what was decided of it. 64 bits each, made by `digest`."""

    of: int
    says: int = 0


def digest(*parts: str) -> int:
    """64 bits of these texts, never 0."""
    data = hashlib.sha256("\x1f".join(parts).encode()).digest()
    return int.from_bytes(data[:DIGEST_BYTES], "big") or 1


@dataclass(frozen=True)
class Parts:
    """Which parts there are, as a run's row says it: how many, and how many decisions they hold. `marks`: of the workers
    who wrote them, each with the number of the first part that is its own.
    """

    parts: int = 0
    decisions: int = 0
    marks: tuple[str, ...] = ()

    @classmethod
    def from_json(cls, data: Mapping[str, Any] | None) -> "Parts":
        known = data or {}
        return cls(known.get("parts", 0), known.get("decisions", 0), tuple(known.get("marks", ())))

    def to_json(self) -> dict[str, Any]:
        return {"parts": self.parts, "decisions": self.decisions, "marks": list(self.marks)}

    def begun_by(self, mark: str) -> "Parts":
        """In the hands of a worker with a mark of its own: one that was overtaken must not write over another's."""
        kept = tuple(each for each in self.marks if int(each[:_NUMBER_DIGITS]) < self.parts)
        return replace(self, marks=(*kept, f"{self.parts:0{_NUMBER_DIGITS}}-{mark[:8]}"))

    def mark_of(self, number: int) -> str:
        """Of the worker who wrote a part."""
        return next(each for each in reversed(self.marks) if int(each[:_NUMBER_DIGITS]) <= number)


class PlanWriter:
    """The decisions of one slice of a run."""

    def __init__(self, blob: Blob, tenant: Tenant, run_id: str, parts: Parts, mark: str) -> None:
        """`parts`: what the run's row says; `mark`: random text, this worker's own."""
        self._blob, self._tenant, self._run = blob, tenant, run_id
        self.parts = parts.begun_by(mark)
        self._lines: list[bytes] = []
        self._digests: list[bytes] = []
        self._size = 0

    def add(self, decision: Mapping[str, Any], digests: Sequence[Digest] = ()) -> int:
        """Gives the place of the decision in the plan."""
        number = self.parts.decisions
        line = line_json({"id": number, **decision})
        self._lines.append(line)
        self._size += len(line) + 1
        self.parts = replace(self.parts, decisions=number + 1)
        self.note(digests)
        if self._size >= PART_BYTES:
            self._put()
        return number

    def note(self, digests: Sequence[Digest]) -> None:
        """Keeps digests that go with no decision."""
        self._digests.extend(number.to_bytes(DIGEST_BYTES, "big") for each in digests for number in each)

    def flush(self) -> Parts:
        """Everything added until now is in the parts that this gives: for the run's row."""
        if self._lines or self._digests:
            self._put()
        return self.parts

    def _put(self) -> None:
        name = layout.plan_blob(
            self._tenant, self._run, self.parts.parts, self.parts.mark_of(self.parts.parts)
        )
        self._blob.put(name, b"".join(line + b"\n" for line in self._lines))
        self._blob.put(layout.plan_digests(name), b"".join(self._digests))
        self._lines, self._digests, self._size = [], [], 0
        self.parts = replace(self.parts, parts=self.parts.parts + 1)


@dataclass(frozen=True)
class PlanReader:
    """What is in the parts of a run's plan."""

    blob: Blob
    tenant: Tenant
    run: str
    parts: Parts

    def page(
        self, place: Mapping[str, int], *, top: int, action: str = ""
    ) -> tuple[list[dict[str, Any]], dict[str, int] | None]:
        """(at most `top` decisions in the order of the plan, the place after them or None at the end).

        `action`: only those whose `action` it is, of at most MAX_EXAMINED: such a page can be short, or empty, and not
        the last.
        """
        found: list[dict[str, Any]] = []
        here: dict[str, int] = {"part": place.get("part", 0), "offset": place.get("offset", 0)}
        for examined, (decision, after) in enumerate(self._from(here), 1):
            here = after
            if not action or decision.get("action") == action:
                found.append(decision)
            if len(found) == top or examined == MAX_EXAMINED:
                break
        return found, None if self._is_end(here) else here

    def every(self) -> Iterator[dict[str, Any]]:
        """Every decision, in the order of the plan."""
        for decision, _ in self._from({"part": 0, "offset": 0}):
            yield decision

    def digests(self) -> Iterator[Digest]:
        """Of all decisions, in their order."""
        for number in range(self.parts.parts):
            data = self.blob.get(layout.plan_digests(self._name(number))) or b""
            for start in range(0, len(data), DIGEST_BYTES * 2):
                middle = start + DIGEST_BYTES
                yield Digest(
                    int.from_bytes(data[start:middle], "big"),
                    int.from_bytes(data[middle : middle + DIGEST_BYTES], "big"),
                )

    def _name(self, number: int) -> str:
        return layout.plan_blob(self.tenant, self.run, number, self.parts.mark_of(number))

    def _from(self, place: Mapping[str, int]) -> Iterator[tuple[dict[str, Any], dict[str, int]]]:
        """(decision, the place after it), from a place on."""
        offset = place["offset"]
        for number in range(place["part"], self.parts.parts):
            for line in self._lines(number, offset):
                offset += len(line) + 1
                yield json.loads(line, parse_float=Decimal), {"part": number, "offset": offset}
            offset = 0

    def _lines(self, number: int, offset: int) -> Iterator[bytes]:
        """Of one part, from an offset on, a piece in memory at a time."""
        name, rest = self._name(number), b""
        while piece := self.blob.get(name, offset, READ_BYTES):
            offset += len(piece)
            *lines, rest = (rest + piece).split(b"\n")
            yield from lines
            if len(piece) < READ_BYTES:
                return

    def _is_end(self, place: Mapping[str, int]) -> bool:
        """Whether nothing comes after a place: one small read, at the end of a part only."""
        for number in range(place["part"], self.parts.parts):
            if self.blob.get(self._name(number), place["offset"] if number == place["part"] else 0, 1):
                return False
        return True
