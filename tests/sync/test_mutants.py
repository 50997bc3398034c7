"""Every planted fault of sync (mutants.py) is found: by a seed of the simulation named here, or by the directed tests named
here, which are run with the fault planted and have to fail; some by both.

Where the code has moved on and a seed no longer finds its fault, another one of the first has to.
"""

import pytest

from simulation.two_way.world import World
from simulation.world import World as OneWay
from tests.sync import test_directed as directed
from tests.sync import test_directed_creates as creates
from tests.sync import test_directed_deadletters as letters
from tests.sync import test_directed_deletes as deletes
from tests.sync import test_directed_deliveries as deliveries
from tests.sync import test_directed_unmarked as unmarked
from tests.sync.mutants import MUTANTS, SHAPES
from tests.unit import test_merge as rules

FOUND = {
    "wrong_base": 1,
    "no_echo_on_read": 32,
    "echo_not_saved": 2,
    "echo_taken_for_an_unsent_edit": 33,
    "settle_ignores_that_ours_changed": 23,
    "no_canon": 11,
    "echo_kept_when_a_connection_widens": 17,
    "skip_takes_the_other_fields": 17,
    "no_search_before_a_create": 6,
    "tie_skipped": 2,
    "opaque_version_trusted": 34,
    "update_without_if_match": 1,
    "own_id_without_redirect": 1,
    "no_redirect": 2,
    "item_not_in_the_records_transaction": 1,
    "item_not_deleted_with_the_work": 1,
    "feed_without_an_overlap": 118,
    "inward_field_written": 1,
    "widened_without_what_is_never_told": 2,
    "a_message_for_each_bucket": 4,
    "version_without_its_event": 1,
    "event_not_in_the_records_transaction": 1,
    "event_deleted_before_its_delivery": 1,
    "event_kept_after_its_delivery": 1,
    "delivery_with_another_id_each_time": 1,
    "delivery_that_the_tick_does_not_find": 1,
}
FOUND_UNMARKED = {
    "unknown_rows_not_held": 1,
    "held_forgotten_when_a_create_is_settled": 3,
    "claim_kept": 1,
}
"""By a seed of the simulation with systems that can't tell what a create has made."""
TRIES = 60


def one_way():
    """A load from one system, whose feed goes by time."""
    verdict = OneWay(2).run()
    assert verdict.good, verdict.violations


