"""Deliveries and event items in the store: over Azurite, and over the twin that passes the same tests."""

from contextlib import closing
from dataclasses import replace
from uuid import uuid4

import pytest

from crm_core.model.connection import DEFAULT_TENANT
from crm_core.model.record import Record, Stamp
from crm_core.model.record_event import event_of
from crm_core.ports import RowChanged
from crm_core.storage import layout
from crm_core.storage.azure import AzureBlob, AzureTable, StorageAccount
from crm_core.storage.deliveries import MAX_INLINE, MAX_TOGETHER, Attempt, Deliveries, Delivery
from crm_core.storage.memory import MemoryBlob, MemoryTable
from crm_core.storage.records import Records, RecordWrite, Stored
from crm_core.system import ThreadPool
from tests.sync.conftest import Prefixed

TIME = "2026-11-24T13:45:00.000000Z"
TENANT = DEFAULT_TENANT


@pytest.fixture(params=["memory", "azure"])
def ports(request):
    """A table and a blob."""
    if request.param == "memory":
        yield MemoryTable(), MemoryBlob()
        return
    account = StorageAccount(request.getfixturevalue("azurite"))
    with closing(AzureTable(account)) as table, closing(AzureBlob(account, f"c{uuid4().hex}")) as blob:
        yield Prefixed(table), blob


@pytest.fixture
def store(ports):
    return Deliveries(*ports)


@pytest.fixture
def uid():
    return str(uuid4())


def delivery(uid, number=0, **changes):
    record = f"{number:08x}-0000-4000-8000-000000000000"
    name = layout.delivery_id(uid, record, 1, 1_700_000_000_000 + number)
    return replace(
        Delivery(name, TIME, "contact", record, 1, "created", "application/json", b"{}", {"ce-id": name}, due=TIME),
        **changes,
    )  # fmt: skip


def test_what_is_inserted_is_found_as_it_was(store, uid):
    one = delivery(uid, attempts=(Attempt(TIME, 500, 12, "no ñ"),), tries=1, outcome="refused (500)")
    (stored,) = store.insert(TENANT, uid, [one])
    assert stored == one
    found = store.get(TENANT, uid, one.id)
    assert found == one
    assert found.etag == stored.etag
    assert store.get(TENANT, str(uuid4()), one.id) is None


def test_what_is_there_already_stays_and_is_not_given_back(store, uid):
    many = [delivery(uid, number) for number in range(MAX_TOGETHER)]
    store.insert(TENANT, uid, many[:3])
    changed = [replace(each, body=b"other") for each in many]
    assert {each.id for each in store.insert(TENANT, uid, changed)} == {each.id for each in many[3:]}
    assert store.get(TENANT, uid, many[0].id).body == b"{}"
    assert store.insert(TENANT, uid, changed) == []
    assert store.insert(TENANT, uid, []) == []


