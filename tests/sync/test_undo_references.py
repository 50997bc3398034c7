"""What an undo gives back may lead to a record that has become another one since, or lives no more: of a run and of a record."""

import pytest

from crm_core.model.entities import ENTITIES
from crm_core.sync import starting as runs
from crm_core.sync.edit import Editor
from crm_core.sync.undo import Undoer
from tests.sync.directed import TENANT, World, dies
from tests.sync.planned import decisions, opened, outcomes, stored, work_on
from tests.sync.test_undo_leaves import applied, planned, pulled

BY = "key:test"


class Companies:
    """A contact of a company, "Old", that a run has moved to "New", with another phone."""

    def __init__(self, **moved):
        self.world = World("aa", entities=("contact", "account"))
        self.rids = {name: self.world.add("r1", "account", name=name) for name in ("Old", "New", "Other")}
        self.world.pull("r1", "account")
        self.world.settle()
        self.rid = self.world.add("r1", account_id=self.rids["Old"], phone="0")
        self.world.pull("r1")
        self.world.settle()
        self.ids = {each.fields["name"]: each.id for each in self.world.records("account")}
        assert self.contact.fields["account_id"] == self.ids["Old"]
        self.world.change("r1", self.rid, **{"account_id": self.rids["New"], "phone": "1", **moved})
        self.run = pulled(self.world)

    @property
    def contact(self):
        return self.world.record()

    @property
    def editor(self):
        return Editor(self.world.engine, TENANT, ENTITIES["account"], BY)

    def gone(self, name):
        self.editor.delete(self.ids[name])
        self.world.settle()

    def united(self, name, into):
        self.editor.unite(self.ids[name], self.ids[into])
        self.world.settle()

    def left(self, name="Old"):
        return {"account_id": f"account_id: there is no stored account '{self.ids[name]}'."}

    def undo_of_the_record(self):
        """By its version before the run; what was left, and why."""
        undoer = Undoer(self.world.engine, TENANT, ENTITIES["contact"], BY)
        done = undoer.undo(self.contact.id, 1)
        self.world.settle()
        return {name: f"{name}: {why}." for name, why in done.left.items() if name != "updated_at"}

    def undo_of_the_run(self):
        plan = planned(self.world, self.run)
        (decision,) = decisions(self.world, plan)
        applied(self.world, plan)
        return decision.get("left", {})

    def is_now(self, name, phone):
        assert (self.contact.fields["account_id"], self.contact.fields["phone"]) == (self.ids[name], phone)
        for uid in ("r1", "r2"):
            (row,) = self.world.rows(uid).values()
            company = self.world.rows(uid, "account")[row["account_id"]]
            assert (company["name"], row["phone"]) == (name, phone)


WAYS = [Companies.undo_of_the_record, Companies.undo_of_the_run]


@pytest.mark.parametrize("undo", WAYS)
class TestBothWays:
    def test_a_reference_to_what_lives_goes_back(self, undo):
        companies = Companies()
        assert undo(companies) == {}
        companies.is_now("Old", "0")

    def test_one_to_what_was_deleted_since_stays_and_the_rest_goes_back(self, undo):
        companies = Companies()
        companies.gone("Old")
        assert undo(companies) == companies.left()
        companies.is_now("New", "0")

    def test_one_to_what_became_another_record_leads_to_that(self, undo):
        companies = Companies()
        companies.united("Old", "Other")
        assert undo(companies) == {}
        companies.is_now("Other", "0")

    def test_one_to_what_became_the_record_that_it_leads_to_now_is_back_already(self, undo):
        companies = Companies()
        companies.united("Old", "New")
        version = companies.contact.version
        assert undo(companies) == {}
        companies.is_now("New", "0")
        (step,) = [each for each in companies.world.history(companies.contact) if each.version > version]
        assert "account_id" not in step.old

    def test_one_to_what_became_another_record_that_was_deleted_stays(self, undo):
        companies = Companies()
        companies.united("Old", "Other")
        companies.gone("Other")
        assert undo(companies) == companies.left()
        companies.is_now("New", "0")

    def test_one_that_is_all_there_is_to_give_back_leaves_the_record_as_it_is(self, undo):
        companies = Companies(phone="0")
        companies.gone("Old")
        version = companies.contact.version
        assert undo(companies)["account_id"] == companies.left()["account_id"]
        assert companies.contact.version == version


