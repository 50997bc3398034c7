"""Changes: only what is new after a cursor, each page once, ties, late records, deletes; cursors are JSON."""

from datetime import UTC, datetime, timedelta

from crm_core.connector import Connector, Write
from crm_core.model.fields import instant_text
from crm_core.model.filters import parse_filter
from tests.contract.connectors.world import needed, unique

FEEDS = True


def test_everything_comes_once(world, variant, able):
    able("once")
    made = {world.make(variant).rid for _ in range(3)}
    everything, _ = world.feed(variant, size=2)
    rids = [change.rid for change in everything]
    assert len(rids) == len(set(rids))
    assert made <= set(rids)


def test_everything_then_only_what_is_new(world, variant):
    before = world.make(variant)
    everything, cursor = world.feed(variant)
    found = {change.rid: change for change in everything}
    assert found[before.rid].fields == before.fields
    assert found[before.rid].version == before.version
    nothing, cursor = world.feed(variant, cursor)
    assert nothing == []
    after = world.make(variant)
    edited = world.connector.update(variant.entity, before.rid, Write({world.text(variant): "Otro"}))
    new, cursor = world.feed(variant, cursor)
    assert {change.rid: change.fields for change in new} == {
        after.rid: after.fields,
        edited.rid: edited.fields,
    }
    assert {change.rid: change.version for change in new} == {
        after.rid: after.version,
        edited.rid: edited.version,
    }
    assert world.feed(variant, cursor)[0] == []


def test_what_persons_do_is_told(world, variant):
    made = world.make(variant)
    _, cursor = world.feed(variant)
    name = world.text(variant)
    world.remote.person_updates(variant, made.rid, {name: "a person's"})
    new, cursor = world.feed(variant, cursor)
    assert [(change.rid, change.fields[name]) for change in new] == [(made.rid, "a person's")]
    assert world.feed(variant, cursor)[0] == []


def test_deletes_are_told(world, variant, able):
    if not world.connector.tells_deletes:
        return
    able("deletes")
    ours, theirs, kept = (world.make(variant) for _ in range(3))
    _, cursor = world.feed(variant)
    world.connector.delete(variant.entity, ours.rid)
    world.remote.person_deletes(variant, theirs.rid)
    new, cursor = world.feed(variant, cursor)
    assert {change.rid: change.fields for change in new} == {ours.rid: None, theirs.rid: None}
    assert kept.rid not in {change.rid for change in new}
    assert world.feed(variant, cursor)[0] == []


def test_ties_over_several_pages_come_all_and_once(world, variant):
    """Records of one second: a page ends amid them."""
    _, cursor = world.feed(variant)
    writes = [Write(world.least(variant)) for _ in range(12)]
    outcomes = world.connector.write(variant.entity, writes, world.pool, lambda: True)
    made = sorted(outcome.change.rid for outcome in outcomes)
    new, cursor = world.feed(variant, cursor, size=5)
    assert sorted(change.rid for change in new) == made
    one = world.make(variant)  # in the same second, or nearly
    new, cursor = world.feed(variant, cursor, size=5)
    assert [change.rid for change in new] == [one.rid]
    assert world.feed(variant, cursor)[0] == []


def test_a_page_that_was_not_kept_comes_again(world, variant):
    """A cursor can be used twice: a worker may die before it saves the next one."""
    _, cursor = world.feed(variant)
    made = {world.make(variant).rid for _ in range(3)}
    for _ in range(2):
        assert {change.rid for change in world.feed(variant, cursor)[0]} == made


def plain(variant):
    """A record that a person makes of texts alone."""
    return all(
        variant.map.entity.by_name[name].type == "text" and name != "unit" for name in needed(variant.map)
    )


def test_a_record_that_becomes_visible_late_is_not_missed(world, variant, able):
    able("late")
    name = world.text(variant)
    _, cursor = world.feed(variant)
    given = {**world.least(variant), name: unique("late")}
    late = world.remote.person_creates(variant, given, lag=20, ago=60)
    early = world.make(variant)  # carries the cursor on beyond the late one's time
    new, cursor = world.feed(variant, cursor)
    assert [change.rid for change in new] == [early.rid]
    try:
        world.remote.advance(30)
        new, cursor = world.feed(variant, cursor)
        assert [change.rid for change in new] == [late]
        assert world.feed(variant, cursor)[0] == []
    finally:
        world.remote.calm()


test_a_record_that_becomes_visible_late_is_not_missed.where = plain


def test_a_run_reads_only_what_a_time_and_a_filter_let_pass(world, variant):
    if type(world.connector).begin is Connector.begin:
        return
    name = world.text(variant)
    mark = unique("part")
    wanted, other = world.make(variant, **{name: mark}), world.make(variant)
    where = parse_filter(f"{name} eq '{mark}'")
    since = instant_text(datetime.now(UTC).replace(microsecond=0) - timedelta(hours=1))
    for begun in (
        world.connector.begin(variant.entity, since=since, where=where),
        world.connector.begin(variant.entity, since="", where=where),
    ):
        found, _ = world.feed(variant, begun)
        assert [change.rid for change in found] == [wanted.rid]
    found, _ = world.feed(variant, world.connector.begin(variant.entity, since=since, where=None))
    assert {wanted.rid, other.rid} <= {change.rid for change in found}
    later = instant_text(datetime.now(UTC).replace(microsecond=0) + timedelta(days=1))
    assert world.feed(variant, world.connector.begin(variant.entity, since=later, where=None))[0] == []
