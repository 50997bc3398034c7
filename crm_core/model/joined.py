"""What a delivery can tell beside a record's own fields: its id, the time of the event, and fields of the records that its
references lead to. Pure.
"""

from collections.abc import Iterable, Mapping
from dataclasses import replace

from crm_core.model.entities import ENTITIES, Entity
from crm_core.model.fields import Field, Type

ID, EVENT_TIME = "id", "event_time"
_OWN = {ID: Type.TEXT, EVENT_TIME: Type.INSTANT}


def joined(entity: Entity, name: str) -> Field | None:
    """The field that such a name means, `lead_id.email` one of the lead that lead_id leads to; None for any other name."""
    if name in _OWN:
        return Field(name, _OWN[name])
    reference, _, inner = name.partition(".")
    kind = entity.by_name.get(reference)
    if kind is None or kind.type is not Type.REF or len(kind.targets) != 1:
        return None
    found = ENTITIES[kind.targets[0]].by_name.get(inner)
    if found is None or found.type in (Type.REF, Type.LINES, Type.CHOICES):
        return None
    return replace(found, name=name, required=False, read_only=False)


def references(entity: Entity, names: Iterable[str]) -> Mapping[str, str]:
    """The references that have to be followed for these names, each with the entity that it leads to."""
    found = dict.fromkeys(name.partition(".")[0] for name in names if "." in name)
    return {name: entity.by_name[name].targets[0] for name in found}
