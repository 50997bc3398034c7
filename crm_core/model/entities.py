"""The canonical entities, as data: read by validation, mapping, OpenAPI and the documentation."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from crm_core.model.fields import Field, Type

RESERVED = frozenset(
    [
        "id",
        "entity",
        "connection",
        "etag",
        "version",
        "links",
        "raw",
        "created",
        "deleted",
        "undone",
        "waiting",
    ]
)
"""Names beside the fields in a flat item; no field has one of them."""


@dataclass(frozen=True)
class Entity:
    """A canonical type. `path` is its plural in URLs."""

    name: str
    path: str
    fields: tuple[Field, ...]

    @cached_property
    def by_name(self) -> Mapping[str, Field]:
        return {field.name: field for field in self.fields}

    @cached_property
    def _references(self) -> tuple[Field, ...]:
        return tuple(each for each in self.fields if each.type in (Type.REF, Type.LINES))

    def with_references(
        self, fields: Mapping[str, Any], change: Callable[[str, str], Any]
    ) -> Mapping[str, Any]:
        """The fields with each reference, also of lines, as `change` gives it for (entity, id) that it leads to."""
        changed: dict[str, Any] = {}
        for each in self._references:
            value = fields.get(each.name)
            if value is None:
                continue
            if each.type is Type.LINES:
                changed[each.name] = [LINE.with_references(line, change) for line in value]
            else:
                target = fields.get(each.companion) if each.companion else each.targets[0]
                if target is not None:
                    changed[each.name] = change(target, value)
        return {**fields, **changed} if changed else fields


# --- short forms of the fields below ----------------------------------------------------------------------------------


def _fields(kind: Type, names: str) -> tuple[Field, ...]:
    """Fields of one type by their names; `!` after one: required on create."""
    return tuple(Field(name.rstrip("!"), kind, required=name.endswith("!")) for name in names.split())


def _text(names: str) -> tuple[Field, ...]:
    return _fields(Type.TEXT, names)


def _money(names: str) -> tuple[Field, ...]:
    return _fields(Type.MONEY, names)


def _dates(names: str) -> tuple[Field, ...]:
    return _fields(Type.DATE, names)


def _instants(names: str) -> tuple[Field, ...]:
    return _fields(Type.INSTANT, names)


def _choice(name: str, *choices: str) -> Field:
    return Field(name.rstrip("!"), Type.CHOICE, required=name.endswith("!"), choices=choices)


def _ref(name: str, *targets: str) -> tuple[Field, ...]:
    """A reference, with the companion that tells which entity it leads to where that can be several."""
    field = Field(name.rstrip("!"), Type.REF, required=name.endswith("!"), targets=targets)
    return (field, Field(field.companion, Type.CHOICE, choices=targets)) if field.companion else (field,)


def _prefixed(prefix: str, fields: tuple[Field, ...]) -> tuple[Field, ...]:
    return tuple(replace(field, name=f"{prefix}{field.name}") for field in fields)


_ADDRESS = _text("street street2 city state postal_code country")
_CUSTOMER = _ref("customer_id", "account", "contact")
_RATING = _choice("rating", "hot", "warm", "cold")
_ABOUT = _text("description owner_email")
_AMOUNTS = _money("subtotal discount tax shipping total")
_TWO_ADDRESSES = (*_prefixed("bill_", _ADDRESS), *_prefixed("ship_", _ADDRESS))

LINE = Entity(
    "line",
    "",
    (
        *_text("key"),
        *_ref("product_id", "product"),
        *_text("sku description"),
        Field("quantity", Type.DECIMAL),
        *_text("unit"),
        *_money("unit_price discount tax total"),
    ),
)
"""One of the `lines` of a document. `key`: the remote line's id, by which lines are compared."""
_LINES = Field("lines", Type.LINES, fields=LINE.fields)


def _entity(name: str, path: str, statuses: str, *fields: Field) -> Entity:
    """An entity with the fields that every one has; `statuses`: the names of its states, "" if it has none."""
    common = (
        *((_choice("status", *statuses.split()),) if statuses else ()),
        Field("status_reason", Type.TEXT, read_only=True),
        Field("created_at", Type.INSTANT, read_only=True),
        Field("updated_at", Type.INSTANT, read_only=True),
        Field("deleted_at", Type.INSTANT, read_only=True),
    )
    entity = Entity(name, path, (*fields, *common))
    assert not RESERVED & entity.by_name.keys()
    assert len(entity.by_name) == len(entity.fields)
    return entity


