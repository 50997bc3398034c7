"""What applying a plan leaves behind of rows that are seen for the first time: a match key that is claimed, and a redirect
to another record, stay, so neither is written for a decision that the plan does not have.
"""

from crm_core.storage import layout
from tests.sync.directed import TENANT, World
from tests.sync.planned import apply, decisions, outcomes, plan
from tests.sync.test_plan_equals_apply import not_due

OTHER = "The remote system, or what the hub knows of it, is not as the plan had read it."


def read_only() -> World:
    """`r1` is read alone; contacts are matched by e-mail."""
    world = World("aa", match="email")
    world._direct("r1", "pull")
    return world


def make(world: World, email: str) -> str:
    """Rosa, by an app."""
    record = world._editor().create({"last_name": "Rosa", "email": email, "job_title": "CEO"})
    world.later(1)
    return record.id


def claims(world: World) -> list[str]:
    """The records that have a match key claimed."""
    table = world.engine.keys._table
    pk = f"{TENANT.name}~match~"
    return [row.values["json"] for row in table.query(layout.KEYS, pk=pk, pk_to=f"{pk}\x7f").rows]


def apart(world: World) -> None:
    """Two people stay two, here and at the other system."""
    assert sorted((each.fields["last_name"], each.fields["email"]) for each in world.records()) == [
        ("Rosa", "e1@example.com"),
        ("Ximena", "e2@example.com"),
    ]
    assert sorted(each["last_name"] for each in world.rows("r2").values()) == ["Rosa", "Ximena"]


def test_a_row_whose_key_an_app_s_record_got_meanwhile_is_not_led_there_by_a_plan_that_makes_a_record():
    world = read_only()
    rid = world.add("r1", last_name="Ximena", email="e1@example.com")
    planned = plan(world, "r1")
    make(world, "e1@example.com")
    world.work()
    not_due(world, "r1")
    assert outcomes(decisions(world, apply(world, planned))) == [("create", "drifted", OTHER)]
    world.change("r1", rid, email="e2@example.com")
    world.settle()
    apart(world)


def test_a_row_that_is_another_by_now_claims_no_key():
    world = read_only()
    rid = world.add("r1", last_name="Ximena", email="e1@example.com", phone="1")
    planned = plan(world, "r1")
    world.change("r1", rid, phone="2")
    not_due(world, "r1")
    assert outcomes(decisions(world, apply(world, planned))) == [("create", "drifted", OTHER)]
    assert claims(world) == []
    world.change("r1", rid, email="e2@example.com")
    make(world, "e1@example.com")
    world.settle()
    apart(world)


def test_a_row_that_is_not_there_any_more_is_told_so():
    world = read_only()
    rid = world.add("r1", last_name="Ximena", email="e1@example.com")
    planned = plan(world, "r1")
    world.remove("r1", rid)
    not_due(world, "r1")
    ((_, outcome, why),) = outcomes(decisions(world, apply(world, planned)))
    assert (outcome, why) == (
        "drifted",
        "The remote system does not show it any more as the plan had read it.",
    )


def test_of_two_rows_with_one_key_the_second_claims_nothing_where_the_first_is_refused():
    world = read_only()
    first = world.add("r1", last_name="First", email="e1@example.com", phone="1")
    world.add("r1", last_name="Second", email="e1@example.com")
    planned = plan(world, "r1")
    assert [each["action"] for each in decisions(world, planned)] == ["create", "create"]
    world.change("r1", first, phone="2")
    not_due(world, "r1")
    done = apply(world, planned)
    assert outcomes(decisions(world, done)) == [("create", "drifted", OTHER)] * 2
    assert (world.records(), claims(world)) == ([], [])


def test_many_rows_with_one_key_are_placed_as_planned():
    world = read_only()
    for number in range(30):
        world.add("r1", phone=str(number), email="e1@example.com")
    planned = plan(world, "r1")
    done = apply(world, planned)
    assert outcomes(decisions(world, done)) == [("create", "applied", None)] * 30
    assert len(world.records()) == 30


