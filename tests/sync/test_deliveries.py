"""From a write of a record to its receiver: what is told, in which order, and what is left when anything fails."""

import pytest

from tests.sync.receivers import data, proven, told


@pytest.fixture
def hub():
    with told() as found:
        yield found


def test_a_write_is_told_with_its_signature_and_the_values_before(hub):
    hub.connect()
    made = hub.create(last_name="Torres", city="Lima")
    hub.editor().update(made.id, {"city": "Cusco"})
    hub.editor().delete(made.id)
    hub.work()
    assert hub.items() == []
    first, second, third = hub.posts()
    for each in (first, second, third):
        assert proven(each)["subject"] == made.id
    assert data(first) == {
        "record": {"id": made.id, "entity": "contact", "version": 1, "last_name": "Torres", "city": "Lima"},
        "old": {},
    }
    assert data(second)["old"] == {"city": "Lima"}
    assert data(second)["record"]["city"] == "Cusco"
    assert proven(third)["type"] == "crmhub.contact.deleted"
    assert [each.state for each in hub.deliveries()] == ["done"] * 3
