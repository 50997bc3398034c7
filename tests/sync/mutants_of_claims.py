"""Faults of creates that nothing but their values identifies (see mutants.py)."""

from dataclasses import replace

from crm_core.connector import Connector
from crm_core.model.record import Record
from crm_core.storage import held
from crm_core.storage.held import Held
from crm_core.sync import identity, pull, push, resolving
from crm_core.sync.apply import Applier
from crm_core.sync.pushing import Pusher, unmarked


def unknown_rows_not_held(patch):
    patch.setattr(Applier, "_claims", lambda self: [])


def claims_read_before_the_page(patch):
    fetch, claims = pull.Puller._fetch, Applier._claims
    read = {}

    def planted(self, cursor):
        held = self.engine.held.claims(self.job.tenant, self.job.connection, self.job.entity)
        read[self.job.connection, self.job.entity] = held
        return fetch(self, cursor)

    def remembered(self):
        return read[self.uid, self.entity.name] if self.run else claims(self)

    patch.setattr(pull.Puller, "_fetch", planted)
    patch.setattr(Applier, "_claims", remembered)


def claimed_after_the_create(patch):
    claim, written = Pusher._claim_unmarked, Pusher._written
    patch.setattr(Pusher, "_claim_unmarked", lambda self, tasks: None)

    def planted(self, tasks):
        results = written(self, tasks)
        claim(self, tasks)
        return results

    patch.setattr(Pusher, "_written", planted)


def held_forgotten_when_a_create_is_settled(patch):
    release = Held.release

    def planted(self, claims):
        release(self, claims)
        for each in claims:
            table, pk = self._table, each.row.pk
            for row in table.query("events", pk=pk, rk=f"{each.entity}~", rk_to=f"{each.entity}~~").rows:
                if "~!" not in row.rk:
                    table.delete("events", pk, row.rk)

    patch.setattr(Held, "release", planted)


def claim_kept(patch):
    patch.setattr(Held, "release", lambda self, claims: None)


def whatever_is_new_waits_for_every_claim(patch):
    for module in (identity, push):
        patch.setattr(module, "may_have_made", lambda claims, seen: bool(claims))


def claimed_where_it_bears_a_mark(patch):
    patch.setattr(Connector, "found_by", classmethod(lambda cls, entity: ""))


def made_again_without_comparing(patch):
    patch.setattr(Pusher, "_strangers", lambda self, tasks: unmarked.Strangers())


def first_of_several_taken(patch):
    settle = Pusher._settle_unmarked

    def planted(self, task, strangers, tasks, again):
        link = self._link(task)
        first = [each for each in strangers.rows if self._is_as_sent(link, each[0])][:1]
        strangers.rows = first or strangers.rows
        settle(self, task, strangers, tasks, again)

    patch.setattr(Pusher, "_settle_unmarked", planted)


def changed_row_taken_for_anothers(patch):
    patch.setattr(Pusher, "_resembles", lambda self, link, snapshot: False)


def every_row_asked_about(patch):
    patch.setattr(Pusher, "_resembles", lambda self, link, snapshot: True)


def redirect_alone_does_not_tell(patch):
    strangers = Pusher._strangers
    patch.setattr(Pusher, "_strangers", lambda self, tasks: replace(strangers(self, tasks), led={}))


def question_of_a_dead_worker_forgotten(patch):
    strangers = Pusher._strangers
    patch.setattr(Pusher, "_strangers", lambda self, tasks: replace(strangers(self, tasks), asked={}))


def claim_made_once_more_is_a_new_one(patch):
    patch.setattr(held, "_claim", lambda tenant, claim, before, real=held._claim: real(tenant, claim, None))


def row_that_is_asked_about_not_held(patch):
    patch.setattr(Pusher, "_keep_in_sight", lambda self, rid: None)


def rows_of_what_is_only_written_become_records(patch):
    def planted(self, task, rows, tasks, again):
        self._ask_which(task, self._kept_apart(task, rows), tasks, again)

    patch.setattr(Pusher, "_unsure", planted)


def old_rows_compared_too(patch):
    """Of a system that is only written whatever it has is taken for new."""
    patch.setattr(unmarked, "SINCE_MARGIN_SECONDS", 1e6)


def taken_up_with_a_newer_row(patch):
    """What was compared is merged into a record that has moved on since."""
    adopt = Pusher._adopt

    def planted(self, task, snapshot, tasks, again):
        stored = self.engine.records.get(self.tenant, self.entity.name, task.id)
        assert isinstance(stored.content, Record)
        task.stored, task.record = stored, stored.content
        adopt(self, task, snapshot, tasks, again)

    patch.setattr(Pusher, "_adopt", planted)


def parked_with_an_open_create(patch):
    patch.setattr(Pusher, "_is_outcome_open", lambda self, record: False)


def asked_of_each_record(patch):
    patch.setattr(resolving, "_answer_the_other", lambda editor, conflict: None)


def the_later_record_stays(patch):
    patch.setattr(
        resolving, "_in_order", lambda editor, conflict: (conflict.record.id, conflict.about["record"])
    )
