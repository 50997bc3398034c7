"""Where references lead once a run is undone: to a record that lives, or to one that the same undo brings back to life."""

from collections.abc import Collection
from dataclasses import dataclass, field

from crm_core.model.connection import Tenant
from crm_core.model.entities import ENTITIES
from crm_core.model.record import Record
from crm_core.sync.engine import Engine
from crm_core.sync.undoing.deciding import revives


@dataclass
class Leading:
    """`Leads` for a page of records: many refer to the same few. `runs`: those that are undone."""

    engine: Engine
    tenant: Tenant
    runs: Collection[str]
    _known: dict[tuple[str, str], str] = field(default_factory=dict)

    def __call__(self, entity: str, record_id: str) -> str:
        known = self._known.get((entity, record_id))
        if known is None:
            record = self.engine.records.find(self.tenant, entity, record_id)
            known = record.id if record is not None and self._lives(record) else ""
            self._known[entity, record_id] = known
        return known

    def _lives(self, record: Record) -> bool:
        if not record.dead:
            return True
        steps = list(self.engine.records.history(self.tenant, record.entity, record.id))
        return revives(record, steps, self.runs, ENTITIES[record.entity])
