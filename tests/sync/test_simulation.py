"""The whole hub under the seeded scheduler: every seed ends well, the same seed is the same history, and planted
faults are found.
"""

import os
import subprocess
import sys
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from crm_core.connectors.dynamics365 import feed
from crm_core.model.connection import DEFAULT_TENANT
from crm_core.ports import Operation
from crm_core.storage import records, state
from crm_core.sync import failures, merge, pull, schedule
from crm_core.sync.merge import Verdict
from simulation.scheduler import Crash
from simulation.world import World

ROOT = Path(__file__).resolve().parents[2]
SEEDS, GROUP = 200, 10


def ended(seed):
    verdict = World(seed).run()
    told = "\n".join([*verdict.history[-60:], *verdict.violations])
    return verdict, f"python -m simulation --seed {seed}\n{told}"


@pytest.mark.parametrize("first", range(1, SEEDS + 1, GROUP))
def test_whatever_fails_everything_ends_well(first):
    for seed in range(first, first + GROUP):
        verdict, told = ended(seed)
        assert verdict.good, told


def history(seed, hash_seed):
    """What the command prints, in a process of its own with its own order of sets."""
    command = [sys.executable, "-m", "simulation", "--seed", str(seed), "--verbose"]
    environment = {**os.environ, "PYTHONHASHSEED": hash_seed}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, check=False)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr
    return done.stdout


def test_a_seed_is_one_history_to_the_byte():
    first = history(11, "1")
    assert first == history(11, "2")
    assert first != history(12, "1")
    assert first.endswith(b"good\n")
    for told in (b"==== trouble 1 of 3", b"=> record", b"<- pull account", b"remote GET accounts", b"!! "):
        assert told in first


# --- planted faults --------------------------------------------------------------------------------------------------


def checkpoint_before_the_batch(patch):
    apply_batch, checkpoint = pull._Pull._apply, pull._Pull._checkpoint

    def held_back(self, batch, applier):
        self.held_back = list(batch)

    def first(self, applier, cursor):
        checkpoint(self, applier, cursor)
        if batch := self.__dict__.pop("held_back", None):
            apply_batch(self, batch, applier)

    patch.setattr(pull._Pull, "_apply", held_back)
    patch.setattr(pull._Pull, "_checkpoint", first)


def older_versions_are_merged(patch):
    guard = merge.guard

    def planted(record, connection, snapshot, *, ordered):
        verdict = guard(record, connection, snapshot, ordered=ordered)
        older = verdict is Verdict.SKIP and snapshot.change.version != record.links[connection].ver
        return Verdict.MERGE if older else verdict

    patch.setattr(merge, "guard", planted)


def deletes_are_not_looked_at(patch):
    guard = merge.guard

    def planted(record, connection, snapshot, *, ordered):
        if snapshot.change.fields is None:
            return Verdict.MERGE
        return guard(record, connection, snapshot, ordered=ordered)

    patch.setattr(merge, "guard", planted)


def state_rows_are_saved_unconditionally(patch):
    save = state.StateStore._replace
    patch.setattr(state.StateStore, "_replace", lambda self, *args: save(self, *args[:-1], "*"))


def no_overlap(patch):
    patch.setattr(feed, "OVERLAP", timedelta(0))


def a_lapsed_lease_is_not_revived(patch):
    for module in (schedule, pull, failures):
        patch.setattr(module, "lapsed", lambda *_: False)


def records_are_written_without_if_match(patch):
    operations = records._operations

    def planted(pk, write):
        return [
            Operation(each.kind, each.row) if each.kind == "replace" else each
            for each in operations(pk, write)
        ]

    patch.setattr(records, "_operations", planted)


def an_overtaken_run_is_left_open(patch):
    patch.setattr(pull._Pull, "_end_lapsed", lambda _: None)


FAULTS = {
    each.__name__: (each, seed)
    for each, seed in (
        (checkpoint_before_the_batch, 1),
        (older_versions_are_merged, 4),
        (deletes_are_not_looked_at, 19),
        (state_rows_are_saved_unconditionally, 1),
        (no_overlap, 1),
        (a_lapsed_lease_is_not_revived, 1),
        (records_are_written_without_if_match, 59),
        (an_overtaken_run_is_left_open, 10),
    )
}
"""With a seed that finds it; where the code has moved on and it no longer does, another one has to.

Found by fewer than one seed in a hundred, so held by directed tests: a tomb that is ignored (test_holes.py), a first
load that begins anew without comparing (below).
"""


@pytest.mark.parametrize(("plant", "seed"), FAULTS.values(), ids=FAULTS.keys())
def test_a_planted_fault_is_found(plant, seed, monkeypatch):
    plant(monkeypatch)
    assert any(not World(each).run().good for each in (seed, *range(1, SEEDS + 1)))


# --- found by seeds, kept as directed tests ------------------------------------------------------------------------


def test_a_row_deleted_between_two_beginnings_of_a_first_load_does_not_live_on(memory_bench, monkeypatch):
    """Its record was made by the worker that died, and neither a new first read nor the delta after it shows it."""
    bench = memory_bench
    bench.remote.create("Stays")
    rid = bench.remote.create("Goes")
    bench.connect()
    with monkeypatch.context() as patch:
        patch.setattr(pull._Pull, "_checkpoint", lambda *_: (_ for _ in ()).throw(Crash))
        with pytest.raises(Crash):
            bench.pull()
    assert bench.state().cursor is None
    bench.remote.delete(rid)
    long_ago = replace(bench.state(), lease_until="2020-01-01T00:00:00.000000Z")
    bench.hub.states.save_entity(DEFAULT_TENANT, bench.connection.uid, "account", long_ago)
    bench.hub.tick()
    bench.work()
    assert bench.pull().status == "succeeded"
    bench.assert_equal()
