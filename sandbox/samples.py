"""Believable companies and people, the same for the same seed; knows no vendor.

Names come from Faker for several countries; combinations are drawn by one seeded generator, so that a hundred
thousand rows cost seconds. A share of the rows is awkward on purpose: accents, apostrophes, ampersands, emoji,
right-to-left text, values as long as the limits allow.
"""

import random
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, timedelta
from decimal import Decimal
from functools import cache

from faker import Faker

# Locale of Faker, country as written in addresses, dialling code, weight.
COUNTRIES = (
    ("es_MX", "México", "+52", 5),
    ("es_CO", "Colombia", "+57", 4),
    ("es_CL", "Chile", "+56", 4),
    ("es_AR", "Argentina", "+54", 4),
    ("pt_BR", "Brasil", "+55", 3),
    ("es_ES", "España", "+34", 2),
    ("en_US", "United States", "+1", 3),
    ("de_DE", "Deutschland", "+49", 1),
    ("fr_FR", "France", "+33", 1),
)
POOL = 120
STREETS = (
    "Av. Libertador",
    "Calle 72",
    "Rua das Flores",
    "Main Street",
    "Cra. 15",
    "Av. Insurgentes Sur",
    "Hauptstraße",
    "Rue de l'Église",
)
AWKWARD = (
    "O'Higgins & Hijos S.A.",
    "Café Ñandú \U0001f9c9 Ltda.",
    "Peña, Muñoz & Asociados",
    "شركة النور للتجارة",
    "חברת אור בע״מ",
    'Grupo "El Cóndor" S.R.L.',
    "Straße & Söhne GmbH",
    "100% Orgánico_[MX]",
    "株式会社サンプル",
    "Dŵr Cymru — Łódź",
)
JOBS = (
    "Gerente de Compras",
    "Directora Comercial",
    "CTO",
    "Jefe de Logística",
    "Analista",
    "Sales Manager",
    "Contador",
    "CEO",
    "Asistente",
    "Engenheira",
)


@dataclass(frozen=True)
class Company:
    name: str
    email: str
    phone: str
    website: str
    street: str
    city: str
    region: str
    postal_code: str
    country: str
    revenue: Decimal | None
    employees: int | None
    note: str | None
    awkward: bool


@dataclass(frozen=True)
class Person:
    first: str
    last: str
    email: str
    phone: str
    mobile: str
    job: str
    birth: date | None
    city: str
    country: str


@dataclass(frozen=True)
class _Pool:
    country: str
    dial: str
    companies: tuple[str, ...]
    cities: tuple[str, ...]
    regions: tuple[str, ...]
    first: tuple[str, ...]
    last: tuple[str, ...]


@cache
def _pools() -> tuple[_Pool, ...]:
    pools = []
    for locale, country, dial, _weight in COUNTRIES:
        fake = Faker(locale)
        fake.seed_instance(20260101)
        region = getattr(fake, "state", None) or getattr(fake, "department", None) or fake.city

        def draw(make: object) -> tuple[str, ...]:
            assert callable(make)
            return tuple(str(make()) for _ in range(POOL))

        pools.append(
            _Pool(
                country,
                dial,
                draw(fake.company),
                draw(fake.city),
                draw(region),
                draw(fake.first_name),
                draw(fake.last_name),
            )
        )
    return tuple(pools)


def slug(text: str) -> str:
    """Letters and digits of a text, for addresses; never empty."""
    plain = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode().lower()
    return "".join(c for c in plain if c.isalnum())[:40] or "empresa"


def _phone(rng: random.Random, dial: str) -> str:
    return f"{dial} {rng.randint(10, 99)} {rng.randint(1000, 9999)} {rng.randint(1000, 9999)}"


def companies(count: int, seed: int) -> Iterator[Company]:
    """So many companies; names differ by a branch or number where the pool repeats itself."""
    rng = random.Random(f"companies {seed}")
    pools = _pools()
    weights = [w for *_, w in COUNTRIES]
    for n in range(count):
        pool = rng.choices(pools, weights)[0]
        awkward = rng.random() < 0.06
        city = rng.choice(pool.cities)
        name = rng.choice(AWKWARD) if awkward else rng.choice(pool.companies)
        name = f"{name} {city}" if rng.random() < 0.7 else name
        name = f"{name} {n + 1}" if rng.random() < 0.3 else name
        host = f"{slug(name)}{n}.example"
        yield Company(
            name=name[:160],
            email=f"contacto@{host}",
            phone=_phone(rng, pool.dial),
            website=f"https://www.{host}/",
            street=f"{rng.choice(STREETS)} {rng.randint(1, 4999)}",
            city=city,
            region=rng.choice(pool.regions),
            postal_code=f"{rng.randint(1000, 99999):05d}",
            country=pool.country,
            revenue=None if rng.random() < 0.15 else Decimal(rng.randint(0, 9_000_000_000)) / 100,
            employees=None if rng.random() < 0.2 else rng.randint(1, 20_000),
            note="Línea uno\nLínea dos: “comillas”, <b>no es HTML</b> & más" if rng.random() < 0.2 else None,
            awkward=awkward,
        )


def people(count: int, seed: int) -> Iterator[Person]:
    rng = random.Random(f"people {seed}")
    pools = _pools()
    weights = [w for *_, w in COUNTRIES]
    for n in range(count):
        pool = rng.choices(pools, weights)[0]
        first, last = rng.choice(pool.first), rng.choice(pool.last)
        if rng.random() < 0.03:
            last = rng.choice(("O'Connor", "D'Angelo", "Núñez-Øster", "حداد", "de la Ó"))
        yield Person(
            first=first[:50],
            last=last[:50],
            email=f"{slug(first)}.{slug(last)}{n}@correo.example",
            phone=_phone(rng, pool.dial),
            mobile=_phone(rng, pool.dial),
            job=rng.choice(JOBS),
            birth=None if rng.random() < 0.5 else date(1950, 1, 1) + timedelta(days=rng.randint(0, 20_000)),
            city=rng.choice(pool.cities),
            country=pool.country,
        )