def test_a_new_row_gets_the_key_that_another_gives_up_in_the_same_batch():
    world = read_only()
    rid = world.add("r1", last_name="Ximena", email="e1@example.com")
    world.pull("r1")
    world.later(60)
    world.change("r1", rid, email="e2@example.com")
    world.add("r1", last_name="Rosa", email="e1@example.com")
    planned = plan(world, "r1")
    not_due(world, "r1")
    done = apply(world, planned)
    assert sorted(outcomes(decisions(world, done))) == [
        ("create", "applied", None),
        ("update", "applied", None),
    ]
    world.settle()
    apart(world)


def test_a_row_that_a_plan_links_is_linked():
    world = read_only()
    record = make(world, "e1@example.com")
    world.work()
    world.add("r1", last_name="Rosa", email="e1@example.com", phone="1")
    done = apply(world, plan(world, "r1"))
    assert outcomes(decisions(world, done)) == [("link", "applied", None)]
    assert (world.record().id, world.record().fields["phone"]) == (record, "1")


def test_a_key_that_an_app_takes_just_before_the_row_does_leads_nowhere():
    world = read_only()
    rid = world.add("r1", last_name="Ximena", email="e1@example.com")
    planned = plan(world, "r1")
    not_due(world, "r1")
    world.calls.before("insert keys", happens=lambda: make(world, "e1@example.com"))
    done = apply(world, planned)
    assert world.calls.all_happened()
    assert outcomes(decisions(world, done)) == [("create", "drifted", OTHER)]
    world.work()
    world.change("r1", rid, email="e2@example.com")
    world.settle()
    apart(world)


def test_a_key_that_its_record_gives_up_just_before_the_row_is_led_there_is_not_claimed():
    world = read_only()
    record = make(world, "e3@example.com")
    world.work()
    rid = world.add("r1", last_name="Ximena", email="e3@example.com", job_title="CEO")
    planned = plan(world, "r1")
    not_due(world, "r1")
    world.calls.after("r1 get", happens=lambda: world.edit(record, email="e1@example.com"))
    done = apply(world, planned)
    assert world.calls.all_happened()
    assert outcomes(decisions(world, done))[0][:2] == ("link", "drifted")
    assert len(claims(world)) == 1
    world.work()
    world.change("r1", rid, email="e2@example.com")
    world.settle()
    apart(world)


def test_a_second_row_of_a_record_is_not_waited_for_where_the_first_one_s_delete_is_not_planned():
    world = World("aa", match="email")
    first = world.add("r1", email="same@example.com", phone="1")
    world.settle()
    second = world.add("r1", email="same@example.com", phone="2")
    world.settle()
    world.decide("link")
    world.settle()
    world.change("r1", second, phone="3")
    planned = plan(world, "r1")
    assert [each["action"] for each in decisions(world, planned)] == ["create"]
    world.remove("r1", first)
    not_due(world, "r1")
    done = apply(world, planned)
    assert outcomes(decisions(world, done)) == [("create", "drifted", OTHER)]
    world.settle()
    assert world.record().links["r1"].rid == second


def test_of_two_rows_of_a_record_that_has_none_both_are_placed_as_planned():
    world = World("aa", match="email")
    first = world.add("r1", email="same@example.com", phone="1")
    world.settle()
    more = [world.add("r1", email="same@example.com", phone=phone) for phone in ("2", "3")]
    world.settle()
    for _ in more:
        world.decide("link")
    world.settle()
    for rid in more:
        world.change("r1", rid, phone=f"{rid}0")
    world.remove("r1", first)
    planned = plan(world, "r1")
    assert sorted(each["action"] for each in decisions(world, planned)) == ["create", "delete", "revive"]
    not_due(world, "r1")
    done = apply(world, planned)
    assert {each[1] for each in outcomes(decisions(world, done))} == {"applied"}


def test_a_new_row_is_placed_beside_the_one_that_comes_back_in_the_same_batch():
    world = World("aa", match="email")
    first = world.add("r1", email="same@example.com", phone="1")
    world.settle()
    world.remove("r1", first)
    world.settle()
    world.later(60)
    world.servers["r1"].restore(world.entity, first, "person")
    world.later(1)
    world.add("r1", email="same@example.com", phone="2")
    planned = plan(world, "r1")
    assert [each["action"] for each in decisions(world, planned)] == ["revive", "create"]
    not_due(world, "r1")
    done = apply(world, planned)
    assert {each[1] for each in outcomes(decisions(world, done))} == {"applied"}