# --- people and companies ---------------------------------------------------------------------------------------------

ACCOUNT = _entity(
    "account",
    "accounts",
    "active inactive",
    *_text("name! number tax_id email phone website industry"),
    _choice("kind", "customer", "prospect", "partner", "supplier", "competitor", "other"),
    Field("employees", Type.INTEGER),
    *_money("annual_revenue"),
    *_text("currency"),
    *_ADDRESS,
    *_ref("parent_id", "account"),
    *_ref("primary_contact_id", "contact"),
    *_ABOUT,
)

CONTACT = _entity(
    "contact",
    "contacts",
    "active inactive",
    *_text("first_name last_name! email phone mobile job_title department"),
    *_dates("birthdate"),
    *_ADDRESS,
    *_ref("account_id", "account"),
    *_text("manychat_id"),
    *_ref("channel_id", "channel"),
    *_text("last_state"),
    Field("email_opt_out", Type.BOOLEAN),
    *_ABOUT,
)

# --- sales ------------------------------------------------------------------------------------------------------------

LEAD = _entity(
    "lead",
    "leads",
    "open qualified disqualified",
    *_text("subject first_name last_name! company email phone mobile job_title website source"),
    _RATING,
    *_money("estimated_value"),
    *_text("currency"),
    *_ADDRESS,
    *_ref("account_id", "account"),
    *_ref("contact_id", "contact"),
    *_ref("campaign_id", "campaign"),
    *_text("interest"),
    *_ABOUT,
)

OPPORTUNITY = _entity(
    "opportunity",
    "opportunities",
    "open won lost",
    *_text("name!"),
    *_ref("account_id", "account"),
    *_ref("contact_id", "contact"),
    *_money("amount"),
    *_text("currency"),
    *_dates("close_date"),
    Field("probability", Type.INTEGER),
    *_text("stage"),
    _RATING,
    *_text("source"),
    *_ref("lead_id", "lead"),
    *_ref("campaign_id", "campaign"),
    *_text("lost_reason"),
    *_ABOUT,
)

PRODUCT = _entity(
    "product",
    "products",
    "active inactive draft",
    *_text("name! sku!"),
    _choice("kind", "goods", "service", "bundle"),
    *_text("unit"),
    *_money("price cost"),
    *_text("currency category barcode description"),
)

QUOTE = _entity(
    "quote",
    "quotes",
    "draft active won lost",
    *_text("name! number"),
    *_CUSTOMER,
    *_ref("contact_id", "contact"),
    *_ref("opportunity_id", "opportunity"),
    *_dates("valid_from valid_until"),
    *_text("currency"),
    _LINES,
    *_AMOUNTS,
    *_TWO_ADDRESSES,
    *_ABOUT,
)

ORDER = _entity(
    "order",
    "orders",
    "draft open fulfilled invoiced canceled",
    *_text("name number"),
    *_CUSTOMER,
    *_ref("contact_id", "contact"),
    *_ref("quote_id", "quote"),
    *_ref("opportunity_id", "opportunity"),
    *_dates("date requested_delivery"),
    *_text("currency"),
    _LINES,
    *_AMOUNTS,
    *_TWO_ADDRESSES,
    *_ABOUT,
)

PURCHASE_ORDER = _entity(
    "purchase_order",
    "purchase-orders",
    "draft open received canceled",
    *_text("number"),
    *_ref("supplier_id", "account"),
    *_dates("date expected_date"),
    *_text("currency"),
    _LINES,
    *_AMOUNTS,
    *_text("description"),
)

INVOICE = _entity(
    "invoice",
    "invoices",
    "draft open paid canceled",
    *_text("name number"),
    *_CUSTOMER,
    *_ref("order_id", "order"),
    *_dates("date due_date"),
    *_text("currency"),
    _LINES,
    *_AMOUNTS,
    *_money("paid"),
    *_text("description"),
)

