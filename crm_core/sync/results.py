"""What a batch is told and what became of it: operations, their outcomes, and where a long one keeps both.

A long batch's operations are a blob until the run ends; its outcomes are a blob per part, which stays. The run's row
holds the marks of the parts and the batch's `Progress`.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from decimal import Decimal
from typing import Any

from crm_core.connector import UNKNOWN, Change, Outcome, Verb, Write, not_begun
from crm_core.errors import (
    BadAnswer,
    HubError,
    Stale,
    Unavailable,
    VersionMismatch,
    error_from_json,
    error_to_json,
)
from crm_core.model.connection import Tenant
from crm_core.model.json_text import dump_json
from crm_core.model.state import Run
from crm_core.ports import Pool, derived_id
from crm_core.sync.engine import Engine, Opened

PART_SIZE = 20
"""Operations between two saves, and so the most that a crash repeats; more if one remote call carries more."""
COUNTED: Mapping[Verb, str] = {"create": "created", "update": "updated", "delete": "deleted"}

Item = Write | HubError
"""An operation of a batch: what to write, or why it can't be."""


@dataclass(frozen=True)
class Result:
    """The outcome of the operation number `index`. `rid`: of the record, "" where it is not known."""

    index: int
    outcome: Outcome
    verb: Verb = "create"
    rid: str = ""

    def to_json(self, *, minimal: bool, raw: bool) -> dict[str, Any]:
        """As it is stored. `minimal`: without the record's fields; `raw`: with the remote's own answer."""
        data: dict[str, Any] = {"index": self.index, "verb": self.verb, "rid": self.rid}
        change = self.outcome.change
        if self.outcome.error is not None:
            data["error"] = error_to_json(self.outcome.error)
        elif change is not None:
            data["change"] = {"rid": change.rid, "version": change.version, "etag": change.etag}
            if not minimal:
                fields = change.fields or {}
                unknown = [name for name, value in fields.items() if value is UNKNOWN]
                known = {name: value for name, value in fields.items() if value is not UNKNOWN}
                data["change"] |= {"fields": known, "modified": change.modified}
                data["change"] |= {"raw": change.raw} if raw else {}
                data |= {"unknown": unknown} if unknown else {}
        return data

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> "Result":
        outcome = Outcome(error=error_from_json(data["error"])) if "error" in data else Outcome()
        if "change" in data:
            change = {"fields": {}, **data["change"]}
            change["fields"] |= dict.fromkeys(data.get("unknown", ()), UNKNOWN)
            outcome = Outcome(Change(**change))
        return cls(data["index"], outcome, data["verb"], data["rid"])


@dataclass(frozen=True)
class Progress:
    """The state of a batch in its run's row, beside `parts`, the marks of the blobs that hold its outcomes.

    `size`: operations of a part. `minimal`, `raw`: how the caller asked. `open`: a worker is at it, or died
    at it: what has no outcome in the part at hand may have been sent; `unsure` is what may have been although no
    worker died. `answered`: writes that the system answered; `tries`: operation -> how often the system failed at
    it although it could be read.
    """

    total: int
    size: int
    minimal: bool = False
    raw: bool = False
    open: bool = False
    answered: int = 0
    tries: Mapping[str, int] = field(default_factory=dict)
    unsure: Sequence[int] = ()

    @classmethod
    def start(cls, total: int, batch_size: int, *, minimal: bool, raw: bool) -> "Progress":
        return cls(total, max(PART_SIZE, batch_size), minimal, raw)

    @classmethod
    def of(cls, run: Run) -> "Progress":
        known = {each.name for each in fields(cls)}
        return cls(**{name: value for name, value in (run.cursor or {}).items() if name in known})

    def part_at_hand(self, run: Run) -> int:
        """The number of the part that is worked on: all before it are complete."""
        return run.read // self.size


def carry_out(
    opened: Opened, entity: str, items: Sequence[Item], pool: Pool, go_on: Callable[[], bool]
) -> list[Result]:
    """A short batch, while its caller waits: one result per item, in their order (`Connector.write` says the rest)."""
    writes = {index: item for index, item in enumerate(items) if isinstance(item, Write)}
    outcomes = iter(opened.connector.write(entity, list(writes.values()), pool, go_on))
    return [
        result_of(opened, index, item, next(outcomes))
        if isinstance(item, Write)
        else Result(index, Outcome(error=item))
        for index, item in enumerate(items)
    ]


