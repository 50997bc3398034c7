"""The sandbox answers each call of one long list as the real Odoo 19 did when the answers were recorded, and does today."""

import pytest

from sandbox.odoo import Odoo
from sandbox.testing import running
from tests.contract import odoo_calls
from tests.contract.odoo_calls import CALLS
from tests.contract.odoo_player import Player

NAMES = [call.name for call in CALLS]


@pytest.fixture(scope="module")
def recorded():
    return odoo_calls.recorded()


@pytest.fixture(scope="module")
def answers():
    """What the sandbox answers, by the name of the call."""
    with running(Odoo()) as server:
        facts = server.describe()
        yield Player(
            {"ODOO_URL": server.url, "ODOO_DB": facts["database"], "ODOO_API_KEY": facts["api_key"]}
        ).play(CALLS)


def test_every_call_has_a_name_and_a_recorded_answer(recorded):
    assert len(set(NAMES)) == len(NAMES)
    assert set(recorded) == set(NAMES)
    assert len(NAMES) > 400


@pytest.mark.parametrize("name", NAMES)
def test_sandbox_answers_as_the_real_server_did(name, answers, recorded):
    assert answers[name] == recorded[name]


def test_real_server_answers_as_recorded(own_odoo, recorded):
    """One test for the whole list: it costs a server that starts."""
    told = Player(own_odoo).play(CALLS)
    assert {k: v for k, v in told.items() if v != recorded[k]} == {}
