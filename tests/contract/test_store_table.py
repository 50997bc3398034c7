"""What every `Table` does, on Azurite and in memory."""

import threading
from concurrent.futures import ThreadPoolExecutor
from enum import StrEnum
from uuid import uuid4

import pytest

from crm_core.ports import (
    MAX_PROPERTY_BYTES,
    MAX_TRANSACTION_OPERATIONS,
    Operation,
    Row,
    RowChanged,
    RowExists,
    RowTooLarge,
    Table,
    every_row,
    measured,
)
from crm_core.storage.azure import AzureTable, StorageAccount
from crm_core.storage.memory import MemoryTable


@pytest.fixture(params=["memory", "azure"])
def store(request):
    if request.param == "memory":
        yield MemoryTable()
        return
    azure = AzureTable(StorageAccount(request.getfixturevalue("azurite")))
    yield azure
    azure.close()


@pytest.fixture
def table():
    return f"T{uuid4().hex}"


def insert(*keys: str) -> list[Operation]:
    return [Operation("insert", Row("p", key, {"n": index})) for index, key in enumerate(keys)]


def keys(rows) -> list[str]:
    return [row.rk for row in rows]


def test_a_store_is_a_table(store):
    checked: Table = store
    assert checked


def test_values_come_back_with_their_types(store, table):
    values = {
        "text": "Añadir ñandú 🦤 'quoted' \"doubled\" \\ \u2028 \x01 \r\n",
        "empty": "",
        "small": 7,
        "largest": 2**63 - 1,
        "smallest": -(2**63),
        "yes": True,
        "no": False,
        "whole": 2.0,
        "part": -1.5e-300,
        "infinite": float("inf"),
        "minus": float("-inf"),
        "data": bytes(range(256)),
        "nothing": b"",
    }
    etag = store.insert(table, Row("p", "r", values))
    row = store.get(table, "p", "r")
    assert row == Row("p", "r", values, etag)
    assert {name: type(value) for name, value in row.values.items()} == {
        name: type(value) for name, value in values.items()
    }
    assert store.query(table).rows == [row]


def test_nan_comes_back(store, table):
    store.insert(table, Row("p", "r", {"value": float("nan")}))
    value = store.get(table, "p", "r").values["value"]
    assert isinstance(value, float)
    assert value != value  # noqa: PLR0124  # that is what NaN is


def test_an_enumeration_comes_back_as_text(store, table):
    class Colour(StrEnum):
        RED = "red"

    store.insert(table, Row("p", "r", {"colour": Colour.RED}))
    assert type(store.get(table, "p", "r").values["colour"]) is str


@pytest.mark.parametrize(
    "key",
    ["it's", "50%25", "%41", "a b", "ñ~🦤", "'", "''", "a+b&c=d;e", "[x]{y}", "PartitionKey", ".", "..", ""],
)
def test_keys_of_all_kinds(store, table, key):
    etag = store.insert(table, Row(key, key, {"n": 1}))
    assert store.get(table, key, key) == Row(key, key, {"n": 1}, etag)
    etag = store.replace(table, Row(key, key, {"n": 2}), etag)
    assert store.query(table, pk=key, rk=key, rk_to=f"{key}~").rows == [Row(key, key, {"n": 2}, etag)]
    store.delete(table, key, key, etag)
    assert store.get(table, key, key) is None


@pytest.mark.parametrize("key", ["a/b", "a\\b", "a#b", "a?b", "a\nb", "a\x85b", "x" * 513, "\ud800"])
def test_keys_that_the_service_refuses(store, table, key):
    for call in (
        lambda: store.get(table, "p", key),
        lambda: store.get(table, key, "r"),
        lambda: store.insert(table, Row("p", key)),
        lambda: store.upsert(table, Row(key, "r")),
        lambda: store.delete(table, "p", key),
    ):
        with pytest.raises(ValueError):
            call()


def test_what_is_not_there(store, table):
    assert store.get(table, "p", "r") is None
    assert store.query(table, pk="p").rows in ([], ())
    assert store.query(table).token is None
    store.delete(table, "p", "r")
    with pytest.raises(RowChanged):
        store.delete(table, "p", "r", 'W/"1"')
    with pytest.raises(RowChanged):
        store.replace(table, Row("p", "r"))
    store.upsert(table, Row("p", "other"))
    assert store.get(table, "p", "r") is None
    with pytest.raises(RowChanged):
        store.replace(table, Row("p", "r"))
    store.delete(table, "p", "r")


