"""Dynamics 365 and Odoo linked by workers that are killed, by SIGKILL, in the middle of what they do."""

import pytest

from tests.sync.two_sides import ENTITIES
from tests.sync.two_systems import (
    CONTACTS,
    assert_agree,
    assert_edits,
    assert_quiet,
    connect,
    edit_both,
    filled,
    keyed,
    made_keys,
    moment,
    person,
)
from tests.sync.workers import Workers

KILLS = max(2, CONTACTS // 50)


@pytest.fixture
def workers(systems):
    """Two, in place of the instances within this process."""
    workers = Workers(systems, 2, seed=1)
    try:
        systems.workers = workers.all
        yield workers
    finally:
        workers.end()


def test_workers_that_are_killed_lose_nothing_and_do_nothing_twice(systems, workers):
    """While all is made at the other side for the first time, with edits of both sides, and with deletes and creates."""
    counts = filled(systems)
    connect(systems, deletes="propagate")

    def settle():
        workers.kills = KILLS
        systems.settle()
        assert workers.kills <= 0

    settle()
    assert_agree(systems, counts)
    wanted = edit_both(systems, 3, ("contact", "opportunity"))
    settle()
    assert_agree(systems, counts)
    assert_edits(systems, wanted)
    moment(systems)
    gone = made_keys(systems, "opportunity")[:2]
    for name, key in zip("ab", gone, strict=True):
        side = systems.remotes[name]
        side.delete("opportunity", keyed("opportunity", side.rows("opportunity"))[key][0])
        side.add("contact", person(CONTACTS))
    systems.start("b", "full")  # without which Odoo tells of no delete
    settle()
    more = {"account": 0, "contact": 1, "opportunity": -len(gone)}
    assert_agree(systems, {each: counts[each] + more[each] for each in ENTITIES})
    assert not set(gone) & set(made_keys(systems, "opportunity"))
    assert_quiet(systems)
