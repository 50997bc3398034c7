"""One record: what a write answers is what a read gives; stale and gone; nothing else changes."""

import json

import pytest

from crm_core.connector import UNKNOWN, Query, Write
from crm_core.errors import BadRequest, NotSupported, RecordGone, VersionMismatch
from crm_core.model.fields import parse_instant
from crm_core.model.filters import parse_filter
from crm_core.model.options import Order
from tests.contract.connectors.world import canon, differing, unique, writable


def test_what_a_create_answers_is_what_a_get_reads(world, variant):
    given = world.full(variant)
    made = world.connector.create(variant.entity, Write(given))
    emap = variant.map
    assert not differing(emap, given, made.fields, lambda name, value: canon(emap, name, value))
    read = world.connector.get(variant.entity, made.rid)
    assert (read.rid, read.version, read.etag) == (made.rid, made.version, made.etag)
    assert read.fields == made.fields
    assert not read.problem


def test_the_least_that_can_be_created_says_what_else_it_has(world, variant):
    made = world.make(variant)
    assert world.connector.get(variant.entity, made.rid).fields == made.fields
    assert made.fields["created_at"] <= made.fields["updated_at"]
    assert made.modified


def test_an_update_changes_what_it_names_and_moves_the_version(world, variant):
    before = world.make(variant)
    name = world.text(variant)
    after = world.connector.update(variant.entity, before.rid, Write({name: "Otro"}))
    assert after.fields[name] == "Otro"
    if world.connector.versions == "coarse":  # in one second they may be equal
        assert parse_instant(after.version) >= parse_instant(before.version)
    else:
        assert after.version != before.version
    if world.connector.versions == "ordered":
        assert int(after.version) > int(before.version)
    same = {k: v for k, v in before.fields.items() if k not in (name, "updated_at")}
    assert {k: v for k, v in after.fields.items() if k not in (name, "updated_at")} == same
    assert world.connector.get(variant.entity, before.rid).fields == after.fields


def test_what_may_be_empty_can_be_emptied(world, variant):
    made = world.connector.create(variant.entity, Write(world.full(variant)))
    kept = {
        *world.least(variant),
        *world.remote.texts,
        *(each.field for each in variant.map.fields if each.kept),
    }
    emptied = [name for name in writable(variant.map) if name not in kept]
    after = world.connector.update(variant.entity, made.rid, Write(dict.fromkeys(emptied)))
    assert not set(emptied) & after.fields.keys()
    assert world.connector.get(variant.entity, made.rid).fields == after.fields


def test_a_stale_version_is_refused_and_changes_nothing(world, variant):
    if not world.connector.if_match:
        return
    old = world.make(variant)
    name = world.text(variant)
    new = world.connector.update(variant.entity, old.rid, Write({name: "first"}), if_match=old.etag)
    with pytest.raises(VersionMismatch):
        world.connector.update(variant.entity, old.rid, Write({name: "second"}), if_match=old.etag)
    with pytest.raises(VersionMismatch):
        world.connector.delete(variant.entity, old.rid, if_match=old.etag)
    assert world.connector.get(variant.entity, old.rid).fields == new.fields
    world.connector.delete(variant.entity, old.rid, if_match=new.etag)


def test_a_persons_edit_is_read_and_makes_our_version_stale(world, variant):
    ours = world.make(variant)
    name = world.text(variant)
    world.remote.person_updates(variant, ours.rid, {name: "a person's"})
    assert world.connector.get(variant.entity, ours.rid).fields[name] == "a person's"
    if world.connector.if_match:
        with pytest.raises(VersionMismatch):
            world.connector.update(variant.entity, ours.rid, Write({name: "ours"}), if_match=ours.etag)
        assert world.connector.get(variant.entity, ours.rid).fields[name] == "a person's"


def test_what_is_gone_is_gone_for_every_verb_and_no_update_makes_it(world, variant):
    made = world.make(variant)
    world.connector.delete(variant.entity, made.rid)
    name = world.text(variant)
    for call in (
        lambda: world.connector.get(variant.entity, made.rid),
        lambda: world.connector.update(variant.entity, made.rid, Write({name: "1"})),
        lambda: world.connector.update(variant.entity, made.rid, Write({name: "1"}), made.etag),
        lambda: world.connector.delete(variant.entity, made.rid),
        lambda: world.connector.delete(variant.entity, made.rid, made.etag),
    ):
        with pytest.raises(RecordGone):
            call()
    assert world.connector.get_many(variant.entity, [made.rid]) == {}


def test_what_a_person_deleted_is_gone(world, variant):
    made = world.make(variant)
    world.remote.person_deletes(variant, made.rid)
    with pytest.raises(RecordGone):
        world.connector.get(variant.entity, made.rid)


