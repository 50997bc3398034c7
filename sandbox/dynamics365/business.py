"""Sample rows of sales, service and marketing: a believable little business around the sample accounts."""

import random
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from decimal import Decimal

from sandbox import samples
from sandbox.dynamics365 import documents
from sandbox.dynamics365.documents import money
from sandbox.dynamics365.org import Org, wire_time
from sandbox.dynamics365.schema import LINES
from sandbox.store import Values

Maker = Callable[[Org, int, int, random.Random], Iterator[Values]]

FEW = 20  # rows of a table that is filled because another one needs it
GOODS = (
    "Panel solar 450 W",
    "Inversor híbrido 5 kW",
    "Batería LiFePO₄ 10 kWh",
    "Cable 6 mm² (rollo)",
    "Estructura de montaje",
    "Regulador MPPT",
    "Monitoreo anual",
    "Instalación “llave en mano”",
    "Mantenimiento preventivo",
    "Conector MC4 & sellos",
)
TOPICS = (
    "Ampliación de planta",
    "Renovación de licencias",
    "Proyecto O'Higgins",
    "Nueva sucursal",
    "Cotización urgente",
    "Contrato marco 2026",
    "Prueba piloto",
    "Migración a la nube ☁",
)
TROUBLES = (
    "No enciende el equipo",
    "Factura con datos incorrectos",
    "Entrega incompleta",
    "¿Cómo cambio la contraseña?",
    "Ruido extraño al arrancar",
    "Solicitud de garantía",
)
TALKS = (
    "Llamar para confirmar",
    "Enviar propuesta",
    "Reunión de seguimiento",
    "Visita técnica",
    "Recordar vencimiento",
    "Revisar contrato",
)
STAGES = ("1-Qualify", "2-Develop", "3-Propose", "4-Close")
NEEDS: dict[str, tuple[str, ...]] = {
    "opportunity": ("account", "lead", "campaign"), "lead": ("campaign",), "incident": ("account", "product"),
    "quote": ("account", "opportunity", "product"), "salesorder": ("account", "quote", "product"),
    "invoice": ("account", "salesorder", "product"), "task": ("account",), "phonecall": ("account", "contact"),
    "email": ("account", "contact"), "appointment": ("account", "contact"),
}  # fmt: skip


def _link(name: str, table: str, key: str | None) -> Values:
    """A lookup's values; nothing for no row."""
    return {} if key is None else {f"_{name}_value": key, f"_{name}_type": table}


def _one(org: Org, table: str, rng: random.Random) -> str | None:
    ids = org.store.table(table).ids()
    return rng.choice(ids) if ids else None


def _state(rng: random.Random, *pairs: tuple[int, int]) -> Values:
    state, reason = rng.choice(pairs)
    return {"statecode": state, "statuscode": reason}


def _day(at: datetime, rng: random.Random, low: int, high: int) -> datetime:
    return at + timedelta(days=rng.randint(low, high))


def _leads(org: Org, count: int, seed: int, rng: random.Random) -> Iterator[Values]:
    companies = samples.companies(count, seed + 500)
    for p, c in zip(samples.people(count, seed + 500), companies, strict=True):
        yield {
            "subject": rng.choice(TOPICS), "firstname": p.first, "lastname": p.last, "companyname": c.name[:100],
            "emailaddress1": p.email[:100], "telephone1": p.phone, "mobilephone": p.mobile[:20], "jobtitle": p.job,
            "websiteurl": c.website, "address1_line1": c.street, "address1_city": c.city[:80],
            "address1_stateorprovince": c.region[:50], "address1_postalcode": c.postal_code,
            "address1_country": c.country, "leadsourcecode": rng.choice((None, 1, 2, 3, 6, 7, 8, 9, 10)),
            "leadqualitycode": rng.randint(1, 3), "description": c.note,
            "estimatedamount": money(Decimal(rng.randint(1, 900) * 100)) if rng.random() < 0.7 else None,
            **_link("campaignid", "campaign", _one(org, "campaign", rng) if rng.random() < 0.5 else None),
            **_state(rng, (0, 1), (0, 1), (0, 2), (1, 3), (2, 4), (2, 6)),
        }  # fmt: skip


