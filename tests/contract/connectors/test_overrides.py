"""A connection's own mapping: whatever a connector reads or writes goes through its map, never the declared one."""

import pytest

from crm_core.connector import Query, Write
from crm_core.errors import BadRequest, CursorExpired
from crm_core.hub import connector_class
from crm_core.model.filters import parse_filter
from tests.contract.connectors.conftest import described
from tests.contract.connectors.world import free_text, unique


def changeable(variant):
    """Whether the entity's mapping can be changed, and has two fields to try it with."""
    declared = connector_class(variant.system).entity_map(variant.entity)
    return "" not in declared.fixed and len(optional(variant)) > 1


def known_texts(system):
    """Fields whose texts a server has to know already."""
    return {name: "" for remote in described() if remote.system == system for name in remote.texts}


def optional(variant):
    """Fields that hold any text, no create needs, and are called otherwise at the system."""
    emap = variant.map
    needed = {each.name for each in emap.entity.fields if each.required} | emap.required
    found = free_text(emap, known_texts(variant.system))
    known = set(emap.by_native)
    return [name for name in found if name not in needed and name not in emap.fixed and name not in known]


@pytest.fixture
def moved(world, variant):
    """(a connection where one field is kept where another is declared to be, and a template beside it; the fields)."""
    one, other = optional(variant)[:2]
    native = variant.map.by_field[other].native
    fields = {one: None, other: None, "x_moved": {"type": "text", "to": native, "template": "<{x_moved}>"}}
    return world.open(maps={variant.entity: {"fields": fields}}), one, other


def test_what_is_written_by_the_overrides_is_read_by_them(world, variant, moved):
    connector, one, other = moved
    assert connector.entity_map(variant.entity) is world.connector.map(variant.entity)
    made = connector.create(variant.entity, Write({**world.least(variant), "x_moved": "a"}))
    assert made.fields["x_moved"] == "a"
    assert not {one, other} & made.fields.keys()
    assert world.connector.get(variant.entity, made.rid).fields[other] == "<a>"
    after = connector.update(variant.entity, made.rid, Write({"x_moved": "b"}))
    assert after.fields["x_moved"] == "b"
    for change in (
        connector.get(variant.entity, made.rid),
        connector.get_many(variant.entity, [made.rid])[made.rid],
    ):
        assert change.fields == after.fields
    outcomes = connector.write(
        variant.entity,
        [Write({"x_moved": text}, verb="update", rid=made.rid) for text in ("c",)]
        + [Write({**world.least(variant), "x_moved": "d"})],
        world.pool,
        lambda: True,
    )
    assert [each.change.fields["x_moved"] for each in outcomes] == ["c", "d"]


def test_a_field_that_is_not_mapped_any_more_is_refused(variant, moved):
    connector, one, _ = moved
    with pytest.raises(BadRequest):
        connector.create(variant.entity, Write({one: "x"}))
    with pytest.raises(BadRequest):
        connector.query(variant.entity, Query(parse_filter(f"{one} eq 'x'")))
    with pytest.raises(BadRequest, match="can't be asked for here"):
        connector.query(variant.entity, Query(parse_filter("x_moved eq 'x'")))


def test_a_renamed_field_can_be_asked_for_by_its_name(world, variant):
    one, other = optional(variant)[:2]
    native = variant.map.by_field[other].native
    connector = world.open(maps={variant.entity: {"fields": {other: None, one: {"to": native}}}})
    length = variant.map.by_field[other].length or 60
    text = unique("renamed")[-length:]
    made = connector.create(variant.entity, Write({**world.least(variant), one: text}))
    query = Query(parse_filter(f"{one} eq '{text}'"), select=(one,))
    assert [(each.rid, each.fields[one]) for each in connector.query(variant.entity, query).items] == [
        (made.rid, text)
    ]


def test_a_place_in_the_feed_belongs_to_its_map(world, variant, moved):
    connector, _, other = moved
    page = world.connector.changes(variant.entity, None, size=50)
    with pytest.raises(CursorExpired):
        connector.changes(variant.entity, page.cursor, size=50)
    mine = connector.changes(variant.entity, None, size=50)
    assert all(other not in (each.fields or {}) for each in mine.changes)
    assert connector.changes(variant.entity, mine.cursor, size=50)
    with pytest.raises(CursorExpired):
        world.connector.changes(variant.entity, mine.cursor, size=50)
    begun = connector.begin(variant.entity, since="2026-01-01T00:00:00Z", where=None)
    assert connector.changes(variant.entity, begun, size=50)


for _test in (
    test_what_is_written_by_the_overrides_is_read_by_them,
    test_a_field_that_is_not_mapped_any_more_is_refused,
    test_a_renamed_field_can_be_asked_for_by_its_name,
    test_a_place_in_the_feed_belongs_to_its_map,
):
    _test.where = changeable
