"""Documents with lines: what is written is what comes back, line by line, in order and by key."""

import itertools
from decimal import Decimal

import pytest

from crm_core.connector import Query, Write
from crm_core.errors import BadRequest, Rejected
from crm_core.model.fields import Type
from crm_core.model.filters import parse_filter
from tests.contract.connectors.world import unique


def has_lines(variant):
    return variant.map.lines is not None


def line_of(world, variant, **more):
    """A line with everything that a caller can say of one."""
    emap = variant.map.lines
    known = emap.entity.by_name
    given = {}
    for name, each in emap.by_field.items():
        if each.writable and known[name].type in (Type.TEXT, Type.REF):
            given |= world.value(emap, name)
    amounts = {"quantity": "2", "unit_price": "10.5", "discount": "1", "tax": "0.5"}
    return {
        **given,
        **{
            name: text
            for name, text in amounts.items()
            if name in emap.by_field and emap.by_field[name].writable
        },
        **more,
    }


def written(world, variant, *lines):
    return world.connector.create(variant.entity, Write({**world.least(variant), "lines": list(lines)}))


def differs(variant, given, found):
    """The fields of the lines that are not as they were given: canonically, what the system adds aside."""
    emap = variant.map.lines
    known = emap.entity.by_name
    assert len(given) == len(found), found
    return [
        (number, name, value, line.get(name))
        for number, (wanted, line) in enumerate(zip(given, found, strict=True))
        for name, value in wanted.items()
        if not known[name].same(emap.by_field[name].canon(known[name], value), line.get(name))
    ]


def same_everywhere(world, variant, change):
    """What a write answered is what a read, a query and the feed's reading of many give."""
    assert world.connector.get(variant.entity, change.rid).fields == change.fields
    assert world.connector.get_many(variant.entity, [change.rid])[change.rid].fields == change.fields
    (found,) = world.connector.query(variant.entity, Query(parse_filter(f"id eq {change.rid}"))).items
    assert found.fields == change.fields
    assert change.fields.get("lines") != []  # empty is left out
    return change.fields.get("lines", [])


def test_a_document_is_created_with_its_lines_in_order(world, variant):
    given = [line_of(world, variant, quantity=str(number)) for number in (3, 1, 2)]
    made = written(world, variant, *given)
    found = same_everywhere(world, variant, made)
    assert not differs(variant, given, found)
    keys = [each["key"] for each in found]
    assert len(set(keys)) == 3
    assert all(keys)


def test_a_document_without_lines_has_none(world, variant):
    made = world.make(variant)
    assert same_everywhere(world, variant, made) == []
    assert "lines" not in written(world, variant).fields


def test_a_line_that_is_only_described_has_no_product(world, variant):
    given = {"description": unique("Written in"), "quantity": "1", "unit_price": "7"}
    if "product_id" in variant.map.lines.required:
        with pytest.raises(BadRequest) as caught:
            written(world, variant, given)
        assert [each.field for each in caught.value.errors] == ["lines"]
        return
    (line,) = same_everywhere(world, variant, written(world, variant, given))
    assert not differs(variant, [given], [line])
    assert "product_id" not in line


def test_a_line_of_a_product_that_names_no_unit_has_the_products(world, variant):
    given = line_of(world, variant)
    unit = given.pop("unit", None)
    (line,) = same_everywhere(world, variant, written(world, variant, given))
    assert unit is None or line["unit"] == unit


