"""What the connector for Dynamics 365 declares of its tables fits together."""

import pytest

from crm_core.connectors.dynamics365.tables import TABLES

LIST = TABLES["activity"]


@pytest.mark.parametrize("kind", LIST.kinds)
def test_the_list_of_activities_knows_every_value_of_each_kind(kind):
    """Or a filter by a name would miss rows: a meeting that is open is Scheduled there, 3 and not 0."""
    for each in LIST.kinds[kind].fields:
        listed = LIST.by_field[each.field]
        assert listed.native == each.native
        assert dict(listed.names) | dict(each.names) == dict(listed.names), each.field
