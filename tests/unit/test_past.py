"""History told with both values, what a record was, and why a field is as it is: against a model that saw it all happen."""

from dataclasses import dataclass, field, replace

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from crm_core.connector import Change
from crm_core.errors import Conflict
from crm_core.model.entities import ACCOUNT
from crm_core.model.record import HUB, UNKNOWN, Attempt, Link, Record, Stamp, is_sendable
from crm_core.storage.records import HistoryEntry, Stored
from crm_core.sync import deletes, merge, past
from crm_core.sync.draft import Draft
from crm_core.sync.merge import Snapshot
from crm_core.sync.past import Told, state_at, told
from crm_core.sync.saving import Origin, write_of
from crm_core.sync.undo import put_back
from crm_core.sync.why import why
from tests.unit.test_merge import FIELDS, side

NAMES = ("name", "phone")
VALUES = st.one_of(st.none(), st.sampled_from(["a", "b", "c"]))
ROW = st.fixed_dictionaries(dict.fromkeys(NAMES, VALUES))
POLICIES = st.sampled_from(["newest", "remote", "local"])
EDITS = st.one_of(
    st.tuples(st.just("app"), ROW),
    st.tuples(st.sampled_from(["c", "d"]), ROW, st.booleans()),
    st.tuples(st.just("push"), st.sampled_from(["c", "d"])),
    st.tuples(st.just("delete")),
    st.tuples(st.just("back"), st.integers(1, 30)),
)
LONG_AGO = "2020-01-01T00:00:00.000000Z"


@dataclass
class Known:
    """What the model knows of a field's present value, and of the conflict that decided it."""

    version: int = 1
    origin: str = ""
    by: str = ""
    run: str = ""
    replaced: object = None
    since: str = ""
    decided: tuple[object, ...] | None = None