def mismatch(error: VersionMismatch, if_match: str) -> HubError:
    """The caller's own If-Match does not hold: 412; without one it is the vendor's refusal."""
    if not if_match:
        return error
    return Stale("The record has changed since it was read; read it again and repeat the change.")


def result_of(opened: Opened, index: int, write: Write, outcome: Outcome) -> Result:
    if isinstance(outcome.error, VersionMismatch):
        outcome = Outcome(error=mismatch(outcome.error, write.if_match))
    change = outcome.change
    if change is not None and change.problem:  # written, and what the system says of it can't be read
        outcome = Outcome(error=BadAnswer(change.problem, system=opened.connector.name))
    return Result(index, outcome, write.verb, change.rid if change else write.rid)


# --- of a long one, stored ---------------------------------------------------------------------------------------


def keep_items(engine: Engine, tenant: Tenant, run: Run, items: Sequence[Item]) -> None:
    """Keeps the operations until the run ends, each create with an id of its own."""
    keyed = [
        replace(item, key=item.key or derived_id(tenant.name, run.id, str(index)))
        if isinstance(item, Write)
        else item
        for index, item in enumerate(items)
    ]
    engine.blob.put(_items_name(tenant, run), _items_data(keyed))


def results(engine: Engine, tenant: Tenant, run: Run, first: int, count: int) -> list[Result]:
    """The results from number `first` on that are known, at most `count` operations further; all, once the run has ended."""
    progress = Progress.of(run)
    known: dict[int, Result] = {}
    last = min(first + count, progress.total)
    for number in range(first // progress.size, -(-last // progress.size)):
        known |= part_of(engine, tenant, run, number)
    wanted = range(first, last)
    if run.ended:
        known = {index: known.get(index) or _missing(run, progress, index) for index in wanted}
    return [known[index] for index in wanted if index in known]


def closed(run: Run) -> Run:
    """A run that ends: what has no outcome failed too."""
    done = sum(run.counts.get(name, 0) for name in COUNTED.values())
    return replace(run, counts={**run.counts, "failed": Progress.of(run).total - done})


def forget_items(engine: Engine, tenant: Tenant, run: Run) -> None:
    """After the end of a run."""
    engine.blob.delete(_items_name(tenant, run))


def _missing(run: Run, progress: Progress, index: int) -> Result:
    """The result of an operation that a run which ended before its time left without one."""
    why = HubError(run.problem.message if run.problem else "the run was ended.")
    sent = index in progress.unsure or (
        progress.open and index // progress.size == progress.part_at_hand(run)
    )
    if not sent:
        return Result(index, Outcome(error=not_begun(why)))
    unknown = Unavailable(
        f"Whether this was carried out is not known: {why.message} Look before you repeat it.",
        outcome_unknown=True,
    )
    return Result(index, Outcome(error=unknown))


def _items_name(tenant: Tenant, run: Run) -> str:
    return f"runs/{tenant.name}/{run.id}/items"


def part_name(tenant: Tenant, run: Run, number: int, mark: str) -> str:
    """With a mark of its own: a worker that was overtaken must not write over another's."""
    return f"runs/{tenant.name}/{run.id}/outcomes/{number:04d}-{mark}"


def _items_data(items: Sequence[Item]) -> bytes:
    return dump_json(
        [vars(item) if isinstance(item, Write) else {"error": error_to_json(item)} for item in items]
    )


def items_of(engine: Engine, tenant: Tenant, run: Run) -> list[Item]:
    data = engine.blob.get(_items_name(tenant, run))
    if data is None:
        raise RuntimeError(f"the operations of run {run.id} are gone")
    return [
        error_from_json(each["error"]) if "error" in each else Write(**each)
        for each in json.loads(data, parse_float=Decimal)
    ]


def part_of(engine: Engine, tenant: Tenant, run: Run, number: int) -> dict[int, Result]:
    """By operation what a part holds; nothing while another worker replaces it."""
    if number >= len(run.parts):
        return {}
    data = engine.blob.get(part_name(tenant, run, number, run.parts[number])) or b"[]"
    found = (Result.from_json(each) for each in json.loads(data, parse_float=Decimal))
    return {result.index: result for result in found}