an_edit_lets_go = rules.TestTable().test_a_newer_edit_lets_go_of_what_stood_in_its_way
IN_TESTS = {
    "no_echo_on_read": (directed.test_what_a_remote_makes_of_our_value_is_nobodys_edit,),
    "echo_not_saved": (directed.test_what_a_remote_made_of_our_value_is_remembered,),
    "settle_ignores_that_ours_changed": (directed.test_an_edit_while_the_answer_is_on_its_way_is_sent_too,),
    "no_canon": (directed.test_what_a_remote_makes_of_our_value_is_nobodys_edit,),
    "value_that_changes_nothing_is_sent": (
        directed.test_a_value_that_would_change_nothing_there_is_not_sent,
    ),
    "tie_skipped": (directed.test_an_edit_of_the_same_second_as_our_write_is_seen,),
    "there_and_back_while_it_is_on_its_way": (
        directed.test_there_and_back_is_an_edit_while_the_way_there_may_be_carried_out,
        rules.TestTable().test_there_and_back_leaves_nothing_to_send_unless_it_is_on_its_way,
    ),
    "references_not_followed": (directed.test_a_reference_is_the_record_that_it_leads_to,),
    "inflight_kept_after_a_read_that_fences_it": (directed.test_a_read_that_fences_a_write_ends_it,),
    "no_guard": (directed.test_a_page_that_was_fetched_before_a_push_does_not_undo_it,),
    "older_version_not_skipped": (directed.test_a_page_that_was_fetched_before_a_push_does_not_undo_it,),
    "dead_not_read_again": (deletes.test_an_old_page_does_not_bring_a_deleted_record_back,),
    "delete_not_read_again": (deletes.test_an_old_page_does_not_delete_a_row_that_was_restored,),
    "row_read_after_the_remote": (directed.test_a_point_read_belongs_to_the_row_that_was_read_before_it,),
    "settle_over_a_newer_read": (directed.test_an_answer_is_not_settled_over_a_newer_read,),
    "inflight_not_saved": (directed.test_a_write_that_may_still_arrive_is_waited_for,),
    "sent_again_without_a_look": (creates.test_a_row_that_the_index_does_not_show_yet_is_waited_for,),
    "mismatch_clears_inflight": (directed.test_a_412_says_nothing_of_what_was_sent_before,),
    "mismatch_taken_for_a_write_without_effect": (
        directed.test_a_write_that_came_too_late_goes_again_at_once,
    ),
    "mismatch_never_counted": (directed.test_a_write_that_is_refused_again_and_again_waits_longer_each_time,),
    "no_busy_wait": (directed.test_a_write_that_may_still_arrive_is_waited_for,),
    "late_begin": (directed.test_a_write_begins_soon_after_it_was_noted_or_not_at_all,),
    "rejected_value_sent_again": (directed.test_a_value_that_was_rejected_is_sent_once,),
    "parked_kept_after_an_edit": (an_edit_lets_go,),
    "refused_kept_after_an_edit": (an_edit_lets_go,),
    "waits_kept_after_an_edit": (an_edit_lets_go,),
    "failed_kept_after_an_edit": (an_edit_lets_go,),
    "no_claim_before_a_create": (creates.test_a_row_that_the_index_does_not_show_yet_is_waited_for,),
    "claim_not_looked_up": (creates.test_a_row_that_the_index_does_not_show_yet_is_waited_for,),
    "marker_not_heeded": (creates.test_a_row_that_bears_our_marker_is_what_we_are_making,),
    "own_id_redirected_after_the_create": (
        creates.test_a_row_under_our_own_id_leads_to_its_record_before_it_is_made,
    ),
    "redirect_after_the_link": (creates.test_a_row_leads_to_its_record_before_the_record_is_linked_to_it,),
    "key_looked_up_instead_of_claimed": (creates.test_of_two_first_sights_one_makes_the_record,),
    "key_freed_before_the_record_is_written": (
        creates.test_a_key_is_its_records_own_until_another_one_is_written,
    ),
    "key_freed_that_the_record_has_again": (creates.test_a_key_that_a_record_has_again_is_not_freed,),
    "adopted_while_it_is_being_created": (
        creates.test_nobody_elses_row_takes_the_place_of_one_that_is_being_made,
    ),
    "merged_into_the_record_at_its_own_id": (
        creates.test_a_row_whose_own_id_is_anothers_record_is_kept_apart,
    ),
    "former_id_ignored_for_ever": (
        creates.test_a_row_that_is_restored_before_it_is_made_anew_is_the_records_again,
    ),
    "hold_forgotten": (
        creates.test_nobody_elses_row_takes_the_place_of_one_that_is_being_made,
        deletes.test_a_delete_that_is_read_while_the_row_is_being_made_is_not_lost,
    ),
    "match_to_a_dead_record_makes_a_new_one": (
        creates.test_a_row_that_matches_a_dead_record_brings_that_one_back,
    ),
    "taken_for_a_double_without_a_look": (creates.test_a_row_whose_forerunner_is_gone_is_no_double,),
    "delete_beats_an_edit": (
        deletes.test_a_delete_of_a_former_id_is_none_of_the_row_that_came_after_it,
        lambda: rules.TestDeletes().test_an_edit_that_it_did_not_know_of_beats_it(
            {"behind": {"name": "old"}}
        ),
    ),
    "delete_over_an_open_conflict": (rules.TestDeletes().test_an_open_conflict_elsewhere_beats_it,),
    "our_delete_taken_for_a_persons": (deletes.test_our_own_delete_is_not_taken_for_a_persons,),
    "delete_not_noted": (deletes.test_our_own_delete_is_not_taken_for_a_persons,),
    "delete_of_another_id": (
        deletes.test_a_delete_of_a_former_id_is_none_of_the_row_that_came_after_it,
        deletes.test_a_delete_of_a_double_is_none_of_the_record_that_it_was_one_of,
    ),
    "delete_without_if_match": (deletes.test_a_delete_does_not_take_an_edit_along_that_nobody_read,),
    "delete_without_a_look": (deletes.test_a_delete_that_nothing_guards_looks_first,),
    "no_tomb": (deletes.test_an_old_page_makes_nothing_of_a_row_that_the_hub_never_had,),
    "no_full_pull_first": (creates.test_nothing_is_made_where_the_first_load_is_not_done,),
    "held_before_the_redirect_alone": (
        deletes.test_what_is_held_for_a_delete_is_not_closed_before_the_row_has_its_redirect,
    ),
    "redirect_tried_once": (
        deletes.test_a_delete_that_is_read_just_before_the_row_gets_its_redirect_is_not_lost,
    ),
    "tomb_replaced_without_a_look": (
        deletes.test_a_delete_that_is_read_before_the_row_has_a_redirect_is_not_lost,
    ),
    "checkpoint_before_the_page": (
        directed.test_a_cursor_that_was_saved_has_nothing_before_it_that_was_not_applied,
    ),
    "no_overlap": (one_way,),
    "version_without_its_event": (
        deliveries.test_a_version_and_its_event_are_written_together_or_not_at_all,
    ),
    "event_not_in_the_records_transaction": (
        deliveries.test_a_version_and_its_event_are_written_together_or_not_at_all,
    ),
    "event_deleted_before_its_delivery": (
        deliveries.test_a_crash_at_any_call_leaves_exactly_one_delivery_and_posts_with_one_id,
    ),
    "event_kept_after_its_delivery": (deliveries.test_two_changes_before_anybody_looks_are_told_one_by_one,),
    "only_the_newest_version_is_told": (
        deliveries.test_two_changes_before_anybody_looks_are_told_one_by_one,
    ),
    "delivery_with_another_id_each_time": (
        deliveries.test_a_crash_at_any_call_leaves_exactly_one_delivery_and_posts_with_one_id,
    ),
    "delivery_sent_by_whoever_has_its_message": (
        deliveries.test_while_one_worker_sends_a_delivery_another_one_leaves_it_alone,
    ),
    "newer_version_sent_beside_an_older_one": (
        deliveries.test_a_newer_version_waits_for_the_worker_that_sends_an_older_one,
    ),
    "delivery_that_the_tick_does_not_find": (
        deliveries.test_a_crash_at_any_call_leaves_exactly_one_delivery_and_posts_with_one_id,
        deliveries.test_a_crash_while_it_is_sent_again_loses_nothing,
    ),
    "delivery_given_up_after_the_first_failure": (
        deliveries.test_a_crash_while_it_is_sent_again_loses_nothing,
        deliveries.test_while_one_worker_sends_a_delivery_another_one_leaves_it_alone,
    ),
    "no_redirect": (unmarked.test_a_row_whose_claim_is_settled_while_it_is_merged_leads_to_its_record,),
    "no_wait_for_the_index": (
        creates.test_a_row_that_the_index_does_not_show_yet_is_waited_for,
        unmarked.test_lists_that_lag_are_waited_for,
    ),
    "unknown_rows_not_held": (
        unmarked.test_a_row_whose_answer_was_lost_is_no_record_of_its_own,
        unmarked.test_a_row_whose_worker_died_is_found_by_its_values,
        unmarked.test_a_persons_row_of_the_same_moment_waits_and_becomes_a_record,
        unmarked.test_a_row_that_is_seen_before_its_answer_is_here_is_held_back,
        unmarked.test_a_first_load_holds_back_what_an_open_create_has_made,
    ),
    "claims_read_before_the_page": (unmarked.test_a_row_that_is_made_while_its_page_is_fetched_is_held_back,),
    "claimed_after_the_create": (
        unmarked.test_a_row_whose_worker_died_is_found_by_its_values,
        unmarked.test_a_row_that_is_seen_before_its_answer_is_here_is_held_back,
    ),
    "claim_made_once_more_is_a_new_one": (unmarked.test_a_claim_that_is_made_once_more_keeps_its_time,),
    "held_forgotten_when_a_create_is_settled": (
        unmarked.test_a_persons_row_of_the_same_moment_waits_and_becomes_a_record,
    ),
    "claim_kept": (
        unmarked.test_a_claim_whose_worker_died_before_it_sent_anything_is_dropped,
        unmarked.test_a_claim_ends_when_its_record_dies,
        unmarked.test_a_claim_ends_with_its_connection,
    ),
    "whatever_is_new_waits_for_every_claim": (
        unmarked.test_what_was_there_before_a_claim_does_not_wait_for_it,
    ),
    "claimed_where_it_bears_a_mark": (unmarked.test_where_others_tell_what_was_made_nothing_is_claimed,),
    "made_again_without_comparing": (
        unmarked.test_a_row_whose_answer_was_lost_is_no_record_of_its_own,
        unmarked.test_of_two_workers_one_makes_the_row,
    ),
    "first_of_several_taken": (
        unmarked.test_of_several_rows_with_all_that_was_sent_a_person_says_which_is_ours,
    ),
    "changed_row_taken_for_anothers": (
        unmarked.test_of_a_row_that_was_changed_since_a_person_says_whether_it_is_ours,
    ),
    "every_row_asked_about": (unmarked.test_what_was_not_made_is_made_once_that_is_sure,),
    "redirect_alone_does_not_tell": (
        unmarked.test_a_worker_that_dies_between_the_redirect_and_the_link_leaves_who_made_the_row,
    ),
    "question_of_a_dead_worker_forgotten": (
        unmarked.test_a_worker_that_dies_while_it_asks_asks_the_same_once_more,
    ),
    "row_that_is_asked_about_not_held": (
        unmarked.test_a_row_that_is_asked_about_is_not_forgotten_once_the_feed_has_passed_it,
    ),
    "rows_of_what_is_only_written_become_records": (
        unmarked.test_of_a_system_that_is_only_written_nothing_becomes_a_record,
    ),
    "old_rows_compared_too": (unmarked.test_a_system_that_is_only_written_is_asked_what_came_to_be_there,),
    "taken_up_with_a_newer_row": (unmarked.test_of_two_workers_that_take_up_a_claim_one_settles_it,),
    "parked_with_an_open_create": (unmarked.test_a_record_that_gives_up_holds_nothing_back,),
    "asked_of_each_record": (
        unmarked.test_what_a_person_says_is_another_row_is_made_elsewhere_and_ours_here,
    ),
    "the_later_record_stays": (
        unmarked.test_of_a_row_that_was_changed_since_a_person_says_whether_it_is_ours,
    ),
    "discarded_value_asked_about_for_ever": (
        letters.test_a_value_that_was_discarded_is_not_asked_about_until_another_one_is_refused,
    ),
    "rest_of_a_bucket_passed_over": (letters.test_a_list_page_by_page_has_everything_once,),
}
"""Those that seeds meet too seldom, or that one sequence tells better, with the tests of which each has to fail."""


