"""Query options that are lists: names of fields, and orders. Their text parsed, the same wherever it stands."""

from dataclasses import dataclass

from crm_core.errors import BadRequest


@dataclass(frozen=True)
class Order:
    field: str
    descending: bool = False


def parse_names(text: str, parameter: str) -> tuple[str, ...]:
    """Names of fields; none for an empty text. Raises BadRequest that names the parameter."""
    names = tuple(part.strip() for part in text.split(",")) if text else ()
    if any(not name.replace("_", "").isalnum() for name in names):
        raise BadRequest.field(parameter, f"{parameter}: expected field names with commas between them.")
    return names


def parse_orders(text: str, parameter: str) -> tuple[Order, ...]:
    """Orders such as `name asc, revenue desc`; none for an empty text. Raises BadRequest that names the parameter."""
    orders = []
    for part in text.split(",") if text else ():
        name, _, direction = part.strip().partition(" ")
        if direction.strip().lower() not in ("", "asc", "desc") or not name.replace("_", "").isalnum():
            raise BadRequest.field(
                parameter, f"{parameter}: expected 'field' or 'field desc', with commas between them."
            )
        orders.append(Order(name, direction.strip().lower() == "desc"))
    return tuple(orders)