INVENTORY_ITEM = _entity(
    "inventory_item",
    "inventory-items",
    "",
    *_ref("product_id", "product"),
    *_text("sku warehouse"),
    *_fields(Type.DECIMAL, "on_hand reserved available"),
    *_text("unit"),
)

# --- service and activities -------------------------------------------------------------------------------------------

CASE = _entity(
    "case",
    "cases",
    "open resolved canceled",
    *_text("title!"),
    Field("number", Type.TEXT, read_only=True),
    *_ref("customer_id!", "account", "contact"),
    *_ref("contact_id", "contact"),
    _choice("origin", "phone", "email", "web", "social", "other"),
    _choice("kind", "question", "problem", "request"),
    _choice("priority", "low", "normal", "high"),
    *_text("description"),
    *_ref("product_id", "product"),
    *_text("resolution"),
    *_instants("due_at"),
    *_text("owner_email"),
)

ACTIVITY = _entity(
    "activity",
    "activities",
    "open done canceled",
    _choice("kind!", "task", "call", "email", "meeting", "note"),
    *_text("subject! description"),
    *_instants("starts_at due_at ends_at completed_at"),
    _choice("priority", "low", "normal", "high"),
    _choice("direction", "in", "out"),
    *_text("location"),
    Field("attendees", Type.CHOICES),
    *_ref(
        "regarding_id",
        *("account", "contact", "lead", "opportunity", "case", "quote", "order", "invoice", "campaign"),
    ),
    *_text("owner_email"),
)

# --- marketing --------------------------------------------------------------------------------------------------------

CAMPAIGN = _entity(
    "campaign",
    "campaigns",
    "planned active done canceled",
    *_text("name! kind"),
    *_dates("starts_on ends_on"),
    *_money("budget actual_cost expected_revenue"),
    *_text("currency"),
    *_ref("channel_id", "channel"),
    *_ABOUT,
)

CAMPAIGN_MEMBER = _entity(
    "campaign_member",
    "campaign-members",
    "active done",
    *_ref("campaign_id!", "campaign"),
    *_ref("contact_id!", "contact"),
    *_ref("commercial_advisor_id", "advisor"),
    *_ref("medical_advisor_id", "advisor"),
    *_instants("commercial_assigned_at medical_assigned_at"),
    *_text("last_state summary"),
    *_instants("responded_at"),
)

CHANNEL = _entity("channel", "channels", "active inactive", *_text("name! description"))

ADVISOR = _entity(
    "advisor",
    "advisors",
    "active inactive",
    *_text("name! email phone"),
    _choice("kind", "commercial", "medical"),
)

# --- appointments, visits and sales of a point of sale ----------------------------------------------------------------

APPOINTMENT = _entity(
    "appointment",
    "appointments",
    "planned done canceled no_show",
    *_ref("lead_id", "lead"),
    *_ref("contact_id", "contact"),
    *_instants("at!"),
    *_text("place project notes owner_email"),
)

VISIT = _entity(
    "visit",
    "visits",
    "done canceled",
    *_text("external_id!"),
    *_ref("contact_id", "contact"),
    *_instants("at!"),
    *_text("project acquisition_channel"),
    _choice("modality", "in_person", "virtual"),
    *_text("outcome notes customer_name! document_type document_number phone email street district"),
)

SALE = _entity(
    "sale",
    "sales",
    "open closed canceled",
    *_text("external_id"),
    *_ref("visit_id", "visit"),
    *_ref("contact_id", "contact"),
    *_text("project unit"),
    *_money("amount"),
    *_text("currency"),
    *_dates("date"),
)

ENTITIES: Mapping[str, Entity] = {
    entity.name: entity
    for entity in (
        *(ACCOUNT, CONTACT, LEAD, OPPORTUNITY, CASE, PRODUCT, ACTIVITY),
        *(QUOTE, ORDER, PURCHASE_ORDER, INVOICE, INVENTORY_ITEM),
        *(CAMPAIGN, CAMPAIGN_MEMBER, CHANNEL, ADVISOR, APPOINTMENT, VISIT, SALE),
    )
}
BY_PATH: Mapping[str, Entity] = {entity.path: entity for entity in ENTITIES.values()}
