"""A record's history is read a page at a time: as much as is shown, whatever comes after it, and the same while it grows."""

import json
from contextlib import closing
from urllib.parse import unquote

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crm_core.functions.history import history
from crm_core.functions.web import Call, Incoming, Principal, Role
from crm_core.hub import Hub
from crm_core.model.connection import DEFAULT_TENANT
from crm_core.model.entities import ACCOUNT
from crm_core.model.fields import hub_time
from crm_core.ports import Row, measured
from crm_core.settings import load
from crm_core.storage import layout
from crm_core.storage.memory import MemoryBlob, MemoryQueue, MemoryTable
from crm_core.sync.undo import Undoer
from crm_core.system import SystemClock
from tests.sync.test_record_undo import BY, KEY

VERSIONS = 1000


class Counting(MemoryTable):
    """How many rows of history were read."""

    rows = 0

    def query(self, table, **how):
        page = super().query(table, **how)
        if table == layout.RECORDS:
            self.rows += sum(row.rk.startswith("h~") for row in page.rows)
        return page


def alone():
    """A hub over the in-memory twins, without a connection."""
    environ = {
        "AzureWebJobsStorage": "UseDevelopmentStorage=true", "HUB_API_KEY": KEY, "INTEGRATION_ENCRYPTION_KEY": KEY,
    }  # fmt: skip
    return Hub(load(environ), table=Counting(), queue=MemoryQueue(SystemClock()), blob=MemoryBlob())


@pytest.fixture
def hub():
    with closing(alone()) as hub:
        yield hub


def editor(hub):
    return Undoer(hub.engine, DEFAULT_TENANT, ACCOUNT, BY)


def page(hub, record, top, token=""):
    """(the items of a page, the place after them or "")."""
    principal = Principal(DEFAULT_TENANT, BY, Role.READER)
    incoming = Incoming("GET", f"/api/records/accounts/{record.id}/history", {}, {}, b"")
    parts = {"entities": "accounts", "record_id": record.id}
    parameters = {"top": str(top), **({"skiptoken": token} if token else {})}
    body = history(Call(hub, principal, incoming, parts, parameters)).body
    return body["value"], unquote(body.get("nextLink", "").rpartition("skiptoken=")[2])


def pages(hub, record, top):
    found, token = page(hub, record, top)
    yield found
    while token:
        found, token = page(hub, record, top, token)
        yield found


def table(hub):
    return hub.records.table


def changed(hub, versions):
    """A record with so many versions, and what it was at each; the city was set once, and the industry never changed."""
    record = editor(hub).create({"name": "0", "industry": "Mining", "phone": "0"})
    states = [{"name": "0", "industry": "Mining", "phone": "0"}]
    for number in range(1, versions):
        change = {"name": str(number), **({"city": "Lima"} if number == 1 else {})}
        if number == versions - 1:
            change["phone"] = "1"
        editor(hub).update(record.id, change)
        states.append(states[-1] | change)
    return record, states


def check(steps, states):
    assert [each["version"] for each in steps] == list(range(1, len(states) + 1))
    assert (steps[0]["old"], steps[0]["new"]) == ({}, states[0])
    for step, before, after in zip(steps[1:], states, states[1:], strict=False):
        names = {name for name in {*before, *after} if before.get(name) != after.get(name)}
        assert step["old"] == {name: before.get(name) for name in names}
        assert step["new"] == {name: after.get(name) for name in names}


def without_new_values(hub):
    """The steps as earlier code has written them."""
    rows = [row for row in table(hub).query(layout.RECORDS).rows if row.rk.startswith("h~")]
    for row in rows:
        told = json.loads(row.values["json"])
        known = {name: value for name, value in told.items() if name not in ("new", "made")}
        assert known != told
        table(hub).replace(layout.RECORDS, Row(row.pk, row.rk, {"json": json.dumps(known)}))


