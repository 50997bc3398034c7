"""Faults of the order of I/O: pulls, pushes and what is kept between them (see mutants.py)."""

from dataclasses import replace
from datetime import timedelta

from crm_core.connectors.dynamics365 import feed
from crm_core.errors import VersionMismatch
from crm_core.model.matchkeys import match_key
from crm_core.model.record import Attempt
from crm_core.storage import records
from crm_core.storage.keys import Keys
from crm_core.storage.records import Tomb
from crm_core.sync import deletes, identity, merge, pull, push
from crm_core.sync.apply import Applier
from crm_core.sync.draft import Draft
from crm_core.sync.pushing import Pusher
from crm_core.sync.pushing import base as pushing_base
from crm_core.sync.references import References
from crm_core.sync.saving import write_of
from simulation.two_way import process
from simulation.two_way.servers import Server

# --- references and reads --------------------------------------------------------------------------------------------


def references_not_followed(patch):
    patch.setattr(References, "settled", lambda self, record, sides: record)


def row_read_after_the_remote(patch):
    decide = Applier._decide

    def planted(self, entry, stored, decided):
        if entry.looked is not None:
            stored = self.engine.records.get(self.tenant, self.entity.name, entry.id)
        decide(self, entry, stored, decided)

    patch.setattr(Applier, "_decide", planted)


# --- updates ---------------------------------------------------------------------------------------------------------


def inflight_not_saved(patch):
    note = Pusher._note_attempt

    def planted(self, task, draft, link, outward):
        note(self, task, draft, link, outward)
        link.inflight = {}

    patch.setattr(Pusher, "_note_attempt", planted)


def sent_again_without_a_look(patch):
    patch.setattr(Pusher, "_must_look", lambda self, task: False)


def update_without_if_match(patch):
    patch.setattr(Pusher, "_etag", lambda self, link: "")


def mismatch_clears_inflight(patch):
    """A 412 is taken for a proof that nothing of ours is there."""
    settled = Pusher._settled

    def planted(self, task, outcome, stored, record, again):
        if isinstance(outcome.error, VersionMismatch) and task.verb == "update":
            again.append(task.id)
            draft = Draft(record, self.config)
            draft.link(self.uid).inflight = {}
            return write_of(stored, draft.finished(), self._by())
        return settled(self, task, outcome, stored, record, again)

    patch.setattr(Pusher, "_settled", planted)


def mismatch_taken_for_a_write_without_effect(patch):
    patch.setattr(Pusher, "_came_too_late", lambda self, task, attempt: False)


def mismatch_never_counted(patch):
    """However often the remote refuses, the write goes again at once."""
    patch.setattr(Pusher, "_without_effect", lambda self, before, after: after)


def no_busy_wait(patch):
    """Neither when a record is taken up nor after a look; the one alone leaves the other to hold an update back."""
    busy = Pusher._is_busy
    patch.setattr(
        Pusher, "_is_busy", lambda self, link: busy(self, replace(link, attempt=None, deleting=None))
    )
    patch.setattr(Pusher, "_may_send", lambda self, task: True)


def late_begin(patch):
    patch.setattr(Pusher, "_may_begin", lambda self: True)


# --- creates ---------------------------------------------------------------------------------------------------------


def no_claim_before_a_create(patch):
    claim = Pusher._claim

    def planted(self, task, draft, link):
        claim(self, task, draft, link)
        link.state = "new"

    patch.setattr(Pusher, "_claim", planted)


def claim_not_looked_up(patch):
    patch.setattr(Pusher, "_take_up", lambda self, task, tasks, again: None)


def no_wait_for_the_index(patch):
    patch.setattr(merge, "later", lambda moment, seconds: moment)


def marker_not_heeded(patch):
    patch.setattr(identity, "is_being_made", lambda by, marker: False)


def own_id_without_redirect(patch):
    patch.setattr(records.Records, "redirect_many", lambda *_: None)


def own_id_redirected_after_the_create(patch):
    redirect, written = records.Records.redirect_many, Pusher._written
    kept = []
    patch.setattr(records.Records, "redirect_many", lambda self, *leads: kept.append((self, *leads)))

    def planted(self, tasks):
        results = written(self, tasks)
        while kept:
            redirect(*kept.pop())
        return results

    patch.setattr(Pusher, "_written", planted)


def redirect_after_the_link(patch):
    redirect, settle = Pusher._redirect, Pusher._settle

    def planted(self, results, again):
        kept = []
        with patch.context() as inner:
            inner.setattr(Pusher, "_redirect", lambda *leads: kept.append(leads))
            settle(self, results, again)
        for leads in kept:
            redirect(*leads)

    patch.setattr(Pusher, "_settle", planted)