def test_a_long_body_is_a_blob_and_forty_that_just_fit_go_together(store, uid):
    long = delivery(uid, 99, body=b"x" * (MAX_INLINE + 1))
    store.insert(TENANT, uid, [long])
    found = store.get(TENANT, uid, long.id)
    assert (found.body, bool(found.blob)) == (b"", True)
    assert store.whole(found).body == long.body
    many = [
        delivery(uid, number, body=bytes(range(256)) * (MAX_INLINE // 256)) for number in range(MAX_TOGETHER)
    ]
    assert len(store.insert(TENANT, uid, many)) == MAX_TOGETHER


def test_it_is_found_by_what_is_left_to_do(store, uid):
    early, late = delivery(uid, 1), delivery(uid, 2, due="2026-11-25T00:00:00.000000Z")
    early, late = store.insert(TENANT, uid, [early, late])
    assert list(store.due(TENANT, uid, "2026-11-24T14:00:00.000000Z")) == [early.id]
    assert store.any_due(TENANT, uid, "2026-11-24T14:00:00.000000Z")
    assert not store.any_due(TENANT, uid, TIME)
    assert store.open(TENANT, uid, top=10, token=None)[0] == [early.id, late.id]
    attempt = Attempt(TIME, 500, 1)
    later = store.save(TENANT, uid, early, early.after(attempt, "open", "2026-11-26T00:00:00.000000Z", "x"))
    assert list(store.due(TENANT, uid, "2026-11-24T14:00:00.000000Z")) == []
    failed = store.save(TENANT, uid, later, later.after(attempt, "failed", "", "x"))
    assert (failed.due, failed.tries) == ("", 2)
    assert store.failed(TENANT, uid, top=10, token=None)[0] == [early.id]
    assert store.open(TENANT, uid, top=10, token=None)[0] == [late.id]
    again = store.save(TENANT, uid, failed, replace(failed, state="open", due=TIME, tries=0))
    assert store.failed(TENANT, uid, top=10, token=None)[0] == []
    store.save(TENANT, uid, again, again.after(attempt, "done", "", "taken"))
    assert store.open(TENANT, uid, top=10, token=None)[0] == [late.id]


def test_who_has_an_older_copy_changes_nothing(store, uid):
    one, other = store.insert(TENANT, uid, [delivery(uid, 1), delivery(uid, 2)])
    store.save(TENANT, uid, one, replace(one, due="2026-11-25T00:00:00.000000Z"))
    with pytest.raises(RowChanged):
        store.save(TENANT, uid, one, one.after(Attempt(TIME, 200, 1), "done", "", "taken"))
    pairs = [(each, replace(each, state="failed", due="")) for each in (one, other)]
    with pytest.raises(RowChanged):
        store.save_all(TENANT, uid, pairs)
    assert store.get(TENANT, uid, other.id).state == "open"


def test_lists_are_newest_first_and_of_a_range(store, uid):
    many = [delivery(uid, number * 1000) for number in range(5)]
    store.insert(TENANT, uid, many)
    found, token = store.page(TENANT, uid, top=3, token=None)
    assert [each.id for each in found] == [each.id for each in many[:1:-1]]
    rest, token = store.page(TENANT, uid, top=3, token=token)
    assert [each.id for each in rest] == [many[1].id, many[0].id]
    since, until = (layout.delivery_time(1_700_000_000_000 + number * 1000) for number in (1, 3))
    found, _ = store.page(TENANT, uid, top=10, token=None, since=since, until=until)
    assert [each.id for each in found] == [each.id for each in many[3:0:-1]]


def test_an_id_is_of_one_version_at_one_connection(uid):
    names = {
        layout.delivery_id(connection, record, version, 5)
        for connection in (uid, str(uuid4()))
        for record in (str(uuid4()), str(uuid4()))
        for version in (1, 2)
    }
    assert len(names) == 8
    assert all(layout.is_delivery_id(each) for each in names)
    assert layout.delivery_id(uid, "r", 1, 5) == layout.delivery_id(uid, "r", 1, 5)


def test_attempts_are_kept_up_to_thirty(uid):
    one = delivery(uid)
    for number in range(40):
        one = one.after(Attempt(TIME, 500, number), "open", TIME, "")
    assert (one.tries, [each.ms for each in one.attempts]) == (40, list(range(10, 40)))


# --- event items --------------------------------------------------------------------------------------------------


def test_events_are_written_with_their_record_and_found_by_connection_in_order(ports, uid):
    pool = ThreadPool(2)
    records = Records(ports[0], pool)
    other = str(uuid4())
    ids = [f"a{number:07x}-0000-4000-8000-000000000000" for number in range(2)]
    for record_id in ids:
        record = Record(record_id, "contact", {"last_name": "Torres"}, Stamp(TIME, "hub"), {"time": TIME})
        before = None
        for version in (1, 2, 10):
            record = replace(record, version=version, fields={"last_name": f"Torres {version}"})
            event = event_of(before.content if before else None, record, {}, TIME, "hub")
            write = RecordWrite(record_id, before, record, event=event, tells=(other, uid))
            assert records.commit(TENANT, "contact", "a", [write]).written
            etag = records.get(TENANT, "contact", record_id).etag
            before = Stored(record_id, record, etag)
    found = list(records.events(TENANT, "contact", "a", uid))
    assert [(each.record, each.version) for each in found] == [(i, v) for i in ids for v in (1, 2, 10)]
    assert found[0].fields == {"last_name": "Torres 1"}
    assert list(records.open_items(TENANT, "contact", "a")) == []  # of a record these alone tell nothing
    assert len(list(records.open_items(TENANT, "contact", "a", kind="event"))) == 12
    records.close_events(TENANT, "contact", "a", uid, found[:2])
    records.close_events(TENANT, "contact", "a", uid, found[:4])  # what is gone is gone
    assert [each.version for each in records.events(TENANT, "contact", "a", uid)] == [2, 10]
    assert len(list(records.events(TENANT, "contact", "a", other))) == 6
    pool.close()
