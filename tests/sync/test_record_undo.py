"""Writes of apps, one by one and many at once, and the way back to any version, against a model of what they were."""

import itertools
from contextlib import closing
from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crm_core.errors import Conflict, HubError, NotFound, Stale
from crm_core.hub import Hub
from crm_core.model.connection import DEFAULT_TENANT
from crm_core.model.entities import ACCOUNT, CONTACT
from crm_core.model.record import Record
from crm_core.ports import Row, measured
from crm_core.settings import load
from crm_core.storage import layout
from crm_core.storage.memory import MemoryBlob, MemoryQueue, MemoryTable
from crm_core.sync.edit import Editor
from crm_core.sync.edit_many import Edit, ManyEditor
from crm_core.sync.undo import Undoer
from crm_core.system import SystemClock

KEY = "0123456789abcdef0123456789abcdef"
BY = "key:test"
VALUES = st.one_of(st.none(), st.sampled_from(["a", "b", "c"]))
CHANGES = st.fixed_dictionaries({"phone": VALUES, "city": VALUES}, optional={"name": st.sampled_from("xyz")})


def alone():
    """A hub over the in-memory twins, without a connection."""
    environ = {
        "AzureWebJobsStorage": "UseDevelopmentStorage=true", "HUB_API_KEY": KEY, "INTEGRATION_ENCRYPTION_KEY": KEY,
    }  # fmt: skip
    return Hub(load(environ), table=MemoryTable(), queue=MemoryQueue(SystemClock()), blob=MemoryBlob())


@pytest.fixture
def hub():
    with closing(alone()) as hub:
        yield hub


def undoer(hub, entity=ACCOUNT):
    return Undoer(hub.engine, DEFAULT_TENANT, entity, BY)


def history(hub, record_id, entity="account"):
    return list(hub.records.history(DEFAULT_TENANT, entity, record_id))


@settings(max_examples=150, deadline=None)
@given(
    st.lists(
        st.one_of(
            st.tuples(st.just("update"), CHANGES),
            st.tuples(st.just("delete")),
            st.tuples(st.just("undo"), st.integers(1, 15), st.booleans()),
        ),
        max_size=15,
    )
)
def test_any_version_can_be_gone_back_to_and_every_step_is_told(acts):
    with closing(alone()) as hub:
        made = undoer(hub).create({"name": "x", "phone": "a"})
        states = [({"name": "x", "phone": "a"}, False)]
        for what, *how in acts:
            fields, dead = states[-1]
            if what == "update":
                if dead:
                    with pytest.raises(NotFound):
                        undoer(hub).update(made.id, *how)
                    continue
                undoer(hub).update(made.id, *how)
                after = {name: value for name, value in (fields | how[0]).items() if value is not None}, False
            elif what == "delete":
                undoer(hub).delete(made.id)
                after = fields, True
            else:
                version, stale = min(how[0], len(states)), how[1]
                if stale:
                    with pytest.raises(Stale):
                        undoer(hub).undo(made.id, version, f'"{len(states) + 1}"')
                    continue
                if states[version - 1][1]:
                    with pytest.raises(HubError, match="was deleted at version"):
                        undoer(hub).undo(made.id, version)
                    continue
                done = undoer(hub).undo(made.id, version, f'"{len(states)}"')
                after = states[version - 1]
                assert done.left == {}
                names = {*fields, *after[0]}
                assert set(done.fields) == {each for each in names if fields.get(each) != after[0].get(each)}
            if after != states[-1]:
                states.append(after)
            found = hub.records.find(DEFAULT_TENANT, "account", made.id)
            assert (found.fields, found.dead, found.version) == (*states[-1], len(states))
        steps = history(hub, made.id)
        assert [step.version for step in steps] == list(range(2, len(states) + 1))
        assert [(step.died, step.revived) for step in steps] == [
            (now and not was, was and not now) for (_, was), (_, now) in itertools.pairwise(states)
        ]


EDITS = st.lists(
    st.one_of(
        st.tuples(st.just("create"), st.integers(0, 2), CHANGES),
        st.tuples(st.just("update"), st.integers(0, 4), CHANGES, st.sampled_from(["", "", '"1"', '"2"'])),
        st.tuples(st.just("delete"), st.integers(0, 4), st.sampled_from(["", "", '"1"'])),
    ),
    max_size=25,
)
PRESENT = [f"{number}0000000-0000-4000-8000-00000000000{number}" for number in range(5)]
KEYED = [f"{number}0000000-0000-4000-8000-0000000000a{number}" for number in range(3)]


