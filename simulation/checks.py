"""What must hold at rest: faults have stopped, all work is done."""

from collections.abc import Iterator
from datetime import timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from crm_core.model.connection import DEFAULT_TENANT
from crm_core.model.fields import hub_time
from crm_core.model.record import Record, open_items
from crm_core.model.state import EntityState, Run
from crm_core.ports import every_row
from crm_core.storage import layout
from crm_core.storage.records import Records, Tomb
from crm_core.storage.state import RunStore, States, StateStore, json_data
from simulation.host import LANES, MAX_DELIVERIES, Instance
from simulation.people import TABLE
from simulation.scheduler import SECOND, START, SimPool

if TYPE_CHECKING:
    from simulation.world import World

ENTITY = "account"
ATTENTION = "the connection needs a person"
MESSAGES = 6
"""Of the schedule at one time. A run that somebody asks for adds its own, and whatever makes one come twice another."""
CLOCKS_SECONDS = 10
"""Between the clocks of two workers at most (sync-semantics section 3)."""
# Said here once more, and not taken from the connector: what is compared must not come from what is tested.
MAPPED = {
    "name": "name",
    "city": "address1_city",
    "employees": "numberofemployees",
    "annual_revenue": "revenue",
    "description": "description",
    "updated_at": "modifiedon",
}


