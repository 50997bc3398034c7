"""Two processes race over one Azurite and one Dataverse server: for a lease, a record, a state row, a token.

Each process has a hub of its own, as two instances of the app have.
"""

import json
import re
import select
import sys
from contextlib import ExitStack, closing
from dataclasses import replace
from urllib.parse import parse_qs

import pytest

from crm_core.connector import Change
from crm_core.hub import Hub
from crm_core.model.connection import DEFAULT_TENANT
from crm_core.model.entities import ENTITIES
from crm_core.model.fields import hub_time
from crm_core.ports import RowChanged
from crm_core.settings import load
from crm_core.storage import layout
from crm_core.storage.azure import AzureTable, StorageAccount
from crm_core.storage.records import HistoryEntry, RecordWrite
from crm_core.sync.apply import Applier
from crm_core.sync.engine import Job
from crm_core.sync.merge import Snapshot
from sandbox.dynamics365.reading import read_skiptoken
from tests.sync.conftest import Prefixed, environment
from tests.sync.processes import Process, say

SMALL = {"PAGE_RECORDS": "6", "BATCH_RECORDS": "12"}
ROWS, ROUNDS = 24, 5
COUNTS = 60

# --- one process of a race -------------------------------------------------------------------------------------------


class Outbox:
    """What the hub of this process sends, for the test to work off."""

    def __init__(self):
        self.sent = []

    def send(self, lane, body, delay=0.0):
        self.sent.append((lane, body))

    def take(self):
        sent, self.sent = self.sent, []
        return sent


def handle(hub, body):
    hub.handle(layout.FRESH, body, 1)
    return hub.queue.take()


def add_to_record(hub, record_id, name, times, versioned):
    """One more in a field of the record, so often, each time under the ETag that was read; gives how often in vain."""
    refused = 0
    while times:
        stored = hub.records.get(DEFAULT_TENANT, "account", record_id)
        before = stored.content
        count = before.fields.get(name, 0)
        after, step = replace(before, fields={**before.fields, name: count + 1}), None
        if versioned:
            after = replace(after, version=before.version + 1)
            step = HistoryEntry(after.version, hub_time(hub.clock.now()), "hub", "race", {name: count})
        write = RecordWrite(record_id, stored, after, step)
        written = hub.records.commit(DEFAULT_TENANT, "account", layout.bucket(record_id), [write]).written
        times -= len(written)
        refused += not written
    return refused


def add_to_state(hub, uid, name, times):
    """The same with a number of the entity's state row. As with the lease of a worker no two write the same row."""
    refused = 0
    while times:
        state = hub.states.read(DEFAULT_TENANT, uid).entities["account"]
        try:
            more = replace(state, known=state.known + 1, last_run=name)
            hub.states.save_entity(DEFAULT_TENANT, uid, "account", more)
        except RowChanged:
            refused += 1
        else:
            times -= 1
    return refused


def merge(hub, uid, rid, versions):
    """Merges what the remote said of a row at these versions; gives what came of them."""
    applier = Applier(hub.engine, DEFAULT_TENANT, ENTITIES["account"], hub.open(DEFAULT_TENANT, uid), "race")
    for version in versions:
        now = hub_time(hub.clock.now())
        change = Change(rid, {"name": "Contested", "phone": str(version)}, version=str(version))
        applier.apply([Snapshot(change, now, now)])
    return applier.tally.counts()


TASKS = {task.__name__: task for task in (handle, add_to_record, add_to_state, merge)}


def child():
    """Does what each line asks for and answers with a line. `open` gives it another hub, cold, over other tables."""
    with ExitStack() as stack:
        hub = None
        for line in sys.stdin:
            name, arguments = json.loads(line)
            if name == "open":
                stack.close()
                hub = opened(stack, *arguments)
                say("ready")
            else:
                say(TASKS[name](hub, *arguments))


def opened(stack, settings, prefix):
    table = stack.enter_context(closing(AzureTable(StorageAccount(settings["AzureWebJobsStorage"]))))
    hub = Hub(load(settings), table=Prefixed(table, prefix), queue=Outbox())
    stack.enter_context(closing(hub))
    hub.table.get(layout.STATE, "warm", "warm")  # loads the SDK before the race begins
    return hub


# --- the race --------------------------------------------------------------------------------------------------------