def held_before_the_redirect_alone(patch):
    redirect = Pusher._redirect

    def planted(self, task, rid):
        hold, held = self.engine.held.hold, []

        def once(*about):
            if not held:
                hold(*about)
            held.append(about)

        self.engine.held.hold = once
        try:
            redirect(self, task, rid)
        finally:
            self.engine.held.hold = hold

    patch.setattr(Pusher, "_redirect", planted)


def redirect_tried_once(patch):
    patch.setattr(pushing_base, "REDIRECT_TRIES", 1)


def no_redirect(patch):
    patch.setattr(Pusher, "_redirect", lambda self, task, rid: None)


def key_looked_up_instead_of_claimed(patch):
    def planted(self, tenant, entity, key, record_id):
        held = self.match_of(tenant, entity, key)
        if held is None:
            row = _row(tenant, entity, key, record_id)
            self._table.upsert("keys", row)
        return held or record_id

    from crm_core.storage.keys import _match_row as _row

    patch.setattr(Keys, "claim_match", planted)


def key_freed_before_the_record_is_written(patch):
    given_up = identity.given_up

    def planted(engine, *about):
        identity.free(engine, given_up(engine, *about))
        return []

    patch.setattr(identity, "given_up", planted)


def key_freed_that_the_record_has_again(patch):
    patch.setattr(Keys, "free_match", lambda self, claim: self._table.delete("keys", claim.pk, claim.rk))


def no_search_before_a_create(patch):
    patch.setattr(Pusher, "_searched_first", lambda self, tasks, again: tasks)


def no_full_pull_first(patch):
    begin = push.Pusher.__init__

    def planted(self, *args, loaded, **more):
        begin(self, *args, loaded=True, **more)

    patch.setattr(push.Pusher, "__init__", planted)


def adopted_while_it_is_being_created(patch):
    """A row of another's with the record's key takes the place of the one that is being made."""
    decide = Applier._decide_known

    def planted(self, entry, stored, record, decided):
        link = record.links.get(self.uid)
        if link is not None and link.state == "creating":
            record = record.with_link(self.uid, replace(link, state="new"))
        decide(self, entry, stored, record, decided)

    patch.setattr(Applier, "_decide_known", planted)


def merged_into_the_record_at_its_own_id(patch):
    """A row is merged into the record that has its derived id, though that one is another row's."""
    decide = Applier._decide_known

    def planted(self, entry, stored, record, decided):
        own = stored.id == self.record_id(entry.rid)
        decide(self, replace(entry, beside=record.id) if own else entry, stored, record, decided)

    patch.setattr(Applier, "_decide_known", planted)


def former_id_ignored_for_ever(patch):
    double = Applier._double

    def planted(self, entry, beside, decided):
        stored = self.engine.records.get(self.tenant, self.entity.name, entry.beside)
        if entry.rid not in stored.content.links[self.uid].former:
            double(self, entry, beside, decided)

    patch.setattr(Applier, "_double", planted)


def hold_forgotten(patch):
    patch.setattr(Applier, "_hold", lambda self, *about: None)


# --- deletes ---------------------------------------------------------------------------------------------------------


def delete_not_noted(patch):
    """A delete is sent without `deleting` in the link."""
    gone = Pusher._settled

    def unnoted(self, task, outcome, stored, record, again):
        link = record.links[self.uid]
        if task.verb == "delete":
            record = record.with_link(self.uid, replace(link, deleting=Attempt(task.token, "", link.ver)))
        return gone(self, task, outcome, stored, record, again)

    note = Pusher._note_attempt

    def planted(self, task, draft, link, outward):
        note(self, task, draft, link, outward)
        link.deleting = None

    patch.setattr(Pusher, "_note_attempt", planted)
    patch.setattr(Pusher, "_settled", unnoted)


def delete_of_another_id(patch):
    """A delete that leads to a record is applied to its link, whichever row it is of."""
    decide = Applier._decide_known

    def planted(self, entry, stored, record, decided):
        link, snapshot = record.links.get(self.uid), entry.newest
        deleted = snapshot.change.fields is None and not snapshot.hint
        if not deleted or link is None or link.state != "live" or link.rid == entry.rid:
            decide(self, entry, stored, record, decided)
            return
        merged = deletes.gone(record, self.side, self.config, link.rid, snapshot.hi)
        self._plan(entry, stored, record, merged, decided)

    patch.setattr(Applier, "_decide_known", planted)


