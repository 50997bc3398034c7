"""Faults of sync in both directions, to be planted one by one: each has to be found by a seed of the simulation.

Each takes pytest's monkeypatch. The names are those of the rules that it breaks (docs/sync.md).
"""

from dataclasses import replace

from crm_core.model import record as records_of
from crm_core.model.record import Record
from crm_core.storage import records
from crm_core.storage.keys import Keys
from crm_core.storage.records import Tomb
from crm_core.sync import apply, deletes, identity, merge, push
from crm_core.sync.apply import Applier
from crm_core.sync.draft import Draft, LinkDraft
from crm_core.sync.merge import Verdict
from crm_core.sync.pushing import Pusher, pusher
from crm_core.sync.references import References
from crm_core.sync.sides import Side
from simulation.two_way import remotes

# --- the merge -------------------------------------------------------------------------------------------------------


def wrong_base(patch):
    patch.setattr(LinkDraft, "held", lambda self, name, ours: ours)


def no_echo_on_read(patch):
    landed = merge._landed

    def planted(draft, link, side, name, theirs):
        landed(draft, link, side, name, theirs)
        link.echo.pop(name, None)

    patch.setattr(merge, "_landed", planted)


def echo_not_saved(patch):
    settle = merge._settle

    def planted(draft, link, side, name, sent, fields):
        settle(draft, link, side, name, sent, fields)
        link.echo.pop(name, None)

    patch.setattr(merge, "_settle", planted)


def echo_taken_for_an_unsent_edit(patch):
    patch.setattr(LinkDraft, "is_behind", lambda self, side, name: name in self.behind or name in self.echo)


def settle_ignores_that_ours_changed(patch):
    settle = merge._settle

    def planted(draft, link, side, name, sent, fields):
        settle(draft, link, side, name, sent, fields)
        link.behind.pop(name, None)

    patch.setattr(merge, "_settle", planted)


def no_canon(patch):
    patch.setattr(Side, "canon", lambda self, name, value: value)


def there_and_back_while_it_is_on_its_way(patch):
    tidy = Draft.tidy

    def planted(self, link, side):
        kept, link.inflight = link.inflight, {}
        tidy(self, link, side)
        link.inflight = kept

    patch.setattr(Draft, "tidy", planted)


def references_not_followed(patch):
    patch.setattr(References, "settled", lambda self, record, sides: record)


def echo_kept_when_a_connection_widens(patch):
    patch.setattr(Draft, "_widen", lambda *_: None)


def skip_takes_the_other_fields(patch):
    ask = merge._ask

    def planted(draft, link, side, snapshot, name):
        ask(draft, link, side, snapshot, name)
        if side.policy(name) == "skip":
            link.put(side, name, link.conflict.pop(name)["base"])  # waits for a later snapshot

    patch.setattr(merge, "_ask", planted)


# --- the guard -------------------------------------------------------------------------------------------------------


def _guarded(patch, change):
    guard = merge.guard

    def planted(record, side, snapshot, *, lag=0.0):
        return change(guard(record, side, snapshot, lag=lag), record, side, snapshot)

    patch.setattr(merge, "guard", planted)


def no_guard(patch):
    _guarded(patch, lambda *_: Verdict.MERGE)


def opaque_version_trusted(patch):
    skip, take = Verdict.SKIP, Verdict.MERGE
    patch.setattr(
        merge, "_guard_opaque", lambda link, shot, _: skip if shot.change.version == link.ver else take
    )


def tie_skipped(patch):
    def change(verdict, record, side, snapshot):
        link = record.links.get(side.uid)
        tie = link is not None and link.ver == snapshot.change.version and side.versions == "coarse"
        return Verdict.SKIP if tie and not snapshot.point_read else verdict

    _guarded(patch, change)


def older_version_not_skipped(patch):
    def change(verdict, record, side, snapshot):
        older = verdict is Verdict.SKIP and snapshot.change.version != record.links[side.uid].ver
        return Verdict.MERGE if older else verdict

    _guarded(patch, change)


def dead_not_read_again(patch):
    def change(verdict, record, side, snapshot):
        alive = snapshot.change.fields is not None
        return Verdict.MERGE if record.dead and alive and verdict is Verdict.LOOK else verdict

    _guarded(patch, change)


def row_read_after_the_remote(patch):
    decide = Applier._decide

    def planted(self, entry, stored, decided):
        if entry.looked is not None:
            stored = self.engine.records.get(self.tenant, self.entity.name, entry.id)
        decide(self, entry, stored, decided)

    patch.setattr(Applier, "_decide", planted)


def settle_over_a_newer_read(patch):
    patch.setattr(merge, "settles", lambda link, side, version: link.attempt is not None)


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


def no_busy_wait(patch):
    busy = Pusher._is_busy
    patch.setattr(
        Pusher, "_is_busy", lambda self, link: busy(self, replace(link, attempt=None, deleting=None))
    )


def late_begin(patch):
    patch.setattr(Pusher, "_may_begin", lambda self: True)


def rejected_value_sent_again(patch):
    sendable = records_of.is_sendable

    def planted(record, link, name):
        return sendable(record, replace(link, refused={}), name)

    patch.setattr(records_of, "is_sendable", planted)
    patch.setattr(pusher, "is_sendable", planted)


