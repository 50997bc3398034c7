"""What the server makes of quotes, orders and invoices: numbers, the amounts of lines, and the totals of documents."""

from datetime import datetime
from decimal import ROUND_HALF_UP, Decimal
from typing import TYPE_CHECKING

from sandbox.dynamics365 import errors
from sandbox.dynamics365.errors import Refused
from sandbox.dynamics365.schema import LINES, TABLES, Entity
from sandbox.store import Row, Values

if TYPE_CHECKING:
    from sandbox.dynamics365.org import Org

CENT = Decimal("0.01")
WIRE = Decimal("0.0001")  # money is stored, and sent, with four decimals
NONE = Decimal("0.0000")
MISSING_QUANTITY, MISSING_PRICE = 4, 5  # pricing errors
LETTERS = "0123456789ABCDEFGHJKLMNPQRSTVWXYZ"


def money(value: Decimal) -> Decimal:
    """An amount as stored: rounded to the currency's two decimals, kept with four."""
    return value.quantize(CENT, ROUND_HALF_UP).quantize(WIRE)


def numbered(org: "Org", entity: Entity, key: str, patch: Values) -> None:
    """Give a new row the number that the server counts up, unless it brings its own."""
    if entity.number is None or patch.get(entity.number[0]):
        return
    table = org.store.table(entity.name)
    count = 1000 + len(table.rows) + len(table.dead)
    mark = int(key.replace("-", "")[-10:], 16)
    suffix = "".join(LETTERS[mark // len(LETTERS) ** n % len(LETTERS)] for n in range(6))
    patch[entity.number[0]] = f"{entity.number[1]}-{count:05d}-{suffix}"


def check_line(org: "Org", entity: Entity, patch: Values, row: Row | None) -> None:
    """A line is of a product in a unit, at the product's price unless told otherwise, or of something described."""
    if not entity.lines:
        return
    values = {**(row.values if row is not None else {}), **patch}
    parent = _parent(org, entity, values)
    if parent is not None and parent.values["statecode"] in TABLES[_table(entity)].states.closed:
        raise Refused(
            400, errors.CLOSED, f"The {_table(entity)} of this line is closed and cannot be changed."
        )
    if values.get("isproductoverridden"):
        if not values.get("productdescription"):
            raise Refused(400, errors.INVALID, "The product description of a write-in product is missing.")
        return
    product = org.store.get("product", values.get("_productid_value") or "")
    if product is None:
        raise Refused(400, errors.INVALID, "You must select a product, or describe it as a write-in product.")
    if not values.get("_uomid_value"):
        raise Refused(400, errors.INVALID, "The unit id is missing.")
    if not values.get("ispriceoverridden") and product.values.get("price") is not None:
        patch["priceperunit"] = product.values["price"]
    patch["productname"] = product.values.get("name")


def _table(line: Entity) -> str:
    return next(iter(line.columns[line.lines].targets))


def _parent(org: "Org", line: Entity, values: Values) -> Row | None:
    return org.store.get(_table(line), values.get(line.columns[line.lines].wire) or "")


def stamp_line(entity: Entity, values: Values) -> None:
    """At commit: the amounts of one line."""
    quantity, price = values.get("quantity"), values.get("priceperunit")
    values["pricingerrorcode"] = (
        MISSING_QUANTITY if quantity is None else MISSING_PRICE if price is None else 0
    )
    base = money((quantity or NONE) * (price or NONE))
    values["baseamount"] = base
    values["volumediscountamount"] = NONE
    values["extendedamount"] = (
        base - (values.get("manualdiscountamount") or NONE) + (values.get("tax") or NONE)
    )
    values[entity.primary_name] = (values.get("productname") or values.get("productdescription") or "")[
        : entity.columns[entity.primary_name].length
    ]


def stamp_document(entity: Entity, values: Values) -> None:
    """At commit: the totals that follow from the sums over the lines and from the document's own discount."""
    lines = values.setdefault("totallineitemamount", NONE)
    values.setdefault("totallineitemdiscountamount", NONE)
    tax = values.setdefault("totaltax", NONE)
    part = money(lines * (values.get("discountpercentage") or NONE) / 100)
    discount = part + (values.get("discountamount") or NONE)
    values["totaldiscountamount"] = discount
    values["totalamountlessfreight"] = lines - discount
    values["totalamount"] = lines - discount + (values.get("freightamount") or NONE) + tax
    if entity.name == "opportunity" and values.get("isrevenuesystemcalculated"):
        values["estimatedvalue"] = values["totalamount"]


def add_up(org: "Org", line: Entity, values: Values, by: Values, at: datetime | None, lag: float) -> None:
    """Write the sums over the lines into the document of a line that has just been written or deleted."""
    target = _table(line)

    def write() -> None:
        parent = _parent(org, line, values)
        if parent is not None:
            org.store.write(target, parent.id, {**sums(org, target, parent.id), **by}, at=at)

    if lag:
        org.store.later(lag, write)
    else:
        write()


def sums(org: "Org", table: str, key: str) -> Values:
    """The sums over the lines of one document."""
    line, lookup = LINES[table]
    return totals([r.values for r in org.store.table(line.name).where(lookup.wire, key)])


def totals(lines: list[Values]) -> Values:
    """The sums over lines whose amounts are there."""
    discounts = [v.get("manualdiscountamount") or NONE for v in lines]
    return {
        "totallineitemamount": sum((v["baseamount"] for v in lines), NONE) - sum(discounts, NONE),
        "totallineitemdiscountamount": sum(discounts, NONE),
        "totaltax": sum((v.get("tax") or NONE for v in lines), NONE),
    }
