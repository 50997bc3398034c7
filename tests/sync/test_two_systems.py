"""Dynamics 365 and Odoo linked through the hub, both ways, over Azurite: companies, people and opportunities.

Dynamics 365 is the sandbox; Odoo is the sandbox too, and the real server where there is one. Two instances of the hub
work at once.
"""

from dataclasses import replace

import pytest

from tests.sync.two_sides import ENTITIES
from tests.sync.two_systems import (
    CONTACTS,
    EDITED,
    assert_agree,
    assert_edits,
    assert_quiet,
    at_sides,
    deal,
    edit_both,
    filled,
    keyed,
    link,
    made_keys,
    moment,
    person,
)

SOME = max(2, CONTACTS // 4)


def test_two_systems_become_one_list(systems):
    counts = filled(systems)
    link(systems)
    assert_agree(systems, counts)
    sides = at_sides(systems, "contact")
    for number in range(3, CONTACTS, 4):
        values = sides["b"][f"person{number}@example.com"][1]
        assert (values["job_title"], values["phone"]) == ("Buyer", f"+2 {number}")
    assert_quiet(systems)


# Whatever changes of a company, Odoo writes its people too, and what was changed of them before looks newer than it is:
# so the newest does not decide about people while companies are edited.
POLICIES = [
    {"account": "remote", "contact": "manual", "opportunity": "newest"},
    {"account": "local", "contact": "skip", "opportunity": "newest"},
]


@pytest.mark.parametrize(
    "policies", POLICIES, ids=["a person decides of people", "and of all a side changed"]
)
def test_a_policy_decides_between_edits_of_both_sides(systems, policies):
    counts = filled(systems)
    link(systems, policy=policies)
    wanted = edit_both(systems, 1)
    systems.settle()
    values = decide(systems, "contact", wanted["contact"], policies["contact"])
    systems.settle()
    assert_agree(systems, counts)
    assert_edits(systems, wanted, policies)
    people = replace(systems, entity="contact").records()
    assert {each.id: each.fields[EDITED["contact"][0]] for each in people if each.id in values} == values
    assert_quiet(systems)


def decide(pair, entity, edits, policy):
    """A person takes the one value, then the other, where both sides changed a field. Gives by record's id what is to be
    there.
    """
    shared, alone = EDITED[entity]
    people = replace(pair, entity=entity)
    waiting = people.conflicts()
    asked = keyed(entity, {each.record.id: each.record.fields for each in waiting if each.field == shared})
    assert asked.keys() == {key for key, (_, two, _) in edits.items() if two is not None}
    # With the field that both changed goes what else that side changed which was read last.
    assert {each.field for each in waiting} <= ({shared} if policy == "manual" else {shared, alone})
    sides = at_sides(pair, entity)
    for key, (one, two, _) in edits.items():
        held = {sides[side][key][1][shared] for side in "ab"}
        assert held == ({one, two} if two is not None else {one})
    taken = {}
    for number, each in enumerate(waiting):
        take = ("ours", "theirs")[number % 2] if each.field == shared else "theirs"
        after = people.decide(each, take)
        if each.field == shared:
            taken[after.id] = after.fields[shared]
    return taken


def test_an_edit_in_the_second_of_the_hubs_own_write_is_seen(systems):
    """Odoo tells its times to the second. The sandbox's clock stands still meanwhile; the real one may go on."""
    counts = filled(systems)
    link(systems)
    keys = made_keys(systems, "contact")
    sides = {name: keyed("contact", systems.remotes[name].rows("contact")) for name in "ab"}
    moment(systems)
    systems.remotes["b"].control("POST", "clock", {"frozen": True})
    for number, key in enumerate(keys):
        systems.remotes["a"].update("contact", sides["a"][key][0], {"phone": f"555 {number}"})
    systems.pull("a")
    for number, key in enumerate(keys):
        systems.remotes["b"].update("contact", sides["b"][key][0], {"job_title": f"Title {number}"})
    systems.pull("b")
    for number, key in enumerate(keys[::2]):
        systems.remotes["b"].update("contact", sides["b"][key][0], {"job_title": f"Better title {number}"})
    systems.settle()
    assert_agree(systems, counts)
    rows = keyed("contact", systems.remotes["a"].rows("contact"))
    assert [rows[key][1]["phone"] for key in keys] == [f"555 {number}" for number in range(len(keys))]
    titles = {key: rows[key][1]["job_title"] for key in keys}
    assert [titles[key] for key in keys[::2]] == [f"Better title {n}" for n in range(len(keys[::2]))]
    assert [titles[key] for key in keys[1::2]] == [f"Title {n}" for n in range(1, len(keys), 2)]
    assert_quiet(systems)


def test_an_edit_that_is_committed_late_is_found(systems):
    """It bears the time at which it began, when later ones have been read."""
    if systems.remotes["b"].steady:
        pytest.skip("The real Odoo has its own clock")
    counts = filled(systems)
    link(systems)
    keys = made_keys(systems, "contact")
    rids = {key: rid for key, (rid, _) in keyed("contact", systems.remotes["b"].rows("contact")).items()}
    moment(systems)
    for number, key in enumerate(keys[:SOME]):
        systems.remotes["b"].update_late("contact", rids[key], {"phone": f"Late {number}"}, lag=60)
    moment(systems)
    systems.remotes["b"].update("contact", rids[keys[-1]], {"phone": "In time"})
    systems.later(30)
    systems.both()
    rows = keyed("contact", systems.remotes["a"].rows("contact"))
    assert rows[keys[-1]][1]["phone"] == "In time"
    assert not [key for key in keys if str(rows[key][1]["phone"]).startswith("Late")]
    systems.later(31)
    systems.settle()
    assert_agree(systems, counts)
    rows = keyed("contact", systems.remotes["a"].rows("contact"))
    assert [rows[key][1]["phone"] for key in keys[:SOME]] == [f"Late {number}" for number in range(SOME)]
    assert_quiet(systems)


def test_what_is_made_at_both_sides_at_once_is_made_once(systems):
    """Companies of one number, people of one e-mail, and what leads to them."""
    counts = filled(systems)
    link(systems)
    moment(systems)
    for number in range(CONTACTS, CONTACTS + SOME):
        new = {
            "a": {**person(number), "job_title": "Seen at a"},
            "b": {**person(number), "email": f"Person{number}@Example.com", "phone": "Seen at b"},
        }
        for place, name in enumerate("ab"):
            side = systems.remotes[name]
            company = {"name": f"Company {number}", "number": f"C-{number}"}
            account = side.add("account", company)
            contact = side.add("contact", {**new[name], "account_id": account})
            alone = side.add("contact", {**person(f"{number}.{name}"), "account_id": account})
            refs = {"contact_id": (contact, alone)[number % 2], "account_id": account}
            side.add("opportunity", {**deal(2 * number + place), **refs})
    systems.settle()
    more = {"account": SOME, "contact": 3 * SOME, "opportunity": 2 * SOME}
    counts = {each: counts[each] + more[each] for each in ENTITIES}
    assert_agree(systems, counts)
    rows = keyed("contact", systems.remotes["b"].rows("contact"))
    for number in range(CONTACTS, CONTACTS + SOME):
        values = rows[f"person{number}@example.com"][1]
        assert (values["job_title"], values["phone"]) == ("Seen at a", "Seen at b")
    assert_quiet(systems)


def read_only(pair, name):
    """Reads what is new at a side; what is to be written comes later."""
    pair.start(name)
    for _ in ENTITIES:
        pair.work_one("pull")


def test_what_is_made_at_the_other_side_before_it_was_written_there_is_found_by_its_e_mail(systems):
    counts = filled(systems)
    link(systems)
    moment(systems)
    made = range(CONTACTS, CONTACTS + SOME)
    for number in made:
        systems.remotes["ab"[number % 2]].add("contact", person(number))
    for name in "ab":
        read_only(systems, name)
    assert len(replace(systems, entity="contact").items("push")) == SOME
    moment(systems)
    for number in made:
        systems.remotes["ba"[number % 2]].add("contact", {**person(number), "phone": "The other side's"})
    systems.settle()
    assert_agree(systems, {**counts, "contact": counts["contact"] + SOME})
    rows = keyed("contact", systems.remotes["a"].rows("contact"))
    assert {rows[f"person{number}@example.com"][1]["phone"] for number in made} == {"The other side's"}
    assert_quiet(systems)


def test_lost_messages_cost_time_only(systems):
    counts = filled(systems)
    link(systems)
    wanted = edit_both(systems, 2, ("contact", "opportunity"))
    for name in "ab":
        read_only(systems, name)
    assert systems.lose("push")
    assert all(replace(systems, entity=each).items("push") for each in wanted)
    systems.settle()
    assert_agree(systems, counts)
    assert_edits(systems, wanted)
    assert_quiet(systems)


def test_an_activity_keeps_its_time_where_odoo_keeps_its_day(systems):
    a, b = systems.remotes["a"], systems.remotes["b"]
    account = a.add("account", {"name": "Company", "number": "C-1"})
    tasks = a.at("task")
    at = {"regardingobjectid_account_task@odata.bind": f"/accounts({account})"}
    tasks.add({"subject": "To do", "scheduledend": "2026-02-28T17:45:00Z", **at})
    link(systems, ("account", "activity"))

    def there():
        """(the end of the task, the day at Odoo, what the hub has)"""
        (task,) = tasks.rows().values()
        (row,) = b.do("mail.activity", "search_read", domain=[["summary", "=", "To do"]],
                      fields=["date_deadline", "res_model", "active", "date_done"])  # fmt: skip
        (record,) = replace(systems, entity="activity").records()
        return task, row, record.fields

    task, row, fields = there()
    assert (row["res_model"], row["date_deadline"]) == ("res.partner", "2026-02-28")
    assert (task["scheduledend"], fields["due_at"]) == ("2026-02-28T17:45:00Z", "2026-02-28T17:45:00Z")
    moment(systems)
    systems.both()
    assert there() == (task, row, fields)
    b.do("mail.activity", "write", ids=[row["id"]], vals={"date_deadline": "2026-03-02"})
    b.do("mail.activity", "action_done", ids=[row["id"]])
    moment(systems)
    systems.settle()
    task, row, fields = there()
    assert (task["scheduledend"], task["statecode"]) == ("2026-03-02T00:00:00Z", 1)
    assert (fields["due_at"], fields["status"]) == ("2026-03-02T00:00:00Z", "done")
