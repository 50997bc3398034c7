"""Dynamics 365 and Odoo linked through the hub, both ways, over Azurite: companies, people and opportunities.

Dynamics 365 is the sandbox; Odoo is the sandbox too, and the real server where there is one. Two instances of the hub
work at once. CRMHUB_TWO_SYSTEMS_CONTACTS says how many contacts there are; companies and opportunities go with them.
"""

import os
import time
from contextlib import ExitStack
from dataclasses import replace
from decimal import Decimal
from typing import ClassVar

import pytest

from crm_core.connectors.odoo.models import MODELS
from crm_core.model.connection import DEFAULT_TENANT
from crm_core.storage import layout
from crm_core.storage.records import Redirect
from sandbox.odoo import Odoo
from sandbox.testing import Client, running
from tests.sync.conftest import SECRET
from tests.sync.pairs import paired, settings_of

CONTACTS = int(os.environ.get("CRMHUB_TWO_SYSTEMS_CONTACTS", "8"))
ENTITIES = ("account", "contact", "opportunity")
KEYS = {"account": ("number", "name"), "contact": ("email", "last_name"), "opportunity": ("name",)}
"""What tells one thing from another at either side: the first of these that it has."""
REFERENCES = {"account_id": "account", "contact_id": "contact"}
MATCHES = {"account": "number", "contact": "email", "opportunity": ""}

# Neither knows the other's users; an amount of Odoo is of the company's currency; its probability it reckons itself.
NOT_OF_ODOO = ("owner_email", "currency", "probability")


class Side:
    """What a person does at one system, in canonical names. `columns`: by entity, what each is called there."""

    columns: ClassVar = {}

    def canonical(self, entity, values):
        found = {name: values.get(column) or None for name, column in self.columns[entity].items()}
        if found.get("amount") is not None:
            found["amount"] = Decimal(str(found["amount"])).normalize() or None
        return found


class DynamicsSide(Side):
    """The Dynamics 365 sandbox. `steady`: its clock stays the machine's."""

    columns: ClassVar = {
        "account": {"name": "name", "number": "accountnumber", "phone": "telephone1"},
        "contact": {
            "last_name": "lastname",
            "email": "emailaddress1",
            "phone": "telephone1",
            "job_title": "jobtitle",
            "account_id": "_parentcustomerid_value",
        },
        "opportunity": {
            "name": "name",
            "amount": "estimatedvalue",
            "close_date": "estimatedclosedate",
            "account_id": "_parentaccountid_value",
            "contact_id": "_parentcontactid_value",
        },
    }
    binds: ClassVar = {
        ("contact", "account_id"): ("parentcustomerid_account", "accounts"),
        ("opportunity", "account_id"): ("parentaccountid", "accounts"),
        ("opportunity", "contact_id"): ("parentcontactid", "contacts"),
    }

    def __init__(self, remote, steady):
        self.remote = remote
        self.steady = steady

    def control(self, method, path, body):
        if not self.steady:
            self.remote.control(method, path, body)

    def native(self, entity, values):
        found = {}
        for name, value in values.items():
            if name in REFERENCES:
                way, table = self.binds[entity, name]
                found[f"{way}@odata.bind"] = f"/{table}({value})"
            else:
                found[self.columns[entity][name]] = value
        return found

    def at(self, entity):
        return replace(self.remote, table=entity)

    def add(self, entity, values):
        return self.at(entity).add(self.native(entity, values))

    def update(self, entity, rid, values):
        self.at(entity).update(rid, **self.native(entity, values))

    def delete(self, entity, rid):
        self.at(entity).delete(rid)

    def raw(self, entity):
        return self.at(entity).rows()

    def rows(self, entity):
        return {rid: self.canonical(entity, values) for rid, values in self.raw(entity).items()}