@dataclass
class World:
    """One record between two systems, and beside it what an onlooker notes of it."""

    policies: dict[str, str]
    record: Record = field(init=False)
    steps: list[HistoryEntry] = field(default_factory=list)
    seconds: int = 0
    began: str = ""

    def __post_init__(self):
        self.sides = {
            uid: side(uid, "both", policy=policy, deletes="propagate")
            for uid, policy in self.policies.items()
        }
        self.rows = {"c": {"name": "a"}, "d": {}}
        self.at_version = {}
        self.known = {name: Known() for name in NAMES}
        self.began = now = self.now()
        start = snapshot("c", self.rows["c"], now, now, 1)
        self.record = merge.first_seen("0", ACCOUNT, self.sides["c"], self.sides, start, "run-1")
        self.known["name"] = Known(1, "c", "", "run-1", None, now)
        self.note()

    def now(self):
        self.seconds += 1
        return f"2026-01-01T00:{self.seconds // 60:02}:{self.seconds % 60:02}.000000Z"

    def note(self):
        self.at_version[self.record.version] = (dict(self.record.fields), self.record.dead)

    def save(self, after, by, losers=None, policy=None):
        before = self.record
        how = {"losers": losers or {}, **({"policy": policy} if policy else {})}
        write = write_of(Stored("0", before, ""), after, by, **how)
        if write.history is not None:
            self.steps.append(write.history)
        self.record = after
        self.note()
        return after.version > before.version

    def changed(self, name, old, new, origin, by, run, since):
        """Notes a change of a field, if it is one."""
        if old != new:
            self.known[name] = Known(self.record.version, origin, by, run, old, since)

    def app(self, values):
        now, before = self.now(), dict(self.record.fields)
        if self.record.dead:
            return
        draft = Draft(self.record, self.sides)
        for name, value in values.items():
            if before.get(name) != value:
                draft.set_value(name, value, HUB, now)
        self.save(draft.finished(), Origin(now, HUB, by="key:x"))
        for name, value in values.items():
            self.changed(name, before.get(name), value, HUB, "key:x", "", now)

    def edit(self, uid, values, late):
        """A person edits the row there, and it is read at once; `late`: with a time of long ago."""
        if self.record.links[uid].state != "live" or self.record.dead:
            return
        now, before, held = self.now(), dict(self.record.fields), dict(self.rows[uid])
        self.rows[uid] = {name: value for name, value in values.items() if value is not None}
        time = LONG_AGO if late else now
        shot = snapshot(uid, self.rows[uid], time, now, self.seconds)
        run = f"run-{self.seconds}"
        merged = merge.merge(self.record, self.sides[uid], self.sides, shot)
        self.save(merged.record, Origin(now, uid, run), merged.losers, self.sides[uid].policy)
        for name in NAMES:
            ours, base, theirs = before.get(name), held.get(name), values.get(name)
            if theirs in (base, ours):
                continue
            policy = self.policies[uid]
            is_newer = time >= (self.known[name].since or self.began)
            wins = ours == base or policy == "remote" or (policy == "newest" and is_newer)
            if wins:
                self.changed(name, ours, theirs, uid, "", run, time)
            if ours != base:
                lost = ours if wins else theirs
                won = theirs if wins else ours
                self.known[name].decided = (self.record.version, policy, won, lost, uid, "")

    def push(self, uid):
        """What waits for a system is written there, and its answer merged."""
        record, link = self.record, self.record.links.get(uid)
        if link is None or record.dead or link.state not in ("live", "new"):
            return
        now = self.now()
        if link.state == "new":
            self.rows[uid] = {}
            draft = Draft(record, self.sides)
            draft.link(uid).state, draft.link(uid).rid = "live", uid
            draft.empty_base(draft.link(uid), self.sides[uid])
            record, link = (found := draft.finished()), found.links[uid]
        sent = {name: record.fields.get(name) for name in link.behind if is_sendable(record, link, name)}
        self.rows[uid] |= sent
        self.rows[uid] = {name: value for name, value in self.rows[uid].items() if value is not None}
        shot = snapshot(uid, self.rows[uid], now, now, self.seconds)
        merged = merge.merge(record, self.sides[uid], self.sides, shot, sent)
        assert not self.save(merged.record, Origin(now, uid))

    def delete(self):
        now = self.now()
        self.save(deletes.deleted_by_app(self.record, self.sides), Origin(now, HUB, by="key:x"))

    def back(self, version):
        """Back to a version, if it was alive then."""
        now, before = self.now(), dict(self.record.fields)
        version = min(version, self.record.version)
        fields, dead = self.at_version[version]
        if dead:
            return
        wanted = {name: fields.get(name) for name in {*before, *fields}}
        after = put_back(self.record, ACCOUNT, self.sides, wanted, now)
        self.save(after, Origin(now, HUB, by="key:y"))
        assert (self.record.fields, self.record.dead) == (fields, False)
        for name in NAMES:
            self.changed(name, before.get(name), fields.get(name), HUB, "key:y", "", now)


def snapshot(uid, row, modified, hi, version):
    return Snapshot(Change(uid, dict(row), str(version), modified), LONG_AGO, hi, point_read=True)


@settings(max_examples=300, deadline=None)
@given(POLICIES, POLICIES, st.lists(EDITS, max_size=25))
@example("newest", "local", [("app", {"name": "b", "phone": None}), ("c", {"name": "c", "phone": "a"}, True)])
@example(
    "newest", "newest", [("delete",), ("back", 1), ("push", "c"), ("d", {"name": "b", "phone": "b"}, False)]
)
def test_history_states_and_reasons_are_what_happened(one, other, edits):
    world = World({"c": one, "d": other})
    for what, *how in edits:
        {"app": world.app, "push": world.push, "delete": world.delete, "back": world.back}.get(
            what, lambda *rest, uid=what: world.edit(uid, *rest)
        )(*how)
    record, steps = world.record, world.steps
    assert [step.version for step in steps] == list(range(2, record.version + 1))
    for version, (fields, dead) in world.at_version.items():
        assert state_at(record, steps, version) == past.State(fields, dead)
    pages, more = told(record, steps, 1000)
    assert not more
    for each in pages:
        was, now = (world.at_version[each.step.version - age][0] for age in (1, 0))
        assert each.step.old.keys() == each.new.keys()
        assert {name for name in {*was, *now} if was.get(name) != now.get(name)} == each.new.keys()
        assert all(now.get(name) == value for name, value in each.new.items())
        assert all(was.get(name) == value for name, value in each.step.old.items())
    for name in NAMES:
        check_why(world, name)


