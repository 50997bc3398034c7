"""Two records that become one, as data."""

from dataclasses import replace

from crm_core.model.record import HUB, Record, Stamp
from crm_core.sync.sides import Config
from crm_core.sync.unite import united

NOW = "2026-11-24T13:45:00.000000Z"
KEPT, DUPLICATE, THIRD = (f"{each}0000000-0000-4000-8000-000000000000" for each in "abc")


def record(record_id, *reviews):
    made = Record(
        record_id, "contact", {"last_name": "Torres"}, Stamp(NOW, HUB), {"time": NOW, "origin": HUB}
    )
    return replace(made, reviews=reviews)


def match(other, **more):
    return {"kind": "match", "connection": "u1", "record": other, **more}


def test_what_the_duplicate_asked_about_a_third_one_is_asked_of_the_kept_one():
    about_kept, about_third = match(KEPT), match(THIRD)
    decided = match(THIRD, decided="separate") | {"connection": "u2"}
    duplicate = record(DUPLICATE, about_kept, about_third, decided)
    after, _ = united(record(KEPT, match(DUPLICATE)), duplicate, Config({}, 0.0), NOW)
    assert list(after.reviews) == [about_third]
    again, _ = united(record(KEPT, about_third), duplicate, Config({}, 0.0), NOW)
    assert list(again.reviews) == [about_third]