def test_lines_are_changed_added_removed_and_reordered_by_their_keys(world, variant):
    first, second, third = (
        line_of(world, variant, quantity=str(number), description=unique("line")) for number in (1, 2, 3)
    )
    made = written(world, variant, first, second, third)
    read_only = {each.field for each in variant.map.lines.fields if not each.writable and each.field != "key"}
    one, two, three = made.fields["lines"]

    def update(*lines):
        kept = [{name: value for name, value in each.items() if name not in read_only} for each in lines]
        after = world.connector.update(variant.entity, made.rid, Write({"lines": kept}))
        found = same_everywhere(world, variant, after)
        assert not differs(variant, kept, found)
        return found

    changed = update(one, {**two, "quantity": "20"}, three)
    assert [each["key"] for each in changed] == [one["key"], two["key"], three["key"]]
    added = update(*changed, {**line_of(world, variant), "quantity": "4"})
    assert [each["key"] for each in added[:3]] == [each["key"] for each in changed]
    assert added[3]["key"] not in {each["key"] for each in changed}
    if variant.map.keeps_lines:
        for order in itertools.permutations(added[:3]):
            assert update(*order, added[3])[0]["key"] == order[0]["key"]
        with pytest.raises(Rejected) as caught:
            update(added[0], added[3])
        assert [each.field for each in caught.value.errors] == ["lines"]
        assert len(world.connector.get(variant.entity, made.rid).fields["lines"]) == 4
        return
    removed = update(added[0], added[3])
    assert [each["key"] for each in removed] == [added[0]["key"], added[3]["key"]]
    for order in itertools.permutations(removed):
        assert [each["key"] for each in update(*order)] == [each["key"] for each in order]
    assert update() == []


def test_the_lines_as_they_were_read_can_be_written_back_and_change_nothing(world, variant):
    made = written(world, variant, line_of(world, variant), line_of(world, variant))
    after = world.connector.update(variant.entity, made.rid, Write({"lines": made.fields["lines"]}))
    assert after.fields["lines"] == made.fields["lines"]


def test_an_update_of_something_else_leaves_the_lines_alone(world, variant):
    made = written(world, variant, line_of(world, variant))
    after = world.connector.update(variant.entity, made.rid, Write({world.text(variant): "Otro"}))
    assert after.fields["lines"] == made.fields["lines"]


def test_what_a_line_leaves_out_stays_and_what_it_says_is_null_goes(world, variant):
    made = written(world, variant, line_of(world, variant))
    (line,) = made.fields["lines"]
    after = world.connector.update(
        variant.entity, made.rid, Write({"lines": [{"key": line["key"], "quantity": "7"}]})
    )
    (found,) = same_everywhere(world, variant, after)
    assert Decimal(found.pop("quantity")) == 7
    worked_out = {"quantity", *(each.field for each in variant.map.lines.fields if not each.writable)}
    assert {name: found.get(name) for name in line if name not in worked_out} == {
        name: value for name, value in line.items() if name not in worked_out
    }
    emap = variant.map.lines
    emptied = [name for name in ("discount", "tax", "description") if name in emap.by_field]
    emptied = [name for name in emptied if emap.by_field[name].writable and not emap.by_field[name].kept]
    bare = {"key": line["key"], **dict.fromkeys(emptied)}
    after = world.connector.update(variant.entity, made.rid, Write({"lines": [bare]}))
    (found,) = same_everywhere(world, variant, after)
    assert not set(emptied) & found.keys()
    assert found["unit_price"] == line["unit_price"]


def test_a_line_with_a_key_that_the_document_has_not_is_refused(world, variant):
    other = written(world, variant, line_of(world, variant)).fields["lines"][0]
    made = world.make(variant)
    with pytest.raises(BadRequest) as caught:
        world.connector.update(variant.entity, made.rid, Write({"lines": [other]}))
    assert [each.field for each in caught.value.errors] == ["lines"]
    assert world.connector.get(variant.entity, made.rid).fields == made.fields


def test_the_whole_document_is_refused_with_a_bad_line(world, variant, able):
    """All of it happens, or nothing."""
    foreign = written(world, variant, line_of(world, variant)).fields["lines"][0]["key"]
    made = written(world, variant, line_of(world, variant))
    length = variant.map.lines.by_field["description"].length
    bad = {**({"description": "x" * (length + 1)} if length else {"key": foreign}), "quantity": "1"}
    name = world.text(variant)
    with pytest.raises(BadRequest):
        world.connector.update(variant.entity, made.rid, Write({name: "Otro", "lines": [bad]}))
    able("undo")
    missing = line_of(world, variant, product_id=world.remote.missing)
    outcome = world.connector.write_one(
        variant.entity, Write({name: "Otro", "lines": [missing]}, verb="update", rid=made.rid)
    )
    assert outcome.error is not None
    assert world.connector.get(variant.entity, made.rid).fields == made.fields


for _test in [each for name, each in list(globals().items()) if name.startswith("test_")]:
    _test.where = has_lines
