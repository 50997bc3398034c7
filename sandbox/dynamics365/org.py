"""One Dataverse environment: its identity, users and settings, and what the server itself writes into rows."""

import random
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

from sandbox.dynamics365.documents import stamp_document, stamp_line
from sandbox.dynamics365.errors import Refused, no_property
from sandbox.dynamics365.schema import LINES, TABLES, Entity
from sandbox.frame import Frame
from sandbox.store import Row, Values

NAMESPACE = uuid.UUID("6b1f9d3e-52c7-4d6f-9a55-0d365a0b0001")
USER = "systemuser"
RATE = Decimal("1.0000000000")

# What can be switched by ``POST /_sandbox/options`` or on the command line.
OPTIONS: Values = {
    "page_cap": 5000,  # rows per page at most
    "token_seconds": 3599,  # life of an access token
    "lag": 0.0,  # seconds until writes by people at the vendor become visible
    "tracking": {e.name: True for e in TABLES.values() if e.tracked},  # ChangeTrackingEnabled per table
    "multiple": {},  # tables set to false have no CreateMultiple, UpdateMultiple, UpsertMultiple
    "tracking_days": 7.0,  # organization.ExpireChangeTrackingInDays
    "deny": [],  # privileges that the app user lacks, e.g. "prvWriteAccount"
    "app_user": "ok",  # or "missing", "disabled"
    "readonly": "refuse",  # read-only columns in a body: "refuse" or "ignore"
    "empty_as_null": False,  # an empty text is stored as no value
    "duplicate_rules": True,  # published duplicate detection rules, used when a caller asks for them
    "cascade": False,  # deleting a parent deletes its children instead of clearing their lookup
}

_ACTIVITIES = (
    *("task", "phonecall", "email", "appointment", "activitypointer", "activityparty"),
    *("incidentresolution", "opportunityclose", "quoteclose", "orderclose"),
)
# Tables whose privileges are those of another ("Privileges by entity").
PRIVILEGES = {
    **dict.fromkeys(_ACTIVITIES, "Activity"),
    **dict.fromkeys(("uom", "uomschedule", "pricelevel"), "Product"),
    **dict.fromkeys(("salesorder", "salesorderdetail"), "Order"),
    "quotedetail": "Quote",
    "invoicedetail": "Invoice",
    "opportunityproduct": "Opportunity",
    "systemuser": "User",
}


def wire_time(at: datetime) -> str:
    """Whole seconds, as the samples of the vendor show them."""
    return at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


@dataclass(frozen=True)
class Identity:
    """Who may ask for tokens here."""

    tenant: str = "5a1d0b0e-0000-4000-8000-0000000000aa"
    client_id: str = "c11e0000-0000-4000-8000-0000000000c1"
    client_secret: str = "sandbox-secret"  # noqa: S105 - a fake's own default
    certificate: str = ""  # PEM of the client's registered certificate; empty: any well-formed assertion


class Org:
    """The environment that a server answers for."""

    def __init__(self, frame: Frame, identity: Identity, seed: int) -> None:
        self.frame = frame
        self.store = frame.store
        self.identity = identity
        self.origins: set[str] = set()
        self.random = random.Random(seed)
        self.id = self.fixed("organization")
        self.app_user = self.fixed("app user")
        self.person = self.fixed("person")
        self.business_unit = self.fixed("business unit")
        self.currency = self.fixed("currency")
        self.unit = self.fixed("unit")
        self.unit_group = self.fixed("unit group")
        self.prices = self.fixed("price list")
        self.first_version = 0  # delta tokens below it are from before a reset
        self.results: dict[Any, list[Row]] = {}

    @property
    def options(self) -> Values:
        return self.frame.options

    def fixed(self, name: str) -> str:
        """An id that is the same in every sandbox."""
        return str(uuid.uuid5(NAMESPACE, name))

    def new_id(self) -> str:
        return str(uuid.UUID(int=self.random.getrandbits(128), version=4))

    def now(self) -> datetime:
        return self.frame.clock.now()

    def tracked(self, entity: Entity) -> bool:
        return bool(self.options["tracking"].get(entity.name))

    def allow(self, verb: str, entity: Entity) -> None:
        """Refuse what the app user's security role does not allow (option ``deny``)."""
        privilege = f"prv{verb}{PRIVILEGES.get(entity.name, entity.schema_name)}"
        if privilege in self.options["deny"]:
            raise self.privilege_missing(privilege, entity.name, entity.type_code)

    def privilege_missing(self, privilege: str, entity: str = "account", code: int = 1) -> Refused:
        return Refused(
            403,
            "0x80040220",
            f"Principal user (Id={self.app_user}, type=8, roleCount=1, privilegeCount=537, accessMode=4), "
            f"is missing {privilege} privilege (Id={self.fixed(privilege)}) on OTC={code} for entity '{entity}'. "
            f"context.Caller={self.app_user}",
        )

    def own_currency(self) -> Values:
        """The organisation's currency as a lookup's values."""
        return {
            "_transactioncurrencyid_value": self.currency,
            "_transactioncurrencyid_type": "transactioncurrency",
        }

    def seed_rows(self) -> None:
        """The rows that every environment has: users, business unit, currency, a unit and a price list."""
        base = {"statecode": 0, "statuscode": 1}
        unit = {"_businessunitid_value": self.business_unit, "_businessunitid_type": "businessunit"}
        rows: list[tuple[str, str, Values]] = [
            ("businessunit", self.business_unit, {"name": "sandbox"}),
            ("transactioncurrency", self.currency, {
                "currencyname": "US Dollar", "isocurrencycode": "USD", "currencysymbol": "$", "currencyprecision": 2,
                "exchangerate": RATE, **base,
            }),
            (USER, self.app_user, {
                "fullname": "# CRM Hub Sandbox", "firstname": "#", "lastname": "CRM Hub Sandbox", "isdisabled": False,
                "accessmode": 4, "applicationid": self.identity.client_id,
                "azureactivedirectoryobjectid": self.fixed("service principal"), **unit,
            }),
            (USER, self.person, {
                "fullname": "Sandbox Person", "firstname": "Sandbox", "lastname": "Person", "isdisabled": False,
                "accessmode": 0, "internalemailaddress": "person@sandbox.example", **unit,
            }),
            ("uomschedule", self.unit_group, {"name": "Default Unit", "baseuomname": "Primary Unit", **base}),
            ("uom", self.unit, {
                "name": "Primary Unit", "quantity": RATE, "isschedulebaseuom": True,
                "_uomscheduleid_value": self.unit_group, "_uomscheduleid_type": "uomschedule",
            }),
            ("pricelevel", self.prices, {
                "name": "Standard", **self.own_currency(), "statecode": 0, "statuscode": 100001,
            }),
        ]  # fmt: skip
        for table, key, values in rows:
            if self.store.get(table, key) is None:
                self.store.write(table, key, values)


