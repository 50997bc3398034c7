"""What carrying a plan out did is what the plan said, but for what it refused; and a plan writes nothing.

Over random situations at two remotes and in the hub, what happens between the plan and its apply, and workers that die or
get no answer on the way.
"""

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, note, settings
from hypothesis import strategies as st

from crm_core.errors import Unavailable
from crm_core.model.record import Record
from crm_core.sync.planning.outcomes import ALREADY
from tests.sync.directed import TENANT, Died, World
from tests.sync.planned import apply, begin_apply, decisions, plan, stored, work_on, writes

PHONES = ("1", "2", "3")
EMAILS = ("", "a@example.com", "b@example.com", "c@example.com")

ACT = st.tuples(
    st.sampled_from(["add", "change", "remove", "edit", "edit_title", "pull", "work"]),
    st.sampled_from(["r1", "r2"]),
    st.integers(0, 5),
    st.sampled_from(PHONES),
    st.sampled_from(EMAILS),
)
FAULT = st.tuples(st.sampled_from(["", "dies before", "dies after", "unanswered"]), st.integers(1, 60))
Act = tuple[str, str, int, str, str]


def act(world: World, told: Act) -> None:
    """What people do, and what the hub does of itself."""
    what, uid, number, phone, email = told
    rows = sorted(world.rows(uid))
    living = sorted(each.id for each in world.records() if not each.dead)
    if what == "add":
        world.add(uid, phone=phone, **({"email": email} if email else {}))
    elif what == "change" and rows:
        world.change(uid, rows[number % len(rows)], phone=phone)
    elif what == "remove" and rows:
        world.remove(uid, rows[number % len(rows)])
    elif what == "edit" and living:
        world.edit(living[number % len(living)], phone=phone)
    elif what == "edit_title" and living:
        world.edit(living[number % len(living)], job_title=f"T{phone}")
    elif what == "pull":
        world.pull(uid)
    elif what == "work":
        world.work()


def state_of(world: World) -> dict[str, Record]:
    return {each.id: each for each in world.records()}


def cursor(world: World, uid: str) -> Any:
    states = world.engine.states.read(TENANT, uid)
    assert states is not None
    state = states.entities[world.entity]
    return state.cursor, state.lease_run, state.last_success


def in_pieces(world: World, batch: int, seconds: float) -> None:
    """So many records to a batch, and such slices."""
    tuning = replace(
        world.engine.tuning, batch_records=batch, fresh_slice_seconds=seconds, bulk_slice_seconds=seconds
    )
    world.engine = replace(world.engine, tuning=tuning)


def not_due(world: World, uid: str) -> None:
    """The schedule's next pull is far away: a long run would let it through."""
    states = world.engine.states.read(TENANT, uid)
    assert states is not None
    later = replace(states.entities[world.entity], due="2030-01-01T00:00:00Z")
    world.engine.states.save_entity(TENANT, uid, world.entity, later)


def fields_of(records: Mapping[str, Record], record_id: str) -> Mapping[str, Any]:
    record = records.get(record_id)
    return record.fields if record else {}


def difference(before: Mapping[str, Record], after: Mapping[str, Record]) -> dict[str, dict[str, Any]]:
    """The fields that are others now, by record, `deleted_at` as whether it is set."""
    found = {}
    for record_id in before.keys() | after.keys():
        old, new = fields_of(before, record_id), fields_of(after, record_id)
        changed = {
            name: (bool(new.get(name)) if name == "deleted_at" else new.get(name))
            for name in old.keys() | new.keys()
            if old.get(name) != new.get(name)
        }
        if changed:
            found[record_id] = changed
    return found


