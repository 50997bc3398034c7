"""Models that have something of their own; all others are ``orm.BaseModel``."""

from sandbox.odoo.models import activity, automation, crm, metadata, partner, product, sale, stock, users
from sandbox.odoo.orm import BaseModel


def classes() -> dict[str, type[BaseModel]]:
    """Model -> class; the empty name is for every other model."""
    found: dict[str, type[BaseModel]] = {"": BaseModel}
    for module in (activity, automation, crm, metadata, partner, product, sale, stock, users):
        found |= module.CLASSES
    return found