def stamp(table: str, row: Row) -> None:
    """At commit: the columns that only the server writes."""
    entity = TABLES[table]
    values = row.values
    values[entity.key] = row.id
    values["versionnumber"] = row.version
    values["createdon"] = wire_time(row.created)
    values["modifiedon"] = wire_time(row.modified)
    if "activitytypecode" in entity.columns:
        values["activitytypecode"] = table
    if "fullname" in entity.columns:
        names = (values.get("firstname"), values.get("middlename"), values.get("lastname"))
        values["fullname"] = " ".join(v for v in names if v) or None
    for prefix in entity.composites:
        values[f"{prefix}composite"] = _composite(values, prefix)
    if entity.lines:
        stamp_line(entity, values)
    if table in LINES:
        stamp_document(entity, values)
    if "exchangerate" in entity.columns and "transactioncurrencyid" in entity.columns:
        _base_amounts(entity, values)


def _composite(values: Values, prefix: str) -> str | None:
    get: Callable[[str], str] = lambda name: values.get(prefix + name) or ""  # noqa: E731
    town = " ".join(v for v in (get("postalcode"), get("city")) if v)
    place = ", ".join(v for v in (town, get("stateorprovince")) if v)
    return (
        "\r\n".join(v for v in (get("line1"), get("line2"), get("line3"), place, get("country")) if v)[:1000]
        or None
    )


def _base_amounts(entity: Entity, values: Values) -> None:
    """Money columns come with their amount in the base currency; here there is one currency, rate 1."""
    used = False
    for base, name in entity.base_amounts:
        amount = values[base] = values.get(name)
        used = used or amount is not None
    if used and not values.get("_transactioncurrencyid_value"):
        values["_transactioncurrencyid_value"] = str(uuid.uuid5(NAMESPACE, "currency"))
        values["_transactioncurrencyid_type"] = "transactioncurrency"
    if values.get("_transactioncurrencyid_value"):
        values["exchangerate"] = RATE


class RowScope:
    """The properties of one table for filters and orders; paths lead over single-valued lookups."""

    def __init__(self, org: Org, entity: Entity) -> None:
        self._org = org
        self._entity = entity

    def now(self) -> datetime:
        return self._org.now()

    def property(self, path: str) -> tuple[Callable[[Values], Any], str]:
        head, _, rest = path.partition("/")
        if not rest:
            column = self._entity.by_wire.get(head)
            if column is None:
                raise no_property(head, self._entity.name)
            return (lambda values: values.get(head)), column.edm
        if head not in self._entity.navigation:
            raise no_property(head, self._entity.name)
        lookup, target = self._entity.navigation[head]
        inner, edm = RowScope(self._org, TABLES[target]).property(rest)
        rows = self._org.store.table(target).rows

        def follow(values: Values) -> Any:
            if values.get(lookup.type_key) != target:
                return None
            row = rows.get(values.get(lookup.wire, ""))
            return None if row is None else inner(row.values)

        return follow, edm