class Race:
    def __init__(self, bench, racers):
        self.bench = bench
        self.racers = racers

    def run(self, one, other, watch=lambda: None):
        """Both tasks at once; `watch` is called again and again meanwhile. Gives what both answered."""
        for racer, task in zip(self.racers, (one, other), strict=True):
            racer.tell(task)
        while not all(racer.has_answered() for racer in self.racers):
            watch()
            select.select([racer.process.stdout for racer in self.racers], [], [], 0.002)
        return [racer.answer() for racer in self.racers]


@pytest.fixture(scope="module")
def racers():
    racers = [Process("tests.sync.test_races", "child") for _ in range(2)]
    try:
        yield racers
        assert [racer.end() for racer in racers] == [0, 0]
    finally:
        for racer in racers:
            racer.process.kill()


@pytest.fixture
def race(racers, bench, azurite, request):
    """Both processes over the bench's tables and server; with the bench's settings."""
    more = request.node.callspec.params.get("bench", {}) if hasattr(request.node, "callspec") else {}
    settings = environment(azurite, bench.remote, **more)
    race = Race(bench, racers)
    task = ["open", [settings, bench.hub.table.prefix]]
    assert race.run(task, task) == ["ready", "ready"]
    return race


class Cursors:
    """Looks at the state row again and again: how far the cursor is, as the server's version."""

    def __init__(self, bench):
        self.bench = bench
        self.places = []

    def __call__(self):
        cursor = self.bench.state().cursor
        place = place_of(cursor) if cursor else 0
        if self.places[-1:] != [place]:
            self.places.append(place)


def place_of(cursor):
    query = parse_qs(cursor["delta"])
    if "$deltatoken" in query:
        return int(re.match(r"\d+", query["$deltatoken"][0])[0])
    return read_skiptoken(query["$skiptoken"][0])[1]["n"]


def run_rows(bench):
    return {run.id: run for run in bench.hub.runs.page(DEFAULT_TENANT, top=200, token=None)[0]}


def loaded(bench):
    """A connection whose rows are in the store; gives their ids."""
    rids = [bench.remote.create(f"Row {number}") for number in range(ROWS)]
    bench.connect()
    assert bench.pull().status == "succeeded"
    return rids


def changed(bench, rids, number):
    for rid in rids:
        bench.remote.update(rid, name=f"Name {number}")


def assert_each_once(bench, rids, version):
    """Every change is in the store, once, with its history."""
    bench.assert_equal()
    for rid, record in bench.stored().items():
        assert rid in rids
        assert record.version == version
        steps = [step.version for step in bench.hub.records.history(DEFAULT_TENANT, "account", record.id)]
        assert steps == list(range(2, version + 1))


def settle(bench, answers):
    """Works off what the two have sent, and what is left with a lease."""
    for lane, body in (message for sent in answers for message in sent):
        bench.queue.send(lane, body)
    bench.work()
    bench.hub.tick()
    bench.work()


@pytest.mark.parametrize("bench", [SMALL], indirect=True)
def test_of_two_that_want_one_lease_one_works_and_the_other_steps_back(bench, race):
    rids = loaded(bench)
    cursors = Cursors(bench)
    job = ["handle", [Job("pull", DEFAULT_TENANT, bench.connection.uid, "account").to_message()]]
    before = run_rows(bench)
    for number in range(ROUNDS):
        changed(bench, rids, number)
        bench.due()
        asked = bench.remote.requests()
        assert race.run(job, job, cursors) == [[], []]
        asked = bench.remote.requests() - asked
        (run,) = [each for run_id, each in run_rows(bench).items() if run_id not in before]
        before = run_rows(bench)
        assert (run.status, run.read, run.counts["updated"]) == ("succeeded", ROWS, ROWS)
        # The other looks at one page at most; each process asks once for the owners and the currencies.
        assert ROWS // 6 <= asked <= ROWS // 6 + 1 + 2 * 2
        assert bench.state().lease_run == ""
        assert_each_once(bench, rids, number + 2)
    assert cursors.places == sorted(cursors.places)
    assert len(cursors.places) > ROUNDS  # checkpoints were seen, not only ends


