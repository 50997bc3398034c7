"""The figures of a plan: what of all that it read is left as it is."""

from simulation.two_way.remotes import KINDS
from tests.sync.directed import World
from tests.sync.planned import decisions, plan, said

UNTOLD = next(letter for letter, kind in KINDS.items() if not kind.tells_deletes)


def figures(planned) -> tuple[int, int, int, int]:
    counts = planned.counts
    return planned.read, counts.get("updated", 0), counts.get("deleted", 0), counts["unchanged"]


def test_deletes_that_a_comparison_found_are_none_of_the_rows_that_were_read():
    world = World(f"{UNTOLD}a")
    rids = [world.add("r1", email=f"p{number}@example.com") for number in range(6)]
    world.settle()
    world.later(600)
    for rid in rids[:2]:
        world.remove("r1", rid)
    world.change("r1", rids[2], phone="2")
    world.later(600)
    planned = plan(world, "r1", "full")
    assert sorted(action for action, _ in said(decisions(world, planned))) == ["delete", "delete", "update"]
    assert figures(planned) == (4, 1, 2, 3)


def test_deletes_that_the_feed_tells_are_rows_that_were_read():
    world = World("aa")
    rids = [world.add("r1", email=f"p{number}@example.com") for number in range(3)]
    world.settle()
    world.later(600)
    world.remove("r1", rids[0])
    world.change("r1", rids[1], phone="2")
    planned = plan(world, "r1")
    assert figures(planned) == (2, 1, 1, 0)


def test_a_delete_that_another_row_s_look_found_is_no_row_that_was_read():
    world = World("aa", match="email")
    first = world.add("r1", email="same@example.com")
    world.add("r1", email="other@example.com")
    world.settle()
    world.later(600)
    world.add("r1", email="same@example.com", phone="2")
    world.remove("r1", first)
    planned = plan(world, "r1", "full")
    assert sorted(action for action, _ in said(decisions(world, planned))) == ["delete", "later", "revive"]
    assert figures(planned) == (2, 1, 1, 1)
