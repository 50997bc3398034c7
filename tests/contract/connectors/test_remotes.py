"""Every connector is tested: it has remotes here, and declares what the suite goes by."""

import importlib

import pytest

from crm_core.hub import connector_class, connector_names
from tests.contract.connectors.conftest import HERE, described
from tests.contract.connectors.remote import variants

SYSTEMS = [name for name in connector_names() if not connector_class(name).delivers_to]
"""One that is only told of changes has nothing to be read: what it sends is tested in tests/sync/test_deliveries.py."""


@pytest.mark.parametrize("name", SYSTEMS)
def test_every_connector_has_a_remote_here(name):
    assert (HERE / f"{name}.py").exists(), f"tests/contract/connectors/{name}.py says how to test {name}"
    remotes = importlib.import_module(f"tests.contract.connectors.{name}").REMOTES
    assert {each.system for each in remotes} == {name}
    assert [each for each in remotes if not each.oracle], "one that every machine has"


def test_what_a_server_lacks_is_listed_as_a_skip():
    expected = (HERE.parent.parent / "expected_skips.txt").read_text("utf-8")
    for remote in described():
        for reason in remote.lacks.values():
            assert reason in expected.splitlines()


@pytest.mark.parametrize("name", SYSTEMS)
def test_every_declared_field_is_of_its_entity(name):
    for variant in variants(name):
        emap = variant.map
        known = emap.entity.by_name
        assert emap.by_field.keys() <= known.keys()
        assert emap.required <= emap.by_field.keys()
        assert emap.final <= set(emap.by_field["status"].names.values()) if emap.final else True
        for each in emap.fields:
            if each.targets:
                assert {target.entity for target in each.targets} <= set(known[each.field].targets)
                assert {target.entity for target in each.targets} <= connector_class(name).entities.keys()
            if known[each.field].choices:
                assert set(each.names.values()) <= set(known[each.field].choices)


@pytest.mark.parametrize("name", connector_names())
def test_an_entity_whose_creates_bear_no_mark_is_one_that_there_is(name):
    kind = connector_class(name)
    assert set(kind.unmarked) <= kind.entities.keys()
    assert not kind.unmarked or kind.own_ids or kind.marks, "where no create bears one none is named"