def told(decided: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """What decisions say of fields, likewise."""
    found: dict[str, dict[str, Any]] = {}
    for each in decided:
        for name, values in each["fields"].items():
            value = values["new"]
            now = bool(value) if name == "deleted_at" else value
            found.setdefault(each["record_id"], {})[name] = now
    return found


def trouble(world: World, at: int, how: str) -> None:
    """At the call number `at` from now the worker dies before or after it, or a remote does not answer."""
    carry_out, number = world.calls.carry_out, 0

    def counted(text: str, call: Callable[[], Any]) -> Any:
        nonlocal number
        number += 1
        if number != at:
            return carry_out(text, call)
        if how == "unanswered":
            if text.startswith(("r1 ", "r2 ")):
                raise Unavailable("No answer in time.", timeout=True)
            return carry_out(text, call)
        if how == "dies after":
            carry_out(text, call)
        raise Died

    world.calls.carry_out = counted  # type: ignore[method-assign]


def calm(world: World) -> None:
    world.calls.__dict__.pop("carry_out", None)


@pytest.mark.parametrize("of", ["incremental", "full"])
@settings(max_examples=40, deadline=None, report_multiple_bugs=False)
@given(
    kinds=st.sampled_from(["aa", "bb", "ac", "da", "eg"]),
    match=st.sampled_from(["", "email"]),
    policy=st.sampled_from(["newest", "remote", "local", "manual", "skip"]),
    before=st.lists(ACT, min_size=2, max_size=14),
    between=st.lists(ACT, max_size=4),
    page=st.sampled_from([1, 2, 5000]),
    strategy=st.sampled_from(["", "local-wins", "manual", "dynamics-wins"]),
    fault=FAULT,
    batch=st.sampled_from([1, 2, 4000]),
    seconds=st.sampled_from([0.0, 20.0]),
)
def test_a_pull(
    of: str,
    kinds: str,
    match: str,
    policy: str,
    before: list[Act],
    between: list[Act],
    page: int,
    strategy: str,
    fault: tuple[str, int],
    batch: int,
    seconds: float,
) -> None:
    world = World(kinds, match=match, policy=policy, page=page)
    for each in before:
        act(world, each)
    world.later(60)
    in_pieces(world, batch, seconds)
    as_it_was, place, begun = state_of(world), cursor(world, "r1"), len(world.calls.texts)
    planned = plan(world, "r1", of, strategy=strategy)
    assert (planned.status, planned.problem) == ("succeeded", None)
    assert writes(world, begun) == []
    assert (state_of(world), cursor(world, "r1")) == (as_it_was, place)
    said = decisions(world, planned)
    in_pieces(world, 4000, 20.0)
    for each in between:
        act(world, each)
    not_due(world, "r1")
    there, place = state_of(world), cursor(world, "r1")
    run = begin_apply(world, planned)
    in_pieces(world, batch, seconds)
    if fault[0]:
        trouble(world, fault[1], fault[0])
    work_on(world, run)
    calm(world)
    done = stored(world, run.id)
    note(f"said {said}")
    got = decisions(world, done)
    note(f"done {got}")
    if done.status == "succeeded":
        # Every decision of the plan has one outcome.
        assert Counter(_key(each) for each in got) == Counter(_key(each) for each in said)
    else:
        assert fault[0] == "unanswered"
    applied = [each for each in got if each["outcome"] == "applied" and each["why"] != ALREADY]
    changed = difference(there, state_of(world))
    if not fault[0]:
        assert changed == {record_id: each for record_id, each in told(applied).items() if each}
    else:
        # A worker that died had applied some whose outcome is told by the next: nothing but what the plan had said.
        assert changed.items() <= told([each for each in got if each["outcome"] == "applied"]).items()
    if not between and not fault[0]:
        assert {each["outcome"] for each in got if each["action"] not in ("later", "failed")} <= {"applied"}
    assert cursor(world, "r1")[0] == place[0]
    assert cursor(world, "r1")[1] == "" or fault[0]  # whoever died at the very end left a lease, which lapses
    if done.status == "succeeded":
        assert not any(_was_done(each) for each in decisions(world, apply(world, planned)))
    in_pieces(world, 4000, 20.0)
    world.settle()


@settings(max_examples=40, deadline=None, report_multiple_bugs=False)
@given(
    kinds=st.sampled_from(["aa", "bb", "ac", "da", "eg"]),
    match=st.sampled_from(["", "email"]),
    before=st.lists(ACT, min_size=2, max_size=14),
    between=st.lists(ACT, max_size=4),
    fault=FAULT,
    seconds=st.sampled_from([0.0, 20.0]),
)
def test_a_push(
    kinds: str, match: str, before: list[Act], between: list[Act], fault: tuple[str, int], seconds: float
) -> None:
    """What reaches the remote is what the plan says; nothing of a record that it does not name."""
    world = World(kinds, match=match)
    for each in before:
        act(world, each)
    world.later(600)
    in_pieces(world, 4000, seconds)
    as_it_was, begun = state_of(world), len(world.calls.texts)
    planned = plan(world, "r2", "push")
    assert (planned.status, planned.problem) == ("succeeded", None)
    assert writes(world, begun) == []
    assert state_of(world) == as_it_was
    said = decisions(world, planned)
    in_pieces(world, 4000, 20.0)
    for each in between:
        act(world, each)
    world.later(600)
    there, rows, begun = state_of(world), world.rows("r2"), len(world.calls.texts)
    run = begin_apply(world, planned)
    in_pieces(world, 4000, seconds)
    if fault[0]:
        trouble(world, fault[1], fault[0])
    work_on(world, run)
    calm(world)
    done = stored(world, run.id)
    got = decisions(world, done)
    note(f"said {said}")
    note(f"done {got}")
    if done.status == "succeeded":
        assert Counter(_key(each) for each in got) == Counter(_key(each) for each in said)
    named = {each["record_id"] for each in said if each["action"] != "later"}
    moved = {each.id for each in world.records() if each != there.get(each.id)}
    assert moved <= named
    if not between and not fault[0]:
        assert {each["outcome"] for each in got if each["action"] != "later"} <= {"applied"}
    for each in got:
        if each["outcome"] == "applied" and each["why"] is None:
            assert _is_there(world, each, rows)
    in_pieces(world, 4000, 20.0)
    world.settle()


def _is_there(world: World, decision: Mapping[str, Any], before: Mapping[str, Any]) -> bool:
    """Whether the remote has what a decision says, under its id."""
    record = state_of(world)[decision["record_id"]]
    rid, rows = record.links["r2"].rid, world.rows("r2")
    if decision["action"] == "delete":
        return rid in before and rid not in rows
    side = world.engine.sides(TENANT, world.entity)["r2"]
    if decision["action"] == "link":
        return rid in rows
    return all(
        side.same(name, rows[rid].get(name), side.canon(name, each["new"]))
        for name, each in decision["fields"].items()
    )


def _was_done(decision: Mapping[str, Any]) -> bool:
    return decision["outcome"] == "applied" and decision["why"] != ALREADY


def _key(decision: Mapping[str, Any]) -> tuple[Any, ...]:
    return decision["action"], decision["record_id"], decision["remote_id"], str(decision["fields"])
