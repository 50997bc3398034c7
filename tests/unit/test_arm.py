"""How expressions of a compiled template are worked out: the tests of infra/ rest on it."""

import pytest

from tests.unit.arm import GROUP, Deployment, Unknown


@pytest.mark.parametrize(
    ("expression", "value"),
    [
        ("[format('{0}/{1}', 'it''s', 5)]", "it's/5"),
        ("[variables('list')[1].name]", "b"),
        ("[items(variables('map'))[0].key]", "a"),
        ("[union(variables('map'), createObject('b', 3)).b]", 3),
        ("[resourceGroup().id]", GROUP),
        ("[[no expression]", "[[no expression]"),
    ],
)
def test_expressions_are_worked_out(expression, value):
    variables = {"list": [{"name": "a"}, {"name": "b"}], "map": {"b": 2, "a": 1}, "it": expression}
    assert Deployment({"resources": {}, "variables": variables}, {}).variable("it") == value


@pytest.mark.parametrize("expression", ["[concat('a', 'b')]", "[format('a']", "[format('a') 'b']", "[a.b]"])
def test_what_is_not_known_is_not_passed_over(expression):
    with pytest.raises((Unknown, IndexError)):
        Deployment({"resources": {}, "variables": {"it": expression}}, {}).variable("it")
