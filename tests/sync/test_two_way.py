"""Sync in both directions under the seeded scheduler: every seed ends well, and the same seed is the same history."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from crm_core.model.record import Link, Record, Stamp
from crm_core.storage import layout
from crm_core.storage.records import Records, RecordWrite
from simulation.two_way.process import TENANT
from simulation.two_way.world import World
from tests.sync.directed import OneByOne, Steady

ROOT = Path(__file__).resolve().parents[2]
SEEDS, GROUP = 100, 10


@pytest.mark.parametrize("first", range(1, SEEDS + 1, GROUP))
def test_whatever_people_and_faults_do_all_places_agree_and_no_edit_is_lost(first):
    for seed in range(first, first + GROUP):
        verdict = World(seed).run()
        told = "\n".join([*verdict.history[-60:], *verdict.violations])
        assert verdict.good, f"make simulate-two-way SEED={seed}\n{told}"


UNMARKED = 40


@pytest.mark.parametrize("first", range(1, UNMARKED + 1, GROUP))
def test_nothing_is_made_twice_where_nothing_but_its_values_tells_what_was_made(first):
    for seed in range(first, first + GROUP):
        verdict = World(seed, unmarked=True).run()
        told = "\n".join([*verdict.history[-60:], *verdict.violations])
        assert verdict.good, f"make simulate-two-way SEED={seed} ARGS=--unmarked\n{told}"


@pytest.mark.parametrize("first", range(1, 21, GROUP))
def test_a_receiver_is_told_of_every_version_as_it_was_by_one_delivery(first):
    """Beside all of that, and none of that differs for it."""
    for seed in range(first, first + GROUP):
        verdict = World(seed, shape={"told": True}).run()
        told = "\n".join([*verdict.history[-60:], *verdict.violations])
        assert verdict.good, f"seed {seed}\n{told}"


FOUND = {
    "a row that is kept apart is taken for the one that was made": 6067,
    "there and back before anybody read it counts against a delete": 54650,
    "a delete without If-Match takes an edit along and the values are judged all the same": 52585,
}
"""Faults of the engine that seeds found beyond the first ones, and limits that the model did not know in full."""


@pytest.mark.parametrize("seed", FOUND.values(), ids=FOUND.keys())
def test_what_a_seed_found_once_stays_mended(seed):
    verdict = World(seed).run()
    assert verdict.good, "\n".join([*verdict.history[-60:], *verdict.violations])


class Beside:
    """A row of a thing at `r1`, where a search shows what was there twenty seconds ago; then the hub makes another."""

    def __init__(self, by="r1"):
        self.world = World(1, shape={"kinds": ("b", "a"), "directions": ("both", "both"), "match": True})
        self.thing = self.world.acts.begun("contact")
        self.server = self.world.servers["r1"]
        self.server.chance = Steady()
        self.fields = {"department": self.thing.tag, "email": "p@example.com", "last_name": "P"}
        self.row = self.server.create("contact", self.fields, by)

    def search(self, lag):
        """Gives how many rows it shows."""
        self.server.chance.lag = lag
        return len(self.server.search("contact", lambda fields: fields.get("email") == "p@example.com"))

    def link(self):
        fields, stamp = {"department": self.thing.tag}, Stamp("", "r1")
        links = {"r1": Link("live", rid=self.row.rid)}
        record = Record(
            layout.derived_record_id(TENANT, "r1", "contact", self.row.rid),
            "contact",
            fields,
            stamp,
            {},
            links=links,
        )
        write = RecordWrite(record.id, None, record)
        Records(self.world.table, OneByOne()).commit(TENANT, "contact", layout.bucket(record.id), [write])

    def told(self):
        """What is said of the hub's row."""
        self.server.create("contact", self.fields, "hub", marker="m")
        assert self.thing.twice is not bool(self.world.violations())
        return self.world.violations()


TOLD = ["r1 has c1 twice: ['r11', 'r12']"]


def test_a_row_that_the_search_before_a_create_could_not_show_yet_is_a_limit():
    beside = Beside()
    assert beside.search(lag=1.0) == 0
    assert beside.told() == []


def test_any_other_second_row_is_none():
    """Nobody searched; or the search showed the row; or it is the hub's own; or a record is linked to it."""
    assert Beside().told() == TOLD
    shown = Beside()
    assert shown.search(lag=0.0) == 1
    assert shown.told() == TOLD
    ours = Beside(by="hub")
    ours.search(lag=1.0)
    assert ours.told() == TOLD
    linked = Beside()
    linked.search(lag=1.0)
    linked.link()
    assert linked.told() == TOLD


