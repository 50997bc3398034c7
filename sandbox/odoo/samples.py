"""Rows for demos and tests: companies and people, products, leads, quotations, activities. The same seed, the same rows."""

import random
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

from sandbox.odoo.env import ADMIN, Database, Env
from sandbox.odoo.values import DAYS
from sandbox.samples import companies, people
from sandbox.store import Values

GOODS = (
    "Chair",
    "Table",
    "Lamp",
    "Shelf",
    "Desk",
    "Cable",
    "Drill",
    "Pump",
    "Valve",
    "Filter",
    "Panel",
    "Sensor",
)
KINDS = ("Basic", "Pro", "Plus", "XL", "Mini", "Eco")
COUNTRIES = {
    "México": "MX", "Colombia": "CO", "Chile": "CL", "Argentina": "AR", "Brasil": "BR", "España": "ES", "United States": "US",
    "Deutschland": "DE", "France": "FR",
}  # fmt: skip
PEOPLE_PER_COMPANY = 2


def _country(env: Env, name: str) -> int | bool:
    rows = env.db.store.table("res.country").where("code", COUNTRIES.get(name, ""))
    return int(rows[0].id) if rows else False


def _partners(env: Env, count: int, seed: int) -> Iterator[Values]:
    """A third of them companies, the rest people, most of whom belong to one."""
    rng = random.Random(f"odoo partners {seed}")
    firms = list(companies(max(1, count // (PEOPLE_PER_COMPANY + 1)), seed))
    made: list[int] = []
    for firm in firms:
        made.append(len(made))
        yield {
            "name": firm.name, "is_company": True, "email": firm.email, "phone": firm.phone, "website": firm.website,
            "street": firm.street, "city": firm.city, "zip": firm.postal_code, "country_id": _country(env, firm.country),
            "comment": firm.note or False, "ref": f"C{seed}-{len(made):05d}",
        }  # fmt: skip
    for n, person in enumerate(people(count - len(firms), seed)):
        yield {
            "name": f"{person.first} {person.last}", "email": person.email, "phone": person.phone, "function": person.job,
            "city": person.city, "country_id": _country(env, person.country), "ref": f"P{seed}-{n + 1:05d}",
            "_parent": rng.randrange(len(firms)) if rng.random() < 0.8 else None,
        }  # fmt: skip


def _products(_env: Env, count: int, seed: int) -> Iterator[Values]:
    rng = random.Random(f"odoo products {seed}")
    for n in range(count):
        yield {
            "name": f"{rng.choice(GOODS)} {rng.choice(KINDS)} {n + 1}", "default_code": f"SKU{seed}-{n + 1:05d}",
            "list_price": rng.randint(100, 99_999) / 100, "type": "service" if rng.random() < 0.2 else "consu",
        }  # fmt: skip


def _some(env: Env, model: str, rng: random.Random) -> int | bool:
    rows = [k for k, r in env.rows(model).items() if r.values.get("active", True)]
    return int(rng.choice(rows)) if rows else False


def _leads(env: Env, count: int, seed: int) -> Iterator[Values]:
    rng = random.Random(f"odoo leads {seed}")
    stages = [int(k) for k in env.rows("crm.stage")]
    for n in range(count):
        kind = "lead" if rng.random() < 0.3 else "opportunity"
        yield {
            "name": f"{rng.choice(GOODS)} for {rng.choice(KINDS)} {n + 1}", "type": kind, "partner_id": _some(env, "res.partner", rng),
            "expected_revenue": rng.randint(0, 5_000_000) / 100, "stage_id": stages[0] if kind == "lead" else rng.choice(stages),
            "date_deadline": (env.now + timedelta(days=rng.randint(-30, 120))).strftime(DAYS),
        }  # fmt: skip


def _orders(env: Env, count: int, seed: int) -> Iterator[Values]:
    rng = random.Random(f"odoo orders {seed}")
    for n in range(count):
        lines = [
            [0, 0, {"product_id": _some(env, "product.product", rng), "product_uom_qty": rng.randint(1, 20)}]
            for _ in range(rng.randint(1, 4))
        ]
        state = rng.choice(("draft", "sent", "sale", "sale", "cancel"))
        yield {
            "partner_id": _some(env, "res.partner", rng),
            "client_order_ref": f"PO{seed}-{n + 1:05d}",
            "order_line": lines,
            "state": state,
        }


def _activities(env: Env, count: int, seed: int) -> Iterator[Values]:
    rng = random.Random(f"odoo activities {seed}")
    model = next(int(r.id) for r in env.rows("ir.model").values() if r.values["model"] == "res.partner")
    kinds = [int(k) for k in env.rows("mail.activity.type")]
    for n in range(count):
        yield {
            "res_model_id": model, "res_id": _some(env, "res.partner", rng), "activity_type_id": rng.choice(kinds),
            "summary": f"Call back {n + 1}", "user_id": ADMIN,
            "date_deadline": (env.now + timedelta(days=rng.randint(-10, 60))).strftime(DAYS),
        }  # fmt: skip


Make = Callable[[Env, int, int], Iterator[Values]]
MAKERS: dict[str, Make] = {
    "res.partner": _partners,
    "product.template": _products,
    "product.product": _products,
    "crm.lead": _leads,
    "sale.order": _orders,
    "mail.activity": _activities,
}
NEEDS = {"sale.order": ("product.product",)}


def fill(db: Database, table: str, count: int, seed: int) -> int:
    """Add so many rows of a model, and what they need; gives how many there are then."""
    if table not in MAKERS:
        raise ValueError(f"there are no samples of {table}; there are of {', '.join(MAKERS)}")

    def work(begun: Any) -> None:
        env = Env(db, ADMIN, begun)
        for needed in NEEDS.get(table, ()):
            if not env.rows(needed):
                env[needed].create(list(_products(env, 10, seed)))
        made: list[int] = []
        for vals in MAKERS[table](env, count, seed):
            above = vals.pop("_parent", None)
            made += env[table].create([vals if above is None else {**vals, "parent_id": made[above]}])

    db.run(work)
    return len(db.store.table(table).rows)