def test_insert_of_a_taken_key(store, table):
    store.insert(table, Row("p", "r", {"n": 1}))
    with pytest.raises(RowExists) as error:
        store.insert(table, Row("p", "r", {"n": 2}))
    assert error.value.index == 0
    assert store.get(table, "p", "r").values == {"n": 1}


def test_replace_takes_the_whole_row_and_guards_it(store, table):
    first = store.insert(table, Row("p", "r", {"a": 1, "b": 2}))
    second = store.replace(table, Row("p", "r", {"b": 3}), first)
    assert store.get(table, "p", "r") == Row("p", "r", {"b": 3}, second)
    with pytest.raises(RowChanged) as error:
        store.replace(table, Row("p", "r", {"b": 4}), first)
    assert error.value.index == 0
    with pytest.raises(RowChanged):
        store.delete(table, "p", "r", first)
    third = store.replace(table, Row("p", "r", {"b": 5}))
    assert len({first, second, third}) == 3
    store.delete(table, "p", "r", third)
    assert store.get(table, "p", "r") is None


def test_upsert_makes_and_overwrites(store, table):
    store.upsert(table, Row("p", "r", {"a": 1}))
    etag = store.upsert(table, Row("p", "r", {"b": 2}))
    assert store.get(table, "p", "r") == Row("p", "r", {"b": 2}, etag)


def test_an_empty_etag_is_no_upsert(store, table):
    store.upsert(table, Row("p", "r", {"a": 1}))
    for call in (lambda: store.replace(table, Row("p", "r"), ""), lambda: store.delete(table, "p", "r", "")):
        with pytest.raises(ValueError, match="ETag"):
            call()


@pytest.mark.parametrize(
    "values",
    [{"n": 2**63}, {"PartitionKey": "x"}, {"Timestamp": 1}, {"a b": 1}, {"a.b": 1}, {"": 1}, {"x" * 256: 1}],
)
def test_values_that_the_service_refuses(store, table, values):
    with pytest.raises(ValueError):
        store.insert(table, Row("p", "r", values))


def test_a_type_without_a_form(store, table):
    with pytest.raises(TypeError):
        store.insert(table, Row("p", "r", {"x": None}))