class OdooSide(Side):
    """Any Odoo that speaks JSON-2, by its administrator. `steady`: its clock is the machine's."""

    columns: ClassVar = {
        "account": {"name": "name", "number": "ref", "phone": "phone"},
        "contact": {
            "last_name": "name",
            "email": "email",
            "phone": "phone",
            "job_title": "function",
            "account_id": "parent_id",
        },
        "opportunity": {
            "name": "name",
            "amount": "expected_revenue",
            "close_date": "date_deadline",
            "contact_id": "partner_id",
        },
    }
    models: ClassVar = {"account": "res.partner", "contact": "res.partner", "opportunity": "crm.lead"}
    kinds: ClassVar = {
        "account": ("is_company", True),
        "contact": ("is_company", False),
        "opportunity": ("type", "opportunity"),
    }

    def __init__(self, client, facts, steady):
        self.client = client
        self.steady = steady
        self.settings = {"base_url": facts["url"], "database": facts["database"], "username": facts["login"]}
        self.secrets = {"api_key": facts["api_key"]}
        client.headers |= {
            "Authorization": f"bearer {facts['api_key']}",
            "X-Odoo-Database": facts["database"],
        }

    def control(self, method, path, body):
        if not self.steady:
            assert self.client.call(method, f"/_sandbox/{path}", body).status < 300

    def do(self, model, method, **arguments):
        answer = self.client.call(
            "POST", f"/json/2/{model}/{method}", {"context": {"active_test": False}, **arguments}
        )
        assert answer.status == 200, answer.body
        return answer.json()

    def native(self, entity, values):
        """Of the company and the person of an opportunity Odoo keeps the person, who has the company."""
        found = {}
        for name, value in values.items():
            if name in self.columns[entity]:
                found[self.columns[entity][name]] = int(value) if name in REFERENCES else value
        return found

    def add(self, entity, values):
        name, value = self.kinds[entity]
        rows = [{name: value, **self.native(entity, values)}]
        return str(self.do(self.models[entity], "create", vals_list=rows)[0])

    def update(self, entity, rid, values):
        self.do(self.models[entity], "write", ids=[int(rid)], vals=self.native(entity, values))

    def delete(self, entity, rid):
        self.do(self.models[entity], "unlink", ids=[int(rid)])

    def raw(self, entity):
        fields = ["write_date", *self.columns[entity].values()]
        domain = [[*self.kinds[entity][:1], "=", self.kinds[entity][1]]]
        found = self.do(self.models[entity], "search_read", domain=domain, fields=fields)
        return {str(row["id"]): row for row in found}

    def rows(self, entity):
        found = {}
        for rid, values in self.raw(entity).items():
            told = {name: value[0] if isinstance(value, list) else value for name, value in values.items()}
            row = self.canonical(entity, told)
            found[rid] = {
                name: str(value) if name in REFERENCES and value else value for name, value in row.items()
            }
        if entity == "opportunity":
            people = self.rows("contact")
            for row in found.values():
                row["account_id"] = people[row["contact_id"]]["account_id"] if row["contact_id"] else None
        return found

    def clear(self):
        """Takes away what other tests left: all but the users and the companies of the database itself."""
        orders = self.do("sale.order", "search", domain=[])
        if orders:
            self.do("sale.order", "action_cancel", ids=orders)
            self.do("sale.order", "unlink", ids=orders)
        self.do("crm.lead", "unlink", ids=self.do("crm.lead", "search", domain=[]))
        own = []
        for model in ("res.company", "res.users"):
            rows = self.do(model, "search_read", domain=[], fields=["partner_id"], order="id")
            own += [row["partner_id"][0] for row in rows]
        self.do("res.partner", "unlink", ids=self.do("res.partner", "search", domain=[["id", "not in", own]]))


@pytest.fixture(params=["sandbox", pytest.param("real", marks=pytest.mark.oracle)])
def odoo(request):
    """The sandbox, new, or the real server, empty."""
    with ExitStack() as stack:
        if request.param == "sandbox":
            facts = stack.enter_context(running(Odoo())).describe()
        else:
            real = request.getfixturevalue("real_odoo")
            names = {"url": "URL", "database": "DB", "login": "USER", "api_key": "API_KEY"}
            facts = {name: real[f"ODOO_{each}"] for name, each in names.items()}
        client = stack.enter_context(Client(facts["url"]))
        side = OdooSide(client, facts, steady=request.param == "real")
        side.clear()
        yield side


@pytest.fixture
def pair(azurite, remote, odoo, tmp_path):
    """Dynamics 365 as `a`, Odoo as `b`."""
    sides = {"a": DynamicsSide(remote, odoo.steady), "b": odoo}
    with paired(azurite, remote, sides, b"", tmp_path, creates=10 * CONTACTS) as pair:
        yield pair


def link(pair, names=ENTITIES, **how):
    entities = {name: {"direction": "both", "match": MATCHES.get(name, ""), **how} for name in names}
    a, b = pair.remotes["a"], pair.remotes["b"]
    pair.add("a", settings_of(a.remote.sandbox), {"client_secret": SECRET}, entities)
    left_out = {
        name: {"fields": {field: None for field in NOT_OF_ODOO if field in MODELS[name].by_field}}
        for name in names
    }
    pair.add("b", b.settings, b.secrets, entities, connector="odoo", mappings=left_out)
    pair.settle()


def moment(pair):
    """What happens next happens in another second, at both sides."""
    pair.later(2)
    if pair.remotes["b"].steady:
        time.sleep(1.1)


