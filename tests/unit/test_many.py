"""Many writes: one outcome each, whatever the calls that carry them."""

import json

from crm_core.connector import UNKNOWN, Change, Outcome, carried_out
from crm_core.errors import NotBegun, RateLimited, Rejected
from crm_core.sync.results import Result


class InOrder:
    """A pool that does one thing after the other."""

    def map(self, function, items, width):
        return [function(item) for item in items]


def outcomes(units, total, *, settled=None, go_on=lambda: True):
    return carried_out(units, settled or {}, total, InOrder(), 4, go_on)


def unit(done, found):
    def carry_out():
        done.append(sorted(found))
        return found

    return carry_out


def test_each_write_has_its_outcome_in_its_place():
    done = []
    bad = Outcome(error=Rejected("no"))
    units = [unit(done, {2: Outcome(), 0: bad}), unit(done, {3: Outcome()})]
    found = outcomes(units, 4, settled={1: Outcome(error=Rejected("before"))})
    assert [each.error.message if each.error else None for each in found] == ["no", "before", None, None]
    assert done == [[0, 2], [3]]


def test_what_those_after_it_would_meet_too_begins_none_of_them():
    done = []
    limit = Outcome(error=RateLimited("slow down", retry_after=5))
    found = outcomes([unit(done, {0: limit}), unit(done, {1: Outcome()})], 2)
    assert done == [[0]]
    assert isinstance(found[1].error, NotBegun)
    assert found[1].error.retry_after == 5


def test_the_first_unit_is_begun_whatever_the_time():
    done = []
    found = outcomes([unit(done, {0: Outcome()}), unit(done, {1: Outcome()})], 2, go_on=lambda: False)
    assert done == [[0]]
    assert found[0].error is None
    assert isinstance(found[1].error, NotBegun)
    assert found[1].error.retry_after is None


def test_what_an_answer_does_not_tell_is_kept_as_that():
    change = Change("r1", {"subject": "A", "location": UNKNOWN}, version="1")
    stored = json.dumps(Result(0, Outcome(change)).to_json(minimal=False, raw=False))
    assert Result.from_json(json.loads(stored)).outcome.change == change
