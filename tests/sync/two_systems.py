"""What the tests of Dynamics 365 and Odoo linked both ways share: rows to begin with, edits, and when all agree.

CRMHUB_TWO_SYSTEMS_CONTACTS says how many contacts there are; companies and opportunities go with them.
"""

import os
import re
import time
from dataclasses import replace
from decimal import Decimal

from crm_core.connectors.odoo.models import MODELS
from crm_core.model.connection import DEFAULT_TENANT
from crm_core.model.record import open_items
from crm_core.storage import layout
from crm_core.storage.records import Redirect
from tests.sync.conftest import SECRET
from tests.sync.pairs import settings_of
from tests.sync.two_sides import ENTITIES, REFERENCES, DynamicsSide

CONTACTS = int(os.environ.get("CRMHUB_TWO_SYSTEMS_CONTACTS", "8"))
KEYS = {"account": ("number", "name"), "contact": ("email", "last_name"), "opportunity": ("name",)}
"""What tells one thing from another at either side: the first of these that it has."""
MATCHES = {"account": "number", "contact": "email", "opportunity": ""}
WORDS = {"account": r"c-\d", "contact": r"person\d", "opportunity": r"deal"}
"""How the keys begin of what `filled` makes; a database of Odoo has partners of its own."""

# Neither knows the other's users; an amount of Odoo is of the company's currency; its probability it reckons itself.
NOT_OF_ODOO = ("owner_email", "currency", "probability")


def link(pair, entities=ENTITIES, **how):
    """Connects both, and lets them become one. `how`: what holds for each entity, such as `deletes`, for all or by entity."""
    connect(pair, entities, **how)
    pair.settle()


def connect(pair, entities=ENTITIES, **how):
    wanted = {
        entity: {
            "direction": "both",
            "match": MATCHES.get(entity, ""),
            **{name: each[entity] if isinstance(each, dict) else each for name, each in how.items()},
        }
        for entity in entities
    }
    a, b = pair.remotes["a"], pair.remotes["b"]
    pair.add("a", settings_of(a.remote.sandbox), {"client_secret": SECRET}, wanted)
    left_out = {
        name: {"fields": {field: None for field in NOT_OF_ODOO if field in MODELS[name].by_field}}
        for name in entities
    }
    pair.add("b", b.settings, b.secrets, wanted, connector="odoo", mappings=left_out)


def moment(pair):
    """What happens next happens in another second, at both sides."""
    pair.later(2)
    if pair.remotes["b"].steady:
        time.sleep(1.1)


# --- what people do --------------------------------------------------------------------------------------------------