def _campaigns(org: Org, count: int, _seed: int, rng: random.Random) -> Iterator[Values]:
    for n in range(count):
        begins = _day(org.now(), rng, -200, 60)
        ends = begins + timedelta(days=rng.randint(5, 60))
        state = _state(rng, (0, 0), (0, 1), (0, 2), (0, 3), (1, 6))
        begun = state["statuscode"] in (2, 3)
        yield {
            "name": f"Campaña {n + 1}: {rng.choice(TOPICS)}", "typecode": rng.randint(1, 5),
            "proposedstart": f"{begins:%Y-%m-%d}", "proposedend": f"{ends:%Y-%m-%d}",
            "actualstart": f"{begins:%Y-%m-%d}" if begun else None,
            "actualend": f"{ends:%Y-%m-%d}" if state["statuscode"] == 3 else None,
            "budgetedcost": money(Decimal(rng.randint(5, 400) * 100)),
            "totalactualcost": money(Decimal(rng.randint(5, 400) * 90)) if begun else None,
            "expectedrevenue": money(Decimal(rng.randint(50, 4000) * 100)), **state,
        }  # fmt: skip


def _products(org: Org, count: int, seed: int, rng: random.Random) -> Iterator[Values]:
    for n in range(count):
        price = Decimal(rng.randint(100, 900_000)) / 100
        yield {
            "name": f"{rng.choice(GOODS)} {n + 1}", "productnumber": f"P-{seed:02d}-{n:05d}",
            "producttypecode": rng.choice((1, 1, 1, 3)), "quantitydecimal": 2, "price": money(price),
            "currentcost": money(price * Decimal("0.6")), "standardcost": money(price * Decimal("0.65")),
            **_link("defaultuomid", "uom", org.unit), **_link("defaultuomscheduleid", "uomschedule", org.unit_group),
            **_state(rng, (0, 1), (0, 1), (0, 1), (1, 2), (2, 0)),
        }  # fmt: skip


def _opportunities(org: Org, count: int, seed: int, rng: random.Random) -> Iterator[Values]:
    for n in range(count):
        account = _one(org, "account", rng)
        amount = money(Decimal(rng.randint(5, 9000) * 100))
        due = _day(org.now(), rng, -60, 120)
        state = _state(rng, (0, 1), (0, 1), (0, 2), (1, 3), (2, 4), (2, 5))
        closed = state["statecode"] > 0
        yield {
            "name": f"{rng.choice(TOPICS)} {seed}-{n + 1}", "estimatedvalue": amount, "estimatedclosedate": f"{due:%Y-%m-%d}",
            "actualvalue": amount if state["statecode"] == 1 else None, "actualclosedate": f"{due:%Y-%m-%d}" if closed else None,
            "closeprobability": rng.choice((None, 10, 40, 60, 90)), "stepname": rng.choice(STAGES),
            "salesstage": rng.randint(0, 3), "opportunityratingcode": rng.randint(1, 3),
            **_link("customerid", "account", account), **_link("parentaccountid", "account", account),
            **_link("parentcontactid", "contact", _one(org, "contact", rng) if rng.random() < 0.6 else None),
            **_link("originatingleadid", "lead", _one(org, "lead", rng) if rng.random() < 0.4 else None),
            **_link("campaignid", "campaign", _one(org, "campaign", rng) if rng.random() < 0.3 else None),
            **_link("pricelevelid", "pricelevel", org.prices), **state,
        }  # fmt: skip