class Known:
    """A row of a thing at `r1`, and the record of it, which knows what the row shows."""

    def __init__(self, kind="a"):
        self.world = World(
            1, shape={"kinds": (kind, "a"), "directions": ("pull", "pull"), "deletes_policy": "propagate", "match": False}
        )  # fmt: skip
        self.acts = self.world.acts
        self.thing = self.acts.begun("contact")
        self.acts.create("r1", self.thing, {"last_name": "P"}, again=False)
        [self.row] = self.world.servers["r1"].alive("contact")
        self.id = layout.derived_record_id(TENANT, "r1", "contact", self.row.rid)
        self.read()

    def read(self, **link):
        """The hub reads the row. `link`: what else its link says."""
        self.save(self.row.now.fields, **link)

    def save(self, fields, **link):
        store = Records(self.world.table, OneByOne())
        links = {"r1": Link("live", rid=self.row.rid, **link)}
        record = Record(self.id, "contact", fields, Stamp("", "r1"), {}, links=links)
        write = RecordWrite(self.id, store.get(TENANT, "contact", self.id), record)
        store.commit(TENANT, "contact", layout.bucket(self.id), [write])

    def edit(self, **fields):
        self.acts.edit("r1", "contact", self.row, fields)

    def edit_here(self, **fields):
        [change] = fields.items()
        self.world.scheduler.call("app", lambda: self.acts.app_edit("contact", self.id, lambda _: change))

    def delete(self):
        self.world.scheduler.call("app", lambda: self.acts.app_delete("contact", self.id))

    def deleted(self):
        """What is said of it at rest, after an app deleted the record."""
        self.delete()
        assert not self.thing.maybe
        self.world.checks.at_rest()
        return self.world.violations()

    def look(self):
        connector = self.world.stores.kinds["r1"].opened(self.world.servers["r1"], lambda _, call, __: call())
        self.world.scheduler.now += 1
        connector.get("contact", self.row.rid)
        self.world.scheduler.now += 1

    def back_without_it(self):
        """What is said of it at rest, after the hub deleted the row and something else revived the record."""
        self.world.servers["r1"].delete("contact", self.row.rid, "hub")
        self.save(self.row.states[0].fields)
        self.world.checks.at_rest()
        return self.world.violations()


TOLD_OF_LIFE = "c1 is dead, though nobody who deleted it knew {}"
TOLD_OF_VALUE = (
    "phone of c1 is None, where [#2 phone='1' at r1] are the last; all: [(#2 phone='1' at r1, [])]"
)


def test_there_and_back_before_anybody_read_it_is_no_edit_against_a_delete():
    """The hub has a value of its own meanwhile, which that system does not take."""
    known = Known()
    known.edit_here(phone="0")
    known.edit(phone="1")
    known.edit(phone=None)
    assert known.deleted() == []


def test_whatever_else_a_delete_did_not_know_is_one():
    """It stays; or there is another one, of another field or after it; or it was read before it was taken back."""
    stays = Known()
    stays.edit(phone="1")
    assert stays.deleted() == [TOLD_OF_LIFE.format("[#2 phone='1' at r1]")]
    beside = Known()
    beside.edit(phone="1", job_title="2")
    beside.edit(phone=None)
    assert beside.deleted() == [TOLD_OF_LIFE.format("[#3 job_title='2' at r1]")]
    after = Known()
    after.edit(phone="1")
    after.edit(phone=None)
    after.edit(phone="2")
    assert after.deleted() == [TOLD_OF_LIFE.format("[#4 phone='2' at r1]")]
    read = Known()
    read.edit(phone="1")
    read.read()
    read.edit(phone=None)
    assert read.deleted() == [TOLD_OF_LIFE.format("[#3 phone=None at r1]")]


def test_what_a_write_on_its_way_may_have_set_is_not_taken_back():
    """Nobody knows whether what is emptied was there before."""
    known = Known()
    known.edit(phone="1")
    known.read(behind={"phone": None}, inflight={"phone": ["1"]})
    known.edit(phone=None)
    assert not known.thing.edits[-1].undid


def test_an_edit_between_the_look_and_a_delete_without_if_match_is_a_limit():
    """Of that field alone; one that was emptied is one too."""
    known = Known("d")
    known.edit(job_title="0")
    known.read()
    known.delete()
    known.look()
    known.edit(phone="1")
    known.edit(job_title=None)
    assert known.back_without_it() == []
    assert known.thing.doubtful == {"phone", "job_title"}


def test_whatever_else_a_delete_takes_along_is_none():
    """Nobody looked; or not since the record is dead; or not before the edit; or it was read; or If-Match has to hold."""
    blind = Known("d")
    blind.delete()
    blind.edit(phone="1")
    assert blind.back_without_it() == [TOLD_OF_VALUE]
    early = Known("d")
    early.look()
    early.edit(phone="1")
    early.delete()
    assert early.back_without_it() == [TOLD_OF_VALUE]
    seen = Known("d")
    seen.delete()
    seen.edit(phone="1")
    seen.look()
    seen.edit(job_title="2")
    assert seen.back_without_it() == [TOLD_OF_VALUE]
    read = Known("d")
    read.delete()
    read.look()
    read.edit(phone="1")
    read.read()
    assert read.back_without_it() == [TOLD_OF_VALUE]
    guarded = Known("a")
    guarded.delete()
    guarded.look()
    guarded.edit(phone="1")
    assert guarded.back_without_it() == [TOLD_OF_VALUE]


def history(seed, hash_seed):
    """What the command prints, in a process of its own with its own order of sets."""
    command = [sys.executable, "-m", "simulation.two_way", "--seed", str(seed), "--verbose"]
    environment = {**os.environ, "PYTHONHASHSEED": hash_seed}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, check=False)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr
    return done.stdout


def test_a_seed_is_one_history_to_the_byte():
    first = history(11, "1")
    assert first == history(11, "2")
    assert first != history(12, "1")
    assert first.endswith(b"good\n")
    for told in (b"==== trouble 1", b"==== quiet 2", b"<- pull ", b"** the hub: ", b"edits "):
        assert told in first