def test_rows_that_are_too_large(store, table):
    with pytest.raises(RowTooLarge) as error:
        store.upsert(table, Row("p", "r", {"short": "x", "long": "x" * (MAX_PROPERTY_BYTES // 2 + 1)}))
    assert error.value.property_name == "long"
    with pytest.raises(RowTooLarge):
        store.upsert(table, Row("p", "r", {f"p{n}": b"x" * 60_000 for n in range(18)}))
    with pytest.raises(RowTooLarge):
        store.upsert(table, Row("p", "r", {f"p{n}": n for n in range(253)}))


def test_the_largest_row(store, table):
    row = Row("p", "r", {f"p{n}": b"x" * MAX_PROPERTY_BYTES for n in range(15)} | {"text": "ñ" * 32_000})
    store.insert(table, row)
    assert store.get(table, "p", "r").values == row.values


# --- transactions -----------------------------------------------------------------------------------------


def test_a_transaction_of_all_kinds(store, table):
    old = store.transact(table, insert("a", "b", "c"))
    etags = store.transact(
        table,
        [
            Operation("delete", Row("p", "a"), old[0]),
            Operation("replace", Row("p", "b", {"n": 10}), old[1]),
            Operation("upsert", Row("p", "c", {"n": 20})),
            Operation("upsert", Row("p", "d", {"n": 30})),
            Operation("insert", Row("p", "e", {"n": 40})),
        ],
    )
    assert etags[0] == ""
    rows = store.query(table, pk="p").rows
    assert [(row.rk, row.values["n"], row.etag) for row in rows] == [
        ("b", 10, etags[1]),
        ("c", 20, etags[2]),
        ("d", 30, etags[3]),
        ("e", 40, etags[4]),
    ]


def test_all_or_nothing_with_the_index(store, table):
    old = store.transact(table, insert("a", "b", "c"))
    # Azurite can give two rows of one transaction the same ETag: another one tells for sure that c has moved on.
    store.transact(table, [Operation("replace", Row("p", "c"), old[2])])
    before = store.query(table).rows
    changes = [
        Operation("replace", Row("p", "a", {"n": 10}), old[0]),
        Operation("delete", Row("p", "b")),
        Operation("insert", Row("p", "new")),
    ]
    with pytest.raises(RowExists) as exists:
        store.transact(
            table, [*changes, Operation("insert", Row("p", "c")), Operation("upsert", Row("p", "z"))]
        )
    assert exists.value.index == 3
    for failing in (
        Operation("replace", Row("p", "c"), old[2]),
        Operation("replace", Row("p", "missing")),
        Operation("delete", Row("p", "c"), old[2]),
        Operation("delete", Row("p", "missing")),
    ):
        with pytest.raises(RowChanged) as changed:
            store.transact(table, [*changes, failing])
        assert changed.value.index == 3
    assert store.query(table).rows == before


def test_a_full_transaction(store, table):
    names = [f"{n:03}" for n in range(MAX_TRANSACTION_OPERATIONS)]
    etags = store.transact(table, insert(*names))
    assert [(row.rk, row.etag) for row in store.query(table).rows] == list(zip(names, etags, strict=True))
    with pytest.raises(RowExists) as error:
        store.transact(
            table, [*insert(*(f"x{name}" for name in names[1:])), Operation("insert", Row("p", "099"))]
        )
    assert error.value.index == MAX_TRANSACTION_OPERATIONS - 1


def test_transactions_that_the_service_refuses(store, table):
    for operations in (
        [],
        insert(*(str(n) for n in range(101))),
        insert("a", "a"),
        [*insert("a"), Operation("insert", Row("q", "b"))],
        [
            Operation("upsert", Row("p", str(n), {f"p{m}": b"x" * 60_000 for m in range(17)}))
            for n in range(5)
        ],
    ):
        with pytest.raises(ValueError):
            store.transact(table, operations)
    assert store.query(table).rows in ([], ())


def test_a_large_transaction(store, table):
    rows = [Row("p", str(n), {f"p{m}": "x" * 30_000 for m in range(10)}) for n in range(9)]
    store.transact(table, [Operation("upsert", row) for row in rows])
    assert [row.values for row in store.query(table).rows] == [row.values for row in rows]


# --- queries ----------------------------------------------------------------------------------------------


def test_ranges_of_a_partition(store, table):
    store.transact(table, insert("a", "b", "b~1", "b~2", "c", "~x", "ñ"))
    store.upsert(table, Row("q", "b~3"))

    def found(**conditions):
        return keys(store.query(table, **conditions).rows)

    assert found(pk="p") == ["a", "b", "b~1", "b~2", "c", "~x", "ñ"]
    assert found(pk="p", rk="b") == ["b", "b~1", "b~2", "c", "~x", "ñ"]
    assert found(pk="p", rk="b~", rk_to="b~~") == ["b~1", "b~2"]
    assert found(pk="p", rk_to="b") == ["a"]
    assert found(pk="p", rk="c", rk_to="c") == []
    assert found(pk="") == []
    assert keys(every_row(store, table, pk="p", rk="b~", rk_to="b~~")) == ["b~1", "b~2"]


def test_ranges_of_partitions(store, table):
    for pk in ("a~0", "a~1", "b~0", "it's~x"):
        for rk in ("2", "1"):
            store.upsert(table, Row(pk, rk))

    def found(**conditions):
        return [(row.pk, row.rk) for row in store.query(table, **conditions).rows]

    everything = [(pk, rk) for pk in ("a~0", "a~1", "b~0", "it's~x") for rk in ("1", "2")]
    assert found() == everything
    assert found(pk="a~", pk_to="a~~") == everything[:4]
    assert found(pk="a~1", pk_to="b~0", rk="2", rk_to="3") == everything[2:4]
    assert found(pk_to="b") == everything[:4]
    assert found(pk="it's", pk_to="it's~~") == everything[6:]


def test_order_is_by_utf16_code_units(store, table):
    names = ["Z", "a", "é", "\u2028", "🦤", "\ue000", "\ufffd"]
    store.transact(table, insert(*reversed(names)))
    assert keys(store.query(table).rows) == names
    assert keys(store.query(table, pk="p", rk="🦤").rows) == names[4:]
    assert keys(store.query(table, pk="p", rk="b", rk_to="\ue000").rows) == names[2:5]


def test_pages(store, table):
    for pk in ("p", "q"):
        store.transact(table, [Operation("insert", Row(pk, f"ñ{n:02}", {"n": n})) for n in range(7)])
    for conditions, sizes in (({}, [5, 5, 4]), ({"pk": "q"}, [5, 2]), ({"pk": "p", "pk_to": "r"}, [5, 5, 4])):
        rows, pages, token = [], [], None
        while True:
            page = store.query(table, top=5, token=token, **conditions)
            rows += page.rows
            pages.append(len(page.rows))
            token = page.token
            if token is None:
                break
        assert pages == sizes
        assert rows == list(store.query(table, **conditions).rows)


def test_a_page_that_ends_with_the_rows_has_no_token(store, table):
    store.transact(table, insert("a", "b"))
    assert store.query(table, top=2).token is None
    assert store.query(table, top=1).token is not None


def test_a_token_outlives_its_rows(store, table):
    store.transact(table, insert("a", "b", "c", "d"))
    token = store.query(table, pk="p", top=2).token
    store.delete(table, "p", "b")
    store.delete(table, "p", "c")
    assert keys(store.query(table, pk="p", token=token).rows) == ["d"]


def test_more_than_a_thousand_rows(store, table):
    for start in range(0, 1100, 100):
        store.transact(table, insert(*(f"{n:04}" for n in range(start, start + 100))))
    page = store.query(table, pk="p")
    assert len(page.rows) == 1000
    assert keys(every_row(store, table, pk="p")) == [f"{n:04}" for n in range(1100)]


def test_selected_values(store, table):
    etags = store.transact(
        table,
        [
            Operation("insert", Row("p", "a", {"x": 1, "y": 2})),
            Operation("insert", Row("p", "b", {"y": b"3"})),
        ],
    )
    assert store.query(table, select=["y", "missing"]).rows == [
        Row("p", "a", {"y": 2}, etags[0]),
        Row("p", "b", {"y": b"3"}, etags[1]),
    ]
    assert [row.values for row in store.query(table, pk="p", select=["x"]).rows] == [{"x": 1}, {}]
    assert store.query(table, select=[]).rows == [Row("p", "a", {}, etags[0]), Row("p", "b", {}, etags[1])]


@pytest.mark.parametrize("wrong", [{"top": 0}, {"top": 1001}, {"token": "nonsense"}, {"token": "e30="}])
def test_pages_that_can_not_be(store, table, wrong):
    with pytest.raises(ValueError):
        store.query(table, **wrong)


# --- calls and threads ------------------------------------------------------------------------------------


def test_every_call_is_counted_once(store, table):
    store.upsert(table, Row("p", "r"))  # makes the table
    with measured() as meter:
        store.transact(table, insert(*(str(n) for n in range(100))))
        store.get(table, "p", "1")
        store.query(table, pk="p")
        store.delete(table, "p", "1")
        store.upsert(table, Row("p", "1"))
    assert meter.total("storage_calls") == 5


def test_threads_share_a_store(store, table):
    store.insert(table, Row("p", "sum", {"n": 0}))
    started = threading.Barrier(8)

    def add(worker: int) -> list[int]:
        """Adds 10 and gives the indexes that failed on the way."""
        started.wait()
        failed = []
        for step in range(10):
            done = False
            while not done:
                row = store.get(table, "p", "sum")
                changes = [
                    Operation("insert", Row("p", f"{worker}-{step}")),
                    Operation("replace", row.with_values(n=row.values["n"] + 1), row.etag),
                ]
                try:
                    store.transact(table, changes)
                    done = True
                except RowChanged as error:
                    failed.append(error.index)
        return failed

    with ThreadPoolExecutor(8) as pool:
        failed = [index for indexes in pool.map(add, range(8)) for index in indexes]
    assert set(failed) <= {1}
    assert store.get(table, "p", "sum").values == {"n": 80}
    assert len(store.query(table, pk="p").rows) == 81