def _incidents(org: Org, count: int, _seed: int, rng: random.Random) -> Iterator[Values]:
    for _ in range(count):
        contact = _one(org, "contact", rng)
        person = contact is not None and rng.random() < 0.3
        yield {
            "title": rng.choice(TROUBLES), "caseorigincode": rng.choice((1, 2, 3, 3, 2483)), "casetypecode": rng.choice((None, 1, 2, 3)),
            "prioritycode": rng.randint(1, 3), "description": "Línea uno\nLínea dos: “comillas” & <b>signos</b>",
            "followupby": wire_time(_day(org.now(), rng, -20, 30)),
            **_link("customerid", "contact" if person else "account", contact if person else _one(org, "account", rng)),
            **_link("primarycontactid", "contact", contact),
            **_link("productid", "product", _one(org, "product", rng) if rng.random() < 0.5 else None),
            **_state(rng, (0, 1), (0, 1), (0, 2), (1, 5), (2, 6)),
        }  # fmt: skip


def _document(table: str, name: str, states: tuple[tuple[int, int], ...]) -> Maker:
    """The samples of quotes, orders or invoices: a head with its own facts, and one to four lines."""

    def make(org: Org, count: int, seed: int, rng: random.Random) -> Iterator[Values]:
        for n in range(count):
            key = org.fixed(f"{table} {seed} {n}")
            lines = [_line(org, table, key, i + 1, rng) for i in range(rng.randint(1, 4))]
            account = _one(org, "account", rng)
            seen = org.store.get("account", account or "")
            place = {} if seen is None else seen.values
            parts = ("line1", "city", "stateorprovince", "postalcode", "country")
            yield {
                "name": f"{name} {seed}-{n + 1}", **_facts(org, table, rng),
                **{f"billto_{p}": place.get(f"address1_{p}") for p in parts},
                **{f"shipto_{p}": place.get(f"address1_{p}") for p in parts if rng.random() < 0.8},
                "freightamount": money(Decimal(rng.randint(0, 90))) if rng.random() < 0.5 else None,
                "discountamount": money(Decimal(rng.randint(1, 50))) if rng.random() < 0.2 else None,
                **_link("customerid", "account", account), **_link("pricelevelid", "pricelevel", org.prices),
                **documents.totals(lines), **_state(rng, *states),
                "inside": [(LINES[table][0].name, line) for line in lines],
            }  # fmt: skip

    return make


def _facts(org: Org, table: str, rng: random.Random) -> Values:
    """What only a quote, an order or an invoice has."""
    day = _day(org.now(), rng, -90, 10)
    later = day + timedelta(days=30)
    opportunity = _link("opportunityid", "opportunity", _one(org, "opportunity", rng))
    if table == "quote":
        return {"effectivefrom": wire_time(day), "effectiveto": wire_time(later), **opportunity}
    if table == "salesorder":
        quote = _one(org, "quote", rng) if rng.random() < 0.6 else None
        return {
            "submitdate": wire_time(day),
            "requestdeliveryby": f"{later:%Y-%m-%d}",
            **_link("quoteid", "quote", quote),
        }
    order = _one(org, "salesorder", rng)
    return {
        "datedelivered": f"{day:%Y-%m-%d}",
        "duedate": f"{later:%Y-%m-%d}",
        **_link("salesorderid", "salesorder", order),
    }


def _line(org: Org, table: str, key: str, number: int, rng: random.Random) -> Values:
    """One line with its amounts: mostly of a product, else of something written in."""
    line, lookup = LINES[table]
    product = org.store.get("product", _one(org, "product", rng) or "")
    values: Values = {
        **_link(lookup.name, table, key), "lineitemnumber": number, "sequencenumber": number,
        "quantity": Decimal(rng.choice((1, 2, 3, 5, 10))).quantize(Decimal("0.0000000001")),
        "tax": money(Decimal(rng.randint(0, 5000)) / 100),
        "manualdiscountamount": money(Decimal(rng.randint(1, 50))) if rng.random() < 0.2 else None,
    }  # fmt: skip
    if product is None or rng.random() < 0.2:
        values |= {"isproductoverridden": True, "productdescription": rng.choice(GOODS)}
        values["priceperunit"] = money(Decimal(rng.randint(100, 90_000)) / 100)
    else:
        values |= {"productname": product.values["name"], "priceperunit": product.values["price"]}
        values |= {**_link("productid", "product", product.id), **_link("uomid", "uom", org.unit)}
    documents.stamp_line(line, values)
    return values


