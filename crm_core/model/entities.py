"""The canonical entities, as data: read by validation, mapping, OpenAPI and the documentation."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

from crm_core.model.fields import Field, Type

RESERVED = frozenset({"id", "entity", "connection", "etag", "version", "links", "raw", "created", "deleted"})
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


def _text(*names: str) -> tuple[Field, ...]:
    return tuple(Field(name, Type.TEXT) for name in names)


_ADDRESS = _text("street", "street2", "city", "state", "postal_code", "country")


def _entity(name: str, path: str, statuses: tuple[str, ...], *fields: Field) -> Entity:
    """An entity with the fields that every one has."""
    common = (
        Field("status", Type.CHOICE, choices=statuses),
        Field("status_reason", Type.TEXT, read_only=True),
        Field("created_at", Type.INSTANT, read_only=True),
        Field("updated_at", Type.INSTANT, read_only=True),
        Field("deleted_at", Type.INSTANT, read_only=True),
    )
    entity = Entity(name, path, (*fields, *common))
    assert not RESERVED & entity.by_name.keys()
    return entity


ACCOUNT = _entity(
    "account",
    "accounts",
    ("active", "inactive"),
    Field("name", Type.TEXT, required=True),
    *_text("number", "tax_id", "email", "phone", "website", "industry"),
    Field(
        "kind", Type.CHOICE, choices=("customer", "prospect", "partner", "supplier", "competitor", "other")
    ),
    Field("employees", Type.INTEGER),
    Field("annual_revenue", Type.MONEY),
    *_text("currency"),
    *_ADDRESS,
    Field("parent_id", Type.REF, target="account"),
    Field("primary_contact_id", Type.REF, target="contact"),
    *_text("description", "owner_email"),
)

CONTACT = _entity(
    "contact",
    "contacts",
    ("active", "inactive"),
    Field("first_name", Type.TEXT),
    Field("last_name", Type.TEXT, required=True),
    *_text("email", "phone", "mobile", "job_title", "department"),
    Field("birthdate", Type.DATE),
    *_ADDRESS,
    Field("account_id", Type.REF, target="account"),
    *_text("manychat_id"),
    Field("channel_id", Type.REF, target="channel"),
    *_text("last_state"),
    Field("email_opt_out", Type.BOOLEAN),
    *_text("description", "owner_email"),
)

ENTITIES: Mapping[str, Entity] = {entity.name: entity for entity in (ACCOUNT, CONTACT)}
BY_PATH: Mapping[str, Entity] = {entity.path: entity for entity in ENTITIES.values()}
