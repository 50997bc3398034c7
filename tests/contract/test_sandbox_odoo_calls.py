"""The sandbox answers each call of one long list as the real Odoo 19 did when the answers were recorded, and does today."""

import importlib.util
import sys
from pathlib import Path

import pytest

from sandbox.odoo import Odoo
from sandbox.testing import running

FILE = Path(__file__).with_name("odoo_calls.py")


def module_of(file):
    spec = importlib.util.spec_from_file_location(file.stem, file)
    module = importlib.util.module_from_spec(spec)
    sys.modules[file.stem] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


odoo_calls = module_of(FILE)
NAMES = [call.name for call in odoo_calls.CALLS]


@pytest.fixture(scope="module")
def recorded():
    return odoo_calls.recorded()


@pytest.fixture(scope="module")
def answers():
    """What the sandbox answers, by the name of the call."""
    with running(Odoo()) as server:
        facts = server.describe()
        yield odoo_calls.Player(
            {"ODOO_URL": server.url, "ODOO_DB": facts["database"], "ODOO_API_KEY": facts["api_key"]}
        ).play()


def test_every_call_has_a_name_and_a_recorded_answer(recorded):
    assert len(set(NAMES)) == len(NAMES)
    assert set(recorded) == set(NAMES)
    assert len(NAMES) > 300


@pytest.mark.parametrize("name", NAMES)
def test_sandbox_answers_as_the_real_server_did(name, answers, recorded):
    assert answers[name] == recorded[name]


def test_real_server_answers_as_recorded(own_odoo, recorded):
    """One test for the whole list: it costs a server that starts."""
    told = odoo_calls.Player(own_odoo).play()
    assert {k: v for k, v in told.items() if v != recorded[k]} == {}