def test_point_reads_by_many_ids_give_what_is_there(world, variant):
    there = [world.make(variant) for _ in range(3)]
    gone = world.make(variant)
    world.connector.delete(variant.entity, gone.rid)
    found = world.connector.get_many(variant.entity, [*(each.rid for each in there), gone.rid])
    assert {rid: each.fields for rid, each in found.items()} == {each.rid: each.fields for each in there}
    assert {rid: each.version for rid, each in found.items()} == {each.rid: each.version for each in there}
    assert world.connector.get_many(variant.entity, []) == {}


def test_the_same_create_twice_makes_one_record(world, variant):
    if world.connector.found_by(variant.entity) != "id":
        return
    write = Write(world.least(variant), key="0000aaaa-0000-4000-8000-" + unique("")[1:].zfill(12))
    first = world.connector.create(variant.entity, write)
    again = world.connector.create(variant.entity, write)
    assert (again.rid, again.version, again.fields) == (first.rid, first.version, first.fields)


def test_a_create_is_found_by_the_marker_that_it_bore_and_the_feed_tells_it(world, variant):
    if world.connector.found_by(variant.entity) != "marker":
        return
    _, cursor = world.feed(variant)
    marker = f"{unique('0000dddd')[-6:]}-marker.1"
    made = world.connector.create(variant.entity, Write(world.least(variant), marker=marker))
    again = world.connector.create(variant.entity, Write(world.least(variant), marker=f"{marker}2"))
    found = world.connector.marked(variant.entity, [marker, f"{marker}2", "no-such.1"])
    assert {(each.rid, each.marker) for each in found} == {(made.rid, marker), (again.rid, f"{marker}2")}
    told = {change.rid: change.marker for change in world.feed(variant, cursor)[0]}
    assert (told[made.rid], told[again.rid]) == (marker, f"{marker}2")
    world.connector.delete(variant.entity, made.rid)
    assert not world.connector.marked(variant.entity, [marker])


def test_what_is_read_only_refuses_every_write(world, variant):
    for call in (
        lambda: world.connector.create(variant.entity, Write()),
        lambda: world.connector.update(variant.entity, world.remote.missing, Write()),
        lambda: world.connector.delete(variant.entity, world.remote.missing),
    ):
        with pytest.raises(NotSupported):
            call()
    (outcome,) = world.connector.write(variant.entity, [Write()], world.pool, lambda: True)
    assert isinstance(outcome.error, NotSupported)


test_what_is_read_only_refuses_every_write.read_only = True


def test_an_entity_whose_app_is_not_there_is_not_supported_by_name(world, variant):
    """What is read only may be of an app that the server lacks."""
    told = ""
    try:
        world.connector.query(variant.entity, Query(top=1))
    except NotSupported as error:
        told = error.message
    assert not told or variant.map.remote in told


test_an_entity_whose_app_is_not_there_is_not_supported_by_name.read_only = True


def test_a_field_that_the_system_has_not_is_refused_by_name(world, variant):
    emap = variant.map
    missing = [f.name for f in emap.entity.fields if f.name not in {*emap.by_field, *emap.companions}]
    assert missing  # the hub's own `deleted_at` at least
    for name in missing:
        with pytest.raises(BadRequest) as caught:
            world.make(variant, **{name: "x"})
        assert [each.field for each in caught.value.errors] == [name]


def test_every_page_comes_once_and_in_order(world, variant):
    name = world.text(variant)
    mark = unique("Page")
    made = [world.make(variant, **{name: f"{mark} {n % 3}"}).rid for n in range(7)]
    where, order = parse_filter(f"startswith({name},'{mark}')"), (Order(name, descending=True),)
    read, cursor, pages = [], None, 0
    while True:
        query = Query(where, orderby=order, top=3, cursor=cursor)
        page = world.connector.query(variant.entity, query)
        read += [(each.fields[name], each.rid) for each in page.items]
        pages += 1
        if page.cursor is None:
            break
        cursor = json.loads(json.dumps(page.cursor))
    assert sorted(rid for _, rid in read) == sorted(made)
    assert [text for text, _ in read] == sorted((text for text, _ in read), reverse=True)
    assert pages >= 3


def test_only_what_is_selected_comes_with_the_id(world, variant):
    name = world.text(variant)
    made = world.make(variant, **{name: unique("Select")})
    where = parse_filter(f"{name} eq '{made.fields[name]}'")
    (found,) = world.connector.query(variant.entity, Query(where, select=(name,))).items
    assert (found.rid, found.fields[name]) == (made.rid, made.fields[name])
    told = {field for field, value in found.fields.items() if value is not UNKNOWN}
    assert told <= {name, *variant.fixed}