def filled(pair, count):
    """Companies, people and opportunities at one side or the other; some of the first two at both, where each side knows
    something else. Gives how many there are of each.
    """
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
            email = f"person{number}@example.com"
            add(
                side,
                "contact",
                number,
                last_name=f"Person {number}",
                email=email,
                account_id=account,
                **known,
            )
    deals = count * 2 // 5
    for number in range(deals):
        side = "ab"[number % 2]
        known = [who for who, at in enumerate(people) if side in at]
        who = known[number % len(known)]
        refs = {
            "contact_id": ids[side]["contact", who],
            "account_id": ids[side]["account", works[who]],
        }
        add(
            side,
            "opportunity",
            number,
            name=f"Deal {number}",
            amount=100.5 + number,
            close_date="2027-01-15",
            **refs,
        )
    return {"account": len(companies), "contact": count, "opportunity": deals}


def keyed(entity, rows):
    """(id, values) by what tells them apart; each once."""
    found = {}
    for rid, values in rows.items():
        key = next(str(values[name]) for name in KEYS[entity] if values.get(name)).casefold()
        assert key not in found, f"{entity} {key} is there twice"
        found[key] = (rid, values)
    return found


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
    """Every living record by its key, and by each id that leads to it its key."""
    records, ids = {}, {}
    of_entity = replace(pair, entity=entity)
    for each in of_entity.records():
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


def assert_agree(pair, counts, before):
    """Both sides and the hub hold the same, each once, with the same values, and nothing is open. `before`: how many of
    each were there that no test made.
    """
    names = {}
    for each in ENTITIES:
        records, ids = in_hub(pair, each)
        names |= ids
        sides = at_sides(pair, each)
        assert sides["a"].keys() == sides["b"].keys() == records.keys(), each
        assert len(records) == counts[each] + before[each]
        for key, record in records.items():
            kept = dict(record.fields)
            if kept.get("amount") is not None:
                kept["amount"] = Decimal(str(kept["amount"])).normalize() or None
            for name in DynamicsSide.columns[each]:
                ours = kept.get(name) or None
                ours = names[ours] if name in REFERENCES and ours else ours
                told = [sides[side][key][1][name] for side in "ab"]
                assert told == [ours, ours], (each, key, name)
            for side in "ab":
                own = record.links[pair.connections[side].uid]
                assert (own.state, own.rid) == ("live", sides[side][key][0])
                assert (own.behind, own.inflight, own.attempt) == ({}, {}, None), (each, key)
        of_entity = replace(pair, entity=each)
        assert not of_entity.items("push")
        assert not of_entity.items("conflict")
        assert not of_entity.items("refused")
        assert not of_entity.items("parked")


def assert_quiet(pair):
    """A further round writes nothing, here or there."""

    def everything():
        there = [side.raw(each) for side in pair.remotes.values() for each in ENTITIES]
        return there, [replace(pair, entity=each).records() for each in ENTITIES]

    moment(pair)
    before = everything()
    pair.both()
    assert everything() == before


def system_rows(pair):
    """How many partners a database of Odoo has by itself."""
    return {each: len(pair.remotes["b"].rows(each)) for each in ENTITIES}


def test_two_systems_become_one_list(pair):
    before = system_rows(pair)
    counts = filled(pair, CONTACTS)
    link(pair)
    assert_agree(pair, counts, before)
    sides = at_sides(pair, "contact")
    for number in range(3, CONTACTS, 4):
        values = sides["b"][f"person{number}@example.com"][1]
        assert (values["job_title"], values["phone"]) == ("Buyer", f"+2 {number}")
    assert_quiet(pair)


def test_an_activity_keeps_its_time_where_odoo_keeps_its_day(pair):
    a, b = pair.remotes["a"], pair.remotes["b"]
    account = a.add("account", {"name": "Company", "number": "C-1"})
    tasks = a.at("task")
    at = {"regardingobjectid_account_task@odata.bind": f"/accounts({account})"}
    tasks.add({"subject": "To do", "scheduledend": "2026-02-28T17:45:00Z", **at})
    link(pair, ("account", "activity"))

    def there():
        """(the end of the task, the day at Odoo, what the hub has)"""
        (task,) = tasks.rows().values()
        (row,) = b.do("mail.activity", "search_read", domain=[["summary", "=", "To do"]],
                      fields=["date_deadline", "res_model", "active", "date_done"])  # fmt: skip
        (record,) = replace(pair, entity="activity").records()
        return task, row, record.fields

    task, row, fields = there()
    assert (row["res_model"], row["date_deadline"]) == ("res.partner", "2026-02-28")
    assert (task["scheduledend"], fields["due_at"]) == ("2026-02-28T17:45:00Z", "2026-02-28T17:45:00Z")
    moment(pair)
    pair.both()
    assert there() == (task, row, fields)
    b.do("mail.activity", "write", ids=[row["id"]], vals={"date_deadline": "2026-03-02"})
    b.do("mail.activity", "action_done", ids=[row["id"]])
    moment(pair)
    pair.settle()
    task, row, fields = there()
    assert (task["scheduledend"], task["statecode"]) == ("2026-03-02T00:00:00Z", 1)
    assert (fields["due_at"], fields["status"]) == ("2026-03-02T00:00:00Z", "done")
