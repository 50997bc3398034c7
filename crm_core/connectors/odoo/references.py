"""References that share a field of Odoo's with others, such as the account and the contact of one partner: emptied with care."""

from dataclasses import replace

from crm_core.connector import Change, Write
from crm_core.connectors.odoo.models.common import Model

OF_PARTNER = ("account", "contact")


def emptied(model: Model, write: Write) -> list[str]:
    """The references that a write empties and that share their field with what may lead to something else."""
    return [
        name
        for name, value in write.fields.items()
        if value is None
        and (each := model.by_field.get(name)) is not None
        and (each.kind_native or is_shared(each.native))
    ]


def is_shared(native: str) -> bool:
    return native.partition("/")[2] in OF_PARTNER


def spared(model: Model, write: Write, now: Change) -> Write:
    """A write without the references that it empties and that are empty for who reads them: nobody means what else is
    there.
    """
    told = now.fields or {}
    foreign = {name for name in emptied(model, write) if told.get(name) is None}
    fields = {name: value for name, value in write.fields.items() if name not in foreign}
    return replace(write, fields=fields)