def test_a_plan_says_what_it_can_t_give_back_and_an_undo_why():
    companies = Companies(phone="0")
    companies.gone("Old")
    plan = planned(companies.world, companies.run)
    (decision,) = decisions(companies.world, plan)
    assert (decision["action"], decision["fields"], decision["left"]) == ("conflict", {}, companies.left())
    assert plan.plan["actions"] == {"conflict": 1}
    done = applied(companies.world, plan)
    assert outcomes(decisions(companies.world, done)) == [
        ("conflict", "drifted", companies.left()["account_id"])
    ]


def test_what_is_deleted_after_the_plan_is_left_by_the_undo():
    companies = Companies()
    plan = planned(companies.world, companies.run)
    companies.gone("Old")
    (told,) = decisions(companies.world, applied(companies.world, plan))
    assert (told["outcome"], list(told["fields"]), told["left"]) == ("applied", ["phone"], companies.left())
    companies.is_now("New", "0")


def test_if_nothing_else_was_to_be_given_back_the_decision_has_drifted():
    companies = Companies(phone="0")
    plan = planned(companies.world, companies.run)
    companies.gone("Old")
    done = applied(companies.world, plan)
    assert outcomes(decisions(companies.world, done)) == [
        ("update", "drifted", companies.left()["account_id"])
    ]
    companies.is_now("New", "0")


def test_what_becomes_another_record_after_the_plan_is_led_to():
    companies = Companies()
    plan = planned(companies.world, companies.run)
    companies.united("Old", "Other")
    (told,) = decisions(companies.world, applied(companies.world, plan))
    assert (told["outcome"], "left" in told) == ("applied", False)
    companies.is_now("Other", "0")


def of_both(world):
    """A run that reads both entities to their end."""
    run = runs.start(world.engine, opened(world, "r1"), ["contact", "account"], runs.Asked("full"), BY)
    for each in run.children:
        work_on(world, stored(world, each))
    world.settle()
    return run


@pytest.mark.parametrize("dying", [False, True])
def test_a_reference_to_what_the_same_undo_brings_back_goes_back(dying):
    companies = Companies()
    world = companies.world
    world.change("r1", companies.rid, account_id=companies.rids["Other"])
    world.remove("r1", companies.rids["New"], "account")
    run = of_both(world)
    assert world.engine.records.find(TENANT, "account", companies.ids["New"]).dead
    if dying:  # a worker that comes after it finds the company alive
        world.calls.after("transact records", "~account~", happens=dies)
    plan = planned(world, run)
    told = {each["entity"]: each for each in decisions(world, plan)}
    assert (told["account"]["action"], told["contact"]["fields"]["account_id"]["new"]) == (
        "revive", companies.ids["New"],
    )  # fmt: skip
    assert "left" not in told["contact"]
    done = applied(world, plan)
    assert {each["outcome"] for each in decisions(world, done)} == {"applied"}
    companies.is_now("New", "1")


def test_a_reference_to_what_the_undo_was_to_bring_back_and_does_not_is_left():
    companies = Companies()
    world = companies.world
    world.change("r1", companies.rid, account_id=companies.rids["Other"], phone="2")
    world.remove("r1", companies.rids["New"], "account")
    run = of_both(world)
    plan = planned(world, run)
    # somebody brings it back and deletes it again: its end is not the run's any more
    Undoer(world.engine, TENANT, ENTITIES["account"], BY).undo(companies.ids["New"], 1)
    companies.gone("New")
    told = {each["entity"]: each for each in decisions(world, applied(world, plan))}
    assert (told["account"]["outcome"], told["contact"]["outcome"]) == ("drifted", "applied")
    assert told["contact"]["left"] == companies.left("New")
    companies.is_now("Other", "1")


@pytest.mark.parametrize("undo", ["record", "run"])
def test_of_a_record_that_lives_again_a_reference_that_leads_nowhere_is_named(undo):
    companies = Companies()
    world = companies.world
    contact = companies.contact
    world.remove("r1", companies.rid)
    run = pulled(world)
    assert companies.contact.dead
    companies.gone("New")
    if undo == "record":
        done = Undoer(world.engine, TENANT, ENTITIES["contact"], BY).undo(contact.id, contact.version)
        left = {name: f"{name}: {why}." for name, why in done.left.items()}
    else:
        plan = planned(world, run)
        left = decisions(world, plan)[0]["left"]
        applied(world, plan)
    assert left == companies.left("New")
    assert not companies.contact.dead