@pytest.mark.parametrize(("name", "seed"), FOUND.items(), ids=FOUND.keys())
def test_a_planted_fault_is_found_by_a_seed(name, seed, monkeypatch):
    MUTANTS[name](monkeypatch)
    assert any(_is_bad(name, each) for each in (seed, *range(1, TRIES + 1)))


@pytest.mark.parametrize(("name", "seed"), FOUND_UNMARKED.items(), ids=FOUND_UNMARKED.keys())
def test_a_planted_fault_is_found_where_nothing_identifies_a_create(name, seed, monkeypatch):
    MUTANTS[name](monkeypatch)
    assert any(_is_bad(name, each, unmarked=True) for each in (seed, *range(1, TRIES + 1)))


def _is_bad(name, seed, *, unmarked=False):
    try:
        verdict = World(seed, shape=SHAPES.get(name), unmarked=unmarked).run()
    except AssertionError:  # the engine itself stumbles over it
        return True
    assert not any(": TypeError: " in each for each in verdict.violations), "the fault does not fit any more"
    return not verdict.good


@pytest.mark.parametrize(("name", "tests"), IN_TESTS.items(), ids=IN_TESTS.keys())
def test_a_planted_fault_is_found_by_its_tests(name, tests, monkeypatch):
    for test in tests:
        test()  # so that it is the fault that fails
        with monkeypatch.context() as patch:
            MUTANTS[name](patch)
            with pytest.raises(AssertionError):
                test()


def test_every_fault_is_accounted_for():
    assert FOUND.keys() | FOUND_UNMARKED.keys() | IN_TESTS.keys() == MUTANTS.keys()


def test_every_directed_test_fails_with_a_fault():
    """What fails with none would hold nothing."""
    run = {test for tests in IN_TESTS.values() for test in tests}
    there = {
        test
        for module in (directed, creates, deletes, deliveries, unmarked, letters)
        for name, test in vars(module).items()
        if name.startswith("test_")
    }
    assert there <= run
