"""`make soak`, smaller: a load whose host is killed at random points; and that its checks would see what is wrong."""

import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from soak import checks
from soak.checks import Stored
from soak.load import Load, Struck
from soak.plan import LAST_KILL, make_edits, make_plan
from soak.system import Asked

ROOT = Path(__file__).resolve().parents[2]
KILLS = 6


def soak(*arguments):
    command = [sys.executable, "-m", "soak", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)


@pytest.mark.soak
def test_a_load_whose_host_is_killed_ends_as_one_that_nobody_disturbs():
    done = soak("--records", "4000", "--kills", str(KILLS), "--seed", "2")
    said = done.stdout + done.stderr
    assert done.returncode == 0, said
    assert "\ngood, after " in said
    assert "the host hides a message for 3 s while its function runs, instead of 10 minutes" in said
    kills = re.findall(r"^ +(\d+) +\d+\.\d s ", said, flags=re.MULTILINE)
    assert kills == [str(number) for number in range(1, KILLS + 1)]


def test_more_kills_than_the_load_has_room_for_are_refused():
    done = soak("--records", "1000", "--kills", "9")
    assert done.returncode == 2
    assert "--kills: expected 0 to 5" in done.stderr


# --- the plan --------------------------------------------------------------------------------------------------------


def test_a_seed_is_one_plan_with_its_kills_spread_over_the_load():
    assert make_plan(4000, 10, 7) == make_plan(4000, 10, 7) != make_plan(4000, 10, 8)
    for seed in range(40):
        points = [kill.records for kill in make_plan(4000, 10, seed).kills]
        assert points == sorted(points)
        assert points[-1] < 4000 * LAST_KILL
    assert {make_plan(4000, 10, seed).kills[0].records == 0 for seed in range(40)} == {True, False}


def test_nobody_changes_what_is_deleted_and_nobody_deletes_what_others_refer_to():
    rows = {f"{n:04}": {"_parentaccountid_value": f"{n - 1:04}" if n % 9 else None} for n in range(4000)}
    edits = make_edits(rows, 3)
    assert edits == make_edits(rows, 3)
    gone = set()
    for edit in edits:
        assert edit.rid not in gone
        if edit.verb == "delete":
            gone.add(edit.rid)
            assert int(edit.rid) % 9 == 8
    assert len(gone) == 8


# --- the checks: each has to see its own kind of fault ---------------------------------------------------------------

RUN = {
    "status": "succeeded",
    "problem": None,
    "counts": {"failed": 0},
    "created_at": "2026-01-01T00:00:00.000000Z",
    "ended_at": "2026-01-01T00:01:00.000000Z",
}
NOON = 1767225600.0  # created_at
PLAN = make_plan(400, 1, 1)
LOAD = Load(RUN, Asked(80, 0, 1, 90), 60.0, [Struck(1.0, NOON + 1, 5, 2, 3.0)])
ROW = {
    "name": "Uno",
    "revenue": 12.5,
    "statecode": 0,
    "versionnumber": 7,
    "createdon": "2026-01-01T00:00:00Z",
    "modifiedon": "2026-01-01T00:00:00Z",
}
RECORD = {
    "id": "record-a",
    "etag": '"1"',
    "version": 1,
    "name": "Uno",
    "annual_revenue": "12.50",
    "status": "active",
    "created_at": "2026-01-01T00:00:00Z",
    "updated_at": "2026-01-01T00:00:00Z",
    "links": [{"connection": "killed", "id": "a", "state": "live", "version": "7"}],
}


def people(**more):
    return SimpleNamespace(**{"touched": {}, "deleted": set(), "created": set(), **more})


def stored(**changes):
    return checks.stored_of([{**RECORD, **changes}], "killed")


def test_what_is_well_is_well():
    system = SimpleNamespace(history=lambda _: [])
    found = [
        *checks._runs(LOAD, LOAD),
        *checks._kills(PLAN, LOAD),
        *checks._sets(people(), {"a": ROW}, stored(), stored()),
        *checks._values({"a": ROW}, stored()),
        *checks._same(stored(), stored(id="record-of-another-connection")),
        *checks._versions(system, people(), stored()),
        *checks._calls(PLAN, people(), LOAD),
    ]
    assert found == []


@pytest.mark.parametrize(
    "changes", [{"name": "Dos"}, {"annual_revenue": "12.51"}, {"status": "inactive"}, {"city": "Lima"}]
)
def test_a_wrong_value_is_seen(changes):
    assert len(list(checks._values({"a": ROW}, stored(**changes)))) == 1
    assert len(list(checks._same(stored(**changes), stored()))) == 1


def test_a_lost_row_and_one_too_many_are_seen():
    nothing = Stored({}, {})
    assert len(list(checks._sets(people(), {"a": ROW}, nothing, stored()))) == 1
    assert len(list(checks._sets(people(), {}, stored(), nothing))) == 1
    gone = Stored({}, {"a": {**RECORD, "deleted_at": "2026-01-01T00:00:00Z"}})
    assert list(checks._sets(people(deleted={"a"}), {}, gone, nothing)) == []
    assert len(list(checks._sets(people(), {}, gone, nothing))) == 1
    with pytest.raises(AssertionError, match="two records of a"):
        checks.stored_of([RECORD, RECORD], "killed")


def test_a_change_that_was_applied_twice_is_seen():
    system = SimpleNamespace(history=lambda _: [{"version": 1}, {"version": 2}])
    assert len(list(checks._versions(system, people(), stored(version=2)))) == 1
    assert list(checks._versions(system, people(touched={"a": 1}), stored(version=2))) == []
    system = SimpleNamespace(history=lambda _: [{"version": 1}])
    assert len(list(checks._versions(system, people(touched={"a": 1}), stored(version=2)))) == 1


def test_a_kill_outside_the_load_does_not_count():
    for struck in (
        Struck(0.0, NOON - 1, 0, 1, 1.0),
        Struck(61.0, NOON + 61, 400, 1, 1.0),
        Struck(1.0, NOON + 1, 0, 0, 1.0),
    ):
        assert len(list(checks._kills(PLAN, replace(LOAD, struck=[struck])))) == 1


def test_a_call_too_many_is_seen():
    most = PLAN.most_calls(0, 0)
    assert most < 2 * 80 + 6
    assert list(checks._calls(PLAN, people(), replace(LOAD, asked=Asked(most, 0, 1, 9)))) == []
    assert len(list(checks._calls(PLAN, people(), replace(LOAD, asked=Asked(most, 1, 1, 9))))) == 1
    assert len(list(checks._calls(PLAN, people(), replace(LOAD, asked=Asked(80, 0, 2, 9))))) == 1
