"""Decisions without I/O: schedules, retries, secrets, keys."""

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crm_core.errors import BadAnswer, BadRequest, Misconfigured, RateLimited, Rejected, Unavailable
from crm_core.model.connection import Schedule, Tenant
from crm_core.retry import GiveUp, Retry, backoff, decide
from crm_core.storage.layout import newest_first, quote
from crm_core.storage.secrets import Cipher, parse_key
from crm_core.sync.schedule import check_schedule, next_due


class TestSchedule:
    NOW = datetime(2026, 11, 24, 13, 45, 1, tzinfo=UTC)

    @pytest.mark.parametrize(
        ("schedule", "due"),
        [
            (Schedule(minutes=1), "2026-11-24T13:46:01.000000Z"),
            (Schedule(cron="0 */15 * * * *"), "2026-11-24T14:00:00.000000Z"),
            (Schedule(cron="0 0 0 13 * 5"), "2027-08-13T00:00:00.000000Z"),
            (Schedule(cron="0 3 * * *"), "2026-11-25T03:00:00.000000Z"),
            (Schedule(), ""),
        ],
    )
    def test_the_next_pull(self, schedule, due):
        check_schedule(schedule)
        assert next_due(schedule, self.NOW) == due

    @pytest.mark.parametrize(
        "schedule",
        [
            Schedule(minutes=0),
            Schedule(minutes=10**6),
            Schedule(minutes=5, cron="0 * * * * *"),
            Schedule(cron="*/5 * * * * *"),
            Schedule(cron="often"),
            Schedule(cron="@daily"),
            Schedule(cron="0 0 0 L * *"),
            Schedule(cron="0 61 * * * *"),
        ],
    )
    def test_a_wrong_schedule_is_named(self, schedule):
        with pytest.raises(BadRequest) as caught:
            check_schedule(schedule)
        assert caught.value.errors[0].field.startswith("schedule")

    @pytest.mark.parametrize(
        "schedule",
        [
            Schedule(minutes=0),
            Schedule(cron="* * * * * *"),
            Schedule(cron="0,30 * * * * *"),
            Schedule(cron="0-1 * * * * *"),
        ],
    )
    def test_more_often_than_each_minute_is_for_webhooks(self, schedule):
        with pytest.raises(BadRequest, match=r"^schedule\.(minutes|cron): .* webhooks"):
            check_schedule(schedule)


class TestRetry:
    def test_a_rate_limit_waits_what_was_asked_and_counts_for_nothing(self):
        assert decide(RateLimited("x", retry_after=30), 1) == Retry(30, counts=False)
        assert decide(RateLimited("x", retry_after=30), 99, 1.0) == Retry(33, counts=False)

    def test_unavailable_backs_off_to_a_quarter_of_an_hour(self):
        delays = [decide(Unavailable("x"), attempt).delay for attempt in range(1, 12)]
        assert delays[:3] == [5, 10, 20]
        assert delays == sorted(delays)
        assert delays[-1] == 900
        assert decide(Unavailable("x", retry_after=60), 1) == Retry(60)

    def test_a_bad_answer_has_three_attempts_and_a_refusal_none(self):
        assert isinstance(decide(BadAnswer("x"), 2), Retry)
        assert decide(BadAnswer("x"), 3) == GiveUp()
        assert decide(Rejected("x"), 1) == GiveUp()

    @given(st.integers(1, 10_000), st.floats(0, 1))
    def test_no_wait_is_negative_or_endless(self, attempt, spread):
        assert 5 <= backoff(attempt, spread) <= 990.001


class TestSecrets:
    @pytest.mark.parametrize(
        "text", ["e" * 32, "ab" * 32, "QUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUE=", "-_" * 16]
    )
    def test_a_key_is_32_characters_or_32_bytes_in_hex_or_base64(self, text):
        assert len(parse_key(text, "KEY")) == 32

    @pytest.mark.parametrize("text", ["", "short", "e" * 31, "e" * 33, "é" * 32, "zz" * 32, "ab" * 31])
    def test_another_key_is_refused_by_name_and_not_shown(self, text):
        with pytest.raises(Misconfigured, match=r"^KEY is wrong") as caught:
            parse_key(text, "KEY")
        assert not text or text not in str(caught.value)

    def test_a_sealed_text_opens_only_where_it_belongs(self):
        cipher = Cipher(b"k" * 32)
        sealed = cipher.seal(b"secret", "tenant", "uid", "bundle")
        assert cipher.open(sealed, "tenant", "uid", "bundle") == b"secret"
        assert cipher.seal(b"secret", "tenant", "uid", "bundle") != sealed
        for about in (("tenant", "other", "bundle"), ("tenant", "uid", "token"), ("tenant",)):
            with pytest.raises(ValueError, match="belongs elsewhere"):
                cipher.open(sealed, *about)
        with pytest.raises(ValueError, match="another key"):
            Cipher(b"x" * 32).open(sealed, "tenant", "uid", "bundle")
        for broken in ("", "x", sealed[:-8] + "AAAAAAA=", sealed.replace("1.", "9.", 1)):
            with pytest.raises(ValueError, match=r"."):
                cipher.open(broken, "tenant", "uid", "bundle")
        assert "kkkk" not in repr(cipher)


class TestKeys:
    @given(st.text(max_size=50), st.text(max_size=50))
    def test_quoting_keeps_different_parts_different_and_safe(self, one, other):
        try:
            quoted = quote(one)
            same = quoted == quote(other)
        except UnicodeEncodeError:
            return  # half characters are refused before they get here
        assert same == (one == other)
        assert not set(quoted) & set("/\\#?~ ")

    @given(st.integers(1, 10**13), st.integers(1, 10**13))
    def test_later_ids_sort_first(self, one, other):
        if one < other:
            assert newest_first(other, "a") < newest_first(one, "a")

    def test_a_tenant_has_a_simple_name(self):
        for name in ("", "A", "1a", "a~b", "a" * 41):
            with pytest.raises(BadRequest):
                Tenant(name)