class Checks:
    """Reads the store directly, so that looking changes nothing and takes no time."""

    def __init__(self, world: "World") -> None:
        self._world = world
        self._records = Records(world.table, SimPool(world.scheduler))
        self._states = StateStore(world.table)
        self._runs = RunStore(world.table)
        self._successes: list[str] = []

    def _broken(self, text: str) -> None:
        self._world.watch.broken(text)

    def states(self) -> States:
        found = self._states.read(DEFAULT_TENANT, self._world.connection.uid)
        assert found is not None
        return found

    def _state(self) -> EntityState:
        return self.states().entities[ENTITY]

    def _all_runs(self) -> list[Run]:
        token, found = None, []
        while True:
            page, token = self._runs.page(DEFAULT_TENANT, top=1000, token=token)
            found += page
            if token is None:
                return found

    def _stored(self) -> Iterator[tuple[str, Record | Tomb]]:
        for bucket in layout.BUCKETS:
            for each in self._records.scan(DEFAULT_TENANT, ENTITY, bucket):
                assert isinstance(each.content, Record | Tomb), each
                yield each.id, each.content

    # --- is everything done? -------------------------------------------------------------------------------------

    def begin_quiet(self) -> None:
        self._successes.clear()

    def unfinished(self) -> str:
        """What is still to be done, "" for nothing. The cheap questions first: it is asked at every turn."""
        world = self._world
        if any(isinstance(task.owner, Instance) for task in world.scheduler.tasks.values()):
            return "somebody is at work"
        lanes = {lane: size for lane in LANES if (size := world.queue.size(lane))}
        if lanes:
            return f"messages wait: {lanes}"
        if world.scheduler.now < world.people.last_commit:
            return "late commits are to come"
        states = self.states()
        state = states.entities[ENTITY]
        if states.connection.health == "needs_attention":
            return ATTENTION
        if state.lease_run:
            return f"the lease is held by run {state.lease_run} until {state.lease_until}"
        if states.connection.health != "ok" or state.waits:
            return f"the connection is {states.connection.health}: {states.connection.problem}"
        runs = [f"run {each.id} is {each.status}" for each in self._all_runs() if self._is_owed(each)]
        if runs:
            return ", ".join(runs)
        return self._not_yet_read(state)

    def _is_owed(self, run: Run) -> bool:
        """Somebody has to end it. Not owed, and known to stay as they are:

        - a run whose process died between its row and its message, before the caller had an answer: it stays queued;
        - the row of a run of the schedule, made by a worker that had lost its lease in a pause and then failed before
          it saw that: it stays running.
        """
        if run.ended or run.id in self._world.watch.late_runs:
            return False
        return run.status != "queued" or run.id in self._world.caller.promised

    def _not_yet_read(self, state: EntityState) -> str:
        """Two successes later than the last commit: the second of them began after it."""
        after = START + timedelta(seconds=self._world.people.last_commit / SECOND + CLOCKS_SECONDS)
        late = state.last_success > hub_time(after)
        if late and state.last_success not in self._successes:
            self._successes.append(state.last_success)
        return (
            "" if len(self._successes) >= 2 else f"no pull since the last commit (last {state.last_success})"
        )

    # --- the state at rest ---------------------------------------------------------------------------------------

    def at_rest(self) -> None:
        world = self._world
        self._same_as_remote(deletes=world.shape.tracked)
        if not world.shape.tracked:  # the feed by time shows no deletes: a full run finds them
            self._run("full")
            self._same_as_remote(deletes=True)
        self._rows_are_whole()
        self._nothing_left_over()
        self._dead_letters_justified()
        self._same_by_api()

    def _rows(self) -> dict[str, dict[str, Any]]:
        return {rid: row.values for rid, row in self._world.remote.frame.store.table(TABLE).rows.items()}

    def _same_as_remote(self, *, deletes: bool) -> None:
        """Every live row has one live record with its values, and what is not there is marked here."""
        rows = self._rows()
        uid = self._world.connection.uid
        alive: dict[str, Record] = {}
        for _, record in self._stored():
            if isinstance(record, Tomb):
                continue
            link = record.links[uid]
            if link.state == "live":
                if link.rid in alive:
                    self._broken(f"{link.rid} has two live records")
                alive[link.rid] = record
            elif not record.fields.get("deleted_at"):
                self._broken(f"the record of {link.rid} is {link.state} but not marked")
        for rid, values in rows.items():
            if rid not in alive:
                self._broken(f"the remote row {rid} ({values.get('name')}) has no live record")
            else:
                self._same_values(rid, values, alive[rid])
        if deletes and (extra := sorted(alive.keys() - rows.keys())):
            self._broken(f"alive here though deleted at the remote: {', '.join(extra)}")

    def _same_values(self, rid: str, values: dict[str, Any], record: Record) -> None:
        for name, native in MAPPED.items():
            ours, theirs = record.fields.get(name), values.get(native)
            if isinstance(theirs, Decimal):
                ours = Decimal(ours) if ours is not None else None
            if ours != theirs:
                self._broken(f"{name} of {rid} is {ours!r} here and {theirs!r} at the remote")
        if record.fields.get("deleted_at"):
            self._broken(f"{rid} is alive and marked as deleted")
        if record.links[self._world.connection.uid].ver != str(values["versionnumber"]):
            self._broken(f"the link of {rid} has not the remote's version")

    def _rows_are_whole(self) -> None:
        """History and open items say what the records say."""
        wanted = set()
        for record_id, record in self._stored():
            if isinstance(record, Tomb):
                continue
            steps = [step.version for step in self._records.history(DEFAULT_TENANT, ENTITY, record_id)]
            if steps != list(range(2, record.version + 1)):
                self._broken(f"record {record_id} has version {record.version} and the history {steps}")
            wanted |= {(kind, uid, record_id) for kind, uid in open_items(record)}
        items = {
            item
            for bucket in layout.BUCKETS
            for item in self._records.open_items(DEFAULT_TENANT, ENTITY, bucket)
        }
        if items != wanted:
            self._broken(f"open items are {sorted(items)}, the records say {sorted(wanted)}")

    def _nothing_left_over(self) -> None:
        world, state = self._world, self._state()
        if state.lease_run or state.lease_until:
            self._broken(f"a lease is left over: {state.lease_run} until {state.lease_until}")
        if state.cursor is None or not ({"delta", "since"} & state.cursor.keys()):
            self._broken(f"the cursor is no place in the feed: {state.cursor}")
        runs = {each.id: each for each in self._all_runs()}
        bound = MESSAGES + 2 * world.caller.asked + world.host.repeats + world.faults.strikes()
        if world.host.most > bound:
            self._broken(f"{world.host.most} messages at one time are more than {bound}")
        for promised in world.caller.promised:
            if promised not in runs or not runs[promised].ended:
                self._broken(f"run {promised} was promised and is not ended")
        # A worker that dies or is overtaken leaves what its full run remembered; one that is not leaves nothing.
        if world.blob._blobs and not world.faults.struck:  # noqa: SLF001  # the port lists no names
            self._broken(f"blobs are left over: {sorted(world.blob._blobs)}")  # noqa: SLF001

    def _dead_letters_justified(self) -> None:
        """A dead letter is right only for a message that failed five times, each time struck by a fault."""
        for body, deliveries in self._world.host.poison:
            if len(deliveries) < MAX_DELIVERIES or not all(deliveries):
                self._broken(f"poison without a cause: {body} after {deliveries}")
        bodies = [body for body, _ in self._world.host.poison]
        for row in every_row(self._world.table, layout.DEADLETTERS, pk=DEFAULT_TENANT.name):
            letter = json_data(row)
            if letter["kind"] != "pull" or letter["body"] not in bodies:
                self._broken(f"a dead letter without a cause: {letter}")

    def _same_by_api(self) -> None:
        shown = self._world.scheduler.call("check", self._world.caller.records)
        stored = {record_id for record_id, each in self._stored() if isinstance(each, Record)}
        if shown.keys() != stored:
            self._broken(f"the API shows {len(shown)} records, the store holds {len(stored)}")

    # --- once more -----------------------------------------------------------------------------------------------

    def _run(self, mode: str) -> None:
        """A run that a caller waits for, without faults."""
        world = self._world
        run = world.scheduler.call(mode, lambda: world.caller.run(mode, spared=True))
        if not run and any(not each.ended for each in self._all_runs()):
            # A run that nobody works on stands in the way, for an hour.
            world.scheduler.run(lambda: False, 3700)
            run = world.scheduler.call(mode, lambda: world.caller.run(mode, spared=True))
        self.begin_quiet()
        if not world.scheduler.run(lambda: not self.unfinished(), 3600):
            self._broken(f"the {mode} run never ends: {self.unfinished()}")
            return
        found = self._runs.get(DEFAULT_TENANT, run) if run else None
        if found is None or found.status != "succeeded":
            self._broken(f"the {mode} run {run or 'was refused'}: {found}")

    def further_round(self) -> None:
        """What is equal stays as it is: another pull of everything writes no record."""
        before = self._all_rows()
        for mode in ("incremental", "full"):
            self._run(mode)
            after = self._all_rows()
            changed = sorted(key for key in before.keys() | after.keys() if before.get(key) != after.get(key))
            if changed:
                self._broken(f"a further {mode} run wrote {changed}")
        alive = sum(
            1 for _, each in self._stored() if isinstance(each, Record) and not each.fields.get("deleted_at")
        )
        if self._state().known != alive:
            self._broken(f"known is {self._state().known} after a full run of {alive} live records")

    def _all_rows(self) -> dict[tuple[str, str], str]:
        found = {}
        for bucket in layout.BUCKETS:
            pk = layout.records_pk(DEFAULT_TENANT, ENTITY, bucket)
            found.update(
                {(pk, row.rk): row.etag for row in every_row(self._world.table, layout.RECORDS, pk=pk)}
            )
        return found
