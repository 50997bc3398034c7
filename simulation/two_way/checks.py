"""What must hold at rest."""

from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from crm_core.model.fields import hub_time
from crm_core.model.record import Record, open_items
from crm_core.storage import layout
from crm_core.storage.deliveries import Deliveries
from crm_core.storage.held import Held
from crm_core.storage.records import Records
from crm_core.storage.state import RunStore, StateStore
from simulation.host import LANES, Instance
from simulation.scheduler import SECOND, START, SimPool
from simulation.two_way.model import Edit, Thing
from simulation.two_way.process import TENANT
from simulation.two_way.receiver import UID
from simulation.two_way.servers import KEPT, REFERENCES, TAGS, ServerRow, edited_names, stored

if TYPE_CHECKING:
    from simulation.two_way.setting import Setting


class Checks:
    """At rest: faults have stopped, all work is done. Reads the store directly, so that looking changes nothing."""

    def __init__(self, world: "Setting") -> None:
        self.world = world
        self.records = Records(world.table, SimPool(world.scheduler))
        self.states = StateStore(world.table)
        self.runs = RunStore(world.table)
        self.held = Held(world.table)
        self.deliveries = Deliveries(world.table, world.stores.blob)
        self._from = 0

    def _broken(self, text: str) -> None:
        self.world.watch.broken(text)

    def begin_quiet(self) -> None:
        self._from = self.world.scheduler.now

    def unfinished(self) -> str:
        """What is still to be done, "" for nothing."""
        world = self.world
        if world.scheduler.now < self._from + 150 * SECOND:
            return "just begun"
        if any(isinstance(task.owner, Instance) for task in world.scheduler.tasks.values()):
            return "somebody is at work"
        if any(each.dead for each in world.host.instances):
            return "a process is dead"
        lanes = {lane: size for lane in LANES if (size := world.stores.queue.size(lane))}
        if lanes:
            return f"messages wait: {lanes}"
        return self._not_pulled() or self._left_open()

    def _not_pulled(self) -> str:
        world = self.world
        after = hub_time(START + timedelta(seconds=self._from / SECOND + 60))
        for uid in world.servers:
            states = self.states.read(TENANT, uid)
            assert states is not None
            if states.connection.health != "ok":
                return f"{uid} is {states.connection.health}: {states.connection.problem}"
            for entity, state in states.entities.items():
                if state.lease_run or state.waits or state.push_due or state.push_run or state.push_wanted:
                    return f"{entity} of {uid}: {state}"
                if world.stores.connections[uid].entities[entity].pulls and state.last_success < after:
                    return f"{entity} of {uid} was not pulled"
        return ""

    def _left_open(self) -> str:
        world = self.world
        for entity in world.shape.entities:
            for bucket in layout.BUCKETS:
                for item in self.records.open_items(TENANT, entity, bucket, kind="push"):
                    return f"still to be pushed: {item}"
        for each in self.held.every(TENANT):
            return f"held: {each}"
        return self._not_told() if world.shape.told else ""

    def _not_told(self) -> str:
        for entity in self.world.shape.entities:
            for bucket in layout.BUCKETS:
                for item in self.records.open_items(TENANT, entity, bucket, kind=layout.EVENT_ITEM):
                    return f"still to be told: {item}"
        left, _ = self.deliveries.open(TENANT, UID, top=1, token=None)
        return f"deliveries on their way: {left}" if left else ""

    # --- the state at rest ---------------------------------------------------------------------------------------

    def at_rest(self) -> None:
        for entity in self.world.shape.entities:
            by_rid: dict[tuple[str, str], Record] = {}
            for record in self.world.records(entity):
                for uid, link in record.links.items():
                    if link.state == "live":
                        by_rid[uid, link.rid] = record
                    if link.attempt or link.deleting or link.inflight:
                        self._broken(f"{record.id} has an open attempt at {uid}")
                    if link.state == "creating":
                        self._broken(f"{record.id} has an open claim at {uid}")
                    if link.failed or link.parked:
                        self._broken(f"{record.id} has failed at {uid}: {link.failed} {link.parked}")
            self._rows(entity, by_rid)
            self._records_at_rest(entity)
        for thing in self.world.model.things.values():
            self._thing(thing)
        if self.world.shape.told:
            for text in self.world.stores.receiver.wrong(self.world.watch.versions):
                self._broken(text)

    def _rows(self, entity: str, by_rid: Mapping[tuple[str, str], Record]) -> None:
        """Each live row of a pulled remote has a record, which says the same."""
        for uid, server in self.world.servers.items():
            sync = self.world.stores.connections[uid].entities[entity]
            for row in server.alive(entity):
                record = by_rid.get((uid, row.rid))
                if record is None:
                    if sync.pulls:
                        self._broken(f"row {row.rid} of {uid} has no record: {row.now.fields}")
                    continue
                if record.dead and sync.pushes:
                    self._broken(f"row {row.rid} of {uid} lives, its record {record.id} is dead")
                if not record.dead:
                    self._same(uid, server, row, record, reads=sync.pulls)

    def _same(self, uid: str, server: Any, row: ServerRow, record: Record, *, reads: bool) -> None:
        assert row.now.fields is not None
        link, written = record.links[uid], self.world.writes(uid, record.entity)
        names = set(record.fields) | set(row.now.fields)
        for name in sorted(names - {"deleted_at", *KEPT}):
            ours, theirs = record.fields.get(name), row.now.fields.get(name)
            writes = name in written
            if name in REFERENCES:
                self._same_reference(uid, name, ours, theirs, record, row, writes=writes)
                continue
            kept = stored(name, ours) if server.kind.cut and isinstance(ours, str) else ours
            if theirs == kept or name in link.conflict:
                continue
            if ours is None and self._is_past(uid, name, record):
                continue
            if writes:
                self._broken(f"{name} of {record.id} is {ours!r} here and {theirs!r} at {uid} ({row.rid})")
            elif reads and link.echo.get(name) != theirs:
                self._broken(
                    f"{name} of {record.id}: {uid} holds {theirs!r}, the link says {link.echo.get(name)!r}"
                )

    def _is_past(self, uid: str, name: str, record: Record) -> bool:
        """A row that became a record of its own has what was once sent to it and no answer tells: one that was restored, or
        that was changed while nobody knew that a create had made it, and whose record was deleted meanwhile.
        """
        thing = self.world.acts.thing_of(record.entity, record.fields)
        apart = thing is not None and (thing.twice or self.world.shape.unmarked)
        return apart and name == self.world.stores.kinds[uid].hidden

    def _same_reference(
        self, uid: str, name: str, ours: Any, theirs: Any, record: Record, row: ServerRow, *, writes: bool
    ) -> None:
        if not writes:
            return
        target = self.records.find(TENANT, REFERENCES[name], ours) if ours else None
        link = target.links.get(uid) if target else None
        rid = link.rid if link is not None and link.state == "live" else None
        if target is not None and target.dead:
            return
        if rid is None or rid == theirs or target is None:
            return
        # A row that was made anew there: the hub does not write again what still leads to its record.
        derived = layout.derived_record_id(TENANT, uid, REFERENCES[name], str(theirs))
        if self.records.find(TENANT, REFERENCES[name], derived) != target:
            self._broken(f"{name} of {record.id} leads to {rid} of {uid}, where {row.rid} says {theirs!r}")

    def _records_at_rest(self, entity: str) -> None:
        rows, wanted = set(), set()
        for bucket in layout.BUCKETS:
            rows |= set(self.records.open_items(TENANT, entity, bucket))
        for record in self.world.records(entity):
            wanted |= {(*item, record.id) for item in open_items(record)}
        if rows != wanted:
            self._broken(f"open items are {sorted(rows)}, the records say {sorted(wanted)}")

    def _thing(self, thing: Thing) -> None:
        world = self.world
        tag = TAGS[thing.entity]
        records = [each for each in world.records(thing.entity) if each.fields.get(tag) == thing.tag]
        alive = [each for each in records if not each.dead]
        if len(alive) > 1 and not thing.twice:
            self._broken(f"{thing.tag} has {len(alive)} records: {[each.id for each in alive]}")
        for record in alive:
            self._everywhere(thing, record)
            self._values(thing, record)
        self._life(thing, records, alive)

    def _everywhere(self, thing: Thing, record: Record) -> None:
        """Each connection that pushes has it."""
        if any(each["kind"] == "match" for each in record.reviews):
            return
        for uid, connection in self.world.stores.connections.items():
            if not connection.entities[thing.entity].pushes or uid == UID:
                continue
            link = record.links.get(uid)
            if link is not None and link.state == "gone" and self.world.shape.deletes_policy != "propagate":
                continue
            if (
                link is None
                or link.state != "live"
                or self.world.servers[uid].get(thing.entity, link.rid) is None
            ):
                self._broken(f"{thing.tag} ({record.id}) is not at {uid}: {link}")

    def _values(self, thing: Thing, record: Record) -> None:
        for name in edited_names(thing.entity):
            ours = record.fields.get(name)
            typed = self.world.model.typed(thing, name)
            if thing.united:  # what the second row has is taken as that shows it
                typed |= {stored(name, each) if isinstance(each, str) else each for each in typed}
            if ours is not None and ours not in typed and not thing.twice:
                self._broken(
                    f"{name} of {thing.tag} is {ours!r}, which nobody typed: {sorted(map(str, typed))}"
                )
            if {name, "*"} & thing.doubtful or thing.twice:
                continue
            last = thing.last(name)
            if last and not any(self.world.watch.is_same(name, ours, each.value) for each in last):
                self._broken(
                    f"{name} of {thing.tag} is {ours!r}, where {last} are the last; all: {[(each, sorted(each.upon, key=lambda e: e.number)) for each in thing.of(name)]}"
                )

    def _life(self, thing: Thing, records: Sequence[Record], alive: Sequence[Record]) -> None:
        if thing.maybe or thing.twice or not records:
            return
        propagates = self.world.shape.deletes_policy == "propagate"
        pulled = {
            uid for uid, each in self.world.stores.connections.items() if each.entities[thing.entity].pulls
        }
        deletes = [
            each for each in thing.deletes if each.place == "hub" or (propagates and each.place in pulled)
        ]
        if not alive and not deletes:
            self._broken(f"{thing.tag} is dead, though nobody deleted it")
        every = set(thing.edits)
        if alive and any(each.known >= every for each in deletes):
            self._broken(f"{thing.tag} lives, though whoever deleted it knew all of it")
        # An edit there and back before anybody read it is none against a delete: nobody could tell.
        undone = {one for each in every if each.undid for one in (each, *each.undid)}
        lost = [
            edit
            for edit in sorted(every, key=lambda each: each.number)
            if edit not in undone and not any(each.may_know(edit) for each in thing.deletes)
        ]
        if not alive and deletes and not all(self._is_undone(thing, edit.name, lost) for edit in lost):
            self._broken(f"{thing.tag} is dead, though nobody who deleted it knew {lost}")

    def _is_undone(self, thing: Thing, name: str, lost: Sequence[Edit]) -> bool:
        """Whether a field has in the end what whoever deleted the thing saw: there and back is no edit."""
        ours = [each.value for each in lost if each.name == name]
        seen = [
            each.value for each in sorted(thing.of(name), key=lambda each: each.number) if each not in lost
        ]
        return self.world.watch.is_same(name, ours[-1], seen[-1] if seen else None)