def check_why(world, name):
    record, known = world.record, world.known[name]
    found = why(record, world.steps, name, world.sides)
    assert (found.value, found.lost) == (record.fields.get(name), ())
    assert found.is_set is bool(known.origin)
    if known.origin:
        assert (found.origin, found.since, found.version) == (known.origin, known.since, known.version)
        assert (found.by, found.run, found.replaced) == (known.by, known.run, known.replaced)
    decided = found.decided and (
        found.decided.version, found.decided.policy, found.decided.won, found.decided.lost,
        found.decided.origin, found.decided.by,
    )  # fmt: skip
    assert decided == known.decided
    for each in found.held:
        link = record.links[each.connection]
        if link.state != "live":
            assert each.state == ("waits" if link.state == "new" else "absent")
            continue
        holds = world.rows[each.connection].get(name)
        assert (each.known, each.holds) == (True, holds)
        if record.dead or record.fields.get(name) == holds:
            assert each.state == ("same" if record.fields.get(name) == holds else "differs")
        else:
            assert each.state == "waits"


@given(st.integers(1, 5), st.lists(ROW, max_size=12))
def test_pages_of_any_size_tell_the_same(top, edits):
    world = World({"c": "newest", "d": "newest"})
    for values in edits:
        world.app(values)
    whole, _ = told(world.record, world.steps, 1000)
    found, first = [], 2
    while True:
        page, more = told(world.record, [step for step in world.steps if step.version >= first], top)
        assert len(page) <= top
        found += page
        if not more:
            break
        assert len(page) == top
        first = page[-1].step.version + 1
    assert found == whole


def test_a_page_takes_no_more_steps_than_it_needs():
    world = World({"c": "newest", "d": "newest"})
    for number in range(20):
        world.app({"name": str(number)})
    taken = []
    page, more = told(world.record, (taken.append(step) or step for step in world.steps), 2)
    assert ([each.new["name"] for each in page], more) == (["0", "1"], True)
    assert len(taken) == 3  # the third tells what the second made of it


class TestWhatIsLost:
    """Retention, or a repair, has taken steps away."""

    def world(self):
        world = World({"c": "newest", "d": "newest"})
        for value in ("b", "c", "d"):
            world.app({"name": value})
        world.app({"phone": "1"})
        return world

    def test_a_new_value_behind_a_lost_step_is_left_out(self):
        world = self.world()
        steps = [step for step in world.steps if step.version != 3]
        page, _ = told(world.record, steps, 100)
        assert [(each.step.version, dict(each.new)) for each in page] == [
            (2, {}),
            (4, {"name": "d"}),
            (5, {"phone": "1"}),
        ]

    def test_a_newest_step_that_is_lost_hides_what_is_new(self):
        world = self.world()
        page, _ = told(world.record, world.steps[:2], 100)
        assert page == [
            Told(world.steps[0], {"name": "b"}),
            Told(world.steps[1], {}),
        ]

    def test_what_it_was_before_is_not_guessed(self):
        world = self.world()
        with pytest.raises(Conflict, match="its history keeps nothing of version 3"):
            state_at(world.record, [step for step in world.steps if step.version > 3], 2)
        assert state_at(world.record, [step for step in world.steps if step.version > 3], 3).fields == {
            "name": "c"
        }

    def test_why_says_what_it_knows(self):
        world = self.world()
        steps = [step for step in world.steps if step.version > 4]
        found = why(world.record, steps, "name", world.sides)
        assert (found.value, found.origin, found.since) == ("d", HUB, world.steps[2].time)
        assert (found.version, found.run, found.by, found.replaced) == (None, "", "", None)
        assert found.lost == (2, 3, 4)
        assert why(world.record, steps, "phone", world.sides).version == 5

    def test_a_decision_that_later_steps_may_have_undone_is_not_told(self):
        world = World({"c": "local", "d": "newest"})
        world.app({"name": "b"})
        world.edit("c", {"name": "c"}, False)
        assert why(world.record, world.steps, "name", world.sides).decided.lost == "c"
        world.app({"name": "d"})
        lost = why(world.record, world.steps[:-1], "name", world.sides)
        assert (lost.decided, lost.lost) == (None, (4,))


