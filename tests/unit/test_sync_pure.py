"""Decisions without I/O: merging, schedules, retries, secrets."""

from dataclasses import replace
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crm_core.connector import Change
from crm_core.errors import BadAnswer, BadRequest, Misconfigured, RateLimited, Rejected, Unavailable
from crm_core.model.connection import Schedule, Tenant
from crm_core.model.entities import ACCOUNT
from crm_core.model.record import Link, Stamp
from crm_core.retry import GiveUp, Retry, backoff, decide
from crm_core.storage.layout import newest_first, quote
from crm_core.storage.secrets import Cipher, parse_key
from crm_core.sync import merge
from crm_core.sync.merge import Snapshot, Verdict, guard
from crm_core.sync.schedule import check_schedule, next_due

MAPPED = ("name", "phone", "annual_revenue")
values = st.one_of(st.none(), st.sampled_from(["a", "b", "c"]))
rows = st.fixed_dictionaries(
    {"name": values, "phone": values, "annual_revenue": st.sampled_from([None, "1.5", "1.50", "2"])}
)


def snapshot(fields, version=1, modified="2026-01-01T00:00:00Z", hi="2026-01-02T00:00:00Z", **more):
    if fields is not None:
        fields = {name: value for name, value in fields.items() if value is not None}
    return Snapshot(Change("r", fields, str(version), modified), "2026-01-01T12:00:00Z", hi, **more)


def first(fields):
    return merge.first_seen("0", ACCOUNT, "c", snapshot(fields), "run")


class TestMerge:
    @given(rows, rows)
    def test_afterwards_the_record_holds_what_the_remote_holds(self, one, other):
        record = merge.merge(first(one), ACCOUNT, MAPPED, "c", snapshot(other, 2))
        for name in MAPPED:
            assert ACCOUNT.by_name[name].same(record.fields.get(name), other[name])
        assert record.links["c"].ver == "2"

    @given(rows, rows)
    def test_the_version_moves_exactly_when_a_value_does(self, one, other):
        before = first(one)
        after = merge.merge(before, ACCOUNT, MAPPED, "c", snapshot(other, 2))
        moved = any(not ACCOUNT.by_name[name].same(one[name], other[name]) for name in MAPPED)
        assert after.version == before.version + moved
        assert bool(merge.old_values(before, after)) == moved

    @given(rows, rows)
    def test_the_same_snapshot_again_changes_nothing(self, one, other):
        after = merge.merge(first(one), ACCOUNT, MAPPED, "c", snapshot(other, 2))
        assert merge.merge(after, ACCOUNT, MAPPED, "c", snapshot(other, 2)) is after

    def test_only_mapped_fields_are_touched(self):
        record = replace(first({"name": "a"}), fields={"name": "a", "city": "x"})
        after = merge.merge(record, ACCOUNT, MAPPED, "c", snapshot({"name": "b"}, 2))
        assert after.fields == {"name": "b", "city": "x"}

    def test_a_changed_field_bears_its_own_stamp_and_a_fast_clock_does_not_win(self):
        after = merge.merge(
            first({"name": "a", "phone": "1"}), ACCOUNT, MAPPED, "c",
            snapshot({"name": "b", "phone": "1"}, 2, modified="2027-01-01T00:00:00Z", hi="2026-02-01T00:00:00Z"),
        )  # fmt: skip
        assert after.stamp_of("name") == Stamp("2026-02-01T00:00:00Z", "c")
        assert after.stamp_of("phone") == Stamp("2026-01-01T00:00:00Z", "c")

    def test_what_the_remote_was_known_to_hold_is_the_base(self):
        """A value that was only normalised there, or is not sent yet, is no edit of theirs."""
        record = first({"name": "Alexander", "phone": "1"})
        held = Link("live", "r", "1", behind={"phone": "0"}, echo={"name": "Alexan"})
        record = record.with_link("c", held)
        after = merge.merge(record, ACCOUNT, MAPPED, "c", snapshot({"name": "Alexan", "phone": "0"}, 2))
        assert after.fields == record.fields
        assert after.version == record.version

    def test_a_delete_marks_and_a_return_unmarks(self):
        record = first({"name": "a"})
        dead = merge.gone(record, "c", "2026-03-01T00:00:00Z")
        assert (dead.links["c"].state, dead.fields["deleted_at"], dead.version) == (
            "gone",
            "2026-03-01T00:00:00Z",
            2,
        )
        assert merge.gone(dead, "c", "2026-03-02T00:00:00Z") is dead
        back = merge.merge(dead, ACCOUNT, MAPPED, "c", snapshot({"name": "a"}, 9))
        assert (back.links["c"].state, back.fields, back.version) == ("live", {"name": "a"}, 3)


class TestGuard:
    @pytest.mark.parametrize(
        ("ver", "verdict"), [(4, Verdict.SKIP), (5, Verdict.SKIP), (6, Verdict.MERGE), (10, Verdict.MERGE)]
    )
    def test_ordered_versions_compare_as_numbers(self, ver, verdict):
        record = first({"name": "a"}).with_link("c", Link("live", "r", "5"))
        assert guard(record, "c", snapshot({"name": "b"}, ver), ordered=True) is verdict

    @pytest.mark.parametrize(
        ("link", "dead", "fields"),
        [
            (Link("live", "r"), False, {"name": "b"}),
            (Link("gone", "r", "5"), False, {"name": "b"}),
            (Link("live", "r", "5"), True, {"name": "b"}),
            (Link("live", "r", "5"), False, None),
        ],
    )
    def test_what_a_page_can_not_tell_needs_a_look(self, link, dead, fields):
        record = replace(first({"name": "a"}).with_link("c", link), dead=dead)
        assert guard(record, "c", snapshot(fields, 9), ordered=True) is Verdict.LOOK
        assert guard(record, "c", snapshot(fields, 9, point_read=True), ordered=True) is Verdict.MERGE

    def test_versions_without_order_are_equal_or_need_a_look(self):
        record = first({"name": "a"}).with_link("c", Link("live", "r", "x"))
        assert guard(record, "c", snapshot({"name": "a"}, "x"), ordered=False) is Verdict.SKIP
        assert guard(record, "c", snapshot({"name": "a"}, "y"), ordered=False) is Verdict.LOOK


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
