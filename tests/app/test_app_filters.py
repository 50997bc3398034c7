"""The filter table over HTTP: live at the sandbox, live at the oracle, and over the hub's own records.

Both live servers get the same rows, and those of the sandbox are pulled into the store.
"""

import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from urllib.parse import quote

import pytest

from tests.app.conftest import SECRET, settings_of
from tests.conftest import ORACLE_SECRET, running_oracle
from tests.filter_cases import ACCOUNTS, CASES, CONTACTS, Case, Refused, in_zone

pytestmark = pytest.mark.xdist_group("app-filters")

PATHS = {"account": "accounts", "contact": "contacts"}
SANDBOX, ORACLE = "filters-sandbox", "filters-oracle"


@dataclass
class Side:
    """Where a filter is asked. `rows`: key -> (id there, when it was created)."""

    ask: Callable[[str, str], str]
    rows: Mapping[str, tuple[str, str]]

    def text(self, case: Case) -> str:
        """The filter with this side's ids and times in it."""

        def known(match):
            key, _, rest = match[1].partition(".created_at")
            rid, created = self.rows[key]
            return in_zone(created, rest) if ".created_at" in match[1] else rid

        return re.sub(r"<([^>]+)>", known, case.text)


def fill(api, connection):
    """Makes the rows of the table through the hub; gives their ids and times there."""
    rows = {}

    def make(entity, key, fields):
        sent = {
            name: rows[value[1:-1]][0] if str(value).startswith("<") else value
            for name, value in fields.items()
        }
        item = api.ok("POST", f"/api/crm/{PATHS[entity]}?connection={connection}", sent)
        rows[key] = item["id"], item["created_at"]

    for key, fields in ACCOUNTS.items():
        make("account", key, fields)
        if key == "old":
            time.sleep(1.1)  # times are whole seconds at the remote: the next row's has to be another one
    for key, fields in CONTACTS.items():
        make("contact", key, fields)
    return rows


def connect(api, slug, settings, secret):
    body = {
        "slug": slug,
        "connector": "dynamics365",
        "settings": settings,
        "secrets": {"client_secret": secret},
        "entities": {"account": "pull", "contact": "pull"},
        "schedule": {},
    }
    answer = api("POST", "/api/integrations", body)
    assert answer.status_code == 201, answer.text


def live(connection):
    return lambda entity, text: f"/api/crm/{PATHS[entity]}?connection={connection}&{text}"


def stored(entity, text):
    return f"/api/records/{PATHS[entity]}?{text}"


@pytest.fixture(scope="module")
def sandbox_side(api, start_sandbox):
    sandbox = start_sandbox()
    connect(api, SANDBOX, settings_of(sandbox.facts), SECRET)
    yield Side(live(SANDBOX), fill(api, SANDBOX))
    api("DELETE", f"/api/integrations/{SANDBOX}?confirm=true")


@pytest.fixture(scope="module")
def oracle_side(api, authority):
    with running_oracle(authority / "chain.pem", authority / "key.pem", records=0) as settings:
        connect(api, ORACLE, settings, ORACLE_SECRET)
        yield Side(live(ORACLE), fill(api, ORACLE))
        api("DELETE", f"/api/integrations/{ORACLE}?confirm=true")


@pytest.fixture(scope="module")
def stored_side(api, sandbox_side):
    """The sandbox's rows, pulled."""
    assert api.run(SANDBOX)["status"] == "succeeded"
    keys = {rid: key for key, (rid, _) in sandbox_side.rows.items()}
    rows = {}
    for entity in PATHS:
        for page in api.pages(stored(entity, "top=1000")):
            for record in page:
                for link in record["links"]:
                    if link["connection"] == SANDBOX:
                        rows[keys[link["id"]]] = record["id"], record["created_at"]
    assert rows.keys() == sandbox_side.rows.keys()
    return Side(stored, rows)


def wanted(case, side):
    if side == "oracle" and case.exact is not None:
        return case.exact
    return case.stored if side == "stored" and case.stored is not None else case.expected


@pytest.mark.parametrize("case", CASES, ids=[each.text[:60] for each in CASES])
@pytest.mark.parametrize(
    "name", ["sandbox", "stored", pytest.param("oracle", marks=pytest.mark.oracle)], scope="module"
)
def test_the_same_filter_finds_the_same_records_everywhere(api, problem, request, name, case):
    side = request.getfixturevalue(f"{name}_side")
    expected = wanted(case, name)
    path = side.ask(case.entity, f"top=1000&filter={quote(side.text(case))}")
    if isinstance(expected, Refused):
        answer = api("GET", path)
        detail = answer.json()["detail"]
        assert detail.startswith(expected.detail)
        problem(answer, 400, "BadRequest", detail, "filter")
        return
    keys = {rid: key for key, (rid, _) in side.rows.items()}
    found = [keys[item["id"]] for page in api.pages(path) for item in page if item["id"] in keys]
    assert sorted(found) == sorted(expected.split())
