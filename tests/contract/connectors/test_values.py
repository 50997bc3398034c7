"""Odd and long values: what the remote stores of them is what the field's map says (canon), or they are refused."""

import pytest

from crm_core.connector import Write
from crm_core.errors import BadRequest
from crm_core.model.fields import Type
from tests.contract.connectors.world import SMALL, canon, differing, free_text, unique, writable

ODD_TEXTS = (
    "Ñandú «ok» 日本 🙂 é\u0301",
    """'q' "d" `b` \\ / & < > % # ? + = ; : , | ~ {x} [y] (z) $ @ ^ !""",
    "  ends in spaces  ",
    "null",
    "-12.50",
    "native:x",
)
LONG_TEXT = "línea 1\nlínea 2\r\n\ttab"
ODD = {
    Type.INTEGER: (0, 1, 100),
    Type.DECIMAL: ("0", "1", "0.00001", "123.456789", "1e3"),
    Type.MONEY: ("0", "0.01", "1", "1.005", "1234.5678", "123456789.99"),
    Type.BOOLEAN: (False, True),
    Type.DATE: ("1999-12-31", "2024-02-29", "2099-01-01"),
    Type.INSTANT: ("2024-02-29T23:59:59Z", "2026-06-30T12:00:00.987654Z", "2026-01-01T01:30:00+05:30"),
}


def tried(world, variant, values):
    """Writes one value of each field at a time, all fields together; every answer is as declared."""
    emap = variant.map
    made = world.make(variant)
    for number in range(max((len(each) for each in values.values()), default=0)):
        given = {name: each[number] for name, each in values.items() if number < len(each)}
        after = world.connector.update(variant.entity, made.rid, Write(given))
        assert not differing(emap, given, after.fields, lambda name, value: canon(emap, name, value))
        assert world.connector.get(variant.entity, made.rid).fields == after.fields
    world.connector.delete(variant.entity, made.rid)  # what must be unique is free for another remote


def test_odd_texts_come_back_as_declared(world, variant):
    emap = variant.map
    odd = {}
    for name in free_text(emap, world.remote.texts):
        length = emap.by_field[name].length
        odd[name] = [text for text in ODD_TEXTS if length is None or len(text) + 2 <= length]
    tried(world, variant, odd)


def test_lines_of_a_long_text_come_back_as_declared(world, variant):
    names = [
        name
        for name in free_text(variant.map, world.remote.texts)
        if (variant.map.by_field[name].length or 10_000) >= 1000
    ]
    tried(world, variant, dict.fromkeys(names, (LONG_TEXT,)))


def test_numbers_and_times_come_back_as_declared(world, variant, able):
    emap = variant.map
    kept, changed = {}, {}
    for name, (kind, each) in writable(emap).items():
        if kind.type in ODD and not each.names:
            values = [kind.parse(value) for value in ODD[kind.type]]
            kept[name] = [value for value in values if kind.same(value, canon(emap, name, value))]
            changed[name] = [value for value in values if value not in kept[name]]
    tried(world, variant, kept)
    if any(changed.values()):
        able("canon")
    tried(world, variant, changed)


def test_every_declared_choice_comes_back(world, variant):
    choices = {
        name: tuple(dict.fromkeys(each.names.values()))
        for name, (_, each) in writable(variant.map).items()
        if each.names and name not in variant.fixed
    }
    tried(world, variant, choices)


@pytest.mark.parametrize("character", ["x", "ñ", "🙂"])
def test_the_longest_text_is_kept_whole_and_a_longer_one_refused_by_name(world, variant, character):
    emap = variant.map
    fits, longer = {}, {}
    for name in free_text(emap, world.remote.texts):
        length = emap.by_field[name].length
        if length is None:
            continue
        mark = unique("")[-6:]  # what must be unique stays so
        width = len(character.encode("utf-16-le")) // 2
        fits[name] = mark + character * ((length - 6) // width)
        longer[name] = fits[name] + "x" * width
    made = world.make(variant)
    after = world.connector.update(variant.entity, made.rid, Write(fits))
    assert not differing(emap, fits, after.fields)
    for name, text in longer.items():
        with pytest.raises(BadRequest) as caught:
            world.connector.update(variant.entity, made.rid, Write({name: text}))
        assert [each.field for each in caught.value.errors] == [name]
    assert world.connector.get(variant.entity, made.rid).fields == after.fields


def test_a_choice_that_there_is_not_is_refused_by_name(world, variant):
    made = world.make(variant)
    for name, (_, each) in writable(variant.map).items():
        if not each.names or name in variant.fixed:
            continue
        with pytest.raises(BadRequest) as caught:
            world.connector.update(variant.entity, made.rid, Write({name: "no such thing"}))
        assert [one.field for one in caught.value.errors] == [name]


def test_a_text_that_the_system_has_to_know_and_does_not_is_refused_by_name(world, variant):
    made = world.make(variant)
    for name in writable(variant.map).keys() & world.remote.texts.keys():
        with pytest.raises(BadRequest) as caught:
            world.connector.update(variant.entity, made.rid, Write({name: "No Such Thing"}))
        assert [each.field for each in caught.value.errors] == [name]


def test_every_type_of_field_has_a_value_here(world, variant):
    types = {kind.type for kind, each in writable(variant.map).values() if not each.names}
    assert types <= {*SMALL, *ODD, Type.TEXT, Type.REF, Type.CHOICE}
