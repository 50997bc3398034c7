"""Faults of deliveries (see mutants.py)."""

import uuid
from dataclasses import replace

from crm_core.ports import Operation, Row
from crm_core.storage import layout, records
from crm_core.storage.deliveries import Deliveries
from crm_core.storage.records import Records
from crm_core.sync import deliver, saving


def version_without_its_event(patch):
    """What a write did is told of new records alone."""
    told = saving._with_event
    patch.setattr(
        saving, "_with_event", lambda write, receivers: write if write.before else told(write, receivers)
    )


def event_not_in_the_records_transaction(patch):
    """It is written after the record."""
    commit = Records.commit

    def planted(self, tenant, entity, bucket, writes, result):
        result = commit(self, tenant, entity, bucket, [replace(each, event=None) for each in writes], result)
        by_id = {each.id: each for each in writes_kept}
        for written in result.written:
            write = by_id[written.id]
            for uid in write.tells:
                rk = layout.event_item_rk(uid, write.id, write.event.version)
                values = records._packed({"v": 1, **write.event.to_json()})
                pk = layout.records_pk(tenant, entity, bucket)
                self._table.transact(layout.RECORDS, [Operation("insert", Row(pk, rk, values))])
        return result

    writes_kept = []

    def keeping(self, tenant, entity, bucket, writes, result=None):
        writes = list(writes)
        writes_kept.extend(writes)
        return planted(self, tenant, entity, bucket, writes, result)

    patch.setattr(Records, "commit", keeping)


def event_deleted_before_its_delivery(patch):
    events = Records.events

    def planted(self, tenant, entity, bucket, connection):
        found = list(events(self, tenant, entity, bucket, connection))
        self.close_events(tenant, entity, bucket, connection, found)
        yield from found

    patch.setattr(Records, "events", planted)


def event_kept_after_its_delivery(patch):
    patch.setattr(Records, "close_events", lambda *_: None)


def only_the_newest_version_is_told(patch):
    events = Records.events
    patch.setattr(
        Records, "events", lambda *place: iter({each.record: each for each in events(*place)}.values())
    )


def delivery_with_another_id_each_time(patch):
    patch.setattr(layout, "delivery_id", lambda *_: f"{layout.delivery_time(0)}-{uuid.uuid4()}")


def delivery_sent_by_whoever_has_its_message(patch):
    """Nobody says that he is at it."""
    save = Deliveries.save

    def planted(self, tenant, connection, before, after):
        return (
            before
            if after.tries == before.tries and after.state == "open"
            else save(self, tenant, connection, before, after)
        )

    patch.setattr(Deliveries, "save", planted)


def newer_version_sent_beside_an_older_one(patch):
    patch.setattr(deliver._Portion, "_at_work", lambda self, ids: [])


def delivery_that_the_tick_does_not_find(patch):
    patch.setattr(Deliveries, "due", lambda *_: iter(()))


def delivery_given_up_after_the_first_failure(patch):
    patch.setattr(deliver, "delivery_delay", lambda tries, asked=None: None)
