"""Planted faults of sync in both directions (mutants.py) are found by the simulation, each by a seed named here.

Where the code has moved on and that seed no longer finds its fault, another one of the first has to. Those that
no seed finds often enough are held by directed tests, or are listed as not found in `NOT_FOUND`.
"""

import pytest

from simulation.two_way.world import World
from tests.sync.mutants import MUTANTS, SHAPES

FOUND = {
    "wrong_base": 1,
    "no_echo_on_read": 2,
    "echo_not_saved": 2,
    "echo_taken_for_an_unsent_edit": 9,
    "settle_ignores_that_ours_changed": 23,
    "no_canon": 23,
    "echo_kept_when_a_connection_widens": 17,
    "skip_takes_the_other_fields": 17,
    "no_guard": 1,
    "no_search_before_a_create": 6,
    "tie_skipped": 2,
    "opaque_version_trusted": 14,
    "inflight_not_saved": 1,
    "sent_again_without_a_look": 3,
    "update_without_if_match": 1,
    "no_claim_before_a_create": 5,
    "claim_not_looked_up": 5,
    "marker_not_heeded": 23,
    "own_id_without_redirect": 1,
    "no_redirect": 2,
    "no_full_pull_first": 2,
    "item_not_in_the_records_transaction": 1,
    "item_not_deleted_with_the_work": 1,
}
IN_UNIT_TESTS = {
    "older_version_not_skipped",
    "there_and_back_while_it_is_on_its_way",
    "delete_beats_an_edit",
    "delete_over_an_open_conflict",
    "our_delete_taken_for_a_persons",
    "settle_over_a_newer_read",
    "dead_not_read_again",
    "refused_kept_after_an_edit",
    "parked_kept_after_an_edit",
    "waits_kept_after_an_edit",
}
"""Found too seldom by seeds; tests/unit/test_merge.py fails with each of them."""
NOT_FOUND = {
    "references_not_followed",
    "row_read_after_the_remote",
    "no_busy_wait",
    "late_begin",
    "rejected_value_sent_again",
    "no_wait_for_the_index",
    "key_looked_up_instead_of_claimed",
    "hold_forgotten",
    "delete_without_if_match",
    "no_tomb",
    "tomb_replaced_without_a_look",
    "match_to_a_dead_record_makes_a_new_one",
}
"""Found by no seed up to TRIES, and without a directed test yet: these are holes of the proof."""
TRIES = 60


@pytest.mark.parametrize(("name", "seed"), FOUND.items(), ids=FOUND.keys())
def test_a_planted_fault_is_found(name, seed, monkeypatch):
    MUTANTS[name](monkeypatch)
    assert any(_is_bad(name, each) for each in (seed, *range(1, TRIES + 1)))


def _is_bad(name, seed):
    try:
        return not World(seed, shape=SHAPES.get(name)).run().good
    except (AssertionError, KeyError, TypeError):  # the engine itself stumbles over it
        return True


def test_every_fault_is_accounted_for():
    assert FOUND.keys() | IN_UNIT_TESTS | NOT_FOUND == MUTANTS.keys()
    assert not FOUND.keys() & (IN_UNIT_TESTS | NOT_FOUND)
