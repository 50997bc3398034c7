"""What must hold at each write of the store or of a remote."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from crm_core.model.record import Record, open_items, same_value
from crm_core.ports import Operation
from crm_core.storage import layout
from crm_core.storage.records import HistoryEntry, Records
from simulation.scheduler import SimPool, Work
from simulation.two_way.model import Thing
from simulation.two_way.process import TENANT
from simulation.two_way.receiver import Version
from simulation.two_way.remotes import Going
from simulation.two_way.servers import KEPT, TAGS, ServerRow, stored
from simulation.watch import Watch

if TYPE_CHECKING:
    from simulation.two_way.setting import Setting


@dataclass
class Sent:
    """What a job has done so far. `transactions`: of records."""

    kind: str
    messages: int = 0
    transactions: int = 0


class Watching(Watch):
    """Broken invariants are kept in `violations`; the first one ends the simulation. `writes`: of the hub at remotes."""

    def __init__(self, world: "Setting") -> None:
        super().__init__(world.scheduler, world.history, lambda _: "")
        self.world = world
        self.writes = 0
        self._seen: dict[str, Record] = {}
        self.versions: dict[Version, Mapping[str, Any]] = {}
        self._jobs: dict[Work, Sent] = {}
        self._died: dict[str, int] = {}

    # --- the store -----------------------------------------------------------------------------------------------

    def wrote(self, table: str, operations: Sequence[Operation], etags: Sequence[str]) -> None:  # noqa: ARG002
        if table != layout.RECORDS:
            return
        if job := self._jobs.get(self.scheduler.current.work):
            job.transactions += 1
        pk = operations[0].row.pk
        entity = pk.split("~")[1]
        if entity not in self.world.shape.entities:
            return
        records = Records(self.world.table, SimPool(self.scheduler))
        ids = {each.row.rk.rsplit("~", 1)[-1] if each.row.rk[0] == "~" else each.row.rk
               for each in operations if not each.row.rk.startswith(("h~", "~event~"))}  # fmt: skip
        rows = {
            (kind, uid, record)
            for kind, uid, record in records.open_items(TENANT, entity, pk.split("~")[2])
            if record in ids
        }
        wanted: set[tuple[str, str, str]] = set()
        for record_id in sorted(ids):
            found = records.get(TENANT, entity, record_id)
            if found is None or not isinstance(found.content, Record):
                self._seen.pop(record_id, None)
                self.history.note(
                    self.scheduler.current.name, "=> {}", found.content if found else f"{record_id} gone"
                )
                continue
            wanted |= {(*item, record_id) for item in open_items(found.content)}
            self._record(found.content, records)
        if rows != wanted:
            self.broken(f"open items are {sorted(rows)}, the records say {sorted(wanted)}")

    def _record(self, record: Record, records: Records) -> None:
        who = self.scheduler.current.name
        self.history.note(
            who,
            "=> {} v{}{} {}",
            record.id,
            record.version,
            " dead" if record.dead else "",
            dict(record.fields),
        )
        for uid, link in record.links.items():
            told = {name: value for name, value in link.to_json().items() if name != "seen"}
            self.history.note(who, "     {} {}", uid, told)
        self._invariants(record)
        steps = list(records.history(TENANT, record.entity, record.id))
        if [each.version for each in steps] != list(range(2, record.version + 1)):
            self.broken(
                f"record {record.id} has version {record.version} and the history {[each.version for each in steps]}"
            )
        before = self._seen.get(record.id)
        self._seen[record.id] = record
        self.versions[record.entity, record.id, record.version] = record.fields
        if record.dead:
            self._died.setdefault(record.id, self.scheduler.now)
        self._asked(before, record)
        self._asked_which(record)
        if before is not None and before.version < record.version and steps:
            self._step(before, record, steps[-1])

    def _step(self, before: Record, record: Record, step: HistoryEntry) -> None:
        thing = self.world.acts.thing_of(record.entity, record.fields)
        for name, old in step.old.items():
            if old != before.fields.get(name):
                self.broken(
                    f"history of {record.id} says {name} was {old!r}, it was {before.fields.get(name)!r}"
                )
        if thing is None:
            return
        for name, loser in step.losers.items():
            if told := self._knew(thing, name, record.fields.get(name), loser):
                self.broken(f"a conflict about {name} of {thing.tag} is decided: {told}")
            self.world.model.decided(thing, name, record.fields.get(name), loser)

    def _asked(self, before: Record | None, record: Record) -> None:
        """A person is asked about edits that were made without knowing of each other, and about nothing else; by the
        policy `skip` also about what else came with one of those, until it is decided.
        """
        thing = self.world.acts.thing_of(record.entity, record.fields)
        if thing is None:
            return
        for uid, link in record.links.items():
            old = before.links[uid].conflict if before is not None and uid in before.links else {}
            known = {
                name: self._knew(thing, name, record.fields.get(name), asked["theirs"])
                for name, asked in link.conflict.items()
            }
            new = {name for name, asked in link.conflict.items() if old.get(name) != asked}
            if self.world.shape.policy == "skip":
                new = new - old.keys() if all(known.values()) else set()
            for name in sorted(new):
                if known[name]:
                    self.broken(f"a person is asked about {name} of {thing.tag}: {known[name]}")

    def _asked_which(self, record: Record) -> None:
        """Where a person has to say whether a row is what was made of a record, both show the same thing; that is a first
        link then, of which only time can decide.
        """
        thing = self.world.acts.thing_of(record.entity, record.fields)
        if not self.world.shape.unmarked or thing is None:
            return
        for each in record.reviews:
            other = self._seen.get(each["record"])
            thing.doubtful.add("*")
            thing.maybe = thing.united = True
            if other is not None and self.world.acts.thing_of(other.entity, other.fields) is not thing:
                self.broken(f"a person is asked whether {record.id} is {other.id}, another thing")

    def _knew(self, thing: Thing, name: str, one: Any, other: Any) -> str:
        """Whether one of two values was typed in knowledge of the other, and how; "" where that can't be told."""
        if {name, "*"} & thing.doubtful or thing.twice:
            return ""
        left = [each for each in thing.of(name) if self.is_same(name, each.value, one)]
        right = [each for each in thing.of(name) if self.is_same(name, each.value, other)]
        if len(left) == len(right) == 1 and (left[0] in right[0].upon or right[0] in left[0].upon):
            return f"of {left[0]} and {right[0]} one was made upon the other"
        return ""

    def _invariants(self, record: Record) -> None:
        for uid, link in record.links.items():
            what = f"{uid} of record {record.id}"
            if link.behind.keys() & link.echo.keys():
                self.broken(f"1: behind and echo of {what}")
            for name, held in link.behind.items():
                if (
                    same_value(record.entity, name, held, record.fields.get(name))
                    and name not in link.inflight
                ):
                    self.broken(f"2: {name} of {what} is behind with ours")
            if link.inflight and not link.attempt:
                self.broken(f"3: {what} has something on its way and no attempt")
            if wrong := link.conflict.keys() & set(KEPT):
                self.broken(f"{what} asks about {wrong}, which nobody writes")
            noted = link.conflict.keys() | link.waits.keys() | link.refused.keys()
            if noted - link.behind.keys() - link.echo.keys():
                self.broken(f"5: {what} notes {noted} of fields that are not behind")
        places = [(uid, link.rid) for uid, link in record.links.items() if link.state == "live"]
        for uid, rid in places:
            for other in self._seen.values():
                becomes_one = any(each["record"] == record.id for each in other.reviews)
                if other.id != record.id and other.entity == record.entity and not becomes_one:
                    theirs = other.links.get(uid)
                    if theirs is not None and theirs.state == "live" and theirs.rid == rid:
                        self.broken(f"{rid} is alive in {record.id} and in {other.id}")

    # --- messages -----------------------------------------------------------------------------------------------

    def begun(self, kind: str) -> None:
        self._jobs[self.scheduler.current.work] = Sent(kind)

    def sent(self) -> None:
        """What a job sends is bounded: one message to come back, one for each connection after each transaction."""
        job = self._jobs.get(self.scheduler.current.work)
        if job is None or job.kind == "deliver":
            return  # an app, or one message for each delivery that was refused
        job.messages += 1
        systems, entities = len(self.world.stores.connections), len(self.world.shape.entities)
        most = {
            "push": systems + 3,
            "held": systems * (1 + job.transactions),
            "tick": systems * entities * 5,
        }.get(job.kind, 3 + systems * (1 + job.transactions))
        if job.messages > most:
            self.broken(
                f"a job ({job.kind}) sends {job.messages} messages, after {job.transactions} transactions"
            )

    # --- the remotes ---------------------------------------------------------------------------------------------

    def about_to_write(self, uid: str, what: str, going: Going) -> None:
        """Nothing is written to what is only read, nor by a parked link, nor what was refused."""
        self.writes += 1
        if not self.world.stores.connections[uid].entities[going.entity].pushes:
            self.broken(f"the hub writes to {uid}, which is only pulled: {what}")
        if more := going.fields.keys() - self.world.writes(uid, going.entity):
            self.broken(f"the hub writes {sorted(more)} to {uid}, where they are only read: {what}")
        for record in self.world.records(going.entity):
            link = record.links.get(uid)
            if link is None or not going.where or going.where not in (link.rid, f"{record.id}.{link.gen}"):
                continue
            if link.parked:
                self.broken(f"{what}, though {record.id} is parked there: {link.parked}")
            again = [name for name, value in going.fields.items() if link.refused.get(name, going) == value]
            if again:
                self.broken(f"{what}, though {again} of {record.id} were refused")

    def changed(
        self, server: str, entity: str, row: ServerRow, before: Mapping[str, Any] | None, by: str
    ) -> None:
        fields = row.now.fields
        shown = fields if fields is not None else before or {}
        thing = self.world.acts.thing_of(entity, shown)
        if by == "hub":
            self.history.note(server, "** the hub: {} {}", row.rid, fields)
            self.world.touched(server, row.rid)
            if before is not None and thing is not None:
                self._written_over(server, row, before, thing)
        if fields is None or thing is None or thing.twice:
            return
        alive = [
            each
            for each in self.world.servers[server].alive(entity)
            if each.now.fields and each.now.fields.get(TAGS[entity]) == thing.tag
        ]
        if len(alive) < 2:
            return
        made = by == "hub" and before is None
        if made and all(self._nobody_could_know(server, entity, each) for each in alive if each is not row):
            self.history.note(
                "model", "-- {} is made beside a row that the search could not show yet", thing.tag
            )
            thing.twice = True
            return
        self.broken(f"{server} has {thing.tag} twice: {[each.rid for each in alive]}")

    def _nobody_could_know(self, server: str, entity: str, row: ServerRow) -> bool:
        """A person's row that the search before a create was answered without, since the index lags, is for the hub
        one that was made between search and create: a limit. Not what the hub made itself, whose claim tells of it
        (and has the hub wait for the index), nor a row that no search missed or that a record is linked to.
        """
        return (
            row.by != "hub"
            and row.missed
            and not any(
                link is not None and (link.state, link.rid) == ("live", row.rid)
                for link in (each.links.get(server) for each in self.world.records(entity))
            )
        )

    def _written_over(self, server: str, row: ServerRow, before: Mapping[str, Any], thing: Thing) -> None:
        """Without If-Match an edit between look and write is lost, and any between look and delete; that is a limit, and
        the model is told. Of a delete too which fields that were: another edit may bring the thing back, without them.
        """
        guarded = self.world.servers[server].kind.if_match
        after = row.now.fields
        if after is None:
            thing.maybe |= not guarded
        names = {each.name for each in thing.edits} if after is None else after.keys()
        for name in sorted(before.keys() | names):
            if after is not None and before.get(name) == after.get(name):
                continue
            lost = [
                each
                for each in thing.of(name)
                if each.place == server and self.is_same(name, each.value, before.get(name))
            ]
            held = self._held(thing, server, row.rid, name)
            if not lost or any(self.is_same(name, each, before.get(name)) for each in held):
                continue
            if after is None and (guarded or not self._looked_before(server, row, thing, name)):
                continue
            if guarded and held:
                self.broken(
                    f"{name} of {thing.tag} at {server} is overwritten, which nobody had read: {lost}"
                )
            self.history.note("model", "-- {} of {} may be lost: no If-Match", name, thing.tag)
            thing.doubtful.add(name)

    def _looked_before(self, server: str, row: ServerRow, thing: Thing, name: str) -> bool:
        """Whether somebody looked at a row that is deleted, its record being dead, and found a field not yet as it was last."""
        died = [
            self._died[each.id]
            for each in self.world.records(thing.entity)
            if each.id in self._died and server in each.links and each.links[server].rid == row.rid
        ]
        *states, last, _ = row.states
        assert last.fields is not None
        value, since = last.fields.get(name), last.at
        for each in reversed(states):
            if each.fields is None or each.fields.get(name) != value:
                break
            since = each.at
        return bool(died) and any(min(died) <= moment < since for moment in row.looks)

    def _held(self, thing: Thing, server: str, rid: str, name: str) -> list[Any]:
        """What the hub knows that the row holds, or may hold."""
        found: list[Any] = []
        for record in self.world.records(thing.entity):
            link = record.links.get(server)
            if link is not None and link.rid == rid:
                found += [link.held(name, record.fields.get(name)), *link.inflight.get(name, ())]
        return found

    def is_same(self, name: str, value: Any, other: Any) -> bool:
        if value == other:
            return True
        return (
            isinstance(value, str) and isinstance(other, str) and stored(name, value) == stored(name, other)
        )
