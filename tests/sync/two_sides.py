"""Dynamics 365 and Odoo as the two sides of a link: what a person does at each, in canonical names."""

from dataclasses import replace
from decimal import Decimal
from typing import ClassVar

ENTITIES = ("account", "contact", "opportunity")
REFERENCES = {"account_id": "account", "contact_id": "contact"}


class Side:
    """`columns`: by entity, what each field is called there; `states`: what its status is there. `steady`: its clock is
    the machine's.
    """

    columns: ClassVar = {}
    states: ClassVar = {}

    def canonical(self, entity, values):
        """Empty texts and no amount are None."""
        found = {name: values.get(column) or None for name, column in self.columns[entity].items()}
        found["status"] = self.states[entity][values[self.columns[entity]["status"]]]
        if found.get("amount") is not None:
            found["amount"] = Decimal(str(found["amount"])).normalize() or None
        return found

    def native_value(self, entity, name, value):
        if name == "status":
            return next(each for each, text in self.states[entity].items() if text == value)
        return value


class DynamicsSide(Side):
    """The Dynamics 365 sandbox."""

    columns: ClassVar = {
        "account": {
            "name": "name",
            "number": "accountnumber",
            "email": "emailaddress1",
            "phone": "telephone1",
            "status": "statecode",
        },
        "contact": {
            "last_name": "lastname",
            "email": "emailaddress1",
            "phone": "telephone1",
            "job_title": "jobtitle",
            "account_id": "_parentcustomerid_value",
            "status": "statecode",
        },
        "opportunity": {
            "name": "name",
            "amount": "estimatedvalue",
            "close_date": "estimatedclosedate",
            "account_id": "_parentaccountid_value",
            "contact_id": "_parentcontactid_value",
            "status": "statecode",
        },
    }
    states: ClassVar = {
        "account": {0: "active", 1: "inactive"},
        "contact": {0: "active", 1: "inactive"},
        "opportunity": {0: "open", 1: "won", 2: "lost"},
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
                found[self.columns[entity][name]] = self.native_value(entity, name, value)
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
    """Any Odoo that speaks JSON-2, by its administrator. Archived records are there like others."""

    columns: ClassVar = {
        "account": {
            "name": "name",
            "number": "ref",
            "email": "email",
            "phone": "phone",
            "status": "active",
        },
        "contact": {
            "last_name": "name",
            "email": "email",
            "phone": "phone",
            "job_title": "function",
            "account_id": "parent_id",
            "status": "active",
        },
        "opportunity": {
            "name": "name",
            "amount": "expected_revenue",
            "close_date": "date_deadline",
            "contact_id": "partner_id",
            "status": "active",
        },
    }
    states: ClassVar = {
        "account": {True: "active", False: "inactive"},
        "contact": {True: "active", False: "inactive"},
        "opportunity": {True: "open", False: "lost"},
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
                own = int(value) if name in REFERENCES else self.native_value(entity, name, value)
                found[self.columns[entity][name]] = own
        return found

    def add(self, entity, values):
        name, value = self.kinds[entity]
        rows = [{name: value, **self.native(entity, values)}]
        return str(self.do(self.models[entity], "create", vals_list=rows)[0])

    def update(self, entity, rid, values):
        self.do(self.models[entity], "write", ids=[int(rid)], vals=self.native(entity, values))

    def update_late(self, entity, rid, values, lag):
        """At the sandbox: it begins now, and so many seconds later it can be seen."""
        body = {"values": self.native(entity, values), "lag": lag}
        self.control("PATCH", f"rows/{self.models[entity]}/{rid}", body)

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
        for model in ("crm.lead", "mail.activity"):
            self.do(model, "unlink", ids=self.do(model, "search", domain=[]))
        own = []
        for model in ("res.company", "res.users"):
            rows = self.do(model, "search_read", domain=[], fields=["partner_id"], order="id")
            own += [row["partner_id"][0] for row in rows]
        self.do("res.partner", "unlink", ids=self.do("res.partner", "search", domain=[["id", "not in", own]]))
