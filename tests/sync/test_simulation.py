"""The whole hub under the seeded scheduler: every seed ends well, the same seed is the same history, and planted
faults are found.
"""

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from crm_core.model.connection import DEFAULT_TENANT
from crm_core.ports import Operation
from crm_core.storage import records, state
from crm_core.sync import failures, pull, schedule
from crm_core.sync.pulling import beginning
from simulation.scheduler import Crash
from simulation.world import World
from tests.sync.mutants_of_rules import delete_not_read_again, older_version_not_skipped
from tests.sync.mutants_of_steps import checkpoint_before_the_page, no_overlap

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


def state_rows_are_saved_unconditionally(patch):
    save = state.StateStore._replace
    patch.setattr(state.StateStore, "_replace", lambda self, *args: save(self, *args[:-1], "*"))


def a_lapsed_lease_is_not_revived(patch):
    for module in (schedule, beginning, failures):
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
    patch.setattr(pull.Puller, "_end_lapsed", lambda _: None)


FAULTS = {
    each.__name__: (each, seed)
    for each, seed in (
        (checkpoint_before_the_page, 1),
        (older_version_not_skipped, 110),
        (delete_not_read_again, 19),
        (state_rows_are_saved_unconditionally, 1),
        (no_overlap, 2),
        (a_lapsed_lease_is_not_revived, 1),
        (records_are_written_without_if_match, 24),
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
        patch.setattr(pull.Puller, "_checkpoint", lambda *_: (_ for _ in ()).throw(Crash))
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