@pytest.mark.parametrize(
    "bench", [SMALL, {**SMALL, "LEASE_SECONDS": "0.01"}], indirect=True, ids=["held", "lapsing"]
)
@pytest.mark.parametrize("same", [True, False], ids=["one message twice", "two messages"])
def test_however_the_lease_changes_hands_nothing_is_lost_and_no_cursor_goes_back(bench, race, same):
    """A message that is delivered twice belongs to one run, whose workers may take over from each other at any time."""
    rids = loaded(bench)
    cursors = Cursors(bench)
    for number in range(ROUNDS):
        changed(bench, rids, number)
        bench.due()
        run = bench.hub.start_run(DEFAULT_TENANT, "demo", [], "incremental", "key:test")
        (message,) = bench.queue.receive(layout.FRESH)
        assert bench.queue.delete(layout.FRESH, message)
        other = message.body if same else Job("pull", DEFAULT_TENANT, run.connection, "account").to_message()
        settle(bench, race.run(["handle", [message.body]], ["handle", [other]], cursors))
        assert bench.run(run.id).status == "succeeded"
        assert bench.state().lease_run == ""
        assert_each_once(bench, rids, number + 2)
        cursors()
        assert bench.pull().read == 0  # the cursor stands behind all that was read
    assert cursors.places == sorted(cursors.places)
    assert all(each.ended for each in run_rows(bench).values())


def until_they_meet(race, tasks, met=lambda answers: min(answers) > 0):
    """Lets two workers do this until they came in each other's way: each was refused something by the other.

    Gives what both answered, round by round. `tasks` gives a round's two tasks. A busy machine may let one of them
    be done before the other begins, so that a round proves nothing.
    """
    rounds = []
    while not rounds or not met(rounds[-1]):
        assert len(rounds) < 20, "they never met"
        rounds.append(race.run(*tasks(len(rounds))))
    return rounds


@pytest.mark.parametrize("versioned", [True, False], ids=["with its history", "by its ETag alone"])
def test_no_update_of_one_record_is_lost(bench, race, versioned):
    rid = bench.remote.create("Contested")
    bench.connect()
    bench.pull()
    record = bench.stored()[rid]
    tasks = [["add_to_record", [record.id, name, COUNTS, versioned]] for name in ("one", "other")]
    counted = len(until_they_meet(race, lambda number: tasks)) * COUNTS
    record = bench.stored()[rid]
    assert (record.fields["one"], record.fields["other"]) == (counted, counted)
    assert record.version == (1 + 2 * counted if versioned else 1)
    steps = list(bench.hub.records.history(DEFAULT_TENANT, "account", record.id))
    assert [step.version for step in steps] == list(range(2, record.version + 1))
    for name in ("one", "other"):
        assert [step.old[name] for step in steps if name in step.old] == list(
            range(counted if versioned else 0)
        )


def test_no_update_of_one_state_row_is_lost(bench, race):
    bench.connect()
    tasks = [["add_to_state", [bench.connection.uid, name, COUNTS]] for name in ("one", "other")]
    rounds = until_they_meet(race, lambda number: tasks)
    assert bench.state().known == 2 * COUNTS * len(rounds)


def test_two_that_merge_versions_of_one_record_end_with_the_newest(bench, race):
    rid = bench.remote.create("Contested")
    bench.connect()
    bench.pull()
    first = int(bench.stored()[rid].links[bench.connection.uid].ver) + 1
    uid = bench.connection.uid

    def tasks(number):
        """The next versions: the odd ones for one worker, the even ones for the other."""
        begin = first + 2 * COUNTS * number
        return [["merge", [uid, rid, list(range(begin + each, begin + 2 * COUNTS, 2))]] for each in (0, 1)]

    rounds = until_they_meet(race, tasks, lambda counts: min(each["updated"] for each in counts) > 0)
    counts = [each for answers in rounds for each in answers]
    last = first + COUNTS * len(counts)
    record = bench.stored()[rid]
    assert (record.fields["phone"], record.links[uid].ver) == (str(last - 1), str(last - 1))
    assert sum(sum(each.values()) for each in counts) == COUNTS * len(counts)
    assert record.version == 1 + sum(each["updated"] for each in counts)  # what was counted is there
    steps = list(bench.hub.records.history(DEFAULT_TENANT, "account", record.id))
    assert [step.version for step in steps] == list(range(2, record.version + 1))
    values = [int(step.old["phone"] or 0) for step in steps] + [last - 1]
    assert values == sorted(set(values))  # no older version came over a newer one


def test_two_cold_processes_ask_for_one_token(bench, race):
    bench.remote.fault("delay", path="*/token", seconds=0.5)
    for number in range(ROWS):
        bench.remote.create(f"Row {number}")
    bench.connect()
    job = ["handle", [Job("pull", DEFAULT_TENANT, bench.connection.uid, "account").to_message()]]
    assert race.run(job, job) == [[], []]
    bench.remote.clear_faults()
    log = bench.remote.control("GET", "requests")
    assert sum(each["path"].endswith("/token") for each in log) == 1
    bench.assert_equal()
