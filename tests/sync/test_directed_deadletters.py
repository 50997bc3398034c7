"""What a remote refuses waits for a person, as sequences of steps over the real engine (see directed.py)."""

from crm_core.model.connection import DEFAULT_TENANT as TENANT
from crm_core.sync import deadletters
from crm_core.sync.deadletters import Wanted
from tests.sync.directed import World, linked


def waiting(world, top=100):
    found, place = [], {}
    while place is not None:
        some, place = deadletters.page(world.engine, TENANT, Wanted(), place, top=top)
        found += some
    return found


def refused():
    """A phone that the second remote does not take."""
    world = linked("aa")
    world.servers["r2"].rejects = True
    world.edit(phone="bad")
    world.push("r2")
    return world


def test_a_value_that_was_discarded_is_not_asked_about_until_another_one_is_refused():
    world = refused()
    (found,) = waiting(world)
    source, found = deadletters.find(world.engine, TENANT, found.id, "key:test")
    source.discard(found, "never mind")
    world.settle()
    assert (waiting(world), world.items("refused")) == ([], set())
    assert world.everywhere("phone") == [["bad"], ["bad"], ["0"]]
    world.edit(phone="bad too")
    world.push("r2")
    (again,) = waiting(world)
    assert again.time > found.time
    assert world.items("refused") == {("refused", "r2")}
    world.servers["r2"].rejects = False
    world.edit(phone="1")
    world.settle()
    assert waiting(world) == []
    assert world.everywhere("phone") == [["1"]] * 3


def test_a_list_page_by_page_has_everything_once():
    world = World("aa")
    rids = [world.add("r1", phone="0", email=f"p{number}@example.com") for number in range(24)]
    world.pull("r1")
    world.settle()
    world.servers["r2"].rejects = True
    for rid in rids:
        world.change("r1", rid, phone="bad")
    world.pull("r1")
    world.push("r2")
    everything = {each.id for each in waiting(world)}
    for top in (1, 5):
        found = [each.id for each in waiting(world, top)]
        assert (len(found), set(found)) == (len(rids), everything)