def told(outcome):
    """What a caller sees of it."""
    if outcome.error is not None:
        return type(outcome.error).__name__, str(outcome.error)
    return outcome.record.fields, outcome.record.dead, outcome.record.version


@settings(max_examples=150, deadline=None)
@given(EDITS)
def test_many_at_once_do_what_each_alone_would_have_done(edits):
    """The order of writes of one record is all that they could tell by: each here is of one record."""
    with closing(alone()) as one, closing(alone()) as other:
        for hub in (one, other):
            for record_id in PRESENT[:4]:
                Editor(hub.engine, DEFAULT_TENANT, ACCOUNT, BY).create({"name": "x"}, record_id)
        many, single = [], []
        for verb, number, *how in edits:
            if verb == "create":
                record_id, fields, if_match = KEYED[number], {"name": "new", **how[0]}, ""
            else:
                record_id, if_match = PRESENT[number], how[-1]
                fields = how[0] if verb == "update" else {}
            many.append(Edit(verb, record_id, fields, if_match))
            editor = Editor(one.engine, DEFAULT_TENANT, ACCOUNT, BY)
            try:
                if verb == "create":
                    record = editor.create(fields, record_id)
                elif verb == "update":
                    record = editor.update(record_id, fields, if_match)
                else:
                    editor.delete(record_id, if_match)
                    record = one.records.find(DEFAULT_TENANT, "account", record_id)
                single.append(told(SimpleNamespace(record=record, error=None)))
            except HubError as error:
                single.append(told(SimpleNamespace(record=None, error=error)))
        found = ManyEditor(other.engine, DEFAULT_TENANT, ACCOUNT, BY).carry_out(many)
        assert [told(each) for each in found] == single
        for record_id in (*PRESENT, *KEYED):
            left, right = (hub.records.find(DEFAULT_TENANT, "account", record_id) for hub in (one, other))
            assert (left is None) == (right is None)
            if left is not None and right is not None:
                assert (left.fields, left.dead, left.version) == (right.fields, right.dead, right.version)
                steps = [
                    [(step.version, step.old, step.change, step.by) for step in history(hub, record_id)]
                    for hub in (one, other)
                ]
                assert steps[0] == steps[1]


class TestCalls:
    def made(self, hub, number):
        ids = [hub.ids.uuid() for _ in range(number)]
        edits = [Edit("create", each, {"name": f"Company {n}"}) for n, each in enumerate(ids)]
        return ids, ManyEditor(hub.engine, DEFAULT_TENANT, ACCOUNT, BY).carry_out(edits)

    def test_a_thousand_take_few_transactions(self, hub):
        with measured() as meter:
            ids, done = self.made(hub, 1000)
        assert all(each.error is None for each in done)
        made = meter.total("storage_calls")
        edits = [Edit("update", each, {"phone": "1"}) for each in ids]
        with measured() as meter:
            done = ManyEditor(hub.engine, DEFAULT_TENANT, ACCOUNT, BY).carry_out(edits)
        assert all(each.record.version == 2 for each in done)
        # A bucket has about 62: one or two transactions each to make them, two to change them, and one scan to read them.
        assert made <= 16 * 2 + 2
        assert meter.total("storage_calls") <= 16 * 4 + 2

    def test_a_reference_that_many_have_is_looked_up_about_once(self, hub):
        company = Editor(hub.engine, DEFAULT_TENANT, ACCOUNT, BY).create({"name": "Contoso"})
        edits = [
            Edit("create", hub.ids.uuid(), {"last_name": "Quispe", "account_id": company.id})
            for _ in range(500)
        ]
        with measured() as meter:
            done = ManyEditor(hub.engine, DEFAULT_TENANT, CONTACT, BY).carry_out(edits)
        assert all(each.record.fields["account_id"] == company.id for each in done)
        assert meter.total("storage_calls") <= 16 * 2 + 2 + 20

    def test_what_there_is_no_time_for_is_not_begun(self, hub):
        ids, _ = self.made(hub, 3)
        edits = [Edit("update", ids[0], {"phone": str(each)}) for each in range(4)]
        rounds = iter([True, True, False])
        done = ManyEditor(hub.engine, DEFAULT_TENANT, ACCOUNT, BY).carry_out(edits, lambda: next(rounds))
        assert [each.error and each.error.code for each in done] == [None, None, "NotBegun", "NotBegun"]
        assert hub.records.find(DEFAULT_TENANT, "account", ids[0]).fields["phone"] == "1"

    def test_a_row_that_somebody_changes_meanwhile_is_decided_anew(self, hub, monkeypatch):
        ids, _ = self.made(hub, 20)
        from crm_core.sync import edit_many

        real, first = edit_many.save, [True]

        def slowly(*args, **more):
            if first[0]:
                first[0] = False
                Editor(hub.engine, DEFAULT_TENANT, ACCOUNT, "key:other").update(ids[7], {"city": "Lima"})
            return real(*args, **more)

        monkeypatch.setattr(edit_many, "save", slowly)
        edits = [Edit("update", each, {"phone": "1"}, '"1"') for each in ids]
        done = ManyEditor(hub.engine, DEFAULT_TENANT, ACCOUNT, BY).carry_out(edits)
        assert [n for n, each in enumerate(done) if each.error is not None] == [7]
        assert isinstance(done[7].error, Stale)
        done = ManyEditor(hub.engine, DEFAULT_TENANT, ACCOUNT, BY).carry_out(
            [Edit("update", ids[7], {"phone": "1"})]
        )
        assert done[0].record.fields == {"name": "Company 7", "phone": "1", "city": "Lima"}