def filled(pair, count=CONTACTS):
    """Companies, people and opportunities at one side or the other; some of the first two at both, where each side knows
    something else. Gives how many there are of each, with those that the database of Odoo has by itself.
    """
    before = {each: len(pair.remotes["b"].rows(each)) for each in ENTITIES}
    ids = {"a": {}, "b": {}}

    def add(side, entity, key, **values):
        ids[side][entity, key] = pair.remotes[side].add(entity, values)

    companies = [("a", "b", "ab")[number % 3] for number in range(max(3, count // 4))]
    for number, at in enumerate(companies):
        for side in at:
            phone = {"phone": f"+1 {number}"} if side == "a" else {}
            add(side, "account", number, name=f"Company {number}", number=f"C-{number}", **phone)
    people = [("a", "a", "b", "ab")[number % 4] for number in range(count)]
    works = {}
    for number, at in enumerate(people):
        fit = [place for place, where in enumerate(companies) if set(at) <= set(where)]
        works[number] = fit[number % len(fit)]
        for side in at:
            known = {"a": {"job_title": "Buyer"}, "b": {"phone": f"+2 {number}"}}[side]
            account = ids[side]["account", works[number]]
            add(side, "contact", number, **person(number), account_id=account, **known)
    deals = count * 2 // 5
    for number in range(deals):
        side = "ab"[number % 2]
        known = [who for who, at in enumerate(people) if side in at]
        who = known[number % len(known)]
        refs = {
            "contact_id": ids[side]["contact", who],
            "account_id": ids[side]["account", works[who]],
        }
        add(side, "opportunity", number, **deal(number), **refs)
    made = {"account": len(companies), "contact": count, "opportunity": deals}
    return {each: before[each] + made[each] for each in ENTITIES}


def person(number):
    return {"last_name": f"Person {number}", "email": f"person{number}@example.com"}


def deal(number):
    return {"name": f"Deal {number}", "amount": 100.5 + number, "close_date": "2027-01-15"}


EDITED = {
    "account": ("phone", "email"),
    "contact": ("phone", "job_title"),
    "opportunity": ("amount", "close_date"),
}
"""By entity: the field that people of both sides change, and the one that those of one side alone do."""


def edit_both(pair, seed, entities=ENTITIES):
    """People of both sides change the same rows at once; of every other pair of rows the same field too. Gives by entity
    and key: what the first wrote, what the second wrote into that field if both did, what the second alone wrote.
    """
    sides = {(name, each): keyed(each, pair.remotes[name].rows(each)) for name in "ab" for each in entities}
    wanted = {each: {} for each in entities}
    moment(pair)
    for each in entities:
        shared, _ = EDITED[each]
        for number, key in enumerate(made_keys(pair, each)):
            one, two, other = _written(each, seed, number)
            first = "ab"[number % 2]
            pair.remotes[first].update(each, sides[first, each][key][0], {shared: one})
            wanted[each][key] = (one, two if number % 4 < 2 else None, other)
    moment(pair)
    for each in entities:
        shared, alone = EDITED[each]
        for number, (key, (_, two, other)) in enumerate(wanted[each].items()):
            second = "ba"[number % 2]
            both = {shared: two} if two is not None else {}
            pair.remotes[second].update(each, sides[second, each][key][0], {alone: other, **both})
    return wanted


def _written(entity, seed, number):
    if entity == "opportunity":
        return 1000 * seed + number, 500_000 + 1000 * seed + number, f"2027-0{seed}-{1 + number % 28:02}"
    return f"1 of {seed} {number}", f"2 of {seed} {number}", f"Other {seed} {number}"


def assert_edits(pair, wanted, policies=None):
    """What only one wrote is there, and of what both wrote what the policy of the entity says; it is `newest` for all."""
    for each, edits in wanted.items():
        policy = policies[each] if policies else "newest"
        shared, alone = EDITED[each]
        rows = keyed(each, pair.remotes["b"].rows(each))
        for key, (one, two, other) in edits.items():
            values = rows[key][1]
            assert values[alone] == other, (each, key)
            if two is None:
                assert values[shared] == one, (each, key)
            elif policy == "newest":
                assert values[shared] == two, (each, key)
            else:  # where every side may overrule the hub, or none may, it depends on who is read first
                assert values[shared] in (one, two), (each, key)


# --- what there is ---------------------------------------------------------------------------------------------------


def keyed(entity, rows):
    """(id, values) by what tells them apart; each once."""
    found = {}
    for rid, values in rows.items():
        key = next(str(values[name]) for name in KEYS[entity] if values.get(name)).casefold()
        assert key not in found, f"{entity} {key} is there twice"
        found[key] = (rid, values)
    return found


def made_keys(pair, entity):
    """The keys of what tests made, in order."""
    rows = keyed(entity, pair.remotes["b"].rows(entity))
    return sorted(key for key in rows if re.match(WORDS[entity], key))


def at_sides(pair, entity):
    """What each side holds, references told by the keys of what they lead to."""
    found = {}
    for name, side in pair.remotes.items():
        names = {
            rid: key
            for each in set(REFERENCES.values())
            for key, (rid, _) in keyed(each, side.rows(each)).items()
        }
        rows = keyed(entity, side.rows(entity))
        found[name] = {
            key: (rid, {f: names.get(v, v) if f in REFERENCES else v for f, v in values.items()})
            for key, (rid, values) in rows.items()
        }
    return found


def in_hub(pair, entity):
    """Every living record by its key, and by each id that leads to it its key. Nothing is open, of dead ones either."""
    records, ids = {}, {}
    of_entity = replace(pair, entity=entity)
    for each in of_entity.records():
        assert not open_items(each), (entity, each)
        if not each.dead:
            ((key, _),) = keyed(entity, {each.id: each.fields}).items()
            assert key not in records, f"{entity} {key} is in the hub twice"
            records[key] = each
            ids[each.id] = key
    for bucket in layout.BUCKETS:
        for each in pair.hub.records.scan(DEFAULT_TENANT, entity, bucket):
            if isinstance(each.content, Redirect) and each.content.to in ids:
                ids[each.id] = ids[each.content.to]
    return records, ids


def assert_agree(pair, counts, gone=()):
    """Both sides and the hub hold the same, each once, with the same values, and nothing is open. `gone`: (side, entity,
    key) of what that side alone does not have any more.
    """
    names = {}
    for each in ENTITIES:
        records, ids = in_hub(pair, each)
        names |= ids
        sides = at_sides(pair, each)
        for side in "ab":
            lacks = {key for where, entity, key in gone if (where, entity) == (side, each)}
            assert sides[side].keys() == records.keys() - lacks, (side, each)
        assert len(records) == counts[each], each
        for key, record in records.items():
            told = {side: sides[side].get(key) for side in "ab"}
            for name in DynamicsSide.columns[each]:
                ours = _own(record, name, names)
                assert [row[1][name] for row in told.values() if row] == [ours] * sum(
                    map(bool, told.values())
                ), (each, key, name)
            for side, row in told.items():
                own = record.links[pair.connections[side].uid]
                assert own.state == ("live" if row else "gone")
                if row:
                    assert own.rid == row[0]
                    assert (own.behind, own.inflight, own.attempt) == ({}, {}, None), (each, key)


def _own(record, name, names):
    """The record's value of a field, as the sides tell theirs."""
    value = record.fields.get(name) or None
    if name == "amount" and value is not None:
        return Decimal(str(value)).normalize() or None
    return names[value] if name in REFERENCES and value else value


def assert_quiet(pair):
    """A further round writes nothing, here or there."""

    def everything():
        there = [side.raw(each) for side in pair.remotes.values() for each in ENTITIES]
        return there, [replace(pair, entity=each).records() for each in ENTITIES]

    moment(pair)
    before = everything()
    pair.both()
    assert everything() == before
