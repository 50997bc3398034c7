"""What a connector declares, as sync and callers are told it."""

import pytest

from crm_core.connector import Connector
from crm_core.functions.integrations import _connector
from simulation.two_way.remotes import connector_class


@pytest.mark.parametrize(
    ("own_ids", "marks", "found_by"),
    [(True, False, "id"), (False, True, "marker"), (True, True, "id"), (False, False, "")],
)
def test_a_create_is_found_by_the_best_that_the_system_takes(own_ids, marks, found_by):
    kind = type("Some", (Connector,), {"own_ids": own_ids, "marks": marks, "unmarked": ("lead",)})
    assert kind.found_by("contact") == found_by
    assert kind.found_by("lead") == ""


@pytest.mark.parametrize(("letter", "told"), [("a", "id"), ("b", "marker"), ("f", None)])
def test_callers_are_told_it_of_each_entity(letter, told):
    entities = _connector(connector_class(letter))["entities"]
    assert [(each["entity"], each["creates_found_by"]) for each in entities] == [
        ("contact", told),
        ("account", told),
    ]