def _activity(
    table: str, facts: Callable[[datetime, random.Random], Values], states: tuple[tuple[int, int], ...]
) -> Maker:
    """The samples of one kind of activity, about accounts and, if there are any, opportunities and cases."""

    def make(org: Org, count: int, seed: int, rng: random.Random) -> Iterator[Values]:
        for n in range(count):
            begins = _day(org.now(), rng, -30, 30).replace(second=0)
            about = rng.choice(("account", "account", "opportunity", "incident"))
            about = about if org.store.table(about).rows else "account"
            key = org.fixed(f"{table} {seed} {n}")
            state = _state(rng, *states)
            done = wire_time(begins + timedelta(hours=1)) if state["statecode"] == 1 else None
            yield {
                "subject": rng.choice(TALKS), "prioritycode": rng.choice((0, 1, 1, 2)), "scheduledend": wire_time(begins),
                "actualend": done, **facts(begins, rng), **state,
                **_link("regardingobjectid", about, _one(org, about, rng)), "inside": _parties(org, table, key, rng),
            }  # fmt: skip

    return make


PART = {"phonecall": 2, "email": 2, "appointment": 5}  # the part that a contact takes in it


def _parties(org: Org, table: str, key: str, rng: random.Random) -> list[tuple[str, Values]]:
    contact = org.store.get("contact", _one(org, "contact", rng) or "")
    if contact is None or table not in PART:
        return []
    party = {
        **_link("activityid", table, key), **_link("partyid", "contact", contact.id), "participationtypemask": PART[table],
        "addressused": contact.values.get("emailaddress1"), "partyidname": contact.values.get("fullname"),
    }  # fmt: skip
    return [("activityparty", party)]


def _meeting(begins: datetime, rng: random.Random) -> Values:
    return {
        "scheduledstart": wire_time(begins),
        "scheduledend": wire_time(begins + timedelta(minutes=rng.choice((30, 60, 90)))),
        "location": rng.choice((None, "Sala 1", "Oficina del cliente", "Teams")),
    }


def _call(_begins: datetime, rng: random.Random) -> Values:
    return {
        "directioncode": rng.random() < 0.7,
        "phonenumber": f"+52 55 {rng.randint(1000, 9999)} {rng.randint(1000, 9999)}",
    }


def _mail(_begins: datetime, rng: random.Random) -> Values:
    return {
        "directioncode": rng.random() < 0.6,
        "description": "<p>Hola:</p><p>Adjunto lo acordado &amp; saludos.</p>",
    }


MAKERS: dict[str, Maker] = {
    "campaign": _campaigns,
    "product": _products,
    "lead": _leads,
    "opportunity": _opportunities,
    "incident": _incidents,
    "quote": _document("quote", "Cotización", ((0, 1), (1, 2), (2, 4), (3, 5))),
    "salesorder": _document("salesorder", "Pedido", ((0, 1), (1, 3), (3, 100001), (2, 4))),
    "invoice": _document("invoice", "Factura", ((0, 1), (0, 4), (2, 100001), (3, 100003))),
    "task": _activity("task", lambda _b, _r: {}, ((0, 2), (0, 3), (1, 5), (2, 6))),
    "phonecall": _activity("phonecall", _call, ((0, 1), (0, 1), (1, 2), (2, 3))),
    "email": _activity("email", _mail, ((0, 1), (1, 3), (1, 4))),
    "appointment": _activity("appointment", _meeting, ((0, 1), (3, 5), (1, 3))),
}
