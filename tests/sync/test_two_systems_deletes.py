"""What is deleted at Dynamics 365 or Odoo, which are linked both ways, and what is archived there.

Odoo tells of deletes in a full run alone.
"""

from dataclasses import replace

from tests.sync.two_systems import (
    CONTACTS,
    assert_agree,
    assert_quiet,
    at_sides,
    filled,
    keyed,
    link,
    made_keys,
    moment,
)

SOME = max(2, CONTACTS // 8)
OTHER = {"a": "b", "b": "a"}


def rows_of(pair, entity):
    """(id, values) by key, of each side."""
    return {name: keyed(entity, pair.remotes[name].rows(entity)) for name in "ab"}


def people_alone(pair):
    """The keys of people to whom no opportunity leads, in order."""
    met = {values["contact_id"] for _, values in at_sides(pair, "opportunity")["a"].values()}
    return [key for key in made_keys(pair, "contact") if key not in met]


def delete_in_turn(pair, entity, keys):
    """The first at one side, the next at the other, and so on. Gives where each was deleted."""
    rows = rows_of(pair, entity)
    for number, key in enumerate(keys):
        name = "ab"[number % 2]
        pair.remotes[name].delete(entity, rows[name][key][0])
    return [("ab"[number % 2], entity, key) for number, key in enumerate(keys)]


def test_a_delete_is_passed_on_and_an_edit_at_the_other_side_beats_it(systems):
    counts = filled(systems)
    link(systems, deletes="propagate")
    deals, people = made_keys(systems, "opportunity"), people_alone(systems)
    gone = {"opportunity": deals[:2], "contact": people[:SOME]}
    kept = {"opportunity": deals[2:3], "contact": people[SOME : SOME + 2]}
    edits = {"opportunity": {"amount": 4242}, "contact": {"job_title": "Still here"}}
    moment(systems)
    for each, keys in kept.items():
        rows = rows_of(systems, each)
        for name, _, key in delete_in_turn(systems, each, keys):
            other = OTHER[name]
            systems.remotes[other].update(each, rows[other][key][0], edits[each])
    for each, keys in gone.items():
        delete_in_turn(systems, each, keys)
    for name in "ab":
        systems.pull(name)
    systems.pull("b", "full")
    systems.settle()
    left = {each: counts[each] - len(gone.get(each, ())) for each in counts}
    assert_agree(systems, left)
    for each, keys in kept.items():
        (name,) = edits[each]
        for rows in rows_of(systems, each).values():
            assert {rows[key][1][name] for key in keys} == {edits[each][name]}
            assert not set(gone[each]) & rows.keys()
    systems.pull("b", "full")
    systems.settle()
    assert_agree(systems, left)
    assert_quiet(systems)


def test_a_delete_that_is_not_passed_on_stays_where_it_was_made(systems):
    """People are marked in the hub; of opportunities the hub says nothing."""
    counts = filled(systems)
    link(systems, deletes={"account": "mark", "contact": "mark", "opportunity": "ignore"})
    moment(systems)
    marked = delete_in_turn(systems, "contact", people_alone(systems)[: SOME + 1])
    ignored = delete_in_turn(systems, "opportunity", made_keys(systems, "opportunity")[:2])
    systems.pull("b", "full")
    systems.settle()
    assert_agree(systems, counts, marked + ignored)
    # What is edited where it still is does not come back where it was deleted.
    moment(systems)
    for place, entity, key in marked + ignored:
        edit = {"phone": "Edited"} if entity == "contact" else {"amount": 4242}
        rows = rows_of(systems, entity)[OTHER[place]]
        systems.remotes[OTHER[place]].update(entity, rows[key][0], edit)
    systems.settle()
    assert_agree(systems, counts, marked + ignored)
    for entity, expected in (("contact", marked), ("opportunity", [])):
        records = replace(systems, entity=entity).records()
        deleted = {each.id: each.fields for each in records if each.fields.get("deleted_at")}
        assert keyed(entity, deleted).keys() == {key for _, _, key in expected}
    assert_quiet(systems)


def test_what_led_to_a_deleted_row_leads_nowhere(systems):
    """People with opportunities, whose times Odoo does not move, then companies with people."""
    counts = filled(systems)
    link(systems, deletes="propagate")
    led = {values["contact_id"] for _, values in at_sides(systems, "opportunity")["a"].values()}
    gone = {"contact": sorted(led)[:2], "account": made_keys(systems, "account")[:2]}
    for each, keys in gone.items():
        moment(systems)
        delete_in_turn(systems, each, keys)
        systems.pull("b", "full")
        systems.settle()
        counts[each] -= len(keys)
    systems.pull("b", "full")
    systems.settle()
    assert_agree(systems, counts)
    assert_quiet(systems)


def test_a_row_that_is_deleted_and_made_again_is_the_same_record(systems):
    """Before the delete is known, at either side."""
    counts = filled(systems)
    link(systems, deletes="propagate")
    keys = people_alone(systems)[:SOME]
    before = {
        each.fields["email"].casefold(): each.id for each in people(systems) if each.fields.get("email")
    }
    moment(systems)
    delete_in_turn(systems, "contact", keys)
    for number, key in enumerate(keys):
        again = {"last_name": f"Again {number}", "email": key}
        systems.remotes["ab"[number % 2]].add("contact", again)
    systems.pull("b", "full")
    systems.settle()
    assert_agree(systems, counts)
    after = {each.fields["email"].casefold(): each.id for each in people(systems) if each.fields.get("email")}
    assert after == before
    rows = rows_of(systems, "contact")
    for name in "ab":
        assert [rows[name][key][1]["last_name"] for key in keys] == [f"Again {n}" for n in range(len(keys))]
    assert_quiet(systems)


def people(pair):
    return [each for each in replace(pair, entity="contact").records() if not each.dead]


ASIDE = {
    "account": ("active", "inactive"),
    "contact": ("active", "inactive"),
    "opportunity": ("open", "lost"),
}


def set_status(pair, number, keys):
    """The first of an entity's keys at Dynamics 365, the second at Odoo, which archives it; or brings it back."""
    for each, both in keys.items():
        rows = rows_of(pair, each)
        for name, key in zip("ab", both, strict=True):
            pair.remotes[name].update(each, rows[name][key][0], {"status": ASIDE[each][number]})


def assert_status(pair, number, keys):
    for each, both in keys.items():
        for rows in rows_of(pair, each).values():
            assert {rows[key][1]["status"] for key in both} == {ASIDE[each][number]}


def test_what_is_archived_at_one_side_is_set_aside_at_the_other(systems):
    """And comes back; what is edited at the other side at once is kept. Dynamics 365 takes no edit of what is lost there."""
    counts = filled(systems)
    link(systems)
    edits = {
        "account": {"phone": "Edited"},
        "contact": {"job_title": "Edited"},
        "opportunity": {"amount": 4242},
    }
    keys = {each: made_keys(systems, each)[:2] for each in ASIDE}
    moment(systems)
    set_status(systems, 1, keys)
    edited = {each: both if each != "opportunity" else both[1:] for each, both in keys.items()}
    for each, some in edited.items():
        rows = rows_of(systems, each)
        for key in some:
            name = OTHER["ab"[keys[each].index(key)]]
            systems.remotes[name].update(each, rows[name][key][0], edits[each])
    systems.settle()
    assert_agree(systems, counts)
    assert_status(systems, 1, keys)
    for each, some in edited.items():
        (name,) = edits[each]
        for rows in rows_of(systems, each).values():
            assert {rows[key][1][name] for key in some} == {edits[each][name]}
    moment(systems)
    set_status(systems, 0, {each: both[::-1] for each, both in keys.items()})
    systems.settle()
    assert_agree(systems, counts)
    assert_status(systems, 0, keys)
    assert_quiet(systems)