class TestWhatEachHolds:
    def of(self, **link):
        record = Record(
            "0", "account", {"name": "ours"}, Stamp(LONG_AGO, HUB), {"time": LONG_AGO, "origin": HUB, "run": ""},
            links={"c": Link("live", "r", "1", wants=True, **link)},
        )  # fmt: skip
        (held,) = why(record, [], "name", {"c": side("c", "both")}).held
        return held

    def test_by_its_link(self):
        behind = {"behind": {"name": "theirs"}}
        assert (self.of().state, self.of().holds) == ("same", "ours")
        assert (self.of(**behind).state, self.of(**behind).holds) == ("waits", "theirs")
        assert self.of(echo={"name": "OURS"}).state == "differs"
        asked = self.of(**behind, conflict={"name": {"theirs": "theirs", "base": "a", "time": LONG_AGO}})
        assert (asked.state, asked.about) == ("conflict", {"theirs": "theirs", "base": "a", "time": LONG_AGO})
        told = {"name": {"cause": "Rejected", "message": "too rude", "time": LONG_AGO}}
        refused = self.of(**behind, refused={"name": "ours"}, why=told)
        assert (refused.state, refused.about) == ("refused", {"message": "too rude", "time": LONG_AGO})
        waits = self.of(**behind, waits={"name": "contact~7"})
        assert (waits.state, waits.about) == ("waits", {"record": "contact~7"})
        flies = self.of(**behind, inflight={"name": ["ours"]}, attempt=Attempt("t", LONG_AGO))
        assert (flies.state, flies.holds, flies.may_hold) == ("waits", "theirs", ("ours",))
        unknown = self.of(behind={"name": UNKNOWN})
        assert (unknown.state, unknown.known, unknown.holds) == ("waits", False, None)
        gave_up = self.of(**behind, parked={"cause": "NoEffect", "time": LONG_AGO, "failures": 10})
        assert (gave_up.state, gave_up.about) == ("waits", {"parked": "NoEffect"})

    def test_where_it_is_not(self):
        record = Record(
            "0", "account", {"website": "w"}, Stamp(LONG_AGO, HUB), {"time": LONG_AGO, "origin": HUB, "run": ""},
            links={"gone": Link("gone", "r"), "left": Link("live", "x"), "new": Link("new", wants=True)},
        )  # fmt: skip
        sides = {each: side(each, "both") for each in ("gone", "none", "new")}
        assert {each.connection: each.state for each in why(record, [], "name", sides).held} == {
            "gone": "absent", "none": "absent", "new": "waits", "left": "not mapped",
        }  # fmt: skip
        assert {each.state for each in why(record, [], "website", sides).held} == {"not mapped"}
        assert "website" not in FIELDS


def test_a_mark_is_no_death_and_a_revival_is_told():
    world = World({"c": "newest", "d": "newest"})
    marked = replace(world.sides["c"], sync=replace(world.sides["c"].sync, deletes="mark"))
    now = world.now()
    gone = deletes.gone(world.record, marked, {**world.sides, "c": marked}, "c", now).record
    world.save(gone, Origin(now, "c", "run-9"))
    assert world.steps[-1].old == {"deleted_at": None}
    world.delete()
    back = put_back(world.record, ACCOUNT, {**world.sides, "c": marked}, {"deleted_at": None}, world.now())
    world.save(back, Origin(world.now(), HUB))
    assert [(step.change, step.died, step.revived) for step in world.steps] == [
        ("update", False, False),
        ("delete", True, False),
        ("revive", False, True),
    ]
    assert "deleted_at" not in world.record.fields
    assert world.record.links["c"].state == "new"
    assert [state_at(world.record, world.steps, each).dead for each in range(1, 5)] == [
        False,
        False,
        True,
        False,
    ]
