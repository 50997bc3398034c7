"""Times without a zone, in the zone of their connection: what an hour that comes twice, or never, means."""

from datetime import datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crm_core.model.local_time import instant_of, local_of, zone_of

LIMA, MADRID = zone_of("America/Lima"), zone_of("Europe/Madrid")


@pytest.mark.parametrize(
    ("zone", "text", "instant"),
    [
        (LIMA, "2026-11-24T13:45:00", "2026-11-24T18:45:00Z"),
        (LIMA, "2026-11-24 13:45", "2026-11-24T18:45:00Z"),
        (LIMA, "2026-11-24T13:45:00Z", "2026-11-24T13:45:00Z"),
        (LIMA, "2026-11-24T13:45:00+02:00", "2026-11-24T11:45:00Z"),
        (MADRID, "2026-07-01T12:00:00", "2026-07-01T10:00:00Z"),
        # 02:30 comes twice on the day that summer ends: the first is meant.
        (MADRID, "2026-10-25T02:30:00", "2026-10-25T00:30:00Z"),
        # 02:30 is missing on the day that it begins: the clocks show 03:30 then.
        (MADRID, "2026-03-29T02:30:00", "2026-03-29T01:30:00Z"),
    ],
)
def test_a_time_is_read_in_the_zone_unless_it_bears_one(zone, text, instant):
    assert instant_of(text, zone) == instant


def test_an_hour_that_is_missing_is_written_as_the_clocks_show_it():
    assert local_of(instant_of("2026-03-29T02:30:00", MADRID), MADRID) == "2026-03-29T03:30:00"


def test_the_second_of_two_equal_hours_is_written_like_the_first_and_read_as_that():
    assert local_of("2026-10-25T01:30:00Z", MADRID) == "2026-10-25T02:30:00"
    assert instant_of("2026-10-25T02:30:00", MADRID) == "2026-10-25T00:30:00Z"


@given(st.datetimes(min_value=datetime.fromisoformat("1990-01-01")), st.sampled_from([LIMA, MADRID]))
def test_what_is_written_once_is_written_the_same_again(moment, zone):
    try:
        instant = instant_of(moment.isoformat(), zone)
    except ValueError:
        assert moment.year == 9999
        return
    once = local_of(instant, zone)
    assert local_of(instant_of(once, zone), zone) == once


@pytest.mark.parametrize("text", ["", "yesterday", "2026-13-01T00:00:00", "9999-12-31T23:59:00", None])
def test_what_is_no_time_is_refused(text):
    with pytest.raises(ValueError, match="expected a time"):
        instant_of(text, LIMA)


@pytest.mark.parametrize(
    "name", ["", "Lima", "../etc/passwd", "/etc/localtime", "America", "\x00", "x" * 300]
)
def test_what_is_no_zone_is_refused(name):
    with pytest.raises(ValueError, match="expected a time zone"):
        zone_of(name)