def _kept_after_an_edit(patch, *names):
    set_value = Draft.set_value

    def planted(self, name, value, origin, time):
        kept = {uid: {each: dict(getattr(self.link(uid), each)) for each in names} for uid in self._uids()}
        set_value(self, name, value, origin, time)
        for uid, values in kept.items():
            if uid != origin:
                for each, value_then in values.items():
                    setattr(self.link(uid), each, value_then)

    patch.setattr(Draft, "set_value", planted)


def parked_kept_after_an_edit(patch):
    _kept_after_an_edit(patch, "parked")


def refused_kept_after_an_edit(patch):
    _kept_after_an_edit(patch, "refused")


def waits_kept_after_an_edit(patch):
    _kept_after_an_edit(patch, "waits")


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
    made = remotes.connector_class

    def planted(letter):
        kind = made(letter)
        kind.index_lag_seconds = 0.0
        return kind

    patch.setattr("simulation.two_way.world.connector_class", planted)


def marker_not_heeded(patch):
    patch.setattr(identity, "is_being_made", lambda by, marker: False)


def own_id_without_redirect(patch):
    patch.setattr(records.Records, "redirect_many", lambda *_: None)


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


def no_search_before_a_create(patch):
    patch.setattr(Pusher, "_searched_first", lambda self, tasks, again: tasks)


def no_full_pull_first(patch):
    begin = push.Pusher.__init__

    def planted(self, *args, loaded, **more):
        begin(self, *args, loaded=True, **more)

    patch.setattr(push.Pusher, "__init__", planted)


def hold_forgotten(patch):
    patch.setattr(Applier, "_hold", lambda self, rid: None)


# --- deletes ---------------------------------------------------------------------------------------------------------


def delete_beats_an_edit(patch):
    patch.setattr(deletes, "_knows_less", lambda draft, link, side: False)


def delete_over_an_open_conflict(patch):
    knows_less = deletes._knows_less

    def planted(draft, link, side):
        conflicts = [(other, other.conflict) for _, other in draft.others(side.uid)]
        for other, _ in conflicts:
            other.conflict = {}
        found = knows_less(draft, link, side)
        for other, kept in conflicts:
            other.conflict = kept
        return found

    patch.setattr(deletes, "_knows_less", planted)


def our_delete_taken_for_a_persons(patch):
    gone = deletes.gone

    def planted(record, side, sides, rid, now):
        link = record.links.get(side.uid)
        if link is not None and link.deleting is not None:
            record = record.with_link(side.uid, replace(link, deleting=None))
        return gone(record, side, sides, rid, now)

    patch.setattr(deletes, "gone", planted)


def delete_without_if_match(patch):
    note = Pusher._note_attempt

    def planted(self, task, draft, link, outward):
        note(self, task, draft, link, outward)
        if task.verb == "delete":
            task.write = replace(task.write, if_match="")

    patch.setattr(Pusher, "_note_attempt", planted)


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
    patch.setattr(apply.Applier, "_hold", apply.Applier._hold)
    redirect = Pusher._redirect

    def planted(self, task, rid):
        kept, self.engine.held.hold = self.engine.held.hold, lambda *_: None
        try:
            redirect(self, task, rid)
        finally:
            self.engine.held.hold = kept

    patch.setattr(Pusher, "_redirect", planted)


def match_to_a_dead_record_makes_a_new_one(patch):
    target = identity._target

    def planted(engine, tenant, entity, record_id):
        where, record = target(engine, tenant, entity, record_id)
        if record is not None and record.dead:
            record = replace(record, fields={})
        return where, record

    patch.setattr(identity, "_target", planted)


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


MUTANTS = {
    name: each
    for name, each in list(globals().items())
    if callable(each)
    and not name.startswith("_")
    and getattr(each, "__module__", "") == __name__
    and each is not Record
}

_BOTH = {"directions": ("both", "both"), "apps": True, "meddling": 0.3}
SHAPES = {
    "older_version_not_skipped": {**_BOTH, "kinds": ("b", "a"), "match": False},
    "update_without_if_match": {**_BOTH, "kinds": ("a", "c"), "deletes": 0.0},
    "no_busy_wait": {**_BOTH, "kinds": ("b", "b"), "match": False, "deletes": 0.0},
    "tie_skipped": {**_BOTH, "kinds": ("b", "b"), "match": False, "deletes": 0.0},
    "opaque_version_trusted": {**_BOTH, "kinds": ("c", "c"), "match": False, "deletes": 0.0},
    "settle_over_a_newer_read": {**_BOTH, "kinds": ("b", "b"), "match": False, "deletes": 0.0},
    "row_read_after_the_remote": {**_BOTH, "kinds": ("b", "c"), "match": False},
    "rejected_value_sent_again": {**_BOTH, "kinds": ("a", "b"), "bad": 0.2},
    "refused_kept_after_an_edit": {**_BOTH, "kinds": ("a", "b"), "bad": 0.2},
    "parked_kept_after_an_edit": {**_BOTH, "kinds": ("a", "b"), "bad": 0.2},
    "waits_kept_after_an_edit": {**_BOTH, "kinds": ("a", "b"), "entities": ("contact", "account")},
    "references_not_followed": {
        **_BOTH,
        "kinds": ("a", "a"),
        "match": True,
        "entities": ("contact", "account"),
    },
    "there_and_back_while_it_is_on_its_way": {**_BOTH, "kinds": ("b", "c"), "reverts": 0.5, "deletes": 0.0},
}
"""Where a fault shows in few of the worlds that a seed draws: what the others have to be like."""
