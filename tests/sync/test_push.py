"""Two Dynamics tenants linked through the hub: what a person does on one side arrives on the other, once."""

from contextlib import closing

import pytest

from crm_core.hub import Hub
from crm_core.model.record import open_items
from crm_core.settings import load
from crm_core.storage.memory import MemoryBlob, MemoryQueue, MemoryTable
from tests.sync.conftest import environment
from tests.sync.pairs import SOON, AheadClock, Pair


@pytest.fixture
def pair(remote, second_remote, tmp_path):
    bundle = tmp_path / "ca.pem"
    bundle.write_bytes(remote.sandbox.ca.read_bytes() + second_remote.sandbox.ca.read_bytes())
    clock = AheadClock()
    queue = MemoryQueue(clock)
    settings = {**environment("UseDevelopmentStorage=true", remote), "CA_BUNDLE": str(bundle), **SOON}
    hub = Hub(load(settings), clock=clock, table=MemoryTable(), queue=queue, blob=MemoryBlob())
    with closing(hub):
        yield Pair([hub], queue, clock, {"a": remote, "b": second_remote})


def only(items):
    (item,) = items
    return item


def test_a_row_made_on_one_side_is_made_on_the_other_and_edits_go_both_ways(pair):
    rid = pair.remotes["a"].create("Contoso", values={"telephone1": "1"})
    pair.connect("a")
    pair.connect("b")
    pair.both()
    (other,) = pair.rows("b")
    assert pair.rows("b")[other]["name"] == "Contoso"
    pair.remotes["b"].update(other, telephone1="2")
    pair.both()
    assert pair.rows("a")[rid]["telephone1"] == "2"
    pair.remotes["a"].update(rid, name="Contoso SA")
    pair.both()
    assert pair.rows("b")[other]["name"] == "Contoso SA"
    record = only(pair.records())
    assert open_items(record) == frozenset()
    calls = {name: each.requests() for name, each in pair.remotes.items()}
    pair.both()
    assert {name: each.requests() - calls[name] for name, each in pair.remotes.items()} == {"a": 1, "b": 1}
    assert only(pair.records()) == record
    assert (len(pair.rows("a")), len(pair.rows("b"))) == (1, 1)