def test_two_ids_that_lead_to_one_record_are_two_writes_in_their_order(hub):
    record = Editor(hub.engine, DEFAULT_TENANT, ACCOUNT, BY).create({"name": "x"}, PRESENT[0])
    hub.records.redirect(DEFAULT_TENANT, "account", PRESENT[1], record.id)
    edits = [Edit("update", each, {"phone": each[:1]}) for each in (PRESENT[1], PRESENT[0], PRESENT[1])]
    done = ManyEditor(hub.engine, DEFAULT_TENANT, ACCOUNT, BY).carry_out(edits)
    assert [each.record.fields["phone"] for each in done] == ["1", "0", "1"]
    assert [each.record.version for each in done] == [2, 3, 4]


class TestUndo:
    def test_history_that_is_gone_is_said(self, hub):
        made = undoer(hub).create({"name": "x"})
        for value in ("a", "b", "c"):
            undoer(hub).update(made.id, {"phone": value})
        pk = layout.records_pk(DEFAULT_TENANT, "account", layout.bucket(made.id))
        hub.table.delete(layout.RECORDS, pk, layout.history_rk(made.id, 3))
        with pytest.raises(Conflict, match="its history keeps nothing of version 3"):
            undoer(hub).undo(made.id, 2)
        assert undoer(hub).undo(made.id, 3).record.fields["phone"] == "b"

    def test_a_newer_version_s_words_in_a_step_do_no_harm(self, hub):
        made = undoer(hub).create({"name": "x"})
        undoer(hub).update(made.id, {"phone": "1"})
        pk, rk = (
            layout.records_pk(DEFAULT_TENANT, "account", layout.bucket(made.id)), layout.history_rk(made.id, 2)
        )  # fmt: skip
        row = hub.table.get(layout.RECORDS, pk, rk)
        text = str(row.values["json"]).replace("{", '{"from_the_future": 1, ', 1)
        hub.table.replace(layout.RECORDS, Row(pk, rk, {**row.values, "json": text}), row.etag)
        assert history(hub, made.id)[0].old == {"phone": None}

    def test_somebody_who_writes_meanwhile_is_not_overwritten(self, hub, monkeypatch):
        made = undoer(hub).create({"name": "x"})
        undoer(hub).update(made.id, {"phone": "1"})
        real, first = hub.engine.records.history, [True]

        def slowly(*args, **more):
            if first[0]:
                first[0] = False
                Editor(hub.engine, DEFAULT_TENANT, ACCOUNT, "key:other").update(made.id, {"city": "Lima"})
            return real(*args)

        monkeypatch.setattr(hub.engine.records, "history", slowly)
        done = undoer(hub).undo(made.id, 1)
        assert isinstance(done.record, Record)
        assert (done.record.fields, done.record.version) == ({"name": "x"}, 4)
        steps = history(hub, made.id)
        assert [(step.by, dict(step.old)) for step in steps] == [
            (BY, {"phone": None}), ("key:other", {"city": None}), (BY, {"city": "Lima", "phone": "1"}),
        ]  # fmt: skip
