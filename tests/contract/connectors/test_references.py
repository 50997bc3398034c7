"""References: to each entity that one can lead to, under every name, emptied again; and the ways to expand by them."""

import pytest

from crm_core.connector import Query, Write
from crm_core.errors import BadRequest, Rejected
from crm_core.model.expand import parse_expand
from crm_core.model.filters import parse_filter
from tests.contract.connectors.world import needed


def references(variant):
    """(field, its kind, its map) of every reference that can be written."""
    known = variant.map.entity.by_name
    return [
        (name, known[name], each)
        for name, each in variant.map.by_field.items()
        if each.targets and each.writable
    ]


def has_references(variant):
    return bool(references(variant))


def can_be_of_several(variant):
    return any(kind.companion for _, kind, _ in references(variant))


def accepted(world, variant, body):
    """What a caller's item says, as the rim hands it to the connector."""
    fields, native = world.connector.entity_map(variant.entity).accept(body, {}, create=False)
    return Write(fields, native)


def each_target(variant, able):
    """(field, its kind, what it leads to), what a remote without "kinds" can't tell last."""
    found = [(name, kind, target) for name, kind, each in references(variant) for target in each.targets]
    first = {(name, each.targets[0]) for name, _, each in references(variant)}
    for name, kind, target in sorted(found, key=lambda one: (one[0], one[2]) not in first):
        if (name, target) not in first:
            able("kinds")
        yield name, kind, target


def test_a_reference_leads_to_each_of_its_entities_and_is_found_by_it(world, variant, able):
    made = world.make(variant)
    for name, kind, target in each_target(variant, able):
        rid = world.shared(target.entity)
        given = {name: rid, **({kind.companion: target.entity} if kind.companion else {})}
        after = world.connector.update(variant.entity, made.rid, Write(given))
        assert {field: after.fields.get(field) for field in given} == given
        assert world.connector.get(variant.entity, made.rid).fields == after.fields
        where = parse_filter(f"{name} eq {rid} and id eq {made.rid}")
        found = world.connector.query(variant.entity, Query(where)).items
        assert [(one.rid, one.fields[name]) for one in found] == [(made.rid, rid)]


test_a_reference_leads_to_each_of_its_entities_and_is_found_by_it.where = has_references


def test_a_reference_is_emptied_with_what_it_leads_to(world, variant, able):
    for name, kind, target in each_target(variant, able):
        if name in needed(variant.map):
            continue
        given = {
            name: world.shared(target.entity),
            **({kind.companion: target.entity} if kind.companion else {}),
        }
        made = world.make(variant, **given)
        assert made.fields[name] == given[name]
        emptied = dict.fromkeys(given)
        after = world.connector.update(variant.entity, made.rid, Write(emptied))
        assert not emptied.keys() & after.fields.keys()
        assert not emptied.keys() & world.connector.get(variant.entity, made.rid).fields.keys()


test_a_reference_is_emptied_with_what_it_leads_to.where = has_references


def test_a_name_that_says_reference_and_entity_at_once_writes_both(world, variant, able):
    emap = variant.map
    made = world.make(variant)
    for specific, (each, target) in emap.specific.items():
        if target not in {one.entity for one in each.targets}:
            continue
        if target != each.targets[0].entity:
            able("kinds")
        rid = world.shared(target)
        after = world.connector.update(variant.entity, made.rid, accepted(world, variant, {specific: rid}))
        companion = emap.entity.by_name[each.field].companion
        assert (after.fields[each.field], after.fields[companion]) == (rid, target)


test_a_name_that_says_reference_and_entity_at_once_writes_both.where = can_be_of_several


def test_a_reference_that_can_be_of_several_kinds_needs_to_say_which(world, variant):
    for name, kind, each in references(variant):
        if not kind.companion:
            continue
        with pytest.raises(BadRequest) as caught:
            accepted(world, variant, {name: world.shared(each.targets[0].entity)})
        assert kind.companion in caught.value.message


test_a_reference_that_can_be_of_several_kinds_needs_to_say_which.where = can_be_of_several


def test_a_reference_to_nothing_is_refused_by_name_and_changes_nothing(world, variant):
    made = world.make(variant)
    for name, kind, each in references(variant):
        given = {
            name: world.remote.missing,
            **({kind.companion: each.targets[0].entity} if kind.companion else {}),
        }
        with pytest.raises(Rejected) as caught:
            world.connector.update(variant.entity, made.rid, Write(given))
        assert [one.field for one in caught.value.errors] == [name]
        with pytest.raises(BadRequest):
            world.connector.update(variant.entity, made.rid, Write({**given, name: "no id"}))
    assert world.connector.get(variant.entity, made.rid).fields == made.fields


test_a_reference_to_nothing_is_refused_by_name_and_changes_nothing.where = has_references


def test_what_a_reference_leads_to_comes_along_under_its_name(world, variant):
    """By the entity's own map: a record of one kind is expanded as the list is."""
    emap = world.connector.entity_map(variant.entity)
    ways = [way for way in emap.navigations if way.field and not way.many]
    given = {}
    for way in ways:
        given[way.field] = world.shared(way.target)
    made = world.make(variant, **given)
    expand = parse_expand(",".join(way.field for way in ways))
    for got in (
        world.connector.get(variant.entity, made.rid, expand=expand),
        *world.connector.query(variant.entity, Query(parse_filter(f"id eq {made.rid}"), expand=expand)).items,
    ):
        assert got.fields == made.fields
        assert {name: each.rid for name, each in got.expanded.items()} == given


test_what_a_reference_leads_to_comes_along_under_its_name.where = lambda variant: any(
    way.field and not way.many for way in variant.map.navigations
)