@pytest.mark.parametrize("top", [1, 100, 1000])
def test_a_page_reads_about_what_it_shows(hub, top):
    record, states = changed(hub, VERSIONS)
    steps, token = [], ""
    for _ in range(VERSIONS if top > 1 else 5):
        table(hub).rows = 0
        with measured() as meter:
            found, token = page(hub, record, top, token)
        steps += found
        assert table(hub).rows <= len(found) + 1  # one more tells whether there are more
        assert (
            meter.total("storage_calls") <= 4
        )  # the record, the connections, its history: nothing grows with it
        if not token:
            break
    assert bool(token) is (top == 1)
    check(steps, states[: len(steps)] if token else states)


def test_steps_of_earlier_code_tell_the_same_by_what_comes_after_them(hub):
    record, states = changed(hub, 30)
    without_new_values(hub)
    check([each for found in pages(hub, record, 7) for each in found], states)
    editor(hub).update(record.id, {"phone": "2"})
    check([each for found in pages(hub, record, 7) for each in found], [*states, states[-1] | {"phone": "2"}])


def test_what_is_long_is_not_kept_twice_and_told_all_the_same(hub):
    long = ["a" * 40_000, "b" * 40_000, "c" * 40_000]
    record = editor(hub).create({"name": "x", "description": long[0]})
    for text in long[1:]:
        editor(hub).update(record.id, {"description": text})
    states = [{"name": "x", "description": text} for text in long]
    steps = list(hub.records.history(DEFAULT_TENANT, "account", record.id))
    assert [(step.new, step.made) for step in steps] == [({}, None)] * 2
    for top in (1, 2, 100):
        check([each for found in pages(hub, record, top) for each in found], states)


@pytest.mark.parametrize("top", [1, 2, 3, 5])
def test_pages_hold_together_while_the_record_is_changed(hub, top):
    record, states = changed(hub, 6)
    steps, token, number = [], "", 100
    while True:
        found, token = page(hub, record, top, token)
        steps += found
        if not token:
            break
        if number < 104:
            number += 1
            editor(hub).update(record.id, {"name": str(number), "city": None if number % 2 else "Cusco"})
            states.append(states[-1] | {"name": str(number), "city": None if number % 2 else "Cusco"})
    assert [each["version"] for each in steps] == list(range(1, len(steps) + 1))
    assert len(steps) >= 6
    check(steps, states[: len(steps)])


def test_the_next_page_is_the_same_whenever_it_is_asked_for(hub):
    record, _ = changed(hub, 6)
    _, token = page(hub, record, 2)
    before = page(hub, record, 2, token)[0]
    editor(hub).delete(record.id)
    editor(hub).undo(record.id, 3)
    assert page(hub, record, 2, token)[0] == before


def test_what_was_deleted_with_its_time_is_not_guessed(hub):
    record, states = changed(hub, 6)
    until = hub_time(hub.clock.now())
    hub.records.drop_old_history(DEFAULT_TENANT, "account", layout.bucket(record.id), until, "")
    editor(hub).update(record.id, {"name": "x"})
    made, last = page(hub, record, 100)[0]
    assert (made["version"], "new" in made) == (1, False)
    assert (last["version"], last["old"], last["new"]) == (7, {"name": states[-1]["name"]}, {"name": "x"})


VALUES = st.one_of(st.none(), st.sampled_from(["a", "b"]))


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.fixed_dictionaries({"phone": VALUES, "city": VALUES}), max_size=10),
    st.integers(1, 5),
    st.integers(0, 10),
)
def test_any_history_is_told_as_it_was_in_pages_of_any_size(edits, top, old):
    """`old`: after so many edits newer code comes."""
    with closing(alone()) as hub:
        record = editor(hub).create({"name": "x", "phone": "a"})
        states = [{"name": "x", "phone": "a"}]
        for number, change in enumerate(edits):
            if number == old:
                without_new_values(hub)
            editor(hub).update(record.id, change)
            after = {name: value for name, value in (states[-1] | change).items() if value is not None}
            if after != states[-1]:
                states.append(after)
        check([each for found in pages(hub, record, top) for each in found], states)
