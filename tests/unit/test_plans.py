"""Decisions of a run in numbered parts: read as they were told, by pages of any size, without reading everything."""

from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crm_core.model.connection import DEFAULT_TENANT
from crm_core.ports import measured
from crm_core.storage import plans
from crm_core.storage.memory import MemoryBlob
from crm_core.storage.plans import Digest, Parts, PlanReader, PlanWriter, digest

RUN = "99999999999999-run"
ACTIONS = ("create", "update", "delete")


def writer(blob: MemoryBlob, parts: Parts | None = None, mark: str = "mark-one") -> PlanWriter:
    return PlanWriter(blob, DEFAULT_TENANT, RUN, parts or Parts(), mark)


def reader(blob: MemoryBlob, parts: Parts) -> PlanReader:
    return PlanReader(blob, DEFAULT_TENANT, RUN, parts)


def pages(plan: PlanReader, top: int, action: str = "") -> list[dict[str, Any]]:
    found, place = [], {}
    while True:
        page, after = plan.page(place, top=top, action=action)
        assert len(page) <= top
        found += page
        if after is None:
            return found
        assert after != place
        place = after


TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)
DECISIONS = st.fixed_dictionaries(
    {"action": st.sampled_from(ACTIONS), "fields": st.dictionaries(TEXTS, TEXTS)}
)


@given(
    decisions=st.lists(DECISIONS, max_size=30),
    part_bytes=st.integers(1, 400),
    read_bytes=st.integers(1, 300),
    top=st.integers(1, 8),
    flushes=st.sets(st.integers(0, 30)),
)
def test_pages_of_any_size_give_what_was_told_in_its_order(
    decisions: list[dict[str, Any]], part_bytes: int, read_bytes: int, top: int, flushes: set[int]
) -> None:
    blob = MemoryBlob()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(plans, "PART_BYTES", part_bytes)
        patch.setattr(plans, "READ_BYTES", read_bytes)
        parts = Parts()
        out = writer(blob)
        for number, each in enumerate(decisions):
            assert out.add(each, [Digest(number + 1, 7)]) == number
            if number in flushes:  # a slice ends, and another worker goes on
                parts = Parts.from_json(out.flush().to_json())
                out = writer(blob, parts, f"mark-{number}")
        parts = out.flush()
        told = [{"id": number, **each} for number, each in enumerate(decisions)]
        plan = reader(blob, Parts.from_json(parts.to_json()))
        assert parts.decisions == len(told)
        assert list(plan.every()) == pages(plan, top) == told
        for action in ACTIONS:
            assert pages(plan, top, action) == [each for each in told if each["action"] == action]
        assert [each.of for each in plan.digests()] == [number + 1 for number in range(len(told))]


def test_a_worker_that_died_before_its_row_was_saved_leaves_nothing_in_the_plan() -> None:
    blob = MemoryBlob()
    first = writer(blob)
    first.add({"action": "create", "record_id": "kept"})
    kept = first.flush()
    dead = writer(blob, kept, "mark-two")
    dead.add({"action": "create", "record_id": "lost"}, [Digest(1, 1)])
    dead.flush()  # and nobody learns of it
    again = writer(blob, kept, "mark-three")
    again.add({"action": "update", "record_id": "again"})
    parts = again.flush()
    dead.add({"action": "delete", "record_id": "late"})
    dead.flush()  # the overtaken one was only slow
    assert [each["record_id"] for each in reader(blob, parts).every()] == ["kept", "again"]
    assert not list(reader(blob, parts).digests())


def test_a_page_reads_a_piece_and_not_the_plan() -> None:
    blob = MemoryBlob()
    out = writer(blob)
    for number in range(20_000):
        out.add(
            {
                "action": "update",
                "record_id": f"{number:04}",
                "fields": {"name": {"old": "x" * 400, "new": "y"}},
            }
        )
    parts = out.flush()
    assert parts.parts == 3
    plan = reader(blob, parts)
    got: list[int] = []
    get = blob.get

    def measured_get(name: str, offset: int = 0, length: int | None = None) -> bytes | None:
        data = get(name, offset, length)
        got.append(len(data or b""))
        return data

    blob.get = measured_get  # type: ignore[method-assign]
    with measured() as meter:
        _, place = plan.page({}, top=50)
        assert place is not None
        page, _ = plan.page(place, top=50)
    assert [each["id"] for each in page] == list(range(50, 100))
    assert sum(got) < 3 * plans.READ_BYTES
    assert meter.total("storage_calls") == 4


def test_a_filter_that_finds_nothing_looks_at_so_many_and_says_where_to_go_on() -> None:
    blob = MemoryBlob()
    out = writer(blob)
    for _ in range(plans.MAX_EXAMINED + 10):
        out.add({"action": "update"})
    out.add({"action": "delete"})
    plan = reader(blob, out.flush())
    found, place = plan.page({}, top=50, action="delete")
    assert (found, place is None) == ([], False)
    assert place is not None
    found, place = plan.page(place, top=50, action="delete")
    assert ([each["id"] for each in found], place) == ([plans.MAX_EXAMINED + 10], None)


def test_amounts_keep_their_digits_and_an_empty_plan_is_empty() -> None:
    blob = MemoryBlob()
    empty = reader(blob, writer(blob).flush())
    assert empty.page({}, top=50) == ([], None)
    out = writer(blob)
    out.add(
        {"action": "update", "fields": {"amount": {"old": None, "new": Decimal("10.0000000000000000001")}}}
    )
    plan = reader(blob, out.flush())
    assert next(plan.every())["fields"]["amount"]["new"] == Decimal("10.0000000000000000001")


def test_digests_tell_texts_apart_by_where_they_end() -> None:
    assert digest("a", "bc") != digest("ab", "c")
    assert digest("a", "bc") == digest("a", "bc")
    assert 0 < digest("") < 2**64
