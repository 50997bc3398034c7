"""The merge, its guard and deletes: pure rules, row by row of the decision table."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crm_core.connector import Change
from crm_core.model.connection import EntitySync
from crm_core.model.entities import ACCOUNT
from crm_core.model.record import UNKNOWN, Attempt, Link, Record, Stamp, is_sendable, open_items
from crm_core.sync import deletes, merge
from crm_core.sync.draft import Draft
from crm_core.sync.merge import Snapshot, Verdict, guard, settles
from crm_core.sync.sides import Side

FIELDS = ("name", "phone", "annual_revenue", "city")
EARLY, BEFORE, AFTER, LATE = (f"2026-01-0{day}T00:00:00.000000Z" for day in range(1, 5))
values = st.one_of(st.none(), st.sampled_from(["a", "b", "c"]))
rows = st.fixed_dictionaries(
    {"name": values, "phone": values, "annual_revenue": st.sampled_from([None, "1.5", "1.50", "2"])}
)


def cut(name, value):
    """A remote that keeps six characters of a name."""
    return value[:6] if name == "name" else value


def side(
    uid="c", direction="pull", *, reads=FIELDS, writes=FIELDS, versions="ordered", if_match=True, **sync
):
    how = EntitySync(direction, **sync)
    return Side(
        uid,
        ACCOUNT,
        frozenset(reads) if how.pulls else frozenset(),
        frozenset(writes) if how.pushes else frozenset(),
        how,
        versions,
        if_match,
        None,
        cut,
    )


PULLED, BOTH, OTHER = side(), side(direction="both"), side("d", "both")
ALONE = {"c": PULLED}
TWO = {"c": BOTH, "d": OTHER}


def snapshot(fields, version=1, modified=BEFORE, hi=AFTER, rid="r", **more):
    if fields is not None:
        fields = {name: value for name, value in fields.items() if value is not None}
    return Snapshot(Change(rid, fields, str(version), modified), EARLY, hi, **more)


def first(fields, of=PULLED, sides=ALONE):
    return merge.first_seen("0", ACCOUNT, of, sides, snapshot(fields), "run")


def merged(record, fields, version=2, *, of=PULLED, sides=ALONE, sent=None, **more):
    return merge.merge(record, of, sides, snapshot(fields, version, **more), sent).record


def shared(fields=None, *, c=None, d=None, stamp=BEFORE):
    """A record that both connections have, as the hub knows it."""
    links = {"c": Link("live", "r", "1", wants=True), "d": Link("live", "s", "1", wants=True)}
    links["c"] = replace(links["c"], **(c or {}))
    links["d"] = replace(links["d"], **(d or {}))
    return Record("0", "account", fields or {"name": "a"}, Stamp(stamp, "hub"), {"time": EARLY}, links=links)


class TestPulledOnly:
    @given(rows, rows)
    def test_afterwards_the_record_holds_what_the_remote_holds(self, one, other):
        record = merged(first(one), other)
        for name in one:
            assert ACCOUNT.by_name[name].same(record.fields.get(name), other[name])
        assert record.links["c"].ver == "2"

    @given(rows, rows)
    def test_the_version_moves_exactly_when_a_value_does(self, one, other):
        before = first(one)
        after = merged(before, other)
        moved = any(not ACCOUNT.by_name[name].same(one[name], other[name]) for name in one)
        assert after.version == before.version + moved
        assert bool(merge.old_values(before, after)) == moved

    @given(rows, rows)
    def test_the_same_snapshot_again_changes_nothing(self, one, other):
        after = merged(first(one), other)
        assert merged(after, other) is after

    def test_only_mapped_fields_are_touched(self):
        record = replace(first({"name": "a"}), fields={"name": "a", "website": "x"})
        assert merged(record, {"name": "b"}).fields == {"name": "b", "website": "x"}

    def test_a_changed_field_bears_its_own_stamp_and_a_fast_clock_does_not_win(self):
        after = merged(
            first({"name": "a", "phone": "1"}), {"name": "b", "phone": "1"}, modified=LATE, hi=AFTER
        )
        assert after.stamp_of("name") == Stamp(AFTER, "c")
        assert after.stamp_of("phone") == Stamp(BEFORE, "c")

    def test_what_the_remote_was_known_to_hold_is_the_base(self):
        """A value that was only normalised there, or is not sent yet, is no edit of theirs."""
        held = Link("live", "r", "1", behind={"phone": "0"}, echo={"name": "Alexan"})
        record = first({"name": "Alexander", "phone": "1"}).with_link("c", held)
        after = merged(record, {"name": "Alexan", "phone": "0"})
        assert (after.fields, after.version) == (record.fields, record.version)

    def test_two_that_are_only_read_put_their_differences_to_the_policy(self):
        other = side("d")
        sides = {"c": PULLED, "d": other}
        record = merged(
            first({"name": "a"}, PULLED, sides), {"name": "b"}, of=other, sides=sides, modified=EARLY
        )
        assert record.fields == {"name": "a"}
        assert record.links["d"].echo == {"name": "b"}
        assert open_items(record) == frozenset()
        record = merged(record, {"name": "c"}, 3, of=other, sides=sides, modified=LATE, hi=LATE)
        assert record.fields == {"name": "c"}
        assert record.links["c"].echo == {"name": "a"}


class TestTable:
    def test_2_what_the_remote_did_not_touch_stays_ours(self):
        record = shared({"name": "b"}, c={"behind": {"name": "a"}})
        assert merged(record, {"name": "a"}, of=BOTH, sides=TWO).fields == {"name": "b"}

    def test_3_our_write_that_landed_cut_short_is_no_edit(self):
        open_one = {
            "behind": {"name": "a"},
            "inflight": {"name": ["Alexander"]},
            "attempt": Attempt("t", LATE, "1"),
        }
        after = merged(shared({"name": "Alexander"}, c=open_one), {"name": "Alexan"}, of=BOTH, sides=TWO)
        assert after.fields == {"name": "Alexander"}
        link = after.links["c"]
        assert (link.behind, link.echo, link.inflight) == ({}, {"name": "Alexan"}, {})
        assert link.attempt.read
        assert ("push", "c") in open_items(after)  # its worker has to close it

    def test_3_an_older_write_of_ours_that_landed_is_still_to_be_followed(self):
        open_one = {"behind": {"name": "a"}, "inflight": {"name": ["b"]}, "attempt": Attempt("t", LATE, "1")}
        after = merged(shared({"name": "x"}, c=open_one), {"name": "b"}, of=BOTH, sides=TWO)
        assert (after.fields, after.links["c"].behind) == ({"name": "x"}, {"name": "b"})

    def test_4_an_edit_there_alone_is_taken_and_the_others_fall_behind(self):
        after = merged(shared(), {"name": "b"}, of=BOTH, sides=TWO)
        assert after.fields == {"name": "b"}
        assert after.links["d"].behind == {"name": "a"}
        assert open_items(after) == {("push", "d")}

    def test_5_the_same_edit_on_both_sides_agrees(self):
        after = merged(shared({"name": "b"}, c={"behind": {"name": "a"}}), {"name": "b"}, of=BOTH, sides=TWO)
        assert (after.links["c"].behind, after.version) == ({}, 1)
        assert open_items(after) == frozenset()

    @pytest.mark.parametrize(
        ("policy", "modified", "fields", "behind"),
        [
            ("newest", AFTER, {"name": "x"}, {}),
            ("newest", EARLY, {"name": "b"}, {"name": "x"}),
            ("remote", EARLY, {"name": "x"}, {}),
            ("local", AFTER, {"name": "b"}, {"name": "x"}),
            ("manual", AFTER, {"name": "b"}, {"name": "x"}),
            ("skip", AFTER, {"name": "b"}, {"name": "x"}),
        ],
    )
    def test_6_a_clash_goes_to_the_policy(self, policy, modified, fields, behind):
        of = side(direction="both", policy=policy)
        record = shared({"name": "b"}, c={"behind": {"name": "a"}})
        result = merge.merge(record, of, {"c": of, "d": OTHER}, snapshot({"name": "x"}, 2, modified=modified))
        after = result.record
        assert (after.fields, after.links["c"].behind) == (fields, behind)
        asked = policy in ("manual", "skip")
        assert (("conflict", "c") in open_items(after)) == asked
        assert (after.version == 2) == (not asked)
        assert result.losers == ({} if asked else {"name": "b" if fields["name"] == "x" else "x"})

    def test_6_of_one_field_alone(self):
        of = side(direction="both", policies={"phone": "local"}, policy="remote")
        record = shared({"name": "b", "phone": "2"}, c={"behind": {"name": "a", "phone": "1"}})
        after = merged(record, {"name": "x", "phone": "3"}, of=of, sides={"c": of})
        assert after.fields == {"name": "x", "phone": "2"}

    def test_manual_leaves_the_other_fields_alone_and_dissolves_when_they_take_it_back(self):
        of = side(direction="both", policy="manual")
        sides = {"c": of, "d": OTHER}
        record = merged(
            shared({"name": "b"}, c={"behind": {"name": "a"}}),
            {"name": "x", "phone": "1"},
            of=of,
            sides=sides,
        )
        assert record.fields == {"name": "b", "phone": "1"}
        assert record.links["c"].conflict == {"name": {"theirs": "x", "base": "a", "time": BEFORE}}
        newer = merged(record, {"name": "y", "phone": "1"}, 3, of=of, sides=sides)
        assert newer.links["c"].conflict["name"]["theirs"] == "y"
        back = merged(newer, {"name": "a", "phone": "1"}, 4, of=of, sides=sides)
        assert (back.links["c"].conflict, back.links["c"].behind) == ({}, {"name": "a"})
        assert ("push", "c") in open_items(back)
        same = merged(newer, {"name": "b", "phone": "1"}, 4, of=of, sides=sides)
        assert (same.links["c"].conflict, same.links["c"].behind) == ({}, {})

    def test_skip_takes_nothing_of_the_change_and_loses_nothing(self):
        of = side(direction="both", policy="skip")
        record = shared({"name": "b"}, c={"behind": {"name": "a"}})
        after = merged(record, {"name": "x", "phone": "1"}, of=of, sides={"c": of, "d": OTHER})
        assert after.fields == {"name": "b"}
        assert after.links["c"].conflict.keys() == {"name", "phone"}
        assert after.links["c"].ver == "2"

    def test_skip_takes_what_comes_with_the_value_from_which_both_set_out(self):
        """Whoever there takes back what a person is asked about leaves no question, and nothing to skip for."""
        of = side(direction="both", policy="skip")
        record = shared({"name": "b"}, c={"behind": {"name": "a"}})
        sides = {"c": of, "d": OTHER}
        asked = merged(record, {"name": "x"}, of=of, sides=sides)
        assert asked.links["c"].conflict.keys() == {"name"}
        back = merged(asked, {"name": "a", "phone": "1"}, 3, of=of, sides=sides)
        assert back.fields == {"name": "b", "phone": "1"}
        assert (back.links["c"].conflict, back.links["c"].behind) == ({}, {"name": "a"})

    @pytest.mark.parametrize("policy", ["remote", "local", "manual", "skip"])
    def test_what_only_remotes_tell_is_no_question(self, policy):
        """When a row was changed is another time at every remote: the newest one holds, and nobody is asked."""
        names = (*FIELDS, "updated_at")
        of = side(direction="both", reads=names, policy=policy)
        held = {"behind": {"name": "a"}, "echo": {"updated_at": EARLY}}
        record = shared({"name": "b", "updated_at": BEFORE}, c=held)
        theirs = {"name": "x", "updated_at": AFTER}
        after = merged(record, theirs, of=of, sides={"c": of, "d": OTHER}, modified=AFTER)
        assert after.fields["updated_at"] == (BEFORE if policy == "skip" else AFTER)
        assert "updated_at" not in after.links["c"].conflict
        assert ("name" in after.links["c"].conflict) == (policy in ("manual", "skip"))

    @pytest.mark.parametrize("policy", ["newest", "local", "manual", "skip"])
    def test_4_an_edit_of_what_was_only_normalised_there_is_taken_whatever_the_policy(self, policy):
        """Ours was sent, and whoever edits it there saw it: that is no clash."""
        of = side(direction="both", policy=policy)
        record = shared({"name": "Alexander"}, c={"echo": {"name": "Alexan"}}, stamp=LATE)
        after = merged(record, {"name": "Bob"}, of=of, sides={"c": of, "d": OTHER}, modified=EARLY)
        assert after.fields == {"name": "Bob"}
        assert (after.links["c"].echo, after.links["c"].conflict) == ({}, {})

    def test_a_field_is_behind_or_an_echo_and_never_both(self):
        of = side(direction="both", policy="skip")
        record = shared(
            {"name": "Alexander", "phone": "2"}, c={"echo": {"name": "Alexan"}, "behind": {"phone": "1"}}
        )
        after = merged(record, {"name": "Bob", "phone": "3"}, of=of, sides={"c": of, "d": OTHER})
        assert after.links["c"].behind == {"name": "Bob", "phone": "3"}
        assert after.links["c"].echo == {}

    def test_there_and_back_leaves_nothing_to_send_unless_it_is_on_its_way(self):
        draft = Draft(shared(), TWO)
        draft.set_value("name", "b", "hub", AFTER)
        draft.set_value("name", "a", "hub", LATE)
        assert open_items(draft.finished()) == frozenset()
        open_one = {"behind": {"name": "a"}, "inflight": {"name": ["b"]}, "attempt": Attempt("t", LATE, "1")}
        draft = Draft(shared({"name": "b"}, c=open_one), TWO)
        draft.set_value("name", "a", "hub", LATE)
        back = draft.finished()
        assert back.links["c"].behind == {"name": "a"}
        assert ("push", "c") in open_items(back)

    def test_a_newer_edit_lets_go_of_what_stood_in_its_way(self):
        held = {
            "behind": {"name": "a", "phone": "1"},
            "refused": {"name": "b", "phone": "2"},
            "waits": {"name": "contact~0"},
            "parked": {"cause": "x", "failures": 10},
            "failed": {"n": 10},
        }
        record = shared({"name": "b", "phone": "2"}, c=held)
        assert open_items(record) == {("refused", "c"), ("wait", "c"), ("parked", "c")}
        draft = Draft(record, TWO)
        draft.set_value("name", "c", "hub", LATE)
        link = draft.finished().links["c"]
        assert (link.refused, link.waits, link.parked, link.failed) == ({"phone": "2"}, {}, {}, {})
        assert is_sendable(draft.finished(), link, "name")
        assert not is_sendable(draft.finished(), link, "phone")


ON_ITS_WAY = {
    "behind": {"name": "a"},
    "inflight": {"name": ["Alexander"]},
    "attempt": Attempt("t", LATE, "1"),
}


class TestAnswers:
    """Row 1: the answer to our own write."""

    def test_what_was_stored_is_an_echo(self):
        record = shared({"name": "Alexander"}, c=ON_ITS_WAY)
        after = merged(record, {"name": "Alexan"}, of=BOTH, sides=TWO, sent={"name": "Alexander"})
        assert (after.links["c"].behind, after.links["c"].echo) == ({}, {"name": "Alexan"})
        assert after.version == record.version

    def test_a_newer_edit_of_ours_is_still_to_be_sent(self):
        record = shared({"name": "Newer"}, c=ON_ITS_WAY)
        after = merged(record, {"name": "Alexan"}, of=BOTH, sides=TWO, sent={"name": "Alexander"})
        assert after.links["c"].behind == {"name": "Alexan"}
        assert ("push", "c") in open_items(after)

    def test_another_field_that_a_person_edited_meanwhile_comes_with_it(self):
        record = shared({"name": "Alexander"}, c=ON_ITS_WAY)
        after = merged(
            record, {"name": "Alexan", "phone": "9"}, of=BOTH, sides=TWO, sent={"name": "Alexander"}
        )
        assert after.fields == {"name": "Alexander", "phone": "9"}

    def test_a_field_that_is_never_read_is_as_it_was_sent(self):
        of = side(direction="push")
        record = shared({"name": "Alexander"}, c=ON_ITS_WAY)
        after = merged(
            record, {"name": "?", "phone": "9"}, of=of, sides={"c": of}, sent={"name": "Alexander"}
        )
        assert (after.fields, after.links["c"].behind) == ({"name": "Alexander"}, {})
        deleted = deletes.closed(record, of, {"c": of}, deleting=False)
        assert ("push", "c") in open_items(deleted)  # nobody knows what is there

    @pytest.mark.parametrize(
        ("versions", "ver", "read", "settled"),
        [
            ("ordered", "5", False, True),
            ("ordered", "5", True, True),
            ("ordered", "4", True, False),
            ("coarse", "2026-01-01T00:00:05Z", True, False),
            ("coarse", "2026-01-01T00:00:06Z", True, True),
            ("opaque", "y", True, False),
            ("opaque", "x", True, True),
        ],
    )
    def test_it_is_not_settled_over_a_newer_read(self, versions, ver, read, settled):
        known = {"ordered": "5", "coarse": "2026-01-01T00:00:05Z", "opaque": "x"}[versions]
        link = Link("live", "r", known, attempt=Attempt("t", LATE, "1", read=read))
        assert settles(link, side(versions=versions), ver) is settled


class TestKeptThere:
    """Fields that each system keeps by itself, such as when a row was changed: nobody edits them."""

    FIELDS = (*FIELDS, "updated_at")

    def sides(self, **sync):
        of = side(direction="both", reads=self.FIELDS, **sync)
        return of, {"c": of, "d": side("d", "both", reads=self.FIELDS, **sync)}

    def test_what_our_own_write_made_of_them_is_no_edit(self):
        of, sides = self.sides()
        record = shared({"name": "Alexander", "updated_at": EARLY}, c=ON_ITS_WAY)
        theirs = {"name": "Alexan", "updated_at": AFTER}
        for sent in ({"name": "Alexander"}, None):
            after = merged(record, theirs, of=of, sides=sides, sent=sent)
            assert (after.fields, after.version) == (record.fields, record.version)
            assert after.links["c"].echo["updated_at"] == AFTER

    @pytest.mark.parametrize("policy", ["manual", "skip", "local"])
    def test_nobody_is_asked_and_the_other_fields_go_on(self, policy):
        of, sides = self.sides(policy=policy)
        record = shared({"name": "a", "updated_at": EARLY}, c={"echo": {"updated_at": BEFORE}})
        theirs = {"name": "b", "updated_at": LATE}
        after = merged(record, theirs, of=of, sides=sides, modified=LATE, hi=LATE)
        assert after.fields == theirs
        assert after.links["c"].conflict == {}

    def test_an_older_change_does_not_turn_them_back(self):
        of, sides = self.sides()
        record = shared({"name": "a", "updated_at": LATE}, c={"echo": {"updated_at": EARLY}}, stamp=LATE)
        after = merged(record, {"name": "b", "updated_at": BEFORE}, of=of, sides=sides, modified=BEFORE)
        assert after.fields == {"name": "b", "updated_at": LATE}
        assert after.links["c"].echo == {"updated_at": BEFORE}

    def test_a_dead_record_is_not_brought_back_by_them(self):
        of, sides = self.sides(deletes="propagate")
        record = replace(shared({"name": "a", "updated_at": EARLY}), dead=True)
        assert merged(record, {"name": "a", "updated_at": LATE}, of=of, sides=sides).dead


class TestFirstLink:
    def test_empty_sides_take_the_full_one_and_differences_go_to_the_policy(self):
        record = first({"name": "a", "phone": "1"}, BOTH, TWO)
        theirs = {"name": "A", "city": "x"}
        after = merged(record, theirs, of=OTHER, sides=TWO, rid="s", modified=EARLY)
        assert after.fields == {"name": "a", "phone": "1", "city": "x"}
        assert after.links["d"].behind == {"name": "A", "phone": None}
        assert after.links["c"].behind == {"city": None}
        assert open_items(after) == {("push", "c"), ("push", "d")}

    def test_a_row_that_is_found_for_a_deleted_record_which_was_never_made_there_has_no_past(self):
        record = shared({"name": "a", "phone": "1"}, c={"state": "gone", "rid": "", "ver": ""})
        after = merged(replace(record, dead=True), {"name": "a"}, 1, of=BOTH, sides=TWO)
        assert (after.dead, after.fields) == (False, {"name": "a", "phone": "1"})
        assert (after.links["c"].state, after.links["c"].behind) == ("live", {"phone": None})

    def test_a_row_that_nobody_knows_is_wanted_by_whoever_writes(self):
        record = first({"name": "a"}, BOTH, TWO)
        assert record.links["d"] == Link("new", wants=True)
        assert open_items(record) == {("push", "d")}

    def test_what_was_only_read_is_sent_once_the_connection_writes(self):
        record = shared(
            {"name": "Alexander", "phone": "2"}, c={"echo": {"name": "Alexan", "phone": "1"}, "wants": False}
        )
        after = Draft(record, TWO).finished()
        assert (after.links["c"].behind, after.links["c"].echo) == ({"phone": "1"}, {"name": "Alexan"})
        assert open_items(after) == {("push", "c")}

    def test_what_no_answer_tells_is_sent_once_the_connection_writes(self):
        """Nothing was kept of it while the connection only read, so nobody knows what the remote has."""
        widened = replace(BOTH, reads=BOTH.reads - {"phone"}, untold=frozenset({"phone"}))
        record = shared({"name": "a", "phone": "2"}, c={"wants": False})
        sides = {"c": widened, "d": OTHER}
        after = Draft(record, sides).finished()
        assert after.links["c"].behind == {"phone": UNKNOWN}
        assert open_items(after) == {("push", "c")}
        settled = merged(after, {"name": "a"}, of=widened, sides=sides, sent={"phone": "2"})
        assert settled.links["c"].behind == {}
        assert Draft(settled, sides).finished() is settled
        unmade = shared({"name": "a", "phone": "2"}, c={"wants": False, "state": "new", "rid": ""})
        assert Draft(unmade, sides).finished().links["c"].behind == {}

    def test_a_field_that_is_mapped_otherwise_has_no_common_past_and_is_read_first(self):
        record = shared({"name": "a", "phone": "1"}, c={"echo": {"phone": "01"}})
        newer = replace(BOTH, mapping=2, since={"phone": 2, "name": 1})
        sides = {"c": newer, "d": OTHER}
        now = replace(record, links={**record.links, "c": replace(record.links["c"], mapping=1)})
        opened = Draft(now, sides).finished()
        link = opened.links["c"]
        assert (link.behind, link.echo, link.ver, link.mapping) == ({"phone": None}, {}, "", 2)
        assert guard(opened, newer, snapshot({}, 9)) is Verdict.LOOK
        filled = merged(opened, {"name": "a", "phone": "2"}, of=newer, sides=sides, modified=EARLY)
        assert (filled.fields["phone"], filled.links["c"].behind) == ("1", {"phone": "2"})
        assert Draft(opened, sides).finished() is opened

    def test_a_worker_with_older_configuration_keeps_what_a_link_holds(self):
        draft = Draft(shared(), {"c": BOTH})
        draft.set_value("name", "b", "c", AFTER)
        assert draft.finished().links["d"].behind == {"name": "a"}


class TestDeletes:
    def test_a_delete_marks_and_a_return_unmarks(self):
        record = first({"name": "a"})
        gone = deletes.gone(record, PULLED, ALONE, "r", LATE).record
        assert (gone.links["c"].state, gone.fields["deleted_at"], gone.version) == ("gone", LATE, 2)
        assert deletes.gone(gone, PULLED, ALONE, "r", LATE).record is gone
        back = merged(gone, {"name": "a"}, 9)
        assert (back.links["c"].state, back.fields, back.version) == ("live", {"name": "a"}, 3)

    def test_it_is_ignored_where_that_is_wanted(self):
        of = side(deletes="ignore")
        gone = deletes.gone(first({"name": "a"}), of, {"c": of}, "r", LATE).record
        assert (gone.links["c"].state, gone.fields, gone.version) == ("gone", {"name": "a"}, 1)

    def everywhere(self, direction="both", **sync):
        of = side(direction=direction, deletes="propagate", **sync)
        return of, {"c": of, "d": OTHER}

    def test_it_goes_everywhere_where_that_is_wanted(self):
        of, sides = self.everywhere()
        gone = deletes.gone(shared(), of, sides, "r", LATE).record
        assert (gone.dead, gone.links["c"].state, gone.version) == (True, "gone", 2)
        assert open_items(gone) == {("push", "d")}

    @pytest.mark.parametrize(
        "link",
        [
            {"behind": {"name": "old"}},
            {"inflight": {"name": ["a"]}, "attempt": Attempt("t", LATE, "1")},
        ],
        ids=["unsent", "on its way"],
    )
    def test_an_edit_that_it_did_not_know_of_beats_it(self, link):
        of, sides = self.everywhere()
        kept = deletes.gone(shared(c=link), of, sides, "r", LATE).record
        again = kept.links["c"]
        assert (kept.dead, again.state, again.gen, again.former) == (False, "new", 1, ("r",))
        assert ("push", "c") in open_items(kept)

    def test_an_open_conflict_elsewhere_beats_it(self):
        of, sides = self.everywhere()
        asked = {"behind": {"name": "x"}, "conflict": {"name": {"theirs": "x", "base": "a", "time": EARLY}}}
        assert not deletes.gone(shared(d=asked), of, sides, "r", LATE).record.dead

    def test_our_own_delete_of_a_record_that_was_brought_back_makes_it_anew(self):
        of, sides = self.everywhere()
        kept = deletes.gone(shared(c={"deleting": Attempt("t", LATE, "1")}), of, sides, "r", LATE).record
        assert (kept.dead, kept.links["c"].state, kept.links["c"].deleting) == (False, "new", None)

    def test_that_of_another_row_changes_nothing(self):
        record = shared(c={"former": ("old",)})
        of, sides = self.everywhere()
        assert deletes.gone(record, of, sides, "old", LATE).record is record

    def test_a_dead_record_lives_again_by_an_edit_alone(self):
        of, sides = self.everywhere()
        dead = deletes.gone(shared(), of, sides, "r", LATE).record
        untouched = merged(dead, {"name": "a"}, of=OTHER, sides=sides, rid="s")
        assert untouched.dead
        alive = merged(dead, {"name": "b"}, of=OTHER, sides=sides, rid="s")
        assert (alive.dead, alive.fields) == (False, {"name": "b"})
        assert alive.links["c"].state == "new"
        assert open_items(alive) == {("push", "c")}

    def test_a_row_that_is_restored_brings_its_record_back(self):
        of, sides = self.everywhere()
        dead = deletes.gone(shared(), of, sides, "r", LATE).record
        alive = merged(dead, {"name": "a"}, 5, of=of, sides=sides)
        assert (alive.dead, alive.links["c"].state) == (False, "live")

    def test_what_was_never_made_is_not_made_for_a_dead_record(self):
        record = shared(d={"state": "new", "rid": "", "ver": ""})
        of, sides = self.everywhere()
        gone = deletes.gone(record, of, sides, "r", LATE).record
        assert gone.links["d"].state == "gone"
        assert open_items(gone) == frozenset()

    def test_a_merge_there_deletes_nothing_and_asks(self):
        after = deletes.merged_away(shared(), BOTH, TWO, "r", "winner", LATE)
        assert not after.dead
        assert ("review", "c") in open_items(after)
        # Told again, as by a webhook, nothing is new; of another row than the link's neither.
        assert deletes.merged_away(after, BOTH, TWO, "r", "winner", LATE) is after
        record = shared()
        assert deletes.merged_away(record, BOTH, TWO, "former", "winner", LATE) is record


class TestGuard:
    @pytest.mark.parametrize(
        ("ver", "verdict"), [(4, Verdict.SKIP), (5, Verdict.SKIP), (6, Verdict.MERGE), (10, Verdict.MERGE)]
    )
    def test_ordered_versions_compare_as_numbers(self, ver, verdict):
        record = first({"name": "a"}).with_link("c", Link("live", "r", "5"))
        assert guard(record, PULLED, snapshot({"name": "b"}, ver)) is verdict

    @pytest.mark.parametrize(
        ("link", "dead", "fields"),
        [
            (Link("live", "r"), False, {"name": "b"}),
            (Link("gone", "r", "5"), False, {"name": "b"}),
            (Link("live", "r", "5"), True, {"name": "b"}),
            (Link("live", "r", "5"), False, None),
            (Link("live", "other", "5"), False, {"name": "b"}),
        ],
    )
    def test_what_a_page_can_not_tell_needs_a_look(self, link, dead, fields):
        record = replace(first({"name": "a"}).with_link("c", link), dead=dead)
        assert guard(record, PULLED, snapshot(fields, 9)) is Verdict.LOOK
        assert guard(record, PULLED, snapshot(fields, 9, point_read=True)) is Verdict.MERGE

    @pytest.mark.parametrize(
        ("ver", "name", "verdict"),
        [
            ("2026-01-01T00:00:04Z", "b", Verdict.SKIP),
            ("2026-01-01T00:00:06Z", "b", Verdict.MERGE),
            ("2026-01-01T00:00:05Z", "a", Verdict.SKIP),
            ("2026-01-01T00:00:05Z", "b", Verdict.LOOK),
        ],
    )
    def test_of_the_same_second_only_equal_values_are_skipped(self, ver, name, verdict):
        of = side(versions="coarse")
        record = first({"name": "a"}).with_link("c", Link("live", "r", "2026-01-01T00:00:05Z"))
        assert guard(record, of, snapshot({"name": name}, ver)) is verdict

    @pytest.mark.parametrize(
        ("seen", "lag", "verdict"),
        [
            ("2026-01-01T00:00:00.000000Z", 0, Verdict.LOOK),
            ("2025-12-31T23:59:49.000000Z", 0, Verdict.MERGE),
            ("2025-12-31T23:59:49.000000Z", 5, Verdict.LOOK),
        ],
    )
    def test_versions_without_order_go_by_their_age(self, seen, lag, verdict):
        of = side(versions="opaque")
        record = first({"name": "a"}).with_link("c", Link("live", "r", "x", seen))
        assert guard(record, of, snapshot({"name": "a"}, "x"), lag=lag) is Verdict.SKIP
        assert guard(record, of, snapshot({"name": "a"}, "y"), lag=lag) is verdict
