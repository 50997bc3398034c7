"""Many writes: one outcome for each, in their order; what is wrong with one is nobody else's."""

from crm_core.connector import Write
from crm_core.errors import BadRequest, RecordGone, VersionMismatch
from tests.contract.connectors.world import canon, differing, free_text, unique


def carried_out(world, variant, writes):
    outcomes = world.connector.write(variant.entity, writes, world.pool, lambda: True)
    assert len(outcomes) == len(writes)
    return outcomes


def as_read(world, variant, outcome):
    assert outcome.error is None, outcome.error
    read = world.connector.get(variant.entity, outcome.change.rid)
    assert read.fields == outcome.change.fields
    assert (read.version, read.etag) == (outcome.change.version, outcome.change.etag)
    return read


def test_many_creates_each_with_its_record(world, variant):
    given = [world.full(variant) for _ in range(5)]
    outcomes = carried_out(world, variant, [Write(each) for each in given])
    for fields, outcome in zip(given, outcomes, strict=True):
        read = as_read(world, variant, outcome)
        assert not differing(
            variant.map, fields, read.fields, lambda name, value: canon(variant.map, name, value)
        )


def test_good_and_bad_writes_have_each_their_own_outcome(world, variant):
    emap = variant.map
    name = world.text(variant)
    length = next((each.length for each in (emap.by_field[name],)), None)
    kept, stale, gone, removed = (world.make(variant) for _ in range(4))
    world.connector.delete(variant.entity, gone.rid)
    world.remote.person_updates(variant, stale.rid, {name: "a person's"})
    least = world.least(variant)
    writes = {
        "good": Write({**least, name: unique("good")}),
        "too long": Write({**least, name: "x" * ((length or 0) + 1)}),
        "update": Write({name: "new"}, verb="update", rid=kept.rid, if_match=kept.etag),
        "update of nothing": Write({name: "new"}, verb="update", rid=gone.rid),
        "update of an id that never was": Write(
            {name: "new"}, verb="update", rid=world.remote.missing, if_match=kept.etag
        ),
        "stale": Write({name: "ours"}, verb="update", rid=stale.rid, if_match=stale.etag),
        "delete": Write(verb="delete", rid=removed.rid, if_match=removed.etag),
        "delete of nothing": Write(verb="delete", rid=gone.rid),
        "good too": Write({**least, name: unique("good")}),
    }
    if length is None:
        del writes["too long"]
    if not world.connector.if_match:
        del writes["stale"]
    outcomes = dict(zip(writes, carried_out(world, variant, list(writes.values())), strict=True))
    for good in ("good", "good too"):
        assert as_read(world, variant, outcomes[good]).fields[name] == writes[good].fields[name]
    assert as_read(world, variant, outcomes["update"]).fields[name] == "new"
    assert (outcomes["delete"].error, outcomes["delete"].change) == (None, None)
    assert world.connector.get_many(variant.entity, [removed.rid]) == {}
    wrong = {
        "too long": BadRequest,
        "update of nothing": RecordGone,
        "update of an id that never was": RecordGone,
        "stale": VersionMismatch,
        "delete of nothing": RecordGone,
    }
    found = {each: type(outcomes[each].error) for each in wrong if each in outcomes}
    assert found == {each: kind for each, kind in wrong.items() if each in outcomes}
    assert world.connector.get(variant.entity, stale.rid).fields[name] == "a person's"


def test_many_rows_that_only_the_vendor_can_refuse(world, variant):
    """A reference to nothing: the others are carried out all the same."""
    references = [(n, e) for n, e in variant.map.by_field.items() if e.targets and e.writable]
    name, each = references[0]
    companion = variant.map.entity.by_name[name].companion
    bad = {name: world.remote.missing, **({companion: each.targets[0].entity} if companion else {})}
    least = world.least(variant)
    outcomes = carried_out(
        world, variant, [Write(least), Write({**least, **bad}), Write(world.least(variant))]
    )
    as_read(world, variant, outcomes[0])
    as_read(world, variant, outcomes[2])
    assert outcomes[1].error is not None
    assert [one.field for one in outcomes[1].error.errors] == [name]


test_many_rows_that_only_the_vendor_can_refuse.where = lambda variant: any(
    each.targets and each.writable for each in variant.map.fields
)


def test_many_updates_of_many_records(world, variant):
    names = free_text(variant.map, world.remote.texts)[:2]
    made = [world.make(variant) for _ in range(4)]
    texts = [unique("new") for _ in made]
    writes = [
        Write(dict.fromkeys(names, text), verb="update", rid=each.rid)
        for each, text in zip(made, texts, strict=True)
    ]
    for text, outcome in zip(texts, carried_out(world, variant, writes), strict=True):
        read = as_read(world, variant, outcome)
        assert [read.fields[name] for name in names] == [text] * len(names)


def test_the_same_creates_once_more_make_nothing_new(world, variant):
    if world.connector.found_by(variant.entity) != "id":
        return
    keys = [f"0000bbbb-0000-4000-8000-{int(unique('').strip()):012d}" for _ in range(3)]
    writes = [Write(world.least(variant), key=key) for key in keys]
    first = carried_out(world, variant, writes)
    again = carried_out(world, variant, [*writes, Write(world.least(variant))])
    assert [(each.change.rid, each.change.version) for each in again[:3]] == [
        (each.change.rid, each.change.version) for each in first
    ]
    as_read(world, variant, again[3])


def test_no_writes_have_no_outcomes(world, variant):
    assert carried_out(world, variant, []) == []
