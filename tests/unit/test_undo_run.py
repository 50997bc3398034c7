"""What of a run's changes of one record can be taken back: against the states that the record went through."""

from hypothesis import example, given, settings
from hypothesis import strategies as st

from crm_core.model.entities import ACCOUNT
from crm_core.model.record import HUB
from crm_core.sync.saving import Origin
from crm_core.sync.undoing.deciding import carried_out, decide
from tests.unit.test_past import EDITS, NAMES, POLICIES, World


def nowhere(entity, record_id):
    """No record of these tests refers to another one."""
    raise AssertionError((entity, record_id))


class Story:
    """The states of a record by version, dead or alive, and which run made each."""

    def __init__(self, world):
        self.states = world.at_version
        self.runs = {1: "run-1", **{step.version: step.run for step in world.steps}}
        self.last = world.record.version

    def changes(self, look):
        """The versions at which something changed, newest first."""
        found = [
            version
            for version in range(2, self.last + 1)
            if look(*self.states[version]) != look(*self.states[version - 1])
        ]
        return found[::-1]

    def before(self, look, runs):
        """What it was before these runs changed it, if they were the last to do so; else what it is."""
        version = self.last
        for each in self.changes(look):
            if self.runs[each] not in runs:
                break
            version = each - 1
        return look(*self.states[version])

    def touched(self, runs):
        """Whether somebody else has changed anything after the runs had."""
        mine = [version for version in self.runs if self.runs[version] in runs]
        return any(version > max(mine) for version in self.runs)

    def expected(self, runs):
        """(fields, dead) after the undo."""
        fields, dead = self.states[self.last]
        if self.runs[1] in runs:
            return fields, dead or not self.touched(runs)
        if not set(self.runs.values()) & runs:
            return fields, dead
        was_dead = self.before(lambda _, dead: dead, runs)
        if dead and was_dead:
            return fields, dead
        if was_dead:
            return fields, not self.touched(runs)
        back = {name: self.before(lambda fields, _, name=name: fields.get(name), runs) for name in NAMES}
        if back["name"] is None:
            back["name"] = fields.get("name")  # required: it can't be emptied
        return {name: value for name, value in {**fields, **back}.items() if value is not None}, False


@settings(max_examples=400, deadline=None)
@given(POLICIES, POLICIES, st.lists(EDITS, max_size=20), st.sets(st.integers(1, 25), max_size=8))
@example(
    "newest", "newest", [("c", {"name": "b", "phone": "b"}, False), ("app", {"name": "a", "phone": "c"})], {2}
)
@example(
    "newest",
    "newest",
    [("app", {"name": None, "phone": "a"}), ("c", {"name": "b", "phone": "b"}, False)],
    {3},
)
@example("newest", "newest", [("push", "d"), ("app", {"name": "b", "phone": None})], {1})
def test_an_undo_gives_back_what_nobody_has_changed_since_and_leaves_the_rest(one, other, edits, picks):
    world = World({"c": one, "d": other})
    for what, *how in edits:
        {"app": world.app, "push": world.push, "delete": world.delete, "back": world.back}.get(
            what, lambda *rest, uid=what: world.edit(uid, *rest)
        )(*how)
    runs = {f"run-{each}" for each in picks}
    record, story = world.record, Story(world)
    fields, dead = story.expected(runs)
    decision = decide(record, world.steps, runs, ACCOUNT, world.sides, "c", nowhere)
    if decision is None:
        assert (record.fields, record.dead) == (fields, dead)
        return
    told = {name: each["new"] for name, each in decision["fields"].items()}
    after = carried_out(record, ACCOUNT, world.sides, decision["action"], told, world.now())
    assert (after.fields, after.dead) == (fields, dead)
    assert (after is record) is (decision["action"] == "conflict")
    for name, each in decision["conflicts"].items():
        assert each["ours"] == record.fields.get(name) == after.fields.get(name)
        assert each["wins"] == "ours"
        assert each["theirs"] != each["ours"]
    world.save(after, Origin(world.now(), HUB, "the-undo", "key:x"))
    again = decide(world.record, world.steps, runs, ACCOUNT, world.sides, "c", nowhere)
    assert again is None or again["action"] == "conflict"
