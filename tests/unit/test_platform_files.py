"""host.json and local.settings.example.json are what the platform reads: by the schemas that its own tools use.

The schemas are in the folder of specifications named by CRMHUB_SPECS; without it the tests that need them are skipped.
"""

import copy
import json
import os
from pathlib import Path

import pytest
from jsonschema.validators import validator_for

from crm_core.settings import NAMES

ROOT = Path(__file__).resolve().parents[2]
SPECS = os.environ.get("CRMHUB_SPECS", "")
HOST, SETTINGS = "host.json", "local.settings.example.json"
SCHEMAS = {HOST: "host.schema.json", SETTINGS: "local.settings.schema.json"}
# What the platform itself reads of the settings; the rest is ours.
PLATFORM = ("FUNCTIONS_WORKER_RUNTIME", "PYTHON_THREADPOOL_THREAD_COUNT")

by_schema = pytest.mark.skipif(not SPECS, reason="CRMHUB_SPECS does not name the folder of specifications")


def content(name):
    return json.loads((ROOT / name).read_text())


def validator(name):
    schema = json.loads((Path(SPECS) / "azure-functions" / SCHEMAS[name]).read_text())
    kind = validator_for(schema)
    kind.check_schema(schema)
    return kind(schema)


@by_schema
@pytest.mark.parametrize("name", SCHEMAS)
def test_the_file_is_valid_by_its_schema(name):
    assert [error.message for error in validator(name).iter_errors(content(name))] == []


@by_schema
@pytest.mark.parametrize(
    ("name", "where", "value"),
    [
        (HOST, ["version"], "1.5"),
        (HOST, ["functionTimeout"], "10 minutes"),
        (HOST, ["extensions", "queues", "batchSize"], "8"),
        (HOST, ["extensions", "queues", "visibilityTimeout"], 30),
        (HOST, ["extensions", "queues", "messageEncoding"], "utf-8"),
        (HOST, ["extensions", "queues", "maxDequeues"], 5),
        (SETTINGS, ["IsEncrypted"], "no"),
        (SETTINGS, ["Values", "FUNCTIONS_WORKER_RUNTIME"], "snake"),
    ],
)
def test_a_slip_would_be_found(name, where, value):
    slipped = copy.deepcopy(content(name))
    section = slipped
    for part in where[:-1]:
        section = section[part]
    section[where[-1]] = value
    assert not validator(name).is_valid(slipped)


def test_example_settings_are_texts_whose_names_somebody_reads():
    """The schema's own words: texts, names without a colon or a double underscore; it does not check them."""
    values = content(SETTINGS)["Values"]
    assert [name for name, value in values.items() if not isinstance(value, str)] == []
    assert [name for name in values if ":" in name or "__" in name] == []
    assert set(values) <= {*NAMES, *PLATFORM}
