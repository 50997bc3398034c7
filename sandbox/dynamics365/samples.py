"""Sample rows, written straight into the store. The rows of sales, service and marketing are in ``business.py``."""

import random
from collections.abc import Iterator
from datetime import timedelta
from decimal import Decimal

from sandbox import samples
from sandbox.dynamics365 import business, documents, parties
from sandbox.dynamics365.documents import money
from sandbox.dynamics365.errors import UNSUPPORTED, Refused
from sandbox.dynamics365.org import Org
from sandbox.dynamics365.schema import TABLES, Entity
from sandbox.store import Values


def fill(org: Org, table: str, count: int, seed: int) -> int:
    """Add so many sample rows; gives how many there are now. The same seed adds the same rows, with the same ids."""
    if table not in MAKERS:
        raise Refused(
            400, UNSUPPORTED, f"There are no samples of '{table}'; there are of {', '.join(MAKERS)}."
        )
    org.seed_rows()
    for needed in business.NEEDS.get(table, ()):
        if not org.store.table(needed).rows:
            fill(org, needed, min(count, business.FEW), seed)
    entity = TABLES[table]
    rng = random.Random(f"{table} {seed}")
    for n, values in enumerate(MAKERS[table](org, count, seed, rng)):
        key = org.fixed(f"{table} {seed} {n}")
        if org.store.get(table, key) is None:
            age = timedelta(seconds=rng.randint(0, 400 * 86_400))
            # Changed some time after they were created; several rows share a second, as after an import.
            created = org.now() - age
            modified = created + age * (rng.randint(0, 20) / 20)
            inside: list[tuple[str, Values]] = values.pop("inside", [])
            row = {**_base(org, entity), **values}
            documents.numbered(org, entity, key, row)
            org.store.write(table, key, row, at=modified, created=created)
            for i, (child, more) in enumerate(inside):
                made = {**_base(org, TABLES[child]), **more}
                org.store.write(child, org.fixed(f"{key} {i}"), made, at=modified, created=created)
            if entity.activity:
                parties.keep(org, entity, row, key, 0.0)
    return len(org.store.table(table).rows)


def _base(org: Org, entity: Entity) -> Values:
    user = {"_value": org.person, "_type": "systemuser"}
    names = [n for n in ("ownerid", "owninguser", "createdby", "modifiedby") if n in entity.columns]
    values: Values = {
        **{c.name: c.default for c in entity.columns.values() if c.default is not None},
        **{f"_{n}{part}": v for n in names for part, v in user.items()},
    }
    if "owningbusinessunit" in entity.columns:
        values |= {"_owningbusinessunit_value": org.business_unit, "_owningbusinessunit_type": "businessunit"}
    if "statecode" in entity.columns:
        values["statecode"], values["statuscode"] = entity.states.first
    if (
        "transactioncurrencyid" in entity.columns
        and entity.columns["transactioncurrencyid"].required != "None"
    ):
        values |= org.own_currency()
    return values


def _accounts(org: Org, count: int, seed: int, rng: random.Random) -> Iterator[Values]:
    for n, c in enumerate(samples.companies(count, seed)):
        name = c.name.ljust(160, "ñ") if rng.random() < 0.005 else c.name  # as long as the column
        values: Values = {
            "name": name, "accountnumber": f"A-{seed:02d}-{n:06d}", "emailaddress1": c.email[:100], "telephone1": c.phone,
            "websiteurl": c.website, "address1_line1": c.street, "address1_city": c.city[:80],
            "address1_stateorprovince": c.region[:50], "address1_postalcode": c.postal_code, "address1_country": c.country,
            "revenue": None if c.revenue is None else money(c.revenue), "numberofemployees": c.employees,
            "industrycode": rng.randint(1, 33) if rng.random() < 0.8 else None,
            "customertypecode": rng.choice((1, 2, 3, 3, 3, 5, 8, 9, 10, 11, 12)),
            "accountcategorycode": rng.choice((None, 1, 2)), "paymenttermscode": rng.choice((None, 1, 2, 3, 4)),
            "creditlimit": money(Decimal(rng.randint(0, 500) * 1000)) if rng.random() < 0.3 else None, "description": c.note,
        }  # fmt: skip
        if rng.random() < 0.05:
            values |= {"statecode": 1, "statuscode": 2}
        if n and rng.random() < 0.1:
            parent = org.fixed(f"account {seed} {rng.randrange(n)}")
            values |= {"_parentaccountid_value": parent, "_parentaccountid_type": "account"}
        yield values


def _contacts(org: Org, count: int, seed: int, rng: random.Random) -> Iterator[Values]:
    accounts = org.store.table("account").ids()
    for p in samples.people(count, seed):
        values: Values = {
            "firstname": p.first, "lastname": p.last, "emailaddress1": p.email[:100], "telephone1": p.phone,
            "mobilephone": p.mobile, "jobtitle": p.job, "birthdate": p.birth.isoformat() if p.birth else None,
            "address1_city": p.city[:80], "address1_country": p.country, "gendercode": rng.choice((None, 1, 2)),
            "donotbulkemail": rng.random() < 0.2,
        }  # fmt: skip
        if accounts and rng.random() < 0.9:
            values |= {"_parentcustomerid_value": rng.choice(accounts), "_parentcustomerid_type": "account"}
        if rng.random() < 0.05:
            values |= {"statecode": 1, "statuscode": 2}
        yield values


MAKERS: dict[str, business.Maker] = {"account": _accounts, "contact": _contacts, **business.MAKERS}