def delete_without_if_match(patch):
    note = Pusher._note_attempt

    def planted(self, task, draft, link, outward):
        note(self, task, draft, link, outward)
        if task.verb == "delete":
            task.write = replace(task.write, if_match="")

    patch.setattr(Pusher, "_note_attempt", planted)


def delete_without_a_look(patch):
    look = Pusher._must_look

    def planted(self, task):
        link = self._link(task)
        opened = link.attempt is not None or link.deleting is not None
        return look(self, task) and (opened or not task.record.dead)

    patch.setattr(Pusher, "_must_look", planted)


def no_tomb(patch):
    decide = Applier._decide

    def planted(self, entry, stored, decided):
        if stored is not None and isinstance(stored.content, Tomb):
            stored = None
        before = len(decided.writes)
        decide(self, entry, stored, decided)
        decided.writes[before:] = [
            each for each in decided.writes[before:] if not isinstance(each[0].after, Tomb)
        ]

    patch.setattr(Applier, "_decide", planted)


def tomb_replaced_without_a_look(patch):
    redirect = Pusher._redirect

    def planted(self, task, rid):
        kept, self.engine.held.hold = self.engine.held.hold, lambda *_: None
        try:
            redirect(self, task, rid)
        finally:
            self.engine.held.hold = kept

    patch.setattr(Pusher, "_redirect", planted)


def match_to_a_dead_record_makes_a_new_one(patch):
    place = identity.place

    def planted(by, own_id, tomb, snapshot):
        name, entity = by.side.sync.match, by.side.entity.name
        key = match_key(name, snapshot.change.fields.get(name))
        holder = by.engine.keys.match_of(by.tenant, entity, key) if key else None
        found = by.engine.records.find(by.tenant, entity, holder) if holder else None
        dead = found is not None and found.dead
        return own_id if dead else place(by, own_id, tomb, snapshot)

    patch.setattr(identity, "place", planted)


def taken_for_a_double_without_a_look(patch):
    """The record's row is believed to live, whether its delete was read or not."""
    look = Applier._look

    def planted(self, entries):
        asked = [each for each in entries if each.snapshot.lo]
        believed = [
            replace(each, looked=replace(each.snapshot, change=replace(each.snapshot.change, fields={})))
            for each in entries
            if not each.snapshot.lo
        ]
        return look(self, asked) + believed

    patch.setattr(Applier, "_look", planted)


# --- pulls -----------------------------------------------------------------------------------------------------------


def checkpoint_before_the_page(patch):
    apply_batch, checkpoint = pull.Puller._apply, pull.Puller._checkpoint

    def held_back(self, batch, applier):
        self.held_back = list(batch)

    def first(self, applier, cursor):
        checkpoint(self, applier, cursor)
        if batch := self.__dict__.pop("held_back", None):
            apply_batch(self, batch, applier)

    patch.setattr(pull.Puller, "_apply", held_back)
    patch.setattr(pull.Puller, "_checkpoint", first)


def no_overlap(patch):
    patch.setattr(feed, "OVERLAP", timedelta(0))


# --- open items ------------------------------------------------------------------------------------------------------


def item_not_in_the_records_transaction(patch):
    operations = records._operations
    patch.setattr(
        records,
        "_operations",
        lambda pk, write: [
            each
            for each in operations(pk, write)
            if not (each.kind == "insert" and each.row.rk.startswith("~"))
        ],
    )


def item_not_deleted_with_the_work(patch):
    operations = records._operations
    patch.setattr(
        records,
        "_operations",
        lambda pk, write: [each for each in operations(pk, write) if each.kind != "delete"],
    )


# --- feeds, one-way fields, messages -----------------------------------------------------------------------------------


def feed_without_an_overlap(patch):
    place = Server._place

    def planted(self, cursor):
        since, _ = place(self, cursor and {**cursor, "low": cursor.get("since")})
        return since, since

    patch.setattr(Server, "_place", planted)


def inward_field_written(patch):
    made = process.side_of

    def planted(*about):
        side = made(*about)
        return replace(side, writes=side.writes | (side.reads & {"phone"})) if side.writes else side

    patch.setattr(process, "side_of", planted)


def widened_without_what_is_never_told(patch):
    made = process.side_of
    patch.setattr(process, "side_of", lambda *about: replace(made(*about), untold=frozenset()))


def a_message_for_each_bucket(patch):
    wake = push.wake

    def planted(engine, tenant, entity, places, kind="push"):
        for place in [*places] * 4:
            wake(engine, tenant, entity, [place], kind)

    patch.setattr(push, "wake", planted)
