"""The applier that applies nothing: what it would write becomes decisions."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from crm_core.connector import Change
from crm_core.errors import HubError
from crm_core.log import Log
from crm_core.model.connection import Tenant
from crm_core.model.entities import Entity
from crm_core.storage.plans import Digest
from crm_core.storage.records import RecordWrite, Stored
from crm_core.sync.apply import Applier
from crm_core.sync.applying.base import Entry
from crm_core.sync.engine import Engine, Opened
from crm_core.sync.merge import Snapshot
from crm_core.sync.planning.decisions import Decision, mark, of_write, undecided
from crm_core.sync.planning.overlay import Follows, Numbers, Overlay, Unsent
from crm_core.sync.references import References

_log = Log("crm_core.sync")

FOLLOWS = "It follows from another decision of this plan; the next pull brings it."
OPEN_CREATE = "The hub is making a record there just now, which this may be; the next pull tells."

Told = tuple[Decision, list[Digest]]


@dataclass
class Decider(Applier):
    """`engine`: over the `overlay`. `tells`: is told what each batch led to, in the order in which its rows were read, with
    what it is known again by, and what is kept of the batch; `wary`: a record that raises is told as failed.
    `led`: by remote id the records that the keys of rows led to.
    Of a batch in which something follows from an earlier one only that is left out: the batch is halved until it is alone.
    """

    overlay: Overlay = field(kw_only=True)
    tells: Callable[[Sequence[Told], list[Digest]], None] = field(kw_only=True)
    wary: bool = False
    told: list[Told] = field(default_factory=list)
    led: dict[str, str] = field(default_factory=dict)

    def applied(self, snapshots: Iterable[Snapshot]) -> set[tuple[str, str]]:
        """Decides and tells; nobody is woken."""
        self._configure()
        batch = list(snapshots)
        self._decide_all(batch)
        order = {each.change.rid: number for number, each in enumerate(batch)}
        told, self.told = self.told, []
        told.sort(key=lambda each: order.get(each[0]["remote_id"], 0))
        self.tells(told, self.overlay.drop())
        return set()

    def _decide_all(self, snapshots: list[Snapshot]) -> None:
        before, begun, tally = self.overlay.mark(), len(self.told), replace(self.tally)
        try:
            self._apply_together(snapshots)
        except Follows:
            self.overlay.undo(before)
            del self.told[begun:]
            self.tally = tally
            self._halve(snapshots, None)
        except (HubError, AssertionError):
            raise
        except Exception as error:
            if not self.wary:
                raise
            self.overlay.undo(before)
            del self.told[begun:]
            self.tally = tally
            self._halve(snapshots, error)

    def _halve(self, snapshots: list[Snapshot], error: Exception | None) -> None:
        if len(snapshots) > 1:
            middle = len(snapshots) // 2
            self._decide_all(snapshots[:middle])
            self._decide_all(snapshots[middle:])
            return
        change = snapshots[0].change
        if error is None:
            self._tell("later", self.record_id(change.rid), change.rid, FOLLOWS)
        else:
            _log.bug("record can't be planned", error)
            self.set_aside(change, f"bug: {type(error).__name__}", "Bug")

    # --- what the steps of applying lead to ----------------------------------------------------------------------

    def _round(self, entries: list[Entry]) -> list[Entry]:
        free = [each for each in entries if not self.overlay.has_met(each.id)]
        for each in entries:
            if self.overlay.has_met(each.id):
                self._tell("later", each.id, each.rid, FOLLOWS)
        return super()._round(free) if free else []

    def _new_references(self) -> References:
        """Where a reference leads is not changed by what a record that it leads to becomes."""
        return References(
            self.engine.over(self.overlay.lenient(), self.engine.queue), self.tenant, self.entity
        )

    def _lead(self, entry: Entry, stored: Stored | None) -> str:
        self.led[entry.rid] = super()._lead(entry, stored)
        return self.led[entry.rid]

    def _written(self, write: RecordWrite, entry: Entry) -> None:
        decision = of_write(write, self.side, entry.rid, self.config)
        if decision is not None:
            self.told.append((decision, [mark(decision)]))

    def _note_written(self, writes: Sequence[RecordWrite]) -> None:
        """Nothing was written: what waits for a person in a plan waits in the plan alone."""

    def _hold(self, rid: str, seen: str = "") -> None:  # noqa: ARG002  # the step's parameters
        self._tell("later", self.record_id(rid), rid, OPEN_CREATE)

    def set_aside(self, change: Change, cause: str, code: str = "BadAnswer", field: str = "") -> None:
        self.tally.failed += 1
        decision = undecided("failed", self.side, self.record_id(change.rid), change.rid, cause)
        self.told.append(({**decision, "code": code, **({"field": field} if field else {})}, []))

    def _tell(self, action: str, record_id: str, rid: str, why: str) -> None:
        self.told.append((undecided(action, self.side, record_id, rid, why), []))


def rehearsed(
    engine: Engine, tenant: Tenant, entity: Entity, opened: Opened, snapshots: Iterable[Snapshot], **more: Any
) -> tuple[list[Decision], dict[str, str]]:
    """What some rows lead to as everything is just now, and of those that are seen for the first time the records that
    their keys lead to, by remote id; nothing of it is written. `more`: as of an `Applier`.
    """
    told: list[Told] = []
    overlay = Overlay(engine.records.table, Numbers())
    decider = Decider(
        engine.over(overlay, Unsent()),
        tenant,
        entity,
        opened,
        "",
        overlay=overlay,
        tells=lambda each, _: told.extend(each),
        **more,
    )
    decider.apply(snapshots)
    return [decision for decision, _ in told], decider.led
