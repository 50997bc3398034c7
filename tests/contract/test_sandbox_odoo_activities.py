"""Activities of the Odoo sandbox where the recorded calls do not reach: versions before 19, rights taken away, other days."""

from datetime import UTC, datetime

import pytest

from sandbox.odoo import Odoo
from sandbox.odoo.calls import execute
from sandbox.odoo.env import ADMIN
from sandbox.odoo.errors import Refused
from sandbox.store import Clock

ACTIVITY = "mail.activity"
PARTNER = "res.partner"


def call(system, model, method, *args, **named):
    return execute(system.db, ADMIN, model, method, list(args), named)


def todo(system, **values):
    """An activity of the first partner."""
    model = call(system, "ir.model", "search", [["model", "=", PARTNER]])[0]
    return call(system, ACTIVITY, "create", {"res_model_id": model, "res_id": 1, **values})


@pytest.mark.parametrize("version", range(14, 20))
def test_what_is_done_is_archived_since_19_and_was_gone_before(version):
    system = Odoo(version=version)
    key = todo(system, summary="x")
    assert isinstance(call(system, ACTIVITY, "action_feedback", [key], feedback="f"), int)
    found = call(
        system, ACTIVITY, "search_read", [["id", "=", key]], ["feedback"], context={"active_test": False}
    )
    assert found == ([{"id": key, "feedback": "f"}] if version >= 19 else [])


def test_the_day_makes_the_state():
    clock = Clock()
    clock.set(datetime(2026, 3, 1, 12, tzinfo=UTC), frozen=True)
    system = Odoo(clock=clock)
    key = todo(system)
    states = []
    for day in (28, 1, 2):
        clock.set(datetime(2026, 2 if day == 28 else 3, day, 12, tzinfo=UTC), frozen=True)
        states += call(system, ACTIVITY, "read", [key], ["state", "date_deadline"])
    assert [(s["state"], s["date_deadline"]) for s in states] == [
        ("planned", "2026-03-01"),
        ("today", "2026-03-01"),
        ("overdue", "2026-03-01"),
    ]
    call(system, ACTIVITY, "action_done", [key])
    assert call(system, ACTIVITY, "read", [key], ["date_done"])[0]["date_done"] == "2026-03-02"


def test_who_may_not_change_rows_sees_of_their_activities_only_his_own():
    system = Odoo()
    others, own = todo(system), todo(system, user_id=ADMIN)
    system.frame.options["deny"] = {PARTNER: ["write"]}
    assert call(system, ACTIVITY, "search", []) == [own]
    with pytest.raises(Refused, match="top-secret"):
        call(system, ACTIVITY, "read", [others], ["summary"])
    with pytest.raises(Refused, match=f"Operation: write.*\n*Records: {others}"):
        call(system, ACTIVITY, "write", [others, own], {"summary": "x"})
    with pytest.raises(Refused, match="Operation: create"):
        todo(system, user_id=ADMIN)
    assert call(system, ACTIVITY, "write", [own], {"summary": "x"}) is True


def test_people_make_and_end_activities_too():
    clock = Clock()
    clock.set(datetime(2026, 3, 1, 12, tzinfo=UTC), frozen=True)
    system = Odoo(clock=clock)
    model = system.db.store.table("ir.model").where("model", PARTNER)[0].id
    made = system.person_create(
        ACTIVITY, {"res_model_id": int(model), "res_id": 1, "summary": "x"}, None, None
    )
    assert made["values"]["res_name"] == "My Company"
    ended = system.person_update(ACTIVITY, made["id"], {"active": False}, None, None)
    assert ended["values"]["date_done"] == "2026-03-01"


@pytest.mark.parametrize("version", [14, 19])
def test_every_model_is_found_in_its_own_order(version):
    system = Odoo(version=version, modules=("stock",))
    for model in system.tables():
        assert isinstance(call(system, model, "search", []), list)
