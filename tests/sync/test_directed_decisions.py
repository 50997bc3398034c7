"""What people decide while others do the same, and after something else has changed, each as its sequence of steps."""

from dataclasses import replace

import pytest

from crm_core.errors import Stale
from crm_core.model.fields import hub_time
from crm_core.sync import conflicts, explaining, resolving, resolving_many
from crm_core.sync.engine import Job
from tests.sync.directed import TENANT, World, linked

CONTACTS = {"entity": "contact", "kinds": ["value"]}


def asked(world):
    return [each for record in world.records() for each in conflicts.of(record)]


def by_name(world, last_name):
    return next(each for each in asked(world) if each.record.fields["last_name"] == last_name)


def done(world, task):
    run = resolving_many.start(world.engine, TENANT, task, "key:test")
    world.work()
    return world.engine.runs.get(TENANT, run.id)


def test_a_row_whose_record_became_another_one_and_that_a_third_is_read_again():
    """Two decisions in a chain. The row in the middle of it is nobody's any more, and a change of it is asked about."""
    world = World("aa", match="email")
    world.add("r1", last_name="Q", email="one@example.org", phone="1")
    world.settle()
    middle = world.add("r1", last_name="X", email="one@example.org", phone="2")
    world.settle()
    world.change("r1", middle, email="two@example.org")
    world.settle()
    last = world.add("r1", last_name="Y", email="two@example.org", phone="3")
    world.settle()
    for name in "YX":
        found = conflicts.find(world.engine, TENANT, by_name(world, name).id)
        resolving.resolve(world._editor(), found, "link")
        world.settle()
    assert len(world.records()) == 1
    world.change("r1", last, phone="9")
    world.add("r1", last_name="Other", email="other@example.org")
    world.pull("r1")
    names = {each.fields["last_name"]: each.fields.get("phone") for each in world.records()}
    assert names == {"Q": "1", "Y": "9", "Other": None}
    assert by_name(world, "Y").kind == "match"


def test_a_value_that_a_person_took_from_another_connection_counts_as_changed():
    """What was asked about when the first person looked is about another value of ours by then."""
    world = linked("aaa", policy="manual")
    world.edit(phone="hub")
    for uid, phone in (("r1", "one"), ("r2", "two")):
        world.change(uid, phone=phone)
        world.pull(uid)
    world.later(resolving_many.LATE.total_seconds() + 1)
    looked = resolving_many.Task({**CONTACTS, "connection": "r2"}, "ours", as_of=hub_time(world.clock.now()))
    seen = [each for each in asked(world) if each.connection == "r2"]
    shown = resolving_many.shown(seen, looked)
    assert shown == []
    world.later(60)
    resolving.resolve(
        world._editor(), next(each for each in asked(world) if each.connection == "r1"), "theirs"
    )
    run = done(world, replace(looked, shown=shown))
    assert run.counts == {"unchanged": 1}
    assert [(each.connection, each.about["theirs"]) for each in asked(world)] == [("r2", "two")]


@pytest.fixture
def remapped():
    """A conflict of a field that is mapped otherwise since, of a record that nobody has written yet since then."""
    world = linked("aa", policy="manual")
    world.edit(phone="1")
    world.change("r1", phone="2")
    world.pull("r1")
    world.work()
    since = {"contact": {"version": 1, "saved_at": "", "document": {}, "since": {"phone": 1}}}
    world._connections["r1"] = replace(world._connections["r1"], mappings=since)
    return world


def test_a_conflict_of_a_field_that_is_mapped_otherwise_since_is_refused(remapped):
    (conflict,) = asked(remapped)
    for take in ("ours", "theirs"):
        with pytest.raises(Stale):
            resolving.resolve(remapped._editor(), conflict, take)
    told = explaining.explain(remapped.engine, TENANT, remapped._editor(), conflict)
    assert told.conflict.field == "phone"
    assert done(remapped, resolving_many.Task(CONTACTS, "ours")).counts == {"unchanged": 1}


def test_one_that_fails_unexpectedly_keeps_no_other_from_being_decided(monkeypatch):
    world = linked("aa", policy="manual")
    world.edit(phone="1")
    world.change("r1", phone="2")
    world.pull("r1")
    broken = world.record().id
    run = resolving_many.start(world.engine, TENANT, resolving_many.Task(CONTACTS, "ours"), "key:test")
    real = resolving_many.resolve_all

    def raises(editor, choices):
        if choices[0].conflict.record.id == broken:
            raise ZeroDivisionError
        return real(editor, choices)

    monkeypatch.setattr(resolving_many, "resolve_all", raises)
    with pytest.raises(ZeroDivisionError):
        world.work()
    resolving_many.work(world.engine, Job("resolve", TENANT, "", "contact", run.id), "fresh", 3)
    ended = world.engine.runs.get(TENANT, run.id)
    assert (ended.status, ended.counts) == ("succeeded", {"failed": 1})
    assert "log of the function" in ended.cursor["left"][0]["why"]
