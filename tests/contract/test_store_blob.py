"""What every `Blob` does, on Azurite and in memory."""

import os
from uuid import uuid4

import pytest

from crm_core.ports import Blob, measured
from crm_core.storage.azure import AzureBlob, StorageAccount
from crm_core.storage.memory import MemoryBlob


@pytest.fixture(params=["memory", "azure"])
def store(request):
    if request.param == "memory":
        yield MemoryBlob()
        return
    azure = AzureBlob(StorageAccount(request.getfixturevalue("azurite")), f"c-{uuid4().hex}")
    yield azure
    azure.close()


def test_a_store_is_a_blob(store):
    checked: Blob = store
    assert checked


@pytest.mark.parametrize("name", ["events/2026/11/x.json", "ñ 🦤", "50%25", "a#b?c&d+e", "it's"])
def test_put_get_overwrite_delete(store, name):
    assert store.get(name) is None
    store.put(name, b"first")
    store.put(name, bytes(range(256)))
    assert store.get(name) == bytes(range(256))
    store.delete(name)
    store.delete(name)
    assert store.get(name) is None


def test_delete_before_there_is_anything(store):
    store.delete("x")
    assert store.get("x", 5, 1) is None


def test_ranges(store):
    store.put("x", b"0123456789")
    assert store.get("x", 3) == b"3456789"
    assert store.get("x", 3, 4) == b"3456"
    assert store.get("x", 8, 100) == b"89"
    assert store.get("x", length=2) == b"01"
    assert store.get("x", 3, 0) == b""
    assert store.get("x", 10) == b""
    assert store.get("x", 11, 5) == b""


def test_an_empty_blob(store):
    store.put("x", b"")
    assert store.get("x") == b""
    assert store.get("x", 0, 5) == b""
    assert store.get("x", 5) == b""


def test_a_large_blob(store):
    data = os.urandom(1024 * 1024) * 40  # over the SDK's first download of 32 MiB
    store.put("x", data)
    assert store.get("x") == data
    assert store.get("x", 20 * 1024 * 1024 + 1, 10) == data[1:11]


def test_names_and_ranges_that_can_not_be(store):
    for call in (
        lambda: store.put("", b""),
        lambda: store.get("x" * 1025),
        lambda: store.delete(""),
        lambda: store.get("x", -1),
        lambda: store.get("x", 0, -1),
    ):
        with pytest.raises(ValueError):
            call()


def test_names_by_how_they_begin(store):
    assert store.names("runs/") == []  # before there is a container, too
    wanted = [f"runs/a/1/{number:03d}" for number in range(7)]
    for name in (*reversed(wanted), "runs/a/10/000", "runs/b/1/000", "run", "ñ/1"):
        store.put(name, b"1")
    assert store.names("runs/a/1/") == wanted
    assert store.names("runs/a/1/", 3) == wanted[:3]
    assert store.names("runs/a/1/00", 1) == wanted[:1]
    assert store.names("ñ/") == ["ñ/1"]
    assert store.names("x") == []
    assert len(store.names("")) == 11
    for name in wanted[:3]:
        store.delete(name)
    assert store.names("runs/a/1/", 3) == wanted[3:6]
    for call in (
        lambda: store.names("x" * 1025),
        lambda: store.names("x", 0),
        lambda: store.names("x", 5001),
    ):
        with pytest.raises(ValueError):
            call()


def test_every_call_is_counted_once(store):
    store.put("x", b"makes the container")
    with measured() as meter:
        store.put("x", b"1")
        store.get("x")
        store.get("x", 5)
        store.delete("x")
        store.get("x")
        store.names("x")
    assert meter.total("storage_calls") == 6


def test_the_container_is_made_on_first_need(azurite):
    azure = AzureBlob(StorageAccount(azurite), f"c-{uuid4().hex}")
    with measured() as meter:
        azure.put("x", b"1")
    assert meter.total("storage_calls") == 3  # refused, made, put
    assert azure.get("x") == b"1"
    azure.close()
